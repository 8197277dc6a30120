"""What the exchange wants to know of prices, wherever they come from: computed (``tape``), or recorded (``recorded``).

Whatever implements ``Prices`` answers for any moment and for any interval without walking through it, so an order can be
brought up to date after hours away. All instants are integer nanoseconds since the Unix epoch.
"""

from collections.abc import Callable
from decimal import Decimal
from typing import NamedTuple, Protocol


class Quote(NamedTuple):
    """The best bid and offer at one instant; sizes in shares or coins."""

    bid: Decimal
    ask: Decimal
    bid_size: Decimal
    ask_size: Decimal
    at_ns: int


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


class Prices(Protocol):
    """The price paths of a market's instruments."""

    def begins_ns(self, symbol: str) -> int:
        """Return since when the symbol has a price."""

    def quote(self, symbol: str, at_ns: int) -> Quote: ...

    def last(self, symbol: str, at_ns: int) -> Decimal:
        """Return the price of the last trade."""

    def previous_close(self, symbol: str, at_ns: int) -> Decimal:
        """Return the last price at the close of the trading day before the one of ``at_ns``."""

    def volume(self, symbol: str, at_ns: int) -> int:
        """Return the units traded since midnight in New York; it never falls within a day."""

    def extremes(self, symbol: str, start_ns: int, end_ns: int) -> Extremes:
        """Return the exact range of bid and ask from ``start_ns`` to ``end_ns``, both included."""

    def first(self, symbol: str, start_ns: int, end_ns: int, price: Decimal, side: str) -> int | None:
        """Return the first instant, before ``end_ns``, at which a limit order could trade: at ``price`` or better.

        Prices move all through the interval: it lies within one trading day, or in a market that never closes.
        """

    def touched(self, symbol: str, start_ns: int, end_ns: int, price: Decimal, side: str) -> int | None:
        """Return the first instant, before ``end_ns``, at which a stop is reached: bought at a rise, sold at a fall."""

    def trail(
        self, symbol: str, start_ns: int, end_ns: int, mark: Decimal, stop: Callable[[Decimal], Decimal], side: str
    ) -> Trail:
        """Follow the highest bid (``sell``) or lowest ask (``buy``) from ``mark`` on, until ``stop`` of it is reached.

        ``stop`` must not fall where the mark rises.
        """
