"""What a client may ask a minute: counted here, and over all gateways while their Redis answers."""

import asyncio

import pytest
from tests.support.fakes import ManualClock

from alpacli.errors import BudgetExhausted, StoreUnavailable
from alpacli.gateway.allowance import Allowance


class Shared:
    """Counts for all gateways; so many are allowed altogether."""

    def __init__(self, left: int) -> None:
        self.left = left
        self.asked = 0
        self.away = False

    async def spend(self, client: str, rate: int) -> float:
        self.asked += 1
        if self.away:
            raise StoreUnavailable("redis is away")
        if not self.left:
            return 2.0
        self.left -= 1
        return 0.0

    async def close(self) -> None: ...


def _spend(allowance: Allowance, times: int, client: str = "1") -> int:
    """Return how many of so many requests were let through."""

    async def spend() -> int:
        through = 0
        for _ in range(times):
            try:
                await allowance.spend(client, "bot")
            except BudgetExhausted:
                continue
            through += 1
        return through

    return asyncio.run(spend())


def test_an_allowance_comes_back_with_time_and_is_each_clients_own() -> None:
    clock = ManualClock()
    allowance = Allowance(60, clock, print)
    assert _spend(allowance, 60) == 60
    with pytest.raises(BudgetExhausted) as spent:
        asyncio.run(allowance.spend("1", "bot"))
    assert spent.value.retry_after == pytest.approx(1.0)
    assert _spend(allowance, 1, "2") == 1
    clock.advance(1.0)
    assert _spend(allowance, 2) == 1


def test_what_other_gateways_counted_is_refused_here_and_costs_nothing() -> None:
    clock = ManualClock()
    shared = Shared(3)
    allowance = Allowance(10, clock, print, shared)
    assert _spend(allowance, 20) == 3
    shared.left = 100
    assert _spend(allowance, 20) == 7


def test_while_redis_is_away_each_gateway_counts_for_itself_says_so_once_and_asks_seldom() -> None:
    clock = ManualClock()
    shared, warnings = Shared(100), list[str]()
    allowance = Allowance(10, clock, warnings.append, shared)
    shared.away = True
    assert _spend(allowance, 20) == 10
    assert shared.asked == 1
    clock.advance(6.0)
    assert _spend(allowance, 1) == 1
    assert (shared.asked, len(warnings)) == (2, 1)
    assert "by itself" in warnings[0]
    shared.away = False
    clock.advance(6.0)
    assert _spend(allowance, 1) == 1
    assert (shared.asked, shared.left) == (3, 99)
