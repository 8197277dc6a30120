"""Every REST endpoint as a declaration: what to send, how to read the answer, where to cache it, how to page.

A ``Call`` is data and pure functions, so the pipeline, both clients and the tests handle all endpoints alike. Arguments are
checked here, before anything is sent. Symbols in paths lose their slash (``BTC/USD`` becomes ``BTCUSD``): Alpaca takes both
forms there, and proxies do not agree on ``%2F``.
"""

import datetime as dt
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Generic, Literal, NamedTuple, TypeVar
from urllib.parse import quote

from alpacli.arguments import a_text, texts, whole
from alpacli.domain.account import Account, Activity, PortfolioHistory, Position, Watchlist
from alpacli.domain.market import Asset, CalendarDay, MarketClock
from alpacli.domain.orders import Order
from alpacli.domain.symbols import spelled
from alpacli.domain.values import Model, Timestamp, epoch_ns, from_json, to_json
from alpacli.errors import UnreadableAnswer, UsageError
from alpacli.ports import Request
from alpacli.wire.errors import printable

T = TypeVar("T")
M = TypeVar("M", bound=Model)
Row = TypeVar("Row", Order, Activity)

ORDERS_PER_PAGE: Final = 500
ACTIVITIES_PER_PAGE: Final = 100
ORDERS_CHANGE: Final = ("account", "positions", "orders")
"""What an order makes stale in the cache: when it is sent, and once more when it fills."""

_UNREADABLE_HINT: Final = (
    "a proxy or an outage may stand between: try again, or accept older data, with max_age (--max-age 3600)"
)


class Call(NamedTuple, Generic[T]):
    """One thing to ask of the broker.

    ``decode`` reads the wire body and the cached canonical JSON alike, or raises ``UnreadableAnswer``. ``cache_key`` is the
    part of the key behind the account's scope, ``None`` for what is never cached; ``ttl_s`` its lifetime in seconds unless
    the settings know better for ``name``. ``next_page(request, page, rows)`` returns the request that continues after
    ``page``, where ``rows`` is everything so far with that page, or ``None`` at the end; ``trim`` then cuts the collected
    rows to what was asked for. ``changes`` names the cache-key prefixes that a success makes stale. ``shows`` reads what a
    DELETE answers with, for when that answer was lost and a second one finds nothing to delete. ``encode`` makes what is
    cached from the value.
    """

    name: str
    request: Request
    decode: Callable[[bytes], T]
    cache_key: str | None = None
    ttl_s: float = 0.0
    next_page: Callable[[Request, Any, Any], Request | None] | None = None
    trim: Callable[[T], T] | None = None
    urgent: bool = False
    changes: tuple[str, ...] = ()
    shows: Request | None = None
    encode: Callable[[Any], bytes] = to_json


# ------------------------------------------------------------------------------------------------- the account


def account() -> Call[Account]:
    return Call("account", Request("GET", "/v2/account"), reads_one(Account, "the account"), "account", 5.0)


def positions() -> Call[list[Position]]:
    return Call("positions", Request("GET", "/v2/positions"), reads_many(Position, "positions"), "positions", 3.0)


def position(symbol: str) -> Call[Position]:
    part = symbol_part(symbol)
    request = Request("GET", f"/v2/positions/{part}")
    return Call("positions", request, reads_one(Position, "the position"), f"positions:{part}", 3.0)


def portfolio_history(
    *,
    period: str | None = None,
    timeframe: str | None = None,
    start: dt.datetime | None = None,
    end: dt.datetime | None = None,
    intraday_reporting: str | None = None,
    pnl_reset: str | None = None,
    cashflow_types: Sequence[str] = (),
) -> Call[PortfolioHistory]:
    """Ask for the equity curve; ``period`` is a number and D, W, M or A (year), at most two of period, start, end."""
    if period is not None and not re.fullmatch(r"[1-9][0-9]{0,3}[DWMA]", a_text("period", period)):
        raise UsageError(f"{period!r} is not a period", "write a number and D, W, M or A (year): 1D, 2W, 3M, 1A")
    if None not in (period, start, end):
        raise UsageError("period, start and end cannot all be given", "leave one of the three away")
    query = _query(
        period=period,
        timeframe=_choice("timeframe", timeframe, "1Min", "5Min", "15Min", "1H", "1D"),
        intraday_reporting=_choice(
            "intraday_reporting", intraday_reporting, "market_hours", "extended_hours", "continuous"
        ),
        start=instant("start", start),
        end=instant("end", end),
        pnl_reset=_choice("pnl_reset", pnl_reset, "per_day", "no_reset"),
        cashflow_types=joined_names("cashflow_types", cashflow_types),
    )
    request = Request("GET", "/v2/account/portfolio/history", query)
    return Call("portfolio", request, reads_one(PortfolioHistory, "the portfolio history"), key_for("portfolio", query))


