"""Tables of fixed values at 60, 80 and 140 columns are exactly the stored pictures."""

import datetime as dt
import io
import os
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType

from alpacli.domain.account import Account, Activity, PortfolioHistory, Position, Watchlist
from alpacli.domain.market import Asset, CalendarDay, MarketClock
from alpacli.domain.orders import Order
from alpacli.ports import Breaker, CacheStats, LimitsReport, Waiting
from alpacli.render import charts, machine, tables
from alpacli.render.text import Frame

PICTURES = Path(__file__).parent / "pictures"
NEW_YORK_SUMMER = dt.timezone(dt.timedelta(hours=-4), "EDT")
NOW = dt.datetime(2026, 6, 24, 18, 0, tzinfo=dt.UTC)

ACCOUNT = Account.model_validate(
    {
        "id": "6f3f8f0a-3f0c-4f0e-9a51-1f2f5a0b7c11",
        "account_number": "PA3TESTACCT1",
        "status": "ACTIVE",
        "currency": "USD",
        "equity": "100020.25",
        "last_equity": "100000",
        "cash": "98500.25",
        "buying_power": "199000.5",
        "long_market_value": "1520",
        "short_market_value": "0",
        "initial_margin": "760",
        "maintenance_margin": "456",
        "multiplier": "2",
        "trading_blocked": True,
    }
)


def position(symbol: str, qty: str, entry: str, price: str, gain: str, ratio: str, day: str) -> Position:
    value = Decimal(qty) * Decimal(price)
    return Position.model_validate(
        {
            "asset_id": symbol,
            "symbol": symbol,
            "exchange": "NASDAQ",
            "asset_class": "us_equity",
            "side": "short" if qty.startswith("-") else "long",
            "qty": qty,
            "avg_entry_price": entry,
            "cost_basis": str(Decimal(qty) * Decimal(entry)),
            "market_value": str(value),
            "current_price": price,
            "unrealized_pl": gain,
            "unrealized_plpc": ratio,
            "unrealized_intraday_pl": day,
            "unrealized_intraday_plpc": "0.0066",
        }
    )


POSITIONS = [
    position("AAPL", "10", "150.5", "152", "15", "0.0099667774086379", "10"),
    position("BTCUSD", "0.123456789", "60000", "59000.12345", "-123.4567", "-0.0166", "-5"),
    position("TSLA", "-1234567", "200", "201.5", "-1851850.5", "-0.0075", "0"),
]


def order(**fields: Any) -> Order:
    base = {
        "id": "61e69015-8549-4bfd-b9c3-01e75843f47d",
        "client_order_id": "eb9e2aaa-f71a-4f51-b5b4-52a6c565dad4",
        "symbol": "AAPL",
        "side": "buy",
        "type": "limit",
        "order_class": "",
        "time_in_force": "day",
        "status": "new",
        "qty": "10",
        "filled_qty": "0",
        "limit_price": "150",
        "extended_hours": False,
        "created_at": "2026-06-24T14:30:00.112233445Z",
        "submitted_at": "2026-06-24T14:30:00.110Z",
    }
    return Order.model_validate(base | fields)


