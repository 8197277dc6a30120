"""alpaca-py as the transport: its authentication and URLs, with exactly one request and a bounded time for each call.

What its ``RESTClient`` does that a good client must not is undone here, in one override: a 429 or 504 repeated three times
for every method (``retry_attempts=0`` is ignored), no timeout, headers thrown away, bodies parsed as binary floats. No other
module imports alpaca-py, and this one only ``alpaca.common``: ``alpaca.trading`` and ``alpaca.data`` load pandas.

The read timeout covers the whole answer (``deadline``).
"""

import os
import socket
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import requests
from alpaca.common.rest import RESTClient
from urllib3.exceptions import HTTPError, NewConnectionError, ReadTimeoutError

from alpacli import __version__
from alpacli.errors import AlpacliError, ConnectionLost, RequestTimeout, UnreadableAnswer
from alpacli.ports import Clock, Request, Response, SystemClock
from alpacli.settings import OAUTH, KeyPair
from alpacli.wire.deadline import CHUNK, DeadlineAdapter

LARGEST_BODY: Final = 64 * 1024 * 1024
_HINT: Final = "check the network, or accept older data, with max_age (--max-age 3600)"


class AlpacaTransport:
    """Sends requests to the paper exchange, or to a server on this machine, with one key pair. Thread-safe."""

    def __init__(self, key_pair: KeyPair, base_url: str, data_url: str, clock: Clock | None = None) -> None:
        self._key_pair = key_pair
        self._urls = {"trading": base_url, "data": data_url}
        self._clock = clock or SystemClock()
        self._clients = self._open()
        self._pid = os.getpid()

    def _open(self) -> "dict[str, _OneRequest]":
        return {host: _OneRequest(self._key_pair, url, self._clock) for host, url in self._urls.items()}

    def send(self, request: Request, *, connect_timeout_s: float, read_timeout_s: float) -> Response:
        """Send once and return whatever comes back, a redirect included.

        Raises:
            RequestTimeout: no connection within ``connect_timeout_s``, or the answer not complete in ``read_timeout_s``.
            ConnectionLost: refused, reset, cut off before the announced length, or TLS that does not verify.
            UnreadableAnswer: a body of more than 64 MB, or one whose compression is broken.
        """
        if self._pid != os.getpid():
            # After a fork the kept connections are the parent's too: its answers would arrive here, and ours there.
            self._clients, self._pid = self._open(), os.getpid()
        return self._clients[request.host].send(_Outgoing(request, connect_timeout_s, read_timeout_s))

    def close(self) -> None:
        """Close every kept connection; the transport may be used again."""
        for client in self._clients.values():
            client.close()


class _Outgoing(NamedTuple):
    request: Request
    connect_timeout_s: float
    read_timeout_s: float


