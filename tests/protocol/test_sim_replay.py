"""A strategy written with the official SDK runs over a past day, in step with it, and twice the same way."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from tests.support.alpacli import Alpacli

STRATEGY = """
import json, os, sys, threading
from alpaca.data.enums import DataFeed
from alpaca.data.historical import StockHistoricalDataClient
from alpaca.data.live import StockDataStream
from alpaca.data.requests import StockBarsRequest
from alpaca.data.timeframe import TimeFrame
from alpaca.trading.client import TradingClient
from alpaca.trading.requests import MarketOrderRequest
from alpaca.trading.stream import TradingStream

url = sys.argv[1]
socket = url.replace("http", "ws")
trading = TradingClient("PKTEST", "s", url_override=url)
history = StockHistoricalDataClient("PKTEST", "s", url_override=url)
stream = StockDataStream("PKTEST", "s", feed=DataFeed.IEX, url_override=socket + "/v2/iex")
updates = TradingStream("PKTEST", "s", url_override=socket + "/stream")
seen, told = [], []

async def on_update(update):
    told.append([update.event, str(update.timestamp), str(update.price), str(update.order.id)])

async def on_bar(bar):
    asked = StockBarsRequest(symbol_or_symbols=bar.symbol, timeframe=TimeFrame.Minute, feed=DataFeed.IEX)
    rows = history.get_stock_bars(asked).data[bar.symbol]
    seen.append([str(bar.timestamp), bar.close, len(rows), str(trading.get_clock().timestamp)])
    side = "buy" if len(seen) % 2 else "sell"
    trading.submit_order(MarketOrderRequest(symbol=bar.symbol, qty=1, side=side, time_in_force="day"))
    if len(seen) == int(sys.argv[2]):
        orders = sorted([str(o.id), str(o.filled_at), str(o.filled_avg_price)] for o in trading.get_orders())
        print(json.dumps({"seen": seen, "told": told, "cash": trading.get_account().cash, "orders": orders}), flush=True)
        os._exit(0)

