"""What every store promises, as one list of cases: embedded file, memory, a real server, fakeredis, a real cluster."""

import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import fakeredis
import pytest
from redis import Redis
from tests.support import valkey
from tests.support.budget import probes
from tests.support.fakes import ManualClock

from alpacli.ports import (
    BudgetRules,
    Busy,
    Clock,
    Entry,
    Granted,
    Host,
    Lead,
    Outcome,
    Refused,
    Store,
    SystemClock,
    Ticket,
    Wait,
)
from alpacli.store.policy import LIVENESS_S as REAL_LIVENESS_S
from alpacli.store.redis import RedisStore
from alpacli.store.sqlite import SqliteStore

U = 0.4
"""The unit of time: long against a slow test machine, short against patience. A fake clock jumps over it."""

FLIGHT_S = 4 * U
LIVENESS_S = 4 * U
GRACE_S = 2 * U
a_sqlite_store = partial(SqliteStore, flight_s=FLIGHT_S, liveness_s=LIVENESS_S, grace_s=GRACE_S)
a_redis_store = partial(RedisStore, flight_s=FLIGHT_S, liveness_s=LIVENESS_S, grace_s=GRACE_S)
OK = Outcome(failed=False)
FAILED = Outcome(failed=True)


class Bench:
    """One kind of store, an account of its own on it, and a way to let time pass."""

    def __init__(self, open_store: Callable[[], Store], clock: Clock) -> None:
        self._open = open_store
        self._opened: list[Store] = []
        self.now = clock.time
        self.sleep = clock.sleep
        self.scope = self.account()
        self.store = self.another()
        self._tickets = 0

    def another(self) -> Store:
        """Return the store as another process sees it (``:memory:`` has only the one)."""
        store = self._open()
        self._opened.append(store)
        return store

    def account(self) -> str:
        return f"alpaca:{{{os.urandom(6).hex()}}}"

    def key(self, name: str = "account") -> str:
        return f"{self.scope}:{name}"

    def rules(self, limit: int = 5, reserve: int = 2, window_s: float = 4 * U) -> BudgetRules:
        return BudgetRules(self.scope, limit, reserve, window_s, breaker_failures=3, breaker_open_s=3 * U)

    def ticket(self, *, urgent: bool = False, host: Host = "trading") -> Ticket:
        self._tickets += 1
        return Ticket(f"t{self._tickets}", f"job {self._tickets}", urgent, host)

    def send(
        self,
        rules: BudgetRules,
        count: int = 1,
        outcome: Outcome = OK,
        *,
        urgent: bool = False,
        host: Host = "trading",
    ) -> None:
        """Send whole requests, each of which must be granted."""
        for _ in range(count):
            ticket = self.ticket(urgent=urgent, host=host)
            assert isinstance(self.store.admit(rules, ticket), Granted)
            self.store.settle(rules, ticket, outcome)

    def close(self) -> None:
        for store in self._opened:
            store.close()


@pytest.fixture(scope="session")
def cluster_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with valkey.cluster(tmp_path_factory.mktemp("cluster")) as servers:
        yield "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in servers)


