"""The manual page, ``alpacli.1``: the command tree and the help topics as roff. Pure; made when the package is built."""

from collections.abc import Iterator

from alpacli.cli.topics import TOPICS
from alpacli.cli.tree import Command, Parameter, walk


def manual(tree: Command, version: str) -> str:
    """Return the page as roff text."""
    return "\n".join(_page(tree, version)) + "\n"


def _page(tree: Command, version: str) -> Iterator[str]:
    yield f'.TH ALPACLI 1 "" "alpacli {_text(version)}" "User Commands"'
    yield ".SH NAME"
    yield r"alpacli \- Alpaca paper trading from the command line"
    yield ".SH SYNOPSIS"
    yield ".B alpacli"
    yield r"[\fIOPTION\fR]... \fICOMMAND\fR [\fIARGUMENT\fR]..."
    yield ".SH DESCRIPTION"
    yield _text(tree.help)
    for parameter in tree.parameters:
        yield from _option(parameter)
    yield from _common(tree)
    yield ".SH COMMANDS"
    shared = {parameter for parameter, _ in _shared(tree)}
    for command in walk(tree):
        if not command.name or command.commands:
            continue
        arguments = " ".join(_argument(parameter) for parameter in command.parameters if not parameter.is_option)
        yield f".SS alpacli {_text(command.name)} {arguments}".rstrip()
        yield _text(command.about or command.help)
        for parameter in command.parameters:
            if parameter.is_option and parameter not in shared:
                yield from _option(parameter)
    for name, topic in TOPICS.items():
        yield f".SH {name.replace('-', ' ').upper()}"
        yield ".nf"
        yield from (_text(line) for line in topic.text.splitlines())
        yield ".fi"


def _shared(tree: Command) -> Iterator[tuple[Parameter, int]]:
    """Yield the options that more than half a dozen commands have, once each."""
    count: dict[Parameter, int] = {}
    for command in walk(tree):
        for parameter in command.parameters:
            if parameter.panel:
                count[parameter] = count.get(parameter, 0) + 1
    yield from ((parameter, times) for parameter, times in count.items() if times > 6)


def _common(tree: Command) -> Iterator[str]:
    panel = ""
    yield ".SH COMMON OPTIONS"
    yield "They may stand before or after the command's name; a command refuses those that mean nothing to it."
    for parameter, _ in _shared(tree):
        if parameter.panel != panel:
            panel = parameter.panel
            yield f".SS {_text(panel)}"
        yield from _option(parameter)


def _option(parameter: Parameter) -> Iterator[str]:
    names = ", ".join(rf"\fB{_text(name)}\fR" for name in parameter.names)
    value = rf" \fI{_text(parameter.metavar)}\fR" if parameter.takes_value else ""
    yield ".TP"
    yield names + value
    yield _text(parameter.help)


def _argument(parameter: Parameter) -> str:
    name = rf"\fI{_text(parameter.metavar)}\fR" + ("..." if parameter.repeatable else "")
    return name if parameter.required else f"[{name}]"


def _text(text: str) -> str:
    """Escape what roff would take as its own: backslashes, hyphens that are minus signs, a dot or quote at the start."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-")
    return r"\&" + escaped if escaped.startswith((".", "'")) else escaped
