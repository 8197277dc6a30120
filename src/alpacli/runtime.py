"""The composition root: settings become a client with its clock, store and transport. Only here real ones are chosen.

alpaca-py loads when the first request really goes out, so that an answer from the cache never pays for it; and a stream and
its hub, which send no requests, load nothing of those.
"""

import atexit
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import alpacli
from alpacli.errors import UsageError
from alpacli.ports import (
    BudgetRules,
    Request,
    Response,
    Socket,
    Store,
    SystemClock,
    SystemRandomness,
    Transport,
    run_async,
)
from alpacli.settings import Flags, Settings, load

if TYPE_CHECKING:
    from alpacli.broker.async_client import AsyncAlpacaClient
    from alpacli.broker.client import AlpacaClient
    from alpacli.broker.desk import Desk
    from alpacli.broker.drivers import OnWait
    from alpacli.broker.flow import Pipeline
    from alpacli.broker.outcomes import Who
    from alpacli.domain.account import Account
    from alpacli.domain.board import DaySoFar
    from alpacli.domain.ticks import Interest
    from alpacli.history.archive import Archive
    from alpacli.history.market import MarketData
    from alpacli.history.market_async import AsyncMarketData
    from alpacli.store.halt import HaltSwitch
    from alpacli.store.journal import Journal
    from alpacli.streams.client import Backfill
    from alpacli.streams.feeds import Feed
    from alpacli.streams.local import Upstream
    from alpacli.streams.supervisor import Shareable, Source, Supervisor
    from alpacli.wire.frames import Message
    from alpacli.wire.rest import Call

Warn = Callable[[str], None]
P = ParamSpec("P")
R = TypeVar("R")


class LazyTransport:
    """A transport that is made when the first request is sent."""

    def __init__(self, make: Callable[[], Transport]) -> None:
        self._make = make
        self._made: Transport | None = None
        self._lock = threading.Lock()

    def send(self, request: Request, *, connect_timeout_s: float, read_timeout_s: float) -> Response:
        with self._lock:
            if self._made is None:
                self._made = self._make()
        return self._made.send(request, connect_timeout_s=connect_timeout_s, read_timeout_s=read_timeout_s)

    def close(self) -> None:
        if self._made is not None:
            self._made.close()


class _TellingTransport:
    """A transport that says once, before the first question to the data host, what there is to know about that."""

    def __init__(self, inner: Transport, warning: str, warn: Warn) -> None:
        self._inner = inner
        self._warning: str | None = warning
        self._warn = warn

    def send(self, request: Request, *, connect_timeout_s: float, read_timeout_s: float) -> Response:
        if request.host == "data" and self._warning is not None:
            warning, self._warning = self._warning, None
            self._warn(warning)
        return self._inner.send(request, connect_timeout_s=connect_timeout_s, read_timeout_s=read_timeout_s)

    def close(self) -> None:
        self._inner.close()


def _warn_on_stderr(text: str) -> None:
    sys.stderr.write(f"alpacli: {text}\n")


def budget_rules(settings: Settings) -> BudgetRules:
    """Return the request budget of the account that the settings name."""
    return BudgetRules(
        scope=settings.scope,
        limit=settings.rate_limit,
        reserve=settings.rate_reserve,
        window_s=settings.rate_window_s,
        breaker_open_s=settings.breaker_open_s,
    )


def _transport(settings: Settings) -> Transport:
    clock = SystemClock()
    if settings.sim:
        from alpacli.sim.transport import SimTransport

        return SimTransport(settings.state_dir, clock)
    from alpacli.wire.alpaca import AlpacaTransport

    return AlpacaTransport(settings.require_keys(), settings.base_url, settings.data_url)


