"""What holds for every test."""

import gc
import os
import signal
from collections.abc import Generator, Iterator

import pytest
from hypothesis import HealthCheck, settings
from tests.support.examples import examples

# How fast inputs are made says something about a busy machine, not about the product.
settings.register_profile(
    "busy machines", deadline=None, max_examples=examples(30), suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("busy machines")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return how many workers ``-n auto`` means: more than processors, because many tests wait for real servers.

    On two processors four workers take 320 s, and six 276 s; five leave some room to what waits for a deadline.
    """
    return max(4, 5 * (os.cpu_count() or 1) // 2)


def pytest_configure() -> None:
    """Have Ctrl-C and a hangup mean what they mean to a person, also in the background and under ``nohup``."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long: begun last, it would keep one worker busy while the others have nothing left."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Spare every collection of garbage what all test files make when they load: it stays to the end.

    What libraries load later is looked through with the rest; so that is done less often than Python does it.
    """
    gc.disable()
    collected = yield
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    gc.enable()
    return collected


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return where a server is for all who take keys of their own."""
    from tests.support import valkey

    with valkey.server(tmp_path_factory.mktemp("valkey")) as server:
        yield server.url