def activities(
    *,
    activity_types: Sequence[str] = (),
    category: str | None = None,
    day: dt.date | None = None,
    after: dt.datetime | dt.date | None = None,
    until: dt.datetime | dt.date | None = None,
    direction: str = "desc",
    limit: int | None = 100,
) -> Call[list[Activity]]:
    """Ask for activities, newest first; ``limit=None`` follows the pages to the end.

    The last row's id is the next page's token; a page that is not full is the last one.
    """
    if activity_types and category:
        raise UsageError("activity_types and category cannot both be given", "leave one of the two away")
    types = [name.upper() for name in texts("activity_types", activity_types)]  # fill would be none of Alpaca's
    filters = _query(
        activity_types=joined_names("activity_types", types),
        category=_choice("category", category, "trade_activity", "non_trade_activity"),
        date=None if day is None else _date("day", day),
        after=_instant_or_date("after", after),
        until=_instant_or_date("until", until),
        direction=_choice("direction", direction, "asc", "desc"),
    )
    limit = None if limit is None else whole("limit", limit)
    size = _page_size(limit, ACTIVITIES_PER_PAGE)
    request = Request("GET", "/v2/account/activities", (*filters, ("page_size", str(size))))

    def next_page(request: Request, page: list[Activity], rows: list[Activity]) -> Request | None:
        left = _left(page, rows, size_of_page=int(dict(request.query)["page_size"]), limit=limit)
        if left == 0:
            return None
        more = (("page_size", str(min(left, ACTIVITIES_PER_PAGE))), ("page_token", page[-1].id))
        return request._replace(query=(*filters, *more))

    def trim(rows: list[Activity]) -> list[Activity]:
        return _distinct(rows)[:limit]

    key = key_for(f"activities:{limit or 'all'}", filters)
    return Call("activities", request, reads_many(Activity, "activities"), key, 0.0, next_page, trim)


# ------------------------------------------------------------------------------------------------------ orders


def orders(
    *,
    status: str = "open",
    limit: int | None = 50,
    after: dt.datetime | None = None,
    until: dt.datetime | None = None,
    direction: str = "desc",
    symbols: Sequence[str] = (),
    side: str | None = None,
    nested: bool = False,
) -> Call[list[Order]]:
    """Ask for orders by submission time; ``after`` and ``until`` are exclusive; ``limit=None`` means all of them.

    Alpaca gives 500 at most, without a token for more. Continuing from the last time would lose or repeat orders that share
    it (legs always do), so pages continue from the last order's id. That cursor cannot be combined with ``after`` and
    ``until`` (wire reference, 4.6): they go with the first page only, and the later pages end at, and are cut to, the same
    bounds here, compared in nanoseconds.

    ``next_page`` raises ``UnreadableAnswer`` when a page brings nothing new: that server ignores the cursor.
    """
    direction = a_text("direction", direction, "choose asc or desc")
    limit = None if limit is None else whole("limit", limit)
    filters = _query(
        status=_choice("status", status, "open", "closed", "all"),
        direction=_choice("direction", direction, "asc", "desc"),
        symbols=joined_symbols(symbols),
        side=_choice("side", side, "buy", "sell"),
        nested="true" if nested else None,
    )
    bounds = _query(after=instant("after", after), until=instant("until", until))
    first = (("limit", str(_page_size(limit, ORDERS_PER_PAGE))),)
    cursor = "before_order_id" if direction.lower() == "desc" else "after_order_id"
    after_ns, until_ns = _ns(after), _ns(until)

    def within(row: Order) -> bool:
        at = (row.submitted_at or row.created_at).epoch_ns
        return (after_ns is None or at > after_ns) and (until_ns is None or at < until_ns)

    def next_page(request: Request, page: list[Order], rows: list[Order]) -> Request | None:
        left = _left(page, rows, size_of_page=int(dict(request.query)["limit"]), limit=limit)
        if left == 0 or not within(page[-1]):
            return None
        more = (("limit", str(min(left, ORDERS_PER_PAGE))), (cursor, page[-1].id))
        return request._replace(query=(*filters, *more))

    def trim(rows: list[Order]) -> list[Order]:
        return [row for row in _distinct(rows) if within(row)][:limit]

    paged = limit is None or limit > ORDERS_PER_PAGE
    return Call(
        "orders",
        Request("GET", "/v2/orders", (*filters, *first, *bounds)),
        reads_many(Order, "orders"),
        key_for(f"orders:{status}:{limit or 'all'}", (*filters[1:], *bounds)),
        next_page=next_page if paged else None,
        trim=trim if paged else None,
    )


