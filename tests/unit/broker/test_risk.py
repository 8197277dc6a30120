"""The user's own rules, as they stand in ``risk.toml``."""

from decimal import Decimal
from pathlib import Path

import pytest

from alpacli.broker.risk import RiskRules, read_rules, risk_violations
from alpacli.domain.order_rules import Facts
from alpacli.domain.tickets import OrderTicket
from alpacli.errors import ConfigError


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
