"""Options on the exchange: who may have which order, what fills do, and what becomes of a position in the end."""

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.support.fakes import ManualClock
from tests.support.sim_account import SimAccount

from alpacli.sim.desk import Strain

MONDAY = 1_780_322_400.0  # 2026-06-01, 10:00 in New York
HOUR, DAY = 3_600, 86_400
ZERO = Decimal(0)


class Trader(SimAccount):
    """An account that trades options on AAPL that expire on Friday."""

    def post(self, body: dict[str, Any]) -> tuple[int, Any]:
        answer = self.send("POST", "/v2/orders", body)
        return answer.status, json.loads(answer.body)

    def place(
        self, symbol: str, side: str, qty: int | str = 1, limit: str | None = None, **more: Any
    ) -> tuple[int, Any]:
        body = {"symbol": symbol, "side": side, "qty": str(qty), "time_in_force": "day", **more}
        body |= {"type": "market"} if limit is None else {"type": "limit", "limit_price": limit}
        return self.post({**body, **more})

    def trade(self, symbol: str, side: str, qty: int | str = 1, price: str | None = None) -> str:
        """Place an order at the market and see it filled."""
        status, order = self.place(symbol, side, qty)
        assert status == 200, order
        self.clock.advance(2)
        assert self.get(f"/v2/orders/{order['id']}")["status"] == "filled"
        return str(order["id"])

    def package(
        self, *legs: tuple[str, str, int], qty: int = 1, limit: str | None = None, **more: Any
    ) -> tuple[int, Any]:
        body: dict[str, Any] = {"order_class": "mleg", "qty": str(qty), "time_in_force": "day", **more}
        body |= {"type": "market"} if limit is None else {"type": "limit", "limit_price": limit}
        body["legs"] = [
            {"symbol": symbol, "ratio_qty": str(ratio), "position_intent": intent} for symbol, intent, ratio in legs
        ]
        return self.post(body)

    def money(self) -> dict[str, Decimal]:
        names = ("cash", "equity", "options_buying_power", "buying_power", "initial_margin")
        shown = self.get("/v2/account")
        return {name: Decimal(shown[name]) for name in names}

    def held(self) -> dict[str, Decimal]:
        return {row["symbol"]: Decimal(row["qty"]) for row in self.get("/v2/positions")}

    def price(self) -> Decimal:
        return self.exchange.market().tape.last("AAPL", self.exchange.now_ns())

    def contract(self, kind: str, away: int) -> str:
        """Return the contract whose strike is so many steps of 2.50 USD (5 from 250 on) above the price, or below."""
        rows = self.get("/v2/options/contracts", underlying_symbols="AAPL", type=kind, limit="500")["option_contracts"]
        strikes = [Decimal(row["strike_price"]) for row in rows]
        at = sum(strike < self.price() for strike in strikes)
        return str(rows[at + away]["symbol"])

    def settled(self, *kinds: str) -> list[tuple[str, str, str, str]]:
        rows = self.get("/v2/account/activities", direction="asc", activity_types=",".join(kinds))
        return [(row["activity_type"], row["symbol"], row["qty"], row["net_amount"]) for row in rows]

    def level(self, level: int) -> None:
        assert self.send("PATCH", "/v2/account/configurations", {"max_options_trading_level": level}).status == 200


@pytest.fixture
def trader(tmp_path: Path) -> Iterator[Trader]:
    with Trader(tmp_path, ManualClock(MONDAY)) as made:
        made.exchange.reset(rate_limit=0)
        yield made


@pytest.fixture
def nyse(tmp_path: Path) -> Iterator[Trader]:
    with Trader(tmp_path, ManualClock(MONDAY)) as made:
        made.exchange.reset(hours="xnys", rate_limit=0)
        yield made


# ------------------------------------------------------------------------------------------------ one contract


