"""``history``: what is kept on this machine of orders, fills and snapshots, and the numbers drawn from it.

Only ``sync`` asks the broker. Everything else reads the archive, so it answers at once, without a network, and the same
until the next sync; a table says how old that is.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alpacli.cli.options import option
from alpacli.cli.output import View
from alpacli.cli.read import row_limit, split
from alpacli.cli.run import Run
from alpacli.cli.times import moment_ns
from alpacli.errors import UsageError

if TYPE_CHECKING:
    from alpacli.domain.values import Model
    from alpacli.history.archive import Archive
    from alpacli.history.earnings import Earnings
    from alpacli.history.records import Wanted
    from alpacli.history.snapshots import Snapshot
    from alpacli.history.sync import Progress

_Since = Annotated[str | None, option("From this date or time.", "--since", metavar="TIME")]
_Until = Annotated[str | None, option("Before this date or time.", "--until", metavar="TIME")]
_Symbol = Annotated[str | None, option("Only these symbols.", "--symbol", metavar="A,B")]
_Side = Annotated[str | None, option("Only this side.", "--side", metavar="buy|sell")]
_Limit = Annotated[str, typer.Option("--limit", metavar="N|all", help="How many, the newest first.")]
_At = Annotated[str | None, option("At this date or time (now).", "--at", metavar="TIME")]


def sync(
    run: Run,
    from_the_start: Annotated[  # noqa: FBT002 # a flag
        bool, typer.Option("--from-the-start", help="Ask for everything once more, and add what is missing.")
    ] = False,
) -> None:
    """Bring in all orders, fills and other activities since the beginning; what is here already is not asked for again.

    It may be stopped at any time, and goes on from there. Without --max-wait it waits for the request budget as long as it
    takes, and leaves a quarter of it to others.
    """
    from alpacli.history.sync import Report, Sync

    view = run.promised(View(Report, _drawn("sync")))
    from alpacli.runtime import open_record
    from alpacli.wire import rest

    with run.client() as client:
        account = client.read(rest.account(), use_cache=False).value
        opened_ns = None if account.created_at is None else account.created_at.epoch_ns
        archive, exchange_ns = open_record(run.settings(), account, run.printer.notice)
        with archive, _progress(run, opened_ns, archive.run_ns) as tell:
            work = Sync(
                client,
                archive,
                run.clock,
                max_wait_s=run.options.max_wait,
                exchange_ns=exchange_ns,
                on_progress=tell,
            )
            report = work.run(account, from_the_start=from_the_start)
    if report.snapshot_at is None:
        run.printer.notice("fills came too fast to record the account; run it again at a calmer moment")
    if report.unresolved:
        few = ", ".join(report.unresolved[:3])
        run.printer.notice(f"{len(report.unresolved)} orders do not add up with their fills at Alpaca: {few}")
    if run.printer.draws_tables or run.printer.chosen:
        run.show_value(view, report)


def orders(
    run: Run,
    since: _Since = None,
    until: _Until = None,
    symbol: _Symbol = None,
    side: _Side = None,
    status: Annotated[str | None, option("open, closed, filled, canceled, …", metavar="A,B")] = None,
    limit: _Limit = "100",
) -> None:
    """Show orders that were brought in, by the time they were submitted."""
    from alpacli.domain.orders import Order
    from alpacli.history import records

    view = View(list[Order], "orders")
    _list(
        run,
        view,
        records.orders,
        _wanted(run, since, until, symbol, side, status, limit),
    )


def fills(
    run: Run,
    since: _Since = None,
    until: _Until = None,
    symbol: _Symbol = None,
    side: _Side = None,
    status: Annotated[str | None, option("fill, partial_fill.", metavar="A,B")] = None,
    limit: _Limit = "100",
) -> None:
    """Show fills that were brought in."""
    wanted = _wanted(run, since, until, symbol, side, status, limit)._replace(kinds=["FILL"])
    _activities(run, wanted)


def activities(
    run: Run,
    since: _Since = None,
    until: _Until = None,
    symbol: _Symbol = None,
    side: _Side = None,
    status: Annotated[str | None, option("executed, correct, …", metavar="A,B")] = None,
    types: Annotated[str | None, option("FILL, DIV, FEE, …", "--type", metavar="A,B")] = None,
    limit: _Limit = "100",
) -> None:
    """Show fills, dividends, fees and everything else that was brought in."""
    kinds = [name.upper() for name in split(types)]
    _activities(run, _wanted(run, since, until, symbol, side, status, limit)._replace(kinds=kinds))


def _activities(run: Run, wanted: "Wanted") -> None:
    from alpacli.domain.account import Activity
    from alpacli.history import records

    view = View(list[Activity], "activities")
    _list(run, view, records.activities, wanted)


def snapshots(run: Run, since: _Since = None, until: _Until = None, at: _At = None, limit: _Limit = "100") -> None:
    """Show the record of snapshots; with --at the whole of the newest one up to a time."""
    from alpacli.history import records
    from alpacli.history.records import SnapshotLine

    if at is None:
        wanted = _wanted(run, since, until, None, None, None, limit)
        view = View(list[SnapshotLine], _drawn("snapshots"))
        _list(run, view, records.snapshots, wanted)
        return
    from alpacli.cli.snapshot import draw
    from alpacli.history.snapshots import Snapshot

    whole = run.promised(View(Snapshot, draw))
    with _archive(run) as archive:
        snapshot = _snapshot(archive, _moment_ns(run, "at", at))
        if snapshot is None:
            raise UsageError("there is no snapshot up to that time", "alpacli history snapshots lists what there is")
        run.show_value(whole, snapshot)


def pnl(
    run: Run,
    by: Annotated[str | None, option("A row for each.", metavar="symbol|day|month")] = None,
    until: Annotated[str | None, option("What was earned before this date or time.", "--until", metavar="TIME")] = None,
) -> None:
    """Show what was earned: realized first in first out, unrealized, dividends, fees; and how far the account agrees."""
    from alpacli.history.earnings import Earnings

    if by not in (None, "symbol", "day", "month"):
        raise UsageError(f"--by is {by!r}", "choose among symbol, day, month")
    view = run.promised(View(Earnings, _drawn("earnings"), rows=lambda tree: tree["rows"]))
    with _archive(run) as archive:
        run.show_value(view, _earned(run, archive, by, until))


def equity(
    run: Run,
    since: _Since = None,
    until: _Until = None,
    png: Annotated[str | None, option("Draw it into a PNG file.", metavar="FILE")] = None,
) -> None:
    """Draw equity at the close of each trading day: own snapshots near it, else Alpaca's portfolio history."""
    from alpacli.history.returns import EquityDay, curve, equity_days

    view = run.promised(View(list[EquityDay], _drawn("equity")))
    with _archive(run) as archive:
        days = equity_days(curve(archive, _day(run, since), _day(run, until, before=True)))
    if png is not None:
        from alpacli.history.export import whole_file
        from alpacli.render.picture import equity_png

        if not days:
            raise UsageError("there is no equity in this time to draw", "alpacli history sync brings Alpaca's in")
        name = f"Equity, {days[0].day} to {days[-1].day}"
        with whole_file(png) as out:
            out.write(equity_png([date.fromisoformat(day.day) for day in days], [day.equity for day in days], name))
        run.printer.notice(f"wrote {png}")
        if not run.printer.chosen:
            return
    run.show_value(view, days)


