"""What to do next is told to everybody: whoever calls the library reads the same hints as whoever typed a command."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

import alpacli

SOURCE: Final = Path(alpacli.__file__).parent
COMMANDS_ONLY: Final = (
    *("cli", "gateway", "sim", "history/sync.py", "history/export.py", "history/sql.py", "streams/recording.py"),
    "render",
)
"""What only commands lead to: nobody reads its messages who has no flags."""
IN_PYTHON: Final = {
    "--all-symbols": r'\["\*"\]',
    "--end": r"\bend\b",
    "--extended-hours": r"\bextended_hours\b",
    "--feed": r"\bfeed\b",
    "--limit": r"\blimit\b|\blimit_price\b",
    "--max-age": r"\bmax_age\b",
    "--max-wait": r"\bmax_wait\b",
    "--no-hub": r"\bhub=False\b",
    "--profile": r"\bprofile=",
    "--reconnect": r"\breconnect\b",
    "--sim": r"\bsim=True\b",
    "--stale-after": r"\bstale_after\b",
    "--stop-loss": r"\bstop_loss\b",
    "--take-profit": r"\btake_profit\b",
    "--tif": r"\btime_in_force\b",
}
FLAG: Final = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


def _texts(path: Path) -> Iterator[tuple[int, str]]:
    """Every text of a module but its docstrings, the values in it left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [part for part in node.values if isinstance(part, ast.Constant)]
            told |= {id(part) for part in parts}
            yield node.lineno, "".join(str(part.value) for part in parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
            yield node.lineno, node.value


@pytest.mark.parametrize(
    "module",
    [
        pytest.param(path, id=str(path.relative_to(SOURCE)))
        for path in sorted(SOURCE.rglob("*.py"))
        if not str(path.relative_to(SOURCE)).startswith(COMMANDS_ONLY)
    ],
)
def test_a_hint_that_names_a_flag_says_what_it_is_in_python_too(module: Path) -> None:
    """A whole command in backticks is for everybody; a flag alone is nothing that a program could give."""
    for line, text in _texts(module):
        plain = re.sub(r"`alpacli [^`]*`", "", text)
        words = FLAG.sub("", plain)
        for flag in FLAG.findall(plain) if " " in text else ():
            assert re.search(IN_PYTHON[flag], words), f"line {line}: {text}"
