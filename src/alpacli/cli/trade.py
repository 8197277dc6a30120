"""The commands that trade: parse, one call of the client's desk, print."""

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alpacli.broker.outcomes import Closing, Preview
from alpacli.cli.cut_short import (
    canceling_all_interrupted,
    canceling_interrupted,
    cancellations_so_far,
    closing_interrupted,
    closings_so_far,
    told_if_interrupted,
)
from alpacli.cli.failures import Interrupted, on_its_way
from alpacli.cli.options import option
from alpacli.cli.order_names import act_on_order, find_order
from alpacli.cli.output import View
from alpacli.cli.previews import one, several, show_requests
from alpacli.cli.run import Run
from alpacli.domain.orders import Order
from alpacli.domain.symbols import spelled
from alpacli.domain.tickets import OrderTicket, amount, read_leg, read_ticket
from alpacli.domain.values import plain
from alpacli.errors import AlpacliError, OrderRefused, UsageError
from alpacli.wire import trading
from alpacli.wire.trading import Cancellation

if TYPE_CHECKING:
    from rich.console import RenderableType

    from alpacli.broker.client import AlpacaClient
    from alpacli.render.text import Frame

_ORDER = View(Order, "order")


Symbol = Annotated[str, typer.Argument(metavar="SYMBOL", help="AAPL, BTC/USD, or an option contract.")]
Qty = Annotated[str | None, typer.Argument(metavar="QTY", help="Shares, coins or contracts.", show_default=False)]
Limit = Annotated[str | None, option("Buy or sell at this price or better.", "--limit", metavar="PRICE")]
Stop = Annotated[str | None, option("Wait until the market reaches this price.", "--stop", metavar="PRICE")]
TrailPercent = Annotated[
    str | None, option("Follow the market at this distance, in percent.", "--trail-percent", metavar="N")
]
TrailPrice = Annotated[
    str | None, option("Follow the market at this distance, in USD.", "--trail-price", metavar="USD")
]
TakeProfit = Annotated[str | None, option("Then close at this price or better.", "--take-profit", metavar="PRICE")]
StopLoss = Annotated[
    str | None, option("Then close when the market reaches this price.", "--stop-loss", metavar="PRICE")
]
StopLossLimit = Annotated[
    str | None, option("Close at no worse than this price.", "--stop-loss-limit", metavar="PRICE")
]
Notional = Annotated[str | None, option("An amount of money instead of a quantity.", "--notional", metavar="USD")]
Tif = Annotated[str | None, option("How long it holds: day, gtc, opg, cls, ioc, fok.", "--tif", metavar="TIF")]
ClientOrderId = Annotated[
    str | None, option("Your own ID for it; one is made otherwise.", "--client-order-id", metavar="ID")
]
ExtendedHours = Annotated[bool, option("Also before 9:30 and after 16:00.", "--extended-hours")]


def _side(side: str, help_: str) -> Callable[..., None]:
    def enter(
        run: Run,
        symbol: Symbol,
        qty: Qty = None,
        limit: Limit = None,
        stop: Stop = None,
        trail_percent: TrailPercent = None,
        trail_price: TrailPrice = None,
        take_profit: TakeProfit = None,
        stop_loss: StopLoss = None,
        stop_loss_limit: StopLossLimit = None,
        notional: Notional = None,
        tif: Tif = None,
        extended_hours: ExtendedHours = False,  # noqa: FBT002 # a flag
        client_order_id: ClientOrderId = None,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("run", "side")}
        _enter(run, _ticket(side, given))

    enter.__name__, enter.__doc__ = side, help_
    return enter


buy = _side(
    "buy",
    """Buy: at the market, or with a limit, a stop, exits.

    With one exit (--take-profit or --stop-loss) it is an oto order, with two a bracket.

    Two ways out of a short position (the stop-loss above the take-profit, no other price) are an oco order.
    """,
)
sell = _side(
    "sell",
    """Sell what is held, or sell short.

    Two ways out of a position (--take-profit above --stop-loss, no other price) are an oco order.

    A short sale with one exit is an oto order, with two a bracket.
    """,
)


_NAMES = {"limit": "limit_price", "stop": "stop_price", "tif": "time_in_force"}


def _ticket(side: str, given: dict[str, Any]) -> OrderTicket:
    fields = {_NAMES.get(name, name): value for name, value in given.items() if value is not None}
    return read_ticket({**fields, "side": side})


