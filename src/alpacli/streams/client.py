"""A stream as its user sees it: confirmed before it begins, patient to a limit, gaps filled if wanted, ticks in order."""

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Literal, NamedTuple, Self, overload

import msgspec

from alpacli.domain.ticks import (
    AnyTick,
    Bar,
    Cancel,
    Correction,
    DailyBar,
    Imbalance,
    Interest,
    Luld,
    News,
    OrderBook,
    Quote,
    Status,
    Trade,
    TradeUpdate,
    UpdatedBar,
)
from alpacli.errors import AlpacliError, StreamLost, UsageError
from alpacli.ports import Clock
from alpacli.streams.batch import Batch, without_older_quotes
from alpacli.streams.events import Conflated, Event, Gap, GapFilled, Live, Reconnecting
from alpacli.streams.feeds import interest_in
from alpacli.streams.supervisor import Sink, Source
from alpacli.wire.frames import Message

Backfill = Callable[[Interest, int, int], Awaitable[Sequence[Message]]]
"""Fetch the trades and bars of an interest between two times (nanoseconds since 1970 UTC, inclusive), oldest first."""

DEFAULT_RECONNECTS: Final = 5
DEFAULT_BUFFER: Final = 200_000
_OVERLAP_NS: Final = 2_000_000_000
"""Fetch this much before a gap too: the exchange's clock and ours differ. What came twice is dropped."""

_REMEMBER_S: Final = 5.0
_log = logging.getLogger(__name__)


