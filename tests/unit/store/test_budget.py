"""Both budgets to the second, on a clock that stands still: borders of windows, others' requests, clocks set back."""

import os
from collections.abc import Callable
from functools import partial

import pytest
from tests.support.budget import probes
from tests.support.fakes import SetClock

from alpacli.ports import BudgetRules, Clock, Granted, Outcome, Refused, Store, Ticket, Wait
from alpacli.store.policy import FLIGHT_S, GRACE_S, LIVENESS_S, MARGIN_S, TURN_S

OK = Outcome(failed=False)
FAILED = Outcome(failed=True)
GIVEN_UP = Outcome(failed=True, doubtful=True)


class Desk:
    """A store and the rules of one account: two requests in ten seconds, unless told otherwise."""

    def __init__(
        self, open_store: Callable[[Clock], Store], limit: int = 2, reserve: int = 0, failures: int = 2
    ) -> None:
        self.clock = SetClock()
        self.store = open_store(self.clock)
        scope = f"alpaca:{{{os.urandom(6).hex()}}}"
        self.rules = BudgetRules(scope, limit, reserve, 10.0, breaker_failures=failures, breaker_open_s=30.0)
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
def a_desk(open_store: Callable[[Clock], Store]) -> Callable[..., Desk]:
    return partial(Desk, open_store)


@pytest.fixture
def desk(a_desk: Callable[..., Desk]) -> Desk:
    return a_desk()


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


def test_one_in_flight_is_taken_to_end_now_and_a_lost_one_when_it_must_have_ended(a_desk: Callable[..., Desk]) -> None:
    desk = a_desk(limit=1)
    assert isinstance(desk.ask("lost"), Granted)
    assert waits(desk.ask()) == pytest.approx(10.0 + MARGIN_S)
    desk.clock.advance(FLIGHT_S + 2.0)
    assert waits(desk.ask("late")) == pytest.approx(8.0 + MARGIN_S)
    desk.clock.advance(8.001)
    assert desk.used == 0


def test_one_that_was_given_up_counts_for_exactly_one_window_after_its_time_in_flight(
    a_desk: Callable[..., Desk],
) -> None:
    desk = a_desk(limit=1)
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


def test_of_several_that_are_lost_each_frees_when_it_must_have_ended(a_desk: Callable[..., Desk]) -> None:
    desk = a_desk(limit=3)
    for name in ("lost", "lost later", "lost last"):
        assert isinstance(desk.ask(name), Granted)
        desk.clock.advance(4.0)
    desk.clock.advance(FLIGHT_S - 3.0)  # nine seconds after the first one must have ended
    assert [waits(desk.ask()) for _ in range(4)] == [pytest.approx(wait + MARGIN_S) for wait in (1.0, 5.0, 9.0, 11.0)]


def test_who_waits_behind_others_is_told_of_their_windows_too(a_desk: Callable[..., Desk]) -> None:
    desk = a_desk(limit=1)
    desk.send()
    assert [waits(desk.ask()) for _ in range(3)] == [pytest.approx(place * 10.0 + MARGIN_S) for place in (1, 2, 3)]


def test_many_that_wait_stand_in_the_order_in_which_they_came(desk: Desk) -> None:
    desk.send()
    desk.send()
    labels = [
        f"{number} " + "x" * 100 for number in range(30)
    ]  # so long that a server keeps them in an order of its own
    for number, label in enumerate(labels):
        place = desk.store.admit(desk.rules, Ticket(os.urandom(4).hex(), label))
        assert isinstance(place, Wait)
        assert place.ahead == number
    assert [one.label for one in desk.store.limits(desk.rules).waiting] == labels


def test_where_all_is_reserved_reads_wait(a_desk: Callable[..., Desk]) -> None:
    desk = a_desk(limit=2, reserve=2)
    assert waits(desk.ask()) == pytest.approx(10.0 + MARGIN_S)
    assert isinstance(desk.ask(urgent=True), Granted)


