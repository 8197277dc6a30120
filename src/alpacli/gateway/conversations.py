"""What is said with a relay client, without I/O: Alpaca's two protocols, so that its SDK runs unchanged, and alpacli's own.

Each is a ``Listener`` of the relay. ``receive`` returns credentials when the client shows some; whoever drives the
conversation has them looked at and calls ``let_in`` or ``turn_away``.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Protocol
from urllib.parse import parse_qs

import msgspec

from alpacli.domain.ticks import Interest, instant_text
from alpacli.errors import AlpacliError, UsageError
from alpacli.gateway.access import Credentials, from_message
from alpacli.gateway.formats import ALPACA, ARRAYS, LINES, UPDATES, frame, text_frame
from alpacli.gateway.relay import Client, Outlet, Relay
from alpacli.gateway.tokens import Grant
from alpacli.ports import Clock
from alpacli.streams.events import Gap, Lagging, Live, Reconnecting, Refused
from alpacli.streams.feeds import FEEDS, Feed, find_feed
from alpacli.wire.commands import decode_command
from alpacli.wire.frames import BadFrame, Encoding, Failure
from alpacli.wire.serving import (
    TEXTS,
    Channels,
    Listen,
    Login,
    encoding_of,
    failure,
    read_market,
    read_trading,
    refused_encoding,
    say_authorization,
    say_failure,
    say_listening,
    say_missed,
    say_subscription,
    say_success,
    say_trading_failure,
)
from alpacli.wire.serving import UPDATES as UPDATES_CHANNEL

NORMAL: Final = 1000
POLICY: Final = 1008
_OWN_ORDERS: Final = Interest({UPDATES_CHANNEL: ["*"]})
_COME_WITH_TRADES: Final = ("corrections", "cancelErrors")
_ALIASES: Final = {"updates": UPDATES_CHANNEL}
_REFUSED_HINTS: Final = {
    405: "ask for fewer symbols: the free plan allows 30, shared by all clients of this gateway",
    410: "this feed does not have that channel",
}
_json: Final = msgspec.json.Encoder()


class Conversation(Protocol):
    """One client's conversation, whatever the protocol."""

    client: Client

    def begin(self) -> None: ...

    def receive(self, message: str | bytes) -> Credentials | None:
        """Obey one message of the client, or return the credentials that it shows."""

    def let_in(self, grant: Grant) -> None: ...

    def turn_away(self, error: AlpacliError) -> None:
        """Tell that the credentials are not good, and end the conversation."""

    def refuse(self, code: int, message: str) -> None:
        """End the conversation with one of Alpaca's codes: 404 too late, 406 too many connections."""


