"""The formulas are those of empyrical, and days are New York's trading days whatever the clocks do."""

# mypy: disable-error-code="comparison-overlap"
# Whole numbers stand for the decimals they equal.

import datetime as dt
import itertools
import json
import math
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alpacli.history import returns
from alpacli.history.archive import ActivityRow, Archive, Chain, Saved, new_york_day, new_york_ns
from alpacli.history.earnings import Played, Traded, events
from alpacli.history.lots import Lots
from alpacli.history.returns import Close

RETURNS = st.lists(st.floats(-0.5, 0.5).map(lambda r: round(r, 9)), min_size=2, max_size=120)
FORMULAS: Sequence[tuple[str, Any, str]] = [
    ("total", returns.total_return, "cum_returns_final"),
    ("volatility", returns.volatility, "annual_volatility"),
    ("sharpe", returns.sharpe, "sharpe_ratio"),
    ("sortino", returns.sortino, "sortino_ratio"),
]


def _series(values: Sequence[float]) -> pd.Series:
    return pd.Series(values, index=pd.bdate_range("2024-01-02", periods=len(values), tz="UTC"))


@settings(max_examples=40)
@given(values=RETURNS)
def test_each_formula_is_empyricals(values: list[float]) -> None:
    import empyrical  # with scipy: only the worker that needs it pays

    if len(set(values)) == 1:
        return  # a deviation of nothing: a float's noise there, nothing to say here
    for name, ours, theirs in FORMULAS:
        found, expected = ours(values), float(getattr(empyrical, theirs)(_series(values)))
        if found is None:
            assert not math.isfinite(expected), name
        else:
            assert found == pytest.approx(expected, rel=1e-9, abs=1e-12), name


@settings(max_examples=20)
@given(values=RETURNS)
def test_an_account_that_has_weekends_counts_365_days_a_year_as_empyrical_does(values: list[float]) -> None:
    import empyrical

    if len(set(values)) == 1:
        return
    for name, ours, theirs in FORMULAS[1:]:
        found = ours(values, 365)
        if found is not None:
            expected = float(getattr(empyrical, theirs)(_series(values), annualization=365))
            assert found == pytest.approx(expected, rel=1e-9, abs=1e-12), name


def test_a_year_has_the_days_that_the_data_has_and_growth_goes_by_the_calendar() -> None:
    monday = dt.date(2026, 1, 5).toordinal()
    assert returns.days_a_year(range(monday, monday + 5)) == 252
    assert returns.days_a_year(range(monday, monday + 6)) == 365
    assert returns.cagr([0.02117], 45) == pytest.approx(1.02117 ** (365 / 45) - 1)

    def stats(days: Sequence[int]) -> returns.Stats:
        equities = [100 + place % 3 for place, _ in enumerate(days)]
        growths = [None, *(after / before - 1 for before, after in itertools.pairwise(equities))]
        closes = [
            Close(day, Decimal(equity), "alpaca", Decimal(0), growth, None, None)
            for day, equity, growth in zip(days, equities, growths, strict=True)
        ]
        found = returns.stats(closes, [], 0)
        assert found is not None
        return found

    week, weekend = stats(range(monday, monday + 5)), stats([*range(monday, monday + 3), monday + 5, monday + 7])
    assert week.volatility_ratio is not None
    assert weekend.volatility_ratio is not None
    assert float(weekend.volatility_ratio / week.volatility_ratio) == pytest.approx(math.sqrt(365 / 252))
    assert float(week.cagr_ratio or 0) == pytest.approx(1.01 ** (365 / 4) - 1)
    assert float(weekend.cagr_ratio or 0) == pytest.approx(1.01 ** (365 / 7) - 1)


@settings(max_examples=40)
@given(values=RETURNS)
def test_the_deepest_fall_is_empyricals_and_lies_between_its_own_days(values: list[float]) -> None:
    import empyrical

    days = list(range(len(values) + 1))
    fall = returns.drawdown(days, values)
    expected = float(empyrical.max_drawdown(_series(values)))
    assert (fall.ratio if fall else 0.0) == pytest.approx(expected, abs=1e-12)
    if fall is not None:
        worth = np.cumprod([1.0, *(1 + value for value in values)])
        assert worth[fall.bottom] / worth[fall.top] - 1 == pytest.approx(fall.ratio)
        assert fall.top < fall.bottom
        if fall.recovered is not None:
            assert worth[fall.recovered] >= worth[fall.top]


