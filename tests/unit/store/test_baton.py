"""The baton in a real server, on a clock of the test's: who holds it, for how long, what the others hear; and its clients."""

import asyncio
import gc
import os
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.connection import SSLConnection
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import NoScriptError, RedisClusterException, RedisError
from tests.support import valkey
from tests.support.fakes import SetClock

from alpacli.errors import ConfigError, StoreUnavailable
from alpacli.store.baton import (
    EVENT,
    LEASE_S,
    LINES,
    MEMBER_S,
    RESIGNED,
    STATE,
    Attendance,
    Baton,
    Parcel,
    close_async_client,
    open_async_client,
)
from alpacli.store.redis import parse_url

HOUR_S: Final = 3600
JUST_S: Final = 0.000001
"""The shortest time that there is."""


class Members:
    """Members of one baton, on a clock of the test's, and a look at what the server has."""

    def __init__(self, url: str) -> None:
        self.clock = SetClock()
        self.server: Any = Redis.from_url(url)
        self.name = os.urandom(6).hex()
        self.client = valkey.AsyncOnClock(url, self.clock)
        self.baton = Baton(url, self.name, connect=lambda _: self.client)

    def attend(self, member: str, wants: bytes | None = None, *, known_version: int = -1) -> Attendance:
        return asyncio.run(self.baton.attend(member, wants, take=False, known_version=known_version))

    def take(self, member: str, wants: bytes | None = None, *, lease_s: float = LEASE_S) -> Attendance:
        return asyncio.run(self.baton.attend(member, wants, take=True, lease_s=lease_s))

    def tell(self, member: str, fence: int, *parcels: tuple[int, str, bytes]) -> bool:
        return asyncio.run(self.baton.tell(member, fence, [Parcel(fence, *parcel) for parcel in parcels]))

    def hear(self, after: str = "0-0") -> tuple[str, list[Parcel]]:
        return asyncio.run(self.baton.hear(after, 0.0))

    def is_asked(self, after: str) -> bool:
        return asyncio.run(self.baton.hear_asked(after, 0.0)) != after

    def leave(self, member: str) -> None:
        asyncio.run(self.baton.leave(member))

    def key(self, part: str) -> str:
        return f"alpaca:{{{self.name}}}:~{part}"

    def lives(self) -> set[str]:
        """Return what there is; each lives for an hour, a busy machine may look late."""
        found = {name.decode(): self.server.ttl(name) for name in self.server.keys(self.key("*"))}
        assert all(HOUR_S - 30 < ttl <= HOUR_S for ttl in found.values())
        return {name.removeprefix(self.key("")) for name in found}

    def close(self) -> None:
        asyncio.run(self.baton.close())
        self.server.close()


@pytest.fixture
def members(valkey_url: str) -> Iterator[Members]:
    here = Members(valkey_url)
    yield here
    here.close()


# ------------------------------------------------------------------------------------------------- the lease


def test_nobody_holds_it_until_somebody_takes_it(members: Members) -> None:
    assert members.attend("A") == Attendance("", 0, 0.0, 0, False, b"", "0-0", "0-0", 1, None)
    assert members.take("B").holder == "B"
    assert members.attend("A").holder == "B"


def test_a_lease_ends_when_it_says_and_not_before(members: Members) -> None:
    assert members.take("A").left_s == LEASE_S
    members.clock.advance(LEASE_S - JUST_S)
    before = members.take("B")
    assert (before.holder, before.left_s) == ("A", JUST_S)
    members.clock.advance(JUST_S)
    seen = members.attend("B")
    assert (seen.holder, seen.left_s) == ("A", 0.0)
    after = members.take("B")
    assert (after.holder, after.left_s) == ("B", LEASE_S)


def test_what_ended_long_ago_has_nothing_left(members: Members) -> None:
    members.take("A")
    members.clock.advance(60.0)
    assert members.attend("B").left_s == 0.0


@pytest.mark.parametrize("taking", [True, False])
def test_a_holder_renews_its_lease_by_being_there(members: Members, taking: bool) -> None:
    first = members.take("A")
    for _ in range(3):
        members.clock.advance(LEASE_S - JUST_S)
        again = members.take("A") if taking else members.attend("A")
        assert (again.holder, again.fence, again.left_s) == ("A", first.fence, LEASE_S)
        assert members.take("B").holder == "A"


