"""Bars of the computed market from the past, many at once: exactly what its trades come to, without making all of them.

Of ``minute_parts`` every trade is made, by descending to all their prices in step, as arrays. Of the hours of
``stretch_parts`` only those are that can be the highest or the lowest: where the bound on all further displacements still
allows it, as in the tape's own searches. The first and the last trade, the volume and the count are known from the ends
(``prints``). So only the value of such a stretch, and with it the VWAP, is an estimate: from the prices at the edges of every
64 seconds, weighted with what usually trades then.

The arithmetic is that of ``prints``, ``tape`` and ``displacement``, written for arrays of 64-bit integers, which no number
here outgrows. It is not for one trade, nor loaded before it is needed: numpy costs a tenth of a second.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from alpacli.sim.answers import SECOND_NS
from alpacli.sim.displacement import DEPTH, GOLDEN, ONE, Path
from alpacli.sim.hours import new_york_date, new_york_ns
from alpacli.sim.listing import Listing
from alpacli.sim.prints import (
    EARLY,
    EDGE,
    FEWEST_LOTS,
    MINUTE_NS,
    MOST_WEIGHT,
    NUMBERS,
    PARTS_BITS,
    PARTS_SHIFT,
    USUAL,
    WEIGHT_SHIFT,
    Part,
)
from alpacli.sim.tape import QUANTA_PER_SECOND, QUANTUM_NS, Instrument, Tape, level_for, reaches, traded_ppm

_Ints = NDArray[np.int64]
_Hashes = NDArray[np.uint64]

_ROOT: Final = 14
"""The level of the nodes that making trades begins with: some 17 minutes."""
_STEM: Final = 16
"""The level of those that a search begins with."""
_TWIG: Final = 6
"""The level of those that a trade's price is descended to from: a minute is fifteen of them."""
_BRANCH: Final = 10
"""The level at which a search begins to rule out: a minute."""
_LEAF: Final = 4
"""The level at which a search looks for trades: a second."""
_IN_A_LEAF: Final = 3
_HUNDRED: Final = 100
_LIKELY_PERCENT: Final = 250
"""How far below the best bound a node may lie to be looked at first, in displacements of its level."""
_ROUNDINGS: Final = 4
_NEVER: Final = 1 << 62
_WEIGHT_BITS: Final = 20
_LONGEST_DAY_MINUTES: Final = 26 * 60
_TOP: Final = 1 << 20


class Minute(NamedTuple):
    """A whole minute: its number, what the tape says of it in lots, and the end of it if that is a close."""

    number: int
    lots: int
    close_ns: int | None


class Stretch(NamedTuple):
    """Whole minutes in which prices move all the time, without a midnight or a close in between; as ``Minute``."""

    begin_ns: int
    end_ns: int
    lots: int
    close_ns: int | None


class _Nodes(NamedTuple):
    """Parts of the paths of one level: of which search they are, where they begin, and the values at both ends."""

    group: _Ints
    start: _Ints
    factor: tuple[_Ints, _Ints]
    own: tuple[_Ints, _Ints]

    def where(self, chosen: NDArray[np.bool_] | _Ints) -> "_Nodes":
        (f0, f1), (o0, o1) = self.factor, self.own
        return _Nodes(self.group[chosen], self.start[chosen], (f0[chosen], f1[chosen]), (o0[chosen], o1[chosen]))


