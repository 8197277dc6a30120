"""``make blocking``: makes the blocking client from the one for event loops, so that no method is written twice.

Taking words away is all there is to it; a test holds what lies in the tree against what would be made. Both lie there
whole, since editors, type checkers and readers look at the files and not at this (docs/adr/0022).
"""

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

BROKER: Final = Path(__file__).parents[1] / "src" / "alpacli" / "broker"
MADE: Final = {"async_client.py": "client.py", "async_trading.py": "trading.py"}
"""What is written, and what is made from it."""

_WORDS: Final = {
    r"\b(async|await) ": "",
    r"\bAsync(?=[A-Z])": "",
    r"\basync_(?=trading\b)": "",
    # What is true of one of the two only.
    r"budget, for an event loop\.": "budget. Thread-safe.",
    r"\n    Cancelling a call that waits frees its place in the queue\.\n": "",
    r"Order entry of the client for event loops\.": "Order entry of the blocking client; an ``OrderExecutor``.",
}


def made_from(source: Path) -> str:
    """Return the blocking twin of a module."""
    _, _, code = source.read_text(encoding="utf-8").removeprefix('"""').partition('"""\n')
    for word, instead in _WORDS.items():
        code = re.sub(word, instead, code)
    opening = (
        f'"""The blocking twin of ``{source.stem}``, made from it by ``make blocking``: change that one, not this."""\n'
    )
    return _formatted(opening + code)


def _formatted(code: str) -> str:
    for command in (("check", "--fix", "--quiet", "--select=I"), ("format", "--quiet")):
        ruff = [sys.executable, "-m", "ruff", *command, "--stdin-filename", str(BROKER / "made.py"), "-"]
        code = subprocess.run(ruff, input=code, capture_output=True, encoding="utf-8", check=True).stdout
    return code


if __name__ == "__main__":
    for written, made in MADE.items():
        (BROKER / made).write_text(made_from(BROKER / written), encoding="utf-8")