def test_a_holder_that_comes_late_goes_on_when_nobody_else_came(members: Members) -> None:
    first = members.take("A")
    members.clock.advance(LEASE_S + 1.0)
    again = members.take("A")
    assert (again.fence, again.left_s) == (first.fence, LEASE_S)


def test_each_lease_is_as_long_as_its_holder_said(members: Members) -> None:
    assert members.take("A", lease_s=20.0).left_s == 20.0
    members.clock.advance(19.0)
    assert members.take("B").left_s == 1.0
    members.clock.advance(1.0)
    assert members.take("B", lease_s=0.5).left_s == 0.5


def test_a_lease_of_before_the_clock_was_set_back_lasts_as_long_as_a_new_one(members: Members) -> None:
    members.take("A", lease_s=2.0)
    members.clock.set_back(HOUR_S)
    assert members.attend("B").left_s == 2.0
    members.clock.advance(2.0 - JUST_S)
    assert members.take("B").holder == "A"
    members.clock.advance(JUST_S)
    assert members.take("B").holder == "B"


def test_a_holder_that_is_there_keeps_the_baton_when_the_clock_is_set_back(members: Members) -> None:
    first = members.take("A")
    members.clock.set_back(HOUR_S)
    assert members.take("B").holder == "A"
    members.clock.advance(LEASE_S - JUST_S)
    again = members.take("A")
    assert (again.fence, again.left_s) == (first.fence, LEASE_S)


def test_a_lease_without_its_length_is_taken_to_be_as_long_as_ones_own(members: Members) -> None:
    members.take("A")
    members.server.hdel(members.key("baton"), "lease")
    assert members.attend("B").left_s == LEASE_S
    members.clock.set_back(HOUR_S)
    assert members.attend("B").left_s == LEASE_S


# -------------------------------------------------------------------------------------------------- the fence


def test_each_taking_has_a_higher_number_also_on_a_clock_that_stands_or_was_set_back(members: Members) -> None:
    fences = [0]
    for moved_s in (0.0, 0.0, 0.5, -HOUR_S, 0.0, 2 * HOUR_S, -1.0):
        members.clock.set_back(-moved_s)
        fences.append(members.take("A").fence)
        members.leave("A")
    assert fences == sorted(set(fences))


def test_it_is_higher_also_when_the_server_has_forgotten_everything(members: Members) -> None:
    old = members.take("A").fence
    members.server.delete(members.key("baton"))
    members.clock.advance(JUST_S)
    assert members.take("B").fence > old


def test_who_holds_it_already_takes_nothing_anew(members: Members) -> None:
    first = members.take("A")
    members.clock.advance(1.0)
    assert members.take("A").fence == first.fence


def test_what_is_said_under_an_older_number_or_anothers_is_not_heard(members: Members) -> None:
    old = members.take("A").fence
    members.clock.advance(LEASE_S)
    new = members.take("B").fence
    for member, fence in (("A", old), ("B", old), ("A", new), ("C", new)):
        assert not members.tell(member, fence, (1, STATE, b"late"))
    assert members.hear() == ("0-0", [])
    assert members.attend("C").state == b""
    assert members.tell("B", new, (1, LINES, b"well"))
    assert members.hear()[1] == [Parcel(new, 1, LINES, b"well")]


def test_a_holder_whose_lease_is_over_is_heard_until_another_one_takes_it(members: Members) -> None:
    fence = members.take("A").fence
    members.clock.advance(60.0)
    members.attend("B")
    assert members.tell("A", fence, (1, LINES, b"x"))


# -------------------------------------------------------------------------------------------- what all want


def test_a_holder_learns_what_all_want_when_that_has_changed(members: Members) -> None:
    alone = members.take("A", b"a")
    assert (alone.version, alone.wants, alone.known) == (1, [b"a"], True)
    other = members.attend("B", b"b")
    assert (other.version, other.wants, other.known) == (2, None, True)
    both = members.attend("A", known_version=1)
    assert (both.version, sorted(both.wants or ())) == (2, [b"a", b"b"])
    assert members.attend("A", known_version=2).wants is None
    assert members.attend("B", known_version=1).wants is None  # it is the holder's


def test_who_takes_it_learns_at_once_what_all_want(members: Members) -> None:
    members.attend("A", b"a")
    assert members.take("B", b"b").wants == [b"a", b"b"]


