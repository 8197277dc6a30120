"""``alpacli serve`` as its users meet it: a process in front of an exchange, the library's answers over HTTP, a clean end."""

import json
import signal
import subprocess
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import requests
from alpaca.common.exceptions import APIError
from alpaca.data.historical import StockHistoricalDataClient
from alpaca.data.requests import StockLatestQuoteRequest
from alpaca.trading.client import TradingClient
from alpaca.trading.enums import OrderSide, TimeInForce
from alpaca.trading.models import Order
from alpaca.trading.requests import LimitOrderRequest, MarketOrderRequest, ReplaceOrderRequest
from tests.support import valkey
from tests.support.alpacli import Alpacli
from tests.support.faulty_broker import FaultyBroker
from tests.support.origin import Origin, Reply
from tests.support.serving import KEY_ID, SECRET, Gateway, keys
from tests.support.sim_server import SimServer

from alpacli.domain.ticks import instant_ns
from alpacli.domain.values import from_json
from alpacli.sim.amendments import AmendedFeed
from alpacli.sim.hours import AlwaysOpen
from alpacli.sim.tape import Tape

V1 = "/api/v1/broker"


@pytest.fixture(scope="module")
def token(gateway: Gateway) -> str:
    return gateway.token()


def straight(exchange: SimServer, path: str) -> bytes:
    return requests.get(exchange.url + path, headers=keys(), timeout=30).content


def test_the_account_comes_in_an_envelope_with_every_digit(gateway: Gateway, exchange: SimServer, token: str) -> None:
    answer = gateway.get(f"{V1}/account?use_cache=false", token)
    assert answer.status_code == 200
    envelope = from_json(answer.content)
    assert (envelope["success"], envelope["count"], envelope["filter"]) == (True, 1, {})
    told = json.loads(straight(exchange, "/v2/account"))
    assert envelope["data"]["cash"] == Decimal(told["cash"])
    assert b'"cash":' + told["cash"].encode() in answer.content


def test_a_list_says_how_many_and_what_was_chosen(gateway: Gateway, token: str) -> None:
    envelope = gateway.get(f"{V1}/orders?status=all&limit=7", token).json()
    assert envelope["success"] is True
    assert envelope["count"] == len(envelope["data"])
    assert envelope["filter"] == {"status": "all", "limit": 7}


@pytest.mark.parametrize(
    "query", ["status=some", "limit=0", "limit=501", "limit=many", "after=yesterday", "after=2026-01-05T10:00:00"]
)
def test_what_makes_no_sense_is_422_and_says_what(gateway: Gateway, token: str, query: str) -> None:
    answer = gateway.get(f"{V1}/orders?{query}", token)
    assert answer.status_code == 422
    assert answer.json()["success"] is False
    assert answer.json()["error"]["type"] == "UsageError"
    assert query.partition("=")[0] in answer.json()["error"]["message"]


