"""The page that describes the API, ``/docs``: Swagger UI from this machine, no third-party host, nothing inline.

The page itself is empty; it signs in with a token and then asks for ``/openapi.json``.
"""

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Depends, FastAPI, Request, Response

from alpacli.errors import NotFound
from alpacli.gateway.door import may
from alpacli.gateway.parts import Parts

_CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_OWN: Final = {"docs.js": "text/javascript", "docs.css": "text/css"}
_SWAGGER: Final = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}


def router(parts: Parts) -> APIRouter:
    routes = APIRouter(include_in_schema=False)

    @routes.get("/docs")
    async def page() -> Response:
        return _served(_own_file("docs.html"), "text/html")

    @routes.get("/docs/{name}")
    async def asset(name: str) -> Response:
        if name in _OWN:
            return _served(_own_file(name), _OWN[name])
        if name in _SWAGGER:
            return _served(_swagger_file(name), _SWAGGER[name])
        raise NotFound("there is no such page", "see /docs", status=404)

    @routes.get("/openapi.json", dependencies=[Depends(may(parts, "read"))])
    async def description(request: Request) -> Response:
        app: FastAPI = request.app
        return _served(_described(app), "application/json")

    return routes


def _served(body: bytes, media_type: str) -> Response:
    headers = {"content-security-policy": _CSP, "cache-control": "no-cache"}
    return Response(body, headers=headers, media_type=media_type)


@lru_cache
def _own_file(name: str) -> bytes:
    return (Path(__file__).parent / "pages" / name).read_bytes()


@lru_cache
def _swagger_file(name: str) -> bytes:
    """Read a file of Swagger UI, which ``fastapi-offline`` brings; none of its code runs."""
    found = find_spec("fastapi_offline")
    if found is None or not found.submodule_search_locations:
        raise NotFound("Swagger UI is not installed", "install fastapi-offline", status=404)
    return (Path(found.submodule_search_locations[0]) / "static" / name).read_bytes()


@lru_cache
def _described(app: FastAPI) -> bytes:
    import json

    return json.dumps(app.openapi(), ensure_ascii=False, separators=(",", ":")).encode()
