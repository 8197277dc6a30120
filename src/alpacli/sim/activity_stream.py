"""Account activities as server-sent events, without I/O: first those that were asked for, then each one as it is booked.

An event's id is a ULID made of the activity's time and its place on the ledger, so it sorts as the activities do, and the
same activity has the same id whoever tells it, whenever: to go on after an id is to ask for everything behind it. What is new
is found by its place in the tables and not by its time, so nothing that another process books is missed or told twice. Ranges
leave no gap and no overlap: ``since`` belongs to them and ``until`` does not, ``since_id`` does not and ``until_id`` does.
Source: "Subscribe to Activity Events (SSE)".
"""

import json
import sqlite3
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Final, NamedTuple

from alpacli.sim.answers import Json, bad_parameter, decimal_text, timestamp
from alpacli.sim.call import Call, Streamed
from alpacli.sim.desk import Desk
from alpacli.sim.hours import new_york_date
from alpacli.sim.listing import LISTINGS

ACTIVITY_EVENTS_PATH: Final = "/v2beta1/events/activities"
LAST_ID_HEADER: Final = "last-event-id"

_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_ULID_LENGTH: Final = 26
_ULID_BITS: Final = 128
# A ULID has 48 bits of milliseconds; behind them stand the nanoseconds, which table, and the row in it.
_MS_NS: Final = 1_000_000
_MS_SHIFT, _NS_SHIFT, _TABLE_SHIFT = 80, 60, 58
_LATEST_NS: Final = (1 << 63) - 1
_LONGEST_BREAK: Final = timedelta(10)

# In the order in which they stand among activities of the same moment. ``+`` keeps SQLite from walking through all that an
# account ever did: what is new is at the end of the table.
_TABLES: Final = (
    (
        "transfers",
        "SELECT * FROM transfers WHERE +account = ? AND seq > ? AND at_ns >= ?",
    ),
    (
        "fills",
        "SELECT fills.*, client_order_id FROM fills JOIN orders ON orders.account = fills.account AND orders.id = order_id"
        " WHERE +fills.account = ? AND fills.seq > ? AND at_ns >= ?",
    ),
    (
        "settlements",
        "SELECT * FROM settlements WHERE +account = ? AND seq > ? AND at_ns >= ?",
    ),
)


class Range(NamedTuple):
    """Which activities are told, by their ids as numbers: from ``first`` on, and before ``end`` if there is one."""

    first: int = 0
    end: int | None = None


class Following:
    """One client's place in the activities of an account; with ``history`` it begins at the first, else after the last.

    ``over`` when nothing more can come. Implements ``call.Follower``.
    """

    def __init__(self, desk: Desk, wanted: Range, *, history: bool) -> None:
        self.over = False
        self.account = desk.account.number
        self._wanted = wanted
        self._seen = {} if history else _newest(desk.db)

    def due(self, desk: Desk) -> str:
        """Return the events of what was booked since it was last asked, in order."""
        newest = _newest(desk.db)
        first, end = self._wanted
        rows = list(self._rows(desk)) if newest != self._seen else []
        self._seen = newest
        rows.sort(key=lambda found: found[0])
        if end is not None:
            reached = bool(rows) and rows[-1][0] >= end - 1
            self.over = reached or _place(desk.now_ns) >= end
        told = [(place, row, table) for place, row, table in rows if place >= first and (end is None or place < end)]
        return "".join(_text(desk, place, row, table) for place, row, table in told)

    def _rows(self, desk: Desk) -> Iterator[tuple[int, sqlite3.Row, str]]:
        from_ns = min((self._wanted.first >> _MS_SHIFT) * _MS_NS, _LATEST_NS)
        for number, (table, statement) in enumerate(_TABLES):
            for row in desk.db.execute(statement, (self.account, self._seen.get(table, 0), from_ns)):
                yield _place(row["at_ns"], number, row["seq"]), row, table


def subscribe(call: Call) -> Streamed:
    """Answer ``GET /v2beta1/events/activities``.

    ``Last-Event-ID``, with which a client of server-sent events reconnects to the same address, goes on after that event.
    """
    query, last_id = call.query, call.headers.get(LAST_ID_HEADER, "").strip()
    for until, since in (("until", "since"), ("until_id", "since_id")):
        if query.get(until) and not query.get(since):
            raise bad_parameter(f"{since} is required when {until} is specified")
    if query.get("since") and query.get("since_id"):
        raise bad_parameter("since and since_id are mutually exclusive")
    since_ns, until_ns = call.instant("since"), call.instant("until")
    since_id, until_id = query.get("since_id"), query.get("until_id")
    starts = [_place(since_ns)] if since_ns is not None else []
    if since_id:
        starts.append(_number("since_id", since_id) + 1)
    end = _place(until_ns) if until_ns is not None else _number("until_id", until_id) + 1 if until_id else None
    if end is not None and starts[0] > end:
        raise bad_parameter("the end of the range lies before its beginning")
    if last_id:
        starts.append(_number("Last-Event-ID", last_id) + 1)
    following = Following(call.desk, Range(max(starts, default=0), end), history=bool(starts))
    text = following.due(call.desk)
    return Streamed(text, None if following.over else following)


