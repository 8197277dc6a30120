"""The writing end: a reader that left is no error, a descriptor that cannot be written is one."""

import os
import pty
import threading
import time

from alpacli.cli.pipe import LinePipe


def pipe_to(descriptor: int) -> tuple[LinePipe, threading.Event]:
    closed = threading.Event()

    def nothing() -> None: ...

    pipe = LinePipe(descriptor, 1000, conflate=True, closed=closed.set, overflow=nothing, full=nothing, drained=nothing)
    return pipe, closed


def ends(pipe: LinePipe) -> bool:
    give_up_at = time.monotonic() + 30
    while not pipe.ended and time.monotonic() < give_up_at:
        time.sleep(0.01)
    return pipe.ended


def test_a_reader_that_has_gone_ends_it_without_a_failure() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    pipe, closed = pipe_to(writing)
    pipe.put(b"{}\n", 1)
    assert closed.wait(30)
    assert ends(pipe)
    assert pipe.broken
    assert pipe.failure is None
    os.close(writing)


def test_a_terminal_that_goes_is_a_reader_that_left() -> None:
    leader, follower = pty.openpty()
    pipe, closed = pipe_to(follower)
    os.close(leader)
    pipe.put(b"{}\n", 1)
    assert closed.wait(30)
    assert ends(pipe)
    assert pipe.failure is None
    os.close(follower)


def test_a_full_disk_is_a_failure_that_says_so() -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    pipe, closed = pipe_to(descriptor)
    pipe.put(b"{}\n", 1)
    assert closed.wait(30)
    assert ends(pipe)
    assert pipe.broken
    assert pipe.failure is not None
    assert "No space left" in pipe.failure.message
    assert pipe.failure.hint
    os.close(descriptor)


def test_a_pipe_that_does_not_wait_is_waited_for() -> None:
    """Whoever shares the pipe may have made it non-blocking: every line arrives all the same."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    pipe, closed = pipe_to(writing)
    lines = b"".join(b'{"n":%d}\n' % number for number in range(100_000))
    pipe.put(lines, 900)
    pipe.finish()
    time.sleep(0.2)  # it is full now
    got = b""
    while len(got) < len(lines) and not closed.is_set():
        got += os.read(reading, 1 << 16)
    assert ends(pipe)
    assert got == lines
    os.close(reading)
    os.close(writing)
