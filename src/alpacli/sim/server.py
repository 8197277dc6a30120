"""The exchange over HTTP and WebSocket: a small ASGI application around the same code as in process.

uvicorn serves it on the loopback interface.
What waits for SQLite runs in threads. uvicorn is imported when a server starts, not before.
"""

import asyncio
import json
import logging
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

from alpacli.errors import ConfigError
from alpacli.ports import Clock, async_sleep
from alpacli.sim.exchange import Exchange
from alpacli.sim.feed import Feed
from alpacli.sim.rest import HttpAnswer, HttpRequest, handle
from alpacli.sim.sockets import CHANNELS, TICK_S, Limits, MarketSession, Occupancy
from alpacli.wire.frames import Encoding

if TYPE_CHECKING:
    import uvicorn

_log = logging.getLogger(__name__)
_MOST_BODY_BYTES: Final = 1_000_000
_SHUTDOWN_S: Final = 2
_MOST_FRAME_BYTES: Final = 16 << 20
_NO_LIMITS: Final = Limits()

_Event = MutableMapping[str, Any]  # Any: ASGI's own typing of a scope and its events
_Receive = Callable[[], Awaitable[_Event]]
_Send = Callable[[_Event], Awaitable[None]]


class SimApp:
    """The ASGI application of one exchange."""

    def __init__(self, exchange: Exchange, limits: Limits = _NO_LIMITS) -> None:
        self._exchange = exchange
        self._limits = limits
        self._occupancy = Occupancy()

    async def __call__(self, scope: _Event, receive: _Receive, send: _Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)

    async def _http(self, scope: _Event, receive: _Receive, send: _Send) -> None:
        body = await _read(receive)
        if body is None:
            answer = _error(413, 41310000, "request body is too large")
        else:
            request = HttpRequest(
                scope["method"],
                scope["path"],
                tuple(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)),
                {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]},
                body,
            )
            answer = await asyncio.to_thread(self._answer, request)
        headers = {**answer.headers, "Content-Length": str(len(answer.body))}
        if answer.status == 204:
            del headers["Content-Length"]
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": answer.status, "headers": raw})
        await send({"type": "http.response.body", "body": answer.body})

    async def _websocket(self, scope: _Event, receive: _Receive, send: _Send) -> None:
        """Serve a market data connection: one task obeys the client, the other reports what happens."""
        await receive()
        if scope["path"] not in CHANNELS:
            await send({"type": "websocket.close"})  # before it is accepted: HTTP 403
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        encoding: Encoding = "msgpack" if "msgpack" in headers.get("content-type", "") else "json"
        market = await asyncio.to_thread(self._exchange.market)
        session = MarketSession(
            scope["path"],
            encoding,
            Feed(market.tape, market.hours),
            self._exchange.account_number,
            self._occupancy,
            self._limits,
            self._exchange.now_ns(),
        )
        await send({"type": "websocket.accept"})

        async def say(frames: Sequence[str | bytes]) -> None:
            for frame in frames:
                await send({"type": "websocket.send", "text" if isinstance(frame, str) else "bytes": frame})
            if session.over:
                await send({"type": "websocket.close", "code": 1000})

        async def report() -> None:
            while not session.over:
                await say(session.due(self._exchange.now_ns()))
                await async_sleep(TICK_S)

        reporting: asyncio.Task[None] | None = None
        try:
            await say(session.begin())
            reporting = asyncio.create_task(report())
            while not session.over:
                event = await receive()
                if event["type"] != "websocket.receive":
                    break
                frame = event.get("text")
                await say(await asyncio.to_thread(session.receive, event["bytes"] if frame is None else frame))
        except OSError:
            _log.debug("a client of %s left", scope["path"])
        finally:
            session.close()
            if reporting is not None:
                reporting.cancel()

    def _answer(self, request: HttpRequest) -> HttpAnswer:
        try:
            return handle(self._exchange, request)
        except ConfigError as error:
            _log.error("%s", error)
        except Exception:  # noqa: BLE001 a defect answers like Alpaca's own, and the next request is served
            _log.exception("%s %s", request.method, request.path)
        return _error(500, 50010000, "internal server error occurred")


def serve(
    state_dir: str,
    clock: Clock,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    ready: Callable[[str], None] | None = None,
    access_log: bool = False,
    limits: Limits = _NO_LIMITS,
) -> None:
    """Serve the exchange until SIGTERM or Ctrl-C, which end it cleanly (the function returns).

    ``port`` 0 takes a free one. ``ready`` is called once with the URL when connections are accepted.

    Raises:
        ConfigError: the host is not this machine's loopback, the port is taken, or the state file cannot be used.
    """
    import uvicorn

    family = _loopback_family(host)
    exchange = Exchange(state_dir, clock)
    try:
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1" if host == "localhost" else host, port))
            except OSError as error:
                raise ConfigError(
                    f"cannot listen on {host} port {port}: {error.strerror}", "choose another port, or 0 for a free one"
                ) from error
            listener.listen(128)
            name, bound = listener.getsockname()[:2]
            url = f"http://[{name}]:{bound}" if family == socket.AF_INET6 else f"http://{name}:{bound}"
            config = uvicorn.Config(
                SimApp(exchange, limits),
                ws="websockets-sansio",
                ws_max_size=_MOST_FRAME_BYTES,
                access_log=access_log,
                log_level="info" if access_log else "warning",
                lifespan="off",
                server_header=False,
                timeout_graceful_shutdown=_SHUTDOWN_S,
            )
            _run(uvicorn.Server(config), listener, url, ready)
    finally:
        exchange.close()


def _run(server: "uvicorn.Server", listener: socket.socket, url: str, ready: Callable[[str], None] | None) -> None:
    """Run until told to stop.

    uvicorn ends gracefully on a signal, and then raises it again for the handler that was there before it: ours, which has
    nothing left to do. Before uvicorn listens for signals, ours makes it stop as soon as it does.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, lambda *_: setattr(server, "should_exit", True))
    try:
        if ready is not None:
            ready(url)
        server.run(sockets=[listener])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _loopback_family(host: str) -> socket.AddressFamily:
    if host == "localhost":
        return socket.AF_INET
    try:
        address = ip_address(host)
    except ValueError:
        address = None
    if address is None or not address.is_loopback:
        raise ConfigError(
            f"{host} is not a loopback address", "the exchange serves this machine only: 127.0.0.1, ::1 or localhost"
        )
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def _error(status: int, code: int, message: str) -> HttpAnswer:
    body = json.dumps({"code": code, "message": message}).encode()
    return HttpAnswer(status, {"Content-Type": "application/json; charset=UTF-8"}, body)


async def _read(receive: _Receive) -> bytes | None:
    """Return the whole body, or ``None`` when it is larger than anything an order needs."""
    body = bytearray()
    while True:
        event = await receive()
        body += event.get("body", b"")
        if len(body) > _MOST_BODY_BYTES:
            return None
        if not event.get("more_body", False):
            return bytes(body)


async def _lifespan(receive: _Receive, send: _Send) -> None:
    while True:
        event = await receive()
        await send({"type": f"{event['type']}.complete"})
        if event["type"] == "lifespan.shutdown":
            return
