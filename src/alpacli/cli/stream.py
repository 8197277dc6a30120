"""``alpacli stream``: a live table on a terminal, one JSON object a line anywhere else."""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Final

import typer

from alpacli.cli.options import option, read_speed
from alpacli.cli.run import Run
from alpacli.errors import UsageError

if TYPE_CHECKING:
    from alpacli.domain.ticks import Interest
    from alpacli.streams.feeds import Feed

_WHAT: Final = "What to stream"
_HOW: Final = "The connection"
_WHERE: Final = "Where it goes"


_CHANNELS: Final = (
    *("trades", "quotes", "bars", "updatedBars", "dailyBars", "statuses", "lulds", "imbalances", "orderbooks", "news"),
)


def stream(
    run: Run,
    symbols: Annotated[list[str] | None, typer.Argument(metavar="SYMBOL", show_default=False)] = None,
    *,
    trades: Annotated[bool, option("Trades, with their corrections and cancels.", "--trades", panel=_WHAT)] = False,
    quotes: Annotated[bool, option("Best bid and ask.", "--quotes", panel=_WHAT)] = False,
    bars: Annotated[bool, option("Minute bars.", "--bars", panel=_WHAT)] = False,
    updated_bars: Annotated[
        bool, option("Minute bars again, when trades came late.", "--updated-bars", panel=_WHAT)
    ] = False,
    daily_bars: Annotated[bool, option("The day so far, every minute.", "--daily-bars", panel=_WHAT)] = False,
    statuses: Annotated[bool, option("Halts and resumptions.", "--statuses", panel=_WHAT)] = False,
    lulds: Annotated[bool, option("Limit-up limit-down bands.", "--lulds", panel=_WHAT)] = False,
    imbalances: Annotated[bool, option("Order imbalances.", "--imbalances", panel=_WHAT)] = False,
    orderbooks: Annotated[bool, option("Order books of coins.", "--orderbooks", panel=_WHAT)] = False,
    news: Annotated[bool, option("News about the symbols, or all news.", "--news", panel=_WHAT)] = False,
    updates: Annotated[bool, option("What happens to your own orders.", "--updates", panel=_WHAT)] = False,
    all_symbols: Annotated[bool, option("Every symbol of the feed.", "--all-symbols", panel=_WHAT)] = False,
    feed: Annotated[
        str | None,
        option(
            "iex (default), sip, delayed_sip, test, crypto, options, opra, news …",
            "--feed",
            metavar="FEED",
            panel=_WHAT,
        ),
    ] = None,
    count: Annotated[int | None, option("End after N messages.", "--count", metavar="N", panel=_WHERE)] = None,
    duration: Annotated[
        float | None,
        option("End this long after the confirmed subscription.", "--duration", metavar="SECONDS", panel=_WHERE),
    ] = None,
    execute: Annotated[
        str | None,
        option(
            "With --updates: run this for each, the JSON on its standard input.",
            "--exec",
            metavar="COMMAND",
            panel=_WHERE,
        ),
    ] = None,
    record: Annotated[
        str | None, option("Append everything to this file too.", "--record", metavar="FILE", panel=_WHERE)
    ] = None,
    replay: Annotated[
        str | None, option("Play a recording instead of connecting.", "--replay", metavar="FILE", panel=_WHERE)
    ] = None,
    speed: Annotated[
        str | None, option("Play N times as fast as it came.", "--speed", metavar="N|max", panel=_WHERE)
    ] = None,
    buffer: Annotated[
        int,
        option(
            "Let N messages wait for a slow reader (200000); then only the latest quotes.",
            "--buffer",
            metavar="N",
            panel=_WHERE,
        ),
    ] = 200_000,
    no_conflate: Annotated[
        bool, option("End with an error instead of leaving out quotes.", "--no-conflate", panel=_WHERE)
    ] = False,
    reconnect: Annotated[
        str | None, option("Try N times in a row to reconnect (5).", "--reconnect", metavar="N|forever", panel=_HOW)
    ] = None,
    stale_after: Annotated[
        float,
        option("Replace a connection that is silent for so long (30).", "--stale-after", metavar="SECONDS", panel=_HOW),
    ] = 30.0,
    backfill: Annotated[
        bool, option("Fetch the trades and bars of a gap over REST.", "--backfill", panel=_HOW)
    ] = False,
    no_hub: Annotated[bool, option("Share no connection with other streams.", "--no-hub", panel=_HOW)] = False,
) -> None:
    """Watch trades and quotes as they happen.

    On a terminal a table with the latest of each symbol (keys: q quits, a adds, d removes, arrows select, s sorts, p pauses);
    in a pipe or with --json one JSON object a line. Any number of streams share one connection to Alpaca. Lines on
    standard input like {"action": "subscribe", "symbols": ["GOOGL"]} change the subscription.
    """
    if run.options.schema:
        from alpacli.streams.batch import schema

        run.printer.write((json.dumps(schema(), indent=2 if run.printer.on_terminal else None) + "\n").encode())
        return
    flags = (trades, quotes, bars, updated_bars, daily_bars, statuses, lulds, imbalances, orderbooks, news)
    chosen = [name for name, wanted in zip(_CHANNELS, flags, strict=True) if wanted]
    if speed is not None and replay is None:
        raise UsageError("--speed without --replay", "it sets how fast a recording is played")
    named = split_symbols(symbols or ())
    found, interest = choose(named, chosen, feed, updates=updates, all_symbols=all_symbols, replay=replay is not None)
    from alpacli.cli.stream_lines import check_fields

    check_fields(run.options, interest)
    if execute is not None and found.name != "updates":
        raise UsageError("--exec without --updates", "a command is run for each update of your own orders")
    if backfill and found.name == "updates":
        raise UsageError(
            "--backfill with --updates", "Alpaca keeps no updates; `alpacli orders` tells what became of orders"
        )
    messages, duration_s = _at_least("--count", count, 1), _seconds("--duration", duration)
    factor, most = 1.0 if speed is None else read_speed(speed), _at_least("--buffer", buffer, 1) or buffer
    attempts, stale_after_s = _reconnect(reconnect), _seconds("--stale-after", stale_after) or 30.0
    words: list[str] | None = None
    if execute is not None:
        from alpacli.cli.stream_exec import command_words

        words = command_words(execute)
    if not no_hub and replay is None:
        from alpacli.live import start_sharing

        start_sharing(run.settings(), found)
    from alpacli.cli.streaming import Plan, run_stream

    run_stream(
        run,
        Plan(
            feed=found,
            interest=interest,
            symbols=named or ["*"],
            messages=messages,
            duration_s=duration_s,
            execute=words,
            record=record,
            replay=replay,
            speed=factor,
            buffer=most,
            conflate=not no_conflate,
            reconnect=attempts,
            stale_after_s=stale_after_s,
            backfill=backfill,
            hub=not no_hub,
        ),
    )


