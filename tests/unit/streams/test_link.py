"""The hub and its members on real local sockets: what happens when the one who holds the connection fails."""

import asyncio
import shutil
import socket
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from tests.support.fakes import ManualClock

from alpacli.domain.ticks import Interest
from alpacli.errors import (
    AlpacliError,
    AuthenticationError,
    ConfigError,
    RedirectRefused,
    StreamLost,
    StreamRefused,
)
from alpacli.streams.batch import Batch
from alpacli.streams.client import Reception
from alpacli.streams.events import Event, Health, Live, Reconnecting
from alpacli.streams.hub import Hub
from alpacli.streams.link import HubLink
from alpacli.streams.local import Upstream, meeting, pack_event
from alpacli.streams.session import Action
from alpacli.streams.supervisor import Sink

UPSTREAM = Upstream("ws://127.0.0.1:1", "PK", "s", "market", "json", 0.1, 1.0)
WANTED = Interest({"trades": ["A"]})


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A runtime directory of the test's own, with a path short enough for a socket."""
    directory = tempfile.mkdtemp(prefix="alpacli-test-", dir="/tmp")
    monkeypatch.setenv("XDG_RUNTIME_DIR", directory)
    yield meeting(UPSTREAM).socket
    shutil.rmtree(directory)


class Told:
    def __init__(self, until: Callable[[Event], bool] = lambda _: False) -> None:
        self.events: list[Event] = []
        self.symbols: list[str] = []
        self.over = asyncio.Event()
        self._until = until

    def batch(self, batch: Batch) -> None:
        self.symbols += [tick.symbol for tick in batch.ticks()[0]]

    def event(self, event: Event) -> None:
        self.events.append(event)
        if self._until(event):
            self.over.set()


async def at_once(_: float) -> None:
    await asyncio.sleep(0)


async def stream(told: Told, reconnect: int | None = 2) -> AlpacliError | None:
    """Stream through the hub that listens until it fails or ``told`` has heard enough."""
    link = HubLink(UPSTREAM, WANTED, clock=ManualClock(), sleep=at_once)
    running = asyncio.ensure_future(Reception(link, told, clock=ManualClock(), reconnect=reconnect).run())
    over = asyncio.ensure_future(told.over.wait())
    try:
        async with asyncio.timeout(30):
            await asyncio.wait([running, over], return_when=asyncio.FIRST_COMPLETED)
        error = running.exception() if running.done() else None
        assert error is None or isinstance(error, AlpacliError)
        return error
    finally:
        for task in (running, over):
            task.cancel()
        await asyncio.gather(running, over, return_exceptions=True)


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def test_hubs_that_die_again_and_again_are_lost_connections_in_a_row(place: str) -> None:
    """Else each new one would be the first loss, and streams would start hubs for ever."""
    met = 0

    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal met
        met += 1
        await reader.readline()
        writer.write(pack_event(Live({"trades": ("A",)}, shared=True)))
        writer.close()

    async def run() -> AlpacliError | None:
        async with await asyncio.start_unix_server(die, place):
            told = Told()
            error = await stream(told)
            waits = [event.wait_s for event in told.events if isinstance(event, Reconnecting)]
            assert waits[0] == 0.0
            assert waits == sorted(set(waits))
            return error

    error = asyncio.run(run())
    assert isinstance(error, StreamLost)
    assert "the process that held the shared connection ended" in error.message
    assert met in (3, 4)  # it may be met once more while the stream is given up


def test_a_hub_that_is_just_ending_costs_no_attempt(place: str) -> None:
    met = 0

    async def end_twice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal met
        met += 1
        if met > 2:
            writer.write(pack_event(Live({"trades": ("A",)}, shared=True)))
            await reader.read()
        writer.close()

    async def run() -> Told:
        async with await asyncio.start_unix_server(end_twice, place):
            told = Told(lambda event: isinstance(event, Live))
            assert await stream(told, reconnect=0) is None
            return told

    assert not [event for event in asyncio.run(run()).events if isinstance(event, Reconnecting)]


class Fails:
    """An upstream connection that tells something and then fails."""

    def __init__(self, error: Exception, *says: Event | Batch) -> None:
        self.wanted = WANTED
        self._error = error
        self._says = says

    @property
    def settled(self) -> bool:
        return True

    async def run(self, sink: Sink) -> None:
        for said in self._says:
            if isinstance(said, Batch):
                sink.batch(said)
            else:
                sink.event(said)
        await asyncio.sleep(0.05)
        raise self._error

    async def change(self, action: Action, interest: Interest) -> None: ...

    def forget(self, interest: Interest) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def watch_for_silence(self, stale_after_s: float) -> None: ...


def through_a_hub(place: str, told: Told, upstream: Fails) -> AlpacliError | None:
    async def run() -> AlpacliError | None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(place)
            listener.listen()
            serving = asyncio.ensure_future(Hub(lambda _: upstream, 0.1).serve(listener))
            error = await stream(told, reconnect=0)
            async with asyncio.timeout(30):
                await serving
            return error

    return asyncio.run(run())


@pytest.mark.parametrize(
    "error",
    [
        AuthenticationError("no", "hint", code=402),
        StreamRefused("no", "hint", status=404),
        RedirectRefused("no", "hint", status=302),
        ConfigError("no", "hint"),
        StreamLost("no", "hint", code=406),
        AlpacliError("no", "hint"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_ends_the_shared_connection_is_told_to_its_members_as_it_is(place: str, error: AlpacliError) -> None:
    told = through_a_hub(place, Told(), Fails(error))
    assert type(told) is type(error)
    assert told is not None
    assert told.as_dict() == error.as_dict()


def test_a_defect_of_the_shared_connection_is_told_to_its_members(place: str, caplog: pytest.LogCaptureFixture) -> None:
    error = through_a_hub(place, Told(), Fails(ZeroDivisionError("oh")))
    assert error is not None
    assert "ZeroDivisionError: oh" in error.message
    assert error.exit_code == 1
    assert "ZeroDivisionError" in caplog.text


def test_members_are_told_what_was_left_out_since_they_came(place: str) -> None:
    told = Told()
    through_a_hub(place, told, Fails(StreamLost("over"), Health(2, 0), Health(2, 1)))
    assert [event for event in told.events if isinstance(event, Health)] == [Health(2, 0), Health(2, 1)]


def test_a_member_never_gets_the_symbols_of_those_who_have_left(place: str) -> None:
    """Until the server has confirmed that they are not wanted any more, it goes on sending them."""

    def ticks() -> Batch:
        rest = {"timestamp": "2026-01-02T15:00:00.000000000Z", "price": 1, "size": 1}
        return Batch.of_ticks([{"type": "trade", "symbol": symbol, **rest} for symbol in ("A", "B")])

    told = Told()
    confirmed = Live({"trades": ("A", "B"), "corrections": ("A", "B"), "quotes": ()})
    less = Live({"trades": ("A",), "corrections": ("A",), "quotes": ()})
    through_a_hub(place, told, Fails(StreamLost("over"), confirmed, ticks(), less, ticks()))
    assert told.symbols == ["A", "A", "B"]  # after the confirmation nothing is looked at: what comes is wanted


def test_the_path_is_the_users_alone(place: str) -> None:
    assert Path(place).parent.stat().st_mode & 0o077 == 0
