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


def test_a_cached_function_runs_once_for_all_processes(tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "ALPACLI_STATE_DIR": str(tmp_path / "state")}
    (tmp_path / "momentum.py").write_text(PROGRAM)
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "momentum.py"],
            env=env,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.stdout, done.stderr) == ("1.25 1.25 1.25\n", "")
    assert (tmp_path / "calls").read_text() == "AAPL\nMSFT\n"


def test_a_program_reads_the_offline_exchange_through_connect(tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "ALPACLI_STATE_DIR": str(tmp_path / "state")}
    program = (
        "from alpacli import connect\n"
        "with connect(sim=True) as paper:\n"
        "    print(paper.get_account().cash, paper.get_positions(), paper.get_orders(limit=None))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("100000 [] []\n", "")
