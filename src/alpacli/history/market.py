"""Market history as batches: what is kept is read, only the holes are asked for, and what comes is kept at once.

Each hole is a chain of pages. Chains of several symbols run side by side in threads, within the budget that all processes
share; their rows wait in the store, not in memory, until it is their turn to be given out. A page is trusted only as far as
it goes on from the one before: the rows of its last moment are held back until the next page, so that a chain can be taken
up again at exactly that place when its token has expired, and whatever was given or kept is complete.
"""

import contextlib
import copy
import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from alpacli.arguments import texts, whole
from alpacli.domain.arrows import integers
from alpacli.domain.batches import Batch, Batches, Changed, Copy, Names, When, first_and_last_ns, joined
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
from alpacli.errors import AlpacaAPIError, UsageError
from alpacli.history import kept_text, row_groups
from alpacli.history.bar_store import BarStore, Gone
from alpacli.history.chains import Follower, Read
from alpacli.history.downloads import MOST_TOGETHER, Download, Hole, Progress
from alpacli.history.feeds import FeedChoice
from alpacli.history.holes import Hours, final_until, narrowed, new_york_day
from alpacli.history.runs import Place
from alpacli.ports import Clock
from alpacli.wire.columns import MOST_PER_PAGE, page

if TYPE_CHECKING:
    import pyarrow

_FEW_ROWS: Final = 1000  # in a group of rows, on average


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
        *,
        begin: Callable[[], None] = lambda: None,
        place: Callable[[], Place] | None = None,
    ) -> None:
        """Take the parts. ``read`` carries out one ``Call``; without ``store`` nothing is kept.

        ``begin`` is called before anything is planned or given, kept rows too, and may refuse: a closed client does.
        ``place`` finds another store and clock for each question, where both may change while the program runs.
        """
        self._read = read
        self._clock = clock
        self._store = store
        self._feeds = feeds
        self._hours = hours
        self._warn = warn
        self._begin = begin
        self._place = place
        self.patient = True
        self.on_progress: Callable[[Progress], None] | None = None
        self.use_kept = True

    def bars(
        self,
        symbols: Names,
        *,
        start: When = None,
        end: When = None,
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
        self, symbols: Names, *, start: When = None, end: When = None, feed: str | None = None, limit: int | None = None
    ) -> Batches:
        """Return trades as they were reported. Source: GET /v2/stocks/trades and its siblings."""
        return self._history("trades", symbols, start, end, feed, limit)

    def quotes(
        self, symbols: Names, *, start: When = None, end: When = None, feed: str | None = None, limit: int | None = None
    ) -> Batches:
        """Return quotes (best bid and offer) as they changed. Source: GET /v2/stocks/quotes, /v1beta3/crypto/us/quotes."""
        return self._history("quotes", symbols, start, end, feed, limit)

    # ----------------------------------------------------------------------------------------------- planning

    def _history(
        self,
        kind: Kind,
        symbols: Names,
        start: When,
        end: When,
        feed: str | None,
        limit: int | None,
        timeframe: str = "",
        adjustment: str = "raw",
    ) -> Batches:
        self._begin()
        wanted = _symbols(symbols)
        _check(kind, wanted, feed)
        limit = None if limit is None else whole("limit", limit)
        return self._at_present()._planned(kind, wanted, start, end, feed, limit, timeframe, adjustment)

    def _at_present(self) -> "MarketData":
        """Return the reader for one question: what answers and what is kept of it stay the same for all of that."""
        if self._place is None:
            return self
        place, here = self._place(), copy.copy(self)
        here._store, here._clock = place.store, place.clock
        return here

    def _planned(
        self,
        kind: Kind,
        wanted: list[str],
        start: When,
        end: When,
        feed: str | None,
        limit: int | None,
        timeframe: str,
        adjustment: str,
    ) -> Batches:
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
        self._begin()
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
        download = Download(
            self._read,
            self._clock,
            self._store,
            limit,
            only_keep=only_keep,
            patient=self.patient,
            warn=self._warn,
            on_progress=self.on_progress,
        )
        lanes = [(symbol, series, self._parts(download, symbol, series, span)) for symbol, series, span in plan]
        download.group()
        try:
            for symbol, series, parts in lanes:
                left = limit
                for table in self._lane(download, symbol, series, parts):
                    self._begin()
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

    def _parts(self, download: Download, symbol: str, series: Series, span: Span) -> list[Span | Hole]:
        """Cut an interval into what is kept and what has to be asked for, in order of time."""
        known: list[Span] = []
        if self._store is not None and self.use_kept:
            known = self._store.covered(series, symbol, span)
        found = (narrowed(series, hole, self._hours) for hole in missing(span, known))
        holes = [hole for hole in found if hole is not None]
        parts: list[Span | Hole] = [*known, *(download.hole(series, symbol, hole) for hole in holes)]
        return sorted(parts, key=lambda part: part.span[0] if isinstance(part, Hole) else part[0])

    def _lane(
        self, download: Download, symbol: str, series: Series, parts: list[Span | Hole]
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
        for low in range(0, len(names), MOST_TOGETHER):
            token: str | None = None
            while True:
                days, following = follower.ask(
                    corporate_actions(names[low : low + MOST_TOGETHER], first, last, token=token)
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


def _while_unchanged(blocks: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from blocks
    except (OSError, Gone, row_groups.NotUnderstood) as error:
        raise Changed("a kept file was changed while it was copied", "run it again") from error


def _symbols(symbols: Names) -> list[str]:
    given = [symbols] if isinstance(symbols, str) else texts("symbols", symbols)
    found = list(map(check_symbol, given))
    if not found:
        raise UsageError("no symbol was given", "name at least one, like AAPL or BTC/USD")
    return list(dict.fromkeys(found))


def _check(kind: Kind, symbols: Sequence[str], feed: str | None) -> None:
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
    if not isinstance(value, int):
        raise UsageError(f"{name} is {value!r}", "give an aware datetime, or nanoseconds since 1970")
    return value
