"""The models against Alpaca's published OpenAPI documents: every example parses, and comes back with every digit."""

import json
from decimal import Decimal
from typing import Any

import pytest
from tests.support import openapi

from alpacli.domain.account import Account, Activity, PortfolioHistory, Position, Watchlist
from alpacli.domain.market import Asset, CalendarDay, MarketClock
from alpacli.domain.orders import Order
from alpacli.domain.values import Model, from_json, to_json

RESOURCES: list[tuple[str, type[Model]]] = [
    ("Account", Account),
    ("Position", Position),
    ("Order", Order),
    ("legacy_clock", MarketClock),
    ("legacy_calendar_day", CalendarDay),
    ("Assets", Asset),
    ("TradingActivities", Activity),
    ("NonTradeActivities", Activity),
    ("PortfolioHistory", PortfolioHistory),
    ("WatchlistWithoutAsset", Watchlist),
    ("Watchlist", Watchlist),
]
named = pytest.mark.parametrize(("schema", "model"), RESOURCES, ids=[name for name, _ in RESOURCES])


@pytest.fixture(autouse=True)
def _specs() -> None:
    openapi.require_specs()


def rows_of(schema: str) -> list[tuple[str, dict[str, Any]]]:
    """Collect the examples of a schema as single rows; a calendar day's example stands at its single fields."""
    rows = [
        (f"{where}[{at}]", row)
        for where, body in openapi.examples(schema)
        for at, row in enumerate(body if isinstance(body, list) else [body])
    ]
    if not rows:
        properties = openapi.document()["components"]["schemas"][schema]["properties"]
        rows = [(f"{schema} by field", {name: field["example"] for name, field in properties.items()})]
    return rows


def assert_same(sent: Any, printed: Any, where: str) -> None:
    """Compare two JSON texts' values: numbers by their digits, whether they were texts or numbers on the wire."""
    if isinstance(sent, dict):
        assert isinstance(printed, dict), where
        assert sorted(sent) == sorted(printed), where
        for key in sent:
            assert_same(sent[key], printed[key], f"{where}.{key}")
    elif isinstance(sent, list):
        assert isinstance(printed, list), where
        assert len(sent) == len(printed), where
        for at, (one, other) in enumerate(zip(sent, printed, strict=True)):
            assert_same(one, other, f"{where}[{at}]")
    elif isinstance(printed, _Digits):
        assert str(sent) == str(printed), where
    else:
        assert sent == printed, where
        assert type(sent) is type(printed), where


class _Digits(str):
    """A JSON number's own characters."""

    __slots__ = ()


def digits(text: bytes) -> Any:
    return json.loads(text, parse_float=_Digits, parse_int=_Digits)


@named
def test_every_published_example_round_trips_without_losing_a_digit(schema: str, model: type[Model]) -> None:
    """Parsing, printing, and parsing what was printed loses nothing: no field, no digit, no null."""
    rows = rows_of(schema)
    assert rows
    for where, row in rows:
        wire = json.dumps(row).encode()
        value = model.model_validate(from_json(wire))
        printed = to_json(value)
        assert_same(digits(wire), digits(printed), where)
        again = model.model_validate(from_json(printed))
        assert to_json(again) == printed, where
        assert again == value, where


@named
def test_every_published_example_fits_its_own_schema_after_the_corrections(schema: str, model: type[Model]) -> None:
    """The corrections repair the documents enough to judge the simulator by them."""
    del model
    validator = openapi.schema_validator(schema)
    for where, row in rows_of(schema):
        assert [f"{where}: {e.json_path} {e.message[:120]}" for e in validator.iter_errors(row)] == []


@named
def test_every_published_field_is_declared(schema: str, model: type[Model]) -> None:
    """A field that the documents name has a type here, so its digits are a Decimal and not an unknown text."""
    declared = {field.alias or name for name, field in model.model_fields.items()}
    assert set(openapi.document()["components"]["schemas"][schema]["properties"]) - declared == set()


def test_the_published_order_statuses_are_all_known() -> None:
    from alpacli.domain.orders import OPEN, TERMINAL

    published = set(openapi.document()["components"]["schemas"]["OrderStatus"]["enum"]) - {"restated"}
    assert published - OPEN - TERMINAL == set()


def test_an_answer_that_breaks_the_schema_is_named() -> None:
    """The checker that the simulator is judged by can fail, and says where."""
    with pytest.raises(AssertionError, match="is_open"):
        openapi.check_answer(
            "GET",
            "/v2/clock",
            200,
            {"timestamp": "2026-01-02T00:00:00Z", "is_open": "yes", "next_open": "", "next_close": ""},
        )


def test_concrete_paths_find_their_templates() -> None:
    order = next(body for _, body in openapi.examples("Order") if isinstance(body, dict))
    openapi.check_answer("GET", "/v2/orders/61e69015-8549-4bfd-b9c3-01e75843f47d", 200, order)
    assert openapi.answer_validator("DELETE", "/v2/orders/61e6", 204) is None
    with pytest.raises(KeyError):
        openapi.answer_validator("GET", "/v2/nothing")


def test_stock_snapshots_are_a_flat_map() -> None:
    """The market-data document loads with its correction: symbols stand at the top, not under a wrapper."""
    validator = openapi.answer_validator("GET", "/v2/stocks/snapshots", spec="market-data-api")
    assert validator is not None
    trade = {"t": "2026-06-24T14:30:00Z", "p": 1.5, "s": 1, "x": "V", "c": ["@"], "i": 1, "z": "C"}
    assert list(validator.iter_errors({"AAPL": {"latestTrade": trade}})) == []


def test_numbers_keep_more_digits_than_a_float_has() -> None:
    """The published account example has 20 decimals in last_equity: the printed number has them too."""
    body = next(body for where, body in openapi.examples("Account") if where.startswith("GET"))
    account = Account.model_validate(from_json(json.dumps(body).encode()))
    assert account.last_equity == Decimal("122011.09751111286868")
    assert b'"last_equity":122011.09751111286868' in to_json(account)
