"""Where the exchange keeps what happened: one SQLite file that any number of processes share.

Every change is one ``BEGIN IMMEDIATE`` transaction in WAL mode, so a process killed at any moment leaves either all of it or
nothing. Decimals are stored as text and instants as integer nanoseconds: nothing passes through a float.
"""

import errno
import os
import sqlite3
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple

from alpacli.errors import ConfigError
from alpacli.forks import Turns
from alpacli.wal import enter_wal

STATE_FILE: Final = "sim.sqlite"
IN_MEMORY: Final = ":memory:"
"""SQLite's own name for a database that lives and dies with its connection."""

SCHEMA_VERSION: Final = 5
_RESET: Final = "alpacli sim reset begins again with an empty exchange"
_BUSY_TIMEOUT_S: Final = 10.0
_PAGES_BEHIND: Final = 4000
"""How much the log may be ahead of the file: the same few pages change again and again, and are copied once for all."""

ORDER_COLUMNS: Final = (
    *("id", "client_order_id", "parent_id", "leg_index"),
    *("created_ns", "updated_ns", "submitted_ns", "filled_ns", "expired_ns", "expires_ns", "canceled_ns"),
    *("failed_ns", "replaced_ns", "replaced_by", "replaces"),
    *("symbol", "notional", "qty", "filled_qty", "filled_value"),
    *("order_class", "order_type", "side", "position_intent", "time_in_force"),
    *("limit_price", "stop_price", "trail_percent", "trail_price", "hwm", "status", "extended_hours"),
    *("active_ns", "arrives_ns", "triggered_ns", "pieces", "next_ns", "next_step", "ratio_qty"),
)

EXACT: Final = frozenset(
    (
        *("notional", "qty", "filled_qty", "filled_value", "limit_price", "stop_price"),
        *("trail_percent", "trail_price", "hwm", "ratio_qty"),
    )
)
"""The columns that are exact numbers."""

WORKING: Final = (
    *("new", "partially_filled", "accepted", "pending_new", "accepted_for_bidding", "pending_cancel"),
    *("pending_replace", "stopped", "suspended", "calculated"),
)
"""Open statuses; ``held`` is open too, but such a leg waits for its parent or its sibling."""

OPEN: Final = frozenset((*WORKING, "held"))

IS_OPEN: Final = f"status IN ({', '.join(repr(status) for status in (*WORKING, 'held'))})"
"""The condition that an order is open; whoever writes it like this gets the index of open orders."""

_INTEGERS: Final = ("_ns", "_index", "_hours", "pieces")

_SCHEMA: Final = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE accounts (
    number INTEGER PRIMARY KEY AUTOINCREMENT, identity TEXT NOT NULL UNIQUE, label TEXT NOT NULL, id TEXT NOT NULL,
    account_number TEXT NOT NULL, created_ns INTEGER NOT NULL, cash TEXT NOT NULL, configuration TEXT NOT NULL DEFAULT '{{}}',
    requests INTEGER NOT NULL DEFAULT 0, window_s INTEGER NOT NULL DEFAULT 0, window_used INTEGER NOT NULL DEFAULT 0,
    orders_made INTEGER NOT NULL DEFAULT 0);
CREATE TABLE transfers (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, account INTEGER NOT NULL, id TEXT NOT NULL, activity_type TEXT NOT NULL,
    amount TEXT NOT NULL, at_ns INTEGER NOT NULL, description TEXT NOT NULL);
CREATE INDEX transfers_by_time ON transfers (account, at_ns);
CREATE TABLE orders (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, account INTEGER NOT NULL,
    {", ".join(f"{name} {'INTEGER' if name.endswith(_INTEGERS) else 'TEXT'}" for name in ORDER_COLUMNS)},
    UNIQUE (account, id), UNIQUE (account, client_order_id));
CREATE INDEX orders_by_time ON orders (account, submitted_ns, seq);
CREATE INDEX orders_open ON orders (account, seq) WHERE {IS_OPEN};
CREATE INDEX orders_by_parent ON orders (account, parent_id) WHERE parent_id IS NOT NULL;
CREATE TABLE fills (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, account INTEGER NOT NULL, order_id TEXT NOT NULL, execution_id TEXT NOT NULL,
    symbol TEXT NOT NULL, side TEXT NOT NULL, qty TEXT NOT NULL, price TEXT NOT NULL, cash TEXT NOT NULL,
    cum_qty TEXT NOT NULL, leaves_qty TEXT NOT NULL, order_status TEXT NOT NULL, at_ns INTEGER NOT NULL);
