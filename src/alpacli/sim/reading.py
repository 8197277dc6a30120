"""What people have of past prices, read into one form: bars, trades and quotes by symbol, exact, in order of time.

A file is CSV (comma, semicolon or tab), Parquet, a recording of ``alpacli stream --record``, or JSON lines with the same
names; any of them may be gzipped. What a file holds is told by its column names, in the words that Alpaca, Yahoo, pandas and
others use for them. Whatever is wrong is said with file and line, because a row that is silently skipped or mended makes a
result that nobody can explain.

A stock's prices are rounded to four decimals, the finest that a market quotes, so that 187.14999389648438 is the 187.15 that
it was before a 32-bit float had it; a coin's are rounded to nine.
"""

import csv
import gzip
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, tzinfo
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from alpacli.errors import UsageError
from alpacli.sim.answers import SECOND_NS
from alpacli.sim.hours import NEW_YORK

MINUTE_NS: Final = 60 * SECOND_NS
_DAY_NS: Final = 86_400 * SECOND_NS
_STOCK_PLACES: Final = 4
_COIN_PLACES: Final = 9
_SUFFIXES: Final = (".csv", ".tsv", ".txt", ".parquet", ".pq", ".json", ".jsonl", ".ndjson")
_NOTHING: Final = frozenset({"", "null", "nan", "none", "n/a", "na", "-"})
_BLOCK: Final = 65_536

# The names that columns have, without case, blanks and punctuation. What is not named here is left out.
_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "time": ("timestamp", "datetime", "time", "t", "ts", "begin", "begins", "indexlevel0"),
    "date": ("date", "day"),
    "symbol": ("symbol", "ticker", "sym"),
    "open": ("open", "o", "openprice"),
    "high": ("high", "h", "highprice"),
    "low": ("low", "l", "lowprice"),
    "close": ("close", "c", "closeprice", "closelast"),
    "volume": ("volume", "v", "vol"),
    "vwap": ("vwap", "vw"),
    "count": ("tradecount", "n", "transactions", "numberoftrades"),
    "price": ("price", "p", "lastprice", "tradeprice"),
    "size": ("size", "s", "qty", "quantity", "shares"),
    "bid": ("bid", "bidprice", "bp"),
    "ask": ("ask", "askprice", "ap", "offer"),
    "bid_size": ("bidsize", "bs"),
    "ask_size": ("asksize", "as"),
    "type": ("type",),
}
_ROLES: Final = {name: role for role, names in _NAMES.items() for name in names}
_KINDS: Final = (("quote", ("bid", "ask")), ("bar", ("open", "high", "low", "close")), ("trade", ("price",)))


class Bar(NamedTuple):
    """Prices in units of ``10 ** -places``. ``begin_ns`` is ``None`` where only the ``day`` is known: a daily bar."""

    begin_ns: int | None
    day: date
    open: int
    high: int
    low: int
    close: int
    volume: Decimal
    vwap: Decimal | None
    trade_count: int | None
    where: str


class Trade(NamedTuple):
    at_ns: int
    price: int
    size: Decimal
    extra: Mapping[str, object]


class Quote(NamedTuple):
    at_ns: int
    bid: int
    bid_size: Decimal
    ask: int
    ask_size: Decimal
    extra: Mapping[str, object]


class Series:
    """What is known of one symbol. ``width_ns`` is how long its bars are, a day's aside."""

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self.places = places_of(symbol)
        self.bars: list[tuple[Bar, int]] = []
        self.trades: list[Trade] = []
        self.quotes: list[Quote] = []


class Reading(NamedTuple):
    series: dict[str, Series]
    notices: list[str]


class _Table(NamedTuple):
    """A file as rows: what its columns are called, and rows with the number that people know them by."""

    columns: Sequence[str]
    rows: Iterable[tuple[int, Sequence[object]]]
    word: str = "line"


def places_of(symbol: str) -> int:
    return _COIN_PLACES if "/" in symbol else _STOCK_PLACES


