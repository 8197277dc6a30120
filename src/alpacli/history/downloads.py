"""The asking half of market history: threads that follow chains of pages, and the stretches of rows that they fill.

A stretch is filled by a worker and drained by the reader, in order; rows that the store has by then wait there.
"""

import contextvars
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from alpacli.domain.arrows import load
from alpacli.domain.batches import between, empty, first_and_last_ns
from alpacli.domain.series import Series, Span
from alpacli.history.bar_store import BarStore, Gone, period_of, period_span
from alpacli.history.chains import Follower, Read
from alpacli.history.holes import expected_rows, final_until, new_york_day
from alpacli.ports import Clock
from alpacli.wire.columns import MOST_PER_PAGE

if TYPE_CHECKING:
    import pyarrow

_WORKERS: Final = 4
MOST_TOGETHER: Final = 100  # symbols in one request
_MOST_HELD: Final = 16  # tables of a hole in memory where they cannot be kept on disk
_MOST_UNKEPT: Final = 64  # tables that wait for the end of their file


class Progress(NamedTuple):
    """How far a download is: nanoseconds of holes filled and to fill, rows and pages so far."""

    done_ns: int
    all_ns: int
    rows: int
    pages: int


class Hole:
    """A stretch of one symbol that is being asked for: filled by a worker, drained by the reader, in order."""

    def __init__(self, download: "Download", series: Series, symbol: str, span: Span) -> None:
        self.series = series
        self.symbol = symbol
        self.span = span
        self.at = span[0]
        self._download = download
        self._pieces: deque[tuple[Span, pyarrow.Table | None]] = deque()
        self._unkept: list[tuple[Span, pyarrow.Table | None]] = []
        self._done = False
        self._error: BaseException | None = None
        self.abandoned = False
        self.alone = True

    # the worker's side

    def put(self, table: "pyarrow.Table | None", until_ns: int) -> None:
        """Take what is known up to a moment, nothing perhaps; keep the whole files' worth of it on disk."""
        piece = ((self.at, until_ns), empty(self.series.kind) if table is None else table)
        with self._download.changed:
            self.at = until_ns
            self._pieces.append(piece)
            self._unkept.append(piece)
            self._download.changed.notify_all()
        _, period_end = period_span(period_of(self.series, self._unkept[0][0][0]))
        if until_ns >= period_end or len(self._unkept) >= _MOST_UNKEPT:
            self.keep()
        if not self.alone:
            return  # one that waits would hold up the others of its chain, for whom the reader may be waiting
        with self._download.changed:
            self._download.changed.wait_for(
                lambda: self.abandoned or sum(table is not None for _, table in self._pieces) < _MOST_HELD
            )

    def keep(self) -> None:
        """Write to the store what is not there yet, and let go of the memory."""
        with self._download.keeping:
            pieces, self._unkept = self._unkept, []
            if not pieces or not self._download.keep(self, pieces):
                return
            with self._download.changed:
                final_ns = self._download.final_ns(self.series)
                kept = {span for span, _ in pieces if span[1] <= final_ns}
                for place, (span, table) in enumerate(self._pieces):
                    if span in kept and table is not None:
                        self._pieces[place] = (span, None)

    def finish(self, error: BaseException | None = None) -> None:
        self.keep()
        with self._download.changed:
            self._done, self._error = True, error
            self._download.changed.notify_all()

    # the reader's side

    def drain(self) -> "Iterator[pyarrow.Table]":
        """Give the rows as they come.

        Raises:
            AlpacliError: what ended the chain, after everything that came before it.
        """
        at = self.span[0]
        while True:
            with self._download.changed:
                self._download.changed.wait_for(lambda: self._pieces or self._done)
                if not self._pieces:
                    break
                (start, end), table = self._pieces.popleft()
                self._download.changed.notify_all()
            if table is None:
                yield from self._download.reread(self, (start, end))
            elif table.num_rows:
                yield table
            at = end
        if self._error is not None:
            raise self._error
        assert at >= self.span[1] or self.abandoned  # noqa: S101 # a chain that ends well has filled its hole

    def abandon(self) -> None:
        """Say that nobody will read on."""
        with self._download.changed:
            self.abandoned = True
            self._pieces.clear()
            self._download.changed.notify_all()