CREATE INDEX fills_by_time ON fills (account, at_ns, seq);
CREATE TABLE holdings (
    account INTEGER NOT NULL, symbol TEXT NOT NULL, qty TEXT NOT NULL, cost TEXT NOT NULL, realized TEXT NOT NULL,
    expires_ns INTEGER, forgone INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (account, symbol)) WITHOUT ROWID;
CREATE TABLE settlements (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, account INTEGER NOT NULL, id TEXT NOT NULL, group_id TEXT NOT NULL,
    activity_type TEXT NOT NULL, symbol TEXT NOT NULL, side TEXT NOT NULL, qty TEXT NOT NULL, price TEXT NOT NULL,
    cash TEXT NOT NULL, at_ns INTEGER NOT NULL);
CREATE INDEX settlements_by_time ON settlements (account, at_ns, seq);
CREATE VIEW bookings AS
    SELECT account, symbol, side, qty, price, cash, at_ns, seq, 0 AS settled FROM fills
    UNION ALL SELECT account, symbol, side, qty, price, cash, at_ns, seq, 1 FROM settlements;
CREATE TABLE watchlists (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, account INTEGER NOT NULL, id TEXT NOT NULL, name TEXT NOT NULL,
    created_ns INTEGER NOT NULL, updated_ns INTEGER NOT NULL, symbols TEXT NOT NULL, UNIQUE (account, name));
CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, account INTEGER NOT NULL, data TEXT NOT NULL);
CREATE INDEX events_by_account ON events (account, seq);
CREATE TABLE sessions (day TEXT PRIMARY KEY, open_ns INTEGER NOT NULL, close_ns INTEGER NOT NULL) WITHOUT ROWID;
"""

_TABLES: Final = (
    *(
        "meta",
        "accounts",
        "transfers",
        "orders",
        "fills",
        "holdings",
        "settlements",
        "watchlists",
        "events",
        "sessions",
    ),
)


class Meta(NamedTuple):
    """What ``reset`` decides: seed and hours, a new account's cash, requests a minute (0: no limit), and strain."""

    seed: int
    hours: str
    cash: str
    rate_limit: int
    latency_ms: int = 0
    slippage_bps: str = "0"
    reject_rate: str = "0"


_abandoned: Final[list[sqlite3.Connection]] = []
"""Connections in the middle of a parent's transaction. Closing one would undo that, so they stay open and unused."""


class Busy(Exception):
    """Somebody else is at work in the state, and the caller did not want to wait."""


