"""Market history that was downloaded is kept: a Parquet file per series, symbol and month, which says itself what it covers.

The intervals for which everything is known stand in the file's own metadata, so rows and coverage change together, in one
rename: a killed process leaves the old file or the new one, and at worst a temporary one. Writers of the same symbol wait for
each other (flock); readers never wait. A file that cannot be read is a hole, not an error. Files of bars of a day or longer
hold a year, those of trades and quotes an hour; intervals without a single row stand together in a small file. (ADR 16)
"""

import contextlib
import datetime as dt
import fcntl
import json
import os
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote, unquote

from alpacli.domain.arrows import integer, text
from alpacli.domain.batches import between, empty, first_and_last_ns, joined
from alpacli.domain.series import SECOND_NS, Series, Span, cut, union
from alpacli.history import kept_text
from alpacli.history.row_groups import Footer, NotUnderstood, read_footer

if TYPE_CHECKING:
    import pyarrow

_VERSION: Final = 1
_META: Final = b"alpacli"
_SUFFIX: Final = ".parquet"
_LOCK: Final = ".lock"
_CHECKED: Final = ".checked"
_EMPTY: Final = ".empty"
_PERIOD: Final = re.compile(r"[0-9]{4}(-[0-9]{2}){0,3}")


class Gone(Exception):  # what happened
    """A file that was there a moment ago was removed or cannot be read."""


class KeptFile(NamedTuple):
    """One file of the store: what it holds (``covered`` in nanoseconds) and since when."""

    path: str
    series: Series
    symbol: str
    period: str
    rows: int
    bytes: int
    covered: list[Span]
    as_of: str
    problem: str = ""


