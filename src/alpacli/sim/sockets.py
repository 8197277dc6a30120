"""The exchange's market data sockets without I/O, and the in-process stand-in for one.

A session reads a client's frames, answers, and says what is due at a time. Codes and texts are those of Alpaca's table of
errors. Source: "Real-time Data".
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NamedTuple

from alpacli.errors import ConnectionLost
from alpacli.ports import Clock, async_sleep
from alpacli.sim.exchange import Exchange
from alpacli.sim.feed import MINUTE_NS, TEST_SYMBOL, Feed
from alpacli.sim.listing import LISTINGS
from alpacli.wire.frames import BadFrame, Encoding, decode_command, encode_messages

TICK_S: Final = 0.05
"""How often a session is asked what is due."""

_LOGIN_WITHIN_NS: Final = 10_000_000_000
_BAR_DELAY_NS: Final = 200_000_000
_STOCKS: Final = (
    *("trades", "quotes", "bars", "updatedBars", "dailyBars", "statuses", "lulds", "imbalances"),
    *("corrections", "cancelErrors"),
)
_CRYPTO: Final = ("trades", "quotes", "bars", "updatedBars", "dailyBars", "orderbooks")
CHANNELS: Final[Mapping[str, tuple[str, ...]]] = {
    **{f"/v2/{feed}": _STOCKS for feed in ("iex", "sip", "delayed_sip")},
    "/v2/test": ("trades", "quotes", "bars"),
    "/v1beta3/crypto/us": _CRYPTO,
}
"""What each endpoint can be asked for."""


class Limits(NamedTuple):
    """Switches: 0 is no limit. ``connections`` per account and endpoint, ``symbols`` over trades and quotes."""

    connections: int = 0
    symbols: int = 0


class Occupancy:
    """How many connections each account has on each endpoint."""

    def __init__(self) -> None:
        self._open: dict[tuple[int, str], int] = {}

    def enter(self, account: int, path: str, limit: int) -> bool:
        taken = self._open.get((account, path), 0)
        if limit and taken >= limit:
            return False
        self._open[account, path] = taken + 1
        return True

    def leave(self, account: int, path: str) -> None:
        self._open[account, path] -= 1


class MarketSession:
    """One client on one endpoint. ``over`` when the connection has to be closed.

    ``account_of`` opens the account of a key pair; it waits for the state file, so the caller runs ``receive`` in a thread.
    """

    def __init__(
        self,
        path: str,
        encoding: Encoding,
        feed: Feed,
        account_of: Callable[[str, str], int],
        occupancy: Occupancy,
        limits: Limits,
        now_ns: int,
    ) -> None:
        self.over = False
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
        return [self._frame({"T": "success", "msg": "connected"})]

    def receive(self, frame: str | bytes) -> list[str | bytes]:
        """Obey one frame of the client and return the answers."""
        try:
            command = decode_command(frame, self._encoding)
        except BadFrame:
            return [self._error(400, "invalid syntax")]
        action = command.get("action")
        if action == "auth":
            return [self._log_in(str(command.get("key") or ""), str(command.get("secret") or ""))]
        if action not in ("subscribe", "unsubscribe"):
            return [self._error(400, "invalid syntax")]
        if self._account is None:
            return [self._error(401, "not authenticated")]
        return [self._change(action, {name: value for name, value in command.items() if name != "action"})]

    def due(self, now_ns: int) -> list[str | bytes]:
        """Return what happened since it was last asked."""
        if self._account is None:
            if now_ns - self._began_ns < _LOGIN_WITHIN_NS or self.over:
                return []
            self.over = True
            return [self._error(404, "auth timeout")]
        from_ns, self._said_until_ns = self._said_until_ns, max(now_ns, self._said_until_ns)
        messages: list[dict[str, object]] = []
        for symbol in sorted(self._named("trades")):
            messages += self._feed.trades(symbol, from_ns, now_ns)
        for symbol in sorted(self._named("quotes")):
            messages += self._feed.quotes(symbol, from_ns, now_ns)
        minute = (now_ns - _BAR_DELAY_NS) // MINUTE_NS * MINUTE_NS
        if minute > (from_ns - _BAR_DELAY_NS) // MINUTE_NS * MINUTE_NS:
            bars = [self._feed.bar(symbol, minute - MINUTE_NS) for symbol in sorted(self._named("bars"))]
            messages += [bar for bar in bars if bar is not None]
        if self._crypto and now_ns // 1_000_000_000 > from_ns // 1_000_000_000:
            messages += [self._feed.book(symbol, now_ns) for symbol in sorted(self._named("orderbooks"))]
        messages.sort(key=lambda message: message["t"] if isinstance(message["t"], int) else 0)
        return [encode_messages(messages, self._encoding)] if messages else []

    def close(self) -> None:
        if self._account is not None:
            self._occupancy.leave(self._account, self._path)
            self._account = None
        self.over = True

    def _named(self, channel: str) -> set[str]:
        """Return the symbols of a channel that there is something to tell about; ``*`` is all of the endpoint's."""
        wanted = self._wanted.get(channel, set())
        if "*" in wanted:
            return {TEST_SYMBOL} if self._path == "/v2/test" else _all_symbols(crypto=self._crypto)
        return {symbol for symbol in wanted if self._feed.knows(symbol, crypto=self._crypto)}

    def _log_in(self, key_id: str, secret: str) -> str | bytes:
        if self._account is not None:
            return self._error(403, "already authenticated")
        if not key_id or not secret:
            self.over = True
            return self._error(402, "auth failed")
        account = self._account_of(key_id, secret)
        if not self._occupancy.enter(account, self._path, self._limits.connections):
            self.over = True
            return self._error(406, "connection limit exceeded")
        self._account = account
        return self._frame({"T": "success", "msg": "authenticated"})

    def _change(self, action: str, channels: Mapping[str, object]) -> str | bytes:
        asked: dict[str, set[str]] = {}
        for name, symbols in channels.items():
            if name not in self._wanted:
                return self._error(410, "invalid subscribe action for this feed")
            if not isinstance(symbols, list) or not all(isinstance(symbol, str) and symbol for symbol in symbols):
                return self._error(400, "invalid syntax")
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


