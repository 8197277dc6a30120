"""What Alpaca refuses is refused, with its code."""

import json
from decimal import Decimal
from typing import Any

import pytest
from tests.support.sim_account import SimAccount

PLAIN = {"symbol": "AAPL", "side": "buy", "qty": "1", "type": "market", "time_in_force": "day"}
LIMIT = {**PLAIN, "type": "limit", "limit_price": "100"}
BRACKET = {
    **LIMIT,
    "order_class": "bracket",
    "take_profit": {"limit_price": "110"},
    "stop_loss": {"stop_price": "90"},
}
COIN = {**PLAIN, "symbol": "BTC/USD", "time_in_force": "gtc"}


def post(account: SimAccount, body: dict[str, Any]) -> tuple[int, Any]:
    answer = account.send("POST", "/v2/orders", body)
    return answer.status, json.loads(answer.body)


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ({**PLAIN, "qty": None}, 40010001, "qty or notional is required"),
        ({**PLAIN, "notional": "5"}, 40010001, "only one of qty or notional is accepted"),
        ({**PLAIN, "qty": "0"}, 40010001, "qty must be > 0"),
        ({**PLAIN, "qty": "ten"}, 40010001, "invalid qty"),
        ({**PLAIN, "qty": "1e99"}, 40010001, "invalid qty"),
        ({**PLAIN, "qty": True}, 40010001, "invalid qty"),
        ({**PLAIN, "type": "magic"}, 40010001, "invalid order type"),
        ({**PLAIN, "time_in_force": "week"}, 40010001, "invalid time_in_force"),
        ({**PLAIN, "side": "hold"}, 40010001, "invalid side"),
        ({**PLAIN, "symbol": ""}, 40010001, "symbol is required"),
        ({**PLAIN, "limit_price": "5"}, 40010001, "market orders require no stop or limit price"),
        ({**PLAIN, "trail_price": "5"}, 40010001, "market orders must not have trail_price"),
        ({**PLAIN, "type": "limit"}, 40010001, "limit orders require a limit price"),
        ({**PLAIN, "type": "stop"}, 40010001, "stop orders require a stop price"),
        ({**LIMIT, "type": "stop_limit"}, 40010001, "stop limit orders require both stop and limit price"),
        ({**LIMIT, "limit_price": "-1"}, 40010001, "limit price must be > 0"),
        (
            {**PLAIN, "type": "trailing_stop", "trail_price": "1", "trail_percent": "1"},
            40010001,
            "trailing stop orders must specify one of trail_price or trail_percent",
        ),
        ({**PLAIN, "type": "trailing_stop", "trail_percent": "0.05"}, 40010001, "trail_percent must be >= 0.1"),
        ({**PLAIN, "client_order_id": "x" * 129}, 40010001, "client_order_id must be no more than 128 characters"),
        ({**PLAIN, "symbol": "NOPE"}, 42210000, 'asset "NOPE" not found'),
        ({**PLAIN, "symbol": "AAPL260619C00300000"}, 42210000, "option contract AAPL260619C00300000 not found"),
        ({**LIMIT, "limit_price": 100.005}, 42210000, "invalid limit_price 100.005. sub-penny increment does not"),
        ({**PLAIN, "qty": "1.5", "time_in_force": "gtc"}, 42210000, "fractional orders must be DAY orders"),
        ({**BRACKET, "qty": "1.5"}, 42210000, "fractional orders must be simple orders"),
        ({**PLAIN, "qty": "1.5", "side": "sell"}, 42210000, "fractional orders cannot be sold short"),
        ({**PLAIN, "qty": None, "notional": "0.5"}, 42210000, "notional must be >= 1.00"),
        ({**PLAIN, "extended_hours": True}, 42210000, "extended hours order must be DAY or GTC limit orders"),
        ({**LIMIT, "extended_hours": True, "time_in_force": "ioc"}, 42210000, "extended hours order must be"),
        ({**PLAIN, "type": "stop", "stop_price": "1"}, 42210000, "stop price must be greater than current price"),
        ({**PLAIN, "symbol": "GME", "side": "sell"}, 42210000, 'asset "GME" cannot be sold short'),
        ({**BRACKET, "time_in_force": "ioc"}, 42210000, "bracket orders must be DAY or GTC orders"),
        ({**BRACKET, "stop_loss": None}, 40010001, "bracket orders require stop_loss.stop_price"),
        ({**BRACKET, "order_class": "oto"}, 40010001, "oto orders require one of take_profit or stop_loss"),
        ({**BRACKET, "order_class": "simple"}, 40010001, "order_class must be bracket, oco or oto"),
        ({**BRACKET, "take_profit": {"limit_price": "80"}}, 42210000, "take_profit.limit_price must be > stop_loss"),
        (
            {**BRACKET, "take_profit": {"limit_price": "100"}},
            42210000,
            "take_profit.limit_price must be >= base_price + 0.01",
        ),
        (
            {**BRACKET, "stop_loss": {"stop_price": "100"}},
            42210000,
            "stop_loss.stop_price must be <= base_price - 0.01",
        ),
        ({**BRACKET, "order_class": "oco"}, 42210000, "take_profit.limit_price must be < stop_loss.stop_price"),
        ({**PLAIN, "position_intent": "buy_to_close"}, 42210000, "position intent mismatch, inferred buy_to_open"),
        ({**COIN, "time_in_force": "day"}, 42210000, "invalid crypto time_in_force"),
        ({**COIN, "type": "stop", "stop_price": "1"}, 42210000, "invalid order type for crypto order"),
        ({"order_class": "mleg", "symbol": "AAPL", "legs": []}, 40010001, "symbol is not allowed for mleg order"),
        ({"order_class": "mleg", "legs": [{}]}, 42210000, "legs must be 2 to 4"),
    ],
)
def test_422(account: SimAccount, body: dict[str, Any], code: int, message: str) -> None:
    status, answer = post(account, body)
    assert (status, answer["code"]) == (422, code), answer
    assert answer["message"].startswith(message)
    assert account.get("/v2/orders", status="all") == []


