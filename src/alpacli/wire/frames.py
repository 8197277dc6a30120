"""Stream frames to ticks and back: the market data sockets' JSON and msgpack, and the trading stream's envelopes.

Trades, quotes and bars with just the fields that are documented take a typed way through: one struct in, one struct out,
numbers copied as text. Whatever else is well-formed takes the loose way, through dictionaries, with unknown fields kept
under their own names; it costs twice as much. msgpack always takes the loose way.

Source: "Real-time Data" (market data) and "Websocket Streaming" (trading stream).
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import msgspec
from msgspec import UNSET, Raw, Struct

from alpacli.domain.ticks import Bar, DailyBar, Json, Quote, Text, Tick, Trade, UpdatedBar, instant_ns, instant_text

Encoding = Literal["json", "msgpack"]
Loose = dict[str, object]
Message = Tick | Loose
"""A tick ready to be written as a line: a struct, or a dictionary under the same names."""

WIRE_NAMES: Final[Mapping[str, tuple[str, Mapping[str, str]]]] = {
    "t": (
        "trade",
        {
            "p": "price",
            "s": "size",
            "x": "exchange",
            "i": "id",
            "c": "conditions",
            "z": "tape",
            "tks": "taker_side",
            "u": "update",  # of history: ``canceled``, ``corrected``, ``incorrect``
        },
    ),
    "q": (
        "quote",
        {
            "bp": "bid_price",
            "bs": "bid_size",
            "ap": "ask_price",
            "as": "ask_size",
            "bx": "bid_exchange",
            "ax": "ask_exchange",
            "c": "conditions",
            "z": "tape",
        },
    ),
    **{
        letter: (
            kind,
            {"o": "open", "h": "high", "l": "low", "c": "close", "v": "volume", "n": "trade_count", "vw": "vwap"},
        )
        for letter, kind in (("b", "bar"), ("u", "updated_bar"), ("d", "daily_bar"))
    },
    "s": (
        "status",
        {
            "sc": "status_code",
            "sm": "status_message",
            "rc": "reason_code",
            "rm": "reason_message",
            "z": "tape",
        },
    ),
    "l": ("luld", {"u": "limit_up_price", "d": "limit_down_price", "i": "indicator", "z": "tape"}),
    "c": (
        "correction",
        {
            "x": "exchange",
            "z": "tape",
            "oi": "original_id",
            "op": "original_price",
            "os": "original_size",
            "oc": "original_conditions",
            "ci": "corrected_id",
            "cp": "corrected_price",
            "cs": "corrected_size",
            "cc": "corrected_conditions",
        },
    ),
    "x": ("cancel", {"i": "id", "x": "exchange", "p": "price", "s": "size", "a": "action", "z": "tape"}),
    "i": ("imbalance", {"p": "price", "z": "tape"}),
    "o": ("orderbook", {"b": "bids", "a": "asks", "r": "reset"}),
    "n": ("news", {}),
}
LEVEL_NAMES: Final = {"p": "price", "s": "size"}
_INSTANT: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?(?:([Zz])|([+-])(\d\d):?(\d\d))", re.ASCII
)

_CODE: Final = re.compile(r"-?\d{1,9}", re.ASCII)
_NUMBER: Final = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)
"""What JSON calls a number; Decimal takes more, which no line may hold: ``1_000``, ``+1``, ``NaN``."""


class BadFrame(ValueError):
    """Bytes that are no frame of this protocol. The message tells how, without the content."""


class Success(NamedTuple):
    message: str


class Failure(NamedTuple):
    code: int
    message: str


class Missed(NamedTuple):
    """A gateway's error message (407) about a gap that it had itself: its bounds, in nanoseconds since 1970 UTC."""

    from_ns: int
    until_ns: int


class Subscription(NamedTuple):
    """The complete state after a change."""

    channels: Mapping[str, tuple[str, ...]]


class Authorization(NamedTuple):
    """The trading stream's answer to ``auth``, or to ``listen`` without it."""

    authorized: bool
    action: str


class Listening(NamedTuple):
    streams: tuple[str, ...]


Control = Success | Failure | Missed | Subscription | Authorization | Listening


