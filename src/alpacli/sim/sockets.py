"""The exchange's market data sockets without I/O, the door to all of its sockets, and the in-process stand-in for one.

A session reads a client's frames, answers, and says what is due at a time. Codes and texts are those of Alpaca's table of
errors. Source: "Real-time Data".
"""

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NamedTuple, Protocol

from alpacli.errors import ConnectionLost
from alpacli.ports import Clock, async_sleep
from alpacli.sim.exchange import Exchange
from alpacli.sim.feed import BAR_DELAY_NS, TEST_SYMBOL, Feed
from alpacli.sim.option_data import OptionFeed
from alpacli.sim.prints import MINUTE_NS
from alpacli.sim.updates import UPDATES_PATH, TradingSession
from alpacli.wire.commands import encode_messages
from alpacli.wire.frames import Encoding, Failure
from alpacli.wire.serving import (
    LOGIN_WITHIN_S,
    TEXTS,
    Change,
    Login,
    encoding_of,
    failure,
    login_in,
    read_market,
    refused_encoding,
    say_failure,
    say_subscription,
    say_success,
)

TICK_S: Final = 0.05
"""How often a session is asked what is due."""

_STOCKS: Final = (
    *("trades", "quotes", "bars", "updatedBars", "dailyBars", "statuses", "lulds", "imbalances"),
    *("corrections", "cancelErrors"),
)
_CRYPTO: Final = ("trades", "quotes", "bars", "updatedBars", "dailyBars", "orderbooks")
OPTION_PATHS: Final = ("/v1beta1/indicative", "/v1beta1/opra")
CHANNELS: Final[Mapping[str, tuple[str, ...]]] = {
    **{f"/v2/{feed}": _STOCKS for feed in ("iex", "sip", "delayed_sip")},
    "/v2/test": ("trades", "quotes", "bars"),
    "/v1beta3/crypto/us": _CRYPTO,
    "/v1beta1/news": ("news",),
    **dict.fromkeys(OPTION_PATHS, ("trades", "quotes")),
}
"""What each market data endpoint can be asked for."""