def read(
    paths: Sequence[str], *, symbol: str | None = None, zone: tzinfo | None = None, width_ns: int | None = None
) -> Reading:
    """Read files and directories.

    ``symbol`` is that of files without a symbol column; else their name is, where it looks like one (``AAPL.csv``).
    ``zone`` is that of times that name none, New York's unless given. ``width_ns`` is how long a bar is; else the smallest
    distance of two bars of a file tells.

    Raises:
        UsageError: a file cannot be read, or a row in it is wrong.
    """
    reading = Reading({}, [])
    for path in _files(paths):
        _File(path, reading, symbol, zone, width_ns).read()
    for series in list(reading.series.values()):
        series.trades.sort(key=lambda trade: trade.at_ns)
        series.quotes.sort(key=lambda quote: quote.at_ns)
        if not (series.bars or series.trades or series.quotes):
            del reading.series[series.symbol]
            reading.notices.append(f"{series.symbol} has no row with prices, and is not there")
    if not reading.series:
        why = f" ({'; '.join(reading.notices)})" if reading.notices else ""
        raise UsageError(
            f"there is nothing to replay in {', '.join(paths)}{why}", "give files with bars, trades or quotes"
        )
    return reading


def _files(paths: Sequence[str]) -> Iterator[str]:
    for path in paths:
        if not Path(path).is_dir():
            yield path
            continue
        found = sorted(str(item) for item in Path(path).iterdir() if item.is_file() and _is_data(item.name))
        if not found:
            raise UsageError(f"there are no files to replay in {path}", f"it looks for names in {', '.join(_SUFFIXES)}")
        yield from found


def _is_data(name: str) -> bool:
    return not name.startswith(".") and name.lower().removesuffix(".gz").endswith(_SUFFIXES)


