"""No command, option, value or field changes unnoticed: command tree and JSON schemas are kept in files."""

from pathlib import Path

import pytest
from tools.golden import SCHEMAS, schemas

from alpacli.cli import tree
from alpacli.cli.manual import manual
from alpacli.cli.topics import TOPICS

HOW = "run `make golden`, look at the difference, and tell users in CHANGELOG.md"


def test_the_shipped_command_tree_is_that_of_the_program() -> None:
    assert tree.to_text(tree.built()) == Path(tree.FILE).read_text(encoding="utf-8"), HOW


def test_the_schema_of_every_output_is_the_one_that_was_agreed() -> None:
    assert schemas(tree.load()) == SCHEMAS.read_text(encoding="utf-8"), HOW


def test_the_tree_survives_being_written_and_read() -> None:
    assert tree.load() == tree.built()


def test_the_manual_page_names_every_command_option_and_topic() -> None:
    page = manual(tree.load(), "1.2.3").replace(r"\-", "-")
    for command in tree.walk(tree.load()):
        if command.name and not command.commands:
            assert f".SS alpacli {command.name}" in page
        for parameter in command.parameters:
            assert not parameter.is_option or parameter.names[0] in page
    for topic in TOPICS:
        assert f".SH {topic.replace('-', ' ').upper()}" in page


@pytest.mark.parametrize("topic", TOPICS)
def test_a_topic_fits_a_terminal_of_80_columns(topic: str) -> None:
    assert max(len(line) for line in TOPICS[topic].text.splitlines()) <= 80


def test_every_command_says_what_it_does_in_a_sentence() -> None:
    for command in tree.walk(tree.load()):
        assert command.help.endswith("."), command.name
