"""What changing an open order means: which changes there are, which Alpaca refuses, and what the order is afterwards.

Source: "Replace Order" of the Trading API reference.
"""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Final

from alpacli.arguments import a_mapping, a_text
from alpacli.domain.account import Position
from alpacli.domain.order_rules import Violation, held, off_tick
from alpacli.domain.orders import Order
from alpacli.domain.tickets import TIMES_IN_FORCE, Leg, OrderTicket, amount, instructions
from alpacli.domain.values import plain
from alpacli.errors import UsageError

_PRICED: Final = {
    "limit_price": ("limit", "stop_limit"),
    "stop_price": ("stop", "stop_limit"),
    "trail": ("trailing_stop",),
}
"""Which types have what can be changed."""


_WORDS: Final = ("time_in_force", "client_order_id")
_INSTRUCTIONS: Final = "advanced_instructions"
_CHANGEABLE: Final = ("qty", "limit_price", "stop_price", "trail", *_WORDS, _INSTRUCTIONS)


def read_changes(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is to be changed as it is sent, each amount with the digits that were given; ``None`` changes nothing.

    Raises:
        UsageError: a field that cannot be changed, which Alpaca would not look at; an amount that is no number; or
            instructions that are no object.
    """
    changes: dict[str, Any] = {}
    for name, value in a_mapping("changes", fields, 'give a dict, like {"limit_price": "182.50"}').items():
        a_text("a field to change", name)
        if name not in _CHANGEABLE:
            raise UsageError(f"{name[:40]!r} of an order cannot be changed", f"what can: {', '.join(_CHANGEABLE)}")
        if value is None:
            continue
        if name == _INSTRUCTIONS:
            changes[name] = dict(instructions(value) or {})
        else:
            changes[name] = str(value) if name in _WORDS else format(amount(name, value), "f")
    return changes


def check_changes(changes: Mapping[str, Any]) -> None:
    """Refuse what changes no order, whichever it is.

    Raises:
        UsageError: nothing is to be changed, or to a word that orders do not have.
    """
    if not changes.keys() - {"client_order_id"}:
        raise UsageError("nothing is to be changed", "give a quantity, a price, a trail or a time in force")
    tif = changes.get("time_in_force")
    if tif is not None and tif not in TIMES_IN_FORCE:
        raise UsageError(f"time_in_force cannot be {tif!r}", f"choose among {', '.join(TIMES_IN_FORCE)}")


def replacement_violations(order: Order, changes: Mapping[str, Any]) -> list[Violation]:
    """Return why the order cannot be changed like this, as far as that is certain; amounts in ``changes`` are text."""
    if order.is_terminal:
        successor = f"; {order.replaced_by} took its place" if order.replaced_by else ""
        return [
            Violation(
                "order",
                f"the order is {order.status}, and what is done cannot be changed{successor}",
                f"`alpacli replace {order.replaced_by}`" if order.replaced_by else "place a new order",
            )
        ]
    return [*_size(order, changes), *_prices(order, changes), *_difference(order, changes)]


def _size(order: Order, changes: Mapping[str, Any]) -> Iterator[Violation]:
    if order.notional is not None:
        yield Violation(
            "replace", "an order for an amount of money cannot be changed", "cancel it, and place a new one"
        )
    if "qty" not in changes:
        return
    qty, filled = Decimal(changes["qty"]), order.filled_qty or Decimal(0)
    if qty <= filled:
        yield Violation(
            "quantity",
            f"qty is {qty}, and {plain(filled)} are filled already",
            "give more: the quantity counts what is filled",
        )
    elif qty != qty.to_integral_value() and order.asset_class != "crypto":
        yield Violation("quantity", f"qty is {qty}, and an order is changed to whole shares only", "round it")


def _prices(order: Order, changes: Mapping[str, Any]) -> Iterator[Violation]:
    kind = _kind(order)
    for name, kinds in _PRICED.items():
        if name not in changes:
            continue
        price = Decimal(changes[name])
        if kind not in kinds and not (name == "limit_price" and order.order_class == "mleg"):
            words = name.replace("_", " ")
            yield Violation("prices", f"a {kind.replace('_', ' ')} order has no {words}", "leave it away")
        elif price <= 0 and order.order_class != "mleg":
            yield Violation("prices", f"{name} is {price}, which is not above zero", "give a price in USD")
        elif name != "trail":
            yield from off_tick(as_ticket(order, changes), name, price)


def _difference(order: Order, changes: Mapping[str, Any]) -> Iterator[Violation]:
    now = {
        "qty": order.qty,
        "limit_price": order.limit_price,
        "stop_price": order.stop_price,
        "trail": order.trail_price if order.trail_price is not None else order.trail_percent,
    }
    given = changes.keys() - {"client_order_id"}
    same = [
        changes[name] == order.time_in_force
        if name == "time_in_force"
        else now.get(name) is not None and Decimal(changes[name]) == now[name]
        for name in given
    ]
    if given and all(same):
        yield Violation("replace", "the order is like that already", "change something")


def as_ticket(order: Order, changes: Mapping[str, Any]) -> OrderTicket:
    """Return what is left of an order after a change, as an order of its own, for the rules.

    Of several legs they are all of it: such an order has neither symbol nor side.
    """

    def changed(name: str, old: Decimal | None) -> Decimal | None:
        return Decimal(changes[name]) if name in changes else old

    filled = order.filled_qty or Decimal(0)
    qty = changed("qty", order.qty)
    legs = () if order.order_class != "mleg" else tuple(map(_leg, order.legs or ()))
    return OrderTicket(
        symbol=order.symbol or None,
        side=order.side or None,
        order_class="mleg" if order.order_class == "mleg" else "simple",
        legs=legs,
        type=_kind(order),
        qty=None if qty is None else qty - filled,
        notional=order.notional,
        limit_price=changed("limit_price", order.limit_price),
        stop_price=changed("stop_price", order.stop_price),
    )


def _leg(order: Order) -> Leg:
    return Leg(order.symbol or "", order.ratio_qty or Decimal(1), order.position_intent or None, order.side or None)


def without_hold(position: Position, order: Order) -> Position:
    """Return a position as it is when an open order lets go of what it holds."""
    against = order.side == ("buy" if position.qty < 0 else "sell")
    if not against or held([position], order.symbol or "") is None or position.qty_available is None:
        return position
    free = min(abs(position.qty_available) + (order.remaining_qty or 0), abs(position.qty))
    return position.model_copy(update={"qty_available": free if position.qty > 0 else -free})


def _kind(order: Order) -> str:
    return order.type or order.order_type or "market"
