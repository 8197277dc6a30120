"""Looking after the exchange of a state directory: what it holds, and beginning again, whatever its file is like."""

import os
from collections.abc import Callable
from contextlib import closing, suppress

from alpacli.ports import Clock
from alpacli.sim.exchange import Exchange, SimStatus
from alpacli.sim.state import STATE_FILE, BeyondUse, remove


def reset(state_dir: str, clock: Clock, begin: Callable[[Exchange], SimStatus] = Exchange.reset) -> SimStatus:
    """Begin again with an empty exchange, also where the state file is damaged or of another version: it is replaced.

    ``begin`` is ``Exchange.reset``, with what the new exchange is to be like.

    Raises:
        ConfigError: it cannot be used for another reason (locked, no room, no rights); nothing was removed.
    """

    def begin_again() -> SimStatus:
        with closing(Exchange(state_dir, clock)) as exchange:
            return begin(exchange)

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
