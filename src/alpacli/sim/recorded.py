"""A market that was recorded: the prices and the feed of bars, trades and quotes that were read from files.

A bar is played as a way through it: from its open to the extreme that lies against its direction, to the other one, to its
close, evenly, a third of its time each (open, low, high, close when it rose; open, high, low, close when it fell). Between
bars and between ticks the last price stands. Bid and offer are the recorded quotes' where there are any, else both are the
price. Of several kinds of rows the newest has it (``mixture``). Everything that is asked follows from that one way: what an
order gets, how far a bar has come that is not over, what a position is worth; nothing of what is still to come is ever in an
answer. The symbols begin to exist with their first row.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from itertools import accumulate, pairwise
from typing import Final, NamedTuple

from alpacli.errors import UsageError
from alpacli.sim.answers import SECOND_NS
from alpacli.sim.feed import BAR_DELAY_NS, DAY_NS, Feed, as_decimal
from alpacli.sim.hours import Hours, new_york_ns
from alpacli.sim.mixture import Rows, Stretches, taken_over
from alpacli.sim.path import Path
from alpacli.sim.prices import Extremes, Nbbo, Quote, Trail, search_between
from alpacli.sim.reading import Bar, Series, Trade
from alpacli.sim.reading import Quote as QuoteRow

_Message = dict[str, object]
_KNOTS: Final = 4
_CENT_PLACES: Final = 2
_LOT: Final = Decimal(100)
_CENTS: Final = 100
_LISTED: Final = {"x": "V", "c": ["@"], "z": "C"}
_QUOTED: Final = {"bx": "V", "ax": "V", "c": ["R"], "z": "C"}


class _Placed(NamedTuple):
    """A bar and the time that it covers; ``end_ns`` no longer belongs to it."""

    begin_ns: int
    end_ns: int
    bar: Bar


class Instrument:
    """All that was recorded of one symbol, ready to be asked.

    Raises:
        UsageError: bars overlap, or a daily bar is of a day on which the market was shut.
    """

    def __init__(self, series: Series, hours: Hours) -> None:
        self.symbol = series.symbol
        self.crypto = "/" in series.symbol
        self.places = series.places
        self.bars = _place(series, hours)
        self.begins = [bar.begin_ns for bar in self.bars]
        self.ends = [bar.end_ns for bar in self.bars]
        self._volumes = [Decimal(0), *accumulate(bar.bar.volume for bar in self.bars)]
        counts = (_KNOTS if bar.bar.trade_count is None else bar.bar.trade_count for bar in self.bars)
        self._counts = [0, *accumulate(counts)]
        self.trades = series.trades
        self.trade_times = [trade.at_ns for trade in series.trades]
        self.quotes = series.quotes
        self.quote_times = [quote.at_ns for quote in series.quotes]
        self.way = _way_through(self.bars) if self.bars else None
        ticks = _steps(self.trade_times, [trade.price for trade in self.trades]) if self.trades else None
        kinds: list[Rows] = []
        if self.way is not None:
            kinds.append(Rows(self.begins, [end_ns - 1 for end_ns in self.ends]))
        if ticks is not None:
            kinds.append(Rows(ticks.times, ticks.times))
        self.untraded = Stretches()
        self.unquoted = Stretches()
        traded = ticks or self.way
        if ticks is not None and self.way is not None:
            self.untraded = taken_over(kinds[1:], kinds[:1])
            traded = ticks.overlaid(self.way, self.untraded)
        self.ticks = ticks
        self.traded = traded
        if self.quotes:
            bid = _steps(self.quote_times, [quote.bid for quote in self.quotes])
            ask = _steps(self.quote_times, [quote.ask for quote in self.quotes])
            self.bid, self.ask, self.last = bid, ask, bid
            if traded is not None:
                quoted = [Rows(bid.times, bid.times)]
                self.unquoted = taken_over(quoted, kinds)
                self.bid, self.ask = (side.overlaid(traded, self.unquoted) for side in (bid, ask))
                self.last = _valued(traded, bid, ask, taken_over(kinds, quoted))
        else:
            if traded is None:
                raise AssertionError("a series has rows")
            self.bid = self.ask = self.last = traded
        edges = [path.times for path in (self.way, self.bid, self.last) if path is not None]
        self.begin_ns = min(times[0] for times in edges)
        # the first instant at which all of it is over, that and the minute of the last trade included
        self.end_ns = max(times[-1] for times in edges) + 2
        if ticks is not None:
            self.end_ns = max(self.end_ns, _minute(ticks.times[-1]) + _MINUTE_NS)

    def quoted(self, at_ns: int) -> bool:
        """Tell whether bid and offer are those of a recorded quote."""
        return bool(self.quotes) and self.quote_times[0] <= at_ns and not self.unquoted.holds(at_ns)

    def barred(self, at_ns: int) -> bool:
        """Tell whether the price of the last trade is that of a recorded bar."""
        return bool(self.bars) and self.begins[0] <= at_ns and (not self.trades or self.untraded.holds(at_ns))

    def since(self, at_ns: int) -> int:
        """Return since when the price of the last trade stands; in a bar it is always of the moment."""
        if self.ticks is None or self.barred(at_ns):
            return min(at_ns, self.bars[bisect_right(self.begins, at_ns) - 1].end_ns - 1)
        return self.ticks.times[bisect_right(self.ticks.times, at_ns) - 1]

    def price(self, units: int) -> Decimal:
        """Return a price with its cents, and further decimals only where it has them."""
        places = self.places
        while places > _CENT_PLACES and units % 10 == 0:
            units, places = units // 10, places - 1
        return Decimal(units).scaleb(-places)

    def units(self, price: Decimal, *, rising: bool) -> int:
        """Return a price in units; between two of them, the one that is reached from below (``rising``) or above."""
        return int(price.scaleb(self.places).to_integral_value(ROUND_CEILING if rising else ROUND_FLOOR))

    def shape(self, first: int, last: int, from_ns: int, until_ns: int) -> tuple[int, int, int, int]:
        """Return open, low, high and close of the bars ``first`` to ``last`` (not included) from a moment in them to another.

        Of a bar that is cut that is what was traded in the part: its own way where no trades were recorded.
        """
        way, traded = self.way, self.traded
        if way is None or traded is None:
            raise AssertionError("there are bars")
        if traded is way or (from_ns == self.begins[first] and until_ns == self.ends[last - 1]):
            return way.value(from_ns), *way.extremes(from_ns, until_ns - 1), way.value(until_ns - 1)
        opened = way.value(from_ns) if from_ns == self.begins[first] else traded.value(from_ns)
        closed = way.value(until_ns - 1) if until_ns == self.ends[last - 1] else traded.value(until_ns - 1)
        ranges = [(opened, opened), (closed, closed)]
        if from_ns > self.begins[first]:
            ranges += _range(traded, from_ns, min(until_ns, self.ends[first]))
            first += 1
        if first < last and until_ns < self.ends[last - 1]:
            ranges += _range(traded, self.begins[last - 1], until_ns)
            last -= 1
        if first < last:
            ranges.append(way.extremes(self.begins[first], self.ends[last - 1] - 1))
        return opened, min(low for low, _ in ranges), max(high for _, high in ranges), closed

    def volume(self, at_ns: int) -> Decimal:
        """Return what was traded until then since the data began; a bar's volume comes evenly."""
        if not self.bars:
            until = bisect_left(self.trade_times, at_ns)
            return sum((trade.size for trade in self.trades[:until]), Decimal(0))
        index, gone, width = self._progress(at_ns)
        if gone == width:
            return self._volumes[index + 1]
        return self._volumes[index] + (self.bars[index].bar.volume * gone / width).to_integral_value(ROUND_FLOOR)

    def count(self, at_ns: int) -> int:
        """Return how many trades the bars tell of until then."""
        index, gone, width = self._progress(at_ns)
        return self._counts[index] + (self._counts[index + 1] - self._counts[index]) * gone // width

    def _progress(self, at_ns: int) -> tuple[int, int, int]:
        """Return the bar that is under way or was last, how much of it is over, and how long it is."""
        index = max(bisect_right(self.begins, at_ns) - 1, 0)
        bar = self.bars[index]
        width = bar.end_ns - bar.begin_ns
        return index, min(max(at_ns - bar.begin_ns, 0), width), width


