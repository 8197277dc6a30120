"""``stream --updates --exec COMMAND``: a program of the user's is run for each order update, one at a time, in their order.

An update is never dropped for a command that is slow or fails: updates wait, beyond a bound nothing more is read, and the
stream goes on whatever the command does. There is no shell unless the user names one, so nothing that a server sends is
ever read as a command: the update is on standard input, its main facts in the environment. Standard output belongs to the
stream, so what the command prints goes to standard error.
"""

import asyncio
import json
import os
import shlex
import shutil
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from alpacli.errors import UsageError
from alpacli.ports import Clock

_TELL_AFTER_S: Final = 30.0
_LAST_COMMAND_S: Final = 5.0
"""How long a command has to finish when Ctrl-C or SIGTERM ends the stream."""

_FACTS: Final = {
    "ALPACLI_EVENT": ("event",),
    "ALPACLI_SYMBOL": ("symbol",),
    "ALPACLI_TIMESTAMP": ("timestamp",),
    "ALPACLI_PRICE": ("price",),
    "ALPACLI_QTY": ("qty",),
    "ALPACLI_POSITION_QTY": ("position_qty",),
    "ALPACLI_ORDER_ID": ("order", "id"),
    "ALPACLI_CLIENT_ORDER_ID": ("order", "client_order_id"),
    "ALPACLI_SIDE": ("order", "side"),
    "ALPACLI_STATUS": ("order", "status"),
    "ALPACLI_FILLED_QTY": ("order", "filled_qty"),
    "ALPACLI_FILLED_AVG_PRICE": ("order", "filled_avg_price"),
}


def command_words(text: str) -> list[str]:
    """Split ``--exec`` into a program and its arguments, quotes as in a shell.

    Raises:
        UsageError: it cannot be split, or there is no such program.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"--exec cannot be understood: {error}", "close every quote") from None
    if not words:
        raise UsageError("--exec is empty", "name a program, like --exec ./on-fill.sh")
    if shutil.which(words[0]) is None:
        raise UsageError(
            f"--exec: there is no program {words[0]!r}",
            "it is run without a shell; for one write --exec 'sh -c \"…\"', and mind the executable bit of a script",
        )
    return words


def facts(update: Mapping[str, Any]) -> dict[str, str]:
    """Return what the environment says of an update, every digit kept; what it does not have is empty, never another's."""
    told: dict[str, str] = {}
    for name, path in _FACTS.items():
        value: Any = update
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        text = "" if value is None or isinstance(value, dict | list) else str(value)
        told[name] = text.replace("\0", "")
    return told


class Hands:
    """Hands updates to the command. ``tell`` says something to the user; ``pause`` and ``resume`` hold up what is read."""

    def __init__(
        self,
        words: Sequence[str],
        clock: Clock,
        *,
        tell: Callable[[str], None],
        pause: Callable[[], None],
        resume: Callable[[], None],
        most_waiting: int = 1000,
    ) -> None:
        self._words = words
        self._clock = clock
        self._tell = tell
        self._pause = pause
        self._resume = resume
        self._most_waiting = most_waiting
        self._waiting: deque[bytes] = deque()
        self._paused = False
        self._running: asyncio.subprocess.Process | None = None
        self._work: asyncio.Task[None] | None = None

    def put(self, lines: bytes) -> None:
        """Take whole lines, one update each."""
        self._waiting.extend(lines.splitlines())
        if len(self._waiting) > self._most_waiting and not self._paused:
            self._paused = True
            self._pause()
        if self._waiting and (self._work is None or self._work.done()):
            self._work = asyncio.ensure_future(self._run_all())

    async def finish(self, hurried: Callable[[], bool]) -> None:
        """Return when all that waits was handed over; once ``hurried``, when the command that runs now has ended.

        Raises:
            Exception: a defect in here.
        """
        give_up_at: float | None = None
        while self._work is not None and not self._work.done():
            if hurried():
                now = self._clock.monotonic()
                if give_up_at is None:
                    give_up_at = now + _LAST_COMMAND_S
                    self._leave_waiting()
                elif now > give_up_at:
                    self._stop()
            await asyncio.wait([self._work], timeout=0.05)
        if self._work is not None:
            self._work.result()

    def _leave_waiting(self) -> None:
        if self._waiting:
            self._tell(
                f"{len(self._waiting)} updates were not handed to {self._words[0]}, because the stream was ended"
            )
            self._waiting.clear()

    def _stop(self) -> None:
        """End the command with all that it started."""
        if self._running is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._running.pid, signal.SIGKILL)

    async def _run_all(self) -> None:
        while self._waiting:
            line = self._waiting.popleft()
            if self._paused and len(self._waiting) <= self._most_waiting // 2:
                self._paused = False
                self._resume()
            await self._run(line)

    async def _run(self, line: bytes) -> None:
        update = json.loads(line, parse_float=str, parse_int=str)
        what = f"{self._words[0]} for {update.get('event', '')} {update.get('symbol', '')}".rstrip()
        try:
            self._running = await asyncio.create_subprocess_exec(
                *self._words,
                stdin=asyncio.subprocess.PIPE,
                stdout=2,
                env={**os.environ, **facts(update)},
                start_new_session=True,  # Ctrl-C ends the stream; the command may finish what it does
            )
        except OSError as error:
            self._tell(f"--exec: {what} could not be started: {error.strerror}")
            return
        ended = asyncio.ensure_future(self._running.communicate(line + b"\n"))
        while not (await asyncio.wait([ended], timeout=_TELL_AFTER_S))[0]:
            self._tell(f"--exec: {what} is still running; {len(self._waiting)} updates wait for it")
        code = self._running.returncode
        self._running = None
        if code:
            self._tell(f"--exec: {what} ended with {code if code > 0 else signal.Signals(-code).name}")
