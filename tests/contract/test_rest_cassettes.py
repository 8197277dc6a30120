"""Every REST call of the client, from its declaration through alpaca-py to the model, against stored answers.

The cassettes in ``cassettes/`` say in their first lines where they come from: they are written from the published schemas'
samples and the wire reference, not recorded, until ``make live`` records over them. With a paper key pair in the
environment the cases marked ``live`` run the same scenarios against the real paper API; keys, account ids and account
numbers are taken out before anything is written. Scenarios find the ids they need in earlier answers, so that they run
on any account, and leave it as it was.
"""

import contextlib
import datetime as dt
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest
import vcr
from vcr.record_mode import RecordMode
from vcr.serializers import yamlserializer

from alpacli.domain.values import Timestamp, from_json, to_json
from alpacli.errors import AlpacaAPIError, AlpacliError, AuthenticationError, NotFound
from alpacli.ports import SystemClock
from alpacli.settings import PAPER_URLS, KeyPair, Secret
from alpacli.wire import rest
from alpacli.wire.alpaca import AlpacaTransport
from alpacli.wire.errors import refusal
from alpacli.wire.rest import Call

T = TypeVar("T")

_CALL: Final = "alpacli.wire.rest.Call["
CASSETTES: Final = Path(__file__).parent / "cassettes"
NOBODY: Final = KeyPair("PKNOBODY", Secret("nothing"), "the tests")
KEPT_HEADERS: Final = (
    "content-type",
    "x-request-id",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
)


class Exchange:
    """Sends one call after the other, following pages, and raises what an answer stands for."""

    def __init__(self, transport: AlpacaTransport) -> None:
        self._transport = transport

    def ask(self, call: Call[T]) -> T:
        page: Any = self._one(call, call.request)
        rows = page
        request = call.request
        while call.next_page is not None and (following := call.next_page(request, page, rows)) is not None:
            request = following
            page = self._one(call, request)
            rows = [*rows, *page]
        value: T = call.trim(rows) if call.trim is not None else rows
        if value is not None:
            assert to_json(call.decode(to_json(value))) == to_json(value), "what the cache holds reads back the same"
        return value

    def _one(self, call: Call[Any], request: Any) -> Any:
        answer = self._transport.send(request, connect_timeout_s=5, read_timeout_s=30)
        if not 200 <= answer.status < 300:
            raise refusal(request, answer, SystemClock().time())
        return call.decode(answer.body)


# --------------------------------------------------------------------------------------------------- scenarios


def account(exchange: Exchange) -> None:
    value = exchange.ask(rest.account())
    assert value.status == "ACTIVE"
    assert value.equity is not None
    assert value.day_pl is not None


def positions(exchange: Exchange) -> None:
    rows = exchange.ask(rest.positions())
    for row in rows:
        assert row.is_short == (row.qty < 0)
    if rows:
        assert exchange.ask(rest.position(rows[0].symbol)).asset_id == rows[0].asset_id


def orders(exchange: Exchange) -> None:
    rows = exchange.ask(rest.orders(status="all", limit=10))
    times = [(row.submitted_at or row.created_at).epoch_ns for row in rows]
    assert times == sorted(times, reverse=True)
    if rows:
        assert exchange.ask(rest.order(rows[0].id)).client_order_id == rows[0].client_order_id
        assert exchange.ask(rest.order_by_client_order_id(rows[0].client_order_id)).id == rows[0].id


def orders_filtered(exchange: Exchange) -> None:
    after = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)
    rows = exchange.ask(
        rest.orders(
            status="closed",
            limit=500,
            after=after,
            until=Timestamp.parse("2026-07-01T00:00:00Z"),
            direction="asc",
            symbols=["AAPL", "BTC/USD"],
            side="buy",
            nested=True,
        )
    )
    assert all(row.side == "buy" and (row.submitted_at or row.created_at) > after for row in rows)


def orders_nested(exchange: Exchange) -> None:
    for row in exchange.ask(rest.orders(status="open", limit=50, nested=True)):
        for leg in row.legs or ():
            assert leg.legs is None, "one level only"


def clock(exchange: Exchange) -> None:
    value = exchange.ask(rest.clock())
    assert value.next_close > value.timestamp
    assert value.is_open == (value.next_close < value.next_open)


def calendar(exchange: Exchange) -> None:
    thanksgiving = exchange.ask(rest.calendar(dt.date(2025, 11, 26), dt.date(2025, 11, 28)))
    assert [day.date.day for day in thanksgiving] == [26, 28]
    assert thanksgiving[1].closes_at.astimezone(dt.UTC).hour == 18, "a half day ends at 13:00 in New York"


def assets(exchange: Exchange) -> None:
    rows = exchange.ask(rest.assets(asset_class="crypto", status="active"))
    assert all(row.asset_class == "crypto" for row in rows)
    apple = exchange.ask(rest.asset("AAPL"))
    assert apple.asset_class == "us_equity"
    assert b'"class":"us_equity"' in to_json(apple)
    assert exchange.ask(rest.asset("BTC/USD")).symbol == "BTC/USD"