def submit(
    run: Run,
    symbol: Annotated[str | None, option("What to trade.", "--symbol", metavar="SYMBOL")] = None,
    side: Annotated[str | None, option("buy or sell.", "--side", metavar="SIDE")] = None,
    qty: Annotated[str | None, option("Shares, coins or contracts.", "--qty", metavar="N")] = None,
    notional: Notional = None,
    type_: Annotated[
        str | None, option("market, limit, stop, stop_limit, trailing_stop.", "--type", metavar="TYPE")
    ] = None,
    tif: Annotated[str | None, option("day, gtc, opg, cls, ioc, fok.", "--tif", metavar="TIF")] = None,
    limit_price: Annotated[str | None, option("In USD.", "--limit-price", metavar="PRICE")] = None,
    stop_price: Annotated[str | None, option("In USD.", "--stop-price", metavar="PRICE")] = None,
    trail_price: TrailPrice = None,
    trail_percent: TrailPercent = None,
    order_class: Annotated[
        str | None, option("simple, bracket, oco, oto, mleg.", "--order-class", metavar="CLASS")
    ] = None,
    take_profit: TakeProfit = None,
    stop_loss: StopLoss = None,
    stop_loss_limit: StopLossLimit = None,
    extended_hours: ExtendedHours = False,  # noqa: FBT002 # a flag
    position_intent: Annotated[
        str | None, option("buy_to_open, sell_to_close, …", "--position-intent", metavar="INTENT")
    ] = None,
    leg: Annotated[
        list[str] | None, option("A leg of an option order; repeat it.", "--leg", metavar="SYMBOL:RATIO:INTENT")
    ] = None,
    advanced_instructions: Annotated[
        str | None, option("A JSON object.", "--advanced-instructions", metavar="JSON")
    ] = None,
    client_order_id: ClientOrderId = None,
    source: Annotated[
        str | None, option("Many orders: a JSON or CSV file, or - for standard input.", "--from", metavar="FILE")
    ] = None,
) -> None:
    """Place an order with any field of Alpaca's, or many from a file."""
    given = {name: value for name, value in locals().items() if name not in ("run", "source") and value}
    if source is not None:
        if given:
            raise UsageError("--from stands alone", "write every field of the orders into the file")
        from alpacli.cli.batch import submit_many

        submit_many(run, source)
        return
    fields = {{"tif": "time_in_force", "type_": "type"}.get(name, name): value for name, value in given.items()}
    if leg:
        fields["legs"] = [read_leg(text)._asdict() for text in leg]
        del fields["leg"]
    if advanced_instructions:
        fields["advanced_instructions"] = _json(advanced_instructions)
    _enter(run, read_ticket(fields))


def _json(text: str) -> Any:
    from alpacli.domain.values import from_json

    try:
        return from_json(text.encode())
    except ValueError as error:
        raise UsageError(
            f"--advanced-instructions is not JSON: {error}", 'write it like \'{"algorithm": "VWAP"}\''
        ) from None


def _enter(run: Run, ticket: OrderTicket) -> None:
    """Check everything, warn, place, print."""
    run.promised(_ORDER, of_change=True, dry=View(Preview, _preview))
    from alpacli.broker.sending import refuse
    from alpacli.domain.order_rules import violations

    refuse(violations(ticket))  # what no account could order is told without keys or a network
    with run.client() as client:
        if run.options.dry_run:
            preview = client.trading.preview(ticket, run.settings().base_url)
            run.show_value(View(Preview, _preview), preview)
            return
        warnings = client.trading.check(ticket)
        with told_if_interrupted(run.clock):
            order = client.trading.place(ticket)
        _show_placed(run, order, "placed", warnings)


