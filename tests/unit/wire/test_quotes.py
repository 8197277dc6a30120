"""The quote that an order is judged by, for everything that can be ordered."""

from decimal import Decimal

import pytest

from alpacli.errors import UnreadableAnswer
from alpacli.wire.quotes import bids_and_asks


@pytest.mark.parametrize(
    ("symbol", "path"),
    [
        ("AAPL", "/v2/stocks/quotes/latest"),
        ("BTC/USD", "/v1beta3/crypto/us/latest/quotes"),
        ("AAPL271217C00150000", "/v1beta1/options/quotes/latest"),
    ],
)
def test_each_kind_of_symbol_is_quoted_at_its_own_endpoint(symbol: str, path: str) -> None:
    call = bids_and_asks([symbol])
    assert call.request.path == path
    assert ("symbols", symbol) in call.request.query
    body = f'{{"quotes":{{"{symbol}":{{"bp":0,"ap":1.25}}}}}}'.encode()
    assert call.decode(body) == {symbol: (None, Decimal("1.25"))}


def test_shares_are_quoted_by_the_feed_that_is_asked_for() -> None:
    assert ("feed", "sip") in bids_and_asks(["AAPL"], feed="sip").request.query
    assert ("feed", "iex") in bids_and_asks(["AAPL"]).request.query
    assert dict(bids_and_asks(["BTC/USD"], feed="sip").request.query) == {"symbols": "BTC/USD"}


def test_several_symbols_are_one_question_and_one_without_a_quote_has_no_price() -> None:
    call = bids_and_asks(["AAPL", "MSFT"])
    assert ("symbols", "AAPL,MSFT") in call.request.query
    assert call.decode(b'{"quotes":{"AAPL":{"bp":1,"ap":2}}}') == {"AAPL": (1, 2), "MSFT": (None, None)}


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"quotes":[1]}', b'{"quotes":{"AAPL":7}}', b'{"quotes":{"AAPL":[1]}}']
)
def test_an_answer_that_is_none_is_said_to_be_none(body: bytes) -> None:
    with pytest.raises(UnreadableAnswer, match="quotes"):
        bids_and_asks(["AAPL"]).decode(body)


@pytest.mark.parametrize(
    "quotes", [b"null", b"{}", b'{"AAPL":null}', b'{"AAPL":{"bp":"1","ap":-1}}', b'{"AAPL":{"bp":null}}']
)
def test_what_is_no_price_is_none(quotes: bytes) -> None:
    assert bids_and_asks(["AAPL"]).decode(b'{"quotes":' + quotes + b"}") == {"AAPL": (None, None)}
