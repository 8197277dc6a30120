"""The market: every price computed from (seed, symbol, time) alone, so that all processes see the same quote at once.

A price is ``base × (1 + x)`` for positive ``x`` and ``base ÷ (1 − x)`` for negative, which keeps it above zero, and ``x`` is
a sum of two bounded random paths: a factor that all equities (or all coins) share, times beta, and one of the instrument's
own. A path is built by midpoint displacement: its values at the ends of blocks of 2²³ seconds (97 days) are hashed, and each
midpoint is the mean of its neighbors plus a hashed displacement, bounded by an amplitude that shrinks by √2 with each
halving, down to a sixteenth of a second. So one lookup costs 27 hashes, and the range over any interval, like the first
moment at which a price is reached in it, is found by descending only where the bound on all further displacements still
allows it, never by walking.

All arithmetic is in integers: equal inputs give equal prices on every machine and Python version. The functions from ``x``
to bid and ask are monotone and the spread is constant, so the extremes of ``x`` are those of bid and ask.
"""

from collections.abc import Callable
from datetime import date, timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from functools import lru_cache
from typing import Final, NamedTuple

from alpacli.sim.answers import SECOND_NS
from alpacli.sim.displacement import DEPTH, GOLDEN, ONE, Path, Paths, ends_of_block, make_path, midpoint, mix, scaled
from alpacli.sim.hours import Hours, new_york_date, new_york_ns
from alpacli.sim.listing import LISTINGS, Listing
from alpacli.sim.prices import Extremes, Nbbo, Quote, Trail

QUANTA_PER_SECOND: Final = 16
QUANTUM_NS: Final = SECOND_NS // QUANTA_PER_SECOND
_MINUTE_NS: Final = 60 * SECOND_NS
_LOTS_A_COIN: Final = 1000
_COMMON_SIZE: Final = 1000
_FARTHEST: Final = ONE << 6
"""A level beyond all that there are."""
_LEVELS_SIZE: Final = 64
_FACTOR_SWING_PERMILLE: Final = {"us_equity": 60, "crypto": 110}


class _Node(NamedTuple):
    """A part of the paths, ``2 ** level`` quanta wide, with the values of factor and own path at both of its ends."""

    start: int
    level: int
    factor: tuple[int, int]
    own: tuple[int, int]


class Instrument:
    """What the tape remembers of one instrument: its paths, and what it was asked for last."""

    __slots__ = ("factor", "levels", "listing", "never_stops", "own", "quoted")

    def __init__(self, listing: Listing, factor: Path, own: Path, *, never_stops: bool) -> None:
        self.listing = listing
        self.factor = factor
        self.own = own
        self.never_stops = never_stops
        self.levels: dict[int, int] = {}
        self.quoted: tuple[int, Nbbo] | None = None


