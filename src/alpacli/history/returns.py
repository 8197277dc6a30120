"""How well an account did: its equity at the close of each trading day, and the numbers that are drawn from it.

A day's equity is that at its regular close (16:00 New York, 13:00 on half days), from the first of these that there is:

1. the last own snapshot of the five minutes before the close, else the first of the five after it. Five minutes are the
   period of the cron line in the documentation; what the account was worth at 9:40, or after the evening's news, is no close;
2. Alpaca's own, from its portfolio history, where that was read after the close;
3. where neither is known, as on a day that is not over: the last own snapshot up to the close, else the first one after it,
   else what Alpaca said last. ``source`` then has the time, and nothing is compared with it; the next sync mends it.

Days are trading days: those Alpaca lists, and weekdays beside them; a snapshot of a Sunday belongs to no return. Two clocks
decide nothing here: days are New York's.

The first day's return is over the money the account began with: every transfer up to then, taken to have come the day
before. Where no transfer is known, growth begins at the first close.

Formulas (r: daily returns, n: how many; D: calendar days from the close before the first of them to the last; P: days a
year that have a return: 252, or 365 for an account that has returns of Saturdays or Sundays too, as where a market never
closes), as empyrical-reloaded has them (``empyrical/stats.py`` with P as ``annualization``, checked against it in the tests),
which in turn follows Sharpe (1994), "The Sharpe Ratio", and Sortino & Price (1994); CAGR goes by the calendar, as quantstats'
does:

    return            r_t = (E_t − F_t) / E_{t−1} − 1, F_t: transfers since the close before (time-weighted, GIPS 2020)
    total return      R = Π(1 + r_t) − 1
    CAGR              (1 + R)^(365/D) − 1
    volatility        s(r) · √P, s with n − 1
    Sharpe            mean(r) / s(r) · √P, over a risk-free rate of 0
    Sortino           mean(r) · P / (√mean(min(r, 0)²) · √P)
    max drawdown      min_t W_t / max_{u≤t} W_u − 1, with W the growth of 1 from before the first day
    win rate          closed trades with a gain / closed trades with a gain or a loss
    profit factor     sum of the gains / sum of the losses of closed trades
    holding time      mean time from opening to closing, weighted with what was put in
    exposure          mean of (long + |short| market value) / equity, over days with a snapshot
    turnover          the lesser of bought and sold value / mean equity, over the period (SEC Form N-1A, item 13, 4(d))
"""

import datetime as dt
import itertools
import math
from collections.abc import Iterable, Sequence
from decimal import Decimal, localcontext
from typing import TYPE_CHECKING, Final, NamedTuple

from alpacli.domain.market import regular_close
from alpacli.domain.values import Amount, MaybeAmount, Model
from alpacli.history.archive import NEW_YORK, SECOND_NS, Worth, new_york_day, new_york_ns
from alpacli.history.growth import SATURDAY, Growth
from alpacli.history.lots import EXACT, ZERO
from alpacli.wire.pages import booking

if TYPE_CHECKING:
    from alpacli.history.archive import Archive
    from alpacli.history.earnings import Earnings, Traded
    from alpacli.history.snapshots import Snapshot

TRADING_DAYS_A_YEAR: Final = 252
CALENDAR_DAYS_A_YEAR: Final = 365
_NEAR_NS: Final = 300 * SECOND_NS


class EquityDay(Model):
    """One trading day of the curve.

    ``source`` is ``snapshot`` or ``alpaca``, with the time in New York where it is not the close's (``snapshot 09:40``);
    ``transfers`` is what came in since the day before, less what went out; ``return_ratio`` a fraction, null where there is
    nothing to compare with. ``alpaca_equity`` is what the broker says. ``exposure_ratio`` is of the own snapshot.
    """

    day: str
    equity: Amount
    source: str
    transfers: Amount
    return_ratio: MaybeAmount
    alpaca_equity: MaybeAmount
    exposure_ratio: MaybeAmount


class Close(NamedTuple):
    """The same while it is worked out; ``day`` is an ordinal, ``settled``: ``broker`` was read after the close."""

    day: int
    equity: Decimal
    source: str
    transfers: Decimal
    growth: float | None
    broker: Decimal | None
    exposure: float | None
    settled: bool = True

    @property
    def is_one(self) -> bool:
        """Whether this is the worth at the close, and not at some other time of the day."""
        return self.source in ("snapshot", "alpaca")


