"""The application: which modules answer what, and what lives as long as it does.

A module of routes has ``router(parts) -> APIRouter``; what must run beside the requests is an async context manager in
``_BESIDE``. FastAPI's own pages are off: they load from third parties.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from alpacli import __version__
from alpacli.gateway import health
from alpacli.gateway.parts import Parts

_ROUTES = (health.router,)


def create_app(parts: Parts) -> FastAPI:
    """Return the whole gateway as one ASGI application."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await parts.client.close()

    app = FastAPI(
        title="alpacli gateway",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan,
    )
    for router in _ROUTES:
        app.include_router(router(parts))
    return app
