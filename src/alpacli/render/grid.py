"""Which columns a table shows at a width: whole columns go, least important first; a number is never cut or wrapped."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, TypeVar

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from alpacli.render.text import Frame, ago

Cell = str | Text
_Item = TypeVar("_Item")
_GAP = 3
_LEAST_TEXT = 16


class Column(NamedTuple):
    """``keep`` ranks importance: the highest number leaves first, of equals the rightmost.

    ``elastic`` text may shrink, to ``least`` cells and no further while there is room for them.
    """

    title: str
    keep: int = 0
    align: Literal["left", "right"] = "left"
    elastic: bool = False
    least: int = _LEAST_TEXT


def number(title: str, keep: int = 0) -> Column:
    return Column(title, keep, "right")


def grid(
    columns: Sequence[Column], rows: Sequence[Sequence[Cell]], frame: Frame, *, totals: Sequence[Cell] | None = None
) -> Table:
    """Lay rows out in at most ``frame.width`` cells; one cell per column in every row."""
    everything = [*rows, totals] if totals is not None else rows
    widths = [
        max([_cells(column.title), *(_cells(row[place]) for row in everything)]) for place, column in enumerate(columns)
    ]
    shown = _fitting(columns, widths, frame.width)
    given = _stretched(columns, widths, shown, frame.width)
    table = Table(
        box=box.SIMPLE,
        show_edge=False,
        show_footer=totals is not None,
        header_style="bold",
        pad_edge=False,
        padding=(0, 1),
    )
    for place in shown:
        table.add_column(
            Text(columns[place].title),
            justify=columns[place].align,
            no_wrap=True,
            overflow="ellipsis",
            width=given[place],
            footer=_text(totals[place], "bold") if totals is not None else "",
        )
    for row in rows:
        table.add_row(*(_text(row[place]) for place in shown))
    return table


def _fitting(columns: Sequence[Column], widths: Sequence[int], width: int) -> list[int]:
    """Return the places of the columns to show: the most important, then each that fits, elastic ones at their least."""
    shown: list[int] = []
    used = -_GAP
    for place in sorted(range(len(columns)), key=lambda place: (columns[place].keep, place)):
        least = _least(columns[place], widths[place])
        if not shown or used + _GAP + least <= width:
            shown.append(place)
            used += _GAP + least
    return sorted(shown)


def _least(column: Column, width: int) -> int:
    return min(width, column.least) if column.elastic else width


def _stretched(columns: Sequence[Column], widths: Sequence[int], shown: Sequence[int], width: int) -> dict[int, int]:
    """Return each column's width; elastic ones, from the narrowest on, share what the others and their least leave."""
    given = {place: widths[place] for place in shown if not columns[place].elastic}
    left = width - sum(given.values()) - _GAP * (len(shown) - 1)
    elastic = sorted((place for place in shown if columns[place].elastic), key=lambda place: widths[place])
    leasts = [_least(columns[place], widths[place]) for place in elastic]
    for number, place in enumerate(elastic):
        share = min(left // (len(elastic) - number), left - sum(leasts[number + 1 :]))
        given[place] = max(1, min(widths[place], max(share, min(leasts[number], left))))
        left -= given[place]
    return given


def _cells(value: Cell) -> int:
    return Text(value).cell_len if isinstance(value, str) else value.cell_len


def _text(value: Cell, style: str = "") -> Text:
    text = Text(value) if isinstance(value, str) else value.copy()
    if style:
        text.stylize(style)
    return text


def facts(pairs: Sequence[tuple[str, Cell]]) -> Table:
    """Lay out name and value lines."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", min_width=max(_cells(name) for name, _ in pairs))
    table.add_column(overflow="fold")
    for name, value in pairs:
        table.add_row(Text(name), _text(value))
    return table


def page(body: RenderableType, frame: Frame, *, title: str = "") -> Group:
    """Put the banner of the simulator above and the age of the data below."""
    parts: list[RenderableType] = []
    if frame.sim:
        parts.append(Text(" SIM  offline exchange, not a broker ", style="bold black on yellow"))
    if title:
        parts.append(Text(title, style="bold"))
    parts.append(body)
    if frame.age_s is not None:
        parts.append(Text(f"{frame.aged} {ago(frame.age_s)} ago", style="dim"))
    return Group(*parts)


class Fitting:
    """What is drawn, cut to the window's height; then its last line tells how much more there is."""

    def __init__(self, body: RenderableType) -> None:
        self._body = body

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self._body, options.reset_height(), pad=False)
        room = console.size.height
        if len(lines) > room:
            lines, hidden = lines[: room - 1], len(lines) - room + 1
            told = f"… {hidden} more lines; enlarge the window, or use --json"
            notice = Text(told, style="yellow", no_wrap=True, overflow="ellipsis")
            lines += console.render_lines(notice, options.reset_height(), pad=False)
        for number_of_line, line in enumerate(lines):
            if number_of_line:
                yield Segment.line()
            yield from line


def listing(
    items: Sequence[_Item],
    fields: Sequence[tuple[Column, Callable[[_Item], Cell]]],
    frame: Frame,
    *,
    empty: str,
    totals: Sequence[Cell] | None = None,
) -> Group:
    """Make a page of a row an item, each column beside what it shows of one; ``empty`` says that there is none."""
    if not items:
        return page(Text(empty), frame)
    columns = [column for column, _ in fields]
    rows = [[show(item) for _, show in fields] for item in items]
    return page(grid(columns, rows, frame, totals=totals), frame)
