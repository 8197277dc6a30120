"""The desk at which one account is served: what every part of the exchange is given to answer or to act."""

import sqlite3
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final, NamedTuple

from alpacli.sim.amendments import AmendedFeed
from alpacli.sim.feed import Feed
from alpacli.sim.hours import Hours
from alpacli.sim.listing import LISTINGS, Listing
from alpacli.sim.option_prices import OptionPrices
from alpacli.sim.prices import Prices


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
    """An account's own row; ``number`` is its key in the other tables."""

    number: int
    id: str
    account_number: str
    created_ns: int
    cash: Decimal
    configuration: Mapping[str, object]


class Desk(NamedTuple):
    """What serving one request needs: one account, the market, the moment, and a transaction on the state.

    ``rows`` are the orders that were looked at, as they are now: ``orders`` keeps them so. ``tells`` is false where history
    is made up: what happens at the desk then is no event of the trading stream.
    """

    db: sqlite3.Connection
    account: Account
    market: Market
    now_ns: int
    rows: dict[str, Any]  # Any: it reads like a sqlite3.Row, and can be made of one and what was changed
    tells: bool = True
