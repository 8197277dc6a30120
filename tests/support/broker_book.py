"""A broker whose lists are as long as a test wants, and all that can go wrong while they are read."""

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from tests.support import parts
from tests.support.fakes import ACCOUNT, ManualClock, answer

from alpacli.broker.client import AlpacaClient
from alpacli.domain.values import Timestamp
from alpacli.ports import BudgetRules, Clock, Request, Response
from alpacli.store.sqlite import SqliteStore

_TERMINAL = ("filled", "canceled", "expired", "replaced", "rejected")


class Killed(BaseException):
    """The process ends here, in the middle of whatever it does."""


def order(number: int, at: str, **fields: Any) -> dict[str, Any]:
    """Return an order as Alpaca writes it; filled, unless said otherwise."""
    base: dict[str, Any] = {
        "id": f"00000000-0000-4000-8000-{number:012d}",
        "client_order_id": f"own-{number}",
        "created_at": at,
        "submitted_at": at,
        "symbol": "AAPL",
        "side": "buy",
        "type": "market",
        "order_class": "",
        "time_in_force": "day",
        "extended_hours": False,
        "status": "filled",
        "qty": "1",
        "filled_qty": "1",
        "filled_avg_price": "100.10",
        "legs": None,
    }
    return base | fields


def fill(number: int, at: str, **fields: Any) -> dict[str, Any]:
    """Return the fill of the order of the same number."""
    digits = "".join(letter for letter in at if letter.isdigit())[:17].ljust(17, "0")
    base: dict[str, Any] = {
        "id": f"{digits}::00000000-0000-4000-9000-{number:012d}",
        "activity_type": "FILL",
        "type": "fill",
        "transaction_time": at,
        "symbol": "AAPL",
        "side": "buy",
        "qty": "1",
        "price": "100.10",
        "cum_qty": "1",
        "leaves_qty": "0",
        "order_id": f"00000000-0000-4000-8000-{number:012d}",
        "order_status": "filled",
    }
    return base | fields


def booking(number: int, kind: str, date: str, **fields: Any) -> dict[str, Any]:
    """Return an activity that is booked by date."""
    digits = date.replace("-", "").ljust(17, "0")
    own = f"00000000-0000-4000-a000-{number:012d}"
    return {"id": f"{digits}::{own}", "activity_type": kind, "date": date, "status": "executed"} | fields


class BrokerBook:
    """Answers like Alpaca does, from lists that a test fills; ``before`` sees each request and may answer or raise.

    ``now`` is what its clock says.
    """

    def __init__(self, orders: Sequence[dict[str, Any]] = (), activities: Sequence[dict[str, Any]] = ()) -> None:
        self.orders = list(orders)
        self.activities = list(activities)
        self.account: dict[str, Any] = dict(ACCOUNT)
        self.positions: list[dict[str, Any]] = []
        self.days: dict[int, str] = {}
        self.now = "2026-05-28T16:26:40-04:00"
        self.sent: list[Request] = []
        self.before: Callable[[Request], Response | None] = lambda _: None
        self._lock = threading.Lock()

    def send(self, request: Request, *, connect_timeout_s: float, read_timeout_s: float) -> Response:
        with self._lock:
            self.sent.append(request)
            return self.before(request) or self._answer(request)

    def close(self) -> None:
        pass

    def requests_for(self, path: str) -> list[Request]:
        return [request for request in self.sent if request.path == path]

    def _answer(self, request: Request) -> Response:
        query, path = dict(request.query), request.path
        if path == "/v2/account":
            return answer(self.account)
        if path == "/v2/positions":
            return answer(self.positions)
        if path == "/v2/orders":
            return self._orders(query)
        if path.startswith("/v2/orders/"):
            found = [row for row in self.orders if row["id"] == path.rpartition("/")[2]]
            return answer(found[0]) if found else answer({"code": 40410000, "message": "order not found"}, 404)
        if path == "/v2/account/activities":
            return self._activities(query)
        if path == "/v2/clock":
            later = {
                "is_open": False,
                "next_open": "2027-01-04T09:30:00-05:00",
                "next_close": "2027-01-04T16:00:00-05:00",
            }
            return answer({"timestamp": self.now, **later})
        return self._portfolio(query)

    def _orders(self, query: Mapping[str, str]) -> Response:
        rows = sorted(self.orders, key=lambda row: (row["submitted_at"], row["id"]))
        if query["status"] == "open":
            rows = [row for row in rows if row["status"] not in _TERMINAL]
        if "after" in query:
            rows = [row for row in rows if _ns(row["submitted_at"]) > _ns(query["after"])]
        if query.get("direction") != "asc":
            rows.reverse()
        cursor = query.get("after_order_id") or query.get("before_order_id")
        if cursor:
            places = [n for n, row in enumerate(rows) if row["id"] == cursor]
            if not places:
                return answer({"code": 40410000, "message": "order not found"}, 404)
            rows = rows[places[0] + 1 :]
        return answer(rows[: int(query["limit"])])

    def _activities(self, query: Mapping[str, str]) -> Response:
        trades = query["category"] == "trade_activity"
        rows = [row for row in self.activities if (row["activity_type"] == "FILL") is trades]
        if "order_id" in query:
            rows = [row for row in rows if row.get("order_id") == query["order_id"]]
        if "after" in query:
            rows = [row for row in rows if row["id"][:14] > "".join(c for c in query["after"] if c.isdigit())[:14]]
        rows.sort(key=lambda row: row["id"])
        if "page_token" in query:
            places = [n for n, row in enumerate(rows) if row["id"] == query["page_token"]]
            if not places:
                return answer({"code": 40010001, "message": "invalid page_token"}, 422)
            rows = rows[places[0] + 1 :]
        return answer(rows[: int(query["page_size"])])

    def _portfolio(self, query: Mapping[str, str]) -> Response:
        if _ns(query["start"]) > _ns(self.now):
            return answer({"code": 40010001, "message": "start must not be after end"}, 422)
        columns = {
            "timestamp": list(self.days),
            "equity": [float(Decimal(amount)) for amount in self.days.values()],
            "profit_loss": [0] * len(self.days),
            "profit_loss_pct": [0] * len(self.days),
            "timeframe": "1D",
        }
        return answer(columns)


def _ns(text: str) -> int:
    return Timestamp.parse(text).epoch_ns


def client_of(
    book: BrokerBook, clock: Clock | None = None, *, limit: int = 100_000, max_wait_s: float = 10
) -> AlpacaClient:
    """Return a client of that broker, with a budget and a cache of its own."""
    clock = clock or ManualClock()
    pipeline = parts.pipeline(
        SqliteStore(":memory:", clock),
        clock,
        rules=BudgetRules("alpaca:{book}", limit=limit, reserve=0),
        max_wait_s=max_wait_s,
    )
    return AlpacaClient(pipeline, book, clock=clock)


def dump(rows: Sequence[Mapping[str, Any]]) -> bytes:
    return json.dumps(rows).encode()
