"""The webhooks that were asked for and what still has to be delivered: one SQLite file per account, safe under ``kill -9``.

A delivery is written before anybody tries it, and removed from the queue only when the receiver took it or nobody will try
any more. Deliveries of one order to one hook leave in the order in which the events happened; other orders do not wait for
them. Any number of gateways of a machine may share the file: an event is queued once per hook, and whoever takes a delivery
holds it for a while.
"""

import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple, TypeVar

from alpacli.errors import ConfigError, NotFound
from alpacli.wal import enter_wal

EVENTS: Final = (
    *("new", "fill", "partial_fill", "canceled", "expired", "done_for_day", "replaced", "rejected", "pending_new"),
    *("stopped", "pending_cancel", "pending_replace", "calculated", "suspended", "accepted", "held", "restated"),
    *("order_replace_rejected", "order_cancel_rejected", "trade_bust", "trade_correct"),
)
"""What trade updates call what happened. Source: the "trade_updates" page of the streaming documentation."""

AT_ONCE: Final = 4
"""Deliveries to one receiver that are under way together; to one that fails it is one, which finds out if it still does."""
_VERSION: Final = 3
_CACHE_KIB: Final = 512
"""Pages that SQLite keeps in memory: what waits, and where the next row goes. The rest of the month is never read again."""
_KEPT_S: Final = 30 * 86_400.0
"""A delivery that was made or given up is remembered this long, so that its event is not queued again."""
_SCHEMA: Final = """
CREATE TABLE hook (id TEXT PRIMARY KEY, url TEXT NOT NULL, events TEXT NOT NULL, secret TEXT NOT NULL, at REAL NOT NULL,
                   failing_since REAL, last_error TEXT NOT NULL DEFAULT '', delivered INTEGER NOT NULL DEFAULT 0,
                   gave_up INTEGER NOT NULL DEFAULT 0, off INTEGER NOT NULL DEFAULT 0);
CREATE TABLE delivery (seq INTEGER PRIMARY KEY AUTOINCREMENT, hook TEXT NOT NULL REFERENCES hook (id) ON DELETE CASCADE,
                       event TEXT NOT NULL, order_id TEXT NOT NULL, name TEXT NOT NULL, body BLOB NOT NULL,
                       at REAL NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, next_at REAL NOT NULL,
                       held_until REAL NOT NULL DEFAULT 0, done_at REAL, UNIQUE (hook, event));
CREATE INDEX delivery_due ON delivery (hook, order_id, seq) WHERE done_at IS NULL;
CREATE TABLE seen (order_id TEXT PRIMARY KEY, state TEXT NOT NULL, at REAL NOT NULL) WITHOUT ROWID;
"""
_INDEXES_OF_2: Final = """
CREATE INDEX delivery_done ON delivery (done_at) WHERE done_at IS NOT NULL;
CREATE INDEX seen_at ON seen (at);
"""
"""Without them a delivery would read everything of the last month, to find what is older."""
_INDEX_OF_3: Final = """
DROP INDEX delivery_due;
CREATE INDEX delivery_waiting ON delivery (hook, order_id, seq, next_at, held_until) WHERE done_at IS NULL;
"""
"""All that finding the next ones reads of those that wait: their bodies lie between."""
_WAITING: Final = """
FROM delivery d JOIN hook h ON h.id = d.hook
LEFT JOIN (SELECT hook, count(*) AS many FROM delivery WHERE done_at IS NULL AND held_until > :now GROUP BY hook) held
  ON held.hook = d.hook
WHERE d.done_at IS NULL AND NOT h.off AND NOT EXISTS (
  SELECT 1 FROM delivery e WHERE e.hook = d.hook AND e.order_id = d.order_id AND e.done_at IS NULL AND e.seq < d.seq)
"""
"""The first of each order and hook: those behind it wait for it."""
_ROOM: Final = f"iif(h.failing_since IS NULL, {AT_ONCE}, 1) - coalesce(held.many, 0)"
"""How many more of a hook's may be tried now: a receiver that hangs takes neither the threads nor the turn of the others."""
_DUE: Final = f"""
WITH due AS (
  SELECT d.seq AS seq, {_ROOM} AS room, h.failing_since IS NOT NULL AS failing,
         row_number() OVER (PARTITION BY d.hook ORDER BY d.seq) AS place
  {_WAITING} AND d.next_at <= :now AND d.held_until <= :now)
SELECT d.seq, d.hook, h.url, h.secret, d.name, d.event, d.body, d.attempts, d.at
FROM due CROSS JOIN delivery d ON d.seq = due.seq CROSS JOIN hook h ON h.id = d.hook
WHERE due.place <= due.room ORDER BY due.failing, due.seq LIMIT :most
"""
"""``CROSS``: so that SQLite goes from those that are due to their rows, and not through everything of the last month."""
_NEXT: Final = f"SELECT min(max(d.next_at, d.held_until)) {_WAITING} AND (d.held_until > :now OR {_ROOM} > 0)"

