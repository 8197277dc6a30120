"""How a request of HTTP gets in: its credentials, its client's own allowance, and for a trade its signature."""

import asyncio
from collections.abc import Awaitable, Callable

from fastapi import Request

from alpacli.broker.outcomes import acting_for
from alpacli.gateway.access import from_headers
from alpacli.gateway.chronicle import CLIENT
from alpacli.gateway.parts import Parts
from alpacli.gateway.tokens import Grant


async def admit(parts: Parts, request: Request, scope: str) -> Grant:
    """Let a request in, or raise.

    Raises:
        AccessDenied: 401 or 403.
        BudgetExhausted: the client has used its own allowance.
    """
    grant = await parts.access.admit(from_headers(request.headers), scope)
    request.scope[CLIENT] = grant.name
    acting_for.set(grant.name)
    await parts.access.spend(grant)
    if scope == "trade" and parts.access.needs_signature(grant):
        body = await request.body()
        target = request.scope["raw_path"].decode("latin-1")
        if request.scope["query_string"]:
            target += "?" + request.scope["query_string"].decode("latin-1")
        await asyncio.to_thread(
            parts.signatures.check, grant, request.method, target, body, dict(request.headers.items())
        )
    return grant


def may(parts: Parts, scope: str) -> Callable[[Request], Awaitable[Grant]]:
    """Return the dependency that lets in who may ``scope``."""

    async def check(request: Request) -> Grant:
        return await admit(parts, request, scope)

    return check
