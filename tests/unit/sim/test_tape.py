"""The market is the same for everybody, everywhere, at every moment asked about."""

import subprocess
import sys
from datetime import date
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.examples import examples

from alpacli.sim.hours import AlwaysOpen, Nyse, nyse_sessions
from alpacli.sim.listing import LISTINGS
from alpacli.sim.tape import Tape

NOW_NS = 1_780_000_000 * 10**9
MINUTE_NS = 60 * 10**9
HOUR_NS = 60 * MINUTE_NS
QUANTUM_NS = 10**9 // 16

SYMBOLS = st.sampled_from(sorted(LISTINGS))
MOMENTS = st.integers(min_value=1_577_836_800 * 10**9, max_value=1_893_456_000 * 10**9)


@pytest.fixture(scope="module")
def tape() -> Tape:
    return Tape(2026, AlwaysOpen())


@pytest.mark.parametrize(
    ("symbol", "bid", "ask", "last", "lots"),
    [
        ("AAPL", "282.33", "282.34", "282.34", 51014350),
        ("SPY", "747.83", "747.84", "747.84", 41469294),
        ("GS", "966.83", "967.13", "967.09", 2328140),
        ("TLT", "90.59", "90.60", "90.60", 34890228),
        ("BTC/USD", "100278.19", "100290.19", "100283.26", 339092),
        ("DOGE/USD", "0.11221", "0.11233", "0.11232", 3449779200),
    ],
)
def test_prices_of_seed_2026_never_change(tape: Tape, symbol: str, bid: str, ask: str, last: str, lots: int) -> None:
    """Golden values: whoever changes the arithmetic changes every user's market, and learns it here."""
    quote = tape.quote(symbol, NOW_NS)
    assert (str(quote.bid), str(quote.ask)) == (bid, ask)
    assert str(tape.last(symbol, NOW_NS)) == last
    hour_ns = NOW_NS // HOUR_NS * HOUR_NS
    assert tape.lots(symbol, hour_ns - 8 * HOUR_NS, hour_ns) == lots


def test_another_process_sees_the_same_market(tape: Tape) -> None:
    """A quote depends on nothing but seed, symbol and time, hash randomization included."""
    script = (
        "from alpacli.sim.tape import Tape\nfrom alpacli.sim.hours import AlwaysOpen\n"
        "from alpacli.sim.listing import LISTINGS\n"
        f"tape = Tape(2026, AlwaysOpen())\nprint([str(tape.quote(symbol, {NOW_NS})) for symbol in LISTINGS])"
    )
    seen = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "12345"}
    )
    assert seen.stdout.strip() == str([str(tape.quote(symbol, NOW_NS)) for symbol in LISTINGS])


def test_seeds_make_different_markets() -> None:
    """Two seeds agree on hardly any price."""
    one, other = Tape(1, AlwaysOpen()), Tape(2, AlwaysOpen())
    different = [symbol for symbol in LISTINGS if one.last(symbol, NOW_NS) != other.last(symbol, NOW_NS)]
    assert len(different) > len(LISTINGS) // 2


@given(symbol=SYMBOLS, at_ns=MOMENTS)
def test_quotes_are_plausible(symbol: str, at_ns: int) -> None:
    """Prices are positive, on the tick, near their level; the bid is below the ask, and the last trade between them."""
    tape, listing = Tape(2026, AlwaysOpen()), LISTINGS[symbol]
    quote, last = tape.quote(symbol, at_ns), tape.last(symbol, at_ns)
    level = listing.price(listing.base)
    assert level / 3 < quote.bid <= last <= quote.ask < level * 3
    assert quote.ask - quote.bid == listing.price(listing.spread)
    assert quote.bid == quote.bid.quantize(listing.price(1))
    assert quote.bid_size > 0
    assert quote.ask_size > 0


@settings(max_examples=examples(15), deadline=None)
@given(symbol=SYMBOLS, start_ns=MOMENTS, quanta=st.integers(min_value=0, max_value=1500))
def test_extremes_equal_a_walk_over_every_quote(symbol: str, start_ns: int, quanta: int) -> None:
    """The range over an interval is exact: it equals the range of all the quotes in it."""
    tape = Tape(7, AlwaysOpen())
    quotes = [tape.quote(symbol, start_ns + number * QUANTUM_NS) for number in range(quanta + 1)]
    found = tape.extremes(symbol, start_ns, start_ns + quanta * QUANTUM_NS)
    bids, asks = [quote.bid for quote in quotes], [quote.ask for quote in quotes]
    assert found == (min(bids), max(bids), min(asks), max(asks))