_QUEUE: Final = """
INSERT OR IGNORE INTO delivery (hook, event, order_id, name, body, at, next_at) VALUES (?, ?, ?, ?, ?, ?, ?)
"""

T = TypeVar("T")


class Hook(NamedTuple):
    """One receiver. ``events`` empty means all; ``failing_since`` is Unix seconds, ``None`` when the last one was taken.

    ``waiting``, ``delivered`` and ``gave_up`` count deliveries; ``off`` means that the receiver said it is gone.
    """

    id: str
    url: str
    events: frozenset[str]
    at: float
    failing_since: float | None
    last_error: str
    waiting: int
    delivered: int
    gave_up: int
    off: bool


class Delivery(NamedTuple):
    """Something to deliver: ``event`` is its id at every attempt, ``name`` what happened, ``at`` when it was queued."""

    seq: int
    hook: str
    url: str
    secret: str
    name: str
    event: str
    body: bytes
    attempts: int
    at: float


class Happened(NamedTuple):
    """One order event: its unique id, Alpaca's name for it, the order, the state that it has since, the JSON to send.

    Without a name it is only remembered: nobody is told.
    """

    event: str
    name: str
    order_id: str
    state: str
    body: bytes


class HookQueue:
    """The file in ``path``; made, for this user only, when something is first written. Thread-safe; blocks."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None

    # -------------------------------------------------------------------------------------------------- the hooks

    def add(self, hook_id: str, url: str, events: Iterable[str], secret: str, now: float) -> None:
        listed = " ".join(sorted(events))
        self._write(
            lambda db: db.execute(
                "INSERT INTO hook (id, url, events, secret, at) VALUES (?, ?, ?, ?, ?)",
                (hook_id, url, listed, secret, now),
            )
        )

    def remove(self, hook_id: str) -> None:
        """Forget a hook and everything that waits for it.

        Raises:
            NotFound: there is none of that id.
        """
        if self._write(lambda db: db.execute("DELETE FROM hook WHERE id = ?", (hook_id,)).rowcount) != 1:
            raise _no_hook(hook_id)

    def hooks(self) -> list[Hook]:
        if not os.path.exists(self._path):
            return []
        rows = self._read(
            "SELECT id, url, events, at, failing_since, last_error,"
            " (SELECT count(*) FROM delivery WHERE hook = hook.id AND done_at IS NULL), delivered, gave_up, off"
            " FROM hook ORDER BY at"
        )
        return [Hook._make((*row[:2], frozenset(row[2].split()), *row[3:9], bool(row[9]))) for row in rows]

    # ------------------------------------------------------------------------------------------------- the events

    def put(self, happened: Iterable[Happened], now: float) -> int:
        """Queue events for the hooks that want them, each once; return how many deliveries that makes."""

        def work(db: sqlite3.Connection) -> int:
            hooks = db.execute("SELECT id, events FROM hook WHERE NOT off").fetchall()
            count = 0
            for one in happened:
                db.execute("INSERT OR REPLACE INTO seen VALUES (?, ?, ?)", (one.order_id, one.state, now))
                for hook, events in hooks:
                    if not one.name or (events and one.name not in events.split()):
                        continue
                    row = (hook, one.event, one.order_id, one.name, one.body, now, now)
                    count += db.execute(_QUEUE, row).rowcount
            return count

        return self._write(work)

    def put_for(self, hook_id: str, happened: Happened, now: float) -> None:
        """Queue something for one hook, whatever it asked for.

        Raises:
            NotFound: there is none of that id.
        """

        def work(db: sqlite3.Connection) -> None:
            if db.execute("SELECT 1 FROM hook WHERE id = ?", (hook_id,)).fetchone() is None:
                raise _no_hook(hook_id)
            row = (hook_id, happened.event, happened.order_id, happened.name, happened.body, now, now)
            db.execute(_QUEUE, row)

        self._write(work)

    def seen(self) -> dict[str, str]:
        """Return the last state of every order that was heard of."""
        return dict(self._read("SELECT order_id, state FROM seen")) if os.path.exists(self._path) else {}

    # --------------------------------------------------------------------------------------------- the deliveries

    def take(self, now: float, most: int, hold_s: float) -> list[Delivery]:
        """Return what is due, and keep it from others for ``hold_s``: who is killed meanwhile held it only so long."""

        def work(db: sqlite3.Connection) -> list[Delivery]:
            found = [Delivery(*row) for row in db.execute(_DUE, {"now": now, "most": most})]
            db.executemany(
                "UPDATE delivery SET held_until = ? WHERE seq = ?", [(now + hold_s, delivery.seq) for delivery in found]
            )
            return found

        return self._write(work)

    def delivered(self, delivery: Delivery, now: float) -> None:
        def work(db: sqlite3.Connection) -> None:
            db.execute("UPDATE delivery SET done_at = ?, body = x'' WHERE seq = ?", (now, delivery.seq))
            db.execute(
                "UPDATE hook SET delivered = delivered + 1, failing_since = NULL, last_error = '' WHERE id = ?",
                (delivery.hook,),
            )
            db.execute("DELETE FROM delivery WHERE done_at < ?", (now - _KEPT_S,))
            db.execute("DELETE FROM seen WHERE at < ?", (now - _KEPT_S,))

        self._write(work)

    def failed(self, delivery: Delivery, why: str, now: float, retry_at: float | None, *, off: bool = False) -> None:
        """Take note of an attempt that did not get through; ``retry_at`` ``None`` gives it up; ``off`` ends the hook."""

        def work(db: sqlite3.Connection) -> None:
            db.execute(
                "UPDATE hook SET failing_since = coalesce(failing_since, ?), last_error = ?, off = off OR ? WHERE id = ?",
                (now, why, off, delivery.hook),
            )
            if retry_at is None:
                db.execute("UPDATE delivery SET done_at = ?, body = x'' WHERE seq = ?", (now, delivery.seq))
                db.execute("UPDATE hook SET gave_up = gave_up + 1 WHERE id = ?", (delivery.hook,))
            else:
                db.execute(
                    "UPDATE delivery SET attempts = attempts + 1, next_at = ?, held_until = 0 WHERE seq = ?",
                    (retry_at, delivery.seq),
                )

        self._write(work)

    def next_due(self, now: float) -> float | None:
        """Return when something is to be tried next; ``None`` when nothing waits but for attempts that are under way."""
        rows = self._read(_NEXT, {"now": now})
        due: float | None = rows[0][0]
        return due

    def close(self) -> None:
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None

    # --------------------------------------------------------------------------------------------------- the file

    def _read(self, query: str, values: Mapping[str, float] | None = None) -> list[Any]:  # Any: rows as SQLite has them
        return self._run(lambda db: db.execute(query, values or {}).fetchall())

    def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def transaction(db: sqlite3.Connection) -> T:
            db.execute("BEGIN IMMEDIATE")
            try:
                result = work(db)
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")
            return result

        return self._run(transaction)

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock:
            try:
                return work(self._opened())
            except sqlite3.Error as error:
                raise ConfigError(
                    f"the webhooks in {self._path} cannot be used: {error}",
                    "make the state directory writable, or make room",
                ) from error

    def _opened(self) -> sqlite3.Connection:
        if self._db is None:
            try:
                os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
                os.close(os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
            except OSError as error:
                raise ConfigError(f"cannot write {self._path}: {error.strerror}", "set ALPACLI_STATE_DIR") from None
            db = sqlite3.connect(self._path, timeout=5.0, isolation_level=None, check_same_thread=False)
            try:
                _prepare(db)
            except BaseException:
                db.close()
                raise
            self._db = db
        return self._db


def _prepare(db: sqlite3.Connection) -> None:
    enter_wal(db)
    db.execute("PRAGMA synchronous = FULL")  # an event that was taken from the stream is not told again
    db.execute("PRAGMA foreign_keys = ON")
    db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    db.execute("BEGIN IMMEDIATE")
    version = db.execute("PRAGMA user_version").fetchone()[0]
    missing = "".join((_SCHEMA, _INDEXES_OF_2, _INDEX_OF_3)[version:])
    for statement in missing.split(";\n"):
        if statement.strip():
            db.execute(statement)
    if missing:
        db.execute(f"PRAGMA user_version = {_VERSION}")
    db.execute("COMMIT")


def _no_hook(hook_id: str) -> NotFound:
    return NotFound(f"there is no webhook {hook_id}", "`alpacli serve hooks list` shows them", status=404)
