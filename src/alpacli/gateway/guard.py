"""The first thing a request meets, before any framework: limits, who may knock at all, and answers that are remembered.

A plain ASGI application around the other one. What it refuses costs next to nothing; what it remembers needs no routing.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any, Final

from alpacli.errors import AccessDenied, AlpacliError
from alpacli.gateway.access import Credentials, from_headers
from alpacli.gateway.answers import Refused, cache_headers, matches, refusal
from alpacli.gateway.parts import Parts

Event = MutableMapping[str, Any]  # Any: ASGI's own typing of a scope and its events
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
App = Callable[[Event, Receive, Send], Awaitable[None]]
Network = IPv4Network | IPv6Network

_SECRET_NAMES: Final = re.compile(
    rb"(?:^|&)(?:access_?token|token|jwt|bearer|auth(?:orization)?|key_?id|secret(?:_?key)?|api_?key|apca-api-[a-z-]+)=",
    re.IGNORECASE,
)
_JWT: Final = re.compile(rb"eyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}\.")
_SAFE: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"),
)
_NO_STORE: Final = (b"cache-control", b"no-store")
_HSTS: Final = (b"strict-transport-security", b"max-age=31536000")
_ANSWERS_CORS: Final = b"access-control-"


class Guard:
    """Wraps the application; ``allowed`` networks may connect, all of them when there is none in it."""

    def __init__(self, app: App, parts: Parts, allowed: Sequence[Network] = ()) -> None:
        self._app = app
        self._parts = parts
        self._allowed = tuple(allowed)

    async def __call__(self, scope: Event, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        try:
            self._look_at(scope)
        except AlpacliError as error:
            await self._refuse(scope, send, error)
            return
        if scope["type"] == "websocket":
            await self._app(scope, receive, send)
        elif not (scope["method"] == "GET" and await self._recall(scope, send)):
            await self._serve(scope, receive, send)

    # ------------------------------------------------------------------------------------------------ at the door

    def _look_at(self, scope: Event) -> None:
        """Refuse what no route may decide about.

        Raises:
            AccessDenied: an address that is not allowed, or a page of another site.
            Refused: too long, or with a secret where logs and histories keep it.
        """
        if self._allowed and not self._is_allowed(scope):
            raise AccessDenied("this address may not connect", "see --allow", status=403)
        raw_path, query = scope.get("raw_path") or b"", scope["query_string"]
        if len(raw_path) + len(query) > self._parts.limits.target_bytes:
            raise Refused("the URL is too long", "ask for less at once", status=414)
        if _SECRET_NAMES.search(query) or _JWT.search(query) or _JWT.search(raw_path):
            scope["query_string"] = b"***"  # what the access log shows
            if _JWT.search(raw_path):
                scope["path"] = scope["path"][:5] + "***"
            raise Refused(
                "a token does not belong into a URL, where logs keep it",
                "send it in the Authorization header; revoke it with `alpacli serve tokens --revoke ID` if it is real",
                status=400,
            )
        origin = _header(scope, b"origin")
        if origin and not _is_same_site(origin, _header(scope, b"host")):
            raise AccessDenied("pages of other sites may not use this gateway", "CORS is closed", status=403)
        length = _header(scope, b"content-length")
        if length.isdigit() and int(length[:12]) > self._parts.limits.body_bytes:
            raise self._too_large()

    def _is_allowed(self, scope: Event) -> bool:
        client = scope.get("client")
        try:
            address = ip_address(client[0]) if client else None
        except ValueError:
            address = None
        if address is None:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self._allowed)

    def _too_large(self) -> Refused:
        return Refused(f"the body is larger than {self._parts.limits.body_bytes} bytes", "send less", status=413)

    async def _refuse(self, scope: Event, send: Send, error: AlpacliError) -> None:
        response = refusal(scope["path"], error)
        prefix = "websocket.http.response" if scope["type"] == "websocket" else "http.response"
        headers = [*response.raw_headers, *_SAFE, (b"connection", b"close")]
        await send({"type": f"{prefix}.start", "status": response.status_code, "headers": headers})
        await send({"type": f"{prefix}.body", "body": response.body})

    # --------------------------------------------------------------------------------------------- what is remembered

    async def _recall(self, scope: Event, send: Send) -> bool:
        """Answer from memory, when there is something and the client may have it; false leaves it to the routes."""
        key = (scope["path"], scope["query_string"])
        parts = self._parts
        known = parts.remembered.find(key)
        if known is None or b"no-" in _header(scope, b"cache-control") or _has_body(scope):
            return False
        try:
            await parts.access.spend(await parts.access.admit(_credentials(scope["headers"]), "read"))
        except AlpacliError as error:
            await self._refuse(scope, send, error)
            return True
        headers = [*cache_headers(known, parts.clock.monotonic()), *_SAFE]
        body, status = known.body, 200
        if matches(_header(scope, b"if-none-match").decode("latin-1"), known.etag):
            body, status = b"", 304
        else:
            headers.append((b"content-type", known.content_type.encode()))
            headers.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        return True

    # ------------------------------------------------------------------------------------------------- everything else

    async def _serve(self, scope: Event, receive: Receive, send: Send) -> None:
        limits, clock = self._parts.limits, self._parts.clock
        until = clock.monotonic() + limits.request_s
        arrived, complete, started = 0, False, False

        async def receive_limited() -> Event:
            """Pass the body on, as long as it is small and keeps coming."""
            nonlocal arrived, complete
            if complete:
                return await receive()
            try:
                async with asyncio.timeout(max(until - clock.monotonic(), 0.0)):
                    event = await receive()
            except TimeoutError:
                raise Refused("the request did not arrive in time", "send it at once", status=408) from None
            arrived += len(event.get("body", b""))
            complete = not event.get("more_body", False)
            if arrived > limits.body_bytes:
                raise self._too_large()
            return event

        async def send_safely(event: Event) -> None:
            nonlocal started
            if event["type"] == "http.response.start":
                started = True
                event["headers"] = _safe_headers(event.get("headers", ()), tls=scope["scheme"] == "https")
            await send(event)

        try:
            await self._app(scope, receive_limited, send_safely)
        except Refused as error:
            if started:
                raise
            await self._refuse(scope, send, error)


def _safe_headers(headers: Iterable[tuple[bytes, bytes]], *, tls: bool) -> list[tuple[bytes, bytes]]:
    given = [(name.lower(), value) for name, value in headers if not name.lower().startswith(_ANSWERS_CORS)]
    names = {name for name, _ in given}
    added = [*_SAFE, _NO_STORE, *((_HSTS,) if tls else ())]
    return [*given, *(pair for pair in added if pair[0] not in names)]


def _has_body(scope: Event) -> bool:
    """Tell whether a body comes with the request, on which a route has the say."""
    return _header(scope, b"content-length") not in (b"", b"0") or _header(scope, b"transfer-encoding") != b""


def _header(scope: Event, wanted: bytes) -> bytes:
    for name, value in scope["headers"]:
        if name == wanted:
            found: bytes = value
            return found
    return b""


def _credentials(headers: Iterable[tuple[bytes, bytes]]) -> Credentials:
    wanted = (b"authorization", b"apca-api-key-id", b"apca-api-secret-key")
    return from_headers({name.decode(): value.decode("latin-1") for name, value in headers if name in wanted})


def _is_same_site(origin: bytes, host: bytes) -> bool:
    return origin.partition(b"://")[2].lower() == host.lower() != b""
