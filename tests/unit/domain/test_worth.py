"""What an order is worth: a limit bounds one side only, and what the market would pay more counts."""

from decimal import Decimal
from typing import Any

import pytest

from alpacli.domain.tickets import Leg, OrderTicket, read_ticket
from alpacli.domain.worth import (
    Quote,
    estimated_cost,
    estimated_value,
    is_bounded,
    is_credit,
    largest_qty,
    largest_value,
    net_price,
    parts,
    reference_price,
)

MARKET = Quote(Decimal(9), Decimal(10))
LOW, HIGH = "AAPL261218C00250000", "AAPL261218C00260000"
SPREAD = OrderTicket(
    order_class="mleg",
    qty=Decimal(2),
    legs=(Leg(LOW, Decimal(1), "buy_to_open"), Leg(HIGH, Decimal(3), None, "sell")),
)


def amount(text: str) -> Decimal | None:
    return Decimal(text) if text else None


def order(side: str, **prices: str) -> OrderTicket:
    named = {f"{name}_price": text for name, text in prices.items()}
    return read_ticket({"symbol": "AAPL", "side": side, "qty": "10", **named})


@pytest.mark.parametrize(
    ("side", "prices", "at"),
    [
        ("buy", {}, "10"),
        ("buy", {"limit": "8"}, "8"),
        ("buy", {"limit": "12"}, "12"),
        ("buy", {"stop": "12"}, "12"),
        ("buy", {"stop": "1"}, "10"),
        ("buy", {"stop": "12", "limit": "13"}, "13"),
        ("sell", {}, "9"),
        ("sell", {"limit": "1"}, "9"),
        ("sell", {"limit": "12"}, "12"),
        ("sell", {"stop": "7"}, "7"),
        ("sell", {"stop": "12"}, "9"),
        ("sell", {"stop": "7", "limit": "1"}, "7"),
        ("sell", {"stop": "7", "limit": "8"}, "8"),
    ],
)
def test_an_order_fills_at_its_own_price_or_better_at_the_market(side: str, prices: dict[str, str], at: str) -> None:
    made = order(side, **prices)
    assert reference_price(made, MARKET) == Decimal(at)
    assert estimated_value(made, MARKET) == largest_value(made, MARKET) == 10 * Decimal(at)


@pytest.mark.parametrize("order_class", ["bracket", "oto"])
def test_the_exits_of_an_order_change_nothing_about_what_it_is_worth(order_class: str) -> None:
    exits: dict[str, Any] = {"order_class": order_class, "take_profit": Decimal(20), "stop_loss": Decimal(5)}
    assert reference_price(order("buy")._replace(**exits), MARKET) == 10
    assert reference_price(order("sell", limit="1")._replace(**exits), MARKET) == 9
    assert largest_value(order("sell", limit="1")._replace(**exits), None) is None
    assert largest_value(order("buy", limit="1")._replace(**exits), None) == 10


@pytest.mark.parametrize("quote", [None, Quote()])
@pytest.mark.parametrize(
    ("side", "prices", "estimate", "most"),
    [
        ("buy", {}, "", ""),
        ("buy", {"limit": "8"}, "80", "80"),
        ("buy", {"stop": "12"}, "120", ""),
        ("sell", {"limit": "1"}, "10", ""),
        ("sell", {"stop": "7"}, "70", ""),
    ],
)
def test_without_a_price_of_the_market_only_a_buys_limit_says_what_it_is_worth_at_the_most(
    quote: Quote | None, side: str, prices: dict[str, str], estimate: str, most: str
) -> None:
    made = order(side, **prices)
    assert estimated_value(made, quote) == amount(estimate)
    assert largest_value(made, quote) == amount(most)
    assert is_bounded(made) == bool(most)


def test_a_missing_side_of_the_market_is_taken_for_the_other() -> None:
    assert reference_price(order("sell", limit="1"), Quote(None, Decimal(10))) == 10
    assert reference_price(order("buy"), Quote(Decimal(9), None)) == 9


@pytest.mark.parametrize(
    ("limit", "net", "at"),
    [
        ("", "3", "3"),
        ("", "-3", "-3"),
        ("2", "", "2"),
        ("-2", "", "-2"),
        ("2", "3", "2"),
        ("4", "3", "4"),
        ("0.10", "-4", "-4"),
        ("-0.10", "-4", "-4"),
        ("-5", "-4", "-5"),
        ("-1", "4", "-1"),
        ("0", "-4", "-4"),
        ("4", "0", "4"),
    ],
)
def test_several_legs_bring_the_better_credit_and_cost_their_limit(limit: str, net: str, at: str) -> None:
    made = SPREAD._replace(limit_price=amount(limit))
    together = amount(net)
    quote = None if together is None else Quote(together, together)
    assert reference_price(made, quote) == Decimal(at)
    assert estimated_cost(made, quote) == 200 * Decimal(at)
    assert not is_bounded(made)


def test_several_legs_bring_money_below_nothing_and_not_at_it() -> None:
    assert [is_credit(SPREAD._replace(limit_price=Decimal(limit)), None) for limit in (-1, 0, 1)] == [
        True,
        False,
        False,
    ]
    assert not is_credit(SPREAD, None)
    assert not is_credit(order("buy"), MARKET)


