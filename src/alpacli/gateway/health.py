"""Whether the gateway lives (``/healthz``) and whether a load balancer should send it requests (``/readyz``).

Ready is a gateway that can answer. What all gateways share must not make them all unready at once, or a failure that each of
them rides out becomes an outage: without Redis the store of this machine takes over, and while Alpaca is not asked there
are still the cache and an answer that says when to come back. ``/readyz`` names both, and ``/metrics`` has them for alerts.
Only a key pair that Alpaca refuses, which may be this machine's alone, is a reason to go elsewhere. Both are open to all, so
they say little.
"""

import asyncio
from typing import Final

from fastapi import APIRouter, Response

from alpacli.domain.values import to_json
from alpacli.gateway.parts import Parts

_CHECK: Final = {"trading": "upstream", "data": "market_data"}


def router(parts: Parts) -> APIRouter:
    routes = APIRouter()

    @routes.get("/healthz", include_in_schema=False)
    async def healthz() -> Response:
        return Response(b'{"status":"ok"}', media_type="application/json")

    @routes.get("/readyz", include_in_schema=False)
    async def readyz() -> Response:
        """Answer 503 when Alpaca refuses the key pair."""
        limits = await asyncio.to_thread(parts.client.limits)
        refused = parts.tally.keys_refused
        checks = {
            "keys": "refused" if refused else "ok",
            **{_CHECK[one.host]: "not asked" if one.state == "open" else "ok" for one in limits.breakers},
            "store": "degraded" if is_degraded(parts) else "ok",
        }
        body = to_json({"status": "not ready" if refused else "ready", "checks": checks})
        return Response(body, 503 if refused else 200, media_type="application/json")

    return routes


def is_degraded(parts: Parts) -> bool:
    """Tell whether another store stands in for the one that was set up."""
    return parts.client.store_kind != ("redis" if parts.settings.redis_url else "sqlite")
