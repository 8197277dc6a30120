"""Money and shares add up, whatever is bought and sold."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.sim_account import SimAccount

from alpacli.sim.book import Position
from alpacli.sim.ledger import ZERO, average_entry, cents, covers, execute, market_value, rewind, worth

QUANTITIES = st.one_of(
    st.integers(min_value=1, max_value=100_000).map(Decimal),
    st.decimals(min_value="0.000000001", max_value="5000", places=9),
)
PRICES = st.one_of(
    st.decimals(min_value="0.01", max_value="200000", places=2),
    st.decimals(min_value="0.0001", max_value="1", places=5),
)
TRADES = st.lists(st.tuples(st.sampled_from([1, -1]), QUANTITIES, PRICES), min_size=1, max_size=40)


@given(trades=TRADES, mark=PRICES)
def test_cash_and_positions_always_add_up_to_the_cent(
    trades: list[tuple[int, Decimal, Decimal]], mark: Decimal
) -> None:
    """After any buys, sells, shorts and turns through zero: cash = start + realized − cost, equity − start = all profit."""
    start = cash = Decimal(100_000)
    holding, shares, paid = Position(), ZERO, ZERO
    for side, qty, price in trades:
        holding, change = execute(holding, side * qty, price)
        cash += change
        shares += side * qty
        paid += side * qty * price
        assert holding.qty == shares
        assert cash == start + holding.realized - cents(holding.cost)
        assert cash == cents(cash)
    value = market_value(holding.qty, mark)
    unrealized = value - cents(holding.cost)
    assert cash + value - start == holding.realized + unrealized
    assert abs(start - paid - cash) <= Decimal("0.005") * len(trades)


@given(trades=TRADES)
def test_a_flat_position_has_no_cost_and_has_realized_everything(trades: list[tuple[int, Decimal, Decimal]]) -> None:
    """Closing what is left leaves no cost behind: all of the cash that moved is profit or loss."""
    holding, cash = Position(), ZERO
    for side, qty, price in trades:
        holding, change = execute(holding, side * qty, price)
        cash += change
    if holding.qty:
        holding, change = execute(holding, -holding.qty, Decimal("12.34"))
        cash += change
    assert (holding.qty, holding.cost) == (ZERO, ZERO)
    assert holding.realized == cash


@given(trades=TRADES)
def test_the_cost_has_the_sign_of_the_position(trades: list[tuple[int, Decimal, Decimal]]) -> None:
    """A long costs, a short brings in; the average entry price lies within the prices traded."""
    holding = Position()
    for side, qty, price in trades:
        holding, _ = execute(holding, side * qty, price)
        if holding.qty:
            average = average_entry(holding)
            prices = [price for _, _, price in trades]
            assert min(prices) - Decimal("0.01") <= average <= max(prices) + Decimal("0.01") or abs(holding.qty) < 1
            assert holding.cost * holding.qty >= 0


@pytest.mark.parametrize(
    ("trades", "expected"),
    [
        ([("10", "150.5")], ("10", "1505", "0")),
        ([("10", "100"), ("10", "110")], ("20", "2100", "0")),
        ([("10", "100"), ("-4", "120")], ("6", "600", "80")),
        ([("-5", "50")], ("-5", "-250", "0")),
        ([("-5", "50"), ("5", "40")], ("0", "0", "50")),
        ([("10", "100"), ("-15", "110")], ("-5", "-550", "100")),
        ([("-10", "100"), ("12", "90")], ("2", "180", "100")),
        ([("0.5", "270.13")], ("0.5", "135.065", "0.00")),
        ([("0.3", "0.05")], ("0.3", "0.015", "0.00")),
    ],
)
def test_examples(trades: list[tuple[str, str]], expected: tuple[str, str, str]) -> None:
    """Opening, adding, reducing, shorting, covering and turning through zero give what a statement would show."""
    holding = Position()
    for qty, price in trades:
        holding, _ = execute(holding, Decimal(qty), Decimal(price))
    assert holding[:3] == tuple(map(Decimal, expected))


def test_the_average_entry_is_the_price_paid_even_when_cash_was_rounded() -> None:
    """Half a share at 270.13 moves 135.06 in cash and is still shown as bought at 270.13."""
    holding, cash = execute(Position(), Decimal("0.5"), Decimal("270.13"))
    assert cash == Decimal("-135.06")
    assert average_entry(holding) == Decimal("270.13")


class Fixed:
    """Last prices that stand still."""

    def __init__(self, **prices: str) -> None:
        self._prices = {symbol.replace("_", "/"): Decimal(price) for symbol, price in prices.items()}

    def last(self, symbol: str, at_ns: int) -> Decimal:
        return self._prices[symbol]


def test_half_of_a_stock_opens_it_and_three_tenths_keep_it_and_coins_are_paid_in_full() -> None:
    held = {"AAPL": Decimal(10), "TSLA": Decimal(-4), "BTC/USD": Decimal("0.5")}
    found = worth(Fixed(AAPL="200.25", TSLA="300", BTC_USD="60000"), held, 0)
    assert found[:2] == (Decimal("32002.50"), Decimal(-1200))
    assert found.initial_margin == Decimal("1001.25") + 600 + 30_000
    assert found.maintenance_margin == Decimal("600.75") + 360 + 30_000
    assert found.collateral == 0


def test_options_need_what_they_would_bring_and_short_ones_what_they_may_lose() -> None:
    call, put = "AAPL280121C00200000", "AAPL280121P00150000"
    prices = Fixed(AAPL="200", **{call: "5", put: "3"})
    bought = worth(prices, {call: Decimal(2)}, 0)
    assert list(map(int, bought)) == [1000, 0, 1000, 1000, 0]
    sold = worth(prices, {put: Decimal(-1)}, 0)
    assert list(map(int, sold)) == [0, -300, 14_700, 14_700, 15_000]
    both = worth(prices, {"AAPL": Decimal(100), call: Decimal(-1)}, 0)  # the shares stand behind the call
    assert list(map(int, both)) == [20_000, -500, 10_000, 6_000, 0]


@pytest.mark.parametrize(("shares", "lots"), [("-200", 0), ("0", 0), ("99.5", 0), ("100", 1), ("199", 1), ("300", 2)])
def test_behind_a_short_call_stand_a_hundred_whole_shares(shares: str, lots: int) -> None:
    found = covers({"AAPL": Decimal(shares), "AAPL280121C00200000": Decimal(-2)})
    assert (found["AAPL"].lots, found["AAPL"].uncovered) == (lots, 2 - lots)


def test_an_account_had_its_first_money_when_it_was_opened_and_nothing_before(account: SimAccount) -> None:
    account.get("/v2/account")
    account.clock.advance(60)
    account.trade("AAPL", "buy", "10", "100")
    with account.exchange.desk(account.exchange.account_number("PKTEST", "secret"), changes=False) as desk:
        opened_ns = desk.account.created_ns
        assert rewind(desk.book, opened_ns - 1) == (ZERO, {}, ZERO)
        assert rewind(desk.book, opened_ns) == (Decimal(100_000), {}, Decimal(100_000))
        assert rewind(desk.book, desk.now_ns) == (Decimal(99_000), {"AAPL": Decimal(10)}, Decimal(100_000))
