"""The desk at which one account is served: what every part of the exchange is given to answer or to act."""

import sqlite3
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Final, NamedTuple

from alpacli.sim.feed import Feed
from alpacli.sim.hours import Hours
from alpacli.sim.listing import LISTINGS, Listing
from alpacli.sim.option_prices import OptionPrices
from alpacli.sim.prices import Prices

if TYPE_CHECKING:
    from alpacli.sim.book import Book


class Strain(NamedTuple):
    """How much harsher than Alpaca's paper engine the market treats orders.

    ``latency_ns`` comes on top of every request, ``slippage_bps`` worsens what any-price orders get, ``reject_rate`` is the
    share of orders that the venue refuses after they were accepted.
    """

    latency_ns: int = 0
    slippage_bps: Decimal = Decimal(0)
    reject_rate: Decimal = Decimal(0)


NO_STRAIN: Final = Strain()


class Market:
    """What is traded, when, and at which prices. It is never changed.

    ``feed`` tells of it; it is ``recorded`` or computed. ``options`` are the premiums of options on its stocks.
    """

    __slots__ = ("feed", "hours", "listings", "options", "recorded", "seed", "strain", "tape")

    def __init__(
        self,
        tape: Prices,
        feed: Feed,
        hours: Hours,
        seed: int,
        strain: Strain = NO_STRAIN,
        listings: Mapping[str, Listing] = LISTINGS,
        *,
        recorded: bool = False,
    ) -> None:
        self.feed = feed
        self.tape = tape
        self.hours = hours
        self.seed = seed
        self.strain = strain
        self.listings = listings
        self.recorded = recorded
        self.options = tape if isinstance(tape, OptionPrices) else OptionPrices(tape, hours, seed)


class Account(NamedTuple):
    """What of an account stays as it is while it trades; ``number`` is its key in the tables."""

    number: int
    id: str
    account_number: str
    created_ns: int
    configuration: Mapping[str, object]


class Desk:
    """What serving one request needs: one account's book, the market, the moment, all within a transaction on the state.

    ``tells`` is false where history is made up: what happens at the desk then is no event of the trading stream.
    """

    __slots__ = ("book", "market", "now_ns", "tells")

    def __init__(self, book: "Book", market: Market, now_ns: int, *, tells: bool = True) -> None:
        self.book = book
        self.market = market
        self.now_ns = now_ns
        self.tells = tells

    def at(self, now_ns: int) -> "Desk":
        """Return the desk at another moment."""
        return Desk(self.book, self.market, now_ns, tells=self.tells)

    def untold(self) -> "Desk":
        """Return the desk of whose doings the trading stream hears nothing."""
        return Desk(self.book, self.market, self.now_ns, tells=False)

    @property
    def account(self) -> Account:
        return self.book.account

    @property
    def db(self) -> sqlite3.Connection:
        """The state's tables, which know of everything that was done at the desk."""
        return self.book.db