class BarStore:
    """The kept history of one source below ``root``; ``today`` is the date that files are stamped with."""

    def __init__(self, root: str) -> None:
        self.root = root

    # ------------------------------------------------------------------------------------------------- reading

    def covered(self, series: Series, symbol: str, within: Span) -> list[Span]:
        """Return the intervals of which everything is known."""
        return self.look(series, symbol, within)[0]

    def look(self, series: Series, symbol: str, within: Span) -> tuple[list[Span], list[Footer] | None]:
        """Return the intervals of which everything is known, and the files: ``None`` when they hold rows outside too."""
        spans: list[Span] = _read_empty(self._folder(series, symbol))
        files: list[Footer] | None = []
        for period in self._periods(series, symbol, within):
            with contextlib.suppress(Gone):
                footer = _footer(self._path(series, symbol, period))
                spans += _meta(footer)[0]
                if not footer.rows:
                    continue
                times = footer.times()
                if files is None or times is None or times[0] < within[0] or times[1] >= within[1]:
                    files = None
                else:
                    files.append(footer)
        return cut(spans, within), files

    def read(self, series: Series, symbol: str, within: Span) -> "Iterator[pyarrow.Table]":
        """Give the rows of a covered interval, a table a file, in order of time.

        Raises:
            Gone: a file has vanished or is broken; what was given until then is right.
        """
        for period in self._periods(series, symbol, within):
            path = self._path(series, symbol, period)
            table = _read_table(path)
            low, high = period_span(period)
            if within[0] > low or within[1] < high:
                table = between(table, *within)
            if table.num_rows:
                yield table

    def symbol_of(self, path: str) -> str:
        return unquote(os.path.basename(os.path.dirname(path)))

    def read_file(self, path: str) -> "pyarrow.Table":
        """Read one file.

        Raises:
            Gone: it is not there, or broken.
        """
        return _read_table(path)

    # ------------------------------------------------------------------------------------------------- writing

    def write(
        self, series: Series, symbol: str, tables: "Sequence[pyarrow.Table]", within: Span, today: dt.date
    ) -> None:
        """Keep what is known of an interval: its rows replace whatever was there.

        Raises:
            OSError: the disk is full or cannot be written; nothing has changed.
        """
        if within[0] >= within[1]:
            return
        kept = [table for table in tables if table.num_rows]
        table = joined(kept) if kept else empty(series.kind)
        folder = self._folder(series, symbol)
        os.makedirs(folder, exist_ok=True)
        with _locked(folder):
            at = within[0]
            nothing: list[Span] = []
            while at < within[1]:
                period = period_of(series, at)
                _, until = period_span(period)
                end = min(until, within[1])
                rows = between(table, at, end)
                if rows.num_rows or os.path.exists(self._path(series, symbol, period)):
                    self._merge(series, symbol, period, rows, (at, end), today)
                else:
                    nothing.append((at, end))
                at = end
            if nothing:
                _write_empty(folder, union([*_read_empty(folder), *nothing]))

    def forget(self, series: Series, symbol: str, *, up_to: dt.date) -> int:
        """Remove what was downloaded on a day or earlier; return how many files went."""
        folder = self._folder(series, symbol)
        if not os.path.isdir(folder):
            return 0
        gone = 0
        with _locked(folder):
            for period in _names(folder):
                path = self._path(series, symbol, period)
                with contextlib.suppress(Gone):
                    if _read_meta(path)[1] > up_to.isoformat():
                        continue
                _unlink(path)
                gone += 1
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(folder, _EMPTY))
        return gone

    def _merge(
        self, series: Series, symbol: str, period: str, table: "pyarrow.Table", within: Span, today: dt.date
    ) -> None:
        path = self._path(series, symbol, period)
        covered, as_of = [within], today.isoformat()
        if os.path.exists(path):
            with contextlib.suppress(Gone):
                known, before = _read_meta(path)
                old = _read_table(path)
                low, high = period_span(period)
                parts = [between(old, low, within[0]), table, between(old, within[1], high)]
                parts = [part for part in parts if part.num_rows]
                table = joined(parts) if parts else empty(series.kind)
                if union([*known, within]) != [within]:
                    as_of = min(before, as_of)
                covered = union([*known, within])
        _write_table(path, table, covered, as_of)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(kept_text.path_of(path))  # it is that of the file before

    # ----------------------------------------------------------------------------------------------- adjustments

    def oldest(self, series: Series, symbol: str) -> dt.date | None:
        """Return the day of the oldest download that is still used, ``None`` when nothing is kept."""
        folder = self._folder(series, symbol)
        days = []
        for period in _names(folder) if os.path.isdir(folder) else ():
            with contextlib.suppress(Gone):
                days.append(dt.date.fromisoformat(_read_meta(self._path(series, symbol, period))[1]))
        return min(days, default=None)

    def checked(self, series: Series, symbol: str) -> dt.date | None:
        """Return the day on which corporate actions were last looked up for what is kept."""
        try:
            with open(os.path.join(self._folder(series, symbol), _CHECKED), encoding="ascii") as file:
                return dt.date.fromisoformat(file.read(10))
        except (OSError, ValueError):
            return None

    def mark_checked(self, series: Series, symbol: str, today: dt.date) -> None:
        path = os.path.join(self._folder(series, symbol), _CHECKED)
        with _replacing(path) as temporary, open(temporary, "w", encoding="ascii") as file:
            file.write(today.isoformat())

    # -------------------------------------------------------------------------------------------- looking after

    def files(self) -> Iterator[KeptFile]:
        """Give every file of the store; one that cannot be read has a ``problem``."""
        for folder, folders, names in os.walk(self.root):
            folders.sort()
            place = _place(os.path.relpath(folder, self.root))
            if place is None:
                continue
            series, symbol = place
            for name in sorted(names):
                if not name.endswith(_SUFFIX):
                    continue
                path, period = os.path.join(folder, name), name.removesuffix(_SUFFIX)
                try:
                    size = os.path.getsize(path)
                except FileNotFoundError:
                    continue  # pruned by another process
                with contextlib.suppress(FileNotFoundError):
                    size += os.path.getsize(kept_text.path_of(path))
                try:
                    footer = _footer(path)
                    covered, as_of = _meta(footer)
                except Gone as error:
                    yield KeptFile(path, series, symbol, period, 0, size, [], "", str(error))
                else:
                    yield KeptFile(path, series, symbol, period, footer.rows, size, covered, as_of)

    def check(self, file: KeptFile) -> str:
        """Read a whole file and say what is wrong with it; empty when nothing is."""
        try:
            return file.problem or _wrong_with(file, _read_table(file.path))
        except Gone as error:
            return str(error)

    def remove(self, file: KeptFile) -> None:
        with contextlib.suppress(FileNotFoundError), _locked(os.path.dirname(file.path)):
            _unlink(file.path)

    def forget_empty(self, places: Sequence[tuple[Series, str]]) -> None:
        """Forget which intervals of some series of symbols hold nothing."""
        for folder in {self._folder(series, symbol) for series, symbol in places}:
            with contextlib.suppress(FileNotFoundError), _locked(folder):
                os.unlink(os.path.join(folder, _EMPTY))

    def sweep(self) -> int:
        """Remove what killed processes left half written, and empty folders; return how many files went."""
        gone = 0
        for folder, _, names in os.walk(self.root, topdown=False):
            leftovers = [name for name in names if ".tmp-" in name]
            if leftovers:
                with _locked(folder):  # nobody is writing here now
                    for name in leftovers:
                        with contextlib.suppress(FileNotFoundError):
                            os.unlink(os.path.join(folder, name))
                            gone += 1
            if folder != self.root and not any(name.endswith(_SUFFIX) for name in names):
                with contextlib.suppress(OSError):  # not empty: folders below it hold files
                    for name in (_LOCK, _CHECKED, _EMPTY):
                        if name in names:
                            os.unlink(os.path.join(folder, name))
                    os.rmdir(folder)
        return gone

    def _periods(self, series: Series, symbol: str, within: Span) -> list[str]:
        folder = self._folder(series, symbol)
        if not os.path.isdir(folder) or within[0] >= within[1]:
            return []
        first, last = period_of(series, within[0]), period_of(series, within[1] - 1)
        return [name for name in _names(folder) if first <= name <= last]

    def _folder(self, series: Series, symbol: str) -> str:
        parts = [series.kind, f"market={series.market}", f"feed={series.feed}"]
        if series.kind == "bars":
            parts += [f"adjustment={series.adjustment}", f"timeframe={series.timeframe}"]
        return os.path.join(self.root, *parts, quote(symbol, safe=""))

    def _path(self, series: Series, symbol: str, period: str) -> str:
        return os.path.join(self._folder(series, symbol), period + _SUFFIX)