def test_too_little_has_no_number_and_an_even_course_no_ratio() -> None:
    for formula in (returns.volatility, returns.sharpe, returns.sortino):
        assert formula([0.01]) is None
    assert returns.cagr([], 0) is None
    assert returns.cagr([-1.0], 1) is None
    assert returns.cagr([20.0], 1) is None  # 21 to the power of 365 is no float
    assert returns.sharpe([0.01, 0.01, 0.01]) is None
    assert returns.sortino([0.01, 0.02]) is None
    assert returns.drawdown([0, 1], [0.5]) is None


# ------------------------------------------------------------------------------------------------------ curve


def _archive(folder: Path) -> Archive:
    return Archive(str(folder / "history" / "account.sqlite"))


def _snapshot(archive: Archive, at: str, equity: str, long_value: str = "0", short_value: str = "0") -> None:
    at_ns = _ns(at)
    assert archive.append(Saved(at_ns, equity, equity, long_value, short_value, b"{}"), (at_ns, at_ns + 1))


def _transfer(
    archive: Archive, number: int, day: str, amount: str, status: str = "executed", kind: str = "CSD", **told: str
) -> None:
    ordinal = dt.date.fromisoformat(day).toordinal()
    wire = json.dumps({"id": str(number), "activity_type": kind, "net_amount": amount, **told}).encode()
    row = ActivityRow(str(number), kind, new_york_ns(ordinal, dt.time()), ordinal, "", "", status, None, None, wire)
    archive.keep_activities([row])


def _broker(archive: Archive, read: str | None = None, **days: str) -> None:
    rows = [(dt.date.fromisoformat(day[1:].replace("_", "-")).toordinal(), equity) for day, equity in days.items()]
    archive.keep_days(rows, ("days", Chain(whole_ns=None if read is None else _ns(read))))


def _ns(at: str) -> int:
    return int(dt.datetime.fromisoformat(at).timestamp()) * 10**9


def _shown(archive: Archive) -> list[tuple[str, Decimal, str]]:
    return [(_date(close.day)[5:], close.equity, close.source) for close in returns.curve(archive)]


def test_an_own_close_is_of_five_minutes_before_the_close_or_else_after_it(tmp_path: Path) -> None:
    with _archive(tmp_path) as archive:
        for at, equity in [
            ("2026-01-05T09:31-05:00", "100"),
            ("2026-01-05T15:55-05:00", "109"),
            ("2026-01-05T16:00-05:00", "110"),
            ("2026-01-05T16:01-05:00", "150"),
            ("2026-01-06T15:54-05:00", "119"),
            ("2026-01-06T16:05-05:00", "120"),
            ("2026-01-06T18:00-05:00", "190"),
        ]:
            _snapshot(archive, at, equity, long_value="55", short_value="-11")
        closes = returns.curve(archive)
    assert [(close.equity, close.source) for close in closes] == [(110, "snapshot"), (120, "snapshot")]
    assert closes[1].growth == pytest.approx(120 / 110 - 1)
    assert closes[0].exposure == pytest.approx(0.6)


def test_the_morning_is_no_close_where_alpacas_is_known(tmp_path: Path) -> None:
    mornings = {"2026-07-07": "99308", "2026-07-08": "99336", "2026-07-09": "98284", "2026-07-10": "99548"}
    with _archive(tmp_path) as archive:
        for day, equity in mornings.items():
            _snapshot(archive, f"{day}T09:40-04:00", equity, long_value=equity)
        closes = {
            "d2026_07_06": "98808",
            "d2026_07_07": "100024",
            "d2026_07_08": "98728",
            "d2026_07_09": "98740",
            "d2026_07_10": "99012",
            "d2026_07_13": "98536",
        }
        _broker(archive, "2026-07-13T16:00-04:00", **closes)
        found = returns.curve(archive)
        assert [(close.equity, close.source) for close in found] == [(Decimal(e), "alpaca") for e in closes.values()]
        assert [close.exposure for close in found] == [None, 1, 1, 1, 1, None]
        numbers = returns.stats(found, [], 4)
    assert numbers is not None
    assert (numbers.reconciliation.days, numbers.days_from_snapshots) == (0, 0), "a morning is not held against a close"
    daily = np.array([100024 / 98808, 98728 / 100024, 98740 / 98728, 99012 / 98740, 98536 / 99012]) - 1
    assert float(numbers.volatility_ratio or 0) == pytest.approx(daily.std(ddof=1) * math.sqrt(252), abs=1e-11)
    assert float(numbers.volatility_ratio or 0) == pytest.approx(0.1482, abs=5e-5)
    assert float(numbers.sharpe or 0) == pytest.approx(-0.878, abs=5e-4)


