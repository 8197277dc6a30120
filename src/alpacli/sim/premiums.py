"""What an option is worth: Black and Scholes in cents, the same cents on every machine.

No dividends and no interest, so an American option is worth no less than a European one only by what it would bring at once,
and both types gain with the price they bet on and with every minute that is left: that is what lets ``option_prices`` bound
a premium over an interval by its corners.

Only operations that IEEE 754 rounds exactly are used: sums, products, quotients, square roots, and scaling by powers of
two. The C library's ``exp``, ``log`` and ``erf`` may differ in the last digit from one machine to the next, and a cent would
follow now and then; the ones below cannot. Why it is like this: ADR 11.
"""

import math
from functools import lru_cache
from typing import Final, NamedTuple

MINUTES_A_YEAR: Final = 365 * 24 * 60

_LN2: Final = 0.6931471805599453
_LN2_HIGH: Final = 0.693147180369123816490
_LN2_LOW: Final = 1.90821492927058770002e-10
_ROOT_TWO_PI: Final = 2.5066282746310002
_ROOT_HALF: Final = 0.7071067811865476
_CLOSEST: Final = 7.07106781186547
_FARTHEST: Final = 37.0
# Hart's rational approximation of the normal distribution as West gives it (Wilmott, 2005): good to 15 digits.
_ABOVE: Final = (
    *(3.52624965998911e-02, 0.700383064443688, 6.37396220353165, 33.912866078383, 112.079291497871),
    *(221.213596169931, 220.206867912376),
)
_BELOW: Final = (
    *(8.83883476483184e-02, 1.75566716318264, 16.064177579207, 86.7807322029461, 296.564248779674),
    *(637.333633378831, 793.826512519948, 440.413735824752),
)


class Greeks(NamedTuple):
    """How a premium in dollars a share answers to a dollar (and delta does), a day, a point of volatility and of interest."""

    delta: float
    gamma: float
    theta: float
    vega: float
    rho: float


@lru_cache(maxsize=131_072)
def value_cents(call: bool, spot_cents: int, strike_mills: int, minutes: int, volatility_permille: int) -> int:  # noqa: FBT001 a key of the cache
    """Return the premium of a share in whole cents, never below what exercise would bring at once; both at expiration."""
    intrinsic = intrinsic_mills(call=call, spot_cents=spot_cents, strike_mills=strike_mills)
    if minutes <= 0:
        return intrinsic // 10
    first, second = _distances(spot_cents, strike_mills, minutes, volatility_permille)
    spot, strike = spot_cents / 100, strike_mills / 1000
    sign = 1 if call else -1
    worth = sign * (spot * normal(sign * first) - strike * normal(sign * second))
    return max(math.floor(worth * 100 + 0.5), -(-intrinsic // 10))


def intrinsic_mills(*, call: bool, spot_cents: int, strike_mills: int) -> int:
    """Return what exercise brings a share, in thousandths of a dollar."""
    return max(spot_cents * 10 - strike_mills if call else strike_mills - spot_cents * 10, 0)


def greeks(*, call: bool, spot_cents: int, strike_mills: int, minutes: int, volatility_permille: int) -> Greeks:
    """Return the sensitivities before expiration, without interest."""
    first, second = _distances(spot_cents, strike_mills, minutes, volatility_permille)
    spot, strike = spot_cents / 100, strike_mills / 1000
    years, volatility = minutes / MINUTES_A_YEAR, volatility_permille / 1000
    root = math.sqrt(years)
    density = exponential(-first * first / 2) / _ROOT_TWO_PI
    sign = 1 if call else -1
    return Greeks(
        normal(first) if call else normal(first) - 1,
        density / (spot * volatility * root),
        -spot * density * volatility / (2 * root) / 365,
        spot * density * root / 100,
        sign * strike * years * normal(sign * second) / 100,
    )


def normal(x: float) -> float:
    """Return the cumulative normal distribution."""
    size = abs(x)
    if size > _FARTHEST:
        tail = 0.0
    else:
        bell = exponential(-size * size / 2)
        if size < _CLOSEST:
            above, below = _ABOVE[0], _BELOW[0]
            for term in _ABOVE[1:]:
                above = above * size + term
            for term in _BELOW[1:]:
                below = below * size + term
            tail = bell * above / below
        else:
            fraction = size + 0.65
            for step in (4, 3, 2, 1):
                fraction = size + step / fraction
            tail = bell / fraction / _ROOT_TWO_PI
    return 1.0 - tail if x > 0 else tail


def exponential(x: float) -> float:
    """Return e to the power of x, by Taylor's series around the nearest power of two."""
    if x < -700.0:
        return 0.0
    power = math.floor(x / _LN2 + 0.5)
    rest = x - power * _LN2_HIGH - power * _LN2_LOW
    total = 1.0
    for step in range(17, 0, -1):
        total = 1.0 + rest * total / step
    return math.ldexp(total, power)


def logarithm(x: float) -> float:
    """Return the natural logarithm of a positive number, by the series of the inverse hyperbolic tangent."""
    part, power = math.frexp(x)
    if part < _ROOT_HALF:
        part, power = part * 2, power - 1
    ratio = (part - 1.0) / (part + 1.0)
    square, total = ratio * ratio, 0.0
    for step in range(23, 0, -2):
        total = total * square + 1.0 / step
    return 2.0 * ratio * total + power * _LN2_HIGH + power * _LN2_LOW


def _distances(spot_cents: int, strike_mills: int, minutes: int, volatility_permille: int) -> tuple[float, float]:
    """Return d1 and d2."""
    spread = volatility_permille / 1000 * math.sqrt(minutes / MINUTES_A_YEAR)
    first = logarithm(spot_cents * 10 / strike_mills) / spread + spread / 2
    return first, first - spread
