"""The user's own rules, as they stand in ``risk.toml``."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from alpacli.broker.risk import RiskRules, read_rules, risk_violations
from alpacli.domain.account import Account, Position
from alpacli.domain.market import MarketClock
from alpacli.domain.order_rules import Facts
from alpacli.domain.orders import Order
from alpacli.domain.tickets import OrderTicket, read_ticket
from alpacli.domain.worth import Quote
from alpacli.errors import ConfigError

MARKET = Quote(Decimal(9), Decimal(10))
LOW, HIGH = "AAPL261218C00250000", "AAPL261218C00260000"


@pytest.mark.parametrize(
    "text",
    ["max_order_qty = 1e999999999999999999999", "max_order_qty = " + "1" * 5000, "x = " + "[" * 5000, "x = ", "x = 1"],
)
def test_a_rule_that_cannot_be_read_is_no_missing_rule(tmp_path: Path, text: str) -> None:
    (tmp_path / "risk.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_rules(str(tmp_path), None)
    assert "no order was sent" in caught.value.hint


def test_the_rules_of_a_profile_go_before_those_for_all(tmp_path: Path) -> None:
    assert read_rules(str(tmp_path), None) == RiskRules()
    (tmp_path / "risk.toml").write_text(
        "max_order_qty = 10\nmax_daily_loss = 50.5\n[profiles.bot]\nmax_order_qty = 2.5\n"
    )
    assert read_rules(str(tmp_path), None) == RiskRules(max_order_qty=Decimal(10), max_daily_loss=Decimal("50.5"))
    assert read_rules(str(tmp_path), "bot").max_order_qty == Decimal("2.5")
    assert read_rules(str(tmp_path), "bot").max_daily_loss == Decimal("50.5")


@pytest.mark.parametrize("text", ["profiles = 5", "[profiles.other]\nmax_order_qty = -1", "[profiles.other]\nmax = 1"])
def test_a_mistake_in_the_rules_of_any_profile_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "risk.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"risk\.toml: "):
        read_rules(str(tmp_path), None)
    (tmp_path / "risk.toml").unlink()
    (tmp_path / "risk.toml").mkdir()
    with pytest.raises(ConfigError, match="cannot read"):
        read_rules(str(tmp_path), None)


@pytest.mark.parametrize(
    "rules",
    [
        RiskRules(max_order_notional=Decimal(1)),
        RiskRules(max_position_notional=Decimal(1)),
        RiskRules(max_position_percent=Decimal(1)),
        RiskRules(max_daily_loss=Decimal(1)),
        RiskRules(market_hours_only=True),
    ],
)
def test_a_rule_refuses_where_what_it_asks_for_cannot_be_learned(rules: RiskRules) -> None:
    (violation,) = risk_violations(rules, OrderTicket(symbol="AAPL", side="buy", qty=Decimal(1)), Facts(), 0)
    assert "known" in violation.message


@pytest.mark.parametrize("facts", [Facts(), Facts(positions=[]), Facts(positions=[], open_orders=[])])
def test_a_share_of_equity_needs_the_positions_the_open_orders_and_the_equity(facts: Facts) -> None:
    priced = OrderTicket(symbol="AAPL", side="buy", qty=Decimal(1), type="limit", limit_price=Decimal(5))
    (violation,) = risk_violations(RiskRules(max_position_percent=Decimal(1)), priced, facts, 0)
    assert "known" in violation.message


# ------------------------------------------------------------------------------------------ how large an order is


def position(symbol: str, qty: int, price: int | None = 10) -> Position:
    kind = "us_option" if symbol in (LOW, HIGH) else "us_equity"
    per = 100 if kind == "us_option" else 1
    value = None if price is None else qty * price * per
    return Position.model_validate(
        {"symbol": symbol, "asset_id": "a", "asset_class": kind, "exchange": "NASDAQ", "qty": qty, "current_price": price,
         "side": "long" if qty > 0 else "short", "avg_entry_price": 10, "cost_basis": qty * 10 * per, "market_value": value}
    )  # fmt: skip


def waiting(side: str, qty: int | None, **told: Any) -> Order:
    return Order.model_validate(
        {"id": "o", "client_order_id": "c", "symbol": "AAPL", "side": side, "qty": qty, "filled_qty": 0, "type": "limit",
         "order_class": "", "time_in_force": "day", "status": "new", "extended_hours": False,
         "created_at": "2026-01-05T14:01:02Z", **told}
    )  # fmt: skip


def messages(rules: RiskRules, fields: dict[str, Any], facts: Facts) -> list[str]:
    return [found.message for found in risk_violations(rules, read_ticket({"symbol": "AAPL", **fields}), facts, 0)]


@pytest.mark.parametrize(
    ("fields", "refused"),
    [
        ({"side": "sell", "qty": "10", "limit_price": "0.01"}, True),
        ({"side": "sell", "qty": "10", "stop_price": "20", "limit_price": "0.01"}, True),
        ({"side": "sell", "qty": "10", "stop_price": "8", "limit_price": "0.01"}, False),
        ({"side": "sell", "qty": "9", "limit_price": "0.01"}, False),
        ({"side": "buy", "qty": "10", "limit_price": "8"}, False),
        ({"side": "buy", "qty": "10", "stop_price": "0.01"}, True),
    ],
)
def test_an_order_is_held_against_the_rules_at_what_the_market_would_pay(
    fields: dict[str, str], *, refused: bool
) -> None:
    """A limit of a cent sells at the bid: it is a floor, and no price."""
    found = messages(RiskRules(max_order_notional=Decimal(85)), fields, Facts(positions=[], quote=MARKET))
    assert [("is more than 85 USD" in message) for message in found] == [True] * refused


def test_a_sale_whose_market_is_unknown_is_refused_whatever_its_limit() -> None:
    fields = {"side": "sell", "qty": "1", "limit_price": "0.01"}
    (found,) = messages(RiskRules(max_order_notional=Decimal(85)), fields, Facts(positions=[]))
    assert "no price is known" in found


@pytest.mark.parametrize(("notional", "refused"), [("200", False), ("200.01", True)])
def test_an_amount_of_money_is_counted_in_shares(notional: str, *, refused: bool) -> None:
    rules = RiskRules(max_order_qty=Decimal(20))
    fields = {"side": "buy", "notional": notional}
    found = messages(rules, fields, Facts(positions=[], quote=MARKET))
    assert found == ["your own rule max_order_qty: about 20.00 is more than the largest order, 20"] * refused
    (unknown,) = messages(rules, fields, Facts(positions=[]))
    assert "no price is known" in unknown


def test_each_rule_asks_for_the_market_only_where_it_decides() -> None:
    buy = OrderTicket(symbol="AAPL", side="buy", qty=Decimal(1), limit_price=Decimal(5))
    shares, money, position_ = (RiskRules(**{name: Decimal(1)}) for name in (
        "max_order_qty", "max_order_notional", "max_position_percent"
    ))  # fmt: skip
    assert not RiskRules().needs_quote(buy._replace(side="sell"))
    assert [rule.needs_quote(buy) for rule in (shares, money, position_)] == [False, False, True]
    assert [rule.needs_quote(buy._replace(side="sell")) for rule in (shares, money)] == [False, True]
    of_money = OrderTicket(symbol="AAPL", side="buy", notional=Decimal(5))
    assert [rule.needs_quote(of_money) for rule in (shares, money)] == [True, False]


@pytest.mark.parametrize(
    ("rules", "symbol", "rule"),
    [
        ({"blocked_symbols": ("aapl",)}, "AAPL", "blocked_symbols"),
        ({"blocked_symbols": ("AAPL",)}, LOW, "blocked_symbols"),
        ({"blocked_symbols": ("BTC/USD",)}, "BTCUSD", "blocked_symbols"),
        ({"blocked_symbols": ("BTCUSD",)}, "BTC/USD", "blocked_symbols"),
        ({"blocked_symbols": ("AAPL",)}, "AAPL:NASDAQ", "blocked_symbols"),
        ({"blocked_symbols": ("AA",)}, "AAPL", None),
        ({"allowed_symbols": ("BTC/USD",)}, "BTCUSD", None),
        ({"allowed_symbols": ("AAPL",)}, LOW, "allowed_symbols"),
        ({"allowed_symbols": ()}, "AAPL", "allowed_symbols"),
    ],
)
def test_a_symbol_is_known_in_every_spelling_and_a_blocked_one_behind_its_options(
    rules: dict[str, Any], symbol: str, rule: str | None
) -> None:
    order = OrderTicket(symbol=symbol, side="buy", qty=Decimal(1))
    found = risk_violations(RiskRules(**rules), order, Facts(positions=[]), 0)
    assert [violation.rule for violation in found] == ([] if rule is None else [rule])


@pytest.mark.parametrize(
    ("fields", "positions", "open_orders", "after"),
    [
        ({"side": "buy", "qty": "3"}, [position("AAPL", 2)], [waiting("buy", 4, limit_price=8)], "82.00"),
        ({"side": "buy", "qty": "3"}, [], [waiting("buy", 4, type="market")], "70.00"),
        ({"side": "buy", "qty": "3"}, [], [waiting("buy", 4, filled_qty=1, type="market")], "60.00"),
        ({"side": "buy", "qty": "3"}, [], [waiting("sell", 4, limit_price=8)], "30.00"),
        ({"side": "buy", "qty": "3"}, [], [waiting("buy", 4, symbol="MSFT", limit_price=8)], "30.00"),
        ({"side": "buy", "qty": "3"}, [], [waiting("buy", None, notional=7, type="market")], "37.00"),
        ({"side": "sell", "qty": "3", "limit_price": "1"}, [], [waiting("sell", 4, limit_price=1)], "63.00"),
        ({"side": "sell", "qty": "3"}, [position("AAPL", -2)], [], "47.00"),
        ({"symbol": LOW, "side": "buy", "qty": "1"}, [], [waiting("buy", 1, symbol=LOW, limit_price=8)], "1,800.00"),
    ],
)
def test_a_position_is_what_is_held_and_all_that_waits_to_make_it_larger(
    fields: dict[str, Any], positions: list[Position], open_orders: list[Order], after: str
) -> None:
    facts = Facts(positions=positions, open_orders=open_orders, quote=MARKET)
    (found,) = messages(RiskRules(max_position_notional=Decimal(1)), fields, facts)
    assert f"about {after} USD" in found


SPREAD: dict[str, Any] = {
    "symbol": None, "order_class": "mleg", "qty": "2", "limit_price": "1",
    "legs": [
        {"symbol": LOW, "ratio_qty": "1", "position_intent": "buy_to_open"},
        {"symbol": HIGH, "ratio_qty": "3", "position_intent": "sell_to_open"},
    ],
}  # fmt: skip


def test_each_leg_is_held_against_its_own_position_and_what_waits_in_other_spreads() -> None:
    leg = waiting("sell", 9, symbol=HIGH, ratio_qty=3, type="", position_intent="sell_to_open").model_dump(mode="json")
    other = waiting("", 3, symbol="", order_class="mleg", limit_price=1, legs=[leg])
    facts = Facts(
        positions=[position(LOW, 5), position(HIGH, -1)],
        open_orders=[other],
        leg_quotes={LOW: MARKET, HIGH: Quote(Decimal(2), Decimal(3))},
    )
    low, high = messages(RiskRules(max_position_notional=Decimal(1)), SPREAD, facts)
    assert f"about {5 * 1000 + 2 * 1000:,}.00 USD" in low
    assert f"about {1 * 1000 + 6 * 200 + 9 * 200:,}.00 USD" in high
    assert not messages(RiskRules(max_position_notional=Decimal(7000)), SPREAD, facts)


def test_a_leg_that_only_makes_its_position_smaller_passes_and_one_without_a_price_does_not() -> None:
    ways_out = zip(SPREAD["legs"], ("sell_to_close", "buy_to_close"), strict=True)
    out = SPREAD | {"legs": [leg | {"position_intent": intent} for leg, intent in ways_out]}
    held = [position(LOW, 2), position(HIGH, -6)]
    rules = RiskRules(max_position_notional=Decimal(1))
    assert not messages(rules, out, Facts(positions=held, open_orders=[]))
    low, high = messages(rules, out, Facts(positions=[], open_orders=[]))
    assert f"no price of {LOW} is known" in low
    assert f"no price of {HIGH} is known" in high


def test_a_position_without_a_quote_is_valued_at_its_last_price() -> None:
    facts = Facts(positions=[position("AAPL", 2)], open_orders=[])
    (found,) = messages(RiskRules(max_position_notional=Decimal(1)), {"side": "buy", "qty": "1"}, facts)
    assert "about 30.00 USD" in found
    facts = Facts(positions=[position("AAPL", 2, None)], open_orders=[])
    (found,) = messages(RiskRules(max_position_notional=Decimal(1)), {"side": "buy", "qty": "1"}, facts)
    assert "no price of AAPL is known" in found


# ---------------------------------------------------------------------------------------------------- how they say it


def account(**told: Any) -> Account:
    return Account.model_validate(
        {"id": "a", "account_number": "1", "status": "ACTIVE", "currency": "USD", "created_at": "2026-01-05T14:01:02Z",
         "trading_blocked": False, "cash": "1000", "equity": "1000", "last_equity": "1060", **told}
    )  # fmt: skip


def clock(*, is_open: bool) -> MarketClock:
    at = "2026-05-28T20:26:40Z"
    return MarketClock.model_validate({"timestamp": at, "is_open": is_open, "next_open": at, "next_close": at})


BUY = {"side": "buy", "qty": "3"}
FACTS = Facts(positions=[], open_orders=[], quote=MARKET, account=account())


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        (
            {"max_position_percent": "2.9"},
            ["max_position_percent: the position would be 3.0 % of equity, and 2.9 % are"],
        ),
        ({"max_position_percent": "3"}, []),
        (
            {"max_position_notional": "29"},
            ["max_position_notional: the position would be worth about 30.00 USD, and 29 USD"],
        ),
        ({"max_position_notional": "30"}, []),
        ({"max_daily_loss": "59"}, ["max_daily_loss: the day's loss is 60.00 USD of 59 USD"]),
        ({"max_daily_loss": "60"}, ["max_daily_loss: the day's loss is 60.00 USD of 60 USD"]),
        ({"max_daily_loss": "61"}, []),
        ({"max_order_qty": "2"}, ["max_order_qty: 3 is more than the largest order, 2"]),
        ({"max_order_qty": "3"}, []),
        ({"max_order_qty": "4"}, []),
        ({"max_orders_per_minute": 700}, []),
        ({"max_orders_per_minute": 600}, ["max_orders_per_minute: 650 orders were sent within a minute"]),
    ],
)
def test_a_rule_says_by_how_much_it_is_broken_and_holds_to_its_last_unit(
    rules: dict[str, Any], says: list[str]
) -> None:
    found = risk_violations(RiskRules(**rules), read_ticket({"symbol": "AAPL", **BUY}), FACTS, 650)
    assert [violation.message[: len(f"your own rule {said}")] for violation, said in zip(found, says, strict=True)] == [
        f"your own rule {said}" for said in says
    ]


def test_the_last_order_of_a_minute_passes_and_the_next_does_not() -> None:
    rules, order = RiskRules(max_orders_per_minute=5000), read_ticket({"symbol": "AAPL", **BUY})
    assert [len(risk_violations(rules, order, FACTS, recent)) for recent in (4999, int("5000"), 5001)] == [0, 1, 1]


@pytest.mark.parametrize(("symbol", "refused"), [("AAPL", True), (LOW, True), ("BTC/USD", False)])
def test_only_coins_are_traded_while_the_market_is_closed(symbol: str, *, refused: bool) -> None:
    order = OrderTicket(symbol=symbol, side="buy", qty=Decimal(1))
    found = risk_violations(RiskRules(market_hours_only=True), order, FACTS._replace(clock=clock(is_open=False)), 0)
    assert [violation.rule for violation in found] == ["market_hours_only"] * refused
    assert not risk_violations(RiskRules(market_hours_only=True), order, FACTS._replace(clock=clock(is_open=True)), 0)


@pytest.mark.parametrize("rule", ["max_position_notional", "max_position_percent"])
def test_what_is_not_known_is_told_of_the_rule_that_asks_for_it(rule: str) -> None:
    (found,) = risk_violations(RiskRules(**{rule: Decimal(1)}), read_ticket({"symbol": "AAPL", **BUY}), Facts(), 0)
    assert found.rule == rule


def test_what_is_bought_elsewhere_or_sold_counts_for_no_position_of_this_symbol() -> None:
    others = [waiting("buy", 4, symbol=symbol, limit_price=8) for symbol in ("A", "ZZZ")]
    facts = FACTS._replace(open_orders=[*others, waiting("sell", 9, limit_price=8)], positions=[position("MSFT", 9)])
    assert not messages(RiskRules(max_position_notional=Decimal(30)), BUY, facts)
    facts = facts._replace(open_orders=[*(facts.open_orders or ()), waiting("buy", 9, limit_price=8)])
    short = messages(RiskRules(max_position_notional=Decimal(1)), {"side": "sell", "qty": "3"}, facts)
    assert "about 108.00 USD" in short[0]


def test_a_share_of_equity_is_told_to_a_tenth_of_a_percent() -> None:
    facts = FACTS._replace(account=account(equity="900"))
    (found,) = messages(RiskRules(max_position_percent=Decimal(1)), BUY, facts)
    assert "the position would be 3.3 % of equity" in found


def test_rules_that_were_read_stay_as_they_are() -> None:
    rules = RiskRules(max_order_qty=Decimal(1))
    with pytest.raises(ValidationError):
        rules.max_order_qty = None  # type: ignore[misc] # what mypy knows is said at run time too
