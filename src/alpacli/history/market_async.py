"""Market history for event loops: the same reader, a batch at a time in a thread, its requests on the loop.

A module of its own, because asyncio costs a command that does not need it 12 ms.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from alpacli.domain.batches import AsyncBatches, Batch, Batches, Names, When
from alpacli.history.chains import Read
from alpacli.history.market import MarketData
from alpacli.wire.rest import Call


class AsyncMarketData:
    """``MarketData`` for an event loop: the same methods, awaited, and ``async for`` over what they return."""

    def __init__(self, make: Callable[[Read], MarketData], read: Callable[[Call[Any]], Awaitable[Any]]) -> None:
        self._make = make
        self._read = read

    def _open(self) -> MarketData:
        loop = asyncio.get_running_loop()

        def read(call: Call[Any]) -> Any:
            async def ask() -> Any:
                return await self._read(call)

            return asyncio.run_coroutine_threadsafe(ask(), loop).result()

        return self._make(read)

    async def bars(
        self,
        symbols: Names,
        *,
        start: When = None,
        end: When = None,
        timeframe: str = "1Min",
        feed: str | None = None,
        adjustment: str = "raw",
        limit: int | None = None,
    ) -> AsyncBatches:
        """See ``MarketData.bars``."""
        return await self._plan(
            lambda data: data.bars(
                symbols, start=start, end=end, timeframe=timeframe, feed=feed, adjustment=adjustment, limit=limit
            )
        )

    async def trades(
        self, symbols: Names, *, start: When = None, end: When = None, feed: str | None = None, limit: int | None = None
    ) -> AsyncBatches:
        """See ``MarketData.trades``."""
        return await self._plan(lambda data: data.trades(symbols, start=start, end=end, feed=feed, limit=limit))

    async def quotes(
        self, symbols: Names, *, start: When = None, end: When = None, feed: str | None = None, limit: int | None = None
    ) -> AsyncBatches:
        """See ``MarketData.quotes``."""
        return await self._plan(lambda data: data.quotes(symbols, start=start, end=end, feed=feed, limit=limit))

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
