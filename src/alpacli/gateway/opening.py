"""Settings become the parts of a gateway; only here real ones are chosen, as in ``runtime``."""

from alpacli.gateway.access import Access
from alpacli.gateway.parts import Limits, Parts
from alpacli.ports import SystemClock, SystemRandomness
from alpacli.runtime import Warn, open_async_client
from alpacli.settings import Settings


def open_gateway(settings: Settings, limits: Limits, *, warn: Warn) -> Parts:
    """Put a gateway together.

    Raises:
        ConfigError: there is no key pair, or ``REDIS_URL`` makes no sense.
    """
    clock, rng = SystemClock(), SystemRandomness()
    access = Access(settings.require_keys(), clock)
    client = open_async_client(settings, label="gateway", warn=warn)
    return Parts(settings, client, access, limits, clock, rng, warn)
