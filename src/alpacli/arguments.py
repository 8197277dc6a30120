"""What a program hands to the library is asked for its kind here, before anything is computed from it or sent.

Whoever writes a script is told which argument it was and what to give instead, as ``UsageError``: a text for a number would
otherwise come out as a bare ``TypeError`` from somewhere deep inside.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from alpacli.errors import UsageError


def a_text(name: str, value: object, hint: str = "give a text") -> str:
    """Return a text.

    Raises:
        UsageError: it is anything else.
    """
    if not isinstance(value, str):
        raise _wrong(name, value, hint)
    return value


def texts(name: str, values: object) -> list[str]:
    """Return the texts of a list, a tuple, a set and the like.

    Raises:
        UsageError: one text, whose letters would be taken for a list; no list; or what is in it is no text.
    """
    if isinstance(values, str):
        raise UsageError(f"{name} is one text", f"give a list: [{values!r}]")
    if not isinstance(values, Iterable) or isinstance(values, bytes | Mapping):
        raise _wrong(name, values, 'give a list of texts, like ["AAPL", "MSFT"]')
    return [a_text(f"one of {name}", value) for value in values]


def whole(name: str, value: Any, hint: str = "give a number of rows of at least 1", *, least: int = 1) -> int:
    """Return a whole number of at least ``least``, whoever made it (numpy for one).

    Raises:
        UsageError: it is anything else.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise _wrong(name, value, hint)
    try:
        number = int(value)
    except (TypeError, ValueError):  # an array of numpy's
        raise _wrong(name, value, hint) from None
    if number < least:
        raise _wrong(name, value, hint)
    return number


def seconds(name: str, value: Any, *, least: float = 0.0, most: float = 1e9, endless: bool = False) -> float:
    """Return a number of seconds from ``least`` up to, not including, ``most``; with ``endless`` infinity too.

    Raises:
        UsageError: it is anything else.
    """
    hint = f"give a number of seconds of at least {least:g}"
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        raise _wrong(name, value, hint)
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise _wrong(name, value, hint) from None
    if not least <= number < most and not (endless and number == float("inf")):
        raise UsageError(f"{name} is {number:g}", hint)
    return number


def a_mapping(name: str, value: object, hint: str) -> Mapping[Any, Any]:
    """Return a dict, or what is like one.

    Raises:
        UsageError: it is anything else.
    """
    if not isinstance(value, Mapping):
        raise _wrong(name, value, hint)
    return value


def _wrong(name: str, value: object, hint: str) -> UsageError:
    return UsageError(f"{name} is {value!r:.60}", hint)
