"""What must be done before a stream tells of something is done, in its order, and holds up nothing else."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from alpacli.domain.ticks import Interest
from alpacli.errors import StreamRefused
from alpacli.streams.ahead import DoneAhead
from alpacli.streams.batch import Batch
from alpacli.streams.events import Event, Gap
from alpacli.streams.supervisor import Sink


class Feed:
    """A source that tells what it is given; an exception is raised, and ``None`` waits for ever."""

    def __init__(self, *told: bytes | Event | Exception | None) -> None:
        self._told = told
        self.called: list[str] = []

    async def run(self, sink: Sink) -> None:
        for one in self._told:
            if isinstance(one, Exception):
                raise one
            if one is None:
                await asyncio.Event().wait()
            elif isinstance(one, bytes):
                sink.batch(Batch.of_lines(one))
            else:
                sink.event(one)

    def change(self, action: Any, interest: Interest) -> Awaitable[None]:
        self.called.append(action)
        return asyncio.sleep(0)

    def pause(self) -> None:
        self.called.append("pause")

    def resume(self) -> None:
        self.called.append("resume")

    def watch_for_silence(self, stale_after_s: float) -> None:
        self.called.append(f"silence {stale_after_s:g}")


class Heard:
    """Notes what it hears, the duty's doing too; a line ``break`` breaks it."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.threads: set[int] = set()
        self.closed = 0

    def batch(self, batch: Batch) -> None:
        if batch.lines == b"break\n":
            msg = "the listener is at fault"
            raise RuntimeError(msg)
        self.heard.append(batch.lines.decode().strip())

    def event(self, event: Event) -> None:
        self.heard.append(type(event).__name__)

    def of(self, lines: bytes) -> Callable[[], None] | None:
        if b"fill" not in lines:
            return None

        def duty() -> None:
            self.threads.add(threading.get_ident())
            self.heard.append("done")

        return duty

    def close(self) -> None:
        self.closed += 1


def test_nobody_hears_of_a_fill_before_the_duty_is_done_and_nothing_is_out_of_order() -> None:
    heard = Heard()
    source = DoneAhead(Feed(b"new\n", b"fill 1\n", Gap(1, 2), b"fill 2\n", b"new\n"), heard)
    asyncio.run(source.run(heard))
    assert heard.heard == ["new", "done", "fill 1", "Gap", "done", "fill 2", "new"]
    assert threading.get_ident() not in heard.threads
    assert heard.closed == 1


def test_what_came_before_a_stream_ends_is_told_before_its_end() -> None:
    heard = Heard()
    source = DoneAhead(Feed(b"fill 1\n", b"fill 2\n", StreamRefused("no")), heard)
    with pytest.raises(StreamRefused):
        asyncio.run(source.run(heard))
    assert heard.heard == ["done", "fill 1", "done", "fill 2"]
    assert heard.closed == 1


def test_a_listener_that_fails_ends_it_as_without_a_duty() -> None:
    heard = Heard()
    with pytest.raises(RuntimeError, match="at fault"):
        asyncio.run(DoneAhead(Feed(b"break\n", None), heard).run(heard))
    with pytest.raises(RuntimeError, match="at fault"):
        asyncio.run(DoneAhead(Feed(b"break\n"), heard).run(heard))


def test_it_can_be_canceled_and_leaves_no_task() -> None:
    heard = Heard()

    async def use() -> None:
        running = asyncio.create_task(DoneAhead(Feed(b"new\n", None), heard).run(heard))
        while not heard.heard:  # noqa: ASYNC110 # what it waits for is a list
            await asyncio.sleep(0.005)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(use())
    assert heard.closed == 1


class Slow(Heard):
    """Its duty takes until ``go``; ``begun`` tells that it is under way."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go = threading.Event(), threading.Event()

    def of(self, lines: bytes) -> Callable[[], None] | None:
        def duty() -> None:
            self.begun.set()
            self.go.wait(10)
            self.heard.append("done")

        return duty

    def close(self) -> None:
        self.heard.append("closed")


@pytest.mark.parametrize("times", [1, 2])
def test_a_duty_that_is_under_way_ends_before_it_is_closed_however_often_it_is_canceled(times: int) -> None:
    heard = Slow()

    async def use() -> None:
        running = asyncio.create_task(DoneAhead(Feed(b"fill\n"), heard).run(heard))
        while not heard.begun.is_set():  # noqa: ASYNC110 # what it waits for is another thread
            await asyncio.sleep(0.005)
        for _ in range(times):
            running.cancel()
            await asyncio.sleep(0.02)
        heard.go.set()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(use())
    assert heard.heard == ["done", "closed"]


def test_a_program_whose_threads_all_wait_for_a_fill_hears_of_it() -> None:
    heard = Heard()
    told = threading.Event()

    async def use() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(2))
        waiting = [asyncio.ensure_future(asyncio.to_thread(told.wait, 10)) for _ in range(4)]
        await DoneAhead(Feed(b"fill\n"), heard).run(heard)
        told.set()
        assert await asyncio.gather(*waiting) == [True] * 4

    asyncio.run(use())
    assert heard.heard == ["done", "fill"]


def test_everything_else_is_the_sources_own() -> None:
    feed = Feed()
    source = DoneAhead(feed, Heard())
    source.pause()
    source.resume()
    source.watch_for_silence(3.0)
    asyncio.run(_awaited(source.change("subscribe", Interest({}))))
    assert feed.called == ["pause", "resume", "silence 3", "subscribe"]


async def _awaited(one: Awaitable[None]) -> None:
    await one
