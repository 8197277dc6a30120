"""A gateway as a process of its own, in front of an exchange, and clients that behave, or do not."""

import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import requests
from tests.support.alpacli import Alpacli

from alpacli.gateway.keeping import open_book, open_keys
from alpacli.gateway.tokens import Grant, mint, read_scopes
from alpacli.settings import Flags, Settings, load
from alpacli.store.tokens import Minted

KEY_ID, SECRET = "PKUPSTREAM", "the-upstream-secret"


class Gateway:
    """``alpacli serve`` in front of ``upstream`` (a URL), with the command line ``args``; ``url`` is where it answers."""

    def __init__(self, root: Path, upstream: str, *args: str, env: Mapping[str, str] | None = None) -> None:
        given = {
            "ALPACA_API_KEY": KEY_ID,
            "ALPACA_SECRET_KEY": SECRET,
            "ALPACA_BASE_URL": upstream,
            "ALPACA_DATA_URL": upstream,
            "ALPACA_STREAM_URL": upstream.replace("http", "ws"),
            **(env or {}),
        }
        self.alpacli = Alpacli(root, given)
        self._args = args
        self._root = root
        self.url = ""
        self.process: subprocess.Popen[bytes]

    @property
    def settings(self) -> Settings:
        return load(Flags(), env=self.alpacli.environment(), cwd=str(self.alpacli.cwd))

    def start(self) -> None:
        with (self._root / "gateway.err").open("ab") as errors:
            self.process = self.alpacli.start(
                ["serve", "--port", "0", *self._args],
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().decode().strip()
        assert self.url, self.errors

    @property
    def errors(self) -> str:
        return (self._root / "gateway.err").read_text()

    def stop(self) -> int:
        """Ask it to end as an init system does; return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(20)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def token(self, scope: str = "read,stream,trade", *, name: str = "bot", expires_in_s: float = 3600) -> str:
        """Mint as ``serve token`` does, without the cost of a process."""
        token, _ = self.minted(scope, name=name, expires_in_s=expires_in_s)
        return token

    def minted(self, scope: str = "read", *, name: str = "bot", expires_in_s: float = 3600) -> tuple[str, str]:
        """Return a token and its id."""
        settings, now = self.settings, time.time()
        token_id = f"{name}-{time.time_ns()}"
        grant = Grant(name, token_id, read_scopes(scope), now + expires_in_s)
        token = mint(open_keys(settings), settings.fingerprint, grant, now)
        open_book(settings, print).add(Minted(token_id, name, tuple(grant.scopes), now, grant.expires))
        return token, token_id

    def send(self, method: str, path: str, token: str | None = None, **options: Any) -> requests.Response:
        """Send one request on a connection of its own."""
        headers = dict(options.pop("headers", {}))
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        return requests.request(method, self.url + path, headers=headers, timeout=30, **options)

    def get(self, path: str, token: str | None = None, **options: Any) -> requests.Response:
        return self.send("GET", path, token, **options)

    def raw(self, data: bytes, *, within_s: float = 20.0) -> bytes:
        """Send bytes as they are and return everything that comes until the gateway hangs up, or stays silent."""
        with self.dial() as line:
            line.settimeout(within_s)
            heard = b""
            try:
                line.sendall(data)
                while piece := line.recv(65536):
                    heard += piece
                    if b"\r\n\r\n" in heard and b"connection: close" not in heard.lower():
                        break
            except (ConnectionError, TimeoutError):
                pass
            return heard

    def dial(self) -> socket.socket:
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        return socket.create_connection((parts.hostname, parts.port or 80), timeout=20)


def keys(key_id: str = KEY_ID, secret: str = SECRET) -> dict[str, str]:
    """Return the headers in which the SDKs send a key pair."""
    return {"APCA-API-KEY-ID": key_id, "APCA-API-SECRET-KEY": secret}
