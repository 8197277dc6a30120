"""Processes that run while they are measured: readers of their output, their memory and their share of a processor."""

import fcntl
import os
import pty
import selectors
import signal
import socket
import struct
import subprocess
import tempfile
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from tests.support.origin import Origin, Reply

from benchmarks.feed import BEAT, MARK, Feed
from benchmarks.measure import Ended, alpacli, environment

_PIPE_BYTES = 1 << 20


class Reader(Ended):
    """One process and what it writes: to a pipe, or with ``rows`` to a terminal of so many, 200 columns wide."""

    def __init__(self, arguments: Sequence[str], env: dict[str, str], *, rows: int | None = None) -> None:
        self.lines = 0
        self.seen: list[tuple[float, bytes]] = []
        self.keep = False
        self.began = time.monotonic()
        self.last_at = 0.0
        self._err = tempfile.TemporaryFile()  # noqa: SIM115 # closed with the process
        if rows is None:
            self.out, inside = os.pipe()
            with suppress(AttributeError, OSError):
                fcntl.fcntl(self.out, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        else:
            self.out, inside = pty.openpty()
            self.resize(rows)
        stdin = subprocess.DEVNULL if rows is None else inside
        self.process = subprocess.Popen(arguments, env=env, stdin=stdin, stdout=inside, stderr=self._err)
        os.close(inside)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, traceback)
        os.close(self.out)
        self._err.close()

    def resize(self, rows: int) -> None:
        fcntl.ioctl(self.out, termios.TIOCSWINSZ, struct.pack("HHHH", rows, 200, 0, 0))

    def read(self) -> bytes:
        """Take what is there.

        Raises:
            RuntimeError: the process has ended; its standard error is in the message.
        """
        try:
            data = os.read(self.out, _PIPE_BYTES)
        except OSError:  # Linux reports the end of a terminal as EIO
            data = b""
        if not data:
            self._err.seek(0)
            raise RuntimeError(f"a process ended: {self._err.read().decode(errors='replace')[-2000:]}")
        self.last_at = time.monotonic()
        self.lines += data.count(b"\n")
        if self.keep:
            self.seen.append((self.last_at, data))
        return data


def pump(readers: Sequence[Reader], done: Callable[[], bool], timeout_s: float = 120.0) -> None:
    """Read from all until ``done``; asked after each piece, and ten times a second.

    Raises:
        RuntimeError: not within ``timeout_s``, or a process ended.
    """
    give_up_at = time.monotonic() + timeout_s
    with selectors.DefaultSelector() as selector:
        for reader in readers:
            selector.register(reader.out, selectors.EVENT_READ, reader)
        while not done():
            for key, _ in selector.select(0.1):
                key.data.read()
            if time.monotonic() > give_up_at:
                raise RuntimeError(f"not within {timeout_s:g} s: {[reader.lines for reader in readers]} lines")


def pump_for(readers: Sequence[Reader], seconds: float) -> None:
    until = time.monotonic() + seconds
    pump(readers, lambda: time.monotonic() > until)


def settle(readers: Sequence[Reader], feed: Feed) -> None:
    """Wait until a quote reaches every reader, and nothing more is on its way; then lines count from 0."""
    give_up_at = time.monotonic() + 60
    while any(reader.lines == 0 for reader in readers):
        if time.monotonic() > give_up_at:
            raise RuntimeError(f"{sum(reader.lines == 0 for reader in readers)} readers got nothing")
        if feed.count()["ready"]:
            feed.beat()
        pump_for(readers, 0.2)
    pump_for(readers, 0.5)
    for reader in readers:
        reader.lines = 0
        reader.seen.clear()


class Place:
    """A state, a runtime directory and a REST server of one's own, for streams of ``feed``."""

    def __init__(self, folder: Path, feed: Feed, origin: Origin) -> None:
        runtime = folder / "run"
        runtime.mkdir(mode=0o700)
        self._sockets = runtime / "alpacli"
        self.env = environment(
            folder, XDG_RUNTIME_DIR=str(runtime), ALPACA_STREAM_URL=feed.url, ALPACA_DATA_URL=origin.url
        )

    def stream(self, symbols: Sequence[str], *options: str, rows: int | None = None) -> Reader:
        """Start ``alpacli stream`` for what the feed itself sends, at the top of a table, and for these."""
        return Reader([alpacli(), "stream", MARK, BEAT, *symbols, *options], self.env, rows=rows)

    def hub(self) -> int | None:
        """Return the hub's process id; ``None`` when there is none, or the platform does not tell."""
        return next(iter(hub_of(self._sockets)), None)

    def end_hub(self) -> None:
        pid = self.hub()
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 5
        while list(self._sockets.glob("*.sock")) and time.monotonic() < deadline:
            time.sleep(0.01)


def hub_of(sockets: Path) -> list[int]:
    """Return the processes that hold the shared connections of this directory of sockets, as far as the platform tells."""
    found = []
    for path in sockets.glob("*.sock"):
        with socket.socket(socket.AF_UNIX) as probe, suppress(OSError, AttributeError):
            probe.connect(str(path))
            pid, _, _ = struct.unpack("iII", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            found.append(int(pid))
    return found


@contextmanager
def place(feed: Feed) -> Iterator[Place]:
    with tempfile.TemporaryDirectory() as name, Origin() as origin:
        origin.reply("/v2/stocks/snapshots", Reply(body={}))
        made = Place(Path(name), feed, origin)
        try:
            yield made
        finally:
            made.end_hub()


def processor_s(pid: int | None) -> float | None:
    """Return the processor time of a process so far, where the platform tells."""
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return None


def resident_mib(pid: int | None) -> float | None:
    """Return the resident memory of a process, where the platform tells."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    return None