def test_a_contract_costs_a_hundred_times_its_price(trader: Trader) -> None:
    call = trader.contract("call", 1)
    order = trader.get(f"/v2/orders/{trader.trade(call, 'buy', 3)}")
    assert (order["asset_class"], order["position_intent"], order["order_class"]) == (
        "us_option",
        "buy_to_open",
        "simple",
    )
    paid = Decimal(order["filled_avg_price"]) * 300
    (position,) = trader.get("/v2/positions")
    assert (position["asset_class"], position["exchange"], position["asset_id"]) == ("us_option", "", order["asset_id"])
    assert Decimal(position["cost_basis"]) == paid
    assert position["avg_entry_price"] == order["filled_avg_price"]
    assert Decimal(position["market_value"]) == Decimal(position["current_price"]) * 300
    money = trader.money()
    assert money["cash"] == 100_000 - paid
    assert money["equity"] == money["cash"] + Decimal(position["market_value"])
    assert money["options_buying_power"] == money["cash"]
    assert trader.get(f"/v2/positions/{order['asset_id']}") == trader.get(f"/v2/positions/{call}") == position


def test_a_limit_is_met_at_the_price_of_that_moment(trader: Trader) -> None:
    call = trader.contract("call", 1)
    tape = trader.exchange.market().tape
    limit = tape.quote(call, trader.exchange.now_ns()).ask - Decimal("0.15")
    status, order = trader.place(call, "buy", 1, format(limit, "f"), time_in_force="gtc")
    assert status == 200
    met_ns = tape.first(call, trader.exchange.now_ns(), int((MONDAY + 3 * DAY) * 10**9), limit, "buy")
    assert met_ns is not None
    trader.clock.advance(3 * DAY)
    filled = trader.get(f"/v2/orders/{order['id']}")
    assert filled["status"] == "filled"
    assert Decimal(filled["filled_avg_price"]) <= limit
    assert Decimal(filled["filled_avg_price"]) == tape.quote(call, met_ns).ask


def test_closing_a_position_sells_it(trader: Trader) -> None:
    call = trader.contract("call", 0)
    trader.trade(call, "buy", 2)
    answer = trader.send("DELETE", f"/v2/positions/{call}", qty="1")
    assert answer.status == 200
    assert json.loads(answer.body)["position_intent"] == "sell_to_close"
    trader.clock.advance(2)
    assert trader.held() == {call: Decimal(1)}
    assert trader.send("DELETE", "/v2/positions").status == 207
    trader.clock.advance(2)
    assert trader.held() == {}
    assert trader.money()["equity"] == trader.money()["cash"] == trader.money()["options_buying_power"]


REFUSED = [
    ({"qty": "1.5"}, 422, 40010001, "qty must be integer"),
    ({"qty": None, "notional": "500"}, 422, 42210000, "notional orders are not supported for options"),
    ({"time_in_force": "ioc"}, 422, 42210000, "invalid time_in_force for options order"),
    (
        {"type": "market", "limit_price": None, "time_in_force": "gtc"},
        422,
        42210000,
        "invalid time_in_force for options order",
    ),
    ({"type": "stop", "limit_price": None, "stop_price": "3"}, 422, 42210000, "invalid order type for options order"),
    ({"extended_hours": True}, 422, 42210000, "extended hours are not supported for options"),
    ({"limit_price": "1.255"}, 422, 42210000, "limit price must be limited to 2 decimal places"),
    ({"order_class": "bracket"}, 422, 42210000, "complex orders are not supported for options"),
    (
        {"position_intent": "sell_to_close", "side": "sell"},
        *(422, 42210000, "position intent mismatch, inferred sell_to_open, specified sell_to_close"),
    ),
    ({"symbol": "AAPL260605C00271830"}, 422, 42210000, "option contract AAPL260605C00271830 not found"),
    ({"symbol": "AAPL260529C00270000"}, 422, 42210000, "option contract AAPL260529C00270000 is expired"),
    ({"symbol": "ZZZZ260605C00270000"}, 422, 42210000, "option contract ZZZZ260605C00270000 not found"),
]


@pytest.mark.parametrize(("change", "status", "code", "message"), REFUSED)
def test_what_an_option_order_cannot_be(
    trader: Trader, change: dict[str, Any], status: int, code: int, message: str
) -> None:
    body = {"symbol": trader.contract("call", 0), "side": "buy", "qty": "1", "type": "limit", "limit_price": "1.20"}
    answer = trader.post({**body, "time_in_force": "day", **change})
    assert answer == (status, {"code": code, "message": message})


