"""Market history as batches: what is kept is read, only the holes are asked for, and what comes is kept at once.

Each hole is a chain of pages. Chains of several symbols run side by side in threads, within the budget that all processes
share; their rows wait in the store, not in memory, until it is their turn to be given out. A page is trusted only as far as
it goes on from the one before: the rows of its last moment are held back until the next page, so that a chain can be taken
up again at exactly that place when its token has expired, and whatever was given or kept is complete.
"""

import contextlib
import datetime as dt
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from alpacli.domain.arrows import integers, load
from alpacli.domain.batches import Batch, Batches, Changed, Copy, between, empty, first_and_last_ns, joined
from alpacli.domain.series import (
    STOCK_FEEDS,
    Kind,
    Market,
    Series,
    Span,
    Timeframe,
    check_adjustment,
    check_symbol,
    market_of,
    missing,
)
from alpacli.domain.values import epoch_ns
from alpacli.errors import AlpacaAPIError, AlpacliError, UsageError
from alpacli.history import kept_text, row_groups
from alpacli.history.bar_store import BarStore, Gone, period_of, period_span
from alpacli.history.chains import Follower, Read
from alpacli.history.feeds import FeedChoice
from alpacli.history.holes import Hours, expected_rows, final_until, narrowed, new_york_day
from alpacli.ports import Clock
from alpacli.wire.columns import MOST_PER_PAGE, page

if TYPE_CHECKING:
    import pyarrow

WORKERS: Final = 4
_MOST_TOGETHER: Final = 100  # symbols in one request
_MOST_HELD: Final = 16  # tables of a hole in memory where they cannot be kept on disk
_FEW_ROWS: Final = 1000  # in a group of rows, on average
_MOST_UNKEPT: Final = 64  # tables that wait for the end of their file


class Progress(NamedTuple):
    """How far a download is: nanoseconds of holes filled and to fill, rows and pages so far."""

    done_ns: int
    all_ns: int
    rows: int
    pages: int


