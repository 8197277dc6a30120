"""Where alpacli connects, as whom, and within which limits: flags > environment > .env > profile file > defaults.

Two rules hold here and nowhere else: a key pair is taken whole from one place, and only the paper exchange (or this very
machine) is ever an address. The cached path loads this module, so the parsers of profile and .env files, and pydantic,
load only when such a file exists.
"""

import os
import sys
from collections.abc import Callable, Mapping
from typing import Final, Literal, NamedTuple, NoReturn

try:
    from _blake2 import blake2b  # what hashlib.blake2b is, without loading OpenSSL: 4 ms of the cached path
except ImportError:
    from hashlib import blake2b

from alpacli.arguments import a_text, seconds
from alpacli.errors import ConfigError

UrlKind = Literal["trading", "data", "stream"]

PAPER_URLS: Final[Mapping[UrlKind, str]] = {
    "trading": "https://paper-api.alpaca.markets",
    "data": "https://data.alpaca.markets",
    "stream": "wss://stream.data.alpaca.markets",
}
DEFAULT_CACHE_TTL_S: Final[Mapping[str, float]] = {"account": 5.0, "positions": 3.0, "orders": 0.0}
SIM_URL: Final = "sim://local"
_PLATFORM: str = sys.platform
_MACHINE: Final = os.uname().nodename if hasattr(os, "uname") else ""
_NO_HOME: Final = "/nonexistent"

_URL_VARIABLES: Final[Mapping[str, UrlKind]] = {
    "ALPACA_BASE_URL": "trading",
    "ALPACA_DATA_URL": "data",
    "ALPACA_STREAM_URL": "stream",
}
_LIMIT_VARIABLES: Final = (
    *("ALPACLI_PROFILE", "ALPACLI_CONFIG_DIR", "ALPACLI_STATE_DIR", "ALPACLI_RATE_LIMIT", "ALPACLI_RATE_RESERVE"),
    *("ALPACLI_RATE_WINDOW", "ALPACLI_MAX_WAIT", "ALPACLI_BREAKER_OPEN", "ALPACLI_HUB_LINGER"),
)
OAUTH: Final = "oauth"
"""The key ID with which Alpaca's protocols say that the secret is a token."""
_KEY_VARIABLES: Final = (("ALPACA_API_KEY", "ALPACA_SECRET_KEY"), ("APCA_API_KEY_ID", "APCA_API_SECRET_KEY"))


class Secret:
    """Text that can be sent but not printed: ``str``, ``repr``, ``format`` and logging show a mask, pickling fails."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text itself, for the one place that sends it."""
        return self._text

    def __repr__(self) -> str:
        return "Secret('***')"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __reduce__(self) -> NoReturn:
        msg = "a secret cannot be pickled or copied out of its process"
        raise TypeError(msg)


class KeptSecret(Secret):
    """A secret that is kept elsewhere and fetched when it is needed: a cached answer never asks the keyring."""

    __slots__ = ("_fetch",)

    def __init__(self, fetch: Callable[[], str]) -> None:
        super().__init__("")
        self._fetch = fetch

    def reveal(self) -> str:
        """Fetch it, the first time.

        Raises:
            ConfigError: whoever keeps it does not give it.
        """
        if not self._text:
            self._text = self._fetch()
        return self._text

    def __bool__(self) -> bool:
        return True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other.reveal() == self.reveal()

    def __hash__(self) -> int:
        return hash((Secret, self.reveal()))


class KeyPair(NamedTuple):
    """One complete pair and the place it came from (``environment``, ``.env``, ``profile paper``)."""

    key_id: str
    secret: Secret
    origin: str

    def __repr__(self) -> str:
        return f"KeyPair({self.key_id[:2]}***, {self.secret!r}, origin={self.origin!r})"


class Flags(NamedTuple):
    """What the command line, or the caller of ``connect``, said explicitly; ``None`` means not said."""

    profile: str | None = None
    sim: bool = False
    max_wait_s: float | None = None
    read_timeout_s: float | None = None


