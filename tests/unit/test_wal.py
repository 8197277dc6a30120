"""Several processes open a new database at once: each waits for the others, and none is told that it is locked."""

import multiprocessing
import sqlite3
from collections import Counter
from contextlib import closing
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from alpacli.wal import enter_wal

PROCESSES = 8
FILES = 80


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="processes that start slowly come one after the other"
)
def test_processes_that_open_a_new_file_at_once_all_enter(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    together, said = context.Barrier(PROCESSES), context.SimpleQueue()
    processes = [context.Process(target=_enter_each, args=(tmp_path, together, said)) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    try:
        assert Counter(said.get() for _ in range(PROCESSES * FILES)) == {"wal": PROCESSES * FILES}
    finally:
        for process in processes:
            process.join()


def _enter_each(folder: Path, together: Barrier, said: "SimpleQueue[str]") -> None:
    for number in range(FILES):
        together.wait()
        with closing(_opened(folder / f"{number}.sqlite", seconds=30.0)) as db:
            try:
                enter_wal(db)
                said.put(db.execute("PRAGMA journal_mode").fetchone()[0])
            except sqlite3.OperationalError as error:
                said.put(str(error))


def test_a_file_that_stays_locked_is_told(tmp_path: Path) -> None:
    path = tmp_path / "new.sqlite"
    with closing(_opened(path)) as other, closing(_opened(path, seconds=0.1)) as db:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            enter_wal(db)


def test_a_file_that_cannot_be_written_is_told_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "new.sqlite"
    with closing(_opened(path)) as other:
        other.execute("CREATE TABLE t (x)")
    readable = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
    with closing(readable) as db, pytest.raises(sqlite3.OperationalError, match="readonly"):
        enter_wal(db)


def _opened(path: Path, seconds: float = 5.0) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=seconds, isolation_level=None)
