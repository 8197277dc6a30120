"""Turns every answer that is not a success into one error of the tree, whatever its body looks like.

Status and ``code`` decide, never the text: Alpaca keeps the first two stable and rewrites the third. Bodies are JSON objects,
JSON without a code (authentication, the data host), HTML from the edge, or nothing, so nothing here trusts the body's
shape; what is shown of it is short and printable, since it goes to a terminal.
"""

import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from alpacli.domain.values import from_json
from alpacli.errors import (
    AlpacaAPIError,
    AuthenticationError,
    NotFound,
    OrderRejected,
    RateLimited,
    RedirectRefused,
    ServerError,
)
from alpacli.ports import Request, Response

_LONGEST_TEXT: Final = 200
_LONGEST_ERROR_BODY: Final = 1_000_000
_KEYS_HINT: Final = (
    "check ALPACA_API_KEY and ALPACA_SECRET_KEY: they must be paper keys, not live ones;"
    " `alpacli account --sim` needs none"
)
_PLAN_HINT: Final = "the plan does not have this data: end 16 minutes ago (--end -16min), or take feed iex (--feed iex)"
_BY_NAME: Final = ("/v2/orders/", "/v2/positions/", "/v2/assets/", "/v2/watchlists/")
"""What is read by an ID or a symbol alone: of one that is refused (422) there can be nothing."""

_FATE_UNKNOWN: Final = 40910000
"""A gateway of ours sent an order and does not know what became of it; Alpaca answers no such thing."""

_NOT_FOUND_HINTS: Final = (
    ("/v2/orders", "`alpacli orders --status all` lists the orders of this account"),
    ("/v2/positions", "`alpacli positions` lists what is held"),
    ("/v2/assets", "check the symbol: `alpacli assets` lists what can be traded"),
    ("/v2/watchlists", "`alpacli watchlist list` shows the names and ids"),
    ("", "check the address in ALPACA_BASE_URL: this server does not know the path"),
)


class _Body(NamedTuple):
    message: str
    code: int | None
    details: dict[str, object]
    hint: str = ""
    """What to do, in the words of a gateway of ours; Alpaca has none."""


def refusal(request: Request, response: Response, now: float) -> AlpacaAPIError | RedirectRefused:
    """Return the error that a non-2xx answer stands for; ``now`` is Unix time in seconds, for ``X-RateLimit-Reset``.

    401, and 403 without a code: ``AuthenticationError``, but for the data host's about the subscription. 404, and 422 to what
    names one thing by its ID: ``NotFound``. 403 with a code, 409 and 422 to a change of orders and positions:
    ``OrderRejected``, but for a gateway that does not know what became of one: ``ServerError``, as after every answer that
    says nothing. 429: ``RateLimited`` with ``retry_after`` when the server said. 5xx: ``ServerError``. 3xx:
    ``RedirectRefused``. Anything else: ``AlpacaAPIError``.
    """
    status = response.status
    request_id = printable(response.headers.get("x-request-id", ""), 100) or None
    if 300 <= status < 400:
        return _redirect(response, request_id)
    body = _read(response)
    kind, hint = _kind(request, status, body)
    hint = body.hint or hint
    retry_after = _retry_after(response, now) if kind in (RateLimited, ServerError) else None
    if kind is RateLimited:
        wait = "a minute" if retry_after is None else f"{max(retry_after, 0.1):.1f} s"
        hint = f"come back in {wait}, or wait longer, with max_wait (--max-wait); `alpacli limits` shows who uses the budget"
    error = kind(
        body.message,
        hint,
        status=status,
        code=body.code,
        request_id=request_id,
        retry_after=retry_after,
        details=body.details,
    )
    error.body = response.body
    return error


