"""The file keeps what it was given through versions, full disks and other processes, and says so when it cannot."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from alpacli.errors import ConfigError, Unavailable, UsageError
from alpacli.history import archive as module
from alpacli.history.archive import Archive, OrderRow, Saved, history_of, name_of, path_of, point_to


def _saved(at_ns: int, text: bytes = b"{}") -> Saved:
    return Saved(at_ns, "100.10", "50", "50.10", "0", text)


def _order(number: int, wire: bytes = b"{}", *, is_open: bool = False) -> OrderRow:
    status = "new" if is_open else "filled"
    return OrderRow(f"id-{number}", number, "AAPL", "buy", status, is_open, "1", wire)


def _old_file(path: Path, version: int) -> None:
    """Make a file as the version before would have left it, with one snapshot."""
    import zlib

    with sqlite3.connect(path) as db:
        for script in module._MIGRATIONS[:version]:
            db.executescript(script)
        db.execute(f"PRAGMA user_version = {version}")
        db.execute("INSERT INTO account VALUES ('a', 'PA1', 5)")
        db.execute("INSERT INTO snapshots VALUES (1, 77, 719163, '100.10', '50', '50.10', '0')")
        db.execute("INSERT INTO snapshot_texts VALUES (1, ?)", (zlib.compress(b'{"old":1}'),))
    db.close()


@pytest.mark.parametrize("version", range(1, module.VERSION))
def test_a_file_of_an_earlier_version_is_brought_forward_with_all_it_holds(tmp_path: Path, version: int) -> None:
    path = tmp_path / "account.sqlite"
    _old_file(path, version)
    with Archive(str(path)) as archive:
        assert archive.snapshot_until(77) == b'{"old":1}'
        assert archive.account == ("PA1", 5)
        assert archive.keep_orders([_order(1)]) == 1
    with Archive(str(path)) as again:
        assert (again.count("orders"), again.count("snapshots")) == (1, 1)


def test_two_processes_that_bring_a_file_forward_at_once_both_succeed(tmp_path: Path) -> None:
    path = tmp_path / "account.sqlite"
    _old_file(path, 1)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            with Archive(str(path)) as archive:
                archive.count("orders")
        except BaseException as error:  # noqa: BLE001 # told to the test
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_file_of_a_newer_version_is_refused_and_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "account.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(ConfigError, match="newer alpacli"):
        Archive(str(path))
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (99,)
    db.close()


def test_a_file_that_is_no_database_is_told_as_damaged(tmp_path: Path) -> None:
    path = tmp_path / "account.sqlite"
    path.write_bytes(b"not a database, by far" * 50)
    with pytest.raises(ConfigError, match="damaged"):
        Archive(str(path))


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be used"):
        Archive(str(tmp_path / "file" / "account.sqlite"))


def test_a_file_that_is_held_for_too_long_is_told_as_busy(tmp_path: Path) -> None:
    path = str(tmp_path / "account.sqlite")
    with Archive(path, busy_s=0.05) as archive:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="held by another process"):
            archive.keep_orders([_order(1)])
        other.execute("ROLLBACK")
        other.close()


_FILL_UP = """
import resource, signal, sys
from alpacli.errors import ConfigError
from alpacli.history.archive import Archive, Chain, OrderRow
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with Archive(sys.argv[1]) as archive:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, 1_500_000))
    for page in range(100):
        rows = [OrderRow(f"{page}-{n}", page, "X", "buy", "filled", False, "1", b"x" * 1000) for n in range(60)]
        try:
            archive.keep_orders(rows, ("orders", Chain(f"{page}")))
        except ConfigError as error:
            print(page, error.message, "|", error.hint)
            break
"""


def test_a_full_disk_loses_the_page_and_nothing_else(tmp_path: Path) -> None:
    path = str(tmp_path / "account.sqlite")
    done = subprocess.run([sys.executable, "-c", _FILL_UP, path], capture_output=True, text=True, check=True)
    page = int(done.stdout.split()[0])
    assert "cannot be written" in done.stdout
    assert "nothing is half written" in done.stdout
    with Archive(path) as archive:
        assert archive.count("orders") == page * 60
        assert archive.chain("orders").cursor == str(page - 1)
        archive.keep_orders([_order(1)])


_APPEND = """
import sys
from alpacli.history.archive import Archive, Saved
with Archive(sys.argv[1]) as archive:
    at = 0
    while True:
        archive.append(Saved(at, "1", "1", "0", "0", b"{}" * 500), (at, at + 1))
        print(at, flush=True)
        at += 1
"""


def test_what_was_said_to_be_kept_is_there_after_kill_9(tmp_path: Path) -> None:
    path = str(tmp_path / "account.sqlite")
    with subprocess.Popen([sys.executable, "-c", _APPEND, path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        last = 0
        for _ in range(20):
            last = int(process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
        rest = process.stdout.read().split()
    kept = max([last, *map(int, rest[:-1] if rest else [])])
    with Archive(path) as archive:
        assert archive.count("snapshots") >= kept + 1
        assert archive.snapshot_until(kept) == b"{}" * 500


def test_an_order_at_its_end_is_not_opened_again_by_an_older_answer(tmp_path: Path) -> None:
    with Archive(str(tmp_path / "account.sqlite")) as archive:
        archive.keep_orders([_order(1, b'{"a":1}')])
        assert archive.keep_orders([_order(1, b'{"a":2}', is_open=True)]) == 0
        assert archive.open_orders() == []
        assert archive.keep_orders([_order(1, b'{"a":3}')]) == 1


def test_only_the_user_can_read_the_file(tmp_path: Path) -> None:
    path = tmp_path / "history" / "account.sqlite"
    Archive(str(path)).close()
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_a_key_pair_finds_the_account_it_opened_last(tmp_path: Path) -> None:
    folder = str(tmp_path)
    assert history_of(folder, "abc") is None
    assert name_of("a", None) == "a" != name_of("a", 5 * 10**9) == "a-5"
    point_to(folder, "abc", "first")
    point_to(folder, "abc", "second")
    assert history_of(folder, "abc") == "second"
    assert path_of(folder, "../../etc") == str(tmp_path / f"{b'../../etc'.hex()}.sqlite")


def test_the_history_of_another_account_is_not_added_to(tmp_path: Path) -> None:
    with Archive(str(tmp_path / "account.sqlite")) as archive:
        archive.know_account("a", "PA1", 5)
        archive.know_account("a", "PA1", 5)
        with pytest.raises(UsageError, match="another account"):
            archive.know_account("b", "PA2", 5)


def test_days_are_found_without_looking_at_every_snapshot(tmp_path: Path) -> None:
    with Archive(str(tmp_path / "account.sqlite")) as archive:
        for day in (20_000, 20_001, 20_005):
            for second in range(3):
                at_ns = (day * 86_400 + 60_000 + second) * 10**9
                archive.append(_saved(at_ns), (at_ns, at_ns + 1))
        assert [day - archive.snapshot_days()[0] for day in archive.snapshot_days()] == [0, 1, 5]
