"""Where what a page of the documents shows is tried, by a user with nothing but a key pair, on the offline exchange.

What a block is says its fence: ``bash`` runs, ``bash background`` goes on until the page is over, ``python`` is a program,
``file=NAME`` is written to that file, ``cron`` and ``tmux`` lines are run as those programs would. Only ports change.
"""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tests.support.alpacli import PROGRAM, Alpacli
from tests.support.streaming import KEYS, eventually

DEADLINE_S = 60


class Block(NamedTuple):
    language: str
    words: dict[str, str]
    text: str


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in their order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for fence, body in re.findall(r"^```(\S.*?)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        language, *words = fence.split()
        found.append(Block(language, {word.partition("=")[0]: word.partition("=")[2] for word in words}, body))
    return found


class Kitchen:
    """Where one recipe is tried: a home, a folder, the exchange behind the real settings, and what runs meanwhile."""

    def __init__(self, root: Path) -> None:
        self.user = Alpacli(root, KEYS)
        self._ports: dict[str, str] = {}
        self._running: list[subprocess.Popen[bytes]] = []
        tools = root / "bin"
        tools.mkdir()
        (tools / "alpacli").symlink_to(PROGRAM)
        said = self.user.cwd / "notified"
        (tools / "notify-send").write_text(f'#!/bin/sh\necho "$*" >> {shlex.quote(str(said))}\n', encoding="utf-8")
        (tools / "notify-send").chmod(0o755)
        runtime = root / "run"
        runtime.mkdir(mode=0o700)
        self.user.env |= {
            "PATH": f"{tools}:{self.user.env['PATH']}",
            "ALPACLI_HUB_LINGER": "0.2",
            "XDG_RUNTIME_DIR": str(runtime),
        }
        url = self.start([PROGRAM, "sim", "serve", "--port", "0", "--quiet"], answers=True)
        self.user.env |= {
            "ALPACA_BASE_URL": url,
            "ALPACA_DATA_URL": url,
            "ALPACA_STREAM_URL": url.replace("http", "ws"),
        }

    def with_free_ports(self, text: str) -> str:
        return re.sub(r"(?<=--port )[1-9]\d{3}\b|(?<=127\.0\.0\.1:)\d{4}\b", lambda found: self._port(found[0]), text)

    def _port(self, shown: str) -> str:
        if shown not in self._ports:
            with socket.create_server(("127.0.0.1", 0)) as free:
                self._ports[shown] = str(free.getsockname()[1])
        return self._ports[shown]

    def start(self, words: list[str], *, answers: bool = False) -> str:
        process = subprocess.Popen(
            words,
            env=self.user.environment(),
            cwd=self.user.cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if answers else subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._running.append(process)
        return process.stdout.readline().decode().strip() if process.stdout is not None else ""

    def python(self, *words: str) -> str:
        """Run Python, and return what it printed."""
        return self.run([sys.executable, *words])

    def run(self, words: list[str]) -> str:
        done = subprocess.run(
            words,
            env=self.user.environment(),
            cwd=self.user.cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert done.returncode == 0, f"{words[-1]}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stdout

    def cook(self, block: Block) -> None:
        text = self.with_free_ports(block.text)
        if "file" in block.words:
            (self.user.cwd / block.words["file"]).write_text(text, encoding="utf-8")
        if block.language == "bash" and "background" in block.words:
            self.start(["bash", "-ec", text])
            for port in re.findall(r"--port (\d+)", text):
                assert eventually(partial(_listens, int(port))), f"nothing listens after\n{text}"
        elif block.language == "bash":
            self.run(["bash", "-eo", "pipefail", "-c", text])
        elif block.language == "python":
            self.python("-c", text)
        elif block.language == "cron":
            for line in text.splitlines():
                self.run(["/bin/sh", "-c", line.split(None, 5)[5]])
        elif block.language == "tmux":
            for command in re.findall(r"#\((.*?)\)", text):
                self.run(["/bin/sh", "-c", command])
        else:
            assert "file" in block.words, f"nobody knows how to run {block.language}"

    def close(self) -> None:
        for process in reversed(self._running):
            os.killpg(process.pid, signal.SIGTERM)
        for process in self._running:
            try:
                process.communicate(timeout=20)
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.communicate()


def _listens(port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex(("127.0.0.1", port)) == 0
