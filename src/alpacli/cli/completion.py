"""What the shell offers when Tab is pressed: ``alpacli __complete WORD…``, the last word being the one under the cursor.

Answered without Typer, Rich and pydantic from ``commands.tsv`` and what this machine already knows: symbols and order IDs
come from the embedded cache and the account's journal. Nothing is sent, nothing is counted as a cache hit, and whatever is
wrong offers nothing: a shell that asks while somebody types must not see an error.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from alpacli.cli.tree import Command, Parameter, load

if TYPE_CHECKING:
    from alpacli.settings import Settings

FILES: Final = ":files"
"""Printed alone: the shell should offer file names."""

_JOURNAL_TAIL: Final = 64 << 10
_MOST: Final = 200
_LIST: Final = "A,B"
_TIMEFRAMES: Final = ("1Min", "5Min", "15Min", "30Min", "1Hour", "4Hour", "1Day", "1Week", "1Month")
"""Those that are common; any number of minutes and hours is one too."""
_FILES: Final = ("FILE", "FILE…", "FILE|-", "URL|FILE", "DIRECTORY", "PATH")

Offer = tuple[str, str]
"""A candidate, and a line of help or nothing."""


def answer(words: Sequence[str]) -> str:
    """Return the lines for the shell: candidate, tab, help."""
    try:
        offers = list(complete(words))
    except Exception:  # noqa: BLE001 # see above: the shell gets nothing, and typing goes on
        return ""
    return "".join(f"{candidate}\t{about}\n" if about else f"{candidate}\n" for candidate, about in offers[:_MOST])


def complete(words: Sequence[str], machine: "Known | None" = None) -> Iterator[Offer]:
    """Yield what the last word could become."""
    machine = machine or Known(words)
    *before, current = words or [""]
    command, rest = _command_of(load(), before)
    if command is None:
        return
    options = {name: parameter for parameter in command.parameters if parameter.is_option for name in parameter.names}
    if command.name == "help" and not current.startswith("-"):
        yield from _subjects(command, rest, current)
        return
    if command.commands:
        known = _common(command)
        if current.startswith("-"):
            yield from _names(known, current)
            return
        waiting = known.get(rest[-1]) if rest else None
        if waiting is not None and waiting.takes_value:
            yield from _value_of(waiting, current, machine)
            return
        yield from _commands(command, current)
        return
    name, equals, typed = current.partition("=")
    if equals and name in options:
        for candidate, about in _value_of(options[name], typed, machine):
            yield (candidate if candidate == FILES else f"{name}={candidate}"), about
    elif rest and rest[-1] in options and options[rest[-1]].takes_value and "--" not in rest:
        yield from _value_of(options[rest[-1]], current, machine)
    elif current.startswith("-") and "--" not in rest:
        yield from _names(options, current, rest)
    else:
        argument = _argument(command, options, rest)
        if argument is not None:
            yield from _value_of(argument, current, machine, rest)


def _command_of(tree: Command, words: Sequence[str]) -> tuple[Command | None, list[str]]:
    """Return the command that is being typed, if there is one, and the words after its name.

    Common options may stand before it.
    """
    rest: list[str] = []
    known = _common(tree)
    skip = False
    for place, word in enumerate(words):
        if skip:
            skip = False
        elif word.startswith("-"):
            parameter = known.get(word)
            skip = parameter is not None and parameter.takes_value
        else:
            inner = next((found for found in tree.commands if found.name.rpartition(" ")[2] == word), None)
            if inner is None:
                return None, []
            tree = inner
            if not tree.commands:
                return tree, [*rest, *words[place + 1 :]]
            continue
        rest.append(word)
    return tree, rest


def _subjects(command: Command, rest: Sequence[str], current: str) -> Iterator[Offer]:
    """Yield what can be explained: the topics first, and commands like those that are run."""
    topics = () if rest else command.parameters[0].values
    yield from ((topic, "") for topic in topics if topic.startswith(current))
    subject, options = _command_of(load(), rest)
    if subject is not None and not options:
        yield from _commands(subject, current)


def _commands(group: Command, current: str) -> Iterator[Offer]:
    for inner in group.commands:
        name = inner.name.rpartition(" ")[2]
        if name.startswith(current):
            yield name, inner.help


def _common(group: Command) -> dict[str, Parameter]:
    """Return the options that may stand before a command's name: those of the group, and those that its commands share."""
    found = {name: parameter for parameter in group.parameters for name in parameter.names}
    for inner in group.commands:
        for parameter in inner.parameters:
            if parameter.panel:
                found |= dict.fromkeys(parameter.names, parameter)
    return found


