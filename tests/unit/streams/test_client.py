"""Filling gaps: in order, without doubles, and never silently stuck."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest
from tests.support.fakes import ManualClock

from alpacli.domain.ticks import Interest, Trade
from alpacli.errors import StreamLost, Unavailable
from alpacli.streams.batch import Batch
from alpacli.streams.client import Reception
from alpacli.streams.events import Conflated, Event, Gap, GapFilled, Live, Reconnecting
from alpacli.streams.session import Action
from alpacli.streams.supervisor import Sink
from alpacli.wire.frames import Message

SECOND = 1_000_000_000
Play = Callable[[Sink], Coroutine[Any, Any, None]]


class Scripted:
    """A source that does what a test says."""

    def __init__(self, play: Play) -> None:
        self._play = play
        self.paused: list[bool] = []

    async def run(self, sink: Sink) -> None:
        await self._play(sink)

    async def change(self, action: Action, interest: Interest) -> None: ...

    def pause(self) -> None:
        self.paused.append(True)

    def resume(self) -> None:
        self.paused.append(False)

    def watch_for_silence(self, stale_after_s: float) -> None: ...


class Collected:
    """A sink that remembers trades' numbers and what else it was told, in order."""

    def __init__(self) -> None:
        self.all: list[object] = []

    def batch(self, batch: Batch) -> None:
        self.all += [int(str(tick.id)) for tick in batch.ticks()[0] if isinstance(tick, Trade)]

    def event(self, event: Event) -> None:
        self.all.append(event)


def trade(number: int) -> bytes:
    return b'{"type":"trade","symbol":"A","timestamp":"2026-01-02T15:00:00.%09dZ","price":1,"size":1,"id":%d}\n' % (
        number,
        number,
    )


def missed(*numbers: int) -> list[Message]:
    return [
        {
            "type": "trade",
            "symbol": "A",
            "timestamp": f"2026-01-02T15:00:00.{number:09d}Z",
            "price": 1,
            "size": 1,
            "id": number,
        }
        for number in numbers
    ]


def numbers_in(collected: Collected) -> list[object]:
    return [thing for thing in collected.all if not isinstance(thing, tuple)]


def receive(play: Play, backfill: Any = None, reconnect: int | None = 5) -> Collected:
    sink = Collected()

    async def run() -> None:
        reception = Reception(Scripted(play), sink, clock=ManualClock(), reconnect=reconnect, backfill=backfill)
        async with asyncio.timeout(30):
            await reception.run()

    asyncio.run(run())
    return sink


def test_a_defect_while_filling_ends_the_run_with_it() -> None:
    """Else everything that comes after the gap would be held back for ever, and nobody would know."""

    async def broken(wanted: Interest, from_ns: int, until_ns: int) -> Sequence[Message]:
        raise ZeroDivisionError("in the answer")

    async def play(sink: Sink) -> None:
        sink.event(Live({}))
        sink.event(Gap(0, SECOND))
        sink.batch(Batch.of_lines(trade(1)))
        await asyncio.sleep(60)

    with pytest.raises(ZeroDivisionError, match="in the answer"):
        receive(play, broken)


def test_what_comes_while_a_gap_is_filled_waits_for_it() -> None:
    async def fetch(wanted: Interest, from_ns: int, until_ns: int) -> Sequence[Message]:
        await asyncio.sleep(0.01)
        return missed(2, 3)

    async def play(sink: Sink) -> None:
        sink.event(Live({}))
        sink.batch(Batch.of_lines(trade(1)))
        sink.event(Gap(0, SECOND))
        sink.batch(Batch.of_lines(trade(3) + trade(4)))
        await asyncio.sleep(0.1)

    assert numbers_in(receive(play, fetch)) == [1, 2, 3, 4]


def test_a_second_gap_while_the_first_is_filled_is_filled_in_its_place() -> None:
    gaps = [Gap(0, SECOND), Gap(10 * SECOND, 11 * SECOND)]

    async def fetch(wanted: Interest, from_ns: int, until_ns: int) -> Sequence[Message]:
        await asyncio.sleep(0.01)
        return missed(2) if until_ns == SECOND else missed(4)

    async def play(sink: Sink) -> None:
        sink.event(Live({}))
        sink.batch(Batch.of_lines(trade(1)))
        sink.event(gaps[0])
        sink.batch(Batch.of_lines(trade(3)))
        sink.event(gaps[1])
        sink.batch(Batch.of_lines(trade(5)))
        await asyncio.sleep(0.2)

    collected = receive(play, fetch)
    assert numbers_in(collected) == [1, 2, 3, 4, 5]
    assert [thing for thing in collected.all if isinstance(thing, GapFilled)] == [GapFilled(*gap, 1) for gap in gaps]


