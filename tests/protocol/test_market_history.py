"""The official SDK's data clients and alpacli read the same history from ``sim serve``, which is what its sockets sent."""

import asyncio
import datetime as dt
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from alpaca.data.historical.corporate_actions import CorporateActionsClient
from alpaca.data.historical.crypto import CryptoHistoricalDataClient
from alpaca.data.historical.news import NewsClient
from alpaca.data.historical.option import OptionHistoricalDataClient
from alpaca.data.historical.stock import StockHistoricalDataClient
from alpaca.data.requests import (
    CorporateActionsRequest,
    CryptoBarsRequest,
    CryptoQuoteRequest,
    CryptoTradesRequest,
    NewsRequest,
    OptionBarsRequest,
    OptionChainRequest,
    OptionTradesRequest,
    StockBarsRequest,
    StockQuotesRequest,
    StockSnapshotRequest,
    StockTradesRequest,
)
from alpaca.data.timeframe import TimeFrame, TimeFrameUnit
from tests.support.alpacli import Alpacli
from tests.support.sim_server import Client, SimServer

from alpacli.broker.client import AlpacaClient
from alpacli.domain.series import Series, Span
from alpacli.domain.values import Timestamp
from alpacli.runtime import open_async_client, open_client
from alpacli.settings import Flags, Settings, load
from alpacli.wire.columns import page

HOUR = dt.timedelta(hours=1)
FINAL_NS = 30 * 10**9  # after this, the exchange tells of no late trade any more
STEPS = {
    "1Min": (TimeFrame(1, TimeFrameUnit.Minute), HOUR / 2),
    "7Min": (TimeFrame(7, TimeFrameUnit.Minute), HOUR),
    "1Hour": (TimeFrame(1, TimeFrameUnit.Hour), 9 * HOUR),
    "4Hour": (TimeFrame(4, TimeFrameUnit.Hour), 40 * HOUR),
    "1Day": (TimeFrame(1, TimeFrameUnit.Day), 5 * 24 * HOUR),
    "1Week": (TimeFrame(1, TimeFrameUnit.Week), 20 * 24 * HOUR),
    "1Month": (TimeFrame(1, TimeFrameUnit.Month), 65 * 24 * HOUR),
    "3Month": (TimeFrame(3, TimeFrameUnit.Month), 190 * 24 * HOUR),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimServer]:
    with SimServer(tmp_path_factory.mktemp("exchange")) as running:
        yield running


@pytest.fixture
def settings(server: SimServer, tmp_path: Path) -> Settings:
    return load(Flags(), env=environment(server, tmp_path), cwd=None)


@pytest.fixture
def client(settings: Settings) -> Iterator[AlpacaClient]:
    with open_client(settings) as made:
        yield made


def environment(server: SimServer, folder: Path) -> dict[str, str]:
    return {
        "ALPACA_API_KEY": "PKHISTORY",
        "ALPACA_SECRET_KEY": "secret",
        "ALPACA_BASE_URL": server.url,
        "ALPACA_DATA_URL": server.url,
        "ALPACLI_STATE_DIR": str(folder / "state"),
        "ALPACLI_CONFIG_DIR": str(folder / "config"),
    }


def sdk(made: Any, method: str, request: Any) -> Any:
    try:
        return getattr(made, method)(request)
    finally:
        made._session.close()


def stocks(server: SimServer) -> StockHistoricalDataClient:
    return StockHistoricalDataClient("PKHISTORY", "secret", url_override=server.url)


def coins(server: SimServer) -> CryptoHistoricalDataClient:
    return CryptoHistoricalDataClient("PKHISTORY", "secret", url_override=server.url)


def period(step: str) -> tuple[dt.datetime, dt.datetime]:
    end = dt.datetime.now(dt.UTC).replace(microsecond=0) - HOUR / 2
    return end - STEPS[step][1], end


@pytest.mark.parametrize("step", STEPS)
def test_the_sdk_reads_the_same_bars_of_stocks(server: SimServer, client: AlpacaClient, step: str) -> None:
    start, end = period(step)
    names = ["MSFT", "AAPL"] if step == "1Min" else ["AAPL"]
    request = StockBarsRequest(symbol_or_symbols=names, timeframe=STEPS[step][0], start=start, end=end)
    theirs = sdk(stocks(server), "get_stock_bars", request).data
    ours = [
        row for batch in client.market_data.bars(names, start=start, end=end, timeframe=step) for row in batch.rows()
    ]
    assert len(ours) >= 2
    assert finished(ours) == finished([row.__dict__ for name in names for row in theirs[name]])


