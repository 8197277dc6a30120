"""What loading a module of the product loads with it, in a fresh interpreter."""

import subprocess
import sys


def loaded_by(statement: str, *, after: str = "pass") -> set[str]:
    """Return the modules that are loaded after the statement and were not after the other one, run before it."""
    code = f"import sys\n{after}\nbefore = set(sys.modules)\n{statement}\nprint(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return set(done.stdout.split())


A_NAMED_TUPLE = "import typing\nclass _(typing.NamedTuple): a: int"
"""What a first one loads is Python's own: more of it from 3.14 on."""
