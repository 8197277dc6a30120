"""The newer clock and calendar (``/v3``), which know several markets: here all of them keep the hours of this exchange.

Markets outside the United States trade at other times, which nothing here could answer for, so they are not known.
"""

from datetime import date, timedelta
from typing import Final

from alpacli.sim.answers import Json, Refusal, timestamp
from alpacli.sim.call import Call
from alpacli.sim.hours import Hours, TradingDay, new_york_date, new_york_offset

_NYSE: Final = ("NYSE", "XNYS", "New York Stock Exchange")
_NASDAQ: Final = ("NASDAQ", "XNAS", "NASDAQ")
_IEX: Final = ("IEX", "IEXG", "Investors Exchange")
_OTC: Final = ("OTC", "OTCM", "OTC Markets")
_MARKETS: Final = {name: market for market in (_NYSE, _NASDAQ, _IEX, _OTC) for name in market[:2]}
_WEEK: Final = timedelta(7)


def clocks(call: Call) -> Json:
    """Return the clock of each market asked for, now or at ``time``."""
    at_ns = call.instant("time")
    at_ns = call.desk.now_ns if at_ns is None else at_ns
    names = call.words("markets") or ["NYSE"]
    return {"clocks": [_clock(_market(name), call.desk.market.hours, at_ns) for name in names]}


def calendar(call: Call) -> Json:
    """Return a market's days from ``start`` (today) to ``end`` (a week on)."""
    market = _market(call.item)
    start = call.day("start") or new_york_date(call.desk.now_ns)
    end = call.day("end") or start + _WEEK
    zone = call.query.get("timezone", "")
    if zone not in ("", "UTC"):
        raise _invalid(f"invalid timezone: {zone}")
    days = call.desk.market.hours.days(start, end)
    return {"market": market, "calendar": [_day(day, utc=zone == "UTC") for day in days]}


def _market(name: str) -> dict[str, Json]:
    found = _MARKETS.get(name.upper())
    if found is None:
        raise _invalid(f"invalid market: {name}")
    acronym, mic, title = found
    return {"acronym": acronym, "mic": mic, "name": title, "timezone": "America/New_York"}


def _clock(market: dict[str, Json], hours: Hours, at_ns: int) -> Json:
    today = new_york_date(at_ns)
    days = hours.days(today, today)
    phase, until_ns = _phase(days[0], at_ns) if days else ("closed", at_ns)
    if phase == "closed":
        until_ns = _next_beginning(hours, today, at_ns)
    return {
        "market": market,
        "timestamp": _local(at_ns),
        "is_market_day": bool(days),
        "next_market_open": _local(hours.next_open(at_ns)),
        "next_market_close": _local(hours.next_close(at_ns)),
        "phase": phase,
        "phase_until": _local(until_ns),
    }


def _phase(day: TradingDay, at_ns: int) -> tuple[str, int]:
    for phase, begins, ends in (
        ("pre", day.from_ns, day.open_ns),
        ("core", day.open_ns, day.close_ns),
        ("post", day.close_ns, day.until_ns),
    ):
        if begins <= at_ns < ends:
            return phase, ends
    return "closed", at_ns


def _next_beginning(hours: Hours, today: date, at_ns: int) -> int:
    following = (day.from_ns for day in hours.days(today, today + 2 * _WEEK) if day.from_ns > at_ns)
    return next(following, hours.next_open(at_ns))


def _day(day: TradingDay, *, utc: bool) -> Json:
    def at(instant_ns: int) -> str:
        return timestamp(instant_ns) if utc else _local(instant_ns)

    return {
        "date": day.day.isoformat(),
        "settlement_date": day.settlement.isoformat(),
        "pre_start": at(day.from_ns),
        "pre_end": at(day.open_ns),
        "core_start": at(day.open_ns),
        "core_end": at(day.close_ns),
        "post_start": at(day.close_ns),
        "post_end": at(day.until_ns),
    }


def _local(at_ns: int) -> str:
    return timestamp(at_ns, new_york_offset(at_ns))


def _invalid(message: str) -> Refusal:
    return Refusal(400, None, message)
