"""The history as one page of HTML: equity, drawdown, profit and loss by symbol, trades.

Nothing is fetched from anywhere: styles and drawings are in the page, and a policy in its head forbids the rest, scripts
included. Every text goes through ``escape``, a symbol too: what looks like markup is shown as it is written.
"""

from collections.abc import Iterable, Sequence
from datetime import date
from decimal import Decimal
from html import escape
from itertools import accumulate
from typing import Final

from alpacli.history.earnings import ClosedLot, Earnings, EarningsRow
from alpacli.history.returns import EquityDay, Stats
from alpacli.render.curve import Box, lay_out
from alpacli.render.text import NOTHING, apart, counted, difference, money, price, quantity

_MOST_TRADES: Final = 500
_WIDTH, _HEIGHT = 720, 260
_STYLE: Final = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1f2933;--soft:#5b6773;--faint:#e3e8ee;--gain:#16794c;--loss:#b42318}
@media(prefers-color-scheme:dark){:root{--paper:#14181d;--ink:#e6eaee;--soft:#9aa5b1;--faint:#2b333c;--gain:#4cc38a;--loss:#f2796b}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:60rem;padding:1rem;background:var(--paper);color:var(--ink);font:16px/1.45 system-ui,sans-serif}
h1{font-size:1.5rem;margin:.2rem 0}h2{font-size:1.15rem;margin:2rem 0 .5rem}p{color:var(--soft);margin:.3rem 0}
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(9rem,1fr));gap:.6rem;margin:1rem 0}
dl div{border:1px solid var(--faint);border-radius:.5rem;padding:.5rem .7rem}dt{color:var(--soft);font-size:.8rem}
dd{margin:0;font-size:1.1rem;font-variant-numeric:tabular-nums}
svg{width:100%;height:auto;display:block}svg text{fill:var(--soft);font-size:12px}
.level{stroke:var(--faint)}.line{fill:none;stroke-width:2}.area{opacity:.12}
.gain{color:var(--gain)}.loss{color:var(--loss)}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:.35rem .6rem;text-align:right;border-bottom:1px solid var(--faint);white-space:nowrap}
th{color:var(--soft);font-weight:600;font-size:.85rem}th:first-child,td:first-child{text-align:left}
tfoot td{font-weight:600}
"""


def page(
    title: str, made: str, days: Sequence[EquityDay], stats: Stats | None, earned: Earnings, closed: Sequence[ClosedLot]
) -> str:
    """Return the whole page. ``made`` says when; ``closed`` is oldest first, and the page shows the last of them."""
    body = [f"<h1>{escape(title)}</h1><p>{escape(made)}</p>"]
    if stats is not None and days:
        body += [_tiles(stats), "<h2>Equity</h2>", _equity(days), "<h2>Drawdown</h2>", _drawdown(days)]
    else:
        body.append("<p>There is no equity to show yet.</p>")
    body += ["<h2>Profit and loss by symbol</h2>", _by_symbol(earned), _agreement(earned, stats)]
    body += [f"<h2>Trades</h2>{_trades(closed)}"]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _tiles(stats: Stats) -> str:
    fall = f"{stats.drawdown_from} to {stats.drawdown_to}" if stats.drawdown_from else ""
    pairs = [
        ("Equity", money(stats.equity), ""),
        ("Gain", _signed(stats.gain), ""),
        ("Return", _percent(stats.return_ratio), f"{stats.first_day} to {stats.last_day}"),
        ("CAGR", _percent(stats.cagr_ratio), ""),
        ("Volatility", _percent(stats.volatility_ratio), f"a year of {stats.days_a_year} days"),
        ("Sharpe", _number(stats.sharpe), ""),
        ("Sortino", _number(stats.sortino), ""),
        ("Max drawdown", _percent(stats.max_drawdown_ratio), fall),
        ("Win rate", _percent(stats.win_rate_ratio), f"{stats.trades} closed trades"),
        ("Profit factor", _number(stats.profit_factor), ""),
    ]
    tiles = (f"<div><dt>{escape(n)}</dt><dd>{v}</dd><dt>{escape(more)}</dt></div>" for n, v, more in pairs)
    return f"<dl>{''.join(tiles)}</dl>"


def _equity(days: Sequence[EquityDay]) -> str:
    values = [float(day.equity) for day in days]
    return _drawing(days, values, "gain" if values[-1] >= values[0] else "loss", "Equity by day", percent=False)


def _drawdown(days: Sequence[EquityDay]) -> str:
    worth = list(accumulate((1 + float(day.return_ratio or 0) for day in days), lambda grown, step: grown * step))
    tops = accumulate([1.0, *worth], max)
    falls = [value / top - 1 for value, top in zip(worth, list(tops)[1:], strict=True)]
    return _drawing(days, falls, "loss", "Drawdown by day", percent=True)


def _drawing(days: Sequence[EquityDay], values: Sequence[float], tone: str, name: str, *, percent: bool) -> str:
    box = Box(70, 12, _WIDTH - 20, _HEIGHT - 30)
    curve = lay_out([date.fromisoformat(day.day) for day in days], values, box, percent=percent)
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in curve.points)
    edge = box.top if percent else box.bottom
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(name)}" class="{tone}">',
        *(f'<line class="level" x1="{box.left}" x2="{box.right}" y1="{y:.1f}" y2="{y:.1f}"/>' for y, _ in curve.levels),
        *(f'<text x="{box.left - 8}" y="{y + 4:.1f}" text-anchor="end">{escape(t)}</text>' for y, t in curve.levels),
        *(f'<text x="{x:.1f}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(t)}</text>' for x, t in curve.days),
        f'<polygon class="area" fill="currentColor" points="{box.left},{edge} {line} {curve.points[-1][0]:.1f},{edge}"/>',
        f'<polyline class="line" stroke="currentColor" points="{line}"/></svg>',
    ]
    return "".join(parts)


def _by_symbol(earned: Earnings) -> str:
    if not earned.rows:
        return "<p>Nothing was traded yet.</p>"
    head = ("Symbol", "Realized", "Unrealized", "Dividends", "Interest", "Fees", "Other", "Total", "Trades")
    body = [_cells(row.symbol or "(no symbol)", row) for row in earned.rows]
    return _table(head, body, _cells("Total", earned.total))


def _cells(name: str, row: EarningsRow) -> list[str]:
    amounts = (row.realized, row.unrealized, row.dividends, row.interest, row.fees, row.other, row.total)
    return [escape(name), *(_signed(amount) for amount in amounts), str(row.trades)]


def _agreement(earned: Earnings, stats: Stats | None) -> str:
    said = []
    if earned.reconciliation is not None:
        agreed = earned.reconciliation
        said.append(
            f"The account says {money(agreed.expected)} (its cash and positions less transfers of {money(agreed.transfers)});"
            f" computed is {money(agreed.computed)}: a difference of {difference(agreed.difference).plain}."
        )
        said += [
            f"{escape(row.symbol)}: the fills tell {quantity(row.computed)}, the account {quantity(row.recorded)}."
            for row in agreed.positions
        ]
    if stats is not None and stats.reconciliation.days:
        largest = apart(stats.reconciliation.largest_difference or Decimal(0))
        said.append(
            f"On {counted(stats.reconciliation.days, 'day')} with both, own closes and Alpaca's portfolio"
            f" history differ by at most {largest} ({escape(stats.reconciliation.on or '')})."
        )
    return "".join(f"<p>{text}</p>" for text in said)


def _trades(closed: Sequence[ClosedLot]) -> str:
    if not closed:
        return "<p>Nothing was closed yet.</p>"
    shown = closed[-_MOST_TRADES:][::-1]
    head = ("Symbol", "Side", "Qty", "Opened", "Closed", "Cost", "Proceeds", "Realized")
    rows = [
        [
            escape(lot.symbol),
            escape(lot.side),
            quantity(lot.qty),
            f"{lot.opened_at:%Y-%m-%d}",
            f"{lot.closed_at:%Y-%m-%d}",
            money(lot.cost_basis),
            money(lot.proceeds),
            _signed(lot.realized),
        ]
        for lot in shown
    ]
    more = f"<p>The last {len(shown)} of {len(closed)}.</p>" if len(closed) > len(shown) else ""
    return more + _table(head, rows)


def _table(head: Iterable[str], rows: Iterable[Sequence[str]], foot: Sequence[str] = ()) -> str:
    """Return a table of cells that are HTML already."""
    top = "".join(f"<th>{escape(title)}</th>" for title in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    end = f"<tfoot><tr>{''.join(f'<td>{cell}</td>' for cell in foot)}</tr></tfoot>" if foot else ""
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody>{end}</table></div>'


def _signed(value: Decimal | None) -> str:
    if value is None:
        return NOTHING
    shown = round(value, 2)
    tone = "gain" if shown > 0 else "loss" if shown < 0 else ""
    return f'<span class="{tone}">{value:+,.2f}</span>' if tone else money(value)


def _percent(value: Decimal | None) -> str:
    return NOTHING if value is None else f"{value * 100:z,.2f}%"


def _number(value: Decimal | None) -> str:
    return NOTHING if value is None else price(round(value, 2))
