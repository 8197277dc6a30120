"""Stream frames to ticks and lines, and back."""

import contextlib
import json
from decimal import Decimal

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpacli.domain.ticks import AnyTick, Interest, Quote, Trade, instant_ns, instant_text
from alpacli.streams.batch import Batch
from alpacli.wire import commands, frames
from alpacli.wire.frames import BadFrame, Failure, Subscription, Success, decode
from alpacli.wire.lines import encode_lines, subject

TRADE = '{"T":"t","S":"AAPL","i":96921,"x":"D","p":126.550,"s":1,"c":["@","I"],"t":"2021-02-22T15:51:44.208Z","z":"C"}'
QUOTE = (
    '{"T":"q","S":"FAKEPACA","bx":"O","bp":133.85,"bs":4,"ax":"R","ap":135.77,"as":5,"c":["R"],'
    '"t":"2024-07-24T07:56:53.639713735Z","z":"A"}'
)


def lines(frame: str | bytes, encoding: frames.Encoding = "json") -> list[str]:
    return encode_lines(decode(frame, encoding).ticks).decode().splitlines()


def test_a_trade_and_a_quote_become_lines_with_full_names_every_digit_and_nine_digits_of_time() -> None:
    assert lines(f"[{TRADE},{QUOTE}]") == [
        '{"type":"trade","symbol":"AAPL","timestamp":"2021-02-22T15:51:44.208000000Z","price":126.550,"size":1,'
        '"exchange":"D","id":96921,"conditions":["@","I"],"tape":"C"}',
        '{"type":"quote","symbol":"FAKEPACA","timestamp":"2024-07-24T07:56:53.639713735Z","bid_price":133.85,"bid_size":4,'
        '"ask_price":135.77,"ask_size":5,"bid_exchange":"O","ask_exchange":"R","conditions":["R"],"tape":"A"}',
    ]


