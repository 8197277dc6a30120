"""Where rows of history go, and in which form: text, JSON, Parquet or Arrow, to standard output or to a file.

Rows are written as they come, some ten thousand at a time, so memory does not grow with them. A file appears under its name
when it is whole: until then it has another, which an error or Ctrl-C takes away.
"""

import contextlib
import io
import os
import sys
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, Protocol

from alpacli.cli.output import Printer, View
from alpacli.domain.batches import Batches, Changed, Copy, decimals_as_doubles, empty, joined, with_columns
from alpacli.domain.series import Kind
from alpacli.errors import UsageError
from alpacli.history.kept_text import Writer
from alpacli.ports import Clock
from alpacli.render import columns

if TYPE_CHECKING:
    import pyarrow

FORMATS: Final = ("table", "tsv", "csv", "json", "jsonl", "parquet", "arrow")
_SUFFIXES: Final = {
    ".csv": "csv", ".tsv": "tsv", ".txt": "tsv", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".parquet": "parquet", ".pq": "parquet", ".arrow": "arrow", ".feather": "arrow",
}  # fmt: skip
_ROWS_AT_ONCE: Final = 65_536
_THREADS: Final = 2
_PATIENCE_S: Final = 0.5
_SHOWN: Final = 40


def chosen_format(printer: Printer, wanted: str | None, path: str | None) -> str:
    """Return the format: the one that was named, else what the file's name or the place of the output calls for.

    Raises:
        UsageError: no such format, two at once, or a format that a terminal cannot show.
    """
    asked = printer.options
    common = "json" if asked.json or asked.jq is not None else "csv" if asked.csv else None
    if wanted is not None and wanted not in FORMATS:
        raise UsageError(f"there is no format {wanted!r}", f"choose among {', '.join(FORMATS)}")
    if wanted is not None and common is not None and wanted != common:
        raise UsageError(f"--format {wanted} cannot be combined with --json, --jq or --csv", "choose one format")
    suffix = os.path.splitext(path or "")[1].lower()
    if path is not None and wanted is None and common is None and suffix not in _SUFFIXES:
        raise UsageError(
            f"the name {os.path.basename(path)!r} does not say which format to write",
            f"give --format, or a name that ends in {', '.join(_SUFFIXES)}",
        )
    found = wanted or common or _SUFFIXES.get(suffix)
    if found is None:
        found = "table" if printer.draws_tables else "tsv"
    if found == "table" and path is not None:
        raise UsageError("a table is for the terminal", "choose csv, jsonl, parquet … for a file")
    if found in ("parquet", "arrow") and path is None and printer.on_terminal:
        raise UsageError(f"a terminal cannot show {found}", "write it to a file with -o FILE")
    if asked.jq is not None and path is not None:
        raise UsageError("--jq writes to standard output", f"leave -o away: … > {path}")
    return found


class Sink(Protocol):
    def write(self, table: "pyarrow.Table") -> None: ...

    def end(self) -> None: ...


def export(
    printer: Printer, kind: Kind, batches: Batches, name: str, path: str | None, when_read: Callable[[], None]
) -> tuple[int, set[str]]:  # fmt: skip
    """Write every batch; return how many rows there were, of which symbols. ``when_read``: the last one has come.

    Raises:
        OutputClosed: the reader left.
        AlpacliError: the file cannot be written.
    """
    fields = _fields(printer, kind)
    with _opened(printer, path) as out:
        copied = None if fields is not None else _copied(batches, name, out, to_file=path not in (None, "-"))
        if copied is not None:
            return copied.rows, copied.symbols
        rows = 0
        symbols: set[str] = set()

        def tables() -> "Iterator[pyarrow.Table]":
            for batch in batches:
                symbols.add(batch.symbol)
                yield batch.table

        sink = _sink(printer, kind, name, out, fields)
        for table in _portions(tables()):
            rows += table.num_rows
            sink.write(table if fields is None else table.select(fields))
        when_read()
        sink.end()
    return rows, symbols


def _copied(batches: Batches, name: str, out: Any, *, to_file: bool) -> Copy | None:
    """Copy kept files instead of looking at rows, where that gives the same; return what was copied.

    It starts when everything is there, so CSV into a pipe is not made like this: whoever reads it gets rows as they come.
    """
    if name != "parquet" and not (name == "csv" and to_file):
        return None
    copy = batches.copy(None if name == "parquet" else Writer(_csv_header, _csv_rows))
    if copy is None:
        return None
    try:
        for block in copy.blocks:
            out.write(block)
    except Changed:
        if not to_file:
            raise
        out.seek(0)
        out.truncate()
        return None
    return copy