@pytest.mark.parametrize("step", ["1Min", "1Hour", "1Day"])
def test_the_sdk_reads_the_same_bars_of_crypto(server: SimServer, client: AlpacaClient, step: str) -> None:
    start, end = period(step)
    request = CryptoBarsRequest(symbol_or_symbols=["BTC/USD"], timeframe=STEPS[step][0], start=start, end=end)
    theirs = sdk(coins(server), "get_crypto_bars", request).data["BTC/USD"]
    ours = [
        row
        for batch in client.market_data.bars("BTC/USD", start=start, end=end, timeframe=step)
        for row in batch.rows()
    ]
    assert len(ours) >= 2
    assert finished(ours) == finished([row.__dict__ for row in theirs])


def finished(rows: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """Return the bars but for the last one, which is still being made."""
    return [values(row) for row in rows[:-1]]


def values(row: Mapping[str, Any]) -> list[Any]:
    """Return a bar as the SDK has it: names, an instant, and doubles."""
    at = row["timestamp"] if isinstance(row["timestamp"], dt.datetime) else dt.datetime.fromisoformat(row["timestamp"])
    numbers = ("open", "high", "low", "close", "volume", "trade_count", "vwap")
    return [row["symbol"], at, *(float(row[name]) for name in numbers)]


def test_the_sdk_reads_the_same_trades_and_quotes(server: SimServer, client: AlpacaClient) -> None:
    end = dt.datetime.now(dt.UTC).replace(microsecond=0) - dt.timedelta(minutes=30)
    start = end - dt.timedelta(minutes=2)
    data = client.market_data
    theirs = sdk(
        stocks(server), "get_stock_trades", StockTradesRequest(symbol_or_symbols="AAPL", start=start, end=end)
    ).data["AAPL"]
    ours = [row for batch in data.trades("AAPL", start=start, end=end) for row in batch.rows()]
    assert [(row["id"], float(row["price"]), float(row["size"]), row["conditions"]) for row in ours] == [
        (row.id, row.price, row.size, row.conditions) for row in theirs
    ]
    quotes = sdk(
        stocks(server), "get_stock_quotes", StockQuotesRequest(symbol_or_symbols="AAPL", start=start, end=end)
    ).data["AAPL"]
    found = [row for batch in data.quotes("AAPL", start=start, end=end) for row in batch.rows()]
    assert [(float(row["bid_price"]), float(row["ask_price"])) for row in found] == [
        (row.bid_price, row.ask_price) for row in quotes
    ]
    for method, request, kind in (
        ("get_crypto_trades", CryptoTradesRequest, "trades"),
        ("get_crypto_quotes", CryptoQuoteRequest, "quotes"),
    ):
        rows = sdk(coins(server), method, request(symbol_or_symbols="BTC/USD", start=start, end=end)).data["BTC/USD"]
        assert len(rows) == getattr(data, kind)("BTC/USD", start=start, end=end).to_arrow().num_rows > 10


def test_the_sdk_reads_the_same_bars_trades_and_prices_of_options(server: SimServer, client: AlpacaClient) -> None:
    options = OptionHistoricalDataClient("PKHISTORY", "secret", url_override=server.url)
    end = dt.datetime.now(dt.UTC).replace(microsecond=0) - dt.timedelta(minutes=30)
    start = end - 2 * HOUR
    symbol, prices = max(
        sdk(options, "get_option_chain", OptionChainRequest(underlying_symbol="AAPL")).items(),
        key=lambda pair: pair[1].latest_trade.timestamp if pair[1].latest_trade else start,
    )
    request = OptionBarsRequest(symbol_or_symbols=symbol, timeframe=TimeFrame.Minute, start=start, end=end)
    theirs = sdk(options, "get_option_bars", request).data[symbol]
    found = client.market_data.bars(symbol, start=start, end=end)
    assert "OPRA" in found.notes[0]
    assert finished([row for batch in found for row in batch.rows()]) == finished([row.__dict__ for row in theirs])
    trades = sdk(options, "get_option_trades", OptionTradesRequest(symbol_or_symbols=symbol, start=start, end=end))
    ours = [row for batch in client.market_data.trades(symbol, start=start, end=end) for row in batch.rows()]
    assert [(float(row["price"]), float(row["size"]), row["exchange"]) for row in ours] == [
        (row.price, row.size, row.exchange) for row in trades.data[symbol]
    ]
    assert len(ours) > 2
    (latest,) = client.get_snapshots([symbol])
    assert latest.latest_quote is not None
    assert prices.latest_quote is not None
    assert float(latest.latest_quote["bp"]) > 0


def test_the_command_prints_the_bars_that_the_sdk_reads_digit_for_digit(server: SimServer, tmp_path: Path) -> None:
    start, end = period("1Min")
    theirs = sdk(
        stocks(server),
        "get_stock_bars",
        StockBarsRequest(symbol_or_symbols="AAPL", timeframe=STEPS["1Min"][0], start=start, end=end),
    ).data["AAPL"]
    alpacli = Alpacli(tmp_path, environment(server, tmp_path))
    arguments = ("bars", "AAPL", "--start", start.isoformat(), "--end", end.isoformat(), "--json")
    first, again = alpacli(*arguments), alpacli(*arguments)
    assert first.code == 0, first.errors
    assert "sip" in first.errors
    assert first.out == again.out
    assert [(row["timestamp"], row["open"], row["volume"], row["vwap"]) for row in json.loads(first.out)] == [
        (row.timestamp.isoformat().replace("+00:00", "Z"), row.open, row.volume, row.vwap) for row in theirs
    ]


def test_what_the_socket_sends_is_what_history_has_afterwards(tmp_path: Path) -> None:
    """Sixty seconds of the exchange in one: the trades of the stream, late ones among them, are those of history."""
    with (
        SimServer(tmp_path / "fast", speed=60) as server,
        open_client(load(Flags(), env=environment(server, tmp_path), cwd=None)) as client,
    ):

        async def listen() -> tuple[Span, list[tuple[int, int]]]:
            async with Client(server, "/v2/iex") as socket:
                await socket.log_in()
                await socket.ask(action="subscribe", trades=["AAPL"])
                heard: list[tuple[int, int]] = []
                while len(heard) < 4 or heard[-1][0] < max(heard[:3])[0] + 2 * FINAL_NS:
                    told = [item for item in await socket.hear() if item["T"] == "t"]
                    heard += [(Timestamp.parse(item["t"]).epoch_ns, item["i"]) for item in told]
                begin_ns = max(heard[:3])[0]  # the first of all may be a late one
                return (begin_ns, begin_ns + FINAL_NS), heard

        span, heard = asyncio.run(listen())
        tables = client.fetch(page(Series("trades", "stocks", "iex"), ["AAPL"], span)).tables
        rows = [row for _, table in tables for row in _rows(table) if row["update"] != "corrected"]
        found = [(Timestamp.parse(row["timestamp"]).epoch_ns, row["id"]) for row in rows]
        assert len(found) > 10
        assert sorted(trade for trade in heard if span[0] <= trade[0] < span[1]) == found


def _rows(table: Any) -> Any:
    from alpacli.domain.batches import Batch

    return Batch("trades", "AAPL", table).rows()


def test_the_sdk_reads_snapshots_news_and_corporate_actions(server: SimServer, client: AlpacaClient) -> None:
    theirs = sdk(stocks(server), "get_stock_snapshot", StockSnapshotRequest(symbol_or_symbols=["AAPL"]))["AAPL"]
    (ours,) = client.get_snapshots(["AAPL"])
    assert ours.prev_daily_bar is not None
    assert float(ours.prev_daily_bar["c"]) == theirs.previous_daily_bar.close
    news = NewsClient("PKHISTORY", "secret", url_override=server.url)
    start = dt.datetime.now(dt.UTC) - dt.timedelta(hours=3)
    end = start + dt.timedelta(hours=2)
    articles = sdk(news, "get_news", NewsRequest(start=start, end=end, limit=70)).data["news"]
    assert [article.id for article in client.get_news(start=start, end=end, limit=70)] == [
        article.id for article in articles
    ]
    actions = CorporateActionsClient("PKHISTORY", "secret", url_override=server.url)
    assert sdk(actions, "get_corporate_actions", CorporateActionsRequest(symbols=["AAPL"])).data == {}


def test_the_async_client_reads_the_same_history(settings: Settings, client: AlpacaClient) -> None:
    start, end = period("1Min")
    ours = client.market_data.bars("AAPL", start=start, end=end, feed="iex").to_arrow()

    async def read() -> Any:
        async with open_async_client(settings) as other:
            batches = await other.market_data.bars("AAPL", start=start, end=end, feed="sip")
            return batches.notes, [batch async for batch in batches], await batches.to_arrow()

    notes, parts, whole = asyncio.run(read())
    assert "sip" in notes[0]
    assert sum(len(part) for part in parts) == whole.num_rows
    assert whole.equals(ours.combine_chunks())
    frame = client.market_data.bars("AAPL", start=start, end=end, feed="sip").to_polars()
    assert frame.height == whole.num_rows
