"""The embedded store and the one in Redis, each on a clock of the test's: what they say is the same, to the second."""

from collections.abc import Callable, Iterator

import pytest
from redis import Redis
from tests.support import valkey

from alpacli.ports import Clock, Store
from alpacli.store.redis import RedisStore
from alpacli.store.sqlite import SqliteStore


@pytest.fixture(params=["embedded", "redis"])
def open_store(request: pytest.FixtureRequest) -> Iterator[Callable[[Clock], Store]]:
    """Return how to open a store that nobody has used, but for other accounts of the same Redis."""
    url = request.getfixturevalue("valkey_url") if request.param == "redis" else ""
    opened: list[Store] = []

    def open_one(clock: Clock) -> Store:
        if url:
            opened.append(RedisStore(url, connect=lambda: valkey.OnClock(Redis.from_url(url), clock)))
        else:
            opened.append(SqliteStore(":memory:", clock))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()
