"""What happened to orders, kept so that every process that serves the trading stream can tell of it, whoever caused it.

An event is kept in the transaction of its cause and holds the order as it was then; it is written out when a listener asks,
since most are never asked for. Transactions that write take turns, so
events become visible in the order of their numbers, and a listener misses none by asking for those after the last it saw.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from decimal import Decimal
from operator import itemgetter
from typing import Any, Final, NamedTuple

from alpacli.sim.answers import Json, decimal_text, identifier, timestamp
from alpacli.sim.desk import Market
from alpacli.sim.order_answers import write_order
from alpacli.sim.state import ORDER_COLUMNS, exact

KEPT: Final = 10_000
"""How many events an account keeps; nobody lags that far behind."""

_SWEEP_EVERY: Final = 64


class Event(NamedTuple):
    """One row: its place, and ``data`` of the message as JSON text."""

    seq: int
    data: str


class Told:
    """An event, with the order and its legs as they were then. It is written out when somebody asks for it.

    ``now_ns`` is when it was told, for what an order shows of the moment. ``came_to`` has price, quantity and position after
    an execution.
    """

    __slots__ = ("at_ns", "came_to", "event", "legs", "now_ns", "order")

    def __init__(
        self,
        event: str,
        at_ns: int,
        order: Mapping[str, Any],  # Any: ``book.Order``
        legs: Sequence[Mapping[str, Any]],
        now_ns: int,
        came_to: "Mapping[str, Json | Decimal] | None" = None,
    ) -> None:
        self.event = event
        self.at_ns = at_ns
        self.order = order
        self.legs = legs
        self.now_ns = now_ns
        self.came_to = came_to

    def packed(self) -> bytes:
        """Return the event as it is stored."""
        import msgspec  # 10 ms, which a command that causes no event does not pay

        orders = [_values(order) for order in (self.order, *self.legs)]
        came_to = self.came_to and {
            name: decimal_text(value) if isinstance(value, Decimal) else value for name, value in self.came_to.items()
        }
        return msgspec.json.encode((self.event, self.at_ns, self.now_ns, came_to, orders))


_values: Final = itemgetter(*ORDER_COLUMNS)


def _written(account: int, account_id: str, market: Market, packed: str) -> str:
    """Return ``data`` of the message of a stored event."""
    import msgspec

    event, at_ns, now_ns, came_to, orders = msgspec.json.decode(packed)
    order, *legs = (exact(dict(zip(ORDER_COLUMNS, values, strict=True))) for values in orders)
    if came_to is None:
        execution, came_to = identifier("event", account_id, order["id"], event, at_ns), {}
    else:
        execution = execution_id(account, order["id"], order["filled_qty"])
    data = {
        "event": event,
        "execution_id": execution,
        "timestamp": timestamp(at_ns),
        **came_to,
        "order": write_order(market, now_ns, order, legs),
    }
    return msgspec.json.encode(data).decode()


def execution_id(account: int, order_id: str, filled_qty: Decimal) -> str:
    """Return the name of the execution after which so much of an order was filled."""
    return identifier("execution", account, order_id, filled_qty.normalize())


def record(db: sqlite3.Connection, account: int, told: Sequence[bytes]) -> None:
    """Keep events as they are packed."""
    for data in told:
        seq = db.execute("INSERT INTO events (account, data) VALUES (?, ?)", (account, data.decode())).lastrowid
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


def after(db: sqlite3.Connection, market: Market, account: int, seq: int) -> list[Event] | None:
    """Return the account's events after number ``seq``, oldest first; ``None`` when a reset took the account away."""
    rows = db.execute("SELECT seq, data FROM events WHERE account = ? AND seq > ? ORDER BY seq", (account, seq))
    found = rows.fetchall()
    own = db.execute("SELECT id FROM accounts WHERE number = ?", (account,)).fetchone()
    if own is None:
        return None
    return [Event(row["seq"], _written(account, own["id"], market, row["data"])) for row in found]
