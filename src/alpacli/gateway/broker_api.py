"""The gateway's own API, ``/api/v1/broker/…``: the client library's calls in envelopes, one line each.

Bodies are canonical JSON: FastAPI describes them, but never writes a number.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Final, Generic, Literal, TypeVar

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict

from alpacli.broker.outcomes import Closing, HaltState, Preview, halt_state
from alpacli.domain.account import Account, Activity, PortfolioHistory, Position
from alpacli.domain.market import MarketClock
from alpacli.domain.orders import Order
from alpacli.domain.tickets import amount, read_ticket
from alpacli.domain.values import Model, epoch_ns, from_json
from alpacli.errors import UsageError
from alpacli.gateway.answers import Answer, answer, enveloped, respond, success
from alpacli.gateway.door import may
from alpacli.gateway.parts import Parts
from alpacli.history import records
from alpacli.history.archive import Archive
from alpacli.history.records import SnapshotLine, Wanted
from alpacli.runtime import open_archive, whoami
from alpacli.store.halt import Halt
from alpacli.wire import rest
from alpacli.wire.rest import Call
from alpacli.wire.trading import Cancellation

PREFIX: Final = "/api/v1/broker"
T = TypeVar("T")


class Envelope(BaseModel, Generic[T]):
    """Every answer that is not an error; ``count`` is of rows, ``filter`` what the client chose."""

    model_config = ConfigDict(title="Envelope")

    success: Literal[True]
    data: T
    count: int
    filter: dict[str, Any]


class Failure(BaseModel):
    """What went wrong, and what to do; ``status`` is the HTTP status, ``retry_after`` in seconds."""

    type: str
    message: str
    hint: str
    status: int
    code: int | None = None
    request_id: str | None = None
    retry_after: float | None = None
    details: dict[str, Any] | None = None


class ErrorEnvelope(BaseModel):
    success: Literal[False]
    error: Failure


class Forgotten(Model):
    forgotten: int


class LimitsState(Model):
    """The request budget that everybody shares: counts of requests, seconds, breakers closed, open or half-open.

    Each host, ``trading`` and ``data``, has a circuit breaker; ``breaker`` is the one that is furthest from closed.
    """

    limit: int
    reserve: int
    used: int
    foreign: int
    left: int
    waiting: int
    breaker: str
    breakers: dict[str, str]


class CacheState(Model):
    """What the shared cache did for this account."""

    hits: int
    misses: int
    entries: int


Rows = Annotated[int, Query(ge=1, le=10_000)]
UseCache = Annotated[bool, Query(description="Take an answer that is a few seconds old.")]
_ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    401: {"model": ErrorEnvelope, "description": "No token, or one that is not valid (any more)"},
    403: {"model": ErrorEnvelope, "description": "The token does not reach this far, or a rule says no"},
    404: {"model": ErrorEnvelope, "description": "There is no such thing"},
    409: {"model": ErrorEnvelope, "description": "The order was sent, and its fate is unknown: look its ID up"},
    422: {"model": ErrorEnvelope, "description": "The request makes no sense, or Alpaca refused it"},
    429: {"model": ErrorEnvelope, "description": "The shared budget, or the token's own, is spent: see Retry-After"},
    502: {"model": ErrorEnvelope, "description": "Alpaca gave no usable answer"},
    503: {"model": ErrorEnvelope, "description": "Alpaca failed several times, so it is not asked: see Retry-After"},
    504: {"model": ErrorEnvelope, "description": "Alpaca did not answer in time"},
}
_OBJECT_BODY: Final = {
    "requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}, "required": True}
}

_LONGEST_REASON: Final = 200
_REASON_BODY: Final = {
    "requestBody": {
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {"reason": {"type": "string", "maxLength": _LONGEST_REASON}},
                    "additionalProperties": False,
                }
            }
        },
        "required": False,
    }
}


async def read_in_full(request: Request) -> None:
    """Refuse what nothing would look at: without a misspelt ``percentage`` all of a position would be closed.

    A read without its misspelt ``symbols`` would tell of everything. Alpaca's own paths: ``broker.forward``.
    """
    route = request.scope["route"]
    known = [parameter.alias for parameter in route.dependant.query_params]
    unknown = sorted(request.query_params.keys() - set(known))
    if unknown:
        hint = f"there is {', '.join(known)}" if known else "there is none"
        raise UsageError(f"there is no parameter {unknown[0][:40]!r} here", hint)
    said = [name for name, _ in request.query_params.multi_items()]
    if len(said) > len(set(said)):
        twice = next(name for name in said if said.count(name) > 1)
        raise UsageError(f"parameter {twice!r} is there twice", "say it once; a list has commas between its items")
    if route.openapi_extra is None and (await request.body()).strip() not in (b"", b"{}"):
        raise UsageError("no body is read here", "what can be said is said in the URL: see /docs")


def router(parts: Parts) -> APIRouter:
    routes = APIRouter(prefix=PREFIX, responses=_ERRORS, dependencies=[Depends(HTTPBearer(auto_error=False))])
    _reads(routes, parts)
    _trades(routes, parts)
    _kept(routes, parts)
    _service(routes, parts)
    return routes


def _reads(routes: APIRouter, parts: Parts) -> None:
    reader = [Depends(may(parts, "read")), Depends(read_in_full)]
    client, clock = parts.client, parts.clock

    async def read(request: Request, call: Call[Any], asked: Mapping[str, object], *, use_cache: bool) -> Response:
        """Answer from the cache, with how long that stays fresh; what is asked often is remembered."""

        async def fetch() -> Answer:
            reading = await client.read(call, use_cache=use_cache)
            count = len(reading.value) if isinstance(reading.value, list) else 1
            fresh_s = max(client.lifetime_s(call) - (reading.age_s or 0.0), 0.0) if use_cache else 0.0
            return answer(enveloped(reading.json, count, asked), clock.monotonic() + fresh_s)

        if not use_cache or client.lifetime_s(call) <= 0:
            return respond(request, await fetch(), clock.monotonic())
        key = (request.url.path, request.scope["query_string"])
        return respond(request, await parts.remembered.answer(key, fetch), clock.monotonic())

    @routes.get("/account", response_model=Envelope[Account], dependencies=reader, tags=["account"])
    async def account(request: Request, *, use_cache: UseCache = True) -> Response:
        """Balances, buying power and the account's flags."""
        return await read(request, rest.account(), {}, use_cache=use_cache)

    @routes.get("/positions", response_model=Envelope[list[Position]], dependencies=reader, tags=["account"])
    async def positions(request: Request, *, use_cache: UseCache = True) -> Response:
        """Every open position; short quantities are negative."""
        return await read(request, rest.positions(), {}, use_cache=use_cache)

    @routes.get("/positions/{symbol:path}", response_model=Envelope[Position], dependencies=reader, tags=["account"])
    async def position(request: Request, symbol: str, *, use_cache: UseCache = True) -> Response:
        """One open position, by symbol or asset id."""
        return await read(request, rest.position(symbol), {"symbol": symbol}, use_cache=use_cache)

    @routes.get("/orders", response_model=Envelope[list[Order]], dependencies=reader, tags=["orders"])
    async def orders(
        request: Request,
        *,
        status: Literal["open", "closed", "all"] = "open",
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        symbols: Annotated[str | None, Query(description="Comma between symbols.")] = None,
        side: Literal["buy", "sell"] | None = None,
        after: datetime | None = None,
        until: datetime | None = None,
        nested: bool = False,
        use_cache: UseCache = False,
    ) -> Response:
        """Orders by the time they were submitted, newest first."""
        call = rest.orders(
            status=status,
            limit=limit,
            symbols=symbols.split(",") if symbols else (),
            side=side,
            after=after,
            until=until,
            nested=nested,
        )
        chosen = {"symbols": symbols, "side": side, "after": after, "until": until}
        asked = {"status": status, "limit": limit, **{name: value for name, value in chosen.items() if value}}
        return await read(request, call, asked, use_cache=use_cache)

    @routes.get("/orders/{order_id}", response_model=Envelope[Order], dependencies=reader, tags=["orders"])
    async def order(request: Request, order_id: str, *, nested: bool = False, use_cache: UseCache = False) -> Response:
        """One order, with its legs when ``nested``."""
        return await read(request, rest.order(order_id, nested=nested), {"order_id": order_id}, use_cache=use_cache)

    @routes.get("/clock", response_model=Envelope[MarketClock], dependencies=reader, tags=["account"])
    async def market_clock(request: Request) -> Response:
        """Whether the market is open, and when that changes."""
        return await read(request, rest.clock(), {}, use_cache=False)

    @routes.get("/history/portfolio", response_model=Envelope[PortfolioHistory], dependencies=reader, tags=["history"])
    async def portfolio(request: Request, *, period: str | None = None, timeframe: str | None = None) -> Response:
        """The equity curve as Alpaca keeps it; ``period`` like 1D, 2W, 3M, 1A, ``timeframe`` like 5Min, 1D."""
        call = rest.portfolio_history(period=period, timeframe=timeframe)
        asked = {name: value for name, value in (("period", period), ("timeframe", timeframe)) if value}
        return await read(request, call, asked, use_cache=False)

    @routes.get("/history/activities", response_model=Envelope[list[Activity]], dependencies=reader, tags=["history"])
    async def activities(
        request: Request,
        *,
        types: Annotated[str | None, Query(description="Like FILL,DIV.")] = None,
        day: date | None = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
    ) -> Response:
        """Fills, dividends, fees and transfers, newest first."""
        call = rest.activities(activity_types=types.split(",") if types else (), day=day, limit=limit)
        asked = {"limit": limit, **{name: value for name, value in (("types", types), ("day", day)) if value}}
        return await read(request, call, asked, use_cache=False)


