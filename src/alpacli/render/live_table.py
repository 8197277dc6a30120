"""The live table of ``alpacli stream``: rows of the board to lines of a terminal, as many as are visible and no more.

Lines are put together by hand: a Rich table of fifty rows costs more than all ticks between two redraws.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from rich.cells import cell_len
from rich.console import Group
from rich.text import Text

from alpacli.domain.board import Row, Totals
from alpacli.streams.events import Status

SORTS: Final = ("as given", "symbol", "change", "rate", "volume")
_HEADER_LINES: Final = 1
_FOOTER_LINES: Final = 2
_SPARKS: Final = "▁▂▃▄▅▆▇█"
_TREND: Final = "Trend"
_SYMBOL: Final = 9
_LONGEST_SYMBOL: Final = 24
"""An option's symbol has 21 characters and has to be read to its end."""

_LEAST_TREND: Final = 8
_MOST_TREND: Final = 60


class Look(NamedTuple):
    """How the user wants to see it. ``adding`` is the symbol being typed, ``None`` when none is."""

    selected: int = 0
    sort: str = SORTS[0]
    paused: bool = False
    adding: str | None = None


class _Column(NamedTuple):
    title: str
    width: int
    cell: Callable[[Row], tuple[str, str]]
    left: bool = False


def _number(value: float | None) -> str:
    if value is None:
        return ""
    if abs(value) >= 9_999_999.995:
        return _rounded(value)
    if abs(value) >= 1 or value == 0:
        return f"{value:,.2f}"
    if abs(value) < 0.0001:
        return f"{value:.3g}"
    return f"{value:.6f}".rstrip("0").ljust(4, "0")


def _count(value: float | None) -> str:
    if value is None:
        return ""
    if abs(value) >= 1e4:
        return _rounded(value)
    return f"{value:,.0f}" if value == int(value) else f"{value:.3g}"


def _rounded(value: float) -> str:
    """Write five digits and a unit: the next one as soon as rounding gets there, so never 1,000.00k."""
    for scale, unit in ((1e3, "k"), (1e6, "M"), (1e9, "G")):
        if abs(value) / scale < 999.995:
            return f"{value / scale:.2f}{unit}"
    return f"{value / 1e12:.4g}T"


def _tone(value: float | None) -> str:
    return "" if not value else "green" if value > 0 else "red"


def _signed(value: float | None, text: str) -> tuple[str, str]:
    return ("" if value is None else text, _tone(value))


def _side(price: float | None, size: float | None) -> tuple[str, str]:
    return ("" if price is None else f"{_number(price)} × {_count(size)}", "")


