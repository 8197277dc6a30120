"""A recorded market: the way through a bar, what orders get on it, and that nothing of the future is ever told."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from alpacli.errors import UsageError
from alpacli.ports import SystemClock
from alpacli.sim.exchange import Exchange
from alpacli.sim.pace import ReplayClock
from alpacli.sim.reading import read
from alpacli.sim.replay import Recording, assemble, open_exchange
from alpacli.sim.rest import HttpRequest, handle

MINUTE = 60_000_000_000
KEYS = {"apca-api-key-id": "PKTEST", "apca-api-secret-key": "s"}


def at(text: str) -> int:
    return int(datetime.fromisoformat(f"2024-01-03T{text}+00:00").timestamp() * 1000) * 1_000_000


def record(folder: Path, text: str, **options: Any) -> Recording:
    path = folder / "AAPL.csv"
    path.write_text(text)
    return assemble(read([str(path)]), **options)


BARS = """timestamp,open,high,low,close,volume,vwap,trade_count
2024-01-03T14:30:00Z,100,103,99,102,1000,101,10
2024-01-03T14:31:00Z,102,102.5,98,98.5,2000,100,20
2024-01-03T14:33:00Z,97,97.5,96,97,3000,97,30
"""


class Day:
    """A recorded day whose time a test moves."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.clock = ReplayClock(SystemClock(), recording.begin_ns, recording.end_ns)
        self.exchange: Exchange = open_exchange(recording, self.clock)

    def ask(self, method: str, path: str, body: bytes = b"", **query: str) -> Any:
        answer = handle(self.exchange, HttpRequest(method, path, tuple(query.items()), KEYS, body))
        return json.loads(answer.body, parse_float=Decimal) if answer.body else None

    def order(self, **fields: object) -> str:
        body = {"symbol": "AAPL", "qty": "1", "side": "buy", "time_in_force": "day"} | fields
        return str(self.ask("POST", "/v2/orders", json.dumps(body).encode())["id"])

    def look(self, order_id: str) -> Any:
        return self.ask("GET", f"/v2/orders/{order_id}")

    def go_to(self, text: str) -> None:
        self.clock.go_to(at(text))


@pytest.fixture
def day(tmp_path: Path) -> Iterator[Day]:
    found = Day(record(tmp_path, BARS))
    yield found
    found.exchange.close()


def test_a_rising_bar_goes_by_its_low_and_a_falling_one_by_its_high(day: Day) -> None:
    tape = day.recording.market.tape
    turns = (
        "14:30:00",
        "14:30:10",
        "14:30:20",
        "14:30:40",
        "14:30:59.999",
        "14:31:20",
        "14:31:40",
        "14:32:30",
        "14:33:00",
    )
    assert [tape.last("AAPL", at(text)) for text in turns] == [
        *map(Decimal, ("100", "99.5", "99", "103", "102.0001", "102.5", "98", "98.5", "97"))
    ]


def test_a_price_is_written_with_its_cents_and_no_zeros_behind_them(tmp_path: Path) -> None:
    feed = record(tmp_path, "timestamp,price\n2024-01-03T14:30:00Z,10.5\n2024-01-03T14:30:01Z,0.0001\n").market.feed
    assert [str(trade["p"]) for trade in feed.trades("AAPL", 0, 1 << 62)] == ["10.50", "0.0001"]


def test_a_limit_is_filled_at_its_price_in_a_bar_and_at_the_open_where_the_price_jumps_past_it(day: Day) -> None:
    inside, jumped, never = (day.order(type="limit", limit_price=price) for price in ("98.2", "97.8", "95.9"))
    day.go_to("14:34:00")
    assert [day.look(order)["filled_avg_price"] for order in (inside, jumped, never)] == ["98.2", "97", None]
    assert day.look(inside)["filled_at"].startswith("2024-01-03T14:31:3")
    assert day.look(jumped)["filled_at"] == "2024-01-03T14:33:00Z"


