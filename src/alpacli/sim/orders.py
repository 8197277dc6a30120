"""Orders as they are kept, listed and written on the wire.

An order is stored with every field that Alpaca's has; fills update it through ``fill_order``. Lists follow the wire: sorted
by submission, and by order of arrival where submissions coincide. A ``held`` leg waits for its parent or its sibling: it is
not in the flat list of open orders (as at Alpaca), only in its parent's ``legs``. With ``nested`` a parent is listed when it
or one of its legs matches, and the limit counts parents. An order of several option legs has neither symbol nor side; its
legs are told of with it and share its status, each with its own contract and fills.
"""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, NamedTuple

from alpacli.sim.answers import (
    Json,
    bad_parameter,
    canonical_identifier,
    decimal_text,
    identifier_of,
    not_found,
    timestamp,
)
from alpacli.sim.book import Order, as_order, as_orders
from alpacli.sim.contracts import root_of
from alpacli.sim.desk import Desk, Market
from alpacli.sim.events import Told, execution_id
from alpacli.sim.ledger import ZERO, book_fill
from alpacli.sim.listing import LISTINGS, find
from alpacli.sim.option_prices import expires_ns
from alpacli.sim.order_answers import write_order
from alpacli.sim.state import IS_OPEN, OPEN, ORDER_COLUMNS, WORKING

CLOSED: Final = ["filled", "canceled", "expired", "replaced", "rejected", "done_for_day"]
MAX_LIMIT: Final = 500

_STATUS_FILTERS: Final = {
    "open": WORKING,
    "closed": CLOSED,
    "all": (*WORKING, "held", *CLOSED),
}
# What the legs of an order of several always have in common with it.
_SHARED: Final = ("status", "filled_ns", "expired_ns", "canceled_ns", "failed_ns", "replaced_ns")
# Fills tell of themselves, and a leg that is held is nobody's news until it works.
_EVENTS: Final = OPEN.union(CLOSED) - {"partially_filled", "filled", "held", "accepted_for_bidding"}


def new_order(
    symbol: str,
    side: str,
    order_type: str,
    time_in_force: str,
    submitted_ns: int,
    qty: Decimal | None = None,
    *,
    notional: Decimal | None = None,
    limit_price: Decimal | None = None,
    stop_price: Decimal | None = None,
    trail_percent: Decimal | None = None,
    trail_price: Decimal | None = None,
    hwm: Decimal | None = None,
    order_class: str = "simple",
    position_intent: str | None = None,
    extended_hours: bool = False,
    client_order_id: str | None = None,
    parent_id: str | None = None,
    leg_index: int = 0,
    status: str = "new",
    expires_ns: int | None = None,
    replaces: str | None = None,
    active_ns: int | None = None,
    arrives_ns: int | None = None,
    ratio_qty: Decimal | None = None,
) -> Order:
    """Return an order as it is to enter the book; prices and quantities are exact, instants in nanoseconds.

    The market leaves an order alone that has neither ``active_ns``, from when on prices are looked at for it, nor
    ``arrives_ns``, when the request on its way takes effect.
    """
    order = _BLANK.copy()
    order["symbol"] = symbol
    order["side"] = side
    order["order_type"] = order_type
    order["time_in_force"] = time_in_force
    order["submitted_ns"] = order["created_ns"] = order["updated_ns"] = submitted_ns
    order["qty"] = qty
    order["notional"] = notional
    order["limit_price"] = limit_price
    order["stop_price"] = stop_price
    order["trail_percent"] = trail_percent
    order["trail_price"] = trail_price
    order["hwm"] = hwm
    order["order_class"] = order_class
    order["position_intent"] = position_intent
    order["extended_hours"] = extended_hours
    order["client_order_id"] = client_order_id
    order["parent_id"] = parent_id
    order["leg_index"] = leg_index
    order["status"] = status
    order["expires_ns"] = expires_ns
    order["replaces"] = replaces
    order["active_ns"] = active_ns
    order["arrives_ns"] = arrives_ns
    order["ratio_qty"] = ratio_qty
    return order


_BLANK: Final[dict[str, Any]] = {
    **dict.fromkeys(ORDER_COLUMNS),
    "filled_qty": ZERO,
    "filled_value": ZERO,
    "pieces": 0,
}


