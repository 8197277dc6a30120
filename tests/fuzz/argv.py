"""Command lines, through ``cli.app.run`` in a process of its own: whatever is typed ends with a documented exit code.

The process has an empty home, an empty PATH (nothing can be started by accident), a broker that refuses connections, and the
offline exchange. What would go on for ever is interrupted as by Ctrl-C. ``findings`` starts it.
"""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Final

from hypothesis import strategies as st
from tests.fuzz.inputs import ANY_TEXT, ODD_TEXT, words_of
from tests.fuzz.running import run_target
from tests.fuzz.targets import BARS, ORDERS_CSV, RECORDING, Target

from alpacli.cli.tree import Command, Parameter, load, walk

_ENDINGS: Final = frozenset({0, 2, 3, 4, 5, 6, 7, 130})
_PATIENCE_S: Final = 1.5
_FILES: Final = ("orders.csv", "AAPL.csv", "recording.jsonl", "missing.csv", "out.parquet", "-", ".")
_VALUES: Final = {
    **dict.fromkeys(("SYMBOL", "SYMBOLS", "SYMBOL…", "A,B"), ("AAPL", "BTC/USD", "AAPL,MSFT", "AAPL260116C00200000")),
    **dict.fromkeys(("FILE", "FILE…", "FILE|-", "PATH", "DIRECTORY"), _FILES),
    **dict.fromkeys(("TIME", "DATE"), ("2026-01-05", "-16min", "2026-01-05T14:30:00Z", "now", "-1d")),
    **dict.fromkeys(
        ("PRICE", "USD", "QTY", "N", "SECONDS", "N|all", "N|max"), ("1", "10.5", "0", "-1", "all", "1e3", "2")
    ),
    "EXPR": (".", ".[]", ".x", "[", "map(", "..|numbers"),
    "ZONE": ("local", "utc", "ET", "Mars/Olympus", "Europe/Berlin"),
}
_LEFT_OUT: Final = ("--verbose", "--secret-command")
"""A traceback is what --verbose is for; a secret command is a program that is started."""


def _kept_inside(word: str) -> str:
    """Return a word that names nothing outside the folder, and no argument that a process cannot have."""
    word = word.replace("\0", "")
    return word if word == "BTC/USD" else word.lstrip("/").replace("../", "")


def _value(parameter: Parameter) -> st.SearchStrategy[str]:
    known = parameter.values or _VALUES.get(parameter.metavar) or _VALUES.get(parameter.names[0]) or ("1", "x", "AAPL")
    return st.one_of(st.sampled_from(known), st.sampled_from(known), words_of(*known)).map(_kept_inside)


@st.composite
def _command_lines(draw: st.DrawFn) -> list[str]:
    command = draw(st.sampled_from(_COMMANDS))
    words = command.name.split()
    arguments = [parameter for parameter in command.parameters if not parameter.is_option]
    options = [p for p in command.parameters if p.is_option and not set(p.names) & set(_LEFT_OUT)]
    for parameter in arguments:
        if draw(st.integers(0, 9)) < 8:
            words += [draw(_value(parameter)) for _ in range(draw(st.integers(1, 2 if parameter.repeatable else 1)))]
    for _ in range(draw(st.integers(0, 4))):
        option = draw(st.sampled_from(options)) if options else None
        if option is None:
            break
        words.append(draw(st.sampled_from(option.names)))
        if option.takes_value:
            words.append(draw(_value(option)))
    if draw(st.integers(0, 3)) == 0:
        words.insert(
            draw(st.integers(len(command.name.split()) - draw(st.integers(0, 1)), len(words))),
            _kept_inside(draw(st.one_of(ODD_TEXT, ANY_TEXT))),
        )
    known = {name for parameter in options for name in parameter.names}
    words += [
        flag
        for flag, share in (("--sim", 8), ("--json", 4), ("--yes", 4))
        if flag in known and draw(st.integers(0, 9)) < share
    ]
    return [*words, "--port", "0"] if "--port" in known else words


_COMMANDS: Final[list[Command]] = [command for command in walk(load()) if not command.commands]


def _run(words: list[str], folder: Path) -> None:
    """Run one command line; its output goes where file descriptors lead, as a program's does."""
    from alpacli.cli.app import run

    with (folder / "out").open("w+b") as out, (folder / "err").open("w+b") as err:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        callbacks, gc.callbacks[:] = gc.callbacks[:], []  # Ctrl-C in hypothesis' own is not the command's
        ended = threading.Event()
        pressing = threading.Thread(target=_press_ctrl_c, args=(ended,), daemon=True)
        pressing.start()
        try:
            code = run(words)
        except KeyboardInterrupt:
            code = 130  # pressed as it had just ended
        finally:
            ended.set()
            pressing.join()
            gc.callbacks[:] = callbacks
        sys.stdout.flush()
        sys.stderr.flush()
        err.seek(0)
        said = err.read().decode(errors="replace")
    assert code in _ENDINGS, f"exit code {code}: {said[-600:]}"
    assert "Traceback" not in said, said[-600:]
    assert "a defect in alpacli" not in said, said[-600:]


def _press_ctrl_c(ended: threading.Event) -> None:
    while not ended.wait(_PATIENCE_S):
        os.kill(os.getpid(), signal.SIGINT)


ARGV: Final = Target("command lines", _command_lines(), _run)


def _furnish(folder: Path) -> None:
    """Make this process somebody who has nothing but a folder."""
    work = folder / "work"
    for name in ("home", "state", "run", "bin", "work"):
        (folder / name).mkdir()
    for name, text in (("orders.csv", ORDERS_CSV), ("AAPL.csv", BARS), ("recording.jsonl", RECORDING)):
        (work / name).write_text(text)
    os.environ.clear()
    os.environ.update(
        HOME=str(folder / "home"),
        PATH=str(folder / "bin"),
        ALPACLI_STATE_DIR=str(folder / "state"),
        ALPACLI_HUB_LINGER="0.1",
        XDG_RUNTIME_DIR=str(folder / "run"),
        LANG="C.UTF-8",
        ALPACA_API_KEY="PKFUZZ",
        ALPACA_SECRET_KEY="fuzz",
        **dict.fromkeys(("ALPACA_BASE_URL", "ALPACA_DATA_URL"), "http://127.0.0.1:9"),
        ALPACA_STREAM_URL="ws://127.0.0.1:9",
    )
    os.chdir(work)


def main() -> int:
    """Run until a number of command lines, or the time, is over; what is found goes to standard error, and is exit 1."""
    folder, examples, seconds, seed = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
    said = os.fdopen(os.dup(2), "w")
    _furnish(folder)
    until, round_ = time.monotonic() + seconds, 0
    while True:
        try:
            run_target(ARGV, folder, examples=examples, round_=seed + round_ if seconds else None)
        except BaseException as error:  # noqa: BLE001 # a finding may be anything
            traceback.print_exception(error, file=said)
            said.flush()
            os._exit(1)  # a thread of the command may be left
        round_ += 1
        if time.monotonic() >= until:
            said.write(f"{round_ * examples} command lines\n")
            said.flush()
            os._exit(0)


def findings(folder: Path, *, examples: int, seconds: float = 0.0, seed: int = 0) -> "subprocess.CompletedProcess[str]":
    """Run command lines in a process of their own; its exit code is 0 when none was wrong, and stderr says what was."""
    command = [sys.executable, "-m", "tests.fuzz.argv", str(folder), str(examples), str(seconds), str(seed)]
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds + 100, check=False)


if __name__ == "__main__":
    raise SystemExit(main())
