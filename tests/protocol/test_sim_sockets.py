"""The exchange's sockets as clients see them: a real server, on a clock that runs thirty times as fast."""

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import msgpack
import pytest
from alpaca.data.enums import DataFeed
from alpaca.data.historical import CryptoHistoricalDataClient, OptionHistoricalDataClient, StockHistoricalDataClient
from alpaca.data.live import CryptoDataStream, NewsDataStream, OptionDataStream, StockDataStream
from alpaca.data.requests import (
    CryptoLatestOrderbookRequest,
    OptionBarsRequest,
    OptionChainRequest,
    OptionLatestQuoteRequest,
    OptionLatestTradeRequest,
    OptionSnapshotRequest,
    OptionTradesRequest,
    StockBarsRequest,
    StockLatestQuoteRequest,
    StockSnapshotRequest,
    StockTradesRequest,
)
from alpaca.data.timeframe import TimeFrame, TimeFrameUnit
from alpaca.trading.stream import TradingStream
from tests.support.sim_server import Client, SimServer
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from alpacli.sim.halts import halts
from alpacli.sim.hours import AlwaysOpen
from alpacli.sim.listing import LISTINGS
from alpacli.sim.orders import amend, enter, fill_order, new_order
from alpacli.sim.sockets import Limits

SPEED = 30.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimServer]:
    with SimServer(tmp_path_factory.mktemp("sim"), speed=SPEED) as running:
        yield running


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimServer]:
    """A server with Alpaca's free plan's limits."""
    limits = Limits(connections=1, symbols=30)
    with SimServer(tmp_path_factory.mktemp("strict"), speed=SPEED, limits=limits) as running:
        yield running


