"""No input brings a parser down: it is taken, or refused with one of our errors. ``make fuzz`` asks for longer."""

from pathlib import Path

import pytest
from tests.fuzz.running import run_target
from tests.fuzz.targets import TARGETS, Target


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_whatever_comes_is_taken_or_refused_in_our_own_words(target: Target, tmp_path: Path) -> None:
    run_target(target, tmp_path, examples=60)
