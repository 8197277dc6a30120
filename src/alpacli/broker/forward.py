"""Alpaca's own API, passed on: which paths there are, and what each request goes through on its way.

A client that speaks Alpaca's protocol gets Alpaca's own answers, byte for byte; on the way its reads meet the cache, its
orders the desk, and everything the budget and the breaker. A request is taken apart and put together anew from this list, so
nothing that is not in it can be reached, however the path is written. What moves money or coins off the account (wallets,
transfers, locates) is not in it.
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final, Literal, NamedTuple, cast
from urllib.parse import quote, unquote

from alpacli.broker.desk import Desk
from alpacli.broker.flow import Flow, Pipeline
from alpacli.broker.outcomes import Closing
from alpacli.domain.orders import Order
from alpacli.domain.values import exact, from_json, to_json
from alpacli.errors import NotFound, UnreadableAnswer, UsageError
from alpacli.ports import Request, Response
from alpacli.wire.rest import ORDERS_CHANGE, Call, key_for

_JSON: Final = {"content-type": "application/json; charset=UTF-8"}
_SEGMENT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:~-]{0,127}")
_COIN: Final = re.compile(r"[A-Z0-9]{1,8}/[A-Z]{2,5}")
_PASSED_ON: Final = ("content-type", "x-request-id", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset")

_TRADING: Final[Mapping[str, str]] = {
    "/v2/account": "GET",
    "/v2/account/configurations": "GET PATCH",
    "/v2/account/activities": "GET",
    "/v2/account/activities/*": "GET",
    "/v2/account/portfolio/history": "GET",
    "/v2/assets": "GET",
    "/v2/assets/fixed_income/us_corporates": "GET",
    "/v2/assets/fixed_income/us_treasuries": "GET",
    "/v2/assets/*": "GET",
    "/v2/calendar": "GET",
    "/v2/clock": "GET",
    "/v2/corporate_actions/announcements": "GET",
    "/v2/corporate_actions/announcements/*": "GET",
    "/v2/options/contracts": "GET",
    "/v2/options/contracts/*": "GET",
    "/v2/orders": "GET POST DELETE",
    "/v2/orders:by_client_order_id": "GET",
    "/v2/orders/*": "GET PATCH DELETE",
    "/v2/positions": "GET DELETE",
    "/v2/positions/*": "GET DELETE",
    "/v2/positions/*/exercise": "POST",
    "/v2/positions/*/do-not-exercise": "POST",
    "/v2/watchlists": "GET POST",
    "/v2/watchlists:by_name": "GET POST PUT DELETE",
    "/v2/watchlists/*": "GET POST PUT DELETE",
    "/v2/watchlists/*/*": "DELETE",
    "/v3/calendar/*": "GET",
    "/v3/clock": "GET",
}
_DATA: Final = (
    *("/v2/stocks/auctions", "/v2/stocks/bars", "/v2/stocks/quotes", "/v2/stocks/trades", "/v2/stocks/snapshots"),
    *("/v2/stocks/bars/latest", "/v2/stocks/quotes/latest", "/v2/stocks/trades/latest"),
    *("/v2/stocks/meta/conditions/*", "/v2/stocks/meta/exchanges"),
    *("/v2/stocks/*/auctions", "/v2/stocks/*/bars", "/v2/stocks/*/quotes", "/v2/stocks/*/trades"),
    *("/v2/stocks/*/bars/latest", "/v2/stocks/*/quotes/latest", "/v2/stocks/*/trades/latest", "/v2/stocks/*/snapshot"),
    *("/v1beta3/crypto/*/bars", "/v1beta3/crypto/*/quotes", "/v1beta3/crypto/*/trades", "/v1beta3/crypto/*/snapshots"),
    *("/v1beta3/crypto/*/latest/bars", "/v1beta3/crypto/*/latest/quotes", "/v1beta3/crypto/*/latest/trades"),
    "/v1beta3/crypto/*/latest/orderbooks",
    *("/v1beta1/crypto-perps/*/latest/bars", "/v1beta1/crypto-perps/*/latest/quotes"),
    *("/v1beta1/crypto-perps/*/latest/trades", "/v1beta1/crypto-perps/*/latest/orderbooks"),
    "/v1beta1/crypto-perps/*/latest/pricing",
    *("/v1beta1/options/bars", "/v1beta1/options/trades", "/v1beta1/options/trades/latest"),
    *("/v1beta1/options/quotes/latest", "/v1beta1/options/snapshots", "/v1beta1/options/snapshots/*"),
    *("/v1beta1/options/meta/conditions/*", "/v1beta1/options/meta/exchanges"),
    *("/v1beta1/fixed_income/latest/prices", "/v1beta1/fixed_income/latest/quotes"),
    *("/v1beta1/forex/latest/rates", "/v1beta1/forex/rates"),
    *("/v1beta1/indices/latest/values", "/v1beta1/indices/values"),
    *("/v1beta1/logos/*", "/v1beta1/news", "/v1beta1/screener/*/movers", "/v1beta1/screener/stocks/most-actives"),
    "/v1/corporate-actions",
)
"""Paths of the market data host, all of them to be read."""

_KEPT: Final[Mapping[str, tuple[str, float]]] = {
    "/v2/account": ("account", 5.0),
    "/v2/positions": ("positions", 3.0),
    "/v2/positions/*": ("positions", 3.0),
    "/v2/orders": ("orders", 0.0),
    "/v2/orders/*": ("orders", 0.0),
    "/v2/assets": ("assets", 3600.0),
    "/v2/assets/*": ("assets", 3600.0),
    "/v2/calendar": ("calendar", 3600.0),
}
"""Under which name, and for how many seconds unless the settings know better, an answer is kept."""

_CHANGES: Final[Mapping[str, tuple[str, ...]]] = {
    "/v2/account/configurations": ("account",),
    "/v2/positions/*/exercise": ORDERS_CHANGE,
    "/v2/positions/*/do-not-exercise": ORDERS_CHANGE,
}

_TAKES: Final[Mapping[tuple[str, str], tuple[str, ...]]] = {
    ("DELETE", "/v2/positions"): ("cancel_orders",),
    ("DELETE", "/v2/positions/*"): ("qty", "percentage"),
    ("POST", "/v2/watchlists:by_name"): ("name",),
    ("PUT", "/v2/watchlists:by_name"): ("name",),
    ("DELETE", "/v2/watchlists:by_name"): ("name",),
}
"""The parameters that a change looks at; any other takes none."""

_YES_OR_NO: Final = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}


class Route(NamedTuple):
    """A path of Alpaca's: the pattern in the list, the request's own form of it, and its host."""

    pattern: str
    path: str
    item: str
    host: Literal["trading", "data"]
    methods: tuple[str, ...]


class Forwarded(NamedTuple):
    """Alpaca's answer. ``fresh_s``: how much longer, in seconds, it counts as fresh here; ``None`` when nothing is kept."""

    response: Response
    fresh_s: float | None = None


