"""What happened to an account: its activities, and what it was worth over time.

Both are worked out from the fills and transfers on the ledger and from the tape, so they always add up with the balances.
An activity's id is 17 digits of UTC time and its own UUID, and rows are in order of time and booking. The portfolio's
windows lie inside the hours asked for; round the clock, market hours are all hours. Equity is taken at the end of a window
(now, for the one that is not over); before the account was opened it is zero.
"""

import re
import sqlite3
from bisect import bisect_right
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Final, NamedTuple

from alpacli.sim.answers import (
    SECOND_NS,
    Json,
    bad_parameter,
    decimal_text,
    timestamp,
)
from alpacli.sim.desk import Desk
from alpacli.sim.hours import AlwaysOpen, Hours, TradingDay, new_york_date
from alpacli.sim.ledger import ZERO, market_value
from alpacli.sim.listing import LISTINGS

_MINUTE_NS: Final = 60 * SECOND_NS
_TIMEFRAMES_NS: Final = {
    "1Min": _MINUTE_NS,
    "5Min": 5 * _MINUTE_NS,
    "15Min": 15 * _MINUTE_NS,
    "1H": 60 * _MINUTE_NS,
    "1D": 0,
}
_DAYS: Final = {"D": 1, "W": 7, "M": 30, "A": 365}
_LONGEST_DAYS: Final = 3660


class ActivityQuery(NamedTuple):
    """The parameters of ``GET /v2/account/activities``; ``after`` and ``until`` are exclusive, ``most`` ``None`` is all."""

    types: frozenset[str] = frozenset()
    category: str | None = None
    after_ns: int | None = None
    until_ns: int | None = None
    ascending: bool = False
    most: int | None = 100
    page_token: str | None = None
    order_id: str | None = None


class PortfolioQuery(NamedTuple):
    period: str | None
    timeframe: str | None
    start_ns: int | None
    end_ns: int | None
    reporting: str
    pnl_reset: str
    cashflow_types: frozenset[str]


def activities(desk: Desk, query: ActivityQuery) -> list[Json]:
    """Return one page of activities; the next page continues after the id of its last row."""
    rows: list[tuple[tuple[int, int, int], dict[str, Json]]] = []
    if query.category != "non_trade_activity" and (not query.types or "FILL" in query.types):
        rows.extend(((row["at_ns"], 1, row["seq"]), _fill(row)) for row in _select(desk, "fills", query))
    if query.category != "trade_activity" and query.order_id is None:
        rows.extend(
            ((row["at_ns"], 0, row["seq"]), _cash(row))
            for row in _select(desk, "transfers", query)
            if not query.types or row["activity_type"] in query.types
        )
        rows.extend(
            ((row["at_ns"], 2, row["seq"]), _settlement(row))
            for row in _select(desk, "settlements", query)
            if not query.types or row["activity_type"] in query.types
        )
    rows.sort(key=lambda item: item[0], reverse=not query.ascending)
    answers = [answer for _, answer in rows]
    if query.page_token is not None:
        position = next((n for n, answer in enumerate(answers) if answer["id"] == query.page_token), None)
        if position is None:
            raise bad_parameter("invalid page_token")
        answers = answers[position + 1 :]
    return list(answers if query.most is None else answers[: query.most])


def _select(desk: Desk, table: str, query: ActivityQuery) -> Iterator[sqlite3.Row]:
    where, arguments = ["account = ?"], [desk.account.number]
    if query.after_ns is not None:
        where.append("at_ns > ?")
        arguments.append(query.after_ns)
    if query.until_ns is not None:
        where.append("at_ns < ?")
        arguments.append(query.until_ns)
    values: list[object] = list(arguments)
    if query.order_id is not None:
        where.append("order_id = ?")
        values.append(query.order_id)
    yield from desk.db.execute(f"SELECT * FROM {table} WHERE {' AND '.join(where)}", values)


def _activity_id(at_ns: int, own: str) -> str:
    digits = re.sub(r"\D", "", timestamp(at_ns - at_ns % SECOND_NS))
    return f"{digits}{at_ns % SECOND_NS // 1_000_000:03d}::{own}"


def _fill(row: sqlite3.Row) -> dict[str, Json]:
    return {
        "id": _activity_id(row["at_ns"], row["execution_id"]),
        "activity_type": "FILL",
        "transaction_time": timestamp(row["at_ns"]),
        "type": "fill" if row["order_status"] == "filled" else "partial_fill",
        "price": decimal_text(Decimal(row["price"])),
        "qty": decimal_text(Decimal(row["qty"])),
        "side": row["side"],
        "symbol": row["symbol"],
        "leaves_qty": decimal_text(Decimal(row["leaves_qty"])),
        "order_id": row["order_id"],
        "cum_qty": decimal_text(Decimal(row["cum_qty"])),
        "order_status": row["order_status"],
    }