def split_symbols(texts: Iterable[str]) -> list[str]:
    """Return the symbols in their order, each once; ``AAPL,MSFT`` is two."""
    from alpacli.domain.symbols import spelled

    symbols = (spelled(symbol) for text in texts for symbol in text.split(","))
    return list(dict.fromkeys(symbol for symbol in symbols if symbol))


def choose(
    symbols: list[str],
    channels: list[str],
    feed_name: str | None,
    *,
    updates: bool = False,
    all_symbols: bool = False,
    replay: bool = False,
) -> "tuple[Feed, Interest]":
    """Return the feed and what to ask of it; the symbols tell the feed where none is named.

    Raises:
        UsageError: the combination makes no sense.
    """
    from alpacli.domain.series import check_symbol
    from alpacli.domain.ticks import Interest
    from alpacli.streams.feeds import check_interest, find_feed

    symbols = split_symbols(symbols)
    if updates or feed_name == "updates":
        if symbols or channels or all_symbols or feed_name not in (None, "updates"):
            raise UsageError(
                "--updates streams your own orders and nothing else", "run a second stream for market data"
            )
        return find_feed("updates"), Interest({"trade_updates": ["*"]})
    if all_symbols and symbols:
        raise UsageError("--all-symbols and symbols", "choose one")
    feed = find_feed(feed_name or _feed_of(symbols, channels))
    symbols = [symbol if symbol == "*" else check_symbol(symbol) for symbol in symbols]
    if (all_symbols or channels == ["news"]) and not symbols:
        symbols = ["*"]
    if replay and not symbols:
        return feed, Interest({name: ["*"] for name in channels})
    if not symbols and feed.name == "news":
        symbols = ["*"]
    if not symbols:
        raise UsageError("no symbols given", "name some, like `alpacli stream AAPL MSFT`, or use --all-symbols")
    interest = Interest(dict.fromkeys(channels or feed.default, symbols))
    if not replay:
        check_interest(feed, interest)
    return feed, interest


def _feed_of(symbols: list[str], channels: list[str]) -> str:
    if channels == ["news"]:
        return "news"
    from alpacli.domain.series import market_of

    kinds = {"iex" if market_of(symbol) == "stocks" else market_of(symbol) for symbol in symbols}
    if len(kinds) > 1:
        raise UsageError(
            f"these symbols are on different feeds ({', '.join(sorted(kinds))})",
            "run one stream for each kind of symbol",
        )
    return kinds.pop() if kinds else "crypto" if channels == ["orderbooks"] else "iex"


def _reconnect(text: str | None) -> int | None:
    if text is None:
        return 5
    if text == "forever":
        return None
    if not text.isascii() or not text.isdecimal() or len(text) > 6:
        raise UsageError(f"--reconnect is {text!r}", "give a number of attempts, or forever")
    return int(text)


def _at_least(name: str, value: int | None, least: int) -> int | None:
    if value is not None and value < least:
        raise UsageError(f"{name} is {value}", f"give a whole number of at least {least}")
    return value


def _seconds(name: str, value: float | None) -> float | None:
    if value is not None and not 0 < value < 1e9:
        raise UsageError(f"{name} is {value:g}", "give a number of seconds above 0")
    return value
