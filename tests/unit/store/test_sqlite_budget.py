"""The embedded budget to the second, on a clock that stands still: borders of windows, others' requests, clocks set back."""

from collections.abc import Iterator

import pytest
from tests.support.fakes import ManualClock

from alpacli.ports import BudgetRules, Granted, Outcome, Refused, Ticket, Wait
from alpacli.store.policy import FLIGHT_S, LIVENESS_S, MARGIN_S
from alpacli.store.sqlite import SqliteStore

OK = Outcome(failed=False)
FAILED = Outcome(failed=True)
GIVEN_UP = Outcome(failed=True, doubtful=True)


class SetClock(ManualClock):
    def set_back(self, seconds: float) -> None:
        self._now -= seconds


class Desk:
    """A store and the rules of one account: two requests in ten seconds, unless told otherwise."""

    def __init__(self, limit: int = 2, reserve: int = 0, failures: int = 2) -> None:
        self.clock = SetClock()
        self.store = SqliteStore(":memory:", self.clock)
        self.rules = BudgetRules("alpaca:{a}", limit, reserve, 10.0, breaker_failures=failures, breaker_open_s=30.0)
        self._number = 0

    def ask(self, name: str = "", *, urgent: bool = False) -> Granted | Wait | Refused:
        self._number += 1
        return self.store.admit(self.rules, Ticket(name or f"t{self._number}", "asks", urgent))

    def settle(self, name: str, outcome: Outcome = OK) -> None:
        self.store.settle(self.rules, Ticket(name, "asks"), outcome)

    def send(self, outcome: Outcome = OK) -> None:
        name = f"s{self._number}"
        assert isinstance(self.ask(name), Granted)
        self.settle(name, outcome)

    @property
    def used(self) -> int:
        return self.store.limits(self.rules).used


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk()
    yield made
    made.store.close()


def waits(answer: Granted | Wait | Refused) -> float:
    assert isinstance(answer, Wait)
    return answer.earliest_s


def test_a_request_counts_for_exactly_one_window_after_its_end(desk: Desk) -> None:
    desk.send()
    desk.clock.advance(10.0)
    assert desk.used == 1  # a server may count the border to either window
    desk.clock.advance(0.001)
    assert desk.used == 0


def test_one_that_waits_is_told_when_the_first_slot_frees(desk: Desk) -> None:
    desk.send()
    desk.clock.advance(4.0)
    desk.send()
    assert waits(desk.ask()) == pytest.approx(6.0 + MARGIN_S)


def test_one_in_flight_is_taken_to_end_now_and_a_lost_one_when_it_must_have_ended() -> None:
    desk = Desk(limit=1)
    assert isinstance(desk.ask("lost"), Granted)
    assert waits(desk.ask()) == pytest.approx(10.0 + MARGIN_S)
    desk.clock.advance(FLIGHT_S + 2.0)
    assert waits(desk.ask("late")) == pytest.approx(8.0 + MARGIN_S)
    desk.clock.advance(8.001)
    assert desk.used == 0


def test_one_that_was_given_up_counts_for_exactly_one_window_after_its_time_in_flight() -> None:
    desk = Desk(limit=1)
    assert isinstance(desk.ask("given up"), Granted)
    desk.clock.advance(15.0)
    desk.settle("given up", GIVEN_UP)
    assert waits(desk.ask()) == pytest.approx(FLIGHT_S - 15.0 + 10.0 + MARGIN_S)
    desk.clock.advance(FLIGHT_S - 15.0 + 10.0)
    assert desk.used == 1
    desk.clock.advance(0.001)
    assert desk.used == 0


def test_one_that_was_given_up_late_counts_for_exactly_one_window_from_then(desk: Desk) -> None:
    assert isinstance(desk.ask("given up"), Granted)
    desk.clock.advance(FLIGHT_S + 5.0)
    desk.settle("given up", GIVEN_UP)
    desk.clock.advance(10.0)
    assert desk.used == 1
    desk.clock.advance(0.001)
    assert desk.used == 0


def test_one_that_was_given_up_and_whose_grant_is_lost_counts_as_if_granted_now(desk: Desk) -> None:
    desk.settle("of another file", GIVEN_UP)
    assert desk.used == 1
    desk.clock.advance(FLIGHT_S + 10.0)
    assert desk.used == 1
    desk.clock.advance(0.001)
    assert desk.used == 0


def test_who_waits_is_listed_with_how_long(desk: Desk) -> None:
    desk.send()
    desk.send()
    assert isinstance(desk.ask("patient"), Wait)
    desk.clock.advance(2.0)
    assert isinstance(desk.ask("patient"), Wait)
    desk.clock.advance(1.0)
    (waiting,) = desk.store.limits(desk.rules).waiting
    assert waiting.since_s == pytest.approx(3.0)


def test_use_is_that_of_the_last_hour() -> None:
    desk = Desk(limit=100)
    for _ in range(18):
        desk.send()
    desk.clock.advance(1800.0)
    for _ in range(36):
        desk.send()
    assert desk.store.limits(desk.rules).utilisation == pytest.approx(54 / 36_000)
    desk.clock.advance(1860.0)
    assert desk.store.limits(desk.rules).utilisation == pytest.approx(36 / 36_000)