class Settings(NamedTuple):
    """One resolved configuration. Times are in seconds, paths absolute."""

    key_pair: KeyPair | None
    base_url: str
    data_url: str
    stream_url: str
    redis_url: Secret | None
    profile: str | None
    config_dir: str
    state_dir: str
    rate_limit: int
    rate_reserve: int
    rate_window_s: float
    max_wait_s: float
    breaker_open_s: float
    hub_linger_s: float
    connect_timeout_s: float
    read_timeout_s: float
    cache_ttl_s: Mapping[str, float]
    sim: bool
    apart: frozenset[str] = frozenset()
    """Which URLs nobody set, so that they are Alpaca's, although ``ALPACA_BASE_URL`` is a server on this machine."""

    @property
    def fingerprint(self) -> str:
        """Return the short hash of key id and base URL under which the store keeps this account.

        The in-process exchange is another one in every state directory of every machine, and they may share a Redis.
        """
        key_id = self.key_pair.key_id if self.key_pair else ""
        place = f"{self.base_url}\n{_MACHINE}\n{self.state_dir}" if self.sim else self.base_url
        return blake2b(f"{key_id}\n{place}".encode(errors="surrogateescape"), digest_size=6).hexdigest()

    @property
    def scope(self) -> str:
        """Return the store's key prefix of this account, braces included: they keep it on one Redis Cluster slot."""
        return f"alpaca:{{{self.fingerprint}}}"

    def warning_apart(self, name: Literal["ALPACA_DATA_URL", "ALPACA_STREAM_URL"]) -> str | None:
        """Return what to say before Alpaca is asked for market data, when orders go to a server on this machine."""
        if name not in self.apart:
            return None
        url = PAPER_URLS[_URL_VARIABLES[name]]
        return f"market data comes from {url}, and ALPACA_BASE_URL is a server on this machine: set {name} too"

    def require_keys(self) -> KeyPair:
        """Return the key pair.

        Raises:
            ConfigError: there is none. The simulator is never chosen instead: a cron job without its environment must fail.
        """
        if self.key_pair is None:
            raise self._no_keys()
        return self.key_pair

    def _no_keys(self) -> ConfigError:
        if self.profile is not None:
            login = f"`alpacli login --profile {self.profile}` stores one"
            return ConfigError(
                f"profile {self.profile} has no Alpaca key pair", f"{login}; sim=True (--sim) is an offline exchange"
            )
        if os.path.isfile(os.path.join(self.config_dir, "config.toml")):
            from alpacli.profiles import read_all

            known = read_all(self.config_dir).values
            if known:
                return ConfigError(
                    "no profile is chosen, and no Alpaca key pair is set",
                    f"`alpacli profile use NAME` chooses one of {', '.join(known)}; profile=… (--profile NAME) does for once",
                )
        return ConfigError(
            "no Alpaca key pair found",
            "`alpacli login` stores one, or set ALPACA_API_KEY and ALPACA_SECRET_KEY; sim=True (--sim) is one offline",
        )


