"""The hub: one upstream connection, any number of members on a local socket, each with its own symbols.

Alpaca allows one market data connection per account, so all processes of a user share one. What members want is merged and
trimmed upstream. A message is decoded once and written as a line once for all members that want the same; a member that does
not read holds up nobody: it is cut off when too much waits for it, and learns of the gap when it comes back.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

import msgspec

from alpacli.domain.ticks import Interest
from alpacli.errors import AlpacliError
from alpacli.streams.batch import Batch
from alpacli.streams.events import Event, Gap, Health, Live, Reconnecting, Refused
from alpacli.streams.local import LINES, VERSION, pack, pack_event, pack_failure
from alpacli.streams.session import Action
from alpacli.streams.supervisor import Sink
from alpacli.wire.frames import Message, encode_lines, subject

FLUSH_S: Final = 0.004
"""Messages wait for the next delivery when the last was less than this ago: a wake-up costs a member more than they do."""

MOST_WAITING_BYTES: Final = 64 << 20
"""A member that leaves this much unread is cut off."""

_MOST_COMMAND_BYTES: Final = 4 << 20
_COME_WITH_TRADES: Final = ("corrections", "cancelErrors")
_log = logging.getLogger(__name__)


class Shared(Protocol):
    """The upstream connection, as the hub needs it; a ``Supervisor``."""

    wanted: Interest

    @property
    def settled(self) -> bool: ...

    async def run(self, sink: Sink) -> None: ...

    def change(self, action: Action, interest: Interest) -> Awaitable[None]: ...

    def forget(self, interest: Interest) -> None: ...

    def watch_for_silence(self, stale_after_s: float) -> None: ...


class Member(asyncio.Protocol):
    """One process that listens."""

    def __init__(self, hub: "Hub") -> None:
        self.interest = Interest()
        self.stale_after_s = 30.0
        self.greeted = False
        self.live = False
        self.asking = False
        self.missed_some = False
        self.left_out_before = Health(0, 0)
        self._hub = hub
        self._transport: asyncio.Transport | None = None
        self._unread = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            self._transport = transport
        self._hub.joined(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._hub.left(self)

    def data_received(self, data: bytes) -> None:
        *lines, self._unread = (self._unread + data).split(b"\n")
        if len(self._unread) > _MOST_COMMAND_BYTES:
            self.cut_off()
            return
        for line in lines:
            try:
                command = msgspec.json.decode(line)
                self._hub.told(self, command["do"], command)
            except (msgspec.DecodeError, KeyError, TypeError, AttributeError):
                self.cut_off()  # not one of ours
                return

    def send(self, packed: bytes) -> None:
        if self._transport is None:
            return
        self._transport.write(packed)
        if self._transport.get_write_buffer_size() > MOST_WAITING_BYTES:
            self.cut_off()

    def cut_off(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def end(self) -> None:
        """Close once everything is sent."""
        if self._transport is not None:
            self._transport.close()


class Hub:
    """Serves members until nobody has been there for ``linger_s``, or the upstream connection ends for good."""

    def __init__(self, make_upstream: Callable[[Interest], Shared], linger_s: float) -> None:
        self._make_upstream = make_upstream
        self._linger_s = linger_s
        self._members: dict[Member, None] = {}
        self._upstream: Shared | None = None
        self._running: asyncio.Task[None] | None = None
        self._changes: set[asyncio.Task[None]] = set()
        self._over = asyncio.Event()
        self._live: Live | None = None
        self._confirmed = Interest()
        self._condition: Event | None = None
        self._health = Health(0, 0)
        self._waiting: list[Message] = []
        self._flush_timer: asyncio.TimerHandle | None = None
        self._flushed_at = 0.0
        self._leaving: asyncio.TimerHandle | None = None

    async def serve(self, listener: socket.socket) -> None:
        """Serve on a listening unix socket. Returns when it is over; the socket is closed then."""
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(lambda: Member(self), sock=listener)
        self._leaving = loop.call_later(self._linger_s + 5.0, self._over.set)  # nobody ever came
        try:
            await self._over.wait()
        finally:
            server.close()
            for task in (self._running, *self._changes):
                if task is not None:
                    task.cancel()
                    await asyncio.wait([task], timeout=2.0)
            for member in list(self._members):
                member.end()

    # ---------------------------------------------------------------------------------------------- members

    def joined(self, member: Member) -> None:
        self._members[member] = None
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None

    def left(self, member: Member) -> None:
        self._members.pop(member, None)
        self._trim()
        if not self._members and self._leaving is None and not self._over.is_set():
            self._leaving = asyncio.get_running_loop().call_later(self._linger_s, self._over.set)

    def told(self, member: Member, what: str, command: dict[str, object]) -> None:
        """Do what a member says.

        Raises:
            KeyError, TypeError, AttributeError: it makes no sense.
        """
        channels = msgspec.convert(command["interest"], dict[str, list[str]])
        interest = Interest(channels)
        if what == "hello":
            if command["version"] != VERSION:
                member.cut_off()
                return
            member.greeted = member.asking = True
            member.interest = interest
            member.left_out_before = self._health
            member.stale_after_s = msgspec.convert(command["stale_after"], float)
            self._watch_for_silence()
            if self._condition is not None and self._live is None:
                member.send(pack_event(self._condition))
            self._want(interest)
        elif what == "subscribe":
            member.interest |= interest
            member.asking = True
            self._want(interest)
        elif what == "unsubscribe":
            member.interest -= interest
            member.asking = True
            self._trim()
            self._greet_the_live()

    def _want(self, interest: Interest) -> None:
        upstream = self._upstream
        if upstream is None:
            upstream = self._upstream = self._make_upstream(interest)
            self._watch_for_silence()
            self._running = asyncio.ensure_future(self._run(upstream))
            return
        missing = interest - upstream.wanted
        if missing:
            self._change("subscribe", missing)
        else:
            self._greet_the_live()

    def _trim(self) -> None:
        if self._upstream is None:
            return
        wanted = Interest()
        for member in self._members:
            wanted |= member.interest
        surplus = self._upstream.wanted - wanted
        if surplus:
            self._change("unsubscribe", surplus)
        self._watch_for_silence()

    def _change(self, action: Action, interest: Interest) -> None:
        if self._upstream is None:
            return
        task = asyncio.ensure_future(_try(self._upstream.change(action, interest)))
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)

    def _watch_for_silence(self) -> None:
        if self._upstream is not None and self._members:
            self._upstream.watch_for_silence(min(member.stale_after_s for member in self._members))

    def _greet_the_live(self) -> None:
        """Tell those who wait that all they asked for is confirmed."""
        if self._live is None or self._upstream is None or not self._upstream.settled:
            return
        for member in self._members:
            if member.asking:
                member.live, member.asking = True, False
                member.send(pack_event(Live({n: tuple(s) for n, s in member.interest.as_dict().items()}, shared=True)))

    # --------------------------------------------------------------------------------------------- upstream

    async def _run(self, upstream: Shared) -> None:
        try:
            await upstream.run(self)
        except AlpacliError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001 # a defect: those who wait would only start the next hub for it
            _log.exception("the shared connection failed")
            text = f"a defect in the process that holds the shared connection: {type(error).__name__}: {error}"
            self._fail(AlpacliError(text, "--no-hub connects without it"))
        finally:
            self._over.set()

    def _fail(self, error: AlpacliError) -> None:
        self._flush()
        for member in list(self._members):
            member.send(pack_failure(error))
            member.end()

    def batch(self, batch: Batch) -> None:
        self._waiting += batch.messages or ()
        if self._flush_timer is not None:
            return
        loop = asyncio.get_running_loop()
        due_in_s = self._flushed_at + FLUSH_S - loop.time()
        if due_in_s <= 0:
            self._flush()
        else:
            self._flush_timer = loop.call_later(due_in_s, self._flush)

    def event(self, event: Event) -> None:
        self._flush()
        if isinstance(event, Live):
            self._live = event
            self._confirmed = Interest(event.channels)
            self._greet_the_live()
            return
        if isinstance(event, Refused):
            self._refuse(event)
            return
        if isinstance(event, Health):
            self._count(event)
            return
        if isinstance(event, Reconnecting):
            if not self._members:
                self._over.set()
                return
            self._live = None
            for member in self._members:
                member.missed_some |= member.live
                member.live, member.asking = False, member.greeted
        if not isinstance(event, Gap):
            self._condition = event
        packed = pack_event(event)
        for member in self._members:
            if isinstance(event, Gap):
                if member.missed_some:
                    member.missed_some = False
                    member.send(packed)
            elif member.greeted:
                member.send(packed)

    def _count(self, health: Health) -> None:
        """Tell each member what was left out since it came."""
        self._health = health
        for member in self._members:
            if member.greeted:
                before = member.left_out_before
                counts = Health(health.unknown - before.unknown, health.bad_frames - before.bad_frames)
                member.send(pack_event(counts))

    def _refuse(self, event: Refused) -> None:
        refused = Interest(event.channels)
        if self._upstream is not None:
            self._upstream.forget(refused)
        for member in self._members:
            if member.asking and (member.interest - refused) != member.interest:
                member.interest -= refused
                member.send(pack_event(event))
        self._greet_the_live()

    def _flush(self) -> None:
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None
        messages, self._waiting = self._waiting, []
        if not messages:
            return
        self._flushed_at = asyncio.get_running_loop().time()
        alike: dict[Interest, list[Member]] = {}
        for member in self._members:
            if member.live:
                alike.setdefault(member.interest, []).append(member)
        subjects: list[tuple[str, str]] | None = None
        for interest, members in alike.items():
            wanted: Sequence[Message] = messages
            if not _covers(interest, self._confirmed):
                if subjects is None:
                    subjects = [subject(message) for message in messages]
                wants = {about: interest.wants(*about) for about in set(subjects)}
                wanted = [message for message, about in zip(messages, subjects, strict=True) if wants[about]]
            if wanted:
                packed = pack(LINES, encode_lines(wanted))
                for member in members:
                    member.send(packed)


def _covers(interest: Interest, confirmed: Interest) -> bool:
    """Tell whether all that the server sends is wanted.

    What it confirmed decides, not what was asked for: while a change is on its way, the symbols of those who have left come.
    """
    for channel, symbols in confirmed.channels.items():
        wanted = interest.channels.get(channel, frozenset())
        if channel not in _COME_WITH_TRADES and "*" not in wanted and not symbols <= wanted:
            return False
    return True


async def _try(change: Awaitable[None]) -> None:
    try:
        await change
    except AlpacliError:
        return  # the connection is lost: the next one asks for all that is wanted
