"""Ticks to the latest state of each symbol, in memory that does not grow with their number.

Every tick of a busy feed comes through here, so numbers become floats: they are only looked at, never passed on or added
to money. What a terminal shows is a ``Row``, a snapshot that later ticks do not change.

The exchange's time decides what is newer: an older message counts (volume, rate) but never replaces a newer price. Trade ids
decide what is the same trade. A message that makes no sense is counted in ``unreadable`` and changes nothing else.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from itertools import accumulate
from math import inf, isfinite, nan
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import UNSET, Raw, UnsetType

from alpacli.domain.lines import (
    BarLine,
    CancelLine,
    CorrectionLine,
    DailyBarLine,
    Line,
    QuoteLine,
    StatusLine,
    TradeLine,
    UpdatedBarLine,
    decoder,
    encoder,
)
from alpacli.domain.ticks import Quote, Tick, Trade, instant_ns

SAMPLES: Final = 60
SAMPLE_S: Final = 2
"""A row's ``samples`` are so many prices, one every so many seconds."""

_SECOND: Final = 1_000_000_000
_REPORTED_LATE_NS: Final = _SECOND  # a trade older than others of its symbol by more was reported late
_EARLY_NS: Final = 5 * _SECOND  # clocks differ by less; what is further ahead would keep real prices out until then
_TRADES_KEPT: Final = 32_768
_HIDDEN_KEPT: Final = 20_000
_LATENCY_S: Final = 30
_SET_BACK_S: Final = 10  # a clock set back by more starts the seconds anew; by less, they wait for it
_BUCKETS: Final = 512
_HALTS: Final = frozenset("2HP")
_RESUMES: Final = frozenset("3T")
_BAD: Final = (ValueError, TypeError, ArithmeticError, msgspec.MsgspecError)


class DaySoFar(NamedTuple):
    """A symbol's previous close, and its trading day since ``began_ns`` (``None``: nothing has traded)."""

    previous_close: Decimal | None
    began_ns: int | None = None
    volume: Decimal = Decimal(0)
    vwap: Decimal | None = None


class Row(NamedTuple):
    """One symbol, now. ``None`` is not known: nothing came yet, or (``bid``, ``ask``) nobody stands on that side.

    ``change_ratio`` is a fraction of the previous close. ``volume`` and ``vwap`` are the day's as of the last daily bar (or
    ``set_days``) plus the trades since; without one, of the trades since the start. ``rate`` is messages a second, lately;
    ``age_s`` since the last one came. ``halted`` is the reason, empty while trading. ``samples`` are prices, oldest first,
    the last one now.
    """

    symbol: str
    last: float | None
    change: float | None
    change_ratio: float | None
    bid: float | None
    bid_size: float | None
    ask: float | None
    ask_size: float | None
    spread_bp: float | None
    volume: float | None
    vwap: float | None
    rate: float
    age_s: float | None
    halted: str
    samples: tuple[float, ...]


class Totals(NamedTuple):
    """All symbols together. Latency is exchange to here over the last minute, ``None`` before the first trade or quote.

    ``hidden`` symbols came by ``*`` and found no room (counted up to 20,000). ``early`` ticks were ahead of our clock.
    """

    messages: int
    rate: float
    p50_ms: float | None
    p99_ms: float | None
    unreadable: int
    duplicates: int
    early: int
    hidden: int