def activities(exchange: Exchange) -> None:
    rows = exchange.ask(rest.activities(limit=3))
    assert len(rows) <= 3
    fills = exchange.ask(rest.activities(activity_types=["FILL"], limit=2, direction="asc"))
    assert all(row.is_fill and row.transaction_time is not None for row in fills)
    exchange.ask(rest.activities(category="non_trade_activity", after=dt.date(2026, 6, 1), until=dt.date(2026, 7, 1)))


def portfolio_history(exchange: Exchange) -> None:
    value = exchange.ask(rest.portfolio_history(period="1D", timeframe="15Min", intraday_reporting="market_hours"))
    assert value.timeframe == "15Min"
    assert len(value.points) == len(value.timestamp)
    exchange.ask(rest.portfolio_history(period="1M", timeframe="1D", pnl_reset="no_reset", cashflow_types=["ALL"]))


def watchlists(exchange: Exchange) -> None:
    """Create, list, show, change and delete one list."""
    made = exchange.ask(rest.create_watchlist("alpacli contract", ["AAPL"]))
    try:
        assert made.id in [row.id for row in exchange.ask(rest.watchlists())]
        assert exchange.ask(rest.watchlist(made.id)).name == "alpacli contract"
        assert exchange.ask(rest.watchlist_by_name("alpacli contract")).id == made.id
        grown = exchange.ask(rest.add_to_watchlist(made.id, "MSFT"))
        assert [asset.symbol for asset in grown.assets or ()] == ["AAPL", "MSFT"]
        shrunk = exchange.ask(rest.remove_from_watchlist(made.id, "AAPL"))
        assert [asset.symbol for asset in shrunk.assets or ()] == ["MSFT"]
        renamed = exchange.ask(rest.update_watchlist(made.id, "alpacli contract 2", ["TSLA", "AAPL"]))
        assert [asset.symbol for asset in renamed.assets or ()] == ["TSLA", "AAPL"]
    finally:
        deletion: Call[Any] = rest.delete_watchlist(made.id)
        assert exchange.ask(deletion) is None


def not_found(exchange: Exchange) -> None:
    nowhere = "00000000-0000-4000-8000-000000000000"
    calls: list[Call[Any]] = [rest.order(nowhere), rest.position("ZZZZ"), rest.asset("NOSUCHSYMBOL")]
    for call in calls:
        with pytest.raises(NotFound) as caught:
            exchange.ask(call)
        assert caught.value.hint


def refused(exchange: Exchange) -> None:
    """A limit above 500 is refused by the server: what the paging is for."""
    call = rest.orders(limit=500)
    request = call.request._replace(query=(("status", "open"), ("limit", "501")))
    with pytest.raises(AlpacaAPIError) as caught:
        exchange.ask(call._replace(request=request))
    assert caught.value.status == 422
    assert caught.value.exit_code == 4


def unauthorized(exchange: Exchange) -> None:
    with pytest.raises(AuthenticationError) as caught:
        exchange.ask(rest.account())
    assert caught.value.exit_code == 3


SCENARIOS: Final[dict[str, Callable[[Exchange], None]]] = {
    scenario.__name__: scenario
    for scenario in (
        account,
        positions,
        orders,
        orders_filtered,
        orders_nested,
        clock,
        calendar,
        assets,
        activities,
        portfolio_history,
        watchlists,
        not_found,
        refused,
        unauthorized,
    )
}
every_scenario = pytest.mark.parametrize("name", SCENARIOS)


# --------------------------------------------------------------------------------------------------- replaying


@every_scenario
def test_stored_answers_are_understood(name: str) -> None:
    """The declared request is the stored one, the answer parses, and no stored interaction is left over."""
    player = vcr.VCR(record_mode=RecordMode.NONE, match_on=["method", "scheme", "host", "path", "query", "body"])
    transport = AlpacaTransport(NOBODY, PAPER_URLS["trading"], PAPER_URLS["data"])
    with player.use_cassette(str(CASSETTES / f"{name}.yaml")) as cassette:
        SCENARIOS[name](Exchange(transport))
        assert cassette.all_played
    transport.close()


def test_every_declared_call_has_a_cassette() -> None:
    """A new endpoint in ``wire/rest.py`` needs a scenario here: each declared path and method is among the stored ones."""
    stored = {
        (interaction["request"]["method"], _shape(interaction["request"]["uri"]))
        for path in CASSETTES.glob("*.yaml")
        for interaction in _interactions(path)
    }
    ident = "61e69015-8549-4bfd-b9c3-01e75843f47d"
    declared: list[Call[Any]] = [
        rest.account(),
        rest.positions(),
        rest.position("AAPL"),
        rest.portfolio_history(),
        rest.activities(),
        rest.orders(),
        rest.order(ident),
        rest.order_by_client_order_id("x"),
        rest.clock(),
        rest.calendar(),
        rest.assets(),
        rest.asset("AAPL"),
        rest.watchlists(),
        rest.watchlist(ident),
        rest.watchlist_by_name("x"),
        rest.create_watchlist("x"),
        rest.update_watchlist(ident, "x", []),
        rest.add_to_watchlist(ident, "AAPL"),
        rest.remove_from_watchlist(ident, "AAPL"),
        rest.delete_watchlist(ident),
    ]
    functions = {
        name
        for name, item in vars(rest).items()
        if getattr(item, "__module__", "") == rest.__name__
        and not name.startswith("_")
        and str(getattr(item, "__annotations__", {}).get("return")).startswith(_CALL)
    }
    assert len(functions) == len(declared), "list the new endpoint above"
    for call in declared:
        assert (call.request.method, _shape(call.request.path)) in stored


