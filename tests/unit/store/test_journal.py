"""The journal keeps what was written, whoever is killed, and tells when somebody changed it."""

import json
import multiprocessing
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alpacli.errors import ConfigError
from alpacli.store.journal import Journal


def filled(path: Path, count: int = 5) -> Journal:
    journal = Journal(str(path / "orders.jsonl"))
    for number in range(count):
        journal.append({"at": 100.0 + number, "what": f"line {number} é"})
    return journal


def test_records_come_back_in_order_and_the_chain_holds(tmp_path: Path) -> None:
    journal = filled(tmp_path)
    assert [record["seq"] for record in journal.records()] == [1, 2, 3, 4, 5]
    assert journal.verify() == (5, [])
    assert [record["at"] for record in journal.since(103.0)] == [103.0, 104.0]
    assert os.stat(journal.path).st_mode & 0o777 == 0o600


def test_an_empty_journal_is_intact(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "none" / "orders.jsonl"))
    assert journal.verify() == (0, [])
    assert list(journal.records()) == []
    assert journal.since(0) == []


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_changed_byte_any_missing_line_is_found(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    journal = filled(tmp_path_factory.mktemp("journal"))
    path = Path(journal.path)
    lines = path.read_bytes().splitlines(keepends=True)
    harm = data.draw(st.sampled_from(["change", "remove", "cut", "swap", "insert"]))
    place = data.draw(st.integers(0, len(lines) - 1))
    if harm == "change":
        record = json.loads(lines[place])
        record["what"] = "something else"
        lines[place] = (json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n").encode()
    elif harm == "remove":
        del lines[place]
    elif harm == "cut":
        lines = lines[:place]
    elif harm == "swap":
        other = (place + 1) % len(lines)
        lines[place], lines[other] = lines[other], lines[place]
    else:
        lines.insert(place, lines[place])
    path.write_bytes(b"".join(lines))
    assert journal.verify()[1]


def test_a_line_that_was_being_written_when_the_process_was_killed_is_no_fault(tmp_path: Path) -> None:
    journal = filled(tmp_path)
    with open(journal.path, "ab") as file:
        file.write(b'{"seq":6,"at":1')
    assert journal.verify() == (5, [])
    journal.append({"at": 200.0, "what": "next"})
    assert journal.verify() == (6, [])
    assert [record["what"] for record in journal.records()][-1] == "next"


def _append(path: str) -> None:
    journal = Journal(path)
    for number in range(40):
        journal.append({"at": float(number), "pid": os.getpid()})


def test_many_processes_write_one_chain(tmp_path: Path) -> None:
    path = str(tmp_path / "orders.jsonl")
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_append, args=(path,)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert Journal(path).verify() == (160, [])


def test_what_cannot_be_recorded_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match="cannot be written"):
        Journal(str(tmp_path / "file" / "orders.jsonl")).append({"at": 1.0})


def test_a_journal_whose_end_cannot_be_noted_is_as_it_was(tmp_path: Path) -> None:
    """A full disk: the order is refused, so nobody may find it in the journal later and ask what became of it."""
    journal = filled(tmp_path)
    before = Path(journal.path).read_bytes()
    head = Path(f"{journal.path}.head")
    head.unlink()
    head.mkdir()
    with pytest.raises(ConfigError, match="cannot be written"):
        journal.append({"at": 200.0, "what": "too much"})
    assert Path(journal.path).read_bytes() == before


def test_a_lost_note_of_the_end_is_a_fault(tmp_path: Path) -> None:
    journal = filled(tmp_path)
    Path(f"{journal.path}.head").unlink()
    [fault] = journal.verify()[1]
    assert "more may be missing" in fault.problem


@pytest.mark.parametrize("left", [0, 1, 4])
def test_a_missing_end_stays_a_fault_when_the_next_record_is_written(tmp_path: Path, left: int) -> None:
    journal = filled(tmp_path)
    path = Path(journal.path)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:left]))
    for what in ("first", "second"):
        journal.append({"at": 200.0, "what": what})
        [fault] = journal.verify()[1]
        assert (fault.line, fault.problem) == (left + 1, "a line before it is missing, was inserted or was changed")


def test_a_last_record_that_was_written_anew_stays_a_fault(tmp_path: Path) -> None:
    journal, other = filled(tmp_path), filled(tmp_path / "other")
    other.append({"at": 1.0, "what": "something else"})
    lines = [Path(one.path).read_bytes().splitlines(keepends=True) for one in (journal, other)]
    journal.append({"at": 1.0, "what": "a thing"})
    Path(journal.path).write_bytes(b"".join(lines[1]))
    journal.append({"at": 200.0, "what": "next"})
    assert [fault.line for fault in journal.verify()[1]] == [len(lines[1]) + 1]


def test_verifying_while_others_write_finds_nothing_wrong(tmp_path: Path) -> None:
    path = str(tmp_path / "orders.jsonl")
    writer = multiprocessing.get_context("spawn").Process(target=_append, args=(path,))
    writer.start()
    found = []
    while writer.is_alive():
        found += Journal(path).verify()[1]
    writer.join()
    assert found == []
    assert Journal(path).verify() == (40, [])


def test_a_refused_record_leaves_no_trace(tmp_path: Path) -> None:
    journal = filled(tmp_path)

    def no() -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        journal.append({"at": 1.0}, no)
    assert journal.verify() == (5, [])


def test_a_clock_that_was_set_back_hides_no_record(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "orders.jsonl"))
    for at in (1000.0, 400.0, 401.0, 1001.0):
        journal.append({"at": at})
    assert [record["at"] for record in journal.since(950.0)] == [1000.0, 1001.0]


@pytest.mark.parametrize(
    "harm",
    [
        b"\x00\xff garbage",
        b"[1,2]",
        b"{}",
        b'{"seq":"x","prev":1,"hash":2}',
        b'{"seq":NaN,"prev":"a","hash":"b"}',
        b"[" * 100_000,
        b'{"seq":' + b"9" * 5000 + b"}",
        b"",
    ],
)
@pytest.mark.parametrize("place", [0, 2, 5])
def test_a_line_that_is_none_is_found_and_stops_nobody(tmp_path: Path, harm: bytes, place: int) -> None:
    journal = filled(tmp_path)
    lines = Path(journal.path).read_bytes().splitlines(keepends=True)
    lines.insert(place, harm + b"\n")
    Path(journal.path).write_bytes(b"".join(lines))
    assert len(list(journal.records())) == 5
    assert len(journal.since(0)) == 5
    journal.append({"at": 200.0, "what": "next"})
    count, faults = journal.verify()
    assert count == 7
    assert [fault.line for fault in faults] == [place + 1]
    assert [record["what"] for record in journal.records()][-1] == "next"
