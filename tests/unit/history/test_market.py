"""Market history from a host that misbehaves and a store that fills: everything once, nothing twice, nothing wrong kept."""

import asyncio
import datetime as dt
import functools
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.examples import examples
from tests.support.fakes import ManualClock
from tests.support.history import MINUTE_NS, History, Row, bar, expired, minutes, ns, utc
from tests.support.origin import Reply

from alpacli.domain.batches import AsyncBatches, Batch
from alpacli.errors import AlpacliError, AuthenticationError, UnreadableAnswer, UsageError
from alpacli.history.bar_store import BarStore
from alpacli.history.feeds import FeedChoice
from alpacli.history.holes import NyseDays
from alpacli.history.market import MarketData
from alpacli.history.market_async import AsyncMarketData
from alpacli.history.plan import Plan
from alpacli.wire.rest import Call

NOW = ns("2026-05-28T20:26:40Z")


class Weekdays:
    """An exchange without holidays."""

    def never_closes(self) -> bool:
        return False

    def is_session(self, day: dt.date) -> bool:
        return day.weekday() < 5


class Desk:
    """A reader of market history over a host, a store and a clock of its own."""

    def __init__(self, folder: Path, host: History | None = None) -> None:
        self.host = host or History()
        self.store = BarStore(str(folder / "market"))
        self.clock = ManualClock(NOW / 1e9)
        self.said: list[str] = []
        feeds = FeedChoice(self.host.read, Plan(str(folder / "plan.json")))
        self.data = MarketData(self.host.read, self.clock, self.store, feeds, Weekdays(), self.said.append)

    def rows(self, symbols: str | Sequence[str] = "AAPL", kind: str = "bars", **query: Any) -> list[tuple[str, str]]:
        return [
            (row["symbol"], row["timestamp"]) for batch in self.batches(symbols, kind, **query) for row in batch.rows()
        ]

    def batches(self, symbols: str | Sequence[str], kind: str, **query: Any) -> list[Batch]:
        query = {name: ns(value) if name in ("start", "end") else value for name, value in query.items()}
        return list(getattr(self.data, kind)(symbols, **query))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def expected(symbol: str, rows: Sequence[Row]) -> list[tuple[str, str]]:
    return [(symbol, row["t"]) for row in rows]


JANUARY = {"start": "2026-01-05T00:00:00Z", "end": "2026-01-30T00:00:00Z"}
ROWS = minutes("2026-01-05T14:30:00Z", 250, every=60)


# ------------------------------------------------------------------------------------------------------ the store


def test_what_was_downloaded_is_never_asked_for_again(desk: Desk) -> None:
    desk.host.put("AAPL", ROWS)
    first = desk.rows(**JANUARY)
    asked = len(desk.host.asked)
    assert first == expected("AAPL", ROWS)
    assert desk.rows(**JANUARY) == first
    assert desk.rows(start="2026-01-07T00:00:00Z", end="2026-01-08T00:00:00Z")
    assert len(desk.host.asked) == asked


def test_rows_that_are_kept_are_not_given_after_the_client_was_closed(desk: Desk) -> None:
    closed = [False]

    def begin() -> None:
        if closed[0]:
            raise UsageError("the client is closed")

    desk.host.put("AAPL", ROWS)
    desk.rows(**JANUARY)
    feeds = FeedChoice(desk.host.read, Plan(""))
    data = MarketData(desk.host.read, desk.clock, desk.store, feeds, Weekdays(), desk.said.append, begin=begin)
    planned = data.bars("AAPL", start=ns(JANUARY["start"]), end=ns(JANUARY["end"]))
    assert [len(batch) for batch in planned] == [len(ROWS)]
    closed[0] = True
    with pytest.raises(UsageError, match="closed"):
        list(planned)
    with pytest.raises(UsageError, match="closed"):
        planned.copy()
    with pytest.raises(UsageError, match="closed"):
        data.bars("AAPL", start=ns(JANUARY["start"]))


# ------------------------------------------------------------------------------------------------------ event loops


