"""Every refusal becomes one error: by status and code, whatever the body looks like."""

import json
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alpacli.domain.values import Timestamp
from alpacli.errors import (
    AlpacaAPIError,
    AlpacliError,
    AuthenticationError,
    NotFound,
    OrderRejected,
    RateLimited,
    RedirectRefused,
    ServerError,
)
from alpacli.ports import Request, Response
from alpacli.wire.errors import printable, refusal

NOW = 1_800_000_000.0
ACCOUNT = Request("GET", "/v2/account")
ORDER = Request("POST", "/v2/orders")


def refused(
    status: int, body: Any = b"", headers: dict[str, str] | None = None, request: Request = ACCOUNT
) -> AlpacliError:
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    return refusal(request, Response(status, headers or {}, payload), NOW)


@pytest.mark.parametrize(
    ("request_", "status", "body", "expected", "exit_code"),
    [
        (ACCOUNT, 400, {"message": "malformed"}, AlpacaAPIError, 4),
        (ACCOUNT, 401, {"message": "unauthorized."}, AuthenticationError, 3),
        (ACCOUNT, 401, {"code": 40110000, "message": "request is not authorized"}, AuthenticationError, 3),
        (ACCOUNT, 402, {"message": "pay"}, AlpacaAPIError, 4),
        (ACCOUNT, 403, {"message": "forbidden."}, AuthenticationError, 3),
        (ACCOUNT, 403, {"code": 42210000, "message": "subscription"}, AlpacaAPIError, 4),
        (ACCOUNT, 404, b"<html>", NotFound, 4),
        (ACCOUNT, 405, b"", AlpacaAPIError, 4),
        (ACCOUNT, 409, {"code": 1, "message": "x"}, AlpacaAPIError, 4),
        (ACCOUNT, 422, {"code": 40010001, "message": "x"}, AlpacaAPIError, 4),
        (ACCOUNT, 429, {"message": "rate limit exceeded"}, RateLimited, 5),
        (ACCOUNT, 500, {"code": 50010000, "message": "internal"}, ServerError, 6),
        (ACCOUNT, 599, b"", ServerError, 6),
        (ACCOUNT, 304, b"", RedirectRefused, 3),
        (ORDER, 403, {"code": 40310000, "message": "insufficient buying power"}, OrderRejected, 4),
        (ORDER, 403, {"message": "forbidden."}, AuthenticationError, 3),
        (ORDER, 409, {}, OrderRejected, 4),
        (ORDER, 409, {"code": 40910000, "message": "its fate is unknown"}, ServerError, 6),
        (ORDER, 422, {"code": 40010001, "message": "qty must be > 0"}, OrderRejected, 4),
        (Request("DELETE", "/v2/positions/AAPL"), 403, {"code": 40310000}, OrderRejected, 4),
        (Request("GET", "/v2/orders/x"), 404, {"code": 40410000}, NotFound, 4),
        (Request("GET", "/v2/orders/x"), 422, {"code": 40010001, "message": "invalid order id x"}, NotFound, 4),
        (Request("GET", "/v2/positions/A B"), 422, {"code": 40010001, "message": "invalid symbol"}, NotFound, 4),
        (Request("GET", "/v2/orders"), 422, {"code": 40010001, "message": "invalid limit"}, AlpacaAPIError, 4),
        (Request("GET", "/v2/orders"), 403, {"code": 40310000, "message": "no"}, AlpacaAPIError, 4),
        # Whoever looks a lost order up must not take a question that was refused for an order that is not there.
        (Request("GET", "/v2/orders:by_client_order_id"), 422, {"code": 40010001}, AlpacaAPIError, 4),
        (Request("DELETE", "/v2/orders/x"), 422, {"code": 42210000}, OrderRejected, 4),
        (Request("PATCH", "/v2/orders/x"), 422, {"code": 40010001}, OrderRejected, 4),
    ],
)
def test_status_and_code_decide(
    request_: Request, status: int, body: Any, expected: type[AlpacliError], exit_code: int
) -> None:
    error = refused(status, body, request=request_)
    assert type(error) is expected
    assert error.exit_code == exit_code
    assert error.status == status
    assert error.message
    assert error.hint


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        ({"code": 40310000, "message": "no"}, "no", 40310000),
        ({"code": "40310000", "message": "no"}, "no", 40310000),
        ({"code": True, "message": 5}, "the server answered 400 without a reason", None),
        ({"code": "many", "message": ""}, "the server answered 400 without a reason", None),
        ({"code": -1}, "the server answered 400 without a reason", None),
        ({"code": 1.5, "message": "x"}, "x", None),
        ([], "the server answered 400: []", None),
        (b"", "the server answered 400 without a reason", None),
        (b" \n", "the server answered 400 without a reason", None),
        (b"<html><body>502</body>", "the server answered 400 with an HTML page", None),
        (b'{"message": "cut', 'the server answered 400: {"message": "cut', None),
        (b"\xff\xfe", "the server answered 400: \ufffd\ufffd", None),
        (b"upstream\nfailed\x1b[31m", "the server answered 400: upstream failed [31m", None),
    ],
)
def test_any_body_gives_a_message_and_perhaps_a_code(body: Any, message: str, code: int | None) -> None:
    error = refused(400, body)
    assert (error.message, error.code) == (message, code)


