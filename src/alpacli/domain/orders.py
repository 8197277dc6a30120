"""An order as the broker tells it, and what its status means.

A status is text: one that is not in the sets below is unknown, which is neither open nor terminal, and no error.
"""

from decimal import Decimal
from typing import Final

from pydantic import PrivateAttr

from alpacli.domain.values import Flag, MaybeAmount, MaybeTimestamp, Model, Timestamp

OPEN: Final = frozenset(
    {
        "pending_new",
        "accepted",
        "accepted_for_bidding",
        "new",
        "held",
        "partially_filled",
        "done_for_day",
        "pending_cancel",
        "pending_replace",
        "pending_review",
        "stopped",
        "suspended",
        "calculated",
    }
)
"""Statuses in which an order can still change; ``status=open`` lists them."""

TERMINAL: Final = frozenset({"filled", "canceled", "expired", "replaced", "rejected"})
"""Statuses that never change again; ``status=closed`` lists them."""


class Order(Model):
    """One order, or one leg of one. Source: GET /v2/orders and GET /v2/orders/{order_id}.

    Exactly one of ``qty`` and ``notional`` is set. ``order_class`` is ``""`` or ``simple`` for plain orders. The parent of a
    multi-leg order has empty ``symbol``, ``side`` and ``asset_id``. ``legs`` is filled only when asked for (``nested``).
    """

    id: str
    client_order_id: str
    symbol: str | None = None
    asset_class: str | None = None
    asset_id: str | None = None
    side: str | None = None
    position_intent: str | None = None
    type: str | None = None
    order_type: str | None = None
    order_class: str
    time_in_force: str
    status: str
    qty: MaybeAmount = None
    notional: MaybeAmount = None
    filled_qty: MaybeAmount = None
    filled_avg_price: MaybeAmount = None
    limit_price: MaybeAmount = None
    stop_price: MaybeAmount = None
    trail_price: MaybeAmount = None
    trail_percent: MaybeAmount = None
    hwm: MaybeAmount = None
    ratio_qty: MaybeAmount = None
    extended_hours: Flag
    created_at: Timestamp
    updated_at: MaybeTimestamp = None
    submitted_at: MaybeTimestamp = None
    filled_at: MaybeTimestamp = None
    expired_at: MaybeTimestamp = None
    expires_at: MaybeTimestamp = None
    canceled_at: MaybeTimestamp = None
    failed_at: MaybeTimestamp = None
    replaced_at: MaybeTimestamp = None
    replaced_by: str | None = None
    replaces: str | None = None
    legs: tuple["Order", ...] | None = None
    commission: MaybeAmount = None
    source: str | None = None
    subtag: str | None = None

    _wire: bytes = PrivateAttr(b"")

    @property
    def wire(self) -> bytes:
        """Return the very bytes that the broker answered with, for whoever asked for this order alone."""
        return self._wire

    def remember(self, wire: bytes) -> None:
        """Keep the bytes that the broker answered with, for ``wire``."""
        self._wire = wire

    @property
    def is_open(self) -> bool:
        """Tell whether the order can still fill or change; false for a status that nobody has heard of."""
        return self.status in OPEN

    @property
    def is_terminal(self) -> bool:
        """Tell whether the order has ended for good, filled or not; false for a status that nobody has heard of."""
        return self.status in TERMINAL

    @property
    def remaining_qty(self) -> Decimal | None:
        """Return what is left to fill; ``None`` for notional orders."""
        return None if self.qty is None else self.qty - (self.filled_qty or Decimal(0))
