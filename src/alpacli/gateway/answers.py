"""What leaves the gateway: envelopes and errors in its own API, Alpaca's form on Alpaca's paths, and what caches are told.

A body is put together from canonical JSON that is never parsed again, so every digit stays. ``ETag`` is a digest of the body.
Caches in front may keep an answer but have to ask each time (``s-maxage=0``), because only here it is known whether a token
still stands; a client's own cache may answer for a second.
"""

import hashlib
import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from fastapi import Request, Response

from alpacli.domain.values import to_json
from alpacli.errors import (
    AlpacaAPIError,
    AlpacliError,
    AuthenticationError,
    BudgetExhausted,
    CircuitOpen,
    FateUnknown,
    NotFound,
    OrderRefused,
    RateLimited,
    RedirectRefused,
    RequestTimeout,
    ServerError,
    StoreUnavailable,
    Unavailable,
    UsageError,
)

JSON: Final = "application/json"
_OWN: Final = "/api/"
_AUTHENTICATES: Final = "Authorization, APCA-API-KEY-ID, APCA-API-SECRET-KEY"
_CODES: Final = {
    400: 40010000,
    401: 40110000,
    404: 40410000,
    405: 40510000,
    408: 40810000,
    409: 40910000,
    413: 41310000,
}
_CODES_OF_REFUSALS: Final = {403: 40310000, 414: 41410000, 422: 40010001, 429: 42910000}


class Refused(AlpacliError):
    """A request that no route decides about: no such path, too large, too slow, a secret in its URL; see ``status``."""

    exit_code = 2


class Answer(NamedTuple):
    """A body that may be sent again, its digest, and the monotonic second until which it counts as fresh."""

    body: bytes
    etag: str
    fresh_until: float
    content_type: str = JSON


def enveloped(data: bytes, count: int, asked: Mapping[str, object]) -> bytes:
    """Return the success envelope around canonical JSON; ``asked`` is what the client chose, for ``filter``."""
    return b'{"success":true,"data":%b,"count":%d,"filter":%b}' % (data, count, to_json(dict(asked)))


def answer(body: bytes, fresh_until: float, content_type: str = JSON) -> Answer:
    return Answer(body, f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"', fresh_until, content_type)


def cache_headers(answer: Answer, now: float) -> list[tuple[bytes, bytes]]:
    """Return what tells caches about an answer to a GET."""
    own_s = 1 if answer.fresh_until - now >= 1.0 else 0
    return [
        (b"etag", answer.etag.encode()),
        (b"cache-control", b"public, max-age=%d, s-maxage=0, must-revalidate" % own_s),
        (b"vary", _AUTHENTICATES.encode()),
    ]


def matches(if_none_match: str, etag: str) -> bool:
    """Tell whether the client has this very answer already (``If-None-Match``)."""
    given = [item.strip().removeprefix("W/") for item in if_none_match.split(",")]
    return etag in given or "*" in given


def respond(request: Request, answer: Answer, now: float, more: Mapping[str, str] | None = None) -> Response:
    """Answer a GET: in full, or with 304 when the client has it."""
    known = matches(request.headers.get("if-none-match", ""), answer.etag)
    response = Response(b"" if known else answer.body, 304 if known else 200)
    for name, value in cache_headers(answer, now):
        response.headers[name.decode()] = value.decode()
    for header, text in (more or {}).items():
        response.headers[header] = text
    if known:
        del response.headers["content-length"]
    else:
        response.headers["content-type"] = answer.content_type
    return response


def success(data: object, asked: Mapping[str, object] | None = None, *, status: int = 200) -> Response:
    """Answer a request that changed something, or that is not worth keeping."""
    count = len(data) if isinstance(data, list | tuple) else int(data is not None)
    return Response(enveloped(to_json(data), count, asked or {}), status, media_type=JSON)


def status_of(error: AlpacliError) -> int:
    """Return the HTTP status that says what went wrong.

    An order whose fate is unknown is 409: SDKs and Alpaca's own tools repeat an order after 429, 500, 502, 503 and 504.
    """
    for kinds, status in _STATUS:
        if isinstance(error, kinds):
            return status
    if isinstance(error, AlpacaAPIError) and error.status is not None and 400 <= error.status < 500:
        # What Alpaca says of our keys is no word about the client's.
        return 502 if isinstance(error, AuthenticationError) and error.status == 401 else error.status
    return error.status or 503  # 401 to 414 of our own; a defect; else the gateway's own configuration


_STATUS: Final[tuple[tuple[tuple[type[AlpacliError], ...], int], ...]] = (
    ((UsageError,), 422),
    ((OrderRefused,), 403),
    ((BudgetExhausted, RateLimited), 429),
    ((FateUnknown,), 409),
    ((NotFound,), 404),
    ((RequestTimeout,), 504),
    ((CircuitOpen, StoreUnavailable), 503),
    ((Unavailable, ServerError, RedirectRefused), 502),
)


def refusal(path: str, error: AlpacliError) -> Response:
    """Answer with an error: Alpaca's own where it gave one and its paths were used, else ours in the form of the path."""
    status = status_of(error)
    content_type = JSON
    if path.startswith(_OWN):
        told: dict[str, Any] = {**error.as_dict(), "status": status}
        if isinstance(error, AlpacaAPIError) and error.details:
            told["details"] = error.details
        body = to_json({"success": False, "error": told})
    elif isinstance(error, AlpacaAPIError) and error.body and error.status != 401:
        status, body = error.status or status, error.body
        content_type = JSON if body.lstrip()[:1] in (b"{", b"[") else "text/plain; charset=utf-8"
    else:
        code = error.code or _CODES.get(status) or _CODES_OF_REFUSALS.get(status) or status * 100_000 + 10_000
        told = {"code": code, "message": error.message}
        if error.hint:  # in the message for the SDKs, which show nothing else, and by itself for our own client
            told |= {"message": f"{error.message}; {error.hint}", "hint": error.hint}
        body = to_json(told)
    response = Response(body, status, media_type=content_type)
    response.headers["cache-control"] = "no-store"
    if status == 401:
        response.headers["www-authenticate"] = 'Bearer realm="alpacli"'
    if status in (429, 503):
        response.headers["retry-after"] = str(max(math.ceil(error.retry_after or 0.0), 1))
    return response
