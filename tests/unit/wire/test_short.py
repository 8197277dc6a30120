"""Lines back to Alpaca's own messages: what was decoded is said again as it came."""

import json
from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpacli.domain.ticks import instant_ns
from alpacli.wire.commands import encode_messages
from alpacli.wire.frames import decode, decode_update
from alpacli.wire.lines import decode_lines, encode_lines, subject
from alpacli.wire.short import envelope, short_json, short_msgpack

AT_NS = 1_767_366_000_123_456_789
STAMP = "2026-01-02T15:00:00.123456789Z"
MESSAGES: list[dict[str, Any]] = [
    {"T": "t", "S": "AAPL", "i": 96921, "x": "D", "p": 126.55, "s": 1, "c": ["@", "I"], "t": AT_NS, "z": "C"},
    {"T": "t", "S": "BTC/USD", "p": 64000.1, "s": 0.00000001, "t": AT_NS, "i": 5, "tks": "B"},
    {
        "T": "q",
        "S": "FAKEPACA",
        "bx": "O",
        "bp": 133.85,
        "bs": 4,
        "ax": "R",
        "ap": 135.77,
        "as": 5,
        "c": ["R"],
        "t": AT_NS,
    },
    {"T": "b", "S": "AAPL", "o": 1.5, "h": 2.5, "l": 1.25, "c": 2, "v": 100, "n": 3, "vw": 1.75, "t": AT_NS},
    {"T": "u", "S": "AAPL", "o": 1.5, "h": 2.5, "l": 1.25, "c": 2, "v": 100, "n": 3, "vw": 1.75, "t": AT_NS},
    {"T": "d", "S": "AAPL", "o": 1.5, "h": 2.5, "l": 1.25, "c": 2, "v": 100, "t": AT_NS},
    {"T": "s", "S": "AAPL", "sc": "H", "sm": "Halt", "rc": "T12", "rm": "why", "t": AT_NS, "z": "C"},
    {"T": "l", "S": "AAPL", "u": 5.5, "d": 4.5, "i": "B", "t": AT_NS, "z": "C"},
    {
        "T": "c",
        "S": "A",
        "x": "D",
        "oi": 1,
        "op": 1.5,
        "os": 2,
        "oc": ["@"],
        "ci": 3,
        "cp": 1.25,
        "cs": 2,
        "cc": [],
        "t": AT_NS,
    },
    {"T": "x", "S": "AAPL", "i": 1, "x": "D", "p": 1.5, "s": 2, "a": "C", "t": AT_NS, "z": "C"},
    {"T": "i", "S": "AAPL", "p": 1.5, "z": "C", "t": AT_NS},
    {"T": "o", "S": "BTC/USD", "t": AT_NS, "b": [{"p": 64000.1, "s": 0.5}], "a": [], "r": True},
    {
        "T": "n",
        "id": 5,
        "headline": "x",
        "created_at": AT_NS,
        "updated_at": AT_NS,
        "symbols": ["AAPL"],
        "content": None,
    },
    {"T": "q", "S": "AAPL", "bp": 1.5, "bs": 1, "ap": 2.5, "as": 2, "t": AT_NS, "novelty": {"deep": [1, "x"]}},
]


def lines_of(message: dict[str, Any]) -> list[tuple[str, bytes]]:
    """Return kind and line of what a server's frame with this message becomes."""
    ticks = decode(encode_messages([message])).ticks
    return [(subject(tick)[0], encode_lines([tick]).rstrip(b"\n")) for tick in ticks]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message["T"])
