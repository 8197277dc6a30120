"""An order that is found under a client order ID is the one that was sent, however Alpaca spells it, or it is not."""

from typing import Any

import pytest

from alpacli.domain.identity import difference, told
from alpacli.domain.orders import Order
from alpacli.domain.values import from_json

AAPL = "b0b6dd9d-8b9b-48a9-ba46-b9d54906e415"
OLD = "61e69015-8549-4bfd-b9c3-01e75843f47d"
CALLS = ("AAPL270319C00250000", "AAPL270319C00260000")

SENT: dict[str, Any] = {
    "symbol": "AAPL",
    "side": "buy",
    "type": "limit",
    "time_in_force": "day",
    "limit_price": "150.00",
}
BUY = SENT | {"qty": "10"}
EXITS = {"take_profit": {"limit_price": "160"}, "stop_loss": {"stop_price": "140", "limit_price": "139"}}
SPREAD: dict[str, Any] = {
    "qty": "2",
    "type": "limit",
    "time_in_force": "day",
    "limit_price": "-1.50",
    "order_class": "mleg",
    "legs": [
        {"symbol": CALLS[0], "ratio_qty": "1", "position_intent": "buy_to_open"},
        {"symbol": CALLS[1], "ratio_qty": "2", "position_intent": "sell_to_open", "side": "sell"},
    ],
}


def an_order(**changes: Any) -> Order:
    return Order.model_validate(
        {
            "id": "a1",
            "client_order_id": "mine",
            "symbol": "AAPL",
            "asset_id": AAPL,
            "side": "buy",
            "qty": "10",
            "type": "limit",
            "order_class": "",
            "time_in_force": "day",
            "limit_price": "150",
            "position_intent": "buy_to_open",
            "status": "new",
            "extended_hours": False,
            "created_at": "2026-05-28T20:26:40Z",
            "filled_qty": "0",
        }
        | changes
    )


def a_leg(**changes: Any) -> dict[str, Any]:
    return an_order(**changes).model_dump(exclude_unset=True)


def an_exit(limit_price: str | None, stop_price: str | None, **changes: Any) -> dict[str, Any]:
    return a_leg(side="sell", limit_price=limit_price, stop_price=stop_price, **changes)


BRACKET = {"order_class": "bracket", "legs": (an_exit("160", None), an_exit("139", "140"))}
OF_SEVERAL: dict[str, Any] = {
    "symbol": "",
    "asset_id": "",
    "side": "",
    "position_intent": "",
    "order_class": "mleg",
    "qty": "2",
    "limit_price": "-1.5",
}
BOTH_LEGS = (
    a_leg(symbol=CALLS[1], side="sell", position_intent="sell_to_open", ratio_qty="2", type=""),
    a_leg(symbol=CALLS[0], side="buy", position_intent="buy_to_open", ratio_qty="1", type=""),
)


def how(sent: dict[str, Any], **order: Any) -> str | None:
    return difference("POST", "/v2/orders", sent, an_order(**order))