def _names(options: dict[str, Parameter], current: str, given: Sequence[str] = ()) -> Iterator[Offer]:
    used = {word.partition("=")[0] for word in given}
    for name, parameter in options.items():
        if name.startswith(current) and (parameter.repeatable or used.isdisjoint(parameter.names)):
            yield name, parameter.help


def _argument(command: Command, options: dict[str, Parameter], rest: Sequence[str]) -> Parameter | None:
    """Return the argument that the current word is."""
    arguments = [parameter for parameter in command.parameters if not parameter.is_option]
    count, skip, plain = 0, False, False
    for word in rest:
        if skip:
            skip = False
        elif word == "--":
            plain = True
        elif word.startswith("-") and not plain:
            parameter = options.get(word)
            skip = parameter is not None and parameter.takes_value
        else:
            count += 1
    if count < len(arguments):
        return arguments[count]
    return arguments[-1] if arguments and arguments[-1].repeatable else None


def _value_of(parameter: Parameter, current: str, machine: "Known", given: Sequence[str] = ()) -> Iterator[Offer]:
    if parameter.metavar in _FILES:
        yield FILES, ""
        return
    symbols = parameter.metavar == "SYMBOL" or not {"--symbol", "--symbols"}.isdisjoint(parameter.names)
    if symbols or parameter.metavar == _LIST:
        head, comma, typed = current.rpartition(",")
        listed = (value for value in parameter.values if value.startswith(typed))
        known = machine.symbols(_spelled(typed)) if symbols else listed
        for one in known:
            if one not in given and one not in head.split(","):
                yield head + comma + one, ""
        return
    if parameter.values:
        candidates: Iterable[str] = parameter.values
    elif parameter.metavar == "ID" and "--client-order-id" not in parameter.names:
        candidates = machine.order_ids()
    elif "--profile" in parameter.names or parameter.metavar == "PROFILE":
        candidates = machine.profiles()
    elif "--tz" in parameter.names:
        candidates = ("ET", "utc", "local")
    elif "--timeframe" in parameter.names:
        candidates = _TIMEFRAMES
    else:
        return
    for candidate in candidates:
        if candidate.startswith(current) and candidate not in given:
            yield candidate, ""


def _spelled(typed: str) -> str:
    from alpacli.domain.symbols import spelled  # loaded where symbols are asked for

    return spelled(typed)


# ---------------------------------------------------------------------------------------- what this machine knows


