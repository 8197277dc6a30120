"""The watchlist commands. A list is named by its name or its ID; changing one asks nothing, deleting one asks."""

import re
from typing import TYPE_CHECKING, Annotated

import typer

from alpacli.cli.output import View
from alpacli.cli.previews import one
from alpacli.cli.run import Run
from alpacli.domain.account import Watchlist
from alpacli.domain.symbols import spelled
from alpacli.domain.values import Model
from alpacli.errors import AlpacliError, NotFound
from alpacli.wire import rest

if TYPE_CHECKING:
    from rich.console import RenderableType

    from alpacli.broker.client import AlpacaClient
    from alpacli.render.text import Frame

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_ONE = View(Watchlist, "watchlist")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The watchlist's name or ID.")]
Symbols = Annotated[list[str], typer.Argument(metavar="SYMBOL")]


class Deleted(Model):
    """What ``watchlist delete`` answers."""

    id: str
    name: str
    deleted: bool


def list_(run: Run) -> None:
    """Show all watchlists."""
    run.show(View(list[Watchlist], "watchlists"), lambda client: run.read(client, rest.watchlists()))


def show(run: Run, name: Name) -> None:
    """Show one watchlist and its assets."""
    call = rest.watchlist(name.lower()) if _UUID.fullmatch(name) else rest.watchlist_by_name(name)
    run.show(_ONE, lambda client: run.read(client, call))


def create(
    run: Run,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A new name, at most 64 characters.")],
    symbols: Annotated[list[str] | None, typer.Argument(metavar="SYMBOL", show_default=False)] = None,
) -> None:
    """Create a watchlist."""
    run.promised(_ONE, of_change=True, dry=one())
    call = rest.create_watchlist(name, symbols or ())
    if run.options.dry_run:
        run.preview(call)
        return
    with run.client() as client:
        _show_changed(run, _changed(client, call), "created")


def add(run: Run, name: Name, symbols: Symbols) -> None:
    """Add symbols to a watchlist."""
    _change(run, name, [(rest.add_to_watchlist, symbol) for symbol in symbols])


def remove(run: Run, name: Name, symbols: Symbols) -> None:
    """Remove symbols from a watchlist."""
    _change(run, name, [(rest.remove_from_watchlist, symbol) for symbol in symbols])


def _change(run: Run, name: str, steps: list[tuple["_Step", str]]) -> None:
    run.promised(_ONE, of_change=True, dry=one())
    with run.client() as client:
        watchlist = _find(client, name)
        done: list[str] = []
        for make, symbol in steps:
            call = make(watchlist.id, symbol)
            if run.options.dry_run:
                run.preview(call)
                continue
            try:
                watchlist = _changed(client, call)
            except AlpacliError:
                if done:
                    run.printer.notice(f"the change is made for {', '.join(done)} only")
                raise
            done.append(spelled(symbol))
        if not run.options.dry_run:
            _show_changed(run, watchlist, "changed")


def delete(run: Run, name: Name) -> None:
    """Delete a watchlist."""
    view = run.promised(View(Deleted, _deleted), of_change=True, dry=one())
    with run.client() as client:
        watchlist = _find(client, name)
        call = rest.delete_watchlist(watchlist.id)
        if run.options.dry_run:
            run.preview(call)
            return
        run.confirm([f"delete the watchlist {watchlist.name!r} with {len(watchlist.assets or ())} assets"])
        client.change(call)
        gone = Deleted(id=watchlist.id, name=watchlist.name, deleted=True)
        run.show_change(view, gone, f"the watchlist {watchlist.name!r} was deleted: {watchlist.id}")


def _show_changed(run: Run, watchlist: Watchlist, how: str) -> None:
    hint = f"`alpacli watchlist show {watchlist.id}` shows it"
    run.show_change(_ONE, watchlist, f"the watchlist {watchlist.name!r} was {how}: {watchlist.id}", hint)


def _changed(client: "AlpacaClient", call: "Call[Watchlist]") -> Watchlist:
    """Send a change of a list that was found a moment ago, or is new: what is not found then is a symbol."""
    try:
        return client.change(call)
    except NotFound as error:
        error.hint = "`alpacli assets` lists the symbols"
        raise


def _find(client: "AlpacaClient", name: str) -> Watchlist:
    if _UUID.fullmatch(name):
        return client.get_watchlist(name.lower(), use_cache=False)
    return client.get_watchlist_by_name(name, use_cache=False)


def _deleted(value: Deleted, frame: "Frame") -> "RenderableType":
    from rich.text import Text

    from alpacli.render.grid import page

    return page(Text(f"Deleted the watchlist {value.name}."), frame)


if TYPE_CHECKING:
    from collections.abc import Callable

    from alpacli.wire.rest import Call

    _Step = Callable[[str, str], Call[Watchlist]]
