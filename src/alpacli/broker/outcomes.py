"""What order entry tells, and what it needs to be told: previews, unresolved orders, closings, the halt, the journal."""

from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple, Protocol

from alpacli.domain.orders import Order
from alpacli.domain.tickets import OrderTicket
from alpacli.domain.values import MaybeAmount, Model, plain
from alpacli.errors import AlpacliError, OrderRejected


class OrderExecutor(Protocol):
    """Whoever can carry out orders. Errors: ``OrderRefused`` and ``FateUnknown``, and what every request can raise."""

    def place(self, ticket: OrderTicket) -> Order:
        """Send an order once, and return it as the broker has it."""

    def replace(self, order_id: str, changes: Mapping[str, Any]) -> Order:
        """Change fields of an open order by Alpaca's names; return the new order that takes its place."""

    def cancel(self, order_id: str) -> None:
        """Ask for the cancellation of one order; it may still fill before that is done."""

    def close(self, symbol: str, *, qty: Decimal | None = None, percent: Decimal | None = None) -> Order:
        """Close a position at the market, or ``qty`` shares or ``percent`` (more than 0, at most 100) of it."""


class Halted(Protocol):
    """Since when, why and by whom trading is halted."""

    @property
    def at(self) -> float: ...
    @property
    def reason(self) -> str: ...
    @property
    def by(self) -> str: ...


class HaltState(Model):
    """Whether trading is halted, since when (RFC 3339, UTC), why, and by whom."""

    halted: bool
    since: str | None = None
    reason: str | None = None
    by: str | None = None


def halt_state(halt: Halted | None) -> HaltState:
    if halt is None:
        return HaltState(halted=False)
    since = datetime.fromtimestamp(halt.at, UTC).isoformat().replace("+00:00", "Z")
    return HaltState(halted=True, since=since, reason=halt.reason or None, by=halt.by or None)


class Record(Protocol):
    """The journal, as far as orders need it."""

    def append(self, record: Mapping[str, Any], allowed: Callable[[], None] | None = None) -> int: ...

    def records(self) -> Iterator[dict[str, Any]]: ...

    def since(self, at: float) -> list[dict[str, Any]]: ...


class Who(NamedTuple):
    """Who acts, for the journal."""

    user: str
    host: str
    pid: int
    program: str


acting_for: Final[ContextVar[str | None]] = ContextVar("acting_for", default=None)
"""The client of a gateway whose request is being carried out, by the name of its token; for the journal."""


class Preview(Model):
    """An order that was not sent: the exact request, what it would cost and what would be left, in USD."""

    dry_run: bool
    method: str
    url: str
    body: dict[str, Any] | None
    estimated_cost: MaybeAmount = None
    buying_power: MaybeAmount = None
    buying_power_left: MaybeAmount = None
    warnings: tuple[str, ...] = ()


class Unresolved(Model):
    """An order whose answer got lost, and what the broker says of it now.

    ``outcome`` is ``placed`` (``order`` shows it), ``not placed``, ``in flight`` (its process still runs) or ``unknown``;
    ``error`` says why the broker could not be asked, or that another order has the client order ID.
    """

    client_order_id: str
    action: str
    sent_at: str
    outcome: str
    request: dict[str, Any]
    order: Order | None = None
    error: dict[str, Any] | None = None


class Closing(Model):
    """What became of closing one position: ``status`` 200 and the order, or the error. Source: DELETE /v2/positions, 207."""

    symbol: str
    status: int
    body: Any = None


OnClosing = Callable[[str, Closing | None], None]
"""Told the symbol of a position and what became of closing it; ``None``: nothing yet."""


def nothing_left(ticket: OrderTicket, refusal: OrderRejected) -> OrderRejected:
    """Return what to say when the order that closes a position is refused: that it was closed before, if that is why."""
    if "intent mismatch" not in refusal.message:
        return refusal
    told = OrderRejected(
        f"nothing is left to close: the position in {ticket.symbol} was closed meanwhile ({refusal.message})",
        "`alpacli positions --refresh` shows what is held",
        status=refusal.status,
        code=refusal.code,
        request_id=refusal.request_id,
        details=refusal.details,
    )
    told.body = refusal.body
    return told


def not_canceled(order: Order, error: AlpacliError) -> AlpacliError:
    """Return what to say of an order that is not canceled although that was asked for."""
    told = {"status": error.status, "code": error.code, "request_id": error.request_id}
    if not order.is_terminal:
        if isinstance(error, OrderRejected):
            return error
        return type(error)(
            f"the order is {order.status}, and whether its cancellation is on its way is unknown: {error.message}",
            f"`alpacli order {order.id} --refresh` shows it; canceling once more does no harm",
            **told,  # type: ignore[arg-type] # each of its own type
        )
    filled = f", {plain(order.filled_qty)} filled" if order.filled_qty else ""
    price = f" at {order.filled_avg_price}" if filled and order.filled_avg_price is not None else ""
    if order.status == "filled":
        message = f"the order was filled before it could be canceled{filled}{price}"
        hint = f"`alpacli close {order.symbol or 'SYMBOL'}` closes the position"
    elif order.status == "replaced":
        message = f"the order was replaced by {order.replaced_by}, which stands"
        hint = f"`alpacli cancel {order.replaced_by}`"
    else:
        message, hint = f"the order had ended: it is {order.status}{filled}{price}", "there is nothing left to cancel"
    return OrderRejected(message, hint, **told)  # type: ignore[arg-type] # each of its own type
