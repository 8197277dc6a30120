"""A symbol with bars, trades and quotes: the newest row has the price, all answers agree, and none is of rows to come."""

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from operator import add
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.examples import examples

from alpacli.ports import SystemClock
from alpacli.sim.exchange import Exchange
from alpacli.sim.hours import AlwaysOpen
from alpacli.sim.pace import ReplayClock
from alpacli.sim.reading import Bar, Quote, Reading, Series, Trade
from alpacli.sim.recorded import Instrument, RecordedFeed, RecordedPrices
from alpacli.sim.replay import assemble, open_exchange
from alpacli.sim.rest import HttpRequest, handle

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
NOON = int(datetime(2024, 1, 3, 17, tzinfo=UTC).timestamp()) * SECOND
KEYS = {"apca-api-key-id": "PKTEST", "apca-api-secret-key": "s"}
LONG = 1200
LOT = Decimal(100)


class Rows(NamedTuple):
    """What is recorded of a symbol. Times are in nanoseconds since noon, prices in cents; a bar has its four."""

    width: int
    bars: Sequence[tuple[int, tuple[int, int, int, int]]]
    trades: Sequence[tuple[int, int]]
    quotes: Sequence[tuple[int, int, int]]

    def until(self, at: int) -> "Rows":
        bars, trades = [row for row in self.bars if row[0] <= at], [row for row in self.trades if row[0] <= at]
        return Rows(self.width, bars, trades, [row for row in self.quotes if row[0] <= at])

    def series(self, symbol: str = "AAPL") -> Series:
        series = Series(symbol)
        unit = 10 ** (series.places - 2)
        for begin, prices in self.bars:
            opened, high, low, closed = (price * unit for price in prices)
            bar = Bar(NOON + begin, date(2024, 1, 3), opened, high, low, closed, Decimal(400), None, 8, "row")
            series.bars.append((bar, self.width))
        series.trades += [Trade(NOON + at, price * unit, Decimal(10), {}) for at, price in self.trades]
        series.quotes += [Quote(NOON + at, bid * unit, LOT, ask * unit, LOT, {}) for at, bid, ask in self.quotes]
        return series


def bar(opened: int, high: int, low: int, closed: int) -> tuple[int, int, int, int]:
    return opened, high, low, closed


PRICES = st.integers(9_000, 11_000)
INSTANTS = st.one_of(
    st.integers(0, LONG).map(lambda second: second * SECOND),
    st.integers(0, LONG * SECOND),
)


