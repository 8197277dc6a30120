"""What keeping and reading an account's history costs: a snapshot, bringing everything in, a million snapshots."""

import datetime as dt
import json
import os
import sqlite3
import statistics
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.origin import Origin, Reply, Seen

from benchmarks.measure import Command, Row, Sample, alpacli, compare, environment, run
from benchmarks.sharing import CLOCK
from benchmarks.starts import ACCOUNT

_ORDERS = 100_000
_FILLED = 20_000
_SNAPSHOTS = 1_000_000
_MINUTES_A_DAY = 390
_BEGIN_S = 1_577_975_400  # 2020-01-02 09:30 in New York

_POSITION = {
    "asset_id": "b0b6dd9d-8b9b-48a9-ba46-b9d54906e415",
    "exchange": "NASDAQ",
    "asset_class": "us_equity",
    "asset_marginable": True,
    "qty": "10",
    "qty_available": "4",
    "side": "long",
    "avg_entry_price": "150.5",
    "cost_basis": "1505",
    "market_value": "1520",
    "current_price": "152",
    "lastday_price": "151",
    "change_today": "0.0066225165562914",
    "unrealized_pl": "15",
    "unrealized_plpc": "0.0099667774086379",
    "unrealized_intraday_pl": "10",
    "unrealized_intraday_plpc": "0.0066225165562914",
}


def _id(number: int) -> str:
    """Return an id that is as scattered as Alpaca's are."""
    return str(uuid.UUID(int=(number + 1) * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128))


def _order(number: int) -> dict[str, object]:
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(_BEGIN_S + number * 60))
    filled = number < _FILLED
    return {
        "id": _id(number),
        "client_order_id": f"eb9e2aaa-f71a-4f51-b5b4-{number:012d}",
        **dict.fromkeys(("created_at", "updated_at", "submitted_at"), at),
        "filled_at": at if filled else None,
        **dict.fromkeys(("expired_at", "expires_at", "failed_at", "replaced_at", "replaced_by", "replaces")),
        "canceled_at": None if filled else at,
        "asset_id": "b0b6dd9d-8b9b-48a9-ba46-b9d54906e415",
        "symbol": "AAPL",
        "asset_class": "us_equity",
        "notional": None,
        "qty": "10",
        "filled_qty": "10" if filled else "0",
        "filled_avg_price": "150.25" if filled else None,
        "order_class": "simple",
        "order_type": "limit",
        "type": "limit",
        "side": "sell" if number % 2 else "buy",
        "position_intent": "buy_to_open",
        "time_in_force": "day",
        "limit_price": "150.25",
        "stop_price": None,
        "status": "filled" if filled else "canceled",
        "extended_hours": False,
        "legs": None,
        **dict.fromkeys(("trail_percent", "trail_price", "hwm", "ratio_qty", "subtag", "source")),
    }


def _fill(number: int) -> dict[str, object]:
    at = time.gmtime(_BEGIN_S + number * 60)
    return {
        "id": f"{time.strftime('%Y%m%d%H%M%S000', at)}::2f63ea93-423d-4169-b3f6-{number:012d}",
        "activity_type": "FILL",
        "transaction_time": time.strftime("%Y-%m-%dT%H:%M:%SZ", at),
        "type": "fill",
        "price": "150.25",
        "qty": "10",
        "side": "sell" if number % 2 else "buy",
        "symbol": "AAPL",
        "leaves_qty": "0",
        "order_id": _id(number),
        "cum_qty": "10",
        "order_status": "filled",
    }


class _Lists:
    """The account's lists as pages of ready bytes: serving them costs the server, not the one that is measured, its time."""

    def __init__(self, orders: int, fills: int) -> None:
        rows = [_order(number) for number in range(orders)]
        self.orders = {
            self._key(rows, at): json.dumps(rows[at : at + 500]).encode() for at in range(0, orders + 1, 500)
        }
        done = [_fill(number) for number in range(fills)]
        self.fills = {self._key(done, at): json.dumps(done[at : at + 100]).encode() for at in range(0, fills + 1, 100)}

    @staticmethod
    def _key(rows: list[dict[str, object]], at: int) -> str:
        return str(rows[at - 1]["id"]) if at else ""

    def reply(self, seen: Seen) -> Reply:
        query = {name: values[0] for name, values in seen.query.items()}
        if seen.path == "/v2/orders":
            return Reply(body=b"[]" if query["status"] == "open" else self.orders[query.get("after_order_id", "")])
        if seen.path == "/v2/account/activities":
            trades = query["category"] == "trade_activity"
            return Reply(body=self.fills[query.get("page_token", "")] if trades else b"[]")
        columns: dict[str, list[int]] = {name: [] for name in ("timestamp", "equity", "profit_loss", "profit_loss_pct")}
        return Reply(body={**columns, "timeframe": "1D"})


@contextmanager
def _account(lists: _Lists | None = None) -> Iterator[tuple[Origin, dict[str, str], Path]]:
    with tempfile.TemporaryDirectory() as name, Origin() as origin:
        folder = Path(name)
        origin.reply("/v2/account", Reply(body={**ACCOUNT, "created_at": "2020-01-01T00:00:00Z"}))
        origin.reply("/v2/clock", Reply(body=CLOCK))
        origin.reply("/v2/positions", Reply(body=[{**_POSITION, "symbol": f"SYM{n}"} for n in range(10)]))
        origin.reply("/v2/orders", Reply(body=[{**_order(n), "status": "new"} for n in range(_FILLED, _FILLED + 10)]))
        if lists is not None:
            origin.answer("/v2/orders", lists.reply)
            origin.answer("/v2/account/", lists.reply)
        yield origin, environment(folder, ALPACA_BASE_URL=origin.url, ALPACLI_RATE_LIMIT="1000000"), folder