@pytest.mark.parametrize(("limit", "most"), [("", "600"), ("-1", "200"), ("0", "0"), ("2", "400")])
def test_what_several_legs_are_worth_at_the_most_needs_the_market(limit: str, most: str) -> None:
    """A limit to pay says nothing of a credit that is there to be had."""
    made = SPREAD._replace(limit_price=amount(limit))
    assert largest_value(made, None) is None
    assert largest_value(made, Quote(Decimal(3), Decimal(3))) == amount(most)


def test_a_buy_that_nobody_offers_for_is_worth_nobody_knows_what() -> None:
    """What is bid for it is not what it costs."""
    for one_sided in (Quote(Decimal("0.01"), None), Quote(None, Decimal(199_999))):
        assert [largest_value(order(side), one_sided) for side in ("buy", "sell")] == [None, None]
        assert largest_qty(OrderTicket(symbol="AAPL", side="buy", notional=Decimal(90)), one_sided) is None
        assert largest_value(order("buy", limit="1"), one_sided) == 10
    option = OrderTicket(symbol=LOW, side="buy", qty=Decimal(1))
    assert largest_value(option, Quote(None, Decimal(2))) == 200
    assert largest_value(option._replace(side="sell"), Quote(None, Decimal(2))) is None


def test_an_amount_of_money_is_worth_itself_and_buys_as_much_as_the_market_gives_for_it() -> None:
    money = OrderTicket(symbol="AAPL", side="buy", notional=Decimal(90))
    assert largest_value(money, None) == 90
    assert is_bounded(money)
    assert largest_qty(money, MARKET) == 9
    assert largest_qty(money._replace(notional=Decimal(95)), MARKET) == Decimal("9.5")
    assert largest_qty(money._replace(side="sell"), MARKET) == 10
    assert largest_qty(money._replace(limit_price=Decimal(3)), MARKET) == 30
    assert largest_qty(money._replace(limit_price=Decimal(30)), MARKET) == 9
    assert largest_qty(money._replace(side="sell", limit_price=Decimal(3)), MARKET) == 10
    assert largest_qty(money, None) is None
    assert largest_qty(order("buy"), None) == 10
    assert largest_qty(SPREAD, None) == 6, "the most of one leg"
    assert largest_qty(SPREAD._replace(qty=None), None) is None


def test_each_leg_is_an_order_of_its_own_at_the_market() -> None:
    bought, sold = parts(SPREAD._replace(limit_price=Decimal(1)))
    assert bought == OrderTicket(symbol=LOW, side="buy", qty=Decimal(2))
    assert sold == OrderTicket(symbol=HIGH, side="sell", qty=Decimal(6))
    assert estimated_value(sold, MARKET) == 6 * 9 * 100
    assert parts(order("buy")) == (order("buy"),)
    assert [part.qty for part in parts(SPREAD._replace(qty=None))] == [None, None]
    assert largest_value(parts(SPREAD._replace(qty=None))[0], MARKET) is None


def test_a_way_out_is_worth_its_target() -> None:
    out = OrderTicket(
        symbol="AAPL", side="sell", type="limit", order_class="oco", qty=Decimal(10), take_profit=Decimal(11),
        stop_loss=Decimal(7),
    )  # fmt: skip
    assert estimated_value(out, MARKET) == 110
    assert estimated_value(out._replace(limit_price=Decimal(12)), MARKET) == 120


def test_the_net_price_of_legs_needs_each_of_them() -> None:
    quotes = {LOW: Quote(Decimal(5), Decimal("5.50")), HIGH: Quote(Decimal("1.80"), Decimal("2.30"))}
    assert net_price(SPREAD.legs, quotes) == Decimal("5.50") - 3 * Decimal("1.80")
    assert net_price(SPREAD.legs, quotes | {HIGH: Quote(None, Decimal(1))}) == Decimal("5.50"), "no bid, no money"
    assert net_price(SPREAD.legs, quotes | {LOW: Quote(Decimal(5), None)}) is None, "nobody offers what is bought"
    assert net_price(SPREAD.legs, quotes | {HIGH: Quote()}) is None


@pytest.mark.parametrize(
    ("bid", "ask", "is_too_wide"),
    [
        ("10", "11", False),
        ("10", "11.01", True),
        ("100", "109", False),
        ("1", "1.2", True),
        ("", "9", False),
        ("9", "", False),
    ],
)
def test_a_quote_more_than_a_tenth_wide_is_no_price_and_half_of_one_is_not_wide(
    bid: str, ask: str, *, is_too_wide: bool
) -> None:
    assert Quote(amount(bid), amount(ask)).is_too_wide is is_too_wide


def test_an_option_that_is_sold_needs_a_bid_as_a_share_does_that_is_bought() -> None:
    offered = Quote(None, Decimal(2))
    assert largest_value(OrderTicket(symbol=LOW, side="sell", qty=Decimal(1)), offered) is None
    assert largest_value(OrderTicket(symbol="BTC/USD", side="buy", qty=Decimal(1)), offered) is None
    assert largest_value(OrderTicket(symbol=LOW, side="buy", qty=Decimal(1)), offered) == 200
