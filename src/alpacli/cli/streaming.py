"""Runs a stream for the command: source to pipe or table, with everything that ends it, and what there is to say about it."""

import asyncio
import json
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from alpacli.cli.failures import OutputClosed
from alpacli.cli.output import discard_stdout
from alpacli.cli.pipe import LinePipe
from alpacli.cli.run import Run
from alpacli.cli.stream_lines import first_lines, interest_of, line_changer, read_command, take_lines
from alpacli.domain.board import Board
from alpacli.domain.ticks import Interest, instant_text
from alpacli.errors import AlpacliError, StreamLost, UsageError
from alpacli.live import fetch_days, open_backfill, open_source
from alpacli.ports import async_sleep, run_async
from alpacli.streams.batch import Batch
from alpacli.streams.client import Reception
from alpacli.streams.events import (
    Conflated,
    Connecting,
    Event,
    Gap,
    GapFilled,
    Health,
    Lagging,
    Live,
    Reconnecting,
    Refused,
    Status,
    Unshared,
)
from alpacli.streams.feeds import Feed
from alpacli.streams.recording import Recorder, Replay
from alpacli.streams.session import Action, refusal
from alpacli.streams.supervisor import Source
from alpacli.wire.frames import Failure

if TYPE_CHECKING:
    from alpacli.cli.screen import Screen
    from alpacli.cli.stream_exec import Hands

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_REPORT_CONFLATED_EVERY_S: Final = 5.0
_DAYS_EVERY_S: Final = 900.0
_NEW_SYMBOLS_S: Final = 0.5
_FIRST_TICKS_S: Final = 1.0
_AFTER_FIRST_S: Final = 0.1
_LAST_LINES_S: Final = 1.0
"""How long a reader has to take what waits when Ctrl-C or SIGTERM ends the stream."""


class Plan(NamedTuple):
    """What the command line asked for: ``symbols`` are those of ``interest`` in the order of the user.

    ``speed`` ``None`` is as fast as possible; ``reconnect`` ``None`` is without limit.
    """

    feed: Feed
    interest: Interest
    symbols: list[str]
    messages: int | None
    duration_s: float | None
    execute: list[str] | None
    record: str | None
    replay: str | None
    speed: float | None
    buffer: int
    conflate: bool
    reconnect: int | None
    stale_after_s: float
    backfill: bool
    hub: bool


def run_stream(run: Run, plan: Plan) -> None:
    """Stream until it is over; Ctrl-C, SIGTERM, ``--count`` and ``--duration`` end it well.

    Raises:
        AlpacliError: it could not begin, or is lost for good.
        OutputClosed: the reader of standard output left.
    """
    run_async(_Streaming(run, plan).run())


