"""A past market served as an exchange: put together from what was read, kept in memory, gone when it ends.

Nothing of a replay touches the state directory, so no demo account is ever mixed up with it. The market's hours are the New
York Stock Exchange's, unless rows of stocks lie where it is shut: then it is open around the clock, and that is said.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Final, NamedTuple

from alpacli.errors import UsageError
from alpacli.ports import Clock, async_sleep
from alpacli.sim.answers import timestamp
from alpacli.sim.desk import NO_STRAIN, Market, Strain
from alpacli.sim.exchange import Exchange
from alpacli.sim.feed import BAR_DELAY_NS
from alpacli.sim.hours import AlwaysOpen, Hours, HoursName, Nyse, new_york_date, nyse_sessions
from alpacli.sim.ledger import holdings, worth
from alpacli.sim.listing import LISTINGS
from alpacli.sim.option_prices import OptionPrices
from alpacli.sim.pace import Pace, ReplayClock
from alpacli.sim.reading import Reading, Series
from alpacli.sim.recorded import Instrument, RecordedFeed, RecordedPrices

_GRAIN_NS: Final = 250_000_000
_QUIET_S: Final = 1.0
_LOOK_S: Final = 0.05


class Recording(NamedTuple):
    """A market that was recorded, when it begins and ends, and the moments at which there is something to tell."""

    market: Market
    begin_ns: int
    end_ns: int
    bar_moments: Sequence[int]
    tick_moments: Sequence[int]
    rows: int
    notices: Sequence[str]


class AccountResult(NamedTuple):
    """What an account came to. ``orders`` counts by status; ``profit`` is equity less the money it was given."""

    label: str
    orders: Mapping[str, int]
    fills: int
    equity: Decimal
    profit: Decimal


class Result(NamedTuple):
    """What a replay came to, at ``now_ns`` of its time."""

    begin_ns: int
    now_ns: int
    over: bool
    accounts: Sequence[AccountResult]


def assemble(
    reading: Reading,
    *,
    hours: HoursName | None = None,
    seed: int = 1,
    strain: Strain = NO_STRAIN,
    from_ns: int | None = None,
    until_ns: int | None = None,
) -> Recording:
    """Make a market of what was read; ``from_ns`` begins later than the data, which is history until then.

    Raises:
        UsageError: bars overlap, a day is none of the exchange's, or there is nothing between ``from_ns`` and ``until_ns``.
    """
    notices = list(reading.notices)
    chosen, notice = _hours(reading, hours)
    notices += [notice] if notice else []
    instruments = {symbol: Instrument(series, chosen) for symbol, series in sorted(reading.series.items())}
    prices = RecordedPrices(instruments, chosen)
    listings = {symbol: LISTINGS[symbol] for symbol in instruments}
    market = Market(
        OptionPrices(prices, chosen, seed),
        RecordedFeed(instruments, prices, chosen),
        chosen,
        seed,
        strain,
        listings,
        recorded=True,
    )
    begin_ns = min(item.begin_ns for item in instruments.values()) // 1000 * 1000
    bars = {end_ns + BAR_DELAY_NS for item in instruments.values() for end_ns in item.ends}
    ticks = {_told(at_ns) for item in instruments.values() for at_ns in (*item.trade_times, *item.quote_times)}
    turns = {_told(at_ns) for item in instruments.values() if item.way is not None for at_ns in item.way.times}
    minutes = {-(-at_ns // _MINUTE_NS) * _MINUTE_NS + BAR_DELAY_NS for at_ns in ticks if not bars}
    end_ns = max(bars | ticks | minutes)
    begin_ns = max(begin_ns, from_ns or 0)
    end_ns = min(end_ns, until_ns or end_ns)
    if begin_ns >= end_ns:
        raise UsageError("there is nothing to replay between those times", "look at --from and --until")

    def within(moments: set[int]) -> list[int]:
        return [*sorted(moment for moment in moments if begin_ns < moment < end_ns), end_ns]

    rows = sum(len(series.bars) + len(series.trades) + len(series.quotes) for series in reading.series.values())
    everything = bars | minutes | ticks
    return Recording(market, begin_ns, end_ns, within(everything), within(everything | turns), rows, notices)


_MINUTE_NS: Final = 60_000_000_000


def _told(at_ns: int) -> int:
    """Return when a tick is told: those of a quarter of a second together."""
    return (at_ns // _GRAIN_NS + 1) * _GRAIN_NS


def open_exchange(recording: Recording, clock: Clock, *, cash: Decimal | None = None, rate_limit: int = 0) -> Exchange:
    """Return an exchange in memory on a recorded market."""
    exchange = Exchange(None, clock, recording.market)
    exchange.reset(seed=recording.market.seed, hours="always", cash=cash, rate_limit=rate_limit)
    return exchange


def summarize(exchange: Exchange, begin_ns: int, *, over: bool) -> Result:
    """Return what every account came to until now."""
    accounts = []
    for row in exchange.status().accounts:
        with exchange.desk(row.number, changes=False) as desk:
            number = desk.account.number
            counts = desk.db.execute(
                "SELECT status, count(*) AS n FROM orders WHERE account = ? GROUP BY status ORDER BY status", (number,)
            )
            orders = {found["status"]: found["n"] for found in counts}
            fills = desk.db.execute("SELECT count(*) FROM fills WHERE account = ?", (number,)).fetchone()[0]
            given = desk.db.execute("SELECT amount FROM transfers WHERE account = ?", (number,)).fetchall()
            held = {symbol: holding.qty for symbol, holding in holdings(desk.book).items()}
            value = worth(desk.market.tape, held, desk.now_ns)
            equity = desk.book.cash + value.long + value.short
            profit = equity - sum((Decimal(found["amount"]) for found in given), Decimal(0))
            accounts.append(AccountResult(row.label, orders, fills, equity, profit))
    return Result(begin_ns, exchange.now_ns(), over, accounts)


def serve_replay(
    recording: Recording,
    clock: Clock,
    *,
    speed: float | None,
    stepped: bool,
    exit_at_end: bool,
    host: str = "127.0.0.1",
    port: int = 0,
    cash: Decimal | None = None,
    rate_limit: int = 0,
    ready: Callable[[str], None],
    ended: Callable[[Result], None],
    access_log: bool = False,
) -> None:
    """Serve a recorded market until SIGTERM or Ctrl-C, or with ``exit_at_end`` until its end.

    ``speed`` is how many times as fast as real time it goes, ``None`` as fast as its clients follow; ``stepped`` leaves the
    time to ``/sim/clock``. ``ended`` is called once: at the end of the data, or when it is stopped before.

    Raises:
        ConfigError: the host is not this machine's loopback, or the port is taken.
    """
    from alpacli.sim.faults import Faults
    from alpacli.sim.server import listening, make_server, run
    from alpacli.sim.sockets import Limits

    time = ReplayClock(clock, recording.begin_ns, recording.end_ns, None if stepped else speed)
    in_step = not stepped and speed is None
    pace = Pace(time, recording.bar_moments, recording.tick_moments) if in_step else Pace(time)
    exchange = open_exchange(recording, time, cash=cash, rate_limit=rate_limit)
    told = False

    def tell() -> None:
        nonlocal told
        if not told:
            told = True
            ended(summarize(exchange, recording.begin_ns, over=time.over))

    async def go() -> None:
        await pace.run()
        await pace.tell()
        while exit_at_end and pace.quiet_for_s() < _QUIET_S:
            await async_sleep(_LOOK_S)
        await asyncio.to_thread(tell)
        if exit_at_end:
            server.should_exit = True

    limits = Limits(login_ns=1 << 62)  # a login takes as long as it takes, whatever the replayed time does
    server = make_server(exchange, limits, Faults(clock), time, access_log=access_log, pace=pace)
    try:
        with listening(host, port) as (listener, url):
            run(server, listener, url, ready, beside=go)
        tell()
    finally:
        exchange.close()


def _hours(reading: Reading, wanted: HoursName | None) -> tuple[Hours, str | None]:
    """Return the hours of the market, and what has to be said about them."""
    if wanted == "always":
        return AlwaysOpen(), None
    nyse = Nyse(nyse_sessions())
    outside = next(_outside(reading.series.values(), nyse), None)
    if outside is None or wanted == "xnys":
        return nyse, None
    return AlwaysOpen(), (
        f"{outside}: the New York Stock Exchange is shut at that time, so this market is open around the clock;"
        " --hours xnys keeps its hours"
    )


def _outside(every: Iterable[Series], nyse: Nyse) -> Iterator[str]:
    """Give the stocks' rows that lie where the exchange is shut, extended hours being hours."""
    spans: dict[date, tuple[int, int]] = {}

    def moves(day: date, at_ns: int | None) -> bool:
        if day not in spans:
            days = nyse.days(day, day)
            spans[day] = (days[0].from_ns, days[0].until_ns) if days else (0, 0)
        begin_ns, until_ns = spans[day]
        return begin_ns < until_ns if at_ns is None else begin_ns <= at_ns < until_ns

    for series in every:
        if "/" in series.symbol:
            continue
        for bar, _ in series.bars:
            if not moves(bar.day, bar.begin_ns):
                yield bar.where
        for at_ns in (*(row.at_ns for row in series.trades), *(row.at_ns for row in series.quotes)):
            if not moves(new_york_date(at_ns), at_ns):
                yield f"{series.symbol} at {timestamp(at_ns)}"
