"""A gateway for an hour while everything comes and goes: does its memory, do its open files or its asyncio tasks grow?

Market data comes from a feed all the time, orders from an exchange of its own; SDK clients, sockets of all three forms, one
that never reads, and a webhook use it meanwhile, at a pace that leaves the machine to others. What counts is the least of
each window of looks, since what somebody uses just now is no leak, and the windows after the first fifth, since a program
that has just started still fills its caches.
"""

import http.server
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import requests

from benchmarks.feed import Feed, names
from benchmarks.listeners import Listeners
from benchmarks.measure import Row, alpacli, environment
from benchmarks.running import hub_of, resident_mib

_RATE, _SYMBOLS, _STEADY = 500, 500, 5
_WINDOWS = 40
_MOST_MIB = 8.0


class _Look(NamedTuple):
    """What was open and how much memory was taken, at ``minute`` of the soak."""

    minute: float
    gateway_mib: float
    gateway_files: float
    gateway_tasks: float
    hub_mib: float
    hub_files: float


class _Load:
    """What uses the gateway: each part in a thread that goes on until the end; ``counts`` says how often it did."""

    def __init__(self, url: str, keys: tuple[str, str]) -> None:
        self.url = url
        self.ws = url.replace("http", "ws", 1)
        self.keys = keys
        self.headers = {"APCA-API-KEY-ID": keys[0], "APCA-API-SECRET-KEY": keys[1]}
        self.counts: dict[str, int] = {}
        self.failures: list[str] = []
        self.over = threading.Event()
        self._threads: list[threading.Thread] = []

    def repeat(self, what: str, every_s: float, work: Callable[[], None]) -> None:
        def run() -> None:
            while not self.over.wait(every_s):
                try:
                    work()
                except Exception as error:  # noqa: BLE001 # whatever it is belongs into the report
                    self.failures.append(f"{what}: {type(error).__name__} {error}")
                else:
                    self.counts[what] = self.counts.get(what, 0) + 1

        thread = threading.Thread(target=run, name=what, daemon=True)
        self._threads.append(thread)
        thread.start()

    def end(self) -> None:
        self.over.set()
        for thread in self._threads:
            thread.join(60)

    def sdk(self) -> None:
        """One client of the official SDK from start to end: it reads, buys, and closes."""
        from alpaca.trading.client import TradingClient
        from alpaca.trading.enums import OrderSide, TimeInForce
        from alpaca.trading.requests import MarketOrderRequest

        client = TradingClient(*self.keys, url_override=self.url)
        client.get_account()
        client.get_all_positions()
        client.submit_order(
            MarketOrderRequest(symbol="BTC/USD", qty=0.01, side=OrderSide.BUY, time_in_force=TimeInForce.GTC)
        )
        self.over.wait(2.0)
        client.close_position("BTCUSD")
        self.over.wait(2.0)
        client.get_orders()
        client._session.close()

    def own_requests(self) -> None:
        for path in ("account", "positions", "orders?limit=50", "stream/status"):
            requests.get(f"{self.url}/api/v1/broker/{path}", headers=self.headers, timeout=30).raise_for_status()
        wrong = requests.get(f"{self.url}/api/v1/broker/account", headers={"Authorization": "Bearer no"}, timeout=30)
        if wrong.status_code != 401:
            raise RuntimeError(f"a wrong token was answered with {wrong.status_code}")

    def sockets(self) -> None:
        """A socket of each form, which hears something and leaves: every second one without a goodbye."""
        from websockets.sync.client import connect

        turn = self.counts.get("rounds of sockets", 0)
        symbol = names(_SYMBOLS)[turn % _SYMBOLS]
        login = f'{{"action":"auth","key":"{self.keys[0]}","secret":"{self.keys[1]}"}}'
        for path, said, enough in (
            (f"/api/v1/broker/stream?symbols={symbol},AAA&streams=trades,quotes", (), 6),
            ("/v2/iex", (login, f'{{"action":"subscribe","trades":["{symbol}"],"quotes":["AAA"]}}'), 6),
            ("/stream", (login, '{"action":"listen","data":{"streams":["trade_updates"]}}'), 2),
        ):
            headers = self.headers if not said else None
            with connect(self.ws + path, additional_headers=headers, proxy=None, close_timeout=5) as socket:
                for command in said:
                    socket.send(command)
                for _ in range(enough):
                    socket.recv(30)
                if turn % 2:
                    socket.socket.shutdown(2)

    def scrape(self) -> str:
        answer = requests.get(f"{self.url}/metrics", headers=self.headers, timeout=30)
        answer.raise_for_status()
        return answer.text


class _Receiver(http.server.ThreadingHTTPServer):
    """Takes webhooks and counts them."""

    taken = 0
    daemon_threads = True

    class _Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(204)
            self.end_headers()
            assert isinstance(self.server, _Receiver)
            self.server.taken += 1

        def log_message(self, format: str, *args: Any) -> None:
            return

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), self._Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/hook"
        threading.Thread(target=self.serve_forever, daemon=True).start()


