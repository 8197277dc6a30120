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
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import dropwhile, groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

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

KEY_FIELDS: Final = ("api_key", "secret_key", "secret_store", "secret_command", "gateway", "token")
"""What in a profile proves who asks: a login puts all of it anew, a logout removes it."""


class Profiles(NamedTuple):
    """What the profile file has: every profile's values, secrets included; the chosen one; what is wrong with which.

    Of a profile with a mistake the values are as they stand in the file, of any kind.
    """

    values: Mapping[str, Mapping[str, Any]]
    chosen: str | None
    mistakes: Mapping[str, ConfigError]


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


SETTINGS: Final = tuple(_Profile.model_fields)
"""Everything that a profile can set."""


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


def _loaded(path: str, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also a number of thousands of digits, or lists in lists without end
        raise ConfigError(f"cannot read {path}: {error}", "correct the profile file, or move it away") from None


def _validated(path: str, document: Mapping[str, Any]) -> _File:
    try:
        return _File.model_validate(document)
    except ValidationError as error:
        raise _mistake(path, error) from None


def _mistake(path: str, error: ValidationError) -> ConfigError:
    """Return the first mistake in plain words; a name that does not exist is told with those that do."""
    first = error.errors()[0]
    *above, name = first["loc"]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] != "extra_forbidden":
        removes = f", or `alpacli profile delete {first['loc'][1]}` removes the profile" if above else ""
        return ConfigError(f"{path}: {where}: {first['msg']}", f"correct this line of the profile file{removes}")
    places: dict[int, type[BaseModel]] = {0: _File, 2: _Profile, 3: _CacheLifetimes}
    known = list(places[len(above)].model_fields)
    close = difflib.get_close_matches(str(name), known, 1)
    hint = f"did you mean {close[0]}?" if close else f"what can be set here: {', '.join(known)}"
    return ConfigError(f"{path}: {where} is no setting", hint)


def _profile(path: str, name: str, fields: object) -> _Profile:
    """Return a profile that can be used.

    Raises:
        ConfigError: a name that is no setting, a value of a wrong kind, or more than one place for the secret.
    """
    profile = _validated(path, {"profiles": {name: fields}}).profiles[name]
    kept = [field for field in ("secret_key", "secret_store", "secret_command") if getattr(profile, field) is not None]
    if len(kept) > 1:
        raise ConfigError(
            f"{path}: profiles.{name} has {kept[0]} and {kept[1]}", "keep the secret in one place: remove the others"
        )
    if profile.gateway is not None and (profile.api_key or kept):
        raise ConfigError(f"{path}: profiles.{name} has a gateway and keys", "keep one of the two")
    return profile


