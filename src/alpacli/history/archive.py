"""The account's own history on this machine: one SQLite file per account, its versions, and what a transaction is.

A row is written once and found by its id ever after, so whatever is brought in twice is there once. Amounts are kept as the
text that Alpaca sent; what has to be searched stands in columns beside the text. WAL and ``synchronous=FULL``: a reader never
waits, a killed process leaves the last whole transaction, a power cut too. The file carries its version, and an older one is
brought forward step by step, each step one transaction; a newer one is refused rather than misread.

A key pair finds its file through a small pointer that names the account, because an account can be reset and begun anew
under the same keys: its history then begins in a new file, and the old one stays.
"""

import datetime as dt
import os
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, NamedTuple, Self, TypeVar
from zoneinfo import ZoneInfo

from alpacli.errors import AlpacliError, ConfigError, Unavailable, UsageError
from alpacli.wal import enter_wal

T = TypeVar("T")

NEW_YORK: Final = ZoneInfo("America/New_York")
SECOND_NS: Final = 1_000_000_000

_MIGRATIONS: Final = (
    # 1: snapshots. What is searched and added up lies apart from the long text, so that reading it touches few pages.
    """
    CREATE TABLE account (id TEXT PRIMARY KEY, number TEXT NOT NULL, created_ns INTEGER);
    CREATE TABLE snapshots (seq INTEGER PRIMARY KEY, at_ns INTEGER NOT NULL, day INTEGER NOT NULL, equity TEXT NOT NULL,
                            cash TEXT NOT NULL, long_value TEXT NOT NULL, short_value TEXT NOT NULL);
    CREATE INDEX snapshots_by_time ON snapshots (at_ns);
    CREATE INDEX snapshots_by_day ON snapshots (day, at_ns);
    CREATE TABLE snapshot_texts (seq INTEGER PRIMARY KEY, packed BLOB NOT NULL);
    """,
    # 2: orders, activities, the broker's own daily equity, and how far each of them was read. An order is found by its time
    # and id together: ids are random, and an index of them alone would be written all over with every page that comes.
    """
    CREATE TABLE orders (seq INTEGER PRIMARY KEY, id TEXT NOT NULL, submitted_ns INTEGER NOT NULL,
                         symbol TEXT NOT NULL, side TEXT NOT NULL, status TEXT NOT NULL, open INTEGER NOT NULL,
                         filled_qty TEXT NOT NULL, wire BLOB NOT NULL, UNIQUE (submitted_ns, id));
    CREATE INDEX orders_open ON orders (submitted_ns) WHERE open;
    CREATE TABLE activities (seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, at_ns INTEGER NOT NULL,
                             day INTEGER NOT NULL, symbol TEXT NOT NULL, side TEXT NOT NULL, status TEXT NOT NULL,
                             order_id TEXT, qty TEXT, wire BLOB NOT NULL);
    CREATE INDEX activities_by_time ON activities (at_ns, seq);
    CREATE INDEX activities_by_order ON activities (order_id) WHERE order_id IS NOT NULL;
    CREATE TABLE days (day INTEGER PRIMARY KEY, equity TEXT NOT NULL);
    CREATE TABLE chains (name TEXT PRIMARY KEY, cursor TEXT, since TEXT, whole_ns INTEGER) WITHOUT ROWID;
    """,
)
VERSION: Final = len(_MIGRATIONS)
_FILE: Final = "the history file"
_RUN: Final = "run"


class Saved(NamedTuple):
    """One snapshot as it is kept: when (nanoseconds since 1970 UTC), what it came to, and its whole text."""

    at_ns: int
    equity: str
    cash: str
    long_value: str
    short_value: str
    text: bytes


class Worth(NamedTuple):
    """What a snapshot came to, without its text."""

    at_ns: int
    equity: str
    cash: str
    long_value: str
    short_value: str


class Chain(NamedTuple):
    """How far one list of the broker's was read.

    ``cursor`` is the id to continue behind, ``since`` the filter it was begun with (of orders: the time of the last one read,
    in nanoseconds); ``whole_ns`` is when the list was last
    read to its end, ``None`` if it never was.
    """

    cursor: str | None = None
    since: str | None = None
    whole_ns: int | None = None


class OrderRow(NamedTuple):
    """An order to be kept; ``wire`` is its JSON as Alpaca sent it."""

    id: str
    submitted_ns: int
    symbol: str
    side: str
    status: str
    open: bool
    filled_qty: str
    wire: bytes


