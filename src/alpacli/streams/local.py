"""Where the hub of one user, account, stream and feed listens, how it is started, and what goes over its socket.

A message on the socket is four bytes of length, one byte of kind and the content: ``L`` is lines as ``alpacli stream --json``
prints them, ``E`` an event as JSON, ``B`` nothing but a sign of life: all that came before it is on the way. Members speak in
lines of JSON: ``{"do": "hello" | "subscribe" | "unsubscribe", …}``.
"""

import fcntl
import os
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import msgspec

from alpacli.errors import (
    AlpacliError,
    AuthenticationError,
    ConfigError,
    RedirectRefused,
    StreamLost,
    StreamRefused,
)
from alpacli.streams import events
from alpacli.streams.events import Event

VERSION: Final = 2
LINES: Final = ord("L")
EVENT: Final = ord("E")
BEAT: Final = ord("B")
HEADER_BYTES: Final = 5

if TYPE_CHECKING:
    from asyncio.trsock import TransportSocket

_EVENTS: Final[dict[str, type[Event]]] = {
    kind.__name__: kind
    for kind in (
        events.Connecting,
        events.Live,
        events.Reconnecting,
        events.Gap,
        events.Refused,
        events.Lagging,
        events.Health,
        events.Unshared,
    )
}
_FAILURES: Final[dict[str, type[AlpacliError]]] = {
    kind.__name__: kind
    for kind in (AlpacliError, AuthenticationError, ConfigError, RedirectRefused, StreamRefused, StreamLost)
}
"""All that can end the hub's connection for good; another one's exit code would be lost on the way."""


class Upstream(NamedTuple):
    """The one connection that is shared: where, as whom, and in which form; with ``redis_url`` by many machines."""

    url: str
    key_id: str
    secret: str
    kind: Literal["market", "updates"]
    encoding: Literal["json", "msgpack"]
    linger_s: float
    timeout_s: float
    redis_url: str = ""

    @property
    def name(self) -> str:
        """Return a name that only those who know the secret can make, so that a wrong secret finds another hub."""
        return self._digest(self.redis_url)

    @property
    def shared_name(self) -> str:
        """Return the name of this connection on all machines, however they reach Redis."""
        return self._digest("")

    def _digest(self, sharing: str) -> str:
        text = f"{VERSION}\n{self.url}\n{self.key_id}\n{self.secret}\n{self.encoding}\n{sharing}"
        return blake2b(text.encode(errors="surrogateescape"), digest_size=9, person=b"alpacli hub").hexdigest()


_ENDINGS: Final = (".sock", ".log", ".lock", ".start")
_SWEPT_AFTER_S: Final = 3600.0
"""How long ago a hub was last started when its files are in nobody's way any more; its log has been read by then."""


class Meeting(NamedTuple):
    """The files of one hub; ``lock`` is held by the hub while it lives, ``starting`` by whoever is starting it."""

    socket: str
    lock: str
    starting: str
    log: str


def meeting(upstream: Upstream) -> Meeting:
    """Return where the hub is to be met, in a directory that nobody else can enter.

    Raises:
        OSError: there is no such directory and it cannot be made, or it belongs to somebody else.
    """
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    if base and os.access(base, os.W_OK) and len(base) < 50:
        directory = os.path.join(base, "alpacli")
    else:
        directory = os.path.join(tempfile.gettempdir(), f"alpacli-{os.getuid()}")
        if len(directory) > 60:  # a socket's path has room for about 100 bytes
            directory = f"/tmp/alpacli-{os.getuid()}"  # noqa: S108 # checked below: ours alone, or refused
    os.makedirs(directory, mode=0o700, exist_ok=True)
    found = os.lstat(directory)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        msg = f"{directory} is not a directory of your own alone"
        raise PermissionError(msg)
    path = os.path.join(directory, upstream.name)
    return Meeting(f"{path}.sock", f"{path}.lock", f"{path}.start", f"{path}.log")


