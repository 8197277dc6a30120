"""The server's side of Alpaca's sockets, without I/O: what a client's frame asks for, and how it is answered.

The offline exchange and the gateway both speak it. Codes and texts are those of Alpaca's table of errors. Who may, what there
is to tell and how much somebody may ask for is decided by whoever serves.

Source: "Real-time Data" (its table of errors included) and "Websocket Streaming".
"""

import base64
import re
from collections.abc import Collection, Mapping
from typing import Any, Final, Literal, NamedTuple

import msgspec

from alpacli.domain.ticks import instant_text
from alpacli.wire.commands import decode_command, encode_messages
from alpacli.wire.frames import BadFrame, Encoding, Failure

LOGIN_WITHIN_S: Final = 10.0
"""A client that has not logged in by then is sent away (404)."""

UPDATES: Final = "trade_updates"
"""The trading stream's only channel."""

TEXTS: Final[Mapping[int, str]] = {
    400: "invalid syntax",
    401: "not authenticated",
    402: "auth failed",
    403: "already authenticated",
    404: "auth timeout",
    405: "symbol limit exceeded",
    406: "connection limit exceeded",
    407: "slow client",
    408: "v2 not enabled",
    409: "insufficient subscription",
    410: "invalid subscribe action for this feed",
    411: "insufficient scope",
    412: "option messages only in MsgPack",
    413: "star subscription is not allowed for option quotes",
    500: "internal error",
}

_OPTIONS: Final = ("/v1beta1/indicative", "/v1beta1/opra")
_TWINS: Final = ("corrections", "cancelErrors")
_SYMBOL: Final = re.compile(r"\*|[A-Za-z0-9][A-Za-z0-9./_-]{0,31}")
_KEY_HEADER: Final = "apca-api-key-id"
_SECRET_HEADER: Final = "apca-api-secret-key"  # noqa: S105 the header's name, not a secret
_json: Final = msgspec.json.Encoder()

Channels = Mapping[str, frozenset[str]]


class Login(NamedTuple):
    """A key pair; an OAuth token is the secret of key ``oauth``."""

    key_id: str
    secret: str


class Change(NamedTuple):
    """Symbols to add or to remove; with ``trades`` come the channels that correct them."""

    action: Literal["subscribe", "unsubscribe"]
    channels: Channels

    def applied_to(self, had: Channels) -> dict[str, frozenset[str]]:
        """Return the complete state after it."""
        nothing: frozenset[str] = frozenset()
        if self.action == "subscribe":
            return {name: symbols | self.channels.get(name, nothing) for name, symbols in had.items()}
        return {name: symbols - self.channels.get(name, nothing) for name, symbols in had.items()}


class Listen(NamedTuple):
    """The streams that a client of the trading stream wants from now on."""

    streams: tuple[str, ...]


def failure(code: int) -> Failure:
    return Failure(code, TEXTS[code])


def login_in(headers: Mapping[str, str]) -> Login | None:
    """Return the key pair of an upgrade request: Alpaca's own two headers, Basic, or a bearer token.

    Header names are in lower case.
    """
    if headers.get(_KEY_HEADER) or headers.get(_SECRET_HEADER):
        return Login(headers.get(_KEY_HEADER, ""), headers.get(_SECRET_HEADER, ""))
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return Login("oauth", value.strip())
    if scheme.lower() == "basic":
        try:
            key_id, _, secret = base64.b64decode(value.strip(), validate=True).decode().partition(":")
        except ValueError:  # no Base64, no UTF-8, or a letter that is not ASCII
            return Login("", "")
        return Login(key_id, secret)
    return None


# ------------------------------------------------------------------------------------------------- market data


def encoding_of(headers: Mapping[str, str]) -> Encoding:
    """Return the encoding that an upgrade request asks for."""
    return "msgpack" if "msgpack" in headers.get("content-type", "") else "json"


def refused_encoding(path: str, encoding: Encoding) -> Failure | None:
    """Tell whether an endpoint does not speak this encoding."""
    return failure(412) if path in _OPTIONS and encoding == "json" else None