def _all_symbols(*, crypto: bool) -> set[str]:
    return {listing.symbol for listing in LISTINGS.values() if listing.crypto == crypto}


class LocalSocket:
    """A ``ports.Socket`` to a session in this process."""

    def __init__(
        self, session: MarketSession, exchange: Exchange, sleep: Callable[[float], Awaitable[None]] = async_sleep
    ) -> None:
        self._session = session
        self._exchange = exchange
        self._sleep = sleep
        self._answers: deque[str | bytes] = deque(session.begin())

    async def send(self, frame: str | bytes) -> None:
        if self._session.over:
            raise ConnectionLost("the exchange closed the connection")
        self._answers += await asyncio.to_thread(self._session.receive, frame)

    async def recv(self) -> str | bytes:
        while not self._answers:
            if self._session.over:
                raise ConnectionLost("the exchange closed the connection")
            await self._sleep(TICK_S)
            self._answers += self._session.due(self._exchange.now_ns())
        return self._answers.popleft()

    async def ping(self) -> None:
        """Return at once: this process is here."""

    async def close(self) -> None:
        self._session.close()
        self._exchange.close()


async def dial_local(
    state_dir: str, clock: Clock, path: str, key_id: str, secret: str, encoding: Encoding
) -> LocalSocket:
    """Open a market data connection to the exchange of a state directory, in this process.

    Raises:
        ConfigError: the state file cannot be used.
        ConnectionLost: the exchange has no such endpoint.
    """
    if path not in CHANNELS:
        raise ConnectionLost(f"the offline exchange has no stream at {path}", f"it has {', '.join(CHANNELS)}")
    exchange = await asyncio.to_thread(Exchange, state_dir, clock)
    market = exchange.market()
    session = MarketSession(
        path,
        encoding,
        Feed(market.tape, market.hours),
        exchange.account_number,
        Occupancy(),
        Limits(),
        exchange.now_ns(),
    )
    return LocalSocket(session, exchange)
