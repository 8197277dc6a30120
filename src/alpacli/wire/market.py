"""Market data over REST but for long histories (``columns``): gaps of streams, latest prices, news, corporate actions.

Source: the Market Data API's historical trades and bars, snapshots, news and corporate actions.
"""

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, NamedTuple

from alpacli.arguments import a_text, whole
from alpacli.domain.board import DaySoFar
from alpacli.domain.market import NewsArticle, Snapshot
from alpacli.domain.series import market_of
from alpacli.domain.ticks import instant_ns, instant_text
from alpacli.domain.values import from_json
from alpacli.errors import UnreadableAnswer, UsageError
from alpacli.ports import Request
from alpacli.wire.frames import Loose, nine_digits, tick_from_element
from alpacli.wire.rest import Call, instant, joined_symbols

_MOST_PER_PAGE: Final = 10_000
_STOCKS: Final = "/v2/stocks"
_CRYPTO: Final = "/v1beta3/crypto/us"
_NO_LONGER_COUNT: Final = ("canceled", "incorrect")
_LETTERS: Final = {"trades": "t", "bars": "b"}


class Page(NamedTuple):
    """Ticks of one page, by symbol and then by time; ``token`` leads to the next one."""

    ticks: list[Loose]
    token: str | None


def between(
    channel: str, symbols: Sequence[str], from_ns: int, until_ns: int, *, feed: str, token: str | None = None
) -> Call[Page]:
    """Ask for the ``trades`` or minute ``bars`` of some symbols between two times, both included.

    Trades that were canceled or replaced by their correction meanwhile are left out: nobody missed those.

    ``feed`` is the stream's (``iex``, ``sip``, ``crypto`` …); times are nanoseconds since 1970 UTC.
    """
    crypto = feed == "crypto"
    query = [
        ("symbols", ",".join(symbols)),
        ("start", instant_text(from_ns)),
        ("end", instant_text(until_ns)),
        ("limit", str(_MOST_PER_PAGE)),
    ]
    if channel == "bars":
        query.append(("timeframe", "1Min"))
    if not crypto:
        query.append(("feed", _rest_feed(feed)))
    if token is not None:
        query.append(("page_token", token))
    letter = _LETTERS[channel]

    def decode(body: bytes) -> Page:
        tree = _object(body, channel)
        rows = tree.get(channel) or {}
        if not isinstance(rows, Mapping):
            raise _unreadable(channel)
        try:
            ticks = [
                tick_from_element(letter, symbol, element)
                for symbol, elements in rows.items()
                for element in elements or ()
                if element.get("u") not in _NO_LONGER_COUNT
            ]
        except (TypeError, AttributeError) as error:  # not lists of objects
            raise _unreadable(channel) from error
        return Page(ticks, tree.get("next_page_token"))

    return Call(
        channel, Request("GET", f"{_CRYPTO if crypto else _STOCKS}/{channel}", tuple(query), host="data"), decode
    )


def days(symbols: Iterable[str], *, feed: str) -> Call[dict[str, DaySoFar]]:
    """Ask for the close of the trading day before and for the day so far, by symbol; symbols without both are left out."""
    crypto = feed == "crypto"
    query = [("symbols", ",".join(symbols))]
    if not crypto:
        query.append(("feed", feed if feed in ("iex", "sip", "delayed_sip") else "iex"))

    def decode(body: bytes) -> dict[str, DaySoFar]:
        tree = _object(body, "snapshots")
        found = tree.get("snapshots", tree)
        known = {
            symbol: _day(snapshot)
            for symbol, snapshot in (found.items() if isinstance(found, Mapping) else ())
            if isinstance(snapshot, Mapping)
        }
        return {symbol: day for symbol, day in known.items() if day != DaySoFar(None)}

    return Call(
        "snapshots", Request("GET", f"{_CRYPTO if crypto else _STOCKS}/snapshots", tuple(query), host="data"), decode
    )


def _day(snapshot: Mapping[str, Any]) -> DaySoFar:
    """Read what is well-formed of a snapshot; any member may be null."""
    before, today = (
        bar if isinstance(bar, Mapping) else {} for bar in (snapshot.get("prevDailyBar"), snapshot.get("dailyBar"))
    )
    close, volume, vwap = _number(before.get("c")), _number(today.get("v")), _number(today.get("vw"))
    try:
        began_ns = None if volume is None else instant_ns(nine_digits(str(today.get("t"))))
    except ValueError:
        began_ns = None
    return DaySoFar(close) if began_ns is None or volume is None else DaySoFar(close, began_ns, volume, vwap)


def _number(value: object) -> Decimal | None:
    return Decimal(value) if isinstance(value, int | Decimal) else None