def test_a_day_that_is_not_over_has_what_is_known_of_it_and_says_of_when(tmp_path: Path) -> None:
    with _archive(tmp_path) as archive:
        _broker(archive, "2026-01-06T09:40-05:00", d2026_01_05="100", d2026_01_06="101")
        assert _shown(archive) == [("01-05", 100, "alpaca"), ("01-06", 101, "alpaca 09:40")]
        _snapshot(archive, "2026-01-06T14:00-05:00", "102")
        _snapshot(archive, "2026-01-07T17:30-05:00", "103")
        assert _shown(archive)[1:] == [("01-06", 102, "snapshot 14:00"), ("01-07", 103, "snapshot 17:30")]
        _snapshot(archive, "2026-01-06T15:58-05:00", "104")
        assert _shown(archive)[1] == ("01-06", 104, "snapshot")
        assert returns.agreement(returns.curve(archive)).days == 0, "what Alpaca said in the morning is no close"
        found = returns.stats(returns.curve(archive), [], 3)
        assert found is not None
        assert found.days_from_snapshots == 2
        _broker(archive, "2026-01-07T17:30-05:00", d2026_01_06="104.5", d2026_01_07="105")
        assert _shown(archive)[1:] == [("01-06", 104, "snapshot"), ("01-07", 105, "alpaca")]
        assert returns.agreement(returns.curve(archive)).largest_difference == Decimal("-0.5")


def test_a_half_day_closes_at_one_oclock(tmp_path: Path) -> None:
    with _archive(tmp_path) as archive:
        for at, equity in [("12:58", "100"), ("15:59", "90")]:
            _snapshot(archive, f"2026-11-27T{at}-05:00", equity)
        _snapshot(archive, "2026-12-24T16:00-05:00", "80")
        _broker(archive, "2026-12-24T13:30-05:00", d2026_11_27="101", d2026_12_24="102")
        assert _shown(archive) == [("11-27", 100, "snapshot"), ("12-24", 102, "alpaca")]


def test_earnings_by_day_end_with_the_moment_that_they_are_drawn_for(tmp_path: Path) -> None:
    with _archive(tmp_path) as archive:
        _broker(archive, "2026-01-07T17:30-05:00", d2026_01_05="100", d2026_01_06="101", d2026_01_07="105")
        closes = returns.curve(archive)
    noon_ns = _ns("2026-01-07T12:00-05:00")
    assert list(returns.growth(closes).days.values()) == [100, 1, 4]
    assert list(returns.growth(closes, (noon_ns, Decimal(103), Decimal(0))).days.values()) == [100, 1, 2]


def test_days_without_a_snapshot_are_alpacas_and_the_difference_on_the_others_is_told(tmp_path: Path) -> None:
    with _archive(tmp_path) as archive:
        _broker(archive, d2026_01_05="100", d2026_01_06="101", d2026_01_07="99.5")
        _snapshot(archive, "2026-01-06T15:59-05:00", "101.25")
        closes = returns.curve(archive)
    assert [(close.equity, close.source) for close in closes] == [
        (100, "alpaca"),
        (Decimal("101.25"), "snapshot"),
        (Decimal("99.5"), "alpaca"),
    ]
    agreed = returns.agreement(closes)
    assert (agreed.days, agreed.largest_difference, agreed.on) == (1, Decimal("0.25"), "2026-01-06")