class ActivityRow(NamedTuple):
    """An activity to be kept; ``day`` is New York's, as an ordinal."""

    id: str
    kind: str
    at_ns: int
    day: int
    symbol: str
    side: str
    status: str
    order_id: str | None
    qty: str | None
    wire: bytes


def new_york_day(at_ns: int) -> int:
    """Return the ordinal of the date in New York."""
    return dt.datetime.fromtimestamp(at_ns // SECOND_NS, NEW_YORK).toordinal()


def new_york_ns(day: int, at: dt.time) -> int:
    """Return the instant at which clocks in New York show a time of a day (an ordinal)."""
    moment = dt.datetime.combine(dt.date.fromordinal(day), at, NEW_YORK)
    return int(moment.timestamp()) * SECOND_NS


# ------------------------------------------------------------------------------------------------ which file


def name_of(account_id: str, created_ns: int | None, run: str = "") -> str:
    """Name an account's history: by its id, and when it was opened, since the offline exchange gives an id again.

    ``run`` names the run of an exchange on this machine: a replayed day has every account opened at the same moment.
    """
    opened = "" if created_ns is None else f"-{created_ns // SECOND_NS}"
    return f"{account_id}{opened}-{run}" if run else f"{account_id}{opened}"


def path_of(folder: str, name: str) -> str:
    """Return the file of a history; a name that is no name of a file becomes digits."""
    plain = name if re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z-]{0,63}", name) else name.encode().hex()[:128]
    return os.path.join(folder, f"{plain}.sqlite")


def point_to(folder: str, fingerprint: str, name: str) -> None:
    """Note which history (``name_of``) a key pair goes on with.

    Raises:
        ConfigError: the directory cannot be written.
    """
    if history_of(folder, fingerprint) == name:
        return
    pointer = os.path.join(folder, f"{fingerprint}.account")
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        draft = f"{pointer}.{os.getpid()}"
        with open(draft, "w", encoding="utf-8") as file:
            file.write(name)
        os.replace(draft, pointer)  # plain text paths, as in store
    except OSError as error:
        raise _unwritable(folder, error) from error


def history_of(folder: str, fingerprint: str) -> str | None:
    """Return the history that a key pair last added to; ``None`` when nothing was ever kept for it."""
    with suppress(OSError), open(os.path.join(folder, f"{fingerprint}.account"), encoding="utf-8") as file:
        return file.read() or None
    return None


def _unwritable(place: str, error: BaseException) -> ConfigError:
    reason = getattr(error, "strerror", None) or error
    return ConfigError(f"{place} cannot be used: {reason}", "make it writable, or set ALPACLI_STATE_DIR")


