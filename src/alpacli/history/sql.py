"""SELECT over the kept history: DuckDB reads the Parquet files in place, and can neither write nor reach anything else.

The views ``bars``, ``trades`` and ``quotes`` have the columns of the files and, from their folders, ``market``, ``feed``,
``adjustment`` and ``timeframe``.
"""

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from alpacli.domain.batches import COLUMNS
from alpacli.domain.series import Kind
from alpacli.errors import UsageError

_TYPES = {"number": "DOUBLE", "whole": "BIGINT", "text": "VARCHAR", "texts": "VARCHAR[]"}
_FOLDERS: dict[Kind, tuple[str, ...]] = {
    "bars": ("market", "feed", "adjustment", "timeframe"),
    "trades": ("market", "feed"),
    "quotes": ("market", "feed"),
}


class Answer(NamedTuple):
    """Column names, and the rows in portions."""

    columns: list[str]
    portions: Iterator[list[tuple[Any, ...]]]


def select(root: str, statement: str) -> Answer:
    """Run one SELECT.

    Raises:
        UsageError: it is not one SELECT, or DuckDB refuses it.
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
            connection.execute(_view(root, kind))
        connection.execute(f"SET allowed_directories = [{_text(root)}]")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        result = connection.execute(found[0])
    except duckdb.Error as error:
        raise _refused(error) from None
    names = [column[0] for column in result.description or ()]

    def portions() -> Iterator[list[tuple[Any, ...]]]:
        try:
            while portion := result.fetchmany(10_000):
                yield portion
        except duckdb.Error as error:
            raise _refused(error) from None
        finally:
            connection.close()

    return Answer(names, portions())


def _view(root: str, kind: Kind) -> str:
    files = [
        os.path.join(folder, name)
        for folder, _, names in os.walk(os.path.join(root, kind))
        for name in sorted(names)
        if name.endswith(".parquet")
    ]
    if not files:
        columns = [("symbol", "VARCHAR"), ("timestamp", "TIMESTAMP WITH TIME ZONE")]
        columns += [(name, _TYPES[what]) for name, what in COLUMNS[kind].items()]
        columns += [(name, "VARCHAR") for name in _FOLDERS[kind]]
        nulls = ", ".join(f'NULL::{kind_of} AS "{name}"' for name, kind_of in columns)
        return f"CREATE VIEW {kind} AS SELECT {nulls} WHERE false"
    names = ", ".join(_text(name) for name in files)
    types = ", ".join(f"'{name}': VARCHAR" for name in _FOLDERS[kind])
    return (
        f"CREATE VIEW {kind} AS SELECT * FROM read_parquet([{names}], union_by_name = true, hive_partitioning = true,"
        f" hive_types = {{{types}}})"
    )


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _refused(error: Exception) -> UsageError:
    first = str(error).strip().splitlines()[0]
    return UsageError(
        f"DuckDB says: {first}", "the tables are bars, trades and quotes; try: select * from bars limit 5"
    )