def _csv_header(table: "pyarrow.Table") -> bytes:
    return columns.header(table, "csv")


def _csv_rows(table: "pyarrow.Table") -> Any:
    return columns.text(table, "csv")


def _fields(printer: Printer, kind: Kind) -> list[str] | None:
    if printer.options.fields is None:
        return None
    names = [name.strip() for name in printer.options.fields.split(",") if name.strip()]
    known = empty(kind).column_names
    wrong = [name for name in names if name not in known]
    if wrong or not names:
        raise UsageError(f"there is no field {wrong[0]!r}" if wrong else "--fields names no field", ", ".join(known))
    return names


def _portions(tables: "Iterator[pyarrow.Table]") -> "Iterator[pyarrow.Table]":
    """Put small tables together; the first comes at once, for who waits at the other end of a pipe."""
    waiting: list[pyarrow.Table] = []
    count, enough = 0, 1
    for table in tables:
        waiting.append(table)
        count += table.num_rows
        if count >= enough:
            yield joined(waiting)
            waiting, count, enough = [], 0, _ROWS_AT_ONCE
    if waiting:
        yield joined(waiting)


def _sink(
    printer: Printer, kind: Kind, name: str, out: Any, fields: Sequence[str] | None
) -> Sink:  # fmt: skip
    head = empty(kind) if fields is None else empty(kind).select(fields)
    if name == "table":
        return _Table(printer)
    if printer.options.jq is not None:
        return _Collected(printer)
    if name == "json":
        return _Json(out, indent=printer.on_terminal and out is None)
    if name == "parquet":
        return _Parquet(printer, out, head)
    if name == "arrow":
        return _Arrow(printer, out, head)
    style: Any = name
    return _Text(out, head, style)


class _Lines:
    """Turns tables into text in two threads and keeps their order: Arrow computes without Python's lock."""

    def __init__(self, style: columns.Style) -> None:
        self._style: columns.Style = style
        self._made: deque[Future[Any]] = deque()
        self._pool: ThreadPoolExecutor | None = None

    def add(self, table: "pyarrow.Table") -> Iterator[Any]:
        """Take a table, and give what is ready of those before it."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_THREADS, "alpacli text")
        self._made.append(self._pool.submit(columns.text, table, self._style))
        while self._made and (len(self._made) > _THREADS or self._made[0].done() or table.num_rows < _ROWS_AT_ONCE):
            yield self._made.popleft().result()

    def rest(self) -> Iterator[Any]:
        while self._made:
            yield self._made.popleft().result()
        if self._pool is not None:
            self._pool.shutdown()


class _Text:
    def __init__(self, out: Any, head: "pyarrow.Table", style: columns.Style) -> None:
        self._out = out
        self._style: columns.Style = style
        self._lines = _Lines(style)
        self._head = head
        self._begun = False

    def write(self, table: "pyarrow.Table") -> None:
        if not self._begun:
            self._begin(table)
        if self._style != "jsonl":  # the header is written: later fields have no place any more
            table = with_columns(table, self._head.column_names)
        for text in self._lines.add(table):
            self._out.write(text)

    def _begin(self, table: "pyarrow.Table") -> None:
        self._head, self._begun = table, True
        self._out.write(columns.header(table, self._style))

    def end(self) -> None:
        if not self._begun:
            self._begin(self._head)
        for text in self._lines.rest():
            self._out.write(text)


class _Json:
    """One array, a row a line."""

    def __init__(self, out: Any, *, indent: bool) -> None:
        self._out = out
        self._lines = _Lines("jsonl")
        self._before = b"["
        self._gap = b"\n" if indent else b""

    def write(self, table: "pyarrow.Table") -> None:
        self._write(self._lines.add(table))

    def _write(self, texts: Iterator[Any]) -> None:
        for text in texts:
            # a line feed inside a text is escaped, so the ones here are between rows
            lines = bytes(text)[:-1].replace(b"}\n{", b"}," + self._gap + b"{")
            self._out.write(self._before + self._gap + lines)
            self._before = b","

    def end(self) -> None:
        self._write(self._lines.rest())
        self._out.write(b"[]\n" if self._before == b"[" else self._gap + b"]\n")


class _Columns(ABC):
    """Columns of one type throughout: what needs more digits than a double has is rounded to one, and that is said."""

    def __init__(self, printer: Printer, out: Any, head: "pyarrow.Table") -> None:
        self._printer = printer
        self._out = out
        self._head = head
        self._rounded = 0
        self._writer: Any = None

    def write(self, table: "pyarrow.Table") -> None:
        if self._writer is None:
            self._start(table)
        doubles, rounded = decimals_as_doubles(with_columns(table, self._head.column_names))
        self._rounded += rounded
        self._writer.write_table(doubles)

    def _start(self, table: "pyarrow.Table") -> None:
        self._head = decimals_as_doubles(table.slice(0, 0))[0]
        self._writer = self._opened(self._head.schema)

    @abstractmethod
    def _opened(self, schema: "pyarrow.Schema") -> Any:
        """Return pyarrow's writer of this format."""

    def end(self) -> None:
        if self._writer is None:
            self._start(self._head)
        self._writer.close()
        if self._rounded:
            self._printer.notice(
                f"{self._rounded:,} numbers have more digits than the doubles of this format and were rounded;"
                " csv and jsonl have every digit"
            )


