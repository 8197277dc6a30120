"""A day of normal use, replayed on a clock that is moved by hand: what the cache saves, and what of the budget is used.

A status line shows the account once a second, around the clock. Three cron jobs start together every minute; each snapshots
account and positions. A person looks at account, positions and orders some forty times, now and then twice in a row.
"""

import itertools
import json
import random
import time
from collections import Counter

from alpacli.broker.client import AlpacaClient
from alpacli.broker.flow import Pipeline
from alpacli.ports import BudgetRules, Request, Response, SystemRandomness
from alpacli.settings import DEFAULT_CACHE_TTL_S
from alpacli.store.sqlite import SqliteStore
from benchmarks.measure import Row
from benchmarks.starts import ACCOUNT

SECONDS = 86_400
STATUS, CRON, PERSON = "status line", "cron job", "person"


class _DayClock:
    """Virtual time in seconds since the day began, on top of an arbitrary date."""

    def __init__(self) -> None:
        self.now = 0.0

    def time(self) -> float:
        return 1_780_000_000.0 + self.now

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += max(seconds, 0.0)


class _CountingTransport:
    """Answers every request at once and counts them by minute of the day and by path."""

    def __init__(self, clock: _DayClock) -> None:
        self._clock = clock
        self.by_minute: Counter[int] = Counter()
        self.by_path: Counter[str] = Counter()
        self._account = json.dumps(ACCOUNT).encode()

    def send(self, request: Request, *, connect_timeout_s: float, read_timeout_s: float) -> Response:
        self.by_minute[int(self._clock.now // 60)] += 1
        self.by_path[request.path] += 1
        return Response(200, {}, self._account if request.path == "/v2/account" else b"[]")

    def close(self) -> None:
        """Nothing is open."""


def _events(rng: random.Random) -> list[tuple[float, str]]:
    """Return what happens when: seconds of the day, in order."""
    status = ((second + 0.4, STATUS) for second in range(SECONDS))
    cron = ((minute * 60 + rng.uniform(0.05, 0.9), CRON) for minute in range(SECONDS // 60) for _ in range(3))
    looks = [rng.uniform(8 * 3600, 22 * 3600) for _ in range(40)]
    again = [at + rng.uniform(1.0, 8.0) for at in looks if rng.random() < 0.4]
    person = ((at, PERSON) for at in (*looks, *again))
    return sorted(itertools.chain(status, cron, person))


def day() -> list[Row]:
    """Replay the day through the library, its real store and its real rules."""
    clock = _DayClock()
    transport = _CountingTransport(clock)
    rules = BudgetRules(scope="alpaca:{benchmark}")
    store = SqliteStore(":memory:", clock)
    pipeline = Pipeline(
        store,
        clock,
        SystemRandomness(),
        rules=rules,
        cache_ttl_s=DEFAULT_CACHE_TTL_S,
        max_wait_s=10.0,
        patience_s=15.0,
        label="benchmark",
    )
    started = time.perf_counter()
    reads: Counter[str] = Counter()
    with AlpacaClient(pipeline, transport, clock=clock) as paper:
        for at, who in _events(random.Random(7)):
            clock.now = max(clock.now, at)
            paper.get_account()
            reads["account"] += 1
            if who != STATUS:
                paper.get_positions()
                reads["positions"] += 1
            if who == PERSON:
                paper.get_orders(status="all", limit=100)
    rate = 1 - sum(transport.by_path[f"/v2/{name}"] for name in reads) / reads.total()
    busiest = max(transport.by_minute.values()) / rules.limit
    rates = ", ".join(f"{name} {1 - transport.by_path[f'/v2/{name}'] / count:.1%}" for name, count in reads.items())
    seconds = time.perf_counter() - started
    return [
        Row(
            "day",
            "a day replayed: cache hits, account and positions",
            "> 80 %",
            f"{rate:.1%}",
            rate > 0.8,
            f"{rates}; {reads.total()} reads replayed in {seconds:.0f} s",
        ),
        Row(
            "day",
            "a day replayed: budget use, busiest minute",
            "< 50 %",
            f"{busiest:.1%}",
            busiest < 0.5,
            f"{sum(transport.by_minute.values())} requests in all",
        ),
    ]
