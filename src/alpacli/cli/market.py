"""The commands that read market history and latest prices: bars, trades, quotes, quote, news."""

import datetime as dt
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from alpacli.cli.options import option
from alpacli.cli.output import View
from alpacli.cli.run import Run
from alpacli.cli.times import instant, moment_ns
from alpacli.domain.series import Kind, Timeframe, check_symbol, market_of
from alpacli.errors import NotFound, UsageError

Symbols = Annotated[list[str], typer.Argument(metavar="SYMBOL", help="AAPL, BTC/USD, AAPL260116C00150000 …")]
Start = Annotated[str | None, option("From: 2026-01-05, '2026-01-05 09:30' (New York), -5d, -90min.", metavar="TIME")]
End = Annotated[str | None, option("To, included (now); a date is its end.", metavar="TIME")]
Feed = Annotated[str | None, option("sip, iex, otc, boats; the best the plan has.", metavar="NAME")]
Limit = Annotated[str | None, option("At most N rows a symbol; without --start the last N.", metavar="N")]
Format = Annotated[str | None, option("table, tsv, csv, json, jsonl, parquet, arrow.", "--format", metavar="NAME")]
Output = Annotated[str | None, option("Write here, when it is whole.", "--output", "-o", metavar="FILE")]
Store = Annotated[bool, typer.Option("--store/--no-store", help="Keep what is downloaded, and use what is kept.")]

_DEFAULT_START = {"Min": "today", "Hour": "-7d", "Day": "-6mo", "Week": "-2y", "Month": "-10y"}


def bars(
    run: Run,
    symbols: Symbols,
    start: Start = None,
    end: End = None,
    timeframe: Annotated[
        str, typer.Option(metavar="LENGTH", help="1Min, 15Min, 1Hour, 1Day, 1Week, 1Month …")
    ] = "1Min",
    feed: Feed = None,
    adjustment: Annotated[str, typer.Option(metavar="NAME", help="raw, split, dividend, spin-off, all.")] = "raw",
    limit: Limit = None,
    format_: Format = None,
    output: Output = None,
    chart: Annotated[bool, typer.Option("--chart", help="Draw candles.")] = False,  # noqa: FBT002 # a flag
    store: Store = True,  # noqa: FBT002 # a flag
) -> None:
    """Download bars: exact, of every market, and never twice.

    What was downloaded is kept on this machine, and only what is missing is asked for (see `alpacli data`). Ctrl-C loses
    nothing: the same command goes on where it stopped.
    """
    step = Timeframe.parse(timeframe)
    if start is None and limit is None:
        start = _DEFAULT_START[step.unit]
    asked = _Asked("bars", symbols, start, end, feed, limit, format_, output, store=store)
    asked.extra = {"timeframe": str(step), "adjustment": adjustment}
    asked.chart = chart
    if not step.within_a_day and any(market_of(symbol) == "crypto" for symbol in asked.symbols):
        asked.days = dt.UTC  # there a coin's day begins, and a stock's, at midnight in New York, within the same date
    _history(run, asked)


def _ticks(kind: Kind, help_: str) -> Callable[..., None]:
    def download(
        run: Run,
        symbols: Symbols,
        start: Start = None,
        end: End = None,
        feed: Feed = None,
        limit: Limit = None,
        format_: Format = None,
        output: Output = None,
        store: Store = True,  # noqa: FBT002 # a flag
    ) -> None:
        _history(run, _Asked(kind, symbols, _begin(start, limit), end, feed, limit, format_, output, store=store))

    download.__name__, download.__doc__ = kind, help_
    return download


trades = _ticks("trades", "Download trades as they were reported.")
quotes = _ticks("quotes", "Download quotes: every change of the best bid and offer.")


def _begin(start: str | None, limit: str | None) -> str | None:
    return "today" if start is None and limit is None else start