def period_of(series: Series, at_ns: int) -> str:
    """Return the name of the file that a moment belongs to: a UTC month; a year for long bars, an hour for ticks."""
    step = series.step
    length = 13 if step is None else 7 if step.within_a_day else 4
    return dt.datetime.fromtimestamp(at_ns // SECOND_NS, dt.UTC).strftime("%Y-%m-%d-%H")[:length]


def period_span(name: str) -> Span:
    """Return the interval of a file."""
    parts = [int(part) for part in name.split("-")]
    year, month, day, hour = (*parts, *(1, 1, 1, 0)[len(parts) :])
    first = dt.datetime(year, month, day, hour, tzinfo=dt.UTC)
    if len(parts) == 4:
        after = first + dt.timedelta(hours=1)
    elif len(parts) == 2:
        after = (first + dt.timedelta(31)).replace(day=1)
    else:
        after = first.replace(year=first.year + 1)
    return int(first.timestamp()) * SECOND_NS, int(after.timestamp()) * SECOND_NS


def _wrong_with(file: KeptFile, table: "pyarrow.Table") -> str:
    import pyarrow as pa
    import pyarrow.compute as pc

    if not table.num_rows:
        return ""
    times = table["timestamp"].combine_chunks().cast(pa.int64())
    steps = pc.subtract(times.slice(1), times.slice(0, len(times) - 1))
    if pc.less(steps, integer(1 if file.series.kind == "bars" else 0)).true_count:
        return "rows are doubled or out of order"
    first, last = first_and_last_ns(table)
    span = period_span(file.period)
    if first < span[0] or last >= span[1] or cut(file.covered, span) != file.covered:
        return "it holds rows of another time"
    if pc.not_equal(table["symbol"].combine_chunks(), text(file.symbol)).true_count:
        return "it holds rows of another symbol"
    inside = sum(between(table, *part).num_rows for part in file.covered)
    return "" if inside == table.num_rows else "it holds rows that it does not say it covers"


def _names(folder: str) -> list[str]:
    names = [name.removesuffix(_SUFFIX) for name in os.listdir(folder) if name.endswith(_SUFFIX)]
    return sorted(name for name in names if _PERIOD.fullmatch(name))


def _place(relative: str) -> tuple[Series, str] | None:
    parts = relative.split(os.sep)
    if len(parts) not in (4, 6) or parts[0] not in ("bars", "trades", "quotes"):
        return None
    named = dict(part.split("=", 1) for part in parts[1:-1] if "=" in part)
    try:
        kind: Any = parts[0]
        market: Any = named["market"]
        series = Series(kind, market, named["feed"], named.get("timeframe", ""), named.get("adjustment", "raw"))
    except KeyError:
        return None
    return series, unquote(parts[-1])


# ------------------------------------------------------------------------------------------------------- files


def _footer(path: str) -> Footer:
    try:
        return read_footer(path)
    except NotUnderstood as error:
        raise Gone(str(error)) from error
    except OSError as error:
        raise Gone(f"it cannot be read: {error.strerror}") from error


def _meta(footer: Footer) -> tuple[list[Span], str]:
    try:
        meta = json.loads(footer.note(_META) or b"")
        if meta["version"] != _VERSION:
            raise Gone("another version of alpacli wrote it")
        return [(int(a), int(b)) for a, b in meta["covered"]], str(meta["as_of"])
    except (KeyError, ValueError, TypeError) as error:
        raise Gone("its note of what it covers cannot be read") from error


def _read_meta(path: str) -> tuple[list[Span], str]:
    return _meta(_footer(path))


def _read_empty(folder: str) -> list[Span]:
    """Return the intervals that are known to hold nothing and have no file of their own."""
    try:
        with open(os.path.join(folder, _EMPTY), encoding="ascii") as file:
            return [(int(a), int(b)) for a, b in json.load(file)]
    except (OSError, ValueError, TypeError):
        return []


def _write_empty(folder: str, spans: list[Span]) -> None:
    with _replacing(os.path.join(folder, _EMPTY)) as temporary, open(temporary, "w", encoding="ascii") as file:
        json.dump(spans, file)


def _read_table(path: str) -> "pyarrow.Table":
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            table = file.read(use_threads=False)
    except (OSError, pa.ArrowException) as error:
        why = getattr(error, "strerror", None)  # of the system; what Arrow finds wrong with bytes has none
        raise Gone(f"it cannot be read: {why}" if why else "its rows are damaged") from error
    return table.replace_schema_metadata(None)


def _write_table(path: str, table: "pyarrow.Table", covered: list[Span], as_of: str) -> None:
    import pyarrow.parquet as pq

    meta = json.dumps({"version": _VERSION, "covered": covered, "as_of": as_of}).encode()
    with _replacing(path) as temporary:
        pq.write_table(
            table.replace_schema_metadata({_META: meta}), temporary, compression="zstd", store_schema=True
        )  # zstd: half of snappy's size at the same speed of reading


def _unlink(path: str) -> None:
    """Remove a file and the text beside it."""
    os.unlink(path)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(kept_text.path_of(path))


@contextlib.contextmanager
def _replacing(path: str) -> Iterator[str]:
    """Give a temporary name that takes the place of ``path`` when the block ends well."""
    temporary = f"{path}.tmp-{os.getpid()}"
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


@contextlib.contextmanager
def _locked(folder: str) -> Iterator[None]:
    """Be the only writer of a folder; the kernel ends the lock with the process."""
    while True:
        lock = os.open(os.path.join(folder, _LOCK), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                same = os.stat(os.path.join(folder, _LOCK)).st_ino == os.fstat(lock).st_ino
            except FileNotFoundError:
                same = False  # the folder was pruned while we waited
            if not same:
                os.makedirs(folder, exist_ok=True)
                continue
            yield
            return
        finally:
            os.close(lock)
