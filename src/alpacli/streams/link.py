"""A member's side of the hub: finds it, starts it when there is none, and finds another one when it is gone or stands still.

A hub gives signs of life when there is nothing to tell. Their absence is counted in looks and not by a clock: when this very
process was stopped, or the machine slept, that was not the hub's silence.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from alpacli.domain.ticks import Interest
from alpacli.errors import AlpacliError, StreamLost
from alpacli.ports import Clock, async_sleep
from alpacli.streams.batch import Batch
from alpacli.streams.events import Connecting, Gap, Live, Reconnecting
from alpacli.streams.local import (
    BEAT,
    HEADER_BYTES,
    LINES,
    VERSION,
    Meeting,
    Upstream,
    end_hub,
    meeting,
    start_hub,
    unpack_event,
)
from alpacli.streams.session import Action
from alpacli.streams.supervisor import FIRST_PAUSE_S, HEALTHY_S, LONGEST_PAUSE_S, Sink

_MEET_S: Final = 10.0
_LOOK_AGAIN_S: Final = 0.02
_STARTING_S: Final = 0.005
_MOST_SILENT_HUBS: Final = 20
_LOOKS: Final = 8
_LEAST_PATIENCE_S: Final = 1.0
_FIRST_SIGN_S: Final = (5.0, 10.0)
"""A hub that we have just found is given at least and at most so long: it may still be starting."""


class _Wire(asyncio.Protocol):
    """Bytes of the hub's socket to batches and events."""

    def __init__(self, link: "HubLink", sink: Sink) -> None:
        self.over: asyncio.Future[AlpacliError | None] = asyncio.get_running_loop().create_future()
        self.heard_anything = False
        self.beats = False
        self.silent_s = 0.0
        self._link = link
        self._sink = sink
        self._unread = bytearray()

    def data_received(self, data: bytes) -> None:
        self.beats, self.silent_s = True, 0.0
        unread = self._unread
        unread += data
        start = 0
        while len(unread) - start >= HEADER_BYTES:
            end = start + HEADER_BYTES + int.from_bytes(unread[start : start + 4], "big")
            if len(unread) < end:
                break
            content = bytes(unread[start + HEADER_BYTES : end])
            kind = unread[start + 4]
            if kind == LINES:
                self.heard_anything = True
                self._link.heard()
                self._sink.batch(Batch.of_lines(content))
            elif kind == BEAT:
                self._link.heard()
            else:
                self.heard_anything = True
                self._happened(content)
            start = end
        del unread[:start]

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.over.done():
            self.over.set_result(None)

    def _happened(self, content: bytes) -> None:
        event = unpack_event(content)
        if isinstance(event, AlpacliError):
            if not self.over.done():
                self.over.set_result(event)
        elif event is not None:
            self._sink.event(event)
            if isinstance(event, Live):
                self._link.went_live(self._sink)


