"""Who may: one question, ``Access.check(credentials, scope)``, that every route and every socket asks.

What proves a client is a token (``Authorization: Bearer``, the first message of a socket, or its subprotocol) or a key pair
in Alpaca's own places; never anything in a URL. The answer is a ``Grant`` or ``AccessDenied``.
"""

import hmac
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from alpacli.errors import AccessDenied
from alpacli.ports import Clock
from alpacli.settings import KeyPair

SCOPES: Final = ("read", "stream", "trade")
SUBPROTOCOL: Final = "alpacli"
"""What a socket agrees on when the client offers it beside ``bearer.TOKEN``."""
_BEARER: Final = "bearer."


class Credentials(NamedTuple):
    """What a client proves itself with: a token, or a key pair."""

    token: str = ""
    key_id: str = ""
    secret: str = ""

    def __repr__(self) -> str:
        return "Credentials(***)"

    def __bool__(self) -> bool:
        return bool(self.token or self.key_id or self.secret)


class Grant(NamedTuple):
    """What a client may do: the name people know it by, its id, scopes, and until when (Unix seconds)."""

    name: str
    id: str
    scopes: frozenset[str]
    expires: float | None = None


class Access:
    """Knows the upstream key pair and everything that was minted."""

    def __init__(self, upstream: KeyPair, clock: Clock) -> None:
        self._upstream = upstream
        self._clock = clock

    def check(self, credentials: Credentials, scope: str) -> Grant:
        """Return what these credentials grant.

        Raises:
            AccessDenied: status 401 when they prove nothing (any more), 403 when they do not reach this far.
        """
        grant = self._prove(credentials)
        if scope not in grant.scopes:
            raise AccessDenied(f"{grant.name} may not {scope}", f"mint a token with --scope {scope}", status=403)
        return grant

    def holds(self, grant: Grant) -> bool:
        """Tell whether a grant still stands; quick, for what lasts, like a socket, to ask every half second."""
        return grant.expires is None or self._clock.time() < grant.expires

    def _prove(self, credentials: Credentials) -> Grant:
        if not credentials:
            raise denied("a token is needed")
        same = hmac.compare_digest(credentials.key_id.encode(), self._upstream.key_id.encode())
        same &= hmac.compare_digest(credentials.secret.encode(), self._upstream.secret.reveal().encode())
        if same:
            return Grant("the account's own key pair", "upstream", frozenset(SCOPES))
        raise denied("this token is not valid")


def from_headers(headers: Mapping[str, str]) -> Credentials:
    """Find the credentials in request headers, whose names are in lower case."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return Credentials(token=token.strip())
    return Credentials(key_id=headers.get("apca-api-key-id", ""), secret=headers.get("apca-api-secret-key", ""))


def from_subprotocols(offered: Iterable[str]) -> Credentials:
    """Find the token among the subprotocols that a socket's client offers: ``alpacli, bearer.TOKEN``."""
    tokens = [name.removeprefix(_BEARER) for name in offered if name.startswith(_BEARER)]
    return Credentials(token=tokens[0]) if len(tokens) == 1 else Credentials()


def from_message(message: object) -> Credentials:
    """Find the credentials in the first message of a socket, ours or Alpaca's.

    ``{"action": "auth", "token": …}``; ``{"action": "auth", "key": …, "secret": …}``, where the key ``oauth`` means that the
    secret is a token; ``{"action": "authenticate", "data": {"key_id": …, "secret_key": …}}`` or ``{"oauth_token": …}``.
    """
    if not isinstance(message, dict):
        return Credentials()
    data = message.get("data")
    fields = data if isinstance(data, dict) else message
    token = _text(fields.get("token")) or _text(fields.get("oauth_token"))
    key_id = _text(fields.get("key")) or _text(fields.get("key_id"))
    secret = _text(fields.get("secret")) or _text(fields.get("secret_key"))
    if key_id == "oauth":
        token, key_id, secret = secret, "", ""
    return Credentials(token=token) if token else Credentials(key_id=key_id, secret=secret)


def denied(message: str) -> AccessDenied:
    """Return the refusal of a client that proves nothing."""
    return AccessDenied(message, "send Authorization: Bearer TOKEN; `alpacli serve token` mints one", status=401)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
