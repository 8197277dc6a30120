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
