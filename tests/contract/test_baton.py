"""The baton on real servers: one, a Sentinel group and a cluster keep the same promises."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from tests.support import valkey

from alpacli.errors import ConfigError, StoreUnavailable
from alpacli.store.allowance import SharedAllowance
from alpacli.store.baton import EVENT, LEASE_S, LINES, RESIGNED, STATE, Baton, Parcel


@pytest.fixture(scope="module", params=["single", "sentinel", "cluster"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    place: Path = tmp_path_factory.mktemp("redis")
    if request.param == "single":
        with valkey.server(place) as server:
            yield server.url
    elif request.param == "sentinel":
        with valkey.sentinel_group(place) as group:
            yield f"redis+sentinel://127.0.0.1:{group[2].port}/paper"
    else:
        with valkey.cluster(place) as nodes:
            yield "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes)


_names = iter(range(10_000))


def together(url: str, scene: Callable[[Baton, Baton], Awaitable[None]]) -> None:
    """Play a scene with two members' ends of a new baton."""

    async def play() -> None:
        name = f"test-{next(_names)}"
        one, two = Baton(url, name), Baton(url, name)
        try:
            await scene(one, two)
        finally:
            await one.close()
            await two.close()

    asyncio.run(play())


def test_one_holds_it_and_learns_what_all_want(url: str) -> None:
    async def scene(one: Baton, two: Baton) -> None:
        first = await one.attend("A", b"a", take=True)
        second = await two.attend("B", b"b", take=True)
        assert (first.holder, second.holder, second.fence) == ("A", "A", first.fence)
        assert (first.wants, second.wants) == ([b"a"], None)
        again = await one.attend("A", None, take=True, known_version=first.version)
        assert again.wants is not None
        assert sorted(again.wants) == [b"a", b"b"]
        assert again.members == 2
        calm = await one.attend("A", None, take=True, known_version=again.version)
        assert calm.wants is None  # nothing has changed
        assert 0 < calm.left_s <= LEASE_S

    together(url, scene)


def test_an_allowance_is_counted_over_all_who_ask_and_comes_back_at_its_rate(url: str) -> None:
    async def spend() -> tuple[list[float], list[float]]:
        one, two = (SharedAllowance(url, "alpaca:{test}", patience_s=20.0) for _ in range(2))
        try:
            waits = [await each.spend("bot", 6) for each in (one, two) * 4]
            quick = [await one.spend("quick", 6000) for _ in range(3)]
        finally:
            await one.close()
            await two.close()
        return waits, quick

    waits, quick = asyncio.run(spend())
    assert waits[:6] == [0.0] * 6
    assert 0 < waits[6] <= 10.0
    assert quick == [0.0] * 3


def test_a_lease_that_ran_out_is_for_whoever_comes_and_the_late_one_is_not_heard_any_more(url: str) -> None:
    async def scene(one: Baton, two: Baton) -> None:
        old = await one.attend("A", b"", take=True, lease_s=0.05)
        watching = await two.attend("B", b"", take=False)
        assert watching.holder == "A"
        await asyncio.sleep(0.1)
        new = await two.attend("B", b"", take=True)
        assert new.holder == "B"
        assert new.fence > old.fence
        assert not await one.tell("A", old.fence, [Parcel(old.fence, 1, LINES, b"late")])
        assert await two.tell("B", new.fence, [Parcel(new.fence, 1, LINES, b"well")])
        assert (await one.hear(old.said_id, 0.5))[1] == [Parcel(new.fence, 1, LINES, b"well")]
        assert (await one.attend("A", None, take=True)).holder == "B"

    together(url, scene)


def test_what_is_said_comes_whole_in_order_and_once_however_late_one_reads(url: str) -> None:
    async def scene(one: Baton, two: Baton) -> None:
        begin = await one.attend("A", b"", take=True)
        said = [
            Parcel(begin.fence, 1, LINES, b'{"type":"trade"}\n\x00\xff'),
            Parcel(begin.fence, 2, STATE, b"state"),
            Parcel(begin.fence, 3, EVENT, b""),
        ]
        listening = asyncio.ensure_future(two.hear(begin.said_id, 1.0))
        await asyncio.sleep(0.05)
        assert await one.tell("A", begin.fence, said[:1])
        after, heard = await listening
        assert await one.tell("A", begin.fence, said[1:])
        await two.close()  # a connection that broke
        _, rest = await two.hear(after, 1.0)
        assert heard + rest == said
        assert (await two.attend("B", b"", take=False)).state == b"state"

    together(url, scene)


def test_a_new_wish_wakes_the_holder_and_the_holders_goodbye_wakes_the_others(url: str) -> None:
    async def scene(one: Baton, two: Baton) -> None:
        begin = await one.attend("A", b"", take=True)
        waking = asyncio.ensure_future(one.hear_asked(begin.asked_id, 2.0))
        await asyncio.sleep(0.05)
        await two.attend("B", b"b", take=True)
        assert await waking != begin.asked_id
        assert await one.hear_asked(await waking, 0.05) == await waking  # nothing more
        await one.leave("A")
        _, heard = await two.hear(begin.said_id, 1.0)
        assert [parcel.kind for parcel in heard] == [RESIGNED]
        taken = await two.attend("B", None, take=True)
        assert (taken.holder, taken.wants, taken.members) == ("B", [b"b"], 1)

    together(url, scene)


def test_no_server_is_said_at_once_and_without_the_password() -> None:
    async def ask() -> None:
        baton = Baton(f"redis://:hunter2@127.0.0.1:{valkey.free_port()}/0", "x")
        for question in (baton.attend("A", b"", take=True), baton.hear("0-0", 0.1)):
            with pytest.raises(StoreUnavailable) as caught:
                await question
            assert "hunter2" not in str(caught.value)
        await baton.close()

    asyncio.run(ask())
    with pytest.raises(ConfigError):
        Baton("http://example.com", "x")


def test_who_is_told_to_hear_no_more_hears_no_more_whenever_that_is_said(url: str) -> None:
    async def scene(one: Baton, two: Baton) -> None:
        fence = (await one.attend("A", b"a", take=True)).fence
        await one.tell("A", fence, [Parcel(fence, number, LINES, b"x") for number in range(1, 4)])
        await two.hear("0-0", 1.0)

        async def keep_hearing() -> None:
            while True:
                await two.hear("0-0", 1.0)

        for moment in range(30):
            task = asyncio.ensure_future(keep_hearing())
            await asyncio.sleep(0.002 + moment * 0.0003)
            task.cancel()
            await asyncio.wait([task], timeout=5.0)
            assert task.cancelled()

    together(url, scene)