class _State:
    __slots__ = (
        *(
            "ask",
            "ask_size",
            "base_notional",
            "base_volume",
            "base_at",
            "before",
            "before_at",
            "bid",
            "bid_size",
            "count",
        ),
        *("halt_at", "halted", "last", "last_at", "last_key", "notional", "previous", "quote_at", "rate", "samples"),
        *("seen_ns", "symbol", "volume"),
    )

    def __init__(self, symbol: str, previous: float | None) -> None:
        self.symbol = symbol
        self.previous = previous
        self.last: float | None = None
        self.last_at = -inf  # exchange's time in ns, an int once there is one
        self.last_key = 0
        self.before: float | None = None
        self.before_at = -inf
        self.bid = self.bid_size = self.ask = self.ask_size = 0.0
        self.quote_at = -inf
        self.base_volume = self.base_notional = 0.0
        self.base_at = -inf
        self.volume = self.notional = 0.0  # since the base; below zero when trades within the base are canceled
        self.count = 0  # messages since ``rate`` was last brought up to date
        self.rate = 0.0
        self.seen_ns: int | None = None
        self.halted = ""
        self.halt_at = -inf
        self.samples: tuple[float, ...] = ()

    @property
    def shown(self) -> float | None:
        """The price for the sparkline: of the last trade, else between bid and ask."""
        if self.last is not None:
            return self.last
        return (self.bid + self.ask) / 2 if self.bid > 0 and self.ask > 0 else None

    def row(self, now_ns: int) -> Row:
        last, previous, bid, ask = self.last, self.previous, self.bid, self.ask
        change = last - previous if last is not None and previous is not None else None
        volume = max(self.base_volume + self.volume, 0.0)
        vwap = (self.base_notional + self.notional) / volume if volume > 0 else nan
        price = self.shown
        return Row(
            self.symbol,
            last,
            change,
            change / previous if change is not None and previous else None,
            bid or None,
            self.bid_size if bid else None,
            ask or None,
            self.ask_size if ask else None,
            (ask - bid) / (ask + bid) * 20_000 if bid and ask else None,
            volume if volume > 0 or self.base_at > -inf else None,
            vwap if 0 < vwap < inf else None,
            self.rate,
            None if self.seen_ns is None else max(now_ns - self.seen_ns, 0) / _SECOND,
            self.halted,
            self.samples if price is None else (*self.samples, price),
        )


