"""The cache for the user's own functions."""

import asyncio
import threading
from decimal import Decimal
from typing import Any

import pytest
from tests.support.fakes import ACCOUNT, FixedRandomness, ManualClock

from alpacli.broker.functions import FunctionCache
from alpacli.domain.account import Account
from alpacli.errors import UsageError
from alpacli.ports import SystemClock, SystemRandomness
from alpacli.store.sqlite import SqliteStore


@pytest.fixture
def cache(store: SqliteStore, clock: ManualClock) -> FunctionCache:
    return FunctionCache(store, "alpaca:{test}", clock, FixedRandomness())


def test_a_result_is_kept_for_its_lifetime_per_argument(cache: FunctionCache, clock: ManualClock) -> None:
    calls: list[str] = []

    @cache.cached(ttl=10)
    def score(symbol: str, weight: Decimal = Decimal("1.50")) -> Decimal:
        calls.append(symbol)
        return weight * 2

    assert score("AAPL") == score(symbol="AAPL") == Decimal("3.00")
    score("MSFT")
    assert calls == ["AAPL", "MSFT"]
    clock.advance(11)
    score("AAPL")
    assert calls == ["AAPL", "MSFT", "AAPL"]


def test_a_result_comes_back_as_the_annotated_type(cache: FunctionCache) -> None:
    @cache.cached(ttl=10)
    def fetch() -> list[Account]:
        return [Account.model_validate(ACCOUNT)]

    assert fetch() == fetch()
    assert isinstance(fetch()[0], Account)
    assert str(fetch()[0].cash) == "98500.250"


def test_a_function_that_raises_is_not_cached_and_frees_the_lead(cache: FunctionCache) -> None:
    outcomes: list[Any] = [ValueError("no"), 7]

    @cache.cached(ttl=10)
    def flaky() -> int:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return int(outcome)

    with pytest.raises(ValueError, match="no"):
        flaky()
    assert flaky() == flaky() == 7


def test_what_has_no_json_form_is_refused_with_the_reason(cache: FunctionCache) -> None:
    @cache.cached(ttl=10)
    def odd(value: object) -> object:
        return value

    with pytest.raises(UsageError, match="odd cannot be cached"):
        odd(object())


def test_threads_that_call_together_run_the_function_once() -> None:
    store = SqliteStore(":memory:", SystemClock())
    cache = FunctionCache(store, "alpaca:{test}", SystemClock(), SystemRandomness())
    calls: list[int] = []
    gate = threading.Event()

    @cache.cached(ttl=10)
    def slow() -> int:
        calls.append(1)
        gate.wait(0.2)
        return 1

    threads = [threading.Thread(target=slow) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.close()
    assert calls == [1]


def test_async_functions_are_cached_too_and_can_be_invalidated(cache: FunctionCache) -> None:
    calls: list[int] = []

    @cache.cached(ttl=10)
    async def news() -> list[str]:
        calls.append(1)
        return ["one"]

    async def use() -> None:
        assert await news() == await news() == ["one"]
        news.invalidate()
        await news()

    asyncio.run(use())
    assert len(calls) == 2


def test_an_entry_of_an_older_version_of_the_function_is_a_miss(cache: FunctionCache) -> None:
    @cache.cached(ttl=10, key="score")
    def before() -> str:
        return "high"

    @cache.cached(ttl=10, key="score")
    def score() -> int:
        return 7

    before()
    assert score() == 7
    assert score() == 7


def test_an_entry_that_cannot_be_read_is_a_miss_in_an_event_loop_too(cache: FunctionCache) -> None:
    @cache.cached(ttl=10, key="score")
    def before() -> str:
        return "high"

    @cache.cached(ttl=10, key="score")
    async def score() -> int:
        return 7

    before()
    assert asyncio.run(score()) == 7
