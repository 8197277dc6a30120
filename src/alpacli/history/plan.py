"""Whether an account's market data plan has recent SIP data, remembered for a day in a small file beside the history.

A plan is learned by asking for what only a paid one has. Reading what was learned costs less than a request, so every process
reads it, and what cannot be written is learned again. Loaded on the way of an order: nothing heavy is imported here.
"""

import contextlib
import json
import os
from typing import Any, Final

_KNOWN_FOR_NS: Final = 24 * 3600 * 1_000_000_000


class Plan:
    """The plan of one account; ``path`` is the file that remembers it, empty to remember it in this process alone."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._learned: tuple[bool, int] | None = None

    def recent_sip(self, now_ns: int) -> bool | None:
        """Tell whether the plan has SIP data of the last 15 minutes; ``None`` where that was not learned in the last day."""
        known = self._kept() or self._learned
        return known[0] if known is not None and 0 <= now_ns - known[1] < _KNOWN_FOR_NS else None

    def learn(self, now_ns: int, *, recent_sip: bool) -> None:
        """Remember what a request showed; quick, and silent where it cannot be written."""
        self._learned = (recent_sip, now_ns)
        if not self._path:
            return
        with contextlib.suppress(OSError):  # then it is asked again
            os.makedirs(os.path.dirname(self._path), exist_ok=True)
            temporary = f"{self._path}.tmp-{os.getpid()}"
            with open(temporary, "w", encoding="ascii") as file:
                json.dump({"recent_sip": recent_sip, "at_ns": now_ns}, file)
            os.replace(temporary, self._path)

    def _kept(self) -> tuple[bool, int] | None:
        try:
            with open(self._path, encoding="ascii") as file:
                known: Any = json.load(file)
            return bool(known["recent_sip"]), int(known["at_ns"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