def snapshots(symbols: Sequence[str], *, feed: str | None = None) -> Call[list[Snapshot]]:
    """Ask for the latest trade and quote, the minute's, the day's and the day before's bar of some symbols of one market.

    Symbols that are not known are left out. ``feed`` matters for stocks (sip, iex, delayed_sip, overnight …) and options.
    Source: GET /v2/stocks/snapshots, /v1beta3/crypto/us/snapshots, /v1beta1/options/snapshots.
    """
    joined = joined_symbols(symbols)
    if joined is None:
        raise UsageError("no symbol was given", "name at least one, like AAPL or BTC/USD")
    wanted = joined.split(",")
    market = market_of(wanted[0])
    path = {"stocks": _STOCKS, "crypto": _CRYPTO, "options": "/v1beta1/options"}[market]
    query = [("symbols", joined)]
    if feed is not None and market != "crypto":
        query.append(("feed", a_text("feed", feed)))

    def decode(body: bytes) -> list[Snapshot]:
        tree = _object(body, "snapshots")
        found = tree if market == "stocks" else tree.get("snapshots")
        if not isinstance(found, Mapping):
            raise _unreadable("snapshots")
        try:
            return [
                Snapshot.model_validate({"symbol": symbol, **found[symbol]})
                for symbol in wanted
                if isinstance(found.get(symbol), Mapping)
            ]
        except ValueError as error:
            raise _unreadable("snapshots") from error

    return Call("snapshots", Request("GET", f"{path}/snapshots", tuple(query), host="data"), decode)


def news(
    symbols: Sequence[str] = (),
    *,
    start: dt.datetime | None = None,
    end: dt.datetime | None = None,
    limit: int | None = 10,
    newest_first: bool = True,
    content: bool = False,
) -> Call[list[NewsArticle]]:
    """Ask for articles about any of some symbols, or all, by the time of their last change; ``limit=None`` means all.

    Source: GET /v1beta1/news.
    """
    limit = None if limit is None else whole("limit", limit, "give a number of articles of at least 1")
    query = [("sort", "desc" if newest_first else "asc"), ("include_content", "true" if content else "false")]
    about = joined_symbols(symbols)
    if about is not None:
        query.append(("symbols", about.replace("/", "")))
    for name, value in (("start", start), ("end", end)):
        if (text := instant(name, value)) is not None:
            query.append((name, text))
    first = Request("GET", "/v1beta1/news", (*query, ("limit", str(min(limit or 50, 50)))), host="data")

    def decode(body: bytes) -> list[NewsArticle]:
        tree = _object(body, "news")
        try:
            return _Articles(map(NewsArticle.model_validate, tree["news"] or ()), tree.get("next_page_token"))
        except (KeyError, TypeError, ValueError) as error:
            raise _unreadable("news") from error

    def next_page(request: Request, page: "_Articles", rows: list[NewsArticle]) -> Request | None:
        left = 50 if limit is None else limit - len(rows)
        if not page.token or left <= 0 or dict(request.query).get("page_token") == page.token:
            return None
        more = (("limit", str(min(left, 50))), ("page_token", page.token))
        return request._replace(query=(*query, *more))

    def trim(rows: list[NewsArticle]) -> list[NewsArticle]:
        return list({article.id: article for article in reversed(rows)}.values())[::-1][:limit]

    return Call("news", first, decode, next_page=next_page, trim=trim)


class _Articles(list[NewsArticle]):
    """A page of articles that knows the token of the next one."""

    def __init__(self, rows: Iterable[NewsArticle], token: str | None) -> None:
        super().__init__(rows)
        self.token = token


def recent_sip(symbol: str) -> Call[bool]:
    """Ask for a stock's last trade on the SIP, which only plans with recent SIP data answer; the rest is a 403."""
    query = (("symbols", symbol), ("feed", "sip"))
    return Call("plan", Request("GET", f"{_STOCKS}/trades/latest", query, host="data"), lambda _: True)


def corporate_actions(
    symbols: Sequence[str], first: dt.date, last: dt.date, *, token: str | None = None
) -> Call[tuple[list[tuple[str, dt.date]], str | None]]:
    """Ask which of some symbols had a split, dividend, spin-off … with an ex-date between two days, both included.

    The answer is (symbol, day) pairs, a pair for each of the symbols that an action names, and the next page's token.
    Source: GET /v1/corporate-actions.
    """
    query = [
        ("symbols", ",".join(symbols)),
        ("start", first.isoformat()),
        ("end", last.isoformat()),
        ("limit", "1000"),
    ]
    if token is not None:
        query.append(("page_token", token))
    wanted = set(symbols)

    def decode(body: bytes) -> tuple[list[tuple[str, dt.date]], str | None]:
        tree = _object(body, "corporate actions")
        found: list[tuple[str, dt.date]] = []
        try:
            for actions in (tree["corporate_actions"] or {}).values():
                for action in actions or ():
                    day = action.get("ex_date") or action.get("effective_date") or action.get("process_date")
                    named = wanted & {value for value in action.values() if isinstance(value, str)}
                    found += [(symbol, dt.date.fromisoformat(day)) for symbol in named if day]
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise _unreadable("corporate actions") from error
        return found, tree.get("next_page_token") or None

    return Call("corporate-actions", Request("GET", "/v1/corporate-actions", tuple(query), host="data"), decode)


def _rest_feed(feed: str) -> str:
    """Return the name under which history has a stream's data."""
    return {"delayed_sip": "sip", "test": "iex", "overnight": "boats"}.get(feed, feed)


def _object(body: bytes, what: str) -> dict[str, Any]:
    try:
        tree = from_json(body)
    except ValueError as error:
        raise _unreadable(what) from error
    if not isinstance(tree, dict):
        raise _unreadable(what)
    return tree


def _unreadable(what: str) -> UnreadableAnswer:
    return UnreadableAnswer(f"the answer for {what} is not what the endpoint promises", "try again later")