def _parts(settings: Settings, label: str, warn: Warn) -> "tuple[Pipeline, Transport]":
    from alpacli.broker.flow import Pipeline
    from alpacli.store import open_store

    settings.require_keys()
    clock, rng = SystemClock(), SystemRandomness()
    store: Store = open_store(settings, clock, rng, warn)
    pipeline = Pipeline(
        store,
        clock,
        rng,
        rules=budget_rules(settings),
        cache_ttl_s=settings.cache_ttl_s,
        max_wait_s=settings.max_wait_s,
        patience_s=settings.connect_timeout_s + settings.read_timeout_s,
        label=f"{label} (pid {os.getpid()})",
    )
    transport: Transport = LazyTransport(lambda: _transport(settings))
    warning = settings.warning_apart("ALPACA_DATA_URL")
    return pipeline, transport if warning is None else _TellingTransport(transport, warning, warn)


def open_journal(settings: Settings) -> "Journal":
    """Open the record of this account's order actions on this machine."""
    from alpacli.store.journal import Journal

    return Journal(os.path.join(settings.state_dir, "orders", f"{settings.fingerprint}.jsonl"))


def open_archive(settings: Settings, account: "Account | None" = None, *, warn: Warn = _warn_on_stderr) -> "Archive":
    """Open the history of an account on this machine; without ``account``, of the one these keys opened last.

    ``warn`` is told when the keys open another account than before.

    Raises:
        UsageError: nothing was kept yet.
        ConfigError: the file cannot be used.
    """
    from alpacli.history.archive import Archive, history_of, name_of, path_of, point_to

    folder = os.path.join(settings.state_dir, "history")
    settings.require_keys()
    known = history_of(folder, settings.fingerprint)
    if account is None:
        if known is None or not os.path.exists(path_of(folder, known)):
            raise UsageError(
                "there is no history of this account on this machine yet",
                "alpacli history sync brings it in; alpacli snapshot begins a record",
            )
        return Archive(path_of(folder, known))
    created_ns = None if account.created_at is None else account.created_at.epoch_ns
    name = name_of(account.id, created_ns)
    archive = Archive(path_of(folder, name))
    archive.know_account(account.id, account.account_number, created_ns)
    if known not in (None, name):
        warn("these keys open another account than before: its history begins anew, the old one is kept")
    point_to(folder, settings.fingerprint, name)
    return archive


def open_halt(settings: Settings, warn: Warn) -> "HaltSwitch":
    """Open the stop of this account: on this machine, and with Redis on every machine."""
    from alpacli.store.halt import HaltSwitch

    shared = None
    if settings.redis_url:
        from alpacli.store.redis import RedisStore

        shared = RedisStore(settings.redis_url.reveal())
    path = os.path.join(settings.state_dir, "orders", f"{settings.fingerprint}.halt")
    return HaltSwitch(path, f"{settings.scope}:~halt", shared, SystemClock(), warn)


def whoami(label: str) -> "Who":
    """Return who acts here, for the journal."""
    import pwd

    from alpacli.broker.outcomes import Who

    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # no name for this user number, in a container for one
        user = str(os.getuid())
    return Who(user, os.uname().nodename, os.getpid(), label)


def open_desk(settings: Settings, pipeline: "Pipeline", label: str, warn: Warn) -> "Desk":
    """Put together what orders go through."""
    from alpacli.broker.desk import Desk
    from alpacli.broker.risk import read_rules

    halt = open_halt(settings, warn)
    return Desk(
        pipeline,
        SystemClock(),
        SystemRandomness(),
        journal=open_journal(settings),
        rules=lambda: read_rules(settings.config_dir, settings.profile),
        halted=halt.state,
        who=whoami(label),
        warn=warn,
    )


def market_folder(settings: Settings) -> str:
    """Return where market history from these settings' data host is kept: each host's is its own."""
    from hashlib import blake2b

    from alpacli.settings import PAPER_URLS

    host = "alpaca"
    if settings.data_url != PAPER_URLS["data"]:
        host = f"local-{blake2b(settings.data_url.encode(), digest_size=6).hexdigest()}"
    return os.path.join(settings.state_dir, "market", host)