def load(
    flags: Flags | None = None,
    *,
    env: Mapping[str, str],
    cwd: str | None = None,
    pair: KeyPair | None = None,
    into: str | None = None,
) -> Settings:
    """Resolve every setting; reads ``.env`` in ``cwd`` (``None``: none is read) and the profile file, when they exist.

    ``pair`` is one that is to be tried before a profile has it: no other is looked for, so what is wrong with those does
    not matter. Only the profile that ``flags`` names says where to ask, or else, after the environment, the one that the
    pair goes ``into``.

    Raises:
        ConfigError: a refused URL, live keys, half a key pair, a value out of range, an unreadable or unknown profile.
        UsageError: a flag out of range.
    """
    flags = flags or Flags()
    if flags.profile is not None:
        a_text("profile", flags.profile, "give the name of a profile, or None")
    wait_s = None if flags.max_wait_s is None else seconds("max_wait", flags.max_wait_s)
    timeout_s = None if flags.read_timeout_s is None else seconds("timeout", flags.read_timeout_s, least=0.001)
    places, config_dir, profile_name, cache_ttl_s = _look_around(flags, env, cwd, chosen=pair is None, into=into)
    apart: frozenset[str] = frozenset()
    if flags.sim:
        key_pair: KeyPair | None = KeyPair("SIM", Secret("SIM"), "--sim")
        urls: dict[str, str] = dict.fromkeys(_URL_VARIABLES, SIM_URL)
    else:
        key_pair, gateway = _credentials(places) if pair is None else (pair, "")
        if gateway:
            urls = _gateway_urls(gateway)
        else:
            urls = {name: _url(places, name, kind) for name, kind in _URL_VARIABLES.items()}
            if urls["ALPACA_BASE_URL"] != PAPER_URLS["trading"]:
                apart = frozenset(name for name in urls if _first(places, name) is None)
    limit = int(_number(places, "ALPACLI_RATE_LIMIT", 200, least=1, whole=True))
    redis_url = _first(places, "REDIS_URL")
    max_wait_s = _number(places, "ALPACLI_MAX_WAIT", 10.0)
    return Settings(
        key_pair=key_pair,
        base_url=urls["ALPACA_BASE_URL"],
        data_url=urls["ALPACA_DATA_URL"],
        stream_url=urls["ALPACA_STREAM_URL"],
        redis_url=Secret(redis_url) if redis_url else None,
        profile=profile_name,
        config_dir=config_dir,
        state_dir=_directory(places, "ALPACLI_STATE_DIR", "state", env, cwd),
        rate_limit=limit,
        rate_reserve=_reserve(places, limit),
        rate_window_s=_number(places, "ALPACLI_RATE_WINDOW", 60.0, least=0.01),
        max_wait_s=max_wait_s if wait_s is None else wait_s,
        breaker_open_s=_number(places, "ALPACLI_BREAKER_OPEN", 30.0),
        hub_linger_s=_number(places, "ALPACLI_HUB_LINGER", 30.0),
        connect_timeout_s=5.0 if timeout_s is None else min(5.0, timeout_s),
        read_timeout_s=10.0 if timeout_s is None else timeout_s,
        cache_ttl_s=cache_ttl_s,
        sim=flags.sim,
        apart=apart,
    )


def config_directory(env: Mapping[str, str], cwd: str | None) -> str:
    """Return where the profile file is or would be, whatever else is wrong.

    Raises:
        ConfigError: the path itself makes no sense.
    """
    return _directory(_outside_profiles(env, cwd), "ALPACLI_CONFIG_DIR", "config", env, cwd)


def named_profile(flags: Flags, *, env: Mapping[str, str], cwd: str | None) -> str | None:
    """Return the profile that a flag, the environment or ``.env`` names, whether there is one or not."""
    return flags.profile or _first(_outside_profiles(env, cwd), "ALPACLI_PROFILE")


def _outside_profiles(env: Mapping[str, str], cwd: str | None) -> list[tuple[str, Mapping[str, str]]]:
    """Return the environment and, where it says anything, ``.env``: the first wins."""
    dotenv = {} if cwd is None else _read_dotenv(os.path.join(cwd, ".env"))
    return [("environment", env), (".env", dotenv)] if dotenv else [("environment", env)]


def origins(flags: Flags, *, env: Mapping[str, str], cwd: str | None) -> dict[str, tuple[str, str]]:
    """Return each variable that is set somewhere, with the value that wins and its place; secrets are masked.

    Raises:
        ConfigError: as ``load``.
    """
    settings = load(flags, env=env, cwd=cwd)
    places, *_ = _look_around(flags, env, cwd)
    found: dict[str, tuple[str, str]] = {}
    for name in (*_URL_VARIABLES, *_LIMIT_VARIABLES, "REDIS_URL"):
        value = _first(places, name)
        if value is not None:
            found[name] = ("***" if name == "REDIS_URL" else value, _origin(places, name))
    if settings.key_pair is not None:
        pair = settings.key_pair
        found["ALPACA_API_KEY"] = (f"{pair.key_id[:4]}…", pair.origin)
        found["ALPACA_SECRET_KEY"] = ("***", pair.origin)
    return found


