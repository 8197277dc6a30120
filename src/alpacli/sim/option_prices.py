"""The market in options: quotes that follow from the stock's, and when a price is first reached by one contract or several.

``OptionPrices`` stands before any other ``Prices`` and answers for contracts itself. A premium is the model's value
(``premiums``) for the stock's bid, looked at sixteen times a second, and for the whole minutes that are left; it stands still
while options do not trade, and ends at what exercise brings. Bid and offer lie around it, by a cent and a hundredth of it on
either side, on ticks of a cent, or from 3 USD on of five cents except in the three most traded funds.

Volatility is the stock's own over a few days, as its path is made, times what a hash of the seed says of its options, and
smiles with the strike; it depends on nothing else, so a premium rises or falls with the stock and falls with time, and its
bounds over an interval are its values at the corners. When a limit is reached is found with them: exact, and without a walk.
"""

import hashlib
from collections.abc import Callable, Sequence
from datetime import date
from decimal import Decimal
from math import isqrt
from typing import Final, NamedTuple

from alpacli.sim.answers import SECOND_NS
from alpacli.sim.contracts import Contract, parse
from alpacli.sim.hours import Hours, new_york_date, new_york_ns
from alpacli.sim.listing import LISTINGS, underlying_of
from alpacli.sim.premiums import Greeks, greeks, intrinsic_mills, value_cents
from alpacli.sim.prices import LOOK_NS, Extremes, Nbbo, Prices, Quote, Trail

_MINUTE_NS: Final = 60 * SECOND_NS
_FINE: Final = frozenset({"SPY", "QQQ", "IWM"})
_COARSE_FROM: Final = 300
_FACTOR_PERMILLE: Final = 60
_USUAL_SWING: Final = 120
_CELLS: Final = 16


class Leg(NamedTuple):
    """One contract of a package: ``ratio`` is how many of it are bought (negative: sold) for each package."""

    contract: Contract
    ratio: int