class Loop:
    """The host as an event loop asks it: from the ``hangs_at``-th page on it answers only when ``go`` is set."""

    def __init__(self, desk: Desk, hangs_at: int = 1000) -> None:
        make = functools.partial(
            MarketData,
            clock=desk.clock,
            store=desk.store,
            feeds=FeedChoice(desk.host.read, Plan("")),
            hours=Weekdays(),
            warn=print,
        )
        self.data = AsyncMarketData(make, self.read)
        self.hangs_at = hangs_at
        self.carried: list[Any] = []
        self.hung = self.given_up = 0
        self.go = asyncio.Event()
        self._desk = desk

    async def read(self, call: Call[Any]) -> Any:
        if len(self.carried) >= self.hangs_at:
            self.hung += 1
            try:
                await self.go.wait()
            except asyncio.CancelledError:
                self.given_up += 1
                raise
        self.carried.append(self._desk.host.read(call))
        return self.carried[-1]

    async def january(self, symbol: str = "AAPL") -> AsyncBatches:
        return await self.data.bars(symbol, start=ns(JANUARY["start"]), end=ns(JANUARY["end"]))


async def _all(batches: AsyncBatches) -> int:
    return sum([len(batch) async for batch in batches])


def _ended(name: str) -> bool:
    """Wait until no thread has that name."""
    deadline = time.monotonic() + 10
    while any(thread.name == name for thread in threading.enumerate()):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_the_event_loop_carries_pages_and_does_not_read_them(desk: Desk) -> None:
    desk.host.put("AAPL", ROWS)
    loop = Loop(desk)

    async def use() -> int:
        return await _all(await loop.january())

    assert asyncio.run(use()) == len(ROWS)
    assert {type(page) for page in loop.carried} == {bytes}


