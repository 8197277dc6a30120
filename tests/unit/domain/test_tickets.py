"""Orders are understood as people, files and Alpaca write them, and leave exactly as meant."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpacli.domain.order_rules import violations
from alpacli.domain.tickets import Leg, OrderTicket, amount, asset_class, read_leg, read_ticket
from alpacli.errors import UsageError


@pytest.mark.parametrize(
    ("fields", "kind", "order_class", "tif"),
    [
        ({"qty": "10"}, "market", "simple", "day"),
        ({"qty": "10", "limit_price": "1"}, "limit", "simple", "day"),
        ({"qty": "10", "stop_price": "1"}, "stop", "simple", "day"),
        ({"qty": "10", "stop_price": "1", "limit_price": "2"}, "stop_limit", "simple", "day"),
        ({"qty": "10", "trail_percent": "1"}, "trailing_stop", "simple", "day"),
        ({"qty": "10", "take_profit": "9"}, "market", "oto", "day"),
        ({"qty": "10", "take_profit": "9", "stop_loss": "8"}, "market", "bracket", "day"),
        ({"qty": "1", "symbol": "BTC/USD"}, "market", "simple", "gtc"),
        ({"qty": "1", "symbol": "ETHUSD"}, "market", "simple", "gtc"),
    ],
)
def test_type_class_and_time_in_force_follow_from_what_is_given(
    fields: dict[str, Any], kind: str, order_class: str, tif: str
) -> None:
    ticket = read_ticket({"symbol": "aapl", "side": "BUY", **fields})
    assert (ticket.type, ticket.order_class, ticket.time_in_force) == (kind, order_class, tif)


@given(st.decimals(min_value="0.000000001", max_value="1e9", places=9))
def test_every_digit_of_a_quantity_leaves(qty: Decimal) -> None:
    body = read_ticket({"symbol": "AAPL", "side": "buy", "qty": str(qty)}).body("x")
    assert Decimal(body["qty"]) == qty
    assert "e" not in body["qty"].lower()


def test_exits_are_read_flat_and_nested_alike() -> None:
    flat = {"symbol": "AAPL", "side": "buy", "qty": 1, "take_profit": "9", "stop_loss": "7", "stop_loss_limit": "6"}
    nested = {
        "symbol": "AAPL",
        "side": "buy",
        "qty": 1,
        "take_profit": {"limit_price": 9},
        "stop_loss": {"stop_price": 7, "limit_price": 6},
    }
    assert read_ticket(flat) == read_ticket(nested)
    assert read_ticket(flat).body("x")["stop_loss"] == {"stop_price": "7", "limit_price": "6"}


@pytest.mark.parametrize(
    "fields",
    [
        {"quantity": 1},
        {"qty": "ten"},
        {"qty": "NaN"},
        {"extended_hours": "maybe"},
        {"take_profit": {"price": 1}},
        {"legs": "x"},
    ],
)
def test_what_makes_no_sense_is_refused_by_name(fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as refused:
        read_ticket({"symbol": "AAPL", "side": "buy", **fields})
    assert refused.value.hint


def test_a_multi_leg_order() -> None:
    legs = [read_leg("AAPL260116C00200000:1:buy_to_open"), read_leg("AAPL260116C00210000:sell_to_open")]
    ticket = read_ticket({"legs": [leg._asdict() for leg in legs], "qty": 1, "type": "limit", "limit_price": "-1.25"})
    assert ticket.order_class == "mleg"
    assert violations(ticket) == []
    body = ticket.body("x")
    assert "symbol" not in body
    assert body["legs"][1] == {"symbol": "AAPL260116C00210000", "ratio_qty": "1", "position_intent": "sell_to_open"}


def test_symbols_tell_what_they_name() -> None:
    assert [asset_class(s) for s in ("AAPL", "BRK.B", "BTC/USD", "BTCUSD", "AAPL260116C00200000")] == [
        *("us_equity", "us_equity", "crypto", "crypto", "us_option")
    ]
    assert amount("qty", " 1,000.50 ") == Decimal("1000.50")
    assert amount("limit_price", "-1,234,567") == Decimal(-1234567)


@pytest.mark.parametrize("text", ["1,5", "10,00", "1,50", ",5", "1,0000", "1.5,000", "1,,000", "1,000,5"])
def test_a_comma_that_parts_no_thousands_is_not_guessed_away(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        amount("qty", text)
    assert "thousands" in refused.value.hint


GOOD: dict[str, Any] = {"symbol": "AAPL", "side": "buy", "qty": Decimal(10)}


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"symbol": None}, "symbol"),
        ({"side": None}, "side"),
        ({"type": "iceberg"}, "type"),
        ({"time_in_force": "gtd"}, "time_in_force"),
        ({"qty": None}, "quantity"),
        ({"notional": Decimal(5)}, "quantity"),
        ({"qty": Decimal(0)}, "quantity"),
        ({"qty": Decimal("1.0000000001")}, "quantity"),
        ({"qty": None, "notional": Decimal("0.5")}, "notional"),
        ({"type": "limit"}, "prices"),
        ({"limit_price": Decimal(1)}, "prices"),
        ({"type": "stop_limit", "stop_price": Decimal(1)}, "prices"),
        ({"type": "limit", "limit_price": Decimal("10.005")}, "tick size"),
        ({"type": "limit", "limit_price": Decimal("0.12345")}, "tick size"),
        ({"type": "trailing_stop"}, "trail"),
        ({"type": "trailing_stop", "trail_percent": Decimal("0.05")}, "trail"),
        ({"type": "trailing_stop", "trail_percent": Decimal(1), "trail_price": Decimal(1)}, "trail"),
        ({"type": "stop", "stop_price": Decimal(5), "time_in_force": "ioc"}, "time in force"),
        ({"qty": Decimal("1.5"), "time_in_force": "gtc"}, "fractional orders"),
        ({"extended_hours": True}, "extended hours"),
        ({"symbol": "BTC/USD", "time_in_force": "day"}, "time in force"),
        ({"symbol": "BTC/USD", "time_in_force": "gtc", "type": "stop", "stop_price": Decimal(5)}, "crypto types"),
        ({"symbol": "AAPL260116C00200000", "time_in_force": "gtc"}, "time in force"),
        ({"symbol": "AAPL260116C00200000", "qty": Decimal("1.5")}, "options quantity"),
        ({"order_class": "bracket", "take_profit": Decimal(9)}, "order class"),
        ({"order_class": "bracket", "take_profit": Decimal(9), "stop_loss": Decimal(10)}, "exit prices"),
        ({"order_class": "oco", "take_profit": Decimal(9), "stop_loss": Decimal(8)}, "order class"),
        ({"stop_loss_limit": Decimal(9)}, "stop loss"),
        ({"order_class": "mleg", "symbol": None, "side": None}, "legs"),
        ({"client_order_id": "x" * 129}, "client_order_id"),
    ],
)
def test_each_rule_is_named_and_says_what_to_do(changes: dict[str, Any], rule: str) -> None:
    found = violations(OrderTicket(**{**GOOD, **changes}))
    assert rule in [item.rule for item in found]
    assert all(item.message and item.fix for item in found)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"type": "limit", "limit_price": Decimal("0.1234")},
        {"qty": None, "notional": Decimal(25)},
        {"type": "limit", "limit_price": Decimal(5), "extended_hours": True},
        {"order_class": "bracket", "take_profit": Decimal(12), "stop_loss": Decimal(9)},
        {
            "side": "sell",
            "type": "limit",
            "order_class": "oco",
            "take_profit": Decimal(12),
            "stop_loss": Decimal(9),
        },
        {"symbol": "BTC/USD", "qty": Decimal("0.0001"), "time_in_force": "gtc"},
        {"type": "trailing_stop", "trail_percent": Decimal("0.1"), "time_in_force": "gtc"},
    ],
)
def test_what_alpaca_takes_breaks_no_rule(changes: dict[str, Any]) -> None:
    assert violations(OrderTicket(**{**GOOD, **changes})) == []


def test_whole_numbers_are_taken_and_what_is_not_exact_is_refused() -> None:
    legs = (Leg("AAPL280121C00250000", 2),)  # type: ignore[arg-type] # what people type
    ticket = OrderTicket("AAPL", "buy", qty=3, limit_price=Decimal("1.5"), legs=legs).checked()  # type: ignore[arg-type] # what a program without types gives
    assert (ticket.qty, ticket.limit_price, ticket.legs[0].ratio_qty) == (Decimal(3), Decimal("1.5"), Decimal(2))
    assert all(type(value) is Decimal for value in (ticket.qty, ticket.legs[0].ratio_qty))
    for wrong in (1.1, "1", True):
        with pytest.raises(UsageError, match="amount"):
            OrderTicket("AAPL", "buy", qty=wrong).checked()  # type: ignore[arg-type] # what a program without types gives