def test_the_version_counts_each_change_and_nothing_else(members: Members) -> None:
    assert [members.attend("A", wants).version for wants in (None, b"a", b"a", None, b"b", b"", b"", b"a")] == [
        *(0, 1, 1, 1, 2, 3, 3, 4)
    ]


def test_who_wants_nothing_is_known_and_who_said_nothing_is_not(members: Members) -> None:
    assert not members.attend("A").known
    nothing = members.take("A", b"")
    assert nothing.known
    assert nothing.wants == [b""]
    assert members.attend("A").known


def test_a_new_wish_is_told_to_the_holder_but_its_own_and_what_is_known(members: Members) -> None:
    begin = members.take("A", b"a")
    assert begin.asked_id == "0-0"
    assert not members.is_asked(begin.asked_id)
    asked = members.attend("B", b"b").asked_id
    assert asked != begin.asked_id
    assert members.is_asked(begin.asked_id)
    for member, wants in (("A", b"aa"), ("B", b"b"), ("B", None)):
        assert members.attend(member, wants).asked_id == asked
    assert not members.is_asked(asked)
    assert members.attend("B", b"bb").asked_id > asked
    assert members.is_asked(asked)
    assert [fields for _, fields in members.server.xrange(members.key("asked"))] == [{b"m": b"B"}] * 2


# ----------------------------------------------------------------------------------------------- who is there


def test_who_has_not_been_there_for_long_is_forgotten_and_the_version_says_so(members: Members) -> None:
    members.take("A", b"a")
    for member in "BC":
        members.attend(member, member.encode())
    members.clock.advance(MEMBER_S)
    still = members.take("A")
    assert (still.members, still.version, len(still.wants or ())) == (3, 3, 3)
    members.clock.advance(JUST_S)
    gone = members.attend("A", known_version=3)
    assert (gone.members, gone.version, gone.wants) == (1, 5, [b"a"])
    back = members.attend("B")
    assert (back.members, back.version, back.known) == (2, 5, False)


def test_who_comes_again_is_kept(members: Members) -> None:
    members.attend("B", b"b")
    for _ in range(3):
        members.clock.advance(MEMBER_S)
        assert members.attend("B").known
    assert members.take("A").wants == [b"b"]


def test_who_was_there_before_the_clock_was_set_back_is_kept_as_long_as_others(members: Members) -> None:
    members.attend("B", b"b")
    members.clock.set_back(HOUR_S)
    assert members.take("A").members == 2
    members.clock.advance(MEMBER_S)
    assert members.take("A").members == 2
    members.clock.advance(JUST_S)
    gone = members.take("A")
    assert (gone.members, gone.version, gone.wants) == (1, 2, [])


def test_a_holder_that_leaves_says_so_and_the_next_one_need_not_wait(members: Members) -> None:
    begin = members.take("A", b"a")
    members.attend("B", b"b")
    members.tell("A", begin.fence, (1, STATE, b"state"))
    after = members.attend("B").said_id
    members.leave("A")
    assert members.hear(after)[1] == [Parcel(begin.fence, 0, RESIGNED, b"")]
    left = members.attend("B")
    assert (left.holder, left.left_s, left.state, left.version, left.members) == ("", 0.0, b"", 3, 1)
    assert left.fence == begin.fence
    taken = members.take("B")
    assert (taken.holder, taken.wants) == ("B", [b"b"])
    assert taken.fence > begin.fence


def test_another_one_that_leaves_says_nothing_and_the_holder_stays(members: Members) -> None:
    begin = members.take("A", b"a")
    members.tell("A", begin.fence, (1, STATE, b"state"))
    members.attend("B", b"b")
    members.attend("C")
    members.leave("B")
    stands = members.attend("A")
    assert (stands.version, stands.wants, stands.members, stands.state) == (3, [b"a"], 2, b"state")
    members.leave("C")  # it had wanted nothing
    stands = members.attend("A")
    assert (stands.holder, stands.version, stands.members) == ("A", 3, 1)
    assert [parcel.kind for parcel in members.hear()[1]] == [STATE]


# ----------------------------------------------------------------------------------------------- what is said