def test_a_reader_that_runs_out_of_time_hears_that_and_its_requests_are_given_up(desk: Desk) -> None:
    desk.host.put("AAPL", ROWS)
    desk.host.page = 100
    loop = Loop(desk, hangs_at=1)

    async def use() -> None:
        batches = await loop.january()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await _all(batches)
        assert (loop.hung, loop.given_up) == (1, 1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await batches.to_arrow()

    asyncio.run(use())
    assert (loop.hung, loop.given_up) == (2, 2)
    assert _ended("alpacli history")


def test_what_came_before_a_cancellation_is_kept_and_the_rest_can_be_read_later(desk: Desk) -> None:
    desk.host.put("AAPL", ROWS)
    desk.host.page = 100
    loop = Loop(desk, hangs_at=2)

    async def use() -> int:
        batches = await loop.january()
        reader = asyncio.create_task(_all(batches))
        while not loop.hung:  # noqa: ASYNC110 # what it waits for is another thread
            await asyncio.sleep(0.01)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        loop.go.set()
        return await _all(await loop.january())

    assert asyncio.run(use()) == len(ROWS)
    assert desk.host.asked[-1]["start"] != JANUARY["start"]


def test_a_reader_that_is_cancelled_takes_no_request_of_another_of_the_same_rows_with_it(desk: Desk) -> None:
    desk.host.put("AAPL", ROWS)
    loop = Loop(desk, hangs_at=0)

    async def use() -> int:
        batches = await loop.january()
        first, second = asyncio.create_task(_all(batches)), asyncio.create_task(_all(batches))
        while loop.hung < 2:  # noqa: ASYNC110 # what it waits for is another thread
            await asyncio.sleep(0.01)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        loop.go.set()
        return await second

    assert asyncio.run(use()) == len(ROWS)


def test_a_loop_that_stops_in_the_middle_leaves_no_thread_that_waits_for_it(desk: Desk) -> None:
    desk.host.put("AAPL", ROWS)
    loop = Loop(desk, hangs_at=0)

    async def use() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await _all(await loop.january())

    stops = asyncio.new_event_loop()
    stops.run_until_complete(use())
    assert _ended("alpacli history")
    stops.close()


def test_only_the_holes_are_asked_for(desk: Desk) -> None:
    desk.host.put("AAPL", ROWS)
    desk.rows(start="2026-01-07T00:00:00Z", end="2026-01-09T00:00:00Z")
    desk.host.asked.clear()
    assert desk.rows(start="2026-01-06T12:00:00Z", end="2026-01-12T20:00:00Z")
    assert [(query["start"], query["end"]) for query in desk.host.asked] == [
        ("2026-01-06T12:00:00Z", "2026-01-06T23:59:59.999999999Z"),
        ("2026-01-09T00:00:00.000000001Z", "2026-01-12T20:00:00Z"),
    ]


def test_feeds_timeframes_and_adjustments_are_kept_apart(desk: Desk) -> None:
    desk.host.put("AAPL", ROWS)
    for number, query in enumerate(
        [{}, {"feed": "iex"}, {"timeframe": "5Min"}, {"adjustment": "split"}, {"adjustment": "all"}], start=1
    ):
        desk.rows(**JANUARY, **query)
        assert len(desk.host.asked) == number


def test_the_last_bars_of_today_are_given_but_asked_for_again(desk: Desk) -> None:
    """A bar is final a quarter of an hour after its end."""
    today = minutes("2026-05-28T19:00:00Z", 86)
    desk.host.put("AAPL", today)
    query = {"start": "2026-05-28T19:00:00Z"}
    assert desk.rows(**query) == expected("AAPL", today)
    today[-1] = {**today[-1], "c": 999.0}
    desk.host.put("AAPL", today)
    desk.host.asked.clear()
    (*_, last) = [row for batch in desk.batches("AAPL", "bars", **query) for row in batch.rows()]
    assert last["close"] == 999
    assert [query["start"] for query in desk.host.asked] == ["2026-05-28T20:10:40Z"]


def test_the_bar_of_a_day_is_final_when_the_day_is_over(desk: Desk) -> None:
    days = [bar(ns(f"2026-05-{day}T04:00:00Z")) for day in (26, 27, 28)]
    desk.host.put("AAPL", days)
    for _ in range(2):
        assert len(desk.rows(start="2026-05-26T00:00:00Z", timeframe="1Day")) == 3
    assert desk.host.asked[-1]["start"] == "2026-05-28T04:00:00Z"


@pytest.mark.parametrize(
    ("start", "end", "what"),
    [
        ("2026-05-23T00:00:00Z", "2026-05-25T07:59:00Z", "a weekend, up to Monday's first minutes"),
        ("2026-05-25T04:00:00Z", "2026-05-26T03:00:00Z", "Memorial Day"),
        ("2026-05-27T00:30:00Z", "2026-05-27T07:00:00Z", "a night"),
        ("2026-04-03T01:00:00Z", "2026-04-06T07:00:00Z", "Good Friday and its weekend"),
    ],
)
def test_closed_hours_are_not_holes(tmp_path: Path, start: str, end: str, what: str) -> None:
    desk = Desk(tmp_path)
    desk.data._hours = NyseDays("", dt.date(2026, 5, 28))
    assert desk.rows(start=start, end=end) == [], what
    assert desk.host.asked == [], what
    assert desk.rows("BTC/USD", start=start, end=end) == []
    assert len(desk.host.asked) == 1, "coins never stop"


@pytest.mark.parametrize("day", ["2026-03-08", "2026-11-01"])
def test_the_day_on_which_clocks_change_is_whole(tmp_path: Path, day: str) -> None:
    desk = Desk(tmp_path)
    desk.clock.advance(200 * 86400)
    friday = ns(f"{day}T12:00:00Z") - 2 * 86400 * 10**9
    rows = [bar(friday + hour * 3600 * 10**9) for hour in range(96)]
    desk.host.put("AAPL", rows)
    for _ in range(2):
        found = desk.data.bars("AAPL", start=friday, end=friday + 96 * 3600 * 10**9).to_arrow()
        assert found.num_rows == 96
    assert len(desk.host.asked) == 1


def test_a_corporate_action_makes_adjusted_history_old_and_leaves_raw_alone(desk: Desk) -> None:
    desk.host.put("AAPL", ROWS)
    for adjustment in ("raw", "split"):
        desk.rows(**JANUARY, adjustment=adjustment)
    desk.clock.advance(86400)
    desk.rows(**JANUARY, adjustment="split")
    assert len(desk.host.asked) == 2
    assert desk.host.others.count("/v1/corporate-actions") == 1
    desk.clock.advance(86400)
    desk.host.actions = [{"symbol": "AAPL", "ex_date": "2026-05-29", "new_rate": 2, "old_rate": 1}]
    halves = [{**row, "c": row["c"] / 2} for row in ROWS]
    desk.host.put("AAPL", halves)
    (row, *_) = desk.batches("AAPL", "bars", **JANUARY, adjustment="split")[0].rows()
    assert float(row["close"]) == halves[0]["c"]
    assert any("corporate action" in text for text in desk.said)
    (row, *_) = desk.batches("AAPL", "bars", **JANUARY)[0].rows()
    assert float(row["close"]) == ROWS[0]["c"]
    asked = len(desk.host.asked), len(desk.host.others)
    desk.rows(**JANUARY, adjustment="split")
    assert (len(desk.host.asked), len(desk.host.others)) == asked, "looked up once a day"


@settings(max_examples=examples(12), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100), st.booleans()), min_size=1, max_size=8),
    st.lists(st.integers(0, 100), unique=True, max_size=30),
    st.integers(1, 7),
    st.sets(st.integers(1, 25), max_size=4),
)
def test_whatever_the_order_of_requests_each_gives_exactly_its_rows_and_no_minute_is_fetched_twice(
    tmp_path_factory: pytest.TempPathFactory,
    questions: list[tuple[int, int, bool]],
    places: list[int],
    size: int,
    failures: set[int],
) -> None:
    """Steps of six hours over a change of month; some requests fail, and the store is opened anew each time."""
    step, begin = 6 * 3600 * 10**9, ns("2026-01-20T00:00:00Z")
    rows = [bar(begin + place * step) for place in sorted(places)]
    host = History(page=size)
    host.put("BTC/USD", rows, "/v1beta3/crypto/us/bars")
    folder = tmp_path_factory.mktemp("store")

    def spoil(number: int, query: dict[str, str], answer: dict[str, Any]) -> Reply | None:
        return Reply(500, {"message": "oops"}) if number in failures else None

    host.spoil = spoil
    known: set[int] = set()
    for one, other, _ in questions:
        desk = Desk(folder, host)
        low, high = min(one, other), max(one, other)
        host.asked.clear()
        asked = (begin + low * step, begin + high * step)
        wanted = [row["t"] for row in rows if asked[0] <= ns(row["t"]) <= asked[1]]
        try:
            found = desk.data.bars("BTC/USD", start=asked[0], end=asked[1]).to_arrow().column("timestamp")
        except AlpacliError:
            failures.clear()
            continue
        assert len(found) == len(wanted)
        fetched = {
            place
            for place in range(101)
            for query in host.asked
            if "page_token" not in query and ns(query["start"]) <= begin + place * step <= ns(query["end"])
        }
        assert not fetched & known
        known |= set(range(low, high + 1))
    store = Desk(folder, host).store
    assert all(not store.check(file) for file in store.files())