def _without_profiles(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the file says beside its profiles; profiles that are no table stay, as the mistake that they are."""
    return {name: value for name, value in document.items() if name != "profiles" or not isinstance(value, dict)}


def read_profile(
    path: str, name: str | None, *, with_keys: bool = True
) -> tuple[str | None, Mapping[str, str], Mapping[str, float]]:
    """Return the chosen profile's name, its values under their environment names, and its cache lifetimes in seconds.

    A mistake in another profile is not this one's: ``alpacli doctor`` and ``profile list`` tell of those. ``with_keys=False``
    leaves away what a login is about to replace, and what is wrong with it.

    Raises:
        ConfigError: the file cannot be read, is not what it should be, or has no profile of that name.
    """
    document = _loaded(path, _read(path))
    chosen = _validated(path, _without_profiles(document)).profile
    name = name or chosen
    profiles = document.get("profiles", {})
    if name is None:
        return None, {}, _CacheLifetimes().model_dump()
    if name not in profiles:
        known = ", ".join(sorted(profiles)) or "none"
        raise ConfigError(f"profile {name!r} does not exist", f"known profiles in {path}: {known}")
    fields = profiles[name]
    if not with_keys and isinstance(fields, dict):
        fields = {field: value for field, value in fields.items() if field not in KEY_FIELDS}
    profile = _profile(path, name, fields)
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
        values |= {"gateway": profile.gateway, "token": profile.token or ""}
        # The gateway has the cache; a second one in front of it would only make answers older.
        lifetimes = {what: ttl if what in profile.cache.model_fields_set else 0.0 for what, ttl in lifetimes.items()}
    return name, values, lifetimes


# ----------------------------------------------------------------------------------------------- all of them, and changes


class Draft:
    """The profile file while it is changed; ``document`` is all of it, with its comments."""

    def __init__(self, path: str, document: "TOMLDocument") -> None:
        self.document = document
        self._path = path

    @property
    def profiles(self) -> Profiles:
        """Return the profiles as they are now.

        Raises:
            ConfigError: something beside them is not what it should be.
        """
        return _all(self._path, self.text)

    @property
    def text(self) -> str:
        import tomlkit

        return tomlkit.dumps(self.document)

    def table(self, name: str, *, make: bool = False) -> Any:
        """Return a profile's table, a new one when it is to be made.

        Raises:
            ConfigError: what has its name is no table.
        """
        import tomlkit

        if make:
            if "profiles" not in self.document:
                self.document["profiles"] = tomlkit.table(is_super_table=True)
            if name not in self.document["profiles"]:
                self.document["profiles"][name] = tomlkit.table()
        table = self.document["profiles"][name]
        if not isinstance(table, dict):
            _profile(self._path, name, table)
        return table

    def choose(self, name: str | None) -> None:
        """Say which profile is used when none is named; ``None``: no profile."""
        if name is not None:
            self.document["profile"] = name  # tomlkit puts a plain key before the tables
        else:
            self.document.pop("profile", None)

    def delete(self, name: str) -> None:
        """Remove a profile, and nothing else: comments that stand above a table stay with that table."""
        self._change(name, None, _lines_without)

    def rename(self, name: str, new_name: str) -> None:
        """Give a profile another name, where it stands."""
        self._change(name, new_name, lambda lines, name: _lines_renamed(lines, name, new_name))

    def _change(self, name: str, new_name: str | None, change: Callable[[list[str], str], list[str]]) -> None:
        """Change the lines of a profile that has tables of its own, else its key; keep what comes out when it is right.

        tomlkit takes the comments above a table for the end of the one before, and moves what it renames to the end.
        """
        import tomlkit

        text = self.text
        wanted = tomllib.loads(text, parse_float=str)
        fields = wanted["profiles"].pop(name)
        if new_name is not None:
            wanted["profiles"][new_name] = fields
        elif not wanted["profiles"]:
            wanted.pop("profiles")
        by_line = "\n".join(change(text.split("\n"), name))
        if _says(by_line, wanted):
            self.document = tomlkit.parse(by_line)
            return
        tables: Any = self.document["profiles"]
        fields = tables.pop(name)
        done = new_name is None
        with suppress(ValueError):  # it cannot write dotted keys under another name within braces
            if new_name is not None:
                tables[new_name] = fields
                done = True
        if not done or not _says(self.text, wanted):
            raise ConfigError(
                f"cannot change profile {name} in {self._path} without harm to others",
                f"write each profile as a table of its own, like [profiles.{name}], or change the file by hand",
            )


def _says(text: str, wanted: Mapping[str, Any]) -> bool:
    try:
        found = tomllib.loads(text, parse_float=str)  # nan is not nan
    except ValueError:
        return False
    if not found.get("profiles"):
        found.pop("profiles", None)
    return found == wanted


def _headers(lines: list[str]) -> Iterator[tuple[int, list[str], int]]:
    """Yield where a table begins: the line, the names in its header, the header's length."""
    for place, line in enumerate(lines):
        if not line.lstrip().startswith("["):
            continue
        for end in (match.end() for match in re.finditer("]", line)):
            try:
                inner: Any = tomllib.loads(line[:end])
            except ValueError:  # a bracket in a quoted name
                continue
            names: list[str] = []
            while isinstance(inner, dict) and inner:
                ((name, inner),) = inner.items()
                names.append(name)
            yield place, names, end
            break


_PART: Final = r"""(?:"(?:[^"\\]|\\.)*"|'[^']*'|[\w-]+)"""
_KEY: Final = re.compile(rf"\s*{_PART}(?:\s*\.\s*{_PART})*(?=\s*=)", re.ASCII)


def _lines_renamed(lines: list[str], name: str, new_name: str) -> list[str]:
    """Rename the profile in the headers of its tables, and in dotted keys above all tables or under ``[profiles]``."""
    import tomlkit

    renamed = list(lines)
    headers = {place: (names, end) for place, names, end in _headers(lines)}
    above: list[str] = []
    for place, line in enumerate(lines):
        if place in headers:
            above, end = headers[place]
            if above[:2] == ["profiles", name]:
                path = tomlkit.key(["profiles", new_name, *above[2:]]).as_string()
                renamed[place] = f"[{path}]{line[end:]}"
        elif above in ([], ["profiles"]) and (key := _KEY.match(line)) is not None:
            parts = list(re.finditer(_PART, key.group(), re.ASCII))
            names = [*above, *(next(iter(tomllib.loads(f"{part.group()} = 0"))) for part in parts)]
            if names[:2] == ["profiles", name] and not _is_in_text(lines[:place]):
                own = parts[1 - len(above)]
                renamed[place] = line[: own.start()] + tomlkit.key([new_name]).as_string() + line[own.end() :]
    return renamed


def _is_in_text(above: list[str]) -> bool:
    """Tell whether the line below these is part of a value: of a text of several lines, or a list."""
    try:
        tomllib.loads("\n".join(above))
    except ValueError:
        return True
    return False


def _lines_without(lines: list[str], name: str) -> list[str]:
    kept, stop = list(lines), len(lines)
    headers = [(names[:2] == ["profiles", name], place) for place, names, _ in _headers(lines)]
    for is_its, run in groupby(reversed(headers), key=itemgetter(0)):
        start = min(place for _, place in run)
        if is_its:
            rest = _below(lines[start:stop], is_last=stop == len(lines))
            kept[start:stop] = ["", *rest] if start and lines[start - 1].strip() else rest
        stop = start
    return kept


def _below(block: list[str], *, is_last: bool) -> list[str]:
    """Return the lines after a table that a block begins with: comments that stand apart from it, or right above the next."""
    end = max(place for place, line in enumerate(block) if line.strip() and not _is_comment(line)) + 1
    rest = list(dropwhile(_is_comment, block[end:]))
    if not rest and not is_last:
        rest = block[end:]
    return list(dropwhile(lambda line: not line.strip(), rest))


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith("#")


@contextmanager
def edited(config_dir: str, *, keep: bool = True) -> "Iterator[Draft]":
    """Open the profile file for a change that keeps its comments; it is written when the block ends without an error.

    ``keep=False`` writes nothing.

    One process at a time, written whole or not at all, and readable by its owner alone from then on. What comes out is
    checked like any profile file before it takes the old one's place: mistakes that were there may stay, none may come.

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
            draft = Draft(path, tomlkit.parse(_read(path) if os.path.exists(path) else ""))
        except (ValueError, RecursionError, TOMLKitError) as error:
            raise ConfigError(f"cannot read {path}: {error}", "correct the profile file, or move it away") from None
        before = draft.profiles.mistakes
        yield draft
        after = draft.profiles.mistakes
        if len(after) > len(before):
            raise next(mistake for name, mistake in after.items() if name not in before)
        if keep:
            _write(path, draft.text)
    finally:
        os.close(lock)


def _write(path: str, text: str) -> None:
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


def _all(path: str, text: str) -> Profiles:
    document = _loaded(path, text)
    chosen = _validated(path, _without_profiles(document)).profile
    values: dict[str, Mapping[str, Any]] = {}
    mistakes: dict[str, ConfigError] = {}
    for name, fields in document.get("profiles", {}).items():
        try:
            values[name] = _profile(path, name, fields).model_dump(exclude_unset=True)
        except ConfigError as error:
            values[name] = fields if isinstance(fields, dict) else {}
            mistakes[name] = error
    return Profiles(values, chosen, mistakes)


def read_all(config_dir: str) -> Profiles:
    """Return every profile of the file. What is wrong with one of them is told, and stops nobody.

    Raises:
        ConfigError: the file cannot be read, or something beside its profiles is not what it should be.
    """
    path = os.path.join(config_dir, "config.toml")
    return _all(path, _read(path) if os.path.isfile(path) else "")
