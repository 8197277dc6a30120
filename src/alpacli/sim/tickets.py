"""What an order request says, and the rules that need nothing but the request and the instrument.

Texts and codes are Alpaca's (wire reference 3.4, 3.5 and 5): 40010001 where a parameter is wrong by itself, 42210000 where
parameters do not go together. Numbers may be JSON numbers or strings, and are exact either way.
"""

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Final, NamedTuple

from alpacli.sim.answers import Refusal, bad_parameter, decimal_text
from alpacli.sim.listing import LISTINGS, MIN_CRYPTO_ORDER, Listing, find

UNFIT: Final = 42210000

SIDES: Final = ("buy", "sell")
TYPES: Final = ("market", "limit", "stop", "stop_limit", "trailing_stop")
TIMES: Final = ("day", "gtc", "opg", "cls", "ioc", "fok")
_CLASSES: Final = ("", "simple", "bracket", "oco", "oto", "mleg")
INTENTS: Final = ("buy_to_open", "buy_to_close", "sell_to_open", "sell_to_close")
_OPTION: Final = re.compile(r"[A-Z]{1,6}\d{6}[CP]\d{8}")
_LARGEST: Final = Decimal(10**10)
_SMALLEST: Final = -_LARGEST
_QTY_PLACES: Final = 9
_LEAST_TRAIL: Final = Decimal("0.1")
_MOST_PLACES: Final = 18
_LONGEST_ID: Final = 128


class Exit(NamedTuple):
    """One of the two ways out of a position; the stop-loss has a stop price, and may have a limit too."""

    limit_price: Decimal | None = None
    stop_price: Decimal | None = None


class Ticket:
    """An order request as it was understood. It is never changed; ``order_class`` is never empty.

    ``fractional`` says that it asks for parts of shares; coins are divisible anyway.
    """

    __slots__ = (
        *("client_order_id", "extended_hours", "fractional", "limit_price", "listing", "notional", "order_class"),
        *("order_type", "position_intent", "qty", "side", "stop_loss", "stop_price", "take_profit", "time_in_force"),
        *("trail_percent", "trail_price"),
    )

    def __init__(
        self,
        listing: Listing,
        side: str,
        order_type: str,
        time_in_force: str,
        qty: Decimal | None = None,
        notional: Decimal | None = None,
        limit_price: Decimal | None = None,
        stop_price: Decimal | None = None,
        trail_price: Decimal | None = None,
        trail_percent: Decimal | None = None,
        *,
        extended_hours: bool = False,
        order_class: str = "simple",
        take_profit: Exit | None = None,
        stop_loss: Exit | None = None,
        position_intent: str | None = None,
        client_order_id: str | None = None,
    ) -> None:
        self.listing = listing
        self.side = side
        self.order_type = order_type
        self.time_in_force = time_in_force
        self.qty = qty
        self.notional = notional
        self.limit_price = limit_price
        self.stop_price = stop_price
        self.trail_price = trail_price
        self.trail_percent = trail_percent
        self.extended_hours = extended_hours
        self.order_class = order_class
        self.take_profit = take_profit
        self.stop_loss = stop_loss
        self.position_intent = position_intent
        self.client_order_id = client_order_id
        in_parts = notional is not None or (qty is not None and qty != qty.to_integral_value())
        self.fractional = in_parts and not listing.crypto and listing.contract is None


def unfit(message: str, **extra: str) -> Refusal:
    return Refusal(422, UNFIT, message, **extra)