def open_market_data(
    settings: Settings,
    read: "Callable[[Call[Any]], Any]",
    warn: Warn,
    *,
    keep: bool = True,
    begin: Callable[[], None] = lambda: None,
) -> "MarketData":
    """Put together what reads market history, given what carries out one call; ``begin`` is ``MarketData``'s.

    The in-process exchange computes its history on this machine, so nothing of it is kept.
    """
    from alpacli.history.bar_store import BarStore
    from alpacli.history.feeds import FeedChoice
    from alpacli.history.holes import NyseDays, new_york_day
    from alpacli.history.market import MarketData
    from alpacli.settings import PAPER_URLS

    clock = SystemClock()
    folder = market_folder(settings)
    store = BarStore(folder) if keep and not settings.sim else None
    plan = "" if settings.sim else os.path.join(folder, f"plan-{settings.fingerprint}.json")
    today = new_york_day(int(clock.time()) * 10**9)

    def never_closes() -> bool:
        """Ask any exchange but Alpaca's whether it traded last Sunday: the offline one does, unless told otherwise."""
        from datetime import timedelta

        from alpacli.errors import AlpacliError
        from alpacli.wire import rest

        if settings.data_url == PAPER_URLS["data"]:
            return False
        sunday = today - timedelta(today.weekday() + 1)
        try:
            return bool(read(rest.calendar(sunday, sunday)))
        except AlpacliError:
            return False  # a host that serves market data alone

    days = NyseDays(os.path.join(settings.state_dir, "market", "nyse.json"), today, never_closes)
    return MarketData(read, clock, store, FeedChoice(read, plan), days, warn, begin=begin)


def live_feed(settings: Settings, read: "Callable[[Call[Any]], Any]", symbol: str) -> str:
    """Return the feed whose latest stock prices the plan has: sip, or else iex."""
    from alpacli.history.feeds import FeedChoice

    plan = "" if settings.sim else os.path.join(market_folder(settings), f"plan-{settings.fingerprint}.json")
    return FeedChoice(read, plan).live(symbol, int(SystemClock().time()) * 10**9)


def _async_market_data(settings: Settings, warn: Warn, read: Any, begin: Callable[[], None]) -> "AsyncMarketData":
    from alpacli.history.market_async import AsyncMarketData

    return AsyncMarketData(lambda sync_read: open_market_data(settings, sync_read, warn, begin=begin), read)


def open_client(
    settings: Settings, *, label: str = "library", warn: Warn = _warn_on_stderr, on_wait: "OnWait | None" = None
) -> "AlpacaClient":
    """Put a sync client together.

    ``label`` is what others see in ``alpacli limits`` while this client waits; ``warn`` gets one line when the shared store
    has to be replaced; ``on_wait`` is told before every pause.

    Raises:
        ConfigError: there is no key pair, or ``REDIS_URL`` makes no sense.
    """
    from alpacli.broker.client import AlpacaClient

    pipeline, transport = _parts(settings, label, warn)
    return AlpacaClient(
        pipeline,
        transport,
        clock=SystemClock(),
        connect_timeout_s=settings.connect_timeout_s,
        read_timeout_s=settings.read_timeout_s,
        on_wait=on_wait,
        open_desk=lambda: open_desk(settings, pipeline, label, warn),
        open_market_data=lambda read, begin: open_market_data(settings, read, warn, begin=begin),
    )


def open_async_client(
    settings: Settings,
    *,
    label: str = "library",
    warn: Warn = _warn_on_stderr,
    on_wait: "OnWait | None" = None,
    around: Callable[[Transport], Transport] = lambda transport: transport,
) -> "AsyncAlpacaClient":
    """Put an async client together; see ``open_client``. ``around`` may put something around its transport."""
    from alpacli.broker.async_client import AsyncAlpacaClient

    pipeline, transport = _parts(settings, label, warn)
    return AsyncAlpacaClient(
        pipeline,
        around(transport),
        connect_timeout_s=settings.connect_timeout_s,
        read_timeout_s=settings.read_timeout_s,
        on_wait=on_wait,
        open_desk=lambda: open_desk(settings, pipeline, label, warn),
        open_market_data=lambda read, begin: _async_market_data(settings, warn, read, begin),
    )