def routes() -> Mapping[str, str]:
    """Return every path that is passed on, with ``*`` for one part, and its methods."""
    return {**_TRADING, **dict.fromkeys(_DATA, "GET")}


def find_route(raw_path: str) -> Route | None:
    """Return the entry that a percent-encoded path means, or ``None``: a client may only mean what is listed.

    Each part is decoded once and must then be plain: no dot parts, no separators, no second layer of encoding. The pair of a
    coin (``BTC/USD``) may be written with its slash, encoded or not; it is sent without.
    """
    if not raw_path.startswith("/") or not raw_path.isascii():
        return None
    parts = [unquote(part, errors="replace") for part in raw_path[1:].split("/")]
    found = _match(parts)
    if found is None and len(parts) > 3:
        # BTC/USD as two parts, where one is expected: in front of what follows it, or at the end.
        for place in range(2, len(parts) - 1):
            pair = "/".join(parts[place : place + 2])
            if _COIN.fullmatch(pair):
                found = found or _match([*parts[:place], pair, *parts[place + 2 :]])
    return found


def _match(parts: list[str]) -> Route | None:
    for number, patterns in _BY_LENGTH.get(len(parts), ()):
        if all(_fits(part, wanted) for part, wanted in zip(parts, patterns, strict=True)):
            pattern, methods = _ALL[number]
            items = [part.replace("/", "") for part, wanted in zip(parts, patterns, strict=True) if wanted == "*"]
            path = "".join("/" + _encoded(part, wanted) for part, wanted in zip(parts, patterns, strict=True))
            host: Literal["trading", "data"] = "trading" if pattern in _TRADING else "data"
            return Route(pattern, path, items[0] if items else "", host, tuple(methods.split()))
    return None