def test_a_weekend_and_a_holiday_within_alpacas_list_have_no_return(tmp_path: Path) -> None:
    with _archive(tmp_path) as archive:
        _broker(archive, d2026_07_02="100", d2026_07_06="104")
        for at in ("2026-07-03T12:00-04:00", "2026-07-04T12:00-04:00", "2026-07-05T12:00-04:00"):
            _snapshot(archive, at, "70")
        assert [close.growth for close in returns.curve(archive)] == [None, pytest.approx(0.04)]


@pytest.mark.parametrize("changes", ["2026-03-08", "2026-11-01"])
def test_the_days_around_a_change_of_the_clocks_are_each_counted_once(tmp_path: Path, changes: str) -> None:
    sunday = dt.date.fromisoformat(changes)
    with _archive(tmp_path) as archive:
        for number, offset in enumerate((-2, 1, 2)):
            day = (sunday + dt.timedelta(offset)).toordinal()
            at_ns = new_york_ns(day, dt.time(15, 59))
            archive.append(Saved(at_ns, str(100 + number), "0", "0", "0", b"{}"), (at_ns, at_ns + 1))
            late_ns = new_york_ns(day, dt.time(23, 30))
            archive.append(Saved(late_ns, "1", "0", "0", "0", b"{}"), (late_ns, late_ns + 1))
        assert [close.equity for close in returns.curve(archive)] == [100, 101, 102]
    hours = {
        round(
            (new_york_ns(sunday.toordinal() + n + 1, dt.time()) - new_york_ns(sunday.toordinal() + n, dt.time()))
            / 3.6e12
        )
        for n in (0, 1)
    }
    assert hours == {24, 23 if changes == "2026-03-08" else 25}


def test_midnight_in_new_york_begins_the_day_also_when_the_clocks_change() -> None:
    for text, day in [("2026-03-09T03:59:59+00:00", "2026-03-08"), ("2026-03-09T04:00:00+00:00", "2026-03-09")]:
        at_ns = int(dt.datetime.fromisoformat(text).timestamp()) * 10**9
        assert dt.date.fromordinal(new_york_day(at_ns)).isoformat() == day


def test_money_that_came_in_is_no_return(tmp_path: Path) -> None:
    with _archive(tmp_path) as archive:
        _broker(archive, d2026_01_02="1000", d2026_01_05="1510", d2026_01_06="1510")
        _transfer(archive, 1, "2026-01-01", "1000")
        _transfer(archive, 2, "2026-01-03", "500")
        _transfer(archive, 3, "2026-01-06", "700", status="canceled")
        closes = returns.curve(archive)
        assert [close.growth for close in closes] == [0, pytest.approx(0.01), pytest.approx(0)]
        assert returns.growth(closes).days == {close.day: gain for close, gain in zip(closes, (0, 10, 0), strict=True)}
        later = returns.curve(archive, since=closes[1].day)
    assert later[0].growth == pytest.approx(0.01)


def test_shares_that_came_in_are_no_return_and_count_at_what_they_were_worth(tmp_path: Path) -> None:
    with _archive(tmp_path) as archive:
        _broker(archive, d2026_01_02="1000", d2026_01_05="1510")
        _transfer(archive, 1, "2026-01-01", "1000")
        _transfer(archive, 2, "2026-01-03", "0", kind="JNLS", symbol="AAPL", qty="5", price="100")
        closes = returns.curve(archive)
        assert [close.transfers for close in closes] == [1000, 500]
        assert closes[1].growth == pytest.approx(0.01)
        assert sum(returns.transfers(archive).values()) == Played(events(archive)).moved("transfers")


