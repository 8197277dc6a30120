"""What is remembered for a moment: fetched once however many ask, renewed beside the requests, gone after a change."""

import asyncio

from tests.support.fakes import ManualClock

from alpacli.gateway.answers import Answer, answer, matches
from alpacli.gateway.remembered import REMEMBERED_S, RENEWED_S, Key, Remembered

KEY: Key = ("/account", b"")


class Source:
    """Counts how often it is asked; answers when it is let go."""

    def __init__(self, clock: ManualClock, fresh_s: float = 60.0) -> None:
        self.asked = 0
        self.free = asyncio.Event()
        self.free.set()
        self._clock = clock
        self._fresh_s = fresh_s

    async def __call__(self) -> Answer:
        self.asked += 1
        number = self.asked
        await self.free.wait()
        return answer(b"%d" % number, self._clock.monotonic() + self._fresh_s)


def test_a_hundred_who_ask_together_cause_one_request() -> None:
    async def use() -> None:
        clock = ManualClock()
        remembered, source = Remembered(clock), Source(clock)
        source.free.clear()
        asking = [asyncio.ensure_future(remembered.answer(KEY, source)) for _ in range(100)]
        await asyncio.sleep(0)
        source.free.set()
        assert {found.body for found in await asyncio.gather(*asking)} == {b"1"}
        assert source.asked == 1

    asyncio.run(use())


def test_it_is_renewed_beside_the_requests_and_forgotten_within_a_second() -> None:
    async def use() -> None:
        clock = ManualClock()
        remembered, source = Remembered(clock), Source(clock)
        await remembered.answer(KEY, source)
        clock.advance(RENEWED_S + 0.01)
        source.free.clear()
        assert [remembered.find(KEY).body for _ in range(3)] == [b"1"] * 3  # type: ignore[union-attr] # it is there
        await asyncio.sleep(0)
        assert source.asked == 2
        clock.advance(REMEMBERED_S)
        assert remembered.find(KEY) is None
        source.free.set()
        assert (await remembered.answer(KEY, source)).body == b"2"

    asyncio.run(use())


def test_it_never_stays_longer_than_it_is_fresh() -> None:
    async def use() -> None:
        clock = ManualClock()
        remembered = Remembered(clock)
        await remembered.answer(KEY, Source(clock, fresh_s=0.1))
        clock.advance(0.11)
        assert remembered.find(KEY) is None

    asyncio.run(use())


def test_a_change_forgets_also_what_was_asked_for_before_it() -> None:
    async def use() -> None:
        clock = ManualClock()
        remembered, source = Remembered(clock), Source(clock)
        source.free.clear()
        early = asyncio.ensure_future(remembered.answer(KEY, source))
        await asyncio.sleep(0)
        remembered.forget()
        source.free.set()
        assert (await early).body == b"1"  # whoever asked before the change may be told
        assert remembered.find(KEY) is None
        assert (await remembered.answer(KEY, source)).body == b"2"

    asyncio.run(use())


def test_a_tag_matches_in_every_form_that_clients_send() -> None:
    assert matches('"a", W/"b"', '"b"')
    assert matches("*", '"b"')
    assert not matches("", '"b"')
    assert not matches('"bb"', '"b"')
