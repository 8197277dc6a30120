"""What holds for every test that runs the program."""

from collections.abc import Iterator

import pytest
from tests.support.serving import Gateway
from tests.support.sim_server import SimServer
from tests.support.streaming import end_all


@pytest.fixture(autouse=True)
def _no_stream_outlives_its_test() -> Iterator[None]:
    yield
    end_all()


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimServer]:
    with SimServer(tmp_path_factory.mktemp("exchange")) as server:
        yield server


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, exchange: SimServer) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("gateway"), exchange.url, env={"ALPACLI_RATE_LIMIT": "100000"}) as running:
        yield running
