"""What somebody wants to trade: an order before it is sent, and the body that says so to Alpaca.

Source: POST and PATCH /v2/orders of the Trading API reference. Amounts are exact and leave as JSON strings, digit for digit.
"""

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from numbers import Integral
from typing import Any, Final, Literal, NamedTuple

from alpacli.arguments import a_text
from alpacli.domain.symbols import spelled
from alpacli.domain.values import exact
from alpacli.errors import UsageError

SIDES: Final = ("buy", "sell")
TYPES: Final = ("market", "limit", "stop", "stop_limit", "trailing_stop")
TIMES_IN_FORCE: Final = ("day", "gtc", "opg", "cls", "ioc", "fok")
CLASSES: Final = ("simple", "bracket", "oco", "oto", "mleg")
INTENTS: Final = ("buy_to_open", "buy_to_close", "sell_to_open", "sell_to_close")

_OPTION: Final = re.compile(r"[A-Z]{1,6}\d{6}[CP]\d{8}")
_COIN: Final = re.compile(r"[A-Z0-9]{2,8}/[A-Z]{2,5}|[A-Z0-9]{3,8}(?:USD|USDT|USDC)")
_THOUSANDS: Final = re.compile(r"-?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]*)?")
_AMOUNTS: Final = ("qty", "notional", "limit_price", "stop_price", "trail_price", "trail_percent")
_EXITS: Final = ("take_profit", "stop_loss", "stop_loss_limit")
_WORDS: Final = {
    **dict.fromkeys(("type", "time_in_force", "order_class"), True),
    **dict.fromkeys(("side", "position_intent", "client_order_id"), False),
}
"""What is written in words, and whether an order always has it."""
_FIELDS: Final = frozenset(
    (
        *("symbol", "side", "type", "time_in_force", "extended_hours", "order_class", "position_intent"),
        *("client_order_id", "legs", "advanced_instructions"),
        *_AMOUNTS,
        *_EXITS,
    )
)

AssetClass = Literal["us_equity", "us_option", "crypto"]


def asset_class(symbol: str) -> AssetClass:
    """Tell from its form what a symbol names: an OCC option contract, a coin pair, else a share."""
    if _OPTION.fullmatch(symbol):
        return "us_option"
    return "crypto" if _COIN.fullmatch(symbol) else "us_equity"


def underlying(symbol: str) -> str:
    """Return the symbol of the shares behind an option contract; any other symbol as it is."""
    return symbol[:-15] if asset_class(symbol) == "us_option" else symbol


def made_exact(name: str, value: object) -> Any:  # Any: a Decimal, or nothing where there was nothing
    """Return an amount as it is sent; what an indicator gives before it has seen enough (NaN) is none."""
    if isinstance(value, bool) or (isinstance(value, Decimal) and not value.is_finite()):
        raise UsageError(f"{name} is {value}, which is no amount", "give a number")
    if value is None or isinstance(value, Decimal):
        return value
    if isinstance(value, Integral):  # numpy's too
        return Decimal(int(value))
    if not isinstance(value, float | str):
        raise UsageError(f"{name} is {value!r}, which is no amount", "give a whole number or a Decimal")
    raise UsageError(f"{name} is {value!r}, and amounts are exact", f'give Decimal("{value}")')


class Leg(NamedTuple):
    """One contract of a multi-leg option order; ``ratio_qty`` per unit of the whole order."""

    symbol: str
    ratio_qty: Decimal
    position_intent: str | None = None
    side: str | None = None

    @property
    def buys(self) -> bool:
        """Tell whether the contract is bought; it is sold else."""
        return (self.position_intent or self.side or "").startswith("buy")

    def body(self) -> dict[str, str]:
        """Return the leg as an element of ``legs`` in what ``POST /v2/orders`` is sent."""
        named = {"side": self.side, "position_intent": self.position_intent}
        chosen = {name: value for name, value in named.items() if value is not None}
        return {"symbol": self.symbol, "ratio_qty": format(self.ratio_qty, "f"), **chosen}


