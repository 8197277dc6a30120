"""The REST face: who is let in, how often, and how it says no."""

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.examples import examples
from tests.support.fakes import ManualClock
from tests.support.sim_account import SimAccount

from alpacli.ports import Request
from alpacli.sim.call import parse_instant
from alpacli.sim.rest import HttpRequest, handle
from alpacli.sim.transport import SimTransport


@pytest.mark.parametrize("headers", [{}, {"apca-api-key-id": "PK"}, {"apca-api-secret-key": "s"}])
def test_a_request_without_a_key_pair_is_401(account: SimAccount, headers: dict[str, str]) -> None:
    """Alpaca's body, which has no code."""
    answer = handle(account.exchange, HttpRequest("GET", "/v2/account", headers=headers))
    assert (answer.status, json.loads(answer.body)) == (401, {"message": "unauthorized."})
    assert answer.headers["X-Request-ID"]
    assert answer.headers["X-RateLimit-Limit"] == "200"


def test_each_key_pair_is_an_account_of_its_own(tmp_path: Path) -> None:
    """Any pair is accepted; another secret is another account; the same pair finds its account again."""
    with SimAccount(tmp_path, key_id="PKONE") as one, SimAccount(tmp_path, key_id="PKTWO") as two:
        one.trade("AAPL", "buy", "1")
        assert one.get("/v2/account")["id"] != two.get("/v2/account")["id"]
        assert two.get("/v2/positions") == []
        wrong = HttpRequest(
            "GET", "/v2/positions", headers={"apca-api-key-id": "PKONE", "apca-api-secret-key": "other"}
        )
        assert handle(one.exchange, wrong).body == b"[]"
    with SimAccount(tmp_path, key_id="PKONE") as again:
        assert len(again.get("/v2/positions")) == 1


def test_keys_are_not_kept(tmp_path: Path) -> None:
    """The state holds a hash of the pair, neither key id nor secret."""
    with SimAccount(tmp_path, key_id="PKVERYSECRETKEYID") as account:
        account.get("/v2/account")
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"PKVERYSECRETKEYID" not in kept
    assert b"secret\x00" not in kept
    assert (tmp_path / "sim.sqlite").stat().st_mode & 0o077 == 0


def test_the_account_sim_is_the_same_whatever_the_secret(tmp_path: Path) -> None:
    """In process and over HTTP the key id SIM is one account."""
    clock = ManualClock()
    transport = SimTransport(str(tmp_path), clock)
    mine = transport.send(Request("GET", "/v2/account"), connect_timeout_s=1, read_timeout_s=1)
    transport.close()
    with SimAccount(tmp_path, clock, key_id="SIM") as account:
        assert account.get("/v2/account")["id"] == json.loads(mine.body)["id"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/v2"),
        ("GET", "/v2/account/"),
        ("GET", "/v2/nonsense"),
        ("GET", "/v2/stocks/auctions"),
        ("DELETE", "/v2/account"),
        ("POST", "/v2/account"),
    ],
)
def test_what_is_not_served_is_404(account: SimAccount, method: str, path: str) -> None:
    """No stub answers for what the exchange cannot do."""
    answer = account.send(method, path)
    assert answer.status == 404
    assert json.loads(answer.body) == {"code": 40410000, "message": "endpoint not found."}


@pytest.mark.parametrize(
    "path",
    [
        *("/v2/positions/AAPL?qty=", "/v2/positions/AAPL?percentage=", "/v2/positions/AAPL?percentage=%20"),
        *("/v2/positions/AAPL?qty=half", "/v2/positions/AAPL?percentage=all", "/v2/positions/AAPL?qty=1&qty=2"),
        *("/v2/positions?cancel_orders=maybe", "/v2/positions?cancel_orders=false&cancel_orders=true"),
    ],
)
def test_how_much_to_close_is_never_guessed(account: SimAccount, path: str) -> None:
    account.trade("AAPL", "buy", "3")
    path, _, query = path.partition("?")
    request = HttpRequest("DELETE", path, tuple(parse_qsl(query, keep_blank_values=True)), account.headers)
    assert handle(account.exchange, request).status == 422
    assert account.get("/v2/positions/AAPL")["qty"] == "3"


