"""The two conversations, without I/O: frames in, frames to send and what happened out. One session is one connection.

Market data: connected -> auth -> authenticated -> subscribe -> subscription. Trading stream: auth -> authorization ->
listen -> listening. Source: "Real-time Data" (its table of errors included) and "Websocket Streaming".
"""

from collections import deque
from typing import Final, Literal, NamedTuple, Protocol

from alpacli.domain.ticks import Interest
from alpacli.errors import AlpacliError, AuthenticationError, StreamLost, StreamRefused
from alpacli.streams.events import Connecting, Event, Gap, Lagging, Live, Refused
from alpacli.wire import commands, frames
from alpacli.wire.frames import BadFrame, Encoding, Failure, Message

Action = Literal["subscribe", "unsubscribe"]

_HINTS: Final = {
    400: "check the symbols: stocks like AAPL, coins like BTC/USD",
    402: "check ALPACA_API_KEY and ALPACA_SECRET_KEY, or the token of a profile with a gateway",
    405: "ask for fewer symbols: the free plan allows 30",
    406: "another program holds the account's only connection: end it, or let it share this one (alpacli streams do)",
    408: "this account has no access to the stream",
    409: "the account's plan does not include this feed: feed iex is free (--feed iex)",
    410: "this feed does not have that channel: choose others",
    411: "the token lacks the data scope",
    412: "this feed speaks msgpack only",
    413: "name the option symbols: * is not allowed for their quotes",
}
_FINAL: Final = frozenset((400, 402, 405, 408, 409, 410, 411, 412, 413))
_ABOUT_A_CHANGE: Final = frozenset((400, 405, 410, 413))


class Step(NamedTuple):
    """What one frame led to."""

    ticks: list[Message]
    send: list[str | bytes]
    events: list[Event]
    unknown: int = 0
    bad: int = 0


class Session(Protocol):
    live: bool

    @property
    def waiting(self) -> bool:
        """Tell whether a change is on its way that the server has not answered."""

    def begin(self) -> tuple[list[str | bytes], str]:
        """Return what to send once the connection is open, and the step that is waited for."""

    def receive(self, frame: str | bytes) -> Step:
        """Read one frame.

        Raises:
            AuthenticationError: the key pair was refused.
            StreamRefused: the feed, or the subscription to begin with, was refused.
            StreamLost: the server ends the connection for now.
        """

    def change(self, action: Action, interest: Interest) -> list[str | bytes]:
        """Return what to send so that a live subscription changes; ``receive`` tells how it went."""


class MarketSession:
    """Market data. ``wanted`` is subscribed to as soon as the server lets us; an empty one is live without."""

    def __init__(self, key_id: str, secret: str, wanted: Interest, encoding: Encoding = "json") -> None:
        self.live = False
        self._login = (key_id, secret)
        self._wanted = wanted
        self._encoding = encoding
        self._asked: deque[tuple[Action, Interest]] = deque()

    @property
    def waiting(self) -> bool:
        return bool(self._asked)

    def begin(self) -> tuple[list[str | bytes], str]:
        return [], "connecting"

    def receive(self, frame: str | bytes) -> Step:
        try:
            read = frames.decode(frame, self._encoding)
        except BadFrame:
            return Step([], [], [], bad=1)
        step = Step(read.ticks, [], [], read.unknown)
        for control in read.controls:
            if isinstance(control, frames.Success):
                self._succeeded(control.message, step)
            elif isinstance(control, frames.Subscription):
                if self._asked:
                    self._asked.popleft()
                self.live = True
                step.events.append(Live(control.channels))
            elif isinstance(control, frames.Missed):
                step.events.append(Gap(control.from_ns, control.until_ns))
            elif isinstance(control, Failure):
                self._failed(control, step)
        return step

    def change(self, action: Action, interest: Interest) -> list[str | bytes]:
        self._asked.append((action, interest))
        return [self._encode(commands.change(action, interest.as_dict()))]

    def _succeeded(self, message: str, step: Step) -> None:
        if message == "connected":
            step.send.append(self._encode(commands.login(*self._login)))
            step.events.append(Connecting("authenticating"))
        elif message == "authenticated":
            if self._wanted:
                step.send.extend(self.change("subscribe", self._wanted))
                step.events.append(Connecting("subscribing"))
            else:
                self.live = True
                step.events.append(Live({}))

    def _failed(self, failure: Failure, step: Step) -> None:
        code = failure.code
        if code == 403:  # a second login is harmless
            return
        if code == 407:
            step.events.append(Lagging("server", 0))
            return
        if self.live and code in _ABOUT_A_CHANGE and self._asked:
            _, interest = self._asked.popleft()
            step.events.append(Refused(code, failure.message, interest.as_dict()))
            return
        raise refusal(failure)

    def _encode(self, command: dict[str, object]) -> str | bytes:
        return commands.encode_command(command, self._encoding)


class UpdatesSession:
    """The trading stream: the account's own orders."""

    def __init__(self, key_id: str, secret: str) -> None:
        self.live = False
        self._login = (key_id, secret)

    @property
    def waiting(self) -> bool:
        return False

    def begin(self) -> tuple[list[str | bytes], str]:
        return [commands.encode_command(commands.login(*self._login))], "authenticating"

    def receive(self, frame: str | bytes) -> Step:
        try:
            read = frames.decode_update(frame)
        except BadFrame:
            return Step([], [], [], bad=1)
        step = Step(read.ticks, [], [], read.unknown)
        for control in read.controls:
            if isinstance(control, frames.Authorization):
                if not control.authorized:
                    raise refusal(Failure(402, "auth failed"))
                step.send.append(commands.encode_command(commands.listen(["trade_updates"])))
                step.events.append(Connecting("subscribing"))
            elif isinstance(control, frames.Listening):
                if "trade_updates" not in control.streams:
                    raise StreamRefused("the server does not send order updates to this key pair", _HINTS[411])
                self.live = True
                step.events.append(Live({"trade_updates": ("*",)}))
            elif isinstance(control, Failure):
                raise refusal(control)
        return step

    def change(self, action: Action, interest: Interest) -> list[str | bytes]:
        return []


def refusal(failure: Failure) -> AlpacliError:
    """Return the error that a server's error message means."""
    code, text = failure.code, f"the stream answered: {failure.message}{f' ({failure.code})' if failure.code else ''}"
    hint = _HINTS.get(code, "")
    if code in (402, 411):
        return AuthenticationError(text, hint, code=code)
    if code in _FINAL:
        return StreamRefused(text, hint, code=code)
    return StreamLost(
        text, hint or "alpacli reconnects by itself, as often as reconnect (--reconnect) says", code=code or None
    )
