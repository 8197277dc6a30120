"""Who may: one question, ``Access.admit(credentials, scope)``, that every route and every socket asks.

What proves a client is a token (``Authorization: Bearer``, the first message of a socket, or its subprotocol) or a key pair
in Alpaca's own places; never anything in a URL. The answer is a ``Grant`` or ``AccessDenied``. It does no I/O: the book of
what was revoked is read again twice a second beside it, and a token that was understood once is remembered. Only whoever
comes with a pair that is not known yet waits until the book was read once more: it may have been minted just now.
"""

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Final

from alpacli.errors import AccessDenied, AlpacliError
from alpacli.gateway.allowance import Allowance
from alpacli.gateway.tokens import SCOPES, Grant, PublishedKeys, SigningKeys, invalid, read_token
from alpacli.ports import Clock, async_sleep
from alpacli.settings import KeyPair
from alpacli.store.tokens import Minted, TokenBook

SUBPROTOCOL: Final = "alpacli"
"""What a socket agrees on when the client offers it beside ``bearer.TOKEN``."""
_BEARER: Final = "bearer."
_REREAD_S: Final = 0.4
_REMEMBERED: Final = 10_000
UPSTREAM: Final = "upstream"
"""The id of the grant of whoever has the account's own key pair."""


class Credentials:
    """What a client proves itself with: a token, or a key pair. They cannot be printed."""

    __slots__ = ("key_id", "secret", "token")

    def __init__(self, token: str = "", key_id: str = "", secret: str = "") -> None:
        self.token = token
        self.key_id = key_id
        self.secret = secret

    def __bool__(self) -> bool:
        return bool(self.token or self.key_id or self.secret)


class Access:
    """Knows the upstream key pair, who may sign, and the book; ``beside`` keeps that current while it is entered."""

    def __init__(
        self,
        upstream: KeyPair,
        account: str,
        keys: SigningKeys,
        book: TokenBook,
        clock: Clock,
        warn: Callable[[str], None],
        *,
        published: PublishedKeys | None = None,
        allowance: Allowance | None = None,
        require_signed: bool = False,
    ) -> None:
        self.keys = keys
        self._own_id_sha256 = _sha256(upstream.key_id)
        self._own_secret_sha256 = _sha256(upstream.secret.reveal())
        self._account = account
        self._book = book
        self._published = published
        self._clock = clock
        self._warn = warn
        self._require_signed = require_signed
        self._remembered: dict[str, Grant] = {}
        self._revoked: frozenset[str] = frozenset()
        self._pairs: dict[str, Minted] = {}
        self._allowance = allowance
        self._complained = False
        self._reading = asyncio.Lock()
        self._read_at = float("-inf")

    async def admit(self, credentials: Credentials, scope: str) -> Grant:
        """Return what these credentials grant, when that includes ``scope``; a pair that was minted just now is found.

        Raises:
            AccessDenied: status 401 when they prove nothing (any more), 403 when they do not reach this far.
        """
        if not credentials.token and credentials.key_id and self._is_unknown(credentials.key_id):
            came_at = self._clock.monotonic()
            async with self._reading:
                if self._read_at < came_at:  # one look serves all who came before it
                    await self._read_again()
        return self.check(credentials, scope)

    def check(self, credentials: Credentials, scope: str) -> Grant:
        """Return what these credentials grant, when that includes ``scope``.

        Raises:
            AccessDenied: status 401 when they prove nothing (any more), 403 when they do not reach this far.
        """
        grant = self._prove(credentials)
        if scope not in grant.scopes:
            raise AccessDenied(f"{grant.name} may not {scope}", f"mint a token with --scope {scope}", status=403)
        return grant

    def holds(self, grant: Grant) -> bool:
        """Tell whether a grant still stands; quick, for what lasts, like a socket, to ask every half second."""
        return grant.id not in self._revoked and (grant.expires is None or self._clock.time() < grant.expires)

    async def spend(self, grant: Grant) -> None:
        """Count one request of a client against its own allowance.

        Raises:
            BudgetExhausted: it has none left; ``retry_after`` says when it does. Others do not feel it.
        """
        if self._allowance is not None:
            await self._allowance.spend(grant.id, grant.name)

    def needs_signature(self, grant: Grant) -> bool:
        """Tell whether the trades of this client must be signed."""
        return grant.signed or self._require_signed

    def refresh(self) -> None:
        """Read the book, the secrets of other machines and the issuer's keys again; blocks.

        Raises:
            ConfigError: one of them cannot be had; what was known stays.
        """
        entries = self._book.entries()
        self._revoked = frozenset(entry.id for entry in entries.values() if entry.revoked is not None)
        self._pairs = {entry.key_id: entry for entry in entries.values() if entry.key_id}
        self.keys.refresh()
        if self._published is not None:
            self._published.refresh()

    @asynccontextmanager
    async def beside(self) -> AsyncIterator[None]:
        """Keep current what ``check`` knows: what is revoked anywhere bites within a second."""
        await asyncio.to_thread(self.refresh)
        reading = asyncio.create_task(self._keep_current())
        try:
            yield
        finally:
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading
            if self._allowance is not None:
                await self._allowance.close()

    async def _keep_current(self) -> None:
        while True:
            await async_sleep(_REREAD_S)
            async with self._reading:
                await self._read_again()

    async def _read_again(self) -> None:
        self._read_at = self._clock.monotonic()
        try:
            await asyncio.to_thread(self.refresh)
        except AlpacliError as error:
            if not self._complained:
                self._warn(f"{error.message}; {error.hint}; what was known of tokens goes on being used")
            self._complained = True
        else:
            self._complained = False

    def _is_unknown(self, key_id: str) -> bool:
        return key_id not in self._pairs and not hmac.compare_digest(_sha256(key_id), self._own_id_sha256)

    def _prove(self, credentials: Credentials) -> Grant:
        if credentials.token:
            return self._by_token(credentials.token)
        if credentials.key_id and credentials.secret:
            return self._by_pair(credentials.key_id, credentials.secret)
        raise invalid("a token is needed")

    def _by_token(self, token: str) -> Grant:
        grant = self._remembered.get(token)
        if grant is None:
            grant = read_token(token, self._account, self.keys, self._published)
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()
            self._remembered[token] = grant
        if grant.id in self._revoked:
            raise invalid("this token was revoked")
        if grant.expires is not None and self._clock.time() >= grant.expires:
            raise invalid("this token has expired")
        return grant

    def _by_pair(self, key_id: str, secret: str) -> Grant:
        """Compare with the account's own pair, and with the minted one of this name; both always, in constant time."""
        given = _sha256(secret)
        own = hmac.compare_digest(_sha256(key_id), self._own_id_sha256)
        own &= hmac.compare_digest(given, self._own_secret_sha256)
        entry = self._pairs.get(key_id, _NOBODY)
        minted = hmac.compare_digest(given, entry.secret_sha256)
        if own:
            return Grant("the account's own key pair", UPSTREAM, frozenset(SCOPES))
        if not minted or entry is _NOBODY:
            raise invalid("this key pair is not valid")
        if entry.revoked is not None:
            raise invalid("this key pair was revoked")
        if not entry.lasts(self._clock.time()):
            raise invalid("this key pair has expired")
        return Grant(entry.name, entry.id, frozenset(entry.scopes), entry.expires, entry.signed)


_NOBODY: Final = Minted("", secret_sha256="0" * 64)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


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


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