def snapshot(pairs: int) -> list[Row]:
    """``snapshot`` against ``account --refresh``, whole processes."""
    with _account() as (_, env, _folder):
        ours = Command([alpacli(), "snapshot", "--every", "1s"], env, prepare=lambda: time.sleep(1.0))
        taken = compare(ours, Command([alpacli(), "account", "--json", "--refresh"], env), pairs)
    ratio = taken.time_ratio
    what = "snapshot of 10 positions and 10 orders / account --json --refresh"
    return [Row("snapshot", what, "≤ 1.5 ×", f"{ratio:.2f} ×", ratio <= 1.5, taken.detail())]


def sync(_: int) -> list[Row]:
    """``history sync`` of 100,000 orders, a fifth of them filled: requests, and processor time beyond that of parsing.

    Of three runs the one that took least: what others on the machine add to it is not the program's.
    """
    from alpacli.wire import pages

    lists = _Lists(_ORDERS, _FILLED)
    read_orders = pages.orders_after(None).decode
    read_fills = pages.activities_after(None, category="trade_activity", since=None).decode
    fields: list[object] = []
    times: list[object] = []
    began = time.process_time()
    for body in lists.orders.values():
        fields = [(order.submitted_ns, order.filled) for order in read_orders(body)]
    for body in lists.fills.values():
        times = [(fill.at_ns, fill.amount) for fill in read_fills(body)]
    parsing_s = time.process_time() - began
    assert [*fields, *times] == []  # the last page of each is empty
    runs: list[Sample] = []
    asked: list[Seen] = []
    for _ in range(3):
        with _account(lists) as (origin, env, _folder):
            runs.append(run(Command([alpacli(), "history", "sync", "--json"], env)))
            asked = [seen for seen in origin.requests if seen.path == "/v2/orders" and seen.query["status"] == ["all"]]
    with _account(_Lists(0, 0)) as (_origin, env, _folder):
        idle_s = min(run(Command([alpacli(), "history", "sync", "--json"], env)).processor_s for _ in range(3))
    whole = min(runs, key=lambda sample: sample.processor_s)
    count = len(lists.orders) + len(lists.fills)
    report = json.loads(whole.output)
    complete = (report["orders"], report["unresolved"]) == (_ORDERS, [])
    each_ms = (whole.processor_s - idle_s - parsing_s) / count * 1000
    most = _ORDERS // 500 + 1
    detail = f"{whole.seconds:.1f} s in all, {count} pages, parsing {parsing_s / count * 1000:.2f} ms a page"
    enough = complete and len(asked) <= most
    return [
        Row("sync", f"history sync of {_ORDERS:,} orders: requests for orders", f"≤ {most}", f"{len(asked)}", enough),
        Row(
            "sync",
            "history sync: processor time a page, beyond parsing",
            "≤ 5 ms",
            f"{each_ms:.2f} ms",
            each_ms <= 5,
            detail,
        ),
    ]


def stats(pairs: int) -> list[Row]:
    """``history stats`` over a million snapshots, the whole process."""
    with _account() as (_, env, folder):
        run(Command([alpacli(), "snapshot"], env))
        (path,) = (folder / "state" / "history").glob("*.sqlite")
        _fill_up(path)
        command = Command([alpacli(), "history", "stats", "--json", "--quiet"], env)
        samples = [run(command) for _ in range(max(3, pairs // 3))]
        size = os.path.getsize(path) / 2**20
    seconds = statistics.median(sample.seconds for sample in samples)
    found = json.loads(samples[0].output)
    peak = samples[0].peak_kib / 1024
    detail = f"{found['snapshots']:,} snapshots of {found['days']:,} days, {size:.0f} MiB file, {peak:.0f} MiB peak"
    return [Row("stats", "history stats over 1,000,000 snapshots", "≤ 2 s", f"{seconds:.2f} s", seconds <= 2, detail)]


def _fill_up(path: Path) -> None:
    """Add a snapshot for each minute of some ten years of trading days, with a text like that of a real one."""
    import zlib

    from alpacli.history.archive import new_york_day, new_york_ns

    packed = zlib.compress(
        json.dumps({"account": ACCOUNT, "positions": [_POSITION] * 3, "orders": [_order(1)]}).encode()
    )
    first = new_york_day(_BEGIN_S * 10**9)
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA synchronous = OFF")
    db.execute("BEGIN")
    db.execute("DELETE FROM snapshots")
    seq = 1
    day = first - 5 * 365
    while seq <= _SNAPSHOTS:
        if dt.date.fromordinal(day).weekday() < 5:
            begin_ns = new_york_ns(day, dt.time(9, 30))
            rows = range(seq, min(seq + _MINUTES_A_DAY, _SNAPSHOTS + 1))
            db.executemany(
                "INSERT INTO snapshots VALUES (?, ?, ?, ?, '50000', '49000.12', '-1200.5')",
                [(n, begin_ns + (n - seq) * 60 * 10**9, day, f"{100_000 + n % 977 * 7.01:.2f}") for n in rows],
            )
            db.executemany("INSERT OR REPLACE INTO snapshot_texts VALUES (?, ?)", [(n, packed) for n in rows])
            seq += _MINUTES_A_DAY
        day += 1
    db.execute("COMMIT")
    db.close()
