"""What only the store in Redis has: notes and fields that stay, keys that go by themselves, values that it did not write."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis
from tests.support import valkey
from tests.support.fakes import SetClock

from alpacli.ports import BudgetRules, Granted, Lead, Outcome, Ticket, Wait
from alpacli.store.redis import RedisStore

HOUR_S = 3600
DAY_S = 24 * HOUR_S


class Shared:
    """A store in Redis on a clock of the test's, and a look at what the server has."""

    def __init__(self, url: str) -> None:
        self.clock = SetClock()
        self.server: Any = Redis.from_url(url)
        self.store = RedisStore(url, connect=lambda: valkey.OnClock(Redis.from_url(url), self.clock))
        self.scope = f"alpaca:{{{os.urandom(6).hex()}}}"
        self.rules = BudgetRules(self.scope, limit=2, reserve=0, window_s=10.5)

    def key(self, name: str) -> str:
        return f"{self.scope}:{name}"

    def ask(self, name: str) -> object:
        return self.store.admit(self.rules, Ticket(name, "asks"))

    def lives(self, **expected_s: int) -> bool:
        """Tell whether these are the account's keys, and each lives for so long; a busy machine may look late."""
        names = {name.decode().removeprefix(f"{self.scope}:~"): self.server.ttl(name) for name in self.keys()}
        assert names.keys() == expected_s.keys()
        return all(expected_s[name] - 30 < ttl <= expected_s[name] for name, ttl in names.items())

    def keys(self) -> list[bytes]:
        return list(self.server.keys(f"{self.scope}:*"))


@pytest.fixture
def shared(valkey_url: str) -> Iterator[Shared]:
    one = Shared(valkey_url)
    yield one
    one.store.close()
    one.server.close()


# --------------------------------------------------------------------------------------------------- what stays


def test_a_note_stays_and_each_change_and_removal_counts(shared: Shared) -> None:
    key = shared.key("~halt")
    assert shared.store.note(key) == (0, None)
    assert shared.store.set_note(key, b"one") == 1
    assert shared.store.note(key) == (1, b"one")
    assert shared.store.set_note(key, b"") == 2
    assert shared.store.note(key) == (2, b"")
    assert shared.store.set_note(key, None) == 3
    assert shared.store.note(key) == (3, None)
    assert shared.server.ttl(key) == -1


def test_a_field_stays_beside_the_others_until_it_is_removed(shared: Shared) -> None:
    key = shared.key("~tokens")
    assert shared.store.fields(key) == {}
    shared.store.set_field(key, "one", b"1")
    shared.store.set_field(key, "two", b"\xff\x00")
    shared.store.set_field(key, "one", b"")
    assert shared.store.fields(key) == {"one": b"", "two": b"\xff\x00"}
    shared.store.set_field(key, "one", None)
    assert shared.store.fields(key) == {"two": b"\xff\x00"}
    assert shared.server.ttl(key) == -1


# --------------------------------------------------------------------------------------- what goes by itself


def test_an_entry_and_what_is_known_of_it_live_for_a_day_and_the_counts_for_a_month(shared: Shared) -> None:
    shared.store.get(shared.key("account"), 5.0)
    assert shared.lives(hits=30 * DAY_S)
    shared.store.put(shared.key("~entry"), b"x")
    assert shared.lives(hits=30 * DAY_S, entry=DAY_S, index=DAY_S)


def test_a_lease_lives_for_a_day(shared: Shared) -> None:
    shared.store.claim(shared.key("account"), 5.0, 5.0, "a")
    assert shared.lives(hits=30 * DAY_S, leases=DAY_S)


def test_a_request_is_remembered_an_hour_longer_than_it_counts(shared: Shared) -> None:
    kept_s = 31 + HOUR_S  # the window and the longest flight, in whole seconds
    shared.ask("in flight")
    assert shared.lives(flying=kept_s, usage=2 * HOUR_S)
    shared.store.settle(shared.rules, Ticket("in flight", "asks"), Outcome(failed=False))
    assert shared.lives(sent=kept_s, usage=2 * HOUR_S)


def test_a_queue_lives_as_long_and_what_is_known_of_the_budget_for_a_day(shared: Shared) -> None:
    for name in ("one", "two"):
        assert isinstance(shared.ask(name), Granted)
    assert isinstance(shared.ask("waits"), Wait)
    assert shared.lives(flying=31 + HOUR_S, waiting=31 + HOUR_S, budget=DAY_S, usage=2 * HOUR_S)


def test_what_a_failure_tells_of_the_server_lives_for_a_day(shared: Shared) -> None:
    shared.ask("one")
    shared.store.settle(shared.rules, Ticket("one", "asks"), Outcome(failed=True))
    assert shared.lives(sent=31 + HOUR_S, budget=DAY_S, usage=2 * HOUR_S)


def test_an_answer_that_tells_nothing_new_changes_nothing_but_the_counts(shared: Shared) -> None:
    rules = shared.rules._replace(limit=10)
    reset = shared.clock.time() + 5.0

    def send(remaining: int) -> None:
        ticket = Ticket(os.urandom(4).hex(), "asks")
        assert isinstance(shared.store.admit(rules, ticket), Granted)
        shared.store.settle(rules, ticket, Outcome(failed=False, limit=10, remaining=remaining, reset_at=reset))

    send(4)
    shared.server.expire(shared.key("~budget"), 100)
    send(3)
    assert shared.server.ttl(shared.key("~budget")) <= 100
    send(1)  # somebody else sent one too
    assert shared.server.ttl(shared.key("~budget")) > 100


