"""A fleet without sockets: an office in this process stands for Redis, and a test can cut a member off from it."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from msgspec import Raw

from alpacli.domain.ticks import Interest, Trade
from alpacli.errors import StoreUnavailable, StreamRefused
from alpacli.ports import SystemClock
from alpacli.store.baton import LEASE_S, RESIGNED, STATE, Attendance, Parcel
from alpacli.streams.batch import Batch
from alpacli.streams.events import Event, Gap, Lagging, Live, Reconnecting, Refused, Unshared
from alpacli.streams.fleet import Fleet
from alpacli.streams.session import Action
from alpacli.streams.supervisor import Sink

A, B = Interest({"trades": ["A"]}), Interest({"trades": ["B"]})


@dataclass
class Office:
    """What a Redis server does for the members of one fleet. Leases end when a test says so."""

    holder: str = ""
    fence: int = 0
    expired: bool = False
    lease_s: float = 2.0
    version: int = 0
    asked: int = 0
    state: bytes = b""
    wants: dict[str, bytes] = field(default_factory=dict)
    said: list[Parcel] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def stir(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


class Counter:
    """A member's way to the office; a ``Post``."""

    def __init__(self, office: Office) -> None:
        self.office = office
        self.cut = False
        self.deaf = False
        self.forgets = 0
        self.mute = False
        self.unsaid: list[Parcel] = []
        self.attended = 0

    def _reach(self) -> Office:
        if self.cut:
            raise StoreUnavailable("no Redis")
        return self.office

    async def attend(self, member: str, wants: bytes | None, *, take: bool, known_version: int = -1) -> Attendance:
        office = self._reach()
        if take and office.holder != member and (not office.holder or office.expired):
            office.holder, office.expired, office.state = member, False, b""
            office.fence += 1
        if wants is not None and office.wants.get(member) != wants:
            office.wants[member] = wants
            office.version += 1
            office.asked += office.holder != member
        office.stir()
        self.attended += 1
        mine = office.holder == member and office.version != known_version
        return Attendance(
            office.holder,
            office.fence,
            0.0 if office.expired else office.lease_s,
            office.version,
            member in office.wants,
            office.state,
            str(len(office.said)),
            str(office.asked),
            len(office.wants),
            list(office.wants.values()) if mine else None,
        )

    async def tell(self, member: str, fence: int, parcels: Sequence[Parcel]) -> bool:
        office = self._reach()
        if (office.holder, office.fence) != (member, fence):
            return False
        if self.mute:
            self.unsaid += parcels
            raise StoreUnavailable("no answer yet")
        office.said += parcels
        for parcel in parcels:
            if parcel.kind == STATE:
                office.state = parcel.content
        office.stir()
        return True

    async def hear(self, after: str, block_s: float) -> tuple[str, list[Parcel]]:
        office = self._reach()
        if self.deaf or len(office.said) <= int(after):
            try:
                await self._wait(block_s)
            except asyncio.CancelledError:
                self.forgets -= 1
                if self.forgets < 0:
                    raise
        office = self._reach()
        heard = [] if self.deaf else office.said[int(after) :]
        return str(int(after) + len(heard)), heard

    async def hear_asked(self, after: str, block_s: float) -> str:
        if self._reach().asked <= int(after):
            await self._wait(block_s)
        return str(self._reach().asked)

    async def _wait(self, block_s: float) -> None:
        try:
            async with asyncio.timeout(min(block_s, 0.05)):
                await self.office.changed.wait()
        except TimeoutError:
            return

    async def leave(self, member: str) -> None:
        office = self._reach()
        office.wants.pop(member, None)
        office.version += 1
        if office.holder == member:
            office.holder, office.state = "", b""
            office.said.append(Parcel(office.fence, 0, RESIGNED, b""))
        office.stir()

    async def close(self) -> None: ...