class OptionPrices:
    """A market's prices with those of options on its stocks. Implements ``prices.Prices``; thread-safe."""

    def __init__(self, stocks: Prices, hours: Hours, seed: int) -> None:
        self._stocks = stocks
        self._hours = hours
        self._seed = seed
        self._weeks: dict[tuple[str, date], int] = {}

    # ------------------------------------------------------------------------------------------------ Prices

    def begins_ns(self, symbol: str) -> int:
        contract = parse(symbol)
        return self._stocks.begins_ns(symbol if contract is None else underlying_of(contract))

    def quote(self, symbol: str, at_ns: int) -> Quote:
        contract = parse(symbol)
        if contract is None:
            return self._stocks.quote(symbol, at_ns)
        bid, ask = self._sides(contract, at_ns)
        noise = _hash(f"{self._seed}\x1fsize\x1f{symbol}\x1f{at_ns // SECOND_NS}")
        bid_size = Decimal(1 + noise % 120) if bid else Decimal(0)
        return Quote(_dollars(bid), _dollars(ask), bid_size, Decimal(1 + (noise >> 16) % 120), at_ns)

    def nbbo(self, symbol: str, at_ns: int) -> Nbbo:
        contract = parse(symbol)
        if contract is None:
            return self._stocks.nbbo(symbol, at_ns)
        return Nbbo(*map(_dollars, self._sides(contract, at_ns)))

    def last(self, symbol: str, at_ns: int) -> Decimal:
        contract = parse(symbol)
        if contract is None:
            return self._stocks.last(symbol, at_ns)
        look_ns, minutes = self._moment(contract, at_ns)
        value = self._value(contract, look_ns, minutes)
        return _dollars(_traded(contract, value) if minutes > 0 else value)

    def previous_close(self, symbol: str, at_ns: int) -> Decimal:
        if parse(symbol) is None:
            return self._stocks.previous_close(symbol, at_ns)
        return self.last(symbol, self._hours.previous_close(at_ns) - 1)

    def extremes(self, symbol: str, start_ns: int, end_ns: int) -> Extremes:
        contract = parse(symbol)
        if contract is None:
            return self._stocks.extremes(symbol, start_ns, end_ns)
        raise AssertionError("nothing trails an option")

    def first(self, symbol: str, start_ns: int, end_ns: int, price: Decimal, side: str) -> int | None:
        contract = parse(symbol)
        if contract is None:
            return self._stocks.first(symbol, start_ns, end_ns, price, side)
        ratio = 1 if side == "buy" else -1
        return self.first_net([Leg(contract, ratio)], start_ns, end_ns, price * ratio)

    def touched(self, symbol: str, start_ns: int, end_ns: int, price: Decimal, side: str) -> int | None:
        if parse(symbol) is None:
            return self._stocks.touched(symbol, start_ns, end_ns, price, side)
        raise AssertionError("there are no stops on options")

    def search(
        self, symbol: str, start_ns: int, end_ns: int, could: Callable[[int, int, int, int], bool]
    ) -> int | None:
        return self._stocks.search(symbol, start_ns, end_ns, could)

    def trail(
        self, symbol: str, start_ns: int, end_ns: int, mark: Decimal, stop: Callable[[Decimal], Decimal], side: str
    ) -> Trail:
        return self._stocks.trail(symbol, start_ns, end_ns, mark, stop, side)

    # ----------------------------------------------------------------------------------------------- options

    def net(self, legs: Sequence[Leg], at_ns: int) -> Decimal | None:
        """Return what a package costs a share: offers bought less bids sold; ``None`` where one has no bid."""
        total = 0
        for leg in legs:
            bid, ask = self._sides(leg.contract, at_ns)
            if leg.ratio < 0 and not bid:
                return None
            total += leg.ratio * (ask if leg.ratio > 0 else bid)
        return _dollars(total)

    def first_net(self, legs: Sequence[Leg], start_ns: int, end_ns: int, limit: Decimal | None) -> int | None:
        """Return the first instant, before ``end_ns``, at which a package costs no more than ``limit``.

        Without a limit it only has to be had at all. Options trade all through the interval; the legs are on one stock.
        """
        most = None if limit is None else int(limit.scaleb(2).to_integral_value("ROUND_FLOOR"))
        symbol = underlying_of(legs[0].contract)
        expirations = [expires_ns(self._hours, leg.contract) for leg in legs]
        volatilities = [self.volatility_permille(leg.contract) for leg in legs]

        def could(low: int, high: int, from_ns: int, until_ns: int) -> bool:
            step = max(-(-(high - low) // _CELLS), 1) if len(legs) > 1 else high - low or 1
            left = low
            while True:
                right = min(left + step, high)
                if self._least(legs, expirations, volatilities, (left, right), (from_ns, until_ns), most):
                    return True
                if right >= high:
                    return False
                left = right

        return self._stocks.search(symbol, start_ns, end_ns, could)

    def week_began_at(self, symbol: str, monday: date) -> int:
        """Return a stock's price, in cents, as a week began."""
        price = self._weeks.get((symbol, monday))
        if price is None:
            price = int(self._stocks.last(symbol, new_york_ns(monday)).scaleb(2).to_integral_value())
            self._weeks[symbol, monday] = price
        return price

    def volatility_permille(self, contract: Contract) -> int:
        """Return the yearly volatility that a contract is priced at."""
        listing = LISTINGS[underlying_of(contract)]
        swing = listing.swing_permille or _USUAL_SWING
        common = listing.beta_percent * _FACTOR_PERMILLE // 100
        whole = isqrt(swing * swing + common * common) * 9 // 4
        mood = 90 + _hash(f"{self._seed}\x1fvolatility\x1f{listing.symbol}") % 31
        base_mills = listing.base * 10
        away = (contract.strike_mills - base_mills) * 1000 // base_mills if base_mills else 0
        smile = 1000 - 200 * away // 1000 + 350 * away * away // 1_000_000
        return max(whole * mood // 100 * min(max(smile, 700), 1800) // 1000, 50)

    def greeks(self, contract: Contract, at_ns: int) -> Greeks | None:
        """Return the sensitivities, or ``None`` at expiration and after."""
        look_ns, minutes = self._moment(contract, at_ns)
        if minutes <= 0:
            return None
        return greeks(
            call=contract.type == "call",
            spot_cents=self._spot(contract, look_ns),
            strike_mills=contract.strike_mills,
            minutes=minutes,
            volatility_permille=self.volatility_permille(contract),
        )

    def intrinsic(self, contract: Contract) -> Decimal:
        """Return what exercise brings a share at the stock's last price of the day of expiration, in dollars."""
        close = self._stocks.last(underlying_of(contract), expires_ns(self._hours, contract) - 1)
        spot = int(close.scaleb(2).to_integral_value())
        mills = intrinsic_mills(call=contract.type == "call", spot_cents=spot, strike_mills=contract.strike_mills)
        return Decimal(mills).scaleb(-3)

    def _least(
        self,
        legs: Sequence[Leg],
        expirations: Sequence[int],
        volatilities: Sequence[int],
        spots: tuple[int, int],
        between: tuple[int, int],
        most: int | None,
    ) -> bool:
        """Tell whether a package may cost no more than ``most`` for stock and time within bounds, each leg at its best."""
        total = 0
        for leg, end_ns, volatility in zip(legs, expirations, volatilities, strict=True):
            call, buying = leg.contract.type == "call", leg.ratio > 0
            spot = spots[0] if call == buying else spots[1]
            minutes = _minutes(end_ns, between[1] if buying else between[0])
            value = value_cents(call, spot, leg.contract.strike_mills, minutes, volatility)
            bid, ask = _around(leg.contract, value)
            if not buying and not bid:
                return False
            total += leg.ratio * (ask if buying else bid)
        return most is None or total <= most

    def _sides(self, contract: Contract, at_ns: int) -> tuple[int, int]:
        look_ns, minutes = self._moment(contract, at_ns)
        value = self._value(contract, look_ns, minutes)
        return _around(contract, value) if minutes > 0 else (value, value)

    def _value(self, contract: Contract, look_ns: int, minutes: int) -> int:
        spot = self._spot(contract, look_ns)
        volatility = self.volatility_permille(contract)
        return value_cents(contract.type == "call", spot, contract.strike_mills, minutes, volatility)

    def _spot(self, contract: Contract, look_ns: int) -> int:
        return int(self._stocks.nbbo(underlying_of(contract), look_ns).bid.scaleb(2))

    def _moment(self, contract: Contract, at_ns: int) -> tuple[int, int]:
        """Return when the stock is looked at for a quote at ``at_ns``, and how many minutes the contract has left then."""
        end_ns = expires_ns(self._hours, contract)
        if at_ns >= end_ns:
            return (end_ns - 1) // LOOK_NS * LOOK_NS, 0
        if not self._hours.is_open(at_ns):
            at_ns = last_open_ns(self._hours, at_ns)
        return at_ns // LOOK_NS * LOOK_NS, _minutes(end_ns, at_ns)


def expires_ns(hours: Hours, contract: Contract) -> int:
    """Return the instant from which on a contract is no more: the close of its last day."""
    days = hours.days(contract.expires, contract.expires)
    return days[0].close_ns if days else new_york_ns(contract.expires)


def last_open_ns(hours: Hours, at_ns: int) -> int:
    """Return the last instant, before one at which the market is shut, at which it was open."""
    today = new_york_date(at_ns)
    closes = [day.close_ns for day in hours.days(today, today) if day.close_ns <= at_ns]
    return (closes[0] if closes else hours.previous_close(at_ns)) - 1


def _minutes(end_ns: int, at_ns: int) -> int:
    return -(-end_ns // _MINUTE_NS) - at_ns // _MINUTE_NS


def _around(contract: Contract, value: int) -> tuple[int, int]:
    """Return bid and offer in cents around a value; both rise where the value does."""
    half = 1 + value // 100
    bid, ask = max(value - half, 0), value + half
    if contract.root not in _FINE:
        bid = bid // 5 * 5 if bid >= _COARSE_FROM else bid
        ask = -(-ask // 5) * 5 if ask >= _COARSE_FROM else ask
    return bid, ask


def _traded(contract: Contract, value: int) -> int:
    """Return the price at which one trades: the value on the tick, and never nothing."""
    if value >= _COARSE_FROM and contract.root not in _FINE:
        return (value + 2) // 5 * 5
    return max(value, 1)


def _dollars(cents: int) -> Decimal:
    return Decimal(cents).scaleb(-2)


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8, person=b"alpacli premium").digest(), "big")
