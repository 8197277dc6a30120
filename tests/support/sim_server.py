"""A running exchange server in a thread, on a clock that may run faster than the real one, and a client that speaks to it."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.request import Request, urlopen

import msgpack
from websockets.asyncio.client import ClientConnection, connect

from alpacli.ports import SystemClock
from alpacli.sim.exchange import Exchange
from alpacli.sim.faults import Faults
from alpacli.sim.server import FAULTS_PATH, make_server
from alpacli.sim.sockets import Limits


class FastClock(SystemClock):
    """Wall-clock time that runs ``speed`` times as fast, from now or ``begin`` on; pauses and differences stay real."""

    def __init__(self, speed: float, begin: float | None = None) -> None:
        self._speed = speed
        self._began = time.time()
        self._begin = self._began if begin is None else begin

    def time(self) -> float:
        return self._begin + (time.time() - self._began) * self._speed


class SimServer:
    """Serves the exchange of a state directory while it is entered; ``url`` is its HTTP address, ``ws`` the other one."""

    def __init__(
        self, state_dir: Path, *, speed: float = 1.0, begin: float | None = None, limits: Limits | None = None
    ) -> None:
        self.exchange = Exchange(str(state_dir), FastClock(speed, begin))
        self.exchange.reset(rate_limit=0)
        self._server = make_server(self.exchange, limits or Limits(), Faults(SystemClock()))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.ws = self.url.replace("http", "ws")
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._listener]}, daemon=True)

    @property
    def being_served(self) -> int:
        """How many requests and connections it is busy with."""
        return len(self._server.server_state.tasks)

    def fault(self, kind: str, **switches: Any) -> None:
        """Set a fault through the server's own HTTP interface."""
        self.faults("POST", {"kind": kind, **switches})

    def faults(self, method: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        with urlopen(Request(self.url + FAULTS_PATH, data, method=method), timeout=10) as answer:
            return json.loads(answer.read())

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        assert not self._thread.is_alive()
        self._listener.close()
        self.exchange.close()


class Abrupt:
    """A client's socket in ``async with``; at the end it is cut, without the goodbye that a test would wait for."""

    socket: ClientConnection
    _connecting: connect

    async def __aenter__(self) -> Self:
        self.socket = await self._connecting
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.transport.abort()


class Client(Abrupt):
    """A client of one endpoint that reads and writes whole messages; use it in ``async with``."""

    def __init__(
        self,
        server: SimServer,
        path: str,
        *,
        encoding: str = "json",
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        self._encoding = encoding
        sent = {"Content-Type": f"application/{encoding}", **(headers or {})}
        self._connecting = connect(
            server.ws + path, additional_headers=sent, proxy=None, ping_interval=None, max_size=1 << 26, **options
        )

    async def hear(self, within_s: float = 30.0) -> Any:
        """Return the next frame, decoded."""
        frame = await asyncio.wait_for(self.socket.recv(), within_s)
        if self._encoding == "msgpack":
            assert isinstance(frame, bytes)
            return msgpack.unpackb(frame, timestamp=2)
        return json.loads(frame)

    async def hear_for_ever(self, within_s: float = 10.0) -> None:
        """Read frames until there are no more, or none comes in time."""
        while True:
            await self.hear(within_s)

    async def say(self, **command: Any) -> None:
        packed = msgpack.packb(command) if self._encoding == "msgpack" else json.dumps(command)
        await self.socket.send(packed)

    async def ask(self, **command: Any) -> Any:
        """Say something and return the answer to it, past data that may come before."""
        await self.say(**command)
        while True:
            heard = await self.hear()
            if isinstance(heard, dict) or heard[0]["T"] in ("success", "error", "subscription"):
                return heard[0] if isinstance(heard, list) else heard

    async def log_in(self, key: str = "PK") -> Any:
        """Get as far as being authenticated on a market data endpoint."""
        assert (await self.hear())[0]["msg"] == "connected"
        return await self.ask(action="auth", key=key, secret="s")