def test_at_the_market_only_while_it_is_open(nyse: Trader) -> None:
    call = nyse.contract("call", 0)
    nyse.clock.advance(10 * HOUR)
    status, body = nyse.place(call, "buy")
    assert (status, body["message"]) == (422, "options market orders are only allowed during market hours")
    status, order = nyse.place(call, "buy", 1, "60")
    assert (status, order["status"]) == (200, "accepted")
    nyse.clock.advance(14 * HOUR)
    filled = nyse.get(f"/v2/orders/{order['id']}")
    assert (filled["status"], filled["filled_at"][:16]) == ("filled", "2026-06-02T13:30")


def test_no_order_outlives_its_contract(trader: Trader) -> None:
    call = trader.contract("call", -10)
    status, order = trader.place(call, "buy", 1, "0.01", time_in_force="gtc")
    assert status == 200
    trader.clock.advance(6 * DAY)
    ended = trader.get(f"/v2/orders/{order['id']}")
    assert (ended["status"], ended["expired_at"]) == ("expired", "2026-06-06T04:00:00Z")


def test_what_nobody_bids_for_is_not_sold(trader: Trader) -> None:
    put = trader.contract("put", -12)
    assert trader.exchange.market().tape.quote(put, trader.exchange.now_ns()).bid == 0
    trader.trade(put, "buy")
    status, order = trader.place(put, "sell")
    assert status == 200
    trader.clock.advance(HOUR)
    assert trader.get(f"/v2/orders/{order['id']}")["status"] == "new"


# -------------------------------------------------------------------------------------- levels, and what covers


def test_buying_needs_money(trader: Trader) -> None:
    status, body = trader.place(trader.contract("call", -10), "buy", 40)
    assert (status, body["code"], body["message"]) == (403, 40310000, "insufficient options buying power")
    assert body["options_buying_power"] == "100000"
    assert Decimal(body["cost_basis"]) > 100_000


def test_a_short_put_keeps_its_strike_in_cash(trader: Trader) -> None:
    put = trader.contract("put", -1)
    strike = Decimal(put[-8:]) / 1000
    status, body = trader.place(put, "sell", 5)
    assert (status, body["message"]) == (403, "insufficient options buying power for cash-secured put")
    assert Decimal(body["required_options_buying_power"]) == strike * 500
    order = trader.get(f"/v2/orders/{trader.trade(put, 'sell', 2)}")
    received = Decimal(order["filled_avg_price"]) * 200
    money = trader.money()
    assert money["cash"] == 100_000 + received
    assert money["options_buying_power"] == money["cash"] - strike * 200
    assert trader.held() == {put: Decimal(-2)}
    assert trader.place(put, "sell", 2)[0] == 403
    trader.trade(put, "buy", 2)
    assert trader.money()["options_buying_power"] == trader.money()["cash"]


def test_a_covered_call_holds_its_shares(trader: Trader) -> None:
    call = trader.contract("call", 2)
    status, body = trader.place(call, "sell")
    assert (status, body["message"]) == (403, "account not eligible to trade uncovered option contracts")
    trader.trade("AAPL", "buy", 150)
    trader.trade(call, "sell")
    assert trader.get("/v2/positions/AAPL")["qty_available"] == "50"
    status, body = trader.place("AAPL", "sell", 60)
    assert (status, body["available"], body["held_for_orders"]) == (403, "50", "100")
    assert trader.place(call, "sell")[0] == 403
    trader.trade(call, "buy")
    assert trader.get("/v2/positions/AAPL")["qty_available"] == "150"


def test_a_call_that_is_on_order_holds_its_shares_too(trader: Trader) -> None:
    trader.trade("AAPL", "buy", 100)
    status, order = trader.place(trader.contract("call", 2), "sell", 1, "30")
    assert status == 200
    assert trader.place("AAPL", "sell", 1)[0] == 403
    assert trader.send("DELETE", f"/v2/orders/{order['id']}").status == 204
    trader.clock.advance(1)
    assert trader.place("AAPL", "sell", 100)[0] == 200


