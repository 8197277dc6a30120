"""What Alpaca refuses, said before anything is sent: each rule by name, with the fix.

Source: "Placing Orders", "Fractional Trading", "Crypto Orders" and "Options Trading" of the Alpaca documentation. Only what
is certain is refused here; where documents conflict the broker decides.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import ROUND_CEILING, Decimal
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from alpacli.domain.account import Account, Position
from alpacli.domain.market import Asset, MarketClock
from alpacli.domain.orders import Order
from alpacli.domain.symbols import bare
from alpacli.domain.tickets import CLASSES, INTENTS, SIDES, TIMES_IN_FORCE, TYPES, OrderTicket
from alpacli.domain.values import plain
from alpacli.domain.worth import Quote, estimated_value, is_credit, parts

_MOST_PLACES: Final = 9
_LONGEST_ID: Final = 128
_LEAST_NOTIONAL: Final = Decimal(1)
_LEAST_TRAIL_PERCENT: Final = Decimal("0.1")
_SHORT_MARGIN: Final = Decimal("1.03")

_PRICES: Final = {
    "market": (),
    "limit": ("limit_price",),
    "stop": ("stop_price",),
    "stop_limit": ("limit_price", "stop_price"),
    "trailing_stop": (),
}

_DAY: Final = "use time_in_force day (--tif day)"
_GTC: Final = "use time_in_force gtc (--tif gtc)"
_NOT_EXTENDED: Final = "leave extended_hours (--extended-hours) away"
_BOTH_EXITS: Final = "take_profit (--take-profit) and stop_loss (--stop-loss)"
"""What to do, for those who write fields and for those who type options."""


class Violation(NamedTuple):
    """One rule that an order breaks; ``rule`` is its short name, ``fix`` what to do.

    ``unfinished``: it is no order yet, wherever it would be sent. It lacks its symbol, side, quantity, or a price that its
    type needs, or says a word that orders do not have: wrong usage, where all else is an order that a rule refuses.
    """

    rule: str
    message: str
    fix: str
    unfinished: bool = False


def _unfinished(rule: str, message: str, fix: str) -> Violation:
    return Violation(rule, message, fix, unfinished=True)


class Facts(NamedTuple):
    """What is known of account and market when an order is checked; ``None`` is what could not be learned."""

    account: Account | None = None
    positions: Sequence[Position] | None = None
    open_orders: Sequence[Order] | None = None
    clock: MarketClock | None = None
    asset: Asset | None = None
    quote: Quote | None = None
    leg_quotes: Mapping[str, Quote] | None = None


def violations(ticket: OrderTicket) -> list[Violation]:
    """Return every rule that the ticket breaks by itself, whatever the account and the market are."""
    found = list(_words(ticket))
    if found:
        return found  # the other rules need to know what the words mean
    return [*_size(ticket), *_prices(ticket), *_combination(ticket), *_exits(ticket), *_legs(ticket)]


def _words(t: OrderTicket) -> Iterator[Violation]:
    if t.order_class != "mleg":
        if not t.symbol:
            yield _unfinished("symbol", "an order needs a symbol", "name what to trade, like AAPL or BTC/USD")
        elif not t.symbol.isprintable() or " " in t.symbol:
            yield Violation("symbol", f"{t.symbol!r} is no symbol", "name what to trade, like AAPL or BTC/USD")
        if t.side is None:
            yield _unfinished("side", "an order needs a side", "say buy or sell")
    for name, value, known in (
        ("side", t.side, SIDES),
        ("type", t.type, TYPES),
        ("time_in_force", t.time_in_force, TIMES_IN_FORCE),
        ("order_class", t.order_class, CLASSES),
        ("position_intent", t.position_intent, INTENTS),
    ):
        if value is not None and value not in known:
            yield _unfinished(name, f"{name} cannot be {value!r}", f"choose among {', '.join(known)}")
    if t.client_order_id is not None and not 0 < len(t.client_order_id) <= _LONGEST_ID:
        yield Violation("client_order_id", "a client order ID has 1 to 128 characters", "shorten it")


def _size(t: OrderTicket) -> Iterator[Violation]:
    if (t.qty is None) == (t.notional is None):
        yield _unfinished(
            "quantity", "an order has either a quantity or a notional amount", "give exactly one of the two"
        )
        return
    for name, value in (("qty", t.qty), ("notional", t.notional)):
        if value is None:
            continue
        if value <= 0:
            sign = "; the side says buy or sell, not a sign" if value < 0 else ""
            yield Violation(
                "quantity", f"{name} is {value}, which is not above zero", f"give a {name} above zero{sign}"
            )
        elif -_places(value) > _MOST_PLACES:
            yield Violation("quantity", f"{name} has more than {_MOST_PLACES} decimal places", "round it")
    if t.notional is not None and 0 < t.notional < _LEAST_NOTIONAL:
        yield Violation("notional", f"notional is {t.notional}, and Alpaca takes nothing below 1 USD", "order more")


def _prices(t: OrderTicket) -> Iterator[Violation]:
    needed = _PRICES[t.type]
    for name in ("limit_price", "stop_price"):
        value = getattr(t, name)
        if (
            name in needed
            and value is None
            and not (t.order_class == "oco" and name == "limit_price" and t.take_profit)
        ):
            yield _unfinished(
                "prices",
                f"a {_spaced(t.type)} order needs a {_spaced(name)}",
                f"give one: --{name[:-6]} PRICE, or --{name.replace('_', '-')} PRICE with submit",
            )
        if name not in needed and value is not None:
            yield Violation(
                "prices", f"a {_spaced(t.type)} order has no {_spaced(name)}", "leave it away, or choose another type"
            )
    trails = [value for value in (t.trail_price, t.trail_percent) if value is not None]
    if t.type == "trailing_stop" and len(trails) != 1:
        yield _unfinished(
            "trail",
            "a trailing stop order needs either a trail price or a trail percent",
            "give exactly one of the two",
        )
    if t.type != "trailing_stop" and trails:
        yield Violation("trail", f"a {_spaced(t.type)} order has no trail", "leave it away, or use type trailing_stop")
    if t.trail_percent is not None and not _LEAST_TRAIL_PERCENT <= t.trail_percent < 100:
        yield Violation("trail", f"trail_percent is {t.trail_percent}", "give a percentage from 0.1 to below 100")
    signed = t.order_class == "mleg"
    for name, price in _named_prices(t):
        if price <= 0 and not (signed and name == "limit_price"):
            yield Violation("prices", f"{name} is {price}, which is not above zero", "give a price in USD")
        else:
            yield from off_tick(t, name, price)


def off_tick(t: OrderTicket, name: str, price: Decimal) -> Iterator[Violation]:
    """Say that a price has too many decimal places, if it has."""
    if not _on_a_tick(t, price):
        places = 4 if abs(price) < 1 and t.asset_class == "us_equity" else 2
        below = "below 1 USD " if places == 4 else ""
        yield Violation(
            "tick size",
            f"{name} is {price}, and prices {below}have at most {places} decimal places",
            f"round it, to {round(price, places) + 0} for example",
        )


def _on_a_tick(t: OrderTicket, price: Decimal) -> bool:
    if t.asset_class == "crypto":
        return -_places(price) <= _MOST_PLACES
    return -_places(price) <= (4 if abs(price) < 1 and t.asset_class == "us_equity" else 2)


def _combination(t: OrderTicket) -> Iterator[Violation]:
    yield from {"crypto": _coin_rules, "us_option": _option_rules, "us_equity": _share_rules}[t.asset_class](t)


def _coin_rules(t: OrderTicket) -> Iterator[Violation]:
    tif = t.time_in_force
    if tif not in ("gtc", "ioc"):
        yield Violation("time in force", f"crypto orders are gtc or ioc, not {tif}", _GTC)
    if t.type not in ("market", "limit", "stop_limit"):
        yield Violation(
            "crypto types",
            f"crypto has no {_spaced(t.type)} orders",
            "use market, limit, or stop and limit together",
        )
    if t.order_class != "simple":
        yield Violation("crypto class", "crypto orders have no exits attached", "place the exit as an order of its own")
    if t.extended_hours:
        yield Violation("extended hours", "crypto trades around the clock", _NOT_EXTENDED)


def _option_rules(t: OrderTicket) -> Iterator[Violation]:
    tif = t.time_in_force
    if t.notional is not None or t.fractional:
        yield Violation("options quantity", "options trade in whole contracts", "give a whole quantity")
    if tif not in ("day", "gtc"):
        yield Violation("time in force", f"option orders are day or gtc, not {tif}", _DAY)
    elif tif == "gtc" and t.type == "market":
        yield Violation("time in force", "option market orders are day orders", f"{_DAY}, or give a limit")
    if t.type not in ("market", "limit"):
        yield Violation("option types", f"options have no {_spaced(t.type)} orders", "use market or limit")
    if t.extended_hours:
        yield Violation("extended hours", "options trade in regular hours only", _NOT_EXTENDED)
    if t.order_class not in ("simple", "mleg"):
        yield Violation("option class", "option orders have no exits attached", "place the exit as an order of its own")


def _share_rules(t: OrderTicket) -> Iterator[Violation]:
    tif = t.time_in_force
    if tif in ("opg", "cls", "ioc", "fok") and t.type not in ("market", "limit"):
        yield Violation("time in force", f"{tif} orders are market or limit orders", f"{_DAY} or gtc")
    if t.fractional:
        if tif != "day":
            yield Violation("fractional orders", f"fractional and notional orders are day orders, not {tif}", _DAY)
        if t.order_class != "simple":
            yield Violation("fractional orders", "fractional and notional orders have no exits", "order whole shares")
        if t.type == "trailing_stop":
            yield Violation("fractional orders", "a trailing stop needs whole shares", "order whole shares")
    if t.extended_hours:
        if t.type != "limit" or tif not in ("day", "gtc"):
            yield Violation(
                "extended hours",
                "orders for extended hours are day or gtc limit orders",
                "add limit_price (--limit) and time_in_force day (--tif day)",
            )
        if t.order_class != "simple":
            yield Violation(
                "extended hours", "orders with exits work in regular hours only", "leave one of the two away"
            )


def _exits(t: OrderTicket) -> Iterator[Violation]:
    if t.stop_loss_limit is not None and t.stop_loss is None:
        yield Violation("stop loss", "a stop-loss limit needs a stop-loss price", "add stop_loss (--stop-loss)")
    if t.order_class in ("simple", "mleg"):
        if t.take_profit is not None or t.stop_loss is not None:
            yield Violation(
                "order class",
                f"a {t.order_class} order has no exits",
                "leave the class away: it follows from the exits",
            )
        return
    if t.time_in_force not in ("day", "gtc") and t.asset_class == "us_equity":
        yield Violation("time in force", f"{t.order_class} orders are day or gtc, not {t.time_in_force}", _GTC)
    if t.type == "trailing_stop":
        yield Violation("order class", f"a trailing stop cannot be part of an {t.order_class} order", "place it alone")
    has = (t.take_profit is not None, t.stop_loss is not None)
    if t.order_class == "oto" and sum(has) != 1:
        yield Violation("order class", "an oto order has exactly one exit", f"give one of {_BOTH_EXITS}")
    if t.order_class in ("bracket", "oco") and not all(has):
        yield Violation("order class", f"a {t.order_class} order has both exits", f"give {_BOTH_EXITS}")
    if t.order_class == "oco" and t.type != "limit":
        yield Violation("order class", "an oco order is a limit order: its limit is the take-profit", "use type limit")
    yield from _exit_prices(t)


def _exit_prices(t: OrderTicket) -> Iterator[Violation]:
    rising = (t.side == "buy") != (t.order_class == "oco")
    above, below = ("take-profit", "stop-loss") if rising else ("stop-loss", "take-profit")
    if t.take_profit is not None and t.stop_loss is not None:
        high, low = (t.take_profit, t.stop_loss) if rising else (t.stop_loss, t.take_profit)
        if not high > low:
            yield Violation(
                "exit prices",
                f"the {above} ({high}) has to be above the {below} ({low})",
                "exchange or correct the two",
            )
    if t.limit_price is not None and t.order_class != "oco" and t.type == "limit":
        cent = Decimal("0.01")
        for name, exit_price, up in (("take-profit", t.take_profit, rising), ("stop-loss", t.stop_loss, not rising)):
            if exit_price is None:
                continue
            wrong = exit_price < t.limit_price + cent if up else exit_price > t.limit_price - cent
            if wrong:
                yield Violation(
                    "exit prices",
                    f"the {name} ({exit_price}) has to be {'above' if up else 'below'} the entry's limit ({t.limit_price})",
                    "by a cent at least",
                )


def _legs(t: OrderTicket) -> Iterator[Violation]:
    if t.order_class != "mleg":
        if t.legs:
            yield Violation("legs", f"a {t.order_class} order has no legs", "leave the class away")
        return
    if t.symbol or t.side:
        yield Violation("legs", "a multi-leg order has no symbol or side of its own", "only its legs have")
    if not 2 <= len(t.legs) <= 4:
        yield Violation("legs", f"a multi-leg order has 2 to 4 legs, not {len(t.legs)}", "add or leave away legs")
    if len({leg.symbol for leg in t.legs}) < len(t.legs):
        yield Violation("legs", "each leg is another contract", "put the same contracts together")
    for leg in t.legs:
        if leg.position_intent not in INTENTS:
            yield Violation("legs", f"the leg {leg.symbol} needs a position intent", f"one of {', '.join(INTENTS)}")
        if leg.ratio_qty <= 0 or leg.ratio_qty != leg.ratio_qty.to_integral_value():
            yield Violation("legs", f"the ratio of {leg.symbol} is {leg.ratio_qty}", "give a whole number from 1")
    ratios = [int(leg.ratio_qty) for leg in t.legs]
    if ratios and all(ratio > 0 for ratio in ratios):
        from math import gcd

        common = gcd(*ratios)
        if common > 1:
            yield Violation(
                "legs", f"the ratios can all be divided by {common}", "divide them, and multiply the quantity"
            )


# ------------------------------------------------------------------------------------ against account and market


def power_for(ticket: OrderTicket, account: Account) -> Decimal | None:
    """Return what the account can spend on such an order: options and coins are not bought on margin."""
    own = {"us_option": account.options_buying_power, "crypto": account.non_marginable_buying_power}
    power = own.get(ticket.asset_class)
    return account.buying_power if power is None else power


def held(positions: Iterable[Position], symbol: str) -> Position | None:
    name = bare(symbol)
    return next((item for item in positions if bare(item.symbol) == name or item.asset_id == symbol), None)


def reduces(ticket: OrderTicket, positions: Iterable[Position]) -> bool:
    """Tell whether the order can only make a position smaller: what a halt lets through.

    What is sold for an amount of money does, whatever it comes to: parts of shares and coins cannot be sold short. Several
    legs do where each is told to close, and there is as much to close of each.
    """
    if ticket.legs:
        closes = all((leg.position_intent or "").endswith("_to_close") for leg in ticket.legs)
        return closes and all(reduces(part, positions) for part in parts(ticket))
    if ticket.symbol is None or ticket.order_class not in ("simple", "oco"):
        return False
    if (ticket.position_intent or "").endswith("_to_open"):
        return False
    position = held(positions, ticket.symbol)
    if position is None:
        return False
    available = position.qty if position.qty_available is None else position.qty_available
    against = ticket.side == ("buy" if position.qty < 0 else "sell")
    if ticket.qty is None:
        return against and ticket.notional is not None and available > 0
    return against and ticket.qty <= abs(available)


def buying_power_needed(ticket: OrderTicket, facts: Facts) -> Decimal | None:
    """Return how much buying power the order takes, in USD: nothing for what reduces a position; ``None`` when unknown.

    What has to stand behind an option that is sold depends on all that is held, and is the broker's to say.
    """
    if ticket.symbol is not None and facts.positions is not None and reduces(ticket, facts.positions):
        return Decimal(0)
    value = estimated_value(ticket, facts.quote)
    if ticket.order_class == "oco" or (ticket.side == "sell" and ticket.asset_class == "crypto"):
        return Decimal(0)
    if is_credit(ticket, facts.quote) or (ticket.side == "sell" and ticket.asset_class == "us_option"):
        return None
    if value is None or ticket.side != "sell":
        return value
    ask = facts.quote.ask if facts.quote else None
    short_price = max(filter(None, (ticket.limit_price, ask * _SHORT_MARGIN if ask else None)), default=None)
    return value if short_price is None or ticket.qty is None else short_price * ticket.qty


def account_violations(ticket: OrderTicket, facts: Facts) -> list[Violation]:
    """Return every rule that the ticket breaks on this account and market, as far as they are known."""
    return [*_asset_rules(ticket, facts), *_position_rules(ticket, facts), *_money_rules(ticket, facts)]


def _asset_rules(t: OrderTicket, facts: Facts) -> Iterator[Violation]:
    asset = facts.asset
    if asset is None:
        return
    if asset.status != "active" or not asset.tradable:
        yield Violation("asset", f"{asset.symbol} cannot be traded at Alpaca", "`alpacli assets` lists what can")
    if t.fractional and t.asset_class == "us_equity" and not asset.fractionable:
        yield Violation("asset", f"{asset.symbol} trades in whole shares only", "give a whole quantity")
    if asset.min_order_size is not None and t.qty is not None and t.qty < asset.min_order_size:
        yield Violation("asset", f"the smallest order of {asset.symbol} is {plain(asset.min_order_size)}", "order more")
    for name, step, value in (
        ("quantity", asset.min_trade_increment, t.qty),
        ("limit price", asset.price_increment, t.limit_price),
        ("stop price", asset.price_increment, t.stop_price),
    ):
        if t.asset_class == "crypto" and step and value is not None and value % step:
            up = (value / step).to_integral_value(ROUND_CEILING) * step
            yield Violation(
                "asset", f"the {name} of {asset.symbol} goes in steps of {plain(step)}", f"{plain(up)} would do"
            )


def _position_rules(t: OrderTicket, facts: Facts) -> Iterator[Violation]:
    if facts.positions is None or t.symbol is None or t.side is None:
        return
    position = held(facts.positions, t.symbol)
    if t.order_class == "oco" and (position is None or (position.qty > 0) == (t.side == "buy")):
        kind, place = ("long", "below") if t.side == "sell" else ("short", "above")
        yield Violation(
            "position",
            f"an oco order to {t.side} is the way out of a {kind} position, and there is none in {t.symbol}",
            f"open one first; if this is to open one, the take-profit has to be {place} the stop-loss",
        )
        return
    if position is None:
        if t.side == "sell":
            yield from _short_rules(t, facts)
        return
    qty = _least_qty(t, facts)
    if qty is None:
        return
    available = position.qty if position.qty_available is None else position.qty_available
    if t.side == ("buy" if position.qty < 0 else "sell") and qty > abs(available):
        holds = abs(position.qty)
        if qty > holds:
            yield Violation(
                "position",
                f"the position in {t.symbol} is {plain(holds)}, and one order cannot turn it around",
                f"close it with {plain(holds)} first",
            )
        else:
            free = abs(available)
            yield Violation(
                "position",
                f"of {plain(holds)} {t.symbol}, open orders hold {plain(holds - free)}, so {plain(free)} are left",
                f"cancel an order first: `alpacli orders --status open --symbols {t.symbol}`",
            )


def _least_qty(t: OrderTicket, facts: Facts) -> Decimal | None:
    """Return how much is ordered; of what is ordered for an amount of money, how much at least as the market is now."""
    if t.qty is not None or t.notional is None:
        return t.qty
    price = max(filter(None, (t.limit_price, facts.quote.ask if facts.quote else None)), default=None)
    return None if price is None else t.notional / price


def _short_rules(t: OrderTicket, facts: Facts) -> Iterator[Violation]:
    symbol = t.symbol
    if t.asset_class == "crypto":
        yield Violation("short sale", f"there is no {symbol} to sell, and coins cannot be sold short", "buy first")
    elif t.asset_class == "us_equity":
        if t.fractional:
            yield Violation(
                "short sale", f"there is no {symbol} to sell, and fractions cannot be sold short", "buy first"
            )
        if facts.asset is not None and not facts.asset.shortable:
            yield Violation("short sale", f"{symbol} cannot be sold short", "buy first, or choose another symbol")
        account = facts.account
        if account is not None and (account.shorting_enabled is False or account.multiplier == 1):
            yield Violation("short sale", "this account may not sell short", "buy first")


def _money_rules(t: OrderTicket, facts: Facts) -> Iterator[Violation]:
    account = facts.account
    if account is None:
        return
    if account.trading_blocked or account.account_blocked or account.trade_suspended_by_user:
        yield Violation("account", "trading is blocked on this account", "see `alpacli account`, or ask Alpaca")
    needed = buying_power_needed(t, facts)
    power = power_for(t, account)
    if needed is not None and power is not None and needed > power:
        yield Violation(
            "buying power",
            f"the order costs about {needed:,.2f} USD, and {power:,.2f} USD can be spent",
            "order less, cancel open buys, or close a position",
        )


def market_warning(ticket: OrderTicket, clock: MarketClock | None) -> str | None:
    """Return what to know about market hours: a share's order waits while the market is closed."""
    if clock is None or clock.is_open or ticket.asset_class == "crypto" or ticket.extended_hours:
        return None
    opens = clock.next_open.astimezone(ZoneInfo("America/New_York"))
    return f"the market is closed; the order waits for {opens:%Y-%m-%d %H:%M %Z}, when it opens"


def _named_prices(t: OrderTicket) -> list[tuple[str, Decimal]]:
    names = ("limit_price", "stop_price", "trail_price", "take_profit", "stop_loss", "stop_loss_limit")
    return [(name, value) for name in names if (value := getattr(t, name)) is not None]


def _places(value: Decimal) -> int:
    exponent = value.normalize().as_tuple().exponent
    return exponent if isinstance(exponent, int) else 0


def _spaced(name: str) -> str:
    return name.replace("_", " ")
