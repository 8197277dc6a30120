"""The whole program: a table of commands, of which only the one that is called is imported and built.

Typer builds an adapter for every option of every command it knows, which would cost more than most answers. Help at the
top level shows stubs that carry a name and a line of help.
"""

import gc
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Annotated, Any, Final, NamedTuple

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from alpacli.cli.failures import OutputClosed, report, unwritten
from alpacli.cli.options import Kind, command, hoist
from alpacli.errors import OutputFailed

_READ: Final = "Read"
_TRADE: Final = "Trade"
_LIVE: Final = "Market data"
_HISTORY: Final = "History"
_LOCAL: Final = "Local"
_CONTEXT: Final = {"help_option_names": ["--help", "-h"], "max_content_width": 100}


class Entry(NamedTuple):
    """A command, ``module:function`` under ``alpacli.cli``, or a group with ``commands`` of its own.

    ``default`` is the command of a group that is meant when none is named.
    """

    help: str
    home: str = ""
    panel: str = ""
    kind: Kind = "read"
    commands: "Mapping[str, Entry] | None" = None
    default: str = ""


COMMANDS: Final[Mapping[str, Entry]] = {
    "account": Entry("Show balances, buying power and the day's gain.", "read:account", _READ),
    "positions": Entry("Show open positions, all or the named ones.", "read:positions", _READ),
    "orders": Entry("Show orders, open and done.", "read:orders", _READ),
    "order": Entry("Show one order by its ID, with its legs.", "read:order", _READ),
    "clock": Entry("Show whether the market is open.", "read:clock", _READ),
    "calendar": Entry("Show trading days and their hours.", "read:calendar", _READ),
    "assets": Entry("Show what can be traded.", "read:assets", _READ),
    "activities": Entry("Show fills, dividends, fees and transfers.", "read:activities", _READ),
    "portfolio": Entry("Draw the equity curve and show its numbers.", "read:portfolio", _READ),
    "watchlist": Entry(
        "Show and change watchlists.",
        panel=_READ,
        commands={
            "list": Entry("Show all watchlists.", "watchlists:list_"),
            "show": Entry("Show one watchlist and its assets.", "watchlists:show"),
            "create": Entry("Create a watchlist.", "watchlists:create", kind="change"),
            "add": Entry("Add symbols to a watchlist.", "watchlists:add", kind="change"),
            "remove": Entry("Remove symbols from a watchlist.", "watchlists:remove", kind="change"),
            "delete": Entry("Delete a watchlist.", "watchlists:delete", kind="change"),
        },
    ),
    "buy": Entry("Buy: at the market, or with a limit, a stop, exits.", "trade:buy", _TRADE, kind="change"),
    "sell": Entry("Sell what is held, or sell short.", "trade:sell", _TRADE, kind="change"),
    "submit": Entry("Place an order with any field, or many from a file.", "trade:submit", _TRADE, kind="change"),
    "replace": Entry("Change an open order.", "trade:replace", _TRADE, kind="change"),
    "cancel": Entry("Cancel orders, or all of them.", "trade:cancel", _TRADE, kind="change"),
    "close": Entry("Close a position, or all of them.", "trade:close", _TRADE, kind="change"),
    "halt": Entry("Refuse new risk from now on; cancels and closes pass.", "safety:halt", _TRADE, kind="change"),
    "resume": Entry("Let orders through again after a halt.", "safety:resume", _TRADE, kind="change"),
    "audit": Entry(
        "Show and check the record of every order action.",
        panel=_TRADE,
        commands={
            "list": Entry("Show the last order actions.", "safety:audit_list", kind="local"),
            "verify": Entry("Check that no line was changed or removed.", "safety:audit_verify", kind="local"),
        },
    ),
    "quote": Entry("Show the latest trade, quote and day's bar.", "market:quote", _LIVE),
    "bars": Entry("Download bars, exact, and never twice.", "market:bars", _LIVE, kind="download"),
    "trades": Entry("Download trades as they were reported.", "market:trades", _LIVE, kind="download"),
    "quotes": Entry("Download every change of bid and offer.", "market:quotes", _LIVE, kind="download"),
    "news": Entry("Show headlines.", "market:news", _LIVE),
    "stream": Entry("Watch trades and quotes as they happen.", "stream:stream", _LIVE, kind="stream"),
    "snapshot": Entry(
        "Record the account, its positions and open orders.",
        panel=_HISTORY,
        commands={
            "take": Entry(
                "Record it now, once a period; this is meant when none is named.", "snapshot:snapshot", kind="record"
            ),
            "install": Entry("Have it done again and again.", "snapshot:install", kind="change"),
        },
        default="take",
    ),
    "history": Entry(
        "Everything that happened, and what it earned.",
        panel=_HISTORY,
        commands={
            "sync": Entry("Bring in all orders, fills and other activities.", "history:sync", kind="local"),
            "orders": Entry("Show orders that were brought in.", "history:orders", kind="local"),
            "fills": Entry("Show fills that were brought in.", "history:fills", kind="local"),
            "activities": Entry("Show fills, dividends, fees and the rest.", "history:activities", kind="local"),
            "snapshots": Entry("Show the record of snapshots, or one whole.", "history:snapshots", kind="local"),
            "pnl": Entry("Show what was earned, and how well that agrees.", "history:pnl", kind="local"),
            "equity": Entry("Draw the equity curve.", "history:equity", kind="local"),
            "stats": Entry("Show return, risk and trading numbers.", "history:stats", kind="local"),
            "positions": Entry("Show what was held at a time.", "history:positions", kind="local"),
            "closed": Entry("Show what was closed, lot by lot.", "history:closed", kind="local"),
            "export": Entry("Write a CSV, JSON lines or Parquet file.", "history:export", kind="file"),
            "report": Entry("Write one page of HTML.", "history:report", kind="file"),
        },
    ),
    "data": Entry(
        "Look after the market history that is kept.",
        panel=_LOCAL,
        commands={
            "ls": Entry("Show what is kept.", "data:ls", kind="local"),
            "verify": Entry("Read every file and check it.", "data:verify", kind="local"),
            "prune": Entry("Remove what is not needed any more.", "data:prune", kind="change"),
            "sql": Entry("Query what is kept.", "data:sql", kind="local"),
        },
    ),
    "limits": Entry("Show the shared request budget and who waits.", "local:limits", _LOCAL),
    "cache": Entry(
        "Show and clear the shared cache.",
        panel=_LOCAL,
        commands={
            "clear": Entry("Forget cached answers of this account.", "local:cache_clear", kind="change"),
            "stats": Entry("Show hit rate, size and ages.", "local:cache_stats"),
        },
    ),
    "serve": Entry(
        "Serve this account to other programs: HTTP and WebSocket.",
        panel=_LOCAL,
        commands={
            "run": Entry("Serve until Ctrl-C; `serve` alone means this.", "gateway:serve", kind="serve"),
            "token": Entry("Mint a token for a client.", "gateway:token", kind="serve"),
            "tokens": Entry("List tokens, and revoke them.", "gateway:tokens", kind="change"),
            "hooks": Entry(
                "Look after webhooks: order updates, posted to a URL.",
                commands={
                    "add": Entry("Post each order update to a URL.", "hooks:add", kind="change"),
                    "list": Entry("Show the webhooks and how they stand.", "hooks:list_", kind="local"),
                    "remove": Entry("Remove a webhook.", "hooks:remove", kind="change"),
                    "test": Entry("Queue a test event for a webhook.", "hooks:test", kind="change"),
                },
            ),
        },
        default="run",
    ),
    "demo": Entry("Give the offline account positions and orders to look at.", "simulate:demo", _LOCAL, kind="change"),
    "sim": Entry(
        "Look after the offline exchange.",
        panel=_LOCAL,
        commands={
            "status": Entry("Show what the offline exchange holds.", "simulate:status", kind="local"),
            "reset": Entry("Begin again with an empty exchange.", "simulate:reset", kind="change"),
            "serve": Entry("Serve the offline exchange over HTTP.", "simulate:serve", kind="serve"),
            "replay": Entry("Run the exchange on a past day, from files.", "replaying:replay", kind="replay"),
        },
    ),
    "login": Entry("Store a paper key pair, after asking whether it is good.", "login:login", _LOCAL, kind="change"),
    "logout": Entry("Remove a stored key pair.", "login:logout", _LOCAL, kind="change"),
    "profile": Entry(
        "Look after several accounts.",
        panel=_LOCAL,
        commands={
            "add": Entry("Add a profile for a gateway on another machine.", "login:profile_add", kind="change"),
            "list": Entry("Show the profiles and which one is chosen.", "profiles:profile_list", kind="local"),
            "use": Entry("Choose the profile that is used by default.", "profiles:profile_use", kind="change"),
            "show": Entry("Show what a profile sets.", "profiles:profile_show", kind="local"),
            "rename": Entry("Give a profile another name.", "profiles:profile_rename", kind="change"),
            "delete": Entry("Delete a profile and its secret.", "profiles:profile_delete", kind="change"),
        },
    ),
    "config": Entry(
        "Show the settings that are used.",
        panel=_LOCAL,
        commands={
            "show": Entry("Show every setting and where it comes from.", "profiles:config_show", kind="local"),
        },
    ),
    "doctor": Entry(
        "Check everything that commands depend on, and say what to mend.", "doctor:doctor", _LOCAL, kind="local"
    ),
    "version": Entry("Show the version and what it runs on.", "guide:version", _LOCAL, kind="local"),
    "help": Entry("Explain a topic or a command.", "guide:help_", _LOCAL, kind="text"),
    "commands": Entry("Show every command, or the whole tree as JSON.", "guide:commands", _LOCAL, kind="local"),
    "completion": Entry("Print the completion script of a shell.", "guide:completion", _LOCAL, kind="text"),
}


