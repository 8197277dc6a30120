"""Many WebSocket clients in one process, which must never be what is measured: raw sockets, frames counted, not parsed.

Each client takes its share of the feed's symbols from the relay, in arrays. Some look at the time that each message carries;
and one more listens to the feed itself, so that what the machine adds by being busy can be told from what the relay adds.
``python -m benchmarks.listeners URL FEED CLIENTS PER_CLIENT SYMBOLS STUCK`` says ``ready`` once all are subscribed, and with
each line of standard input what has come since the one before, as JSON.
"""

import base64
import json
import os
import re
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from benchmarks.feed import names
from benchmarks.measure import Ended

_PATH = "/api/v1/broker/stream?batch=true"
_TIMED = 5
_SECONDS = re.compile(rb'"timestamp":"[^"]{17}(\d\d\.\d{6})')
_FEEDS_SECONDS = re.compile(rb'"t": ?"[^"]{17}(\d\d\.\d{6})')
_DIRECT_LOOKS_EVERY = 10


def share(client: int, per_client: int, symbols: int) -> list[str]:
    """Return the symbols of one client: a run of neighbors, so that all symbols are wanted equally often."""
    chosen = names(symbols)
    return [chosen[(client * symbols // 100 + place * 7) % symbols] for place in range(per_client)]


class _Client:
    def __init__(self, url: str, number: int, wanted: list[str], headers: str, *, stuck: bool) -> None:
        parts = urlsplit(url)
        self.number = number
        self.messages = 0
        self.bytes = 0
        self.frames = 0
        self.ages: list[float] = []
        self.timed = number < _TIMED and not stuck
        self.open = True
        self.socket = socket.socket()
        if stuck:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.connect((parts.hostname or "", parts.port or 80))
        self.socket.sendall(
            f"GET {_PATH} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\n{headers}\r\n".encode()
        )
        self._until(b"authenticated")
        command = json.dumps({"action": "subscribe", "symbols": wanted, "streams": ["trades", "quotes"]}).encode()
        self.socket.sendall(b"\x81\xfe" + len(command).to_bytes(2, "big") + b"\0\0\0\0" + command)
        self._until(b'"subscription"')
        self.socket.setblocking(False)

    def _until(self, word: bytes) -> None:
        heard = b""
        while word not in heard:
            data = self.socket.recv(65536)
            if not data:
                raise RuntimeError(f"the gateway hung up: {heard!r}")
            heard += data

    def read(self, offset: float) -> None:
        try:
            data = self.socket.recv(1 << 20)
        except BlockingIOError:
            return
        if not data:
            self.open = False
            return
        self.frames += 1
        self.bytes += len(data)
        self.messages += data.count(b'"timestamp":')
        if self.timed:
            now = (time.monotonic() + offset) % 60
            self.ages += [(now - float(sent)) % 60 for sent in _SECONDS.findall(data)]


class _Direct:
    """Listens to the feed itself; the stamps of every tenth read are enough."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.ages: list[float] = []
        self.open = True
        self.number = 0
        self.socket = socket.create_connection((parts.hostname or "", parts.port or 80))
        self.socket.sendall(
            b"GET /v2/iex HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: " + base64.b64encode(os.urandom(16)) + b"\r\n\r\n"
        )
        for command in ({"action": "auth", "key": "PK", "secret": "s"}, {"action": "subscribe", "quotes": ["*"]}):
            data = json.dumps(command).encode()
            self.socket.sendall(bytes((0x81, 0x80 | len(data))) + b"\0\0\0\0" + data)
        heard = b""
        while b'"subscription"' not in heard:
            heard += self.socket.recv(65536)
        self.socket.setblocking(False)

    def read(self, offset: float) -> None:
        data = self.socket.recv(1 << 20)
        self.open = bool(data)
        self.number += 1
        if self.number % _DIRECT_LOOKS_EVERY == 0:
            now = (time.monotonic() + offset) % 60
            self.ages += [(now - float(sent)) % 60 for sent in _FEEDS_SECONDS.findall(data)]


def _percentile(ages: list[float], share: float) -> float:
    return sorted(ages)[int(len(ages) * share)] * 1000 if ages else float("inf")


def main() -> None:
    (url, feed), (clients, per_client, symbols, stuck) = sys.argv[1:3], map(int, sys.argv[3:7])
    headers = "".join(f"{name}: {value}\r\n" for name, value in json.loads(os.environ["LISTENER_HEADERS"]).items())
    made = [_Client(url, n, share(n, per_client, symbols), headers, stuck=False) for n in range(clients)]
    silent = [_Client(url, n, share(n, per_client, symbols), headers, stuck=True) for n in range(stuck)]
    direct = _Direct(feed)
    offset = time.time() - time.monotonic()
    with selectors.DefaultSelector() as selector:
        selector.register(direct.socket, selectors.EVENT_READ, direct)
        for client in made:
            selector.register(client.socket, selectors.EVENT_READ, client)
        selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
        print("ready", flush=True)
        while True:
            for key, _ in selector.select():
                if key.data is not None:
                    key.data.read(offset)
                    if not key.data.open:
                        selector.unregister(key.fileobj)
                    continue
                if not os.read(sys.stdin.fileno(), 64):
                    return
                ages = [age for client in made for age in client.ages]
                told = {
                    "messages": [client.messages for client in made],
                    "frames": sum(client.frames for client in made),
                    "bytes": sum(client.bytes for client in made),
                    "p50_ms": _percentile(ages, 0.5),
                    "p99_ms": _percentile(ages, 0.99),
                    "direct_p50_ms": _percentile(direct.ages, 0.5),
                    "direct_p99_ms": _percentile(direct.ages, 0.99),
                    "lost": sum(not client.open for client in made),
                    "stuck": len(silent),
                }
                for client in made:
                    client.messages = client.bytes = client.frames = 0
                    client.ages.clear()
                direct.ages.clear()
                print(json.dumps(told), flush=True)


class Listeners(Ended):
    """The process, as the benchmark that started it sees it."""

    def __init__(
        self,
        url: str,
        feed: str,
        headers: dict[str, str],
        *,
        clients: int,
        per_client: int,
        symbols: int,
        stuck: int = 0,
    ) -> None:
        numbers = [str(number) for number in (clients, per_client, symbols, stuck)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.listeners", url, feed, *numbers],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "LISTENER_HEADERS": json.dumps(headers)},
        )
        assert self.process.stdout is not None
        if self.process.stdout.readline() != b"ready\n":
            raise RuntimeError("the clients did not get ready")

    def report(self) -> dict[str, Any]:
        """Return what came since the last report: counts by client, and how old messages were when they came."""
        assert self.process.stdin is not None and self.process.stdout is not None  # noqa: PT018 # two pipes
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        told: dict[str, Any] = json.loads(self.process.stdout.readline())
        return told


def expected(rate: int, seconds: float, symbols: int, per_client: int, clients: int) -> Iterator[int]:
    """Return how many messages each client is to get of a ``pace`` of the feed."""
    from benchmarks.feed import paced

    counts = paced(rate, seconds, symbols)
    for client in range(clients):
        yield sum(counts[symbol] for symbol in set(share(client, per_client, symbols)))


if __name__ == "__main__":
    main()
