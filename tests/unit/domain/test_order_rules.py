"""Alpaca's order rules, held against tables of their own: section by section as the wire reference gives them."""

from collections.abc import Iterator
from decimal import Decimal
from itertools import product
from typing import Any, Final

import pytest

from alpacli.domain.account import Account, Position
from alpacli.domain.market import Asset
from alpacli.domain.order_rules import (
    Facts,
    account_violations,
    buying_power_needed,
    reduces,
    violations,
)
from alpacli.domain.tickets import TIMES_IN_FORCE, TYPES, Leg, OrderTicket, read_ticket
from alpacli.domain.worth import Quote, estimated_cost, estimated_value, net_price

SHARE, OPTION, COIN = "AAPL", "AAPL260116C00200000", "BTC/USD"
ALL: Final = frozenset(TYPES)
AT_ONCE: Final = frozenset({"market", "limit"})
PRICED: Final = frozenset({"market", "limit", "stop", "stop_limit"})
UNSURE: Final = frozenset({"stop", "stop_limit"})
"""Entries of brackets of which the documents do not say whether they are taken: neither promised nor refused here."""

# time in force -> types, for whole shares, fractions and notional, extended hours, options, coins (wire reference 5.2)
SHARES = dict.fromkeys(("day", "gtc"), ALL) | dict.fromkeys(("opg", "cls", "ioc", "fok"), AT_ONCE)
FRACTIONS = {"day": PRICED}
EXTENDED = dict.fromkeys(("day", "gtc"), frozenset({"limit"}))
OPTIONS = {"day": AT_ONCE, "gtc": frozenset({"limit"})}
COINS = dict.fromkeys(("gtc", "ioc"), frozenset({"market", "limit", "stop_limit"}))


def taken(symbol: str, kind: str, tif: str, order_class: str, size: str, *, extended: bool) -> bool:
    if symbol != SHARE:
        table = OPTIONS if symbol == OPTION else COINS
        whole = size == "whole" or symbol == COIN
        return order_class == "simple" and whole and not extended and kind in table.get(tif, ())
    if order_class == "simple":
        tables = [SHARES, *([FRACTIONS] if size != "whole" else []), *([EXTENDED] if extended else [])]
        return all(kind in table.get(tif, ()) for table in tables)
    kinds = {"limit"} if order_class == "oco" else ALL - {"trailing_stop"}
    return kind in kinds and tif in ("day", "gtc") and size == "whole" and not extended


def ticket(symbol: str, side: str, kind: str, tif: str, order_class: str, size: str, *, extended: bool) -> OrderTicket:
    fields: dict[str, Any] = {"notional" if size == "notional" else "qty": Decimal("1.5" if size == "part" else 10)}
    rising = (side == "buy") != (order_class == "oco")
    target, stop = (Decimal(110), Decimal(90)) if rising else (Decimal(90), Decimal(110))
    if "limit" in kind:
        fields["limit_price"] = target if order_class == "oco" else Decimal(100)
    if kind in ("stop", "stop_limit"):
        fields["stop_price"] = Decimal(100)
    if kind == "trailing_stop":
        fields["trail_percent"] = Decimal(1)
    if order_class in ("bracket", "oco"):
        fields["take_profit"] = target
    if order_class != "simple":
        fields["stop_loss"] = stop
    return OrderTicket(symbol, side, kind, tif, order_class=order_class, extended_hours=extended, **fields)


def combinations() -> Iterator[tuple[Any, ...]]:
    yield from product(
        (SHARE, OPTION, COIN), ("buy", "sell"), TYPES, TIMES_IN_FORCE, ("simple", "bracket", "oco", "oto"),
        ("whole", "part", "notional"), (False, True),
    )  # fmt: skip


def test_every_combination_is_taken_or_refused_as_the_tables_say() -> None:
    wrong, count = [], 0
    for symbol, side, kind, tif, order_class, size, extended in combinations():
        if order_class in ("bracket", "oto") and kind in UNSURE:
            continue
        count += 1
        found = violations(ticket(symbol, side, kind, tif, order_class, size, extended=extended))
        if taken(symbol, kind, tif, order_class, size, extended=extended) == bool(found):
            wrong.append((symbol, side, kind, tif, order_class, size, extended, found))
    assert wrong == []
    assert count > 3000


