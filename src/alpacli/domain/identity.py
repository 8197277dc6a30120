"""Whether an order that the broker shows is the one that was sent, and not another one under the same client order ID.

Alpaca answers in its own spelling: other digits (``1`` for ``1.00``), a coin without its slash, a symbol for an asset's id,
defaults for what was left away, nothing where several legs have no symbol. So only what was said is compared, and by what it
means. What a broker may change by itself is no difference: a buy stop becomes a stop-limit, a trailing stop moves, exits are
replaced one by one.
"""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final
from urllib.parse import unquote

from alpacli.domain.orders import Order
from alpacli.domain.symbols import bare, is_asset_id, spelled
from alpacli.domain.values import exact, plain

_PRICES: Final = ("limit_price", "stop_price", "trail_price", "trail_percent")
_QTY_STEP: Final = Decimal("1e-9")
_CENT: Final = Decimal("0.01")
_SEVERAL: Final = "several legs"


def difference(method: str, path: str, body: Mapping[str, Any], order: Order) -> str | None:
    """Return in words how an order differs from what a request asked for, ``None`` where it is what was asked for.

    ``body`` is that of POST /v2/orders or of PATCH /v2/orders/{order_id}; what it does not say may be anything.
    """
    found = _replaced(path, body, order) if method == "PATCH" else _placed(body, order)
    return next((words for words in found), None)


def told(order: Order) -> str:
    """Return an order in a few words, for whoever did not expect to find it: ``buy 10 AAPL at 5, filled, of 2026-01-05…``."""
    amount = f"{plain(order.notional)} USD of" if order.notional is not None else plain(order.qty or Decimal(0))
    what = " ".join(filter(None, (order.side, amount, order.symbol or f"of {_SEVERAL}")))
    price = "" if order.limit_price is None else f" at {plain(order.limit_price)}"
    some = order.filled_qty and order.status != "filled"
    filled = f", {plain(order.filled_qty)} filled" if some and order.filled_qty else ""
    return f"{what}{price}, {order.status}{filled}, of {order.created_at.wire}"


def _placed(body: Mapping[str, Any], order: Order) -> Iterator[str]:
    order_class = _word(body.get("order_class")) or ("" if _exits(body) else "simple")
    if order_class and order_class != (order.order_class or "simple"):
        yield _other("class", order.order_class or "simple", order_class)
    if order.replaces:
        yield f"it replaces {order.replaces}"
    symbol = body.get("symbol")
    if symbol and not _is_named(str(symbol), order):
        yield _other("symbol", order.symbol or _SEVERAL, str(symbol))
    yield from _words("side", order.side, body.get("side"))
    if not _is_stop_that_buys(body, order):
        yield from _words("type", order.type or order.order_type, body.get("type"))
    yield from _words("time_in_force", order.time_in_force, body.get("time_in_force"))
    if order.position_intent:
        yield from _words("position_intent", order.position_intent, body.get("position_intent"))
    for name, step in (("qty", _QTY_STEP), ("notional", _CENT)):
        yield from _amounts(name, getattr(order, name), body.get(name), step)
    for name in _PRICES:
        yield from _amounts(name, getattr(order, name), body.get(name), _QTY_STEP)
    extended = body.get("extended_hours")
    if isinstance(extended, bool) and extended != order.extended_hours:
        yield _other("extended_hours", str(order.extended_hours).lower(), str(extended).lower())
    if order_class == "oco":
        profit = body.get("take_profit")
        limit = profit.get("limit_price") if isinstance(profit, Mapping) else None
        yield from _amounts("limit_price", order.limit_price, limit, _QTY_STEP)
    yield from _exits_differ(order_class, body, order)
    yield from _legs_differ(body, order)


