"""Each client's own allowance: so many requests a minute, all at once or spread, and as many again as the minute goes by.

It is counted here, and with Redis over all gateways. While Redis is away each gateway counts for itself, so a client gets at
most the allowance of every gateway once; nobody waits for it, and it is asked again every few seconds.
"""

from collections.abc import Callable
from typing import Final, Protocol

from alpacli.errors import BudgetExhausted, StoreUnavailable
from alpacli.ports import Clock

_REMEMBERED: Final = 10_000
_ASK_AGAIN_S: Final = 5.0


class Counts(Protocol):
    """The counts that gateways share; a ``SharedAllowance``."""

    async def spend(self, client: str, rate: int) -> float: ...

    async def close(self) -> None: ...


class Allowance:
    """What clients, by their ids, have left of ``rate`` requests a minute."""

    def __init__(self, rate: int, clock: Clock, warn: Callable[[str], None], shared: Counts | None = None) -> None:
        self._rate = rate
        self._clock = clock
        self._warn = warn
        self._shared = shared
        self._away_until = float("-inf")
        self._warned = False
        self._spent: dict[str, tuple[float, float]] = {}

    async def spend(self, client: str, name: str) -> None:
        """Count one request of a client; ``name`` is what people call it.

        Raises:
            BudgetExhausted: it has nothing left; ``retry_after`` says when it does. Others do not feel it.
        """
        now = self._clock.monotonic()
        spent, at = self._spent.get(client, (0.0, now))
        spent = max(spent - (now - at) * self._rate / 60.0, 0.0)
        self._refuse(name, (spent + 1.0 - self._rate) * 60.0 / self._rate)
        if client not in self._spent and len(self._spent) >= _REMEMBERED:
            self._spent.clear()
        self._spent[client] = (spent + 1.0, now)
        try:
            self._refuse(name, await self._ask(client))
        except BudgetExhausted:
            counted, at = self._spent.get(client, (0.0, now))
            self._spent[client] = (max(counted - 1.0, 0.0), at)  # what is refused costs nothing
            raise

    async def close(self) -> None:
        if self._shared is not None:
            await self._shared.close()

    async def _ask(self, client: str) -> float:
        if self._shared is None or self._clock.monotonic() < self._away_until:
            return 0.0
        try:
            wait_s = await self._shared.spend(client, self._rate)
        except StoreUnavailable as error:
            self._away_until = self._clock.monotonic() + _ASK_AGAIN_S
            if not self._warned:
                self._warn(f"{error.message}; each gateway counts --token-rate by itself until it does")
            self._warned = True
            return 0.0
        self._warned = False
        return wait_s

    def _refuse(self, name: str, wait_s: float) -> None:
        if wait_s > 0.0:
            raise BudgetExhausted(
                f"{name} has used its {self._rate} requests a minute",
                f"come back in {wait_s:.1f} s; other clients are not affected",
                retry_after=round(wait_s, 3),
            )