updates.subscribe_trade_updates(on_update)
threading.Thread(target=updates.run, daemon=True).start()
stream.subscribe_bars(on_bar, "AAPL")
stream.run()
orders = sorted([str(o.id), str(o.filled_at), str(o.filled_avg_price)] for o in trading.get_orders())
print(json.dumps({"seen": seen, "told": told, "cash": trading.get_account().cash, "orders": orders}))
"""


def bars(count: int) -> str:
    lines = ["timestamp,open,high,low,close,volume"]
    for minute in range(count):
        opened = 100 + minute * 7 % 5
        lines.append(f"2024-01-03T14:{30 + minute}:00Z,{opened},{opened + 2},{opened - 1},{opened + 1},1000")
    return "\n".join(lines) + "\n"


@contextmanager
def replaying(folder: Path, *options: str, text: str = "") -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    folder.mkdir(exist_ok=True)
    (folder / "AAPL.csv").write_text(text or bars(6))
    process = Alpacli(folder).start(
        ["sim", "replay", str(folder / "AAPL.csv"), "--port", "0", "--json", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip(), process
    finally:
        process.kill()
        process.communicate(timeout=10)


def ask(url: str, body: object = None, method: str = "GET") -> Any:
    data = None if body is None else json.dumps(body).encode()
    keys = {"APCA-API-KEY-ID": "PKTEST", "APCA-API-SECRET-KEY": "s"}
    with urlopen(Request(url, data, keys, method=method), timeout=20) as answer:
        return json.loads(answer.read())


def strategy(url: str, bars: int) -> Any:
    ran = subprocess.run(
        [sys.executable, "-c", STRATEGY, url, str(bars)], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.mark.slow
def test_a_strategy_sees_each_bar_when_it_is_over_and_its_orders_are_in_before_time_goes_on(tmp_path: Path) -> None:
    with replaying(tmp_path, "--exit-at-end") as (url, process):
        first = strategy(url, 6)
        out, _ = process.communicate(timeout=20)
    summary = json.loads(out)
    assert process.returncode == 0
    assert [row[0][14:16] for row in first["seen"]] == ["30", "31", "32", "33", "34", "35"]
    assert [row[2] for row in first["seen"]] == [1, 2, 3, 4, 5, 6]
    assert all(row[3][11:19] == f"09:{31 + place}:00" for place, row in enumerate(first["seen"]))
    assert summary["complete"]
    (account,) = summary["accounts"]
    assert sum(account["orders"].values()) == 6
    assert account["fills"] >= 3
    with replaying(tmp_path) as (url, _):
        again = strategy(url, 6)
    assert {name: again[name] for name in ("seen", "cash", "orders")} == {
        name: first[name] for name in ("seen", "cash", "orders")
    }
    assert {event[0] for event in first["told"]} >= {"new", "fill"}


def test_a_test_steps_through_the_day_and_the_clock_stops_at_its_end(tmp_path: Path) -> None:
    with replaying(tmp_path, "--clock") as (url, process):
        begun = ask(url + "/sim/clock")
        assert begun == {
            "timestamp": "2024-01-03T14:30:00Z",
            "is_open": True,
            "ends": "2024-01-03T14:36:00.2Z",
            "over": False,
        }
        order = {
            "symbol": "AAPL",
            "side": "buy",
            "qty": "1",
            "type": "limit",
            "limit_price": "99.5",
            "time_in_force": "day",
        }
        made = ask(url + "/v2/orders", order, "POST")
        assert ask(url + "/v2/clock")["timestamp"] == "2024-01-03T09:30:00-05:00"
        ask(url + "/sim/clock", {"advance": 61}, "POST")
        filled = ask(url + f"/v2/orders/{made['id']}")
        assert (filled["status"], filled["filled_avg_price"]) == ("filled", "99.5")
        late = ask(url + "/v2/orders", {**order, "limit_price": "1"}, "POST")
        ended = ask(url + "/sim/clock", {"advance": 86400}, "POST")
        assert (ended["timestamp"], ended["over"]) == ("2024-01-03T14:36:00.2Z", True)
        assert ask(url + f"/v2/orders/{late['id']}")["status"] == "new"
        assert process.stdout is not None
        summary = json.loads(process.stdout.readline())
        assert summary["accounts"][0]["orders"] == {"filled": 1, "new": 1}
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0


def test_the_history_and_the_calendar_of_a_replayed_day_are_of_that_year(tmp_path: Path) -> None:
    with replaying(tmp_path, "--clock") as (url, _):
        urls = {f"ALPACA_{host}_URL": url for host in ("BASE", "DATA")}
        there = Alpacli(tmp_path, {**urls, "ALPACA_API_KEY": "PKTEST", "ALPACA_SECRET_KEY": "s"})
        assert there("buy", "AAPL", "1", "--json").code == 0
        ask(url + "/sim/clock", {"advance": 61}, "POST")
        for _ in range(2):
            synced = there("history", "sync", "--json")
            assert (synced.code, synced.errors) == (0, "")
        days = json.loads(there("history", "equity", "--json").out)
        assert days[0]["day"] == "2024-01-03"
        assert there("calendar", "--jq", ".[0].date").text == "2024-01-03\n"


def test_time_flows_at_a_multiple_once_somebody_is_there(tmp_path: Path) -> None:
    with replaying(tmp_path, "--speed", "100000", "--exit-at-end") as (url, process):
        first = ask(url + "/v2/clock")["timestamp"]
        assert first.startswith("2024-01-03T09:3")
        out, _ = process.communicate(timeout=20)
    assert json.loads(out)["end"] == "2024-01-03T14:36:00.2Z"
    assert process.returncode == 0


def test_who_asks_which_run_it_is_sets_time_going_as_with_any_request(tmp_path: Path) -> None:
    with replaying(tmp_path, "--speed", "100000", "--exit-at-end") as (url, process):
        assert ask(url + "/sim/run")["timestamp"].startswith("2024-01-03T14:3")
        assert process.wait(timeout=20) == 0


def test_a_second_replay_of_a_day_is_another_run(tmp_path: Path) -> None:
    with replaying(tmp_path / "a", "--clock") as (one, _), replaying(tmp_path / "b", "--clock") as (other, _):
        assert ask(one + "/sim/run")["run"] == ask(one + "/sim/run")["run"] != ask(other + "/sim/run")["run"]
        assert ask(one + "/sim/run")["timestamp"] == "2024-01-03T14:30:00Z"


def test_a_stopped_replay_says_what_came_of_it(tmp_path: Path) -> None:
    with replaying(tmp_path, "--clock") as (url, process):
        ask(url + "/v2/account")
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert json.loads(out)["complete"] is False


def test_a_wrong_row_ends_the_command_with_the_line_that_is_wrong(tmp_path: Path) -> None:
    paper = Alpacli(tmp_path)
    (tmp_path / "AAPL.csv").write_text("t,o,h,l,c,v\n2024-01-03T14:30:00Z,1,1,1,x,1\n")
    ended = paper("sim", "replay", str(tmp_path / "AAPL.csv"))
    assert ended.code == 2
    assert "AAPL.csv line 2: its close is 'x'" in ended.errors
