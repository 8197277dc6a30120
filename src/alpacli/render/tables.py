"""Every table of the reading commands: a value and a ``Frame`` in, something Rich can print out."""

from collections.abc import Sequence
from decimal import Decimal

from rich.console import Group, RenderableType
from rich.text import Text

from alpacli.domain.account import Account, Activity, Position, Watchlist
from alpacli.domain.market import Asset, CalendarDay, MarketClock
from alpacli.domain.orders import Order
from alpacli.history.lots import multiplier
from alpacli.ports import Breaker, CacheStats, LimitsReport
from alpacli.render.grid import Cell, Column, facts, grid, listing, number, page
from alpacli.render.machine import Tree, cell
from alpacli.render.text import (
    NOTHING,
    Frame,
    ago,
    day,
    moment,
    money,
    percent,
    price,
    quantity,
    signed,
    size,
    words,
)

_WIDE = 60
_STATUS_TONES = {
    "filled": "green",
    "partially_filled": "yellow",
    "canceled": "dim",
    "expired": "dim",
    "replaced": "dim",
    "rejected": "red",
}


def account(value: Account, frame: Frame) -> RenderableType:
    """Equity and the day's gain first; blocks only when there are any."""
    day_pl = signed(value.day_pl)
    pairs: list[tuple[str, Cell]] = [
        ("Account", words(value.account_number)),
        ("Status", _status(value)),
        ("Currency", words(value.currency)),
    ]
    amounts: list[tuple[str, Cell]] = [
        ("Equity", Text(money(value.equity), style="bold")),
        ("Day P&L", day_pl),
        ("Cash", money(value.cash)),
        ("Buying power", money(value.buying_power)),
        ("Long market value", money(value.long_market_value)),
        ("Short market value", money(value.short_market_value)),
        ("Initial margin", money(value.initial_margin)),
        ("Maintenance margin", money(value.maintenance_margin)),
    ]
    widest = max(len(amount) for _, amount in amounts)
    for _, amount in amounts:
        if isinstance(amount, Text):
            amount.pad_left(widest - len(amount))
    pairs += [(name, amount if isinstance(amount, Text) else amount.rjust(widest)) for name, amount in amounts]
    day_pl.append_text(Text.assemble("  ", percent(value.day_pl_ratio)))
    return page(facts([*pairs, ("Multiplier", words(value.multiplier))]), frame)


def _status(value: Account) -> Text:
    flags = {
        "trading blocked": value.trading_blocked,
        "transfers blocked": value.transfers_blocked,
        "account blocked": value.account_blocked,
        "trading suspended by user": value.trade_suspended_by_user,
    }
    text = words(value.status)
    for name in (name for name, on in flags.items() if on):
        text.append(f", {name}", style="bold red")
    return text


def positions(value: Sequence[Position], frame: Frame) -> RenderableType:
    cost = _total([p.cost_basis for p in value], absolute=True)
    gain = _total([p.unrealized_pl for p in value])
    today = _total([p.unrealized_intraday_pl for p in value])
    before = None if today is None else _total([_before(p) for p in value], absolute=True)
    totals: list[Cell] = [
        "Total",
        "",
        "",
        "",
        money(_total([p.market_value for p in value])),
        money(_total([p.cost_basis for p in value])),
        signed(gain),
        percent(_ratio(gain, cost)),
        signed(today),
        percent(_ratio(today, before)),
        "",
    ]
    return listing(
        value,
        [
            (Column("Symbol"), lambda p: words(p.symbol)),
            (number("Qty"), lambda p: quantity(p.qty)),
            (number("Avg entry", 4), lambda p: price(p.avg_entry_price)),
            (number("Price", 1), lambda p: price(p.current_price)),
            (number("Market value"), lambda p: money(p.market_value)),
            (number("Cost basis", 6), lambda p: money(p.cost_basis)),
            (number("Unrealized P&L"), lambda p: signed(p.unrealized_pl)),
            (number("%", 3), lambda p: percent(p.unrealized_plpc)),
            (number("Day P&L", 2), lambda p: signed(p.unrealized_intraday_pl)),
            (number("Day %", 5), lambda p: percent(p.unrealized_intraday_plpc)),
            (Column("Side", 7), lambda p: words(p.side)),
        ],
        frame,
        empty="No open positions.",
        totals=totals,
    )