def order(order_id: str, *, nested: bool = False) -> Call[Order]:
    part = path_part("order id", order_id)
    request = Request("GET", f"/v2/orders/{part}", _query(nested="true" if nested else None))
    return Call("orders", request, reads_one(Order, "the order"), f"orders:id:{part}{':nested' if nested else ''}")


def order_by_client_order_id(client_order_id: str) -> Call[Order]:
    if not a_text("client_order_id", client_order_id).strip():
        raise UsageError("the client order id is empty", "give the id that the order was sent with")
    query = _query(client_order_id=client_order_id)
    request = Request("GET", "/v2/orders:by_client_order_id", query)
    return Call("orders", request, reads_order, key_for("orders:client", query))


# ------------------------------------------------------------------------------------------------------ market


def clock() -> Call[MarketClock]:
    return Call("clock", Request("GET", "/v2/clock"), reads_one(MarketClock, "the market clock"), "clock")


def calendar(start: dt.date | None = None, end: dt.date | None = None) -> Call[list[CalendarDay]]:
    """Ask for the trading days from ``start`` to ``end``, both inclusive."""
    query = _query(
        start=None if start is None else _date("start", start), end=None if end is None else _date("end", end)
    )
    if start is not None and end is not None and start > end:
        raise UsageError(f"the calendar cannot run from {start} back to {end}", "put the earlier date first")
    request = Request("GET", "/v2/calendar", query)
    return Call("calendar", request, reads_many(CalendarDay, "the calendar"), key_for("calendar", query), 3600.0)


def assets(
    *,
    status: str | None = "active",
    asset_class: str | None = None,
    exchange: str | None = None,
    attributes: Sequence[str] = (),
) -> Call[list[Asset]]:
    """Ask for what is listed: some 32,000 rows in one answer of several megabytes."""
    query = _query(
        status=_choice("status", status, "active", "inactive"),
        asset_class=asset_class,
        exchange=exchange,
        attributes=joined_names("attributes", attributes),
    )
    request = Request("GET", "/v2/assets", query)
    return Call("assets", request, reads_many(Asset, "assets"), key_for("assets:list", query), 3600.0)


def asset(symbol: str) -> Call[Asset]:
    part = symbol_part(symbol)
    return Call(
        "assets", Request("GET", f"/v2/assets/{part}"), reads_one(Asset, "the asset"), f"assets:one:{part}", 3600.0
    )


# -------------------------------------------------------------------------------------------------- watchlists


def watchlists() -> Call[list[Watchlist]]:
    return Call("watchlists", Request("GET", "/v2/watchlists"), reads_many(Watchlist, "watchlists"), "watchlists")


def watchlist(watchlist_id: str) -> Call[Watchlist]:
    part = path_part("watchlist id", watchlist_id)
    request = Request("GET", f"/v2/watchlists/{part}")
    return Call("watchlists", request, reads_one(Watchlist, "the watchlist"), f"watchlists:id:{part}")


def watchlist_by_name(name: str) -> Call[Watchlist]:
    query = _query(name=_watchlist_name(name))
    request = Request("GET", "/v2/watchlists:by_name", query)
    return Call("watchlists", request, reads_one(Watchlist, "the watchlist"), key_for("watchlists:name", query))


def create_watchlist(name: str, symbols: Sequence[str] = ()) -> Call[Watchlist]:
    body = {"name": _watchlist_name(name), "symbols": _symbols(symbols)}
    return _watchlist_change("POST", "/v2/watchlists", body)


