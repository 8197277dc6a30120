"""Bars of every length are made of the same trades, whoever asks for which of them first."""

from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from functools import lru_cache
from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.examples import examples

from alpacli.sim.amendments import EVER, AmendedFeed, counts
from alpacli.sim.feed import DAY_NS, key_of
from alpacli.sim.halts import halts
from alpacli.sim.hours import AlwaysOpen, Hours, HoursName, Nyse, nyse_sessions
from alpacli.sim.listing import LISTINGS
from alpacli.sim.prints import FEWEST_LOTS, MINUTE_NS, count_of, prints_of
from alpacli.sim.tape import Tape

HOUR_NS = 60 * MINUTE_NS
BASIS_POINT = Decimal("0.0001")
Bar = dict[str, Any]

SYMBOLS = st.sampled_from(sorted([*LISTINGS, "FAKEPACA"]))
DAYS = st.dates(date(2020, 1, 1), date(2029, 12, 1))
NAMES: tuple[HoursName, ...] = ("always", "xnys")


@lru_cache(maxsize=2)
def hours_of(name: HoursName) -> Hours:
    return AlwaysOpen() if name == "always" else Nyse(nyse_sessions())


def new_feed(name: HoursName, seed: int = 2026) -> AmendedFeed:
    hours = hours_of(name)
    return AmendedFeed(Tape(seed, hours), hours)


def minutes_of(feed: AmendedFeed, symbol: str, begin_ns: int, end_ns: int, known_ns: int = EVER) -> list[Bar]:
    stretches = [(at_ns, at_ns + MINUTE_NS) for at_ns in range(begin_ns, end_ns, MINUTE_NS)]
    return [bar for bar in feed.spans(symbol, stretches, known_ns) if bar is not None]


def made_of(bars: Sequence[Bar]) -> Bar:
    """Return what a trader makes of bars that follow one another."""
    return {
        "o": bars[0]["o"],
        "h": max(bar["h"] for bar in bars),
        "l": min(bar["l"] for bar in bars),
        "c": bars[-1]["c"],
        "v": sum(bar["v"] for bar in bars),
        "n": sum(bar["n"] for bar in bars),
        "vw": sum(bar["vw"] * bar["v"] for bar in bars) / sum(bar["v"] for bar in bars),
    }


def assert_same(bar: Bar | None, minutes: Sequence[Bar], *, vwap: Decimal = BASIS_POINT) -> None:
    """The VWAP of minutes is rounded to a millionth."""
    assert bar is not None
    wanted = made_of(minutes)
    assert {name: bar[name] for name in "ohlcvn"} == {name: wanted[name] for name in "ohlcvn"}
    assert abs(bar["vw"] - wanted["vw"]) <= max(wanted["vw"] * vwap, Decimal("0.000001"))
    assert bar["l"] <= bar["vw"] <= bar["h"]


@settings(max_examples=examples(12), deadline=None)
@given(symbol=SYMBOLS, name=st.sampled_from(NAMES), day=DAYS, seed=st.integers(0, 99))
def test_a_days_bar_is_its_minutes(symbol: str, name: HoursName, day: date, seed: int) -> None:
    """Open, high, low, close, volume and trade count exactly; the VWAP to a basis point."""
    feed = new_feed(name, seed)
    found = hours_of(name).days(day, date(day.year, 12, 31))[0]
    minutes = minutes_of(feed, symbol, found.open_ns, found.close_ns)
    assert_same(new_feed(name, seed).span(symbol, found.open_ns, found.close_ns, EVER), minutes)


@settings(max_examples=examples(12), deadline=None)
@given(symbol=SYMBOLS, day=DAYS, minute=st.integers(0, 1439), length=st.integers(2, 59))
def test_under_an_hour_the_vwap_is_exact_too(symbol: str, day: date, minute: int, length: int) -> None:
    feed = new_feed("always")
    begin_ns = hours_of("always").days(day, day)[0].open_ns + minute * MINUTE_NS
    end_ns = begin_ns + length * MINUTE_NS
    assert_same(feed.span(symbol, begin_ns, end_ns, EVER), minutes_of(feed, symbol, begin_ns, end_ns), vwap=Decimal(0))


