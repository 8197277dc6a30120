"""``sim replay``: a past day served as an exchange, and what came of it."""

from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from alpacli.cli.failures import say
from alpacli.cli.options import option, read_speed
from alpacli.cli.output import View
from alpacli.cli.run import Run
from alpacli.cli.simulate import exports
from alpacli.domain.values import Amount, Model
from alpacli.errors import UsageError

if TYPE_CHECKING:
    from datetime import tzinfo

    from rich.console import RenderableType

    from alpacli.render.grid import Cell
    from alpacli.render.text import Frame
    from alpacli.sim.replay import Result


class ReplayAccount(Model):
    """What one account came to; ``orders`` counts by status."""

    label: str
    orders: dict[str, int]
    fills: int
    equity: Amount
    profit_loss: Amount


class Replayed(Model):
    """What ``sim replay`` answers when the data ends, or when it is stopped before (``complete`` is false)."""

    start: str
    end: str
    complete: bool
    accounts: list[ReplayAccount]


def replay(
    run: Run,
    files: Annotated[list[str], typer.Argument(metavar="FILE…", help="Files or directories.", show_default=False)],
    speed: Annotated[
        str,
        typer.Option(metavar="N|max", help="How many times as fast as real time; max: as fast as its clients follow."),
    ] = "max",
    clock: Annotated[  # noqa: FBT002 # a flag
        bool, option("Time stands still until POST /sim/clock moves it.", "--clock")
    ] = False,
    exit_at_end: Annotated[  # noqa: FBT002 # a flag
        bool, option("End when the data does.", "--exit-at-end")
    ] = False,
    symbol: Annotated[str | None, option("The symbol of files that name none.", metavar="SYMBOL")] = None,
    timeframe: Annotated[str | None, option("How long a bar is, where it cannot be seen.", metavar="1Min")] = None,
    tz: Annotated[str, typer.Option(metavar="ZONE", help="The zone of times that name none.")] = "ET",
    since: Annotated[str | None, option("Begin here; what is earlier is history.", "--from", metavar="TIME")] = None,
    until: Annotated[str | None, option("End here.", "--until", metavar="TIME")] = None,
    hours: Annotated[
        Literal["always", "xnys"] | None, option("When the market is open.", metavar="always|xnys")
    ] = None,
    cash: Annotated[str, typer.Option(metavar="USD", help="What accounts begin with.")] = "100000",
    seed: Annotated[int, typer.Option(metavar="N", help="Chance: delays, and which fills come in parts.")] = 1,
    latency_ms: Annotated[int, typer.Option(metavar="MS", help="What every order takes longer.", min=0)] = 0,
    slippage_bps: Annotated[
        str, typer.Option(metavar="N", help="Basis points that orders without a limit do worse.")
    ] = "0",
    reject_rate: Annotated[str, typer.Option(metavar="N", help="Share of orders the venue refuses, 0 to 1.")] = "0",
    rate_limit: Annotated[
        int, typer.Option(metavar="N", help="Requests per minute of replayed time; 0 is no limit.", min=0)
    ] = 0,
    port: Annotated[int, typer.Option(metavar="N", help="Port; 0 takes a free one.", min=0, max=65535)] = 8765,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="A loopback address.")] = "127.0.0.1",
) -> None:
    """Run the exchange on a past day: bars, trades and quotes from files.

    FILE is a recording of alpacli stream --record, CSV, or Parquet, gzipped or not, or a directory of them. A strategy that
    was written for Alpaca trades in it when its base URL points here: orders, history, data and trade updates, all at the
    time of the day that is replayed. Nothing is kept when it ends.
    """
    view = run.promised(View(Replayed, _table))
    from zoneinfo import ZoneInfo

    from alpacli.cli.times import zone_named
    from alpacli.sim.desk import Strain
    from alpacli.sim.reading import read
    from alpacli.sim.replay import assemble, serve_replay

    pace = read_speed(speed)
    if clock and speed != "max":
        raise UsageError("--clock and --speed both say how time goes", "give one of them")
    own_zone: tzinfo | None = None if tz == "ET" else zone_named(tz, ZoneInfo) or _local(run)
    strain = Strain(
        latency_ms * 1_000_000, _number("--slippage-bps", slippage_bps), _number("--reject-rate", reject_rate)
    )
    reading = read(files, symbol=symbol, zone=own_zone, width_ns=_width(timeframe))
    recording = assemble(
        reading,
        hours=hours,
        seed=seed,
        strain=strain,
        from_ns=_instant("--from", since),
        until_ns=_instant("--until", until),
    )
    for notice in recording.notices:
        run.printer.notice(notice)

    def ready(url: str) -> None:
        run.printer.write(f"{url}\n".encode())
        if not run.options.quiet:
            from alpacli.sim.answers import timestamp

            span = f"{timestamp(recording.begin_ns)} to {timestamp(recording.end_ns)}"
            say(
                f"alpacli: {span} is replayed at {url}: {recording.rows:,} rows of {len(recording.market.listings)} symbols."
                f" For another shell:\n{exports(url)}"
            )

    serve_replay(
        recording,
        run.clock,
        speed=pace,
        stepped=clock,
        exit_at_end=exit_at_end,
        host=host,
        port=port,
        cash=_number("--cash", cash),
        rate_limit=rate_limit,
        ready=ready,
        ended=lambda result: run.show_value(view, _report(result)),
        access_log=run.options.verbose,
    )


