"""Answers that many clients want at the same moment: kept for a moment, and fetched once however many ask.

The shared cache stays the truth. What is remembered here is remembered for half a second at most, never longer than it is
fresh there, and forgotten at once when anything is changed through this gateway; so a change made elsewhere shows within a
second.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from alpacli.gateway.answers import Answer
from alpacli.ports import Clock

Key = tuple[str, bytes]
"""Path and query, as they came."""

REMEMBERED_S: Final = 0.5
_AT_MOST: Final = 1000


class Remembered:
    """The answers of one gateway; used in its event loop only."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._answers: dict[Key, tuple[Answer, float]] = {}
        self._asking: dict[Key, asyncio.Task[Answer]] = {}
        self.served = 0

    def find(self, key: Key) -> Answer | None:
        """Return the answer when it is still remembered."""
        found = self._answers.get(key)
        if found is None or self._clock.monotonic() >= found[1]:
            return None
        self.served += 1
        return found[0]

    async def answer(self, key: Key, fetch: Callable[[], Awaitable[Answer]]) -> Answer:
        """Return what is remembered, or what is being fetched, or fetch it for everybody who asks meanwhile."""
        found = self.find(key)
        if found is not None:
            return found
        asking = self._asking.get(key)
        if asking is None:
            asking = asyncio.ensure_future(self._fetch(key, fetch))
            self._asking[key] = asking
            asking.add_done_callback(lambda task: self._done(key, task))
        return await asyncio.shield(asking)

    def forget(self) -> None:
        """Forget everything, what is under way included: it may be from before the change."""
        self._answers.clear()
        self._asking.clear()

    async def _fetch(self, key: Key, fetch: Callable[[], Awaitable[Answer]]) -> Answer:
        fetched = await fetch()
        if self._asking.get(key) is asyncio.current_task():
            now = self._clock.monotonic()
            if len(self._answers) >= _AT_MOST:
                self._answers.clear()
            self._answers[key] = (fetched, min(now + REMEMBERED_S, fetched.fresh_until))
        return fetched

    def _done(self, key: Key, task: "asyncio.Task[Answer]") -> None:
        if self._asking.get(key) is task:
            del self._asking[key]
        if not task.cancelled():
            task.exception()  # whoever asked has met it; looked at, so that it is not reported as forgotten