def start_hub(upstream: Upstream, place: Meeting) -> bool:
    """Start the hub unless somebody else is doing so; false when it was left to them.

    It outlives this process, gets its instructions on standard input, where no other process can read them, and ends by
    itself when nobody has used it for a while.
    """
    starting = take_lock(place.starting)
    if starting is None:
        return False
    try:
        if is_listening(place):
            return True
        log = os.open(place.log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            process = subprocess.Popen(  # noqa: S603 # our own interpreter and module
                [sys.executable, "-P", "-m", "alpacli.live", "hub", place.socket],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
            )
        finally:
            os.close(log)
        if process.stdin is None:
            raise AssertionError("a pipe was asked for")
        # Waited for aside, so that a program that lives longer has no zombie, and no warning of a process that still runs.
        threading.Thread(target=process.wait, name="alpacli hub", daemon=True).start()
        try:
            with process.stdin as instructions:
                instructions.write(msgspec.json.encode(upstream._asdict()))
        except BrokenPipeError:
            return True  # it ended at once: its log tells why, and whoever waits for it gives up
        # The lock is kept until the hub listens: a second starter would only start a hub that finds the first.
        for _ in range(500):
            if is_listening(place) or process.poll() is not None:
                break
            _wait(0.01)
        return True
    finally:
        os.close(starting)


def take_lock(path: str) -> int | None:
    """Return a descriptor that holds the lock of a file until it is closed; ``None`` when another process holds it.

    A file that was swept away before the lock was taken is not the one that others will look at: then it is made anew.
    """
    while True:
        file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file), os.stat(path)):
                return file
        except BlockingIOError:
            os.close(file)
            return None
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def sweep(directory: str, now: float) -> None:
    """Remove the files of hubs that are gone: a hub holds its lock while it lives, a starter its own."""
    with suppress(OSError):
        found = [name for name in os.listdir(directory) if name.endswith(_ENDINGS)]
        for path in sorted({os.path.join(directory, name.rpartition(".")[0]) for name in found}):
            with suppress(OSError):
                _sweep_one(path, now)


def _sweep_one(path: str, now: float) -> None:
    files = [path + ending for ending in _ENDINGS if os.path.lexists(path + ending)]
    if not files or now - max(os.lstat(file).st_mtime for file in files) < _SWEPT_AFTER_S:
        return
    held: list[int] = []
    try:
        for ending in (".start", ".lock"):
            lock = take_lock(path + ending)
            if lock is None:
                return
            held.append(lock)
        for ending in _ENDINGS:  # the locks last: until then nobody begins
            with suppress(FileNotFoundError):
                os.unlink(path + ending)
    finally:
        for lock in held:
            os.close(lock)


def is_listening(place: Meeting) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(place.socket)
        except OSError:
            return False
    return True


def end_hub(connection: "socket.socket | TransportSocket") -> None:
    """Kill the hub that a connection leads to: it stands still, and would hold the account's only connection for ever.

    The system says who listens there, so it is that process and no other; nothing is done when it does not say, or when
    the connection is closed by now because another stream was quicker. A process that is stopped takes no other signal.
    """
    if not hasattr(socket, "SO_PEERCRED"):
        return
    try:
        who = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    except OSError:
        return
    pid, uid, _ = struct.unpack("3i", who)
    if pid > 1 and pid != os.getpid() and uid == os.getuid():
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def _wait(seconds: float) -> None:
    from alpacli.ports import SystemClock

    SystemClock().sleep(seconds)


def pack(kind: int, content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + bytes((kind,)) + content


def pack_event(event: Event) -> bytes:
    return pack(EVENT, msgspec.json.encode({"event": type(event).__name__, **event._asdict()}))


def pack_failure(error: AlpacliError) -> bytes:
    return pack(EVENT, msgspec.json.encode({"event": "Failed", **error.as_dict()}))


def unpack_event(content: bytes) -> Event | AlpacliError | None:
    """Return the event, the error that ended the hub's connection, or ``None`` for one of another version."""
    fields = msgspec.json.decode(content)
    name = fields.pop("event", "")
    if name == "Failed":
        made = _FAILURES.get(fields.pop("type"), StreamLost)
        return made(**fields)
    kind = _EVENTS.get(name)
    return None if kind is None else kind(**fields)
