"""Gateways on several machines, which share one upstream connection through a real Redis: each is a process with a home of
its own, so their hubs are as separate as those of two machines."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support import valkey
from tests.support.feed import Feed, one_at_a_time
from tests.support.gateway import BROKER, Gateway, RelayClient
from tests.support.streaming import eventually

pytestmark = pytest.mark.slow


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[valkey.Server]:
    with valkey.server(tmp_path) as server:
        yield server


@contextmanager
def machines(feed: Feed, tmp_path: Path, redis_url: str) -> Iterator[tuple[Gateway, Gateway]]:
    with (
        Gateway(feed.url, tmp_path / "a", REDIS_URL=redis_url) as one,
        Gateway(feed.url, tmp_path / "b", REDIS_URL=redis_url) as two,
    ):
        yield one, two


async def _until_trade(client: RelayClient, after: int = 0) -> int:
    while True:
        told = await client.hear_of("trade")
        if told["id"] > after:
            return int(told["id"])


async def _numbers(client: RelayClient, count: int) -> list[int]:
    return [(await client.hear_of("trade"))["id"] for _ in range(count)]


def test_two_machines_share_one_connection_and_each_hears_its_own(tmp_path: Path, redis: valkey.Server) -> None:
    async def listen(one: Gateway, two: Gateway) -> tuple[list[int], list[Any], Any]:
        async with one.connect(f"{BROKER}?symbols=AAPL&streams=trades") as first:
            await first.hear_of("trade")
            async with two.connect(f"{BROKER}?symbols=MSFT&streams=trades") as second:
                heard = [await second.hear_of("trade") for _ in range(20)]
                return await _numbers(first, 20), heard, await second.hear_of("trade")

    with Feed() as feed, machines(feed, tmp_path, redis.url) as (one, two):
        numbers, heard, _ = asyncio.run(listen(one, two))
        assert feed.most_open == 1
    assert numbers == list(range(numbers[0], numbers[0] + 20))
    assert {trade["symbol"] for trade in heard} == {"MSFT"}
    ids = [trade["id"] for trade in heard]
    assert ids == list(range(ids[0], ids[0] + 20))
    assert one.errors == two.errors == ""


def test_when_the_machine_that_holds_the_connection_dies_another_takes_over_and_tells_the_gap(
    tmp_path: Path, redis: valkey.Server
) -> None:
    async def survive(feed: Feed, one: Gateway, two: Gateway) -> None:
        async with one.connect(f"{BROKER}?symbols=AAPL&streams=trades") as first:
            await first.hear_of("trade")
            async with two.connect(f"{BROKER}?symbols=AAPL,MSFT&streams=trades") as second:
                heard = [(await second.hear_of("trade"))["id"] for _ in range(10)]
                one.die()
                await second.hear_of("reconnecting")
                gap = await second.hear_of("gap")  # in a calm moment after 3 s: `make bench`
                again = await second.hear_of("trade")
                assert gap["from"] < gap["until"]
                assert again["id"] > heard[-1]
                assert set(feed.asked[-1]["trades"]) >= {"AAPL", "MSFT"}  # who leaves is unsubscribed

    with Feed() as feed, machines(feed, tmp_path, redis.url) as (one, two):
        asyncio.run(survive(feed, one, two))
        assert feed.most_open == 1


def test_a_machine_that_stood_still_is_waited_for_and_lets_go_of_the_connection_when_it_goes_on(
    tmp_path: Path, redis: valkey.Server
) -> None:
    async def endure(feed: Feed, one: Gateway, two: Gateway) -> None:
        async with one.connect(f"{BROKER}?symbols=AAPL&streams=trades") as first:
            await first.hear_of("trade")  # so it is the first that holds the connection
            holder = one.hub()
            async with two.connect(f"{BROKER}?symbols=AAPL&streams=trades") as second:
                last = await _until_trade(second)
                one.stand_still()
                while True:
                    lost = await second.hear_of("reconnecting")
                    if f"process {holder} on" in lost["hint"]:
                        break
                assert "406" in lost["reason"]
                one.go_on()
                gap = await second.hear_of("gap")
                assert gap["from"] < gap["until"]
                assert await _until_trade(second, last) > last
                await first.hear_of("gap")
                again = await _until_trade(first)
                assert await _numbers(first, 3) == [again + 1, again + 2, again + 3]  # through Redis now
                assert feed.open_now == 1

    with Feed(one_at_a_time) as feed, machines(feed, tmp_path, redis.url) as (one, two):
        asyncio.run(endure(feed, one, two))
        assert feed.turned_away


def test_a_machine_that_is_cut_off_from_redis_alone_lets_go_for_the_others(
    tmp_path: Path, redis: valkey.Server
) -> None:
    async def endure(feed: Feed, one: Gateway, two: Gateway, way: valkey.Way) -> None:
        async with one.connect(f"{BROKER}?symbols=AAPL&streams=trades") as first:
            await first.hear_of("trade")  # so it is the first that holds the connection
            async with two.connect(f"{BROKER}?symbols=AAPL&streams=trades") as second:
                last = await _until_trade(second)
                way.cut()
                told = await first.hear_of("reconnecting", 60)
                assert "another machine may be waiting" in told["reason"]
                await second.hear_of("gap", 60)
                assert await _until_trade(second, last) > last
                way.mend()
                await first.hear_of("gap", 60)
                await first.hear_of("trade")
                assert feed.open_now == 1

    with (
        Feed(one_at_a_time) as feed,
        valkey.Way(redis) as way,
        Gateway(feed.url, tmp_path / "a", REDIS_URL=way.url) as one,
        Gateway(feed.url, tmp_path / "b", REDIS_URL=redis.url) as two,
    ):
        asyncio.run(endure(feed, one, two, way))
        assert feed.turned_away


def test_without_redis_the_holder_goes_on_the_others_say_so_and_all_recover_by_themselves(
    tmp_path: Path, redis: valkey.Server
) -> None:
    async def endure(one: Gateway, two: Gateway) -> None:
        async with (
            one.connect(f"{BROKER}?symbols=AAPL&streams=trades") as first,
            two.connect(f"{BROKER}?symbols=AAPL&streams=trades") as second,
        ):
            await first.hear_of("trade")
            await second.hear_of("trade")
            redis.kill()
            holder, follower = await _who_lost(first, second)
            before = await _until_trade(holder)
            numbers = await _numbers(holder, 150)
            assert numbers == list(range(before + 1, before + 151))  # the holder's own never notice
            redis.start()
            gap = await follower.hear_of("gap")
            assert gap["from"] < gap["until"]
            await follower.hear_of("trade")
            numbers = await _numbers(holder, 100)
            assert numbers == list(range(numbers[0], numbers[0] + 100))

    async def _who_lost(first: RelayClient, second: RelayClient) -> tuple[RelayClient, RelayClient]:
        waits = {asyncio.ensure_future(client.hear_of("reconnecting")): client for client in (first, second)}
        done, running = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for task in running:
            task.cancel()
            await asyncio.wait([task])
        (lost,) = done
        follower = waits[lost]
        return (first if follower is second else second), follower

    with Feed() as feed, machines(feed, tmp_path, redis.url) as (one, two):
        asyncio.run(endure(one, two))
        assert feed.most_open == 1
        assert feed.connections == 1
    assert eventually(lambda: feed.open_now == 0)


def test_a_replica_that_was_promoted_goes_on_where_the_master_was(tmp_path: Path) -> None:
    async def endure(one: Gateway, two: Gateway, master: valkey.Server) -> None:
        async with one.connect(f"{BROKER}?symbols=AAPL&streams=trades") as first:
            await first.hear_of("trade")  # so it is the first that holds the connection
            async with two.connect(f"{BROKER}?symbols=MSFT&streams=trades") as second:
                await second.hear_of("trade")
                before = await _until_trade(first)
                master.kill()
                gap = await second.hear_of("gap", 60)  # a busy Sentinel looks on for 30 s before it acts
                assert gap["feed"] == "iex"
                await second.hear_of("trade")
                numbers = await _numbers(first, 100)
                assert numbers == list(range(before + 1, before + 101))

    with valkey.sentinel_group(tmp_path) as (master, _, sentinel):
        url = f"redis+sentinel://127.0.0.1:{sentinel.port}/paper"
        with Feed() as feed, machines(feed, tmp_path, url) as (one, two):
            asyncio.run(endure(one, two, master))
            assert (feed.most_open, feed.connections) == (1, 1)
