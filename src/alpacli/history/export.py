"""The history in files that other programs read: CSV, JSON lines, Parquet. Row by row, so that length costs no memory.

JSON lines hold everything, unknown fields too. CSV and Parquet have the documented fields as columns and what is beyond them
as JSON in a last column ``extra``. Amounts in Parquet are decimals with 18 places and times have nanoseconds: no digit of
Alpaca's is lost in either. A file appears under its name when it is whole.
"""

import csv
import errno
import fcntl
import os
import re
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from decimal import Decimal
from itertools import islice
from typing import IO, Any, Final

from alpacli.domain.values import Amount, MaybeAmount, MaybeTimestamp, Model, Timestamp, to_json
from alpacli.errors import AlpacliError, OutputFailed, UsageError

FORMATS: Final = ("csv", "jsonl", "parquet")
_ROWS_AT_ONCE: Final = 5000
_PLACES: Final = 18
_WRONG_PLACES: Final = (
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG),
)
"""What is wrong with the place that was named, rather than with the machine."""


def format_of(path: str, chosen: str | None) -> str:
    """Return the format to write: the chosen one, else what the file's name ends with.

    Raises:
        UsageError: there is no such format.
    """
    name = chosen or path.rpartition(".")[2].lower()
    name = {"ndjson": "jsonl", "pq": "parquet"}.get(name, name)
    if name not in FORMATS:
        raise UsageError(
            f"{chosen or path!r} names no format to write", f"choose among {', '.join(FORMATS)} with --format"
        )
    return name


def export(rows: Iterable[Model], model: type[Model], out: IO[bytes], form: str) -> int:
    """Write rows of one model; return how many there were.

    Raises:
        AlpacliError: an amount has more digits than a column of Parquet holds.
    """
    writers: dict[str, Callable[[Iterable[Model], type[Model], IO[bytes]], int]] = {
        "csv": _csv,
        "jsonl": _jsonl,
        "parquet": _parquet,
    }
    return writers[form](rows, model, out)


@contextmanager
def whole_file(path: str) -> Iterator[IO[bytes]]:
    """Write a file that appears under its name when the block ends well, and leaves nothing behind when it does not.

    A device or a named pipe is written to as it is, and a link goes on leading to where it led. What a killed process left
    of the same file is taken away.

    Raises:
        UsageError: nothing can be written at that place.
        OutputFailed: it cannot be finished: the disk is full, for one.
    """
    target = os.path.realpath(path)
    is_file = os.path.isfile(target) or not os.path.exists(target)
    draft = f"{target}.{os.getpid()}.part" if is_file else target
    if is_file:
        _sweep(target)
    try:
        with open(draft, "wb", buffering=1 << 20) as out:
            if is_file:
                with suppress(OSError):  # a file system without locks
                    fcntl.flock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)  # it goes with the process, however that ends
            yield out
        if is_file:
            os.replace(draft, target)  # plain text paths, as in store
    except OSError as error:
        failure = UsageError if error.errno in _WRONG_PLACES else OutputFailed
        raise failure(f"cannot write {path}: {error.strerror or error}", _way_out(error, path)) from error
    finally:
        if is_file and os.path.exists(draft):
            os.unlink(draft)


def _sweep(target: str) -> None:
    """Remove drafts of a file whose processes are gone; the lock tells of those that this machine does not see."""
    folder, base = os.path.split(target)
    with suppress(OSError):
        for name in os.listdir(folder):
            matched = re.fullmatch(re.escape(base) + r"\.(\d{1,9})\.part", name)
            if matched is not None and _is_gone(int(matched[1])):
                with suppress(OSError), open(os.path.join(folder, name), "rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(file.name)


def _is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False  # somebody else's
    return False


def _way_out(error: OSError, path: str) -> str:
    folder = os.path.dirname(path) or "."
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR:
            return f"there is no folder {folder}: make it, or write elsewhere"
        case errno.EISDIR:
            return "that is a folder: name a file in it"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return f"choose a folder that you may write to; {folder} is not one"
    return "make room, or write elsewhere"


def _names(model: type[Model]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _cells(row: Model, names: Sequence[str]) -> list[Any]:
    """Return the values of a row in order of columns, and what is beyond them as JSON."""
    known = dict(row.__dict__)
    extra = row.model_extra or {}
    return [*(known.get(name) for name in names), to_json(extra).decode() if extra else None]


def _jsonl(rows: Iterable[Model], _: type[Model], out: IO[bytes]) -> int:
    count = 0
    for row in rows:
        out.write(to_json(row) + b"\n")
        count += 1
    return count


def _csv(rows: Iterable[Model], model: type[Model], out: IO[bytes]) -> int:
    import io

    fields = list(model.model_fields)
    text = io.TextIOWrapper(out, encoding="utf-8", errors="backslashreplace", newline="", write_through=True)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_names(model), "extra"])
    count = 0
    for row in rows:
        writer.writerow([_cell(value) for value in _cells(row, fields)])
        count += 1
    text.detach()
    return count


def _cell(value: Any) -> Any:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, Timestamp):
        return value.wire
    return to_json(value).decode()


def _parquet(rows: Iterable[Model], model: type[Model], out: IO[bytes]) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = list(model.model_fields)
    kinds = [_kind(model, name) for name in fields]
    types = {
        "amount": pa.decimal128(38, _PLACES),
        "time": pa.timestamp("ns", "UTC"),
        "flag": pa.bool_(),
        "whole": pa.int64(),
    }
    schema = pa.schema(
        [
            *(pa.field(name, types.get(kind, pa.string())) for name, kind in zip(_names(model), kinds, strict=True)),
            pa.field("extra", pa.string()),
        ]
    )
    count, source = 0, iter(rows)
    try:
        with pq.ParquetWriter(out, schema, compression="zstd") as writer:
            while batch := [_cells(row, fields) for row in islice(source, _ROWS_AT_ONCE)]:
                columns = [
                    pa.array([_stored(value, kind) for value in column], field.type)
                    for column, kind, field in zip(zip(*batch, strict=True), [*kinds, "text"], schema, strict=True)
                ]
                writer.write_batch(pa.record_batch(columns, schema=schema))
                count += len(batch)
    except pa.ArrowInvalid as error:
        raise AlpacliError(f"a value does not fit into Parquet: {error}", "export it as jsonl or csv") from error
    return count


def _kind(model: type[Model], name: str) -> str:
    """Return what a column holds: amount, time, flag, whole, or text (anything nested is JSON text)."""
    hint = typing.get_type_hints(model, include_extras=True)[name]
    if hint in (Amount, MaybeAmount):
        return "amount"
    if hint in (Timestamp, MaybeTimestamp, Timestamp | None):
        return "time"
    plain = {arg for arg in (typing.get_args(hint) or (hint,)) if arg is not type(None)}
    bare = {typing.get_args(arg)[0] if hasattr(arg, "__metadata__") else arg for arg in plain} or {hint}
    return "flag" if bool in bare else "whole" if int in bare else "text"


def _stored(value: Any, kind: str) -> Any:
    if value is None:
        return None
    if kind == "amount":
        return value if -value.as_tuple().exponent <= _PLACES else round(value, _PLACES)
    if kind == "time":
        return value.epoch_ns
    return value if kind in ("flag", "whole") or isinstance(value, str) else to_json(value).decode()
