"""The dashboard at ``/``: one page without a build step. The shell is empty and open to all; what it shows needs a token.

The page signs in with a token that it keeps for its tab alone, reads ``/api/v1/broker/…`` and listens to the relay.
"""

from collections.abc import Awaitable, Callable
from functools import lru_cache
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Response

from alpacli.gateway.parts import Parts

_CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_FILES: Final = {
    "/": ("panel.html", "text/html"),
    "/panel.css": ("panel.css", "text/css"),
    "/panel.js": ("panel.js", "text/javascript"),
    "/panel.svg": ("panel.svg", "image/svg+xml"),
    "/favicon.ico": ("panel.svg", "image/svg+xml"),  # what browsers ask for on the other pages
}


def router(parts: Parts) -> APIRouter:
    routes = APIRouter(include_in_schema=False)
    for path, (name, media_type) in _FILES.items():
        routes.add_api_route(path, _page(name, media_type), methods=["GET"], response_class=Response)
    return routes


def _page(name: str, media_type: str) -> Callable[[], Awaitable[Response]]:
    async def page() -> Response:
        headers = {"content-security-policy": _CSP, "cache-control": "no-cache"}
        return Response(_file(name), headers=headers, media_type=media_type)

    return page


@lru_cache
def _file(name: str) -> bytes:
    return (Path(__file__).parent / "pages" / name).read_bytes()
