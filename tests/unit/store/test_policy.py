"""The numbers that both stores share, by examples at their borders."""

import pytest

from alpacli.ports import BudgetRules
from alpacli.store.policy import FOREIGN_SKEW_S, foreign_until, free_at, scope_of, seen_by, share, utilisation


@pytest.mark.parametrize(
    ("key", "scope"),
    [
        ("alpaca:{fp}:orders:all", "alpaca:{fp}"),
        ("alpaca:{fp}", "alpaca:{fp}"),
        ("{}", "{}"),
        ("alpaca:{a}:{b}", "alpaca:{a}"),
        ("no braces", "no braces"),
        ("", ""),
    ],
)
def test_a_key_belongs_to_the_account_in_its_braces(key: str, scope: str) -> None:
    assert scope_of(key) == scope


@pytest.mark.parametrize(
    ("granted_at", "expected"),
    [
        (100.0, 120.0),
        (95.0, 115.0),
        (80.0, 100.0),
        (40.0, 100.0),  # given up after its time in flight: somewhere in between
        (101.0, 120.0),  # the clock was set back
        (None, 120.0),  # the store that granted it has lost it
    ],
)
def test_a_request_without_an_answer_is_seen_within_its_time_in_flight_after_its_grant(
    granted_at: float | None, expected: float
) -> None:
    assert seen_by(granted_at, 100.0, 20.0) == expected


@pytest.mark.parametrize(
    ("limit", "reserve", "cap", "expected"),
    [
        (200, 20, None, (200, 20)),
        (200, 20, 200, (200, 20)),
        (200, 20, 1000, (200, 20)),
        (200, 20, 199, (199, 19)),
        (200, 20, 100, (100, 10)),
        (10, 5, 3, (3, 1)),
        (200, 0, 50, (50, 0)),
    ],
)
def test_a_lower_limit_of_the_server_keeps_the_proportion_of_the_reserve(
    limit: int, reserve: int, cap: int | None, expected: tuple[int, int]
) -> None:
    assert share(limit, reserve, cap) == expected


@pytest.mark.parametrize(("sent", "expected"), [(0.0, 0.0), (315.0, 0.8), (393.75, 1.0), (500.0, 1.0)])
def test_an_hours_allowance_is_as_many_windows_as_it_has_and_parts_of_them(sent: float, expected: float) -> None:
    assert utilisation(sent, BudgetRules("alpaca:{fp}", limit=7, window_s=64.0)) == expected


@pytest.mark.parametrize(
    ("reset_at", "until"),
    [
        (None, 1060.0),
        (1030.0, 1030.0),
        (1060.0, 1060.0),
        (1061.0, 1060.0),
        (1000.0, 1000.0),
        (1000.0 - FOREIGN_SKEW_S, 998.0),
        (1000.0 - FOREIGN_SKEW_S - 0.001, 1060.0),
    ],
)
def test_requests_of_others_count_until_the_servers_reset_but_one_window_at_most(
    reset_at: float | None, until: float
) -> None:
    assert foreign_until(reset_at, 1000.0, 60.0) == until


@pytest.mark.parametrize(
    ("times", "index", "slots", "at"),
    [
        ([], -1, 5, 1000.0),
        ([1010.0, 1020.0], -1, 5, 1000.0),
        ([1010.0, 1020.0], 0, 5, 1010.0),
        ([1010.0, 1020.0], 1, 5, 1020.0),
        ([1010.0, 1020.0], 2, 2, 1070.0),
        ([1010.0, 1020.0], 3, 2, 1080.0),
        ([1010.0, 1020.0], 4, 2, 1130.0),
        ([1010.0], 2, 3, 1060.0),
        ([], 0, 0, 1060.0),
        ([1010.0], 1, 0, 1070.0),
        ([1010.0], 1, 1, 1070.0),
    ],
)
def test_a_slot_behind_all_that_free_is_taken_once_more_a_window_later(
    times: list[float], index: int, slots: int, at: float
) -> None:
    assert free_at(times, index, slots, 1000.0, 60.0) == at
