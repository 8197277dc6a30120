"""SELECT over what is kept: exact times, one statement, and nothing but the kept files within reach."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.support.history import ns

from alpacli.domain.series import Series
from alpacli.errors import UsageError
from alpacli.history.bar_store import BarStore
from alpacli.history.holes import new_york_day
from alpacli.history.sql import select
from alpacli.wire.columns import read_page

AT = "2026-01-05T14:30:00.123456789Z"


@pytest.fixture
def root(tmp_path: Path) -> str:
    page = read_page(
        "trades", b'{"trades":{"AAPL":[{"t":"%s","p":100.25,"s":10,"x":"V","c":["@","I"]}]}}' % AT.encode()
    )
    store = BarStore(str(tmp_path / "market"))
    within = (ns("2026-01-05T14:00:00Z"), ns("2026-01-05T15:00:00Z"))
    store.write(
        Series("trades", "stocks", "sip"), "AAPL", [table for _, table in page.tables], within, new_york_day(within[1])
    )
    return store.root


def rows(root: str, statement: str) -> list[tuple[Any, ...]]:
    return [row for portion in select(root, statement).portions for row in portion]


def test_times_have_their_nanoseconds_wherever_they_stand(root: str) -> None:
    answer = rows(root, "select timestamp, list(timestamp), {'at': min(timestamp)}, null from trades group by 1")
    assert answer == [(AT, [AT], {"at": AT}, None)]
    assert rows(root, "select timestamp from bars") == []
    assert rows(root, f"select count(*) from trades where timestamp = '{AT}'") == [(1,)]


def test_lists_and_what_is_missing_in_them_come_as_they_are(root: str) -> None:
    assert rows(root, "select conditions, tape, size, price::decimal(9,3) from trades") == [
        (["@", "I"], None, 10.0, Decimal("100.250"))
    ]
    assert rows(root, "from (values (['a', null]), (null), ([])) v(x)") == [(["a", None],), (None,), ([],)]


@pytest.mark.parametrize(
    "statement",
    ["drop view trades", "select 1; select 2", "select nothing from trades", "from read_csv('/etc/passwd')", ""],
)
def test_anything_but_one_select_over_the_kept_files_is_refused(root: str, statement: str) -> None:
    with pytest.raises(UsageError):
        rows(root, statement)
