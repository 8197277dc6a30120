"""The allowance that gateways share, to the microsecond, in a real server; and a server that is away, slow or forgetful."""

import asyncio
import os
import socket
from collections.abc import Callable

import pytest
from redis import Redis
from tests.support import valkey
from tests.support.fakes import SetClock

from alpacli.errors import ConfigError, StoreUnavailable
from alpacli.store.allowance import SharedAllowance


class Gateways:
    """The gateways of one account, at one Redis."""

    def __init__(self, url: str) -> None:
        self.clock = SetClock()
        self.client = valkey.AsyncOnClock(url, self.clock)
        self.scope = f"alpaca:{{{os.urandom(6).hex()}}}"
        self.opened = 0
        self.shared = SharedAllowance(url, self.scope, connect=self.connect)

    def connect(self) -> valkey.AsyncOnClock:
        self.opened += 1
        return self.client

    def spend(self, client: str = "bot", rate: int = 6) -> float:
        return asyncio.run(self.shared.spend(client, rate))

    def spend_all(self, times: int) -> list[float]:
        return [self.spend() for _ in range(times)]


@pytest.fixture
def gateways(valkey_url: str) -> Gateways:
    return Gateways(valkey_url)


def test_all_of_it_may_be_used_at_once_and_comes_back_one_by_one(gateways: Gateways) -> None:
    assert gateways.spend_all(6) == [0.0] * 6
    assert gateways.spend() == 10.0
    gateways.clock.advance(9.0)
    assert gateways.spend() == pytest.approx(1.0, abs=0.000002)
    gateways.clock.advance(1.0)
    assert gateways.spend() == 0.0
    assert gateways.spend() == pytest.approx(10.0, abs=0.000002)


def test_who_waits_as_long_as_was_said_is_let_through_and_counted(gateways: Gateways) -> None:
    gateways.clock.advance(0.123457)
    gateways.spend("bot", 7)
    gateways.clock.advance(1.987653)
    for _ in range(6):
        gateways.spend("bot", 7)
    wait_s = gateways.spend("bot", 7)
    assert 6.0 < wait_s < 60 / 7
    gateways.clock.advance(wait_s)
    assert gateways.spend("bot", 7) == 0.0
    assert gateways.spend("bot", 7) == pytest.approx(60 / 7, abs=0.000002)  # and it was counted


def test_a_request_that_was_refused_costs_nothing(gateways: Gateways) -> None:
    gateways.spend_all(6)
    assert gateways.spend_all(3) == [10.0] * 3
    gateways.clock.advance(20.0)
    assert gateways.spend_all(3)[:2] == [0.0] * 2


def test_no_more_than_all_of_it_is_ever_saved(gateways: Gateways) -> None:
    gateways.spend()
    gateways.clock.advance(3600.0)
    assert [wait > 0 for wait in gateways.spend_all(8)] == [False] * 6 + [True] * 2


def test_half_of_it_is_back_after_half_a_minute(gateways: Gateways) -> None:
    gateways.spend_all(6)
    gateways.clock.advance(30.0)
    assert [wait > 0 for wait in gateways.spend_all(5)] == [False] * 3 + [True] * 2


def test_a_clock_that_was_set_back_gives_nothing_and_takes_nothing(gateways: Gateways) -> None:
    gateways.spend_all(3)
    gateways.clock.set_back(3600.0)
    assert gateways.spend_all(4) == [0.0] * 3 + [10.0]
    gateways.clock.advance(10.0)
    assert gateways.spend() == 0.0


def test_each_client_and_each_account_has_its_own(gateways: Gateways) -> None:
    gateways.spend_all(6)
    assert gateways.spend("another") == 0.0
    gateways.shared = SharedAllowance("redis://unused", "alpaca:{other}", connect=gateways.connect)
    assert gateways.spend(os.urandom(6).hex()) == 0.0


def test_who_does_not_come_for_two_minutes_is_forgotten(gateways: Gateways, valkey_url: str) -> None:
    gateways.spend()
    with Redis.from_url(valkey_url) as server:
        assert 110_000 < int(str(server.pttl(f"{gateways.scope}:~allowance:bot"))) <= 120_000


def test_what_was_closed_is_opened_again_when_it_is_used(gateways: Gateways) -> None:
    asyncio.run(gateways.shared.close())
    assert gateways.client.closed == 0
    gateways.spend()
    for _ in range(2):
        asyncio.run(gateways.shared.close())
    assert gateways.client.closed == 1
    assert gateways.spend() == 0.0
    assert gateways.opened == 2


def failure(open_shared: Callable[[], SharedAllowance]) -> StoreUnavailable:
    async def spend() -> StoreUnavailable:
        shared = open_shared()
        with pytest.raises(StoreUnavailable) as caught:
            await shared.spend("bot", 6)
        await shared.close()
        return caught.value

    return asyncio.run(spend())


def test_a_server_that_is_away_is_told_with_its_address_and_without_the_password() -> None:
    address = f"127.0.0.1:{valkey.free_port()}"
    told = failure(lambda: SharedAllowance(f"redis://:hunter2@{address}", "alpaca:{a}"))
    assert told.message == f"redis {address} does not answer: ConnectionError"
    assert "REDIS_URL" in told.hint


def test_nobody_waits_for_a_server_that_never_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"redis://127.0.0.1:{listener.getsockname()[1]}"
        told = failure(lambda: SharedAllowance(url, "alpaca:{a}", patience_s=0.1))
    assert "did not answer within 0.1 s" in told.message
    assert "REDIS_URL" in told.hint


def test_real_clients_share_what_the_server_counts_and_a_script_it_forgot_is_sent_again(valkey_url: str) -> None:
    async def spend() -> list[float]:
        one, two = (SharedAllowance(valkey_url, "alpaca:{real}", patience_s=20.0) for _ in range(2))
        client = os.urandom(6).hex()
        waits = [await one.spend(client, 2), await two.spend(client, 2)]
        with Redis.from_url(valkey_url) as server:
            server.script_flush()
        waits.append(await one.spend(client, 2))
        await one.close()
        await two.close()
        return waits

    first, second, third = asyncio.run(spend())
    assert (first, second) == (0.0, 0.0)
    assert 0 < third <= 30.0


def test_a_url_that_cannot_be_read_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="REDIS_URL"):
        SharedAllowance("http://localhost", "alpaca:{a}")
