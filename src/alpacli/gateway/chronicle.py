"""The gateway's log: who asked what and how it was answered, as lines for people or as JSON objects. Never a secret.

A path is logged without its query, and headers and bodies not at all. uvicorn's own log goes through the same formatter.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final

from alpacli.gateway.guard import App, Event, Receive, Send
from alpacli.gateway.tally import Tally
from alpacli.ports import Clock

_requests: Final = logging.getLogger("alpacli.requests")
CLIENT: Final = "alpacli.client"
"""Where a request's scope has the name of whoever was let in."""


class Chronicle:
    """An application around the whole gateway that counts each request and logs it when it is over."""

    def __init__(self, app: App, tally: Tally, clock: Clock) -> None:
        self._app = app
        self._tally = tally
        self._clock = clock

    async def __call__(self, scope: Event, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = self._clock.monotonic(), 500

        async def send_noting(event: Event) -> None:
            nonlocal status
            if event["type"] == "http.response.start":
                status = event["status"]
            await send(event)

        try:
            await self._app(scope, receive, send_noting)
        finally:
            self._tally.answered(scope["method"], status)
            if _requests.isEnabledFor(logging.INFO):
                self._log(scope, status, self._clock.monotonic() - began)

    @staticmethod
    def _log(scope: Event, status: int, seconds: float) -> None:
        address = scope["client"][0] if scope.get("client") else None
        fields = {
            "client": scope.get(CLIENT),
            "address": address,
            "method": scope["method"],
            "path": scope["path"],
            "status": status,
            "seconds": round(seconds, 6),
        }
        _requests.info("%s %s %d", scope["method"], scope["path"], status, extra={"fields": fields})


class JsonLines(logging.Formatter):
    """One object a line: time (RFC 3339, UTC), level, logger, message, and the fields that belong to it."""

    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=False)


def begin(*, as_json: bool, requests: bool) -> None:
    """Set the log up: on standard error, requests too when they are wanted."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if as_json else logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("alpacli").setLevel(logging.INFO if as_json else logging.WARNING)
    _requests.setLevel(logging.INFO if requests else logging.WARNING)
