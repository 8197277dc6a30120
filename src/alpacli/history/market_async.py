"""Market history for event loops: the same reader, a batch at a time in a thread, its requests on the loop.

A reader that is cancelled takes its requests with it, also those that wait for the budget, and what has come is kept.
A module of its own, because asyncio costs a command that does not need it 12 ms.
"""

import asyncio
import functools
import inspect
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import CancelledError, Future
from contextvars import ContextVar
from typing import Any, Concatenate, ParamSpec, TypeVar

from alpacli.domain.batches import AsyncBatches, Batch, Batches
from alpacli.history.chains import Read
from alpacli.history.market import MarketData
from alpacli.threads import Threads
from alpacli.wire.rest import Call

P = ParamSpec("P")
T = TypeVar("T")


def _awaited(
    method: Callable[Concatenate[MarketData, P], Batches],
) -> Callable[Concatenate["AsyncMarketData", P], Awaitable[AsyncBatches]]:
    @functools.wraps(method)
    async def plan(self: "AsyncMarketData", /, *args: P.args, **options: P.kwargs) -> AsyncBatches:
        return await self._plan(lambda data: method(data, *args, **options))

    plan.__annotations__ = {**method.__annotations__, "return": AsyncBatches}
    plan.__signature__ = inspect.signature(method).replace(return_annotation=AsyncBatches)  # type: ignore[attr-defined] # mypy does not know it of functions
    return plan


class _Reader:
    """One reader's work: done in a thread of its own, its requests on the loop; both are given up with the reader."""

    def __init__(self, read: Callable[[Call[Any]], Awaitable[Any]]) -> None:
        self._read = read
        self._loop = asyncio.get_running_loop()
        self._thread = Threads(1, "history")
        self._changing = threading.Lock()
        self._under_way: set[Future[bytes]] = set()
        self._given_up = False

    async def do(self, work: Callable[[], T]) -> T:
        """Do the next piece of the work, in the thread, after the one before it."""
        return await self._thread.done(lambda: self._run(work))

    async def end(self, work: Callable[[], None]) -> None:
        """Do the last piece, as soon as the one before it has ended without what it waits for."""
        with self._changing:
            self._given_up = True
            under_way = list(self._under_way)
        for future in under_way:
            future.cancel()
        self._thread.close()  # it does what comes later, and ends
        await self._thread.to_the_end(lambda: self._run(work))

    def _run(self, work: Callable[[], T]) -> T:
        _reader.set(self)  # in the thread's copy of the context, which the download's threads have from it
        return work()

    def ask(self, call: Call[Any]) -> Any:
        """Carry out one request from a thread of the reader's; raises ``CancelledError`` when the reader has gone."""

        async def ask() -> Any:
            return await self._read(call._replace(decode=bytes))  # as it came: a page takes too long for the loop

        with self._changing:
            if self._given_up:
                raise CancelledError
            future = asyncio.run_coroutine_threadsafe(ask(), self._loop)
            self._under_way.add(future)
        try:
            return call.decode(future.result())
        finally:
            with self._changing:
                self._under_way.discard(future)


_reader: ContextVar[_Reader] = ContextVar("_reader")


class AsyncMarketData:
    """``MarketData`` for an event loop: the same methods, awaited, and ``async for`` over what they return."""

    def __init__(self, make: Callable[[Read], MarketData], read: Callable[[Call[Any]], Awaitable[Any]]) -> None:
        self._data = make(lambda call: _reader.get().ask(call))
        self._read = read

    bars = _awaited(MarketData.bars)
    trades = _awaited(MarketData.trades)
    quotes = _awaited(MarketData.quotes)

    async def _plan(self, plan: Callable[[MarketData], Batches]) -> AsyncBatches:
        planning = _Reader(self._read)
        try:
            batches = await planning.do(lambda: plan(self._data))
        finally:
            await planning.end(lambda: None)

        async def give() -> AsyncIterator[Batch]:
            reading = _Reader(self._read)
            rows = iter(batches)
            try:
                while (batch := await reading.do(lambda: next(rows, None))) is not None:
                    yield batch
            finally:
                await reading.end(getattr(rows, "close", lambda: None))

        return AsyncBatches(batches.kind, give, batches.notes)
