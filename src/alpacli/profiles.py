"""The profile file, ``config.toml``: several accounts on one machine, checked with pydantic, loaded only when it exists.

profile = "paper"                  # used when neither --profile nor ALPACLI_PROFILE names one

[profiles.paper]
api_key = "PK…"
secret_key = "…"
redis_url = "redis://…"            # and base_url, data_url, stream_url, state_dir, rate_limit, rate_reserve, max_wait

[profiles.paper.cache]             # lifetimes in seconds
account = 5
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from alpacli.errors import ConfigError

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
    base_url: str | None = None
    data_url: str | None = None
    stream_url: str | None = None
    redis_url: str | None = None
    state_dir: str | None = None
    rate_limit: int | None = None
    rate_reserve: int | None = None
    max_wait: float | None = None
    cache: _CacheLifetimes = Field(default_factory=_CacheLifetimes)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    profile: str | None = None
    profiles: dict[str, _Profile] = Field(default_factory=dict)


def read_profile(path: str, name: str | None) -> tuple[str | None, Mapping[str, str], Mapping[str, float]]:
    """Return the chosen profile's name, its values under their environment names, and its cache lifetimes in seconds.

    Raises:
        ConfigError: the file cannot be read, is not what it should be, or has no profile of that name.
    """
    try:
        file = _File.model_validate(tomllib.loads(Path(path).read_text(encoding="utf-8-sig")))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path}: {where}: {first['msg']}", "correct this line of the profile file") from None
    except UnicodeDecodeError:  # its text would travel with the exception, so it is not chained
        raise ConfigError(f"cannot read {path}: it is not UTF-8 text", "save the profile file as UTF-8") from None
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}", "correct the profile file, or move it away") from None
    name = name or file.profile
    if name is None:
        return None, {}, _CacheLifetimes().model_dump()
    if name not in file.profiles:
        known = ", ".join(sorted(file.profiles)) or "none"
        raise ConfigError(f"profile {name!r} does not exist", f"known profiles in {path}: {known}")
    profile = file.profiles[name]
    values = {
        variable: str(value)
        for field, variable in _ENVIRONMENT_NAMES.items()
        if (value := getattr(profile, field)) is not None
    }
    return name, values, profile.cache.model_dump()
