"""The exchange over HTTP, spoken to by the official SDK, unchanged, against a process of its own."""

import http.client
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from alpaca.common.exceptions import APIError
from alpaca.trading.client import TradingClient
from alpaca.trading.enums import AssetClass, QueryOrderStatus
from alpaca.trading.models import (
    AccountConfiguration,
    Asset,
    Calendar,
    Clock,
    Order,
    PortfolioHistory,
    Position,
    TradeAccount,
    Watchlist,
)
from alpaca.trading.requests import (
    CreateWatchlistRequest,
    GetAssetsRequest,
    GetCalendarRequest,
    GetOrderByIdRequest,
    GetOrdersRequest,
    GetPortfolioHistoryRequest,
    UpdateWatchlistRequest,
)

from alpacli.errors import ConfigError
from alpacli.ports import SystemClock
from alpacli.sim.demo import seed_demo
from alpacli.sim.exchange import Exchange
from alpacli.sim.server import listening, serve

SERVER = """
import sys
from alpacli.ports import SystemClock
from alpacli.sim.server import listening, serve
serve(sys.argv[1], SystemClock(), ready=lambda url: print(url, flush=True))
print("ended", flush=True)
"""


@contextmanager
def server(state: Path) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(state)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip(), process
    finally:
        process.kill()
        process.communicate(timeout=30)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running server whose account SIM is the demo account."""
    state = tmp_path_factory.mktemp("sim")
    exchange = Exchange(str(state), SystemClock())
    exchange.reset(rate_limit=0)
    seed_demo(exchange, "SIM")
    exchange.close()
    with server(state) as (address, _):
        yield address


@pytest.fixture
def client(url: str) -> Iterator[TradingClient]:
    made = TradingClient("SIM", "secret", url_override=url)
    yield made
    made._session.close()


def test_the_sdk_reads_the_account(client: TradingClient) -> None:
    account = client.get_account()
    assert isinstance(account, TradeAccount)
    assert account.equity is not None
    assert account.account_number.startswith("PA")
    assert isinstance(client.get_clock(), Clock)


def test_the_sdk_reads_positions_by_every_name(client: TradingClient) -> None:
    positions = client.get_all_positions()
    assert {"AAPL", "BTCUSD", "TSLA"} <= {position.symbol for position in positions if isinstance(position, Position)}
    for name in ("AAPL", "BTC/USD", "BTCUSD"):
        position = client.get_open_position(name)
        assert isinstance(position, Position)
        assert position.symbol == name.replace("/", "")


def test_the_sdk_reads_orders_nested_filtered_and_by_either_id(client: TradingClient) -> None:
    orders = client.get_orders(GetOrdersRequest(status=QueryOrderStatus.ALL, limit=500, nested=True))
    assert len(orders) > 15
    bracket = next(order for order in orders if isinstance(order, Order) and order.legs)
    assert len(bracket.legs or []) == 2
    found = client.get_order_by_id(bracket.id, GetOrderByIdRequest(nested=True))
    assert isinstance(found, Order)
    assert found.legs is not None
    assert client.get_order_by_client_id(bracket.client_order_id).id == bracket.id  # type: ignore[union-attr] # raw_data is off
    pairs = client.get_orders(
        GetOrdersRequest(status=QueryOrderStatus.ALL, symbols=["BTC/USD", "KO"], until=datetime.now(UTC))
    )
    assert {order.symbol for order in pairs if isinstance(order, Order)} == {"BTC/USD", "KO"}


def test_the_sdk_reads_calendar_and_assets(client: TradingClient) -> None:
    days = client.get_calendar(GetCalendarRequest(start=date(2026, 6, 1), end=date(2026, 6, 7)))
    assert [day.date.day for day in days if isinstance(day, Calendar)] == [1, 2, 3, 4, 5, 6, 7]
    assert len(client.get_all_assets()) > 50
    coins = client.get_all_assets(GetAssetsRequest(asset_class=AssetClass.CRYPTO))
    assert all(isinstance(coin, Asset) and coin.asset_class == AssetClass.CRYPTO for coin in coins)
    pair = client.get_asset("BTC/USD")
    assert isinstance(pair, Asset)
    assert pair.symbol == "BTC/USD"


def test_the_sdk_reads_the_portfolio_history(client: TradingClient) -> None:
    history = client.get_portfolio_history(GetPortfolioHistoryRequest(period="1M", timeframe="1D", extended_hours=True))
    assert isinstance(history, PortfolioHistory)
    assert len(history.equity) == len(history.timestamp) == 30


def test_the_sdk_keeps_configurations_and_watchlists(client: TradingClient) -> None:
    rules = client.get_account_configurations()
    assert isinstance(rules, AccountConfiguration)
    changed = client.set_account_configurations(rules.model_copy(update={"no_shorting": True}))
    assert isinstance(changed, AccountConfiguration)
    assert changed.no_shorting is True
    client.set_account_configurations(rules)
    made = client.create_watchlist(CreateWatchlistRequest(name="mine", symbols=["AAPL", "BTC/USD"]))
    assert isinstance(made, Watchlist)
    client.add_asset_to_watchlist_by_id(made.id, "MSFT")
    client.remove_asset_from_watchlist_by_id(made.id, "BTC/USD")
    client.update_watchlist_by_id(made.id, UpdateWatchlistRequest(name="ours"))
    found = client.get_watchlist_by_id(made.id)
    assert isinstance(found, Watchlist)
    assert (found.name, [asset.symbol for asset in found.assets or []]) == ("ours", ["AAPL", "MSFT"])
    client.delete_watchlist_by_id(made.id)
    assert made.id not in {row.id for row in client.get_watchlists() if isinstance(row, Watchlist)}


def test_the_sdk_understands_the_exchanges_no(client: TradingClient) -> None:
    with pytest.raises(APIError) as caught:
        client.get_open_position("GME")
    assert (caught.value.status_code, caught.value.code) == (404, 40410000)


def test_any_key_pair_is_an_account_and_none_is_401(url: str) -> None:
    stranger = TradingClient("PKSOMEBODY", "secret", url_override=url)
    assert stranger.get_all_positions() == []
    stranger._session.close()
    status, headers, body = fetch(url, "GET", "/v2/account", {})
    assert (status, json.loads(body)) == (401, {"message": "unauthorized."})
    assert headers["Content-Type"].startswith("application/json")


def test_names_of_headers_are_spelled_as_alpaca_spells_them(url: str) -> None:
    """For the client that looks for ``X-Request-ID`` in that case only."""
    _, headers, body = fetch(url, "GET", "/v2/clock", KEYS)
    assert {"X-Request-ID", "Content-Type", "Content-Length"} <= headers.keys()
    assert headers["Content-Length"] == str(len(body))


KEYS = {"APCA-API-KEY-ID": "SIM", "APCA-API-SECRET-KEY": "x"}


def fetch(
    url: str, method: str, path: str, headers: dict[str, str], body: bytes | None = None
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def test_encoded_paths_and_lists_are_decoded(url: str) -> None:
    """%2F in a path and %2C in a list mean slash and comma; a trailing slash is no redirect."""
    assert json.loads(fetch(url, "GET", "/v2/positions/BTC%2FUSD", KEYS)[2])["symbol"] == "BTCUSD"
    rows = json.loads(fetch(url, "GET", "/v2/orders?status=all&symbols=AAPL%2CBTC%2FUSD", KEYS)[2])
    assert {row["symbol"] for row in rows} == {"AAPL", "BTC/USD"}
    assert fetch(url, "GET", "/v2/positions/", KEYS)[0] == 404


def test_a_body_of_more_than_a_megabyte_is_refused(url: str) -> None:
    """413, and the server lives on."""
    assert fetch(url, "POST", "/v2/watchlists", KEYS, b"x" * 1_000_001)[0] == 413
    assert fetch(url, "GET", "/v2/clock", KEYS)[0] == 200


def test_deleting_answers_204_with_no_body(url: str) -> None:
    made = json.loads(fetch(url, "POST", "/v2/watchlists", KEYS, b'{"name": "gone"}')[2])
    assert fetch(url, "DELETE", f"/v2/watchlists/{made['id']}", KEYS)[::2] == (204, b"")


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_cleanly(tmp_path: Path, stop: signal.Signals) -> None:
    """serve returns, and the process ends with 0."""
    with server(tmp_path) as (url, process):
        assert fetch(url, "GET", "/v2/clock", KEYS)[0] == 200
        process.send_signal(stop)
        out, _ = process.communicate(timeout=30)
        assert (process.returncode, out) == (0, "ended\n")


def test_a_state_that_breaks_while_serving_is_500(tmp_path: Path) -> None:
    """Alpaca's body for a server fault; the details stay on this side."""
    with server(tmp_path) as (url, _):
        assert fetch(url, "GET", "/v2/clock", KEYS)[0] == 200
        for path in tmp_path.iterdir():
            path.write_bytes(b"no database" * 1000)
        status, _, body = fetch(url, "GET", "/v2/account", KEYS)
        assert (status, json.loads(body)["code"]) == (500, 50010000)


@pytest.mark.parametrize("host", ["0.0.0.0", "example.com", "192.0.2.1", "::"])
def test_the_server_serves_this_machine_only(tmp_path: Path, host: str) -> None:
    with pytest.raises(ConfigError, match="loopback"):
        serve(str(tmp_path), SystemClock(), host=host)


def test_a_taken_port_is_a_configuration_error(tmp_path: Path) -> None:
    with server(tmp_path / "one") as (url, _), pytest.raises(ConfigError, match="cannot listen"):
        serve(str(tmp_path / "two"), SystemClock(), port=urlsplit(url).port or 0)


def test_answers_do_not_wait_for_the_client_to_acknowledge_their_head() -> None:
    with listening("127.0.0.1", 0) as (listener, _):
        assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