def _age(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return (
        f"{seconds:.0f}s" if seconds < 100 else f"{seconds / 60:.0f}m" if seconds < 6000 else f"{seconds / 3600:.0f}h"
    )


_COLUMNS: Final = (
    _Column("Symbol", _SYMBOL, lambda row: (row.symbol, "bold"), left=True),
    _Column("Last", 10, lambda row: (_number(row.last), "")),
    _Column("Change", 9, lambda row: _signed(row.change, f"{row.change or 0:+,.2f}")),
    _Column("%", 8, lambda row: _signed(row.change_ratio, f"{(row.change_ratio or 0) * 100:+.2f}%")),
    _Column("Bid × size", 18, lambda row: _side(row.bid, row.bid_size)),
    _Column("Ask × size", 18, lambda row: _side(row.ask, row.ask_size)),
    _Column("Spread bp", 9, lambda row: ("" if row.spread_bp is None else f"{row.spread_bp:.1f}", "")),
    _Column("Volume", 9, lambda row: (_count(row.volume), "")),
    _Column("VWAP", 10, lambda row: (_number(row.vwap), "")),
    _Column("Msg/s", 7, lambda row: (f"{row.rate:,.0f}" if row.rate >= 10 else f"{row.rate:.1f}", "")),
    _Column("Age", 5, lambda row: (_age(row.age_s), "dim")),
)
_BY_IMPORTANCE: Final = (
    *("Symbol", "Last", "%", "Age", "Bid × size", "Ask × size", "Change", "Spread bp", "Volume", "Msg/s", "VWAP"),
)


def visible_text(text: str) -> str:
    """Return foreign text in a form that a terminal only shows: one line, no control characters."""
    return "".join(letter if letter.isprintable() else "�" for letter in text)


def sort_rows(rows: Sequence[Row], sort: str) -> list[Row]:
    """Return the rows in one of the ``SORTS``; the largest first where it is about a number."""
    if sort == "symbol":
        return sorted(rows, key=lambda row: row.symbol)
    if sort == "change":
        return sorted(rows, key=lambda row: -(row.change_ratio if row.change_ratio is not None else float("-inf")))
    if sort == "rate":
        return sorted(rows, key=lambda row: -row.rate)
    if sort == "volume":
        return sorted(rows, key=lambda row: -(row.volume or 0))
    return list(rows)


def visible_rows(height: int) -> int:
    """Return how many symbols fit on a terminal of this height."""
    return max(height - _HEADER_LINES - _FOOTER_LINES, 1)


def live_table(
    rows: Sequence[Row], totals: Totals, status: Status, look: Look, *, width: int, height: int, ascii_only: bool
) -> Group:
    """Return the whole screen: header, the rows around the selected one, footer; no line is longer than ``width``."""
    columns = _chosen(width, _symbol_width(rows))
    used = sum(column.width for column in columns) + 2 * (len(columns) - 1)
    trend = min(width - used - 2, _MOST_TREND)
    trend = 0 if ascii_only or len(columns) < len(_COLUMNS) or trend < _LEAST_TREND else trend
    room = visible_rows(height)
    first = max(0, min(look.selected - room // 2, len(rows) - room))
    lines = [_header(columns, trend, width)]
    for place, row in enumerate(rows[first : first + room], first):
        line = _line(columns, row, trend, "~" if ascii_only else "…")
        if place == look.selected:
            line.stylize("reverse")
        line.truncate(width)
        lines.append(line)
    if not rows:
        lines.append(Text("no symbols: press a to add one", "dim"))
    lines += [Text()] * (height - _FOOTER_LINES - len(lines))
    lines += [_state(rows, totals, status, look, width), _keys(status, look)]
    for line in lines[-_FOOTER_LINES:]:
        line.truncate(width, overflow="crop" if ascii_only else "ellipsis")
    for line in lines:
        line.no_wrap = True
    return Group(*lines)


def _symbol_width(rows: Sequence[Row]) -> int:
    """Return what the longest symbol needs: of all rows, so that scrolling moves no column."""
    longest = max((len(row.symbol) + (2 if row.halted else 0) for row in rows), default=0)
    return max(_SYMBOL, min(longest, _LONGEST_SYMBOL))


def _chosen(width: int, symbol_width: int) -> list[_Column]:
    left = width
    names: set[str] = set()
    all_columns = [_COLUMNS[0]._replace(width=symbol_width), *_COLUMNS[1:]]
    for name in _BY_IMPORTANCE:
        column = next(column for column in all_columns if column.title == name)
        needed = column.width + (2 if names else 0)
        if needed > left:
            break
        names.add(name)
        left -= needed
    return [column for column in all_columns if column.title in names]


def _header(columns: Sequence[_Column], trend: int, width: int) -> Text:
    titles = [
        column.title.ljust(column.width) if column.left else column.title.rjust(column.width) for column in columns
    ]
    text = Text("  ".join([*titles, _TREND] if trend else titles), "bold underline")
    text.truncate(width)
    return text


def _line(columns: Sequence[_Column], row: Row, trend: int, mark: str) -> Text:
    line = Text()
    for place, column in enumerate(columns):
        text, style = column.cell(row)
        if column.left:
            text = _symbol(visible_text(text), column.width, mark, halted=bool(row.halted))
        elif len(text) > column.width:  # the leading digits without the rest would be another number
            text = mark * column.width
        line.append("  " if place else "")
        line.append(text.ljust(column.width) if column.left else text.rjust(column.width), style)
    if trend:
        line.append("  " + sparkline(row.samples, trend), _tone(row.change))
    return line


def _symbol(text: str, width: int, mark: str, *, halted: bool) -> str:
    """Cut a symbol that is too long in its middle: options of one stock differ at their ends."""
    flag = " H" if halted else ""
    room = width - len(flag)
    if len(text) > room:
        tail = (room - 1) // 2
        text = text[: room - 1 - tail] + mark + text[len(text) - tail :]
    return text + flag


def sparkline(samples: Sequence[float], width: int) -> str:
    """Draw the last ``width`` samples between their lowest and highest."""
    shown = samples[-width:]
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    span = high - low
    return "".join(_SPARKS[int((value - low) / span * 7.999)] if span else _SPARKS[3] for value in shown)


def _state(rows: Sequence[Row], totals: Totals, status: Status, look: Look, width: int) -> Text:
    """Say how the stream does; where the line is too short, what matters least goes (the highest rank first)."""
    latency = totals.p50_ms is not None and totals.p99_ms is not None
    parts = [
        (0, "OFFLINE EXCHANGE" if status.sim else ""),
        (0, status.feed),
        (0, "paused" if look.paused else status.state),
        (6, "shared connection" if status.shared else ""),
        (2, f"{totals.rate:,.0f} msg/s"),
        (3, f"latency {totals.p50_ms:.0f}/{totals.p99_ms:.0f} ms" if latency else ""),
        (1 if status.reconnects else 5, f"{status.reconnects} reconnects"),
        (1 if status.gaps else 4, f"{status.gaps} gaps"),
        (1, f"{status.conflated:,} conflated" if status.conflated else ""),
        (1, f"{totals.unreadable:,} unreadable" if totals.unreadable else ""),
        (1, f"{totals.hidden:,} hidden" if totals.hidden else ""),
        (0, f"{look.selected + 1}/{len(rows)}" if len(rows) > 1 else ""),
    ]
    parts = [part for part in parts if part[1]]
    while cell_len(text := "  ".join(text for _, text in parts)) > width and max(parts)[0]:
        parts.remove(max(parts, key=lambda part: part[0]))
    return Text(text, "reverse" if status.sim else "dim")


def _keys(status: Status, look: Look) -> Text:
    if look.adding is not None:
        return Text(f"add symbol: {look.adding}_   Enter adds, Esc cancels", "bold")
    if status.message:
        return Text(visible_text(status.message), "yellow")
    return Text(
        f"q quit  a add  d remove  arrows select  s sort ({look.sort})  p {'go on' if look.paused else 'pause'}", "dim"
    )
