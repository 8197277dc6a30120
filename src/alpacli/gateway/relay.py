"""The relay: any number of clients, each with its own symbols, on one source per feed; without sockets or HTTP.

A source is the hub that the streams of this machine share, so the gateway is one more of its members: it hears finished lines
and passes them on (ADR 10). A line is found its clients by its first bytes, made a piece once per format, and appended to
what each client is about to get; every few milliseconds each client gets one write.

A client that does not take its data holds up nobody. Its quotes are conflated to the latest per symbol, everything else
waits, and when too much waits, or nothing moves for too long, it is cut off.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, NamedTuple, Protocol

import msgspec
from msgspec import Struct

from alpacli.domain.ticks import CHANNEL_OF, Interest
from alpacli.errors import AlpacliError, StreamLost
from alpacli.gateway.formats import Format
from alpacli.ports import Clock
from alpacli.streams.batch import Batch
from alpacli.streams.events import Event, Gap, Lagging, Live, Reconnecting, Refused
from alpacli.streams.supervisor import Source

FLUSH_S: Final = 0.003
"""Messages wait for the next write when the last was less than this ago: a write costs more than all of its messages."""

MOST_WAITING_BYTES: Final = 8 << 20
"""A client for which more than this waits is cut off."""

PATIENCE_S: Final = 30.0
"""A client that takes nothing for this long while something waits for it is cut off."""

TRY_AGAIN_LATER: Final = 1013
"""The close code of a client that was too slow. Source: the WebSocket close code registry."""

_AT_ONCE_BYTES: Final = 64 << 10
_REFUSED_FOR_S: Final = 5.0
"""What ended a feed for good is told to newcomers for this long before it is tried again."""

_SWEEP_S: Final = 0.5
_COME_WITH_TRADES: Final = ("corrections", "cancelErrors")
_CONTROL: Final = object()
_log = logging.getLogger(__name__)


class Outlet(Protocol):
    """A client's connection. ``write`` takes whole frames and never waits."""

    @property
    def has_room(self) -> bool: ...

    def write(self, frames: bytes) -> None: ...

    def end(self, code: int, reason: str) -> None:
        """Say goodbye, and hang up soon, whether it is heard or not."""


class Listener(Protocol):
    """The other half of a client's conversation; what it says goes through ``Client.say``."""

    def confirmed(self, feed: str, interest: Interest) -> None:
        """Take note that something asked for is live; ``interest`` is all of the feed that is, for this client."""

    def refused(self, feed: str, event: Refused) -> None: ...

    def happened(self, feed: str, event: Reconnecting | Live | Gap | Lagging) -> None: ...

    def failed(self, feed: str, error: AlpacliError) -> None:
        """Take note that a feed is over for good; nothing of it is subscribed any more."""

    def caught_up(self, conflated: int) -> None:
        """Take note that the client is no longer behind, and how many quotes were replaced by newer ones meanwhile."""

    def last_words(self) -> bytes:
        """Return the frames that tell a client which was too slow why it has to go."""


