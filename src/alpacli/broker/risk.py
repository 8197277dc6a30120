"""The user's own rules, ``risk.toml`` in the configuration directory: what no order of this account may do.

max_order_notional = 5000            # for every profile
[profiles.swing]                     # and for one of them; its values win
allowed_symbols = ["AAPL", "MSFT"]
blocked_symbols = ["GME"]
max_order_qty = 100
max_position_notional = 20000        # USD
max_position_percent = 25            # of equity
max_daily_loss = 1000                # USD below the last close's equity
max_orders_per_minute = 10
market_hours_only = true

Checked in the library before anything is sent, so every face obeys. What only makes a position smaller always passes.
"""

from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from alpacli.domain.account import Position
from alpacli.domain.order_rules import Facts, Violation, held, reduces
from alpacli.domain.replacing import as_ticket
from alpacli.domain.symbols import bare
from alpacli.domain.tickets import OrderTicket, underlying
from alpacli.domain.values import plain
from alpacli.domain.worth import Quote, is_bounded, largest_qty, largest_value, parts
from alpacli.errors import ConfigError

FILE_NAME: Final = "risk.toml"
_UNPRICED: Final = "buy with a limit, wait until bid and ask are close, or change the rule in"


class RiskRules(BaseModel):
    """The rules of one profile; ``None`` is no limit. Amounts in USD."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    allowed_symbols: tuple[str, ...] | None = None
    blocked_symbols: tuple[str, ...] = ()
    max_order_qty: Decimal | None = Field(None, gt=0)
    max_order_notional: Decimal | None = Field(None, gt=0)
    max_position_notional: Decimal | None = Field(None, gt=0)
    max_position_percent: Decimal | None = Field(None, gt=0)
    max_daily_loss: Decimal | None = Field(None, gt=0)
    max_orders_per_minute: int | None = Field(None, ge=1)
    market_hours_only: bool = False

    @property
    def _values_orders(self) -> bool:
        return any((self.max_order_notional, self.max_position_notional, self.max_position_percent))

    def needs_quote(self, ticket: OrderTicket) -> bool:
        """Tell whether the market's price decides: of this order, or of open ones that count with it."""
        counts_shares = self.max_order_qty is not None and ticket.notional is not None
        return counts_shares or self.needs_open_orders or (self._values_orders and not is_bounded(ticket))

    @property
    def needs_account(self) -> bool:
        return any((self.max_daily_loss, self.max_position_percent))

    @property
    def needs_open_orders(self) -> bool:
        return any((self.max_position_notional, self.max_position_percent))

    @property
    def counts_others(self) -> bool:
        """Whether what other processes do at the same moment decides: then orders go one after the other."""
        return any((self.max_position_notional, self.max_position_percent, self.max_orders_per_minute))

    @property
    def any(self) -> bool:
        return self != RiskRules()


def read_rules(config_dir: str, profile: str | None) -> RiskRules:
    """Return the rules of a profile: those for every profile, changed by its own.

    Raises:
        ConfigError: the file cannot be read or understood. Then no order is sent: a rule with a typo must not be no rule.
    """
    path = Path(config_dir) / FILE_NAME
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return RiskRules()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot read {path}: {error}", "make it readable, or move it away; no order was sent"
        ) from None
    import tomllib

    try:
        tree: dict[str, Any] = tomllib.loads(text, parse_float=Decimal)
    except (ValueError, ArithmeticError, RecursionError) as error:  # a number or a nesting without bounds too
        raise ConfigError(f"cannot read {path}: {error}", "correct it, or move it away; no order was sent") from None
    profiles = tree.pop("profiles", {})
    try:
        rules = RiskRules.model_validate(tree)
        merged = rules
        for name, own in profiles.items() if isinstance(profiles, dict) else [("", profiles)]:
            checked = RiskRules.model_validate(own)  # a mistake in another profile is found now, not on its bad day
            if name == profile:
                merged = rules.model_copy(update={key: getattr(checked, key) for key in checked.model_fields_set})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path}: {where}: {first['msg']}", "correct this rule; no order was sent") from None
    return merged


def risk_violations(rules: RiskRules, ticket: OrderTicket, facts: Facts, recent_orders: int) -> list[Violation]:
    """Return every rule of the user's that the order breaks; ``recent_orders`` were sent within the last minute.

    A rule that needs a fact which could not be learned refuses too.
    """
    if facts.positions is not None and reduces(ticket, facts.positions):
        return []
    return [*_symbols(rules, ticket), *_sizes(rules, ticket, facts), *_moments(rules, ticket, facts, recent_orders)]


def _symbols(rules: RiskRules, ticket: OrderTicket) -> Iterator[Violation]:
    blocked, allowed = set(map(bare, rules.blocked_symbols)), set(map(bare, rules.allowed_symbols or ()))
    for symbol in [ticket.symbol] if ticket.symbol else [leg.symbol for leg in ticket.legs]:
        if {bare(symbol), bare(underlying(symbol))} & blocked:
            yield _broken("blocked_symbols", f"{symbol} is blocked")
        if rules.allowed_symbols is not None and bare(symbol) not in allowed:
            yield _broken("allowed_symbols", f"{symbol} is not among the allowed symbols")


