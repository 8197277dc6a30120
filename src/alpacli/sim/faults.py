"""Bad days on demand: what can go wrong between the exchange and a client, switched on to see how the client takes it.

A fault is a JSON object (``POST /sim/faults``) or words on the command line (``drop,after=5,path=/v2/iex``). It strikes every
connection of its endpoints that is open or comes, for as long as it is set or as often as ``times`` allows.
"""

import threading
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from alpacli.errors import UsageError
from alpacli.ports import Clock

KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "reject": ("status",),
    "refuse": ("code", "after"),
    "slow": ("seconds",),
    "drop": ("after", "how"),
    "mute": ("after", "how"),
    "delay": ("seconds", "after"),
    "duplicate": ("after",),
    "reorder": ("after",),
    "garbage": ("after", "how"),
    "future": ("seconds", "after"),
}
"""What a fault can be, and which of its switches mean something.

``reject`` answers the upgrade with an HTTP status. ``refuse`` answers the login with an error code and closes, or says it
``after`` so many seconds. ``slow`` delays each step of the handshake. ``drop`` resets the TCP connection; ``how=frame`` ends
it in the middle of a frame. ``mute`` stays open, says nothing and answers no ping; ``how=pongs`` answers pings. ``delay``,
``duplicate`` and ``reorder`` concern frames with data. ``garbage`` precedes each of them with a frame that is not right:
``how=syntax``, ``truncated``, ``oversized`` (17 MiB) or ``unknown`` (a type of message that does not exist). ``future`` moves
times ahead.
"""

_HOWS: Final[Mapping[str, tuple[str, ...]]] = {
    "drop": ("reset", "frame"),
    "mute": ("silence", "pongs"),
    "garbage": ("syntax", "truncated", "oversized", "unknown"),
}
_COMMON: Final = ("kind", "path", "times")
_MOST_S: Final = 86_400.0


class Fault(NamedTuple):
    """One switch. ``path`` ``""`` is every endpoint; ``times`` 0 is always.

    ``times`` counts connections for what a connection suffers once (reject, refuse, drop, mute), else frames. ``after`` is in
    seconds since the connection was made or the fault was set, whichever is later.
    """

    kind: str
    path: str = ""
    times: int = 0
    after: float = 0.0
    seconds: float = 1.0
    status: int = 429
    code: int = 406
    how: str = ""

    def shown(self) -> dict[str, str | int | float]:
        """Return the fault as it can be posted again."""
        return {name: value for name, value in self._asdict().items() if name in (*_COMMON, *KINDS[self.kind])}


class _Set:
    """A fault that is set; ``left`` counts down to 0, and is below 0 for ever."""

    def __init__(self, fault: Fault, since: float) -> None:
        self.fault = fault
        self.since = since
        self.left = fault.times or -1


class Faults:
    """The faults of one server. Thread-safe."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._set: list[_Set] = []
        self._lock = threading.Lock()

    def now(self) -> float:
        """Return the time that ``strike`` compares with, in seconds."""
        return self._clock.monotonic()

    def add(self, faults: Sequence[Fault]) -> None:
        with self._lock:
            self._set += [_Set(fault, self.now()) for fault in faults]

    def clear(self) -> None:
        """Switch everything off. What a connection has suffered stays: a muted one never speaks again."""
        with self._lock:
            self._set.clear()

    def shown(self) -> list[dict[str, str | int | float]]:
        with self._lock:
            return [entry.fault.shown() for entry in self._set if entry.left]

    def strike(
        self, kind: str, path: str, began: float, *, at_login: bool | None = None, how: str = "", count: bool = True
    ) -> Fault | None:
        """Return the fault of this kind that strikes a connection made at ``began`` now, and count it.

        ``at_login`` asks only for faults without ``after`` (true) or only for those with it (false), ``how`` for one way.
        ``count=False`` only looks.
        """
        if not self._set:
            return None
        now = self.now()
        with self._lock:
            for entry in self._set:
                fault = entry.fault
                if fault.kind != kind or fault.path not in ("", path) or not entry.left:
                    continue
                if at_login is not None and at_login == (fault.after > 0):
                    continue
                if how and fault.how != how:
                    continue
                if now - max(entry.since, began) >= fault.after:
                    entry.left -= count and entry.left > 0
                    return fault
        return None


def fault_from(fields: object) -> Fault:
    """Read a fault from JSON.

    Raises:
        UsageError: it is none; the message says why.
    """
    if not isinstance(fields, dict):
        raise UsageError("a fault is an object", 'like {"kind": "drop", "after": 5}')
    kind = fields.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise UsageError(f"there is no fault {kind!r}", f"choose one of {', '.join(KINDS)}")
    unknown = fields.keys() - {*_COMMON, *KINDS[kind]}
    if unknown:
        raise UsageError(
            f"{kind} has no {', '.join(sorted(map(str, unknown)))}", f"it has {', '.join((*_COMMON[1:], *KINDS[kind]))}"
        )
    fault = Fault(
        kind,
        _text(fields, "path"),
        _whole(fields, "times", 0, 0, 1_000_000),
        _seconds(fields, "after", 0.0),
        _seconds(fields, "seconds", 1.0),
        _whole(fields, "status", 429, 400, 599),
        _whole(fields, "code", 406, 400, 599),
        _text(fields, "how"),
    )
    hows = _HOWS.get(kind, ("",))
    if fault.how and fault.how not in hows:
        raise UsageError(f"{kind} has no how={fault.how}", f"choose one of {', '.join(hows)}")
    return fault._replace(how=fault.how or hows[0])


def fault_from_words(words: str) -> Fault:
    """Read a fault from the command line: ``kind,name=value,…``.

    Raises:
        UsageError: it is none.
    """
    kind, *rest = words.split(",")
    fields: dict[str, object] = {"kind": kind.strip()}
    for word in rest:
        name, equals, value = (part.strip() for part in word.partition("="))
        if not equals:
            raise UsageError(f"--fault {words!r}: {word!r} is not NAME=VALUE", "like drop,after=5,path=/v2/iex")
        fields[name] = _number(value) if name not in ("path", "how") else value
    return fault_from(fields)


def _number(text: str) -> object:
    try:
        return int(text) if text.lstrip("-").isdecimal() else float(text)
    except ValueError:
        return text


def _text(fields: Mapping[str, object], name: str) -> str:
    value = fields.get(name, "")
    if not isinstance(value, str):
        raise UsageError(f"{name} is {value!r}", f"{name} is text")
    return value


def _whole(fields: Mapping[str, object], name: str, default: int, least: int, most: int) -> int:
    value = fields.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise UsageError(f"{name} is {value!r}", f"{name} is a whole number from {least} to {most}")
    return value


def _seconds(fields: Mapping[str, object], name: str, default: float) -> float:
    value = fields.get(name, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= _MOST_S:
        raise UsageError(f"{name} is {value!r}", f"{name} is a number of seconds from 0 to {_MOST_S:g}")
    return float(value)