class _OneRequest(RESTClient):
    """alpaca-py's client for one host, which passes an ``_Outgoing`` through where the SDK expects query or JSON data."""

    def __init__(self, key_pair: KeyPair, url: str, clock: Clock) -> None:
        if key_pair.key_id == OAUTH:
            super().__init__(base_url=url, oauth_token=key_pair.secret.reveal())
        else:
            super().__init__(base_url=url, api_key=key_pair.key_id, secret_key=key_pair.secret.reveal())
        host = urlsplit(url).hostname or ""
        self._host = urlsplit(url).netloc
        session = self._session
        adapter = DeadlineAdapter(clock)
        session.mount("https://", adapter)
        session.mount("http://", adapter)
        session.auth = _keep_headers  # with an auth of its own, requests does not look into ~/.netrc
        # requests parses a Location even when told not to follow it, and some make it crash.
        session.get_redirect_target = _nowhere  # type: ignore[method-assign] # on the SDK's own session
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        if host in ("localhost", "::1") or host.startswith("127."):
            session.trust_env = False  # a proxy would send what is meant for this machine elsewhere

    def send(self, outgoing: _Outgoing) -> Response:
        version, _, rest = outgoing.request.path.removeprefix("/").partition("/")
        data: Any = outgoing
        response: Any = self._request(outgoing.request.method, f"/{rest}", data, api_version=version)
        assert isinstance(response, Response)  # noqa: S101 # what _one_request returned, through the SDK's untyped hands
        return response

    def close(self) -> None:
        self._session.close()

    def _get_default_headers(self) -> dict[str, str]:
        headers: dict[str, str] = super()._get_default_headers()
        return headers | {"User-Agent": f"alpacli/{__version__} (alpaca-py)"}

    def _one_request(self, method: str, url: str, opts: dict[str, Any], retry: int) -> Any:
        """Replace the SDK's request: never its ``RetryException``, so its loop ends after this one."""
        outgoing: _Outgoing = opts["params"] if "params" in opts else opts["json"]
        headers = opts["headers"]
        if outgoing.request.body is not None:
            headers = headers | {"Content-Type": "application/json"}
        try:
            with self._session.request(
                method,
                url,
                headers=headers,
                params=outgoing.request.query,
                data=outgoing.request.body,
                timeout=(outgoing.connect_timeout_s, outgoing.read_timeout_s),
                allow_redirects=False,
                stream=True,
            ) as answer:
                body = self._read(answer)
                names = {name.lower(): value for name, value in answer.headers.items()}
                return Response(answer.status_code, names, body)
        except (requests.RequestException, HTTPError, OSError) as error:
            failure = self._failure(error, outgoing)
            failure.nothing_sent = any(isinstance(cause, _NO_CONNECTION) for cause in _causes(error))
        raise failure  # outside the handler: the cause may hold the request with its headers

    def _read(self, answer: requests.Response) -> bytes:
        body = bytearray()
        for chunk in answer.iter_content(CHUNK):
            body += chunk
            if len(body) > LARGEST_BODY:
                raise UnreadableAnswer(
                    f"{self._host} sent more than {LARGEST_BODY >> 20} MB",
                    "ask for less, with limit (--limit) for example",
                )
        return bytes(body)

    def _failure(self, error: Exception, outgoing: _Outgoing) -> AlpacliError:
        causes = list(_causes(error))
        if any(isinstance(cause, requests.ConnectTimeout) for cause in causes):
            return RequestTimeout(f"no connection to {self._host} within {outgoing.connect_timeout_s:g} s", _HINT)
        if any(isinstance(cause, requests.Timeout | ReadTimeoutError | TimeoutError) for cause in causes):
            return RequestTimeout(f"no complete answer from {self._host} within {outgoing.read_timeout_s:g} s", _HINT)
        if isinstance(error, requests.exceptions.ContentDecodingError):
            return UnreadableAnswer(f"{self._host} sent a body whose compression is broken", _HINT)
        return ConnectionLost(f"the connection to {self._host} failed: {_reason(causes)}", _HINT)


_NO_CONNECTION: Final = (requests.ConnectTimeout, NewConnectionError, socket.gaierror, ConnectionRefusedError)
"""What goes wrong before there is a connection to send anything on."""


def _keep_headers(prepared: requests.PreparedRequest) -> requests.PreparedRequest:
    return prepared


def _nowhere(resp: requests.Response) -> None:
    return None


def _causes(error: BaseException) -> list[BaseException]:
    """Return the error and everything it was made from; ``requests`` hides the reason in arguments and attributes."""
    found: list[BaseException] = []
    queue: list[object] = [error]
    while queue and len(found) < 20:
        item = queue.pop(0)
        if isinstance(item, BaseException) and item not in found:
            found.append(item)
            queue += [*item.args, getattr(item, "reason", None), item.__cause__, item.__context__]
    return found


def _reason(causes: list[BaseException]) -> str:
    """Say what happened in the system's words; never a library's text, which may quote URLs and headers."""
    if any(isinstance(cause, requests.exceptions.ProxyError) for cause in causes):
        return "the proxy does not answer"
    if any(isinstance(cause, requests.exceptions.SSLError) for cause in causes):
        return "its certificate cannot be verified"
    for cause in causes:
        if isinstance(cause, socket.gaierror):
            return "the name is unknown"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror.lower()
    return "the answer was cut off"