def test_every_answer_tells_the_rate_limit_and_a_fresh_request_id(account: SimAccount) -> None:
    """Remaining counts down within the minute, errors included, and Reset is the minute's end in epoch seconds."""
    answers = [account.send("GET", path) for path in ("/v2/account", "/v2/nonsense", "/v2/clock")]
    assert [answer.headers["X-RateLimit-Remaining"] for answer in answers] == ["199", "198", "197"]
    reset = int(answers[0].headers["X-RateLimit-Reset"])
    assert account.clock.time() < reset <= account.clock.time() + 60
    assert len({answer.headers["X-Request-ID"] for answer in answers}) == 3


def test_the_201st_request_of_a_minute_is_429_until_the_window_turns(account: SimAccount) -> None:
    """The limit is counted per account; the next minute starts afresh."""
    for _ in range(200):
        assert account.send("GET", "/v2/clock").status == 200
    refused = account.send("GET", "/v2/clock")
    assert refused.status == 429
    assert json.loads(refused.body)["code"] == 42910000
    assert refused.headers["X-RateLimit-Remaining"] == "0"
    account.clock.advance(int(refused.headers["X-RateLimit-Reset"]) - account.clock.time())
    assert account.send("GET", "/v2/clock").status == 200


def test_the_rate_limit_can_be_switched_off(account: SimAccount) -> None:
    """With 0 nothing is counted, and no headers claim that something is."""
    account.exchange.reset(rate_limit=0)
    answers = [account.send("GET", "/v2/clock") for _ in range(250)]
    assert {answer.status for answer in answers} == {200}
    assert "X-RateLimit-Limit" not in answers[0].headers


