"""What short options need behind them: shares, money, or longer-lived options of the same stock.

The rule is Alpaca's for spreads: what is needed is the most that the position can lose at its expirations, whatever the
stock does (its "universal spread rule"). A short call is covered by a long one that lives as long, else by a hundred shares,
else not at all; a short put by a long one, else by the money that its assignment would cost. Pairs within one expiration are
taken together, since a stock cannot end both above the calls and below the puts.
"""

from collections import defaultdict
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Final, NamedTuple

from alpacli.sim.contracts import MULTIPLIER, Contract

_MILLS: Final = -3


class Cover(NamedTuple):
    """What stands behind short options: money in dollars, hundreds of shares, and how many calls nothing stands behind.

    ``spreads`` tells that long options stand behind some of them.
    """

    money: Decimal
    lots: int
    uncovered: int
    spreads: bool


class _Side(NamedTuple):
    """Short contracts of one type and expiration with the long ones that cover them, by strike, one entry a contract."""

    shorts: list[int]
    longs: list[int]


def cover(quantities: Mapping[Contract, int], lots: int) -> Cover:
    """Return what the short ones among contracts on one stock need; ``lots`` are hundreds of shares free to cover them."""
    spare: dict[str, list[int]] = {"call": [], "put": []}
    money, pledged, uncovered, spreads = 0, 0, 0, False
    days: dict[date, list[Contract]] = defaultdict(list)
    for contract in quantities:
        days[contract.expires].append(contract)
    for day in sorted(days, reverse=True):  # what lives longer may stand behind what ends sooner
        sides: dict[str, _Side] = {}
        for kind, first in (("call", 1), ("put", -1)):
            ours = [contract for contract in days[day] if contract.type == kind]
            spare[kind] += _spread_out(ours, quantities, sign=1)
            shorts = sorted(_spread_out(ours, quantities, sign=-1), key=lambda strike: strike * first)
            alone = max(len(shorts) - len(spare[kind]), 0)
            if kind == "call":  # shares cover the lowest strikes
                backed = min(alone, lots - pledged)
                pledged, uncovered = pledged + backed, uncovered + alone - backed
                shorts = shorts[alone:]
            # the lowest long call serves the lowest short one best, the highest put the highest
            spare[kind].sort(key=lambda strike: strike * first)
            longs, spare[kind] = spare[kind][: len(shorts)], spare[kind][len(shorts) :]
            spreads = spreads or bool(longs)
            sides[kind] = _Side(shorts, longs)
        money += _most_lost(sides["call"], sides["put"])
    return Cover(Decimal(money * MULTIPLIER).scaleb(_MILLS), pledged, uncovered, spreads)


def _spread_out(contracts: list[Contract], quantities: Mapping[Contract, int], *, sign: int) -> list[int]:
    return [contract.strike_mills for contract in contracts for _ in range(max(sign * quantities[contract], 0))]


def _most_lost(calls: _Side, puts: _Side) -> int:
    """Return the most that pairs can lose a share, in thousandths of a dollar: at a strike, or at a price of nothing."""
    strikes = [*calls.shorts, *calls.longs, *puts.shorts, *puts.longs]
    lost = 0
    for price in {0, *strikes}:
        above = sum(max(price - strike, 0) for strike in calls.shorts)
        above -= sum(max(price - strike, 0) for strike in calls.longs)
        below = sum(max(strike - price, 0) for strike in puts.shorts)
        below -= sum(max(strike - price, 0) for strike in puts.longs)
        lost = max(lost, above + below)
    return lost