class Reception:
    """Runs a source into a sink until it is over: counts attempts, and fills gaps.

    ``reconnect`` is how many attempts in a row are allowed (``None``: any number). Up to ``buffer`` messages wait while a gap
    is filled. With ``conflate``, of the quotes beyond that only the latest of each symbol waits; without, or when that is not
    enough, the source is read no further until the gap is filled.
    """

    def __init__(
        self,
        source: Source,
        sink: Sink,
        *,
        clock: Clock,
        reconnect: int | None = DEFAULT_RECONNECTS,
        backfill: Backfill | None = None,
        wanted: Callable[[], Interest] = Interest,
        buffer: int = DEFAULT_BUFFER,
        conflate: bool = False,
    ) -> None:
        self.live = asyncio.Event()
        self._source = source
        self._sink = sink
        self._clock = clock
        self._reconnect = reconnect
        self._backfill = backfill
        self._wanted = wanted
        self._attempts = 0
        self._began_ns = 0
        self._gave_up: asyncio.Future[BaseException] | None = None
        self._filling: asyncio.Task[None] | None = None
        self._held: deque[Batch | Gap] = deque()
        self._held_messages = 0
        self._buffer = buffer
        self._conflate = conflate
        self._conflated = 0
        self._paused_for: set[str] = set()
        self._recent: deque[tuple[float, Batch]] = deque()
        self._seen: set[object] = set()
        self._seen_until = 0.0

    async def run(self) -> None:
        """Deliver until canceled, or until a recording ends.

        Raises:
            AlpacliError: it is over: refused, or lost more often in a row than allowed.
        """
        self._gave_up = asyncio.get_running_loop().create_future()
        running = asyncio.ensure_future(self._source.run(self))
        try:
            either: set[asyncio.Future[Any]] = {running, self._gave_up}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if self._gave_up.done():
                raise self._gave_up.result()
            await running
        finally:
            for task in (running, self._filling):
                if task is not None and not task.done():
                    task.cancel()
                    await asyncio.wait([task], timeout=2.0)

    def pause(self, why: str) -> None:
        """Have the source read no further until ``resume`` has been called for every reason that there was to pause."""
        self._paused_for.add(why)
        self._source.pause()

    def resume(self, why: str) -> None:
        self._paused_for.discard(why)
        if not self._paused_for:
            self._source.resume()

    # ------------------------------------------------------------------------------------------- as the sink

    def batch(self, batch: Batch) -> None:
        if self._backfill is None:
            self._sink.batch(batch)
        elif self._filling is not None:
            self._held.append(batch)
            self._held_messages += batch.count
            if self._held_messages > self._buffer:
                self._hold_less()
        else:
            self._deliver(batch)

    def event(self, event: Event) -> None:
        if isinstance(event, Live):
            self.live.set()
            self._began_ns = self._began_ns or int(self._clock.time() * 1_000_000) * 1000
        elif isinstance(event, Reconnecting):
            self._attempts = 1 if event.attempt == 1 else self._attempts + 1
            self.live.clear()
            if self._reconnect is not None and self._attempts > self._reconnect:
                self._give_up(event)
            else:
                self._sink.event(event)
            return
        self._sink.event(event)
        if isinstance(event, Gap) and self._backfill is not None:
            if self._filling is not None:
                self._held.append(event)
                return
            self._filling = asyncio.ensure_future(self._fill(self._backfill, event))
            self._filling.add_done_callback(self._filling_ended)

    def _give_up(self, event: Reconnecting) -> None:
        attempts = "1 attempt" if self._reconnect == 1 else f"{self._reconnect} attempts"
        after = f" after {attempts} to reconnect" if self._reconnect else ""
        self._end(
            StreamLost(
                f"the stream is lost{after}: {event.reason}",
                event.hint or "reconnect=None (--reconnect forever) keeps trying",
                code=event.code,
            )
        )

    def _end(self, error: BaseException) -> None:
        if self._gave_up is not None and not self._gave_up.done():
            self._gave_up.set_result(error)

    # ----------------------------------------------------------------------------------------------- filling

    def _deliver(self, batch: Batch) -> None:
        """Pass on, and remember what came lately: a fetch after a gap would bring it again."""
        now = self._clock.monotonic()
        if now < self._seen_until:
            batch = self._without_doubles(batch)
        elif self._seen:
            self._seen = set()
        self._recent.append((now, batch))
        while self._recent and self._recent[0][0] < now - _REMEMBER_S:
            self._recent.popleft()
        if batch.count:
            self._sink.batch(batch)

    async def _fill(self, backfill: Backfill, gap: Gap) -> None:
        """Fill a gap, and those that come meanwhile, each in its place among what is held back."""
        following: Gap | None = gap
        while following is not None:
            await self._fill_one(backfill, following)
            following = self._let_go()
        self._filling = None

    def _filling_ended(self, filling: asyncio.Task[None]) -> None:
        """End the run when filling failed as it must not: else what is held would be held for ever."""
        error = None if filling.cancelled() else filling.exception()
        if error is not None:
            self._end(error)

    async def _fill_one(self, backfill: Backfill, gap: Gap) -> None:
        self._seen |= {key for _, batch in self._recent for key in _keys(batch)}
        try:
            # Not from before the stream began: nobody asked for that.
            from_ns = max(gap.from_ns - _OVERLAP_NS, self._began_ns)
            missed = await backfill(self._wanted(), from_ns, gap.until_ns)
        except AlpacliError as error:
            filled = GapFilled(gap.from_ns, gap.until_ns, 0, error.message)
        else:
            found = self._without_doubles(Batch.of_ticks(missed))
            if found.count:
                self._sink.batch(found)
            filled = GapFilled(gap.from_ns, gap.until_ns, found.count)
        self._sink.event(filled)
        self._seen_until = self._clock.monotonic() + _REMEMBER_S

    def _hold_less(self) -> None:
        if self._conflate:
            newer: set[str] = set()
            kept: deque[Batch | Gap] = deque()
            before, self._held_messages = self._held_messages, 0
            for held in reversed(self._held):
                if isinstance(held, Gap):
                    kept.appendleft(held)
                elif lines := without_older_quotes(held.lines.splitlines(keepends=True), newer):
                    kept.appendleft(held if len(lines) == held.count else Batch.of_lines(b"".join(lines)))
                    self._held_messages += len(lines)
            self._held = kept
            self._conflated += before - self._held_messages
            self._sink.event(Conflated(self._conflated))
        if self._held_messages > self._buffer * 3 // 4:
            self.pause("filling")

    def _let_go(self) -> Gap | None:
        """Deliver what was held back up to the next gap, and return that."""
        while self._held:
            held = self._held.popleft()
            if isinstance(held, Gap):
                return held
            self._held_messages -= held.count
            self._deliver(held)
        self.resume("filling")
        return None

    def _without_doubles(self, batch: Batch) -> Batch:
        kept: list[bytes] = []
        for line in batch.lines.splitlines(keepends=True):
            key = _key(line)
            if key is None:
                kept.append(line)
            elif key not in self._seen:
                self._seen.add(key)
                kept.append(line)
        return batch if len(kept) == batch.count else Batch.of_lines(b"".join(kept))