def test_a_crypto_trade_has_only_what_the_feed_sent() -> None:
    (line,) = lines(
        '[{"T":"t","S":"BTC/USD","p":64000.123456789012345678,"s":0.000000001,"t":"2026-06-24T14:00:00Z","tks":"B"}]'
    )
    assert line == (
        '{"type":"trade","symbol":"BTC/USD","timestamp":"2026-06-24T14:00:00.000000000Z",'
        '"price":64000.123456789012345678,"size":0.000000001,"taker_side":"B"}'
    )


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            {
                "T": "b",
                "S": "A",
                "o": 1,
                "h": 2,
                "l": 3,
                "c": 4,
                "v": 5,
                "n": 6,
                "vw": 7.5,
                "t": "2026-01-02T15:00:00Z",
            },
            {"type": "bar", "open": 1, "high": 2, "low": 3, "close": 4, "volume": 5, "trade_count": 6, "vwap": 7.5},
        ),
        (
            {"T": "u", "S": "A", "o": 1, "h": 2, "l": 3, "c": 4, "v": 5, "t": "2026-01-02T15:00:00Z"},
            {"type": "updated_bar"},
        ),
        (
            {"T": "d", "S": "A", "o": 1, "h": 2, "l": 3, "c": 4, "v": 5, "t": "2026-01-02T15:00:00Z"},
            {"type": "daily_bar"},
        ),
        (
            {
                "T": "s",
                "S": "A",
                "sc": "H",
                "sm": "Halt",
                "rc": "T12",
                "rm": "news",
                "t": "2026-01-02T15:00:00Z",
                "z": "C",
            },
            {
                "type": "status",
                "status_code": "H",
                "status_message": "Halt",
                "reason_code": "T12",
                "reason_message": "news",
            },
        ),
        (
            {"T": "l", "S": "A", "u": 2.5, "d": 1.5, "i": "B", "t": "2026-01-02T15:00:00Z", "z": "C"},
            {"type": "luld", "limit_up_price": 2.5, "limit_down_price": 1.5, "indicator": "B"},
        ),
        (
            {
                "T": "c",
                "S": "A",
                "x": "D",
                "oi": 1,
                "op": 2.5,
                "os": 3,
                "oc": ["@"],
                "ci": 4,
                "cp": 5.5,
                "cs": 6,
                "cc": ["@"],
                "t": "2026-01-02T15:00:00Z",
                "z": "C",
            },
            {"type": "correction", "original_id": 1, "original_price": 2.5, "corrected_id": 4, "corrected_size": 6},
        ),
        (
            {"T": "x", "S": "A", "i": 1, "x": "D", "p": 2.5, "s": 3, "a": "C", "t": "2026-01-02T15:00:00Z", "z": "C"},
            {"type": "cancel", "id": 1, "price": 2.5, "size": 3, "action": "C", "exchange": "D", "tape": "C"},
        ),
        ({"T": "i", "S": "A", "p": 2.5, "t": "2026-01-02T15:00:00Z", "z": "C"}, {"type": "imbalance", "price": 2.5}),
        (
            {
                "T": "o",
                "S": "BTC/USD",
                "t": "2026-01-02T15:00:00Z",
                "r": True,
                "b": [{"p": 1.5, "s": 2}],
                "a": [{"p": 2.5, "s": 0}],
            },
            {
                "type": "orderbook",
                "reset": True,
                "bids": [{"price": 1.5, "size": 2}],
                "asks": [{"price": 2.5, "size": 0}],
            },
        ),
        (
            {
                "T": "n",
                "id": 7,
                "headline": "Up",
                "symbols": ["A", "B"],
                "created_at": "2026-01-02T15:00:00Z",
                "author": None,
            },
            {
                "type": "news",
                "id": 7,
                "headline": "Up",
                "symbols": ["A", "B"],
                "created_at": "2026-01-02T15:00:00.000000000Z",
            },
        ),
    ],
)
@pytest.mark.parametrize("encoding", ["json", "msgpack"])
def test_every_kind_of_message_has_full_names_in_both_encodings(
    message: dict[str, object], expected: dict[str, object], encoding: frames.Encoding
) -> None:
    frame = json.dumps([message]) if encoding == "json" else msgpack.packb([message])
    (line,) = lines(frame, encoding)
    written = json.loads(line)
    assert expected.items() <= written.items()
    assert all(len(name) > 1 for name in written)
    assert msgspec.json.decode(line, type=AnyTick).type == expected["type"]


def test_a_field_that_is_not_known_is_kept() -> None:
    (line,) = lines(f'[{TRADE[:-1]},"late":1.10}}]')
    assert line.endswith('"tape":"C","late":1.10}')


def test_a_message_of_an_unknown_type_is_counted_and_the_others_are_delivered() -> None:
    frame = decode(f'[{TRADE},{{"T":"zz","S":"A"}},{{"S":"A"}},{QUOTE}]')
    assert [subject(tick) for tick in frame.ticks] == [("trade", "AAPL"), ("quote", "FAKEPACA")]
    assert frame.unknown == 2


@pytest.mark.parametrize(
    "frame", ["", "[", "nonsense", "{}", "3", "[3]", '[{"T":"t"', b"\xff\xfe", f"[{TRADE},", f"[{TRADE}]]", "[" * 5000]
)
def test_what_is_no_frame_is_refused_whole(frame: str | bytes) -> None:
    with pytest.raises(BadFrame):
        decode(frame)


@pytest.mark.parametrize(
    "frame", [b"", b"\xc1", b"\x93\x01", b"\x81\xa1T\xa1t", msgpack.packb({"T": "t"}), msgpack.packb([1])]
)
def test_what_is_no_msgpack_frame_is_refused(frame: bytes) -> None:
    with pytest.raises(BadFrame):
        decode(frame, "msgpack")


_DEEP = "[" * 1_000_000 + "]" * 1_000_000  # more than any Python has room for


def _nested(depth: int) -> bytes:
    """Return a msgpack trade with a value of so many arrays, one in the other."""
    return b"\x91\x83\xa1T\xa1t\xa1S\xa1A\xa2zz" + b"\x91" * depth + b"\xc0"