class Client:
    """What one client is about to get. ``interests`` is what it wants, by feed."""

    def __init__(
        self, name: str, form: Format, outlet: Outlet, *, most_waiting_bytes: int = MOST_WAITING_BYTES
    ) -> None:
        self.name = name
        self.form = form
        self.outlet = outlet
        self.listener: Listener | None = None
        self.interests: dict[str, Interest] = {}
        self.sent = 0
        self.conflated = 0
        self.entries: list[
            tuple[object, bytes]
        ] = []  # the list itself is known to routes: it is emptied, never replaced
        self.over = False
        self._most_waiting_bytes = most_waiting_bytes
        self._held: dict[object, bytes] = {}
        self._held_bytes = 0
        self._held_since: float | None = None
        self._told_conflated = 0
        self._controls = 0
        self._count = 0

    @property
    def waiting_bytes(self) -> int:
        return self._held_bytes

    def say(self, message: bytes, *, framed: bool = False) -> None:
        """Queue a message behind the data: a piece, or with ``framed`` whole frames of its own."""
        self.entries.append((_CONTROL if framed else None, message))
        self._controls += framed
        self.flush()

    def flush(self) -> None:
        """Write what has come, or keep it while the connection takes nothing."""
        entries = self.entries
        if not entries or self.over:
            entries.clear()
            return
        if not self._held and self.outlet.has_room:
            self.sent += len(entries)
            data = self._framed(entries) if self._controls else self.form.together([piece for _, piece in entries])
            entries.clear()
            self.outlet.write(data)
            return
        for key, piece in entries:
            self._hold(key, piece)
        entries.clear()

    def has_room(self) -> None:
        """Write what was held back, as far as the connection takes it."""
        if not self._held:
            return
        self._held_since = None
        while self._held and self.outlet.has_room:
            taken: list[tuple[object, bytes]] = []
            size = 0
            for key, piece in self._held.items():
                taken.append((key, piece))
                size += len(piece)
                if size > _AT_ONCE_BYTES:
                    break
            for key, _ in taken:
                del self._held[key]
            self._held_bytes -= size
            self.sent += len(taken)
            self.outlet.write(self._framed([(key[0] if isinstance(key, tuple) else key, p) for key, p in taken]))
        missed = self.conflated - self._told_conflated
        if not self._held and missed and self.listener is not None:
            self._told_conflated = self.conflated
            self.listener.caught_up(missed)

    def too_slow(self, now: float, patience_s: float) -> str:
        """Return why the client has to go; empty when it may stay."""
        if self._held_bytes > self._most_waiting_bytes:
            return f"too slow: more than {self._most_waiting_bytes >> 20} MB waited"
        if not self._held:
            return ""
        if self._held_since is None:
            self._held_since = now
        return f"too slow: took nothing for {patience_s:g} s" if now - self._held_since > patience_s else ""

    def drop(self) -> None:
        """Forget what waits; nothing is written from now on."""
        self.over = True
        self.entries.clear()
        self._held.clear()
        self._held_bytes = 0

    def _hold(self, key: object, piece: bytes) -> None:
        """Keep a piece; a quote takes the place of the one before, behind all that came since."""
        if key is None or key is _CONTROL:
            self._count += 1
            key = (key, self._count)
        elif (older := self._held.pop(key, None)) is not None:
            self._held_bytes -= len(older)
            self.conflated += 1
        self._held[key] = piece
        self._held_bytes += len(piece)

    def _framed(self, entries: Iterable[tuple[object, bytes]]) -> bytes:
        """Return frames in order; those that were whole already stay by themselves."""
        whole: list[bytes] = []
        pieces: list[bytes] = []
        for key, piece in entries:
            if key is not _CONTROL:
                pieces.append(piece)
                continue
            self._controls -= 1
            if pieces:
                whole.append(self.form.together(pieces))
                pieces = []
            whole.append(piece)
        if pieces:
            whole.append(self.form.together(pieces))
        return b"".join(whole)


class FeedStatus(NamedTuple):
    """How a feed stands. ``state`` is a phrase; ``symbols`` are all that anybody wants, by channel.

    ``unsaid`` counts messages that the format of some client has no way to say.
    """

    feed: str
    state: str
    shared: bool
    clients: int
    symbols: Mapping[str, int]
    messages: int
    reconnects: int
    gaps: int
    refusals: int
    unsaid: int


class _Subject(Struct):
    type: str
    symbol: str = ""
    symbols: list[str] = []


class _Asking(NamedTuple):
    """A wish that is not confirmed yet; ``added`` is what it adds to what the client had."""

    client: Client
    interest: Interest
    added: Interest


class _Targets(NamedTuple):
    """The clients of one format that want a message, as the ``append`` of what each is about to get."""

    piece: Callable[[str, bytes], bytes]
    kind: str
    key: object
    appends: tuple[Callable[[tuple[object, bytes]], None], ...]


_subject: Final = msgspec.json.Decoder(_Subject)


