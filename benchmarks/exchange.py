"""The offline exchange: orders a second, an account that was away, and a past day run through the official SDK.

Orders a second are counted on the engine's own processor time as well as on the clock, because a busy machine slows only the
latter. Each order is one transaction of its own, as a request is: checked, put on the book, matched, booked, told.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from alpacli.ports import SystemClock
from alpacli.sim import entry
from alpacli.sim.exchange import Exchange
from benchmarks.measure import Row, alpacli, environment
from benchmarks.running import processor_s

_SYMBOLS = ("AAPL", "MSFT", "NVDA", "AMZN")
_BEGIN = 1_780_000_000.0
_HOURS = 8 * 3600


class _Clock(SystemClock):
    def __init__(self) -> None:
        self.now = _BEGIN

    def time(self) -> float:
        return self.now


def engine(_: int, orders: int = 10_000) -> list[Row]:
    """Market orders and limits at the market, from submission to fill, one after the other in memory."""
    clock = _Clock()
    exchange = Exchange(None, clock)
    exchange.reset(rate_limit=0, cash=Decimal(10**9))
    account = exchange.account_number("PKBENCH", "s")
    bodies = [
        {"symbol": symbol, "qty": "1", "side": side, "time_in_force": "day"} | more
        for symbol in _SYMBOLS
        for side in ("buy", "sell")
        for more in ({"type": "market"}, {"type": "limit", "limit_price": "9999" if side == "buy" else "1"})
    ]
    began, used = time.perf_counter(), time.process_time()
    for number in range(orders):
        clock.now += 2
        with exchange.desk(account, changes=True) as desk:
            entry.submit(desk, bodies[_place(number)])
    clock.now += 2
    exchange.catch_up(account)
    wall, cpu = time.perf_counter() - began, time.process_time() - used
    with exchange.desk(account, changes=False) as desk:
        filled = desk.db.execute("SELECT count(*) FROM orders WHERE status = 'filled'").fetchone()[0]
    exchange.close()
    if filled != orders:
        raise RuntimeError(f"{filled} of {orders} orders were filled")
    return [
        Row(
            "engine",
            "orders a second through the matching engine in memory, submitted and filled",
            "≥ 20,000",
            f"{orders / cpu:,.0f}",
            orders / cpu >= 20_000,
            f"by its processor time; {orders / wall:,.0f} by the clock of this machine",
        )
    ]


def compiled(_: int, runs: int = 5) -> list[Row]:
    """The same with the modules of the rules compiled, which are built for it where they are not yet (minutes).

    Interpreted and compiled take turns, each in a process of its own; what counts is the median.
    """
    from tools.compiled import Impossible
    from tools.compiled import environment as with_compiled

    what = "the same with the engine compiled (ALPACLI_COMPILED=1)"
    try:
        env = with_compiled()
    except Impossible as reason:
        return [Row("engine-compiled", what, "≥ 20,000", "?", None, str(reason))]
    plain, fast = [], []
    for _turn in range(runs):
        plain.append(_rate(dict(os.environ)))
        fast.append(_rate(env))
    rate = statistics.median(fast)
    detail = (
        f"best {max(fast):,.0f}; interpreted, in turns with it: {statistics.median(plain):,.0f}, best {max(plain):,.0f}"
    )
    return [Row("engine-compiled", what, "≥ 20,000", f"{rate:,.0f}", rate >= 20_000, detail)]


def _rate(env: dict[str, str]) -> float:
    words = [sys.executable, "-m", "benchmarks", "--only", "engine", "--json"]
    ran = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    try:
        (row,) = json.loads(ran.stdout)
    except ValueError:
        raise RuntimeError(ran.stderr[-2000:]) from None
    return float(row["measured"].replace(",", ""))


def _place(number: int) -> int:
    """Buy and sell each symbol in turn, first at the market and then with limits."""
    symbol, side, kind = number // 2 % 4, number % 2, number // 8 % 2
    return symbol * 4 + side * 2 + kind


def away(_: int, orders: int = 100) -> list[Row]:
    """An account with open limits, stops and trailing stops that nobody looked at for eight hours."""
    clock = _Clock()
    with tempfile.TemporaryDirectory() as folder:
        exchange = Exchange(folder, clock)
        exchange.reset(rate_limit=0, cash=Decimal(10**9))
        account = exchange.account_number("PKBENCH", "s")
        for number in range(orders):
            symbol = _SYMBOLS[number % 4]
            clock.now += 1
            with exchange.desk(account, changes=True) as desk:
                entry.submit(desk, _waiting(number, symbol, desk.market.tape.last(symbol, desk.now_ns)))
        exchange.close()
        clock.now += _HOURS
        began = time.perf_counter()
        exchange = Exchange(folder, clock)
        exchange.catch_up(account)
        seconds = time.perf_counter() - began
        with exchange.desk(account, changes=False) as desk:
            counts = desk.db.execute("SELECT status, count(*) FROM orders GROUP BY status ORDER BY status").fetchall()
        exchange.close()
    states = ", ".join(f"{count} {status}" for status, count in counts)
    what = f"catching up {orders} open orders after 8 hours away"
    return [Row("away", what, "≤ 0.5 s", f"{seconds:.3f} s", seconds <= 0.5, states)]


def _waiting(number: int, symbol: str, last: Decimal) -> dict[str, object]:
    """Return an order that waits: near or far limits, stops above, trailing stops."""
    body: dict[str, object] = {"symbol": symbol, "qty": "1", "side": "buy", "time_in_force": "gtc"}
    far = Decimal(1 + number % 20) / 1000
    kind = number % 3
    if kind == 0:
        return body | {"type": "limit", "limit_price": str(round(last * (1 - far), 2))}
    if kind == 1:
        return body | {"type": "stop", "stop_price": str(round(last * (1 + far), 2))}
    return body | {"type": "trailing_stop", "trail_percent": str(1 + number % 20 / 10)}


def over_http(_: int, orders: int = 1_000) -> list[Row]:
    """Market orders with the official SDK as the client, one process each: whose processor time is spent.

    Both have started before it counts: the client has asked for its account, and a client before it has sent orders.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        reset = [alpacli(), "sim", "reset", "--rate-limit", "0", "--cash", "1000000000", "--yes", "--quiet"]
        subprocess.run(reset, env=environment(folder), check=True, stdout=subprocess.DEVNULL)
        with _serving([alpacli(), "sim", "serve", "--port", "0", "--quiet"], folder) as (url, process):
            _run_sdk(_ORDERS, url, "20")
            before = processor_s(process.pid)
            client = _run_sdk(_ORDERS, url, str(orders))
            after = processor_s(process.pid)
    what = "the same over HTTP with the SDK as the client: the exchange's share of the processor time"
    if before is None or after is None:
        return [Row("engine-http", what, "≤ 50 %", "?", None, "not to be had here")]
    exchange_s, client_s = after - before, client["cpu"]
    share = exchange_s / (exchange_s + client_s)
    detail = (
        f"per order {exchange_s / orders * 1000:.2f} ms exchange, {client_s / orders * 1000:.2f} ms SDK;"
        f" {orders / client['wall']:,.0f} orders/s by the clock"
    )
    return [Row("engine-http", what, "≤ 50 %", f"{share:.0%}", share <= 0.5, detail)]