def test_cassettes_name_their_source_and_hold_no_secret() -> None:
    """The first line says where the answers come from, and no header or body carries a key or a cookie."""
    paths = sorted(CASSETTES.glob("*.yaml"))
    assert {path.stem for path in paths} == set(SCENARIOS)
    for path in paths:
        text = path.read_text(encoding="utf-8")
        assert re.match(r"# (Written from|Recorded from) ", text), path.name
        assert not re.search(r"apca-api|authorization|set-cookie|\b[PA]K[A-Z0-9]{16,}", text, re.IGNORECASE), path.name


def _interactions(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yamlserializer.deserialize(path.read_text(encoding="utf-8"))["interactions"]
    return found


def _shape(uri: str) -> str:
    """Return the path with ids and symbols replaced, so that stored and declared requests compare."""
    path = uri.removeprefix(PAPER_URLS["trading"]).partition("?")[0]
    path = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "ID", path)
    return re.sub(r"/(positions|assets|ID)/[A-Z]+", r"/\1/SYMBOL", path)


# --------------------------------------------------------------------------------------------------- recording


def scrubbed(response: dict[str, Any]) -> dict[str, Any]:
    """Return a response fit to be stored: few headers, nobody's account id or number."""
    headers = {name: values for name, values in response["headers"].items() if name.lower() in KEPT_HEADERS}
    body = response["body"]["string"]
    with contextlib.suppress(ValueError):  # an HTML page or nothing: no account in it
        body = to_json(_anonymous(from_json(body)))
    return {**response, "headers": headers, "body": {"string": body}}


def _anonymous(value: Any) -> Any:
    if isinstance(value, list):
        return [_anonymous(item) for item in value]
    if not isinstance(value, dict):
        return value
    made = {key: _anonymous(item) for key, item in value.items()}
    if "account_number" in made:
        made |= {"account_number": "PA0000000000", "id": "00000000-0000-4000-8000-00000000000a"}
    if "account_id" in made:
        made["account_id"] = "00000000-0000-4000-8000-00000000000a"
    return made


def test_recordings_are_scrubbed_on_the_way_in() -> None:
    """Account ids, account numbers and cookies never reach a file."""
    body = json.dumps([{"account_id": "mine", "x": [{"account_number": "PA123", "id": "me", "n": 1}]}]).encode()
    made = scrubbed({"headers": {"Set-Cookie": ["a"], "X-Request-ID": ["1"]}, "body": {"string": body}})
    assert made["headers"] == {"X-Request-ID": ["1"]}
    assert not re.search(rb"mine|PA123|\"me\"", made["body"]["string"])
    assert scrubbed({"headers": {}, "body": {"string": b"<html>"}})["body"]["string"] == b"<html>"


@pytest.mark.live
@every_scenario
def test_the_real_paper_api_answers_alike(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """The same scenario against the real paper API; what it answered replaces the stored answers."""
    if request.config.getoption("-m") != "live":
        pytest.skip("talks to the real paper API: only `make live` runs it")
    key_id, secret = os.environ.get("ALPACA_API_KEY", ""), os.environ.get("ALPACA_SECRET_KEY", "")
    if not (key_id and secret):
        pytest.skip("no ALPACA_API_KEY and ALPACA_SECRET_KEY in the environment: nothing to compare with")
    pair = NOBODY if name == "unauthorized" else KeyPair(key_id, Secret(secret), "environment")
    recorder = vcr.VCR(
        record_mode=RecordMode.ALL,
        filter_headers=["APCA-API-KEY-ID", "APCA-API-SECRET-KEY", "Authorization", "Cookie"],
        before_record_response=scrubbed,
        decode_compressed_response=True,
    )
    made = tmp_path / f"{name}.yaml"
    transport = AlpacaTransport(pair, PAPER_URLS["trading"], PAPER_URLS["data"])
    try:
        with recorder.use_cassette(str(made)):
            SCENARIOS[name](Exchange(transport))
    except AlpacliError as error:
        pytest.fail(f"{type(error).__name__}: {error}")
    finally:
        transport.close()
    text = made.read_text(encoding="utf-8")
    assert key_id not in text
    assert secret not in text
    head = (
        f"# Recorded from the paper API on {dt.datetime.now(dt.UTC).date()}; keys, account ids and numbers replaced.\n"
    )
    (CASSETTES / f"{name}.yaml").write_text(head + text, encoding="utf-8")
