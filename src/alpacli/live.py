"""The composition root of live data: a feed becomes its source, and the process that shares one connection begins here.

A stream and its hub send no requests: they load nothing of what a client needs until a gap is filled, or the table asks what
has traded today.
"""

import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import alpacli
from alpacli.arguments import seconds, whole
from alpacli.errors import UsageError
from alpacli.ports import Socket, Store, SystemClock, SystemRandomness, run_async
from alpacli.runtime import Warn, load_here, open_async_client, warn_on_stderr
from alpacli.settings import Flags, Settings

if TYPE_CHECKING:
    from alpacli.broker.async_client import AsyncAlpacaClient
    from alpacli.domain.board import DaySoFar
    from alpacli.domain.ticks import Interest
    from alpacli.streams.client import Backfill
    from alpacli.streams.feeds import Feed
    from alpacli.streams.local import Upstream
    from alpacli.streams.supervisor import Shareable, Source, Supervisor
    from alpacli.wire.frames import Message


def open_source(
    settings: Settings,
    feed: "Feed",
    wanted: "Interest",
    *,
    hub: bool = True,
    stale_after_s: float = 30.0,
    warn: Warn = warn_on_stderr,
) -> "Source":
    """Return where the ticks of a feed come from: the connection that all processes share, or one of our own.

    ``hub=False`` and the in-process exchange have one of their own. ``warn`` is told when they are Alpaca's and orders go to
    a server on this machine. Nothing is connected yet.

    Raises:
        ConfigError: there is no key pair.
        UsageError: the in-process exchange does not have this feed.
    """
    clock = SystemClock()
    warning = settings.warning_apart("ALPACA_STREAM_URL") if feed.host != "trading" else None
    if warning is not None:
        warn(warning)
    if settings.sim:
        from alpacli.sim.sockets import PATHS
        from alpacli.streams.feeds import FEEDS

        if feed.path not in PATHS:
            known = ", ".join(name for name, other in FEEDS.items() if other.path in PATHS)
            raise UsageError(f"the offline exchange has no {feed.name} feed", f"it has {known}")
    source: Source
    if hub and not settings.sim:
        from alpacli.streams.link import HubLink

        source = HubLink(upstream(settings, feed), wanted, clock=clock, stale_after_s=stale_after_s)
    else:
        sim_dir = settings.state_dir if settings.sim else ""
        source = _supervise(upstream(settings, feed), wanted, stale_after_s, sim_dir=sim_dir)
    if feed.host != "trading":
        return source
    from alpacli.streams.ahead import DoneAhead

    return DoneAhead(source, _Forgetting(settings, warn))


