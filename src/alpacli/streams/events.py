"""What a stream tells beside its ticks: how it is doing. Events are values; deciding what they mean is the caller's."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Connecting(NamedTuple):
    """A connection is being opened; ``step`` is what is waited for (``connecting``, ``authenticating``, ``subscribing``)."""

    step: str


class Live(NamedTuple):
    """The server confirmed the subscription: from now on nothing is missed. ``channels`` is what it confirmed.

    Comes again after each change and each reconnect. ``shared`` when the connection is the hub's.
    """

    channels: Mapping[str, tuple[str, ...]]
    shared: bool = False


class Reconnecting(NamedTuple):
    """The connection is lost; the next attempt comes after ``wait_s``. ``attempt`` counts those in a row, from 1."""

    attempt: int
    wait_s: float
    reason: str
    hint: str = ""
    code: int | None = None


class Gap(NamedTuple):
    """Between these times (nanoseconds since 1970 UTC) messages were missed: from the last frame that came to being live."""

    from_ns: int
    until_ns: int


class GapFilled(NamedTuple):
    """A gap was filled with ``messages`` messages that had not come, or not: ``error`` says why."""

    from_ns: int
    until_ns: int
    messages: int
    error: str = ""


class Refused(NamedTuple):
    """The server refused to add ``channels`` (405, 410 …): the subscription is as it was before."""

    code: int
    message: str
    channels: Mapping[str, Sequence[str]]


class Lagging(NamedTuple):
    """Messages were lost on the way: ``by`` is ``server`` (its error 407) or ``hub`` (this reader was too slow)."""

    by: str
    lost: int


class Conflated(NamedTuple):
    """While gaps were filled, so many ``quotes`` since the stream began gave way to newer ones: too much waited."""

    quotes: int


class Health(NamedTuple):
    """Counts since the connection's supervisor began: messages of unknown type, and frames that were none."""

    unknown: int
    bad_frames: int


class Unshared(NamedTuple):
    """Redis is away (``reason``), so no other machine shares this connection; ``reason`` is empty once it is back."""

    reason: str


Event = Connecting | Live | Reconnecting | Gap | Refused | Lagging | Health | GapFilled | Conflated | Unshared


class Status(NamedTuple):
    """How a stream stands, all told, for people. ``state`` is a phrase: ``live``, ``reconnecting in 2 s (attempt 3)``."""

    feed: str
    state: str
    shared: bool
    sim: bool
    reconnects: int
    gaps: int
    conflated: int
    message: str = ""
