"""The exchange's market data sockets without I/O, the door to all of its sockets, and the in-process stand-in for one.

A session reads a client's frames, answers, and says what is due at a time. Codes and texts are those of Alpaca's table of
errors. Source: "Real-time Data".
"""

import asyncio
import base64
import binascii
import re
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NamedTuple, Protocol

from alpacli.errors import ConnectionLost
from alpacli.ports import Clock, async_sleep
from alpacli.sim.exchange import Exchange
from alpacli.sim.feed import BAR_DELAY_NS, MINUTE_NS, TEST_SYMBOL, Feed
from alpacli.sim.updates import UPDATES_PATH, Login, TradingSession
from alpacli.wire.frames import BadFrame, Encoding, decode_command, encode_messages

TICK_S: Final = 0.05
"""How often a session is asked what is due."""

_LOGIN_WITHIN_NS: Final = 10_000_000_000
_MOST_BACKLOG_NS: Final = 120_000_000_000  # after the machine has slept, the hours before are not made up for
_STOCKS: Final = (
    *("trades", "quotes", "bars", "updatedBars", "dailyBars", "statuses", "lulds", "imbalances"),
    *("corrections", "cancelErrors"),
)
_CRYPTO: Final = ("trades", "quotes", "bars", "updatedBars", "dailyBars", "orderbooks")
CHANNELS: Final[Mapping[str, tuple[str, ...]]] = {
    **{f"/v2/{feed}": _STOCKS for feed in ("iex", "sip", "delayed_sip")},
    "/v2/test": ("trades", "quotes", "bars"),
    "/v1beta3/crypto/us": _CRYPTO,
    "/v1beta1/news": ("news",),
    **{f"/v1beta1/{feed}": ("trades", "quotes") for feed in ("indicative", "opra")},
}
"""What each market data endpoint can be asked for. Nothing is listed that the options feeds could tell about."""

PATHS: Final = (*CHANNELS, UPDATES_PATH)
"""Every endpoint."""

_OPTIONS: Final = ("/v1beta1/indicative", "/v1beta1/opra")
_SYMBOL: Final = re.compile(r"\*|[A-Za-z0-9][A-Za-z0-9./_-]{0,31}")
_KEY_HEADER: Final = "apca-api-key-id"
_SECRET_HEADER: Final = "apca-api-secret-key"  # noqa: S105 the header's name, not a secret


class Session(Protocol):
    """One client's connection. ``over`` when it has to be closed; ``reads_state`` when ``due`` waits for the state file."""

    over: bool

    @property
    def reads_state(self) -> bool: ...

    def begin(self) -> list[str | bytes]: ...

    def receive(self, frame: str | bytes) -> list[str | bytes]: ...

    def due(self, now_ns: int) -> list[str | bytes]: ...

    def fail(self, code: int, message: str) -> list[str | bytes]: ...

    def close(self) -> None: ...


class Limits(NamedTuple):
    """Switches: 0 is no limit. ``connections`` per account and endpoint, ``symbols`` over trades and quotes."""

    connections: int = 0
    symbols: int = 0


class Occupancy:
    """How many connections each account has on each endpoint."""

    def __init__(self) -> None:
        self._open: dict[tuple[int, str], int] = {}
        self._lock = threading.Lock()

    def enter(self, account: int, path: str, limit: int) -> bool:
        with self._lock:
            taken = self._open.get((account, path), 0)
            if limit and taken >= limit:
                return False
            self._open[account, path] = taken + 1
            return True

    def leave(self, account: int, path: str) -> None:
        with self._lock:
            self._open[account, path] -= 1


