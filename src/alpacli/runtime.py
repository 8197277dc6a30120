"""The composition root: settings become a client with its clock, store and transport. Only here real ones are chosen.

alpaca-py loads when the first request really goes out, so that an answer from the cache never pays for it. What is live has a
composition root of its own, ``alpacli.live``.
"""

import atexit
import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import alpacli
from alpacli.errors import Unavailable, UsageError
from alpacli.forks import Turns
from alpacli.ports import (
    BudgetRules,
    Request,
    Response,
    Store,
    SystemClock,
    SystemRandomness,
    Transport,
)
from alpacli.settings import PAPER_URLS, Flags, Settings, load, on_this_machine

if TYPE_CHECKING:
    from alpacli.broker.async_client import AsyncAlpacaClient
    from alpacli.broker.client import AlpacaClient
    from alpacli.broker.desk import Desk
    from alpacli.broker.drivers import OnWait
    from alpacli.broker.flow import Pipeline
    from alpacli.broker.outcomes import Who
    from alpacli.domain.account import Account
    from alpacli.history.archive import Archive
    from alpacli.history.market import MarketData
    from alpacli.history.market_async import AsyncMarketData
    from alpacli.history.plan import Plan
    from alpacli.history.runs import ExchangeRun
    from alpacli.ports import Host
    from alpacli.store.halt import HaltSwitch
    from alpacli.store.journal import Journal
    from alpacli.wire.rest import Call

Warn = Callable[[str], None]
P = ParamSpec("P")
R = TypeVar("R")


class LazyTransport:
    """A transport that is made when the first request is sent."""

    def __init__(self, make: Callable[[], Transport]) -> None:
        self._make = make
        self._made: Transport | None = None
        self._turns = Turns()

    def send(self, request: Request, *, connect_timeout_s: float, read_timeout_s: float) -> Response:
        with self._turns:
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


def warn_on_stderr(text: str) -> None:
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


def _lifetimes_s(settings: Settings) -> Mapping[str, float]:
    """Return for how long answers are kept, where their own lifetime is not meant.

    An exchange on this machine may be of another run a moment later, with other assets and days. Asking it costs next to
    nothing, so of those nothing is kept for an hour there, but for as long as an account is.
    """
    if not on_this_machine(settings.base_url):
        return settings.cache_ttl_s
    return {"assets": 5.0, "calendar": 5.0, **settings.cache_ttl_s}


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
        cache_ttl_s=_lifetimes_s(settings),
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


def open_archive(settings: Settings) -> "Archive":
    """Open the history of the account on this machine that these keys opened last.

    Raises:
        UsageError: nothing was kept yet.
        ConfigError: the file cannot be used.
    """
    from alpacli.history.archive import Archive, history_of, path_of

    folder = os.path.join(settings.state_dir, "history")
    settings.require_keys()
    known = history_of(folder, settings.fingerprint)
    if known is None or not os.path.exists(path_of(folder, known)):
        raise UsageError(
            "there is no history of this account on this machine yet",
            "alpacli history sync brings it in; alpacli snapshot begins a record",
        )
    return Archive(path_of(folder, known))


def recorded_ns(settings: Settings) -> int | None:
    """Return what an exchange on this machine showed when its history was last added to, whatever year it lives in.

    ``None`` of everything else, whose time is this machine's. Nobody is asked.

    Raises:
        UsageError, ConfigError: as ``open_archive``.
    """
    if settings.sim or not on_this_machine(settings.base_url):
        return None
    with open_archive(settings) as archive:
        return archive.run_ns


def open_record(
    settings: Settings, account: "Account", warn: Warn = warn_on_stderr
) -> "tuple[Archive, Callable[[], int] | None]":
    """Open an account's history to add to it, with what tells the time of an exchange on this machine.

    That asks it each time, since its clock goes as it likes; ``None`` of Alpaca, and whatever else is no exchange. ``warn``
    is told when the keys open another account than before: one of another run of an exchange too.

    Raises:
        ConfigError: the file cannot be used.
        Unavailable: an exchange on this machine does not tell which run it is, now or later.
    """
    from alpacli.history.archive import Archive, history_of, name_of, path_of, point_to

    folder = os.path.join(settings.state_dir, "history")
    settings.require_keys()
    known = history_of(folder, settings.fingerprint)
    created_ns = None if account.created_at is None else account.created_at.epoch_ns
    run = exchange_run(settings, "trading")
    name = name_of(account.id, created_ns, "" if run is None else run.name)
    archive = Archive(path_of(folder, name))
    archive.know_account(account.id, account.account_number, created_ns)
    if known not in (None, name):
        warn("these keys open another account than before: its history begins anew, the old one is kept")
    point_to(folder, settings.fingerprint, name)
    if run is None:
        return archive, None
    archive.know_run(*run)

    def now_ns() -> int:
        told = exchange_run(settings, "trading")
        if told is None or told.name != run.name:
            raise Unavailable("the exchange on this machine was reset meanwhile", "try again")
        return told.at_ns

    return archive, now_ns


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
        plan=_plan(settings),
        warn=warn,
    )


