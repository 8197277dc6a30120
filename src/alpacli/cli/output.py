"""The one place that chooses how data is printed: a table on a terminal, tab-separated text elsewhere, or what was asked for.

Data goes to standard output as bytes, never through Rich, and is flushed here, so that a reader who left or a full disk is
noticed here. Rich is imported only when a table is drawn.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Any, NamedTuple

from alpacli.cli.failures import OutputClosed, ended_at_once, say, unwritten
from alpacli.cli.options import Options
from alpacli.errors import UsageError
from alpacli.ports import Clock

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from alpacli.render.text import Frame


class View(NamedTuple):
    """How one command's data is shown.

    ``model`` is the type of the value, for its schema and its documented fields; ``table`` draws it, a function, or the
    name of one in ``render.tables``, so that Rich loads only where a table is drawn; ``rows`` turns parsed
    JSON that is not a list of rows by itself into one, for tab-separated and CSV output; ``aged`` is what was done when the
    data was as new as its age says.
    """

    model: Any
    table: "str | Callable[[Any, Frame], RenderableType]"
    rows: Callable[[Any], Any] | None = None
    aged: str = "cached"

    @property
    def fields(self) -> list[str]:
        """Return the documented field names, as JSON spells them."""
        import typing

        model = typing.get_args(self.model)[0] if typing.get_origin(self.model) is list else self.model
        return [field.alias or name for name, field in model.model_fields.items()]


class Printer:
    """Prints values in the format that the options and standard output call for."""

    def __init__(self, options: Options, clock: Clock, env: Mapping[str, str]) -> None:
        if options.csv and (options.json or options.jq):
            raise UsageError("--csv cannot be combined with --json or --jq", "choose one format")
        self._options = options
        if options.tz != Options().tz:
            self.zone()  # a wrong name is refused in a pipe too, where no time is shown in a zone
        self._clock = clock
        self._env = env
        self._tells_of_change = False
        self._console: Console | None = None
        self.on_terminal = sys.stdout.isatty()

    @property
    def options(self) -> Options:
        """Return the common options, for output that is not one value."""
        return self._options

    @property
    def draws_tables(self) -> bool:
        """Tell whether people read this: on a terminal, or where FORCE_COLOR says that one is at the end of the pipe."""
        chosen = self._options.json or self._options.csv or self._options.jq is not None
        return not chosen and (self.on_terminal or bool(self._env.get("FORCE_COLOR")))

    @property
    def chosen(self) -> bool:
        """Tell whether a machine format was asked for, whoever reads it."""
        options = self._options
        return options.json or options.csv or options.jq is not None or options.fields is not None

    @property
    def redraws(self) -> bool:
        """Tell whether the terminal can take a table away again."""
        return self.draws_tables and self.on_terminal and not self.console.is_dumb_terminal

    @property
    def console(self) -> "Console":
        if self._console is None:
            from rich.console import Console

            self._console = Console(
                file=sys.stdout,
                force_terminal=True,
                no_color=True if self._options.no_color or self._env.get("NO_COLOR") else None,
                highlight=False,
                markup=False,
                emoji=False,
            )
        return self._console

    def schema(self, view: View) -> None:
        """Print the JSON Schema of the command's JSON output."""
        from pydantic import TypeAdapter

        from alpacli.domain.values import to_json

        schema = TypeAdapter(view.model).json_schema(mode="serialization", by_alias=True)
        schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
        self._json(to_json(schema))

    def check(self, view: View) -> None:
        """Refuse a --jq that is no program and --fields that there are not: before a change, since after it is too late.

        Raises:
            UsageError: it could not be shown like that.
        """
        from alpacli.render import machine

        self._tells_of_change = True
        if self._options.jq is not None:
            machine.check_jq(self._options.jq)
        if self._options.fields is not None and not view.rows:
            self._selected({}, view)

    def show(self, view: View, value: Any, text: bytes, age_s: float | None) -> None:
        """Print one value; ``text`` is its canonical JSON."""
        if self.draws_tables:
            self.draw(self.table(view, value, text, age_s))
        else:
            self.write(self._machine(view, text))

    def table(self, view: View, value: Any, text: bytes, age_s: float | None) -> "RenderableType":
        """Return what a terminal shows for the value."""
        from alpacli.render import machine, tables

        frame = self.frame(age_s)._replace(aged=view.aged)
        if self._options.fields is None:
            draw = getattr(tables, view.table) if isinstance(view.table, str) else view.table
            body: RenderableType = draw(value, frame)
            return body
        return tables.plain(self._selected(machine.parse(text), view), frame)

    def frame(self, age_s: float | None = None) -> "Frame":
        from alpacli.render.text import Frame

        now = datetime.fromtimestamp(self._clock.time(), UTC)
        return Frame(self.console.width, now, self.zone(), sim=self._options.sim, age_s=age_s)

    def zone(self) -> tzinfo | None:
        from zoneinfo import ZoneInfo

        from alpacli.cli.times import zone_named

        return zone_named(self._options.tz, ZoneInfo)

    def draw(self, body: "RenderableType") -> None:
        """Print something that Rich can draw."""
        with self.console.capture() as captured:
            self.console.print(body)
        lines = [line.rstrip() for line in captured.get().strip("\n").split("\n")]
        self.write(("\n".join(lines) + "\n").encode(sys.stdout.encoding or "utf-8", "replace"))

    def _machine(self, view: View, text: bytes) -> bytes:
        options = self._options
        if options.fields is None and options.jq is None and options.json and not self.on_terminal:
            return text + b"\n"
        from alpacli.render import machine

        tree = machine.parse(text)
        if options.jq is not None:
            chosen = text if options.fields is None else machine.dump(self._selected(tree, view)).encode()
            with nullcontext() if self._tells_of_change else ended_at_once():
                found = machine.jq(chosen.decode(), options.jq)
            return (machine.harmless(found) if self.on_terminal else found).encode("utf-8", "backslashreplace")
        if not options.json:
            tree = view.rows(tree) if view.rows else tree
        known: Sequence[str] = view.fields if isinstance(tree, list) and not view.rows else ()
        if options.fields is not None:
            tree = self._selected(tree, view)
            known = self._fields()
        if options.json:
            written = machine.dump(tree, indent=2 if self.on_terminal else None) + "\n"
        else:
            written = (machine.comma_separated if options.csv else machine.tsv)(tree, known)
        if self.on_terminal:
            written = machine.harmless(written, in_json=options.json)
        return written.encode("utf-8", "backslashreplace")

    def _fields(self) -> list[str]:
        return [name.strip() for name in (self._options.fields or "").split(",") if name.strip()]

    def _selected(self, tree: Any, view: View) -> Any:
        from alpacli.render import machine

        names = self._fields()
        if not names:
            raise UsageError("--fields names no field", "give names separated by commas, like --fields symbol,qty")
        return machine.select(tree, names, () if view.rows else view.fields)

    def _json(self, text: bytes) -> None:
        from alpacli.render import machine

        self.write((machine.dump(machine.parse(text), indent=2 if self.on_terminal else None) + "\n").encode())

    def write(self, data: bytes | memoryview) -> None:
        """Write to standard output, now.

        Raises:
            OutputClosed: the reader left.
            OutputFailed: the disk is full, or standard output cannot be written for another reason.
        """
        try:
            sys.stdout.flush()
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        except BrokenPipeError as error:
            discard_stdout()
            raise OutputClosed from error
        except OSError as error:
            discard_stdout()
            raise unwritten(error) from error

    def notice(self, text: str) -> None:
        """Say something beside the data, unless --quiet."""
        if not self._options.quiet:
            say(f"alpacli: {text}\n")


def discard_stdout() -> None:
    """Send what is still buffered nowhere, so that the interpreter does not fail on it at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