def printable(text: str, longest: int = _LONGEST_TEXT) -> str:
    """Return foreign text in one line that a terminal only prints: no control characters, no more than ``longest``."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * longest]).split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def _kind(request: Request, status: int, body: _Body) -> tuple[type[AlpacaAPIError], str]:
    if status == 401 or (status == 403 and body.code is None):
        of_plan = request.host == "data" and "subscription" in body.message.lower()
        return (AlpacaAPIError, _PLAN_HINT) if of_plan else (AuthenticationError, _KEYS_HINT)
    reads = request.method == "GET"
    if status == 404 or (status == 422 and reads and request.path.startswith(_BY_NAME)):
        return NotFound, next(hint for prefix, hint in _NOT_FOUND_HINTS if request.path.startswith(prefix))
    if status in (403, 409, 422) and not reads and request.path.startswith(("/v2/orders", "/v2/positions")):
        unsure = (ServerError, "look the order up by its client order ID before it is sent again")
        return unsure if body.code == _FATE_UNKNOWN else (OrderRejected, _rejection_hint(body))
    if status == 429:
        return RateLimited, ""
    if status >= 500:
        return (
            ServerError,
            "Alpaca has a problem: try again in a moment, or accept older data, with max_age (--max-age 3600)",
        )
    return AlpacaAPIError, "the server understood the request and refused it: change what the message names"


def _rejection_hint(body: _Body) -> str:
    if "held_for_orders" in body.details:
        return "open orders hold the shares: see `alpacli orders --status open`, cancel, then try again"
    if "buying_power" in body.details or "options_buying_power" in body.details:
        return "`alpacli account` shows what can be spent"
    if "existing_order_id" in body.details:
        return "an open order of the opposite side stands against it: see `alpacli orders --status open`"
    if "base_price" in body.details:
        base = printable(str(body.details["base_price"]))
        return f"the base price is {base}: the entry's limit, or what the market last paid; nothing was done"
    return "change what the message names; nothing was done"


def _redirect(response: Response, request_id: str | None) -> RedirectRefused:
    try:
        host = urlsplit(response.headers.get("location", "")).hostname or ""
    except ValueError:
        host = ""
    target = f"to {printable(ascii(host)[1:-1], 100)}" if host else "to another path"
    return RedirectRefused(
        f"the server answered {response.status} and pointed {target}; nothing was sent there",
        "keys never follow a redirect: check ALPACA_BASE_URL and whether a proxy or login page stands between",
        status=response.status,
        request_id=request_id,
    )


def _read(response: Response) -> _Body:
    """Find message, code and further fields in whatever the body is."""
    status, body = response.status, response.body
    if not body.strip():
        return _Body(f"the server answered {status} without a reason", None, {})
    value: Any = None
    if len(body) <= _LONGEST_ERROR_BODY:
        try:
            value = from_json(body)
        except ValueError:
            value = None
    if isinstance(value, dict):
        message = value.get("message")
        hint = printable(value["hint"]) if isinstance(value.get("hint"), str) else ""
        text = printable(message.removesuffix(f"; {hint}")) if isinstance(message, str) else ""
        return _Body(
            text or f"the server answered {status} without a reason",
            _code(value.get("code")),
            {name: item for name, item in value.items() if name not in ("code", "message", "hint")},
            hint,
        )
    if body.lstrip()[:1] == b"<" or "html" in response.headers.get("content-type", "").lower():
        return _Body(f"the server answered {status} with an HTML page", None, {})
    text = printable(body[: 4 * _LONGEST_TEXT].decode("utf-8", "replace"))
    return _Body(f"the server answered {status}: {text}", None, {})


def _code(value: object) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,12}", value):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**12 else None


def _retry_after(response: Response, now: float) -> float | None:
    """Return the seconds to wait: ``Retry-After`` (seconds or a date) wins over ``X-RateLimit-Reset`` (epoch seconds)."""
    text = response.headers.get("retry-after", "").strip()
    if (seconds := _number(text)) is not None:
        return seconds
    if text:
        try:
            date = parsedate_to_datetime(text)
            if date.tzinfo is None:  # "-0000", or none at all: HTTP dates are in UTC
                date = date.replace(tzinfo=UTC)
            return max(date.timestamp() - now, 0.0)
        except (ValueError, OverflowError):
            pass  # neither seconds nor a date: as if it had not been sent
    reset = _number(response.headers.get("x-ratelimit-reset", "").strip())
    return None if reset is None else max(reset - now, 0.0)


def _number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"[0-9]{1,11}(\.[0-9]{1,9})?", text) else None
