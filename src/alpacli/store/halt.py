"""The stop that stays: a small file that says that no new risk is taken, until somebody says otherwise.

It is a file of its own and no cache entry, so it neither ages nor goes with a cache that is cleared or corrupt. With Redis it
holds on every machine. Redis counts each halt and each resume of the account; the file remembers at which count Redis
learned of its halt, so that each of the two can be told what it missed:

- Redis cannot be reached: the file decides. A machine that saw a halt keeps it there, so losing Redis ends no halt.
- Redis says halted: halted, and the file keeps it.
- Redis says resumed, later than it learned of the file's halt: resumed, here too.
- Redis knows nothing of the file's halt (it was down at the time, or lost its memory): halted, and it is told again.

So a resume has to reach Redis, and doubt halts.
"""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple, Protocol

from alpacli.errors import ConfigError, StoreUnavailable
from alpacli.ports import Clock

_ASK_AGAIN_S: Final = 15.0
"""A Redis that did not answer is left alone for this long: every order would wait for it."""


class Halt(NamedTuple):
    """Since when (Unix seconds), why, and by whom trading is halted.

    When others halted what was halted already, ``reason`` is why it began and why the last of them did, and ``first`` the
    former alone: all of it is in the journals.
    """

    at: float
    reason: str
    by: str
    first: str = ""

    def and_then(self, later: "Halt") -> "Halt":
        """Return what holds when ``later`` comes to a halt that stands: it began when it began, and both had a reason."""
        began = self.first or self.reason
        if later.reason in ("", began):
            return self
        told = later.reason if later.by == self.by else f"{later.by}: {later.reason}"
        return self._replace(reason=f"{began}; then {told}" if began else told, first=began)


class Notes(Protocol):
    """Small values that stay, shared by machines (Redis); each change of one counts up its version, from 1."""

    def note(self, key: str) -> tuple[int, bytes | None]: ...

    def set_note(self, key: str, value: bytes | None) -> int: ...


class _Kept(NamedTuple):
    """A halt in the file; ``told`` is the version at which Redis has it, ``None`` when it was never told."""

    halt: Halt
    told: int | None


