"""Hubs that stand still are ended, and what hubs that are gone have left is swept, where others may be quicker."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from alpacli.streams.local import end_hub, sweep, take_lock

LISTEN = """
import socket, sys, time
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print("listening")
time.sleep(60)
"""
END_ONESELF = """
import socket, sys
from alpacli.streams.local import end_hub
listener, member = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
member.connect(sys.argv[1])
end_hub(member)
print("still here")
"""


@pytest.fixture
def path() -> Iterator[str]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # the path of a socket has to be short
        yield str(Path(folder) / "hub.sock")


@pytest.fixture
def hub(path: str) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-u", "-c", LISTEN, path]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def connected(path: str) -> socket.socket:
    member = socket.socket(socket.AF_UNIX)
    member.connect(path)
    return member


@pytest.mark.skipif(not hasattr(socket, "SO_PEERCRED"), reason="this system does not tell who listens")
def test_the_process_that_listens_is_ended_although_it_is_stopped(path: str, hub: "subprocess.Popen[bytes]") -> None:
    with connected(path) as member:
        hub.send_signal(signal.SIGSTOP)
        end_hub(member)
    assert hub.wait(30) == -signal.SIGKILL


def test_a_connection_that_is_closed_by_now_leads_to_no_hub(path: str, hub: "subprocess.Popen[bytes]") -> None:
    member = connected(path)
    member.close()
    end_hub(member)
    assert hub.poll() is None


def test_a_process_never_ends_itself(path: str) -> None:
    done = subprocess.run([sys.executable, "-c", END_ONESELF, path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "still here\n")


def test_files_of_hubs_that_are_gone_are_swept_and_no_others(tmp_path: Path) -> None:
    endings = (".sock", ".log", ".lock", ".start")
    for name in ("gone", "alive", "starting", "recent"):
        for ending in endings:
            (tmp_path / (name + ending)).touch()
            os.utime(tmp_path / (name + ending), (1000, 1000))
    (tmp_path / "half.start").touch()
    os.utime(tmp_path / "half.start", (1000, 1000))
    os.utime(tmp_path / "recent.log", (9000, 9000))
    (tmp_path / "notes.txt").touch()
    held = [take_lock(str(tmp_path / name)) for name in ("alive.lock", "starting.start")]
    assert None not in held
    assert take_lock(str(tmp_path / "alive.lock")) is None
    sweep(str(tmp_path), 10_000)
    kept = {name + ending for name in ("alive", "starting", "recent") for ending in endings}
    assert {path.name for path in tmp_path.iterdir()} == {*kept, "notes.txt"}
    for lock in held:
        os.close(lock or 0)


def test_a_lock_that_is_swept_while_it_is_taken_is_taken_again(tmp_path: Path) -> None:
    path = str(tmp_path / "hub.lock")
    waiting = os.open(path, os.O_CREAT | os.O_RDWR)  # as a hub that begins while the file is swept
    os.unlink(path)
    fcntl.flock(waiting, fcntl.LOCK_EX | fcntl.LOCK_NB)
    lock = take_lock(path)
    assert lock is not None
    assert os.path.samestat(os.fstat(lock), os.stat(path))
    assert take_lock(path) is None
    os.close(lock)
    os.close(waiting)
