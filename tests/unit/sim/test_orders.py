"""The order list is Alpaca's: filters, limits, cursors and nesting of wire reference 4.6."""

from decimal import Decimal
from typing import Any

import pytest
from tests.support.sim_account import SimAccount


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return [row["id"] for row in rows]


@pytest.fixture
def book(account: SimAccount) -> list[str]:
    """Five orders, oldest first; the third and fourth share their submission time."""
    made = []
    for number, (symbol, side, status) in enumerate(
        [
            ("AAPL", "buy", "filled"),
            ("MSFT", "buy", "new"),
            ("BTC/USD", "sell", "new"),
            ("AAPL", "sell", "canceled"),
            ("AAPL", "buy", "partially_filled"),
        ]
    ):
        made.append(account.order(symbol, side, "10", status=status))
        if number != 2:
            account.clock.advance(60)
    return made


def test_the_default_list_is_open_orders_newest_first(account: SimAccount, book: list[str]) -> None:
    """status open, direction desc."""
    assert ids(account.get("/v2/orders")) == [book[4], book[2], book[1]]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"status": "all"}, [4, 3, 2, 1, 0]),
        ({"status": "closed"}, [3, 0]),
        ({"status": "all", "direction": "asc"}, [0, 1, 2, 3, 4]),
        ({"status": "all", "limit": "2"}, [4, 3]),
        ({"status": "all", "symbols": "AAPL,MSFT"}, [4, 3, 1, 0]),
        ({"status": "all", "symbols": "BTCUSD"}, [2]),
        ({"status": "all", "symbols": "BTC/USD"}, [2]),
        ({"status": "all", "symbols": "NOPE"}, []),
        ({"status": "all", "side": "sell"}, [3, 2]),
        ({"status": "all", "asset_class": "crypto"}, [2]),
        ({"status": "all", "asset_class": "us_equity,us_option", "symbols": "BTCUSD,AAPL"}, [4, 3, 0]),
        ({"status": "ALL", "nested": "True", "unknown": "ignored"}, [4, 3, 2, 1, 0]),
    ],
)
def test_filters(account: SimAccount, book: list[str], query: dict[str, str], expected: list[int]) -> None:
    """Each parameter of the wire reference selects what it says; unknown ones are ignored."""
    assert ids(account.get("/v2/orders", **query)) == [book[number] for number in expected]


def test_after_and_until_are_exclusive(account: SimAccount, book: list[str]) -> None:
    """An order submitted exactly at the bound is not listed, whatever offset the bound is written with."""
    first = account.get(f"/v2/orders/{book[1]}")["submitted_at"]
    last = account.get(f"/v2/orders/{book[4]}")["submitted_at"]
    assert ids(account.get("/v2/orders", status="all", after=first, until=last)) == [book[3], book[2]]
    shifted = first.replace("Z", "+00:00")
    assert book[1] not in ids(account.get("/v2/orders", status="all", after=shifted))


def test_paging_by_id_finds_every_order_once(account: SimAccount, book: list[str]) -> None:
    """after_order_id and before_order_id are exclusive cursors that lose nothing where submissions coincide."""
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = ids(account.get("/v2/orders", status="all", direction="asc", limit="2", **cursor))
        seen += page
        if len(page) < 2:
            break
        cursor = {"after_order_id": page[-1]}
    assert seen == book
    assert ids(account.get("/v2/orders", status="all", before_order_id=book[3])) == [book[2], book[1], book[0]]


@pytest.mark.parametrize(
    "query",
    [
        {"limit": "501"},
        {"limit": "0"},
        {"limit": "-1"},
        {"limit": "ten"},
        {"status": "some"},
        {"direction": "up"},
        {"side": "hold"},
        {"after": "yesterday"},
        {"until": "2026-13-01"},
        {"after_order_id": "nonsense"},
        {
            "before_order_id": "61e69015-8549-4bfd-b9c3-01e75843f47d",
            "after_order_id": "61e69015-8549-4bfd-b9c3-01e75843f47d",
        },
        {"before_order_id": "61e69015-8549-4bfd-b9c3-01e75843f47d", "after": "2026-01-01"},
    ],
)
def test_bad_parameters_are_422(account: SimAccount, query: dict[str, str]) -> None:
    """Code 40010001 (wire reference 3.4)."""
    status, body = account.refused("/v2/orders", **query)
    assert (status, body["code"]) == (422, 40010001)