def test_an_answer_that_is_known_is_not_sent_again(gateway: Gateway, token: str) -> None:
    first = gateway.get(f"{V1}/positions", token)
    assert "max-age" in first.headers["Cache-Control"]
    again = gateway.get(f"{V1}/positions", token, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["ETag"] == first.headers["ETag"]
    other = gateway.get(f"{V1}/positions", token, headers={"If-None-Match": '"something else"'})
    assert (other.status_code, other.content) == (200, first.content)


def test_an_order_is_placed_changed_and_canceled(gateway: Gateway, token: str) -> None:
    ticket = {"symbol": "AAPL", "side": "buy", "qty": "1", "limit_price": "1.50", "time_in_force": "gtc"}
    placed = gateway.send("POST", f"{V1}/orders", token, json=ticket).json()["data"]
    assert (placed["status"], placed["client_order_id"][:8]) == ("pending_new", "alpacli-")
    changed: Any = {}
    for _ in range(50):  # until the venue works on it
        changed = gateway.send("PATCH", f"{V1}/orders/{placed['id']}", token, json={"limit_price": 1.25}).json()
        if changed["success"]:
            break
        time.sleep(0.05)
    assert changed["data"]["limit_price"] == 1.25
    time.sleep(0.3)
    gone = gateway.send("DELETE", f"{V1}/orders/{changed['data']['id']}", token)
    assert gone.json() == {"success": True, "data": None, "count": 0, "filter": {"order_id": changed["data"]["id"]}}


def test_a_dry_run_sends_nothing(gateway: Gateway, token: str) -> None:
    before = gateway.get(f"{V1}/orders?status=all", token).json()["count"]
    ticket = {"symbol": "MSFT", "side": "buy", "qty": 2}
    preview = gateway.send("POST", f"{V1}/orders?dry_run=true", token, json=ticket).json()["data"]
    assert (preview["method"], preview["body"]["qty"]) == ("POST", "2")
    assert gateway.get(f"{V1}/orders?status=all", token).json()["count"] == before


def test_a_change_shows_at_once(gateway: Gateway, token: str) -> None:
    gateway.send("POST", f"{V1}/orders", token, json={"symbol": "NVDA", "side": "buy", "qty": 3})
    for _ in range(100):
        if gateway.get(f"{V1}/positions/NVDA?use_cache=false", token).status_code == 200:
            break
        time.sleep(0.05)
    assert "NVDA" in gateway.get(f"{V1}/positions?use_cache=false", token).text
    closed = gateway.send("DELETE", f"{V1}/positions/NVDA?percentage=100", token).json()
    assert (closed["data"]["side"], closed["data"]["qty"]) == ("sell", 3)


def test_nothing_to_close_is_404(gateway: Gateway, token: str) -> None:
    answer = gateway.send("DELETE", f"{V1}/positions/KO", token)
    assert (answer.status_code, answer.json()["error"]["type"]) == (404, "NotFound")


def test_nothing_to_close_is_told_in_the_brokers_words_on_its_own_paths(gateway: Gateway, token: str) -> None:
    asked, closed = (gateway.send(method, "/v2/positions/KO", token) for method in ("GET", "DELETE"))
    assert closed.json() == {"code": 40410000, "message": "position does not exist"}
    assert (closed.status_code, closed.json()) == (asked.status_code, asked.json())


def test_the_cache_can_be_told_to_forget(gateway: Gateway, token: str) -> None:
    gateway.get(f"{V1}/account", token)
    answer = gateway.send("POST", f"{V1}/cache/invalidate?names=account,positions", token).json()
    assert answer["data"]["forgotten"] >= 1
    refused = gateway.send("POST", f"{V1}/cache/invalidate?names=everything", token)
    assert refused.status_code == 422


def test_a_halt_holds_on_both_faces_and_lets_cancels_pass(gateway: Gateway, token: str) -> None:
    order = {"symbol": "AAPL", "side": "buy", "qty": "1", "type": "market", "time_in_force": "day"}
    assert gateway.send("POST", f"{V1}/halt?reason=drill", token).json()["data"]["reason"] == "drill"
    try:
        for path in (f"{V1}/orders", "/v2/orders"):
            refused = gateway.send("POST", path, token, json=order)
            assert refused.status_code == 403
            assert "halted: drill" in refused.text
        assert gateway.send("DELETE", "/v2/orders", token).status_code == 207
    finally:
        assert gateway.send("DELETE", f"{V1}/halt", token).json()["data"] == {"halted": False}
    assert gateway.send("POST", "/v2/orders", token, json=order).status_code == 200


def test_the_reason_of_a_halt_may_come_in_a_body(gateway: Gateway, token: str) -> None:
    def halted() -> dict[str, Any]:
        state: dict[str, Any] = gateway.get(f"{V1}/halt", token).json()["data"]
        return state

    for refused in (
        {"json": {"why": "drill"}},
        {"json": {"reason": 5}},
        {"json": {"reason": "x" * 201}},
        {"json": ["drill"]},
        {"data": b"reason=drill"},
        {"json": {"reason": "drill"}, "params": {"reason": "storm"}},
        {"params": {"resaon": "drill"}},
    ):
        told = gateway.send("POST", f"{V1}/halt", token, **refused)
        assert (told.status_code, told.json()["error"]["type"]) == (422, "UsageError"), refused
        assert halted() == {"halted": False}
    try:
        assert gateway.send("POST", f"{V1}/halt", token, json={"reason": "drill"}).status_code == 200
        assert halted()["reason"] == "drill"
    finally:
        gateway.send("DELETE", f"{V1}/halt", token)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("DELETE", "positions/AAPL?percent=50", None),
        ("DELETE", "positions/AAPL?percentage=50&percentage=100", None),
        ("DELETE", "positions/AAPL", {"percentage": 50}),
        ("DELETE", "positions?symbols=AAPL", None),
        ("DELETE", "orders?symbols=AAPL", None),
        ("DELETE", "orders", {"status": "open"}),
        ("POST", "orders?dryrun=true", {"symbol": "AAPL", "side": "buy", "qty": 1}),
        ("POST", "cache/invalidate", {"names": ["account"]}),
        ("DELETE", "halt", {"for": "bot1"}),
    ],
)
def test_a_change_that_says_what_nobody_would_read_is_refused(
    gateway: Gateway, token: str, method: str, path: str, body: dict[str, Any] | None
) -> None:
    before = gateway.get(f"{V1}/orders?status=all", token).json()["count"]
    refused = gateway.send(method, f"{V1}/{path}", token, json=body)
    assert (refused.status_code, refused.json()["error"]["type"]) == (422, "UsageError")
    assert gateway.send(method, f"{V1}/{path}", "", json=body).status_code == 401
    assert gateway.get(f"{V1}/orders?status=all", token).json()["count"] == before


