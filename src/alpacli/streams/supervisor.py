"""Keeps one conversation alive: dials, waits for the confirmation, notices silence, starts again, and tells of all of it.

The supervisor never gives up by itself: whoever listens decides how many attempts are enough. Only what would not heal ends
it (wrong keys, a feed that is not in the plan).
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

from alpacli.domain.ticks import Interest
from alpacli.errors import AlpacliError, StreamLost
from alpacli.ports import Clock, Dial, Randomness, Socket, async_sleep
from alpacli.streams.batch import Batch
from alpacli.streams.events import Connecting, Event, Gap, Health, Live, Reconnecting
from alpacli.streams.session import Action, Session, Step
from alpacli.wire.frames import Message

FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 8.0
HEALTHY_S: Final = 60.0
"""A connection that was live for this long makes the next loss the first in a row."""

STEP_S: Final = 10.0
"""The server has to answer each step up to the confirmation within this time."""

_MOST_TICKS_AT_ONCE: Final = 500
"""So many are still in the processor's cache when they are written as lines (``make bench``, ``ndjson``)."""


class Sink(Protocol):
    """Who listens. Called from the event loop; must return at once."""

    def batch(self, batch: Batch) -> None: ...

    def event(self, event: Event) -> None: ...


class Source(Protocol):
    """Where ticks come from: a supervised connection of one's own, the hub, or a recording."""

    async def run(self, sink: Sink) -> None:
        """Deliver until canceled or over.

        Raises:
            AlpacliError: it is over and will not heal.
        """

    def change(self, action: Action, interest: Interest) -> Awaitable[None]:
        """Add or remove symbols, now or as soon as there is a connection. ``Live`` or ``Refused`` tells how it went."""

    def pause(self) -> None:
        """Read no more until ``resume``: whoever listens cannot keep up."""

    def resume(self) -> None: ...

    def watch_for_silence(self, stale_after_s: float) -> None:
        """Replace a connection that has given no sign of life for this long."""


class Shareable(Source, Protocol):
    """A source that several can share: it tells what it wants, and lets go of what was refused; a ``Supervisor``."""

    wanted: Interest

    @property
    def settled(self) -> bool:
        """Tell whether everything that is wanted is confirmed."""

    def forget(self, interest: Interest) -> None:
        """Want this no more, without telling the server: it has refused it."""