class MarketConversation:
    """A client of one of Alpaca's market data endpoints."""

    def __init__(
        self, feed: Feed, relay: Relay, outlet: Outlet, headers: Mapping[str, str], name: str, most_symbols: int
    ) -> None:
        self._feed = feed
        self._relay = relay
        self._encoding: Encoding = encoding_of(headers)
        self._most_symbols = most_symbols
        self._authenticated = False
        self.client = Client(name, ALPACA[self._encoding], outlet)
        self.client.listener = self

    def begin(self) -> None:
        refused = refused_encoding(self._feed.path, self._encoding)
        if refused is not None:
            self._end(refused)
        else:
            self._say(say_success("connected", self._encoding))

    def receive(self, message: str | bytes) -> Credentials | None:
        known = self._feed.channels
        asked = read_market(message, self._encoding, self._feed.path, known, authenticated=self._authenticated)
        if isinstance(asked, Failure):
            self._fail(asked)
        elif isinstance(asked, Login):
            if not self._authenticated:
                return _credentials(asked)
            self._fail(failure(403))
        else:
            interest = _interest(asked.channels)
            if not interest:
                self._confirm(self.client.interests.get(self._feed.name, Interest()))
            elif asked.action == "unsubscribe":
                self._relay.feed(self._feed.name).unsubscribe(self.client, interest)
            elif _symbols(self.client, interest) > self._most_symbols:
                self._fail(failure(405))
            else:
                self._relay.feed(self._feed.name).subscribe(self.client, interest)
        return None

    def let_in(self, grant: Grant) -> None:
        self._authenticated = True
        self._say(say_success("authenticated", self._encoding))

    def turn_away(self, error: AlpacliError) -> None:
        self._end(failure(411 if error.status == 403 else 402))

    def refuse(self, code: int, message: str) -> None:
        self._end(Failure(code, message))

    # --------------------------------------------------------------------------------------- as the listener

    def confirmed(self, feed: str, interest: Interest) -> None:
        self._confirm(interest)

    def refused(self, feed: str, event: Refused) -> None:
        self._fail(Failure(event.code, event.message))

    def happened(self, feed: str, event: Reconnecting | Live | Gap | Lagging) -> None:
        """Tell of what was missed with the only word that this protocol has for it."""
        if isinstance(event, Gap):
            self._say(say_missed(event.from_ns, event.until_ns, self._encoding))
        elif isinstance(event, Lagging):
            self._fail(Failure(407, f"messages were lost: the {event.by} had too much to send"))

    def failed(self, feed: str, error: AlpacliError) -> None:
        self._end(Failure(error.code if error.code is not None and error.code in TEXTS else 500, error.message))

    def caught_up(self, conflated: int) -> None:
        self._fail(Failure(407, f"slow client: {conflated} quotes were replaced by newer ones"))

    def last_words(self) -> bytes:
        return frame(say_failure(failure(407), self._encoding))

    def _confirm(self, interest: Interest) -> None:
        state = {name: interest.channels.get(name, frozenset()) for name in self._feed.channels}
        for twin in _COME_WITH_TRADES:
            if twin in state:
                state[twin] |= state.get("trades", frozenset())
        self._say(say_subscription(state, self._encoding))

    def _say(self, message: str | bytes) -> None:
        self.client.say(frame(message), framed=True)

    def _fail(self, failed: Failure) -> None:
        self._say(say_failure(failed, self._encoding))

    def _end(self, failed: Failure) -> None:
        self._fail(failed)
        self._relay.cut(self.client, NORMAL, "")


class UpdatesConversation:
    """A client of the trading stream: what happens to the account's own orders.

    The protocol has no word for a gap, and who follows orders must read them again after one: the connection ends then.
    """

    def __init__(self, relay: Relay, outlet: Outlet, name: str) -> None:
        self._relay = relay
        self._authenticated = False
        self.client = Client(name, UPDATES, outlet)
        self.client.listener = self

    def begin(self) -> None:
        """Say nothing: this server is silent until the login."""

    def receive(self, message: str | bytes) -> Credentials | None:
        asked = read_trading(message)
        if isinstance(asked, Failure):
            self._end(asked)
        elif isinstance(asked, Login):
            return _credentials(asked)
        elif not self._authenticated:
            self._say(say_authorization("listen", authorized=False))
        elif UPDATES_CHANNEL in asked.streams:
            self._relay.feed("updates").subscribe(self.client, _OWN_ORDERS)
        else:
            self._relay.feed("updates").unsubscribe(self.client, _OWN_ORDERS)
        return None

    def let_in(self, grant: Grant) -> None:
        self._authenticated = True
        self._say(say_authorization("authenticate", authorized=True))

    def turn_away(self, error: AlpacliError) -> None:
        self._end(failure(402))

    def refuse(self, code: int, message: str) -> None:
        self._end(Failure(code, message))

    # --------------------------------------------------------------------------------------- as the listener

    def confirmed(self, feed: str, interest: Interest) -> None:
        self._say(say_listening(Listen((UPDATES_CHANNEL,) if interest else ())))

    def refused(self, feed: str, event: Refused) -> None:
        self._end(Failure(event.code, event.message))

    def happened(self, feed: str, event: Reconnecting | Live | Gap | Lagging) -> None:
        if isinstance(event, Gap | Lagging):
            self._end(Failure(500, "order updates were missed: connect again and read the orders"))

    def failed(self, feed: str, error: AlpacliError) -> None:
        self._end(Failure(500, error.message))

    def caught_up(self, conflated: int) -> None:
        """Do nothing: updates are not conflated."""

    def last_words(self) -> bytes:
        return frame(say_trading_failure(failure(407)))

    def _say(self, message: bytes) -> None:
        self.client.say(frame(message), framed=True)

    def _end(self, failed: Failure) -> None:
        self._say(say_trading_failure(failed))
        self._relay.cut(self.client, NORMAL, "")


