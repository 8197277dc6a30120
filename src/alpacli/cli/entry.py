"""The way in. A plain read that the embedded cache can answer is printed from here; everything else is the whole program.

``alpacli account --json`` in a status line runs every second, so a hit must cost little more than starting Python: only
settings and the SQLite store load. Whatever is not understood completely, an unknown flag, a terminal, Redis, a miss, an
error, falls through to ``app``, which prints the same bytes: what the cache holds is exactly what ``--json`` prints.
"""

import gc
import os
import sys

_CACHED = {"account": 5.0, "positions": 3.0}
_kept_open: list[object] = []


def main() -> int:
    """Run ``alpacli`` and return its exit code."""
    try:
        return _main()
    except KeyboardInterrupt:
        return 130  # pressed while the program was still loading; later, ``app`` answers


def _main() -> int:
    gc.disable()  # starting makes no garbage worth looking for; the whole program turns it on when it has loaded
    _open_closed_descriptors()
    args = sys.argv[1:]
    if args[:1] == ["__complete"]:
        from alpacli.cli.completion import answer as offers

        _write(offers(args[1:]).encode("utf-8", "surrogateescape"))
        os._exit(0)  # taking the interpreter apart would only cost time
    answer = _cached_answer(args)
    if answer is not None and _write(answer + b"\n"):
        os._exit(0)  # the hit is counted and the answer flushed
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # looking for plugins costs 10 ms; we use none
    from alpacli.cli.app import run
    from alpacli.cli.failures import INTERRUPTED, Stops, wind_up
    from alpacli.ports import SystemClock

    stops = Stops(SystemClock())
    stops.listen()
    try:
        return stops.exit_code(run(args))
    except KeyboardInterrupt:
        return stops.exit_code(INTERRUPTED)  # just before or after what ``run`` answers
    finally:
        wind_up()
        gc.freeze()  # else Python looks through all that has loaded, several times, before it lets go of it


def _open_closed_descriptors() -> None:
    """Give descriptors 0 to 2 to /dev/null where the shell closed them (``>&-``).

    Else the next file that opens, the store for one, would become standard output, and Python has no stream there.
    """
    for number, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            mode = os.O_RDONLY if number == 0 else os.O_WRONLY
            taken = os.open(os.devnull, mode)
            if taken != number:
                os.dup2(taken, number)
                os.close(taken)
            setattr(sys, name, open(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))  # noqa: SIM115 # a standard stream lives as long as the process


def _cached_answer(args: list[str]) -> bytes | None:
    """Return the cached JSON when these arguments ask for nothing else; ``None`` means: ask the whole program."""
    names = [arg for arg in args if arg in _CACHED]
    if len(names) != 1 or "--json" not in args or os.isatty(1):
        return None
    sim, max_age = False, None
    rest = iter(args)
    for arg in rest:
        if arg == "--max-age":
            text = next(rest, "")
            if not text.isascii() or not text.isdecimal():
                return None
            max_age = float(text)
        elif arg == "--sim":
            sim = True
        elif arg not in ("--json", "--quiet", *_CACHED):
            return None
    try:
        return _look_up(names[0], max_age, sim=sim)
    except Exception:  # noqa: BLE001 # whatever is wrong, the whole program meets it again and reports it properly
        return None


def _look_up(name: str, max_age: float | None, *, sim: bool) -> bytes | None:
    from alpacli.settings import Flags, load

    settings = load(Flags(sim=sim), env=os.environ, cwd=os.getcwd())
    if settings.redis_url or settings.key_pair is None:
        return None
    lifetime = settings.cache_ttl_s.get(name, _CACHED[name]) if max_age is None else max_age
    path = os.path.join(settings.state_dir, "store.sqlite")
    if lifetime <= 0 or not os.path.isfile(path):
        return None
    from alpacli.ports import SystemClock
    from alpacli.store.sqlite import SqliteStore

    # Closed only after a miss: the last process to close makes SQLite write everything to the file and sync it, four times
    # what the answer costs. Leaving is safe, as after a kill: the next one to open finds it all in the log.
    store = SqliteStore(path, SystemClock())
    entry = store.get(f"{settings.scope}:{name}", lifetime, count_miss=False)
    if entry is None:
        store.close()
        return None
    _kept_open.append(store)
    return entry.value


def _write(answer: bytes) -> bool:
    """Print the answer; false when nothing of it went out and the whole program should say why."""
    try:
        sys.stdout.buffer.write(answer)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader left: what is still buffered goes nowhere, quietly
    except OSError:
        return False
    return True