class MarketData:
    """Market history of one account, as ``AlpacaClient.market_data``; a ``MarketDataProvider``. Thread-safe.

    Bars, trades and quotes of stocks, crypto and options; symbols of different markets may be mixed. Raises what the
    client raises, and ``UsageError`` for what Alpaca does not have. A spent budget is waited for, however long it takes,
    unless ``patient`` is false.
    """

    def __init__(
        self,
        read: Read,
        clock: Clock,
        store: BarStore | None,
        feeds: FeedChoice,
        hours: Hours,
        warn: Callable[[str], None],
    ) -> None:
        """Take the parts. ``read`` carries out one ``Call``; without ``store`` nothing is kept."""
        self._read = read
        self._clock = clock
        self._store = store
        self._feeds = feeds
        self._hours = hours
        self._warn = warn
        self.patient = True
        self.on_progress: Callable[[Progress], None] | None = None
        self.use_kept = True

    def bars(
        self,
        symbols: str | Sequence[str],
        *,
        start: dt.datetime | int | None = None,
        end: dt.datetime | int | None = None,
        timeframe: str = "1Min",
        feed: str | None = None,
        adjustment: str = "raw",
        limit: int | None = None,
    ) -> Batches:
        """Return bars; ``feed=None`` takes the best that the plan has. Source: GET /v2/stocks/bars and its siblings.

        ``start`` and ``end`` are aware datetimes or nanoseconds since 1970 UTC, both included, the end by default now.
        ``limit`` is a number of rows of each symbol: the first ones from ``start``, or without a start the last ones before
        ``end``, which are asked for anew each time.
        """
        step = Timeframe.parse(timeframe)
        return self._history("bars", symbols, start, end, feed, limit, str(step), check_adjustment(adjustment))

    def trades(
        self,
        symbols: str | Sequence[str],
        *,
        start: dt.datetime | int | None = None,
        end: dt.datetime | int | None = None,
        feed: str | None = None,
        limit: int | None = None,
    ) -> Batches:
        """Return trades as they were reported. Source: GET /v2/stocks/trades and its siblings."""
        return self._history("trades", symbols, start, end, feed, limit)

    def quotes(
        self,
        symbols: str | Sequence[str],
        *,
        start: dt.datetime | int | None = None,
        end: dt.datetime | int | None = None,
        feed: str | None = None,
        limit: int | None = None,
    ) -> Batches:
        """Return quotes (best bid and offer) as they changed. Source: GET /v2/stocks/quotes, /v1beta3/crypto/us/quotes."""
        return self._history("quotes", symbols, start, end, feed, limit)

    # ----------------------------------------------------------------------------------------------- planning

    def _history(
        self,
        kind: Kind,
        symbols: str | Sequence[str],
        start: dt.datetime | int | None,
        end: dt.datetime | int | None,
        feed: str | None,
        limit: int | None,
        timeframe: str = "",
        adjustment: str = "raw",
    ) -> Batches:
        wanted = _symbols(symbols)
        _check(kind, wanted, feed, limit)
        now_ns = self._now_ns()
        if start is None and limit is None:
            raise UsageError("neither a start nor a limit was given", "say from when, or how many of the last rows")
        last_ns = now_ns if end is None else _instant_ns("end", end)
        begin_ns = last_ns if start is None else _instant_ns("start", start)
        if begin_ns > now_ns:
            raise UsageError("the start is in the future", "give a time that has passed")
        if last_ns < begin_ns:
            raise UsageError("the end is before the start", "put the earlier time into start")
        asked = (begin_ns, min(last_ns, now_ns) + 1)
        notes: list[str] = []
        series: dict[Market, tuple[Series, Span]] = {}
        for market in dict.fromkeys(map(market_of, wanted)):
            chosen, until_ns, note = self._feeds.choose(market, feed, asked, now_ns, wanted, latest=start is None)
            made = Series(kind, market, chosen, timeframe, adjustment if market == "stocks" else "raw")
            series[market] = made, (0 if start is None else asked[0], max(until_ns, asked[0] * (start is not None)))
            notes.append(note)
        plan = [(symbol, *series[market_of(symbol)]) for symbol in wanted]
        if start is None:
            return Batches(kind, lambda: self._last(plan, limit or 0), notes)
        return Batches(kind, lambda: self._run(plan, limit), notes, lambda text: self._copy(plan, limit, text))

    def _copy(
        self, plan: list[tuple[str, Series, Span]], limit: int | None, text: kept_text.Writer | None
    ) -> Copy | None:
        """Bring in what is missing, then copy the kept files if they hold just what is wanted."""
        now_ns = self._now_ns()
        open_ended = [(series, (max(final_until(series, now_ns), span[0]), span[1])) for _, series, span in plan]
        final = not any(rest[0] < rest[1] and narrowed(series, rest, self._hours) for series, rest in set(open_ended))
        ticks = any(series.kind != "bars" for _, series, _ in plan)
        if self._store is None or limit is not None or not final or (text is not None and ticks):
            return None
        self._drop_outdated(plan)
        found = self._whole_files(plan) if self.use_kept else None
        if found is None:
            for _ in self._run(plan, None, only_keep=True):
                pass
            found = self._whole_files(plan)
        files = found or []
        if not files or any(file.layout != files[0].layout for file in files):
            return None
        rows = sum(file.rows for file in files)
        symbols = {self._store.symbol_of(file.path) for file in files}
        if text is not None:
            return Copy(rows, symbols, _while_unchanged(kept_text.joined(files, text, self._store.read_file)))
        with contextlib.suppress(row_groups.NotUnderstood):
            if rows >= _FEW_ROWS * len(
                files
            ):  # more and smaller groups would be slow to read for whoever gets the file
                return Copy(rows, symbols, _while_unchanged(row_groups.joined(files)))
        return None

    def _whole_files(self, plan: list[tuple[str, Series, Span]]) -> "list[row_groups.Footer] | None":
        """Return the files that hold everything and nothing else, empty where others do; ``None`` when rows are missing."""
        assert self._store is not None  # noqa: S101 # asked before
        found: list[row_groups.Footer] | None = []
        for symbol, series, span in plan:
            known, files = self._store.look(series, symbol, span)
            if any(narrowed(series, hole, self._hours) for hole in missing(span, known)):
                return None
            found = None if found is None or files is None else [*found, *files]
        return found or []

    def _run(
        self, plan: list[tuple[str, Series, Span]], limit: int | None, *, only_keep: bool = False
    ) -> Iterator[Batch]:
        """Give the rows; ``only_keep``: none of those that are kept anyway, and no more once they cannot be."""
        self._drop_outdated(plan)
        download = _Download(self, limit, only_keep=only_keep)
        lanes = [(symbol, series, self._parts(download, symbol, series, span)) for symbol, series, span in plan]
        download.group()
        try:
            for symbol, series, parts in lanes:
                left = limit
                for table in self._lane(download, symbol, series, parts):
                    if only_keep and not download.keeps:
                        return
                    shown = table if left is None else table.slice(0, left)
                    if shown.num_rows:
                        yield Batch(series.kind, symbol, shown)
                    if left is not None:
                        left -= shown.num_rows
                        if left <= 0:
                            break
                for part in parts:
                    if isinstance(part, Hole):
                        part.abandon()
        finally:
            download.close()

    def _parts(self, download: "_Download", symbol: str, series: Series, span: Span) -> "list[Span | Hole]":
        """Cut an interval into what is kept and what has to be asked for, in order of time."""
        known: list[Span] = []
        if self._store is not None and self.use_kept:
            known = self._store.covered(series, symbol, span)
        found = (narrowed(series, hole, self._hours) for hole in missing(span, known))
        holes = [hole for hole in found if hole is not None]
        parts: list[Span | Hole] = [*known, *(download.hole(series, symbol, hole) for hole in holes)]
        return sorted(parts, key=lambda part: part.span[0] if isinstance(part, Hole) else part[0])

    def _lane(
        self, download: "_Download", symbol: str, series: Series, parts: "list[Span | Hole]"
    ) -> "Iterator[pyarrow.Table]":
        for part in parts:
            if isinstance(part, Hole):
                yield from part.drain()
                continue
            if download.only_keep:
                continue
            at = part[0]
            try:
                assert self._store is not None  # noqa: S101 # only a store covers anything
                for table in self._store.read(series, symbol, part):
                    yield table
                    at = first_and_last_ns(table)[1] + 1
            except Gone:  # pruned or broken since: it is a hole again
                again = download.hole(series, symbol, (at, part[1]))
                download.start_alone(again)
                yield from again.drain()

    def _drop_outdated(self, plan: list[tuple[str, Series, Span]]) -> None:
        """Forget adjusted history that a corporate action has changed since it was downloaded."""
        adjusted = [(symbol, series) for symbol, series, _ in plan if series.adjustment != "raw"]
        if self._store is None or not self.use_kept or not adjusted:
            return
        today = new_york_day(self._now_ns())
        stale: dict[str, tuple[Series, dt.date]] = {}
        for symbol, series in adjusted:
            oldest = self._store.oldest(series, symbol)
            if oldest is not None and oldest <= today and self._store.checked(series, symbol) != today:
                stale[symbol] = series, oldest
        if not stale:
            return
        first = min(oldest for _, oldest in stale.values())
        try:
            found = self._action_days(sorted(stale), first, today)
        except AlpacaAPIError as error:
            self._warn(f"no corporate actions can be looked up ({error.message}): adjusted history is downloaded again")
            for symbol, (series, _) in stale.items():
                self._store.forget(series, symbol, up_to=today - dt.timedelta(1))
            return
        for symbol, (series, _) in stale.items():
            days = [day for day in found.get(symbol, ()) if day <= today]
            if days and self._store.forget(series, symbol, up_to=max(days)):
                self._warn(f"{symbol} had a corporate action on {max(days)}: its adjusted history is downloaded again")
            self._store.mark_checked(series, symbol, today)

    def _action_days(self, names: list[str], first: dt.date, last: dt.date) -> dict[str, list[dt.date]]:
        from alpacli.wire.market import corporate_actions

        found: dict[str, list[dt.date]] = {}
        follower = Follower(self._read, self._clock, patient=self.patient)
        for low in range(0, len(names), _MOST_TOGETHER):
            token: str | None = None
            while True:
                days, following = follower.ask(
                    corporate_actions(names[low : low + _MOST_TOGETHER], first, last, token=token)
                )
                for symbol, day in days:
                    found.setdefault(symbol, []).append(day)
                if following is None or following == token:
                    break
                token = following
        return found

    def _last(self, plan: list[tuple[str, Series, Span]], count: int) -> Iterator[Batch]:
        """Ask for the last rows of each symbol, newest first, and turn them round."""
        follower = Follower(self._read, self._clock, patient=self.patient)
        for symbol, series, span in plan:
            tables: list[pyarrow.Table] = []
            left, token = count, None
            while left > 0:
                size = min(left, MOST_PER_PAGE)
                found = follower.ask(page(series, [symbol], span, limit=size, token=token, newest_first=True))
                rows = [table for name, table in found.tables if name == symbol]
                tables += rows
                left -= sum(table.num_rows for table in rows)
                if found.token is None or found.token == token:
                    break
                token = found.token
            if tables:
                newest_first = joined(tables).slice(0, count)
                order = integers(range(newest_first.num_rows - 1, -1, -1))
                yield Batch(series.kind, symbol, newest_first.take(order))

    def _now_ns(self) -> int:
        return int(self._clock.time() * 1_000_000) * 1000


