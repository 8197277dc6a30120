"""What a gateway keeps on this machine and in Redis: the signing secret, the book of tokens, the queue of webhooks.

A module of its own, because the commands that look after these need no web framework and should not wait for one.
"""

import os

from alpacli.gateway.hook_queue import HookQueue
from alpacli.gateway.tokens import SigningKeys
from alpacli.runtime import Warn
from alpacli.settings import Settings
from alpacli.store.tokens import Shared, TokenBook


def open_hooks(settings: Settings) -> HookQueue:
    """Open the webhooks of this account on this machine.

    Raises:
        ConfigError: there is no key pair.
    """
    settings.require_keys()
    return HookQueue(_path(settings, "hooks.sqlite"))


def open_book(settings: Settings, warn: Warn) -> TokenBook:
    """Open the book of what was minted for this account's gateways."""
    return TokenBook(_path(settings, "tokens.json"), f"{settings.scope}:~tokens", _shared(settings), warn)


def open_keys(settings: Settings) -> SigningKeys:
    """Open the secrets that sign this account's tokens.

    Raises:
        ConfigError: there is no key pair.
    """
    secret = settings.require_keys().secret
    return SigningKeys(_path(settings, "secret"), secret, f"{settings.scope}:~signers", _shared(settings))


def _path(settings: Settings, name: str) -> str:
    return os.path.join(settings.state_dir, "gateway", f"{settings.fingerprint}.{name}")


def _shared(settings: Settings) -> Shared | None:
    if not settings.redis_url:
        return None
    from alpacli.store.redis import RedisStore

    return RedisStore(settings.redis_url.reveal())
