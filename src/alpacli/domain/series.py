"""What market history can be asked for: bars, trades or quotes of which market, in which steps, from which feed, and when.

Times are integer nanoseconds since 1970 UTC and intervals half open, so that neighbouring intervals touch without sharing a
row. Nothing here loads pyarrow or pydantic: the commands check their arguments before anything heavy.
"""

import calendar
import datetime as dt
import math
import re
from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from alpacli.arguments import a_text
from alpacli.domain.symbols import spelled
from alpacli.errors import UsageError

Kind = Literal["bars", "trades", "quotes"]
Market = Literal["stocks", "crypto", "options"]
Span = tuple[int, int]
"""From the first nanosecond that belongs to it up to, not including, the second."""

SECOND_NS: Final = 1_000_000_000
MINUTE_NS: Final = 60 * SECOND_NS
HOUR_NS: Final = 60 * MINUTE_NS
DAY_NS: Final = 24 * HOUR_NS

STOCK_FEEDS: Final = ("sip", "iex", "otc", "boats", "delayed_sip", "overnight")
ADJUSTMENTS: Final = ("raw", "split", "dividend", "spin-off", "all")

_OPTION: Final = re.compile(r"[A-Z]{1,6}[0-9]{6}[CP][0-9]{8}")
_SYMBOL: Final = re.compile(r"[A-Z0-9]+(?:[./-][A-Z0-9]+)*")
_TIMEFRAME: Final = re.compile(r"([1-9][0-9]?)?(min|t|hour|h|day|d|week|w|month|m)", re.IGNORECASE)
_UNITS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("min", "t"), "Min"),
    **dict.fromkeys(("hour", "h"), "Hour"),
    **dict.fromkeys(("day", "d"), "Day"),
    **dict.fromkeys(("week", "w"), "Week"),
    **dict.fromkeys(("month",), "Month"),
}
_COUNTS: Final[Mapping[str, tuple[int, ...]]] = {
    "Min": tuple(range(1, 60)),
    "Hour": tuple(range(1, 24)),
    "Day": (1,),
    "Week": (1,),
    "Month": (1, 2, 3, 4, 6, 12),
}
_LENGTH_NS: Final[Mapping[str, int]] = {
    "Min": MINUTE_NS,
    "Hour": HOUR_NS,
    "Day": DAY_NS,
    "Week": 7 * DAY_NS,
    "Month": 31 * DAY_NS,
}


class Timeframe(NamedTuple):
    """The length of a bar: ``every`` of a ``unit`` (Min, Hour, Day, Week, Month)."""

    every: int
    unit: str

    @classmethod
    def parse(cls, text: str) -> "Timeframe":
        """Read ``1Min``, ``15T``, ``1H``, ``1Day``, ``3M`` and the like; a capital M alone is a month, as at Alpaca.

        Raises:
            UsageError: not a bar length that Alpaca makes.
        """
        matched = _TIMEFRAME.fullmatch(a_text("timeframe", text, "give a text, like '1Min' or '1Day'").strip())
        unit = None if matched is None else _UNITS.get(matched[2].lower(), "Month" if matched[2] == "M" else "Min")
        every = 0 if matched is None else int(matched[1] or 1)
        if unit is None or every not in _COUNTS[unit]:
            raise UsageError(
                f"{text!r} is no timeframe",
                "give 1Min to 59Min, 1Hour to 23Hour, 1Day, 1Week, or 1, 2, 3, 4, 6, 12Month",
            )
        return cls(every, unit)

    def __str__(self) -> str:
        return f"{self.every}{self.unit}"

    @property
    def longest_ns(self) -> int:
        """Return how long such a bar can take from its first to its last moment."""
        return self.every * _LENGTH_NS[self.unit]

    @property
    def within_a_day(self) -> bool:
        return self.unit in ("Min", "Hour")


class Series(NamedTuple):
    """One kind of history that belongs together; rows of different series are never mixed.

    ``timeframe`` is empty for trades and quotes, ``adjustment`` is ``raw`` for everything but bars of stocks; crypto and
    options have one feed each.
    """

    kind: Kind
    market: Market
    feed: str
    timeframe: str = ""
    adjustment: str = "raw"

    @property
    def step(self) -> Timeframe | None:
        return Timeframe.parse(self.timeframe) if self.timeframe else None


def market_of(symbol: str) -> Market:
    """Tell where a symbol trades: a pair with a slash is crypto, an OCC code an option, anything else a stock."""
    if "/" in symbol:
        return "crypto"
    return "options" if _OPTION.fullmatch(symbol) else "stocks"


def check_symbol(text: str) -> str:
    """Return the symbol in capitals.

    Raises:
        UsageError: it cannot be one.
    """
    symbol = spelled(text)
    if not _SYMBOL.fullmatch(symbol):
        raise UsageError(f"{text!r} is not a symbol", "write it like AAPL, BRK.B, BTC/USD or AAPL260116C00150000")
    return symbol


def check_adjustment(text: str) -> str:
    """Return the adjustment in its one spelling: what is adjusted for, in order, joined by commas.

    Raises:
        UsageError: Alpaca has no such adjustment.
    """
    given = a_text("adjustment", text, f"choose among {', '.join(ADJUSTMENTS)}")
    parts = sorted({part.strip().lower() for part in given.split(",") if part.strip()})
    if not parts or any(part not in ADJUSTMENTS for part in parts) or (len(parts) > 1 and {"raw", "all"} & {*parts}):
        raise UsageError(
            f"{text!r} is no adjustment", f"choose among {', '.join(ADJUSTMENTS)}, or join some: split,dividend"
        )
    return ",".join(parts)