@st.composite
def mixtures(draw: st.DrawFn) -> Rows:
    width = draw(st.sampled_from([MINUTE, 5 * MINUTE]))
    places = draw(st.lists(st.integers(0, LONG * SECOND // width - 1), max_size=8, unique=True))
    bars = []
    for place in sorted(places):
        low, first, second, high = sorted(draw(st.tuples(PRICES, PRICES, PRICES, PRICES)))
        opened, closed = draw(st.permutations([first, second]))
        bars.append((place * width, (opened, high, low, closed)))
    trades = sorted(draw(st.lists(st.tuples(INSTANTS, PRICES), max_size=8)), key=lambda row: row[0])
    quotes = sorted(draw(st.lists(st.tuples(INSTANTS, PRICES, st.integers(0, 9)), max_size=8)), key=lambda row: row[0])
    if not (bars or trades or quotes):
        trades = [(0, draw(PRICES))]
    return Rows(width, bars, trades, [(at, bid, bid + spread) for at, bid, spread in quotes])


def begins(rows: Rows) -> int:
    return min(row[0] for kind in (rows.bars, rows.trades, rows.quotes) for row in kind)


class Market:
    def __init__(self, rows: Rows, symbol: str = "AAPL") -> None:
        hours = AlwaysOpen()
        self.symbol = symbol
        instruments = {symbol: Instrument(rows.series(symbol), hours)}
        self.prices = RecordedPrices(instruments, hours)
        self.feed = RecordedFeed(instruments, self.prices, hours)

    def answers(self, start: int, at: int, price: int) -> dict[str, object]:
        """Return all that can be asked at a moment, of it and of the time since ``start``."""
        symbol, feed, prices = self.symbol, self.feed, self.prices
        from_ns, now_ns, until_ns = NOON + start, NOON + at, NOON + at + 1
        goal = Decimal(price) / 100
        told: dict[str, object] = {
            "begins": prices.begins_ns(symbol),
            "nbbo": prices.nbbo(symbol, now_ns),
            "quote": prices.quote(symbol, now_ns),
            "last": prices.last(symbol, now_ns),
            "then": (prices.nbbo(symbol, from_ns), prices.last(symbol, from_ns)),
            "extremes": prices.extremes(symbol, from_ns, now_ns),
            "latest": (
                feed.latest_trade(symbol, until_ns, until_ns),
                feed.latest_quote(symbol, until_ns),
                feed.latest_bar(symbol, until_ns, until_ns),
            ),
            "trades": feed.trades(symbol, from_ns, until_ns),
            "quotes": feed.quotes(symbol, from_ns, until_ns),
            "bars": feed.finished_bars(symbol, from_ns, until_ns),
            "day": feed.day_so_far(symbol, until_ns, until_ns),
            "part": feed.bar(symbol, from_ns, until_ns),
            "book": feed.books(symbol, from_ns, until_ns),
        }
        for side in ("buy", "sell"):
            told[f"limit {side}"] = prices.first(symbol, from_ns, until_ns, goal, side)
            told[f"stop {side}"] = prices.touched(symbol, from_ns, until_ns, goal, side)
            stop = partial(add, Decimal(-1) if side == "sell" else Decimal(1))
            mark = prices.nbbo(symbol, from_ns).bid
            told[f"trail {side}"] = prices.trail(symbol, from_ns, until_ns, mark, stop, side)
        return told


def moments(rows: Rows) -> list[int]:
    """Return where something could change: at rows, a minute after them, in bars, and around all of it."""
    starts = {row[0] for kind in (rows.bars, rows.trades, rows.quotes) for row in kind}
    ends = {begin + rows.width for begin, _ in rows.bars}
    inside = {begin + rows.width * part // 7 for begin, _ in rows.bars for part in range(7)}
    edges = {at + later + near for at in starts | ends for later in (0, MINUTE) for near in (-1, 0, 1)}
    return sorted(at for at in edges | inside if at >= begins(rows))


@settings(deadline=None, max_examples=examples(60))
@given(mixtures(), INSTANTS, PRICES, st.sampled_from(["AAPL", "BTC/USD"]), st.data())
def test_rows_that_are_still_to_come_change_no_answer(
    rows: Rows, start: int, price: int, symbol: str, data: st.DataObject
) -> None:
    market = Market(rows, symbol)
    for at in data.draw(st.lists(st.sampled_from(moments(rows)), min_size=1, max_size=6)):
        start = min(max(start, begins(rows)), at)
        known = Market(rows.until(at), symbol)
        assert market.answers(start, at, price) == known.answers(start, at, price), at


def newest(rows: Sequence[tuple[int, Any]] | Sequence[tuple[int, int, int]], at: int) -> Any:
    return next((row for row in reversed(rows) if row[0] <= at), None)


@settings(deadline=None, max_examples=examples(100))
@given(mixtures())
def test_the_newest_row_has_the_price_and_a_minute_is_not_newer(rows: Rows) -> None:
    """Rows of one instant aside: they follow a nanosecond apart."""
    rows = rows._replace(
        trades=list({row[0]: row for row in rows.trades}.values()),
        quotes=list({row[0]: row for row in rows.quotes}.values()),
    )
    market, bars = Market(rows), Market(rows._replace(trades=[], quotes=[])) if rows.bars else None
    for at in moments(rows):
        now_ns = NOON + at
        bar, trade, quote = (newest(kind, at) for kind in (rows.bars, rows.trades, rows.quotes))
        barred = bar is not None and (trade is None or bar[0] - trade[0] > MINUTE)
        traded_at = max((row[0] for row in (bar, trade) if row is not None), default=None)
        quoted = quote is not None and (traded_at is None or traded_at - quote[0] <= MINUTE)
        traded = None
        if barred:
            assert bars is not None
            traded = bars.prices.last("AAPL", now_ns)
        elif trade is not None:
            traded = Decimal(trade[1]) / 100
        nbbo = market.prices.nbbo("AAPL", now_ns)
        expected = (Decimal(quote[1]) / 100, Decimal(quote[2]) / 100) if quoted else (traded, traded)
        assert tuple(nbbo) == expected, at
        latest = market.feed.latest_quote("AAPL", now_ns + 1)
        assert latest is not None
        assert (latest["bp"], latest["ap"]) == expected
        latest = market.feed.latest_trade("AAPL", now_ns + 1, now_ns + 1)
        assert (latest and latest["p"]) == traded
        moved = [row[0] for row in (trade, bar and (min(bar[0] + rows.width - 1, at),)) if row is not None]
        last = market.prices.last("AAPL", now_ns)
        if quote is None or (moved and quote[0] - max(moved) <= MINUTE and not (quoted and last != traded)):
            assert last == traded
        else:
            assert quoted
            assert nbbo.bid <= last <= nbbo.ask or last == traded
            assert traded is None or last in (traded, *nbbo)


@settings(deadline=None, max_examples=examples(60))
@given(mixtures(), INSTANTS, INSTANTS, PRICES)
def test_what_the_streams_told_is_what_the_market_did(rows: Rows, start: int, at: int, price: int) -> None:
    market = Market(rows)
    start, at = max(start, begins(rows)), max(at, begins(rows))
    from_ns, until_ns = NOON + min(start, at), NOON + max(start, at)
    for told in (market.feed.quotes("AAPL", from_ns, until_ns), market.feed.trades("AAPL", from_ns, until_ns)):
        times = [message["t"] for message in told]
        assert times == sorted(times)  # type: ignore[type-var] # whatever is told is JSON
    numbers = [message["i"] for message in market.feed.trades("AAPL", 0, 1 << 62)]
    assert len(numbers) == len(set(numbers))
    seen = market.prices.extremes("AAPL", from_ns, until_ns)
    for message in market.feed.quotes("AAPL", from_ns, until_ns):
        assert seen.bid_low <= message["bp"] <= seen.bid_high  # type: ignore[operator] # a number
        assert seen.ask_low <= message["ap"] <= seen.ask_high  # type: ignore[operator] # a number
    met = market.prices.first("AAPL", from_ns, until_ns, Decimal(price) / 100, "buy")
    if met is not None:
        assert market.prices.nbbo("AAPL", met).ask <= Decimal(price) / 100
    elif until_ns > from_ns:
        assert market.prices.extremes("AAPL", from_ns, until_ns - 1).ask_low > Decimal(price) / 100


class Day:
    """An exchange on rows, whose time a test moves."""

    def __init__(self, rows: Rows, symbol: str = "AAPL", *, more: Sequence[Series] = ()) -> None:
        self.symbol = symbol
        every = {series.symbol: series for series in (rows.series(symbol), *more)}
        recording = assemble(Reading(every, []), hours="always")
        self.clock = ReplayClock(SystemClock(), recording.begin_ns, NOON + 10 * LONG * SECOND)
        self.exchange: Exchange = open_exchange(recording, self.clock)

    def ask(self, path: str, body: object = None, **query: str) -> Any:
        method, text = ("GET", b"") if body is None else ("POST", json.dumps(body).encode())
        answer = handle(self.exchange, HttpRequest(method, path, tuple(query.items()), KEYS, text))
        return json.loads(answer.body)

    def order(self, symbol: str = "AAPL", **fields: object) -> Any:
        body = {"symbol": symbol, "qty": "1", "side": "buy", "type": "market", "time_in_force": "gtc"} | fields
        return self.ask("/v2/orders", body)

    def go_to(self, at: int) -> None:
        self.clock.go_to(NOON + at)

    def everything(self) -> dict[str, object]:
        paths = ["/v2/stocks/AAPL/snapshot", "/v2/positions", "/v2/account/portfolio/history", "/v2/account/activities"]
        paths += [f"/v2/stocks/AAPL/{channel}/latest" for channel in ("trades", "quotes", "bars")]
        told: dict[str, object] = {path: self.ask(path) for path in paths}
        for channel in ("trades", "quotes"):
            told[channel] = self.ask(f"/v2/stocks/AAPL/{channel}", start="2024-01-03", limit="10000")
        for timeframe in ("1Min", "5Min", "1Hour", "1Day"):
            told[timeframe] = self.ask("/v2/stocks/AAPL/bars", start="2024-01-03", timeframe=timeframe)
        told["orders"] = [
            {name: order[name] for name in ("status", "filled_at", "filled_avg_price")}
            for order in self.ask("/v2/orders", status="all")
        ]
        return told


@settings(deadline=None, max_examples=examples(10))
@given(mixtures(), INSTANTS, st.integers(1, 400), PRICES)
def test_orders_and_all_that_the_exchange_says_come_of_the_rows_until_then(
    rows: Rows, start: int, later: int, price: int
) -> None:
    start = max(start, begins(rows)) // 1_000_000 * 1_000_000 + 1_000_000
    end = start + later * SECOND
    told = []
    for known in (rows, rows.until(end)):
        day = Day(known)
        day.go_to(start)
        day.order()
        day.order(type="limit", limit_price=f"{price / 100}")
        day.order(type="stop", stop_price=f"{price / 100}")
        day.go_to(end)
        told.append(day.everything())
        day.exchange.close()
    assert told[0] == told[1]


BARS_OF_184 = [(minute * MINUTE, bar(18_400, 18_500, 18_300, 18_400)) for minute in range(10)]


def test_bars_have_the_price_until_the_first_quote() -> None:
    day = Day(Rows(MINUTE, BARS_OF_184, [], [(8 * MINUTE, 25_000, 25_002), (9 * MINUTE, 25_001, 25_003)]))
    day.go_to(MINUTE)
    day.order()
    day.go_to(2 * MINUTE)
    assert day.ask("/v2/stocks/AAPL/quotes/latest")["quote"]["ap"] == 184
    (held,) = day.ask("/v2/positions")
    assert abs(Decimal(held["avg_entry_price"]) - 184) < 1
    assert Decimal(held["current_price"]) == 184
    day.go_to(8 * MINUTE + SECOND)
    assert day.ask("/v2/stocks/AAPL/quotes/latest")["quote"]["ap"] == 250.02
    day.exchange.close()


def test_bars_have_the_price_until_the_first_trade() -> None:
    day = Day(Rows(MINUTE, BARS_OF_184, [(8 * MINUTE, 25_000)], []))
    day.go_to(2 * MINUTE)
    snapshot = day.ask("/v2/stocks/AAPL/snapshot")
    assert (snapshot["latestTrade"]["p"], snapshot["latestQuote"]["ap"], snapshot["dailyBar"]["c"]) == (184,) * 3
    day.go_to(8 * MINUTE + SECOND)
    snapshot = day.ask("/v2/stocks/AAPL/snapshot")
    assert (snapshot["latestTrade"]["p"], snapshot["latestQuote"]["ap"], snapshot["dailyBar"]["c"]) == (250,) * 3
    day.exchange.close()


def test_bars_have_the_price_again_where_the_quotes_end() -> None:
    day = Day(Rows(MINUTE, BARS_OF_184, [], [(0, 15_000, 15_002), (2 * MINUTE, 15_000, 15_002)]))
    day.go_to(2 * MINUTE + SECOND)
    assert day.ask("/v2/stocks/AAPL/quotes/latest")["quote"]["ap"] == 150.02
    day.go_to(8 * MINUTE)
    order = day.order()
    day.go_to(9 * MINUTE)
    filled = day.ask(f"/v2/orders/{order['id']}")
    assert abs(Decimal(filled["filled_avg_price"]) - 184) < 1
    told = day.ask("/v2/stocks/AAPL/quotes", start="2024-01-03")["quotes"]
    assert [row["t"][14:19] for row in told][:4] == ["00:00", "02:00", "04:00", "04:20"]
    day.exchange.close()


def test_of_a_bar_that_is_under_way_only_what_was_traded_is_told_where_trades_are() -> None:
    trades = [(1000, 18_400), (20 * SECOND, 18_450), (40 * SECOND, 18_420)]
    day = Day(Rows(MINUTE, BARS_OF_184, trades, []))
    day.go_to(30 * SECOND)
    today = day.ask("/v2/stocks/AAPL/snapshot")["dailyBar"]
    assert (today["o"], today["h"], today["l"], today["c"]) == (184, 184.5, 184, 184.5)
    day.go_to(MINUTE)
    today = day.ask("/v2/stocks/AAPL/snapshot")["dailyBar"]
    assert (today["h"], today["l"], today["c"]) == (185, 183, 184)
    day.exchange.close()


def test_a_position_is_worth_what_quotes_leave_of_an_old_trade() -> None:
    market = Market(
        Rows(MINUTE, [], [(0, 10_000)], [(at * MINUTE, 9_990 + 20 * at, 9_995 + 20 * at) for at in range(5)])
    )
    assert [market.prices.last("AAPL", NOON + at * MINUTE) for at in range(5)] == [
        *map(Decimal, ("100", "100", "100.30", "100.50", "100.70"))
    ]


@pytest.mark.parametrize("symbol", ["AAPL", "BTC/USD"])
def test_a_symbol_has_no_price_quote_or_book_before_its_first_row(symbol: str) -> None:
    early = Rows(MINUTE, [], [(0, 10_000)], []).series("MSFT")
    day = Day(Rows(MINUTE, BARS_OF_184[5:], [], [(8 * MINUTE, 25_000, 25_002)]), symbol, more=[early])
    day.go_to(MINUTE)
    assert "no price yet" in day.order(symbol)["message"]
    coin = "/" in symbol
    for channel in ("trades", "quotes", "bars", "orderbooks")[: 4 if coin else 3]:
        path = f"/v1beta3/crypto/us/latest/{channel}" if coin else f"/v2/stocks/{channel}/latest"
        assert day.ask(path, symbols=symbol)[channel] == {}
    contracts = "/v2/options/contracts", "option_contracts"
    assert {item["underlying_symbol"] for item in day.ask(contracts[0], limit="10000")[contracts[1]]} == {"MSFT"}
    assert day.ask(f"/v1beta1/options/snapshots/{symbol}")["snapshots"] == {} if not coin else True
    day.go_to(6 * MINUTE)
    listed = [item["symbol"] for item in day.ask(contracts[0], underlying_symbols=symbol, limit="100")[contracts[1]]]
    assert bool(listed) != coin
    if listed:
        asked = day.ask("/v1beta1/options/trades", symbols=",".join(listed), start="2024-01-03", limit="10000")
        assert min(row["t"] for rows in asked["trades"].values() for row in rows) >= "2024-01-03T17:05"
    day.exchange.close()
    market = Market(Rows(MINUTE, BARS_OF_184[5:], [], []), symbol)
    assert market.feed.books(symbol, NOON, NOON + MINUTE) == []