def _kept(routes: APIRouter, parts: Parts) -> None:
    """Add what `alpacli history` keeps on this machine; nothing is asked of Alpaca."""
    reader = [Depends(may(parts, "read")), Depends(read_in_full)]

    async def rows(
        find: Callable[[Archive, Wanted], Iterable[Model]], asked: dict[str, Any], wanted: Wanted
    ) -> Response:
        def work() -> list[Model]:
            with open_archive(parts.settings) as archive:
                return list(find(archive, wanted))

        return success(await asyncio.to_thread(work), {name: value for name, value in asked.items() if value})

    def wanted(since: datetime | None, until: datetime | None, symbols: str | None, limit: int) -> Wanted:
        named = [name for name in (symbols or "").split(",") if name.strip()]
        return Wanted(
            _ns("since", since, records.FIRST_NS),
            _ns("until", until, records.LAST_NS),
            named,
            most=limit,
            descending=True,
        )

    @routes.get("/history/orders", response_model=Envelope[list[Order]], dependencies=reader, tags=["history"])
    async def kept_orders(
        *, since: datetime | None = None, until: datetime | None = None, symbols: str | None = None, limit: Rows = 100
    ) -> Response:
        """Orders that `alpacli history sync` brought in, newest first."""
        asked = {"since": since, "until": until, "symbols": symbols, "limit": limit}
        return await rows(records.orders, asked, wanted(since, until, symbols, limit))

    @routes.get("/history/fills", response_model=Envelope[list[Activity]], dependencies=reader, tags=["history"])
    async def kept_fills(
        *, since: datetime | None = None, until: datetime | None = None, symbols: str | None = None, limit: Rows = 100
    ) -> Response:
        """Fills that `alpacli history sync` brought in, newest first."""
        asked = {"since": since, "until": until, "symbols": symbols, "limit": limit}
        found = wanted(since, until, symbols, limit)._replace(kinds=["FILL"])
        return await rows(records.activities, asked, found)

    @routes.get(
        "/history/snapshots", response_model=Envelope[list[SnapshotLine]], dependencies=reader, tags=["history"]
    )
    async def kept_snapshots(
        *, since: datetime | None = None, until: datetime | None = None, limit: Rows = 100
    ) -> Response:
        """The record of snapshots, newest first."""
        asked = {"since": since, "until": until, "limit": limit}
        return await rows(records.snapshots, asked, wanted(since, until, None, limit))


