"""The exchange over HTTP and WebSocket: a small ASGI application around the same code as in process.

uvicorn serves it on the loopback interface. What reads may take its time, and runs in a thread. What changes something is
done at once: going to a thread and back costs as much as an order does; where it would have to wait for another transaction,
it goes to the thread too. uvicorn is imported when a server starts, not before.
"""

import asyncio
import json
import logging
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from functools import lru_cache
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

from alpacli.errors import ConfigError, UsageError
from alpacli.ports import Clock
from alpacli.sim.answers import timestamp
from alpacli.sim.conversation import Conversation
from alpacli.sim.event_stream import EventStream
from alpacli.sim.exchange import Exchange
from alpacli.sim.faults import Fault, Faults, fault_from
from alpacli.sim.pace import Pace
from alpacli.sim.rest import HttpAnswer, HttpRequest, handle
from alpacli.sim.sockets import Limits, Occupancy
from alpacli.sim.state import Busy
from alpacli.sim.stepping import CLOCK_PATH, SteppedClock, step

if TYPE_CHECKING:
    import uvicorn

_log = logging.getLogger(__name__)
_MOST_BODY_BYTES: Final = 1_000_000
_SHUTDOWN_S: Final = 2
_PING_EVERY_S: Final = 20.0
_MOST_FRAME_BYTES: Final = 16 << 20
_NO_LIMITS: Final = Limits()
_JSON: Final = {"Content-Type": "application/json; charset=UTF-8"}

RUN_PATH: Final = "/sim/run"
"""Where a running server tells which run of the exchange it is, and its time."""

FAULTS_PATH: Final = "/sim/faults"
"""Where a running server is told what should go wrong."""

_LOGGING: Final = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "plain": {"()": "uvicorn.logging.DefaultFormatter", "fmt": "%(levelprefix)s %(message)s"},
        "access": {
            "()": "uvicorn.logging.AccessFormatter",
            "fmt": '%(asctime)s.%(msecs)03d %(client_addr)s "%(request_line)s" %(status_code)s',
            "datefmt": "%Y-%m-%d %H:%M:%S",
        },
    },
    "handlers": {
        name: {"formatter": name, "class": "logging.StreamHandler", "stream": "ext://sys.stderr"}
        for name in ("plain", "access")
    },
    "loggers": {
        "uvicorn": {"handlers": ["plain"], "propagate": False},
        "uvicorn.access": {"handlers": ["access"], "propagate": False},
    },
}
"""What was asked and when goes to standard error, as everything that is not data."""

_Event = MutableMapping[str, Any]  # Any: ASGI's own typing of a scope and its events
_Receive = Callable[[], Awaitable[_Event]]
_Send = Callable[[_Event], Awaitable[None]]


