"""Which part of what is missing can hold rows at all: holidays, weekends and nights are not holes.

Stocks trade from 04:00 to 20:00 in New York on the days of the NYSE, crypto always; the night venues are treated as always
open. A short hole is cut down to the first and the last moment at which something may trade, so a question about a closed
market sends nothing; a long one has trading in it anyway. The calendar (exchange_calendars) brings pandas, so its holidays
are kept in a small file for a while.
"""

import contextlib
import datetime as dt
import json
import os
import warnings
from collections.abc import Callable
from typing import Final, Protocol
from zoneinfo import ZoneInfo

from alpacli.domain.series import DAY_NS, HOUR_NS, MINUTE_NS, SECOND_NS, Series, Span

NEW_YORK: Final = ZoneInfo("America/New_York")
SETTLES_NS: Final = 15 * MINUTE_NS
"""How long after its end a bar may still change: late reports, and the delay of the plans without recent data."""

_OPENS: Final = dt.time(4)
_CLOSES: Final = dt.time(20)
_ALWAYS: Final = ("boats", "overnight")
_MOST_DAYS: Final = 15  # no market was closed for longer since 1933

_LONG_NS: Final = 12 * DAY_NS
_KEPT_DAYS: Final = 30

IsSession = Callable[[dt.date], bool]


class Hours(Protocol):
    """When stocks trade on an exchange."""

    def never_closes(self) -> bool: ...

    def is_session(self, day: dt.date) -> bool: ...


def narrowed(series: Series, hole: Span, hours: Hours) -> Span | None:
    """Return the part of a hole between its first and its last moment of trading; ``None`` when the market was shut."""
    step = series.step
    if hole[1] - hole[0] > _LONG_NS or series.market == "crypto" or series.feed in _ALWAYS:
        return hole
    if (step is not None and step.unit in ("Week", "Month")) or hours.never_closes():
        return hole
    is_session = hours.is_session
    whole_days = step is not None and not step.within_a_day
    # a bar that began before the market opened holds its first trades
    lead_ns = step.longest_ns if step is not None and not whole_days else 0
    low = _first(hole, is_session, whole_days=whole_days, lead_ns=lead_ns)
    high = _last(hole, is_session, whole_days=whole_days)
    return (low, high) if low is not None and high is not None and low < high else None


def _first(hole: Span, is_session: IsSession, *, whole_days: bool, lead_ns: int) -> int | None:
    day = new_york_day(hole[0])
    for number in range(_MOST_DAYS):
        opens, closes = _window(day + dt.timedelta(number), whole_days=whole_days)
        if opens - lead_ns >= hole[1]:
            return None
        if closes > hole[0] and is_session(day + dt.timedelta(number)):
            return max(opens - lead_ns, hole[0])
    return hole[0]


def _last(hole: Span, is_session: IsSession, *, whole_days: bool) -> int | None:
    day = new_york_day(hole[1] - 1)
    for number in range(_MOST_DAYS):
        opens, closes = _window(day - dt.timedelta(number), whole_days=whole_days)
        if closes <= hole[0]:
            return None
        if opens < hole[1] and is_session(day - dt.timedelta(number)):
            return min(closes, hole[1])
    return hole[1]


def _window(day: dt.date, *, whole_days: bool) -> Span:
    if whole_days:
        return new_york_ns(day), new_york_ns(day + dt.timedelta(1))
    return new_york_ns(day, _OPENS), new_york_ns(day, _CLOSES)


