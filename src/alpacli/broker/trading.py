"""The blocking twin of ``async_trading``, made from it by ``make blocking``: change that one, not this."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from alpacli.broker.desk import Desk
from alpacli.broker.drivers import Run
from alpacli.broker.outcomes import Closing, OnClosing, Preview, Unresolved
from alpacli.domain.orders import Order
from alpacli.domain.replacing import read_changes
from alpacli.domain.tickets import OrderTicket
from alpacli.wire.trading import Cancellation


class Trading:
    """Order entry of the blocking client; an ``OrderExecutor``."""

    def __init__(self, desk: Desk, run: Run) -> None:
        self._desk = desk
        self._run = run

    def place(self, ticket: OrderTicket) -> Order:
        """Check an order, record it, send it exactly once, and return it as the broker has it.

        Raises:
            UsageError: it is no order yet: it lacks something, or says a word that orders do not have; nothing was sent.
            OrderRefused: a rule says no; nothing was sent.
            OrderRejected: the broker says no; also where another order has the client order ID.
            FateUnknown: it was sent, and nobody can say what became of it; ``unresolved`` finds out later.
        """
        return self._run(self._desk.place(ticket))

    def check(self, ticket: OrderTicket) -> tuple[str, ...]:
        """Hold an order against Alpaca's rules, the account and the market; return warnings, or raise ``OrderRefused``."""
        return self._run(self._desk.check(ticket))

    def preview(self, ticket: OrderTicket, base_url: str = "", *, holds: bool = True) -> Preview:
        """Check an order against every rule, the account and the market; send nothing.

        ``holds=False`` takes open orders as canceled: they hold no shares then.
        """
        return self._run(self._desk.preview(ticket, base_url, holds=holds))

    def check_replacement(self, order_id: str, changes: Mapping[str, Any]) -> tuple[str, ...]:
        """Hold a change of an open order against Alpaca's rules; return warnings, or raise ``OrderRefused``.

        ``changes`` are those of ``replace``.
        """
        return self._run(self._desk.check_replacement(order_id, read_changes(changes)))

    def preview_replacement(self, order_id: str, changes: Mapping[str, Any], base_url: str = "") -> Preview:
        """Check a change of an open order against every rule; send nothing. ``changes`` are those of ``replace``."""
        return self._run(self._desk.preview_replacement(order_id, read_changes(changes), base_url))

    def replace(self, order_id: str, changes: Mapping[str, Any]) -> Order:
        """Change an open order; return the new one, which takes its place.

        ``changes`` may have ``qty`` (what is filled included), ``limit_price``, ``stop_price``, ``trail`` (USD or percent as
        before), ``time_in_force``, ``client_order_id`` and ``advanced_instructions`` (an object, sent as it is); amounts are
        whole numbers, ``Decimal`` or text.

        Raises:
            UsageError: another field, an amount that is a float or no number, or nothing to change; nothing was sent.
            OrderRefused: a rule of your own says no; nothing was sent.
            OrderRejected: the broker says no; also where another order has the client order ID.
            FateUnknown: it was sent, and nobody can say what became of it; ``unresolved`` finds out later.
        """
        return self._run(self._desk.replace(order_id, read_changes(changes)))

    def cancel(self, order_id: str) -> None:
        """Ask for the cancellation of one order; it may still fill before that is done."""
        self._run(self._desk.cancel(order_id))

    def cancel_all(self) -> list[Cancellation]:
        """Ask for the cancellation of every open order."""
        return self._run(self._desk.cancel_all())

    def closing_ticket(self, symbol: str, qty: Decimal | None = None, percent: Decimal | None = None) -> OrderTicket:
        """Return the order that ``close`` would place."""
        return self._run(self._desk.closing_ticket(symbol, qty, percent))

    def close(self, symbol: str, *, qty: Decimal | None = None, percent: Decimal | None = None) -> Order:
        """Close a position, or ``qty`` or ``percent`` of it, with a market order that cannot be sent twice."""
        return self._run(self._desk.close(symbol, qty=qty, percent=percent))

    def close_all(self, *, cancel_orders: bool = False, on_result: OnClosing | None = None) -> list[Closing]:
        """Close every position; ``cancel_orders`` first cancels what holds the shares.

        ``on_result`` is told the symbol of every position and ``None`` before the first order is sent, and the symbol and its
        closing as soon as there is one: what an interruption would leave untold.
        """
        return self._run(self._desk.close_all(cancel_orders=cancel_orders, on_result=on_result))

    def unresolved(self) -> list[Unresolved]:
        """Find out what became of every order whose answer was lost."""
        return self._run(self._desk.unresolved())