Column = str | int | Decimal | None
"""What stands in a column of an order."""

AT_REST: Final[Mapping[str, None]] = {"next_ns": None, "next_step": None, "arrives_ns": None}
"""What an order's columns say when nothing happens to it any more."""


class Query(NamedTuple):
    """The parameters of ``GET /v2/orders``; instants and cursors are exclusive."""

    status: str = "open"
    limit: int = 50
    after_ns: int | None = None
    until_ns: int | None = None
    ascending: bool = False
    nested: bool = False
    symbols: Sequence[str] = ()
    side: str | None = None
    asset_classes: Sequence[str] = ()
    before_order_id: str | None = None
    after_order_id: str | None = None


def enter(desk: Desk, order: Order, legs: Iterable[Order] = ()) -> str:
    """Put an order on the book, and with it the legs that belong to it, and return its id."""
    entered = _enter(desk, order)
    order_id = str(entered["id"])
    for number, leg in enumerate(legs):
        _enter(desk, {**leg, "parent_id": order_id, "leg_index": number})
    if order["status"] in _EVENTS and order["ratio_qty"] is None:
        tell(desk, entered, order["status"], order["submitted_ns"])
    return order_id


def _enter(desk: Desk, order: Order) -> Order:
    account_id, count = desk.account.id, desk.book.number_order()
    entered = dict(order)
    entered["id"] = identifier_of(f"order\x1f{account_id}\x1f{count}")
    if entered["client_order_id"] is None:
        entered["client_order_id"] = identifier_of(f"client order\x1f{account_id}\x1f{count}")
    desk.book.enter(entered)
    return entered


def fill_order(
    desk: Desk, order_id: str, qty: Decimal, price: Decimal, at_ns: int, *, done: bool | None = None
) -> None:
    """Execute part or all of an order: the ledger books it, the order counts it.

    ``done`` says whether this was the last piece, which an order for an amount of money does not tell by itself. A request
    that is on its way to the order stays on its way.
    """
    row = order_row(desk, order_id)
    filled, value = row["filled_qty"] + qty, row["filled_value"] + qty * price
    ordered = filled if row["qty"] is None else row["qty"]
    leaves = ordered - filled
    if leaves < 0:
        raise AssertionError(f"order {order_id} is for {ordered}, not {filled}")
    done = not leaves if done is None else done
    status = "filled" if done else "partially_filled"
    position_qty = book_fill(desk.book, row, status, qty, price, filled, leaves, at_ns, _ends_ns(desk, row))
    changes: dict[str, Column] = {"status": status, "filled_qty": filled, "filled_value": value}
    if done:
        changes |= {"filled_ns": at_ns, **AT_REST}
    elif row["status"] in ("pending_cancel", "pending_replace"):
        changes["status"] = row["status"]
    after = change(desk, order_id, at_ns, changes)
    came_to = {"price": price, "qty": qty, "position_qty": position_qty}
    tell(desk, after, "fill" if done else "partial_fill", at_ns, came_to)


def fill_package(
    desk: Desk, order_id: str, qty: Decimal, prices: Mapping[str, Decimal], at_ns: int, *, done: bool
) -> None:
    """Execute so many packages of an order of several legs at once; ``prices`` are its legs', by symbol.

    One event tells of it, with what each leg came to.
    """
    row = order_row(desk, order_id)
    filled = row["filled_qty"] + qty
    status = "filled" if done else "partially_filled"
    net = ZERO
    positions: dict[str, Json] = {}
    told: list[Json] = []
    for leg in legs_of(desk, order_id):
        ratio, price = leg["ratio_qty"], prices[leg["symbol"]]
        units, all_units = ratio * qty, ratio * filled
        leaves, ends_ns = leg["qty"] - all_units, _ends_ns(desk, leg)
        position_qty = book_fill(desk.book, leg, status, units, price, all_units, leaves, at_ns, ends_ns)
        note(desk, leg["id"], filled_qty=all_units, filled_value=leg["filled_value"] + units * price)
        net += ratio * price * (1 if leg["side"] == "buy" else -1)
        positions[leg["symbol"]] = decimal_text(position_qty)
        told.append(
            {
                "order_id": leg["id"],
                "symbol": leg["symbol"],
                "qty": decimal_text(units),
                "price": decimal_text(price),
                "execution_id": execution_id(desk.account.number, leg["id"], all_units),
                "timestamp": timestamp(at_ns),
            }
        )
    changes: dict[str, Column] = {
        "status": status,
        "filled_qty": filled,
        "filled_value": row["filled_value"] + qty * net,
    }
    if done:
        changes |= {"filled_ns": at_ns, **AT_REST}
    elif row["status"] in ("pending_cancel", "pending_replace"):
        changes["status"] = row["status"]
    after = change(desk, order_id, at_ns, changes)
    came_to: dict[str, Json | Decimal] = {"price": net, "qty": qty, "position_qtys": positions, "legs": told}
    tell(desk, after, "fill" if done else "partial_fill", at_ns, came_to)


