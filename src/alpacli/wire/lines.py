"""Ticks as alpacli prints them and as its processes pass them on: one JSON object a line, full names, every digit."""

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Raw

from alpacli.domain.ticks import Bar, Quote, Tick, Trade
from alpacli.wire.frames import Loose, Message, plain_text

_json: Final = msgspec.json.Encoder(decimal_format="number")
_object: Final = msgspec.json.Decoder(dict[str, Raw])


def encode_lines(ticks: Sequence[object]) -> bytes:
    """Write ticks as alpacli prints them: one JSON object a line, full names, every digit."""
    return _json.encode_lines(ticks)


class _LineTrade(Trade, tag_field="type", tag="trade", forbid_unknown_fields=True, gc=False):
    pass


class _LineQuote(Quote, tag_field="type", tag="quote", forbid_unknown_fields=True, gc=False):
    pass


class _LineBar(Bar, tag_field="type", tag="bar", forbid_unknown_fields=True, gc=False):
    pass


_typed_lines: Final = msgspec.json.Decoder(_LineTrade | _LineQuote | _LineBar)


def decode_lines(lines: bytes) -> list[Message]:
    """Read what ``encode_lines`` wrote, every field and digit of it."""
    try:
        return list(_typed_lines.decode_lines(lines))
    except msgspec.ValidationError:
        return [_decode_line(line) for line in lines.splitlines()]


def _decode_line(line: bytes) -> Message:
    try:
        tick: Tick = _typed_lines.decode(line)
    except msgspec.ValidationError:
        fields: Loose = dict(_object.decode(line))
        for name in ("type", "symbol"):
            if name in fields:
                fields[name] = plain_text(fields[name])
        return fields
    return tick


def subject(tick: Message) -> tuple[str, str]:
    """Return the ``type`` and the symbol; news is about many, so its symbol is ``*``."""
    if isinstance(tick, dict):
        return str(tick["type"]), str(tick.get("symbol") or "*")
    return tick.type, tick.symbol