class MarketSession:
    """One client on one endpoint. ``over`` when the connection has to be closed.

    ``account_of`` opens the account of a key pair; it waits for the state file, so the caller runs ``begin`` and ``receive``
    in a thread. ``login`` is the key pair from the request's headers, if it had one. ``ahead_ns`` is added to the times of
    what it tells: a fault.
    """

    reads_state = False

    def __init__(
        self,
        path: str,
        encoding: Encoding,
        feed: Feed,
        account_of: Callable[[str, str], int],
        occupancy: Occupancy,
        limits: Limits,
        now_ns: int,
        login: Login | None = None,
    ) -> None:
        self.over = False
        self.ahead_ns = 0
        self._login = login
        self._path = path
        self._crypto = "crypto" in path
        self._encoding = encoding
        self._feed = feed
        self._account_of = account_of
        self._occupancy = occupancy
        self._limits = limits
        self._began_ns = now_ns
        self._said_until_ns = now_ns
        self._account: int | None = None
        self._wanted: dict[str, set[str]] = {name: set() for name in CHANNELS[path]}

    def begin(self) -> list[str | bytes]:
        if self._path in _OPTIONS and self._encoding == "json":
            return self.fail(412, "option messages only in MsgPack")
        greeting = [self._frame({"T": "success", "msg": "connected"})]
        return [*greeting, self._log_in(*self._login)] if self._login is not None else greeting

    def receive(self, frame: str | bytes) -> list[str | bytes]:
        """Obey one frame of the client and return the answers."""
        try:
            command = decode_command(frame, self._encoding)
        except BadFrame:
            return [self._error(400, "invalid syntax")]
        action = command.get("action")
        if action == "auth":
            key_id, secret = (command.get(name) for name in ("key", "secret"))
            return [self._log_in(*(text if isinstance(text, str) else "" for text in (key_id, secret)))]
        if action not in ("subscribe", "unsubscribe"):
            return [self._error(400, "invalid syntax")]
        if self._account is None:
            return [self._error(401, "not authenticated")]
        return [self._change(action, {name: value for name, value in command.items() if name != "action"})]

    def due(self, now_ns: int) -> list[str | bytes]:
        """Return what happened since it was last asked."""
        if self._account is None:
            self._said_until_ns = max(now_ns, self._said_until_ns)
            if now_ns - self._began_ns < _LOGIN_WITHIN_NS or self.over:
                return []
            return self.fail(404, "auth timeout")
        from_ns, self._said_until_ns = self._said_until_ns, max(now_ns, self._said_until_ns)
        messages = self._since(max(from_ns, now_ns - _MOST_BACKLOG_NS), now_ns)
        messages.sort(key=_time_of)
        if self.ahead_ns:
            messages = [{**message, "t": _time_of(message) + self.ahead_ns} for message in messages]
        return [encode_messages(messages, self._encoding)] if messages else []

    def fail(self, code: int, message: str) -> list[str | bytes]:
        """End the session and return its last words."""
        self.over = True
        return [self._error(code, message)]

    def close(self) -> None:
        if self._account is not None:
            self._occupancy.leave(self._account, self._path)
            self._account = None
        self.over = True

    def _since(self, from_ns: int, now_ns: int) -> list[dict[str, object]]:
        messages: list[dict[str, object]] = []
        for symbol in sorted(self._named("trades")):
            messages += self._feed.trades(symbol, from_ns, now_ns)
        for symbol in sorted(self._named("quotes")):
            messages += self._feed.quotes(symbol, from_ns, now_ns)
        first_ns, last_ns = ((at_ns - BAR_DELAY_NS) // MINUTE_NS * MINUTE_NS for at_ns in (from_ns, now_ns))
        for symbol in sorted(self._named("bars")):
            messages += self._feed.finished_bars(symbol, from_ns, now_ns)
        if last_ns > first_ns:
            for symbol in sorted(self._named("dailyBars")):
                day = self._feed.day_so_far(symbol, last_ns)
                messages += [{**day, "T": "d"}] if day is not None else []
        if news := self._wanted.get("news"):
            items = self._feed.news(from_ns, now_ns)
            messages += [item for item in items if "*" in news or news.intersection(_symbols_of(item))]
        for symbol in sorted(self._named("lulds")):
            messages += self._feed.bands(symbol, from_ns, now_ns)
        for symbol in sorted(self._named("orderbooks")):
            messages += self._feed.books(symbol, from_ns, now_ns)
        return messages

    def _named(self, channel: str) -> set[str]:
        """Return the symbols of a channel that there is something to tell about; ``*`` is all of the endpoint's."""
        wanted = self._wanted.get(channel, set())
        if "*" in wanted:
            return {TEST_SYMBOL} if self._path == "/v2/test" else self._feed.symbols(crypto=self._crypto)
        return {symbol for symbol in wanted if self._feed.knows(symbol, crypto=self._crypto)}

    def _log_in(self, key_id: str, secret: str) -> str | bytes:
        if self._account is not None:
            return self._error(403, "already authenticated")
        if not key_id or not secret:
            return self.fail(402, "auth failed")[0]
        account = self._account_of(key_id, secret)
        if not self._occupancy.enter(account, self._path, self._limits.connections):
            return self.fail(406, "connection limit exceeded")[0]
        self._account = account
        return self._frame({"T": "success", "msg": "authenticated"})

    def _change(self, action: str, channels: Mapping[str, object]) -> str | bytes:
        asked: dict[str, set[str]] = {}
        for name, symbols in channels.items():
            if name not in self._wanted:
                return self._error(410, "invalid subscribe action for this feed")
            if not isinstance(symbols, list) or not all(isinstance(s, str) and _SYMBOL.fullmatch(s) for s in symbols):
                return self._error(400, "invalid syntax")
            if name == "quotes" and "*" in symbols and self._path in _OPTIONS:
                return self._error(413, "star subscription is not allowed for option quotes")
            asked[name] = set(symbols)
        for twin in ("corrections", "cancelErrors"):
            if "trades" in asked and twin in self._wanted:
                asked[twin] = asked.get(twin, set()) | asked["trades"]
        after = {
            name: had | asked.get(name, set()) if action == "subscribe" else had - asked.get(name, set())
            for name, had in self._wanted.items()
        }
        limited = after.get("trades", set()) | after.get("quotes", set())
        if action == "subscribe" and self._limits.symbols and len(limited) > self._limits.symbols:
            return self._error(405, "symbol limit exceeded")
        self._wanted = after
        return self._frame({"T": "subscription", **{name: sorted(symbols) for name, symbols in after.items()}})

    def _error(self, code: int, message: str) -> str | bytes:
        return self._frame({"T": "error", "code": code, "msg": message})

    def _frame(self, message: dict[str, object]) -> str | bytes:
        return encode_messages([message], self._encoding)


def _time_of(message: Mapping[str, object]) -> int:
    at_ns = message.get("t", message.get("updated_at"))
    return at_ns if isinstance(at_ns, int) else 0


def _symbols_of(message: Mapping[str, object]) -> list[object]:
    symbols = message.get("symbols")
    return symbols if isinstance(symbols, list) else []


def open_session(
    exchange: Exchange, path: str, headers: Mapping[str, str], occupancy: Occupancy, limits: Limits
) -> Session:
    """Return the session of a new connection to one of ``PATHS``. Header names are in lower case.

    ``Content-Type: application/msgpack`` asks for msgpack on the market data endpoints; everything else is JSON.

    Raises:
        ConfigError: the state file cannot be used.
    """
    login = _login_in(headers)
    if path == UPDATES_PATH:
        return TradingSession(exchange, exchange.now_ns(), login)
    market = exchange.market()
    encoding: Encoding = "msgpack" if "msgpack" in headers.get("content-type", "") else "json"
    return MarketSession(
        path,
        encoding,
        market.feed,
        exchange.account_number,
        occupancy,
        limits,
        exchange.now_ns(),
        login,
    )


def _login_in(headers: Mapping[str, str]) -> Login | None:
    """Return the key pair of an upgrade request: Alpaca's own two headers, Basic, or a bearer token."""
    if headers.get(_KEY_HEADER) or headers.get(_SECRET_HEADER):
        return headers.get(_KEY_HEADER, ""), headers.get(_SECRET_HEADER, "")
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return "oauth", value.strip()
    if scheme.lower() == "basic":
        try:
            key_id, _, secret = base64.b64decode(value.strip(), validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return "", ""
        return key_id, secret
    return None


class LocalSocket:
    """A ``ports.Socket`` to a session in this process."""

    def __init__(
        self, session: Session, exchange: Exchange, sleep: Callable[[float], Awaitable[None]] = async_sleep
    ) -> None:
        self._session = session
        self._exchange = exchange
        self._sleep = sleep
        self._answers: deque[str | bytes] = deque(session.begin())
        self._fetching: asyncio.Future[list[str | bytes]] | None = None

    async def send(self, frame: str | bytes) -> None:
        if self._session.over:
            raise ConnectionLost("the exchange closed the connection")
        self._answers += await asyncio.to_thread(self._session.receive, frame)

    async def recv(self) -> str | bytes:
        while not self._answers:
            if self._session.over:
                raise ConnectionLost("the exchange closed the connection")
            self._answers += await self._due()  # first of all, for a reader that never waits as long as a tick
            if not self._answers:
                await self._sleep(TICK_S)
        return self._answers.popleft()

    async def ping(self) -> None:
        """Return at once: this process is here."""

    async def close(self) -> None:
        self._session.close()
        self._exchange.close()

    async def _due(self) -> list[str | bytes]:
        now_ns = self._exchange.now_ns()
        if not self._session.reads_state:
            return self._session.due(now_ns)
        # What the thread fetches counts as told: a reader that gives up waiting leaves it to the next one.
        if self._fetching is None:
            self._fetching = asyncio.ensure_future(asyncio.to_thread(self._session.due, now_ns))
        try:
            answers = await asyncio.shield(self._fetching)
        except Exception:
            self._fetching = None
            raise
        self._fetching = None  # not where the reader was cancelled, though the thread may have finished in that moment
        return answers


async def dial_local(
    state_dir: str, clock: Clock, path: str, key_id: str, secret: str, encoding: Encoding
) -> LocalSocket:
    """Open a connection to the exchange of a state directory, in this process: market data, or ``/stream``.

    The client logs in itself, as over a wire; the key pair here is not looked at.

    Raises:
        ConfigError: the state file cannot be used.
        ConnectionLost: the exchange has no such endpoint.
    """
    if path not in PATHS:
        raise ConnectionLost(f"the offline exchange has no stream at {path}", f"it has {', '.join(PATHS)}")
    exchange = await asyncio.to_thread(Exchange, state_dir, clock)
    headers = {"content-type": f"application/{encoding}"}
    session = await asyncio.to_thread(open_session, exchange, path, headers, Occupancy(), Limits())
    return LocalSocket(session, exchange)