def ulid(number: int) -> str:
    """Return 128 bits as 26 characters that sort as the numbers do."""
    return "".join(_CROCKFORD[number >> shift & 31] for shift in range(5 * (_ULID_LENGTH - 1), -1, -5))


def _number(name: str, text: str) -> int:
    digits = text.upper()
    number = 0
    for digit in digits:
        number = number << 5 | max(_CROCKFORD.find(digit), 0)
    if len(digits) != _ULID_LENGTH or not set(digits) <= set(_CROCKFORD) or number >> _ULID_BITS:
        raise bad_parameter(f"invalid {name}: {text[:64]}")
    return number


def _place(at_ns: int, table: int = 0, seq: int = 0) -> int:
    ms, ns = divmod(at_ns, _MS_NS)
    return ms << _MS_SHIFT | ns << _NS_SHIFT | table << _TABLE_SHIFT | seq


def _newest(db: sqlite3.Connection) -> dict[str, int]:
    """Return the number of the last row of each table, of whichever account."""
    return dict(
        tuple(row)
        for row in db.execute(
            "SELECT name, seq FROM sqlite_sequence WHERE name IN ('transfers', 'fills', 'settlements') ORDER BY name"
        )
    )


# --------------------------------------------------------------------------------------------------- one event


def _text(desk: Desk, place: int, row: sqlite3.Row, table: str) -> str:
    event_id, at = ulid(place), timestamp(row["at_ns"])
    told = _WRITERS[table](desk, row)
    event: dict[str, Json] = {
        "at": at,
        "event_id": event_id,
        "executed_at": at,
        "status": "executed",
        "currency": "USD",
        **told,
    }
    return f"id: {event_id}\ndata: {json.dumps(event, ensure_ascii=False, separators=(',', ':'))}\n\n"


def _cash(desk: Desk, row: sqlite3.Row) -> dict[str, Json]:
    day = new_york_date(row["at_ns"]).isoformat()
    return {
        "activity_type": row["activity_type"],
        "ref_id": row["id"],
        "qty": "0",
        "price": "0",
        "net_amount": decimal_text(Decimal(row["amount"])),
        "settle_date": day,
        "details": {"system_date": day},
    }


def _fill(desk: Desk, row: sqlite3.Row) -> dict[str, Json]:
    return {
        "activity_type": "TRD",
        "ref_id": row["execution_id"],
        "qty": decimal_text(Decimal(row["qty"])),
        "price": decimal_text(Decimal(row["price"])),
        "net_amount": decimal_text(Decimal(row["cash"])),
        "settle_date": _settled_on(desk, row["symbol"], row["at_ns"]),
        "details": {
            "execution_type": "fill",  # of a part of an order too; ``order_status`` tells
            "order_id": row["order_id"],
            "client_order_id": row["client_order_id"],
            "order_status": row["order_status"],
            "symbol": row["symbol"],
            "asset_id": LISTINGS[row["symbol"]].asset_id,
            "side": row["side"],
            "cum_qty": decimal_text(Decimal(row["cum_qty"])),
            "leaves_qty": decimal_text(Decimal(row["leaves_qty"])),
        },
    }


def _settlement(desk: Desk, row: sqlite3.Row) -> dict[str, Json]:
    day = new_york_date(row["at_ns"] - 1).isoformat()  # an option ends at its last day's close, which may be midnight
    sign = "" if row["side"] == "buy" else "-"
    return {
        "activity_type": row["activity_type"],
        "ref_id": row["id"],
        "qty": sign + decimal_text(Decimal(row["qty"])),
        "price": decimal_text(Decimal(row["price"])),
        "net_amount": decimal_text(Decimal(row["cash"])),
        "settle_date": day,
        "details": {"system_date": day, "group_id": row["group_id"], "symbol": row["symbol"]},
    }


_WRITERS: Final = {"transfers": _cash, "fills": _fill, "settlements": _settlement}


def _settled_on(desk: Desk, symbol: str, at_ns: int) -> str:
    """Return the day on which a trade is settled: that of a coin at once, all others on the next trading day."""
    day = new_york_date(at_ns)
    if LISTINGS[symbol].crypto:
        return day.isoformat()
    traded = desk.market.hours.days(day, day) or desk.market.hours.days(day, day + _LONGEST_BREAK)
    return (traded[0].settlement if traded else day).isoformat()
