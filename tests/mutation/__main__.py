"""``make mutants``: change a module in every way that cosmic-ray knows, and its Lua too, and see whether its tests notice.

Each mutant runs in a fork of a process that has loaded everything else, so that it costs its tests and little more. The tests
of a module are the fast ones beside it, which must notice by themselves. Each run that needs a Redis starts one: that costs
less than what a mutant may leave in a server, or a script that never ends. Survivors are printed as they are found.
"""

import argparse
import difflib
import importlib
import importlib.abc
import importlib.util
import os
import random
import signal
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Literal

import hypothesis
import pytest
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names
from tests.mutation import lua
from tests.mutation.explained import EXPLAINED

_REDIS: Final = (
    *("tests/unit/store/test_budget.py", "tests/unit/store/test_cache.py", "tests/unit/store/test_redis.py"),
    *("tests/contract/test_store_contract.py", "tests/contract/test_store_redis.py"),
)
_ONE_SERVER: Final = (
    "-k",
    " and ".join(
        f"not {other}"
        for other in ("[embedded", "[sqlite", "[memory", "[cluster", "[fakeredis", "test_a_cluster", "promoted")
    ),
)
MODULES: Final = {
    "alpacli.store.policy": ("tests/unit/store/test_policy.py",),
    "alpacli.store.sqlite_budget": (
        *("tests/unit/store/test_budget.py", "tests/contract/test_store_contract.py"),
        *("tests/contract/test_store_budget.py", "-k", "embedded or memory or whatever_happens"),
    ),
    "alpacli.store.redis": ("tests/unit/store/test_redis_client.py", *_REDIS, *_ONE_SERVER),
    "alpacli.store.scripts": (*_REDIS, *_ONE_SERVER),
    "alpacli.store.resilient": ("tests/unit/store/test_resilient.py",),
    "alpacli.store.allowance": ("tests/unit/store/test_allowance.py",),
    "alpacli.store.baton": ("tests/unit/store/test_baton.py",),
    "alpacli.domain.worth": ("tests/unit/domain/test_worth.py",),
    "alpacli.broker.risk": ("tests/unit/broker/test_risk.py", "tests/unit/broker/test_desk.py"),
    "alpacli.domain.identity": ("tests/unit/domain/test_identity.py",),
    "alpacli.broker.sending": ("tests/unit/broker/test_desk.py",),
    "alpacli.broker.fills": ("tests/unit/broker/test_fills.py",),
    "alpacli.broker.notebook": ("tests/unit/broker/test_notebook.py", "tests/unit/broker/test_desk.py"),
    "alpacli.sim.ledger": (
        *("tests/unit/sim/test_ledger.py", "tests/unit/sim/test_collateral.py", "tests/unit/sim/test_reports.py"),
        *("tests/unit/sim/test_options.py", "tests/unit/sim/test_engine_properties.py"),
    ),
    "alpacli.wire.frames": ("tests/unit/wire/test_frames.py",),
    "alpacli.wire.fills": ("tests/unit/broker/test_fills.py",),
    "alpacli.wire.lines": ("tests/unit/wire/test_frames.py", "tests/unit/wire/test_short.py"),
}

_LONGEST_S: Final = 60
_QUIETLY: Final = (
    *("-x", "-q", "--assert=plain", "-p", "no:cacheprovider", "-p", "no:randomly", "-p", "no:xdist"),
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),
    "--timeout=0",  # it would take the alarm for itself
)
_NOT_OURS: Final = ("core/NumberReplacer",)
"""Numbers at large are settings; what is left changes what the code does."""


def mutants(source: str) -> Iterator[tuple[str, str]]:
    """Yield each mutant's source, and its name: the operator and the how-manieth place."""
    for name in sorted(operator_names()):
        if name in _NOT_OURS:
            continue
        operator = get_operator(name)
        if operator.arguments():
            continue  # it changes what it is told to, and is told nothing
        for occurrence in count():
            try:
                mutated = mutate_code(source, operator(), occurrence)
            except AttributeError:
                continue  # cosmic-ray does not understand what is caught there: a tuple with a star in it
            if mutated is None:
                break
            yield f"{name} {occurrence}", mutated
    yield from lua.mutants(source)


