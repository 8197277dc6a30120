"""The feed of a market in which things go wrong now and then: late trades, corrections, cancels, updated bars, and halts.

The fate of a trade is in the same hash as the trade, so a socket that told it wrongly and a history that is read afterwards
agree. Everything is over within half a minute of the trade, in time for the updated bar of its minute. What a trade is
corrected to is the price of the tape.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Final, Literal, NamedTuple

from alpacli.sim.answers import SECOND_NS
from alpacli.sim.feed import (
    BAR_DELAY_NS,
    DAY_NS,
    LATELY_NS,
    MINUTE_NS,
    SLOT_NS,
    TEST_SYMBOL,
    Feed,
    as_decimal,
    dice_of,
    executed_ns,
    key_of,
)
from alpacli.sim.halts import between_halts, halts
from alpacli.sim.listing import LISTINGS

EVER: Final = 1 << 62
"""When all is known that ever becomes of a trade."""

UPDATE_DELAY_NS: Final = 30 * SECOND_NS
"""A minute's bar is told again so long after the minute, when its trades have changed since the first time."""

_LONGEST_NS: Final = 28 * SECOND_NS
_SHORTEST_NS: Final = 2 * SECOND_NS
_LATE_OF_4096: Final = 16
_CORRECTED_OF_4096: Final = 2
_CANCELED_OF_4096: Final = 2
_FIRST_CORRECTED_ID: Final = 10**12
_Message = dict[str, object]


class Fate(NamedTuple):
    """``late``: first told ``after_ns`` after it happened; ``corrected``, ``canceled``: so much later it is amended."""

    kind: Literal["late", "corrected", "canceled"]
    after_ns: int