def _before(position: Position) -> Decimal | None:
    """Return what the position was worth before today's gain."""
    if position.market_value is None or position.unrealized_intraday_pl is None:
        return None
    return position.market_value - position.unrealized_intraday_pl


def _total(values: Sequence[Decimal | None], *, absolute: bool = False) -> Decimal | None:
    """Add up; one unknown part makes the sum unknown, since a partial sum would lie."""
    known = [value for value in values if value is not None]
    if len(known) != len(values):
        return None
    return sum((abs(value) if absolute else value for value in known), Decimal(0))


def _ratio(part: Decimal | None, whole: Decimal | None) -> Decimal | None:
    return None if part is None or not whole else part / whole


def orders(value: Sequence[Order], frame: Frame) -> RenderableType:
    if not value:
        return page(Text("No orders."), frame)
    everything = [order for parent in value for order in (parent, *(parent.legs or ()))]
    has_fill = any(order.filled_avg_price is not None for order in everything)
    columns = [
        Column("Submitted", 2),
        Column("Symbol"),
        Column("Side"),
        number("Qty"),
        Column("Type", 1),
        number("Price"),
        Column("TIF", 7),
        number("Filled", 4),
        number("Avg fill", 3 if has_fill else 9),
        Column("Status"),
        Column("Class", 8),
        Column("ID", 5),
    ]
    rows: list[list[Cell]] = []
    for order in value:
        rows.append(_order_row(order, frame, ""))
        rows.extend(_order_row(leg, frame, "└ ") for leg in order.legs or ())
    return page(grid(columns, rows, frame), frame)


def _order_row(order: Order, frame: Frame, indent: str) -> list[Cell]:
    return [
        moment(order.submitted_at or order.created_at, frame, seconds=frame.width >= 100),
        Text.assemble(indent, words(order.symbol or order.order_class)),
        words(order.side),
        _order_quantity(order),
        words(order.type or order.order_type),
        _order_price(order, frame),
        words(order.time_in_force),
        quantity(order.filled_qty),
        price(order.filled_avg_price),
        _order_status(order),
        words(order.order_class or "simple"),
        words(order.id),
    ]


def _order_quantity(order: Order) -> str:
    return quantity(order.qty) if order.qty is not None else f"${money(order.notional)}" if order.notional else NOTHING


def _order_price(order: Order, frame: Frame) -> str:
    """Write at what price an order trades: its limit, or where it begins to trade and then its limit or what it trails by.

    In one column, because whoever looks at working orders in a narrow terminal needs each one's price, of whatever type.
    """
    stop, limit = order.stop_price, order.limit_price
    if order.trail_percent is not None or order.trail_price is not None:
        by = price(order.trail_price) if order.trail_percent is None else f"{quantity(order.trail_percent)}%"
        return f"stop {price(stop)} trail {by}" if stop is not None and frame.width >= _WIDE else f"trail {by}"
    if stop is None:
        return price(limit)
    return f"stop {price(stop)}" if limit is None else f"{price(stop)} → {price(limit)}"


def _order_status(order: Order) -> Text:
    text = words(order.status)
    text.stylize(_STATUS_TONES.get(order.status, "cyan" if order.is_open else ""))
    return text


def order(value: Order, frame: Frame) -> RenderableType:
    pairs: list[tuple[str, Cell]] = [
        ("Order", words(value.id)),
        ("Client order ID", words(value.client_order_id)),
        ("Status", _order_status(value)),
        ("Symbol", words(value.symbol)),
        ("Side", words(value.side)),
        ("Quantity", _order_quantity(value)),
        ("Type", words(value.type or value.order_type)),
        ("Time in force", words(value.time_in_force)),
        ("Class", words(value.order_class or "simple")),
    ]
    optional: list[tuple[str, Decimal | None]] = [
        ("Limit price", value.limit_price),
        ("Stop price", value.stop_price),
        ("Trail price", value.trail_price),
        ("Trail percent", value.trail_percent),
        ("High-water mark", value.hwm),
    ]
    pairs += [(name, price(amount)) for name, amount in optional if amount is not None]
    pairs += (
        [("Filled", f"{quantity(value.filled_qty)} at {price(value.filled_avg_price)}")] if value.filled_qty else []
    )
    times = ("submitted", "filled", "expires", "expired", "canceled", "failed", "replaced", "updated")
    pairs += [
        (name.capitalize(), moment(at, frame)) for name in times if (at := getattr(value, f"{name}_at")) is not None
    ]
    pairs += [("Replaces", words(value.replaces))] if value.replaces else []
    pairs += [("Replaced by", words(value.replaced_by))] if value.replaced_by else []
    body: RenderableType = facts(pairs)
    if value.legs:
        body = Group(body, Text("Legs", style="bold"), orders(value.legs, frame._replace(sim=False, age_s=None)))
    return page(body, frame)


