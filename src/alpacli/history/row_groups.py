"""Parquet files put together without decoding a row: their bytes are copied, and only a new footer is written.

A footer is a Thrift structure (compact protocol) that says where each column of each group of rows lies. Read here, it also
tells what a kept file covers without loading pyarrow, which costs more than copying a million rows. What is not understood is
never guessed: the caller reads such a file the long way.

Source: parquet.thrift and thrift-compact-protocol.md of apache/parquet-format and apache/thrift.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

_MAGIC: Final = b"PAR1"
_BLOCK: Final = 1 << 22
_I16, _I32, _I64, _LIST, _STRUCT = 4, 5, 6, 9, 12
_MOST_GROUPS: Final = 32_767  # their numbers have 16 bits
_TIMESTAMP: Final = 1  # the place of this column in every kept file

Stamp = tuple[int, int, int]
Fields = dict[int, tuple[int, Any]]
_Reader = Callable[[bytes, int], tuple[Any, int]]


class NotUnderstood(ValueError):
    """A file that is damaged, or written in a way that is not known here."""


class Footer(NamedTuple):
    """What a file says of itself: ``body_end`` is where its data ends, ``stamp`` tells this state of it from others."""

    path: str
    stamp: "Stamp"
    fields: Fields
    body_end: int

    @property
    def rows(self) -> int:
        return _integer(self.fields[3][1])

    @property
    def groups(self) -> list[Fields]:
        found: list[Fields] = self.fields[4][1]
        return found

    @property
    def layout(self) -> bytes:
        """The columns and their types: files that agree in it can be put together."""
        schema: bytes = self.fields[2][1]
        return schema

    def note(self, name: bytes) -> bytes | None:
        """Return what stands under a name in the file's metadata."""
        for entry in self.fields.get(5, (0, []))[1]:
            if _text(entry[1][1]) == name and 2 in entry:
                return _text(entry[2][1])
        return None

    def times(self) -> tuple[int, int] | None:
        """Return the first and the last timestamp, as far as the file tells; its rows are in order of time."""
        found: list[int] = []
        for group in self.groups:
            meta: Fields = group[1][1][_TIMESTAMP][3][1]
            told = _fields({})(meta[12][1], 0)[0] if 12 in meta else {}
            if 5 not in told or 6 not in told:
                return None
            found += [int.from_bytes(_text(told[side][1]), "little", signed=True) for side in (5, 6)]
        return (min(found), max(found)) if found else None


def read_footer(path: str) -> Footer:
    """Read a file's footer.

    Raises:
        NotUnderstood: it is no whole Parquet file.
        OSError: it is not there, or cannot be read.
    """
    with open(path, "rb") as file:
        stamp = stamp_of(file.fileno())
        size = file.seek(0, os.SEEK_END)
        tail_at = max(size - 65_536, 0)
        file.seek(tail_at)
        tail = file.read()
        length = int.from_bytes(tail[-8:-4], "little")
        if tail[-4:] != _MAGIC or size < length + 12:
            raise NotUnderstood("it is no whole Parquet file")
        if length + 8 > len(tail):
            file.seek(size - length - 8)
            tail = file.read()
    try:
        fields, _ = _FILE(tail[len(tail) - length - 8 : -8], 0)
        fields[2], fields[3], fields[4]  # what every file has
    except (IndexError, KeyError, TypeError) as error:
        raise NotUnderstood("its footer cannot be read") from error
    return Footer(path, stamp, fields, size - length - 8)


def stamp_of(file: str | int) -> Stamp:
    """Return what tells this state of a file, given by path or descriptor, from any other."""
    found = os.stat(file)
    return found.st_ino, found.st_mtime_ns, found.st_size


def joined(footers: Sequence[Footer]) -> Iterator[bytes]:
    """Return the bytes of one file with the rows of several, which all have the same ``layout``, in their order.

    Raises:
        NotUnderstood: a file has parts that cannot be moved, or while the bytes are read: it was cut short.
        OSError: while the bytes are read: a file has vanished.
    """
    at = len(_MAGIC)
    groups: list[bytes] = []
    for footer in footers:
        groups += [_struct(_moved(group, at - len(_MAGIC), len(groups) + n)) for n, group in enumerate(footer.groups)]
        at += footer.body_end - len(_MAGIC)
    if not footers or len(groups) > _MOST_GROUPS:
        raise NotUnderstood("there are no files, or too many")
    known = footers[0].fields
    rows = sum(footer.rows for footer in footers)
    end = _struct(
        {
            1: known[1], 2: known[2], 3: (_I64, _zigzag(rows)), 4: (_LIST, _list(groups)),
            **{number: known[number] for number in (6, 7) if number in known},
        }
    )  # fmt: skip
    return _copied(footers, end + len(end).to_bytes(4, "little") + _MAGIC)