class RecordedPrices:
    """The price paths of what was recorded. Implements ``prices.Prices``."""

    def __init__(self, instruments: Mapping[str, Instrument], hours: Hours) -> None:
        self._instruments = instruments
        self._hours = hours

    def begins_ns(self, symbol: str) -> int:
        return self._instruments[symbol].begin_ns

    def quote(self, symbol: str, at_ns: int) -> Quote:
        item = self._instruments[symbol]
        sizes = _LOT, _LOT
        if item.quoted(at_ns):
            row = item.quotes[bisect_right(item.quote_times, at_ns) - 1]
            sizes = row.bid_size, row.ask_size
        return Quote(*self.nbbo(symbol, at_ns), *sizes, at_ns)

    def nbbo(self, symbol: str, at_ns: int) -> Nbbo:
        item = self._instruments[symbol]
        return Nbbo(item.price(item.bid.value(at_ns)), item.price(item.ask.value(at_ns)))

    def last(self, symbol: str, at_ns: int) -> Decimal:
        item = self._instruments[symbol]
        return item.price(item.last.value(at_ns))

    def previous_close(self, symbol: str, at_ns: int) -> Decimal:
        return self.last(symbol, self._hours.previous_close(at_ns) - 1)  # what comes after hours begins in that instant

    def extremes(self, symbol: str, start_ns: int, end_ns: int) -> Extremes:
        item = self._instruments[symbol]
        bid_low, bid_high = item.bid.extremes(start_ns, end_ns)
        ask_low, ask_high = (bid_low, bid_high) if item.ask is item.bid else item.ask.extremes(start_ns, end_ns)
        return Extremes(*map(item.price, (bid_low, bid_high, ask_low, ask_high)))

    def first(self, symbol: str, start_ns: int, end_ns: int, price: Decimal, side: str) -> int | None:
        item, rising = self._instruments[symbol], side == "sell"
        path = item.bid if side == "sell" else item.ask
        return path.first(start_ns, end_ns, item.units(price, rising=rising), rising=rising)

    def touched(self, symbol: str, start_ns: int, end_ns: int, price: Decimal, side: str) -> int | None:
        item, rising = self._instruments[symbol], side == "buy"
        path = item.ask if side == "buy" else item.bid
        return path.first(start_ns, end_ns, item.units(price, rising=rising), rising=rising)

    def search(
        self, symbol: str, start_ns: int, end_ns: int, could: Callable[[int, int, int, int], bool]
    ) -> int | None:
        item = self._instruments[symbol]

        def extremes(from_ns: int, until_ns: int) -> tuple[int, int]:
            low, high = item.bid.extremes(from_ns, until_ns)
            return int(item.price(low) * _CENTS), int(item.price(high) * _CENTS)

        return search_between(extremes, start_ns, end_ns, could)

    def trail(
        self, symbol: str, start_ns: int, end_ns: int, mark: Decimal, stop: Callable[[Decimal], Decimal], side: str
    ) -> Trail:
        item = self._instruments[symbol]
        path, sign = (item.bid, 1) if side == "sell" else (item.ask, -1)

        def limit(best: int) -> int:
            return sign * item.units(stop(item.price(sign * best)), rising=sign < 0)

        best = sign * item.units(mark, rising=sign < 0)
        at_ns, best = path.trail(start_ns, end_ns, best, limit, sign=sign)
        return Trail(at_ns, item.price(sign * best))


