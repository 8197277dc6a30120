"""``serve hooks …``: who is told of order updates. The gateway delivers; these commands only write what it reads."""

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from alpacli.cli.options import option
from alpacli.cli.output import View
from alpacli.cli.run import Run
from alpacli.domain.values import Model
from alpacli.errors import UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from alpacli.render.text import Frame

HookId = Annotated[str, typer.Argument(metavar="HOOK", help="Its ID, as in the list.")]


class AddedHook(Model):
    """A new webhook. ``secret`` keys its signatures, and is shown this once."""

    id: str
    url: str
    events: list[str]
    secret: str


class HookLine(Model):
    """A webhook: ``events`` empty means all; ``state`` is well, failing or off; counts are of deliveries."""

    id: str
    url: str
    events: list[str]
    state: str
    waiting: int
    delivered: int
    gave_up: int
    failing_since: str | None
    last_error: str


class QueuedTest(Model):
    """A test that was queued; ``delivery`` is its ``Alpacli-Delivery``."""

    id: str
    delivery: str


class RemovedHook(Model):
    id: str
    removed: bool


def add(
    run: Run,
    url: Annotated[str, typer.Argument(metavar="URL", help="Where to post; https, or http on this machine.")],
    events: Annotated[str | None, option("Only these, like fill,canceled.", metavar="A,B")] = None,
) -> None:
    """Post each order update of the account to a URL, signed, until it is taken."""
    view = run.promised(View(AddedHook, _added), of_change=True)
    from alpacli.gateway.hook_queue import EVENTS
    from alpacli.gateway.keeping import open_hooks

    wanted = sorted({name.strip() for name in (events or "").split(",") if name.strip()})
    unknown = [name for name in wanted if name not in EVENTS]
    if unknown:
        raise UsageError(f"there is no event {unknown[0]!r}", f"choose among {', '.join(EVENTS)}")
    _check_url(url)
    queue = open_hooks(run.settings())
    made = AddedHook(id=secrets.token_hex(4), url=url, events=wanted, secret=secrets.token_urlsafe(24))
    if run.options.dry_run:
        run.show_value(view, made)
        return
    queue.add(made.id, url, wanted, made.secret, run.clock.time())
    lost = f"nobody has its secret: `alpacli serve hooks remove {made.id}`, and add it once more"
    run.show_change(view, made, f"the webhook was added: {made.id}", lost)


def list_(run: Run) -> None:
    """Show the webhooks, what waits for them, and what went wrong."""
    view = run.promised(View(list[HookLine], _hooks_table))
    from alpacli.gateway.keeping import open_hooks

    rows = [
        HookLine(
            id=hook.id,
            url=hook.url,
            events=sorted(hook.events),
            state="off" if hook.off else "well" if hook.failing_since is None else "failing",
            waiting=hook.waiting,
            delivered=hook.delivered,
            gave_up=hook.gave_up,
            failing_since=None if hook.failing_since is None else _time(hook.failing_since),
            last_error=hook.last_error,
        )
        for hook in open_hooks(run.settings()).hooks()
    ]
    run.show_value(view, rows)


def remove(run: Run, hook: HookId) -> None:
    """Remove a webhook and what waits for it."""
    view = run.promised(View(RemovedHook, _removed))
    from alpacli.gateway.keeping import open_hooks

    if not run.options.dry_run:
        open_hooks(run.settings()).remove(hook)
    run.show_value(view, RemovedHook(id=hook, removed=not run.options.dry_run))


def test(run: Run, hook: HookId) -> None:
    """Queue a ``test`` event for one webhook; the running gateway delivers it."""
    view = run.promised(View(QueuedTest, _queued))
    from alpacli.domain.values import to_json
    from alpacli.gateway.hook_queue import Happened
    from alpacli.gateway.keeping import open_hooks

    queue = open_hooks(run.settings())
    event_id = f"test-{secrets.token_hex(8)}"
    body = to_json({"type": "test", "event": "test", "timestamp": _time(run.clock.time())})
    if not run.options.dry_run:
        queue.put_for(hook, Happened(event_id, "test", event_id, "test", body), run.clock.time())
    run.show_value(view, QueuedTest(id=hook, delivery=event_id))


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    host = parts.hostname or ""
    local = host in ("localhost", "::1") or host.startswith("127.")
    if parts.scheme not in ("http", "https") or not host:
        raise UsageError(f"{url} is not a web address", "like https://example.org/hook")
    if parts.username or parts.password:
        raise UsageError("the URL holds a user name or a password", "leave it out: deliveries are signed")
    if parts.scheme == "http" and not local:
        raise UsageError(f"{url} is not encrypted", "use https; plain http only reaches this machine")


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _added(value: AddedHook, frame: "Frame") -> "RenderableType":
    from alpacli.render.grid import facts, page

    events = ", ".join(value.events) or "all"
    lines = [("ID", value.id), ("URL", value.url), ("Events", events), ("Secret, shown this once", value.secret)]
    return page(facts(lines), frame)


def _removed(value: RemovedHook, frame: "Frame") -> "RenderableType":
    from rich.text import Text

    from alpacli.render.grid import page

    return page(Text(f"{'Removed' if value.removed else 'Would remove'} webhook {value.id}."), frame)


def _queued(value: QueuedTest, frame: "Frame") -> "RenderableType":
    from rich.text import Text

    from alpacli.render.grid import page

    return page(Text(f"Queued {value.delivery}; `alpacli serve hooks list` shows whether it was taken."), frame)


def _hooks_table(hooks: Sequence[HookLine], frame: "Frame") -> "RenderableType":
    from rich.text import Text

    from alpacli.render.grid import Column, listing, number

    return listing(
        hooks,
        [
            (Column("ID"), lambda one: one.id),
            (Column("URL", elastic=True, least=48), lambda one: one.url),
            (Column("Events", 2, elastic=True), lambda one: ", ".join(one.events) or "all"),
            (Column("State"), lambda one: Text(one.state, "green" if one.state == "well" else "red")),
            (number("Waiting", 1), lambda one: str(one.waiting)),
            (number("Delivered", 2), lambda one: str(one.delivered)),
            (number("Given up", 3), lambda one: str(one.gave_up)),
            (Column("Last error", 2, elastic=True), lambda one: one.last_error),
        ],
        frame,
        empty="No webhooks. `alpacli serve hooks add URL` makes one.",
    )