class Archive:
    """The history of one account in the file ``path``, which is made when it is not there. One thread at a time."""

    def __init__(self, path: str, *, busy_s: float = 10.0) -> None:
        self.path = path
        try:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            with open(path, "ab"):
                pass
            os.chmod(path, 0o600)  # noqa: PTH101 # plain text paths, as in store
        except OSError as error:
            raise _unwritable(path, error) from error
        self._db = sqlite3.connect(path, timeout=busy_s, isolation_level=None)
        try:
            self._run(self._prepare)
        except OSError as error:
            self._db.close()
            raise _unwritable(path, error) from error
        except BaseException:
            self._db.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        with suppress(sqlite3.Error):  # what was committed is in the log; a full disk may keep it from the file for now
            self._db.close()

    def _prepare(self, db: sqlite3.Connection) -> None:
        if db.execute("PRAGMA user_version").fetchone() != (VERSION,):
            self._bring_forward(db)
        db.execute("PRAGMA synchronous = FULL")

    def _bring_forward(self, db: sqlite3.Connection) -> None:
        """Make the file, or bring it to this version."""
        # Of a new file: rows of a kilobyte lie fourteen on a page, not three.
        db.execute("PRAGMA page_size = 16384")
        enter_wal(db)
        while self._step(db) != VERSION:
            pass

    def _step(self, db: sqlite3.Connection) -> int:
        """Bring the file one version forward, unless another process just did; return the version it has now."""
        with db:
            db.execute("BEGIN IMMEDIATE")
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version > VERSION:
                raise ConfigError(
                    f"{self.path} was written by a newer alpacli (version {version} of the file, known is {VERSION})",
                    "update alpacli, or set ALPACLI_STATE_DIR to another directory",
                )
            if version < VERSION:
                for statement in _MIGRATIONS[version].split(";"):
                    db.execute(statement)
                version += 1
                db.execute(f"PRAGMA user_version = {version}")
            return int(version)

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return work(self._db)
        except sqlite3.Error as error:
            raise self._failure(error) from error

    def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do everything or nothing; on disk when this returns."""

        def transaction(db: sqlite3.Connection) -> T:
            with db:
                db.execute("BEGIN IMMEDIATE")
                return work(db)

        return self._run(transaction)

    def _failure(self, error: sqlite3.Error) -> AlpacliError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return Unavailable(f"{_FILE} is held by another process", f"try again; the file is {self.path}")
        if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            return ConfigError(
                f"{_FILE} cannot be written: {error}", f"make room for {self.path}; nothing is half written"
            )
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return ConfigError(f"{_FILE} is damaged: {error}", f"move {self.path} away and run alpacli history sync")
        return ConfigError(f"{_FILE} cannot be used: {error}", f"look at {self.path}, or set ALPACLI_STATE_DIR")

    # ---------------------------------------------------------------------------------------------- snapshots

    def know_account(self, account_id: str, number: str, created_ns: int | None) -> None:
        """Note whose history this is, once.

        Raises:
            UsageError: it is another account's.
        """
        known = self._run(lambda db: db.execute("SELECT id FROM account").fetchone())
        if known is None:
            self._write(
                lambda db: db.execute(
                    "INSERT OR IGNORE INTO account VALUES (?, ?, ?)", (account_id, number, created_ns)
                )
            )
        elif known[0] != account_id:
            raise UsageError(f"{self.path} is the history of another account", "move it away")

    @property
    def account(self) -> tuple[str, int | None]:
        """Return the account's number and when it was opened (nanoseconds since 1970 UTC), as far as known."""
        row = self._run(lambda db: db.execute("SELECT number, created_ns FROM account").fetchone())
        return (str(row[0]), row[1]) if row else ("", None)

    def append(self, saved: Saved, slot: tuple[int, int]) -> bool:
        """Keep a snapshot unless there is one within the slot (from, until before); return whether it was kept."""
        import zlib

        day = new_york_day(saved.at_ns)

        def work(db: sqlite3.Connection) -> bool:
            if db.execute("SELECT 1 FROM snapshots WHERE at_ns >= ? AND at_ns < ? LIMIT 1", slot).fetchone():
                return False
            seq = db.execute(
                "INSERT INTO snapshots (at_ns, day, equity, cash, long_value, short_value) VALUES (?, ?, ?, ?, ?, ?)",
                (saved.at_ns, day, saved.equity, saved.cash, saved.long_value, saved.short_value),
            ).lastrowid
            db.execute("INSERT INTO snapshot_texts VALUES (?, ?)", (seq, zlib.compress(saved.text)))
            return True

        return self._write(work)

    def snapshot_within(self, slot: tuple[int, int]) -> bytes | None:
        """Return the text of the newest snapshot from a time until before another."""
        return self._text("at_ns >= ? AND at_ns < ?", slot)

    def snapshot_until(self, at_ns: int) -> bytes | None:
        """Return the text of the newest snapshot up to a time, itself included."""
        return self._text("at_ns <= ?", (at_ns,))

    def _text(self, where: str, arguments: tuple[int, ...]) -> bytes | None:
        import zlib

        row = self._run(
            lambda db: db.execute(
                "SELECT packed FROM snapshots JOIN snapshot_texts USING (seq)"
                f" WHERE {where} ORDER BY at_ns DESC, seq DESC LIMIT 1",
                arguments,
            ).fetchone()
        )
        return None if row is None else zlib.decompress(row[0])

    def snapshots(
        self, since_ns: int, until_ns: int, *, descending: bool = False, most: int | None = None
    ) -> Iterator[Worth]:
        """Return what the snapshots from a time until before another came to, in order of time."""
        direction = "DESC" if descending else "ASC"
        yield from map(
            Worth._make,
            self._rows(
                "SELECT at_ns, equity, cash, long_value, short_value FROM snapshots WHERE at_ns >= ? AND at_ns < ?"
                f" ORDER BY at_ns {direction}, seq {direction} LIMIT ?",
                (since_ns, until_ns, -1 if most is None else most),
            ),
        )

    def snapshot_days(self) -> list[int]:
        """Return the New York dates (ordinals) that have a snapshot; looks at one row a day, however many there are."""
        return [
            day
            for (day,) in self._rows(
                "WITH RECURSIVE found (day) AS (SELECT min(day) FROM snapshots UNION ALL"
                " SELECT (SELECT min(day) FROM snapshots WHERE day > found.day) FROM found WHERE found.day IS NOT NULL)"
                " SELECT day FROM found WHERE day IS NOT NULL"
            )
        ]

    def snapshots_about(self, day: int, at_ns: int) -> tuple[Worth | None, Worth | None]:
        """Return the last snapshot of a day up to a time, and the first one after it."""
        columns = "SELECT at_ns, equity, cash, long_value, short_value FROM snapshots WHERE day = ?"
        last, first = (
            next((Worth(*row) for row in self._rows(f"{columns} {tail}", (day, at_ns))), None)
            for tail in (
                "AND at_ns <= ? ORDER BY at_ns DESC, seq DESC LIMIT 1",
                "AND at_ns > ? ORDER BY at_ns, seq LIMIT 1",
            )
        )
        return last, first

    def count(self, table: str) -> int:
        """Return how many rows ``snapshots``, ``orders``, ``activities`` or ``days`` has."""
        ((count,),) = self._rows(f"SELECT count(*) FROM {table}")
        return int(count)

    # ---------------------------------------------------------------------------------- orders and activities

    def chain(self, name: str) -> Chain:
        for row in self._rows("SELECT cursor, since, whole_ns FROM chains WHERE name = ?", (name,)):
            return Chain(*row)
        return Chain()

    def forget_chains(self) -> None:
        """Forget how far each list was read, and nothing else: the next pass reads them from their beginning."""
        self._write(lambda db: db.execute("DELETE FROM chains WHERE name <> ?", (_RUN,)))

    def know_run(self, name: str, at_ns: int) -> None:
        """Note which run of an exchange this is the history of, and what its clock shows."""
        self.keep_days((), (_RUN, Chain(name, None, at_ns)))

    @property
    def run_ns(self) -> int | None:
        """Return what the exchange's clock showed when it was last noted; ``None`` where the account is no exchange's."""
        return self.chain(_RUN).whole_ns

    def keep_orders(self, rows: Iterable[OrderRow], chain: tuple[str, Chain] | None = None) -> int:
        """Keep one page of orders, and with it how far the list was read; return how many were new or different.

        An order that is still open may be submitted once more, at another time: it stays one row.
        """
        page = list(rows)
        known = dict(self.open_orders())
        moved = [(row.id, known[row.id]) for row in page if known.get(row.id, row.submitted_ns) != row.submitted_ns]
        return self._keep(_KEEP_ORDER, page, chain, ("DELETE FROM orders WHERE id = ? AND submitted_ns = ?", moved))

    def keep_activities(self, rows: Iterable[ActivityRow], chain: tuple[str, Chain] | None = None) -> int:
        """Keep one page of activities, and with it how far the list was read; return how many were new or different."""
        return self._keep(_KEEP_ACTIVITY, rows, chain)

    def keep_days(self, rows: Iterable[tuple[int, str]], chain: tuple[str, Chain]) -> int:
        """Keep the broker's equity by day (an ordinal)."""
        return self._keep(_KEEP_DAY, rows, chain)

    def _keep(
        self,
        statement: str,
        rows: Iterable[Sequence[Any]],
        chain: tuple[str, Chain] | None,
        first: tuple[str, Sequence[Sequence[Any]]] = ("", ()),
    ) -> int:
        def work(db: sqlite3.Connection) -> int:
            if first[1]:
                db.executemany(*first)
            before = db.total_changes
            db.executemany(statement, rows)
            changed = db.total_changes - before
            if chain is not None:
                db.execute(_KEEP_CHAIN, (chain[0], *chain[1]))
            return changed

        return self._write(work)

    def order_before(self, submitted_ns: int, back: int) -> tuple[str, int] | None:
        """Return id and time of the order that so many were submitted after, up to a time; ``None`` when there are fewer."""
        for order_id, at_ns in self._rows(
            "SELECT id, submitted_ns FROM orders WHERE submitted_ns <= ?"
            " ORDER BY submitted_ns DESC, seq DESC LIMIT 1 OFFSET ?",
            (submitted_ns, back),
        ):
            return str(order_id), int(at_ns)
        return None

    def open_orders(self) -> list[tuple[str, int]]:
        """Return id and submission time of every order that was not at its end when it was last read, oldest first."""
        return list(self._rows("SELECT id, submitted_ns FROM orders WHERE open ORDER BY submitted_ns, seq"))

    def orders_since(self, submitted_ns: int) -> int:
        """Return how many orders were submitted at or after a time."""
        ((count,),) = self._rows("SELECT count(*) FROM orders WHERE submitted_ns >= ?", (submitted_ns,))
        return int(count)

    def newest_activity_ns(self, *, fills: bool) -> int | None:
        kind = "kind = 'FILL'" if fills else "kind <> 'FILL'"
        ((newest,),) = self._rows(f"SELECT max(at_ns) FROM activities WHERE {kind}")
        return None if newest is None else int(newest)

    def doubtful_orders(self) -> list[str]:
        """Return the ids of orders that fills name and are not here, or whose fills are not what they say was filled.

        A parent of several legs has no symbol and no fills of its own. SQLite has no arithmetic that keeps every digit.
        """
        from decimal import Decimal

        filled: dict[str, Decimal] = {}
        for order_id, qty in self._rows(
            "SELECT order_id, qty FROM activities WHERE kind = 'FILL' AND order_id IS NOT NULL"
        ):
            filled[order_id] = filled.get(order_id, Decimal(0)) + Decimal(qty)
        missing = set(filled)
        found = []
        for order_id, symbol, said in self._rows("SELECT id, symbol, filled_qty FROM orders"):
            missing.discard(order_id)
            if symbol and (said != "0" or order_id in filled) and Decimal(said) != filled.get(order_id, 0):
                found.append(order_id)
        found += sorted(missing)
        return found

    def orders(self, where: str, arguments: Sequence[object]) -> Iterator[bytes]:
        """Return the orders' JSON as Alpaca sent it; ``where`` is a condition on the columns, an ORDER BY, a LIMIT."""
        return (wire for (wire,) in self._rows(f"SELECT wire FROM orders {where}", arguments))

    def activities(self, where: str, arguments: Sequence[object]) -> Iterator[tuple[int, int, bytes]]:
        """Return time, day and JSON of activities; ``where`` as for ``orders``."""
        return self._rows(f"SELECT at_ns, day, wire FROM activities {where}", arguments)

    def broker_days(self) -> dict[int, str]:
        """Return the broker's own equity by day, in order."""
        return dict(self._rows("SELECT day, equity FROM days ORDER BY day"))

    def _rows(self, statement: str, arguments: Sequence[object] = ()) -> Iterator[Any]:
        """Return rows as they are asked for; any failure of the file is told as one."""
        try:
            yield from self._db.execute(statement, arguments)
        except sqlite3.Error as error:
            raise self._failure(error) from error