@pytest.mark.parametrize("frame", [f'[{{"T":"t","S":"A","zz":{_DEEP}}}]', f'[{{"T":"zz","zz":{_DEEP}}}]', _DEEP])
def test_what_is_nested_without_end_is_refused(frame: str) -> None:
    with pytest.raises(BadFrame):
        decode(frame)
    with pytest.raises(BadFrame):
        frames.decode_update(f'{{"stream":"trade_updates","data":{{"event":"fill","order":{frame}}}}}')


@pytest.mark.parametrize("depth", [500, 900, 1020, 100_000])
def test_msgpack_that_is_nested_deeply_is_refused_or_written(depth: int) -> None:
    with contextlib.suppress(BadFrame):
        decode(_nested(depth), "msgpack")
    with pytest.raises(BadFrame):
        decode(_nested(100_000), "msgpack")


def test_a_time_that_no_calendar_has_is_refused() -> None:
    far = msgpack.packb([{"T": "t", "S": "A", "t": msgpack.Timestamp(2**62, 0)}])
    with pytest.raises(BadFrame):
        decode(far, "msgpack")


@pytest.mark.parametrize(
    "frame",
    [
        b'[{"T":"t","S":"A","zz":"\xff","p":1,"s":1}]',
        b'[{"T":"error","code":"\xff","msg":"x"}]',
        b'[{"T":"subscription","trades":["\xff"]}]',
    ],
)
def test_bytes_that_are_not_utf_8_never_reach_a_line(frame: bytes) -> None:
    with pytest.raises(BadFrame):
        decode(frame)
    with pytest.raises(BadFrame):
        frames.decode_update(b'{"stream":"trade_updates","data":%b}' % frame[1:-1])


@pytest.mark.parametrize("code", ["1" * 5000, '"402"', "4.02", "null", "[]"])
def test_an_error_whose_code_is_no_number_is_an_error_all_the_same(code: str) -> None:
    assert [type(control) for control in decode(f'[{{"T":"error","code":{code},"msg":"no"}}]').controls] == [
        frames.Failure
    ]


@pytest.mark.parametrize("breaks", ["\n", "\r\n", "\r"])
def test_a_message_over_many_lines_is_one_line(breaks: str) -> None:
    pretty = json.dumps([{**json.loads(TRADE), "c": ["@", "I"], "late": {"a": [1]}}], indent=1).replace("\n", breaks)
    (line,) = lines(pretty)
    assert "\r" not in line
    assert json.loads(line)["conditions"] == ["@", "I"]
    update = json.dumps({"stream": "trade_updates", "data": {"event": "fill", "late": [1, [2]]}}, indent=1)
    written = encode_lines(frames.decode_update(update.replace("\n", breaks).encode()).ticks)
    assert written.count(b"\n") == 1
    assert len(written.splitlines()) == 1


@given(st.binary(max_size=60), st.sampled_from(["json", "msgpack"]))
def test_no_bytes_can_do_more_than_be_refused(frame: bytes, encoding: frames.Encoding) -> None:
    with contextlib.suppress(BadFrame):
        read = decode(frame, encoding).ticks
        lines = encode_lines(read).splitlines()
        assert len(lines) == len(read)
        assert all(isinstance(json.loads(line), dict) for line in lines)


def test_the_servers_control_messages() -> None:
    frame = decode(
        '[{"T":"success","msg":"connected"},{"T":"error","code":402,"msg":"auth failed"},'
        '{"T":"subscription","trades":["A"],"quotes":[]}]'
    )
    assert frame.controls == [
        Success("connected"),
        Failure(402, "auth failed"),
        Subscription({"trades": ("A",), "quotes": ()}),
    ]


