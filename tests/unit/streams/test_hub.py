"""Members that do not read, on real local sockets: whom the hub waits for, and for how long."""

import asyncio
import socket
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress

import msgspec
import pytest
from msgspec import Raw

from alpacli.domain.ticks import Interest, Trade
from alpacli.streams.batch import Batch
from alpacli.streams.events import Live
from alpacli.streams.hub import Hub, Member
from alpacli.streams.local import EVENT, HEADER_BYTES, LINES, VERSION, unpack_event
from alpacli.streams.session import Action
from alpacli.streams.supervisor import Sink

WANTED = Interest({"trades": ["A"]})
TRADES = [Trade("A", "2026-01-02T15:00:00.000000000Z", Raw(b"100.25"), Raw(b"10"))] * 1000
HELLO = {"do": "hello", "version": VERSION, "interest": WANTED.as_dict(), "stale_after": 30.0}


class Busy:
    """An upstream connection that sends so many messages, a thousand at a time, except while it is paused."""

    def __init__(self, messages: int) -> None:
        self.wanted = WANTED
        self.settled = True
        self.sent = 0
        self._messages = messages
        self._reading = asyncio.Event()
        self._reading.set()

    @property
    def paused(self) -> bool:
        return not self._reading.is_set()

    async def run(self, sink: Sink) -> None:
        sink.event(Live({"trades": ("A",)}))
        while self.sent < self._messages:
            await self._reading.wait()
            self.sent += len(TRADES)
            sink.batch(Batch.of_ticks(TRADES))
            await asyncio.sleep(0)
        await asyncio.Event().wait()

    async def change(self, action: Action, interest: Interest) -> None: ...

    def forget(self, interest: Interest) -> None: ...

    def pause(self) -> None:
        self._reading.clear()

    def resume(self) -> None:
        self._reading.set()

    def watch_for_silence(self, stale_after_s: float) -> None: ...


class Updates(Busy):
    """Order updates: what is wanted of them changes here alone, and no server confirms it."""

    async def change(self, action: Action, interest: Interest) -> None:
        self.wanted = self.wanted | interest if action == "subscribe" else self.wanted - interest


class Listener:
    """A member that reads when it is told to."""

    def __init__(self, path: str) -> None:
        self.lines = 0
        self.live = False
        self.ended = False
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._socket.setblocking(False)
        self._socket.send(msgspec.json.encode(HELLO) + b"\n")

    async def read_on(self) -> None:
        """Read until the hub ends it."""
        unread = bytearray()
        while data := await self._received():
            unread += data
            while len(unread) >= HEADER_BYTES:
                end = HEADER_BYTES + int.from_bytes(unread[:4], "big")
                if len(unread) < end:
                    break
                if unread[4] == EVENT:
                    self.live |= isinstance(unpack_event(bytes(unread[HEADER_BYTES:end])), Live)
                if unread[4] == LINES:
                    self.lines += unread[HEADER_BYTES:end].count(b"\n")
                del unread[:end]
        self.ended = True

    async def _received(self) -> bytes:
        try:
            return await asyncio.get_running_loop().sock_recv(self._socket, 1 << 20)
        except ConnectionError:
            return b""

    def close(self) -> None:
        self._socket.close()


def with_a_hub(
    messages: int,
    story: Callable[[Busy, Callable[[], Listener]], Awaitable[None]],
    hold_s: float = 30.0,
    most_waiting_bytes: int = 64 << 20,
    *,
    kind: type[Busy] = Busy,
    linger_s: float = 0.05,
) -> None:
    async def run() -> None:
        upstream = kind(messages)
        members: list[Listener] = []

        def join() -> Listener:
            members.append(Listener(path))
            return members[-1]

        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen()
            hub = Hub(lambda _: upstream, linger_s, hold_s=hold_s, most_waiting_bytes=most_waiting_bytes)
            serving = asyncio.ensure_future(hub.serve(listener))
            try:
                async with asyncio.timeout(60):
                    await story(upstream, join)
            finally:
                for member in members:
                    member.close()
                serving.cancel()
                await asyncio.wait([serving])

    with tempfile.TemporaryDirectory(prefix="alpacli-test-", dir="/tmp") as folder:  # a path short enough for a socket
        path = f"{folder}/s"
        asyncio.run(run())


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 # what a test waits for is told by no event
        await asyncio.sleep(0.005)


def test_while_all_members_are_behind_the_connection_is_read_no_further_and_nothing_is_lost() -> None:
    async def story(upstream: Busy, join: Callable[[], Listener]) -> None:
        member = join()
        await until(lambda: upstream.paused)
        assert upstream.sent < 100_000
        reading = asyncio.ensure_future(member.read_on())
        await until(lambda: member.lines == 300_000)
        assert not member.ended
        reading.cancel()

    with_a_hub(300_000, story)


def test_a_member_that_does_not_read_holds_up_nobody_else_and_is_cut_off() -> None:
    async def story(upstream: Busy, join: Callable[[], Listener]) -> None:
        stuck = join()
        await until(lambda: upstream.paused)
        member = join()
        reading = asyncio.ensure_future(member.read_on())
        await until(lambda: member.lines > 100_000 and upstream.sent == 300_000)
        await stuck.read_on()
        assert stuck.ended
        assert stuck.lines < 200_000
        assert not member.ended
        reading.cancel()

    with_a_hub(300_000, story, most_waiting_bytes=8 << 20)


def test_members_that_stay_behind_for_long_are_waited_for_no_longer() -> None:
    async def story(upstream: Busy, join: Callable[[], Listener]) -> None:
        member = join()
        await until(lambda: upstream.paused)
        await until(lambda: not upstream.paused)
        await until(lambda: upstream.sent > 100_000)
        await member.read_on()
        assert member.ended

    with_a_hub(300_000, story, hold_s=0.05, most_waiting_bytes=8 << 20)


def test_who_comes_when_all_others_have_left_is_live_though_no_server_confirms_it() -> None:
    became_live: list[bool] = []

    async def story(upstream: Busy, join: Callable[[], Listener]) -> None:
        for _ in range(3):
            member = join()
            reading = asyncio.ensure_future(member.read_on())
            with suppress(TimeoutError):
                async with asyncio.timeout(10):
                    await until(lambda member=member: member.live)  # type: ignore[misc] # a default binds the loop's variable
            became_live.append(member.live)
            reading.cancel()
            member.close()
            await until(lambda: not upstream.wanted)

    with_a_hub(0, story, kind=Updates, linger_s=60.0)
    assert became_live == [True, True, True]


def test_a_member_that_is_gone_is_written_to_no_more_and_nothing_is_said_of_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its end is learned from the first write, and everything else of that moment is for nobody."""

    async def write_after_the_end() -> None:
        hub = Hub(lambda _: Busy(0), linger_s=60)
        ours, theirs = socket.socketpair()
        _, member = await asyncio.get_running_loop().connect_accepted_socket(lambda: Member(hub), ours)
        theirs.close()
        for _ in range(10):
            member.send(b"a line")
            member.beat()
        await asyncio.sleep(0)

    asyncio.run(write_after_the_end())
    assert caplog.messages == []