@settings(max_examples=examples(12), deadline=None)
@given(symbol=SYMBOLS, start_ns=MOMENTS, cut=st.integers(min_value=1, max_value=99))
def test_extremes_do_not_depend_on_how_an_interval_is_looked_at(symbol: str, start_ns: int, cut: int) -> None:
    """Looking at a day at once or in two parts finds the same range, so open orders may be brought up to date at any time."""
    tape, end_ns = Tape(2026, AlwaysOpen()), start_ns + 24 * HOUR_NS
    middle_ns = start_ns + 24 * HOUR_NS * cut // 100
    whole = tape.extremes(symbol, start_ns, end_ns)
    first, second = tape.extremes(symbol, start_ns, middle_ns), tape.extremes(symbol, middle_ns, end_ns)
    assert whole.bid_low == min(first.bid_low, second.bid_low)
    assert whole.ask_high == max(first.ask_high, second.ask_high)


def test_the_previous_close_is_last_midnights_price(tape: Tape) -> None:
    """Round the clock a day ends at midnight in New York."""
    midnight_ns = AlwaysOpen().previous_close(NOW_NS)
    assert midnight_ns <= NOW_NS < midnight_ns + 24 * HOUR_NS
    assert tape.previous_close("AAPL", NOW_NS) == tape.last("AAPL", midnight_ns)


@settings(max_examples=examples(12), deadline=None)
@given(symbol=SYMBOLS, day=st.integers(0, 900), cuts=st.lists(st.integers(0, 3 * 1440), max_size=30))
def test_what_is_traded_adds_up_however_it_is_cut(symbol: str, day: int, cuts: list[int]) -> None:
    """Over midnights and the days on which clocks are changed, too; and no minute trades less than nothing."""
    tape = Tape(2026, AlwaysOpen())
    start_ns = AlwaysOpen().previous_close((1_735_750_000 + day * 86_400) * 10**9) + 13 * MINUTE_NS
    edges = [start_ns + minute * MINUTE_NS for minute in sorted({0, *cuts, 3 * 1440})]
    pieces = [tape.lots(symbol, begin_ns, end_ns) for begin_ns, end_ns in pairwise(edges)]
    assert sum(pieces) == tape.lots(symbol, edges[0], edges[-1])
    assert min(pieces) >= 0


