"""Which contracts are listed: on real days, around the price, and once listed for good."""

from collections.abc import Iterator
from datetime import date, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.support.fakes import ManualClock
from tests.support.sim_account import SimAccount

from alpacli.sim.chains import Filter, contracts, is_listed
from alpacli.sim.contracts import parse
from alpacli.sim.hours import nyse_sessions

MONDAY = 1_780_322_400.0  # 2026-06-01, 10:00 in New York


@pytest.fixture
def account(tmp_path: Path) -> Iterator[SimAccount]:
    with SimAccount(tmp_path, ManualClock(MONDAY)) as made:
        made.exchange.reset(rate_limit=0)
        yield made


def listed(account: SimAccount, **query: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = account.get("/v2/options/contracts", limit="10000", **query)["option_contracts"]
    return rows


def test_options_expire_on_real_trading_days(account: SimAccount) -> None:
    """Each week's Friday, or its Thursday where the NYSE is shut, as the real calendar has them."""
    sessions = {session.day for session in nyse_sessions()}
    found = {
        row["expiration_date"] for row in listed(account, underlying_symbols="AAPL", expiration_date_lte="2029-12-31")
    }
    assert len(found) > 20
    assert found <= sessions
    assert {"2026-06-05", "2026-06-18", "2026-07-02", "2027-12-17"} <= found  # two of them before a Friday's holiday
    for text in found:
        day = date.fromisoformat(text)
        assert day.weekday() == 4 or (day + timedelta(1)).isoformat() not in sessions


def test_by_default_the_list_ends_with_the_week(account: SimAccount) -> None:
    assert {row["expiration_date"] for row in listed(account, underlying_symbols="AAPL,SPY")} == {"2026-06-05"}


def test_strikes_lie_around_the_price(account: SimAccount) -> None:
    price = account.get("/v2/stocks/trades/latest", symbols="AAPL")["trades"]["AAPL"]["p"]
    strikes = [Decimal(row["strike_price"]) for row in listed(account, underlying_symbols="AAPL", type="call")]
    assert strikes == sorted(strikes)
    assert strikes[0] < Decimal(str(price)) * Decimal("0.85")
    assert strikes[-1] > Decimal(str(price)) * Decimal("1.15")


def test_a_funds_strikes_are_a_dollar_apart_this_week_and_coarser_far_ahead(account: SimAccount) -> None:
    for expires, steps in (("2026-06-05", {Decimal(1)}), ("2027-12-17", {Decimal(5), Decimal(10)})):
        rows = listed(account, underlying_symbols="SPY", type="call", expiration_date=expires)
        strikes = [Decimal(row["strike_price"]) for row in rows]
        assert {above - below for below, above in pairwise(strikes[len(strikes) // 3 :])} == steps


def test_what_is_listed_stays_listed(account: SimAccount) -> None:
    market = account.exchange.market()
    known: set[str] = set()
    wanted = Filter(("TSLA",), expires=date(2026, 7, 17))
    for weeks in range(7):
        at_ns = int(MONDAY + weeks * 7 * 86_400) * 10**9
        now = {contract.symbol for contract in contracts(market, wanted, at_ns)}
        assert known <= now
        assert all(is_listed(market, contract, at_ns) for contract in contracts(market, wanted, at_ns))
        known = now
    assert known


def test_every_filter_holds(account: SimAccount) -> None:
    rows = listed(
        account,
        underlying_symbols="AAPL",
        expiration_date_gte="2026-06-10",
        expiration_date_lte="2026-07-10",
        strike_price_gte="260.5",
        strike_price_lte="290",
        type="put",
        style="american",
        root_symbol="AAPL",
    )
    assert rows
    for row in rows:
        assert "2026-06-10" <= row["expiration_date"] <= "2026-07-10"
        assert Decimal("260.5") <= Decimal(row["strike_price"]) <= 290
        assert (row["type"], row["style"]) == ("put", "american")
    day = rows[0]["expiration_date"]
    assert {row["expiration_date"] for row in listed(account, underlying_symbols="AAPL", expiration_date=day)} == {day}
    assert listed(account, underlying_symbols="AAPL", style="european") == []
    assert listed(account, underlying_symbols="AAPL", ppind="false") == []
    assert listed(account, underlying_symbols="NOPE") == []
    assert {row["underlying_symbol"] for row in listed(account, root_symbol="BRKB")} == {"BRK.B"}
    assert "deliverables" not in rows[0]
    shown = listed(account, underlying_symbols="AAPL", expiration_date=day, show_deliverables="true")[0]
    assert shown["deliverables"][0]["symbol"] == "AAPL"


def test_pages_make_the_whole_list(account: SimAccount) -> None:
    whole = [row["symbol"] for row in listed(account, underlying_symbols="F,SPY")]
    pages: list[str] = []
    token: str | None = ""
    while token is not None:
        page = account.get("/v2/options/contracts", underlying_symbols="SPY,F", limit="37", page_token=token)
        pages += [row["symbol"] for row in page["option_contracts"]]
        token = page["next_page_token"]
    assert pages == whole


def test_a_contract_is_found_by_symbol_and_by_id(account: SimAccount) -> None:
    row = listed(account, underlying_symbols="AAPL")[0]
    for name in (row["symbol"], row["id"]):
        found = account.get(f"/v2/options/contracts/{name}")
        assert {key: found[key] for key in row} == row
    for name in ("AAPL260605C00271830", "AAPL260606C00270000", "AAPL", "ZZZZ260605C00270000"):
        status, body = account.refused(f"/v2/options/contracts/{name}")
        assert (status, body) == (404, {"code": 40410000, "message": f"option contract {name} not found"})


def test_what_has_expired_is_inactive(account: SimAccount) -> None:
    symbol = listed(account, underlying_symbols="AAPL")[0]["symbol"]
    account.clock.advance(6 * 86_400)
    assert symbol not in {row["symbol"] for row in listed(account, underlying_symbols="AAPL")}
    found = account.get(f"/v2/options/contracts/{symbol}")
    assert (found["status"], found["tradable"]) == ("inactive", False)
    past = listed(account, underlying_symbols="AAPL", status="inactive", expiration_date_gte="2026-06-01")
    assert symbol in {row["symbol"] for row in past}


def test_coins_and_strangers_have_no_options(account: SimAccount) -> None:
    market, at_ns = account.exchange.market(), account.exchange.now_ns()
    for symbol in ("BTCUSD260605C00100000", "ZZZZ260605C00100000"):
        contract = parse(symbol)
        assert contract is not None
        assert not is_listed(market, contract, at_ns)