def _sizes(rules: RiskRules, ticket: OrderTicket, facts: Facts) -> Iterator[Violation]:
    if rules.max_order_qty is not None:
        qty = largest_qty(ticket, facts.quote)
        if qty is None and ticket.notional is not None:
            yield _broken("max_order_qty", "no price is known, so the order's quantity cannot be checked", _UNPRICED)
        elif qty is not None and qty > rules.max_order_qty:
            size = plain(qty) if ticket.notional is None else f"about {qty:,.2f}"
            yield _broken("max_order_qty", f"{size} is more than the largest order, {rules.max_order_qty}")
    if rules.max_order_notional is not None:
        value = largest_value(ticket, facts.quote)
        if value is None:
            yield _broken("max_order_notional", "no price is known, so the order's value cannot be checked", _UNPRICED)
        elif value > rules.max_order_notional:
            yield _broken("max_order_notional", f"about {value:,.2f} USD is more than {rules.max_order_notional:,} USD")
    if rules.max_position_notional is not None or rules.max_position_percent is not None:
        yield from _position_sizes(rules, ticket, facts)


def _position_sizes(rules: RiskRules, ticket: OrderTicket, facts: Facts) -> Iterator[Violation]:
    """Hold what each position would be worth with the order, and all that is still to be filled, against the rules."""
    rule = "max_position_percent" if rules.max_position_notional is None else "max_position_notional"
    if facts.positions is None:
        yield _broken(rule, "the positions are not known, so the rule cannot be checked")
    elif facts.open_orders is None:
        yield _broken(rule, "the open orders are not known, so the rule cannot be checked")
    else:
        waiting = [part for order in facts.open_orders for part in parts(as_ticket(order, {}))]
        for part in parts(ticket):
            if not reduces(part, facts.positions):
                quote = (facts.leg_quotes or {}).get(part.symbol or "") if ticket.legs else facts.quote
                after = _position_after(part, waiting, quote, facts.positions)
                if after is None:
                    yield _broken(rule, f"no price of {part.symbol} is known, so the rule cannot be checked", _UNPRICED)
                else:
                    yield from _too_large(rules, abs(after), facts)


def _position_after(
    order: OrderTicket, waiting: Iterable[OrderTicket], quote: Quote | None, positions: Sequence[Position]
) -> Decimal | None:
    """Return what the position would be worth when the order and all that waits on its side are filled; negative is short."""
    position = held(positions, order.symbol or "")
    if quote is None and position is not None:
        quote = Quote(position.current_price, position.current_price)
    symbol = bare(order.symbol or "")
    beside = [one for one in waiting if one.side == order.side and bare(one.symbol or "") == symbol]
    after = (position.market_value or position.cost_basis) if position else Decimal(0)
    for one in (order, *beside):
        value = largest_value(one, quote)
        if value is None:
            return None
        after += value if order.side == "buy" else -value
    return after


def _too_large(rules: RiskRules, after: Decimal, facts: Facts) -> Iterator[Violation]:
    if rules.max_position_notional is not None and after > rules.max_position_notional:
        yield _broken(
            "max_position_notional",
            f"the position would be worth about {after:,.2f} USD, and {rules.max_position_notional:,} USD are allowed",
        )
    if rules.max_position_percent is not None:
        equity = facts.account.equity if facts.account else None
        if not equity:
            yield _broken("max_position_percent", "the equity is not known, so the rule cannot be checked")
        elif after * 100 > rules.max_position_percent * equity:
            share = after * 100 / equity
            yield _broken(
                "max_position_percent",
                f"the position would be {share:.1f} % of equity, and {rules.max_position_percent} % are allowed",
            )


def _moments(rules: RiskRules, ticket: OrderTicket, facts: Facts, recent_orders: int) -> Iterator[Violation]:
    if rules.max_orders_per_minute is not None and recent_orders >= rules.max_orders_per_minute:
        yield too_many_orders(recent_orders)
    if rules.max_daily_loss is not None:
        day_pl = facts.account.day_pl if facts.account else None
        if day_pl is None:
            yield _broken("max_daily_loss", "the day's gain is not known, so the rule cannot be checked")
        elif day_pl <= -rules.max_daily_loss:
            yield _broken("max_daily_loss", f"the day's loss is {-day_pl:,.2f} USD of {rules.max_daily_loss:,} USD")
    if rules.market_hours_only and ticket.asset_class != "crypto":
        if facts.clock is None:
            yield _broken("market_hours_only", "it is not known whether the market is open")
        elif not facts.clock.is_open:
            yield _broken("market_hours_only", "the market is closed", "wait for the opening, or change the rule in")


def too_many_orders(recent: int) -> Violation:
    """Return the refusal of an order after ``recent`` others within a minute."""
    return _broken("max_orders_per_minute", f"{recent} orders were sent within a minute", "wait, or raise the limit in")


def _broken(rule: str, message: str, fix: str = "order less or something else, or change the rule in") -> Violation:
    return Violation(rule, f"your own rule {rule}: {message}", f"{fix} {FILE_NAME}")
