"""Many orders from a file: read everything, check everything, then place one after the other, with a result for each."""

import csv
import hashlib
import io
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

from alpacli.broker.outcomes import Preview
from alpacli.broker.sending import TAKEN, already_taken, refuse
from alpacli.cli.failures import Interrupted, ctrl_c_heard_once, on_its_way, wind_up
from alpacli.cli.output import View
from alpacli.cli.run import Run
from alpacli.domain.identity import difference
from alpacli.domain.order_rules import violations
from alpacli.domain.orders import Order
from alpacli.domain.tickets import OrderTicket, read_ticket
from alpacli.domain.values import MaybeAmount, Model, from_json, plain
from alpacli.errors import AlpacliError, FateUnknown, OrderRefused, OrderRejected, UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from alpacli.render.text import Frame

NEW_YORK: Final = ZoneInfo("America/New_York")
_OVER: Final = ("canceled", "expired", "rejected")


class Placed(Model):
    """What became of one order of a file: ``placed``, ``placed before``, ``refused``, ``unknown`` or ``not sent``.

    ``ended before``: it was placed before, and then canceled, expired or rejected.
    """

    line: int
    symbol: str | None
    side: str | None
    qty: MaybeAmount = None
    outcome: str
    client_order_id: str
    order: Order | None = None
    error: dict[str, Any] | None = None


def submit_many(run: Run, source: str) -> None:
    """Place every order of a JSON array, JSON lines or CSV file; nothing is sent when one of them cannot be right.

    An order without a client order ID gets one made of what it says, how often that was said before it, and the day in New
    York. So a file that is sent again on the same day places only what is missing, also when lines of it were corrected,
    added or moved.

    Raises:
        UsageError, OrderRefused: the file or an order in it is wrong; nothing was sent.
        AlpacliError: some orders were not placed, or Ctrl-C was pressed; the results were printed.
    """
    view = View(list[Placed], _table)
    run.promised(view, of_change=True, dry=View(list[Preview], ""))
    content = _content(source)
    tickets = list(_tickets(content, f"alpacli-{datetime.fromtimestamp(run.clock.time(), NEW_YORK):%Y%m%d}"))
    if not tickets:
        name = "standard input" if source == "-" else source
        raise UsageError(f"{name} holds no orders", "a JSON array, JSON lines, or CSV with a header")
    with run.client() as client:
        if run.options.dry_run:
            from alpacli.cli.trade import previews_table

            base_url = run.settings().base_url
            each = [(ticket, client.trading.preview(ticket, base_url)) for _, ticket in tickets]
            run.show_value(View(list[Preview], previews_table), list(_one_after_the_other(each)))
            return
        with ctrl_c_heard_once(run.clock):
            results, failures, stop = _place_each(run, client, tickets)
    before = sum(item.outcome == "placed before" for item in results)
    placed = sum(item.outcome == "placed" for item in results)
    came_to = f"{placed} of {len(tickets)} orders were placed" + (f", {before} had been already" if before else "")
    on_the_book = [item for item in results if item.outcome not in {"refused", "not sent"}]
    run.show_change(
        view,
        results,
        came_to
        + "".join(
            f"; line {item.line}: {item.outcome}, client order ID {item.client_order_id}" for item in on_the_book
        ),
        "the same file sent again today places none of them twice; `alpacli orders` shows them",
    )
    if before:
        run.printer.notice(
            f"{before} of {len(tickets)} orders had been placed already and are left as they are; to place one once more,"
            " give it a client_order_id of its own"
        )
    if stop is not None:
        raise _interrupted(results, came_to, stop) from stop
    if failures:
        worst = max(failures, key=lambda error: error.exit_code)
        worst.message = f"{came_to}; {worst.message}"
        if (placed or before) and worst.exit_code == 4:  # what one line's refusal says of itself is not true of all
            worst.hint = "correct the lines that were refused, and run it again: what was placed is not placed twice"
        raise worst


