"""``alpacli serve`` as a process, and a client of its relay that reads and writes whole messages."""

import asyncio
import json
import os
import signal
import socket
import struct
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.alpacli import Alpacli
from tests.support.sim_server import Abrupt
from tests.support.streaming import KEYS, user_of
from websockets.asyncio.client import connect

PAIR = {"APCA-API-KEY-ID": KEYS["ALPACA_API_KEY"], "APCA-API-SECRET-KEY": KEYS["ALPACA_SECRET_KEY"]}
BROKER = "/api/v1/broker/stream"


class Gateway:
    """A gateway of a user of its own, whose upstream is ``url`` (``ws://…``)."""

    def __init__(
        self, url: str, tmp_path: Path, *, user: Alpacli | None = None, more: Sequence[str] = (), **env: str
    ) -> None:
        """Start it; ``user`` is somebody who is there already, ``more`` are arguments."""
        self.home = tmp_path
        user = self.user = user or user_of(url, tmp_path, **env)
        self._runtime = user.env["XDG_RUNTIME_DIR"]
        self.errors = ""
        self._frozen: list[int] = []
        self.process = user.start(
            ["serve", "--port", "0", "--quiet", *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @cached_property
    def url(self) -> str:
        """Wait until it listens; who starts several waits for them together."""
        assert self.process.stdout is not None
        url = str(self.process.stdout.readline().strip())
        assert url.startswith("http://"), self.process.communicate()
        return url

    @property
    def ws(self) -> str:
        return self.url.replace("http", "ws")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.go_on()
        if error is None:
            assert self.url  # so it knows by now what to do with a signal
        self.process.send_signal(signal.SIGTERM)
        try:
            _, self.errors = self.process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise

    def hub(self) -> int:
        """Return the process that holds the shared connection of this gateway's machine."""
        for path in (self.home / "run" / "alpacli").glob("*.sock"):
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(f"{self._runtime}/alpacli/{path.name}")  # the path itself may be too long for a socket
                return int(struct.unpack("iII", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])
        raise AssertionError("no hub listens")

    def die(self) -> None:
        """Fall over as a machine does: gateway and hub at once, without a word."""
        os.kill(self.hub(), signal.SIGKILL)
        self.process.kill()

    def stand_still(self) -> None:
        """Freeze as a machine does that is put to sleep: gateway and hub at once, with their connections open."""
        self._frozen = [self.hub(), self.process.pid]
        for pid in self._frozen:
            os.kill(pid, signal.SIGSTOP)

    def go_on(self) -> None:
        for pid in self._frozen:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self._frozen = []

    def connect(self, path: str, *, headers: Mapping[str, str] = PAIR, **options: Any) -> "RelayClient":
        return RelayClient(self.ws + path, headers, options)


class RelayClient(Abrupt):
    """Use it in ``async with``; messages of arrays come one by one."""

    def __init__(self, url: str, headers: Mapping[str, str], options: Mapping[str, Any]) -> None:
        self._connecting = connect(url, additional_headers=headers, proxy=None, ping_interval=None, **options)
        self._heard: list[Any] = []

    async def say(self, **command: Any) -> None:
        await self.socket.send(json.dumps(command))

    async def hear(self, within_s: float = 20.0) -> Any:
        """Return the next message."""
        while not self._heard:
            async with asyncio.timeout(within_s):  # Python 3.11's wait_for may lose a cancellation
                told = json.loads(await self.socket.recv())
            self._heard += told if isinstance(told, list) else [told]
        return self._heard.pop(0)

    async def hear_of(self, kind: str, within_s: float = 20.0) -> Any:
        """Return the next message of a type, past others."""
        async with asyncio.timeout(within_s):
            while True:
                told = await self.hear(within_s)
                if kind in (told.get("type"), told.get("T")):
                    return told
