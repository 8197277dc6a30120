"""Kept files copied to a file of the user's: the same rows and bytes, no request, and never a mixture of two states."""

import os
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.support.history import History, minutes, ns
from tests.unit.history.test_market import Desk

from alpacli.domain.batches import Batches, Changed
from alpacli.history.holes import new_york_day
from alpacli.history.kept_text import Writer, path_of
from alpacli.history.row_groups import NotUnderstood, joined, read_footer
from alpacli.render import columns

CSV = Writer(lambda table: columns.header(table, "csv"), lambda table: columns.text(table, "csv"))
BEGIN, END = ns("2025-11-01T00:00:00Z"), ns("2025-12-31T23:59:59.999999999Z")
COUNT = 2 * 1500


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    host = History(page=400)
    for symbol in ("AAPL", "MSFT"):
        host.put(symbol, [*minutes("2025-11-10T12:00:00Z", 1500), *minutes("2025-12-10T12:00:00Z", 1500)])
    return Desk(tmp_path, host)


def bars(desk: Desk, *symbols: str, begin: int = BEGIN, end: int = END) -> Batches:
    return desk.data.bars(symbols or ("AAPL", "MSFT"), start=begin, end=end)


def parquet(found: Batches) -> bytes:
    copy = found.copy()
    assert copy is not None
    return b"".join(copy.blocks)


def csv(found: Batches) -> bytes:
    copy = found.copy(CSV)
    assert copy is not None
    return b"".join(copy.blocks)


def table(data: bytes) -> pa.Table:
    return pq.read_table(pa.BufferReader(data))


def text(tables: Iterable[pa.Table]) -> bytes:
    tables = list(tables)
    return columns.header(tables[0], "csv") + b"".join(bytes(columns.text(part, "csv")) for part in tables)


def files(desk: Desk, pattern: str = "*.parquet") -> list[Path]:
    return sorted(Path(desk.store.root).rglob(pattern))


def test_a_copy_has_the_same_rows_as_the_batches_and_the_same_bytes_every_time(desk: Desk) -> None:
    found = bars(desk)
    first = parquet(found)
    asked = len(desk.host.asked)
    assert table(first).equals(found.to_arrow())
    assert table(first).num_rows == 2 * COUNT
    assert parquet(bars(desk)) == first
    written = csv(bars(desk))
    assert written == text(batch.table for batch in found)
    assert len(files(desk, "*.csv")) == 4
    assert csv(bars(desk)) == written
    assert len(desk.host.asked) == asked, "the second time nothing is asked for"


def test_a_copy_has_statistics_so_that_readers_skip_what_they_do_not_want(desk: Desk) -> None:
    found = pq.ParquetFile(pa.BufferReader(parquet(bars(desk))))
    assert found.metadata.num_row_groups == 4
    times = [found.metadata.row_group(place).column(1).statistics.min for place in range(4)]
    assert [(at.month, at.day) for at in times] == [(11, 10), (12, 10)] * 2
    assert b"covered" not in str(found.metadata.metadata).encode()
    assert pq.read_table(
        pa.BufferReader(parquet(bars(desk))), filters=[("symbol", "=", "MSFT"), ("timestamp", ">", times[1])]
    ).num_rows == 1499  # fmt: skip


def test_what_is_not_a_whole_file_or_not_final_is_not_copied(desk: Desk) -> None:
    parquet(bars(desk))
    assert bars(desk, begin=ns("2025-11-10T13:00:00Z")).copy() is None
    assert bars(desk, end=ns("2025-12-10T13:00:00Z")).copy(CSV) is None
    assert desk.data.bars(["AAPL"], start=BEGIN).copy() is None
    assert desk.data.bars(["AAPL"], start=BEGIN, end=END, limit=COUNT).copy() is None
    few = desk.data.bars(["AAPL"], start=BEGIN, end=END, timeframe="1Day")
    desk.host.put("AAPL", minutes("2025-11-10T12:00:00Z", 5))
    assert few.copy() is None, "groups of so few rows are not worth it"


def test_up_to_now_is_copied_while_the_market_is_shut(desk: Desk) -> None:
    parquet(bars(desk))
    desk.clock.advance((ns("2026-05-31T12:00:00Z") - desk.data._now_ns()) / 1e9)  # a Sunday
    found = desk.data.bars(["AAPL"], start=BEGIN)
    assert table(parquet(found)).num_rows == COUNT
    asked = len(desk.host.asked)
    assert table(parquet(desk.data.bars(["AAPL"], start=BEGIN))).num_rows == COUNT
    assert len(desk.host.asked) == asked


