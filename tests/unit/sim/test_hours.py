"""When the exchange is open, and how the clock and the calendar say it."""

import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from alpacli.ports import SystemClock
from alpacli.sim.hours import AlwaysOpen, Hours, HoursName, Nyse, new_york_ns, nyse_sessions, session_text
from alpacli.sim.upkeep import reset

MINUTE_NS = 60 * 10**9


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 10**9


@pytest.fixture(scope="module")
def nyse() -> Hours:
    return Nyse(nyse_sessions())


def test_round_the_clock_is_always_open_and_its_day_turns_at_midnight() -> None:
    """The next day opens in the moment this one closes."""
    hours = AlwaysOpen()
    sunday = at("2026-05-31T12:00:00")
    assert hours.is_open(sunday)
    assert hours.next_open(sunday) == hours.next_close(sunday) == at("2026-06-01T04:00:00")
    assert hours.previous_close(sunday) == at("2026-05-31T04:00:00")


def test_round_the_clock_days_follow_new_york_through_the_clock_changes() -> None:
    """The days on which clocks change last 23 and 25 hours, and none is lost."""
    days = AlwaysOpen().days(date(2026, 3, 7), date(2026, 11, 2))
    lengths = {day.day: (day.close_ns - day.open_ns) // (60 * MINUTE_NS) for day in days}
    assert lengths[date(2026, 3, 8)] == 23
    assert lengths[date(2026, 11, 1)] == 25
    assert all(earlier.close_ns == later.open_ns for earlier, later in pairwise(days))


def test_the_calendar_of_all_days_can_be_written_with_two_digit_hours() -> None:
    """Alpaca's calendar cannot say 24:00; the official SDK could not read it."""
    day = AlwaysOpen().days(date(2026, 6, 1), date(2026, 6, 1))[0]
    assert session_text(day, "always") == {
        "date": "2026-06-01",
        "open": "00:00",
        "close": "23:59",
        "session_open": "0000",
        "session_close": "2359",
        "settlement_date": "2026-06-02",
    }


def test_nyse_knows_early_closes_and_settles_on_the_next_trading_day(nyse: Hours) -> None:
    """The day after Thanksgiving closes at 13:00 and settles on Monday (wire reference 4.7)."""
    days = nyse.days(date(2025, 11, 26), date(2025, 11, 28))
    assert [session_text(day, "xnys") for day in days][1:] == [
        {
            "date": "2025-11-28",
            "open": "09:30",
            "close": "13:00",
            "session_open": "0400",
            "session_close": "2000",
            "settlement_date": "2025-12-01",
        }
    ]


@pytest.mark.parametrize(
    ("moment", "is_open", "next_open", "next_close"),
    [
        ("2026-06-01T13:29:59", False, "2026-06-01T13:30:00", "2026-06-01T20:00:00"),
        ("2026-06-01T13:30:00", True, "2026-06-02T13:30:00", "2026-06-01T20:00:00"),
        ("2026-06-01T19:59:59", True, "2026-06-02T13:30:00", "2026-06-01T20:00:00"),
        ("2026-06-01T20:00:00", False, "2026-06-02T13:30:00", "2026-06-02T20:00:00"),
        ("2026-07-03T15:00:00", False, "2026-07-06T13:30:00", "2026-07-06T20:00:00"),
    ],
)
def test_nyse_opens_and_closes_on_the_second(
    nyse: Hours, moment: str, is_open: bool, next_open: str, next_close: str
) -> None:
    """The opening instant belongs to the session, the closing instant does not; holidays are holidays."""
    now = at(moment)
    assert nyse.is_open(now) is is_open
    assert nyse.next_open(now) == at(next_open)
    assert nyse.next_close(now) == at(next_close)


def test_the_previous_close_is_that_of_the_trading_day_before(nyse: Hours) -> None:
    """All of Monday, also after its close, is measured from Friday's close; Saturday too."""
    friday_close = at("2026-05-29T20:00:00")
    for moment in ("2026-05-30T15:00:00", "2026-06-01T12:00:00", "2026-06-01T23:00:00"):
        assert nyse.previous_close(at(moment)) == friday_close
    assert nyse.previous_close(at("2026-06-02T12:00:00")) == at("2026-06-01T20:00:00")


def test_trading_time_runs_from_four_to_twenty_on_trading_days_only(nyse: Hours) -> None:
    """Sixteen hours a day, continuous over nights, weekends and holidays."""
    friday, monday = new_york_ns(date(2026, 5, 29)), new_york_ns(date(2026, 6, 1))
    hour = 60 * MINUTE_NS
    assert nyse.trading_ns(friday + 20 * hour) == nyse.trading_ns(monday + 4 * hour)
    assert nyse.trading_ns(monday + 20 * hour) - nyse.trading_ns(monday + 4 * hour) == 16 * hour
    assert nyse.trading_ns(monday + 5 * hour) - nyse.trading_ns(monday) == hour


@pytest.mark.parametrize("hours", ["always", "xnys"])
def test_serving_does_not_import_pandas(tmp_path: Path, hours: HoursName) -> None:
    """The real calendar costs a third of a second: it is paid by reset, never by a request."""
    reset(str(tmp_path), SystemClock(), lambda exchange: exchange.reset(hours=hours))
    script = (
        "import sys; from alpacli.ports import Request, SystemClock; from alpacli.sim.transport import SimTransport\n"
        "transport = SimTransport(sys.argv[1], SystemClock())\n"
        "transport.send(Request('GET', '/v2/account'), connect_timeout_s=1, read_timeout_s=1); transport.close()\n"
        "heavy = {'pandas', 'numpy', 'exchange_calendars', 'pydantic', 'uvicorn', 'asyncio', 'alpaca'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    seen = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert seen.stdout == "[]\n"


def test_calendar_days_outside_the_range_are_left_out() -> None:
    """Alpaca's calendar reaches from 1970 to 2029."""
    days = AlwaysOpen().days(date(1960, 1, 1), date(1970, 1, 2))
    assert [day.day for day in days] == [date(1970, 1, 1), date(1970, 1, 1) + timedelta(1)]
