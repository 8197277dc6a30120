"""Time that a test moves: it stands still until it is told, over HTTP, to go on.

While nobody has an account nothing has happened yet, and the time may be any: a test that was written for a day works in
every year. From the first account on it only goes forward.
"""

import json
import threading
from collections.abc import Mapping
from typing import Any, Final

from alpacli.errors import UsageError
from alpacli.ports import Clock

CLOCK_PATH: Final = "/sim/clock"
"""Where a running server with a clock of its own is asked for the time, and told to go on."""

_LONGEST_STEP_S: Final = 366 * 86_400
_LATEST_S: Final = 4_133_980_800  # 2101-01-01


class SteppedClock:
    """Wall-clock time that stands still until ``advance`` or ``set``. Implements ``ports.Clock``.

    Only the exchange's time stands still: ``monotonic`` and ``sleep`` are the machine's, so sockets keep their pace.
    """

    def __init__(self, real: Clock, start: float | None = None) -> None:
        self._real = real
        self._now = real.time() if start is None else start
        self._lock = threading.Lock()

    def time(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._real.monotonic()

    def sleep(self, seconds: float) -> None:
        self._real.sleep(seconds)

    def advance(self, seconds: float) -> None:
        """Go on by a number of seconds.

        Raises:
            UsageError: it is negative, or more than a year.
        """
        if not 0 <= seconds <= _LONGEST_STEP_S:
            raise UsageError(f"the clock cannot go on by {seconds:g} s", "give 0 to 31622400 seconds")
        with self._lock:
            self._now += seconds

    def told(self) -> dict[str, object]:
        """Return what ``/sim/clock`` tells beside the time."""
        return {}

    def set(self, at: float, *, unused: bool = False) -> None:
        """Go on to a time in Unix seconds; where the exchange is ``unused``, to any from 1970 to 2100.

        Raises:
            UsageError: it lies in the past of this clock, or more than a year ahead.
        """
        with self._lock:
            if unused and not 0 <= at < _LATEST_S:
                raise UsageError("the clock can be set to the years from 1970 to 2100", "give another time")
            if not unused and not 0 <= at - self._now <= _LONGEST_STEP_S:
                raise UsageError(
                    "there are accounts: the clock only goes forward, by a year at most",
                    "`alpacli sim reset` takes them away, and then it can be set to any time; another ALPACLI_STATE_DIR"
                    " is an exchange without accounts",
                )
            self._now = at


def step(clock: SteppedClock, body: bytes, *, unused: bool = False) -> None:
    """Do what ``POST /sim/clock`` says: ``{"advance": SECONDS}`` or ``{"set": "2026-01-05T14:30:00Z"}``.

    ``unused`` says that nothing has happened yet at the exchange of this clock.

    Raises:
        ValueError: it is not JSON, or says something else.
        UsageError: the time is out of reach.
    """
    from alpacli.domain.values import Timestamp

    try:
        told: Any = json.loads(body or b"null")
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(told, Mapping) or len(told) != 1:
        raise ValueError("one of advance and set")
    if "set" in told and isinstance(told["set"], str):
        clock.set(Timestamp.parse(told["set"]).timestamp(), unused=unused)
    elif "advance" in told and isinstance(told["advance"], int | float) and not isinstance(told["advance"], bool):
        clock.advance(float(told["advance"]))
    else:
        raise ValueError("one of advance and set")