@pytest.fixture(autouse=True)
def no_complaints(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever clients do, the server has nothing to report."""
    loggers = [logging.getLogger("uvicorn"), logging.getLogger("alpacli")]
    for logger in loggers:  # uvicorn's does not pass on what it gets
        logger.addHandler(caplog.handler)
    yield
    for logger in loggers:
        logger.removeHandler(caplog.handler)
    records = [*caplog.get_records("call"), *caplog.records]
    assert [record.getMessage() for record in records if record.levelno >= logging.WARNING] == []


def run(conversation: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await conversation

    asyncio.run(bounded())


def trade(server: SimServer, symbol: str, qty: str, *, key: str = "PK", secret: str = "s") -> str:
    """Enter an order of an account and fill it in two parts."""
    with server.exchange.desk(server.exchange.account_number(key, secret), changes=True) as desk:
        whole = Decimal(qty)
        order_id = enter(desk, new_order(symbol, "buy", "market", "day", desk.now_ns, whole))
        for part in (whole / 4, whole * 3 / 4):
            fill_order(desk, order_id, part, desk.market.tape.quote(symbol, desk.now_ns).ask, desk.now_ns)
    return order_id


# ------------------------------------------------------------------------------------------ the official SDK


def finish(stream: Any, meanwhile: Callable[[], object] = lambda: None) -> None:
    """Run a stream of the SDK until its own handler stops it."""
    thread = threading.Thread(target=stream.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 15
    while thread.is_alive() and time.monotonic() < deadline:
        meanwhile()
        thread.join(0.1)
    assert not thread.is_alive()


def test_the_sdk_streams_stocks(server: SimServer) -> None:
    stream = StockDataStream("PKSDK", "s", url_override=f"{server.ws}/v2/iex")
    seen: dict[str, list[Any]] = {}

    async def collect(tick: Any) -> None:
        seen.setdefault(type(tick).__name__, []).append(tick)
        if {"Trade", "Quote", "Bar"} <= seen.keys():
            await stream.stop_ws()

    stream.subscribe_trades(collect, "AAPL")
    stream.subscribe_quotes(collect, "MSFT", "NVDA")
    stream.subscribe_bars(collect, "*")
    finish(stream)
    assert {tick.symbol for tick in seen["Trade"]} == {"AAPL"}
    assert {tick.symbol for tick in seen["Quote"]} <= {"MSFT", "NVDA"}
    assert all(bar.low <= bar.vwap <= bar.high for bar in seen["Bar"])
    assert all(bar.timestamp.second == 0 for bar in seen["Bar"])


def test_the_sdk_hears_of_halts_corrections_cancels_and_updated_bars(tmp_path: Path) -> None:
    tomorrow_ns = (int(time.time()) // 86_400 + 1) * 86_400 * 10**9
    halt = min(
        (
            found
            for symbol in LISTINGS
            for found in halts(AlwaysOpen(), symbol, tomorrow_ns, tomorrow_ns + 30 * 86_400 * 10**9)
        ),
        key=lambda found: found.from_ns,
    )
    with SimServer(tmp_path, speed=60.0, begin=halt.from_ns / 1e9 - 60) as server:
        stream = StockDataStream("PKSDK", "s", url_override=f"{server.ws}/v2/iex")
        seen: dict[str, list[Any]] = {}

        async def collect(kind: str, tick: Any) -> None:
            seen.setdefault(kind, []).append(tick)
            if {"status", "correction", "cancel", "updated"} <= seen.keys():
                await stream.stop_ws()

        def collecting(kind: str) -> Callable[[Any], Coroutine[Any, Any, None]]:
            async def handler(tick: Any) -> None:
                await collect(kind, tick)

            return handler

        stream.subscribe_trading_statuses(collecting("status"), halt.symbol)
        stream.subscribe_trades(collecting("trade"), "*")
        stream.register_trade_corrections(collecting("correction"))
        stream.register_trade_cancels(collecting("cancel"))
        stream.subscribe_updated_bars(collecting("updated"), "*")
        finish(stream)
        data = StockHistoricalDataClient("PKSDK", "s", url_override=server.url)
        try:
            status, correction, cancel = seen["status"][0], seen["correction"][0], seen["cancel"][0]
            assert (status.symbol, status.status_code, status.reason_code) == (halt.symbol, "H", "T1")
            assert correction.original_id != correction.corrected_id
            assert cancel.action in ("C", "E")
            bar = seen["updated"][0]
            request = StockBarsRequest(
                symbol_or_symbols=bar.symbol, timeframe=TimeFrame.Minute, start=bar.timestamp, limit=1
            )
            bars: Any = data.get_stock_bars(request)
            assert bars[bar.symbol][0].volume == bar.volume
            before = timedelta(seconds=60)
            trades: Any = data.get_stock_trades(
                StockTradesRequest(symbol_or_symbols=cancel.symbol, start=cancel.timestamp - before, limit=200)
            )
            assert cancel.price in {trade.price for trade in trades[cancel.symbol] if trade.id == cancel.id}
        finally:
            data._session.close()


def test_the_sdk_streams_crypto_and_its_books(server: SimServer) -> None:
    stream = CryptoDataStream("PKSDK", "s", url_override=f"{server.ws}/v1beta3/crypto/us")
    seen: dict[str, Any] = {}

    async def collect(tick: Any) -> None:
        seen[type(tick).__name__] = tick
        if {"Trade", "Quote", "Orderbook", "Bar"} <= seen.keys():
            await stream.stop_ws()

    stream.subscribe_trades(collect, "BTC/USD")
    stream.subscribe_quotes(collect, "BTC/USD")
    stream.subscribe_daily_bars(collect, "BTC/USD")
    stream.subscribe_orderbooks(collect, "BTC/USD")
    finish(stream)
    assert seen["Orderbook"].bids[0].price < seen["Orderbook"].asks[0].price
    assert seen["Bar"].timestamp.hour == 0


def test_the_sdk_streams_news(server: SimServer) -> None:
    stream = NewsDataStream("PKSDK", "s", url_override=f"{server.ws}/v1beta1/news")
    seen: list[Any] = []

    async def collect(article: Any) -> None:
        seen.append(article)
        await stream.stop_ws()

    stream.subscribe_news(collect, "*")
    finish(stream)
    assert seen[0].headline
    assert seen[0].symbols


def test_the_sdk_streams_an_accounts_orders(server: SimServer) -> None:
    stream = TradingStream("PKSDKT", "s", url_override=f"{server.ws}/stream")
    seen: list[Any] = []

    async def collect(update: Any) -> None:
        seen.append(update)
        if str(update.event) == "fill" and len(seen) >= 6:
            await stream.stop_ws()

    stream.subscribe_trade_updates(collect)
    finish(stream, lambda: trade(server, "AAPL", "10", key="PKSDKT"))
    assert [str(update.event) for update in seen[:3]] == ["new", "partial_fill", "fill"]
    by_order: dict[object, list[str]] = {}
    for update in seen:
        by_order.setdefault(update.order.id, []).append(str(update.event))
    assert set(map(tuple, by_order.values())) == {("new", "partial_fill", "fill")}
    assert seen[1].order.filled_qty == "2.5"
    assert seen[1].qty == 2.5
    assert seen[2].position_qty - seen[1].position_qty == 7.5
    assert len({update.execution_id for update in seen}) == len(seen)


def test_the_sdk_streams_options(server: SimServer) -> None:
    """Trades of all that is near the money, quotes of two contracts; REST tells the same afterwards."""
    data = OptionHistoricalDataClient("PKSDK", "s", url_override=server.url)
    try:
        chain: Any = data.get_option_chain(OptionChainRequest(underlying_symbol="AAPL"))
        symbols = sorted(chain)[60:62]
        stream = OptionDataStream("PKSDK", "s", url_override=f"{server.ws}/v1beta1/indicative")
        seen: dict[str, list[Any]] = {}

        async def collect(tick: Any) -> None:
            seen.setdefault(type(tick).__name__, []).append(tick)
            if {"Trade", "Quote"} <= seen.keys() and len(seen["Quote"]) > 20:
                await stream.stop_ws()

        stream.subscribe_trades(collect, "*")
        stream.subscribe_quotes(collect, *symbols)
        finish(stream)
        assert {tick.symbol for tick in seen["Quote"]} == set(symbols)
        assert all(0 <= tick.bid_price < tick.ask_price for tick in seen["Quote"])
        trade = seen["Trade"][0]
        request = OptionTradesRequest(symbol_or_symbols=trade.symbol, start=trade.timestamp, limit=1)
        again: Any = data.get_option_trades(request)
        assert (again[trade.symbol][0].price, again[trade.symbol][0].size) == (trade.price, trade.size)
        assert chain[symbols[0]].implied_volatility > 0
        assert -1 <= chain[symbols[0]].greeks.delta <= 1
    finally:
        data._session.close()


def test_every_method_of_the_sdks_option_data(server: SimServer) -> None:
    data = OptionHistoricalDataClient("PKSDK", "s", url_override=server.url)
    called: set[str] = set()

    def call(method: str, *args: Any) -> Any:
        called.add(method)
        return getattr(data, method)(*args)

    try:
        soon = OptionChainRequest(
            underlying_symbol="SPY", expiration_date_lte=datetime.now(UTC).date() + timedelta(days=9)
        )
        symbol = sorted(call("get_option_chain", soon))[40]
        quote = call("get_option_latest_quote", OptionLatestQuoteRequest(symbol_or_symbols=symbol))[symbol]
        assert quote.bid_price < quote.ask_price
        assert call("get_option_latest_trade", OptionLatestTradeRequest(symbol_or_symbols=symbol))[symbol].price > 0
        assert call("get_option_snapshot", OptionSnapshotRequest(symbol_or_symbols=symbol))[symbol].latest_quote
        start = quote.timestamp - timedelta(hours=2)
        bars = call(
            "get_option_bars", OptionBarsRequest(symbol_or_symbols=symbol, timeframe=TimeFrame.Minute, start=start)
        )[symbol]
        trades = call("get_option_trades", OptionTradesRequest(symbol_or_symbols=symbol, start=start))[symbol]
        minute = [trade for trade in trades if trade.timestamp.replace(second=0, microsecond=0) == bars[1].timestamp]
        assert bars[1].volume == sum(trade.size for trade in minute)
        assert (bars[1].open, bars[1].close) == (minute[0].price, minute[-1].price)
        assert call("get_option_exchange_codes")["C"]
        public = {name for name in dir(OptionHistoricalDataClient) if not name.startswith("_")}
        assert public - called == {"get", "post", "put", "patch", "delete", "response_wrapper"}
    finally:
        data._session.close()


def test_the_sdk_reads_market_data(server: SimServer) -> None:
    start = datetime.now(UTC) - timedelta(days=5)
    stocks = StockHistoricalDataClient("PKSDK", "s", url_override=server.url)
    coins = CryptoHistoricalDataClient("PKSDK", "s", url_override=server.url)
    try:
        for timeframe in (TimeFrame.Minute, TimeFrame(5, TimeFrameUnit.Minute), TimeFrame.Hour, TimeFrame.Day):
            bars: Any = stocks.get_stock_bars(
                StockBarsRequest(symbol_or_symbols=["AAPL", "MSFT"], timeframe=timeframe, start=start, limit=30)
            )
            assert bars.data.keys() == ({"AAPL", "MSFT"} if timeframe.value == "1Day" else {"AAPL"})
        request = StockTradesRequest(symbol_or_symbols="AAPL", start=start, limit=25, feed=DataFeed.IEX)
        trades: Any = stocks.get_stock_trades(request)
        assert len(trades["AAPL"]) == 25
        quotes: Any = stocks.get_stock_latest_quote(StockLatestQuoteRequest(symbol_or_symbols=["AAPL"]))
        assert quotes["AAPL"].bid_price < quotes["AAPL"].ask_price
        snapshots: Any = stocks.get_stock_snapshot(StockSnapshotRequest(symbol_or_symbols="AAPL"))
        snapshot = snapshots["AAPL"]
        assert snapshot.daily_bar.low <= snapshot.latest_trade.price <= snapshot.daily_bar.high
        books: Any = coins.get_crypto_latest_orderbook(CryptoLatestOrderbookRequest(symbol_or_symbols="BTC/USD"))
        assert books["BTC/USD"].bids
    finally:
        stocks._session.close()
        coins._session.close()


# ---------------------------------------------------------------------------------------------- the protocol


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
@pytest.mark.parametrize(
    ("path", "channel", "symbol"),
    [
        ("/v2/iex", "trades", "AAPL"),
        ("/v2/sip", "quotes", "AAPL"),
        ("/v2/delayed_sip", "quotes", "*"),
        ("/v2/test", "trades", "FAKEPACA"),
        ("/v1beta3/crypto/us", "orderbooks", "ETH/USD"),
        ("/v1beta1/news", "news", "*"),
    ],
)
def test_every_endpoint_speaks_both_encodings(
    server: SimServer, path: str, channel: str, symbol: str, encoding: str
) -> None:
    async def conversation() -> None:
        async with Client(server, path, encoding=encoding) as client:
            assert await client.log_in() == {"T": "success", "msg": "authenticated"}
            confirmed = await client.ask(action="subscribe", **{channel: [symbol]})
            assert confirmed[channel] == [symbol]
            message = (await client.hear())[0]
            assert next(iter(message)) == "T"
            if symbol not in ("*", "FAKEPACA"):
                assert message["S"] == symbol
            assert (await client.ask(action="unsubscribe", **{channel: [symbol]}))[channel] == []
            at = message.get("t", message.get("created_at"))
            assert isinstance(at, str if encoding == "json" else int)

    run(conversation())


def test_compression_is_used_when_the_client_offers_it(server: SimServer) -> None:
    async def conversation() -> None:
        async with Client(server, "/v2/iex", compression="deflate") as client:
            assert client.socket.response is not None
            assert "permessage-deflate" in client.socket.response.headers["Sec-WebSocket-Extensions"]
            assert (await client.log_in())["msg"] == "authenticated"
        async with Client(server, "/v2/iex", compression=None) as client:
            assert client.socket.response is not None
            assert "Sec-WebSocket-Extensions" not in client.socket.response.headers
            await (await client.socket.ping())

    run(conversation())


def test_a_command_in_fragments_and_one_of_many_megabytes_are_understood(server: SimServer) -> None:
    async def conversation() -> None:
        async with Client(server, "/v2/iex", compression=None) as client:
            await client.log_in()
            text = json.dumps({"trades": ["AAPL"], "action": "subscribe"}).encode()
            await client.socket.send([text[:9].decode(), text[9:].decode(), ""])
            assert (await client.hear())[0]["trades"] == ["AAPL"]
            many = [f"X{number:07d}" for number in range(1_360_000)]
            text = json.dumps({"bars": many, "action": "unsubscribe"}).encode()
            assert 15 << 20 < len(text) < 16 << 20
            await client.socket.send(text)
            assert (await client.ask(action="subscribe"))["trades"] == ["AAPL"]

    run(conversation())


@pytest.mark.parametrize(
    "headers",
    [
        {"APCA-API-KEY-ID": "PK", "APCA-API-SECRET-KEY": "s"},
        {"Authorization": "Basic UEs6cw=="},
        {"Authorization": "Bearer token"},
    ],
)
def test_who_shows_keys_with_the_request_is_let_in_at_once(server: SimServer, headers: dict[str, str]) -> None:
    async def conversation() -> None:
        async with Client(server, "/v2/iex", headers=headers) as client:
            assert [(await client.hear())[0]["msg"] for _ in range(2)] == ["connected", "authenticated"]
            assert (await client.ask(action="auth", key="PK", secret="s"))["code"] == 403
        async with Client(server, "/stream", headers=headers) as client:
            assert (await client.hear())["data"]["status"] == "authorized"

    run(conversation())


@pytest.mark.parametrize(
    ("path", "command", "code", "closed"),
    [
        ("/v2/iex", {"action": "subscribe", "trades": ["A B"]}, 400, False),
        ("/v2/iex", {"action": "subscribe", "orderbooks": ["AAPL"]}, 410, False),
        ("/v2/iex", {"action": "auth", "key": "PK", "secret": "s"}, 403, False),
        ("/v1beta1/news", {"action": "subscribe", "trades": ["AAPL"]}, 410, False),
        ("/v1beta1/opra", {"action": "subscribe", "bars": ["AAPL261218C00250000"]}, 410, False),
        ("/v1beta1/indicative", {"action": "subscribe", "quotes": ["*"]}, 413, False),
    ],
)
def test_what_a_subscription_is_refused_for(
    server: SimServer, path: str, command: dict[str, Any], code: int, closed: bool
) -> None:
    async def conversation() -> None:
        encoding = "msgpack" if "v1beta1/news" not in path else "json"
        async with Client(server, path, encoding=encoding) as client:
            await client.log_in()
            answer = await client.ask(**command)
            assert (answer["T"], answer["code"]) == ("error", code)
            assert (await client.ask(action="subscribe"))["T"] == "subscription"

    run(conversation())


@pytest.mark.parametrize(
    ("path", "say", "code"),
    [
        ("/v2/iex", {"action": "auth", "key": "", "secret": "s"}, 402),
        ("/v2/iex", {"action": "auth"}, 402),
        ("/v2/iex", None, 404),
        ("/v1beta1/indicative", None, 412),
    ],
)
def test_what_ends_a_connection(server: SimServer, path: str, say: dict[str, Any] | None, code: int) -> None:
    async def conversation() -> None:
        async with Client(server, path) as client:
            if code != 412:
                await client.hear()
            if say is not None:
                await client.say(**say)
            assert (await client.hear())[0]["code"] == code
            with pytest.raises(ConnectionClosed):
                await client.socket.recv()
            assert client.socket.close_code == 1000

    run(conversation())


def test_the_trading_stream_of_a_stranger_ends(server: SimServer) -> None:
    async def conversation() -> None:
        async with Client(server, "/stream") as client:
            answer = await client.ask(action="auth", key="", secret="")
            assert answer == {"stream": "authorization", "data": {"status": "unauthorized", "action": "authenticate"}}
            with pytest.raises(ConnectionClosed):
                await client.socket.recv()

    run(conversation())


def test_trade_updates_come_as_binary_json_in_order(server: SimServer) -> None:
    async def conversation() -> None:
        async with Client(server, "/stream") as client:
            await client.ask(action="auth", key="PKU", secret="s")
            await client.ask(action="listen", data={"streams": ["trade_updates", "else"]})
            order_id = await asyncio.to_thread(trade, server, "MSFT", "8", key="PKU")
            frames = [await client.socket.recv() for _ in range(3)]
            assert all(isinstance(frame, bytes) for frame in frames)
            told = [json.loads(frame)["data"] for frame in frames]
            assert [update["event"] for update in told] == ["new", "partial_fill", "fill"]
            assert {update["order"]["id"] for update in told} == {order_id}
            with server.exchange.desk(server.exchange.account_number("PKU", "s"), changes=True) as desk:
                canceled = enter(desk, new_order("AAPL", "buy", "limit", "day", desk.now_ns, Decimal(1)))
                amend(desk, canceled, desk.now_ns, status="canceled", canceled_ns=desk.now_ns)
            assert [(await client.hear())["data"]["event"] for _ in range(2)] == ["new", "canceled"]

    run(conversation())


def test_only_one_connection_and_thirty_symbols_where_there_are_limits(strict: SimServer) -> None:
    async def conversation() -> None:
        symbols = [f"S{number}" for number in range(31)]
        async with Client(strict, "/v2/iex") as first:
            await first.log_in()
            assert (await first.ask(action="subscribe", trades=symbols))["code"] == 405
            confirmed = await first.ask(action="subscribe", trades=symbols[:30], bars=symbols)
            assert len(confirmed["trades"]) == 30
            assert (await first.ask(action="subscribe", quotes=["S30"]))["code"] == 405
            assert await first.ask(action="subscribe") == confirmed
            async with Client(strict, "/v2/iex") as second:
                assert (await second.log_in())["code"] == 406
                with pytest.raises(ConnectionClosed):
                    await second.socket.recv()
            async with Client(strict, "/v2/iex") as somebody_else, Client(strict, "/v2/sip") as another_feed:
                assert (await somebody_else.log_in("PK2"))["T"] == "success"
                assert (await another_feed.log_in())["T"] == "success"
            await first.socket.close()
        while True:  # until the server has seen that the first is gone
            async with Client(strict, "/v2/iex") as again:
                if (await again.log_in())["T"] == "success":
                    return

    run(conversation())


def test_a_reset_to_another_market_ends_streams_of_the_old_one(tmp_path: Path) -> None:
    async def conversation(server: SimServer) -> None:
        async with Client(server, "/v2/iex") as client:
            await client.log_in()
            await client.ask(action="subscribe", trades=["AAPL"])
            server.exchange.reset(seed=7)
            with pytest.raises(ConnectionClosed):
                await client.hear_for_ever()
            assert client.socket.close_code == 1000

    with SimServer(tmp_path) as server:
        run(conversation(server))


def test_a_path_without_a_stream_is_404(server: SimServer) -> None:
    async def conversation() -> None:
        for path in ("/v2/nope", "/", "/v2/account"):
            with pytest.raises(InvalidStatus) as caught:
                await connect(server.ws + path, proxy=None)
            assert caught.value.response.status_code == 404
            assert json.loads(caught.value.response.body)["code"] == 40410000

    run(conversation())


# ------------------------------------------------------------------------------------------------ bad days


@pytest.fixture
def faulty(server: SimServer) -> Iterator[SimServer]:
    yield server
    assert server.faults("DELETE") == []


async def subscribed(client: Client) -> None:
    await client.log_in()
    await client.ask(action="subscribe", trades=["*"])


@pytest.mark.parametrize("status", [429, 500])
def test_an_upgrade_can_be_rejected_so_many_times(faulty: SimServer, status: int) -> None:
    async def conversation() -> None:
        faulty.fault("reject", status=status, times=2)
        for _ in range(2):
            with pytest.raises(InvalidStatus) as caught:
                await connect(f"{faulty.ws}/v2/iex", proxy=None)
            assert caught.value.response.status_code == status
        async with Client(faulty, "/v2/iex") as client:
            assert (await client.log_in())["T"] == "success"

    run(conversation())


@pytest.mark.parametrize(("code", "after"), [(402, 0), (406, 0), (409, 0), (500, 0), (407, 0.1), (500, 0.1)])
def test_a_login_or_a_stream_can_be_refused(faulty: SimServer, code: int, after: float) -> None:
    async def conversation() -> None:
        faulty.fault("refuse", code=code, after=after, path="/v2/iex")
        async with Client(faulty, "/v2/iex") as client:
            answer = await client.log_in()
            if after:
                assert answer["T"] == "success"
                answer = (await client.hear())[0]
            assert (answer["T"], answer["code"]) == ("error", code)
            with pytest.raises(ConnectionClosed):
                await client.socket.recv()
        async with Client(faulty, "/v2/sip") as client:
            assert (await client.log_in())["T"] == "success"

    run(conversation())


@pytest.mark.parametrize("how", ["reset", "frame"])
def test_a_connection_can_be_dropped(faulty: SimServer, how: str) -> None:
    async def conversation() -> None:
        async with Client(faulty, "/v2/iex") as client:
            await subscribed(client)
            await client.hear()
            faulty.fault("drop", how=how)
            with pytest.raises(ConnectionClosed):
                await client.hear_for_ever()
            assert client.socket.close_code == 1006

    run(conversation())


@pytest.mark.parametrize("how", ["silence", "pongs"])
def test_a_connection_can_fall_silent(faulty: SimServer, how: str) -> None:
    async def conversation() -> None:
        async with Client(faulty, "/v2/iex") as client:
            await subscribed(client)
            await client.hear()
            faulty.fault("mute", how=how)
            with pytest.raises(TimeoutError):
                await client.hear_for_ever(within_s=0.3)
            pong = await client.socket.ping()
            if how == "pongs":
                await pong
            else:
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(pong, 0.3)
            assert client.socket.state.name == "OPEN"

    run(conversation())


def test_messages_can_come_twice_late_or_out_of_order(faulty: SimServer) -> None:
    async def conversation() -> None:
        async with Client(faulty, "/v2/iex") as client:
            await subscribed(client)
            faulty.fault("duplicate")
            frames: list[str] = []
            while len(frames) == len(set(frames)):
                frames.append(json.dumps(await client.hear()))
            assert frames[-1] in frames[:-1]
            faulty.faults("DELETE")
            faulty.fault("reorder")
            times: list[str] = []
            while times == sorted(times):
                times.append((await client.hear())[0]["t"])
            assert times[-1] < times[-2]
            faulty.faults("DELETE")
            faulty.fault("delay", seconds=0.4)
            ages = [0.0]
            while max(ages) < 0.4 * SPEED:
                heard = (await client.hear())[-1]
                ages.append(faulty.exchange.now_ns() / 1e9 - _seconds(heard["t"]))

    run(conversation())


def test_the_handshake_can_be_slow(faulty: SimServer) -> None:
    async def conversation() -> None:
        faulty.fault("slow", seconds=0.15)
        began = time.monotonic()
        async with Client(faulty, "/stream") as client:
            await client.ask(action="auth", key="PK", secret="s")
        assert time.monotonic() - began >= 0.3

    run(conversation())


def test_times_can_lie_ahead(faulty: SimServer) -> None:
    async def conversation() -> None:
        faulty.fault("future", seconds=5000)
        async with Client(faulty, "/v2/iex") as client:
            await subscribed(client)
            assert _seconds((await client.hear())[0]["t"]) > faulty.exchange.now_ns() / 1e9 + 4000

    run(conversation())


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
@pytest.mark.parametrize("how", ["syntax", "truncated", "oversized", "unknown"])
def test_garbage_comes_before_what_is_right(faulty: SimServer, encoding: str, how: str) -> None:
    async def conversation() -> None:
        async with Client(faulty, "/v2/iex", encoding=encoding, compression=None) as client:
            await subscribed(client)
            await client.hear()
            faulty.fault("garbage", how=how, times=1)
            while True:
                frame = await client.socket.recv()
                try:
                    messages = json.loads(frame) if encoding == "json" else msgpack.unpackb(frame)
                except ValueError:
                    assert how != "unknown"
                    assert (len(frame) > 16 << 20) == (how == "oversized")
                    break
                if messages[0]["T"] == "zz":
                    assert how == "unknown"
                    break
            # who hears trades hears them corrected and canceled
            assert (await client.hear())[0]["T"] in ("t", "c", "x")

    run(conversation())


def test_the_trading_stream_has_bad_days_too(faulty: SimServer) -> None:
    async def conversation() -> None:
        faulty.fault("garbage", how="unknown", path="/stream")
        faulty.fault("duplicate", path="/stream", times=1)
        async with Client(faulty, "/stream") as client:
            await client.ask(action="auth", key="PKB", secret="s")
            await client.ask(action="listen", data={"streams": ["trade_updates"]})
            await asyncio.to_thread(trade, faulty, "AAPL", "4", key="PKB")
            streams = [(await client.hear()) for _ in range(7)]
            assert [item["data"]["event"] for item in streams if item["stream"] == "trade_updates"] == [
                *("new", "new", "partial_fill", "fill")
            ]
        faulty.fault("refuse", code=402, path="/stream")
        async with Client(faulty, "/stream") as client:
            assert (await client.ask(action="auth", key="PKB", secret="s"))["data"]["status"] == "unauthorized"

    run(conversation())


def test_faults_are_shown_refused_and_switched_off(server: SimServer) -> None:
    assert server.faults("GET") == []
    drop = {"kind": "drop", "path": "/v2/opra", "times": 1, "after": 60.0, "how": "reset"}
    assert server.faults("POST", [drop, {"kind": "mute", "path": "/none"}])[0] == drop
    assert len(server.faults("GET")) == 2
    with pytest.raises(HTTPError, match="422") as refused:
        server.faults("POST", {"kind": "explode"})
    refused.value.close()
    assert server.faults("DELETE") == []


def _seconds(text: str) -> float:
    from alpacli.domain.ticks import instant_ns

    return instant_ns(text) / 1e9
