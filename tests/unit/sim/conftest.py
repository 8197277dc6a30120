"""An account of its own for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.sim_account import SimAccount


@pytest.fixture
def account(tmp_path: Path) -> Iterator[SimAccount]:
    with SimAccount(tmp_path) as paper:
        yield paper