def test_what_an_account_earned_on_its_first_day_counts_from_the_money_it_began_with(tmp_path: Path) -> None:
    equities = {"d2026_07_06": "98808", "d2026_07_07": "100024", "d2026_07_08": "98728", "d2026_07_09": "98740"}
    with _archive(tmp_path) as archive:
        _broker(archive, **equities, d2026_07_10="99012", d2026_07_13="98536")
        unknown = returns.stats(returns.curve(archive), [], 0)
        _transfer(archive, 1, "2026-07-06", "100000", kind="JNLC")
        closes = returns.curve(archive)
        found = returns.stats(closes, [], 0)
    assert unknown is not None
    assert (unknown.days, unknown.gain) == (5, -272), "where nobody knows what it began with, at its first close"
    assert found is not None
    assert (found.first_day, found.days, found.gain, found.transfers) == ("2026-07-06", 6, -1464, 0)
    assert found.return_ratio == Decimal("-0.01464")
    assert closes[0].growth == pytest.approx(-0.01192)
    assert found.max_drawdown_ratio == returns.ratio(98536 / 100024 - 1)
    assert (found.drawdown_from, found.drawdown_to, found.drawdown_recovered) == ("2026-07-07", "2026-07-13", None)
    assert found.cagr_ratio == returns.ratio(0.98536 ** (365 / 8) - 1), "eight days from the day before"
    fallen = returns.stats(closes[:1], [], 0)
    assert fallen is not None
    assert (fallen.drawdown_from, fallen.drawdown_to) == ("2026-07-05", "2026-07-06")
    assert fallen.max_drawdown_ratio == Decimal("-0.01192")
    same, later = returns.stats(closes, [], 0, closes[0].day), returns.stats(closes, [], 0, closes[1].day)
    assert same == found
    assert later is not None
    assert (later.days, later.gain) == (5, -272)


def _closes(*equity: int) -> list[Close]:
    before: int | None = None
    found: list[Close] = []
    for number, amount in enumerate(equity):
        growth = None if before is None else amount / before - 1
        found.append(Close(739_000 + number, Decimal(amount), "snapshot", Decimal(0), growth, None, 0.5))
        before = amount
    return found


def test_win_rate_profit_factor_and_holding_time_come_from_closed_orders() -> None:
    lots, day_ns = Lots(), 86_400 * 10**9
    plan = [("a", 10, "10", 0), ("b", -4, "15", 2), ("c", -6, "8", 4), ("d", 5, "20", 4)]
    trades = []
    for order, qty, price, at in plan:
        closings = lots.trade("X", Decimal(qty), Decimal(price), at * day_ns)
        side = "buy" if qty > 0 else "sell"
        trades.append(Traded(739_000 + at, at * day_ns, "X", side, abs(qty) * Decimal(price), order, closings))
    found = returns.stats(_closes(100, 110, 90, 120, 100), trades, 5)
    assert found is not None
    assert (found.trades, found.win_rate_ratio, found.profit_factor) == (2, Decimal("0.5"), Decimal("1.666666666667"))
    assert found.holding_time_s == Decimal("276480")  # 40 for two days, 60 for four
    assert found.turnover_ratio == Decimal("1.038461538462")  # 108 sold, 200 bought, 104 on average
    assert found.exposure_ratio == Decimal("0.5")
    assert (found.drawdown_from, found.drawdown_to) == (_date(739_001), _date(739_002))
    assert found.drawdown_recovered == _date(739_003)


def test_the_numbers_of_a_period_begin_at_the_close_before_it() -> None:
    closes = _closes(100, 110, 99, 120, 132)
    found = returns.stats(closes, [], 5, closes[2].day)
    assert found is not None
    assert (found.first_day, found.last_day, found.days) == (_date(739_002), _date(739_004), 3)
    assert (found.gain, found.return_ratio) == (22, Decimal("0.2"))
    assert (found.drawdown_from, found.drawdown_to) == (_date(739_001), _date(739_002))
    assert found.days_from_snapshots == 3
    day = returns.stats(closes, [], 5, closes[4].day)
    assert day is not None
    assert (day.days, day.gain, day.return_ratio) == (1, 12, Decimal("0.1"))
    assert day.cagr_ratio == returns.ratio(returns.cagr([0.1], 1))
    whole, same = returns.stats(closes, [], 5), returns.stats(closes, [], 5, closes[0].day)
    assert whole is not None
    assert (whole, whole.days, whole.gain) == (same, 4, 32)


def test_an_empty_curve_has_no_numbers() -> None:
    assert returns.stats([], [], 0) is None
    assert returns.stats(_closes(100, 110), [], 0, 739_002) is None


def _date(day: int) -> str:
    return dt.date.fromordinal(day).isoformat()
