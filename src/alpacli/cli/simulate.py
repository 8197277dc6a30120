"""The commands that look after the offline exchange. They need no keys, and ``--sim`` is implied."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from alpacli.cli.failures import say
from alpacli.cli.options import option
from alpacli.cli.output import View
from alpacli.cli.run import Run
from alpacli.domain.values import Amount, Model
from alpacli.errors import UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from alpacli.render.grid import Cell
    from alpacli.render.text import Frame
    from alpacli.settings import Settings
    from alpacli.sim.exchange import SimStatus


class SimAccount(Model):
    label: str
    account_number: str
    equity: Amount
    positions: int
    orders: int


class Sim(Model):
    """What ``sim status`` and ``sim reset`` answer."""

    path: str
    seed: int
    hours: str
    cash: Amount
    rate_limit: int
    latency_ms: int
    slippage_bps: Amount
    reject_rate: Amount
    is_open: bool
    timestamp: str
    accounts: list[SimAccount]


class Demo(Model):
    """What ``demo`` answers; ``created`` is false when the account had orders already and was left alone."""

    created: bool
    account_number: str
    positions: int
    orders: int


def demo(run: Run) -> None:
    """Give the offline account positions and orders to look at.

    When it has orders already, the exchange is emptied first, if you agree: every account goes, the market stays as it is.
    """
    view = run.promised(View(Demo, _demo_table), of_change=True)
    from alpacli.sim.demo import seed_demo
    from alpacli.sim.exchange import LOCAL_KEY_ID, Exchange

    settings = _settings(run)
    exchange = Exchange(settings.state_dir, run.clock)
    try:
        state = exchange.status()
        before = _mine(state, LOCAL_KEY_ID)
        plan = [_loss(state)] if before.orders else []
        plan.append("give its account the demo's positions and orders")
        if run.options.dry_run:
            run.printer.notice(f"this would {'; '.join(plan)}")
            run.show_value(view, before.as_demo(created=False))
            return
        if before.orders:
            run.confirm(plan)
            exchange.empty()
        created = seed_demo(exchange, LOCAL_KEY_ID)
        after = _mine(exchange.status(), LOCAL_KEY_ID)
    finally:
        exchange.close()
    _forget_cached(run)
    run.show_change(
        view,
        Demo(created=created, account_number=after.account_number, positions=after.positions, orders=after.orders),
        "the demo is there",
    )


def status(run: Run) -> None:
    """Show what the offline exchange holds."""
    view = run.promised(View(Sim, _sim_table))
    from alpacli.sim import upkeep

    run.show_value(view, _report(upkeep.status(_settings(run).state_dir, run.clock)))


def reset(
    run: Run,
    seed: Annotated[int | None, option("Another market.", metavar="N")] = None,
    hours: Annotated[
        Literal["always", "xnys"] | None, option("When the market is open.", metavar="always|xnys")
    ] = None,
    cash: Annotated[str | None, option("What accounts begin with.", metavar="USD")] = None,
    rate_limit: Annotated[
        int | None, typer.Option(metavar="N", help="Requests per minute; 0 is no limit.", min=0, show_default=False)
    ] = None,
    latency_ms: Annotated[int, typer.Option(metavar="MS", help="What every order takes longer.", min=0)] = 0,
    slippage_bps: Annotated[
        str, typer.Option(metavar="N", help="Basis points that orders without a limit do worse.")
    ] = "0",
    reject_rate: Annotated[str, typer.Option(metavar="N", help="Share of orders the venue refuses, 0 to 1.")] = "0",
) -> None:
    """Begin again with an empty exchange: accounts, positions and orders go."""
    view = run.promised(View(Sim, _sim_table), of_change=True)
    from alpacli.domain.values import exact
    from alpacli.sim import upkeep
    from alpacli.sim.desk import Strain

    try:
        amount = None if cash is None else exact(cash)
    except ValueError as error:
        raise UsageError(f"--cash is {cash!r}", "give an amount in USD, like 25000") from error
    try:
        strain = Strain(latency_ms * 1_000_000, exact(slippage_bps), exact(reject_rate))
    except ValueError as error:
        raise UsageError("--slippage-bps and --reject-rate are numbers", "like 2.5 and 0.01") from error
    settings = _settings(run)
    if run.options.dry_run:
        before = upkeep.status(settings.state_dir, run.clock)
        run.printer.notice(f"this would {_loss(before)}")
        run.show_value(view, _report(before))
        return
    run.confirm([f"empty the offline exchange in {settings.state_dir}: every account, its positions and its orders"])
    after = upkeep.reset(
        settings.state_dir,
        run.clock,
        lambda exchange: exchange.reset(seed=seed, hours=hours, cash=amount, rate_limit=rate_limit, strain=strain),
    )
    _forget_cached(run)
    run.show_change(view, _report(after), "the offline exchange was emptied")


def serve(
    run: Run,
    port: Annotated[int, typer.Option(metavar="N", help="Port; 0 takes a free one.", min=0, max=65535)] = 8765,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="A loopback address.")] = "127.0.0.1",
    connection_limit: Annotated[
        int, typer.Option(metavar="N", help="Streams per account and feed, like Alpaca's 1; 0 is no limit.", min=0)
    ] = 0,
    symbol_limit: Annotated[
        int, typer.Option(metavar="N", help="Symbols per stream, like Alpaca's 30; 0 is no limit.", min=0)
    ] = 0,
    fault: Annotated[
        list[str] | None,
        option(
            "Let streams fail, like drop,after=5: reject, refuse, slow, drop, mute, delay, duplicate, reorder, garbage "
            "or future.",
            metavar="KIND[,NAME=VALUE…]",
        ),
    ] = None,
    clock: Annotated[  # noqa: FBT002 # a flag
        bool, option("Time stands still until POST /sim/clock moves it.", "--clock")
    ] = False,
) -> None:
    """Serve the offline exchange over HTTP and WebSocket, until Ctrl-C.

    Any Alpaca client can use it: point its base URL here; every key pair is an account of its own. What should go wrong can
    be changed at run time: POST, GET and DELETE /sim/faults.
    """
    from alpacli.sim.faults import fault_from_words
    from alpacli.sim.server import serve as serve_http
    from alpacli.sim.sockets import Limits

    settings = _settings(run)

    def ready(url: str) -> None:
        run.printer.write(f"{url}\n".encode())
        if not run.options.quiet:
            say(
                f"alpacli: the offline exchange answers at {url}, with any key pair. For another shell:\n{exports(url)}"
            )

    serve_http(
        settings.state_dir,
        run.clock,
        host=host,
        port=port,
        ready=ready,
        access_log=run.options.verbose,
        limits=Limits(connection_limit, symbol_limit),
        faults=[fault_from_words(words) for words in fault or ()],
        stepped=clock,
    )


def exports(url: str) -> str:
    """Return the lines that point whatever a shell starts at a server: trading, market data and streams alike."""
    urls = {"BASE": url, "DATA": url, "STREAM": url.replace("http", "ws", 1)}
    lines = "".join(f"  export ALPACA_{name}_URL={address}\n" for name, address in urls.items())
    return f"{lines}  export ALPACA_API_KEY=any ALPACA_SECRET_KEY=any\n"


def _settings(run: Run) -> "Settings":
    run.options = run.options._replace(sim=True)
    return run.settings()


def _forget_cached(run: Run) -> None:
    """Drop what the cache knows of the account that has just been replaced."""
    with run.client() as client:
        client.invalidate_cache()


def _loss(state: "SimStatus") -> str:
    """Say what emptying the exchange loses."""
    orders, held = sum(a.orders for a in state.accounts), sum(a.positions for a in state.accounts)
    who = ", ".join(f"{a.account_number} ({a.label})" for a in state.accounts)
    return f"empty the offline exchange of {held} positions and {orders} orders in {who or 'no account'}"


class _Mine(Model):
    account_number: str
    positions: int
    orders: int

    def as_demo(self, *, created: bool) -> Demo:
        return Demo(created=created, **self.model_dump())


def _mine(state: "SimStatus", key_id: str) -> _Mine:
    for found in state.accounts:
        if found.label == key_id:
            return _Mine(account_number=found.account_number, positions=found.positions, orders=found.orders)
    return _Mine(account_number="", positions=0, orders=0)


def _report(state: "SimStatus") -> Sim:
    from alpacli.sim.answers import timestamp

    return Sim(
        path=state.path,
        seed=state.seed,
        hours=state.hours,
        cash=state.cash,
        rate_limit=state.rate_limit,
        latency_ms=state.strain.latency_ns // 1_000_000,
        slippage_bps=state.strain.slippage_bps,
        reject_rate=state.strain.reject_rate,
        is_open=state.is_open,
        timestamp=timestamp(state.now_ns),
        accounts=[
            SimAccount(
                label=a.label, account_number=a.account_number, equity=a.equity, positions=a.positions, orders=a.orders
            )
            for a in state.accounts
        ],
    )


def _sim_table(value: Sim, frame: "Frame") -> "RenderableType":
    from rich.console import Group
    from rich.text import Text

    from alpacli.domain.values import Timestamp
    from alpacli.render.grid import Column, facts, grid, number, page
    from alpacli.render.text import moment, money, words

    pairs: list[tuple[str, Cell]] = [
        ("State", words(value.path)),
        ("Market", f"seed {value.seed}, hours {value.hours}, {'open' if value.is_open else 'closed'}"),
        ("Exchange time", moment(Timestamp.parse(value.timestamp), frame)),
        ("Starting cash", money(value.cash)),
        ("Rate limit", f"{value.rate_limit:,} a minute" if value.rate_limit else "none"),
    ]
    if not value.accounts:
        return page(Group(facts(pairs), Text("No accounts yet.")), frame)
    columns = [Column("Account"), Column("Key", 1), number("Equity"), number("Positions"), number("Orders")]
    rows: list[list[Cell]] = [
        [words(a.account_number), words(a.label), money(a.equity), str(a.positions), str(a.orders)]
        for a in value.accounts
    ]
    return page(Group(facts(pairs), Text(), grid(columns, rows, frame)), frame)


def _demo_table(value: Demo, frame: "Frame") -> "RenderableType":
    from rich.text import Text

    from alpacli.render.grid import page

    text = Text(
        f"Account {value.account_number} has {value.positions} positions and {value.orders} orders. Look at it:\n"
    )
    for example in ("account", "positions", "orders", "portfolio --period 1M"):
        text.append(f"  alpacli {example} --sim\n", style="bold")
    return page(text, frame)
