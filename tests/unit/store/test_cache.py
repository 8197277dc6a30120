"""Both caches to the second, on a clock that stands still: ages, leases, and what is of another time."""

import os
from collections.abc import Callable

import pytest
from tests.support.fakes import SetClock

from alpacli.ports import Busy, Clock, Entry, Lead, Store
from alpacli.store.policy import KEEP_S, POLL_S


class Shelf:
    """A store, and a key of an account of its own."""

    def __init__(self, open_store: Callable[[Clock], Store]) -> None:
        self.clock = SetClock()
        self.store = open_store(self.clock)
        self.scope = f"alpaca:{{{os.urandom(6).hex()}}}"
        self.key = f"{self.scope}:account"

    def claim(self, token: str, lease_s: float = 5.0) -> Entry | Lead | Busy:
        return self.store.claim(self.key, 60.0, lease_s, token)


@pytest.fixture
def shelf(open_store: Callable[[Clock], Store]) -> Shelf:
    return Shelf(open_store)


def test_an_entry_is_as_good_as_was_asked_for_and_no_older(shelf: Shelf) -> None:
    shelf.store.put(shelf.key, b"x")
    shelf.clock.advance(5.0)
    assert shelf.store.get(shelf.key, 5.0) == Entry(b"x", 5.0)
    shelf.clock.advance(0.001)
    assert shelf.store.get(shelf.key, 5.0) is None


def test_an_entry_of_this_very_moment_is_good_and_one_from_the_future_is_none(shelf: Shelf) -> None:
    shelf.store.put(shelf.key, b"x")
    assert shelf.store.get(shelf.key, 0.0) == Entry(b"x", 0.0)
    shelf.clock.set_back(0.5)
    assert shelf.store.get(shelf.key, 60.0) is None
    assert isinstance(shelf.claim("a"), Lead)


def test_who_wants_no_entry_gets_none(shelf: Shelf) -> None:
    shelf.store.put(shelf.key, b"x")
    assert isinstance(shelf.store.claim(shelf.key, -1.0, 5.0, "a"), Lead)


def test_an_entry_is_kept_for_a_day_and_no_longer(shelf: Shelf) -> None:
    shelf.store.put(shelf.key, b"x")
    shelf.clock.advance(KEEP_S)
    assert shelf.store.get(shelf.key, float("inf")) is not None
    shelf.clock.advance(1.0)
    assert shelf.store.get(shelf.key, float("inf")) is None


def test_only_what_can_be_had_is_counted(shelf: Shelf) -> None:
    shelf.store.put(shelf.key, b"12345")
    assert shelf.store.cache_stats(shelf.scope)[2:] == (1, 5, 0.0, 0.0)
    shelf.clock.advance(KEEP_S)
    assert shelf.store.cache_stats(shelf.scope)[2:] == (1, 5, KEEP_S, KEEP_S)
    shelf.clock.advance(0.5)
    assert shelf.store.cache_stats(shelf.scope)[2:] == (0, 0, None, None)
    shelf.clock.set_back(KEEP_S + 1.0)
    assert shelf.store.cache_stats(shelf.scope)[2:] == (0, 0, None, None)


def test_all_entries_are_counted_and_the_oldest_and_the_newest_told(shelf: Shelf) -> None:
    for name in ("clock", "account", "orders", "positions"):
        shelf.store.put(f"{shelf.scope}:{name}", name.encode())
        shelf.clock.advance(1.0)
    assert shelf.store.cache_stats(shelf.scope)[2:] == (4, 27, 4.0, 1.0)


def test_a_lease_ends_on_time_and_who_waits_for_it_looks_again_at_its_end_at_the_latest(shelf: Shelf) -> None:
    shelf.claim("a")
    assert shelf.claim("b") == Busy(POLL_S)
    shelf.clock.advance(4.96875)
    assert shelf.claim("b") == Busy(0.03125)
    shelf.clock.advance(0.03125)
    assert isinstance(shelf.claim("b"), Lead)


def test_a_lease_of_a_clock_that_was_set_back_holds_up_nobody(shelf: Shelf) -> None:
    shelf.claim("a")
    shelf.clock.set_back(1.0)
    assert isinstance(shelf.claim("b"), Busy)  # as good as no difference
    shelf.clock.set_back(0.5)
    assert isinstance(shelf.claim("b"), Lead)


def test_a_lease_is_as_long_as_it_was_last_asked_for(shelf: Shelf) -> None:
    shelf.claim("a", 5.0)
    assert shelf.store.renew(shelf.key, "a", 60.0)
    shelf.clock.advance(50.0)
    assert isinstance(shelf.claim("b"), Busy)


def test_an_answer_ends_the_lease_and_is_for_the_one_that_holds_it(shelf: Shelf) -> None:
    assert not shelf.store.publish(shelf.key, "a", b"x")
    shelf.claim("a")
    assert shelf.store.publish(shelf.key, "a", b"x")
    assert not shelf.store.publish(shelf.key, "a", b"y")
    assert not shelf.store.renew(shelf.key, "a", 5.0)
    assert shelf.store.get(shelf.key, 60.0) == Entry(b"x", 0.0)


def test_a_token_may_have_any_letters(shelf: Shelf) -> None:
    shelf.claim("one two")
    assert not shelf.store.renew(shelf.key, "two", 5.0)
    assert shelf.store.renew(shelf.key, "one two", 5.0)