class Connection:
    """An upstream connection that confirms at once what it is asked for, if it may; with ``one_only`` if no other is open."""

    def __init__(
        self, wanted: Interest, all_of_them: "list[Connection]", may_open: asyncio.Event, *, one_only: bool = False
    ) -> None:
        self.wanted = wanted
        self.settled = False
        self.open = False
        self.paused = False
        self.ended: asyncio.Future[StreamRefused] = asyncio.get_running_loop().create_future()
        self.sink: Sink
        self._all = all_of_them
        self._may_open = may_open
        self._one_only = one_only
        all_of_them.append(self)

    async def run(self, sink: Sink) -> None:
        self.sink, attempt = sink, 0
        while self._one_only and any(other.open for other in self._all):
            attempt += 1
            sink.event(Reconnecting(attempt, 0.05, "connection limit exceeded", "end it", 406))
            await asyncio.sleep(0.05)
        await self._may_open.wait()
        self.open = True
        self._confirm()
        try:
            raise await self.ended
        finally:
            self.open = False

    async def change(self, action: Action, interest: Interest) -> None:
        self.wanted = self.wanted | interest if action == "subscribe" else self.wanted - interest
        self._confirm()

    def _confirm(self) -> None:
        self.settled = True
        self.sink.event(Live({name: tuple(sorted(symbols)) for name, symbols in self.wanted.channels.items()}))

    def say(self, *numbers: int, symbol: str = "A") -> None:
        ticks = [Trade(symbol, "2026-01-02T15:00:00.000000000Z", Raw(b"%d" % n), Raw(b"1.50")) for n in numbers]
        self.sink.batch(Batch.of_ticks(ticks))

    def forget(self, interest: Interest) -> None:
        self.wanted -= interest

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def watch_for_silence(self, stale_after_s: float) -> None: ...


class Machine:
    """A fleet's member and what its hub hears."""

    def __init__(self, stage: "Stage", name: str, wanted: Interest) -> None:
        self.post = Counter(stage.office)
        self.events: list[Event] = []
        self.prices: list[int] = []
        self.fleet = Fleet(
            stage.connect,
            self.post,
            wanted,
            member=name,
            clock=SystemClock(),
            keep_s=stage.keep_s,
            away_s=0.3,
            alone_s=stage.alone_s,
        )
        self.running = asyncio.ensure_future(self.fleet.run(self))

    def batch(self, batch: Batch) -> None:
        self.prices += [int(tick.price) for tick in batch.ticks()[0] if isinstance(tick, Trade)]

    def event(self, event: Event) -> None:
        self.events.append(event)

    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.events if not isinstance(event, Unshared)]

    def unshared(self) -> list[str]:
        return [event.reason for event in self.events if isinstance(event, Unshared)]

    async def live(self) -> None:
        await until(lambda: self.fleet.settled and any(isinstance(event, Live) for event in self.events))

    async def leave(self) -> None:
        self.running.cancel()
        await asyncio.wait([self.running])


class Stage:
    def __init__(self) -> None:
        self.keep_s = self.alone_s = 60.0
        self.office = Office()
        self.connections: list[Connection] = []
        self.machines: list[Machine] = []
        self.one_only = False
        self.may_open = asyncio.Event()
        self.may_open.set()

    def connect(self, wanted: Interest) -> Connection:
        return Connection(wanted, self.connections, self.may_open, one_only=self.one_only)

    def machine(self, name: str, wanted: Interest = A) -> Machine:
        self.machines.append(Machine(self, name, wanted))
        return self.machines[-1]

    @property
    def open_now(self) -> int:
        return sum(connection.open for connection in self.connections)