def test_403_buying_power_with_what_there_is_and_what_it_costs(account: SimAccount) -> None:
    status, answer = post(account, {**LIMIT, "qty": "3000"})
    assert (status, answer["code"], answer["message"]) == (403, 40310000, "insufficient buying power")
    assert (answer["buying_power"], answer["cost_basis"]) == ("200000", "300000")
    assert post(account, {**LIMIT, "qty": "2000"})[0] == 200
    assert account.get("/v2/account")["buying_power"] == "0"
    assert post(account, {**LIMIT, "symbol": "F", "limit_price": "1"})[0] == 403


@pytest.mark.parametrize(("multiplier", "most"), [("1", "1000"), ("2", "2000"), ("4", "4000")])
def test_the_multiplier_decides_how_much_there_is(account: SimAccount, multiplier: str, most: str) -> None:
    account.send("PATCH", "/v2/account/configurations", {"max_margin_multiplier": multiplier})
    assert post(account, {**LIMIT, "qty": str(int(most) + 1)})[0] == 403
    assert post(account, {**LIMIT, "qty": most})[0] == 200
    assert account.get("/v2/account")["buying_power"] == "0"
    short = post(account, {**PLAIN, "symbol": "MSFT", "side": "sell"})
    assert short[0] == 403


def test_coins_are_paid_in_full(account: SimAccount) -> None:
    assert post(account, {**COIN, "type": "limit", "limit_price": "50000", "qty": "2.1"})[0] == 403
    assert post(account, {**COIN, "type": "limit", "limit_price": "50000", "qty": "2"})[0] == 200
    assert post(account, {**COIN, "type": "limit", "limit_price": "50000", "qty": "0.01"})[0] == 403
    assert (
        post(account, {**COIN, "qty": "0.000000001"})[1]["message"] == "cost basis must be >= minimal amount of order 1"
    )
    status, answer = post(account, {**COIN, "symbol": "ETH/USD", "side": "sell"})
    assert (status, answer["code"], answer["available"]) == (403, 40310000, "0")


def test_shares_are_sold_once(account: SimAccount) -> None:
    account.trade("AAPL", "buy", "10")
    assert post(account, {**LIMIT, "side": "sell", "qty": "6", "limit_price": "900"})[0] == 200
    status, answer = post(account, {**LIMIT, "side": "sell", "qty": "5", "limit_price": "900"})
    assert status == 403
    assert answer == {
        "code": 40310000,
        "message": "insufficient qty available for order (requested: 5, available: 4)",
        "available": "4",
        "existing_qty": "10",
        "held_for_orders": "6",
        "symbol": "AAPL",
    }


@pytest.mark.parametrize(
    ("resting", "new", "reason"),
    [
        ({"limit_price": "100"}, {"type": "market"}, "limit"),
        ({"limit_price": "100"}, {"type": "limit", "limit_price": "100"}, "limit"),
        ({"type": "market"}, {"type": "limit", "limit_price": "900"}, "market/stop"),
        (
            {"type": "stop", "stop_price": "800", "limit_price": None},
            {"type": "limit", "limit_price": "900"},
            "market/stop",
        ),
    ],
)
def test_wash_trades(account: SimAccount, resting: dict[str, Any], new: dict[str, Any], reason: str) -> None:
    account.trade("AAPL", "buy", "10")
    body = {**LIMIT, **resting}
    if body["type"] == "market":
        body.pop("limit_price")
    status, first = post(account, body)
    assert status == 200, first
    status, answer = post(account, {**PLAIN, "side": "sell", **new})
    assert (status, answer["code"]) == (403, 40310000), answer
    assert answer["message"] == "potential wash trade detected. use complex orders"
    assert answer["reject_reason"] == f"opposite side {reason} order exists"
    assert answer["existing_order_id"] == first["id"]


