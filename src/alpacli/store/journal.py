"""The record of every order action: append-only JSON lines that survive ``kill -9`` and show when somebody changed them.

Each line holds the hash of the line before it, so a changed, missing or inserted line breaks the chain; ``.head`` beside the
file holds number and hash of the last line, so a cut-off end shows too. Lines are written under a file lock by any number of
processes and are on the disk (fsync) when ``append`` returns: an order is written here before it is sent.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final, NamedTuple

from alpacli.errors import ConfigError

_TAIL: Final = 1 << 16
_START: Final = "0" * 64
_OLDER_AT_MOST: Final = 50


class Fault(NamedTuple):
    """One thing that is wrong with the file; ``line`` counts from 1."""

    line: int
    problem: str


class Journal:
    """The journal in ``path``; made, for this user only, when something is first written."""

    def __init__(self, path: str) -> None:
        self.path = path

    def append(self, record: Mapping[str, Any], allowed: Callable[[], None] | None = None) -> int:
        """Write one record, to the disk; return its number, from 1.

        ``allowed`` is called first, while no other process can write: what it raises leaves the journal as it was.

        Raises:
            ConfigError: it cannot be written. What was to be recorded must not be done then.
        """
        try:
            with self._locked() as file:
                if allowed is not None:
                    allowed()
                count, last_hash = self._end(file)
                body = {"seq": count + 1, **record, "prev": last_hash}
                digest = _digest(body)
                line = json.dumps({**body, "hash": digest}, ensure_ascii=False, separators=(",", ":")) + "\n"
                size = os.fstat(file).st_size
                try:
                    _write_all(file, line.encode("utf-8", "backslashreplace"))
                    os.fsync(file)
                    self._set_head(count + 1, digest)
                except OSError:
                    os.ftruncate(file, size)  # a full disk: what is said not to be recorded must not be found later
                    raise
                return count + 1
        except OSError as error:
            raise ConfigError(
                f"the order journal cannot be written: {error.strerror or error}",
                f"make {os.path.dirname(self.path)} writable, or set ALPACLI_STATE_DIR; nothing was sent",
            ) from None

    def records(self) -> Iterator[dict[str, Any]]:
        """Return all records, oldest first; lines that cannot be read are left out (``verify`` finds them).

        Raises:
            ConfigError: the file cannot be read.
        """
        for _, record in self._lines():
            if record is not None:
                yield record

    def since(self, at: float, *, field: str = "at") -> list[dict[str, Any]]:
        """Return the records of the end of the file whose ``field`` (Unix seconds) is at least ``at``, oldest first.

        A few older ones among them do not end the search: clocks are set.

        Raises:
            ConfigError: the file cannot be read.
        """
        found: list[dict[str, Any]] = []
        older = 0
        try:
            for line in _backwards(self.path):
                record = _parsed(line)
                if record is None:
                    continue
                if isinstance(record.get(field), int | float) and record[field] >= at:
                    found.append(record)
                    continue
                older += 1
                if older > _OLDER_AT_MOST:
                    break
        except OSError as error:
            raise self._unreadable(error) from None
        return found[::-1]

    def verify(self) -> tuple[int, list[Fault]]:
        """Return how many lines there are, and everything that shows that they are not as they were written."""
        faults: list[Fault] = []
        head = self._head()  # before the lines, which others may add to meanwhile
        last, number, hashes = _START, 0, {}
        for number, record in self._lines():
            if record is None:
                faults.append(Fault(number, "it is not a record"))
                last = ""
                continue
            body = {name: value for name, value in record.items() if name != "hash"}
            if record.get("hash") != _digest(body):
                faults.append(Fault(number, "it was changed after it was written"))
            elif last and record.get("prev") != last:
                faults.append(Fault(number, "a line before it is missing, was inserted or was changed"))
            last = str(record.get("hash"))
            hashes[record.get("seq")] = last
        if head is not None and hashes.get(head[0]) != head[1]:
            faults.append(Fault(number, f"the end is missing: line {head[0]} was written and is not here"))
        elif number > 1 and self._head() is None:
            faults.append(Fault(number, "the file that says which line is the last is gone, so more may be missing"))
        return number, faults

    def _lines(self) -> Iterator[tuple[int, dict[str, Any] | None]]:
        try:
            with open(self.path, "rb") as file:
                for number, line in enumerate(file, 1):
                    if line.endswith(b"\n"):  # else it was being written when somebody was killed: nobody relied on it
                        yield number, _parsed(line)
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: OSError) -> ConfigError:
        return ConfigError(
            f"the order journal cannot be read: {error.strerror or error}",
            f"make {self.path} readable, or set ALPACLI_STATE_DIR; nothing was sent",
        )

    @contextmanager
    def _locked(self) -> Iterator[int]:
        os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file
        finally:
            os.close(file)

    def _end(self, file: int) -> tuple[int, str]:
        """Return number and hash of the line that was written last; a torn one behind it is taken away.

        Where that line is not there any more, what is written next follows on it all the same, so that the gap shows for
        good: that ``.head`` knows of it would be forgotten.
        """
        written = self._head() or (0, _START)
        size = os.fstat(file).st_size
        if not size:
            return written
        tail, at = b"", size
        while at > 0 and tail.rstrip(b"\n").count(b"\n") < 1:
            step = min(_TAIL, at)
            at -= step
            tail = os.pread(file, step, at) + tail
        whole = tail.rfind(b"\n") + 1
        if whole < len(tail):
            os.ftruncate(file, size - (len(tail) - whole))
        lines = tail[:whole].splitlines()
        record = _parsed(lines[-1]) if lines else None
        if record is None or record["seq"] <= written[0]:
            return written
        return record["seq"], record["hash"]

    def _head(self) -> tuple[int, str] | None:
        try:
            with open(self.path + ".head", encoding="ascii") as file:
                number, _, digest = file.read().strip().partition(" ")
            return int(number), digest
        except (OSError, ValueError):
            return None

    def _set_head(self, number: int, digest: str) -> None:
        name = f"{self.path}.head.{os.getpid()}"
        try:
            file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                _write_all(file, f"{number} {digest}\n".encode())
            finally:
                os.close(file)
            os.replace(name, self.path + ".head")  # plain text paths, as in all of store
        except OSError:
            with suppress(OSError):
                os.unlink(name)
            raise


def _write_all(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


def _parsed(line: bytes) -> dict[str, Any] | None:
    """Return what a line says; ``None`` when it is nothing that ``append`` writes, whatever else it may be."""
    try:
        record = json.loads(line, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or type(record.get("seq")) is not int:
        return None
    return record if isinstance(record.get("prev"), str) and isinstance(record.get("hash"), str) else None


def _no_number(text: str) -> object:
    raise ValueError(f"{text} is no JSON")


def _digest(body: Mapping[str, Any]) -> str:
    text = json.dumps(body, ensure_ascii=True, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _backwards(path: str) -> Iterator[bytes]:
    """Return the whole lines of a file from its end."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        at, rest = os.fstat(file).st_size, b""
        while at > 0:
            step = min(_TAIL, at)
            at -= step
            rest = os.pread(file, step, at) + rest
            first, *lines = rest.split(b"\n")
            for line in reversed(lines):
                if line:
                    yield line
            rest = first + b"\n" if first else b""
        if rest.strip():
            yield rest.strip()
    finally:
        os.close(file)