def test_the_option_that_covers_another_is_not_sold_away(trader: Trader) -> None:
    low, high = trader.contract("call", 0), trader.contract("call", 1)
    trader.trade(low, "buy")
    trader.trade(high, "sell")
    status, body = trader.place(low, "sell")
    assert (status, body["message"]) == (403, "account not eligible to trade uncovered option contracts")
    assert trader.place(high, "buy")[0] == 200
    trader.clock.advance(2)
    assert trader.place(low, "sell")[0] == 200


def test_levels_allow_more_and_more(trader: Trader) -> None:
    call, put = trader.contract("call", 1), trader.contract("put", -1)
    higher = trader.contract("call", 2)
    spread = ((call, "buy_to_open", 1), (higher, "sell_to_open", 1))
    trader.level(0)
    assert trader.get("/v2/account")["options_trading_level"] == 0
    status, body = trader.place(put, "sell")
    assert (status, body["message"]) == (403, "account not eligible for level 1 options trading")
    trader.level(1)
    assert trader.place(put, "sell", 1, "30")[0] == 200
    assert trader.place(call, "buy")[1]["message"] == "account not eligible for level 2 options trading"
    status, body = trader.place(call, "sell")
    assert (status, body["message"]) == (403, "insufficient underlying qty available for covered call")
    assert (body["available_qty"], body["required_qty"]) == ("0", "100")
    assert body["underlying_asset_id"] == trader.get("/v2/assets/AAPL")["id"]
    trader.level(2)
    trader.trade(call, "buy")
    assert trader.place(higher, "sell")[1]["message"] == "account not eligible for level 3 options trading"
    assert trader.package(*spread)[1]["message"] == "account not eligible for level 3 options trading"
    trader.level(3)
    assert trader.place(higher, "sell")[0] == 200


# -------------------------------------------------------------------------------------------------- several legs


def test_a_spread_fills_as_one(trader: Trader) -> None:
    low, high = trader.contract("call", 0), trader.contract("call", 2)
    status, order = trader.package((low, "buy_to_open", 1), (high, "sell_to_open", 1), qty=4, limit="9.90")
    assert status == 200
    assert (order["symbol"], order["side"], order["asset_id"], order["order_class"]) == ("", "", "", "mleg")
    assert [(leg["type"], leg["ratio_qty"], leg["qty"]) for leg in order["legs"]] == [("", "1", "4"), ("", "1", "4")]
    trader.clock.advance(2)
    done = trader.get(f"/v2/orders/{order['id']}", nested="true")
    assert [done["status"], *(leg["status"] for leg in done["legs"])] == ["filled"] * 3
    bought, sold = (Decimal(leg["filled_avg_price"]) for leg in done["legs"])
    assert Decimal(done["filled_avg_price"]) == bought - sold <= Decimal("9.90")
    assert trader.held() == {low: Decimal(4), high: Decimal(-4)}
    assert trader.money()["cash"] == 100_000 - (bought - sold) * 400
    assert trader.money()["options_buying_power"] == trader.money()["cash"]
    rows = trader.get("/v2/account/activities/FILL")
    assert {row["order_id"] for row in rows} == {leg["id"] for leg in done["legs"]}


def test_a_credit_spread_keeps_its_width(trader: Trader) -> None:
    low, high = trader.contract("call", 1), trader.contract("call", 3)
    width = (Decimal(high[-8:]) - Decimal(low[-8:])) / 1000
    status, order = trader.package((low, "sell_to_open", 1), (high, "buy_to_open", 1), qty=2, limit="-0.10")
    assert status == 200, order
    trader.clock.advance(2)
    done = trader.get(f"/v2/orders/{order['id']}", nested="true")
    assert Decimal(done["filled_avg_price"]) <= Decimal("-0.10")
    money = trader.money()
    assert money["cash"] == 100_000 - Decimal(done["filled_avg_price"]) * 200
    assert money["options_buying_power"] == money["cash"] - width * 200


def test_a_condor_is_one_order(trader: Trader) -> None:
    legs = [(trader.contract("put", -3), "buy_to_open", 1), (trader.contract("put", -1), "sell_to_open", 1)]
    legs += [(trader.contract("call", 1), "sell_to_open", 1), (trader.contract("call", 3), "buy_to_open", 1)]
    status, order = trader.package(*legs)
    assert status == 200, order
    trader.clock.advance(2)
    assert len(trader.held()) == 4
    status, back = trader.package(
        *((symbol, f"{'sell' if intent[0] == 'b' else 'buy'}_to_close", 1) for symbol, intent, _ in legs)
    )
    assert status == 200, back
    trader.clock.advance(2)
    assert trader.held() == {}
    assert trader.money()["options_buying_power"] == trader.money()["cash"]