class Drawdown(NamedTuple):
    """The deepest fall: a fraction, the days (ordinals) of its top, its bottom, and of being back at the top."""

    ratio: float
    top: int
    bottom: int
    recovered: int | None


class Agreement(Model):
    """How far the own closes are from Alpaca's portfolio history, on the days that have a close of both."""

    days: int
    largest_difference: MaybeAmount
    on: str | None
    largest_ratio: MaybeAmount


class Stats(Model):
    """How an account did between two days. Ratios are fractions; null where there is too little to say.

    ``holding_time_s`` in seconds. ``days`` counts returns; ``days_from_snapshots`` days that are the own record's;
    ``days_a_year`` is what volatility, Sharpe and Sortino go by.
    """

    first_day: str
    last_day: str
    days: int
    days_from_snapshots: int
    snapshots: int
    equity: Amount
    transfers: Amount
    gain: MaybeAmount
    return_ratio: MaybeAmount
    cagr_ratio: MaybeAmount
    days_a_year: int
    volatility_ratio: MaybeAmount
    sharpe: MaybeAmount
    sortino: MaybeAmount
    max_drawdown_ratio: MaybeAmount
    drawdown_from: str | None
    drawdown_to: str | None
    drawdown_recovered: str | None
    trades: int
    win_rate_ratio: MaybeAmount
    profit_factor: MaybeAmount
    holding_time_s: MaybeAmount
    exposure_ratio: MaybeAmount
    turnover_ratio: MaybeAmount
    reconciliation: Agreement


# ------------------------------------------------------------------------------------------------------ curve


def transfers(archive: "Archive") -> dict[int, Decimal]:
    """Return what came in from elsewhere, money and shares, less what went out, by New York day (an ordinal)."""
    from alpacli.history.earnings import TRANSFERS, worth_moved

    marks = ", ".join("?" * len(TRANSFERS))
    found: dict[int, Decimal] = {}
    where = f"WHERE kind IN ({marks}) AND status <> 'canceled'"
    for _, day, wire in archive.activities(where, sorted(TRANSFERS)):
        what = booking(wire)
        found[day] = found.get(day, ZERO) + (what.net_amount or ZERO) + worth_moved(what)
    return found


def curve(archive: "Archive", since: int | None = None, until: int | None = None) -> list[Close]:
    """Return the closes from a day to a day (ordinals, both included), oldest first.

    The first of all takes every transfer before it as the money the account began with.
    """
    broker = {day: Decimal(equity) for day, equity in archive.broker_days().items()}
    read_ns = archive.chain("days").whole_ns
    own = archive.snapshot_days()
    days = sorted(broker.keys() | {day for day in own if day not in broker and _may_trade(day, broker)})
    flows, mine = sorted(transfers(archive).items()), set(own)
    closes: list[Close] = []
    place = 0
    for day in days:
        moved = ZERO
        while place < len(flows) and flows[place][0] <= day:
            moved += flows[place][1]
            place += 1
        about = archive.snapshots_about(day, _close_ns(day)) if day in mine else (None, None)
        close = _close(day, about, broker.get(day), read_ns)._replace(transfers=moved)
        before, since_then = (closes[-1].equity, moved) if closes else (moved, ZERO)
        growth = float((close.equity - since_then) / before) - 1 if before > 0 else None
        closes.append(close._replace(growth=growth))
    return [c for c in closes if (since is None or c.day >= since) and (until is None or c.day <= until)]


def earned_before(archive: "Archive", snapshot: "Snapshot | None", by: str | None, until_ns: int) -> "Earnings":
    """Work out what was earned before a moment; ``snapshot`` is the newest up to it.

    The snapshot tells what was not realized then if no close is newer and nothing happened after it; else the closes do.
    """
    from alpacli.history.earnings import earn, is_quiet

    closes = curve(archive)
    over_ns = [_close_ns(close.day) for close in closes if close.is_one and _close_ns(close.day) <= until_ns]
    newest_ns = over_ns[-1] - _NEAR_NS if over_ns else 0
    if snapshot is None or snapshot.at.epoch_ns < newest_ns or not is_quiet(archive, snapshot.at.epoch_ns, until_ns):
        return earn(archive, None, by, growth(closes, until_ns=until_ns), until_ns)
    return earn(archive, snapshot, by, growth_until(archive, snapshot, closes), until_ns)


