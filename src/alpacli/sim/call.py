"""A request as its handler sees it: parameters read the way Alpaca reads them, and refused with its codes.

Booleans may be ``True`` or ``true``, lists are comma-joined, instants have any offset, and an empty parameter is none.
"""

import json
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Final, NamedTuple, Protocol, TypeAlias

from alpacli.sim.answers import SECOND_NS, Json, Refusal, bad_parameter
from alpacli.sim.desk import Desk
from alpacli.sim.hours import FIRST_DAY, new_york_ns

# Nothing happens before 1970 or after this day, and SQLite's integers hold every nanosecond between them.
_FAR_DAY: Final = date(2100, 1, 1)

# One of these is in every text that has half of a surrogate pair: as an escape, in UTF-8, in UTF-16 and 32.
_SURROGATES: Final = (b"\\u", b"\xed", b"\0")


class Call(NamedTuple):
    """A request that found its route: the part of the path that varies, the parameters, and headers in lower case."""

    desk: Desk
    item: str
    query: Mapping[str, str]
    body: bytes
    headers: Mapping[str, str] = {}

    def flag(self, name: str) -> bool:
        return self.query.get(name, "").lower() in ("true", "1", "t")

    def words(self, name: str) -> list[str]:
        return [word.strip() for word in self.query.get(name, "").split(",") if word.strip()]

    def choice(self, name: str, *allowed: str) -> str:
        """Return one of the allowed values; the first is the default."""
        value = self.query.get(name, "") or allowed[0]
        if value.lower() not in allowed:
            raise bad_parameter(f"invalid {name}: {value}")
        return value.lower()

    def number(self, name: str, default: int, most: int) -> int:
        text = self.query.get(name, "")
        if not text:
            return default
        if not text.isascii() or not text.isdecimal() or not 1 <= int(text[:9]) <= most:
            raise bad_parameter(f"invalid {name}")
        return int(text)

    def instant(self, name: str) -> int | None:
        """Return an RFC 3339 instant or the beginning of a New York day, in nanoseconds."""
        text = self.query.get(name, "")
        return parse_instant(name, text) if text else None

    def day(self, name: str) -> date | None:
        text = self.query.get(name, "")
        if not text:
            return None
        try:
            return min(max(date.fromisoformat(text[:10]), FIRST_DAY), _FAR_DAY)
        except ValueError:
            raise bad_parameter(f"invalid {name}: {text}") from None

    def json(self) -> dict[str, object]:
        """Return the body, an object; its numbers are exact."""
        try:
            body = self.body or b"{}"
            value = _READER.decode(body.decode(json.detect_encoding(body), "surrogatepass"))
            if any(mark in self.body for mark in _SURROGATES):  # half a pair parses, and can never be written again
                json.dumps(value, ensure_ascii=False, default=str).encode()
        except (ValueError, RecursionError):
            raise Refusal(400, 40010000, "request body format is invalid") from None
        if not isinstance(value, dict):
            raise Refusal(400, 40010000, "request body format is invalid")
        return value


class MultiStatus(NamedTuple):
    """The answer to a request that was many at once (207): how each of them fared."""

    rows: list[Json]


class Taken(NamedTuple):
    """The answer to an instruction that was taken, and of which there is nothing to say: 200 without a body."""


class Follower(Protocol):
    """What goes on with an answer that is not at its end: asked again and again at the account's desk, until ``over``."""

    over: bool
    account: int

    def due(self, desk: Desk) -> str:
        """Return the text that is due."""


class Streamed(NamedTuple):
    """An answer of server-sent events: those that have happened, and who knows of the next, if there can be any."""

    text: str
    follower: Follower | None


Answer: TypeAlias = "Json | MultiStatus | Taken | Streamed"
Handler = Callable[[Call], Answer]


def _no_number(text: str) -> object:
    raise ValueError(f"{text} is no JSON")


_READER: Final = json.JSONDecoder(parse_float=Decimal, parse_constant=_no_number)


def parse_instant(name: str, text: str) -> int:
    """Return nanoseconds for RFC 3339 with any offset (none means UTC), or for a date, which is its New York midnight."""
    matched = _INSTANT.fullmatch(text.strip().replace(" ", "+") if "T" in text else text.strip())
    if matched is None:
        raise bad_parameter(f"invalid {name}: {text}")
    try:
        if matched["clock"] is None:
            return new_york_ns(min(max(date.fromisoformat(matched["date"]), FIRST_DAY), _FAR_DAY))
        zone = {"": "+00:00", "Z": "+00:00", "z": "+00:00"}.get(matched["zone"] or "", matched["zone"])
        moment = datetime.fromisoformat(f"{matched['date']}T{matched['clock']}{zone}")
        instant = int(moment.timestamp()) * SECOND_NS + int((matched["fraction"] or "").ljust(9, "0")[:9])
        return min(max(instant, 0), new_york_ns(_FAR_DAY))
    except (ValueError, OverflowError):
        raise bad_parameter(f"invalid {name}: {text}") from None


_INSTANT: Final = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d)(?:T(?P<clock>\d\d:\d\d(?::\d\d)?)(?:\.(?P<fraction>\d+))?(?P<zone>[Zz]|[+-]\d\d:?\d\d)?)?"
)
