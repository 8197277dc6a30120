"""How the steps of a flow are carried out: by blocking calls, or in an event loop.

A client is one of these drivers and a typed line per endpoint. Those lines are written once, for event loops; the blocking
client is made from them (docs/adr/0022).
"""

import functools
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Final, ParamSpec, Protocol, Self, TypeVar

import alpacli
from alpacli.broker.flow import Do, Flow, Pause, Pipeline, Send, Step, T, Work
from alpacli.broker.functions import CachedFunction
from alpacli.errors import ConfigError, UsageError
from alpacli.ports import CacheStats, Clock, LimitsReport, Request, Response, Transport, async_sleep
from alpacli.wire.rest import Call

P = ParamSpec("P")
R = TypeVar("R")

CACHED: Final = ("account", "positions", "orders")
"""What ``invalidate_cache`` and ``alpacli cache clear`` can name."""

_READS: Final = 64
_ORDERS: Final = 32
_STEPS: Final = 8
"""Threads of an async client at most: for requests that only read, for orders, and for the store."""

OnWait = Callable[[float, str], None]
"""Told before every pause: its length in seconds and its reason."""

OpenMarketData = Callable[[Callable[[Call[Any]], Any], Callable[[], None]], Any]
"""Makes what reads market history, given what carries out one call and what raises once the client is closed."""


class Run(Protocol):
    """Carries out the steps of a flow, and returns what it comes to."""

    def __call__(self, flow: Flow[T], /) -> T: ...


class AsyncRun(Protocol):
    """``Run``, awaited."""

    async def __call__(self, flow: Flow[T], /) -> T: ...


def _check_cached(names: Sequence[str]) -> None:
    unknown = [name for name in names if name not in CACHED]
    if unknown:
        raise UsageError(f"nothing called {unknown[0]!r} is cached", f"choose among {', '.join(CACHED)}")


class _Parts:
    """What both drivers hold: the pipeline, the transport, and the answers that need neither."""

    def __init__(
        self,
        pipeline: Pipeline,
        transport: Transport,
        *,
        connect_timeout_s: float = 5.0,
        read_timeout_s: float = 10.0,
        on_wait: OnWait | None = None,
        open_desk: "Callable[[], alpacli.Desk] | None" = None,
        open_market_data: OpenMarketData | None = None,
    ) -> None:
        """Take the parts; ``runtime.connect`` puts them together for the usual case.

        ``open_desk`` makes what orders need, once one is placed; without it the client only reads.
        """
        self._pipeline = pipeline
        self._transport = transport
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._on_wait = on_wait
        self._open_desk = open_desk
        self._open_market_data = open_market_data
        self._closed = False

    def _must_be_open(self) -> None:
        """Raise ``UsageError`` once the client is closed: an answer from the cache would hide the mistake until it is old.

        A call that another thread is in at that moment ends as it would have. Properties do not ask: debuggers read them.
        """
        if self._closed:
            raise UsageError("the client is closed", "use it while its `with` block lasts, or make another one")

    def cached(self, ttl: float, *, key: str | None = None) -> Callable[[Callable[P, R]], CachedFunction[P, R]]:
        """Return a decorator that keeps a function's results for ``ttl`` seconds, for every process of this account.

        One entry per combination of arguments. Results belong to the function: to its module, or of a script to its file, its
        name, its code and its decorators', and the values of the function around it. ``key`` names them instead: for results
        that several functions or versions share, or that are of a function made with what nothing tells apart. They come back
        as the type that the return is annotated with; without one numbers with a fraction are ``Decimal``. Plain and
        ``async`` functions both work, any number of callers at once run the function once, and one that raises keeps nothing.
        ``wrapped.invalidate()`` forgets all its results.

        Raises:
            UsageError: a lifetime below 0, or what nothing tells apart without a ``key``; from the call, when arguments or
                result have no JSON form, the result is not what the annotation says, or the client is closed.
        """
        return self._pipeline.functions.cached(ttl, key=key, begin=self._must_be_open)

    def _send(self, request: Request) -> Response:
        return self._transport.send(
            request, connect_timeout_s=self._connect_timeout_s, read_timeout_s=self._read_timeout_s
        )

    def _announce(self, pause: Pause) -> None:
        if self._on_wait is not None:
            self._on_wait(pause.seconds, pause.reason)

    @functools.cached_property
    def desk(self) -> "alpacli.Desk":
        """What orders go through: their checks, the journal, the rules.

        Raises:
            ConfigError: the client was made to read only.
        """
        if self._open_desk is None:
            raise ConfigError("this client only reads", "`connect()` makes one that trades")
        return self._open_desk()

    def _make_market_data(self, fetch: Callable[[Call[Any]], Any]) -> Any:
        if self._open_market_data is None:
            raise ConfigError("this client was made without market history", "`connect()` makes one that has it")
        return self._open_market_data(fetch, self._must_be_open)

    def _drop(self, names: tuple[str, ...]) -> Flow[int]:
        _check_cached(names)
        scope, store = self._pipeline.rules.scope, self._pipeline.store
        keys = [f"{scope}:{name}" for name in names] or [scope]
        dropped: int = yield Do(lambda: sum(map(store.drop, keys)))
        return dropped

    def cache_stats(self, name: str | None = None) -> CacheStats:
        """Count this account's cache: hits, misses, entries, bytes, ages in seconds; of one name, or of all."""
        self._must_be_open()
        _check_cached((name,) if name else ())
        scope = self._pipeline.rules.scope
        return self._pipeline.store.cache_stats(f"{scope}:{name}" if name else scope)

    def lifetime_s(self, call: Call[Any]) -> float:
        """Return for how long an answer to this call is kept, in seconds."""
        self._must_be_open()
        return self._pipeline.lifetime_s(call)

    @property
    def store_kind(self) -> str:
        """Return what keeps cache and budget just now: ``redis``, ``sqlite`` or ``memory``."""
        return self._pipeline.store.kind

    def limits(self) -> LimitsReport:
        """Tell how much of the request budget that all processes share is used, and who waits. Sends nothing."""
        self._must_be_open()
        return self._pipeline.store.limits(self._pipeline.rules)