def _fits(part: str, wanted: str) -> bool:
    if wanted != "*":
        return part == wanted
    return _SEGMENT.fullmatch(part) is not None or _COIN.fullmatch(part) is not None


def _encoded(part: str, wanted: str) -> str:
    return wanted if wanted != "*" else quote(part.replace("/", ""), safe="")


_ALL: Final = tuple(routes().items())


def _by_length() -> dict[int, list[tuple[int, list[str]]]]:
    """Sort the list by the number of parts, plain names before what takes any: /v2/stocks/bars/latest is no symbol's."""
    found: dict[int, list[tuple[int, list[str]]]] = {}
    for number, (path, _) in enumerate(_ALL):
        patterns = path[1:].split("/")
        found.setdefault(len(patterns), []).append((number, patterns))
    for entries in found.values():
        entries.sort(key=lambda entry: entry[1].count("*"))
    return found


_BY_LENGTH: Final = _by_length()


def forward(pipeline: Pipeline, desk: Desk, route: Route, request: Request, *, use_cache: bool) -> Flow[Forwarded]:
    """Carry out one request of ``route`` as its method demands and return Alpaca's answer.

    Raises:
        UsageError: what should be an order is none; a change with a parameter or a body that it would not look at.
        AlpacliError: as the library's own calls; an ``AlpacaAPIError`` holds Alpaca's answer in ``body``.
    """
    request = request._replace(path=route.path, host=route.host)
    if request.method == "GET":
        return (yield from _read(pipeline, route, request, use_cache=use_cache))
    _look_at_all(route, request)
    if route.pattern.startswith(("/v2/orders", "/v2/positions")) and "exercise" not in route.pattern:
        return Forwarded((yield from _trade(desk, route, request)))
    if route.pattern == "/v2/positions/*/exercise":
        yield from desk.obey_halt("the exercise of an option")
    changes = _CHANGES.get(route.pattern, ("watchlists",))
    try:
        response = yield from pipeline.exchange(request, pipeline.patience(), urgent=changes is ORDERS_CHANGE)
    finally:
        yield from pipeline.tidy(lambda: pipeline.forget(changes))
    return Forwarded(_trimmed(response))


def kept_call(route: Route, request: Request) -> Call[bytes] | None:
    """Return how an answer is kept, as Alpaca sent it; ``None`` when it never is."""
    if route.pattern not in _KEPT:
        return None
    name, ttl_s = _KEPT[route.pattern]
    return Call(name, request, _whole, key_for(f"{name}:wire:{route.item}", request.query), ttl_s, encode=bytes)


def _read(pipeline: Pipeline, route: Route, request: Request, *, use_cache: bool) -> Flow[Forwarded]:
    call = kept_call(route, request)
    lifetime_s = 0.0 if call is None else pipeline.lifetime_s(call)
    if call is None or lifetime_s <= 0:
        return Forwarded(_trimmed((yield from pipeline.exchange(request, pipeline.patience(), urgent=False))))
    reading = yield from pipeline.read(call, use_cache=use_cache, max_age=None)
    fresh_s = max(lifetime_s - (reading.age_s or 0.0), 0.0) if use_cache else 0.0
    return Forwarded(Response(200, _JSON, reading.value), fresh_s)


def _look_at_all(route: Route, request: Request) -> None:
    """Refuse a change that says more than is looked at: with ``percent=50`` or ``qty=`` all of a position would be closed.

    A read may say what it likes: Alpaca adds parameters without notice, and a filter that it ignores costs nothing.
    """
    takes = _TAKES.get((request.method, route.pattern), ())
    hint = f"there is {' and '.join(takes)}" if takes else "this request takes none"
    seen: set[str] = set()
    for name, value in request.query:
        shown = repr(name[:40])
        if name not in takes:
            raise UsageError(f"there is no parameter {shown} here", hint)
        if name in seen:
            raise UsageError(f"parameter {shown} is there twice", "say it once")
        if not value.strip():
            raise UsageError(f"parameter {shown} is empty", "give it a value, or leave it out")
        seen.add(name)
    if request.method == "DELETE" and (request.body or b"").strip() not in (b"", b"{}", b"null"):
        raise UsageError("no body is read here", f"parameters are said in the URL: {hint}")