@settings(deadline=None)
@given(st.integers(300, 599), st.binary(max_size=300), st.text(max_size=30), st.text(max_size=30))
def test_no_answer_crashes_the_classification(status: int, body: bytes, header: str, location: str) -> None:
    """Whatever bytes come, the result is an error with one printable line."""
    headers = dict.fromkeys(("retry-after", "x-ratelimit-reset", "x-request-id", "content-type"), header)
    error = refused(status, body, {**headers, "location": location})
    assert error.message.isprintable()
    assert len(error.message) < 300
    assert error.retry_after is None or error.retry_after >= 0


def test_long_bodies_are_cut_and_huge_ones_not_parsed() -> None:
    assert len(refused(500, {"message": "x" * 10_000}).message) == 200
    assert len(refused(500, b"y" * 10_000).message) < 240
    assert len(refused(500, b'{"message":"' + b"z" * 2_000_000 + b'"}').message) < 240


def test_further_fields_are_kept_with_their_digits() -> None:
    error = refused(403, b'{"code":40310000,"message":"no","held_for_orders":"5.50","n":1.50}', request=ORDER)
    assert isinstance(error, OrderRejected)
    assert {name: str(value) for name, value in error.details.items()} == {"held_for_orders": "5.50", "n": "1.50"}
    assert "cancel" in error.hint


@pytest.mark.parametrize(
    ("details", "hint"),
    [
        ({"buying_power": "1"}, "alpacli account"),
        ({"existing_order_id": "x"}, "opposite"),
        ({"base_price": "254.63"}, "254.63"),
        ({}, "nothing was done"),
    ],
)
def test_rejections_hint_at_what_helps(details: dict[str, str], hint: str) -> None:
    assert hint in refused(403, {"code": 40310000, "message": "no", **details}, request=ORDER).hint


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/v2/orders/x", "alpacli orders"),
        ("/v2/positions/X", "alpacli positions"),
        ("/v2/assets/X", "alpacli assets"),
        ("/v2/watchlists/x", "alpacli watchlist"),
        ("/v9", "ALPACA_BASE_URL"),
    ],
)
def test_what_is_not_there_hints_at_the_list(path: str, hint: str) -> None:
    assert hint in refused(404, request=Request("GET", path)).hint


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "0"}, 0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "7", "x-ratelimit-reset": str(int(NOW) + 30)}, 7),
        ({"x-ratelimit-reset": str(int(NOW) + 30)}, 30),
        ({"x-ratelimit-reset": str(int(NOW) - 30)}, 0),
        ({"retry-after": "soon", "x-ratelimit-reset": str(int(NOW) + 30)}, 30),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "1e9"}, None),
        ({"x-ratelimit-reset": "nan"}, None),
        ({"retry-after": format_datetime(Timestamp.parse("2027-01-15T08:00:20Z"), usegmt=True)}, 20),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0),
    ],
)
def test_retry_after_wins_over_the_reset(headers: dict[str, str], seconds: float | None) -> None:
    """Seconds or an HTTP date first, then the window's reset, never negative."""
    error = refused(429, {"message": "rate limit exceeded"}, headers)
    assert error.retry_after == seconds
    assert "--max-wait" in error.hint


def test_only_a_wait_that_the_server_asked_for_is_told() -> None:
    """A reset on a 4xx says nothing about when to come back."""
    assert refused(422, {}, {"x-ratelimit-reset": str(int(NOW) + 30)}).retry_after is None
    assert refused(503, b"", {"retry-after": "3"}).retry_after == 3


@pytest.mark.parametrize(
    ("location", "told"),
    [
        ("https://evil.example/v2/account", "to evil.example"),
        ("https://u:p@evil.example:444/", "to evil.example"),
        ("/login", "to another path"),
        ("", "to another path"),
        ("https://[broken", "to another path"),
        ("https://exаmple.com/", "to ex\\u0430mple.com"),
    ],
)
def test_a_redirect_names_the_host_it_did_not_follow(location: str, told: str) -> None:
    error = refused(302, b"", {"location": location})
    assert isinstance(error, RedirectRefused)
    assert told in error.message
    assert "u:p" not in error.message


def test_the_request_id_is_kept_for_support() -> None:
    assert refused(500, b"", {"x-request-id": "abc-123"}).request_id == "abc-123"
    assert refused(500).request_id is None


def test_foreign_text_becomes_one_printable_line() -> None:
    assert printable("a\r\nb\x00c\u202ed") == "a b c d"
    assert printable("x" * 50, 10) == "x" * 9 + "…"
