"""What is kept of an exchange on this machine belongs to one run of it, not to the address that it answers at.

An exchange has a random name from when its state is made until it is reset, and a clock that need not be this machine's. It
tells both at ``GET /sim/run``, and is asked when something kept is opened: never Alpaca, whose URL says it all. What knows no
such path (a proxy of somebody's own, a gateway before Alpaca) is one place for good. Of an address the bars of one run are
kept, the last; a file beside them names it, so that who only looks at what is kept asks nobody. (ADR 28)
"""

import json
import os
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple

from alpacli.domain.values import Timestamp
from alpacli.errors import AlpacliError, Unavailable
from alpacli.history.bar_store import BarStore
from alpacli.ports import Clock, Host, Request, Transport

RUN_PATH: Final = "/sim/run"
_RUN: Final = re.compile(r"[0-9a-f]{12}")
_POINTER: Final = "run"
_TIMEOUT_S: Final = 5.0  # it is this machine that is asked


class ExchangeRun(NamedTuple):
    """One run of an exchange, and what its clock showed when it was asked, in nanoseconds since 1970 UTC."""

    name: str
    at_ns: int


class Place(NamedTuple):
    """Where history is kept (``None``: nowhere), and the clock that says what is over."""

    store: BarStore | None
    clock: Clock


class StoppedClock:
    """The time of an exchange when it was asked; pauses and differences are the machine's. Implements ``ports.Clock``."""

    def __init__(self, real: Clock, at_ns: int) -> None:
        self._real = real
        self._at_ns = at_ns

    def time(self) -> float:
        return self._at_ns / 1_000_000_000

    def monotonic(self) -> float:
        return self._real.monotonic()

    def sleep(self, seconds: float) -> None:
        self._real.sleep(seconds)


def ask(transport: Transport, host: Host) -> ExchangeRun | None:
    """Ask what answers on this machine which run it is; ``None`` when it is no exchange of ours.

    Raises:
        Unavailable: nothing answers, or not now.
    """
    answer = transport.send(
        Request("GET", RUN_PATH, host=host), connect_timeout_s=_TIMEOUT_S, read_timeout_s=_TIMEOUT_S
    )
    if answer.status == 429 or answer.status >= 500:
        raise Unavailable(f"the server on this machine answered {answer.status}", "try again in a moment")
    return _read(answer.body) if answer.status == 200 else None


def _read(body: bytes) -> ExchangeRun | None:
    try:
        told = json.loads(body)
        name, at_ns = told["run"], Timestamp.parse(told["timestamp"]).epoch_ns
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return ExchangeRun(name, at_ns) if isinstance(name, str) and _RUN.fullmatch(name) else None


class Runs:
    """The bars that are kept of an address on this machine. Thread-safe."""

    def __init__(self, folder: str, clock: Clock, which: Callable[[], ExchangeRun | None]) -> None:
        """Take the address's folder; ``which`` is ``ask``."""
        self._folder = folder
        self._clock = clock
        self._which = which
        self._is_no_exchange = False

    def place(self) -> Place:
        """Ask which run answers, and return what is kept of that one, and its clock.

        Of what does not answer nothing is kept, because it may be another run when it does; what was kept by the address
        alone is read nevertheless.
        """
        if self._is_no_exchange:
            return Place(BarStore(self._folder), self._clock)
        try:
            run = self._which()
        except AlpacliError:
            store = BarStore(self._folder)
            return Place(store if any(True for _ in store.files()) else None, self._clock)
        if run is None:
            self._is_no_exchange = True
            return Place(BarStore(self._folder), self._clock)
        self._go_on_with(run.name)
        return Place(BarStore(_of(self._folder, run.name)), StoppedClock(self._clock, run.at_ns))

    def _go_on_with(self, run: str) -> None:
        """Note which run is the last one, and remove the bars of the one before: they can be asked of nobody again."""
        before = _last(self._folder)
        if before == run:
            return
        import shutil  # 4 ms that nobody else needs

        with suppress(OSError):  # a full disk: the bars cannot be kept either, and whoever writes them says so
            os.makedirs(self._folder, exist_ok=True)
            draft = os.path.join(self._folder, f"{_POINTER}.tmp-{os.getpid()}")
            with open(draft, "w", encoding="ascii") as file:
                file.write(run)
            os.replace(draft, os.path.join(self._folder, _POINTER))
            if before is not None:
                shutil.rmtree(_of(self._folder, before), ignore_errors=True)


def all_kept(folder: str) -> list[str]:
    """Return the folders with bars of an address: first of the run that was kept last, then the address's own.

    Where there are runs, that is of the time before they had names, and nobody reads it while an exchange answers there.
    Where there are none, it is the only one.
    """
    run = _last(folder)
    return [folder] if run is None else [_of(folder, run), folder]


def _of(folder: str, run: str) -> str:
    return f"{folder}-{run}"


def _last(folder: str) -> str | None:
    try:
        with open(os.path.join(folder, _POINTER), encoding="ascii") as file:
            found = file.read()
    except (OSError, ValueError):
        return None
    return found if _RUN.fullmatch(found) else None