_KEEP_ORDER: Final = """
INSERT INTO orders (id, submitted_ns, symbol, side, status, open, filled_qty, wire) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (submitted_ns, id) DO UPDATE SET symbol = excluded.symbol, side = excluded.side, status = excluded.status,
open = excluded.open, filled_qty = excluded.filled_qty, wire = excluded.wire
WHERE wire <> excluded.wire AND (open OR NOT excluded.open)
"""
"""An order that is at its end never becomes open again: an answer that was older when it was read does not win."""
_KEEP_ACTIVITY: Final = """
INSERT INTO activities (id, kind, at_ns, day, symbol, side, status, order_id, qty, wire)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET kind = excluded.kind, at_ns = excluded.at_ns, day = excluded.day,
symbol = excluded.symbol, side = excluded.side, status = excluded.status, order_id = excluded.order_id,
qty = excluded.qty, wire = excluded.wire WHERE wire <> excluded.wire OR at_ns <> excluded.at_ns
"""
_KEEP_DAY: Final = """
INSERT INTO days (day, equity) VALUES (?, ?)
ON CONFLICT (day) DO UPDATE SET equity = excluded.equity WHERE equity <> excluded.equity
"""
_KEEP_CHAIN: Final = """
INSERT INTO chains (name, cursor, since, whole_ns) VALUES (?, ?, ?, ?)
ON CONFLICT (name) DO UPDATE SET cursor = excluded.cursor, since = excluded.since, whole_ns = excluded.whole_ns
"""