def test_limits_that_cannot_meet_and_complex_orders_are_no_wash_trade(account: SimAccount) -> None:
    account.trade("AAPL", "buy", "10")
    assert post(account, LIMIT)[0] == 200
    assert post(account, {**LIMIT, "side": "sell", "limit_price": "900", "qty": "5"})[0] == 200
    trailing = {**PLAIN, "side": "sell", "type": "trailing_stop", "trail_percent": "5", "qty": "5"}
    assert post(account, trailing)[0] == 200


def test_an_order_never_turns_a_position_around(account: SimAccount) -> None:
    account.trade("AAPL", "buy", "10")
    assert post(account, {**PLAIN, "side": "sell", "qty": "11"})[0] == 403
    assert (
        post(
            account,
            {**BRACKET, "side": "sell", "take_profit": {"limit_price": "80"}, "stop_loss": {"stop_price": "120"}},
        )[1]["message"]
        == "bracket orders must be entry orders"
    )
    assert post(account, {**LIMIT, "symbol": "MSFT"})[0] == 200
    status, answer = post(account, {**LIMIT, "symbol": "MSFT", "side": "sell", "limit_price": "900"})
    assert (status, answer["message"]) == (422, "cannot open a short sell while a long buy order exists")


def test_a_client_order_id_is_used_once_for_ever(account: SimAccount) -> None:
    status, made = post(account, {**LIMIT, "client_order_id": "mine"})
    assert status == 200
    account.send("DELETE", f"/v2/orders/{made['id']}")
    account.clock.advance(1)
    status, answer = post(account, {**LIMIT, "client_order_id": "mine"})
    assert (status, answer) == (422, {"code": 40010001, "message": "client_order_id must be unique"})
    assert account.get("/v2/orders:by_client_order_id", client_order_id="mine")["status"] == "canceled"


def test_configurations_forbid(account: SimAccount) -> None:
    account.send("PATCH", "/v2/account/configurations", {"no_shorting": True, "fractional_trading": False})
    assert post(account, {**PLAIN, "side": "sell"})[1]["message"] == "account is not allowed to short"
    assert "fractional trading is disabled" in post(account, {**PLAIN, "qty": "0.5"})[1]["message"]
    account.send("PATCH", "/v2/account/configurations", {"suspend_trade": True})
    assert post(account, PLAIN)[1] == {"code": 40310000, "message": "account is not authorized to trade"}


def test_replace_and_cancel_refusals(account: SimAccount) -> None:
    _, order = post(account, LIMIT)
    path = f"/v2/orders/{order['id']}"
    for body, message in (
        ({}, "order parameters are not changed"),
        ({"qty": "1", "limit_price": 100.0}, "order parameters are not changed"),
        ({"qty": "1.5"}, "qty must be integer"),
        ({"qty": "0"}, "qty must be > 0"),
        ({"limit_price": "100.001"}, "invalid limit_price 100.001. sub-penny"),
        ({"qty": "3000"}, "insufficient buying power"),
        ({"trail": "5"}, "trail is for trailing stop orders"),
    ):
        answer = account.send("PATCH", path, body)
        assert answer.status in (403, 422)
        assert json.loads(answer.body)["message"].startswith(message)
    assert account.send("DELETE", path).status == 204
    assert account.send("DELETE", path).status == 204
    assert json.loads(account.send("PATCH", path, {"qty": "2"}).body)["message"].endswith("in pending_cancel status")
    account.clock.advance(1)
    answer = account.send("DELETE", path)
    assert (answer.status, json.loads(answer.body)) == (
        422,
        {"code": 42210000, "message": 'order is already in "canceled" state'},
    )
    assert json.loads(account.send("PATCH", path, {"qty": "2"}).body)["message"].endswith("order is not open")
    missing = "/v2/orders/61e69015-8549-4bfd-b9c3-01e75843f47d"
    assert account.send("DELETE", missing).status == account.send("PATCH", missing, {"qty": "2"}).status == 404


def test_numbers_are_exact_however_they_are_written(account: SimAccount) -> None:
    """The official SDK sends floats: 150.1 is 150.1."""
    status, answer = post(account, {**LIMIT, "limit_price": 150.1, "qty": 2.0})
    assert (status, answer["limit_price"], answer["qty"]) == (200, "150.1", "2")
    answer = account.send("POST", "/v2/orders", {**LIMIT, "limit_price": float("nan")})
    assert answer.status == 400
    assert Decimal(account.get("/v2/account")["buying_power"]) == Decimal("199699.8")