def _ns(name: str, at: datetime | None, otherwise: int) -> int:
    if at is None:
        return otherwise
    if at.tzinfo is None:
        raise UsageError(f"{name} is a time without a zone", "end it with Z or an offset")
    return min(max(epoch_ns(at), records.FIRST_NS), records.LAST_NS)


def _trades(routes: APIRouter, parts: Parts) -> None:
    trader = [Depends(may(parts, "trade")), Depends(read_in_full)]
    client = parts.client

    async def done(work: Awaitable[T]) -> T:
        """Wait for a change and forget what was remembered, however it ended."""
        try:
            return await work
        finally:
            parts.remembered.forget()

    @routes.post("/orders", response_model=Envelope[Order | Preview], dependencies=trader, tags=["orders"],
                 openapi_extra=_OBJECT_BODY)  # fmt: skip
    async def place(request: Request, *, dry_run: bool = False) -> Response:
        """Place an order: Alpaca's fields, flat or nested; what is absent follows from what is there.

        It is checked, recorded and sent exactly once; ``client_order_id`` is made when it is not given. ``dry_run`` sends
        nothing and tells what it would cost.
        """
        ticket = read_ticket(await _fields(request))
        if dry_run:
            return success(await client.trading.preview(ticket, parts.settings.base_url))
        return success(await done(client.trading.place(ticket)))

    @routes.patch("/orders/{order_id}", response_model=Envelope[Order], dependencies=trader, tags=["orders"],
                  openapi_extra=_OBJECT_BODY)  # fmt: skip
    async def replace(request: Request, order_id: str) -> Response:
        """Change an open order: qty, limit_price, stop_price, trail, time_in_force; the answer is the new one."""
        return success(await done(client.trading.replace(order_id, await _fields(request))), {"order_id": order_id})

    @routes.delete("/orders/{order_id}", response_model=Envelope[None], dependencies=trader, tags=["orders"])
    async def cancel(order_id: str) -> Response:
        """Ask for the cancellation of one order; it may still fill before that is done."""
        await done(client.trading.cancel(order_id))
        return success(None, {"order_id": order_id})

    @routes.delete("/orders", response_model=Envelope[list[Cancellation]], dependencies=trader, tags=["orders"])
    async def cancel_all() -> Response:
        """Ask for the cancellation of every open order."""
        return success(await done(client.trading.cancel_all()))

    @routes.delete("/positions/{symbol:path}", response_model=Envelope[Order], dependencies=trader, tags=["orders"])
    async def close(symbol: str, *, qty: str | None = None, percentage: str | None = None) -> Response:
        """Close a position, or ``qty`` or ``percentage`` of it, with a market order that cannot be sent twice."""
        size, share = _maybe_amount("qty", qty), _maybe_amount("percentage", percentage)
        chosen = {"symbol": symbol, "qty": size, "percentage": share}
        asked = {name: value for name, value in chosen.items() if value is not None}
        return success(await done(client.trading.close(symbol, qty=size, percent=share)), asked)

    @routes.delete("/positions", response_model=Envelope[list[Closing]], dependencies=trader, tags=["orders"])
    async def close_all(*, cancel_orders: bool = False) -> Response:
        """Close every position; ``cancel_orders`` first cancels what holds the shares."""
        return success(await done(client.trading.close_all(cancel_orders=cancel_orders)))


