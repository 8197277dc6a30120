"""The program without the cost of its start: forked from a process that has loaded it, and has done nothing else.

Starting Python and loading a command takes ten times as long as what the command does, and the tests run some thousand of
them. Each is a process of its own all the same, with its environment, folder and streams, its own connections, and an end
like any other. What only a start can show, such as variables that libraries read while they load, is started: ``run`` says
where it cannot help. So is everything where THOROUGH is set, as at night.
"""

import atexit
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, Final

_PLAIN: Final = {"HOME", "PATH", "LANG", "REDIS_URL", "XDG_RUNTIME_DIR"}
_OURS: Final = ("ALPACA_", "ALPACLI_", "APCA_")
_LARGEST: Final = 100_000
_LOADED: Final = (
    "alpacli.broker.client", "alpacli.broker.outcomes", "alpacli.cli.app", "alpacli.cli.entry", "alpacli.cli.output",
    "alpacli.cli.read", "alpacli.cli.run", "alpacli.cli.simulate", "alpacli.cli.trade", "alpacli.render.machine",
    "alpacli.runtime", "alpacli.sim.rest", "alpacli.sim.transport", "alpacli.store.resilient", "alpacli.store.sqlite",
    "alpacli.store.sqlite_budget", "csv", "importlib.resources", "pydantic.type_adapter", "requests", "typer._adapters",
)  # fmt: skip


def run(
    program: str, args: Sequence[str], env: Mapping[str, str], cwd: str, stdin: bytes, timeout_s: float
) -> tuple[int, bytes, bytes] | None:
    """Run to the end; return the exit code, output and errors, or ``None`` where the program has to be started.

    Raises:
        subprocess.TimeoutExpired: it did not end, and was killed.
    """
    message = json.dumps([program, *args, cwd, dict(env)]).encode()
    plain = "HOME" in env and all(name in _PLAIN or name.startswith(_OURS) for name in env)
    if not plain or len(message) > _LARGEST or os.environ.get("THOROUGH") or not hasattr(socket, "SOCK_SEQPACKET"):
        return None
    (stdin_of, to_stdin), *outgoing = (os.pipe() for _ in range(4))
    theirs = [stdin_of, *(write for _, write in outgoing)]
    socket.send_fds(_nursery(), [message], theirs)
    for descriptor in theirs:
        os.close(descriptor)
    out, errors, end = _converse(to_stdin, stdin, [read for read, _ in outgoing], timeout_s)
    pid, _, code = end.partition(b" ")
    if not code:
        os.kill(int(pid), signal.SIGKILL)
        raise subprocess.TimeoutExpired([program, *args], timeout_s, out, errors)
    return int(code), out, errors


def _converse(to_stdin: int, stdin: bytes, reading: Sequence[int], timeout_s: float) -> list[bytes]:
    """Write one and read the others to their ends, or until the time is up; close them all."""
    heard = dict.fromkeys(reading, b"")
    give_up_at = time.monotonic() + timeout_s
    with selectors.DefaultSelector() as waiting:
        waiting.register(to_stdin, selectors.EVENT_WRITE)
        for descriptor in reading:
            waiting.register(descriptor, selectors.EVENT_READ)
        while waiting.get_map() and time.monotonic() < give_up_at:
            for key, _ in waiting.select(1.0):
                if key.fd == to_stdin:
                    with suppress(BrokenPipeError):
                        written = os.write(to_stdin, stdin[:4096])
                        stdin = stdin[written:]
                        if stdin:
                            continue
                else:
                    piece = os.read(key.fd, 65536)
                    heard[key.fd] += piece
                    if piece:
                        continue
                waiting.unregister(key.fd)
                os.close(key.fd)
        for left in [key.fd for key in waiting.get_map().values()]:
            os.close(left)
    return list(heard.values())


@cache
def _nursery() -> socket.socket:
    """Start the process that loads the program, one for all tests of a worker; it ends when the worker does."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        env = {
            "PATH": os.environ["PATH"],
            "HOME": "/nonexistent",
            "LANG": "C.UTF-8",
            "PYDANTIC_DISABLE_PLUGINS": "__all__",
        }
        command = [sys.executable, "-P", __file__, str(theirs.fileno())]
        process = subprocess.Popen(command, env=env, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


# ------------------------------------------------------------------------------------- the process that has it loaded


def _be_asked(line: socket.socket) -> bool:
    """Answer what is asked; return true in a process that has become what was asked for, false when all is over."""
    for name in _LOADED:
        importlib.import_module(name)
    gc.freeze()
    while True:
        message, descriptors, _, _ = socket.recv_fds(line, 2 * _LARGEST, 4)
        if not message:
            return False
        if os.fork() == 0:
            line.close()
            return _become(json.loads(message), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass


def _become(asked: list[Any], descriptors: list[int]) -> bool:
    """Be the process that was asked for, with another one above it that tells its id and how it ended."""
    *streams, end = descriptors
    pid = os.fork()
    if pid:
        for descriptor in streams:
            os.close(descriptor)
        os.write(end, b"%d " % pid)
        _, status = os.waitpid(pid, 0)
        os.write(end, b"%d" % os.waitstatus_to_exitcode(status))
        os._exit(0)
    os.close(end)
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    *sys.argv, cwd, env = asked
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    return True


if __name__ == "__main__":
    if _be_asked(socket.socket(fileno=int(sys.argv[1]))):
        from alpacli.cli.entry import main

        sys.exit(main())