class SimApp:
    """The ASGI application of one exchange."""

    def __init__(
        self,
        exchange: Exchange,
        limits: Limits,
        faults: Faults,
        stepped: SteppedClock | None = None,
        pace: Pace | None = None,
    ) -> None:
        self.is_ending: Callable[[], bool] = lambda: False
        """Whether the server is told to stop: what would go on without end has to know."""
        self._stepped = stepped
        self._pace = pace
        self._exchange = exchange
        self._limits = limits
        self._faults = faults
        self._occupancy = Occupancy()
        self._worker = ThreadPoolExecutor(1, "exchange")  # transactions of one process take turns anyway

    async def __call__(self, scope: _Event, receive: _Receive, send: _Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)

    async def _http(self, scope: _Event, receive: _Receive, send: _Send) -> None:
        body = await _read(receive)
        sent = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if body is None:
            answer = _error(413, 41310000, "request body is too large")
        elif scope["path"] == FAULTS_PATH:
            answer = self._switch_faults(scope["method"], sent, body)
        elif scope["path"] == RUN_PATH:
            answer = await asyncio.to_thread(self._tell_run, scope["method"], sent)
        elif scope["path"] == CLOCK_PATH and self._stepped is not None:
            answer = await asyncio.to_thread(self._step_clock, self._stepped, scope["method"], sent, body)
            if self._pace is not None:
                await self._pace.tell()
        else:
            request = HttpRequest(
                scope["method"],
                scope["path"],
                tuple(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)),
                sent,
                body,
            )
            with nullcontext() if self._pace is None else self._pace.serving():
                answer = await self._served(request)
        headers = {**answer.headers, "Content-Length": str(len(answer.body))}
        if answer.status == 204 or answer.follower is not None:
            del headers["Content-Length"]
        raw = [(_spelled(name), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": answer.status, "headers": raw})
        await send({"type": "http.response.body", "body": answer.body, "more_body": answer.follower is not None})
        if answer.follower is not None:
            await EventStream(
                receive,
                send,
                self._exchange,
                answer.follower,
                self.is_ending,
                self._limits.heartbeat_s,
                self._pace,
            ).run()

    async def _websocket(self, scope: _Event, receive: _Receive, send: _Send) -> None:
        from alpacli.wire.asgi import EXTENSION

        await Conversation(
            scope,
            receive,
            send,
            self._exchange,
            self._occupancy,
            self._limits,
            self._faults,
            scope["extensions"][EXTENSION],
            self._pace,
        ).run()

    def _switch_faults(self, method: str, headers: Mapping[str, str], body: bytes) -> HttpAnswer:
        """Answer ``/sim/faults``: GET shows what is set, POST adds one or a list of them, DELETE switches all off."""
        if "origin" in headers:  # a page in a browser has no business here, and needs no preflight for a POST
            return _error(403, 40310000, "not for web pages")
        if method == "DELETE":
            self._faults.clear()
        elif method == "POST":
            try:
                given = json.loads(body or b"null")
                self._faults.add([fault_from(fields) for fields in (given if isinstance(given, list) else [given])])
            except (ValueError, RecursionError):
                return _error(400, 40010000, "request body format is invalid")
            except UsageError as error:
                return _error(422, 42210000, f"{error}; {error.hint}")
        elif method != "GET":
            return _error(404, 40410000, "endpoint not found.")
        return HttpAnswer(200, dict(_JSON), json.dumps(self._faults.shown()).encode())

    def _tell_run(self, method: str, headers: Mapping[str, str]) -> HttpAnswer:
        """Answer ``/sim/run``: a replay's time begins to go with it, as with any request, but it takes none."""
        if "origin" in headers:
            return _error(403, 40310000, "not for web pages")
        if method != "GET":
            return _error(404, 40410000, "endpoint not found.")
        if self._pace is not None:
            self._pace.clock.start()
        try:
            told = {"run": self._exchange.run(), "timestamp": timestamp(self._exchange.now_ns())}
        except ConfigError as error:
            _log.error("%s", error)
            return _error(500, 50010000, "internal server error occurred")
        return HttpAnswer(200, dict(_JSON), json.dumps(told).encode())

    def _step_clock(self, clock: SteppedClock, method: str, headers: Mapping[str, str], body: bytes) -> HttpAnswer:
        """Answer ``/sim/clock``: GET tells the time, POST moves it on; then everything that was due has happened."""
        if "origin" in headers:
            return _error(403, 40310000, "not for web pages")
        if method == "POST":
            try:
                step(clock, body, unused=not self._exchange.has_accounts())
            except ValueError:
                return _error(400, 40010000, 'send {"advance": seconds} or {"set": "2026-01-05T14:30:00Z"}')
            except UsageError as error:
                return _error(422, 42210000, f"{error}; {error.hint}")
        elif method != "GET":
            return _error(404, 40410000, "endpoint not found.")
        now_ns = self._exchange.now_ns()
        told = {"timestamp": timestamp(now_ns), "is_open": self._exchange.market().hours.is_open(now_ns)}
        return HttpAnswer(200, dict(_JSON), json.dumps(told | clock.told()).encode())

    async def _served(self, request: HttpRequest) -> HttpAnswer:
        if request.method != "GET":
            with suppress(Busy):
                return self._answer(request, wait=False)
        return await asyncio.get_running_loop().run_in_executor(self._worker, self._answer, request)

    def _answer(self, request: HttpRequest, *, wait: bool = True) -> HttpAnswer:
        try:
            return handle(self._exchange, request, wait=wait)
        except Busy:
            raise
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
    faults: Sequence[Fault] = (),
    stepped: bool = False,
) -> None:
    """Serve the exchange until SIGTERM or Ctrl-C, which end it cleanly (the function returns).

    ``port`` 0 takes a free one. ``ready`` is called once with the URL when connections are accepted. ``faults`` are set from
    the beginning; ``/sim/faults`` changes them. With ``stepped`` time stands still until ``/sim/clock`` moves it.

    Raises:
        ConfigError: the host is not this machine's loopback, the port is taken, or the state file cannot be used.
    """
    _loopback_family(host)
    steps = SteppedClock(clock) if stepped else None
    exchange = Exchange(state_dir, steps or clock)
    try:
        with listening(host, port) as (listener, url):
            switches = Faults(clock)
            switches.add(faults)
            run(make_server(exchange, limits, switches, steps, access_log=access_log), listener, url, ready)
    finally:
        exchange.close()


@contextmanager
def listening(host: str, port: int) -> Iterator[tuple[socket.socket, str]]:
    """Listen on a loopback address; give the socket and the URL that it answers at.

    Raises:
        ConfigError: the host is not this machine's loopback, or the port is taken.
    """
    family = _loopback_family(host)
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # asyncio does it for sockets that say they are TCP, and this one does not: without it every answer after the first
        # waits 40 ms for the client's acknowledgment of its head.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            listener.bind(("127.0.0.1" if host == "localhost" else host, port))
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {host} port {port}: {error.strerror}", "choose another port, or 0 for a free one"
            ) from error
        listener.listen(128)
        name, bound = listener.getsockname()[:2]
        yield listener, f"http://[{name}]:{bound}" if family == socket.AF_INET6 else f"http://{name}:{bound}"