@given(st.integers(0, 4_000_000_000 * 10**9))
def test_times_go_through_text_and_both_encodings_without_losing_a_nanosecond(at_ns: int) -> None:
    assert instant_ns(instant_text(at_ns)) == at_ns
    for encoding in ("json", "msgpack"):
        message = {"T": "q", "S": "A", "bp": Decimal("1.25"), "bs": 1, "ap": 2, "as": 3, "t": at_ns}
        (tick,) = decode(commands.encode_messages([message], encoding), encoding).ticks
        (line,) = encode_lines([tick]).splitlines()
        quote = msgspec.json.decode(line, type=Quote)
        assert quote.at_ns == at_ns
        assert quote.bid_price == Decimal("1.25")


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2026-01-02T10:00:00-05:00", "2026-01-02T15:00:00.000000000Z"),
        ("2026-01-02T10:00:00.1234+01:00", "2026-01-02T09:00:00.123400000Z"),
        ("2026-01-02t10:00:00.5z", "2026-01-02T10:00:00.500000000Z"),
        ("2026-01-02T10:00:00.12345678901Z", "2026-01-02T10:00:00.123456789Z"),
        ("yesterday", "yesterday"),
    ],
)
def test_times_are_written_in_utc_with_nine_digits(text: str, utc: str) -> None:
    assert lines(TRADE.join("[]").replace("2021-02-22T15:51:44.208Z", text)) != []
    assert frames.nine_digits(text) == utc


def test_a_tick_gives_decimals_and_an_aware_time() -> None:
    tick = decode(f"[{TRADE}]").ticks[0]
    assert isinstance(tick, Trade)
    assert (str(tick.price), str(tick.size), tick.id) == ("126.550", "1", "96921")
    assert tick.at.isoformat() == "2021-02-22T15:51:44.208000+00:00"


def test_a_message_is_printed_as_it_came_without_what_its_feed_does_not_send() -> None:
    assert [repr(tick) for tick in decode(f"[{TRADE},{QUOTE}]").ticks] == [
        "Trade(symbol='AAPL', timestamp='2021-02-22T15:51:44.208000000Z', price=126.550, size=1, exchange='D', id=96921,"
        ' conditions=["@","I"], tape=\'C\')',
        "Quote(symbol='FAKEPACA', timestamp='2024-07-24T07:56:53.639713735Z', bid_price=133.85, bid_size=4,"
        " ask_price=135.77, ask_size=5, bid_exchange='O', ask_exchange='R', conditions=[\"R\"], tape='A')",
    ]
    rest = decode(
        '[{"T":"o","S":"BTC/USD","t":"2024-07-24T07:56:53Z","b":[{"p":65000.50,"s":0}],"a":[],"r":true},'
        '{"T":"n","id":7,"headline":"Up","created_at":"2024-07-24T07:56:53Z","symbols":["AAPL"]}]'
    )
    book, article = Batch.of_ticks(rest.ticks).ticks()[0]
    assert "bids=[Level(price=65000.50, size=0)], asks=[], reset=True" in repr(book)
    assert repr(article).startswith("News(id=7, headline='Up', symbols=['AAPL'], created_at=")


def test_a_trade_update_keeps_its_order_and_has_numbers_for_quoted_decimals() -> None:
    frame = frames.decode_update(
        b'{"stream":"trade_updates","data":{"event":"fill","price":"149.980","qty":"10","position_qty":"-10",'
        b'"timestamp":"2026-06-24T10:30:02.113456-04:00","execution_id":"e","order":{"id":"61e69015-8549-4bfd-b9c3-01e75843f47d",'
        b'"client_order_id":"c","order_class":"","time_in_force":"day","extended_hours":false,"created_at":"2026-06-24T14:30:00Z","symbol":"AAPL","qty":"10.50","side":"buy","type":"limit","status":"filled","new":"x"}}}'
    )
    written = json.loads(encode_lines(frame.ticks), parse_float=Decimal)
    assert written["type"] == "trade_update"
    assert written["symbol"] == "AAPL"
    assert written["timestamp"] == "2026-06-24T14:30:02.113456000Z"
    assert str(written["price"]) == "149.980"
    assert written["position_qty"] == -10
    assert repr(written["order"]["qty"]) == "Decimal('10.50')"
    assert written["order"]["new"] == "x"
    assert written["execution_id"] == "e"


