"""Alpaca's own paths: the official SDKs work by changing one URL, and get cache, budget, breaker and order safety with it.

Only what ``broker.forward`` lists is passed on, in a form that is made there; the client's spelling of a path goes nowhere.
"""

import asyncio
from typing import Final, cast
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request, Response

from alpacli.broker.forward import Route, find_route, kept_call
from alpacli.domain.batches import instant_text
from alpacli.domain.values import to_json
from alpacli.errors import NotFound
from alpacli.gateway.answers import Answer, answer, respond
from alpacli.gateway.door import admit
from alpacli.gateway.parts import Parts
from alpacli.history.runs import RUN_PATH
from alpacli.ports import Method
from alpacli.ports import Request as Outgoing
from alpacli.runtime import exchange_run

PREFIXES: Final = ("/v1", "/v2", "/v3", "/v1beta1", "/v1beta3")
_METHODS: Final = ["GET", "POST", "PUT", "PATCH", "DELETE"]
_FRESH: Final = ("no-cache", "no-store")


def router(parts: Parts) -> APIRouter:
    routes = APIRouter()
    client, clock = parts.client, parts.clock

    async def pass_on(request: Request) -> Response:
        await admit(parts, request, "read" if request.method == "GET" else "trade")
        route = find_route(request.scope["raw_path"].decode("latin-1"))
        if route is None or request.method not in route.methods:
            raise NotFound("endpoint not found.", status=404)
        outgoing = await _outgoing(request, route)
        if request.method != "GET":
            try:
                forwarded = await client.forward(route, outgoing)
            finally:
                parts.remembered.forget()
            return Response(forwarded.response.body, forwarded.response.status, dict(forwarded.response.headers))
        use_cache = not any(word in request.headers.get("cache-control", "") for word in _FRESH)
        kept = kept_call(route, outgoing)
        more: dict[str, str] = {}

        async def fetch() -> Answer:
            forwarded = await client.forward(route, outgoing, use_cache=use_cache)
            more.update(forwarded.response.headers)
            content_type = more.pop("content-type", "application/json")
            fresh_until = clock.monotonic() + (forwarded.fresh_s or 0.0)
            return answer(forwarded.response.body, fresh_until, content_type)

        if use_cache and kept is not None and client.lifetime_s(kept) > 0:
            key = (route.path, request.scope["query_string"])
            return respond(request, await parts.remembered.answer(key, fetch), clock.monotonic())
        return respond(request, await fetch(), clock.monotonic(), more)

    async def tell_run(request: Request) -> Response:
        """Tell which run of an exchange on this machine stands behind: who keeps what comes from there has to know."""
        await admit(parts, request, "read")
        run = await asyncio.to_thread(exchange_run, parts.settings, "data")
        if run is None:
            raise NotFound("endpoint not found.", status=404)
        told = {"run": run.name, "timestamp": instant_text(run.at_ns)}
        return Response(to_json(told), media_type="application/json")

    routes.add_api_route(RUN_PATH, tell_run, methods=["GET"], include_in_schema=False)
    for prefix in PREFIXES:
        routes.add_api_route(prefix + "/{rest:path}", pass_on, methods=_METHODS, include_in_schema=False)
    return routes


async def _outgoing(request: Request, route: Route) -> Outgoing:
    query = parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True)
    body = await request.body() if request.method != "GET" else b""
    return Outgoing(cast("Method", request.method), route.path, tuple(query), body or None, route.host)
