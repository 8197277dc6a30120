"""What a relayed message looks like to each kind of client: alpacli's lines, one a frame or in arrays, or Alpaca's own.

A message is made a *piece* once for all clients of a format, and each client's pieces are put together to frames just before
they are written. Server frames carry no mask, so a finished frame too is the same for everybody.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from alpacli.wire.frames import Encoding
from alpacli.wire.short import envelope, short_json, short_msgpack

_TEXT: Final = 0x81
_BINARY: Final = 0x82


def frame(content: str | bytes) -> bytes:
    """Return one whole unmasked WebSocket frame. Source: RFC 6455 section 5.2."""
    if isinstance(content, str):
        return text_frame(content.encode())
    return _frame(_BINARY, content)


def text_frame(content: bytes) -> bytes:
    return _frame(_TEXT, content)


def _frame(opcode: int, content: bytes) -> bytes:
    size = len(content)
    if size < 126:
        return bytes((opcode, size)) + content
    if size < 1 << 16:
        return bytes((opcode, 126)) + size.to_bytes(2, "big") + content
    return bytes((opcode, 127)) + size.to_bytes(8, "big") + content


class Format(NamedTuple):
    """How a line of a ``type`` becomes a piece, and pieces become frames."""

    name: str
    piece: Callable[[str, bytes], bytes]
    together: Callable[[Sequence[bytes]], bytes]


def _line_in_a_frame(_: str, line: bytes) -> bytes:
    return _frame(_TEXT, line)


def _line(_: str, line: bytes) -> bytes:
    return line


def _envelope_in_a_frame(_: str, line: bytes) -> bytes:
    return _frame(_BINARY, envelope(line))


def _json_array(pieces: Sequence[bytes]) -> bytes:
    return _frame(_TEXT, b"[" + b",".join(pieces) + b"]")


def _msgpack_array(pieces: Sequence[bytes]) -> bytes:
    count = len(pieces)
    if count < 16:
        head = bytes((0x90 | count,))
    elif count < 1 << 16:
        head = b"\xdc" + count.to_bytes(2, "big")
    else:
        head = b"\xdd" + count.to_bytes(4, "big")
    return _frame(_BINARY, head + b"".join(pieces))


LINES: Final = Format("lines", _line_in_a_frame, b"".join)
"""alpacli's own, one message a frame."""

ARRAYS: Final = Format("arrays", _line, _json_array)
"""alpacli's own, whatever came together in one array."""

ALPACA: Final[dict[Encoding, Format]] = {
    "json": Format("alpaca json", short_json, _json_array),
    "msgpack": Format("alpaca msgpack", short_msgpack, _msgpack_array),
}
"""The market data sockets' own."""

UPDATES: Final = Format("alpaca updates", _envelope_in_a_frame, b"".join)
"""The trading stream's own: JSON text in binary frames, as the paper exchange sends them."""
