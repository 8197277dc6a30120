"""Orders as they are kept, listed and written on the wire.

An order is stored with every field that Alpaca's has; fills update it through ``fill_order``. Lists follow the wire: sorted
by submission, and by order of arrival where submissions coincide. A ``held`` leg waits for its parent or its sibling: it is
not in the flat list of open orders (as at Alpaca), only in its parent's ``legs``. With ``nested`` a parent is listed when it
or one of its legs matches, and the limit counts parents. An order of several option legs has neither symbol nor side; its
legs are told of with it and share its status, each with its own contract and fills.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from functools import lru_cache
from typing import Any, Final, NamedTuple

from alpacli.sim import events
from alpacli.sim.answers import (
    Json,
    bad_parameter,
    canonical_identifier,
    decimal_text,
    identifier,
    not_found,
    optional_decimal,
    optional_timestamp,
    timestamp,
)
from alpacli.sim.contracts import root_of
from alpacli.sim.desk import Desk
from alpacli.sim.ledger import ZERO, Fill, book
from alpacli.sim.listing import LISTINGS, find
from alpacli.sim.option_prices import expires_ns
from alpacli.sim.reserves import WORKING
from alpacli.sim.state import ORDER_COLUMNS
from alpacli.sim.terms import stop_rule, water_mark

OPEN: Final = [*WORKING, "held"]
CLOSED: Final = ["filled", "canceled", "expired", "replaced", "rejected", "done_for_day"]
MAX_LIMIT: Final = 500

_STATUS_FILTERS: Final = {
    "open": WORKING,
    "closed": CLOSED,
    "all": OPEN + CLOSED,
}
# What the legs of an order of several always have in common with it.
_SHARED: Final = ("status", "filled_ns", "expired_ns", "canceled_ns", "failed_ns", "replaced_ns")
# Fills tell of themselves, and a leg that is held is nobody's news until it works.
_EVENTS: Final = frozenset(OPEN + CLOSED) - {"partially_filled", "filled", "held", "accepted_for_bidding"}


class NewOrder(NamedTuple):
    """An order as it enters the book; prices and quantities are exact, instants in nanoseconds.

    The market leaves an order alone that has neither ``active_ns``, from when on prices are looked at for it, nor
    ``arrives_ns``, when the request on its way takes effect. ``pieces`` counts its executions so far.
    """

    symbol: str
    side: str
    order_type: str
    time_in_force: str
    submitted_ns: int
    qty: Decimal | None = None
    notional: Decimal | None = None
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    trail_percent: Decimal | None = None
    trail_price: Decimal | None = None
    hwm: Decimal | None = None
    order_class: str = "simple"
    position_intent: str | None = None
    extended_hours: bool = False
    client_order_id: str | None = None
    parent_id: str | None = None
    leg_index: int = 0
    status: str = "new"
    expires_ns: int | None = None
    replaces: str | None = None
    active_ns: int | None = None
    arrives_ns: int | None = None
    triggered_ns: int | None = None
    pieces: int = 0
    ratio_qty: Decimal | None = None


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


def enter(desk: Desk, order: NewOrder) -> str:
    """Put an order on the book and return its id. Legs are entered after the order that they belong to."""
    number = desk.account.number
    count = desk.db.execute("SELECT orders_made FROM accounts WHERE number = ?", (number,)).fetchone()[0]
    desk.db.execute("UPDATE accounts SET orders_made = ? WHERE number = ?", (count + 1, number))
    order_id = identifier("order", desk.account.id, count)
    values: dict[str, object] = {
        "id": order_id,
        "client_order_id": order.client_order_id or identifier("client order", desk.account.id, count),
        "created_ns": order.submitted_ns,
        "updated_ns": order.submitted_ns,
        "filled_qty": "0",
        "filled_value": "0",
    }
    for name, value in order._asdict().items():
        if name != "client_order_id":
            values[name] = format(value, "f") if isinstance(value, Decimal) else value
    desk.db.execute(_insertion(tuple(values)), (number, *values.values()))
    if desk.tells and order.parent_id is not None:
        parent = order_answer(desk, order_row(desk, order.parent_id), nested=True)
        events.add_legs(desk.db, number, order.parent_id, parent["legs"])
    if order.status in _EVENTS and order.ratio_qty is None:
        tell(desk, order_id, order.status, order.submitted_ns)
    return order_id


def fill_order(
    desk: Desk, order_id: str, qty: Decimal, price: Decimal, at_ns: int, *, done: bool | None = None
) -> None:
    """Execute part or all of an order: the ledger books it, the order counts it.

    ``done`` says whether this was the last piece, which an order for an amount of money does not tell by itself. A request
    that is on its way to the order stays on its way.
    """
    row = order_row(desk, order_id)
    filled, value = Decimal(row["filled_qty"]) + qty, Decimal(row["filled_value"]) + qty * price
    ordered = filled if row["qty"] is None else Decimal(row["qty"])
    leaves = ordered - filled
    if leaves < 0:
        raise AssertionError(f"order {order_id} is for {ordered}, not {filled}")
    done = not leaves if done is None else done
    status = "filled" if done else "partially_filled"
    booked = book(
        desk.db,
        desk.account.number,
        Fill(order_id, row["symbol"], row["side"], qty, price, at_ns, filled, leaves, status, _ends_ns(desk, row)),
    )
    amend(
        desk,
        order_id,
        at_ns,
        status=row["status"] if not done and row["status"] in ("pending_cancel", "pending_replace") else status,
        filled_qty=format(filled, "f"),
        filled_value=format(value, "f"),
        filled_ns=at_ns if done else None,
    )
    tell(
        desk,
        order_id,
        "fill" if done else "partial_fill",
        at_ns,
        booked.execution_id,
        {
            "price": decimal_text(price),
            "qty": decimal_text(qty),
            "position_qty": decimal_text(booked.position_qty),
        },
    )


def fill_package(
    desk: Desk, order_id: str, qty: Decimal, prices: Mapping[str, Decimal], at_ns: int, *, done: bool
) -> None:
    """Execute so many packages of an order of several legs at once; ``prices`` are its legs', by symbol.

    One event tells of it, with what each leg came to.
    """
    row = order_row(desk, order_id)
    filled = Decimal(row["filled_qty"]) + qty
    status = "filled" if done else "partially_filled"
    net = ZERO
    positions: dict[str, Json] = {}
    told: list[Json] = []
    for leg in legs_of(desk, order_id):
        ratio, price = Decimal(leg["ratio_qty"]), prices[leg["symbol"]]
        units, all_units = ratio * qty, ratio * filled
        leaves, ends_ns = Decimal(leg["qty"]) - all_units, _ends_ns(desk, leg)
        execution = Fill(leg["id"], leg["symbol"], leg["side"], units, price, at_ns, all_units, leaves, status, ends_ns)
        booked = book(desk.db, desk.account.number, execution)
        value = Decimal(leg["filled_value"]) + units * price
        note(desk, leg["id"], filled_qty=format(all_units, "f"), filled_value=format(value, "f"))
        net += ratio * price * (1 if leg["side"] == "buy" else -1)
        positions[leg["symbol"]] = decimal_text(booked.position_qty)
        told.append(
            {
                "order_id": leg["id"],
                "symbol": leg["symbol"],
                "qty": decimal_text(units),
                "price": decimal_text(price),
                "execution_id": booked.execution_id,
                "timestamp": timestamp(at_ns),
            }
        )
    amend(
        desk,
        order_id,
        at_ns,
        status=row["status"] if not done and row["status"] in ("pending_cancel", "pending_replace") else status,
        filled_qty=format(filled, "f"),
        filled_value=format(Decimal(row["filled_value"]) + qty * net, "f"),
        filled_ns=at_ns if done else None,
    )
    execution_id = identifier("execution", desk.account.number, order_id, filled.normalize())
    came_to: dict[str, Json] = {
        "price": decimal_text(net),
        "qty": decimal_text(qty),
        "position_qtys": positions,
        "legs": told,
    }
    tell(desk, order_id, "fill" if done else "partial_fill", at_ns, execution_id, came_to)


def _ends_ns(desk: Desk, row: sqlite3.Row) -> int | None:
    """Return when a position in what is ordered ends by itself."""
    contract = LISTINGS[row["symbol"]].contract
    return None if contract is None else expires_ns(desk.market.hours, contract)


def amend(desk: Desk, order_id: str, at_ns: int, **changes: str | int | None) -> None:
    """Change columns of an order and move its ``updated_at``. A new status is an event, unless it comes from a fill.

    Where an order is replaced, the old one is amended before the new one is entered: that is the order of their events.
    """
    row = order_row(desk, order_id)
    before = row["status"]
    note(desk, order_id, updated_ns=at_ns, **changes)
    after = changes.get("status", before)
    if row["order_class"] == "mleg":
        shared = {name: value for name, value in changes.items() if name in _SHARED}
        for leg in legs_of(desk, order_id):
            note(desk, leg["id"], updated_ns=at_ns, **shared)
    if after != before and after in _EVENTS:
        tell(desk, order_id, str(after), at_ns)


def note(desk: Desk, order_id: str, **columns: str | int | None) -> None:
    """Change columns of an order that are the exchange's own business: no event, and ``updated_at`` stays."""
    desk.db.execute(_change(tuple(columns)), (*columns.values(), desk.account.number, order_id))
    known = desk.rows.get(order_id)
    if known is not None:
        desk.rows[order_id] = {**known, **columns}


