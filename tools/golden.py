"""Write what the tests compare the program with: the command tree. ``make golden`` runs it after a command was changed."""

from pathlib import Path

from alpacli.cli import tree

if __name__ == "__main__":
    Path(tree.FILE).write_text(tree.to_text(tree.built()), encoding="utf-8")
