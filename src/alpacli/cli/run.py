"""One invocation of a command: settings, client, waiting, watching, confirming."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from alpacli.cli.failures import OutputClosed, explain, say, wind_up
from alpacli.cli.options import Options
from alpacli.cli.output import Printer, View
from alpacli.errors import AlpacliError, BudgetExhausted, CircuitOpen, OutputFailed, UsageError
from alpacli.ports import Clock, SystemClock
from alpacli.settings import Flags, Settings, load, on_this_machine

if TYPE_CHECKING:
    from alpacli.broker.client import AlpacaClient
    from alpacli.broker.flow import Reading
    from alpacli.wire.rest import Call

T = TypeVar("T")
_CLOCK_AGE_S = 60.0


class Run:
    """What a command is given."""

    def __init__(self, options: Options, label: str, clock: Clock | None = None) -> None:
        self.options = options
        self.clock = clock or SystemClock()
        self.printer = Printer(options, self.clock, os.environ)
        self._label = label
        self._spinner: Any = None
        self._show_on_screen: Callable[[str], None] | None = None

    def environment(self) -> Mapping[str, str]:
        return os.environ

    def directory(self) -> str | None:
        """Return the working directory; ``None`` when it was deleted: there is no .env to read then."""
        try:
            return os.getcwd()
        except FileNotFoundError:
            return None

    def flags(self) -> Flags:
        options = self.options
        return Flags(options.profile, options.sim, options.max_wait, options.timeout)

    def settings(self) -> Settings:
        return load(self.flags(), env=self.environment(), cwd=self.directory())

    @contextmanager
    def client(self, warn: Callable[[str], None] | None = None) -> "Iterator[AlpacaClient]":
        """Open the account that flags, environment and files name, for as long as the block lasts."""
        from alpacli.runtime import open_client

        client = open_client(
            self.settings(), label=f"alpacli {self._label}", warn=warn or self.printer.notice, on_wait=self._on_wait
        )
        try:
            yield client
        except KeyboardInterrupt:
            wind_up()
            raise
        finally:
            self._stop_spinner()
            client.close()

    def read(self, client: "AlpacaClient", call: "Call[T]") -> "Reading[T]":
        """Read one endpoint as fresh as the options ask for."""
        reading = client.read(call, use_cache=not self.options.refresh, max_age=self.options.max_age)
        self._stop_spinner()
        return reading

    def promised(self, view: View, *, of_change: bool = False, dry: View | None = None) -> View:
        """Return how the answer will be shown; with --schema print what it is made of, and end the command here.

        With --dry-run that is ``dry``, where it is not the same.

        Raises:
            UsageError: the answer of a change could not be shown as the options say: it is not made.
        """
        if self.options.dry_run and dry is not None:
            view = dry
        if self.options.schema:
            from typer import Exit

            self.printer.schema(view)
            raise Exit
        if of_change:
            self.printer.check(view)
        return view

    def show(self, view: View, fetch: "Callable[[AlpacaClient], Reading[Any]]") -> None:
        """Fetch and print; with --watch again and again, with --schema not at all."""
        self.promised(view)
        with self.client() as client:
            if self.options.watch is not None:
                self._watch(view, client, fetch, self.options.watch)
            elif self.is_wanted(client):
                reading = fetch(client)
                self.printer.show(view, reading.value, reading.json, reading.age_s)

    def show_value(self, view: View, value: Any) -> None:
        """Print something that was made here and not read from the broker."""
        from alpacli.domain.values import to_json

        self.printer.show(view, value, to_json(value), None)

    def show_change(
        self,
        view: View,
        value: Any,
        done: str,
        hint: str = "it is not to be done again because of this",
        text: bytes | None = None,
    ) -> None:
        """Print what a change came to; when that cannot be, stderr tells what was ``done`` all the same.

        ``text`` is the value's JSON, where that is at hand.

        Raises:
            OutputFailed: it could not be printed; it names what was done, so that nobody does it twice.
        """
        from alpacli.domain.values import to_json

        text = to_json(value) if text is None else text
        try:
            self.printer.show(view, value, text, None)
        except (OutputClosed, KeyboardInterrupt):
            say(f"alpacli: {done}; nobody read what it came to\n")
            raise
        except Exception as error:
            failure = OutputFailed(f"{done}; {explain(error).message}", hint)
            failure.result = text
            raise failure from error

    def is_wanted(self, client: "AlpacaClient") -> bool:
        """Tell whether to go on: not while the market is closed and ``--only-if-open`` was said."""
        if not self.options.only_if_open:
            return True
        from alpacli.wire import rest

        settings = self.settings()
        # An exchange on this machine may have been moved on since, or live in another year.
        is_told_anew = on_this_machine(settings.base_url) and not settings.sim
        reading = client.read(rest.clock(), max_age=_CLOCK_AGE_S, use_cache=not is_told_anew)
        clock = reading.value
        if reading.age_s is None:
            return clock.is_open
        now = self.clock.time()
        return (clock.is_open or now >= clock.next_open.timestamp()) and now < clock.next_close.timestamp()

    # --------------------------------------------------------------------------------------------- watching

    def _watch(
        self, view: View, client: "AlpacaClient", fetch: "Callable[[AlpacaClient], Reading[Any]]", every_s: float
    ) -> None:
        if not self.printer.redraws:
            while True:
                reading = self._patiently(client, fetch)
                if reading is not None:
                    self.printer.show(view, reading.value, reading.json, reading.age_s)
                self.clock.sleep(every_s)
        from rich.console import Group, RenderableType
        from rich.live import Live

        from alpacli.render.grid import Fitting
        from alpacli.render.text import words

        table: RenderableType = ""
        with Live(console=self.printer.console, screen=True, auto_refresh=False) as live:

            def show_above_table(text: str) -> None:
                live.update(Fitting(Group(words(text), table)), refresh=True)

            self._show_on_screen = show_above_table
            while True:
                reading = self._patiently(client, fetch)
                if reading is not None:
                    table = self.printer.table(view, reading.value, reading.json, reading.age_s)
                    live.update(Fitting(table), refresh=True)
                self.clock.sleep(every_s)

    def _patiently(
        self, client: "AlpacaClient", fetch: "Callable[[AlpacaClient], Reading[Any]]"
    ) -> "Reading[Any] | None":
        """Fetch; what may be better next time is only a notice."""
        try:
            return fetch(client) if self.is_wanted(client) else None
        except AlpacliError as error:
            if not error.retryable and not isinstance(error, BudgetExhausted | CircuitOpen):
                raise
            self._stop_spinner()
            notice = f"{error.message}; trying again in {self.options.watch:g} s"
            if self._show_on_screen is not None:
                self._show_on_screen(f"NOT CURRENT: {notice}")
            else:
                self.printer.notice(notice)
            return None

    # ---------------------------------------------------------------------------------------------- waiting

    def _on_wait(self, seconds: float, reason: str) -> None:
        """Show a spinner while the client waits: on a terminal; a table that redraws itself gets a line above it."""
        if self._show_on_screen is not None:
            self._show_on_screen(f"NOT CURRENT: waiting {seconds:.0f} s: {reason}")
            return
        if self.options.verbose:
            self.printer.notice(f"waiting {seconds:.1f} s: {reason}")
        if self.options.quiet or self.options.watch is not None or not sys.stderr.isatty():
            return
        text = f"waiting {seconds:.0f} s: {reason}"
        if self._spinner is None:
            from rich.console import Console
            from rich.status import Status

            self._spinner = Status(text, console=Console(stderr=True))
            self._spinner.start()
        else:
            self._spinner.update(text)

    def _stop_spinner(self) -> None:
        if self._spinner is not None:
            self._spinner.stop()
            self._spinner = None

    # --------------------------------------------------------------------------------------------- changing

    def preview(self, call: "Call[Any]") -> None:
        """Print the request that would be sent."""
        from alpacli.cli.previews import show_request

        settings = self.settings()
        show_request(self, call.request, settings.base_url if call.request.host == "trading" else settings.data_url)

    def confirm_as_it_is(self, plan: Callable[[], Sequence[str]]) -> bool:
        """Ask as ``confirm`` does, and again where ``plan`` came to something else while the question stood.

        Return false where there is nothing to do, at first or then.
        """
        shown = plan()
        while shown:
            self.confirm(shown)
            now = shown if self.options.yes else plan()
            if now == shown:
                return True
            self.printer.notice("what would be done has changed meanwhile")
            shown = now
        return False

    def confirm(self, plan: Sequence[str]) -> None:
        """List what would be done and ask; ``--yes`` answers.

        Raises:
            UsageError: nobody can be asked, or the answer was no. Nothing was done.
        """
        if self.options.yes:
            return
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise UsageError(
                f"this would {'; '.join(plan)}, and nobody can be asked", "--yes answers; nothing was done"
            )
        import shutil
        import textwrap

        width = shutil.get_terminal_size().columns
        listed = (textwrap.fill(line, width, initial_indent="  - ", subsequent_indent="    ") for line in plan)
        say("\n".join(("This would", *listed, "Go on? [y/N] ")))
        try:
            answer = sys.stdin.readline()
        except KeyboardInterrupt:
            say("\n")
            raise
        if not answer.endswith("\n"):
            say("\n")  # Ctrl-D leaves the cursor behind the question
        if answer.strip().lower() not in ("y", "yes"):
            raise UsageError("nothing was done", "answer y, or give --yes, to go on")
