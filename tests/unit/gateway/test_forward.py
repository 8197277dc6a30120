"""Which of Alpaca's paths there are, and what a client's spelling of one comes to."""

import re
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.openapi import Spec, document, require_specs

from alpacli.broker.forward import find_route, routes

LEFT_OUT = ("/v2/wallets", "/v2/perpetuals", "/v1/locates", "/v2/tokenization", "/v2beta1/events")
"""What moves money, coins or shares away from the account, and a stream that never ends."""


@pytest.mark.parametrize(
    ("path", "sent", "host"),
    [
        ("/v2/account", "/v2/account", "trading"),
        ("/v2/positions/BTC%2FUSD", "/v2/positions/BTCUSD", "trading"),
        ("/v2/positions/BTC/USD", "/v2/positions/BTCUSD", "trading"),
        ("/v2/assets/BRK.B", "/v2/assets/BRK.B", "trading"),
        ("/v2/orders:by_client_order_id", "/v2/orders:by_client_order_id", "trading"),
        ("/v2/stocks/bars/latest", "/v2/stocks/bars/latest", "data"),
        ("/v2/stocks/AAPL/bars", "/v2/stocks/AAPL/bars", "data"),
        ("/v2/stocks/AAPL/quotes/latest", "/v2/stocks/AAPL/quotes/latest", "data"),
        ("/v1beta3/crypto/us/latest/orderbooks", "/v1beta3/crypto/us/latest/orderbooks", "data"),
        ("/v2/watchlists/a-b/BTC/USD", "/v2/watchlists/a-b/BTCUSD", "trading"),
    ],
)
def test_a_listed_path_is_sent_to_its_host_in_a_form_of_our_own(path: str, sent: str, host: str) -> None:
    route = find_route(path)
    assert route is not None
    assert (route.path, route.host) == (sent, host)


@pytest.mark.parametrize(
    "path", [*LEFT_OUT, "/v2/wallets/transfers", "/v2", "/", "", "v2/account", "/v2/account/x/y/z"]
)
def test_what_is_not_listed_has_no_route(path: str) -> None:
    assert find_route(path) is None


@given(
    st.sampled_from(sorted(path for path in routes() if "*" in path)),
    st.text(alphabet="aB2/.%25ecfF\\;?#:@ \0é~-", max_size=12)
    | st.sampled_from(["..", ".", "%2e%2e", "%252e", "a%2fb"]),
)
def test_however_a_part_of_a_path_is_written_only_plain_ones_come_out(pattern: str, part: str) -> None:
    route = find_route(pattern.replace("*", part))
    if route is not None:
        assert route.pattern in routes()
        assert route.path.count("/") == route.pattern.count("/")
        assert re.fullmatch(r"(/[A-Za-z0-9][A-Za-z0-9._:~-]*)+", unquote(route.path))


def test_every_path_of_the_published_description_is_passed_on_but_for_what_moves_money() -> None:
    require_specs()
    specs: tuple[Spec, ...] = ("trading-api", "market-data-api")
    for spec in specs:
        for path in document(spec)["paths"]:
            if not path.startswith(LEFT_OUT):
                assert find_route(path.replace("{", "").replace("}", "")) is not None, path
