"""Market data over REST: what the sockets sent, again, and bars and snapshots. Numbers are JSON numbers, as on the data host.

Pages are sorted by symbol and then by time; a token names the last row of the page before. Bars of minutes are made of the
trades that were streamed, and exist when their time is over. Longer ones are made of the same, up to now.
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Final, NamedTuple

from alpacli.sim.answers import SECOND_NS, Json, bad_parameter, not_found, timestamp
from alpacli.sim.desk import Desk
from alpacli.sim.feed import DAY_NS, Feed
from alpacli.sim.hours import new_york_date, new_york_ns
from alpacli.sim.prints import MINUTE_NS

CHANNELS: Final = ("trades", "quotes", "bars")
MOST_ROWS: Final = 10_000
MOST_NEWS: Final = 50

_HOUR_NS: Final = 60 * MINUTE_NS
# In milliseconds: a page that would take longer than a second ends early, as pages may.
_MOST_WORK_A_PAGE: Final = 1000
_WORK_AT_ONCE: Final = 100
_MOST_AT_ONCE: Final = 256
_TIMEFRAME: Final = re.compile(r"(\d{0,2})(Min|T|Hour|H|Day|D|Week|W|Month|M)")
_UNITS: Final = {"T": "Min", "H": "Hour", "D": "Day", "W": "Week", "M": "Month"}
_COUNTS: Final[Mapping[str, Sequence[int]]] = {
    "Min": range(1, 60),
    "Hour": range(1, 24),
    "Day": (1,),
    "Week": (1,),
    "Month": (1, 2, 3, 4, 6, 12),
}

_Message = dict[str, object]
_Row = tuple[int, _Message | None, float]  # when, what (``None``: a stretch is done), and the work that it took


class Timeframe(NamedTuple):
    every: int
    unit: str


class Place(NamedTuple):
    """Where a page ended: at a time of a symbol, of whose rows ``given`` were on it. Rows may share their time."""

    symbol: str
    at_ns: int
    given: int


class _Stretch(NamedTuple):
    """The time of a bar: what it is named after, where trading begins in it, and where it ends."""

    name_ns: int
    from_ns: int
    until_ns: int


class Query(NamedTuple):
    """What is asked of a history; both ends included. ``after`` is where the page before ended."""

    channel: str
    symbols: Sequence[str]
    start_ns: int
    end_ns: int
    limit: int
    timeframe: Timeframe
    descending: bool
    after: Place | None
    crypto: bool


def parse_timeframe(text: str) -> Timeframe:
    """Read ``5Min``, ``1Hour``, ``1D`` and the like."""
    matched = _TIMEFRAME.fullmatch(text)
    if matched is None:
        raise bad_parameter(f"invalid timeframe: {text}")
    unit = _UNITS.get(matched[2], matched[2])
    count = int(matched[1] or 1)
    if count not in _COUNTS[unit]:
        raise bad_parameter(f"invalid timeframe: {text}")
    return Timeframe(count, unit)


def parse_token(token: str) -> Place | None:
    if not token:
        return None
    try:
        symbol, at, given = base64.urlsafe_b64decode(token.encode()).decode().split("|")
        return Place(symbol, int(at), int(given))
    except (binascii.Error, ValueError):
        raise bad_parameter("invalid page_token") from None


def history(desk: Desk, query: Query, *, feed: Feed | None = None) -> dict[str, Json]:
    """Answer for trades, quotes or bars, nothing of the future; symbols that are not listed have none.

    ``feed`` is another than that of the market's stocks and coins.
    """
    feed = feed or desk.market.feed
    query = query._replace(end_ns=min(query.end_ns, desk.now_ns))
    pages: dict[str, list[Json]] = {}
    room, work = query.limit, float(_MOST_WORK_A_PAGE)
    place: Place | None = None
    for symbol in sorted(set(query.symbols)):
        if not feed.knows(symbol, crypto=query.crypto) or (query.after is not None and symbol < query.after.symbol):
            continue
        skip = query.after if query.after is not None and query.after.symbol == symbol else None
        for at_ns, message, cost in _rows(desk, feed, symbol, query):
            if message is not None and skip is not None and at_ns == skip.at_ns and skip.given:
                skip = skip._replace(given=skip.given - 1)
                continue
            if (message is not None and room == 0) or work <= 0:
                return {query.channel: dict(pages), "next_page_token": None if place is None else _token(*place)}
            work -= cost
            given = 0
            if message is not None:
                room -= 1
                pages.setdefault(symbol, []).append(_element(message))
                before = place if place is not None else query.after
                given = before.given + 1 if before is not None and before[:2] == (symbol, at_ns) else 1
            place = Place(symbol, at_ns, given)
    return {query.channel: dict(pages), "next_page_token": None}


def latest(
    desk: Desk, channel: str, symbols: Iterable[str], *, crypto: bool, feed: Feed | None = None
) -> dict[str, Json]:
    """Answer with the last trade, quote, whole minute's bar or order book of each listed symbol. ``feed`` as above."""
    feed = feed or desk.market.feed
    known = [symbol for symbol in symbols if feed.knows(symbol, crypto=crypto)]
    found = {symbol: _latest(desk, feed, channel, symbol) for symbol in known}
    return {symbol: _element(message) for symbol, message in found.items() if message is not None}


