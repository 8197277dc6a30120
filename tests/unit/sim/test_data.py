"""Market data over REST is what the sockets sent."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.support.fakes import ManualClock

from alpacli.sim.exchange import Exchange
from alpacli.sim.feed import Feed
from alpacli.sim.rest import HttpRequest, handle

HEADERS = {"apca-api-key-id": "PK", "apca-api-secret-key": "s"}


@pytest.fixture
def exchange(tmp_path: Path) -> Exchange:
    made = Exchange(str(tmp_path), ManualClock())
    made.reset(rate_limit=0)
    return made


def get(exchange: Exchange, path: str, **query: str) -> tuple[int, Any]:
    answer = handle(exchange, HttpRequest("GET", path, tuple(query.items()), HEADERS))
    return answer.status, json.loads(answer.body)


@pytest.mark.parametrize("channel", ["trades", "quotes"])
def test_pages_bring_all_that_was_streamed_once_and_in_order(exchange: Exchange, channel: str) -> None:
    now_ns = exchange.now_ns()
    market = exchange.market()
    feed = Feed(market.tape, market.hours)
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


@pytest.mark.parametrize(
    ("path", "symbol"), [("/v2/stocks/snapshots", "AAPL"), ("/v1beta3/crypto/us/snapshots", "BTC/USD")]
)
def test_a_snapshot_has_the_close_before(exchange: Exchange, path: str, symbol: str) -> None:
    status, body = get(exchange, path, symbols=f"{symbol},NOPE")
    assert status == 200
    found = body.get("snapshots", body)
    assert list(found) == [symbol]
    day = found[symbol]["prevDailyBar"]
    assert day["l"] <= day["c"] <= day["h"]
    assert day["c"] == float(exchange.market().tape.previous_close(symbol, exchange.now_ns()))


@pytest.mark.parametrize("query", [{"sort": "desc"}, {"timeframe": "1Day"}, {"page_token": "x|y"}, {"start": "soon"}])
def test_what_it_does_not_have_is_refused(exchange: Exchange, query: dict[str, str]) -> None:
    assert get(exchange, "/v2/stocks/bars", symbols="AAPL", **query)[0] == 422