PATHS: Final = (*CHANNELS, UPDATES_PATH)
"""Every endpoint."""


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
    """Switches: 0 is no limit. ``connections`` per account and endpoint, ``symbols`` over trades and quotes.

    ``login_ns`` is how long a client may take to log in, in the exchange's time. ``heartbeat_s`` is how long server-sent
    events may be silent, in real seconds.
    """

    connections: int = 0
    symbols: int = 0
    login_ns: int = int(LOGIN_WITHIN_S * 1_000_000_000)
    heartbeat_s: float = 15.0


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
    in a thread. ``is_reset`` tells at once whether the exchange has another market than ``feed``'s by now. ``login`` is the
    key pair from the request's headers, if it had one. ``ahead_ns`` is added to the times of what it tells: a fault.
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
        *,
        is_reset: Callable[[], bool],
    ) -> None:
        self.over = False
        self.ahead_ns = 0
        self._is_reset = is_reset
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
        self._wanted: dict[str, frozenset[str]] = {name: frozenset() for name in CHANNELS[path]}

    @property
    def listens(self) -> bool:
        """Whether it has asked for anything."""
        return any(self._wanted.values())

    @property
    def listens_closely(self) -> bool:
        """Whether it has asked for more than bars."""
        return any(symbols for channel, symbols in self._wanted.items() if not channel.lower().endswith("bars"))

    def begin(self) -> list[str | bytes]:
        refused = refused_encoding(self._path, self._encoding)
        if refused is not None:
            return self.fail(*refused)
        greeting = [say_success("connected", self._encoding)]
        return [*greeting, self._log_in(self._login)] if self._login is not None else greeting

    def receive(self, frame: str | bytes) -> list[str | bytes]:
        """Obey one frame of the client and return the answers."""
        known = CHANNELS[self._path]
        asked = read_market(frame, self._encoding, self._path, known, authenticated=self._account is not None)
        if isinstance(asked, Failure):
            return [say_failure(asked, self._encoding)]
        return [self._log_in(asked) if isinstance(asked, Login) else self._change(asked)]

    def due(self, now_ns: int) -> list[str | bytes]:
        """Return what happened since it was last asked."""
        if self.over:
            return []
        if self._is_reset():
            return self.fail(500, "the exchange was reset")
        if self._account is None:
            self._said_until_ns = max(now_ns, self._said_until_ns)
            if now_ns - self._began_ns < self._limits.login_ns:
                return []
            return self.fail(404, TEXTS[404])
        from_ns, self._said_until_ns = self._said_until_ns, max(now_ns, self._said_until_ns)
        messages = self._since(max(from_ns, now_ns - self._feed.most_backlog_ns), now_ns)
        messages.sort(key=_time_of)
        if self.ahead_ns:
            messages = [{**message, "t": _time_of(message) + self.ahead_ns} for message in messages]
        return [encode_messages(messages, self._encoding)] if messages else []

    def fail(self, code: int, message: str) -> list[str | bytes]:
        """End the session and return its last words."""
        self.over = True
        return [say_failure(Failure(code, message), self._encoding)]

    def close(self) -> None:
        if self._account is not None:
            self._occupancy.leave(self._account, self._path)
            self._account = None
        self.over = True

    def _since(self, from_ns: int, now_ns: int) -> list[dict[str, object]]:
        messages: list[dict[str, object]] = []
        for symbol in sorted(self._named("trades")):
            messages += self._feed.told(symbol, from_ns, now_ns)
        for symbol in sorted(self._named("quotes")):
            messages += self._feed.quotes(symbol, from_ns, now_ns)
        first_ns, last_ns = ((at_ns - BAR_DELAY_NS) // MINUTE_NS * MINUTE_NS for at_ns in (from_ns, now_ns))
        for symbol in sorted(self._named("bars")):
            messages += self._feed.finished_bars(symbol, from_ns, now_ns)
        if last_ns > first_ns:
            for symbol in sorted(self._named("dailyBars")):
                day = self._feed.day_so_far(symbol, last_ns, last_ns + BAR_DELAY_NS)
                messages += [{**day, "T": "d"}] if day is not None else []
        if news := self._wanted.get("news"):
            items = self._feed.news(from_ns, now_ns)
            messages += [item for item in items if "*" in news or news.intersection(_symbols_of(item))]
        for channel, read in (
            ("corrections", self._feed.corrections),
            ("cancelErrors", self._feed.cancels),
            ("updatedBars", self._feed.updated_bars),
            ("statuses", self._feed.statuses),
            ("lulds", self._feed.bands),
            ("orderbooks", self._feed.books),
        ):
            for symbol in sorted(self._named(channel)):
                messages += read(symbol, from_ns, now_ns)
        return messages

    def _named(self, channel: str) -> frozenset[str]:
        """Return the symbols of a channel that there is something to tell about; ``*`` is all of the endpoint's."""
        wanted = self._wanted.get(channel, frozenset())
        if "*" in wanted:
            wanted = frozenset({TEST_SYMBOL} if self._path == "/v2/test" else self._feed.symbols(crypto=self._crypto))
        return frozenset(symbol for symbol in wanted if self._feed.knows(symbol, crypto=self._crypto))

    def _log_in(self, login: Login) -> str | bytes:
        if self._account is not None:
            return say_failure(failure(403), self._encoding)
        if not login.key_id or not login.secret:
            return self.fail(*failure(402))[0]
        account = self._account_of(login.key_id, login.secret)
        if not self._occupancy.enter(account, self._path, self._limits.connections):
            return self.fail(*failure(406))[0]
        self._account = account
        return say_success("authenticated", self._encoding)

    def _change(self, change: Change) -> str | bytes:
        after = change.applied_to(self._wanted)
        nothing: frozenset[str] = frozenset()
        limited = after.get("trades", nothing) | after.get("quotes", nothing)
        if change.action == "subscribe" and self._limits.symbols and len(limited) > self._limits.symbols:
            return say_failure(failure(405), self._encoding)
        self._wanted = after
        return say_subscription(after, self._encoding)


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
    login = login_in(headers)
    if path == UPDATES_PATH:
        return TradingSession(exchange, exchange.now_ns(), login, limits.login_ns)
    market = exchange.market()
    return MarketSession(
        path,
        encoding_of(headers),
        OptionFeed(market, exchange.now_ns) if path in OPTION_PATHS else market.feed,
        exchange.account_number,
        occupancy,
        limits,
        exchange.now_ns(),
        login,
        is_reset=lambda: exchange.has_other_market(market),
    )


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
