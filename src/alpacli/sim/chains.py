"""Which contracts are listed: a function of seed, stock and day, so there is no table of them.

Options expire on Fridays, or the day before where the exchange is shut on one. Every week's are listed eight weeks ahead,
those of the third Friday thirteen months, and of the third Friday of January and of the quarters' last months two and a half
years. A chain has the strikes around the stock's price at the beginning of each week since it was listed: the price moves,
strikes are added, and none is ever taken away. Lists are in order of stock, expiration, strike and type; a token names the
last symbol.
"""

import hashlib
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Final, NamedTuple

from alpacli.sim.answers import Json, decimal_text, not_found
from alpacli.sim.contracts import MULTIPLIER, Contract, of_id, parse, root_of
from alpacli.sim.desk import Desk, Market
from alpacli.sim.hours import LAST_DAY, new_york_date
from alpacli.sim.listing import underlying_of
from alpacli.sim.option_prices import expires_ns

MOST_ROWS: Final = 10_000

_FRIDAY: Final = 4
_WEEK: Final = timedelta(7)
_LONG_MONTHS: Final = (1, 3, 6, 9, 12)
_KEPT: Final = timedelta(90)
_CENT_STEPS: Final = ((2_500, 50), (10_000, 100), (25_000, 250), (100_000, 500))
_DOLLAR_STRIKES: Final = frozenset({"SPY", "QQQ", "IWM"})
"""Funds whose weekly chains have a strike at every dollar; as at the exchanges, what is far ahead is coarser."""


class _Term(NamedTuple):
    """How long before its expiration a chain is listed, and how far around the price its strikes reach, in percent."""

    ahead: timedelta
    lowest: int
    highest: int


_WEEKLY: Final = _Term(timedelta(56), 80, 125)
_MONTHLY: Final = _Term(timedelta(400), 60, 160)
_LONG: Final = _Term(timedelta(920), 40, 200)


class Filter(NamedTuple):
    """What ``GET /v2/options/contracts`` is asked for; ``None`` is anything."""

    underlyings: Sequence[str] = ()
    inactive: bool = False
    expires: date | None = None
    from_day: date | None = None
    to_day: date | None = None
    root: str | None = None
    type: str | None = None
    style: str | None = None
    least_strike: Decimal | None = None
    most_strike: Decimal | None = None
    penny: bool | None = None


def is_listed(market: Market, contract: Contract, at_ns: int) -> bool:
    """Tell whether a contract is, or before its expiration was, among the listed ones."""
    symbol = underlying_of(contract, market.listings)
    listing = market.listings.get(symbol)
    if listing is None or listing.crypto or root_of(symbol) != contract.root or at_ns < market.tape.begins_ns(symbol):
        return False
    friday = contract.expires + timedelta((_FRIDAY - contract.expires.weekday()) % 7)
    if contract.expires > LAST_DAY or _last_day(friday) != contract.expires:
        return False
    return contract.strike_mills in _strikes(market, symbol, friday, new_york_date(at_ns))


def tradable(market: Market, contract: Contract, at_ns: int) -> bool:
    return at_ns < expires_ns(market.hours, contract)


def contracts(market: Market, wanted: Filter, at_ns: int, after: str = "") -> Iterator[Contract]:
    """Give the contracts that match, in order, from behind the one of the symbol ``after`` on."""
    today = new_york_date(at_ns)
    last = parse(after)
    if wanted.style == "european" or wanted.penny is False:
        return
    for symbol in _stocks(market, wanted, at_ns):
        if last is not None and symbol < underlying_of(last, market.listings):
            continue
        for friday in _fridays(wanted, today):
            expires = _last_day(friday)
            first = Contract(root_of(symbol), expires, "call", 0)
            alive = at_ns < expires_ns(market.hours, first)
            outside = (wanted.from_day and expires < wanted.from_day) or (wanted.to_day and expires > wanted.to_day)
            if alive == wanted.inactive or outside or (wanted.expires and expires != wanted.expires):
                continue
            for mills in _strikes(market, symbol, friday, today):
                strike = Decimal(mills).scaleb(-3)
                if wanted.least_strike is not None and strike < wanted.least_strike:
                    continue
                if wanted.most_strike is not None and strike > wanted.most_strike:
                    continue
                for contract in (first._replace(strike_mills=mills), first._replace(type="put", strike_mills=mills)):
                    if wanted.type not in (None, contract.type):
                        continue
                    if last is None or _place(market, contract) > _place(market, last):
                        yield contract