def test_who_is_refused_waits_no_longer(a_desk: Callable[..., Desk]) -> None:
    desk = a_desk(limit=3)
    for name in ("one", "two", "three"):
        desk.ask(name)
    assert isinstance(desk.ask("waits"), Wait)
    for name in ("one", "two"):
        desk.settle(name, FAILED)
    assert isinstance(desk.ask("waits"), Refused)
    assert desk.store.limits(desk.rules).waiting == ()


def test_the_first_of_urgent_ones_waits_for_none_of_them(desk: Desk) -> None:
    desk.send()
    desk.send()
    assert isinstance(desk.ask("first", urgent=True), Wait)
    assert isinstance(desk.ask("second", urgent=True), Wait)
    place = desk.ask("first", urgent=True)
    assert isinstance(place, Wait)
    assert place.ahead == 0


def test_who_waits_is_listed_with_how_long(desk: Desk) -> None:
    desk.send()
    desk.send()
    assert isinstance(desk.ask("patient"), Wait)
    desk.clock.advance(2.0)
    assert isinstance(desk.ask("patient"), Wait)
    desk.clock.advance(1.0)
    (waiting,) = desk.store.limits(desk.rules).waiting
    assert waiting.since_s == pytest.approx(3.0)


def test_use_is_that_of_the_last_hour(a_desk: Callable[..., Desk]) -> None:
    desk = a_desk(limit=100)
    for _ in range(18):
        desk.send()
    desk.clock.advance(1800.0)
    for _ in range(36):
        desk.send()
    assert desk.store.limits(desk.rules).utilisation == pytest.approx(54 / 36_000)
    desk.clock.advance(1759.0)  # an hour is sixty whole minutes, of which this is the last second
    assert desk.store.limits(desk.rules).utilisation == pytest.approx(54 / 36_000)
    desk.clock.advance(1.0)
    assert desk.store.limits(desk.rules).utilisation == pytest.approx(36 / 36_000)
    desk.clock.advance(60.0)
    desk.rules = desk.rules._replace(window_s=7.0)
    assert desk.store.limits(desk.rules).utilisation == pytest.approx(36 * 7 / 360_000)
    desk.clock.set_back(1920.0)  # to before them
    assert desk.store.limits(desk.rules).utilisation == pytest.approx(18 * 7 / 360_000)
    desk.rules = desk.rules._replace(limit=1, window_s=3600.0)
    assert desk.store.limits(desk.rules).utilisation == 1.0


def test_a_spent_budget_says_when_there_is_room_again_also_behind_requests_of_others(
    desk: Desk, a_desk: Callable[..., Desk]
) -> None:
    desk.send()
    assert desk.store.limits(desk.rules).reset_s == 0
    desk.clock.advance(3.0)
    at = desk.clock.time()
    desk.send(OK._replace(limit=2, remaining=0, reset_at=at + 5.0))  # two seen, both ours
    assert desk.store.limits(desk.rules).reset_s == pytest.approx(7.0)
    other = a_desk(limit=2)
    at = other.clock.time()
    other.send(OK._replace(limit=2, remaining=0, reset_at=at + 5.0))  # one is somebody else's
    other.clock.advance(1.0)
    report = other.store.limits(other.rules)
    assert (report.used, report.foreign, report.left) == (2, 1, 0)
    assert other.store.limits(other.rules).reset_s == pytest.approx(4.0)


def test_room_that_comes_soon_is_told_to_the_moment(desk: Desk) -> None:
    desk.send()
    desk.send()
    desk.clock.advance(9.75)
    assert desk.store.limits(desk.rules).reset_s == pytest.approx(0.25)


def test_a_budget_that_became_smaller_says_when_there_is_room_in_it(a_desk: Callable[..., Desk]) -> None:
    desk = a_desk(limit=10)
    for _ in range(6):
        desk.send()
        desk.clock.advance(1.0)
    desk.rules = desk.rules._replace(limit=3)
    assert desk.store.limits(desk.rules).reset_s == pytest.approx(7.0)  # when the fourth is ten seconds old


