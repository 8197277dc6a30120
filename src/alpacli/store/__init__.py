"""What processes share: cache, single flight, request budget, breaker. It knows bytes, lifetimes and counts, not orders.

``open_store`` is the door: Redis when ``REDIS_URL`` is set, else one SQLite file in the state directory, and behind either a
store that cannot fail. Each loads only when it is used: a cached answer needs one file and nothing else.
"""

import os
from collections.abc import Callable

from alpacli.ports import Clock, Randomness, Store
from alpacli.settings import Settings

__all__ = ["FILE_NAME", "open_store"]

FILE_NAME = "store.sqlite"
"""The embedded store's file in ``Settings.state_dir``."""


def open_store(settings: Settings, clock: Clock, rng: Randomness, warn: Callable[[str], None]) -> Store:
    """Return the store that these settings name; it connects on first use and never raises ``StoreUnavailable``.

    Raises:
        ConfigError: ``REDIS_URL`` cannot be read.
    """
    from alpacli.store.resilient import ResilientStore
    from alpacli.store.sqlite import SqliteStore

    stores: list[Store] = []
    if settings.redis_url:
        from alpacli.store.redis import RedisStore

        stores.append(RedisStore(settings.redis_url.reveal()))
    stores.append(SqliteStore(os.path.join(settings.state_dir, FILE_NAME), clock))
    stores.append(SqliteStore(":memory:", clock))
    return ResilientStore(stores, clock, rng, warn)