class OrderTicket(NamedTuple):
    """An order as it is to be placed. Exactly one of ``qty`` and ``notional`` (USD); prices in USD per share.

    ``take_profit`` is a limit price; ``stop_loss`` a stop price, with ``stop_loss_limit`` a stop-limit. Multi-leg orders have
    ``legs`` and neither symbol nor side.
    """

    symbol: str | None = None
    side: str | None = None
    type: str = "market"
    time_in_force: str = "day"
    qty: Decimal | None = None
    notional: Decimal | None = None
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    trail_price: Decimal | None = None
    trail_percent: Decimal | None = None
    take_profit: Decimal | None = None
    stop_loss: Decimal | None = None
    stop_loss_limit: Decimal | None = None
    extended_hours: bool = False
    order_class: str = "simple"
    position_intent: str | None = None
    legs: tuple[Leg, ...] = ()
    client_order_id: str | None = None
    advanced_instructions: Mapping[str, Any] | None = None

    def checked(self) -> "OrderTicket":
        """Return the ticket as it is sent: symbols in capitals, whole numbers as ``Decimal``.

        Raises:
            UsageError: an amount is a float or a text: nobody can say which number was meant; or something is of a kind that
                it cannot be.
        """
        for name, must in _WORDS.items():
            if must or getattr(self, name) is not None:
                a_text(name, getattr(self, name))
        instructions(self.advanced_instructions)
        given = {name: made_exact(name, getattr(self, name)) for name in (*_AMOUNTS, *_EXITS)}
        symbol = None if self.symbol is None else spelled(self.symbol)
        return self._replace(**given, symbol=symbol, legs=tuple(map(_checked_leg, _list("legs", self.legs))))

    @property
    def fractional(self) -> bool:
        """Tell whether it asks for a part of a share: for USD (``notional``), or for a quantity that is not whole."""
        return self.notional is not None or (self.qty is not None and self.qty != self.qty.to_integral_value())

    @property
    def asset_class(self) -> AssetClass:
        """Return what is traded, by the form of the symbol; ``us_option`` for several legs."""
        return "us_option" if self.symbol is None else asset_class(self.symbol)

    def only_closing(self) -> "OrderTicket":
        """Return an order that makes a position smaller as one that can do nothing else, whatever happens until it arrives.

        Alpaca refuses it where it would open a position. Coins cannot be sold short and OCO orders are exits anyway; what an
        order says itself is left as it is.
        """
        if self.position_intent is not None or self.order_class != "simple" or self.asset_class == "crypto":
            return self
        return self._replace(position_intent=f"{self.side}_to_close")

    def body(self, client_order_id: str) -> dict[str, Any]:
        """Return what ``POST /v2/orders`` is sent."""
        body: dict[str, Any] = {}
        for name in ("symbol", "side", "type", "time_in_force"):
            if getattr(self, name) is not None:
                body[name] = getattr(self, name)
        for name in _AMOUNTS:
            value = getattr(self, name)
            if value is not None:
                body[name] = format(value, "f")
        if self.order_class != "simple":
            body["order_class"] = self.order_class
        body |= self._exits()
        if self.extended_hours:
            body["extended_hours"] = True
        if self.position_intent is not None:
            body["position_intent"] = self.position_intent
        if self.legs:
            body["legs"] = [leg.body() for leg in self.legs]
        if self.advanced_instructions:
            body["advanced_instructions"] = dict(self.advanced_instructions)
        body["client_order_id"] = client_order_id
        return body

    def _exits(self) -> dict[str, dict[str, str]]:
        exits: dict[str, dict[str, str]] = {}
        if self.take_profit is not None:
            exits["take_profit"] = {"limit_price": format(self.take_profit, "f")}
        if self.stop_loss is not None:
            exits["stop_loss"] = {"stop_price": format(self.stop_loss, "f")}
            if self.stop_loss_limit is not None:
                exits["stop_loss"]["limit_price"] = format(self.stop_loss_limit, "f")
        return exits