def test_a_leg_opens_no_position_while_an_order_opens_the_other_way(trader: Trader) -> None:
    """Else what fills first would be turned around by what fills next; the same as for orders of one leg."""
    low, high = trader.contract("call", -1), trader.contract("call", 1)
    assert trader.package((low, "buy_to_open", 1), (high, "sell_to_open", 1), qty=2, limit="0.01")[0] == 200
    status, refused = trader.package((low, "sell_to_open", 1), (trader.contract("call", 3), "buy_to_open", 1))
    assert (status, refused["code"]) == (422, 42210000)
    assert refused["message"] == "cannot open a short sell while a long buy order exists"
    assert trader.package((high, "sell_to_open", 1), (trader.contract("call", 3), "buy_to_open", 1))[0] == 200


def test_one_event_tells_of_all_legs(trader: Trader) -> None:
    low, high = trader.contract("call", 0), trader.contract("call", 2)
    _, order = trader.package((low, "buy_to_open", 1), (high, "sell_to_open", 2))
    assert order["message"] == "account not eligible to trade uncovered option contracts"
    _, order = trader.package((low, "buy_to_open", 2), (high, "sell_to_open", 1))
    trader.clock.advance(2)
    trader.get("/v2/account")
    told = trader.exchange.events_after(trader.exchange.account_number(trader.key_id, "secret"), 0)
    assert told is not None
    updates = [json.loads(event.data) for event in told]
    assert {update["order"]["id"] for update in updates} == {order["id"]}
    assert [update["event"] for update in updates][:2] == ["pending_new", "new"]
    fill = updates[-1]
    assert fill["event"] == "fill"
    assert fill["position_qtys"] == {low: "2", high: "-1"}
    assert [(leg["symbol"], leg["qty"]) for leg in fill["legs"]] == [(low, "2"), (high, "1")]
    net = Decimal(fill["legs"][0]["price"]) * 2 - Decimal(fill["legs"][1]["price"])
    assert Decimal(fill["price"]) == net
    assert [leg["status"] for leg in fill["order"]["legs"]] == ["filled", "filled"]


def test_a_package_waits_for_its_price_and_is_canceled_as_one(trader: Trader) -> None:
    low, high = trader.contract("call", 0), trader.contract("call", 2)
    _, order = trader.package((low, "buy_to_open", 1), (high, "sell_to_open", 1), limit="0.10")
    trader.clock.advance(60)
    waiting = trader.get(f"/v2/orders/{order['id']}", nested="true")
    assert [waiting["status"], *(leg["status"] for leg in waiting["legs"])] == ["new"] * 3
    assert trader.money()["options_buying_power"] == 99_990
    assert trader.get("/v2/orders", symbols=low, nested="true")[0]["id"] == order["id"]
    assert {row["symbol"] for row in trader.get("/v2/orders", symbols="AAPL", asset_class="us_option")} == {
        "",
        low,
        high,
    }
    assert trader.send("DELETE", f"/v2/orders/{order['legs'][0]['id']}").status == 204
    trader.clock.advance(1)
    ended = trader.get(f"/v2/orders/{order['id']}", nested="true")
    assert [ended["status"], *(leg["status"] for leg in ended["legs"])] == ["canceled"] * 3
    assert trader.get("/v2/orders") == []