class Driver(_Parts):
    """Carries steps out where it is called, one after the other."""

    def __init__(self, pipeline: Pipeline, transport: Transport, *, clock: Clock, **options: Any) -> None:
        super().__init__(pipeline, transport, **options)
        self._clock = clock

    def __enter__(self) -> Self:
        self._must_be_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections, once; every other method raises ``UsageError`` from then on.

        Cached data and budget stay: they belong to all processes.
        """
        if self._closed:
            return
        self._closed = True
        self._transport.close()
        self._pipeline.store.close()

    def _carry_out(self, step: Step, *, urgent: bool) -> Any:  # one at a time: nothing is ahead of anything
        if isinstance(step, Send):
            return self._send(step.request)
        if isinstance(step, Do):
            return step.run()
        self._announce(step)
        return self._clock.sleep(step.seconds)


class AsyncDriver(_Parts):
    """Carries steps out for an event loop: transport and store in threads, since alpaca-py's HTTP is blocking.

    Orders and what belongs to them have threads to themselves, and so has the store: an order does not wait for reads that
    hang, nor does an answer that is kept. Threads are started when they are needed and belong to no loop.

    asyncio costs a command that does not need it 12 ms, so it is imported where an event loop runs already.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        transport: Transport,
        *,
        sleep: Callable[[float], Awaitable[None]] = async_sleep,
        **options: Any,
    ) -> None:
        from alpacli.threads import Threads

        super().__init__(pipeline, transport, **options)
        self._sleep = sleep
        self._reads, self._orders = Threads(_READS, "reads"), Threads(_ORDERS, "orders")
        self._steps = Threads(_STEPS, "store")

    async def __aenter__(self) -> Self:
        self._must_be_open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections, once; every other method raises ``UsageError`` from then on.

        Cached data and budget stay: they belong to all processes.
        """
        if self._closed:
            return
        self._closed = True
        self._transport.close()
        await self._orders.done(self._pipeline.store.close)
        for threads in (self._reads, self._orders, self._steps):
            threads.close()  # one whose request was given up ends with it, and nobody waits for that

    async def _carry_out(self, step: Step, *, urgent: bool) -> Any:
        if isinstance(step, Send):
            return await (self._orders if urgent else self._reads).done(lambda: self._send(step.request))
        if isinstance(step, Work):
            return await (self._orders if urgent else self._reads).done(step.run)
        if isinstance(step, Do):
            return await (self._orders if urgent else self._steps).to_the_end(step.run)
        self._announce(step)
        return await self._sleep(step.seconds)