def _one_after_the_other(each: Iterable[tuple[OrderTicket, Preview]]) -> Iterator[Preview]:
    """Return the previews with the buying power that the orders before them leave; warn where it is not enough.

    What stocks, options and coins are bought with is told apart, as Alpaca does, so an order takes only from its own kind.
    """
    taken: dict[str, Decimal] = {}
    for ticket, alone in each:
        kind, power, left = ticket.asset_class, alone.buying_power, alone.buying_power_left
        if power is None:
            yield alone
            continue
        there = power - taken.get(kind, Decimal(0))
        if left is None:
            yield alone.model_copy(update={"buying_power": there})
            continue
        needed = power - left
        taken[kind] = taken.get(kind, Decimal(0)) + needed
        warnings = alone.warnings
        if needed > there:
            warnings += (f"it takes ${needed:,.2f}, and the orders before it leave ${max(there, Decimal(0)):,.2f}",)
        yield alone.model_copy(
            update={"buying_power": there, "buying_power_left": there - needed, "warnings": warnings}
        )


def _place_each(
    run: Run, client: Any, tickets: list[tuple[int, OrderTicket]]
) -> tuple[list[Placed], list[AlpacliError], KeyboardInterrupt | None]:
    """Place one after the other until Ctrl-C, or until the rest would fail alike; an order on its way then is ``unknown``."""
    results: list[Placed] = []
    failures: list[AlpacliError] = []
    try:
        for line, ticket in _with_progress(run, tickets):
            result, failure = _place(client, line, ticket)
            results.append(result)
            if failure is not None:
                failures.append(failure)
                if failure.exit_code not in (4, 7):
                    break  # no keys, no network
    except KeyboardInterrupt as stop:
        wind_up()
        if on_its_way(stop) is not None:
            results.append(_row(*tickets[len(results)], "unknown"))
        return results, failures, stop
    return results, failures, None


def _interrupted(results: list[Placed], came_to: str, stop: KeyboardInterrupt) -> Interrupted:
    its_id = on_its_way(stop)
    unknown = [item.client_order_id for item in results if item.outcome == "unknown"]
    where = "" if its_id is None else f" while order {results[-1].line} was on its way"
    again = "the same file sent again today places only what is missing"
    if unknown:
        again = f"`alpacli orders --unresolved` tells what became of {', '.join(unknown)}; {again}"
    return Interrupted(f"interrupted{where}; {came_to}", again, its_id or "", unknown)


def _place(client: Any, line: int, ticket: OrderTicket) -> tuple[Placed, AlpacliError | None]:
    order, failure, outcome = None, None, "placed"
    try:
        order = client.trading.place(ticket)
    except AlpacliError as error:
        failure = error
        outcome = "unknown" if isinstance(error, FateUnknown) else "refused" if error.exit_code == 4 else "not sent"
        if isinstance(error, OrderRejected) and error.code == TAKEN and "unique" in error.message:
            order, outcome, failure = _before(client, ticket, error)
    return _row(line, ticket, outcome, order, failure), failure


def _row(
    line: int, ticket: OrderTicket, outcome: str, order: Order | None = None, failure: AlpacliError | None = None
) -> Placed:
    return Placed(
        line=line,
        symbol=ticket.symbol,
        side=ticket.side,
        qty=ticket.qty,
        outcome=outcome,
        client_order_id=ticket.client_order_id or "",
        order=order,
        error=failure.as_dict() if failure else None,
    )


def _before(client: Any, ticket: OrderTicket, refusal: OrderRejected) -> tuple[Order | None, str, AlpacliError | None]:
    """Return the order that has the client order ID already, what to call it, and what is wrong with it, if anything is.

    Where it cannot be looked up, this one may be on the book. Whoever is told that it was refused might correct it, and the
    corrected one, under an ID of its own, would be a second order.
    """
    client_order_id = ticket.client_order_id or ""
    try:
        order = client.get_order_by_client_order_id(client_order_id, use_cache=False)
    except AlpacliError as error:
        unknown = FateUnknown(
            f"client order ID {client_order_id} is taken, and the order that has it cannot be looked up: {error.message}",
            "send the same lines again later: what was placed is not placed twice",
        )
        unknown.client_order_id = client_order_id
        return None, "unknown", unknown
    how = difference("POST", "/v2/orders", ticket.body(client_order_id), order)
    if how is not None:
        return None, "refused", already_taken(order, how)
    if order.status not in _OVER:
        return order, "placed before", None
    filled = f", {plain(order.filled_qty)} filled" if order.filled_qty else ""
    ended = OrderRejected(
        f"it was placed before and is {order.status}{filled}",
        "to place it once more, give it a client_order_id of its own",
        status=refusal.status,
        code=refusal.code,
        request_id=refusal.request_id,
    )
    return order, "ended before", ended