@lru_cache(maxsize=256)
def _insertion(names: tuple[str, ...]) -> str:
    return f"INSERT INTO orders (account, {', '.join(names)}) VALUES (?{', ?' * len(names)})"


@lru_cache(maxsize=256)
def _change(names: tuple[str, ...]) -> str:
    unknown = set(names) - set(ORDER_COLUMNS)
    if unknown:
        raise AssertionError(f"orders have no {sorted(unknown)}")
    return f"UPDATE orders SET {', '.join(f'{name} = ?' for name in names)} WHERE account = ? AND id = ?"


def order_row(desk: Desk, order_id: str) -> Any:  # Any: as in Desk.rows
    """Return an order as it is now; what changes later does not change what was returned."""
    known = desk.rows.get(order_id)
    if known is None:
        known = desk.rows[order_id] = dict(_row(desk, "id", order_id))
    return known


def legs_of(desk: Desk, order_id: str) -> list[sqlite3.Row]:
    return desk.db.execute(
        "SELECT * FROM orders WHERE account = ? AND parent_id = ? ORDER BY leg_index, seq",
        (desk.account.number, order_id),
    ).fetchall()


def tell(
    desk: Desk,
    order_id: str,
    event: str,
    at_ns: int,
    execution_id: str | None = None,
    fill: Mapping[str, Json] | None = None,
) -> None:
    """Record an event with the order as it is now, for whoever listens to the trading stream."""
    if not desk.tells:
        return
    order = order_answer(desk, order_row(desk, order_id), nested=True)
    number = desk.account.number
    if execution_id is None:
        execution_id = identifier("event", desk.account.id, order_id, event, at_ns)
    events.record(desk.db, number, event, order, at_ns, execution_id=execution_id, fill=fill)


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
        demand(f"status IN ({marks})", *statuses)
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
    return [order_answer(desk, row, nested=query.nested) for row in rows]


