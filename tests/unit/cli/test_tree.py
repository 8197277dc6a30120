"""No command, option or value changes unnoticed: the tree that is shipped is that of the program."""

from pathlib import Path

from alpacli.cli import tree


def test_the_shipped_command_tree_is_that_of_the_program() -> None:
    shipped = Path(tree.FILE).read_text(encoding="utf-8")
    assert shipped == tree.to_text(tree.built()), "a command has changed: look at `make golden; git diff`"
