"""Which shares were sold: first in, first out, exact to the last digit.

A lot is a signed quantity and what it cost, signed too, so a short position is a lot of negative quantity and negative cost
(what was received for it). Every trade first closes lots of the other sign, oldest first, and opens a new one with what is
left; through zero it does both. What leaves a lot in part takes its share of the cost, and the lot keeps the rest by
subtraction, so at any moment and without rounding

    cost of all lots − realized = what was paid for everything − what was received.

A split changes quantities and no cost, an old name's lots go to the new name as they are.

Source: 26 CFR 1.1012-1(c)(1), which makes first-in first-out the rule wherever lots are not identified. Alpaca's own
``avg_entry_price`` is an average over a position's life and differs from it once something was sold.
"""

import re
from collections import deque
from collections.abc import Iterator
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from typing import Final, NamedTuple

ZERO: Final = Decimal(0)
EXACT: Final = Context(prec=80, rounding=ROUND_HALF_EVEN)
"""Arithmetic that no sum of money or shares outgrows; Python's own of 28 digits would round a long history."""
_COST_STEP: Final = Decimal("1e-24")
_SHARE_STEP: Final = Decimal("1e-18")
_CONTRACT: Final = re.compile(r"[A-Z0-9]{1,6}\d{6}[CP]\d{8}")
_SHARES_PER_CONTRACT: Final = 100


class Lot(NamedTuple):
    """Shares that were opened together and are still held; negative for a short position."""

    qty: Decimal
    cost: Decimal
    opened_ns: int


class Closing(NamedTuple):
    """Shares of one lot that were closed: ``qty`` as they were held (negative when short), and what came of them."""

    symbol: str
    qty: Decimal
    cost: Decimal
    proceeds: Decimal
    opened_ns: int
    closed_ns: int

    @property
    def realized(self) -> Decimal:
        return EXACT.subtract(self.proceeds, self.cost)


def multiplier(symbol: str) -> int:
    """Return how many shares one unit of a symbol stands for: 100 for an option contract (OCC symbol), else 1."""
    return _SHARES_PER_CONTRACT if _CONTRACT.fullmatch(symbol) else 1


class Lots:
    """The open lots of an account, by symbol, oldest first."""

    def __init__(self) -> None:
        self._lots: dict[str, deque[Lot]] = {}

    def __iter__(self) -> Iterator[tuple[str, tuple[Lot, ...]]]:
        """Return each symbol that is held, in order of name, with its lots."""
        return ((symbol, tuple(lots)) for symbol, lots in sorted(self._lots.items()) if lots)

    def qty(self, symbol: str) -> Decimal:
        """Return the position: the sum of its lots, 0 when flat."""
        with localcontext(EXACT):
            return sum((lot.qty for lot in self._lots.get(symbol, ())), ZERO)

    def cost(self, symbol: str) -> Decimal:
        with localcontext(EXACT):
            return sum((lot.cost for lot in self._lots.get(symbol, ())), ZERO)

    def trade(self, symbol: str, qty: Decimal, price: Decimal, at_ns: int) -> list[Closing]:
        """Buy (positive) or sell (negative), and return what that closed, oldest lot first."""
        lots = self._lots.setdefault(symbol, deque())
        closings = []
        with localcontext(EXACT):
            unit = price * multiplier(symbol)
            while qty and lots and lots[0].qty * qty < 0:
                lot = lots.popleft()
                closed = lot.qty if abs(lot.qty) <= abs(qty) else -qty
                cost = lot.cost
                if closed != lot.qty:
                    cost = (lot.cost * closed / lot.qty).quantize(_COST_STEP)
                    lots.appendleft(Lot(lot.qty - closed, lot.cost - cost, lot.opened_ns))
                closings.append(Closing(symbol, closed, cost, closed * unit, lot.opened_ns, at_ns))
                qty += closed
            if qty:
                lots.append(Lot(qty, qty * unit, at_ns))
        return closings

    def split(self, symbol: str, change: Decimal) -> bool:
        """Let a position grow or shrink by so many shares at no cost, every lot in proportion; false when nothing is held."""
        lots = self._lots.get(symbol)
        before = self.qty(symbol)
        with localcontext(EXACT):
            after = before + change
            if not lots or before * after <= 0:
                return False
            changed = [Lot((lot.qty * after / before).quantize(_SHARE_STEP), lot.cost, lot.opened_ns) for lot in lots]
            missing = after - sum((lot.qty for lot in changed), ZERO)
            changed[-1] = changed[-1]._replace(qty=changed[-1].qty + missing)
        self._lots[symbol] = deque(lot for lot in changed if lot.qty)
        return True

    def rename(self, old: str, new: str, qty: Decimal) -> None:
        """Give a position another name, and with it another quantity."""
        lots = self._lots.pop(old, None)
        if not lots:
            return
        self._lots.setdefault(new, deque()).extend(lots)
        if len(self._lots[new]) == len(lots):
            self.split(new, EXACT.subtract(qty, self.qty(new)))