def update_watchlist(watchlist_id: str, name: str, symbols: Sequence[str]) -> Call[Watchlist]:
    body = {"name": _watchlist_name(name), "symbols": _symbols(symbols)}
    return _watchlist_change("PUT", f"/v2/watchlists/{path_part('watchlist id', watchlist_id)}", body)


def add_to_watchlist(watchlist_id: str, symbol: str) -> Call[Watchlist]:
    body = {"symbol": _symbols([symbol])[0]}
    return _watchlist_change("POST", f"/v2/watchlists/{path_part('watchlist id', watchlist_id)}", body)


def remove_from_watchlist(watchlist_id: str, symbol: str) -> Call[Watchlist]:
    path = f"/v2/watchlists/{path_part('watchlist id', watchlist_id)}"
    call = _watchlist_change("DELETE", f"{path}/{symbol_part(symbol)}", None)
    return call._replace(shows=Request("GET", path))


def delete_watchlist(watchlist_id: str) -> Call[None]:
    request = Request("DELETE", f"/v2/watchlists/{path_part('watchlist id', watchlist_id)}")
    return Call("watchlists", request, reads_nothing, changes=("watchlists",))


def _watchlist_change(
    method: Literal["POST", "PUT", "DELETE"], path: str, body: Mapping[str, object] | None
) -> Call[Watchlist]:
    request = Request(method, path, body=None if body is None else to_json(dict(body)))
    return Call("watchlists", request, reads_one(Watchlist, "the watchlist"), changes=("watchlists",))


# ---------------------------------------------------------------------------------------------------- decoding


def reads_one(model: type[M], what: str) -> Callable[[bytes], M]:
    def decode(body: bytes) -> M:
        value = _parsed(body, what)
        if not isinstance(value, dict):
            raise UnreadableAnswer(f"the answer for {what} is {_shape(value)}, not an object", _UNREADABLE_HINT)
        return _validated(model, value, what)

    return decode


def reads_many(model: type[M], what: str) -> Callable[[bytes], list[M]]:
    def decode(body: bytes) -> list[M]:
        value = _parsed(body, what)
        if not isinstance(value, list):
            raise UnreadableAnswer(f"the answer for {what} is {_shape(value)}, not an array", _UNREADABLE_HINT)
        return [_validated(model, row, what) for row in value]

    return decode


def reads_order(body: bytes) -> Order:
    """Read an order that remembers how it was written."""
    order = reads_one(Order, "the order")(body)
    order.remember(body)
    return order


def reads_nothing(_: bytes) -> None:
    return None


def _parsed(body: bytes, what: str) -> Any:
    if not body.strip():
        raise UnreadableAnswer(f"the answer for {what} is empty", _UNREADABLE_HINT)
    try:
        return from_json(body)
    except ValueError as error:
        kind = "an HTML page" if body.lstrip()[:1] == b"<" else f"not JSON ({printable(str(error), 80)})"
        raise UnreadableAnswer(f"the answer for {what} is {kind}", _UNREADABLE_HINT) from None


def _validated(model: type[M], value: object, what: str) -> M:
    try:
        return model.model_validate(value)
    except ValueError as error:
        from pydantic import ValidationError

        detail = str(error)
        if isinstance(error, ValidationError):
            first = error.errors(include_url=False, include_input=False)[0]
            detail = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
        raise UnreadableAnswer(
            f"the answer for {what} does not fit: {printable(detail, 120)}", _UNREADABLE_HINT
        ) from None


