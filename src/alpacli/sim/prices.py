"""What the exchange wants to know of prices, wherever they come from: computed (``tape``), or recorded (``recorded``).

Whatever implements ``Prices`` answers for any moment and for any interval without walking through it, so an order can be
brought up to date after hours away. All instants are integer nanoseconds since the Unix epoch.
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Final, NamedTuple, Protocol

LOOK_NS: Final = 62_500_000
"""How often ``search`` looks at a price: sixteen times a second."""


class Quote(NamedTuple):
    """The best bid and offer at one instant; sizes in shares or coins."""

    bid: Decimal
    ask: Decimal
    bid_size: Decimal
    ask_size: Decimal
    at_ns: int


class Nbbo(NamedTuple):
    """The best bid and offer at one instant, without how many: what orders are held against."""

    bid: Decimal
    ask: Decimal


class Extremes(NamedTuple):
    """The lowest and highest bid and ask over an interval, exact."""

    bid_low: Decimal
    bid_high: Decimal
    ask_low: Decimal
    ask_high: Decimal


class Trail(NamedTuple):
    """What following the best price of an interval came to.

    ``at_ns`` is when the price first fell back by the trail, ``None`` when it did not; ``mark`` the best price until then,
    or until the end of the interval.
    """

    at_ns: int | None
    mark: Decimal


class LastPrices(Protocol):
    def last(self, symbol: str, at_ns: int) -> Decimal:
        """Return the price of the last trade."""


class Prices(LastPrices, Protocol):
    """The price paths of a market's instruments."""

    def begins_ns(self, symbol: str) -> int:
        """Return since when the symbol has a price."""

    def quote(self, symbol: str, at_ns: int) -> Quote: ...

    def nbbo(self, symbol: str, at_ns: int) -> Nbbo: ...

    def previous_close(self, symbol: str, at_ns: int) -> Decimal:
        """Return the last price at the close of the trading day before the one of ``at_ns``."""

    def extremes(self, symbol: str, start_ns: int, end_ns: int) -> Extremes:
        """Return the exact range of bid and ask from ``start_ns`` to ``end_ns``, both included."""

    def first(self, symbol: str, start_ns: int, end_ns: int, price: Decimal, side: str) -> int | None:
        """Return the first instant, before ``end_ns``, at which a limit order could trade: at ``price`` or better.

        Prices move all through the interval: it lies within one trading day, or in a market that never closes.
        """

    def touched(self, symbol: str, start_ns: int, end_ns: int, price: Decimal, side: str) -> int | None:
        """Return the first instant, before ``end_ns``, at which a stop is reached: bought at a rise, sold at a fall."""

    def search(
        self, symbol: str, start_ns: int, end_ns: int, could: Callable[[int, int, int, int], bool]
    ) -> int | None:
        """Return the first instant, before ``end_ns``, whose bid ``could`` says yes to; the interval is as in ``first``.

        ``could(lowest, highest, from_ns, until_ns)`` is asked about stretches: whether a bid (in whole cents, rounded down)
        from lowest to highest could be meant somewhere in it, ``until_ns`` included. It may say yes in vain, and never no in
        vain; where the stretch is one instant, its answer is final. Prices are looked at every ``LOOK_NS``, as the clock has
        it.
        """

    def trail(
        self, symbol: str, start_ns: int, end_ns: int, mark: Decimal, stop: Callable[[Decimal], Decimal], side: str
    ) -> Trail:
        """Follow the highest bid (``sell``) or lowest ask (``buy``) from ``mark`` on, until ``stop`` of it is reached.

        ``stop`` must not fall where the mark rises.
        """


def search_between(
    extremes: Callable[[int, int], tuple[int, int]],
    start_ns: int,
    end_ns: int,
    could: Callable[[int, int, int, int], bool],
) -> int | None:
    """Search by halving time, for ``Prices`` that know the range of their bid over any stretch: ``extremes``, in cents."""
    if end_ns <= start_ns:
        return None
    stack = [(start_ns // LOOK_NS, (end_ns - 1) // LOOK_NS)]
    while stack:
        first, last = stack.pop()
        begins_ns, until_ns = max(first * LOOK_NS, start_ns), min((last + 1) * LOOK_NS, end_ns) - 1
        if first == last:
            if could(*extremes(first * LOOK_NS, first * LOOK_NS), begins_ns, begins_ns):
                return begins_ns
        elif could(*extremes(first * LOOK_NS, last * LOOK_NS), begins_ns, until_ns):
            middle = (first + last) // 2
            stack += [(middle + 1, last), (first, middle)]
    return None
