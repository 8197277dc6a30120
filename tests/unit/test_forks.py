"""A fork in the middle of everything: the child shares what its parent shares, and waits for nobody who is not there."""

import json
import os
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Literal

import pytest
from tests.support.fakes import ManualClock

from alpacli import forks
from alpacli.forks import Turns
from alpacli.ports import BudgetRules, Clock, Granted, Request, Response, SystemClock, Ticket
from alpacli.runtime import LazyTransport
from alpacli.sim.state import Meta, State
from alpacli.sim.transport import SimTransport
from alpacli.store.sqlite import SqliteStore
from alpacli.threads import Threads

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

RULES = BudgetRules("alpaca:{test}", limit=200, reserve=0)


def _forked(child: Callable[[], bool]) -> int:
    """Run something in a child, whose exit code tells whether it was true; return its number."""
    pid = os.fork()
    if pid == 0:
        code = 70  # an exception
        try:
            code = 0 if child() else 1
        finally:
            os._exit(code)
    return pid


def _code(pid: int) -> int:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return -1


class SlowClock(SystemClock):
    """A clock that takes its time when it is asked inside a transaction of the thread that is meant."""

    def __init__(self) -> None:
        self.slow: int | None = None
        self.asked = threading.Event()

    def time(self) -> float:
        if threading.get_ident() == self.slow:
            self.asked.set()
            time.sleep(0.3)
        return super().time()


def _admitted(store: SqliteStore, name: str) -> bool:
    return isinstance(store.admit(RULES, Ticket(name, "a test")), Granted)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "store.sqlite")


def test_a_child_that_is_forked_while_a_thread_is_in_the_store_shares_the_budget(path: str) -> None:
    clock = SlowClock()

    def elsewhere() -> None:
        clock.slow = threading.get_ident()
        _admitted(store, "thread")

    with closing(SqliteStore(path, clock)) as store:
        _admitted(store, "before")
        thread = threading.Thread(target=elsewhere)
        thread.start()
        clock.asked.wait(10)
        child = _forked(lambda: _admitted(store, "child") and store.limits(RULES).used == 3)
        assert _code(child) == 0
        thread.join()
        assert store.limits(RULES).used == 3
        assert _admitted(store, "after")


def test_what_a_child_counts_stays_counted_when_its_parent_closes_the_store(path: str) -> None:
    told, tell = os.pipe()
    with closing(SqliteStore(path, SystemClock())) as store:
        _admitted(store, "parent")
        child = _forked(lambda: _admitted(store, "first") and os.read(told, 1) == b"x" and _admitted(store, "second"))
        time.sleep(0.1)
        store.close()
        os.write(tell, b"x")
        assert _code(child) == 0
    with closing(SqliteStore(path, SystemClock())) as other:
        assert other.limits(RULES).used == 3
    os.close(told)
    os.close(tell)


def test_a_store_in_memory_keeps_what_it_has_when_its_process_forks() -> None:
    with closing(SqliteStore(":memory:", ManualClock())) as store:
        store.put("a", b"1")
        child = _forked(lambda: store.get("a", 60) is None)  # private: the child has one of its own
        assert _code(child) == 0
        assert store.get("a", 60) is not None


# ------------------------------------------------------------------------------------------------------- exchange


def _ask(
    transport: LazyTransport | SimTransport, method: Literal["GET", "POST"], path: str, body: bytes = b""
) -> Response:
    return transport.send(Request(method, path, body=body or None), connect_timeout_s=5.0, read_timeout_s=5.0)


def _buy(transport: LazyTransport | SimTransport, name: str) -> bool:
    order = {"symbol": "AAPL", "qty": "1", "side": "buy", "type": "limit", "limit_price": "1", "time_in_force": "gtc"}
    body = json.dumps({**order, "client_order_id": name})
    return _ask(transport, "POST", "/v2/orders", body.encode()).status == 200


def test_parent_and_child_trade_on_one_account_of_the_exchange(tmp_path: Path) -> None:
    clock: Clock = SystemClock()
    with closing(SimTransport(str(tmp_path), clock)) as exchange:
        assert _buy(exchange, "before")
        child = _forked(
            lambda: _buy(exchange, "child") and _ask(exchange, "GET", "/v2/orders").body.count(b'"AAPL"') == 2
        )
        assert _code(child) == 0
        assert _buy(exchange, "after")
        assert _ask(exchange, "GET", "/v2/orders").body.count(b'"AAPL"') == 3
    assert _code(_forked(lambda: _refuses(exchange))) == 0


def _refuses(exchange: SimTransport) -> bool:
    """Tell whether an exchange that was closed stays closed."""
    try:
        return _buy(exchange, "late") and False
    except Exception:  # noqa: BLE001 # whatever SQLite calls it
        return True


def test_a_transport_that_is_being_made_is_made_before_a_fork() -> None:
    making = threading.Event()

    class Made:
        def send(self, request: Request, *, connect_timeout_s: float, read_timeout_s: float) -> Response:
            return Response(200, {}, b"")

        def close(self) -> None: ...

    def make() -> Made:
        making.set()
        time.sleep(0.3)  # imports, which a child would wait for: the thread that does them is not there
        return Made()

    transport = LazyTransport(make)
    thread = threading.Thread(target=_ask, args=(transport, "GET", "/"))
    thread.start()
    making.wait(10)
    making.clear()
    child = _forked(lambda: _ask(transport, "GET", "/").status == 200 and not making.is_set())
    assert _code(child) == 0
    thread.join()


# ---------------------------------------------------------------------------------------------------------- turns


def _is_free(turns: Turns) -> bool:
    """Tell whether another thread could take the turn now."""
    found: list[bool] = []

    def take() -> None:
        found.append(turns.acquire(timeout=0))
        if found[0]:
            turns.release()

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return found[0]


