"""The composition root: settings become a client with its clock, store and transport. Only here real ones are chosen.

alpaca-py loads when the first request really goes out, so that an answer from the cache never pays for it.
"""

import os
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from alpacli.broker.flow import Pipeline
from alpacli.broker.functions import FunctionCache
from alpacli.ports import BudgetRules, Request, Response, Store, SystemClock, SystemRandomness, Transport
from alpacli.settings import Flags, Settings, load
from alpacli.store import open_store

if TYPE_CHECKING:
    from alpacli.broker.async_client import AsyncAlpacaClient
    from alpacli.broker.client import AlpacaClient, OnWait

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


def _parts(settings: Settings, label: str, warn: Warn) -> tuple[Pipeline, Transport]:
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
    return pipeline, LazyTransport(lambda: _transport(settings))


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
    )


def open_async_client(
    settings: Settings, *, label: str = "library", warn: Warn = _warn_on_stderr, on_wait: "OnWait | None" = None
) -> "AsyncAlpacaClient":
    """Put an async client together; see ``open_client``."""
    from alpacli.broker.async_client import AsyncAlpacaClient

    pipeline, transport = _parts(settings, label, warn)
    return AsyncAlpacaClient(
        pipeline,
        transport,
        connect_timeout_s=settings.connect_timeout_s,
        read_timeout_s=settings.read_timeout_s,
        on_wait=on_wait,
    )


def connect(
    profile: str | None = None,
    *,
    sim: bool = False,
    max_wait: float | None = None,
    timeout: float | None = None,
) -> "AlpacaClient":
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
) -> "AsyncAlpacaClient":
    """Connect for use in an event loop; see ``connect``."""
    return open_async_client(_load(Flags(profile, sim, max_wait, timeout)))


def cached(ttl: float, *, key: str | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Keep a function's results for ``ttl`` seconds in the cache that all processes of this account share.

    ``client.cached`` for a function that is written before any client exists; needs no key pair, and opens the store on
    the first call. See ``FunctionCache.cached``.

    Raises:
        ConfigError: as ``connect``.
    """
    settings = _load(Flags())
    clock, rng = SystemClock(), SystemRandomness()
    store = open_store(settings, clock, rng, _warn_on_stderr)
    return FunctionCache(store, settings.scope, clock, rng).cached(ttl, key=key)


def _load(flags: Flags) -> Settings:
    try:
        cwd: str | None = os.getcwd()
    except FileNotFoundError:
        cwd = None  # the working directory was deleted: there is no .env to read
    return load(flags, env=os.environ, cwd=cwd)
