"""The embedded store's file on bad days: missing, in the way, full, corrupt, locked, of another version, on a wrong clock."""

import multiprocessing
import os
import resource
import shutil
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from tests.support.fakes import FixedRandomness, SetClock
from tests.support.imports import A_NAMED_TUPLE, loaded_by

from alpacli.errors import StoreUnavailable
from alpacli.ports import BudgetRules, Entry, Granted, Outcome, Refused, SystemClock, Ticket, Wait
from alpacli.store.resilient import ResilientStore
from alpacli.store.sqlite import VERSION, SqliteStore

KEY = "alpaca:{fp}:account"
RULES = BudgetRules("alpaca:{fp}", limit=3, reserve=0, window_s=10.0, breaker_failures=2, breaker_open_s=5.0)


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "state" / "store.sqlite"


@pytest.fixture
def store(path: Path, clock: SetClock) -> Iterator[SqliteStore]:
    one = SqliteStore(str(path), clock)
    yield one
    one.close()


def test_the_constructor_touches_nothing_and_the_first_use_makes_a_private_directory_and_file(
    store: SqliteStore, path: Path
) -> None:
    assert not path.parent.exists()
    store.put(KEY, b"x")
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    store.close()
    assert [entry.name for entry in path.parent.iterdir()] == ["store.sqlite"]


