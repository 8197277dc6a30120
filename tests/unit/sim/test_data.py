"""Market data over REST is what the sockets sent."""

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import pytest
from tests.support.fakes import ManualClock

from alpacli.domain.values import Timestamp
from alpacli.sim.exchange import Exchange
from alpacli.sim.feed import DAY_NS
from alpacli.sim.halts import halts
from alpacli.sim.prints import MINUTE_NS
from alpacli.sim.rest import HttpRequest, handle

HEADERS = {"apca-api-key-id": "PK", "apca-api-secret-key": "s"}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def exchange(tmp_path: Path, clock: ManualClock) -> Iterator[Exchange]:
    with closing(Exchange(str(tmp_path), clock)) as made:
        made.reset(rate_limit=0)
        yield made


def get(exchange: Exchange, path: str, **query: str) -> tuple[int, Any]:
    answer = handle(exchange, HttpRequest("GET", path, tuple(query.items()), HEADERS))
    return answer.status, json.loads(answer.body)


@pytest.mark.parametrize("channel", ["trades", "quotes"])
def test_pages_bring_all_that_was_streamed_once_and_in_order(exchange: Exchange, channel: str) -> None:
    now_ns = exchange.now_ns()
    market = exchange.market()
    feed = market.feed
    start = now_ns - 90 * 10**9
    begin = f"{(start // 10**9)}"
    query = {"symbols": "MSFT,AAPL,NOPE", "start": _rfc3339(start), "limit": "50"}
    rows: dict[str, list[dict[str, Any]]] = {"AAPL": [], "MSFT": []}
    token: str | None = ""
    while token is not None:
        status, page = get(exchange, f"/v2/stocks/{channel}", **query, **({"page_token": token} if token else {}))
        assert status == 200
        assert sum(map(len, page[channel].values())) <= 50
        for symbol, elements in page[channel].items():
            rows[symbol] += elements
        token = page["next_page_token"]
    for symbol, elements in rows.items():
        expected = getattr(feed, channel)(symbol, start, now_ns + 1)
        assert len(elements) == len(expected) > 20, begin
        assert [element["t"] for element in elements] == sorted(element["t"] for element in elements)


def _rfc3339(at_ns: int) -> str:
    from alpacli.domain.ticks import instant_text

    return instant_text(at_ns)


@pytest.mark.parametrize("hours", ["always", "xnys"])
@pytest.mark.parametrize(("path", "symbol"), [("/v2/stocks", "AAPL"), ("/v1beta3/crypto/us", "BTC/USD")])
def test_a_snapshot_has_the_last_two_bars_of_a_day(
    exchange: Exchange, path: str, symbol: str, hours: Literal["always", "xnys"]
) -> None:
    """Whoever compares today with the day before compares what the bars say: of coins days of UTC, weekends among them."""
    exchange.reset(rate_limit=0, hours=hours)
    status, body = get(exchange, f"{path}/snapshots", symbols=f"{symbol},{'XYZ/USD' if '/' in symbol else 'NOPE'}")
    assert status == 200
    found = body.get("snapshots", body)
    assert list(found) == [symbol]
    days = [found[symbol]["prevDailyBar"], found[symbol]["dailyBar"]]
    start = _rfc3339(exchange.now_ns() - 4 * 86_400 * 10**9)
    bars = pages(exchange, f"{path}/bars", "bars", symbols=symbol, start=start, timeframe="1Day")[symbol]
    assert [day for day in days if day is not None] == bars[-sum(day is not None for day in days) :]
    if "/" not in symbol:
        assert days[0]["c"] == float(exchange.market().tape.previous_close(symbol, exchange.now_ns()))