class State:
    """One process's connection to the file, or without a directory to a database in memory that nobody else sees.

    Thread-safe: transactions of one process take turns.
    """

    def __init__(self, state_dir: str | None, defaults: Meta) -> None:
        self.path = IN_MEMORY if state_dir is None else os.path.join(state_dir, STATE_FILE)
        self._defaults = defaults
        self._let_go = self._closed = False
        try:
            if state_dir is not None:
                Path(state_dir).mkdir(mode=0o700, parents=True, exist_ok=True)
            self._db = self._connect()
        except (OSError, sqlite3.Error) as error:
            raise self._broken(error) from error
        self._lock = Turns(self)  # last: a fork asks the owner of each to let go, which has to be able to

    def write(self, *, wait: bool = True) -> AbstractContextManager[sqlite3.Connection]:
        """Run a transaction that may change the state; an exception undoes all of it.

        Raises:
            Busy: another transaction runs, and ``wait`` is false.
        """
        return _Transaction(self, "BEGIN IMMEDIATE", wait=wait)

    def read(self) -> AbstractContextManager[sqlite3.Connection]:
        """Run a transaction that sees one moment of the state and holds up no writer."""
        return _Transaction(self, "BEGIN", wait=True)

    def clear(self, meta: Meta, sessions: Sequence[tuple[str, int, int]]) -> None:
        """Forget everything and begin again, with the trading days to keep."""
        with self.write() as db:
            for table in _TABLES:
                db.execute(f"DELETE FROM {table}")
            _write_meta(db, meta)
            db.executemany("INSERT INTO sessions (day, open_ns, close_ns) VALUES (?, ?, ?)", sessions)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._db.close()

    def let_go(self) -> None:
        """Close the file before a fork: SQLite in a child would believe to have its parent's locks on it."""
        if self.path != IN_MEMORY and not self._closed:
            self._let_go = True
            self._db.close()

    def abandon(self) -> None:
        if self.path != IN_MEMORY and not self._closed:
            _abandoned.append(self._db)
            self._let_go = True

    def begin(self, begin: str = "BEGIN IMMEDIATE", *, wait: bool = True) -> sqlite3.Connection:
        """Begin a transaction, which ``end`` has to end; another connection than before means that there was a fork.

        Raises as ``write`` does.
        """
        if not self._lock.acquire(blocking=wait):
            raise Busy
        try:
            if self._let_go:
                self._db = self._connect()
                self._let_go = False
            if isinstance(self._db, _OnDemand):
                self._db.begins = True
            elif wait:
                self._db.execute(begin)
            else:
                self._begin_now(begin)
        except BaseException as error:
            self._lock.release()
            if isinstance(error, sqlite3.Error):
                raise self._broken(error) from error
            raise
        return self._db

    def end(self, error: BaseException | None) -> None:
        """Keep what a transaction did, or undo it when it ended with an error. Raises when SQLite cannot, or could not."""
        try:
            if isinstance(self._db, _OnDemand) and self._db.begins:
                self._db.begins = False
            elif error is None:
                self._db.execute("COMMIT")
            else:
                self._roll_back()
        except sqlite3.Error as failed:
            error = failed
            self._roll_back()
        finally:
            self._lock.release()
        if isinstance(error, sqlite3.Error):
            raise self._broken(error) from error

    def _roll_back(self) -> None:
        if self._db.in_transaction:  # a full disk has undone it already
            self._db.execute("ROLLBACK")

    def _begin_now(self, begin: str) -> None:
        self._db.execute("PRAGMA busy_timeout = 0")
        try:
            self._db.execute(begin)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:  # the rest of the code says why
                raise Busy from None
            raise
        finally:
            self._db.execute(f"PRAGMA busy_timeout = {round(_BUSY_TIMEOUT_S * 1000)}")

    def _connect(self) -> sqlite3.Connection:
        if self.path != IN_MEMORY:
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        db = sqlite3.connect(
            self.path,
            timeout=_BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
            factory=_OnDemand if self.path == IN_MEMORY else sqlite3.Connection,
        )
        try:
            db.row_factory = sqlite3.Row
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                enter_wal(db)
                _create(db, self._defaults)
            elif version != SCHEMA_VERSION:
                raise BeyondUse(f"{self.path} was written by another version of alpacli", _RESET)
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute(f"PRAGMA wal_autocheckpoint = {_PAGES_BEHIND}")
        except BaseException:
            db.close()
            raise
        return db

    def _broken(self, error: Exception) -> ConfigError:
        text = f"the offline exchange cannot use {self.path}: {error}"
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or _of_another_program(error, code):
            return BeyondUse(text, _RESET)
        return ConfigError(text, _way_out(error, code))


class BeyondUse(ConfigError):
    """It is the file itself that nobody can use: an empty one in its place is what helps, and all that does."""

    def as_dict(self) -> dict[str, str | int | float | None]:
        return {**super().as_dict(), "type": ConfigError.__name__}


def _of_another_program(error: Exception, code: int) -> bool:
    """Tell whether tables are missing, or other than ours."""
    said = ("no such table", "no such column", "has no column", "already exists")
    return code == sqlite3.SQLITE_ERROR and any(words in str(error) for words in said)


def _way_out(error: Exception, code: int) -> str:
    """Say what helps where it is not the file itself."""
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return "another process keeps it to itself: try again, or end that process"
    if getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE):
        return "too many files are open: close some, or raise the limit (ulimit -n)"
    if code == sqlite3.SQLITE_FULL or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return "make room on the disk, or name another directory with ALPACLI_STATE_DIR"
    return "make the state directory writable, or name another one with ALPACLI_STATE_DIR"