_identified = msgspec.json.Decoder(AnyTick)


def _key(line: bytes) -> object:
    """Return what makes a trade or a bar the same one, or ``None`` for what may come any number of times."""
    try:
        tick = _identified.decode(line)
    except msgspec.DecodeError:
        return None
    if isinstance(tick, Trade):
        return (tick.symbol, tick.timestamp, tick.id, tick.exchange)
    if type(tick) is Bar:
        return ("bar", tick.symbol, tick.timestamp)
    return None


def _keys(batch: Batch) -> Iterable[object]:
    return (key for line in batch.lines.splitlines() if (key := _key(line)) is not None)


class _Arrivals(NamedTuple):
    """A stream's own side as a sink."""

    batch: Callable[[Batch], None]
    event: Callable[[Event], None]


class Stream:
    """Live data for programs: ``async with`` waits for the confirmation, ``async for`` gives ticks, ``on`` calls back.

    A reader that is too slow makes the stream wait: nothing is dropped here, and no more than ``buffer`` messages are held.

    Example::

        async with open_stream({"quotes": ["AAPL"], "trades": ["AAPL"]}) as stream:
            async for tick in stream:
                print(tick.symbol, tick.timestamp)
    """

    def __init__(
        self,
        source: Source,
        wanted: Interest,
        *,
        clock: Clock,
        reconnect: int | None = DEFAULT_RECONNECTS,
        backfill: Backfill | None = None,
        buffer: int = DEFAULT_BUFFER,
    ) -> None:
        self.interest = wanted
        self._source = source
        self._buffer = buffer
        self._reception = Reception(
            source,
            _Arrivals(self._take, self._tell),
            clock=clock,
            reconnect=reconnect,
            backfill=backfill,
            wanted=lambda: self.interest,
            buffer=buffer,
        )
        self._batches: deque[Batch] = deque()
        self._waiting = 0
        self._ticks: deque[AnyTick] = deque()
        self._arrived = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._closed = False
        self._callbacks: dict[str, list[Callable[[AnyTick], object]]] = {}
        self._listeners: list[Callable[[Event], object]] = []
        self.unreadable = 0

    async def __aenter__(self) -> Self:
        """Connect and wait for the server's confirmation.

        Raises:
            AlpacliError: refused, or not to be had within the allowed attempts.
            UsageError: it was closed, or is open already.
        """
        self._must_not_be_closed()
        if self._running is not None and not self._running.done():
            raise UsageError("the stream is open already", "`open_stream` makes another one")
        self._running = asyncio.ensure_future(self._reception.run())
        self._running.add_done_callback(lambda _: self._arrived.set())
        confirmed = asyncio.ensure_future(self._reception.live.wait())
        try:
            await asyncio.wait([self._running, confirmed], return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            self._running.cancel()
            raise
        finally:
            confirmed.cancel()
        if self._running.done():
            await self._running
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the stream at once: what has come and was not read is dropped. Closing twice does no harm.

        The connection, when it is shared, stays with the others.
        """
        self._closed = True
        self._ticks.clear()
        self._batches.clear()
        self._arrived.set()
        if self._running is not None and not self._running.done():
            self._running.cancel()
            await asyncio.wait([self._running], timeout=3.0)

    def _must_not_be_closed(self) -> None:
        if self._closed:
            raise UsageError("the stream is closed", "`open_stream` makes another one")

    def __aiter__(self) -> AsyncIterator[AnyTick]:
        """Begin to read. A loop that is in progress when the stream is closed ends; one that begins then is a mistake.

        Raises:
            UsageError: the stream is closed.
        """
        self._must_not_be_closed()
        return self

    async def __anext__(self) -> AnyTick:
        while not self._closed:
            if self._ticks:
                return self._ticks.popleft()
            if self._batches:
                self._unpack(self._batches.popleft())
                continue
            if self._running is None:
                raise UsageError("the stream is not open", "use it in `async with`")
            if self._running.done():
                if not self._running.cancelled():
                    self._running.result()
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        raise StopAsyncIteration

    @overload
    def on(self, kind: Literal["trade"], callback: Callable[[Trade], object]) -> None: ...

    @overload
    def on(self, kind: Literal["quote"], callback: Callable[[Quote], object]) -> None: ...

    @overload
    def on(self, kind: Literal["bar"], callback: Callable[[Bar], object]) -> None: ...

    @overload
    def on(self, kind: Literal["updated_bar"], callback: Callable[[UpdatedBar], object]) -> None: ...

    @overload
    def on(self, kind: Literal["daily_bar"], callback: Callable[[DailyBar], object]) -> None: ...

    @overload
    def on(self, kind: Literal["status"], callback: Callable[[Status], object]) -> None: ...

    @overload
    def on(self, kind: Literal["luld"], callback: Callable[[Luld], object]) -> None: ...

    @overload
    def on(self, kind: Literal["correction"], callback: Callable[[Correction], object]) -> None: ...

    @overload
    def on(self, kind: Literal["cancel"], callback: Callable[[Cancel], object]) -> None: ...

    @overload
    def on(self, kind: Literal["imbalance"], callback: Callable[[Imbalance], object]) -> None: ...

    @overload
    def on(self, kind: Literal["orderbook"], callback: Callable[[OrderBook], object]) -> None: ...

    @overload
    def on(self, kind: Literal["news"], callback: Callable[[News], object]) -> None: ...

    @overload
    def on(self, kind: Literal["trade_update"], callback: Callable[[TradeUpdate], object]) -> None: ...

    @overload
    def on(self, kind: str, callback: Callable[[AnyTick], object]) -> None: ...

    def on(self, kind: str, callback: Callable[[Any], object]) -> None:
        """Call back for each tick of a ``type`` (``trade``, ``quote`` …; ``*`` is all) while ``run`` runs.

        A callback may be ``async``; it is awaited before the next one. One that raises is logged, and the stream goes on.
        """
        self._callbacks.setdefault(kind, []).append(callback)

    def on_event(self, callback: Callable[[Event], object]) -> None:
        """Call back when the connection's state changes; see ``alpacli.streams.events``."""
        self._listeners.append(callback)

    async def run(self) -> None:
        """Serve the callbacks until the stream ends or ``close`` is called.

        Raises:
            AlpacliError: the stream is over: refused, or lost more often in a row than allowed.
            UsageError: the stream is closed, or not open yet.
        """
        async for tick in self:
            for callback in (*self._callbacks.get(tick.type, ()), *self._callbacks.get("*", ())):
                try:
                    result = callback(tick)
                    if inspect.isawaitable(result):
                        await result
                except Exception:  # noqa: BLE001 # somebody else's code; it is logged, and the others are still called
                    _log.exception("a callback for %s failed", tick.type)

    async def subscribe(self, channels: Mapping[str, Sequence[str]]) -> None:
        """Add symbols without reconnecting.

        Raises:
            UsageError: one text in place of a list of symbols, or the stream is closed.
        """
        self._must_not_be_closed()
        interest = interest_in(channels)
        self.interest |= interest
        await self._source.change("subscribe", interest)

    async def unsubscribe(self, channels: Mapping[str, Sequence[str]]) -> None:
        """Remove symbols without reconnecting.

        Raises:
            UsageError: one text in place of a list of symbols, or the stream is closed.
        """
        self._must_not_be_closed()
        interest = interest_in(channels)
        self.interest -= interest
        await self._source.change("unsubscribe", interest)

    # -------------------------------------------------------------------------------------------- what arrives

    def _take(self, batch: Batch) -> None:
        self._batches.append(batch)
        self._waiting += batch.count
        if self._waiting > self._buffer:
            self._reception.pause("reader")
        self._arrived.set()

    def _tell(self, event: Event) -> None:
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:  # noqa: BLE001 # as above
                _log.exception("a listener for events failed")

    def _unpack(self, batch: Batch) -> None:
        ticks, unreadable = batch.ticks()
        self.unreadable += unreadable
        self._ticks.extend(ticks)
        full = self._waiting > self._buffer
        self._waiting -= batch.count
        if full and self._waiting <= self._buffer:
            self._reception.resume("reader")
