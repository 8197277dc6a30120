"""What the desk writes into the journal, and what the journal tells it: what is unanswered, what was sent lately.

Two lines make an order: one before it is sent, with its body, and one that says what came of it. A line that was not followed
by its second is the question that ``orders --unresolved`` asks.
"""

import datetime as dt
import os
from collections.abc import Callable, Mapping
from typing import Any, Final

from alpacli.broker.outcomes import Record, Who, acting_for
from alpacli.errors import ConfigError
from alpacli.ports import Clock
from alpacli.wire.rest import Call

MINUTE_S: Final = 60.0
_SETTLED_AFTER_S: Final = 120.0
"""An order that is not found this long after it was sent is not on its way any more."""


class Notebook:
    """One account's journal in the hands of one process."""

    def __init__(self, journal: Record, clock: Clock, who: Who, warn: Callable[[str], None]) -> None:
        self._journal = journal
        self._clock = clock
        self._who = who
        self._warn = warn
        self._warned = False

    # ------------------------------------------------------------------------------------------------- writing

    def record(self, line: Mapping[str, Any], allowed: Callable[[], None] | None = None) -> None:
        """Write a line, or raise: what cannot be recorded must not be done. See ``Journal.append``."""
        self._journal.append(line, allowed)

    def note(self, action: str, call: Call[Any], client_order_id: str | None, **more: Any) -> None:
        """Record what has happened already, or must happen all the same: a full disk may not undo it."""
        order, error = more.pop("order", None), more.pop("error", None)
        if order is not None:
            more |= {"order_id": order.id, "order_status": order.status}
        if error is not None:
            more |= {
                "error": type(error).__name__,
                "message": error.message,
                "status": error.status,
                "code": error.code,
            }
            more["request_id"] = error.request_id
        self.append(self.line(action, call, client_order_id, more))

    def append(self, line: Mapping[str, Any]) -> None:
        """Write a line; that it cannot be written is one warning."""
        try:
            self._journal.append({**self._stamp(), **line})
        except ConfigError as error:
            if not self._warned:
                self._warned = True
                self._warn(error.message)

    def line(
        self, action: str, call: Call[Any], client_order_id: str | None, more: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return what is written of an action: who, when, the request (its body once), and ``more``."""
        request: dict[str, Any] = {"method": call.request.method, "path": call.request.path}
        if call.request.body is not None and more.get("phase") != "answered":
            request["body"] = call.request.body.decode()
        return {
            **self._stamp(),
            "action": action,
            "client_order_id": client_order_id,
            "request": request,
            **{name: value for name, value in more.items() if value is not None},
        }

    def _stamp(self) -> dict[str, Any]:
        now = self._clock.time()
        time = dt.datetime.fromtimestamp(now, dt.UTC).isoformat().replace("+00:00", "Z")
        client = acting_for.get()
        return {"at": now, "time": time, **self._who._asdict(), **({"client": client} if client else {})}

    # ------------------------------------------------------------------------------------------------- reading

    def sent_lately(self) -> int:
        """Count what this machine is known to have sent within the last minute; not what a set clock wrote."""
        now = self._clock.time()
        return sum(
            line.get("phase") == "sent" and line.get("action") in ("place", "replace") and line["at"] <= now + MINUTE_S
            for line in self._journal.since(now - MINUTE_S)
        )

    def unanswered(self) -> dict[str, dict[str, Any]]:
        """Return, by client order ID, the lines of orders of which nobody has written what came of them."""
        waiting: dict[str, dict[str, Any]] = {}
        for line in self._journal.records():
            client_order_id = line.get("client_order_id")
            if not isinstance(client_order_id, str):
                continue
            if line.get("phase") == "sent":
                waiting[client_order_id] = line
            elif line.get("phase") == "answered":
                if line.get("outcome") == "unknown":
                    waiting[client_order_id] = {**waiting.get(client_order_id, line), "ended": True}
                else:
                    waiting.pop(client_order_id, None)
        return waiting

    def is_settled(self, line: Mapping[str, Any]) -> bool:
        """Tell whether what was sent with this line has arrived by now, if it ever will; one without a time is old."""
        at = line.get("at")
        return self._clock.time() - (float(at) if isinstance(at, int | float) else 0.0) > _SETTLED_AFTER_S

    def in_flight(self, line: Mapping[str, Any]) -> bool:
        """Tell whether the process that sent it is still there to hear the answer."""
        if line.get("ended") or line.get("host") != self._who.host or self.is_settled(line):
            return False
        try:
            os.kill(int(line["pid"]), 0)
        except ProcessLookupError:
            return False
        except (OSError, ValueError, TypeError, KeyError, OverflowError):
            return True
        return int(line["pid"]) != self._who.pid