class _Parquet(_Columns):
    def _opened(self, schema: "pyarrow.Schema") -> Any:
        import pyarrow.parquet as pq

        return pq.ParquetWriter(self._out, schema, compression="zstd")


class _Arrow(_Columns):
    """The Arrow IPC stream, which readers take as a file and from a pipe."""

    def _opened(self, schema: "pyarrow.Schema") -> Any:
        import pyarrow as pa

        return pa.ipc.new_stream(self._out, schema)


class _Collected:
    """For jq, which looks at everything at once."""

    def __init__(self, printer: Printer) -> None:
        self._printer = printer
        self._parts: list[bytes] = []

    def write(self, table: "pyarrow.Table") -> None:
        self._parts.append(bytes(columns.text(table, "jsonl")))

    def end(self) -> None:
        array = b"[" + b"".join(self._parts).strip().replace(b"}\n{", b"},{") + b"]"
        self._printer.show(View(list, "rows"), None, array, None)


class _Table:
    """The first and the last rows, for people: a million rows on a terminal help nobody."""

    def __init__(self, printer: Printer) -> None:
        self._printer = printer
        self._first: pyarrow.Table | None = None
        self._last: pyarrow.Table | None = None
        self._rows = 0

    def write(self, table: "pyarrow.Table") -> None:
        self._rows += table.num_rows
        have = 0 if self._first is None else self._first.num_rows
        if have < _SHOWN:
            part = table.slice(0, _SHOWN - have)
            self._first = part if self._first is None else joined([self._first, part])
            table = table.slice(_SHOWN - have)
        if table.num_rows:
            last = table if self._last is None else joined([self._last, table])
            self._last = last.slice(max(last.num_rows - _SHOWN, 0))

    def end(self) -> None:
        from alpacli.render.history import rows

        shown = [part for part in (self._first, self._last) if part is not None]
        left_out = self._rows - sum(part.num_rows for part in shown)
        self._printer.draw(rows(shown, left_out, self._printer.frame()))


# ------------------------------------------------------------------------------------------------------ places


class _Stdout(io.RawIOBase):
    def __init__(self, printer: Printer) -> None:
        self._printer = printer

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._printer.write(memoryview(data))
        return len(memoryview(data))


@contextlib.contextmanager
def _opened(printer: Printer, path: str | None) -> Iterator[Any]:
    if path is None or path == "-":
        yield _Stdout(printer)
        return
    from alpacli.history.export import whole_file

    with whole_file(path) as file:
        yield file


class ProgressBar:
    """How far a download is, on stderr while people watch it there; otherwise nothing."""

    def __init__(self, clock: Clock, *, shown: bool) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._shown = shown and sys.stderr.isatty()
        self._clock = clock
        self._begin_s = clock.monotonic()
        self._changing = threading.Lock()

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take it away, for good: what is written next must not come into its line."""
        with self._changing:
            self._shown = False
            if self._bar is not None:
                self._bar.stop()

    def update(self, done: int, total: int, rows: int) -> None:
        """Show how far it is, once it has taken so long that somebody may wonder."""
        with self._changing:
            if self._shown and self._clock.monotonic() - self._begin_s >= _PATIENCE_S:
                self._show(done, total, rows)

    def _show(self, done: int, total: int, rows: int) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task("downloading", total=total)
        self._bar.update(self._task, total=total, completed=done, description=f"{rows:,} rows")

    def waiting(self, seconds: float, reason: str) -> None:
        """Say why nothing moves."""
        if self._bar is not None:
            self._bar.update(self._task, description=f"waiting {seconds:.0f} s: {reason}")