def replace(
    run: Run,
    order_id: Annotated[str, typer.Argument(metavar="ID", help="Alpaca's ID, or your client order ID.")],
    qty: Annotated[str | None, option("The new quantity, filled shares included.", "--qty", metavar="N")] = None,
    limit: Annotated[str | None, option("The new limit price.", "--limit", metavar="PRICE")] = None,
    stop: Annotated[str | None, option("The new stop price.", "--stop", metavar="PRICE")] = None,
    trail: Annotated[
        str | None, option("The new distance, in USD or percent as before.", "--trail", metavar="N")
    ] = None,
    tif: Tif = None,
    client_order_id: ClientOrderId = None,
) -> None:
    """Change an open order; a new one takes its place."""
    amounts = {"qty": qty, "limit_price": limit, "stop_price": stop, "trail": trail}
    changes = {name: format(amount(name, text), "f") for name, text in amounts.items() if text is not None}
    changes |= {name: text for name, text in (("time_in_force", tif), ("client_order_id", client_order_id)) if text}
    run.promised(_ORDER, of_change=True, dry=View(Preview, _preview))
    trading.replace_order("unknown", changes)  # refuses what changes nothing before anything is asked
    with run.client() as client:

        def change(found: str) -> None:
            if run.options.dry_run:
                preview = client.trading.preview_replacement(found, changes, run.settings().base_url)
                run.show_value(View(Preview, _preview), preview)
                return
            warnings = client.trading.check_replacement(found, changes)
            with told_if_interrupted(run.clock):
                order = client.trading.replace(found, changes)
            _show_placed(run, order, "placed in its stead", warnings)

        act_on_order(client, order_id, change)


def cancel(
    run: Run,
    order_ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="ID", help="Alpaca's IDs, or your client order IDs.", show_default=False),
    ] = None,
    all_: Annotated[bool, option("Every open order.", "--all")] = False,  # noqa: FBT002 # a flag
) -> None:
    """Cancel orders, or all of them."""
    view = run.promised(View(list[Cancellation], _cancellations), of_change=True, dry=one() if all_ else several())
    if bool(order_ids) == all_:
        raise UsageError("which orders?", "give IDs, or --all for every open order")
    with run.client() as client:
        if all_:
            _cancel_all(run, client, view)
            return
        if run.options.dry_run:
            found = [find_order(text, client.read).value.id for text in order_ids or ()]
            show_requests(run, [trading.cancel_order(one).request for one in found], run.settings().base_url)
            return

        _cancel_each(run, client, view, order_ids or ())


def _cancel_each(run: Run, client: "AlpacaClient", view: View, ids: Sequence[str]) -> None:
    results: list[Cancellation] = []
    failures: list[AlpacliError] = []
    asked: set[int] = set()  # for which of them the exchange was asked: the rest was looked up at most

    def cancel_one(found: str) -> Cancellation:
        asked.add(len(results))
        client.trading.cancel(found)
        return Cancellation(id=found, status=200)

    def tell(_stop: KeyboardInterrupt) -> Interrupted:
        on_the_way = len(results) in asked
        if len(ids) > 1:
            _show_canceled(run, view, cancellations_so_far(results, ids, on_the_way=on_the_way))
        return canceling_interrupted(results, ids, on_the_way=on_the_way)

    with told_if_interrupted(run.clock, tell):
        for text in ids:
            try:
                results.append(act_on_order(client, text, cancel_one))
            except AlpacliError as error:
                if len(ids) == 1 or error.exit_code not in (4, 6):
                    raise
                failures.append(error)
                results.append(Cancellation(id=text, status=error.status or 500, body=error.as_dict()))
    _show_canceled(run, view, results)
    _end(failures, len(ids), "canceled")


def _cancel_all(run: Run, client: "AlpacaClient", view: View) -> None:
    if run.options.dry_run:
        run.preview(trading.cancel_all_orders())
        return

    def plan() -> list[str]:
        return [f"cancel {_told(order)}" for order in client.get_orders(status="open", limit=500, use_cache=False)]

    if not run.options.yes and not run.confirm_as_it_is(plan):
        run.show_value(view, [])
        return
    with told_if_interrupted(run.clock, canceling_all_interrupted):
        results = client.trading.cancel_all()
    _show_canceled(run, view, results)
    failed = [item for item in results if not 200 <= item.status < 300]
    if failed:
        raise OrderRefused(
            f"{len(failed)} of {len(results)} orders were not canceled", "`alpacli orders --status open`"
        )


def close(
    run: Run,
    symbol: Annotated[
        str | None, typer.Argument(metavar="SYMBOL", help="Of which position.", show_default=False)
    ] = None,
    qty: Annotated[str | None, option("Close this much of it.", "--qty", metavar="N")] = None,
    percent: Annotated[str | None, option("Close this share of it.", "--percent", metavar="N")] = None,
    all_: Annotated[bool, option("Every position.", "--all")] = False,  # noqa: FBT002 # a flag
    cancel_orders: Annotated[  # noqa: FBT002 # a flag
        bool, option("With --all: cancel open orders first.", "--cancel-orders")
    ] = False,
) -> None:
    """Close a position with a market order, or a part of it, or all positions."""
    dry = View(list[Preview], previews_table) if all_ else View(Preview, _preview)
    run.promised(View(list[Closing], _closings) if all_ else _ORDER, of_change=True, dry=dry)
    if (symbol is not None) == all_:
        raise UsageError("which position?", "give a symbol, or --all for every position")
    if all_ and (qty or percent):
        raise UsageError("--all closes whole positions", "leave --qty and --percent away")
    if cancel_orders and not all_:
        raise UsageError("--cancel-orders goes with --all", "cancel what holds the shares first: `alpacli cancel ID`")
    parts = (None if qty is None else amount("--qty", qty), None if percent is None else amount("--percent", percent))
    with run.client(functools.cache(run.printer.notice)) as client:  # what is asked, and asked again, is said once
        if symbol is None:
            _close_all(run, client, cancel_orders=cancel_orders)
            return
        name = spelled(symbol)
        if run.options.dry_run:
            ticket = client.trading.closing_ticket(name, *parts)
            run.show_value(View(Preview, _preview), client.trading.preview(ticket, run.settings().base_url))
            return

        def plan() -> list[str]:
            ticket = client.trading.closing_ticket(name, *parts)
            return [f"{ticket.side} {ticket.qty} {ticket.symbol} at the market"]

        run.confirm_as_it_is(plan)
        with told_if_interrupted(run.clock):
            order = client.trading.close(name, qty=parts[0], percent=parts[1])
        _show_placed(run, order, "placed")


_WHAT_HOLDS = (
    "`alpacli positions` shows what is left; --cancel-orders frees what open orders hold,"
    " and what covers short options can be closed once those are"
)


def _close_all(run: Run, client: "AlpacaClient", *, cancel_orders: bool) -> None:
    view = View(list[Closing], _closings)
    if run.options.dry_run:
        _preview_closings(run, client, cancel_orders=cancel_orders)
        return

    def plan() -> list[str]:
        found = client.get_positions(use_cache=False)
        sides = (("sell" if item.qty > 0 else "buy", item) for item in found)
        closings = [f"{side} {plain(abs(item.qty))} {item.symbol} at the market" for side, item in sides]
        waiting = client.get_orders(status="open", limit=500, use_cache=False) if cancel_orders else []
        return [*(f"cancel {_told(order)}" for order in waiting), *closings]

    if not run.confirm_as_it_is(plan):
        run.show_value(view, [])
        return
    came_to: dict[str, Closing | None] = {}

    def tell(stop: KeyboardInterrupt) -> Interrupted:
        its_id = on_its_way(stop)
        rows = closings_so_far(came_to, its_id)
        if rows:
            _show_closings(run, view, rows)
        return closing_interrupted(came_to, rows, its_id, cancel_orders=cancel_orders)

    with told_if_interrupted(run.clock, tell):
        try:
            results = client.trading.close_all(cancel_orders=cancel_orders, on_result=came_to.__setitem__)
        except AlpacliError as error:  # none of the others would fare better
            if any(came_to.values()):
                _show_closings(run, view, closings_so_far(came_to, None, error))
            raise
    _show_closings(run, view, results)
    failed = [item for item in results if item.status != 200]
    if failed:
        raise OrderRefused(
            f"{len(failed)} of {len(results)} positions were not closed: {', '.join(item.symbol for item in failed)}",
            _WHAT_HOLDS,
        )


def _preview_closings(run: Run, client: "AlpacaClient", *, cancel_orders: bool) -> None:
    from alpacli.broker.desk import MADE_WHEN_SENT

    base_url = run.settings().base_url
    held = client.get_positions(use_cache=False)
    tickets = [client.trading.closing_ticket(item.symbol) for item in held]
    previews, refused = [], []
    if cancel_orders:
        previews.append(Preview(dry_run=True, method="DELETE", url=f"{base_url}/v2/orders", body=None))
    for ticket in tickets:
        try:
            preview = client.trading.preview(ticket, base_url, holds=not cancel_orders)
        except OrderRefused as no:  # the others would be closed all the same
            refused.append(ticket.symbol or "")
            body = ticket.body(MADE_WHEN_SENT)
            url = f"{base_url}/v2/orders"
            preview = Preview(dry_run=True, method="POST", url=url, body=body, warnings=(no.message,))
        previews.append(preview)
    run.show_value(View(list[Preview], previews_table), previews)
    if refused:
        raise OrderRefused(
            f"{len(refused)} of {len(tickets)} positions would not be closed: {', '.join(refused)}", _WHAT_HOLDS
        )


def _show_closings(run: Run, view: View, results: list[Closing]) -> None:
    placed = [item.body for item in results if isinstance(item.body, Order)]
    run.show_change(
        view,
        results,
        f"{len(placed)} of {len(results)} positions are being closed: {', '.join(map(_named, placed)) or 'none'}",
        "`alpacli positions` and `alpacli orders` show what is left",
    )


def _show_placed(run: Run, order: Order, how: str, warnings: Sequence[str] = ()) -> None:
    """Print an order that Alpaca has, and what to know about it: nothing of one that it refused waits for anything."""
    for warning in warnings:
        run.printer.notice(warning)
    hint = f"do not send it again: `alpacli order {order.id}` shows it"
    run.show_change(_ORDER, order, f"the order was {how}: {_named(order)}", hint)


def _show_canceled(run: Run, view: View, results: list[Cancellation]) -> None:
    taken = [item.id for item in results if 200 <= item.status < 300]
    done = f"{len(taken)} of {len(results)} cancellations were taken: {', '.join(taken) or 'none'}"
    run.show_change(view, results, done, "`alpacli orders` shows what is open")


def _named(order: Order) -> str:
    return f"{_told(order)}, client order ID {order.client_order_id}"


def _told(order: Order) -> str:
    size = plain(order.qty) if order.qty is not None else f"{order.notional} USD of"
    at = f" at {order.limit_price}" if order.limit_price is not None else ""
    return f"{order.side} {size} {order.symbol or order.order_class}{at}, {order.status} ({order.id})"


def _end(failures: Sequence[AlpacliError], total: int, done: str) -> None:
    if failures:
        worst = max(failures, key=lambda error: error.exit_code)
        worst.message = f"{len(failures)} of {total} orders were not {done}: {worst.message}"
        raise worst


# ------------------------------------------------------------------------------------------------------- tables


def _preview(value: Preview, frame: "Frame") -> "RenderableType":
    from rich.text import Text

    from alpacli.domain.values import to_json
    from alpacli.render.grid import facts, page

    def dollars(number: Any) -> Text:
        return Text("unknown" if number is None else f"{number:,.2f} USD")

    return page(
        facts(
            [
                ("Not sent", Text(f"{value.method} {value.url}")),
                ("Body", Text("none" if value.body is None else to_json(value.body).decode())),
                ("Estimated cost", dollars(value.estimated_cost)),
                ("Buying power", dollars(value.buying_power)),
                ("Left after it", dollars(value.buying_power_left)),
                *(("Warning", Text(text, style="yellow")) for text in value.warnings),
            ]
        ),
        frame,
    )


def previews_table(value: list[Preview], frame: "Frame") -> "RenderableType":
    from rich.console import Group
    from rich.text import Text

    return Group(*(_preview(item, frame) for item in value)) if value else Text("No positions.")


def _cancellations(value: list[Cancellation], frame: "Frame") -> "RenderableType":
    return _results([(item.id, item.status, item.body) for item in value], "canceled", "No open orders.", frame)


def _closings(value: list[Closing], frame: "Frame") -> "RenderableType":
    rows = [(item.symbol, item.status, item.body if item.status != 200 else None) for item in value]
    return _results(rows, "closing order placed", "No positions.", frame)


def _results(rows: Sequence[tuple[str, int, Any]], done: str, nothing: str, frame: "Frame") -> "RenderableType":
    from rich.text import Text

    from alpacli.render.grid import Column, grid, page

    if not rows:
        return page(Text(nothing), frame)
    cells = [
        (name, Text(done if 200 <= status < 300 else str((body or {}).get("message", status))))
        for name, status, body in rows
    ]
    return page(
        grid([Column("Order" if done == "canceled" else "Symbol"), Column("Result", elastic=True)], cells, frame), frame
    )
