"""The equity curve in a terminal. plotext draws it; everything it is given was decided here."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from alpacli.domain.account import HistoryPoint, PortfolioHistory
from alpacli.render.grid import Cell, facts, page
from alpacli.render.text import GAIN, LOSS, Frame, day, moment, money, percent, signed

_HEIGHT: Final = 16
_WIDEST: Final = 120
_NARROWEST: Final = 30


def portfolio(value: PortfolioHistory, frame: Frame) -> RenderableType:
    """Draw equity over time and tell its numbers; points without equity (before funding) are left out."""
    points = [(point, point.equity) for point in value.points if point.equity]
    if not points:
        return page(Text("No equity in this period."), frame)
    first, last = points[0][1], points[-1][1]
    base = value.base_value or first
    gain = last - base
    low = min(points, key=lambda pair: pair[1])
    high = max(points, key=lambda pair: pair[1])

    def when(point: HistoryPoint) -> str:
        if value.timeframe == "1D":
            return day(point.at.astimezone(frame.zone).date())
        return moment(point.at, frame, seconds=False, dated=True)

    pairs: list[tuple[str, Cell]] = [
        ("From", when(points[0][0])),
        ("To", when(points[-1][0])),
        ("Timeframe", f"{value.timeframe}, {len(points):,} points"),
        ("Base value", money(base)),
        ("Equity", Text(money(last), style="bold")),
        ("Profit and loss", Text.assemble(signed(gain), "  ", percent(gain / base))),
        ("High", f"{money(high[1])}  {when(high[0])}"),
        ("Low", f"{money(low[1])}  {when(low[0])}"),
    ]
    drawn = curve([point for point, _ in points], [equity for _, equity in points], frame)
    drawn.stylize(GAIN if gain >= 0 else LOSS)
    return page(Group(drawn, facts(pairs)), frame)


def curve(points: Sequence[HistoryPoint], equity: Sequence[Decimal], frame: Frame) -> Text:
    """Draw equity over time; nothing where there are fewer than two points or no room."""
    if len(points) < 2 or frame.width < _NARROWEST:
        return Text()
    import plotext

    figure = plotext.figure
    figure.clear()
    figure.theme("colorless")
    figure.plot_size(min(frame.width, _WIDEST), _HEIGHT)
    places = list(range(len(points)))
    line = figure.signal(places, [float(amount) for amount in equity], marker="braille")
    line.lines()
    figure.draw(line)
    marks = sorted({0, len(points) // 2, len(points) - 1} if frame.width >= 70 else {0, len(points) - 1})
    across_days = points[-1].at.astimezone(frame.zone).date() != points[0].at.astimezone(frame.zone).date()
    figure.ruler("x").ticks(marks, [_mark(points[place].at, frame, across_days=across_days) for place in marks])
    levels = _levels(float(min(equity)), float(max(equity)))
    figure.ruler("y").ticks(
        levels, [f"{level:,.0f}" if levels[-1] - levels[0] >= 10 else f"{level:,.2f}" for level in levels]
    )
    return Text.from_ansi(str(figure.build()))


def _levels(low: float, high: float) -> list[float]:
    """Return four evenly spaced heights for the axis; a flat curve gets one."""
    return [low] if high <= low else [low + (high - low) * step / 3 for step in range(4)]


def _mark(at: datetime, frame: Frame, *, across_days: bool) -> str:
    there = at.astimezone(frame.zone)
    return f"{there:%b %d}" if across_days else f"{there:%H:%M}"
