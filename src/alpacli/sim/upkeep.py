"""Looking after the exchange of a state directory: what it holds, and beginning again, whatever its file is like."""

import os
from contextlib import closing, suppress
from decimal import Decimal

from alpacli.ports import Clock
from alpacli.sim.desk import NO_STRAIN, Strain
from alpacli.sim.exchange import Exchange, SimStatus
from alpacli.sim.hours import HoursName
from alpacli.sim.state import STATE_FILE, BeyondUse, remove


def reset(
    state_dir: str,
    clock: Clock,
    *,
    seed: int | None = None,
    hours: HoursName | None = None,
    cash: Decimal | None = None,
    rate_limit: int | None = None,
    strain: Strain = NO_STRAIN,
) -> SimStatus:
    """Begin again with an empty exchange, also where the state file is damaged or of another version: it is replaced.

    Raises:
        ConfigError: it cannot be used for another reason (locked, no room, no rights); nothing was removed.
    """

    def begin_again() -> SimStatus:
        with closing(Exchange(state_dir, clock)) as exchange:
            return exchange.reset(seed=seed, hours=hours, cash=cash, rate_limit=rate_limit, strain=strain)

    try:
        return begin_again()
    except BeyondUse:
        with suppress(OSError):  # the second try says what is wrong with the directory
            remove(os.path.join(state_dir, STATE_FILE))
        return begin_again()


def status(state_dir: str, clock: Clock) -> SimStatus:
    """Tell what the exchange of a state directory holds."""
    with closing(Exchange(state_dir, clock)) as exchange:
        return exchange.status()
