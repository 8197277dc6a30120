"""One option contract: what its OCC symbol says, and an identifier that says the same.

A contract is nothing but root, expiration, type and strike, so no table of contracts is kept: the symbol is taken apart, and
the UUID, which holds the same fields under a check, is too. Strikes are in thousandths of a dollar, as in the symbol.
"""

import hashlib
import re
from datetime import date, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Final, Literal, NamedTuple

from alpacli.sim.answers import canonical_identifier

MULTIPLIER: Final = 100
"""Shares that one contract is about."""

_OCC: Final = re.compile(r"([A-Z]{1,6})(\d{6})([CP])(\d{8})")
_EPOCH: Final = date(2000, 1, 1)
_STRIKE_BITS, _DAY_BITS, _CHECK_BITS = 27, 16, 46
_LETTERS: Final = 27  # of a root: none, A to Z


class Contract(NamedTuple):
    """The right to buy (``call``) or sell (``put``) a hundred shares at the strike until the day of expiration ends."""

    root: str
    expires: date
    type: Literal["call", "put"]
    strike_mills: int

    @property
    def symbol(self) -> str:
        return f"{self.root}{self.expires:%y%m%d}{'C' if self.type == 'call' else 'P'}{self.strike_mills:08d}"

    @property
    def strike(self) -> Decimal:
        return Decimal(self.strike_mills).scaleb(-3)

    @property
    def name(self) -> str:
        """The name as Alpaca writes it: ``AAPL Jun 20 2025 100 Call``."""
        strike = format(self.strike.normalize(), "f")
        return f"{self.root} {self.expires:%b %d %Y} {strike} {self.type.capitalize()}"

    @property
    def id(self) -> str:
        packed = _root_number(self.root)
        packed = packed << _DAY_BITS | (self.expires - _EPOCH).days
        packed = (packed << 1 | (self.type == "put")) << _STRIKE_BITS | self.strike_mills
        check = _check(packed)
        bits = (packed ^ _mask(check)) << _CHECK_BITS | check
        # the 122 free bits of a UUID of version 4
        high, middle, low = bits >> 74, bits >> 62 & 0xFFF, bits & (1 << 62) - 1
        text = f"{high:012x}4{middle:03x}{1 << 63 | low:016x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


@lru_cache(maxsize=16_384)
def parse(symbol: str) -> Contract | None:
    """Return the contract of an OCC symbol, or ``None`` for any other text."""
    matched = _OCC.fullmatch(symbol)
    if matched is None:
        return None
    digits = matched[2]
    try:
        expires = date(2000 + int(digits[:2]), int(digits[2:4]), int(digits[4:]))
    except ValueError:
        return None
    return Contract(matched[1], expires, "call" if matched[3] == "C" else "put", int(matched[4]))


def of_id(text: str) -> Contract | None:
    """Return the contract that an identifier was made of, or ``None`` when it was not made of one."""
    canonical = canonical_identifier(text)
    if canonical is None:
        return None
    digits = canonical.replace("-", "")
    bits = int(digits[:12], 16) << 74 | int(digits[13:16], 16) << 62 | int(digits[16:], 16) & (1 << 62) - 1
    check = bits & (1 << _CHECK_BITS) - 1
    packed = bits >> _CHECK_BITS ^ _mask(check)
    if digits[12] != "4" or _check(packed) != check:
        return None
    strike_mills, rest = packed & (1 << _STRIKE_BITS) - 1, packed >> _STRIKE_BITS
    number, days = rest >> 1 >> _DAY_BITS, rest >> 1 & (1 << _DAY_BITS) - 1
    root = ""
    while number:
        number, letter = divmod(number, _LETTERS)
        root = chr(ord("A") + letter - 1) + root
    return Contract(root, _EPOCH + timedelta(days), "put" if rest & 1 else "call", strike_mills)


def root_of(symbol: str) -> str:
    """Return the root of a stock's options: its symbol without the point of a share class."""
    return symbol.replace(".", "")


def _root_number(root: str) -> int:
    number = 0
    for letter in root:
        number = number * _LETTERS + ord(letter) - ord("A") + 1
    return number


def _check(packed: int) -> int:
    digest = hashlib.blake2b(packed.to_bytes(16, "big"), digest_size=8, person=b"alpacli option").digest()
    return int.from_bytes(digest, "big") >> (64 - _CHECK_BITS)


def _mask(check: int) -> int:
    """Spread the check over the rest, so that ids of neighboring strikes share no digits."""
    digest = hashlib.blake2b(check.to_bytes(8, "big"), digest_size=16, person=b"alpacli option").digest()
    return int.from_bytes(digest, "big") >> (128 - (122 - _CHECK_BITS))