def _ends_ns(desk: Desk, row: Order) -> int | None:
    """Return when a position in what is ordered ends by itself."""
    contract = LISTINGS[row["symbol"]].contract
    return None if contract is None else expires_ns(desk.market.hours, contract)


def amend(desk: Desk, order_id: str, at_ns: int, **changes: Column) -> Order:
    """Change columns as ``change`` does, named one by one."""
    return change(desk, order_id, at_ns, changes)


def change(desk: Desk, order_id: str, at_ns: int, changes: dict[str, Column]) -> Order:
    """Change columns of an order, move its ``updated_at``, and return it.

    A new status is an event, unless it comes from a fill. Where an order is replaced, the old one is amended before the new
    one is entered: that is the order of their events.
    """
    before = order_row(desk, order_id)
    changes["updated_ns"] = at_ns
    after = desk.book.change(order_id, changes)
    if before["order_class"] == "mleg":
        shared = {name: value for name, value in changes.items() if name in _SHARED}
        for leg in legs_of(desk, order_id):
            note(desk, leg["id"], updated_ns=at_ns, **shared)
    status = after["status"]
    if status != before["status"] and status in _EVENTS:
        tell(desk, after, status, at_ns)
    return after


def note(desk: Desk, order_id: str, **columns: Column) -> None:
    """Change columns of an order that are the exchange's own business: no event, and ``updated_at`` stays."""
    desk.book.change(order_id, columns)


def order_row(desk: Desk, order_id: str) -> Order:
    """Return an order as it is now; what changes later does not change what was returned."""
    found = desk.book.order(order_id)
    if found is None:
        raise not_found(f"order not found for {order_id}")
    return found


def legs_of(desk: Desk, order_id: str) -> list[Order]:
    return desk.book.legs_of(order_id)


def tell(
    desk: Desk, order: Order, event: str, at_ns: int, came_to: "Mapping[str, Json | Decimal] | None" = None
) -> None:
    """Record an event with the order as it is, for whoever listens to the trading stream."""
    if desk.tells:
        desk.book.tell(Told(event, at_ns, order, _shown_legs(desk, order), desk.now_ns, came_to))


class Snapshot:
    """An order and its legs as they were at one moment, ``now_ns``, for whoever writes it out."""

    __slots__ = ("legs", "now_ns", "order")

    def __init__(self, order: Order, legs: Sequence[Order], now_ns: int) -> None:
        self.order = order
        self.legs = legs
        self.now_ns = now_ns

    def written(self, market: Market) -> dict[str, Json]:
        """Return the order as Alpaca writes it, with its legs inside; ``legs`` is null where there are none."""
        return write_order(market, self.now_ns, self.order, self.legs)


def snapshot(desk: Desk, order_id: str) -> Snapshot:
    order = order_row(desk, order_id)
    return Snapshot(order, _shown_legs(desk, order), desk.now_ns)


def order_answer(desk: Desk, order: Order, *, nested: bool) -> dict[str, Json]:
    """Return the order as Alpaca writes it; its legs inside when ``nested`` and there are any, else ``legs`` is null."""
    return write_order(desk.market, desk.now_ns, order, _shown_legs(desk, order) if nested else ())


def _shown_legs(desk: Desk, order: Order) -> Sequence[Order]:
    return (
        () if order["parent_id"] is not None or order["order_class"] in ("", "simple") else legs_of(desk, order["id"])
    )


