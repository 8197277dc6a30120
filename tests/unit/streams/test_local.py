"""Ending a hub that stands still, where another stream may have been quicker."""

import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from alpacli.streams.local import end_hub

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