LEG = {"id": "a1c0f1f2-52f4-4c1a-9d6b-0c5f7b7a0001", "side": "sell", "type": "stop", "status": "held"}
ORDERS = [
    order(order_class="bracket", legs=[order(**LEG, stop_price="145")]),
    order(symbol="BTC/USD", qty=None, notional="2500.50", type="market", limit_price=None, status="filled",
          filled_qty="0.041", filled_avg_price="60987.8", submitted_at="2025-12-31T23:59:59Z"),
    order(symbol="GME", status="rejected"),
    order(symbol="NEW", status="a_status_of_next_year"),
]  # fmt: skip
CLOCK = MarketClock.model_validate(
    {
        "timestamp": "2026-06-24T14:00:00-04:00",
        "is_open": True,
        "next_open": "2026-06-25T09:30:00-04:00",
        "next_close": "2026-06-24T16:00:00-04:00",
    }
)
CALENDAR = [
    CalendarDay.model_validate(
        {"date": "2026-11-27", "open": "09:30", "close": "13:00", "session_open": "0400", "session_close": "2000"}
    ),
    CalendarDay.model_validate({"date": "2026-11-30", "open": "09:30", "close": "16:00"}),
]
ASSET = Asset.model_validate(
    {
        "id": "b0b6dd9d-8b9b-48a9-ba46-b9d54906e415",
        "class": "us_equity",
        "exchange": "NASDAQ",
        "symbol": "AAPL",
        "name": "Apple Inc. Common Stock and a very long tail that no terminal of eighty columns will ever show whole",
        "status": "active",
        "tradable": True,
        "marginable": True,
        "shortable": True,
        "fractionable": False,
    }
)
ACTIVITIES = [
    Activity.model_validate(
        {
            "id": "20260624143000123::61e6",
            "activity_type": "FILL",
            "type": "fill",
            "transaction_time": "2026-06-24T14:30:02.113456Z",
            "price": "149.98",
            "qty": "10",
            "side": "buy",
            "symbol": "AAPL",
            "order_id": "61e69015-8549-4bfd-b9c3-01e75843f47d",
        }
    ),
    Activity.model_validate(
        {"id": "2", "activity_type": "DIV", "date": "2026-06-23", "net_amount": "1.02", "symbol": "T"}
    ),
]
WATCHLIST = Watchlist.model_validate(
    {
        "id": "578560cf-caec-4ac6-b066-b5256debf7e7",
        "account_id": "6ac25373-36b9-4709-938c-22b19b17c3c0",
        "name": "Primary [bold]Watchlist[/]",
        "created_at": "2026-01-05T14:01:02Z",
        "updated_at": "2026-06-24T14:01:02Z",
        "assets": [ASSET],
    }
)
LIMITS = LimitsReport(
    limit=200,
    reserve=20,
    window_s=60.0,
    used=175,
    foreign=5,
    utilisation=0.4321,
    reset_s=3.2,
    waiting=(Waiting("alpacli orders (pid 7)", 1.5, False),),
    breakers=(Breaker("trading", "half-open", 0.0), Breaker("data", "open", 9.0)),
)
CASES: dict[str, Any] = {
    "account": (tables.account, ACCOUNT),
    "positions": (tables.positions, POSITIONS),
    "orders": (tables.orders, ORDERS),
    "order": (tables.order, ORDERS[0]),
    "clock": (tables.clock, CLOCK),
    "calendar": (tables.calendar, CALENDAR),
    "assets": (tables.assets, [ASSET]),
    "activities": (tables.activities, ACTIVITIES),
    "watchlists": (tables.watchlists, [WATCHLIST]),
    "watchlist": (tables.watchlist, WATCHLIST),
    "cache": (tables.cache_stats, CacheStats(75, 25, 12, 34567, 7300.0, 0.25)),
    "limits": (tables.limits, LIMITS),
}


def frame(width: int, **changes: Any) -> Frame:
    return Frame(width, NOW, NEW_YORK_SUMMER)._replace(**changes)


def drawn(body: RenderableType, width: int, *, colour: bool = False) -> str:
    console = Console(
        file=io.StringIO(), width=width, force_terminal=True, color_system="standard" if colour else None,
        highlight=False, legacy_windows=False, _environ={},
    )  # fmt: skip
    with console.capture() as captured:
        console.print(body)
    return "\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n"


@pytest.mark.parametrize("width", [60, 80, 140])
@pytest.mark.parametrize("name", CASES)
def test_a_table_is_what_was_looked_at_and_stored(name: str, width: int) -> None:
    """Set ALPACLI_DRAW=1 to draw the pictures again, then look at the difference."""
    draw, value = CASES[name]
    picture = drawn(
        draw(value, frame(width, sim=name == "account", age_s=2.14 if name == "positions" else None)), width
    )
    stored = PICTURES / f"{name}-{width}.txt"
    if os.environ.get("ALPACLI_DRAW"):
        PICTURES.mkdir(exist_ok=True)
        stored.write_text(picture, encoding="utf-8")
    assert picture == stored.read_text(encoding="utf-8")
    assert max(len(line) for line in picture.splitlines()) <= width


@pytest.mark.parametrize("name", ["positions", "orders", "calendar", "assets", "activities", "watchlists"])
def test_an_empty_list_is_one_sentence(name: str) -> None:
    draw, _ = CASES[name]
    text = drawn(draw([], frame(80)), 80)
    assert text.startswith("No ")
    assert text.endswith(".\n")


def test_a_gain_is_green_with_a_plus_and_a_loss_red_with_a_minus() -> None:
    text = drawn(tables.positions(POSITIONS, frame(140)), 140, colour=True)
    assert re.search(r"\x1b\[32m *\+15\.00", text)
    assert re.search(r"\x1b\[31m *-123\.46", text)


def test_a_total_with_an_unknown_part_is_unknown() -> None:
    unknown = POSITIONS[0].model_copy(update={"market_value": None, "unrealized_pl": None})
    total = drawn(tables.positions([unknown, POSITIONS[1]], frame(80)), 80).splitlines()[-1]
    assert "Total" in total
    assert "–" in total


def history(equity: list[str | None], step_s: int = 86400) -> PortfolioHistory:
    zeros = ["0"] * len(equity)
    start = 1750771800
    return PortfolioHistory.model_validate(
        {
            "timestamp": [start + step_s * i for i in range(len(equity))],
            "equity": equity,
            "profit_loss": zeros,
            "profit_loss_pct": zeros,
            "base_value": equity[0],
            "timeframe": "1D",
        }
    )


