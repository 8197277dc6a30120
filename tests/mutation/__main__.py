"""``make mutants``: change a module in every way that cosmic-ray knows, and see whether its tests notice.

Each mutant runs in a fork of a process that has loaded everything else, so that it costs its tests and little more. The tests
of a module are the fast ones beside it, which must notice by themselves. Survivors are printed as they are found.
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
from typing import Any, Final

import hypothesis
import pytest
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

MODULES: Final = {
    "alpacli.store.policy": ("tests/unit/store/test_policy.py",),
    "alpacli.store.sqlite_budget": (
        *("tests/unit/store/test_budget.py", "tests/contract/test_store_contract.py"),
        *("tests/contract/test_store_budget.py", "-k", "embedded or memory or whatever_happens"),
    ),
    "alpacli.broker.sending": ("tests/unit/broker/test_desk.py",),
    "alpacli.broker.notebook": ("tests/unit/broker/test_notebook.py", "tests/unit/broker/test_desk.py"),
    "alpacli.sim.ledger": (
        *("tests/unit/sim/test_ledger.py", "tests/unit/sim/test_collateral.py", "tests/unit/sim/test_reports.py"),
        *("tests/unit/sim/test_options.py", "tests/unit/sim/test_engine_properties.py"),
    ),
    "alpacli.wire.frames": ("tests/unit/wire/test_frames.py",),
    "alpacli.wire.lines": ("tests/unit/wire/test_frames.py", "tests/unit/wire/test_short.py"),
}
EXPLAINED: Final = {
    "if cap is None or cap > limit:": "where cap and limit are the same, both ways return the same",
    "if tries is REQUESTS_AT_MOST or not isinstance(failure, DOUBTFUL):": "small integers are one object",
    "if tries >= REQUESTS_AT_MOST or not isinstance(failure, DOUBTFUL):": "it counts up to there and no further",
    'if outcome >= "unknown":': "what is not unknown then is in flight",
    'moment = (local - offset if sign <= "+" else local + offset).isoformat()': "a sign is one of two",
    'if len(t) <= 30 or t[29] != "Z" or t[10] != "T":': "the quick way for the usual form or not, it is the same",
    'if len(t) < 30 or t[29] != "Z" or t[10] != "T":': "no longer text is a time",
    "if m.__class__ == _Quote:": "a class is equal to itself only",
    "elif m.__class__ == _Trade:": "a class is equal to itself only",
    'if encoding <= "json":': "there are two encodings",
    'return Subscription({name: _names(value) for name, value in message.items() if name > "T"})': (
        "the names of channels begin with small letters"
    ),
    "if not held or (held >= 0) == (signed_qty > 0):": "nothing held was asked before",
    "if not held or (held > 0) == (signed_qty >= 0):": "nobody trades nothing",
    "if not held or (held > 0) is (signed_qty > 0):": "there is one true and one false",
    "elif (held > 0) == (qty >= 0):": "nothing left was asked before",
    "elif (held >= 0) == (qty > 0):": "nothing held was asked before",
    "elif (held > 0) is (qty > 0):": "there is one true and one false",
    'quantities[row["symbol"]] -= qty if row["side"] <= "buy" else -qty': "a side is one of two",
    'before, qty if side <= "buy" else -qty, price * listing.multiplier if listing.contract is not None else price': (
        "a side is one of two"
    ),
    "if qty >= 0:": "nothing is worth nothing, long or short",
    "if now <= open_until:": "at its last moment nothing is left to wait",
    "if probe and now <= probe_until <= now + self.flight_s + 1.0:": "at its last moment nothing is left to wait",
    "if retry_in_s != 0:": "no wait is less than nothing",
    "if open_until >= now + rules.breaker_open_s:  # the clock was set back": "it is set to what it is",
    "if changed is not row:": "it writes what stands there",
    "(scope, int(now / 60)),": "it is later than 1970",
    "minute = int(now / 60)": "it is later than 1970",
    **dict.fromkeys(
        (
            "return float(min(probe_until % now, LONGEST_WAIT_S))",
            "return float(min(open_until % now, rules.breaker_open_s))",
            "earliest_s = free_at(times, used + ahead - slots, slots, now, rules.window_s) % now + MARGIN_S",
            "Waiting(label, max(0.0, now % since), bool(urgent))",
            "reset_s = max(0.0, free_at(times, used - limit, limit, now, rules.window_s) % now)",
        ),
        "of two moments of the same decades, it is their difference",
    ),
    **dict.fromkeys(
        (
            "if any(not now < expires <= latest for *_, expires in rows):",
            "if any(not now is expires <= latest for *_, expires in rows):",
            "if any(not now == expires <= latest for *_, expires in rows):",
            "if any(not now <= expires < latest for *_, expires in rows):",
            "if any(not now <= expires == latest for *_, expires in rows):",
            "if any(not now <= expires is latest for *_, expires in rows):",
            "if count and first != oldest:",
            "if count and first is not oldest:",
            "if count and last != latest:",
            "if count and last is not latest:",
        ),
        "it looks for more to mend than there is",
    ),
    "prompt = [place for place in queue if now - self.grace_s < place[2] or place[0] == ticket.id]": "no clock hits it",
    "ahead += urgent == ticket.urgent": "there is one true and one false",
    "if until <= known[1] - 0.5:": "what is half a second off may be of either window",
    "if until <= known[1] + 0.5:": "what is half a second off may be of either window",
    "elif outcome.failed == False:": "it is true, false or nothing",
    "if count and last >= latest:": "where they are the same, none is later and none is dated again",
    "if count and first <= oldest:": "where they are the same, none is older and none is deleted",
    "order = (yield from self._pipeline.read(call, use_cache=True, max_age=None)).value": "such a read is never kept",
}
"""Lines that a mutant may have without anything being different, and why."""

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


def noticed(name: str, source: str, tests: Sequence[str]) -> bool:
    """Run the tests in a fork in which the module is another; a mutant that never ends is noticed too."""
    pid = os.fork()
    if pid:
        _, status = os.waitpid(pid, 0)
        return status != 0
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


def _means_the_same(line: str, source: str) -> bool:
    """Tell whether a mutant's line is explained; ``gc=True`` is slower, no more."""
    return line.strip() in EXPLAINED or line.replace("gc=True", "gc=False") in source.splitlines()


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
        if noticed(name, source, tests):
            raise SystemExit(f"the tests of {name} fail as it is: they can notice nothing")
        found = list(mutants(source))
        chosen = random.Random(1).sample(found, max(1, int(len(found) * asked.share)))
        alive = explained = 0
        for label, text in chosen:
            if noticed(name, text, tests):
                continue
            changed = list(difflib.unified_diff(source.splitlines(), text.splitlines(), lineterm="", n=0))[2:]
            if all(_means_the_same(line[1:], source) for line in changed if line.startswith("+")):
                explained += 1
                continue
            alive += 1
            print(f"{name}: {label}\n  " + "\n  ".join(changed), flush=True)
        survivors += alive
        told = f"{alive} survive and {explained} change nothing that counts"
        print(f"{name}: {len(chosen)} of {len(found)} mutants, {told}", flush=True)
    return 1 if survivors else 0


if __name__ == "__main__":
    raise SystemExit(main())