def _copied(footers: Sequence[Footer], end: bytes) -> Iterator[bytes]:
    yield _MAGIC
    for footer in footers:
        with open(footer.path, "rb") as file:
            if stamp_of(file.fileno()) != footer.stamp and not _is_same(read_footer(footer.path), footer):
                raise NotUnderstood("it was changed meanwhile")
            left = footer.body_end - file.seek(len(_MAGIC))
            while left:
                block = file.read(min(left, _BLOCK))
                if not block:
                    raise NotUnderstood("it has become shorter")
                left -= len(block)
                yield block
    yield end


def _is_same(one: Footer, other: Footer) -> bool:
    """Tell whether two states of a file have the same rows in the same places: another process downloaded them too."""
    return one.body_end == other.body_end and one.fields[4] == other.fields[4]


def _moved(group: Fields, by: int, number: int) -> Fields:
    """Return a group whose data lies further on in the file."""
    columns: list[bytes] = []
    for column in group[1][1]:
        meta: Fields = dict(column[3][1])
        if 1 in column or 8 in column or 9 in column or 10 in meta or 14 in meta:
            raise NotUnderstood("it has a filter, an old index or encryption")
        for place in (9, 11):  # its first data page and its dictionary
            if place in meta:
                meta[place] = (_I64, _zigzag(_integer(meta[place][1]) + by))
        start = _integer(column[2][1])
        columns.append(_struct({2: (_I64, _zigzag(start + by if start else 0)), 3: (_STRUCT, _struct(meta))}))
    moved = {**group, 1: (_LIST, _list(columns)), 7: (_I16, _zigzag(number))}
    if 5 in moved:
        moved[5] = (_I64, _zigzag(_integer(moved[5][1]) + by))
    return moved


# ------------------------------------------------------------------------------------------ Thrift's compact protocol


def _fields(readers: dict[int, _Reader]) -> _Reader:
    """Return a reader of a structure: field numbers with type and undecoded bytes, but for those that have a reader."""

    def read(data: bytes, at: int) -> tuple[Fields, int]:
        found: Fields = {}
        number = 0
        while head := data[at]:
            at += 1
            if head > 15:
                number += head >> 4
            else:
                raw, at = _varint(data, at)
                number = raw >> 1
            kind = head & 15
            reader = readers.get(number)
            if reader is None:
                end = _after(data, at, kind)
                found[number] = kind, data[at:end]
                at = end
            else:
                value, at = reader(data, at)
                found[number] = kind, value
        return found, at + 1

    return read


def _list_of(reader: _Reader) -> _Reader:
    def read(data: bytes, at: int) -> tuple[list[Any], int]:
        count, _, at = _list_head(data, at)
        found = []
        for _ in range(count):
            value, at = reader(data, at)
            found.append(value)
        return found, at

    return read


def _after(data: bytes, at: int, kind: int) -> int:  # one case for each type there is
    """Return where a value ends."""
    if kind in (1, 2):  # the truth is in the type
        pass
    elif kind in (_I16, _I32, _I64):
        while data[at] > 127:
            at += 1
        at += 1
    elif kind in (3, 7):
        at += 1 if kind == 3 else 8
    elif kind == 8:
        length, at = _varint(data, at)
        at += length
    elif kind in (_LIST, 10):
        count, inner, at = _list_head(data, at)
        for _ in range(count):
            at = at + 1 if inner in (1, 2) else _after(data, at, inner)
    elif kind == _STRUCT:
        while head := data[at]:
            at += 1
            if head < 16:
                _, at = _varint(data, at)
            at = _after(data, at, head & 15)
        at += 1
    else:
        raise NotUnderstood(f"its footer has a value of type {kind}")
    return at


def _list_head(data: bytes, at: int) -> tuple[int, int, int]:
    head = data[at]
    if head < 0xF0:
        return head >> 4, head & 15, at + 1
    count, at = _varint(data, at + 1)
    return count, head & 15, at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while (byte := data[at]) > 127:
        value |= (byte & 127) << shift
        shift += 7
        at += 1
    return value | byte << shift, at + 1


def _integer(data: bytes) -> int:
    value, _ = _varint(data, 0)
    return value >> 1 ^ -(value & 1)


def _text(data: bytes) -> bytes:
    length, at = _varint(data, 0)
    return data[at : at + length]


def _zigzag(value: int) -> bytes:
    return _written(value << 1 if value >= 0 else ~value << 1 | 1)


def _written(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)


def _struct(fields: Fields) -> bytes:
    found = bytearray()
    before = 0
    for number in sorted(fields):
        kind, value = fields[number]
        step = number - before
        found += bytes([step << 4 | kind]) if step < 16 else bytes([kind]) + _zigzag(number)
        found += value
        before = number
    return bytes(found) + b"\0"


def _list(structs: list[bytes]) -> bytes:
    count = len(structs)
    head = bytes([count << 4 | _STRUCT]) if count < 15 else bytes([0xF0 | _STRUCT]) + _written(count)
    return head + b"".join(structs)


_COLUMN: Final = _fields({3: _fields({})})
_GROUP: Final = _fields({1: _list_of(_COLUMN)})
_FILE: Final = _fields({4: _list_of(_GROUP), 5: _list_of(_fields({}))})