@pytest.mark.parametrize(
    ("method", "path", "body", "named"),
    [
        ("DELETE", "positions/KO?percent=50", None, "'percent'"),
        ("DELETE", "positions/KO?percentage=", None, "'percentage'"),
        ("DELETE", "positions/KO?percentage", None, "'percentage'"),
        ("DELETE", "positions/KO?qty=%20", None, "'qty'"),
        ("DELETE", "positions/KO?qty=1&qty=2", None, "'qty'"),
        ("DELETE", "positions/KO?qty=1&percentage=50", None, "qty and percent"),
        ("DELETE", "positions/KO?qty=half", None, "qty"),
        ("DELETE", "positions/KO", {"percentage": 50}, "body"),
        ("DELETE", "positions?symbols=KO", None, "'symbols'"),
        ("DELETE", "positions?cancel_orders=", None, "'cancel_orders'"),
        ("DELETE", "positions?cancel_orders=yes", None, "cancel_orders"),
        ("DELETE", "orders?symbols=KO", None, "'symbols'"),
        ("DELETE", "orders", {"symbols": ["KO"]}, "body"),
        ("DELETE", "orders/61e69015-8549-4bfd-b9c3-01e75843f47d?qty=1", None, "'qty'"),
        ("POST", "orders?dry_run=true", {"symbol": "KO", "side": "buy", "qty": 1}, "'dry_run'"),
        ("PATCH", "orders/61e69015-8549-4bfd-b9c3-01e75843f47d?qty=1", {"qty": 2}, "'qty'"),
        ("DELETE", "watchlists:by_name?name=", None, "'name'"),
    ],
)
def test_a_change_on_alpacas_own_paths_that_says_what_nobody_would_read_is_refused_in_alpacas_form(
    gateway: Gateway, token: str, method: str, path: str, body: dict[str, Any] | None, named: str
) -> None:

    def orders() -> list[str]:
        return [order["id"] for order in gateway.get("/v2/orders?status=all", token).json()]

    before = orders()
    refused = gateway.send(method, f"/v2/{path}", token, json=body)
    assert refused.status_code == 422, refused.text
    assert refused.json()["code"] == 40010001
    assert named in refused.json()["message"]
    assert orders() == before


@pytest.mark.parametrize("path", ["positions?cancel_orders=True", "positions?cancel_orders=false"])
def test_the_official_sdks_spellings_of_a_change_are_taken(gateway: Gateway, token: str, path: str) -> None:
    done = gateway.send("DELETE", f"/v2/{path}", token)
    assert done.status_code == 207, done.text