@pytest.mark.parametrize(
    ("path", "query", "words"),
    [
        ("/v2/stocks/bars", {"timeframe": "61Min"}, "timeframe"),
        ("/v2/stocks/bars", {"timeframe": "5Month"}, "timeframe"),
        ("/v2/stocks/bars", {"timeframe": "soon"}, "timeframe"),
        ("/v2/stocks/bars", {"page_token": "x|y"}, "page_token"),
        ("/v2/stocks/trades", {"start": "soon"}, "start"),
        ("/v2/stocks/trades", {"start": "2026-01-02", "end": "2026-01-01"}, "end"),
        ("/v2/stocks/trades", {"limit": "10001"}, "maximum of 10000"),
        ("/v2/stocks/trades", {"limit": "0"}, "limit"),
        ("/v2/stocks/trades", {"sort": "sideways"}, "sort"),
        ("/v2/stocks/trades", {"symbols": ""}, "symbols"),
        ("/v2/stocks/trades", {"symbols": "BTC USD"}, "symbol"),
        ("/v1beta3/crypto/us/bars", {"symbols": "BTCUSD"}, "crypto symbols must match"),
        ("/v1beta1/news", {"limit": "51"}, "maximum of 50"),
    ],
)
def test_what_it_cannot_make_sense_of_is_400(exchange: Exchange, path: str, query: dict[str, str], words: str) -> None:
    status, body = get(exchange, path, **{"symbols": "AAPL", **query})
    assert status == 400
    assert words in body["message"]


def pages(exchange: Exchange, path: str, channel: str, **query: str) -> dict[str, list[dict[str, Any]]]:
    """Read all pages and put them together."""
    rows: dict[str, list[dict[str, Any]]] = {}
    token: str | None = ""
    while token is not None:
        status, page = get(exchange, path, **query, **({"page_token": token} if token else {}))
        assert status == 200, page
        for symbol, elements in page[channel].items():
            rows.setdefault(symbol, []).extend(elements)
        token = page["next_page_token"]
    return rows


@pytest.mark.parametrize("channel", ["trades", "quotes", "bars"])
@pytest.mark.parametrize(("base", "symbols"), [("/v2/stocks", "AAPL,MSFT"), ("/v1beta3/crypto/us", "BTC/USD,ETH/USD")])
def test_backward_is_forward_reversed_whatever_the_pages(
    exchange: Exchange, base: str, symbols: str, channel: str
) -> None:
    minutes = 25 if channel == "bars" else 3
    start = _rfc3339(exchange.now_ns() - minutes * MINUTE_NS - 7)
    forward = pages(exchange, f"{base}/{channel}", channel, symbols=symbols, start=start)
    backward = pages(exchange, f"{base}/{channel}", channel, symbols=symbols, start=start, sort="desc", limit="17")
    assert list(forward) == list(backward) == symbols.split(",")
    assert {symbol: rows[::-1] for symbol, rows in backward.items()} == forward
    assert all(len(rows) >= 24 for rows in forward.values())


def test_a_page_that_costs_too_much_ends_early_and_the_next_goes_on(exchange: Exchange) -> None:
    start_ns = exchange.now_ns() // MINUTE_NS * MINUTE_NS - 25_000 * MINUTE_NS
    query = {"symbols": "AAPL", "start": _rfc3339(start_ns), "timeframe": "50Min", "limit": "10000"}
    status, page = get(exchange, "/v2/stocks/bars", **query)
    assert status == 200
    assert 0 < len(page["bars"]["AAPL"]) < 490
    status, rest = get(exchange, "/v2/stocks/bars", **query, page_token=page["next_page_token"])
    times = [bar["t"] for bar in page["bars"]["AAPL"] + rest["bars"]["AAPL"]]
    assert len(times) == len(set(times)) > 490
    assert rest["next_page_token"] is None


