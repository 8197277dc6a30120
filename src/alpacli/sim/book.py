"""An account as its rules work on it: orders, positions and money as plain objects, read from the state once and kept.

Rules change what is in memory; SQLite hears of it in one go, at the commit, or when somebody asks it something in between
(``db``). An exchange in memory has no commit that anybody could miss, so there SQLite hears of nothing until it is asked.
What is kept is good as long as nobody else has written to the file: ``Exchange`` drops every book then.

An order is a mapping of its columns, with exact numbers as ``Decimal``, and is never changed: a change puts another in its
place. So whoever holds one has the order as it was then, an event needs no copy, and what was done in a transaction can be
undone by putting back what stood there before (``undo``).
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import lru_cache
from heapq import heapify, heappop, heappush
from typing import Any, Final, NamedTuple

from alpacli.sim import events
from alpacli.sim.answers import Refusal
from alpacli.sim.desk import Account
from alpacli.sim.state import EXACT, IS_OPEN, OPEN, ORDER_COLUMNS, exact

Order = Mapping[str, Any]  # Any: a column is text, a whole number, a Decimal or nothing, as ``state`` lists them

_KEPT_CLOSED: Final = 256
_LONGEST_STOCK: Final = 15
_NOTHING: Final = object()
_APPENDED: Final = object()


class Position(NamedTuple):
    """Signed quantity and exact cost, what closing parts of it has earned, and of options when they end.

    ``forgone`` says that its owner does not want it exercised by itself.
    """

    qty: Decimal = Decimal(0)
    cost: Decimal = Decimal(0)
    realized: Decimal = Decimal(0)
    expires_ns: int | None = None
    forgone: bool = False


class Execution:
    """One fill that was booked, as the table of fills has it."""

    __slots__ = (
        *("at_ns", "cash", "cum_qty", "leaves_qty", "order_id", "order_status", "price", "qty", "side", "symbol"),
    )

    def __init__(
        self,
        order_id: str,
        symbol: str,
        side: str,
        qty: Decimal,
        price: Decimal,
        cash: Decimal,
        cum_qty: Decimal,
        leaves_qty: Decimal,
        order_status: str,
        at_ns: int,
    ) -> None:
        self.order_id = order_id
        self.symbol = symbol
        self.side = side
        self.qty = qty
        self.price = price
        self.cash = cash
        self.cum_qty = cum_qty
        self.leaves_qty = leaves_qty
        self.order_status = order_status
        self.at_ns = at_ns


class Serial:
    """The place of the newest order of all accounts in the table of orders."""

    def __init__(self, db: sqlite3.Connection) -> None:
        newest = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'orders'").fetchone()
        self.last: int = newest[0] if newest is not None else 0


class Book:
    """One account in one process. Only used inside a transaction of the state that it was read from."""

    def __init__(self, db: sqlite3.Connection, number: int, serial: Serial) -> None:
        row = db.execute("SELECT * FROM accounts WHERE number = ?", (number,)).fetchone()
        if row is None:  # another process reset the exchange between admission and now
            raise Refusal(401, None, "unauthorized.")
        self.account = Account(
            row["number"], row["id"], row["account_number"], row["created_ns"], json.loads(row["configuration"])
        )
        self.cash = Decimal(row["cash"])
        self.requests, self.window_s, self.window_used = row["requests"], row["window_s"], row["window_used"]
        self.positions: dict[str, Position] = {}
        """By symbol and in order of symbols, closed ones too."""
        self._db = db
        self._made = row["orders_made"]
        self._orders: dict[str, Order] = {}
        self._legs: dict[str, tuple[str, ...]] = {}
        self._open: dict[str, int] = {}
        self._open_in: dict[str, dict[str, int]] = {}
        self._own_ids: dict[str, str] = {}
        self._ends: dict[str, int] = {}
        self._owing: dict[str, bool] = {}
        self._due: list[tuple[int, int, str]] = []
        self._serial = serial
        self._journal: list[tuple[Any, Any, Any]] = []
        # what SQLite has not heard of yet
        self._changed: dict[str, set[str]] = {}
        self._fresh: dict[str, None] = {}
        self._moved: dict[str, None] = {}
        self._fills: list[Execution] = []
        self._told: list[events.Told] = []
        self._counted = False
        self._load()

    # ------------------------------------------------------------------------------------------- reading

    @property
    def db(self) -> sqlite3.Connection:
        """The state's tables, which know of everything now."""
        self.write()
        return self._db

    def order(self, order_id: str) -> Order | None:
        """Return an order as it is now."""
        known = self._orders.get(order_id)
        if known is None:
            row = self._db.execute(
                "SELECT * FROM orders WHERE account = ? AND id = ?", (self.account.number, order_id)
            ).fetchone()
            if row is None:
                return None
            known = self._orders[order_id] = as_order(row)
        return known

    def legs_of(self, order_id: str) -> list[Order]:
        """Return the legs of an order, in their order."""
        ids = self._legs.get(order_id)
        if ids is not None:
            return [self._must(leg_id) for leg_id in ids]
        rows = self._db.execute(
            "SELECT * FROM orders WHERE account = ? AND parent_id = ? ORDER BY leg_index, seq",
            (self.account.number, order_id),
        ).fetchall()
        legs = [self._orders.get(row["id"]) or as_order(row) for row in rows]
        if order_id in self._orders:
            self._legs[order_id] = tuple(leg["id"] for leg in legs)
        return legs

    def open_orders(self) -> list[Order]:
        """Return the orders that are open, held ones too, in the order in which they came."""
        orders = self._orders
        return [orders[order_id] for order_id in self._open]

    def open_in(self, symbol: str) -> list[Order]:
        """Return the open orders of one symbol, in the order in which they came."""
        ids, orders = self._open_in.get(symbol), self._orders
        return [orders[order_id] for order_id in ids] if ids else []

    def open_options(self) -> list[Order]:
        """Return the open orders for options, those of several legs by their legs."""
        return [order for symbol in self._open_in if len(symbol) > _LONGEST_STOCK for order in self.open_in(symbol)]

    @property
    def has_open(self) -> bool:
        """Whether any order is open."""
        return bool(self._open)

    @property
    def has_options(self) -> bool:
        """Whether options are held or on order."""
        return bool(self._ends) or any(len(symbol) > _LONGEST_STOCK for symbol in self._open_in)

    @property
    def owes(self) -> bool:
        """Whether something that is held may cost money: a position that is short, or in options."""
        return bool(self._owing)

    def knows_own_id(self, client_order_id: str) -> bool:
        """Tell whether an order ever had this id of its client's."""
        if client_order_id in self._own_ids:
            return True
        found = self._db.execute(
            "SELECT 1 FROM orders WHERE account = ? AND client_order_id = ?", (self.account.number, client_order_id)
        ).fetchone()
        return found is not None

    def next_due(self) -> Order | None:
        """Return the order to which something happens next."""
        due, orders = self._due, self._orders
        while due:
            at_ns, _, order_id = due[0]
            order = orders.get(order_id)
            if order is not None and order["next_ns"] == at_ns:
                return order
            heappop(due)
        return None

    def next_end(self) -> int | None:
        """Return when the next of the account's options ends."""
        return min(self._ends.values()) if self._ends else None

    def is_due(self, now_ns: int) -> bool:
        """Tell whether something happens to an open order, or to an option, until now."""
        order = self.next_due()
        if order is not None and order["next_ns"] <= now_ns:
            return True
        return bool(self._ends) and min(self._ends.values()) <= now_ns

    # ------------------------------------------------------------------------------------------- changing

    def number_order(self) -> int:
        """Return how many orders the account has made before this one."""
        made: int = self._made
        self._journal.append((self, "_made", made))
        self._made = made + 1
        self._count()
        return made

    def enter(self, order: dict[str, Any]) -> None:
        """Take in a new order with all its columns."""
        order_id, own_id, parent_id = order["id"], order["client_order_id"], order["parent_id"]
        self._serial.last += 1
        seq = order["seq"] = self._serial.last
        self._journal += (
            (self._orders, order_id, _NOTHING),
            (self._own_ids, own_id, _NOTHING),
            (self._fresh, order_id, _NOTHING),
        )
        self._orders[order_id] = order
        self._own_ids[own_id] = order_id
        self._fresh[order_id] = None
        if order["order_class"] not in ("", "simple"):
            self._put(self._legs, order_id, ())
        if order["status"] in OPEN:
            self._journal.append((self._open, order_id, _NOTHING))
            self._shelve(order)
        if order["next_ns"] is not None:
            heappush(self._due, (order["next_ns"], seq, order_id))
        if parent_id is not None:
            self._link(parent_id, order_id)

    def change(self, order_id: str, columns: Mapping[str, Any]) -> Order:
        """Change columns of an order and return it as it is then."""
        before = self._orders.get(order_id) or self._must(order_id)
        after = self._orders[order_id] = {**before, **columns}
        self._journal.append((self._orders, order_id, before))
        if order_id not in self._fresh:
            self._changed.setdefault(order_id, set()).update(columns)
        if "status" in columns and after["status"] not in OPEN and order_id in self._open:
            self._journal.append((self._open, order_id, after["seq"]))
            self._unshelve(after)
        next_ns = columns.get("next_ns")
        if next_ns is not None:
            heappush(self._due, (next_ns, after["seq"], order_id))
        if "parent_id" in columns and before["parent_id"] != after["parent_id"]:
            former = before["parent_id"]
            self._put(self._legs, former, tuple(leg["id"] for leg in self.legs_of(former) if leg["id"] != order_id))
            self._link(after["parent_id"], order_id)
        return after

    def hold(self, symbol: str, position: Position) -> None:
        """Put a position in the place of the one before."""
        known = symbol in self.positions
        self._put(self.positions, symbol, position)
        if not known:
            self._set("positions", dict(sorted(self.positions.items())))
        self._moved[symbol] = None
        if position.expires_ns is not None or symbol in self._ends:
            self._put(self._ends, symbol, _NOTHING if position.expires_ns is None else position.expires_ns)
        if _owes(position) != (symbol in self._owing):
            self._put(self._owing, symbol, True if _owes(position) else _NOTHING)

    def have_cash(self, amount: Decimal) -> None:
        """Let the account have so much cash from now on."""
        self._journal.append((self, "cash", self.cash))
        self.cash = amount
        self._count()

    def book(self, execution: Execution) -> None:
        """Note a fill."""
        self._fills.append(execution)
        self._journal.append((self._fills, _APPENDED, None))

    def tell(self, told: events.Told) -> None:
        """Note an event."""
        self._told.append(told)
        self._journal.append((self._told, _APPENDED, None))

    def count_request(self, window_s: int, used: int) -> None:
        """Count a request, and what is used of the limit of its minute."""
        self._set("requests", self.requests + 1)
        self._set("window_s", window_s)
        self._set("window_used", used)
        self._count()

    def change_account(self, account: Account) -> None:
        """Change what the account's own row says beside its counts and its cash."""
        self._set("account", account)
        self.db.execute(
            "UPDATE accounts SET created_ns = ?, configuration = ? WHERE number = ?",
            (account.created_ns, json.dumps(dict(account.configuration)), account.number),
        )

    # ------------------------------------------------------------------------------------------- transactions

    def begin(self) -> None:
        """Begin anew to note how things stood, and let go of orders that are over."""
        self._journal.clear()
        if len(self._orders) > _KEPT_CLOSED + 2 * len(self._open) + len(self._fresh):
            for order_id, order in list(self._orders.items()):
                if not (
                    order_id in self._open
                    or order_id in self._fresh
                    or order_id in self._changed
                    or order["next_ns"] is not None
                ):
                    del self._orders[order_id]
                    self._legs.pop(order_id, None)
                    self._own_ids.pop(order["client_order_id"], None)

    def mark(self) -> int:
        """Return the place in the transaction to which ``undo`` can go back."""
        return len(self._journal)

    def undo(self, mark: int = 0) -> None:
        """Let everything be as it was at a mark, or at the beginning of the transaction; SQLite is the caller's to undo."""
        journal = self._journal
        if len(journal) == mark:
            return
        while len(journal) > mark:
            where, key, before = journal.pop()
            if key is _APPENDED:
                where.pop()
            elif where is self:
                setattr(self, key, before)
            elif before is _NOTHING:
                del where[key]
            else:
                where[key] = before
        still_open = sorted(self._open, key=self._open.__getitem__)
        self._open, self._open_in = {}, {}
        for order_id in still_open:
            self._shelve(self._orders[order_id])
        self._plan_again()

    def write(self) -> None:
        """Let SQLite hear of everything that it has not heard of."""
        if not self.unwritten:
            return
        db, number = self._db, self.account.number
        if self._fresh:
            rows = [self._must(order_id) for order_id in self._fresh]
            db.executemany(_INSERTION, [(order["seq"], number, *_stored(order, ORDER_COLUMNS)) for order in rows])
        for order_id, names in self._changed.items():
            order = self._orders.get(order_id)
            if order is not None:
                columns = tuple(sorted(names))
                db.execute(_change(columns), (*_stored(order, columns), number, order_id))
        if self._moved:
            moved = [(symbol, self.positions[symbol]) for symbol in self._moved if symbol in self.positions]
            db.executemany(
                "INSERT OR REPLACE INTO holdings (account, symbol, qty, cost, realized, expires_ns, forgone)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    (number, symbol, *map(_plain, held[:3]), held.expires_ns, int(held.forgone))
                    for symbol, held in moved
                ],
            )
        if self._fills:
            db.executemany(
                "INSERT INTO fills (account, order_id, execution_id, symbol, side, qty, price, cash, cum_qty, leaves_qty,"
                " order_status, at_ns) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [self._fill_row(fill) for fill in self._fills],
            )
        if self._told:
            events.record(db, number, [told.packed() for told in self._told])
        if self._counted:
            db.execute(
                "UPDATE accounts SET cash = ?, orders_made = ?, requests = ?, window_s = ?, window_used = ?"
                " WHERE number = ?",
                (_plain(self.cash), self._made, self.requests, self.window_s, self.window_used, number),
            )
        empty: dict[str, Any] = {
            "_fresh": {},
            "_changed": {},
            "_moved": {},
            "_fills": [],
            "_told": [],
            "_counted": False,
        }
        for name, nothing in empty.items():  # what is undone here is undone in SQLite too, and has to be written again
            self._set(name, nothing)

    @property
    def unwritten(self) -> bool:
        """Whether there is something that SQLite has not heard of."""
        return bool(self._fresh or self._changed or self._moved or self._fills or self._told or self._counted)

    # ------------------------------------------------------------------------------------------- inside

    def _load(self) -> None:
        number = self.account.number
        for row in self._db.execute("SELECT * FROM holdings WHERE account = ? ORDER BY symbol", (number,)):
            qty, cost, realized = (Decimal(row[name]) for name in ("qty", "cost", "realized"))
            self.positions[row["symbol"]] = Position(qty, cost, realized, row["expires_ns"], bool(row["forgone"]))
            if row["expires_ns"] is not None:
                self._ends[row["symbol"]] = row["expires_ns"]
            if _owes(self.positions[row["symbol"]]):
                self._owing[row["symbol"]] = True
        for row in self._db.execute(
            f"SELECT * FROM orders WHERE account = ? AND {IS_OPEN} ORDER BY seq", (number,)
        ).fetchall():
            order = self._orders[row["id"]] = as_order(row)
            self._own_ids[order["client_order_id"]] = order["id"]
            self._shelve(order)
        self._plan_again()

    def _shelve(self, order: Order) -> None:
        """Count an order among the open ones."""
        order_id = order["id"]
        self._open[order_id] = order["seq"]
        self._open_in.setdefault(order["symbol"], {})[order_id] = order["seq"]

    def _unshelve(self, order: Order) -> None:
        order_id, symbol = order["id"], order["symbol"]
        del self._open[order_id]
        shelf = self._open_in[symbol]
        del shelf[order_id]
        if not shelf:
            del self._open_in[symbol]

    def _plan_again(self) -> None:
        self._due = [
            (order["next_ns"], order["seq"], order["id"])
            for order in self._orders.values()
            if order["next_ns"] is not None
        ]
        heapify(self._due)

    def _must(self, order_id: str) -> Order:
        order = self.order(order_id)
        if order is None:
            raise AssertionError(f"there is no order {order_id}")
        return order

    def _link(self, parent_id: str, order_id: str) -> None:
        self._must(parent_id)
        legs = [leg for leg in self.legs_of(parent_id) if leg["id"] != order_id] + [self._must(order_id)]
        legs.sort(key=lambda leg: (leg["leg_index"], leg["seq"]))
        self._put(self._legs, parent_id, tuple(leg["id"] for leg in legs))

    def _count(self) -> None:
        if not self._counted:
            self._set("_counted", value=True)

    def _put(self, where: dict[str, Any], key: str, value: object) -> None:
        """Put a value into a mapping, or take it out, and remember what was there."""
        self._journal.append((where, key, where.get(key, _NOTHING)))
        if value is _NOTHING:
            del where[key]
        else:
            where[key] = value

    def _set(self, name: str, value: object) -> None:
        """Put a value into an attribute of the book's own, and remember what was there."""
        self._journal.append((self, name, getattr(self, name)))
        setattr(self, name, value)

    def _fill_row(self, fill: Execution) -> tuple[object, ...]:
        number = self.account.number
        execution_id = events.execution_id(number, fill.order_id, fill.cum_qty)
        exact = map(_plain, (fill.qty, fill.price, fill.cash, fill.cum_qty, fill.leaves_qty))
        return (number, fill.order_id, execution_id, fill.symbol, fill.side, *exact, fill.order_status, fill.at_ns)


def _owes(position: Position) -> bool:
    return position.qty < 0 or position.expires_ns is not None


def as_order(row: sqlite3.Row) -> Order:
    """Return a row of the table of orders with its exact numbers."""
    return exact(dict(row))


def as_orders(rows: Iterable[sqlite3.Row]) -> list[Order]:
    return [as_order(row) for row in rows]


def _stored(order: Order, names: Iterable[str]) -> list[object]:
    return [
        format(value, "f") if name in EXACT and (value := order[name]) is not None else order[name] for name in names
    ]


def _plain(value: Decimal) -> str:
    return format(value, "f")


_INSERTION: Final = (
    f"INSERT INTO orders (seq, account, {', '.join(ORDER_COLUMNS)}) VALUES (?, ?{', ?' * len(ORDER_COLUMNS)})"
)


@lru_cache(maxsize=256)
def _change(names: tuple[str, ...]) -> str:
    unknown = set(names) - set(ORDER_COLUMNS)
    if unknown:
        raise AssertionError(f"orders have no {sorted(unknown)}")
    return f"UPDATE orders SET {', '.join(f'{name} = ?' for name in names)} WHERE account = ? AND id = ?"
