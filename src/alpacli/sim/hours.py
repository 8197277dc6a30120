"""When the exchange is open: round the clock by default, or the real NYSE calendar.

Round the clock, a trading day is a calendar day of New York: it opens and closes at midnight, the market is always open, and
``next_open`` equals ``next_close``, because the next day opens in the moment in which this one closes. Alpaca's calendar has
no way to write 24:00, so such a day reads 00:00 to 23:59.

With ``xnys`` the days and their closes come from ``exchange_calendars``, which is asked once, when an exchange is reset to
those hours, and whose answer the exchange keeps: it brings pandas and costs a third of a second, and a calendar that changed
under a running market would move all its later prices. Equity prices move on trading days from 04:00 to 20:00 New York time
and stand still in between; crypto never stops.

All instants are integer nanoseconds since the Unix epoch.
"""

import warnings
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Final, Literal, NamedTuple, Protocol
from zoneinfo import ZoneInfo

from alpacli.sim.answers import SECOND_NS

HoursName = Literal["always", "xnys"]

NEW_YORK: Final = ZoneInfo("America/New_York")
FIRST_DAY: Final = date(1970, 1, 1)
LAST_DAY: Final = date(2029, 12, 31)

_OPEN: Final = time(9, 30)
_EXTENDED_OPEN: Final = time(4)
_EXTENDED_S: Final = 16 * 3600
_HOUR_NS: Final = 3600 * SECOND_NS


class TradingDay(NamedTuple):
    """One day on which the exchange trades; ``until_ns`` and ``close_ns`` are the first instants that no longer belong."""

    day: date
    from_ns: int
    open_ns: int
    close_ns: int
    until_ns: int
    settlement: date

    @property
    def midnight_ns(self) -> int:
        return new_york_ns(self.day)

    @property
    def next_midnight_ns(self) -> int:
        return new_york_ns(self.day + timedelta(1))


class Session(NamedTuple):
    """A regular session of the NYSE; ``day`` is ``YYYY-MM-DD``."""

    day: str
    open_ns: int
    close_ns: int


class Hours(Protocol):
    name: HoursName

    def is_open(self, at_ns: int) -> bool:
        """Tell whether it is a time of the regular session."""

    def is_traded(self, at_ns: int) -> bool:
        """Tell whether equities trade: in the session, before it or after it."""

    def next_open(self, at_ns: int) -> int: ...

    def next_close(self, at_ns: int) -> int: ...

    def previous_close(self, at_ns: int) -> int:
        """Return the close of the last trading day before the New York date of ``at_ns``."""

    def days(self, start: date, end: date) -> list[TradingDay]:
        """Return the trading days from ``start`` to ``end``, both included, oldest first."""

    def trading_ns(self, at_ns: int) -> int:
        """Return how long equity prices have moved until ``at_ns``: a time that stands still while the market is shut."""


