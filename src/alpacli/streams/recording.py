"""Recordings: the lines of a stream in a file, with marks that tell when they came, and the way back.

A file that ``alpacli stream --json`` wrote without marks can be replayed too; then the exchange's times set the pace.
"""

import gzip
import io
import os
import zlib
from collections.abc import Awaitable, Callable, Iterator
from typing import IO, Final

import msgspec

from alpacli.domain.ticks import Interest, instant_ns, instant_text
from alpacli.errors import Unavailable, UsageError
from alpacli.ports import Clock, async_sleep
from alpacli.streams.batch import Batch
from alpacli.streams.events import Connecting, Health, Live
from alpacli.streams.session import Action
from alpacli.streams.supervisor import Sink

_MARK_EVERY_S: Final = 0.01
_BLOCK_LINES: Final = 500
_LONGEST_PAUSE_S: Final = 0.25
_LONGEST_LINE: Final = 1 << 20
_BEGINNING: Final = b'{"type":"'
_PACKED: Final = b"\x1f\x8b"
"""How what gzip writes begins."""


class Recorder:
    """Appends to a file, a whole write for each batch, so that a killed process leaves whole lines.

    An unfinished last line of an earlier recording is cut off first.

    Raises:
        UsageError: the file cannot be opened, or holds something else than lines of a stream; nothing of it is changed.
    """

    def __init__(self, path: str, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._marked_at = float("-inf")
        try:
            self._file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
            try:
                self._end = self._begin()
            except BaseException:
                os.close(self._file)
                raise
        except OSError as error:
            raise UsageError(f"cannot record to {path}: {error.strerror}", "choose another file") from error

    def _begin(self) -> int:
        if os.fstat(self._file).st_size:
            first, newline, _ = os.pread(self._file, _LONGEST_LINE, 0).partition(b"\n")
            if first.startswith(_PACKED):
                raise UsageError(
                    f"cannot record to {self._path}: it is gzipped", "unpack it first, or choose another file"
                )
            if not _is_ours(first, whole=bool(newline)):
                raise UsageError(
                    f"cannot record to {self._path}: what is in it is no recording", "choose another file, or remove it"
                )
        end = _whole_lines(self._file)
        os.ftruncate(self._file, end)
        os.lseek(self._file, end, os.SEEK_SET)
        return end

    def write(self, lines: bytes) -> None:
        """Append whole lines.

        Raises:
            Unavailable: the disk is full, or the file cannot be written any more. What was recorded before is whole.
        """
        now = self._clock.time()
        if not 0 <= now - self._marked_at < _MARK_EVERY_S:
            self._marked_at = now
            lines = b'{"type":"mark","received_at":"%b"}\n' % instant_text(int(now * 1_000_000) * 1000).encode() + lines
        try:
            written = 0
            while written < len(lines):
                written += os.write(self._file, lines[written:])
        except OSError as error:
            os.ftruncate(self._file, self._end)
            os.lseek(self._file, self._end, os.SEEK_SET)
            raise Unavailable(
                f"cannot record to {self._path}: {error.strerror}", "what was recorded before is whole; make room"
            ) from error
        self._end += len(lines)

    def close(self) -> None:
        os.close(self._file)


def _whole_lines(file: int) -> int:
    """Return where the last whole line ends."""
    end = os.lseek(file, 0, os.SEEK_END)
    while end > 0:
        begin = max(0, end - 65536)
        newline = os.pread(file, end - begin, begin).rfind(b"\n")
        if newline >= 0:
            return begin + newline + 1
        end = begin
    return 0


class _Line(msgspec.Struct, gc=False):
    type: str
    symbol: str = "*"
    timestamp: str = ""
    received_at: str = ""


_read_line = msgspec.json.Decoder(_Line).decode


def _is_ours(line: bytes, *, whole: bool) -> bool:
    """Tell whether a line is one of a stream's; the only one of a killed process may be cut."""
    if not whole:
        return line[: len(_BEGINNING)] == _BEGINNING[: len(line)]
    try:
        _read_line(line)
    except (ValueError, RecursionError):
        return False
    return True


class Replay:
    """A ``Source`` that plays a recording; ``speed`` 2 is twice as fast as it came, ``None`` as fast as it goes.

    The file may be gzipped.
    Only what ``wanted`` asks for is played (empty: everything). Lines that cannot be read are counted and left out.

    Raises:
        UsageError: the file cannot be opened.
    """

    def __init__(
        self,
        path: str,
        wanted: Interest,
        *,
        speed: float | None,
        clock: Clock,
        sleep: Callable[[float], Awaitable[None]] = async_sleep,
    ) -> None:
        self.wanted = wanted
        self._speed = speed
        self._clock = clock
        self._sleep = sleep
        self._paused = False
        self._path = path
        self._bad = 0
        self._understood = False
        try:
            self._raw = open(path, "rb")  # noqa: SIM115 # played and closed by run
            packed = self._raw.peek(len(_PACKED)).startswith(_PACKED)
        except OSError as error:
            raise UsageError(f"cannot replay {path}: {error.strerror}", "give a file that --record wrote") from error
        self._file: IO[bytes] = io.BufferedReader(gzip.GzipFile(fileobj=self._raw)) if packed else self._raw

    async def run(self, sink: Sink) -> None:
        """Play to the end of the file.

        Raises:
            UsageError: there are lines in it, and none of them can be read.
        """
        sink.event(Connecting("replaying"))
        sink.event(Live({name: tuple(symbols) for name, symbols in self.wanted.as_dict().items()}))
        began: tuple[int, float] | None = None
        with self._raw, self._file:
            for at_ns, lines in self._blocks():
                if self._speed is not None and at_ns is not None:
                    if began is None:
                        began = (at_ns, self._clock.monotonic())
                    due = began[1] + (at_ns - began[0]) / 1e9 / self._speed
                    while (early_s := due - self._clock.monotonic()) > 0:
                        await self._sleep(min(early_s, _LONGEST_PAUSE_S))
                while self._paused:
                    await self._sleep(0.005)
                if lines:
                    sink.batch(Batch.of_lines(b"".join(lines)))
                await self._sleep(0)
        if self._bad and not self._understood:
            raise UsageError(
                f"cannot replay {self._path}: no line of it can be read",
                "give a file that --record wrote; `alpacli sim replay` also plays CSV and Parquet",
            )
        if self._bad:
            sink.event(Health(0, self._bad))

    async def change(self, action: Action, interest: Interest) -> None:
        self.wanted = self.wanted | interest if action == "subscribe" else self.wanted - interest

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False

    def watch_for_silence(self, stale_after_s: float) -> None:
        """Do nothing: a file is never silent."""

    def _lines(self) -> Iterator[bytes]:
        try:
            yield from self._file
        except (EOFError, gzip.BadGzipFile, zlib.error):  # a packed file that was cut, or is damaged from here on
            self._bad += 1

    def _blocks(self) -> Iterator[tuple[int | None, list[bytes]]]:
        """Return runs of lines that came together, and when: at their mark, else at the exchange's time."""
        marked = False
        block: list[bytes] = []
        block_ns: int | None = None
        for raw in self._lines():
            try:
                line = _read_line(raw)
                mark_ns = instant_ns(line.received_at) if line.type == "mark" else None
                at_ns = instant_ns(line.timestamp) if line.timestamp and not marked else None
            except (ValueError, RecursionError):
                self._bad += 1
                continue
            if not raw.endswith(b"\n"):
                self._bad += 1  # cut in the middle: a whole line ends
                continue
            self._understood = True
            if mark_ns is not None:
                if block:
                    yield block_ns, block
                marked, block, block_ns = True, [], mark_ns
                continue
            if self.wanted and not self.wanted.wants(line.type, line.symbol):
                continue
            if block and (len(block) >= _BLOCK_LINES or (not marked and self._speed is not None)):
                yield block_ns, block
                block = []
            if not marked:
                block_ns = max(block_ns or 0, at_ns or 0) or None
            block.append(raw)
        if block:
            yield block_ns, block
