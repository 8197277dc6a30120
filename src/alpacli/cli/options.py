"""The options that commands have in common, before or after the name, added to each command's own by ``command``.

A command is ``def account(run: Run, …) -> None`` with its own parameters only; Typer sees the common ones through the
signature that ``command`` builds. ``hoist`` moves common options that stand before the name behind it.
"""

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal, NamedTuple

import typer

from alpacli.errors import UsageError

Kind = Literal["read", "change", "download", "local", "record", "serve", "stream", "replay", "file", "text"]

_OUTPUT: Final = "Output"
_SOURCE: Final = "Where the data comes from"
_CHANGE: Final = "Before something changes"


class Options(NamedTuple):
    """The common options as given; ``None`` and false mean not said. Times are in seconds."""

    json: bool = False
    csv: bool = False
    jq: str | None = None
    fields: str | None = None
    schema: bool = False
    tz: str = "ET"
    no_color: bool = False
    quiet: bool = False
    verbose: bool = False
    refresh: bool = False
    max_age: float | None = None
    max_wait: float | None = None
    timeout: float | None = None
    watch: float | None = None
    only_if_open: bool = False
    profile: str | None = None
    sim: bool = False
    yes: bool = False
    dry_run: bool = False


def option(help_: str, *names: str, metavar: str | None = None, panel: str | None = None) -> Any:
    """Describe an option whose default is not worth showing: it means that nothing was said."""
    return typer.Option(*names, metavar=metavar, help=help_, rich_help_panel=panel, show_default=False)


def _flag(name: str, help_text: str, panel: str) -> Any:
    return Annotated[bool, option(help_text, name, panel=panel)]


def _value(kind: Any, name: str, metavar: str, help_text: str, panel: str) -> Any:
    return Annotated[kind, option(help_text, name, metavar=metavar, panel=panel)]


_READING: Final[dict[str, Any]] = {
    "json": _flag("--json", "Print the data as JSON, with every digit.", _OUTPUT),
    "csv": _flag("--csv", "Print CSV with a header row.", _OUTPUT),
    "jq": _value(str | None, "--jq", "EXPR", "Run a jq program over the JSON; strings come out raw.", _OUTPUT),
    "fields": _value(str | None, "--fields", "A,B", "Show only these fields, in this order.", _OUTPUT),
    "schema": _flag("--schema", "Print the JSON Schema of the JSON output and send nothing.", _OUTPUT),
    "tz": _value(str, "--tz", "ZONE", "Show times in this zone: local, utc, ET (default) or a name.", _OUTPUT),
    "no_color": _flag("--no-color", "Use no color; NO_COLOR does the same.", _OUTPUT),
    "quiet": _flag("--quiet", "Say nothing on stderr but errors.", _OUTPUT),
    "verbose": _flag("--verbose", "Say more on stderr; errors come with a traceback.", _OUTPUT),
    "watch": _value(float | None, "--watch", "SECONDS", "Read and print again and again.", _OUTPUT),
    "refresh": _flag("--refresh", "Skip the cache.", _SOURCE),
    "max_age": _value(float | None, "--max-age", "SECONDS", "Take cached data up to this age.", _SOURCE),
    "max_wait": _value(float | None, "--max-wait", "SECONDS", "Wait at most this long for the budget.", _SOURCE),
    "timeout": _value(float | None, "--timeout", "SECONDS", "Wait at most this long for an answer.", _SOURCE),
    "only_if_open": _flag("--only-if-open", "Do nothing, silently, while the market is closed.", _SOURCE),
    "profile": _value(str | None, "--profile", "NAME", "Use this account of the profile file.", _SOURCE),
    "sim": _flag("--sim", "Use the offline exchange on this machine.", _SOURCE),
}
_CHANGING: Final[dict[str, Any]] = {
    "yes": _flag("--yes", "Ask nothing.", _CHANGE),
    "dry_run": _flag("--dry-run", "Show what would be done, to the exact request, and do nothing.", _CHANGE),
}
_REPEATABLE: Final = ("watch", "refresh", "max_age", "only_if_open")
_STREAMING: Final = (
    *("json", "jq", "fields", "schema", "tz", "no_color", "quiet", "verbose", "max_wait", "timeout", "profile", "sim"),
)
_TAKES: Final[dict[str, dict[str, Any]]] = {
    "read": _READING,
    "change": {name: kind for name, kind in (_READING | _CHANGING).items() if name not in _REPEATABLE},
    "local": {name: kind for name, kind in _READING.items() if name not in _REPEATABLE},
    "record": {name: kind for name, kind in _READING.items() if name not in ("watch", "refresh", "max_age")},
    "download": {name: kind for name, kind in _READING.items() if name == "refresh" or name not in _REPEATABLE}
    | {"refresh": _flag("--refresh", "Ask for everything again, also what is kept.", _SOURCE)},
    "stream": {name: _READING[name] for name in _STREAMING},
    "replay": {name: _READING[name] for name in ("json", "schema", "quiet", "verbose", "no_color")},
    "serve": {name: _READING[name] for name in ("quiet", "verbose", "no_color", "profile", "sim")},
    "file": {name: _READING[name] for name in ("quiet", "verbose", "no_color", "profile", "sim")},
    "text": {name: _READING[name] for name in ("quiet", "verbose", "no_color")},
}
"""Which common options each kind of command takes; one that means nothing there is refused, not ignored."""

