"""What the market reports as it happens: trades, quotes and bars, computed from (seed, symbol, time) like the prices.

Time is cut into slots of a quarter second. A hash of symbol and slot says whether there is a quote in it, and when; so any
split of an interval gives the same messages, and whoever asks for the past gets what was streamed. Messages are dictionaries
under Alpaca's short names, times in nanoseconds, ready for ``wire.frames.encode_messages``.

Where trades come from, each feed says. What a socket says in an interval (``told``) and what history says about it, given how
much is known (``history``), differ in a feed of which not every trade is right and told at once (``sim.amendments``).
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from datetime import date
from decimal import Decimal
from functools import lru_cache
from typing import Final

from alpacli.sim.answers import SECOND_NS
from alpacli.sim.hours import AlwaysOpen, Hours, TradingDay, new_york_date
from alpacli.sim.listing import LISTINGS
from alpacli.sim.prices import Prices
from alpacli.sim.prints import MINUTE_NS, dice_of

SLOT_NS: Final = SECOND_NS // 4
BAR_DELAY_NS: Final = 200_000_000
"""How long after its end a bar is told."""

TEST_SYMBOL: Final = "FAKEPACA"
"""The one symbol of the test feed; it moves like its stand-in, around the clock."""

DAY_NS: Final = 24 * 60 * MINUTE_NS
_NEWS_SLOT_NS: Final = 30 * SECOND_NS
_BANDS_NS: Final = 30 * SECOND_NS
_REFERENCE_NS: Final = 5 * MINUTE_NS
_BAND: Final = Decimal("0.05")
_CENT: Final = Decimal("0.01")
_STAND_IN: Final = "AAPL"
_JITTER_NS: Final = 200_000_000
LATELY_NS: Final = 60 * SECOND_NS
_Message = dict[str, object]


class Feed(ABC):
    """The messages of one market. Holds nothing but the way to compute them.

    ``effort`` is what making a minute of them costs, in the milliseconds that ``data`` counts. A socket that was not asked
    for long makes up for ``most_backlog_ns``: after the machine has slept, the hours before are not told.
    """

    effort = 1
    most_backlog_ns = 2 * MINUTE_NS

    def __init__(self, prices: Prices, hours: Hours) -> None:
        self._prices = prices
        self._hours = hours

    def knows(self, symbol: str, *, crypto: bool) -> bool:
        if symbol == TEST_SYMBOL:
            return not crypto
        return symbol in LISTINGS and LISTINGS[symbol].crypto == crypto

    def symbols(self, *, crypto: bool) -> set[str]:
        """Return all that a ``*`` stands for."""
        return {listing.symbol for listing in LISTINGS.values() if listing.crypto == crypto}

    @abstractmethod
    def trades(self, symbol: str, from_ns: int, until_ns: int) -> list[_Message]:
        """Return the trades from ``from_ns`` up to, not including, ``until_ns``, oldest first, as they happened."""

    def told(self, symbol: str, from_ns: int, until_ns: int) -> list[_Message]:
        """Return the trades that a socket tells in an interval, as it tells them."""
        return self.trades(symbol, from_ns, until_ns)

    def history(self, symbol: str, from_ns: int, until_ns: int, *, known_ns: int) -> list[_Message]:
        """Return the trades of an interval, oldest first, as they were known before ``known_ns``."""
        return self.trades(symbol, from_ns, until_ns)

    def corrections(self, symbol: str, from_ns: int, until_ns: int) -> list[_Message]:
        """Return the corrections that are told in an interval."""
        return []

    def cancels(self, symbol: str, from_ns: int, until_ns: int) -> list[_Message]:
        """Return the cancels that are told in an interval."""
        return []

    def statuses(self, symbol: str, from_ns: int, until_ns: int) -> list[_Message]:
        """Return the halts and resumptions that are told in an interval."""
        return []

    def updated_bars(self, symbol: str, from_ns: int, until_ns: int) -> list[_Message]:
        """Return the minute bars that are told once more in an interval, because their trades have changed."""
        return []

    def quotes(self, symbol: str, from_ns: int, until_ns: int) -> list[_Message]:
        """Return the quotes from ``from_ns`` up to, not including, ``until_ns``, oldest first."""
        found = []
        for slot, dice in self._slots(symbol, from_ns, until_ns):
            at_ns = slot * SLOT_NS + (dice >> 16) % _JITTER_NS
            if dice % 8 < 6 and from_ns <= at_ns < until_ns and self._is_quoted(symbol, at_ns):
                found.append(self._quote(symbol, at_ns))
        return found

    def bars(self, symbol: str, from_ns: int, until_ns: int) -> list[_Message]:
        """Return the minute bars that begin from ``from_ns`` up to, not including, ``until_ns``; none without trades."""
        first = -(-from_ns // MINUTE_NS)
        minutes = range(first * MINUTE_NS, until_ns, MINUTE_NS)
        return [bar for minute in minutes if (bar := self.bar(symbol, minute)) is not None]

    def finished_bars(self, symbol: str, from_ns: int, until_ns: int) -> list[_Message]:
        """Return the minute bars that are told from ``from_ns`` up to ``until_ns``: a little after they are over."""
        first_ns, last_ns = ((at_ns - BAR_DELAY_NS) // MINUTE_NS * MINUTE_NS for at_ns in (from_ns, until_ns))
        return self.bars(symbol, first_ns, last_ns)

    def latest_trade(self, symbol: str, until_ns: int, known_ns: int) -> _Message | None:
        """Return the last trade before ``until_ns``, in a time in which it trades, as it was known before ``known_ns``."""
        trades = self.trades(symbol, until_ns - LATELY_NS, until_ns)
        return trades[-1] if trades else None

    def latest_quote(self, symbol: str, until_ns: int) -> _Message | None:
        for lately_ns in (SECOND_NS, LATELY_NS):  # a second nearly always has one
            quotes = self.quotes(symbol, until_ns - lately_ns, until_ns)
            if quotes:
                return quotes[-1]
        return None

    def latest_bar(self, symbol: str, until_ns: int, known_ns: int) -> _Message | None:
        """Return the bar of the last whole minute; instants as in ``latest_trade``."""
        minute_ns = until_ns // MINUTE_NS * MINUTE_NS
        return self.bar(symbol, minute_ns - MINUTE_NS)

    def bar(self, symbol: str, begin_ns: int, until_ns: int | None = None) -> _Message | None:
        """Return the bar of a minute, or up to ``until_ns``, made of its trades; ``None`` when there are none."""
        end_ns = begin_ns + MINUTE_NS if until_ns is None else until_ns
        return self._bar_of(symbol, begin_ns, self.trades(symbol, begin_ns, end_ns))

    def bar_as_of(self, symbol: str, begin_ns: int, until_ns: int, known_ns: int) -> _Message | None:
        """Return the bar of an interval as it was known before ``known_ns``."""
        return self.bar(symbol, begin_ns, until_ns)

    def _bar_of(self, symbol: str, begin_ns: int, trades: list[_Message]) -> _Message | None:
        if not trades:
            return None
        prices = [as_decimal(trade["p"]) for trade in trades]
        sizes = [as_decimal(trade["s"]) for trade in trades]
        volume = sum(sizes, Decimal(0))
        value = sum((price * size for price, size in zip(prices, sizes, strict=True)), Decimal(0))
        vwap = value / volume if volume else prices[-1]
        return {
            "T": "b",
            "S": symbol,
            "o": prices[0],
            "h": max(prices),
            "l": min(prices),
            "c": prices[-1],
            "v": volume,
            "n": len(trades),
            "vw": round(vwap, 6),
            "t": begin_ns,
        }

    def day_so_far(self, symbol: str, until_ns: int, known_ns: int) -> _Message | None:
        """Return the bar of the trading day that is under way at ``until_ns``, or of the one that ended on its date.

        It is as it was known before ``known_ns``; ``None`` when nothing has traded yet. A coin's day begins at midnight UTC,
        an equity's in New York.
        """
        if symbol != TEST_SYMBOL and LISTINGS[symbol].crypto:
            return self.span(symbol, until_ns // DAY_NS * DAY_NS, until_ns, known_ns)
        days = self.days(symbol, new_york_date(until_ns), new_york_date(until_ns))
        if not days:
            return None
        bar = self.span(symbol, days[0].open_ns, min(until_ns, days[0].close_ns), known_ns)
        return None if bar is None else {**bar, "t": days[0].midnight_ns}

    def days(self, symbol: str, first: date, last: date) -> list[TradingDay]:
        """Return the days in New York on which a stock trades here, both ends included."""
        return (AlwaysOpen() if symbol == TEST_SYMBOL else self._hours).days(first, last)

    def span(
        self, symbol: str, from_ns: int, until_ns: int, known_ns: int, *, regular: bool = False
    ) -> _Message | None:
        """Return one bar of any length as it was known before ``known_ns``; ``None`` where nothing traded.

        A ``regular`` one is made of sessions alone, where the feed can tell: so are those of days, weeks and months.
        """
        return self.spans(symbol, [(from_ns, until_ns)], known_ns, regular=regular)[0]

    def spans(
        self, symbol: str, stretches: Sequence[tuple[int, int]], known_ns: int, *, regular: bool = False
    ) -> list[_Message | None]:
        """Return the bars of many stretches of time, as ``span`` does each; some feeds are much quicker at many."""
        return [
            self.bar_as_of(symbol, from_ns, until_ns, known_ns) if until_ns > from_ns else None
            for from_ns, until_ns in stretches
        ]

    def span_work(self, symbol: str, from_ns: int, until_ns: int) -> float:
        """Return what making a bar costs, in the milliseconds that ``data`` counts."""
        return -(-(until_ns - from_ns) // MINUTE_NS) * self.effort

    def open_spans(
        self, symbol: str, from_ns: int, until_ns: int, *, backward: bool = False, regular: bool = False
    ) -> list[tuple[int, int]]:
        """Return the parts of an interval in which the symbol trades, in order of time or ``backward``.

        Those before and after a session are among them, unless only ``regular`` ones are asked for.
        """
        if until_ns <= from_ns:
            return []
        if symbol == TEST_SYMBOL or LISTINGS[symbol].crypto or self._hours.name == "always":
            return [(from_ns, until_ns)]
        days = self._hours.days(new_york_date(from_ns), new_york_date(until_ns - 1))
        whole = [(day.open_ns, day.close_ns) if regular else (day.from_ns, day.until_ns) for day in days]
        spans = [(max(begin_ns, from_ns), min(end_ns, until_ns)) for begin_ns, end_ns in whole]
        spans = [(begin_ns, end_ns) for begin_ns, end_ns in spans if begin_ns < end_ns]
        return spans[::-1] if backward else spans

    def news(self, from_ns: int, until_ns: int) -> list[_Message]:
        """Return the articles from ``from_ns`` up to, not including, ``until_ns``, oldest first: two a minute."""
        found = []
        for slot in range(from_ns // _NEWS_SLOT_NS - 1, -(-until_ns // _NEWS_SLOT_NS)):
            dice = dice_of(key_of("news"), slot)
            at_ns = slot * _NEWS_SLOT_NS + dice % (_NEWS_SLOT_NS - SECOND_NS)
            if from_ns <= at_ns < until_ns and slot >= 0:
                found.append(self._article(slot, dice, at_ns))
        return found

    def _article(self, slot: int, dice: int, at_ns: int) -> _Message:
        listings = list(LISTINGS.values())
        first, second = (listings[(dice >> shift) % len(listings)] for shift in (20, 36))
        before = self._prices.last(first.symbol, max(at_ns - 3600 * SECOND_NS, 0))
        price = self._prices.last(first.symbol, at_ns)
        verb = "gains" if price > before else "slips" if price < before else "holds"
        headline = f"{first.name.partition(' Common Stock')[0]} {verb} at {price} in the past hour's trading"
        others = [] if dice & 1 or second is first else [second]
        return {
            "T": "n",
            "id": slot,
            "headline": headline,
            "summary": f"{first.symbol} went from {before} to {price} within the hour.",
            "author": "The Offline Exchange",
            "created_at": at_ns,
            "updated_at": at_ns,
            "url": f"https://example.com/news/{slot}",
            "content": f"<p>{headline}.</p>",
            "symbols": [item.position_symbol for item in (first, *others)],
            "source": "alpacli",
        }

    def books(self, symbol: str, from_ns: int, until_ns: int) -> list[_Message]:
        """Return a coin's order book at each whole second from ``from_ns`` up to, not including, ``until_ns``."""
        first = -(-from_ns // SECOND_NS) * SECOND_NS
        found = (self.book(symbol, at_ns) for at_ns in range(first, until_ns, SECOND_NS))
        return [book for book in found if book is not None]

    def book(self, symbol: str, at_ns: int) -> _Message | None:
        """Return a coin's whole order book: three levels on each side of the quote; ``None`` before it has a price."""
        quote = self._prices.quote(symbol, at_ns)
        tick = quote.ask - quote.bid
        return {
            "T": "o",
            "S": symbol,
            "t": at_ns,
            "r": True,
            "b": [{"p": quote.bid - level * tick, "s": quote.bid_size * (level + 1)} for level in range(3)],
            "a": [{"p": quote.ask + level * tick, "s": quote.ask_size * (level + 1)} for level in range(3)],
        }

    def bands(self, symbol: str, from_ns: int, until_ns: int) -> list[_Message]:
        """Return an equity's limit-up limit-down bands, told every thirty seconds of the session while it trades.

        Five percent around the price at the start of the five minutes, as the plan has it for the stocks that are here;
        prices that move less than that never touch them.
        """
        listing = LISTINGS[symbol]
        first = -(-from_ns // _BANDS_NS) * _BANDS_NS
        found: list[_Message] = []
        for at_ns in range(first, until_ns, _BANDS_NS):
            if not (self._moves(symbol, at_ns) and self._hours.is_open(at_ns)):
                continue
            reference = self._prices.last(listing.symbol, at_ns // _REFERENCE_NS * _REFERENCE_NS)
            width = (reference * _BAND).quantize(_CENT)
            band = {"u": reference + width, "d": reference - width, "i": "B"}
            found.append({"T": "l", "S": symbol, **band, "t": at_ns, "z": "C"})
        return found

    def previous_close(self, symbol: str, at_ns: int) -> Decimal:
        return self._prices.previous_close(listed(symbol), at_ns)

    def _slots(self, symbol: str, from_ns: int, until_ns: int) -> Iterator[tuple[int, int]]:
        key = key_of(symbol)
        for slot in range(from_ns // SLOT_NS - 1, -(-until_ns // SLOT_NS)):
            yield slot, dice_of(key, slot)

    def _is_quoted(self, symbol: str, at_ns: int) -> bool:
        return self._moves(symbol, at_ns)

    def _moves(self, symbol: str, at_ns: int) -> bool:
        return symbol == TEST_SYMBOL or LISTINGS[symbol].crypto or self._hours.is_traded(at_ns)

    def _quote(self, symbol: str, at_ns: int) -> _Message:
        listing = LISTINGS[listed(symbol)]
        quote = self._prices.quote(listing.symbol, at_ns)
        sides: _Message = {"bp": quote.bid, "bs": quote.bid_size, "ap": quote.ask, "as": quote.ask_size}
        if listing.crypto:
            return {"T": "q", "S": symbol, **sides, "t": at_ns}
        return {"T": "q", "S": symbol, "bx": "V", "ax": "V", **sides, "c": ["R"], "t": at_ns, "z": "C"}


def listed(symbol: str) -> str:
    return _STAND_IN if symbol == TEST_SYMBOL else symbol


def as_decimal(value: object) -> Decimal:
    if not isinstance(value, Decimal):
        raise AssertionError("prices and sizes are decimals")
    return value


@lru_cache(maxsize=1024)
def key_of(symbol: str) -> int:
    return int.from_bytes(hashlib.blake2b(symbol.encode(), digest_size=8, person=b"alpacli feed").digest(), "big")
