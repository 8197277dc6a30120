"""The market in options: one answer whoever asks, and the first moment is the first."""

from collections.abc import Callable
from decimal import Decimal
from typing import cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.examples import examples

from alpacli.sim.contracts import Contract, parse
from alpacli.sim.hours import AlwaysOpen, Nyse, nyse_sessions
from alpacli.sim.option_prices import Leg, OptionPrices, expires_ns
from alpacli.sim.prices import LOOK_NS, Prices, search_between
from alpacli.sim.tape import Tape

NOW = 1_780_322_400 * 10**9  # Monday 2026-06-01, 10:00 in New York
MINUTE = 60 * 10**9
HOURS = AlwaysOpen()
PRICES = OptionPrices(Tape(2026, HOURS), HOURS, 2026)


def contract(symbol: str) -> Contract:
    found = parse(symbol)
    assert found is not None
    return found


CALL, HIGHER, PUT = (contract(f"AAPL260605{what}") for what in ("C00277500", "C00282500", "P00277500"))
LEGS = st.sampled_from(
    [
        [Leg(CALL, 1)],
        [Leg(PUT, 1)],
        [Leg(CALL, -1)],
        [Leg(PUT, -1)],
        [Leg(CALL, 1), Leg(HIGHER, -1)],
        [Leg(CALL, -1), Leg(HIGHER, 1)],
        [Leg(CALL, -1), Leg(PUT, -1)],
        [Leg(CALL, 1), Leg(HIGHER, -2), Leg(PUT, 1)],
    ]
)


@settings(max_examples=examples(15), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(LEGS, st.integers(0, 3 * 86_400), st.integers(-12, 4), st.integers(1, 900))
def test_the_first_moment_at_a_limit_is_what_a_walk_finds(
    legs: list[Leg], after_s: int, cents: int, looks: int
) -> None:
    start_ns = NOW + after_s * 10**9 + 12_345
    now = PRICES.net(legs, start_ns)
    assert now is not None
    limit = now + Decimal(cents) / 100
    end_ns = start_ns + looks * LOOK_NS
    walked = [start_ns, *(at * LOOK_NS for at in range(start_ns // LOOK_NS + 1, -(-end_ns // LOOK_NS)))]
    nets = ((at_ns, PRICES.net(legs, at_ns)) for at_ns in walked if at_ns < end_ns)
    first = next((at_ns for at_ns, net in nets if net is not None and net <= limit), None)
    assert PRICES.first_net(legs, start_ns, end_ns, limit) == first


@settings(max_examples=examples(8), deadline=None)
@given(LEGS, st.integers(-60, 5), st.integers(1, 2 * 86_400))
def test_a_moment_is_the_same_however_the_time_is_cut(legs: list[Leg], cents: int, cut_s: int) -> None:
    now = PRICES.net(legs, NOW)
    assert now is not None
    limit, end_ns, cut_ns = now + Decimal(cents) / 100, NOW + 2 * 86_400 * 10**9, NOW + cut_s * 10**9
    whole = PRICES.first_net(legs, NOW, end_ns, limit)
    before = PRICES.first_net(legs, NOW, cut_ns, limit)
    assert whole == (before if before is not None else PRICES.first_net(legs, cut_ns, end_ns, limit))
    if whole is not None:
        reached, just_before = PRICES.net(legs, whole), PRICES.net(legs, whole - 1)
        assert reached is not None
        assert reached <= limit
        assert whole == NOW or just_before is None or just_before > limit


class Halved:
    """The tape, searched by halving time, as a market is that was recorded."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape

    def __getattr__(self, name: str) -> object:
        return getattr(self._tape, name)

    def search(
        self, symbol: str, start_ns: int, end_ns: int, could: Callable[[int, int, int, int], bool]
    ) -> int | None:
        def extremes(from_ns: int, until_ns: int) -> tuple[int, int]:
            found = self._tape.extremes(symbol, from_ns, until_ns)
            return int(found.bid_low * 100), int(found.bid_high * 100)

        return search_between(extremes, start_ns, end_ns, could)


@settings(max_examples=examples(4), deadline=None)
@given(LEGS, st.integers(-12, 2), st.integers(1, 1_800 * 16))
def test_markets_without_a_tree_find_the_same_moment(legs: list[Leg], cents: int, looks: int) -> None:
    halved = OptionPrices(cast("Prices", Halved(Tape(2026, HOURS))), HOURS, 2026)
    now = PRICES.net(legs, NOW)
    assert now is not None
    limit, end_ns = now + Decimal(cents) / 100, NOW + looks * LOOK_NS - 7
    assert halved.first_net(legs, NOW + 5, end_ns, limit) == PRICES.first_net(legs, NOW + 5, end_ns, limit)


def test_bid_lies_below_offer_on_the_tick() -> None:
    for strike in range(200, 360, 5):
        for kind in "CP":
            quote = PRICES.quote(f"AAPL260717{kind}{strike * 1000:08d}", NOW)
            assert 0 <= quote.bid < quote.ask
            for price in (quote.bid, quote.ask):
                assert price % (Decimal("0.05") if price >= 3 else Decimal("0.01")) == 0
    fund = PRICES.quote("SPY260717C00600000", NOW)
    assert fund.ask > 3
    assert any(PRICES.quote("SPY260717C00600000", NOW + n * MINUTE).ask % Decimal("0.05") for n in range(60))


def test_nobody_bids_for_what_is_worth_nothing() -> None:
    quote = PRICES.quote("AAPL260605P00150000", NOW)
    assert (quote.bid, quote.bid_size, quote.ask) == (Decimal(0), Decimal(0), Decimal("0.01"))
    worthless = [Leg(contract("AAPL260605P00150000"), -1)]
    assert PRICES.net(worthless, NOW) is None
    assert PRICES.first_net(worthless, NOW, NOW + 86_400 * 10**9, None) is None


def test_a_contract_ends_at_what_exercise_brings() -> None:
    ends_ns = expires_ns(HOURS, CALL)
    stock = PRICES.last("AAPL", ends_ns - 1)
    assert PRICES.intrinsic(CALL) == max(stock - CALL.strike, Decimal(0))
    assert PRICES.intrinsic(PUT) == max(PUT.strike - stock, Decimal(0))
    assert abs(PRICES.last(CALL.symbol, ends_ns) - PRICES.intrinsic(CALL)) <= Decimal("0.01")
    assert PRICES.greeks(CALL, ends_ns) is None


def test_other_seeds_and_stocks_have_other_volatilities() -> None:
    calm, wild = contract("SPY260717C00690000"), contract("TSLA260717C00445000")
    assert PRICES.volatility_permille(calm) < 250 < PRICES.volatility_permille(wild) < 900
    seeds = {OptionPrices(Tape(seed, HOURS), HOURS, seed).volatility_permille(CALL) for seed in range(6)}
    assert len(seeds) > 2


@pytest.fixture(scope="module")
def nyse() -> OptionPrices:
    hours = Nyse(nyse_sessions())
    return OptionPrices(Tape(2026, hours), hours, 2026)


def test_premiums_stand_still_while_options_do_not_trade(nyse: OptionPrices) -> None:
    closed_ns = NOW + 6 * 60 * MINUTE
    last = nyse.quote(CALL.symbol, closed_ns - 1)
    for minutes in (0, 90, 600, 1_049):
        after = nyse.quote(CALL.symbol, closed_ns + minutes * MINUTE)
        assert (after.bid, after.ask) == (last.bid, last.ask)
    assert nyse.previous_close(CALL.symbol, NOW + 86_400 * 10**9) == nyse.last(CALL.symbol, closed_ns - 1)