_NAMES: Final = {
    "--" + name.replace("_", "-"): typing.get_args(kind)[0] is not bool for name, kind in (_READING | _CHANGING).items()
}


def command(function: Callable[..., None], make_run: Callable[[Options, str], Any], kind: Kind) -> Callable[..., None]:
    """Return the function as Typer should see it: its own parameters, then the common ones of its kind."""
    common = _TAKES[kind]
    defaults = Options()._asdict()
    own = inspect.signature(function, eval_str=True)
    parameters = [parameter for parameter in own.parameters.values() if parameter.name != "run"]
    parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    for name, annotation in common.items():
        parameters.append(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=defaults[name])
        )
    taken = set(common)

    label = function.__name__.replace("_", " ")

    def invoke(**given: Any) -> None:
        options = Options(**{name: given[name] for name in taken})
        _check_seconds(options)
        function(make_run(options, label), **{name: value for name, value in given.items() if name not in taken})

    invoke.__name__ = function.__name__
    invoke.__doc__ = function.__doc__
    invoke.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined] # what inspect.signature reads
    invoke.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return invoke


_LEAST_S: Final = {"max_age": 0.0, "max_wait": 0.0, "timeout": 0.001, "watch": 0.1}


def _check_seconds(options: Options) -> None:
    """Refuse what is no span of time: negative, infinite, not a number."""
    for name, least in _LEAST_S.items():
        value = getattr(options, name)
        if value is not None and not least <= value < 1e9:
            option = "--" + name.replace("_", "-")
            raise UsageError(f"{option} is {value:g}", f"give a number of seconds from {least:g} to 999999999")


def read_speed(text: str) -> float | None:
    """Return how many times as fast ``--speed`` makes it; ``None`` is as fast as possible."""
    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0 < speed < 1e9:
        raise UsageError(f"--speed is {text!r}", "give a number above 0, like 60, or max")
    return speed


def hoist(args: Sequence[str], names: Mapping[str, Any]) -> list[str]:
    """Return the arguments with common options that stand before the command's name moved behind it.

    ``names`` is the command table: a group's entry has a mapping of its own under ``commands``, and may have a ``default``.

    Raises:
        UsageError: common options and no command.
    """
    path: list[str] = []
    moved: list[str] = []
    level: Mapping[str, Any] | None = names
    default = ""
    place = 0
    while place < len(args) and level is not None:
        arg = args[place]
        if arg.startswith("-"):
            name, equals, _ = arg.partition("=")
            if name not in _NAMES:
                break
            width = 2 if _NAMES[name] and not equals else 1
            moved += args[place : place + width]
            place += width
            continue
        path.append(arg)
        place += 1
        default = level[arg].default if arg in level else ""
        level = level[arg].commands if arg in level else None
    if level is not None and default:
        path.append(default)
        level = None
    rest = list(args[place:])
    if level is not None and moved:
        if not rest:
            group = " ".join(["alpacli", *path])
            raise UsageError("no command was given", f"{group} --help lists the commands")
        moved = []  # a group and --help, or an option that the group will refuse
    if level is not None and not rest:
        rest = ["--help"]
    return [*path, *moved, *rest]
