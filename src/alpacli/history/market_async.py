"""Market history for event loops: the same reader, a batch at a time in a thread, its requests on the loop.

A module of its own, because asyncio costs a command that does not need it 12 ms.
"""

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Concatenate, ParamSpec

from alpacli.domain.batches import AsyncBatches, Batch, Batches
from alpacli.history.chains import Read
from alpacli.history.market import MarketData
from alpacli.wire.rest import Call

P = ParamSpec("P")


def _awaited(
    method: Callable[Concatenate[MarketData, P], Batches],
) -> Callable[Concatenate["AsyncMarketData", P], Awaitable[AsyncBatches]]:
    @functools.wraps(method)
    async def plan(self: "AsyncMarketData", /, *args: P.args, **options: P.kwargs) -> AsyncBatches:
        return await self._plan(lambda data: method(data, *args, **options))

    plan.__annotations__ = {**method.__annotations__, "return": AsyncBatches}
    plan.__signature__ = inspect.signature(method).replace(return_annotation=AsyncBatches)  # type: ignore[attr-defined] # mypy does not know it of functions
    return plan


class AsyncMarketData:
    """``MarketData`` for an event loop: the same methods, awaited, and ``async for`` over what they return."""

    def __init__(self, make: Callable[[Read], MarketData], read: Callable[[Call[Any]], Awaitable[Any]]) -> None:
        self._make = make
        self._read = read

    def _open(self) -> MarketData:
        loop = asyncio.get_running_loop()

        def read(call: Call[Any]) -> Any:
            async def ask() -> Any:
                return await self._read(call._replace(decode=bytes))  # as it came: a page takes too long for the loop

            return call.decode(asyncio.run_coroutine_threadsafe(ask(), loop).result())

        return self._make(read)

    bars = _awaited(MarketData.bars)
    trades = _awaited(MarketData.trades)
    quotes = _awaited(MarketData.quotes)

    async def _plan(self, plan: Callable[[MarketData], Batches]) -> AsyncBatches:
        data = self._open()
        batches = await asyncio.to_thread(plan, data)

        async def give() -> AsyncIterator[Batch]:
            rows = iter(batches)
            try:
                while (batch := await asyncio.to_thread(next, rows, None)) is not None:
                    yield batch
            finally:
                close: Any = getattr(rows, "close", None)
                if close is not None:
                    await asyncio.to_thread(close)

        return AsyncBatches(batches.kind, give, batches.notes)
