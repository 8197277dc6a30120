"""Columns of market history: Arrow tables whose numbers are those that were sent.

A column of prices holds doubles where every number of it survives that (up to 15 digits always do), and decimals where one
would not, so nothing is rounded and nothing ordinary is slow. Times are UTC nanoseconds. Fields that Alpaca added since are
columns of JSON text behind the known ones. pyarrow loads with the first table, pandas and polars only when asked for.
"""

import datetime as dt
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeVar

from alpacli.domain.arrows import floats
from alpacli.domain.series import SECOND_NS, Kind
from alpacli.errors import AlpacliError, UsageError

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow
else:

    class _Later:
        """A library that is loaded when somebody resolves a hint that names it; all of it is ``Any`` where it is missing."""

        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, attribute: str) -> Any:
            from importlib import import_module

            try:
                return getattr(import_module(self._name), attribute)
            except ImportError:
                return Any

    pandas, polars, pyarrow = map(_Later, ("pandas", "polars", "pyarrow"))

Answer_co = TypeVar("Answer_co", covariant=True)
Made = TypeVar("Made")

COLUMNS: Final[Mapping[Kind, Mapping[str, str]]] = {
    "bars": {
        "open": "number",
        "high": "number",
        "low": "number",
        "close": "number",
        "volume": "number",
        "trade_count": "whole",
        "vwap": "number",
    },
    "trades": {
        "price": "number",
        "size": "number",
        "exchange": "text",
        "conditions": "texts",
        "id": "whole",
        "tape": "text",
        "update": "text",
        "taker_side": "text",
    },
    "quotes": {
        "bid_exchange": "text",
        "bid_price": "number",
        "bid_size": "number",
        "ask_exchange": "text",
        "ask_price": "number",
        "ask_size": "number",
        "conditions": "texts",
        "tape": "text",
    },
}
"""The columns behind ``symbol`` and ``timestamp``: the names of the official SDK's data frames, and what they hold."""


Names = str | Sequence[str]
"""A symbol, or several."""

When = dt.datetime | int | None
"""An aware datetime, or nanoseconds since 1970 UTC."""


