"""Messages that arrived together, as ticks or as lines, whichever is asked for; converted at most once."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from alpacli.domain.ticks import AnyTick
from alpacli.wire.frames import Message
from alpacli.wire.lines import encode_lines

_decoder = msgspec.json.Decoder(AnyTick)


class _About(msgspec.Struct, gc=False):
    type: str = ""
    symbol: str = ""


_about = msgspec.json.Decoder(_About)


class Batch:
    """``count`` messages. What came over the hub's socket is lines, what came over one's own is ticks."""

    __slots__ = ("_lines", "_messages", "count")

    def __init__(self, messages: Sequence[Message] | None, lines: bytes | None, count: int) -> None:
        self._messages = messages
        self._lines = lines
        self.count = count

    @classmethod
    def of_ticks(cls, messages: Sequence[Message]) -> "Batch":
        return cls(messages, None, len(messages))

    @classmethod
    def of_lines(cls, lines: bytes) -> "Batch":
        """Take whole lines, the last one ended too."""
        return cls(None, lines, lines.count(b"\n"))

    @property
    def lines(self) -> bytes:
        """Return NDJSON: one message a line, as ``alpacli stream --json`` prints them."""
        if self._lines is None:
            self._lines = encode_lines(self._messages or ())
        return self._lines

    @property
    def messages(self) -> Sequence[Message] | None:
        """Return the messages when this batch was made of them, else ``None``."""
        return self._messages

    def ticks(self) -> tuple[list[AnyTick], int]:
        """Return the messages as typed ticks, and how many could not be read as one."""
        if self._messages is not None and all(not isinstance(message, dict) for message in self._messages):
            return list(self._messages), 0  # type: ignore[arg-type] # structs are ticks; the check above has told so
        ticks: list[AnyTick] = []
        unreadable = 0
        for line in self.lines.splitlines():
            try:
                ticks.append(_decoder.decode(line))
            except msgspec.DecodeError:
                unreadable += 1
        return ticks, unreadable


def without_older_quotes(lines: Iterable[bytes], newer: set[str]) -> list[bytes]:
    """Return the lines in their order, of the quotes only the latest of each symbol; nothing else is ever left out.

    ``newer`` has the symbols whose latest quote comes after these lines, and gets those of these lines.
    """
    kept: list[bytes] = []
    for line in reversed(list(lines)):
        about = _about.decode(line)
        if about.type == "quote":
            if about.symbol in newer:
                continue
            newer.add(about.symbol)
        kept.append(line)
    kept.reverse()
    return kept


def schema() -> dict[str, object]:
    """Return the JSON Schema of one line."""
    from inspect import cleandoc

    from msgspec import Raw

    def number_or_anything(kind: type) -> dict[str, object]:
        if kind is Raw:
            return {}
        raise NotImplementedError

    def tidy(value: Any) -> Any:
        """Take the indentation of the source out of descriptions, as Python itself does from 3.13 on."""
        if isinstance(value, list):
            return [tidy(item) for item in value]
        if isinstance(value, dict):
            return {
                name: cleandoc(it) if name == "description" and isinstance(it, str) else tidy(it)
                for name, it in value.items()
            }
        return value

    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **tidy(msgspec.json.schema(AnyTick, schema_hook=number_or_anything)),
    }
