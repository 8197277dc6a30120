"""What happened to orders, kept so that every process that serves the trading stream can tell of it, whoever caused it.

An event is kept in the transaction of its cause and holds the order as it was then. Transactions that write take turns, so
events become visible in the order of their numbers, and a listener misses none by asking for those after the last it saw.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, NamedTuple

import msgspec

from alpacli.sim.answers import Json, decimal_text, identifier, timestamp
from alpacli.sim.desk import Account, Market
from alpacli.sim.order_answers import write_order

KEPT: Final = 10_000
"""How many events an account keeps; nobody lags that far behind."""

_SWEEP_EVERY: Final = 64


class Event(NamedTuple):
    """One row: its place, and ``data`` of the message as JSON text."""

    seq: int
    data: str


class Told(NamedTuple):
    """An event, with the order and its legs as they were then; it is written out when it is stored.

    ``now_ns`` is when it was told, for what an order shows of the moment. ``came_to`` has price, quantity and position after
    an execution.
    """

    event: str
    at_ns: int
    order: Mapping[str, Any]  # Any: ``book.Order``
    legs: Sequence[Mapping[str, Any]]
    market: Market
    now_ns: int
    came_to: "Mapping[str, Json | Decimal] | None" = None

    def data(self, account: Account) -> bytes:
        """Return ``data`` of the message as JSON."""
        order_id = self.order["id"]
        if self.came_to is None:
            execution = identifier("event", account.id, order_id, self.event, self.at_ns)
            came_to: dict[str, Json] = {}
        else:
            execution = execution_id(account.number, order_id, self.order["filled_qty"])
            came_to = {
                name: decimal_text(value) if isinstance(value, Decimal) else value
                for name, value in self.came_to.items()
            }
        data = {
            "event": self.event,
            "execution_id": execution,
            "timestamp": timestamp(self.at_ns),
            **came_to,
            "order": write_order(self.market, self.now_ns, self.order, self.legs),
        }
        return msgspec.json.encode(data)


def execution_id(account: int, order_id: str, filled_qty: Decimal) -> str:
    """Return the name of the execution after which so much of an order was filled."""
    return identifier("execution", account, order_id, filled_qty.normalize())


def record(db: sqlite3.Connection, account: int, told: Sequence[tuple[str, bytes]]) -> None:
    """Keep events, each an order's id and what is told of it."""
    for order_id, data in told:
        seq = db.execute(
            "INSERT INTO events (account, order_id, data) VALUES (?, ?, ?)", (account, order_id, data.decode())
        ).lastrowid
        if seq is not None and seq % _SWEEP_EVERY == 0:
            db.execute(
                "DELETE FROM events WHERE account = ? AND seq <= (SELECT seq FROM events WHERE account = ?"
                " ORDER BY seq DESC LIMIT 1 OFFSET ?)",
                (account, account, KEPT),
            )


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