def clock(value: MarketClock, frame: Frame) -> RenderableType:
    state = Text("open", style="bold green") if value.is_open else Text("closed", style="bold")
    pairs: list[tuple[str, Cell]] = [
        ("Market", state),
        ("Exchange time", moment(value.timestamp, frame)),
        ("Next open", _ahead(value.next_open, value, frame)),
        ("Next close", _ahead(value.next_close, value, frame)),
    ]
    return page(facts(pairs), frame)


def _ahead(at: object, value: MarketClock, frame: Frame) -> str:
    when = value.next_open if at is value.next_open else value.next_close
    seconds = (when - value.timestamp).total_seconds()
    text = moment(when, frame)
    return f"{text}  (in {ago(seconds)})" if seconds > 0 else text


def calendar(value: Sequence[CalendarDay], frame: Frame) -> RenderableType:
    return listing(
        value,
        [
            (Column("Date"), lambda d: day(d.date)),
            (Column("Open"), lambda d: moment(d.opens_at, frame._replace(now=d.opens_at), seconds=False)),
            (Column("Close"), lambda d: moment(d.closes_at, frame._replace(now=d.closes_at), seconds=False)),
            (Column("Note", 1), lambda d: Text("early close", style="yellow") if d.close < "16:00" else ""),
            (Column("Session", 2), _session),
            (Column("Settles", 3), lambda d: words(d.settlement_date)),
        ],
        frame,
        empty="No trading days in this range.",
    )


def _session(value: CalendarDay) -> str:
    if not value.session_open or not value.session_close:
        return NOTHING
    return f"{_hhmm(value.session_open)}–{_hhmm(value.session_close)} ET"


def _hhmm(text: str) -> str:
    return f"{text[:2]}:{text[2:]}" if len(text) == 4 and text.isdecimal() else text


def assets(value: Sequence[Asset], frame: Frame) -> RenderableType:
    return listing(
        value,
        [
            (Column("Symbol"), lambda a: words(a.symbol)),
            (Column("Name", 0, elastic=True), lambda a: words(a.name)),
            (Column("Class", 2), lambda a: words(a.asset_class)),
            (Column("Exchange", 1), lambda a: words(a.exchange)),
            (Column("Status", 3), lambda a: words(a.status)),
            (Column("Tradable", 1), lambda a: _yes(a.tradable)),
            (Column("Fractionable", 4), lambda a: _yes(a.fractionable)),
            (Column("Shortable", 5), lambda a: _yes(a.shortable)),
            (Column("Marginable", 6), lambda a: _yes(a.marginable)),
        ],
        frame,
        empty="No assets.",
    )


def _yes(flag: object) -> Text:
    return Text("yes", style="green") if flag else Text("no", style="dim")


def activities(value: Sequence[Activity], frame: Frame) -> RenderableType:
    fills = all(a.is_fill for a in value)  # their type says nothing, and their amount follows from the rest
    to_the_second = frame.width >= 100
    return listing(
        value,
        [
            (
                Column("Time"),
                lambda a: (
                    moment(a.transaction_time, frame, seconds=to_the_second) if a.transaction_time else words(a.date)
                ),
            ),
            (Column("Type", 3 if fills else 0), lambda a: words(a.activity_type)),
            (Column("Symbol"), lambda a: words(a.symbol)),
            (Column("Side", 1), lambda a: words(a.side)),
            (number("Qty", 1), lambda a: quantity(a.qty)),
            (number("Price", 1 if fills else 2), lambda a: price(a.price)),
            (
                number("Net amount", 4 if fills else 0),
                lambda a: signed(a.net_amount if a.net_amount is not None else _cash_of_fill(a)),
            ),
            (Column("Description", 4, elastic=True), lambda a: words(a.description or a.type)),
            (Column("Order", 5), lambda a: words(a.order_id)),
        ],
        frame,
        empty="No activities.",
    )