class BrokerConversation:
    """A client of alpacli's own relay: the lines of ``alpacli stream --json``, commands, and events as messages.

    Coins, articles and order updates come from their own feeds; everything else from ``feed``.
    """

    def __init__(
        self, relay: Relay, outlet: Outlet, query: str, name: str, clock: Clock, most_symbols: int, feed: str = "iex"
    ) -> None:
        self._relay = relay
        self._clock = clock
        self._most_symbols = most_symbols
        self._grant: Grant | None = None
        self._query = parse_qs(query)
        self._batch = self._asked("batch") in ("1", "true")
        self._feed_name = self._asked("feed") or feed
        self.client = Client(name, ARRAYS if self._batch else LINES, outlet)
        self.client.listener = self

    def begin(self) -> None:
        """Say nothing: the client is to show a token first, if the request had none."""

    def receive(self, message: str | bytes) -> Credentials | None:
        try:
            command = decode_command(message)
        except BadFrame:
            self._error(400, "not a JSON object", 'send {"action": "subscribe", "symbols": […], "streams": […]}')
            return None
        action = command.get("action")
        if action == "auth":
            return from_message(command)
        if action == "ping":
            self._tell("pong", timestamp=instant_text(int(self._clock.time() * 1_000_000) * 1000))
        elif self._grant is None:
            self._error(401, "not authenticated", 'send {"action": "auth", "token": …} first')
        elif action in ("subscribe", "unsubscribe"):
            self._obey(str(action), command)
        else:
            self._error(400, f"unknown action {str(action)[:40]!r}", "known: auth, subscribe, unsubscribe, ping")
        return None

    def let_in(self, grant: Grant) -> None:
        again = self._grant is not None
        self._grant = grant
        self._tell("authenticated", name=grant.name, scopes=sorted(grant.scopes))
        symbols = [symbol for text in self._query.get("symbols", []) for symbol in text.split(",") if symbol]
        streams = [name for text in self._query.get("streams", []) for name in text.split(",") if name]
        if not again and (symbols or streams):
            self._obey("subscribe", {"symbols": symbols, **({"streams": streams} if streams else {})})

    def turn_away(self, error: AlpacliError) -> None:
        self._error(error.status or 401, error.message, error.hint)
        self._relay.cut(self.client, POLICY, error.message[:100])

    def refuse(self, code: int, message: str) -> None:
        self._error(code, message)
        self._relay.cut(self.client, POLICY, message)

    def _asked(self, name: str) -> str:
        return self._query.get(name, [""])[-1]

    def _obey(self, action: str, command: Mapping[str, object]) -> None:
        try:
            wanted = self._wanted(command.get("symbols", []), command.get("streams"))
        except UsageError as error:
            self._error(400, error.message, error.hint)
            return
        everything = Interest()
        for interest in wanted.values():
            everything |= interest
        if action == "subscribe" and _symbols(self.client, everything) > self._most_symbols:
            self._error(405, TEXTS[405], f"one client may have {self._most_symbols} symbols")
            return
        for name, interest in wanted.items():
            feed = self._relay.feed(name)
            (feed.subscribe if action == "subscribe" else feed.unsubscribe)(self.client, interest)

    def _wanted(self, symbols: object, streams: object) -> dict[str, Interest]:
        """Return what a command is about, by feed.

        Raises:
            UsageError: it makes no sense.
        """
        feed = find_feed(self._feed_name)
        names = list(feed.default) if streams is None else [_ALIASES.get(n, n) for n in _texts("streams", streams)]
        chosen = _texts("symbols", symbols)
        wanted: dict[str, Interest] = {}
        for channel in names:
            if channel == UPDATES_CHANNEL:
                wanted["updates"] = _OWN_ORDERS
            elif channel == "news":
                wanted["news"] = Interest({"news": chosen or ["*"]})
            else:
                for name, some in _by_feed(feed, channel, chosen).items():
                    wanted[name] = wanted.get(name, Interest()) | Interest({channel: some})
        if not any(wanted.values()):
            raise UsageError("nothing to stream", 'name symbols: {"symbols": ["AAPL"]}, or "*" for all')
        return wanted

    # --------------------------------------------------------------------------------------- as the listener

    def confirmed(self, feed: str, interest: Interest) -> None:
        self._tell("subscription", feed=feed, streams=interest.as_dict())

    def refused(self, feed: str, event: Refused) -> None:
        self._error(event.code, event.message, _REFUSED_HINTS.get(event.code, ""), feed)

    def happened(self, feed: str, event: Reconnecting | Live | Gap | Lagging) -> None:
        if isinstance(event, Gap):
            self._tell("gap", feed=feed, **{"from": instant_text(event.from_ns), "until": instant_text(event.until_ns)})
        elif isinstance(event, Lagging):
            self._tell("lagging", feed=feed, by=event.by, lost=event.lost)
        elif isinstance(event, Reconnecting):
            why = {"reason": event.reason, "hint": event.hint}
            self._tell("reconnecting", feed=feed, attempt=event.attempt, wait=event.wait_s, **why)
        else:
            self._tell("live", feed=feed)

    def failed(self, feed: str, error: AlpacliError) -> None:
        self._error(error.code or error.status or 500, error.message, error.hint, feed)

    def caught_up(self, conflated: int) -> None:
        self._tell("lagging", by="client", conflated=conflated)

    def last_words(self) -> bytes:
        words = _json.encode(
            {"type": "error", "code": 407, "message": "slow client", "hint": "read faster, or batch=true"}
        )
        return text_frame(b"[" + words + b"]" if self._batch else words)

    def _tell(self, kind: str, **fields: object) -> None:
        self.client.say(self.client.form.piece(kind, _json.encode({"type": kind, **fields})))

    def _error(self, code: int, message: str, hint: str = "", feed: str = "") -> None:
        about = {"feed": feed} if feed else {}
        self._tell("error", code=code, message=message, hint=hint, **about)