class HaltSwitch:
    """The halt of one account: in the file ``path`` and, when several machines share a Redis, in ``shared`` under ``key``."""

    def __init__(self, path: str, key: str, shared: Notes | None, clock: Clock, warn: Callable[[str], None]) -> None:
        self._path = path
        self._key = key
        self._shared = shared
        self._clock = clock
        self._warn = warn
        self._lost_until = float("-inf")

    def state(self) -> Halt | None:
        """Return the halt, or ``None``. A file that cannot be read halts: nobody knows that it may be ignored."""
        kept = self._kept()
        if self._shared is None or self._clock.monotonic() < self._lost_until:
            return kept and kept.halt
        try:
            return self._agree(self._shared, kept)
        except StoreUnavailable:
            self._lost_until = self._clock.monotonic() + _ASK_AGAIN_S
            if kept is None:
                self._warn("Redis does not answer: whether another machine halted trading is unknown")
            return kept and kept.halt

    def remind(self) -> None:
        """Tell Redis of the halt that is kept here, should it have forgotten; without one here nobody is asked anything."""
        if self._shared is not None and os.path.exists(self._path):
            self.state()

    def set(self, halt: Halt) -> Halt:
        """Halt, now and until ``clear``, and return the halt that holds. The file or Redis is enough.

        One that stands, here or on another machine, goes on: see ``Halt.and_then``. What could not be told is a warning.

        Raises:
            ConfigError: neither the file could be written nor Redis told.
        """
        kept, asked = self._kept(), halt
        halt = _after(kept, asked)
        failure: OSError | None = None
        try:
            self._keep(_Kept(halt, None))
        except OSError as error:
            failure = error
        told: int | None = None
        if self._shared is not None:
            try:
                version, value = self._shared.note(self._key)
                if value is not None:
                    halt = _after(_read(value), asked)
                elif kept is not None and kept.told is not None and kept.told < version:
                    halt = asked  # what stood here was ended elsewhere
                told = self._shared.set_note(self._key, _bytes(_Kept(halt, None)))
            except StoreUnavailable:
                self._warn(
                    "Redis does not answer: other machines learn of the halt when this one trades and reaches it again"
                )
        if failure is None:
            if told is not None:
                self._try_to_keep(_Kept(halt, told))
            return halt
        problem = f"cannot write {self._path}: {failure.strerror}"
        if told is None:
            raise ConfigError(problem, "trading is NOT halted: make room, or set ALPACLI_STATE_DIR") from None
        self._warn(f"{problem}; the halt is in Redis alone")
        return halt

    def clear(self) -> None:
        """End the halt everywhere.

        Raises:
            StoreUnavailable: Redis cannot be told; the halt stays, here too, or it would come back.
            ConfigError: the file cannot be removed.
        """
        if self._shared is not None:
            try:
                self._end(self._shared)
            except StoreUnavailable as error:
                raise StoreUnavailable(
                    f"trading stays halted, because Redis cannot be told: {error.message}",
                    "try again; without REDIS_URL, `alpacli resume` ends the halt of this machine alone",
                ) from None
        try:
            self._remove()
        except OSError as error:
            raise ConfigError(f"cannot remove {self._path}: {error.strerror}", "remove it by hand") from None

    def _end(self, shared: Notes) -> None:
        """Tell Redis of a resume, unless it stands still: it would carry it out when it goes on, after it was called failed.

        Should it stop between the two, the file forgets that Redis knows of the halt, and the next look tells it again.
        """
        _, value = shared.note(self._key)
        try:
            shared.set_note(self._key, None)
        except StoreUnavailable:
            kept = self._kept() if value is None else _read(value)
            if kept is not None:
                self._try_to_keep(_Kept(kept.halt, None))
            raise

    def _agree(self, shared: Notes, kept: _Kept | None) -> Halt | None:
        """Tell file and Redis what the other one knows, and return what holds."""
        version, value = shared.note(self._key)
        if value is not None:
            halt = _read(value).halt
            if kept is None or kept.told != version:
                self._try_to_keep(_Kept(halt, version))
            return halt
        if kept is None:
            return None
        if kept.told is not None and kept.told < version:
            with suppress(OSError):  # Redis has the last word, and will say it again
                self._remove()
            return None
        self._try_to_keep(_Kept(kept.halt, shared.set_note(self._key, _bytes(kept))))
        return kept.halt

    # --------------------------------------------------------------------------------------------------- the file

    def _kept(self) -> _Kept | None:
        try:
            with open(self._path, "rb") as file:
                return _read(file.read())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            return _Kept(Halt(0.0, f"{self._path} cannot be read: {error.strerror}", ""), None)

    def _keep(self, kept: _Kept) -> None:
        os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
        name = f"{self._path}.{os.getpid()}"
        with open(name, "wb") as file:
            file.write(_bytes(kept))
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, self._path)  # plain text paths, as in all of store

    def _try_to_keep(self, kept: _Kept) -> None:
        with suppress(OSError):  # what is known now holds; the next look tries again
            self._keep(kept)

    def _remove(self) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self._path)


def _after(kept: _Kept | None, halt: Halt) -> Halt:
    """Return what holds when a halt comes to one that is kept; of one that nobody can read nothing is known."""
    return halt if kept is None or not kept.halt.at else kept.halt.and_then(halt)


def _bytes(kept: _Kept) -> bytes:
    return json.dumps({**kept.halt._asdict(), "told": kept.told}).encode()


def _read(value: bytes) -> _Kept:
    try:
        found: Any = json.loads(value)
        told = found.get("told")
        halt = Halt(float(found["at"]), str(found["reason"]), str(found["by"]), str(found.get("first", "")))
        return _Kept(halt, told if type(told) is int else None)
    except (ValueError, TypeError, KeyError, AttributeError):
        return _Kept(Halt(0.0, "the halt's own record is damaged", ""), None)