@settings(max_examples=examples(12), deadline=None)
@given(symbol=SYMBOLS, name=st.sampled_from(NAMES), day=DAYS, minute=st.integers(0, 389))
def test_a_minutes_bar_is_its_trades_made_one_by_one(symbol: str, name: HoursName, day: date, minute: int) -> None:
    """Trades as history tells them, once all is known; in any order of asking."""
    feed = new_feed(name)
    found = hours_of(name).days(day, date(day.year, 12, 31))[0]
    begin_ns = min(found.open_ns + minute * MINUTE_NS, found.close_ns - MINUTE_NS)
    trades: list[Bar] = [
        trade for trade in feed.history(symbol, begin_ns, begin_ns + MINUTE_NS, known_ns=EVER) if counts(trade)
    ]
    bar = feed.span(symbol, begin_ns, begin_ns + MINUTE_NS, EVER)
    if bar is None:
        assert not trades
        assert any(halts(hours_of(name), symbol, begin_ns, begin_ns + MINUTE_NS))
        return
    assert bar == new_feed(name).bar(symbol, begin_ns)
    prices = [trade["p"] for trade in trades]
    assert [bar[key] for key in "ohlc"] == [prices[0], max(prices), min(prices), prices[-1]]
    assert (bar["v"], bar["n"]) == (sum(trade["s"] for trade in trades), len(trades))
    assert bar["vw"] == round(sum(trade["p"] * trade["s"] for trade in trades) / bar["v"], 6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("symbol", ["AAPL", "BTC/USD"])
def test_a_month_is_its_days(symbol: str, name: HoursName) -> None:
    feed = new_feed(name)
    days = hours_of(name).days(date(2026, 3, 1), date(2026, 3, 31))  # clocks are changed in it
    stretches = [(day.open_ns, day.close_ns) for day in days]
    if symbol == "BTC/USD":
        begin_ns = days[0].open_ns // DAY_NS * DAY_NS
        stretches = [(begin_ns + number * DAY_NS, begin_ns + (number + 1) * DAY_NS) for number in range(31)]
    made = [bar for bar in feed.spans(symbol, stretches, EVER) if bar is not None]
    month = new_feed(name).span(symbol, stretches[0][0], stretches[-1][1], EVER, regular=True)
    assert len(made) == len(stretches)
    assert_same(month, made)


@pytest.mark.parametrize("name", NAMES)
def test_a_halt_is_missing_from_every_bar(name: HoursName) -> None:
    hours, feed = hours_of(name), new_feed(name)
    since_ns = hours.days(date(2026, 1, 5), date(2026, 1, 5))[0].open_ns
    halt = next(halts(hours, "MSFT", since_ns, since_ns + 700 * DAY_NS))
    (day,) = [
        day for day in hours.days(date(2026, 1, 1), date(2028, 1, 1)) if day.open_ns <= halt.from_ns < day.close_ns
    ]
    minutes = minutes_of(feed, "MSFT", day.open_ns, day.close_ns)
    assert not [bar for bar in minutes if halt.from_ns <= bar["t"] < bar["t"] + MINUTE_NS <= halt.until_ns]
    assert_same(feed.span("MSFT", day.open_ns, day.close_ns, EVER), minutes)
    assert feed.span("MSFT", halt.from_ns, halt.until_ns, EVER) is None


def test_a_bar_that_is_not_over_is_what_has_been_told_until_then() -> None:
    """Late trades are missing until they come, wrong ones count as they were told; then day and minutes are amended alike."""
    feed = new_feed("always")
    (day,) = hours_of("always").days(date(2026, 6, 2), date(2026, 6, 2))
    until_ns = day.open_ns + 2 * HOUR_NS
    # It happened in the last two seconds of its minute, so its report came after the minute's bar was told.
    late = next(
        trade
        for trade in cast("list[Bar]", feed.told("AAPL", until_ns, day.close_ns))
        if "Z" in trade["c"] and trade["t"] % MINUTE_NS > 58 * 10**9
    )
    after_ns = (late["t"] // MINUTE_NS + 1) * MINUTE_NS
    begin_ns = after_ns - 90 * MINUTE_NS
    for known_ns in (late["t"] + 1, after_ns, after_ns + 1, after_ns + 7 * 10**9, after_ns + 40 * 10**9):
        told = [trade for trade in feed.history("AAPL", begin_ns, known_ns, known_ns=known_ns) if counts(trade)]
        bar = feed.span("AAPL", begin_ns, known_ns, known_ns)
        minute_ns = known_ns // MINUTE_NS * MINUTE_NS
        rest = feed.bar_as_of("AAPL", minute_ns, known_ns, known_ns)
        minutes = minutes_of(feed, "AAPL", begin_ns, minute_ns, known_ns)
        assert_same(bar, [*minutes, rest] if rest is not None else minutes)
        assert bar is not None
        assert (bar["v"], bar["n"]) == (sum(cast("Decimal", trade["s"]) for trade in told), len(told))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("symbol", ["AAPL", "GS", "BTC/USD"])
def test_the_last_trade_before_a_close_has_the_price_at_which_positions_are_valued(
    symbol: str, name: HoursName
) -> None:
    hours, feed = hours_of(name), new_feed(name)
    tape = Tape(2026, hours)
    for day, following in pairwise(hours.days(date(2026, 5, 20), date(2026, 6, 2))):
        last = feed.trades(symbol, day.close_ns - MINUTE_NS, day.close_ns)[-1]
        bar = feed.span(symbol, day.open_ns, day.close_ns, EVER)
        assert bar is not None
        assert last["p"] == bar["c"] == tape.previous_close(symbol, following.open_ns)
        assert last["t"] == day.close_ns - 1


@given(symbol=SYMBOLS, minute=st.integers(26_000_000, 31_000_000), lots=st.integers(0, 5_000_000))
def test_a_minutes_trades_share_what_the_tape_says_to_the_last_lot(symbol: str, minute: int, lots: int) -> None:
    prints = prints_of(key_of(symbol), minute, lots, None)
    assert len(prints) == count_of(key_of(symbol), minute)
    assert 21 <= len(prints) <= 99
    assert sum(row.lots for row in prints) == lots + FEWEST_LOTS
    assert min(row.lots for row in prints) >= 1
    times = [minute * MINUTE_NS, *(row.at_ns for row in prints), (minute + 1) * MINUTE_NS - 1]
    assert all(before <= after for before, after in pairwise(times))
    assert len({row.at_ns for row in prints}) == len({row.number for row in prints}) == len(prints)


@pytest.mark.parametrize("symbol", ["AAPL", "GS"])
def test_the_closing_print_is_the_last_trade_and_not_one_more(symbol: str) -> None:
    """In the hours before many closes: now and then the trade in whose place it comes would have been an extreme."""
    feed = new_feed("always")
    closes = [day.close_ns for day in hours_of("always").days(date(2026, 1, 1), date(2026, 4, 10))]
    hours = feed.spans(symbol, [(close_ns - HOUR_NS, close_ns) for close_ns in closes], EVER)
    for close_ns, hour in zip(closes, hours, strict=True):
        assert_same(hour, minutes_of(feed, symbol, close_ns - HOUR_NS, close_ns), vwap=3 * BASIS_POINT)


def test_the_test_symbol_trades_around_the_clock_while_its_stand_in_stands_still() -> None:
    """From Sunday afternoon to Monday's opening, over the hour in which prices begin to move."""
    feed = new_feed("xnys")
    (monday,) = hours_of("xnys").days(date(2026, 6, 1), date(2026, 6, 1))
    begin_ns = monday.open_ns - 16 * HOUR_NS
    minutes = minutes_of(feed, "FAKEPACA", begin_ns, monday.open_ns + HOUR_NS)
    assert len(minutes) == 17 * 60
    assert_same(feed.span("FAKEPACA", begin_ns, monday.open_ns + HOUR_NS, EVER), minutes)
    for bar in minutes[::97]:
        assert bar == feed.bar("FAKEPACA", bar["t"])


def test_a_stretch_that_is_asked_for_twice_is_answered_twice() -> None:
    begin_ns = hours_of("always").days(date(2026, 6, 1), date(2026, 6, 1))[0].open_ns
    first, second = (begin_ns, begin_ns + MINUTE_NS), (begin_ns + 5 * MINUTE_NS, begin_ns + 9 * MINUTE_NS)
    one, other, same = new_feed("always").spans("AAPL", [second, first, second], EVER)
    assert one == same == new_feed("always").span("AAPL", *second, EVER)
    assert other == new_feed("always").span("AAPL", *first, EVER)


def test_what_was_asked_before_changes_nothing() -> None:
    (day,) = hours_of("xnys").days(date(2026, 6, 2), date(2026, 6, 2))
    asked, fresh = new_feed("xnys"), new_feed("xnys")
    stretches = [(at_ns, min(at_ns + HOUR_NS, day.close_ns)) for at_ns in range(day.open_ns, day.close_ns, HOUR_NS)]
    hours = asked.spans("TSLA", stretches, EVER)
    alone = [new_feed("xnys").span("TSLA", begin_ns, end_ns, EVER) for begin_ns, end_ns in reversed(stretches)]
    assert hours == alone[::-1]
    assert asked.span("TSLA", day.open_ns, day.close_ns, EVER) == fresh.span("TSLA", day.open_ns, day.close_ns, EVER)
    assert asked.spans("TSLA", stretches, EVER) == hours


@pytest.mark.parametrize("symbol", ["BTC/USD", "DOGE/USD"])
def test_a_coins_day_of_utc_is_its_minutes_though_three_clocks_end_days_in_it(symbol: str) -> None:
    """Midnight in New York, where another day's volume begins; the exchange's close; and midnight itself."""
    feed = new_feed("xnys")
    for number in (20_600, 20_603, 20_611):
        begin_ns = number * DAY_NS
        minutes = minutes_of(feed, symbol, begin_ns, begin_ns + DAY_NS)
        assert_same(new_feed("xnys").span(symbol, begin_ns, begin_ns + DAY_NS, EVER), minutes)


@pytest.mark.parametrize("symbol", ["BTC/USD", "FAKEPACA"])
def test_what_trades_around_the_clock_does_so_after_the_last_close_of_the_calendar(symbol: str) -> None:
    last_ns = hours_of("xnys").next_close(1 << 62)
    begin_ns = last_ns // DAY_NS * DAY_NS
    bar: Any = new_feed("xnys").span(symbol, begin_ns, begin_ns + 2 * DAY_NS, EVER)
    assert bar["n"] > 2 * 24 * 60 * 20


def test_shares_trade_on_where_a_market_that_never_closes_outlives_the_calendar() -> None:
    begin_ns = 22_000 * DAY_NS
    bar: Any = new_feed("always").span("AAPL", begin_ns, begin_ns + MINUTE_NS, EVER)
    assert bar["v"] > 500


def test_the_work_of_bars_that_are_made_trade_by_trade_is_counted_so() -> None:
    """Those of the test symbol are, of any length."""
    feed = new_feed("always")
    year = (0, 365 * DAY_NS)
    assert feed.span_work("FAKEPACA", *year) > 30 * feed.span_work("AAPL", *year)
    assert feed.span_work("FAKEPACA", *year) == 365 * 24 * 60 * feed.span_work("AAPL", 0, MINUTE_NS)
