"""What order entry tells, and what it needs to be told: previews, unresolved orders, closings, the halt, the journal."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from alpacli.domain.orders import Order
from alpacli.domain.values import MaybeAmount, Model


class Halted(Protocol):
    """Since when, why and by whom trading is halted."""

    @property
    def at(self) -> float: ...
    @property
    def reason(self) -> str: ...
    @property
    def by(self) -> str: ...


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


class Preview(Model):
    """An order that was not sent: the exact request, what it would cost and what would be left, in USD."""

    dry_run: bool = True
    method: str
    url: str
    body: dict[str, Any]
    estimated_cost: MaybeAmount = None
    buying_power: MaybeAmount = None
    buying_power_left: MaybeAmount = None
    warnings: tuple[str, ...] = ()


class Unresolved(Model):
    """An order whose answer got lost, and what the broker says of it now.

    ``outcome`` is ``placed`` (``order`` shows it), ``not placed``, ``in flight`` (its process still runs) or ``unknown``.
    """

    client_order_id: str
    action: str
    sent_at: str
    outcome: str
    request: dict[str, Any]
    order: Order | None = None


class Closing(Model):
    """What became of closing one position: ``status`` 200 and the order, or the error. Source: DELETE /v2/positions, 207."""

    symbol: str
    status: int
    body: Any = None
