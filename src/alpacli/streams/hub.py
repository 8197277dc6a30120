"""The hub: one upstream connection, any number of members on a local socket, each with its own symbols.

Alpaca allows one market data connection per account, so all processes of a user share one. What members want is merged and
trimmed upstream. A message is decoded once and written as a line once for all members that want the same; a member that does
not read holds up nobody: it is cut off when too much waits for it, and learns of the gap when it comes back. Only when all of
them are behind is the connection read no further for a while, as a slow reader's own connection would not be. Members hear a
sign of life even when there is nothing to say, so that they notice when this process stands still.
"""

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from alpacli.domain.ticks import Interest
from alpacli.errors import AlpacliError
from alpacli.streams.batch import Batch
from alpacli.streams.events import Event, Gap, Health, Live, Reconnecting, Refused, Unshared
from alpacli.streams.local import BEAT, LINES, VERSION, pack, pack_event, pack_failure
from alpacli.streams.session import Action
from alpacli.streams.supervisor import Shareable
from alpacli.wire.frames import Message
from alpacli.wire.lines import encode_lines, subject

FLUSH_S: Final = 0.004
"""Messages wait for the next delivery when the last was less than this ago: a wake-up costs a member more than they do."""

MOST_WAITING_BYTES: Final = 64 << 20
"""A member that leaves this much unread is cut off."""

BEHIND_BYTES: Final = 2 << 20
"""A member for which this much waits is behind."""

HOLD_S: Final = 5.0
"""How long all members may be behind, none of them catching up, before the connection is read again all the same."""

BEATS: Final = 4
"""How many signs of life there are in the silence that the least patient member allows."""

_SHORTEST_BEAT_S: Final = 0.1
_LONGEST_BEAT_S: Final = 5.0
_AT_ONCE_BYTES: Final = 64 << 10
"""Pieces are put together up to this size; more at once is memory that the system takes back and has to give again."""

