"""One connection through the hours, on a clock that moves when told."""

import asyncio
import json
from collections.abc import Callable
from typing import TypeVar

import pytest
from tests.support.fakes import FixedRandomness, ManualClock

from alpacli.domain.ticks import Interest
from alpacli.errors import AlpacliError, ConnectionLost, RequestTimeout, StreamLost
from alpacli.streams.batch import Batch
from alpacli.streams.client import Reception
from alpacli.streams.events import Event, Gap, Live, Reconnecting
from alpacli.streams.session import MarketSession
from alpacli.streams.supervisor import HEALTHY_S, LONGEST_PAUSE_S, Supervisor

_SECOND_NS = 1_000_000_000
E = TypeVar("E", Gap, Live, Reconnecting)


class Network:
    """A server that is there except between ``down_at`` and ``up_at``, in seconds since the test began."""

    def __init__(self, clock: ManualClock, *outages: tuple[float, float], quiet: bool = False) -> None:
        self.clock = clock
        self.began = clock.monotonic()
        self.outages = outages
        self.quiet = quiet
        self.dialed = 0
        self.heard_ns = 0

    @property
    def at(self) -> float:
        return self.clock.monotonic() - self.began

    @property
    def is_down(self) -> bool:
        return any(down <= self.at < up for down, up in self.outages)

    async def sleep(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await asyncio.sleep(0)

    async def dial(self) -> "Line":
        self.dialed += 1
        if self.is_down:
            if self.dialed % 2:
                await self.sleep(5.0)
                raise RequestTimeout("no WebSocket within 5 s")
            raise ConnectionLost("cannot connect: Network is unreachable")
        return Line(self)


class Line:
    """A connection that is lost when the network goes down."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._said = ['[{"T":"success","msg":"connected"}]']
        self._number = 0

    async def send(self, frame: str | bytes) -> None:
        command = json.loads(frame)
        if command["action"] == "auth":
            self._said.append('[{"T":"success","msg":"authenticated"}]')
        else:
            self._said.append(json.dumps([{"T": "subscription", "trades": command["trades"]}]))

    async def recv(self) -> str | bytes:
        while True:
            await asyncio.sleep(0)
            if self._network.is_down:
                raise ConnectionLost("the connection broke")
            if self._said:
                return self._said.pop(0)
            if not self._network.quiet:
                self._network.heard_ns = int(self._network.clock.time() * 1_000_000) * 1000
                return '[{"T":"t","S":"A","p":1,"s":1,"t":"2026-01-02T15:00:00Z"}]'

    async def ping(self) -> None:
        if self._network.is_down:
            await asyncio.sleep(3600)
        self._network.heard_ns = int(self._network.clock.time() * 1_000_000) * 1000

    async def close(self) -> None: ...


class Watcher:
    def __init__(self, network: Network, done: Callable[["Watcher"], bool]) -> None:
        self.events: list[tuple[float, Event]] = []
        self.over = asyncio.Event()
        self._network = network
        self._done = done

    def batch(self, batch: Batch) -> None:
        if self._done(self):
            self.over.set()

    def event(self, event: Event) -> None:
        self.events.append((self._network.at, event))
        if self._done(self):
            self.over.set()

    def of(self, kind: type[E]) -> list[tuple[float, E]]:
        return [(at, event) for at, event in self.events if isinstance(event, kind)]


def watch(
    network: Network, done: Callable[[Watcher], bool], reconnect: int | None
) -> tuple[Watcher, AlpacliError | None]:
    """Stream until ``done`` or given up; return what was told, and the error."""

    async def run() -> tuple[Watcher, AlpacliError | None]:
        watcher = Watcher(network, done)
        wanted = Interest({"trades": ["A"]})
        supervisor = Supervisor(
            network.dial,
            lambda interest: MarketSession("PK", "s", interest),
            wanted,
            clock=network.clock,
            rng=FixedRandomness(),
            sleep=network.sleep,
        )
        running = asyncio.ensure_future(Reception(supervisor, watcher, clock=network.clock, reconnect=reconnect).run())
        over = asyncio.ensure_future(watcher.over.wait())
        async with asyncio.timeout(60):
            await asyncio.wait([running, over], return_when=asyncio.FIRST_COMPLETED)
        error = running.exception() if running.done() else None
        running.cancel()
        over.cancel()
        await asyncio.gather(running, over, return_exceptions=True)
        assert error is None or isinstance(error, AlpacliError)
        return watcher, error

    return asyncio.run(run())


@pytest.mark.parametrize("quiet", [False, True])
def test_after_ten_minutes_without_a_network_it_is_back_and_tells_the_gap(*, quiet: bool) -> None:
    network = Network(ManualClock(), (100.0, 700.0), quiet=quiet)
    watcher, error = watch(network, lambda watcher: len(watcher.of(Gap)) > 0, None)
    assert error is None
    ((told_at, gap),) = watcher.of(Gap)
    (_, _), (back_at, _) = watcher.of(Live)
    assert 700.0 <= back_at == told_at <= 700.0 + LONGEST_PAUSE_S + 5.0
    began_ns = int(1_780_000_000.0) * _SECOND_NS
    assert (gap.until_ns - began_ns) / 1e9 == pytest.approx(back_at, abs=0.001)
    heard_at = (gap.from_ns - began_ns) / 1e9
    assert heard_at <= 100.0
    assert heard_at >= (89.0 if quiet else 98.0)  # a quiet symbol is asked for a sign of life every 7.5 s
    losses = [event for _, event in watcher.of(Reconnecting)]
    assert [event.attempt for event in losses] == list(range(1, len(losses) + 1))
    assert len(losses) > 50
    assert all(event.wait_s <= LONGEST_PAUSE_S for event in losses)
    assert losses[0].wait_s < 1.0
    waits = [event.wait_s for event in losses]
    assert waits == sorted(waits)


def test_five_attempts_in_a_row_are_all_by_default() -> None:
    network = Network(ManualClock(), (100.0, 700.0))
    watcher, error = watch(network, lambda _: False, 5)
    assert isinstance(error, StreamLost)
    assert error.exit_code == 6
    assert "after 5 attempts to reconnect" in error.message
    assert [event.attempt for _, event in watcher.of(Reconnecting)] == [1, 2, 3, 4, 5]


def test_a_healthy_minute_makes_the_next_loss_the_first_in_a_row() -> None:
    outages = [(at, at + 1.0) for at in range(100, 100 + 20 * 200, 200)]
    network = Network(ManualClock(), *outages)
    watcher, error = watch(network, lambda watcher: len(watcher.of(Gap)) == len(outages), 2)
    assert error is None
    assert max(event.attempt for _, event in watcher.of(Reconnecting)) <= 2


def test_losses_within_a_minute_of_each_other_are_in_a_row() -> None:
    outages = [(at, at + 2.0) for at in range(20, 20 + 20 * int(HEALTHY_S / 2), int(HEALTHY_S / 2))]
    network = Network(ManualClock(), *outages)
    watcher, error = watch(network, lambda watcher: len(watcher.of(Gap)) == len(outages), 5)
    assert isinstance(error, StreamLost)
    assert len(watcher.of(Gap)) <= 5


def test_a_mute_network_is_noticed_by_the_pong_that_does_not_come() -> None:
    """The connection stays open and says nothing, not even that it is lost."""
    network = Network(ManualClock(), quiet=True)

    class Mute(Line):
        async def recv(self) -> str | bytes:
            return self._said.pop(0) if self._said else await asyncio.sleep(3600, "")

        async def ping(self) -> None:
            await asyncio.sleep(3600)

    network.dial = lambda: _made(Mute(network))  # type: ignore[method-assign] # this network has other lines
    watcher, error = watch(network, lambda _: False, 0)
    assert isinstance(error, StreamLost)
    assert "no sign of life for 3" in error.message
    assert 30.0 <= network.at <= 40.0
    assert watcher.of(Live)


async def _made(line: Line) -> Line:
    return line
