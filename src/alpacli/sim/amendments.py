"""The feed of the computed market, in which things go wrong now and then: late trades, corrections, cancels, and halts.

Which trades there are is said by ``prints``, and each is done at the price of the tape. The fate of a trade is in the same
hash as the trade, so a socket that told it wrongly and a history that is read afterwards agree. Everything is over within
half a minute of the trade, in time for the updated bar of its minute. What a trade is corrected to is the price of the tape;
one that is canceled was none of those that share the minute's volume. So a minute's bar is, in the end, made of its prints.

Bars of any length are made of the same trades. What all is known about is left to ``bars``; the last half minute before the
moment that is asked for, and what halts cut in two, is made trade by trade.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence, Set
from datetime import timedelta
from typing import Final, Literal, NamedTuple

from alpacli.sim.answers import SECOND_NS
from alpacli.sim.feed import (
    BAR_DELAY_NS,
    DAY_NS,
    LATELY_NS,
    TEST_SYMBOL,
    Feed,
    as_decimal,
    key_of,
    listed,
)
from alpacli.sim.halts import between_halts, halts
from alpacli.sim.hours import Hours, new_york_date, new_york_ns
from alpacli.sim.listing import LISTINGS
from alpacli.sim.prints import (
    FALSE_PRINT,
    MINUTE_NS,
    NUMBERS,
    Part,
    Print,
    dice_of,
    joined,
    moment_ns,
    part_of,
    prints_of,
    size_of,
    weight_of,
)
from alpacli.sim.tape import Tape

EVER: Final = 1 << 62
"""When all is known that ever becomes of a trade."""

UPDATE_DELAY_NS: Final = 30 * SECOND_NS
"""A minute's bar is told again so long after the minute, when its trades have changed since the first time."""

_LONGEST_NS: Final = 28 * SECOND_NS
_SHORTEST_NS: Final = 2 * SECOND_NS
_LATE_OF_4096: Final = 16
_CORRECTED_OF_4096: Final = 2
_CANCELED_MINUTES_OF_4096: Final = 120
_FIRST_CORRECTED_ID: Final = 10**12
_ODD_LOT: Final = 99
_SEARCHED_NS: Final = 60 * MINUTE_NS
"""From this length on a stretch is searched for its extremes; of shorter ones every trade is made."""

_MINUTES_AT_ONCE: Final = 1000
_MINUTE_MS: Final = 0.06
_SEARCHED_MINUTE_MS: Final = 0.001
_MOST_MINUTES: Final = 512
_MOST_PARTS: Final = 20_000
_Message = dict[str, object]


class Fate(NamedTuple):
    """``late``: first told ``after_ns`` after it happened; ``corrected``, ``canceled``: so much later it is amended."""

    kind: Literal["late", "corrected", "canceled"]
    after_ns: int


class _Minute(NamedTuple):
    """The trades of a minute, and those of them that something becomes of."""

    prints: tuple[Print, ...]
    odd: tuple[tuple[Print, Fate], ...]


