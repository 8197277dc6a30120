"""Live data: lines against the official SDK, the table under load, the first tick, twenty streams on one socket, memory."""

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

from benchmarks.feed_server import Plan, names
from benchmarks.measure import Row, alpacli, environment

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICK = os.sysconf("SC_CLK_TCK")
_ANSI = re.compile(rb"\x1b\[[0-9;?]*[a-zA-Z]")

_SDK = """
import sys, time
from alpaca.data.live import StockDataStream
from alpaca.data.enums import DataFeed
left = int(sys.argv[2])
async def handle(_):
    global left
    left -= 1
    if not left:
        print(time.monotonic(), flush=True)
        import os; os._exit(0)
stream = StockDataStream("PKBENCHMARK", "benchmark-secret", feed=DataFeed.IEX, url_override=sys.argv[1] + "/v2/iex")
symbols = sys.argv[3:]
stream.subscribe_trades(handle, *symbols)
stream.subscribe_quotes(handle, *symbols)
stream.run()
"""

_BARE = """
import asyncio, json, typer
from websockets.asyncio.client import connect
async def watch(url, symbols):
    async with connect(url) as socket:
        await socket.recv()
        await socket.send(json.dumps({"action": "auth", "key": "PKBENCHMARK", "secret": "benchmark-secret"}))
        await socket.recv()
        await socket.send(json.dumps({"action": "subscribe", "trades": symbols, "quotes": symbols}))
        await socket.recv()
        for message in json.loads(await socket.recv()):
            print(message, flush=True)
app = typer.Typer()
@app.command()
def main(url: str, symbols: list[str]):
    asyncio.run(watch(url, symbols))
app()
"""


class _Feed:
    """The server's process."""

    def __init__(self, plan: Plan) -> None:
        argv = [sys.executable, "-m", "benchmarks.feed_server", json.dumps(plan._asdict())]
        self._process = subprocess.Popen(argv, stdout=subprocess.PIPE)
        self.url = f"ws://127.0.0.1:{int(self._line())}"

    def _line(self) -> str:
        if self._process.stdout is None:
            raise AssertionError("a pipe was asked for")
        line = self._process.stdout.readline().decode()
        if not line:
            raise RuntimeError("the feed's process ended")
        return line

    def first_byte(self) -> float:
        return float(self._line())

    def connections(self) -> int:
        """Return how many clients are connected now."""
        port = f":{int(self.url.rpartition(':')[2]):04X}"
        lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
        return sum(1 for line in lines if line.split()[1].endswith(port) and line.split()[3] == "01")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def _feeding(plan: Plan, linger_s: float = 0.5) -> Iterator[tuple[_Feed, dict[str, str]]]:
    """Run a feed, and give the environment of clients whose hub is theirs alone."""
    with tempfile.TemporaryDirectory(prefix="ab", dir="/tmp") as folder:
        feed = _Feed(plan)
        env = environment(Path(folder), ALPACA_STREAM_URL=feed.url, ALPACA_BASE_URL="http://127.0.0.1:9")
        env |= {"ALPACA_DATA_URL": "http://127.0.0.1:9", "XDG_RUNTIME_DIR": folder, "ALPACLI_HUB_LINGER": str(linger_s)}
        try:
            yield feed, env
        finally:
            feed.close()
            _until(lambda: not _hubs(folder), 10)


