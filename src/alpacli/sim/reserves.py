"""What open orders keep back: shares of a position, and money.

Exits that exclude each other count once, as do an order and the replacement that is on its way to it. What a bracket's entry
has bought so far is kept for its exits, so that they never sell more than there is. Only orders that open or enlarge a
position need money; they count at the price at which they were accepted: their limit, else their stop, else the market's,
and shorts at 3 % above the offer at least (wire reference 5.7).
"""

import sqlite3
from collections.abc import Collection, Iterator, Mapping
from decimal import Decimal
from typing import Final, NamedTuple

from alpacli.sim.desk import Desk
from alpacli.sim.ledger import ZERO, initial_rate
from alpacli.sim.listing import LISTINGS
from alpacli.sim.terms import opening

WORKING: Final = [
    *("new", "partially_filled", "accepted", "pending_new", "accepted_for_bidding", "pending_cancel"),
    *("pending_replace", "stopped", "suspended", "calculated"),
]
"""Open statuses; ``held`` is open too, but such a leg waits for its parent or its sibling."""

_COLUMNS: Final = (
    "id, parent_id, replaces, status, symbol, side, qty, notional, filled_qty, filled_value, limit_price, stop_price,"
    " active_ns"
)
_SHORT_COLLAR: Final = Decimal("1.03")


class Reserved(NamedTuple):
    """What open orders would need if they filled: initial margin, and the whole amount. Not rounded."""

    margin: Decimal
    value: Decimal


def held_for_orders(desk: Desk, symbol: str, side: str, *, but: Collection[str] = ()) -> Decimal:
    """Return how many units open orders on one side of a symbol still want, without those named in ``but``."""
    wanted: dict[str, Decimal] = {}
    for row in _open_orders(desk, "symbol = ? AND side = ?", symbol, side):
        if row["id"] in but:
            continue
        group = _group(row)
        wanted[group] = max(wanted.get(group, ZERO), _still_wanted(desk, row))
    return sum(wanted.values(), ZERO)


def reserved(desk: Desk, quantities: Mapping[str, Decimal], *, but: Collection[str] = ()) -> Reserved:
    """Return what open orders need that open or enlarge a position, without those named in ``but``."""
    wanted: dict[str, tuple[Decimal, Decimal]] = {}
    for row in _open_orders(desk, "status != 'held'"):
        symbol, held = row["symbol"], quantities.get(row["symbol"], ZERO)
        if row["id"] in but or (held and (held > 0) == (row["side"] == "sell")):
            continue
        if row["notional"] is not None:
            value = Decimal(row["notional"]) - Decimal(row["filled_value"])
        else:
            price = unit_cost(desk, symbol, row["side"], row["limit_price"], row["stop_price"])
            value = (Decimal(row["qty"]) - Decimal(row["filled_qty"])) * price
        group = _group(row)
        wanted[group] = max(wanted.get(group, (ZERO, ZERO)), (value, value * initial_rate(symbol)))
    return Reserved(sum((margin for _, margin in wanted.values()), ZERO), sum((v for v, _ in wanted.values()), ZERO))


def unit_cost(desk: Desk, symbol: str, side: str, limit: Decimal | str | None, stop: Decimal | str | None) -> Decimal:
    """Return what one unit of an order that opens a position counts for."""
    listing, tape = LISTINGS[symbol], desk.market.tape
    named = limit if limit is not None else stop
    if side == "buy" and named is not None:
        return Decimal(named)
    is_open = opening(desk.market.hours, listing, desk.now_ns, extended=False) == desk.now_ns
    market = tape.quote(symbol, desk.now_ns).ask if is_open else tape.last(symbol, desk.now_ns)
    if side == "buy":
        return market
    return max(Decimal(named or 0), market * _SHORT_COLLAR)


def _open_orders(desk: Desk, condition: str, *values: str) -> Iterator[sqlite3.Row]:
    marks = ", ".join("?" * len(WORKING))
    yield from desk.db.execute(
        f"SELECT {_COLUMNS} FROM orders WHERE account = ? AND status IN ({marks}, 'held') AND {condition} ORDER BY seq",
        (desk.account.number, *WORKING, *values),
    ).fetchall()


def _group(row: sqlite3.Row) -> str:
    on_its_way = row["replaces"] if row["status"] == "pending_new" else None
    return str(row["parent_id"] or on_its_way or row["id"])


def _still_wanted(desk: Desk, row: sqlite3.Row) -> Decimal:
    if row["qty"] is None:
        rest = Decimal(row["notional"]) - Decimal(row["filled_value"])
        return (rest / desk.market.tape.quote(row["symbol"], desk.now_ns).bid).quantize(Decimal("1e-9"))
    wanted = Decimal(row["qty"]) - Decimal(row["filled_qty"])
    if row["status"] != "held" or row["active_ns"] is not None:
        return wanted
    parent = desk.db.execute(
        "SELECT filled_qty, status FROM orders WHERE account = ? AND id = ?", (desk.account.number, row["parent_id"])
    ).fetchone()
    bought = Decimal(parent["filled_qty"]) if parent is not None and parent["status"] in WORKING else ZERO
    return min(bought, wanted)