@pytest.mark.parametrize(
    ("path", "body", "known"),
    [
        ("orders?simbols=AAPL", None, "symbols"),
        ("orders?status=all&Limit=1", None, "limit"),
        ("positions?symbol=AAPL", None, "use_cache"),
        ("orders?symbols=AAPL&symbols=F", None, "commas"),
        ("history/orders?from=2026-01-05", None, "since"),
        ("stream/status?feed=iex", None, "none"),
        ("orders", {"symbols": "AAPL"}, "URL"),
        ("account", {"symbols": "AAPL"}, "URL"),
    ],
)
def test_a_read_that_says_what_nobody_would_look_at_is_refused(
    gateway: Gateway, token: str, path: str, body: dict[str, Any] | None, known: str
) -> None:
    """A filter that is misspelt would tell of everything; also when the answer without it is remembered."""
    assert gateway.get(f"{V1}/account", token).status_code == 200
    refused = gateway.send("GET", f"{V1}/{path}", token, json=body)
    assert (refused.status_code, refused.json()["error"]["type"]) == (422, "UsageError")
    assert known in refused.json()["error"]["hint"]
    assert gateway.send("GET", f"{V1}/{path}", "", json=body).status_code == 401


def test_on_alpacas_own_paths_alpaca_says_which_parameters_there_are(gateway: Gateway, token: str) -> None:
    """It adds some without notice, and ignores what it does not know; the SDK sends one such."""
    history = "/v2/account/portfolio/history?period=1D&extended_hours=true&tomorrows_parameter=1"
    assert gateway.get(history, token).status_code == 200


def test_an_id_that_no_order_can_have_is_not_found(gateway: Gateway, token: str) -> None:
    for method in ("GET", "DELETE"):
        missing = gateway.send(method, f"{V1}/orders/nope", token)
        assert (missing.status_code, missing.json()["error"]["type"]) == (404, "NotFound"), missing.text
    assert gateway.get("/v2/orders/nope", token).status_code == 422, "Alpaca's paths answer as Alpaca does"


@pytest.mark.parametrize(
    "path", ["/v2/clock", "/v2/account", "/v2/orders?status=all&limit=3", "/v2/assets/AAPL", "/v2/watchlists"]
)
def test_alpacas_own_paths_answer_byte_for_byte(gateway: Gateway, exchange: SimServer, token: str, path: str) -> None:
    def still(text: bytes) -> bytes:
        """Leave out what moves with the market."""
        told = json.loads(text)
        for name in ("timestamp", "equity", "buying_power", "long_market_value", "position_market_value"):
            if isinstance(told, dict):
                told.pop(name, None)
        return json.dumps(told).encode()

    passed, direct = gateway.get(path, token), straight(exchange, path)
    if path in ("/v2/orders?status=all&limit=3", "/v2/assets/AAPL", "/v2/watchlists"):
        assert passed.content == direct
    else:
        assert json.loads(still(passed.content)).keys() == json.loads(still(direct)).keys()
        assert b'": "' not in passed.content  # not written anew
    assert passed.headers["Content-Type"].startswith("application/json")


def test_alpacas_refusals_are_passed_on_as_they_are(gateway: Gateway, exchange: SimServer, token: str) -> None:
    path = "/v2/orders/61e69015-8549-4bfd-b9c3-01e75843f47d"
    answer = gateway.get(path, token)
    assert (answer.status_code, answer.content) == (404, straight(exchange, path))
    nonsense = {"symbol": "NOSUCH", "side": "buy", "qty": "1", "type": "market", "time_in_force": "day"}
    refused = gateway.send("POST", "/v2/orders", token, json=nonsense)
    assert refused.status_code == 422
    assert set(refused.json()) == {"code", "message"}


def test_the_unchanged_sdk_trades_through_the_gateway(gateway: Gateway) -> None:
    client = TradingClient(KEY_ID, SECRET, url_override=gateway.url)
    assert float(client.get_account().equity) > 0  # type: ignore[union-attr, arg-type] # raw data is off
    bought = client.submit_order(
        MarketOrderRequest(symbol="MSFT", qty=2, side=OrderSide.BUY, time_in_force=TimeInForce.DAY)
    )
    assert isinstance(bought, Order)
    assert bought.client_order_id.startswith("alpacli-")
    for _ in range(100):
        if client.get_order_by_id(bought.id).filled_qty == "2":  # type: ignore[union-attr] # raw data is off
            break
        time.sleep(0.05)
    limit = client.submit_order(
        LimitOrderRequest(symbol="AAPL", qty=1, side=OrderSide.BUY, time_in_force=TimeInForce.GTC, limit_price=1.01)
    )
    assert isinstance(limit, Order)
    time.sleep(0.3)
    changed = client.replace_order_by_id(limit.id, ReplaceOrderRequest(limit_price=1.02))
    assert isinstance(changed, Order)
    time.sleep(0.3)
    client.cancel_order_by_id(changed.id)
    assert "MSFT" in [position.symbol for position in client.get_all_positions()]  # type: ignore[union-attr] # the SDK's union with raw data
    closed = client.close_position("MSFT")
    assert isinstance(closed, Order)
    assert closed.side == OrderSide.SELL
    with pytest.raises(APIError) as refused:
        client.get_open_position("KO")
    assert refused.value.code == 40410000
    everything = client.close_all_positions(cancel_orders=True)
    assert all(response.status == 200 for response in everything)  # type: ignore[union-attr] # the SDK's union with raw data
    client._session.close()


