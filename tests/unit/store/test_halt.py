"""A halt stays until it is ended, on every machine that shares the Redis, and doubt halts."""

from pathlib import Path

import pytest

from alpacli.errors import StoreUnavailable
from alpacli.store.halt import Halt, HaltSwitch


class Shared:
    def __init__(self) -> None:
        self.notes: dict[str, bytes] = {}
        self.down = False

    def note(self, key: str) -> bytes | None:
        if self.down:
            raise StoreUnavailable("down")
        return self.notes.get(key)

    def set_note(self, key: str, value: bytes | None) -> None:
        if self.down:
            raise StoreUnavailable("down")
        if value is None:
            self.notes.pop(key, None)
        else:
            self.notes[key] = value


def switch(folder: Path, shared: Shared | None = None, warnings: list[str] | None = None) -> HaltSwitch:
    return HaltSwitch(
        str(folder / "halt"), "alpaca:{x}:~halt", shared, (warnings if warnings is not None else []).append
    )


def test_it_holds_for_the_next_process_and_ends_when_told(tmp_path: Path) -> None:
    assert switch(tmp_path).state() is None
    switch(tmp_path).set(Halt(5.0, "storm", "me"))
    assert switch(tmp_path).state() == Halt(5.0, "storm", "me")
    switch(tmp_path).clear()
    assert switch(tmp_path).state() is None


def test_it_holds_on_the_other_machine(tmp_path: Path) -> None:
    shared = Shared()
    here, there = switch(tmp_path / "a", shared), switch(tmp_path / "b", shared)
    here.set(Halt(5.0, "storm", "me"))
    assert there.state() == Halt(5.0, "storm", "me")
    there.clear()
    assert there.state() is None


def test_without_redis_it_holds_here_and_says_that_others_do_not_know(tmp_path: Path) -> None:
    shared = Shared()
    warnings: list[str] = []
    shared.down = True
    halt = switch(tmp_path, shared, warnings)
    halt.set(Halt(5.0, "storm", "me"))
    assert halt.state() is not None
    assert len(warnings) == 1


@pytest.mark.parametrize("content", [b"", b"nonsense", b'{"at": 1}'])
def test_a_damaged_record_halts(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "halt").write_bytes(content)
    assert switch(tmp_path).state() is not None