def stats(run: Run, since: _Since = None, until: _Until = None) -> None:
    """Show return, volatility, Sharpe, Sortino, drawdown, win rate and more, from daily closes and closed trades."""
    from alpacli.history import returns
    from alpacli.history.returns import Stats

    view = run.promised(View(Stats, _drawn("stats")))
    with _archive(run) as archive:
        closes = returns.curve(archive, until=_day(run, until, before=True))
        found = _stats(archive, closes, _day(run, since))
    if found is None:
        raise UsageError("there is no equity in this time", "alpacli history sync brings Alpaca's in")
    run.show_value(view, found)


def positions(run: Run, at: _At = None) -> None:
    """Show what was held at a time, worked out from the fills."""
    from alpacli.history import earnings
    from alpacli.history.earnings import HeldPosition
    from alpacli.history.records import LAST_NS

    view = run.promised(View(list[HeldPosition], _drawn("positions")))
    at_ns = None if at is None else _moment_ns(run, "at", at)
    with _archive(run) as archive:
        held = earnings.positions(earnings.Played(earnings.events(archive, LAST_NS if at_ns is None else at_ns)))
        snapshot = _snapshot(archive, at_ns)
        if snapshot is not None:
            for row in earnings.differences(archive, snapshot):
                text = f"fills tell {row.computed:f}, the snapshot of {snapshot.at.wire} {row.recorded:f}"
                run.printer.notice(f"{row.symbol}: {text}")
    run.show_value(view, held)


def closed(run: Run, since: _Since = None, until: _Until = None, symbol: _Symbol = None, limit: _Limit = "100") -> None:
    """Show what was closed, lot by lot, the newest first."""
    from alpacli.history.earnings import ClosedLot

    view = View(list[ClosedLot], _drawn("closed"))
    _list(run, view, _closed_lots, _wanted(run, since, until, symbol, None, None, limit))