LIMIT: Final[dict[str, Any]] = {
    "symbol": SHARE,
    "side": "buy",
    "qty": Decimal(2),
    "type": "limit",
    "limit_price": Decimal(9),
}
LEGS: Final = (
    Leg("AAPL261218C00250000", Decimal(1), "buy_to_open"),
    Leg("AAPL261218C00260000", Decimal(1), "sell_to_open"),
)
SPREAD: Final[dict[str, Any]] = {"order_class": "mleg", "qty": Decimal(1), "legs": LEGS}


@pytest.mark.parametrize(
    ("fields", "rule", "words"),
    [
        (LIMIT | {"symbol": None}, "symbol", "needs a symbol"),
        (LIMIT | {"symbol": "AA PL"}, "symbol", "is no symbol"),
        (LIMIT | {"symbol": "AAPL\x1b[2J"}, "symbol", "is no symbol"),
        (LIMIT | {"side": None}, "side", "say buy or sell"),
        (LIMIT | {"side": "long"}, "side", "buy, sell"),
        (LIMIT | {"position_intent": "open"}, "position_intent", "buy_to_open"),
        (LIMIT | {"client_order_id": ""}, "client_order_id", "1 to 128 characters"),
        (LIMIT | {"client_order_id": "x" * 129}, "client_order_id", "1 to 128 characters"),
        (LIMIT | {"notional": Decimal(5)}, "quantity", "exactly one of the two"),
        (LIMIT | {"qty": None}, "quantity", "exactly one of the two"),
        (LIMIT | {"qty": Decimal(0)}, "quantity", "not above zero"),
        (LIMIT | {"qty": Decimal("0.0000000001")}, "quantity", "round it"),
        (LIMIT | {"qty": None, "notional": Decimal("0.99")}, "notional", "nothing below 1 USD"),
        (LIMIT | {"limit_price": None}, "prices", "needs a limit price"),
        (LIMIT | {"stop_price": Decimal(8)}, "prices", "has no stop price"),
        (LIMIT | {"limit_price": Decimal(0)}, "prices", "not above zero"),
        (LIMIT | {"trail_price": Decimal(1)}, "trail", "has no trail"),
        (LIMIT | {"type": "trailing_stop", "limit_price": None}, "trail", "either a trail price or a trail percent"),
        (
            LIMIT | {"type": "trailing_stop", "limit_price": None, "trail_percent": Decimal(100)},
            "trail",
            "from 0.1 to below 100",
        ),
        (LIMIT | {"stop_loss_limit": Decimal(7)}, "stop loss", "needs a stop-loss price"),
        (LIMIT | {"stop_loss": Decimal(7)}, "order class", "simple order has no exits"),
        (LIMIT | {"order_class": "oto"}, "order class", "exactly one exit"),
        (LIMIT | {"order_class": "bracket", "stop_loss": Decimal(7)}, "order class", "both exits"),
        (LIMIT | {"legs": LEGS}, "legs", "simple order has no legs"),
        (SPREAD | {"symbol": SHARE}, "legs", "no symbol or side of its own"),
        (SPREAD | {"side": "buy"}, "legs", "no symbol or side of its own"),
        (SPREAD | {"legs": LEGS[:1]}, "legs", "2 to 4 legs, not 1"),
        (SPREAD | {"legs": (LEGS[0], LEGS[0])}, "legs", "each leg is another contract"),
        (SPREAD | {"legs": (LEGS[0]._replace(position_intent=None), LEGS[1])}, "legs", "needs a position intent"),
        (SPREAD | {"legs": (LEGS[0]._replace(ratio_qty=Decimal("1.5")), LEGS[1])}, "legs", "whole number"),
        (SPREAD | {"legs": (LEGS[0]._replace(ratio_qty=Decimal(0)), LEGS[1])}, "legs", "whole number"),
        (SPREAD | {"legs": tuple(leg._replace(ratio_qty=Decimal(4)) for leg in LEGS)}, "legs", "all be divided by 4"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused_with_the_rule_and_what_mends_it(
    fields: dict[str, Any], rule: str, words: str
) -> None:
    [found] = [one for one in violations(OrderTicket(**fields)) if words in f"{one.message}: {one.fix}"]
    assert found.rule == rule


@pytest.mark.parametrize("fields", [LIMIT, LIMIT | {"client_order_id": "x" * 128}, SPREAD])
def test_an_order_that_makes_sense_is_not_refused(fields: dict[str, Any]) -> None:
    assert violations(OrderTicket(**fields)) == []


@pytest.mark.parametrize(
    ("symbol", "price", "good"),
    [
        (SHARE, "1.00", True),
        (SHARE, "1.01", True),
        (SHARE, "1.001", False),
        (SHARE, "1.0001", False),
        (SHARE, "0.9999", True),
        (SHARE, "0.99999", False),
        (SHARE, "0.0001", True),
        (SHARE, "0.00001", False),
        (SHARE, "153.00", True),
        (SHARE, "153.000", True),  # zeros are no digits
        (OPTION, "0.05", True),
        (OPTION, "0.005", False),
        (COIN, "0.000000001", True),
        (COIN, "0.0000000001", False),
    ],
)
def test_prices_are_on_a_tick(symbol: str, price: str, *, good: bool) -> None:
    fields = {"symbol": symbol, "side": "buy", "qty": "1"}
    as_limit = violations(read_ticket({**fields, "limit_price": price}))
    assert ("tick size" not in [found.rule for found in as_limit]) == good
    if symbol == SHARE:
        for name in ("stop_price", "take_profit", "stop_loss"):
            found = violations(read_ticket({**fields, name: price}))
            assert ("tick size" not in [item.rule for item in found]) == good


@pytest.mark.parametrize(
    ("side", "limit", "target", "stop", "good"),
    [
        ("buy", "100", "100.01", "99.99", True),
        ("buy", "100", "100", "99.99", False),
        ("buy", "100", "100.01", "100", False),
        ("buy", None, "100.01", "100", True),
        ("buy", None, "100", "100", False),
        ("sell", "100", "99.99", "100.01", True),
        ("sell", "100", "100", "100.01", False),
        ("sell", "100", "99.99", "100", False),
        ("sell", None, "99.99", "100", True),
        ("sell", None, "100", "100", False),
    ],
)
def test_exits_of_a_bracket_are_a_cent_away_on_their_sides(
    side: str, limit: str | None, target: str, stop: str, *, good: bool
) -> None:
    given = {"symbol": SHARE, "side": side, "qty": "1", "limit_price": limit, "take_profit": target, "stop_loss": stop}
    found = violations(read_ticket({**given, "order_class": "bracket"}))
    assert (found == []) == good


@pytest.mark.parametrize(
    ("given", "order_class", "kind"),
    [
        ({"side": "sell", "take_profit": "110", "stop_loss": "90"}, "oco", "limit"),
        ({"side": "buy", "take_profit": "90", "stop_loss": "110"}, "oco", "limit"),
        ({"side": "buy", "take_profit": "110", "stop_loss": "90"}, "bracket", "market"),
        ({"side": "sell", "take_profit": "90", "stop_loss": "110"}, "bracket", "market"),
        ({"side": "sell", "take_profit": "110"}, "oto", "market"),
    ],
)
def test_two_exits_without_an_entry_are_a_way_out(given: dict[str, str], order_class: str, kind: str) -> None:
    made = read_ticket({"symbol": SHARE, "qty": "10", **given})
    assert (made.order_class, made.type) == (order_class, kind)
    assert violations(made) == []


def test_an_entry_with_exits_on_the_wrong_sides_is_no_way_out() -> None:
    made = read_ticket(
        {"symbol": SHARE, "side": "sell", "qty": "1", "limit_price": "100", "take_profit": "110", "stop_loss": "90"}
    )
    assert made.order_class == "bracket"
    assert "exit prices" in [found.rule for found in violations(made)]


def account(**power: Any) -> Account:
    return Account.model_validate(
        {"id": "a", "account_number": "1", "status": "ACTIVE", "currency": "USD", "created_at": "2026-01-05T14:01:02Z",
         "trading_blocked": False, "cash": "1000", "equity": "1000", "buying_power": "1000", **power}
    )  # fmt: skip


@pytest.mark.parametrize(
    ("symbol", "cost", "power", "good"),
    [
        (SHARE, "100.00", {}, True),
        (SHARE, "100.01", {}, False),
        (COIN, "50", {"non_marginable_buying_power": "500"}, True),
        (COIN, "50.01", {"non_marginable_buying_power": "500"}, False),
        (COIN, "0.01", {"non_marginable_buying_power": "0"}, False),
        (OPTION, "0.01", {"options_buying_power": "0"}, False),
        (OPTION, "1", {"options_buying_power": "1000"}, True),
    ],
)
def test_an_order_may_cost_the_last_cent_and_no_more(
    symbol: str, cost: str, power: dict[str, str], *, good: bool
) -> None:
    made = read_ticket({"symbol": symbol, "side": "buy", "qty": "10", "limit_price": cost})
    facts = Facts(account=account(**power), positions=(), quote=Quote(Decimal(1), Decimal(1)))
    assert ([found.rule for found in account_violations(made, facts)] == []) == good


@pytest.mark.parametrize(("side", "target", "stop"), [("sell", "110", "90"), ("buy", "90", "110")])
@pytest.mark.parametrize("held", ["10", "-10", None])
def test_two_exits_without_an_entry_need_the_position_that_they_are_the_way_out_of(
    side: str, target: str, stop: str, held: str | None
) -> None:
    made = read_ticket({"symbol": SHARE, "side": side, "qty": "10", "take_profit": target, "stop_loss": stop})
    assert made.order_class == "oco"
    positions = [] if held is None else [position(held)]
    found = account_violations(made, Facts(account=account(), positions=positions))
    if held is not None and (Decimal(held) > 0) == (side == "sell"):
        assert found == []
    else:
        [violation] = found
        assert f"way out of a {'long' if side == 'sell' else 'short'} position" in violation.message
        assert f"{'below' if side == 'sell' else 'above'} the stop-loss" in violation.fix


LOW, HIGH = "AAPL261218C00250000", "AAPL261218C00260000"


@pytest.mark.parametrize(
    ("bought", "sold", "cost", "needed"), [(LOW, HIGH, "740.00", "740.00"), (HIGH, LOW, "-540.00", None)]
)
def test_several_legs_at_the_market_cost_offers_bought_less_bids_sold(
    bought: str, sold: str, cost: str, needed: str | None
) -> None:
    """Two of a package a hundred shares each; what has to stand behind a credit is the broker's to say."""
    intents = ((bought, "buy_to_open"), (sold, "sell_to_open"))
    legs = [{"symbol": symbol, "ratio_qty": "1", "position_intent": intent} for symbol, intent in intents]
    made = read_ticket({"order_class": "mleg", "qty": "2", "legs": legs})
    quotes = {LOW: Quote(Decimal("5.00"), Decimal("5.50")), HIGH: Quote(Decimal("1.80"), Decimal("2.30"))}
    net = net_price(made.legs, quotes)
    assert net is not None
    assert estimated_cost(made, Quote(net, net)) == Decimal(cost)
    facts = Facts(account=account(options_buying_power="1000"), positions=(), quote=Quote(net, net))
    assert buying_power_needed(made, facts) == (None if needed is None else Decimal(needed))
    assert net_price(made.legs, quotes | {bought: Quote(Decimal(1), None)}) is None, "nobody offers what is bought"


@pytest.mark.parametrize(
    ("qty", "text"),
    [
        ("30", "of 45 AAPL, open orders hold 44.5, so 0.5 are left"),
        ("50", "the position in AAPL is 45, and one order cannot turn it around"),
    ],
)
def test_a_refusal_counts_without_zeros_that_say_nothing(qty: str, text: str) -> None:
    held_back = position("45.000000000").model_copy(update={"qty_available": Decimal("0.500000000")})
    made = read_ticket({"symbol": SHARE, "side": "sell", "qty": qty})
    (found,) = account_violations(made, Facts(positions=[held_back]))
    assert found.message == text
    assert "00" not in found.fix


@pytest.mark.parametrize(
    ("held", "order", "quote", "refused"),
    [
        ("20", {"side": "sell", "notional": "810"}, Quote(Decimal(40), Decimal("40.5")), False),
        ("20", {"side": "sell", "notional": "810.01"}, Quote(Decimal(40), Decimal("40.5")), True),
        ("-20", {"side": "buy", "notional": "811"}, Quote(Decimal(40), Decimal("40.5")), True),
        ("20", {"side": "buy", "notional": "5000"}, Quote(Decimal(40), Decimal("40.5")), False),
        (
            "20",
            {"side": "sell", "notional": "999", "type": "limit", "limit_price": "50"},
            Quote(None, Decimal(40)),
            False,
        ),
        ("20", {"side": "sell", "notional": "999", "type": "limit", "limit_price": "49"}, Quote(None, None), True),
        ("20", {"side": "sell", "notional": "5000"}, Quote(None, None), False),
        ("20", {"side": "sell", "notional": "5000"}, None, False),
    ],
)
def test_no_more_money_is_taken_out_of_a_position_than_is_in_it(
    held: str, order: dict[str, str], quote: Quote | None, *, refused: bool
) -> None:
    """An amount comes to fewer shares the higher the price is: only what no price of now allows is refused."""
    made = read_ticket({"symbol": SHARE, **order})
    found = account_violations(made, Facts(positions=[position(held)], quote=quote))
    assert [item.rule for item in found] == ["position"] * refused


def position(qty: str) -> Position:
    return Position.model_validate(
        {"symbol": SHARE, "asset_id": "a", "asset_class": "us_equity", "exchange": "NASDAQ", "qty": qty,
         "side": "short" if qty.startswith("-") else "long", "avg_entry_price": "100", "cost_basis": "1000"}
    )  # fmt: skip


# ------------------------------------------------------------------------------------ against account and market


def asset(symbol: str = SHARE, **told: Any) -> Asset:
    return Asset.model_validate(
        {"id": "a", "class": "us_equity", "exchange": "NASDAQ", "symbol": symbol, "status": "active", "tradable": True,
         "marginable": True, "shortable": True, "fractionable": True, **told}
    )  # fmt: skip


def broken(fields: dict[str, str], facts: Facts) -> list[tuple[str, str]]:
    return [(found.rule, f"{found.message}: {found.fix}") for found in account_violations(read_ticket(fields), facts)]


@pytest.mark.parametrize(
    ("fields", "told", "words"),
    [
        ({}, {"status": "inactive"}, "cannot be traded"),
        ({}, {"tradable": False}, "cannot be traded"),
        ({"qty": "1.5"}, {"fractionable": False}, "whole shares only"),
        ({"qty": "1"}, {"min_order_size": "2"}, "the smallest order of AAPL is 2"),
        (
            {"symbol": COIN, "qty": "1.05"},
            {"symbol": COIN, "class": "crypto", "min_trade_increment": "0.1"},
            "the quantity of BTC/USD goes in steps of 0.1: 1.1 would do",
        ),
        (
            {"symbol": COIN, "limit_price": "8.3"},
            {"symbol": COIN, "class": "crypto", "price_increment": "0.5"},
            "the limit price of BTC/USD goes in steps of 0.5: 8.5 would do",
        ),
    ],
)
def test_what_an_asset_does_not_allow_is_refused(fields: dict[str, str], told: dict[str, Any], words: str) -> None:
    order = {"symbol": SHARE, "side": "buy", "qty": "10", "limit_price": "8", **fields}
    assert broken(order, Facts(asset=asset(order["symbol"]))) == []
    [(rule, text)] = broken(order, Facts(asset=asset(**told)))
    assert rule == "asset"
    assert words in text


@pytest.mark.parametrize(
    ("fields", "facts", "words"),
    [
        ({"symbol": COIN}, {}, "coins cannot be sold short"),
        ({"qty": "1.5"}, {}, "fractions cannot be sold short"),
        ({}, {"asset": asset(shortable=False)}, "AAPL cannot be sold short"),
        ({}, {"account": account(shorting_enabled=False)}, "this account may not sell short"),
        ({}, {"account": account(multiplier="1")}, "this account may not sell short"),
    ],
)
def test_what_is_not_held_is_sold_only_where_it_may_be_sold_short(
    fields: dict[str, str], facts: dict[str, Any], words: str
) -> None:
    order = {"symbol": SHARE, "side": "sell", "qty": "1", "limit_price": "8", **fields}
    [(rule, text)] = broken(order, Facts(positions=(), **facts))
    assert rule == "short sale"
    assert words in text


def test_whole_shares_are_sold_short_where_nothing_forbids_it() -> None:
    order = {"symbol": SHARE, "side": "sell", "qty": "1", "limit_price": "8"}
    allowed = account(shorting_enabled=True, multiplier="2")
    assert broken(order, Facts(positions=(), asset=asset(), account=allowed)) == []


@pytest.mark.parametrize("block", ["trading_blocked", "account_blocked", "trade_suspended_by_user"])
def test_nothing_is_ordered_on_a_blocked_account(block: str) -> None:
    order = {"symbol": SHARE, "side": "buy", "qty": "1", "limit_price": "8"}
    [(rule, text)] = broken(order, Facts(account=account(**{block: True})))
    assert rule == "account"
    assert "blocked" in text


@pytest.mark.parametrize(
    ("fields", "quote", "cost"),
    [
        ({"limit_price": "8"}, Quote(Decimal(9), Decimal(10)), "80"),
        ({"stop_price": "12"}, Quote(Decimal(9), Decimal(10)), "120"),
        ({}, Quote(Decimal(9), Decimal(10)), "100"),
        ({"side": "sell"}, Quote(Decimal(9), Decimal(10)), "90"),
        ({}, Quote(Decimal(9), None), "90"),
        ({"side": "sell"}, Quote(None, Decimal(10)), "100"),
        ({}, Quote(None, None), None),
        ({}, None, None),
        ({"qty": "", "notional": "50"}, None, "50"),
        ({"side": "sell", "take_profit": "11", "stop_loss": "7"}, None, "110"),
    ],
)
def test_an_order_is_worth_its_own_price_or_else_the_far_side_of_the_market(
    fields: dict[str, str], quote: Quote | None, cost: str | None
) -> None:
    made = read_ticket({"symbol": SHARE, "side": "buy", "qty": "10", **fields})
    assert estimated_value(made, quote) == (None if cost is None else Decimal(cost))


@pytest.mark.parametrize(
    ("side", "qty", "available", "smaller"),
    [("sell", "5", "5", True), ("sell", "5", "0", False), ("buy", "5", "5", False), ("buy", "-5", "-5", False)],
)
def test_an_amount_of_money_makes_a_position_smaller_where_it_sells_what_is_free(
    side: str, qty: str, available: str, *, smaller: bool
) -> None:
    """To buy for money may buy more than is short."""
    held = position(qty).model_copy(update={"qty_available": Decimal(available)})
    assert reduces(read_ticket({"symbol": SHARE, "side": side, "notional": "50"}), [held]) is smaller
    assert not reduces(read_ticket({"symbol": SHARE, "side": side}), [held])


def test_several_legs_make_positions_smaller_where_each_closes_what_is_there() -> None:
    contracts = ("AAPL261218C00250000", "AAPL261218C00260000")
    held = [
        position(qty).model_copy(update={"symbol": symbol}) for symbol, qty in zip(contracts, ("2", "-4"), strict=True)
    ]
    legs = (Leg(contracts[0], Decimal(1), "sell_to_close"), Leg(contracts[1], Decimal(2), "buy_to_close"))
    out = OrderTicket(order_class="mleg", qty=Decimal(2), legs=legs)
    assert reduces(out, held)
    assert not reduces(out._replace(qty=Decimal(3)), held)
    assert not reduces(out, held[:1])
    assert not reduces(out._replace(legs=(legs[0], legs[1]._replace(position_intent=None, side="buy"))), held)
    assert not reduces(out._replace(legs=(legs[0], legs[1]._replace(position_intent="buy_to_open"))), held)
