"""A market data host with a history that a test makes up: Alpaca's paging over rows in memory, in process or over HTTP."""

import datetime as dt
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.origin import Origin, Reply, Seen

from alpacli.domain.batches import instant_text
from alpacli.domain.values import Timestamp
from alpacli.ports import Response
from alpacli.wire.errors import refusal
from alpacli.wire.rest import Call

Row = dict[str, Any]
SECOND_NS = 1_000_000_000
MINUTE_NS = 60 * SECOND_NS
BARS = "/v2/stocks/bars"


def ns(text: str) -> int:
    return Timestamp.parse(text).epoch_ns


def utc(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


def bar(at_ns: int, price: float = 100.0) -> Row:
    close = round(price + 0.25, 2)
    return {"c": close, "h": close, "l": price, "n": 7, "o": price, "t": instant_text(at_ns), "v": 1200, "vw": price}


def minutes(first: str, count: int, *, every: int = 1) -> list[Row]:
    start = ns(first)
    return [bar(start + n * every * MINUTE_NS, round(100 + n % 50 / 4, 2)) for n in range(count)]


def sessions(first: str, count: int) -> list[Row]:
    """Return half-hour bars from 14:30 to 20:30 UTC of the NYSE's days in early 2026."""
    closed = {"2026-01-19", "2026-02-16", "2026-04-03"}
    day, rows = dt.date.fromisoformat(first), list[Row]()
    while len(rows) < count:
        if day.weekday() < 5 and day.isoformat() not in closed:
            rows += minutes(f"{day}T14:30:00Z", 13, every=30)
        day += dt.timedelta(1)
    return rows[:count]


class History:
    """Rows by path and symbol, paged as Alpaca pages them.

    ``page`` is the most rows of a page, whatever was asked for. ``spoil`` sees the number of each request, its query and its
    answer, which it may change, and may return what is answered instead. ``asked`` are the queries so far.
    """

    def __init__(self, *, page: int = 10_000) -> None:
        self.page = page
        self.recent_sip = True
        self.actions: list[Row] = []
        self.asked: list[dict[str, str]] = []
        self.others: list[str] = []
        self.spoil: Callable[[int, dict[str, str], dict[str, Any]], Reply | None] | None = None
        self._rows: dict[tuple[str, str], list[tuple[int, Row]]] = {}
        self._lock = threading.Lock()

    def put(self, symbol: str, rows: Sequence[Row], path: str = BARS) -> None:
        self._rows[path, symbol] = sorted(((ns(row["t"]), row) for row in rows), key=lambda pair: pair[0])

    def serve(self, origin: Origin) -> None:
        """Answer over HTTP."""
        origin.answer("/v", lambda seen: self.answer(seen.path, _flat(seen)))

    def read(self, call: Call[Any]) -> Any:
        """Answer a call in process, as a client's ``fetch``."""
        reply = self.answer(call.request.path, dict(call.request.query))
        if reply.status != 200:
            raise refusal(
                call.request,
                Response(reply.status, {name.lower(): value for name, value in reply.headers.items()}, reply.payload()),
                0.0,
            )
        return call.decode(reply.payload())

    def answer(self, path: str, query: Mapping[str, str]) -> Reply:
        if path == "/v2/stocks/trades/latest":
            self.others.append(path)
            if not self.recent_sip:
                return Reply(403, {"message": "subscription does not permit querying recent SIP data"})
            return Reply(body={"trades": {}})
        if path == "/v1/corporate-actions":
            self.others.append(path)
            found = [action for action in self.actions if query["start"] <= action["ex_date"] <= query["end"]]
            return Reply(body={"corporate_actions": {"forward_splits": found}, "next_page_token": None})
        if path.rpartition("/")[2] not in ("bars", "trades", "quotes"):
            self.others.append(path)
            return Reply(404, {"message": "endpoint not found."})
        return self._page(path, dict(query))

    def _page(self, path: str, query: dict[str, str]) -> Reply:
        with self._lock:
            self.asked.append(query)
            number = len(self.asked)
        start, end = ns(query["start"]), ns(query["end"])
        found: list[tuple[str, Row]] = []
        for symbol in sorted(query["symbols"].split(",")):
            rows = [row for at, row in self._rows.get((path, symbol), ()) if start <= at <= end]
            found += [(symbol, row) for row in (rows[::-1] if query.get("sort") == "desc" else rows)]
        at = int(query.get("page_token", "at-0").removeprefix("at-"))
        size = min(int(query["limit"]), self.page)
        pages: dict[str, list[Row]] = {}
        for symbol, row in found[at : at + size]:
            pages.setdefault(symbol, []).append(row)
        token = f"at-{at + size}" if at + size < len(found) else None
        answer: dict[str, Any] = {path.rpartition("/")[2]: pages, "next_page_token": token}
        if self.spoil is not None and (instead := self.spoil(number, query, answer)) is not None:
            return instead
        return Reply(body=json.dumps(answer, separators=(",", ":")).encode())


def _flat(seen: Seen) -> dict[str, str]:
    return {name: values[0] for name, values in seen.query.items()}


def environment(origin: Origin, state: Path, **more: str) -> dict[str, str]:
    return {
        "ALPACA_API_KEY": "PKTEST",
        "ALPACA_SECRET_KEY": "secret",
        "ALPACA_BASE_URL": origin.url,
        "ALPACA_DATA_URL": origin.url,
        "ALPACLI_STATE_DIR": str(state),
        "ALPACLI_CONFIG_DIR": str(state / "config"),
        **more,
    }


def expired() -> Reply:
    return Reply(400, {"message": "invalid page token"})