def export(
    run: Run,
    what: Annotated[str, typer.Argument(metavar="orders|fills|activities|snapshots|equity|closed")],
    output: Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="Where to; - is standard output.")],
    form: Annotated[
        str | None, option("What it ends with, else this.", "--format", metavar="csv|jsonl|parquet")
    ] = None,
    since: _Since = None,
    until: _Until = None,
    symbol: _Symbol = None,
) -> None:
    """Write all of it into a file, oldest first: CSV, JSON lines or Parquet."""
    from alpacli.history import export as files

    chosen = files.format_of(output, form)
    wanted = _wanted(run, since, until, symbol, None, None, "all")._replace(descending=False)
    rows_of, model = _exported(run, what, wanted)
    with _archive(run) as archive:
        if output == "-":
            count = files.export(rows_of(archive), model, sys.stdout.buffer, chosen)
            run.printer.write(b"")
        else:
            with files.whole_file(output) as out:
                count = files.export(rows_of(archive), model, out, chosen)
            from alpacli.render.text import counted

            run.printer.notice(f"wrote {counted(count, 'row')} to {output}")


def report(
    run: Run,
    html: Annotated[str, typer.Option("--html", metavar="FILE", help="Where to.")],
    title: Annotated[str | None, option("Its heading.", metavar="TEXT")] = None,
) -> None:
    """Write one page of HTML: equity, drawdown, profit and loss by symbol, trades. It needs nothing but itself."""
    from alpacli.history import earnings, returns
    from alpacli.history.export import whole_file
    from alpacli.render.report import page

    with _archive(run) as archive:
        closes = returns.curve(archive)
        number, _ = archive.account
        now = datetime.fromtimestamp(run.clock.time(), UTC)
        text = page(
            title or f"Account {number}",
            f"Made by alpacli on {now:%Y-%m-%d %H:%M} UTC{' from the offline exchange' if run.options.sim else ''}.",
            returns.equity_days(closes),
            _stats(archive, closes),
            _earned(run, archive, "symbol", None),
            list(earnings.closed_lots(earnings.Played(earnings.events(archive)))),
        )
    with whole_file(html) as out:
        out.write(text.encode("utf-8", "replace"))
    run.printer.notice(f"wrote {html}")


# ------------------------------------------------------------------------------------------------- what they share


@contextmanager
def _archive(run: Run) -> "Iterator[Archive]":
    from alpacli.runtime import open_archive

    with open_archive(run.settings()) as archive:
        if archive.chain("fills").whole_ns is None or archive.chain("bookings").whole_ns is None:
            run.printer.notice("orders and fills are not all here yet: alpacli history sync brings them in")
        yield archive


def _list(run: Run, view: View, rows: "Callable[[Archive, Wanted], Iterable[Model]]", wanted: "Wanted") -> None:
    """Print rows; one more than wanted is asked for, to say so when there are more."""
    run.promised(view)
    most = wanted.most
    with _archive(run) as archive:
        found = list(rows(archive, wanted if most is None else wanted._replace(most=most + 1)))
        whole_ns = archive.chain("fills").whole_ns
    if most is not None and len(found) > most:
        found = found[:most]
        run.printer.notice(f"the newest {most} are shown; --limit all shows all")
    from alpacli.domain.values import to_json

    age_s = None if whole_ns is None else max(run.clock.time() - whole_ns / 1e9, 0.0)
    run.printer.show(view._replace(aged="synced"), found, to_json(found), age_s)


def _wanted(
    run: Run,
    since: str | None,
    until: str | None,
    symbol: str | None,
    side: str | None,
    status: str | None,
    limit: str,
) -> "Wanted":
    from alpacli.history.records import FIRST_NS, LAST_NS, Wanted

    if side not in (None, "buy", "sell"):
        raise UsageError(f"--side is {side!r}", "choose buy or sell")
    return Wanted(
        FIRST_NS if since is None else _moment_ns(run, "since", since),
        LAST_NS if until is None else _moment_ns(run, "until", until),
        split(symbol),
        side,
        split(status),
        most=row_limit(limit),
        descending=True,
    )


def _moment_ns(run: Run, name: str, text: str) -> int:
    """Return the instant that an option gives; of an exchange, `today` is the day on which it was last recorded."""
    from alpacli.runtime import recorded_ns

    return moment_ns(run, name, text, at_ns=recorded_ns(run.settings()))