class _Mutated(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Loads one module from a source of its own."""

    def __init__(self, name: str, source: str) -> None:
        self._name, self._source = name, source

    def find_spec(self, fullname: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        return importlib.util.spec_from_loader(fullname, self) if fullname == self._name else None

    def get_source(self, fullname: str) -> str:
        return self._source

    def is_package(self, fullname: str) -> bool:
        return False


def outcome(name: str, source: str, tests: Sequence[str]) -> Literal["alive", "noticed", "never ended"]:
    """Run the tests in a fork in which the module is another; a mutant that never ends is noticed too."""
    pid = os.fork()
    if pid:
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM:
            return "never ended"
        return "noticed" if status else "alive"
    signal.alarm(_LONGEST_S)
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    sys.meta_path.insert(0, _Mutated(name, source))
    code = 1
    try:
        code = int(pytest.main([*tests, *_QUIETLY]))
    finally:
        os._exit(min(code, 1))


def _forget(name: str) -> None:
    """Take the module, and what has taken something from it, out of memory: a fork imports them anew."""
    target = sys.modules[name]
    for module_name, module in list(sys.modules.items()):
        if module_name.startswith("alpacli.") and any(
            value is target or getattr(value, "__module__", None) == name for value in vars(module).values()
        ):
            del sys.modules[module_name]
            parent, _, child = module_name.rpartition(".")
            if hasattr(sys.modules.get(parent), child):
                delattr(sys.modules[parent], child)
    sys.modules.pop(name, None)


def _is_explained(changed: Sequence[str], source: str) -> bool:
    """Tell whether all new lines of a mutant are explained; of one that has none, the lines that it lacks."""
    new, lacking = ([line[1:] for line in changed if line[0] == sign and line[1:].strip()] for sign in "+-")
    return all(_means_the_same(line, source) for line in new or lacking)


def _means_the_same(line: str, source: str) -> bool:
    """Tell whether a mutant's line is explained; ``gc=True`` is slower, and what has to be named may then be placed."""
    return line.strip() in EXPLAINED or any(
        line.replace(*change, 1) in source.splitlines() for change in (("gc=True", "gc=False"), ("/,", "*,"))
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="mutants", description=__doc__)
    parser.add_argument("--only", default="", help="modules whose name holds this")
    parser.add_argument("--share", type=float, default=1.0, help="try this share of them, chosen by dice")
    asked = parser.parse_args()
    hypothesis.settings.register_profile(
        "mutants",
        max_examples=40,
        derandomize=True,
        database=None,
        deadline=None,
        phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),  # that it fails is all that is asked
    )
    hypothesis.settings.load_profile("mutants")
    survivors = 0
    for name, tests in MODULES.items():
        if asked.only not in name:
            continue
        path = str(importlib.import_module(name).__file__)
        _forget(name)
        source = Path(path).read_text()
        if outcome(name, source, tests) != "alive":
            raise SystemExit(f"the tests of {name} fail as it is: they can notice nothing")
        found = list(mutants(source))
        chosen = random.Random(1).sample(found, max(1, int(len(found) * asked.share)))
        alive = explained = endless = 0
        for label, text in chosen:
            came_of_it = outcome(name, text, tests)
            endless += came_of_it == "never ended"
            if came_of_it != "alive":
                continue
            changed = list(difflib.unified_diff(source.splitlines(), text.splitlines(), lineterm="", n=0))[2:]
            if _is_explained(changed, source):
                explained += 1
                continue
            alive += 1
            print(f"{name}: {label}\n  " + "\n  ".join(changed), flush=True)
        survivors += alive
        told = f"{alive} survive, {explained} change nothing that counts, {endless} never ended"
        print(f"{name}: {len(chosen)} of {len(found)} mutants, {told}", flush=True)
    return 1 if survivors else 0


if __name__ == "__main__":
    raise SystemExit(main())