def make_server(
    exchange: Exchange,
    limits: Limits,
    faults: Faults,
    steps: SteppedClock | None = None,
    *,
    access_log: bool = False,
    pace: Pace | None = None,
) -> "uvicorn.Server":
    """Return the server of an exchange; it runs on a listening socket that it is given."""
    import uvicorn

    from alpacli.sim.protocol import Connection

    app = SimApp(exchange, limits, faults, steps, pace)
    config = uvicorn.Config(
        app,
        http="httptools",
        ws=Connection,
        ws_max_size=_MOST_FRAME_BYTES,
        ws_ping_interval=_PING_EVERY_S if pace is None else None,  # a strategy may think for minutes while time waits
        access_log=access_log,
        log_config=_LOGGING,
        log_level="info" if access_log else "warning",
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=_SHUTDOWN_S,
    )
    server = uvicorn.Server(config)
    app.is_ending = lambda: server.should_exit
    return server


def run(
    server: "uvicorn.Server",
    listener: socket.socket,
    url: str,
    ready: Callable[[str], None] | None,
    beside: Callable[[], Coroutine[Any, Any, None]] | None = None,
) -> None:
    """Run until told to stop, and something else beside it.

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
        if beside is None:
            server.run(sockets=[listener])
        else:
            asyncio.run(_serve_beside(server, listener, beside))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def _serve_beside(
    server: "uvicorn.Server", listener: socket.socket, beside: Callable[[], Coroutine[Any, Any, None]]
) -> None:
    """Serve, and end with what goes on beside it when that fails."""
    task = asyncio.create_task(beside())
    task.add_done_callback(lambda done: setattr(server, "should_exit", server.should_exit or _failed(done)))
    try:
        await server.serve(sockets=[listener])
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _failed(task: "asyncio.Task[None]") -> bool:
    return not task.cancelled() and task.exception() is not None


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
    return HttpAnswer(status, dict(_JSON), body)


@lru_cache(maxsize=64)
def _spelled(name: str) -> bytes:
    from alpacli.sim.protocol import Name

    return Name(name.encode("latin-1"))


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
