"""The book of what was minted for a gateway's clients, and what of it was revoked: a small file, and with Redis a shared one.

A token is valid by its signature; the book adds that it was revoked, and what a key pair's secret hashes to. Nothing in it
lets anybody in: it holds no token and no secret. With Redis every gateway reads the same book: what only one machine knows,
because Redis was away, is told to the others as soon as it is back, and a revocation anywhere is one everywhere.
"""

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, NamedTuple, Protocol

from alpacli.errors import ConfigError, StoreUnavailable

_KEPT_S: Final = 7 * 86400
"""How long what has expired is still listed."""


class Shared(Protocol):
    """Small values that stay under the names of one key, shared by machines (Redis)."""

    def fields(self, key: str) -> dict[str, bytes]: ...

    def set_field(self, key: str, name: str, value: bytes | None) -> None: ...


class Minted(NamedTuple):
    """One token or key pair: times in Unix seconds, ``expires`` and ``revoked`` ``None`` for never.

    A pair has ``key_id`` and the SHA-256 of its secret. ``signed``: trades must be signed too.
    """

    id: str
    name: str = ""
    scopes: tuple[str, ...] = ()
    issued: float = 0.0
    expires: float | None = None
    revoked: float | None = None
    key_id: str = ""
    secret_sha256: str = ""
    signed: bool = False

    def lasts(self, now: float) -> bool:
        return self.revoked is None and (self.expires is None or now < self.expires)


class TokenBook:
    """The book of one account: the file ``path`` and, when several machines share a Redis, ``shared`` under ``key``."""

    def __init__(self, path: str, key: str, shared: Shared | None, warn: Callable[[str], None]) -> None:
        self._path = path
        self._key = key
        self._shared = shared
        self._warn = warn
        self._warned = False
        self._stamp: tuple[int, int, int] | None = None
        self._read: dict[str, Minted] = {}

    def entries(self) -> dict[str, Minted]:
        """Return everything that was minted or revoked, by id.

        Raises:
            ConfigError: the file cannot be read.
        """
        local = self._local()
        if self._shared is None:
            return local
        try:
            shared = {name: _entry(name, value) for name, value in self._shared.fields(self._key).items()}
            merged = dict(shared)
            for name, mine in local.items():
                known = merged.get(name)
                if known is None or (known.revoked is None and mine.revoked is not None):
                    merged[name] = mine
                    self._shared.set_field(self._key, name, _text(mine))
        except StoreUnavailable:
            if not self._warned:
                self._warned = True
                self._warn("Redis does not answer: what other machines minted or revoked is unknown until it does")
            return local
        self._warned = False
        return merged

    def add(self, entry: Minted) -> None:
        """Write an entry in, or over the one of the same id.

        Raises:
            ConfigError: the file cannot be written.
        """
        with self._alone():
            kept = {name: old for name, old in self._local().items() if not _is_old(old, entry.issued)}
            self._write({**kept, entry.id: entry})
        self._share(entry)

    def revoke(self, token_id: str, now: float) -> Minted:
        """Revoke what has this id; also an id that is not in the book, of a token that somebody else issued.

        Raises:
            ConfigError: the file cannot be written.
        """
        entry = self.entries().get(token_id, Minted(token_id))._replace(revoked=now)
        with self._alone():
            self._write({**self._local(), token_id: entry})
        self._share(entry)
        return entry

    def _local(self) -> dict[str, Minted]:
        try:
            with open(self._path, "rb") as file:
                status = os.fstat(file.fileno())
                stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
                if stamp != self._stamp:
                    found: Any = json.loads(file.read())
                    self._read = {name: _entry(name, json.dumps(fields).encode()) for name, fields in found.items()}
                    self._stamp = stamp
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is damaged"
            raise ConfigError(
                f"cannot read {self._path}: {reason}", "restore it from a backup, or remove it: revocations go with it"
            ) from None
        return dict(self._read)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
            lock = os.open(f"{self._path}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._unwritable(error) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _write(self, entries: dict[str, Minted]) -> None:
        name = f"{self._path}.{os.getpid()}"
        text = json.dumps({key: entry._asdict() for key, entry in entries.items()}, indent=1).encode()
        try:
            with open(os.open(name, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "wb") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, self._path)  # plain text paths, as in all of store
        except OSError as error:
            with suppress(OSError):
                os.unlink(name)
            raise self._unwritable(error) from None

    def _unwritable(self, error: OSError) -> ConfigError:
        return ConfigError(f"cannot write {self._path}: {error.strerror}", "make room, or set ALPACLI_STATE_DIR")

    def _share(self, entry: Minted) -> None:
        if self._shared is not None:
            try:
                self._shared.set_field(self._key, entry.id, _text(entry))
            except StoreUnavailable:
                self._warn("Redis does not answer: other machines hear of this when a gateway here reaches it again")


def _is_old(entry: Minted, now: float) -> bool:
    return entry.expires is not None and entry.expires + _KEPT_S < now


def _text(entry: Minted) -> bytes:
    return json.dumps(entry._asdict()).encode()


def _entry(token_id: str, value: bytes) -> Minted:
    """Read an entry; one that cannot be read revokes: nobody knows that it did not."""
    try:
        fields: Any = json.loads(value)
        known = {name: fields[name] for name in Minted._fields if name in fields}
        entry = Minted(**{**known, "id": token_id, "scopes": tuple(known.get("scopes", ()))})
    except (ValueError, TypeError):
        return Minted(token_id, revoked=0.0)
    return entry