class FeedRelay:
    """One feed: what its clients want together, and to whom each message goes. A ``Sink``."""

    def __init__(
        self,
        name: str,
        open_source: Callable[[Interest], Source],
        clock: Clock,
        came: Callable[[], None],
    ) -> None:
        self.name = name
        self.messages = self.reconnects = self.gaps = self.refusals = self.unsaid = 0
        self._open_source = open_source
        self._clock = clock
        self._came = came
        self._wanted_by: dict[str, dict[str, dict[Client, None]]] = {}
        self._clients: dict[Client, None] = {}
        self._live_clients: set[Client] = set()
        self._asking: list[_Asking] = []
        self._routes: dict[bytes, tuple[_Targets, ...]] = {}
        self._source: Source | None = None
        self._running: asyncio.Task[None] | None = None
        self._changes: set[asyncio.Task[None]] = set()
        self._wanted = Interest()
        self._live: Live | None = None
        self._state = "idle"
        self._failed: tuple[float, AlpacliError] | None = None

    # --------------------------------------------------------------------------------------------- clients

    def subscribe(self, client: Client, interest: Interest) -> None:
        """Add to what a client wants; its listener is told when that is live, or refused."""
        if self._failed is not None:
            until, error = self._failed
            if self._clock.monotonic() < until:
                if client.listener is not None:
                    client.listener.failed(self.name, error)
                return
            self._failed = None
        had = client.interests.get(self.name, Interest())
        added = interest - had
        client.interests[self.name] = had | interest
        self._clients[client] = None
        for channel, symbols in added.channels.items():
            places = self._wanted_by.setdefault(channel, {})
            for symbol in symbols:
                places.setdefault(symbol, {})[client] = None
        self._forget_routes(added)
        self._asking.append(_Asking(client, interest, added))
        missing = interest - self._wanted
        if self._source is None:
            self._start(interest)
        elif missing:
            self._wanted |= missing
            self._change(self._source.change("subscribe", missing))
        self._answer()

    def unsubscribe(self, client: Client, interest: Interest) -> None:
        """Take away from what a client wants; confirmed at once."""
        self._remove(client, interest)
        self._trim()
        if client.listener is not None:
            client.listener.confirmed(self.name, self._settled(client))

    def leave(self, client: Client) -> None:
        self._remove(client, client.interests.get(self.name, Interest()))
        self._trim()

    def _remove(self, client: Client, interest: Interest) -> None:
        had = client.interests.get(self.name, Interest())
        for channel, symbols in interest.channels.items():
            places = self._wanted_by.get(channel, {})
            for symbol in symbols & had.channels.get(channel, frozenset()):
                wanting = places.get(symbol, {})
                wanting.pop(client, None)
                if not wanting:
                    places.pop(symbol, None)
        self._forget_routes(interest)
        left = had - interest
        self._asking = [
            one if one.client is not client else _Asking(client, one.interest - interest, one.added - interest)
            for one in self._asking
            if one.client is not client or one.interest - interest
        ]
        if left:
            client.interests[self.name] = left
        else:
            client.interests.pop(self.name, None)
            self._clients.pop(client, None)
            self._live_clients.discard(client)

    def _trim(self) -> None:
        if not self._clients:
            self.stop()
            return
        kept = Interest({channel: places.keys() for channel, places in self._wanted_by.items()})
        surplus = self._wanted - kept
        if surplus and self._source is not None:
            self._wanted -= surplus
            self._change(self._source.change("unsubscribe", surplus))

    def _change(self, change: Awaitable[None]) -> None:
        task = asyncio.ensure_future(_try(change))
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)

    def _answer(self) -> None:
        """Tell those who asked for what is live by now."""
        if self._live is None:
            return
        confirmed = Interest(self._live.channels)
        answered = [one for one in self._asking if not one.interest - confirmed]
        self._asking = [one for one in self._asking if one.interest - confirmed]
        for one in answered:
            self._live_clients.add(one.client)
            if one.client.listener is not None:
                one.client.listener.confirmed(self.name, self._settled(one.client))

    def _settled(self, client: Client) -> Interest:
        """Return what a client has without what it only asked for."""
        interest = client.interests.get(self.name, Interest())
        for one in self._asking:
            if one.client is client:
                interest -= one.added
        return interest

    # ---------------------------------------------------------------------------------------------- source

    def _start(self, interest: Interest) -> None:
        self._wanted = interest
        self._state = "connecting"
        try:
            self._source = self._open_source(interest)
        except (AlpacliError, OSError) as error:
            self._fail(error if isinstance(error, AlpacliError) else StreamLost(f"no shared connection: {error}"))
            return
        self._running = asyncio.ensure_future(self._run(self._source))

    async def _run(self, source: Source) -> None:
        try:
            await source.run(self)
            error = AlpacliError("the stream ended")
        except AlpacliError as refused:
            error = refused
        except Exception as defect:  # noqa: BLE001 # clients that wait for ever would be worse
            _log.exception("the %s feed failed", self.name)
            error = AlpacliError(f"a defect in the gateway: {type(defect).__name__}")
        if self._source is source:
            self._fail(error)

    def _fail(self, error: AlpacliError) -> None:
        clients = list(self._clients)
        self._failed = (self._clock.monotonic() + _REFUSED_FOR_S, error)
        for client in clients:
            self._remove(client, client.interests.get(self.name, Interest()))
        self.stop()
        self._state = f"failed: {error.message}"
        for client in clients:
            if client.listener is not None:
                client.listener.failed(self.name, error)

    def stop(self) -> None:
        """Leave the shared connection, which lingers by itself."""
        running, self._running, self._source = self._running, None, None
        if running is not None and running is not asyncio.current_task():
            running.cancel()
        self._live = None
        self._wanted = Interest()
        self._state = "idle"

    async def stopped(self) -> None:
        """Stop, and wait until nothing runs any more."""
        tasks = [task for task in (self._running, *self._changes) if task is not None]
        self.stop()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=2.0)

    def event(self, event: Event) -> None:
        if isinstance(event, Live):
            again = self._live is None and self._state != "connecting"
            self._live, self._state = event, "live"
            self._answer()
            if again:
                self._tell(event)
        elif isinstance(event, Refused):
            self._refuse(event)
        elif isinstance(event, Reconnecting):
            self.reconnects += 1
            self._live = None
            why = f"{event.reason}; {event.hint}" if event.hint else event.reason
            self._state = f"reconnecting in {event.wait_s:.1f} s (attempt {event.attempt}): {why}"
            self._tell(event)
        elif isinstance(event, Gap | Lagging):
            self.gaps += isinstance(event, Gap)
            self._tell(event)

    def _tell(self, event: Reconnecting | Live | Gap | Lagging) -> None:
        for client in list(self._live_clients):
            if client.listener is not None:
                client.listener.happened(self.name, event)

    def _refuse(self, event: Refused) -> None:
        self.refusals += 1
        refused = Interest(event.channels)
        about = [one for one in self._asking if one.added - refused != one.added]
        if self._source is not None:
            self._wanted -= refused
            self._change(self._source.change("unsubscribe", refused))  # the next connection must not ask again
        for one in about:  # a refused wish changes nothing: what it asked for beside is given up too
            self._remove(one.client, one.added)
            if one.client.listener is not None:
                one.client.listener.refused(self.name, event)
        self._trim()

    # ---------------------------------------------------------------------------------------------- messages

    def batch(self, batch: Batch) -> None:
        lines = batch.lines.split(b"\n")
        routes = self._routes
        for line in lines:
            second = line.find(b",", line.find(b",") + 1)
            targets = routes.get(line[:second])
            if targets is None:
                if not line:
                    continue
                targets = self._find(line, line[:second])
            for piece, kind, key, appends in targets:
                try:
                    entry = (key, piece(kind, line))
                except (ValueError, TypeError, OverflowError):  # a number or a form that this format cannot say
                    self.unsaid += 1
                    continue
                for append in appends:
                    append(entry)
        self.messages += batch.count
        self._came()

    def _find(self, line: bytes, prefix: bytes) -> tuple[_Targets, ...]:
        """Return who wants a line; remembered by its first bytes when those alone decide."""
        try:
            about = _subject.decode(line)
        except msgspec.DecodeError:
            return ()
        channel = CHANNEL_OF.get(about.type, about.type)
        places = self._wanted_by.get("trades" if channel in _COME_WITH_TRADES else channel, {})
        wanting: dict[Client, None] = {}
        for symbol in ("*", *(about.symbols if channel == "news" else (about.symbol,))):
            wanting.update(places.get(symbol, {}))
        key = prefix if about.type == "quote" else None
        by_format: dict[str, list[Client]] = {}
        for client in wanting:
            by_format.setdefault(client.form.name, []).append(client)
        targets = tuple(
            _Targets(clients[0].form.piece, about.type, key, tuple(client.entries.append for client in clients))
            for clients in by_format.values()
        )
        if prefix == b'{"type":' + msgspec.json.encode(about.type) + b',"symbol":' + msgspec.json.encode(about.symbol):
            self._routes[prefix] = targets
        return targets

    def _forget_routes(self, interest: Interest) -> None:
        if self._routes and interest:
            self._routes.clear()

    def status(self) -> FeedStatus:
        return FeedStatus(
            self.name,
            self._state,
            self._live.shared if self._live is not None else False,
            len(self._clients),
            {channel: len(places) for channel, places in sorted(self._wanted_by.items()) if places},
            self.messages,
            self.reconnects,
            self.gaps,
            self.refusals,
            self.unsaid,
        )