def read(body: Mapping[str, object], listings: Mapping[str, Listing] = LISTINGS) -> Ticket:
    """Understand the body of ``POST /v2/orders``, and hold it against the rules."""
    order_class = one_of(body, "order_class", "order_class", _CLASSES, "") or "simple"
    order_type = one_of(body, "type", "order type", TYPES)
    time_in_force = one_of(body, "time_in_force", "time_in_force", TIMES)
    symbol = body.get("symbol")
    if not isinstance(symbol, str) or not symbol:
        raise bad_parameter("symbol is required")
    side = one_of(body, "side", "side", SIDES)
    qty, notional = amount(body, "qty"), amount(body, "notional")
    if (qty is None) == (notional is None):
        raise bad_parameter("qty or notional is required" if qty is None else "only one of qty or notional is accepted")
    take_profit, stop_loss = _exit(body, "take_profit"), _exit(body, "stop_loss")
    extended = body.get("extended_hours")
    if extended is not None and not isinstance(extended, bool):
        raise bad_parameter("invalid extended_hours")
    limit_price = amount(body, "limit_price")
    if order_class == "oco" and take_profit is not None:
        limit_price = take_profit.limit_price
    client_order_id = own_id(body)
    listing = find(symbol, listings)
    if listing is None:
        raise unfit(
            f"option contract {symbol} not found" if _OPTION.fullmatch(symbol) else f'asset "{symbol}" not found'
        )
    intent = one_of(body, "position_intent", "position_intent", INTENTS, "") or None
    ticket = Ticket(
        listing,
        side,
        order_type,
        time_in_force,
        qty,
        notional,
        limit_price,
        amount(body, "stop_price"),
        amount(body, "trail_price"),
        amount(body, "trail_percent"),
        extended_hours=bool(extended),
        order_class=order_class,
        take_profit=take_profit,
        stop_loss=stop_loss,
        position_intent=intent,
        client_order_id=client_order_id,
    )
    check(ticket)
    return ticket


def check(ticket: Ticket) -> None:
    """Refuse a combination that no market would take."""
    prices = _named_prices(ticket)
    _check_amounts(ticket)
    _check_prices(ticket, prices)
    if ticket.listing.contract is not None:
        _check_option(ticket)
    elif ticket.listing.crypto:
        _check_coin(ticket)
    elif ticket.time_in_force not in ("day", "gtc") and ticket.order_type not in ("market", "limit"):
        raise unfit(f"{ticket.time_in_force} orders must be market or limit orders")
    if ticket.extended_hours and (
        ticket.order_type != "limit" or ticket.time_in_force not in ("day", "gtc") or ticket.order_class != "simple"
    ):
        raise unfit("extended hours order must be DAY or GTC limit orders")
    if ticket.fractional:
        if ticket.time_in_force != "day":
            raise unfit("fractional orders must be DAY orders")
        if ticket.order_class != "simple":
            raise unfit("fractional orders must be simple orders")
        if ticket.order_type == "trailing_stop":
            raise unfit("fractional orders must be market, limit, stop or stop_limit orders")
    if ticket.order_class == "simple":
        if ticket.take_profit is not None or ticket.stop_loss is not None:
            raise bad_parameter("order_class must be bracket, oco or oto for take_profit and stop_loss")
    else:
        _check_exits(ticket)
    for name, price in prices:
        check_tick(ticket.listing, name, price)


def amount(body: Mapping[str, object], name: str, shown: str | None = None) -> Decimal | None:
    """Return a number of the request, exactly; ``None`` when it is absent or null."""
    value = body.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, int | str | Decimal):
        raise bad_parameter(f"invalid {shown or name}")
    try:
        number = Decimal(value)
    except (InvalidOperation, ValueError):
        raise bad_parameter(f"invalid {shown or name}") from None
    if not number.is_finite() or not _SMALLEST < number < _LARGEST or _places(number, value) > _MOST_PLACES:
        raise bad_parameter(f"invalid {shown or name}")
    return number.normalize()


def _places(number: Decimal, given: int | str | Decimal) -> int:
    """Return how many decimals a number was given with; at a glance nearly always, when it is too short to have many."""
    if isinstance(given, str) and len(given) <= _MOST_PLACES and "e" not in given and "E" not in given:
        return len(given)
    exponent = number.as_tuple().exponent
    return -exponent if isinstance(exponent, int) else 0


def own_id(body: Mapping[str, object]) -> str | None:
    value = body.get("client_order_id")
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise bad_parameter("invalid client_order_id")
    if len(value) > _LONGEST_ID:
        raise bad_parameter(f"client_order_id must be no more than {_LONGEST_ID} characters")
    return value


def one_time_in_force(body: Mapping[str, object]) -> str:
    return one_of(body, "time_in_force", "time_in_force", TIMES, "")


