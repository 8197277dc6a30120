"""The library as a user's own programs use it: several processes, one cache."""

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
from alpacli import cached

@cached(ttl=60)
def momentum(symbol: str) -> float:
    with open("calls", "a") as log:
        log.write(symbol + "\\n")
    return 1.25

print(momentum("AAPL"), momentum("AAPL"), momentum("MSFT"))
"""


def run(tmp_path: Path, *args: str) -> tuple[str, str]:
    """Run Python for a user with an empty home and return what it prints, and what it complains of."""
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "ALPACLI_STATE_DIR": str(tmp_path / "state")}
    python = [sys.executable, *args]
    done = subprocess.run(python, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout, done.stderr


def test_a_cached_function_runs_once_for_all_processes(tmp_path: Path) -> None:
    (tmp_path / "momentum.py").write_text(PROGRAM)
    for _ in range(2):
        assert run(tmp_path, "-X", "dev", "-W", "error", "momentum.py") == ("1.25 1.25 1.25\n", "")
    assert (tmp_path / "calls").read_text() == "AAPL\nMSFT\n"


def test_a_program_reads_the_offline_exchange_through_connect(tmp_path: Path) -> None:
    program = (
        "from alpacli import connect\n"
        "with connect(sim=True) as paper:\n"
        "    print(paper.get_account().cash, paper.get_positions(), paper.get_orders(limit=None))\n"
    )
    assert run(tmp_path, "-W", "error", "-c", program) == ("100000 [] []\n", "")
