"""One WebSocket connection of the server: a session's frames in and out, and whatever goes wrong on purpose.

Two tasks share a session: one obeys the client, the other asks twenty times a second what is due. What waits for the state
file runs in threads.
"""

import asyncio
import json
import logging
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from alpacli.errors import ConfigError
from alpacli.ports import async_sleep
from alpacli.sim.exchange import Exchange
from alpacli.sim.faults import Faults
from alpacli.sim.pace import Pace
from alpacli.sim.sockets import CHANNELS, PATHS, TICK_S, Limits, MarketSession, Occupancy, Session, open_session
from alpacli.wire.commands import encode_messages
from alpacli.wire.serving import TEXTS

if TYPE_CHECKING:
    from alpacli.sim.protocol import Connection

_log = logging.getLogger(__name__)
_SECOND_NS: Final = 1_000_000_000
_OVERSIZED: Final = 17 << 20

_Event = MutableMapping[str, Any]  # Any: ASGI's own typing of a scope and its events
Receive = Callable[[], Awaitable[_Event]]
Send = Callable[[_Event], Awaitable[None]]


class Conversation:
    """One client's connection from its request to its end. ``connection`` has a hand on the TCP connection."""

    def __init__(
        self,
        scope: _Event,
        receive: Receive,
        send: Send,
        exchange: Exchange,
        occupancy: Occupancy,
        limits: Limits,
        faults: Faults,
        connection: "Connection",
        pace: Pace | None = None,
    ) -> None:
        self._path: str = scope["path"]
        self._headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        self._receive = receive
        self._send = send
        self._exchange = exchange
        self._occupancy = occupancy
        self._limits = limits
        self._faults = faults
        self._connection = connection
        self._pace = pace
        self._session: Session | None = None
        self._began = faults.now()
        self._turn = asyncio.Lock()
        self._later: deque[tuple[float, str | bytes]] = deque()
        self._held: str | bytes | None = None
        self._silent = False
        self._closed = False

    async def run(self) -> None:
        """Serve the client until it leaves or has to go."""
        await self._receive()
        if self._path not in PATHS:
            await self._answer_http(404, "endpoint not found.")
            return
        rejection = self._faults.strike("reject", self._path, self._began)
        if rejection is not None:
            await self._answer_http(rejection.status, "the exchange was told to reject this connection")
            return
        try:
            session = await asyncio.to_thread(
                open_session, self._exchange, self._path, self._headers, self._occupancy, self._limits
            )
        except ConfigError as error:
            _log.error("%s", error)
            await self._answer_http(500, "internal server error occurred")
            return
        reporting: asyncio.Task[None] | None = None
        try:
            await self._dawdle()
            await self._send({"type": "websocket.accept"})
            async with self._turn:
                await self._say(session, await self._ask(session, session.begin))
            reporting = asyncio.create_task(self._report(session))
            self._session = session
            if self._pace is not None:
                self._pace.join(self)
            await self._obey(session)
        except OSError:
            _log.debug("a client of %s left", self._path)
        finally:
            if self._pace is not None:
                self._pace.leave(self)
            if reporting is not None:
                reporting.cancel()
                with suppress(asyncio.CancelledError):
                    await reporting
            session.close()

    async def _obey(self, session: Session) -> None:
        while True:
            event = await self._receive()
            if event["type"] != "websocket.receive":
                return
            if session.over:
                continue  # its goodbye is on the way, and what it still says does not matter
            text = event.get("text")
            frame = event["bytes"] if text is None else text
            async with self._turn:
                refusal = self._faults.strike("refuse", self._path, self._began, at_login=True)
                if refusal is not None:
                    answers = session.fail(refusal.code, TEXTS.get(refusal.code, "refused"))
                else:
                    answers = await self._ask(session, partial(session.receive, frame))
                await self._say(session, answers)
            if self._pace is not None:
                self._pace.heard()

    @property
    def listens(self) -> bool:
        return isinstance(self._session, MarketSession) and self._session.listens

    @property
    def listens_closely(self) -> bool:
        return isinstance(self._session, MarketSession) and self._session.listens_closely

    async def tell(self) -> None:
        """Send what is due, for a clock that does not wait for the next look. Implements ``pace.Listener``."""
        if self._session is not None and not self._closed:
            with suppress(OSError):  # the reporting task finds out too, and says so
                async with self._turn:
                    await self._report_once(self._session)

    async def echo(self) -> None:
        await self._connection.echo()

    async def _report(self, session: Session) -> None:
        """Tell what happens, and commit the faults that come with time."""
        try:
            while not self._closed:
                async with self._turn:
                    await self._report_once(session)
                await async_sleep(TICK_S)
        except OSError:
            _log.debug("a client of %s left", self._path)

    async def _report_once(self, session: Session) -> None:
        strike = self._faults.strike
        if not self._silent and (mute := strike("mute", self._path, self._began)) is not None:
            self._silent = True
            if mute.how == "silence":
                self._connection.mute()
        if isinstance(session, MarketSession):
            future = strike("future", self._path, self._began, count=False)
            session.ahead_ns = int(future.seconds * _SECOND_NS) if future is not None else 0
        refusal = strike("refuse", self._path, self._began, at_login=False) if not session.over else None
        if refusal is not None:
            await self._say(session, session.fail(refusal.code, TEXTS.get(refusal.code, "refused")))
            return
        now_ns = self._exchange.now_ns()
        question = partial(session.due, now_ns)
        frames = await self._ask(session, question) if session.reads_state else self._answer(session, question)
        if frames:
            strike("future", self._path, self._began)  # now it has
        if self._struck_down(frames):
            return
        if session.over:  # last words are not data
            await self._say(session, frames)
            return
        await self._put(self._in_time([shaped for frame in frames for shaped in self._shaped(session, frame)]))

    def _struck_down(self, frames: Sequence[str | bytes]) -> bool:
        """Drop the connection when it is time; in the middle of a frame only once there is one."""
        drop = self._faults.strike("drop", self._path, self._began, how="reset")
        if drop is None and frames:
            drop = self._faults.strike("drop", self._path, self._began, how="frame")
        if drop is None:
            return False
        self._closed = True
        if drop.how == "frame":
            self._connection.break_off(frames[0])
        else:
            self._connection.reset()
        return True

    async def _say(self, session: Session, frames: Sequence[str | bytes]) -> None:
        """Send what belongs to the conversation itself, and say goodbye when that was all."""
        if frames:
            await self._dawdle()
        await self._put(frames)
        if session.over and not self._closed and not self._silent:
            self._closed = True
            await self._send({"type": "websocket.close", "code": 1000})

    async def _put(self, frames: Sequence[str | bytes]) -> None:
        for frame in frames:
            if self._silent or self._closed:
                return
            await self._send({"type": "websocket.send", "text" if isinstance(frame, str) else "bytes": frame})

    async def _dawdle(self) -> None:
        slow = self._faults.strike("slow", self._path, self._began)
        if slow is not None:
            await async_sleep(slow.seconds)

    def _shaped(self, session: Session, frame: str | bytes) -> list[str | bytes]:
        """Return what becomes of a frame with data."""
        strike = self._faults.strike
        shaped = [frame]
        if strike("duplicate", self._path, self._began) is not None:
            shaped.append(frame)
        if self._held is not None:
            shaped.append(self._held)
            self._held = None
        elif strike("reorder", self._path, self._began) is not None:
            self._held = shaped.pop()
        garbage = strike("garbage", self._path, self._began)
        if garbage is not None:
            shaped.insert(0, _garbage(garbage.how, frame, market=self._path in CHANNELS))
        return shaped

    def _in_time(self, frames: Sequence[str | bytes]) -> list[str | bytes]:
        """Return what may be sent now; delayed frames wait their time, and later ones wait behind them."""
        now = self._faults.now()
        for frame in frames:
            delay = self._faults.strike("delay", self._path, self._began)
            self._later.append((now + delay.seconds if delay is not None else now, frame))
        ready: list[str | bytes] = []
        while self._later and self._later[0][0] <= now:
            ready.append(self._later.popleft()[1])
        return ready

    async def _ask(self, session: Session, question: Callable[[], list[str | bytes]]) -> list[str | bytes]:
        return await asyncio.to_thread(self._answer, session, question)

    def _answer(self, session: Session, question: Callable[[], list[str | bytes]]) -> list[str | bytes]:
        try:
            return question()
        except ConfigError as error:
            _log.error("%s", error)
        except Exception:  # noqa: BLE001 a defect ends one connection, not the server
            _log.exception("a connection to %s", self._path)
        return session.fail(500, "internal error")

    async def _answer_http(self, status: int, message: str) -> None:
        """Answer the request for an upgrade with something else."""
        self._closed = True
        body = json.dumps({"code": status * 100_000 + 10_000, "message": message}).encode()
        headers = [(b"Content-Type", b"application/json; charset=UTF-8")]
        await self._send({"type": "websocket.http.response.start", "status": status, "headers": headers})
        await self._send({"type": "websocket.http.response.body", "body": body})


def _garbage(how: str, frame: str | bytes, *, market: bool) -> str | bytes:
    """Return a frame that is wrong in a certain way, text or binary like the right one."""
    if how == "truncated":
        return frame[: len(frame) // 2]
    text = isinstance(frame, str)
    if how == "oversized":
        return " " * _OVERSIZED if text else b" " * _OVERSIZED
    if how == "unknown" and market:
        return encode_messages([{"T": "zz", "S": "AAPL", "x": 1}], "json" if text else "msgpack")
    if how == "unknown":
        return b'{"stream":"zz","data":{"event":"zz"}}'
    return '[{"T":"t","S":' if text else b"\x93\xc1"
