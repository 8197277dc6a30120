"""What the market reports as it happens: trades, quotes and bars, computed from (seed, symbol, time) like the prices.

Time is cut into slots of a quarter second. A hash of symbol and slot says whether there is a quote and a trade in it, and
when; so any split of an interval gives the same messages, and whoever asks for the past gets what was streamed. Messages are
dictionaries under Alpaca's short names, times in nanoseconds, ready for ``wire.frames.encode_messages``.
"""

import hashlib
from collections.abc import Iterator
from decimal import Decimal
from functools import lru_cache
from typing import Final

from alpacli.sim.answers import SECOND_NS
from alpacli.sim.hours import Hours
from alpacli.sim.listing import LISTINGS
from alpacli.sim.tape import Tape

SLOT_NS: Final = SECOND_NS // 4
MINUTE_NS: Final = 60 * SECOND_NS
TEST_SYMBOL: Final = "FAKEPACA"
"""The one symbol of the test feed; it moves like its stand-in, around the clock."""

_STAND_IN: Final = "AAPL"
_JITTER_NS: Final = 200_000_000
_Message = dict[str, object]


class Feed:
    """The messages of one market. Holds nothing but the way to compute them."""

    def __init__(self, tape: Tape, hours: Hours) -> None:
        self._tape = tape
        self._hours = hours

    def knows(self, symbol: str, *, crypto: bool) -> bool:
        if symbol == TEST_SYMBOL:
            return not crypto
        return symbol in LISTINGS and LISTINGS[symbol].crypto == crypto

    def trades(self, symbol: str, from_ns: int, until_ns: int) -> list[_Message]:
        """Return the trades from ``from_ns`` up to, not including, ``until_ns``, oldest first."""
        found = []
        for slot, dice in self._slots(symbol, from_ns, until_ns):
            at_ns = slot * SLOT_NS + 25_000_000 + (dice >> 24) % _JITTER_NS
            if dice % 4 == 0 and from_ns <= at_ns < until_ns and self._moves(symbol, at_ns):
                found.append(self._trade(symbol, slot, dice, at_ns))
        return found

    def quotes(self, symbol: str, from_ns: int, until_ns: int) -> list[_Message]:
        """Return the quotes from ``from_ns`` up to, not including, ``until_ns``, oldest first."""
        found = []
        for slot, dice in self._slots(symbol, from_ns, until_ns):
            at_ns = slot * SLOT_NS + (dice >> 16) % _JITTER_NS
            if dice % 8 < 6 and from_ns <= at_ns < until_ns and self._moves(symbol, at_ns):
                found.append(self._quote(symbol, at_ns))
        return found

    def bars(self, symbol: str, from_ns: int, until_ns: int) -> list[_Message]:
        """Return the minute bars that begin from ``from_ns`` up to, not including, ``until_ns``; none without trades."""
        first = -(-from_ns // MINUTE_NS)
        minutes = range(first * MINUTE_NS, until_ns, MINUTE_NS)
        return [bar for minute in minutes if (bar := self.bar(symbol, minute)) is not None]

    def bar(self, symbol: str, begin_ns: int) -> _Message | None:
        trades = self.trades(symbol, begin_ns, begin_ns + MINUTE_NS)
        if not trades:
            return None
        prices = [_decimal(trade["p"]) for trade in trades]
        sizes = [_decimal(trade["s"]) for trade in trades]
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

    def previous_close(self, symbol: str, at_ns: int) -> Decimal:
        return self._tape.previous_close(_listed(symbol), at_ns)

    def _slots(self, symbol: str, from_ns: int, until_ns: int) -> Iterator[tuple[int, int]]:
        key = _key(symbol)
        for slot in range(from_ns // SLOT_NS - 1, -(-until_ns // SLOT_NS)):
            yield slot, _dice(key, slot)

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


def _decimal(value: object) -> Decimal:
    if not isinstance(value, Decimal):
        raise AssertionError("prices and sizes are decimals")
    return value


@lru_cache(maxsize=1024)
def _key(symbol: str) -> int:
    return int.from_bytes(hashlib.blake2b(symbol.encode(), digest_size=8, person=b"alpacli feed").digest(), "big")


def _dice(key: int, slot: int) -> int:
    value = (key ^ (slot * 0x9E3779B97F4A7C15)) & 0xFFFFFFFFFFFFFFFF
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return value ^ (value >> 31)
