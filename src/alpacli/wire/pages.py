"""Long lists page by page, for whoever keeps every row: only what a row is found by is read, the rest stays as it was sent.

Full models of 500 orders cost ten times what the page's own JSON does, and nobody looks at them while they are brought in.
Orders continue behind an id (wire reference 4.6), activities behind a page token, which is the last row's id (4.9).
"""

import datetime as dt
from decimal import Decimal
from typing import Any, Final, NamedTuple

import msgspec

from alpacli.domain.values import Timestamp
from alpacli.errors import UnreadableAnswer
from alpacli.ports import Request
from alpacli.wire.rest import ACTIVITIES_PER_PAGE, ORDERS_PER_PAGE, Call, path_part

_NULL: Final = msgspec.Raw(b"null")


class OrderHead(msgspec.Struct, gc=False):
    """What an order is found by; ``wire`` is the whole of it."""

    id: str
    status: str
    created_at: str
    submitted_at: str | None = None
    symbol: str | None = None
    side: str | None = None
    filled_qty: msgspec.Raw = _NULL
    wire: bytes = b""

    @property
    def submitted_ns(self) -> int:
        """Return nanoseconds since 1970 UTC: what the broker sorts orders by."""
        return _ns(self.submitted_at or self.created_at, "orders")

    @property
    def filled(self) -> str:
        """Return the filled quantity, as digits."""
        return _digits(self.filled_qty) or "0"


class ActivityHead(msgspec.Struct, gc=False):
    """What an activity is found by; ``wire`` is the whole of it. Fills have a time, the others a date."""

    id: str
    activity_type: str
    type: str | None = None
    transaction_time: str | None = None
    date: str | None = None
    created_at: str | None = None
    symbol: str | None = None
    side: str | None = None
    status: str | None = None
    order_id: str | None = None
    qty: msgspec.Raw = _NULL
    wire: bytes = b""

    @property
    def at_ns(self) -> int | None:
        """Return when a fill happened, nanoseconds since 1970 UTC; ``None`` for what is booked by date."""
        return None if not self.transaction_time else _ns(self.transaction_time, "activities")

    @property
    def created_ns(self) -> int | None:
        """Return when it was booked; ``None`` for fills."""
        return None if not self.created_at else _ns(self.created_at, "activities")

    @property
    def amount(self) -> str | None:
        """Return the quantity, as digits."""
        return _digits(self.qty)


class Booking(msgspec.Struct, gc=False):
    """What an activity did to an account; amounts are exact. Source: GET /v2/account/activities (wire reference 4.9).

    ``qty`` of a fill is unsigned, of anything else signed; ``net_amount`` is cash, from the account's point of view.
    """

    id: str
    activity_type: str
    activity_sub_type: str | None = None
    symbol: str | None = None
    side: str | None = None
    qty: Decimal | None = None
    price: Decimal | None = None
    net_amount: Decimal | None = None
    order_id: str | None = None
    status: str | None = None
    group_id: str | None = None


class _Reader(NamedTuple):
    rows: Any = msgspec.json.Decoder(list[msgspec.Raw])
    order: Any = msgspec.json.Decoder(OrderHead)
    activity: Any = msgspec.json.Decoder(ActivityHead)
    booking: Any = msgspec.json.Decoder(Booking)


_READ: Final = _Reader()


def orders_after(order_id: str | None, *, since: dt.datetime | None = None) -> Call[list[OrderHead]]:
    """Ask for the next 500 orders of any status, oldest first, behind an order; else those submitted after a time, or all."""
    query = [("status", "all"), ("direction", "asc"), ("limit", str(ORDERS_PER_PAGE))]
    if order_id is not None:
        query.append(("after_order_id", order_id))
    elif since is not None:
        query.append(("after", _text(since)))
    return Call("orders", Request("GET", "/v2/orders", tuple(query)), _orders)


def open_orders(until: dt.datetime | None = None) -> Call[list[OrderHead]]:
    """Ask for the newest 500 orders that are still open, submitted before a time."""
    query = [("status", "open"), ("direction", "desc"), ("limit", str(ORDERS_PER_PAGE))]
    if until is not None:
        query.append(("until", _text(until)))
    return Call("orders", Request("GET", "/v2/orders", tuple(query)), _orders)


def one_order(order_id: str) -> Call[list[OrderHead]]:
    """Ask for a single order, as a list of one."""
    request = Request("GET", f"/v2/orders/{path_part('order id', order_id)}")
    return Call("orders", request, lambda body: _orders(b"[" + body + b"]"))


def activities_after(
    token: str | None, *, category: str, since: str | None, order_id: str | None = None
) -> Call[list[ActivityHead]]:
    """Ask for the next 100 activities, oldest first, behind an id; ``since`` is a date or an RFC 3339 time, exclusive.

    ``category`` is ``trade_activity`` or ``non_trade_activity``.
    """
    query = [("category", category), ("direction", "asc"), ("page_size", str(ACTIVITIES_PER_PAGE))]
    query += [("after", since)] if since is not None else []
    query += [("order_id", order_id)] if order_id is not None else []
    query += [("page_token", token)] if token is not None else []
    return Call("activities", Request("GET", "/v2/account/activities", tuple(query)), _activities)


def booking(wire: bytes) -> Booking:
    """Read an activity as it was kept.

    Raises:
        UnreadableAnswer: a field is not what it should be.
    """
    try:
        found: Booking = _READ.booking.decode(wire)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UnreadableAnswer(f"an activity does not fit: {error}", "this may be a defect: please report it") from None
    return found


def _orders(body: bytes) -> list[OrderHead]:
    return _heads(body, _READ.order, "orders")


def _activities(body: bytes) -> list[ActivityHead]:
    return _heads(body, _READ.activity, "activities")


def _heads(body: bytes, decoder: Any, what: str) -> list[Any]:
    try:
        rows = [bytes(row) for row in _READ.rows.decode(body)]
        heads = [decoder.decode(row) for row in rows]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UnreadableAnswer(f"the answer for {what} does not fit: {error}", "try again later") from None
    for head, row in zip(heads, rows, strict=True):
        head.wire = row
    return heads


def _digits(raw: msgspec.Raw) -> str | None:
    text = bytes(raw).decode().strip('"')
    return None if text in ("null", "") else text


def _ns(text: str, what: str) -> int:
    """Return nanoseconds since 1970 UTC; what Alpaca usually writes goes a way that costs a sixth of the general one."""
    fraction = text[20:-1]
    try:
        if text[-1:] == "Z" and (len(text) == 20 or (text[19] == "." and fraction.isdecimal() and len(fraction) <= 9)):
            seconds = int(dt.datetime.fromisoformat(text[:19] + "+00:00").timestamp())
            return seconds * 1_000_000_000 + int(fraction.ljust(9, "0"))
        return Timestamp.parse(text).epoch_ns
    except ValueError as error:
        raise UnreadableAnswer(f"the answer for {what} does not fit: {error}", "try again later") from None


def _text(moment: dt.datetime) -> str:
    return (
        moment.wire if isinstance(moment, Timestamp) else moment.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")
    )