def test_a_message_is_said_again_as_it_came(message: dict[str, Any]) -> None:
    ((kind, line),) = lines_of(message)
    expected = {name: STAMP if value == AT_NS else value for name, value in message.items()}
    assert json.loads(short_json(kind, line)) == expected
    unpacked = msgpack.unpackb(short_msgpack(kind, line), timestamp=0)
    assert {
        name: v.to_unix_nano() if isinstance(v, msgpack.Timestamp) else v for name, v in unpacked.items()
    } == message
    assert next(iter(unpacked)) == next(iter(json.loads(short_json(kind, line)))) == "T"


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message["T"])
def test_a_line_is_read_back_with_everything_in_it(message: dict[str, Any]) -> None:
    lines = b"".join(line + b"\n" for _, line in lines_of(message) * 2)
    assert encode_lines(decode_lines(lines)) == lines
    assert {subject(tick) for tick in decode_lines(lines)} == {(lines_of(message)[0][0], message.get("S", "*"))}


@given(st.decimals(allow_nan=False, allow_infinity=False, places=9), st.integers(0, 10**12))
def test_every_digit_survives(price: Any, size: int) -> None:
    text = f'[{{"T":"t","S":"A","t":"{STAMP}","p":{price:f},"s":{size}}}]'
    (tick,) = decode(text).ticks
    assert f'"p":{price:f},"s":{size}'.encode() in short_json("trade", encode_lines([tick]).rstrip())


@pytest.mark.parametrize("book", ['"b":null', '"b":[1]', '"b":"x"'])
def test_a_book_that_is_none_passes_through(book: str) -> None:
    (tick,) = decode(f'[{{"T":"o","S":"A","t":"{STAMP}",{book}}}]').ticks
    line = encode_lines([tick]).rstrip()
    assert book.encode() in short_json("orderbook", line)
    assert msgspec.msgpack.decode(short_msgpack("orderbook", line))["T"] == "o"


@pytest.mark.parametrize(
    "stamp",
    [
        "1969-12-31T23:59:59.500000000Z",
        "2514-05-30T01:53:03.999999999Z",
        "2514-05-30T01:53:04.000000000Z",
        "2600-01-01T00:00:00.000000001Z",
    ],
)
def test_a_time_of_any_century_is_said_in_msgpack_to_the_nanosecond(stamp: str) -> None:
    line = f'{{"type":"trade","symbol":"A","timestamp":"{stamp}"}}'.encode()
    told = msgpack.unpackb(short_msgpack("trade", line), timestamp=0)["t"]
    assert told.to_unix_nano() == instant_ns(stamp)


def test_a_text_that_is_no_time_stays_a_text_in_msgpack() -> None:
    line = b'{"type":"trade","symbol":"A","timestamp":"soon"}'
    assert msgpack.unpackb(short_msgpack("trade", line))["t"] == "soon"


@pytest.mark.parametrize("order", ["null", "7", '"x"', "[]", '{"legs":null}', '{"legs":[null]}', '{"legs":"x"}'])
def test_an_order_that_is_none_passes_through(order: str) -> None:
    line = f'{{"type":"trade_update","event":"new","order":{order}}}'.encode()
    assert json.loads(envelope(line))["data"] == {"event": "new", "order": json.loads(order)}


def test_an_order_update_is_quoted_again_as_alpaca_does() -> None:
    order = {"id": "x", "symbol": "AAPL", "qty": "10", "limit_price": "150.50", "hwm": None, "legs": [{"qty": "1.0"}]}
    data = {"event": "fill", "price": "149.98", "qty": "10", "position_qty": "-10", "timestamp": STAMP, "order": order}
    frame = json.dumps({"stream": "trade_updates", "data": data})
    (tick,) = decode_update(frame).ticks
    line = encode_lines([tick]).rstrip()
    assert json.loads(envelope(line)) == json.loads(frame)
    numbers = line.replace(b'"150.50"', b"150.50").replace(b'"10"', b"10").replace(b'"1.0"', b"1.0")
    assert json.loads(envelope(numbers)) == json.loads(frame)


@pytest.mark.parametrize("message", [*MESSAGES, {"T": "t", "S": "AAPL"}], ids=lambda message: message["T"])
def test_a_field_that_is_not_known_here_is_passed_on(message: dict[str, Any]) -> None:
    line = b"".join(line[:-1] + b',"new":[1.10]}\n' for _, line in lines_of(message))
    assert encode_lines(decode_lines(line)) == line