@pytest.fixture
def turns() -> Turns:
    return Turns()


def test_a_fork_takes_a_turn_and_gives_it_back(turns: Turns) -> None:
    taken = threading.Event()

    def work() -> None:
        with turns:
            taken.set()
            time.sleep(0.2)
            over.append(time.monotonic())

    over: list[float] = []
    thread = threading.Thread(target=work)
    thread.start()
    taken.wait(10)
    child = _forked(lambda: bool(over) and _is_free(turns) and _works(turns))
    assert _code(child) == 0
    assert _is_free(turns)
    thread.join()


def _works(turns: Turns) -> bool:
    with turns:
        return turns.is_ours() and not _is_free(turns)


def test_ctrl_c_while_a_turn_is_taken_leaves_nobody_with_it() -> None:
    """In a method of Python's it could come between having the lock and saying so; a lock's own cannot be interrupted."""
    assert "__enter__" not in vars(Turns)
    assert "acquire" not in vars(Turns)


def test_what_is_gone_is_not_told_of_a_fork() -> None:
    class Owner:
        def __init__(self) -> None:
            self.turns = Turns(self)

        def let_go(self) -> None:
            told.append("closed")

        def abandon(self) -> None: ...

    told: list[str] = []
    owner = Owner()
    assert _code(_forked(lambda: told == ["closed"])) == 0
    del owner
    assert _code(_forked(lambda: told == ["closed"])) == 0


def _held(turns: Turns, until: threading.Event) -> threading.Thread:
    """Have another thread keep the turn."""
    taken = threading.Event()

    def keep() -> None:
        with turns:
            taken.set()
            until.wait(30)

    thread = threading.Thread(target=keep)
    thread.start()
    assert taken.wait(10)
    return thread


def test_a_fork_does_not_wait_for_ever_and_the_child_can_go_on_all_the_same() -> None:
    abandoned: list[str] = []

    class Owner:
        def __init__(self) -> None:
            self.turns = Turns(self, patience_s=0.1)

        def let_go(self) -> None:
            abandoned.append("closed")

        def abandon(self) -> None:
            abandoned.append("abandoned")

    turns, owner, over = Turns(patience_s=0.1), Owner(), threading.Event()
    threads = [_held(turns, over), _held(owner.turns, over)]
    child = _forked(lambda: _is_free(turns) and _is_free(owner.turns) and abandoned == ["abandoned"])
    assert _code(child) == 0
    assert not _is_free(turns)
    assert not abandoned
    over.set()
    for thread in threads:
        thread.join()
    assert _is_free(turns)


def test_forks_of_two_threads_leave_no_turn_taken(turns: Turns) -> None:
    others = [Turns(patience_s=0.2) for _ in range(3)]
    over = threading.Event()
    holder = _held(others[1], over)  # both forks wait for it, with the turns after it taken
    codes: list[int] = []
    forking = [threading.Thread(target=lambda: codes.append(_code(_forked(lambda: True)))) for _ in range(2)]
    for thread in forking:
        thread.start()
    for thread in forking:
        thread.join()
    over.set()
    holder.join()
    assert codes == [0, 0]
    assert all(map(_is_free, (turns, *others)))


def _released(turns: Turns) -> bool:
    turns.release()
    return _is_free(turns)


def _closed(threads: Threads) -> bool:
    threads.close()
    return True


def test_a_fork_by_the_thread_that_has_the_turn_leaves_it_to_it(turns: Turns, tmp_path: Path) -> None:
    with turns:
        child = _forked(lambda: turns.is_ours() and not _is_free(turns) and _released(turns))
        assert _code(child) == 0
        assert not _is_free(turns)
    state = State(str(tmp_path), Meta(1, "always", "1000", 0))
    with state.write() as db:
        db.execute("CREATE TABLE mine (one)")
        assert _code(_forked(lambda: True)) == 0
        db.execute("INSERT INTO mine VALUES (1)")
    with state.read() as db:
        assert db.execute("SELECT count(*) FROM mine").fetchone()[0] == 1
    state.close()


def test_a_child_of_a_parent_that_is_at_work_in_the_exchange_opens_it_anew(tmp_path: Path) -> None:
    state = State(str(tmp_path), Meta(1, "always", "1000", 0))
    state._lock.patience_s = 0.1
    begun, over = threading.Event(), threading.Event()

    def work() -> None:
        with state.read():
            begun.set()
            over.wait(30)

    def written() -> bool:
        with state.write() as db:
            db.execute("CREATE TABLE mine (one)")
        return True

    thread = threading.Thread(target=work)
    thread.start()
    begun.wait(10)
    assert _code(_forked(written)) == 0
    over.set()
    thread.join()
    with state.read() as db:
        assert db.execute("SELECT count(*) FROM mine").fetchone()[0] == 0
    state.close()


def test_threads_of_a_parent_that_is_at_work_hold_up_no_child() -> None:
    threads = Threads(2, "test")
    assert threads.submit(lambda: 1).result(10) == 1
    with threads._changed:  # as a thread of its own has it for a moment, again and again
        child = _forked(lambda: _closed(threads) and threads.submit(lambda: 2).result(10) == 2)
        assert _code(child) == 0
    assert threads.submit(lambda: 3).result(10) == 3
    threads.close()


def test_a_lock_that_goes_away_runs_nothing_in_which_ctrl_c_would_be_swallowed() -> None:
    """Python prints what is raised where something is collected, and goes on as if Ctrl-C had not been pressed."""
    turns = Turns()
    (known,) = [found for found in forks._all if found() is turns]
    assert not hasattr(known.__callback__, "__code__")
    del turns
    assert known not in forks._all
