"""What is said on a stream's socket: the commands of a client, and the messages with which a server answers."""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, Literal

import msgspec

from alpacli.domain.ticks import instant_text
from alpacli.wire.frames import NOT_JSON, BadFrame, Encoding

_json: Final = msgspec.json.Encoder(decimal_format="number")


def login(key_id: str, secret: str) -> dict[str, object]:
    return {"action": "auth", "key": key_id, "secret": secret}


def change(action: Literal["subscribe", "unsubscribe"], channels: Mapping[str, Sequence[str]]) -> dict[str, object]:
    """Return the command that adds or removes symbols; the server answers with the complete state."""
    return {"action": action, **{name: list(symbols) for name, symbols in channels.items() if symbols}}


def listen(streams: Sequence[str]) -> dict[str, object]:
    return {"action": "listen", "data": {"streams": list(streams)}}


def encode_command(command: Mapping[str, object], encoding: Encoding = "json") -> str | bytes:
    if encoding == "json":
        return msgspec.json.encode(command).decode()
    return msgspec.msgpack.encode(command)


# ---------------------------------------------------------------------------------------- the other direction


def decode_command(frame: str | bytes, encoding: Encoding = "json") -> dict[str, Any]:
    """Read what a client says.

    Raises:
        BadFrame: it is not an object.
    """
    decoder: Callable[..., Any] = msgspec.json.decode if encoding == "json" else msgspec.msgpack.decode
    try:
        command = decoder(frame)
    except (*NOT_JSON, TypeError) as error:
        raise BadFrame("not a command") from error
    if not isinstance(command, dict):
        raise BadFrame("not a command")
    return command


def encode_messages(messages: Sequence[Mapping[str, object]], encoding: Encoding = "json") -> str | bytes:
    """Write a server's frame: an array of messages under Alpaca's short names, ``T`` first.

    Times (``t``, ``created_at``, ``updated_at``) are given in nanoseconds since 1970; numbers as ``Decimal`` or ``int``.
    """
    if encoding == "json":
        return _json.encode([_with_times(message, instant_text) for message in messages]).decode()
    import msgpack

    packed: bytes = msgpack.packb(
        [_with_times(message, msgpack.Timestamp.from_unix_nano) for message in messages], default=_packable
    )
    return packed


def _with_times(message: Mapping[str, object], make: Callable[[int], object]) -> dict[str, object]:
    return {
        name: make(value) if name in ("t", "created_at", "updated_at") and isinstance(value, int) else value
        for name, value in message.items()
    }


def _packable(value: object) -> object:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() and abs(value) < 1 << 53 else float(value)
    raise TypeError(f"{type(value).__name__} has no place in a frame")
