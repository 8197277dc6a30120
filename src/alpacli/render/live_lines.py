"""What happens to one's orders, and news, as a line each for people: streams of events that a table cannot hold."""

from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from typing import Any, Final

import msgspec
from rich.text import Text

from alpacli.domain.ticks import AnyTick, News, TradeUpdate, instant_ns
from alpacli.render.text import GAIN, LOSS, words

_EVENT_WIDTH: Final = 16
_TONES: Final[Mapping[str, str]] = {
    "fill": GAIN,
    "partial_fill": GAIN,
    "rejected": LOSS,
    "canceled": "yellow",
    "expired": "yellow",
    "order_cancel_rejected": LOSS,
    "order_replace_rejected": LOSS,
}


def told(tick: AnyTick, zone: tzinfo | None) -> Text:
    """Return one line about an order update or an article; ``zone`` ``None`` is this machine's."""
    if isinstance(tick, TradeUpdate):
        return _update(tick, zone)
    if isinstance(tick, News):
        return _article(tick, zone)
    return Text.assemble(_time(tick.timestamp, zone), "  ", tick.type, "  ", words(tick.symbol))


def _update(update: TradeUpdate, zone: tzinfo | None) -> Text:
    """Say what happened, what was ordered, and where that stands, as ``fill  AAPL  buy 10 limit 101.50 day  …``."""
    order: dict[str, Any] = msgspec.json.decode(update.order)
    amount = order.get("qty") or f"${order.get('notional') or '?'}"
    ordered = [order.get("side"), amount, order.get("type"), _prices(order), order.get("time_in_force")]
    line = Text.assemble(
        _time(str(update.timestamp or ""), zone),
        "  ",
        (update.event.ljust(_EVENT_WIDTH), _TONES.get(update.event, "")),
        "  ",
        (str(words(update.symbol)), "bold"),
        "  ",
        str(words(" ".join(str(part) for part in ordered if part))),
    )
    if update.price is not None and update.qty is not None:
        line.append(f"  {update.qty} at {update.price}", GAIN)
        line.append(f"  filled {order.get('filled_qty')}" + (f"/{order['qty']}" if order.get("qty") else ""))
    if update.position_qty is not None:
        line.append(f"  position {update.position_qty}")
    line.append(f"  {words(order.get('id'))}", "dim")
    return line


def _prices(order: Mapping[str, Any]) -> str:
    named = (("limit_price", ""), ("stop_price", "stop "), ("trail_price", "trail "))
    parts = [f"{name}{order[field]}" for field, name in named if order.get(field)]
    if order.get("trail_percent"):
        parts.append(f"trail {order['trail_percent']}%")
    return " ".join(parts)


def _article(article: News, zone: tzinfo | None) -> Text:
    line = Text.assemble(_time(article.timestamp, zone), "  ", words(article.headline))
    if article.symbols:
        line.append(f"  {words(' '.join(article.symbols))}", "bold")
    if article.source:
        line.append(f"  {words(article.source)}", "dim")
    if article.url:
        line.append(f"  {words(article.url)}", "dim")
    return line


def _time(timestamp: str, zone: tzinfo | None) -> Text:
    """Write the time of day in a zone and its name; as it came when it is not a time."""
    try:
        seconds = instant_ns(timestamp) / 1e9
    except ValueError:
        return words(timestamp)
    there = datetime.fromtimestamp(seconds, UTC).astimezone(zone)
    return Text(f"{there:%H:%M:%S %Z}", "dim")
