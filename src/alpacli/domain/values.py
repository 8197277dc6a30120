"""Exact values: numbers that keep every digit, times that keep every nanosecond, and one JSON form of everything.

What Alpaca sends as ``"1.50"`` is ``Decimal("1.50")`` here and the JSON number ``1.50`` in what ``--json`` prints and the
cache holds; both are ``to_json``'s bytes, so a cached answer is printed without being parsed. Fields nobody has heard of
yet pass through as they came. Binary floating point appears nowhere between the wire and the screen.
"""

import datetime as dt
import json
import re
from decimal import Decimal
from json.encoder import encode_basestring as _quote
from typing import Annotated, Any, Final, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    GetJsonSchemaHandler,
    PlainSerializer,
    PlainValidator,
    Strict,
    WithJsonSchema,
)
from pydantic_core import core_schema

_NUMBER: Final = re.compile(r"-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_INSTANT: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]+))?"
    r"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))"
)
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_LONGEST_NUMBER: Final = 1000  # characters; Alpaca's longest have 25, and an exponent of 999 still prints in an instant


def exact(value: object) -> Decimal:
    """Return the number that a wire text, or a JSON number parsed by ``from_json``, stands for, digit for digit.

    Raises:
        ValueError: not a finite decimal number; a ``float`` too, since its digits are not those that were sent.
    """
    if isinstance(value, str):
        if len(value) <= _LONGEST_NUMBER and _NUMBER.fullmatch(value):
            return Decimal(value)
    elif isinstance(value, Decimal):
        if value.is_finite():
            return value
    elif isinstance(value, int) and not isinstance(value, bool):
        return Decimal(value)
    msg = f"not a decimal number: {str(value)[:40]!r}"
    raise ValueError(msg)


def _exact_or_none(value: object) -> Decimal | None:
    return None if value is None or value == "" else exact(value)


def _decimal_text(value: object) -> str:
    return format(exact(value), "f")


_AS_TEXT: Final = PlainSerializer(_decimal_text, return_type=str, when_used="json-unless-none")
"""What pydantic's own JSON holds, a text with every digit; ``to_json`` writes numbers and does not ask this."""

Amount = Annotated[
    Decimal, PlainValidator(exact, json_schema_input_type=Decimal), _AS_TEXT, WithJsonSchema({"type": "number"})
]
"""Money, a price, a quantity or a ratio."""

MaybeAmount = Annotated[
    Decimal | None,
    PlainValidator(_exact_or_none),
    _AS_TEXT,
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "null"}]}),
]
"""An amount that may be missing: null, and the empty text that multi-leg orders carry, are ``None``."""

Flag = Annotated[bool, Strict()]
Whole = Annotated[int, Strict()]


