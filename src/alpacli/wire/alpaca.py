"""alpaca-py as the transport: its authentication and URLs, with exactly one request and a bounded time for each call.

What its ``RESTClient`` does that a good client must not is undone here, in one override: a 429 or 504 repeated three times
for every method (``retry_attempts=0`` is ignored), no timeout, headers thrown away, bodies parsed as binary floats. No other
module imports alpaca-py, and this one only ``alpaca.common``: ``alpaca.trading`` and ``alpaca.data`` load pandas.

The read timeout covers the whole answer, headers included, so a server that sends a byte now and then cannot hold a
process; ``requests`` alone would start its timeout anew with every byte.
"""

import io
import os
import socket
from http.client import HTTPResponse
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import requests
from alpaca.common.rest import RESTClient
from requests.adapters import HTTPAdapter
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError, NewConnectionError, ReadTimeoutError

from alpacli import __version__
from alpacli.errors import AlpacliError, ConnectionLost, RequestTimeout, UnreadableAnswer
from alpacli.ports import Clock, Request, Response, SystemClock
from alpacli.settings import OAUTH, KeyPair

LARGEST_BODY: Final = 64 * 1024 * 1024
_CHUNK: Final = 64 * 1024
_CONNECTIONS: Final = 32
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
        adapter = _DeadlineAdapter(clock)
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
        for chunk in answer.iter_content(_CHUNK):
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


# ---------------------------------------------------------------------------------------------------- deadline


class _DeadlineReader(io.RawIOBase):
    """What an HTTP answer is read from: every read gets only the time that is left for the whole answer."""

    def __init__(self, sock: socket.socket, clock: Clock) -> None:
        self._sock = sock
        self._clock = clock
        self._raw = sock.makefile("rb", buffering=0)
        timeout_s = sock.gettimeout()
        self._until = None if timeout_s is None else clock.monotonic() + timeout_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._until is not None:
            left_s = self._until - self._clock.monotonic()
            if left_s <= 0:
                raise TimeoutError
            self._sock.settimeout(left_s)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
            super().close()


class _DeadlineSocket:
    """The only thing an HTTP answer wants of its socket: a file to read from, here one with a deadline."""

    def __init__(self, sock: socket.socket, clock: Clock) -> None:
        self._sock = sock
        self._clock = clock

    def makefile(self, *_: Any) -> io.BufferedReader:
        return io.BufferedReader(_DeadlineReader(self._sock, self._clock), _CHUNK)


class _DeadlineAdapter(HTTPAdapter):
    """Keeps connections for many threads and gives each answer its deadline; never repeats a request."""

    def __init__(self, clock: Clock) -> None:
        # http.client makes one response per request, right after urllib3 has set the read timeout on the socket.
        def response(sock: socket.socket, *args: Any, **kwargs: Any) -> HTTPResponse:
            delayed: Any = _DeadlineSocket(sock, clock)
            return HTTPResponse(delayed, *args, **kwargs)

        class Plain(HTTPConnectionPool):
            def _new_conn(self) -> Any:
                connection: Any = super()._new_conn()
                connection.response_class = response
                return connection

        class Secure(HTTPSConnectionPool):
            def _new_conn(self) -> Any:
                connection: Any = super()._new_conn()
                connection.response_class = response
                return connection

        self._pools = {"http": Plain, "https": Secure}
        super().__init__(pool_connections=4, pool_maxsize=_CONNECTIONS, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager: Any = super().proxy_manager_for(*args, **kwargs)
        if not str(args[0] if args else kwargs["proxy"]).lower().startswith("socks"):  # those bring pools of their own
            manager.pool_classes_by_scheme = self._pools
        return manager