# --------------------------------------------------------------------------------------------------------- faults


def test_a_429_in_the_middle_of_a_chain_is_waited_out(desk: Desk) -> None:
    desk.host.page = 100
    desk.host.put("AAPL", ROWS)
    limited = Reply(429, {"message": "rate limit exceeded"}, {"Retry-After": "7"})
    desk.host.spoil = lambda number, query, answer: limited if number in (2, 3) else None
    assert desk.rows(**JANUARY) == expected("AAPL", ROWS)
    assert sum(desk.clock.slept) == pytest.approx(14)


def test_without_patience_a_429_ends_it_and_what_came_is_kept(desk: Desk) -> None:
    desk.host.page = 100
    desk.host.put("AAPL", ROWS)
    desk.host.spoil = lambda number, query, answer: Reply(429, {"message": "slow down"}) if number == 3 else None
    desk.data.patient = False
    with pytest.raises(AlpacliError, match="slow down"):
        desk.rows(**JANUARY)
    desk.host.spoil = None
    desk.host.asked.clear()
    assert desk.rows(**JANUARY) == expected("AAPL", ROWS)
    assert desk.host.asked[0]["start"] == ROWS[199]["t"]


def test_an_expired_token_is_left_behind_and_the_chain_goes_on_at_its_last_row(desk: Desk) -> None:
    desk.host.page = 60
    desk.host.put("AAPL", ROWS)
    desk.host.put("MSFT", ROWS)
    desk.host.spoil = lambda number, query, answer: expired() if number % 3 == 0 and "page_token" in query else None
    assert desk.rows(["AAPL", "MSFT"], **JANUARY) == expected("AAPL", ROWS) + expected("MSFT", ROWS)


