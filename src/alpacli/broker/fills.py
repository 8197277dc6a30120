"""What the cache knows of an account is of before a fill, until somebody hears of that: then everybody forgets it.

An order that is sent makes the cache forget at once, but it fills later, and who reads the positions between the two keeps
them for all. So whoever is told of a fill, by an order's state or by the trading stream, has it forgotten before going on:
nobody who knows that an order has filled is given positions without it.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

from alpacli.ports import Clock
from alpacli.wire.rest import ORDERS_CHANGE

_RECENT_S: Final = 15.0
"""A fill that was longer ago when a process first hears of any is in what was read since; so much may two clocks differ."""


class Fills:
    """The fills that one process has heard of. Thread-safe: at worst something is forgotten twice."""

    def __init__(self, forget: Callable[[str], object], clock: Clock, longest_s: float) -> None:
        """``forget`` drops a name of ``ORDERS_CHANGE`` from the cache, of which nothing is kept longer than ``longest_s``."""
        self._forget = forget
        self._clock = clock
        self._recent_s = max(longest_s, 0.0) + _RECENT_S
        self._heard_any = False
        self._forgotten_ns = 0

    def heard(self, filled_ns: int) -> Callable[[], None] | None:
        """Take the latest fill that was told of, 0 for none; return what makes everybody forget, unless that was done.

        Whoever hears of it while somebody else is about to do that does it too: nobody goes on before it is done.
        """
        first, self._heard_any = not self._heard_any, True
        if first and abs(self._clock.time() - filled_ns / 1e9) >= self._recent_s:
            self._forgotten_ns = max(filled_ns, self._forgotten_ns)
        return None if filled_ns <= self._forgotten_ns else partial(self._forget_all, filled_ns)

    def _forget_all(self, filled_ns: int) -> None:
        for name in ORDERS_CHANGE:
            self._forget(name)
        self._forgotten_ns = max(filled_ns, self._forgotten_ns)
