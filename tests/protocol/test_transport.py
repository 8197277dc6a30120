"""The transport against real sockets: one request per call, a bounded time, and an error of the tree for every bad day."""

import gc
import gzip
import json
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.support.origin import Origin, Reply, Seen

from alpacli.errors import (
    AlpacaAPIError,
    AlpacliError,
    AuthenticationError,
    ConnectionLost,
    NotFound,
    OrderRejected,
    RateLimited,
    RedirectRefused,
    RequestTimeout,
    ServerError,
    UnreadableAnswer,
)
from alpacli.ports import Request, Response
from alpacli.settings import KeyPair, Secret
from alpacli.wire import rest
from alpacli.wire.alpaca import AlpacaTransport
from alpacli.wire.errors import refusal

KEY_ID, SECRET = "PKTESTKEYID", "s3cr3t-v4lue"
ACCOUNT = {"id": "6f3f8f0a", "account_number": "PA3", "status": "ACTIVE", "equity": "100020.2500000000000000001"}
NOW = 1_800_000_000.0


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


@pytest.fixture
def transport(origin: Origin) -> Iterator[AlpacaTransport]:
    made = AlpacaTransport(KeyPair(KEY_ID, Secret(SECRET), "the tests"), origin.url, origin.url)
    yield made
    made.close()
    gc.collect()


def get(transport: AlpacaTransport, path: str = "/v2/account", *, read_timeout_s: float = 5.0) -> Response:
    return transport.send(Request("GET", path), connect_timeout_s=2, read_timeout_s=read_timeout_s)


def read_account(transport: AlpacaTransport, *, read_timeout_s: float = 5.0) -> object:
    """Do what the pipeline does with one request: send, classify, decode."""
    call = rest.account()
    answer = transport.send(call.request, connect_timeout_s=2, read_timeout_s=read_timeout_s)
    if not 200 <= answer.status < 300:
        raise refusal(call.request, answer, NOW)
    return call.decode(answer.body)


def test_a_request_carries_keys_query_and_agent(origin: Origin, transport: AlpacaTransport) -> None:
    """The server sees the key pair, the decoded query, and who is asking."""
    origin.reply("/v2/", Reply(body=[]))
    query = (("symbols", "AAPL,BTC/USD"), ("after", "2026-01-02T03:04:05+00:00"), ("name", "a b+c"))
    transport.send(Request("GET", "/v2/orders", query), connect_timeout_s=2, read_timeout_s=5)
    seen = origin.requests[0]
    assert (seen.method, seen.path) == ("GET", "/v2/orders")
    assert seen.query == {"symbols": ["AAPL,BTC/USD"], "after": ["2026-01-02T03:04:05+00:00"], "name": ["a b+c"]}
    assert seen.headers["apca-api-key-id"] == KEY_ID
    assert seen.headers["apca-api-secret-key"] == SECRET
    assert seen.headers["user-agent"].startswith("alpacli/")
    assert "(alpaca-py)" in seen.headers["user-agent"]


def test_a_body_is_sent_byte_for_byte(origin: Origin, transport: AlpacaTransport) -> None:
    """JSON text goes out as given: nothing between here and the broker rewrites a number."""
    origin.reply("/v2/watchlists", Reply(body={}))
    body = b'{"symbols":["AAPL"],"qty":1.50}'
    transport.send(Request("POST", "/v2/watchlists", body=body), connect_timeout_s=2, read_timeout_s=5)
    assert origin.requests[0].body == body
    assert origin.requests[0].headers["content-type"] == "application/json"


def test_encoded_path_segments_stay_encoded(origin: Origin, transport: AlpacaTransport) -> None:
    origin.reply("/v2/", Reply(body={}))
    get(transport, "/v2/watchlists/a%20b%2Fc")
    assert origin.requests[0].path == "/v2/watchlists/a%20b%2Fc"


def test_an_answer_keeps_headers_and_digits(origin: Origin, transport: AlpacaTransport) -> None:
    """Header names come in lower case, the body is the server's bytes, and the model has every digit."""
    headers = {"X-RateLimit-Remaining": "199", "X-Request-ID": "abc"}
    origin.reply("/v2/account", Reply(body=ACCOUNT, headers=headers))
    answer = get(transport)
    assert answer.headers["x-ratelimit-remaining"] == "199"
    assert answer.headers["x-request-id"] == "abc"
    assert answer.body == json.dumps(ACCOUNT).encode()
    assert str(rest.account().decode(answer.body).equity) == "100020.2500000000000000001"


