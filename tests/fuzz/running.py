"""How a target is tried: by a few inputs that are always the same, or by ever new ones until the time is up."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

from hypothesis import HealthCheck, Phase, given, seed, settings
from tests.fuzz.targets import Target

LONGEST_S: Final = 20
"""No input may take longer, on a busy machine too: the longest are of a few hundred kilobytes."""


_LONGEST_NOTE: Final = 1000


class Hangs(Exception):
    """A parser that does not come to an end."""


@contextmanager
def _impatiently() -> Iterator[None]:
    def ring(number: int, frame: FrameType | None) -> None:
        raise Hangs(f"after {LONGEST_S} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, LONGEST_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run_target(target: Target, folder: Path, *, examples: int, round_: int | None = None) -> None:
    """Feed a target; ``round_`` chooses other inputs each time, ``None`` the same ones always.

    Raises:
        Exception: whatever came out that is not one of our errors, with the smallest input for it.
    """

    def feed(value: Any) -> None:
        with _impatiently():
            target.feed(value, folder)

    chosen = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=round_ is None,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        print_blob=False,
        report_multiple_bugs=False,
    )
    test = chosen(given(target.inputs)(feed))
    try:
        (test if round_ is None else seed(round_)(test))()
    except BaseException as error:
        error.__notes__ = [note[:_LONGEST_NOTE] for note in getattr(error, "__notes__", ())]
        raise
