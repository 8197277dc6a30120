"""``make chaos MINUTES=…``: a bad day, its proofs, and the count of what was done; exit 1 when one of them does not hold."""

import argparse
import random
import shutil
import tempfile
import time
from pathlib import Path

from tests.chaos.conductor import Day

_SETTLED_AFTER_S = 125.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, help="the same dice again")
    parser.add_argument(
        "--keep", type=Path, help="leave all files in this new folder; those of a day that was lost are kept anyway"
    )
    parser.add_argument("--hurry", action="store_true", help="do not wait until no order can be in doubt")
    asked = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 32) if asked.seed is None else asked.seed
    print(f"{asked.minutes:g} minutes of a bad day, seed {seed}", flush=True)
    wrong = 0
    folder = asked.keep or Path(tempfile.mkdtemp(prefix="alpacli-bad-day-"))
    with Day(folder, seed) as day:
        began = time.monotonic()
        day.run(asked.minutes * 60)
        print(f"after {time.monotonic() - began:.0f} s, faults: {dict(sorted(day.faults.items()))}", flush=True)
        for proved, problem in day.proofs(settle_s=0.0 if asked.hurry else _SETTLED_AFTER_S):
            wrong += bool(problem)
            print(f"{'NO ' if problem else 'yes'} {proved}" + (f": {problem[:3000]}" if problem else ""), flush=True)
        print(f"figures: {day.figures}")
    if wrong:
        print(f"everything that was said and kept: {folder}")
    elif not asked.keep:
        shutil.rmtree(folder)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