def checked_ticket(value: object) -> OrderTicket:
    """Return an order as it is sent, whatever a program gave for one; see ``OrderTicket.checked``.

    Raises:
        UsageError: it is no ``OrderTicket``, or one that makes no sense.
    """
    if not isinstance(value, OrderTicket):
        shape = "a dict" if isinstance(value, Mapping) else f"{value!r:.60}"
        raise UsageError(
            f"the order is {shape}", 'give an OrderTicket, like OrderTicket("AAPL", "buy", qty=Decimal(1))'
        )
    return value.checked()


def order_type(
    *, limit: bool, stop: bool, trail: bool
) -> Literal["market", "limit", "stop", "stop_limit", "trailing_stop"]:
    """Return the type that follows from which prices are given."""
    if trail:
        return "trailing_stop"
    if limit and stop:
        return "stop_limit"
    if limit:
        return "limit"
    return "stop" if stop else "market"


def read_ticket(fields: Mapping[str, Any]) -> OrderTicket:
    """Understand an order given by field names, flat or as Alpaca nests them; what is absent follows from what is there.

    ``take_profit`` is a price or ``{"limit_price": …}``; ``stop_loss`` a price or ``{"stop_price": …, "limit_price": …}``.
    Without ``type`` it follows from the prices, without ``order_class`` from the exits: none is simple, one ``oto``, two
    ``bracket``, and two that can only end a position (to sell at a profit above the stop) without an entry ``oco``. Without
    ``time_in_force`` it is ``gtc`` for coins and ``day`` for all else.

    Raises:
        UsageError: a field that no order has, or a value that cannot be read.
    """
    given = {name: value for name, value in _flat(fields).items() if value is not None and value != ""}
    unknown = sorted(given.keys() - _FIELDS)
    if unknown:
        raise UsageError(f"an order has no field {unknown[0]!r}", f"the fields are {', '.join(sorted(_FIELDS))}")
    amounts = {name: _amount(name, given[name]) for name in (*_AMOUNTS, *_EXITS) if name in given}
    legs = tuple(_leg(leg) for leg in _list("legs", given.get("legs", ())))
    symbol = _symbol(given.get("symbol"))
    side = _lower(given.get("side"))
    order_class = _lower(given.get("order_class")) or ("mleg" if legs else _class_of_exits(side, given, amounts))
    kind = _lower(given.get("type")) or order_type(
        limit="limit_price" in amounts or order_class == "oco",
        stop="stop_price" in amounts,
        trail="trail_price" in amounts or "trail_percent" in amounts,
    )
    is_coin = symbol is not None and asset_class(symbol) == "crypto"
    return OrderTicket(
        symbol=symbol,
        side=side,
        type=kind,
        time_in_force=_lower(given.get("time_in_force")) or ("gtc" if is_coin else "day"),
        extended_hours=_flag("extended_hours", given.get("extended_hours", False)),
        order_class=order_class,
        position_intent=_lower(given.get("position_intent")),
        legs=legs,
        client_order_id=None if given.get("client_order_id") is None else str(given["client_order_id"]),
        advanced_instructions=instructions(given.get("advanced_instructions")),
        **amounts,
    )


def instructions(value: object) -> Mapping[str, Any] | None:
    """Return ``advanced_instructions`` as they are given: what is in them only Alpaca knows.

    Raises:
        UsageError: they are no object.
    """
    if value is not None and not isinstance(value, Mapping):
        raise UsageError("advanced_instructions is no object", 'write it like {"algorithm": "VWAP"}')
    return value


def _class_of_exits(side: str | None, given: Mapping[str, Any], amounts: Mapping[Any, Decimal]) -> str:
    """Return the class that follows from the exits. A short sale's target is below its stop, that of a way out above it."""
    target, stop = amounts.get("take_profit"), amounts.get("stop_loss")
    if target is None or stop is None:
        return "simple" if target is None and stop is None else "oto"
    has_entry = "type" in given or amounts.keys() & {"limit_price", "stop_price", "trail_price", "trail_percent"}
    is_way_out = target > stop if side == "sell" else side == "buy" and target < stop
    return "oco" if is_way_out and not has_entry else "bracket"