class Frame(NamedTuple):
    """What one frame held. ``unknown`` counts well-formed messages of types that are not known here."""

    ticks: list[Message]
    controls: list[Control]
    unknown: int


# ------------------------------------------------------------------------------------------------ typed way


class _Trade(Struct, tag_field="T", tag="t", forbid_unknown_fields=True, gc=False):
    S: str
    t: str
    p: Raw
    s: Raw
    x: Text = UNSET
    i: Json = UNSET
    c: Json = UNSET
    z: Text = UNSET
    tks: Text = UNSET


class _Quote(Struct, tag_field="T", tag="q", forbid_unknown_fields=True, gc=False, rename={"ask_size": "as"}):
    S: str
    t: str
    bp: Raw
    bs: Raw
    ap: Raw
    ask_size: Raw
    bx: Text = UNSET
    ax: Text = UNSET
    c: Json = UNSET
    z: Text = UNSET


class _Bar(Struct, tag_field="T", tag="b", forbid_unknown_fields=True, gc=False):
    S: str
    t: str
    o: Raw
    h: Raw
    l: Raw  # noqa: E741 # Alpaca's name
    c: Raw
    v: Raw
    n: Json = UNSET
    vw: Json = UNSET


class _UpdatedBar(_Bar, tag_field="T", tag="u", forbid_unknown_fields=True, gc=False):
    pass


class _DailyBar(_Bar, tag_field="T", tag="d", forbid_unknown_fields=True, gc=False):
    pass


_typed: Final = msgspec.json.Decoder(list[_Trade | _Quote | _Bar | _UpdatedBar | _DailyBar])
_loose: Final = msgspec.json.Decoder(list[dict[str, Raw]])
_levels: Final = msgspec.json.Decoder(list[dict[str, Raw]])
_envelope: Final = msgspec.json.Decoder(dict[str, Raw])
_text: Final = msgspec.json.Decoder(str)
_lists: Final = msgspec.json.Decoder(list[str])
NOT_JSON: Final = (msgspec.DecodeError, UnicodeError, RecursionError)
_BREAKS: Final = str.maketrans("\r\n", "  ")
_BAR_TICKS: Final[Mapping[type, type[Bar]]] = {_Bar: Bar, _UpdatedBar: UpdatedBar, _DailyBar: DailyBar}


def decode(frame: str | bytes, encoding: Encoding = "json") -> Frame:
    """Read one frame of a market data socket.

    Raises:
        BadFrame: it is not an array of messages. Nothing of it is delivered.
    """
    if encoding == "json":
        text = _one_line(frame)
        try:
            return Frame(_decode_typed(text), [], 0)
        except msgspec.ValidationError:
            pass  # well-formed as far as it was read: something else than trades, quotes and bars as documented
        except NOT_JSON as error:
            raise BadFrame(f"not JSON ({len(frame)} bytes)") from error
        try:
            messages: Sequence[Mapping[str, object]] = _loose.decode(text)
        except NOT_JSON as error:
            raise BadFrame(f"not an array of JSON objects ({len(frame)} bytes)") from error
    else:
        messages = _unpack(frame)
    result = Frame([], [], 0)
    unknown = 0
    for message in messages:
        kind = plain_text(message.get("T"))
        if isinstance(kind, str) and kind in WIRE_NAMES:
            tick = _loose_tick(kind, message)
            if tick is None:
                unknown += 1
            else:
                result.ticks.append(tick)
        elif (control := _control(kind, message)) is not None:
            result.controls.append(control)
        else:
            unknown += 1
    return result._replace(unknown=unknown)


def _one_line(frame: str | bytes) -> str:
    """Return the frame as text without line breaks: values are copied as they are, and a tick has to stay one line.

    Raises:
        BadFrame: it is not UTF-8.
    """
    try:
        text = frame if isinstance(frame, str) else frame.decode()
    except UnicodeDecodeError as error:
        raise BadFrame(f"not UTF-8 ({len(frame)} bytes)") from error
    return text.translate(_BREAKS) if "\n" in text or "\r" in text else text


