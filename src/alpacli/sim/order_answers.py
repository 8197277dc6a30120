"""Orders as they are written on the wire."""

from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any, Final

from alpacli.sim.answers import Json, decimal_text, optional_decimal, optional_timestamp, timestamp
from alpacli.sim.desk import Market
from alpacli.sim.listing import LISTINGS
from alpacli.sim.state import OPEN
from alpacli.sim.terms import stop_rule, water_mark

Order = Mapping[str, Any]  # Any: as ``book.Order``

_EXACT: Final = Context(prec=60, rounding=ROUND_HALF_EVEN)
_STEP: Final = Decimal("1e-9")


def write_order(market: Market, now_ns: int, row: Order, legs: Sequence[Order] = ()) -> dict[str, Json]:
    """Return the order as Alpaca writes it; ``legs`` is null when none are given."""
    listing = LISTINGS[row["symbol"]]
    several, leg_of_several = row["symbol"] == "", row["ratio_qty"] is not None
    hwm, stop = row["hwm"], row["stop_price"]
    if hwm is not None and row["triggered_ns"] is None and row["status"] in OPEN:
        mark = water_mark(market, row, now_ns)
        hwm, stop = mark, stop_rule(row)(mark)
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
        "legs": [write_order(market, now_ns, leg) for leg in legs] or None,
        "trail_percent": optional_decimal(row["trail_percent"]),
        "trail_price": optional_decimal(row["trail_price"]),
        "hwm": optional_decimal(hwm),
        "ratio_qty": optional_decimal(row["ratio_qty"]),
        "subtag": None,
        "source": None,
    }


def _average(row: Order) -> str | None:
    """Return the volume-weighted price of the fills so far, with at most nine decimals."""
    if not row["filled_qty"]:
        return None
    return decimal_text(_EXACT.divide(row["filled_value"], row["filled_qty"]).quantize(_STEP, None, _EXACT))
