"""Order entry as the clients show it; the rules are the desk's. ``make blocking`` makes the blocking twin from it."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from alpacli.broker.desk import Desk
from alpacli.broker.drivers import AsyncRun
from alpacli.broker.outcomes import Closing, OnClosing, Preview, Unresolved
from alpacli.domain.orders import Order
from alpacli.domain.replacing import read_changes
from alpacli.domain.tickets import OrderTicket
from alpacli.wire.trading import Cancellation


class AsyncTrading:
    """Order entry of the client for event loops."""

    def __init__(self, desk: Desk, run: AsyncRun) -> None:
        self._desk = desk
        self._run = run

    async def place(self, ticket: OrderTicket) -> Order:
        """Check an order, record it, send it exactly once, and return it as the broker has it.

        Raises:
            UsageError: it is no order yet: it lacks something, or says a word that orders do not have; nothing was sent.
            OrderRefused: a rule says no; nothing was sent.
            OrderRejected: the broker says no; also where another order has the client order ID.
            FateUnknown: it was sent, and nobody can say what became of it; ``unresolved`` finds out later.
        """
        return await self._run(self._desk.place(ticket))

    async def check(self, ticket: OrderTicket) -> tuple[str, ...]:
        """Hold an order against Alpaca's rules, the account and the market; return warnings, or raise ``OrderRefused``."""
        return await self._run(self._desk.check(ticket))

    async def preview(self, ticket: OrderTicket, base_url: str = "", *, holds: bool = True) -> Preview:
        """Check an order against every rule, the account and the market; send nothing.

        ``holds=False`` takes open orders as canceled: they hold no shares then.
        """
        return await self._run(self._desk.preview(ticket, base_url, holds=holds))

    async def check_replacement(self, order_id: str, changes: Mapping[str, Any]) -> tuple[str, ...]:
        """Hold a change of an open order against Alpaca's rules; return warnings, or raise ``OrderRefused``.

        ``changes`` are those of ``replace``.
        """
        return await self._run(self._desk.check_replacement(order_id, read_changes(changes)))

    async def preview_replacement(self, order_id: str, changes: Mapping[str, Any], base_url: str = "") -> Preview:
        """Check a change of an open order against every rule; send nothing. ``changes`` are those of ``replace``."""
        return await self._run(self._desk.preview_replacement(order_id, read_changes(changes), base_url))

    async def replace(self, order_id: str, changes: Mapping[str, Any]) -> Order:
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
        return await self._run(self._desk.replace(order_id, read_changes(changes)))

    async def cancel(self, order_id: str) -> None:
        """Ask for the cancellation of one order; it may still fill before that is done."""
        await self._run(self._desk.cancel(order_id))

    async def cancel_all(self) -> list[Cancellation]:
        """Ask for the cancellation of every open order."""
        return await self._run(self._desk.cancel_all())

    async def closing_ticket(
        self, symbol: str, qty: Decimal | None = None, percent: Decimal | None = None
    ) -> OrderTicket:
        """Return the order that ``close`` would place."""
        return await self._run(self._desk.closing_ticket(symbol, qty, percent))

    async def close(self, symbol: str, *, qty: Decimal | None = None, percent: Decimal | None = None) -> Order:
        """Close a position, or ``qty`` or ``percent`` of it, with a market order that cannot be sent twice."""
        return await self._run(self._desk.close(symbol, qty=qty, percent=percent))

    async def close_all(self, *, cancel_orders: bool = False, on_result: OnClosing | None = None) -> list[Closing]:
        """Close every position; ``cancel_orders`` first cancels what holds the shares.

        ``on_result`` is told the symbol of every position and ``None`` before the first order is sent, and the symbol and its
        closing as soon as there is one: what an interruption would leave untold.
        """
        return await self._run(self._desk.close_all(cancel_orders=cancel_orders, on_result=on_result))

    async def unresolved(self) -> list[Unresolved]:
        """Find out what became of every order whose answer was lost."""
        return await self._run(self._desk.unresolved())