_MOST_COMMAND_BYTES: Final = 4 << 20
_BEAT: Final = pack(BEAT, b"")
_COME_WITH_TRADES: Final = ("corrections", "cancelErrors")
_log = logging.getLogger(__name__)


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
        self._waiting: deque[bytes] = deque()  # shared with the members that want the same
        self._waiting_bytes = 0
        self._has_room = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            self._transport = transport
            transport.set_write_buffer_limits(high=0)
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
            except (msgspec.DecodeError, RecursionError, KeyError, TypeError, AttributeError):
                self.cut_off()  # not one of ours
                return

    def pause_writing(self) -> None:
        self._has_room = False

    def resume_writing(self) -> None:
        self._has_room = True
        was_behind = self.behind
        while self._waiting and self._has_room and self._transport is not None and not self._transport.is_closing():
            self._transport.write(self._next())
        if was_behind and not self.behind:
            self._hub.caught_up()

    @property
    def behind(self) -> bool:
        return self._waiting_bytes > BEHIND_BYTES

    def send(self, packed: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if self._has_room:
            self._transport.write(packed)
            return
        self._waiting.append(packed)
        self._waiting_bytes += len(packed)
        if self._waiting_bytes > self._hub.most_waiting_bytes:
            self.cut_off()

    def beat(self) -> None:
        """Give a sign of life, unless there is something to read anyway."""
        if self._has_room:
            self.send(_BEAT)

    def _next(self) -> bytes:
        pieces = _take_together(self._waiting)
        self._waiting_bytes -= len(pieces)
        return pieces

    def cut_off(self) -> None:
        self._waiting.clear()
        self._waiting_bytes = 0
        if self._transport is not None:
            self._transport.abort()

    def end(self) -> None:
        """Close once everything is sent."""
        if self._transport is not None:
            self._transport.writelines(self._waiting)
            self._waiting.clear()
            self._transport.close()


class _Alike:
    """Members that want the same, and the lines that wait for them. ``all_of_it`` when that is everything that comes."""

    def __init__(self, interest: Interest, *, all_of_it: bool) -> None:
        self.interest = interest
        self.all_of_it = all_of_it
        self.members: list[Member] = []
        self.lines: deque[bytes] = deque()


class Hub:
    """Serves members until nobody has been there for ``linger_s``, or the upstream connection ends for good."""

    def __init__(
        self,
        make_upstream: Callable[[Interest], Shareable],
        linger_s: float,
        *,
        hold_s: float = HOLD_S,
        most_waiting_bytes: int = MOST_WAITING_BYTES,
    ) -> None:
        self.most_waiting_bytes = most_waiting_bytes
        self._hold_s = hold_s
        self._make_upstream = make_upstream
        self._linger_s = linger_s
        self._members: dict[Member, None] = {}
        self._upstream: Shareable | None = None
        self._running: asyncio.Task[None] | None = None
        self._changes: set[asyncio.Task[None]] = set()
        self._over = asyncio.Event()
        self._live: Live | None = None
        self._confirmed = Interest()
        self._condition: Event | None = None
        self._unshared: Unshared | None = None
        self._alike: list[_Alike] | None = None
        self._health = Health(0, 0)
        self._flush_timer: asyncio.TimerHandle | None = None
        self._flushed_at = 0.0
        self._leaving: asyncio.TimerHandle | None = None
        self._held: asyncio.TimerHandle | None = None
        self._beating: asyncio.TimerHandle | None = None
        self._hold_allowed = True

    async def serve(self, listener: socket.socket) -> None:
        """Serve on a listening unix socket. Returns when it is over; the socket is closed then."""
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(lambda: Member(self), sock=listener)
        self._leaving = loop.call_later(self._linger_s + 5.0, self._over.set)  # nobody ever came
        try:
            await self._over.wait()
        finally:
            if self._beating is not None:
                self._beating.cancel()
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
        self._balance()

    def left(self, member: Member) -> None:
        self._members.pop(member, None)
        self._regroup()
        self._trim()
        self._balance()
        if not self._members and self._leaving is None and not self._over.is_set():
            self._leaving = asyncio.get_running_loop().call_later(self._linger_s, self._over.set)

    def told(self, member: Member, what: str, command: dict[str, object]) -> None:
        """Do what a member says.

        Raises:
            KeyError, TypeError, AttributeError: it makes no sense.
        """
        self._regroup()
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
            self._beat()
            self._watch_for_silence()
            if self._condition is not None and self._live is None:
                member.send(pack_event(self._condition))
            if self._unshared is not None:
                member.send(pack_event(self._unshared))
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
        task.add_done_callback(self._changed)

    def _changed(self, task: asyncio.Task[None]) -> None:
        """Greet whoever waits for what no server confirms: order updates come, or do not, as one."""
        self._changes.discard(task)
        if not task.cancelled():
            self._greet_the_live()

    def _watch_for_silence(self) -> None:
        if self._upstream is not None and self._members:
            self._upstream.watch_for_silence(min(member.stale_after_s for member in self._members))

    def _beat(self) -> None:
        """Tell all members that this process is there, and everything up to now is on its way; and again in time."""
        if self._beating is not None:
            self._beating.cancel()
            self._beating = None
        self._flush()
        for member in self._members:
            member.beat()
        if self._members:
            patience_s = min(member.stale_after_s for member in self._members)
            pause_s = min(max(patience_s / BEATS, _SHORTEST_BEAT_S), _LONGEST_BEAT_S)
            self._beating = asyncio.get_running_loop().call_later(pause_s, self._beat)

    def _greet_the_live(self) -> None:
        """Tell those who wait that all they asked for is confirmed."""
        if self._live is None or self._upstream is None or not self._upstream.settled:
            return
        for member in self._members:
            if member.asking:
                member.live, member.asking = True, False
                member.send(pack_event(Live({n: tuple(s) for n, s in member.interest.as_dict().items()}, shared=True)))

    # ------------------------------------------------------------------------------------------ slow members

    def caught_up(self) -> None:
        """Take note that a member is no longer behind."""
        self._hold_allowed = True
        self._balance()

    def _balance(self) -> None:
        """Read no further while everybody is behind: who comes too late for the server is told so by the server."""
        upstream = self._upstream
        if upstream is None:
            return
        if self._members and all(member.behind for member in self._members):
            if self._held is None and self._hold_allowed:
                upstream.pause()
                self._held = asyncio.get_running_loop().call_later(self._hold_s, self._hold_no_longer)
        elif self._held is not None:
            self._held.cancel()
            self._held = None
            upstream.resume()

    def _hold_no_longer(self) -> None:
        self._held, self._hold_allowed = None, False
        if self._upstream is not None:
            self._upstream.resume()

    # --------------------------------------------------------------------------------------------- upstream

    async def _run(self, upstream: Shareable) -> None:
        try:
            await upstream.run(self)
        except AlpacliError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001 # a defect: those who wait would only start the next hub for it
            _log.exception("the shared connection failed")
            text = f"a defect in the process that holds the shared connection: {type(error).__name__}: {error}"
            self._fail(AlpacliError(text, "hub=False (--no-hub) connects without it"))
        finally:
            self._over.set()

    def _fail(self, error: AlpacliError) -> None:
        self._flush()
        for member in list(self._members):
            member.send(pack_failure(error))
            member.end()

    def batch(self, batch: Batch) -> None:
        """Write the messages as lines at once, while they are in the processor's cache, and deliver them when it is time."""
        messages = batch.messages or ()
        subjects: list[tuple[str, str]] | None = None
        for alike in self._groups():
            wanted: Sequence[Message] = messages
            if not alike.all_of_it:
                if subjects is None:
                    subjects = [subject(message) for message in messages]
                wants = {about: alike.interest.wants(*about) for about in set(subjects)}
                wanted = [message for message, about in zip(messages, subjects, strict=True) if wants[about]]
            if wanted:
                alike.lines.append(encode_lines(wanted))
        if self._flush_timer is not None:
            return
        loop = asyncio.get_running_loop()
        due_in_s = self._flushed_at + FLUSH_S - loop.time()
        if due_in_s <= 0:
            self._flush()
        else:
            self._flush_timer = loop.call_later(due_in_s, self._flush)

    def event(self, event: Event) -> None:
        self._regroup()
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
        self._keep_for_newcomers(event)
        packed = pack_event(event)
        for member in self._members:
            if isinstance(event, Gap):
                if member.missed_some:
                    member.missed_some = False
                    member.send(packed)
            elif member.greeted:
                member.send(packed)

    def _keep_for_newcomers(self, event: Event) -> None:
        if isinstance(event, Unshared):
            self._unshared = event if event.reason else None
        elif not isinstance(event, Gap):
            self._condition = event

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

    def _groups(self) -> list[_Alike]:
        if self._alike is None:
            found: dict[Interest, _Alike] = {}
            for member in self._members:
                if member.live:
                    interest = member.interest
                    if interest not in found:
                        found[interest] = _Alike(interest, all_of_it=_covers(interest, self._confirmed))
                    found[interest].members.append(member)
            self._alike = list(found.values())
        return self._alike

    def _regroup(self) -> None:
        """Deliver what waits: who is live, or what somebody or all together want, is about to change."""
        self._flush()
        self._alike = None

    def _flush(self) -> None:
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None
        for alike in self._alike or ():
            if alike.lines:
                self._flushed_at = asyncio.get_running_loop().time()
            while alike.lines:
                packed = pack(LINES, _take_together(alike.lines))
                for member in alike.members:
                    member.send(packed)
        self._balance()


def _take_together(pieces: deque[bytes]) -> bytes:
    """Take the first piece, and small ones after it."""
    first = pieces.popleft()
    size = len(first)
    parts = [first]
    while pieces and size + len(pieces[0]) <= _AT_ONCE_BYTES:
        size += len(pieces[0])
        parts.append(pieces.popleft())
    return first if len(parts) == 1 else b"".join(parts)


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