def test_a_token_that_is_refused_at_once_again_and_again_ends_it(desk: Desk) -> None:
    desk.host.page = 60
    desk.host.put("AAPL", ROWS)
    desk.host.spoil = lambda number, query, answer: expired()
    with pytest.raises(AlpacliError, match="invalid page token"):
        desk.rows(**JANUARY)
    assert len(desk.host.asked) == 1


@pytest.mark.parametrize("kind", ["bars", "trades"])
def test_a_page_that_comes_twice_counts_once(desk: Desk, kind: str) -> None:
    desk.host.page = 50
    rows = (
        ROWS if kind == "bars" else [{"t": row["t"], "p": 1.5, "s": 1, "i": n, "x": "V"} for n, row in enumerate(ROWS)]
    )
    desk.host.put("AAPL", rows, f"/v2/stocks/{kind}")
    pages: list[dict[str, Any]] = []

    def spoil(number: int, query: dict[str, str], answer: dict[str, Any]) -> Reply | None:
        pages.append(answer)
        if number == 3:  # the page before, under the token of this one
            return Reply(body={**answer, kind: pages[1][kind]})
        if number == 4:  # and now what was left out
            return Reply(
                body={kind: {"AAPL": pages[2][kind]["AAPL"] + answer[kind]["AAPL"]}, "next_page_token": "at-200"}
            )
        return None

    desk.host.spoil = spoil
    assert desk.rows(kind=kind, **JANUARY) == expected("AAPL", rows)


@pytest.mark.parametrize(
    ("kind", "first"),
    [
        ("trades", 2),
        ("trades", 4),
        ("trades", 5),
        ("quotes", 2),
        ("quotes", 5),
    ],  # nothing tells a quote from its repetition
)
def test_ticks_that_come_again_with_other_neighbours_count_once(desk: Desk, kind: str, first: int) -> None:
    """Rows 3 to 6 are of one nanosecond; the first page ends after row 4."""
    times = [f"2026-01-05T15:00:00.00000000{digit}Z" for digit in (0, 1, 2, 3, 3, 3, 3, 7, 8)]
    rows = [{"t": at, "p": 1.5, "s": 1, "i": n, "x": "V"} for n, at in enumerate(times)]
    if kind == "quotes":
        rows = [{"t": at, "bp": 1.5, "bs": 1, "ap": 2, "as": n} for n, at in enumerate(times)]
    name = "id" if kind == "trades" else "ask_size"
    pages = {"at-0": (0, 5, "at-1"), "at-1": (first, 9, None)}

    def spoil(number: int, query: dict[str, str], answer: dict[str, Any]) -> Reply | None:
        low, high, token = pages[query.get("page_token", "at-0")]
        return Reply(body={kind: {"AAPL": rows[low:high]}, "next_page_token": token})

    desk.host.spoil = spoil
    found = desk.batches("AAPL", kind, start="2026-01-05T15:00:00Z", end="2026-01-05T16:00:00Z")
    assert [int(row[name]) for batch in found for row in batch.rows()] == list(range(9))


def test_a_token_that_leads_in_a_circle_is_an_error_and_not_a_short_answer(desk: Desk) -> None:
    desk.host.page = 50
    desk.host.put("AAPL", ROWS)
    desk.host.spoil = lambda number, query, answer: answer.update(next_page_token="at-50")
    with pytest.raises(UnreadableAnswer, match="circle"):
        desk.rows(**JANUARY)
    desk.host.spoil = None
    assert desk.rows(**JANUARY) == expected("AAPL", ROWS)


