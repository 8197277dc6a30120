"""The bad days of the live table: signals, windows that are closed, full disks, times that make no sense."""

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.support.feed import CONNECTED, Conversation, Feed, Script, quote, steadily, trade
from tests.support.streaming import eventually, hubs_are_gone, parsed, user_of
from tests.support.terminal import Terminal

from alpacli.domain.ticks import instant_text

SHARINGS = [(), ("--no-hub",)]


@pytest.fixture
def errors(tmp_path: Path) -> Iterator[int]:
    """A file for standard error, so that it outlives the terminal."""
    with (tmp_path / "errors").open("wb") as file:
        yield file.fileno()


def _has(symbol: str) -> Callable[[list[str]], bool]:
    return lambda lines: any(line.startswith(symbol) and "100.25" in line for line in lines)


async def _hang_when_open(conversation: Conversation) -> None:
    await asyncio.sleep(60)


async def _hang_at_login(conversation: Conversation) -> None:
    await conversation.say(CONNECTED)
    await asyncio.sleep(60)


async def _hang_at_subscription(conversation: Conversation) -> None:
    await conversation.greet()
    await asyncio.sleep(60)


async def _losing(conversation: Conversation) -> None:
    conversation.go()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("step", "state"),
    [
        (_hang_when_open, "connecting"),
        (_hang_at_login, "authenticating"),
        (_hang_at_subscription, "subscribing"),
        (steadily, "live"),
        (_losing, "reconnecting in"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_signal_at_any_step_leaves_the_terminal_as_it_was(
    tmp_path: Path, number: signal.Signals, step: Script, state: str
) -> None:
    with Feed(step) as feed:
        user = user_of(feed.url, tmp_path)
        sharing = SHARINGS[number == signal.SIGINT]
        with closing(Terminal(user, "stream", "AAPL", "--trades", "--reconnect", "forever", *sharing)) as terminal:
            assert terminal.shows(lambda lines: f"iex  {state}" in lines[-2])
            terminal.process.send_signal(number)
            assert terminal.ended()


@pytest.mark.parametrize("controlling", [True, False])
def test_a_window_that_is_closed_ends_it_and_then_the_hub(tmp_path: Path, errors: int, *, controlling: bool) -> None:
    """Told by SIGHUP where the terminal is the program's own, and else by its end."""
    with Feed() as feed:
        user = user_of(feed.url, tmp_path)
        args = ("stream", "AAPL", "--trades", "--record", "day.ndjson")
        with closing(Terminal(user, *args, controlling=controlling, errors=errors)) as terminal:
            assert terminal.shows(_has("AAPL"))
            terminal.hang_up()
            assert terminal.process.wait(30) == 0
        assert (tmp_path / "errors").read_bytes() == b""
        assert parsed((user.cwd / "day.ndjson").read_bytes())
        assert eventually(lambda: feed.open_now == 0 and hubs_are_gone(tmp_path))


def test_a_window_that_is_closed_ends_lines_too(tmp_path: Path, errors: int) -> None:
    with Feed() as feed:
        user = user_of(feed.url, tmp_path)
        args = ("stream", "AAPL", "--trades", "--json")
        with closing(Terminal(user, *args, controlling=False, errors=errors)) as terminal:
            assert terminal.shows(lambda lines: any('"AAPL"' in line for line in lines))
            terminal.hang_up()
            assert terminal.process.wait(30) == 0
        assert (tmp_path / "errors").read_bytes() == b""
        assert eventually(lambda: feed.open_now == 0 and hubs_are_gone(tmp_path))


def test_a_full_disk_while_recording_ends_the_table_and_is_told_below_it(tmp_path: Path) -> None:
    with Feed() as feed:
        user = user_of(feed.url, tmp_path, PYTHONDONTWRITEBYTECODE="1")  # bytecode would be cut off as well
        through = ("bash", "-c", "trap '' XFSZ; ulimit -f 8; exec \"$@\"", "bash")
        args = ("stream", "AAPL", "--trades", "--no-hub", "--record", "day.ndjson")
        with closing(Terminal(user, *args, through=through)) as terminal:
            assert terminal.shows(_has("AAPL"))
            assert terminal.ended(6)
            assert "cannot record to day.ndjson: File too large" in terminal.text
        assert len(parsed((user.cwd / "day.ndjson").read_bytes())) > 10


def test_what_comes_twice_out_of_order_or_from_the_future_leaves_the_table_right(tmp_path: Path) -> None:
    def at(seconds_ago: float) -> str:
        return instant_text(int((time.time() - seconds_ago) * 1_000_000_000))

    async def strange(conversation: Conversation) -> None:
        await conversation.greet()
        await conversation.obey()
        new, old = {**trade(3), "p": 103.0, "t": at(3)}, {**trade(1), "p": 101.0, "t": at(4)}
        await conversation.say(new, new, old)  # 10 each, and one of them twice
        later, earlier = {**quote(5), "bp": 102.0, "ap": 104.0, "t": at(3)}, {**quote(4), "t": at(4)}
        await conversation.say(later, earlier)
        await conversation.say({**trade(9), "t": "2999-01-01T00:00:00.000000001Z", "p": 999.0, "s": 1})
        await asyncio.sleep(0.2)
        await conversation.say({**trade(7), "p": 107.0, "s": 5, "t": at(0)}, {"T": "zz"})
        await asyncio.sleep(60)

    with Feed(strange) as feed:
        user = user_of(feed.url, tmp_path)
        with closing(Terminal(user, "stream", "AAPL", columns=130)) as terminal:

            def settled(lines: list[str]) -> bool:
                row = next((line for line in lines if line.startswith("AAPL")), "").split()
                return row[1:2] == ["107.00"]

            assert terminal.shows(settled)
            header, row = terminal.lines[0], terminal.lines[1]
            assert "102.00 × 100" in row
            assert "104.00 × 200" in row
            volume = row[: header.index("Volume") + len("Volume")].split()[-1]
            assert volume == "26"
            terminal.press("q")
            assert terminal.ended()
            assert "left out: 1 message of unknown type" in terminal.text


async def _live_for_a_moment(conversation: Conversation) -> None:
    await conversation.greet()
    await conversation.obey()
    await conversation.say(trade(1))
    await conversation.is_heard()
    conversation.go()


def test_what_is_told_of_a_gap_stays_until_a_key_is_pressed_and_then_the_keys_are_back(tmp_path: Path) -> None:
    with Feed(_live_for_a_moment, steadily) as feed:
        user = user_of(feed.url, tmp_path)
        with closing(Terminal(user, "stream", "AAPL")) as terminal:
            told = ("gap: what happened from", "the gap could not be filled")  # a busy machine draws only the second
            assert terminal.shows(lambda lines: lines[-1].startswith(told))
            terminal.press("s")
            assert terminal.shows(lambda lines: "q quit" in lines[-1] and "sort (symbol)" in lines[-1])
            assert "1 gaps" in terminal.lines[-2]
            terminal.press("q")
            assert terminal.ended()


def test_a_lost_connection_shows_in_the_footer_and_the_error_below_the_table(tmp_path: Path) -> None:
    with Feed(_losing) as feed:
        user = user_of(feed.url, tmp_path)
        with closing(Terminal(user, "stream", "AAPL", "--reconnect", "1")) as terminal:
            assert terminal.shows(lambda lines: "reconnecting in" in lines[-2])
            assert terminal.ended(6)
            assert "the stream is lost after 1 attempt to reconnect: the connection broke" in terminal.text