def test_a_stop_is_touched_where_the_way_passes_it(day: Day) -> None:
    day.order(type="market")
    day.go_to("14:30:01")
    stop = day.order(type="stop", side="sell", stop_price="99.5")
    assert day.look(stop)["status"] in ("pending_new", "new", "accepted")
    day.go_to("14:34:00")
    filled = day.look(stop)
    assert filled["filled_at"].startswith("2024-01-03T14:30:10.0")
    assert Decimal("99.49") < Decimal(filled["filled_avg_price"]) <= Decimal("99.5")


def test_a_trailing_stop_follows_the_way(day: Day) -> None:
    day.order(type="market")
    day.go_to("14:30:30")
    stop = day.order(type="trailing_stop", side="sell", trail_price="1.5")
    day.go_to("14:34:00")
    filled = day.look(stop)
    assert filled["hwm"] == "103"
    assert filled["stop_price"] == "101.5"
    assert Decimal("101.4") < Decimal(filled["filled_avg_price"]) <= Decimal("101.5")


def test_minute_bars_are_those_of_the_file_and_come_when_they_are_over(day: Day) -> None:
    def bars(timeframe: str = "1Min") -> Any:
        return day.ask("GET", "/v2/stocks/bars", symbols="AAPL", start="2024-01-03", timeframe=timeframe)["bars"].get(
            "AAPL", []
        )

    day.go_to("14:30:59")
    assert bars() == []
    day.go_to("14:34:00")
    assert [bar["t"] for bar in bars()] == [f"2024-01-03T14:{m}:00Z" for m in (30, 31, 33)]
    assert bars()[1] == {"o": 102, "h": Decimal("102.5"), "l": 98, "c": Decimal("98.5"), "v": 2000} | {
        "n": 20,
        "vw": 100,
        "t": "2024-01-03T14:31:00Z",
    }


def test_a_bar_that_is_not_over_tells_only_what_has_happened(day: Day) -> None:
    day.go_to("14:30:20.001")
    (bar,) = day.ask("GET", "/v2/stocks/bars", symbols="AAPL", start="2024-01-03", timeframe="1Day")["bars"]["AAPL"]
    assert (bar["o"], bar["l"], bar["v"], bar["n"]) == (100, 99, 333, 3)
    assert bar["h"] == 100
    snapshot = day.ask("GET", "/v2/stocks/AAPL/snapshot")
    assert snapshot["minuteBar"] is None
    assert snapshot["latestTrade"]["p"] == Decimal("99.0002")


def test_longer_bars_are_made_of_shorter_ones(day: Day) -> None:
    day.clock.go_to(day.recording.end_ns)
    day.ask("GET", "/v2/clock")
    (bar,) = day.ask("GET", "/v2/stocks/bars", symbols="AAPL", start="2024-01-03", timeframe="1Day")["bars"]["AAPL"]
    assert (bar["o"], bar["h"], bar["l"], bar["c"], bar["v"], bar["n"]) == (100, 103, 96, 97, 6000, 60)
    assert bar["vw"] == Decimal("98.666667")


def test_only_what_the_files_name_is_listed_and_nothing_is_traded_before_it_has_a_price(tmp_path: Path) -> None:
    (tmp_path / "late.csv").write_text(
        "symbol,t,o,h,l,c,v\nAAPL,2024-01-03T14:30:00Z,1,1,1,1,1\nNEW,2024-01-03T14:31:00Z,5,5,5,5,5\n"
    )
    day = Day(assemble(read([str(tmp_path / "late.csv")])))
    assert [asset["symbol"] for asset in day.ask("GET", "/v2/assets")] == ["AAPL", "NEW"]
    assert day.ask("GET", "/v2/assets/MSFT")["message"] == "asset not found for MSFT"
    refused = day.ask(
        "POST", "/v2/orders", b'{"symbol":"NEW","qty":1,"side":"buy","type":"market","time_in_force":"day"}'
    )
    assert refused["message"] == 'asset "NEW" has no price yet'
    day.go_to("14:31:00")
    assert day.order(symbol="NEW", type="market")
    day.exchange.close()