def test_rows_of_the_same_moment_on_two_pages_are_all_there(desk: Desk) -> None:
    desk.host.page = 2
    rows = [{"t": "2026-01-05T15:00:00.000000001Z", "p": 1.5, "s": 1, "i": number, "x": "V"} for number in range(7)]
    desk.host.put("AAPL", rows, "/v2/stocks/trades")
    query = {"start": "2026-01-05T15:00:00Z", "end": "2026-01-05T16:00:00Z"}
    for _ in range(2):
        found = [row["id"] for batch in desk.batches("AAPL", "trades", **query) for row in batch.rows()]
        assert found == list(range(7))


def test_a_broken_file_is_a_hole_and_not_an_error(desk: Desk) -> None:
    desk.host.put("AAPL", ROWS)
    desk.rows(**JANUARY)
    (file,) = desk.store.files()
    for content in (b"", b"PAR1 but not really", Path(file.path).read_bytes()[:-20]):
        Path(file.path).write_bytes(content)
        (broken,) = desk.store.files()
        assert desk.store.check(broken)
        assert desk.rows(**JANUARY) == expected("AAPL", ROWS)
        (mended,) = desk.store.files()
        assert not desk.store.check(mended)


def test_a_store_that_cannot_be_written_costs_one_warning_and_no_row(desk: Desk) -> None:
    desk.host.page = 50
    desk.host.put("AAPL", ROWS)
    Path(desk.store.root).write_text("a file where the folder should be")
    assert desk.rows(**JANUARY) == expected("AAPL", ROWS)
    assert len([text for text in desk.said if "not kept" in text]) == 1


def test_a_file_that_is_pruned_while_it_is_read_is_asked_for_again(desk: Desk) -> None:
    desk.host.put("AAPL", minutes("2026-01-30T10:00:00Z", 100, every=60))
    query = {"start": "2026-01-30T00:00:00Z", "end": "2026-02-05T00:00:00Z"}
    wanted = desk.rows(**query)
    reading = iter(desk.data.bars("AAPL", start=ns(query["start"]), end=ns(query["end"])))
    found = [row["timestamp"] for row in next(reading).rows()]
    for file in list(desk.store.files()):
        desk.store.remove(file)
    found += [row["timestamp"] for batch in reading for row in batch.rows()]
    assert found == [time for _, time in wanted]


# ----------------------------------------------------------------------------------------------- many, few, last


def test_symbols_come_in_the_order_they_were_asked_for_and_short_histories_share_requests(desk: Desk) -> None:
    names = [f"S{number}" for number in range(30)]
    for name in names:
        desk.host.put(name, [bar(ns(f"2026-01-{day:02d}T05:00:00Z")) for day in range(5, 10)])
    order = names[::-1]
    found = desk.rows(order, start="2026-01-05T00:00:00Z", end="2026-01-10T00:00:00Z", timeframe="1Day")
    assert list(dict.fromkeys(symbol for symbol, _ in found)) == order
    assert len(found) == 150
    assert len(desk.host.asked) == 1


def test_markets_may_be_mixed(desk: Desk) -> None:
    option = "AAPL260116C00150000"
    desk.host.put("AAPL", ROWS[:2])
    desk.host.put("BTC/USD", ROWS[:3], "/v1beta3/crypto/us/bars")
    desk.host.put(option, ROWS[:1], "/v1beta1/options/bars")
    found = desk.rows(["BTC/USD", "AAPL", option], **JANUARY)
    assert [symbol for symbol, _ in found] == ["BTC/USD"] * 3 + ["AAPL"] * 2 + [option]
    with pytest.raises(UsageError, match="option quotes"):
        desk.rows(option, kind="quotes", **JANUARY)


def test_a_limit_stops_asking_and_counts_for_each_symbol(desk: Desk) -> None:
    for symbol in ("AAPL", "MSFT"):
        desk.host.put(symbol, ROWS)
    found = desk.rows(["AAPL", "MSFT"], **JANUARY, limit=3)
    assert found == expected("AAPL", ROWS[:3]) + expected("MSFT", ROWS[:3])
    assert {query["limit"] for query in desk.host.asked} == {"4"}
    assert desk.rows(**JANUARY) == expected("AAPL", ROWS), "what the limit left out was not taken for known"


