"""How fast replayed time goes: at a multiple of real time, as fast as its clients can follow, or as it is told.

As fast as they can follow means: from one moment of the data to the next, once every socket has taken what it was told and
no request is being served. That a client has taken it is what its answers to pings say. A ping is answered by the client's
event loop, so three in a row come back only when the loop has been free again, after the handlers that the data woke: a
strategy whose handler sends an order has its order in before time goes on. While time waits, every request still takes ten
milliseconds of it, so that whoever asks again and again whether an order is filled gets to that moment. What a client does
and when is then a matter of the data alone, and the same strategy on the same files makes the same bytes.
"""

import asyncio
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Protocol

from alpacli.errors import UsageError
from alpacli.ports import Clock, async_sleep
from alpacli.sim.answers import SECOND_NS, timestamp
from alpacli.sim.stepping import SteppedClock

REQUEST_NS: Final = 10_000_000
"""What a request takes of the time that waits for it."""

_ECHOES: Final = 3
_LOOK_S: Final = 0.02
_SETTLE_S: Final = 0.25
_BUSY_S: Final = 0.0005
_US_NS: Final = 1000


class Listener(Protocol):
    """A client's connection, as time needs to know it."""

    @property
    def listens(self) -> bool:
        """Whether it waits for market data."""

    @property
    def listens_closely(self) -> bool:
        """Whether it waits for more than bars."""

    async def tell(self) -> None:
        """Send what is due."""

    async def echo(self) -> None:
        """Return when the client has answered a ping, or is gone."""


class ReplayClock(SteppedClock):
    """Time from ``begin_ns`` to ``end_ns``, where it stops; with ``speed`` it flows, that many times as fast as real time.

    It begins to flow with ``start``. Implements ``ports.Clock``.
    """

    def __init__(self, real: Clock, begin_ns: int, end_ns: int, speed: float | None = None) -> None:
        super().__init__(real, begin_ns / SECOND_NS)
        self.begin_ns = begin_ns
        self.end_ns = end_ns
        self._speed = speed
        self._started: float | None = None

    @property
    def over(self) -> bool:
        return self.time() >= self.end_ns / SECOND_NS

    @property
    def now_ns(self) -> int:
        return round(self.time() * 1_000_000) * _US_NS

    def start(self) -> None:
        if self._started is None:
            self._started = self._real.monotonic()

    def time(self) -> float:
        flowed = 0.0
        if self._speed is not None and self._started is not None:
            flowed = (self._real.monotonic() - self._started) * self._speed
        return min(self._now + flowed, self.end_ns / SECOND_NS)

    def advance(self, seconds: float) -> None:
        if not 0 <= seconds < float("inf"):
            raise UsageError(f"the clock cannot go on by {seconds:g} s", "give a number of seconds")
        with self._lock:
            self._now += seconds

    def set(self, at: float, *, unused: bool = False) -> None:
        """Go on to a time; where the replay begins is what its files say, also before anybody used it."""
        now = self.time()
        if at < now:
            raise UsageError("the clock only goes forward", "begin the replay again")
        self.advance(at - now)

    def go_to(self, at_ns: int) -> None:
        """Go on to an instant, exactly."""
        with self._lock:
            self._now = max(self._now, at_ns / SECOND_NS)

    def told(self) -> dict[str, object]:
        return {"ends": timestamp(self.end_ns), "over": self.over}


class Pace:
    """Moves a replay's clock on, and knows when it is over.

    ``bars`` and ``ticks`` are the moments at which there is something to tell to those who listen to bars only, and to
    everybody; without them the clock flows by itself, or somebody else moves it. Lives in one event loop.
    """

    def __init__(
        self, clock: ReplayClock, bars: Sequence[int] | None = None, ticks: Sequence[int] | None = None
    ) -> None:
        self.clock = clock
        self._bars = bars
        self._ticks = ticks or ()
        self._listeners: set[Listener] = set()
        self._busy = 0
        self._served = 0
        self._quiet_since = 0.0

    def join(self, listener: Listener) -> None:
        self.clock.start()
        self._listeners.add(listener)
        self.heard()

    def leave(self, listener: Listener) -> None:
        self._listeners.discard(listener)

    def heard(self) -> None:
        """Take note that a client said something."""
        self._quiet_since = self.clock.monotonic()

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Serve a request meanwhile."""
        self.clock.start()
        if self._bars is not None:
            self.clock.go_to(min(self.clock.now_ns + REQUEST_NS, self._next_ns() - _US_NS))
        self._busy += 1
        self._served += 1
        try:
            yield
        finally:
            self._busy -= 1
            self.heard()

    def quiet_for_s(self) -> float:
        """Return how long nobody has said anything."""
        return 0.0 if self._busy else self.clock.monotonic() - self._quiet_since

    async def tell(self) -> None:
        """Let every socket say what is due now."""
        await asyncio.gather(*(listener.tell() for listener in self._listeners))

    async def run(self) -> None:
        """Return when the replay is over."""
        while self._bars is not None and not self._ready():
            await async_sleep(_LOOK_S)
        while not self.clock.over:
            if self._bars is None or not any(listener.listens for listener in self._listeners):
                await async_sleep(_LOOK_S)
                continue
            self.clock.go_to(self._next_ns())
            await self.tell()
            await self._taken()

    def _ready(self) -> bool:
        """Tell whether somebody listens, and nobody has said anything new for a moment: all who want to are there."""
        return any(listener.listens for listener in self._listeners) and self.quiet_for_s() > _SETTLE_S

    def _next_ns(self) -> int:
        closely = any(listener.listens_closely for listener in self._listeners)
        moments = self._ticks if closely else self._bars or ()
        index = bisect_right(moments, self.clock.now_ns)
        return moments[index] if index < len(moments) else self.clock.end_ns

    async def _taken(self) -> None:
        """Wait until every client has taken what it was told, and done what it wanted to do about it."""
        served = -1
        while served != self._served:
            served = self._served
            for _ in range(_ECHOES):
                await asyncio.gather(*(listener.echo() for listener in self._listeners))
            while self._busy:
                await async_sleep(_BUSY_S)
