"""Lines to a pipe, flushed as they come, by a thread of its own: a slow reader never stops the stream's event loop.

Up to ``buffer`` messages wait for the reader. Beyond that, of the quotes that wait only the latest of each symbol is kept;
everything else is kept, and when that alone is too much the stream is read no further until the reader has caught up.
A reader that leaves is no error; a disk that is full is one.
"""

import os
import select
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from alpacli.cli.failures import unwritten
from alpacli.errors import AlpacliError
from alpacli.streams.batch import without_older_quotes

_MOST_AT_ONCE_BYTES: Final = 1 << 20
_PIECE_BYTES: Final = 64 << 10
"""What a pipe holds: lines are written in pieces of this size, so that the end need not wait for more than one."""


class LinePipe:
    """Writes blocks of lines to a file descriptor in order.

    ``closed`` is called once, from the writing thread, when nothing more can be written: ``broken`` then, and ``failure``
    says why unless the reader has just gone. ``full`` and ``drained`` are called from either side when the stream should
    pause and go on. ``conflate`` off means that too much waiting calls ``overflow`` instead.
    """

    def __init__(
        self,
        descriptor: int,
        buffer: int,
        *,
        conflate: bool,
        closed: Callable[[], None],
        overflow: Callable[[], None],
        full: Callable[[], None],
        drained: Callable[[], None],
    ) -> None:
        self.conflated = 0
        self.written = 0
        self._descriptor = descriptor
        self._buffer = buffer
        self._conflate = conflate
        self._closed, self._overflow, self._full, self._drained = closed, overflow, full, drained
        self._blocks: deque[tuple[bytes, int]] = deque()
        self._waiting = 0
        self._is_full = False
        self._ending = False
        self._cut = False
        self.broken = False
        self.failure: AlpacliError | None = None
        self._is_terminal = os.isatty(descriptor)
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._write_all, name="alpacli pipe", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        return self._waiting

    def put(self, lines: bytes, count: int) -> None:
        """Take whole lines; never waits."""
        with self._changed:
            self._blocks.append((lines, count))
            self._waiting += count
            if self._waiting > self._buffer and not self._is_full:
                if not self._conflate:
                    self._is_full = True
                    self._overflow()
                else:
                    self._keep_latest_quotes()
                    if self._waiting > self._buffer * 3 // 4:
                        self._is_full = True
                        self._full()
            self._changed.notify()

    @property
    def ended(self) -> bool:
        """Tell whether everything is written, or nothing more can be."""
        return not self._thread.is_alive()

    def finish(self) -> None:
        """Let the thread write what waits and end."""
        with self._changed:
            self._ending = True
            self._changed.notify()

    def leave_off(self) -> None:
        """Write no more than the piece that is being written, to the end of its last line."""
        with self._changed:
            self._ending = self._cut = True
            self._blocks.clear()
            self._changed.notify()

    def _keep_latest_quotes(self) -> None:
        lines = [line for block, _ in self._blocks for line in block.splitlines(keepends=True)]
        kept = without_older_quotes(lines, set())
        self.conflated += len(lines) - len(kept)
        self._blocks = deque([(b"".join(kept), len(kept))])
        self._waiting = len(kept)

    def _write_all(self) -> None:
        while True:
            with self._changed:
                while not self._blocks and not self._ending:
                    self._changed.wait()
                if not self._blocks:
                    return
                block, count = self._blocks.popleft()
                if len(block) < _MOST_AT_ONCE_BYTES and self._blocks:
                    parts, size = [block], len(block)
                    while self._blocks and size < _MOST_AT_ONCE_BYTES:
                        more, more_count = self._blocks.popleft()
                        parts.append(more)
                        size += len(more)
                        count += more_count
                    block = b"".join(parts)
            try:
                self._write(block)
            except OSError as error:
                if not isinstance(error, ConnectionError) and not self._is_terminal:  # else the reader has gone
                    self.failure = unwritten(error)
                self.broken = True
                self._closed()
                return
            with self._changed:
                self.written += count
                self._waiting -= count
                if self._is_full and self._conflate and self._waiting <= self._buffer // 2:
                    self._is_full = False
                    self._drained()

    def _write(self, block: bytes) -> None:
        view = memoryview(block)
        begin = 0
        while begin < len(block) and not self._cut:
            end = len(block)
            if end - begin > _PIECE_BYTES:
                end = block.rfind(b"\n", begin, begin + _PIECE_BYTES) + 1 or block.find(b"\n", begin) + 1 or end
            while begin < end:
                try:
                    begin += os.write(self._descriptor, view[begin:end])
                except BlockingIOError:  # whoever shares the pipe has set it so
                    select.select((), (self._descriptor,), ())
