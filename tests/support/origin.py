"""A real HTTP/1.1 server on loopback whose answers a test scripts, the bad ones included.

It hides everything about sockets: a test says ``origin.reply("/v2/account", Reply(body={...}), Reply(fault="reset"))``
and looks at ``origin.requests``. Because it is a socket, clients in other processes meet it exactly as they would meet
the broker. Connections are kept alive like the broker's, each is served by its own thread, and ``close`` ends them all.
"""

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import parse_headers
from io import BufferedReader
from typing import Literal, Self
from urllib.parse import parse_qs, urlsplit

Fault = Literal["hang", "reset", "truncate", "drip", "close"]
"""hang: read the request, never answer. reset: half the answer, then RST. truncate: half the answer, then an orderly end.
drip: one byte of the body every ``drip_s``. close: end the connection without a byte."""


@dataclass(frozen=True)
class Reply:
    """One scripted answer; a ``body`` that is not bytes is sent as JSON, and ``None`` as nothing at all."""

    status: int = 200
    body: object = b""
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    fault: Fault | None = None
    drip_s: float = 0.05

    def payload(self) -> bytes:
        if isinstance(self.body, bytes):
            return self.body
        return b"" if self.body is None else json.dumps(self.body).encode()


@dataclass(frozen=True)
class Seen:
    """One request as it arrived; ``query`` is decoded, header names are lower case, ``at`` is ``time.monotonic()``."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes
    at: float


_NOT_FOUND = Reply(404, {"code": 40410000, "message": "endpoint not found."})


class Origin:
    """``with Origin() as origin`` serves on ``origin.url`` until the block ends."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._closed = threading.Event()
        self._seen: list[Seen] = []
        self._routes: dict[tuple[str, str | None], list[Reply]] = {}
        self._handlers: list[tuple[str, Callable[[Seen], Reply]]] = []
        self._open: set[socket.socket] = set()
        self._accepted = 0
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept, name="origin", daemon=True)
        self._acceptor.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def requests(self) -> list[Seen]:
        """Return every request that arrived so far, oldest first (a copy)."""
        with self._lock:
            return list(self._seen)

    @property
    def connections(self) -> int:
        """Return how many connections were ever accepted."""
        with self._lock:
            return self._accepted

    def reply(self, path_prefix: str, *replies: Reply, method: str | None = None) -> None:
        """Queue answers for paths that begin with the prefix; the longest prefix wins, the last answer repeats.

        Calling again replaces what was left of the queue. ``method`` narrows the queue to one HTTP method.
        """
        with self._lock:
            self._routes[path_prefix, method] = list(replies)

    def answer(self, path_prefix: str, handler: Callable[[Seen], Reply]) -> None:
        """Compute answers; a handler goes before queued replies and may run in several threads at once."""
        with self._lock:
            self._handlers.append((path_prefix, handler))

    def wait_for(self, count: int, timeout_s: float = 10.0) -> list[Seen]:
        """Wait until at least ``count`` requests arrived, and return them all.

        Raises:
            TimeoutError: they did not arrive in time.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._seen) >= count, timeout_s):
                raise TimeoutError(f"{len(self._seen)} of {count} requests arrived within {timeout_s} s")
            return list(self._seen)

    def close(self) -> None:
        """Stop listening, cut every connection, and wait for the threads."""
        self._closed.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            connections, threads = list(self._open), list(self._threads)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in [self._acceptor, *threads]:
            thread.join(timeout=5)

    # ------------------------------------------------------------------------------------------- threads

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            with self._lock:
                self._accepted += 1
                self._open.add(connection)
                self._threads = [t for t in self._threads if t.is_alive()] + [thread]
                thread.start()  # within the lock: `close` never meets a thread that has not started

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection.makefile("rb") as stream:
                while not self._closed.is_set() and (seen := _read_request(stream)) is not None:
                    with self._changed:
                        self._seen.append(seen)
                        self._changed.notify_all()
                    if not self._respond(connection, seen, self._choose(seen)):
                        return
        except (OSError, ValueError):
            return  # the client went away, or sent what is not HTTP: its own assertions tell
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()

    def _choose(self, seen: Seen) -> Reply:
        with self._lock:
            handler = next((h for prefix, h in self._handlers if seen.path.startswith(prefix)), None)
            if handler is None:
                fitting = [
                    key for key in self._routes if seen.path.startswith(key[0]) and key[1] in (None, seen.method)
                ]
                queue = self._routes[max(fitting, key=lambda k: (len(k[0]), k[1] is not None))] if fitting else []
                if not queue:
                    return _NOT_FOUND
                return queue.pop(0) if len(queue) > 1 else queue[0]
        return handler(seen)

    def _respond(self, connection: socket.socket, seen: Seen, reply: Reply) -> bool:
        """Send the answer; return whether the connection may carry another request."""
        if reply.delay_s and self._closed.wait(reply.delay_s):
            return False
        if reply.fault == "hang":
            self._closed.wait()
            return False
        if reply.fault == "close":
            return False
        payload = reply.payload()
        head = _head(reply, len(payload))
        if seen.method == "HEAD" or reply.status in (204, 304):
            payload = b""
        if reply.fault in ("reset", "truncate"):
            connection.sendall(head + payload[: len(payload) // 2])
            if reply.fault == "reset":
                time.sleep(0.02)  # lets the half reach the reader before the reset overtakes it
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        if reply.fault == "drip":
            connection.sendall(head)
            for at in range(len(payload)):
                connection.sendall(payload[at : at + 1])
                if self._closed.wait(reply.drip_s):
                    return False
            return True
        connection.sendall(head + payload)
        return seen.headers.get("connection", "").lower() != "close"


def _head(reply: Reply, length: int) -> bytes:
    try:
        reason = HTTPStatus(reply.status).phrase
    except ValueError:
        reason = "Unknown"
    headers = {"Content-Type": "application/json; charset=UTF-8"}
    if reply.status not in (204, 304):
        headers["Content-Length"] = str(length)
    given = {name.lower() for name in reply.headers}
    headers = {n: v for n, v in headers.items() if n.lower() not in given} | reply.headers
    lines = [f"HTTP/1.1 {reply.status} {reason}", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _read_request(stream: BufferedReader) -> Seen | None:
    line = stream.readline(65537).decode("latin-1").strip()
    if not line:
        return None
    method, target, _ = line.split(" ", 2)
    headers = {name.lower(): value for name, value in parse_headers(stream).items()}
    body = stream.read(int(headers.get("content-length", "0")))
    parts = urlsplit(target)
    return Seen(method, parts.path, parse_qs(parts.query, keep_blank_values=True), headers, body, time.monotonic())
