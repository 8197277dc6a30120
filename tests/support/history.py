"""A market data host with a history that a test makes up: Alpaca's paging over rows in memory, on a real HTTP server."""

import datetime as dt
import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.support.origin import Origin, Reply, Seen

from alpacli.domain.batches import instant_text
from alpacli.domain.values import Timestamp

Row = dict[str, Any]
SECOND_NS = 1_000_000_000
MINUTE_NS = 60 * SECOND_NS


def ns(text: str) -> int:
    return Timestamp.parse(text).epoch_ns


def bar(at_ns: int, price: float = 100.0) -> Row:
    close = round(price + 0.25, 2)
    return {"c": close, "h": close, "l": price, "n": 7, "o": price, "t": instant_text(at_ns), "v": 1200, "vw": price}


def minutes(first: str, count: int) -> list[Row]:
    start = ns(first)
    return [bar(start + number * MINUTE_NS, round(100 + number % 50 / 4, 2)) for number in range(count)]


class History:
    """Serves rows by path (``/v2/stocks/bars``) and symbol; ``before`` may answer a request instead, or spoil its answer.

    ``page`` is the most rows that a page holds whatever was asked for.
    """

    def __init__(self, origin: Origin, *, page: int = 10_000) -> None:
        self.rows: dict[tuple[str, str], list[Row]] = {}
        self.actions: list[Row] = []
        self.page = page
        self.asked: list[Seen] = []
        self.before: Callable[[int, Seen, dict[str, Any]], Reply | None] | None = None
        self._lock = threading.Lock()
        origin.answer("/v2/stocks/trades/latest", self._latest)
        origin.answer("/v1/corporate-actions", self._actions)
        origin.answer("/v", self._answer)
        self.recent_sip = True

    def put(self, symbol: str, rows: Sequence[Row], path: str = "/v2/stocks/bars") -> None:
        self.rows[path, symbol] = sorted(rows, key=lambda row: ns(row["t"]))

    def _latest(self, seen: Seen) -> Reply:
        if not self.recent_sip:
            return Reply(403, {"message": "subscription does not permit querying recent SIP data"})
        return Reply(body={"trades": {}})

    def _actions(self, seen: Seen) -> Reply:
        low, high = seen.query["start"][0], seen.query["end"][0]
        found = [action for action in self.actions if low <= action["ex_date"] <= high]
        return Reply(body={"corporate_actions": {"forward_splits": found}, "next_page_token": None})

    def _answer(self, seen: Seen) -> Reply:
        with self._lock:
            self.asked.append(seen)
            number = len(self.asked)
        query = {name: values[0] for name, values in seen.query.items()}
        kind = seen.path.rpartition("/")[2]
        start, end = ns(query["start"]), ns(query["end"])
        descending = query.get("sort") == "desc"
        found: list[tuple[str, Row]] = []
        for symbol in sorted(query["symbols"].split(",")):
            rows = [row for row in self.rows.get((seen.path, symbol), ()) if start <= ns(row["t"]) <= end]
            found += [(symbol, row) for row in (reversed(rows) if descending else rows)]
        at = int(query.get("page_token", "at-0").removeprefix("at-"))
        size = min(int(query["limit"]), self.page)
        pages: dict[str, list[Row]] = {}
        for symbol, row in found[at : at + size]:
            pages.setdefault(symbol, []).append(row)
        answer: dict[str, Any] = {
            kind: pages,
            "next_page_token": f"at-{at + size}" if at + size < len(found) else None,
        }
        if self.before is not None and (instead := self.before(number, seen, answer)) is not None:
            return instead
        return Reply(body=json.dumps(answer, separators=(",", ":")).encode())


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


def utc(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)
