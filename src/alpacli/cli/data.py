"""The commands that look after the market history kept on this machine: ls, verify, prune, sql."""

import datetime as dt
import math
import os
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alpacli.cli.failures import ended_at_once
from alpacli.cli.options import option
from alpacli.cli.output import View
from alpacli.cli.run import Run
from alpacli.domain.batches import instant_text
from alpacli.domain.series import check_symbol
from alpacli.errors import AlpacliError, UsageError

if TYPE_CHECKING:
    from alpacli.history.bar_store import BarStore, KeptFile

Symbols = Annotated[list[str] | None, typer.Argument(metavar="SYMBOL", help="Only these.", show_default=False)]
_AGE = re.compile(r"([0-9]{1,5})\s*(h|d|w|mo|y)")
_DAYS = {"d": 1, "w": 7, "mo": 30, "y": 365}


def ls(run: Run, symbols: Symbols = None) -> None:
    """Show what is kept: symbols, periods, rows, and since when."""
    from alpacli.domain.market import KeptHistory
    from alpacli.render.history import kept as draw

    view = run.promised(View(list[KeptHistory], draw))
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for file in _files(_store(run), symbols):
        series = file.series
        row = rows.setdefault(
            (series, file.symbol),
            {
                "symbol": file.symbol,
                "kind": series.kind,
                "market": series.market,
                "feed": series.feed,
                "timeframe": series.timeframe or None,
                "adjustment": series.adjustment if series.kind == "bars" else None,
                "rows": 0,
                "files": 0,
                "bytes": 0,
                "start": None,
                "end": None,
                "broken": 0,
            },
        )
        row["files"] += 1
        row["bytes"] += file.bytes
        row["rows"] += file.rows
        row["broken"] += bool(file.problem)
        if file.covered:
            row["start"] = min(file.covered[0][0], row["start"] or file.covered[0][0])
            row["end"] = max(file.covered[-1][1], row["end"] or 0)
    found = []
    for row in rows.values():
        for name in ("start", "end"):
            row[name] = None if row[name] is None else instant_text(_end(row[name]) if name == "end" else row[name])
        found.append(KeptHistory.model_validate(row))
    run.show_value(view, found)


def verify(
    run: Run,
    symbols: Symbols = None,
    repair: Annotated[  # noqa: FBT002 # a flag
        bool, typer.Option("--repair", help="Remove broken files; they are downloaded again when asked for.")
    ] = False,
) -> None:
    """Read every file and check it: readable, in order, no row twice, nothing outside what it covers."""
    from alpacli.domain.market import VerifiedHistory
    from alpacli.render.history import verified as draw

    view = run.promised(View(VerifiedHistory, draw))
    store = _store(run)
    count = rows = 0
    broken: list[dict[str, str]] = []
    for file in _files(store, symbols):
        count += 1
        rows += file.rows
        problem = store.check(file)
        if problem:
            broken.append({"path": file.path, "problem": problem})
            if repair:
                store.remove(file)
    run.show_value(view, VerifiedHistory.model_validate({"files": count, "rows": rows, "broken": broken}))
    if broken and not repair:
        raise AlpacliError(f"{len(broken)} of {count} files are broken", "alpacli data verify --repair removes them")