def test_a_package_is_replaced_as_one(trader: Trader) -> None:
    low, high = trader.contract("call", 0), trader.contract("call", 2)
    _, order = trader.package((low, "buy_to_open", 1), (high, "sell_to_open", 1), limit="0.10")
    trader.clock.advance(1)
    assert trader.send("PATCH", f"/v2/orders/{order['legs'][0]['id']}", {"limit_price": "1"}).status == 422
    assert trader.send("PATCH", f"/v2/orders/{order['id']}", {"limit_price": "0.10"}).status == 422
    answer = trader.send("PATCH", f"/v2/orders/{order['id']}", {"limit_price": "9.90", "qty": "3"})
    assert answer.status == 200, answer.body
    trader.clock.advance(3)
    new = trader.get(f"/v2/orders/{json.loads(answer.body)['id']}", nested="true")
    assert (new["status"], new["replaces"], [leg["qty"] for leg in new["legs"]]) == ("filled", order["id"], ["3", "3"])
    assert trader.get(f"/v2/orders/{order['id']}")["status"] == "replaced"
    assert trader.held() == {low: Decimal(3), high: Decimal(-3)}


def leg(
    symbol: str = "AAPL260605C00280000", intent: Any = "buy_to_open", ratio: Any = "1", **more: Any
) -> dict[str, Any]:
    return {"symbol": symbol, "position_intent": intent, "ratio_qty": ratio, **more}


SECOND = leg("AAPL260605C00285000", "sell_to_open")
BAD_PACKAGES = [
    ({"symbol": "AAPL"}, 40010001, "symbol is not allowed for mleg order"),
    ({"legs": [leg()]}, 42210000, "legs must be 2 to 4"),
    ({"legs": [leg(), leg()]}, 42210000, "symbols must be unique"),
    ({"legs": [leg(), leg("AAPL260605C00285000", None)]}, 42210000, "leg.1 position intent is required"),
    ({"legs": [leg(ratio="2"), {**SECOND, "ratio_qty": "4"}]}, 42210000, "ratio_qty of legs must be in lowest terms"),
    ({"legs": [leg(), leg("SPY260605C00690000")]}, 42210000, "legs must have the same underlying symbol"),
    ({"legs": [leg("AAPL"), SECOND]}, 42210000, "option contract AAPL not found"),
    ({"legs": [leg(ratio="1.5"), SECOND]}, 40010001, "ratio_qty must be integer"),
    (
        {"legs": [leg(intent="buy_to_close"), SECOND]},
        *(42210000, "position intent mismatch, inferred buy_to_open, specified buy_to_close"),
    ),
    ({"limit_price": None}, 42210000, "limit price required"),
    ({"limit_price": "1.005"}, 42210000, "limit price must be limited to 2 decimal places"),
    ({"qty": None}, 40010001, "qty is required"),
    ({"qty": "0.5"}, 40010001, "qty must be integer"),
    ({"time_in_force": "fok"}, 42210000, "invalid time_in_force for options order"),
    ({"type": "stop"}, 42210000, "invalid order type for options order"),
]


@pytest.mark.parametrize(("change", "code", "message"), BAD_PACKAGES)
def test_what_a_package_cannot_be(trader: Trader, change: dict[str, Any], code: int, message: str) -> None:
    body = {"order_class": "mleg", "qty": "1", "type": "limit", "limit_price": "1", "time_in_force": "day"}
    assert trader.post({**body, "legs": [leg(), SECOND], **change}) == (422, {"code": code, "message": message})


# ---------------------------------------------------------------------------------------------------- in the end


def test_what_is_in_the_money_is_exercised(trader: Trader) -> None:
    call = trader.contract("call", -8)
    strike = Decimal(call[-8:]) / 1000
    trader.trade(call, "buy", 2)
    before = trader.money()["cash"]
    trader.clock.advance(6 * DAY)
    assert trader.held() == {"AAPL": Decimal(200)}
    assert trader.money()["cash"] == before - strike * 200
    assert Decimal(trader.get("/v2/positions/AAPL")["avg_entry_price"]) == strike
    exercised, shares = trader.settled("OPEXC", "OPTRD")
    assert exercised == ("OPEXC", call, "-2", "0")
    assert shares[:3] == ("OPTRD", "AAPL", "200")
    assert Decimal(shares[3]) == -strike * 200
    rows = trader.get("/v2/account/activities", activity_types="OPEXC,OPTRD")
    assert len({row["group_id"] for row in rows}) == 1
    assert {row["date"] for row in rows} == {"2026-06-05"}


