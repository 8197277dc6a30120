"""Mutants of the Lua that a module sends to Redis: what cosmic-ray does for Python, done on Pygments' tokens.

A text of the module that compiles as Lua is Lua, and so is a mutant, else it counts for nothing. Only the text is changed, in
the module's source: what is said of a mutant are lines of that source, as for every other. Tools that know many languages by
patterns of lines have none for Lua, and change what stands in texts and comments.
"""

import ast
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from lupa.lua51 import LuaRuntime, LuaSyntaxError
from pygments.lexers import LuaLexer
from pygments.token import Comment, Keyword, Name, Number, Punctuation, String, Token

_OTHERS: Final = {
    "==": ("~=",),
    "~=": ("==",),
    "<": ("<=", ">="),
    "<=": ("<", ">"),
    ">": (">=", "<="),
    ">=": (">", "<"),
    "+": ("-",),
    "*": ("/",),
    "/": ("*",),
    "and": ("or",),
    "or": ("and",),
    "not": ("",),
    "true": ("false",),
    "false": ("true",),
    "min": ("max",),
    "max": ("min",),
    "floor": ("ceil",),
    "ceil": ("floor",),
}
_CLOSING: Final = {"(": ")", "[": "]", "{": "}"}
_SIDES_END: Final = frozenset({"and", "or", ",", "=", "then", "do", "else", "return", "if", "elseif", "while", "until"})
_LARGEST: Final = 20
"""A larger number is a setting, or one of nature's."""


class _Piece(NamedTuple):
    """A token: where it stands, its kind, its text."""

    at: int
    kind: object
    text: str

    @property
    def end(self) -> int:
        return self.at + len(self.text)


class _Change(NamedTuple):
    """Put ``text`` in place of what stands between two places; ``name`` says what kind of change that is."""

    name: str
    start: int
    end: int
    text: str


def mutants(source: str) -> Iterator[tuple[str, str]]:
    """Yield the source of a Python module with each mutant of its Lua, and the mutant's name."""
    lua = LuaRuntime()
    for start, text in _scripts(lua, source):
        for change in _changes(text):
            mutated = text[: change.start] + change.text + text[change.end :]
            if mutated != text and _compiles(lua, mutated):
                line = source.count("\n", 0, start + change.start) + 1
                yield f"lua/{change.name} {line}", source[:start] + mutated + source[start + len(text) :]


def _scripts(lua: LuaRuntime, source: str) -> Iterator[tuple[int, str]]:
    """Find the texts that are Lua, and where they begin."""
    lines = [0]
    for line in source.encode().splitlines(keepends=True):
        lines.append(lines[-1] + len(line))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.strip():
            begins = len(source.encode()[: lines[node.lineno - 1] + node.col_offset].decode())
            place = source.find(node.value, begins)
            if 0 <= place <= begins + len('"""') and _compiles(lua, node.value):
                yield place, node.value


def _compiles(lua: LuaRuntime, text: str) -> bool:
    try:
        lua.compile(text)
    except LuaSyntaxError:
        return False
    return True


def _pieces(text: str) -> Iterator[_Piece]:
    for at, kind, piece in LuaLexer().get_tokens_unprocessed(text):
        if kind in Punctuation:  # several brackets may come as one
            yield from (_Piece(at + place, kind, sign) for place, sign in enumerate(piece))
        elif piece.strip() and kind not in Comment:
            yield _Piece(at, kind, piece)


def _changes(text: str) -> Iterator[_Change]:
    pieces = list(_pieces(text))
    for place, piece in enumerate(pieces):
        if piece.kind in Number:
            if float(piece.text) <= _LARGEST:
                for step in (1, -1):
                    yield _Change("number", piece.at, piece.end, f"{float(piece.text) + step:g}")
        elif piece.kind in String:
            if piece.text == "(":  # of a range without its border
                yield _Change("border", piece.at, piece.end, "")
        else:
            word = piece.text.rpartition(".")[2] or piece.text  # of math.min, which is one token
            for other in _OTHERS.get(word, ()):
                yield _Change("other", piece.end - len(word), piece.end, other)
            if piece.text == "-":
                yield from _of_minus(pieces, place)
            if piece.text in ("and", "or"):
                yield _Change("left side only", pieces[place - 1].end, _right_end(pieces, place), "")
                yield _Change("right side only", _left_start(pieces, place), pieces[place + 1].at, "")
    yield from _without_statements(text, pieces)


def _of_minus(pieces: Sequence[_Piece], place: int) -> Iterator[_Change]:
    before = pieces[place - 1]
    binary = before.text in (")", "]") or before.kind in Name or before.kind in Number
    yield _Change("other", pieces[place].at, pieces[place].end, "+" if binary else "")


def _right_end(pieces: Sequence[_Piece], place: int) -> int:
    """Return where the right side of an ``and`` or ``or`` ends: at what closes it, or begins something else."""
    open_ones: list[str] = []
    for number in range(place + 1, len(pieces)):
        piece = pieces[number]
        if open_ones and piece.text == open_ones[-1]:
            open_ones.pop()
        elif piece.text in _CLOSING:
            open_ones.append(_CLOSING[piece.text])
        elif not open_ones and number > place + 1 and (_ends_a_side(piece) or _adjoin(pieces[number - 1], piece)):
            return pieces[number - 1].end
    return pieces[-1].end


def _left_start(pieces: Sequence[_Piece], place: int) -> int:
    open_ones: list[str] = []
    opening = {closing: opening for opening, closing in _CLOSING.items()}
    for number in range(place - 1, -1, -1):
        piece = pieces[number]
        if open_ones and piece.text == open_ones[-1]:
            open_ones.pop()
        elif piece.text in opening:
            open_ones.append(opening[piece.text])
        elif not open_ones and (_ends_a_side(piece) or piece.text in _CLOSING):
            return pieces[number + 1].at
    return pieces[0].at


def _ends_a_side(piece: _Piece) -> bool:
    return piece.kind not in String and (
        piece.text in _SIDES_END or piece.text in _CLOSING.values() or piece.text == "end"
    )


def _adjoin(one: _Piece, other: _Piece) -> bool:
    """Tell whether two tokens stand side by side as they do where a statement follows another."""
    operand = one.text in (")", "]", "}") or one.kind in Name or one.kind in Number or one.kind in String
    begins = other.kind in Name or (other.kind in Keyword and other.kind not in Keyword.Constant)
    return operand and begins and other.kind not in Token.Operator


def _without_statements(text: str, pieces: Sequence[_Piece]) -> Iterator[_Change]:
    """Leave out each statement that begins a line, as far as its brackets reach; ``local`` would only be missed."""
    at = 0
    for line in text.splitlines(keepends=True):
        end = at + len(line.rstrip())
        open_ones = 0
        here = [piece for piece in pieces if piece.at >= at]
        for piece in here:
            if piece.at >= end and not open_ones:
                break
            if piece.kind in Punctuation:
                open_ones += (piece.text in _CLOSING) - (piece.text in _CLOSING.values())
            end = max(end, piece.end)
        if here and here[0].at < at + len(line) and here[0].text not in ("local", "else", "elseif", "end"):
            yield _Change("left out", here[0].at, end, "-- " + " ".join(text[here[0].at : end].split()))
        at += len(line)
