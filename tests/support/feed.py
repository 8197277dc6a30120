"""A market data server on a real WebSocket that says just what a test wants said, in a thread of its own."""

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

CONNECTED = {"T": "success", "msg": "connected"}
AUTHENTICATED = {"T": "success", "msg": "authenticated"}
T0 = "2026-01-02T15:00:00."


def trade(number: int, symbol: str = "AAPL") -> dict[str, Any]:
    return {"T": "t", "S": symbol, "i": number, "x": "V", "p": 100.25, "s": 10, "t": f"{T0}{number:09d}Z", "z": "C"}


def quote(number: int, symbol: str = "AAPL") -> dict[str, Any]:
    sides = {"bp": 100.25, "bs": 100, "bx": "V", "ap": 100.5, "as": 200, "ax": "V"}
    return {"T": "q", "S": symbol, **sides, "t": f"{T0}{number:09d}Z", "z": "C"}


class Conversation:
    """One client's connection; what it asked for is in ``feed.asked``."""

    def __init__(self, feed: "Feed", socket: ServerConnection) -> None:
        self.feed = feed
        self.socket = socket
        self.channels: dict[str, set[str]] = {}

    async def say(self, *messages: dict[str, Any]) -> None:
        await self.socket.send(json.dumps(messages))
        self.feed.frames += 1

    async def hear(self) -> dict[str, Any]:
        command: dict[str, Any] = json.loads(await self.socket.recv())
        self.feed.asked.append(command)
        return command

    @property
    def updates(self) -> bool:
        """Tell whether this is about order updates."""
        return self.socket.request is not None and self.socket.request.path == "/stream"

    async def tell(self, stream: str, **data: Any) -> None:
        """Say something in the trading stream's way."""
        await self.socket.send(json.dumps({"stream": stream, "data": data}).encode())

    async def is_heard(self) -> None:
        """Wait until the client has read all that was said: a connection that is cut off takes along what was not."""
        await (await self.socket.ping())

    def go(self, half_a_frame: bytes = b"") -> None:
        """Leave without a word, or in the middle of a frame that was announced to be longer."""
        if half_a_frame:
            self.socket.transport.write(b"\x81\x7e\x0f\xff" + half_a_frame)
            self.socket.transport.close()
        else:
            self.socket.transport.abort()

    async def greet(self) -> None:
        """Get as far as being authenticated."""
        await self.say(CONNECTED)
        await self.hear()
        await self.say(AUTHENTICATED)

    async def obey(self) -> dict[str, Any]:
        """Do one subscribe or unsubscribe and confirm the complete state."""
        command = await self.hear()
        for channel in ("trades", "quotes", "bars"):
            symbols = set(command.get(channel, ()))
            had = self.channels.setdefault(channel, set())
            self.channels[channel] = had | symbols if command["action"] == "subscribe" else had - symbols
        await self.say({"T": "subscription", **{name: sorted(symbols) for name, symbols in self.channels.items()}})
        return command

    async def serve_subscriptions(self) -> None:
        while True:
            await self.obey()


Script = Callable[[Conversation], Awaitable[None]]


async def steadily(conversation: Conversation) -> None:
    """Send a trade of each subscribed symbol every 10 ms; numbers go on while nobody is connected: those are missed."""
    feed = conversation.feed
    await conversation.greet()
    await conversation.obey()
    feed.begin_to_tick()
    sent = feed.sent
    changes = asyncio.ensure_future(conversation.serve_subscriptions())
    try:
        while not changes.done():  # it ends when the client has gone
            await asyncio.sleep(0.01)
            for number in range(sent + 1, feed.sent + 1):
                sent = number
                if symbols := sorted(conversation.channels["trades"]):
                    await conversation.say(*(trade(number, symbol) for symbol in symbols))
    finally:
        changes.cancel()


async def one_at_a_time(conversation: Conversation) -> None:
    """As ``steadily``, for one client; whoever comes while it is there is turned away, as Alpaca does."""
    feed = conversation.feed
    if feed.open_now > 1:
        feed.turned_away += 1
        await conversation.say(CONNECTED)
        await conversation.hear()
        await conversation.say({"T": "error", "code": 406, "msg": "connection limit exceeded"})
        return
    await steadily(conversation)


class Feed:
    """Serves each connection with the next of the scripts; the last one serves all that follow.

    ``status`` answers every request with that HTTP status instead.
    """

    def __init__(self, *scripts: Script, status: int | None = None) -> None:
        self.asked: list[dict[str, Any]] = []
        self.connections = 0
        self.open_now = 0
        self.most_open = 0
        self.turned_away = 0
        self.sent = 0
        self.frames = 0
        self.url = ""
        self._status = status
        self._scripts = scripts or (steadily,)
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._server: Server | None = None
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._tasks: set[asyncio.Task[None] | None] = set()
        self._ticking: asyncio.Task[None] | None = None

    def begin_to_tick(self) -> None:
        """Count ``sent`` on from now, every 10 ms, whoever is connected."""
        if self._ticking is None:
            self._ticking = asyncio.get_running_loop().create_task(self._tick())
            self._tasks.add(self._ticking)

    async def _tick(self) -> None:
        while True:
            self.sent += 1
            await asyncio.sleep(0.01)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        async with serve(
            self._converse,
            "127.0.0.1",
            0,
            process_request=self._reject if self._status is not None else None,
            ping_interval=None,
            close_timeout=0.2,
        ) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            self.url = f"ws://127.0.0.1:{port}"
            self._ready.set()
            await self._stop.wait()
            for task in self._tasks:  # scripts sleep long, and the server would wait for them
                if task is not None:
                    task.cancel()

    def _reject(self, connection: ServerConnection, request: Request) -> Response:
        self.connections += 1
        answer = connection.respond(self._status or 0, "no\n")
        if self._status in (301, 302):
            answer.headers["Location"] = "ws://127.0.0.2:1/"
        return answer

    async def _converse(self, socket: ServerConnection) -> None:
        script = self._scripts[min(self.connections, len(self._scripts) - 1)]
        task = asyncio.current_task()
        self._tasks.add(task)
        self.connections += 1
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        try:
            await script(Conversation(self, socket))
        except ConnectionClosed:
            pass
        finally:
            self.open_now -= 1
            self._tasks.discard(task)