def test_minutes_that_are_not_over_have_no_bar_yet(exchange: Exchange) -> None:
    now_ns = exchange.now_ns() // MINUTE_NS * MINUTE_NS
    found = pages(exchange, "/v2/stocks/bars", "bars", symbols="AAPL", start=_rfc3339(now_ns - 3 * MINUTE_NS))
    assert [bar["t"] for bar in found["AAPL"]] == [_short(now_ns - n * MINUTE_NS) for n in (3, 2, 1)]
    five = pages(
        exchange, "/v2/stocks/bars", "bars", symbols="AAPL", start=_rfc3339(now_ns - 20 * MINUTE_NS), timeframe="5Min"
    )
    assert all(bar["t"][14:16] in {f"{minute:02d}" for minute in range(0, 60, 5)} for bar in five["AAPL"])
    assert 3 <= len(five["AAPL"]) <= 4


@pytest.mark.parametrize("hours", ["always", "xnys"])
@pytest.mark.parametrize("timeframe", ["1Hour", "4H", "1Day", "1W", "1Month", "3M"])
def test_long_bars_join_and_hold_what_lies_in_them(exchange: Exchange, hours: Any, timeframe: str) -> None:
    exchange.reset(rate_limit=0, hours=hours)
    days = 3 if timeframe.endswith(("Hour", "H")) else 140 if timeframe == "1Day" else 300
    start = _rfc3339(exchange.now_ns() - days * DAY_NS)
    query = {"symbols": "AAPL", "start": start, "timeframe": timeframe}
    bars = pages(exchange, "/v2/stocks/bars", "bars", **query)["AAPL"]
    assert pages(exchange, "/v2/stocks/bars", "bars", **query, limit="50", sort="desc")["AAPL"] == bars[::-1]
    assert [bar["t"] for bar in bars] == sorted({bar["t"] for bar in bars})
    assert all(bar["l"] <= min(bar["o"], bar["c"]) <= max(bar["o"], bar["c"]) <= bar["h"] for bar in bars)
    assert all(bar["v"] > 0 and bar["l"] <= bar["vw"] <= bar["h"] for bar in bars)
    if hours == "always":  # a close is the last trade before, an open the first trade after
        assert all(abs(bar["c"] - following["o"]) < bar["c"] / 1000 for bar, following in pairwise(bars))
    if timeframe == "1Day":
        assert len(bars) == 140 if hours == "always" else 90 < len(bars) < 100
        assert all(bar["t"][11:] in ("04:00:00Z", "05:00:00Z") for bar in bars)


