"""The async client is the sync client, awaited: same names, same signatures, same docstrings, same answers."""

import asyncio
import inspect

import pytest
from tests.support.fakes import ACCOUNT, FixedRandomness, ManualClock, ScriptedTransport, answer

from alpacli.broker.async_client import AsyncAlpacaClient
from alpacli.broker.client import AlpacaClient
from alpacli.broker.flow import Pipeline
from alpacli.errors import ServerError
from alpacli.ports import BudgetRules
from alpacli.store.sqlite import SqliteStore


def public(cls: type) -> dict[str, object]:
    return {name: member for name, member in inspect.getmembers(cls, callable) if not name.startswith("_")}


def test_both_clients_have_the_same_methods() -> None:
    assert public(AlpacaClient).keys() == public(AsyncAlpacaClient).keys()
    assert len(public(AlpacaClient)) > 20


@pytest.mark.parametrize("name", sorted(public(AlpacaClient)))
def test_each_method_has_the_same_signature_and_docstring(name: str) -> None:
    sync, other = getattr(AlpacaClient, name), getattr(AsyncAlpacaClient, name)
    assert inspect.signature(sync) == inspect.signature(other)
    assert sync.__doc__ == other.__doc__


def test_the_async_client_follows_the_same_rules() -> None:
    clock = ManualClock()
    store = SqliteStore(":memory:", clock)
    pipeline = Pipeline(
        store,
        clock,
        FixedRandomness(),
        rules=BudgetRules("alpaca:{test}"),
        cache_ttl_s={"account": 5.0},
        max_wait_s=10,
        patience_s=15,
        label="test",
    )
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