@pytest.mark.parametrize(
    ("sent", "order"),
    [
        (BUY, {}),
        (BUY | {"qty": "10.000", "limit_price": 150, "side": "BUY", "order_class": "simple"}, {}),
        (BUY | from_json(b'{"qty": 10.0, "limit_price": 150.00}'), {}),
        (BUY | {"stop_price": None, "trail_price": "", "position_intent": "", "extended_hours": None}, {}),
        (BUY, {"order_class": "simple", "type": None, "order_type": "limit"}),
        (BUY | {"position_intent": "buy_to_open"}, {}),
        (BUY | {"position_intent": "buy_to_close"}, {"position_intent": None}),
        (BUY | {"extended_hours": True}, {"extended_hours": True}),
        (BUY, {"status": "replaced", "replaced_by": "a2", "filled_qty": "3"}),
        (BUY | {"symbol": AAPL}, {}),
        (BUY | {"symbol": AAPL.upper()}, {}),
        (BUY | {"symbol": AAPL.replace("-", "")}, {}),
        (BUY | {"symbol": "AAPL:NASDAQ:US_EQUITY"}, {}),
        (BUY | {"symbol": "BTC/USD"}, {"symbol": "BTCUSD"}),
        (BUY | {"symbol": "BTCUSD"}, {"symbol": "BTC/USD"}),
        (SENT | {"notional": "100.004"}, {"qty": None, "notional": "100"}),
        (BUY | {"qty": "0.12345678901"}, {"qty": "0.123456789"}),
        (BUY | {"type": "stop", "stop_price": "151"}, {"type": "stop_limit", "stop_price": "151"}),
        (BUY | {"type": "trailing_stop", "trail_percent": "1"}, {"type": "trailing_stop", "trail_percent": "1"}),
        (BUY | {"qty": "ten", "limit_price": True}, {}),
        (BUY | EXITS | {"order_class": "bracket"}, BRACKET),
        (BUY | EXITS | {"order_class": "bracket"}, {"order_class": "bracket", "legs": None}),
        (BUY | EXITS, BRACKET),
        (BUY | EXITS, {}),
        (
            BUY | {"order_class": "oto", "stop_loss": {"stop_price": "140"}},
            {"order_class": "oto", "legs": (an_exit("139", "140"),)},  # it buys back: Alpaca makes a stop-limit of it
        ),
        (
            BUY | EXITS | {"order_class": "bracket"},
            BRACKET | {"legs": (an_exit("170", None, replaces="a3"), an_exit("139", "140"))},
        ),
        (BUY | EXITS | {"order_class": "bracket"}, BRACKET | {"legs": (an_exit("170", None),)}),
        (BUY | EXITS | {"order_class": "bracket"}, BRACKET | {"legs": (an_exit("170", None),) * 3}),
        (
            BUY | {"order_class": "oto", "take_profit": {"limit_price": "160"}},
            {"order_class": "oto", "legs": (an_exit("160", None),)},
        ),
        (
            {key: BUY[key] for key in ("symbol", "side", "type", "time_in_force", "qty")}
            | EXITS
            | {"order_class": "oco"},
            {"order_class": "oco", "limit_price": "160", "legs": (an_exit("139", "140"),)},
        ),
        (SPREAD, OF_SEVERAL),
        (SPREAD, OF_SEVERAL | {"legs": BOTH_LEGS}),
        (SPREAD | {"legs": "two"}, OF_SEVERAL | {"legs": BOTH_LEGS}),
        (SPREAD, OF_SEVERAL | {"legs": tuple(leg | {"ratio_qty": None, "position_intent": ""} for leg in BOTH_LEGS)}),
        ({}, {}),
    ],
)
def test_an_order_that_says_what_was_sent_is_this_order_in_whatever_spelling(
    sent: dict[str, Any], order: dict[str, Any]
) -> None:
    assert how(sent, **order) is None