def test_the_unchanged_sdk_reads_market_data_through_the_gateway(gateway: Gateway, token: str) -> None:
    with_token = StockHistoricalDataClient(oauth_token=token, url_override=gateway.url)
    quote = with_token.get_stock_latest_quote(StockLatestQuoteRequest(symbol_or_symbols="AAPL"))["AAPL"]
    assert quote.bid_price > 0
    with_token._session.close()


def test_an_order_of_the_sdk_is_in_the_journal_with_who_sent_it(gateway: Gateway, token: str) -> None:
    order = {"symbol": "AAPL", "side": "buy", "qty": "1", "type": "limit", "limit_price": "1.1", "time_in_force": "day"}
    client_order_id = gateway.send("POST", "/v2/orders", token, json=order).json()["client_order_id"]
    listed = gateway.alpacli("audit", "list", "--json").out
    lines = [line for line in json.loads(listed) if line.get("client_order_id") == client_order_id]
    assert [(line["phase"], line["program"]) for line in lines] == [("sent", "gateway"), ("answered", "gateway")]
    names = [row["name"] for row in json.loads(gateway.alpacli("serve", "tokens", "--json").out)]
    assert {line["client"] for line in lines} <= set(names)


def test_alpacli_on_another_machine_works_through_a_gateway_profile(
    gateway: Gateway, token: str, tmp_path: Path
) -> None:
    remote = Alpacli(tmp_path)
    added = remote("profile", "add", "desk", "--gateway", gateway.url, "--token-file", "-", stdin=token.encode())
    assert added.code == 0, added.errors
    config = tmp_path / "config" / "config.toml"
    assert oct(config.stat().st_mode & 0o777) == "0o600"
    assert token not in added.text + added.errors
    mine, theirs = remote("account", "--json"), gateway.alpacli("account", "--json")
    assert mine.code == 0, mine.errors
    assert json.loads(mine.out)["account_number"] == json.loads(theirs.out)["account_number"]
    bought = remote("buy", "AAPL", "1", "--limit", "1.5", "--json")
    assert json.loads(bought.out)["limit_price"] == 1.5
    assert remote("cancel", json.loads(bought.out)["id"]).code == 0
    ticks = remote("stream", "AAPL", "--quotes", "--count", "2", "--json")
    assert [json.loads(line)["symbol"] for line in ticks.text.splitlines()] == ["AAPL", "AAPL"], ticks.errors
    status = gateway.get(f"{V1}/stream/status", token).json()["data"]
    assert "iex" in [feed["feed"] for feed in status["feeds"]]
    assert token not in remote("profile", "show", "desk").text


