"""Columns of history as CSV, tab-separated text or JSON lines, without a Python object for a cell.

Whatever repeats is written once: the different values of a column become text, and rows take theirs by number. A row is then
one joined string, and all the rows of a batch lie in one buffer, ready to be written. Numbers are in plain notation with
the digits that were sent, times RFC 3339 in UTC with the digits that count.
"""

import datetime as dt
import json
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal

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
    for place, name in enumerate(table.column_names):
        if style == "jsonl":
            parts.append(("{" if place == 0 else ",") + json.dumps(name) + ":")
        elif place:
            parts.append("," if style == "csv" else "\t")
        parts.append(cells(table[name].combine_chunks(), style, raw_json=place > 1 and _is_foreign(table, place)))
    parts.append("}\n" if style == "jsonl" else "\n")
    # joined one after the other, with nothing between
    lines = pc.binary_join_element_wise(
        *[scalar(part) if isinstance(part, str) else part for part in parts], scalar("")
    )
    if isinstance(lines, pa.ChunkedArray):
        lines = lines.combine_chunks()
    _, offsets, data = lines.buffers()
    ends = memoryview(offsets).cast("i")
    return data.slice(ends[lines.offset], ends[lines.offset + len(lines)] - ends[lines.offset])


def _is_foreign(table: "pyarrow.Table", place: int) -> bool:
    """Tell whether a column holds JSON text: a field that the program does not know (they stand behind the known ones)."""
    name = table.column_names[place]
    return not any(name in columns for columns in COLUMNS.values())


def cells(column: "pyarrow.Array", style: Style, *, raw_json: bool = False) -> "pyarrow.StringArray":
    """Return a column as text; nulls are empty, in JSON ``null``. ``raw_json``: it is JSON text already."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_timestamp(kind):
        written = _times(column)
        if style == "jsonl":
            written = _quoted(written)
    elif pa.types.is_floating(kind):
        written = _repeated(column, _float_texts)
    elif pa.types.is_integer(kind):
        written = _repeated(column, lambda values: values.cast(pa.string()))
    elif pa.types.is_decimal(kind):
        written = _repeated(column, lambda values: texts([_plain(value) for value in values.to_pylist()]))
    elif pa.types.is_list(kind):
        written = texts([None if value is None else _compact(tuple(value)) for value in column.to_pylist()])
        if style != "jsonl":
            written = _each(written, _csv_text if style == "csv" else _tsv_text)
    elif raw_json and style == "jsonl":
        written = column
    else:
        written = _each(column, {"csv": _csv_text, "tsv": _tsv_text, "jsonl": _json_text}[style])
    if written.null_count:
        written = written.fill_null(scalar("null" if style == "jsonl" else ""))
    return written


def _times(column: "pyarrow.Array") -> "pyarrow.StringArray":
    import pyarrow as pa
    import pyarrow.compute as pc

    at_ns = column.cast(pa.int64())
    seconds = pc.divide(at_ns, integer(_SECOND_NS))
    below = pc.subtract(at_ns, pc.multiply(seconds, integer(_SECOND_NS)))
    days = pc.divide(seconds, integer(_DAY_S))
    clock = pc.subtract(seconds, pc.multiply(days, integer(_DAY_S)))
    parts = [
        _repeated(days, lambda values: texts([_day_text(day) for day in values.to_pylist()])),
        _repeated(clock, lambda values: texts([_clock_text(second) for second in values.to_pylist()])),
    ]
    whole = pc.equal(below, integer(0))
    if whole.false_count:
        digits = pc.utf8_rtrim(pc.utf8_lpad(below.cast(pa.string()), 9, "0"), "0")
        parts.append(pc.if_else(whole, scalar(""), pc.binary_join_element_wise(scalar("."), digits, scalar(""))))
    return pc.binary_join_element_wise(*parts, scalar("Z"), scalar(""))


def _quoted(column: "pyarrow.StringArray") -> "pyarrow.StringArray":
    import pyarrow.compute as pc

    return pc.binary_join_element_wise(scalar('"'), column, scalar('"'), scalar(""))


def _repeated(column: "pyarrow.Array", write: Any) -> "pyarrow.StringArray":
    """Write each different value once, and let every row take its own."""
    encoded = column.dictionary_encode()
    return write(encoded.dictionary).take(encoded.indices)


def _each(column: "pyarrow.Array", write: Any) -> "pyarrow.StringArray":
    return _repeated(column, lambda values: texts([write(value) for value in values.to_pylist()]))


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