@pytest.mark.parametrize(("seconds", "others"), [(1.0, 1), (1.5, 0), (5000.0, 0)])
def test_requests_of_others_are_forgotten_when_the_clock_is_set_back_by_more_than_a_second(
    desk: Desk, seconds: float, others: int
) -> None:
    desk.send(OK._replace(limit=2, remaining=0))
    desk.clock.set_back(seconds)
    assert desk.store.limits(desk.rules).foreign == others
    assert isinstance(desk.ask(), Wait if others else Granted)


def test_the_moment_that_the_servers_window_ends_there_is_room(desk: Desk) -> None:
    desk.send(OK._replace(limit=2, remaining=0, reset_at=desk.clock.time() + 5.0))
    assert isinstance(desk.ask(), Wait)
    desk.clock.advance(5.0)
    assert isinstance(desk.ask(), Granted)


@pytest.mark.parametrize(("late", "others"), [(2.0, 0), (3.0, 1)])
def test_a_reset_that_is_long_over_is_of_a_wrong_clock_and_others_count_for_a_window(
    desk: Desk, late: float, others: int
) -> None:
    desk.send(OK._replace(limit=2, remaining=0, reset_at=desk.clock.time() - late))
    assert desk.store.limits(desk.rules).foreign == others


def test_a_limit_that_makes_no_sense_is_not_believed(desk: Desk) -> None:
    for limit in (0, -5):
        desk.send(OK._replace(limit=limit))
    assert desk.store.limits(desk.rules).limit == 2
    desk.clock.advance(11.0)
    desk.send(OK._replace(limit=1))
    desk.clock.advance(11.0)
    desk.send(OK._replace(limit=0))
    assert desk.store.limits(desk.rules).limit == 1


def test_a_limit_of_one_is_a_limit(desk: Desk) -> None:
    desk.send(OK._replace(limit=1, remaining=0))
    assert desk.store.limits(desk.rules).limit == 1
    report = desk.store.limits(desk.rules)
    assert (report.used, report.foreign, report.left) == (1, 0, 0)  # it was ours
    assert isinstance(desk.ask(), Wait)


def test_of_a_smaller_limit_the_same_part_is_reserved_rounded_down(a_desk: Callable[..., Desk]) -> None:
    desk = a_desk(limit=10, reserve=3)
    desk.send(OK._replace(limit=5))
    report = desk.store.limits(desk.rules)
    assert (report.limit, report.reserve) == (5, 1)


def test_less_than_nothing_remaining_is_nothing(a_desk: Callable[..., Desk]) -> None:
    desk = a_desk(limit=10)
    desk.send(OK._replace(limit=10, remaining=-3))
    report = desk.store.limits(desk.rules)
    assert (report.used, report.foreign, report.left) == (10, 9, 0)


def test_one_that_overslept_is_passed_and_its_slot_is_kept(a_desk: Callable[..., Desk]) -> None:
    desk = a_desk(limit=2)
    desk.send()
    desk.send()
    desk.clock.advance(9.25)
    place = desk.ask("z, who oversleeps")
    assert isinstance(place, Wait)
    desk.clock.advance(place.seconds + GRACE_S - 0.01)
    on_time = desk.ask("a")
    assert isinstance(on_time, Wait)
    assert (on_time.ahead, on_time.earliest_s) == (1, TURN_S)
    desk.clock.advance(0.02)
    assert isinstance(desk.ask("a"), Granted)
    kept = desk.ask("b")
    assert isinstance(kept, Wait)
    assert kept.ahead == 1
    assert isinstance(desk.ask("z, who oversleeps"), Granted)