class Download:
    """The chains of one question and the threads that follow them."""

    def __init__(
        self,
        read: Read,
        clock: Clock,
        store: BarStore | None,
        limit: int | None,
        *,
        only_keep: bool,
        patient: bool,
        warn: Callable[[str], None],
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        """``only_keep``: rows are kept and not given out; ``patient``: a spent budget is waited for."""
        self.only_keep = only_keep
        self.changed = threading.Condition()
        self.keeping = threading.RLock()
        self._read = read
        self._clock = clock
        self._store = store
        self._patient = patient
        self._warn = warn
        self._on_progress = on_progress
        self._limit = limit
        self._holes: list[Hole] = []
        self._waiting: deque[list[Hole]] = deque()
        self._threads: list[threading.Thread] = []
        self._stopped = threading.Event()
        self._rows = self._pages = 0
        self._now_ns = int(clock.time() * 1_000_000) * 1000
        self.keeps = store is not None

    def hole(self, series: Series, symbol: str, span: Span) -> Hole:
        made = Hole(self, series, symbol, span)
        self._holes.append(made)
        return made

    def group(self) -> None:
        """Put holes that are alike and short into common chains, and start following."""
        together: dict[tuple[Series, Span], list[Hole]] = {}
        for hole in self._holes:
            together.setdefault((hole.series, hole.span), []).append(hole)
        for (series, span), holes in together.items():
            size = max(min(MOST_PER_PAGE // expected_rows(series, span), MOST_TOGETHER), 1)
            if self._limit is not None:
                size = 1
            self._waiting += [holes[low : low + size] for low in range(0, len(holes), size)]
        order = {id(hole): place for place, hole in enumerate(self._holes)}
        self._waiting = deque(sorted(self._waiting, key=lambda holes: order[id(holes[0])]))
        if self._waiting:
            load()
        for _ in range(min(_WORKERS, len(self._waiting))):
            self._start(self._work)

    def start_alone(self, hole: Hole) -> None:
        self._start(lambda: self._follow([hole]))

    def close(self) -> None:
        """Stop following; what came is kept."""
        self._stopped.set()
        for hole in self._holes:
            hole.abandon()
        for hole in self._holes:
            hole.keep()
        for thread in self._threads:
            thread.join(0.05)

    def final_ns(self, series: Series) -> int:
        return final_until(series, self._now_ns)

    def keep(self, hole: Hole, pieces: "list[tuple[Span, pyarrow.Table | None]]") -> bool:
        """Write pieces to the store, as far as they are final; tell whether they are there now."""
        store, final_ns = self._store, self.final_ns(hole.series)
        until_ns = min(pieces[-1][0][1], final_ns)
        if store is None or not self.keeps or until_ns <= pieces[0][0][0]:
            return False
        tables = [table for _, table in pieces if table is not None]
        within = (pieces[0][0][0], until_ns)
        try:
            store.write(
                hole.series, hole.symbol, [between(table, *within) for table in tables], within,
                new_york_day(self._now_ns),
            )  # fmt: skip
        except OSError as error:
            self.keeps = False
            self._warn(
                f"what is downloaded is not kept any more: {error.strerror or error}; make room, or see `alpacli data prune`"
            )
            return False
        return True

    def reread(self, hole: Hole, span: Span) -> "Iterator[pyarrow.Table]":
        """Give rows that were let go of from the store, or where somebody pruned it meanwhile from Alpaca."""
        if self.only_keep:
            return
        at = span[0]
        try:
            for table in self._store.read(hole.series, hole.symbol, span):  # type: ignore[union-attr] # a hole is only kept where there is a store
                yield table
                at = first_and_last_ns(table)[1] + 1
        except Gone:
            again = self.hole(hole.series, hole.symbol, (at, span[1]))
            self.start_alone(again)
            yield from again.drain()

    def _start(self, work: Callable[[], None]) -> None:
        context = contextvars.copy_context()  # a request belongs to whoever reads
        thread = threading.Thread(target=context.run, args=(work,), name="alpacli history", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        while not self._stopped.is_set():
            with self.changed:
                if not self._waiting:
                    return
                holes = self._waiting.popleft()
            self._follow(holes)

    def _follow(self, holes: list[Hole]) -> None:
        by_symbol = {hole.symbol: hole for hole in holes}
        for hole in holes:
            hole.alone = len(holes) == 1
        error: BaseException | None = None
        try:
            follower = Follower(
                self._read, self._clock, patient=self._patient, stopped=self._stopped.is_set
            )  # fmt: skip
            most = MOST_PER_PAGE if self._limit is None else min(self._limit + 1, MOST_PER_PAGE)
            for step in follower.follow(holes[0].series, sorted(by_symbol), holes[0].span, most):
                by_symbol[step.symbol].put(step.table, step.until_ns)
                self._told(step.table, follower.pages)
                if all(hole.abandoned for hole in holes):
                    break
        except BaseException as caught:  # noqa: BLE001 # it is raised again where the rows are read
            error = caught
        for hole in holes:
            hole.finish(error if hole.at < hole.span[1] else None)

    def _told(self, table: "pyarrow.Table | None", pages: int) -> None:
        with self.changed:
            self._rows += 0 if table is None else table.num_rows
            self._pages = max(self._pages, pages)
            done = sum(hole.at - hole.span[0] for hole in self._holes)
            all_ns = sum(hole.span[1] - hole.span[0] for hole in self._holes)
        if self._on_progress is not None:
            self._on_progress(Progress(done, all_ns, self._rows, self._pages))
