"""What most tests of the broker's rules are about: a store and a clock that moves when told."""

from collections.abc import Iterator

import pytest
from tests.support.fakes import ManualClock

from alpacli.store.sqlite import SqliteStore


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(clock: ManualClock) -> Iterator[SqliteStore]:
    store = SqliteStore(":memory:", clock)
    yield store
    store.close()