class Batch(NamedTuple):
    """Some rows of one symbol, oldest first. ``table`` has the columns ``symbol``, ``timestamp`` and those of its kind."""

    kind: Kind
    symbol: str
    table: "pyarrow.Table"

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Give each row with exact numbers (``Decimal``) and its time as RFC 3339 text with every digit that counts."""
        names = self.table.column_names
        columns = [_values(name, self.table[name]) for name in names]
        for row in zip(*columns, strict=True):
            yield dict(zip(names, row, strict=True))

    def to_pandas(self) -> "pandas.DataFrame":
        """Return these rows as a frame indexed by symbol and timestamp, like the official SDK's ``.df``.

        Raises:
            UsageError: pandas is not installed.
        """
        return frame_of_pandas(self.table)

    def to_polars(self) -> "polars.DataFrame":
        """Return these rows as a frame with the table's columns, numbers as they are in it.

        Raises:
            UsageError: polars is not installed.
        """
        return frame_of_polars(self.table)


class Copy(NamedTuple):
    """A file: how many rows it has, of which symbols, and its bytes. ``Changed`` is raised while they are read."""

    rows: int
    symbols: set[str]
    blocks: Iterator[bytes]


class Changed(AlpacliError):
    """A kept file was changed or removed by another process while it was copied; the rows can still be read in batches."""


class Batches:
    """History that is fetched while it is read: iterate over it once, or take all of it as a table or a frame.

    ``notes`` say what was decided: the feed, and where the data had to end earlier than was asked for.
    """

    def __init__(
        self,
        kind: Kind,
        make: Callable[[], Iterator[Batch]],
        notes: Sequence[str] = (),
        copy: "Callable[[Any], Copy | None]" = lambda _: None,
    ) -> None:
        self.kind: Kind = kind
        self.notes = tuple(notes)
        self._make = make
        self._copy = copy

    def __iter__(self) -> Iterator[Batch]:
        return self._make()

    def copy(self, text: Any = None) -> "Copy | None":
        """Bring in what is missing and return a Parquet file put together from kept ones, without looking at rows.

        With ``text``, how a table is written as CSV (``history.kept_text.Writer``), it is a file of that. ``None`` where it
        cannot be: nothing is kept, rows are not final yet, or only a part of a kept file is wanted.
        """
        return self._copy(text)

    def to_arrow(self) -> "pyarrow.Table":
        """Return everything as one table, by symbol as asked for and then by time."""
        return joined([empty(self.kind), *(batch.table for batch in self)])

    def to_pandas(self) -> "pandas.DataFrame":
        """Return everything as a frame indexed by symbol and timestamp, like the official SDK's ``.df``.

        Raises:
            AlpacliError: as reading the batches does.
            UsageError: pandas is not installed.
        """
        return frame_of_pandas(self.to_arrow())

    def to_polars(self) -> "polars.DataFrame":
        """Return everything as a frame with the columns of ``to_arrow``, in its order.

        Raises:
            AlpacliError: as reading the batches does.
            UsageError: polars is not installed.
        """
        return frame_of_polars(self.to_arrow())


class AsyncBatches:
    """``Batches`` for an event loop: ``async for batch in …``, or await a whole table or frame, made in a thread."""

    def __init__(self, kind: Kind, make: Callable[[], AsyncIterator[Batch]], notes: Sequence[str] = ()) -> None:
        self.kind: Kind = kind
        self.notes = tuple(notes)
        self._make = make

    def __aiter__(self) -> AsyncIterator[Batch]:
        return self._make()

    async def to_arrow(self) -> "pyarrow.Table":
        """Return everything as one table, by symbol as asked for and then by time."""
        tables = [batch.table async for batch in self]
        return await self._aside(lambda: joined([empty(self.kind), *tables]))

    async def to_pandas(self) -> "pandas.DataFrame":
        """Return everything as a frame indexed by symbol and timestamp, like the official SDK's ``.df``.

        Raises:
            AlpacliError: as reading the batches does.
            UsageError: pandas is not installed.
        """
        table = await self.to_arrow()
        return await self._aside(lambda: frame_of_pandas(table))

    async def to_polars(self) -> "polars.DataFrame":
        """Return everything as a frame with the columns of ``to_arrow``, in its order.

        Raises:
            AlpacliError: as reading the batches does.
            UsageError: polars is not installed.
        """
        table = await self.to_arrow()
        return await self._aside(lambda: frame_of_polars(table))

    async def _aside(self, make: Callable[[], Made]) -> Made:
        """Do in a thread what would stop the loop: pandas alone takes half a second to load."""
        import asyncio

        return await asyncio.to_thread(make)


class _Provider(Protocol[Answer_co]):
    """The calls of a source of history, whatever its answers are wrapped in."""

    def bars(
        self,
        symbols: Names,
        *,
        start: When = None,
        end: When = None,
        timeframe: str = "1Min",
        feed: str | None = None,
        adjustment: str = "raw",
        limit: int | None = None,
    ) -> Answer_co:
        """Return bars of one symbol or several, oldest first, symbol after symbol; prices in USD, sizes in shares or coins.

        ``timeframe`` is 1Min to 59Min, 1Hour to 23Hour, 1Day, 1Week or 1, 2, 3, 4, 6, 12Month; ``feed`` a stock feed (sip,
        iex, otc, boats …), ``None`` the best that the plan has; ``adjustment`` raw, split, dividend, spin-off or all.

        Raises:
            UsageError: Alpaca has no such bars.
        """

    def trades(
        self, symbols: Names, *, start: When = None, end: When = None, feed: str | None = None, limit: int | None = None
    ) -> Answer_co:
        """Return trades as they were reported, oldest first, symbol after symbol; see ``bars`` for the arguments.

        Raises:
            UsageError: Alpaca has no such trades.
        """

    def quotes(
        self, symbols: Names, *, start: When = None, end: When = None, feed: str | None = None, limit: int | None = None
    ) -> Answer_co:
        """Return best bids and offers as they changed, oldest first; a price of 0 is an empty side. See ``bars``.

        Raises:
            UsageError: Alpaca has no such quotes: it keeps none of options.
        """


class MarketDataProvider(_Provider[Batches], Protocol):
    """Where market history comes from; ``AlpacaClient.market_data`` is one, and a program's own source can be another.

    ``start`` and ``end`` are aware datetimes or nanoseconds since 1970 UTC, both included, the end by default now. ``limit``
    is a number of rows of each symbol: the first ones from ``start``, or without a start the last ones before ``end``.
    """


class AsyncMarketDataProvider(_Provider[Awaitable[AsyncBatches]], Protocol):
    """``MarketDataProvider`` for event loops, as ``AsyncAlpacaClient.market_data``: its answers are awaited."""


# ----------------------------------------------------------------------------------------------------- tables


def arrow_type(name: str) -> "pyarrow.DataType":
    """Return the Arrow type of what a column holds: ``number``, ``whole``, ``text``, ``texts``."""
    import pyarrow as pa

    if name == "texts":
        return pa.list_(pa.string())
    return {"number": pa.float64(), "whole": pa.int64(), "text": pa.string()}[name]


def schema(kind: Kind) -> "pyarrow.Schema":
    import pyarrow as pa

    fields = [("symbol", pa.string()), ("timestamp", pa.timestamp("ns", "UTC"))]
    return pa.schema([*fields, *((name, arrow_type(what)) for name, what in COLUMNS[kind].items())])


def empty(kind: Kind) -> "pyarrow.Table":
    import pyarrow as pa

    return pa.Table.from_batches([], schema=schema(kind))


def is_exact(number: Decimal) -> bool:
    """Tell whether a double holds a number so that its shortest text is the number again."""
    try:
        return Decimal(repr(float(number))) == number
    except (OverflowError, ArithmeticError):
        return False


def joined(tables: "Iterable[pyarrow.Table]") -> "pyarrow.Table":
    """Put tables of one kind together, without rounding: doubles become decimals where another table needs those."""
    import pyarrow as pa

    tables = list(tables)
    first = tables[0]
    if any(table.schema != first.schema for table in tables):
        wide = {
            field.name
            for table in tables
            for field in table.schema
            if pa.types.is_decimal(field.type) and table[field.name].null_count < table.num_rows
        }
        tables = [_with_decimals(table, wide) for table in tables]
        return pa.concat_tables(tables, promote_options="permissive")
    return pa.concat_tables(tables)


def _with_decimals(table: "pyarrow.Table", names: set[str]) -> "pyarrow.Table":
    import pyarrow as pa

    for place, field in enumerate(table.schema):
        if field.name in names and pa.types.is_floating(field.type):
            values = [None if value is None else Decimal(repr(value)) for value in table[field.name].to_pylist()]
            table = table.set_column(place, field.name, decimals(values))
    return table


def decimals(values: Sequence[Decimal | None]) -> "pyarrow.Array":
    """Return a column of decimals with as many digits as its numbers need.

    Raises:
        ValueError: one needs more than 76.
    """
    import pyarrow as pa

    if all(value is None for value in values):
        return pa.nulls(len(values), pa.float64())
    return pa.array(values)  # pa.ArrowInvalid is a ValueError


def frame_of_pandas(table: "pyarrow.Table") -> "pandas.DataFrame":
    """Return a pandas frame indexed by symbol and timestamp.

    Raises:
        UsageError: pandas is not installed.
    """
    try:
        import pandas  # noqa: F401 # asked for before Arrow asks
    except ImportError:
        raise UsageError("pandas is not installed", "pip install pandas, or use .to_arrow()") from None
    return table.to_pandas().set_index(["symbol", "timestamp"])


def frame_of_polars(table: "pyarrow.Table") -> "polars.DataFrame":
    """Return a polars frame.

    Raises:
        UsageError: polars is not installed.
    """
    try:
        import polars
    except ImportError:
        raise UsageError("polars is not installed", "pip install polars, or use .to_arrow()") from None
    frame = polars.from_arrow(table)
    assert isinstance(frame, polars.DataFrame)  # noqa: S101 # a table gives a frame
    return frame


def first_and_last_ns(table: "pyarrow.Table") -> tuple[int, int]:
    """Return the first and the last time of a table that is in order and not empty."""
    times = table["timestamp"]
    return int(times[0].value), int(times[table.num_rows - 1].value)


def between(table: "pyarrow.Table", start_ns: int, end_ns: int) -> "pyarrow.Table":
    """Return the rows of a table in order that lie in a half-open interval, without copying them."""
    low, high = _place(table, start_ns), _place(table, end_ns)
    return table.slice(low, max(high - low, 0))


def _place(table: "pyarrow.Table", at_ns: int) -> int:
    """Return how many rows are earlier than an instant, by halving."""
    times = table["timestamp"]
    low, high = 0, table.num_rows
    while low < high:
        middle = (low + high) // 2
        if int(times[middle].value) < at_ns:
            low = middle + 1
        else:
            high = middle
    return low


def instant_text(at_ns: int) -> str:
    """Return RFC 3339 in UTC with the digits that count, as Alpaca writes times."""
    seconds, below = divmod(at_ns, SECOND_NS)
    text = dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{below:09d}".rstrip("0") + "Z" if below else text + "Z"


def _values(name: str, column: "pyarrow.ChunkedArray") -> list[Any]:
    import pyarrow as pa

    if name == "timestamp":
        return [instant_text(value) for value in column.cast(pa.int64()).to_pylist()]
    values: list[Any] = column.to_pylist()
    if pa.types.is_floating(column.type) or pa.types.is_decimal(column.type):
        return [None if value is None else _plain(value) for value in values]
    return values


def _plain(value: float | Decimal) -> Decimal:
    """Return the number without zeros at its end; not with ``normalize``, which rounds to 28 digits."""
    written = format(Decimal(repr(value)) if isinstance(value, float) else value, "f")
    return Decimal(written.rstrip("0").rstrip(".") if "." in written else written)


def with_columns(table: "pyarrow.Table", names: Sequence[str]) -> "pyarrow.Table":
    """Return the table with just these columns, null where it does not have one."""
    import pyarrow as pa

    if table.column_names == list(names):
        return table
    present = set(table.column_names)
    arrays = [table[name] if name in present else pa.nulls(table.num_rows, pa.string()) for name in names]
    return pa.Table.from_arrays(arrays, names=list(names))


def decimals_as_doubles(table: "pyarrow.Table") -> "tuple[pyarrow.Table, int]":
    """Return the table with doubles for decimals, for formats whose columns have one type, and how many that rounded."""
    import pyarrow as pa

    rounded = 0
    for place, field in enumerate(table.schema):
        if pa.types.is_decimal(field.type):
            numbers = table[field.name].to_pylist()
            rounded += sum(number is not None and not is_exact(number) for number in numbers)
            doubles = floats([None if number is None else float(number) for number in numbers])
            table = table.set_column(place, field.name, doubles)
    return table, rounded
