"""Market history for people: rows as a table, bars as candles, latest prices, headlines."""

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rich.console import Group, RenderableType
from rich.text import Text

from alpacli.domain.batches import Batch
from alpacli.domain.series import SECOND_NS
from alpacli.render.grid import Cell, Column, facts, grid, listing, number, page
from alpacli.render.text import NOTHING, Frame, moment, percent, price, quantity, signed, size, words

if TYPE_CHECKING:
    import pyarrow

    from alpacli.domain.market import KeptHistory, NewsArticle, PrunedHistory, Snapshot, VerifiedHistory

_LAST_TO_GO: Final = ("symbol", "timestamp", "open", "high", "low", "close", "price", "size", "bid_price", "ask_price")
_HEIGHT: Final = 20
_WIDEST: Final = 160
_NARROWEST: Final = 40


def rows(tables: "Sequence[pyarrow.Table]", left_out: int, frame: Frame) -> RenderableType:
    """The first and last rows; ``left_out`` of them, between the first table and the second, are only counted."""
    if not tables:
        return page(Text("Nothing in this period."), frame)
    names = tables[0].column_names
    columns = [
        Column(name, 0, "left")
        if name in ("symbol", "timestamp")
        else number(name, 0 if name in _LAST_TO_GO else place)
        for place, name in enumerate(names)
    ]
    parts: list[RenderableType] = []
    for place, table in enumerate(tables):
        found = [[_cell(name, row.get(name), frame) for name in names] for row in Batch("bars", "", table).rows()]
        if place and left_out:
            parts.append(Text(f"… {left_out:,} rows …", style="dim"))
        parts.append(grid(columns, found, frame))
    total = left_out + sum(table.num_rows for table in tables)
    parts.append(Text(f"{total:,} rows", style="dim"))
    return page(Group(*parts), frame)


def _cell(name: str, value: Any, frame: Frame) -> Cell:
    if name == "timestamp":
        return moment(dt.datetime.fromisoformat(value), frame, dated=True)
    if isinstance(value, Decimal):
        return quantity(value) if name in ("volume", "size", "bid_size", "ask_size") else price(value)
    if isinstance(value, list):
        return words(" ".join(value))
    return f"{value:,}" if isinstance(value, int) and name == "trade_count" else words(value)


class Candle(NamedTuple):
    at_ns: int
    open: float
    high: float
    low: float
    close: float
    volume: float