def test_what_is_said_is_heard_whole_and_in_order_from_where_one_is(members: Members) -> None:
    begin = members.take("A")
    first = [(1, LINES, b'{"type":"trade"}\n\x00\xff'), (2, EVENT, b"")]
    assert members.tell("A", begin.fence, *first)
    after, heard = members.hear(begin.said_id)
    assert heard == [Parcel(begin.fence, *each) for each in first]
    assert members.attend("B").said_id == after
    assert members.hear(after) == (after, [])
    assert members.tell("A", begin.fence, (3, STATE, b"state"))
    last, heard = members.hear(after)
    assert heard == [Parcel(begin.fence, 3, STATE, b"state")]
    assert members.attend("A").said_id == last


def test_nothing_may_be_said_too(members: Members) -> None:
    fence = members.take("A").fence
    assert members.tell("A", fence)
    assert members.hear() == ("0-0", [])


def test_the_last_state_is_kept_for_those_who_come_later(members: Members) -> None:
    fence = members.take("A").fence
    assert members.attend("B").state == b""
    members.tell("A", fence, (1, STATE, b"one"), (2, STATE, b"two"), (3, EVENT, b"event"), (4, LINES, b"lines"))
    assert members.attend("B").state == b"two"
    members.clock.advance(LEASE_S)
    assert members.take("A").state == b"two"


def test_the_state_of_a_holder_that_is_gone_is_nobodys(members: Members) -> None:
    members.tell("A", members.take("A").fence, (1, STATE, b"connected"))
    members.clock.advance(LEASE_S)
    assert members.attend("B").state == b"connected"
    assert members.take("B").state == b""
    assert members.attend("C").state == b""


def test_of_what_was_said_the_last_two_thousand_are_kept_and_a_few_more(members: Members) -> None:
    fence = members.take("A").fence
    members.tell("A", fence, *((number, LINES, b"") for number in range(1, 2301)))
    kept = members.server.xlen(members.key("said"))
    assert 2000 <= kept < 2200
    after, heard = members.hear()
    assert [parcel.number for parcel in heard] == list(range(2301 - kept, 2501 - kept))  # 200 at a time
    assert members.hear(after)[1][0].number == 2501 - kept
    for _ in range(300):
        members.leave("A")
        members.take("A")
    assert members.server.xlen(members.key("said")) < 2200


def test_of_the_wishes_the_last_hundred_are_kept_and_a_few_more(members: Members) -> None:
    for number in range(300):
        members.attend("B", str(number).encode())
    assert 100 <= members.server.xlen(members.key("asked")) < 300


# ------------------------------------------------------------------------------------------- what goes by itself


def test_everything_is_forgotten_when_nobody_has_been_there_for_an_hour(members: Members) -> None:
    members.take("A", b"a")
    assert members.lives() == {"baton", "seen", "wants"}
    members.attend("B", b"b")
    assert members.lives() == {"baton", "seen", "wants", "asked"}
    members.tell("A", members.take("A").fence, (1, LINES, b"x"))
    assert members.lives() == {"baton", "seen", "wants", "asked", "said"}
    for part in ("baton", "seen", "wants", "said", "asked"):
        members.server.expire(members.key(part), 100)
    members.attend("C")
    assert members.lives() == {"baton", "seen", "wants", "asked", "said"}


def test_what_a_holder_that_leaves_says_is_forgotten_too(members: Members) -> None:
    members.take("A", b"a")
    members.leave("A")
    assert members.lives() == {"baton", "said"}


def test_saying_something_does_not_by_itself_keep_it_all(members: Members) -> None:
    fence = members.take("A").fence
    members.tell("A", fence, (1, LINES, b"x"))
    for ttl in (100, 1):
        members.server.expire(members.key("said"), ttl)
        members.tell("A", fence, (2, LINES, b"x"))
        assert members.server.ttl(members.key("said")) <= ttl


def test_batons_of_other_names_know_nothing_of_each_other(members: Members, valkey_url: str) -> None:
    members.take("A", b"a")
    other = Members(valkey_url)
    assert other.take("B").members == 1
    assert other.take("B").holder == "B"
    other.close()


# ---------------------------------------------------------------------------------------------- its clients


