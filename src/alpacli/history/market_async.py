"""Market history for event loops: the same reader, a batch at a time in a thread, its requests on the loop.

A module of its own, because asyncio costs a command that does not need it 12 ms.
"""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from alpacli.domain.batches import AsyncBatches, Batch, Batches
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
        symbols: str | Sequence[str],
        *,
        start: dt.datetime | int | None = None,
        end: dt.datetime | int | None = None,
        timeframe: str = "1Min",
        feed: str | None = None,
        adjustment: str = "raw",
        limit: int | None = None,
    ) -> AsyncBatches:
        """See ``MarketData.bars``."""
        data = self._open()
        return await _plan(
            lambda: data.bars(
                symbols, start=start, end=end, timeframe=timeframe, feed=feed, adjustment=adjustment, limit=limit
            )
        )

    async def trades(
        self,
        symbols: str | Sequence[str],
        *,
        start: dt.datetime | int | None = None,
        end: dt.datetime | int | None = None,
        feed: str | None = None,
        limit: int | None = None,
    ) -> AsyncBatches:
        """See ``MarketData.trades``."""
        data = self._open()
        return await _plan(lambda: data.trades(symbols, start=start, end=end, feed=feed, limit=limit))

    async def quotes(
        self,
        symbols: str | Sequence[str],
        *,
        start: dt.datetime | int | None = None,
        end: dt.datetime | int | None = None,
        feed: str | None = None,
        limit: int | None = None,
    ) -> AsyncBatches:
        """See ``MarketData.quotes``."""
        data = self._open()
        return await _plan(lambda: data.quotes(symbols, start=start, end=end, feed=feed, limit=limit))


async def _plan(make: Callable[[], Batches]) -> AsyncBatches:
    batches = await asyncio.to_thread(make)

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