@contextmanager
def _running(command: Sequence[str], env: dict[str, str]) -> Iterator[tuple[str, int]]:
    """Run a server that prints its URL first; yield that and its process."""
    process = subprocess.Popen([alpacli(), *command, "--port", "0", "--quiet"], env=env, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().decode().split()[-1], process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


def soak(minutes: float, told: Callable[[str], object] = sys.stderr.write) -> list[Row]:
    """Let it run so long and judge what grew; ``told`` gets every look."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        runtime = folder / "run"
        runtime.mkdir(mode=0o700)
        feed = stack.enter_context(Feed())
        (folder / "exchange").mkdir()
        exchange, _ = stack.enter_context(_running(["sim", "serve"], environment(folder / "exchange")))
        urls = {"ALPACA_BASE_URL": exchange, "ALPACA_DATA_URL": exchange, "ALPACA_STREAM_URL": feed.url}
        env = environment(folder, XDG_RUNTIME_DIR=str(runtime), **urls)
        receiver = _Receiver()
        stack.callback(receiver.shutdown)
        subprocess.run(
            [alpacli(), "serve", "hooks", "add", receiver.url, "--quiet"], env=env, check=True, capture_output=True
        )
        gateway, pid = stack.enter_context(_running(["serve"], env))
        load = _Load(gateway, (env["ALPACA_API_KEY"], env["ALPACA_SECRET_KEY"]))
        stack.enter_context(
            Listeners(gateway, feed.url, load.headers, clients=_STEADY, per_client=50, symbols=_SYMBOLS)
        )
        stack.callback(load.end)

        def send() -> None:
            feed.begin("pace", rate=_RATE, seconds=20.0, per_frame=20, symbols=_SYMBOLS)
            feed.finished()

        def come_and_go() -> None:
            with Listeners(gateway, feed.url, load.headers, clients=10, per_client=20, symbols=_SYMBOLS, stuck=1):
                load.over.wait(2.0)

        load.repeat("stretches of the feed", 0.0, send)
        load.repeat("crowds of 11 sockets", 8.0, come_and_go)
        load.repeat("SDK clients", 2.0, load.sdk)
        load.repeat("rounds of requests", 1.0, load.own_requests)
        load.repeat("rounds of sockets", 1.0, load.sockets)
        looks = _watch(minutes, load, pid, runtime / "alpacli", told)
        counts = {**load.counts, "webhooks": receiver.taken}
    return _judge(minutes, looks, counts, load.failures)


def _watch(minutes: float, load: _Load, pid: int, sockets: Path, told: Callable[[str], object]) -> list[_Look]:
    began = time.monotonic()
    looks: list[_Look] = []
    every_s = max(min(minutes * 60 / _WINDOWS / 6, 5.0), 0.5)
    while (minute := (time.monotonic() - began) / 60) < minutes:
        time.sleep(every_s)
        text = load.scrape()
        tasks = float(text.partition("\nalpacli_tasks ")[2].partition("\n")[0])
        hubs = hub_of(sockets)
        looks.append(
            _Look(
                minute,
                resident_mib(pid) or 0.0,
                _open_files(pid),
                tasks,
                sum(resident_mib(hub) or 0.0 for hub in hubs),
                sum(_open_files(hub) for hub in hubs),
            )
        )
        if len(looks) % 6 == 0:
            told(f"{' '.join(f'{value:.1f}' for value in looks[-1])} {load.counts} {load.failures[-1:]}\n")
    return looks


def _open_files(pid: int) -> int:
    with suppress(OSError):
        return len(os.listdir(f"/proc/{pid}/fd"))
    return 0


def _judge(minutes: float, looks: list[_Look], counts: dict[str, int], failures: list[str]) -> list[Row]:
    used = ", ".join(f"{count:,} {what}" for what, count in sorted(counts.items()))
    rows = [
        Row("soak", f"soak, {minutes:g} minutes", "no failure", f"{len(failures)} failed", not failures, used),
    ]
    if failures:
        rows[0] = rows[0]._replace(detail=f"{used}; the first: {failures[0]}")
    for what, field, most, unit in (
        ("gateway's memory", "gateway_mib", _MOST_MIB, " MiB"),
        ("gateway's open files", "gateway_files", 1.0, ""),
        ("gateway's asyncio tasks", "gateway_tasks", 1.0, ""),
        ("hubs' memory", "hub_mib", _MOST_MIB, " MiB"),
        ("hubs' open files", "hub_files", 1.0, ""),
    ):
        least = _least([(look.minute, getattr(look, field)) for look in looks], minutes)
        quarter = max(len(least) // 4, 1)
        first = statistics.median(value for _, value in least[:quarter])
        last = statistics.median(value for _, value in least[-quarter:])
        grown = last - first
        course = ", ".join(f"{value:.0f}" for _, value in least[:: max(len(least) // 8, 1)])
        slope = _slope(least) * 60
        detail = f"from {first:.0f} to {last:.0f}{unit}, {slope:+.1f}{unit} an hour at that rate; {course}"
        rows.append(Row("soak", f"soak: {what}", "flat", f"{grown:+.1f}{unit}", grown <= most, detail))
    return rows


def _least(values: Sequence[tuple[float, float]], minutes: float) -> list[tuple[float, float]]:
    """Return the least of each window after the first fifth, and when that window began."""
    windows: dict[int, float] = {}
    for minute, value in values:
        window = int(minute / minutes * _WINDOWS)
        if window >= _WINDOWS // 5:
            windows[window] = min(value, windows.get(window, value))
    return [(window * minutes / _WINDOWS, value) for window, value in sorted(windows.items())]


def _slope(values: Sequence[tuple[float, float]]) -> float:
    """Return how much it grows a minute, by least squares."""
    if len(values) < 2:
        return 0.0
    return statistics.linear_regression(*zip(*values, strict=True)).slope