def test_a_free_slot_is_kept_for_the_only_one_that_waits_and_overslept(a_desk: Callable[..., Desk]) -> None:
    desk = a_desk(limit=1)
    desk.send()
    desk.clock.advance(9.25)
    place = desk.ask("z")
    assert isinstance(place, Wait)
    desk.clock.advance(place.seconds + GRACE_S + 0.01)
    assert isinstance(desk.ask("a"), Wait)
    assert isinstance(desk.ask("z"), Granted)


def test_who_is_further_back_asks_later_and_everyone_ahead_is_counted_once(a_desk: Callable[..., Desk]) -> None:
    desk = a_desk(limit=10)
    for _ in range(10):
        desk.send()
    desk.clock.advance(9.999)
    for number in range(4):
        assert isinstance(desk.ask(f"z{number}", urgent=number == 3), Wait)
    place = desk.ask("a")
    assert isinstance(place, Wait)
    assert place.ahead == 4
    assert place.earliest_s == pytest.approx(4 * TURN_S)


def test_a_place_is_kept_to_the_last_moment_of_its_life(desk: Desk) -> None:
    desk.send()
    desk.send()
    assert isinstance(desk.ask("first"), Wait)
    desk.clock.advance(LIVENESS_S)
    place = desk.ask("second")
    assert isinstance(place, Wait)
    assert place.ahead == 1


def test_the_only_place_on_a_clock_that_was_set_back_has_waited_for_no_time(desk: Desk) -> None:
    desk.send()
    desk.send()
    assert isinstance(desk.ask("only"), Wait)
    desk.clock.set_back(5000.0)
    desk.store.limits(desk.rules)
    desk.clock.advance(1.0)
    (only,) = desk.store.limits(desk.rules).waiting
    assert only.since_s == 1.0
    desk.clock.advance(LIVENESS_S)
    assert desk.store.limits(desk.rules).waiting == ()


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


def test_as_many_of_others_in_the_next_window_count_in_that_one_too(a_desk: Callable[..., Desk]) -> None:
    desk = a_desk(limit=10)
    for remaining in (8, 7):
        reset = desk.clock.time() + 5.0
        desk.send(OK._replace(limit=10, remaining=remaining, reset_at=reset))
        desk.clock.advance(4.0)
        assert desk.store.limits(desk.rules).foreign == 1
        desk.clock.advance(1.0)
        assert desk.store.limits(desk.rules).foreign == 0


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


def test_one_failure_is_forgotten_with_the_next_answer(desk: Desk) -> None:
    desk.rules = desk.rules._replace(limit=10)
    for outcome in (FAILED, OK, FAILED):
        desk.send(outcome)
    assert desk.store.limits(desk.rules).breaker == "closed"


def test_after_a_good_probe_it_takes_as_many_failures_as_before(a_desk: Callable[..., Desk]) -> None:
    desk = _half_open(a_desk)
    desk.settle("probe")
    desk.send(FAILED)
    assert desk.store.limits(desk.rules).breaker == "closed"
    desk.send(FAILED)
    assert desk.store.limits(desk.rules).breaker == "open"


def test_a_program_with_a_stricter_rule_opens_the_breaker_at_its_own_number(a_desk: Callable[..., Desk]) -> None:
    desk = a_desk(limit=10, failures=9)
    for _ in range(3):
        desk.send(FAILED)
    desk.rules = desk.rules._replace(breaker_failures=2)
    assert desk.store.limits(desk.rules).breaker == "closed"
    desk.send(FAILED)
    assert desk.ask() == Refused(30.0)


def _half_open(a_desk: Callable[..., Desk], slow: str = "slow") -> Desk:
    desk = a_desk(limit=20)
    assert isinstance(desk.ask(slow), Granted)
    for _ in range(2):
        desk.send(FAILED)
    desk.clock.advance(31.0)
    assert probes(desk.ask("probe"))
    return desk


