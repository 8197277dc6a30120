"""How the exchange writes values on Alpaca's wire, and how it says no: one place, so that every answer agrees.

Numbers of the trading host are JSON strings in plain notation with trailing zeros dropped; timestamps are RFC 3339 with as
many of their nine digits as are not zero; identifiers are UUIDs derived from what they name, so that the same seed and the
same requests give the same bytes.
"""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from functools import lru_cache
from hashlib import blake2b
from typing import Final, TypeAlias

Json: TypeAlias = "str | int | float | bool | list[Json] | dict[str, Json] | None"

SECOND_NS: Final = 1_000_000_000
_MINUTE_NS: Final = 60 * SECOND_NS

NOT_FOUND: Final = 40410000
BAD_PARAMETER: Final = 40010001
_FORBIDDEN: Final = 40310000


class Refusal(Exception):
    """The exchange's no, as the client will see it: HTTP status, Alpaca's code (or none), message, further fields."""

    def __init__(self, status: int, code: int | None, message: str, **extra: Json) -> None:
        super().__init__(message)
        self.status = status
        self.body: dict[str, Json] = {} if code is None else {"code": code}
        self.body["message"] = message
        self.body.update(extra)


def not_found(message: str) -> Refusal:
    return Refusal(404, NOT_FOUND, message)


def bad_parameter(message: str) -> Refusal:
    return Refusal(422, BAD_PARAMETER, message)


def forbidden(message: str, **extra: Json) -> Refusal:
    return Refusal(403, _FORBIDDEN, message, **extra)


def decimal_text(value: Decimal) -> str:
    """Return plain notation without exponent, trailing zeros or minus zero: ``1.50`` is ``1.5``."""
    text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


@lru_cache(maxsize=8192)  # an order is told of again and again, with the same few times in it
def timestamp(at_ns: int, zone_offset: timedelta | None = None) -> str:
    """Return RFC 3339 in UTC (``Z``), or at a fixed offset from it."""
    minute, rest_ns = divmod(at_ns, _MINUTE_NS)
    seconds, nanoseconds = divmod(rest_ns, SECOND_NS)
    begins, zone = _minute(minute, zone_offset)
    if not nanoseconds:
        return f"{begins}{_TWO_DIGITS[seconds]}{zone}"
    fraction = str(SECOND_NS + nanoseconds)[1:].rstrip("0")
    return f"{begins}{_TWO_DIGITS[seconds]}.{fraction}{zone}"


_TWO_DIGITS: Final = [f"{number:02d}" for number in range(60)]


@lru_cache(maxsize=1024)
def _minute(minute: int, zone_offset: timedelta | None) -> tuple[str, str]:
    """Return what stands before the seconds in a timestamp, and what after them."""
    zone = UTC if zone_offset is None else timezone(zone_offset)
    moment = datetime.fromtimestamp(minute * 60, zone).isoformat()
    return moment[:17], "Z" if zone_offset is None else moment[19:]


_HASH: Final = blake2b(digest_size=16)  # copied, because making one takes as long again as all that is done with it


def identifier(*parts: object) -> str:
    """Return the UUID (in the form of version 4) of what the parts name: equal parts, equal identifier."""
    return identifier_of("\x1f".join(map(str, parts)))


def identifier_of(name: str) -> str:
    """Return the UUID of a name whose parts are joined already, with a unit separator between each two."""
    hashed = _HASH.copy()
    hashed.update(name.encode())
    text = hashed.hexdigest()
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{_VARIANT[text[16]]}{text[17:20]}-{text[20:]}"


_VARIANT: Final = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


def canonical_identifier(text: str) -> str | None:
    """Return a UUID in its lower-case form with dashes, or ``None`` when the text is no UUID. Dashes may be left out."""
    digits = text.replace("-", "").lower()
    if len(digits) != 32 or not set(digits) <= set("0123456789abcdef"):
        return None
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
