"""``make golden``: writes what users can rely on, as this version has it, into the files that the tests compare with.

A difference is either a mistake or a change that users notice, and that belongs into the changelog.
"""

import contextlib
import json
import tempfile
from pathlib import Path

from alpacli.cli import tree
from alpacli.cli.app import run

SCHEMAS = Path(__file__).parents[1] / "tests" / "golden" / "schemas.json"


def schemas(commands: tree.Command) -> str:
    """Return the JSON Schema of every command's output."""
    found = {}
    for command in tree.walk(commands):
        if any("--schema" in parameter.names for parameter in command.parameters):
            printed = _printed([*command.name.split(), "--schema"])
            found[command.name] = json.loads(printed) if printed else None
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def _printed(arguments: list[str]) -> str:
    """Run a command in this process and return what it prints; nothing when it says that its output has no schema.

    Raises:
        RuntimeError: it fails.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8") as out, tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(said):
            code = run(arguments)
        out.seek(0)
        said.seek(0)
        if code not in (0, 2):
            raise RuntimeError(f"{' '.join(arguments)}: {said.read()}")
        return out.read()


if __name__ == "__main__":
    built = tree.built()
    Path(tree.FILE).write_text(tree.to_text(built), encoding="utf-8")
    SCHEMAS.parent.mkdir(exist_ok=True)
    SCHEMAS.write_text(schemas(built), encoding="utf-8")