def _trade(desk: Desk, route: Route, request: Request) -> Flow[Response]:
    query = dict(request.query)
    match request.method, route.pattern:
        case "POST", "/v2/orders":
            return _ok((yield from desk.place_as_written(_fields(request.body))).wire)
        case "PATCH", "/v2/orders/*":
            return _ok((yield from desk.replace(route.item, _changes(request.body))).wire)
        case "DELETE", "/v2/orders":
            call = Call("orders", request, bytes, urgent=True, changes=ORDERS_CHANGE)
            return _ok((yield from desk.cancel_all_as(call)), 207)
        case "DELETE", "/v2/orders/*":
            yield from desk.cancel(route.item)
            return Response(204, {}, b"")
        case "DELETE", "/v2/positions":
            closings = yield from desk.close_all(cancel_orders=_flag(query, "cancel_orders"))
            return _ok(b"[" + b",".join(_closed(closing) for closing in closings) + b"]", 207)
        case "DELETE", "/v2/positions/*":
            qty, percent = _amount(query, "qty"), _amount(query, "percentage")
            try:
                return _ok((yield from desk.close(route.item, qty=qty, percent=percent)).wire)
            except NotFound as error:
                if error.body:
                    raise
                raise NotFound(
                    "position does not exist", status=404
                ) from None  # in Alpaca's words: programs look for them
    raise NotFound("endpoint not found.", status=404)


def _closed(closing: Closing) -> bytes:
    """Write one line of what Alpaca's own ``DELETE /v2/positions`` answers, with its own order in it."""
    body = closing.body
    no = {"code": body.get("code"), "message": body.get("message")} if isinstance(body, dict) else None
    text = body.wire if isinstance(body, Order) else to_json(no)
    return b'{"symbol":%b,"status":%d,"body":%b}' % (to_json(closing.symbol), closing.status, text)


def _ok(body: bytes, status: int = 200) -> Response:
    return Response(status, _JSON, body)


def _trimmed(response: Response) -> Response:
    """Keep the headers that mean something to a client of Alpaca's."""
    kept = {name: value for name, value in response.headers.items() if name in _PASSED_ON}
    return response._replace(headers=kept)


def _whole(body: bytes) -> bytes:
    """Take an answer as it is, when it looks like one: what is kept for others must not be a proxy's page."""
    ends = body.strip()[:1] + body.strip()[-1:]
    if ends not in (b"{}", b"[]"):
        raise UnreadableAnswer("the answer is not JSON", "a proxy or an outage may stand between: try again")
    return body


def _fields(body: bytes | None) -> dict[str, Any]:
    try:
        fields = from_json(body or b"", each_once=True)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise UsageError("request body format is invalid", "send a JSON object, each field once")
    return cast("dict[str, Any]", fields)


def _changes(body: bytes | None) -> dict[str, Any]:
    """Read what is to be changed; the numbers must be some, since the user's own rules may ask for them."""
    changes = {name: value for name, value in _fields(body).items() if value is not None}
    for name in ("qty", "limit_price", "stop_price", "trail"):
        if name in changes:
            _number(name, changes[name])
    return changes


def _amount(query: Mapping[str, str], name: str) -> Decimal | None:
    text = query.get(name)
    return None if text is None else _number(name, text)


def _flag(query: Mapping[str, str], name: str) -> bool:
    text = query.get(name, "false")
    flag = _YES_OR_NO.get(text.lower())
    if flag is None:
        raise UsageError(f"{name} is {text[:40]!r}", "it is true or false")
    return flag


def _number(name: str, value: object) -> Decimal:
    try:
        return exact(value)
    except ValueError:
        raise UsageError(f"{name} is {str(value)[:40]!r}", "give a number") from None