def single(answer: dict[str, Json], symbol: str, channel: str) -> dict[str, Json]:
    """Return what the endpoint of one symbol says, given what that of many says: ``bars`` or, of the latest, ``bar``."""
    if "next_page_token" in answer:
        pages = answer[channel]
        rows = pages.get(symbol, []) if isinstance(pages, dict) else []
        return {channel: rows, "symbol": symbol, "next_page_token": answer["next_page_token"]}
    if symbol not in answer:
        raise not_found(f"no {channel.removesuffix('s')} found for {symbol}")
    return {"symbol": symbol, channel.removesuffix("s"): answer[symbol]}


def snapshots(desk: Desk, symbols: Sequence[str], *, crypto: bool) -> dict[str, Json]:
    """Answer with the latest of each symbol, today so far and the trading day before; unknown symbols are left out.

    The day before is the one whose bar of a day comes before today's: of stocks a trading day, of coins a day of UTC.
    """
    feed, now_ns = desk.market.feed, desk.now_ns
    found: dict[str, Json] = {}
    for symbol in symbols:
        if not feed.knows(symbol, crypto=crypto) or symbol not in desk.market.listings:
            continue
        members = {
            "latestTrade": _latest(desk, feed, "trades", symbol),
            "latestQuote": _latest(desk, feed, "quotes", symbol),
            "minuteBar": _latest(desk, feed, "bars", symbol),
            "dailyBar": feed.day_so_far(symbol, now_ns, now_ns),
            "prevDailyBar": _day_before(desk, feed, symbol, crypto=crypto),
        }
        found[symbol] = {name: None if value is None else _element(value) for name, value in members.items()}
    return found


def _day_before(desk: Desk, feed: Feed, symbol: str, *, crypto: bool) -> _Message | None:
    now_ns = desk.now_ns
    if crypto:
        today_ns = now_ns // DAY_NS * DAY_NS
        return feed.span(symbol, today_ns - DAY_NS, today_ns, now_ns)
    day = new_york_date(desk.market.hours.previous_close(now_ns) - 1)
    days = desk.market.hours.days(day, day)
    bar = feed.span(symbol, days[0].open_ns, days[0].close_ns, now_ns) if days else None
    return None if bar is None else {**bar, "t": days[0].midnight_ns}


def news(
    desk: Desk, symbols: Sequence[str], start_ns: int, end_ns: int, limit: int, *, ascending: bool, token: str
) -> Json:
    """Answer for articles about any of the symbols, or all; newest first unless ``ascending``."""
    feed = desk.market.feed
    after = parse_token(token)
    end_ns = min(end_ns, desk.now_ns)
    if after is not None and ascending:
        start_ns = max(start_ns, after.at_ns + 1)
    elif after is not None:
        end_ns = min(end_ns, after.at_ns - 1)
    rows: list[Json] = []
    at_ns = 0
    for begin_ns, until_ns in _pieces(start_ns, end_ns + 1, _HOUR_NS, backward=not ascending):
        items = feed.news(begin_ns, until_ns)
        for item in items if ascending else reversed(items):
            about = item["symbols"]
            if symbols and not (isinstance(about, list) and set(about) & {name.replace("/", "") for name in symbols}):
                continue
            if len(rows) == limit:
                return {"news": rows, "next_page_token": _token("", at_ns, 1)}
            at_ns = _integer(item["updated_at"])
            rows.append({**_element(item), "images": []})
    return {"news": rows, "next_page_token": None}


