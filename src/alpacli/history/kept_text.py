"""Kept bars as text: what a file of them looks like in CSV stands beside it once it was written, to be copied the next time.

Making text of a million bars takes a second, copying it a twentieth of that. The text belongs to one state of its file and
says which; any other is made again. It can always be made again, so it may be removed at any time. Ticks have none: their
text would take more room than it is worth.
"""

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from alpacli.domain.arrows import load
from alpacli.history.row_groups import Footer, NotUnderstood, stamp_of

if TYPE_CHECKING:
    import pyarrow

SUFFIX: Final = ".csv"
_BLOCK: Final = 1 << 22
_THREADS: Final = 2


class Writer(NamedTuple):
    """How text is made of a table: the line above the rows, and the rows."""

    header: "Callable[[pyarrow.Table], bytes]"
    rows: "Callable[[pyarrow.Table], Any]"


def joined(footers: Sequence[Footer], writer: Writer, read: "Callable[[str], pyarrow.Table]") -> Iterator[bytes]:
    """Give the text of several files with the same columns as one; ``read`` reads a table.

    Raises:
        NotUnderstood: a file was changed meanwhile.
        OSError: one has vanished.
    """
    pool: ThreadPoolExecutor | None = None
    ahead: deque[Future[tuple[bytes, Any]] | Footer] = deque()
    left = iter(footers)
    headed = False
    try:
        while True:
            while len(ahead) <= _THREADS and (footer := next(left, None)) is not None:
                if _is_current(footer):
                    ahead.append(footer)
                    continue
                if pool is None:
                    load()
                    pool = ThreadPoolExecutor(_THREADS, "alpacli text")
                ahead.append(pool.submit(_made, footer, writer, read))
            if not ahead:
                return
            piece = ahead.popleft()
            blocks = _copied(piece) if isinstance(piece, Footer) else iter(piece.result())
            header = next(blocks)
            if not headed:
                yield header
                headed = True
            yield from blocks
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)


def path_of(parquet: str) -> str:
    return os.path.splitext(parquet)[0] + SUFFIX


def _is_current(footer: Footer) -> bool:
    try:
        with open(path_of(footer.path), "rb") as file:
            return file.readline() == _state(footer)
    except OSError:
        return False


def _copied(footer: Footer) -> Iterator[bytes]:
    with open(path_of(footer.path), "rb") as file:
        if file.readline() != _state(footer):
            raise NotUnderstood("it was changed meanwhile")
        yield file.readline()
        while block := file.read(_BLOCK):
            yield block


def _made(footer: Footer, writer: Writer, read: "Callable[[str], pyarrow.Table]") -> tuple[bytes, Any]:
    table = read(footer.path)
    if stamp_of(footer.path) != footer.stamp:
        raise NotUnderstood("it was changed meanwhile")
    header, rows = writer.header(table), writer.rows(table)
    path = path_of(footer.path)
    temporary = f"{path}.tmp-{os.getpid()}"
    with contextlib.suppress(OSError):  # then it is made again the next time
        try:
            with open(temporary, "wb") as file:
                file.write(_state(footer) + header)
                file.write(rows)
            os.replace(temporary, path)
        except OSError:
            os.unlink(temporary)
            raise
    return header, rows


def _state(footer: Footer) -> bytes:
    return f"of {' '.join(map(str, footer.stamp))}\n".encode()
