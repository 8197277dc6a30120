"""The endpoints that trade, as declarations: place, replace, cancel.

Closing has none: a position is closed with an order that carries a client order ID, so that a repetition cannot close twice.
"""

from collections.abc import Mapping
from typing import Any

from alpacli.domain.orders import Order
from alpacli.domain.replacing import check_changes
from alpacli.domain.values import Model, from_json, to_json
from alpacli.ports import Request
from alpacli.wire.rest import ORDERS_CHANGE, Call, path_part, reads_many, reads_nothing, reads_order


class Cancellation(Model):
    """What became of one of several cancellations: HTTP ``status`` 200 or 204, or ``body`` says why not.

    Source: DELETE /v2/orders, 207.
    """

    id: str
    status: int
    body: dict[str, Any] | None = None


def submit_order(body: Mapping[str, Any]) -> Call[Order]:
    request = Request("POST", "/v2/orders", body=to_json(dict(body)))
    return Call("orders", request, reads_order, urgent=True, changes=ORDERS_CHANGE)


def with_intent(call: Call[Order], intent: str | None) -> Call[Order]:
    """Return a ``submit_order`` that says what it is meant to do to a position, if it does not say so already."""
    body = from_json(call.request.body or b"")
    if intent is None or body.get("position_intent"):
        return call
    return submit_order({**body, "position_intent": intent})


def replace_order(order_id: str, changes: Mapping[str, Any]) -> Call[Order]:
    """Change quantity, prices, trail or time in force of an open order: the answer is a new one that ``replaces`` it."""
    check_changes(changes)
    request = Request("PATCH", f"/v2/orders/{path_part('order ID', order_id)}", body=to_json(dict(changes)))
    return Call("orders", request, reads_order, urgent=True, changes=ORDERS_CHANGE)


def cancel_order(order_id: str) -> Call[None]:
    """Ask for a cancellation. A canceled order stays to be seen, so one that is not there at all never was (``shows``)."""
    path = f"/v2/orders/{path_part('order ID', order_id)}"
    return Call(
        "orders", Request("DELETE", path), reads_nothing, urgent=True, changes=ORDERS_CHANGE, shows=Request("GET", path)
    )


def cancel_all_orders() -> Call[list[Cancellation]]:
    request = Request("DELETE", "/v2/orders")
    return Call("orders", request, reads_many(Cancellation, "cancellations"), urgent=True, changes=ORDERS_CHANGE)
