"""docs/recipes: every block is run as it stands (``tests/support/kitchen.py``)."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import kitchen as cooking
from tests.support.kitchen import Block, Kitchen
from tests.support.streaming import eventually

from alpacli.cli.app import COMMANDS, build

RECIPES = Path(__file__).parents[2] / "docs" / "recipes"
NAMES = sorted(path.stem for path in RECIPES.glob("*.md") if path.stem != "README")


def blocks(name: str) -> list[Block]:
    return cooking.blocks(RECIPES / f"{name}.md")


@pytest.fixture
def kitchen(tmp_path: Path) -> Iterator[Kitchen]:
    made = Kitchen(tmp_path)
    yield made
    made.close()


def test_every_recipe_is_in_the_list_of_recipes() -> None:
    listed = (RECIPES / "README.md").read_text(encoding="utf-8")
    assert [name for name in NAMES if f"({name}.md)" not in listed] == []
    assert sum(len(blocks(name)) for name in NAMES) >= 15


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cron", "many-bots", "status-line", "testing-a-bot"])
def test_a_recipe_works_as_it_is_written(kitchen: Kitchen, name: str) -> None:
    for block in blocks(name):
        kitchen.cook(block)


def test_a_fill_is_told_by_the_recipe_for_it(kitchen: Kitchen) -> None:
    script, watch, buy = blocks("alert-on-a-fill")
    kitchen.cook(script)
    kitchen.cook(watch)
    told = kitchen.user.cwd / "notified"

    def is_told() -> bool:
        kitchen.cook(buy)
        return eventually(lambda: told.exists() and "buy 0.01 BTC/USD at " in told.read_text(), 2)

    assert eventually(is_told)


def _commands() -> list[str]:
    """Return what stands in the right column of the table, once for each command."""
    text = (RECIPES / "from-the-official-cli.md").read_text(encoding="utf-8")
    return [
        found
        for row in re.findall(r"^\| `alpaca .*$", text, re.MULTILINE)
        for found in re.findall(r"`(alpacli .*?)`", row)
    ]


@pytest.mark.parametrize("command", _commands())
def test_what_the_official_command_becomes_is_a_command_with_these_options(command: str) -> None:
    name, *rest = shlex.split(command)[1:]
    entry = COMMANDS[name]
    while entry.commands is not None:
        name, *rest = rest
        entry = entry.commands[name]
    build(name, entry).make_context(name, rest)


def test_links_between_pages_lead_to_pages_that_are_in_the_repository() -> None:
    docs = Path(__file__).parents[2] / "docs"
    links = [(page, link) for page in docs.rglob("*.md") for link in re.findall(r"\]\(([^)#:]+\.md)", page.read_text())]
    assert links
    assert [(page.name, link) for page, link in links if not (page.parent / link).is_file()] == []