def _credentials(login: Login) -> Credentials:
    return Credentials(token=login.secret) if login.key_id == "oauth" else Credentials("", login.key_id, login.secret)


def _interest(channels: Channels) -> Interest:
    """Return what has to be asked for: what comes with trades by itself needs no asking."""
    trades = channels.get("trades", frozenset())
    return Interest({name: s - trades if name in _COME_WITH_TRADES else s for name, s in channels.items()})


def _symbols(client: Client, more: Interest) -> int:
    """Count the symbols that a client would have with some more."""
    return len(more.symbols.union(*(interest.symbols for interest in client.interests.values())))


def _by_feed(feed: Feed, channel: str, symbols: Sequence[str]) -> dict[str, list[str]]:
    """Return which symbols of a channel belong to which feed: a name with a slash is a coin's."""
    crypto = FEEDS["crypto"]
    coins = [symbol for symbol in symbols if "/" in symbol and channel in crypto.channels]
    others = [symbol for symbol in symbols if symbol not in coins]
    if others and channel not in feed.channels:
        raise UsageError(f"the {feed.name} feed has no {channel[:40]}", f"it has {', '.join(feed.channels)}")
    return {name: some for name, some in ((crypto.name, coins), (feed.name, others)) if some}


def _texts(name: str, value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(text, str) and 0 < len(text) <= 64 for text in value):
        raise UsageError(f"{name} must be a list of names", f'like {{"{name}": ["AAPL"]}}')
    return value
