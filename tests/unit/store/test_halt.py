"""A halt stays until it is ended, and doubt halts. What Redis has to do with it: tests/contract/test_halt.py."""

from pathlib import Path

import pytest
from tests.support.fakes import ManualClock

from alpacli.store.halt import Halt, HaltSwitch


def switch(folder: Path) -> HaltSwitch:
    return HaltSwitch(str(folder / "halt"), "alpaca:{x}:~halt", None, ManualClock(), print)


def test_it_holds_for_the_next_process_and_ends_when_told(tmp_path: Path) -> None:
    assert switch(tmp_path).state() is None
    switch(tmp_path).set(Halt(5.0, "storm", "me"))
    assert switch(tmp_path).state() == Halt(5.0, "storm", "me")
    switch(tmp_path).clear()
    assert switch(tmp_path).state() is None


def test_a_state_directory_that_is_none_holds_no_halt(tmp_path: Path) -> None:
    """What is to be written into it, the journal first, says what is wrong."""
    (tmp_path / "state").write_text("a file")
    assert switch(tmp_path / "state").state() is None


@pytest.mark.parametrize("content", [b"", b"nonsense", b"[]", b'{"at": 1}'])
def test_a_damaged_record_halts(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "halt").write_bytes(content)
    assert switch(tmp_path).state() is not None


def test_a_second_halt_without_a_reason_leaves_the_first_one_as_it_is(tmp_path: Path) -> None:
    storm = Halt(5.0, "storm", "me")
    switch(tmp_path).set(storm)
    assert switch(tmp_path).set(Halt(9.0, "", "cron")) == storm
    assert switch(tmp_path).state() == storm
    both = Halt(5.0, "storm; then cron: flood", "me", "storm")
    assert switch(tmp_path).set(Halt(11.0, "flood", "cron")) == both
    assert switch(tmp_path).state() == both
