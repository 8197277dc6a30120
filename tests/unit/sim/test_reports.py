"""Balances, positions and configuration follow Alpaca's formulas and add up."""

import json
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.examples import examples
from tests.support.sim_account import SimAccount


def test_a_new_account_has_100000_dollars_and_multiplier_2(account: SimAccount) -> None:
    """What a new paper account at Alpaca shows."""
    shown = account.get("/v2/account")
    assert shown["status"] == "ACTIVE"
    assert shown["account_number"].startswith("PA")
    assert (shown["cash"], shown["equity"], shown["last_equity"]) == ("100000", "100000", "100000")
    assert (shown["multiplier"], shown["buying_power"]) == ("2", "200000")
    assert account.get("/v2/positions") == []


def test_equity_is_cash_plus_long_plus_short_market_value(account: SimAccount) -> None:
    """The account's numbers agree with its positions to the cent, shorts and coins included."""
    account.trade("AAPL", "buy", "10")
    account.trade("TSLA", "sell", "5")
    account.trade("BTC/USD", "buy", "0.123456789")
    account.trade("GOOGL", "buy", "7.5")
    account.clock.advance(3 * 86_400)
    shown, positions = account.get("/v2/account"), account.get("/v2/positions")
    values = [Decimal(position["market_value"]) for position in positions]
    assert Decimal(shown["long_market_value"]) == sum(value for value in values if value > 0)
    assert Decimal(shown["short_market_value"]) == sum(value for value in values if value < 0)
    assert Decimal(shown["equity"]) == Decimal(shown["cash"]) + sum(values)
    assert shown["portfolio_value"] == shown["equity"]
    assert [position["symbol"] for position in positions] == ["AAPL", "BTCUSD", "GOOGL", "TSLA"]


def test_a_short_position_has_negative_quantity_cost_and_value(account: SimAccount) -> None:
    """Wire reference 4.3: qty and cost_basis are negative for shorts, side says short."""
    account.trade("TSLA", "sell", "5", "400")
    position = account.get("/v2/positions/TSLA")
    assert (position["side"], position["qty"], position["qty_available"]) == ("short", "-5", "-5")
    assert (position["cost_basis"], position["avg_entry_price"]) == ("-2000", "400")
    gain = Decimal(2000) - 5 * Decimal(position["current_price"])
    assert Decimal(position["unrealized_pl"]) == gain
    assert Decimal(position["unrealized_plpc"]) == gain / 2000


def test_buying_power_follows_the_multiplier(account: SimAccount) -> None:
    """1: cash; 2: twice the equity that no margin binds; 4: four times last night's excess (wire reference 4.1)."""
    account.trade("AAPL", "buy", "100")
    account.clock.advance(86_400)
    shown = account.get("/v2/account")
    excess = Decimal(shown["equity"]) - Decimal(shown["initial_margin"])
    assert Decimal(shown["buying_power"]) == 2 * excess
    assert Decimal(shown["initial_margin"]) == (Decimal(shown["long_market_value"]) / 2).quantize(Decimal("0.01"))
    account.send("PATCH", "/v2/account/configurations", {"max_margin_multiplier": "1"})
    shown = account.get("/v2/account")
    assert shown["buying_power"] == shown["cash"]
    assert shown["shorting_enabled"] is False
    account.send("PATCH", "/v2/account/configurations", {"max_margin_multiplier": "4"})
    shown = account.get("/v2/account")
    assert Decimal(shown["buying_power"]) == 4 * (
        Decimal(shown["last_equity"]) - Decimal(shown["last_maintenance_margin"])
    )


def test_an_open_buy_order_reserves_buying_power_and_a_closing_one_does_not(account: SimAccount) -> None:
    """What working orders would cost is not there to be spent twice."""
    account.trade("AAPL", "buy", "10")
    before = Decimal(account.get("/v2/account")["buying_power"])
    account.order("AAPL", "sell", "5")
    assert Decimal(account.get("/v2/account")["buying_power"]) == before
    account.order("MSFT", "buy", "10", limit_price=Decimal(300))
    assert before - Decimal(account.get("/v2/account")["buying_power"]) == 3000


def test_shares_in_open_orders_are_not_available(account: SimAccount) -> None:
    """qty_available is what open orders leave; two exits of one bracket hold the shares once."""
    account.trade("AAPL", "buy", "10")
    parent = account.order("AAPL", "sell", "4")
    assert account.get("/v2/positions/AAPL")["qty_available"] == "6"
    account.order("AAPL", "sell", "4", parent_id=parent)
    assert account.get("/v2/positions/AAPL")["qty_available"] == "6"
    account.order("AAPL", "sell", "1", status="canceled")
    assert account.get("/v2/positions/AAPL")["qty_available"] == "6"


