"""Whoever is interrupted, at whatever step, leaves nothing behind that others wait for."""

import asyncio
import itertools
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest
from tests.support import parts
from tests.support.fakes import ACCOUNT, ScriptedTransport, answer

from alpacli.broker import functions
from alpacli.broker.async_client import AsyncAlpacaClient
from alpacli.broker.client import AlpacaClient
from alpacli.broker.flow import LARGE, Pipeline
from alpacli.errors import RequestTimeout, UsageError
from alpacli.ports import (
    BudgetRules,
    Busy,
    Entry,
    Granted,
    Lead,
    Outcome,
    Refused,
    Request,
    Response,
    SystemClock,
    SystemRandomness,
    Ticket,
    Wait,
)
from alpacli.store.sqlite import SqliteStore
from alpacli.wire.rest import Call

SCOPE = "alpaca:{test}"
RULES = BudgetRules(SCOPE, limit=1, reserve=0)
GOOD = answer(ACCOUNT)


class SlowStore(SqliteStore):
    """A store whose answer to one operation is held back until ``go`` is set; ``asked`` tells that it was begun."""

    slow = ""

    def __init__(self) -> None:
        super().__init__(":memory:", SystemClock())
        self.asked, self.go = threading.Event(), threading.Event()
        self.in_time: list[bool] = []

    def _hold(self, name: str) -> None:
        if name == self.slow:
            self.asked.set()
            self.in_time.append(self.go.wait(10))

    def admit(self, rules: BudgetRules, ticket: Ticket) -> Granted | Wait | Refused:
        self._hold("admit")
        return super().admit(rules, ticket)

    def claim(self, key: str, max_age_s: float, lease_s: float, token: str) -> Entry | Lead | Busy:
        self._hold("claim")
        return super().claim(key, max_age_s, lease_s, token)

    def settle(self, rules: BudgetRules, ticket: Ticket, outcome: Outcome) -> None:
        self._hold("settle")
        super().settle(rules, ticket, outcome)

    def release(self, key: str, token: str) -> None:
        self._hold("release")
        super().release(key, token)

    def drop(self, prefix: str) -> int:
        self._hold("drop")
        return super().drop(prefix)


class InterruptedStore(SqliteStore):
    """A store during whose one operation Ctrl-C is pressed, after it was done."""

    at = ""

    def admit(self, rules: BudgetRules, ticket: Ticket) -> Granted | Wait | Refused:
        turn = super().admit(rules, ticket)
        if self.at == "admit":
            raise KeyboardInterrupt
        return turn

    def claim(self, key: str, max_age_s: float, lease_s: float, token: str) -> Entry | Lead | Busy:
        found = super().claim(key, max_age_s, lease_s, token)
        if self.at == "claim":
            raise KeyboardInterrupt
        return found


@pytest.fixture
def slow() -> Iterator[SlowStore]:
    store = SlowStore()
    yield store
    store.go.set()
    store.close()


def pipeline(store: SqliteStore) -> Pipeline:
    return parts.pipeline(
        store, SystemClock(), SystemRandomness(), rules=RULES, cache_ttl_s={"account": 5.0}, max_wait_s=30
    )


async def _cancel_when(asked: threading.Event, go: threading.Event, task: "asyncio.Task[Any]") -> None:
    await asyncio.to_thread(asked.wait, 10)
    task.cancel()
    await asyncio.sleep(0)
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("step", ["admit", "claim"])
def test_a_cancelled_call_gives_back_what_its_thread_still_got(slow: SlowStore, step: str) -> None:
    """The thread that asks the store cannot be stopped; what it is granted after the cancellation must not stay."""
    slow.slow = step
    client = AsyncAlpacaClient(pipeline(slow), ScriptedTransport(GOOD))

    async def attack() -> None:
        await _cancel_when(slow.asked, slow.go, asyncio.create_task(client.get_account()))

    asyncio.run(attack())
    slow.slow = ""
    assert slow.limits(RULES).used == 0
    assert isinstance(slow.claim(f"{SCOPE}:account", 5, 3, "next"), Lead)


@pytest.mark.parametrize("step", ["settle", "release", "drop"])
def test_an_event_loop_goes_on_while_the_store_hears_of_a_cancellation(slow: SlowStore, step: str) -> None:
    """A Redis that hangs takes a second for each thing that it is told."""
    slow.slow = step
    sending, sent = threading.Event(), threading.Event()

    class Unanswered(ScriptedTransport):
        def send(self, request: Request, *, connect_timeout_s: float, read_timeout_s: float) -> Response:
            sending.set()
            sent.wait(10)
            return GOOD

    async def attack() -> None:
        async with AsyncAlpacaClient(pipeline(slow), Unanswered()) as client:
            call = client.create_watchlist("mine") if step == "drop" else client.get_account()
            task = asyncio.create_task(call)
            await asyncio.to_thread(sending.wait, 10)
            task.cancel()
            await _cancel_when(slow.asked, slow.go, task)
        sent.set()

    asyncio.run(attack())
    assert slow.in_time == [True] * len(slow.in_time) != []


def test_a_cancelled_call_leaves_the_queue_and_passes_the_lead_on() -> None:
    store = SqliteStore(":memory:", SystemClock())
    other = Ticket("other", "other")
    store.admit(RULES, other)
    waiting = threading.Event()
    client = AsyncAlpacaClient(pipeline(store), ScriptedTransport(GOOD), on_wait=lambda *_: waiting.set())

    async def attack() -> None:
        await _cancel_when(waiting, threading.Event(), asyncio.create_task(client.get_account()))

    asyncio.run(attack())
    assert store.limits(RULES).waiting == ()
    assert isinstance(store.claim(f"{SCOPE}:account", 5, 3, "next"), Lead)
    store.close()


