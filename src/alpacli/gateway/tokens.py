"""Tokens: what they are, who may sign them, how one is read. JWTs, so that any language and any proxy understands them.

Ours are HS256 under a secret that is generated on first use and lies in the state directory, mode 0600. Each machine has its
own; with Redis it is put there too, sealed under the account's secret key, so that gateways of one account read each other's
tokens and whoever reads Redis can make none. A user's own issuer signs with RS256 or ES256 under keys that it publishes
(JWKS). The algorithm is ours to choose, never the token's.
"""

import base64
import hashlib
import hmac
import json
import os
import secrets
import string
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

import jwt
from cryptography.fernet import Fernet, InvalidToken

from alpacli.errors import AccessDenied, ConfigError, StoreUnavailable, UsageError
from alpacli.ports import Clock
from alpacli.settings import Secret
from alpacli.store.tokens import Shared

SCOPES: Final = ("read", "stream", "trade")
_ISSUER: Final = "alpacli"
_FOREIGN: Final = ("RS256", "ES256")
_LEEWAY_S: Final = 30
"""How far the clocks of a foreign issuer and of this machine may be apart."""
_LONGEST: Final = 4096
_SECRET_BYTES: Final = 32


class Grant(NamedTuple):
    """What a client may do: the name people know it by, its id, scopes, and until when (Unix seconds).

    ``signed``: its trades must be signed too.
    """

    name: str
    id: str
    scopes: frozenset[str]
    expires: float | None = None
    signed: bool = False


class SigningKeys:
    """This machine's secret, and with Redis those of the other machines that serve the same account."""

    def __init__(self, path: str, account_secret: Secret, shared_key: str, shared: Shared | None) -> None:
        self._path = path
        self._shared = shared
        self._shared_key = shared_key
        digest = hashlib.sha256(b"alpacli gateway\0" + account_secret.reveal().encode()).digest()
        self._seal = Fernet(base64.urlsafe_b64encode(digest))
        self._others: dict[str, bytes] = {}
        self._mine: tuple[str, bytes] | None = None

    def mine(self) -> tuple[str, bytes]:
        """Return the id and the secret to sign with; the first call on a machine makes them.

        Raises:
            ConfigError: the file cannot be read or made, or others can read it.
        """
        if self._mine is None:
            secret = self._read() or self._make()
            self._mine = (hashlib.sha256(secret).hexdigest()[:16], secret)
        return self._mine

    def find(self, key_id: str) -> bytes | None:
        """Return the secret that has this id, here or as of the last ``refresh`` on another machine."""
        own_id, own = self.mine()
        return own if key_id == own_id else self._others.get(key_id)

    def refresh(self) -> None:
        """Tell the other machines of ours, and learn theirs; without an answer from Redis what is known stays.

        Raises:
            ConfigError: as ``mine``.
        """
        own_id, own = self.mine()
        if self._shared is None:
            return
        with suppress(StoreUnavailable):
            found = self._shared.fields(self._shared_key)
            if own_id not in found:
                self._shared.set_field(self._shared_key, own_id, self._seal.encrypt(own))
            for key_id, sealed in found.items():
                if key_id not in self._others:
                    with suppress(InvalidToken):  # sealed by somebody with other keys: nobody we know
                        self._others[key_id] = self._seal.decrypt(sealed)

    def _read(self) -> bytes | None:
        try:
            with open(self._path, "rb") as file:
                mode = os.fstat(file.fileno()).st_mode & 0o777
                secret = file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigError(f"cannot read {self._path}: {error.strerror}", "make it yours, mode 0600") from None
        if mode & 0o077:
            raise ConfigError(
                f"{self._path} can be read by others (mode {mode:04o})",
                "remove it, and every token that was minted with it ends; a new one is made by itself",
            )
        if len(secret) != _SECRET_BYTES:
            raise ConfigError(f"{self._path} is damaged", "remove it: a new one is made, and old tokens end")
        return secret

    def _make(self) -> bytes:
        """Make the secret, or take the one that another process has made at the same moment."""
        name = f"{self._path}.{os.getpid()}"
        secret = os.urandom(_SECRET_BYTES)
        try:
            os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
            with open(os.open(name, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "wb") as file:
                file.write(secret)
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):
                os.link(name, self._path)
            os.unlink(name)
        except OSError as error:
            raise ConfigError(
                f"cannot write {self._path}: {error.strerror}", "make room, or set ALPACLI_STATE_DIR"
            ) from None
        return self._read() or secret


class Issuer(NamedTuple):
    """The user's own issuer: the claims ``iss`` and ``aud`` of its tokens, and where its public keys are (URL or file)."""

    name: str
    audience: str
    jwks: str


class PublishedKeys:
    """The public keys of the user's own issuer, by id, as of the last ``refresh``."""

    def __init__(self, issuer: Issuer, clock: Clock, fetch: Callable[[str], bytes]) -> None:
        self.issuer = issuer
        self._clock = clock
        self._fetch = fetch
        self._keys: dict[str, jwt.PyJWK] = {}
        self._next = float("-inf")

    def find(self, key_id: str) -> jwt.PyJWK | None:
        found = self._keys.get(key_id)
        if found is None:
            self._next = min(self._next, self._clock.monotonic() + _SOON_S)  # perhaps it is newer than what we have
        return found

    def refresh(self) -> None:
        """Fetch the keys when it is time to.

        Raises:
            ConfigError: they cannot be had, or are none. Those that are known stay.
        """
        if self._clock.monotonic() < self._next:
            return
        self._next = self._clock.monotonic() + _SOON_S
        try:
            keys = jwt.PyJWKSet.from_dict(json.loads(self._fetch(self.issuer.jwks))).keys
        except (OSError, ValueError, RecursionError, jwt.PyJWTError) as error:
            raise ConfigError(f"no keys from {self.issuer.jwks}: {error}", "check --jwks") from None
        usable = {key.key_id: key for key in keys if key.key_id and key.algorithm_name in _FOREIGN}
        if not usable:
            raise ConfigError(f"{self.issuer.jwks} has no RS256 or ES256 key with an id", "check --jwks")
        self._keys = usable
        self._next = self._clock.monotonic() + _REREAD_S


