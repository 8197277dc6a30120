"""The trading stream without I/O: what happens to the account's own orders, whichever process caused it.

One object a frame, binary frames that hold JSON text, as the paper exchange sends them. Nothing is said before the login, and
nothing is repeated after a reconnect. Source: "Websocket Streaming".
"""

import threading
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from alpacli.sim.exchange import Exchange
from alpacli.wire.frames import BadFrame, decode_command

UPDATES_PATH: Final = "/stream"

_STREAM: Final = "trade_updates"
_LOGIN_WITHIN_NS: Final = 10_000_000_000
_json: Final = msgspec.json.Encoder()

Login = tuple[str, str]


class TradingSession:
    """One client of ``/stream``. ``over`` when the connection has to be closed.

    ``reads_state`` says that ``due`` waits for the state file, so the caller runs it in a thread, as always ``begin`` and
    ``receive``. ``login`` is the key pair from the request's headers, if it had one.
    """

    def __init__(self, exchange: Exchange, now_ns: int, login: Login | None = None) -> None:
        self.over = False
        self._exchange = exchange
        self._began_ns = now_ns
        self._login = login
        self._account: int | None = None
        self._heard: int | None = None
        self._lock = threading.Lock()

    @property
    def reads_state(self) -> bool:
        return self._heard is not None

    def begin(self) -> list[str | bytes]:
        return [self._log_in("authenticate", *self._login)] if self._login is not None else []

    def receive(self, frame: str | bytes) -> list[str | bytes]:
        """Obey one frame of the client and return the answers."""
        with self._lock:
            return self._obey(frame)

    def due(self, now_ns: int) -> list[str | bytes]:
        """Return what happened since it was last asked, oldest first."""
        with self._lock:
            return self._due(now_ns)

    def fail(self, code: int, message: str) -> list[str | bytes]:
        """End the session and return its last words."""
        self.over = True
        if code == 402:
            return [_envelope("authorization", status="unauthorized", action="authenticate")]
        return [_json.encode({"action": "error", "data": {"code": code, "error_message": message}})]

    def close(self) -> None:
        self.over = True

    def _obey(self, frame: str | bytes) -> list[str | bytes]:
        try:
            command = decode_command(frame)
        except BadFrame:
            return self.fail(400, "invalid syntax")
        action, data = command.get("action"), command.get("data")
        inner: Mapping[str, Any] = data if isinstance(data, dict) else {}
        if action == "auth":
            return [self._log_in("authenticate", _text(command.get("key")), _text(command.get("secret")))]
        if action == "authenticate":
            token = _text(inner.get("oauth_token"))
            pair = ("oauth", token) if token else (_text(inner.get("key_id")), _text(inner.get("secret_key")))
            return [self._log_in("authenticate", *pair)]
        if action != "listen":
            return self.fail(400, "invalid syntax")
        if self._account is None:
            return [_envelope("authorization", status="unauthorized", action="listen")]
        return self._listen(self._account, inner.get("streams"))

    def _listen(self, account: int, streams: object) -> list[str | bytes]:
        if not isinstance(streams, list):
            return self.fail(400, "invalid syntax")
        if _STREAM not in streams:
            self._heard = None
        elif self._heard is None:
            self._exchange.catch_up(account)
            self._heard = self._exchange.newest_event()
        return [_envelope("listening", streams=[_STREAM] if _STREAM in streams else [])]

    def _due(self, now_ns: int) -> list[str | bytes]:
        if self._account is None:
            late = now_ns - self._began_ns >= _LOGIN_WITHIN_NS
            return self.fail(404, "auth timeout") if late and not self.over else []
        if self._heard is None:
            return []
        events = self._exchange.events_after(self._account, self._heard)
        if events is None:
            return self.fail(500, "the exchange was reset")
        if events:
            self._heard = events[-1].seq
        return [f'{{"stream":"{_STREAM}","data":{event.data}}}'.encode() for event in events]

    def _log_in(self, action: str, key_id: str, secret: str) -> bytes:
        if not key_id or not secret:
            self.over = True
            return _envelope("authorization", status="unauthorized", action=action)
        account = self._exchange.account_number(key_id, secret)
        if account != self._account:
            self._account, self._heard = account, None
        return _envelope("authorization", status="authorized", action=action)


def _envelope(stream: str, **data: object) -> bytes:
    return _json.encode({"stream": stream, "data": data})


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