def _cash(row: sqlite3.Row) -> dict[str, Json]:
    return {
        "id": _activity_id(row["at_ns"], row["id"]),
        "activity_type": row["activity_type"],
        "date": new_york_date(row["at_ns"]).isoformat(),
        "net_amount": decimal_text(Decimal(row["amount"])),
        "description": row["description"],
        "status": "executed",
        "created_at": timestamp(row["at_ns"]),
        "currency": "USD",
    }


_SETTLED: Final = {
    "OPEXC": "Option Exercise",
    "OPASN": "Option Assignment",
    "OPEXP": "Option Expiration",
    "OPTRD": "Option Trade",
}


def _settlement(row: sqlite3.Row) -> dict[str, Json]:
    sign = "" if row["side"] == "buy" else "-"
    return {
        "id": _activity_id(row["at_ns"], row["id"]),
        "activity_type": row["activity_type"],
        "date": new_york_date(row["at_ns"] - 1).isoformat(),
        "net_amount": decimal_text(Decimal(row["cash"])),
        "symbol": row["symbol"],
        "qty": sign + decimal_text(Decimal(row["qty"])),
        "price": decimal_text(Decimal(row["price"])),
        "description": _SETTLED[row["activity_type"]],
        "group_id": row["group_id"],
        "status": "executed",
        "created_at": timestamp(row["at_ns"]),
        "currency": "USD",
    }


# ------------------------------------------------------------------------------------------------ portfolio


class _Windows(NamedTuple):
    timeframe: str
    starts_ns: list[int]
    ends_ns: list[int]
    base_ns: int