def _cash_of_fill(activity: Activity) -> Decimal | None:
    if activity.price is None or activity.qty is None or not activity.side:
        return None
    cost = activity.price * abs(activity.qty) * multiplier(activity.symbol or "")
    return -cost if activity.side.startswith("buy") else cost


def watchlists(value: Sequence[Watchlist], frame: Frame) -> RenderableType:
    return listing(
        value,
        [
            (Column("Name", elastic=True), lambda w: words(w.name)),
            (Column("Created", 2), lambda w: moment(w.created_at, frame)),
            (Column("Updated", 1), lambda w: moment(w.updated_at, frame)),
            (Column("ID"), lambda w: words(w.id)),
        ],
        frame,
        empty="No watchlists.",
    )


def watchlist(value: Watchlist, frame: Frame) -> RenderableType:
    plain = frame._replace(sim=False, age_s=None)
    pairs: list[tuple[str, Cell]] = [
        ("Watchlist", words(value.name)),
        ("ID", words(value.id)),
        ("Updated", moment(value.updated_at, frame)),
    ]
    body = assets(value.assets, plain) if value.assets else Text("It is empty.")
    return page(Group(facts(pairs), Text(), body), frame)


def cache_stats(value: CacheStats, frame: Frame) -> RenderableType:
    asked = value.hits + value.misses
    pairs: list[tuple[str, Cell]] = [
        ("Hit rate", f"{100 * value.hits / asked:.1f}%" if asked else NOTHING),
        ("Hits", f"{value.hits:,}"),
        ("Misses", f"{value.misses:,}"),
        ("Entries", f"{value.entries:,}"),
        ("Size", size(value.bytes)),
        ("Newest", NOTHING if value.newest_age_s is None else f"{ago(value.newest_age_s)} ago"),
        ("Oldest", NOTHING if value.oldest_age_s is None else f"{ago(value.oldest_age_s)} ago"),
    ]
    return page(facts(pairs), frame)


def limits(value: LimitsReport, frame: Frame) -> RenderableType:
    breaker = Text("closed", style="green")
    not_closed = [one for one in value.breakers if one.state != "closed"]
    if not_closed:
        breaker = Text("; ", style="bold red").join(_breaker(one) for one in not_closed)
    others = f"  ({value.foreign:,} by other programs)" if value.foreign else ""
    pairs: list[tuple[str, Cell]] = [
        ("Limit", f"{value.limit:,} requests in {value.window_s:g} s, the last {value.reserve:,} kept for trading"),
        ("Used", f"{value.used:,}{others}"),
        ("Left", Text(f"{value.left:,}", style="bold")),
        ("Utilisation", f"{100 * value.utilisation:.1f}% of the last hour"),
        ("Reset", "a request can go now" if value.reset_s <= 0 else f"in {ago(value.reset_s)}"),
        ("Breaker", breaker),
        ("Waiting", "nobody" if not value.waiting else f"{len(value.waiting)}"),
    ]
    if not value.waiting:
        return page(facts(pairs), frame)
    columns = [Column("Who", elastic=True), number("Since"), Column("Kind", 1)]
    rows: list[list[Cell]] = [
        [words(w.label), ago(w.since_s), "trading" if w.urgent else "reading"] for w in value.waiting
    ]
    return page(Group(facts(pairs), Text(), grid(columns, rows, frame)), frame)


def _breaker(breaker: Breaker) -> Text:
    what = {"trading": "trading", "data": "market data"}[breaker.host]
    text = Text(f"{breaker.state} for {what}", style="bold red")
    if breaker.state == "open":
        text.append(f", next probe in {ago(breaker.retry_in_s)}")
    return text


def plain(tree: Tree, frame: Frame) -> RenderableType:
    """Lay out any JSON as a table: what ``--fields`` shows on a terminal, and answers that have no table of their own."""
    if isinstance(tree, list):
        names = list(dict.fromkeys(name for row in tree for name in row))
        rows: list[list[Cell]] = [[words(cell(row.get(name))) for name in names] for row in tree]
        columns = [Column(name, place, elastic=True) for place, name in enumerate(names)]
        return page(grid(columns, rows, frame) if rows else Text("Nothing."), frame)
    return page(facts([(name, words(cell(item))) for name, item in tree.items()]), frame)
