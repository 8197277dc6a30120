"""What happened to orders, kept so that every process that serves the trading stream can tell of it, whoever caused it.

An event is written in the transaction of its cause and holds the order as it was then. Transactions that write take turns,
so events become visible in the order of their numbers, and a listener misses none by asking for those after the last it saw.
"""

import json
import sqlite3
from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

from alpacli.sim.answers import Json, timestamp

KEPT: Final = 10_000
"""How many events an account keeps; nobody lags that far behind."""

_SWEEP_EVERY: Final = 64


class Event(NamedTuple):
    """One row: its place, and ``data`` of the message as JSON text."""

    seq: int
    data: str


def record(
    db: sqlite3.Connection,
    account: int,
    event: str,
    order: Mapping[str, Json],
    at_ns: int,
    *,
    execution_id: str,
    fill: Mapping[str, Json] | None = None,
) -> None:
    """Keep an event; ``order`` is the order after it, ``fill`` has price, qty and the position after an execution."""
    data = {
        "event": event,
        "execution_id": execution_id,
        "timestamp": timestamp(at_ns),
        **(fill or {}),
        "order": order,
    }
    seq = db.execute(
        "INSERT INTO events (account, order_id, data) VALUES (?, ?, ?)",
        (account, order["id"], msgspec.json.encode(data).decode()),
    ).lastrowid
    if seq is not None and seq % _SWEEP_EVERY == 0:
        db.execute(
            "DELETE FROM events WHERE account = ? AND seq <= (SELECT seq FROM events WHERE account = ?"
            " ORDER BY seq DESC LIMIT 1 OFFSET ?)",
            (account, account, KEPT),
        )


def add_legs(db: sqlite3.Connection, account: int, order_id: str, legs: Json) -> None:
    """Put the legs into the events of an order that were recorded before it had any: they enter the book after it."""
    for row in db.execute(
        "SELECT seq, data FROM events WHERE account = ? AND order_id = ?", (account, order_id)
    ).fetchall():
        data = json.loads(row["data"])
        data["order"]["legs"] = legs
        text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
        db.execute("UPDATE events SET data = ? WHERE seq = ?", (text, row["seq"]))


def newest(db: sqlite3.Connection) -> int:
    """Return the number of the last event of any account, 0 when there was none."""
    row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
    return 0 if row is None else int(row["seq"])


def after(db: sqlite3.Connection, account: int, seq: int) -> list[Event] | None:
    """Return the account's events after number ``seq``, oldest first; ``None`` when a reset took the account away."""
    rows = db.execute("SELECT seq, data FROM events WHERE account = ? AND seq > ? ORDER BY seq", (account, seq))
    found = [Event(row["seq"], row["data"]) for row in rows.fetchall()]
    if not found and db.execute("SELECT 1 FROM accounts WHERE number = ?", (account,)).fetchone() is None:
        return None
    return found
