"""One recorded price over time, and what can be asked of it without walking: its range, and when it first gets somewhere.

A path is a row of knots. From a knot to the next the price either holds, and jumps at the next (ticks), or moves evenly
(inside a bar). So every extreme is at a knot or at an end of the interval, and a small tree of extremes over the knots finds
those, like the first knot beyond a price, in some tens of steps whatever the length. Between two knots the instant at which a
price is reached is worked out exactly. Everything is in integers: prices in units, instants in nanoseconds.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

_BITS: Final = 4
_WIDTH: Final = 1 << _BITS


class Line(NamedTuple):
    """An even move from one price to another."""

    begin_ns: int
    begin: int
    end_ns: int
    end: int


class Path:
    """``times`` rise strictly, and ``moves[i]`` says that the price moves evenly from knot ``i`` to the next.

    Where another path took over in the middle of a move, ``cuts[i]`` is the whole of the move that this path has the part of
    from knot ``i`` to the next: rounded as in the whole, each instant has the price that it had without what came then.
    Before its first knot a path has the price of that knot.
    """

    def __init__(
        self, times: Sequence[int], prices: Sequence[int], moves: bytes, cuts: Mapping[int, Line] | None = None
    ) -> None:
        self.times = array("q", times)
        self.prices = array("q", prices)
        self._moves = moves
        self._cuts = dict(cuts or {})
        self._cut = sorted(self._cuts)
        self._lows: list[array[int]] = [self.prices]
        self._highs: list[array[int]] = [self.prices]
        while len(self._lows[-1]) > _WIDTH:
            self._lows.append(_blocks(self._lows[-1], min))
            self._highs.append(_blocks(self._highs[-1], max))

    def value(self, at_ns: int) -> int:
        knot = bisect_right(self.times, at_ns) - 1
        if knot < 0:
            return self.prices[0]
        return self._between(knot, at_ns) if self._moves[knot] else self.prices[knot]

    def extremes(self, start_ns: int, end_ns: int) -> tuple[int, int]:
        """Return the lowest and the highest price from ``start_ns`` to ``end_ns``, both included."""
        edges = (self.value(start_ns), self.value(end_ns))
        first, last = bisect_right(self.times, start_ns), bisect_right(self.times, end_ns)
        low, high = min(edges), max(edges)
        while first < last:
            level = 0
            while level + 1 < len(self._lows) and first % _size(level + 1) == 0 and first + _size(level + 1) <= last:
                level += 1
            block = first >> _BITS * level
            low, high = min(low, self._lows[level][block]), max(high, self._highs[level][block])
            first += _size(level)
        return low, high

    def first(self, start_ns: int, end_ns: int, goal: int, *, rising: bool) -> int | None:
        """Return the first instant before ``end_ns`` at which the price is at or beyond ``goal``."""
        if end_ns <= start_ns:
            return None
        if _reaches(self.value(start_ns), goal, rising=rising):
            return start_ns
        knot = self._seek(bisect_right(self.times, start_ns), bisect_left(self.times, end_ns), goal, rising=rising)
        if knot is not None:
            return self._reached(knot - 1, goal) if knot and self._moves[knot - 1] else self.times[knot]
        if _reaches(self.value(end_ns - 1), goal, rising=rising):  # only a price that moves gets there without a knot
            return self._reached(bisect_right(self.times, end_ns - 1) - 1, goal)
        return None

    def trail(
        self, start_ns: int, end_ns: int, best: int, limit: Callable[[int], int], *, sign: int
    ) -> tuple[int | None, int]:
        """Follow the best price from ``best`` on until the price is back at ``limit`` of it.

        All prices that are given and returned are times ``sign``: 1 follows the highest, -1 the lowest. Returns when the
        limit was met before ``end_ns`` (``None``: never), and the best price until then.
        """
        price = sign * self.value(start_ns)
        best = max(best, price)
        if price <= limit(best):
            return start_ns, best
        tops, bottoms = (self._highs, self._lows) if sign > 0 else (self._lows, self._highs)
        knot, last = bisect_right(self.times, start_ns), bisect_left(self.times, end_ns)
        while knot < last:
            level = 0
            while level + 1 < len(tops) and knot % _size(level + 1) == 0 and knot + _size(level + 1) <= last:
                block = knot >> _BITS * (level + 1)
                if sign * bottoms[level + 1][block] <= limit(max(best, sign * tops[level + 1][block])):
                    break
                level += 1
            if level:
                best = max(best, sign * tops[level][knot >> _BITS * level])
            else:
                best, at_ns = self._follow(knot - 1, self.times[knot], sign * self.prices[knot], best, limit, sign)
                if at_ns is not None:
                    return at_ns, best
            knot += _size(level)
        if end_ns > start_ns:
            price = sign * self.value(end_ns - 1)
            best, at_ns = self._follow(knot - 1, end_ns - 1, price, best, limit, sign)
            return at_ns, best
        return None, best

    def _follow(
        self, knot: int, at_ns: int, price: int, best: int, limit: Callable[[int], int], sign: int
    ) -> tuple[int, int | None]:
        """Go on from a knot to ``price`` at ``at_ns``; return the best price, and when the limit was met if it was."""
        best = max(best, price)
        bound = limit(best)
        if price > bound:
            return best, None
        if knot >= 0 and self._moves[knot] and price < best:
            return best, self._reached(knot, sign * bound)
        return best, at_ns

    def _seek(self, knot: int, last: int, goal: int, *, rising: bool) -> int | None:
        levels = self._highs if rising else self._lows
        while knot < last:
            level = 0
            while level + 1 < len(levels) and knot % _size(level + 1) == 0:
                if _reaches(levels[level + 1][knot >> _BITS * (level + 1)], goal, rising=rising):
                    break
                level += 1
            if not level and _reaches(self.prices[knot], goal, rising=rising):
                return knot
            knot += _size(level)
        return None

    def turns(self, start_ns: int, end_ns: int) -> list[int]:
        """Return the knots before ``end_ns`` at which something was recorded: not those that end the part of a move."""
        first, last = bisect_left(self.times, start_ns), bisect_left(self.times, end_ns)
        return [knot for knot in range(first, last) if knot - 1 not in self._cuts]

    def overlaid(self, other: "Path", stretches: Iterable[tuple[int, int]]) -> "Path":
        """Return this path, with ``other`` in stretches of time; it does not move when one begins, and nor does ``other``."""
        times, prices, moves = array("q"), array("q"), bytearray()
        cuts: dict[int, Line] = {}

        def take(path: Path, first: int, last: int) -> None:
            for knot in path._cut[bisect_left(path._cut, first) : bisect_left(path._cut, last)]:
                cuts[len(times) + knot - first] = path._cuts[knot]
            times.extend(path.times[first:last])
            prices.extend(path.prices[first:last])
            moves.extend(path._moves[first:last])

        taken = 0
        for begin_ns, end_ns in stretches:
            take(self, taken, bisect_left(self.times, begin_ns))
            taken = bisect_left(self.times, end_ns)
            first, last = bisect_left(other.times, begin_ns), bisect_left(other.times, end_ns)
            if first == last or other.times[first] > begin_ns:
                times.append(begin_ns)
                prices.append(other.value(begin_ns))
                moves.append(0)
            take(other, first, last)
            if moves[-1]:
                if times[-1] < end_ns - 1:
                    cuts[len(times) - 1] = other._line(last - 1)
                    times.append(end_ns - 1)
                    prices.append(other.value(end_ns - 1))
                    moves.append(0)
                else:
                    cuts.pop(len(times) - 1, None)
                    moves[-1] = 0
        take(self, taken, len(self.times))
        return Path(times, prices, bytes(moves), cuts)

    def _line(self, knot: int) -> Line:
        if knot in self._cuts:
            return self._cuts[knot]
        return Line(self.times[knot], self.prices[knot], self.times[knot + 1], self.prices[knot + 1])

    def _between(self, knot: int, at_ns: int) -> int:
        if knot in self._cuts:
            begin, price, end, goal = self._cuts[knot]
            change, span = goal - price, end - begin
        else:
            begin, price = self.times[knot], self.prices[knot]
            change, span = self.prices[knot + 1] - price, self.times[knot + 1] - begin
        gone = abs(change) * (at_ns - begin) // span
        return price + gone if change >= 0 else price - gone

    def _reached(self, knot: int, goal: int) -> int:
        """Return when the price that moves from a knot to the next comes to ``goal``."""
        begin, price, end, aim = self._line(knot)
        change, span = abs(aim - price), end - begin
        return begin - (-abs(goal - price) * span // change)


def _reaches(price: int, goal: int, *, rising: bool) -> bool:
    return price >= goal if rising else price <= goal


def _size(level: int) -> int:
    return 1 << _BITS * level


def _blocks(values: "array[int]", of: Callable[["array[int]"], int]) -> "array[int]":
    return array("q", (of(values[start : start + _WIDTH]) for start in range(0, len(values), _WIDTH)))