class AmendedFeed(Feed):
    """The messages of the computed market. Thread-safe; holds only memos."""

    def __init__(self, tape: Tape, hours: Hours) -> None:
        super().__init__(tape, hours)
        self._tape = tape
        self._minutes: dict[tuple[str, int], _Minute] = {}
        self._parts: dict[tuple[str, int, int], Part] = {}

    def trades(self, symbol: str, from_ns: int, until_ns: int) -> list[_Message]:
        return [
            self._trade(symbol, row)
            for row in self._executions(symbol, from_ns, until_ns)
            if row.number % NUMBERS != FALSE_PRINT
        ]

    def told(self, symbol: str, from_ns: int, until_ns: int) -> list[_Message]:
        """Return late trades when they come, and wrong ones as they were."""
        found = [
            self._as_told(symbol, row, fate)
            for row in self._executions(symbol, from_ns, until_ns)
            if (fate := self._fate(symbol, row)) is None or fate.kind != "late"
        ]
        for row, fate in self._amendments(symbol, from_ns, until_ns):
            if fate.kind == "late":
                found.append(self._as_told(symbol, row, fate))
        return found

    def history(self, symbol: str, from_ns: int, until_ns: int, *, known_ns: int) -> list[_Message]:
        """Return the trades from ``from_ns`` up to, not including, ``until_ns``, oldest first, as history has them.

        That is what was known before ``known_ns``: without those whose report was still to come, and those that were
        canceled or corrected meanwhile carry a ``u`` that says so. What a trade was corrected to stands right after it.
        """
        found: list[_Message] = []
        for row in self._executions(symbol, from_ns, until_ns):
            fate = self._fate(symbol, row)
            if fate is None:
                found.append(self._trade(symbol, row))
            elif row.at_ns + fate.after_ns < known_ns:
                found += self._amended(symbol, row, fate)
            elif fate.kind != "late":
                found.append(self._as_told(symbol, row, fate))
        return found

    def corrections(self, symbol: str, from_ns: int, until_ns: int) -> list[_Message]:
        found: list[_Message] = []
        for row, fate in self._amendments(symbol, from_ns, until_ns):
            if fate.kind == "corrected":
                wrong, right = self._amended(symbol, row, fate)
                sides = {**_side("o", wrong), **_side("c", right)}
                told_ns = row.at_ns + fate.after_ns
                found.append({"T": "c", "S": symbol, "x": wrong["x"], **sides, "t": told_ns, "z": "C"})
        return found

    def cancels(self, symbol: str, from_ns: int, until_ns: int) -> list[_Message]:
        found: list[_Message] = []
        for row, fate in self._amendments(symbol, from_ns, until_ns):
            if fate.kind == "canceled":
                gone = self._as_told(symbol, row, fate)
                same = {name: gone[name] for name in ("i", "x", "p", "s")}
                action = "E" if row.dice & 2048 else "C"
                found.append({"T": "x", "S": symbol, **same, "a": action, "t": row.at_ns + fate.after_ns, "z": "C"})
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
        part = self._part_as_of(symbol, begin_ns, until_ns, known_ns)
        return None if part is None else _bar(symbol, begin_ns, part)

    def spans(
        self, symbol: str, stretches: Sequence[tuple[int, int]], known_ns: int, *, regular: bool = False
    ) -> list[_Message | None]:
        opened = (self.open_spans(symbol, begin_ns, end_ns, regular=regular) for begin_ns, end_ns in stretches)
        pieces = [list(self._pieces(symbol, spans, known_ns)) for spans in opened]
        made = self._made(symbol, {(begin_ns, end_ns) for row in pieces for begin_ns, end_ns, whole in row if whole})
        bars: list[_Message | None] = []
        for (from_ns, _), row in zip(stretches, pieces, strict=True):
            parts = [
                made[begin_ns, end_ns] if whole else self._part_as_of(symbol, begin_ns, end_ns, known_ns)
                for begin_ns, end_ns, whole in row
            ]
            there = [part for part in parts if part is not None]
            bars.append(_bar(symbol, from_ns, joined(there)) if there else None)
        return bars

    def span_work(self, symbol: str, from_ns: int, until_ns: int) -> float:
        minutes = -(-(until_ns - from_ns) // MINUTE_NS)
        is_searched = symbol == listed(symbol) and until_ns - from_ns >= _SEARCHED_NS
        return minutes * (_SEARCHED_MINUTE_MS if is_searched else _MINUTE_MS)

    def _part_as_of(self, symbol: str, begin_ns: int, end_ns: int, known_ns: int) -> Part | None:
        """Return what the trades of an interval came to, as they were known before ``known_ns``."""
        trades = self.history(symbol, begin_ns, end_ns, known_ns=known_ns)
        rows = [(as_decimal(trade["p"]), as_decimal(trade["s"])) for trade in trades if counts(trade)]
        return part_of(LISTINGS[listed(symbol)], rows)

    def _pieces(self, symbol: str, spans: Sequence[tuple[int, int]], known_ns: int) -> Iterator[tuple[int, int, bool]]:
        """Cut intervals into what ``bars`` can make, ``True``, and what is made trade by trade, in order of time."""
        settled_ns = (known_ns - _LONGEST_NS) // MINUTE_NS * MINUTE_NS
        for opens_ns, closes_ns in between_halts(self._hours, symbol, spans):
            first_ns = -(-opens_ns // MINUTE_NS) * MINUTE_NS
            last_ns = min(closes_ns // MINUTE_NS * MINUTE_NS, settled_ns)
            if last_ns <= first_ns:
                yield opens_ns, closes_ns, False
                continue
            if opens_ns < first_ns:
                yield opens_ns, first_ns, False
            begin_ns = first_ns
            while begin_ns < last_ns:
                end_ns = self._cut(symbol, begin_ns, last_ns)
                yield begin_ns, end_ns, True
                begin_ns = end_ns
            if last_ns < closes_ns:
                yield last_ns, closes_ns, False

    def _cut(self, symbol: str, begin_ns: int, until_ns: int) -> int:
        """Return the end of the longest piece from a moment on within which no day ends, by any of the clocks that count."""
        closes_ns = self._hours.next_close(begin_ns)
        ends = [
            until_ns,
            closes_ns if closes_ns > begin_ns else until_ns,
        ]  # the calendar's last close lies behind all later
        if LISTINGS[listed(symbol)].crypto:
            ends += [(begin_ns // DAY_NS + 1) * DAY_NS, new_york_ns(new_york_date(begin_ns) + timedelta(1))]
        return min(ends)

    def _made(self, symbol: str, pieces: Set[tuple[int, int]]) -> dict[tuple[int, int], Part]:
        """Return what the trades of whole minutes come to, in which the symbol trades without a break."""
        if not pieces:
            return {}
        from alpacli.sim import bars  # with numpy, which most who use the exchange have no need of

        key, symbol_there = key_of(symbol), listed(symbol)
        made: dict[tuple[int, int], Part] = {}
        searched: list[bars.Stretch] = []
        minutes: list[bars.Minute] = []
        for begin_ns, end_ns in sorted(pieces):
            known = self._parts.get((symbol, begin_ns, end_ns))
            if known is not None:
                made[begin_ns, end_ns] = known
            elif symbol == symbol_there and end_ns - begin_ns >= _SEARCHED_NS:
                lots = self._tape.lots(symbol, begin_ns, end_ns)
                searched.append(bars.Stretch(begin_ns, end_ns, lots, self._close_at(end_ns)))
            else:  # the test symbol is never searched: it trades while its stand-in's price stands still, too
                for at_ns in range(begin_ns, end_ns, MINUTE_NS):
                    lots = self._tape.lots(symbol_there, at_ns, at_ns + MINUTE_NS)
                    minutes.append(bars.Minute(at_ns // MINUTE_NS, lots, self._close_at(at_ns + MINUTE_NS)))
        if searched:
            for stretch, part in zip(searched, bars.stretch_parts(self._tape, symbol, key, searched), strict=True):
                made[stretch.begin_ns, stretch.end_ns] = part
        if minutes:
            at_once = (minutes[at : at + _MINUTES_AT_ONCE] for at in range(0, len(minutes), _MINUTES_AT_ONCE))
            single = (part for some in at_once for part in bars.minute_parts(self._tape, symbol_there, key, some))
            for begin_ns, end_ns in sorted(pieces):
                if (begin_ns, end_ns) not in made:
                    made[begin_ns, end_ns] = joined([next(single) for _ in range(begin_ns, end_ns, MINUTE_NS)])
        if len(self._parts) + len(made) > _MOST_PARTS:
            self._parts.clear()
        self._parts.update({(symbol, *piece): part for piece, part in made.items()})
        return made

    def _close_at(self, at_ns: int) -> int | None:
        """Return an instant if the exchange closes then."""
        return at_ns if self._hours.next_close(at_ns - 1) == at_ns else None

    def latest_trade(self, symbol: str, until_ns: int, known_ns: int) -> _Message | None:
        """Return the last trade that still counts; in a halt, and until something trades after it, the last before it."""
        for begin_ns, end_ns in self._active_backward(symbol, until_ns):
            trades = self.history(symbol, max(end_ns - LATELY_NS, begin_ns), end_ns, known_ns=known_ns)
            trade = next((trade for trade in reversed(trades) if counts(trade)), None)
            if trade is not None:
                return trade
        return None

    def latest_quote(self, symbol: str, until_ns: int) -> _Message | None:
        *_, (_, end_ns) = between_halts(self._hours, symbol, [(until_ns - DAY_NS, until_ns)], quotes=True)
        return super().latest_quote(symbol, end_ns)

    def latest_bar(self, symbol: str, until_ns: int, known_ns: int) -> _Message | None:
        over_ns = until_ns // MINUTE_NS * MINUTE_NS
        for _, active_ns in self._active_backward(symbol, until_ns):
            end_ns = min(-(-active_ns // MINUTE_NS) * MINUTE_NS, over_ns)
            bar = self.bar_as_of(symbol, end_ns - MINUTE_NS, end_ns, known_ns)
            if bar is not None:
                return bar
        return None

    def _active_backward(self, symbol: str, until_ns: int) -> Iterator[tuple[int, int]]:
        """Give the times of a day before ``until_ns`` in which the symbol was not halted, the last one first."""
        return reversed(list(between_halts(self._hours, symbol, [(until_ns - DAY_NS, until_ns)])))

    def _executions(self, symbol: str, from_ns: int, until_ns: int) -> Iterator[Print]:
        """Give the trades that are done in an interval, and those that will be canceled."""
        for minute in range(from_ns // MINUTE_NS, -(-until_ns // MINUTE_NS)):
            prints = self._minute(symbol, minute).prints
            first = bisect_left(prints, from_ns, key=_at_ns)
            yield from prints[first : bisect_left(prints, until_ns, first, key=_at_ns)]

    def _minute(self, symbol: str, minute: int) -> _Minute:
        """Return those of a whole minute; kept, because sockets ask for it twenty times a second."""
        place = (symbol, minute)
        found = self._minutes.get(place)
        if found is None:
            begin_ns = minute * MINUTE_NS
            rows: list[Print] = []
            if super()._moves(symbol, begin_ns):
                lots = self._tape.lots(listed(symbol), begin_ns, begin_ns + MINUTE_NS)
                rows = prints_of(key_of(symbol), minute, lots, self._close_at(begin_ns + MINUTE_NS))
                false = self._false_print(symbol, minute, lots // len(rows))
                rows = sorted([*rows, *false], key=_at_ns)
                if any(halts(self._hours, symbol, begin_ns, begin_ns + MINUTE_NS)):
                    rows = [row for row in rows if self._moves(symbol, row.at_ns)]
            if len(self._minutes) >= _MOST_MINUTES:
                self._minutes.clear()
            fates = ((row, self._fate(symbol, row)) for row in rows)
            odd = tuple((row, fate) for row, fate in fates if fate is not None)
            found = self._minutes[place] = _Minute(tuple(rows), odd)
        return found

    def _false_print(self, symbol: str, minute: int, usual: int) -> list[Print]:
        """Return the trade of a minute that will be canceled, if there is one."""
        dice = dice_of(key_of(symbol), minute * NUMBERS + FALSE_PRINT)
        if dice >> 52 >= _CANCELED_MINUTES_OF_4096 or symbol == TEST_SYMBOL or LISTINGS[symbol].crypto:
            return []
        at_ns = moment_ns(minute, 0, 1, dice)
        return [Print(minute * NUMBERS + FALSE_PRINT, at_ns, at_ns, 1 + usual * weight_of(dice) // 150, dice)]

    def _amendments(self, symbol: str, from_ns: int, until_ns: int) -> list[tuple[Print, Fate]]:
        """Return the trades about which something is said in an interval, long after they happened, in that order."""
        found: list[tuple[Print, Fate]] = []
        for minute in range((from_ns - _LONGEST_NS) // MINUTE_NS, -(-until_ns // MINUTE_NS)):
            for row, fate in self._minute(symbol, minute).odd:
                if from_ns <= row.at_ns + fate.after_ns < until_ns:
                    found.append((row, fate))
        return sorted(found, key=lambda item: item[0].at_ns + item[1].after_ns)

    def _fate(self, symbol: str, row: Print) -> Fate | None:
        """Return what becomes of a trade; all goes well on the test feed, which has no channels to tell otherwise."""
        if symbol == TEST_SYMBOL or row.priced_ns != row.at_ns:  # nor is a closing print ever wrong
            return None
        if row.number % NUMBERS == FALSE_PRINT:
            return Fate("canceled", _after_ns(row.dice))
        return fate_of(row.dice, crypto=LISTINGS[symbol].crypto)

    def _trade(self, symbol: str, row: Print) -> _Message:
        listing = LISTINGS[listed(symbol)]
        price, size = self._tape.last(listing.symbol, row.priced_ns), size_of(listing, row.lots)
        if listing.crypto:
            side = "B" if row.dice & 1024 else "S"
            return {"T": "t", "S": symbol, "p": price, "s": size, "t": row.at_ns, "i": row.number, "tks": side}
        return {
            "T": "t",
            "S": symbol,
            "i": row.number,
            "x": "V",
            "p": price,
            "s": size,
            "c": ["@", *(() if self._is_regular(symbol, row.at_ns) else "T"), *(() if row.lots > _ODD_LOT else "I")],
            "t": row.at_ns,
            "z": "C",
        }

    def _moves(self, symbol: str, at_ns: int) -> bool:
        return super()._moves(symbol, at_ns) and not any(halts(self._hours, symbol, at_ns, at_ns + 1))

    def _is_regular(self, symbol: str, at_ns: int) -> bool:
        return symbol == TEST_SYMBOL or self._hours.is_open(at_ns)

    def _is_quoted(self, symbol: str, at_ns: int) -> bool:
        quiet = any(at_ns < halt.quoting_ns for halt in halts(self._hours, symbol, at_ns, at_ns + 1))
        return super()._moves(symbol, at_ns) and not quiet

    def _as_told(self, symbol: str, row: Print, fate: Fate | None) -> _Message:
        """Return a trade as a socket tells it: wrong when it will be amended."""
        trade = self._trade(symbol, row)
        if fate is None:
            return trade
        if fate.kind == "late":
            regular = self._is_regular(symbol, row.at_ns)
            return {**trade, "c": ["@", "Z" if regular else "U"]} if "c" in trade else trade  # sold out of sequence
        if fate.kind == "corrected" and row.dice & 1024:
            return {**trade, "s": as_decimal(trade["s"]) * 10, "c": ["@"]}
        price = as_decimal(trade["p"])
        return {**trade, "p": price + (-price if row.dice & 512 else price).scaleb(-2).quantize(price)}

    def _amended(self, symbol: str, row: Print, fate: Fate) -> list[_Message]:
        """Return a trade once all is known about it: with what it was corrected to."""
        told = self._as_told(symbol, row, fate)
        if fate.kind == "late":
            return [told]
        if fate.kind == "canceled":
            return [{**told, "u": "canceled"}]
        right = {**self._trade(symbol, row), "i": _FIRST_CORRECTED_ID + row.number}
        return [{**told, "u": "incorrect"}, {**right, "u": "corrected"}]


def counts(trade: Mapping[str, object]) -> bool:
    """Tell whether a trade of history is one still, and not canceled or replaced by its correction."""
    return trade.get("u") not in ("canceled", "incorrect")


def fate_of(dice: int, *, crypto: bool) -> Fate | None:
    """Return what becomes of the trade of a 64-bit hash; coins' trades are late at most."""
    draw = dice >> 52
    if draw >= _LATE_OF_4096 + _CORRECTED_OF_4096:
        return None
    if draw < _LATE_OF_4096:
        return Fate("late", _after_ns(dice))
    return None if crypto else Fate("corrected", _after_ns(dice))


def _after_ns(dice: int) -> int:
    return _SHORTEST_NS + (dice >> 8) % (_LONGEST_NS - _SHORTEST_NS)


def _at_ns(row: Print) -> int:
    return row.at_ns


def _bar(symbol: str, begin_ns: int, part: Part) -> _Message:
    listing = LISTINGS[listed(symbol)]
    return {
        "T": "b",
        "S": symbol,
        "o": listing.price(part.open),
        "h": listing.price(part.high),
        "l": listing.price(part.low),
        "c": listing.price(part.close),
        "v": size_of(listing, part.volume),
        "n": part.trades,
        "vw": round(part.value * listing.tick / part.volume, 6),
        "t": begin_ns,
    }


def _minutes(from_ns: int, until_ns: int) -> range:
    """Return the minutes that end after ``from_ns`` and not after ``until_ns``."""
    first_ns, last_ns = (at_ns // MINUTE_NS * MINUTE_NS for at_ns in (from_ns, until_ns))
    return range(first_ns, last_ns, MINUTE_NS)


def _side(letter: str, trade: Mapping[str, object]) -> _Message:
    """Return one half of a correction: ``oi``, ``op``, ``os``, ``oc``, or the same with ``c``."""
    return {letter + name: trade[name] for name in ("i", "p", "s", "c")}