def list_orders(desk: Desk, query: Query) -> list[Json]:
    """Return the orders that match, in order of submission (newest first unless ascending)."""
    where, values = ["account = ?"], [desk.account.number]
    arguments: list[object] = list(values)

    def demand(condition: str, *given: object) -> None:
        where.append(condition)
        arguments.extend(given)

    statuses = _STATUS_FILTERS[query.status]
    marks = ", ".join("?" * len(statuses))
    if query.nested:
        demand("parent_id IS NULL")
        demand(
            f"(status IN ({marks}) OR EXISTS (SELECT 1 FROM orders AS leg WHERE leg.account = orders.account"
            f" AND leg.parent_id = orders.id AND leg.status IN ({marks})))",
            *statuses,
            *statuses,
        )
    else:
        known = f"{IS_OPEN} AND " if query.status == "open" else ""
        demand(f"{known}status IN ({marks})", *statuses)
    if query.after_ns is not None:
        demand("submitted_ns > ?", query.after_ns)
    if query.until_ns is not None:
        demand("submitted_ns < ?", query.until_ns)
    for cursor, comparison in ((query.before_order_id, "<"), (query.after_order_id, ">")):
        if cursor is not None:
            row = _row(desk, "id", cursor)
            demand(f"(submitted_ns, seq) {comparison} (?, ?)", row["submitted_ns"], row["seq"])
    if query.side is not None:
        demand("side = ?", query.side)
    if query.symbols:
        rule, names = _about(desk, query)
        leg = "SELECT 1 FROM orders AS leg WHERE leg.account = orders.account AND leg.parent_id = orders.id"
        demand(f"({rule} OR symbol = '' AND EXISTS ({leg} AND {rule.replace('symbol', 'leg.symbol')}))", *names, *names)
    if query.asset_classes:
        demand(f"({' OR '.join(_CLASS_RULES.get(name, '0') for name in query.asset_classes)})")
    direction = "ASC" if query.ascending else "DESC"
    rows = desk.db.execute(
        f"SELECT * FROM orders WHERE {' AND '.join(where)} ORDER BY submitted_ns {direction}, seq {direction} LIMIT ?",
        (*arguments, query.limit),
    ).fetchall()
    return [order_answer(desk, order, nested=query.nested) for order in as_orders(rows)]


def one_order(desk: Desk, order_id: str, *, nested: bool) -> dict[str, Json]:
    return order_answer(desk, named_order(desk, order_id), nested=nested)


def named_order(desk: Desk, order_id: str) -> Order:
    """Return the order that a client calls so."""
    canonical = canonical_identifier(order_id)
    if canonical is None:
        raise bad_parameter(f"invalid order id {order_id}")
    found = desk.book.order(canonical)
    if found is None:
        raise not_found(f"order not found for {order_id}")
    return found


def order_by_client_id(desk: Desk, client_order_id: str) -> dict[str, Json]:
    return order_answer(desk, as_order(_row(desk, "client_order_id", client_order_id)), nested=True)


_CLASS_RULES: Final = {
    "us_equity": "length(symbol) BETWEEN 1 AND 15 AND symbol NOT LIKE '%/%'",
    "crypto": "symbol LIKE '%/%'",
    "us_option": "length(symbol) > 15 OR symbol = ''",
}


def _about(desk: Desk, query: Query) -> tuple[str, list[str]]:
    """Return the condition that an order is about one of the symbols; of options a stock's name means all on it."""
    names: list[str] = []
    for name in query.symbols:
        listing = find(name, desk.market.listings)
        names.append(listing.symbol if listing else name)
    rule = f"symbol IN ({', '.join('?' * len(names))})"
    if "us_option" in query.asset_classes:
        roots = [f"{root_of(name)}{'[0-9]' * 6}[CP]{'[0-9]' * 8}" for name in names]
        return f"({rule}{' OR symbol GLOB ?' * len(roots)})", names + roots
    return rule, names


def _row(desk: Desk, column: str, value: str) -> sqlite3.Row:
    row: sqlite3.Row | None = desk.db.execute(
        f"SELECT * FROM orders WHERE account = ? AND {column} = ?", (desk.account.number, value)
    ).fetchone()
    if row is None:
        raise not_found(f"order not found for {value}")
    return row