_SOON_S: Final = 10.0
_REREAD_S: Final = 300.0


def fetch_jwks(place: str) -> bytes:
    """Read a key set from a file, or over https (plain http from this machine only).

    Raises:
        OSError: it cannot be had.
    """
    if "://" not in place:
        with open(place, "rb") as file:
            return file.read()
    import requests

    answer = requests.get(place, timeout=5, allow_redirects=False)
    if answer.status_code != 200:
        raise OSError(f"HTTP {answer.status_code}")
    return answer.content


def mint(keys: SigningKeys, account: str, grant: Grant, now: float) -> str:
    """Return a signed token for the clients of an account (its fingerprint)."""
    key_id, secret = keys.mine()
    claims: dict[str, Any] = {
        "iss": _ISSUER,
        "aud": account,
        "sub": grant.name,
        "jti": grant.id,
        "scope": " ".join(scope for scope in SCOPES if scope in grant.scopes),
        "iat": int(now),
    }
    if grant.expires is not None:
        claims["exp"] = int(grant.expires)
    if grant.signed:
        claims["signed"] = True
    return jwt.encode(claims, secret, "HS256", headers={"kid": key_id})


def mint_pair() -> tuple[str, str, str]:
    """Return a key ID and a secret as Alpaca's look, and the SHA-256 of the secret, which is all that is kept."""
    alphabet = string.ascii_uppercase + string.digits
    key_id = "PKGW" + "".join(secrets.choice(alphabet) for _ in range(16))
    secret = secrets.token_urlsafe(30)
    return key_id, secret, hashlib.sha256(secret.encode()).hexdigest()


def read_token(token: str, account: str, keys: SigningKeys, published: PublishedKeys | None) -> Grant:
    """Return what a token grants, if it is one that was signed for this account; it may have expired.

    Raises:
        AccessDenied: anything else. The message never says more than what kind of thing is wrong.
    """
    if len(token) > _LONGEST:
        raise invalid("this is too long for a token")
    try:
        header = jwt.get_unverified_header(token)
        key_id = str(header.get("kid", ""))
        if header.get("alg") == "HS256":
            secret = keys.find(key_id)
            if secret is None:
                raise invalid("this token was signed by somebody else")
            claims: Mapping[str, Any] = jwt.decode(
                token,
                secret,
                algorithms=["HS256"],
                audience=account,
                issuer=_ISSUER,
                # Whoever asks compares the times, on the clock that is given to it.
                options={"require": ["jti", "sub", "aud", "iss"], "verify_exp": False, "verify_iat": False},
            )
        else:
            claims = _read_foreign(token, key_id, published)
    except jwt.ExpiredSignatureError:
        raise invalid("this token has expired") from None
    except (jwt.PyJWTError, ValueError, TypeError):
        raise invalid("this token is not valid") from None
    return _grant(token, claims)


def _read_foreign(token: str, key_id: str, published: PublishedKeys | None) -> Mapping[str, Any]:
    key = published.find(key_id) if published is not None else None
    if published is None or key is None:
        raise invalid("this token was signed by somebody else")
    claims: Mapping[str, Any] = jwt.decode(
        token,
        key,
        algorithms=[key.algorithm_name],
        audience=published.issuer.audience,
        issuer=published.issuer.name,
        leeway=_LEEWAY_S,
        options={"require": ["exp", "sub", "aud", "iss"]},
    )
    return claims


def _grant(token: str, claims: Mapping[str, Any]) -> Grant:
    scope = claims.get("scope", claims.get("scp", ()))
    names: Sequence[object] = scope.split() if isinstance(scope, str) else scope if isinstance(scope, list) else ()
    token_id = claims.get("jti")
    if not isinstance(token_id, str) or not token_id:
        token_id = hashlib.sha256(token.encode()).hexdigest()[:24]
    expires = claims.get("exp")
    return Grant(
        str(claims["sub"])[:100],
        token_id,
        frozenset(name for name in SCOPES if name in names),
        float(expires) if isinstance(expires, int | float) else None,
        claims.get("signed") is True,
    )


def signing_key(keys: SigningKeys, token_id: str) -> str:
    """Return the key that signs the trades of one token or pair: made from ours, so nothing more is kept."""
    _, secret = keys.mine()
    return hmac.new(secret, b"signing\0" + token_id.encode(), hashlib.sha256).hexdigest()


def read_scopes(text: str) -> frozenset[str]:
    """Read ``read,stream,trade``.

    Raises:
        UsageError: there is no such scope, or none at all.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in SCOPES]
    if unknown or not names:
        raise UsageError(
            f"there is no scope {unknown[0]!r}" if unknown else "no scope was given", f"choose among {','.join(SCOPES)}"
        )
    return frozenset(names)


def invalid(message: str) -> AccessDenied:
    """Return the refusal of a client that proves nothing."""
    return AccessDenied(
        message,
        "`alpacli serve token` mints one where the gateway runs; send it as Authorization: Bearer TOKEN",
        status=401,
    )
