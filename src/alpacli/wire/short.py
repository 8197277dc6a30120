"""Lines back to what Alpaca sends: short names in JSON or msgpack, and the trading stream's envelopes.

The inverse of ``frames.decode``: numbers keep their digits in JSON and are binary floats in msgpack, as Alpaca's own are;
fields that nobody has heard of pass through. One message at a time, because each is written once for all who want it.
"""

from collections.abc import Mapping
from decimal import Decimal
from functools import cache
from typing import Any, Final, get_args

import msgspec
from msgspec import Raw
from msgspec.msgpack import Ext

from alpacli.domain.ticks import instant_ns
from alpacli.wire.frames import LEVEL_NAMES, WIRE_NAMES

_raw_fields: Final = msgspec.json.Decoder(dict[str, Raw])
_raw_levels: Final = msgspec.json.Decoder(list[dict[str, Raw]])
_raw_orders: Final = msgspec.json.Decoder(list[Raw])
_fields: Final = msgspec.json.Decoder(dict[str, Any])
_json: Final = msgspec.json.Encoder()
_msgpack: Final = msgspec.msgpack.Encoder()

_COMMON: Final = {"symbol": "S", "timestamp": "t"}
_SHORT: Final[Mapping[str, tuple[str, Mapping[str, str]]]] = {
    kind: (letter, {**({} if letter == "n" else _COMMON), **{long: short for short, long in names.items()}})
    for letter, (kind, names) in WIRE_NAMES.items()
}
_SHORT_LEVEL: Final = {long: short for short, long in LEVEL_NAMES.items()}
_SIDES: Final = ("bids", "asks")
_TIMES: Final = ("timestamp", "created_at", "updated_at")
_TIMESTAMP: Final = -1
"""msgpack's own extension type for times."""

_UPDATE_AMOUNTS: Final = ("price", "qty", "position_qty")


def short_json(kind: str, line: bytes) -> bytes:
    """Return a market data message, given as a line of this ``type``, as one JSON object of Alpaca's."""
    letter, names = _SHORT[kind]
    message: dict[str, object] = {"T": letter}
    for name, value in _raw_fields.decode(line).items():
        if name in _SIDES and kind == "orderbook":
            message[names[name]] = _raw_side(value)
        elif name != "type":
            message[names.get(name, name)] = value
    return _json.encode(message)


def short_msgpack(kind: str, line: bytes) -> bytes:
    """Return a market data message, given as a line of this ``type``, as one msgpack map of Alpaca's."""
    letter, names = _SHORT[kind]
    message: dict[str, object] = {"T": letter}
    for name, value in _fields.decode(line).items():
        if name in _TIMES and isinstance(value, str):
            message[names.get(name, name)] = _instant(value)
        elif name in _SIDES and kind == "orderbook" and isinstance(value, list):
            message[names[name]] = [_short_level(level) if isinstance(level, dict) else level for level in value]
        elif name != "type":
            message[names.get(name, name)] = value
    return _msgpack.encode(message)


def _raw_side(side: Raw) -> object:
    """Return the levels of one side of a book; what are none pass through."""
    try:
        return [_short_level(level) for level in _raw_levels.decode(side)]
    except msgspec.DecodeError:
        return side


def _short_level(level: Mapping[str, object]) -> dict[str, object]:
    return {_SHORT_LEVEL.get(name, name): value for name, value in level.items()}


def _instant(text: str) -> object:
    """Return a time in msgpack's shortest form for it; text that is no such time stays text."""
    try:
        seconds, nanoseconds = divmod(instant_ns(text), 1_000_000_000)
    except ValueError:
        return text
    if 0 <= seconds < 1 << 34:
        return Ext(_TIMESTAMP, (nanoseconds << 34 | seconds).to_bytes(8, "big"))
    return Ext(_TIMESTAMP, nanoseconds.to_bytes(4, "big") + seconds.to_bytes(8, "big", signed=True))


# ---------------------------------------------------------------------------------------------- trading stream


def envelope(line: bytes) -> bytes:
    """Return a trade update, given as a line, as the trading stream sends it: amounts are quoted again, in the order too."""
    data: dict[str, object] = {}
    for name, value in _raw_fields.decode(line).items():
        if name in _UPDATE_AMOUNTS:
            data[name] = _quoted(value)
        elif name == "order":
            data[name] = _order(value)
        elif name not in ("type", "symbol"):
            data[name] = value
    return _json.encode({"stream": "trade_updates", "data": data})


def _order(order: Raw) -> object:
    amounts = _order_amounts()
    try:
        fields: dict[str, object] = dict(_raw_fields.decode(order))
    except msgspec.DecodeError:
        return order
    for name, value in fields.items():
        if name in amounts and isinstance(value, Raw):
            fields[name] = _quoted(value)
        elif name == "legs" and isinstance(value, Raw) and bytes(value).startswith(b"["):
            fields[name] = [_order(leg) for leg in _raw_orders.decode(value)]
    return fields


def _quoted(value: Raw) -> Raw:
    """Return a JSON number as a JSON text with the same digits; anything else as it is."""
    text = bytes(value)
    return Raw(b'"' + text + b'"') if text[:1] in b"-0123456789" else value


@cache
def _order_amounts() -> frozenset[str]:
    """Return the fields of an order that Alpaca writes as quoted decimals."""
    from alpacli.domain.orders import Order

    return frozenset(name for name, field in Order.model_fields.items() if Decimal in get_args(field.annotation))
