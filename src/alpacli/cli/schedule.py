"""How a command comes to run again and again: a crontab line, or a systemd timer, with the environment that both lack.

cron starts a job with next to nothing: another PATH, no working directory of yours, none of your variables. So the program
is named by its path, a ``.env`` is reached by going where it lies, and the variables that alpacli reads go into a file of
their own that only the user can read, keys among them; they are never printed and never in the crontab.
"""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Literal

from alpacli.domain.values import Model
from alpacli.errors import ConfigError, UsageError
from alpacli.settings import Settings

_READ: Final = re.compile(r"(?:ALPACA|ALPACLI|APCA)_[A-Z_]+|REDIS_URL|XDG_(?:CONFIG|STATE)_HOME")
_SERVICE: Final = """[Unit]
Description=alpacli snapshot of the account

[Service]
Type=oneshot
{environment}{directory}ExecStart={command}
"""
_TIMER: Final = """[Unit]
Description=alpacli snapshot of the account, again and again

[Timer]
OnCalendar={calendar}
AccuracySec=1s

[Install]
WantedBy=timers.target
"""


class Job(Model):
    """What was, or would be, put in place; ``environment`` names the variables that go into ``environment_file``."""

    kind: Literal["cron", "systemd"]
    where: str
    line: str | None = None
    files: dict[str, str]
    environment_file: str | None = None
    environment: tuple[str, ...] = ()
    installed: bool = False

    @property
    def shown(self) -> list[tuple[str, str]]:
        """Return what to print: the crontab line, or each file under its path."""
        if self.line is not None:
            return [("", self.line + "\n")]
        return [(path, f"# {path}\n{text}\n") for path, text in self.files.items()]


def plan(
    settings: Settings,
    words: Sequence[str],
    every_s: int,
    *,
    program: Sequence[str],
    env: Mapping[str, str],
    cwd: str,
    systemd: bool,
) -> Job:
    """Work out what to put in place; ``program`` is the words that start alpacli from anywhere.

    Raises:
        UsageError: a period that no schedule can keep.
    """
    minutes = _whole_minutes(every_s)
    values = environment_of(settings, env)
    file = os.path.join(settings.config_dir, f"snapshot-{settings.fingerprint}.env") if values else None
    directory = cwd if os.path.isfile(os.path.join(cwd, ".env")) else None
    command = shlex.join([*program, *words])
    common: dict[str, Any] = {"environment_file": file, "environment": tuple(values)}
    if systemd:
        home = env.get("XDG_CONFIG_HOME") or os.path.join(env.get("HOME", os.path.expanduser("~")), ".config")
        unit = os.path.join(home, "systemd", "user", f"alpacli-snapshot-{settings.fingerprint}")
        service = _SERVICE.format(
            environment=f"EnvironmentFile={file}\n" if file else "",
            directory=f"WorkingDirectory={directory}\n" if directory else "",
            command=command.replace("%", "%%"),
        )
        files = {unit + ".service": service, unit + ".timer": _TIMER.format(calendar=_calendar(minutes))}
        return Job(kind="systemd", where=unit + ".timer", files=files, **common)
    steps = [f"set -a; . {shlex.quote(file)}; set +a"] if file else []
    steps += [f"cd {shlex.quote(directory)}"] if directory else []
    job = " && ".join([*steps, command]).replace("%", "\\%")
    line = f"{_cron(minutes)} {job} # {_mark(settings)}"
    return Job(kind="cron", where="the crontab", line=line, files={}, **common)


