"""The gateway's relay, as processes: the official SDK unchanged, alpacli's own socket, and one connection upstream."""

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest
from tests.support.feed import Conversation, Feed, quote, trade
from tests.support.gateway import BROKER, PAIR, Gateway, RelayClient
from tests.support.sim_server import SimServer
from tests.support.streaming import KEYS, eventually
from websockets.exceptions import ConnectionClosed, InvalidStatus

from alpacli.sim.sockets import Limits

_DATA = """
import sys
from alpaca.data.live import CryptoDataStream, StockDataStream
kind, url, symbol = sys.argv[1:]
made = {"stock": StockDataStream, "crypto": CryptoDataStream}[kind]
stream = made("PKTEST", "secret", url_override=url)
seen = []
async def collect(tick):
    seen.append(f"{type(tick).__name__}:{tick.symbol}:{tick.timestamp.year > 2000}")
    if len(seen) == 5:
        await stream.stop_ws()
stream.subscribe_trades(collect, symbol)
stream.subscribe_quotes(collect, symbol)
stream.run()
print(*sorted(set(seen)))
"""
_TRADING = """
import sys, threading, time
from alpaca.trading.client import TradingClient
from alpaca.trading.requests import MarketOrderRequest
from alpaca.trading.stream import TradingStream
url, exchange = sys.argv[1:]
stream = TradingStream("PKTEST", "secret", paper=True, url_override=url + "/stream")
client = TradingClient("PKTEST", "secret", url_override=exchange)
def order():  # the SDK does not say when it listens: order until something is heard
    while not done.wait(0.5):
        client.submit_order(MarketOrderRequest(symbol="BTC/USD", qty="0.001", side="buy", time_in_force="gtc"))
done = threading.Event()
async def collect(update):
    event = getattr(update.event, "value", update.event)
    print(event, update.order.symbol, update.order.qty, update.price, flush=True)
    if event == "fill":
        done.set()
        await stream.stop_ws()
stream.subscribe_trade_updates(collect)
threading.Thread(target=order, daemon=True).start()
stream.run()
"""


@pytest.fixture
def exchange(tmp_path: Path) -> Iterator[SimServer]:
    with SimServer(tmp_path / "exchange", limits=Limits(connections=1)) as server:
        yield server