class Board:
    """The latest state of ``symbols``; with ``*`` among them, of every symbol that comes, up to ``cap`` rows in all.

    ``previous_closes`` are what changes are measured against; they may come later. Times (``now_ns``) are nanoseconds since
    1970 UTC, of whoever calls. Not thread-safe.
    """

    def __init__(
        self, symbols: Iterable[str], previous_closes: Mapping[str, Decimal] | None = None, *, cap: int = 500
    ) -> None:
        self._states: dict[str, _State] = {}
        self._found: set[str] = set()  # came by ``*``; the others were named
        self._removed: set[str] = set()
        self._hidden: set[str] = set()
        self._closes: dict[str, float] = {}
        self._order: list[_State] | None = None
        self._cap = cap
        self._open = False
        self._messages = self._unreadable = self._duplicates = self._early = 0
        self._trades: set[int] = set()
        self._older_trades: set[int] = set()
        self._latencies = [0] * _BUCKETS
        self._older_latencies = [0] * _BUCKETS
        self._second: int | None = None
        self._count = 0
        self._rate = 0.0
        self._head = ""
        self._head_ns = 0
        self._rare: dict[type, Callable[[Any, int], None]] = {
            BarLine: self._bar,
            UpdatedBarLine: self._bar,
            DailyBarLine: self._daily_bar,
            StatusLine: self._status,
            CancelLine: self._cancel,
            CorrectionLine: self._correction,
        }
        self.set_previous_closes(previous_closes or {})
        for symbol in symbols:
            self.add(symbol)

    # ------------------------------------------------------------------------------------------------ symbols

    @property
    def symbols(self) -> list[str]:
        """Return what is shown: named symbols in their order, then those that came by ``*``, sorted."""
        return [state.symbol for state in self._ordered()]

    def add(self, symbol: str) -> bool:
        """Show a symbol, or with ``*`` every one that comes; false when it was named before."""
        if symbol == "*":
            added, self._open = not self._open, True
            return added
        self._removed.discard(symbol)
        self._hidden.discard(symbol)
        self._order = None
        if symbol in self._states:
            added = symbol in self._found
            self._found.discard(symbol)
            return added
        self._states[symbol] = _State(symbol, self._closes.get(symbol))
        return True

    def remove(self, symbol: str) -> bool:
        """Forget a symbol, and do not show it again unless it is added; false when it was not there."""
        if self._states.pop(symbol, None) is None:
            return False
        self._found.discard(symbol)
        self._order = None
        if self._open:
            self._removed.add(symbol)
        return True

    def set_previous_closes(self, closes: Mapping[str, Decimal]) -> None:
        """Set what changes are measured against; symbols that are not named here keep what they have."""
        for symbol, close in closes.items():
            price = float(close)
            if not 0 < price < inf:
                continue
            self._closes[symbol] = price
            if symbol in self._states:
                self._states[symbol].previous = price

    def set_days(self, days: Mapping[str, DaySoFar]) -> None:
        """Set previous closes, and what has traded today as the base of volume and VWAP."""
        self.set_previous_closes({symbol: day.previous_close for symbol, day in days.items() if day.previous_close})
        for symbol, day in days.items():
            if (state := self._states.get(symbol)) is not None and day.began_ns is not None:
                self._rebase(state, day.began_ns, float(day.volume), None if day.vwap is None else float(day.vwap))

    # -------------------------------------------------------------------------------------------------- ticks

    def apply(self, ticks: Iterable[Tick | dict[str, object]], now_ns: int) -> None:
        """Take messages as structs or as dictionaries under the same names; never raises for what is in them."""
        self._advance(now_ns)
        count = 0
        for tick in ticks:
            count += 1
            try:
                if type(tick) is Quote:
                    self._quote(
                        tick.symbol,
                        tick.timestamp,
                        float(tick.bid_price_json),
                        float(tick.bid_size_json),
                        float(tick.ask_price_json),
                        float(tick.ask_size_json),
                        now_ns,
                    )
                    continue
                if type(tick) is Trade:
                    self._trade(
                        tick.symbol,
                        tick.timestamp,
                        float(tick.price_json),
                        float(tick.size_json),
                        tick.exchange,
                        tick.id_json,
                        now_ns,
                    )
                    continue
            except _BAD:  # nothing was changed yet; quoted numbers are read below
                pass
            self._reread(tick, now_ns)
        self._messages += count
        self._count += count

    def apply_lines(self, block: bytes, now_ns: int) -> None:
        """Take whole NDJSON lines as alpacli prints them: the fast way in, since numbers are read only once.

        A line that is none is counted; the others of the block are taken.
        """
        self._advance(now_ns)
        try:
            messages: Sequence[Line] = decoder.decode_lines(block)
        except _BAD:
            messages = self._one_by_one(block)
        for message in messages:
            self._take(message, now_ns)
        self._messages += len(messages)
        self._count += len(messages)

    def _one_by_one(self, block: bytes) -> list[Line]:
        messages: list[Line] = []
        for line in block.split(b"\n"):
            if not line.strip():
                continue
            try:
                messages.append(decoder.decode(line))
            except _BAD:
                self._unreadable += 1
                self._messages += 1
                self._count += 1
        return messages

    def _reread(self, tick: object, now_ns: int) -> None:
        """Take a message of a rare kind, or one with unusual fields, by way of its line."""
        try:
            message = decoder.decode(encoder.encode(tick))
        except _BAD:
            self._unreadable += 1
        else:
            self._take(message, now_ns)

    def _take(self, message: Any, now_ns: int) -> None:
        kind = type(message)
        try:
            if kind is QuoteLine:
                self._quote(
                    message.symbol,
                    message.timestamp,
                    message.bid_price,
                    message.bid_size,
                    message.ask_price,
                    message.ask_size,
                    now_ns,
                )
            elif kind is TradeLine:
                self._trade(
                    *(message.symbol, message.timestamp, message.price, message.size),
                    *(message.exchange, message.id, now_ns),
                )
            elif kind in self._rare:
                self._rare[kind](message, now_ns)
            else:
                self._heard(message.symbol, now_ns)
        except _BAD:
            self._unreadable += 1

    def _quote(
        self, symbol: str, timestamp: str, bid: float, bid_size: float, ask: float, ask_size: float, now_ns: int
    ) -> None:
        at = self._instant(timestamp, now_ns)
        if not (0.0 <= bid < inf and 0.0 <= ask < inf and 0.0 <= bid_size < inf and 0.0 <= ask_size < inf):
            raise ValueError
        self._measure(now_ns - at)
        state = self._states.get(symbol) or self._unknown(symbol)
        if state is None:
            return
        state.count += 1
        state.seen_ns = now_ns
        if at >= state.quote_at:
            state.quote_at = at
            state.bid = bid
            state.bid_size = bid_size
            state.ask = ask
            state.ask_size = ask_size

    def _trade(
        self,
        symbol: str,
        timestamp: str,
        price: float,
        size: float,
        exchange: object,
        trade_id: Raw | UnsetType,
        now_ns: int,
    ) -> None:
        at = self._instant(timestamp, now_ns)
        if not (0.0 < price < inf and 0.0 <= size < inf):
            raise ValueError
        state = self._states.get(symbol) or self._unknown(symbol)
        if state is None or at + _REPORTED_LATE_NS > max(state.last_at, state.quote_at):
            self._measure(now_ns - at)
        if state is None:
            return
        state.count += 1
        state.seen_ns = now_ns
        key = 0
        if trade_id is not UNSET and (key := _key(symbol, exchange, trade_id, timestamp)) and not self._is_new(key):
            self._duplicates += 1
            return
        state.volume += size
        state.notional += price * size
        if at >= state.last_at:
            state.before = state.last
            state.before_at = state.last_at
            state.last = price
            state.last_at = at
            state.last_key = key

    def _bar(self, bar: BarLine, now_ns: int) -> None:
        """A minute's close is the last price when no trade since its start is known; volume is not taken from minutes."""
        at = self._instant(bar.timestamp, now_ns)
        if not 0.0 < bar.close < inf:
            raise ValueError
        state = self._heard(bar.symbol, now_ns)
        if state is not None and at >= state.last_at:
            state.last, state.last_at, state.last_key = bar.close, at, 0

    def _daily_bar(self, bar: DailyBarLine, now_ns: int) -> None:
        """The day so far replaces what was added up here; an older day, or less of the same day, does not."""
        at = self._instant(bar.timestamp, now_ns)
        if not (0.0 <= bar.volume < inf and (bar.vwap is None or isfinite(bar.vwap))):
            raise ValueError
        self._bar(bar, now_ns)
        state = self._states.get(bar.symbol)
        if state is not None:
            self._rebase(state, at, bar.volume, bar.vwap)

    def _rebase(self, state: _State, at: int, volume: float, vwap: float | None) -> None:
        if at < state.base_at or (at == state.base_at and volume <= state.base_volume):
            return
        state.base_at = at
        state.base_volume = volume
        state.base_notional = volume * (nan if vwap is None else vwap)
        state.volume = state.notional = 0.0

    def _status(self, status: StatusLine, now_ns: int) -> None:
        """CTA's codes are digits, UTP's letters; one that is neither a halt nor a resumption says nothing."""
        at = self._instant(status.timestamp, now_ns)
        state = self._heard(status.symbol, now_ns)
        code = (status.status_code or "").strip()
        if state is None or at < state.halt_at or code not in _HALTS | _RESUMES:
            return
        state.halt_at = at
        state.halted = (status.reason_message or status.status_message or "halted") if code in _HALTS else ""

    def _cancel(self, cancel: CancelLine, now_ns: int) -> None:
        self._instant(cancel.timestamp, now_ns)
        state = self._heard(cancel.symbol, now_ns)
        if state is None or cancel.id is UNSET:
            return
        key = _key(cancel.symbol, cancel.exchange, cancel.id, cancel.timestamp)
        if not key:
            return
        counted = not self._is_new(key)  # a cancel that overtakes its trade keeps that from counting
        if not self._is_new(hash((key, "gone"))):
            self._duplicates += 1
            return
        if counted and cancel.price is not None and cancel.size is not None:
            state.volume -= cancel.size
            state.notional -= cancel.price * cancel.size
        if key == state.last_key:
            state.last, state.last_at, state.last_key = state.before, state.before_at, 0

    def _correction(self, correction: CorrectionLine, now_ns: int) -> None:
        self._instant(correction.timestamp, now_ns)
        corrected = (correction.original_price, correction.original_size)
        numbers = (correction.corrected_price, correction.corrected_size)
        if not all(number is None or 0.0 <= number < inf for number in (*corrected, *numbers)):
            raise ValueError
        state = self._heard(correction.symbol, now_ns)
        if state is None or correction.original_id is UNSET:
            return
        name = (correction.symbol, correction.exchange)
        key = _key(*name, correction.original_id, correction.timestamp)
        if not key:
            return
        counted = key in self._trades or key in self._older_trades
        gone = hash((key, "gone"))
        once = hash((key, correction.timestamp))
        if gone in self._trades or gone in self._older_trades or not self._is_new(once):
            self._duplicates += 1
            return
        new_key = key
        if correction.corrected_id is not UNSET:
            new_key = _key(*name, correction.corrected_id, correction.timestamp)
        if counted and None not in (*corrected, *numbers):
            self._is_new(new_key)
            state.volume += (correction.corrected_size or 0.0) - (correction.original_size or 0.0)
            state.notional += (correction.corrected_price or 0.0) * (correction.corrected_size or 0.0)
            state.notional -= (correction.original_price or 0.0) * (correction.original_size or 0.0)
        if key == state.last_key and correction.corrected_price:
            state.last, state.last_key = correction.corrected_price, new_key

    def _heard(self, symbol: str, now_ns: int) -> _State | None:
        """Count a message of any kind; ``None`` when its symbol is not shown."""
        state = self._states.get(symbol) or self._unknown(symbol)
        if state is not None:
            state.count += 1
            state.seen_ns = now_ns
        return state

    def _unknown(self, symbol: str) -> _State | None:
        if not self._open or not symbol or symbol == "*" or symbol in self._removed:
            return None
        if len(self._states) >= self._cap:
            if len(self._hidden) < _HIDDEN_KEPT:
                self._hidden.add(symbol)
            return None
        state = self._states[symbol] = _State(symbol, self._closes.get(symbol))
        self._found.add(symbol)
        self._order = None
        return state

    def _instant(self, timestamp: str, now_ns: int) -> int:
        """Return the exchange's time; what is further ahead than clocks differ becomes now. Raises ``ValueError``."""
        if timestamp[:19] == self._head and len(timestamp) == 30 and timestamp[29] == "Z" and timestamp[19] == ".":
            at = self._head_ns + int(timestamp[20:29])  # most messages are of the same second as the one before
        else:
            at = instant_ns(timestamp)
            self._head = timestamp[:19]
            self._head_ns = at - int(timestamp[20:29])
        if at > now_ns + _EARLY_NS:
            self._early += 1
            return now_ns
        return at

    def _is_new(self, key: int) -> bool:
        """Remember a key; two generations, so that the memory is bounded and the latest are always in it."""
        if key in self._trades or key in self._older_trades:
            return False
        self._trades.add(key)
        if len(self._trades) >= _TRADES_KEPT:
            self._older_trades = self._trades
            self._trades = set()
        return True

    def _measure(self, latency_ns: int) -> None:
        """Count a latency in buckets that grow by an eighth of a power of two: 6 % off at most."""
        us = latency_ns // 1000
        if us < 16:
            self._latencies[us if us > 0 else 0] += 1
        else:
            shift = us.bit_length() - 4
            self._latencies[shift * 8 + (us >> shift)] += 1

    # ------------------------------------------------------------------------------------------------ reading

    def rows(self, now_ns: int) -> list[Row]:
        """Return a snapshot in the order of ``symbols``."""
        self._advance(now_ns)
        return [state.row(now_ns) for state in self._ordered()]

    def totals(self, now_ns: int) -> Totals:
        self._advance(now_ns)
        return Totals(
            self._messages,
            self._rate,
            self._latency_ms(0.5),
            self._latency_ms(0.99),
            self._unreadable,
            self._duplicates,
            self._early,
            len(self._hidden),
        )

    def _latency_ms(self, share: float) -> float | None:
        counts = [a + b for a, b in zip(self._latencies, self._older_latencies, strict=True)]
        wanted = share * sum(counts)
        if not wanted:
            return None
        bucket = next(bucket for bucket, total in enumerate(accumulate(counts)) if total >= wanted)
        if bucket < 16:
            return bucket / 1000
        return ((bucket % 8 + 8) * 2 + 1) * (1 << (bucket // 8 - 1)) / 2000

    def _ordered(self) -> list[_State]:
        if self._order is None:
            named = [state for symbol, state in self._states.items() if symbol not in self._found]
            self._order = named + [self._states[symbol] for symbol in sorted(self._found)]
        return self._order

    def _advance(self, now_ns: int) -> None:
        """Once a second: bring the rates up to date, take samples, let old latencies go."""
        second = now_ns // _SECOND
        before = self._second
        if before is None or second < before - _SET_BACK_S:
            self._second = second
            return
        if second <= before:
            return
        self._second = second
        elapsed = second - before
        kept = 0.5 ** min(elapsed, 64)
        self._rate = self._rate * kept + self._count / elapsed * (1 - kept)
        self._count = 0
        samples = min(second // SAMPLE_S - before // SAMPLE_S, SAMPLES)
        for state in self._states.values():
            rate = state.rate * kept + state.count / elapsed * (1 - kept)
            state.rate = rate if rate > 0.01 else 0.0
            state.count = 0
            if samples and (price := state.shown) is not None:
                state.samples = (*state.samples, *([price] * samples))[-SAMPLES:]
        if second // _LATENCY_S != before // _LATENCY_S:
            self._older_latencies = self._latencies
            self._latencies = [0] * _BUCKETS


def _key(symbol: str, exchange: object, trade_id: Raw, timestamp: str) -> int:
    """Return what tells a trade from all others, 0 for none: its id is unique for one symbol, exchange and day."""
    name = bytes(trade_id)
    return 0 if name == b"null" else hash((symbol, exchange, name, timestamp[:10]))
