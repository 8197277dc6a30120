"""Files that hold what users can rely on, as this version has it. ``make golden`` writes them; the tests compare.

A difference is either a mistake or a change that users notice, and that belongs into the changelog.
"""

import json
import sys
import tempfile
from pathlib import Path

from alpacli.cli import tree
from alpacli.cli.app import run
from alpacli.cli.tree import Command, walk

SCHEMAS = Path(__file__).parents[1] / "golden" / "schemas.json"


def schemas(command_tree: Command) -> str:
    """Return the JSON Schema of every command's output."""
    found = {}
    for command in walk(command_tree):
        if any("--schema" in parameter.names for parameter in command.parameters):
            found[command.name] = json.loads(_printed([*command.name.split(), "--schema"]))
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def _printed(arguments: list[str]) -> str:
    """Run a command in this process and return what it prints."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as out:
        kept, sys.stdout = sys.stdout, out
        try:
            code = run(arguments)
        finally:
            sys.stdout = kept
        assert code == 0, arguments
        out.seek(0)
        return out.read()


if __name__ == "__main__":
    built = tree.built()
    Path(tree.FILE).write_text(tree.to_text(built), encoding="utf-8")
    SCHEMAS.write_text(schemas(built), encoding="utf-8")