def _rows(desk: Desk, feed: Feed, symbol: str, query: Query) -> Iterator[_Row]:
    """Compute piece by piece, as far as somebody reads: a page may need only the beginning of a long interval."""
    start_ns, end_ns = query.start_ns, query.end_ns
    if query.after is not None and query.after.symbol == symbol:
        at_ns = query.after.at_ns
        start_ns, end_ns = (start_ns, min(end_ns, at_ns)) if query.descending else (max(start_ns, at_ns), end_ns)
    if query.channel == "bars":
        yield from _bars(desk, feed, symbol, query, start_ns, end_ns)
        return
    read: Callable[[str, int, int], list[_Message]] = feed.quotes
    if query.channel == "trades":
        read = partial(feed.history, known_ns=desk.now_ns)
    for opened_ns, until_ns in feed.open_spans(symbol, start_ns, end_ns + 1, backward=query.descending):
        for begin_ns, before_ns in _pieces(opened_ns, until_ns, MINUTE_NS, backward=query.descending):
            messages = read(symbol, begin_ns, before_ns)
            cost = -(-(before_ns - begin_ns) // MINUTE_NS) * feed.effort
            for message in reversed(messages) if query.descending else messages:
                yield _integer(message["t"]), message, 0
            yield begin_ns - 1 if query.descending else before_ns, None, cost


def _bars(desk: Desk, feed: Feed, symbol: str, query: Query, start_ns: int, end_ns: int) -> Iterator[_Row]:
    if query.timeframe.unit == "Min":
        stretches = _minutes(desk, feed, symbol, query, start_ns, end_ns)
    else:
        stretches = _stretches(desk, feed, symbol, query.timeframe, start_ns, end_ns)
        stretches = reversed(list(stretches)) if query.descending else stretches
    for group in _groups(feed, symbol, (stretch for stretch in stretches if start_ns <= stretch.name_ns <= end_ns)):
        times = [(stretch.from_ns, min(stretch.until_ns, desk.now_ns)) for stretch in group]
        made = feed.spans(symbol, times, desk.now_ns, regular=query.timeframe.unit not in ("Min", "Hour"))
        for stretch, bar in zip(group, made, strict=True):
            message = None if bar is None else {**bar, "t": stretch.name_ns}
            yield stretch.name_ns, message, feed.span_work(symbol, stretch.from_ns, stretch.until_ns)


def _groups(feed: Feed, symbol: str, stretches: Iterable[_Stretch]) -> Iterator[list[_Stretch]]:
    """Put together what is made at once: a little at first, since somebody may want no more, and then more."""
    group: list[_Stretch] = []
    work, most = 0.0, 1
    for stretch in stretches:
        group.append(stretch)
        work += feed.span_work(symbol, stretch.from_ns, stretch.until_ns)
        if len(group) >= most or work >= _WORK_AT_ONCE:
            yield group
            group, work, most = [], 0.0, min(most * 4, _MOST_AT_ONCE)
    if group:
        yield group


def _minutes(desk: Desk, feed: Feed, symbol: str, query: Query, start_ns: int, end_ns: int) -> Iterator[_Stretch]:
    """Give the times of bars that are over; they lie on a grid that begins with the day, the first may begin before it."""
    width_ns = query.timeframe.every * MINUTE_NS
    for opened_ns, until_ns in feed.open_spans(symbol, start_ns, end_ns + 1, backward=query.descending):
        origin_ns = _day_begins(symbol, opened_ns)
        from_ns = max(start_ns, origin_ns + (opened_ns - origin_ns) // width_ns * width_ns)
        for begin_ns, before_ns in _pieces(from_ns, until_ns, DAY_NS, backward=query.descending):
            found = list(_grid(symbol, begin_ns, before_ns, width_ns, desk.now_ns))
            yield from reversed(found) if query.descending else found


def _grid(symbol: str, from_ns: int, until_ns: int, width_ns: int, now_ns: int) -> Iterator[_Stretch]:
    origin_ns = _day_begins(symbol, from_ns)
    while origin_ns < until_ns:
        next_day_ns = _day_begins(symbol, origin_ns + DAY_NS + _HOUR_NS * 2)
        first_ns = origin_ns + -(-max(from_ns - origin_ns, 0) // width_ns) * width_ns
        for at_ns in range(first_ns, min(until_ns, next_day_ns), width_ns):
            end_ns = min(at_ns + width_ns, next_day_ns)
            if end_ns > now_ns:
                return
            yield _Stretch(at_ns, at_ns, end_ns)
        origin_ns = next_day_ns


def _stretches(
    desk: Desk, feed: Feed, symbol: str, timeframe: Timeframe, start_ns: int, end_ns: int
) -> Iterator[_Stretch]:
    """Give the times of bars of an hour and more, oldest first."""
    if end_ns < start_ns:
        return
    first, last = _day_of(symbol, start_ns), _day_of(symbol, end_ns)
    if timeframe.unit == "Hour":
        for _, opens_ns, closes_ns in _days(desk, feed, symbol, first, last, extended=True):
            origin_ns, width_ns = _day_begins(symbol, opens_ns), timeframe.every * _HOUR_NS
            begin_ns = origin_ns + (opens_ns - origin_ns) // width_ns * width_ns
            for at_ns in range(begin_ns, closes_ns, width_ns):
                yield _Stretch(at_ns, max(at_ns, opens_ns), min(at_ns + width_ns, closes_ns))
        return
    begin, end = _calendar_span(first, timeframe), _calendar_span(last, timeframe)
    groups: dict[date, tuple[int, int]] = {}
    for day, opens_ns, closes_ns in _days(
        desk, feed, symbol, begin, end + timedelta(370 if timeframe.unit == "Month" else 7)
    ):
        group = _calendar_span(day, timeframe)
        if group <= end:
            groups[group] = (groups.get(group, (opens_ns, 0))[0], closes_ns)
    for day, (opens_ns, closes_ns) in groups.items():
        yield _Stretch(_midnight(symbol, day), opens_ns, closes_ns)


def _calendar_span(day: date, timeframe: Timeframe) -> date:
    """Return the first day of the day, week or months that a day lies in."""
    if timeframe.unit == "Week":
        return day - timedelta(day.weekday())
    if timeframe.unit == "Month":
        return day.replace(month=(day.month - 1) // timeframe.every * timeframe.every + 1, day=1)
    return day


def _days(
    desk: Desk, feed: Feed, symbol: str, first: date, last: date, *, extended: bool = False
) -> Iterator[tuple[date, int, int]]:
    """Give the trading days up to now with the instants between which the symbol trades, before and after the session too."""
    last = min(last, _day_of(symbol, desk.now_ns))
    if not _is_coin(symbol):
        for day in feed.days(symbol, first, last):
            yield day.day, *((day.from_ns, day.until_ns) if extended else (day.open_ns, day.close_ns))
        return
    for number in range((last - first).days + 1):
        coin_day = first + timedelta(number)
        yield coin_day, _midnight(symbol, coin_day), _midnight(symbol, coin_day + timedelta(1))


def _is_coin(symbol: str) -> bool:
    return "/" in symbol


def _day_of(symbol: str, at_ns: int) -> date:
    """Return the date of an instant: in New York, or for a coin in UTC."""
    return datetime.fromtimestamp(at_ns // SECOND_NS, UTC).date() if _is_coin(symbol) else new_york_date(at_ns)


def _midnight(symbol: str, day: date) -> int:
    if _is_coin(symbol):
        return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * SECOND_NS
    return new_york_ns(day)


def _day_begins(symbol: str, at_ns: int) -> int:
    return _midnight(symbol, _day_of(symbol, at_ns))


def _latest(desk: Desk, feed: Feed, channel: str, symbol: str) -> _Message | None:
    """Return the last one until now; while the market is shut, the last one before it closed."""
    if channel == "orderbooks":
        book = feed.book(symbol, desk.now_ns)
        return None if book is None else {name: value for name, value in book.items() if name != "r"}
    find: Callable[[str, int], _Message | None] = feed.latest_quote
    if channel != "quotes":
        find = partial({"bars": feed.latest_bar, "trades": feed.latest_trade}[channel], known_ns=desk.now_ns)
    spans = feed.open_spans(symbol, desk.now_ns - 10 * DAY_NS, desk.now_ns + 1, backward=True)
    found = (find(symbol, until_ns) for _, until_ns in spans)  # in its first minute a day has no bar yet
    return next((message for message in found if message is not None), None)


def _pieces(from_ns: int, until_ns: int, width_ns: int, *, backward: bool) -> Iterator[tuple[int, int]]:
    """Cut an interval into pieces, from either end."""
    grid = range(from_ns // width_ns * width_ns, until_ns, width_ns)
    for begin_ns in reversed(grid) if backward else grid:
        yield max(begin_ns, from_ns), min(begin_ns + width_ns, until_ns)


def page_token(symbol: str) -> str:
    """Return the token of a page that ends with a whole symbol."""
    return _token(symbol, 0, 0)


def _token(symbol: str, at_ns: int, given: int) -> str:
    return base64.urlsafe_b64encode(f"{symbol}|{at_ns}|{given}".encode()).decode()


def _element(message: Mapping[str, object]) -> dict[str, Json]:
    return {
        name: _json(value) if name not in ("t", "created_at", "updated_at") else timestamp(_integer(value))
        for name, value in message.items()
        if name not in ("T", "S")
    }


def _json(value: object) -> Json:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, list):
        return [_json(item) for item in value]
    if isinstance(value, dict):
        return {str(name): _json(item) for name, item in value.items()}
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise AssertionError(f"{type(value).__name__} is not on the wire")


def _integer(value: object) -> int:
    if not isinstance(value, int):
        raise AssertionError("times are nanoseconds")
    return value