def _may_trade(day: int, broker: dict[int, Decimal]) -> bool:
    """Tell whether a day that Alpaca does not list can be a trading day: a weekday that its list does not span."""
    if dt.date.fromordinal(day).weekday() >= SATURDAY:
        return False
    return not broker or not min(broker) < day < max(broker)


def _close_ns(day: int) -> int:
    return new_york_ns(day, regular_close(dt.date.fromordinal(day)))


def _close(day: int, about: tuple[Worth | None, Worth | None], broker: Decimal | None, read_ns: int | None) -> Close:
    """Return what is most like a day's close.

    ``about`` are the snapshots up to it and after it, ``broker`` is what Alpaca's list said at ``read_ns``.
    """
    close_ns, (last, first) = _close_ns(day), about
    settled = read_ns is None or read_ns >= close_ns
    near = next((worth for worth in (last, first) if worth and abs(worth.at_ns - close_ns) <= _NEAR_NS), None)
    own = near or last or first
    if own is not None and (near or broker is None or not settled):
        equity, source = Decimal(own.equity), "snapshot" if near else f"snapshot {_time(own.at_ns)}"
    else:
        equity, source = broker or ZERO, "alpaca" if settled else f"alpaca {_time(read_ns or 0)}"
    return Close(day, equity, source, ZERO, None, broker, None if own is None else _exposure(own), settled)


def _exposure(worth: Worth) -> float | None:
    held = Decimal(worth.long_value) + abs(Decimal(worth.short_value))
    return float(held / Decimal(worth.equity)) if Decimal(worth.equity) > 0 else None


def growth(
    closes: Sequence[Close],
    at: tuple[int, Decimal, Decimal] | None = None,
    *,
    until_ns: int | None = None,
) -> Growth:
    """Return by how much equity grew from close to close, transfers taken out; ``closes`` are all there are.

    ``at`` is a moment after which nothing counts, what the account was worth then, and what had come in since the last of the
    closes up to its day. ``until_ns`` is one at which a close must have been over to count; without either the last worth
    counts too that is no close.
    """
    last = max((close.day for close in closes), default=0) if at is None else new_york_day(at[0])
    days: dict[int, Decimal] = {}
    before = moved = after_close = ZERO
    for close in closes:
        if close.day > last or (until_ns is not None and _close_ns(close.day) > until_ns):
            break
        moved += close.transfers
        is_at = close.day == last and until_ns is None
        if not close.is_one and (at is not None or not is_at):
            continue
        if at is not None and is_at:
            if at[0] <= _close_ns(last):
                continue
            after_close = at[1] - close.equity
        days[close.day] = close.equity - moved - before
        before, moved = close.equity, ZERO
    if at is not None:
        days[last] = days.get(last, ZERO) + at[1] - at[2] - moved - before
    known = [close.day for close in closes if close.is_one or close is closes[-1]]
    return Growth(days, known, after_close, _close_ns(max(days)) if days else 0)


def growth_until(archive: "Archive", snapshot: "Snapshot", closes: Sequence[Close]) -> Growth:
    """Return by how much equity grew from close to close, and from the last to what the account was worth at a snapshot."""
    at_ns, worth = snapshot.at.epoch_ns, snapshot.account.equity
    if worth is None:
        return growth(closes)
    day = new_york_day(at_ns)
    before = max((close.day for close in closes if close.day <= day), default=0)
    came = sum((amount for on, amount in transfers(archive).items() if before < on <= day), ZERO)
    return growth(closes, (at_ns, worth, came))


def equity_days(closes: Iterable[Close]) -> list[EquityDay]:
    return [
        EquityDay(
            day=_text(close.day),
            equity=close.equity,
            source=close.source,
            transfers=close.transfers,
            return_ratio=ratio(close.growth),
            alpaca_equity=close.broker,
            exposure_ratio=ratio(close.exposure),
        )
        for close in closes
    ]


