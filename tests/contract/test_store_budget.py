"""The budget is exact: proved by random histories on a fake clock, and by eight real processes on a real one."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.support import valkey
from tests.support.fakes import ManualClock

from alpacli.ports import BudgetRules, Granted, Outcome, Refused, Ticket, Wait
from alpacli.store.sqlite import SqliteStore

WINDOW_S = 10.0
FLIGHT_S = 4.0
LIVENESS_S = 3.0
RULES = BudgetRules("alpaca:{fp}", limit=4, reserve=1, window_s=WINDOW_S, breaker_failures=10**6)
OK = Outcome(failed=False)
GIVEN_UP = Outcome(failed=True, doubtful=True)

steps = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(0, 5)),
        st.tuples(st.just("cancel"), st.integers(0, 2)),
        st.tuples(st.just("settle"), st.integers(0, 9)),
        st.tuples(st.just("give up"), st.integers(0, 9)),
        st.tuples(st.just("sleep"), st.sampled_from([0.0, 0.01, 0.5, 1.0, 2.9, 4.0, 9.99, 10.0, 10.01])),
    ),
    max_size=120,
)


class History:
    """Drives a store with random steps, playing callers and server, and checks it against the plain definition."""

    def __init__(self, arrives_late: bool) -> None:
        self.clock = ManualClock()
        self.store = SqliteStore(":memory:", self.clock, flight_s=FLIGHT_S, liveness_s=LIVENESS_S)
        self.arrives_late = arrives_late
        self.in_flight: list[tuple[Ticket, float]] = []
        self.forgotten: set[str] = set()
        self.settled: list[float] = []
        self.arrivals: list[float] = []
        self.waiting: dict[str, float] = {}
        self.tickets = 0
        self.names: dict[tuple[str, int], Ticket] = {}

    def ask(self, kind: str, caller: int) -> None:
        if (kind, caller) not in self.names:
            self.tickets += 1
            self.names[kind, caller] = Ticket(f"t{self.tickets}", kind, kind == "cancel")
        ticket = self.names[kind, caller]
        now = self.clock.time()
        self.forgotten |= {other.id for other, at in self.in_flight if now - at > WINDOW_S + FLIGHT_S}
        alone = not any(now <= until for other, until in self.waiting.items() if other != ticket.id)
        answer = self.store.admit(RULES, ticket)
        assert not isinstance(answer, Refused)
        slots = RULES.limit if ticket.urgent else RULES.limit - RULES.reserve
        if isinstance(answer, Granted):
            assert self.occupied(now) < slots
            self.in_flight.append((ticket, now))
            self.waiting.pop(ticket.id, None)
            del self.names[kind, caller]
        else:
            assert isinstance(answer, Wait)
            assert 0 < answer.seconds <= 1.0
            assert answer.seconds <= answer.earliest_s
            self.waiting[ticket.id] = now + LIVENESS_S
            # Nobody in front, and a slot free: then it must have been granted.
            assert not (alone and self.occupied(now) < slots)

    def occupied(self, now: float) -> int:
        settled = sum(now - at <= WINDOW_S for at in self.settled)
        return settled + sum(now - at <= WINDOW_S + FLIGHT_S for _, at in self.in_flight)

    def settle(self, which: int, outcome: Outcome = OK) -> None:
        if not self.in_flight:
            return
        ticket, granted_at = self.in_flight.pop(which % len(self.in_flight))
        now = self.clock.time()
        latest = granted_at + FLIGHT_S if outcome.doubtful else min(now, granted_at + FLIGHT_S)
        self.arrivals.append(latest if self.arrives_late else granted_at)
        self.store.settle(RULES, ticket, outcome)
        if ticket.id in self.forgotten:  # for all that is known by then, it was granted just now
            latest = now + FLIGHT_S
        self.settled.append(max(now, latest) if outcome.doubtful else now)

    def finish(self) -> None:
        """Let what was killed in flight have reached the server as late, or as early, as it can."""
        self.arrivals += [at + (FLIGHT_S if self.arrives_late else 0.0) for _, at in self.in_flight]
        self.store.close()


def fullest_window(arrivals: list[float], window_s: float) -> int:
    arrivals = sorted(arrivals)
    return max((sum(first <= at <= first + window_s for at in arrivals) for first in arrivals), default=0)


_LATE = [("ask", 0), ("sleep", 4.0), ("sleep", 10.01), ("ask", 0), ("ask", 1), ("give up", 0), ("sleep", 10.01)]


@example(steps=[*_LATE, ("ask", 2)], arrives_late=False)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=steps, arrives_late=st.booleans())
def test_whatever_happens_no_window_of_the_server_holds_more_than_the_limit_and_free_slots_are_given(
    steps: list[tuple[str, float]], arrives_late: bool
) -> None:
    history = History(arrives_late)
    for step, number in steps:
        if step == "sleep":
            history.clock.advance(number)
        elif step == "settle":
            history.settle(int(number))
        elif step == "give up":
            history.settle(int(number), GIVEN_UP)
        else:
            history.ask(step, int(number))
    history.finish()
    assert fullest_window(history.arrivals, WINDOW_S) <= RULES.limit


_WORKER = """
import json, os, sys, time
from alpacli.ports import BudgetRules, Granted, Outcome, SystemClock, Ticket
from alpacli.store.redis import RedisStore
from alpacli.store.sqlite import SqliteStore
where, count, limit, reserve, window = sys.argv[1], *map(float, sys.argv[2:])
store = RedisStore(where) if where.startswith("redis") else SqliteStore(where, SystemClock())
rules = BudgetRules("alpaca:{fp}", int(limit), int(reserve), window)
print("ready", flush=True)
begin = float(sys.stdin.readline() or time.time())
time.sleep(max(0, begin - time.time()))
sent, waited = [], False
while len(sent) < count:
    ticket = Ticket(os.urandom(8).hex(), "worker")
    asked = time.time()
    while not isinstance(answer := store.admit(rules, ticket), Granted):
        if not waited:
            print("waits", flush=True)
            waited = True
        time.sleep(answer.seconds)
    sent.append((asked, time.time()))
    store.settle(rules, ticket, Outcome(failed=False))
