"""The profile file, ``config.toml``: several accounts on one machine, checked with pydantic, loaded only when it exists.

profile = "paper"                  # used when neither --profile nor ALPACLI_PROFILE names one

[profiles.paper]
api_key = "PK…"
secret_key = "…"                   # or secret_store = "keyring", or secret_command = "pass show alpaca"
redis_url = "redis://…"            # and base_url, data_url, stream_url, state_dir, rate_limit, rate_reserve, max_wait

[profiles.paper.cache]             # lifetimes in seconds
account = 5

[profiles.desk]                    # an account behind a gateway on another machine: a token instead of keys
gateway = "https://gateway.example.com:8000"
token = "eyJ…"
"""

import difflib
import os
import shlex
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from alpacli.errors import ConfigError

if TYPE_CHECKING:
    from tomlkit import TOMLDocument

_ENVIRONMENT_NAMES: Final[Mapping[str, str]] = {
    "api_key": "ALPACA_API_KEY",
    "secret_key": "ALPACA_SECRET_KEY",
    "base_url": "ALPACA_BASE_URL",
    "data_url": "ALPACA_DATA_URL",
    "stream_url": "ALPACA_STREAM_URL",
    "redis_url": "REDIS_URL",
    "state_dir": "ALPACLI_STATE_DIR",
    "rate_limit": "ALPACLI_RATE_LIMIT",
    "rate_reserve": "ALPACLI_RATE_RESERVE",
    "max_wait": "ALPACLI_MAX_WAIT",
}


class _CacheLifetimes(BaseModel):
    model_config = ConfigDict(extra="forbid")

    account: float = Field(5.0, ge=0, le=86400)
    positions: float = Field(3.0, ge=0, le=86400)
    orders: float = Field(0.0, ge=0, le=86400)


class _Profile(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    api_key: str | None = None
    secret_key: str | None = None
    secret_store: Literal["keyring"] | None = None
    secret_command: str | list[str] | None = None
    base_url: str | None = None
    data_url: str | None = None
    stream_url: str | None = None
    redis_url: str | None = None
    state_dir: str | None = None
    rate_limit: int | None = None
    rate_reserve: int | None = None
    max_wait: float | None = None
    gateway: str | None = None
    token: str | None = None
    cache: _CacheLifetimes = Field(default_factory=_CacheLifetimes)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    profile: str | None = None
    profiles: dict[str, _Profile] = Field(default_factory=dict)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:  # its text would travel with the exception, so it is not chained
        raise ConfigError(f"cannot read {path}: it is not UTF-8 text", "save the profile file as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error}", "correct the profile file, or move it away") from None


def _parse(path: str, text: str, narrowed: Callable[[dict[str, Any]], dict[str, Any]] = dict) -> _File:
    try:
        return _File.model_validate(narrowed(tomllib.loads(text)))
    except ValidationError as error:
        raise _mistake(path, error) from None
    except (ValueError, RecursionError) as error:  # also a number of thousands of digits, or lists in lists without end
        raise ConfigError(f"cannot read {path}: {error}", "correct the profile file, or move it away") from None


def _mistake(path: str, error: ValidationError) -> ConfigError:
    """Return the first mistake in plain words; a name that does not exist is told with those that do."""
    first = error.errors()[0]
    *above, name = first["loc"]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] != "extra_forbidden":
        return ConfigError(f"{path}: {where}: {first['msg']}", "correct this line of the profile file")
    places: dict[int, type[BaseModel]] = {0: _File, 2: _Profile, 3: _CacheLifetimes}
    known = list(places[len(above)].model_fields)
    close = difflib.get_close_matches(str(name), known, 1)
    hint = f"did you mean {close[0]}?" if close else f"what can be set here: {', '.join(known)}"
    return ConfigError(f"{path}: {where} is no setting", hint)


