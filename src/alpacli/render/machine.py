"""JSON, tab-separated, CSV and jq output, made from the canonical JSON text so that no digit passes through a float.

A number is kept as the text it was written with (``Digits``) from the first byte to the last. Only jq computes: what it
passes through, compares or sorts keeps every digit, what it computes has the precision of jq's own doubles.
"""

import csv
import functools
import io
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from alpacli.errors import UnreadableAnswer, UsageError

Tree = Any
"""Parsed JSON: dict, list, str, bool, None, and ``Digits`` for numbers."""

_NUMBER_OR_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?')
_RESPELLED: Final = re.compile(r"-?(?:0\.0{6}|[\d.]+[eE])")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


class Digits(str):
    """A JSON number as it was written."""

    __slots__ = ()


def parse(text: bytes) -> Tree:
    """Read canonical JSON; numbers stay text."""

    def refuse(word: str) -> None:
        raise UnreadableAnswer(f"the JSON holds {word}, which is no number", "this is a defect: please report it")

    return json.loads(text, parse_float=Digits, parse_int=Digits, parse_constant=refuse)


def dump(tree: Tree, *, indent: int | None = None) -> str:
    """Write JSON, compact or indented; the inverse of ``parse``."""
    return "".join(_pieces(tree, indent, 0))


def _pieces(tree: Tree, indent: int | None, depth: int) -> Iterable[str]:
    if isinstance(tree, Digits):
        yield str(tree)
        return
    if not isinstance(tree, dict | list) or not tree:
        yield json.dumps(tree, ensure_ascii=False)
        return
    comma = ","
    colon = ":"
    opening, closing = ("{", "}") if isinstance(tree, dict) else ("[", "]")
    end = ""
    if indent is not None:
        comma = ",\n" + " " * (indent * (depth + 1))
        opening += comma[1:]
        colon = ": "
        end = "\n" + " " * (indent * depth)
    yield opening
    items = tree.items() if isinstance(tree, dict) else ((None, item) for item in tree)
    for number, (name, item) in enumerate(items):
        if number:
            yield comma
        if name is not None:
            yield json.dumps(name, ensure_ascii=False) + colon
        yield from _pieces(item, indent, depth + 1)
    yield end + closing


def select(tree: Tree, fields: Sequence[str], known: Sequence[str]) -> Tree:
    """Keep only the named fields, in the named order, of an object or of every object in a list.

    Raises:
        UsageError: a field that is neither known nor in the data.
    """
    rows = tree if isinstance(tree, list) else [tree]
    present = {name for row in rows if isinstance(row, dict) for name in row}
    unknown = [field for field in fields if field not in present and field not in known]
    if unknown:
        names = ", ".join(dict.fromkeys([*known, *sorted(present)]))
        raise UsageError(f"there is no field {unknown[0]!r}", f"fields: {names}")
    chosen = [{field: row[field] for field in fields if field in row} for row in rows if isinstance(row, dict)]
    return chosen if isinstance(tree, list) else chosen[0]


def header(rows: Sequence[dict[str, Tree]], known: Sequence[str]) -> list[str]:
    """Return the columns: the documented fields first, always, then whatever else the rows carry."""
    return list(dict.fromkeys([*known, *(name for row in rows for name in row)]))


def cell(value: Tree) -> str:
    """Return a value as one field of text: strings raw, null empty, anything nested as compact JSON."""
    if value is None:
        return ""
    if isinstance(value, str):
        return str(value)
    return dump(value)


def tsv(tree: Tree, known: Sequence[str]) -> str:
    """Return tab-separated text: a header and rows for a list, name and value lines for one object.

    Tabs, line ends and control characters inside a value become spaces, so that every row stays one line.
    """
    if not isinstance(tree, list):
        return "".join(f"{name}\t{_plain(cell(value))}\n" for name, value in tree.items())
    names = header(tree, known)
    lines = ["\t".join(names), *("\t".join(_plain(cell(row.get(name))) for name in names) for row in tree)]
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    return _CONTROL.sub(" ", " ".join(re.split(r"[\t\r\n\u2028\u2029]+", text)))


def harmless(text: str, *, in_json: bool = False) -> str:
    """Return text that a terminal only shows: foreign control characters do nothing there, in JSON they are escaped."""

    def shown(letter: str) -> str:
        if letter.isprintable() or letter in "\n\t":
            return letter
        if not in_json:
            return "�"
        return json.dumps(letter)[1:-1] if letter != "\x7f" else "\\u007f"  # json leaves DEL as it is

    return text if text.isprintable() else "".join(map(shown, text))


def comma_separated(tree: Tree, known: Sequence[str]) -> str:
    """Return CSV (RFC 4180 quoting, line feeds between rows) with a header row; one object is one row."""
    rows = tree if isinstance(tree, list) else [tree]
    names = header(rows, known if isinstance(tree, list) else ())
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([cell(row.get(name)) for name in names] for row in rows)
    return text.getvalue()


def jq(text: str, expression: str) -> str:
    """Run a jq program over JSON text; every result is one line, strings raw (like ``jq -rc``).

    Raises:
        UsageError: the program does not compile, or fails on this data.
    """
    try:
        results: list[str] = _program(expression).input_text(text).all()
    except ValueError as error:
        raise _not_jq(error) from None
    spellings = _spellings(text)
    lines = []
    for line in results:
        if line.startswith('"'):
            lines.append(json.loads(line))
            continue
        exact = _NUMBER_OR_STRING.sub(lambda found: spellings.get(found[0], found[0]), line) if spellings else line
        lines.append(dump(parse(exact.encode("utf-8", "surrogatepass"))))
    return "".join(line + "\n" for line in lines)


def check_jq(expression: str) -> None:
    """Compile a jq program without running it.

    Raises:
        UsageError: it does not compile.
    """
    try:
        _program(expression)
    except ValueError as error:
        raise _not_jq(error) from None


@functools.lru_cache(maxsize=8)
def _program(expression: str) -> Any:
    """Compile a program whose results jq itself writes as JSON: it knows the digits of what it did not compute with.

    What it hands to Python are doubles, in which 64-bit IDs that lie close together are one. ``|`` binds less than all else.
    """
    import jq as engine

    engine.compile(expression)  # by itself: what is wrong is told of the user's own words
    return engine.compile(f"{expression}\n|tojson")


def _not_jq(error: ValueError) -> UsageError:
    first = str(error).strip().splitlines()[0].removeprefix("jq: error: ")
    return UsageError(f"--jq: {first}", "the language is jq's: https://jqlang.org/manual")


def _spellings(text: str) -> dict[str, str]:
    """Map numbers that jq writes with another exponent to how the input wrote them: 1e5, which is 1E+5, and 0.0000001."""
    tokens = [token for token in dict.fromkeys(_NUMBER_OR_STRING.findall(text)) if _RESPELLED.match(token)]
    if not tokens:
        return {}
    written: list[str] = _program(".[]").input_text(f"[{','.join(tokens)}]").all()
    return dict(zip(reversed(written), reversed(tokens), strict=True))  # of two ways to write one number the first