def test_a_stream_through_a_gateway_fills_what_the_gateway_missed(
    gateway: Gateway, exchange: SimServer, tmp_path: Path
) -> None:
    remote = Alpacli(tmp_path)
    token = gateway.token("read,stream")
    added = remote("profile", "add", "desk", "--gateway", gateway.url, "--token-file", "-", stdin=token.encode())
    assert added.code == 0, added.errors
    stream = remote.start(
        ["stream", "AAPL", "--trades", "--no-hub", "--backfill", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert stream.stdout is not None
    assert stream.stderr is not None
    got = [json.loads(stream.stdout.readline())]
    exchange.fault("drop", path="/v2/iex", times=1)  # between gateway and exchange: the stream's own connection stays
    filled = next(line for line in stream.stderr if b"gap filled" in line)
    assert b"reconnect" not in filled
    stream.send_signal(signal.SIGINT)
    out, _ = stream.communicate(timeout=20)
    got += [json.loads(line) for line in out.splitlines()]
    at = [tick["timestamp"] for tick in got]
    assert at == sorted(set(at))
    tape = AmendedFeed(Tape(2026, AlwaysOpen()), AlwaysOpen())
    expected = [trade["i"] for trade in tape.trades("AAPL", instant_ns(at[0]), instant_ns(at[-1]) + 1)]
    assert [tick["id"] for tick in got] == expected


def test_what_is_kept_on_this_machine_is_shown_too(gateway: Gateway, token: str) -> None:
    order = {"symbol": "KO", "side": "buy", "qty": "1", "limit_price": "1.25"}
    gateway.send("POST", f"{V1}/orders", token, json=order)
    synced = gateway.alpacli("history", "sync")
    assert synced.code == 0, synced.errors
    kept = from_json(gateway.get(f"{V1}/history/orders?symbols=KO&since=2020-01-01T00:00:00Z", token).content)
    assert kept["data"][0]["limit_price"] == Decimal("1.25")
    assert (kept["count"], kept["filter"]["symbols"]) == (len(kept["data"]), "KO")
    for path in ("fills", "snapshots"):
        assert gateway.get(f"{V1}/history/{path}", token).json()["success"] is True
    assert gateway.get(f"{V1}/history/fills?since=2020-01-01T00:00:00", token).status_code == 422


@pytest.mark.parametrize("url", ["http://gateway.example.com", "https://a:b@host", "https://host/path", "ftp://host"])
def test_a_gateway_is_reached_over_https_only(tmp_path: Path, url: str) -> None:
    refused = Alpacli(tmp_path)("profile", "add", "x", "--gateway", url, "--token-file", "-", stdin=b"t")
    assert (refused.code, refused.out) == (3, b"")
    assert not (tmp_path / "config" / "config.toml").exists()


def test_a_token_that_is_not_good_is_not_stored(gateway: Gateway, tmp_path: Path) -> None:
    refused = Alpacli(tmp_path)(
        "profile", "add", "x", "--gateway", gateway.url, "--token-file", "-", stdin=b"no.to.ken"
    )
    assert refused.code == 3, refused.errors
    assert "mint another" in refused.errors
    assert not (tmp_path / "config" / "config.toml").exists()


def test_the_page_that_describes_the_api_comes_from_here_alone(gateway: Gateway, token: str) -> None:
    page = gateway.get("/docs")
    assert page.status_code == 200
    assert "http" not in page.text.replace("http-equiv", "")
    assert "'self'" in page.headers["Content-Security-Policy"]
    assert "unsafe" not in page.headers["Content-Security-Policy"]
    assert len(gateway.get("/docs/swagger-ui-bundle.js").content) > 100_000
    assert gateway.get("/openapi.json").status_code == 401
    description = gateway.get("/openapi.json", token).json()
    for path in ("account", "positions", "orders", "cache/invalidate"):
        assert f"{V1}/{path}" in description["paths"]


def test_it_is_well_and_ready(gateway: Gateway) -> None:
    assert gateway.get("/healthz").json() == {"status": "ok"}
    ready = gateway.get("/readyz")
    checks = {"keys": "ok", "upstream": "ok", "market_data": "ok", "store": "ok"}
    assert (ready.status_code, ready.json()["checks"]) == (200, checks)


def test_it_is_ready_without_redis_and_says_what_stands_in(tmp_path: Path, exchange: SimServer) -> None:
    (tmp_path / "redis").mkdir()
    with valkey.server(tmp_path / "redis") as redis:
        env = {"REDIS_URL": redis.url}
        with Gateway(tmp_path, exchange.url, env=env) as gateway:
            token = gateway.token()
            assert gateway.get("/readyz").json()["checks"]["store"] == "ok"
            redis.kill()
            ready = gateway.get("/readyz")
            assert (ready.status_code, ready.json()["status"]) == (200, "ready")
            assert ready.json()["checks"]["store"] == "degraded"
            assert gateway.get(f"{V1}/account", token).status_code == 200
            assert "\nalpacli_store_degraded 1.0" in gateway.get("/metrics", token).text


def test_a_redis_that_forgot_a_halt_is_told_again_by_a_gateway_of_which_nobody_asks_anything(
    tmp_path: Path, exchange: SimServer
) -> None:
    (tmp_path / "redis").mkdir()
    with (
        valkey.server(tmp_path / "redis") as redis,
        Gateway(tmp_path, exchange.url, env={"REDIS_URL": redis.url}) as gateway,
        redis.client() as client,
    ):
        assert gateway.send("POST", f"{V1}/halt?reason=drill", gateway.token()).status_code == 200
        assert client.keys("*~halt")
        client.flushall()
        valkey.wait_for(lambda: client.keys("*~halt"))


def test_it_is_not_ready_while_alpaca_refuses_its_key_pair(tmp_path: Path) -> None:
    with Origin() as origin:
        origin.reply("/v2/account", Reply(401, {"message": "unauthorized."}))
        origin.reply("/v2/clock", Reply(body={"is_open": True}))
        with Gateway(tmp_path, origin.url) as gateway:
            token = gateway.token()
            gateway.get("/v2/account", token)
            ready = gateway.get("/readyz")
            assert (ready.status_code, ready.json()["checks"]["keys"]) == (503, "refused")
            assert gateway.get("/v2/clock", token).status_code == 200
            assert gateway.get("/readyz").status_code == 200


def test_a_request_under_way_is_finished_when_it_is_told_to_end(tmp_path: Path) -> None:
    with Origin() as origin:
        origin.reply("/v2/clock", Reply(body={"is_open": True}, delay_s=1.0))
        gateway = Gateway(tmp_path, origin.url)
        gateway.start()
        token = gateway.token()
        with gateway.dial() as line:
            line.sendall(f"GET /v2/clock HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
            time.sleep(0.4)
            assert gateway.stop() == 0
            heard = line.recv(65536)
    assert heard.startswith(b"HTTP/1.1 200")
    assert b'{"is_open": true}' in heard


def test_a_restart_loses_no_token_and_ends_with_0(tmp_path: Path, exchange: SimServer) -> None:
    gateway = Gateway(tmp_path, exchange.url)
    gateway.start()
    token = gateway.token()
    assert gateway.get("/v2/clock", token).status_code == 200
    assert gateway.stop() == 0
    gateway.start()
    assert gateway.get("/v2/clock", token).status_code == 200
    assert gateway.stop() == 0


def test_upstream_failures_have_their_own_statuses(tmp_path: Path) -> None:
    with Origin() as origin:
        origin.reply("/v2/account", *[Reply(500, {"message": "oops"})] * 3)
        origin.reply("/v2/clock", Reply(200, b"<html>"))
        origin.reply("/v2/orders", *[Reply(500, {"message": "still"})] * 3)
        with Gateway(tmp_path, origin.url, env={"ALPACLI_MAX_WAIT": "1"}) as gateway:
            token = gateway.token()
            assert gateway.get(f"{V1}/clock", token).json()["error"]["type"] == "UnreadableAnswer"
            assert gateway.get(f"{V1}/account", token).status_code == 502
            gateway.get("/v2/orders", token)
            refused = gateway.get("/v2/orders", token)
            assert (refused.status_code, int(refused.headers["Retry-After"]) > 0) == (503, True)
            ready = gateway.get("/readyz")  # others would not be asked either, and what is cached is still to be had
            assert (ready.status_code, ready.json()["checks"]["upstream"]) == (200, "not asked")


def test_what_alpaca_limits_is_429_and_says_when_to_come_back(tmp_path: Path) -> None:
    with Origin() as origin:
        origin.reply("/v2/positions", Reply(429, {"message": "slow down"}, {"Retry-After": "30"}))
        with Gateway(tmp_path, origin.url, env={"ALPACLI_MAX_WAIT": "1"}) as gateway:
            token = gateway.token()
            limited = gateway.get(f"{V1}/positions", token)
            assert (limited.status_code, limited.headers["Retry-After"]) == (429, "30")
            spent = gateway.get("/v2/clock", token)
            assert (spent.status_code, spent.json()["code"]) == (429, 42910000)
            assert 25 < int(spent.headers["Retry-After"]) <= 31


@pytest.mark.slow
def test_orders_of_the_sdk_are_placed_once_over_a_line_that_loses_answers(tmp_path: Path) -> None:
    """Three quarters of all orders meet a fault; each is there exactly once, or its client was told that it is unknown."""
    with FaultyBroker(tmp_path / "exchange", rate=0.75, faults=("accept and drop", "accept and 500", "502")) as broker:
        env = {"ALPACLI_RATE_LIMIT": "100000", "ALPACLI_BREAKER_OPEN": "0.05", "ALPACLI_MAX_WAIT": "2"}
        with Gateway(tmp_path / "gateway", broker.url, env=env) as gateway:
            token = gateway.token()
            told = []
            for number in range(12):
                order = {
                    "symbol": "AAPL",
                    "side": "buy",
                    "qty": "1",
                    "type": "limit",
                    "limit_price": f"1.{number + 10}",
                }
                answer = gateway.send("POST", "/v2/orders", token, json={**order, "time_in_force": "day"})
                assert answer.status_code in (200, 409, 502, 503), answer.text
                told.append(answer.status_code)
            placed = json.loads(broker.answer("GET", "/v2/orders?status=all&limit=500", keys(), b"").body)
    prices = [order["limit_price"] for order in placed]
    assert len(prices) == len(set(prices))
    assert told.count(200) <= len(prices) <= told.count(200) + told.count(409)
    assert told.count(200) > 3


def test_an_order_whose_fate_a_gateway_does_not_know_is_a_question_on_the_machine_that_sent_it(tmp_path: Path) -> None:
    """The gateway's broker takes every order, loses the answer, and can be asked for nothing for a while."""
    with FaultyBroker(tmp_path / "exchange", rate=1.0, faults=("accept and drop",), deaf=1.0) as broker:
        env = {"ALPACLI_RATE_LIMIT": "100000", "ALPACLI_BREAKER_OPEN": "0.05", "ALPACLI_MAX_WAIT": "1"}
        with Gateway(tmp_path / "gateway", broker.url, env=env) as gateway:
            remote = Alpacli(tmp_path / "remote", {"ALPACLI_PROFILE": "desk", "ALPACLI_BREAKER_OPEN": "0.05"})
            profile = ("profile", "add", "desk", "--gateway", gateway.url, "--token-file", "-", "--no-check")
            assert remote(*profile, stdin=gateway.token().encode()).code == 0
            lost = remote("buy", "AAPL", "1", "--limit", "1", "--max-wait", "3", "--json")
            assert lost.code == 7, lost.errors
            asked = remote("orders", "--unresolved", "--max-wait", "1", "--json")
            assert asked.code == 7, asked.errors
            broker.heal()
            answers = (json.loads(remote("orders", "--unresolved", "--json").out)[0] for _ in range(100))
            found = next(answer for answer in answers if answer["order"])  # the breakers may still be open for a moment
    assert (found["outcome"], found["order"]["symbol"]) == ("placed", "AAPL")


def test_an_id_that_another_order_has_is_refused_over_a_line_that_loses_answers_too(tmp_path: Path) -> None:
    """In Alpaca's own code, as it answers on a line that works, and not with the order of before."""
    with FaultyBroker(tmp_path / "exchange", rate=0.0, faults=("accept and 500",)) as broker:
        with Gateway(tmp_path / "gateway", broker.url, env={"ALPACLI_MAX_WAIT": "2"}) as gateway:
            token = gateway.token()
            order = {
                "symbol": "F",
                "side": "buy",
                "qty": 1,
                "type": "limit",
                "limit_price": 1.0,
                "time_in_force": "day",
            }
            mine = {**order, "client_order_id": "mine"}
            assert gateway.send("POST", "/v2/orders", token, json=mine).status_code == 200
            works = gateway.send("POST", "/v2/orders", token, json={**mine, "symbol": "AAPL"})
            broker.rate = 1.0
            lost = gateway.send("POST", "/v2/orders", token, json={**mine, "symbol": "AAPL"})
            assert (
                (lost.status_code, lost.json()["code"]) == (works.status_code, works.json()["code"]) == (422, 40010001)
            )
            assert "mine is the ID of another order (buy 1 F at 1" in lost.json()["message"]
            equal = gateway.send("POST", "/v2/orders", token, json={**order, "client_order_id": "its own"})
            assert (equal.status_code, equal.json()["client_order_id"]) == (200, "its own")
        found = json.loads(broker.answer("GET", "/v2/orders?status=all", keys(), b"").body)
    assert {row["client_order_id"]: row["symbol"] for row in found} == {"mine": "F", "its own": "F"}
