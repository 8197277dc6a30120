"""What holds for every test that runs the program."""

from collections.abc import Iterator

import pytest
from tests.support.streaming import end_all


@pytest.fixture(autouse=True)
def _no_stream_outlives_its_test() -> Iterator[None]:
    yield
    end_all()