def one_order(desk: Desk, order_id: str, *, nested: bool) -> dict[str, Json]:
    canonical = canonical_identifier(order_id)
    if canonical is None:
        raise bad_parameter(f"invalid order id {order_id}")
    return order_answer(desk, _row(desk, "id", canonical, order_id), nested=nested)


def order_by_client_id(desk: Desk, client_order_id: str) -> dict[str, Json]:
    return order_answer(desk, _row(desk, "client_order_id", client_order_id), nested=True)


def order_answer(desk: Desk, row: sqlite3.Row, *, nested: bool) -> dict[str, Json]:
    """Return the order as Alpaca writes it; its legs inside when ``nested`` and there are any, else ``legs`` is null."""
    legs: list[Json] | None = None
    if nested and row["parent_id"] is None and row["order_class"] not in ("", "simple"):
        legs = [order_answer(desk, leg, nested=False) for leg in legs_of(desk, row["id"])] or None
    listing = LISTINGS[row["symbol"]]
    several, leg_of_several = row["symbol"] == "", row["ratio_qty"] is not None
    hwm, stop = row["hwm"], row["stop_price"]
    if hwm is not None and row["triggered_ns"] is None and row["status"] in OPEN:
        mark = water_mark(desk.market, row, desk.now_ns)
        hwm, stop = format(mark, "f"), format(stop_rule(row)(mark), "f")
    return {
        "id": row["id"],
        "client_order_id": row["client_order_id"],
        "created_at": timestamp(row["created_ns"]),
        "updated_at": timestamp(row["updated_ns"]),
        "submitted_at": timestamp(row["submitted_ns"]),
        "filled_at": optional_timestamp(row["filled_ns"]),
        "expired_at": optional_timestamp(row["expired_ns"]),
        "expires_at": optional_timestamp(row["expires_ns"]),
        "canceled_at": optional_timestamp(row["canceled_ns"]),
        "failed_at": optional_timestamp(row["failed_ns"]),
        "replaced_at": optional_timestamp(row["replaced_ns"]),
        "replaced_by": row["replaced_by"],
        "replaces": row["replaces"],
        "asset_id": "" if several else listing.asset_id,
        "symbol": row["symbol"],
        "asset_class": "" if several else listing.asset_class,
        "notional": optional_decimal(row["notional"]),
        "qty": optional_decimal(row["qty"]),
        "filled_qty": optional_decimal(row["filled_qty"]),
        "filled_avg_price": _average(row),
        "order_class": row["order_class"],
        "order_type": "" if leg_of_several else row["order_type"],
        "type": "" if leg_of_several else row["order_type"],
        "side": row["side"],
        "position_intent": "" if several else row["position_intent"] or f"{row['side']}_to_open",
        "time_in_force": row["time_in_force"],
        "limit_price": optional_decimal(row["limit_price"]),
        "stop_price": optional_decimal(stop),
        "status": row["status"],
        "extended_hours": bool(row["extended_hours"]),
        "legs": legs,
        "trail_percent": optional_decimal(row["trail_percent"]),
        "trail_price": optional_decimal(row["trail_price"]),
        "hwm": optional_decimal(hwm),
        "ratio_qty": optional_decimal(row["ratio_qty"]),
        "subtag": None,
        "source": None,
    }


def _average(row: sqlite3.Row) -> str | None:
    """Return the volume-weighted price of the fills so far, with at most nine decimals."""
    if Decimal(row["filled_qty"]) == 0:
        return None
    with localcontext(prec=60, rounding=ROUND_HALF_EVEN):
        average = (Decimal(row["filled_value"]) / Decimal(row["filled_qty"])).quantize(Decimal("1e-9"))
    return optional_decimal(format(average, "f"))


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


def _row(desk: Desk, column: str, value: str, shown: str | None = None) -> sqlite3.Row:
    row: sqlite3.Row | None = desk.db.execute(
        f"SELECT * FROM orders WHERE account = ? AND {column} = ?", (desk.account.number, value)
    ).fetchone()
    if row is None:
        raise not_found(f"order not found for {shown or value}")
    return row
