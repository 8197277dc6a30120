"""What people mean by a time, a timeframe, a symbol; and intervals that are added, cut and subtracted."""

import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpacli.domain.series import (
    Span,
    Timeframe,
    check_adjustment,
    check_symbol,
    cut,
    market_of,
    missing,
    moment,
    union,
)
from alpacli.errors import UsageError

NEW_YORK = ZoneInfo("America/New_York")
NOW = int(dt.datetime(2026, 3, 31, 18, 5, 7, tzinfo=dt.UTC).timestamp()) * 10**9


def at(text: str, *, ending: bool = False, zone: dt.tzinfo = NEW_YORK) -> str:
    ns = moment("start", text, NOW, zone, ending=ending)
    return dt.datetime.fromtimestamp(ns // 10**9, dt.UTC).isoformat().removesuffix("+00:00") + f".{ns % 10**9:09d}"


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("2026-01-05", "2026-01-05T05:00:00.000000000"),
        ("2026-01-05 09:30", "2026-01-05T14:30:00.000000000"),
        ("2026-07-06 09:30", "2026-07-06T13:30:00.000000000"),
        ("2026-01-05T14:30:00.123456789Z", "2026-01-05T14:30:00.123456789"),
        ("2026-01-05T09:30:00+01:00", "2026-01-05T08:30:00.000000000"),
        ("now", "2026-03-31T18:05:07.000000000"),
        ("-90min", "2026-03-31T16:35:07.000000000"),
        ("-4h", "2026-03-31T14:05:07.000000000"),
        ("-5d", "2026-03-26T04:00:00.000000000"),
        ("-2w", "2026-03-17T04:00:00.000000000"),
        ("-1mo", "2026-02-28T05:00:00.000000000"),
        ("-1y", "2025-03-31T04:00:00.000000000"),
        ("today", "2026-03-31T04:00:00.000000000"),
        ("yesterday", "2026-03-30T04:00:00.000000000"),
    ],
)
def test_a_time_is_what_people_mean_by_it(text: str, means: str) -> None:
    assert at(text) == means


def test_a_date_as_the_end_includes_its_whole_day_also_when_clocks_change() -> None:
    assert at("2026-01-05", ending=True) == "2026-01-06T04:59:59.999999999"
    assert at("2026-03-08", ending=True) == "2026-03-09T03:59:59.999999999"
    assert at("2026-11-01") == "2026-11-01T04:00:00.000000000"
    assert at("2026-11-01", ending=True) == "2026-11-02T04:59:59.999999999"


@pytest.mark.parametrize("text", ["1969-02-01", "1969-02-01 10:00", "1969-12-31T23:59:59.5Z", "-60y"])
def test_an_end_before_1970_is_no_end_and_a_beginning_is_the_first_there_can_be(text: str) -> None:
    with pytest.raises(UsageError, match="no market history is as old"):
        at(text, ending=True)
    assert at(text) == "1970-01-01T00:00:00.000000000"


@pytest.mark.parametrize(
    "text", ["", "tomorrow", "2026-13-01", "5d", "-5", "-5q", "2026-01-05 25:00", "-99999y", "--5d"]
)
def test_what_is_no_time_is_refused_with_examples(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        at(text)
    assert "-5d" in refused.value.hint


def test_a_time_that_clocks_skip_is_refused_and_not_guessed() -> None:
    with pytest.raises(UsageError, match="put forward"):
        at("2026-03-08 02:30")


@pytest.mark.parametrize(
    ("text", "means"),
    [("1Min", "1Min"), ("15T", "15Min"), ("1h", "1Hour"), ("D", "1Day"), ("3M", "3Month"), ("5m", "5Min")],
)
def test_timeframes_have_alpacas_spellings_and_the_usual_short_ones(text: str, means: str) -> None:
    assert str(Timeframe.parse(text)) == means


@pytest.mark.parametrize("text", ["60Min", "24Hour", "2Day", "5Month", "0Min", "1Year", "", "Min1"])
def test_bars_that_alpaca_does_not_make_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Timeframe.parse(text)


def test_a_symbol_tells_its_market() -> None:
    assert [market_of(name) for name in ("AAPL", "BTC/USD", "AAPL260116C00150000", "BRK.B")] == [
        "stocks", "crypto", "options", "stocks",
    ]  # fmt: skip
    assert check_symbol(" brk.b ") == "BRK.B"
    for wrong in ("", "A B", "AAPL,MSFT", "../x", "A?"):
        with pytest.raises(UsageError):
            check_symbol(wrong)


def test_an_adjustment_has_one_spelling() -> None:
    assert check_adjustment("split, Dividend") == "dividend,split"
    for wrong in ("", "raw,split", "all,split", "splits"):
        with pytest.raises(UsageError):
            check_adjustment(wrong)


spans = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=8)


def moments(these: list[Span]) -> set[int]:
    return {moment for start, end in these for moment in range(start, end)}


@given(spans, st.tuples(st.integers(0, 40), st.integers(0, 40)))
def test_intervals_behave_like_the_sets_of_their_moments(these: list[Span], within: Span) -> None:
    assert moments(union(these)) == moments(these)
    assert all(a[1] < b[0] for a, b in zip(union(these), union(these)[1:], strict=False))
    assert moments(cut(these, within)) == moments(these) & moments([within])
    assert moments(missing(within, these)) == moments([within]) - moments(these)


def test_days_may_begin_in_another_zone_than_that_of_times() -> None:
    """A coin's days are UTC's, and a time of the clock is New York's all the same."""

    def meant(text: str, *, ending: bool = False) -> int:
        return moment("start", text, evening, NEW_YORK, ending=ending, days=dt.UTC)

    def utc(*parts: int) -> int:
        return int(dt.datetime(*parts, tzinfo=dt.UTC).timestamp()) * 10**9  # type: ignore[misc,arg-type] # year to minute

    evening = utc(2026, 4, 1, 1, 30)  # in New York it is still March
    assert meant("2026-03-30") == utc(2026, 3, 30)
    assert meant("2026-03-30", ending=True) == utc(2026, 3, 31) - 1
    assert meant("today") == utc(2026, 4, 1)
    assert meant("-2d") == utc(2026, 3, 30)
    assert meant("2026-03-30 09:30") == utc(2026, 3, 30, 13, 30)