def _replaced(path: str, body: Mapping[str, Any], order: Order) -> Iterator[str]:
    old = unquote(path.rpartition("/")[2])
    if _bare(order.replaces or "") != _bare(old):
        yield f"it replaces {order.replaces or 'no order'}, not {old}"
    yield from _words("time_in_force", order.time_in_force, body.get("time_in_force"))
    yield from _amounts("qty", order.qty, body.get("qty"), _QTY_STEP)
    for name in ("limit_price", "stop_price"):
        yield from _amounts(name, getattr(order, name), body.get(name), _QTY_STEP)
    trail = order.trail_price if order.trail_price is not None else order.trail_percent
    yield from _amounts("trail", trail, body.get("trail"), _QTY_STEP)


def _words(name: str, found: str | None, sent: Any) -> Iterator[str]:
    wanted = _word(sent)
    if wanted and wanted != found:
        yield _other(name, found or "none", wanted)


def _is_stop_that_buys(body: Mapping[str, Any], order: Order) -> bool:
    """Tell whether Alpaca made a stop-limit of a stop, as it does of those that buy."""
    return order.side == "buy" and (_word(body.get("type")), order.type) == ("stop", "stop_limit")


def _amounts(name: str, found: Decimal | None, sent: Any, step: Decimal) -> Iterator[str]:
    """Tell amounts apart that are a step or more from each other: Alpaca keeps so many digits of what it was sent."""
    wanted = _number(sent)
    if wanted is not None and (found is None or abs(found - wanted) >= step):
        yield _other(name, "none" if found is None else plain(found), plain(wanted))


def _exits(body: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return [(name, item) for name in ("take_profit", "stop_loss") if isinstance(item := body.get(name), Mapping)]


def _exits_differ(order_class: str, body: Mapping[str, Any], order: Order) -> Iterator[str]:
    """Compare the exits as they were made; an order whose exits were replaced is judged by the rest."""
    wanted = [(name, item) for name, item in _exits(body) if (order_class, name) != ("oco", "take_profit")]
    legs = order.legs or ()
    if len(legs) != len(wanted) or any(leg.replaces for leg in legs):
        return
    for name, item in wanted:
        of_its_kind = [leg for leg in legs if (leg.stop_price is not None) == (name == "stop_loss")]
        for price in ("limit_price", "stop_price"):
            for leg in of_its_kind:
                yield from _amounts(f"{name}.{price}", getattr(leg, price), item.get(price), _QTY_STEP)


def _legs_differ(body: Mapping[str, Any], order: Order) -> Iterator[str]:
    sent = body.get("legs")
    if not isinstance(sent, Sequence) or isinstance(sent, str) or not order.legs:
        return
    wanted = {spelled(str(leg.get("symbol"))): leg for leg in sent if isinstance(leg, Mapping)}
    found = {leg.symbol or "": leg for leg in order.legs}
    if wanted.keys() != found.keys():
        yield f"its legs are {' '.join(sorted(found))}, not {' '.join(sorted(wanted))}"
        return
    for symbol, leg in wanted.items():
        other = found[symbol]
        yield from _words(f"side of {symbol}", other.side, leg.get("side"))
        if other.position_intent:
            yield from _words(f"position_intent of {symbol}", other.position_intent, leg.get("position_intent"))
        if other.ratio_qty is not None:
            yield from _amounts(f"ratio_qty of {symbol}", other.ratio_qty, leg.get("ratio_qty"), _QTY_STEP)


def _is_named(symbol: str, order: Order) -> bool:
    """Tell whether a symbol names what is traded; it may be the id of the asset."""
    name = spelled(symbol)
    if is_asset_id(name):
        return _bare(name) == _bare(order.asset_id or "")
    return bare(name) == bare(order.symbol or "")


def _bare(order_id: str) -> str:
    return order_id.replace("-", "").lower()


def _word(value: Any) -> str:
    return "" if value is None else str(value).strip().lower()


def _number(value: Any) -> Decimal | None:
    try:
        return exact(value)
    except ValueError:
        return None


def _other(name: str, found: str, wanted: str) -> str:
    return f"its {name} is {found}, not {wanted}"
