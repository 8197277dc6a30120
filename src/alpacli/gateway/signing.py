"""Trades that are signed: whoever reads a token from a log or a proxy still cannot trade with it.

A gateway that demands it demands it of everybody, the account's own key pair included: that pair travels with each request
too, and has no signing key. Its owner mints a token that has one.

The signature is HMAC-SHA256, in hex, under the key that was printed with the token, of four lines: the method, the path with
its query as sent, the SHA-256 of the body in hex, and the Unix time in seconds. It is good for half a minute and one request.
"""

import hashlib
import hmac
from collections.abc import Mapping
from typing import Final

from alpacli.errors import AccessDenied, StoreUnavailable
from alpacli.gateway.tokens import Grant, SigningKeys, signing_key
from alpacli.ports import Clock, Lead, Randomness, Store

TIME_HEADER: Final = "x-alpacli-time"
SIGNATURE_HEADER: Final = "x-alpacli-signature"
GOOD_FOR_S: Final = 30.0
_HOW: Final = "docs/gateway.md shows how, for the SDK too"
_SIGN: Final = f"send {TIME_HEADER} and {SIGNATURE_HEADER}, made with its signing key; {_HOW}"
_MINT: Final = (
    "it has no signing key: use a token of `alpacli serve token --scope read,trade --sign` instead, and sign with the key"
    f" that it prints; {_HOW}"
)


def sign(key: str, method: str, target: str, body: bytes, at: int) -> str:
    """Return the signature of a request; ``target`` is the path with its query, as on the wire, ``at`` Unix seconds."""
    text = f"{method}\n{target}\n{hashlib.sha256(body).hexdigest()}\n{at}"
    return hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()


class Signatures:
    """Checks signatures and remembers those that were used, together with every gateway that shares the store."""

    def __init__(self, keys: SigningKeys, store: Store, scope: str, clock: Clock, rng: Randomness) -> None:
        self._keys = keys
        self._store = store
        self._scope = scope
        self._clock = clock
        self._rng = rng
        self._used: dict[str, float] = {}

    def check(self, grant: Grant, method: str, target: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Let a signed request pass once; asks the store, so it blocks.

        Raises:
            AccessDenied: not signed, wrongly signed, too old or from the future, or seen before.
        """
        given, at = headers.get(SIGNATURE_HEADER, ""), headers.get(TIME_HEADER, "")
        if not given or not (at.isascii() and at.isdecimal() and len(at) < 12):
            raise _refused("the trades of this client must be signed", _SIGN if grant.signed else _MINT)
        expected = sign(signing_key(self._keys, grant.id), method, target, body, int(at))
        if not hmac.compare_digest(given.encode(), expected.encode()):
            raise _refused("the signature is wrong", "sign method, path with query, SHA-256 of the body, and time")
        now = self._clock.time()
        if abs(now - int(at)) > GOOD_FOR_S:
            raise _refused("the signature is too old, or its clock is wrong", "sign each request when it is sent")
        self._use_once(expected, now)

    def _use_once(self, signature: str, now: float) -> None:
        self._used = {known: until for known, until in self._used.items() if until > now}
        first = signature not in self._used
        self._used[signature] = now + 2 * GOOD_FOR_S
        key, token = f"{self._scope}:~signature:{signature}", self._rng.token()
        try:
            first &= isinstance(self._store.claim(key, 2 * GOOD_FOR_S, 2 * GOOD_FOR_S, token), Lead)
            self._store.publish(key, token, b"1")
        except StoreUnavailable:
            raise _refused("whether this signature was used cannot be known now", "try again in a moment") from None
        if not first:
            raise _refused("this signature was used before", "sign each request anew")


def _refused(message: str, hint: str) -> AccessDenied:
    return AccessDenied(message, hint, status=401)