@pytest.mark.parametrize(
    ("price", "shown"),
    [
        ('"150.10"', b"150.10"),
        ('"-0.5E-7"', b"-0.5E-7"),
        ("150.10", b"150.10"),
        *((text, text.encode()) for text in ("null", '"n/a"', '""', '"NaN"', '"1_000"', '"+1"', '"01"', '"\u0664"')),
    ],
)
def test_a_quoted_price_becomes_a_number_and_what_json_calls_no_number_stays_as_it_came(
    price: str, shown: bytes
) -> None:
    (update,) = frames.decode_update(f'{{"stream":"trade_updates","data":{{"event":"fill","price":{price}}}}}').ticks
    line = encode_lines([update])
    assert b'"price":%b' % shown in line
    json.loads(line)


@pytest.mark.parametrize("order", ["5", "[]", "null", "{}", '{"symbol":null}', '{"symbol":5}'])
def test_an_update_whose_order_is_none_that_can_be_read_is_passed_on_without_a_symbol(order: str) -> None:
    (update,) = frames.decode_update(f'{{"stream":"trade_updates","data":{{"event":"new","order":{order}}}}}').ticks
    assert subject(update) == ("trade_update", "*")
    assert json.loads(encode_lines([update]))["order"] == json.loads(order)


@pytest.mark.parametrize(
    ("frame", "control"),
    [
        ('{"stream":"authorization","data":{"status":"authorized","action":"authenticate"}}', (True, "authenticate")),
        ('{"stream":"authorization","data":{"status":"unauthorized","action":"listen"}}', (False, "listen")),
        ('{"stream":"authorization","data":{"status":"","action":"listen"}}', (False, "listen")),
        ('{"stream":"listening","data":{"streams":["trade_updates"]}}', (("trade_updates",),)),
        ('{"action":"error","data":{"error_message":"no"}}', (0, "no")),
    ],
)
def test_the_trading_streams_answers(frame: str, control: tuple[object, ...]) -> None:
    (read,) = frames.decode_update(frame).controls
    assert tuple(read) == control


@pytest.mark.parametrize("frame", ['{"stream":"trade_updates","data":null}', '{"stream":"other","data":{}}', "{}"])
def test_noise_on_the_trading_stream_is_counted(frame: str) -> None:
    assert frames.decode_update(frame) == ([], [], 1)


def test_an_interest_tells_what_it_wants() -> None:
    mine = Interest({"trades": ["AAPL"], "quotes": ["*"]})
    assert mine.wants("trade", "AAPL")
    assert not mine.wants("trade", "MSFT")
    assert mine.wants("quote", "MSFT")
    assert mine.wants("correction", "AAPL")
    assert not mine.wants("bar", "AAPL")
    assert (mine | Interest({"trades": ["MSFT"]})) - Interest({"quotes": ["*"]}) == Interest(
        {"trades": ["AAPL", "MSFT"]}
    )
    assert not Interest({"trades": []})


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2026-01-02T15:00:00.0000+01:00", "2026-01-02T14:00:00.000000000Z"),  # thirty letters, as the usual form has
        ("2026-01-02T15:00:00.123456789z", "2026-01-02T15:00:00.123456789Z"),
        ("2026-01-02t15:00:00.123456789Z", "2026-01-02T15:00:00.123456789Z"),
        ("2026-01-02 15:00:00.123456789Z", "2026-01-02T15:00:00.123456789Z"),
        ("2026-01-02T15:00:00.123-05:30", "2026-01-02T20:30:00.123000000Z"),
        ("2026-01-02 15:00:00,123456789Z", "2026-01-02 15:00:00,123456789Z"),  # no such time: as it is
        ("2026-02-30T15:00:00+01:00", "2026-02-30T15:00:00+01:00"),  # no such day
        ("0001-01-01T00:30:00+01:00", "0001-01-01T00:30:00+01:00"),  # before the first year
    ],
)
def test_a_time_in_any_form_is_told_in_utc_with_nine_digits(written: str, read: str) -> None:
    (line,) = lines(f'[{{"T":"t","S":"A","p":1,"s":1,"t":"{written}"}}]')
    assert json.loads(line)["timestamp"] == read


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
def test_a_subscription_names_its_symbols_and_what_is_no_list_of_names_is_none(encoding: frames.Encoding) -> None:
    message = {"T": "subscription", "trades": ["AAPL", "MSFT"], "quotes": 5}
    frame = json.dumps([message]) if encoding == "json" else msgpack.packb([message])
    assert decode(frame, encoding).controls == [Subscription({"trades": ("AAPL", "MSFT"), "quotes": ()})]


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
@pytest.mark.parametrize("asks", ["5", "[5]", '["p"]', '{"p": 1}', "null"])
def test_a_side_of_a_book_that_is_no_list_of_levels_is_passed_on(asks: str, encoding: frames.Encoding) -> None:
    frame = f'[{{"T":"o","S":"A","b":[{{"p":1.5,"s":2}}],"a":{asks}}}]'
    (line,) = lines(frame if encoding == "json" else msgpack.packb(json.loads(frame)), encoding)
    assert json.loads(line)["bids"] == [{"price": 1.5, "size": 2}]
    assert json.loads(line)["asks"] == json.loads(asks)