def portfolio(desk: Desk, query: PortfolioQuery) -> dict[str, Json]:
    """Return equity and profit by window, as columns of JSON numbers.

    Profit leaves out money that was moved in or out. It is measured from the base value, or with ``pnl_reset=per_day`` and
    windows shorter than a day, from the close before each day.
    """
    windows = _windows(desk, query)
    past = _Past(desk)
    base = past.at(windows.base_ns)
    profits: list[Decimal] = []
    ratios: list[Decimal] = []
    equities: list[Decimal] = []
    reset_daily = query.pnl_reset == "per_day" and windows.timeframe != "1D"
    origin, origin_ns = base, windows.base_ns
    for start_ns, end_ns in zip(windows.starts_ns, windows.ends_ns, strict=True):
        if reset_daily:
            close_ns = desk.market.hours.previous_close(start_ns)
            if close_ns != origin_ns:
                origin, origin_ns = past.at(close_ns), close_ns
        equity, moved = past.at(end_ns)
        profit = equity - moved - (origin[0] - origin[1])
        whole = origin[0] or moved
        equities.append(equity)
        profits.append(profit)
        ratios.append((profit / whole).quantize(Decimal("1e-10")) if whole else ZERO)
    base_value = base[0] or past.at(desk.now_ns)[1]
    cashflow: dict[str, Json] = {
        kind: [
            _number(past.moved(kind, start, end)) for start, end in zip(windows.starts_ns, windows.ends_ns, strict=True)
        ]
        for kind in past.kinds
        if kind in query.cashflow_types or "ALL" in query.cashflow_types
    }
    return {
        "timestamp": [start // SECOND_NS for start in windows.starts_ns],
        "equity": [_number(value) for value in equities],
        "profit_loss": [_number(value) for value in profits],
        "profit_loss_pct": [_number(value) for value in ratios],
        "base_value": _number(base_value),
        "base_value_asof": new_york_date(windows.base_ns - 1).isoformat(),
        "timeframe": windows.timeframe,
        "cashflow": cashflow,
    }


class _Past:
    """An account's equity at any moment: quantities and cash from its bookings in order, prices from the tape."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        cash = moved = ZERO
        held: dict[str, Decimal] = {}
        self._times: list[int] = [-1]
        self._steps: list[tuple[Decimal, Decimal, dict[str, Decimal]]] = [(ZERO, ZERO, {})]
        self._transfers: list[tuple[int, str, Decimal]] = []
        for at_ns, change, symbol, amount in sorted(self._bookings(), key=lambda booking: booking[0]):
            cash += amount
            if symbol is None:
                moved += amount
            else:
                held = {name: qty for name, qty in held.items() if name != symbol}
                qty = self._steps[-1][2].get(symbol, ZERO) + change
                if qty:
                    held[symbol] = qty
            self._times.append(at_ns)
            self._steps.append((cash, moved, held))

    @property
    def kinds(self) -> list[str]:
        return sorted({kind for _, kind, _ in self._transfers})

    def at(self, at_ns: int) -> tuple[Decimal, Decimal]:
        """Return equity and the money moved in until then."""
        cash, moved, held = self._steps[bisect_right(self._times, at_ns) - 1]
        tape = self._desk.market.tape
        values = (
            market_value(qty, tape.last(symbol, at_ns), LISTINGS[symbol].multiplier) for symbol, qty in held.items()
        )
        return cash + sum(values, ZERO), moved

    def moved(self, kind: str, start_ns: int, end_ns: int) -> Decimal:
        return sum((amount for at, own, amount in self._transfers if own == kind and start_ns <= at < end_ns), ZERO)

    def _bookings(self) -> Iterator[tuple[int, Decimal, str | None, Decimal]]:
        db, account = self._desk.db, self._desk.account.number
        for row in db.execute("SELECT * FROM transfers WHERE account = ? ORDER BY at_ns, seq", (account,)):
            amount = Decimal(row["amount"])
            self._transfers.append((row["at_ns"], row["activity_type"], amount))
            yield row["at_ns"], ZERO, None, amount
        for row in db.execute("SELECT * FROM bookings WHERE account = ? ORDER BY at_ns, settled, seq", (account,)):
            qty = Decimal(row["qty"])
            yield row["at_ns"], qty if row["side"] == "buy" else -qty, row["symbol"], Decimal(row["cash"])


def _windows(desk: Desk, query: PortfolioQuery) -> _Windows:
    if query.start_ns is not None and query.end_ns is not None and query.period is not None:
        raise bad_parameter("at most two of start, end and period may be given")
    end_ns = min(desk.now_ns if query.end_ns is None else query.end_ns, desk.now_ns)
    if query.start_ns is not None and query.end_ns is None and query.period is not None:
        end_ns = min(query.start_ns + _period(query.period).days * 86_400 * SECOND_NS, desk.now_ns)
    last_day = new_york_date(end_ns)
    if query.start_ns is not None:
        first_day = new_york_date(query.start_ns)
        if query.start_ns > end_ns:
            raise bad_parameter("start must not be after end")
    else:
        first_day = last_day - _period(query.period or "1M") + timedelta(1)
    span = (last_day - first_day).days + 1
    if span > _LONGEST_DAYS:
        raise bad_parameter("period is too long")
    timeframe = query.timeframe or ("1Min" if span < 7 else "15Min" if span < 30 else "1D")
    if timeframe not in _TIMEFRAMES_NS:
        raise bad_parameter(f"invalid timeframe: {timeframe}")
    if timeframe != "1D" and span > 30:
        raise bad_parameter("only the 1D timeframe is allowed for periods of more than 30 days")
    around_the_clock = query.reporting == "continuous" and timeframe != "1D"  # coins do not stop at a weekend
    hours: Hours = AlwaysOpen() if around_the_clock else desk.market.hours
    days = hours.days(first_day, last_day)
    if not days and timeframe != "1D" and query.start_ns is None:
        days = desk.market.hours.days(first_day - timedelta(7), last_day)[-1:]
    starts, ends = [], []
    for day in days:
        for start, end in _day_windows(day, timeframe, query.reporting):
            if start < end_ns and (query.start_ns is None or timeframe == "1D" or end > query.start_ns):
                starts.append(start)
                ends.append(min(end, end_ns))
    base_ns = desk.market.hours.previous_close(starts[0] if starts else end_ns)
    return _Windows(timeframe, starts, ends, base_ns)


def _day_windows(day: TradingDay, timeframe: str, reporting: str) -> Iterator[tuple[int, int]]:
    if timeframe == "1D":
        yield day.open_ns, day.close_ns
        return
    step = _TIMEFRAMES_NS[timeframe]
    start, stop = (day.open_ns, day.close_ns) if reporting == "market_hours" else (day.from_ns, day.until_ns)
    if reporting == "continuous":
        start, stop = day.midnight_ns, day.next_midnight_ns
    for left in range(start, stop, step):
        yield left, min(left + step, stop)


def _period(text: str) -> timedelta:
    matched = re.fullmatch(r"([1-9]\d{0,3})([DWMA])", text)
    if matched is None:
        raise bad_parameter(f"invalid period: {text}")
    days = int(matched[1]) * _DAYS[matched[2]]
    if days > _LONGEST_DAYS:
        raise bad_parameter(f"period is too long: {text}")
    return timedelta(days)


def _number(value: Decimal) -> Json:
    """Return a JSON number; amounts of cents and ratios of ten digits survive a float unchanged."""
    return int(value) if value == value.to_integral_value() else float(value)