def test_many_processes_that_start_on_an_empty_machine_at_once_all_succeed(path: Path) -> None:
    program = (
        "import sys; from alpacli.ports import *; from alpacli.store.sqlite import SqliteStore\n"
        "store = SqliteStore(sys.argv[1], SystemClock()); sys.stdin.read()\n"
        "print(type(store.claim('alpaca:{fp}:account', 60, 60, sys.argv[2])).__name__); store.close()"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(path), str(n)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for n in range(12)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    answers = sorted(process.communicate(timeout=60)[0].strip() for process in processes)
    assert answers == ["Busy"] * 11 + ["Lead"]


def test_a_state_directory_deleted_under_a_running_process_is_made_anew_and_shared_again(
    path: Path, store: SqliteStore, clock: SetClock
) -> None:
    store.put(KEY, b"before")
    shutil.rmtree(path.parent)
    store.put(KEY, b"after")
    other = SqliteStore(str(path), clock)
    found = other.get(KEY, 5)
    assert found is not None
    assert found.value == b"after"
    other.close()


def test_a_file_that_another_process_made_anew_is_used_by_all(path: Path, store: SqliteStore, clock: SetClock) -> None:
    """Leaving the old file must not take away the new one's log, which has the same name."""
    store.put(KEY, b"before")
    shutil.rmtree(path.parent)
    other = SqliteStore(str(path), clock)
    other.put(KEY, b"of the other")
    for n in range(3):
        found = store.get(KEY, 5)
        assert found is not None
        assert found.value == b"of the other"
        assert isinstance(store.admit(RULES, Ticket(f"t{n}", "job")), Granted)
    assert isinstance(other.admit(RULES, Ticket("one more", "job")), Wait)
    other.close()


def test_a_file_where_the_directory_should_be(tmp_path: Path, clock: SetClock) -> None:
    (tmp_path / "state").write_text("in the way")
    store = SqliteStore(str(tmp_path / "state" / "store.sqlite"), clock)
    with pytest.raises(StoreUnavailable, match="state") as caught:
        store.put(KEY, b"x")
    assert "ALPACLI_STATE_DIR" in caught.value.hint


def test_a_directory_in_which_nothing_can_be_made(clock: SetClock) -> None:
    store = SqliteStore("/proc/self/fdinfo/alpacli/store.sqlite", clock)
    with pytest.raises(StoreUnavailable):
        store.get(KEY, 5)


def test_a_directory_where_the_file_should_be(path: Path, store: SqliteStore) -> None:
    path.mkdir(parents=True)
    with pytest.raises(StoreUnavailable):
        store.get(KEY, 5)


def test_a_full_disk_is_unavailable_for_writing_and_what_is_there_is_still_answered(path: Path) -> None:
    """A limit on the size of files stands for the full disk; it binds root as well."""
    store = SqliteStore(str(path), SystemClock())
    store.put(KEY, b"x" * 1000)
    store.close()

    def limit_files() -> None:
        size = path.stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    program = (
        "import sys; from alpacli.errors import StoreUnavailable; from alpacli.ports import SystemClock\n"
        "from alpacli.store.sqlite import SqliteStore\n"
        "store = SqliteStore(sys.argv[1], SystemClock())\n"
        "print(len(store.get('alpaca:{fp}:account', 60).value))\n"
        "try: store.put('alpaca:{fp}:account', b'y' * 1000000)\n"
        "except StoreUnavailable as error: print('unavailable')\n"
        "print(len(store.get('alpaca:{fp}:account', 60).value)); store.close()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        preexec_fn=limit_files,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split() == ["1000", "unavailable", "1000"], done.stderr


@pytest.mark.parametrize("damage", ["not a database", "torn", "zeros"])
def test_a_corrupt_file_is_unavailable_until_the_cache_is_cleared(path: Path, store: SqliteStore, damage: str) -> None:
    for n in range(50):
        store.put(f"{KEY}:{n}", b"x" * 2000)
    store.close()
    content = path.read_bytes()
    path.write_bytes(
        {
            "not a database": b"this is not a database, but long enough to look like one" * 50,
            "torn": content[:100] + os.urandom(len(content) - 100),
            "zeros": content[:4096] + bytes(len(content) - 4096),
        }[damage]
    )
    with pytest.raises(StoreUnavailable) as caught:
        store.put(KEY, b"x")
    assert "cache clear" in caught.value.hint
    assert store.drop("alpaca:{fp}") == 0
    store.put(KEY, b"x")
    assert isinstance(store.get(KEY, 5), Entry)


def test_an_empty_file_is_filled(path: Path, store: SqliteStore) -> None:
    path.parent.mkdir(parents=True)
    path.touch()
    store.put(KEY, b"x")
    assert isinstance(store.get(KEY, 5), Entry)


def test_a_file_of_another_version_is_a_miss_and_begun_anew(path: Path, store: SqliteStore) -> None:
    store.put(KEY, b"x")
    store.close()
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version={VERSION + 1}")
        db.execute("ALTER TABLE entry RENAME COLUMN value TO content")
    db.close()
    assert store.get(KEY, 5) is None
    store.put(KEY, b"y")
    assert isinstance(store.get(KEY, 5), Entry)


def test_a_locked_file_is_waited_for_and_then_unavailable_and_reading_goes_on(path: Path, clock: SetClock) -> None:
    with closing(SqliteStore(str(path), clock, busy_s=0.1, tries=5)) as store:
        store.put(KEY, b"x")
        with _locked(path):
            assert store.get(KEY, 600) is not None
            assert _in_vain(store) > 0.4
            with pytest.raises(StoreUnavailable):
                store.drop("alpaca:{fp}")
        assert store.cache_stats("alpaca:{fp}").hits == 1
        assert store.get(KEY, 5) is not None


def test_a_file_that_stays_locked_is_not_waited_for_like_that_again_until_it_was_free(
    path: Path, clock: SetClock
) -> None:
    with closing(SqliteStore(str(path), clock, busy_s=0.1, tries=5)) as store:
        store.put(KEY, b"x")
        with _locked(path):
            assert _in_vain(store) > 0.4
            assert min(_in_vain(store) for _ in range(5)) < 0.3  # the least: this machine has other things to do
        store.put(KEY, b"y")
        with _locked(path):
            assert _in_vain(store) > 0.4


def test_one_budget_is_shared_while_a_process_is_stopped_for_a_moment_with_the_file_locked(path: Path) -> None:
    """A debugger, a machine that sleeps, a disk that stalls: who goes on without the file has a budget of its own."""
    clock = SystemClock()
    with closing(SqliteStore(str(path), clock)) as one, closing(SqliteStore(str(path), clock)) as other:
        processes = [
            ResilientStore([store, SqliteStore(":memory:", clock)], clock, FixedRandomness(), print)
            for store in (one, other)
        ]
        one.put(KEY, b"x")
        with ThreadPoolExecutor(2 * RULES.limit) as threads:
            with _locked(path):
                asked = [
                    threads.submit(process.admit, RULES, Ticket(f"{n}", "somebody"))
                    for n in range(RULES.limit)
                    for process in processes
                ]
                time.sleep(1.5)  # one wait of SQLite is shorter
            assert sum(isinstance(answer.result(), Granted) for answer in asked) == RULES.limit
        assert [process.kind for process in processes] == ["sqlite", "sqlite"]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Have somebody else write to the file, for as long as this lasts."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


def _in_vain(store: SqliteStore) -> float:
    """Return for how long a write waited before it failed."""
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match="locked"):
        store.put(KEY, b"x")
    return time.monotonic() - began


def test_a_process_killed_while_it_writes_leaves_no_lock(path: Path, store: SqliteStore) -> None:
    store.put(KEY, b"x")
    program = (
        "import sys, sqlite3; db = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "db.execute('BEGIN IMMEDIATE'); db.execute('DELETE FROM entry'); print('holding', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "holding\n"
    process.kill()
    process.communicate()
    store.put("alpaca:{fp}:positions", b"y")
    assert store.get(KEY, 5) is not None


def test_a_child_process_uses_a_connection_of_its_own(path: Path) -> None:
    store = SqliteStore(str(path), SystemClock())
    store.put(KEY, b"from the parent")
    context = multiprocessing.get_context("fork")
    child = context.Process(target=_put_from_child, args=(store,))
    child.start()
    child.join(30)
    assert child.exitcode == 0
    entry = store.get(KEY, 60)
    assert entry is not None
    assert entry.value == b"from the child"
    store.close()


def _put_from_child(store: SqliteStore) -> None:
    assert store.get(KEY, 60) is not None
    store.put(KEY, b"from the child")
    store.close()


def test_entries_are_forgotten_after_a_day(store: SqliteStore, clock: SetClock, path: Path) -> None:
    store.put(KEY, b"x")
    clock.advance(86_000)
    assert store.get(KEY, 10**6) is not None
    clock.advance(1000)
    assert store.get(KEY, 10**6) is None
    store.put("alpaca:{fp}:positions", b"y")
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT key FROM entry").fetchall() == [("alpaca:{fp}:positions",)]
    db.close()


# --------------------------------------------------------------------------------- a clock that is set back


def test_budget_stamps_from_the_future_hold_for_one_window_at_most(store: SqliteStore, clock: SetClock) -> None:
    for n in range(3):
        assert isinstance(store.admit(RULES, Ticket(f"t{n}", "job")), Granted)
        if n:
            store.settle(RULES, Ticket(f"t{n}", "job"), Outcome(failed=False))
    clock.set_back(3600)
    assert isinstance(store.admit(RULES, Ticket("next", "job")), Wait)
    clock.advance(10.1)
    assert isinstance(store.admit(RULES, Ticket("next", "job")), Granted)
    assert isinstance(store.admit(RULES, Ticket("after", "job")), Granted)
    assert store.limits(RULES).used == 3


def test_a_killed_waiter_from_the_future_loses_its_place(store: SqliteStore, clock: SetClock) -> None:
    for n in range(3):
        store.admit(RULES, Ticket(f"t{n}", "job"))
        store.settle(RULES, Ticket(f"t{n}", "job"), Outcome(failed=False))
    store.admit(RULES, Ticket("killed", "job"))
    clock.set_back(3600)
    wait = store.admit(RULES, Ticket("alive", "job"))
    assert isinstance(wait, Wait)
    assert wait.ahead == 1
    assert store.limits(RULES).waiting[0].since_s >= 0
    clock.advance(3.1)
    wait = store.admit(RULES, Ticket("other", "job"))
    assert isinstance(wait, Wait)
    assert wait.ahead == 0


def test_a_breaker_from_the_future_opens_no_longer_than_its_rule(store: SqliteStore, clock: SetClock) -> None:
    for n in range(2):
        store.admit(RULES, Ticket(f"t{n}", "job"))
        store.settle(RULES, Ticket(f"t{n}", "job"), Outcome(failed=True))
    clock.set_back(3600)
    refused = store.admit(RULES, Ticket("next", "job"))
    assert isinstance(refused, Refused)
    assert refused.retry_in_s <= 5
    clock.advance(5.1)
    assert isinstance(store.admit(RULES, Ticket("next", "job")), Granted | Wait)


def test_foreign_requests_from_the_future_hold_for_one_window_at_most(store: SqliteStore, clock: SetClock) -> None:
    ticket = Ticket("t", "job")
    store.admit(RULES, ticket)
    store.settle(RULES, ticket, Outcome(failed=False, remaining=0, limit=3, reset_at=clock.time() + 8))
    assert store.limits(RULES).foreign == 2
    clock.set_back(3600)
    assert store.limits(RULES).foreign == 0


def test_loading_the_module_loads_nothing_heavy() -> None:
    heavy = {"dataclasses", "enum", "json", "re", "pathlib", "logging", "redis", "threading"}
    assert not heavy & loaded_by("import alpacli.store.sqlite", after=A_NAMED_TUPLE)
