"""First in, first out: what is sold came from the oldest lot, and no cent appears or vanishes on the way."""

# mypy: disable-error-code="comparison-overlap"
# Whole numbers stand for the decimals they equal.

from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpacli.history.lots import EXACT, Lots, multiplier

QUANTITY = st.decimals("0.000000001", "5000", places=9, allow_nan=False)
PRICE = st.decimals("0.0001", "90000", places=4, allow_nan=False)
TRADE = st.tuples(st.just("trade"), st.booleans(), QUANTITY, PRICE)
SPLIT = st.tuples(st.just("split"), st.sampled_from([(2, 1), (3, 1), (3, 2), (7, 1), (1, 10), (1, 3)]))


def test_what_is_sold_came_from_the_oldest_lots() -> None:
    lots = Lots()
    lots.trade("AAPL", Decimal(10), Decimal("100.10"), 1)
    lots.trade("AAPL", Decimal(5), Decimal("110"), 2)
    first, second = lots.trade("AAPL", Decimal(-12), Decimal("120.25"), 3)
    assert (first.qty, first.cost, first.proceeds, first.opened_ns) == (10, Decimal("1001"), Decimal("1202.5"), 1)
    assert (second.qty, second.realized, second.opened_ns, second.closed_ns) == (2, Decimal("20.5"), 2, 3)
    assert (lots.qty("AAPL"), lots.cost("AAPL")) == (3, 330)


def test_a_short_position_earns_when_it_is_bought_back_for_less() -> None:
    lots = Lots()
    assert lots.trade("TSLA", Decimal(-10), Decimal(300), 1) == []
    (back,) = lots.trade("TSLA", Decimal(4), Decimal(250), 2)
    assert (back.qty, back.cost, back.proceeds, back.realized) == (-4, -1200, -1000, 200)
    assert (lots.qty("TSLA"), lots.cost("TSLA")) == (-6, -1800)


def test_one_trade_through_zero_closes_what_is_held_and_opens_the_rest_the_other_way() -> None:
    lots = Lots()
    lots.trade("F", Decimal(5), Decimal(10), 1)
    (closed,) = lots.trade("F", Decimal(-8), Decimal(12), 2)
    assert closed.realized == 10
    assert (lots.qty("F"), lots.cost("F")) == (-3, -36)


def test_a_split_changes_quantities_and_no_cost() -> None:
    lots = Lots()
    lots.trade("NVDA", Decimal(1), Decimal(1000), 1)
    lots.trade("NVDA", Decimal(2), Decimal(1300), 2)
    assert lots.split("NVDA", Decimal(27))
    assert (lots.qty("NVDA"), lots.cost("NVDA")) == (30, 3600)
    (sold,) = lots.trade("NVDA", Decimal(-10), Decimal(120), 3)
    assert sold.realized == 200


def test_a_split_of_what_is_not_held_changes_nothing() -> None:
    assert not Lots().split("NVDA", Decimal(27))


def test_a_new_name_keeps_lots_and_cost() -> None:
    lots = Lots()
    lots.trade("FB", Decimal(3), Decimal(200), 1)
    lots.rename("FB", "META", Decimal(3))
    assert [(name, [tuple(lot) for lot in held]) for name, held in lots] == [("META", [(3, 600, 1)])]


def test_an_option_contract_stands_for_a_hundred_shares() -> None:
    lots = Lots()
    assert multiplier("AAPL") == 1
    assert multiplier("AAPL261218C00250000") == 100
    lots.trade("AAPL261218C00250000", Decimal(2), Decimal("1.25"), 1)
    assert lots.cost("AAPL261218C00250000") == 250


@given(st.lists(st.one_of(TRADE, SPLIT), max_size=40))
def test_realized_and_cost_and_what_was_paid_always_add_up_exactly(steps: list[tuple[object, ...]]) -> None:
    lots, paid, realized = Lots(), Fraction(0), Fraction(0)
    for at, step in enumerate(steps):
        if step[0] == "trade":
            _, buys, qty, price = step
            assert isinstance(qty, Decimal)
            assert isinstance(price, Decimal)
            signed = qty if buys else -qty
            for closing in lots.trade("X", signed, price, at):
                realized += Fraction(closing.realized)
            paid += Fraction(signed) * Fraction(price)
        else:
            (_, ratio) = step
            assert isinstance(ratio, tuple)
            with localcontext(EXACT):
                change = (lots.qty("X") * ratio[0] / ratio[1]).quantize(Decimal("1e-9")) - lots.qty("X")
            lots.split("X", change)
        assert realized + paid == Fraction(lots.cost("X"))


@given(st.lists(TRADE, max_size=20))
def test_a_position_is_the_sum_of_its_trades_and_all_its_lots_have_one_sign(
    steps: list[tuple[str, bool, Decimal, Decimal]],
) -> None:
    lots = Lots()
    for at, (_, buys, qty, price) in enumerate(steps):
        lots.trade("X", qty if buys else -qty, price, at)
    assert lots.qty("X") == sum((step[2] if step[1] else -step[2] for step in steps), Decimal(0))
    assert len({lot.qty > 0 for _, held in lots for lot in held}) <= 1


@given(QUANTITY, st.lists(st.integers(1, 9), min_size=1, max_size=6), PRICE, PRICE)
def test_selling_in_parts_earns_what_selling_at_once_does(
    qty: Decimal, parts: list[int], bought: Decimal, sold: Decimal
) -> None:
    at_once, in_parts = Lots(), Lots()
    for lots in (at_once, in_parts):
        lots.trade("X", qty, bought, 1)
    (whole,) = at_once.trade("X", -qty, sold, 2)
    left, earned = qty, Decimal(0)
    for part in parts[:-1]:
        some = min(left, (qty * part / 10).quantize(Decimal("1e-9")))
        left -= some
        earned = EXACT.add(earned, sum((c.realized for c in in_parts.trade("X", -some, sold, 2)), Decimal(0)))
    earned = EXACT.add(earned, sum((c.realized for c in in_parts.trade("X", -left, sold, 2)), Decimal(0)))
    assert earned == whole.realized


@pytest.mark.parametrize("held", ["10", "-10"])
def test_a_reverse_split_of_a_long_or_short_position_keeps_its_cost(held: str) -> None:
    lots = Lots()
    lots.trade("X", Decimal(held), Decimal("2.5"), 1)
    assert lots.split("X", Decimal(held) * Decimal("-0.9"))
    assert (lots.qty("X"), lots.cost("X")) == (Decimal(held) / 10, Decimal(held) * Decimal("2.5"))