def test_the_day_is_measured_from_the_previous_close(account: SimAccount) -> None:
    """Shares carried over count from the close, shares bought today from what was paid; change_today is the price's."""
    account.trade("AAPL", "buy", "10", "200")
    bought = account.get("/v2/positions/AAPL")
    assert bought["unrealized_intraday_pl"] == bought["unrealized_pl"]
    account.clock.advance(86_400)
    carried = account.get("/v2/positions/AAPL")
    price, lastday = Decimal(carried["current_price"]), Decimal(carried["lastday_price"])
    assert Decimal(carried["unrealized_intraday_pl"]) == 10 * (price - lastday)
    assert abs(Decimal(carried["change_today"]) - (price - lastday) / lastday) < Decimal("1e-15")
    account.trade("AAPL", "buy", "5", "210")
    mixed = account.get("/v2/positions/AAPL")
    assert Decimal(mixed["unrealized_intraday_pl"]) == 10 * (price - lastday) + 5 * (price - 210)


def test_a_position_that_was_left_and_entered_again_has_its_day_from_the_new_entry(account: SimAccount) -> None:
    """What the shares before it earned is realized already: out in the morning and in again, or through to the other side."""
    account.trade("NVDA", "buy", "10")
    account.trade("TSLA", "sell", "10")
    account.trade("MSFT", "buy", "10")
    account.clock.advance(86_400)
    account.trade("NVDA", "sell", "10", "180")
    account.trade("NVDA", "buy", "10", "190")
    account.trade("TSLA", "buy", "10", "480")
    account.trade("TSLA", "sell", "10", "470")
    account.trade("MSFT", "sell", "17", "481.75")
    for position in account.get("/v2/positions"):
        assert position["unrealized_intraday_pl"] == position["unrealized_pl"], position["symbol"]
        assert position["unrealized_intraday_plpc"] == position["unrealized_plpc"], position["symbol"]


def test_what_is_bought_and_sold_within_a_day_leaves_its_basis_as_it_leaves_the_cost(account: SimAccount) -> None:
    """Of the shares at the close and of those added since, a sale takes as many of each as there are: the average stays."""
    account.trade("AAPL", "buy", "10", "150")
    account.trade("MSFT", "buy", "10", "400")
    account.clock.advance(86_400)
    for qty, side, price in (("10", "buy", "200"), ("10", "sell", "230"), ("5", "buy", "220"), ("3", "sell", "1")):
        account.trade("AAPL", side, qty, price)
    account.trade("MSFT", "sell", "4", "500")
    day = {position["symbol"]: position for position in account.get("/v2/positions")}
    lastday, value = Decimal(day["AAPL"]["lastday_price"]), Decimal(day["AAPL"]["market_value"])
    basis = ((10 * lastday + 2000) / 2 + 1100) * 12 / 15
    assert Decimal(day["AAPL"]["unrealized_intraday_pl"]) == value - basis.quantize(Decimal("0.01"))
    fallen = Decimal(day["MSFT"]["current_price"]) - Decimal(day["MSFT"]["lastday_price"])
    assert Decimal(day["MSFT"]["unrealized_intraday_pl"]) == 6 * fallen


def test_a_contract_bought_again_has_its_day_from_the_new_entry(account: SimAccount) -> None:
    """An option's price is a share's, and its day is that of a hundred."""
    contract = account.get("/v2/options/contracts", underlying_symbols="AAPL", limit="1")["option_contracts"][0][
        "symbol"
    ]
    account.trade(contract, "buy", "2", "3.05")
    account.trade(contract, "sell", "2", "3.10")
    account.trade(contract, "buy", "1", "4.00")
    position = account.get(f"/v2/positions/{contract}")
    assert position["unrealized_intraday_pl"] == position["unrealized_pl"]


def test_last_equity_is_the_worth_at_the_previous_close(account: SimAccount) -> None:
    """Without trades today, equity − last_equity is the sum of the positions' day."""
    account.trade("AAPL", "buy", "10")
    account.trade("NVDA", "sell", "20")
    account.clock.advance(2 * 86_400)
    shown, positions = account.get("/v2/account"), account.get("/v2/positions")
    day = sum(Decimal(position["unrealized_intraday_pl"]) for position in positions)
    assert Decimal(shown["equity"]) - Decimal(shown["last_equity"]) == day


def test_last_equity_is_the_same_whatever_is_traded_since(account: SimAccount) -> None:
    """Bought, sold, sold short, or closed: it is undone to know what last night's account was worth."""
    account.trade("AAPL", "buy", "10")
    account.trade("NVDA", "buy", "3")
    account.clock.advance(2 * 86_400)
    before = account.get("/v2/account")["last_equity"]
    for symbol, side, qty in (("AAPL", "sell", "4"), ("NVDA", "sell", "3"), ("TSLA", "sell", "5"), ("F", "buy", "7")):
        account.trade(symbol, side, qty)
        assert account.get("/v2/account")["last_equity"] == before


