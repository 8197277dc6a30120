"""The cache for the user's own functions."""

import asyncio
import functools
import itertools
import subprocess
import sys
import threading
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from tests.support.fakes import ACCOUNT, FixedRandomness, ManualClock

from alpacli.broker.functions import CachedFunction, FunctionCache
from alpacli.domain.account import Account
from alpacli.domain.values import Timestamp
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

    @cache.cached(ttl=10, key="flaky")
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

    @cache.cached(ttl=10, key="slow")
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


# -------------------------------------------------------------------------------------------- whose results they are


def _script(folder: Path, code: str) -> Any:
    """Run a script as Python runs one, as ``__main__``, with the store beside it; return what it printed."""
    folder.mkdir(exist_ok=True)
    head = (
        "from alpacli.broker.functions import FunctionCache\n"
        "from alpacli.ports import SystemClock, SystemRandomness\n"
        "from alpacli.store.sqlite import SqliteStore\n"
        f"store = SqliteStore({str(folder.parent / 'store.sqlite')!r}, SystemClock())\n"
        "cached = FunctionCache(store, 'alpaca:{test}', SystemClock(), SystemRandomness()).cached(ttl=60)\n"
    )
    (folder / "bot.py").write_text(head + code)
    done = subprocess.run([sys.executable, folder / "bot.py"], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.split()


def test_two_scripts_have_functions_of_one_name_and_results_of_their_own(tmp_path: Path) -> None:
    target = "@cached\ndef target() -> int:\n    print('asked')\n    return {number}\nprint(target())\n"
    assert _script(tmp_path / "a", target.format(number=10)) == ["asked", "10"]
    assert _script(tmp_path / "b", target.format(number=-500)) == ["asked", "-500"]
    assert _script(tmp_path / "c", target.format(number=10)) == ["asked", "10"]  # the same text of another script
    assert _script(tmp_path / "a", "# a remark\n" + target.format(number=10)) == ["10"]


def test_a_worker_that_is_spawned_shares_with_its_script_and_with_no_other(tmp_path: Path) -> None:
    script = """
import multiprocessing

@cached
def target() -> int:
    print("asked", flush=True)
    return {number}

def work() -> None:
    print(target(), flush=True)

if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    worker = multiprocessing.Process(target=work)
    worker.start()
    worker.join()
    work()
"""
    assert _script(tmp_path / "a", script.format(number=10)) == ["asked", "10", "10"]
    assert _script(tmp_path / "b", script.format(number=-500)) == ["asked", "-500", "-500"]


def test_a_new_version_of_a_function_is_another_function(cache: FunctionCache) -> None:
    found = []
    for body in ("return 1", "return 2", "return [n for n in (1, 2)]", "return [n for n in (1, 3)]"):
        names: dict[str, Any] = {"__name__": "strategy"}
        exec(f"def target():\n    {body}", names)  # as an import does
        found.append(cache.cached(ttl=10)(names["target"])())
    assert found == [1, 2, [1, 2], [1, 3]]


def test_functions_that_were_made_with_other_values_are_others(cache: FunctionCache, store: SqliteStore) -> None:
    calls: dict[int, int] = {}

    def build(number: int) -> CachedFunction[[], int]:
        paper = store  # one of alpacli's own: which one it is does not matter

        @cache.cached(ttl=10)
        def inner() -> int:
            paper.drop("nothing")
            return number

        calls[number] = calls.get(number, 0) + 1
        return inner

    assert [build(1)(), build(2)(), build(1)()] == [1, 2, 1]


def test_a_function_made_with_what_nothing_tells_apart_needs_a_key(cache: FunctionCache) -> None:
    gate = threading.Event()

    def slow() -> bool:
        return gate.wait(0)

    with pytest.raises(UsageError, match="it was made with 'gate', and nothing tells one Event from another"):
        cache.cached(ttl=10)(slow)
    assert cache.cached(ttl=10, key="slow")(slow)() is False


class Strategy(BaseModel):
    """An object with a JSON form, and a method."""

    size: int

    def target(self) -> int:
        return self.size


class _Model:
    """Like nothing else."""

    def guess(self) -> int:
        return 1


@dataclass(frozen=True)
class _Weights:
    first: int
    second: frozenset[str] = frozenset()


def _timed(function: Any) -> Any:
    """A decorator that hides what it decorates."""

    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


def _scaled(factor: int) -> Any:
    def decorate(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper() -> int:
            return int(function()) * factor

        return wrapper

    return decorate


def test_functions_under_a_decorator_and_decorators_of_a_function_are_told_apart(cache: FunctionCache) -> None:
    keep = cache.cached(ttl=10)

    def bid() -> str:
        return "bid"

    def ask() -> str:
        return "ask"

    def price() -> int:
        return 1

    assert [keep(_timed(bid))(), keep(_timed(ask))(), keep(_timed(bid))()] == ["bid", "ask", "bid"]
    assert [keep(_scaled(1)(price))(), keep(_scaled(100)(price))()] == [1, 100]


@pytest.mark.parametrize(
    "pairs",
    [
        (min, max),
        ({1}, {2}),
        (b"a", b"b"),
        (_Weights(1), _Weights(2)),
        (_Weights(1, frozenset("ab")), _Weights(1, frozenset("ac"))),
        (Decimal, float),
        (functools, itertools),
        ([b"a", {"x"}], [b"a", {"y"}]),
        ({"rule": min}, {"rule": max}),
        (lambda: 1, lambda: 2),
        (1, True),
        ("1", 1),
    ],
)
def test_what_a_function_was_made_with_tells_it_apart(cache: FunctionCache, pairs: tuple[Any, Any]) -> None:
    def build(number: int, value: Any) -> CachedFunction[[], int]:
        @cache.cached(ttl=10)
        def inner() -> int:
            return number if value is None else found[id(value)]

        return inner

    found = dict.fromkeys(map(id, pairs), 0)
    for number, value in enumerate(pairs):
        found[id(value)] = number
    assert [build(0, value)() for value in pairs] == [0, 1]


def test_a_rule_that_fails_elsewhere_is_another_function(cache: FunctionCache) -> None:
    """Which lines an exception is caught from is nowhere in the code itself."""
    found = []
    within = "try:\n  a = g()\n  b = g()\n except KeyError:\n  return 1"
    behind = "try:\n  a = g()\n except KeyError:\n  return 1\n b = g()"
    for body in (within, behind):
        names: dict[str, Any] = {"__name__": "strategy", "calls": itertools.count()}
        exec(f"def g():\n if next(calls):\n  raise KeyError\ndef rule():\n {body}\n return 2", names)
        try:
            found.append(cache.cached(ttl=10)(names["rule"])())
        except KeyError:
            found.append("raised")
    assert found == [1, "raised"]


def test_a_coroutine_that_is_closed_gives_the_lead_back_and_says_nothing(cache: FunctionCache) -> None:
    @cache.cached(ttl=10)
    async def news() -> int:
        begun.append(1)
        await asyncio.sleep(20)
        return 1

    begun: list[int] = []
    loop = asyncio.new_event_loop()
    call = news()
    task = loop.create_task(call)
    loop.run_until_complete(asyncio.sleep(0.2))
    call.close()  # as when a loop is closed under it: it may not await any more
    task.cancel()
    loop.run_until_complete(asyncio.wait([task]))
    again = loop.create_task(news())
    loop.run_until_complete(asyncio.sleep(0.2))
    assert begun == [1, 1]
    again.cancel()
    loop.run_until_complete(asyncio.wait([again]))
    loop.close()


def test_a_method_is_told_by_its_object_or_refused(cache: FunctionCache) -> None:
    keep = cache.cached(ttl=10)
    assert [keep(Strategy(size=size).target)() for size in (1, 2)] == [1, 2]
    with pytest.raises(UsageError, match="made with 'self', and nothing tells one _Model from another"):
        keep(_Model().guess)
    with pytest.raises(UsageError, match="no code of its own"):
        keep(functools.partial(max, 3))
    assert cache.cached(ttl=10, key="most")(functools.partial(round, 3.25, 1))() == Decimal("3.2")


def test_a_method_of_a_class_counts_its_object_among_the_arguments(cache: FunctionCache) -> None:
    class Sized(Strategy):
        @cache.cached(ttl=10)
        def doubled(self) -> int:
            return self.size * 2

    assert [Sized(size=size).doubled() for size in (1, 2)] == [2, 4]  # type: ignore[call-arg] # a method at run time


# ------------------------------------------------------------------------------------------------- what comes back


def test_the_first_result_is_what_everybody_gets(cache: FunctionCache) -> None:
    @cache.cached(ttl=10)
    def untold():  # type: ignore[no-untyped-def] # as many are
        return {"weights": (1.5, 2), "at": Timestamp.parse("2026-01-05T14:30:00Z")}

    @cache.cached(ttl=10)
    async def told() -> tuple[float, int]:
        return 1.5, 2

    first, later = untold(), untold()
    assert first == later == {"weights": [Decimal("1.5"), 2], "at": "2026-01-05T14:30:00Z"}
    assert type(first["weights"][0]) is type(later["weights"][0]) is Decimal
    assert repr(asyncio.run(told())) == repr(asyncio.run(told())) == "(1.5, 2)"


def test_a_result_that_is_not_what_the_annotation_says_is_refused_and_not_kept(cache: FunctionCache) -> None:
    results: list[Any] = ["many", 7]

    @cache.cached(ttl=10)
    def count() -> int:
        return results.pop(0)  # type: ignore[no-any-return] # something else than it says, once

    with pytest.raises(UsageError, match="count returned something else than its annotation says"):
        count()
    assert count() == 7


@pytest.mark.parametrize("ttl", [-1, float("nan"), float("inf")])
def test_a_lifetime_that_makes_no_sense_is_refused(cache: FunctionCache, ttl: float) -> None:
    with pytest.raises(UsageError, match="ttl is"):
        cache.cached(ttl=ttl)


def test_a_call_that_is_given_up_while_it_waits_lets_others_lead(store: SqliteStore, clock: ManualClock) -> None:
    cache = FunctionCache(store, "alpaca:{test}", clock, SystemRandomness())
    under_way = asyncio.Event()

    @cache.cached(ttl=10, key="news")
    async def news(wait: bool) -> list[str]:
        if not under_way.is_set():
            under_way.set()
            await asyncio.sleep(20)
        return ["one"]

    async def use() -> None:
        for _ in range(2):
            under_way.clear()
            leader, follower = asyncio.create_task(news(True)), asyncio.create_task(news(True))
            await under_way.wait()
            for task in (follower, leader):
                task.cancel()
            await asyncio.wait([leader, follower])
            assert leader.cancelled()
            assert follower.cancelled()
        assert await news(True) == ["one"]

    asyncio.run(use())
