"""The trading stream without I/O: what happens to the account's own orders, whichever process caused it.

One object a frame, binary frames that hold JSON text, as the paper exchange sends them. Nothing is said before the login, and
nothing is repeated after a reconnect. Source: "Websocket Streaming".
"""

import threading
from typing import Final

from alpacli.sim.exchange import Exchange
from alpacli.wire.frames import Failure
from alpacli.wire.serving import (
    LOGIN_WITHIN_S,
    UPDATES,
    Listen,
    Login,
    failure,
    read_trading,
    say_authorization,
    say_listening,
    say_trading_failure,
)

UPDATES_PATH: Final = "/stream"

_LOGIN_WITHIN_NS: Final = int(LOGIN_WITHIN_S * 1_000_000_000)


class TradingSession:
    """One client of ``/stream``. ``over`` when the connection has to be closed.

    ``reads_state`` says that ``due`` waits for the state file, so the caller runs it in a thread, as always ``begin`` and
    ``receive``. ``login`` is the key pair from the request's headers, if it had one.
    """

    def __init__(
        self, exchange: Exchange, now_ns: int, login: Login | None = None, login_ns: int = _LOGIN_WITHIN_NS
    ) -> None:
        self.over = False
        self._exchange = exchange
        self._began_ns = now_ns
        self._login_ns = login_ns
        self._login = login
        self._account: int | None = None
        self._heard: int | None = None
        self._lock = threading.Lock()

    @property
    def reads_state(self) -> bool:
        return self._heard is not None

    def begin(self) -> list[str | bytes]:
        return [self._log_in(self._login)] if self._login is not None else []

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
        return [say_trading_failure(Failure(code, message))]

    def close(self) -> None:
        self.over = True

    def _obey(self, frame: str | bytes) -> list[str | bytes]:
        asked = read_trading(frame)
        if isinstance(asked, Failure):
            return self.fail(*asked)
        if isinstance(asked, Login):
            return [self._log_in(asked)]
        if self._account is None:
            return [say_authorization("listen", authorized=False)]
        return self._listen(self._account, asked)

    def _listen(self, account: int, asked: Listen) -> list[str | bytes]:
        if UPDATES not in asked.streams:
            self._heard = None
        elif self._heard is None:
            self._exchange.catch_up(account)
            self._heard = self._exchange.newest_event()
        return [say_listening(asked)]

    def _due(self, now_ns: int) -> list[str | bytes]:
        if self._account is None:
            late = now_ns - self._began_ns >= self._login_ns
            return self.fail(*failure(404)) if late and not self.over else []
        if self._heard is None:
            return []
        events = self._exchange.events_after(self._account, self._heard)
        if events is None:
            return self.fail(500, "the exchange was reset")
        if events:
            self._heard = events[-1].seq
        return [f'{{"stream":"{UPDATES}","data":{event.data}}}'.encode() for event in events]

    def _log_in(self, login: Login) -> bytes:
        if not login.key_id or not login.secret:
            self.over = True
            return say_authorization("authenticate", authorized=False)
        account = self._exchange.account_number(*login)
        if account != self._account:
            self._account, self._heard = account, None
        return say_authorization("authenticate", authorized=True)
