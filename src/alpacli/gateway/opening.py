"""Settings become the parts of a gateway; only here real ones are chosen."""

from collections.abc import Callable, Sequence
from typing import Final

from alpacli.broker.async_client import AsyncAlpacaClient
from alpacli.domain.orders import Order
from alpacli.domain.ticks import Interest
from alpacli.gateway.access import Access
from alpacli.gateway.allowance import Allowance
from alpacli.gateway.keeping import open_book, open_hooks, open_keys
from alpacli.gateway.parts import Limits, Parts
from alpacli.gateway.relay import Relay
from alpacli.gateway.remembered import Remembered
from alpacli.gateway.signing import Signatures
from alpacli.gateway.tally import Counted, Tally
from alpacli.gateway.tokens import Issuer, PublishedKeys, fetch_jwks
from alpacli.gateway.webhooks import Courier, Webhooks, post_with
from alpacli.live import open_source
from alpacli.ports import Clock, SystemClock, SystemRandomness
from alpacli.runtime import Warn, open_async_client, open_halt
from alpacli.settings import Settings
from alpacli.store import open_store
from alpacli.streams.feeds import find_feed
from alpacli.streams.supervisor import Source

_LATEST_ORDERS: Final = 500


def open_gateway(
    settings: Settings,
    limits: Limits,
    *,
    warn: Warn,
    issuer: Issuer | None = None,
    require_signed: bool = False,
) -> Parts:
    """Put a gateway together.

    Raises:
        ConfigError: there is no key pair, or ``REDIS_URL`` makes no sense.
    """
    clock, rng = SystemClock(), SystemRandomness()
    access = Access(
        settings.require_keys(),
        settings.fingerprint,
        open_keys(settings),
        open_book(settings, warn),
        clock,
        warn,
        published=None if issuer is None else PublishedKeys(issuer, clock, fetch_jwks),
        allowance=_allowance(settings, limits.token_rate, clock, warn),
        require_signed=require_signed,
    )
    store = open_store(settings, clock, rng, warn)

    def source(feed: str, wanted: Interest) -> Source:
        return open_source(settings, find_feed(feed), wanted, warn=warn)

    tally = Tally()
    client = open_async_client(
        settings, label="gateway", warn=warn, around=lambda transport: Counted(transport, tally, clock)
    )
    return Parts(
        settings,
        client,
        access,
        Signatures(access.keys, store, settings.scope, clock, rng),
        Remembered(clock),
        open_halt(settings, warn),
        limits,
        clock,
        rng,
        warn,
        Relay(source, clock),
        _webhooks(settings, client, warn, lambda: source("updates", Interest({"trade_updates": ["*"]}))),
        tally,
    )


def _allowance(settings: Settings, rate: int, clock: Clock, warn: Warn) -> Allowance | None:
    if not rate:
        return None
    if settings.redis_url is None:
        return Allowance(rate, clock, warn)
    from alpacli.store.allowance import SharedAllowance

    return Allowance(rate, clock, warn, SharedAllowance(settings.redis_url.reveal(), settings.scope))


def _webhooks(
    settings: Settings, client: AsyncAlpacaClient, warn: Warn, open_updates: Callable[[], Source]
) -> Webhooks:
    async def read_orders() -> Sequence[Order]:
        return await client.get_orders(status="all", limit=_LATEST_ORDERS, use_cache=False)

    clock, queue = SystemClock(), open_hooks(settings)
    courier = Courier(queue, post_with(clock), clock, SystemRandomness(), read_orders, warn)
    return Webhooks(queue, courier, open_updates, clock, warn)
