"""The program without the cost of its start: forked from a process that has loaded it, and has done nothing else.

Starting Python and loading a command takes ten times as long as what the command does, and the tests run some thousand of
them. Each is a process of its own all the same, with its environment, folder and streams, its own connections, and an end
like any other, but that it does not take apart what was loaded for it: that took as long again. What only a start can show,
such as variables that libraries read while they load, is started: ``start`` says where it cannot help. So is everything
where THOROUGH is set, as at night.
"""

import atexit
import gc
import importlib
import inspect
import json
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, Final

_PLAIN: Final = {
    *("HOME", "KEYRING_FILE", "LANG", "PATH", "PYTHONPATH", "PYTHON_KEYRING_BACKEND", "REDIS_URL", "TERM"),
    "XDG_RUNTIME_DIR",
}
_OURS: Final = ("ALPACA_", "ALPACLI_", "APCA_")
_LARGEST: Final = 100_000
_TOLD_BYTES: Final = 10  # the id and the end may lie in the pipe together
_COMMANDS: Final = (
    "alpacli.broker.client", "alpacli.broker.outcomes", "alpacli.broker.trading", "alpacli.cli.app",
    "alpacli.cli.entry", "alpacli.cli.history", "alpacli.cli.login", "alpacli.cli.output", "alpacli.cli.pipe",
    "alpacli.cli.profiles", "alpacli.cli.read", "alpacli.cli.run", "alpacli.cli.simulate", "alpacli.cli.stream",
    "alpacli.cli.stream_lines", "alpacli.cli.streaming", "alpacli.cli.trade", "alpacli.history.plan",
    "alpacli.history.sync", "alpacli.live", "alpacli.profiles", "alpacli.render.machine", "alpacli.runtime",
    "alpacli.sim.rest", "alpacli.sim.sockets", "alpacli.sim.transport", "alpacli.store.halt", "alpacli.store.journal",
    "alpacli.store.resilient", "alpacli.store.sqlite", "alpacli.store.sqlite_budget", "alpacli.streams.ahead",
    "alpacli.streams.client", "alpacli.streams.local", "alpacli.streams.recording", "alpacli.wire.alpaca",
    "alpacli.wire.fills", "concurrent.futures.thread", "csv", "importlib.resources", "pprint",
    "pydantic.plugin._loader", "pydantic.type_adapter", "requests", "rich.table", "tomllib", "typer._adapters",
    "typer._click.decorators", "typer.rich_utils",
)  # fmt: skip
_MARKET: Final = (
    *_COMMANDS, "alpacli.cli.export", "alpacli.cli.market", "alpacli.history.market", "alpacli.render.text",
    "alpacli.sim.bars", "numpy.typing", "pyarrow.compute", "pyarrow.parquet",
)  # fmt: skip
_SERVERS: Final = (
    "alpacli.cli.app", "alpacli.cli.entry", "alpacli.cli.gateway", "alpacli.cli.replaying", "alpacli.cli.run",
    "alpacli.cli.simulate", "alpacli.gateway.app", "alpacli.gateway.opening", "alpacli.gateway.protocol",
    "alpacli.gateway.serving", "alpacli.history.plan", "alpacli.runtime", "alpacli.sim.protocol", "alpacli.sim.replay",
    "alpacli.sim.server", "alpacli.store.journal", "alpacli.store.resilient", "alpacli.store.sqlite",
    "alpacli.store.sqlite_budget", "alpacli.threads", "alpacli.wire.alpaca", "alpacli.wire.fills", "pydantic.v1",
    "requests", "typer._adapters", "typer._click.decorators", "uvicorn.lifespan.off", "uvicorn.lifespan.on",
    "uvicorn.loops.asyncio", "uvicorn.loops.auto", "uvicorn.protocols.http.httptools_impl",
    "uvicorn.protocols.websockets.websockets_sansio_impl",
)  # fmt: skip
_LOADED: Final = {"serve": _SERVERS, "replay": _SERVERS, "bars": _MARKET, "data": _MARKET, "trades": _MARKET}


def start(
    program: str, args: Sequence[str], env: Mapping[str, str], cwd: str, **streams: Any
) -> "subprocess.Popen[Any]":
    """Start the program; ``streams`` are the options of ``Popen`` that name its streams, and ``start_new_session``."""
    alone = bool(streams.get("start_new_session"))
    message = json.dumps([program, *args, alone, cwd, dict(env)]).encode()
    plain = "HOME" in env and all(name in _PLAIN or name.startswith(_OURS) for name in env)
    customized = any(os.path.exists(os.path.join(folder, "sitecustomize.py")) for folder in _more_modules(env))
    if (
        not plain
        or customized
        or len(message) > _LARGEST
        or os.environ.get("THOROUGH")
        or not hasattr(os, "pidfd_open")
    ):
        return subprocess.Popen([program, *args], env=env, cwd=cwd, **streams)
    modules = next((_LOADED[word] for word in args[:2] if word in _LOADED), _COMMANDS)
    return _Forked(_nursery(modules), message, [program, *args], streams)


def _more_modules(env: Mapping[str, str]) -> list[str]:
    return [folder for folder in env.get("PYTHONPATH", "").split(os.pathsep) if folder]