class Scripted:
    """A client that answers with what it is given, one by one; of exceptions it raises them."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[Any, ...]] = []
        self.closed = 0
        self.meanwhile: Callable[[], Awaitable[None]] | None = None

    async def evalsha(self, sha: str, numkeys: int, *keys_and_args: str | bytes) -> Any:
        return await self._answer("evalsha", numkeys)

    async def eval(self, script: str, numkeys: int, *keys_and_args: str | bytes) -> Any:
        return await self._answer("eval", numkeys)

    async def execute_command(self, *words: Any, **options: Any) -> Any:
        return await self._answer(*words, *options.items())

    async def initialize(self) -> None:
        await self._answer("initialize")

    def get_node_from_key(self, key: str) -> str:
        return f"the node of {key}"

    async def aclose(self) -> None:
        self.closed += 1

    async def _answer(self, *asked: Any) -> Any:
        self.asked.append(asked)
        if self.meanwhile is not None:
            await self.meanwhile()
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Opened:
    """A baton whose clients are these, in turn."""

    def __init__(self, *clients: Scripted, url: str = "redis://host") -> None:
        self.clients = list(clients)
        self.timeouts_s: list[float] = []
        self.baton = Baton(url, "x", connect=self.connect)

    def connect(self, timeout_s: float) -> Scripted:
        self.timeouts_s.append(timeout_s)
        return self.clients[len(self.timeouts_s) - 1]

    def leave(self) -> None:
        asyncio.run(self.baton.leave("A"))

    def hear(self, block_s: float = 1.5) -> tuple[str, list[Parcel]]:
        return asyncio.run(self.baton.hear("3-1", block_s))

    def failure(self, use: Callable[[], object]) -> str:
        with pytest.raises(StoreUnavailable) as caught:
            use()
        assert "REDIS_URL" in caught.value.hint
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__
        return caught.value.message


def test_one_client_acts_and_another_one_which_is_more_patient_listens() -> None:
    opened = Opened(Scripted(1, 1), Scripted([], []))
    for _ in range(2):
        opened.leave()
        opened.hear()
    assert opened.timeouts_s == [1.0, 2.0]


def test_what_was_closed_is_opened_again_when_it_is_used() -> None:
    clients = [Scripted(1), Scripted([]), Scripted(1)]
    opened = Opened(*clients)
    asyncio.run(opened.baton.close())
    assert opened.timeouts_s == []
    opened.leave()
    opened.hear()
    for _ in range(2):
        asyncio.run(opened.baton.close())
    assert [client.closed for client in clients] == [1, 1, 0]
    opened.leave()
    assert len(opened.timeouts_s) == 3


def test_a_script_is_sent_in_full_only_to_a_server_that_does_not_know_it() -> None:
    client = Scripted(NoScriptError(), 1, 1)
    opened = Opened(client)
    opened.leave()
    opened.leave()
    assert client.asked == [("evalsha", 4), ("eval", 4), ("evalsha", 4)]


FAILURES: Final = (RedisError("gone"), RedisClusterException("gone"), OSError("gone"), NoConnection("gone\n  away"))


@pytest.mark.parametrize("error", FAILURES)
def test_after_a_failure_all_begin_with_new_connections(error: Exception) -> None:
    clients = [Scripted([], error), Scripted(1, error), Scripted(1), Scripted([])]
    opened = Opened(*clients)
    opened.hear()
    opened.leave()
    told = opened.failure(opened.leave)
    assert [client.closed for client in clients] == [1, 1, 0, 0]
    opened.leave()
    opened.hear()
    assert len(opened.timeouts_s) == 4
    clients[3].answers.append(error)
    assert opened.failure(opened.hear) == told == f"redis host:6379: {' '.join(str(error).split())}"
    assert [client.closed for client in clients] == [1, 1, 1, 1]


def test_a_failure_elsewhere_does_not_disturb_whoever_still_waits_for_an_answer() -> None:
    for url, answers in (("redis://host", [[]]), ("redis+cluster://host", [None, []])):
        acting, listening = Scripted(NoScriptError(), 1), Scripted(*answers)
        opened = Opened(acting, listening, url=url)
        acting.meanwhile = listening.meanwhile = opened.baton.close
        opened.leave()
        assert opened.hear() == ("3-1", [])
        assert not acting.answers + listening.answers


def test_a_failure_without_words_is_told_by_its_name_and_a_long_one_in_short() -> None:
    for error, told in ((NoConnection(), "ConnectionError"), (RedisError("x" * 500), "x" * 200)):
        opened = Opened(Scripted(error))
        assert opened.failure(opened.leave) == f"redis host:6379: {told}"


def test_a_failure_that_repeats_the_password_is_told_without_it() -> None:
    error = RedisError("cannot log in with hunter2 as hunter2")
    opened = Opened(Scripted(error), url="redis://:hunter2@host")
    assert opened.failure(opened.leave) == "redis host:6379: cannot log in with *** as ***"
    opened = Opened(Scripted(RedisError("no password")))
    assert opened.failure(opened.leave) == "redis host:6379: no password"


def test_it_listens_for_as_long_as_it_is_told_and_never_for_ever() -> None:
    for block_s, told_ms in ((1.5, 1500), (0.001, 1), (0.0, 1)):
        client = Scripted([])
        Opened(client).hear(block_s)
        assert client.asked == [("XREAD", "COUNT", 200, "BLOCK", told_ms, "STREAMS", "alpaca:{x}:~said", "3-1")]


def test_in_a_cluster_the_node_that_has_the_stream_is_asked() -> None:
    for kind in ("redis://host", "redis+sentinel://host/paper"):
        other = Scripted([])
        Opened(other, url=kind).hear()
        assert len(other.asked) == 1
    client = Scripted(None, [])
    Opened(client, url="redis+cluster://host").hear()
    (initialized, asked) = client.asked
    assert initialized == ("initialize",)
    assert asked[-1] == ("target_nodes", "the node of alpaca:{x}:~said")


TOLD: Final = {b"f": b"7", b"n": b"1", b"k": b"L", b"b": b"x"}
FLAT: Final = [b"f", b"7", b"n", b"1", b"k", b"L", b"b", b"x"]


@pytest.mark.parametrize("fields", [TOLD, FLAT])
@pytest.mark.parametrize("of_entry", [list, tuple])
@pytest.mark.parametrize("of_stream", [list, tuple])
@pytest.mark.parametrize(
    "shape",
    [
        lambda entries, of: [of((b"key", entries))],
        lambda entries, of: {b"key": entries},
        lambda entries, of: {b"key": [entries]},
    ],
)
def test_what_was_said_is_understood_in_each_shape_that_redis_py_gives_it(
    fields: Any, of_entry: Callable[[Any], Any], of_stream: Any, shape: Any
) -> None:
    entries = [of_entry((entry_id, fields)) for entry_id in (b"4-0", b"4-1")]
    assert Opened(Scripted(shape(entries, of_stream))).hear() == ("4-1", [Parcel(7, 1, LINES, b"x")] * 2)


@pytest.mark.parametrize("nothing", [None, [], {}, [[b"key", []]], {b"key": []}, {b"key": [[]]}])
def test_nothing_is_understood_too(nothing: object) -> None:
    assert Opened(Scripted(nothing)).hear() == ("3-1", [])


def test_fields_without_their_values_are_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        Opened(Scripted([[b"key", [[b"4-0", FLAT[:-1]]]]])).hear()


def test_a_url_that_cannot_be_read_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="REDIS_URL"):
        Baton("http://localhost", "x")


def test_a_server_that_is_away_is_told_without_the_password() -> None:
    address = f"127.0.0.1:{valkey.free_port()}"

    async def ask() -> None:
        baton = Baton(f"redis://:hunter2@{address}", "x")
        for question in (baton.leave("A"), baton.hear("0-0", 0.0)):
            with pytest.raises(StoreUnavailable, match=address) as caught:
                await question
            assert "hunter2" not in caught.value.message
        await baton.close()

    asyncio.run(ask())


def test_redis_pys_own_clients_do_what_the_tests_do(valkey_url: str) -> None:
    async def scene() -> None:
        baton = Baton(valkey_url, os.urandom(6).hex())
        begin = await baton.attend("A", b"a", take=True)
        assert (begin.holder, begin.wants) == ("A", [b"a"])
        said = [Parcel(begin.fence, 1, LINES, b"x")]
        assert await baton.tell("A", begin.fence, said)
        assert (await baton.hear("0-0", 0.0))[1] == said
        await baton.close()

    asyncio.run(scene())


def options(client: Any) -> dict[str, Any]:
    return dict(client.connection_pool.connection_kwargs)


def test_one_server_is_asked_in_its_database_with_its_password_and_waits_no_longer_than_is_said() -> None:
    client = open_async_client(parse_url("redis://me:hunter2@host:7000/3"), 2.5)
    assert isinstance(client, AsyncRedis)
    told = options(client)
    assert [told[name] for name in ("host", "port", "db", "username", "password")] == [
        *("host", 7000, 3, "me", "hunter2")
    ]
    assert (told["socket_timeout"], told["socket_connect_timeout"]) == (2.5, 1.0)
    assert told["retry"].get_retries() == 0


def test_only_rediss_is_encrypted() -> None:
    clients = [open_async_client(parse_url(f"{scheme}://host"), 1.0) for scheme in ("redis", "rediss")]
    assert [issubclass(one.connection_pool.connection_class, SSLConnection) for one in clients] == [False, True]


def test_a_cluster_is_asked_for_its_nodes_at_each_of_its_hosts() -> None:
    client = open_async_client(parse_url("redis+cluster://:hunter2@one,two:7000"), 2.5)
    assert isinstance(client, RedisCluster)
    assert [(node.host, node.port) for node in client.nodes_manager.startup_nodes.values()] == [
        *(("one", 6379), ("two", 7000))
    ]
    assert [client.connection_kwargs[name] for name in ("password", "socket_timeout")] == ["hunter2", 2.5]


def test_sentinels_are_asked_for_the_master_without_the_password_and_then_with_it() -> None:
    client = open_async_client(parse_url("redis+sentinel://me:hunter2@one,two:7000/paper/3"), 2.5)
    pool = client.connection_pool
    assert pool.service_name == "paper"
    assert pool.is_master
    sentinels = [options(sentinel) for sentinel in pool.sentinel_manager.sentinels]
    assert [(told["host"], told["port"], told["username"], told["password"]) for told in sentinels] == [
        ("one", 26379, None, None),
        ("two", 7000, None, None),
        ("one", 26379, "me", "hunter2"),
        ("two", 7000, "me", "hunter2"),
    ]
    told = options(client)
    assert [told[name] for name in ("db", "username", "password", "socket_timeout")] == [3, "me", "hunter2", 2.5]
    lone = open_async_client(parse_url("redis+sentinel://one/paper"), 2.5)
    assert len(lone.connection_pool.sentinel_manager.sentinels) == 1


class Closing:
    """What can be closed, and may fail at that."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.closed = False
        self.connection_pool: Any = None
        self.sentinel_manager: Any = None
        self.sentinels: list[Closing] = []

    async def aclose(self) -> None:
        self.closed = True
        if self.error is not None:
            raise self.error


