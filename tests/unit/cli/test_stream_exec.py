"""What waits for a command is bounded, and nothing of it is lost."""

import asyncio
from pathlib import Path

from alpacli.cli.stream_exec import Hands, facts
from alpacli.cli.topics import TOPICS
from alpacli.ports import SystemClock


def test_more_updates_than_may_wait_hold_up_the_stream_and_none_is_lost(tmp_path: Path) -> None:
    told = tmp_path / "told"
    said: list[str] = []

    async def play() -> None:
        hands = Hands(
            ["tee", "-a", str(told)],
            SystemClock(),
            tell=said.append,
            pause=lambda: said.append("pause"),
            resume=lambda: said.append("resume"),
            most_waiting=4,
        )
        for number in range(8):
            hands.put(b'{"event": %d}\n' % number)
        assert said == ["pause"]
        await hands.finish(lambda: False)

    asyncio.run(play())
    assert said == ["pause", "resume"]
    assert told.read_text(encoding="utf-8").splitlines() == [f'{{"event": {number}}}' for number in range(8)]


def test_every_fact_that_a_command_is_told_is_explained() -> None:
    recipe = Path(__file__).parents[3] / "docs" / "recipes" / "alert-on-a-fill.md"
    for text in (TOPICS["environment"].text, recipe.read_text(encoding="utf-8")):
        assert [name for name in facts({}) if name not in text] == []