class Relay:
    """All feeds and all clients of a gateway. ``open_source`` opens a feed by its name."""

    def __init__(
        self,
        open_source: Callable[[str, Interest], Source],
        clock: Clock,
        *,
        flush_s: float = FLUSH_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.clients: dict[Client, None] = {}
        self.cut_off = 0
        self.sent_before = 0
        self.conflated_before = 0
        self._open_source = open_source
        self._clock = clock
        self._flush_s = flush_s
        self._patience_s = patience_s
        self._feeds: dict[str, FeedRelay] = {}
        self._flush_timer: asyncio.TimerHandle | None = None
        self._flushed_at = 0.0
        self._sweep_timer: asyncio.TimerHandle | None = None

    def join(self, client: Client) -> None:
        self.clients[client] = None
        if self._sweep_timer is None:
            self._sweep_timer = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep)

    def leave(self, client: Client) -> None:
        """Take a client away; it may have left before."""
        if self.clients.pop(client, self) is self:
            return
        self.sent_before += client.sent
        self.conflated_before += client.conflated
        client.drop()
        for name in list(client.interests):
            self.feed(name).leave(client)

    def feed(self, name: str) -> FeedRelay:
        found = self._feeds.get(name)
        if found is None:
            found = self._feeds[name] = FeedRelay(
                name, lambda interest: self._open_source(name, interest), self._clock, self._came
            )
        return found

    def cut(self, client: Client, code: int, reason: str) -> None:
        """End a client's connection."""
        client.drop()
        client.outlet.end(code, reason)
        self.leave(client)

    async def close(self) -> None:
        """Leave all feeds."""
        for timer in (self._flush_timer, self._sweep_timer):
            if timer is not None:
                timer.cancel()
        for feed in self._feeds.values():
            await feed.stopped()

    def feeds(self) -> list[FeedStatus]:
        return [feed.status() for _, feed in sorted(self._feeds.items())]

    @property
    def messages_out(self) -> int:
        return self.sent_before + sum(client.sent for client in self.clients)

    @property
    def conflated(self) -> int:
        return self.conflated_before + sum(client.conflated for client in self.clients)

    def _came(self) -> None:
        if self._flush_timer is not None:
            return
        loop = asyncio.get_running_loop()
        due_in_s = self._flushed_at + self._flush_s - loop.time()
        if due_in_s <= 0:
            self._flush()
        else:
            self._flush_timer = loop.call_later(due_in_s, self._flush)

    def _flush(self) -> None:
        self._flush_timer = None
        self._flushed_at = asyncio.get_running_loop().time()
        for client in self.clients:
            if client.entries:
                client.flush()

    def _sweep(self) -> None:
        now = self._clock.monotonic()
        for client in list(self.clients):
            reason = client.too_slow(now, self._patience_s)
            if reason:
                self.cut_off += 1
                words = client.listener.last_words() if client.listener is not None else b""
                client.drop()
                client.outlet.write(words)
                self.cut(client, TRY_AGAIN_LATER, reason)
        self._sweep_timer = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep) if self.clients else None


async def _try(change: Awaitable[None]) -> None:
    try:
        await change
    except AlpacliError:
        return  # the connection is lost: the next one asks for all that is wanted
