"""Answers that many clients want at the same moment: kept for a moment, and fetched once however many ask.

The shared cache stays the truth. What is remembered here is forgotten after 0.9 seconds, never stays longer than it is fresh
there, and goes at once when anything is changed through this gateway; a change made elsewhere shows within a second. Before
it is forgotten it is fetched again beside the requests, so that they do not all wait for the same thing twice a second.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from alpacli.gateway.answers import Answer
from alpacli.ports import Clock

Key = tuple[str, bytes]
"""Path and query, as they came."""
Fetch = Callable[[], Awaitable[Answer]]

RENEWED_S: Final = 0.4
REMEMBERED_S: Final = 0.9
_AT_MOST: Final = 1000


class _Kept(NamedTuple):
    answer: Answer
    renew_at: float
    until: float
    fetch: Fetch


class Remembered:
    """The answers of one gateway; used in its event loop only."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._answers: dict[Key, _Kept] = {}
        self._asking: dict[Key, asyncio.Task[Answer]] = {}
        self.served = 0

    def find(self, key: Key) -> Answer | None:
        """Return the answer when it is still remembered."""
        kept = self._answers.get(key)
        if kept is None:
            return None
        now = self._clock.monotonic()
        if now >= kept.until:
            return None
        if now >= kept.renew_at and key not in self._asking:
            self._ask(key, kept.fetch)
        self.served += 1
        return kept.answer

    async def answer(self, key: Key, fetch: Fetch) -> Answer:
        """Return what is remembered, or what is being fetched, or fetch it for everybody who asks meanwhile."""
        found = self.find(key)
        if found is not None:
            return found
        return await asyncio.shield(self._asking.get(key) or self._ask(key, fetch))

    def forget(self) -> None:
        """Forget everything, what is under way included: it may be from before the change."""
        self._answers.clear()
        self._asking.clear()

    def _ask(self, key: Key, fetch: Fetch) -> "asyncio.Task[Answer]":
        asking = asyncio.ensure_future(self._fetch(key, fetch))
        self._asking[key] = asking
        asking.add_done_callback(lambda task: self._done(key, task))
        return asking

    async def _fetch(self, key: Key, fetch: Fetch) -> Answer:
        asked_at = self._clock.monotonic()
        fetched = await fetch()
        if self._asking.get(key) is asyncio.current_task():
            if len(self._answers) >= _AT_MOST:
                self._answers.clear()
            until = min(asked_at + REMEMBERED_S, fetched.fresh_until)
            self._answers[key] = _Kept(fetched, asked_at + RENEWED_S, until, fetch)
        return fetched

    def _done(self, key: Key, task: "asyncio.Task[Answer]") -> None:
        if self._asking.get(key) is task:
            del self._asking[key]
        if not task.cancelled():
            task.exception()  # whoever waits for it meets it; looked at, so that it is not reported as forgotten
