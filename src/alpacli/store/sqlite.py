"""The embedded store: one SQLite file that every process of this machine shares, or a private one in memory.

It hides the file: WAL, so that readers never wait; ``BEGIN IMMEDIATE`` before every read-then-write, so that two processes
never decide on the same state; the clock is read inside the transaction, so that stamps are in the order of commits.
``synchronous=NORMAL``: a power cut may lose the last entries, never the file. The cached path loads this module and opens
the file for one read, hence the few imports and the schema that is not looked at when ``user_version`` is right.
"""

import os
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeVar

from alpacli.errors import StoreUnavailable
from alpacli.forks import Turns
from alpacli.ports import (
    BudgetRules,
    Busy,
    CacheStats,
    Clock,
    Entry,
    Granted,
    Lead,
    LimitsReport,
    Outcome,
    Refused,
    Ticket,
    Wait,
)
from alpacli.store.policy import (
    FLIGHT_S,
    GRACE_S,
    KEEP_S,
    LIVENESS_S,
    POLL_S,
    scope_of,
)

if TYPE_CHECKING:
    from alpacli.store.sqlite_budget import SqliteBudget

T = TypeVar("T")

VERSION: Final = 3
_PURGE_EVERY_S: Final = 600.0
_COUNT_PATIENCE_MS: Final = 20
_BUSY: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_CORRUPT: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_TABLES: Final = ("entry", "lease", "hits", "sent", "flying", "waiting", "budget", "breaker", "usage")

# ``at`` stands before ``value``: reading it never touches the pages of a long value.
_SCHEMA: Final = """
CREATE TABLE entry (key TEXT PRIMARY KEY, at REAL NOT NULL, value BLOB NOT NULL);
CREATE TABLE lease (key TEXT PRIMARY KEY, token TEXT NOT NULL, until REAL NOT NULL, length REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE hits (scope TEXT PRIMARY KEY, hits INTEGER NOT NULL, misses INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE sent (scope TEXT NOT NULL, at REAL NOT NULL);
CREATE INDEX sent_at ON sent (scope, at);
CREATE TABLE flying (scope TEXT, id TEXT, at REAL NOT NULL, PRIMARY KEY (scope, id)) WITHOUT ROWID;
CREATE TABLE waiting (seq INTEGER PRIMARY KEY, scope TEXT NOT NULL, id TEXT NOT NULL, label TEXT NOT NULL,
                      urgent INTEGER NOT NULL, since REAL NOT NULL, expires REAL NOT NULL, wakes REAL NOT NULL,
                      UNIQUE (scope, id));
CREATE TABLE budget (scope TEXT PRIMARY KEY, foreign_n INTEGER NOT NULL DEFAULT 0, foreign_until REAL NOT NULL DEFAULT 0,
                     cap INTEGER) WITHOUT ROWID;
CREATE TABLE breaker (scope TEXT, host TEXT, failures INTEGER NOT NULL, open_until REAL NOT NULL, probe TEXT NOT NULL,
                      probe_until REAL NOT NULL, PRIMARY KEY (scope, host)) WITHOUT ROWID;
CREATE TABLE usage (scope TEXT, minute INTEGER, n INTEGER NOT NULL, PRIMARY KEY (scope, minute)) WITHOUT ROWID;
"""
_COUNT: Final = """
INSERT INTO hits (scope, hits, misses) VALUES (?, ?, ?)
ON CONFLICT (scope) DO UPDATE SET hits = hits + excluded.hits, misses = misses + excluded.misses
"""
_STORE: Final = """
INSERT INTO entry (key, at, value) VALUES (?, ?, ?)
ON CONFLICT (key) DO UPDATE SET at = excluded.at, value = excluded.value
"""

_abandoned: list[sqlite3.Connection] = []
"""Connections inherited over a fork. Closing one would release the parent's locks, so they stay open and unused."""


