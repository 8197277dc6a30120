"""What the desk writes into the journal, and what the journal tells it: what is unanswered, what was sent lately.

Two lines make an order: one before it is sent, with its body, and one that says what came of it. A line that was not followed
by its second is the question that ``orders --unresolved`` asks.
"""

import datetime as dt
import os
from collections.abc import Callable, Mapping
from typing import Any, Final

from alpacli.broker.outcomes import Record, Who, acting_for
from alpacli.domain.orders import Order
from alpacli.errors import AlpacliError, ConfigError
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

    def record(self, line: Mapping[str, Any], allowed: Callable[[], None] | None = None) -> int:
        """Write a line and return its number, or raise: what cannot be recorded must not be done. See ``Journal.append``."""
        return self._journal.append(line, allowed)

    def note(self, action: str, call: Call[Any], client_order_id: str | None, **more: Any) -> None:
        """Record what has happened already, or must happen all the same: a full disk may not undo it."""
        order, error = more.pop("order", None), more.pop("error", None)
        self.append(self.line(action, call, client_order_id, {**more, **_result(order, error)}))

    def resolve(
        self, question: Mapping[str, Any], outcome: str, order: Order | None, error: AlpacliError | None
    ) -> None:
        """Record what was found out about an order whose answer was lost; ``question`` is the line that asks."""
        self.append(
            {
                "action": "resolve",
                "phase": "answered",
                "client_order_id": question["client_order_id"],
                "answers": question["seq"],
                "outcome": outcome,
                "order_id": None,
                **_result(order, error),
            }
        )

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

    def unanswered(self) -> list[dict[str, Any]]:
        """Return the lines of orders of which nobody has written what came of them, oldest first.

        An ID that was used twice asks twice: the refusal of the second order says nothing about the first. An answer that
        does not say which line it answers, as older versions wrote it, answers all of its ID.
        """
        waiting: dict[int, dict[str, Any]] = {}
        for line in self._journal.records():
            client_order_id = line.get("client_order_id")
            if not isinstance(client_order_id, str):
                continue
            if line.get("phase") == "sent":
                waiting[line["seq"]] = line
            elif line.get("phase") == "answered":
                number = line.get("answers")
                asked = [
                    question
                    for question in waiting.values()
                    if question["client_order_id"] == client_order_id and number in (None, question["seq"])
                ]
                for question in asked:
                    del waiting[question["seq"]]
                if line.get("outcome") == "unknown":
                    waiting |= {question["seq"]: {**question, "ended": True} for question in asked or [line]}
        return sorted(waiting.values(), key=lambda line: int(line["seq"]))

    def orders_before(self, line: Mapping[str, Any]) -> set[str]:
        """Return the ids of the orders that were placed from here, before this line, with its client order ID."""
        return {
            str(known["order_id"])
            for known in self._journal.records()
            if known.get("client_order_id") == line["client_order_id"]
            and known.get("outcome") == "placed"
            and known.get("order_id")
            and known.get("answers", known["seq"]) < line["seq"]
        }

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


def _result(order: Order | None, error: AlpacliError | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if order is not None:
        found |= {"order_id": order.id, "order_status": order.status}
    if error is not None:
        found |= {
            "error": type(error).__name__,
            "message": error.message,
            "status": error.status,
            "code": error.code,
            "request_id": error.request_id,
        }
    return found
