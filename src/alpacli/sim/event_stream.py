"""One client of server-sent events on the server: what is due, twenty times a second, until it leaves or nothing can come.

Events wait for a client that reads slowly: they are on the ledger, so none is dropped, and what waits is never more than what
the connection holds. A comment now and then says that the server is there, to the client and to whatever is between them.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from alpacli.errors import ConfigError
from alpacli.sim.answers import Refusal
from alpacli.sim.call import Follower
from alpacli.sim.exchange import Exchange
from alpacli.sim.pace import Pace
from alpacli.sim.sockets import TICK_S

_log = logging.getLogger(__name__)
_HEARTBEAT: Final = ": heartbeat\n\n"

_Event = MutableMapping[str, Any]  # Any: ASGI's own typing of its events


class EventStream:
    """The rest of an answer that has begun. ``is_ending`` tells that the server ends. Implements ``pace.Listener``."""

    listens = listens_closely = False

    def __init__(
        self,
        receive: Callable[[], Awaitable[_Event]],
        send: Callable[[_Event], Awaitable[None]],
        exchange: Exchange,
        follower: Follower,
        is_ending: Callable[[], bool],
        heartbeat_s: float,
        pace: Pace | None = None,
    ) -> None:
        self._receive = receive
        self._send = send
        self._exchange = exchange
        self._follower = follower
        self._is_ending = is_ending
        self._heartbeat_s = heartbeat_s
        self._pace = pace
        self._turn = asyncio.Lock()
        self._said_at = asyncio.get_running_loop().time()

    async def run(self) -> None:
        """Tell what happens until the client leaves, the server ends, or nothing can come; then end the answer."""
        left = asyncio.ensure_future(self._leave())
        if self._pace is not None:
            self._pace.join(self)
        try:
            while not (left.done() or self._follower.over or self._is_ending()):
                await asyncio.wait((left,), timeout=TICK_S)
                await self.tell()
                if asyncio.get_running_loop().time() - self._said_at >= self._heartbeat_s:
                    await self._say(_HEARTBEAT)
        finally:
            if self._pace is not None:
                self._pace.leave(self)
            left.cancel()
        await self._send({"type": "http.response.body", "body": b""})

    async def tell(self) -> None:
        """Send what is due."""
        async with self._turn:
            if not self._follower.over:
                text = await asyncio.to_thread(self._due)
                if text:
                    await self._say(text)

    async def echo(self) -> None:
        """Return at once: nothing that a client of events sends would be an answer."""

    async def _leave(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _say(self, text: str) -> None:
        self._said_at = asyncio.get_running_loop().time()
        await self._send({"type": "http.response.body", "body": text.encode(), "more_body": True})

    def _due(self) -> str:
        try:
            with self._exchange.desk(self._follower.account, changes=False) as desk:
                return self._follower.due(desk)
        except Refusal:  # no such account any more
            comment = "the exchange was reset"
        except ConfigError as error:
            _log.error("%s", error)
            comment = "internal server error"
        except Exception:  # noqa: BLE001 a defect ends one stream, not the server
            _log.exception("a stream of events")
            comment = "internal server error"
        self._follower.over = True
        return f": {comment}\n\n"
