"""The exchange's REST face without sockets: one function from a request to an answer, the same in process and over HTTP.

Paths that are not served answer 404, as Alpaca does. Parameters that are not known are ignored; a change that says one twice,
or an empty ``qty`` to close, is refused, since Alpaca does not say what it takes that for. Booleans may be ``True`` or
``true``; lists are comma-joined; a symbol in a path may hold a slash. Every answer carries ``X-RateLimit-*`` and
``X-Request-ID``; the window is the minute, and a request beyond the limit is answered 429 without being looked at.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date, time, timedelta
from functools import lru_cache
from typing import Final, NamedTuple

from alpacli.sim import (
    activity_stream,
    chains,
    data_host,
    entry,
    history,
    listing,
    markets,
    orders,
    reports,
    settlement,
    watchlists,
)
from alpacli.sim.answers import (
    Json,
    Refusal,
    bad_parameter,
    canonical_identifier,
    timestamp,
)
from alpacli.sim.call import Answer, Call, Follower, Handler, MultiStatus, Streamed, Taken
from alpacli.sim.data_host import chain_filter
from alpacli.sim.desk import Desk
from alpacli.sim.exchange import Admission, Exchange
from alpacli.sim.hours import FIRST_DAY, LAST_DAY, new_york_ns, new_york_offset, session_text
from alpacli.sim.state import Busy

KEY_HEADER: Final = "apca-api-key-id"
SECRET_HEADER: Final = "apca-api-secret-key"  # noqa: S105 the header's name, not a secret


class HttpRequest(NamedTuple):
    """A decoded request: ``path`` and ``query`` without percent signs, header names in lower case."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = {}
    body: bytes = b""


class HttpAnswer(NamedTuple):
    """An answer; with ``follower`` it goes on after ``body``, and in process, where nothing can go on, it ends there."""

    status: int
    headers: dict[str, str]
    body: bytes
    follower: Follower | None = None


class _Route(NamedTuple):
    start: str
    pattern: str
    methods: Mapping[str, Handler]


def handle(exchange: Exchange, request: HttpRequest, *, wait: bool = True) -> HttpAnswer:
    """Answer one request.

    Raises:
        Busy: ``wait`` is false, and another transaction runs; nothing has happened. Only for what is no GET.
        ConfigError: the state file cannot be used (over HTTP the server turns that into a 500).
    """
    key_id, secret = request.headers.get(KEY_HEADER, ""), request.headers.get(SECRET_HEADER, "")
    if not key_id or not secret:
        if not wait:
            raise Busy
        return _answer(401, {"message": "unauthorized."}, _headers(exchange.turn_away()))
    headers: dict[str, str] = {}
    try:
        with _desk(exchange, request.method, key_id, secret, wait=wait) as (admission, desk):
            headers = _headers(admission)
            if desk is None:
                return _answer(429, {"code": 42910000, "message": "rate limit exceeded."}, headers)
            handler, item = _find(request.method, request.path)
            _once(request)
            body = handler(Call(desk, item, dict(request.query), request.body, request.headers))
    except Refusal as refusal:
        return _answer(refusal.status, refusal.body, headers)
    return _told(body, headers)


def _once(request: HttpRequest) -> None:
    """Refuse a change that says a parameter twice: which of the two was meant is not for an exchange to guess."""
    if request.method != "GET":
        seen: set[str] = set()
        for name, _ in request.query:
            if name in seen:
                raise bad_parameter(f"duplicate {name}")
            seen.add(name)


