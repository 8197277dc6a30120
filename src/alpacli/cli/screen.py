"""The terminal while a stream is watched: redraws the table, at most ten times a second, and obeys keys."""

import asyncio
import errno
import os
import signal
import sys
import termios
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from alpacli.cli.output import discard_stdout
from alpacli.domain.board import Board, Row
from alpacli.domain.symbols import spelled
from alpacli.errors import AlpacliError
from alpacli.ports import Clock
from alpacli.render.live_table import SORTS, Look, live_table, sort_rows, visible_rows
from alpacli.streams.events import Status

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

FRAME_S: Final = 0.1
_AGES_S: Final = 1.0
_ARROWS: Final = {
    b"\x1b[A": "up",
    b"\x1bOA": "up",
    b"\x1b[B": "down",
    b"\x1bOB": "down",
    b"\x1b[5~": "page up",
    b"\x1b[6~": "page down",
    b"\x1b[H": "home",
    b"\x1bOH": "home",
    b"\x1b[1~": "home",
    b"\x1b[F": "end",
    b"\x1bOF": "end",
    b"\x1b[4~": "end",
}


class Screen:
    """Shows a board until the user quits. ``on_add`` and ``on_remove`` change the subscription.

    ``on_key`` hears that the user is there, and so has read the message of the status.
    """

    def __init__(
        self,
        board: Board,
        console: "Console",
        clock: Clock,
        *,
        status: Callable[[], Status],
        on_add: Callable[[list[str]], Awaitable[None]],
        on_remove: Callable[[str], Awaitable[None]],
        on_key: Callable[[], None],
    ) -> None:
        self._board = board
        self._console = console
        self._clock = clock
        self._status = status
        self._on_add = on_add
        self._on_remove = on_remove
        self._on_key = on_key
        self._look = Look()
        self._rows: list[Row] = []
        self._selected = ""
        self._error = ""
        self._defect: BaseException | None = None
        self._stopped = False
        self._wake = asyncio.Event()
        self._urgent = False
        self._doing: set[asyncio.Future[None]] = set()
        self._ascii = not _can_draw(console)

    def changed(self, *, at_once: bool = False) -> None:
        """There is something new to show, within a tenth of a second or ``at_once``."""
        self._urgent |= at_once
        self._wake.set()

    def stop(self) -> None:
        self._stopped = True
        self._at_once()

    async def run(self) -> None:
        """Redraw until ``q`` or ``stop``; the terminal is as before when it returns, whatever happened."""
        from rich.live import Live

        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGWINCH, self._at_once)
        with_keys = sys.stdin.isatty()
        try:
            with _Keys() as keys, Live(console=self._console, screen=True, auto_refresh=False) as live:
                loop.add_signal_handler(signal.SIGTSTP, self._suspend, loop, keys, live)
                loop.add_signal_handler(signal.SIGCONT, self._resumed, keys)
                if with_keys:
                    loop.add_reader(sys.stdin.fileno(), self._read_keys)
                while not self._stopped:
                    self._wake.clear()
                    self._urgent = False
                    began = self._clock.monotonic()
                    live.update(self._draw(), refresh=True)
                    await self._until_due(began)
        except (OSError, termios.error) as error:
            if error.args[0] != errno.EIO:
                raise
            discard_stdout()  # the terminal is gone: nobody is left to show anything to
        finally:
            if with_keys:
                loop.remove_reader(sys.stdin.fileno())
            for number in (signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT):
                loop.remove_signal_handler(number)
        if self._defect is not None:
            raise self._defect

    def _suspend(self, loop: asyncio.AbstractEventLoop, keys: "_Keys", live: "Live") -> None:
        """Ctrl-Z: give the terminal back to the shell, stop, and take it again when the user comes back."""
        live.stop()
        keys.restore()
        loop.remove_signal_handler(signal.SIGTSTP)  # back to what the system does with it: this process stops here
        signal.raise_signal(signal.SIGTSTP)
        loop.add_signal_handler(signal.SIGTSTP, self._suspend, loop, keys, live)
        keys.quieten()
        live.start()
        self._at_once()

    def _resumed(self, keys: "_Keys") -> None:
        """After a stop that could not be prepared for (``kill -STOP``) the shell has set its own modes."""
        try:
            keys.quieten()
        except termios.error:
            self.stop()  # the terminal is gone: whoever is hung up on is also told to go on
        self._at_once()

    async def _until_due(self, began: float) -> None:
        """Wait for something new, and until a tenth of a second after the last redraw began, however long that took."""
        try:
            async with asyncio.timeout(_AGES_S):
                await self._wake.wait()
                while not self._urgent and self._clock.monotonic() - began < FRAME_S:
                    self._wake.clear()
                    try:
                        async with asyncio.timeout(FRAME_S - (self._clock.monotonic() - began)):
                            await self._wake.wait()
                    except TimeoutError:
                        return
        except TimeoutError:
            return  # only ages have changed

    def _draw(self) -> "RenderableType":
        now_ns = int(self._clock.time() * 1_000_000) * 1000
        if not self._look.paused:
            self._rows = sort_rows(self._board.rows(now_ns), self._look.sort)
        symbols = [row.symbol for row in self._rows]
        place = symbols.index(self._selected) if self._selected in symbols else self._look.selected
        self._select(place)  # the symbol stays selected wherever the order takes it
        status = self._status()
        if self._error:
            status = status._replace(message=self._error)
        width, height = self._console.size
        return live_table(
            self._rows,
            self._board.totals(now_ns),
            status,
            self._look,
            width=width,
            height=height,
            ascii_only=self._ascii,
        )

    def _at_once(self) -> None:
        self._urgent = True
        self._wake.set()

    # ------------------------------------------------------------------------------------------------- keys

    def _read_keys(self) -> None:
        try:
            typed = os.read(sys.stdin.fileno(), 256)
        except OSError:
            typed = b""
        if not typed:  # the terminal is gone
            self.stop()
            return
        self._error = ""
        self._on_key()
        while typed:
            sequence = next((known for known in _ARROWS if typed.startswith(known)), None)
            if sequence is not None:
                self._move(_ARROWS[sequence])
                typed = typed[len(sequence) :]
            elif self._look.adding is not None:
                self._type(typed[:1])
                typed = typed[1:]
            else:
                self._press(typed[:1])
                typed = typed[1:]
        self._at_once()

    def _press(self, key: bytes) -> None:
        look = self._look
        if key in (b"q", b"Q"):
            self.stop()
        elif key == b"a":
            self._look = look._replace(adding="")
        elif key == b"d" and self._rows:
            self._do(self._remove(self._rows[look.selected].symbol))
        elif key == b"s":
            self._look = look._replace(sort=SORTS[(SORTS.index(look.sort) + 1) % len(SORTS)])
        elif key == b"p":
            self._look = look._replace(paused=not look.paused)

    def _type(self, key: bytes) -> None:
        text = self._look.adding or ""
        if key in (b"\r", b"\n"):
            self._look = self._look._replace(adding=None)
            symbols = list(dict.fromkeys(map(spelled, text.replace(",", " ").split())))
            if symbols:
                self._do(self._add(symbols))
        elif key == b"\x1b":
            self._look = self._look._replace(adding=None)
        elif key in (b"\x7f", b"\x08"):
            self._look = self._look._replace(adding=text[:-1])
        elif key.isalnum() or key in (b"/", b".", b"*", b" ", b","):
            self._look = self._look._replace(adding=text + key.decode())

    def _move(self, where: str) -> None:
        page = visible_rows(self._console.size.height)
        steps = {"up": -1, "down": 1, "page up": -page, "page down": page, "home": -(10**9), "end": 10**9}
        self._select(self._look.selected + steps[where])

    def _select(self, place: int) -> None:
        place = max(0, min(place, len(self._rows) - 1))
        self._look = self._look._replace(selected=place)
        self._selected = self._rows[place].symbol if self._rows else ""

    async def _add(self, symbols: list[str]) -> None:
        await self._on_add(symbols)
        for symbol in symbols:
            self._board.add(symbol)
        self._selected = symbols[-1]  # or nobody would see it at the end of a long list

    async def _remove(self, symbol: str) -> None:
        self._board.remove(symbol)
        try:
            await self._on_remove(symbol)
        except AlpacliError:
            self._board.add(symbol)  # its ticks still come
            raise

    def _do(self, change: Awaitable[None]) -> None:
        doing = asyncio.ensure_future(change)
        self._doing.add(doing)
        doing.add_done_callback(self._done)

    def _done(self, doing: "asyncio.Future[None]") -> None:
        self._doing.discard(doing)
        error = None if doing.cancelled() else doing.exception()
        if isinstance(error, AlpacliError):
            self._error = error.message
        elif error is not None:
            self._defect = error
            self._stopped = True
        self._at_once()


def _can_draw(console: "Console") -> bool:
    try:
        "▁█×".encode(console.encoding)
    except UnicodeEncodeError:
        return False
    return True


class _Keys:
    """Has keys come at once and unseen while it is entered. Ctrl-C still interrupts, Ctrl-Z still stops."""

    def __init__(self) -> None:
        self._before = termios.tcgetattr(sys.stdin) if sys.stdin.isatty() else None

    def __enter__(self) -> "_Keys":
        self.quieten()
        return self

    def __exit__(self, *_: object) -> None:
        self.restore()

    def quieten(self) -> None:
        if self._before is not None:
            quiet = termios.tcgetattr(sys.stdin)
            quiet[3] &= ~(termios.ICANON | termios.ECHO)
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, quiet)

    def restore(self) -> None:
        if self._before is not None:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)