@pytest.fixture(params=["sqlite", "memory", "redis", "fakeredis", "cluster"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    one = a_bench(request.param, request, tmp_path)
    yield one
    one.close()


def a_bench(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, sqlite: Any = a_sqlite_store, redis: Any = a_redis_store
) -> Bench:
    """Return a store on a clock that jumps; a cluster's scripts wait for the servers' own."""
    clock = ManualClock()
    if kind == "sqlite":
        path = str(tmp_path / "state" / "store.sqlite")
        return Bench(lambda: sqlite(path, clock), clock)
    if kind == "memory":
        memory = sqlite(":memory:", clock)
        return Bench(lambda: memory, clock)
    if kind == "fakeredis":
        server = fakeredis.FakeServer()
        return Bench(
            lambda: redis("redis://fake", connect=lambda: valkey.OnClock(fakeredis.FakeRedis(server=server), clock)),
            clock,
        )
    if kind == "redis":
        url = request.getfixturevalue("valkey_url")
        return Bench(lambda: redis(url, connect=lambda: valkey.OnClock(Redis.from_url(url), clock)), clock)
    url = request.getfixturevalue("cluster_url")
    return Bench(lambda: redis(url), SystemClock())


# ----------------------------------------------------------------------------------------------------- cache


@pytest.mark.parametrize(
    "value", [b"", b'{"equity":"100000.10"}', bytes(range(256)) * 4000], ids=["empty", "json", "1MB"]
)
def test_a_value_comes_back_byte_for_byte_with_its_age(bench: Bench, value: bytes) -> None:
    bench.store.put(bench.key(), value)
    bench.sleep(U)
    entry = bench.another().get(bench.key(), 60)
    assert entry is not None
    assert entry.value == value
    assert U <= entry.age_s < 20 * U


def test_an_entry_older_than_asked_for_is_a_miss_and_stays_for_who_takes_older_ones(bench: Bench) -> None:
    bench.store.put(bench.key(), b"x")
    bench.sleep(2 * U)
    assert bench.store.get(bench.key(), U) is None
    assert bench.store.get(bench.key(), 60) is not None
    assert bench.store.get(bench.key(), float("inf")) is not None


def test_one_leads_others_are_told_to_look_again_and_then_share_the_answer(bench: Bench) -> None:
    other = bench.another()
    assert bench.store.claim(bench.key(), 60, 60, "a") == Lead(bench.key(), "a")
    busy = other.claim(bench.key(), 60, 60, "b")
    assert isinstance(busy, Busy)
    assert 0 < busy.retry_in_s <= 1
    assert bench.store.publish(bench.key(), "a", b"answer")
    entry = other.claim(bench.key(), 60, 60, "b")
    assert isinstance(entry, Entry)
    assert entry.value == b"answer"


def test_a_stale_entry_is_fetched_anew_by_one(bench: Bench) -> None:
    bench.store.put(bench.key(), b"old")
    bench.sleep(2 * U)
    assert isinstance(bench.store.claim(bench.key(), U, 60, "a"), Lead)
    assert isinstance(bench.store.claim(bench.key(), U, 60, "b"), Busy)
    assert isinstance(bench.store.claim(bench.key(), 60, 60, "c"), Entry)


def test_release_lets_the_next_fetch_at_once(bench: Bench) -> None:
    bench.store.claim(bench.key(), 60, 60, "a")
    bench.store.release(bench.key(), "a")
    assert isinstance(bench.store.claim(bench.key(), 60, 60, "b"), Lead)


def test_release_by_another_changes_nothing(bench: Bench) -> None:
    bench.store.claim(bench.key(), 60, 60, "a")
    bench.store.release(bench.key(), "b")
    assert isinstance(bench.store.claim(bench.key(), 60, 60, "b"), Busy)


def test_a_killed_leader_is_replaced_after_its_lease_and_cannot_publish_any_more(bench: Bench) -> None:
    bench.store.claim(bench.key(), 60, U, "killed")
    bench.sleep(1.2 * U)
    assert isinstance(bench.store.claim(bench.key(), 60, 60, "next"), Lead)
    assert not bench.store.renew(bench.key(), "killed", 60)
    assert not bench.store.publish(bench.key(), "killed", b"late")
    assert bench.store.get(bench.key(), 60) is None
    assert bench.store.publish(bench.key(), "next", b"good")


@pytest.mark.parametrize("how", ["renew", "claim"])
def test_a_slow_leader_keeps_its_lease_by_renewing(bench: Bench, how: str) -> None:
    bench.store.claim(bench.key(), 60, 2 * U, "a")
    if how == "renew":
        assert bench.store.renew(bench.key(), "a", 60)
    else:
        assert isinstance(bench.store.claim(bench.key(), 60, 60, "a"), Lead)
    bench.sleep(2.2 * U)
    assert isinstance(bench.store.claim(bench.key(), 60, U, "b"), Busy)
    assert bench.store.publish(bench.key(), "a", b"x")
    assert bench.store.cache_stats(bench.scope).misses == 1


def test_dropping_while_a_fetch_is_under_way_discards_its_answer(bench: Bench) -> None:
    bench.store.claim(bench.key(), 60, 60, "a")
    bench.another().drop(bench.scope)
    assert not bench.store.publish(bench.key(), "a", b"from before the order")
    assert bench.store.get(bench.key(), 60) is None
    assert isinstance(bench.store.claim(bench.key(), 60, 60, "b"), Lead)


def test_drop_takes_the_name_and_what_is_below_it_and_counts_entries(bench: Bench) -> None:
    for name in ("orders:all:100", "orders:open:50", "orders", "orders2", "account"):
        bench.store.put(bench.key(name), b"x")
    assert bench.store.drop(bench.key("orders")) == 3
    assert bench.store.get(bench.key("orders:all:100"), 60) is None
    assert bench.store.get(bench.key("orders2"), 60) is not None
    assert bench.store.drop(bench.scope) == 2
    assert bench.store.drop(bench.scope) == 0


def test_two_accounts_never_mix(bench: Bench) -> None:
    other = bench.account()
    bench.store.put(f"{bench.scope}:account", b"mine")
    bench.store.put(f"{other}:account", b"theirs")
    bench.send(bench.rules(), 3)
    assert bench.store.drop(bench.scope) == 1
    entry = bench.store.get(f"{other}:account", 60)
    assert entry is not None
    assert entry.value == b"theirs"
    assert bench.store.limits(bench.rules()._replace(scope=other)).used == 0
    assert bench.store.cache_stats(bench.scope).hits == 0
    assert bench.store.cache_stats(other).hits == 1


def test_stats_count_hits_misses_entries_bytes_and_ages(bench: Bench) -> None:
    empty = bench.store.cache_stats(bench.scope)
    assert empty == (0, 0, 0, 0, None, None)
    bench.store.get(bench.key(), 60)
    bench.store.put(bench.key("account"), b"12345")
    bench.sleep(U)
    bench.store.put(bench.key("positions"), b"123")
    bench.store.get(bench.key(), 60)
    bench.store.claim(bench.key(), 60, 60, "a")
    bench.store.claim(bench.key("clock"), 60, 60, "a")
    bench.store.claim(bench.key("clock"), 60, 60, "b")
    stats = bench.another().cache_stats(bench.scope)
    assert stats[:4] == (2, 2, 2, 8)
    assert stats.oldest_age_s is not None
    assert stats.newest_age_s is not None
    assert stats.newest_age_s >= 0
    assert (
        stats.oldest_age_s - stats.newest_age_s >= U - 0.001
    )  # by the server's clock, and as a difference of two ages
    assert bench.store.cache_stats(bench.key("positions")).entries == 1


def test_of_twenty_threads_that_miss_together_one_fetches(bench: Bench) -> None:
    barrier = threading.Barrier(20)
    answers: list[Entry | Lead | Busy] = []

    def ask(token: str) -> None:
        barrier.wait()
        answers.append(bench.store.claim(bench.key(), 60, 60, token))

    threads = [threading.Thread(target=ask, args=(f"t{n}",)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(answer, Lead) for answer in answers) == 1
    assert sum(isinstance(answer, Busy) for answer in answers) == 19


# ---------------------------------------------------------------------------------------------------- budget


def test_reads_stop_at_the_reserve_and_urgent_ones_at_the_limit(bench: Bench) -> None:
    rules = bench.rules(window_s=60)
    bench.send(rules, 3)
    assert isinstance(bench.store.admit(rules, bench.ticket()), Wait)
    bench.send(rules, 2, urgent=True)
    assert isinstance(bench.store.admit(rules, bench.ticket(urgent=True)), Wait)
    assert bench.store.limits(rules).left == 0


def test_the_wait_it_names_is_enough_and_not_too_long(bench: Bench) -> None:
    rules = bench.rules(window_s=2 * U)
    bench.send(rules, 3)
    waiting = bench.ticket()
    wait = bench.store.admit(rules, waiting)
    assert isinstance(wait, Wait)
    assert U < wait.seconds <= 2 * U + 0.001
    assert wait.earliest_s == pytest.approx(wait.seconds)
    bench.sleep(wait.seconds)
    assert isinstance(bench.store.admit(rules, waiting), Granted)


def test_a_long_wait_is_cut_to_a_second_but_its_end_is_told(bench: Bench) -> None:
    rules = bench.rules(window_s=60)
    bench.send(rules, 3)
    waits = [bench.store.admit(rules, bench.ticket()) for _ in range(5)]
    for place, wait in enumerate(waits):
        assert isinstance(wait, Wait)
        assert wait.seconds == 1.0
        assert wait.ahead == place
        # Three slots a minute: the fourth in line needs the second round.
        assert (60 if place < 3 else 120) - 20 * U < wait.earliest_s <= (60 if place < 3 else 120) + 0.01


def test_tickets_are_served_in_order_of_arrival(bench: Bench) -> None:
    rules = bench.rules(window_s=2.5 * U)
    bench.send(rules, 1)
    bench.sleep(1.5 * U)
    bench.send(rules, 2)
    first, second, third = bench.ticket(), bench.ticket(), bench.ticket()
    for ticket in (first, second, third):
        assert isinstance(bench.store.admit(rules, ticket), Wait)
    bench.sleep(1.1 * U)  # one slot is free
    assert isinstance(bench.store.admit(rules, third), Wait)
    assert isinstance(bench.store.admit(rules, second), Wait)
    newcomer = bench.store.admit(rules, bench.ticket())
    assert isinstance(newcomer, Wait)
    assert newcomer.ahead == 3
    assert isinstance(bench.store.admit(rules, first), Granted)


def test_with_slots_free_for_all_the_first_in_line_still_goes_first(bench: Bench) -> None:
    rules = bench.rules(window_s=2 * U)
    bench.send(rules, 1)
    bench.sleep(U / 5)
    bench.send(rules, 2)
    tickets = [bench.ticket() for _ in range(4)]
    for ticket in tickets:
        assert isinstance(bench.store.admit(rules, ticket), Wait)
    bench.sleep(2.2 * U)  # three slots are free
    assert isinstance(bench.store.admit(rules, tickets[3]), Wait)  # for a slot
    for early in (tickets[2], tickets[1]):  # for their turn
        turn = bench.store.admit(rules, early)
        assert isinstance(turn, Wait)
        assert turn.seconds <= U  # it comes back at once, not only when a slot of its own would free
    for ticket in tickets[:3]:
        assert isinstance(bench.store.admit(rules, ticket), Granted)
    assert isinstance(bench.store.admit(rules, tickets[3]), Wait)


@pytest.mark.parametrize("kind", ["memory", "redis"])
def test_a_waiter_that_is_late_is_passed_but_its_slot_is_kept(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Late is: back later than it was told, and not yet given up."""
    bench = a_bench(kind, request, tmp_path, SqliteStore, RedisStore)
    rules = bench.rules(limit=2, reserve=0, window_s=2 * U)
    bench.send(rules, 2)
    late, prompt, newcomer = bench.ticket(), bench.ticket(), bench.ticket()
    for ticket in (late, prompt, newcomer):
        assert isinstance(bench.store.admit(rules, ticket), Wait)
    bench.sleep(3 * U)
    assert 3 * U < REAL_LIVENESS_S
    assert isinstance(bench.store.admit(rules, prompt), Granted)
    assert isinstance(bench.store.admit(rules, newcomer), Wait)  # the other free slot is kept for the late one
    assert isinstance(bench.store.admit(rules, late), Granted)
    bench.close()


def test_a_waiting_cancel_goes_before_waiting_reads(bench: Bench) -> None:
    rules = bench.rules(limit=2, reserve=0, window_s=4 * U)
    bench.send(rules, 1)
    bench.sleep(2 * U)
    bench.send(rules, 1)
    read, cancel = bench.ticket(), bench.ticket(urgent=True)
    assert isinstance(bench.store.admit(rules, read), Wait)
    wait = bench.store.admit(rules, cancel)
    assert isinstance(wait, Wait)
    assert wait.ahead == 0
    bench.sleep(2.2 * U)  # one slot is free
    assert isinstance(bench.store.admit(rules, read), Wait)
    assert isinstance(bench.store.admit(rules, cancel), Granted)


def test_a_killed_waiter_holds_up_nobody_for_longer_than_its_liveness(bench: Bench) -> None:
    rules = bench.rules(limit=1, reserve=0, window_s=U)
    bench.send(rules)
    killed, alive = bench.ticket(), bench.ticket()
    assert isinstance(bench.store.admit(rules, killed), Wait)
    assert isinstance(bench.store.admit(rules, alive), Wait)
    bench.sleep(1.5 * U)
    assert isinstance(bench.store.admit(rules, alive), Wait)
    bench.sleep(2.7 * U)
    assert isinstance(bench.store.admit(rules, alive), Granted)


def test_leaving_gives_the_place_to_the_next(bench: Bench) -> None:
    rules = bench.rules(limit=1, reserve=0, window_s=U)
    bench.send(rules)
    first, second = bench.ticket(), bench.ticket()
    bench.store.admit(rules, first)
    bench.store.admit(rules, second)
    bench.store.leave(rules, first)
    assert [waiting.label for waiting in bench.store.limits(rules).waiting] == [second.label]
    bench.sleep(1.1 * U)
    assert isinstance(bench.store.admit(rules, second), Granted)


def test_a_request_that_is_never_settled_counts_until_the_server_must_have_forgotten_it(bench: Bench) -> None:
    rules = bench.rules(limit=1, reserve=0, window_s=U)
    assert isinstance(bench.store.admit(rules, bench.ticket()), Granted)
    bench.sleep(2 * U)
    early = bench.ticket(urgent=True)
    assert isinstance(bench.store.admit(rules, early), Wait)
    bench.store.leave(rules, early)
    bench.sleep(FLIGHT_S - U + 0.2 * U)
    assert isinstance(bench.store.admit(rules, bench.ticket()), Granted)


@pytest.mark.parametrize("failed", [True, None], ids=["timeout", "interrupted"])
def test_a_request_without_an_answer_counts_for_one_window_after_the_latest_moment_the_server_can_see_it(
    bench: Bench, failed: bool | None
) -> None:
    """It may lie in the buffer of a server that is stalled, long after its sender gave up."""
    rules = bench.rules(limit=1, reserve=0, window_s=U)
    doubtful = bench.ticket()
    assert isinstance(bench.store.admit(rules, doubtful), Granted)
    bench.sleep(U)
    bench.store.settle(rules, doubtful, Outcome(failed, doubtful=True))
    bench.sleep(1.2 * U)
    early = bench.ticket(urgent=True)
    wait = bench.store.admit(rules, early)
    assert isinstance(wait, Wait)
    assert U < wait.earliest_s <= 2.8 * U + 0.01
    bench.store.leave(rules, early)
    bench.sleep(3 * U)
    assert isinstance(bench.store.admit(rules, bench.ticket()), Granted)


def test_a_request_that_is_given_up_after_its_time_in_flight_counts_from_then(bench: Bench) -> None:
    rules = bench.rules(limit=1, reserve=0, window_s=4 * U)
    doubtful = bench.ticket()
    bench.store.admit(rules, doubtful)
    bench.sleep(FLIGHT_S + 3 * U)
    bench.store.settle(rules, doubtful, Outcome(failed=True, doubtful=True))
    bench.sleep(1.4 * U)
    next_one = bench.ticket()
    assert isinstance(bench.store.admit(rules, next_one), Wait)
    bench.sleep(2.8 * U)
    assert isinstance(bench.store.admit(rules, next_one), Granted)


def test_a_slow_request_counts_from_its_end(bench: Bench) -> None:
    rules = bench.rules(limit=1, reserve=0, window_s=3 * U)
    slow = bench.ticket()
    bench.store.admit(rules, slow)
    bench.sleep(2.5 * U)
    bench.store.settle(rules, slow, OK)
    bench.sleep(U)  # three and a half since it began
    next_one = bench.ticket()
    assert isinstance(bench.store.admit(rules, next_one), Wait)
    bench.sleep(2.2 * U)
    assert isinstance(bench.store.admit(rules, next_one), Granted)


def test_a_ticket_used_twice_counts_twice(bench: Bench) -> None:
    rules = bench.rules(limit=5, reserve=0, window_s=60)
    ticket = bench.ticket()
    for _ in range(2):
        bench.store.admit(rules, ticket)
        bench.store.settle(rules, ticket, OK)
    bench.store.admit(rules, ticket)
    bench.store.admit(rules, ticket)
    assert bench.store.limits(rules).used == 4


def test_what_other_programs_use_lowers_the_budget_until_the_servers_reset(bench: Bench) -> None:
    rules = bench.rules(limit=10, reserve=0, window_s=60)
    now = bench.now()
    bench.send(rules, 1, OK._replace(remaining=3, limit=10, reset_at=now + 3 * U))
    report = bench.store.limits(rules)
    assert (report.used, report.foreign, report.left) == (7, 6, 3)
    bench.send(rules, 3)
    waiting = bench.ticket()
    wait = bench.store.admit(rules, waiting)
    assert isinstance(wait, Wait)
    assert 0 < wait.earliest_s <= 3 * U + 0.01
    bench.sleep(3.2 * U)
    assert isinstance(bench.store.admit(rules, waiting), Granted)


def test_our_own_requests_are_not_taken_for_foreign_ones(bench: Bench) -> None:
    rules = bench.rules(limit=10, reserve=0, window_s=60)
    in_flight = [bench.ticket() for _ in range(4)]
    for ticket in in_flight:
        bench.store.admit(rules, ticket)
    for n, ticket in enumerate(in_flight):
        bench.store.settle(rules, ticket, OK._replace(remaining=10 - n - 1, limit=10, reset_at=bench.now() + 60))
    report = bench.store.limits(rules)
    assert (report.used, report.foreign) == (4, 0)


def test_a_server_that_counts_less_than_we_do_never_raises_the_budget(bench: Bench) -> None:
    rules = bench.rules(limit=3, reserve=0, window_s=60)
    bench.send(rules, 3, OK._replace(remaining=199, limit=200, reset_at=bench.now() + 60))
    assert isinstance(bench.store.admit(rules, bench.ticket()), Wait)
    assert bench.store.limits(rules).limit == 3


def test_a_reset_far_away_or_missing_counts_for_one_window_at_most(bench: Bench) -> None:
    rules = bench.rules(limit=3, reserve=0, window_s=U)
    for reset_at in (None, bench.now() + 9999, 5.0):
        bench.send(rules, 1, OK._replace(remaining=0, limit=3, reset_at=reset_at))
        waiting = bench.ticket()
        assert isinstance(bench.store.admit(rules, waiting), Wait)
        bench.sleep(1.2 * U)
        assert isinstance(bench.store.admit(rules, waiting), Granted)
        bench.store.settle(rules, waiting, OK)
        bench.sleep(1.2 * U)


def test_a_lower_limit_of_the_server_holds_until_it_says_otherwise(bench: Bench) -> None:
    rules = bench.rules(limit=10, reserve=5, window_s=60)
    bench.send(rules, 1, OK._replace(limit=4, remaining=3))
    report = bench.store.limits(rules)
    assert (report.limit, report.reserve, report.left) == (4, 2, 3)
    bench.send(rules, 1)
    assert isinstance(bench.store.admit(rules, bench.ticket()), Wait)
    bench.send(rules, 1, OK._replace(limit=200), urgent=True)
    assert bench.store.limits(rules).limit == 10


def test_the_breaker_opens_for_everybody_after_failures_in_a_row_and_one_probe_closes_it(bench: Bench) -> None:
    rules = bench.rules(limit=100, reserve=0, window_s=60)
    bench.send(rules, 2, FAILED)
    bench.send(rules, 1, OK)
    bench.send(rules, 2, FAILED)
    assert bench.store.limits(rules).breaker == "closed"
    bench.send(rules, 1, FAILED)
    other = bench.another()
    refused = other.admit(rules, bench.ticket())
    assert isinstance(refused, Refused)
    assert 0 < refused.retry_in_s <= 3 * U
    assert other.limits(rules).breaker == "open"
    bench.sleep(3.1 * U)
    assert other.limits(rules).breaker == "half-open"
    probe = bench.ticket()
    assert probes(other.admit(rules, probe))
    held = bench.store.admit(rules, bench.ticket())
    assert isinstance(held, Refused)
    assert 0 < held.retry_in_s <= 1
    other.settle(rules, probe, OK)
    assert bench.store.admit(rules, bench.ticket()) == Granted(probe=False)
    assert bench.store.limits(rules).breaker == "closed"


@pytest.mark.parametrize(("failing", "healthy"), [("data", "trading"), ("trading", "data")])
def test_a_host_that_fails_holds_up_no_request_to_the_other(bench: Bench, failing: Host, healthy: Host) -> None:
    """Who cannot read quotes can still cancel: the two are different servers."""
    rules = bench.rules(limit=100, reserve=0, window_s=60)
    bench.send(rules, 2, FAILED, host=failing)
    bench.send(rules, 2, FAILED, host=healthy)
    bench.send(rules, 1, OK, host=healthy)  # it proves nothing of the one that fails
    bench.send(rules, 1, FAILED, host=failing)
    other = bench.another()
    assert isinstance(other.admit(rules, bench.ticket(host=failing)), Refused)
    bench.send(rules, 2, FAILED, host=healthy)
    assert other.admit(rules, bench.ticket(host=healthy)) == Granted(probe=False)
    report = other.limits(rules)
    assert {breaker.host: breaker.state for breaker in report.breakers} == {failing: "open", healthy: "closed"}
    assert (report.breaker, report.breaker_retry_in_s > 0) == ("open", True)
    bench.sleep(3.1 * U)
    probe = bench.ticket(host=failing)
    assert probes(other.admit(rules, probe))
    assert other.limits(rules).breaker == "half-open"
    assert other.admit(rules, bench.ticket(host=healthy)) == Granted(probe=False)
    other.settle(rules, probe, OK)
    assert bench.store.limits(rules).breaker == "closed"


def test_a_failed_probe_opens_the_breaker_again(bench: Bench) -> None:
    rules = bench.rules(limit=100, reserve=0, window_s=60)
    bench.send(rules, 3, FAILED)
    bench.sleep(3.1 * U)
    probe = bench.ticket()
    assert probes(bench.store.admit(rules, probe))
    bench.store.settle(rules, probe, FAILED)
    refused = bench.store.admit(rules, bench.ticket())
    assert isinstance(refused, Refused)
    assert refused.retry_in_s > U


def test_a_killed_probe_is_replaced(bench: Bench) -> None:
    rules = bench.rules(limit=100, reserve=0, window_s=60)
    bench.send(rules, 3, FAILED)
    bench.sleep(3.1 * U)
    assert probes(bench.store.admit(rules, bench.ticket()))
    bench.sleep(FLIGHT_S + 0.1 * U)
    assert probes(bench.store.admit(rules, bench.ticket()))


def test_limits_tell_who_waits_and_how_much_of_the_hour_was_used(bench: Bench) -> None:
    rules = bench.rules(window_s=60)
    bench.send(rules, 3)
    read, cancel = bench.ticket(), bench.ticket(urgent=True)
    bench.store.admit(rules, read)
    bench.send(rules, 2, urgent=True)
    bench.store.admit(rules, cancel)
    report = bench.another().limits(rules)
    assert [(waiting.label, waiting.urgent) for waiting in report.waiting] == [
        (cancel.label, True),
        (read.label, False),
    ]
    assert all(0 <= waiting.since_s < 20 * U for waiting in report.waiting)
    assert report.utilisation == pytest.approx(5 / (5 * 60))
    assert 0 < report.reset_s <= 60
    assert (report.limit, report.reserve, report.used, report.left) == (5, 2, 5, 0)
    assert (report.breaker, report.breaker_retry_in_s) == ("closed", 0)


def test_a_grant_that_nothing_was_sent_with_is_given_back(bench: Bench) -> None:
    """Who is interrupted between the grant and the request costs the others nothing."""
    rules = bench.rules(limit=1, reserve=0, window_s=60)
    unused = bench.ticket()
    assert isinstance(bench.store.admit(rules, unused), Granted)
    bench.store.leave(rules, unused)
    assert bench.store.limits(rules).used == 0
    assert isinstance(bench.store.admit(rules, bench.ticket()), Granted)


def test_requests_that_nobody_waited_for_tell_the_breaker_nothing(bench: Bench) -> None:
    """Interrupting a hanging request is neither a failure nor a proof that the broker is well."""
    rules = bench.rules(limit=100, reserve=0, window_s=60)
    unknown = Outcome(failed=None)
    bench.send(rules, 2, FAILED)
    bench.send(rules, 1, unknown)
    assert bench.store.limits(rules).breaker == "closed"
    bench.send(rules, 1, FAILED)
    assert bench.store.limits(rules).breaker == "open"
    assert bench.store.limits(rules).used == 4


@pytest.mark.parametrize("how", ["interrupted", "left"])
def test_a_probe_without_an_answer_lets_the_next_one_go(bench: Bench, how: str) -> None:
    rules = bench.rules(limit=100, reserve=0, window_s=60)
    bench.send(rules, 3, FAILED)
    bench.sleep(3.2 * U)
    probe = bench.ticket()
    assert probes(bench.store.admit(rules, probe))
    if how == "left":
        bench.store.leave(rules, probe)
    else:
        bench.store.settle(rules, probe, Outcome(failed=None))
    assert bench.store.limits(rules).breaker == "half-open"
    assert probes(bench.store.admit(rules, bench.ticket()))


def test_a_larger_limit_of_the_server_is_not_taken_for_others_requests(bench: Bench) -> None:
    """An account with 1,000 requests of which others used 500 still has all of ours, until less is left than that."""
    rules = bench.rules(limit=10, reserve=0, window_s=60)
    bench.send(rules, 1, OK._replace(limit=1000, remaining=500, reset_at=bench.now() + 60))
    assert bench.store.limits(rules).left == 9
    bench.send(rules, 1, OK._replace(limit=99_999_999_999, remaining=4, reset_at=bench.now() + 60))
    report = bench.store.limits(rules)
    assert (report.foreign, report.left) == (4, 4)


def test_a_limit_of_zero_is_no_limit_and_what_remains_still_counts(bench: Bench) -> None:
    rules = bench.rules(limit=10, reserve=0, window_s=60)
    bench.send(rules, 1, OK._replace(limit=0, remaining=0, reset_at=bench.now() + 60))
    report = bench.store.limits(rules)
    assert (report.limit, report.left) == (10, 0)


def test_a_callers_own_limit_never_hides_the_servers_from_another(bench: Bench) -> None:
    """Two programs with limits of their own share what the server said, whoever heard it last."""
    large, small = bench.rules(limit=20, reserve=0), bench.rules(limit=5, reserve=0)
    bench.send(large, 1, OK._replace(limit=8))
    bench.send(small, 1, OK._replace(limit=8))
    assert bench.store.limits(large).limit == 8
    assert bench.store.limits(small).limit == 5