def test_equity_volume_is_u_shaped(tape: Tape) -> None:
    """The first and the last half hour of the session each trade more than twice what midday does, and night is thin."""
    midnight_ns = AlwaysOpen().previous_close(NOW_NS)

    def traded(hour: float) -> int:
        start_ns = midnight_ns + int(hour * HOUR_NS)
        return tape.lots("SPY", start_ns, start_ns + HOUR_NS // 2)

    assert traded(9.5) > 2 * traded(12.5)
    assert traded(15.5) > 2 * traded(12.5)
    assert traded(2) * 20 < traded(12.5)


def test_on_nyse_hours_equities_stand_still_at_night_and_coins_do_not() -> None:
    """Between 20:00 and 04:00 and on weekends an equity's quote does not move and nothing is traded."""
    tape = Tape(2026, Nyse(nyse_sessions()))
    saturday_ns = 1_780_149_600 * 10**9  # 2026-05-30 10:00 in New York
    assert tape.quote("AAPL", saturday_ns)[:2] == tape.quote("AAPL", saturday_ns + 20 * HOUR_NS)[:2]
    assert tape.lots("AAPL", saturday_ns, saturday_ns + HOUR_NS) == 0
    assert tape.last("BTC/USD", saturday_ns) != tape.last("BTC/USD", saturday_ns + 20 * HOUR_NS)
    night = tape.extremes("AAPL", saturday_ns, saturday_ns + 20 * HOUR_NS)
    assert night.bid_low == night.bid_high
    monday_ns = saturday_ns + 48 * HOUR_NS
    assert (
        tape.extremes("AAPL", monday_ns, monday_ns + HOUR_NS).bid_low
        < tape.extremes("AAPL", monday_ns, monday_ns + HOUR_NS).bid_high
    )


def test_equities_share_a_factor(tape: Tape) -> None:
    """SPY and QQQ rise and fall together on most days; SPY and BTC/USD need not."""
    days = [NOW_NS - number * 24 * HOUR_NS for number in range(120)]

    def rises(symbol: str) -> list[bool]:
        prices = [tape.last(symbol, at_ns) for at_ns in days]
        return [after > before for after, before in pairwise(prices)]

    same = sum(one == other for one, other in zip(rises("SPY"), rises("QQQ"), strict=True))
    assert same > 75


def test_prices_are_decimals(tape: Tape) -> None:
    """No price passes through a float."""
    assert all(isinstance(value, Decimal) for value in tape.quote("AAPL", NOW_NS)[:4])


def _walk(tape: Tape, symbol: str, start_ns: int, end_ns: int) -> list[int]:
    """The instants at which prices may change: the start, and every beginning of a quantum after it."""
    return [start_ns, *range(start_ns // QUANTUM_NS * QUANTUM_NS + QUANTUM_NS, end_ns, QUANTUM_NS)]


@settings(max_examples=examples(15), deadline=None)
@given(
    symbol=st.sampled_from(["AAPL", "GS", "TLT", "BTC/USD", "DOGE/USD"]),
    start_ns=MOMENTS,
    length_ns=st.integers(1, 40 * 10**9),
    away=st.integers(-12, 12),
    side=st.sampled_from(["buy", "sell"]),
)
def test_the_first_moment_of_a_price_is_the_one_that_walking_finds(
    symbol: str, start_ns: int, length_ns: int, away: int, side: str
) -> None:
    """For limits and for stops, to the nanosecond."""
    tape, listing, end_ns = Tape(2026, AlwaysOpen()), LISTINGS[symbol], start_ns + length_ns
    quote = tape.quote(symbol, start_ns)
    price = (quote.ask if side == "buy" else quote.bid) + away * listing.price(1)
    instants = _walk(tape, symbol, start_ns, end_ns)
    buying = side == "buy"
    reached = touched = None
    for at_ns in instants:
        now = tape.quote(symbol, at_ns)
        if reached is None and (now.ask <= price if buying else now.bid >= price):
            reached = at_ns
        if touched is None and (now.ask >= price if buying else now.bid <= price):
            touched = at_ns
    assert tape.first(symbol, start_ns, end_ns, price, side) == reached
    assert tape.touched(symbol, start_ns, end_ns, price, side) == touched


@settings(max_examples=examples(15), deadline=None)
@given(
    symbol=st.sampled_from(["AAPL", "GS", "TSLA", "BTC/USD", "DOGE/USD"]),
    start_ns=MOMENTS,
    length_ns=st.integers(1, 40 * 10**9),
    trail=st.integers(1, 30),
    side=st.sampled_from(["buy", "sell"]),
)
def test_a_trail_ends_where_walking_says(symbol: str, start_ns: int, length_ns: int, trail: int, side: str) -> None:
    """The mark follows the best price, and the end is the first fall back from it by the trail."""
    tape, listing, end_ns = Tape(2026, AlwaysOpen()), LISTINGS[symbol], start_ns + length_ns
    sign = 1 if side == "sell" else -1
    back = trail * listing.price(1)
    quote = tape.quote(symbol, start_ns)
    begin = mark = quote.bid if side == "sell" else quote.ask
    ended = None
    for at_ns in _walk(tape, symbol, start_ns, end_ns):
        now = tape.quote(symbol, at_ns)
        price = now.bid if side == "sell" else now.ask
        mark = max(mark, price) if side == "sell" else min(mark, price)
        if sign * price <= sign * (mark - sign * back):
            ended = at_ns
            break
    found = tape.trail(symbol, start_ns, end_ns, begin, lambda best: best - sign * back, side)
    assert (found.at_ns, found.mark) == (ended, mark)


def test_searching_weeks_is_the_same_as_searching_them_in_parts() -> None:
    """A limit that is reached after days, and a trail over them, wherever the interval is cut."""
    tape = Tape(2026, AlwaysOpen())
    end_ns = NOW_NS + 14 * 24 * HOUR_NS
    low = tape.extremes("AAPL", NOW_NS, end_ns).ask_low
    whole = tape.first("AAPL", NOW_NS, end_ns, low, "buy")
    assert whole is not None
    assert tape.quote("AAPL", whole).ask == low
    cut = (NOW_NS + whole) // 2
    assert tape.first("AAPL", NOW_NS, cut, low, "buy") is None
    assert tape.first("AAPL", cut, end_ns, low, "buy") == whole
    mark = tape.quote("AAPL", NOW_NS).bid
    once = tape.trail("AAPL", NOW_NS, end_ns, mark, lambda best: best * Decimal("0.95"), "sell")
    for at_ns in range(NOW_NS, end_ns, 5 * HOUR_NS + 12_345):
        part = tape.trail(
            "AAPL", at_ns, min(at_ns + 5 * HOUR_NS + 12_345, end_ns), mark, lambda best: best * Decimal("0.95"), "sell"
        )
        mark = part.mark
        if part.at_ns is not None:
            break
    else:
        part = part._replace(at_ns=None)
    assert part == once


def test_the_real_calendar_has_the_same_answers_within_a_session() -> None:
    tape = Tape(2026, Nyse(nyse_sessions()))
    days = Nyse(nyse_sessions()).days(date(2026, 6, 1), date(2026, 6, 1))
    start_ns, end_ns = days[0].open_ns, days[0].close_ns
    extremes = tape.extremes("NVDA", start_ns, end_ns - 1)
    found = tape.first("NVDA", start_ns, end_ns, extremes.bid_high, "sell")
    assert found is not None
    assert start_ns <= found < end_ns
    assert tape.quote("NVDA", found).bid == extremes.bid_high
    assert tape.first("NVDA", start_ns, end_ns, extremes.bid_high + Decimal("0.01"), "sell") is None
