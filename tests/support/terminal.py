"""A pseudo-terminal with the installed program in it, read by an emulator as a person would see it."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Sequence
from typing import Any

import pyte
from tests.support.alpacli import PROGRAM, Alpacli

_TAKE_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)


class Terminal:
    """A terminal of some size with ``alpacli`` running in it.

    ``through`` is a command that runs the program (``sh -c 'ulimit …; exec "$@"' sh``); ``controlling`` makes the terminal
    the one whose end is told to the program by SIGHUP, as in a terminal window.
    """

    def __init__(
        self,
        user: Alpacli,
        *args: str,
        columns: int = 100,
        lines: int = 12,
        through: Sequence[str] = (),
        controlling: bool = False,
        errors: int | None = None,
    ) -> None:
        self._leader, self._follower = pty.openpty()
        self._resize(columns, lines)
        self._before = termios.tcgetattr(self._follower)
        self._raw = b""
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        taking = [sys.executable, "-c", _TAKE_TERMINAL] if controlling else []
        streams: dict[str, Any] = {"stdin": self._follower, "stdout": self._follower, "start_new_session": True}
        streams["stderr"] = self._follower if errors is None else errors
        env: dict[str, str | None] = {"TERM": "xterm-256color"}
        if taking or through:
            command = [*taking, *through, PROGRAM, *args]
            self.process = subprocess.Popen(command, env=user.environment(env), cwd=user.cwd, **streams)
        else:
            self.process = user.start(args, env, **streams)

    def _resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._leader, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def resize(self, columns: int, lines: int) -> None:
        self._resize(columns, lines)
        self._screen.resize(lines, columns)
        self.process.send_signal(signal.SIGWINCH)

    def press(self, keys: str) -> None:
        os.write(self._leader, keys.encode())

    def _read(self) -> bool:
        """Take in a part of what was written, and tell whether there was any."""
        ready, _, _ = select.select([self._leader], [], [], 0.05)
        if ready:
            data = os.read(self._leader, 65536)  # a terminal gives some 4 kB at a time
            self._raw += data
            self._stream.feed(data)
        return bool(ready)

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self._screen.display]

    @property
    def text(self) -> str:
        """What is on the screen, as one text: a message may have been wrapped at any place."""
        return "".join(self._screen.display)

    def shows(self, holds: Callable[[list[str]], bool], seconds: float = 30.0) -> bool:
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
        give_up_at = time.monotonic() + 30
        while self.process.poll() is None and time.monotonic() < give_up_at:
            self._read()
        while self._read():
            pass
        left = self._raw.rfind(b"\x1b[?1049l") >= self._raw.rfind(b"\x1b[?1049h")  # both -1 when it never began
        shown = self._raw.rfind(b"\x1b[?25h") >= self._raw.rfind(b"\x1b[?25l")
        return self.process.returncode == code and left and shown and termios.tcgetattr(self._follower) == self._before

    def hang_up(self) -> None:
        """Close the window: the program's terminal is gone."""
        os.close(self._follower)
        os.close(self._leader)
        self._leader = self._follower = -1

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for descriptor in (self._leader, self._follower):
            if descriptor >= 0:
                os.close(descriptor)
