"""SELECT over what is kept: exact times, one statement, and nothing but the kept files within reach."""

import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.support.history import ns

from alpacli.domain.series import Series
from alpacli.errors import AlpacliError, UsageError
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


# What is done to the bytes of a file: cut short, as by a full disk; emptied; its footer and its columns made unreadable.
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda whole: whole[: len(whole) // 2],
    "empty": lambda _: b"",
    "footer": lambda whole: whole[:-300] + bytes([255]) * 280 + whole[-20:],
    "rows": lambda whole: whole[:4] + bytes(len(whole) // 4) + whole[4 + len(whole) // 4 :],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_torn_file_ends_only_the_queries_that_need_it_and_says_what_mends_it(
    root: str, damage: Callable[[bytes], bytes]
) -> None:
    (torn,) = Path(root, "trades").rglob("*.parquet")
    torn.write_bytes(damage(torn.read_bytes()))
    assert rows(root, "select count(*) from bars") == [(0,)]
    assert rows(root, "select count(*) from quotes") == [(0,)]
    for statement in ("select symbol, price, conditions from trades", "from bars union all by name from trades"):
        with pytest.raises(AlpacliError, match="kept file cannot be read") as caught:
            rows(root, statement)
        assert not isinstance(caught.value, UsageError)
        assert "data verify" in caught.value.hint
    store = BarStore(root)
    (file,) = store.files()
    problem = store.check(file)
    assert problem
    assert not re.search(r"[a-z][A-Z]|Error|Exception", problem), "the name of a class says nothing to people"
    store.remove(file)  # as `data verify --repair` does
    assert rows(root, "select count(*) from trades") == [(0,)]
