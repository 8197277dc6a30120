"""What an order's terms come to: when it may trade, when it ends, at which price, and where its trailing stop stands.

Everything here follows from the order, the calendar and the tape, so it is the same whoever asks, and whenever.
"""

from collections.abc import Callable, Mapping
from datetime import time, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, Final, NamedTuple

from alpacli.sim.desk import Market
from alpacli.sim.halts import between_halts, halted
from alpacli.sim.hours import Hours, TradingDay, new_york_date, new_york_ns
from alpacli.sim.listing import LISTINGS, Listing, underlying_of
from alpacli.sim.option_prices import expires_ns

NEVER_NS: Final = 1 << 62
AUCTIONS: Final = ("opg", "cls")
AT_ONCE: Final = ("ioc", "fok")

_GTC_DAYS: Final = timedelta(90)
_GTC_ENDS: Final = time(16, 15)
_LOOK_AHEAD: Final = timedelta(10)
_CENTS_PER_DOLLAR: Final = Decimal(100)


class Span(NamedTuple):
    """An interval in which an order may trade; ``end_ns`` no longer belongs to it."""

    begin_ns: int
    end_ns: int


def spans(market: Market, listing: Listing, from_ns: int, until_ns: int, *, extended: bool) -> list[Span]:
    """Return the parts of an interval in which an order may trade, oldest first; prices move all through each of them.

    A recorded market knows of no halts.
    """
    if until_ns <= from_ns:
        return []
    whole = _open_spans(market.hours, listing, from_ns, until_ns, extended=extended)
    if market.recorded:
        return whole
    return [Span(*part) for part in between_halts(market.hours, _stock(listing), whole)]


def trades_at(market: Market, listing: Listing, at_ns: int, *, extended: bool) -> bool:
    """Tell whether an order may trade at an instant: whether one of the ``spans`` holds it."""
    if opening(market.hours, listing, at_ns, extended=extended) != at_ns:
        return False
    return market.recorded or not halted(market.hours, _stock(listing), at_ns)


def _stock(listing: Listing) -> str:
    return listing.symbol if listing.contract is None else underlying_of(listing.contract)


def _open_spans(hours: Hours, listing: Listing, from_ns: int, until_ns: int, *, extended: bool) -> list[Span]:
    if listing.crypto or hours.name == "always":
        return [Span(from_ns, until_ns)]
    found = []
    for day in hours.days(new_york_date(from_ns), new_york_date(until_ns)):
        begin_ns, end_ns = _trading(day, extended=extended)
        if begin_ns < until_ns and end_ns > from_ns:
            found.append(Span(max(begin_ns, from_ns), min(end_ns, until_ns)))
    return found


def opening(hours: Hours, listing: Listing, at_ns: int, *, extended: bool) -> int:
    """Return the first instant from ``at_ns`` on at which an order may trade."""
    if hours.name == "always" or listing.crypto or (not extended and hours.is_open(at_ns)):
        return at_ns
    today = new_york_date(at_ns)
    for day in hours.days(today, today + _LOOK_AHEAD):
        begin_ns, end_ns = _trading(day, extended=extended)
        if at_ns < end_ns:
            return max(begin_ns, at_ns)
    return NEVER_NS


def expiry(hours: Hours, listing: Listing, time_in_force: str, at_ns: int, *, extended: bool) -> int | None:
    """Return when an order that enters now ends by itself, which for ``opg`` and ``cls`` is their auction.

    Coins trade for ever. A day ends with its regular session, for extended hours at 20:00 New York time, on an exchange
    that never closes at midnight. ``gtc`` ends after 90 days at 16:15. No order outlives the contract that it is for.
    """
    if listing.crypto:
        return None
    if listing.contract is not None:
        own_ns = expires_ns(hours, listing.contract)
        return min(own_ns, _gtc_ends(at_ns) if time_in_force == "gtc" else hours.next_close(at_ns))
    if time_in_force == "gtc":
        return _gtc_ends(at_ns)
    if time_in_force == "opg":
        return hours.next_open(at_ns)
    if extended and time_in_force == "day":
        today = new_york_date(at_ns)
        ends = (day.until_ns for day in hours.days(today, today + _LOOK_AHEAD))
        return next((end_ns for end_ns in ends if end_ns > at_ns), at_ns)
    return hours.next_close(at_ns)


def _gtc_ends(at_ns: int) -> int:
    return new_york_ns(new_york_date(at_ns) + _GTC_DAYS, _GTC_ENDS)


def auction_shut(hours: Hours, time_in_force: str, at_ns: int) -> bool:
    """Tell whether it is too late for today's auction and too early for the next: from shortly before it until 19:00."""
    if hours.name == "always":
        return False
    today = new_york_date(at_ns)
    for day in hours.days(today, today):
        minutes = (day.open_ns, 2) if time_in_force == "opg" else (day.close_ns, 10)
        return minutes[0] - minutes[1] * 60_000_000_000 <= at_ns < new_york_ns(today, time(19))
    return False


def limit_of(row: Mapping[str, Any]) -> Decimal | None:
    """Return the worst price at which an order may trade once it works; ``None`` takes any.

    A buy stop becomes a limit order 4 % above a stop below 50 USD, 2.5 % above others (wire reference 5.1).
    """
    if row["limit_price"] is not None:
        limit: Decimal = row["limit_price"]
        return limit
    if row["order_type"] == "stop" and row["side"] == "buy":
        stop = row["stop_price"]
        return on_tick(LISTINGS[row["symbol"]], stop * (Decimal("1.04") if stop < 50 else Decimal("1.025")))
    return None


def waits_for_stop(row: Mapping[str, Any]) -> bool:
    return row["order_type"] in ("stop", "stop_limit", "trailing_stop") and row["triggered_ns"] is None


def stop_rule(row: Mapping[str, Any]) -> Callable[[Decimal], Decimal]:
    """Return where the stop of a trailing order stands for a high (sell) or low (buy) water mark."""
    sign = -1 if row["side"] == "sell" else 1
    if row["trail_price"] is not None:
        distance = sign * row["trail_price"]
        return lambda mark: mark + distance
    factor = 1 + sign * row["trail_percent"] / _CENTS_PER_DOLLAR
    listing = LISTINGS[row["symbol"]]
    return lambda mark: on_tick(listing, mark * factor)


def water_mark(market: Market, row: Mapping[str, Any], at_ns: int) -> Decimal:
    """Return the best price that a trailing stop has seen until ``at_ns``, that instant included; regular hours count."""
    mark: Decimal = row["hwm"]
    if row["active_ns"] is None or row["triggered_ns"] is not None:
        return mark
    listing, selling = LISTINGS[row["symbol"]], row["side"] == "sell"
    for span in spans(market, listing, row["active_ns"], at_ns + 1, extended=False):
        seen = market.tape.extremes(row["symbol"], span.begin_ns, span.end_ns - 1)
        mark = max(mark, seen.bid_high) if selling else min(mark, seen.ask_low)
    return mark


def on_tick(listing: Listing, price: Decimal) -> Decimal:
    return price.quantize(listing.price(1), ROUND_HALF_EVEN)


def _trading(day: TradingDay, *, extended: bool) -> Span:
    return Span(day.from_ns, day.until_ns) if extended else Span(day.open_ns, day.close_ns)
