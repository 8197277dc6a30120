"""``alpacli stream`` as a process of a user who has a runtime directory, and so a hub, of their own."""

import atexit
import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.alpacli import Alpacli

_started: "list[subprocess.Popen[bytes]]" = []

KEYS = {"ALPACA_API_KEY": "PKTEST", "ALPACA_SECRET_KEY": "secret"}


def user_of(url: str, tmp_path: Path, **env: str) -> Alpacli:
    """Return a user whose market data and order updates come from ``url`` (``ws://…``), and whose hub goes quickly."""
    runtime = tmp_path / "run"
    runtime.mkdir(parents=True)
    short = Path("/tmp") / f"alpacli-test-{os.getpid()}-{abs(hash(tmp_path)) % 10**8}"
    short.symlink_to(runtime)
    atexit.register(short.unlink, missing_ok=True)
    http = url.replace("ws://", "http://")
    places = {"ALPACA_STREAM_URL": url, "ALPACA_BASE_URL": http, "ALPACA_DATA_URL": http}
    return Alpacli(tmp_path, {**KEYS, **places, "ALPACLI_HUB_LINGER": "0.5", "XDG_RUNTIME_DIR": str(short), **env})


def start(
    user: Alpacli, *args: str, stdin: int = subprocess.DEVNULL, stdout: int = subprocess.PIPE
) -> "subprocess.Popen[bytes]":
    process = user.start(
        ["stream", *args],
        stdin=stdin,
        stdout=stdout,
        stderr=subprocess.PIPE,
        bufsize=0,  # what readline has read ahead, communicate would not give back
    )
    _started.append(process)
    return process


def end_all() -> None:
    """End what a test that failed left running: the tests after it should not be told of it."""
    for process in _started:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        process.wait()
    _started.clear()


def parsed(out: bytes) -> list[dict[str, Any]]:
    """Return the lines, every one of them whole."""
    assert out.endswith(b"\n") or not out
    return [json.loads(line) for line in out.splitlines()]


def eventually(holds: Callable[[], bool], seconds: float = 30.0) -> bool:
    give_up_at = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > give_up_at:
            return False
        time.sleep(0.02)
    return True


def hub_pids(tmp_path: Path) -> list[int]:
    """Return the processes that hold the shared connections of this user."""
    pids: list[int] = []
    for lock in (tmp_path / "run" / "alpacli").glob("*.lock"):
        found = subprocess.run(["pgrep", "-f", f"{lock.stem}.sock"], capture_output=True, text=True, check=False)
        pids += map(int, found.stdout.split())
    return pids


def hubs_are_gone(tmp_path: Path) -> bool:
    """Tell whether no process holds a shared connection of this user any more, and none has complained."""
    for lock in (tmp_path / "run" / "alpacli").glob("*.lock"):
        with lock.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        said = lock.with_suffix(".log").read_text()
        assert not said, said
    return True