class SqliteStore:
    """A store in the file ``path``, made on first use; ``":memory:"`` is a private one of this process.

    ``flight_s``, ``liveness_s`` and ``grace_s`` are explained in ``policy``. Who finds the file locked waits for ``busy_s``,
    and that ``tries`` times: without it everybody has a budget of his own, and a process that is stopped for a moment with
    the file locked, or a disk that stalls, is no reason for that. Ctrl-C is heard in between, SQLite hears none.
    Opening is lazy: the constructor touches nothing.
    """

    def __init__(
        self,
        path: str,
        clock: Clock,
        *,
        flight_s: float = FLIGHT_S,
        liveness_s: float = LIVENESS_S,
        grace_s: float = GRACE_S,
        busy_s: float = 0.9,
        tries: int = 5,
    ) -> None:
        self.kind = "memory" if path == ":memory:" else "sqlite"
        self.path = path
        self._clock = clock
        self._budget_times_s = (flight_s, liveness_s, grace_s)
        self._busy_s = busy_s
        self._tries = tries
        self._waited_in_vain = False
        self._lock = Turns(self)
        self._connection: sqlite3.Connection | None = None
        self._pid = 0
        self._file: tuple[int, int] | None = None
        self._uncounted: dict[str, tuple[int, int]] = {}
        self._purge_at = float("-inf")

    # -------------------------------------------------------------------------------------------------- cache

    def get(self, key: str, max_age_s: float, *, count_miss: bool = True) -> Entry | None:
        """See ``Store.get``; who goes on to ``claim`` after a miss leaves the counting to it."""

        def look(db: sqlite3.Connection) -> Entry | None:
            entry = self._entry(db, key, max_age_s)
            if entry is not None or count_miss:
                self._count(db, key, hit=entry is not None)
            return entry

        return self._run(look)

    def values(self, prefix: str) -> list[bytes]:
        """Return every entry of that prefix, however old, the latest first; counts nothing."""
        bounds = (prefix, prefix + ":", prefix + ";")
        query = "SELECT value FROM entry WHERE key = ? OR (key >= ? AND key < ?) ORDER BY at DESC"
        return [value for (value,) in self._run(lambda db: db.execute(query, bounds).fetchall())]

    def claim(self, key: str, max_age_s: float, lease_s: float, token: str) -> Entry | Lead | Busy:
        def look(db: sqlite3.Connection) -> Entry | Busy | None:
            entry = self._entry(db, key, max_age_s)
            if entry is not None:
                self._count(db, key, hit=True)
                return entry
            return self._busy(db, key, token)

        # Everybody polls here while one fetches: that must not need the write lock.
        found = self._run(look)
        if found is not None:
            return found

        def take(db: sqlite3.Connection, now: float) -> Entry | Lead | Busy:
            entry = self._entry(db, key, max_age_s)
            if entry is not None:
                db.execute(_COUNT, (scope_of(key), 1, 0))
                return entry
            busy = self._busy(db, key, token)
            if busy is not None:
                return busy
            held = db.execute("SELECT 1 FROM lease WHERE key = ? AND token = ?", (key, token)).fetchone()
            db.execute("INSERT OR REPLACE INTO lease VALUES (?, ?, ?, ?)", (key, token, now + lease_s, lease_s))
            if not held:
                db.execute(_COUNT, (scope_of(key), 0, 1))
            return Lead(key, token)

        return self._write(take)

    def renew(self, key: str, token: str, lease_s: float) -> bool:
        return self._write(
            lambda db, now: (
                db.execute(
                    "UPDATE lease SET until = ?, length = ? WHERE key = ? AND token = ?",
                    (now + lease_s, lease_s, key, token),
                ).rowcount
                == 1
            )
        )

    def publish(self, key: str, token: str, value: bytes) -> bool:
        def work(db: sqlite3.Connection, now: float) -> bool:
            if db.execute("DELETE FROM lease WHERE key = ? AND token = ?", (key, token)).rowcount != 1:
                return False
            db.execute(_STORE, (key, now, value))
            self._purge(db, now)
            return True

        return self._write(work)

    def release(self, key: str, token: str) -> None:
        self._write(lambda db, _: db.execute("DELETE FROM lease WHERE key = ? AND token = ?", (key, token)))

    def put(self, key: str, value: bytes) -> None:
        def work(db: sqlite3.Connection, now: float) -> None:
            db.execute(_STORE, (key, now, value))
            self._purge(db, now)

        self._write(work)

    def drop(self, prefix: str) -> int:
        """Forget entries and leases as the protocol says. A file that is corrupt is begun anew: it holds no entry."""

        def work(db: sqlite3.Connection, _: float) -> int:
            bounds = (prefix, prefix + ":", prefix + ";")
            db.execute("DELETE FROM lease WHERE key = ? OR (key >= ? AND key < ?)", bounds)
            return db.execute("DELETE FROM entry WHERE key = ? OR (key >= ? AND key < ?)", bounds).rowcount

        try:
            return self._write(work)
        except StoreUnavailable as error:
            if not is_corrupt(error):
                raise
            self.recreate()
            self._write(work)
            return 0

    def recreate(self) -> None:
        """Throw the file away; the next use makes a new one.

        Raises:
            StoreUnavailable: it cannot be removed.
        """
        with self._lock:
            self._disconnect()
            try:
                for tail in ("", "-wal", "-shm"):
                    if os.path.exists(self.path + tail):
                        os.unlink(self.path + tail)
            except OSError as error:
                raise self._unavailable(error) from error

    def cache_stats(self, prefix: str) -> CacheStats:
        def look(db: sqlite3.Connection) -> CacheStats:
            self._settle_counts(db)
            counts = db.execute("SELECT hits, misses FROM hits WHERE scope = ?", (scope_of(prefix),)).fetchone()
            entries, size, oldest, newest = db.execute(
                "SELECT count(*), total(length(value)), min(at), max(at) FROM entry"
                " WHERE (key = ? OR (key >= ? AND key < ?)) AND at BETWEEN ? AND ?",
                (prefix, prefix + ":", prefix + ";", self._clock.time() - KEEP_S, self._clock.time()),
            ).fetchone()
            now = self._clock.time()
            hits, misses = counts or (0, 0)
            return CacheStats(
                hits,
                misses,
                entries,
                int(size),
                None if oldest is None else max(0.0, now - oldest),
                None if newest is None else max(0.0, now - newest),
            )

        return self._run(look)

    # ------------------------------------------------------------------------------------------------- budget

    def admit(self, rules: BudgetRules, ticket: Ticket) -> Granted | Wait | Refused:
        return self._write(lambda db, now: self._budget.admit(db, now, rules, ticket))

    def settle(self, rules: BudgetRules, ticket: Ticket, outcome: Outcome) -> None:
        self._write(lambda db, now: self._budget.settle(db, now, rules, ticket, outcome))

    def leave(self, rules: BudgetRules, ticket: Ticket) -> None:
        self._write(lambda db, _: self._budget.leave(db, rules, ticket))

    def limits(self, rules: BudgetRules) -> LimitsReport:
        return self._write(lambda db, now: self._budget.limits(db, now, rules))

    @property
    def _budget(self) -> "SqliteBudget":
        from alpacli.store.sqlite_budget import SqliteBudget

        return SqliteBudget(*self._budget_times_s)

    # ------------------------------------------------------------------------------------------- transactions

    def close(self) -> None:
        with self._lock:
            self._disconnect()

    def let_go(self) -> None:
        """Close the file before a fork: SQLite in a child would believe to have its parent's locks on it."""
        if self.kind == "sqlite":
            with suppress(sqlite3.Error):
                self._disconnect()

    def abandon(self) -> None:
        if self._connection is not None:
            _abandoned.append(self._connection)
            self._connection = None

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do some reading, each statement a snapshot of its own, with every failure as ``StoreUnavailable``."""
        if not self._lock.acquire(timeout=self._busy_s * self._tries):
            raise StoreUnavailable(f"{self.path} is busy", "another thread waits for it")
        try:
            return self._patiently(work)
        except (sqlite3.Error, OSError) as error:
            self._waited_in_vain |= _is_busy(error)
            if self.kind == "sqlite":  # closing a store in memory would empty it
                self._disconnect()
            raise self._unavailable(error) from error
        finally:
            self._lock.release()

    def _patiently(self, work: Callable[[sqlite3.Connection], T]) -> T:
        # What was locked for so long already, for another thread or a while ago, is not waited for like that again.
        for _ in range(0 if self._waited_in_vain else self._tries - 1):
            try:
                return work(self._connect())
            except sqlite3.OperationalError as error:
                if not _is_busy(error):
                    raise
        return work(self._connect())

    def _write(self, work: Callable[[sqlite3.Connection, float], T]) -> T:
        """Do one transaction at one moment in time."""

        def transaction(db: sqlite3.Connection) -> T:
            db.execute("BEGIN IMMEDIATE")
            self._waited_in_vain = False
            try:
                result = work(db, self._clock.time())
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
            return result

        return self._run(transaction)

    def _connect(self) -> sqlite3.Connection:
        pid = os.getpid()
        # Looked at every time, for 1.4 us: a file that was deleted goes on working, shared with nobody.
        file = _identity(self.path) if self.kind == "sqlite" else None
        if self._connection is not None:
            if self._pid == pid and self._file == file:
                return self._connection
            self._disconnect()
        if self.kind == "sqlite" and file is None:
            _create(self.path)
            file = _identity(self.path)
        db = sqlite3.connect(self.path, timeout=self._busy_s, isolation_level=None, check_same_thread=False)
        try:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            db.execute("PRAGMA synchronous=NORMAL")
            if version != VERSION:
                _rebuild(db)
        except BaseException:
            db.close()
            raise
        # As it was before opening: if it was replaced in between, the next use notices.
        self._connection, self._pid, self._file = db, pid, file
        return db

    def _disconnect(self) -> None:
        if self._connection is None:
            return
        db, self._connection = self._connection, None
        if self._pid != os.getpid():  # inherited all the same: the fork waited no longer
            _abandoned.append(db)
            return
        try:
            self._settle_counts(db)
        finally:
            db.close()

    def _unavailable(self, error: Exception) -> StoreUnavailable:
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _CORRUPT:
            hint = "alpacli cache clear makes a new one"
        elif code in _BUSY:
            hint = "another program keeps it locked"
        else:
            hint = "ALPACLI_STATE_DIR names a directory that can be written"
        return StoreUnavailable(f"{self.path}: {reason}", hint)

    # ------------------------------------------------------------------------------------------------ helpers

    def _entry(self, db: sqlite3.Connection, key: str, max_age_s: float) -> Entry | None:
        row = db.execute("SELECT at, value FROM entry WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        # Read after the row, never before: an entry stored in between would seem to come from the future.
        age_s = self._clock.time() - row[0]
        return Entry(row[1], age_s) if 0 <= age_s <= min(max_age_s, KEEP_S) else None

    def _busy(self, db: sqlite3.Connection, key: str, token: str) -> Busy | None:
        """Return ``Busy`` when somebody else holds a living lease; one that ends absurdly late is of another clock."""
        row = db.execute("SELECT token, until, length FROM lease WHERE key = ?", (key,)).fetchone()
        if row is None or row[0] == token:
            return None
        left_s = row[1] - self._clock.time()
        return Busy(min(left_s, POLL_S)) if 0 < left_s <= row[2] + 1.0 else None

    def _count(self, db: sqlite3.Connection, key: str, *, hit: bool) -> None:
        hits, misses = self._uncounted.get(scope_of(key), (0, 0))
        self._uncounted[scope_of(key)] = (hits + hit, misses + (not hit))
        self._settle_counts(db)

    def _settle_counts(self, db: sqlite3.Connection) -> None:
        """Write the counts down, unless that takes long or fails: an answer never waits for its own statistics."""
        if not self._uncounted:
            return
        db.execute(f"PRAGMA busy_timeout={_COUNT_PATIENCE_MS}")
        try:
            for scope, (hits, misses) in tuple(self._uncounted.items()):
                db.execute(_COUNT, (scope, hits, misses))
                del self._uncounted[scope]
        except sqlite3.Error:
            # Kept for the next time; nothing but a statistic is late.
            return
        finally:
            db.execute(f"PRAGMA busy_timeout={int(self._busy_s * 1000)}")

    def _purge(self, db: sqlite3.Connection, now: float) -> None:
        """Forget what is older than a day, now and then."""
        monotonic = self._clock.monotonic()
        if monotonic < self._purge_at:
            return
        self._purge_at = monotonic + _PURGE_EVERY_S
        db.execute("DELETE FROM entry WHERE at NOT BETWEEN ? AND ?", (now - KEEP_S, now + KEEP_S))
        db.execute("DELETE FROM lease WHERE until NOT BETWEEN ? AND ?", (now - KEEP_S, now + KEEP_S))
        db.execute("DELETE FROM usage WHERE minute < ?", (int(now // 60) - 120,))
        for table, column in (("sent", "at"), ("flying", "at"), ("waiting", "expires")):
            # Accounts that are no longer used; those in use are kept tidy by ``admit``.
            db.execute(f"DELETE FROM {table} WHERE {column} < ?", (now - KEEP_S,))  # noqa: S608 - names from above


def is_corrupt(error: StoreUnavailable) -> bool:
    """Tell a file that is no database (any more) from one that only cannot be used now."""
    return getattr(error.__cause__, "sqlite_errorcode", 0) & 0xFF in _CORRUPT


def _is_busy(error: Exception) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _BUSY


def _identity(path: str) -> tuple[int, int] | None:
    """Tell this file from another one of the same name; ``None`` when there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _create(path: str) -> None:
    """Make the file whole or not at all: many processes may start at once on an empty machine.

    It is built under another name and linked into place; whoever comes second keeps the first one's.
    """
    os.makedirs(os.path.dirname(path) or ".", mode=0o700, exist_ok=True)
    draft = f"{path}.{os.getpid()}.{os.urandom(4).hex()}"
    os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    try:
        db = sqlite3.connect(draft, isolation_level=None)
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=OFF")  # it is not in use yet
            db.executescript(f"BEGIN;{_SCHEMA}PRAGMA user_version={VERSION};COMMIT;")
        finally:
            db.close()
        try:
            os.link(draft, path)
        except OSError:
            # It exists by now, or this file system has no links.
            if not os.path.exists(path):
                os.rename(draft, path)
    finally:
        if os.path.exists(draft):
            os.unlink(draft)


def _rebuild(db: sqlite3.Connection) -> None:
    """Give an empty file, or one that another version wrote, this version's tables."""
    from alpacli.wal import enter_wal

    enter_wal(db)
    db.execute("BEGIN IMMEDIATE")
    try:
        if db.execute("PRAGMA user_version").fetchone() != (VERSION,):
            for table in _TABLES:
                db.execute(f"DROP TABLE IF EXISTS {table}")
            for statement in _SCHEMA.split(";"):
                db.execute(statement)
            db.execute(f"PRAGMA user_version={VERSION}")
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise
