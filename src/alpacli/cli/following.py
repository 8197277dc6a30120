"""What becomes of orders: one followed until it is done, and those whose answer was lost."""

from typing import TYPE_CHECKING

from alpacli.broker.outcomes import Unresolved
from alpacli.cli.output import View
from alpacli.cli.run import Run
from alpacli.domain.orders import Order
from alpacli.errors import AlpacliError, BudgetExhausted, CircuitOpen, FateUnknown
from alpacli.wire import rest

if TYPE_CHECKING:
    from rich.console import RenderableType

    from alpacli.render.text import Frame
    from alpacli.wire.rest import Call

_LOOK_EVERY_S = 1.0


def follow_order(run: Run, call: "Call[Order]") -> None:
    """Print an order whenever its status or what is filled of it changes, until it is done; follow its replacements.

    As JSON each state is one object; in other formats the states are notices and the last one is the data.
    """
    seen = None
    as_json = run.options.json or run.options.jq is not None
    view = View(Order, "order")
    with run.client() as client:
        while True:
            try:
                reading = client.read(call, use_cache=False)
            except AlpacliError as error:
                if not error.retryable and not isinstance(error, BudgetExhausted | CircuitOpen):
                    raise
                run.printer.notice(f"{error.message}; trying again")
                run.clock.sleep(error.retry_after or _LOOK_EVERY_S)
                continue
            order = reading.value
            state = (order.id, order.status, order.filled_qty)
            if state != seen:
                seen = state
                if as_json:
                    run.printer.show(view, order, reading.json, None)
                else:
                    of = f" of {order.qty}" if order.qty is not None else ""
                    run.printer.notice(f"{order.status}, {order.filled_qty or 0}{of} filled")
            if order.status == "replaced" and order.replaced_by:
                call = rest.order(order.replaced_by, nested=True)
                continue
            if order.is_terminal:
                if not as_json:
                    run.printer.show(view, order, reading.json, None)
                return
            run.clock.sleep(_LOOK_EVERY_S)


def show_unresolved(run: Run) -> None:
    """Ask the broker about every order whose answer was lost, and print what it says.

    Raises:
        FateUnknown: of some of them nobody can say yet.
    """
    view = View(list[Unresolved], _table)
    if run.options.schema:
        run.printer.schema(view)
        return
    with run.client() as client:
        found = client.trading.unresolved()
    run.show_value(view, found)
    open_ones = [item for item in found if item.outcome == "unknown"]
    if open_ones:
        raise FateUnknown(
            f"of {len(open_ones)} order{'s' * (len(open_ones) > 1)} it is not certain yet that they will not arrive",
            "ask again in two minutes",
        )


def _table(value: list[Unresolved], frame: "Frame") -> "RenderableType":
    from rich.text import Text

    from alpacli.render.grid import Column, grid, page
    from alpacli.render.text import words

    if not value:
        return page(Text("Every order that was sent from here has its answer."), frame)
    columns = [
        *(Column("Sent (UTC)"), Column("Action", 3), Column("Outcome"), Column("Order status", 2)),
        *(Column("Client order ID"), Column("ID", 5)),
    ]
    rows = [
        (
            item.sent_at[:19].replace("T", " "),
            words(item.action),
            words(item.outcome),
            words(item.order.status if item.order else None),
            words(item.client_order_id),
            words(item.order.id if item.order else None),
        )
        for item in value
    ]
    return page(grid(columns, rows, frame), frame)