async def until(holds: Callable[[], Any], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 # what is waited for is not the test's to signal
            await asyncio.sleep(0.005)


def staged(scene: Callable[[Stage], Awaitable[None]]) -> Callable[[], None]:
    """Play a scene, and have everybody leave."""

    async def play() -> None:
        stage = Stage()
        try:
            await scene(stage)
        finally:
            for machine in stage.machines:
                machine.post.cut = False
                await machine.leave()

    def test() -> None:
        asyncio.run(play())

    test.__name__ = scene.__name__
    return test


async def _second_of_two(stage: Stage) -> "Machine":
    """Return the machine that only hears, after it has heard something."""
    one, two = stage.machine("one"), stage.machine("two")
    await one.live()
    await two.live()
    stage.connections[0].say(1)
    await until(lambda: two.prices == [1])
    return two


async def _stand_by(one: "Machine", two: "Machine") -> None:
    await one.live()
    await two.live()
    before = one.post.attended
    await until(lambda: one.post.attended > before)  # so the holder knows that there is another one


@staged
async def test_one_has_the_connection_and_all_hear_what_they_want(stage: Stage) -> None:
    one = stage.machine("one", A)
    await one.live()
    two = stage.machine("two", B)
    await two.live()
    (connection,) = stage.connections
    assert connection.wanted == A | B
    connection.say(1, 2)
    connection.say(3, symbol="B")
    await until(lambda: two.prices == [1, 2, 3])  # the hub takes what its members want
    assert one.prices == [1, 2, 3]
    assert (one.fleet.role, two.fleet.role) == ("holder", "follower")


@staged
async def test_a_wish_of_another_machine_is_confirmed_there_and_forgotten_when_it_leaves(stage: Stage) -> None:
    one, two = stage.machine("one"), stage.machine("two")
    await one.live()
    await two.live()
    await two.fleet.change("subscribe", B)
    await until(lambda: isinstance(two.events[-1], Live) and "B" in two.events[-1].channels["trades"])
    assert two.fleet.settled
    await two.leave()
    await until(lambda: stage.connections[0].wanted == A)


@staged
async def test_when_the_holder_hands_over_the_next_one_goes_on_and_tells_the_gap(stage: Stage) -> None:
    one, two = stage.machine("one"), stage.machine("two", B)
    await one.live()
    await two.live()
    stage.connections[0].say(1, 2, symbol="B")
    await until(lambda: two.prices == [1, 2])
    await one.leave()
    await until(lambda: len(stage.connections) == 2 and "Gap" in two.kinds())
    assert two.kinds()[-3:] == ["Reconnecting", "Live", "Gap"]
    assert stage.open_now == 1
    gap = two.events[-1]
    assert isinstance(gap, Gap)
    assert gap.from_ns < gap.until_ns


@staged
async def test_who_takes_over_has_each_message_once_though_its_hearing_forgot_that_it_is_over(stage: Stage) -> None:
    one, two = stage.machine("one"), stage.machine("two")
    await _stand_by(one, two)
    two.post.forgets = 1
    await one.leave()
    await until(lambda: two.fleet.role == "holder" and two.kinds()[-1] == "Gap")
    await _stand_by(two, stage.machine("three"))
    stage.connections[-1].say(1)
    stage.connections[-1].say(2)
    await until(lambda: stage.machines[2].prices == [1, 2])
    await asyncio.sleep(0.1)  # a hearing that goes on reads within 0.05 s
    assert two.prices == [1, 2]


@staged
async def test_while_who_took_over_is_not_connected_yet_nobody_says_that_it_is_live(stage: Stage) -> None:
    one, two, three = (stage.machine(name) for name in ("one", "two", "three"))
    for machine in (one, two, three):
        await machine.live()
    stage.may_open.clear()
    one.post.cut = True
    stage.office.expired = True
    await until(lambda: "holder" in (two.fleet.role, three.fleet.role))
    taker, other = (two, three) if two.fleet.role == "holder" else (three, two)
    already = other.post.attended
    await until(lambda: other.post.attended >= already + 3)
    assert other.kinds()[-1] == "Reconnecting"
    stage.may_open.set()
    await until(lambda: taker.kinds()[-1] == other.kinds()[-1] == "Gap")


@staged
async def test_a_holder_that_lost_its_lease_lets_go_of_the_connection_and_hears_like_the_others(stage: Stage) -> None:
    one = stage.machine("one")
    await one.live()
    one.post.cut = True  # it sleeps, or its way to Redis is broken
    stage.office.expired = True
    two = stage.machine("two")
    await two.live()
    assert stage.open_now == 2
    one.post.cut = False
    await until(lambda: one.fleet.role == "follower" and one.fleet.settled)
    assert stage.open_now == 1
    stage.connections[1].say(7)
    await until(lambda: one.prices == [7])
    assert one.kinds()[-3:] == ["Reconnecting", "Live", "Gap"]


@staged
async def test_without_redis_the_holder_goes_on_and_the_other_says_so_and_tells_what_it_missed(stage: Stage) -> None:
    one, two = stage.machine("one"), stage.machine("two")
    await one.live()
    await two.live()
    one.post.cut = two.post.cut = True
    await until(lambda: two.kinds()[-1] == "Reconnecting")
    stage.connections[0].say(1)
    await asyncio.sleep(0.05)
    assert (one.prices, two.prices) == ([1], [])
    one.post.cut = two.post.cut = False
    await until(lambda: two.kinds()[-2:] == ["Live", "Gap"])
    assert len(stage.connections) == 1


@staged
async def test_a_holder_that_is_cut_off_from_redis_alone_lets_go_and_hears_again_when_it_is_back(stage: Stage) -> None:
    stage.keep_s, stage.office.lease_s = 0.1, 0.2
    one, two = stage.machine("one"), stage.machine("two")
    await _stand_by(one, two)
    one.post.cut = True
    await until(lambda: one.fleet.role == "away" and stage.open_now == 0)
    stage.office.expired = True
    await until(lambda: two.fleet.role == "holder" and two.fleet.settled)
    one.post.cut = False
    await until(lambda: one.fleet.role == "follower" and one.fleet.settled)
    (connection,) = (each for each in stage.connections if each.open)
    connection.say(5)
    await until(lambda: one.prices == [5] and two.prices == [5])
    assert one.kinds()[-3:] == two.kinds()[-3:] == ["Reconnecting", "Live", "Gap"]


@staged
async def test_when_redis_is_gone_for_all_who_had_the_connection_has_it_again_after_a_while(stage: Stage) -> None:
    stage.keep_s, stage.office.lease_s = 0.1, 0.2
    one, two = stage.machine("one"), stage.machine("two")
    await _stand_by(one, two)
    one.post.cut = two.post.cut = True
    await until(lambda: one.kinds()[-2:] == ["Live", "Gap"])
    assert one.fleet.role == "alone"
    assert (two.fleet.role, stage.open_now) == ("follower", 1)
    one.post.cut = two.post.cut = False
    await until(lambda: one.fleet.role == "holder" and two.fleet.settled)
    assert stage.open_now == 1


@staged
async def test_who_begins_without_redis_says_so_once_and_says_when_it_is_back(stage: Stage) -> None:
    one = stage.machine("one")
    one.post.cut = True
    await one.live()
    attended = one.fleet.role
    await asyncio.sleep(1.2)  # it asks again every 0.5 s
    assert (attended, one.unshared()) == ("alone", ["no Redis"])
    assert one.events.index(Unshared("no Redis")) < next(
        place for place, event in enumerate(one.events) if isinstance(event, Live)
    )
    one.post.cut = False
    await until(lambda: one.fleet.role == "holder")
    assert one.unshared() == ["no Redis", ""]
    assert stage.open_now == 1


@staged
async def test_a_holder_says_that_it_shares_no_more_once_its_lease_has_ended_and_not_before(stage: Stage) -> None:
    one = stage.machine("one")
    await one.live()
    one.post.cut = True
    await asyncio.sleep(1.0)
    one.post.cut = False
    attended = one.post.attended
    await until(lambda: one.post.attended > attended)
    assert one.unshared() == []  # it was back within the lease of 2 s
    one.post.cut = True
    await until(lambda: one.unshared() == ["no Redis"])
    await asyncio.sleep(0.6)
    one.post.cut = False
    await until(lambda: one.unshared() == ["no Redis", ""])
    assert "Reconnecting" not in one.kinds()


@staged
async def test_a_follower_whose_holder_went_together_with_redis_connects_by_itself(stage: Stage) -> None:
    stage.alone_s = 0.3
    one, two = stage.machine("one"), stage.machine("two")
    await _stand_by(one, two)
    one.post.cut = two.post.cut = True
    await one.leave()
    await until(lambda: two.kinds()[-2:] == ["Live", "Gap"])
    assert (two.fleet.role, stage.open_now) == ("alone", 1)
    assert two.unshared() == ["no Redis"]


@staged
async def test_who_is_alone_and_turned_away_leaves_the_baton_to_who_has_the_connection(stage: Stage) -> None:
    stage.alone_s, stage.one_only = 0.3, True
    one, two = stage.machine("one"), stage.machine("two")
    await _stand_by(one, two)
    one.post.cut = two.post.cut = True
    await until(lambda: two.fleet.role == "alone" and len(stage.connections) == 2)
    await until(lambda: _turned_away(two) is not None)
    stage.office.expired = True
    two.post.cut = False
    await until(lambda: two.fleet.role == "follower")
    one.post.cut = False
    await until(lambda: one.fleet.role == "holder" and two.fleet.settled)
    assert (stage.open_now, stage.connections[0].open) == (1, True)


def _turned_away(machine: Machine) -> Reconnecting | None:
    told = (event for event in reversed(machine.events) if isinstance(event, Reconnecting) and event.code == 406)
    return next(told, None)


@staged
async def test_who_takes_over_and_is_turned_away_says_which_machine_has_not_let_go_and_tries_until_it_has(
    stage: Stage,
) -> None:
    stage.one_only = True
    one, two = stage.machine("alpha:17:x"), stage.machine("beta:18:y")
    await _stand_by(one, two)
    one.post.cut = True
    stage.office.expired = True
    await until(lambda: two.fleet.role == "holder" and _turned_away(two) is not None)
    told = _turned_away(two)
    assert told is not None
    assert told.attempt == 1  # nobody who listens is to give up over it
    assert "process 17 on alpha" in told.hint
    one.post.cut = False
    await until(lambda: two.fleet.settled and one.fleet.settled)
    assert (one.fleet.role, stage.open_now) == ("follower", 1)


@staged
async def test_a_holder_whose_lease_has_run_out_says_nothing_before_it_has_asked(stage: Stage) -> None:
    stage.office.lease_s = 0.05
    one, two = stage.machine("one"), stage.machine("two")
    await _stand_by(one, two)
    await asyncio.sleep(0.1)
    stage.office.holder, stage.office.fence = "three", 7  # while it slept
    stage.connections[0].say(1)
    await until(lambda: one.fleet.role == "follower")
    assert not stage.connections[0].open
    assert (one.prices, two.prices) == ([1], [])


@staged
async def test_an_interruption_in_which_nothing_was_said_is_no_gap(stage: Stage) -> None:
    two = await _second_of_two(stage)
    two.post.cut = True
    await until(lambda: two.kinds()[-1] == "Reconnecting")
    stage.connections[0].say(2)
    await asyncio.sleep(0.05)
    two.post.cut = False
    await until(lambda: two.kinds()[-1] == "Live" and two.prices == [1, 2], 30)
    assert "Gap" not in two.kinds()


def _covers(gap: Event, moment_ns: int) -> bool:
    return isinstance(gap, Gap) and gap.from_ns <= moment_ns <= gap.until_ns


@staged
async def test_what_redis_carries_out_late_hides_nothing_of_the_time_that_it_stood_still(stage: Stage) -> None:
    two = await _second_of_two(stage)
    one = stage.machines[0]
    one.post.mute = two.post.cut = True
    stage.connections[0].say(2)
    await until(lambda: one.post.unsaid and two.kinds()[-1] == "Reconnecting")
    one.post.cut = True
    stage.connections[0].say(3)
    lost_ns = time.time_ns()
    await asyncio.sleep(0.05)
    stage.office.said += one.post.unsaid  # what hung goes on first
    stage.office.expired = True
    await stage.machine("three").live()
    two.post.cut = False
    await until(lambda: two.kinds()[-1] == "Gap")
    assert two.prices == [1, 2]
    assert _covers(two.events[-1], lost_ns)


@staged
async def test_a_holder_that_renews_and_does_not_get_to_telling_hides_nothing_either(stage: Stage) -> None:
    stage.office.lease_s = LEASE_S
    two = await _second_of_two(stage)
    one = stage.machines[0]
    one.post.mute = True
    stage.connections[0].say(2)
    lost_ns = time.time_ns()
    renewed, seen = one.post.attended, two.post.attended
    await until(lambda: one.post.attended > renewed + 1 and two.post.attended > seen + 1)
    stage.office.expired = True
    one.post.cut = True
    await stage.machine("three").live()
    await until(lambda: two.kinds()[-1] == "Gap")
    assert _covers(two.events[-1], lost_ns)


@staged
async def test_what_was_not_told_while_a_machine_was_forgotten_is_a_gap(stage: Stage) -> None:
    two = await _second_of_two(stage)
    two.post.cut = True
    await until(lambda: two.kinds()[-1] == "Reconnecting")
    del stage.office.wants["two"]  # after 10 s of silence
    stage.office.version += 1
    await until(lambda: not stage.machines[0].fleet._has_others)
    stage.connections[0].say(2)
    lost_ns = time.time_ns()
    two.post.cut = False
    await until(lambda: two.fleet.settled and stage.machines[0].fleet._has_others)
    stage.connections[0].say(3)
    await until(lambda: 3 in two.prices)
    assert two.prices == [1, 3]
    assert any(_covers(event, lost_ns) for event in two.events)


@staged
async def test_what_is_missing_among_the_numbers_is_a_gap(stage: Stage) -> None:
    two = await _second_of_two(stage)
    two.post.deaf = True
    stage.connections[0].say(2)
    await until(lambda: any(b'"price":2' in parcel.content for parcel in stage.office.said))
    (lost,) = (parcel for parcel in stage.office.said if b'"price":2' in parcel.content)
    stage.office.said.remove(lost)  # as a stream that is full forgets its oldest
    two.post.deaf = False
    stage.connections[0].say(3)
    await until(lambda: "Gap" in two.kinds())
    assert two.kinds()[-3:] == ["Reconnecting", "Live", "Gap"]


@staged
async def test_a_machine_that_never_reached_redis_goes_alone_and_joins_later(stage: Stage) -> None:
    one = stage.machine("one")
    one.post.cut = True
    await one.live()
    assert one.fleet.role == "alone"
    two = stage.machine("two")
    await two.live()
    one.post.cut = False
    await until(lambda: one.fleet.role == "follower" and one.fleet.settled)
    assert stage.open_now == 1


@staged
async def test_a_refusal_reaches_the_machine_whose_wish_it_was_and_is_not_asked_for_again(stage: Stage) -> None:
    one, two = stage.machine("one"), stage.machine("two")
    await one.live()
    await two.live()
    await two.fleet.change("subscribe", B)
    await until(lambda: stage.connections[0].wanted == A | B)
    stage.connections[0].sink.event(Refused(405, "symbol limit exceeded", {"trades": ["B"]}))
    one.fleet.forget(B)  # as each hub does
    await until(lambda: "Refused" in two.kinds())
    two.fleet.forget(B)
    await asyncio.sleep(0.6)
    assert stage.connections[0].wanted == A
    stage.connections[0].sink.event(Lagging("server", 0))
    await until(lambda: "Lagging" in two.kinds())


@staged
async def test_a_holder_whose_members_are_all_slow_reads_on_for_the_others(stage: Stage) -> None:
    one = stage.machine("one")
    await one.live()
    one.fleet.pause()
    assert [connection.paused for connection in stage.connections] == [True]
    one.fleet.resume()
    two = stage.machine("two")
    await two.live()
    one.fleet.pause()
    two.fleet.pause()
    assert [connection.paused for connection in stage.connections] == [False]
    stage.connections[0].say(1)
    await asyncio.sleep(0.05)
    two.fleet.resume()
    await until(lambda: two.prices == [1])
    one.fleet.resume()


@staged
async def test_what_loses_upstream_is_told_to_all(stage: Stage) -> None:
    one, two = stage.machine("one"), stage.machine("two")
    await one.live()
    await two.live()
    sink = stage.connections[0].sink
    sink.event(Reconnecting(1, 0.5, "the server is gone"))
    await until(lambda: two.kinds()[-1] == "Reconnecting")
    stage.connections[0]._confirm()
    sink.event(Gap(1, 2))
    await until(lambda: two.kinds()[-2:] == ["Live", "Gap"])
    assert two.events[-1] == Gap(1, 2)


def test_wrong_keys_end_the_holder_for_good() -> None:
    async def play() -> None:
        stage = Stage()
        one = stage.machine("one")
        await one.live()
        stage.connections[0].ended.set_result(StreamRefused("not in the plan", code=409))
        with pytest.raises(StreamRefused):
            await one.running
        assert stage.office.holder == ""

    asyncio.run(play())