def test_a_text_of_another_state_of_its_file_is_made_again(desk: Desk) -> None:
    written = csv(bars(desk, "AAPL"))
    first = files(desk)[0]
    os.utime(first, ns=(1, 1))
    Path(path_of(str(first))).write_bytes(b"of 1 2 3\nsymbol\nnonsense\n")
    assert csv(bars(desk, "AAPL")) == written
    changed = minutes("2025-11-10T12:00:00Z", 1500)
    changed[0]["c"] = 321.125
    desk.host.put("AAPL", changed)
    desk.data.use_kept = False
    assert b",321.125," in csv(bars(desk, "AAPL"))
    desk.data.use_kept = True
    assert b",321.125," in csv(bars(desk, "AAPL"))


def test_removing_a_file_removes_its_text(desk: Desk) -> None:
    csv(bars(desk))
    kept = list(desk.store.files())
    assert sum(file.bytes for file in kept) == sum(
        path.stat().st_size for path in (*files(desk), *files(desk, "*.csv"))
    )
    desk.store.remove(kept[0])
    assert len(files(desk, "*.csv")) == 3
    desk.store.forget(kept[-1].series, kept[-1].symbol, up_to=new_york_day(desk.data._now_ns()))
    assert {path.parent.name for path in files(desk, "*.csv")} == {kept[0].symbol}


@pytest.mark.parametrize("form", [None, CSV])
def test_a_file_that_changes_while_it_is_copied_ends_the_copy_and_never_mixes_in(
    desk: Desk, form: Writer | None
) -> None:
    bars(desk).copy(form)
    copy = bars(desk).copy(form)
    assert copy is not None
    last = files(desk)[-1]
    pq.write_table(pq.read_table(last).slice(1), last)
    with pytest.raises(Changed):
        list(copy.blocks)


def test_a_file_that_another_process_wrote_again_with_the_same_rows_does_not_disturb(desk: Desk) -> None:
    first = parquet(bars(desk))
    copy = bars(desk).copy()
    assert copy is not None
    again = files(desk)[-1]
    os.replace(again, f"{again}.tmp-1")
    again.write_bytes(Path(f"{again}.tmp-1").read_bytes())
    assert b"".join(copy.blocks) == first


def test_what_cannot_be_moved_is_refused_and_an_index_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    rows = pa.table({"symbol": ["A"], "timestamp": pa.array([1], pa.timestamp("ns", "UTC"))})
    pq.write_table(rows, path, bloom_filter_options={"symbol": True})
    with pytest.raises(NotUnderstood, match="filter"):
        joined([read_footer(str(path))])
    pq.write_table(rows, path, write_page_index=True)
    assert table(b"".join(joined([read_footer(str(path))] * 2))).num_rows == 2


@pytest.mark.parametrize("groups", [1, 7, 20])
@pytest.mark.parametrize("columns_", [2, 40])
def test_footers_of_every_size_are_read_and_written(tmp_path: Path, groups: int, columns_: int) -> None:
    part = pa.table(
        {"symbol": ["Å" * 200] * groups, "timestamp": pa.array(range(-3, groups - 3), pa.timestamp("ns", "UTC"))}
        | {f"column {n}": pa.array([None, *range(groups - 1)], pa.int64()) for n in range(columns_)}
    )
    paths = [tmp_path / f"{n}.parquet" for n in range(3)]
    for path in paths:
        pq.write_table(part.replace_schema_metadata({b"alpacli": b"{}" * 40_000}), path, row_group_size=1)
    footers = [read_footer(str(path)) for path in paths]
    assert (footers[0].rows, footers[0].times(), footers[0].note(b"alpacli")) == (
        groups, (-3, groups - 4), b"{}" * 40_000,
    )  # fmt: skip
    assert table(b"".join(joined(footers))).equals(pa.concat_tables([part] * 3))


@pytest.mark.parametrize(
    "damage", [b"", b"PAR1", b"PAR1\xff\xff\xff\x7fPAR1", b"PAR1" + b"\x9f" * 60 + b"\x30\0\0\0PAR1"]
)
def test_a_damaged_file_is_not_understood(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(damage)
    with pytest.raises(NotUnderstood):
        read_footer(str(path))