def _number(name: str, text: str) -> Decimal:
    from alpacli.domain.values import exact

    try:
        return exact(text)
    except ValueError as error:
        raise UsageError(f"{name} is {text!r}", "give a number") from error


def _width(timeframe: str | None) -> int | None:
    from alpacli.sim.answers import Refusal
    from alpacli.sim.data import parse_timeframe

    if timeframe is None:
        return None
    try:
        every, unit = parse_timeframe(timeframe)
    except Refusal:
        every, unit = 0, ""
    if unit not in ("Min", "Hour"):
        raise UsageError(f"--timeframe is {timeframe!r}", "like 1Min, 15Min or 1Hour; days are known by their dates")
    return every * (60 if unit == "Min" else 3600) * 1_000_000_000


def _instant(name: str, text: str | None) -> int | None:
    from alpacli.sim.answers import Refusal
    from alpacli.sim.call import parse_instant

    if text is None:
        return None
    try:
        return parse_instant(name, text)
    except Refusal as error:
        raise UsageError(f"{name} is {text!r}", "like 2024-01-02, or 2024-01-02T14:30:00Z") from error


def _local(run: Run) -> "tzinfo | None":
    from datetime import UTC, datetime

    return datetime.fromtimestamp(run.clock.time(), UTC).astimezone().tzinfo


def _report(result: "Result") -> Replayed:
    from alpacli.sim.answers import timestamp

    return Replayed(
        start=timestamp(result.begin_ns),
        end=timestamp(result.now_ns),
        complete=result.over,
        accounts=[
            ReplayAccount(label=a.label, orders=dict(a.orders), fills=a.fills, equity=a.equity, profit_loss=a.profit)
            for a in result.accounts
        ],
    )


def _table(value: Replayed, frame: "Frame") -> "RenderableType":
    from rich.console import Group
    from rich.text import Text

    from alpacli.domain.values import Timestamp
    from alpacli.render.grid import Column, facts, grid, number, page
    from alpacli.render.text import moment, money, words

    pairs: list[tuple[str, Cell]] = [
        ("From", moment(Timestamp.parse(value.start), frame)),
        ("To", moment(Timestamp.parse(value.end), frame)),
        ("Data", "to their end" if value.complete else "stopped before their end"),
    ]
    if not value.accounts:
        return page(Group(facts(pairs), Text("Nobody came.")), frame)
    columns = [Column("Key"), Column("Orders", 1), number("Fills"), number("Equity"), number("P&L")]
    rows: list[list[Cell]] = [
        [
            words(a.label),
            words(", ".join(f"{count} {status}" for status, count in a.orders.items()) or "none"),
            f"{a.fills:,}",
            money(a.equity),
            money(a.profit_loss),
        ]
        for a in value.accounts
    ]
    return page(Group(facts(pairs), Text(), grid(columns, rows, frame)), frame)
