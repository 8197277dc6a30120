"""Commands about the program itself: ``help``, ``commands``, ``completion``, ``version``. They read and send nothing."""

import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from alpacli.cli.output import View
from alpacli.cli.run import Run
from alpacli.domain.values import Model
from alpacli.errors import UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from alpacli.cli.tree import Command
    from alpacli.render.text import Frame


class ParameterShown(Model):
    """An option (its names begin with dashes) or an argument; ``metavar`` is empty for a flag."""

    names: list[str]
    metavar: str
    help: str
    panel: str
    required: bool
    repeatable: bool
    values: list[str]


class CommandShown(Model):
    """A command, or a group with ``commands``; ``name`` is its whole path, ``about`` what its help adds to ``help``."""

    name: str
    help: str
    about: str
    panel: str
    parameters: list[ParameterShown]
    commands: "list[CommandShown]"


class VersionShown(Model):
    """What runs here. ``engine`` is that of the offline exchange: compiled to machine code, or Python like all the rest."""

    version: str
    engine: Literal["compiled", "python"]
    python: str
    alpaca_py: str
    platform: str


def help_(
    run: Run,
    subject: Annotated[
        list[str] | None,
        typer.Argument(metavar="exit-codes|environment|json|cron", help="A topic, or a command.", show_default=False),
    ] = None,
) -> None:
    """Explain a topic or a command."""
    from alpacli.cli.app import program
    from alpacli.cli.topics import TOPICS

    words = subject or []
    topic = TOPICS.get(words[0]) if len(words) == 1 else None
    if topic is not None:
        run.printer.write(topic.text.encode())
        return
    if words and not _exists(words):
        known = ", ".join(TOPICS)
        raise UsageError(
            f"there is no command and no topic {' '.join(words)!r}", f"topics are {known}; or name a command"
        )
    program().main([*words, "--help"], prog_name="alpacli", standalone_mode=False)
    if not words:
        lines = "".join(f"  alpacli help {name:<12} {about.title}\n" for name, about in TOPICS.items())
        run.printer.write(f"Topics:\n{lines}".encode())


def _exists(words: list[str]) -> bool:
    from alpacli.cli.app import COMMANDS

    level: Any = COMMANDS
    for word in words:
        if not level or word not in level:
            return False
        level = level[word].commands
    return True


def commands(run: Run) -> None:
    """Show every command; with --json the whole tree with its options."""
    view = run.promised(View(CommandShown, _commands_table, rows=_rows))
    from alpacli.cli.tree import expanded, load

    run.show_value(view, CommandShown.model_validate(expanded(load())))


def completion(
    run: Run,
    shell: Annotated[str, typer.Argument(metavar="bash|zsh|fish", help="Your shell.")],
) -> None:
    """Print the script that makes a shell complete alpacli: commands, options, values, symbols, order IDs."""
    from alpacli.cli.completion import SCRIPTS

    script = SCRIPTS.get(shell)
    if script is None:
        raise UsageError(f"no completion for {shell!r}", f"choose among {', '.join(SCRIPTS)}")
    run.printer.write(script.encode())
    if sys.stdout.isatty():
        run.printer.notice(script.splitlines()[1 if shell == "zsh" else 0].lstrip("# "))


def version(run: Run) -> None:
    """Show the version, whether the offline exchange's engine is compiled, and what it all runs on."""
    view = run.promised(View(VersionShown, _version_table))
    import platform
    from importlib import metadata

    import alpacli

    shown = VersionShown(
        version=alpacli.__version__,
        engine="compiled" if engine_is_compiled() else "python",
        python=platform.python_version(),
        alpaca_py=metadata.version("alpaca-py"),
        platform=f"{platform.system()} {platform.machine()}",
    )
    run.show_value(view, shown)


def engine_is_compiled() -> bool:
    """Tell whether the engine of the offline exchange that would be loaded is machine code."""
    from importlib.util import find_spec

    engine = find_spec("alpacli.sim.engine")
    return engine is not None and not str(engine.origin).endswith(".py")


def _version_table(value: VersionShown, frame: "Frame") -> "RenderableType":
    from alpacli.render.grid import facts, page

    engine = "compiled" if value.engine == "compiled" else "Python, not compiled"
    lines = [
        ("alpacli", value.version),
        ("Exchange's engine", engine),
        ("Python", value.python),
        ("alpaca-py", value.alpaca_py),
        ("Platform", value.platform),
    ]
    return page(facts(lines), frame)


def _rows(tree: Any) -> list[dict[str, str]]:
    """Return one row for each command that can be run."""
    if tree["commands"]:
        return [row for inner in tree["commands"] for row in _rows(inner)]
    return [{"name": tree["name"], "help": tree["help"]}]


def _commands_table(value: CommandShown, frame: "Frame") -> "RenderableType":
    from alpacli.render.grid import facts, page

    def leaves(command: "CommandShown | Command") -> "list[tuple[str, str]]":
        if command.commands:
            return [leaf for inner in command.commands for leaf in leaves(inner)]
        return [(command.name, command.help)]

    return page(facts(leaves(value)), frame)
