"""How a whole process is timed: against its reference, turn by turn, so that a busy machine slows both alike.

A ratio is that of the two medians; the fastest of each is kept beside it, since nothing but the program itself is left in
it. This module stays small: a child's peak memory can never be read as less than that of the process which started it.
"""

import contextlib
import fcntl
import os
import pty
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self


class Ended:
    """A process that has ended when the block has."""

    process: "subprocess.Popen[bytes]"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.communicate()


class Sample(NamedTuple):
    """One process from start to end: wall time, peak resident memory, what it wrote to standard output, processor time."""

    seconds: float
    peak_kib: int
    output: bytes
    processor_s: float = 0.0


class Row(NamedTuple):
    """One line of the table. ``met`` is ``None`` when the row could not be measured; ``detail`` says why, or how."""

    name: str
    what: str
    goal: str
    measured: str
    met: bool | None
    detail: str = ""


class Command(NamedTuple):
    """What to run, and what has to be true before each run (a warm cache), outside the measured time."""

    argv: Sequence[str]
    env: Mapping[str, str]
    terminal: bool = False
    columns: int = 120
    prepare: Callable[[], None] | None = None


def run(command: Command) -> Sample:
    """Run one process to its end.

    Raises:
        RuntimeError: it failed; its standard error is in the message.
    """
    if command.prepare is not None:
        command.prepare()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = time.perf_counter()
        if command.terminal:
            process, output = _run_on_terminal(command, err.fileno())
        else:
            process = subprocess.Popen(command.argv, env=command.env, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
            output = b""
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            err.seek(0)
            text = err.read().decode(errors="replace")
            raise RuntimeError(f"{' '.join(command.argv)} ended with {process.returncode}: {text[-2000:]}")
        if not command.terminal:
            out.seek(0)
            output = out.read()
    return Sample(seconds, usage.ru_maxrss, output, usage.ru_utime + usage.ru_stime)


def _run_on_terminal(command: Command, stderr: int) -> tuple[subprocess.Popen[bytes], bytes]:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, command.columns, 0, 0))
    process = subprocess.Popen(command.argv, env=command.env, stdin=slave, stdout=slave, stderr=stderr)
    os.close(slave)
    pieces = []
    with contextlib.suppress(OSError):  # Linux reports the end of a terminal as EIO
        while piece := os.read(master, 65536):
            pieces.append(piece)
    os.close(master)
    return process, b"".join(pieces)


class Comparison(NamedTuple):
    """Two programs, run turn by turn."""

    ours: list[Sample]
    reference: list[Sample]

    @property
    def time_ratio(self) -> float:
        return _median_s(self.ours) / _median_s(self.reference)

    @property
    def fastest_ratio(self) -> float:
        return min(s.seconds for s in self.ours) / min(s.seconds for s in self.reference)

    @property
    def memory_ratio(self) -> float:
        return statistics.median(s.peak_kib for s in self.ours) / statistics.median(s.peak_kib for s in self.reference)

    def detail(self) -> str:
        return (
            f"medians {_median_s(self.ours) * 1000:.0f} ms against {_median_s(self.reference) * 1000:.0f} ms, "
            f"fastest {self.fastest_ratio:.2f} ×, {len(self.ours)} pairs"
        )


def _median_s(samples: list[Sample]) -> float:
    return statistics.median(s.seconds for s in samples)


def compare(ours: Command, reference: Command, pairs: int) -> Comparison:
    """Run both once unmeasured (files become warm), then in turns."""
    run(ours)
    run(reference)
    taken = Comparison([], [])
    for _ in range(pairs):
        taken.reference.append(run(reference))
        taken.ours.append(run(ours))
    return taken


def alpacli() -> str:
    """Return the installed command of this interpreter's environment."""
    path = Path(sys.executable).with_name("alpacli")
    if not path.exists():
        raise RuntimeError(f"there is no {path}: run `make setup`")
    return str(path)


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Return the environment of a measured process: nothing of the caller's but the path, its own home and state."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    return {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "TERM": "xterm-256color",
        "ALPACLI_STATE_DIR": str(folder / "state"),
        "ALPACLI_CONFIG_DIR": str(folder / "config"),
        "ALPACA_API_KEY": "PKBENCHMARK",
        "ALPACA_SECRET_KEY": "benchmark-secret",
        **more,
    }
