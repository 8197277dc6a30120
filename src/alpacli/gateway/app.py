"""The application: which modules answer what, and what lives as long as it does.

A module of routes has ``router(parts) -> APIRouter``; what must run beside the requests is an async context manager.
FastAPI's own pages are off: they load from third parties.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from alpacli import __version__
from alpacli.errors import AlpacliError, UsageError
from alpacli.gateway import alpaca_api, broker_api, docs, health, metrics, panel, sockets
from alpacli.gateway.answers import Refused, refusal
from alpacli.gateway.chronicle import Chronicle
from alpacli.gateway.guard import Guard, Network
from alpacli.gateway.parts import Parts
from alpacli.ports import async_sleep
from alpacli.store.halt import HaltSwitch

_ROUTES: Final = (
    *(health.router, metrics.router, panel.router, docs.router),
    *(broker_api.router, alpaca_api.router, sockets.router),
)
_REMIND_S: Final = 2.0
_THREADS: Final = 64
"""What the gateway itself asks of the store and of its files at the same time; the client has threads of its own."""


def create_app(parts: Parts, *, allowed: Sequence[Network] = ()) -> Chronicle:
    """Return the whole gateway as one ASGI application; only the ``allowed`` networks may connect, if there are any."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS, "gateway"))
        async with AsyncExitStack() as stack:
            stack.push_async_callback(parts.client.close)
            stack.push_async_callback(parts.relay.close)
            await stack.enter_async_context(parts.access.beside())
            await stack.enter_async_context(parts.webhooks.beside())
            await stack.enter_async_context(_reminding(parts.halt))
            yield

    app = FastAPI(
        title="alpacli gateway",
        version=__version__,
        description="One Alpaca paper account for many programs. Alpaca's own paths (/v2/…, /v1beta1/…) are here too.",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan,
    )
    for router in _ROUTES:
        app.include_router(router(parts))
    app.add_exception_handler(AlpacliError, _failed)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _no_route)
    app.add_exception_handler(Exception, _defect)
    return Chronicle(Guard(app, parts, allowed), parts.tally, parts.clock)


@asynccontextmanager
async def _reminding(halt: HaltSwitch) -> AsyncIterator[None]:
    """Tell a Redis that forgot the halt of this machine again, within seconds: others ask it with their next order."""

    async def remind() -> None:
        while True:
            await asyncio.to_thread(halt.remind)
            await async_sleep(_REMIND_S)

    reminding = asyncio.create_task(remind())
    try:
        yield
    finally:
        reminding.cancel()
        await asyncio.wait([reminding])


async def _failed(request: Request, error: Exception) -> Response:
    assert isinstance(error, AlpacliError)  # noqa: S101 # the only kind this is registered for
    return refusal(request.url.path, error)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 # the only kind this is registered for
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:])
    return refusal(request.url.path, UsageError(f"{where}: {first['msg']}", "see /docs"))


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 # the only kind this is registered for
    response = refusal(request.url.path, Refused(str(error.detail).lower(), "see /docs", status=error.status_code))
    response.headers.update(error.headers or {})
    return response


async def _defect(request: Request, error: Exception) -> Response:
    """Say that it is our fault; the server's log has the traceback."""
    return refusal(request.url.path, AlpacliError("a defect in the gateway", "its log says more", status=500))