# -------------------------------------------------------------------------------------------------- intervals


def union(spans: "list[Span]") -> "list[Span]":
    """Return the same moments as few intervals in order; empty ones vanish."""
    joined: list[Span] = []
    for start, end in sorted(span for span in spans if span[0] < span[1]):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def cut(spans: "list[Span]", within: Span) -> "list[Span]":
    """Return the parts that lie within an interval."""
    low, high = within
    return [(max(a, low), min(b, high)) for a, b in union(spans) if max(a, low) < min(b, high)]


def missing(within: Span, spans: "list[Span]") -> "list[Span]":
    """Return the parts of an interval that the others leave open."""
    holes: list[Span] = []
    at = within[0]
    for start, end in cut(spans, within):
        if start > at:
            holes.append((at, start))
        at = end
    return [*holes, (at, within[1])] if at < within[1] else holes


# ------------------------------------------------------------------------------------------- when people mean


_AGO: Final = re.compile(r"-\s*([0-9]{1,5})\s*(s|sec|min|m|h|hours?|d|days?|w|weeks?|mo|months?|y|years?)")
_AGO_NS: Final[Mapping[str, int]] = {
    **dict.fromkeys(("s", "sec"), SECOND_NS),
    **dict.fromkeys(("m", "min"), MINUTE_NS),
    **dict.fromkeys(("h", "hour", "hours"), HOUR_NS),
}
_FRACTION: Final = re.compile(r"(.*:[0-9]{2})\.([0-9]{1,9})(.*)")


def moment(
    name: str, text: str, now_ns: int, zone: dt.tzinfo, *, ending: bool = False, days: dt.tzinfo | None = None
) -> int:
    """Return the instant that somebody meant, in nanoseconds.

    ``2026-01-05`` is that day's first nanosecond (with ``ending`` its last) in ``zone``, ``2026-01-05 09:30`` a time there;
    a time with an offset or Z is what it says, ``now`` is ``now_ns``, ``-90min`` and ``-4h`` are so long before it; ``-5d``,
    ``-2w``, ``-3mo`` and ``-1y`` count back from today's beginning: the same words mean the same instant all day. ``days`` is
    the zone in which days begin, where that is another.

    Raises:
        UsageError: none of those, or a time that the zone skips when clocks go forward.
    """
    try:
        at_ns = _meant(name, text.strip(), now_ns, zone, days or zone, ending=ending)
    except (ValueError, OverflowError):
        hint = 'write 2026-01-05, "2026-01-05 09:30" (New York), 2026-01-05T14:30:00Z, -5d, -90min or now'
        raise UsageError(f"--{name} is {text.strip()!r}, which is no time", hint) from None
    if ending and at_ns < 0:
        raise UsageError(f"--{name} is {text.strip()!r}, and no market history is as old", "give a time since 1970")
    return max(at_ns, 0)


def _meant(name: str, text: str, now_ns: int, zone: dt.tzinfo, days: dt.tzinfo, *, ending: bool) -> int:
    lower = text.lower()
    if lower == "now":
        return now_ns
    today = dt.datetime.fromtimestamp(now_ns // SECOND_NS, days).date()
    if lower in ("today", "yesterday"):
        return _edge(today - dt.timedelta(lower == "yesterday"), days, ending=ending)
    if (ago := _AGO.fullmatch(lower)) is not None:
        count, unit = int(ago[1]), ago[2]
        if unit in _AGO_NS:
            return now_ns - count * _AGO_NS[unit]
        return _edge(_days_before(today, count, unit), days, ending=False)
    if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        return _edge(dt.date.fromisoformat(text), days, ending=ending)
    return _clock_time(name, text, zone)


def _edge(day: dt.date, zone: dt.tzinfo, *, ending: bool) -> int:
    there = dt.datetime.combine(day + dt.timedelta(1) if ending else day, dt.time(), zone)
    return int(there.timestamp()) * SECOND_NS - ending


def _days_before(today: dt.date, count: int, unit: str) -> dt.date:
    if unit[0] in "dw":
        return today - dt.timedelta(count * (7 if unit[0] == "w" else 1))
    months = today.year * 12 + today.month - 1 - count * (12 if unit[0] == "y" else 1)
    year, month = divmod(months, 12)
    return dt.date(year, month + 1, min(today.day, calendar.monthrange(year, month + 1)[1]))


def _clock_time(name: str, text: str, zone: dt.tzinfo) -> int:
    fraction = _FRACTION.fullmatch(text)
    below = int(fraction[2].ljust(9, "0")) if fraction else 0
    there = dt.datetime.fromisoformat(fraction[1] + fraction[3] if fraction else text)
    if there.tzinfo is None:
        local = there.replace(tzinfo=zone)
        if local.astimezone(dt.UTC).astimezone(zone).replace(tzinfo=None) != there:
            raise UsageError(
                f"--{name} is {text!r}, and clocks were put forward past that time",
                "give another time, or one with its offset: 2026-03-08T02:30:00-05:00",
            )
        there = local
    return math.floor(there.timestamp()) * SECOND_NS + below
