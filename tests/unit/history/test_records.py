"""What was kept is found again by time, symbol, side and status, and leaves in any format with every digit."""

import csv
import io
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.support.broker_book import booking, fill, order

from alpacli.domain.account import Activity
from alpacli.domain.orders import Order
from alpacli.domain.values import Timestamp, to_json
from alpacli.errors import AlpacliError, UsageError
from alpacli.history import export, records
from alpacli.history.archive import Archive, OrderRow
from alpacli.history.records import Wanted
from alpacli.history.sync import activity_row
from alpacli.wire import pages

ORDERS = [
    order(1, "2026-05-01T10:00:00.123456789Z", symbol="BTC/USD", side="sell", filled_avg_price="61234.123456789"),
    order(2, "2026-05-02T10:00:00Z", status="canceled", filled_qty="0", brand_new={"unknown": ["1.50"]}),
    order(3, "2026-05-03T10:00:00Z", status="new", filled_qty="0", symbol="=cmd|' /C calc'!A0"),
]
ACTIVITIES = [
    fill(1, "2026-05-01T10:00:00.123456789Z", type="partial_fill"),
    fill(2, "2026-05-02T10:00:00Z", side="sell"),
    booking(1, "DIV", "2026-05-03", net_amount="1.2300"),
]


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with Archive(str(tmp_path / "account.sqlite")) as made:
        heads = pages.orders_after(None).decode(json.dumps(ORDERS).encode())
        made.keep_orders(
            OrderRow(
                head.id,
                head.submitted_ns,
                (head.symbol or "").replace("/", ""),
                head.side or "",
                head.status,
                head.status == "new",
                head.filled,
                head.wire,
            )
            for head in heads
        )
        call = pages.activities_after(None, category="trade_activity", since=None)
        made.keep_activities(map(activity_row, call.decode(json.dumps(ACTIVITIES).encode())))
        yield made


def _ns(text: str) -> int:
    return Timestamp.parse(text).epoch_ns


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Wanted(), "123"),
        (Wanted(descending=True, most=2), "32"),
        (Wanted(since_ns=_ns("2026-05-01T10:00:00.123456789Z"), until_ns=_ns("2026-05-02T10:00:00Z")), "1"),
        (Wanted(since_ns=_ns("2026-05-01T10:00:00.123456790Z")), "23"),
        (Wanted(symbols=["btcusd"]), "1"),
        (Wanted(symbols=["btcu\u017fd"]), ""),  # a long s, of which Python's upper makes an S
        (Wanted(symbols=["BTC/USD", "AAPL"]), "12"),
        (Wanted(side="sell"), "1"),
        (Wanted(statuses=["open"]), "3"),
        (Wanted(statuses=["closed"]), "12"),
        (Wanted(statuses=["canceled", "open"]), "23"),
        (Wanted(statuses=["no such"]), ""),
    ],
)
def test_orders_are_found_by_what_was_asked(archive: Archive, wanted: Wanted, found: str) -> None:
    assert "".join(row.id[-1] for row in records.orders(archive, wanted)) == found


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Wanted(), ["FILL", "FILL", "DIV"]),
        (Wanted(kinds=["DIV"]), ["DIV"]),
        (Wanted(statuses=["partial_fill"]), ["FILL"]),
        (Wanted(side="sell"), ["FILL"]),
        (Wanted(symbols=["AAPL"], most=1, descending=True), ["FILL"]),
    ],
)
def test_activities_are_found_by_what_was_asked(archive: Archive, wanted: Wanted, found: list[str]) -> None:
    assert [row.activity_type for row in records.activities(archive, wanted)] == found


def test_an_order_prints_as_the_brokers_own_answer_would(archive: Archive) -> None:
    for row, sent in zip(records.orders(archive, Wanted()), ORDERS, strict=True):
        assert to_json(row) == to_json(Order.model_validate(sent))


def _written(rows: Any, model: Any, form: str) -> bytes:
    out = io.BytesIO()
    export.export(rows, model, out, form)
    return out.getvalue()


def test_json_lines_hold_everything_also_what_nobody_has_heard_of(archive: Archive) -> None:
    lines = _written(records.orders(archive, Wanted()), Order, "jsonl").splitlines()
    assert lines == [to_json(row) for row in records.orders(archive, Wanted())]
    assert b'"brand_new":{"unknown":["1.50"]}' in lines[1]


def test_csv_has_the_documented_columns_with_every_digit_and_the_rest_as_json(archive: Archive) -> None:
    rows = list(csv.DictReader(io.StringIO(_written(records.orders(archive, Wanted()), Order, "csv").decode())))
    assert (rows[0]["filled_avg_price"], rows[0]["submitted_at"]) == (
        "61234.123456789",
        "2026-05-01T10:00:00.123456789Z",
    )
    assert (rows[1]["extra"], rows[0]["extra"]) == ('{"brand_new":{"unknown":["1.50"]}}', "")
    assert rows[2]["symbol"] == "=cmd|' /C calc'!A0"


