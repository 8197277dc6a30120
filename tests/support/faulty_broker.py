"""The offline exchange over HTTP, behind a line that fails in every way that makes a client doubt. It counts what it did."""

import random
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from alpacli.ports import SystemClock
from alpacli.sim.exchange import Exchange
from alpacli.sim.rest import HttpRequest, handle

FAULTS = ("accept and drop", "accept and 500", "answer twice", "accept slowly", "accept late", "drop", "502")
DEAF = "drop a question"


class FaultyBroker:
    """Serves on ``url``; a share of ``rate`` of all orders meets one of ``faults``, chosen by ``seed``.

    ``accept late`` takes the order only after the client gave up, ``slow_s`` later; ``drop`` and ``502`` take nothing.
    A share of ``deaf`` of all questions after an order is dropped too.
    """

    def __init__(
        self,
        folder: Path,
        *,
        rate: float,
        slow_s: float = 0.6,
        seed: int = 7,
        faults: tuple[str, ...] = FAULTS,
        deaf: float = 0.0,
    ) -> None:
        self.exchange = Exchange(str(folder), SystemClock())
        self.exchange.reset(rate_limit=0)
        self.faults: Counter[str] = Counter()
        self._kinds = faults
        self.rate = rate
        self._deaf = deaf
        self._slow_s = slow_s
        self._dice = random.Random(seed)
        self._lock = threading.Lock()
        broker = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: Any) -> None:
                pass

            def _serve(self) -> None:
                broker.serve(self)

            do_GET = do_POST = do_PATCH = do_DELETE = _serve  # noqa: N815 # names that http.server looks for

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self.exchange.close()

    def heal(self) -> None:
        """Answer everything from now on."""
        self.rate = self._deaf = 0.0

    def answer(self, method: str, target: str, headers: Any, body: bytes) -> Any:
        parts = urlsplit(target)
        query = tuple(parse_qsl(parts.query, keep_blank_values=True))
        given = {name.lower(): value for name, value in headers.items()}
        with self._lock:
            return handle(self.exchange, HttpRequest(method, unquote(parts.path), query, given, body))

    def _fault(self, method: str, path: str) -> str | None:
        with self._lock:
            if method == "GET" and "by_client_order_id" in path and self._deaf and self._dice.random() < self._deaf:
                self.faults[DEAF] += 1
                return "drop"
            if method != "POST" or self._dice.random() >= self.rate:
                return None
            kind = self._dice.choice(self._kinds)
            self.faults[kind] += 1
            return kind

    def serve(self, line: BaseHTTPRequestHandler) -> None:
        body = line.rfile.read(int(line.headers.get("content-length") or 0))
        fault = self._fault(line.command, line.path)
        if fault == "drop":
            line.close_connection = True
            return
        if fault == "502":
            _write(line, 502, b"<html>bad gateway</html>")
            return
        if fault == "accept late":
            time.sleep(self._slow_s)
        answer = self.answer(line.command, line.path, line.headers, body)
        if fault == "accept and drop":
            line.close_connection = True
            return
        if fault == "accept and 500":
            _write(line, 500, b'{"code":50010000,"message":"internal server error occurred"}')
            return
        if fault == "accept slowly":
            time.sleep(self._slow_s)
        _write(line, answer.status, answer.body)
        if fault == "answer twice":
            _write(line, answer.status, answer.body)

    def orders(self) -> list[dict[str, Any]]:
        """Return everything on the book, for the key pair PK/secret."""
        import json

        found: dict[str, dict[str, Any]] = {}
        until = ""
        headers = {"apca-api-key-id": "PKTEST", "apca-api-secret-key": "secret"}
        while True:
            more = f"&until={until}" if until else ""
            rows = json.loads(self.answer("GET", f"/v2/orders?status=all&limit=500{more}", headers, b"").body)
            fresh = [row for row in rows if row["id"] not in found]
            found |= {row["id"]: row for row in fresh}
            if len(rows) < 500 or not fresh:
                return list(found.values())
            until = fresh[-1]["submitted_at"]


def _write(line: BaseHTTPRequestHandler, status: int, body: bytes) -> None:
    try:
        line.send_response(status)
        line.send_header("Content-Type", "application/json")
        line.send_header("Content-Length", str(len(body)))
        line.end_headers()
        line.wfile.write(body)
        line.wfile.flush()
    except OSError:
        line.close_connection = True  # the client had waited long enough