def environment_of(settings: Settings, env: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that alpacli reads, secrets among them, with values that mean the same from anywhere."""
    settled = {"ALPACLI_CONFIG_DIR": settings.config_dir, "ALPACLI_STATE_DIR": settings.state_dir}
    return {name: settled.get(name, value) for name, value in sorted(env.items()) if _READ.fullmatch(name) and value}


def put_in_place(job: Job, environment: Mapping[str, str], *, path: str | None = None) -> None:
    """Write the files and tell cron or systemd; what was put in place for the same account before is replaced.

    When that fails, the files are as they were: no key lies about for a job that does not exist.

    ``environment`` is ``environment_of``'s; ``path`` is where cron's and systemd's programs are looked for (PATH).

    Raises:
        ConfigError: a file cannot be written, or cron or systemd is missing or refuses.
    """
    files = {name: (text, 0o644) for name, text in job.files.items()}
    if job.environment_file is not None:
        text = "".join(f"{name}={shlex.quote(value)}\n" for name, value in environment.items())
        files[job.environment_file] = (text, 0o600)
    before: dict[str, bytes | None] = {}
    try:
        for name, (text, mode) in files.items():
            before[name] = _content(name)
            _write(name, text.encode(), mode)
        if job.line is None:
            _call(path, "systemctl", ["--user", "daemon-reload"])
            _call(path, "systemctl", ["--user", "enable", "--now", os.path.basename(job.where)])
        else:
            _add_line(path, job.line)
    except BaseException as error:
        if job.line is None and job.where in before and before[job.where] is None:
            with suppress(ConfigError):  # it was never enabled, or there is nobody who could tell
                _call(path, "systemctl", ["--user", "disable", "--now", os.path.basename(job.where)])
        for name, content in before.items():
            _put_back(name, content, files[name][1])
        if isinstance(error, OSError):
            raise ConfigError(
                f"cannot write {error.filename}: {error.strerror}", "make the directory writable"
            ) from None
        raise


def _add_line(path: str | None, line: str) -> None:
    """Put the line into the crontab, in the place of an earlier one with its mark."""
    mark = line.rpartition(" # ")[2]
    before = _call(path, "crontab", ["-l"], fails_when_empty=True)
    kept = [other for other in before.splitlines() if not other.endswith(f"# {mark}")]
    _call(path, "crontab", ["-"], "\n".join([*kept, line]) + "\n")


def _mark(settings: Settings) -> str:
    return f"alpacli snapshot {settings.fingerprint}"


def _whole_minutes(every_s: int) -> int:
    minutes, rest = divmod(every_s, 60)
    fits = not rest and minutes and (60 % minutes == 0 or (minutes % 60 == 0 and 24 % (minutes // 60) == 0))
    if not fits:
        raise UsageError(
            f"a schedule cannot keep a period of {every_s} s",
            "take minutes that divide an hour, or hours that divide a day: 1m, 5m, 15m, 1h, 4h, 1d",
        )
    return minutes


def _cron(minutes: int) -> str:
    if minutes < 60:
        return "* * * * *" if minutes == 1 else f"*/{minutes} * * * *"
    hours = minutes // 60
    return {1: "0 * * * *", 24: "0 0 * * *"}.get(hours, f"0 */{hours} * * *")


def _calendar(minutes: int) -> str:
    if minutes < 60:
        return f"*:0/{minutes}"
    hours = minutes // 60
    return "daily" if hours == 24 else f"0/{hours}:00"


def _content(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def _put_back(path: str, content: bytes | None, mode: int) -> None:
    """Make a file what it was, as far as the machine lets it: what went wrong before is what is told."""
    with suppress(OSError):
        if content is None:
            os.unlink(path)
        else:
            _write(path, content, mode)


def _write(path: str, content: bytes, mode: int) -> None:
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    draft = f"{path}.{os.getpid()}"
    file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        with open(file, "wb") as out:
            out.write(content)
        os.replace(draft, path)  # plain text paths, as in settings
    except BaseException:
        with suppress(OSError):
            os.unlink(draft)
        raise


def _call(
    path: str | None, program: str, arguments: Sequence[str], text: str | None = None, *, fails_when_empty: bool = False
) -> str:
    found = shutil.which(program, path=path)
    other = "--systemd makes a systemd timer" if program == "crontab" else "leave --systemd away for a crontab line"
    if found is None:
        raise ConfigError(f"there is no {program} on this machine", other)
    done = subprocess.run([found, *arguments], input=text, capture_output=True, text=True, check=False)  # noqa: S603 # cron's own and systemd's own program
    if done.returncode and not (fails_when_empty and "no crontab" in done.stderr):
        raise ConfigError(f"{program} refuses: {done.stderr.strip() or done.returncode}", other)
    return done.stdout