def test_without_a_start_the_last_rows_come_oldest_first(desk: Desk) -> None:
    desk.host.page = 2
    desk.host.put("AAPL", ROWS)
    assert desk.rows(limit=5, end="2026-01-30T00:00:00Z") == expected("AAPL", ROWS[-5:])
    with pytest.raises(UsageError, match="limit"):
        desk.rows()


def test_a_symbol_without_rows_has_no_batches_whether_or_not_anything_is_kept(desk: Desk) -> None:
    feeds = FeedChoice(desk.host.read, Plan(""))
    keepless = MarketData(desk.host.read, desk.clock, None, feeds, Weekdays(), desk.said.append)
    for data in (keepless, desk.data):
        assert list(data.bars("NONE", start=ns(JANUARY["start"]), end=ns(JANUARY["end"]))) == []


def test_a_download_without_a_store_is_the_same(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.data._store = None
    desk.host.page = 5
    desk.host.put("AAPL", ROWS)
    desk.host.put("MSFT", ROWS)
    assert desk.rows(["MSFT", "AAPL"], **JANUARY) == expected("MSFT", ROWS) + expected("AAPL", ROWS)
    assert not os.path.exists(desk.store.root)


# ---------------------------------------------------------------------------------------------------------- feeds


def test_old_history_comes_from_the_sip_without_asking_what_the_plan_has(desk: Desk) -> None:
    batches = desk.data.bars("AAPL", start=ns("2026-01-05T00:00:00Z"), end=ns("2026-01-06T00:00:00Z"))
    assert "sip" in batches.notes[0]
    assert desk.host.others == []


def test_a_plan_with_recent_sip_data_is_asked_once_a_day(desk: Desk) -> None:
    for _ in range(3):
        assert "sip" in desk.data.bars("AAPL", start=NOW - MINUTE_NS).notes[0]
    assert len(desk.host.others) == 1
    desk.clock.advance(86500)
    desk.data.bars("AAPL", start=NOW)
    assert len(desk.host.others) == 2


def test_a_plan_without_it_ends_a_quarter_of_an_hour_ago_and_says_so(desk: Desk) -> None:
    desk.host.recent_sip = False
    desk.host.put("AAPL", minutes("2026-05-28T19:00:00Z", 86))
    batches = desk.data.bars("AAPL", start=ns("2026-05-28T19:00:00Z"))
    assert "up to 2026-05-28T20:11:40Z" in batches.notes[0]
    assert batches.to_arrow().num_rows == 72
    assert {query["feed"] for query in desk.host.asked} == {"sip"}


def test_and_what_it_cannot_have_at_all_comes_from_iex(desk: Desk) -> None:
    desk.host.recent_sip = False
    batches = desk.data.bars("AAPL", start=NOW - 5 * MINUTE_NS)
    assert "iex" in batches.notes[0]
    batches.to_arrow()
    assert {query["feed"] for query in desk.host.asked} == {"iex"}


def test_a_feed_that_was_named_is_taken_and_a_refusal_says_what_to_do(desk: Desk) -> None:
    refused = Reply(403, {"message": "subscription does not permit querying recent SIP data"})
    desk.host.spoil = lambda number, query, answer: refused
    with pytest.raises(AlpacliError, match="subscription") as failure:
        desk.rows(start="2026-05-28T20:20:00Z", feed="sip")
    assert not isinstance(failure.value, AuthenticationError)
    assert failure.value.exit_code == 4
    assert "--feed iex" in failure.value.hint
    with pytest.raises(UsageError, match="no feed"):
        desk.rows(**JANUARY, feed="nasdaq")


def test_times_without_a_zone_are_refused(desk: Desk) -> None:
    with pytest.raises(UsageError, match="zone"):
        desk.data.bars("AAPL", start=dt.datetime.fromisoformat("2026-01-05T00:00:00"))
    with pytest.raises(UsageError, match="before"):
        desk.data.bars("AAPL", start=utc("2026-01-05"), end=utc("2026-01-04"))