def _told(body: Answer, headers: dict[str, str]) -> HttpAnswer:
    if isinstance(body, MultiStatus):
        return _answer(207, body.rows, headers)
    if isinstance(body, Streamed):
        headers |= {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
        return HttpAnswer(200, headers, body.text.encode(), body.follower)
    if isinstance(body, Taken):
        return HttpAnswer(200, headers, b"")
    return HttpAnswer(204, headers, b"") if body is None else _answer(200, body, headers)


@contextmanager
def _desk(
    exchange: Exchange, method: str, key_id: str, secret: str, *, wait: bool
) -> Iterator[tuple[Admission, Desk | None]]:
    """Admit a request and open its desk; who only reads holds up nobody meanwhile."""
    if method != "GET":
        with exchange.visit(key_id, secret, wait=wait) as visit:
            yield visit
        return
    admission = exchange.admit(key_id, secret)
    if not admission.allowed:
        yield admission, None
        return
    with exchange.desk(admission.number, changes=False) as desk:
        yield admission, desk


def _headers(admission: Admission) -> dict[str, str]:
    headers = {"X-Request-ID": admission.request_id}
    if admission.limit:
        headers["X-RateLimit-Limit"] = str(admission.limit)
        headers["X-RateLimit-Remaining"] = str(admission.remaining)
        headers["X-RateLimit-Reset"] = str(admission.reset_s)
    return headers


def _answer(status: int, body: Json, headers: dict[str, str]) -> HttpAnswer:
    text = _WRITER.encode(body)
    return HttpAnswer(status, {**headers, "Content-Type": "application/json; charset=UTF-8"}, text.encode())


_WRITER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


@lru_cache(maxsize=512)
def _find(method: str, path: str) -> tuple[Handler, str]:
    for route in _ROUTES:
        if not path.startswith(route.start):
            continue  # most patterns need not be compiled
        matched = re.fullmatch(route.pattern, path)
        if matched is not None and method in route.methods:
            return route.methods[method], matched.groupdict().get("item") or ""
    raise Refusal(404, 40410000, "endpoint not found.")


# ------------------------------------------------------------------------------------------------- resources


def _clock(call: Call) -> Json:
    hours, now_ns = call.desk.market.hours, call.desk.now_ns
    opens, closes = hours.next_open(now_ns), hours.next_close(now_ns)
    return {
        "timestamp": timestamp(now_ns, new_york_offset(now_ns)),
        "is_open": hours.is_open(now_ns),
        "next_open": timestamp(opens, new_york_offset(opens)),
        "next_close": timestamp(closes, new_york_offset(closes)),
    }


def _calendar(call: Call) -> Json:
    start, end = call.day("start") or FIRST_DAY, call.day("end") or LAST_DAY
    if end < start:
        raise bad_parameter("end must not be before start")
    hours = call.desk.market.hours
    by_settlement = call.choice("date_type", "trading", "settlement") == "settlement"
    days = hours.days(start - timedelta(5), end) if by_settlement else hours.days(start, end)
    return [dict(session_text(day, hours.name)) for day in days if not by_settlement or start <= day.settlement <= end]


def _assets(call: Call) -> Json:
    return listing.assets_answer(
        call.query.get("status"),
        call.query.get("asset_class"),
        call.query.get("exchange"),
        frozenset(call.words("attributes")),
        call.desk.market.listings,
    )


def _orders(call: Call) -> Json:
    before, after = call.query.get("before_order_id") or None, call.query.get("after_order_id") or None
    after_ns, until_ns = call.instant("after"), call.instant("until")
    if before and after:
        raise bad_parameter("before_order_id and after_order_id are mutually exclusive")
    if (before or after) and (after_ns is not None or until_ns is not None):
        raise bad_parameter("before_order_id and after_order_id cannot be combined with after or until")
    side = call.choice("side", "", "buy", "sell")
    return orders.list_orders(
        call.desk,
        orders.Query(
            call.choice("status", "open", "closed", "all"),
            call.number("limit", 50, orders.MAX_LIMIT),
            after_ns,
            until_ns,
            call.choice("direction", "desc", "asc") == "asc",
            call.flag("nested"),
            call.words("symbols"),
            side or None,
            call.words("asset_class"),
            _order_id(before),
            _order_id(after),
        ),
    )


def _order_id(text: str | None) -> str | None:
    if text is None:
        return None
    canonical = canonical_identifier(text)
    if canonical is None:
        raise bad_parameter(f"invalid order id {text}")
    return canonical


def _by_client_order_id(call: Call) -> Json:
    client_order_id = call.query.get("client_order_id", "")
    if not client_order_id:
        raise bad_parameter("client_order_id is required")
    return orders.order_by_client_id(call.desk, client_order_id)


def _instruct(call: Call, instruction: Callable[[Desk, str], None]) -> Taken:
    instruction(call.desk, call.item)
    return Taken()


def _contracts(call: Call) -> Json:
    return chains.page(
        call.desk,
        chain_filter(call, call.words("underlying_symbols"))._replace(
            inactive=call.choice("status", "active", "inactive") == "inactive",
            style=call.choice("style", "", "american", "european") or None,
            penny=None if "ppind" not in call.query else call.flag("ppind"),
        ),
        call.number("limit", 100, chains.MOST_ROWS),
        call.query.get("page_token", ""),
        deliverables=call.flag("show_deliverables"),
    )


def _announcements(call: Call) -> Json:
    """Return no corporate actions, for no more than 90 days as at Alpaca: nothing here is split and nothing pays."""
    if not call.words("ca_types"):
        raise bad_parameter("ca_types is required")
    days = []
    for name in ("since", "until"):
        try:
            days.append(date.fromisoformat(call.query.get(name, "")))
        except ValueError:
            raise bad_parameter(f"invalid {name}") from None
    if not 0 <= (days[1] - days[0]).days <= _MOST_ANNOUNCED_DAYS:
        raise bad_parameter(f"since and until must be at most {_MOST_ANNOUNCED_DAYS} days apart")
    return []


def _no_announcement(call: Call) -> Json:
    raise Refusal(404, 40410000, f"announcement not found for {call.item}")


def _activities(call: Call) -> Json:
    types, category = call.words("activity_types"), call.choice("category", "", "trade_activity", "non_trade_activity")
    if types and category:
        raise bad_parameter("activity_types and category are mutually exclusive")
    if call.item:
        types = [call.item]
    day = call.day("date")
    after_ns, until_ns = call.instant("after"), call.instant("until")
    if day is not None:
        if after_ns is not None or until_ns is not None:
            raise bad_parameter("date cannot be combined with after or until")
        after_ns, until_ns = new_york_ns(day) - 1, new_york_ns(day + timedelta(1), time())
    most = None if day is not None and "page_size" not in call.query else call.number("page_size", 100, 100)
    return history.activities(
        call.desk,
        history.ActivityQuery(
            frozenset(types),
            category or None,
            after_ns,
            until_ns,
            call.choice("direction", "desc", "asc") == "asc",
            most,
            call.query.get("page_token") or None,
            _order_id(call.query.get("order_id") or None),
        ),
    )


def _close(call: Call) -> Json:
    for name in ("qty", "percentage"):
        if name in call.query and not call.query[name].strip():  # a bot whose variable is empty does not mean all of it
            raise bad_parameter(f"invalid {name}")
    order = entry.close(call.desk, call.item, call.query.get("qty"), call.query.get("percentage"))
    return order.written(call.desk.market)


def _close_all(call: Call) -> MultiStatus:
    call.choice("cancel_orders", "false", "true", "f", "t", "0", "1")
    return MultiStatus(entry.close_all(call.desk, cancel_orders=call.flag("cancel_orders")))


def _portfolio(call: Call) -> Json:
    query = call.query
    return history.portfolio(
        call.desk,
        history.PortfolioQuery(
            query.get("period") or None,
            query.get("timeframe") or None,
            call.instant("start"),
            call.instant("end") if "end" in query else call.instant("date_end"),
            call.choice("intraday_reporting", "market_hours", "extended_hours", "continuous")
            if not call.flag("extended_hours")
            else "extended_hours",
            call.choice("pnl_reset", "per_day", "no_reset"),
            frozenset(call.words("cashflow_types")),
        ),
    )


def _named_watchlist(call: Call) -> watchlists.Key:
    name = call.query.get("name", "")
    if not name:
        raise bad_parameter("name is required")
    return watchlists.Key(name=name)


def _symbol(call: Call) -> str:
    symbol = call.json().get("symbol")
    if not isinstance(symbol, str) or not symbol:
        raise bad_parameter("symbol is required")
    return symbol


def _remove_from_watchlist(call: Call) -> Json:
    watchlist_id, _, symbol = call.item.partition("/")
    return watchlists.remove(call.desk, watchlists.Key(watchlist_id), symbol)


_MOST_ANNOUNCED_DAYS: Final = 90
_PATHS: Final[tuple[tuple[str, Mapping[str, Handler]], ...]] = (
    (
        "/v2/account",
        {"GET": lambda call: reports.account_answer(call.desk)},
    ),
    (
        "/v2/account/configurations",
        {
            "GET": lambda call: dict(reports.configuration(call.desk.account)),
            "PATCH": lambda call: reports.change_configuration(call.desk, call.json()),
        },
    ),
    ("/v2/account/portfolio/history", {"GET": _portfolio}),
    ("/v2/account/activities(?:/(?P<item>[A-Z]+))?", {"GET": _activities}),
    (activity_stream.ACTIVITY_EVENTS_PATH, {"GET": activity_stream.subscribe}),
    (
        "/v2/positions",
        {
            "GET": lambda call: reports.position_answers(call.desk),
            "DELETE": _close_all,
        },
    ),
    ("/v2/positions/(?P<item>[^/]+)/exercise", {"POST": lambda call: _instruct(call, settlement.exercise)}),
    ("/v2/positions/(?P<item>[^/]+)/do-not-exercise", {"POST": lambda call: _instruct(call, settlement.forgo)}),
    (
        "/v2/positions/(?P<item>.+)",
        {
            "GET": lambda call: reports.one_position(call.desk, call.item),
            "DELETE": _close,
        },
    ),
    (
        "/v2/orders",
        {
            "GET": _orders,
            "POST": lambda call: entry.submit(call.desk, call.json()).written(call.desk.market),
            "DELETE": lambda call: MultiStatus(entry.cancel_all(call.desk)),
        },
    ),
    ("/v2/orders:by_client_order_id", {"GET": _by_client_order_id}),
    (
        "/v2/orders/(?P<item>[^/]+)",
        {
            "GET": lambda call: orders.one_order(call.desk, call.item, nested=call.flag("nested")),
            "PATCH": lambda call: entry.replace(call.desk, call.item, call.json()).written(call.desk.market),
            "DELETE": lambda call: entry.cancel(call.desk, call.item),
        },
    ),
    ("/v2/assets", {"GET": _assets}),
    ("/v2/assets/fixed_income/(?P<item>us_corporates|us_treasuries)", {"GET": lambda call: {call.item: []}}),
    ("/v2/assets/(?P<item>.+)", {"GET": lambda call: listing.one_asset(call.item, call.desk.market.listings)}),
    ("/v2/options/contracts", {"GET": _contracts}),
    ("/v2/options/contracts/(?P<item>[^/]+)", {"GET": lambda call: chains.one_contract(call.desk, call.item)}),
    ("/v2/corporate_actions/announcements", {"GET": _announcements}),
    ("/v2/corporate_actions/announcements/(?P<item>[^/]+)", {"GET": _no_announcement}),
    ("/v2/clock", {"GET": _clock}),
    ("/v2/calendar", {"GET": _calendar}),
    ("/v3/clock", {"GET": markets.clocks}),
    ("/v3/calendar/(?P<item>[^/]+)", {"GET": markets.calendar}),
    (
        "/v2/watchlists",
        {
            "GET": lambda call: watchlists.list_all(call.desk),
            "POST": lambda call: watchlists.create(call.desk, call.json()),
        },
    ),
    (
        "/v2/watchlists:by_name",
        {
            "GET": lambda call: watchlists.show(call.desk, _named_watchlist(call)),
            "PUT": lambda call: watchlists.update(call.desk, _named_watchlist(call), call.json()),
            "POST": lambda call: watchlists.add(call.desk, _named_watchlist(call), _symbol(call)),
            "DELETE": lambda call: watchlists.delete(call.desk, _named_watchlist(call)),
        },
    ),
    (
        "/v2/watchlists/(?P<item>[^/]+)",
        {
            "GET": lambda call: watchlists.show(call.desk, watchlists.Key(call.item)),
            "PUT": lambda call: watchlists.update(call.desk, watchlists.Key(call.item), call.json()),
            "POST": lambda call: watchlists.add(call.desk, watchlists.Key(call.item), _symbol(call)),
            "DELETE": lambda call: watchlists.delete(call.desk, watchlists.Key(call.item)),
        },
    ),
    ("/v2/watchlists/(?P<item>[^/]+/.+)", {"DELETE": _remove_from_watchlist}),
    *((path, {"GET": handler}) for path, handler in data_host.PATHS.items()),
)
_ROUTES: Final = tuple(_Route(path.partition("(")[0], path, methods) for path, methods in _PATHS)