@pytest.mark.parametrize("hours", ["always", "xnys"])
@pytest.mark.parametrize(("base", "symbol"), [("/v2/stocks", "AAPL"), ("/v1beta3/crypto/us", "ETH/USD")])
def test_minutes_resampled_are_the_bars_of_every_length(exchange: Exchange, hours: Any, base: str, symbol: str) -> None:
    """To the last share and cent; the day under way has the trades of the minute under way, too."""
    exchange.reset(rate_limit=0, hours=hours)
    now_ns = exchange.now_ns()
    first_ns = now_ns // DAY_NS * DAY_NS - (DAY_NS if "/" in symbol else DAY_NS - 4 * 60 * MINUTE_NS)  # in summer
    query = {"symbols": symbol, "start": _rfc3339(first_ns)}
    minutes = pages(exchange, f"{base}/bars", "bars", **query, timeframe="1Min")[symbol]
    under_way = exchange.market().feed.bar_as_of(symbol, now_ns // MINUTE_NS * MINUTE_NS, now_ns, now_ns)
    if under_way is not None:
        numbers = {name: float(str(under_way[name])) for name in "ohlcvn"}
        minutes.append({**numbers, "t": _short(now_ns // MINUTE_NS * MINUTE_NS)})
    for timeframe in ("7Min", "1Hour", "4Hour", "1Day"):
        bars = pages(exchange, f"{base}/bars", "bars", **query, timeframe=timeframe)[symbol]
        edges = [*(bar["t"] for bar in bars), "9"]
        for bar, end in zip(bars, edges[1:], strict=True):
            if timeframe == "7Min" and end == "9":
                continue  # it has ended, and what comes after it has not
            inside = [minute for minute in minutes if bar["t"] <= minute["t"] < end]
            if timeframe == "1Day" and hours == "xnys" and symbol == "AAPL":  # a day's bar is that of its session
                inside = [minute for minute in inside if "13:30" <= minute["t"][11:16] < "20:00"]
            assert (bar["o"], bar["c"], bar["n"]) == (inside[0]["o"], inside[-1]["c"], sum(row["n"] for row in inside))
            assert (bar["h"], bar["l"]) == (max(row["h"] for row in inside), min(row["l"] for row in inside))
            assert bar["v"] == pytest.approx(sum(row["v"] for row in inside), abs=1e-9, rel=1e-12)


def test_what_is_told_before_and_after_the_session_is_what_orders_are_filled_at(tmp_path: Path) -> None:
    early = datetime(2026, 5, 29, 8, 30, tzinfo=UTC).timestamp()  # half past four in New York
    for hours_later in (0.0, 14.25):
        clock = ManualClock(early + hours_later * 3600)
        with closing(Exchange(str(tmp_path), clock)) as exchange:
            exchange.reset(rate_limit=0, hours="xnys")
            market, now_ns = exchange.market(), exchange.now_ns()
            since = _rfc3339(now_ns - 10 * MINUTE_NS)
            trades = pages(exchange, "/v2/stocks/trades", "trades", symbols="AAPL", start=since)["AAPL"]
            assert len(trades) > 100
            assert {trade["c"][1] for trade in trades} <= {"T", "U"}
            _, quoted = get(exchange, "/v2/stocks/quotes/latest", symbols="AAPL")
            quote = quoted["quotes"]["AAPL"]
            nbbo = market.tape.nbbo("AAPL", Timestamp.parse(quote["t"]).epoch_ns)
            assert (quote["bp"], quote["ap"]) == (float(nbbo.bid), float(nbbo.ask))
            assert now_ns - Timestamp.parse(quote["t"]).epoch_ns < 5 * 10**9
            hour = {"start": _rfc3339(now_ns - 120 * MINUTE_NS), "timeframe": "1Hour"}
            (bar, *_) = pages(exchange, "/v2/stocks/bars", "bars", symbols="AAPL", **hour)["AAPL"]
            assert bar["n"] > 100
            assert not market.feed.bands("AAPL", now_ns - 10 * MINUTE_NS, now_ns)  # there are none outside the session


def test_a_bar_is_the_latest_until_there_is_another(tmp_path: Path) -> None:
    """In the first minute of a day that is the last one of the day before; in a halt the one in which trading stopped."""
    opening = datetime(2026, 6, 1, 8, 0, 30, tzinfo=UTC).timestamp()
    with closing(Exchange(str(tmp_path), ManualClock(opening))) as exchange:
        exchange.reset(rate_limit=0, hours="xnys")
        _, body = get(exchange, "/v2/stocks/bars/latest", symbols="AAPL")
        assert body["bars"]["AAPL"]["t"] == "2026-05-29T23:59:00Z"
        hours = exchange.market().hours
        halt = next(halts(hours, "MSFT", exchange.now_ns(), exchange.now_ns() + 700 * DAY_NS))
    stopped, resumed = halt.from_ns // MINUTE_NS, halt.until_ns // MINUTE_NS
    for moment_ns, minute in (
        ((stopped + 3) * MINUTE_NS, stopped),
        (halt.until_ns, stopped),
        ((resumed + 1) * MINUTE_NS, resumed),
        ((resumed + 2) * MINUTE_NS, resumed + 1),
    ):
        with closing(Exchange(str(tmp_path), ManualClock((moment_ns + 10**6) / 1e9))) as exchange:
            _, body = get(exchange, "/v2/stocks/bars/latest", symbols="MSFT")
            assert body["bars"]["MSFT"]["t"] == _short(minute * MINUTE_NS)


def test_all_weekend_the_latest_is_what_has_become_of_it_since(tmp_path: Path) -> None:
    """Late reports and cancellations of the last minute come when it is over."""
    friday = "2026-05-29T23:59:00Z"
    with closing(Exchange(str(tmp_path), ManualClock(datetime(2026, 5, 31, 15, tzinfo=UTC).timestamp()))) as exchange:
        exchange.reset(rate_limit=0, hours="xnys")
        symbols = sorted(exchange.market().feed.symbols(crypto=False))
        query = {"symbols": ",".join(symbols), "start": friday, "end": friday}
        _, bars = get(exchange, "/v2/stocks/bars", **query, timeframe="1Min", limit="1000")
        _, latest = get(exchange, "/v2/stocks/bars/latest", symbols=",".join(symbols))
        assert {symbol: [bar] for symbol, bar in latest["bars"].items()} == bars["bars"]
        assert len(bars["bars"]) == len(symbols)


def test_while_the_market_is_shut_the_latest_is_the_last_before_it_closed(tmp_path: Path) -> None:
    sunday = datetime(2026, 5, 31, 15, tzinfo=UTC).timestamp()
    with closing(Exchange(str(tmp_path), ManualClock(sunday))) as exchange:
        exchange.reset(rate_limit=0, hours="xnys")
        for channel in ("trades", "quotes", "bars"):
            status, body = get(exchange, f"/v2/stocks/{channel}/latest", symbols="AAPL,NOPE")
            assert status == 200
            assert list(body[channel]) == ["AAPL"]
            assert body[channel]["AAPL"]["t"].startswith("2026-05-29T23:59")  # 20:00 in New York
            assert get(exchange, f"/v2/stocks/AAPL/{channel}/latest")[1] == {
                "symbol": "AAPL",
                channel.removesuffix("s"): body[channel]["AAPL"],
            }
        day = pages(exchange, "/v2/stocks/trades", "trades", symbols="AAPL", start="2026-05-30", end="2026-05-31")
    assert day == {}


def test_one_symbol_in_the_path(exchange: Exchange) -> None:
    start = _rfc3339(exchange.now_ns() - 5 * MINUTE_NS)
    many = get(exchange, "/v2/stocks/bars", symbols="AAPL", start=start)[1]
    one = get(exchange, "/v2/stocks/AAPL/bars", start=start)[1]
    assert one == {"bars": many["bars"]["AAPL"], "symbol": "AAPL", "next_page_token": None}
    snapshot = get(exchange, "/v2/stocks/AAPL/snapshot")[1]
    assert snapshot == {"symbol": "AAPL", **get(exchange, "/v2/stocks/snapshots", symbols="AAPL")[1]["AAPL"]}
    assert snapshot["dailyBar"]["l"] <= snapshot["latestTrade"]["p"] <= snapshot["dailyBar"]["h"]
    assert get(exchange, "/v2/stocks/NOPE/snapshot")[0] == 404
    assert get(exchange, "/v2/stocks/NOPE/trades/latest")[0] == 404
    assert get(exchange, "/v2/stocks/NOPE/trades")[1] == {"trades": [], "symbol": "NOPE", "next_page_token": None}


def test_books_of_coins(exchange: Exchange) -> None:
    book = get(exchange, "/v1beta3/crypto/us/latest/orderbooks", symbols="BTC/USD")[1]["orderbooks"]["BTC/USD"]
    assert book.keys() == {"a", "b", "t"}
    assert max(level["p"] for level in book["b"]) < min(level["p"] for level in book["a"])


def test_articles_are_those_that_were_streamed(exchange: Exchange) -> None:
    now_ns = exchange.now_ns()
    market = exchange.market()
    streamed = market.feed.news(now_ns - 3600 * 10**9, now_ns + 1)
    found: list[dict[str, Any]] = []
    token: str | None = ""
    while token is not None:
        page = get(exchange, "/v1beta1/news", start=_rfc3339(now_ns - 3600 * 10**9), limit="50", page_token=token)[1]
        found += page["news"]
        token = page["next_page_token"]
    assert [item["id"] for item in found] == [item["id"] for item in reversed(streamed)]
    assert 119 <= len(found) <= 122
    about = found[0]["symbols"][0]
    some = get(exchange, "/v1beta1/news", symbols=about, sort="asc", start=_rfc3339(now_ns - 3600 * 10**9))[1]["news"]
    assert some
    assert all(about in item["symbols"] for item in some)


def _short(at_ns: int) -> str:
    return f"{_rfc3339(at_ns)[:19]}Z"


def test_rows_that_share_their_time_are_on_some_page_each(exchange: Exchange) -> None:
    """A corrected trade and what it was corrected to: whatever the size of the page, and from either end."""
    feed = exchange.market().feed
    now_ns = exchange.now_ns()
    at_ns = feed.corrections("AAPL", now_ns - 4 * 60 * MINUTE_NS, now_ns)[0]["t"]
    assert isinstance(at_ns, int)
    query = {"symbols": "AAPL", "start": _rfc3339(at_ns - MINUTE_NS), "end": _rfc3339(at_ns)}
    _, page = get(exchange, "/v2/stocks/trades", **query)
    whole = page["trades"]["AAPL"]
    assert {"incorrect", "corrected"} <= {row.get("u") for row in whole}
    assert len({row["t"] for row in whole}) < len(whole)
    for sort in ("asc", "desc"):
        for limit in ("1", "2", "3"):
            rows: list[Any] = []
            token: Any = ""
            while token is not None:
                paging = {"page_token": token} if token else {}
                _, page = get(exchange, "/v2/stocks/trades", **query, limit=limit, sort=sort, **paging)
                rows += page["trades"].get("AAPL", [])
                token = page["next_page_token"]
            assert rows == (whole if sort == "asc" else whole[::-1])


def test_the_latest_trade_is_one_that_counts_and_in_a_halt_the_last_before_it(
    exchange: Exchange, clock: ManualClock
) -> None:
    market = exchange.market()
    feed, now_ns = market.feed, exchange.now_ns()
    halt = next(halts(market.hours, "AAPL", now_ns, now_ns + 400 * DAY_NS))
    cancel = feed.cancels("AAPL", now_ns, now_ns + 4 * 60 * MINUTE_NS)[0]
    for at_ns in (int(str(cancel["t"])) + 1, halt.quoting_ns + MINUTE_NS, halt.until_ns):  # then nothing has traded yet
        clock.advance(at_ns / 1e9 + 1e-6 - clock.time())
        _, answer = get(exchange, "/v2/stocks/trades/latest", symbols="AAPL")
        trade = answer["trades"]["AAPL"]
        assert trade["i"] != cancel["i"]
        assert trade.get("u") in (None, "corrected")
        told = feed.told("AAPL", halt.from_ns - MINUTE_NS, halt.until_ns)
        assert at_ns < halt.from_ns or trade["i"] in [known["i"] for known in told]
    _, answer = get(exchange, "/v2/stocks/quotes/latest", symbols="AAPL")
    assert answer["quotes"]["AAPL"]["t"] > _rfc3339(halt.quoting_ns)


@pytest.mark.parametrize("at", ["1970-01-01T12:00:00", "2030-01-03T15:00:00", "2099-12-31T15:00:00"])
@pytest.mark.parametrize("hours", ["always", "xnys"])
def test_the_exchange_answers_for_any_time_that_it_can_be_set_to(
    tmp_path: Path, at: str, hours: Literal["always", "xnys"]
) -> None:
    with closing(Exchange(str(tmp_path), ManualClock(datetime.fromisoformat(f"{at}+00:00").timestamp()))) as exchange:
        exchange.reset(rate_limit=0, hours=hours)
        for path, symbols in (("/v2/stocks", "AAPL,FAKEPACA"), ("/v1beta3/crypto/us", "BTC/USD")):
            assert get(exchange, f"{path}/snapshots", symbols=symbols)[0] == 200
            assert get(exchange, f"{path}/bars", symbols=symbols, timeframe="1Day", sort="desc", limit="2")[0] == 200
