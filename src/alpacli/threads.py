"""Threads of our own for an event loop's blocking calls: nobody else's work waits for them, and no program's end.

The loop's own threads (``asyncio.to_thread``) are few, the program's too, and waited for at its end: a dozen reads that hang
would hold up an order, whatever else the program does in threads, and ``asyncio.run``. See docs/adr/0025.
"""

import contextvars
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, TypeVar

from alpacli.forks import Turns

T = TypeVar("T")

_IDLE_S: Final = 10.0
"""For how long a thread that has nothing to do is kept: a client that is dropped without ``close`` leaves none behind."""


class Threads:
    """At most ``most`` threads, each started when it is needed; they take work in its order."""

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._idle_s = _IDLE_S
        self._turns = Turns()
        self._forget()

    def _forget(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._count = self._idle = 0
        self._pid = os.getpid()

    def _look_around(self) -> None:
        """Begin anew after a fork: the threads are the parent's, and one of them may have had the lock."""
        if self._pid != os.getpid():
            with self._turns:
                if self._pid != os.getpid():
                    self._forget()

    def submit(self, work: Callable[[], T]) -> "Future[T]":
        """Have it done; who gives it up before it began has it not done at all."""
        self._look_around()
        future: Future[T] = Future()
        context = contextvars.copy_context()
        with self._changed:
            self._waiting.append((future, lambda: context.run(work)))
            if self._idle >= len(self._waiting):
                self._changed.notify()
            elif self._count < self._most:
                self._start()
        return future

    async def done(self, work: Callable[[], T]) -> T:
        """Have it done; who is cancelled meanwhile does not wait for it."""
        import asyncio

        return await asyncio.wrap_future(self.submit(work))

    async def to_the_end(self, work: Callable[[], T]) -> T:
        """Have it done; a cancellation waits for it.

        A thread cannot be stopped: one that goes on unseen could take a place or a lease after the flow gave it up.
        """
        import asyncio

        step = asyncio.wrap_future(self.submit(work))
        try:
            return await asyncio.shield(step)
        except asyncio.CancelledError:
            while not step.done():
                try:
                    await asyncio.wait([step])
                except asyncio.CancelledError:
                    continue  # cancelled once more: it ends all the same
            if not step.cancelled():
                step.exception()  # looked at, so that it is not reported as forgotten
            raise

    def _start(self) -> None:
        try:
            threading.Thread(target=self._serve, name=f"alpacli {self._name}", daemon=True).start()
        except RuntimeError:  # the system has no more of them
            if not self._count:
                self._waiting.pop()
                raise
        else:
            self._count += 1

    def close(self) -> None:
        """Let every thread end as soon as it has nothing to do; work that comes later is done all the same."""
        self._look_around()
        with self._changed:
            self._idle_s = 0.0
            self._changed.notify_all()

    def _serve(self) -> None:
        while (taken := self._next()) is not None:
            _do(*taken)
            del taken  # nothing is kept alive by a thread that waits

    def _next(self) -> "tuple[Future[Any], Callable[[], Any]] | None":
        with self._changed:
            self._idle += 1
            if not self._waiting and self._idle_s:
                self._changed.wait_for(lambda: self._waiting or not self._idle_s, self._idle_s)
            self._idle -= 1
            if self._waiting:
                return self._waiting.popleft()
            self._count -= 1
            return None


def _do(future: "Future[Any]", work: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001 # it is raised where the result is awaited
        future.set_exception(error)
    else:
        future.set_result(result)
