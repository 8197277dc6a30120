"""What the market reports as it happens: trades, quotes and bars, computed from (seed, symbol, time) like the prices.

Time is cut into slots of a quarter second. A hash of symbol and slot says whether there is a quote and a trade in it, and
when; so any split of an interval gives the same messages, and whoever asks for the past gets what was streamed. Messages are
dictionaries under Alpaca's short names, times in nanoseconds, ready for ``wire.frames.encode_messages``.

In this feed every trade is right and told at once. What a socket says in an interval (``told``) and what history says about
it, given how much is known (``history``), differ in a feed of which that is not true (``sim.amendments``).
"""

import hashlib
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Final

from alpacli.sim.answers import SECOND_NS
from alpacli.sim.hours import Hours, new_york_date, new_york_ns
from alpacli.sim.listing import LISTINGS, Listing
from alpacli.sim.prices import Prices

SLOT_NS: Final = SECOND_NS // 4
MINUTE_NS: Final = 60 * SECOND_NS
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


class Feed:
    """The messages of one market. Holds nothing but the way to compute them.

    ``effort`` is what making a minute of them costs, in the milliseconds that ``data`` counts, and ``long_bar_work`` how many
    times that a bar of a day costs. A socket that was not asked for long makes up for ``most_backlog_ns``: after the machine
    has slept, the hours before are not told.
    """

    effort = 1
    long_bar_work = 8
    most_backlog_ns = 2 * MINUTE_NS

    def __init__(self, tape: Prices, hours: Hours) -> None:
        self._tape = tape
        self._hours = hours

    def knows(self, symbol: str, *, crypto: bool) -> bool:
        if symbol == TEST_SYMBOL:
            return not crypto
        return symbol in LISTINGS and LISTINGS[symbol].crypto == crypto

    def symbols(self, *, crypto: bool) -> set[str]:
        """Return all that a ``*`` stands for."""
        return {listing.symbol for listing in LISTINGS.values() if listing.crypto == crypto}

    def trades(self, symbol: str, from_ns: int, until_ns: int) -> list[_Message]:
        """Return the trades from ``from_ns`` up to, not including, ``until_ns``, oldest first, as they happened."""
        return [self._trade(symbol, *found) for found in self._executions(symbol, from_ns, until_ns)]

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

    def latest_trade(self, symbol: str, until_ns: int) -> _Message | None:
        trades = self.trades(symbol, until_ns - LATELY_NS, until_ns)
        return trades[-1] if trades else None

    def latest_quote(self, symbol: str, until_ns: int) -> _Message | None:
        quotes = self.quotes(symbol, until_ns - LATELY_NS, until_ns)
        return quotes[-1] if quotes else None

    def latest_bar(self, symbol: str, until_ns: int) -> _Message | None:
        """Return the bar of the last whole minute."""
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
        vwap = sum((price * size for price, size in zip(prices, sizes, strict=True)), Decimal(0)) / volume
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

    def day_so_far(self, symbol: str, until_ns: int) -> _Message | None:
        """Return the bar of the trading day that is under way at ``until_ns``, or of the one that ended on its date.

        Its prices are the tape's own range and its volume is the whole market's: 86 400 seconds of trades are too many to
        add up. ``None`` when nothing can have traded yet. A coin's day begins at midnight UTC, an equity's in New York.
        """
        listing = LISTINGS[_listed(symbol)]
        if listing.crypto:
            from_ns = until_ns // DAY_NS * DAY_NS
            return self.span(symbol, from_ns, until_ns)
        day = new_york_date(until_ns)
        days = self._hours.days(day, day)
        if not days:
            return None
        bar = self.span(symbol, days[0].open_ns, min(until_ns, days[0].close_ns))
        return None if bar is None else {**bar, "t": days[0].midnight_ns}

    def span(self, symbol: str, from_ns: int, until_ns: int) -> _Message | None:
        """Return one bar of any length from the tape, as ``day_so_far``; ``None`` where the market was shut all along."""
        listing = LISTINGS[_listed(symbol)]
        if until_ns <= from_ns or not self._moved(listing, from_ns, until_ns):
            return None
        extremes = self._tape.extremes(listing.symbol, from_ns, until_ns)
        opened, closed = self._tape.last(listing.symbol, from_ns), self._tape.last(listing.symbol, until_ns)
        volume = max(self._volume(listing.symbol, from_ns, until_ns), 1)
        middle = (opened + closed + extremes.ask_high + extremes.bid_low) / 4
        return {
            "T": "b",
            "S": symbol,
            "o": opened,
            "h": extremes.ask_high,
            "l": extremes.bid_low,
            "c": closed,
            "v": volume,
            "n": volume // 150 + 1,
            "vw": round(middle, 6),
            "t": from_ns,
        }

    def open_spans(self, symbol: str, from_ns: int, until_ns: int, *, backward: bool = False) -> list[tuple[int, int]]:
        """Return the parts of an interval in which the symbol trades, in order of time or ``backward``."""
        if until_ns <= from_ns:
            return []
        if symbol == TEST_SYMBOL or LISTINGS[symbol].crypto or self._hours.name == "always":
            return [(from_ns, until_ns)]
        days = self._hours.days(new_york_date(from_ns), new_york_date(until_ns - 1))
        spans = [(max(day.open_ns, from_ns), min(day.close_ns, until_ns)) for day in days]
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
        before = self._tape.last(first.symbol, max(at_ns - 3600 * SECOND_NS, 0))
        price = self._tape.last(first.symbol, at_ns)
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

    def _moved(self, listing: Listing, from_ns: int, until_ns: int) -> bool:
        if listing.crypto:
            return True
        days = self._hours.days(new_york_date(from_ns), new_york_date(until_ns - 1))
        return any(day.open_ns < until_ns and day.close_ns > from_ns for day in days)

    def _volume(self, symbol: str, from_ns: int, until_ns: int) -> int:
        """Return the units traded in an interval: the tape counts from midnight to midnight in New York."""
        total = 0
        while from_ns < until_ns:
            end_ns = min(until_ns, new_york_ns(new_york_date(from_ns) + timedelta(1)))
            total += self._tape.volume(symbol, end_ns - 1) - self._tape.volume(symbol, from_ns)
            from_ns = end_ns
        return total

    def books(self, symbol: str, from_ns: int, until_ns: int) -> list[_Message]:
        """Return a coin's order book at each whole second from ``from_ns`` up to, not including, ``until_ns``."""
        first = -(-from_ns // SECOND_NS) * SECOND_NS
        return [self.book(symbol, at_ns) for at_ns in range(first, until_ns, SECOND_NS)]

    def book(self, symbol: str, at_ns: int) -> _Message:
        """Return a coin's whole order book: three levels on each side of the quote."""
        quote = self._tape.quote(symbol, at_ns)
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
        """Return an equity's limit-up limit-down bands, told every thirty seconds while it trades.

        Five percent around the price at the start of the five minutes, as the plan has it for the stocks that are here;
        prices that move less than that never touch them.
        """
        listing = LISTINGS[symbol]
        first = -(-from_ns // _BANDS_NS) * _BANDS_NS
        found: list[_Message] = []
        for at_ns in range(first, until_ns, _BANDS_NS):
            if not self._moves(symbol, at_ns):
                continue
            reference = self._tape.last(listing.symbol, at_ns // _REFERENCE_NS * _REFERENCE_NS)
            width = (reference * _BAND).quantize(_CENT)
            band = {"u": reference + width, "d": reference - width, "i": "B"}
            found.append({"T": "l", "S": symbol, **band, "t": at_ns, "z": "C"})
        return found

    def previous_close(self, symbol: str, at_ns: int) -> Decimal:
        return self._tape.previous_close(_listed(symbol), at_ns)

    def _slots(self, symbol: str, from_ns: int, until_ns: int) -> Iterator[tuple[int, int]]:
        key = key_of(symbol)
        for slot in range(from_ns // SLOT_NS - 1, -(-until_ns // SLOT_NS)):
            yield slot, dice_of(key, slot)

    def _executions(self, symbol: str, from_ns: int, until_ns: int) -> Iterator[tuple[int, int, int]]:
        """Give slot, hash and time of each trade that happens in an interval."""
        for slot, dice in self._slots(symbol, from_ns, until_ns):
            at_ns = executed_ns(slot, dice)
            if dice % 4 == 0 and from_ns <= at_ns < until_ns and self._moves(symbol, at_ns):
                yield slot, dice, at_ns

    def _is_quoted(self, symbol: str, at_ns: int) -> bool:
        return self._moves(symbol, at_ns)

    def _moves(self, symbol: str, at_ns: int) -> bool:
        return symbol == TEST_SYMBOL or LISTINGS[symbol].crypto or self._hours.is_open(at_ns)

    def _trade(self, symbol: str, slot: int, dice: int, at_ns: int) -> _Message:
        listing = LISTINGS[_listed(symbol)]
        price = self._tape.last(listing.symbol, at_ns)
        size = Decimal(1 + (dice >> 40) % 300)
        if listing.crypto:
            return {
                "T": "t",
                "S": symbol,
                "p": price,
                "s": size.scaleb(-3),
                "t": at_ns,
                "i": slot,
                "tks": "B" if dice & 1024 else "S",
            }
        return {
            "T": "t",
            "S": symbol,
            "i": slot,
            "x": "V",
            "p": price,
            "s": size,
            "c": ["@"] if size > 99 else ["@", "I"],
            "t": at_ns,
            "z": "C",
        }

    def _quote(self, symbol: str, at_ns: int) -> _Message:
        listing = LISTINGS[_listed(symbol)]
        quote = self._tape.quote(listing.symbol, at_ns)
        sides: _Message = {"bp": quote.bid, "bs": quote.bid_size, "ap": quote.ask, "as": quote.ask_size}
        if listing.crypto:
            return {"T": "q", "S": symbol, **sides, "t": at_ns}
        return {"T": "q", "S": symbol, "bx": "V", "ax": "V", **sides, "c": ["R"], "t": at_ns, "z": "C"}


def _listed(symbol: str) -> str:
    return _STAND_IN if symbol == TEST_SYMBOL else symbol


def as_decimal(value: object) -> Decimal:
    if not isinstance(value, Decimal):
        raise AssertionError("prices and sizes are decimals")
    return value


def executed_ns(slot: int, dice: int) -> int:
    """Return when the trade of a slot happens."""
    return slot * SLOT_NS + 25_000_000 + (dice >> 24) % _JITTER_NS


@lru_cache(maxsize=1024)
def key_of(symbol: str) -> int:
    return int.from_bytes(hashlib.blake2b(symbol.encode(), digest_size=8, person=b"alpacli feed").digest(), "big")


def dice_of(key: int, slot: int) -> int:
    value = (key ^ (slot * 0x9E3779B97F4A7C15)) & 0xFFFFFFFFFFFFFFFF
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return value ^ (value >> 31)
