"""Build the wheel with the compiled engine, and hold it against the tests of the exchange. ``make compiled`` runs it.

The wheel is unpacked in a folder of its own, which stands before the checkout on ``PYTHONPATH``: so the tests, like the
benchmark that compares the two, take alpacli from there and everything else from where it is. It is built again only when
what it is made of has changed, because that takes minutes.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
WHEELS: Final = ROOT / "dist" / "compiled"
UNPACKED: Final = ROOT / "build" / "compiled"


class Impossible(Exception):
    """There is no compiled engine to be had here; the message says why."""


def environment() -> dict[str, str]:
    """Return the environment in which alpacli is the compiled one, built where it has to be.

    Raises:
        Impossible: no C compiler, or it failed.
    """
    wheel = _wheel()
    if not UNPACKED.exists() or UNPACKED.stat().st_mtime < wheel.stat().st_mtime:
        shutil.rmtree(UNPACKED, ignore_errors=True)
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(UNPACKED)
        os.utime(UNPACKED)
    return {**os.environ, "PYTHONPATH": str(UNPACKED)}


def _wheel() -> Path:
    sources = [ROOT / "hatch_build.py", ROOT / "pyproject.toml", *(ROOT / "src").rglob("*.py")]
    newest = max(source.stat().st_mtime for source in sources)
    for wheel in WHEELS.glob("*.whl"):
        if wheel.stat().st_mtime > newest:
            return wheel
    compiler = (sysconfig.get_config_var("CC") or "cl").split()[0]
    if shutil.which(compiler) is None:
        raise Impossible(f"there is no C compiler ({compiler})")
    shutil.rmtree(WHEELS, ignore_errors=True)
    if find_spec("pip") is not None:
        words = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--wheel-dir", str(WHEELS)]
    else:
        words = ["uv", "build", "--wheel", "--python", sys.executable, "--out-dir", str(WHEELS)]
    done = subprocess.run(
        words, cwd=ROOT, env={**os.environ, "ALPACLI_COMPILED": "1"}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Impossible(f"{' '.join(words)} ended with {done.returncode}\n{(done.stdout + done.stderr)[-4000:]}")
    return next(WHEELS.glob("*.whl"))


def main() -> int:
    """Build, and run the tests of the exchange against what was built."""
    try:
        env = environment()
    except Impossible as reason:
        print(reason, file=sys.stderr)
        return 1
    where = "import alpacli.sim.engine; print(alpacli.sim.engine.__file__)"
    found = subprocess.run([sys.executable, "-c", where], env=env, capture_output=True, text=True, check=True).stdout
    print(f"tests against {found.strip()}", flush=True)
    if not Path(found.strip()).is_relative_to(UNPACKED) or found.strip().endswith(".py"):
        print("that is not compiled", file=sys.stderr)
        return 1
    tests = [sys.executable, "-m", "pytest", "-n", "auto", "--dist", "worksteal", "tests/unit/sim"]
    return subprocess.run(tests, cwd=ROOT, env=env, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
