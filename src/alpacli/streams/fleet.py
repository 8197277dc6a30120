"""One upstream connection for hubs on many machines: the holder of a baton in Redis has it, the others hear through Redis.

To its hub a fleet is an upstream connection like any other. One of five roles is behind it: ``holder`` (a connection of its
own, and everything it brings is told to the others), ``follower`` (hears from the holder, and says what it wants), ``alone``
(Redis is not to be reached: a connection of its own, told to nobody), ``away`` (it has let go and waits, so that another one
can connect) and, before the first answer, ``new``.

When the holder dies, its lease ends and a follower takes over: it subscribes to what all want and tells of the gap, which
reaches from the last thing heard to the new confirmation. What a follower hears is numbered, and says until when the
holder had heard what was told by then: what is missing is a gap, which begins there.

A holder that cannot reach Redis cannot know whether anybody can. It keeps its connection for as long as a restart of Redis
or a failover takes, for that costs its own listeners nothing. Then it lets go, so that a machine which does reach Redis and
has its lease by now can connect; if after a while Redis is still away it connects again for its own machine, and if Redis is
away for all, nobody else has. The others wait and say so, and try it alone much later. When Redis is back, who has the
connection has the first word, and a follower takes the baton only when all stay silent.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol

import msgspec

from alpacli.domain.ticks import Interest
from alpacli.errors import AlpacliError, StoreUnavailable
from alpacli.ports import Clock, async_sleep
from alpacli.store.baton import EVENT, LEASE_S, LINES, RESIGNED, STATE, Attendance, Parcel
from alpacli.streams.batch import Batch
from alpacli.streams.events import Connecting, Event, Gap, Lagging, Live, Reconnecting, Refused, Unshared
from alpacli.streams.local import HEADER_BYTES, pack_event, unpack_event
from alpacli.streams.session import Action
from alpacli.streams.supervisor import LONGEST_PAUSE_S, Shareable, Sink
from alpacli.wire.lines import decode_lines

HEARTBEAT_S: Final = 0.5
TELL_S: Final = 0.003
"""Lines wait for the next telling when the last was less than this ago: a round trip costs more than all of them."""

_ASK_S: Final = 0.05
_BEAT: Final = "B"
_GRACE_S: Final = LEASE_S + 1.0
_HEAR_S: Final = 1.0
_REFUSED_FOR_S: Final = 5.0
KEEP_S: Final = 9.0
"""How long after the end of its lease a holder keeps a connection that others may be waiting for."""

AWAY_S: Final = LONGEST_PAUSE_S + 2.0
"""How long it stays away then: whoever was turned away (406) tries again within this time."""

ALONE_S: Final = 30.0
"""After so long without Redis a follower tries to connect by itself: the holder may be gone together with Redis."""

_TURNED_AWAY: Final = 406
_MOST_TOLD_AT_ONCE_BYTES: Final = 1 << 20
_MOST_JOINED: Final = 200
_MOST_UNTOLD_BYTES: Final = 16 << 20
_SILENT_NS: Final = 1_000_000_000
_log = logging.getLogger(__name__)


class Post(Protocol):
    """What the members of a fleet share; a ``Baton``."""

    async def attend(self, member: str, wants: bytes | None, *, take: bool, known_version: int = -1) -> Attendance: ...

    async def tell(self, member: str, fence: int, parcels: Sequence[Parcel]) -> bool: ...

    async def hear(self, after: str, block_s: float) -> tuple[str, list[Parcel]]: ...

    async def hear_asked(self, after: str, block_s: float) -> str: ...

    async def leave(self, member: str) -> None: ...

    async def close(self) -> None: ...


class Fleet:
    """The shared connection of one machine's hub, whichever machine has the real one.

    ``make_own`` makes a connection when this one is to have it; ``member`` names this process among all, as
    ``HOST:PROCESS:…``.
    """

    def __init__(
        self,
        make_own: Callable[[Interest], Shareable],
        post: Post,
        wanted: Interest,
        *,
        member: str,
        clock: Clock,
        sleep: Callable[[float], Awaitable[None]] = async_sleep,
        keep_s: float = KEEP_S,
        away_s: float = AWAY_S,
        alone_s: float = ALONE_S,
    ) -> None:
        self.wanted = wanted
        self.role = "new"
        self._keep_s = keep_s
        self._away_s = away_s
        self._alone_s = alone_s
        self._make_own = make_own
        self._post = post
        self._member = member
        self._clock = clock
        self._sleep = sleep
        self._sink: Sink
        self._stale_after_s = 30.0
        self._poke = asyncio.Event()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._changes: set[asyncio.Task[None]] = set()
        self._own: Shareable | None = None
        self._others = Interest()
        self._has_others = False
        self._refused: list[tuple[float, Interest]] = []
        # What the post said last
        self._fence = 0
        self._version = -1
        self._said_id = self._asked_id = "0-0"
        self._reached = True
        self._unshared = False
        self._may_take_at = 0.0
        self._alone_at = 0.0
        self._lease_until = 0.0
        self._holder = self._predecessor = ""
        self._turned_away = False
        self._wants_told: Interest | None = None
        # Telling
        self._number = 0
        self._outbox: deque[tuple[str, bytes, int]] = deque()
        self._outbox_bytes = 0
        self._something_to_tell = asyncio.Event()
        # Hearing
        self._live = False
        self._greet = True
        self._state: Live | None = None
        self._state_version = -1
        self._needed_version = 0
        self._heard_ns = 0
        self._lost_ns: int | None = None
        self._missed = False
        self._unpaused = asyncio.Event()
        self._unpaused.set()

    # ------------------------------------------------------------------------------------ as the connection

    @property
    def settled(self) -> bool:
        if self._own is not None:
            return self._own.settled and not self.wanted - self._own.wanted
        return self._covered()

    async def run(self, sink: Sink) -> None:
        self._sink = sink
        sink.event(Connecting("connecting"))
        self._hear()
        try:
            while True:
                await self._attend()
                await self._rest()
        finally:
            for name in list(self._tasks):
                await self._stop(name)
            try:
                await self._post.leave(self._member)
            except StoreUnavailable:
                _log.debug("the baton was not given back: the lease ends by itself")
            await self._post.close()

    def change(self, action: Action, interest: Interest) -> Awaitable[None]:
        self.wanted = self.wanted | interest if action == "subscribe" else self.wanted - interest
        self._greet = True
        self._poke.set()
        return self._change_own(interest) if action == "subscribe" else _nothing()

    async def _change_own(self, interest: Interest) -> None:
        own = self._own
        if own is None:
            return  # the holder is told at once, by attending
        missing = interest - own.wanted
        if missing:
            await own.change("subscribe", missing)
        elif own.settled and self._state is not None:
            self._sink.event(self._state)  # another machine had asked for it before

    def forget(self, interest: Interest) -> None:
        self.wanted -= interest
        if self._own is not None:
            self._own.forget(interest)
        self._poke.set()

    def pause(self) -> None:
        """Read no more; the holder goes on for the sake of the others."""
        self._unpaused.clear()
        if self._own is not None and not self._has_others:
            self._own.pause()

    def resume(self) -> None:
        self._unpaused.set()
        if self._own is not None:
            self._own.resume()

    def watch_for_silence(self, stale_after_s: float) -> None:
        self._stale_after_s = stale_after_s
        if self._own is not None:
            self._own.watch_for_silence(stale_after_s)

    # ------------------------------------------------------------------------------------------------- roles

    async def _rest(self) -> None:
        """Wait until it is time to attend again, or something needs it.

        Raises:
            AlpacliError: the connection of one's own is over for good.
        """
        try:
            async with asyncio.timeout(HEARTBEAT_S):
                await self._poke.wait()
        except TimeoutError:
            if self.role == "holder" and self._has_others:
                self._tell(_BEAT, str(self._version).encode())
        self._poke.clear()
        for task in list(self._tasks.values()):
            if task.done():
                task.result()

    async def _attend(self) -> None:
        wanted = self.wanted
        wants = None if wanted == self._wants_told else msgspec.json.encode(wanted.as_dict())
        asked_at = self._clock.monotonic()
        first = self.role in ("new", "holder") or (self.role == "alone" and not self._turned_away)
        take = first or (self._reached and asked_at >= self._may_take_at)
        known = self._version if self.role == "holder" else -1
        try:
            stands = await self._post.attend(self._member, wants, take=take, known_version=known)
        except StoreUnavailable as error:
            self._out_of_reach(error)
            await self._do_without(error)
            return
        self._wants_told = wanted if stands.known else None
        if not stands.known:
            self._poke.set()
        if not self._reached:
            self._reached = True
            self._may_take_at = self._clock.monotonic() + _GRACE_S
        if self._unshared:
            self._unshared = False
            self._sink.event(Unshared(""))
        if stands.holder == self._member:
            self._lease_until = asked_at + stands.left_s
            await self._be_holder(stands)
        else:
            await self._be_follower(stands, asked=wants is not None)

    def _out_of_reach(self, error: StoreUnavailable) -> None:
        if self._reached:
            _log.warning("the machines that share the connection cannot be reached: %s", error)
            self._alone_at = self._clock.monotonic() + self._alone_s
        self._reached = False
        if self.role == "follower":
            state = self._state
            self._lose(f"Redis cannot be reached, and another machine holds the connection: {error.message}")
            self._state = state  # when the numbers go on where they were, it is still so

    async def _do_without(self, error: StoreUnavailable) -> None:
        """Let go when others may be waiting, or connect by oneself when nobody else seems to."""
        now = self._clock.monotonic()
        if self.role == "holder" and self._has_others and now >= self._lease_until + self._keep_s:
            self.role, self._alone_at = "away", now + self._away_s
            await self._let_go(
                f"Redis cannot be reached, and another machine may be waiting for the connection: {error.message}"
            )
        elif self.role == "new" or (self.role in ("follower", "away") and now >= self._alone_at):
            self.role, self._predecessor = "alone", ""
            await self._stop("hear")
            self._start_own(self.wanted)
        # Until its lease ends a holder's place is its own, and Redis may be back by then.
        own_alone = self.role == "alone" or (self.role == "holder" and now >= self._lease_until)
        if own_alone and not self._unshared:
            self._unshared = True
            self._sink.event(Unshared(error.message))

    async def _let_go(self, reason: str) -> None:
        """End the connection of one's own, whoever has the next one."""
        self._own, self._turned_away = None, False
        self._number += len(self._outbox)  # if one is the holder again, the others see that something is missing
        self._outbox.clear()
        self._outbox_bytes = 0
        for name in ("own", "tell", "asked"):
            await self._stop(name)
        self._lose(reason)
        self._missed = True

    async def _be_holder(self, stands: Attendance) -> None:
        before, fence = self.role, self._fence
        if before == "follower":
            await self._stop("hear")
            await self._hear_the_rest()
            self._lose("the machine that held the shared connection is gone")
            self._predecessor = self._holder
        self.role, self._fence, self._holder = "holder", stands.fence, stands.holder
        self._has_others = stands.members > 1
        if fence != stands.fence:
            self._number = 0
            self._outbox.clear()
            self._outbox_bytes = 0
        if fence != stands.fence or before != "holder":
            self._asked_id = stands.asked_id
        if stands.wants is not None:
            self._others = Interest()
            for wants in stands.wants:
                self._others |= Interest(msgspec.json.decode(wants, type=dict[str, list[str]]))
        announce = stands.version != self._version or fence != stands.fence
        self._version = stands.version
        if self._own is None:
            self._start_own(self._all_wanted())
        else:
            self._adjust(self._own)
        if announce and self._own is not None and self._own.settled and self._state is not None:
            self._tell_state(self._state)
        for name, work in (("tell", self._keep_telling), ("asked", self._keep_hearing_asked)):
            if name not in self._tasks:
                self._start(name, work())

    async def _be_follower(self, stands: Attendance, *, asked: bool) -> None:
        if asked:
            self._needed_version = stands.version
        self._holder = stands.holder or self._holder
        if self.role != "follower":
            if self._own is not None:
                await self._let_go("another machine holds the shared connection now")
            self.role = "follower"
            self._live, self._state = False, None
            self._fence, self._number = stands.fence, 0
            self._said_id = stands.said_id
            self._start("hear", self._keep_hearing())
        held_on = stands.fence == self._fence and stands.left_s > 0
        if not held_on and self._live and self._now_ns() - self._heard_ns > _SILENT_NS:
            self._lose("another machine takes over the shared connection")
        if not self._live and stands.state and stands.fence == self._fence:
            self._take_state(_unpacked(stands.state)[1])
        if self._lost_ns is None:  # else what comes next tells whether anything is missing
            self._go_live()

    def _start(self, name: str, work: Any) -> None:
        task = self._tasks[name] = asyncio.ensure_future(work)
        task.add_done_callback(lambda _: self._poke.set())

    async def _stop(self, name: str) -> None:
        task = self._tasks.pop(name, None)
        while task is not None and not task.done():  # one that goes on beside the next would deliver everything twice
            task.cancel()
            await asyncio.wait([task], timeout=2.0)

    def _lose(self, reason: str) -> None:
        """Say that the connection is lost for now; what is missed from here on is a gap."""
        if self._live or self._lost_ns is None:
            self._sink.event(Reconnecting(1, 0.0, reason))
        if self._lost_ns is None:
            self._lost_ns = self._heard_ns
        self._live, self._state = False, None

    # ------------------------------------------------------------------------------------------ one's own

    def _all_wanted(self) -> Interest:
        now = self._clock.monotonic()
        self._refused = [(until, interest) for until, interest in self._refused if until > now]
        wanted = self.wanted | self._others
        for _, interest in self._refused:
            wanted -= interest
        return wanted

    def _start_own(self, wanted: Interest) -> None:
        self._turned_away = False
        own = self._own = self._make_own(wanted)
        own.watch_for_silence(self._stale_after_s)
        self._start("own", own.run(_FromOwn(self)))

    def _adjust(self, own: Shareable) -> None:
        """Want upstream what all want together, no more and no less."""
        wanted = self._all_wanted()
        for change in (
            own.change("subscribe", wanted - own.wanted) if wanted - own.wanted else None,
            own.change("unsubscribe", own.wanted - wanted) if own.wanted - wanted else None,
        ):
            if change is not None:
                task = asyncio.ensure_future(_try(change))
                self._changes.add(task)
                task.add_done_callback(self._changes.discard)

    def own_batch(self, batch: Batch) -> None:
        self._hear()
        self._sink.batch(batch)
        if self.role == "holder" and not self._has_others:
            self._number += 1  # who was forgotten and comes back sees that something is missing
        else:
            self._tell(LINES, batch.lines)

    def own_event(self, event: Event) -> None:
        if isinstance(event, Live):
            self._state, self._live = event, True
            self._turned_away, self._predecessor = False, ""
            self._sink.event(event)
            self._tell_state(event)
            if self._lost_ns is not None:
                gap = Gap(self._lost_ns, self._now_ns())
                self._lost_ns = None
                self._sink.event(gap)
                self._tell(EVENT, _event_bytes(gap))
            return
        if isinstance(event, Reconnecting):
            self._state, self._live = None, False
            self._turned_away = event.code == _TURNED_AWAY
            if self._turned_away:
                event = self._explain(event)
            self._tell_state(event)
        elif isinstance(event, Refused):
            self._refused.append((self._clock.monotonic() + _REFUSED_FOR_S, Interest(event.channels)))
        self._sink.event(event)
        if isinstance(event, Gap | Refused | Lagging):
            self._tell(EVENT, _event_bytes(event))

    def _explain(self, event: Reconnecting) -> Reconnecting:
        """Say which machine has not let go, if that is so; it will, so nobody who listens should count the attempts."""
        if self.role == "alone" and self._holder:
            hint = "Redis cannot be reached from here, and another machine holds the connection by now; alpacli tries again"
        elif self._predecessor:
            host, _, rest = self._predecessor.partition(":")
            hint = (
                f"process {rest.partition(':')[0]} on {host} had it before and stands still, or cannot reach Redis: it lets"
                " go when it goes on, or is ended there; alpacli tries again until then"
            )
        else:
            return event
        return event._replace(attempt=1, hint=hint)

    # ------------------------------------------------------------------------------------------------ telling

    def _tell_state(self, event: Live | Reconnecting) -> None:
        self._tell(STATE, str(self._version).encode() + b" " + _event_bytes(event))

    def _tell(self, kind: str, content: bytes) -> None:
        if self.role != "holder":
            return
        self._outbox.append((kind, content, self._now_ns()))
        self._outbox_bytes += len(content)
        while self._outbox_bytes > _MOST_UNTOLD_BYTES:  # Redis takes nothing
            self._outbox_bytes -= len(self._outbox.popleft()[1])
            self._number += 1  # the others see that something is missing
        self._something_to_tell.set()

    async def _keep_telling(self) -> None:
        while True:
            await self._something_to_tell.wait()
            self._something_to_tell.clear()
            if self._clock.monotonic() >= self._lease_until:
                self._poke.set()  # it may be another's by now, as after a sleep: ask before anything is said
                await self._sleep(_ASK_S if self._reached else HEARTBEAT_S)
                self._something_to_tell.set()
                continue
            fence, parcels = self._fence, self._parcels()
            if not parcels:
                continue
            try:
                if not await self._post.tell(self._member, fence, parcels):
                    self._poke.set()  # somebody else is the holder now
            except StoreUnavailable:
                self._poke.set()
                await self._sleep(HEARTBEAT_S)
            await self._sleep(TELL_S)

    def _parcels(self) -> list[Parcel]:
        """Number what is to be told next; lines that follow each other go together."""
        parcels: list[Parcel] = []
        size = 0
        while self._outbox and size < _MOST_TOLD_AT_ONCE_BYTES:
            kind, content, at_ns = self._outbox.popleft()
            pieces = [content]
            while kind == LINES and self._outbox and self._outbox[0][0] == LINES and len(pieces) < _MOST_JOINED:
                _, content, at_ns = self._outbox.popleft()
                pieces.append(content)
            content = b"".join(pieces)
            size += len(content)
            self._number += 1
            parcels.append(Parcel(self._fence, self._number, kind, b"%d %b" % (at_ns, content)))
        self._outbox_bytes -= size
        if self._outbox:
            self._something_to_tell.set()
        return parcels

    async def _keep_hearing_asked(self) -> None:
        while True:
            try:
                heard = await self._post.hear_asked(self._asked_id, _HEAR_S)
            except StoreUnavailable:
                await self._sleep(HEARTBEAT_S)
                continue
            if heard != self._asked_id:
                self._asked_id = heard
                self._poke.set()

    # ------------------------------------------------------------------------------------------------ hearing

    async def _keep_hearing(self) -> None:
        while True:
            await self._unpaused.wait()
            try:
                self._said_id, parcels = await self._post.hear(self._said_id, _HEAR_S)
            except StoreUnavailable as error:
                self._out_of_reach(error)
                await self._sleep(HEARTBEAT_S)
                continue
            for parcel in parcels:
                self._take(parcel)

    async def _hear_the_rest(self) -> None:
        """Deliver what the last holder said before it went."""
        try:
            while True:
                self._said_id, parcels = await self._post.hear(self._said_id, 0.001)
                if not parcels:
                    return
                for parcel in parcels:
                    self._take(parcel)
        except StoreUnavailable:
            return

    def _take(self, parcel: Parcel) -> None:
        if parcel.fence < self._fence:
            return
        if parcel.kind == RESIGNED:
            self._lose("the machine that held the shared connection has handed it over")
            self._may_take_at = 0.0
            self._poke.set()
            return
        at_ns, content = _unpacked(parcel.content)
        self._count(parcel)
        self._heard_ns = min(self._now_ns(), at_ns)  # a parcel that Redis kept waiting tells nothing of the time since
        if parcel.kind == LINES:
            self._go_live()
            self._missed |= not self._live
            if self._live:
                self._sink.batch(Batch.of_ticks(decode_lines(content)))
        elif parcel.kind == STATE:
            self._take_state(content)
        elif parcel.kind == _BEAT:
            self._state_version = max(self._state_version, int(content))
        else:
            self._take_event(content)
        self._go_live()

    def _count(self, parcel: Parcel) -> None:
        """Notice what is missing, by the numbers."""
        if parcel.fence > self._fence:
            if self._live:
                self._lose("another machine holds the shared connection now")
            self._fence, self._number = parcel.fence, 0
            self._missed = True  # the numbers begin anew: nobody can tell
        if self._number and parcel.number > self._number + 1:
            self._missed = True
            if self._live:
                self._lose("messages were lost on the way through Redis")
        self._number = parcel.number

    def _take_event(self, content: bytes) -> None:
        event = unpack_event(content)
        if isinstance(event, Gap):
            self._lost_ns, self._missed = None, False
        if isinstance(event, Gap | Refused | Lagging):
            self._sink.event(event)

    def _take_state(self, content: bytes) -> None:
        version, _, packed = content.partition(b" ")
        event = unpack_event(packed)
        if isinstance(event, Live):
            self._state, self._state_version, self._greet = event, int(version), True
        elif isinstance(event, Reconnecting):
            self._live, self._state = False, None
            self._sink.event(event)

    def _covered(self) -> bool:
        state = self._state
        return (
            state is not None
            and self._state_version >= self._needed_version
            and self._wants_told == self.wanted
            and not self.wanted - Interest(state.channels)
        )

    def _go_live(self) -> None:
        """Tell the hub that what it wants is live, once it is and has not been told."""
        if self._state is None or not self._covered() or (self._live and not self._greet):
            return
        self._live, self._greet = True, False
        self._sink.event(self._state)
        if self._lost_ns is not None and self._missed:
            self._sink.event(Gap(self._lost_ns, self._now_ns()))
        self._lost_ns, self._missed = None, False

    def _hear(self) -> None:
        self._heard_ns = self._now_ns()

    def _now_ns(self) -> int:
        return int(self._clock.time() * 1_000_000) * 1000


class _FromOwn:
    """The sink of the connection of one's own."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def batch(self, batch: Batch) -> None:
        self._fleet.own_batch(batch)

    def event(self, event: Event) -> None:
        self._fleet.own_event(event)


def _unpacked(content: bytes) -> tuple[int, bytes]:
    """Return until when (epoch, ns, of its clock) the holder had heard what was told up to this, and what this tells."""
    at_ns, _, told = content.partition(b" ")
    return int(at_ns), told


def _event_bytes(event: Event) -> bytes:
    return pack_event(event)[HEADER_BYTES:]


async def _nothing() -> None: ...


async def _try(change: Awaitable[None]) -> None:
    try:
        await change
    except AlpacliError:
        return  # the connection is lost: the next one asks for all that is wanted
