"""Watchlists: created, found by id and by name, changed, deleted."""

import json
from typing import Any

import pytest
from tests.support.sim_account import SimAccount


def made(account: SimAccount, name: str = "tech", *symbols: str) -> dict[str, Any]:
    answer = account.send("POST", "/v2/watchlists", {"name": name, "symbols": list(symbols)})
    assert answer.status == 200, answer.body
    shown = json.loads(answer.body)
    assert isinstance(shown, dict)
    return shown


def symbols(answer: bytes | dict[str, Any]) -> list[str]:
    shown = answer if isinstance(answer, dict) else json.loads(answer)
    return [asset["symbol"] for asset in shown["assets"]]


def test_a_watchlist_keeps_the_order_of_its_symbols(account: SimAccount) -> None:
    """Pairs may be written without slash; doubles are dropped."""
    shown = made(account, "mine", "MSFT", "BTCUSD", "AAPL", "MSFT")
    assert symbols(shown) == ["MSFT", "BTC/USD", "AAPL"]
    assert account.get(f"/v2/watchlists/{shown['id']}") == shown
    assert account.get("/v2/watchlists:by_name", name="mine") == shown


def test_the_list_has_no_assets(account: SimAccount) -> None:
    """As at Alpaca, in order of creation."""
    made(account, "one", "AAPL")
    made(account, "two")
    listed = account.get("/v2/watchlists")
    assert [row["name"] for row in listed] == ["one", "two"]
    assert "assets" not in listed[0]


@pytest.mark.parametrize("by_name", [True, False])
def test_a_watchlist_can_be_changed_by_id_and_by_name(account: SimAccount, by_name: bool) -> None:
    """PUT replaces what it names, POST appends, DELETE ends it."""
    shown = made(account, "mine", "AAPL")
    path = "/v2/watchlists:by_name" if by_name else f"/v2/watchlists/{shown['id']}"
    query = {"name": "mine"} if by_name else {}
    assert symbols(account.send("POST", path, {"symbol": "NVDA"}, **query).body) == ["AAPL", "NVDA"]
    assert account.send("POST", path, {"symbol": "NVDA"}, **query).status == 422
    assert symbols(account.send("PUT", path, {"symbols": ["TSLA"]}, **query).body) == ["TSLA"]
    assert json.loads(account.send("PUT", path, {"name": "mine"}, **query).body)["name"] == "mine"
    assert account.send("DELETE", path, **query).status == 204
    assert account.send("DELETE", path, **query).status == 404
    assert account.get("/v2/watchlists") == []


def test_a_symbol_can_be_taken_out_slash_and_all(account: SimAccount) -> None:
    """DELETE …/{id}/BTC/USD answers with what is left."""
    shown = made(account, "mine", "AAPL", "BTC/USD")
    assert symbols(account.send("DELETE", f"/v2/watchlists/{shown['id']}/BTC/USD").body) == ["AAPL"]
    assert account.send("DELETE", f"/v2/watchlists/{shown['id']}/BTC/USD").status == 404


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"name": "  "}, 422),
        ({"name": "x" * 65}, 422),
        ({"name": "taken"}, 422),
        ({"name": 5}, 422),
        ({"name": "new", "symbols": "AAPL"}, 422),
        ({"name": "new", "symbols": ["NOPE"]}, 404),
        ({"name": "new", "symbols": [7]}, 404),
    ],
)
def test_bad_watchlists_are_refused_and_leave_nothing(account: SimAccount, body: dict[str, Any], status: int) -> None:
    """Names are needed, unique, and at most 64 characters; symbols must be listed."""
    made(account, "taken")
    assert account.send("POST", "/v2/watchlists", body).status == status
    assert len(account.get("/v2/watchlists")) == 1


def test_unknown_watchlists_are_404_and_a_name_is_needed(account: SimAccount) -> None:
    assert account.refused("/v2/watchlists/61e69015-8549-4bfd-b9c3-01e75843f47d")[0] == 404
    assert account.refused("/v2/watchlists/nonsense")[0] == 404
    assert account.refused("/v2/watchlists:by_name")[0] == 422
    shown = made(account)
    assert account.send("POST", f"/v2/watchlists/{shown['id']}", {}).status == 422
