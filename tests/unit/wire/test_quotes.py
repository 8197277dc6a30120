"""The quote that an order is judged by, for everything that can be ordered."""

from decimal import Decimal

import pytest

from alpacli.wire.quotes import bid_and_ask


@pytest.mark.parametrize(
    ("symbol", "path"),
    [
        ("AAPL", "/v2/stocks/quotes/latest"),
        ("BTC/USD", "/v1beta3/crypto/us/latest/quotes"),
        ("AAPL271217C00150000", "/v1beta1/options/quotes/latest"),
    ],
)
def test_each_kind_of_symbol_is_quoted_at_its_own_endpoint(symbol: str, path: str) -> None:
    call = bid_and_ask(symbol)
    assert call.request.path == path
    assert ("symbols", symbol) in call.request.query
    body = f'{{"quotes":{{"{symbol}":{{"bp":0,"ap":1.25}}}}}}'.encode()
    assert call.decode(body) == (None, Decimal("1.25"))
