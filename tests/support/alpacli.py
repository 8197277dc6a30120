"""Runs the installed ``alpacli`` as a process of its own: scrubbed environment, own home and state, everything captured."""

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.support import loaded

PROGRAM = str(Path(sys.executable).parent / "alpacli")
DEADLINE_S = 60


class Ended(NamedTuple):
    """How a process ended."""

    code: int
    out: bytes
    err: bytes

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def errors(self) -> str:
        return self.err.decode()


class Alpacli:
    """A user of this machine with a home of their own under ``root``; ``env`` is added to every call."""

    def __init__(self, root: Path, env: Mapping[str, str] | None = None) -> None:
        self.home = root / "home"
        self.state = root / "state"
        self.cwd = root / "work"
        for folder in (self.home, self.cwd):
            folder.mkdir(parents=True, exist_ok=True)
        self.env = {
            "HOME": str(self.home),
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "ALPACLI_STATE_DIR": str(self.state),
            "ALPACLI_CONFIG_DIR": str(root / "config"),
            "LANG": "C.UTF-8",
            **(env or {}),
        }

    def __call__(self, *args: str, env: Mapping[str, str | None] | None = None, stdin: bytes = b"") -> Ended:
        """Run to the end; ``env`` changes the environment, ``None`` removes a name."""
        pipe = subprocess.PIPE
        with self.start(args, env, stdin=pipe, stdout=pipe, stderr=pipe) as process:
            try:
                out, errors = process.communicate(stdin, DEADLINE_S)
            except BaseException:
                process.kill()
                raise
        return Ended(process.returncode, out, errors)

    def start(
        self, args: Sequence[str], env: Mapping[str, str | None] | None = None, cwd: Path | None = None, **streams: Any
    ) -> "subprocess.Popen[Any]":
        """Start it; ``streams`` are the options of ``Popen`` that say what its streams are."""
        return loaded.start(PROGRAM, args, self.environment(env), str(cwd or self.cwd), **streams)

    def shell(self, script: str, env: Mapping[str, str | None] | None = None) -> Ended:
        """Run a shell script in which ``$ALPACLI`` is the program."""
        done = subprocess.run(
            ["/bin/sh", "-c", script.replace("$ALPACLI", shlex.quote(str(PROGRAM)))],  # the path may hold spaces
            env=self.environment(env),
            cwd=self.cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=DEADLINE_S,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def environment(self, changes: Mapping[str, str | None] | None = None) -> dict[str, str]:
        merged: dict[str, str | None] = {**self.env, **(changes or {})}
        return {name: value for name, value in merged.items() if value is not None}