class _OnDemand(sqlite3.Connection):
    """A database that nobody else sees: there a transaction may as well begin with its first statement, if it has any."""

    begins = False

    def execute(self, *arguments: Any) -> sqlite3.Cursor:  # Any: as SQLite's own takes them
        self._begin_now()
        return super().execute(*arguments)

    def executemany(self, *arguments: Any) -> sqlite3.Cursor:
        self._begin_now()
        return super().executemany(*arguments)

    def _begin_now(self) -> None:
        if self.begins:
            self.begins = False
            super().execute("BEGIN")


class _Transaction:
    """One transaction of a state."""

    __slots__ = ("_begin", "_state", "_wait")

    def __init__(self, state: State, begin: str, *, wait: bool) -> None:
        self._state = state
        self._begin = begin
        self._wait = wait

    def __enter__(self) -> sqlite3.Connection:
        return self._state.begin(self._begin, wait=self._wait)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._state.end(error)


class MetaWatch:
    """Reads what a reset decides, at once or not at all: it waits for no lock, so an event loop may ask. Thread-safe.

    A reset may also put another file in the place of a damaged one.
    """

    def __init__(self, state_dir: str) -> None:
        self._path = Path(state_dir, STATE_FILE).absolute()
        self._lock = threading.Lock()
        self._file: tuple[int, int] | None = None
        self._db: sqlite3.Connection | None = None

    def read(self) -> Meta | None:
        """Return what is decided now; ``None`` when that cannot be read in this moment."""
        with self._lock:
            try:
                found = self._path.stat()
                if self._db is None or self._file != (found.st_dev, found.st_ino):
                    self._open()
                    self._file = (found.st_dev, found.st_ino)
                return None if self._db is None else read_meta(self._db)
            except (OSError, sqlite3.Error, KeyError, ValueError):
                return None  # being made, or damaged: whoever needs the state reports it

    def close(self) -> None:
        with self._lock:
            if self._db is not None:
                self._db.close()
            self._db = None

    def _open(self) -> None:
        if self._db is not None:
            self._db.close()
        self._db = None
        self._db = sqlite3.connect(
            f"{self._path.as_uri()}?mode=rw", uri=True, timeout=0, isolation_level=None, check_same_thread=False
        )
        self._db.row_factory = sqlite3.Row


def exact(order: dict[str, Any]) -> dict[str, Any]:
    """Turn the numbers of a row of the table of orders from text into exact ones."""
    for name in EXACT:
        value = order[name]
        if value is not None:
            order[name] = Decimal(value)
    return order


def read_meta(db: sqlite3.Connection) -> Meta:
    values = {row["key"]: row["value"] for row in db.execute("SELECT key, value FROM meta")}
    return Meta(
        int(values["seed"]),
        values["hours"],
        values["cash"],
        int(values["rate_limit"]),
        int(values["latency_ms"]),
        values["slippage_bps"],
        values["reject_rate"],
    )


def read_run(db: sqlite3.Connection) -> str | None:
    """Return the name of the run; ``None`` in a file from before runs had one."""
    row = db.execute("SELECT value FROM meta WHERE key = 'run'").fetchone()
    return None if row is None else str(row["value"])


def name_run(db: sqlite3.Connection) -> None:
    """Give the run a name by which it is told from every other, unless it has one. It is the same in no two files."""
    db.execute("INSERT OR IGNORE INTO meta (key, value) VALUES ('run', lower(hex(randomblob(6))))")


def remove(path: str) -> None:
    """Delete a database file and what SQLite keeps beside it."""
    for name in (path, f"{path}-wal", f"{path}-shm"):
        Path(name).unlink(missing_ok=True)


def _create(db: sqlite3.Connection, defaults: Meta) -> None:
    db.execute("BEGIN IMMEDIATE")
    try:
        if db.execute("PRAGMA user_version").fetchone()[0] == 0:
            for statement in _SCHEMA.split(";"):
                if statement.strip():
                    db.execute(statement)
            _write_meta(db, defaults)
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise


def _write_meta(db: sqlite3.Connection, meta: Meta) -> None:
    rows = [(key, str(value)) for key, value in meta._asdict().items()]
    db.executemany("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", rows)
    name_run(db)
