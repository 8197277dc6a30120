"""The commands that read the account and the market. Each is a declaration and a table."""

from datetime import datetime, timedelta
from typing import Annotated, Any

import typer

from alpacli.broker.flow import Reading
from alpacli.cli.options import option
from alpacli.cli.order_names import find_order
from alpacli.cli.output import View
from alpacli.cli.run import Run
from alpacli.cli.times import day, instant
from alpacli.domain.account import Account, Activity, PortfolioHistory, Position
from alpacli.domain.market import Asset, CalendarDay, MarketClock
from alpacli.domain.orders import Order
from alpacli.domain.symbols import spelled
from alpacli.domain.values import to_json
from alpacli.errors import NotFound, UsageError
from alpacli.wire import rest

_CALENDAR_DAYS = 14

Symbols = Annotated[list[str] | None, typer.Argument(metavar="SYMBOL", show_default=False)]


def account(run: Run) -> None:
    """Show balances, buying power and the day's gain."""
    run.show(View(Account, "account"), lambda client: run.read(client, rest.account()))


def positions(run: Run, symbols: Symbols = None) -> None:
    """Show open positions, all or the named ones."""
    wanted = {_symbol(symbol): spelled(symbol) for symbol in symbols or ()}

    def fetch(client: Any) -> Any:
        reading = run.read(client, rest.positions())
        if not wanted:
            return reading
        held = {_symbol(position.symbol): position for position in reading.value}
        missing = [said for symbol, said in wanted.items() if symbol not in held]
        if missing:
            known = f"held: {', '.join(sorted(held))}" if held else "the account holds nothing"
            raise NotFound(f"there is no open position in {', '.join(missing)}", known)
        chosen = [held[symbol] for symbol in wanted]
        return reading._replace(value=chosen, json=to_json(chosen))

    run.show(View(list[Position], "positions"), fetch)


def orders(
    run: Run,
    status: Annotated[str, typer.Option(metavar="open|closed|all", help="Which orders.")] = "all",
    limit: Annotated[str, typer.Option(metavar="N|all", help="How many.")] = "100",
    after: Annotated[str | None, option("Submitted after this date or time.", metavar="TIME")] = None,
    until: Annotated[str | None, option("Submitted before this date or time.", metavar="TIME")] = None,
    direction: Annotated[str, typer.Option(metavar="desc|asc", help="Newest or oldest first.")] = "desc",
    symbols: Annotated[str | None, option("Only these symbols.", metavar="A,B")] = None,
    side: Annotated[str | None, option("Only this side.", metavar="buy|sell")] = None,
    nested: Annotated[bool, typer.Option("--nested", help="Show legs inside their parents.")] = False,  # noqa: FBT002 # a flag
    unresolved: Annotated[  # noqa: FBT002 # a flag
        bool, typer.Option("--unresolved", help="Find out about orders whose answer was lost.")
    ] = False,
) -> None:
    """Show orders, open and done."""
    if unresolved:
        from alpacli.cli.following import show_unresolved

        show_unresolved(run)
        return
    call = rest.orders(
        status=status,
        limit=row_limit(limit),
        after=instant(run, "after", after),
        until=instant(run, "until", until),
        direction=direction,
        symbols=split(symbols),
        side=side,
        nested=nested,
    )
    run.show(View(list[Order], "orders"), lambda client: run.read(client, call))


def order(
    run: Run,
    order_id: Annotated[str, typer.Argument(metavar="ID", help="Alpaca's ID, or your client order ID.")],
    follow: Annotated[  # noqa: FBT002 # a flag
        bool, typer.Option("--follow", help="Go on until it is done; exit code 0 when it was filled, else 4.")
    ] = False,
) -> None:
    """Show one order by its ID, with its legs."""
    if follow and not run.options.schema:
        from alpacli.cli.following import follow_order

        follow_order(run, order_id)
        return
    run.show(View(Order, "order"), lambda client: find_order(order_id, lambda call: run.read(client, call)))


def clock(run: Run) -> None:
    """Show whether the market is open."""
    run.show(View(MarketClock, "clock"), lambda client: run.read(client, rest.clock()))


def calendar(
    run: Run,
    start: Annotated[str | None, option("First day (today).", metavar="DATE")] = None,
    end: Annotated[str | None, option("Last day (14 days on).", metavar="DATE")] = None,
) -> None:
    """Show trading days and their hours."""
    first, last = day(run, "start", start), day(run, "end", end)

    def fetch(client: Any) -> Any:
        """Read the days; which day it is the exchange says, where that matters."""
        from alpacli.history.archive import new_york_day

        since = first
        if since is None:
            now = run.read(client, rest.clock()).value.timestamp
            today = datetime.fromordinal(new_york_day(now.epoch_ns)).date()
            since = min(today, last) if last else today
        return run.read(client, rest.calendar(start=since, end=last or since + timedelta(days=_CALENDAR_DAYS)))

    run.show(View(list[CalendarDay], "calendar"), fetch)


