"""The tables of the history: what was earned, how well it went, what was held."""

from collections.abc import Sequence
from datetime import datetime, time
from decimal import Decimal

from rich.console import Group, RenderableType
from rich.text import Text

from alpacli.domain.account import HistoryPoint
from alpacli.history.archive import NEW_YORK
from alpacli.history.earnings import ClosedLot, Earnings, EarningsRow, HeldPosition
from alpacli.history.records import SnapshotLine
from alpacli.history.returns import EquityDay, Stats
from alpacli.history.sync import Report
from alpacli.render.charts import curve
from alpacli.render.grid import Cell, Column, facts, grid, listing, number, page
from alpacli.render.text import (
    GAIN,
    LOSS,
    NOTHING,
    Frame,
    ago,
    apart,
    counted,
    difference,
    moment,
    money,
    percent,
    price,
    quantity,
    signed,
    words,
)


def sync(value: Report, frame: Frame) -> RenderableType:
    pairs: list[tuple[str, Cell]] = [
        ("Orders", f"{value.orders:,}, new or changed {value.orders_changed:,}"),
        ("Activities", f"{value.activities:,}, new or changed {value.activities_changed:,}"),
        ("Days of Alpaca's equity", f"{value.days:,}"),
        ("Requests", f"{value.requests:,}"),
    ]
    if value.unresolved:
        pairs.append(("Do not add up", Text(f"{len(value.unresolved)} orders", style="bold red")))
    return page(facts(pairs), frame)


def snapshots(value: Sequence[SnapshotLine], frame: Frame) -> RenderableType:
    return listing(
        value,
        [
            (Column("At"), lambda line: moment(line.at, frame, dated=True)),
            (number("Equity"), lambda line: money(line.equity)),
            (number("Cash"), lambda line: money(line.cash)),
            (number("Long", 2), lambda line: money(line.long_market_value)),
            (number("Short", 2), lambda line: money(line.short_market_value)),
        ],
        frame,
        empty="No snapshot in this time.",
    )


def earnings(value: Earnings, frame: Frame) -> RenderableType:
    """Rows with a total, and below how far it agrees with the account."""
    columns = [
        *(Column(_label(value)), number("Realized"), number("Unrealized", 1), number("Dividends", 3)),
        *(number("Interest", 5), number("Fees", 4), number("Other", 6), number("Total"), number("Trades", 2)),
    ]
    rows = [_earned(_name(row), row) for row in value.rows]
    table = grid(columns, rows, frame, totals=_earned("Total", value.total) if value.rows != (value.total,) else None)
    return page(Group(table, *_reconciled(value, frame)), frame)


def _label(value: Earnings) -> str:
    first = value.rows[0] if value.rows else value.total
    return "Day" if first.day else "Month" if first.month else "Symbol" if first.symbol is not None else ""


def _name(row: EarningsRow) -> Text:
    return words(row.day or row.month or row.symbol)


def _earned(name: str | Text, row: EarningsRow) -> list[Cell]:
    amounts = (row.realized, row.unrealized, row.dividends, row.interest, row.fees, row.other, row.total)
    return [name, *(signed(amount) for amount in amounts), str(row.trades)]


def _reconciled(value: Earnings, frame: Frame) -> list[RenderableType]:
    agreed = value.reconciliation
    if agreed is None:
        return [Text("No snapshot to compare with: alpacli history sync takes one.", style="dim")]
    pairs: list[tuple[str, Cell]] = [
        ("Until", moment(agreed.at, frame, dated=True)),
        (
            "The account says",
            f"{money(agreed.expected)}  (cash and positions less transfers of {money(agreed.transfers)})",
        ),
        ("Difference", difference(agreed.difference)),
    ]
    if agreed.portfolio_difference is not None:
        pairs.append(("To Alpaca's portfolio history", difference(agreed.portfolio_difference)))
    for row in agreed.positions:
        text = f"fills tell {quantity(row.computed)}, the account {quantity(row.recorded)}"
        pairs.append((row.symbol, Text(text, style="bold red")))
    return [Text(), facts(pairs)]


