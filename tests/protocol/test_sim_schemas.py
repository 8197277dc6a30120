"""Every answer of the exchange fits the response schema that Alpaca publishes for it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.openapi import check_answer, document, require_specs, schema_validator
from tests.support.sim_account import SimAccount

from alpacli.sim.demo import seed_demo


@pytest.fixture(params=["always", "xnys"])
def demo(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SimAccount]:
    """The demo account, whose orders and positions are of every kind, on both sets of hours."""
    require_specs()
    with SimAccount(tmp_path, key_id="SIM") as account:
        account.exchange.reset(hours=request.param)
        seed_demo(account.exchange, "SIM")
        yield account


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[SimAccount]:
    require_specs()
    with SimAccount(tmp_path) as account:
        yield account


GETS = [
    ("/v2/account", {}),
    ("/v2/account/configurations", {}),
    ("/v2/account/portfolio/history", {}),
    ("/v2/account/portfolio/history", {"period": "1D", "timeframe": "1H", "cashflow_types": "ALL"}),
    ("/v2/account/activities", {}),
    ("/v2/positions", {}),
    ("/v2/positions/AAPL", {}),
    ("/v2/positions/BTCUSD", {}),
    ("/v2/positions/TSLA", {}),
    ("/v2/orders", {"status": "all", "limit": "500"}),
    ("/v2/orders", {"status": "all", "limit": "500", "nested": "True"}),
    ("/v2/assets", {}),
    ("/v2/assets", {"asset_class": "crypto"}),
    ("/v2/assets/AAPL", {}),
    ("/v2/options/contracts", {"underlying_symbols": "AAPL", "limit": "20"}),
    ("/v2/options/contracts", {"underlying_symbols": "AAPL", "show_deliverables": "true", "limit": "20"}),
    ("/v2/options/contracts", {"underlying_symbols": "AAPL", "status": "inactive", "limit": "20"}),
    ("/v2/clock", {}),
    ("/v2/calendar", {"start": "2026-05-01", "end": "2026-06-30"}),
    ("/v2/watchlists", {}),
    ("/v2/watchlists:by_name", {"name": "Primary Watchlist"}),
]


@pytest.mark.parametrize(("path", "query"), GETS)
def test_every_read_fits_its_schema(demo: SimAccount, path: str, query: dict[str, str]) -> None:
    body = demo.get(path, **query)
    assert body
    check_answer("GET", path, 200, body)


def test_activities_of_one_type_fit_their_own_schema(demo: SimAccount) -> None:
    """The document says oneOf two schemas of which both allow every row, so each row is held against its own."""
    for kind, schema in (("FILL", "TradingActivities"), ("JNLC", "NonTradeActivities")):
        rows = demo.get(f"/v2/account/activities/{kind}")
        assert rows
        for row in rows:
            assert list(schema_validator(schema).iter_errors(row)) == []
            assert row.keys() <= {*document()["components"]["schemas"][schema]["properties"], "description"}


DATA = [
    *(
        (f"/v2/stocks/{channel}{latest}", {"symbols": "AAPL,MSFT"})
        for channel in ("bars", "trades", "quotes")
        for latest in ("", "/latest")
    ),
    *((f"/v2/stocks/AAPL/{channel}", {"limit": "5"}) for channel in ("bars", "trades", "quotes")),
    *((f"/v2/stocks/AAPL/{channel}/latest", {}) for channel in ("bars", "trades", "quotes")),
    ("/v2/stocks/bars", {"symbols": "AAPL", "timeframe": "1Day", "start": "2026-05-01"}),
    ("/v2/stocks/snapshots", {"symbols": "AAPL"}),
    ("/v2/stocks/AAPL/snapshot", {}),
    *((f"/v1beta3/crypto/us/{channel}", {"symbols": "BTC/USD"}) for channel in ("bars", "trades", "quotes")),
    *(
        (f"/v1beta3/crypto/us/latest/{channel}", {"symbols": "BTC/USD"})
        for channel in ("bars", "trades", "quotes", "orderbooks")
    ),
    ("/v1beta3/crypto/us/snapshots", {"symbols": "BTC/USD"}),
    ("/v1beta1/news", {}),
    ("/v1beta1/options/meta/exchanges", {}),
    ("/v1beta1/options/meta/conditions/trade", {}),
    ("/v1beta1/options/snapshots/AAPL", {}),
]


@pytest.mark.parametrize(("path", "query"), DATA)
def test_market_data_fits_its_schema(fresh: SimAccount, path: str, query: dict[str, str]) -> None:
    body = fresh.get(path, **{**query, "limit": "20"} if "latest" not in path else query)
    assert body
    template = path.replace("/crypto/us", "/crypto/{loc}")
    check_answer("GET", template, 200, body, "market-data-api")


@pytest.mark.parametrize("item", ["bars", "trades", "quotes/latest", "trades/latest", "snapshots"])
def test_market_data_of_options_fits_its_schema(fresh: SimAccount, item: str) -> None:
    rows = fresh.get("/v2/options/contracts", underlying_symbols="AAPL", limit="60")["option_contracts"]
    symbols = ",".join(row["symbol"] for row in rows[40:44])
    body = fresh.get(f"/v1beta1/options/{item}", symbols=symbols, start="2026-01-05")
    assert next(iter(body.values()))
    check_answer("GET", f"/v1beta1/options/{item}", 200, body, "market-data-api")


def test_orders_positions_and_settlements_of_options_fit(fresh: SimAccount) -> None:
    rows = fresh.get("/v2/options/contracts", underlying_symbols="AAPL", type="call", limit="60")["option_contracts"]
    legs = [
        {"symbol": row["symbol"], "ratio_qty": "1", "position_intent": intent}
        for row, intent in zip(rows, ("buy_to_open", "sell_to_open"), strict=False)
    ]
    single = {"symbol": rows[2]["symbol"], "side": "buy", "qty": "1", "type": "market", "time_in_force": "day"}
    spread = {"order_class": "mleg", "qty": "2", "type": "market", "time_in_force": "day", "legs": legs}
    for order in (single, spread):
        answer = fresh.send("POST", "/v2/orders", order)
        check_answer("POST", "/v2/orders", answer.status, json.loads(answer.body))
    fresh.clock.advance(3)
    for path, query in (
        ("/v2/orders", {"status": "all", "nested": "true"}),
        ("/v2/orders", {"status": "all"}),
        ("/v2/positions", {}),
    ):
        body = fresh.get(path, **query)
        assert len(body) > 1
        check_answer("GET", path, 200, body)
    path = f"/v2/positions/{rows[2]['symbol']}"
    check_answer("GET", path, 200, fresh.get(path))
    assert fresh.send("POST", f"{path}/exercise").status == 200
    refused = fresh.send("POST", f"{path}/do-not-exercise")
    check_answer("POST", f"{path}/do-not-exercise", 403, json.loads(refused.body))
    fresh.clock.advance(9 * 86_400)
    settled = fresh.get("/v2/account/activities", category="non_trade_activity")
    assert {row["activity_type"] for row in settled} >= {"OPEXC", "OPTRD", "OPASN"}
    for row in settled:
        assert list(schema_validator("NonTradeActivities").iter_errors(row)) == []


@pytest.mark.parametrize(
    "path", ["/v2/account", "/v2/positions", "/v2/orders", "/v2/watchlists", "/v2/account/portfolio/history"]
)
def test_an_account_that_has_done_nothing_fits_too(fresh: SimAccount, path: str) -> None:
    check_answer("GET", path, 200, fresh.get(path))


def test_single_orders_and_watchlist_changes_fit(demo: SimAccount) -> None:
    """Each order by id, nested and by client id; each answer to a change of a watchlist or the configuration."""
    for order in demo.get("/v2/orders", status="all", limit="500"):
        check_answer("GET", f"/v2/orders/{order['id']}", 200, demo.get(f"/v2/orders/{order['id']}", nested="true"))
        found = demo.get("/v2/orders:by_client_order_id", client_order_id=order["client_order_id"])
        check_answer("GET", "/v2/orders:by_client_order_id", 200, found)
    made = json.loads(demo.send("POST", "/v2/watchlists", {"name": "mine", "symbols": ["AAPL"]}).body)
    check_answer("POST", "/v2/watchlists", 200, made)
    path = f"/v2/watchlists/{made['id']}"
    for method, where, body in (
        ("PUT", path, {"name": "ours"}),
        ("POST", path, {"symbol": "MSFT"}),
        ("GET", path, None),
        ("DELETE", f"{path}/MSFT", None),
        ("PATCH", "/v2/account/configurations", {"no_shorting": True}),
    ):
        answer = demo.send(method, where, body)
        check_answer(method, where, answer.status, json.loads(answer.body))
