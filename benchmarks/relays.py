"""The gateway's relay: how many messages for how many clients, how soon, whoever is stuck, and in how much memory.

A message passes four to six processes here, so on a machine with other work it is mostly that work which is measured; what
the feed itself looks like to a client at the same time is in the row's detail. ``chrt -r 10 python -m benchmarks --only
relay`` is not disturbed.
"""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.support import valkey

from benchmarks.feed import Feed
from benchmarks.listeners import Listeners, expected
from benchmarks.measure import Row, alpacli
from benchmarks.running import Place, place, processor_s, resident_mib

_CLIENTS, _PER_CLIENT, _SYMBOLS, _RATE = 100, 50, 500, 20_000


class _Gateway(NamedTuple):
    url: str
    pid: int


@contextmanager
def _gateway(at: Place, **env: str) -> Iterator[_Gateway]:
    process = subprocess.Popen(
        [alpacli(), "serve", "--port", "0", "--quiet"], env={**at.env, **env}, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield _Gateway(process.stdout.readline().decode().strip(), process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


class _Taken(NamedTuple):
    """What one run of the feed gave. ``cores`` are the processors that each process used, by name."""

    messages: Sequence[int]
    p50_ms: float
    p99_ms: float
    direct: str
    added_ms: float
    seconds: float
    cores: dict[str, float]
    mib: tuple[float, float]
    late_s: float
    lost: int

    @property
    def detail(self) -> str:
        used = ", ".join(f"{name} {cores:.2f}" for name, cores in self.cores.items())
        return (
            f"p50 {self.p50_ms:.1f} ms, p99 {self.p99_ms:.1f} ms; the feed read directly at the same time {self.direct};"
            f" cores: {used}; the feed was up to {self.late_s * 1000:.0f} ms late"
        )


def _headers(at: Place) -> dict[str, str]:
    return {"APCA-API-KEY-ID": at.env["ALPACA_API_KEY"], "APCA-API-SECRET-KEY": at.env["ALPACA_SECRET_KEY"]}


def _take(feed: Feed, listeners: Listeners, processes: dict[str, int | None], gateway: int, seconds: float) -> _Taken:
    feed.begin("pace", rate=_RATE, seconds=3.0, per_frame=20, symbols=_SYMBOLS)  # the start
    feed.finished()
    time.sleep(1.0)
    listeners.report()
    began = time.monotonic()
    before = {name: processor_s(pid) or 0.0 for name, pid in processes.items()}
    first = resident_mib(gateway) or 0.0
    feed.begin("pace", rate=_RATE, seconds=seconds, per_frame=20, symbols=_SYMBOLS)
    sent = feed.finished()
    wall_s = time.monotonic() - began
    cores = {name: ((processor_s(pid) or 0.0) - before[name]) / wall_s for name, pid in processes.items()}
    time.sleep(1.0)
    told = listeners.report()
    return _Taken(
        told["messages"],
        told["p50_ms"],
        told["p99_ms"],
        f"p50 {told['direct_p50_ms']:.1f} ms, p99 {told['direct_p99_ms']:.1f} ms",
        told["p99_ms"] - told["direct_p50_ms"],
        wall_s,
        cores,
        (first, resident_mib(gateway) or 0.0),
        sent.late_s,
        told["lost"],
    )


def relay(_: int, seconds: float = 15.0) -> list[Row]:
    """A hundred clients with fifty of five hundred symbols each, without and with one that does not read."""
    rows = []
    for stuck in (0, 1):
        clients = _CLIENTS - stuck
        with ExitStack() as stack:
            feed = stack.enter_context(Feed())
            at = stack.enter_context(place(feed))
            gateway = stack.enter_context(_gateway(at))
            listeners = stack.enter_context(
                Listeners(
                    gateway.url,
                    feed.url,
                    _headers(at),
                    clients=clients,
                    per_client=_PER_CLIENT,
                    symbols=_SYMBOLS,
                    stuck=stuck,
                )
            )
            processes = {"gateway": gateway.pid, "hub": at.hub(), "clients": listeners.process.pid}
            taken = _take(feed, listeners, processes, gateway.pid, seconds)
        due = list(expected(_RATE, seconds, _SYMBOLS, _PER_CLIENT, clients))
        what = f"relay, {clients} clients{' beside one that does not read' if stuck else ''}"
        rows += _rows("relay", what, taken, due, 20)
        grown = taken.mib[1] - taken.mib[0]
        rows.append(
            Row("relay", f"{what}: memory", "flat", f"{grown:+.1f} MiB", grown < 8, f"from {taken.mib[0]:.0f} MiB")
        )
    return rows


def _rows(name: str, what: str, taken: _Taken, due: Sequence[int], goal_ms: float) -> list[Row]:
    came, wanted = sum(taken.messages), sum(due)
    return [
        Row(
            name,
            f"{what}: every client gets its own",
            "all",
            f"{came / taken.seconds:,.0f}/s",
            list(taken.messages) == list(due) and not taken.lost,
            f"{came:,} of {wanted:,} deliveries at {_RATE:,} messages/s",
        ),
        Row(
            name,
            f"{what}: added latency, p99",
            f"≤ {goal_ms:g} ms",
            f"{taken.added_ms:.1f} ms",
            taken.added_ms <= goal_ms,
            taken.detail,
        ),
    ]


def fleet(_: int, seconds: float = 15.0, clients: int = 10) -> list[Row]:
    """Clients of a gateway that hears through Redis from another one, which has the connection; and its death."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis = stack.enter_context(valkey.server(folder))
        feed = stack.enter_context(Feed())
        first, second = (stack.enter_context(place(feed)) for _ in range(2))
        holder = stack.enter_context(_gateway(first, REDIS_URL=redis.url))
        one = stack.enter_context(
            Listeners(holder.url, feed.url, _headers(first), clients=1, per_client=1, symbols=_SYMBOLS)
        )
        follower = stack.enter_context(_gateway(second, REDIS_URL=redis.url))
        listeners = stack.enter_context(
            Listeners(
                follower.url, feed.url, _headers(second), clients=clients, per_client=_PER_CLIENT, symbols=_SYMBOLS
            )
        )
        processes = {
            "holder's hub": first.hub(),
            "Redis": redis.process.pid if redis.process else None,
            "follower's hub": second.hub(),
            "gateway": follower.pid,
            "clients": listeners.process.pid,
        }
        taken = _take(feed, listeners, processes, follower.pid, seconds)
        due = list(expected(_RATE, seconds, _SYMBOLS, _PER_CLIENT, clients))
        rows = _rows("fleet", f"through Redis, {clients} clients of the other gateway", taken, due, 30)
        rows.append(_takeover(feed, first, holder, listeners))
        del one
    return rows


def _takeover(feed: Feed, first: Place, holder: _Gateway, listeners: Listeners) -> Row:
    """Kill the machine that holds the connection while the feed sends, and wait until something comes again."""
    feed.begin("pace", rate=2000, seconds=12.0, per_frame=20, symbols=_SYMBOLS)
    time.sleep(1.0)
    hub = first.hub()
    assert hub is not None
    os.kill(hub, signal.SIGKILL)
    os.kill(holder.pid, signal.SIGKILL)
    killed = time.monotonic()
    time.sleep(0.2)
    listeners.report()
    while not sum(listeners.report()["messages"]):
        time.sleep(0.02)
        if time.monotonic() - killed > 11:
            break
    taken_s = time.monotonic() - killed
    feed.finished()
    return Row("fleet", "kill -9 of the holder: until data comes again", "≤ 5 s", f"{taken_s:.1f} s", taken_s <= 5)