def _content(source: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except OSError as error:
        raise UsageError(
            f"cannot read {source}: {error.strerror}", "give a file of orders, or - for standard input"
        ) from None


def _tickets(content: bytes, day: str) -> Iterator[tuple[int, OrderTicket]]:
    seen: dict[str, int] = {}
    alike: Counter[str] = Counter()
    for line, fields in _rows(content):
        try:
            ticket = read_ticket(fields)
            if ticket.client_order_id is None:
                same = _digest(ticket)
                alike[same] += 1
                ticket = ticket._replace(client_order_id=f"{day}-{same}-{alike[same]}")
            refuse(violations(ticket))
        except (UsageError, OrderRefused) as error:
            error.message, error.hint = f"order {line}: {error.message}", f"{error.hint}; nothing was sent"
            raise
        name = ticket.client_order_id or ""
        if name in seen:
            raise UsageError(
                f"orders {seen[name]} and {line} have the same client order ID, {name}",
                "give each its own, or none; nothing was sent",
            )
        seen[name] = line
        yield line, ticket


def _digest(ticket: OrderTicket) -> str:
    """Return a short name of what an order says; ``1.00`` says the same as ``1``."""
    shortest: dict[str, Any] = {
        name: value.normalize() for name, value in ticket._asdict().items() if isinstance(value, Decimal)
    }
    legs = tuple(leg._replace(ratio_qty=leg.ratio_qty.normalize()) for leg in ticket.legs)
    said = json.dumps(ticket._replace(**shortest, legs=legs).body(""), sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def _rows(content: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    """Return the orders of a JSON array, of JSON lines, or of CSV with a header, numbered from 1."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError("the orders are not UTF-8 text", "save the file as UTF-8") from None
    try:
        rows = _parsed(text)
    except (ValueError, csv.Error) as error:
        raise UsageError(
            f"the orders cannot be read: {error}", "a JSON array, JSON lines, or CSV with a header"
        ) from None
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict) or None in row:
            raise UsageError(f"order {number} has not the shape of an order", "one object or row for each order")
        yield number, {name.strip(): _cell(value) for name, value in row.items()}


def _parsed(text: str) -> Iterable[Any]:
    start = text.lstrip()[:1]
    if start == "[":
        found: Iterable[Any] = from_json(text.encode(), each_once=True)
        return found
    if start == "{":
        lines = [line.encode() for line in text.splitlines() if line.strip()]
        try:
            from_json(lines[0])
        except ValueError:
            lines = [text.encode()]  # one order, over several lines
        return [from_json(line, each_once=True) for line in lines]
    reader = csv.reader(io.StringIO(text), strict=True)
    header = [name.strip().lower() for name in next(reader, [])]
    double = next((name for name in header if header.count(name) > 1), None)
    if double is not None:
        raise ValueError(f"there are two columns {double!r}")
    rows: list[Any] = []
    for row in reader:
        if row:
            extra = {None: row[len(header) :]} if len(row) > len(header) else {}
            rows.append(dict(zip(header, row, strict=False)) | extra)
    return rows


def _cell(value: Any) -> Any:
    """Return a value; a CSV cell that holds a JSON list or object (legs) is read as that."""
    if isinstance(value, str) and value[:1] in ("[", "{"):
        try:
            return from_json(value.encode(), each_once=True)
        except ValueError:
            return value
    return value


def _with_progress(run: Run, tickets: list[tuple[int, OrderTicket]]) -> Iterable[tuple[int, OrderTicket]]:
    if run.options.quiet or not sys.stderr.isatty():
        return tickets
    from rich.console import Console
    from rich.progress import track

    return track(tickets, "placing orders", console=Console(stderr=True))


def _table(value: list[Placed], frame: "Frame") -> "RenderableType":
    from alpacli.render.grid import Column, listing, number
    from alpacli.render.text import words

    return listing(
        value,
        [
            (Column("Line"), lambda item: str(item.line)),
            (Column("Symbol"), lambda item: words(item.symbol)),
            (Column("Side"), lambda item: words(item.side)),
            (number("Qty"), lambda item: "" if item.qty is None else f"{item.qty}"),
            (Column("Result"), lambda item: words(_result(item))),
            (Column("ID", 5), lambda item: words(item.order.id if item.order else item.client_order_id)),
        ],
        frame,
        empty="No orders.",
    )


def _result(item: Placed) -> str:
    return item.outcome if item.error is None else f"{item.outcome}: {item.error['message']}"