class Candles:
    """Bars of one symbol on the way to a chart: never more than twice ``most``, neighbours are put together beyond."""

    def __init__(self, symbol: str, most: int = 2048) -> None:
        self.symbol = symbol
        self.count = 0
        self._most = most
        self._group = 1
        self._open: list[Candle] = []
        self._done: list[Candle] = []

    def add(self, table: "pyarrow.Table") -> None:
        import pyarrow as pa

        names = ("open", "high", "low", "close", "volume")
        times = table["timestamp"].cast(pa.int64()).to_pylist()
        values = [[float(value) for value in table[name].to_pylist()] for name in names]
        for bar in zip(times, *values, strict=True):
            self.count += 1
            self._open.append(Candle(*bar))
            if len(self._open) == self._group:
                self._done.append(_together(self._open))
                self._open = []
        while len(self._done) > 2 * self._most:
            self._done = [_together(self._done[at : at + 2]) for at in range(0, len(self._done), 2)]
            self._group *= 2

    def fitting(self, width: int) -> list[Candle]:
        """Return at most ``width`` candles."""
        found = self._done + ([_together(self._open)] if self._open else [])
        size = -(-len(found) // max(width, 1)) or 1
        return [_together(found[at : at + size]) for at in range(0, len(found), size)]


def _together(candles: Sequence[Candle]) -> Candle:
    return Candle(
        candles[0].at_ns,
        candles[0].open,
        max(candle.high for candle in candles),
        min(candle.low for candle in candles),
        candles[-1].close,
        sum(candle.volume for candle in candles),
    )


def chart(all_candles: Iterable[Candles], frame: Frame) -> RenderableType:
    """Draw the candles of each symbol, and tell its numbers."""
    parts: list[RenderableType] = []
    for candles in all_candles:
        width = min(frame.width, _WIDEST)
        found = candles.fitting((width - 12) // 2)
        parts.append(Text(candles.symbol, style="bold"))
        if not found:
            parts.append(Text("Nothing in this period."))
            continue
        if width >= _NARROWEST:
            parts.append(_drawn(found, width, frame))
        first, last = found[0], found[-1]
        change = Decimal(repr(last.close)) - Decimal(repr(first.open))
        pairs: list[tuple[str, Cell]] = [
            ("From", moment(_time(first.at_ns), frame, seconds=False, dated=True)),
            ("To", moment(_time(last.at_ns), frame, seconds=False, dated=True)),
            ("Bars", f"{candles.count:,}" + (f" in {len(found)} candles" if candles.count != len(found) else "")),
            ("Open", price(Decimal(repr(first.open)))),
            ("High", price(Decimal(repr(max(candle.high for candle in found))))),
            ("Low", price(Decimal(repr(min(candle.low for candle in found))))),
            ("Close", Text.assemble(price(Decimal(repr(last.close))), "  ", signed(change))),
        ]
        parts.append(facts(pairs))
    return page(Group(*parts) if parts else Text("Nothing in this period."), frame)


def _drawn(found: Sequence[Candle], width: int, frame: Frame) -> Text:
    import plotext

    figure = plotext.figure
    figure.clear()
    figure.theme("colorless")
    figure.plot_size(width, _HEIGHT)
    places = list(range(len(found)))
    data = {
        "date": places,
        "open": [candle.open for candle in found],
        "close": [candle.close for candle in found],
        "high": [candle.high for candle in found],
        "low": [candle.low for candle in found],
    }
    figure.draw(figure.candlestick(data))
    marks = sorted({0, len(found) // 2, len(found) - 1})
    across = _time(found[0].at_ns).astimezone(frame.zone).date() != _time(found[-1].at_ns).astimezone(frame.zone).date()
    labels = [f"{_time(found[place].at_ns).astimezone(frame.zone):{'%b %d' if across else '%H:%M'}}" for place in marks]
    figure.ruler("x").ticks(marks, labels)
    return Text.from_ansi(str(figure.build()))


def _time(at_ns: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(at_ns / SECOND_NS, dt.UTC)


def snapshots(value: "Sequence[Snapshot]", frame: Frame) -> RenderableType:
    """Latest trade and quote, today's bar, and the change since the day before."""
    columns = [
        Column("Symbol"), number("Last"), number("Change", 1), number("%", 1), number("Bid", 1), number("Ask", 1),
        number("Size", 6), number("Open", 4), number("High", 3), number("Low", 3), number("Volume", 2), Column("Time", 1),
    ]  # fmt: skip
    found: list[list[Cell]] = []
    for item in value:
        trade, quote, day = item.latest_trade or {}, item.latest_quote or {}, item.daily_bar or {}
        last, before = _amount(trade, "p"), _amount(item.prev_daily_bar or {}, "c")
        change = None if last is None or before is None else last - before
        found.append(
            [
                words(item.symbol),
                price(last),
                signed(change),
                percent(None if change is None or not before else change / before),
                price(_amount(quote, "bp") or None),
                price(_amount(quote, "ap") or None),
                quantity(_amount(trade, "s")),
                price(_amount(day, "o")),
                price(_amount(day, "h")),
                price(_amount(day, "l")),
                quantity(_amount(day, "v")),
                _when(trade.get("t") or quote.get("t"), frame),
            ]
        )
    return page(grid(columns, found, frame) if found else Text("No symbols."), frame)


def _amount(element: Mapping[str, Any], name: str) -> Decimal | None:
    value = element.get(name)
    return Decimal(value) if isinstance(value, int | Decimal) else None


def _when(text: object, frame: Frame) -> Cell:
    from alpacli.domain.values import Timestamp

    return moment(Timestamp.parse(text), frame) if isinstance(text, str) else NOTHING


def news(value: "Sequence[NewsArticle]", frame: Frame) -> RenderableType:
    """Time, headline, symbols and source of each article."""
    return listing(
        value,
        [
            (Column("Time"), lambda article: moment(article.updated_at or article.created_at, frame, seconds=False)),
            (Column("Headline", 0, elastic=True), lambda article: words(article.headline)),
            (Column("Symbols", 1, elastic=True), lambda article: words(" ".join(article.symbols))),
            (Column("Source", 2), lambda article: words(article.source)),
        ],
        frame,
        empty="No news in this period.",
    )


def kept(value: "Sequence[KeptHistory]", frame: Frame) -> RenderableType:
    """What is kept, a series of a symbol a line, and all of it at the end."""
    rows_, bytes_ = sum(item.rows for item in value), sum(item.bytes for item in value)
    return listing(
        value,
        [
            (Column("Symbol"), lambda item: words(item.symbol)),
            (Column("Kind"), lambda item: words(item.kind)),
            (Column("Timeframe", 1), lambda item: words(item.timeframe)),
            (Column("Feed", 2), lambda item: words(item.feed)),
            (Column("Adjustment", 5), lambda item: words(item.adjustment)),
            (Column("From", 3), lambda item: moment(item.start, frame, seconds=False, dated=True)),
            (Column("To", 3), lambda item: moment(item.end, frame, seconds=False, dated=True)),
            (number("Rows", 1), lambda item: f"{item.rows:,}"),
            (number("Size", 2), lambda item: Text(size(item.bytes), style="red" if item.broken else "")),
        ],
        frame,
        empty="No market history is kept here yet: `alpacli bars SYMBOL` begins it.",
        totals=["Total", "", "", "", "", "", "", f"{rows_:,}", size(bytes_)],
    )


def verified(value: "VerifiedHistory", frame: Frame) -> RenderableType:
    """How many files were read, and what is wrong with which."""
    good = Text(f"{value.files:,} files with {value.rows:,} rows are whole and in order.", style="green")
    if not value.broken:
        return page(good, frame)
    columns = [Column("File", 0, elastic=True), Column("Problem", 0, elastic=True)]
    return page(grid(columns, [[words(item.path), words(item.problem)] for item in value.broken], frame), frame)


def pruned(value: "PrunedHistory", frame: Frame) -> RenderableType:
    """What is gone."""
    verb = "would be removed" if value.dry_run else "removed"
    lines = f"{value.files:,} files ({size(value.bytes)}) {verb}"
    return page(Text(f"{lines}, and {value.leftovers:,} leftovers." if value.leftovers else f"{lines}."), frame)
