"""What happens to what threads share when a process forks: a child has all of its parent's memory, and none of its threads.

A lock that another thread held would stay locked in the child for ever, and SQLite would believe that the child has those
locks on files which its parent has. So what is under way ends before a fork, what a child must not have is closed, and
parent and child each open it again when they need it.
"""

import os
from _thread import allocate_lock
from _weakref import ref  # the module around it costs the cached path more than all of this
from collections.abc import Callable
from typing import Final, Protocol

_PATIENCE_S: Final = 5.0
"""A fork waits no longer for whoever has the turn."""


class LetsGo(Protocol):
    """Something that a child must not have open."""

    def let_go(self) -> None:
        """Close it; it is opened again when it is needed. Called with the turn; never raises."""


class _Lock(Protocol):
    def acquire(self, blocking: bool = ..., timeout: float = ...) -> bool: ...  # noqa: FBT001 # as Python's own locks have it

    def release(self) -> None: ...


class Turns:
    """The lock of what threads share. A fork takes a turn like everybody, and a child begins with a lock of its own.

    ``owner`` is told to let go before a fork; ``make`` makes the lock.
    """

    __slots__ = ("__weakref__", "_lock", "_make", "_owner", "_rested")

    def __init__(self, owner: LetsGo | None = None, make: Callable[[], _Lock] = allocate_lock) -> None:
        self._owner = None if owner is None else ref(owner)
        self._make = make
        self._lock = make()
        self._rested = False
        number = id(self)
        _all[number] = ref(self, lambda _: _all.pop(number, None))

    def acquire(self, *, blocking: bool = True, timeout: float = -1) -> bool:
        return self._lock.acquire(blocking, timeout)

    def release(self) -> None:
        self._lock.release()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def rest(self) -> None:
        self._rested = self._lock.acquire(timeout=_PATIENCE_S)
        if self._rested and self._owner is not None and (owner := self._owner()) is not None:
            owner.let_go()

    def go_on(self, *, child: bool) -> None:
        rested, self._rested = self._rested, False
        if child:
            self._lock = self._make()
        elif rested:
            self._lock.release()


_all: Final[dict[int, "ref[Turns]"]] = {}


def _before() -> None:
    for found in reversed(list(_all.values())):
        if (turns := found()) is not None:
            turns.rest()


def _after(*, child: bool) -> None:
    for found in list(_all.values()):
        if (turns := found()) is not None:
            turns.go_on(child=child)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before, after_in_parent=lambda: _after(child=False), after_in_child=lambda: _after(child=True)
    )