@pytest.mark.parametrize("body", [b"{", b"[]", b"3", b"\xff", b'{"name": "\\ud800"}', b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_400(account: SimAccount, body: bytes) -> None:
    """Malformed JSON is the request's fault (wire reference 3.1)."""
    headers = {"apca-api-key-id": "PKTEST", "apca-api-secret-key": "secret"}
    answer = handle(account.exchange, HttpRequest("POST", "/v2/watchlists", (), headers, body))
    assert answer.status == 400


@pytest.mark.parametrize(
    ("text", "expected_ns"),
    [
        ("2026-06-01T12:00:00Z", 1_780_315_200_000_000_000),
        ("2026-06-01T08:00:00-04:00", 1_780_315_200_000_000_000),
        ("2026-06-01T12:00:00 00:00", 1_780_315_200_000_000_000),
        ("2026-06-01T12:00:00", 1_780_315_200_000_000_000),
        ("2026-06-01T12:00:00.000000001Z", 1_780_315_200_000_000_001),
        ("2026-06-01T12:00:00.1234567899+00:00", 1_780_315_200_123_456_789),
        ("2026-06-01", 1_780_286_400_000_000_000),
    ],
)
def test_instants_keep_their_nanoseconds_in_any_offset(text: str, expected_ns: int) -> None:
    """RFC 3339 as clients write it, a plus sign lost to form decoding included; a date is its New York midnight."""
    assert parse_instant("after", text) == expected_ns


def test_the_clock_speaks_new_york_time(account: SimAccount) -> None:
    """An offset of New York, and open round the clock by default."""
    clock = account.get("/v2/clock")
    assert clock["timestamp"] == "2026-05-28T16:26:40-04:00"
    assert clock["is_open"] is True
    assert clock["next_open"] == clock["next_close"] == "2026-05-29T00:00:00-04:00"


def test_on_nyse_hours_the_clock_and_the_calendar_are_the_exchanges(account: SimAccount) -> None:
    """reset --hours xnys: the test's moment is half past four in the afternoon, after the close."""
    account.exchange.reset(hours="xnys")
    clock = account.get("/v2/clock")
    assert (clock["is_open"], clock["next_open"]) == (False, "2026-05-29T09:30:00-04:00")
    days = account.get("/v2/calendar", start="2026-05-23", end="2026-05-27")
    assert [day["date"] for day in days] == ["2026-05-26", "2026-05-27"]
    settled = account.get("/v2/calendar", start="2026-05-26", end="2026-05-26", date_type="SETTLEMENT")
    assert [day["date"] for day in settled] == ["2026-05-22"]


def test_assets_can_be_filtered_and_found(account: SimAccount) -> None:
    """US equities unless another class is asked for; a symbol's id never changes."""
    assert (
        len(account.get("/v2/assets")) == len(account.get("/v2/assets", asset_class="us_equity", status="active")) > 50
    )
    assert {row["class"] for row in account.get("/v2/assets", asset_class="crypto")} == {"crypto"}
    assert account.get("/v2/assets", status="inactive") == []
    assert {row["exchange"] for row in account.get("/v2/assets", exchange="ARCA")} == {"ARCA"}
    assert account.get("/v2/assets", attributes="ipo") == []
    apple = account.get("/v2/assets/AAPL")
    assert account.get(f"/v2/assets/{apple['id']}") == apple
    assert account.get("/v2/assets/BTC/USD")["symbol"] == "BTC/USD"
    assert account.refused("/v2/assets/aapl") == (404, {"code": 40410000, "message": "asset not found for aapl"})


_PATHS = st.sampled_from(
    [
        *("/v2/account", "/v2/account/activities", "/v2/account/activities/FILL", "/v2/account/portfolio/history"),
        *(
            "/v2/positions",
            "/v2/positions/AAPL",
            "/v2/positions/",
            "/v2/orders",
            "/v2/orders/x",
            "/v2/calendar",
            "/v2/clock",
        ),
        *("/v2/orders:by_client_order_id", "/v2/assets", "/v2/assets/x", "/v2/watchlists", "/v2/watchlists:by_name"),
        *("/v2/watchlists/x", "/v2/watchlists/x/y", "/v2/account/configurations"),
    ]
)
_NAMES = st.sampled_from(
    [
        *("status", "limit", "after", "until", "direction", "nested", "symbols", "side", "asset_class", "date_type"),
        *(
            "before_order_id",
            "after_order_id",
            "start",
            "end",
            "period",
            "timeframe",
            "date",
            "page_size",
            "page_token",
        ),
        *("activity_types", "category", "pnl_reset", "cashflow_types", "intraday_reporting", "name", "client_order_id"),
    ]
)
_VALUES = st.one_of(
    st.text(max_size=12),
    st.dates().map(str),
    st.datetimes().map(lambda moment: moment.isoformat() + "Z"),
    st.sampled_from(
        ["0001-01-01", "9999-12-31", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "1D", "9999A", "2030A"]
    ),
    st.sampled_from(["1Min", "all", "asc", "true", "\x00", "٣", "1" * 400, "-1", "10", "2026-06-01", "FILL", "ALL"]),
    st.just("61e69015-8549-4bfd-b9c3-01e75843f47d"),
)


@settings(max_examples=examples(50), deadline=None)
@given(
    method=st.sampled_from(["GET", "GET", "GET", "POST", "PUT", "PATCH", "DELETE"]),
    path=_PATHS,
    query=st.dictionaries(_NAMES, _VALUES, max_size=4),
    body=st.one_of(
        st.just(b""),
        st.binary(max_size=20),
        st.dictionaries(
            st.sampled_from(["name", "symbols", "symbol", "suspend_trade", "max_margin_multiplier"]),
            st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), st.lists, max_leaves=3),
        ).map(lambda value: json.dumps(value).encode()),
    ),
)
def test_no_request_breaks_the_exchange(
    shared: SimAccount, method: str, path: str, query: dict[str, str], body: bytes
) -> None:
    """Whatever is asked, the answer is one of Alpaca's, in JSON with a message where it is no."""
    headers = {"apca-api-key-id": "PKTEST", "apca-api-secret-key": "secret"}
    answer = handle(shared.exchange, HttpRequest(method, path, tuple(query.items()), headers, body))
    assert answer.status in (200, 204, 207, 400, 403, 404, 422)
    if answer.status >= 400:
        assert {"code", "message"} <= json.loads(answer.body).keys()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimAccount]:
    with SimAccount(tmp_path_factory.mktemp("sim")) as account:
        account.exchange.reset(rate_limit=0)
        account.trade("AAPL", "buy", "1")
        yield account
