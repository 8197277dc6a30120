"""What is asked of account and market before an order is sent.

It only helps to judge: what cannot be learned is left to the broker, and said once. The user's own rules refuse what
they cannot check.
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final, Protocol

from alpacli.broker.flow import Do, Flow, Pipeline, T
from alpacli.broker.risk import RiskRules
from alpacli.broker.sending import refused
from alpacli.domain.market import MarketClock
from alpacli.domain.order_rules import Facts
from alpacli.domain.symbols import is_asset_id
from alpacli.domain.tickets import OrderTicket
from alpacli.domain.worth import Quote, net_price
from alpacli.errors import (
    AlpacaAPIError,
    AlpacliError,
    AuthenticationError,
    BudgetExhausted,
    ConfigError,
    NotFound,
    OrderRefused,
    UsageError,
)
from alpacli.ports import Clock
from alpacli.wire import quotes, rest
from alpacli.wire.rest import Call

_CLOCK_AGE_S: Final = 60.0
_SAID_AGAIN_S: Final = 60.0


class Plan(Protocol):
    """What is known of the account's market data plan; both are quick, and block."""

    def recent_sip(self, now_ns: int) -> bool | None: ...

    def learn(self, now_ns: int, *, recent_sip: bool) -> None: ...


class FactFinder:
    """Reads through the shared cache; ``warn`` hears what could not be learned, at most once a minute."""

    def __init__(self, pipeline: Pipeline, clock: Clock, plan: Plan, warn: Callable[[str], None]) -> None:
        self._pipeline = pipeline
        self._clock = clock
        self._plan = plan
        self._warn = warn
        self._said: dict[str, float] = {}

    def for_rules(self, rules: RiskRules, ticket: OrderTicket, facts: Facts, *, fresh: bool) -> Flow[Facts]:
        """Add what the rules ask for besides positions and open orders."""
        if rules.needs_account and facts.account is None:
            facts = facts._replace(account=(yield from self.maybe(rest.account(), fresh=fresh)))
        if rules.needs_quote(ticket) and facts.quote is None:
            facts = yield from self.priced(ticket, facts)
        if rules.market_hours_only and facts.clock is None:
            facts = facts._replace(clock=(yield from self.market_clock()))
        return facts

    def named(self, ticket: OrderTicket) -> Flow[OrderTicket]:
        """Return the order with the symbol where the id of its asset stands: the user's own rules are about symbols."""
        for leg in ticket.legs:
            if is_asset_id(leg.symbol):
                raise _unnamed(leg.symbol)
        if ticket.symbol is None or not is_asset_id(ticket.symbol):
            return ticket
        asset = yield from self._asset(ticket.symbol)
        if asset is None:
            raise _unnamed(ticket.symbol)
        return ticket._replace(symbol=asset.symbol)

    def about(self, ticket: OrderTicket) -> Flow[Facts]:
        """Return what Alpaca's rules are held against: account, positions, the market's hours, the asset and its prices."""
        facts = Facts(
            account=(yield from self.maybe(rest.account())),
            positions=(yield from self.maybe(rest.positions())),
            clock=(yield from self.market_clock()),
        )
        if ticket.symbol is not None and ticket.asset_class != "us_option":
            asset = yield from self._asset(ticket.symbol)
            facts = facts._replace(asset=asset)
            if asset is not None and is_asset_id(ticket.symbol):
                ticket = ticket._replace(symbol=asset.symbol)
        if ticket.legs and ticket.limit_price is not None:
            return facts  # its limit says whether it costs or brings money
        return (yield from self.priced(ticket, facts))

    def _asset(self, symbol: str) -> Flow[Any]:
        try:
            return (yield from self._pipeline.read(rest.asset(symbol), use_cache=True, max_age=3600.0)).value
        except NotFound:
            raise refused("asset", f"there is no asset {symbol}", "`alpacli assets` lists what can be traded") from None
        except AlpacliError as error:
            self._pass(error)
            return None

    def market_clock(self) -> Flow[MarketClock | None]:
        """Return the market's clock: one that was asked for lately, unless the market opens or closes about now."""
        try:
            lately = yield from self._pipeline.read(rest.clock(), use_cache=True, max_age=_CLOCK_AGE_S)
        except AlpacliError as error:
            self._pass(error)
            return None
        clock = lately.value
        turn = clock.next_close if clock.is_open else clock.next_open
        if lately.age_s is None or (turn - clock.timestamp).total_seconds() > _CLOCK_AGE_S:
            return clock
        return (yield from self.maybe(rest.clock(), fresh=True))

    def priced(self, ticket: OrderTicket, facts: Facts) -> Flow[Facts]:
        """Add the market's prices of what is traded; of several legs those of each, and what all of them cost together."""
        if ticket.symbol is not None:
            symbol = ticket.symbol
            if ticket.asset_class == "crypto" and "/" not in symbol:
                base = next(coin for coin in ("USDT", "USDC", "USD") if symbol.endswith(coin))
                symbol = f"{symbol.removesuffix(base)}/{base}"
            quote = yield from self._quote(symbol, shares=ticket.asset_class == "us_equity")
            return facts if quote is None else facts._replace(quote=quote)
        if not ticket.legs:
            return facts
        prices = yield from self.maybe(quotes.bids_and_asks([leg.symbol for leg in ticket.legs]))
        if prices is None:
            return facts
        found = {symbol: Quote(*sides) for symbol, sides in prices.items()}
        net = net_price(ticket.legs, found)
        return facts._replace(leg_quotes=found, quote=None if net is None else Quote(net, net))

    def _quote(self, symbol: str, *, shares: bool) -> Flow[Quote | None]:
        if shares:
            prices = yield from self._of_best_feed(symbol)
        else:
            prices = yield from self.maybe(quotes.bids_and_asks([symbol]))
        if prices is None:
            return None
        quote = Quote(*prices[symbol])
        if shares and quote.is_too_wide:
            self._tell(f"{symbol} is bid at {quote.bid:f} and offered at {quote.ask:f}, too far apart to be its price")
            return None
        return quote

    def _of_best_feed(self, symbol: str) -> Flow[dict[str, tuple[Decimal | None, Decimal | None]] | None]:
        """Ask the SIP, unless it is known that the plan has none; a plan without it is asked once a day, and then IEX."""
        now_ns = int(self._clock.time()) * 1_000_000_000
        known: bool | None = yield Do(lambda: self._plan.recent_sip(now_ns))
        if known is False:
            return (yield from self.maybe(quotes.bids_and_asks([symbol])))
        try:
            found = yield from self._pipeline.fetch(quotes.bids_and_asks([symbol], feed="sip"))
        except AlpacliError as error:
            if not isinstance(error, AlpacaAPIError) or error.status not in (402, 403):
                self._pass(error)
                return None
            prices = yield from self.maybe(quotes.bids_and_asks([symbol]))
            if prices is not None:  # so it was the feed, and not the keys, that was refused
                yield Do(lambda: self._plan.learn(now_ns, recent_sip=False))
            return prices
        if known is None:
            yield Do(lambda: self._plan.learn(now_ns, recent_sip=True))
        return found

    def maybe(
        self, call: Call[T], max_age: float | None = None, *, fresh: bool = False, must_exist: bool = False
    ) -> Flow[T | None]:
        """Read what helps to judge an order; what cannot be learned is left to the broker to judge."""
        try:
            return (yield from self._pipeline.read(call, use_cache=not fresh, max_age=max_age)).value
        except AlpacliError as error:
            if must_exist and isinstance(error, NotFound):
                raise
            self._pass(error)
            return None

    def _pass(self, error: AlpacliError) -> None:
        if isinstance(error, AuthenticationError | ConfigError | UsageError | BudgetExhausted):
            raise error
        self._tell(error.message)

    def _tell(self, message: str) -> None:
        now = self._clock.monotonic()
        self._said = {message: at for message, at in self._said.items() if now - at < _SAID_AGAIN_S}
        if message not in self._said:  # an order is judged by many reads, which fail alike
            self._said[message] = now
            self._warn(f"not checked: {message}")


def _unnamed(asset_id: str) -> OrderRefused:
    message = f"your own rules are about symbols, and which one {asset_id} is could not be learned"
    return refused("symbol", message, "give the symbol")
