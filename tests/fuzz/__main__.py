"""``make fuzz SECONDS=…``: every parser with ever new inputs until the time is up; findings are printed, and are exit 1."""

import argparse
import faulthandler
import logging
import random
import resource
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.fuzz.argv import ARGV, findings
from tests.fuzz.running import LONGEST_S, run_target
from tests.fuzz.targets import TARGETS

_MOST_MEMORY = 4 << 30
_AT_ONCE = 100


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0, help="time for all targets together")
    parser.add_argument("--seed", type=int, help="begin with this one, to see the same again")
    parser.add_argument("--only", help="targets whose name holds this")
    asked = parser.parse_args()
    resource.setrlimit(
        resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY)
    )  # unbounded memory is a finding, not a dead machine
    faulthandler.dump_traceback_later(asked.seconds + 20 * LONGEST_S, exit=True)  # a loop in C hears no signal
    logging.disable()  # what is wrong with an input is what the inputs are about
    first = random.SystemRandom().randrange(1 << 32) if asked.seed is None else asked.seed
    targets = [target for target in TARGETS if asked.only is None or asked.only in target.name]
    typed = asked.only is None or asked.only in ARGV.name
    share_s = asked.seconds / max(len(targets) + 3 * typed, 1)
    print(f"{len(targets)} parsers{' and command lines' if typed else ''}, {asked.seconds:g} s, seed {first}")
    found = 0
    with tempfile.TemporaryDirectory() as place:
        if typed:
            ended = findings(Path(place), examples=_AT_ONCE, seconds=3 * share_s, seed=first)
            found += ended.returncode != 0
            print(f"{ARGV.name}: {'FOUND' if ended.returncode else 'nothing in'} {ended.stderr.strip()}")
        for number, target in enumerate(targets):
            folder = Path(place) / str(number)
            folder.mkdir()
            until = time.monotonic() + share_s
            tried = 0
            try:
                while time.monotonic() < until or not tried:
                    run_target(target, folder, examples=_AT_ONCE, round_=first + tried)
                    tried += 1
            except BaseException as error:  # a finding may be anything; all targets have their turn
                if isinstance(error, KeyboardInterrupt):
                    raise
                found += 1
                print(f"{target.name}: FOUND with seed {first + tried}")
                traceback.print_exception(error, file=sys.stdout)
            else:
                print(f"{target.name}: {tried * _AT_ONCE} inputs, nothing")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
