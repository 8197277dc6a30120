"""Fifty clients that ask as fast as they are answered, over connections that stay open; a process of its own.

``python -m benchmarks.loads URL CONNECTIONS SECONDS HEADER`` prints how many answers came, and how long they took, as JSON.
"""

import asyncio
import json
import sys
import time
from urllib.parse import urlsplit


class Client(asyncio.Protocol):
    """One connection; ``waits`` are in seconds. Answers must have a length and status 200."""

    def __init__(self, request: bytes) -> None:
        self.waits: list[float] = []
        self.failure = ""
        self._request = request
        self._heard = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        assert self._transport is not None
        self._at = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._heard += data
        head, found, body = self._heard.partition(b"\r\n\r\n")
        if not found:
            return
        if not head.startswith(b"HTTP/1.1 200"):
            self.failure = head.decode("latin-1").splitlines()[0]
            return
        place = head.lower().index(b"content-length:") + 15
        if len(body) < int(head[place:].split(b"\r\n", 1)[0]):
            return
        self.waits.append(time.perf_counter() - self._at)
        self._heard = b""
        self._ask()

    def stop(self) -> None:
        assert self._transport is not None
        self._transport.abort()


async def ask(url: str, connections: int, seconds: float, header: str) -> dict[str, float | str]:
    """Return answers per second and the waits' percentiles in milliseconds; the first fifth of the time is not counted."""
    parts = urlsplit(url)
    request = f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n{header}\r\n\r\n".encode()
    loop = asyncio.get_running_loop()
    clients = []
    for _ in range(connections):
        _, client = await loop.create_connection(lambda: Client(request), parts.hostname or "", parts.port or 80)
        clients.append(client)
    await asyncio.sleep(seconds / 5)
    for client in clients:
        client.waits.clear()
    began = time.perf_counter()
    await asyncio.sleep(seconds)
    took = time.perf_counter() - began
    waits = sorted(wait for client in clients for wait in client.waits)
    failure = next((client.failure for client in clients if client.failure), "")
    for client in clients:
        client.stop()
    if failure or not waits:
        return {"failure": failure or "no answer"}
    share = {f"p{n}": waits[min(len(waits) * n // 100, len(waits) - 1)] * 1000 for n in (50, 99)}
    return {"rate": len(waits) / took, **share}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(ask(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]))))
