"""The gateway's relay: how many messages for how many clients, how soon, whoever is stuck, and in how much memory."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

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
    messages: Sequence[int]
    p50_ms: float
    p99_ms: float
    seconds: float
    gateway_cores: float
    hub_cores: float
    mib: tuple[float, float]
    late_s: float
    lost: int


def _headers(at: Place) -> dict[str, str]:
    return {"APCA-API-KEY-ID": at.env["ALPACA_API_KEY"], "APCA-API-SECRET-KEY": at.env["ALPACA_SECRET_KEY"]}


def _take(seconds: float, *, stuck: int) -> _Taken:
    with (
        Feed() as feed,
        place(feed) as at,
        _gateway(at) as gateway,
        Listeners(
            gateway.url, _headers(at), clients=_CLIENTS - stuck, per_client=_PER_CLIENT, symbols=_SYMBOLS, stuck=stuck
        ) as listeners,
    ):
        feed.begin("pace", rate=_RATE, seconds=3.0, per_frame=20, symbols=_SYMBOLS)  # the start
        feed.finished()
        time.sleep(0.5)
        listeners.report()
        hub = at.hub()
        before = (time.monotonic(), processor_s(gateway.pid) or 0.0, processor_s(hub) or 0.0)
        first = resident_mib(gateway.pid) or 0.0
        feed.begin("pace", rate=_RATE, seconds=seconds, per_frame=20, symbols=_SYMBOLS)
        sent = feed.finished()
        wall_s = time.monotonic() - before[0]
        time.sleep(1.0)
        told = listeners.report()
        return _Taken(
            told["messages"],
            told["p50_ms"],
            told["p99_ms"],
            wall_s,
            ((processor_s(gateway.pid) or 0.0) - before[1]) / wall_s,
            ((processor_s(hub) or 0.0) - before[2]) / wall_s,
            (first, resident_mib(gateway.pid) or 0.0),
            sent.late_s,
            told["lost"],
        )


def relay(_: int, seconds: float = 15.0) -> list[Row]:
    """A hundred clients with fifty of five hundred symbols each, without and with one that does not read."""
    due = list(expected(_RATE, seconds, _SYMBOLS, _PER_CLIENT, _CLIENTS))
    rows = []
    for stuck in (0, 1):
        taken = _take(seconds, stuck=stuck)
        whole = list(taken.messages) == due[: len(taken.messages)]
        what = f"relay, {_CLIENTS} clients{', and one that does not read' if stuck else ''}"
        rate = sum(taken.messages) / taken.seconds
        cores = f"gateway {taken.gateway_cores:.2f} cores, hub {taken.hub_cores:.2f}; the feed was up to"
        grown = taken.mib[1] - taken.mib[0]
        rows += [
            Row(
                "relay",
                f"{what}: every client gets its own",
                "all",
                f"{rate:,.0f}/s",
                whole and not taken.lost,
                f"{sum(taken.messages):,} of {sum(due[: len(taken.messages)]):,} deliveries at {_RATE:,} messages/s",
            ),
            Row(
                "relay",
                f"{what}: latency, p99",
                "≤ 20 ms",
                f"{taken.p99_ms:.1f} ms",
                taken.p99_ms <= 20,
                f"p50 {taken.p50_ms:.1f} ms; {cores} {taken.late_s * 1000:.0f} ms late",
            ),
            Row("relay", f"{what}: memory", "flat", f"+{grown:.1f} MiB", grown < 8, f"from {taken.mib[0]:.0f} MiB"),
        ]
    return rows


if __name__ == "__main__":
    print(json.dumps([row._asdict() for row in relay(1, 8.0)], indent=1, ensure_ascii=False))