def test_parquet_has_exact_decimals_and_nanoseconds(archive: Archive) -> None:
    table = pq.read_table(io.BytesIO(_written(records.orders(archive, Wanted()), Order, "parquet")))
    assert table.num_rows == 3
    assert table["filled_avg_price"][0].as_py() == Decimal("61234.123456789")
    assert table["submitted_at"][0].value == _ns("2026-05-01T10:00:00.123456789Z")
    assert table["extended_hours"][0].as_py() is False
    assert table["extra"][1].as_py() == '{"brand_new":{"unknown":["1.50"]}}'
    fills = pq.read_table(io.BytesIO(_written(records.activities(archive, Wanted()), Activity, "parquet")))
    assert fills["net_amount"].to_pylist() == [None, None, Decimal("1.23")]


def test_nothing_to_write_is_a_file_with_columns_and_no_row() -> None:
    assert pq.read_table(io.BytesIO(_written([], Order, "parquet"))).num_rows == 0
    assert _written([], Order, "csv").startswith(b"id,client_order_id,")
    assert _written([], Order, "jsonl") == b""


def test_an_amount_that_no_column_holds_is_told() -> None:
    row = Order.model_validate(order(1, "2026-05-01T10:00:00Z", qty="1" + "0" * 30))
    with pytest.raises(AlpacliError, match="does not fit into Parquet"):
        _written([row], Order, "parquet")


def test_a_file_that_could_not_be_finished_leaves_nothing_behind(tmp_path: Path) -> None:
    def rows() -> Iterator[Order]:
        yield Order.model_validate(order(1, "2026-05-01T10:00:00Z"))
        raise UsageError("interrupted")

    with pytest.raises(UsageError), export.whole_file(str(tmp_path / "o.csv")) as out:
        export.export(rows(), Order, out, "csv")
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_is_written_to_and_a_link_goes_on_leading_to_its_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with export.whole_file(str(tmp_path / "pipe")) as out:
        out.write(b"rows")
    assert os.read(reader, 100) == b"rows"
    os.close(reader)
    assert stat.S_ISFIFO(os.lstat(tmp_path / "pipe").st_mode)
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with export.whole_file(str(tmp_path / "link")) as out:
        out.write(b"rows")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"rows"


WRITER = """
import sys
from alpacli.history.export import whole_file
with whole_file(sys.argv[1]) as out:
    out.write(b"half")
    out.flush()
    print("begun", flush=True)
    sys.stdin.read()
"""


@contextmanager
def _writing(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start another process that writes a file, and is in the middle of it."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"begun\n"
            yield writer
        finally:
            writer.kill()


def test_what_a_killed_process_left_goes_with_the_next_one_that_writes_the_same_file(tmp_path: Path) -> None:
    target = tmp_path / "o.csv"
    with _writing(target) as writer:
        writer.kill()
    other = tmp_path / f"other-o.csv.{writer.pid}.part"
    other.write_bytes(b"of another file")
    (leftover,) = tmp_path.glob("o.csv.*.part")
    assert leftover.read_bytes() == b"half"
    with _writing(target) as alive:
        assert not leftover.exists()
        with export.whole_file(str(target)) as out:
            out.write(b"rows")
        assert target.read_bytes() == b"rows"
        alive.communicate(timeout=30)
        assert alive.returncode == 0, "what is being written stays"
    assert target.read_bytes() == b"half"
    assert sorted(tmp_path.iterdir()) == [target, other]


@pytest.mark.parametrize(
    ("path", "hint", "code"),
    [("nowhere/o.csv", "there is no folder", 2), (".", "name a file in it", 2), ("/dev/full", "make room", 8)],
)
def test_what_cannot_be_written_says_what_to_do(tmp_path: Path, path: str, hint: str, code: int) -> None:
    if not Path(path).is_absolute():
        path = str(tmp_path / path)
    elif not Path(path).exists():
        pytest.skip(f"this system has no {path}")
    with pytest.raises(AlpacliError, match="cannot write") as refused, export.whole_file(path) as out:
        out.write(b"rows")
    assert hint in refused.value.hint
    assert refused.value.exit_code == code, "a place that makes no sense is wrong usage; a full disk is not"


@pytest.mark.parametrize(
    ("path", "chosen", "form"),
    [("a.csv", None, "csv"), ("a.PARQUET", None, "parquet"), ("-", "jsonl", "jsonl"), ("a.ndjson", None, "jsonl")],
)
def test_the_format_is_what_the_name_ends_with_unless_it_is_said(path: str, chosen: str | None, form: str) -> None:
    assert export.format_of(path, chosen) == form


@pytest.mark.parametrize(("path", "chosen"), [("-", None), ("a.txt", None), ("a.csv", "xlsx"), ("a", None)])
def test_an_unknown_format_is_wrong_usage(path: str, chosen: str | None) -> None:
    with pytest.raises(UsageError, match="no format"):
        export.format_of(path, chosen)