def _look_around(
    flags: Flags, env: Mapping[str, str], cwd: str | None, *, chosen: bool = True, into: str | None = None
) -> "tuple[list[tuple[str, Mapping[str, str]]], str, str | None, Mapping[str, float]]":
    """Return the places that settings come from, the first wins; where profiles are; the profile and its cache lifetimes.

    Without ``chosen`` a profile is read only when the flags, or ``into``, name it, and its keys do not matter.
    """
    places = _outside_profiles(env, cwd)
    config_dir = _directory(places, "ALPACLI_CONFIG_DIR", "config", env, cwd)
    profile_name = flags.profile or (_first(places, "ALPACLI_PROFILE") if chosen else into)
    if not (chosen or profile_name):
        return places, config_dir, None, DEFAULT_CACHE_TTL_S
    profile_name, profile, cache_ttl_s = _read_profile(config_dir, profile_name, with_keys=chosen)
    if profile:
        place = (f"profile {profile_name}", profile)
        if flags.profile:
            places.insert(0, place)
        else:
            places.append(place)
    return places, config_dir, profile_name, cache_ttl_s


def check_url(kind: UrlKind, url: str, source: str) -> str:
    """Return the URL in the form that is used, when the paper-only rule accepts it.

    The rule is a list of what is allowed, compared character by character, never a list of tricks: exactly the paper
    host over TLS (``:443`` allowed), or a literal loopback address or ``localhost`` with any port. Nothing is decoded
    or normalized first, so a look-alike has nothing to hide behind.

    Raises:
        ConfigError: anything else. ``source`` is named in the message (``ALPACA_BASE_URL in the environment``).
    """
    paper = PAPER_URLS[kind]
    if url in (paper, paper + ":443"):
        return paper
    if _is_loopback_url(kind, url):
        return url
    raise ConfigError(f"{source} is refused: {_printable(url)}", _url_hint(kind, url))


def on_this_machine(url: str) -> bool:
    """Tell whether what answers at an HTTP URL runs on this machine, by its literal loopback address or ``localhost``."""
    return _is_loopback_url("trading", url)


def _is_loopback_url(kind: UrlKind, url: str) -> bool:
    plain, secure = ("ws://", "wss://") if kind == "stream" else ("http://", "https://")
    if url.startswith(plain):
        authority = url[len(plain) :]
    elif url.startswith(secure):
        authority = url[len(secure) :]
    else:
        return False
    host, colon, port = authority.rpartition(":") if not authority.endswith("]") else (authority, "", "")
    if not colon:
        host = authority
    elif not (port.isascii() and port.isdecimal() and port[0] != "0" and len(port) < 6 and int(port) < 65536):
        return False
    if host in ("localhost", "[::1]"):
        return True
    octets = host.split(".")
    return (
        len(octets) == 4
        and octets[0] == "127"
        and all(o.isascii() and o.isdecimal() and len(o) < 4 and str(int(o)) == o and int(o) < 256 for o in octets)
    )


def _url_hint(kind: UrlKind, url: str) -> str:
    for tail in ("/", "/v2", "/v2/"):
        shorter = url.removesuffix(tail)
        if shorter != url and (shorter == PAPER_URLS[kind] or _is_loopback_url(kind, shorter)):
            return f"alpacli adds the version itself: use {shorter}"
    if kind == "trading" and url.rstrip("/").lower() in ("https://api.alpaca.markets", "https://api.alpaca.markets/v2"):
        return f"alpacli trades on paper only: use {PAPER_URLS[kind]}"
    return f"only {PAPER_URLS[kind]}, or a server on this machine (localhost, 127.0.0.1, [::1]), is accepted"


