"""Which rows give the price of a symbol that several kinds were recorded of: bars, trades, quotes.

A row stands until the next of its kind, or until one of another kind whose time is more than a minute later: a quote that the
trades have left behind is no price. A bar's time is its beginning, and it is over with its end. So which row gives the price
of a moment is a matter of the rows until then, and never of those to come.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Final, NamedTuple

STANDS_NS: Final = 60_000_000_000
"""For how long a row stands whatever those of other kinds say."""

_EVER_NS: Final = 1 << 62
_Stretch = tuple[int, int]


class Rows(NamedTuple):
    """The rows of a kind in order: when each begins, and its last instant."""

    begins: Sequence[int]
    lasts: Sequence[int]

    def next(self, at_ns: int) -> int:
        """Return when the first row begins that begins at or after a moment."""
        index = bisect_left(self.begins, at_ns)
        return self.begins[index] if index < len(self.begins) else _EVER_NS

    def goes_on(self, at_ns: int) -> bool:
        """Tell whether a row that has begun is not over with this instant."""
        index = bisect_right(self.begins, at_ns) - 1
        return index >= 0 and self.lasts[index] > at_ns


class Stretches:
    """Stretches of time in order, the end of each not included."""

    def __init__(self, stretches: Sequence[_Stretch] = ()) -> None:
        self._all = stretches
        self._begins = [begin_ns for begin_ns, _ in stretches]
        self._ends = [end_ns for _, end_ns in stretches]

    def __iter__(self) -> Iterator[_Stretch]:
        return iter(self._all)

    def holds(self, at_ns: int) -> bool:
        index = bisect_right(self._begins, at_ns) - 1
        return index >= 0 and at_ns < self._ends[index]

    def within(self, from_ns: int, until_ns: int) -> list[_Stretch]:
        """Return the parts of them that lie in an interval."""
        first, last = bisect_right(self._ends, from_ns), bisect_left(self._begins, until_ns)
        return [(max(begin_ns, from_ns), min(end_ns, until_ns)) for begin_ns, end_ns in self._all[first:last]]


def taken_over(kinds: Sequence[Rows], others: Sequence[Rows]) -> Stretches:
    """Return where ``others`` give the price, because the ``kinds`` that come first have not begun or fell silent."""
    found = []
    for from_ns, until_ns in sorted(_silences(kinds)):
        begin_ns = min(rows.next(from_ns) for rows in others)
        if begin_ns < until_ns:
            found.append((begin_ns, until_ns))
    return Stretches(found)


def _silences(kinds: Sequence[Rows]) -> set[_Stretch]:
    found = {(-_EVER_NS, min(rows.begins[0] for rows in kinds))}
    for rows in kinds:
        others = [other for other in kinds if other is not rows]
        for last_ns, begin_ns in zip(rows.lasts, chain(islice(rows.begins, 1, None), (_EVER_NS,)), strict=True):
            if begin_ns - last_ns <= STANDS_NS or any(other.goes_on(last_ns) for other in others):
                continue
            until_ns = min(begin_ns, *(other.next(last_ns + 1) for other in others), _EVER_NS)
            if until_ns - last_ns > STANDS_NS:
                found.add((last_ns + STANDS_NS + 1, until_ns))
    return found