def check_tick(listing: Listing, name: str, price: Decimal) -> None:
    """Refuse a price between two ticks: a cent, a hundredth of one below a dollar, a coin's own increment."""
    if listing.contract is not None:
        check_option_price(name, price)
        return
    places = listing.places if listing.crypto or price >= 1 else 4
    if price != round(price, places):
        what = "sub-penny increment does not fulfill minimum pricing criteria"
        raise unfit(f"invalid {name} {decimal_text(price)}. {what}")


def check_option_price(name: str, price: Decimal) -> None:
    if price != round(price, 2):
        raise unfit(f"{name.replace('_', ' ')} must be limited to 2 decimal places")


def _check_amounts(ticket: Ticket) -> None:
    qty, notional = ticket.qty, ticket.notional
    if qty is not None and qty <= 0:
        raise bad_parameter("qty must be > 0")
    if notional is not None:
        if notional <= 0:
            raise bad_parameter("notional must be > 0")
        if notional < 1:
            raise unfit("notional must be >= 1.00")
    name, value = ("qty", qty) if qty is not None else ("notional", notional)
    if value is not None and value != round(value, _QTY_PLACES):
        raise bad_parameter(f"{name} must be limited to {_QTY_PLACES} decimal places")


# How Alpaca says what a type must have, and what it must not have.
_NEEDS: Final = {
    "limit": "limit orders require a limit price",
    "stop": "stop orders require a stop price",
    "stop_limit": "stop limit orders require both stop and limit price",
}
_SUPERFLUOUS: Final = {
    "market": "market orders require no stop or limit price",
    "limit": "limit orders require no stop price",
    "stop": "stop orders require no limit price",
    "trailing_stop": "trailing stop orders require no stop or limit price",
}


def _check_prices(ticket: Ticket, prices: Sequence[tuple[str, Decimal]]) -> None:
    kind = ticket.order_type
    limit, stop = ticket.limit_price is not None, ticket.stop_price is not None
    needs_limit, needs_stop = kind in ("limit", "stop_limit"), kind in ("stop", "stop_limit")
    if (needs_limit and not limit) or (needs_stop and not stop):
        raise bad_parameter(_NEEDS[kind])
    if (limit and not needs_limit) or (stop and not needs_stop):
        raise bad_parameter(_SUPERFLUOUS[kind])
    by_price, by_percent = ticket.trail_price is not None, ticket.trail_percent is not None
    if kind != "trailing_stop":
        if by_price or by_percent:
            name = "trail_price" if by_price else "trail_percent"
            raise bad_parameter(f"{kind.replace('_', ' ')} orders must not have {name}")
    elif by_price == by_percent:
        raise bad_parameter("trailing stop orders must specify one of trail_price or trail_percent")
    if ticket.trail_percent is not None and not _LEAST_TRAIL <= ticket.trail_percent < 100:
        raise bad_parameter("trail_percent must be >= 0.1")
    for name, price in prices:
        if price <= 0:
            raise bad_parameter(f"{name.replace('_', ' ')} must be > 0")


def _check_coin(ticket: Ticket) -> None:
    if ticket.time_in_force not in ("gtc", "ioc"):
        raise unfit("invalid crypto time_in_force")
    if ticket.order_type not in ("market", "limit", "stop_limit"):
        raise unfit("invalid order type for crypto order")
    if ticket.order_class != "simple":
        raise unfit("crypto orders must be simple orders")
    if ticket.qty is not None and ticket.qty < MIN_CRYPTO_ORDER:
        raise Refusal(403, 40310000, f"qty must be >= minimal qty of order {decimal_text(MIN_CRYPTO_ORDER)}")


def _check_option(ticket: Ticket) -> None:
    if ticket.notional is not None:
        raise unfit("notional orders are not supported for options")
    if ticket.qty is not None and ticket.qty != ticket.qty.to_integral_value():
        raise bad_parameter("qty must be integer")
    if ticket.order_class != "simple" or ticket.take_profit is not None or ticket.stop_loss is not None:
        raise unfit("complex orders are not supported for options")
    if ticket.extended_hours:
        raise unfit("extended hours are not supported for options")
    check_option_terms(ticket.order_type, ticket.time_in_force)


