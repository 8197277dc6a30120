"""No command line is a defect: whatever is typed ends with a documented exit code. ``make fuzz`` types for longer."""

from pathlib import Path

from tests.fuzz.argv import findings


def test_whatever_is_typed_ends_with_a_documented_exit_code(tmp_path: Path) -> None:
    ended = findings(tmp_path, examples=40)
    assert ended.returncode == 0, ended.stderr
