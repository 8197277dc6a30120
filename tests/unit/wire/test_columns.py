"""A page of history becomes columns in which every digit and every nanosecond is still there."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpacli.domain.batches import Batch, joined
from alpacli.domain.series import Kind, Series
from alpacli.errors import UnreadableAnswer, UsageError
from alpacli.wire.columns import page, read_page

BAR = '{{"c":{0},"h":{0},"l":{0},"n":3,"o":{0},"t":"2026-01-05T14:30:00Z","v":{0},"vw":{0}}}'


def page_of(*rows: str, kind: str = "bars") -> bytes:
    return f'{{"{kind}":{{"AAPL":[{",".join(rows)}]}},"next_page_token":null}}'.encode()


def rows_of(body: bytes, kind: Kind = "bars") -> list[dict[str, Any]]:
    return [row for symbol, table in read_page(kind, body).tables for row in Batch(kind, symbol, table).rows()]


numbers = st.one_of(
    st.decimals(allow_nan=False, allow_infinity=False, min_value=0, max_value=10**12, places=6).map(str),
    st.floats(min_value=1e-6, max_value=1e12).map(repr),
    st.integers(0, 2**70).map(str),
    st.sampled_from(
        ["0.1000000000000000055511151231257827", "9007199254740993", "1e-7", "1E+3", "123456789.12345678901"]
    ),
)


@given(st.lists(numbers, min_size=1, max_size=4))
def test_every_number_is_what_was_sent(texts: list[str]) -> None:
    found = rows_of(page_of(*(BAR.format(text) for text in texts)))
    for text, row in zip(texts, found, strict=True):
        assert row["close"] == row["volume"] == row["vwap"] == Decimal(text)


def test_ordinary_prices_are_doubles_and_only_what_needs_more_digits_is_decimal() -> None:
    import pyarrow as pa

    plain = read_page("bars", page_of(BAR.format("187.45"))).tables[0][1]
    exact = read_page("bars", page_of(BAR.format("187.45000000000000000001"))).tables[0][1]
    assert pa.types.is_floating(plain.schema.field("close").type)
    assert pa.types.is_decimal(exact.schema.field("close").type)
    both = Batch("bars", "AAPL", joined([plain, exact]))
    assert [row["close"] for row in both.rows()] == [Decimal("187.45"), Decimal("187.45000000000000000001")]


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (" ,\n", " :\t")])
def test_the_spacing_and_order_of_the_json_do_not_matter(separators: tuple[str, str]) -> None:
    row = {"t": "2026-01-05T14:30:00Z", "o": 1.5, "v": 100, "h": 2, "l": 1.25, "vw": None, "c": 1.75}
    body = json.dumps({"next_page_token": "x", "bars": {"AAPL": [row]}}, separators=separators).encode()
    assert read_page("bars", body).token == "x"
    (found,) = rows_of(body)
    assert found["open"] == Decimal("1.5")
    assert found["vwap"] is None
    assert found["trade_count"] is None


def test_fields_that_alpaca_added_since_pass_through() -> None:
    body = page_of(BAR.format("1.5")[:-1] + ',"zz":{"deep":[1,2.50]}}')
    assert rows_of(body)[0]["zz"] == '{"deep":[1,2.50]}'


def test_trades_and_quotes_keep_nanoseconds_conditions_and_ids() -> None:
    trade = '{"t":"2026-01-05T14:30:00.000000001Z","x":"V","p":187.01,"s":100,"c":["@","I"],"i":52983525029461,"z":"C"}'
    (row,) = rows_of(page_of(trade, kind="trades"), "trades")
    assert (row["timestamp"], row["conditions"], row["id"]) == (
        "2026-01-05T14:30:00.000000001Z", ["@", "I"], 52983525029461,
    )  # fmt: skip
    option = '{"t":"2026-01-05T14:30:00.5Z","x":"N","p":2.5,"s":1,"c":"a"}'
    assert rows_of(page_of(option, kind="trades"), "trades")[0]["conditions"] == ["a"]
    quote = '{"t":"2026-01-05T14:30:00Z","ax":"V","ap":187.02,"as":3,"bx":"Q","bp":0,"bs":0,"c":["R"],"z":"C"}'
    (row,) = rows_of(page_of(quote, kind="quotes"), "quotes")
    assert (row["ask_price"], row["bid_price"], row["ask_size"]) == (Decimal("187.02"), 0, 3)


def test_no_rows_are_an_answer_too() -> None:
    assert read_page("bars", b'{"bars":{},"next_page_token":null}').tables == []
    assert read_page("bars", b'{"bars":null,"next_page_token":""}') == ([], None)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"trades":{}}',
        b'{"bars":{"AAPL":[{"t":"yesterday","o":1,"h":1,"l":1,"c":1,"v":1}]},"next_page_token":null}',
        b'{"bars":{"AAPL":[{"o":1}]},"next_page_token":null}',
        b'{"bars":{"AAPL":[{"t":"2026-01-05T14:30:00Z","o":"NaN","h":1,"l":1,"c":1,"v":1}]},"next_page_token":null}',
        b'{"bars":{"AAPL":[1]},"next_page_token":null}',
        b'{"bars":{"AAPL":[]},"next_page_token":7}',
    ],
)
def test_what_is_no_page_is_an_error_and_not_nothing(body: bytes) -> None:
    with pytest.raises(UnreadableAnswer):
        read_page("bars", body)


def test_rows_out_of_order_are_an_error() -> None:
    times = ["2026-01-05T14:30:00Z", "2026-01-05T14:32:00Z", "2026-01-05T14:31:00Z"]
    rows = [BAR.format("1").replace("2026-01-05T14:30:00Z", time) for time in times]
    with pytest.raises(UnreadableAnswer, match="order"):
        read_page("bars", page_of(*rows))


def test_a_request_asks_for_what_the_market_has() -> None:
    span = (1_767_621_600_000_000_000, 1_767_621_660_000_000_000)
    stock = page(Series("bars", "stocks", "sip", "1Min", "split"), ["AAPL", "MSFT"], span).request
    assert stock.path == "/v2/stocks/bars"
    assert dict(stock.query) == {
        "symbols": "AAPL,MSFT", "start": "2026-01-05T14:00:00Z", "end": "2026-01-05T14:00:59.999999999Z", "limit": "10000",
        "timeframe": "1Min", "adjustment": "split", "feed": "sip",
    }  # fmt: skip
    coin = page(Series("quotes", "crypto", "us"), ["BTC/USD"], span, token="t").request
    assert coin.path == "/v1beta3/crypto/us/quotes"
    assert {name for name, _ in coin.query} == {"symbols", "start", "end", "limit", "page_token"}
    with pytest.raises(UsageError, match="option quotes"):
        page(Series("quotes", "options", "opra"), ["AAPL260116C00150000"], span)
