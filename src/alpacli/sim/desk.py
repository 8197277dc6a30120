"""The desk at which one account is served: what every part of the exchange is given to answer or to act."""

import sqlite3
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Final, NamedTuple

from alpacli.sim.amendments import AmendedFeed
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


class Market(NamedTuple):
    """What is traded, when, and at which prices. ``recorded`` is the feed of a market that was recorded."""

    tape: Prices
    hours: Hours
    seed: int
    strain: Strain = NO_STRAIN
    listings: Mapping[str, Listing] = LISTINGS
    recorded: Feed | None = None

    @property
    def options(self) -> OptionPrices:
        """The premiums of options on its stocks."""
        return self.tape if isinstance(self.tape, OptionPrices) else OptionPrices(self.tape, self.hours, self.seed)

    @property
    def feed(self) -> Feed:
        return AmendedFeed(self.tape, self.hours) if self.recorded is None else self.recorded


class Account(NamedTuple):
    """What of an account stays as it is while it trades; ``number`` is its key in the tables."""

    number: int
    id: str
    account_number: str
    created_ns: int
    configuration: Mapping[str, object]


class Desk(NamedTuple):
    """What serving one request needs: one account's book, the market, the moment, all within a transaction on the state.

    ``tells`` is false where history is made up: what happens at the desk then is no event of the trading stream.
    """

    book: "Book"
    market: Market
    now_ns: int
    tells: bool = True

    @property
    def account(self) -> Account:
        return self.book.account

    @property
    def db(self) -> sqlite3.Connection:
        """The state's tables, which know of everything that was done at the desk."""
        return self.book.db