print(json.dumps(sent))
store.close()
"""


@pytest.fixture(params=["sqlite", "redis"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield str(tmp_path / "state" / "store.sqlite")
    else:
        with valkey.server(tmp_path) as server:
            yield server.url


def test_eight_processes_share_the_budget_exactly_all_get_their_turn_and_are_served_in_order(shared: str) -> None:
    limit, reserve, window_s, each = 44, 4, 1.5, 16
    command = [sys.executable, "-c", _WORKER, shared, *map(str, (each, limit, reserve, window_s))]
    workers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    begin = time.time() + 0.2
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write(f"{begin}\n")
        worker.stdin.flush()
    sent: list[tuple[float, float]] = []
    for worker in workers:
        out, _ = worker.communicate(timeout=100)
        assert worker.returncode == 0
        sent += [(asked, at) for asked, at in json.loads(out.splitlines()[-1])]
    assert len(sent) == 8 * each
    assert fullest_window([at for _, at in sent], window_s) <= limit - reserve
    # How close it comes to all of a window, and to the exact order, is measured in benchmarks/: here the machine may be so
    # busy that nobody is awake to take a slot. Who starves is served last, after nearly three windows of the others.
    passed_by_s = max(at - earlier for a, at in sent for b, earlier in sent if b - a > 0.1)
    assert passed_by_s < 2 * window_s


def test_a_waiter_that_is_killed_does_not_hold_up_the_others(shared: str) -> None:
    command = [sys.executable, "-c", _WORKER, shared, *map(str, (1000, 1, 0, 1.0))]
    workers = [subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for worker in workers:
        assert worker.stdout is not None
        assert [worker.stdout.readline() for _ in range(2)] == ["ready\n", "waits\n"]
    for worker in workers:
        worker.kill()
        worker.communicate()
    command = [sys.executable, "-c", _WORKER, shared, *map(str, (1, 1, 0, 1.0))]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=True)
    assert len(json.loads(done.stdout.splitlines()[-1])) == 1
