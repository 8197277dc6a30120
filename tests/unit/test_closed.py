"""What is closed says so: every method of a client, whatever is in the cache, and a stream."""

import asyncio
import functools
import inspect
from collections.abc import Callable, Coroutine, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.support.fakes import ManualClock

from alpacli import OrderTicket
from alpacli.broker.forward import find_route
from alpacli.domain.ticks import Interest
from alpacli.errors import UsageError
from alpacli.ports import Request
from alpacli.runtime import open_async_client, open_client
from alpacli.settings import Flags, Settings, load
from alpacli.streams.batch import Batch
from alpacli.streams.client import Stream
from alpacli.streams.events import Live
from alpacli.streams.session import Action
from alpacli.streams.supervisor import Sink
from alpacli.wire import rest

ID = "6f3f8f0a-3f0c-4f0e-9a51-1f2f5a0b7c11"
ARGUMENTS: Mapping[str, Any] = {
    "call": rest.account(),
    "changes": {"qty": "1"},
    "client_order_id": "mine",
    "name": "mine",
    "order_id": ID,
    "request": Request("GET", "/v2/account"),
    "route": find_route("/v2/account"),
    "start": datetime(2026, 1, 2, tzinfo=UTC),
    "symbol": "AAPL",
    "symbols": ["AAPL"],
    "ticket": OrderTicket("AAPL", "buy", qty=Decimal(1)),
    "ttl": 1.0,
    "watchlist_id": ID,
}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load(Flags(None, sim=True), env={"HOME": str(tmp_path)}, cwd=None)


def _calls(thing: object, *closing: str) -> Iterator[Callable[[], Any]]:
    """Give a call of every public method of a thing, but of those that close it."""
    for name, method in inspect.getmembers(thing, inspect.ismethod):
        if name.startswith("_") or name in closing or name == "cached":
            continue
        wanted = inspect.signature(method).parameters
        given = {
            it: ARGUMENTS[it] for it in wanted if it in ARGUMENTS and not (name.startswith("get_") and it == "start")
        }
        yield functools.partial(method, *given.pop("names", ()), **(given if name != "cache_stats" else {}))


def test_no_method_of_a_closed_client_answers_though_the_cache_could(settings: Settings) -> None:
    with open_client(settings) as client:
        trading, history = client.trading, client.market_data

        @client.cached(ttl=60)
        def own(text: str) -> int:
            return len(text)

        client.get_account(max_age=60)
        assert own("kept") == 4
    client.close()  # once more does no harm
    calls: list[Callable[[], Any]] = [*_calls(client, "close"), *_calls(trading), *_calls(history)]
    calls += [functools.partial(own, "kept"), client.__enter__]
    assert len(calls) > 45
    for call in calls:
        with pytest.raises(UsageError, match="the client is closed"):
            call()


async def _awaited(call: Callable[[], Any]) -> Any:
    result = call()
    return await result if inspect.isawaitable(result) else result


def test_nor_does_one_for_event_loops(settings: Settings) -> None:
    async def use() -> None:
        async with open_async_client(settings) as client:
            trading, history = client.trading, client.market_data
            await client.get_account(max_age=60)

            @client.cached(ttl=60)
            async def own() -> int:
                return 1

            assert await own() == 1
        await client.close()
        calls: list[Callable[[], Any]] = [
            *_calls(client, "close"),
            *_calls(trading),
            *_calls(history),
            own,
            client.__aenter__,
        ]
        assert len(calls) > 45
        for call in calls:
            with pytest.raises(UsageError, match="the client is closed"):
                await _awaited(call)

    asyncio.run(use())


# ----------------------------------------------------------------------------------------------------- streams


class Endless:
    """A source that is live at once, and gives a trade and then nothing."""

    async def run(self, sink: Sink) -> None:
        sink.event(Live({"trades": ("A",)}))
        sink.batch(Batch.of_lines(TRADE * 3))
        await asyncio.Event().wait()

    async def change(self, action: Action, interest: Interest) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def watch_for_silence(self, stale_after_s: float) -> None: ...


TRADE = b'{"type":"trade","symbol":"A","timestamp":"2026-01-02T15:00:00.000000000Z","price":1,"size":1,"id":1}\n'


def in_a_stream(use: Callable[[Stream], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        wanted = Interest({"trades": ["A"]})
        async with asyncio.timeout(30):
            await use(Stream(Endless(), wanted, clock=ManualClock()))

    asyncio.run(run())


def test_a_closed_stream_takes_no_call() -> None:
    async def use(stream: Stream) -> None:
        async with stream:
            assert (await anext(stream)).symbol == "A"
        await stream.close()
        for call in (stream.run, stream.__aenter__, functools.partial(stream.subscribe, {"trades": ["B"]})):
            with pytest.raises(UsageError, match="the stream is closed"):
                await call()
        with pytest.raises(UsageError, match="the stream is closed"):
            await stream.unsubscribe({"trades": ["A"]})
        with pytest.raises(UsageError, match="the stream is closed"):
            aiter(stream)

    in_a_stream(use)


def test_a_loop_over_a_stream_ends_where_the_stream_is_closed_in_it() -> None:
    async def use(stream: Stream) -> None:
        read = []
        async with stream:
            async for tick in stream:
                read.append(tick)
                await stream.close()
        assert len(read) == 1

    in_a_stream(use)


def test_callbacks_end_when_one_of_them_closes_the_stream() -> None:
    async def use(stream: Stream) -> None:
        called: list[object] = []

        async def enough(tick: object) -> None:
            called.append(tick)
            await stream.close()

        async with stream:
            stream.on("trade", enough)
            await stream.run()
        assert len(called) == 1

    in_a_stream(use)


def test_an_open_stream_is_not_opened_twice() -> None:
    async def use(stream: Stream) -> None:
        async with stream:
            with pytest.raises(UsageError, match="open already"):
                await stream.__aenter__()

    in_a_stream(use)
