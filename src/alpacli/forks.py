"""What happens to what threads share when a process forks: a child has all of its parent's memory, and none of its threads.

A lock that another thread held would stay locked in the child for ever, and SQLite would believe that the child has those
locks on files which its parent has. So what is under way ends before a fork, what a child must not have is closed, and
parent and child each open it again when they need it.
"""

import os
from _thread import RLock, get_ident
from _weakref import ref  # the module around it costs the cached path more than all of this
from typing import Final, Protocol, Self


class LetsGo(Protocol):
    """Something that a child must not have open."""

    def let_go(self) -> None:
        """Close it; it is opened again when it is needed. Called with the turn; never raises."""

    def abandon(self) -> None:
        """Use what is open no more, and do not close it: it was inherited from somebody who is at work with it."""


class Turns(RLock):  # type: ignore[misc] # final for typeshed alone
    """The lock of what threads share. A fork takes a turn like everybody, and a child begins with a lock of its own.

    ``owner`` is told to let go before a fork, which waits for the turn no longer than ``patience_s``, and then for no other.
    A fork by the very thread that has the turn leaves all as it is, in the child too, which is that thread.

    It is a lock, and does not hold one: in a method of ours Ctrl-C could come between taking it and having it.
    """

    def __new__(cls, owner: LetsGo | None = None, *, patience_s: float = 5.0) -> Self:
        return super().__new__(cls)

    def __init__(self, owner: LetsGo | None = None, *, patience_s: float = 5.0) -> None:
        self.patience_s = patience_s
        self._owner = None if owner is None else ref(owner)
        _all[ref(self, _all.pop)] = None  # a function of ours would swallow a Ctrl-C that came while it ran

    def is_ours(self) -> bool:
        """Tell whether it is this thread's turn already."""
        return bool(self._is_owned())  # type: ignore[attr-defined] # as threading.Condition asks it

    def rest(self, timeout_s: float) -> bool:
        """Take the turn for a fork, and have the owner let go; false when somebody keeps it for longer."""
        if not self.acquire(timeout=timeout_s):
            return False
        owner = None if self._owner is None else self._owner()
        if owner is not None:
            owner.let_go()
        return True

    def begin_anew(self, *, rested: bool) -> None:
        """Be nobody's in a child; what the owner could not close is left to its parent."""
        owner = None if self._owner is None else self._owner()
        if owner is not None and not rested:
            owner.abandon()
        self._at_fork_reinit()  # type: ignore[attr-defined] # as threading and logging do


_all: Final[dict["ref[Turns]", None]] = {}
"""In the order in which they were made."""
_forking: Final[dict[int, list[Turns]]] = {}
"""The turns that each thread has taken for a fork that is under way."""


def _living() -> list[Turns]:
    return [turns for found in list(_all) if (turns := found()) is not None]


def _before() -> None:
    taken = _forking[get_ident()] = []
    patient = True
    for turns in reversed(_living()):
        if turns.is_ours():
            continue
        if turns.rest(turns.patience_s if patient else 0.0):
            taken.append(turns)
        else:
            patient = False


def _after_in_parent() -> None:
    for turns in _forking.pop(get_ident(), []):
        turns.release()


def _after_in_child() -> None:
    taken = _forking.pop(get_ident(), [])
    _forking.clear()
    for turns in _living():
        if not turns.is_ours() or turns in taken:
            turns.begin_anew(rested=turns in taken)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