class _Forgetting:
    """The duty of whoever listens to order updates: the cache forgets what it knew before a fill."""

    def __init__(self, settings: Settings, warn: Warn) -> None:
        from alpacli.broker.fills import Fills

        self._settings = settings
        self._warn = warn
        self._store: Store | None = None
        self._fills = Fills(self._forget, SystemClock(), 0.0)
        self._fills.heard(0)  # a stream tells of what happens now, not of what was

    def of(self, lines: bytes) -> "Callable[[], None] | None":
        from alpacli.wire import fills

        return self._fills.heard(fills.in_updates(lines))

    def _forget(self, name: str) -> None:
        if self._store is None:
            from alpacli.store import open_store

            self._store = open_store(self._settings, SystemClock(), SystemRandomness(), self._warn)
        self._store.drop(f"{self._settings.scope}:{name}")

    def close(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            store.close()


def start_sharing(settings: Settings, feed: "Feed") -> None:
    """Have the process that shares a feed's connection started, if there is none, while the caller loads what it needs.

    Whoever opens the source then waits for it, or starts it where this failed.

    Raises:
        ConfigError: there is no key pair.
    """
    if settings.sim:
        return
    from alpacli.streams.local import meeting, start_hub

    shared = upstream(settings, feed)

    def start() -> None:
        with suppress(OSError):
            start_hub(shared, meeting(shared))

    threading.Thread(target=start, name="alpacli hub", daemon=True).start()


def upstream(settings: Settings, feed: "Feed") -> "Upstream":
    """Return the connection that a feed needs under these settings.

    Raises:
        ConfigError: there is no key pair.
    """
    from alpacli.streams.local import Upstream

    pair = settings.require_keys()
    if feed.host == "trading":
        scheme, _, rest = settings.base_url.partition("://")
        url = f"{'wss' if scheme == 'https' else 'ws'}://{rest}{feed.path}"
    else:
        url = settings.stream_url + feed.path
    return Upstream(
        url=feed.path if settings.sim else url,
        key_id=pair.key_id,
        secret=pair.secret.reveal(),
        kind="updates" if feed.host == "trading" else "market",
        encoding=feed.encoding,
        linger_s=settings.hub_linger_s,
        timeout_s=settings.connect_timeout_s,
        redis_url="" if settings.sim or settings.redis_url is None else settings.redis_url.reveal(),
    )


def _supervise(upstream: "Upstream", wanted: "Interest", stale_after_s: float, *, sim_dir: str = "") -> "Supervisor":
    from alpacli.streams.session import MarketSession, Session, UpdatesSession
    from alpacli.streams.supervisor import Supervisor

    clock = SystemClock()

    async def dial() -> Socket:
        if sim_dir:
            from alpacli.sim.sockets import dial_local

            return await dial_local(sim_dir, clock, upstream.url, upstream.key_id, upstream.secret, upstream.encoding)
        from alpacli import __version__
        from alpacli.wire.sockets import dial as dial_websocket

        return await dial_websocket(
            upstream.url,
            headers={"Content-Type": f"application/{upstream.encoding}"} if upstream.kind == "market" else {},
            timeout_s=upstream.timeout_s,
            user_agent=f"alpacli/{__version__}",
        )

    def make_session(interest: "Interest") -> Session:
        if upstream.kind == "updates":
            return UpdatesSession(upstream.key_id, upstream.secret)
        return MarketSession(upstream.key_id, upstream.secret, interest, upstream.encoding)

    return Supervisor(dial, make_session, wanted, clock=clock, rng=SystemRandomness(), stale_after_s=stale_after_s)


async def greet(settings: Settings) -> str:
    """Open the market data stream, hear its greeting and leave without logging in; return what it said.

    Raises:
        AlpacliError: there is no such server, or it does not greet.
    """
    import asyncio

    from alpacli import __version__
    from alpacli.errors import RequestTimeout
    from alpacli.wire.sockets import dial as dial_websocket

    dialed = await dial_websocket(
        f"{settings.stream_url}/v2/iex",
        headers={},
        timeout_s=settings.connect_timeout_s,
        user_agent=f"alpacli/{__version__}",
    )
    try:
        async with asyncio.timeout(settings.connect_timeout_s):
            frame = await dialed.recv()
    except TimeoutError:
        raise RequestTimeout("the stream's server says nothing", "try again later") from None
    finally:
        await dialed.close()
    return "connected" if b"connected" in (frame if isinstance(frame, bytes) else frame.encode()) else "an odd greeting"


def _upstream_of_hub(upstream: "Upstream", wanted: "Interest") -> "Shareable":
    """Return the hub's connection: one of its own, or with Redis that of whichever machine has it."""
    if not upstream.redis_url:
        return _supervise(upstream, wanted, 30.0)
    from alpacli.store.baton import Baton
    from alpacli.streams.fleet import Fleet

    member = f"{os.uname().nodename}:{os.getpid()}:{SystemRandomness().token()}"
    return Fleet(
        lambda interest: _supervise(upstream, interest, 30.0),
        Baton(upstream.redis_url, upstream.shared_name),
        wanted,
        member=member,
        clock=SystemClock(),
    )


def open_stream(
    channels: Mapping[str, Sequence[str]],
    *,
    feed: str = "iex",
    profile: str | None = None,
    sim: bool = False,
    hub: bool = True,
    reconnect: int | None = 5,
    stale_after: float = 30.0,
    backfill: bool = False,
) -> "alpacli.Stream":
    """Prepare a stream of live data: ``open_stream({"quotes": ["AAPL"], "trades": ["AAPL", "MSFT"]})``.

    ``channels`` are Alpaca's lists: trades, quotes, bars, updatedBars, dailyBars, statuses, lulds, imbalances, orderbooks,
    news; feed ``updates`` takes none. ``hub`` shares one upstream connection with every other process of this user.
    ``reconnect`` is how many attempts in a row are made (``None``: no limit), ``stale_after`` the silence in seconds after
    which a connection is replaced; ``backfill`` fetches the trades and bars of a gap. Use it with ``async with``; nothing is
    connected yet.

    Raises:
        UsageError: no such feed, the feed has no such channel, what is no symbol, or a number that makes no sense.
        ConfigError: as ``connect``.
    """
    from alpacli.streams.client import Stream
    from alpacli.streams.feeds import check_interest, find_feed, interest_in

    stale_after = seconds("stale_after", stale_after, least=0.001)
    if reconnect is not None:
        reconnect = whole("reconnect", reconnect, "give a number of attempts, or None for any number", least=0)
    found = find_feed(feed)
    wanted = interest_in({"trade_updates": ["*"]} if found.host == "trading" else channels)
    check_interest(found, wanted)
    settings = load_here(Flags(profile, sim))
    source = open_source(settings, found, wanted, hub=hub, stale_after_s=stale_after)
    fill = open_backfill(settings, found) if backfill else None
    return Stream(source, wanted, clock=SystemClock(), reconnect=reconnect, backfill=fill)


def open_backfill(settings: Settings, feed: "Feed", *, warn: Warn = warn_on_stderr) -> "Backfill | None":
    """Return what fetches the trades and bars of a gap over REST; ``None`` for feeds that have no such history."""
    if feed.name not in ("iex", "sip", "delayed_sip", "crypto", "boats", "overnight", "test"):
        return None

    async def backfill(interest: "Interest", from_ns: int, until_ns: int) -> "Sequence[Message]":
        missed: list[dict[str, object]] = []
        client = open_async_client(settings, label="backfill", warn=warn)
        try:
            for channel in ("trades", "bars"):
                symbols = sorted(interest.channels.get(channel, frozenset()) - {"*"})
                if symbols:
                    missed += await _all_pages(client, channel, symbols, from_ns, until_ns, feed.name)
        finally:
            await client.close()
        return sorted(missed, key=lambda tick: str(tick.get("timestamp", "")))

    return backfill


async def _all_pages(
    client: "AsyncAlpacaClient", channel: str, symbols: Sequence[str], from_ns: int, until_ns: int, feed: str
) -> "list[dict[str, object]]":
    from alpacli.wire import market

    found: list[dict[str, object]] = []
    token: str | None = None
    more = True
    while more:
        call = market.between(channel, symbols, from_ns, until_ns, feed=feed, token=token)
        page = (await client.read(call, use_cache=False)).value
        found += page.ticks
        more = page.token not in (None, token)  # a server that repeats itself would never end
        token = page.token
    return found


async def fetch_days(
    settings: Settings, feed: "Feed", symbols: Sequence[str], *, warn: Warn = warn_on_stderr
) -> "Mapping[str, DaySoFar]":
    """Return what changes are measured against, and what has traded today, for the symbols of which it is known.

    Raises:
        AlpacliError: the market data could not be read.
    """
    from alpacli.wire import market

    client = open_async_client(settings, label="stream", warn=warn)
    try:
        return (await client.read(market.days(symbols, feed=feed.name), use_cache=False)).value
    finally:
        await client.close()


def serve_hub(path: str) -> None:
    """Be the process that holds the shared connection; ``path`` is the socket, standard input the instructions.

    Ends when nobody has been there for a while, when the connection is refused for good, or at once when another hub
    serves this path.
    """
    import asyncio
    import signal
    import socket
    import threading
    from contextlib import suppress

    import msgspec

    from alpacli.streams.hub import Hub
    from alpacli.streams.local import Upstream, sweep, take_lock

    instructions = Upstream(**msgspec.json.decode(sys.stdin.buffer.read()))
    sys.stdin.close()
    clock = SystemClock()
    give_up_at = clock.monotonic() + 5.0
    while take_lock(path.removesuffix(".sock") + ".lock") is None:  # the one before us may be about to end
        if clock.monotonic() > give_up_at:
            return
        clock.sleep(0.02)
    with suppress(FileNotFoundError):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    os.umask(0o177)
    listener.bind(path)
    listener.listen(512)
    threading.Thread(target=sweep, args=(os.path.dirname(path), clock.time()), daemon=True).start()

    async def serve() -> None:
        hub = Hub(lambda interest: _upstream_of_hub(instructions, interest), instructions.linger_s)
        serving = asyncio.ensure_future(hub.serve(listener))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, serving.cancel)
        try:
            await serving
        except asyncio.CancelledError:
            pass
        finally:
            with suppress(FileNotFoundError):
                os.unlink(path)

    run_async(serve())


if __name__ == "__main__":
    serve_hub(sys.argv[2])
