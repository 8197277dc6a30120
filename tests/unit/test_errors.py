"""The error tree: the drawing, the classes, the exit codes and the JSON object say the same."""

import inspect
import re

import pytest

from alpacli import errors
from alpacli.errors import AlpacaAPIError, AlpacliError

CLASSES: list[type[AlpacliError]] = [
    cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, AlpacliError)
]

EXIT_CODES = {
    "UsageError": 2,
    "ConfigError": 3,
    "RedirectRefused": 3,
    "AuthenticationError": 3,
    "AlpacaAPIError": 4,
    "NotFound": 4,
    "OrderRejected": 4,
    "RateLimited": 5,
    "BudgetExhausted": 5,
    "ServerError": 6,
    "Unavailable": 6,
    "RequestTimeout": 6,
    "ConnectionLost": 6,
    "UnreadableAnswer": 6,
    "CircuitOpen": 6,
}
"""The contract's table, class by class."""


def _drawn() -> dict[str, str]:
    """Return child -> parent as the module docstring draws them: one level is four columns."""
    parents: dict[str, str] = {}
    branch: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"((?:│   |    )*)(?:[├└]── )(\w+)", line):
            level = len(found[1]) // 4 + 1
            branch[level:] = [found[2]]
            parents[found[2]] = branch[level - 1]
        elif line == "AlpacliError":
            branch = [line]
    return parents


def test_the_drawn_tree_is_the_tree_of_classes() -> None:
    assert _drawn() == {cls.__name__: cls.__bases__[0].__name__ for cls in CLASSES if cls is not AlpacliError}


def test_the_drawing_tells_the_exit_code_wherever_it_changes() -> None:
    drawn = dict(re.findall(r"[├└]── (\w+) .*exit (\d)$", errors.__doc__ or "", re.MULTILINE))
    assert len(drawn) >= 8
    assert drawn == {name: str(getattr(errors, name).exit_code) for name in drawn}


@pytest.mark.parametrize(("name", "exit_code"), EXIT_CODES.items())
def test_each_failure_ends_with_the_exit_code_of_the_contract(name: str, exit_code: int) -> None:
    assert getattr(errors, name).exit_code == exit_code


def test_no_failure_that_reaches_a_user_is_without_a_place_in_the_contract() -> None:
    known = {"AlpacliError", "StoreUnavailable"} | set(EXIT_CODES)
    newer = {cls for cls in CLASSES if cls.__name__ not in known}
    assert {cls.exit_code for cls in newer} <= {2, 3, 4, 5, 6, 7, 8}


def test_only_what_another_try_can_cure_is_retryable() -> None:
    retryable = {cls.__name__ for cls in CLASSES if cls.retryable and cls.__name__ in EXIT_CODES}
    assert retryable == {"RateLimited", "ServerError", "Unavailable", "RequestTimeout", "ConnectionLost"}


@pytest.mark.parametrize("cls", CLASSES)
def test_every_failure_carries_the_fields_of_the_json_object_in_their_order(cls: type[AlpacliError]) -> None:
    error = cls("it failed", "do this", status=422, code=40010001, request_id="abc", retry_after=1.5)
    assert list(error.as_dict().items()) == [
        ("type", cls.__name__),
        ("message", "it failed"),
        ("hint", "do this"),
        ("status", 422),
        ("code", 40010001),
        ("request_id", "abc"),
        ("retry_after", 1.5),
    ]
    assert str(error) == "it failed"


def test_what_is_not_known_is_null_and_never_left_out() -> None:
    assert AlpacliError("x").as_dict() == {
        "type": "AlpacliError",
        "message": "x",
        "hint": "",
        "status": None,
        "code": None,
        "request_id": None,
        "retry_after": None,
    }


def test_the_brokers_further_fields_stay_with_the_error() -> None:
    assert AlpacaAPIError("no", details={"buying_power": "1.5"}).details == {"buying_power": "1.5"}
    assert AlpacaAPIError("no").details == {}
