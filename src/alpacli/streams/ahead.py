"""Something that is done before what a stream tells is passed on, without holding up the loop or changing the order."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from alpacli.domain.ticks import Interest
from alpacli.streams.batch import Batch
from alpacli.streams.events import Event
from alpacli.streams.session import Action
from alpacli.streams.supervisor import Sink, Source
from alpacli.threads import Threads


class Duty(Protocol):
    """What has to be done first."""

    def of(self, lines: bytes) -> Callable[[], None] | None:
        """Return what these lines, once they are passed on, must find done; it is done in a thread, and must not raise."""

    def close(self) -> None:
        """Let go of what it took to do that; blocks for a moment."""


class DoneAhead:
    """A ``Source`` whose listener hears nothing before the duty is done that it brings."""

    def __init__(self, source: Source, duty: Duty) -> None:
        self._source = source
        self._duty = duty

    async def run(self, sink: Sink) -> None:
        came: asyncio.Queue[Batch | Event] = asyncio.Queue()
        thread = Threads(1, "ahead")
        running = asyncio.ensure_future(self._source.run(_Queued(came)))
        passing = asyncio.ensure_future(self._pass_on(came, sink, thread))
        emptied: asyncio.Future[None] | None = None
        try:
            await asyncio.wait((running, passing), return_when=asyncio.FIRST_COMPLETED)
            if not passing.done():
                emptied = asyncio.ensure_future(came.join())
                await asyncio.wait((emptied, passing), return_when=asyncio.FIRST_COMPLETED)
            (passing if passing.done() else running).result()
        finally:
            tasks = [task for task in (running, passing, emptied) if task is not None]
            for task in tasks:
                task.cancel()
            try:
                await asyncio.gather(*tasks, return_exceptions=True)
            finally:
                thread.close()  # it does what comes later, and ends
                await thread.to_the_end(self._duty.close)

    async def _pass_on(self, came: "asyncio.Queue[Batch | Event]", sink: Sink, thread: Threads) -> None:
        while True:
            one = await came.get()
            if isinstance(one, Batch):
                duty = self._duty.of(one.lines)
                if duty is not None:
                    await thread.to_the_end(duty)
                sink.batch(one)
            else:
                sink.event(one)
            came.task_done()

    def change(self, action: Action, interest: Interest) -> Awaitable[None]:
        return self._source.change(action, interest)

    def pause(self) -> None:
        self._source.pause()

    def resume(self) -> None:
        self._source.resume()

    def watch_for_silence(self, stale_after_s: float) -> None:
        self._source.watch_for_silence(stale_after_s)


class _Queued:
    """A sink that only keeps what comes, in its order."""

    def __init__(self, came: "asyncio.Queue[Batch | Event]") -> None:
        self._came = came

    def batch(self, batch: Batch) -> None:
        self._came.put_nowait(batch)

    def event(self, event: Event) -> None:
        self._came.put_nowait(event)
