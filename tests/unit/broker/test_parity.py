"""The async client is the sync client, awaited: same names, same signatures, same docstrings, same answers.

The drivers under them are written twice, so names are compared too.
"""

import asyncio
import inspect
import threading

import pytest
from tests.support import parts
from tests.support.fakes import ACCOUNT, ManualClock, ScriptedTransport, answer
from tools.blocking import BROKER, MADE, made_from

from alpacli.broker.async_client import AsyncAlpacaClient
from alpacli.broker.async_trading import AsyncTrading
from alpacli.broker.client import AlpacaClient
from alpacli.broker.flow import LARGE
from alpacli.broker.trading import Trading
from alpacli.errors import ServerError
from alpacli.ports import Request, Response
from alpacli.store.sqlite import SqliteStore
from alpacli.wire.rest import Call


@pytest.mark.parametrize(("written", "made"), MADE.items())
def test_the_blocking_client_is_what_is_made_from_the_one_for_event_loops(written: str, made: str) -> None:
    assert (BROKER / made).read_text(encoding="utf-8") == made_from(BROKER / written), "make blocking"


@pytest.mark.parametrize(("blocking", "awaited"), [(AlpacaClient, AsyncAlpacaClient), (Trading, AsyncTrading)])
def test_what_one_client_has_the_other_has(blocking: type, awaited: type) -> None:
    assert _promised(blocking) == _promised(awaited)


def _promised(cls: type) -> dict[str, tuple[object, str | None]]:
    members = inspect.getmembers(cls, callable)
    return {name: (inspect.signature(it), it.__doc__) for name, it in members if not name.startswith("_")}


def test_the_async_client_follows_the_same_rules() -> None:
    clock = ManualClock()
    store = SqliteStore(":memory:", clock)
    pipeline = parts.pipeline(store, clock, cache_ttl_s={"account": 5.0})
    down = answer({"message": "oops"}, 500)
    transport = ScriptedTransport(down, answer(ACCOUNT), down)

    async def use() -> None:
        async with AsyncAlpacaClient(pipeline, transport, sleep=clock.sleep_async) as client:
            first = await client.get_account()
            assert await client.get_account() == first
            assert len(transport.sent) == 2
            assert clock.slept == [1.0]
            with pytest.raises(ServerError):
                await client.get_clock()
            assert await client.invalidate_cache("account") == 1

    asyncio.run(use())
    assert transport.closed


@pytest.mark.parametrize("size", [LARGE - 1, LARGE])
def test_a_large_answer_is_read_and_written_beside_the_event_loop(size: int) -> None:
    """All assets take most of a second; a thread for every small answer would cost more than it gives."""
    clock = ManualClock()
    where: list[int] = []

    def decode(body: bytes) -> bytes:
        where.append(threading.get_ident())
        return body

    call = Call("assets", Request("GET", "/v2/assets"), decode, "assets", 60.0, encode=decode)
    client = AsyncAlpacaClient(
        parts.pipeline(SqliteStore(":memory:", clock), clock), ScriptedTransport(Response(200, {}, bytes(size)))
    )

    async def use() -> None:
        async with client:
            for _ in range(2):  # from the broker, then from the cache
                assert (await client.read(call)).value == bytes(size)
            assert [ident == threading.get_ident() for ident in where] == [size < LARGE] * 3

    asyncio.run(use())