def new_york_date(at_ns: int) -> date:
    return _date_of_hour(at_ns // _HOUR_NS)


@lru_cache(maxsize=4096)
def _date_of_hour(hour: int) -> date:
    """Return the date in New York of an hour since the epoch: its midnights are all on whole hours, in UTC too."""
    return datetime.fromtimestamp(hour * 3600, NEW_YORK).date()


@lru_cache(maxsize=4096)
def _midnight_after(hour: int) -> int:
    return new_york_ns(_date_of_hour(hour) + timedelta(1))


def new_york_offset(at_ns: int) -> timedelta:
    offset = datetime.fromtimestamp(at_ns // SECOND_NS, NEW_YORK).utcoffset()
    return offset if offset is not None else timedelta()


@lru_cache(maxsize=4096)
def new_york_ns(day: date, at: time = time()) -> int:
    """Return the instant of a wall-clock time in New York."""
    return int(datetime.combine(day, at, NEW_YORK).timestamp()) * SECOND_NS


def session_text(day: TradingDay, name: HoursName) -> dict[str, str]:
    """Return the day as ``GET /v2/calendar`` shows it."""
    if name == "always":
        opens, closes, session = "00:00", "23:59", ("0000", "2359")
    else:
        opens, closes = (f"{_wall(at):%H:%M}" for at in (day.open_ns, day.close_ns))
        session = ("0400", "2000")
    return {
        "date": day.day.isoformat(),
        "open": opens,
        "close": closes,
        "session_open": session[0],
        "session_close": session[1],
        "settlement_date": day.settlement.isoformat(),
    }


def _wall(at_ns: int) -> datetime:
    return datetime.fromtimestamp(at_ns // SECOND_NS, NEW_YORK)


class AlwaysOpen:
    """Every day of the week, from midnight to midnight in New York."""

    name: HoursName = "always"

    def is_open(self, at_ns: int) -> bool:
        return True

    def is_traded(self, at_ns: int) -> bool:
        return True

    def next_open(self, at_ns: int) -> int:
        return _midnight_after(at_ns // _HOUR_NS)

    def next_close(self, at_ns: int) -> int:
        return _midnight_after(at_ns // _HOUR_NS)

    def previous_close(self, at_ns: int) -> int:
        return new_york_ns(new_york_date(at_ns))

    def days(self, start: date, end: date) -> list[TradingDay]:
        start, end = max(start, FIRST_DAY), min(end, LAST_DAY)
        days = []
        for number in range((end - start).days + 1):
            day = start + timedelta(number)
            opens, closes = new_york_ns(day), new_york_ns(day + timedelta(1))
            days.append(TradingDay(day, opens, opens, closes, closes, day + timedelta(1)))
        return days

    def trading_ns(self, at_ns: int) -> int:
        return at_ns


class Nyse:
    """The trading days of the New York Stock Exchange from 2000 to 2029, early closes included."""

    name: HoursName = "xnys"

    def __init__(self, sessions: Sequence[Session]) -> None:
        self._dates = [date.fromisoformat(session.day) for session in sessions]
        self._opens = [session.open_ns for session in sessions]
        self._closes = [session.close_ns for session in sessions]
        early = datetime.combine(FIRST_DAY, _OPEN) - datetime.combine(FIRST_DAY, _EXTENDED_OPEN)
        self._from = [opens - early // timedelta(seconds=1) * SECOND_NS for opens in self._opens]

    def is_open(self, at_ns: int) -> bool:
        position = bisect_right(self._opens, at_ns) - 1
        return position >= 0 and at_ns < self._closes[position]

    def is_traded(self, at_ns: int) -> bool:
        position = bisect_right(self._from, at_ns) - 1
        return position >= 0 and at_ns < self._from[position] + _EXTENDED_S * SECOND_NS

    def next_open(self, at_ns: int) -> int:
        return self._opens[min(bisect_right(self._opens, at_ns), len(self._opens) - 1)]

    def next_close(self, at_ns: int) -> int:
        return self._closes[min(bisect_right(self._closes, at_ns), len(self._closes) - 1)]

    def previous_close(self, at_ns: int) -> int:
        return self._closes[max(bisect_left(self._dates, new_york_date(at_ns)) - 1, 0)]

    def days(self, start: date, end: date) -> list[TradingDay]:
        first, last = bisect_left(self._dates, start), bisect_right(self._dates, end)
        return [self._day(position) for position in range(first, last)]

    def trading_ns(self, at_ns: int) -> int:
        position = bisect_right(self._from, at_ns) - 1
        if position < 0:
            return 0
        whole = _EXTENDED_S * SECOND_NS
        return position * whole + min(at_ns - self._from[position], whole)

    def _day(self, position: int) -> TradingDay:
        opened = self._from[position]
        return TradingDay(
            self._dates[position],
            opened,
            self._opens[position],
            self._closes[position],
            opened + _EXTENDED_S * SECOND_NS,
            self._dates[min(position + 1, len(self._dates) - 1)],
        )


@lru_cache(maxsize=1)
def nyse_sessions() -> tuple[Session, ...]:
    """Return the real sessions from 2000 to 2029. Costs a third of a second, once, and the memory of pandas."""
    import exchange_calendars

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # how that library uses pandas is not ours to mend
        schedule = exchange_calendars.get_calendar("XNYS", start="2000-01-01", end="2029-12-31").schedule
    return tuple(
        Session(stamp.date().isoformat(), _instant(opens.to_pydatetime()), _instant(closes.to_pydatetime()))
        for stamp, opens, closes in zip(schedule.index, schedule["open"], schedule["close"], strict=True)
    )


def _instant(moment: datetime) -> int:
    return int(moment.astimezone(UTC).timestamp()) * SECOND_NS
