"""Order entry as the two clients show it; the rules are the desk's."""

from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal
from typing import Any, Protocol

from alpacli.broker.desk import Desk
from alpacli.broker.flow import Flow
from alpacli.broker.outcomes import Closing, Preview, Unresolved
from alpacli.domain.orders import Order
from alpacli.domain.tickets import OrderTicket
from alpacli.wire.trading import Cancellation


class OrderExecutor(Protocol):
    """Whoever can carry out orders. Errors: ``OrderRefused`` and ``FateUnknown``, and what every request can raise."""

    def place(self, ticket: OrderTicket) -> Order: ...

    def replace(self, order_id: str, changes: Mapping[str, Any]) -> Order: ...

    def cancel(self, order_id: str) -> None: ...

    def close(self, symbol: str, *, qty: Decimal | None = None, percent: Decimal | None = None) -> Order: ...


class Trading:
    """Order entry of the blocking client; an ``OrderExecutor``."""

    def __init__(self, desk: Desk, run: Callable[[Flow[Any]], Any]) -> None:
        self._desk = desk
        self._run = run

    def place(self, ticket: OrderTicket) -> Order:
        """Check an order, record it, send it exactly once, and return it as the broker has it.

        Raises:
            OrderRefused: a rule says no; nothing was sent.
            FateUnknown: it was sent, and nobody can say what became of it; ``unresolved`` finds out later.
        """
        order: Order = self._run(self._desk.place(ticket))
        return order

    def check(self, ticket: OrderTicket) -> tuple[str, ...]:
        """Hold an order against Alpaca's rules, the account and the market; return warnings, or raise ``OrderRefused``."""
        warnings: tuple[str, ...] = self._run(self._desk.check(ticket))
        return warnings

    def preview(self, ticket: OrderTicket, base_url: str = "", *, holds: bool = True) -> Preview:
        """Check an order against every rule, the account and the market; send nothing.

        ``holds=False`` takes open orders as canceled: they hold no shares then.
        """
        preview: Preview = self._run(self._desk.preview(ticket, base_url, holds=holds))
        return preview

    def check_replacement(self, order_id: str, changes: Mapping[str, Any]) -> tuple[str, ...]:
        """Hold a change of an open order against Alpaca's rules; return warnings, or raise ``OrderRefused``."""
        warnings: tuple[str, ...] = self._run(self._desk.check_replacement(order_id, changes))
        return warnings

    def preview_replacement(self, order_id: str, changes: Mapping[str, Any], base_url: str = "") -> Preview:
        """Check a change of an open order against every rule; send nothing."""
        preview: Preview = self._run(self._desk.preview_replacement(order_id, changes, base_url))
        return preview

    def replace(self, order_id: str, changes: Mapping[str, Any]) -> Order:
        """Change ``qty``, ``limit_price``, ``stop_price``, ``trail`` or ``time_in_force`` of an open order."""
        order: Order = self._run(self._desk.replace(order_id, changes))
        return order

    def cancel(self, order_id: str) -> None:
        """Ask for the cancellation of one order; it may still fill before that is done."""
        self._run(self._desk.cancel(order_id))

    def cancel_all(self) -> list[Cancellation]:
        """Ask for the cancellation of every open order."""
        done: list[Cancellation] = self._run(self._desk.cancel_all())
        return done

    def closing_ticket(self, symbol: str, qty: Decimal | None = None, percent: Decimal | None = None) -> OrderTicket:
        """Return the order that ``close`` would place."""
        ticket: OrderTicket = self._run(self._desk.closing_ticket(symbol, qty, percent))
        return ticket

    def close(self, symbol: str, *, qty: Decimal | None = None, percent: Decimal | None = None) -> Order:
        """Close a position, or ``qty`` or ``percent`` of it, with a market order that cannot be sent twice."""
        order: Order = self._run(self._desk.close(symbol, qty=qty, percent=percent))
        return order

    def close_all(self, *, cancel_orders: bool = False) -> list[Closing]:
        """Close every position; ``cancel_orders`` first cancels what holds the shares."""
        done: list[Closing] = self._run(self._desk.close_all(cancel_orders=cancel_orders))
        return done

    def unresolved(self) -> list[Unresolved]:
        """Find out what became of every order whose answer was lost."""
        found: list[Unresolved] = self._run(self._desk.unresolved())
        return found


class AsyncTrading:
    """Order entry of the client for event loops: every method of ``Trading``, awaited."""

    def __init__(self, desk: Desk, run: Callable[[Flow[Any]], Awaitable[Any]]) -> None:
        self._desk = desk
        self._run = run

    async def place(self, ticket: OrderTicket) -> Order:
        """See ``Trading.place``."""
        order: Order = await self._run(self._desk.place(ticket))
        return order

    async def check(self, ticket: OrderTicket) -> tuple[str, ...]:
        """See ``Trading.check``."""
        warnings: tuple[str, ...] = await self._run(self._desk.check(ticket))
        return warnings

    async def preview(self, ticket: OrderTicket, base_url: str = "", *, holds: bool = True) -> Preview:
        """See ``Trading.preview``."""
        preview: Preview = await self._run(self._desk.preview(ticket, base_url, holds=holds))
        return preview

    async def check_replacement(self, order_id: str, changes: Mapping[str, Any]) -> tuple[str, ...]:
        """See ``Trading.check_replacement``."""
        warnings: tuple[str, ...] = await self._run(self._desk.check_replacement(order_id, changes))
        return warnings

    async def preview_replacement(self, order_id: str, changes: Mapping[str, Any], base_url: str = "") -> Preview:
        """See ``Trading.preview_replacement``."""
        preview: Preview = await self._run(self._desk.preview_replacement(order_id, changes, base_url))
        return preview

    async def replace(self, order_id: str, changes: Mapping[str, Any]) -> Order:
        """See ``Trading.replace``."""
        order: Order = await self._run(self._desk.replace(order_id, changes))
        return order

    async def cancel(self, order_id: str) -> None:
        """See ``Trading.cancel``."""
        await self._run(self._desk.cancel(order_id))

    async def cancel_all(self) -> list[Cancellation]:
        """See ``Trading.cancel_all``."""
        done: list[Cancellation] = await self._run(self._desk.cancel_all())
        return done

    async def closing_ticket(
        self, symbol: str, qty: Decimal | None = None, percent: Decimal | None = None
    ) -> OrderTicket:
        """See ``Trading.closing_ticket``."""
        ticket: OrderTicket = await self._run(self._desk.closing_ticket(symbol, qty, percent))
        return ticket

    async def close(self, symbol: str, *, qty: Decimal | None = None, percent: Decimal | None = None) -> Order:
        """See ``Trading.close``."""
        order: Order = await self._run(self._desk.close(symbol, qty=qty, percent=percent))
        return order

    async def close_all(self, *, cancel_orders: bool = False) -> list[Closing]:
        """See ``Trading.close_all``."""
        done: list[Closing] = await self._run(self._desk.close_all(cancel_orders=cancel_orders))
        return done

    async def unresolved(self) -> list[Unresolved]:
        """See ``Trading.unresolved``."""
        found: list[Unresolved] = await self._run(self._desk.unresolved())
        return found