# --------------------------------------------------------------------------------------------------- formulas


def total_return(returns: Sequence[float]) -> float:
    return math.prod(1 + r for r in returns) - 1


def days_a_year(days: Iterable[int]) -> int:
    """Return how many days a year have a return, from the days (ordinals) that have one."""
    weekends = any(dt.date.fromordinal(day).weekday() >= SATURDAY for day in days)
    return CALENDAR_DAYS_A_YEAR if weekends else TRADING_DAYS_A_YEAR


def cagr(returns: Sequence[float], calendar_days: int) -> float | None:
    """Return the yearly growth; ``None`` for no returns, or when everything was lost and more, or beyond all numbers.

    ``calendar_days`` lie between the close before the first return and that of the last.
    """
    growth = 1 + total_return(returns)
    if not returns or growth <= 0 or calendar_days <= 0:
        return None
    try:
        return math.expm1(math.log(growth) * CALENDAR_DAYS_A_YEAR / calendar_days)
    except OverflowError:  # a day's return of several hundred percent, over a year
        return None


def volatility(returns: Sequence[float], a_year: int = TRADING_DAYS_A_YEAR) -> float | None:
    deviation = _deviation(returns)
    return None if deviation is None else deviation * math.sqrt(a_year)


def sharpe(returns: Sequence[float], a_year: int = TRADING_DAYS_A_YEAR) -> float | None:
    deviation = _deviation(returns)
    return _mean(returns) / deviation * math.sqrt(a_year) if deviation else None


def sortino(returns: Sequence[float], a_year: int = TRADING_DAYS_A_YEAR) -> float | None:
    if len(returns) < 2:
        return None
    below = math.sqrt(math.fsum(min(r, 0.0) ** 2 for r in returns) / len(returns)) * math.sqrt(a_year)
    return _mean(returns) * a_year / below if below else None


def drawdown(days: Sequence[int], returns: Sequence[float]) -> Drawdown | None:
    """Return the deepest fall; ``days`` has one more than ``returns``: the day before the first of them.

    ``None`` when there was no fall.
    """
    worth = list(itertools.accumulate((1 + r for r in returns), lambda grown, r: grown * r, initial=1.0))
    top = deepest_top = bottom = 0
    deepest = 0.0
    for place, value in enumerate(worth):
        if value > worth[top]:
            top = place
        fall = value / worth[top] - 1
        if fall < deepest:
            deepest, deepest_top, bottom = fall, top, place
    if not deepest:
        return None
    back = next((place for place in range(bottom, len(worth)) if worth[place] >= worth[deepest_top]), None)
    return Drawdown(deepest, days[deepest_top], days[bottom], None if back is None else days[back])


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _deviation(values: Sequence[float]) -> float | None:
    """Return the sample's standard deviation; ``None`` for fewer than two values, 0 when they are all the same."""
    if len(values) < 2:
        return None
    mean = _mean(values)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    return deviation if deviation > abs(mean) * 1e-12 else 0.0


def ratio(value: float | None) -> Decimal | None:
    """Return a computed number with twelve digits behind the point: what lies beyond is a float's noise."""
    if value is None or not math.isfinite(value):
        return None
    return EXACT.create_decimal(f"{value:.12f}").normalize(EXACT) + 0


# ------------------------------------------------------------------------------------------------------ stats


