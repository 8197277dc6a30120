"""Every way alpacli can fail, as one tree; the exit code and whether to try again are facts of the class.

AlpacliError
├── UsageError                    the call itself is wrong                                   exit 2
├── ConfigError                   no keys, a refused URL, live keys, a broken profile file   exit 3
│   └── RedirectRefused           the server pointed somewhere else; nothing was sent there
├── AlpacaAPIError                the broker answered, and the answer is no                  exit 4
│   ├── AuthenticationError       401, or 403 without a business code                        exit 3
│   ├── NotFound                  404, or an ID that nothing can have
│   ├── OrderRejected             403 with a business code, 409, 422, to a change
│   ├── StreamRefused             a stream's 400, 405, 409 … : asking again would not help
│   ├── RateLimited               429                                                        exit 5
│   └── ServerError               5xx                                                        exit 6
├── AccessDenied                  a gateway does not know its client, or does not let it     exit 3
├── OrderRefused                  a rule here said no; nothing was sent                      exit 4
├── OrderEnded                    an order that was followed is done, and not filled         exit 4
├── FateUnknown                   an order was sent, and nobody knows what became of it      exit 7
├── OutputFailed                  it is done, and its output could not be written            exit 8
├── BudgetExhausted               our own share of the rate limit is spent                   exit 5
├── Unavailable                   no usable answer came                                      exit 6
│   ├── RequestTimeout            nothing within the connect or read timeout
│   ├── ConnectionLost            refused, reset, cut off in the middle
│   ├── StreamLost                a stream went silent, broke, or is held by another connection (406)
│   ├── UnreadableAnswer          an answer that is not what the endpoint promises
│   └── CircuitOpen               the shared breaker is open; nothing was sent
└── StoreUnavailable              the shared store failed; callers degrade, users only see a warning

This module imports nothing, so that any layer and the short way in can use it for free.
"""