class Tape:
    """The price paths of all listed instruments under one seed and one set of hours. Implements ``prices.Prices``.

    Thread-safe; holds only a memo.
    """

    def __init__(self, seed: int, hours: Hours) -> None:
        self._hours = hours
        self._seed = seed
        self._instruments: dict[str, Instrument] = {}
        self._paths = Paths()
        self._common: dict[tuple[int, int], int] = {}
        self._extremes: dict[tuple[str, int, int, int], int] = {}

    def begins_ns(self, symbol: str) -> int:
        return 0

    def quote(self, symbol: str, at_ns: int) -> Quote:
        item = self.instrument(symbol)
        listing = item.listing
        quantum = self._quantum(listing, at_ns)
        noise = mix(item.own.key ^ mix(quantum))
        sizes = _sizes(max(listing.daily_volume, 1) if listing.crypto else 0)
        return Quote(*self.nbbo(symbol, at_ns), sizes[noise % 9], sizes[(noise >> 16) % 9], at_ns)

    def nbbo(self, symbol: str, at_ns: int) -> Nbbo:
        item = self._instruments.get(symbol) or self.instrument(symbol)
        listing = item.listing
        quantum = at_ns // QUANTUM_NS if item.never_stops else self._quantum(listing, at_ns)
        known = item.quoted
        if known is None or known[0] != quantum:  # who checks an order, plans it and fills it asks for the same ones
            bid = self._bid(listing, self._level(item, quantum))
            known = item.quoted = quantum, Nbbo(listing.price(bid), listing.price(bid + listing.spread))
        return known[1]

    def last(self, symbol: str, at_ns: int) -> Decimal:
        """Return the price of the last trade: somewhere from bid to ask, on the tick."""
        item = self.instrument(symbol)
        listing, quantum = item.listing, self._quantum(item.listing, at_ns)
        bid = self._bid(listing, self._level(item, quantum))
        return listing.price(bid + (mix(item.own.key ^ quantum) >> 20) % (listing.spread + 1))

    def previous_close(self, symbol: str, at_ns: int) -> Decimal:
        """Return the last price at the close of the trading day before the one of ``at_ns``."""
        return self.last(symbol, self._hours.previous_close(at_ns))

    def lots(self, symbol: str, begin_ns: int, end_ns: int) -> int:
        """Return what is traded between two whole minutes, in shares or thousandths of a coin.

        Equities trade heavily after 09:30 and before 16:00 and thinly outside; coins evenly. On days without a session an
        equity trades nothing.
        """
        item, total = self.instrument(symbol), 0
        while begin_ns < end_ns:
            day = new_york_date(begin_ns)
            midnight_ns, until_ns = new_york_ns(day), min(end_ns, new_york_ns(day + timedelta(1)))
            if item.listing.crypto or self._hours.name == "always" or self._hours.days(day, day):
                first, last = ((at_ns - midnight_ns) // _MINUTE_NS for at_ns in (begin_ns, until_ns))
                total += self._traded(item, day, last) - self._traded(item, day, first)
            begin_ns = until_ns
        return total

    def extremes(self, symbol: str, start_ns: int, end_ns: int) -> Extremes:
        """Return the exact range of bid and ask from ``start_ns`` to ``end_ns``, both included."""
        item = self.instrument(symbol)
        listing = item.listing
        first, last = self._quantum(listing, start_ns), self._quantum(listing, end_ns)
        low = self._extreme(item, first, last, sign=-1)
        high = self._extreme(item, first, last, sign=1)
        return Extremes(*(listing.price(t) for t in (low, high, low + listing.spread, high + listing.spread)))

    def first(self, symbol: str, start_ns: int, end_ns: int, price: Decimal, side: str) -> int | None:
        """Return the first instant, before ``end_ns``, at which a limit order could trade: at ``price`` or better.

        Prices must move all through the interval: it lies within one trading day, or in a market that never closes.
        """
        return self._passage(symbol, start_ns, end_ns, price, "bid" if side == "sell" else "ask", rising=side == "sell")

    def touched(self, symbol: str, start_ns: int, end_ns: int, price: Decimal, side: str) -> int | None:
        """Return the first instant, before ``end_ns``, at which a stop is reached: bought at a rise, sold at a fall.

        The interval is as in ``first``.
        """
        return self._passage(symbol, start_ns, end_ns, price, "ask" if side == "buy" else "bid", rising=side == "buy")

    def search(
        self, symbol: str, start_ns: int, end_ns: int, could: Callable[[int, int, int, int], bool]
    ) -> int | None:
        """Return when a bid that satisfies ``could`` begins, as ``Prices`` has it: parts of the path are asked in turn."""
        if end_ns <= start_ns:
            return None
        item = self.instrument(symbol)
        listing = item.listing
        first, last = self._quantum(listing, start_ns), self._quantum(listing, end_ns - 1)
        reach = reaches(item.factor.amplitudes, item.own.amplitudes, abs(listing.beta_percent))
        stack = _blocks(item, first, last)
        while stack:
            node = stack.pop()
            end = node.start + (1 << node.level)
            if node.start > last or end <= first:
                continue
            begins_ns = self._instant(listing, node.start, start_ns)
            left, right = _ends_of(listing, node)
            if node.level == 0:
                bid = self._bid(listing, left)
                if could(bid, bid, begins_ns, begins_ns):
                    return begins_ns
                continue
            low = self._bid(listing, min(left, right) - reach[node.level])
            high = self._bid(listing, max(left, right) + reach[node.level])
            ends_ns = end_ns if end > last else self._instant(listing, end, start_ns)
            if could(low, high, begins_ns, ends_ns - 1):
                stack.extend(reversed(_halves(item, node)))
        return None

    def trail(
        self, symbol: str, start_ns: int, end_ns: int, mark: Decimal, stop: Callable[[Decimal], Decimal], side: str
    ) -> Trail:
        """Follow the highest bid (``sell``) or lowest ask (``buy``) from ``mark`` on, until ``stop`` of it is reached.

        ``stop`` must not fall where the mark rises. The interval is as in ``first``.
        """
        item = self.instrument(symbol)
        listing = item.listing
        first, last = self._quantum(listing, start_ns), self._quantum(listing, end_ns - 1)
        sign, offset = (1, 0) if side == "sell" else (-1, listing.spread)
        best = sign * (_ticks(listing, mark, rising=False) - offset)

        def limit(best: int) -> int:
            price = stop(listing.price(sign * best + offset))
            return sign * (_ticks(listing, price, rising=sign < 0) - offset)

        reach = reaches(item.factor.amplitudes, item.own.amplitudes, abs(listing.beta_percent))
        stack = _blocks(item, first, last)
        while stack:
            node = stack.pop()
            ends = _ends_of(listing, node)
            if node.start > last or node.start + (1 << node.level) <= first:
                continue
            if node.level == 0:
                price = sign * self._bid(listing, ends[0])
                best = max(best, price)
                if price <= limit(best):
                    return Trail(self._instant(listing, node.start, start_ns), listing.price(sign * best + offset))
                continue
            edges = [
                sign * self._bid(listing, level)
                for level in (max(ends) + reach[node.level], min(ends) - reach[node.level])
            ]
            highest, lowest = max(edges), min(edges)
            if highest <= best and lowest > limit(best):
                continue
            if lowest > limit(max(best, highest)):  # no end in here, only better prices
                window = (max(first, node.start), min(last, node.start + (1 << node.level)))
                best = sign * self._search(item, *window, sign=sign, stack=[node], best=best)
                continue
            stack.extend(reversed(_halves(item, node)))
        return Trail(None, listing.price(sign * best + offset))

    def _passage(self, symbol: str, start_ns: int, end_ns: int, price: Decimal, of: str, *, rising: bool) -> int | None:
        """Return when bid or ask is first at or beyond a price, by descending from left to right."""
        if end_ns <= start_ns:
            return None
        item = self.instrument(symbol)
        listing = item.listing
        first, last = self._quantum(listing, start_ns), self._quantum(listing, end_ns - 1)
        sign = 1 if rising else -1
        wanted = _ticks(listing, price, rising=rising) - (listing.spread if of == "ask" else 0)
        if sign * self._bid(listing, self._level(item, first)) >= sign * wanted:
            return self._instant(listing, first, start_ns)  # at the market from the beginning, as most limits are
        goal = level_for(listing, wanted, sign)
        beta = listing.beta_percent
        reach = reaches(item.factor.amplitudes, item.own.amplitudes, abs(beta))
        stack = _blocks(item, first, last)
        while stack:
            node = stack.pop()
            start, level, (f0, f1), (o0, o1) = node
            if start > last or start + (1 << level) <= first:
                continue
            left = sign * (beta * f0 // 100 + o0)
            if level == 0:
                if left >= goal:
                    return self._instant(listing, start, start_ns)
                continue
            if max(left, sign * (beta * f1 // 100 + o1)) + reach[level] >= goal:
                stack.extend(reversed(_halves(item, node)))
        return None

    def _instant(self, listing: Listing, quantum: int, start_ns: int) -> int:
        """Return when a quantum begins, on the clock; not before ``start_ns``, since which prices have moved."""
        moving_ns = start_ns if listing.crypto else self._hours.trading_ns(start_ns)
        return start_ns + max(quantum * QUANTUM_NS - moving_ns, 0)

    def quantum(self, symbol: str, at_ns: int) -> int:
        """Return the sixteenth of a second of the path that an instant lies in: of the time for which prices have moved."""
        return self._quantum(self.instrument(symbol).listing, at_ns)

    def _quantum(self, listing: Listing, at_ns: int) -> int:
        moving_ns = at_ns if listing.crypto else self._hours.trading_ns(at_ns)
        return moving_ns // QUANTUM_NS

    def _bid(self, listing: Listing, level: int) -> int:
        middle = listing.base * (ONE + level) // ONE if level >= 0 else listing.base * ONE // (ONE - level)
        return max(middle - listing.spread // 2, 1)

    def _level(self, item: Instrument, quantum: int) -> int:
        """Return the level at a quantum; whoever checks an order asks for the same one several times."""
        found = item.levels.get(quantum)
        if found is None:
            if len(item.levels) >= _LEVELS_SIZE:
                item.levels.clear()
            found = item.levels[quantum] = self._computed_level(item, quantum)
        return found

    def _computed_level(self, item: Instrument, quantum: int) -> int:
        factor = item.factor
        place = (factor.key, quantum)
        common = self._common.get(place)
        if common is None:  # whoever values a portfolio asks for one moment of many instruments
            if len(self._common) >= _COMMON_SIZE:
                self._common.clear()
            common = self._common[place] = self._paths.value(factor, quantum)
        return (item.listing.beta_percent * common) // 100 + self._paths.value(item.own, quantum)

    def instrument(self, symbol: str) -> Instrument:
        item = self._instruments.get(symbol)
        if item is None:
            listing = LISTINGS[symbol]
            swing = _FACTOR_SWING_PERMILLE[listing.asset_class]
            item = self._instruments[symbol] = Instrument(
                listing,
                make_path(self._seed, f"factor {listing.asset_class}", swing),
                make_path(self._seed, listing.symbol, listing.swing_permille),
                never_stops=listing.crypto or self._hours.name == "always",
            )
        return item

    def _extreme(self, item: Instrument, first: int, last: int, *, sign: int) -> int:
        """Return the highest (``sign`` 1) or lowest (-1) bid in ticks over the quanta from ``first`` to ``last``."""
        listing = item.listing
        place = (listing.symbol, first, last, sign)
        found = self._extremes.get(place)
        if found is None:  # the days of a chart are asked for again and again
            best = max(sign * self._bid(listing, self._level(item, quantum)) for quantum in (first, last))
            stack = _blocks(item, first, last)
            if len(self._extremes) >= _COMMON_SIZE:
                self._extremes.clear()
            found = self._search(item, first, last, sign=sign, stack=stack, best=best)
            self._extremes[place] = found
        return found

    def _search(self, item: Instrument, first: int, last: int, *, sign: int, stack: list[_Node], best: int) -> int:
        """Return the most extreme bid in the parts of ``stack`` from ``first`` to ``last``, or ``best`` (both × ``sign``).

        What is better than ``best`` is a level: comparing levels costs no price. The halves are computed in place, as
        ``_halves`` would, because a day has a thousand of them.
        """
        listing, factor, own = item.listing, item.factor, item.own
        beta = listing.beta_percent
        reach = reaches(factor.amplitudes, own.amplitudes, abs(beta))
        better = level_for(listing, sign * (best + 1), sign)
        nodes = [(start, level, f0, f1, o0, o1) for start, level, (f0, f1), (o0, o1) in stack]
        while nodes:
            start, level, f0, f1, o0, o1 = nodes.pop()
            end = start + (1 << level)
            left, right = sign * (beta * f0 // 100 + o0), sign * (beta * f1 // 100 + o1)
            for quantum, value in ((start, left), (end, right)):
                if value >= better and first <= quantum <= last:
                    best = sign * self._bid(listing, sign * value)
                    better = level_for(listing, sign * (best + 1), sign)
            if level == 0 or end <= first or start >= last or max(left, right) + reach[level] < better:
                continue
            middle = start + (1 << (level - 1))
            place = middle * GOLDEN
            fm = (f0 + f1 >> 1) + scaled(factor.key + place, factor.amplitudes[level])
            om = (o0 + o1 >> 1) + scaled(own.key + place, own.amplitudes[level])
            earlier, later = (start, level - 1, f0, fm, o0, om), (middle, level - 1, fm, f1, om, o1)
            nodes += (earlier, later) if right >= left else (later, earlier)
        return sign * best

    def _traded(self, item: Instrument, day: date, minute: int) -> int:
        """Return the count at a minute's edge, moved by up to 40 % of what that minute trades: it still never falls."""
        listing, key, number = item.listing, item.own.key, day.toordinal()
        whole = listing.daily_volume * (70 + mix(key ^ number) % 61) * (_LOTS_A_COIN if listing.crypto else 1) // 100
        ppm, following = (traded_ppm(item, edge) for edge in (minute, minute + 1))
        moved = mix(key + number * 1440 + minute) % 41 if minute else 0
        return (ppm + (following - ppm) * moved // 100) * whole // 1_000_000


@lru_cache(maxsize=512)
def _sizes(coins_a_day: int) -> tuple[Decimal, ...]:
    """Return the nine sizes that a quote may have: hundreds of shares, or of coins tenths of a thousandth of their day."""
    unit = Decimal(max(coins_a_day // 1000, 1)).scaleb(-1) if coins_a_day else Decimal(100)
    return tuple(lots * unit for lots in range(1, 10))


def _ticks(listing: Listing, price: Decimal, *, rising: bool) -> int:
    """Return a price in ticks; between two of them, the one that is reached from below (``rising``) or above."""
    return int(price.scaleb(listing.places).to_integral_value(ROUND_CEILING if rising else ROUND_FLOOR))


def level_for(listing: Listing, ticks: int, sign: int) -> int:
    """Return the least ``sign × level`` whose bid is at or beyond so many ticks; beyond all levels when there is none."""
    # downwards it is the level below the first whose bid is above
    goal = _least_level(listing, ticks) if sign > 0 else 1 - _least_level(listing, ticks + 1)
    return max(min(goal, _FARTHEST), -_FARTHEST)


def _least_level(listing: Listing, ticks: int) -> int:
    """Return the least level whose bid is so many ticks or more; what ``_bid`` makes of a level, the other way round."""
    if ticks <= 1:  # no bid is less
        return -_FARTHEST
    middle = ticks + listing.spread // 2
    level = -(-middle * ONE // listing.base) - ONE
    if level < 0:
        level = ONE - listing.base * ONE // middle
    return level


def _blocks(item: Instrument, first: int, last: int) -> list[_Node]:
    """Return the blocks from ``first`` to ``last``, the earliest at the end."""
    starts = range(last >> DEPTH << DEPTH, (first >> DEPTH << DEPTH) - 1, -(1 << DEPTH))
    return [_Node(start, DEPTH, ends_of_block(item.factor, start), ends_of_block(item.own, start)) for start in starts]


def _ends_of(listing: Listing, node: _Node) -> tuple[int, int]:
    (f0, f1), (o0, o1), beta = node.factor, node.own, listing.beta_percent
    return beta * f0 // 100 + o0, beta * f1 // 100 + o1


def _halves(item: Instrument, node: _Node) -> tuple[_Node, _Node]:
    start, level, (f0, f1), (o0, o1) = node
    middle = start + (1 << (level - 1))
    fm, om = midpoint(item.factor, middle, level, f0, f1), midpoint(item.own, middle, level, o0, o1)
    return _Node(start, level - 1, (f0, fm), (o0, om)), _Node(middle, level - 1, (fm, f1), (om, o1))


@lru_cache(maxsize=512)
def reaches(factor: tuple[int, ...], own: tuple[int, ...], beta: int) -> tuple[int, ...]:
    """Return per level how far the sum of both paths can leave its ends; two units a level pay for the roundings."""
    reach = [0]
    for level in range(1, DEPTH + 1):
        reach.append(reach[-1] + beta * factor[level] // 100 + own[level] + 3)
    return tuple(reach)


def traded_ppm(item: Instrument, minute: int) -> int:
    """Return the millionths of a day that have traded by a minute after midnight: of a coin's evenly.

    Those of an equity are U-shaped from 09:30 to 16:00.
    """
    if item.listing.crypto:
        return minute * 1_000_000 // 1440
    early, late = min(max(minute - 240, 0), 330), min(max(minute - 960, 0), 240)
    inside = min(max(minute - 570, 0), 390)
    curve = 2 * inside - 390
    regular = inside * 450_000 // 390 + (curve**3 + 390**3) * 225_000 // 390**3
    thin = minute * 20_000 // 1440 if item.never_stops else min(max(minute - 240, 0), 960) * 20_000 // 960
    return early * 35_000 // 330 + regular + late * 45_000 // 240 + thin
