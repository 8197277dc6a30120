"""HTTP answers with a deadline: the read timeout of ``requests`` covers the whole answer, headers included.

By itself it would begin anew with every byte, and a server that sends one now and then could hold a process for ever.
"""

import io
import socket
from http.client import HTTPResponse
from typing import Any, Final

from requests.adapters import HTTPAdapter
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from alpacli.ports import Clock

CHUNK: Final = 64 * 1024
CONNECTIONS: Final = 32


class _Reader(io.RawIOBase):
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


class _Socket:
    """The only thing an HTTP answer wants of its socket: a file to read from, here one with a deadline."""

    def __init__(self, sock: socket.socket, clock: Clock) -> None:
        self._sock = sock
        self._clock = clock

    def makefile(self, *_: Any) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._sock, self._clock), CHUNK)


class DeadlineAdapter(HTTPAdapter):
    """Keeps connections for many threads and gives each answer its deadline; never repeats a request."""

    def __init__(self, clock: Clock) -> None:
        # http.client makes one response per request, right after urllib3 has set the read timeout on the socket.
        def response(sock: socket.socket, *args: Any, **kwargs: Any) -> HTTPResponse:
            delayed: Any = _Socket(sock, clock)
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
        super().__init__(pool_connections=4, pool_maxsize=CONNECTIONS, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager: Any = super().proxy_manager_for(*args, **kwargs)
        if not str(args[0] if args else kwargs["proxy"]).lower().startswith("socks"):  # those bring pools of their own
            manager.pool_classes_by_scheme = self._pools
        return manager