def test_500_orders_are_the_most_and_50_the_default(account: SimAccount) -> None:
    """What looks like lost orders at Alpaca looks like it here (wire reference 11, number 15)."""
    for _ in range(55):
        account.order("AAPL", "buy", "1")
    assert len(account.get("/v2/orders")) == 50
    assert len(account.get("/v2/orders", limit="500")) == 55


def test_legs_are_inside_their_parent_only_when_nested(account: SimAccount) -> None:
    """Flat: legs are orders of their own with legs null, a held one missing from the open list. Nested: in the parent."""
    parent = account.order("AAPL", "buy", "10", order_class="bracket", status="filled")
    take = account.order("AAPL", "sell", "10", order_class="bracket", parent_id=parent, limit_price=Decimal(300))
    stop = account.order("AAPL", "sell", "10", order_class="bracket", parent_id=parent, leg_index=1, status="held")
    flat = account.get("/v2/orders", status="all", direction="asc")
    assert ids(flat) == [parent, take, stop]
    assert [row["legs"] for row in flat] == [None, None, None]
    assert ids(account.get("/v2/orders")) == [take]
    nested = account.get("/v2/orders", nested="true")
    assert ids(nested) == [parent]
    assert ids(nested[0]["legs"]) == [take, stop]
    assert account.get(f"/v2/orders/{parent}")["legs"] is None
    assert ids(account.get(f"/v2/orders/{parent}", nested="True")["legs"]) == [take, stop]


def test_an_order_is_found_by_either_id(account: SimAccount) -> None:
    """By its id with or without dashes, and by the client's own id, spaces and slashes included."""
    made = account.order("AAPL", "buy", "1.50", client_order_id="my id/1")
    shown = account.get(f"/v2/orders/{made}")
    assert shown["qty"] == "1.5"
    assert account.get(f"/v2/orders/{made.replace('-', '').upper()}") == shown
    assert account.get("/v2/orders:by_client_order_id", client_order_id="my id/1")["id"] == made


def test_unknown_orders_are_404(account: SimAccount) -> None:
    """Another account's order is as unknown as none."""
    missing = "61e69015-8549-4bfd-b9c3-01e75843f47d"
    assert account.refused(f"/v2/orders/{missing}") == (
        404,
        {"code": 40410000, "message": f"order not found for {missing}"},
    )
    assert account.refused("/v2/orders:by_client_order_id", client_order_id="no")[0] == 404
    assert account.refused("/v2/orders:by_client_order_id")[0] == 422
    assert account.refused("/v2/orders/nonsense")[0] == 422


def test_fills_update_the_order(account: SimAccount) -> None:
    """Quantity, average price and status follow the executions; a filled order has filled_at."""
    made = account.order("AAPL", "buy", "3")
    account.fill(made, "AAPL", "buy", "1", "100")
    shown = account.get(f"/v2/orders/{made}")
    assert (shown["status"], shown["filled_qty"], shown["filled_avg_price"]) == ("partially_filled", "1", "100")
    assert shown["filled_at"] is None
    account.clock.advance(1)
    account.fill(made, "AAPL", "buy", "2", "101")
    shown = account.get(f"/v2/orders/{made}")
    assert (shown["status"], shown["filled_qty"], shown["filled_avg_price"]) == ("filled", "3", "100.666666667")
    assert shown["filled_at"] == shown["updated_at"] > shown["submitted_at"]


def test_more_than_was_ordered_cannot_be_filled(account: SimAccount) -> None:
    """Such a fill is a defect, and nothing of it is booked."""
    made = account.order("AAPL", "buy", "3")
    with pytest.raises(AssertionError, match="is for 3, not 4"):
        account.fill(made, "AAPL", "buy", "4")
    assert account.get("/v2/positions") == []
    assert account.get("/v2/account")["cash"] == "100000"