def test_the_equity_curve_is_drawn_with_its_extremes_and_its_gain() -> None:
    text = drawn(charts.portfolio(history(["100000", "101000", "99000", "100500"]), frame(80)), 80)
    for part in ("┤", "101,000", "99,000", "+500.00", "+0.50%", "Jun 24", "Jun 27"):
        assert part in text
    assert max(len(line) for line in text.splitlines()) <= 80


@pytest.mark.parametrize("equity", [["100000"], ["100000", "100000"], [None, "0", "100000", None, "100001"]])
def test_short_flat_and_unfunded_histories_have_no_trouble(equity: list[str | None]) -> None:
    assert "Equity" in drawn(charts.portfolio(history(equity), frame(80)), 80)


@pytest.mark.parametrize("equity", [[], [None, None]])
def test_a_history_without_equity_says_so(equity: list[str | None]) -> None:
    value = history(equity or [None])
    assert "No equity" in drawn(charts.portfolio(value, frame(80)), 80)


@pytest.mark.parametrize("name", ["positions", "orders", "activities", "assets", "watchlists"])
def test_a_number_is_never_cut_however_narrow_the_terminal(name: str) -> None:
    """At 40 columns whole columns leave, down to the first one."""
    draw, value = CASES[name]
    picture = drawn(draw(value, frame(40)), 40)
    assert max(len(line) for line in picture.splitlines()) <= 40
    assert not re.search(r"[0-9.,]…", picture)


@pytest.mark.parametrize(
    ("fields", "wide", "narrow"),
    [
        ({"type": "limit"}, "150.00", "150.00"),
        ({"type": "market", "limit_price": None}, "–", "–"),
        ({"type": "stop", "limit_price": None, "stop_price": "443.24"}, "stop 443.24", "stop 443.24"),
        ({"type": "stop_limit", "stop_price": "155.5"}, "155.50 → 150.00", "155.50 → 150.00"),
        (
            {"type": "trailing_stop", "limit_price": None, "trail_percent": "1.5", "stop_price": "436.59"},
            "stop 436.59 trail 1.5%",
            "trail 1.5%",
        ),
        ({"type": "trailing_stop", "limit_price": None, "trail_price": "2.5"}, "trail 2.50", "trail 2.50"),
    ],
)
def test_each_order_shows_its_price_on_every_terminal(fields: dict[str, Any], wide: str, narrow: str) -> None:
    for width, shown in ((200, wide), (80, wide), (60, wide), (40, narrow)):
        row = drawn(tables.orders([order(**fields)], frame(width)), width).splitlines()[-1]
        assert f" {shown}  " in f"{row}  ", row


def test_a_narrow_table_of_fills_keeps_what_they_are_fills_of() -> None:
    picture = drawn(tables.activities(ACTIVITIES[:1], frame(44)), 44)
    assert "149.98" in picture
    assert "Qty" in picture
    assert "Type" not in picture


def test_a_fill_of_contracts_shows_what_they_cost_with_the_100_shares_of_each() -> None:
    for symbol, side, cash in (
        ("AAPL261218C00340000", "buy", "-591.00"),
        ("AAPL261218C00340000", "sell_short", "+591.00"),
        ("AAPL", "buy", "-5.91"),
        ("BTCUSD", "sell", "+5.91"),
    ):
        told = {"symbol": symbol, "side": side, "qty": Decimal(3), "price": Decimal("1.97")}
        fill = ACTIVITIES[0].model_copy(update=told)
        assert f" {cash} " in drawn(tables.activities([fill], frame(120)), 120)


def test_an_intraday_curve_tells_the_date_of_its_ends_even_today() -> None:
    """``To 00:00 EDT`` without a date would be any midnight."""
    value = history(["100000", "101000", "99000"], step_s=3600).model_copy(update={"timeframe": "1H"})
    text = drawn(charts.portfolio(value, frame(80)._replace(now=dt.datetime(2025, 6, 24, 18, tzinfo=dt.UTC))), 80)
    assert re.search(r"From +2025-06-24 09:30 EDT", text)
    assert re.search(r"To +2025-06-24 11:30 EDT", text)


def test_chosen_fields_are_a_table_too() -> None:
    rows = machine.parse(b'[{"a":1.50,"b":"[red]x[/]"},{"a":null}]')
    text = drawn(tables.plain(rows, frame(80)), 80)
    assert "1.50" in text
    assert "[red]x[/]" in text
    assert "Nothing." in drawn(tables.plain([], frame(80)), 80)
    assert "1.50" in drawn(tables.plain(rows[0], frame(80)), 80)