def _printable(url: str) -> str:
    """Show a refused URL without control characters, look-alike letters or a secret it may carry.

    What is left out: user info, query and fragment, and the whole text when it is no URL at all (a key pasted into the
    wrong variable).
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return "(not a URL)"
    for mark in "?#":
        rest, found, _ = rest.partition(mark)
        rest += found + "***" if found else ""
    _, at, host = rest.rpartition("@")
    return ascii(f"{scheme}://***@{host}" if at else f"{scheme}://{rest}")[1:-1][:120]


def _first(places: list[tuple[str, Mapping[str, str]]], name: str) -> str | None:
    for _, values in places:
        if values.get(name):
            return values[name]
    return None


def _origin(places: list[tuple[str, Mapping[str, str]]], name: str) -> str:
    return next((place for place, values in places if values.get(name)), "defaults")


def _url(places: list[tuple[str, Mapping[str, str]]], name: str, kind: UrlKind) -> str:
    url = _first(places, name)
    return PAPER_URLS[kind] if url is None else check_url(kind, url, f"{name} ({_origin(places, name)})")


def check_gateway_url(url: str, source: str) -> str:
    """Return the URL of a gateway: https and a host, or plain http on this machine; it gets a token, never a key pair.

    Raises:
        ConfigError: anything else. ``source`` is named in the message.
    """
    authority = url.removeprefix("https://")
    host, colon, port = authority.partition(":")
    plain = host and all(letter.isascii() and (letter.isalnum() or letter in ".-") for letter in host)
    known = not colon or (port.isascii() and port.isdecimal() and 0 < int(port[:6]) < 65536)
    if (authority != url and plain and known) or _is_loopback_url("trading", url):
        return url
    raise ConfigError(
        f"{source} is refused: {_printable(url)}", "write https://HOST[:PORT] and no more; http only on this machine"
    )


def _gateway_urls(gateway: str) -> dict[str, str]:
    scheme, _, authority = gateway.partition("://")
    stream = f"{'wss' if scheme == 'https' else 'ws'}://{authority}"
    return {name: stream if kind == "stream" else gateway for name, kind in _URL_VARIABLES.items()}


def _credentials(places: list[tuple[str, Mapping[str, str]]]) -> tuple[KeyPair | None, str]:
    """Take the first complete pair, or the token of a profile with a gateway, and return that gateway's URL too.

    Half a pair is an error only when no place has a whole one.
    """
    halves = ""
    for place, values in places:
        if place.startswith("profile ") and values.get("gateway"):
            url = check_gateway_url(values["gateway"], f"the gateway of {place}")
            if not values.get("token"):
                raise ConfigError(
                    f"{place} has no token for {url}", "`alpacli profile add NAME --gateway URL` asks for it"
                )
            return KeyPair(OAUTH, Secret(_printed_as_keys_are(values["token"], place)), place), url
        for key_name, secret_name in _KEY_VARIABLES:
            key_id, secret = values.get(key_name, "").strip(), values.get(secret_name, "").strip()
            if key_id and secret:
                return paper_pair(KeyPair(key_id, Secret(secret), place), key_name), ""
            kept = _kept_pair(place, values, key_id) if key_name == "ALPACA_API_KEY" else None
            if kept is not None:
                return paper_pair(kept, key_name), ""
            if key_id or secret:
                missing = secret_name if key_id else key_name
                halves = halves or f"{missing} is missing beside {key_name if key_id else secret_name} ({place})"
    if halves:
        raise ConfigError(halves, "a key pair is taken whole from one place: set both names there")
    return None, ""


def _kept_pair(place: str, values: Mapping[str, str], key_id: str) -> KeyPair | None:
    """Return the pair whose secret a profile leaves to the keyring or to a program; see ``credentials``."""
    command, in_keyring = values.get("secret_command", ""), values.get("secret_store") == "keyring"
    if not place.startswith("profile ") or not (command or (in_keyring and key_id)):
        return None
    from alpacli import credentials

    if not key_id:
        found, secret = credentials.pair_of(command)
        return KeyPair(found, Secret(secret), place)

    def fetch() -> str:
        secret = credentials.secret_of(command, key_id) if command else credentials.from_keyring(key_id)
        return _printed_as_keys_are(secret, place)

    return KeyPair(key_id, KeptSecret(fetch), place)


def paper_pair(pair: KeyPair, name: str) -> KeyPair:
    """Return the pair.

    Raises:
        ConfigError: a live key, or characters that no key has.
    """
    if pair.key_id.upper().startswith("AK"):
        raise ConfigError(
            f"{name} ({pair.origin}) looks like a live key (AK…)",
            "alpacli trades on paper only: make paper keys, they begin with PK, on the Alpaca dashboard",
        )
    _printed_as_keys_are(
        pair.key_id if isinstance(pair.secret, KeptSecret) else pair.key_id + pair.secret.reveal(), pair.origin
    )
    return pair


def _printed_as_keys_are(text: str, place: str) -> str:
    if not text.isascii() or not text.isprintable():
        raise ConfigError(f"the key pair of {place} holds characters that no key has", "copy the pair again")
    return text


def _number(
    places: list[tuple[str, Mapping[str, str]]], name: str, default: float, *, least: float = 0.0, whole: bool = False
) -> float:
    text = _first(places, name)
    if text is None:
        return default
    try:
        value = float(int(text)) if whole else float(text)
    except (ValueError, OverflowError):
        value = -1.0
    if not least <= value < 1e9:
        kind = "a whole number" if whole else "a number"
        raise ConfigError(f"{name} ({_origin(places, name)}) is {text!r}", f"give {kind} of at least {least:g}")
    return value


def _reserve(places: list[tuple[str, Mapping[str, str]]], limit: int) -> int:
    """Keep some requests for reads: the default reserve shrinks with a limit below 40, an explicit one must fit."""
    reserve = int(_number(places, "ALPACLI_RATE_RESERVE", min(20, limit // 2), whole=True))
    if reserve >= limit:
        raise ConfigError(
            f"ALPACLI_RATE_RESERVE is {reserve}, and ALPACLI_RATE_LIMIT only {limit}",
            "the reserve is a part of the limit: make it smaller",
        )
    return reserve


def _directory(
    places: list[tuple[str, Mapping[str, str]]],
    name: str,
    kind: Literal["config", "state"],
    env: Mapping[str, str],
    cwd: str | None,
) -> str:
    """Return an absolute path: the one that is set, relative to the working directory and with ``~``, or the platform's."""
    path = _first(places, name)
    if path is None:
        return user_dir(kind, env)
    if "\0" in path:
        raise ConfigError(f"{name} ({_origin(places, name)}) holds a null byte", "give the path of a directory")
    if path == "~" or path.startswith("~/"):
        path = _home(env) + path[1:]
    if not os.path.isabs(path):
        try:
            path = os.path.join(cwd or os.getcwd(), path)
        except OSError as error:
            raise ConfigError(
                f"{name} is relative, and the working directory is gone: {error}", "go to another"
            ) from None
    return os.path.normpath(path)


