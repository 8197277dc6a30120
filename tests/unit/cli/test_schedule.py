"""A job runs where there is nothing of the user's environment, and no key is ever printed."""

import os
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from alpacli.cli import schedule
from alpacli.cli.schedule import Job
from alpacli.errors import ConfigError, UsageError
from alpacli.settings import Settings, load

KEYS = {"ALPACA_API_KEY": "PKSECRET", "ALPACA_SECRET_KEY": "it's a $ecret"}
WORDS = ["snapshot", "--quiet", "--every", "5m"]


def _settings(folder: Path, env: Mapping[str, str]) -> Settings:
    return load(env={"HOME": str(folder), **env}, cwd=str(folder))


def _plan(folder: Path, every_s: int = 300, env: Mapping[str, str] = KEYS, *, systemd: bool = False) -> Job:
    settings = _settings(folder, env)
    env = {"HOME": str(folder), **env}
    program = "/opt/100% mine/alpacli"
    return schedule.plan(settings, WORDS, every_s, program=[program], env=env, cwd=str(folder), systemd=systemd)


@pytest.mark.parametrize(
    ("every_s", "cron", "calendar"),
    [
        (60, "* * * * *", "*:0/1"),
        (300, "*/5 * * * *", "*:0/5"),
        (3600, "0 * * * *", "0/1:00"),
        (14_400, "0 */4 * * *", "0/4:00"),
        (86_400, "0 0 * * *", "daily"),
    ],
)
def test_a_period_becomes_a_schedule(tmp_path: Path, every_s: int, cron: str, calendar: str) -> None:
    assert (_plan(tmp_path, every_s).line or "").startswith(cron + " ")
    timer = _plan(tmp_path, every_s, systemd=True).files
    assert any(f"OnCalendar={calendar}\n" in text for text in timer.values())


@pytest.mark.parametrize("every_s", [30, 90, 420, 2700, 18_000, 172_800])
def test_a_period_that_no_schedule_keeps_is_refused(tmp_path: Path, every_s: int) -> None:
    with pytest.raises(UsageError, match="cannot keep"):
        _plan(tmp_path, every_s)


def test_no_key_is_in_what_is_printed(tmp_path: Path) -> None:
    for systemd in (False, True):
        plan = _plan(tmp_path, systemd=systemd)
        assert plan.environment == ("ALPACA_API_KEY", "ALPACA_SECRET_KEY")
        assert "PKSECRET" not in repr(plan)
        assert "ecret" not in repr(plan).replace("ALPACA_SECRET_KEY", "")


def test_a_line_with_a_space_a_percent_and_keys_runs_under_a_shell_without_environment(tmp_path: Path) -> None:
    program = tmp_path / "100% mine" / "alpacli"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "$@" "$ALPACA_API_KEY" "$ALPACA_SECRET_KEY" "$PWD" "$ALPACLI_STATE_DIR"\n')
    program.chmod(0o755)
    (tmp_path / ".env").write_text("ALPACLI_RATE_LIMIT=100\n")
    env = {"HOME": str(tmp_path), **KEYS, "ALPACLI_STATE_DIR": "state"}
    settings = _settings(tmp_path, env)
    plan = schedule.plan(settings, WORDS, 300, program=[str(program)], env=env, cwd=str(tmp_path), systemd=False)
    environment = schedule.environment_of(settings, env)
    assert plan.line is not None
    fake = _crontab(tmp_path, "")
    schedule.put_in_place(plan, environment, path=str(fake.parent))
    job = (tmp_path / "crontab.txt").read_text().strip().split(" ", 5)[5].partition(" # ")[0].replace("\\%", "%")
    done = subprocess.run(["/bin/sh", "-c", job], env={}, cwd="/", capture_output=True, text=True, check=True)
    said = f"snapshot --quiet --every 5m PKSECRET it's a $ecret {tmp_path} {tmp_path / 'state'}\n"
    assert done.stdout == said
    mode = stat.S_IMODE(os.stat(plan.environment_file or "").st_mode)
    assert mode == 0o600