@pytest.mark.parametrize(
    ("sent", "order", "words"),
    [
        (BUY, {"symbol": "MSFT"}, "its symbol is MSFT, not AAPL"),
        (BUY, {"symbol": None}, "its symbol is several legs, not AAPL"),
        (BUY | {"symbol": "BTC/USD"}, {"symbol": "ETHUSD"}, "its symbol is ETHUSD, not BTC/USD"),
        (BUY | {"symbol": OLD}, {}, f"its symbol is AAPL, not {OLD}"),
        (BUY | {"symbol": AAPL}, {"asset_id": None}, f"its symbol is AAPL, not {AAPL}"),
        (BUY, {"side": "sell"}, "its side is sell, not buy"),
        (BUY, {"side": ""}, "its side is none, not buy"),
        (BUY, {"type": "market"}, "its type is market, not limit"),
        (BUY | {"type": "stop"}, {"type": "stop_limit", "side": "sell"}, "its side is sell, not buy"),
        (
            BUY | {"type": "stop", "side": "sell"},
            {"type": "stop_limit", "side": "sell"},
            "its type is stop_limit, not stop",
        ),
        (BUY | {"type": "stop_limit"}, {"type": "stop"}, "its type is stop, not stop_limit"),
        (BUY | {"type": "market"}, {"type": "stop_limit"}, "its type is stop_limit, not market"),
        (BUY, {"time_in_force": "gtc"}, "its time_in_force is gtc, not day"),
        (BUY | {"position_intent": "buy_to_close"}, {}, "its position_intent is buy_to_open, not buy_to_close"),
        (BUY, {"qty": "11"}, "its qty is 11, not 10"),
        (BUY, {"qty": "9"}, "its qty is 9, not 10"),
        (BUY, {"qty": "10.000000001"}, "its qty is 10.000000001, not 10"),
        (BUY, {"qty": None, "notional": "10"}, "its qty is none, not 10"),
        (SENT | {"notional": "100"}, {"qty": None, "notional": "100.01"}, "its notional is 100.01, not 100"),
        (SENT | {"notional": "100"}, {}, "its notional is none, not 100"),
        (BUY, {"limit_price": "150.01"}, "its limit_price is 150.01, not 150"),
        (BUY | {"stop_price": "9"}, {"stop_price": "8"}, "its stop_price is 8, not 9"),
        (BUY | {"trail_price": "9"}, {"trail_price": "8"}, "its trail_price is 8, not 9"),
        (BUY | {"trail_percent": "9"}, {"trail_price": "9"}, "its trail_percent is none, not 9"),
        (BUY | {"extended_hours": True}, {}, "its extended_hours is false, not true"),
        (BUY | {"extended_hours": False}, {"extended_hours": True}, "its extended_hours is true, not false"),
        (BUY, {"replaces": OLD, "symbol": "MSFT"}, f"it replaces {OLD}"),
        (BUY, {"order_class": "bracket"}, "its class is bracket, not simple"),
        (BUY | EXITS | {"order_class": "bracket"}, {}, "its class is simple, not bracket"),
        (
            BUY | EXITS | {"order_class": "bracket"},
            BRACKET | {"legs": (an_exit("161", None), an_exit("139", "140"))},
            "its take_profit.limit_price is 161, not 160",
        ),
        (
            BUY | EXITS | {"order_class": "bracket"},
            BRACKET | {"legs": (an_exit("160", None), an_exit("139", "141"))},
            "its stop_loss.stop_price is 141, not 140",
        ),
        (
            BUY | EXITS | {"order_class": "bracket"},
            BRACKET | {"legs": (an_exit("160", None), an_exit(None, "140"))},
            "its stop_loss.limit_price is none, not 139",
        ),
        (
            BUY | {"order_class": "oto", "take_profit": {"limit_price": "160"}},
            {"order_class": "oto", "legs": (an_exit("161", None),)},
            "its take_profit.limit_price is 161, not 160",
        ),
        (
            {"symbol": "AAPL"} | EXITS | {"order_class": "oco"},
            {"order_class": "oco", "limit_price": "161"},
            "its limit_price is 161, not 160",
        ),
        (
            {"symbol": "AAPL"} | EXITS | {"order_class": "oco"},
            {"order_class": "oco", "limit_price": "160", "legs": (an_exit("139", "141"),)},
            "its stop_loss.stop_price is 141, not 140",
        ),
        (SPREAD, OF_SEVERAL | {"limit_price": "1.5"}, "its limit_price is 1.5, not -1.5"),
        (SPREAD, {}, "its class is simple, not mleg"),
        (
            SPREAD,
            OF_SEVERAL | {"legs": BOTH_LEGS[:1]},
            f"its legs are {CALLS[1]}, not {CALLS[0]} {CALLS[1]}",
        ),
        (
            SPREAD,
            OF_SEVERAL | {"legs": (BOTH_LEGS[0], BOTH_LEGS[1] | {"symbol": "KO"})},
            f"its legs are {CALLS[1]} KO, not {CALLS[0]} {CALLS[1]}",
        ),
        (
            SPREAD,
            OF_SEVERAL | {"legs": (*BOTH_LEGS, a_leg(symbol="KO"))},
            f"its legs are {CALLS[0]} {CALLS[1]} KO, not {CALLS[0]} {CALLS[1]}",
        ),
        (
            SPREAD,
            OF_SEVERAL | {"legs": (BOTH_LEGS[0], BOTH_LEGS[1] | {"ratio_qty": "3"})},
            f"its ratio_qty of {CALLS[0]} is 3, not 1",
        ),
        (
            SPREAD,
            OF_SEVERAL | {"legs": (BOTH_LEGS[0] | {"side": "buy"}, BOTH_LEGS[1])},
            f"its side of {CALLS[1]} is buy, not sell",
        ),
        (
            SPREAD,
            OF_SEVERAL | {"legs": (BOTH_LEGS[0], BOTH_LEGS[1] | {"position_intent": "buy_to_close"})},
            f"its position_intent of {CALLS[0]} is buy_to_close, not buy_to_open",
        ),
    ],
)
def test_an_order_that_says_something_else_is_another_and_how_one_can_tell_is_said(
    sent: dict[str, Any], order: dict[str, Any], words: str
) -> None:
    assert how(sent, **order) == words