class _Streaming:
    """One run of the command: the sink of its source."""

    def __init__(self, run: Run, plan: Plan) -> None:
        self._run = run
        self._plan = plan
        self._clock = run.clock
        self._interest = plan.interest
        self._left = plan.messages
        self._hurried = False
        self._failure: AlpacliError | None = None
        self._defect: BaseException | None = None
        self._answers_due = 0
        self._conflated_said = 0
        self._conflated_said_at = float("-inf")
        self._gaps_said = 0
        self._gaps_said_at = float("-inf")
        self._been_live = False
        self._said_unshared = False
        self._has_ticked = False
        self._has_shown = asyncio.Event()
        self._health = Health(0, 0)
        self._beside: set[asyncio.Future[None]] = set()
        self._board: Board | None = None
        self._screen: Screen | None = None
        self._hands: Hands | None = None
        self._watching: asyncio.Future[None] | None = None
        self._status = Status(
            plan.feed.name, "connecting", shared=False, sim=run.options.sim, reconnects=0, gaps=0, conflated=0
        )

    async def run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        self._source = self._open_source()
        self._recorder = Recorder(self._plan.record, self._clock) if self._plan.record is not None else None
        self._tells_people = self._run.printer.draws_tables and self._plan.feed.name in ("news", "updates")
        self._change_lines = self._for_people if self._tells_people else line_changer(self._run.options)
        self._pipe = LinePipe(
            sys.stdout.fileno(),
            self._plan.buffer,
            conflate=self._plan.conflate,
            closed=lambda: self._from_thread(self._reader_left),
            overflow=lambda: self._from_thread(self._reader_too_slow),
            full=lambda: self._from_thread(partial(self._reception.pause, "pipe")),
            drained=lambda: self._from_thread(partial(self._reception.resume, "pipe")),
        )
        if self._plan.execute is not None:
            self._hands = self._open_hands(self._plan.execute)
        if self._tells_people:
            if self._run.options.sim:
                self._run.printer.notice("OFFLINE EXCHANGE: no real orders, no real news")
        elif self._run.printer.redraws and self._run.options.fields is None:
            self._watch()
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
                self._loop.add_signal_handler(number, self._hurry)
        backfill = None
        if self._plan.backfill and self._plan.replay is None:
            backfill = open_backfill(self._run.settings(), self._plan.feed, warn=self._run.printer.notice)
        self._reception = Reception(
            self._source,
            self,
            clock=self._clock,
            reconnect=self._plan.reconnect,
            backfill=backfill,
            wanted=lambda: self._interest,
            buffer=self._plan.buffer,
            conflate=self._plan.conflate,
        )
        receiving = asyncio.ensure_future(self._reception.run())
        receiving.add_done_callback(self._source_ended)
        self._listen_to_standard_input()
        try:
            await self._over.wait()
        finally:
            try:
                if self._watching is not None and self._screen is not None:
                    self._screen.stop()
                    await self._watching
            finally:
                await self._end(receiving)
        if self._defect is not None:
            raise self._defect
        if self._failure is not None:
            raise self._failure

    def _open_source(self) -> Source:
        plan = self._plan
        if plan.replay is not None:
            return Replay(plan.replay, plan.interest, speed=plan.speed, clock=self._clock)
        settings, tell = self._run.settings(), self._run.printer.notice
        try:
            return open_source(
                settings, plan.feed, plan.interest, hub=plan.hub, stale_after_s=plan.stale_after_s, warn=tell
            )
        except OSError as error:
            tell(f"no connection can be shared ({error}); this stream opens its own")
            return open_source(
                settings, plan.feed, plan.interest, hub=False, stale_after_s=plan.stale_after_s, warn=lambda _: None
            )

    def _open_hands(self, words: list[str]) -> "Hands":
        from alpacli.cli.stream_exec import Hands

        return Hands(
            words,
            self._clock,
            tell=self._notice,
            pause=lambda: self._reception.pause("exec"),
            resume=lambda: self._reception.resume("exec"),
        )

    def _watch(self) -> None:
        """Show a table instead of lines."""
        from alpacli.cli.screen import Screen

        self._board = Board(self._plan.symbols)
        self._screen = Screen(
            self._board,
            self._run.printer.console,
            self._clock,
            status=lambda: self._status,
            on_add=lambda symbols: self._change_symbols("subscribe", symbols, replay=self._plan.replay is not None),
            on_remove=lambda symbol: self._change_symbols("unsubscribe", [symbol], replay=True),
            on_key=lambda: self._tell(message=""),
        )
        if self._plan.replay is None and self._plan.feed.name in ("iex", "sip", "delayed_sip", "crypto"):
            self._begin(self._keep_days())
        self._watching = asyncio.ensure_future(self._screen.run())
        self._watching.add_done_callback(lambda _: self._over.set())

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something while the ticks come; it is given up when the stream ends."""
        task = asyncio.ensure_future(work)
        self._beside.add(task)
        task.add_done_callback(self._is_done)

    def _is_done(self, task: "asyncio.Future[None]") -> None:
        self._beside.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and self._defect is None:
            self._defect = error
            self._over.set()

    async def _keep_days(self) -> None:
        """Know previous closes and the day so far, also when a new day begins; the table does without where there is none.

        A symbol that was just added is asked for within a second. The first ticks come first: loading what fetches the
        days takes longer than all that leads up to them.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_TICKS_S):
                await self._has_shown.wait()
        asked: set[str] = set()
        ask_all_at = self._clock.monotonic()
        while self._board is not None:
            if self._clock.monotonic() >= ask_all_at:
                asked = set()
                ask_all_at += _DAYS_EVERY_S
            symbols = [symbol for symbol in self._board.symbols if symbol not in asked and symbol != "*"]
            asked.update(symbols)
            if symbols:
                await self._fetch_days(self._board, symbols)
            await async_sleep(_NEW_SYMBOLS_S)

    async def _fetch_days(self, board: Board, symbols: list[str]) -> None:
        try:
            days = await fetch_days(self._run.settings(), self._plan.feed, symbols, warn=self._run.printer.notice)
        except AlpacliError as error:
            self._notice(f"no previous closes: {error.message}")
        else:
            board.set_days(days)
            unknown = [symbol for symbol in symbols if symbol not in days]
            if unknown:
                self._notice(f"no price of {', '.join(unknown[:3])} is known: is there such a symbol?")

    async def _change_symbols(self, action: Action, symbols: list[str], *, replay: bool) -> None:
        interest = interest_of(symbols, self._plan.interest.channels, self._plan.feed, replay=replay)
        self._interest = self._interest | interest if action == "subscribe" else self._interest - interest
        await self._source.change(action, interest)

    def _source_ended(self, receiving: "asyncio.Future[None]") -> None:
        """A replay that is over stays on the screen until the user has seen enough."""
        if self._screen is not None and not receiving.cancelled() and receiving.exception() is None:
            self._tell(state="ended")
        else:
            self._over.set()

    def _tell(self, **changes: Any) -> None:
        self._status = self._status._replace(**changes)
        if self._screen is not None:
            self._screen.changed()

    # ----------------------------------------------------------------------------------------------- the end

    async def _end(self, receiving: "asyncio.Future[None]") -> None:
        if receiving.done() and not receiving.cancelled():
            error = receiving.exception()
            if isinstance(error, AlpacliError):
                self._failure = self._failure or error
            elif error is not None:
                raise error
        for task in self._beside:
            task.cancel()
        receiving.cancel()
        with suppress(asyncio.CancelledError, AlpacliError):
            await receiving
        if self._hands is not None:
            await self._hands.finish(lambda: self._hurried)
        await self._hand_over_last_lines()
        if self._recorder is not None:
            self._recorder.close()
        self._say_conflated(last=True)
        self._say_left_out_in_gaps(last=True)
        self._say_left_out()
        if self._pipe.broken:
            discard_stdout()
            self._failure = self._failure or self._pipe.failure
            if self._failure is None:
                raise OutputClosed

    async def _hand_over_last_lines(self) -> None:
        self._pipe.finish()
        give_up_at: float | None = None
        leaving = False
        while not self._pipe.ended:
            if self._hurried and give_up_at is None:
                give_up_at = self._clock.monotonic() + _LAST_LINES_S
            if give_up_at is not None and self._clock.monotonic() > give_up_at:
                if leaving:
                    break
                leaving, give_up_at = True, self._clock.monotonic() + _LAST_LINES_S
                self._pipe.leave_off()
            await async_sleep(0.002)

    def _hurry(self) -> None:
        """End because somebody says so."""
        self._hurried = True
        self._over.set()

    def _fail(self, error: AlpacliError) -> None:
        self._failure = self._failure or error
        self._over.set()

    def _reader_left(self) -> None:
        self._over.set()

    def _reader_too_slow(self) -> None:
        self._reception.pause("pipe")
        self._fail(
            StreamLost(
                f"the reader is too slow: more than {self._plan.buffer} messages wait for it",
                "read faster, give a larger --buffer, or leave --no-conflate away; nothing was lost up to here",
            )
        )

    def _from_thread(self, what: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop has ended: nobody needs to know any more
            self._loop.call_soon_threadsafe(what)

    # ------------------------------------------------------------------------------------------- as the sink

    def batch(self, batch: Batch) -> None:
        if self._over.is_set():
            return
        if self._left is not None:
            if batch.count >= self._left:
                batch = Batch.of_lines(first_lines(batch.lines, self._left))
                self._over.set()
            self._left -= batch.count
        try:
            if self._recorder is not None:
                self._recorder.write(batch.lines)
            if self._hands is not None:
                self._hands.put(batch.lines)
            if self._board is not None and self._screen is not None:
                self._show(self._board, self._screen, batch)
            else:
                lines = batch.lines if self._change_lines is None else self._change_lines(batch.lines)
                self._pipe.put(lines, batch.count)
        except AlpacliError as error:
            self._fail(error)
        if self._pipe.conflated != self._conflated_said:
            self._say_conflated()

    def _show(self, board: Board, screen: "Screen", batch: Batch) -> None:
        now_ns = int(self._clock.time() * 1_000_000) * 1000
        if batch.messages is not None:
            board.apply(batch.messages, now_ns)
        else:
            board.apply_lines(batch.lines, now_ns)
        screen.changed(at_once=not self._has_ticked)
        if not self._has_ticked:
            self._has_ticked = True
            self._loop.call_later(_AFTER_FIRST_S, self._has_shown.set)

    def _for_people(self, lines: bytes) -> bytes:
        from alpacli.render.live_lines import told

        console = self._run.printer.console
        texts = [told(tick, self._run.printer.zone()) for tick in Batch.of_lines(lines).ticks()[0]]
        with console.capture() as captured:
            for text in texts:
                console.print(text, soft_wrap=True)
        return captured.get().encode(console.encoding, "replace")

    def event(self, event: Event) -> None:
        if isinstance(event, Live):
            self._tell(state="live", shared=event.shared, message="")
            self._went_live(event)
        elif isinstance(event, Connecting):
            self._tell(state=event.step)
        elif isinstance(event, Reconnecting):
            state = f"reconnecting in {event.wait_s:.1f} s (attempt {event.attempt})"
            self._tell(state=state, reconnects=self._status.reconnects + 1)
            self._notice(f"{event.reason}; trying again in {event.wait_s:.1f} s (attempt {event.attempt})")
        elif isinstance(event, Gap):
            self._tell(gaps=self._status.gaps + 1)
            lasted_s = (event.until_ns - event.from_ns) / 1e9
            self._notice(
                f"gap: what happened from {instant_text(event.from_ns)} to {instant_text(event.until_ns)}"
                f" ({lasted_s:.1f} s) was not received"
            )
        elif isinstance(event, GapFilled):
            self._notice(
                f"the gap could not be filled: {event.error}"
                if event.error
                else f"gap filled: {_messages(event.messages)}"
            )
        elif isinstance(event, Refused):
            self._was_refused(event)
        elif isinstance(event, Lagging):
            who = (
                "the server says that this reader is slow (407)" if event.by == "server" else "this reader was too slow"
            )
            self._notice(f"{who}: messages may have been lost")
        elif isinstance(event, Conflated):
            self._tell(conflated=event.quotes)
            self._say_left_out_in_gaps()
        elif isinstance(event, Health):
            self._health = event
        else:
            self._say_unshared(event)

    def _went_live(self, event: Live) -> None:
        if not self._been_live:
            self._been_live = True
            if self._plan.duration_s is not None:
                self._loop.call_later(self._plan.duration_s, self._over.set)
            if self._run.options.verbose and self._plan.replay is None:
                shared = "a shared connection" if event.shared else "a connection of its own"
                self._notice(f"connected to {self._plan.feed.name} on {shared}")
        if self._answers_due and self._screen is None:
            self._answers_due = 0
            self._answer({"type": "subscription", **self._interest.as_dict()})

    def _was_refused(self, event: Refused) -> None:
        """End when it was what we began with; otherwise the stream goes on as it was."""
        self._interest -= Interest(event.channels)
        if not self._been_live:
            self._fail(refusal(Failure(event.code, event.message)))
            return
        refused = ", ".join(f"{name} {' '.join(symbols)}" for name, symbols in event.channels.items())
        self._notice(f"the server refused to add {refused}: {event.message} ({event.code})")

    def _notice(self, text: str) -> None:
        if self._watching is not None and not self._watching.done():
            self._tell(message=text)
            return
        self._run.printer.notice(text)

    def _say_unshared(self, event: Unshared) -> None:
        if event.reason and not self._said_unshared:
            self._said_unshared = True
            self._notice(f"shared store unavailable ({event.reason}): other machines do not share this connection")

    def _say_conflated(self, *, last: bool = False) -> None:
        now = self._clock.monotonic()
        if self._pipe.conflated == self._conflated_said:
            return
        if last or now - self._conflated_said_at > _REPORT_CONFLATED_EVERY_S:
            self._conflated_said, self._conflated_said_at = self._pipe.conflated, now
            self._notice(f"the reader is slow: {self._conflated_said} quotes were left out for newer ones")

    def _say_left_out_in_gaps(self, *, last: bool = False) -> None:
        now = self._clock.monotonic()
        count = self._status.conflated
        if count != self._gaps_said and (last or now - self._gaps_said_at > _REPORT_CONFLATED_EVERY_S):
            self._gaps_said, self._gaps_said_at = count, now
            self._notice(f"more came than can wait while a gap is filled: {count} quotes were left out for newer ones")

    def _say_left_out(self) -> None:
        unknown, bad = self._health
        parts = [f"{_messages(unknown)} of unknown type"] if unknown else []
        parts += [f"{bad} that could not be read"] if bad else []
        if parts:
            self._notice(f"left out: {' and '.join(parts)}")

    # ---------------------------------------------------------------------------------------- standard input

    def _listen_to_standard_input(self) -> None:
        """Take commands; a terminal is left to the shell."""
        if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
            return
        take_lines(sys.stdin.fileno(), lambda line: self._from_thread(partial(self._obey, line)))

    def _obey(self, line: bytes) -> None:
        try:
            action, interest = read_command(
                line, self._plan.feed, self._plan.interest, replay=self._plan.replay is not None
            )
        except UsageError as error:
            self._notice(f"{error.message}; {error.hint}")
            return
        if action == "ping":
            self._answer({"type": "pong", "timestamp": instant_text(int(self._clock.time() * 1_000_000) * 1000)})
            return
        added = action == "subscribe"
        self._interest = self._interest | interest if added else self._interest - interest
        self._answers_due += 1
        self._begin(self._change("subscribe" if added else "unsubscribe", interest))

    async def _change(self, action: Action, interest: Interest) -> None:
        with suppress(AlpacliError):  # the connection is lost: the next one asks for all that is wanted
            await self._source.change(action, interest)
        if self._plan.replay is not None:
            self._went_live(Live({}))

    def _answer(self, message: dict[str, Any]) -> None:
        self._pipe.put(json.dumps(message, separators=(",", ":")).encode() + b"\n", 1)


def _messages(count: int) -> str:
    return f"{count} message" if count == 1 else f"{count} messages"
