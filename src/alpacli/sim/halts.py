"""When trading in one stock stands still: rare halts for news, computed from (symbol, time) like everything of the market.

A day in sixty-four an equity is halted once, in the middle of New York's day. Nothing trades and nothing is quoted from then
on; quotes come back first, and trades five minutes later, as on Nasdaq. Orders wait for it, but those for the instant
(``ioc``, ``fok``) are canceled. Coins are never halted.
"""

import hashlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final, NamedTuple

from alpacli.sim.answers import SECOND_NS
from alpacli.sim.hours import Hours
from alpacli.sim.listing import LISTINGS

_DAY_NS: Final = 86_400 * SECOND_NS
_MINUTE_NS: Final = 60 * SECOND_NS
_ONE_DAY_IN: Final = 64
_EARLIEST_NS: Final = 885 * _MINUTE_NS  # 14:45 UTC: a quarter of an hour into the session, or more in summer
_WITHIN_S: Final = 16_200
_QUOTE_ONLY_NS: Final = 5 * _MINUTE_NS


class Halt(NamedTuple):
    """Trading stops at ``from_ns``, is quoted again from ``quoting_ns``, and goes on at ``until_ns``."""

    symbol: str
    from_ns: int
    quoting_ns: int
    until_ns: int


def halts(hours: Hours, symbol: str, from_ns: int, until_ns: int) -> Iterator[Halt]:
    """Give the halts that have a part in an interval, oldest first; symbols that are not listed have none."""
    if symbol not in LISTINGS or LISTINGS[symbol].crypto:
        return
    for day in range(from_ns // _DAY_NS, -(-until_ns // _DAY_NS)):  # none lasts past the end of its day
        halt = _halt(symbol, day)
        if halt is None or halt.from_ns >= until_ns or halt.until_ns <= from_ns:
            continue
        if _is_within_hours(hours, halt):
            yield halt


def halted(hours: Hours, symbol: str, at_ns: int) -> bool:
    """Tell whether trading stands still at an instant."""
    if symbol not in LISTINGS or LISTINGS[symbol].crypto:
        return False
    halt = _halt(symbol, at_ns // _DAY_NS)
    return halt is not None and halt.from_ns <= at_ns < halt.until_ns and _is_within_hours(hours, halt)


def between_halts(
    hours: Hours, symbol: str, spans: Iterable[tuple[int, int]], *, quotes: bool = False
) -> Iterator[tuple[int, int]]:
    """Cut the halts out of intervals; with ``quotes`` only the part of each in which nothing is quoted."""
    for begin_ns, end_ns in spans:
        at_ns = begin_ns
        for halt in halts(hours, symbol, begin_ns, end_ns):
            if at_ns < halt.from_ns:
                yield at_ns, halt.from_ns
            at_ns = max(at_ns, halt.quoting_ns if quotes else halt.until_ns)
        if at_ns < end_ns:
            yield at_ns, end_ns


def _is_within_hours(hours: Hours, halt: Halt) -> bool:
    return hours.is_open(halt.from_ns) and hours.is_open(halt.until_ns)


@lru_cache(maxsize=4096)
def _halt(symbol: str, day: int) -> Halt | None:
    digest = hashlib.blake2b(f"{symbol}\x1f{day}".encode(), digest_size=8, person=b"alpacli halts").digest()
    dice = int.from_bytes(digest, "big")
    if dice % _ONE_DAY_IN:
        return None
    from_ns = day * _DAY_NS + _EARLIEST_NS + (dice >> 8) % _WITHIN_S * SECOND_NS + (dice >> 24) % SECOND_NS
    quoting_ns = from_ns + (300 + (dice >> 32) % 900) * SECOND_NS
    return Halt(symbol, from_ns, quoting_ns, quoting_ns + _QUOTE_ONLY_NS)