def exchange_run(settings: Settings, host: "Host") -> "ExchangeRun | None":
    """Ask which run of an exchange answers at these settings' URL; ``None`` for Alpaca and whatever else is none.

    Only a server on this machine is asked. The request counts against no budget: it never goes to Alpaca.

    Raises:
        Unavailable: nothing answers, or not now.
    """
    if settings.sim or not on_this_machine(settings.data_url if host == "data" else settings.base_url):
        return None
    from alpacli.history.runs import ask

    transport = _transport(settings)
    try:
        return ask(transport, host)
    finally:
        transport.close()


def kept_folders(settings: Settings) -> list[str]:
    """Return where market history of these settings' data host is kept: the last, then what is older."""
    from alpacli.history.runs import all_kept

    return all_kept(market_folder(settings))


def market_folder(settings: Settings) -> str:
    """Return where market history from these settings' data host is kept: each host's is its own."""
    from hashlib import blake2b

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

    The in-process exchange computes its history on this machine, so nothing of it is kept. What is kept of an exchange that
    answers on this machine is kept of one run.
    """
    from alpacli.history.bar_store import BarStore
    from alpacli.history.feeds import FeedChoice
    from alpacli.history.holes import NyseDays, new_york_day
    from alpacli.history.market import MarketData
    from alpacli.history.runs import Runs

    clock = SystemClock()
    folder = market_folder(settings)
    store = BarStore(folder) if keep and not settings.sim else None
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
    place = None
    if store is not None and on_this_machine(settings.data_url):
        place = Runs(folder, clock, lambda: exchange_run(settings, "data")).place
    return MarketData(read, clock, store, FeedChoice(read, _plan(settings)), days, warn, begin=begin, place=place)


def _plan(settings: Settings) -> "Plan":
    """Return what is known of the market data plan; of the in-process exchange nothing is written down."""
    from alpacli.history.plan import Plan

    return Plan("" if settings.sim else os.path.join(market_folder(settings), f"plan-{settings.fingerprint}.json"))


def live_feed(settings: Settings, read: "Callable[[Call[Any]], Any]", symbol: str) -> str:
    """Return the feed whose latest stock prices the plan has: sip, or else iex."""
    from alpacli.history.feeds import FeedChoice

    return FeedChoice(read, _plan(settings)).live(symbol, int(SystemClock().time()) * 10**9)


def _async_market_data(settings: Settings, warn: Warn, read: Any, begin: Callable[[], None]) -> "AsyncMarketData":
    from alpacli.history.market_async import AsyncMarketData

    return AsyncMarketData(lambda sync_read: open_market_data(settings, sync_read, warn, begin=begin), read)


def open_client(
    settings: Settings, *, label: str = "library", warn: Warn = warn_on_stderr, on_wait: "OnWait | None" = None
) -> "AlpacaClient":
    """Put a sync client together.

    ``label`` is what others see in ``alpacli limits`` while this client waits; ``warn`` gets one line when the shared store
    has to be replaced; ``on_wait`` is told before every pause. A Redis that forgot the halt of this machine is told again.

    Raises:
        ConfigError: there is no key pair, or ``REDIS_URL`` makes no sense.
    """
    from alpacli.broker.client import AlpacaClient

    pipeline, transport = _parts(settings, label, warn)
    if settings.redis_url:
        open_halt(settings, warn).remind()
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
    warn: Warn = warn_on_stderr,
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
    return open_client(load_here(Flags(profile, sim, max_wait, timeout)))


def connect_async(
    profile: str | None = None,
    *,
    sim: bool = False,
    max_wait: float | None = None,
    timeout: float | None = None,
) -> "alpacli.AsyncAlpacaClient":
    """Connect for use in an event loop; see ``connect``."""
    return open_async_client(load_here(Flags(profile, sim, max_wait, timeout)))


def cached(ttl: float, *, key: str | None = None) -> "Callable[[Callable[P, R]], alpacli.CachedFunction[P, R]]":
    """Keep a function's results for ``ttl`` seconds in the cache that all processes of this account share.

    ``AlpacaClient.cached`` for a function that is older than any client, and outlives each of them; needs no key pair.

    Raises:
        ConfigError: as ``connect``.
        UsageError: as ``AlpacaClient.cached``.
    """
    from alpacli.broker.functions import FunctionCache
    from alpacli.store import open_store

    settings = load_here(Flags())
    clock, rng = SystemClock(), SystemRandomness()
    store = open_store(settings, clock, rng, warn_on_stderr)
    atexit.register(store.close)  # nobody else can: the function lives as long as the program
    return FunctionCache(store, settings.scope, clock, rng).cached(ttl, key=key)


def load_here(flags: Flags) -> Settings:
    try:
        cwd: str | None = os.getcwd()
    except FileNotFoundError:
        cwd = None  # the working directory was deleted: there is no .env to read
    return load(flags, env=os.environ, cwd=cwd)
