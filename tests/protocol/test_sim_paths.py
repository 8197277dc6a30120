"""Every path of Alpaca's trading document is served, or it is said here why not."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from tests.support.fakes import ManualClock
from tests.support.openapi import check_answer, document, require_specs
from tests.support.sim_account import SimAccount

NOT_SERVED: Final = {
    r"/v1/locates.*": "borrowing of shares that are hard to borrow; every share here is easy to borrow or not shortable",
    r"/v2/perpetuals/.*": "crypto perpetuals: an account of another kind",
    r"/v2/tokenization/.*": "for authorized participants",
    r"/v2/wallets.*": "coins that come and go for real",
}
VALUES: Final = {
    "activity_type": "FILL",
    "symbol_or_asset_id": "AAPL",
    "symbol_or_contract_id": "AAPL260619C00300000",
    "symbol_or_id": "AAPL260619C00300000",
    "symbol": "AAPL",
    "market": "NYSE",
}
SOME_ID: Final = "61e69015-8549-4bfd-b9c3-01e75843f47d"


def operations() -> Iterator[tuple[str, str]]:
    for template, methods in document()["paths"].items():
        if not any(re.fullmatch(pattern, template) for pattern in NOT_SERVED):
            for method in methods.keys() & {"get", "post", "put", "patch", "delete"}:
                yield method.upper(), template


def test_every_path_of_the_document_is_served_or_excused(tmp_path: Path) -> None:
    require_specs()
    missing = []
    with SimAccount(tmp_path) as account:
        for method, template in operations():
            path = re.sub(r"\{(\w+)\}", lambda found: VALUES.get(found[1], SOME_ID), template)
            answer = account.send(method, path, {} if method in ("POST", "PUT", "PATCH") else None)
            assert answer.status < 500, (method, path, answer.body)
            if b"endpoint not found" in answer.body:
                missing.append(f"{method} {template}")
    assert missing == []


def test_no_excuse_is_for_a_path_that_does_not_exist() -> None:
    require_specs()
    for pattern in NOT_SERVED:
        assert any(re.fullmatch(pattern, template) for template in document()["paths"]), pattern


@pytest.mark.parametrize("hours", ["always", "xnys"])
def test_the_newer_clock_and_calendar_fit_their_schemas(tmp_path: Path, hours: str) -> None:
    require_specs()
    with SimAccount(tmp_path) as account:
        account.exchange.reset(hours="xnys" if hours == "xnys" else "always")
        for path, query in (
            ("/v3/clock", {}),
            ("/v3/clock", {"markets": "NYSE,XNAS", "time": "2026-07-03T10:00:00-04:00"}),
            ("/v3/calendar/NYSE", {}),
            ("/v3/calendar/IEX", {"start": "2026-11-23", "end": "2026-11-30", "timezone": "UTC"}),
            ("/v2/assets/fixed_income/us_corporates", {}),
            ("/v2/assets/fixed_income/us_treasuries", {}),
        ):
            template = path.replace("/NYSE", "/{market}").replace("/IEX", "/{market}")
            check_answer("GET", template, 200, account.get(path, **query))


@pytest.mark.parametrize(
    ("time", "day", "phase", "until"),
    [
        ("2026-11-27T03:59:59-05:00", True, "closed", "2026-11-27T04:00:00-05:00"),
        ("2026-11-27T04:00:00-05:00", True, "pre", "2026-11-27T09:30:00-05:00"),
        ("2026-11-27T12:59:59-05:00", True, "core", "2026-11-27T13:00:00-05:00"),  # the day after Thanksgiving
        ("2026-11-27T13:00:00-05:00", True, "post", "2026-11-27T20:00:00-05:00"),
        ("2026-11-27T20:00:00-05:00", True, "closed", "2026-11-30T04:00:00-05:00"),
        ("2026-11-26T12:00:00-05:00", False, "closed", "2026-11-27T04:00:00-05:00"),
    ],
)
def test_the_newer_clock_tells_the_phase_of_the_day(
    tmp_path: Path, *, time: str, day: bool, phase: str, until: str
) -> None:
    with SimAccount(tmp_path, ManualClock()) as account:
        account.exchange.reset(hours="xnys")
        [clock] = account.get("/v3/clock", time=time)["clocks"]
        assert (clock["is_market_day"], clock["phase"], clock["phase_until"]) == (day, phase, until)
        assert account.send("GET", "/v3/clock", markets="XLON").status == 400