def test_a_spent_budget_says_when_there_is_room_again_also_behind_requests_of_others(desk: Desk) -> None:
    desk.send()
    assert desk.store.limits(desk.rules).reset_s == 0
    desk.clock.advance(3.0)
    at = desk.clock.time()
    desk.send(OK._replace(limit=2, remaining=0, reset_at=at + 5.0))  # two seen, both ours
    assert desk.store.limits(desk.rules).reset_s == pytest.approx(7.0)
    other = Desk(limit=2)
    at = other.clock.time()
    other.send(OK._replace(limit=2, remaining=0, reset_at=at + 5.0))  # one is somebody else's
    other.clock.advance(1.0)
    assert other.store.limits(other.rules)[3:6] == (2, 1, 0)
    assert other.store.limits(other.rules).reset_s == pytest.approx(4.0)


def test_requests_of_others_count_until_the_servers_window_ends(desk: Desk) -> None:
    desk.rules = desk.rules._replace(limit=10)
    desk.send(OK._replace(limit=10, remaining=4, reset_at=desk.clock.time() + 5.0))
    assert desk.used == 6
    desk.clock.advance(4.5)
    assert desk.used == 6
    desk.clock.advance(0.5)
    assert desk.used == 1
    desk.clock.advance(0.5)
    assert desk.used == 1


def test_within_a_servers_window_others_only_grow_and_a_later_window_begins_anew(desk: Desk) -> None:
    desk.rules = desk.rules._replace(limit=100, window_s=60.0)
    reset = desk.clock.time() + 30.0

    def others(seen: int, reset_at: float) -> int:
        desk.send(OK._replace(limit=100, remaining=100 - seen, reset_at=reset_at))
        return desk.store.limits(desk.rules).foreign

    assert others(11, reset) == 10
    assert others(6, reset) == 10  # an answer that was overtaken
    assert others(23, reset + 0.4) == 20  # the same window: a second's rounding
    assert others(90, reset - 0.6) == 20  # a window before
    assert others(9, reset - 0.4) == 20
    assert others(9, reset + 20.0) == 3


def test_where_others_have_used_more_than_all_of_it_nobody_may_send(desk: Desk) -> None:
    desk.rules = desk.rules._replace(limit=3)
    for _ in range(2):
        desk.send()
    desk.send(OK._replace(limit=3, remaining=0, reset_at=desk.clock.time() + 10.0))
    desk.rules = desk.rules._replace(limit=2)
    assert desk.used == 3
    assert isinstance(desk.ask(urgent=True), Wait)


def test_an_open_breaker_is_as_long_as_its_rule_on_a_clock_that_was_set_back(desk: Desk) -> None:
    for _ in range(2):
        desk.send(FAILED)
    desk.clock.set_back(5000.0)
    assert desk.ask() == Refused(30.0)
    desk.clock.advance(29.5)
    answer = desk.ask()
    assert isinstance(answer, Refused)
    assert answer.retry_in_s == pytest.approx(0.5)
    desk.clock.advance(0.5)
    assert desk.store.limits(desk.rules).breaker == "half-open"


def _half_open() -> Desk:
    desk = Desk(limit=20)
    assert isinstance(desk.ask("slow"), Granted)
    for _ in range(2):
        desk.send(FAILED)
    desk.clock.advance(31.0)
    assert desk.ask("probe") == Granted(probe=True)
    return desk


def test_only_the_probes_own_end_closes_the_breaker() -> None:
    desk = _half_open()
    desk.settle("slow")
    assert isinstance(desk.ask(), Refused)
    desk.settle("probe")
    assert isinstance(desk.ask(), Granted)


def test_a_probe_that_is_lost_gives_way_to_another_and_a_little_less_clock_changes_nothing() -> None:
    desk = _half_open()
    desk.clock.set_back(0.5)
    assert isinstance(desk.ask(), Refused)
    desk.clock.advance(0.5 + FLIGHT_S - 0.5)
    assert isinstance(desk.ask(), Refused)
    desk.clock.advance(0.5)
    assert desk.ask() == Granted(probe=True)


@pytest.mark.parametrize("end", [OK, GIVEN_UP, None], ids=["answered", "given up", "in flight"])
def test_what_was_sent_on_a_clock_that_was_set_back_counts_from_now(end: Outcome | None) -> None:
    desk = Desk()
    assert isinstance(desk.ask("one"), Granted)
    if end is not None:
        desk.settle("one", end)
    desk.clock.set_back(5000.0)
    assert desk.used == 1
    desk.clock.advance(10.0 + FLIGHT_S if end is None else 10.0)
    assert desk.used == 1
    desk.clock.advance(0.001)
    assert desk.used == 0


def test_a_place_in_the_queue_on_a_clock_that_was_set_back_is_kept_as_long_as_any_other(desk: Desk) -> None:
    desk.send()
    desk.send()
    assert isinstance(desk.ask("first"), Wait)
    desk.clock.set_back(5000.0)
    answer = desk.ask("second")
    assert isinstance(answer, Wait)
    assert answer.ahead == 1
    (first, _) = desk.store.limits(desk.rules).waiting
    assert first.since_s == 0
    desk.clock.advance(LIVENESS_S)
    assert [one.since_s for one in desk.store.limits(desk.rules).waiting] == [LIVENESS_S] * 2
    desk.clock.advance(0.001)
    assert desk.store.limits(desk.rules).waiting == ()