class _File:
    """One file on its way into a reading."""

    def __init__(
        self, path: str, reading: Reading, symbol: str | None, zone: tzinfo | None, width_ns: int | None
    ) -> None:
        self._path = path
        self._reading = reading
        self._symbol = symbol or _symbol_of(path)
        self._zone = zone
        self._width_ns = width_ns
        self._moments: dict[object, tuple[int | None, date]] = {}
        self._naive = False
        self._empty = 0
        self._left_out: dict[str, int] = {}
        self._bars: dict[str, list[Bar]] = {}
        self._told: dict[tuple[str, str], int] = {}
        self._extras: dict[str, Mapping[str, object]] = {}

    def read(self) -> None:
        try:
            with _opened(self._path) as file:
                head = file.peek(_BLOCK)[:_BLOCK]
                if head.startswith(b"PAR1"):
                    self._take_table(_parquet(self._path, file))
                elif head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{":
                    self._take_lines(file)
                else:
                    text = io.TextIOWrapper(file, "utf-8-sig", newline="")
                    try:
                        self._take_table(self._csv(text))
                    finally:
                        text.detach()  # the file closes itself
        except (OSError, EOFError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise UsageError(
                f"cannot read {self._path}: {reason}", "give a file with bars, trades or quotes"
            ) from error
        except UnicodeDecodeError as error:
            raise UsageError(f"{self._path} is not text in UTF-8", "save it as CSV in UTF-8, or as Parquet") from error
        self._file_bars()
        self._say()

    def _say(self) -> None:
        say = self._reading.notices.append
        if self._naive and self._zone is None:
            say(f"{self._path}: times without a zone are read as New York time; --tz names another")
        if self._empty:
            say(f"{self._path}: {self._empty} rows without prices are left out")
        if self._left_out:
            kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self._left_out.items()))
            say(f"{self._path}: only trades, quotes and minute bars are replayed; left out: {kinds}")

    # ------------------------------------------------------------------------------------------------- formats

    def _csv(self, text: io.TextIOWrapper) -> _Table:
        first = text.readline()
        delimiter = max(",;\t", key=first.count)
        names = next(csv.reader([first], delimiter=delimiter), [])
        return _Table(names, self._csv_rows(csv.reader(text, delimiter=delimiter)))

    def _csv_rows(self, reader: "Iterator[list[str]]") -> Iterator[tuple[int, Sequence[object]]]:
        line = 1
        try:
            for row in reader:
                line += 1  # of a file whose fields hold no line ends: no price does
                if row:
                    yield line, row
        except csv.Error as error:
            raise UsageError(f"{self._path} line {line + 1}: {error}", "mend the line") from error

    def _take_lines(self, file: BinaryIO) -> None:
        """Take JSON lines: those of a recording, or objects that name what rows have."""
        import msgspec

        decode = msgspec.json.Decoder(dict[str, object], float_hook=Decimal).decode
        takers: dict[tuple[str, ...], Callable[[int, Sequence[object]], None]] = {}
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise self._wrong(f"line {number}", f"this is no JSON object ({error})") from error
            kind = row.get("type")
            if kind == "mark":
                continue
            if isinstance(kind, str) and kind not in ("trade", "quote", "bar"):
                self._left_out[kind] = self._left_out.get(kind, 0) + 1
                continue
            if isinstance(kind, str) and kind != "bar":
                self._take_tick(number, kind, row)
                continue
            columns = tuple(row)
            if columns not in takers:
                takers[columns] = self._taker(columns, "line", recorded=isinstance(kind, str))
            takers[columns](number, list(row.values()))

    def _take_tick(self, number: int, kind: str, row: Mapping[str, object]) -> None:
        """Take a recorded trade or quote, with all that was told about it."""
        where = f"line {number}"
        series = self._series(where, row.get("symbol"))
        at_ns, _ = self._moment(where, row.get("timestamp"))
        if at_ns is None:
            raise self._wrong(where, "the time has no time of day")
        if kind == "trade":
            extra = {"i": row.get("id"), "x": row.get("exchange"), "c": row.get("conditions"), "z": row.get("tape")}
            if "taker_side" in row:
                extra = {"i": row.get("id"), "tks": row["taker_side"]}
            price = self._price(where, "price", row.get("price"), series.places)
            series.trades.append(Trade(at_ns, price, self._amount(where, "size", row.get("size")), extra))
            return
        extra = {
            "bx": row.get("bid_exchange"),
            "ax": row.get("ask_exchange"),
            "c": row.get("conditions"),
            "z": row.get("tape"),
        }
        told = {name: value for name, value in extra.items() if value is not None}
        self._take_quote(
            where,
            series,
            at_ns,
            (row.get("bid_price"), row.get("ask_price"), row.get("bid_size"), row.get("ask_size")),
            self._extras.setdefault(repr(told), told),
        )

    # ---------------------------------------------------------------------------------------------------- rows

    def _take_table(self, table: _Table) -> None:
        take = self._taker(table.columns, table.word, recorded=False)
        for number, row in table.rows:
            take(number, row)

    def _taker(self, columns: Sequence[str], word: str, *, recorded: bool) -> Callable[[int, Sequence[object]], None]:
        """Return what takes a row of these columns.

        A recording is in the order in which lines came, which is nearly that of time; anything else has to be sorted.
        """
        places = _roles(columns)
        kind = next((kind for kind, needed in _KINDS if all(name in places for name in needed)), None)
        if kind is None or not ("time" in places or "date" in places):
            raise UsageError(
                f"{self._path}: its columns {', '.join(map(str, columns))!r} are no bars, trades or quotes",
                "name a time and open, high, low, close; or price and size; or bid and ask in the first line",
            )
        take = {"bar": self._take_bar, "trade": self._take_trade, "quote": self._take_quote_row}[kind]
        names, indexes = tuple(places), tuple(places.values())
        last = max(indexes)

        def taken(number: int, row: Sequence[object]) -> None:
            where = f"{word} {number}"
            if len(row) <= last:
                raise self._wrong(where, f"it has {len(row)} fields, and {last + 1} are needed")
            fields = {name: row[index] for name, index in zip(names, indexes, strict=True)}
            series = self._series(where, fields.get("symbol"))
            moment = self._moment_of(where, fields)
            if kind != "bar" and not recorded:
                self._check_order(where, kind, series, moment[0])
            take(where, series, moment, fields)

        return taken

    def _check_order(self, where: str, kind: str, series: Series, at_ns: int | None) -> None:
        before = self._told.get((kind, series.symbol), 0)
        if at_ns is None:
            raise self._wrong(where, "the time has no time of day")
        if at_ns < before:
            raise self._wrong(where, f"its time is before that of the {kind} above it", "sort the file by time")
        self._told[kind, series.symbol] = at_ns

    def _take_bar(
        self, where: str, series: Series, moment: tuple[int | None, date], fields: Mapping[str, object]
    ) -> None:
        texts = [fields[name] for name in ("open", "high", "low", "close")]
        if all(_is_nothing(text) for text in texts):
            self._empty += 1
            return
        prices = [
            self._price(where, name, text, series.places)
            for name, text in zip(("open", "high", "low", "close"), texts, strict=True)
        ]
        opened, high, low, closed = prices
        if not low <= min(opened, closed) <= max(opened, closed) <= high:
            raise self._wrong(where, "its open and close do not lie between its low and high")
        vwap, count = fields.get("vwap"), fields.get("count")
        volume = fields.get("volume")
        begin_ns, day = moment
        bar = Bar(
            begin_ns,
            day,
            opened,
            high,
            low,
            closed,
            Decimal(0) if _is_nothing(volume) else self._amount(where, "volume", volume),
            None if _is_nothing(vwap) else self._amount(where, "vwap", vwap),
            None if _is_nothing(count) else int(self._amount(where, "trade count", count)),
            where,
        )
        self._bars.setdefault(series.symbol, []).append(bar)

    def _take_trade(
        self, where: str, series: Series, moment: tuple[int | None, date], fields: Mapping[str, object]
    ) -> None:
        price, size = self._price(where, "price", fields["price"], series.places), fields.get("size")
        shares = Decimal(100) if _is_nothing(size) else self._amount(where, "size", size)
        series.trades.append(Trade(moment[0] or 0, price, shares, {}))

    def _take_quote_row(
        self, where: str, series: Series, moment: tuple[int | None, date], fields: Mapping[str, object]
    ) -> None:
        told = (fields["bid"], fields["ask"], fields.get("bid_size"), fields.get("ask_size"))
        self._take_quote(where, series, moment[0] or 0, told, {})

    def _take_quote(
        self, where: str, series: Series, at_ns: int, told: Sequence[object], extra: Mapping[str, object]
    ) -> None:
        if any(_is_nothing(price) or str(price) in ("0", "0.0") for price in told[:2]):
            self._empty += 1  # nobody stood on one side
            return
        bid, ask = (
            self._price(where, name, price, series.places) for name, price in zip(("bid", "ask"), told[:2], strict=True)
        )
        sizes = [
            Decimal(100) if _is_nothing(size) else self._amount(where, f"{name} size", size)
            for name, size in zip(("bid", "ask"), told[2:], strict=True)
        ]
        if bid > ask:
            bid, ask = ask, bid  # a crossed quote of two venues: both prices were there
        series.quotes.append(Quote(at_ns, bid, sizes[0], ask, sizes[1], extra))

    def _file_bars(self) -> None:
        """Find out how long the bars of this file are, and that none is there twice."""
        smallest = _DAY_NS
        for symbol, bars in self._bars.items():
            bars.sort(key=_began)  # some vendors have the newest first, and files that were put together have any order
            for before, bar in pairwise(bars):
                gap = _began(bar) - _began(before)
                if not gap:
                    raise self._wrong(
                        bar.where,
                        f"its time is that of another bar of {symbol} ({before.where})",
                        "every bar needs a time of its own: take one of them out",
                    )
                smallest = min(smallest, gap)
        alone = smallest == _DAY_NS
        for symbol, bars in self._bars.items():
            daily = all(bar.begin_ns is None for bar in bars) or (alone and _are_daily(bars))
            if daily and len(bars) > 1 and min(map(_gap_days, bars, bars[1:])) > 4:
                raise UsageError(
                    f"{self._path}: bars of a week or more cannot be replayed",
                    "give daily bars, or shorter ones: the way a price took through a longer one is anybody's guess",
                )
            width_ns = self._width_ns or (MINUTE_NS if alone else smallest)
            taken = self._reading.series[symbol].bars
            for bar in bars:
                placed = bar._replace(where=f"{self._path} {bar.where}")
                taken.append((placed._replace(begin_ns=None) if daily else placed, 0 if daily else width_ns))

    # -------------------------------------------------------------------------------------------------- fields

    def _series(self, where: str, named: object) -> Series:
        symbol = self._symbol if _is_nothing(named) else str(named).strip().upper()
        if symbol is None:
            raise self._wrong(where, "it names no symbol", "--symbol names that of a file without a symbol column")
        series = self._reading.series.get(symbol)
        if series is None:
            if not _SYMBOL.fullmatch(symbol):
                raise self._wrong(where, f"{symbol!r} is no symbol")
            series = self._reading.series[symbol] = Series(symbol)
        return series

    def _moment_of(self, where: str, fields: Mapping[str, object]) -> tuple[int | None, date]:
        day, clock = fields.get("date"), fields.get("time")
        if day is None or clock is None:
            return self._moment(where, clock if day is None else day)
        return self._moment(where, f"{str(day).strip()} {str(clock).strip()}")

    def _moment(self, where: str, value: object) -> tuple[int | None, date]:
        key = str(value) if isinstance(value, list | dict) else value  # as JSON may have it: a time is neither
        found = self._moments.get(key)
        if found is None:
            try:
                found = self._parsed(value)
            except (ValueError, OverflowError):
                shown = "empty" if _is_nothing(value) else f"{str(value)[:40]!r}"
                raise self._wrong(where, f"its time is {shown}", "like 2024-01-02T14:30:00Z or 2024-01-02") from None
            self._moments[key] = found
        return found

    def _parsed(self, value: object) -> tuple[int | None, date]:
        if isinstance(value, date) and not isinstance(value, datetime):
            return None, value
        if isinstance(value, int | float) or (text := str(value).strip()).isdecimal():
            number = int(value) if isinstance(value, int | float) else int(text)
            if 19_000_101 <= number <= 21_001_231:
                return None, datetime.strptime(str(number), "%Y%m%d").replace(tzinfo=UTC).date()
            return _dated(_epoch_ns(number))
        matched = _AMERICAN.fullmatch(text)
        if matched is not None:
            text = f"{matched[3]}-{int(matched[1]):02d}-{int(matched[2]):02d}{matched[4] or ''}"
        if len(text) <= 10:
            return None, date.fromisoformat(text)
        fraction = _FRACTION.search(text)
        moment = datetime.fromisoformat(_FRACTION.sub("", text))
        if moment.tzinfo is None:
            self._naive = True
            moment = moment.replace(tzinfo=self._zone or NEW_YORK)
        nanoseconds = int(fraction[1].ljust(9, "0")[:9]) if fraction is not None else 0
        return _dated(int(moment.timestamp()) * SECOND_NS + nanoseconds)

    def _price(self, where: str, name: str, value: object, places: int) -> int:
        price = self._amount(where, name, value)
        units = int(price.scaleb(places).to_integral_value(ROUND_HALF_EVEN))
        if not 0 < units < 1 << 62:
            raise self._wrong(where, f"its {name} is {str(value)[:40]}", "prices are above zero")
        return units

    def _amount(self, where: str, name: str, value: object) -> Decimal:
        try:
            if isinstance(value, str):
                number = Decimal(value.strip().lstrip("$").replace(",", ""))
            elif isinstance(value, Decimal):
                number = value
            else:
                number = Decimal(repr(value))
        except InvalidOperation:
            number = Decimal("NaN")
        if not number.is_finite() or number < 0 or number >= _LARGEST:
            shown = "empty" if _is_nothing(value) else f"{str(value)[:40]!r}"
            raise self._wrong(where, f"its {name} is {shown}", "a number of zero or more is needed here")
        return number

    def _wrong(self, where: str, what: str, hint: str = "mend the row, or take it out") -> UsageError:
        return UsageError(f"{self._path} {where}: {what}", hint)