def stats(value: Stats, frame: Frame) -> RenderableType:
    fall = percent(value.max_drawdown_ratio)
    if value.drawdown_from:
        back = f"back on {value.drawdown_recovered}" if value.drawdown_recovered else "not back yet"
        fall.append(f"  {value.drawdown_from} to {value.drawdown_to}, {back}", style="dim")
    held = NOTHING if value.holding_time_s is None else ago(float(value.holding_time_s))
    pairs: list[tuple[str, Cell]] = [
        ("Period", f"{value.first_day} to {value.last_day}, {counted(value.days, 'return')}"),
        ("Equity", Text(money(value.equity), style="bold")),
        ("Gain", signed(value.gain)),
        ("Return", percent(value.return_ratio)),
        ("CAGR", percent(value.cagr_ratio)),
        ("Volatility a year", _plain_percent(value.volatility_ratio)),
        ("Sharpe", _two(value.sharpe)),
        ("Sortino", _two(value.sortino)),
        ("Days of a year", f"{value.days_a_year}"),
        ("Max drawdown", fall),
        ("Win rate", f"{_plain_percent(value.win_rate_ratio)} of {value.trades:,} closed trades"),
        ("Profit factor", _two(value.profit_factor)),
        ("Holding time", held),
        ("Exposure", _plain_percent(value.exposure_ratio)),
        ("Turnover", _plain_percent(value.turnover_ratio)),
        ("Days from own snapshots", f"{value.days_from_snapshots:,} (of {value.snapshots:,} snapshots)"),
    ]
    agreed = value.reconciliation
    if agreed.days:
        most = apart(agreed.largest_difference or Decimal(0))
        at_most = f"at most {most} on {agreed.on}, {counted(agreed.days, 'day')} compared"
        pairs.append(("To Alpaca's portfolio history", at_most))
    else:
        pairs.append(("To Alpaca's portfolio history", "no day has a close of both"))
    return page(facts(pairs), frame)


def _plain_percent(value: Decimal | None) -> str:
    return NOTHING if value is None else f"{value * 100:,.2f}%"


def _two(value: Decimal | None) -> str:
    return NOTHING if value is None else f"{value:,.2f}"


def equity(value: Sequence[EquityDay], frame: Frame) -> RenderableType:
    """Draw the curve over its first and last numbers."""
    if not value:
        return page(Text("No equity in this time: alpacli history sync brings Alpaca's in."), frame)
    points = [
        HistoryPoint(datetime.combine(datetime.fromisoformat(d.day), time(16), NEW_YORK), d.equity, None, None)
        for d in value
    ]
    amounts = [day.equity for day in value]
    gain = amounts[-1] - amounts[0] - sum((day.transfers for day in value[1:]), Decimal(0))
    drawn = curve(points, amounts, frame)
    drawn.stylize(GAIN if gain >= 0 else LOSS)
    own = sum(day.source.startswith("snapshot") for day in value)
    pairs: list[tuple[str, Cell]] = [
        ("From", f"{value[0].day}  {money(amounts[0])}"),
        ("To", f"{value[-1].day}  {money(amounts[-1])}"),
        ("Gain", signed(gain)),
        ("Days", f"{len(value):,}, {own:,} from own snapshots, {len(value) - own:,} from Alpaca's portfolio history"),
    ]
    return page(Group(drawn, facts(pairs)), frame)


def positions(value: Sequence[HeldPosition], frame: Frame) -> RenderableType:
    return listing(
        value,
        [
            (Column("Symbol"), lambda p: words(p.symbol)),
            (number("Qty"), lambda p: quantity(p.qty)),
            (number("Avg entry", 1), lambda p: price(p.avg_entry_price)),
            (number("Cost basis", 2), lambda p: money(p.cost_basis)),
            (number("Lots", 4), lambda p: str(p.lots)),
            (Column("Opened", 3), lambda p: moment(p.opened_at, frame, dated=True)),
        ],
        frame,
        empty="Nothing was held.",
    )


def closed(value: Sequence[ClosedLot], frame: Frame) -> RenderableType:
    return listing(
        value,
        [
            (Column("Closed"), lambda lot: moment(lot.closed_at, frame, dated=True)),
            (Column("Symbol"), lambda lot: words(lot.symbol)),
            (number("Qty"), lambda lot: quantity(lot.qty)),
            (number("Cost", 3), lambda lot: money(lot.cost_basis)),
            (number("Proceeds", 2), lambda lot: money(lot.proceeds)),
            (number("Realized"), lambda lot: signed(lot.realized)),
            (Column("Held", 4), lambda lot: ago(float(lot.holding_time_s))),
        ],
        frame,
        empty="Nothing was closed in this time.",
    )
