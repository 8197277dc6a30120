"""Market data over REST: what the sockets sent, again, and snapshots. Numbers are JSON numbers, as on the data host.

Pages are sorted by symbol and then by time; a token names the place where the next one begins. Bars are of one minute.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Final

from alpacli.sim.answers import SECOND_NS, Json, bad_parameter, timestamp
from alpacli.sim.exchange import Desk
from alpacli.sim.feed import MINUTE_NS, Feed
from alpacli.sim.listing import LISTINGS

_CHUNK_NS: Final = 10 * MINUTE_NS
_DAY_NS: Final = 24 * 60 * MINUTE_NS
_LATELY_NS: Final = 10 * SECOND_NS


def history(
    desk: Desk,
    channel: str,
    symbols: Sequence[str],
    start_ns: int,
    end_ns: int,
    limit: int,
    token: str,
    *,
    crypto: bool,
) -> Json:
    """Answer for trades, quotes or minute bars from ``start_ns`` to ``end_ns``, both included, nothing of the future."""
    feed = Feed(desk.market.tape, desk.market.hours)
    read = {"trades": feed.trades, "quotes": feed.quotes, "bars": feed.bars}[channel]
    after_symbol, _, after = token.partition("|")
    if token and not (after.isascii() and after.isdecimal()):
        raise bad_parameter("invalid page_token")
    end_ns = min(end_ns, desk.now_ns)
    pages: dict[str, list[Json]] = {}
    last = ""
    room = limit
    for symbol in sorted(set(symbols)):
        if not feed.knows(symbol, crypto=crypto) or symbol < after_symbol:
            continue
        begin_ns = max(start_ns, int(after) + 1) if symbol == after_symbol else start_ns
        for message in _between(read, symbol, begin_ns, end_ns):
            if room == 0:
                return {channel: dict(pages), "next_page_token": last}
            last = f"{symbol}|{_integer(message['t'])}"
            pages.setdefault(symbol, []).append(_element(message))
            room -= 1
    return {channel: dict(pages), "next_page_token": None}


def snapshots(desk: Desk, symbols: Sequence[str], *, crypto: bool) -> dict[str, Json]:
    """Answer with the latest of each symbol and the trading day before; unknown symbols are left out."""
    feed, tape, now_ns = Feed(desk.market.tape, desk.market.hours), desk.market.tape, desk.now_ns
    found: dict[str, Json] = {}
    for symbol in symbols:
        if not feed.knows(symbol, crypto=crypto) or symbol not in LISTINGS:
            continue
        closed_ns = desk.market.hours.previous_close(now_ns)
        opened_ns = closed_ns - _DAY_NS + 1
        extremes = tape.extremes(symbol, opened_ns, closed_ns)
        trades = feed.trades(symbol, now_ns - _LATELY_NS, now_ns)
        quotes = feed.quotes(symbol, now_ns - _LATELY_NS, now_ns)
        minute = feed.bar(symbol, now_ns // MINUTE_NS * MINUTE_NS)
        found[symbol] = {
            "latestTrade": _element(trades[-1]) if trades else None,
            "latestQuote": _element(quotes[-1]) if quotes else None,
            "minuteBar": _element(minute) if minute is not None else None,
            "dailyBar": None,
            "prevDailyBar": {
                "t": timestamp(opened_ns - 1),
                "o": _json(tape.last(symbol, opened_ns)),
                "h": _json(extremes.ask_high),
                "l": _json(extremes.bid_low),
                "c": _json(tape.last(symbol, closed_ns)),
                "v": tape.volume(symbol, closed_ns - 1),
            },
        }
    return found


def _between(
    read: Callable[[str, int, int], list[dict[str, object]]], symbol: str, start_ns: int, end_ns: int
) -> Iterator[dict[str, object]]:
    """Compute piece by piece: a page may need only the beginning of a long interval."""
    for begin_ns in range(start_ns, end_ns + 1, _CHUNK_NS):
        yield from read(symbol, begin_ns, min(begin_ns + _CHUNK_NS, end_ns + 1))


def _element(message: Mapping[str, object]) -> dict[str, Json]:
    return {
        name: _json(value) if name != "t" else timestamp(_integer(value))
        for name, value in message.items()
        if name not in ("T", "S")
    }


def _json(value: object) -> Json:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, list):
        return [_json(item) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise AssertionError(f"{type(value).__name__} is not on the wire")


def _integer(value: object) -> int:
    if not isinstance(value, int):
        raise AssertionError("times are nanoseconds")
    return value
