"""The gateway's relay, as processes: the official SDK unchanged, alpacli's own socket, and one connection upstream."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.gateway import Gateway
from tests.support.sim_server import SimServer

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


def test_the_official_sdk_runs_unchanged_several_at_once_where_one_connection_is_allowed(
    exchange: SimServer, tmp_path: Path
) -> None:
    with Gateway(exchange.ws, tmp_path / "gate") as gateway:
        programs = [_sdk(_DATA, "stock", f"{gateway.ws}/v2/iex", symbol) for symbol in ("AAPL", "MSFT", "NVDA")]
        programs.append(_sdk(_DATA, "crypto", f"{gateway.ws}/v1beta3/crypto/us", "BTC/USD"))
        programs.append(_sdk(_TRADING, gateway.ws, exchange.url))
        said = [program.communicate(timeout=60) for program in programs]
    for symbol, (out, errors) in zip(("AAPL", "MSFT", "NVDA", "BTC/USD"), said, strict=False):
        assert set(out.split()) <= {f"Trade:{symbol}:True", f"Quote:{symbol}:True"}, errors
        assert out.split(), errors
    assert "fill BTC/USD 0.001" in said[-1][0], said[-1]
    assert not any("406" in errors for _, errors in said)
    assert gateway.errors == ""