def test_what_is_out_of_the_money_ends(trader: Trader) -> None:
    call, put = trader.contract("call", 5), trader.contract("put", -3)
    trader.trade(call, "buy", 2)
    trader.trade(put, "sell")
    before = trader.money()["cash"]
    trader.clock.advance(6 * DAY)
    assert trader.held() == {}
    assert trader.money()["cash"] == trader.money()["equity"] == trader.money()["options_buying_power"] == before
    assert trader.settled("OPEXP") == [("OPEXP", put, "1", "0"), ("OPEXP", call, "-2", "0")]


def test_a_short_call_in_the_money_takes_the_shares(trader: Trader) -> None:
    trader.trade("AAPL", "buy", 100)
    call = trader.contract("call", -8)
    strike = Decimal(call[-8:]) / 1000
    trader.trade(call, "sell")
    before = trader.money()["cash"]
    trader.clock.advance(6 * DAY)
    assert trader.held() == {}
    assert trader.money()["cash"] == before + strike * 100
    assert [row[:3] for row in trader.settled("OPASN", "OPTRD")] == [("OPASN", call, "1"), ("OPTRD", "AAPL", "-100")]


def test_a_short_put_in_the_money_brings_the_shares(trader: Trader) -> None:
    put = trader.contract("put", 8)
    strike = Decimal(put[-8:]) / 1000
    trader.trade(put, "sell", 3)
    before = trader.money()["cash"]
    trader.clock.advance(6 * DAY)
    assert trader.held() == {"AAPL": Decimal(300)}
    assert trader.money()["cash"] == before - strike * 300 > 0


def test_a_spread_in_the_money_settles_without_shares(trader: Trader) -> None:
    low, high = trader.contract("call", -10), trader.contract("call", -8)
    width = (Decimal(high[-8:]) - Decimal(low[-8:])) / 1000
    assert trader.package((low, "buy_to_open", 1), (high, "sell_to_open", 1), qty=60)[0] == 200
    trader.clock.advance(2)
    before = trader.money()["cash"]
    trader.clock.advance(6 * DAY)
    assert trader.held() == {}
    assert trader.money()["cash"] == before + width * 6_000


def test_what_its_owner_cannot_pay_for_is_sold(trader: Trader) -> None:
    call = trader.contract("call", 0)
    trader.trade(call, "buy", 90)
    before = trader.money()["cash"]
    market, ends_ns = trader.exchange.market(), int((MONDAY + 4 * DAY + 14 * HOUR) * 10**9)
    trader.clock.advance(6 * DAY)
    assert trader.held() == {}
    worth = market.tape.last(call, ends_ns)
    assert trader.money()["cash"] == before + worth * 9_000
    if worth:
        assert trader.get("/v2/orders", status="closed")[0]["position_intent"] == "sell_to_close"


def test_whoever_forbids_exercise_lets_it_end(trader: Trader) -> None:
    call = trader.contract("call", -8)
    trader.trade(call, "buy")
    answer = trader.send("POST", f"/v2/positions/{call}/do-not-exercise")
    assert (answer.status, answer.body) == (200, b"")
    trader.clock.advance(6 * DAY)
    assert trader.held() == {}
    assert trader.settled("OPEXP") == [("OPEXP", call, "-1", "0")]


def test_exercise_brings_the_shares_at_once(trader: Trader) -> None:
    call = trader.contract("call", -2)
    strike = Decimal(call[-8:]) / 1000
    trader.trade(call, "buy", 3)
    assert trader.place(call, "sell", 1, "90")[0] == 200  # which keeps one of them back
    equity, value = trader.money()["equity"], Decimal(trader.get(f"/v2/positions/{call}")["market_value"])
    answer = trader.send("POST", f"/v2/positions/{call}/exercise")
    assert (answer.status, answer.body) == (200, b"")
    assert trader.held() == {"AAPL": Decimal(200), call: Decimal(1)}
    lost = value * 2 / 3 - (trader.price() - strike) * 200
    assert abs(trader.money()["equity"] - (equity - lost)) <= Decimal("0.02")