class Supervisor:
    """A connection of one's own."""

    def __init__(
        self,
        dial: Dial,
        make_session: Callable[[Interest], Session],
        wanted: Interest,
        *,
        clock: Clock,
        rng: Randomness,
        stale_after_s: float = 30.0,
        sleep: Callable[[float], Awaitable[None]] = async_sleep,
    ) -> None:
        self.wanted = wanted
        self._health = Health(0, 0)
        self._dial = dial
        self._make_session = make_session
        self._clock = clock
        self._rng = rng
        self._stale_after_s = stale_after_s
        self._sleep = sleep
        self._socket: Socket | None = None
        self._session: Session | None = None
        self._heard_at = clock.monotonic()
        self._heard_ns = 0
        self._live_at: float | None = None
        self._lost_ns: int | None = None
        self._unpaused = asyncio.Event()
        self._unpaused.set()

    async def run(self, sink: Sink) -> None:
        attempt = 0
        while True:
            reason = await self._connection(sink)
            if not reason.retryable:
                raise reason
            if self._live_at is not None and self._clock.monotonic() - self._live_at >= HEALTHY_S:
                attempt = 0
            if self._live_at is not None:
                self._lost_ns = self._heard_ns
            self._live_at = None
            attempt += 1
            wait_s = self._pause_s(attempt, reason)
            sink.event(Reconnecting(attempt, wait_s, reason.message, reason.hint, reason.code))
            await self._sleep(wait_s)

    def change(self, action: Action, interest: Interest) -> Awaitable[None]:
        self.wanted = self.wanted | interest if action == "subscribe" else self.wanted - interest
        return self._ask(action, interest)

    async def _ask(self, action: Action, interest: Interest) -> None:
        if self._session is not None and self._session.live and self._socket is not None:
            await self._send(self._socket, self._session.change(action, interest))

    @property
    def settled(self) -> bool:
        """Tell whether the server has answered all that was asked of it."""
        return self._session is not None and self._session.live and not self._session.waiting

    def forget(self, interest: Interest) -> None:
        """Want no longer what the server refused, so that the next connection does not ask for it again."""
        self.wanted = self.wanted - interest

    def pause(self) -> None:
        self._unpaused.clear()

    def resume(self) -> None:
        self._unpaused.set()

    def watch_for_silence(self, stale_after_s: float) -> None:
        self._stale_after_s = stale_after_s

    # --------------------------------------------------------------------------------------- one connection

    async def _connection(self, sink: Sink) -> AlpacliError:
        """Hold one connection as long as it lasts, and return what ended it."""
        sink.event(Connecting("connecting"))
        try:
            socket = await self._dial()
        except AlpacliError as error:
            return error
        end: AlpacliError = StreamLost("the connection ended")
        asked_for = self.wanted
        session = self._make_session(asked_for)
        self._socket, self._session = socket, session
        self._hear()
        try:
            first, step = session.begin()
            if step != "connecting":
                sink.event(Connecting(step))
            await self._send(socket, first)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._watch(socket, session))
                tasks.create_task(self._read(socket, session, asked_for, sink))
        except* AlpacliError as group:
            end = _first(group)
        finally:
            self._socket = self._session = None
            await socket.close()
        return end

    async def _read(self, socket: Socket, session: Session, asked_for: Interest, sink: Sink) -> None:
        """Read frame after frame; what arrived together is delivered together.

        ``recv`` does not give way to the event loop while frames are queued, so the delivery that is called soon runs when
        the queue is empty.
        """
        collected: list[Message] = []
        loop = asyncio.get_running_loop()

        def deliver() -> None:
            nonlocal collected
            ticks, collected = collected, []
            if ticks:
                sink.batch(Batch.of_ticks(ticks))

        try:
            while True:
                if not self._unpaused.is_set():
                    await self._unpaused.wait()
                    self._hear()  # we did not listen: that is no silence
                frame = await socket.recv()
                self._hear()
                step = session.receive(frame)
                if step.unknown or step.bad:
                    self._count(step, sink)
                if step.ticks:
                    if not collected:
                        loop.call_soon(deliver)
                    collected += step.ticks
                    if len(collected) >= _MOST_TICKS_AT_ONCE:
                        deliver()
                if step.send:
                    await self._send(socket, step.send)
                for event in step.events:
                    deliver()
                    await self._tell(event, session, asked_for, sink)
        finally:
            deliver()

    def _count(self, step: Step, sink: Sink) -> None:
        self._health = Health(self._health.unknown + step.unknown, self._health.bad_frames + step.bad)
        sink.event(self._health)

    async def _tell(self, event: Event, session: Session, asked_for: Interest, sink: Sink) -> None:
        if not isinstance(event, Live):
            sink.event(event)
            return
        first = self._live_at is None
        if first:
            self._live_at = self._clock.monotonic()
        sink.event(event)
        if not first:
            return
        if self._lost_ns is not None:
            sink.event(Gap(self._lost_ns, self._now_ns()))
            self._lost_ns = None
        # What changed while the subscription was on its way.
        for action, interest in (("subscribe", self.wanted - asked_for), ("unsubscribe", asked_for - self.wanted)):
            if interest and self._socket is not None:
                await self._send(
                    self._socket, session.change("subscribe" if action == "subscribe" else "unsubscribe", interest)
                )

    async def _watch(self, socket: Socket, session: Session) -> None:
        """End the connection when it is mute: no frame and no pong for too long, or no next step in the handshake."""
        began = self._clock.monotonic()
        pinging: asyncio.Task[None] | None = None
        try:
            while True:
                await self._sleep(min(self._stale_after_s / 8, 1.0))
                now = self._clock.monotonic()
                if not session.live and now - began > STEP_S:
                    raise StreamLost(
                        f"the server did not confirm within {STEP_S:g} s", "check the stream URL and the feed"
                    )
                silent_s = now - self._heard_at
                if silent_s > self._stale_after_s and self._unpaused.is_set():
                    raise StreamLost(
                        f"no sign of life for {silent_s:.0f} s",
                        "alpacli reconnects by itself, after the silence that stale_after (--stale-after) allows",
                    )
                if silent_s > self._stale_after_s / 4 and (pinging is None or pinging.done()):
                    pinging = asyncio.ensure_future(self._ping(socket))
        finally:
            if pinging is not None:
                pinging.cancel()

    async def _ping(self, socket: Socket) -> None:
        try:
            await socket.ping()
        except AlpacliError:
            return  # the reader learns of the same loss
        self._hear()

    async def _send(self, socket: Socket, messages: Sequence[str | bytes]) -> None:
        for message in messages:
            await socket.send(message)

    def _hear(self) -> None:
        self._heard_at = self._clock.monotonic()
        self._heard_ns = self._now_ns()

    def _now_ns(self) -> int:
        return int(self._clock.time() * 1_000_000) * 1000

    def _pause_s(self, attempt: int, reason: AlpacliError) -> float:
        """Return half a second doubling to eight, of which half is random; what the server asks for is honored."""
        from tenacity import RetryCallState, wait_exponential

        state = RetryCallState(None, None, (), {})  # type: ignore[arg-type] # the waits read only the attempt's number
        state.attempt_number = attempt
        pause_s = wait_exponential(multiplier=FIRST_PAUSE_S, max=LONGEST_PAUSE_S)(state)
        return max(pause_s * (0.5 + self._rng.random() / 2), reason.retry_after or 0.0)


def _first(group: BaseExceptionGroup[AlpacliError]) -> AlpacliError:
    """Return the error that says most: one that ends the stream before one that only loses the connection."""
    errors: list[AlpacliError] = []
    for error in group.exceptions:
        errors += [_first(error)] if isinstance(error, BaseExceptionGroup) else [error]
    return min(errors, key=lambda error: error.retryable)