class NyseDays:
    """The days on which the NYSE trades, from ``exchange_calendars``; ``path`` is where its holidays are kept, or empty.

    ``never_closes`` finds out whether this is another exchange, one that is always open; it is asked once.
    """

    def __init__(self, path: str, today: dt.date, never_closes: Callable[[], bool] = lambda: False) -> None:
        self._never_closes = never_closes
        self._always: bool | None = None
        self._path = path
        self._today = today
        self._known: tuple[frozenset[str], str, str] | None = None

    def never_closes(self) -> bool:
        """Tell whether stocks trade on Sundays too, as they do on the offline exchange."""
        if self._always is None:
            self._always = self._never_closes()
        return self._always

    def is_session(self, day: dt.date) -> bool:
        """Tell whether the exchange trades on a day; beyond what its calendar knows, on every weekday."""
        if day.weekday() >= 5:
            return False
        if self._known is None:
            self._known = self._kept() or self._made()
        holidays, first, last = self._known
        return not first <= day.isoformat() <= last or day.isoformat() not in holidays

    def _kept(self) -> tuple[frozenset[str], str, str] | None:
        try:
            with open(self._path, encoding="ascii") as file:
                kept = json.load(file)
            made = dt.date.fromisoformat(kept["made"])
            if not 0 <= (self._today - made).days <= _KEPT_DAYS:
                return None
            return frozenset(kept["holidays"]), str(kept["first"]), str(kept["last"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _made(self) -> tuple[frozenset[str], str, str]:
        import exchange_calendars

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # how that library uses pandas is not ours to mend
            calendar = exchange_calendars.get_calendar("XNYS", start="1990-01-01")
        sessions = {stamp.date() for stamp in calendar.sessions}
        first, last = min(sessions), max(sessions)
        days = (first + dt.timedelta(number) for number in range((last - first).days + 1))
        holidays = sorted(day.isoformat() for day in days if day.weekday() < 5 and day not in sessions)
        if self._path:
            kept = {"made": self._today.isoformat(), "first": str(first), "last": str(last), "holidays": holidays}
            with contextlib.suppress(OSError):  # then it is made again
                os.makedirs(os.path.dirname(self._path), exist_ok=True)
                temporary = f"{self._path}.tmp-{os.getpid()}"
                with open(temporary, "w", encoding="ascii") as file:
                    json.dump(kept, file)
                os.replace(temporary, self._path)
        return frozenset(holidays), str(first), str(last)


def final_until(series: Series, now_ns: int) -> int:
    """Return up to which moment rows of a series will not change any more.

    A bar is final a quarter of an hour after its end: the last bars of today are given and asked for again. A daily bar ends
    at midnight, in New York or for crypto in UTC; a week or month when it is over.
    """
    settled_ns = now_ns - SETTLES_NS
    step = series.step
    if step is None:
        return settled_ns
    if step.within_a_day:
        return settled_ns - step.longest_ns
    zone: dt.tzinfo = dt.UTC if series.market == "crypto" else NEW_YORK
    day = dt.datetime.fromtimestamp(settled_ns // SECOND_NS, zone).date()
    if step.unit == "Week":
        day -= dt.timedelta(day.weekday())
    if step.unit == "Month":
        day = day.replace(month=(day.month - 1) // step.every * step.every + 1, day=1)
    return int(dt.datetime.combine(day, dt.time(), zone).timestamp()) * SECOND_NS


def expected_rows(series: Series, span: Span) -> int:
    """Guess how many rows a stretch holds, to decide what is asked for together; ticks are taken as countless."""
    length_ns = span[1] - span[0]
    step = series.step
    if step is None:
        return max(length_ns // SECOND_NS, 1)
    if step.within_a_day and series.market == "stocks" and series.feed not in _ALWAYS:
        length_ns = length_ns * 5 // 7 * 16 // 24 + 16 * HOUR_NS if length_ns > DAY_NS else length_ns
    return max(length_ns // max(step.longest_ns, 1), 1)


def new_york_day(at_ns: int) -> dt.date:
    return dt.datetime.fromtimestamp(at_ns // SECOND_NS, NEW_YORK).date()


def new_york_ns(day: dt.date, at: dt.time = dt.time()) -> int:  # midnight is a constant
    return int(dt.datetime.combine(day, at, NEW_YORK).timestamp()) * SECOND_NS
