"""Common options stand before or after the command's name, and mean the same."""

import pytest

from alpacli.cli.app import COMMANDS, Entry
from alpacli.cli.options import hoist
from alpacli.errors import UsageError


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (["account"], ["account"]),
        (["--json", "account"], ["account", "--json"]),
        (["--max-age", "5", "account", "--json"], ["account", "--max-age", "5", "--json"]),
        (["--max-age=5", "--sim", "positions", "AAPL"], ["positions", "--max-age=5", "--sim", "AAPL"]),
        (["--jq", "account", "positions"], ["positions", "--jq", "account"]),
        (["--json", "watchlist", "--sim", "list"], ["watchlist", "list", "--json", "--sim"]),
        (["cache", "--json", "clear", "account"], ["cache", "clear", "--json", "account"]),
        (["watchlist"], ["watchlist", "--help"]),
        ([], ["--help"]),
        (["--json", "--help"], ["--help"]),
        (["--version"], ["--version"]),
        (["--nonsense", "account"], ["--nonsense", "account"]),
        (["nonsense", "--json"], ["nonsense", "--json"]),
        (["orders", "--symbols", "A"], ["orders", "--symbols", "A"]),
    ],
)
def test_options_before_the_name_move_behind_it(given: list[str], meant: list[str]) -> None:
    assert hoist(given, COMMANDS) == meant


@pytest.mark.parametrize("given", [["--json"], ["--sim", "watchlist"], ["watchlist", "--max-age", "5"]])
def test_options_without_a_command_are_wrong_usage(given: list[str]) -> None:
    with pytest.raises(UsageError, match="no command"):
        hoist(given, COMMANDS)


def test_every_command_has_a_home_and_a_line_of_help() -> None:
    from importlib import import_module

    def entries(table: "dict[str, Entry]") -> list[Entry]:
        return [
            leaf for entry in table.values() for leaf in (entries(dict(entry.commands)) if entry.commands else [entry])
        ]

    for entry in entries(dict(COMMANDS)):
        module, _, name = entry.home.partition(":")
        assert callable(getattr(import_module(f"alpacli.cli.{module}"), name))
        assert entry.help.endswith(".")
