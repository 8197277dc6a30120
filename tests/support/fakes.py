"""Stand-ins for the outside world: a clock that moves when told, and a transport with scripted answers."""

import json
import threading
from collections.abc import Callable, Mapping
from typing import Any

from alpacli.ports import Request, Response


class ManualClock:
    """Time stands still except while somebody sleeps, or a test calls ``advance``."""

    def __init__(self, at: float = 1_780_000_000.0) -> None:
        self._now = at
        self._monotonic = 1000.0
        self.slept: list[float] = []
        self._lock = threading.Lock()

    def time(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.advance(seconds)

    async def sleep_async(self, seconds: float) -> None:
        self.sleep(seconds)

    def advance(self, seconds: float) -> None:
        with self._lock:
            self._now += max(seconds, 0.0)
            self._monotonic += max(seconds, 0.0)


class SetClock(ManualClock):
    """A clock that can be set back, as a correction of the machine's time does it."""

    def set_back(self, seconds: float) -> None:
        self._now -= seconds

    def sleep_through(self, seconds: float) -> None:
        """Let the machine sleep: only the wall clock goes on."""
        self._now += seconds


class FixedRandomness:
    """Always the same fraction; tokens count up."""

    def __init__(self, fraction: float = 0.5) -> None:
        self._fraction = fraction
        self._count = 0

    def random(self) -> float:
        return self._fraction

    def token(self) -> str:
        self._count += 1
        return f"token-{self._count}"


class ScriptedTransport:
    """Answers with each of ``answers`` in turn, the last one for ever; an exception among them is raised."""

    def __init__(self, *answers: Response | Exception, before: Callable[[Request], None] | None = None) -> None:
        self.answers = list(answers)
        self.before = before
        self.sent: list[Request] = []
        self.closed = False

    def send(self, request: Request, *, connect_timeout_s: float, read_timeout_s: float) -> Response:
        self.sent.append(request)
        if self.before is not None:
            self.before(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        self.closed = True


def answer(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(status, headers or {}, body if isinstance(body, bytes) else json.dumps(body).encode())


ACCOUNT: dict[str, Any] = {
    "id": "6f3f8f0a-3f0c-4f0e-9a51-1f2f5a0b7c11",
    "account_number": "PA3TESTACCT1",
    "status": "ACTIVE",
    "currency": "USD",
    "cash": "98500.250",
    "equity": "100020.25",
    "last_equity": "100000",
    "buying_power": "199000.5",
    "multiplier": "2",
    "created_at": "2026-01-05T14:01:02.123456789Z",
    "trading_blocked": False,
}
"""An account as alpaca-wire shows it, shortened; digits chosen so that a float would lose some."""
