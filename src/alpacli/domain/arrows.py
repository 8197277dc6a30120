"""Arrow arrays and scalars made from buffers: ``pyarrow.array`` and ``scalar`` import pandas, half a second for nothing.

Benchmark: ``python -m benchmarks --only kept`` is what this is for.
"""

from array import array
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow


def load() -> None:
    """Load the parts of pyarrow that history is made of, before several threads would do it at the same time.

    A precaution: an interpreter crashed once while threads loaded and computed, and nobody could make it do so again.
    """
    import pyarrow.compute
    import pyarrow.parquet  # noqa: F401 # what loading them does is all that is wanted


def floats(values: "Sequence[float | None]") -> "pyarrow.Array":
    import pyarrow as pa

    return _numbers(pa.float64(), "d", values, 0.0)


def integers(values: "Sequence[int | None]") -> "pyarrow.Array":
    """Return 64-bit integers.

    Raises:
        OverflowError: one is larger.
    """
    import pyarrow as pa

    return _numbers(pa.int64(), "q", values, 0)


def texts(values: "Sequence[str | None]") -> "pyarrow.Array":
    import pyarrow as pa

    encoded = [b"" if value is None else value.encode("utf-8", "replace") for value in values]
    ends = array("i", accumulate(map(len, encoded), initial=0))
    buffers = [_validity(values), pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(encoded), buffers)


def text_lists(values: "Sequence[Sequence[str] | None]") -> "pyarrow.Array":
    import pyarrow as pa

    items = texts([item for value in values for item in value or ()])
    ends = array("i", accumulate((len(value or ()) for value in values), initial=0))
    buffers = [_validity(values), pa.py_buffer(ends)]
    return pa.Array.from_buffers(pa.list_(pa.string()), len(values), buffers, children=[items])


@lru_cache(maxsize=256)
def text(value: str) -> "pyarrow.Scalar":
    """Return one text, to compare or to join with."""
    return texts([value])[0]


@lru_cache(maxsize=256)
def integer(value: int) -> "pyarrow.Scalar":
    """Return one 64-bit integer, to compute with."""
    return integers([value])[0]


def _numbers(kind: "pyarrow.DataType", code: str, values: "Sequence[Any]", zero: float) -> "pyarrow.Array":
    import pyarrow as pa

    validity = _validity(values)
    known = values if validity is None else [zero if value is None else value for value in values]
    data: array[Any] = array(code, known)
    return pa.Array.from_buffers(kind, len(data), [validity, pa.py_buffer(data)])


def _validity(values: "Sequence[object]") -> "pyarrow.Buffer | None":
    """Return the bits that say which values there are, the first in the lowest bit; ``None`` when all are."""
    import pyarrow as pa

    if None not in values:
        return None
    bits = "".join("0" if value is None else "1" for value in reversed(values))
    return pa.py_buffer(int(bits or "0", 2).to_bytes((len(values) + 7) // 8, "little"))