def minute_parts(tape: Tape, symbol: str, key: int, minutes: Sequence[Minute]) -> list[Part]:
    """Return what the trades of each minute come to; ``key`` is that of the symbol's trades."""
    item = tape.instrument(symbol)
    numbers = np.array([minute.number for minute in minutes], np.int64)
    counts = USUAL + _early(key, numbers + 1) - _early(key, numbers)
    begins = np.concatenate([[0], np.cumsum(counts)[:-1]])
    row = np.repeat(np.arange(len(minutes)), counts)
    order = np.arange(len(row)) - begins[row]
    dices = _dices(key, numbers[row] * NUMBERS + order)
    quanta = _quanta_at(tape, symbol, minutes)[:, row]
    moments = _moments(order, counts[row], dices) // QUANTUM_NS
    quanta_of_trades = np.where(quanta[1] > quanta[0], quanta[0] + moments, quanta[0])
    lasts = begins + counts - 1
    closing = [index for index, minute in enumerate(minutes) if minute.close_ns is not None]
    quanta_of_trades[lasts[closing]] = [tape.quantum(symbol, minutes[index].close_ns or 0) for index in closing]
    prices = _prices(item, quanta_of_trades)
    weights = 1 + (dices >> np.uint64(WEIGHT_SHIFT)).astype(np.int64) % MOST_WEIGHT
    sums = np.cumsum(weights)
    gone = sums - (sums[begins] - weights[begins])[row]
    shared = np.array([minute.lots for minute in minutes], np.int64) + FEWEST_LOTS - counts
    until = shared[row] * gone // gone[lasts][row]
    sizes = 1 + np.diff(until, prepend=0)
    sizes[begins] = 1 + until[begins]
    columns = (
        prices[begins],
        np.maximum.reduceat(prices, begins),
        np.minimum.reduceat(prices, begins),
        prices[lasts],
        np.add.reduceat(sizes, begins),
        counts,
        np.add.reduceat(prices * sizes, begins),
    )
    return [Part(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def stretch_parts(tape: Tape, symbol: str, key: int, stretches: Sequence[Stretch]) -> list[Part]:
    """Return what the trades of each stretch come to, its ``value`` about; ``key`` as in ``minute_parts``."""
    item = tape.instrument(symbol)
    first = np.array([tape.quantum(symbol, stretch.begin_ns) for stretch in stretches], np.int64)
    begin = np.array([stretch.begin_ns // QUANTUM_NS for stretch in stretches], np.int64)
    until = first + np.array([stretch.end_ns // QUANTUM_NS for stretch in stretches], np.int64) - begin
    shift = begin - first
    minutes = np.array([(stretch.begin_ns // MINUTE_NS, stretch.end_ns // MINUTE_NS) for stretch in stretches])
    ends = _early(key, minutes)
    counts = (minutes[:, 1] - minutes[:, 0]) * USUAL + ends[:, 1] - ends[:, 0]
    opens, closes = _edge_prices(tape, item, key, stretches, minutes)
    nodes = _branches(item, first, until)
    values = list(_values(item, nodes, stretches, first, until))
    closed = np.array([stretch.close_ns is not None for stretch in stretches])
    search = _Search(item, key, first, until, shift, np.where(closed, minutes[:, 1] - 1, -1))
    highs, lows = search.extremes(nodes, np.maximum(opens, closes), np.minimum(opens, closes))
    parts = []
    columns = (opens, highs, lows, closes, counts)
    for stretch, (cost, weight), opened, high, low, close, count in zip(
        stretches, values, *(column.tolist() for column in columns), strict=True
    ):
        volume = stretch.lots + FEWEST_LOTS * ((stretch.end_ns - stretch.begin_ns) // MINUTE_NS)
        value = min(max(volume * cost // weight, low * volume), high * volume)
        parts.append(Part(opened, high, low, close, volume, count, value))
    return parts


class _Search:
    """The search for the highest and the lowest trade of each of several stretches, all at once.

    ``closing`` is the minute of a stretch whose last trade is the closing print, which is looked at elsewhere; -1 is none.
    A group is a stretch and a sign: even numbers are for its highest trade, odd ones for its lowest.
    """

    def __init__(self, item: Instrument, key: int, first: _Ints, until: _Ints, shift: _Ints, closing: _Ints) -> None:
        self._item = item
        self._key = key
        self._first = np.repeat(first, 2)
        self._until = np.repeat(until, 2)
        self._shift = np.repeat(shift, 2)
        self._closing = np.repeat(closing, 2)
        self._reach = reaches(item.factor.amplitudes, item.own.amplitudes, abs(item.listing.beta_percent))

    def extremes(self, nodes: _Nodes, highs: _Ints, lows: _Ints) -> tuple[_Ints, _Ints]:
        """Return the highest and the lowest price in ticks, given some that there are; ``nodes`` are of ``_BRANCH``."""
        best = np.stack([highs, -lows], 1).ravel()
        every = nodes._replace(group=nodes.group * 2), nodes._replace(group=nodes.group * 2 + 1)
        bounds = [self._bounds(part, _BRANCH) for part in every]
        for likely in (True, False):  # first only the likeliest trades, so that the rest is soon ruled out
            chosen = [
                self._chosen(part, bound, best, _BRANCH, likely=likely)
                for part, bound in zip(every, bounds, strict=True)
            ]
            best = self._descend(
                _joined(*(part.where(index) for part, index in zip(every, chosen, strict=True))), best, likely=likely
            )
        return best[::2], -best[1::2]

    def _descend(self, nodes: _Nodes, best: _Ints, *, likely: bool) -> _Ints:
        """Return the best price of each group, times its sign, of ``best`` and of the trades in nodes of ``_BRANCH``."""
        for level in range(_BRANCH, _LEAF, -1):
            nodes = _halves(self._item, nodes, level)
            group, below = nodes.group, level - 1
            within = (nodes.start < self._until[group]) & (nodes.start + (1 << below) > self._first[group])
            chosen = self._chosen(
                nodes, np.where(within, self._bounds(nodes, below), -_NEVER), best, below, likely=likely
            )
            nodes = nodes.where(chosen)
        group, prices = self._trades(nodes)
        found = best.copy()
        np.maximum.at(found, group, np.where(group % 2 == 0, prices, -prices))
        return found

    def _chosen(self, nodes: _Nodes, bounds: _Ints, best: _Ints, level: int, *, likely: bool) -> _Ints:
        """Return which nodes may hold a trade that is better than the best; of those, with ``likely``, the likeliest."""
        if likely:
            goals = np.full(len(best), -_NEVER)
            np.maximum.at(goals, nodes.group, bounds)
            goals -= (self._reach[level] - self._reach[level - 1]) * _LIKELY_PERCENT
        else:
            goals = self._goals(best)
        return np.flatnonzero(bounds >= goals[nodes.group])

    def _goals(self, best: _Ints) -> _Ints:
        """Return the least bound with which a node can hold a better trade."""
        listing = self._item.listing
        levels = [
            level_for(listing, -price - 1, -1) if group % 2 else level_for(listing, price + 1 - listing.spread, 1)
            for group, price in enumerate(best.tolist())
        ]
        return np.array(levels, np.int64) * _HUNDRED

    def _bounds(self, nodes: _Nodes, level: int) -> _Ints:
        """Return what ``sign × level`` cannot be more than within each node, in hundredths; roundings are paid for."""
        beta, below = self._item.listing.beta_percent, self._reach[level - 1]
        (f0, f1), (o0, o1) = nodes.factor, nodes.own
        left, right = beta * f0 + _HUNDRED * o0, beta * f1 + _HUNDRED * o1
        sign = 1 - nodes.group % 2 * 2
        left, right = left * sign, right * sign
        middle = (left + right >> 1) + (self._reach[level] - below) * _HUNDRED
        highest: _Ints = np.maximum(np.maximum(left, right), middle) + (below + _ROUNDINGS) * _HUNDRED
        return highest

    def _trades(self, nodes: _Nodes) -> tuple[_Ints, _Ints]:
        """Return group and price of each trade within nodes of the level ``_LEAF``."""
        if not len(nodes.start):
            return nodes.group, nodes.start
        seconds = (nodes.start + self._shift[nodes.group]) // QUANTA_PER_SECOND
        minute, second = seconds // 60, seconds % 60
        counts = USUAL + _early(self._key, minute + 1) - _early(self._key, minute)
        groups, prices = [], []
        for step in range(_IN_A_LEAF):
            order = second * counts // 60 + step
            dices = _dices(self._key, minute * NUMBERS + order)
            moments = _moments(order, counts, dices)
            closing = (minute == self._closing[nodes.group]) & (order == counts - 1)
            there = np.flatnonzero((order < counts) & (moments // SECOND_NS == second) & ~closing)
            found = nodes.where(there)
            quanta = found.start + moments[there] % SECOND_NS // QUANTUM_NS
            factor = _descended(self._item.factor, *found.factor, found.start, quanta, _LEAF)
            own = _descended(self._item.own, *found.own, found.start, quanta, _LEAF)
            groups.append(found.group)
            prices.append(_traded_at(self._item, factor, own, quanta))
        return np.concatenate(groups), np.concatenate(prices)


def _edge_prices(
    tape: Tape, item: Instrument, key: int, stretches: Sequence[Stretch], minutes: _Ints
) -> tuple[_Ints, _Ints]:
    """Return the prices of the first and the last trade of each stretch."""
    symbol = item.listing.symbol
    edges = np.stack([minutes[:, 0], minutes[:, 1] - 1], 1)
    counts = USUAL + _early(key, edges + 1) - _early(key, edges)
    order = np.stack([np.zeros(len(edges), np.int64), counts[:, 1] - 1], 1)
    moments = edges * MINUTE_NS + _moments(order, counts, _dices(key, edges * NUMBERS + order))
    quanta = [
        (tape.quantum(symbol, opened_ns), tape.quantum(symbol, stretch.close_ns or closed_ns))
        for stretch, (opened_ns, closed_ns) in zip(stretches, moments.tolist(), strict=True)
    ]
    prices = _prices(item, np.array(quanta, np.int64).ravel()).reshape(-1, 2)
    return prices[:, 0], prices[:, 1]


def _branches(item: Instrument, first: _Ints, until: _Ints) -> _Nodes:
    """Return the nodes of the level ``_BRANCH`` that have a part in each stretch, which is their group."""
    roots = first >> _STEM
    counts = (until - 1 >> _STEM) - roots + 1
    group = np.repeat(np.arange(len(first)), counts)
    root = roots[group] + np.arange(len(group)) - np.repeat(np.cumsum(counts) - counts, counts)
    width = 1 << _STEM - _BRANCH
    factor, own = (_grown(path, root, _STEM, _BRANCH) for path in (item.factor, item.own))
    starts = (root << _STEM)[:, None] + np.arange(width) * (1 << _BRANCH)
    nodes = _Nodes(
        np.repeat(group, width),
        starts.ravel(),
        (factor[:, :-1].ravel(), factor[:, 1:].ravel()),
        (own[:, :-1].ravel(), own[:, 1:].ravel()),
    )
    return nodes.where((nodes.start < until[nodes.group]) & (nodes.start + (1 << _BRANCH) > first[nodes.group]))


def _values(
    item: Instrument, nodes: _Nodes, stretches: Sequence[Stretch], first: _Ints, until: _Ints
) -> Iterator[tuple[int, int]]:
    """Give about what the lots of each stretch cost on average, in ticks: as a fraction."""
    listing, group = item.listing, nodes.group
    begins = np.maximum(nodes.start, first[group]) - first[group]
    ends = np.minimum(nodes.start + (1 << _BRANCH), until[group]) - first[group]
    since = np.zeros(len(first), np.int64)
    if not listing.crypto:
        midnights = [new_york_ns(new_york_date(stretch.begin_ns)) for stretch in stretches]
        since += [(stretch.begin_ns - at_ns) // QUANTUM_NS for stretch, at_ns in zip(stretches, midnights, strict=True)]
    curve = _curve(item)
    before, after = (curve[(since[group] + edge) // QUANTA_PER_SECOND] for edge in (begins, ends))
    total = np.zeros(len(first), np.int64)
    np.add.at(total, group, after - before)
    weights = (after - before << _WEIGHT_BITS) // total[group]
    left, right = (
        _bids(listing, listing.beta_percent * f // 100 + o) for f, o in zip(nodes.factor, nodes.own, strict=True)
    )
    costs, given = np.zeros(len(first), np.int64), np.zeros(len(first), np.int64)
    np.add.at(costs, group, weights * (left + right + listing.spread))
    np.add.at(given, group, weights * 2)
    yield from zip(costs.tolist(), given.tolist(), strict=True)


@lru_cache(maxsize=256)
def _curve(item: Instrument) -> _Ints:
    """Return by second what has usually traded since midnight, in thousandths of a lot; a coin's day is all alike."""
    listing = item.listing
    daily = listing.daily_volume * (1000 if listing.crypto else 1)
    points = np.array([traded_ppm(item, minute) for minute in range(_LONGEST_DAY_MINUTES + 1)], np.int64)
    before = np.repeat(points[:-1], 60)
    second = np.arange(len(before))
    return (
        before + np.repeat(np.diff(points), 60) * (second % 60) // 60
    ) * daily // 1000 + second * FEWEST_LOTS * 50 // 3


def _quanta_at(tape: Tape, symbol: str, minutes: Sequence[Minute]) -> _Ints:
    """Return the quanta at which each minute begins and ends: the same where prices stand still."""
    edges = [(minute.number * MINUTE_NS, (minute.number + 1) * MINUTE_NS) for minute in minutes]
    return np.array([[tape.quantum(symbol, at_ns) for at_ns in row] for row in edges], np.int64).T


def _prices(item: Instrument, quanta: _Ints) -> _Ints:
    """Return the prices in ticks of trades at some quanta."""
    roots, place = np.unique(quanta >> _ROOT, return_inverse=True)
    twig = (quanta >> _TWIG) - (quanta >> _ROOT << _ROOT - _TWIG)
    values = []
    for path in (item.factor, item.own):
        grown = _grown(path, roots, _ROOT, _TWIG)
        left, right = grown[place, twig], grown[place, twig + 1]
        values.append(_descended(path, left, right, quanta >> _TWIG << _TWIG, quanta, _TWIG))
    return _traded_at(item, values[0], values[1], quanta)


def _traded_at(item: Instrument, factor: _Ints, own: _Ints, quanta: _Ints) -> _Ints:
    """Return what a trade at a quantum costs in ticks, given the values of both paths there: ``Tape.last``."""
    listing = item.listing
    noise = _mixed(np.uint64(item.own.key) ^ quanta.astype(np.uint64)) >> np.uint64(20)
    bids = _bids(listing, listing.beta_percent * factor // 100 + own)
    return bids + (noise % np.uint64(listing.spread + 1)).astype(np.int64)


def _bids(listing: Listing, levels: _Ints) -> _Ints:
    """Return the bids of levels in ticks, in steps that stay within 64 bits: a base has 24."""
    high, low = levels >> 20, levels & (_TOP - 1)
    above = listing.base + (listing.base * high + (listing.base * low >> 20) >> 20)
    below = np.uint64(listing.base * ONE) // (ONE - np.minimum(levels, 0)).astype(np.uint64)
    bids: _Ints = np.maximum(np.where(levels >= 0, above, below.astype(np.int64)) - listing.spread // 2, 1)
    return bids


def _grown(path: Path, roots: _Ints, top: int, level: int) -> _Ints:
    """Return the values at all edges of a level within nodes of the level ``top``, which ``roots`` counts: a row each."""
    edges = np.stack([roots << top, roots + 1 << top], 1)
    blocks = edges >> DEPTH << DEPTH
    left, right = (_displaced(path, at, path.anchor) for at in (blocks, blocks + (1 << DEPTH)))
    values = _descended(path, left, right, blocks, edges, DEPTH, top)
    for depth in range(top, level, -1):
        width = values.shape[1] - 1
        middles = (roots << top)[:, None] + (np.arange(width) * 2 + 1) * (1 << depth - 1)
        finer = np.empty((len(roots), 2 * width + 1), np.int64)
        finer[:, ::2] = values
        finer[:, 1::2] = (values[:, :-1] + values[:, 1:] >> 1) + _displaced(path, middles, path.amplitudes[depth])
        values = finer
    return values


def _descended(
    path: Path, left: _Ints, right: _Ints, start: _Ints, quanta: _Ints, level: int, bottom: int = 0
) -> _Ints:
    """Return the values at quanta, given the ends of nodes that hold them; the quanta begin nodes of ``bottom``."""
    for depth in range(level, bottom, -1):
        middle = start + (1 << depth - 1)
        value = (left + right >> 1) + _displaced(path, middle, path.amplitudes[depth])
        after = quanta >= middle
        start = np.where(after, middle, start)
        left, right = np.where(after, value, left), np.where(after, right, value)
    return left


def _joined(one: _Nodes, other: _Nodes) -> _Nodes:
    (f0, f1), (o0, o1) = (
        tuple(np.concatenate(pair) for pair in zip(*paths, strict=True))
        for paths in ((one.factor, other.factor), (one.own, other.own))
    )
    return _Nodes(
        np.concatenate([one.group, other.group]), np.concatenate([one.start, other.start]), (f0, f1), (o0, o1)
    )


def _halves(item: Instrument, nodes: _Nodes, level: int) -> _Nodes:
    middle = nodes.start + (1 << level - 1)
    pairs = []
    for path, (left, right) in ((item.factor, nodes.factor), (item.own, nodes.own)):
        value = (left + right >> 1) + _displaced(path, middle, path.amplitudes[level])
        pairs.append((np.concatenate([left, value]), np.concatenate([value, right])))
    return _Nodes(np.tile(nodes.group, 2), np.concatenate([nodes.start, middle]), pairs[0], pairs[1])


def _moments(order: _Ints, counts: _Ints, dices: _Hashes) -> _Ints:
    """Return how long after its minute began each trade happens: ``prints.moment_ns``."""
    part = (order << PARTS_BITS) + (dices >> np.uint64(PARTS_SHIFT) & np.uint64((1 << PARTS_BITS) - 1)).astype(np.int64)
    return part * MINUTE_NS // (counts << PARTS_BITS)


def _early(key: int, minutes: _Ints) -> _Ints:
    return (_dices(key, minutes * NUMBERS + EDGE) % np.uint64(EARLY)).astype(np.int64)


def _dices(key: int, numbers: _Ints) -> _Hashes:
    return _mixed(np.uint64(key) ^ numbers.astype(np.uint64) * np.uint64(GOLDEN))


def _displaced(path: Path, quanta: _Ints, amplitude: int) -> _Ints:
    hashed = _mixed(np.uint64(path.key) + quanta.astype(np.uint64) * np.uint64(GOLDEN))
    return amplitude * ((hashed >> np.uint64(43)).astype(np.int64) - _TOP) >> 20


def _mixed(values: _Hashes) -> _Hashes:
    """Finish 64-bit hashes, in place: ``displacement.mix``."""
    values ^= values >> np.uint64(30)
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values