def near_the_money(market: Market, at_ns: int) -> list[str]:
    """Return the contracts that most of the trading is in: of each stock's next expiration, those around its price."""
    found: list[str] = []
    for symbol in sorted(market.listings):
        if market.listings[symbol].crypto:
            continue
        price = market.tape.last(symbol, at_ns)
        near = Filter(
            (symbol,), least_strike=price * Decimal("0.98"), most_strike=price * Decimal("1.02"), to_day=_weekend(at_ns)
        )
        found += [contract.symbol for contract in contracts(market, near, at_ns)]
    return found


def page(desk: Desk, wanted: Filter, limit: int, token: str, *, deliverables: bool) -> dict[str, Json]:
    """Answer for a list of contracts. Without any expiration asked for it ends with the coming weekend, as at Alpaca."""
    if wanted.expires is None and wanted.to_day is None and not wanted.inactive:
        wanted = wanted._replace(to_day=_weekend(desk.now_ns))
    rows: list[Json] = []
    last = ""
    for contract in contracts(desk.market, wanted, desk.now_ns, token):
        if len(rows) == limit:
            return {"option_contracts": rows, "next_page_token": last}
        rows.append(contract_answer(desk, contract, deliverables=deliverables))
        last = contract.symbol
    return {"option_contracts": rows, "next_page_token": None}


def one_contract(desk: Desk, symbol_or_id: str) -> dict[str, Json]:
    contract = parse(symbol_or_id) or of_id(symbol_or_id)
    if contract is None or not is_listed(desk.market, contract, desk.now_ns):
        raise not_found(f"option contract {symbol_or_id} not found")
    return contract_answer(desk, contract, deliverables=True)


def contract_answer(desk: Desk, contract: Contract, *, deliverables: bool) -> dict[str, Json]:
    market, symbol = desk.market, underlying_of(contract, desk.market.listings)
    alive = tradable(market, contract, desk.now_ns)
    asset_id = market.listings[symbol].asset_id
    closed_ns = market.hours.previous_close(min(desk.now_ns, expires_ns(market.hours, contract)))
    closed = new_york_date(closed_ns - 1).isoformat()
    answer: dict[str, Json] = {
        "id": contract.id,
        "symbol": contract.symbol,
        "name": contract.name,
        "status": "active" if alive else "inactive",
        "tradable": alive,
        "expiration_date": contract.expires.isoformat(),
        "root_symbol": contract.root,
        "underlying_symbol": symbol,
        "underlying_asset_id": asset_id,
        "type": contract.type,
        "style": "american",
        "strike_price": decimal_text(contract.strike),
        "multiplier": str(MULTIPLIER),
        "size": str(MULTIPLIER),
        "open_interest": str(_open_interest(market.seed, contract, closed)),
        "open_interest_date": closed,
        "close_price": decimal_text(market.tape.last(contract.symbol, closed_ns - 1)),
        "close_price_date": closed,
        "ppind": True,
    }
    if deliverables:
        answer["deliverables"] = [
            {
                "type": "equity",
                "symbol": symbol,
                "asset_id": asset_id,
                "amount": str(MULTIPLIER),
                "allocation_percentage": "100",
                "settlement_type": "T+1",
                "settlement_method": "CCC",
                "delayed_settlement": False,
            }
        ]
    return answer


def _stocks(market: Market, wanted: Filter, at_ns: int) -> list[str]:
    """Return the stocks that are meant and have a price: without one, strikes would tell where it will be."""
    stocks = [symbol for symbol in sorted(market.listings) if not market.listings[symbol].crypto]
    stocks = [symbol for symbol in stocks if at_ns >= market.tape.begins_ns(symbol)]
    if wanted.underlyings:
        stocks = [symbol for symbol in stocks if symbol in wanted.underlyings]
    if wanted.root:
        stocks = [symbol for symbol in stocks if root_of(symbol) == wanted.root]
    return stocks