def test_compressed_answers_are_decoded(origin: Origin, transport: AlpacaTransport) -> None:
    origin.reply(
        "/v2/account", Reply(body=gzip.compress(json.dumps(ACCOUNT).encode()), headers={"Content-Encoding": "gzip"})
    )
    assert json.loads(get(transport).body) == ACCOUNT


@pytest.mark.parametrize("status", [200, 204, 400, 401, 403, 404, 409, 422, 429, 500, 502, 503, 504])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_exactly_one_request_goes_out_whatever_is_answered(
    origin: Origin, transport: AlpacaTransport, status: int, method: str
) -> None:
    """alpaca-py alone would send a 429 or 504 four times, orders included."""
    origin.reply("/v2/orders", Reply(status, {"message": "x"}))
    request = Request("POST", "/v2/orders", body=b"{}") if method == "POST" else Request("GET", "/v2/orders")
    request = request._replace(method="DELETE") if method == "DELETE" else request
    assert transport.send(request, connect_timeout_s=2, read_timeout_s=5).status == status
    assert len(origin.requests) == 1


@pytest.mark.parametrize(
    ("reply", "expected", "retryable"),
    [
        (Reply(500, {"code": 50010000, "message": "internal server error occurred"}), ServerError, True),
        (Reply(502, b"<html><h1>Bad Gateway</h1></html>", {"Content-Type": "text/html"}), ServerError, True),
        (Reply(503, b""), ServerError, True),
        (Reply(504, b"upstream timed out"), ServerError, True),
        (Reply(429, {"message": "rate limit exceeded"}, {"Retry-After": "7"}), RateLimited, True),
        (Reply(429, b""), RateLimited, True),
        (Reply(401, {"message": "unauthorized."}), AuthenticationError, False),
        (Reply(401, b"<html>no</html>", {"Content-Type": "text/html"}), AuthenticationError, False),
        (Reply(403, {"message": "forbidden."}), AuthenticationError, False),
        (Reply(404, {"code": 40410000, "message": "account not found"}), NotFound, False),
        (Reply(422, {"code": 40010001, "message": "invalid"}), AlpacaAPIError, False),
        (Reply(301, b"", {"Location": "https://evil.example/v2/account"}), RedirectRefused, False),
        (Reply(200, b""), UnreadableAnswer, False),
        (Reply(200, b"<!doctype html><p>Login</p>", {"Content-Type": "text/html"}), UnreadableAnswer, False),
        (Reply(200, b'{"id": "6f3f8f0a", "account_nu'), UnreadableAnswer, False),
        (Reply(200, {**ACCOUNT, "equity": {"oh": 1}}), UnreadableAnswer, False),
        (Reply(200, {**ACCOUNT, "equity": "NaN"}), UnreadableAnswer, False),
        (Reply(200, [ACCOUNT]), UnreadableAnswer, False),
        (Reply(200, b'{"id": NaN}'), UnreadableAnswer, False),
        (Reply(200, b"\xff\xfe\x00"), UnreadableAnswer, False),
        (Reply(200, b'{"a":' * 100_000), UnreadableAnswer, False),
        (Reply(200, ACCOUNT, {"Content-Encoding": "gzip"}), UnreadableAnswer, False),
        (Reply(fault="close"), ConnectionLost, True),
        (Reply(body=ACCOUNT, fault="reset"), ConnectionLost, True),
        (Reply(body=ACCOUNT, fault="truncate"), ConnectionLost, True),
    ],
    ids=lambda value: f"{value.status}-{value.fault or len(value.payload())}" if isinstance(value, Reply) else "",
)
def test_every_bad_answer_has_its_error(
    origin: Origin, transport: AlpacaTransport, reply: Reply, expected: type[AlpacliError], *, retryable: bool
) -> None:
    """Each bad day ends in one class of the tree, with a hint, after one request, and without the keys in its text."""
    origin.reply("/v2/account", reply)
    with pytest.raises(expected) as caught:
        read_account(transport)
    assert type(caught.value) is expected
    assert caught.value.retryable is retryable
    assert caught.value.hint
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 300
    assert len(origin.requests) == 1
    assert_no_secret(caught.value)


def assert_no_secret(error: BaseException) -> None:
    """Look through the error and all it was made from: a verbose traceback prints those too."""
    at: BaseException | None = error
    while at is not None:
        assert SECRET not in repr(at) + str(at) + repr(getattr(at, "__dict__", {}))
        assert KEY_ID not in repr(at) + str(at)
        at = at.__cause__ or at.__context__


