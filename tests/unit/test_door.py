"""What a program meets behind ``import alpacli``: hints that resolve, types to import, words that explain."""

import functools
import inspect
import re
import subprocess
import sys
import typing
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import alpacli
from alpacli.history.market import MarketData
from alpacli.history.market_async import AsyncMarketData

MADE_BY_FUNCTIONS = {
    *("AlpacaClient", "AsyncAlpacaClient", "AsyncTrading", "Call", "Interest", "Stream", "Trading"),
    *("AsyncMarketData", "MarketData"),
}
"""Classes that a program gets from ``connect`` and its like, so that how they are made is not for it."""

OFFERED = {name: getattr(alpacli, name) for name in alpacli.__all__}
BEHIND = {"MarketData": MarketData, "AsyncMarketData": AsyncMarketData}
"""What ``client.market_data`` really is; its type is the provider's."""

CLASSES = {name: it for name, it in (OFFERED | BEHIND).items() if inspect.isclass(it)}


def _ours(cls: type) -> Iterator[type]:
    """Give the classes of alpacli's that one is made of, itself first."""
    return (base for base in cls.__mro__ if base.__module__.startswith("alpacli."))


def _members(cls: type) -> Iterator[tuple[str, Any]]:
    """Give what a class of the door's has for programs, by name: methods and properties, inherited ones too."""
    seen = set()
    for base in _ours(cls):
        for name, member in vars(base).items():
            if name.startswith("_") or name in seen:
                continue
            seen.add(name)
            function = getattr(member, "fget", None) or getattr(member, "func", None) or member
            function = getattr(function, "__func__", function)
            if inspect.isfunction(function) and function.__module__.startswith("alpacli."):
                yield name, function


def _documented() -> dict[str, Any]:
    found: dict[str, Any] = {name: it for name, it in OFFERED.items() if inspect.isclass(it) or inspect.isfunction(it)}
    found |= BEHIND
    for name, cls in CLASSES.items():
        found |= {f"{name}.{member}": function for member, function in _members(cls)}
    return found


def _hinted() -> dict[str, Any]:
    """Return what has hints: functions, methods, how values are made, and classes for their fields."""
    found = _documented()
    for name, cls in CLASSES.items():
        made = cls.__init__
        if name not in MADE_BY_FUNCTIONS and inspect.isfunction(made) and made.__module__.startswith("alpacli."):
            found[f"{name}.__init__"] = made
    return found


DOCUMENTED, HINTED = _documented(), _hinted()


def test_there_is_something_to_look_at() -> None:
    assert len(CLASSES) > 60
    assert len(HINTED) > 250
    assert {"AlpacaClient.forward", "AlpacaClient.trading", "Batch.table", "AsyncMarketData.bars"} - {*HINTED} == {
        "Batch.table"
    }
    assert {"AlpacaClient.close", "Batches.to_polars", "CalendarDay.opens_at", "Timestamp.parse"} <= {*DOCUMENTED}


@pytest.mark.parametrize("name", HINTED)
def test_every_hint_can_be_resolved(name: str) -> None:
    """As pydantic, typer, beartype, Sphinx and the like do it."""
    typing.get_type_hints(HINTED[name], include_extras=True)


def test_a_hint_that_names_a_library_that_is_missing_is_anything() -> None:
    program = """
import sys, typing
sys.modules["polars"] = None
from alpacli import Batches
print(typing.get_type_hints(Batches.to_polars), "pandas" in sys.modules)
print(typing.get_type_hints(Batches.to_pandas)["return"].__name__)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "{'return': typing.Any} False\nDataFrame\n"


def test_the_methods_for_event_loops_have_the_signature_of_the_others_and_their_own_answer() -> None:
    for name in ("bars", "trades", "quotes"):
        awaited, blocking = getattr(AsyncMarketData, name), getattr(MarketData, name)
        assert typing.get_type_hints(awaited)["return"] is alpacli.AsyncBatches
        assert inspect.signature(awaited) == inspect.signature(blocking).replace(return_annotation=alpacli.AsyncBatches)


def _types_in(hint: Any) -> Iterator[type]:
    if isinstance(hint, list):
        for part in hint:
            yield from _types_in(part)
    elif inspect.isclass(hint) and typing.get_origin(hint) is None:
        yield hint
    elif hint is not None:
        origin = typing.get_origin(hint)
        if inspect.isclass(origin):
            yield origin
        if origin is not typing.Literal:
            for part in typing.get_args(hint):
                yield from _types_in(part)


@pytest.mark.parametrize("name", HINTED)
def test_every_type_in_a_signature_can_be_imported_from_the_door(name: str) -> None:
    if name in CLASSES and name in MADE_BY_FUNCTIONS:
        hints: dict[str, Any] = {}
    else:
        hints = typing.get_type_hints(HINTED[name])
    mentioned = {kind for hint in hints.values() for kind in _types_in(hint) if kind.__module__.startswith("alpacli.")}
    missing = [kind for kind in mentioned if getattr(alpacli, kind.__name__, None) is not kind]
    assert missing == []


def test_every_failure_that_can_reach_a_program_can_be_imported_from_the_door() -> None:
    from alpacli import errors

    family = {name for name, it in vars(errors).items() if inspect.isclass(it) and issubclass(it, errors.AlpacliError)}
    inside = {
        "OrderEnded",
        "OutputFailed",
        "StoreUnavailable",
    }  # commands' ways to end; what the next store takes over from
    assert family - {*alpacli.__all__} == inside


def test_what_the_door_says_to_type_checkers_it_does() -> None:
    source = inspect.getsource(alpacli)
    shown = re.findall(r"^    from (\S+) import (?:\(([^)]*)\)|(.*))$", source, re.MULTILINE)
    names = {
        (home, name.split(" as ")[0])
        for home, several, one in shown
        for name in re.split(r",\s*", (several or one).strip().rstrip(","))
        if home != "importlib"
    }
    assert names == {(home, name) for home, held in alpacli._HOMES.items() for name in held}
    assert {*alpacli.__all__} <= {name for _, name in names}


# -------------------------------------------------------------------------------------------------- explained


@pytest.mark.parametrize("name", DOCUMENTED)
def test_everything_is_explained_in_words_of_its_own(name: str) -> None:
    thing = DOCUMENTED[name]
    text = (thing.__dict__.get("__doc__") if inspect.isclass(thing) else thing.__doc__) or ""
    own = name.rpartition(".")[2]
    assert not text.startswith(f"{own}("), "made by NamedTuple or msgspec"
    assert re.match(r"[A-Z`]", text), "a sentence"
    said = {word.lower() for word in re.findall(r"[A-Za-z]{2,}", text)} - _FILLERS
    repeated = {word.lower().rstrip("s") for word in re.findall(r"[A-Z]?[a-z]+", own)}
    assert len({word for word in said if word.rstrip("s") not in repeated}) >= 3, f"{text!r} says what its name says"


_FILLERS = {
    "the",
    "an",
    "and",
    "of",
    "to",
    "in",
    "is",
    "it",
    "its",
    "or",
    "return",
    "give",
    "get",
    "set",
    "this",
    "for",
}


def test_what_a_method_inherits_from_a_protocol_is_explained_once() -> None:
    assert all(_text(cls, name) for cls in CLASSES.values() for name, _ in _members(cls))


def _text(cls: type, name: str) -> str | None:
    member: Callable[..., Any] | functools.cached_property[Any] = inspect.getattr_static(cls, name)
    return inspect.getdoc(member)
