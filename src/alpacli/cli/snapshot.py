"""``snapshot``: the account as one record, for cron and for people; ``snapshot install`` has it done again and again."""

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alpacli.cli.output import View
from alpacli.cli.run import Run
from alpacli.history import snapshots
from alpacli.history.snapshots import Snapshot

if TYPE_CHECKING:
    from rich.console import RenderableType

    from alpacli.render.text import Frame

_EVERY = Annotated[str, typer.Option("--every", metavar="PERIOD", help="At most one record in each: 1m, 5m, 1h, 1d.")]


def snapshot(run: Run, every: _EVERY = "1m") -> None:
    """Record the account, its positions and open orders, once a period.

    On a terminal it tells what was recorded; into a pipe it is silent unless a format (--json) is asked for.
    `alpacli snapshot install --every 5m` has it done again and again.
    """
    view = run.promised(View(Snapshot, draw), of_change=True)
    from alpacli.runtime import open_record
    from alpacli.wire import rest

    every_s = snapshots.seconds_of(every)
    with run.client() as client:
        if not run.is_wanted(client):
            return
        account = client.read(rest.account(), use_cache=False).value
        archive, exchange_ns = open_record(run.settings(), account, run.printer.notice)
        with archive:
            now_ns = exchange_ns or snapshots.told_by(run.clock)
            taken = snapshots.take(client, archive, now_ns, account, every_s)
        if run.printer.draws_tables or run.printer.chosen:
            hint = "`alpacli history snapshots` shows it"
            run.show_change(view, taken.value, "the snapshot is recorded", hint, taken.text)


def install(
    run: Run,
    every: _EVERY = "5m",
    systemd: Annotated[bool, typer.Option("--systemd", help="A systemd timer instead of a crontab line.")] = False,  # noqa: FBT002 # a flag
    only_if_open: Annotated[bool, typer.Option("--only-if-open", help="Record only while the market is open.")] = False,  # noqa: FBT002 # a flag
) -> None:
    """Print the crontab line, or systemd timer, that records the account again and again; with --yes put it in place."""
    from alpacli.cli import schedule

    view = run.promised(View(schedule.Job, "job"), of_change=True)
    settings = run.settings()
    settings.require_keys()
    words = ["snapshot", "--quiet", "--every", every]
    words += ["--only-if-open"] if only_if_open else []
    words += ["--sim"] if run.options.sim else []
    words += ["--profile", run.options.profile] if run.options.profile else []
    plan = schedule.plan(
        settings,
        words,
        snapshots.seconds_of(every),
        program=_this_program(),
        env=os.environ,
        cwd=os.getcwd(),
        systemd=systemd,
    )
    if run.options.yes and not run.options.dry_run:
        schedule.put_in_place(plan, schedule.environment_of(settings, os.environ))
        plan = plan.model_copy(update={"installed": True})
        run.printer.notice(f"installed: {plan.where}")
    elif plan.environment_file is not None:
        names = ", ".join(plan.environment)
        run.printer.notice(
            f"--yes also writes {plan.environment_file} (for you alone) with {names}, which {plan.kind} lacks"
        )
    if run.printer.chosen:
        run.show_change(view, plan, f"installed: {plan.where}" if plan.installed else "nothing was installed")
    elif not plan.installed:
        run.printer.write("".join(text for _, text in plan.shown).encode())


def _this_program() -> list[str]:
    """Return the words that start alpacli again as it was started; ``python -m`` leaves a file that nobody can execute."""
    path = os.path.abspath(sys.argv[0])
    return [sys.executable, "-m", "alpacli"] if os.path.basename(path) == "__main__.py" else [path]


def draw(value: Snapshot, frame: "Frame") -> "RenderableType":
    """Show what was recorded, in a few lines."""
    from alpacli.render.grid import facts, page
    from alpacli.render.text import moment, money

    account = value.account
    pairs: list[tuple[str, Any]] = [
        ("Recorded", moment(value.at, frame, dated=True)),
        ("Equity", money(account.equity)),
        ("Cash", money(account.cash)),
        ("Positions", str(len(value.positions))),
        ("Open orders", str(len(value.orders))),
    ]
    return page(facts(pairs), frame)