@pytest.mark.parametrize("name", ["BTCUSD", "BTC/USD", "27acdf4e-93e7-47cb-8803-31118bb51b18"])
def test_a_position_is_found_by_symbol_pair_or_asset_id(account: SimAccount, name: str) -> None:
    """The slash of a pair may be in the path or left out (wire reference 1)."""
    account.trade("BTC/USD", "buy", "1")
    assert account.get(f"/v2/positions/{name}")["symbol"] == "BTCUSD"


def test_no_position_and_no_such_symbol_are_404(account: SimAccount) -> None:
    """Alpaca's code 40410000 and its texts."""
    assert account.refused("/v2/positions/AAPL") == (404, {"code": 40410000, "message": "position does not exist"})
    assert account.refused("/v2/positions/NOPE") == (404, {"code": 40410000, "message": "symbol not found: NOPE"})
    account.trade("AAPL", "buy", "1")
    account.trade("AAPL", "sell", "1")
    assert account.refused("/v2/positions/AAPL")[0] == 404


def test_configuration_changes_are_partial_and_null_means_leave(account: SimAccount) -> None:
    """The official SDK sends every field, nulls included (wire reference 4.2)."""
    before = account.get("/v2/account/configurations")
    answer = account.send("PATCH", "/v2/account/configurations", {"suspend_trade": True, "no_shorting": None, "x": 1})
    changed = json.loads(answer.body)
    assert changed == {**before, "suspend_trade": True}
    assert account.get("/v2/account/configurations") == changed
    assert account.get("/v2/account")["trade_suspended_by_user"] is True


@pytest.mark.parametrize(
    "bad",
    [
        {"suspend_trade": "yes"},
        {"max_margin_multiplier": "3"},
        {"trade_confirm_email": "some"},
        {"max_options_trading_level": 4},
        {"max_options_trading_level": True},
    ],
)
def test_a_bad_configuration_is_refused_and_changes_nothing(account: SimAccount, bad: dict[str, object]) -> None:
    """400, as the specification says."""
    before = account.get("/v2/account/configurations")
    assert account.send("PATCH", "/v2/account/configurations", bad).status == 400
    assert account.get("/v2/account/configurations") == before


_TRADES = st.lists(
    st.tuples(
        st.sampled_from(["AAPL", "TSLA", "BTC/USD", "DOGE/USD"]),
        st.sampled_from(["buy", "sell"]),
        st.one_of(st.integers(1, 500).map(str), st.decimals("0.000000001", "99", places=9).map(lambda d: f"{d:f}")),
        st.integers(0, 200_000),
    ),
    max_size=12,
)


@settings(max_examples=examples(8), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trades=_TRADES)
def test_whatever_is_traded_everything_shown_adds_up(
    tmp_path_factory: pytest.TempPathFactory, trades: list[tuple[str, str, str, int]]
) -> None:
    """Cash + positions = equity to the cent; fills rebuild the quantities; the last point of the history is the equity."""
    state: Path = tmp_path_factory.mktemp("sim")
    with SimAccount(state) as account:
        account.exchange.reset(rate_limit=0)
        expected: dict[str, Decimal] = {}
        for symbol, side, qty, wait_s in trades:
            account.trade(symbol, side, qty)
            expected[symbol] = expected.get(symbol, Decimal(0)) + Decimal(qty) * (1 if side == "buy" else -1)
            account.clock.advance(wait_s)
        shown, positions = account.get("/v2/account"), account.get("/v2/positions")
        assert Decimal(shown["equity"]) == Decimal(shown["cash"]) + sum(Decimal(p["market_value"]) for p in positions)
        held = {symbol.replace("/", ""): qty for symbol, qty in expected.items() if qty}
        assert {p["symbol"]: Decimal(p["qty"]) for p in positions} == held
        rebuilt: dict[str, Decimal] = {}
        cash = Decimal(100_000)
        for row in account.get("/v2/account/activities", activity_types="FILL", direction="asc"):
            signed = Decimal(row["qty"]) * (1 if row["side"] == "buy" else -1)
            rebuilt[row["symbol"]] = rebuilt.get(row["symbol"], Decimal(0)) + signed
            cash -= signed * Decimal(row["price"])
        assert rebuilt == expected
        assert abs(cash - Decimal(shown["cash"])) <= Decimal("0.005") * len(trades)
        history = account.get("/v2/account/portfolio/history", period="3M")
        assert history["equity"][-1] == float(shown["equity"])