# --------------------------------------------------------------------------------------------------- downloading


class Hole:
    """A stretch of one symbol that is being asked for: filled by a worker, drained by the reader, in order."""

    def __init__(self, download: "_Download", series: Series, symbol: str, span: Span) -> None:
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


class _Download:
    """The chains of one question and the threads that follow them."""

    def __init__(self, owner: MarketData, limit: int | None, *, only_keep: bool) -> None:
        self.only_keep = only_keep
        self.changed = threading.Condition()
        self.keeping = threading.RLock()
        self._owner = owner
        self._limit = limit
        self._holes: list[Hole] = []
        self._waiting: deque[list[Hole]] = deque()
        self._threads: list[threading.Thread] = []
        self._stopped = threading.Event()
        self._rows = self._pages = 0
        self._now_ns = owner._now_ns()  # one module
        self.keeps = owner._store is not None

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
            size = max(min(MOST_PER_PAGE // expected_rows(series, span), _MOST_TOGETHER), 1)
            if self._limit is not None:
                size = 1
            self._waiting += [holes[low : low + size] for low in range(0, len(holes), size)]
        order = {id(hole): place for place, hole in enumerate(self._holes)}
        self._waiting = deque(sorted(self._waiting, key=lambda holes: order[id(holes[0])]))
        if self._waiting:
            load()
        for _ in range(min(WORKERS, len(self._waiting))):
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
        store, final_ns = self._owner._store, self.final_ns(hole.series)
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
            self._owner._warn(
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
            for table in self._owner._store.read(hole.series, hole.symbol, span):  # type: ignore[union-attr] # a hole is only kept where there is a store
                yield table
                at = first_and_last_ns(table)[1] + 1
        except Gone:
            again = self.hole(hole.series, hole.symbol, (at, span[1]))
            self.start_alone(again)
            yield from again.drain()

    def _start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, name="alpacli history", daemon=True)
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
                self._owner._read, self._owner._clock, patient=self._owner.patient, stopped=self._stopped.is_set
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
        if self._owner.on_progress is not None:
            self._owner.on_progress(Progress(done, all_ns, self._rows, self._pages))


def _while_unchanged(blocks: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from blocks
    except (OSError, Gone, row_groups.NotUnderstood) as error:
        raise Changed("a kept file was changed while it was copied", "run it again") from error


def _symbols(symbols: str | Sequence[str]) -> list[str]:
    found = [check_symbol(symbol) for symbol in ([symbols] if isinstance(symbols, str) else symbols)]
    if not found:
        raise UsageError("no symbol was given", "name at least one, like AAPL or BTC/USD")
    return list(dict.fromkeys(found))


def _check(kind: Kind, symbols: Sequence[str], feed: str | None, limit: int | None) -> None:
    if limit is not None and limit < 1:
        raise UsageError(f"limit is {limit}", "give a number of rows of at least 1")
    if feed is not None and feed not in STOCK_FEEDS:
        raise UsageError(f"there is no feed {feed!r}", f"choose among {', '.join(STOCK_FEEDS)}")
    if kind == "quotes" and any(market_of(symbol) == "options" for symbol in symbols):
        raise UsageError("Alpaca keeps no history of option quotes", "`alpacli quote` shows the latest one")


def _instant_ns(name: str, value: dt.datetime | int) -> int:
    if isinstance(value, dt.datetime):
        if value.tzinfo is None:
            raise UsageError(
                f"{name} is {value!s}, a time without a zone", "give an aware datetime, in UTC for example"
            )
        exact: Any = getattr(value, "epoch_ns", None)
        return exact if isinstance(exact, int) else epoch_ns(value)
    return value


__all__ = ["AlpacliError", "MarketData", "Progress"]