def _sdk(program: str, *args: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", program, *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_the_official_sdk_runs_unchanged_several_at_once_where_one_connection_is_allowed(
    exchange: SimServer, tmp_path: Path
) -> None:
    with Gateway(exchange.ws, tmp_path / "gate") as gateway:
        programs = [_sdk(_DATA, "stock", f"{gateway.ws}/v2/iex", symbol) for symbol in ("AAPL", "MSFT", "NVDA")]
        programs.append(_sdk(_DATA, "crypto", f"{gateway.ws}/v1beta3/crypto/us", "BTC/USD"))
        programs.append(_sdk(_TRADING, gateway.ws, exchange.url))
        try:
            said = [program.communicate(timeout=60) for program in programs]
        finally:
            for program in programs:
                program.kill()
    for symbol, (out, errors) in zip(("AAPL", "MSFT", "NVDA", "BTC/USD"), said, strict=False):
        assert set(out.split()) <= {f"Trade:{symbol}:True", f"Quote:{symbol}:True"}, errors
        assert out.split(), errors
    assert "fill BTC/USD 0.001" in said[-1][0], said[-1]
    assert not any("406" in errors for _, errors in said)
    assert gateway.errors == ""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway whose upstream sends a trade of each symbol every 10 ms, and a quote of each symbol now and then."""
    with Feed(_with_quotes) as feed, Gateway(feed.url, tmp_path_factory.mktemp("gate")) as gateway:
        yield gateway
        assert feed.most_open <= 1
    assert gateway.errors == ""


async def _with_quotes(conversation: Conversation) -> None:
    await conversation.greet()
    changes = asyncio.ensure_future(conversation.serve_subscriptions())
    number = 0
    try:
        while not changes.done():
            await asyncio.sleep(0.01)
            number += 1
            trades = sorted(conversation.channels.get("trades", ()))[:20]
            quotes = sorted(conversation.channels.get("quotes", ()))[:20]
            messages = [trade(number, symbol) for symbol in trades]
            if number % 5 == 0:
                messages += [quote(number, symbol) for symbol in quotes]
            if messages:
                await conversation.say(*messages)
    finally:
        changes.cancel()


def test_a_client_chooses_its_symbols_on_the_way_in_and_changes_them_later(shared: Gateway) -> None:
    async def converse() -> None:
        async with shared.connect(f"{BROKER}?symbols=AAPL,MSFT&streams=trades,quotes&batch=true") as client:
            assert (await client.hear_of("authenticated"))["scopes"] == ["read", "stream", "trade"]
            state = await client.hear_of("subscription")
            both = ["AAPL", "MSFT"]
            assert state == {"type": "subscription", "feed": "iex", "streams": {"quotes": both, "trades": both}}
            first = await client.hear_of("trade")
            assert (first["price"], first["size"], first["exchange"]) == (100.25, 10, "V")
            assert (await client.hear_of("quote"))["bid_price"] == 100.25
            await client.say(action="unsubscribe", symbols=both, streams=["quotes"])
            assert (await client.hear_of("subscription"))["streams"] == {"trades": both}
            await client.say(action="unsubscribe", symbols=["MSFT"], streams=["trades"])
            assert (await client.hear_of("subscription"))["streams"] == {"trades": ["AAPL"]}
            assert {(await client.hear_of("trade"))["symbol"] for _ in range(10)} == {"AAPL"}
            await client.say(action="ping")
            assert (await client.hear_of("pong"))["timestamp"].endswith("Z")

    asyncio.run(converse())


def test_alpacas_protocol_is_spoken_word_for_word(shared: Gateway) -> None:
    async def converse() -> None:
        async with shared.connect("/v2/iex", headers={}) as client:
            assert await client.hear() == {"T": "success", "msg": "connected"}
            await client.say(action="subscribe", trades=["AAPL"])
            assert (await client.hear())["code"] == 401
            await client.say(action="auth", key=KEYS["ALPACA_API_KEY"], secret=KEYS["ALPACA_SECRET_KEY"])
            assert await client.hear() == {"T": "success", "msg": "authenticated"}
            await client.say(action="auth", key="PK", secret="x")
            assert (await client.hear())["code"] == 403
            await client.say(action="subscribe", trades=["AAPL"])
            state = await client.hear()
            assert (state["trades"], state["quotes"], state["corrections"]) == (["AAPL"], [], ["AAPL"])
            told = await client.hear()
            assert told == {**trade(told["i"]), "t": told["t"]}
            await client.say(action="subscribe", news=["AAPL"])
            assert (await client.hear_of("error"))["code"] == 410
            await client.say(action="unsubscribe", trades=["AAPL"])
            assert (await client.hear_of("subscription"))["trades"] == []
        async with shared.connect("/v1beta1/indicative") as options:
            assert (await options.hear())["code"] == 412
        async with shared.connect("/stream", headers={}) as updates:
            await updates.say(action="listen", data={"streams": ["trade_updates"]})
            assert (await updates.hear())["data"] == {"status": "unauthorized", "action": "listen"}

    asyncio.run(converse())


def test_who_shows_no_valid_credentials_is_sent_away(shared: Gateway) -> None:
    wrong = {"APCA-API-KEY-ID": "PKTEST", "APCA-API-SECRET-KEY": "wrong"}

    async def converse() -> None:
        async with shared.connect(BROKER, headers={}) as client:
            await client.say(action="subscribe", symbols=["AAPL"])
            assert (await client.hear())["code"] == 401
            await client.say(action="auth", token="eyJhbGciOiJub25lIn0.e30.")
            assert (await client.hear())["code"] == 401
            with pytest.raises(ConnectionClosed) as closed:
                await client.hear()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1008
        async with shared.connect("/v2/iex", headers=wrong) as client:
            assert [(await client.hear())["T"] for _ in range(2)] == ["success", "error"]
        async with shared.connect("/stream", headers=wrong) as client:
            assert (await client.hear())["data"]["status"] == "unauthorized"
        with pytest.raises(InvalidStatus) as refused:
            async with shared.connect(f"{BROKER}?token=abc"):
                pass
        assert refused.value.response.status_code == 400

    asyncio.run(converse())


def test_a_browser_shows_its_token_as_a_subprotocol(shared: Gateway) -> None:
    async def converse(token: str) -> None:
        async with shared.connect(BROKER, headers={}, subprotocols=["alpacli", f"bearer.{token}"]) as client:
            assert client.socket.subprotocol == "alpacli"
            assert (await client.hear())["name"] == "page"

    minted = shared.user("serve", "token", "--scope", "stream", "--name", "page", "--expires", "1h")
    assert minted.code == 0, minted.errors
    asyncio.run(converse(minted.text.strip()))


def test_junk_is_answered_and_hurts_nobody(shared: Gateway) -> None:
    async def converse() -> None:
        async with shared.connect(BROKER) as client, shared.connect("/v2/iex") as market:
            await client.hear_of("authenticated")
            await market.hear()
            await market.hear()
            for junk in (
                "",
                "{",
                "[]",
                "null",
                "[" * 5000,
                '{"action": {}}',
                b"\x00\xff\xfe",
                b"\x93\xc1",
                "\ud83d"[:0],
            ):
                await client.socket.send(junk)
                assert (await client.hear())["code"] == 400
                await market.socket.send(junk)
                assert (await market.hear())["code"] == 400
            await client.say(action="subscribe", symbols="AAPL", streams=["trades"])
            assert "list" in (await client.hear())["message"]
            await client.say(action="subscribe", symbols=["AAPL"], streams=["orderbooks"])
            assert "no orderbooks" in (await client.hear())["message"]
            await client.say(action="subscribe", symbols=["AAPL"], streams=["trades"])
            assert (await client.hear())["type"] == "subscription"
        async with shared.connect(BROKER) as client:
            await client.hear_of("authenticated")
            await client.socket.send("x" * (1 << 20))
            with pytest.raises(ConnectionClosed) as closed:
                await client.hear()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1009

    asyncio.run(converse())


def test_ten_thousand_symbols_are_fine_and_one_more_is_refused(shared: Gateway) -> None:
    many = [f"S{number:04}" for number in range(10_000)]

    async def converse() -> None:
        async with (
            shared.connect("/v2/iex") as client,
            shared.connect(f"{BROKER}?symbols=AAPL&streams=trades") as other,
        ):
            before = await other.hear_of("trade")
            await client.hear()
            await client.hear()
            await client.say(action="subscribe", trades=many)
            assert len((await client.hear_of("subscription"))["trades"]) == 10_000
            await client.say(action="subscribe", quotes=["ONEMORE"])
            assert (await client.hear_of("error"))["code"] == 405
            assert (await client.hear_of("t"))["S"] in many
            await client.say(action="unsubscribe", trades=many)
            assert (await client.hear_of("subscription"))["trades"] == []
            after = await other.hear_of("trade")
            assert after["id"] > before["id"]

    asyncio.run(converse())


def _status(gateway: Gateway) -> Any:
    with urlopen(Request(f"{gateway.url}{BROKER}/status", headers=PAIR), timeout=10) as answer:
        return json.loads(answer.read())["data"]


def test_the_relay_tells_how_it_stands(shared: Gateway) -> None:
    async def converse() -> Any:
        async with shared.connect(f"{BROKER}?symbols=AAPL&streams=trades") as client:
            await client.hear_of("trade")
            return await asyncio.to_thread(_status, shared)

    state = asyncio.run(converse())
    (iex,) = (feed for feed in state["feeds"] if feed["feed"] == "iex")
    assert (iex["state"], iex["shared"], iex["symbols"]["trades"]) == ("live", True, 1)
    assert iex["messages"] > 0
    assert state["clients"][0]["feeds"] == {"iex": {"trades": ["AAPL"]}}
    with pytest.raises(HTTPError) as refused:
        urlopen(f"{shared.url}{BROKER}/status", timeout=10)
    assert refused.value.code == 401
    refused.value.close()


async def _a_flood(conversation: Conversation) -> None:
    await conversation.greet()
    await conversation.obey()
    await conversation.hear()  # the second client's wish begins it
    await conversation.say({"T": "subscription", "trades": ["AAPL", "GO"]})
    for start in range(0, 150_000, 500):
        await conversation.say(*(trade(number) for number in range(start, start + 500)))
    await conversation.say(trade(150_000))
    await asyncio.sleep(60)


def _narrow(url: str) -> socket.socket:
    """Return a connection that takes little while nobody reads: how much a system would take for it differs."""
    line = socket.socket()
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    line.connect(("127.0.0.1", urlsplit(url).port))
    line.setblocking(False)
    return line


def test_a_stuck_client_is_cut_off_with_a_reason_and_the_others_get_everything(tmp_path: Path) -> None:
    async def converse(gateway: Gateway) -> None:
        path = f"{BROKER}?symbols=AAPL&streams=trades&batch=true"
        line = _narrow(gateway.url)
        async with gateway.connect(path, max_queue=1, sock=line) as stuck, gateway.connect(path) as well:
            await stuck.hear_of("subscription")
            await well.hear_of("subscription")
            goodbye = asyncio.ensure_future(goodbye_to(stuck, gateway))
            await well.say(action="subscribe", symbols=["GO"], streams=["trades"])
            numbers: list[int] = []
            while not numbers or numbers[-1] < 150_000:
                told = await well.hear()
                if told["type"] == "trade":
                    numbers.append(told["id"])
            assert numbers == list(range(150_001))
            closed = await goodbye
            assert closed.rcvd is not None
            assert closed.rcvd.code == 1013
            assert "too slow" in closed.rcvd.reason

    async def goodbye_to(stuck: RelayClient, gateway: Gateway) -> ConnectionClosed:
        """Read nothing until the gateway has cut it off, and then soon: it hangs up on who does not read its goodbye."""
        assert await asyncio.to_thread(eventually, lambda: _status(gateway)["cut_off"] == 1, 60)
        with pytest.raises(ConnectionClosed) as closed:
            await stuck.hear_of("nothing")
        return closed.value

    with Feed(_a_flood) as feed, Gateway(feed.url, tmp_path) as gateway:
        asyncio.run(converse(gateway))


async def _a_moment(conversation: Conversation) -> None:
    await conversation.greet()
    await conversation.obey()
    await conversation.say(trade(1))
    await asyncio.sleep(0.3)


def test_gaps_are_messages_and_stopping_the_gateway_is_a_goodbye(tmp_path: Path) -> None:
    async def converse(gateway: Gateway) -> None:
        path = f"{BROKER}?symbols=AAPL&streams=trades"
        async with gateway.connect(path) as own, gateway.connect("/v2/iex") as market:
            await own.hear_of("subscription")
            await market.say(action="subscribe", trades=["AAPL"])
            assert (await own.hear_of("reconnecting"))["attempt"] == 1
            assert (await own.hear_of("live"))["feed"] == "iex"
            gap = await own.hear_of("gap")
            assert gap["from"] < gap["until"]
            assert (await market.hear_of("error"))["code"] == 407
            await own.hear_of("trade")
            gateway.process.terminate()
            with pytest.raises(ConnectionClosed) as closed:
                await own.hear_of("nothing")
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1012, "the gateway is stopping")

    with Feed(_a_moment, _with_quotes) as feed, Gateway(feed.url, tmp_path) as gateway:
        asyncio.run(converse(gateway))
    assert gateway.process.returncode == 0


def test_a_revoked_token_ends_its_sockets_within_a_moment(shared: Gateway) -> None:
    async def converse(token: str) -> None:
        async with shared.connect(BROKER, headers={"Authorization": f"Bearer {token}"}) as client:
            assert (await client.hear())["name"] == "short"
            revoked = await asyncio.to_thread(shared.user, "serve", "tokens", "--revoke", "short")
            assert revoked.code == 0, revoked.errors
            with pytest.raises(ConnectionClosed) as closed:
                await client.hear_of("nothing")
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "the token is no longer valid")

    minted = shared.user("serve", "token", "--scope", "stream", "--name", "short", "--expires", "1h")
    asyncio.run(converse(minted.text.strip()))


def test_clients_that_come_and_go_leave_nothing_behind(shared: Gateway) -> None:
    async def come_and_go(times: int) -> None:
        for number in range(times):
            async with shared.connect(f"{BROKER}?symbols=S{number % 7},AAPL&streams=trades,quotes") as client:
                await client.hear_of("subscription")
                if number % 3 == 0:
                    await client.socket.close()
            async with shared.connect("/v2/iex", headers={}) as stranger:
                await stranger.hear()

    def open_files() -> int:
        return len(list(Path(f"/proc/{shared.process.pid}/fd").iterdir()))

    asyncio.run(come_and_go(10))  # what is loaded and opened once is there
    before, memory = open_files(), _resident_kib(shared.process.pid)
    asyncio.run(come_and_go(150))
    assert eventually(lambda: open_files() <= before)
    assert _resident_kib(shared.process.pid) - memory < 4096
    with urlopen(Request(f"{shared.url}{BROKER}/status", headers=PAIR), timeout=10) as answer:
        state = json.loads(answer.read())["data"]
    assert (state["clients"], sum(feed["clients"] for feed in state["feeds"])) == ([], 0)


def _resident_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.partition("VmRSS:")[2].split()[0])
