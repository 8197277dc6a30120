"""What fills a gap, fetched over REST from a real HTTP server: every page, in order, and wrong answers as errors."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.support.origin import Origin, Reply, Seen

from alpacli.domain.board import DaySoFar
from alpacli.domain.ticks import Interest, instant_ns
from alpacli.errors import UnreadableAnswer
from alpacli.live import open_backfill
from alpacli.settings import Flags, Settings, load
from alpacli.streams.feeds import find_feed
from alpacli.wire import market
from alpacli.wire.frames import Message
from alpacli.wire.lines import encode_lines

BOTH = Interest({"trades": ["AAPL", "MSFT"], "bars": ["AAPL"], "quotes": ["AAPL"]})


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as running:
        yield running


@pytest.fixture
def settings(origin: Origin, tmp_path: Path) -> Settings:
    env = {
        "ALPACA_API_KEY": "PKTEST",
        "ALPACA_SECRET_KEY": "secret",
        "ALPACA_BASE_URL": origin.url,
        "ALPACA_DATA_URL": origin.url,
        "ALPACLI_STATE_DIR": str(tmp_path),
        "ALPACLI_CONFIG_DIR": str(tmp_path),
    }
    return load(Flags(), env=env, cwd=None)


def fetch(settings: Settings, interest: Interest) -> Sequence[Message]:
    backfill = open_backfill(settings, find_feed("iex"))
    assert backfill is not None

    async def run() -> Sequence[Message]:
        async with asyncio.timeout(30):
            return await backfill(interest, 0, 10**9)

    return asyncio.run(run())


def trade(number: int) -> dict[str, Any]:
    return {"t": f"2026-01-02T15:00:00.{number:09d}Z", "p": 1.5, "s": 1, "x": "V", "i": number}


def test_all_pages_of_all_channels_come_in_the_order_of_their_times(origin: Origin, settings: Settings) -> None:
    def pages(seen: Seen) -> Reply:
        token = seen.query.get("page_token", [""])[0]
        rows = {"": {"AAPL": [trade(1), trade(4)]}, "2": {"MSFT": [trade(2)]}, "3": {"MSFT": [trade(5)]}}[token]
        return Reply(body={"trades": rows, "next_page_token": {"": "2", "2": "3", "3": None}[token]})

    origin.answer("/v2/stocks/trades", pages)
    bar = {"t": "2026-01-02T15:00:00.000000003Z", "o": 1, "h": 1, "l": 1, "c": 1, "v": 1}
    origin.reply("/v2/stocks/bars", Reply(body={"bars": {"AAPL": [bar]}, "next_page_token": None}))
    lines = [json.loads(line) for line in encode_lines(fetch(settings, BOTH)).splitlines()]
    assert [(line["type"], int(line["timestamp"][20:29])) for line in lines] == [
        ("trade", 1),
        ("trade", 2),
        ("bar", 3),
        ("trade", 4),
        ("trade", 5),
    ]
    assert len(origin.requests) == 4


def test_trades_that_no_longer_count_were_not_missed(origin: Origin, settings: Settings) -> None:
    rows = [trade(1) | {"u": "canceled"}, trade(2) | {"u": "incorrect"}, trade(3) | {"u": "corrected"}, trade(4)]
    origin.reply("/v2/stocks/trades", Reply(body={"trades": {"AAPL": rows}, "next_page_token": None}))
    lines = encode_lines(fetch(settings, Interest({"trades": ["AAPL"]}))).splitlines()
    assert [(json.loads(line)["id"], json.loads(line).get("update")) for line in lines] == [(3, "corrected"), (4, None)]


def test_a_server_that_gives_the_same_page_for_ever_is_asked_no_more(origin: Origin, settings: Settings) -> None:
    origin.reply("/v2/stocks/trades", Reply(body={"trades": {"AAPL": [trade(1)]}, "next_page_token": "again"}))
    assert fetch(settings, Interest({"trades": ["AAPL"]}))
    assert len(origin.requests) == 2


def test_nothing_is_fetched_for_what_has_no_history(origin: Origin, settings: Settings) -> None:
    assert fetch(settings, Interest({"quotes": ["AAPL"], "trades": ["*"]})) == []
    assert origin.requests == []
    assert open_backfill(settings, find_feed("news")) is None


@pytest.mark.parametrize(
    "trades", [5, {"AAPL": 5}, {"AAPL": [5]}, {"AAPL": {"t": 1}}, {"AAPL": [[1]]}, {"AAPL": "text"}]
)
def test_an_answer_that_is_not_lists_of_trades_is_unreadable(
    origin: Origin, settings: Settings, trades: object
) -> None:
    origin.reply("/v2/stocks/trades", Reply(body={"trades": trades, "next_page_token": None}))
    with pytest.raises(UnreadableAnswer):
        fetch(settings, Interest({"trades": ["AAPL"]}))


def test_a_snapshot_tells_the_previous_close_and_the_day_so_far_as_far_as_it_makes_sense() -> None:
    bar = {"t": "2026-01-02T05:00:00Z", "o": 1, "h": 1, "l": 1, "c": 1.25, "v": 900, "vw": 1.5}
    answer = {
        "AAPL": {"prevDailyBar": bar, "dailyBar": bar},
        "MSFT": {"prevDailyBar": bar, "dailyBar": None},
        "NVDA": {"prevDailyBar": None, "dailyBar": bar | {"t": "soon"}},
        "SPY": None,
    }
    began_ns = instant_ns("2026-01-02T05:00:00.000000000Z")
    assert market.days(["AAPL"], feed="iex").decode(json.dumps(answer).encode()) == {
        "AAPL": DaySoFar(Decimal("1.25"), began_ns, Decimal(900), Decimal("1.5")),
        "MSFT": DaySoFar(Decimal("1.25")),
    }
