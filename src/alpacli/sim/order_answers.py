"""Orders as they are written on the wire."""

from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any, Final

from alpacli.sim.answers import Json, decimal_text, timestamp
from alpacli.sim.desk import Market
from alpacli.sim.listing import LISTINGS
from alpacli.sim.state import OPEN
from alpacli.sim.terms import stop_rule, water_mark

Order = Mapping[str, Any]  # Any: as ``book.Order``

_EXACT: Final = Context(prec=60, rounding=ROUND_HALF_EVEN)
_STEP: Final = Decimal("1e-9")


def write_order(market: Market, now_ns: int, row: Order, legs: Sequence[Order] = ()) -> dict[str, Json]:
    """Return the order as Alpaca writes it; ``legs`` is null when none are given."""
    symbol, filled_qty = row["symbol"], row["filled_qty"]
    listing = LISTINGS[symbol]
    several, leg_of_several = symbol == "", row["ratio_qty"] is not None
    hwm, stop = row["hwm"], row["stop_price"]
    order_type = "" if leg_of_several else row["order_type"]
    if hwm is not None and row["triggered_ns"] is None and row["status"] in OPEN:
        mark = water_mark(market, row, now_ns)
        hwm, stop = mark, stop_rule(row)(mark)
    return {
        "id": row["id"],
        "client_order_id": row["client_order_id"],
        "created_at": timestamp(row["created_ns"]),
        "updated_at": timestamp(row["updated_ns"]),
        "submitted_at": timestamp(row["submitted_ns"]),
        "filled_at": _at(row["filled_ns"]),
        "expired_at": _at(row["expired_ns"]),
        "expires_at": _at(row["expires_ns"]),
        "canceled_at": _at(row["canceled_ns"]),
        "failed_at": _at(row["failed_ns"]),
        "replaced_at": _at(row["replaced_ns"]),
        "replaced_by": row["replaced_by"],
        "replaces": row["replaces"],
        "asset_id": "" if several else listing.asset_id,
        "symbol": symbol,
        "asset_class": "" if several else listing.asset_class,
        "notional": _text(row["notional"]),
        "qty": _text(row["qty"]),
        "filled_qty": decimal_text(filled_qty) if filled_qty else "0",
        "filled_avg_price": _average(row["filled_value"], filled_qty) if filled_qty else None,
        "order_class": row["order_class"],
        "order_type": order_type,
        "type": order_type,
        "side": row["side"],
        "position_intent": "" if several else row["position_intent"] or f"{row['side']}_to_open",
        "time_in_force": row["time_in_force"],
        "limit_price": _text(row["limit_price"]),
        "stop_price": _text(stop),
        "status": row["status"],
        "extended_hours": bool(row["extended_hours"]),
        "legs": [write_order(market, now_ns, leg) for leg in legs] if legs else None,
        "trail_percent": _text(row["trail_percent"]),
        "trail_price": _text(row["trail_price"]),
        "hwm": _text(hwm),
        "ratio_qty": _text(row["ratio_qty"]),
        "subtag": None,
        "source": None,
    }


def _text(value: Decimal | None) -> str | None:
    return None if value is None else decimal_text(value)


def _at(at_ns: int | None) -> str | None:
    return None if at_ns is None else timestamp(at_ns)


def _average(value: Decimal, qty: Decimal) -> str:
    """Return the volume-weighted price of the fills so far, with at most nine decimals."""
    return decimal_text(_EXACT.divide(value, qty).quantize(_STEP, None, _EXACT))