class RecordedFeed(Feed):
    """What was recorded, told again, and what follows from it: quotes and trades of a market of which only bars are known."""

    effort = 0
    most_backlog_ns = 1 << 62

    def __init__(self, instruments: Mapping[str, Instrument], prices: RecordedPrices, hours: Hours) -> None:
        super().__init__(prices, hours)
        self._instruments = instruments

    def knows(self, symbol: str, *, crypto: bool) -> bool:
        return symbol in self._instruments and self._instruments[symbol].crypto == crypto

    def symbols(self, *, crypto: bool) -> set[str]:
        return {symbol for symbol, item in self._instruments.items() if item.crypto == crypto}

    def trades(self, symbol: str, from_ns: int, until_ns: int) -> list[_Message]:
        """Return the recorded trades; where there are none, four of each bar: at each turn, with a quarter of its volume."""
        item = self._instruments[symbol]
        first, last = bisect_left(item.trade_times, from_ns), bisect_left(item.trade_times, until_ns)
        found = [self._told(item, index) for index in range(first, last)]
        if item.way is None:
            return found
        stretches = item.untraded.within(from_ns, until_ns) if item.trades else [(from_ns, until_ns)]
        for stretch in stretches:
            for knot in item.way.turns(*stretch):
                bar = item.bars[knot // _KNOTS].bar
                size = bar.volume // _KNOTS + (bar.volume % _KNOTS if knot % _KNOTS == 0 else 0)
                if size:
                    row = Trade(item.way.times[knot], item.way.prices[knot], size, {})
                    found.append(_trade(item, knot + bisect_left(item.trade_times, row.at_ns), row))
        return sorted(found, key=_time_of) if item.trades and stretches else found

    def quotes(self, symbol: str, from_ns: int, until_ns: int) -> list[_Message]:
        """Return the recorded quotes; where there are none, one wherever the way of the price turns."""
        item = self._instruments[symbol]
        first, last = bisect_left(item.quote_times, from_ns), bisect_left(item.quote_times, until_ns)
        found = [_quote(item, row) for row in item.quotes[first:last]]
        stretches = item.unquoted.within(from_ns, until_ns) if item.quotes else [(from_ns, until_ns)]
        for stretch in stretches:
            for knot in item.bid.turns(*stretch):
                row = QuoteRow(item.bid.times[knot], item.bid.prices[knot], _LOT, item.ask.prices[knot], _LOT, {})
                found.append(_quote(item, row))
        return sorted(found, key=_time_of) if item.quotes and stretches else found

    def finished_bars(self, symbol: str, from_ns: int, until_ns: int) -> list[_Message]:
        """Return the bars of the file, or the minutes that its trades make, that are told in an interval."""
        item = self._instruments[symbol]
        found = []
        if item.trades:
            all_ns = until_ns if not item.bars else min(until_ns, _minute(item.begins[0]) + BAR_DELAY_NS)
            found = super().finished_bars(symbol, from_ns, all_ns)
        first = bisect_right(item.ends, from_ns - BAR_DELAY_NS)
        last = bisect_right(item.ends, until_ns - BAR_DELAY_NS)
        return found + [self._recorded(symbol, placed) for placed in item.bars[first:last]]

    def latest_trade(self, symbol: str, until_ns: int, known_ns: int) -> _Message | None:
        item, at_ns = self._instruments[symbol], until_ns - 1
        if item.way is not None and item.traded is not None and item.barred(at_ns):
            knot = bisect_right(item.way.times, at_ns) - 1
            number = knot + bisect_left(item.trade_times, item.way.times[knot])
            return _trade(item, number, Trade(item.since(at_ns), item.traded.value(at_ns), _LOT, {}))
        index = bisect_left(item.trade_times, until_ns) - 1
        return self._told(item, index) if index >= 0 else None

    def latest_quote(self, symbol: str, until_ns: int) -> _Message | None:
        item, at_ns = self._instruments[symbol], until_ns - 1
        if at_ns < item.begin_ns:
            return None
        if item.quoted(at_ns):
            return _quote(item, item.quotes[bisect_left(item.quote_times, until_ns) - 1])
        bid, ask = item.bid.value(at_ns), item.ask.value(at_ns)
        return _quote(item, QuoteRow(item.since(at_ns), bid, _LOT, ask, _LOT, {}))

    def latest_bar(self, symbol: str, until_ns: int, known_ns: int) -> _Message | None:
        item = self._instruments[symbol]
        index = bisect_right(item.ends, until_ns - 1) - 1
        if index >= 0:
            return self._recorded(symbol, item.bars[index])
        all_ns = _minute(min(until_ns, item.begins[0]) if item.bars else until_ns)
        index = bisect_left(item.trade_times, all_ns) - 1
        return self.bar(symbol, _minute(item.trade_times[index])) if index >= 0 else None

    def bar(self, symbol: str, begin_ns: int, until_ns: int | None = None) -> _Message | None:
        """Return the bar of an interval: of the bars of the file, and of what was traded before the first of them."""
        item = self._instruments[symbol]
        until_ns = begin_ns + _MINUTE_NS if until_ns is None else until_ns
        if not item.bars:
            return super().bar(symbol, begin_ns, until_ns)
        bar = self._span(symbol, begin_ns, until_ns)
        if not item.trades or begin_ns >= item.begins[0]:
            return bar
        before = super().bar(symbol, begin_ns, min(until_ns, item.begins[0]))
        return bar if before is None else before if bar is None else _joined(before, bar)

    def _span(self, symbol: str, from_ns: int, until_ns: int) -> _Message | None:
        """Return one bar of any length: whole bars as they were recorded, of others the part that lies in the interval."""
        item = self._instruments[symbol]
        if item.way is None:
            return None
        first, last = bisect_right(item.ends, from_ns), bisect_left(item.begins, until_ns)
        if first >= last:
            return None
        opens_ns, closes_ns = max(from_ns, item.begins[first]), min(until_ns, item.ends[last - 1])
        opened, low, high, closed = item.shape(first, last, opens_ns, closes_ns)
        volume = item.volume(closes_ns) - item.volume(opens_ns)
        whole = opens_ns == item.begins[first] and closes_ns == item.ends[last - 1]
        bars = [placed.bar for placed in item.bars[first:last]]
        vwap = _vwap(bars) if whole else None
        if vwap is None:
            vwap = round(item.price(opened + high + low + closed) / 4, 6)
        return {
            "T": "b",
            "S": symbol,
            "o": item.price(opened),
            "h": item.price(high),
            "l": item.price(low),
            "c": item.price(closed),
            "v": volume,
            "n": item.count(closes_ns) - item.count(opens_ns),
            "vw": vwap,
            "t": from_ns,
        }

    def open_spans(
        self, symbol: str, from_ns: int, until_ns: int, *, backward: bool = False, regular: bool = False
    ) -> list[tuple[int, int]]:
        """Return the days of an interval that something was recorded of, its first and last hours included."""
        item = self._instruments[symbol]
        from_ns, until_ns = max(from_ns, item.begin_ns), min(until_ns, item.end_ns)
        spans = [
            (max(from_ns, day_ns), min(until_ns, day_ns + DAY_NS))
            for day_ns in range(from_ns // DAY_NS * DAY_NS, until_ns, DAY_NS)
        ]
        return spans[::-1] if backward else spans

    def news(self, from_ns: int, until_ns: int) -> list[_Message]:
        return []

    def book(self, symbol: str, at_ns: int) -> _Message | None:
        if at_ns < self._prices.begins_ns(symbol):
            return None
        quote = self._prices.quote(symbol, at_ns)
        bids, asks = [{"p": quote.bid, "s": quote.bid_size}], [{"p": quote.ask, "s": quote.ask_size}]
        return {"T": "o", "S": symbol, "t": at_ns, "r": True, "b": bids, "a": asks}

    def bands(self, symbol: str, from_ns: int, until_ns: int) -> list[_Message]:
        return []

    def _told(self, item: Instrument, index: int) -> _Message:
        """Return a recorded trade; where bars have trades too, all of them are counted together."""
        row = item.trades[index]
        before = 0 if item.way is None else bisect_right(item.way.times, row.at_ns)
        return _trade(item, before + index, row)

    def _recorded(self, symbol: str, placed: _Placed) -> _Message:
        """Return a bar of the file; a stock's day is named after its midnight."""
        bar = self._span(symbol, placed.begin_ns, placed.end_ns)
        if bar is None:
            raise AssertionError("a bar lies in its own time")
        return bar if placed.bar.begin_ns is not None else {**bar, "t": new_york_ns(placed.bar.day)}


_MINUTE_NS: Final = 60 * SECOND_NS


def _minute(at_ns: int) -> int:
    return at_ns // _MINUTE_NS * _MINUTE_NS


def _place(series: Series, hours: Hours) -> list[_Placed]:
    """Give every bar its time: a stock's day is its session, a coin's is the day in UTC."""
    placed = []
    for bar, width_ns in series.bars:
        if bar.begin_ns is not None:
            placed.append(_Placed(bar.begin_ns, bar.begin_ns + width_ns, bar))
        elif "/" in series.symbol:
            midnight_ns = int(datetime(bar.day.year, bar.day.month, bar.day.day, tzinfo=UTC).timestamp()) * SECOND_NS
            placed.append(_Placed(midnight_ns, midnight_ns + DAY_NS, bar))
        else:
            days = hours.days(bar.day, bar.day)
            if not days:
                raise UsageError(f"{bar.where}: the exchange is shut on {bar.day}", "take the row out")
            placed.append(_Placed(days[0].open_ns, days[0].close_ns, bar))
    placed.sort(key=lambda bar: bar.begin_ns)
    for before, after in pairwise(placed):
        if after.begin_ns < before.end_ns:
            raise UsageError(
                f"{after.bar.where}: this bar of {series.symbol} begins before that of {before.bar.where} ends",
                "give each time once; --timeframe says how long a bar is",
            )
    return placed


def _way_through(bars: Sequence[_Placed]) -> Path:
    times: list[int] = []
    prices: list[int] = []
    for begin_ns, end_ns, bar in bars:
        width_ns = end_ns - begin_ns
        times += (begin_ns, begin_ns + width_ns // 3, begin_ns + width_ns * 2 // 3, end_ns - 1)
        turns = (bar.low, bar.high) if bar.close >= bar.open else (bar.high, bar.low)
        prices += (bar.open, *turns, bar.close)
    return Path(times, prices, bytes((1, 1, 1, 0)) * len(bars))


def _steps(times: Sequence[int], prices: Sequence[int]) -> Path:
    """Return a path that jumps; what came in one instant follows a nanosecond apart, so that no price is lost."""
    apart: list[int] = []
    for at_ns in times:
        apart.append(at_ns if not apart or at_ns > apart[-1] else apart[-1] + 1)
    return Path(apart, prices, bytes(len(apart)))


def _range(path: Path, from_ns: int, until_ns: int) -> list[tuple[int, int]]:
    """Return the range of a path from its first knot in an interval on, if it has one there."""
    knot = bisect_left(path.times, from_ns)
    begins_ns = path.times[knot] if knot < len(path.times) else until_ns
    return [path.extremes(begins_ns, until_ns - 1)] if begins_ns < until_ns else []


def _valued(traded: Path, bid: Path, ask: Path, stretches: Stretches) -> Path:
    """Return what is traded, with the price that quotes leave of it in the stretches in which they alone go on."""
    prices = array("q", bid.prices)
    for begin_ns, end_ns in stretches:
        if begin_ns < traded.times[0]:
            continue
        stands = traded.value(begin_ns)
        for knot in bid.turns(begin_ns, end_ns):
            prices[knot] = min(max(stands, bid.prices[knot]), ask.prices[knot])
    return traded.overlaid(Path(bid.times, prices, bytes(len(prices))), stretches)


def _time_of(message: _Message) -> int:
    at_ns = message["t"]
    if not isinstance(at_ns, int):
        raise AssertionError("times are nanoseconds")
    return at_ns


def _vwap(bars: Sequence[Bar]) -> Decimal | None:
    """Return the volume-weighted price of whole bars, ``None`` where one of them does not tell its own."""
    if len(bars) == 1:
        return bars[0].vwap
    total = sum((bar.volume for bar in bars), Decimal(0))
    if not total or any(bar.vwap is None for bar in bars):
        return None
    weighted = (bar.vwap * bar.volume for bar in bars if bar.vwap is not None)
    return round(sum(weighted, Decimal(0)) / total, 6)


def _joined(before: _Message, bar: _Message) -> _Message:
    """Return the bar of two that follow one another."""
    volumes = as_decimal(before["v"]), as_decimal(bar["v"])
    value = as_decimal(before["vw"]) * volumes[0] + as_decimal(bar["vw"]) * volumes[1]
    counts = before["n"], bar["n"]
    return {
        **before,
        "h": max(as_decimal(before["h"]), as_decimal(bar["h"])),
        "l": min(as_decimal(before["l"]), as_decimal(bar["l"])),
        "c": bar["c"],
        "v": sum(volumes),
        "n": sum(count for count in counts if isinstance(count, int)),
        "vw": round(value / sum(volumes), 6) if any(volumes) else bar["vw"],
    }


def _trade(item: Instrument, number: int, row: Trade) -> _Message:
    told = {name: value for name, value in row.extra.items() if value is not None}
    extra = {"i": number, **({"tks": "B"} if item.crypto else _LISTED), **told}
    return {"T": "t", "S": item.symbol, "p": item.price(row.price), "s": row.size, "t": row.at_ns, **extra}


def _quote(item: Instrument, row: QuoteRow) -> _Message:
    sides: _Message = {"bp": item.price(row.bid), "bs": row.bid_size, "ap": item.price(row.ask), "as": row.ask_size}
    extra = {} if item.crypto else {**_QUOTED, **row.extra}
    return {"T": "q", "S": item.symbol, **sides, "t": row.at_ns, **extra}
