"""When an order last filled, as an answer or a trade update tells it: read from the bytes, for that alone."""

from collections.abc import Sequence
from typing import Final

import msgspec

from alpacli.domain.values import Timestamp


class _Order(msgspec.Struct):
    updated_at: str | None = None
    filled_qty: msgspec.Raw = msgspec.Raw(b"0")
    legs: "list[_Order] | None" = None


class _Update(msgspec.Struct):
    order: _Order | None = None


_one: Final = msgspec.json.Decoder(_Order)
_many: Final = msgspec.json.Decoder(list[_Order])
_update: Final = msgspec.json.Decoder(_Update)


def in_orders(body: bytes) -> int:
    """Return when the latest order that has filled, wholly or in part, last changed; nanoseconds since 1970 UTC, 0: none.

    ``body`` is an order or a list of them; of what is neither nothing is known here.
    """
    try:
        return _latest(_many.decode(body) if body.lstrip()[:1] == b"[" else [_one.decode(body)])
    except msgspec.DecodeError:
        return 0  # whoever asked for it says what is wrong with it


def in_updates(lines: bytes) -> int:
    """Return the same of trade updates, one a line as the trading stream's are written."""
    orders = []
    for line in lines.splitlines():
        try:
            update = _update.decode(line)
        except msgspec.DecodeError:
            continue  # as above
        if update.order is not None:
            orders.append(update.order)
    return _latest(orders)


def _latest(orders: Sequence[_Order]) -> int:
    latest = 0
    for order in orders:
        if order.updated_at is not None and any(digit in b"123456789" for digit in bytes(order.filled_qty)):
            latest = max(latest, _instant_ns(order.updated_at))
        latest = max(latest, _latest(order.legs or ()))
    return latest


def _instant_ns(text: str) -> int:
    try:
        return Timestamp.parse(text).epoch_ns
    except ValueError:
        return 0
