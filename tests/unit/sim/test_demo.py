"""The demo account shows every kind of order, and its numbers add up."""

from decimal import Decimal
from pathlib import Path

import pytest
from tests.support.fakes import ManualClock
from tests.support.sim_account import SimAccount

from alpacli.sim.demo import seed_demo
from alpacli.sim.hours import HoursName

# a weekday afternoon, a Monday before the open, a Sunday, the day the clocks changed
MOMENTS = [1_780_000_000.0, 1_780_308_000.0, 1_780_236_000.0, 1_772_960_400.0]


@pytest.mark.parametrize("at", MOMENTS)
@pytest.mark.parametrize("hours", ["always", "xnys"])
def test_the_demo_adds_up_at_any_moment(tmp_path: Path, at: float, hours: HoursName) -> None:
    """Cash + positions = equity to the cent, and the fills rebuild cash and positions."""
    with SimAccount(tmp_path, ManualClock(at), key_id="SIM") as account:
        account.exchange.reset(hours=hours)
        assert seed_demo(account.exchange, "SIM") is True
        shown, positions = account.get("/v2/account"), account.get("/v2/positions")
        value = sum(Decimal(position["market_value"]) for position in positions)
        assert Decimal(shown["cash"]) + value == Decimal(shown["equity"])
        cash, quantities = Decimal(100_000), dict[str, Decimal]()
        for row in account.get("/v2/account/activities", activity_types="FILL"):
            signed = Decimal(row["qty"]) * (1 if row["side"] == "buy" else -1)
            cash -= signed * Decimal(row["price"])
            quantities[row["symbol"]] = quantities.get(row["symbol"], Decimal(0)) + signed
        assert cash == pytest.approx(Decimal(shown["cash"]), abs=Decimal("0.05"))
        held = {position["symbol"]: Decimal(position["qty"]) for position in positions}
        assert held == {symbol.replace("/", ""): qty for symbol, qty in quantities.items() if qty}


def test_the_demo_has_something_of_everything(tmp_path: Path) -> None:
    """Long, short, fractional and crypto positions; filled, partly filled, canceled, expired, rejected, open; a bracket."""
    with SimAccount(tmp_path, key_id="SIM") as paper:
        assert seed_demo(paper.exchange, "SIM")
        positions = paper.get("/v2/positions")
        assert {position["side"] for position in positions} == {"long", "short"}
        assert {position["asset_class"] for position in positions} == {"us_equity", "crypto"}
        assert any("." in position["qty"] for position in positions if position["asset_class"] == "us_equity")
        orders = paper.get("/v2/orders", status="all", limit="500", nested="true")
        assert {order["status"] for order in orders} >= {"filled", "canceled", "expired", "rejected", "new"}
        assert any(order["status"] == "canceled" and order["filled_qty"] != "0" for order in orders)
        (bracket,) = [order for order in orders if order["order_class"] == "bracket"]
        assert [(leg["type"], leg["status"]) for leg in bracket["legs"]] == [("limit", "new"), ("stop", "held")]
        assert len(paper.get("/v2/orders")) >= 3
        assert [row["name"] for row in paper.get("/v2/watchlists")] == ["Primary Watchlist"]
        limits = [order for order in orders if order["type"] == "limit" and order["status"] == "filled"]
        for order in limits:
            price, limit = Decimal(order["filled_avg_price"]), Decimal(order["limit_price"])
            assert price <= limit if order["side"] == "buy" else price >= limit


def test_seeding_twice_changes_nothing(account: SimAccount) -> None:
    """An account that has orders is left alone, until it is reset."""
    assert seed_demo(account.exchange, "SIM") is True
    before = account.exchange.status()
    assert seed_demo(account.exchange, "SIM") is False
    assert account.exchange.status() == before
    account.exchange.reset()
    assert seed_demo(account.exchange, "SIM") is True


def test_the_same_seed_gives_the_same_demo(tmp_path: Path) -> None:
    """Two exchanges with one seed answer with the same bytes, and another seed with others."""

    def bytes_of(folder: str, seed: int) -> list[bytes]:
        with SimAccount(tmp_path / folder, key_id="SIM") as account:
            account.exchange.reset(seed=seed)
            seed_demo(account.exchange, "SIM")
            paths = ("/v2/account", "/v2/positions", "/v2/orders", "/v2/account/activities")
            return [account.send("GET", path).body for path in paths]

    assert bytes_of("a", 1) == bytes_of("b", 1)
    assert bytes_of("a", 1) != bytes_of("c", 2)