_SYMBOL: Final = re.compile(r"[A-Z0-9][A-Z0-9./-]{0,31}")
_NAMED: Final = re.compile(r"([A-Z]{1,5}(?:\.[A-Z])?)(?:[_-].*)?")
_AMERICAN: Final = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4})([ T].+)?")
_FRACTION: Final = re.compile(r"\.(\d+)")
_LARGEST: Final = Decimal(10**15)


def _symbol_of(path: str) -> str | None:
    """Return the symbol that a file is named after: ``AAPL.csv``, ``BRK.B_2024.parquet``."""
    name = Path(path).name
    for suffix in (".gz", *_SUFFIXES):
        name = name.removesuffix(suffix)
    matched = _NAMED.fullmatch(name)
    return matched[1] if matched is not None else None


def _roles(columns: Sequence[str]) -> dict[str, int]:
    """Return which column is what."""
    found: dict[str, int] = {}
    for index, name in enumerate(columns):
        if name == "S":  # Alpaca's letter for the symbol; s is a size
            found["symbol"] = index
            continue
        role = _ROLES.get(re.sub(r"[^a-z0-9]", "", str(name).lower()))
        if role is not None:
            found.setdefault(role, index)
    if "time" not in found and "date" not in found and columns and str(columns[0]).lower() in _UNNAMED:
        found["time"] = 0
    return found