class Known:
    """Symbols, order IDs and profiles, from files of this machine alone; ``words`` may name a profile or ``--sim``."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words

    def _settings(self) -> "Settings":
        from alpacli.settings import Flags
        from alpacli.settings import load as load_settings

        words = self._words
        profile = words[words.index("--profile") + 1] if "--profile" in words[:-1] else None
        return load_settings(Flags(profile, sim="--sim" in words), env=os.environ, cwd=os.getcwd())

    def _cached(self, *names: str) -> "Iterator[bytes]":
        from alpacli.ports import SystemClock
        from alpacli.store.sqlite import SqliteStore

        settings = self._settings()
        path = os.path.join(settings.state_dir, "store.sqlite")
        if not os.path.isfile(path):
            return
        # Never closed: the process ends at once, and who closes last writes the whole log back, for 3 ms and more.
        store = SqliteStore(path, SystemClock())
        for name in names:
            yield from store.values(f"{settings.scope}:{name}")

    def symbols(self, prefix: str) -> list[str]:
        """Return the symbols that begin like this: of what is held, ordered and watched; with a prefix, of all assets too."""
        pattern = re.compile(rb'"symbol":"(' + re.escape(prefix).encode() + rb'[^"\\]*)"')
        names = ("positions", "orders", "watchlists", *(("assets",) if prefix else ()))
        return sorted({match.decode() for value in self._cached(*names) for match in pattern.findall(value)})

    def order_ids(self) -> list[str]:
        """Return the IDs of orders: the last ones of the journal first, then those in the cache."""
        settings = self._settings()
        try:
            with open(os.path.join(settings.state_dir, "orders", f"{settings.fingerprint}.jsonl"), "rb") as journal:
                journal.seek(max(0, journal.seek(0, os.SEEK_END) - _JOURNAL_TAIL))
                tail = journal.read()
        except FileNotFoundError:
            tail = b""
        found = re.findall(rb'"order_id":"([^"]+)"', tail)[::-1]
        for value in self._cached("orders"):
            found += re.findall(rb'(?<=[{,])"id":"([^"]+)"', value)
        return list(dict.fromkeys(name.decode() for name in found))

    def profiles(self) -> list[str]:
        """Return the names in the profile file."""
        import tomllib

        with open(os.path.join(self._settings().config_dir, "config.toml"), "rb") as file:
            return sorted(tomllib.load(file).get("profiles", {}))


# ------------------------------------------------------------------------------------------------------ the shells

_BASH: Final = """\
# bash completion for alpacli; in ~/.bashrc:  source <(alpacli completion bash)
_alpacli() {
    local line candidates=() IFS=$'\\n'
    local words=("${COMP_WORDS[@]:1:COMP_CWORD}")
    # bash takes : and = as words of their own; put them together as they were typed
    local joined=() word glue=0 n=0
    for word in "${words[@]}"; do
        if (( n )) && [[ $word == [:=] ]]; then joined[n-1]+=$word; glue=1
        elif (( glue )); then joined[n-1]+=$word; glue=0
        else joined[n]=$word; (( ++n )); fi
    done
    (( n )) || joined[n++]=""
    local current=${joined[n-1]} typed=${COMP_WORDS[COMP_CWORD]}
    [[ $typed == [:=] ]] && typed=""
    local before=${current%"$typed"}
    for line in $("${COMP_WORDS[0]}" __complete "${joined[@]}" 2>/dev/null); do
        if [[ $line == :files ]]; then type compopt >/dev/null 2>&1 && compopt -o default; COMPREPLY=(); return; fi
        line=${line%%$'\\t'*}
        candidates[${#candidates[@]}]=${line#"$before"}
    done
    COMPREPLY=("${candidates[@]}")
}
complete -F _alpacli alpacli
"""
_ZSH: Final = """\
#compdef alpacli
# zsh completion for alpacli; in ~/.zshrc after compinit:  source <(alpacli completion zsh)
_alpacli() {
    local line
    local -a offers
    for line in "${(@f)$("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
        [[ -z $line ]] && continue
        if [[ $line == :files ]]; then _files; return; fi
        line=${line//:/\\\\:}
        offers+=("${line/$'\\t'/:}")
    done
    _describe 'alpacli' offers
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _alpacli "$@"; else compdef _alpacli alpacli; fi
"""
_FISH: Final = """\
# fish completion for alpacli:  alpacli completion fish > ~/.config/fish/completions/alpacli.fish
function __alpacli_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l offers ($words[1] __complete $words[2..-1] 2>/dev/null)
    if test "$offers[1]" = ":files"
        __fish_complete_path (commandline -ct)
    else
        string join \\n -- $offers
    end
end
complete -c alpacli -f -a '(__alpacli_complete)'
"""
SCRIPTS: Final = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