class LazyGroup(TyperGroup):
    """A group whose commands are stubs until one is called."""

    table: Mapping[str, Entry] = COMMANDS

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for name, entry in self.table.items():
            stub = TyperCommand(name, help=entry.help, rich_help_panel=entry.panel or None, add_help_option=False)
            self.commands[name] = stub

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        entry = self.table.get(args[0])
        if entry is None:
            return super().resolve_command(ctx, args)
        return args[0], build(args[0], entry), args[1:]


class _Unchecked(TyperOption):
    """An option of which neither the default nor plain text is validated: one validator costs more than the whole answer."""

    def process_value(self, ctx: Any, value: Any) -> Any:
        if _only_the_schema(self, ctx, value):
            return self.metavar
        is_default = value is self.default and not self.required
        return value if is_default or _is_text(self, value) else super().process_value(ctx, value)


class _UncheckedArgument(TyperArgument):
    """An argument whose plain text is not validated, and that nobody has to give who only asks for the schema."""

    def process_value(self, ctx: Any, value: Any) -> Any:
        if _only_the_schema(self, ctx, value):
            placeholder = self.metavar or "X"  # of the right kind, never sent
            return (placeholder,) if self.nargs == -1 else placeholder
        return value if _is_text(self, value) else super().process_value(ctx, value)