def _shape(value: object) -> str:
    names = {dict: "an object", list: "an array", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


# ------------------------------------------------------------------------------------------------------ paging


def _page_size(limit: int | None, most: int) -> int:
    return most if limit is None else min(limit, most)


def _left(page: list[Row], rows: list[Row], *, size_of_page: int, limit: int | None) -> int:
    """Return how many more rows to ask for (a page of the usual size when all are wanted), 0 at the end.

    Raises:
        UnreadableAnswer: a full page without a single new row, which would go on for ever.
    """
    if len(page) < size_of_page:
        return 0
    seen = {row.id for row in rows[: len(rows) - len(page)]}
    fresh = {row.id for row in page} - seen
    if not fresh:
        raise UnreadableAnswer(
            "the server repeats a page instead of continuing it",
            "ask for fewer rows, with limit (--limit), or narrow the time",
        )
    return ORDERS_PER_PAGE if limit is None else max(limit - len(seen) - len(fresh), 0)


def _distinct(rows: list[Row]) -> list[Row]:
    return list({row.id: row for row in reversed(rows)}.values())[::-1]


def _ns(value: dt.datetime | None) -> int | None:
    if value is None:
        return None
    return value.epoch_ns if isinstance(value, Timestamp) else epoch_ns(value)


# --------------------------------------------------------------------------------------------------- arguments


def _query(**values: str | None) -> tuple[tuple[str, str], ...]:
    return tuple((name, _text(name, value)) for name, value in values.items() if value is not None)


def key_for(name: str, query: tuple[tuple[str, str], ...]) -> str:
    """Name a cache entry by what was asked; long questions by their hash, so that keys stay short in every store."""
    tail = "".join(f":{name}={value}" for name, value in query)
    return f"{name}{tail}" if len(tail) <= 160 else f"{name}:{hashlib.sha256(tail.encode()).hexdigest()[:32]}"


def _choice(name: str, value: Any, *known: str) -> str | None:
    """Return the one that is meant, as Alpaca writes it: BUY is buy."""
    if value is None:
        return None
    for one in known:
        if isinstance(value, str) and value.lower() == one.lower():
            return one
    raise UsageError(f"{name} cannot be {value!r}", f"choose among {', '.join(known)}")


def joined_names(name: str, values: Sequence[str]) -> str | None:
    """Return names as one query parameter has them, ``None`` without any.

    Raises:
        UsageError: a text in place of a list, an empty name, or one with a comma.
    """
    names = texts(name, values)
    if any(not value.strip() or "," in value for value in names):
        raise UsageError(f"{name} holds an empty name or a comma", "give one name per item")
    return ",".join(_text(name, value.strip()) for value in names) or None


def joined_symbols(symbols: Sequence[str]) -> str | None:
    """Return symbols as one query parameter has them, in capitals; see ``joined_names``."""
    return joined_names("symbols", list(map(spelled, texts("symbols", symbols))))


def instant(name: str, value: dt.datetime | None) -> str | None:
    """Return a time as it is sent, in RFC 3339.

    Raises:
        UsageError: it has no zone, and nobody can say which was meant.
    """
    if value is None:
        return None
    if not isinstance(value, dt.datetime):
        raise UsageError(f"{name} is {value!r}", "give an aware datetime, in UTC for example")
    if value.tzinfo is None:
        raise UsageError(f"{name} is {value!s}, a time without a zone", "give an aware datetime, in UTC for example")
    if isinstance(value, Timestamp):
        return value.wire
    return value.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")


def _instant_or_date(name: str, value: dt.datetime | dt.date | None) -> str | None:
    if value is None or isinstance(value, dt.datetime):
        return instant(name, value)
    return _date(name, value)


def _date(name: str, value: dt.date) -> str:
    if isinstance(value, dt.datetime):
        raise UsageError(f"{name} is a time, not a date", "give the date as the exchange counts it: New York's")
    if not isinstance(value, dt.date):
        raise UsageError(f"{name} is {value!r}", "give a datetime.date")
    return value.isoformat()


def path_part(name: str, value: str) -> str:
    """Return one percent-encoded path segment; a dot segment would name another resource."""
    value = a_text(f"the {name}", value).strip()
    if value in ("", ".", ".."):
        raise UsageError(f"{value!r} is not a valid {name}", "copy it from the list")
    return quote(_text(name, value), safe="")


def _text(name: str, value: str) -> str:
    """Return the value when it can be sent: an argument that is no UTF-8 arrives as half surrogate pairs."""
    if not a_text(name, value).isascii() and any("\ud800" <= c <= "\udfff" for c in value):
        raise UsageError(f"{name} is {value!a}, which is not text", "give it in UTF-8")
    return value


def symbol_part(symbol: str) -> str:
    return path_part("symbol", spelled(symbol).replace("/", ""))


def _symbols(symbols: Sequence[str]) -> list[str]:
    joined = joined_symbols(symbols)
    return joined.split(",") if joined else []


def _watchlist_name(name: str) -> str:
    if not a_text("a watchlist name", name).strip() or len(name) > 64:
        raise UsageError("a watchlist name has 1 to 64 characters", "shorten it")
    return _text("a watchlist name", name)
