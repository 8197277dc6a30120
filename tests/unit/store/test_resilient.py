"""When the shared store fails: one warning, an answer from the next one, and a way back."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support import valkey
from tests.support.fakes import FixedRandomness, ManualClock

from alpacli import settings
from alpacli.errors import ConfigError, StoreUnavailable
from alpacli.ports import (
    BudgetRules,
    Entry,
    Granted,
    Host,
    Lead,
    Outcome,
    Refused,
    Store,
    SystemClock,
    SystemRandomness,
    Ticket,
    Wait,
)
from alpacli.store import FILE_NAME, open_store
from alpacli.store.resilient import ResilientStore
from alpacli.store.sqlite import SqliteStore

KEY = "alpaca:{fp}:account"
RULES = BudgetRules("alpaca:{fp}", limit=5, reserve=1)


class FlakyStore(SqliteStore):
    """A store that can be switched off."""

    broken = False
    asked = 0
    closed = False

    def __init__(self, path: str, clock: ManualClock) -> None:
        super().__init__(path, clock)
        self.dropped: list[str] = []
        self.meanwhile: Callable[[], object] = list
        """What others do while something is dropped."""

    def drop(self, prefix: str) -> int:
        if self.broken:
            raise StoreUnavailable("redis 127.0.0.1:1: refused", "start it")
        self.dropped.append(prefix)
        meanwhile, self.meanwhile = self.meanwhile, list
        meanwhile()
        return super().drop(prefix)

    def close(self) -> None:
        self.closed = True
        super().close()

    def admit(self, rules: BudgetRules, ticket: Ticket) -> Granted | Wait | Refused:
        self.asked += 1
        if self.broken:
            raise StoreUnavailable("redis 127.0.0.1:1: refused", "start it")
        return super().admit(rules, ticket)

    def get(self, key: str, max_age_s: float, *, count_miss: bool = True) -> Entry | None:
        self.asked += 1
        if self.broken:
            raise StoreUnavailable("redis 127.0.0.1:1: refused", "start it")
        return super().get(key, max_age_s, count_miss=count_miss)


def chain(clock: ManualClock) -> tuple[ResilientStore, FlakyStore, SqliteStore, list[str]]:
    warnings: list[str] = []
    first, second = FlakyStore(":memory:", clock), SqliteStore(":memory:", clock)
    first.kind = "redis"
    return ResilientStore([first, second], clock, FixedRandomness(), warnings.append), first, second, warnings


def test_the_next_store_answers_and_one_warning_is_given() -> None:
    store, first, second, warnings = chain(ManualClock())
    second.put(KEY, b"from the second")
    first.broken = True
    for _ in range(3):
        entry = store.get(KEY, 5)
        assert entry is not None
        assert entry.value == b"from the second"
    assert first.asked == 1
    assert store.kind == "memory"
    assert len(warnings) == 1
    assert "127.0.0.1:1: refused" in warnings[0]
    store.close()


def test_the_lost_store_is_tried_again_after_a_while_and_used_when_it_is_back() -> None:
    clock = ManualClock()
    store, first, _, warnings = chain(clock)
    first.broken = True
    store.get(KEY, 5)
    clock.advance(16.25)  # fifteen seconds, and up to a fifth more; here half of that
    store.get(KEY, 5)
    assert first.asked == 1
    clock.advance(0.25)
    store.get(KEY, 5)
    assert first.asked == 2
    first.broken = False
    clock.advance(16.5)
    store.get(KEY, 5)
    assert store.kind == "redis"
    first.broken = True
    store.get(KEY, 5)
    assert len(warnings) == 1
    store.close()


def test_what_was_dropped_while_the_store_was_lost_is_not_served_when_it_is_back() -> None:
    clock = ManualClock()
    store, first, _, _ = chain(clock)
    orders = "alpaca:{fp}:orders:open"
    store.put(KEY, b"before the order")
    store.put(orders, b"kept")
    first.broken = True
    store.drop(KEY)
    clock.advance(5)
    store.drop("".join(KEY))
    first.broken = False
    clock.advance(20)
    assert store.get(KEY, 3600) is None
    found = store.get(orders, 3600)
    assert found is not None
    assert found.value == b"kept"
    assert first.dropped == [KEY]
    store.close()


def test_a_store_that_is_lost_again_while_it_catches_up_catches_up_later() -> None:
    clock = ManualClock()
    store, first, _, _ = chain(clock)
    store.put(KEY, b"before the order")
    first.broken = True
    store.drop(KEY)
    clock.advance(20)
    assert store.get(KEY, 3600) is None
    first.broken = False
    clock.advance(20)
    assert store.get(KEY, 3600) is None
    assert store.kind == "redis"
    store.close()


def test_what_is_owed_to_a_lost_store_stays_small() -> None:
    clock = ManualClock()
    store, first, _, _ = chain(clock)
    first.broken = True
    store.drop("alpaca:{fp}:orders")
    store.drop("alpaca:{fp}:orders:open")
    store.drop("alpaca:{other}:orders:open")
    store.drop("alpaca:{other}:orders")
    store.drop("alpaca:{other}:orders2")
    first.broken = False
    clock.advance(20)
    store.get(KEY, 5)
    assert first.dropped == ["alpaca:{fp}:orders", "alpaca:{other}:orders", "alpaca:{other}:orders2"]
    store.close()


@pytest.mark.parametrize("count", [32, 33, 200])
def test_of_many_prefixes_owed_to_a_lost_store_the_whole_account_remains(count: int) -> None:
    clock = ManualClock()
    store, first, _, _ = chain(clock)
    first.broken = True
    names = [f"alpaca:{{fp}}:fn:{n}" for n in range(count)]
    for name in names:
        store.drop(name)
    first.broken = False
    clock.advance(20)
    store.get(KEY, 5)
    assert first.dropped == (names if count == 32 else ["alpaca:{fp}"])
    store.close()


@pytest.mark.parametrize("again", [KEY, "alpaca:{fp}"])
def test_what_is_dropped_while_the_store_catches_up_is_dropped_there_too(again: str) -> None:
    clock = ManualClock()
    store, first, _, _ = chain(clock)
    first.broken = True
    store.drop(KEY)
    first.broken = False
    clock.advance(20)

    def lost_for_another_thread() -> None:
        first.broken = True
        store.drop(again)
        first.broken = False

    first.meanwhile = lost_for_another_thread
    store.get(KEY, 5)
    clock.advance(20)
    store.get(KEY, 5)
    assert first.dropped == [KEY, again]
    store.get(KEY, 5)
    assert first.dropped == [KEY, again]  # and owed no more
    store.close()


def test_close_closes_every_store() -> None:
    clock = ManualClock()
    stores = [FlakyStore(":memory:", clock) for _ in range(3)]
    ResilientStore(stores, clock, FixedRandomness(), print).close()
    assert all(one.closed for one in stores)


def test_every_operation_goes_through() -> None:
    store, _, _, warnings = chain(ManualClock())
    ticket = Ticket("t", "job")
    assert isinstance(store.claim(KEY, 5, 5, "a"), Lead)
    assert store.renew(KEY, "a", 5)
    assert store.publish(KEY, "a", b"x")
    store.release(KEY, "a")
    store.put(KEY, b"y")
    assert store.cache_stats("alpaca:{fp}").entries == 1
    assert isinstance(store.admit(RULES, ticket), Granted)
    store.settle(RULES, ticket, Outcome(failed=False))
    store.leave(RULES, ticket)
    assert store.limits(RULES).used == 1
    assert store.drop("alpaca:{fp}") == 1
    assert warnings == []
    store.close()


def opened(state_dir: Path, redis_url: str = "") -> tuple[Store, list[str]]:
    warnings: list[str] = []
    env = {"ALPACLI_STATE_DIR": str(state_dir), "ALPACLI_CONFIG_DIR": str(state_dir.parent / "none")}
    resolved = settings.load(env=env | ({"REDIS_URL": redis_url} if redis_url else {}))
    return open_store(resolved, SystemClock(), SystemRandomness(), warnings.append), warnings


def test_without_a_redis_url_the_file_in_the_state_directory_is_used(tmp_path: Path) -> None:
    store, warnings = opened(tmp_path / "state")
    store.put(KEY, b"x")
    assert store.kind == "sqlite"
    assert (tmp_path / "state" / FILE_NAME).exists()
    assert warnings == []
    store.close()


def test_with_redis_down_the_embedded_store_takes_over_and_the_password_stays_hidden(tmp_path: Path) -> None:
    store, warnings = opened(tmp_path / "state", f"redis://:hunter2@127.0.0.1:{valkey.free_port()}")
    for n in range(3):
        assert isinstance(store.admit(RULES, Ticket(f"t{n}", "job")), Granted)
    assert store.kind == "sqlite"
    assert len(warnings) == 1
    assert "hunter2" not in warnings[0]
    other, _ = opened(tmp_path / "state")
    assert other.limits(RULES).used == 3
    other.close()
    store.close()


def test_with_redis_down_and_no_state_directory_one_warning_tells_both(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("in the way")
    store, warnings = opened(tmp_path / "state", f"redis://127.0.0.1:{valkey.free_port()}")
    assert isinstance(store.admit(RULES, Ticket("t", "job")), Granted)
    assert store.kind == "memory"
    assert len(warnings) == 1
    assert "refused" in warnings[0]
    assert str(tmp_path) in warnings[0]
    store.close()


@pytest.mark.parametrize("trouble", ["a file in the way", "corrupt"])
def test_a_broken_state_directory_costs_one_warning_and_no_answer(tmp_path: Path, trouble: str) -> None:
    state = tmp_path / "state"
    if trouble == "corrupt":
        state.mkdir()
        (state / FILE_NAME).write_bytes(b"no database at all" * 500)
    else:
        state.write_text("in the way")
    store, warnings = opened(state)
    store.put(KEY, b"x")
    assert isinstance(store.get(KEY, 5), Entry)
    assert isinstance(store.admit(RULES, Ticket("t", "job")), Granted)
    assert store.kind == "memory"
    assert len(warnings) == 1
    store.close()


def test_clearing_the_cache_of_a_corrupt_file_heals_it(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / FILE_NAME).write_bytes(b"no database at all" * 500)
    store, warnings = opened(tmp_path / "state")
    assert store.drop("alpaca:{fp}") == 0
    store.put(KEY, b"x")
    assert store.kind == "sqlite"
    assert warnings == []
    store.close()


def test_a_redis_server_is_used_when_it_is_there(tmp_path: Path) -> None:
    with valkey.server(tmp_path) as server:
        store, warnings = opened(tmp_path / "state", server.url)
        store.put(KEY, b"x")
        assert store.kind == "redis"
        server.kill()
        assert store.get(KEY, 5) is None
        assert store.kind == "sqlite"
        assert len(warnings) == 1
        store.close()


def test_a_redis_url_that_cannot_be_read_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="REDIS_URL"):
        opened(tmp_path / "state", "http://localhost")


def test_redis_loads_only_when_it_is_used(tmp_path: Path) -> None:
    program = (
        "import sys; from alpacli import settings; from alpacli.ports import *; from alpacli.store import open_store\n"
        f"env = {{'ALPACLI_STATE_DIR': {str(tmp_path)!r}, 'ALPACLI_CONFIG_DIR': {str(tmp_path)!r}}}\n"
        "store = open_store(settings.load(env=env), SystemClock(), SystemRandomness(), print)\n"
        "store.put('alpaca:{fp}:account', b'x'); store.close(); print('redis' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "False\n"


# ------------------------------------------------------------------------------------------------- one budget, twice


def request(store: ResilientStore, number: int) -> bool:
    """Ask for a request, and send it when that is granted."""
    ticket = Ticket(f"t{number}", "test")
    if not isinstance(store.admit(RULES, ticket), Granted):
        store.leave(RULES, ticket)
        return False
    store.settle(RULES, ticket, Outcome(failed=False))
    return True


def test_a_lost_store_takes_no_count_of_this_machine_with_it() -> None:
    store, first, _, _ = chain(ManualClock())
    assert [request(store, number) for number in range(3)] == [True] * 3
    first.broken = True
    assert [request(store, number) for number in range(3, 6)] == [True, False, False]


def test_a_store_that_is_back_without_its_counts_gives_nothing_twice() -> None:
    clock = ManualClock()
    store, first, _, _ = chain(clock)
    first.broken = True
    assert [request(store, number) for number in range(3)] == [True] * 3
    first.broken = False
    clock.advance(20)
    assert [request(store, number) for number in range(3, 6)] == [True, False, False]
    assert store.kind == "redis"


def test_an_answer_frees_the_slot_here_and_there_after_one_window() -> None:
    clock = ManualClock()
    store, first, second, _ = chain(clock)
    assert request(store, 1)
    assert (first.limits(RULES).used, second.limits(RULES).used) == (1, 1)
    clock.advance(RULES.window_s + 0.001)
    assert (first.limits(RULES).used, second.limits(RULES).used) == (0, 0)


def test_a_grant_that_nothing_was_sent_with_is_given_back_here_and_there() -> None:
    store, first, second, _ = chain(ManualClock())
    ticket = Ticket("unused", "test")
    assert isinstance(store.admit(RULES, ticket), Granted)
    store.leave(RULES, ticket)
    assert (first.limits(RULES).used, second.limits(RULES).used) == (0, 0)


def test_a_shared_store_without_another_counts_alone() -> None:
    clock = ManualClock()
    shared = FlakyStore(":memory:", clock)
    shared.kind = "redis"
    store = ResilientStore([shared], clock, FixedRandomness(), print)
    assert request(store, 1)
    assert shared.limits(RULES).used == 1


@pytest.mark.parametrize("path", ["store.db", ":memory:"])
def test_without_a_shared_store_a_request_is_counted_once_and_by_whoever_works(tmp_path: Path, path: str) -> None:
    clock = ManualClock()
    file = FlakyStore(path if path == ":memory:" else str(tmp_path / path), clock)
    memory = SqliteStore(":memory:", clock)
    store = ResilientStore([file, memory], clock, FixedRandomness(), print)
    assert request(store, 1)
    assert (file.limits(RULES).used, memory.limits(RULES).used) == (1, 0)
    file.broken = True
    assert request(store, 2)
    assert memory.limits(RULES).used == 1


def test_who_waits_for_other_machines_keeps_what_it_has_here_and_takes_one_place() -> None:
    clock = ManualClock()
    store, first, second, _ = chain(clock)
    for number in range(4):
        other = Ticket(f"elsewhere{number}", "test")
        assert isinstance(first.admit(RULES, other), Granted)
        first.settle(RULES, other, Outcome(failed=False))
    mine = Ticket("mine", "test")
    for _ in range(61):
        assert isinstance(store.admit(RULES, mine), Wait)
        clock.advance(1.0)
        if clock.time() - 1_780_000_000.0 > RULES.window_s:
            break
    assert isinstance(store.admit(RULES, mine), Granted)
    assert (first.limits(RULES).used, second.limits(RULES).used) == (1, 1)
    store.settle(RULES, mine, Outcome(failed=False))
    assert (first.limits(RULES).used, second.limits(RULES).used) == (1, 1)


def test_who_is_refused_for_all_machines_leaves_its_place_here() -> None:
    store, first, second, _ = chain(ManualClock())
    for number in range(RULES.breaker_failures):
        other = Ticket(f"elsewhere{number}", "test", urgent=True)
        first.admit(RULES, other)
        first.settle(RULES, other, Outcome(failed=True))
    assert isinstance(store.admit(RULES, Ticket("mine", "test")), Refused)
    assert second.limits(RULES).used == 0


def test_limits_are_those_of_whoever_has_less_left() -> None:
    clock = ManualClock()
    store, first, second, _ = chain(clock)
    for number in range(2):
        request(store, number)
    other = Ticket("elsewhere", "test")
    first.admit(RULES, other)
    first.settle(RULES, other, Outcome(failed=False))
    assert (store.limits(RULES).used, first.limits(RULES).used, second.limits(RULES).used) == (3, 3, 2)
    clock.advance(5.0)
    first.broken = True
    for number in range(2, 4):
        request(store, number)
    first.broken = False
    assert second.limits(RULES).used == 4
    for _ in range(2):  # while it is taken for lost, and afterwards, when it answers again without what it missed
        assert (store.limits(RULES).used, store.limits(RULES).left) == (4, 1)
        assert store.limits(RULES).reset_s == second.limits(RULES).reset_s
        assert store.limits(RULES).utilisation == second.limits(RULES).utilisation
        clock.advance(20.0)
    assert first.limits(RULES).used == 3


def test_limits_tell_of_a_server_with_less_than_this_machine_was_told_of() -> None:
    for shared, here in ((4, 3), (3, 4)):
        store, first, second, _ = chain(ManualClock())
        assert store.limits(RULES).left == 5
        for known, limit in ((first, shared), (second, here)):
            ticket = Ticket(f"{limit}", "test")
            known.admit(RULES, ticket)
            told = Outcome(failed=False, remaining=limit - 1, limit=limit, reset_at=1_780_000_060.0)
            known.settle(RULES, ticket, told)
        assert (store.limits(RULES).limit, store.limits(RULES).left) == (3, 2)


def test_limits_are_compared_by_what_is_left_and_not_by_what_is_used() -> None:
    """Of one 2 of 4 are left and of the other 3 of 5, or 1 of 2."""
    for shared, here, left in (((4, 2), (5, 2), 2), ((5, 2), (4, 2), 2), ((5, 2), (2, 1), 1), ((5, 1), (5, 2), 3)):
        store, first, second, _ = chain(ManualClock())
        for known, (limit, used) in ((first, shared), (second, here)):
            for number in range(used):
                ticket = Ticket(f"{number}", "test", urgent=True)
                known.admit(RULES, ticket)
                known.settle(RULES, ticket, Outcome(failed=False, remaining=limit - number - 1, limit=limit))
        assert store.limits(RULES).left == left


def test_limits_name_everybody_who_waits_and_the_breaker_that_is_furthest_from_closed() -> None:
    clock = ManualClock()
    store, first, second, _ = chain(clock)
    pairs: tuple[tuple[SqliteStore, Host], ...] = ((first, "trading"), (second, "data"))
    for known, host in pairs:
        for number in range(RULES.breaker_failures):
            ticket = Ticket(f"{host}{number}", "test", urgent=True, host=host)
            known.admit(RULES, ticket)
            known.settle(RULES, ticket, Outcome(failed=True))
    for known in (first, second):
        for number in range(5):
            known.admit(
                RULES,
                Ticket(f"waits{number}", known.kind, urgent=number == 4, host="trading" if known is second else "data"),
            )
    report = store.limits(RULES)
    assert [breaker.state for breaker in report.breakers] == ["open", "open"]
    assert {waiting.label for waiting in report.waiting} == {first.kind, second.kind}
    assert len(report.waiting) == len(first.limits(RULES).waiting) + len(second.limits(RULES).waiting)
    clock.advance(RULES.breaker_open_s / 2)
    for number in range(RULES.breaker_failures):  # again, and later: the longer pause is told
        ticket = Ticket(f"again{number}", "test", urgent=True)
        second.admit(RULES, ticket)
        second.settle(RULES, ticket, Outcome(failed=True))
    assert store.limits(RULES).breakers[0].retry_in_s == max(
        known.limits(RULES).breakers[0].retry_in_s for known in (first, second)
    )


def test_a_state_directory_that_fails_leaves_the_counting_to_the_shared_store_and_is_tried_again_after_a_while() -> (
    None
):
    clock = ManualClock()
    store, first, second, warnings = chain(clock)
    broken = FlakyStore(":memory:", clock)
    broken.broken = True
    store = ResilientStore([first, broken, second], clock, FixedRandomness(), warnings.append)
    assert [request(store, number) for number in range(6)] == [True] * 4 + [False] * 2
    assert store.kind == "redis"
    assert warnings == []
    assert broken.asked == 1
    clock.advance(16.25)
    request(store, 6)
    assert broken.asked == 1
    broken.broken = False
    clock.advance(0.25)
    request(store, 7)
    assert broken.asked == 2