def _decode_typed(frame: str) -> list[Message]:
    ticks: list[Message] = []
    add = ticks.append
    for m in _typed.decode(frame):
        t = m.t
        if len(t) != 30 or t[29] != "Z" or t[10] != "T":
            t = nine_digits(t)
        if m.__class__ is _Quote:
            add(Quote(m.S, t, m.bp, m.bs, m.ap, m.ask_size, m.bx, m.ax, m.c, m.z))
        elif m.__class__ is _Trade:
            add(Trade(m.S, t, m.p, m.s, m.x, m.i, m.c, m.z, m.tks))
        else:
            add(_bar_tick(m, t))
    return ticks


def _bar_tick(bar: Any, timestamp: str) -> Bar:
    made = _BAR_TICKS[type(bar)]
    return made(bar.S, timestamp, bar.o, bar.h, bar.l, bar.c, bar.v, bar.n, bar.vw)


# ------------------------------------------------------------------------------------------------ loose way


def _loose_tick(kind: str, message: Mapping[str, object]) -> Loose | None:
    name, names = WIRE_NAMES[kind]
    tick: Loose = {"type": name}
    if kind != "n":
        symbol = plain_text(message.get("S"))
        if not isinstance(symbol, str):
            return None
        tick["symbol"] = symbol
        if "t" in message:
            tick["timestamp"] = _timestamp(message["t"])
    for wire_name, value in message.items():
        if wire_name in ("T", "S", "t") and kind != "n":
            continue
        if wire_name == "T":
            continue
        if kind == "o" and wire_name in ("a", "b"):
            tick[names[wire_name]] = _book_side(value)
        elif kind == "n" and wire_name in ("created_at", "updated_at"):
            tick[wire_name] = _timestamp(value)
        else:
            tick[names.get(wire_name, wire_name)] = value
    return tick


def tick_from_element(kind: str, symbol: str, element: Mapping[str, object]) -> Loose:
    """Return the tick that an element of a REST answer is: the same fields, without type and symbol."""
    tick = _loose_tick(kind, {"T": kind, "S": symbol, **element})
    if tick is None:
        raise AssertionError("it has a symbol")
    return tick


def _book_side(value: object) -> object:
    levels = value
    if isinstance(value, Raw):
        try:
            levels = _levels.decode(value)
        except msgspec.DecodeError:
            return value
    if not isinstance(levels, list) or not all(isinstance(level, dict) for level in levels):
        return value
    return [{LEVEL_NAMES.get(name, name): number for name, number in level.items()} for level in levels]


def _timestamp(value: object) -> object:
    plain = plain_text(value)
    return nine_digits(plain) if isinstance(plain, str) else value


def plain_text(value: object) -> object:
    """Return a string for what is one, in either encoding; numbers stay as they are."""
    if isinstance(value, Raw):
        try:
            return _text.decode(value)
        except msgspec.DecodeError:
            return value
    return value


def _number(value: object) -> int:
    plain = bytes(value).decode() if isinstance(value, Raw) else str(value)
    return int(plain) if _CODE.fullmatch(plain) else 0


def _control(kind: object, message: Mapping[str, object]) -> Control | None:
    if kind == "success":
        return Success(str(plain_text(message.get("msg"))))
    if kind == "error":
        return _missed(message) or Failure(_number(message.get("code")), str(plain_text(message.get("msg"))))
    if kind == "subscription":
        return Subscription({name: _names(value) for name, value in message.items() if name != "T"})
    return None


def _missed(message: Mapping[str, object]) -> Missed | None:
    try:
        return Missed(*(instant_ns(str(plain_text(message[name]))) for name in ("from", "until")))
    except (KeyError, ValueError):  # Alpaca's own errors have no times
        return None


def _names(value: object) -> tuple[str, ...]:
    if isinstance(value, Raw):
        try:
            return tuple(_lists.decode(value))
        except msgspec.DecodeError:
            return ()
    return tuple(str(name) for name in value) if isinstance(value, list | tuple) else ()


