"""SELECT over the kept history: DuckDB reads the Parquet files in place, and can neither write nor reach anything else.

Answers come as Arrow, because DuckDB's own Python values cut times down to microseconds, and ticks have nanoseconds. The
views ``bars``, ``trades`` and ``quotes`` have the columns of the files and, from their folders, ``market``, ``feed``,
``adjustment`` and ``timeframe``. A file that cannot be read ends the queries that need it, and no other: what it lacks must
not be missing from an answer in silence.
"""

import itertools
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from alpacli.domain.batches import COLUMNS, instant_text
from alpacli.domain.series import Kind
from alpacli.errors import AlpacliError, UsageError

if TYPE_CHECKING:
    import duckdb
    import pyarrow

_ROWS_AT_ONCE: Final = 10_000
_TORN: Final = "a file cannot be read, "
"""How the error of a view begins whose files could not be opened."""

_TYPES = {"number": "DOUBLE", "whole": "BIGINT", "text": "VARCHAR", "texts": "VARCHAR[]"}
_FOLDERS: dict[Kind, tuple[str, ...]] = {
    "bars": ("market", "feed", "adjustment", "timeframe"),
    "trades": ("market", "feed"),
    "quotes": ("market", "feed"),
}


class Answer(NamedTuple):
    """Column names, and the rows in portions; times are RFC 3339 text with the digits that count."""

    columns: list[str]
    portions: Iterator[list[tuple[Any, ...]]]


def select(root: str, statement: str) -> Answer:
    """Run one SELECT.

    Raises:
        UsageError: it is not one SELECT, or DuckDB refuses it.
        AlpacliError: a file that it needs cannot be read.
    """
    import duckdb

    connection = duckdb.connect(":memory:")
    try:
        found = connection.extract_statements(statement)
        if len(found) != 1 or found[0].type.name != "SELECT":
            raise UsageError(
                "data sql takes one SELECT", "what is kept is only read here; `alpacli data prune` removes"
            )
        connection.execute("SET TimeZone = 'UTC'")
        for kind in _FOLDERS:
            _make_view(connection, root, kind)
        connection.execute(f"SET allowed_directories = [{_text(root)}]")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        result = connection.sql(statement).to_arrow_reader(_ROWS_AT_ONCE)
    except duckdb.Error as error:
        raise _refused(error, root) from None

    def portions() -> Iterator[list[tuple[Any, ...]]]:
        try:
            for portion in result:
                yield list(zip(*map(_values, portion.columns), strict=True))
        except duckdb.Error as error:
            raise _refused(error, root) from None
        finally:
            connection.close()

    return Answer(list(result.schema.names), portions())


def _values(column: "pyarrow.Array") -> list[Any]:
    import pyarrow as pa

    kind = column.type
    if pa.types.is_timestamp(kind):
        exact = column.cast(pa.timestamp("ns", kind.tz)).cast(pa.int64())
        return [None if at is None else instant_text(at) for at in exact.to_pylist()]
    if pa.types.is_list(kind):  # list(timestamp) holds nanoseconds too
        items = _values(column.flatten())
        ends = itertools.accumulate((length or 0 for length in column.value_lengths().to_pylist()), initial=0)
        spans = itertools.pairwise(ends)
        return [
            items[low:high] if known else None
            for known, (low, high) in zip(column.is_valid().to_pylist(), spans, strict=True)
        ]
    if pa.types.is_struct(kind):
        parts = [_values(part) for part in column.flatten()]
        rows = [dict(zip(kind.names, row, strict=True)) for row in zip(*parts, strict=True)]
        return [row if known else None for known, row in zip(column.is_valid().to_pylist(), rows, strict=True)]
    values: list[Any] = column.to_pylist()
    return [None if value is None else dict(value) for value in values] if pa.types.is_map(kind) else values


def _make_view(connection: "duckdb.DuckDBPyConnection", root: str, kind: Kind) -> None:
    import duckdb

    files = [
        os.path.join(folder, name)
        for folder, _, names in os.walk(os.path.join(root, kind))
        for name in sorted(names)
        if name.endswith(".parquet")
    ]
    if not files:
        connection.execute(_no_rows(kind, "false"))
        return
    names = ", ".join(_text(name) for name in files)
    types = ", ".join(f"'{name}': VARCHAR" for name in _FOLDERS[kind])
    try:
        connection.execute(
            f"CREATE VIEW {kind} AS SELECT * FROM read_parquet([{names}], union_by_name = true, hive_partitioning = true,"
            f" hive_types = {{{types}}})"
        )
    except duckdb.Error as error:  # it has looked at every file
        connection.execute(_no_rows(kind, f"error({_text(f'{_TORN}of {kind}: {_first_line(error)}')})"))


def _no_rows(kind: Kind, condition: str) -> str:
    columns = [("symbol", "VARCHAR"), ("timestamp", "TIMESTAMPTZ_NS")]
    columns += [(name, _TYPES[what]) for name, what in COLUMNS[kind].items()]
    columns += [(name, "VARCHAR") for name in _FOLDERS[kind]]
    nulls = ", ".join(f'NULL::{kind_of} AS "{name}"' for name, kind_of in columns)
    return f"CREATE VIEW {kind} AS SELECT {nulls} WHERE {condition}"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def _refused(error: Exception, root: str) -> AlpacliError:
    """Tell a query that is wrong from files that are: DuckDB names a file, or the reader of its format fails."""
    import duckdb

    first = _first_line(error)
    _, torn, what = first.partition(_TORN)
    if torn or root in first or type(error) is duckdb.Error:
        return AlpacliError(
            f"a kept file cannot be read: DuckDB says {what or first}",
            "`alpacli data verify` names what is broken; with --repair it removes that, and it is downloaded again when"
            " asked for",
        )
    return UsageError(
        f"DuckDB says: {first}", "the tables are bars, trades and quotes; try: select * from bars limit 5"
    )
