"""The model's premiums: right, monotone, and the same cents everywhere."""

import hashlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpacli.sim.premiums import exponential, greeks, intrinsic_mills, logarithm, normal, value_cents

SPOTS = st.integers(100, 150_000)
STRIKES = st.integers(1, 3_000).map(lambda halves: halves * 500)
MINUTES = st.integers(0, 1_400_000)
VOLATILITIES = st.integers(50, 1500)


@given(st.floats(-600, 600))
def test_the_own_exponential_is_the_exponential(x: float) -> None:
    assert exponential(x) == pytest.approx(math.exp(x), rel=1e-15)


@given(st.floats(1e-6, 1e6))
def test_the_own_logarithm_is_the_logarithm(x: float) -> None:
    assert logarithm(x) == pytest.approx(math.log(x), rel=1e-15, abs=1e-15)


@given(st.floats(-40, 40))
def test_the_own_normal_distribution_is_the_normal_distribution(x: float) -> None:
    assert normal(x) == pytest.approx(math.erfc(-x / math.sqrt(2)) / 2, abs=1e-14)


@given(SPOTS, SPOTS, STRIKES, MINUTES, MINUTES, VOLATILITIES, st.booleans())
def test_a_premium_gains_with_the_price_it_bets_on_and_with_time(
    spot: int, other: int, strike: int, minutes: int, more: int, volatility: int, call: bool
) -> None:
    low, high = sorted((spot, other))
    less, most = sorted((minutes, more))
    worst, best = (low, high) if call else (high, low)
    assert value_cents(call, worst, strike, less, volatility) <= value_cents(call, best, strike, most, volatility)


@given(SPOTS, STRIKES, MINUTES, VOLATILITIES, st.booleans())
def test_a_premium_is_never_below_what_exercise_brings(
    spot: int, strike: int, minutes: int, volatility: int, call: bool
) -> None:
    worth = intrinsic_mills(call=call, spot_cents=spot, strike_mills=strike)
    assert value_cents(call, spot, strike, minutes, volatility) >= worth // 10
    assert value_cents(call, spot, strike, 0, volatility) == worth // 10


@given(SPOTS, STRIKES, st.integers(1, 1_400_000), VOLATILITIES)
def test_call_less_put_is_stock_less_strike(spot: int, strike: int, minutes: int, volatility: int) -> None:
    difference = value_cents(True, spot, strike, minutes, volatility) - value_cents(
        False, spot, strike, minutes, volatility
    )
    assert abs(difference - (spot - strike / 10)) <= 1


def test_a_textbook_option_has_the_textbook_premium() -> None:
    """Hull's stock at 49, strike 50, 20 weeks, volatility 20 %, without interest; worked out with another erf."""
    minutes = 20 * 7 * 24 * 60
    assert value_cents(True, 4_900, 50_000, minutes, 200) == 198
    found = greeks(call=True, spot_cents=4_900, strike_mills=50_000, minutes=minutes, volatility_permille=200)
    assert found.delta == pytest.approx(0.459707, abs=1e-6)
    assert found.gamma == pytest.approx(0.065395, abs=1e-6)
    assert found.vega == pytest.approx(0.120448, abs=1e-6)


def test_the_cents_are_the_same_on_every_machine() -> None:
    """A digest of many premiums, taken once: a machine that rounds otherwise would have another."""
    table = [
        value_cents(call, spot, strike, minutes, volatility)
        for call in (True, False)
        for spot in range(1_000, 60_000, 1_733)
        for strike in range(5_000, 600_000, 21_500)
        for minutes in (1, 60, 1_440, 43_200, 500_000)
        for volatility in (120, 280, 900)
    ]
    assert hashlib.blake2b(repr(table).encode(), digest_size=8).hexdigest() == "f66960d98fbe2293"