def past_day(_pairs: int, symbols: int = 500) -> list[Row]:
    """A day of minute bars through ``sim replay`` to a strategy that sends an order a minute with the SDK."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        names = [f"S{number:03d}" for number in range(symbols)]
        _write_day(folder / "day.csv", names)
        began = time.perf_counter()
        with _serving([alpacli(), "sim", "replay", str(folder / "day.csv"), "--port", "0", "--quiet"], folder) as (
            url,
            _,
        ):
            ready = time.perf_counter() - began
            client = _run_sdk(_STRATEGY, url, ",".join(names))
    seconds = client["wall"]
    if client["bars"] < 389 * symbols or client["orders"] != 390:
        raise RuntimeError(f"the strategy saw {client['bars']} bars and sent {client['orders']} orders")
    what = f"a past day of minute bars for {symbols} symbols, an order a minute through the SDK"
    detail = f"{client['bars']:,.0f} bars, 390 orders; reading the files took {ready:.1f} s before"
    return [Row("past-day", what, "≤ 60 s", f"{seconds:.1f} s", seconds + ready <= 60, detail)]


def _write_day(path: Path, names: list[str]) -> None:
    opens = datetime(2024, 1, 3, 14, 30, tzinfo=UTC)
    with path.open("w") as file:
        file.write("symbol,timestamp,open,high,low,close,volume\n")
        for minute in range(390):
            at = (opens + timedelta(minutes=minute)).isoformat()
            for number, name in enumerate(names):
                price = 50 + number + (minute * 7 + number * 3) % 11 / 10
                file.write(
                    f"{name},{at},{price:.2f},{price + 0.3:.2f},{price - 0.2:.2f},{price + 0.1:.2f},{1000 + minute}\n"
                )


@contextmanager
def _serving(command: list[str], folder: Path) -> "Iterator[tuple[str, subprocess.Popen[str]]]":
    process = subprocess.Popen(command, env=environment(folder), stdout=subprocess.PIPE, text=True)
    try:
        if process.stdout is None:
            raise AssertionError("it has a pipe")
        yield process.stdout.readline().strip(), process
    finally:
        process.terminate()
        process.communicate(timeout=30)


def _run_sdk(program: str, *arguments: str) -> dict[str, float]:
    ran = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    if ran.returncode:
        raise RuntimeError(ran.stderr[-2000:])
    found: dict[str, float] = json.loads(ran.stdout)
    return found


_ORDERS = """
import json, sys, time
from alpaca.trading.client import TradingClient
from alpaca.trading.requests import MarketOrderRequest
client = TradingClient("PKBENCH", "s", url_override=sys.argv[1])
client.get_account()
began, used = time.perf_counter(), time.process_time()
for number in range(int(sys.argv[2])):
    symbol = ("AAPL", "MSFT", "NVDA", "AMZN")[number % 4]
    client.submit_order(MarketOrderRequest(symbol=symbol, qty=1, side="buy", time_in_force="day"))
print(json.dumps({"wall": time.perf_counter() - began, "cpu": time.process_time() - used}))
"""

_STRATEGY = """
import json, os, sys, time
from alpaca.data.enums import DataFeed
from alpaca.data.live import StockDataStream
from alpaca.trading.client import TradingClient
from alpaca.trading.requests import MarketOrderRequest
url, names = sys.argv[1], sys.argv[2].split(",")
trading = TradingClient("PKBENCH", "s", url_override=url)
stream = StockDataStream("PKBENCH", "s", feed=DataFeed.IEX, url_override=url.replace("http", "ws") + "/v2/iex")
seen, orders, minute, began = 0, 0, None, time.perf_counter()

async def on_bar(bar):
    global seen, orders, minute
    seen += 1
    if bar.timestamp == minute:
        return
    minute, orders = bar.timestamp, orders + 1
    trading.submit_order(MarketOrderRequest(symbol=names[orders // 2 % len(names)], qty=1, side="buy", time_in_force="day"))
    if orders == 390:
        print(json.dumps({"wall": time.perf_counter() - began, "bars": seen, "orders": orders}), flush=True)
        os._exit(0)

stream.subscribe_bars(on_bar, *names)
stream.run()
"""