class Timestamp(dt.datetime):
    """An instant in UTC that remembers how it was written.

    As a ``datetime`` it has microseconds, so instants that differ by less compare equal; ``epoch_ns`` tells them apart, and
    ids, never times, tell whether two events are the same. ``wire`` is the RFC 3339 text as it came, whatever its offset
    and number of digits. Arithmetic gives instants that were never on the wire; their ``wire`` is UTC in microseconds.
    """

    _wire: str | None = None
    _below_us_ns: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read RFC 3339 with any offset; fraction digits beyond nanoseconds are only kept in ``wire``.

        Raises:
            ValueError: not such a text, or an impossible date. A time without an offset is refused, not guessed.
        """
        match = _INSTANT.fullmatch(text)
        if match is None:
            msg = f"not an RFC 3339 time with an offset: {text[:40]!r}"
            raise ValueError(msg)
        year, month, day, hour, minute, second = (int(part) for part in match.group(1, 2, 3, 4, 5, 6))
        fraction = (match[7] or "")[:9].ljust(9, "0")
        leap = second == 60  # RFC 3339 section 5.7: the instant after :59
        micro = int(fraction[:6])
        instant = cls(year, month, day, hour, minute, 59 if leap else second, micro, tzinfo=dt.UTC)
        if leap:
            instant += dt.timedelta(seconds=1)
        if match[8] is not None:
            offset = dt.timedelta(hours=int(match[9]), minutes=int(match[10]))
            if offset >= dt.timedelta(days=1):
                msg = f"an offset of a day or more: {text[:40]!r}"
                raise ValueError(msg)
            try:
                instant = instant - offset if match[8] == "+" else instant + offset
            except OverflowError:
                msg = f"out of the calendar in UTC: {text[:40]!r}"
                raise ValueError(msg) from None
        instant._wire = text
        instant._below_us_ns = int(fraction[6:])
        return instant

    @property
    def wire(self) -> str:
        """Return the text as it came, or RFC 3339 in UTC when this instant was computed."""
        if self._wire is not None:
            return self._wire
        text = self.astimezone(dt.UTC).isoformat() if self.tzinfo else self.isoformat()
        return text.removesuffix("+00:00") + "Z" if text.endswith("+00:00") else text

    @property
    def epoch_ns(self) -> int:
        """Return nanoseconds since 1970-01-01 UTC, exact."""
        return epoch_ns(self) + self._below_us_ns

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        return type(self).parse, (self.wire,)

    @classmethod
    def _validate(cls, value: object) -> Self:
        if isinstance(value, cls):
            return value
        if isinstance(value, str):
            return cls.parse(value)
        if isinstance(value, dt.datetime) and value.tzinfo is not None:
            return cls.parse(value.isoformat())
        msg = f"not an RFC 3339 time: {str(value)[:40]!r}"
        raise ValueError(msg)

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls._validate,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda value: (
                    cls._validate(value).wire
                ),  # model_copy and model_construct put in whatever they are given
                when_used="json-unless-none",
            ),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, _schema: Any, _handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "format": "date-time"}


def epoch_ns(instant: dt.datetime) -> int:
    """Return nanoseconds since 1970-01-01 UTC of any aware time; exact to what a ``datetime`` holds."""
    since = instant - _EPOCH
    return ((since.days * 86400 + since.seconds) * 1_000_000 + since.microseconds) * 1000


def _time_or_none(value: object) -> Timestamp | None:
    return None if value is None or value == "" else Timestamp._validate(value)


MaybeTimestamp = Annotated[
    Timestamp | None,
    PlainValidator(_time_or_none),
    WithJsonSchema({"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]}),
]


def _day(value: object) -> dt.date:
    if type(value) is dt.date:
        return value
    if isinstance(value, str) and _DAY.fullmatch(value):
        return dt.date.fromisoformat(value)
    msg = f"not a date like 2026-01-31: {str(value)[:40]!r}"
    raise ValueError(msg)


Day = Annotated[dt.date, PlainValidator(_day), WithJsonSchema({"type": "string", "format": "date"})]


class Model(BaseModel):
    """What Alpaca answers: frozen, field names as on the wire, unknown fields kept, absent fields not invented."""

    model_config = ConfigDict(
        defer_build=True, frozen=True, extra="allow", populate_by_name=True, hide_input_in_errors=True
    )


# ------------------------------------------------------------------------------------------------------ JSON


def to_json(value: object) -> bytes:
    """Return the canonical JSON text of a model, a list of models, or plain values.

    Compact UTF-8; ``Decimal`` as a number with every digit in plain notation, ``Timestamp`` as it came; fields that were
    absent stay absent, null stays null; declared fields first in their order, then the unknown ones.

    Raises:
        TypeError: a value that has no JSON form (a set, a non-finite number, a key that is not text …).
    """
    parts: list[str] = []
    _write(value, parts.append)
    # A lone surrogate has no UTF-8 form; backslashreplace writes exactly its JSON escape.
    return "".join(parts).encode("utf-8", "backslashreplace")


def _write(value: Any, out: Any) -> None:
    kind = type(value)
    if kind is str:
        out(_quote(value))
    elif value is None:
        out("null")
    elif kind is Decimal:
        out(_number_text(value))
    elif kind is bool:
        out("true" if value else "false")
    elif kind is int:
        out(str(value))
    elif kind is Timestamp:
        out(_quote(value.wire))
    elif isinstance(value, BaseModel):
        _write_members(_members(value), out)
    elif isinstance(value, list | tuple):
        out("[")
        for position, item in enumerate(value):
            if position:
                out(",")
            _write(item, out)
        out("]")
    elif isinstance(value, dict):
        _write_members(value.items(), out)
    else:
        _write_rare(value, out)


def _write_rare(value: Any, out: Any) -> None:
    if isinstance(value, float):
        out(_number_text(Decimal(repr(value))))
    elif isinstance(value, dt.date):  # a datetime is one too
        if isinstance(value, dt.datetime) and value.tzinfo is None:
            msg = "a time without a zone has no JSON form"
            raise TypeError(msg)
        out(_quote(value.wire if isinstance(value, Timestamp) else value.isoformat()))
    elif isinstance(value, str):  # str enums and the like
        out(_quote(str.__str__(value)))
    elif isinstance(value, int):
        out(int.__repr__(value))
    else:
        msg = f"{type(value).__name__} has no JSON form"
        raise TypeError(msg)


def _write_members(members: Any, out: Any) -> None:
    out("{")
    first = True
    for key, item in members:
        if not isinstance(key, str):
            msg = f"a key of type {type(key).__name__} has no JSON form"
            raise TypeError(msg)
        out(("" if first else ",") + _quote(key) + ":")
        first = False
        _write(item, out)
    out("}")


def _members(model: BaseModel) -> list[tuple[str, Any]]:
    present = model.model_fields_set
    aliases = _ALIASES.get(type(model))
    if aliases is None:
        fields = type(model).model_fields
        aliases = _ALIASES[type(model)] = {name: field.alias or name for name, field in fields.items()}
    members = [(aliases[name], item) for name, item in model.__dict__.items() if name in present and name in aliases]
    members.extend((model.__pydantic_extra__ or {}).items())
    return members


_ALIASES: Final[dict[type, dict[str, str]]] = {}


def plain(value: Decimal) -> str:
    """Write a number for people: all its digits, no exponent, no zeros at its end. ``normalize`` would round to 28 digits."""
    written = format(value, "f")
    return written.rstrip("0").rstrip(".") if "." in written else written


def _number_text(value: Decimal) -> str:
    if not value.is_finite():
        msg = f"{value} has no JSON form"
        raise TypeError(msg)
    return format(value, "f")


def _refuse_constant(text: str) -> Any:
    msg = f"{text} is not JSON"
    raise ValueError(msg)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        double = next(name for name in names if names.count(name) > 1)
        msg = f"the field {double[:40]!r} is there twice"
        raise ValueError(msg)
    return found


def from_json(text: bytes, *, each_once: bool = False) -> Any:
    """Read JSON without losing a digit: numbers with a fraction or an exponent become ``Decimal``, others ``int``.

    ``each_once`` takes no object that has a field twice: of an order, nobody could say which of the two was meant.

    Raises:
        ValueError: not UTF-8, not JSON, NaN or infinity, a number longer than any that means something, too deeply nested.
    """
    hook = _each_once if each_once else None
    try:
        return json.loads(
            text.decode("utf-8"), parse_float=exact, parse_constant=_refuse_constant, object_pairs_hook=hook
        )
    except RecursionError:
        msg = "nested too deeply"
        raise ValueError(msg) from None