class _Forked(subprocess.Popen[Any]):
    """A process that another one has forked, and that in all else is like one's own child."""

    def __init__(
        self, nursery: socket.socket, message: bytes, command: Sequence[str], streams: Mapping[str, Any]
    ) -> None:
        self._nursery, self._message = nursery, message
        super().__init__(command, **streams)

    def _execute_child(self, *given: Any) -> None:
        told = inspect.signature(subprocess.Popen._execute_child).bind(self, *given).arguments  # type: ignore[attr-defined] # CPython's own method
        pipes = [told[name] for name in ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")]
        self._end, end = os.pipe()
        theirs = [
            number if descriptor == -1 else descriptor
            for number, descriptor in enumerate((pipes[0], pipes[3], pipes[5]))
        ]
        socket.send_fds(self._nursery, [self._message], [*theirs, end])
        os.close(end)
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined] # CPython's own method
        self.pid = int(os.read(self._end, _TOLD_BYTES))
        self._child_created = True

    def _try_wait(self, flags: int) -> tuple[int, int]:
        if flags & os.WNOHANG and not select.select([self._end], [], [], 0)[0]:
            return 0, 0
        status = int(os.read(self._end, _TOLD_BYTES))
        os.close(self._end)
        return self.pid, status

    def _internal_poll(self, **_: Any) -> int | None:
        if self.returncode is None and self._waitpid_lock.acquire(blocking=False):  # type: ignore[attr-defined] # CPython's own lock
            try:
                if self.returncode is None:
                    pid, status = self._try_wait(os.WNOHANG)
                    if pid:
                        self._handle_exitstatus(status)  # type: ignore[attr-defined] # CPython's own method
            finally:
                self._waitpid_lock.release()  # type: ignore[attr-defined] # CPython's own lock
        return self.returncode


@cache
def _nursery(modules: tuple[str, ...]) -> socket.socket:
    """Start the process that loads the program, one for all tests of a worker; it ends when the worker does."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        env = {
            "PATH": os.environ["PATH"],
            "HOME": "/nonexistent",
            "LANG": "C.UTF-8",
            "PYDANTIC_DISABLE_PLUGINS": "__all__",
        }
        command = [sys.executable, "-P", __file__, str(theirs.fileno()), *modules]
        process = subprocess.Popen(command, env=env, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


# ------------------------------------------------------------------------------------- the process that has it loaded


def _be_asked(line: socket.socket, modules: Sequence[str]) -> bool:
    """Answer what is asked; return true in a process that has become what was asked for, false when all is over."""
    for name in modules:
        importlib.import_module(name)
    _build_models()
    gc.freeze()
    running: dict[int, tuple[int, int]] = {}  # by what tells that a process has ended: its id, and where to say how
    looking = select.poll()
    looking.register(line, select.POLLIN)
    while True:
        for descriptor, _ in looking.poll():
            if descriptor in running:
                looking.unregister(descriptor)
                pid, end = running.pop(descriptor)
                _, status = os.waitpid(pid, 0)
                with suppress(BrokenPipeError):
                    os.write(end, b"%*d" % (_TOLD_BYTES, status))
                os.close(end)
                os.close(descriptor)
                continue
            message, descriptors, _, _ = socket.recv_fds(line, 2 * _LARGEST, 4)
            if not message:
                return False
            *streams, end = descriptors
            pid = os.fork()
            if pid == 0:
                line.close()
                for watched, (_, others) in running.items():
                    os.close(watched)
                    os.close(others)
                os.close(end)
                _become(json.loads(message), streams)
                return True
            for stream in streams:
                os.close(stream)
            os.write(end, b"%*d" % (_TOLD_BYTES, pid))
            watched = os.pidfd_open(pid)
            running[watched] = pid, end
            looking.register(watched, select.POLLIN)


def _build_models() -> None:
    """Build what answers are read with, which is half of what a command does when it has loaded."""
    import pydantic

    models: list[type[pydantic.BaseModel]] = [pydantic.BaseModel]
    while models:
        for model in models.pop().__subclasses__():
            models.append(model)
            if model.__module__.startswith("alpacli."):
                model.model_rebuild()


def _become(asked: list[Any], streams: list[int]) -> None:
    """Be the process that was asked for."""
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    *sys.argv, alone, cwd, env = asked
    if alone:
        os.setsid()
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.path[:0] = _more_modules(env)


def _end(code: int) -> None:
    """End as Python does, up to where it takes its modules apart, each page of which would be copied first.

    What an object that nobody has any more would tell is told; what cannot be written is left to Python, which says so.
    """
    threading._shutdown()  # type: ignore[attr-defined] # Python's own first step
    atexit._run_exitfuncs()
    gc.collect()
    for stream in (sys.stdout, sys.stderr):
        try:
            if not stream.closed:
                stream.flush()
        except Exception:  # noqa: BLE001 # whatever it is, Python answers it
            return
    os._exit(code)


if __name__ == "__main__":
    if _be_asked(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:]):
        from alpacli.cli.entry import main

        code = main()
        _end(code)
        sys.exit(code)