def _crontab(folder: Path, before: str) -> Path:
    """Make a crontab program that keeps its table in a file."""
    table = folder / "crontab.txt"
    if before:
        table.write_text(before)
    program = folder / "bin" / "crontab"
    program.parent.mkdir(exist_ok=True)
    program.write_text(
        f"#!/bin/sh\nPATH=/usr/bin:/bin\n"
        f'if [ "$1" = -l ]; then [ -f "{table}" ] || {{ echo "no crontab for you" >&2; exit 1; }}; cat "{table}"\n'
        f'else cat > "{table}"; fi\n'
    )
    program.chmod(0o755)
    return program


def test_what_was_in_the_crontab_stays_and_our_own_line_is_replaced(tmp_path: Path) -> None:
    fake = _crontab(tmp_path, "0 1 * * * backup\n")
    env = schedule.environment_of(_settings(tmp_path, KEYS), KEYS)
    for every_s in (300, 600):
        schedule.put_in_place(_plan(tmp_path, every_s), env, path=str(fake.parent))
    lines = (tmp_path / "crontab.txt").read_text().splitlines()
    assert lines[0] == "0 1 * * * backup"
    assert [line.split()[0] for line in lines[1:]] == ["*/10"]


def test_a_machine_without_cron_is_told_of_the_other_way(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no crontab") as caught:
        schedule.put_in_place(_plan(tmp_path), {}, path=str(tmp_path))
    assert "--systemd" in caught.value.hint


def test_a_crontab_that_refuses_is_told(tmp_path: Path) -> None:
    fake = _crontab(tmp_path, "")
    fake.write_text("#!/bin/sh\necho 'you are not allowed to use this program' >&2\nexit 1\n")
    with pytest.raises(ConfigError, match="not allowed"):
        schedule.put_in_place(_plan(tmp_path), {}, path=str(fake.parent))


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.parent.name != "bin"}


def _systemctl(folder: Path, refused: str) -> Path:
    """Make a systemctl program that refuses one of its commands."""
    program = folder / "bin" / "systemctl"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\n[ "$2" != {refused} ] || {{ echo "Failed to connect to bus: No medium found" >&2; exit 1; }}\n'
    )
    program.chmod(0o755)
    return program


@pytest.mark.parametrize("refused", ["daemon-reload", "enable"])
def test_what_cannot_be_put_in_place_leaves_no_key_and_no_unit_behind(tmp_path: Path, refused: str) -> None:
    env = schedule.environment_of(_settings(tmp_path, KEYS), KEYS)
    with pytest.raises(ConfigError, match="no crontab"):
        schedule.put_in_place(_plan(tmp_path), env, path=str(tmp_path))
    assert _files(tmp_path) == {}
    systemctl = _systemctl(tmp_path, refused)
    with pytest.raises(ConfigError, match="Failed to connect to bus"):
        schedule.put_in_place(_plan(tmp_path, systemd=True), env, path=str(systemctl.parent))
    assert _files(tmp_path) == {}


def test_a_second_try_that_fails_leaves_the_first_one_as_it_is(tmp_path: Path) -> None:
    settings = _settings(tmp_path, KEYS)
    fake = _crontab(tmp_path, "")
    schedule.put_in_place(_plan(tmp_path), schedule.environment_of(settings, KEYS), path=str(fake.parent))
    before = _files(tmp_path)
    assert any(b"PKSECRET" in content for content in before.values())
    fake.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(ConfigError, match="refuses"):
        schedule.put_in_place(_plan(tmp_path, 600), {**KEYS, "ALPACLI_RATE_LIMIT": "9"}, path=str(fake.parent))
    assert _files(tmp_path) == before
    assert [stat.S_IMODE(Path(path).stat().st_mode) for path in before if path.endswith(".env")] == [0o600]