def _fridays(wanted: Filter, today: date) -> Iterator[date]:
    """Give the Fridays whose chains may be meant, in order; of what has expired the last three months' unless asked."""
    if wanted.inactive:
        begin, end = wanted.expires or wanted.from_day or today - _KEPT, today
    else:
        begin, end = today - timedelta(1), today + _LONG.ahead
    begin = max(begin, wanted.from_day or begin, wanted.expires or begin)
    end = min(end, wanted.to_day or end, wanted.expires or end) + timedelta(6)
    friday = begin + timedelta((_FRIDAY - begin.weekday()) % 7)
    while friday <= min(end, LAST_DAY):
        if today >= friday - _term(friday).ahead:
            yield friday
        friday += _WEEK


def _term(friday: date) -> _Term:
    if not 15 <= friday.day <= 21:
        return _WEEKLY
    return _LONG if friday.month in _LONG_MONTHS else _MONTHLY


def _strikes(market: Market, symbol: str, friday: date, today: date) -> Sequence[int]:
    """Return the strikes of a chain in thousandths of a dollar, ascending; none before it is listed."""
    term = _term(friday)
    listed = friday - term.ahead
    if today < listed:
        return ()
    first, last = listed - timedelta(listed.weekday()), min(today, friday)
    options, weeks = market.options, range(0, (last - first).days + 1, 7)
    prices = [options.week_began_at(symbol, first + timedelta(days)) for days in weeks]
    in_dollars = symbol in _DOLLAR_STRIKES and term is _WEEKLY
    return _grid(min(prices) * term.lowest // 100, max(prices) * term.highest // 100, in_dollars)


@lru_cache(maxsize=512)
def _grid(lowest_cents: int, highest_cents: int, in_dollars: bool) -> Sequence[int]:  # noqa: FBT001 a key of the cache
    strikes = []
    cents = 0
    while cents <= highest_cents:
        if cents >= max(lowest_cents, 50):
            strikes.append(cents * 10)
        step = next((step for below, step in _CENT_STEPS if cents < below), 1000)
        cents += 100 if in_dollars else step
    return tuple(strikes)


def _place(market: Market, contract: Contract) -> tuple[str, date, int, str]:
    return underlying_of(contract, market.listings), contract.expires, contract.strike_mills, contract.type


def _weekend(at_ns: int) -> date:
    today = new_york_date(at_ns)
    return today + timedelta(6 - today.weekday())


def _open_interest(seed: int, contract: Contract, day: str) -> int:
    digest = hashlib.blake2b(f"{seed}\x1f{contract.symbol}\x1f{day}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % 9000 + 10


@lru_cache(maxsize=4096)
def _last_day(friday: date) -> date:
    """Return the day on which a week's options expire: its Friday, or the Thursday before a holiday."""
    return friday - timedelta(1) if friday in _shut_fridays(friday.year) else friday


@lru_cache(maxsize=64)
def _shut_fridays(year: int) -> frozenset[date]:
    """Return the Fridays on which the NYSE is shut: Good Friday, and holidays that fall on one or on the day after it."""
    fixed = [date(year, 7, 4), date(year, 12, 25)] + ([date(year, 6, 19)] if year >= 2022 else [])
    shut = {day - timedelta(day.weekday() == _FRIDAY + 1) for day in fixed}
    shut |= {date(year, 1, 1), _easter(year) - timedelta(2)}  # New Year is not kept on the last day of a year
    return frozenset(day for day in shut if day.weekday() == _FRIDAY)


def _easter(year: int) -> date:
    """Return Easter Sunday, by the Gregorian rule (Meeus, Jones and Butcher)."""
    golden, century, rest = year % 19, year // 100, year % 100
    moon = (19 * golden + century - century // 4 - (century - (century + 8) // 25 + 1) // 3 + 15) % 30
    week = (32 + 2 * (century % 4) + 2 * (rest // 4) - moon - rest % 4) % 7
    late = (golden + 11 * moon + 22 * week) // 451
    month, day = divmod(moon + week - 7 * late + 114, 31)
    return date(year, month, day + 1)