def _service(routes: APIRouter, parts: Parts) -> None:
    reader = [Depends(may(parts, "read")), Depends(read_in_full)]
    trader = [Depends(may(parts, "trade")), Depends(read_in_full)]
    client, halt = parts.client, parts.halt

    @routes.post("/cache/invalidate", response_model=Envelope[Forgotten], dependencies=reader, tags=["service"])
    async def invalidate(
        *, names: Annotated[str | None, Query(description="account, positions, orders; without it everything.")] = None
    ) -> Response:
        """Forget cached answers, here and for everybody who shares the cache."""
        chosen = names.split(",") if names else []
        gone = await client.invalidate_cache(*chosen)
        parts.remembered.forget()
        return success(Forgotten(forgotten=gone), {"names": chosen} if chosen else {})

    @routes.get("/cache/stats", response_model=Envelope[CacheState], dependencies=reader, tags=["service"])
    async def cache_stats() -> Response:
        """How often the shared cache had an answer. Sends nothing."""
        stats = await asyncio.to_thread(client.cache_stats)
        return success(CacheState(hits=stats.hits, misses=stats.misses, entries=stats.entries))

    @routes.get("/limits", response_model=Envelope[LimitsState], dependencies=reader, tags=["service"])
    async def limits() -> Response:
        """The request budget that everybody shares. Sends nothing."""
        state = await asyncio.to_thread(client.limits)
        counts = {name: getattr(state, name) for name in ("limit", "reserve", "used", "foreign", "left")}
        breakers = {one.host: one.state for one in state.breakers}
        return success(LimitsState(**counts, waiting=len(state.waiting), breaker=state.breaker, breakers=breakers))

    @routes.get("/halt", response_model=Envelope[HaltState], dependencies=reader, tags=["service"])
    async def halted() -> Response:
        """Whether trading is halted."""
        return success(halt_state(await asyncio.to_thread(halt.state)))

    @routes.post("/halt", response_model=Envelope[HaltState], dependencies=trader, tags=["service"],
                 openapi_extra=_REASON_BODY)  # fmt: skip
    async def set_halt(
        request: Request, *, reason: Annotated[str | None, Query(max_length=_LONGEST_REASON)] = None
    ) -> Response:
        """Refuse new risk from now on, everywhere; cancels and closes pass. The reason is a parameter, or in a JSON body."""
        told = _reason(await _fields(request) if await request.body() else {}, reason)
        who = whoami("gateway")
        state = Halt(parts.clock.time(), told, f"{who.user}@{who.host}")
        holds = await asyncio.to_thread(halt.set, state)
        await asyncio.to_thread(client.desk.note_halt, "halt", told)
        return success(halt_state(holds))

    @routes.delete("/halt", response_model=Envelope[HaltState], dependencies=trader, tags=["service"])
    async def end_halt() -> Response:
        """Let orders through again."""
        before = await asyncio.to_thread(halt.state)
        if before is not None:
            await asyncio.to_thread(halt.clear)
            await asyncio.to_thread(client.desk.note_halt, "resume", before.reason)
        return success(halt_state(None))


async def _fields(request: Request) -> dict[str, Any]:
    """Read a body without losing a digit."""
    try:
        fields = from_json(await request.body(), each_once=True)
    except ValueError as error:
        raise UsageError(f"the body is not JSON: {str(error)[:80]}", "send a JSON object") from None
    if not isinstance(fields, dict):
        raise UsageError("the body is no object", "send a JSON object")
    return fields


def _reason(fields: Mapping[str, Any], parameter: str | None) -> str:
    unknown = sorted(fields.keys() - {"reason"})
    if unknown:
        raise UsageError(f"a halt has no {unknown[0][:40]!r}", 'send {"reason": "…"}, or no body')
    reason = fields.get("reason", parameter or "")
    if not isinstance(reason, str) or len(reason) > _LONGEST_REASON:
        raise UsageError("the reason is no short text", f"give a string of up to {_LONGEST_REASON} characters")
    if fields and parameter is not None:
        raise UsageError("the reason is given twice", "give it in the body or as a parameter")
    return reason


def _maybe_amount(name: str, text: str | None) -> Decimal | None:
    return None if text is None else amount(name, text)