_UNNAMED: Final = ("", "index", "unnamed: 0")


def _is_nothing(value: object) -> bool:
    return value is None or (not isinstance(value, int) and str(value).strip().lower() in _NOTHING)


def _epoch_ns(number: int) -> int:
    """Return nanoseconds for a count of seconds, milliseconds, microseconds or nanoseconds since 1970."""
    for digits, factor in ((11, SECOND_NS), (14, 1_000_000), (17, 1000), (20, 1)):
        if number < 10**digits:
            return number * factor
    raise ValueError(number)


def _dated(at_ns: int) -> tuple[int, date]:
    return at_ns, datetime.fromtimestamp(at_ns // SECOND_NS, NEW_YORK).date()


def _began(bar: Bar) -> int:
    return bar.day.toordinal() * _DAY_NS if bar.begin_ns is None else bar.begin_ns


def _gap_days(before: Bar, bar: Bar) -> int:
    return (bar.day - before.day).days


def _are_daily(bars: Sequence[Bar]) -> bool:
    """Tell whether all begin at midnight, as days are written: in New York, or in UTC."""
    for zone in (NEW_YORK, UTC):
        moments = (datetime.fromtimestamp((bar.begin_ns or 0) // SECOND_NS, zone) for bar in bars)
        if all((moment.hour, moment.minute, moment.second) == (0, 0, 0) for moment in moments):
            return True
    return False


@contextmanager
def _opened(path: str) -> "Iterator[io.BufferedReader[Any]]":
    """Open a file, unpacked if it is gzipped."""
    with open(path, "rb") as file:
        if file.peek(2)[:2] != b"\x1f\x8b":
            yield file
            return
        with gzip.GzipFile(fileobj=file) as unpacked, io.BufferedReader(unpacked) as reader:
            yield reader


def _parquet(path: str, file: BinaryIO) -> _Table:
    """Return a Parquet file as rows; times become nanoseconds, or text where they name no zone."""
    import pyarrow as arrow
    import pyarrow.compute
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(arrow.PythonFile(file))
        columns = []
        for column in table.columns:
            if not arrow.types.is_timestamp(column.type):
                columns.append(column.to_pylist())
            elif column.type.tz is not None:
                columns.append(column.cast(arrow.timestamp("ns", "UTC")).cast(arrow.int64()).to_pylist())
            else:
                columns.append(pyarrow.compute.strftime(column, "%Y-%m-%dT%H:%M:%S").to_pylist())
    except (arrow.ArrowException, OSError) as error:
        raise UsageError(f"cannot read {path}: {str(error)[:200]}", "give a Parquet file with bars or ticks") from error
    return _Table(table.column_names, enumerate(zip(*columns, strict=True), 1), "row")
