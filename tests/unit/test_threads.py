"""An event loop's blocking calls: what waits for what, and that nothing is left behind."""

import asyncio
import functools
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from typing import Any

import pytest
from tests.support import parts
from tests.support.fakes import ACCOUNT, ScriptedTransport, answer

from alpacli.broker.async_client import AsyncAlpacaClient
from alpacli.ports import BudgetRules, Request, Response, SystemClock, SystemRandomness
from alpacli.store.sqlite import SqliteStore
from alpacli.threads import Threads
from alpacli.wire import rest, trading

RULES = BudgetRules("alpaca:{test}", limit=1000, reserve=0)
HUNG = 100
"""More reads than there are threads for them."""


class Hanging:
    """A broker that answers no GET before ``go`` is set, and everything else at once."""

    def __init__(self) -> None:
        self.go, self.asked, self.closed = threading.Event(), threading.Event(), False
        self.sent: list[str] = []
        self.let_go: list[bool] = []

    def send(self, request: Request, *, connect_timeout_s: float, read_timeout_s: float) -> Response:
        self.sent.append(request.method)
        if request.method != "GET":
            return Response(204, {}, b"")
        self.asked.set()
        self.let_go.append(self.go.wait(20))
        return answer(ACCOUNT)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def broker() -> Iterator[Hanging]:
    hanging = Hanging()
    yield hanging
    hanging.go.set()


@pytest.fixture
def store() -> Iterator[SqliteStore]:
    kept = SqliteStore(":memory:", SystemClock())
    yield kept
    kept.close()


@pytest.fixture
def client(broker: Hanging, store: SqliteStore) -> AsyncAlpacaClient:
    return client_of(broker, store)


def client_of(transport: "Hanging | ScriptedTransport", store: SqliteStore) -> AsyncAlpacaClient:
    pipeline = parts.pipeline(
        store, SystemClock(), SystemRandomness(), rules=RULES, cache_ttl_s={"account": 60.0}, max_wait_s=30
    )
    return AsyncAlpacaClient(pipeline, transport)


def ours(before: set[threading.Thread]) -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread not in before and thread.name.startswith("alpacli")}


@pytest.fixture
def before() -> set[threading.Thread]:
    return set(threading.enumerate())


async def hang(client: AsyncAlpacaClient, broker: Hanging) -> "list[asyncio.Task[object]]":
    """Have many reads hang, each in its own thread as far as there are any."""
    reads = [asyncio.ensure_future(client.fetch(rest.clock())) for _ in range(HUNG)]
    while len(broker.sent) < 5:  # noqa: ASYNC110 # the other side is a thread
        await asyncio.sleep(0.005)
    return [*reads]


async def give_up(reads: "list[asyncio.Task[object]]") -> None:
    for read in reads:
        read.cancel()
    await asyncio.gather(*reads, return_exceptions=True)


def test_a_cancellation_does_not_wait_for_any_number_of_reads_that_hang(
    client: AsyncAlpacaClient, broker: Hanging
) -> None:
    async def trade() -> None:
        reads = await hang(client, broker)
        await client.change(trading.cancel_order("61e69015-8549-4bfd-b9c3-01e75843f47d"))
        assert "DELETE" in broker.sent
        assert not broker.let_go, "a read was let go before the order went out"
        await give_up(reads)

    asyncio.run(trade())


def test_what_is_kept_is_told_while_reads_hang(client: AsyncAlpacaClient, broker: Hanging, store: SqliteStore) -> None:
    async def look() -> None:
        await client_of(ScriptedTransport(answer(ACCOUNT)), store).get_account()
        reads = await hang(client, broker)
        assert (await client.get_account()).account_number
        assert not broker.let_go
        await give_up(reads)

    asyncio.run(look())


def test_the_programs_own_threads_are_left_to_it(client: AsyncAlpacaClient, broker: Hanging) -> None:
    async def work() -> None:
        reads = await hang(client, broker)
        assert await asyncio.to_thread(lambda: "done") == "done"
        assert not broker.let_go
        await give_up(reads)

    asyncio.run(work())


def test_a_call_that_was_given_up_does_not_keep_the_loop_from_ending(
    client: AsyncAlpacaClient, broker: Hanging
) -> None:
    async def impatient() -> None:
        read = asyncio.ensure_future(client.get_account())
        while not broker.asked.is_set():  # noqa: ASYNC110 # the other side is a thread
            await asyncio.sleep(0.005)
        await give_up([read])

    asyncio.run(impatient())
    assert not broker.let_go, "the loop ended only with the request"


def test_closing_ends_the_threads_and_waits_for_none_that_hangs(
    client: AsyncAlpacaClient, broker: Hanging, before: set[threading.Thread]
) -> None:
    async def use() -> None:
        async with client:
            await give_up(await hang(client, broker))
            await client.change(trading.cancel_order("61e69015-8549-4bfd-b9c3-01e75843f47d"))
            assert len(ours(before)) <= 64 + 32 + 8
        assert not broker.let_go

    asyncio.run(use())
    broker.go.set()
    for thread in ours(before):
        thread.join(10)
    assert not ours(before)


def test_one_client_serves_one_loop_after_another(store: SqliteStore, before: set[threading.Thread]) -> None:
    client = client_of(ScriptedTransport(answer(ACCOUNT)), store)
    for _ in range(20):
        assert asyncio.run(client.get_account(use_cache=False)).account_number
    assert len(ours(before)) < 15, "threads are used again"
    asyncio.run(client.close())


def test_threads_are_no_more_than_there_may_be_and_work_goes_in_its_order(before: set[threading.Thread]) -> None:
    threads, done = Threads(3, "test"), list[int]()
    go = threading.Event()
    held: list[Future[Any]] = [threads.submit(lambda: go.wait(20)) for _ in range(3)]
    more: list[Future[Any]] = [threads.submit(functools.partial(done.append, number)) for number in range(20)]
    assert len(ours(before)) == 3
    assert more[5].cancel(), "what has not begun can be given up"
    go.set()
    wait([*held, *more], 20)
    assert sorted(done) == [number for number in range(20) if number != 5]
    threads.close()
    assert threads.submit(lambda: "late").result(10) == "late"
    for thread in ours(before):
        thread.join(10)
    assert not ours(before)


def test_a_failure_is_raised_where_the_result_is_awaited() -> None:
    threads = Threads(1, "test")

    def fail() -> None:
        raise KeyError("x")

    failed: Future[None] = threads.submit(fail)
    with pytest.raises(KeyError):
        failed.result(10)
    assert threads.submit(lambda: 1).result(10) == 1, "the thread lives on"
    threads.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_after_a_fork_the_child_has_threads_of_its_own() -> None:
    threads = Threads(1, "test")
    threads.submit(lambda: None).result(10)
    child = os.fork()
    if not child:
        code: Callable[[int], None] = os._exit
        try:
            code(0 if threads.submit(lambda: 7).result(10) == 7 else 1)
        finally:
            code(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    threads.close()
