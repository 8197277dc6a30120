"""Columns of history as CSV, tab-separated text or JSON lines, without a Python object for a cell.

Whatever repeats is written once: the different values of a column become text, and rows take theirs by number. A row is then
one joined string, and all the rows of a batch lie in one buffer, ready to be written. Numbers are in plain notation with
the digits that were sent, times RFC 3339 in UTC with the digits that count.
"""

import datetime as dt
import json
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from alpacli.domain.arrows import integer, texts
from alpacli.domain.arrows import text as scalar
from alpacli.domain.batches import COLUMNS

if TYPE_CHECKING:
    import pyarrow

Style = Literal["csv", "tsv", "jsonl"]

_SECOND_NS: Final = 1_000_000_000
_DAY_S: Final = 86_400
_NEEDS_QUOTES: Final = (",", '"', "\n", "\r")


def header(table: "pyarrow.Table", style: Style) -> bytes:
    """Return the line above the rows; JSON lines have none."""
    if style == "jsonl":
        return b""
    return ({"csv": ",", "tsv": "\t"}[style].join(table.column_names) + "\n").encode()


def text(table: "pyarrow.Table", style: Style) -> "pyarrow.Buffer | bytes":
    """Return the rows as text, a line each."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not table.num_rows:
        return b""
    parts: list[Any] = []
    last = len(table.column_names) - 1
    for place, name in enumerate(table.column_names):
        if style == "jsonl":
            before, after = ("{" if place == 0 else ",") + json.dumps(name) + ":", "}\n" if place == last else ""
        else:
            before, after = "", "\n" if place == last else {"csv": ",", "tsv": "\t"}[style]
        around = _Around(style, before, after, raw_json=place > 1 and _is_foreign(table, place))
        parts += _cells(table[name].combine_chunks(), around)
    lines = pc.binary_join_element_wise(*parts, scalar("")) if len(parts) > 1 else parts[0]
    if isinstance(lines, pa.Scalar):
        lines = pa.repeat(lines, table.num_rows)
    _, offsets, data = lines.buffers()
    ends = memoryview(offsets).cast("i")
    return data.slice(ends[lines.offset], ends[lines.offset + len(lines)] - ends[lines.offset])


class _Around(NamedTuple):
    """What stands around every value of a column: it is put around each different value once, not around each row's."""

    style: Style
    before: str
    after: str
    raw_json: bool = False


def _is_foreign(table: "pyarrow.Table", place: int) -> bool:
    """Tell whether a column holds JSON text: a field that the program does not know (they stand behind the known ones)."""
    name = table.column_names[place]
    return not any(name in columns for columns in COLUMNS.values())


def _cells(column: "pyarrow.Array", around: _Around) -> "list[pyarrow.Array | pyarrow.Scalar]":
    """Return a column as parts of a line; nulls are empty, in JSON ``null``. A column of one value is one scalar."""
    import pyarrow as pa

    kind, style = column.type, around.style
    if pa.types.is_timestamp(kind):
        return _times(column, around)
    if pa.types.is_floating(kind):
        return [_repeated(column, around, _float_texts)]
    if pa.types.is_integer(kind):
        return [_repeated(column, around, lambda values: values.cast(pa.string()))]
    if pa.types.is_decimal(kind):
        return [_repeated(column, around, lambda values: texts([_plain(value) for value in values.to_pylist()]))]
    if pa.types.is_list(kind):
        column = texts([None if value is None else _compact(tuple(value)) for value in column.to_pylist()])
        around = around._replace(raw_json=True)
    if around.raw_json and style == "jsonl":
        return [_repeated(column, around, lambda values: values)]
    write = {"csv": _csv_text, "tsv": _tsv_text, "jsonl": _json_text}[style]
    return [_repeated(column, around, lambda values: texts([write(value) for value in values.to_pylist()]))]


def _times(column: "pyarrow.Array", around: _Around) -> "list[pyarrow.Array | pyarrow.Scalar]":
    """Return date, time of day and, where there are any, digits below the second."""
    import pyarrow as pa
    import pyarrow.compute as pc

    quote = '"' if around.style == "jsonl" else ""
    begin, end = around.before + quote, "Z" + quote + around.after
    at_ns = column.cast(pa.int64())
    seconds = pc.divide(at_ns, integer(_SECOND_NS))
    below = pc.subtract(at_ns, pc.multiply(seconds, integer(_SECOND_NS)))
    days = pc.divide(seconds, integer(_DAY_S))
    clock = pc.subtract(seconds, pc.multiply(days, integer(_DAY_S)))
    whole = pc.equal(below, integer(0))
    in_day = _Around("tsv", "", "" if whole.false_count else end)
    parts = [
        _repeated(
            days, _Around("tsv", begin, ""), lambda values: texts([_day_text(day) for day in values.to_pylist()])
        ),
        _repeated(clock, in_day, lambda values: texts([_clock_text(second) for second in values.to_pylist()])),
    ]
    if whole.false_count:
        digits = pc.utf8_rtrim(pc.utf8_lpad(below.cast(pa.string()), 9, "0"), "0")
        dotted = pc.binary_join_element_wise(scalar("."), digits, scalar(""))
        parts += [pc.if_else(whole, scalar(""), dotted), scalar(end)]
    return parts


def _repeated(column: "pyarrow.Array", around: _Around, write: Any) -> "pyarrow.Array | pyarrow.Scalar":
    """Write each different value once, with what stands around it, and let every row take its own."""
    import pyarrow.compute as pc

    encoded = column.dictionary_encode()
    written, indices = write(encoded.dictionary), encoded.indices
    if around.before or around.after:
        written = pc.binary_join_element_wise(scalar(around.before), written, scalar(around.after), scalar(""))
    empty = scalar(around.before + ("null" if around.style == "jsonl" else "") + around.after)
    if not len(written):
        return empty
    if len(written) == 1 and not indices.null_count:
        return written[0]
    taken = written.take(indices)
    return taken.fill_null(empty) if taken.null_count else taken


def _float_texts(values: "pyarrow.Array") -> "pyarrow.StringArray":
    """Return the shortest texts that are these doubles; Arrow writes large and tiny ones with exponents."""
    import pyarrow as pa
    import pyarrow.compute as pc

    written = values.cast(pa.string())
    if not pc.match_substring(written, "e").true_count:
        return written
    return texts([_plain(value) for value in values.to_pylist()])


def _plain(value: float | Decimal | None) -> str | None:
    if value is None:
        return None
    written = format(Decimal(repr(value)) if isinstance(value, float) else value, "f")
    return written.rstrip("0").rstrip(".") if "." in written else written


@lru_cache(maxsize=4096)
def _compact(values: tuple[Any, ...]) -> str:
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"))


@lru_cache(maxsize=4096)
def _day_text(day: int) -> str:
    return (dt.date(1970, 1, 1) + dt.timedelta(day)).isoformat() + "T"


@lru_cache(maxsize=_DAY_S)
def _clock_text(second: int) -> str:
    return f"{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}"


def _csv_text(value: str | None) -> str | None:
    if value is None or not any(letter in value for letter in _NEEDS_QUOTES):
        return value
    return '"' + value.replace('"', '""') + '"'


def _tsv_text(value: str | None) -> str | None:
    if value is None or value.isprintable():
        return value
    return "".join(letter if letter.isprintable() else " " for letter in value)


def _json_text(value: str | None) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False)
