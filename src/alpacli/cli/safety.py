"""The commands that stop trading and that prove what was done: halt, resume, audit."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from alpacli.broker.outcomes import HaltState, halt_state
from alpacli.cli.output import View
from alpacli.cli.run import Run
from alpacli.domain.values import Model
from alpacli.errors import OrderRefused

if TYPE_CHECKING:
    from rich.console import RenderableType

    from alpacli.render.text import Frame


class AuditLine(Model):
    """One line of the order journal; ``hash`` seals it and the line before it (``prev``)."""

    seq: int
    time: str
    action: str
    phase: str
    outcome: str | None = None
    client_order_id: str | None = None
    order_id: str | None = None
    order_status: str | None = None
    request: dict[str, Any] | None = None
    status: int | None = None
    code: int | None = None
    error: str | None = None
    message: str | None = None
    request_id: str | None = None
    rule: str | None = None
    user: str | None = None
    host: str | None = None
    pid: int | None = None
    program: str | None = None
    client: str | None = None
    prev: str
    hash: str


class Verdict(Model):
    """What ``audit verify`` found: how many lines there are, and which are not as they were written."""

    ok: bool
    lines: int
    faults: tuple[dict[str, Any], ...]


def halt(
    run: Run,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; shown to whoever wants to trade.")] = "",
) -> None:
    """Refuse new risk from now on; cancels and closes pass."""
    view = run.promised(View(HaltState, _halt_table), of_change=True)
    from alpacli.runtime import open_halt, whoami
    from alpacli.store.halt import Halt

    settings = run.settings()
    settings.require_keys()
    who = whoami("alpacli halt")
    state = Halt(run.clock.time(), reason, f"{who.user}@{who.host}")
    if run.options.dry_run:
        run.show_value(view, halt_state(state))
    else:
        asked, state = state, open_halt(settings, run.printer.notice).set(state)
        if state != asked:
            run.printer.notice("trading was halted already")
        with run.client() as client:
            client.desk.note_halt("halt", reason)
        run.show_change(view, halt_state(state), "trading is halted", "`alpacli resume` ends the halt")


def resume(run: Run) -> None:
    """Let orders through again after a halt."""
    view = run.promised(View(HaltState, _halt_table), of_change=True)
    from alpacli.runtime import open_halt

    settings = run.settings()
    settings.require_keys()
    switch = open_halt(settings, run.printer.notice)
    before = switch.state()
    if before is None:
        run.printer.notice("trading was not halted")
    elif run.options.dry_run:
        run.show_value(view, halt_state(before))
        return
    else:
        switch.clear()
        with run.client() as client:
            client.desk.note_halt("resume", before.reason)
    run.show_change(view, halt_state(None), "trading is not halted", "`alpacli halt` halts it")


def audit_list(
    run: Run,
    limit: Annotated[int, typer.Option(metavar="N", help="How many of the last lines.", min=1)] = 100,
) -> None:
    """Show the last order actions, oldest first."""
    view = run.promised(View(list[AuditLine], _audit_table))
    from alpacli.runtime import open_journal

    settings = run.settings()
    settings.require_keys()
    lines, unreadable = [], 0
    for record in list(open_journal(settings).records())[-limit:]:
        try:
            lines.append(AuditLine.model_validate(record))
        except ValueError:
            unreadable += 1
    if unreadable:
        run.printer.notice(f"{unreadable} lines cannot be read: `alpacli audit verify` tells what is wrong")
    run.show_value(view, lines)


def audit_verify(run: Run) -> None:
    """Check that no line of the order journal was changed or removed."""
    view = run.promised(View(Verdict, _verdict_table))
    from alpacli.runtime import open_journal

    settings = run.settings()
    settings.require_keys()
    journal = open_journal(settings)
    count, faults = journal.verify()
    run.show_value(view, Verdict(ok=not faults, lines=count, faults=tuple(fault._asdict() for fault in faults)))
    if faults:
        first = faults[0]
        raise OrderRefused(f"line {first.line} of {journal.path}: {first.problem}", "compare it with a backup")


def _halt_table(value: HaltState, frame: "Frame") -> "RenderableType":
    from rich.text import Text

    from alpacli.render.grid import facts, page
    from alpacli.render.text import words

    state = Text("halted", style="bold red") if value.halted else Text("not halted", style="green")
    pairs = [
        ("Trading", state),
        ("Since", words(value.since)),
        ("Reason", words(value.reason)),
        ("By", words(value.by)),
    ]
    return page(facts([pair for pair in pairs if str(pair[1]) not in ("", "–")]), frame)


def _verdict_table(value: Verdict, frame: "Frame") -> "RenderableType":
    from rich.text import Text

    from alpacli.render.grid import facts, page

    state = Text("intact", style="green") if value.ok else Text("not as it was written", style="bold red")
    faults = [(f"Line {fault['line']}", Text(str(fault["problem"]))) for fault in value.faults]
    return page(facts([("Journal", state), ("Lines", Text(str(value.lines))), *faults]), frame)


def _audit_table(value: list[AuditLine], frame: "Frame") -> "RenderableType":
    from alpacli.render.grid import Column, listing
    from alpacli.render.text import words

    return listing(
        value,
        [
            (Column("#", 4), lambda line: str(line.seq)),
            (Column("Time (UTC)"), lambda line: line.time[:19].replace("T", " ")),
            (Column("Action"), lambda line: words(line.action)),
            (Column("Outcome"), lambda line: words(line.outcome or line.phase)),
            (Column("Client order ID", 2), lambda line: words(line.client_order_id)),
            (Column("Who", 5), lambda line: words(f"{line.user}@{line.host}")),
            (Column("Message", 3, elastic=True), lambda line: words(line.message)),
        ],
        frame,
        empty="No order was ever sent from here.",
    )
