"""The whole command tree as data: what completion, the manual page and ``alpacli commands --json`` read.

``commands.tsv`` beside this module is the tree of this version, written by ``make golden`` and compared with the program by
the tests: no command, option or value changes unnoticed, and completion never loads Typer. A line is a parameter, each once,
or a command with the keys of its own. As JSON it cost completion a library that it needs for nothing else.
"""

import os
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

FILE: Final = os.path.join(os.path.dirname(__file__), "commands.tsv")


class Parameter(NamedTuple):
    """An option (``names`` begin with dashes) or an argument. ``values`` are all that it takes, when they can be listed."""

    names: tuple[str, ...]
    metavar: str
    help: str
    panel: str
    required: bool
    repeatable: bool
    values: tuple[str, ...]

    @property
    def is_option(self) -> bool:
        return self.names[0].startswith("-")

    @property
    def takes_value(self) -> bool:
        return bool(self.metavar)


class Command(NamedTuple):
    """A command, or a group of ``commands``. ``name`` is the whole path (``cache clear``)."""

    name: str
    help: str
    about: str
    panel: str
    parameters: "tuple[Parameter, ...]"
    commands: "tuple[Command, ...]"


def load() -> Command:
    """Return the tree that this version was built with."""
    parameters: dict[str, Parameter] = {}
    below: dict[str, list[list[str]]] = {"": []}
    with open(FILE, encoding="utf-8") as file:
        (_, *top), *lines = (line.rstrip("\n").split("\t") for line in file)
    for kind, *fields in lines:
        if kind == "command":
            below[fields[0]] = []
            below[fields[0].rpartition(" ")[0]].append(fields)
        else:
            key, names, metavar, help_, panel, required, repeatable, values = fields
            parameters[key] = Parameter(
                tuple(names.split()), metavar, help_, panel, bool(required), bool(repeatable), tuple(values.split())
            )

    def made(name: str, help_: str, about: str, panel: str, keys: str) -> Command:
        inner = tuple(made(*fields) for fields in below[name])
        return Command(name, help_, about, panel, tuple(parameters[key] for key in keys.split()), inner)

    return made(*top)


def walk(command: Command) -> Iterator[Command]:
    """Yield a command and everything below it, in the order of the help."""
    yield command
    for inner in command.commands:
        yield from walk(inner)


def built() -> Command:
    """Read the tree off the program itself: every command is imported and built."""
    from alpacli.cli.app import COMMANDS, program

    top = program()
    inner = tuple(_built(name, name, entry) for name, entry in COMMANDS.items())
    return Command("", _first_line(top.help), "", "", tuple(_parameters(top)), inner)


def _built(
    path: str, name: str, entry: Any
) -> Command:  # Any: an Entry; importing its type would load Typer for completion
    from alpacli.cli.app import build

    if entry.commands is not None:
        inner = tuple(_built(f"{path} {below}", below, found) for below, found in entry.commands.items())
        return Command(path, entry.help, "", entry.panel, (), inner)
    made = build(name, entry)
    about = " ".join((made.help or "").split())
    return Command(path, entry.help, about if about != entry.help else "", entry.panel, tuple(_parameters(made)), ())


def _parameters(made: Any) -> Iterator[Parameter]:  # Any: Typer's own command type
    from typer.core import TyperOption

    for parameter in made.params:
        option = isinstance(parameter, TyperOption)
        flag = option and parameter.is_flag
        metavar = "" if flag else (parameter.metavar or (parameter.name or "").upper()).strip("[].")
        yield Parameter(
            names=(*parameter.opts, *parameter.secondary_opts) if option else (metavar,),
            metavar=metavar,
            help=parameter.help or "",
            panel=(parameter.rich_help_panel or "") if option else "",
            required=parameter.required,
            repeatable=(parameter.multiple if option else parameter.nargs == -1),
            values=_values(metavar, parameter.opts[0]),
        )


def _values(metavar: str, name: str) -> tuple[str, ...]:
    """Return what ``buy|sell`` lists, of ``N|all`` only ``all``; or what an option takes whose list its help spells out."""
    from typing import get_args

    from alpacli.cli.export import FORMATS
    from alpacli.domain import series, tickets
    from alpacli.gateway.tokens import SCOPES
    from alpacli.streams.feeds import FEEDS

    values = metavar.split("|")
    if len(values) > 1:
        return tuple(value for value in values if not (value.isalpha() and value.isupper()))
    return {
        ("--side", "SIDE"): tickets.SIDES,
        ("--type", "TYPE"): tickets.TYPES,
        ("--tif", "TIF"): tickets.TIMES_IN_FORCE,
        ("--order-class", "CLASS"): tickets.CLASSES,
        ("--position-intent", "INTENT"): tickets.INTENTS,
        ("--class", "CLASS"): get_args(tickets.AssetClass),
        ("--feed", "NAME"): series.STOCK_FEEDS,
        ("--feed", "FEED"): tuple(FEEDS),
        ("--adjustment", "NAME"): series.ADJUSTMENTS,
        ("--format", "NAME"): FORMATS,
        ("--scope", "A,B"): SCOPES,
    }.get((name, metavar), ())


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]


def expanded(command: Command) -> dict[str, Any]:
    """Return a command and everything below it as plain data, each parameter written out."""
    return {
        **command._asdict(),
        "parameters": [_plain(parameter) for parameter in command.parameters],
        "commands": [expanded(inner) for inner in command.commands],
    }


def to_text(tree: Command) -> str:
    """Return what ``commands.tsv`` holds: the commands, each before what is below it, and the parameters of all of them."""
    keys: dict[Parameter, str] = {}
    taken: dict[str, int] = {}
    commands = []
    for command in walk(tree):
        for parameter in command.parameters:
            if parameter not in keys:
                name = parameter.names[0]
                taken[name] = taken.get(name, 0) + 1
                keys[parameter] = name if taken[name] == 1 else f"{name}.{taken[name]}"
        used = " ".join(keys[parameter] for parameter in command.parameters)
        commands.append(("command", command.name, command.help, command.about, command.panel, used))
    parameters = [
        (
            *("parameter", key, " ".join(given.names), given.metavar, given.help, given.panel),
            *("required" * given.required, "repeatable" * given.repeatable, " ".join(given.values)),
        )
        for given, key in keys.items()
    ]
    return "".join("\t".join(fields) + "\n" for fields in (*commands, *parameters))


def _plain(parameter: Parameter) -> dict[str, Any]:
    return {**parameter._asdict(), "names": list(parameter.names), "values": list(parameter.values)}