@pytest.mark.parametrize(
    ("changes", "order", "words"),
    [
        ({"limit_price": "5.50"}, {"limit_price": "5.5"}, None),
        ({"qty": "3", "time_in_force": "gtc"}, {"qty": "3", "time_in_force": "gtc"}, None),
        ({"trail": "2"}, {"trail_price": "2"}, None),
        ({"trail": "2"}, {"trail_percent": "2.0"}, None),
        ({"limit_price": "5.50"}, {"limit_price": "5.4"}, "its limit_price is 5.4, not 5.5"),
        ({"stop_price": "5"}, {"stop_price": "4"}, "its stop_price is 4, not 5"),
        ({"qty": "3"}, {"qty": "4"}, "its qty is 4, not 3"),
        ({"trail": "2"}, {"trail_price": "3", "trail_percent": "2"}, "its trail is 3, not 2"),
        ({"time_in_force": "gtc"}, {}, "its time_in_force is day, not gtc"),
        ({"limit_price": "150"}, {"replaces": None}, f"it replaces no order, not {OLD}"),
        ({"limit_price": "150"}, {"replaces": "a2"}, f"it replaces a2, not {OLD}"),
    ],
)
def test_a_replacement_is_the_one_that_was_asked_for_if_it_replaces_that_order_and_has_the_changes(
    changes: dict[str, Any], order: dict[str, Any], words: str | None
) -> None:
    assert difference("PATCH", f"/v2/orders/{OLD}", changes, an_order(**{"replaces": OLD} | order)) == words
    path = f"/v2/orders/{OLD.replace('-', '').upper()}"
    assert (difference("PATCH", path, changes, an_order(**{"replaces": OLD} | order)) is None) == (words is None)


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ({}, "buy 10 AAPL at 150, new, of 2026-05-28T20:26:40Z"),
        (
            {"qty": None, "notional": "50.00", "limit_price": None, "status": "canceled", "filled_qty": "0.5"},
            "buy 50 USD of AAPL, canceled, 0.5 filled, of 2026-05-28T20:26:40Z",
        ),
        (
            {"status": "partially_filled", "filled_qty": "3.0"},
            "buy 10 AAPL at 150, partially_filled, 3 filled, of 2026-05-28T20:26:40Z",
        ),
        ({"status": "filled", "filled_qty": "10"}, "buy 10 AAPL at 150, filled, of 2026-05-28T20:26:40Z"),
        (OF_SEVERAL, "2 of several legs at -1.5, new, of 2026-05-28T20:26:40Z"),
    ],
)
def test_an_order_that_nobody_expected_is_told_in_a_few_words(order: dict[str, Any], words: str) -> None:
    assert told(an_order(**order)) == words