def test_a_gap_that_cannot_be_filled_is_told_and_the_stream_goes_on() -> None:
    async def refuse(wanted: Interest, from_ns: int, until_ns: int) -> Sequence[Message]:
        raise Unavailable("no answer")

    async def play(sink: Sink) -> None:
        sink.event(Live({}))
        sink.event(Gap(0, SECOND))
        sink.batch(Batch.of_lines(trade(1)))
        await asyncio.sleep(0.05)

    collected = receive(play, refuse)
    assert numbers_in(collected) == [1]
    assert GapFilled(0, SECOND, 0, "no answer") in collected.all


def quote(number: int, symbol: str = "A") -> bytes:
    return b'{"type":"quote","symbol":"%s","timestamp":"2026-01-02T15:00:00.%09dZ","bid_price":1}\n' % (
        symbol.encode(),
        number,
    )


class Fills:
    """A reception of 8 messages at most whose backfill takes until it is told to go on."""

    def __init__(self, *, conflate: bool) -> None:
        self.go_on = asyncio.Event()
        self._filled = asyncio.Event()
        self.told: list[bytes] = []
        self.events: list[Event] = []
        self.source = Scripted(self._forever)
        self.reception = Reception(
            self.source, self, clock=ManualClock(), backfill=self._fetch, buffer=8, conflate=conflate
        )

    async def _forever(self, sink: Sink) -> None:
        await asyncio.sleep(60)

    async def _fetch(self, wanted: Interest, from_ns: int, until_ns: int) -> Sequence[Message]:
        await self.go_on.wait()
        return []

    def batch(self, batch: Batch) -> None:
        self.told += batch.lines.splitlines(keepends=True)

    def event(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, GapFilled):
            self._filled.set()

    async def filled(self) -> None:
        self.go_on.set()
        await self._filled.wait()
        await asyncio.sleep(0)

    def gap(self) -> None:
        self.reception.event(Live({}))
        self.reception.event(Gap(0, SECOND))


def test_too_much_while_a_gap_is_filled_leaves_only_the_latest_quotes_and_every_trade() -> None:
    async def run() -> Fills:
        fills = Fills(conflate=True)
        fills.gap()
        for number in range(100):
            fills.reception.batch(Batch.of_lines(quote(number, "AB"[number % 2])))
            if number in (3, 50, 97):
                fills.reception.batch(Batch.of_lines(trade(number)))
        await fills.filled()
        return fills

    fills = asyncio.run(run())
    assert [line for line in fills.told if b"trade" in line] == [trade(3), trade(50), trade(97)]
    assert [line for line in fills.told if b'"A"' in line and b"quote" in line][-1] == quote(98, "A")
    assert fills.told[-1] == quote(99, "B")
    assert len(fills.told) <= 9
    (*_, conflated) = [event for event in fills.events if isinstance(event, Conflated)]
    assert conflated.quotes == 103 - len(fills.told)
    assert True not in fills.source.paused


@pytest.mark.parametrize("conflate", [True, False])
def test_what_must_not_be_left_out_while_a_gap_is_filled_makes_the_source_wait(conflate: bool) -> None:
    async def run() -> Fills:
        fills = Fills(conflate=conflate)
        fills.gap()
        for number in range(9):
            fills.reception.batch(Batch.of_lines(trade(number) if conflate else quote(number)))
        paused = [fills.source.paused[-1]]
        fills.reception.pause("pipe")
        await fills.filled()
        paused.append(fills.source.paused[-1])  # the pipe is still full
        fills.reception.resume("pipe")
        assert [*paused, fills.source.paused[-1]] == [True, True, False]
        return fills

    assert len(asyncio.run(run()).told) == 9


@pytest.mark.parametrize(("allowed", "said"), [(0, "lost: gone"), (1, "after 1 attempt to"), (2, "after 2 attempts")])
def test_losses_in_a_row_are_counted_across_those_who_count_anew(allowed: int, said: str) -> None:
    """The hub's process begins again at 1; what was in a row before that is another row."""

    async def play(sink: Sink) -> None:
        for attempt in range(1, allowed + 2):
            sink.event(Reconnecting(attempt, 0.0, "gone", "look", 406))
            await asyncio.sleep(0)
        await asyncio.sleep(60)

    with pytest.raises(StreamLost, match=said) as caught:
        receive(play, reconnect=allowed)
    assert (caught.value.code, caught.value.hint) == (406, "look")