class HubLink:
    """A ``Source``: the shared connection, seen from one of the processes that share it.

    Raises (the constructor):
        OSError: there is no directory in which a private socket could be.
    """

    def __init__(
        self,
        upstream: Upstream,
        wanted: Interest,
        *,
        clock: Clock,
        stale_after_s: float = 30.0,
        sleep: Callable[[float], Awaitable[None]] = async_sleep,
    ) -> None:
        self.wanted = wanted
        self._upstream = upstream
        self._place: Meeting = meeting(upstream)
        self._clock = clock
        self._sleep = sleep
        self._stale_after_s = stale_after_s
        self._transport: asyncio.Transport | None = None
        self._paused = False
        self._heard_ns = 0
        self._lost_ns: int | None = None
        self._live_at: float | None = None

    async def run(self, sink: Sink) -> None:
        sink.event(Connecting("connecting"))
        attempt = silent = 0
        while True:
            wire = await self._meet(sink)
            watching = asyncio.ensure_future(self._watch(wire))
            try:
                failed = await wire.over
            finally:
                watching.cancel()
                if self._transport is not None:
                    self._transport.abort()
                    self._transport = None
            if failed is not None:
                raise failed
            stood_still_s = watching.result() if watching.done() and not watching.cancelled() else None
            if stood_still_s is None and not wire.heard_anything and silent < _MOST_SILENT_HUBS:
                silent += 1  # it was about to end when we came: nothing is lost, and the next one is met at once
                await self._sleep(_LOOK_AGAIN_S)
                continue
            if self._live_at is not None:
                if self._lost_ns is None:
                    self._lost_ns = self._heard_ns
                if self._clock.monotonic() - self._live_at >= HEALTHY_S:
                    attempt = 0
            self._live_at, silent = None, 0
            attempt += 1
            wait_s = 0.0 if attempt == 1 else min(FIRST_PAUSE_S * 2.0 ** min(attempt - 2, 10), LONGEST_PAUSE_S)
            what = "ended" if stood_still_s is None else f"gave no sign of life for {stood_still_s:.0f} s"
            sink.event(Reconnecting(attempt, wait_s, f"the process that held the shared connection {what}"))
            await self._sleep(wait_s)

    async def _watch(self, wire: _Wire) -> float:
        """Return when the hub has stood still for too long, how long that was, and that hub has been ended."""
        while True:
            step_s = min(self._stale_after_s / _LOOKS, 1.0)
            await async_sleep(step_s)
            if self._paused:
                wire.silent_s = 0.0
                continue
            wire.silent_s += step_s
            patience_s = max(self._stale_after_s, _LEAST_PATIENCE_S)
            if not wire.beats:
                patience_s = min(max(patience_s, _FIRST_SIGN_S[0]), _FIRST_SIGN_S[1])
            if wire.silent_s + step_s > patience_s and self._transport is not None:
                end_hub(self._transport.get_extra_info("socket"))
                self._transport.abort()
                return wire.silent_s

    async def change(self, action: Action, interest: Interest) -> None:
        self.wanted = self.wanted | interest if action == "subscribe" else self.wanted - interest
        self._say({"do": action, "interest": interest.as_dict()})

    def pause(self) -> None:
        self._paused = True
        if self._transport is not None and self._transport.is_reading():
            self._transport.pause_reading()

    def resume(self) -> None:
        self._paused = False
        if self._transport is not None and not self._transport.is_reading():
            self._transport.resume_reading()

    def watch_for_silence(self, stale_after_s: float) -> None:
        self._stale_after_s = stale_after_s

    # ------------------------------------------------------------------------------------------ for the wire

    def heard(self) -> None:
        self._heard_ns = self._now_ns()

    def went_live(self, sink: Sink) -> None:
        if self._live_at is None:
            self._live_at = self._clock.monotonic()
        if self._lost_ns is not None:
            sink.event(Gap(self._lost_ns, self._now_ns()))
            self._lost_ns = None
        self.heard()

    # ---------------------------------------------------------------------------------------------- meeting

    async def _meet(self, sink: Sink) -> _Wire:
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + _MEET_S
        while True:
            try:
                transport, wire = await loop.create_unix_connection(lambda: _Wire(self, sink), self._place.socket)
            except (FileNotFoundError, ConnectionRefusedError):
                if loop.time() > give_up_at:
                    raise StreamLost(
                        f"the process that shares the connection did not start; it says: {self._last_words()}",
                        "hub=False (--no-hub) connects without it",
                    ) from None
                if not await asyncio.to_thread(start_hub, self._upstream, self._place):
                    await async_sleep(_STARTING_S)
                continue
            self._transport = transport
            if self._paused:
                transport.pause_reading()
            self._say(
                {
                    "do": "hello",
                    "version": VERSION,
                    "interest": self.wanted.as_dict(),
                    "stale_after": self._stale_after_s,
                }
            )
            return wire

    def _say(self, command: dict[str, object]) -> None:
        if self._transport is not None:
            self._transport.write(msgspec.json.encode(command) + b"\n")

    def _last_words(self) -> str:
        try:
            with open(self._place.log, encoding="utf-8", errors="replace") as log:
                lines = log.read().strip().splitlines()
        except OSError:
            lines = []
        return lines[-1] if lines else "nothing"

    def _now_ns(self) -> int:
        return int(self._clock.time() * 1_000_000) * 1000
