"""The live table as a person sees it: the installed program in a pseudo-terminal, read by an emulator."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyte
import pytest
from tests.support.alpacli import PROGRAM, Alpacli


class Terminal:
    """A terminal of some size with ``alpacli`` running in it."""

    def __init__(self, user: Alpacli, *args: str, columns: int = 100, lines: int = 12) -> None:
        self._leader, self._follower = pty.openpty()
        self._resize(columns, lines)
        self._before = termios.tcgetattr(self._follower)
        self._raw = b""
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self.process = subprocess.Popen(
            [PROGRAM, *args],
            env=user.environment({"TERM": "xterm-256color"}),
            cwd=user.cwd,
            stdin=self._follower,
            stdout=self._follower,
            stderr=self._follower,
            start_new_session=True,
        )

    def _resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._leader, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def resize(self, columns: int, lines: int) -> None:
        self._resize(columns, lines)
        self._screen.resize(lines, columns)
        self.process.send_signal(signal.SIGWINCH)

    def press(self, keys: str) -> None:
        os.write(self._leader, keys.encode())

    def _read(self) -> None:
        ready, _, _ = select.select([self._leader], [], [], 0.05)
        if ready:
            data = os.read(self._leader, 65536)
            self._raw += data
            self._stream.feed(data)

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self._screen.display]

    def shows(self, holds: Callable[[list[str]], bool], seconds: float = 15.0) -> bool:
        give_up_at = time.monotonic() + seconds
        while not holds(self.lines):
            if time.monotonic() > give_up_at:
                return False
            self._read()
        return True

    @property
    def times_entered(self) -> int:
        """How often the program has taken the whole screen; between two times it has given it back."""
        entered, left = self._raw.count(b"\x1b[?1049h"), self._raw.count(b"\x1b[?1049l")
        assert entered - left in (0, 1)
        return entered

    def ended(self, code: int = 0) -> bool:
        """Tell whether it ended with this code and left the terminal as it was."""
        give_up_at = time.monotonic() + 10
        while self.process.poll() is None and time.monotonic() < give_up_at:
            self._read()
        self._read()
        left = self._raw.rfind(b"\x1b[?1049l") > self._raw.rfind(b"\x1b[?1049h")
        return self.process.returncode == code and left and termios.tcgetattr(self._follower) == self._before

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._leader)
        os.close(self._follower)


@pytest.fixture
def open_terminal(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def open_(*args: str, **size: int) -> Terminal:
        opened.append(Terminal(Alpacli(tmp_path), *args, **size))
        return opened[-1]

    yield open_
    for terminal in opened:
        terminal.close()


def _has(symbol: str) -> Callable[[list[str]], bool]:
    return lambda lines: any(line.startswith(symbol) and "×" in line for line in lines)


def test_a_table_with_prices_keys_and_a_clean_end(open_terminal: Callable[..., Terminal]) -> None:
    terminal = open_terminal("stream", "AAPL", "MSFT", "--sim")
    assert terminal.shows(_has("AAPL"))
    assert terminal.shows(_has("MSFT"))
    assert terminal.shows(lambda lines: "OFFLINE EXCHANGE  iex  live" in lines[-2])
    assert terminal.shows(lambda lines: any(line.startswith("AAPL") and "%" in line for line in lines))
    terminal.press("anvdax\x7f\r")
    assert terminal.shows(_has("NVDA"))
    terminal.press("\x1b[F")
    terminal.press("d")
    assert terminal.shows(lambda lines: not any(line.startswith("NVDA") for line in lines))
    terminal.press("s")
    assert terminal.shows(lambda lines: "sort (symbol)" in lines[-1])
    terminal.press("p")
    assert terminal.shows(lambda lines: "paused" in lines[-2])
    terminal.press("p")
    assert terminal.shows(lambda lines: "live" in lines[-2])
    terminal.press("q")
    assert terminal.ended()


def test_it_follows_the_size_of_the_terminal(open_terminal: Callable[..., Terminal]) -> None:
    terminal = open_terminal("stream", "AAPL", "--sim", columns=60)
    assert terminal.shows(_has("AAPL"))
    assert "VWAP" not in terminal.lines[0]
    terminal.resize(180, 8)
    assert terminal.shows(lambda lines: "VWAP" in lines[0] and lines[7].startswith("q quit"))
    terminal.resize(40, 6)
    assert terminal.shows(lambda lines: lines[5].startswith("q quit") and lines[0].startswith("Symbol"))
    terminal.press("q")
    assert terminal.ended()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_the_terminal_as_it_was(open_terminal: Callable[..., Terminal], number: signal.Signals) -> None:
    terminal = open_terminal("stream", "AAPL", "--sim")
    assert terminal.shows(_has("AAPL"))
    terminal.process.send_signal(number)
    assert terminal.ended()


def test_the_selected_symbol_stays_selected_when_the_order_changes(open_terminal: Callable[..., Terminal]) -> None:
    terminal = open_terminal("stream", "TSLA", "AAPL", "MSFT", "--sim")
    assert terminal.shows(_has("MSFT"))
    assert terminal.shows(lambda lines: "1/3" in lines[-2])
    terminal.press("s")  # by symbol: TSLA goes from the first row to the last
    assert terminal.shows(lambda lines: "sort (symbol)" in lines[-1])
    assert terminal.shows(lambda lines: "3/3" in lines[-2])
    terminal.press("d")
    assert terminal.shows(lambda lines: not any(line.startswith("TSLA") for line in lines))
    assert terminal.shows(_has("AAPL"))
    assert terminal.shows(_has("MSFT"))
    terminal.press("q")
    assert terminal.ended()


def test_suspending_gives_the_terminal_back_and_coming_back_takes_it_again(
    open_terminal: Callable[..., Terminal],
) -> None:
    terminal = open_terminal("stream", "AAPL", "--sim")
    assert terminal.shows(_has("AAPL"))
    terminal.process.send_signal(signal.SIGTSTP)
    assert terminal.shows(lambda _: terminal.times_entered == 2)
    terminal.press("s")
    assert terminal.shows(lambda lines: "sort (symbol)" in lines[-1])
    terminal.press("q")
    assert terminal.ended()


def test_order_updates_are_told_line_by_line(open_terminal: Callable[..., Terminal]) -> None:
    terminal = open_terminal("stream", "--updates", "--sim", "--verbose", "--duration", "3")
    assert terminal.shows(lambda lines: any("OFFLINE EXCHANGE" in line for line in lines))
    assert terminal.process.wait(20) == 0
    assert terminal.times_entered == 0


def test_an_unknown_feed_or_lost_stream_is_told_after_the_table_is_gone(open_terminal: Callable[..., Terminal]) -> None:
    terminal = open_terminal("stream", "AAPL", "--no-hub", "--reconnect", "0")
    assert terminal.process.wait(20) == 3  # no keys