class _Asked:
    """What a command line asks for."""

    def __init__(
        self,
        kind: Kind,
        symbols: list[str],
        start: str | None,
        end: str | None,
        feed: str | None,
        limit: str | None,
        format_: str | None,
        output: str | None,
        *,
        store: bool,
    ) -> None:
        self.kind: Kind = kind
        self.symbols = [check_symbol(part) for symbol in symbols for part in symbol.split(",") if part.strip()]
        self.start = start
        self.end = end
        self.feed = None if feed is None else feed.lower()
        self.limit = _whole(limit)
        self.format = format_
        self.output = output
        self.store = store
        self.chart = False
        self.days: dt.tzinfo | None = None
        self.extra: dict[str, str] = {}


def _history(run: Run, asked: _Asked) -> None:
    if run.options.schema:
        from alpacli.domain import market as models

        model: Any = {
            "bars": models.HistoricalBar,
            "trades": models.HistoricalTrade,
            "quotes": models.HistoricalQuote,
        }[asked.kind]
        run.promised(View(list[model], "rows"))
    from alpacli.cli.export import ProgressBar, chosen_format, export

    name = "table" if asked.chart else chosen_format(run.printer, asked.format, asked.output)
    if asked.chart and (asked.output or asked.format or not run.printer.draws_tables):
        raise UsageError("--chart draws on a terminal", "leave --format and -o away; FORCE_COLOR=1 draws into a pipe")
    start_ns = None if asked.start is None else moment_ns(run, "start", asked.start, days=asked.days)
    end_ns = None if asked.end is None else moment_ns(run, "end", asked.end, ending=True, days=asked.days)
    shown = not run.options.quiet and (asked.output is not None or not run.printer.on_terminal or name == "table")
    with ProgressBar(run.clock, shown=shown) as bar, _market_data(run, asked, bar.waiting) as data:
        data.use_kept = not run.options.refresh
        data.patient = run.options.max_wait is None
        data.on_progress = lambda at: bar.update(at.done_ns, at.all_ns, at.rows)
        found = getattr(data, asked.kind)(
            asked.symbols, start=start_ns, end=end_ns, feed=asked.feed, limit=asked.limit, **asked.extra
        )
        for note in found.notes:
            run.printer.notice(note)
        try:
            if asked.chart:
                _chart(run, asked, iter(found), bar.close)
                return
            rows, symbols = export(run.printer, asked.kind, found, name, asked.output, bar.close)
        except KeyboardInterrupt:
            if asked.store and not run.options.sim:
                run.printer.notice("interrupted; what was downloaded is kept, the same command goes on from there")
            raise
    without = [symbol for symbol in asked.symbols if symbol not in symbols]
    if without:
        run.printer.notice(f"no {asked.kind} of {', '.join(without)} in that time; `alpacli assets` knows all symbols")
    if asked.output not in (None, "-"):
        run.printer.notice(f"{rows:,} rows in {asked.output}")


@contextmanager
def _market_data(run: Run, asked: _Asked, on_wait: Any) -> Iterator[Any]:
    from alpacli.runtime import open_client, open_market_data

    settings = run.settings()
    opened: list[Any] = []
    opening = threading.Lock()

    def read(call: Any) -> Any:
        with opening:  # not before there is something to ask: a client takes longer to load than kept bars to copy
            if not opened:
                opened.append(
                    open_client(settings, label=f"alpacli {asked.kind}", warn=run.printer.notice, on_wait=on_wait)
                )
        return opened[0].fetch(call)

    try:
        yield open_market_data(settings, read, run.printer.notice, keep=asked.store)
    finally:
        for client in opened:
            client.close()


def _chart(run: Run, asked: _Asked, batches: Iterator[Any], when_read: Callable[[], None]) -> None:
    from alpacli.render.history import Candles, chart

    found = {symbol: Candles(symbol) for symbol in asked.symbols}
    for batch in batches:
        found[batch.symbol].add(batch.table)
    when_read()
    run.printer.draw(chart(found.values(), run.printer.frame()))