def test_a_cancelled_call_does_not_wait_until_a_large_answer_is_read() -> None:
    store = SqliteStore(":memory:", SystemClock())
    begun, go, over = threading.Event(), threading.Event(), threading.Event()
    was_let_go: list[bool] = []

    def decode(body: bytes) -> bytes:
        begun.set()
        was_let_go.append(go.wait(10))
        over.set()
        return body

    call = Call("assets", Request("GET", "/v2/assets"), decode, "assets", 60.0, encode=bytes)
    client = AsyncAlpacaClient(pipeline(store), ScriptedTransport(Response(200, {}, bytes(LARGE))))

    async def attack() -> None:
        task = asyncio.create_task(client.read(call))
        await asyncio.to_thread(begun.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go.set()

    asyncio.run(attack())
    assert over.wait(10)  # its thread is nobody's to wait for
    assert was_let_go == [True], "the call had ended while it was still being read"
    assert isinstance(store.claim(f"{SCOPE}:assets", 5, 3, "next"), Lead), "who asks next need not wait for a lease"
    store.close()


def _ctrl_c_on_each_line_of(function: Any, call: Callable[[], object]) -> Iterator[None]:
    """Do the call again and again, with Ctrl-C on one line of the function after the other, until it gets through."""
    code = function.__code__
    before = sys.gettrace()
    for place in itertools.count():
        left = [place]

        def on_line(frame: FrameType, event: str, _: Any, left: list[int] = left) -> Any:
            if frame.f_code is code and event == "line":
                left[0] -= 1
                if left[0] == -1:
                    raise KeyboardInterrupt
            return on_line

        sys.settrace(on_line)
        try:
            call()
        except KeyboardInterrupt:
            pass
        else:
            return
        finally:
            sys.settrace(before)
        yield


def test_ctrl_c_on_any_line_leaves_no_heartbeat_that_keeps_the_lease() -> None:
    store = SqliteStore(":memory:", SystemClock())
    lines = pipeline(store)
    lines.rules = RULES._replace(limit=1000)
    client = AlpacaClient(lines, ScriptedTransport(GOOD), clock=SystemClock())

    @client.cached(ttl=10)
    def own() -> int:
        return 1

    def again() -> None:
        store.drop(SCOPE)
        client.get_account()

    def own_again() -> None:
        store.drop(SCOPE)
        own()

    interrupted = 0
    for function, call in ((Pipeline._fetch_for_all, again), (functions._Entry.call, own_again)):
        for _ in _ctrl_c_on_each_line_of(function, call):
            interrupted += 1
            assert not [thread for thread in threading.enumerate() if thread.name == "alpacli-lease"]
    assert interrupted > 10
    client.close()


@pytest.mark.parametrize("at", ["admit", "claim"])
def test_ctrl_c_right_after_the_store_answered_leaves_nothing_behind(at: str) -> None:
    store = InterruptedStore(":memory:", SystemClock())
    store.at = at
    client = AlpacaClient(pipeline(store), ScriptedTransport(GOOD), clock=SystemClock())
    with pytest.raises(KeyboardInterrupt):
        client.get_account()
    store.at = ""
    assert store.limits(RULES).used == 0
    assert isinstance(store.claim(f"{SCOPE}:account", 5, 3, "next"), Lead)
    client.close()


def test_interrupted_requests_do_not_hide_a_broken_broker_from_the_breaker() -> None:
    """Four failures, a Ctrl-C, one more failure: that is still five in a row."""

    def interrupt(_: Request) -> None:
        raise KeyboardInterrupt

    store = SqliteStore(":memory:", SystemClock())
    rules = RULES._replace(limit=100)
    lines = pipeline(store)
    lines.rules = rules
    failing = AlpacaClient(lines, ScriptedTransport(RequestTimeout("slow")), clock=SystemClock())
    interrupted = AlpacaClient(lines, ScriptedTransport(GOOD, before=interrupt), clock=SystemClock())
    for client, error in ((failing, RequestTimeout), (interrupted, KeyboardInterrupt), (failing, RequestTimeout)):
        for _ in range(1 if client is interrupted else 3):
            if store.limits(rules).breaker == "open":
                break
            with pytest.raises(error):
                client.create_watchlist("Tech")
        if client is failing and store.limits(rules).breaker == "closed":
            with pytest.raises(RequestTimeout):
                client.create_watchlist("Tech")
    assert store.limits(rules).breaker == "open"
    store.close()


def test_a_change_whose_fate_is_unknown_makes_the_cache_forget_too() -> None:
    """A timeout may hide a yes: what was cached before is not to be trusted."""
    store = SqliteStore(":memory:", SystemClock())
    store.put(f"{SCOPE}:watchlists", b"[]")
    client = AlpacaClient(pipeline(store), ScriptedTransport(RequestTimeout("slow")), clock=SystemClock())
    with pytest.raises(RequestTimeout):
        client.create_watchlist("Tech")
    assert store.cache_stats(SCOPE).entries == 0
    client.close()


@pytest.mark.parametrize("age", [-1.0, float("nan"), float("-inf")])
def test_an_age_that_is_none_is_wrong_usage(age: float) -> None:
    store = SqliteStore(":memory:", SystemClock())
    transport = ScriptedTransport(GOOD)
    client = AlpacaClient(pipeline(store), transport, clock=SystemClock())
    with pytest.raises(UsageError, match="max_age"):
        client.get_account(max_age=age)
    assert transport.sent == []
    client.close()
