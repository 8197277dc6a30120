"""Bounded random paths: values that are computed from (seed, name, moment) alone, and the same on every machine.

A path is built by midpoint displacement: its values at the ends of blocks of 2²⁷ quanta are hashed, and each midpoint is the
mean of its neighbors plus a hashed displacement, bounded by an amplitude that shrinks by √2 with each halving. All is in
integers. ``tape`` makes prices of them.
"""

import hashlib
from functools import lru_cache
from math import isqrt
from typing import Final, NamedTuple

_MASK: Final = (1 << 64) - 1
_TOP_BITS: Final = _MASK >> 43
_MEMO_LEVEL: Final = 14
_MEMO_SIZE: Final = 20_000
GOLDEN: Final = 0x9E3779B97F4A7C15
ONE: Final = 1 << 40
DEPTH: Final = 27


class Path(NamedTuple):
    """One random path: its hash key, how far block ends lie from zero, and the amplitude at each level."""

    key: int
    anchor: int
    amplitudes: tuple[int, ...]


class _Way:
    """The descent to one value of a path: the ends of each interval that holds its quantum, by level from ``bottom`` up."""

    __slots__ = ("bottom", "ends", "quantum")

    def __init__(self, quantum: int, bottom: int, ends: list[tuple[int, int]]) -> None:
        self.quantum = quantum
        self.bottom = bottom
        self.ends = ends


class Paths:
    """Values of paths, by descent. Thread-safe; holds only a memo."""

    def __init__(self) -> None:
        self._memo: dict[tuple[int, int], tuple[int, int]] = {}
        self._near: dict[int, _Way] = {}

    def value(self, path: Path, quantum: int) -> int:
        """Descend to one value: from where the way to the last one parts from it, or from a remembered ancestor.

        Who trades asks for one moment after the other, so most of the way is known. What is remembered of it is never
        changed, since other threads may be reading it. An ancestor is about 17 minutes wide.
        """
        near = self._near.get(path.key)
        if near is not None:
            level = max((near.quantum ^ quantum).bit_length(), near.bottom)
            if level <= _MEMO_LEVEL:
                ends = near.ends.copy()
                bottom = _walk(path, quantum, level, ends)
                self._near[path.key] = _Way(quantum, bottom, ends)
                return ends[bottom][0]
        place = (path.key, quantum >> _MEMO_LEVEL)
        ancestor = self._memo.get(place)
        if ancestor is None:
            ends = [ends_of_block(path, quantum >> DEPTH << DEPTH)] * (DEPTH + 1)
            bottom = _walk(path, quantum, DEPTH, ends)
            if len(self._memo) >= _MEMO_SIZE:
                self._memo.clear()
            if bottom <= _MEMO_LEVEL:
                self._memo[place] = ends[_MEMO_LEVEL]
        else:
            ends = [ancestor] * (_MEMO_LEVEL + 1)
            bottom = _walk(path, quantum, _MEMO_LEVEL, ends)
        self._near[path.key] = _Way(quantum, bottom, ends)
        return ends[bottom][0]


def mix(value: int) -> int:
    """Finish a 64-bit hash (splitmix64)."""
    value &= _MASK
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & _MASK
    return value ^ (value >> 31)


def _displacement(path: Path, quantum: int, amplitude: int) -> int:
    """Return the hashed displacement of one quantum, evenly from ``-amplitude`` to ``amplitude``."""
    return scaled(path.key + quantum * GOLDEN, amplitude)


def scaled(value: int, amplitude: int) -> int:
    """Return ``mix(value)``, evenly from ``-amplitude`` to ``amplitude``; written out, because it is most of a search.

    The last step of ``mix`` leaves the highest bits alone, which are all that is used here.
    """
    value &= _MASK
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB >> 43 & _TOP_BITS
    return amplitude * (value - (1 << 20)) >> 20


def ends_of_block(path: Path, block: int) -> tuple[int, int]:
    return _displacement(path, block, path.anchor), _displacement(path, block + (1 << DEPTH), path.anchor)


def midpoint(path: Path, middle: int, level: int, left: int, right: int) -> int:
    return (left + right >> 1) + _displacement(path, middle, path.amplitudes[level])


def _walk(path: Path, quantum: int, level: int, ends: list[tuple[int, int]]) -> int:
    """Descend from ``level`` to the interval that begins at ``quantum``, noting the ends of each by level; return its level.

    The value at ``quantum`` is the left end there.
    """
    left, right = ends[level]
    start = quantum >> level << level
    key, amplitudes = path.key, path.amplitudes
    while start != quantum:
        middle = start + (1 << (level - 1))
        hashed = key + middle * GOLDEN & _MASK
        hashed = (hashed ^ (hashed >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
        hashed = (hashed ^ (hashed >> 27)) * 0x94D049BB133111EB >> 43 & _TOP_BITS
        value = (left + right >> 1) + (amplitudes[level] * (hashed - (1 << 20)) >> 20)
        level -= 1
        if quantum >= middle:
            start, left = middle, value
        else:
            right = value
        ends[level] = left, right
    return level


@lru_cache(maxsize=512)
def make_path(seed: int, name: str, swing_permille: int) -> Path:
    digest = hashlib.blake2b(f"{seed}\x1f{name}".encode(), digest_size=8).digest()
    swing = ONE * swing_permille // 1000
    amplitudes = tuple(isqrt(swing * swing >> (DEPTH - level)) for level in range(DEPTH + 1))
    return Path(int.from_bytes(digest, "big"), swing, amplitudes)
