"""What must be done before a stream tells of something is done, in its order, and holds up nothing else."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
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