def test_the_next_window_is_no_news_while_nobody_else_sends(shared: Shared) -> None:
    rules = shared.rules._replace(limit=10)
    shared.ask("one")
    shared.store.settle(rules, Ticket("one", "asks"), Outcome(failed=False, limit=10))
    shared.server.expire(shared.key("~budget"), 100)
    for _ in range(2):
        shared.clock.advance(20.0)
        reset = shared.clock.time() + 5.0
        told = Outcome(failed=False, limit=10, remaining=9, reset_at=reset)
        shared.store.settle(rules, Ticket("two", "asks"), told)
    assert shared.server.ttl(shared.key("~budget")) <= 100


def test_only_the_last_day_stands_in_the_index(shared: Shared) -> None:
    shared.store.put(shared.key("old"), b"x")
    shared.clock.advance(DAY_S - 1)
    shared.store.put(shared.key("account"), b"x")
    assert shared.server.zcard(shared.key("~index")) == 2
    shared.clock.advance(2)
    shared.store.put(shared.key("account"), b"x")
    assert shared.server.zrange(shared.key("~index"), 0, -1) == [shared.key("account").encode()]


def test_what_is_dropped_is_forgotten_whole(shared: Shared) -> None:
    for name in ("orders", "orders:open"):
        shared.store.put(shared.key(name), b"x")
        shared.store.claim(shared.key(name), -1.0, 5.0, "a")
    shared.store.drop(shared.key("orders"))
    assert shared.keys() == [shared.key("~hits").encode()]


def test_leases_that_ended_are_cleared_away_when_they_are_many(shared: Shared) -> None:
    def leases() -> int:
        return int(shared.server.hlen(shared.key("~leases")))

    for number in range(65):
        shared.store.claim(shared.key(f"fn:{number}"), 5.0, 5.0 if number else 60.0, "a")
    shared.clock.advance(5.0)
    shared.store.claim(shared.key("account"), 5.0, 5.0, "a")
    assert leases() == 66  # they end now
    shared.clock.advance(0.001)
    shared.store.claim(shared.key("account"), 5.0, 5.0, "a")
    assert leases() == 2
    assert not isinstance(shared.store.claim(shared.key("fn:0"), 5.0, 5.0, "b"), Lead)


def test_a_few_leases_that_ended_are_let_be(shared: Shared) -> None:
    for number in range(64):
        shared.store.claim(shared.key(f"fn:{number}"), 5.0, 5.0, "a")
    shared.clock.advance(6.0)
    shared.store.claim(shared.key("account"), 5.0, 5.0, "a")
    assert shared.server.hlen(shared.key("~leases")) == 65


def test_of_the_use_of_each_minute_the_last_hour_is_kept_when_it_is_much(shared: Shared) -> None:
    minute = int(shared.clock.time() // 60)
    shared.server.hset(shared.key("~usage"), mapping={str(minute - 60 - n): 1 for n in range(120)})
    shared.ask("one")
    assert sorted(map(int, shared.server.hkeys(shared.key("~usage")))) == [minute - 60, minute]


def test_of_the_use_of_each_minute_a_little_more_is_let_be(shared: Shared) -> None:
    minute = int(shared.clock.time() // 60)
    shared.server.hset(shared.key("~usage"), mapping={str(minute - 60 - n): 1 for n in range(119)})
    shared.ask("one")
    assert shared.server.hlen(shared.key("~usage")) == 120


# ------------------------------------------------------------------------------- what it did not write itself


def test_a_lease_in_a_form_that_cannot_be_read_is_nobodys(shared: Shared) -> None:
    for old in ("soon", "1790000000.000000 a", "soon 5.000000 a", f"{shared.clock.time() + 5:f} long a"):
        shared.server.hset(shared.key("~leases"), shared.key("account"), old)
        assert isinstance(shared.store.claim(shared.key("account"), 5.0, 5.0, "b"), Lead)
        assert shared.store.renew(shared.key("account"), "b", 5.0)


def test_what_the_server_threw_away_is_not_counted(shared: Shared) -> None:
    for name in ("account", "orders"):
        shared.store.put(shared.key(name), b"12345")
    shared.server.delete(shared.key("orders"))
    assert shared.store.cache_stats(shared.scope)[2:4] == (1, 5)


@pytest.mark.parametrize("missing", ["at", "value"])
def test_half_an_entry_is_none(shared: Shared, missing: str) -> None:
    shared.store.put(shared.key("account"), b"x")
    shared.server.hdel(shared.key("account"), missing)
    assert shared.store.get(shared.key("account"), 60.0) is None


def test_an_entry_of_no_time_is_none(shared: Shared) -> None:
    shared.server.hset(shared.key("account"), mapping={"at": "soon", "value": "x"})
    assert shared.store.get(shared.key("account"), float("inf")) is None


@pytest.mark.parametrize("form", ["", "7", "7 soon 5 5 0 x", "7 {later} soon 5 0 x", "7 {later} 5 soon 0 x"])
def test_a_place_in_the_queue_in_a_form_that_cannot_be_read_is_nobodys(shared: Shared, form: str) -> None:
    for name in ("one", "two"):
        shared.ask(name)
    shared.server.hset(shared.key("~waiting"), "old", form.format(later=shared.clock.time() + 1))
    place = shared.ask("waits")
    assert isinstance(place, Wait)
    assert place.ahead == 0
    assert shared.server.hkeys(shared.key("~waiting")) == [b"waits"]
