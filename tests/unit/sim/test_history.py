"""Activities page without loss, and the portfolio's past adds up with its present."""

import itertools
import json
from typing import Any

import pytest
from tests.support.sim_account import SimAccount


@pytest.fixture
def traded(account: SimAccount) -> SimAccount:
    """Ten fills over five days, two of them in the same moment."""
    for number in range(10):
        account.trade(("AAPL", "MSFT", "BTC/USD")[number % 3], "buy", "1")
        if number != 4:
            account.clock.advance(43_200)
    return account


def rows(account: SimAccount, **query: str) -> list[dict[str, Any]]:
    found = account.get("/v2/account/activities", **query)
    assert isinstance(found, list)
    return found


def test_activities_are_the_fills_and_the_first_deposit(traded: SimAccount) -> None:
    """Newest first; the oldest is the money that the account was opened with."""
    found = rows(traded)
    assert len(found) == 11
    assert found[-1]["activity_type"] == "JNLC"
    assert found[-1]["net_amount"] == "100000"
    assert found[0]["transaction_time"] > found[5]["transaction_time"]
    assert all(len(row["id"].split("::")[0]) == 17 for row in found)


@pytest.mark.parametrize("direction", ["asc", "desc"])
@pytest.mark.parametrize("size", ["1", "3", "100"])
def test_pages_put_together_are_the_whole(traded: SimAccount, direction: str, size: str) -> None:
    """page_token is the id of the last row; nothing is lost or doubled where moments coincide."""
    seen: list[str] = []
    token: dict[str, str] = {}
    while page := rows(traded, direction=direction, page_size=size, **token):
        seen += [row["id"] for row in page]
        token = {"page_token": page[-1]["id"]}
    assert seen == [row["id"] for row in rows(traded, direction=direction)]
    assert len(set(seen)) == 11


def test_activities_can_be_narrowed(traded: SimAccount) -> None:
    """By type in path or query, category, day, range and order."""
    assert len(rows(traded, activity_types="FILL")) == 10
    assert len(traded.get("/v2/account/activities/FILL")) == 10
    assert [row["activity_type"] for row in rows(traded, category="non_trade_activity")] == ["JNLC"]
    assert len(rows(traded, activity_types="DIV")) == 0
    assert len(rows(traded, activity_types="FILL,JNLC")) == 11
    newest = rows(traded)[0]
    day = rows(traded, date=newest["transaction_time"][:10])
    assert newest in day
    assert len(day) < 11
    assert newest not in rows(traded, until=newest["transaction_time"])
    assert rows(traded, after=rows(traded)[1]["transaction_time"])[0] == newest
    assert rows(traded, order_id=newest["order_id"]) == [newest]


@pytest.mark.parametrize(
    "query",
    [
        {"page_size": "101"},
        {"page_token": "nonsense"},
        {"category": "other"},
        {"category": "trade_activity", "activity_types": "FILL"},
        {"date": "2026-06-01", "after": "2026-06-01"},
        {"direction": "up"},
        {"date": "tomorrow"},
    ],
)
def test_bad_activity_parameters_are_422(traded: SimAccount, query: dict[str, str]) -> None:
    status, body = traded.refused("/v2/account/activities", **query)
    assert (status, body["code"]) == (422, 40010001)


def test_partial_fills_say_what_is_left(account: SimAccount) -> None:
    """cum_qty and leaves_qty follow the order; type tells partial_fill from fill."""
    order = account.order("AAPL", "buy", "3")
    account.fill(order, "AAPL", "buy", "1")
    account.fill(order, "AAPL", "buy", "2")
    first, second = rows(account, activity_types="FILL", direction="asc")
    assert (first["type"], first["cum_qty"], first["leaves_qty"]) == ("partial_fill", "1", "2")
    assert (second["type"], second["cum_qty"], second["leaves_qty"]) == ("fill", "3", "0")