def connect(
    profile: str | None = None,
    *,
    sim: bool = False,
    max_wait: float | None = None,
    timeout: float | None = None,
) -> "alpacli.AlpacaClient":
    """Connect to the paper account that flags, environment, ``.env`` and profile file name, as ``alpacli`` itself does.

    ``sim=True`` is the offline exchange on this machine. ``max_wait`` and ``timeout`` are in seconds. Nothing is sent yet.

    Raises:
        ConfigError: no key pair, live keys, or a URL that is not the paper exchange or this machine.
    """
    return open_client(_load(Flags(profile, sim, max_wait, timeout)))


def connect_async(
    profile: str | None = None,
    *,
    sim: bool = False,
    max_wait: float | None = None,
    timeout: float | None = None,
) -> "alpacli.AsyncAlpacaClient":
    """Connect for use in an event loop; see ``connect``."""
    return open_async_client(_load(Flags(profile, sim, max_wait, timeout)))


def open_source(
    settings: Settings,
    feed: "Feed",
    wanted: "Interest",
    *,
    hub: bool = True,
    stale_after_s: float = 30.0,
    warn: Warn = _warn_on_stderr,
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
    if hub and not settings.sim:
        from alpacli.streams.link import HubLink

        return HubLink(upstream(settings, feed), wanted, clock=clock, stale_after_s=stale_after_s)
    return _supervise(
        upstream(settings, feed), wanted, stale_after_s, sim_dir=settings.state_dir if settings.sim else ""
    )


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
        UsageError: no such feed, or the feed has no such channel.
        ConfigError: as ``connect``.
    """
    from alpacli.streams.client import Stream
    from alpacli.streams.feeds import check_interest, find_feed, interest_in

    found = find_feed(feed)
    wanted = interest_in({"trade_updates": ["*"]} if found.host == "trading" else channels)
    check_interest(found, wanted)
    settings = _load(Flags(profile, sim))
    source = open_source(settings, found, wanted, hub=hub, stale_after_s=stale_after)
    fill = open_backfill(settings, found) if backfill else None
    return Stream(source, wanted, clock=SystemClock(), reconnect=reconnect, backfill=fill)


def open_backfill(settings: Settings, feed: "Feed", *, warn: Warn = _warn_on_stderr) -> "Backfill | None":
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
    settings: Settings, feed: "Feed", symbols: Sequence[str], *, warn: Warn = _warn_on_stderr
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


def cached(ttl: float, *, key: str | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Keep a function's results for ``ttl`` seconds in the cache that all processes of this account share.

    ``AlpacaClient.cached`` for a function that is older than any client, and outlives each of them; needs no key pair.

    Raises:
        ConfigError: as ``connect``.
        UsageError: from the call, when arguments or result have no JSON form.
    """
    from alpacli.broker.functions import FunctionCache
    from alpacli.store import open_store

    settings = _load(Flags())
    clock, rng = SystemClock(), SystemRandomness()
    store = open_store(settings, clock, rng, _warn_on_stderr)
    atexit.register(store.close)  # nobody else can: the function lives as long as the program
    return FunctionCache(store, settings.scope, clock, rng).cached(ttl, key=key)


def _load(flags: Flags) -> Settings:
    try:
        cwd: str | None = os.getcwd()
    except FileNotFoundError:
        cwd = None  # the working directory was deleted: there is no .env to read
    return load(flags, env=os.environ, cwd=cwd)


if __name__ == "__main__":
    serve_hub(sys.argv[2])