def prune(
    run: Run,
    symbols: Symbols = None,
    older_than: Annotated[
        str | None, option("Only what was downloaded so long ago: 12h, 90d, 12w, 6mo, 2y.", metavar="AGE")
    ] = None,
    kind: Annotated[str | None, option("Only this kind.", metavar="bars|trades|quotes")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Everything that is kept.")] = False,  # noqa: FBT002 # a flag
) -> None:
    """Remove kept history, and always what killed processes left half written."""
    from alpacli.domain.market import PrunedHistory
    from alpacli.render.history import pruned as draw

    view = run.promised(View(PrunedHistory, draw))
    if kind not in (None, "bars", "trades", "quotes"):
        raise UsageError(f"--kind is {kind!r}", "choose bars, trades or quotes")
    is_older = _is_older(run, older_than)
    chosen = symbols or older_than or kind or everything
    stores = _stores(run)
    of_each = [
        [
            file
            for file in (_files(store, symbols) if chosen else ())
            if (kind is None or file.series.kind == kind) and is_older(file)
        ]
        for store in stores
    ]
    found = [file for files in of_each for file in files]
    size = sum(file.bytes for file in found)
    if any(of_each[1:]):
        older = len(found) - len(of_each[0])
        run.printer.notice(f"{older} of the files were kept by the address alone, before runs of an exchange had names")
    if found and not run.options.dry_run:
        run.confirm([f"remove {len(found)} files with {sum(file.rows for file in found):,} rows ({size:,} bytes)"])
    gone = 0
    if not run.options.dry_run:
        for store, files in zip(stores, of_each, strict=True):
            for file in files:
                store.remove(file)
            if files:
                store.forget_empty([(file.series, file.symbol) for file in files])
            gone += store.sweep()
    run.show_value(
        view,
        PrunedHistory.model_validate(
            {"files": len(found), "bytes": size, "leftovers": gone, "dry_run": run.options.dry_run}
        ),
    )


def sql(
    run: Run,
    query: Annotated[str, typer.Argument(metavar="SELECT", help="Over the tables bars, trades and quotes.")],
) -> None:
    """Query what is kept with DuckDB: one SELECT.

    Columns of bars: symbol, timestamp, open, high, low, close, volume, trade_count, vwap, market, feed, adjustment and
    timeframe.
    """
    from pydantic import Field, create_model

    from alpacli.domain.values import to_json
    from alpacli.history.sql import select
    from alpacli.render.machine import parse
    from alpacli.render.tables import plain

    if run.options.schema:
        raise UsageError("the columns of a query are its own", "look at one row: --json … limit 1")
    with ended_at_once():
        answer = select(_store(run).root, query)
        rows = [
            dict(zip(answer.columns, row, strict=True))
            for portion in answer.portions
            for row in map(_jsonable, portion)
        ]
    text = to_json(rows)
    fields: dict[str, Any] = {
        f"column_{place}": (Any, Field(None, alias=name)) for place, name in enumerate(answer.columns)
    }
    model: Any = create_model("Row", **fields)
    view = View(list[model], lambda _, frame: plain(parse(text), frame))
    run.printer.show(view, rows, text, None)


def _jsonable(row: tuple[Any, ...]) -> list[Any]:
    return [_plain(value) for value in row]


def _plain(value: Any) -> Any:
    if isinstance(value, dt.datetime):
        text = (value if value.tzinfo else value.replace(tzinfo=dt.UTC)).astimezone(dt.UTC).isoformat()
        return text.replace("+00:00", "Z")
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no such numbers
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if value is None or isinstance(value, str | int | float) or hasattr(value, "as_tuple"):
        return value
    return str(value)


def _stores(run: Run) -> "list[BarStore]":
    """Return what is kept, and after it what is only there to be removed."""
    from alpacli.history.bar_store import BarStore
    from alpacli.runtime import kept_folders

    return [BarStore(folder) for folder in kept_folders(run.settings())]


def _store(run: Run) -> "BarStore":
    return _stores(run)[0]


def _files(store: "BarStore", symbols: list[str] | None) -> "Iterator[KeptFile]":
    wanted = {check_symbol(part) for text in symbols or () for part in text.split(",") if part.strip()}
    return (file for file in store.files() if not wanted or file.symbol in wanted)


def _end(until_ns: int) -> int:
    """Return the end as it was asked for: what is covered reaches a nanosecond beyond an end that was included.

    Nobody asks for one: clocks and people tell microseconds at the finest.
    """
    return until_ns - 1 if until_ns % 1000 == 1 else until_ns


def _is_older(run: Run, text: str | None) -> "Callable[[KeptFile], bool]":
    """Return what tells whether a file was downloaded so long ago; hours by when it was written, the rest by its date."""
    if text is None:
        return lambda _: True
    matched = _AGE.fullmatch(text.strip().lower())
    if matched is None:
        raise UsageError(f"--older-than is {text!r}", "write 12h, 90d, 12w, 6mo or 2y")
    now, count = run.clock.time(), int(matched[1])
    if matched[2] == "h":
        return lambda file: _written_at(file) < now - count * 3600
    today = dt.datetime.fromtimestamp(now, dt.UTC).date()
    before = (today - dt.timedelta(count * _DAYS[matched[2]])).isoformat()
    return lambda file: file.as_of < before


def _written_at(file: "KeptFile") -> float:
    try:
        return os.stat(file.path).st_mtime
    except FileNotFoundError:
        return math.inf  # pruned by another process
