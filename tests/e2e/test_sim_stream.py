"""The exchange's sockets: in process, over ``alpacli sim serve``, and with the official SDK."""

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from decimal import Decimal
from pathlib import Path
from urllib.request import urlopen

import pytest
from tests.support.alpacli import Alpacli
from tests.support.streaming import start

from alpacli.ports import SystemClock
from alpacli.sim.exchange import Exchange
from alpacli.sim.orders import enter, fill_order, new_order

_SDK = """
import sys
from alpaca.data.live import StockDataStream
stream = StockDataStream("PKSDK", "secret", url_override=sys.argv[1] + "/v2/iex")
seen = []
async def collect(tick):
    seen.append(f"{type(tick).__name__}:{tick.symbol}")
    if len(seen) == 5:
        await stream.stop_ws()
stream.subscribe_trades(collect, "AAPL")
stream.subscribe_quotes(collect, "MSFT")
stream.run()
print(*seen)
"""
KEYS = {"ALPACA_API_KEY": "PKSIM", "ALPACA_SECRET_KEY": "secret", "ALPACLI_HUB_LINGER": "0.2"}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    user = Alpacli(tmp_path)
    process = user.start(
        ["sim", "serve", "--port", "0", "--connection-limit", "1", "--symbol-limit", "3", "--quiet"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    yield process.stdout.readline().strip()
    process.terminate()
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 0
    assert errors == ""


@pytest.mark.parametrize(
    "symbols", ["AAPL MSFT NVDA TSLA SPY QQQ", "BTC/USD ETH/USD SOL/USD LTC/USD LINK/USD DOGE/USD"]
)
def test_a_stream_of_the_offline_exchange_needs_nothing(tmp_path: Path, symbols: str) -> None:
    ended = Alpacli(tmp_path)("stream", *symbols.split(), "--sim", "--count", "40")
    assert ended.code == 0, ended.errors
    ticks = [json.loads(line) for line in ended.out.splitlines()]
    assert {tick["type"] for tick in ticks} == {"trade", "quote"}
    assert {tick["symbol"] for tick in ticks} <= set(symbols.split())
    times = [tick["timestamp"] for tick in ticks if tick["type"] == "quote"]  # a trade may be reported late
    assert times == sorted(times)


def test_two_processes_see_the_same_market(tmp_path: Path) -> None:
    user = Alpacli(tmp_path)
    user("sim", "status")
    both = [
        user.start(
            ["stream", "AAPL", "--sim", "--duration", "2.5"],
            stdout=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    one, other = (set(process.communicate(timeout=30)[0].splitlines()) for process in both)
    assert len(one & other) >= 4


def test_the_official_sdk_runs_unchanged(served: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _SDK, served.replace("http", "ws")],
        capture_output=True,
        text=True,
        timeout=40,
        check=True,
    )
    seen = done.stdout.split()
    assert len(seen) >= 5
    assert set(seen) <= {"Trade:AAPL", "Quote:MSFT"}


def test_alpacli_streams_share_the_one_connection_that_the_server_allows(served: str, tmp_path: Path) -> None:
    user = Alpacli(tmp_path / "client", {**KEYS, "ALPACA_STREAM_URL": served.replace("http", "ws")})
    both = [
        user.start(
            ["stream", symbol, "--count", "3"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for symbol in ("AAPL", "MSFT")
    ]
    for process in both:
        out, errors = process.communicate(timeout=30)
        assert process.returncode == 0, errors
        assert len(out.splitlines()) == 3
    too_many = user("stream", "AAPL", "MSFT", "GOOGL", "NVDA", "--json")
    assert too_many.code == 4
    assert json.loads(too_many.err)["error"]["code"] == 405


def test_a_feed_that_the_exchange_does_not_have_is_wrong_usage(tmp_path: Path) -> None:
    ended = Alpacli(tmp_path)("stream", "AAPL", "--sim", "--feed", "overnight")
    assert ended.code == 2
    assert "offline exchange has no overnight feed" in ended.errors


def test_an_accounts_own_orders_are_streamed_whichever_process_made_them(tmp_path: Path) -> None:
    user = Alpacli(tmp_path)
    assert user("positions", "--sim", "--json").out == b"[]\n"
    stream = user.start(
        ["stream", "--updates", "--sim", "--count", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    exchange = Exchange(user.environment(None)["ALPACLI_STATE_DIR"], SystemClock())
    number = exchange.account_number("SIM")
    assert stream.stdout is not None
    with ThreadPoolExecutor(1) as pool:
        line = pool.submit(stream.stdout.readline)
        while not line.done():  # until it listens
            with exchange.desk(number, changes=True) as desk:
                order_id = enter(desk, new_order("AAPL", "buy", "market", "day", desk.now_ns, Decimal("1.5")))
                fill_order(desk, order_id, Decimal("1.5"), Decimal("250.25"), desk.now_ns)
            wait([line], timeout=0.1)
    exchange.close()
    ticks = [json.loads(text) for text in (line.result(), *stream.stdout)]
    assert stream.wait(30) == 0
    stream.stdout.close()
    assert [tick["event"] for tick in ticks] == ["new", "fill"]
    assert ticks[1]["price"] == 250.25
    assert ticks[0]["order"]["id"] == ticks[1]["order"]["id"]
    held = user("positions", "--sim", "--json", "--max-age", "600")  # who hears of a fill is given nothing of before it
    assert [position["symbol"] for position in json.loads(held.out)] == ["AAPL"]


def test_faults_are_set_from_the_beginning_and_wrong_ones_refused(tmp_path: Path) -> None:
    user = Alpacli(tmp_path)
    wrong = user("sim", "serve", "--port", "0", "--fault", "explode")
    assert wrong.code == 2
    assert "there is no fault 'explode'" in wrong.errors
    server = user.start(
        ["sim", "serve", "--port", "0", "--quiet", "--fault", "reject,status=500", "--fault", "drop,after=9"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    url = server.stdout.readline().strip()
    with urlopen(f"{url}/sim/faults", timeout=10) as answer:
        assert [fault["kind"] for fault in json.load(answer)] == ["reject", "drop"]
    client = Alpacli(tmp_path / "client", {**KEYS, "ALPACA_STREAM_URL": url.replace("http", "ws")})
    refused = client("stream", "AAPL", "--no-hub", "--reconnect", "0", "--json")
    server.terminate()
    server.communicate(timeout=10)
    assert refused.code == 6
    assert "HTTP 500" in refused.errors


def test_the_schema_of_a_line_needs_nothing_else(tmp_path: Path) -> None:
    ended = Alpacli(tmp_path)("stream", "--schema")
    assert ended.code == 0, ended.errors
    kinds = json.loads(ended.out)["$defs"]
    assert {"Trade", "Quote", "Bar", "TradeUpdate"} <= kinds.keys()
    assert "bid_price" in kinds["Quote"]["properties"]


@pytest.mark.slow
def test_a_gap_is_filled_in_order_and_without_doubles(tmp_path: Path) -> None:
    server = Alpacli(tmp_path / "server")

    def serve(port: str) -> tuple["subprocess.Popen[str]", str]:
        process = server.start(
            ["sim", "serve", "--port", port, "--quiet"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        return process, process.stdout.readline().strip()

    first, url = serve("0")
    user = Alpacli(
        tmp_path / "client",
        {**KEYS, "ALPACA_STREAM_URL": url.replace("http", "ws"), "ALPACA_BASE_URL": url, "ALPACA_DATA_URL": url},
    )
    stream = start(user, "AAPL", "--trades", "--no-hub", "--backfill")
    assert stream.stdout is not None
    assert stream.stderr is not None
    beginning = stream.stdout.readline()
    first.kill()
    first.communicate()
    second, _ = serve(url.rpartition(":")[2])
    assert any(b"gap filled" in line for line in stream.stderr)
    beginning += stream.stdout.readline()
    stream.terminate()
    out, errors = stream.communicate(timeout=30)
    assert stream.returncode == 0, errors
    got = [json.loads(line) for line in (beginning + out).splitlines()]
    at = [tick["timestamp"] for tick in got]
    assert at == sorted(set(at))
    from alpacli.domain.ticks import instant_ns
    from alpacli.sim.amendments import AmendedFeed
    from alpacli.sim.hours import AlwaysOpen
    from alpacli.sim.tape import Tape

    feed = AmendedFeed(Tape(2026, AlwaysOpen()), AlwaysOpen())
    expected = [trade["i"] for trade in feed.trades("AAPL", instant_ns(at[0]), instant_ns(at[-1]) + 1)]
    assert [tick["id"] for tick in got] == expected
    second.terminate()
    second.communicate(timeout=10)
