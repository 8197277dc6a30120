"""What went wrong becomes two lines or one JSON object on stderr, and an exit code. The one place that assigns exit codes.

stdout stays empty. A traceback appears only with ``--verbose``, and without local variables, which may hold keys.
"""

import errno
import json
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

from typer.core import TyperGroup
from typer.exceptions import TyperException

from alpacli.errors import AlpacliError, OrderInterrupted, OutputFailed, UsageError
from alpacli.ports import Clock

_BY_SIGNAL: Final = 128  # what shells add to a signal's number
INTERRUPTED: Final = _BY_SIGNAL + signal.SIGINT
_STOPS: Final = (signal.SIGTERM, signal.SIGHUP)
_ONE_PRESS_S: Final = 1.0
_OTHER_SIDE: Final = {"buy": "sell", "sell": "buy"}
_NEGATIVE: Final = re.compile(r"-[0-9.]")
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DEFECT_HINT: Final = "run it again with --verbose and report what it prints"


class OutputClosed(Exception):
    """The reader of stdout left (``| head -1``): there is nobody to tell, and nothing is wrong."""


def unwritten(error: OSError) -> OutputFailed:
    """Return what to say of an output that could not be written."""
    return OutputFailed(
        f"the output cannot be written: {error.strerror or error}", "make room, or write somewhere else"
    )


def wants_json(args: Sequence[str]) -> bool:
    """Tell whether errors are JSON; asked of the raw arguments, since wrong usage must be reported in JSON too."""
    return any(arg in ("--json", "--jq") or arg.startswith("--jq=") for arg in args)


def report(error: BaseException, args: Sequence[str]) -> int:
    """Say on stderr what went wrong and what to do next; return the exit code."""
    if isinstance(error, OutputClosed):
        return 0
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    known = explain(error)
    if wants_json(args):
        fields = json.dumps(known.as_dict(), ensure_ascii=False)
        if isinstance(known, OutputFailed) and known.result:
            fields = f'{fields[:-1]}, "result": {known.result.decode()}}}'  # as it is: no digit passes through a float
        text = f'{{"error": {fields}}}\n'
    else:
        text = f"error: {_one_line(known.message)}\n" + (f"hint: {_one_line(known.hint)}\n" if known.hint else "")
    if "--verbose" in args and not isinstance(error, TyperException):
        text = "".join(traceback.format_exception(error)) + text
    say(text)
    return known.exit_code


def explain(error: BaseException) -> AlpacliError:
    """Return any failure as one of the family: wrong usage, a full disk, a defect."""
    if isinstance(error, AlpacliError):
        return error
    if isinstance(error, TyperException):
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "alpacli"
        group = context is not None and isinstance(context.command, TyperGroup)
        what = "lists the commands" if group else "shows what it takes"
        other = _OTHER_SIDE.get(context.info_name or "") if context is not None else None
        if other is not None and _NEGATIVE.match(getattr(error, "option_name", "")):
            return UsageError(
                "a quantity is above zero, and what begins with a - is taken for an option",
                f"to {other} is another command: `alpacli {other}`",
            )
        return UsageError(error.format_message(), f"{path} --help {what}")
    if isinstance(error, MemoryError):
        return AlpacliError("out of memory", "ask for fewer rows, for example with --limit")
    if isinstance(error, OSError) and error.errno in _FULL:
        return unwritten(error)
    return _Defect(f"{type(error).__name__}: {error}", _DEFECT_HINT)


class _Defect(AlpacliError):
    def __init__(self, message: str, hint: str) -> None:
        super().__init__(f"a defect in alpacli: {message}", hint)

    def as_dict(self) -> dict[str, str | int | float | None]:
        return {**super().as_dict(), "type": "Defect"}


class Interrupted(AlpacliError):
    """Ctrl-C or SIGTERM while orders were being sent; a failure, since Typer ends a ``KeyboardInterrupt`` without a word.

    ``client_order_id`` is that of the order that was on its way, where one was chosen, and ``unknown`` are those of all whose
    fate is not known.
    """

    exit_code = INTERRUPTED

    def __init__(self, message: str, hint: str, client_order_id: str, unknown: Sequence[str]) -> None:
        super().__init__(message, hint)
        self.client_order_id = client_order_id
        self.unknown = unknown

    def as_dict(self) -> dict[str, Any]:
        return {
            **super().as_dict(),
            "client_order_id": self.client_order_id or None,
            "client_order_ids": list(self.unknown),
        }


def on_its_way(stop: KeyboardInterrupt) -> str | None:
    """Return the client order ID of the order that was on its way at Ctrl-C; ``None``: none was."""
    found: BaseException | None = stop
    while found is not None and not isinstance(found, OrderInterrupted):
        found = found.__context__  # pressed again, while the time before was still being dealt with
    return None if found is None else found.client_order_id


@contextmanager
def ctrl_c_heard_once(clock: Clock) -> Iterator[None]:
    """Take Ctrl-C pressed again within a second for the same: what the first one ends has to be told, and could not be.

    An ending that hangs can be interrupted by one more, later.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    deaf_until = float("-inf")

    def hear(_number: int, _frame: FrameType | None) -> None:
        nonlocal deaf_until
        now = clock.monotonic()
        if now >= deaf_until:
            deaf_until = now + _ONE_PRESS_S
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, hear)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is hear:  # else the program winds up
            signal.signal(signal.SIGINT, before)


class Stops:
    """SIGTERM and SIGHUP do what Ctrl-C does, unless a command hears them itself, and have exit codes of their own.

    One that comes again within a second is taken for the same: ``timeout`` sends two. After that it cuts short what ends.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._deaf_until = float("-inf")
        self._code = INTERRUPTED
        self._program_ends = False

    def listen(self) -> None:
        """Hear them from now on; not what whoever started the program has it ignore, as ``nohup`` does."""
        for number in _STOPS:
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, self)

    def exit_code(self, code: int) -> int:
        """Return the exit code of a program that ended with ``code``, which is Ctrl-C's for any interruption."""
        return self._code if code == INTERRUPTED else code

    def program_ends(self) -> None:
        """Let what comes from now on end the program, but not within a second the second of two that had it end.

        On a machine that stood still meanwhile that one may be late.
        """
        self._program_ends = True
        if self._code != INTERRUPTED:
            self._deaf_until = self._clock.monotonic() + _ONE_PRESS_S

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        now = self._clock.monotonic()
        if now < self._deaf_until:
            return
        self._deaf_until = now + _ONE_PRESS_S
        if self._program_ends:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
            return
        self._code = _BY_SIGNAL + number
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell starts its background jobs so
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGINT)


@contextmanager
def ended_at_once() -> Iterator[None]:
    """Let Ctrl-C and its like end the program without Python, which hears nothing while something in C computes.

    Only for reading: after a change there is something to tell first.
    """
    heard: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        heard = {number: signal.getsignal(number) for number in (signal.SIGINT, *_STOPS)}
    for number, handler in heard.items():
        if callable(handler):  # else it is ignored, or ends the program already
            signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in heard.items():
            if callable(handler):
                signal.signal(number, handler)


def wind_up() -> None:
    """Take no more interruptions: the program ends already, and what it still closes must not break halfway.

    Where it did, Python would print a traceback of its own.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for number in _STOPS:
            stops = signal.getsignal(number)
            if isinstance(stops, Stops):
                stops.program_ends()


def _one_line(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in " ".join(text.split()))


def say(text: str) -> None:
    """Write to stderr; when that is impossible too, the exit code has to be enough."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError):
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 # replaces the broken stream until the end