def assets(
    run: Run,
    symbols: Symbols = None,
    status: Annotated[str, typer.Option(metavar="active|inactive|all", help="Which assets.")] = "active",
    asset_class: Annotated[str | None, option("us_equity, us_option, crypto.", "--class", metavar="CLASS")] = None,
    exchange: Annotated[str | None, option("NYSE, NASDAQ, …", metavar="NAME")] = None,
    attributes: Annotated[str | None, option("Only with these.", metavar="A,B")] = None,
) -> None:
    """Show what can be traded: all of it, or the named symbols."""
    call = rest.assets(
        status=None if status.lower() == "all" else status,
        asset_class=asset_class,
        exchange=exchange,
        attributes=split(attributes),
    )

    def fetch(client: Any) -> Any:
        if not symbols:
            return run.read(client, call)
        readings = [run.read(client, rest.asset(symbol)) for symbol in symbols]
        chosen = [reading.value for reading in readings]
        ages = [reading.age_s for reading in readings if reading.age_s is not None]
        return Reading(chosen, to_json(chosen), max(ages, default=None))

    run.show(View(list[Asset], "assets"), fetch)


def activities(
    run: Run,
    types: Annotated[str | None, option("FILL, DIV, FEE, …", "--type", metavar="A,B")] = None,
    category: Annotated[str | None, option("trade_activity, non_trade_activity.", metavar="NAME")] = None,
    date: Annotated[str | None, option("Only this day, like 2026-01-31.", metavar="DATE")] = None,
    after: Annotated[str | None, option("After this date or time.", metavar="TIME")] = None,
    until: Annotated[str | None, option("Before this date or time.", metavar="TIME")] = None,
    direction: Annotated[str, typer.Option(metavar="desc|asc", help="Newest or oldest first.")] = "desc",
    limit: Annotated[str, typer.Option(metavar="N|all", help="How many.")] = "100",
) -> None:
    """Show fills, dividends, fees and transfers."""
    call = rest.activities(
        activity_types=split(types),
        category=category,
        day=day(run, "date", date),
        after=instant(run, "after", after),
        until=instant(run, "until", until),
        direction=direction,
        limit=row_limit(limit),
    )
    run.show(View(list[Activity], "activities"), lambda client: run.read(client, call))


def portfolio(
    run: Run,
    period: Annotated[str | None, option("How far back.", metavar="1D|1W|1M|1A")] = None,
    timeframe: Annotated[str | None, option("Step.", metavar="1Min|5Min|15Min|1H|1D")] = None,
    start: Annotated[str | None, option("From this date or time.", metavar="TIME")] = None,
    end: Annotated[str | None, option("To this date or time.", metavar="TIME")] = None,
    intraday_reporting: Annotated[
        str | None, option("market_hours, extended_hours, continuous.", metavar="HOURS")
    ] = None,
    pnl_reset: Annotated[str | None, option("per_day, no_reset.", metavar="RULE")] = None,
    cashflow_types: Annotated[str | None, option("ALL, NONE, or activity types.", metavar="A,B")] = None,
) -> None:
    """Draw the equity curve and show its numbers."""
    call = rest.portfolio_history(
        period=period,
        timeframe=timeframe,
        start=instant(run, "start", start),
        end=instant(run, "end", end),
        intraday_reporting=intraday_reporting,
        pnl_reset=pnl_reset,
        cashflow_types=split(cashflow_types),
    )
    run.show(View(PortfolioHistory, _chart, rows=_points), lambda client: run.read(client, call))


def _chart(value: PortfolioHistory, frame: Any) -> Any:
    from alpacli.render.charts import portfolio as draw

    return draw(value, frame)


def _points(tree: dict[str, Any]) -> list[dict[str, Any]]:
    """Turn Alpaca's columns into rows."""
    names = ("timestamp", "equity", "profit_loss", "profit_loss_pct")
    return [dict(zip(names, row, strict=True)) for row in zip(*(tree[name] for name in names), strict=True)]


def _symbol(text: str) -> str:
    return spelled(text).replace("/", "")


def split(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def row_limit(text: str) -> int | None:
    if text.lower() == "all":
        return None
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise UsageError(f"--limit is {text!r}", "give a number of rows of at least 1, or all")
    return int(text)