class AlpacliError(Exception):
    """Root of the family.

    ``message`` says what went wrong in one line, ``hint`` what to do next in one line.
    ``status``, ``code`` and ``request_id`` are the broker's, when it answered; ``retry_after`` is in seconds.
    """

    exit_code = 1
    retryable = False
    nothing_sent = False
    """Whether it is certain that the broker never saw the request: no connection came about."""

    def __init__(
        self,
        message: str,
        hint: str = "",
        *,
        status: int | None = None,
        code: int | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.status = status
        self.code = code
        self.request_id = request_id
        self.retry_after = retry_after

    def as_dict(self) -> dict[str, str | int | float | None]:
        """Return the fields of the JSON error object, in the order of the contract."""
        return {
            "type": type(self).__name__,
            "message": self.message,
            "hint": self.hint,
            "status": self.status,
            "code": self.code,
            "request_id": self.request_id,
            "retry_after": self.retry_after,
        }


class UsageError(AlpacliError):
    """The call itself is wrong: an argument that makes no sense, a client that is closed. Nothing was sent."""

    exit_code = 2


class ConfigError(AlpacliError):
    """What was set up cannot work: no keys or live ones, a URL that is refused, an unreadable file. Nothing was sent."""

    exit_code = 3


class RedirectRefused(ConfigError):
    """The server answered with a redirect. Keys never follow one."""


class AlpacaAPIError(AlpacliError):
    """What the broker answered when it did not do what was asked.

    Source: "Errors" of the Trading API reference, ``{"code": int, "message": str, ...}``; some answers carry no code
    and some are not JSON at all. ``details`` holds the further fields of the body (``buying_power``,
    ``held_for_orders`` …) as Alpaca sent them, ``body`` the whole of it, byte for byte.
    """

    exit_code = 4
    body = b""

    def __init__(
        self,
        message: str,
        hint: str = "",
        *,
        status: int | None = None,
        code: int | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        details: dict[str, object] | None = None,
    ) -> None:
        super().__init__(message, hint, status=status, code=code, request_id=request_id, retry_after=retry_after)
        self.details: dict[str, object] = details or {}


class AuthenticationError(AlpacaAPIError):
    """The key pair is wrong, revoked or of another account: 401, or 403 without a code of the business rules."""

    exit_code = 3


class NotFound(AlpacaAPIError):
    """The broker knows no such order, position, asset or watchlist: 404, or a position that is not among those held."""


class OrderRejected(AlpacaAPIError):
    """The broker refused an order, its change or its cancellation: 403 with a code, 409, 422.

    ``message`` is Alpaca's own; ``details`` often tell the numbers (``buying_power``, ``held_for_orders``). Nothing was done.
    """


class StreamRefused(AlpacaAPIError):
    """A stream that will not be had by asking again: feed not in the plan, too many symbols, no such channel."""


class RateLimited(AlpacaAPIError):
    """The broker counted too many requests of this account: 429, again and again, or for longer than may be waited.

    ``retry_after`` is in seconds when the broker said so. Nothing was done, so that an order may be sent again.
    """

    exit_code = 5
    retryable = True


class ServerError(AlpacaAPIError):
    """The broker failed: 5xx, three times in a row for what may be repeated. Whether a change was made is not known."""

    exit_code = 6
    retryable = True


class AccessDenied(AlpacliError):
    """A gateway's client proves nothing (``status`` 401) or may not do this (403). Nothing was asked of the broker."""

    exit_code = 3


class OrderRefused(AlpacliError):
    """An order breaks a rule of Alpaca's or of the user's own, found before anything was sent; ``rule`` names it."""

    exit_code = 4

    rule = ""


class OrderEnded(AlpacliError):
    """An order that somebody followed is done without being filled: canceled, expired, rejected."""

    exit_code = 4


class FateUnknown(AlpacliError):
    """An order was sent, no answer came, and the broker could not be asked: it may be on the book, once, or not.

    ``client_order_id`` is what finds it, then or later.
    """

    exit_code = 7

    client_order_id = ""


class OrderInterrupted(KeyboardInterrupt):
    """The caller was interrupted (Ctrl-C) while an order was on its way: it may be on the book, once, or not.

    Outside the family, as any interruption is: what catches failures to go on must not catch this one.
    ``client_order_id`` is what finds the order; it is empty where none was chosen yet.
    """

    def __init__(self, client_order_id: str = "") -> None:
        super().__init__()
        self.client_order_id = client_order_id


class OutputFailed(AlpacliError):
    """What was asked for is done, and what it came to cannot be written, or shown as was asked: a full disk, for one.

    ``result`` is the JSON of what a change came to, which nobody would see otherwise.
    """

    exit_code = 8

    result = b""


class BudgetExhausted(AlpacliError):
    """The shared request budget is spent and waiting longer was not allowed; ``retry_after`` is when to come back."""

    exit_code = 5


class Unavailable(AlpacliError):
    """No usable answer came: the network, a timeout, the breaker. Catch this one to try again later."""

    exit_code = 6
    retryable = True


class RequestTimeout(Unavailable):
    """No connection, or no whole answer, within the timeout; what was sent may have arrived unless ``nothing_sent``."""


class ConnectionLost(Unavailable):
    """The connection was refused, reset or cut off; what was sent may have arrived unless ``nothing_sent``."""


class StreamLost(Unavailable):
    """A stream ended that should not have; ``code`` is the server's (406, 500 …) when it said one."""


class UnreadableAnswer(Unavailable):
    """The body was not what the endpoint promises. Asking again rarely helps, so it is not retried."""

    retryable = False


class CircuitOpen(Unavailable):
    """Too many failures in a row; nothing was sent. ``retry_after`` says when a probe is allowed."""

    retryable = False


class StoreUnavailable(AlpacliError):
    """The shared store could not do what was asked. Never reaches a user as a failure: the next store takes over."""

    exit_code = 6