def check_option_terms(order_type: str, time_in_force: str) -> None:
    """Refuse what no option order may be, of one leg or several: market and limit for the day, limit until canceled."""
    if order_type not in ("market", "limit"):
        raise unfit("invalid order type for options order")
    if time_in_force not in ("day", "gtc") or (time_in_force == "gtc" and order_type == "market"):
        raise unfit("invalid time_in_force for options order")


def _check_exits(ticket: Ticket) -> None:
    kind, profit, loss = ticket.order_class, ticket.take_profit, ticket.stop_loss
    if ticket.time_in_force not in ("day", "gtc"):
        raise unfit(f"{kind} orders must be DAY or GTC orders")
    if ticket.order_type == "trailing_stop" or (kind == "oco" and ticket.order_type != "limit"):
        raise unfit(f"{kind} orders must be {'limit' if kind == 'oco' else 'market, limit, stop or stop_limit'} orders")
    if kind == "oto":
        if (profit is None) == (loss is None):
            raise bad_parameter("oto orders require one of take_profit or stop_loss")
    elif profit is None or loss is None:
        missing = "take_profit.limit_price" if profit is None else "stop_loss.stop_price"
        raise bad_parameter(f"{kind} orders require {missing}")
    if profit is not None and (profit.limit_price is None or profit.stop_price is not None):
        raise bad_parameter("take_profit.limit_price is required")
    if loss is not None and loss.stop_price is None:
        raise bad_parameter("stop_loss.stop_price is required")
    if profit is not None and loss is not None and profit.limit_price is not None and loss.stop_price is not None:
        above, sign = (ticket.side == "buy") != (kind == "oco"), ">"
        if not above:
            sign = "<"
        if not (profit.limit_price > loss.stop_price if above else profit.limit_price < loss.stop_price):
            raise unfit(f"take_profit.limit_price must be {sign} stop_loss.stop_price")


def check_base(ticket: Ticket, base: Decimal) -> None:
    """Refuse exits on the wrong side of the price at which the position begins, or for an OCO of the market's."""
    tick = ticket.listing.price(1)
    rising = (ticket.side == "buy") != (ticket.order_class == "oco")
    profit = ticket.take_profit.limit_price if ticket.take_profit and ticket.order_class != "oco" else None
    loss = ticket.stop_loss.stop_price if ticket.stop_loss else None
    for name, price, up in (("take_profit.limit_price", profit, rising), ("stop_loss.stop_price", loss, not rising)):
        if price is not None and (price < base + tick if up else price > base - tick):
            bound = f">= base_price + {tick}" if up else f"<= base_price - {tick}"
            raise unfit(f"{name} must be {bound}", base_price=decimal_text(base))


def _named_prices(ticket: Ticket) -> list[tuple[str, Decimal]]:
    prices: list[tuple[str, Decimal | None]] = []
    if ticket.order_type != "market":
        prices += (
            ("limit_price", ticket.limit_price),
            ("stop_price", ticket.stop_price),
            ("trail_price", ticket.trail_price),
        )
    if ticket.take_profit is not None:
        prices.append(("take_profit.limit_price", ticket.take_profit.limit_price))
    if ticket.stop_loss is not None:
        prices += (
            ("stop_loss.stop_price", ticket.stop_loss.stop_price),
            ("stop_loss.limit_price", ticket.stop_loss.limit_price),
        )
    return [(name, price) for name, price in prices if price is not None]


def _exit(body: Mapping[str, object], name: str) -> Exit | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, dict):
        raise bad_parameter(f"invalid {name}")
    return Exit(amount(value, "limit_price", f"{name}.limit_price"), amount(value, "stop_price", f"{name}.stop_price"))


def one_of(
    body: Mapping[str, object], name: str, shown: str, allowed: tuple[str, ...], default: str | None = None
) -> str:
    value = body.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, str) or (value not in allowed and value != default):
        raise bad_parameter(f"invalid {shown}" if value else f"{shown} is required")
    return value