def _only_the_schema(parameter: TyperOption | TyperArgument, ctx: Any, value: Any) -> bool:
    """Tell whether something that is required is missing and not needed: nothing will be done with it."""
    return value is None and parameter.required and bool(ctx.params.get("schema"))


def _is_text(parameter: TyperOption | TyperArgument, value: Any) -> bool:
    return isinstance(value, str) and parameter.type_descriptor.annotation in (str, str | None)


def build(name: str, entry: Entry) -> Any:
    """Import and build one command, or a group of stubs."""
    app = typer.Typer(add_completion=False)
    if entry.commands is not None:
        group = type("Group", (LazyGroup,), {"table": entry.commands})
        app.callback(cls=group, help=entry.help, context_settings=_CONTEXT, no_args_is_help=True)(_nothing)
        return typer.main.get_group(app)
    from alpacli.cli.run import Run

    module, _, function = entry.home.partition(":")
    target = getattr(import_module(f"alpacli.cli.{module}"), function)
    gc.freeze()  # what has loaded stays to the end: looking through it again and again took a quarter of a short command
    gc.enable()
    help_ = _unwrapped(target.__doc__ or entry.help)
    app.command(name, help=help_, context_settings=_CONTEXT)(command(target, Run, entry.kind))
    built = typer.main.get_command(app)
    for parameter in built.params:
        if isinstance(parameter, TyperOption) and parameter.callback is None:
            parameter.__class__ = _Unchecked
        elif isinstance(parameter, TyperArgument) and parameter.callback is None:
            parameter.__class__ = _UncheckedArgument
    return built


def _unwrapped(docstring: str) -> str:
    """Return the text with one line a paragraph: where it is wrapped is the terminal's to say."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in docstring.split("\n\n"))


def _nothing() -> None:
    """Stand in for a group's own action: there is none."""


def _version(wanted: bool) -> None:  # noqa: FBT001 # Typer calls a callback with the value alone
    if wanted:
        from alpacli import __version__

        typer.echo(f"alpacli {__version__}")
        raise typer.Exit


def _top(
    version: Annotated[  # noqa: FBT002 # a flag; its callback answers
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Alpaca paper trading: accounts, positions and orders, with a cache and a request budget that all processes share."""


def program() -> Any:
    """Return the top-level group."""
    app = typer.Typer(add_completion=False)
    app.callback(cls=LazyGroup, context_settings=_CONTEXT, no_args_is_help=True)(_top)
    return typer.main.get_group(app)


def run(args: Sequence[str]) -> int:
    """Run a command line and return its exit code; no exception leaves, and no traceback unless --verbose."""
    try:
        return _finish(_invoke(args))
    except BaseException as error:  # noqa: BLE001 # the top: every failure ends as an exit code
        code = report(error, args)
        with suppress(OutputClosed, OutputFailed):
            _finish(code)  # what is still buffered fails here, and not at the interpreter's end with a code of its own
        return code


def _invoke(args: Sequence[str]) -> int:
    try:
        result = program().main(hoist(args, COMMANDS), prog_name="alpacli", standalone_mode=False)
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # Typer ends so when the reader of its help left
            raise OutputClosed from error
        return error.code if isinstance(error.code, int) else 1
    return result if isinstance(result, int) else 0


def _finish(code: int) -> int:
    """Flush what Typer printed (help, version), so that a reader who left is noticed here."""
    try:
        sys.stdout.flush()
    except OSError as error:
        from alpacli.cli.output import discard_stdout

        discard_stdout()
        raise (OutputClosed if isinstance(error, BrokenPipeError) else unwritten(error)) from error
    return code