def _unpack(frame: str | bytes) -> Sequence[Mapping[str, object]]:
    """Read msgpack with the library that keeps the nanoseconds of its timestamps."""
    import msgpack

    try:
        messages = msgpack.unpackb(frame, timestamp=0, strict_map_key=False, raw=False)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise BadFrame(f"not msgpack ({len(frame)} bytes)") from error
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise BadFrame("not an array of msgpack maps")
    try:
        return [{str(name): _unpacked(value) for name, value in message.items()} for message in messages]
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise BadFrame("msgpack that no line can hold") from error


def _unpacked(value: object) -> object:
    """Return a value that JSON can say."""
    import msgpack

    if isinstance(value, msgpack.Timestamp):
        return instant_text(value.to_unix_nano())
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, msgpack.ExtType):
        return value.data.hex()
    if isinstance(value, list):
        return [_unpacked(item) for item in value]
    if isinstance(value, dict):
        return {str(name): _unpacked(item) for name, item in value.items()}
    return value


def nine_digits(text: str) -> str:
    """Return an RFC 3339 time in UTC with nine digits; text that is no such time comes back as it is."""
    match = _INSTANT.fullmatch(text)
    if match is None:
        return text
    day, clock, fraction, zulu, sign, hours, minutes = match.groups()
    digits = (fraction or "").ljust(9, "0")
    if not zulu:
        import datetime as dt

        try:
            offset = dt.timedelta(hours=int(hours), minutes=int(minutes))
            local = dt.datetime.fromisoformat(f"{day}T{clock}")
            moment = (local - offset if sign == "+" else local + offset).isoformat()
        except (ValueError, OverflowError):
            return text
        return f"{moment}.{digits}Z"
    return f"{day}T{clock}.{digits}Z"


# ------------------------------------------------------------------------------------------ trading stream


def decode_update(frame: str | bytes) -> Frame:
    """Read one frame of the trading stream, text or binary; ``data: null`` is noise.

    Raises:
        BadFrame: it is not a JSON object.
    """
    try:
        envelope = _envelope.decode(_one_line(frame))
    except NOT_JSON as error:
        raise BadFrame(f"not a JSON object ({len(frame)} bytes)") from error
    stream = plain_text(envelope.get("stream"))
    try:
        data = _envelope.decode(envelope["data"]) if "data" in envelope else None
    except msgspec.DecodeError:
        data = None
    if data is None:
        return Frame([], [], 1)
    if stream == "authorization":
        return Frame(
            [], [Authorization(plain_text(data.get("status")) == "authorized", str(plain_text(data.get("action"))))], 0
        )
    if stream == "listening":
        return Frame([], [Listening(_names(data.get("streams")))], 0)
    if stream == "trade_updates":
        return Frame([_trade_update(data)], [], 0)
    if plain_text(envelope.get("action")) == "error":
        return Frame([], [Failure(_number(data.get("code")), str(plain_text(data.get("error_message"))))], 0)
    return Frame([], [], 1)


def _trade_update(data: Mapping[str, Raw]) -> Loose:
    """Quoted decimals become JSON numbers with the same digits, in the order too, as everywhere in alpacli's output."""
    update: Loose = {"type": "trade_update", "event": plain_text(data.get("event", Raw(b'""'))), "symbol": ""}
    if "timestamp" in data:
        update["timestamp"] = _timestamp(data["timestamp"])
    for name, value in data.items():
        if name in ("price", "qty", "position_qty"):
            plain = plain_text(value)
            update[name] = Raw(plain.encode()) if isinstance(plain, str) and _NUMBER.fullmatch(plain) else value
        elif name == "order":
            update["order"] = _order(value)
            update["symbol"] = _symbol(value)
        elif name not in ("event", "timestamp"):
            update[name] = value
    return update


def _order(order: Raw) -> Raw:
    from pydantic import ValidationError

    from alpacli.domain.orders import Order
    from alpacli.domain.values import from_json, to_json

    try:
        return Raw(to_json(Order.model_validate(from_json(bytes(order)))))
    except (ValidationError, ValueError, RecursionError):
        return order  # what Alpaca sent is passed on, whatever it is


def _symbol(order: Raw) -> str:
    """Return the symbol; an order with several legs has none of its own."""
    try:
        symbol = plain_text(_envelope.decode(order).get("symbol"))
    except msgspec.DecodeError:
        return ""
    return symbol if isinstance(symbol, str) else ""