def quote(
    run: Run,
    symbols: Symbols,
    feed: Annotated[
        str | None, option("sip, iex, delayed_sip, overnight …; the best the plan has.", metavar="NAME")
    ] = None,
) -> None:
    """Show the latest trade and quote, and the day's bar."""
    from alpacli.domain.market import Snapshot
    from alpacli.render.history import snapshots as draw
    from alpacli.wire import market

    wanted = list(dict.fromkeys(check_symbol(part) for text in symbols for part in text.split(",") if part.strip()))

    said: set[str] = set()

    def say(text: str) -> None:
        if text not in said:  # with --watch, once
            said.add(text)
            run.printer.notice(text)

    def fetch(client: Any) -> Any:
        from alpacli.broker.flow import Reading
        from alpacli.domain.values import to_json

        found: dict[str, Snapshot] = {}
        for name in dict.fromkeys(map(market_of, wanted)):
            here = [symbol for symbol in wanted if market_of(symbol) == name]
            chosen = feed
            if feed is None and name == "stocks":
                from alpacli.runtime import live_feed

                chosen = live_feed(run.settings(), client.fetch, here[0])
            if name == "stocks":
                say(f"stock prices come from the {chosen} feed")
            found |= {item.symbol: item for item in run.read(client, market.snapshots(here, feed=chosen)).value}
        missing = [symbol for symbol in wanted if symbol not in found]
        if missing and not found:
            raise NotFound(f"Alpaca has no prices of {', '.join(missing)}", "check the symbol with `alpacli assets`")
        if missing:
            say(f"no prices of {', '.join(missing)}")
        rows = [found[symbol] for symbol in wanted if symbol in found]
        return Reading(rows, to_json(rows), None)

    run.show(View(list[Snapshot], draw, rows=_flat), fetch)


def _flat(tree: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row a symbol, under the names that `alpacli stream` uses."""
    places = {
        "price": ("latestTrade", "p"),
        "size": ("latestTrade", "s"),
        "timestamp": ("latestTrade", "t"),
        "bid_price": ("latestQuote", "bp"),
        "bid_size": ("latestQuote", "bs"),
        "ask_price": ("latestQuote", "ap"),
        "ask_size": ("latestQuote", "as"),
        "open": ("dailyBar", "o"),
        "high": ("dailyBar", "h"),
        "low": ("dailyBar", "l"),
        "close": ("dailyBar", "c"),
        "volume": ("dailyBar", "v"),
        "vwap": ("dailyBar", "vw"),
        "previous_close": ("prevDailyBar", "c"),
    }
    return [
        {"symbol": row["symbol"], **{name: (row.get(part) or {}).get(key) for name, (part, key) in places.items()}}
        for row in tree
    ]


def news(
    run: Run,
    symbols: Annotated[list[str] | None, typer.Argument(metavar="SYMBOL", show_default=False)] = None,
    start: Start = None,
    end: End = None,
    limit: Annotated[str, typer.Option(metavar="N|all", help="How many.")] = "10",
    sort: Annotated[str, typer.Option(metavar="desc|asc", help="Newest or oldest first.")] = "desc",
    content: Annotated[bool, typer.Option("--content", help="With the articles' text (HTML).")] = False,  # noqa: FBT002 # a flag
) -> None:
    """Show headlines about symbols, or all."""
    from alpacli.domain.market import NewsArticle
    from alpacli.render.history import news as draw
    from alpacli.wire import market

    if sort not in ("desc", "asc"):
        raise UsageError(f"--sort is {sort!r}", "choose desc (newest first) or asc")
    call = market.news(
        [check_symbol(part) for text in symbols or () for part in text.split(",") if part.strip()],
        start=instant(run, "start", start),
        end=instant(run, "end", end, ending=True),
        limit=None if limit.lower() == "all" else _whole(limit),
        newest_first=sort == "desc",
        content=content,
    )
    run.show(View(list[NewsArticle], draw), lambda client: run.read(client, call))


def _whole(text: str | None) -> int | None:
    if text is None:
        return None
    digits = text.replace("_", "").replace(",", "")
    if not (digits.isascii() and digits.isdecimal() and int(digits) > 0):
        raise UsageError(f"--limit is {text!r}", "give a number of rows of at least 1")
    return int(digits)
