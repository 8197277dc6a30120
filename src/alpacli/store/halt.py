"""The stop that stays: a small file that says that no new risk is taken, until somebody says otherwise.

It is a file of its own and no cache entry, so it neither ages nor goes with a cache that is cleared or corrupt. With Redis it
is kept there too, so that it holds on every machine; either of the two is enough to halt.
"""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

from alpacli.errors import ConfigError, StoreUnavailable


class Halt(NamedTuple):
    """Since when (Unix seconds), why, and by whom trading is halted."""

    at: float
    reason: str
    by: str


class Notes(Protocol):
    """Small values that stay, shared by machines (Redis)."""

    def note(self, key: str) -> bytes | None: ...

    def set_note(self, key: str, value: bytes | None) -> None: ...


class HaltSwitch:
    """The halt of one account: in the file ``path`` and, when several machines share a Redis, in ``shared`` under ``key``."""

    def __init__(self, path: str, key: str, shared: Notes | None, warn: Callable[[str], None]) -> None:
        self._path = path
        self._key = key
        self._shared = shared
        self._warn = warn

    def state(self) -> Halt | None:
        """Return the halt, or ``None``. A file that cannot be read halts: nobody knows that it may be ignored."""
        try:
            with open(self._path, "rb") as file:
                return _read(file.read())
        except FileNotFoundError:
            pass
        except OSError as error:
            return Halt(0.0, f"{self._path} cannot be read: {error.strerror}", "")
        if self._shared is None:
            return None
        try:
            found = self._shared.note(self._key)
        except StoreUnavailable:
            self._warn("Redis does not answer: whether another machine halted trading is unknown")
            return None
        return None if found is None else _read(found)

    def set(self, halt: Halt) -> None:
        """Halt, now and until ``clear``.

        Raises:
            ConfigError: the file cannot be written.
        """
        value = json.dumps(halt._asdict()).encode()
        try:
            os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
            name = f"{self._path}.{os.getpid()}"
            with open(name, "wb") as file:
                file.write(value)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, self._path)  # noqa: PTH105 # plain text paths, as in all of store
        except OSError as error:
            raise ConfigError(
                f"cannot write {self._path}: {error.strerror}", "make room, or set ALPACLI_STATE_DIR"
            ) from None
        self._share(value, "other machines were not told to halt")

    def clear(self) -> None:
        """End the halt everywhere.

        Raises:
            ConfigError: the file cannot be removed.
        """
        try:
            with suppress(FileNotFoundError):
                os.unlink(self._path)
        except OSError as error:
            raise ConfigError(f"cannot remove {self._path}: {error.strerror}", "remove it by hand") from None
        self._share(None, "other machines stay halted")

    def _share(self, value: bytes | None, otherwise: str) -> None:
        if self._shared is not None:
            try:
                self._shared.set_note(self._key, value)
            except StoreUnavailable:
                self._warn(f"Redis does not answer: {otherwise}")


def _read(value: bytes) -> Halt:
    try:
        found: Any = json.loads(value)
        return Halt(float(found["at"]), str(found["reason"]), str(found["by"]))
    except (ValueError, TypeError, KeyError):
        return Halt(0.0, "the halt's own record is damaged", "")
