"""Key pairs that are kept elsewhere: in the operating system's keyring, or with any program that prints them.

Asked only when a request is really sent. What a program prints is never shown, stored or logged; its standard error goes to
the terminal, because it may ask for a passphrase there.
"""

import json
import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any, Final

from alpacli.errors import ConfigError

SERVICE: Final = "alpacli"
"""The name under which the keyring has the secrets; the user name of an entry is the key ID."""

_COMMAND_S: Final = 60.0
_SHELL: Final = ("|", "||", "&&", ";", "&", ">", ">>", "<", "2>&1", ">&2", "2>/dev/null")
_ID_NAMES: Final = ("api_key", "alpaca_api_key", "apca_api_key_id", "key_id", "api_key_id", "key", "username", "login")
_SECRET_NAMES: Final = (
    "secret_key",
    "alpaca_secret_key",
    "apca_api_secret_key",
    "api_secret_key",
    "secret",
    "password",
)
_ASSIGNMENT: Final = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*[=:]\s*(.*?)\s*")


# ------------------------------------------------------------------------------------------------------- keyring


def from_keyring(key_id: str) -> str:
    """Return the secret of a key.

    Raises:
        ConfigError: the keyring is locked or gone, or has no such entry.
    """
    import keyring
    from keyring.errors import KeyringError

    try:
        secret = keyring.get_password(SERVICE, key_id)
    except (KeyringError, RuntimeError, OSError) as error:
        raise ConfigError(f"the keyring cannot be read: {error}", "unlock it, or `alpacli login` again") from error
    if not secret:
        raise ConfigError("the keyring has no secret for this profile's key", "`alpacli login` stores one")
    return str(secret)


def to_keyring(key_id: str, secret: str) -> bool:
    """Keep a secret in the keyring; false when there is no keyring that gives back what it was given."""
    import keyring
    from keyring.errors import KeyringError

    try:
        keyring.set_password(SERVICE, key_id, secret)
        return bool(keyring.get_password(SERVICE, key_id) == secret)
    except (KeyringError, RuntimeError, OSError):
        return False


def forget_in_keyring(key_id: str) -> bool:
    """Remove a secret; false when it was not there, or the keyring cannot be used."""
    import keyring
    from keyring.errors import KeyringError

    try:
        keyring.delete_password(SERVICE, key_id)
    except (KeyringError, RuntimeError, OSError):
        return False
    return True


# ------------------------------------------------------------------------------------------------------ programs


def secret_of(command: str, key_id: str) -> str:
    """Return the secret that a program prints: alone on its line, or in what ``pair_of`` understands.

    Raises:
        ConfigError: it cannot be run, fails, or prints something else, or the pair of another key.
    """
    found, secret = _read(_run(command))
    if secret is None:
        raise _not_understood(command)
    if found is not None and found != key_id:
        raise ConfigError(
            f"{_name(command)} prints the pair of another key", "correct api_key in the profile, or remove it"
        )
    return secret


def pair_of(command: str) -> tuple[str, str]:
    """Return the key ID and the secret that a program prints.

    Understood: a JSON object that has them somewhere (``api_key`` and ``secret_key``, or the names of the environment
    variables), lines of ``NAME=VALUE``, or two lines, first the key ID.

    Raises:
        ConfigError: it cannot be run, fails, or prints something else.
    """
    key_id, secret = _read(_run(command))
    if not key_id or not secret:
        raise _not_understood(command)
    return key_id, secret


def _run(command: str) -> str:
    try:
        words = shlex.split(command)
        # A pipe would be an argument like any other, and what comes back would be taken for the secret.
        shell = next((word for word in _bare_words(command) if word in _SHELL), None)
        if shell is not None:
            raise ConfigError(
                f"secret_command is run without a shell, and has a {shell}", "write sh -c '…' around it, or a script"
            )
        done = subprocess.run(words, stdout=subprocess.PIPE, check=False, timeout=_COMMAND_S)  # noqa: S603 # the user's own command, not a shell
    except (OSError, ValueError, IndexError) as error:
        why = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else error
        raise ConfigError(f"secret_command cannot be run: {why}", "correct secret_command in the profile") from None
    except subprocess.TimeoutExpired:
        raise ConfigError(
            f"{_name(command)} gave no answer in {_COMMAND_S:g} s", "run it by itself to see why"
        ) from None
    if done.returncode != 0:
        raise ConfigError(f"{_name(command)} ended with exit code {done.returncode}", "run it by itself to see why")
    try:
        return done.stdout.decode()
    except UnicodeDecodeError:  # its text would travel with the exception, so it is not chained
        raise _not_understood(command) from None


def _bare_words(command: str) -> list[str]:
    """Return the words with their quotes, so that what is quoted is not taken for a shell's."""
    lexer = shlex.shlex(command, posix=False)
    lexer.whitespace_split, lexer.commenters = True, ""
    return list(lexer)


def _read(printed: str) -> tuple[str | None, str | None]:
    """Return what is there of a key ID and a secret."""
    try:
        fields = dict(_leaves(json.loads(printed)))
    except (ValueError, RecursionError):
        fields = {}
        for line in printed.splitlines():
            match = _ASSIGNMENT.fullmatch(line)
            if match:
                fields.setdefault(match[1].lower(), match[2].strip("\"'"))
    key_id, secret = _first(fields, _ID_NAMES), _first(fields, _SECRET_NAMES)
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    if key_id or secret or not 1 <= len(lines) <= 2 or lines[0][0] in "{[":
        return key_id, secret
    return (lines[0] if len(lines) == 2 else None), lines[-1]


def _leaves(value: Any) -> Iterator[tuple[str, str]]:
    """Yield every named text of nested JSON; a text that is JSON itself (AWS's ``SecretString``) is opened too.

    1Password's list of fields (``{"label": …, "value": …}``) is read as names and values.
    """
    if isinstance(value, Mapping):
        if isinstance(value.get("label"), str) and isinstance(value.get("value"), str):
            yield value["label"].lower().replace(" ", "_"), value["value"]
        for name, inner in value.items():
            if isinstance(inner, str):
                if inner.lstrip().startswith("{"):
                    yield from _leaves(json.loads(inner))
                else:
                    yield str(name).lower(), inner
            else:
                yield from _leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner)


def _first(fields: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    return next((fields[name] for name in names if fields.get(name)), None)


def _not_understood(command: str) -> ConfigError:
    return ConfigError(
        f"{_name(command)} prints no key pair",
        "it should print JSON with api_key and secret_key, lines of NAME=VALUE, or the secret alone",
    )


def _name(command: str) -> str:
    return f"secret_command ({shlex.split(command)[0]})"
