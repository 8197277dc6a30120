"""Whether the gateway lives (``/healthz``) and whether it can do its work (``/readyz``). Open to all, so it says little."""

import asyncio

from fastapi import APIRouter, Response

from alpacli.domain.values import to_json
from alpacli.gateway.parts import Parts


def router(parts: Parts) -> APIRouter:
    routes = APIRouter()

    @routes.get("/healthz", include_in_schema=False)
    async def healthz() -> Response:
        return Response(b'{"status":"ok"}', media_type="application/json")

    @routes.get("/readyz", include_in_schema=False)
    async def readyz() -> Response:
        """Answer 503 while Alpaca is not asked (the breaker is open) or the shared store is not the one that was set up."""
        limits = await asyncio.to_thread(parts.client.limits)
        store = parts.client.store_kind
        wanted = "redis" if parts.settings.redis_url else "sqlite"
        checks = {"upstream": limits.breaker != "open", "store": store == wanted}
        ready = all(checks.values())
        body = to_json({"status": "ready" if ready else "not ready", "checks": checks})
        return Response(body, 200 if ready else 503, media_type="application/json")

    return routes