def test_with_a_client_its_connections_to_sentinels_are_closed_whatever_fails() -> None:
    master = Closing(NoConnection("gone"))
    master.connection_pool, master.sentinel_manager = master, master
    master.sentinels = [Closing(OSError("gone")), Closing()]
    asyncio.run(close_async_client(master))
    assert all(one.closed for one in (master, *master.sentinels))


@pytest.mark.parametrize("url", ["redis://host", "redis+sentinel://host/paper", "redis+cluster://host"])
def test_a_client_that_was_never_used_is_closed_too(url: str) -> None:
    async def scene() -> None:
        await close_async_client(open_async_client(parse_url(url), 1.0))

    asyncio.run(scene())


class Forgetful:
    """A client that forgets the first cancellations of a call, as ``asyncio.wait_for`` of Python 3.11 may."""

    def __init__(self, times: int, *, then_fails: bool = False) -> None:
        self.times = times
        self.then_fails = then_fails
        self.asked = asyncio.Event()
        self.ended = 0

    async def evalsha(self, *_: Any) -> Any:
        self.asked.set()
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.times -= 1
                if self.times < 0:
                    self.ended += 1
                    if self.then_fails:
                        raise NoConnection("closed") from None
                    raise

    async def execute_command(self, *_: Any) -> Any:
        return await self.evalsha()

    async def aclose(self) -> None: ...


@pytest.mark.parametrize("then_fails", [False, True])
@pytest.mark.parametrize("times", [0, 2])
@pytest.mark.parametrize("what", ["tell", "hear"])
def test_a_cancelled_call_is_over_though_the_client_forgets_the_cancellation(
    what: str, times: int, then_fails: bool
) -> None:
    said: list[str] = []

    async def play() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context["message"]))
        client = Forgetful(times, then_fails=then_fails)
        baton = Baton("redis://127.0.0.1:1/0", "paper", connect=lambda _: client)
        call = baton.tell("A", 1, []) if what == "tell" else baton.hear("0-0", 1.0)
        task = asyncio.ensure_future(call)
        await client.asked.wait()
        task.cancel()
        await asyncio.wait([task], timeout=20)
        assert task.cancelled()
        assert client.ended == 1  # and nothing of it goes on
        await asyncio.sleep(0)

    asyncio.run(play())
    gc.collect()
    assert said == []