class AmendedFeed(Feed):
    """The messages of the computed market."""

    def told(self, symbol: str, from_ns: int, until_ns: int) -> list[_Message]:
        """Return late trades when they come, and wrong ones as they were."""
        found = [
            self._as_told(symbol, slot, dice, at_ns, fate)
            for slot, dice, at_ns in self._executions(symbol, from_ns, until_ns)
            if (fate := self._fate(symbol, dice)) is None or fate.kind != "late"
        ]
        for slot, dice, at_ns, fate in self._amendments(symbol, from_ns, until_ns):
            if fate.kind == "late":
                found.append(self._as_told(symbol, slot, dice, at_ns, fate))
        return found

    def history(self, symbol: str, from_ns: int, until_ns: int, *, known_ns: int) -> list[_Message]:
        """Return the trades from ``from_ns`` up to, not including, ``until_ns``, oldest first, as history has them.

        That is what was known before ``known_ns``: without those whose report was still to come, and those that were
        canceled or corrected meanwhile carry a ``u`` that says so. What a trade was corrected to stands right after it.
        """
        found: list[_Message] = []
        for slot, dice, at_ns in self._executions(symbol, from_ns, until_ns):
            fate = self._fate(symbol, dice)
            if fate is None:
                found.append(self._trade(symbol, slot, dice, at_ns))
            elif at_ns + fate.after_ns < known_ns:
                found += self._amended(symbol, slot, dice, at_ns, fate)
            elif fate.kind != "late":
                found.append(self._as_told(symbol, slot, dice, at_ns, fate))
        return found

    def corrections(self, symbol: str, from_ns: int, until_ns: int) -> list[_Message]:
        found: list[_Message] = []
        for slot, dice, at_ns, fate in self._amendments(symbol, from_ns, until_ns):
            if fate.kind == "corrected":
                wrong, right = self._amended(symbol, slot, dice, at_ns, fate)
                sides = {**_side("o", wrong), **_side("c", right)}
                found.append({"T": "c", "S": symbol, "x": wrong["x"], **sides, "t": at_ns + fate.after_ns, "z": "C"})
        return found

    def cancels(self, symbol: str, from_ns: int, until_ns: int) -> list[_Message]:
        found: list[_Message] = []
        for slot, dice, at_ns, fate in self._amendments(symbol, from_ns, until_ns):
            if fate.kind == "canceled":
                gone = self._as_told(symbol, slot, dice, at_ns, fate)
                same = {name: gone[name] for name in ("i", "x", "p", "s")}
                action = "E" if dice & 2048 else "C"
                found.append({"T": "x", "S": symbol, **same, "a": action, "t": at_ns + fate.after_ns, "z": "C"})
        return found

    def statuses(self, symbol: str, from_ns: int, until_ns: int) -> list[_Message]:
        found: list[_Message] = []
        for halt in halts(self._hours, symbol, from_ns - 1, until_ns):
            for at_ns, code, text, reason, why in (
                (halt.from_ns, "H", "Trading Halt", "T1", "Halt - News Pending"),
                (halt.quoting_ns, "Q", "Quotation Resumption", "T3", "News and Resumption Times"),
                (halt.until_ns, "T", "Trading Resumption", "T3", "News and Resumption Times"),
            ):
                if from_ns <= at_ns < until_ns:
                    texts = {"sc": code, "sm": text, "rc": reason, "rm": why}
                    found.append({"T": "s", "S": symbol, **texts, "t": at_ns, "z": "C"})
        return found

    def finished_bars(self, symbol: str, from_ns: int, until_ns: int) -> list[_Message]:
        found: list[_Message] = []
        for minute in _minutes(from_ns - BAR_DELAY_NS, until_ns - BAR_DELAY_NS):
            end_ns = minute + MINUTE_NS
            bar = self.bar_as_of(symbol, minute, end_ns, end_ns + BAR_DELAY_NS)
            found += [bar] if bar is not None else []
        return found

    def updated_bars(self, symbol: str, from_ns: int, until_ns: int) -> list[_Message]:
        found: list[_Message] = []
        for minute in _minutes(from_ns - UPDATE_DELAY_NS, until_ns - UPDATE_DELAY_NS):
            end_ns = minute + MINUTE_NS
            if not self._amendments(symbol, end_ns + BAR_DELAY_NS, end_ns + UPDATE_DELAY_NS):
                continue  # which is nearly always, and much cheaper to know than to make the bar twice
            first = self.bar_as_of(symbol, minute, end_ns, end_ns + BAR_DELAY_NS)
            now = self.bar_as_of(symbol, minute, end_ns, end_ns + UPDATE_DELAY_NS)
            if now is not None and now != first:
                found.append({**now, "T": "u"})
        return found

    def bar(self, symbol: str, begin_ns: int, until_ns: int | None = None) -> _Message | None:
        return self.bar_as_of(symbol, begin_ns, begin_ns + MINUTE_NS if until_ns is None else until_ns, EVER)

    def bar_as_of(self, symbol: str, begin_ns: int, until_ns: int, known_ns: int) -> _Message | None:
        trades = self.history(symbol, begin_ns, until_ns, known_ns=known_ns)
        return self._bar_of(symbol, begin_ns, [trade for trade in trades if counts(trade)])

    def latest_trade(self, symbol: str, until_ns: int) -> _Message | None:
        """Return the last trade that still counts; in a halt the last before it."""
        end_ns = self._last_active_ns(symbol, until_ns, quotes=False)
        trades = self.history(symbol, end_ns - LATELY_NS, end_ns, known_ns=until_ns)
        return next((trade for trade in reversed(trades) if counts(trade)), None)

    def latest_quote(self, symbol: str, until_ns: int) -> _Message | None:
        return super().latest_quote(symbol, self._last_active_ns(symbol, until_ns, quotes=True))

    def latest_bar(self, symbol: str, until_ns: int) -> _Message | None:
        minute_ns = self._last_active_ns(symbol, until_ns, quotes=False) // MINUTE_NS * MINUTE_NS
        return self.bar_as_of(symbol, minute_ns - MINUTE_NS, minute_ns, until_ns)

    def _amendments(self, symbol: str, from_ns: int, until_ns: int) -> list[tuple[int, int, int, Fate]]:
        """Return the trades about which something is said in an interval, long after they happened, in that order."""
        key = key_of(symbol)
        found: list[tuple[int, int, int, Fate]] = []
        for minute in range((from_ns - _LONGEST_NS) // MINUTE_NS, -(-until_ns // MINUTE_NS)):
            for slot, dice in _odd_trades(key, minute):
                fate, at_ns = self._fate(symbol, dice), executed_ns(slot, dice)
                if fate and from_ns <= at_ns + fate.after_ns < until_ns and self._moves(symbol, at_ns):
                    found.append((slot, dice, at_ns, fate))
        return sorted(found, key=lambda item: item[2] + item[3].after_ns)

    def _fate(self, symbol: str, dice: int) -> Fate | None:
        """Return what becomes of a trade; all goes well on the test feed, which has no channels to tell otherwise."""
        return None if symbol == TEST_SYMBOL else fate_of(dice, crypto=LISTINGS[symbol].crypto)

    def _moves(self, symbol: str, at_ns: int) -> bool:
        return super()._moves(symbol, at_ns) and not any(halts(self._hours, symbol, at_ns, at_ns + 1))

    def _is_quoted(self, symbol: str, at_ns: int) -> bool:
        quiet = any(at_ns < halt.quoting_ns for halt in halts(self._hours, symbol, at_ns, at_ns + 1))
        return super()._moves(symbol, at_ns) and not quiet

    def _last_active_ns(self, symbol: str, until_ns: int, *, quotes: bool) -> int:
        """Return until when a symbol last traded, or was ``quotes`` quoted, before ``until_ns``, given that it is open."""
        *_, (_, end_ns) = between_halts(self._hours, symbol, [(until_ns - DAY_NS, until_ns)], quotes=quotes)
        return end_ns

    def _as_told(self, symbol: str, slot: int, dice: int, at_ns: int, fate: Fate | None) -> _Message:
        """Return a trade as a socket tells it: wrong when it will be amended."""
        trade = self._trade(symbol, slot, dice, at_ns)
        if fate is None:
            return trade
        if fate.kind == "late":
            return {**trade, "c": ["@", "Z"]} if "c" in trade else trade  # sold out of sequence
        if fate.kind == "corrected" and dice & 1024:
            return {**trade, "s": as_decimal(trade["s"]) * 10, "c": ["@"]}
        price = as_decimal(trade["p"])
        return {**trade, "p": price + (-price if dice & 512 else price).scaleb(-2).quantize(price)}

    def _amended(self, symbol: str, slot: int, dice: int, at_ns: int, fate: Fate) -> list[_Message]:
        """Return a trade once all is known about it: with what it was corrected to."""
        told = self._as_told(symbol, slot, dice, at_ns, fate)
        if fate.kind == "late":
            return [told]
        if fate.kind == "canceled":
            return [{**told, "u": "canceled"}]
        right = {**self._trade(symbol, slot, dice, at_ns), "i": _FIRST_CORRECTED_ID + slot}
        return [{**told, "u": "incorrect"}, {**right, "u": "corrected"}]


def counts(trade: Mapping[str, object]) -> bool:
    """Tell whether a trade of history is one still, and not canceled or replaced by its correction."""
    return trade.get("u") not in ("canceled", "incorrect")


def fate_of(dice: int, *, crypto: bool) -> Fate | None:
    """Return what becomes of the trade of a 64-bit hash; coins' trades are late at most."""
    draw = dice >> 52
    if draw >= _LATE_OF_4096 + _CORRECTED_OF_4096 + _CANCELED_OF_4096:
        return None
    after_ns = _SHORTEST_NS + (dice >> 8) % (_LONGEST_NS - _SHORTEST_NS)
    if draw < _LATE_OF_4096:
        return Fate("late", after_ns)
    if crypto:
        return None
    return Fate("corrected" if draw < _LATE_OF_4096 + _CORRECTED_OF_4096 else "canceled", after_ns)


def _minutes(from_ns: int, until_ns: int) -> range:
    """Return the minutes that end after ``from_ns`` and not after ``until_ns``."""
    first_ns, last_ns = (at_ns // MINUTE_NS * MINUTE_NS for at_ns in (from_ns, until_ns))
    return range(first_ns, last_ns, MINUTE_NS)


def _side(letter: str, trade: Mapping[str, object]) -> _Message:
    """Return one half of a correction: ``oi``, ``op``, ``os``, ``oc``, or the same with ``c``."""
    return {letter + name: trade[name] for name in ("i", "p", "s", "c")}


@lru_cache(maxsize=4096)
def _odd_trades(key: int, minute: int) -> tuple[tuple[int, int], ...]:
    """Return the slots of a minute whose trade has a fate; kept, because sockets ask for it twenty times a second."""
    slots = range(minute * MINUTE_NS // SLOT_NS, (minute + 1) * MINUTE_NS // SLOT_NS)
    dices = ((slot, dice_of(key, slot)) for slot in slots)
    return tuple((slot, dice) for slot, dice in dices if dice % 4 == 0 and fate_of(dice, crypto=False) is not None)