def read_leg(text: str) -> Leg:
    """Read ``SYMBOL:RATIO:INTENT``, like ``AAPL260116C00200000:1:buy_to_open``; a ratio of 1 may be left away.

    Raises:
        UsageError: it is something else.
    """
    parts = text.split(":")
    if len(parts) == 2:
        parts.insert(1, "1")
    if len(parts) != 3:
        raise UsageError(f"{text!r} is not a leg", "write SYMBOL:RATIO:INTENT, like AAPL260116C00200000:1:buy_to_open")
    return _leg({"symbol": parts[0], "ratio_qty": parts[1], "position_intent": parts[2]})


def amount(name: str, value: object) -> Decimal:
    """Read a number, or what a person wrote for one: digits, a point, and commas between thousands.

    Raises:
        UsageError: it is something else; a float too, since its digits need not be those that were meant.
    """
    return _amount(name, value)


def _flat(fields: Mapping[str, Any]) -> dict[str, Any]:
    flat = dict(fields)
    profit, loss = flat.get("take_profit"), flat.get("stop_loss")
    if isinstance(profit, Mapping):
        _only("take_profit", profit, ("limit_price",))
        flat["take_profit"] = profit.get("limit_price")
    if isinstance(loss, Mapping):
        _only("stop_loss", loss, ("stop_price", "limit_price"))
        flat["stop_loss"], flat["stop_loss_limit"] = loss.get("stop_price"), loss.get("limit_price")
    return flat


def _only(what: str, value: Mapping[str, Any], names: Sequence[str]) -> None:
    unknown = sorted(set(value) - set(names))
    if unknown:
        raise UsageError(f"{what} has no field {unknown[0]!r}", f"it has {' and '.join(names)}")


def _leg(value: Any) -> Leg:
    if not isinstance(value, Mapping) or not value.get("symbol"):
        raise UsageError("a leg needs a symbol", 'like {"symbol": "AAPL260116C00200000", "ratio_qty": 1, …}')
    _only("a leg", value, ("symbol", "ratio_qty", "position_intent", "side"))
    ratio = _amount("ratio_qty", value.get("ratio_qty", 1))
    return Leg(_symbol(value["symbol"]) or "", ratio, _lower(value.get("position_intent")), _lower(value.get("side")))


def _checked_leg(value: object) -> Leg:
    if not isinstance(value, Leg):
        raise UsageError(f"one of legs is {value!r:.60}", "give a Leg")
    for name in ("position_intent", "side"):
        if getattr(value, name) is not None:
            a_text(f"a leg's {name}", getattr(value, name))
    return value._replace(symbol=spelled(value.symbol), ratio_qty=made_exact("ratio_qty", value.ratio_qty))


def _list(name: str, value: Any) -> Sequence[Any]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise UsageError(f"{name} is no list", "give a JSON array")
    return value


def _amount(name: str, value: Any) -> Decimal:
    """Return a number; commas are taken where they part thousands, since ``1,5`` means one and a half to many."""
    try:
        if isinstance(value, str):
            text = value.strip()
            return exact(text.replace(",", "") if _THOUSANDS.fullmatch(text) else text)
        return exact(made_exact(name, value) if isinstance(value, float) else value)
    except ValueError:
        hint = "give a number, like 10 or 182.50"
        if isinstance(value, str) and "," in value:
            hint += "; a comma parts thousands only, as in 1,000.50"
        raise UsageError(f"{name} is {value!r}", hint) from None


def _flag(name: str, value: Any) -> bool:
    if isinstance(value, str):
        found = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}.get(value.lower())
    else:
        found = value if isinstance(value, bool) else None
    if found is None:
        raise UsageError(f"{name} is {value!r}", "give true or false")
    return found


def _symbol(value: Any) -> str | None:
    return None if value is None else spelled(str(value))


def _lower(value: Any) -> str | None:
    return None if value is None else str(value).strip().lower()