def stats(
    closes: Sequence[Close], trades: Sequence["Traded"], snapshots: int, since: int | None = None
) -> Stats | None:
    """Return the numbers of a curve from a day on (an ordinal), and of the trades since; ``None`` where it has no close.

    Growth begins at the last close before that day; where there is none, the day before with the money that the account began
    with; where that is not known, at the first close. ``closes`` has all of them, from the account's first on.
    """
    shown = [close for close in closes if since is None or close.day >= since]
    if not shown:
        return None
    with localcontext(EXACT):
        earlier = closes[: len(closes) - len(shown)]
        base, days = (earlier[-1], shown) if earlier else _begun(shown)
        first, last = shown[0], shown[-1]
        counted = [close for close in days if close.growth is not None]
        returns = [close.growth for close in counted if close.growth is not None]
        a_year = days_a_year(close.day for close in counted)
        fall = drawdown([base.day, *(close.day for close in counted)], returns)
        inside = [trade for trade in trades if first.day <= trade.day <= last.day]
        wins, losses = _results(inside)
        equity = sum((close.equity for close in shown), ZERO) / len(shown)
        bought = sum((trade.value for trade in inside if trade.side == "buy"), ZERO)
        sold = sum((trade.value for trade in inside if trade.side == "sell"), ZERO)
        moved = sum((close.transfers for close in days if close is not closes[0]), ZERO)
        exposures = [close.exposure for close in shown if close.exposure is not None]
        return Stats(
            first_day=_text(first.day),
            last_day=_text(last.day),
            days=len(returns),
            days_from_snapshots=sum(close.source.startswith("snapshot") for close in shown),
            snapshots=snapshots,
            equity=last.equity,
            transfers=moved,
            gain=last.equity - base.equity - moved,
            return_ratio=ratio(total_return(returns)) if returns else None,
            cagr_ratio=ratio(cagr(returns, counted[-1].day - base.day if counted else 0)),
            days_a_year=a_year,
            volatility_ratio=ratio(volatility(returns, a_year)),
            sharpe=ratio(sharpe(returns, a_year)),
            sortino=ratio(sortino(returns, a_year)),
            max_drawdown_ratio=ratio(fall.ratio) if fall else ratio(0.0) if returns else None,
            drawdown_from=_text(fall.top) if fall else None,
            drawdown_to=_text(fall.bottom) if fall else None,
            drawdown_recovered=_text(fall.recovered) if fall and fall.recovered is not None else None,
            trades=len(wins) + len(losses),
            win_rate_ratio=ratio(len(wins) / (len(wins) + len(losses))) if wins or losses else None,
            profit_factor=ratio(float(sum(wins, ZERO) / -sum(losses, ZERO))) if losses else None,
            holding_time_s=ratio(_holding_s(inside)),
            exposure_ratio=ratio(_mean(exposures)) if exposures else None,
            turnover_ratio=ratio(float(min(bought, sold) / equity)) if equity > 0 else None,
            reconciliation=agreement(shown),
        )


def _begun(closes: Sequence[Close]) -> tuple[Close, Sequence[Close]]:
    """Return what an account began with as the close of the day before, or its first close; and the closes after it."""
    first = closes[0]
    if first.growth is None:
        return first, closes[1:]
    return first._replace(day=first.day - 1, equity=first.transfers), closes


def _results(trades: Iterable["Traded"]) -> tuple[list[Decimal], list[Decimal]]:
    """Return the gains and the losses of what was closed; the parts of one order are one trade."""
    results: dict[str, Decimal] = {}
    for trade in trades:
        for closing in trade.closings:
            results[trade.order] = results.get(trade.order, ZERO) + closing.realized
    return [r for r in results.values() if r > 0], [r for r in results.values() if r < 0]


def _holding_s(trades: Iterable["Traded"]) -> float | None:
    closings = [closing for trade in trades for closing in trade.closings]
    weight = math.fsum(abs(float(closing.cost)) for closing in closings)
    if not weight:
        return None
    held = math.fsum(abs(float(c.cost)) * (c.closed_ns - c.opened_ns) / 1e9 for c in closings)
    return held / weight


def agreement(closes: Iterable[Close]) -> Agreement:
    """Compare own closes with Alpaca's."""
    both = [
        (close, close.equity - close.broker)
        for close in closes
        if close.source == "snapshot" and close.broker and close.settled
    ]
    if not both:
        return Agreement(days=0, largest_difference=None, on=None, largest_ratio=None)
    worst, difference = max(both, key=lambda pair: abs(pair[1]))
    return Agreement(
        days=len(both),
        largest_difference=difference,
        on=_text(worst.day),
        largest_ratio=ratio(float(difference / worst.broker)) if worst.broker else None,
    )


def _time(at_ns: int) -> str:
    return f"{dt.datetime.fromtimestamp(at_ns // SECOND_NS, NEW_YORK):%H:%M}"


def _text(day: int) -> str:
    return dt.date.fromordinal(day).isoformat()