@pytest.mark.parametrize(
    "reply", [Reply(fault="hang"), Reply(body=ACCOUNT, fault="drip", drip_s=0.1)], ids=["hang", "drip"]
)
def test_a_slow_server_cannot_hold_a_call_beyond_its_timeout(
    origin: Origin, transport: AlpacaTransport, reply: Reply
) -> None:
    """The read timeout bounds the whole answer, even when a byte arrives every tenth of a second."""
    origin.reply("/v2/account", reply)
    began = time.monotonic()
    with pytest.raises(RequestTimeout) as caught:
        get(transport, read_timeout_s=0.4)
    assert time.monotonic() - began < 20
    assert len(origin.requests) == 1
    assert_no_secret(caught.value)


def test_the_timeout_counts_from_the_request_not_from_the_last_byte(origin: Origin, transport: AlpacaTransport) -> None:
    """Headers after 2.5 s leave the body half a second of a timeout of three, not another three."""
    origin.reply("/v2/account", Reply(body=ACCOUNT, delay_s=2.5, fault="drip", drip_s=60))
    began = time.monotonic()
    with pytest.raises(RequestTimeout):
        get(transport, read_timeout_s=3.0)
    assert time.monotonic() - began < 5.3


def test_headers_that_drip_are_bounded_too(origin: Origin, transport: AlpacaTransport) -> None:
    """A server that never finishes its headers is as slow as one that never finishes its body."""
    with Dripping() as url:
        made = AlpacaTransport(KeyPair(KEY_ID, Secret(SECRET), "the tests"), url, url)
        began = time.monotonic()
        with pytest.raises(RequestTimeout):
            get(made, read_timeout_s=0.4)
        assert time.monotonic() - began < 20
        made.close()


class Dripping:
    """A server that answers with a header line every 0.1 s, for ever."""

    def __enter__(self) -> str:
        import socket

        self._listener = socket.create_server(("127.0.0.1", 0))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(5)
        self._listener.close()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
            while not self._stop.wait(0.1):
                try:
                    connection.sendall(b"X-A: b\r\n")
                except OSError:
                    return


def test_a_connection_is_good_again_after_a_slow_answer(origin: Origin, transport: AlpacaTransport) -> None:
    """A timeout costs one call, not the next one, whose deadline begins anew on the kept connection."""
    origin.reply("/v2/account", Reply(body=ACCOUNT, delay_s=0.3))
    for _ in range(3):
        assert get(transport, read_timeout_s=0.6).status == 200


def test_nobody_listening_is_a_lost_connection(transport: AlpacaTransport, origin: Origin) -> None:
    origin.close()
    with pytest.raises(ConnectionLost, match="refused") as caught:
        get(transport)
    assert_no_secret(caught.value)


def test_a_20_mb_answer_is_read_and_parsed(origin: Origin, transport: AlpacaTransport) -> None:
    """The list of all assets has tens of thousands of rows; none is lost."""
    row = {
        "id": "b0b6dd9d-8b9b-48a9-ba46-b9d54906e415",
        "class": "us_equity",
        "exchange": "NASDAQ",
        "symbol": "AAPL",
        "name": "x" * 800,
        "status": "active",
        "tradable": True,
        "marginable": True,
        "shortable": True,
        "fractionable": True,
    }
    body = json.dumps([row] * 21_000).encode()
    assert len(body) > 20_000_000
    origin.reply("/v2/assets", Reply(body=body))
    rows = rest.assets().decode(get(transport, "/v2/assets", read_timeout_s=30).body)
    assert len(rows) == 21_000


def test_an_endless_body_is_cut_at_64_mb(origin: Origin, transport: AlpacaTransport) -> None:
    """A compressed bomb ends as an unreadable answer, not as an exhausted machine."""
    bomb = gzip.compress(b" " * (65 * 1024 * 1024), 9)
    origin.reply("/v2/account", Reply(body=bomb, headers={"Content-Encoding": "gzip"}))
    with pytest.raises(UnreadableAnswer, match="64 MB"):
        get(transport, read_timeout_s=30)


def test_a_redirect_is_answered_not_followed(origin: Origin, transport: AlpacaTransport) -> None:
    """The keys never travel to where a redirect points, not even on the same machine."""
    with Origin() as elsewhere:
        elsewhere.reply("/", Reply(body=ACCOUNT))
        for status in (301, 302, 303, 307, 308):
            origin.reply("/v2/account", Reply(status, headers={"Location": f"{elsewhere.url}/v2/account"}))
            assert get(transport).status == status
        assert elsewhere.requests == []