def test_recorded_quotes_make_bid_and_offer_and_no_price_within_one_instant_is_lost(tmp_path: Path) -> None:
    text = (
        "timestamp,bid,ask\n2024-01-03T14:30:00Z,10,10.02\n2024-01-03T14:30:05Z,9.5,9.6\n2024-01-03T14:30:05Z,10,10.1\n"
    )
    day = Day(record(tmp_path, text + "2024-01-03T14:31:00Z,10,10.1\n"))
    bought, dipped = day.order(type="market"), day.order(type="limit", limit_price="9.7")
    day.go_to("14:31:00")
    assert [day.look(order)["filled_avg_price"] for order in (bought, dipped)] == ["10.02", "9.6"]
    assert day.ask("GET", "/v2/stocks/AAPL/quotes/latest")["quote"]["bp"] == 10
    day.exchange.close()


def test_a_day_is_its_session_and_stocks_at_night_open_the_market_around_the_clock(tmp_path: Path) -> None:
    recording = record(tmp_path, "Date,Open,High,Low,Close,Volume\n2024-01-02,1,2,1,2,9\n2024-01-03,2,3,2,3,9\n")
    assert recording.begin_ns == int(datetime(2024, 1, 2, 14, 30, tzinfo=UTC).timestamp()) * 1_000_000_000
    assert recording.market.hours.name == "xnys"
    text = "Date,Open,High,Low,Close,Volume\n2024-01-06,1,2,1,2,9\n2024-01-07,2,3,2,3,9\n"
    weekend = record(tmp_path, text)
    assert weekend.market.hours.name == "always"
    assert "line 2" in weekend.notices[0]
    with pytest.raises(UsageError, match="the exchange is shut on 2024-01-06"):
        record(tmp_path, text, hours="xnys")


def test_the_same_orders_on_the_same_file_make_the_same_bytes(tmp_path: Path) -> None:
    def run() -> list[Any]:
        day = Day(record(tmp_path, BARS))
        day.order(type="market", qty="7")
        day.go_to("14:31:05")
        day.order(type="limit", side="sell", qty="3", limit_price="102.3")
        day.go_to("14:34:00")
        told = [day.ask("GET", path) for path in ("/v2/account", "/v2/positions", "/v2/account/activities")]
        told.append(day.ask("GET", "/v2/orders", status="all"))
        day.exchange.close()
        return told

    assert run() == run()


def test_history_before_the_beginning_is_there_and_nothing_after_the_end_ever_comes(tmp_path: Path) -> None:
    day = Day(record(tmp_path, BARS, from_ns=at("14:31:00"), until_ns=at("14:32:00")))
    assert len(day.ask("GET", "/v2/stocks/bars", symbols="AAPL", start="2024-01-03")["bars"]["AAPL"]) == 1
    day.clock.advance(10_000)
    assert day.ask("GET", "/v2/clock")["timestamp"] == "2024-01-03T09:32:00-05:00"
    day.exchange.close()
    with pytest.raises(UsageError, match="nothing to replay"):
        record(tmp_path, BARS, from_ns=at("20:00:00"))


def test_the_last_minute_of_trades_is_the_latest_bar_even_if_they_are_of_no_size(tmp_path: Path) -> None:
    day = Day(record(tmp_path, "timestamp,price,size\n2024-01-03T14:30:00Z,10,1\n2024-01-03T14:31:02Z,11,0\n"))
    day.clock.go_to(day.recording.end_ns)
    bar = day.ask("GET", "/v2/stocks/AAPL/bars/latest")["bar"]
    assert (bar["t"], bar["c"], bar["v"], bar["vw"]) == ("2024-01-03T14:31:00Z", 11, 0, 11)
    day.exchange.close()