@pytest.mark.parametrize("end", [OK, FAILED, Outcome(failed=None)], ids=["answered", "failed", "interrupted"])
@pytest.mark.parametrize("other", ["a slow one", "slow"])
def test_only_the_probes_own_end_closes_the_breaker(a_desk: Callable[..., Desk], other: str, end: Outcome) -> None:
    desk = _half_open(a_desk, other)
    desk.settle(other, end)
    assert isinstance(desk.ask(), Refused)
    assert isinstance(desk.ask("another"), Refused)
    desk.settle("probe")
    assert isinstance(desk.ask(), Granted)


def test_a_probe_that_asks_again_is_still_the_probe(a_desk: Callable[..., Desk]) -> None:
    desk = _half_open(a_desk)
    assert probes(desk.ask("probe"))


def test_a_probe_that_fails_opens_the_breaker_for_its_whole_time_and_no_longer(a_desk: Callable[..., Desk]) -> None:
    desk = _half_open(a_desk)
    desk.settle("probe", FAILED)
    desk.clock.advance(29.5)
    assert desk.store.limits(desk.rules).breaker_retry_in_s == 0.5
    desk.clock.advance(0.5)
    assert desk.store.limits(desk.rules).breaker == "half-open"


@pytest.mark.parametrize("back", [0.5, 1.0])
def test_a_probe_that_is_lost_gives_way_to_another_and_a_little_less_clock_changes_nothing(
    a_desk: Callable[..., Desk], back: float
) -> None:
    desk = _half_open(a_desk)
    desk.clock.set_back(back)
    assert isinstance(desk.ask(), Refused)
    desk.clock.advance(back + FLIGHT_S - 0.5)
    assert desk.ask() == Refused(0.5)
    desk.clock.advance(0.5)
    assert probes(desk.ask())
    desk.clock.advance(FLIGHT_S + 1.0)
    assert desk.store.limits(desk.rules).breaker_retry_in_s == 0.0


def test_a_probe_of_a_clock_that_was_set_back_by_more_than_a_second_gives_way(a_desk: Callable[..., Desk]) -> None:
    desk = a_desk(limit=20)
    for _ in range(2):
        desk.send(FAILED)
    desk.clock.advance(40.0)
    assert probes(desk.ask())
    desk.clock.set_back(1.5)
    assert probes(desk.ask())


def test_a_probe_of_a_clock_that_was_set_back_gives_way_as_soon_as_the_breaker_allows_another(
    a_desk: Callable[..., Desk],
) -> None:
    desk = _half_open(a_desk)
    desk.clock.set_back(5000.0)
    assert desk.ask() == Refused(30.0)
    desk.clock.advance(30.0)
    assert probes(desk.ask())


@pytest.mark.parametrize("end", [OK, GIVEN_UP, None], ids=["answered", "given up", "in flight"])
def test_what_was_sent_on_a_clock_that_was_set_back_counts_from_now(
    a_desk: Callable[..., Desk], end: Outcome | None
) -> None:
    desk = a_desk()
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


def test_one_that_is_given_up_on_a_clock_that_was_set_back_counts_as_if_granted_now(desk: Desk) -> None:
    assert isinstance(desk.ask("given up"), Granted)
    desk.clock.set_back(5000.0)
    desk.settle("given up", GIVEN_UP)
    desk.clock.advance(FLIGHT_S + 10.0)
    assert desk.used == 1
    desk.clock.advance(0.001)
    assert desk.used == 0


def test_who_oversleeps_on_a_clock_that_was_set_back_is_passed_like_any_other(desk: Desk) -> None:
    for name in ("one", "two"):
        desk.ask(name)
    assert isinstance(desk.ask("oversleeps"), Wait)
    desk.clock.set_back(5000.0)
    assert desk.used == 2
    for name in ("one", "two"):
        desk.store.leave(desk.rules, Ticket(name, "asks"))
    assert isinstance(desk.ask("on time"), Wait)
    desk.clock.advance(GRACE_S + 0.01)
    assert isinstance(desk.ask("on time"), Granted)