def _day(run: Run, text: str | None, *, before: bool = False) -> int | None:
    """Return the New York day of a time, as an ordinal; with ``before`` the last one that is wholly before it."""
    if text is None:
        return None
    from alpacli.history.archive import new_york_day

    return new_york_day(_moment_ns(run, "until" if before else "since", text) - (1 if before else 0))


def _snapshot(archive: "Archive", at_ns: int | None) -> "Snapshot | None":
    from alpacli.history import snapshots as records
    from alpacli.history.records import LAST_NS

    text = archive.snapshot_until(LAST_NS if at_ns is None else at_ns)
    return None if text is None else records.read(text).value


def _earned(run: Run, archive: "Archive", by: str | None, until: str | None) -> "Earnings":
    from alpacli.history import earnings, returns

    until_ns = None if until is None else _moment_ns(run, "until", until)
    snapshot = _snapshot(archive, until_ns)
    if until_ns is not None:
        earned = returns.earned_before(archive, snapshot, by, until_ns)
        if earned.total.unrealized is None:
            run.printer.notice("what was not realized then is not known: no snapshot and no close tells of that time")
        return earned
    growth = None
    if by in ("day", "month"):
        closes = returns.curve(archive)
        growth = returns.growth(closes) if snapshot is None else returns.growth_until(archive, snapshot, closes)
    return earnings.earn(archive, snapshot, by, growth)


def _stats(archive: "Archive", closes: Any, since: int | None = None) -> Any:
    from alpacli.history import earnings, returns

    trades = earnings.Played(earnings.events(archive)).trades
    return returns.stats(closes, trades, archive.count("snapshots"), since)


def _closed_lots(archive: "Archive", wanted: "Wanted") -> "Iterable[Model]":
    from itertools import islice

    from alpacli.domain.values import Timestamp
    from alpacli.history import earnings
    from alpacli.history.records import kept_symbol

    symbols = set(map(kept_symbol, wanted.symbols))
    lots = [
        lot
        for lot in earnings.closed_lots(earnings.Played(earnings.events(archive)))
        if wanted.since_ns <= Timestamp.parse(lot.closed_at.wire).epoch_ns < wanted.until_ns
        and (not symbols or lot.symbol in symbols)
    ]
    return islice(reversed(lots) if wanted.descending else lots, wanted.most)


def _exported(run: Run, what: str, wanted: "Wanted") -> "tuple[Callable[[Archive], Iterable[Model]], type[Model]]":
    from alpacli.domain.account import Activity
    from alpacli.domain.orders import Order
    from alpacli.history import records, returns
    from alpacli.history.earnings import ClosedLot
    from alpacli.history.records import SnapshotLine
    from alpacli.history.returns import EquityDay

    known: dict[str, tuple[Callable[[Archive], Iterable[Model]], type[Model]]] = {
        "orders": (lambda archive: records.orders(archive, wanted), Order),
        "fills": (lambda archive: records.activities(archive, wanted._replace(kinds=["FILL"])), Activity),
        "activities": (lambda archive: records.activities(archive, wanted), Activity),
        "snapshots": (lambda archive: records.snapshots(archive, wanted), SnapshotLine),
        "equity": (lambda archive: returns.equity_days(returns.curve(archive)), EquityDay),
        "closed": (lambda archive: _closed_lots(archive, wanted), ClosedLot),
    }
    if what not in known:
        raise UsageError(f"there is no history of {what!r}", f"choose among {', '.join(known)}")
    return known[what]


def _drawn(name: str) -> Callable[[Any, Any], Any]:
    def draw(value: Any, frame: Any) -> Any:
        from alpacli.render import ledger

        return getattr(ledger, name)(value, frame)

    return draw


@contextmanager
def _progress(run: Run, opened_ns: int | None, exchange_ns: int | None) -> "Iterator[Callable[[Progress], None]]":
    """Show how far the pass has come: by time, since nobody says how many rows there are. On a terminal only."""
    if run.options.quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich import progress as rich_progress
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn

    now_ns = int(run.clock.time() * 1e9) if exchange_ns is None else exchange_ns
    begin_ns = now_ns if opened_ns is None else min(opened_ns, now_ns - 1)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[said]}"))
    with rich_progress.Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def tell(progress: "Progress") -> None:
            said = f"{progress.rows:,}" if progress.rows else ""
            if progress.waiting_s:
                for task in tasks.values():
                    bars.update(task, said=f"waiting {progress.waiting_s:.0f} s for the request budget")
                return
            if progress.what not in tasks:
                tasks[progress.what] = bars.add_task(progress.what, total=now_ns - begin_ns, said="")
            done = None if progress.at_ns is None else progress.at_ns - begin_ns
            bars.update(tasks[progress.what], completed=done, said=said)

        yield tell