def read_market(
    frame: str | bytes, encoding: Encoding, path: str, known: Collection[str], *, authenticated: bool
) -> Login | Change | Failure:
    """Return what a client of a market data endpoint asks for. ``known`` are the channels that the endpoint has."""
    try:
        command = decode_command(frame, encoding)
    except BadFrame:
        return failure(400)
    action = command.pop("action", None)
    if action == "auth":
        return Login(_text(command.get("key")), _text(command.get("secret")))
    if action not in ("subscribe", "unsubscribe"):
        return failure(400)
    return _read_change(action, command, path, known) if authenticated else failure(401)


def _read_change(
    action: Literal["subscribe", "unsubscribe"], lists: Mapping[str, object], path: str, known: Collection[str]
) -> Change | Failure:
    asked: dict[str, frozenset[str]] = {}
    for name, symbols in lists.items():
        if name not in known:
            return failure(410)
        if not isinstance(symbols, list) or not all(isinstance(s, str) and _SYMBOL.fullmatch(s) for s in symbols):
            return failure(400)
        if name == "quotes" and "*" in symbols and path in _OPTIONS:
            return failure(413)
        asked[name] = frozenset(symbols)
    for twin in _TWINS:
        if "trades" in asked and twin in known:
            asked[twin] = asked.get(twin, frozenset()) | asked["trades"]
    return Change(action, asked)


def say_success(message: str, encoding: Encoding) -> str | bytes:
    return encode_messages([{"T": "success", "msg": message}], encoding)


def say_failure(failed: Failure, encoding: Encoding) -> str | bytes:
    return encode_messages([{"T": "error", "code": failed.code, "msg": failed.message}], encoding)


def say_missed(from_ns: int, until_ns: int, encoding: Encoding) -> str | bytes:
    """Say that something is missing: an error with its bounds in two fields more, which Alpaca's clients do not look for."""
    bounds = {"from": instant_text(from_ns), "until": instant_text(until_ns)}
    text = f"messages were missed upstream, {bounds['from']} to {bounds['until']}"
    return encode_messages([{"T": "error", "code": 407, "msg": text, **bounds}], encoding)


def say_subscription(channels: Channels, encoding: Encoding) -> str | bytes:
    """Confirm the complete state."""
    lists = {name: sorted(symbols) for name, symbols in channels.items()}
    return encode_messages([{"T": "subscription", **lists}], encoding)


# ---------------------------------------------------------------------------------------------- trading stream


def read_trading(frame: str | bytes) -> Login | Listen | Failure:
    """Return what a client of the trading stream asks for."""
    try:
        command = decode_command(frame)
    except BadFrame:
        return failure(400)
    action, data = command.get("action"), command.get("data")
    inner: Mapping[str, Any] = data if isinstance(data, dict) else {}
    if action == "auth":
        return Login(_text(command.get("key")), _text(command.get("secret")))
    if action == "authenticate":
        token = _text(inner.get("oauth_token"))
        return Login("oauth", token) if token else Login(_text(inner.get("key_id")), _text(inner.get("secret_key")))
    streams = inner.get("streams")
    if action != "listen" or not isinstance(streams, list):
        return failure(400)
    return Listen(tuple(name for name in streams if isinstance(name, str)))


def say_authorization(action: Literal["authenticate", "listen"], *, authorized: bool) -> bytes:
    status = "authorized" if authorized else "unauthorized"
    return _json.encode({"stream": "authorization", "data": {"status": status, "action": action}})


def say_listening(asked: Listen) -> bytes:
    streams = [UPDATES] if UPDATES in asked.streams else []
    return _json.encode({"stream": "listening", "data": {"streams": streams}})


def say_trading_failure(failed: Failure) -> bytes:
    """Say what ends the conversation; refused keys have words of their own."""
    if failed.code == 402:
        return say_authorization("authenticate", authorized=False)
    return _json.encode({"action": "error", "data": {"code": failed.code, "error_message": failed.message}})


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