def test_many_threads_share_one_transport(origin: Origin, transport: AlpacaTransport) -> None:
    """Each thread gets the answer to its own question."""

    def echo(seen: Seen) -> Reply:
        return Reply(body={"asked": seen.path})

    origin.answer("/v2/", echo)
    paths = [f"/v2/orders/{number}" for number in range(200)]
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda path: get(transport, path), paths))
    assert [json.loads(answer.body)["asked"] for answer in answers] == paths


def test_connections_are_kept(origin: Origin, transport: AlpacaTransport) -> None:
    """Calls one after the other use one connection: the port they come from stays the same."""
    origin.reply("/v2/account", Reply(body=ACCOUNT))
    for _ in range(5):
        get(transport)
    assert origin.connections == 1


def test_cookies_are_not_carried_from_call_to_call(origin: Origin, transport: AlpacaTransport) -> None:
    origin.reply("/v2/account", Reply(body=ACCOUNT, headers={"Set-Cookie": "session=1; Path=/"}))
    get(transport)
    get(transport)
    assert "cookie" not in origin.requests[1].headers


def test_neither_netrc_nor_a_proxy_touches_a_loopback_call(
    origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ~/.netrc entry must not replace the key headers, and a proxy must not see what is meant for this machine."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password mine\n")
    with Origin() as proxy:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        made = AlpacaTransport(KeyPair(KEY_ID, Secret(SECRET), "the tests"), origin.url, origin.url)
        origin.reply("/v2/account", Reply(body=ACCOUNT))
        assert get(made).status == 200
        made.close()
        assert proxy.requests == []
    assert "authorization" not in origin.requests[0].headers


def test_a_proxy_carries_calls_to_other_hosts_and_netrc_adds_nothing(
    origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond this machine the environment's proxy is used, and the key headers are the only credentials."""
    (tmp_path / ".netrc").write_text("machine paper.invalid login me password mine\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("http_proxy", origin.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    origin.reply("/v2/account", Reply(body=ACCOUNT))
    made = AlpacaTransport(KeyPair(KEY_ID, Secret(SECRET), "the tests"), "http://paper.invalid", "http://data.invalid")
    assert get(made).status == 200
    origin.reply("/v2/account", Reply(fault="hang"))
    with pytest.raises(RequestTimeout):
        get(made, read_timeout_s=0.3)
    made.close()
    assert "authorization" not in origin.requests[0].headers
    assert origin.requests[0].headers["host"] == "paper.invalid"


def test_trading_and_data_go_to_their_own_hosts(origin: Origin) -> None:
    with Origin() as data:
        data.reply("/v2/stocks", Reply(body={}))
        made = AlpacaTransport(KeyPair(KEY_ID, Secret(SECRET), "the tests"), origin.url, data.url)
        made.send(Request("GET", "/v2/stocks/bars", host="data"), connect_timeout_s=2, read_timeout_s=5)
        made.close()
        assert [seen.path for seen in data.requests] == ["/v2/stocks/bars"]
    assert origin.requests == []


def test_order_rejections_carry_the_broker_s_details(origin: Origin, transport: AlpacaTransport) -> None:
    body = {"code": 40310000, "message": "insufficient buying power", "buying_power": "10", "cost_basis": "20"}
    origin.reply("/v2/orders", Reply(403, body, {"X-Request-ID": "r-1"}))
    request = Request("POST", "/v2/orders", body=b"{}")
    answer = transport.send(request, connect_timeout_s=2, read_timeout_s=5)
    error = refusal(request, answer, NOW)
    assert isinstance(error, OrderRejected)
    assert (error.status, error.code, error.request_id) == (403, 40310000, "r-1")
    assert error.details == {"buying_power": "10", "cost_basis": "20"}


@pytest.mark.parametrize("location", ["http://[::1", "http://[bad]/x", "//\xe9", "http://a:99999999/", ""])
def test_a_redirect_to_nowhere_is_an_answer_too(origin: Origin, transport: AlpacaTransport, location: str) -> None:
    """A Location that is no URL is refused like any other redirect: nobody parses it on the way."""
    origin.reply("/v2/account", Reply(302, b"x", {"Location": location}))
    with pytest.raises(RedirectRefused):
        read_account(transport)


def test_a_forked_process_does_not_speak_on_its_parents_connection(origin: Origin, transport: AlpacaTransport) -> None:
    """Two processes on one kept-alive connection would read each other's answers."""
    origin.reply("/v2/account", Reply(body=ACCOUNT))
    get(transport)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if get(transport).status == 200 else 1
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    get(transport)
    assert origin.connections == 2