def read_profile(path: str, name: str | None) -> tuple[str | None, Mapping[str, str], Mapping[str, float]]:
    """Return the chosen profile's name, its values under their environment names, and its cache lifetimes in seconds.

    A mistake in another profile is not this one's: ``alpacli doctor`` and ``profile list`` tell of those.

    Raises:
        ConfigError: the file cannot be read, is not what it should be, or has no profile of that name.
    """
    known: list[str] = []

    def alone(document: dict[str, Any]) -> dict[str, Any]:
        profiles = document.get("profiles")
        if not isinstance(profiles, dict):
            return document
        known.extend(sorted(profiles))
        wanted = name or document.get("profile")
        return {**document, "profiles": {wanted: profiles[wanted]} if wanted in known else {}}

    file = _parse(path, _read(path), alone)
    name = name or file.profile
    if name is None:
        return None, {}, _CacheLifetimes().model_dump()
    if name not in file.profiles:
        raise ConfigError(f"profile {name!r} does not exist", f"known profiles in {path}: {', '.join(known) or 'none'}")
    profile = file.profiles[name]
    kept = [field for field in ("secret_key", "secret_store", "secret_command") if getattr(profile, field) is not None]
    if len(kept) > 1:
        raise ConfigError(
            f"{path}: profiles.{name} has {kept[0]} and {kept[1]}", "keep the secret in one place: remove the others"
        )
    values = {
        variable: str(value)
        for field, variable in _ENVIRONMENT_NAMES.items()
        if (value := getattr(profile, field)) is not None
    }
    if profile.secret_store is not None:
        values["secret_store"] = profile.secret_store
    if profile.secret_command is not None:
        command = profile.secret_command
        values["secret_command"] = command if isinstance(command, str) else shlex.join(command)
    lifetimes = profile.cache.model_dump()
    if profile.gateway is not None:
        if profile.api_key or kept:
            raise ConfigError(f"{path}: profiles.{name} has a gateway and keys", "keep one of the two")
        values |= {"gateway": profile.gateway, "token": profile.token or ""}
        # The gateway has the cache; a second one in front of it would only make answers older.
        lifetimes = {what: ttl if what in profile.cache.model_fields_set else 0.0 for what, ttl in lifetimes.items()}
    return name, values, lifetimes


@contextmanager
def edited(config_dir: str, *, keep: bool = True) -> "Iterator[TOMLDocument]":
    """Open the profile file for a change that keeps its comments; it is written when the block ends without an error.

    ``keep=False`` writes nothing.

    One process at a time, written whole or not at all, and readable by its owner alone from then on. What comes out is
    checked like any profile file before it takes the old one's place.

    Raises:
        ConfigError: it cannot be read, written, or would not be understood.
    """
    import fcntl

    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    path = os.path.join(config_dir, "config.toml")
    try:
        os.makedirs(config_dir, mode=0o700, exist_ok=True)
        lock = os.open(os.path.join(config_dir, ".config.lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(
            f"cannot write {path}: {error.strerror}", "make the directory writable, or set ALPACLI_CONFIG_DIR"
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            text = Path(path).read_text(encoding="utf-8-sig") if os.path.exists(path) else ""
            document = tomlkit.parse(text)
        except (OSError, ValueError, RecursionError, TOMLKitError) as error:
            raise ConfigError(f"cannot read {path}: {error}", "correct the profile file, or move it away") from None
        yield document
        if keep:
            _write(path, tomlkit.dumps(document))
    finally:
        os.close(lock)


def _write(path: str, text: str) -> None:
    _parse(path, text)
    path = os.path.realpath(path)  # a link stays a link
    fresh = f"{path}.new"
    try:
        file = os.open(fresh, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        with open(file, "w", encoding="utf-8") as out:
            os.fchmod(file, 0o600)
            out.write(text)
            out.flush()
            os.fsync(file)
        Path(fresh).replace(path)
    except OSError as error:
        hint = "make room, or make the directory writable"
        raise ConfigError(f"cannot write {path}: {error.strerror}", hint) from None


def read_all(config_dir: str) -> tuple[dict[str, dict[str, Any]], str | None]:
    """Return every profile as the file has it, secrets included, and the name of the one that the file chooses.

    Raises:
        ConfigError: the file cannot be read.
    """
    path = os.path.join(config_dir, "config.toml")
    if not os.path.isfile(path):
        return {}, None
    file = _parse(path, _read(path))
    return {name: profile.model_dump(exclude_unset=True) for name, profile in file.profiles.items()}, file.profile