def _hubs(folder: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            command = (entry / "cmdline").read_bytes()
            if b"alpacli.runtime" in command and folder.encode() in command:
                found.append(int(entry.name))
    return found


def _until(holds: Callable[[], bool], seconds: float) -> bool:
    give_up_at = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > give_up_at:
            return False
        time.sleep(0.01)
    return True


def _rss(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def _stream(env: dict[str, str], symbols: list[str], *options: str) -> subprocess.Popen[bytes]:
    argv = [alpacli(), "stream", *symbols, "--json", *options]
    return subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def _count_lines(process: subprocess.Popen[bytes], wanted: int) -> float:
    """Read until so many lines have come; return when the last one did."""
    if process.stdout is None:
        raise AssertionError("a pipe was asked for")
    descriptor, count = process.stdout.fileno(), 0
    while count < wanted:
        data = os.read(descriptor, 1 << 20)
        if not data:
            errors = process.stderr.read().decode() if process.stderr is not None else ""
            raise RuntimeError(f"the stream ended after {count} of {wanted} lines: {errors[-500:]}")
        count += data.count(b"\n")
    return time.monotonic()


# ------------------------------------------------------------------------------------------------ lines


def _ours_per_s(plan: Plan, *options: str) -> float:
    with _feeding(plan) as (feed, env):
        process = _stream(env, [*names(plan.symbols), "GO"], "--count", str(plan.messages), *options)
        last = _count_lines(process, plan.messages)
        process.wait()
        return plan.messages / (last - feed.first_byte())


def _sdk_per_s(plan: Plan) -> float:
    with _feeding(plan) as (feed, env):
        argv = [sys.executable, "-c", _SDK, feed.url, str(plan.messages), *names(plan.symbols), "GO"]
        process = subprocess.run(argv, env=env, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        return plan.messages / (float(process.stdout) - feed.first_byte())


def lines(pairs: int) -> list[Row]:
    """NDJSON of a real process, read to its last line, against the SDK with an empty handler."""
    rows = []
    for per_frame, goal, messages in ((20, 5.0, 300_000), (1, 3.0, 150_000)):
        plan = Plan(messages, per_frame)
        turns = max(min(pairs // 5, 5), 1)
        shared: list[float] = []
        alone: list[float] = []
        sdk: list[float] = []
        for _ in range(turns):
            sdk.append(_sdk_per_s(plan))
            shared.append(_ours_per_s(plan))
            alone.append(_ours_per_s(plan, "--no-hub"))
        medians = [statistics.median(found) for found in (shared, alone, sdk)]
        ratio = medians[0] / medians[2]
        detail = f"messages/s: shared {medians[0]:,.0f}, --no-hub {medians[1]:,.0f} ({medians[1] / medians[2]:.1f} ×), "
        detail += f"SDK {medians[2]:,.0f}; medians of {turns}"
        what = f"lines of `stream --json`, {per_frame} messages a frame / SDK"
        rows.append(Row(f"lines{per_frame}", what, f">= {goal:g} ×", f"{ratio:.1f} ×", ratio >= goal, detail))
    return rows


# ------------------------------------------------------------------------------------------------ table


def _on_terminal(argv: list[str], env: dict[str, str], columns: int, rows: int) -> tuple[subprocess.Popen[bytes], int]:
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    process = subprocess.Popen(argv, env=env, stdin=follower, stdout=follower, stderr=follower, start_new_session=True)
    os.close(follower)
    return process, leader


def _frames_seen(leader: int, seconds: float) -> list[tuple[float, bytes]]:
    """Read the screen for so long; return when each piece came, and the piece without its colours."""
    seen = []
    end = time.time() + seconds
    while time.time() < end:
        ready, _, _ = select.select([leader], [], [], 0.05)
        if ready:
            seen.append((time.time(), _ANSI.sub(b"", os.read(leader, 1 << 18))))
    return seen


def watching(_: int) -> list[Row]:
    """The table at 100,000 messages/s and 500 symbols: how old what it shows is, whether all came, and what it costs."""
    seconds = 20
    plan = Plan(100_000 * seconds, 20, symbols=500, rate=100_000)
    with _feeding(plan) as (feed, env):
        process, leader = _on_terminal([alpacli(), "stream", *names(500), "GO"], env, 200, 50)
        try:
            _frames_seen(leader, 4)
            hubs = _hubs(env["XDG_RUNTIME_DIR"])
            began, cpu = time.monotonic(), [_cpu_s(pid) for pid in (process.pid, *hubs)]
            seen = _frames_seen(leader, 12)
            took = time.monotonic() - began
            used = [(_cpu_s(pid) - before) / took for pid, before in zip((process.pid, *hubs), cpu, strict=True)]
            last = b"".join(piece for _, piece in _frames_seen(leader, 8))
            feed.first_byte()
        finally:
            os.write(leader, b"q")
            with contextlib.suppress(OSError):
                while os.read(leader, 1 << 16):
                    pass
            process.wait()
            os.close(leader)
    ages = _ages_on_screen(seen)
    model = [int(found) for found in re.findall(rb"latency \d+/(\d+) ms", b"".join(piece for _, piece in seen))]
    shown = dict(re.findall(rb"(S\d\d\d) +[\d,.]+ .*? (\d,?\d*) +[\d,.]+ +\d+(?:\.\d)? +\d+s", last))
    expected = f"{plan.messages * 3 // 10 // plan.symbols:,}".encode()
    whole = bool(shown) and all(volume == expected for volume in shown.values())
    p99 = _percentile(ages, 0.99) * 1000
    worst = max(model, default=-1)
    detail = f"processor: table {used[0]:.2f}, hub {sum(used[1:]):.2f} of a core; age on the screen p50 "
    detail += f"{_percentile(ages, 0.5) * 1000:.0f} ms; volume of {len(shown)} symbols on the screen "
    detail += "is exactly what was sent" if whole else f"differs from what was sent ({expected.decode()}): {shown}"
    return [
        Row(
            "table-model",
            "table at 100,000 messages/s: age in the model, p99",
            "< 50 ms",
            f"{worst} ms",
            0 <= worst < 50,
        ),
        Row("table-screen", "… age on the screen, p99", "< 150 ms", f"{p99:.0f} ms", p99 < 150, detail),
        Row("table-cpu", "… processor of the table's process", "<= 1 core", f"{used[0]:.2f}", used[0] <= 1),
        Row("table-whole", "… nothing lost", "0 lost", "0 lost" if whole else "lost", whole),
    ]


def _ages_on_screen(seen: list[tuple[float, bytes]]) -> list[float]:
    """Return how old the first symbol's last price was at every millisecond: its price says when it was sent."""
    found: list[tuple[float, float]] = []
    for at, piece in seen:
        prices = re.findall(rb"S000 +([\d,]+\.\d\d)", piece)
        if prices:
            sent_ms = (float(prices[-1].replace(b",", b"")) - 100) * 100
            age = (at * 1000 - sent_ms) % 1_000_000 / 1000
            found.append((at, age))
    ages = []
    for (at, age), (until, _) in pairwise(found):
        ages += [age + step / 1000 for step in range(int((until - at) * 1000))]
    return ages


def _percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)] if values else float("inf")


# ------------------------------------------------------------------------------------------------ first tick


def _first_tick_s(argv: list[str], env: dict[str, str], shows: bytes) -> float:
    began = time.perf_counter()
    process, leader = _on_terminal(argv, env, 120, 30)
    output = b""
    try:
        while shows not in output:
            ready, _, _ = select.select([leader], [], [], 20)
            if not ready:
                raise RuntimeError(f"no tick within 20 s: {output[-300:]!r}")
            output += os.read(leader, 1 << 16)
        return time.perf_counter() - began
    finally:
        process.kill()
        process.wait()
        os.close(leader)


def first(pairs: int) -> list[Row]:
    """From the command to the first price on a terminal, against a bare Typer + websockets program."""
    plan = Plan(10**9, 10, symbols=1, rate=1000)
    ours = [alpacli(), "stream", "S000", "GO"]
    cold: list[float] = []
    warm: list[float] = []
    alone: list[float] = []
    bare: list[float] = []
    with _feeding(plan, linger_s=0.2) as (feed, env):
        reference = [sys.executable, "-c", _BARE, f"{feed.url}/v2/iex", "S000", "GO"]
        for _ in range(pairs + 1):
            bare.append(_first_tick_s(reference, env, b"S000"))
            _until(lambda: not _hubs(env["XDG_RUNTIME_DIR"]), 10)
            cold.append(_first_tick_s(ours, env, b"100."))
            alone.append(_first_tick_s([*ours, "--no-hub"], env, b"100."))
        keeper = _stream(env, ["S000", "GO"])
        warm += [_first_tick_s(ours, env, b"100.") for _ in range(pairs + 1)]
        keeper.kill()
        keeper.communicate()
    medians = [statistics.median(found[1:]) for found in (cold, warm, alone, bare)]
    ratio = medians[0] / medians[3]
    detail = f"first stream {medians[0] * 1000:.0f} ms, next streams {medians[1] * 1000:.0f} ms "
    detail += (
        f"({medians[1] / medians[3]:.2f} ×), --no-hub {medians[2] * 1000:.0f} ms ({medians[2] / medians[3]:.2f} ×), "
    )
    detail += f"bare {medians[3] * 1000:.0f} ms; medians of {pairs}"
    return [
        Row("first", "to the first tick on a terminal / bare program", "<= 2 ×", f"{ratio:.2f} ×", ratio <= 2, detail)
    ]


# ------------------------------------------------------------------------------------------------ many


def _read_all(processes: list[subprocess.Popen[bytes]], wanted: int) -> float:
    """Read all of them at once until each has given so many lines; return when the last one did."""
    left = {process.stdout.fileno(): wanted for process in processes if process.stdout is not None}
    while left:
        for descriptor in select.select(list(left), [], [], 60)[0]:
            data = os.read(descriptor, 1 << 20)
            left[descriptor] -= data.count(b"\n")
            if left[descriptor] <= 0 or not data:
                del left[descriptor]
    return time.monotonic()


def _delays_ms(process: subprocess.Popen[bytes], others: list[subprocess.Popen[bytes]], seconds: float) -> list[float]:
    """Return how long after it was sent each line of one stream came, while all others are read too."""
    from alpacli.domain.ticks import instant_ns

    if process.stdout is None:
        raise AssertionError("a pipe was asked for")
    mine = process.stdout.fileno()
    descriptors = [mine, *(other.stdout.fileno() for other in others if other.stdout is not None)]
    delays: list[float] = []
    pending: list[tuple[int, bytes]] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for descriptor in select.select(descriptors, [], [], 0.05)[0]:
            data = os.read(descriptor, 1 << 20)
            if descriptor == mine:
                pending.append((time.time_ns(), data))
    for at_ns, data in pending:
        delays += [
            (at_ns - instant_ns(found.decode())) / 1e6 for found in re.findall(rb'"timestamp":"([^"]{30})"', data)
        ]
    return delays


def many(_: int) -> list[Row]:
    """Twenty streams through the shared socket: what they get in sum, and how much later than on a socket of their own."""
    streams, messages = 20, 200_000
    plan = Plan(messages, 20)
    with _feeding(plan) as (feed, env):
        processes = [_stream(env, names(20)) for _ in range(streams - 1)]
        _until(lambda: feed.connections() == 1, 20)
        time.sleep(8)
        processes.append(_stream(env, [*names(20), "GO"]))
        last = _read_all(processes, messages)
        rate = streams * messages / (last - feed.first_byte())
        upstream = feed.connections()
        _end(processes)
    paced = Plan(10_000 * 40, 10, rate=10_000)
    with _feeding(paced) as (_feed, env):
        alone = _stream(env, [*names(20), "GO"], "--no-hub")
        direct = _delays_ms(alone, [], 6)
        _end([alone])
    with _feeding(paced) as (_feed, env):
        processes = [_stream(env, [*names(20), "GO"]) for _ in range(streams)]
        _delays_ms(processes[0], processes[1:], 14)  # until all have started
        shared = _delays_ms(processes[0], processes[1:], 10)
        _end(processes)
    added = _percentile(shared, 0.99) - _percentile(direct[len(direct) // 2 :], 0.5)
    detail = f"sent to read: shared p50 {_percentile(shared, 0.5):.1f} ms, p99 {_percentile(shared, 0.99):.1f} ms; "
    detail += f"socket of its own p50 {_percentile(direct[len(direct) // 2 :], 0.5):.1f} ms"
    return [
        Row("many-upstream", "20 streams: connections to the server", "1", str(upstream), upstream == 1),
        Row("many-rate", "… delivered in sum, messages/s", ">= 300,000", f"{rate:,.0f}", rate >= 300_000),
        Row("many-delay", "… added at 10,000 messages/s, p99", "<= 15 ms", f"{added:.1f} ms", added <= 15, detail),
    ]


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.kill()
    for process in processes:
        process.communicate()


# ------------------------------------------------------------------------------------------------ memory


def memory(_: int) -> list[Row]:
    """Resident memory of a stream and of its hub after two and after ten million messages."""
    messages = 10_000_000
    taken: list[tuple[int, list[int]]] = []
    with _feeding(Plan(messages, 20)) as (_feed, env):
        process = _stream(env, [*names(20), "GO"], "--count", str(messages))
        if process.stdout is None:
            raise AssertionError("a pipe was asked for")
        count, look_at, pids = 0, 1_000_000, [process.pid]
        while data := os.read(process.stdout.fileno(), 1 << 20):
            count += data.count(b"\n")
            if count >= look_at:
                pids = pids if len(pids) == 2 else [process.pid, *_hubs(env["XDG_RUNTIME_DIR"])]
                taken.append((count, [_rss(pid) for pid in pids]))
                look_at = count + 500_000
        process.communicate()
    early = next(sizes for seen, sizes in taken if seen >= count // 5)
    late = taken[-1][1]
    worst = max((after / before - 1 for before, after in zip(early, late, strict=True)), key=abs)
    detail = ", ".join(
        f"{who} {before >> 20} to {after >> 20} MiB"
        for who, before, after in zip(("stream", "hub"), early, late, strict=True)
    )
    detail += f" between {count // 5:,} and {taken[-1][0]:,} lines"
    return [Row("memory", "memory after 10 million messages", "± 5 %", f"{worst:+.1%}", abs(worst) <= 0.05, detail)]