def test_shares_that_only_make_good_a_short_sale_cover_no_call(trader: Trader) -> None:
    """The long call that stands behind a short one is not exercised away while its shares go to somebody else."""
    low, high = trader.contract("call", -2), trader.contract("call", 2)
    trader.trade(low, "buy")
    trader.trade(high, "sell")
    trader.trade("AAPL", "sell", 100)
    refused = trader.send("POST", f"/v2/positions/{low}/exercise")
    assert refused.status == 403
    assert json.loads(refused.body)["message"] == "account not eligible to trade uncovered option contracts"
    trader.trade("AAPL", "buy", 100)
    assert trader.send("POST", f"/v2/positions/{low}/exercise").status == 200
    assert trader.held() == {high: Decimal(-1), "AAPL": Decimal(100)}


def test_a_put_sells_the_shares_that_are_there(trader: Trader) -> None:
    trader.trade("AAPL", "buy", 100)
    put = trader.contract("put", 2)
    trader.trade(put, "buy")
    assert trader.send("POST", f"/v2/positions/{put}/exercise").status == 200
    assert trader.held() == {}
    assert [row[:3] for row in trader.settled("OPEXC", "OPTRD")] == [("OPEXC", put, "-1"), ("OPTRD", "AAPL", "-100")]


def test_what_cannot_be_exercised(trader: Trader) -> None:
    call, put = trader.contract("call", 0), trader.contract("put", -1)

    def refusal(symbol: str, what: str = "exercise") -> tuple[int, Any]:
        answer = trader.send("POST", f"/v2/positions/{symbol}/{what}")
        body = json.loads(answer.body)
        return answer.status, (body["code"], body["message"])

    nothing = (403, (40310000, "no available position for the specified contract"))
    assert refusal(call) == refusal(call, "do-not-exercise") == nothing
    assert refusal("AAPL") == refusal("nonsense", "do-not-exercise") == (422, (42210000, "invalid symbol"))
    trader.trade(put, "sell")
    assert refusal(put) == (403, (40310001, "cannot exercise short position"))
    assert refusal(put, "do-not-exercise") == (403, (40310001, "cannot submit DNE for short position"))
    trader.trade(call, "buy", 10)
    assert refusal(call)[1] == (40310000, "insufficient buying power")
    assert trader.send("DELETE", f"/v2/positions/{call}", qty="9").status == 200
    trader.clock.advance(2)
    assert trader.place(call, "sell", 1, "90")[0] == 200
    assert refusal(call) == nothing


def test_exercise_is_refused_in_the_evening(nyse: Trader) -> None:
    call = nyse.contract("call", -1)
    nyse.trade(call, "buy")
    nyse.clock.advance(7 * HOUR)
    answer = nyse.send("POST", f"/v2/positions/{call}/exercise")
    assert answer.status == 403
    nyse.clock.advance(10 * HOUR)
    assert nyse.send("POST", f"/v2/positions/{call}/exercise").status == 200


def test_on_real_days_options_end_with_the_session(nyse: Trader) -> None:
    call = nyse.contract("call", 6)
    nyse.trade(call, "buy")
    nyse.clock.advance(4 * DAY + 6 * HOUR - 3)
    assert nyse.held() == {call: Decimal(1)}
    nyse.clock.advance(2)
    assert nyse.held() == {}
    assert nyse.get("/v2/account/activities/OPEXP")[0]["created_at"] == "2026-06-05T20:00:00Z"


def test_history_knows_what_was_settled(trader: Trader) -> None:
    """Equity of the past is worked out from what was held then, options included."""
    trader.trade(trader.contract("call", -4), "buy")
    trader.clock.advance(6 * DAY)
    history = trader.get("/v2/account/portfolio/history", period="1W", timeframe="1D")
    assert Decimal(str(history["equity"][-1])) == trader.money()["equity"]
    assert Decimal(str(history["equity"][-1])) != Decimal(str(history["equity"][-4]))


def test_a_harsher_market_is_harsher_for_options_too(tmp_path: Path) -> None:
    with Trader(tmp_path, ManualClock(MONDAY)) as trader:
        trader.exchange.reset(rate_limit=0, strain=Strain(50_000_000, Decimal(200)))
        call = trader.contract("call", -3)
        trader.trade(call, "buy")
        filled_ns = trader.exchange.now_ns() - 2 * 10**9
        paid = Decimal(trader.get(f"/v2/positions/{call}")["avg_entry_price"])
        assert paid > trader.exchange.market().tape.quote(call, filled_ns).ask * Decimal("1.01")