@pytest.mark.parametrize("kind", ["i", "s"])
@pytest.mark.parametrize(
    ("name", "value"), [("created_at", '"2026-01-02T15:00:00Z"'), ("a", '[{"p":1.5}]'), ("b", '[{"p":1.5}]')]
)
def test_a_field_of_news_or_of_a_book_on_another_message_is_a_field_like_any_other(
    kind: str, name: str, value: str
) -> None:
    (line,) = lines(f'[{{"T":"{kind}","S":"A","{name}":{value}}}]')
    assert json.loads(line)[name] == json.loads(value)


def test_an_element_of_an_answer_is_the_tick_that_the_stream_would_have_sent() -> None:
    element = {"p": 1.5, "s": 2, "t": "2026-01-02T15:00:00Z", "u": "canceled"}
    assert frames.tick_from_element("t", "AAPL", element) == {
        "type": "trade",
        "symbol": "AAPL",
        "timestamp": "2026-01-02T15:00:00.000000000Z",
        "price": 1.5,
        "size": 2,
        "update": "canceled",
    }


@pytest.mark.parametrize(
    "message",
    [
        *(TRADE, QUOTE, '{"T":"t","S":"A"}', '{"T":"n","headline":"Up"}'),
        *(f'{{"T":"{kind}","S":"A","t":"","o":1,"h":1,"l":1,"c":1,"v":1}}' for kind in "bud"),
    ],
)
@pytest.mark.parametrize("name", ["zeta", "Source"])
def test_a_field_that_alpaca_has_added_is_passed_on_under_its_own_name(message: str, name: str) -> None:
    (line,) = lines(f'[{message[:-1]},"{name}":[1.10]}}]')
    assert f'"{name}":[1.10]' in line


def test_a_value_with_numbers_for_names_is_passed_on_from_msgpack() -> None:
    (line,) = lines(msgpack.packb([{"T": "t", "S": "A", "zeta": {1: 2}}]), "msgpack")
    assert json.loads(line)["zeta"] == {"1": 2}


def test_a_symbol_that_is_no_text_is_counted_and_a_time_that_is_no_text_is_passed_on() -> None:
    frame = decode('[{"T":"s","S":5},{"T":5,"S":"A"},{"T":"s","S":"A","t":5}]')
    assert frame.unknown == 2
    assert encode_lines(frame.ticks) == b'{"type":"status","symbol":"A","timestamp":5}\n'


def test_a_field_that_alpaca_has_added_to_an_update_is_passed_on_under_its_own_name() -> None:
    frame = '{"stream":"trade_updates","data":{"event":"new","zeta":"1.10","order":{"symbol":"AAPL"}}}'
    (update,) = frames.decode_update(frame).ticks
    assert b'"zeta":"1.10"' in encode_lines([update])
    assert subject(update) == ("trade_update", "AAPL")