def user_dir(kind: Literal["config", "state"], env: Mapping[str, str]) -> str:
    """Return the platform's user directory. Linux has its rule spelled out: platformdirs costs half of the cached path."""
    if _PLATFORM == "linux":
        base = env.get(f"XDG_{kind.upper()}_HOME", "")
        if not os.path.isabs(base):
            base = os.path.join(_home(env), ".config" if kind == "config" else ".local/state")
        return os.path.normpath(os.path.join(base, "alpacli"))
    import platformdirs

    if kind == "config":
        return platformdirs.user_config_dir("alpacli", appauthor=False)
    return platformdirs.user_state_dir("alpacli", appauthor=False)


def _home(env: Mapping[str, str]) -> str:
    """Return the home directory, else what the user database says, else a place that never exists (as Debian names it).

    Nothing is guessed in a shared place such as /tmp, where somebody else could have left a profile file; the store
    degrades on a directory that cannot be made, with a warning.
    """
    home = env.get("HOME", "")
    if os.path.isabs(home):
        return home
    try:
        import pwd

        home = pwd.getpwuid(os.getuid()).pw_dir
    except (ImportError, KeyError):
        return _NO_HOME
    return home if os.path.isabs(home) else _NO_HOME


def _read_dotenv(path: str) -> Mapping[str, str]:
    if not os.path.isfile(path):
        return {}
    from dotenv import dotenv_values

    try:
        values = dotenv_values(path, interpolate=False, encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", "make it readable, or remove it") from None
    except UnicodeDecodeError:  # its text would travel with the exception, so it is not chained
        raise ConfigError(f"cannot read {path}: it is not UTF-8 text", "save it as UTF-8, or remove it") from None
    return {name: value for name, value in values.items() if value}


def _read_profile(
    config_dir: str, name: str | None, *, with_keys: bool
) -> tuple[str | None, Mapping[str, str], Mapping[str, float]]:
    """Return the profile's name, its values under their environment names, and the cache lifetimes."""
    path = os.path.join(config_dir, "config.toml")
    if not os.path.isfile(path):
        if name:
            raise ConfigError(f"profile {name!r} does not exist", f"there is no {path} yet")
        return None, {}, DEFAULT_CACHE_TTL_S
    from alpacli.profiles import read_profile

    return read_profile(path, name, with_keys=with_keys)