@pytest.mark.parametrize(
    ("query", "timeframe"),
    [
        ({}, "1D"),
        ({"period": "1D"}, "1Min"),
        ({"period": "2W"}, "15Min"),
        ({"period": "1A"}, "1D"),
        ({"period": "3D", "timeframe": "1H"}, "1H"),
        (
            {"period": "1W", "timeframe": "5Min", "pnl_reset": "no_reset", "intraday_reporting": "extended_hours"},
            "5Min",
        ),
        ({"start": "2026-05-30T00:00:00Z"}, "1Min"),
        ({"start": "2026-05-29", "period": "2D", "timeframe": "1D", "extended_hours": "True"}, "1D"),
    ],
)
def test_portfolio_history_is_columns_of_numbers_up_to_now(
    traded: SimAccount, query: dict[str, str], timeframe: str
) -> None:
    """Equal lengths, ascending, JSON numbers; where the range ends now, the last point is the account's equity."""
    answer = traded.get("/v2/account/portfolio/history", **query)
    assert answer["timeframe"] == timeframe
    columns = [answer[name] for name in ("timestamp", "equity", "profit_loss", "profit_loss_pct")]
    assert len({len(column) for column in columns}) == 1
    assert answer["timestamp"] == sorted(set(answer["timestamp"]))
    assert all(isinstance(value, int | float) for column in columns for value in column)
    if "period" not in query or "start" not in query:
        assert answer["equity"][-1] == float(traded.get("/v2/account")["equity"])


def test_profit_is_measured_from_the_base_and_leaves_deposits_out(traded: SimAccount) -> None:
    """Opening the account is no profit: before it equity is 0, after it profit is equity − what was paid in."""
    answer = traded.get("/v2/account/portfolio/history", period="1M", cashflow_types="ALL")
    assert answer["equity"][0] == 0
    assert answer["base_value"] == 100_000
    assert answer["profit_loss"][0] == 0
    assert answer["profit_loss"][-1] == pytest.approx(answer["equity"][-1] - 100_000, abs=1e-9)
    assert answer["profit_loss_pct"][-1] == pytest.approx(answer["profit_loss"][-1] / 100_000, abs=1e-9)
    assert sum(answer["cashflow"]["JNLC"]) == 100_000
    assert traded.get("/v2/account/portfolio/history", cashflow_types="DIV")["cashflow"] == {}


def test_intraday_profit_starts_again_each_day_unless_told_otherwise(traded: SimAccount) -> None:
    """per_day measures from the close before, no_reset from the base value."""
    daily = traded.get("/v2/account/portfolio/history", period="3D", timeframe="1H")
    whole = traded.get("/v2/account/portfolio/history", period="3D", timeframe="1H", pnl_reset="no_reset")
    account = traded.get("/v2/account")
    assert daily["profit_loss"][-1] == pytest.approx(float(account["equity"]) - float(account["last_equity"]))
    assert whole["profit_loss"][-1] == pytest.approx(whole["equity"][-1] - whole["base_value"])


def test_on_nyse_hours_windows_lie_in_the_session(account: SimAccount) -> None:
    """Market hours hold 78 windows of five minutes, extended hours 192, and a weekend none."""
    account.exchange.reset(hours="xnys")
    for reporting, count in (("market_hours", 78), ("extended_hours", 192), ("continuous", 288)):
        answer = account.get(
            "/v2/account/portfolio/history",
            start="2026-05-26",
            end="2026-05-27",
            timeframe="5Min",
            intraday_reporting=reporting,
        )
        assert len(answer["timestamp"]) in (count, count + 1)
    weekend = account.get("/v2/account/portfolio/history", start="2026-05-23", end="2026-05-24", timeframe="1D")
    assert weekend["timestamp"] == []


def test_an_account_with_coins_is_worth_something_else_on_a_holiday_too(account: SimAccount) -> None:
    """Continuous reporting goes around the clock; days are those of the exchange, whatever is reported of each."""
    account.exchange.reset(hours="xnys")
    asked = {"start": "2026-05-22", "end": "2026-05-27", "intraday_reporting": "continuous"}
    answer = account.get("/v2/account/portfolio/history", timeframe="1H", **asked)
    steps = {right - left for left, right in itertools.pairwise(answer["timestamp"])}
    assert steps == {3600}, "Saturday, Sunday and Memorial Day have their hours"
    assert len(account.get("/v2/account/portfolio/history", timeframe="1D", **asked)["timestamp"]) == 2


@pytest.mark.parametrize(
    "query",
    [
        {"period": "1X"},
        {"period": "0D"},
        {"timeframe": "2Min"},
        {"period": "3M", "timeframe": "1H"},
        {"start": "2026-05-02", "end": "2026-05-03", "period": "1D"},
        {"start": "2026-05-03", "end": "2026-05-02"},
        {"period": "99A"},
        {"period": "2030A"},
        {"start": "1970-01-01"},
        {"intraday_reporting": "never"},
        {"pnl_reset": "sometimes"},
    ],
)
def test_bad_portfolio_parameters_are_422(account: SimAccount, query: dict[str, str]) -> None:
    answer = account.send("GET", "/v2/account/portfolio/history", **query)
    assert (answer.status, json.loads(answer.body)["code"]) == (422, 40010001)
