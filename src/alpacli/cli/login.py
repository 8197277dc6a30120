"""Keys and tokens come in and go: ``login``, ``logout`` and, for an account behind a gateway, ``profile add``."""

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Final

import typer

from alpacli.cli.options import option
from alpacli.cli.output import View
from alpacli.cli.profiles import KEYRING, Name, config_dir_of, forget_secrets, meant_profile, must_exist
from alpacli.cli.run import Run
from alpacli.domain.values import Model
from alpacli.errors import AlpacliError, AuthenticationError, ConfigError, UsageError
from alpacli.settings import OAUTH, PAPER_URLS, KeyPair, Secret, Settings, check_gateway_url, load, paper_pair

if TYPE_CHECKING:
    from rich.console import RenderableType

    from alpacli.render.text import Frame

_URLS: Final = ("base_url", "data_url", "stream_url")


class LoggedIn(Model):
    """Where a key pair was stored; ``account_number`` is null when it was not checked."""

    profile: str
    account_number: str | None
    stored_in: str
    path: str


class LoggedOut(Model):
    profile: str
    removed: bool


def login(
    run: Run,
    key_id: Annotated[str | None, option("The key ID; asked for otherwise.", "--key-id", metavar="KEY")] = None,
    secret_file: Annotated[
        str | None, option("Read the secret from here, not from the terminal.", "--secret-file", metavar="FILE|-")
    ] = None,
    store: Annotated[str, option("Where the secret is kept.", "--store", metavar="auto|keyring|file")] = "auto",
    check: Annotated[  # noqa: FBT002 # a flag
        bool, option("Ask the server whether the pair is good.", "--check/--no-check")
    ] = True,
) -> None:
    """Store a paper key pair in a profile, after asking the server whether it is good."""
    view = run.promised(View(LoggedIn, _logged_in), of_change=True)
    _not_offline(run)
    if store not in ("auto", "keyring", "file"):
        raise UsageError(f"--store is {store!r}", "choose among auto, keyring, file")
    config_dir = config_dir_of(run)
    from alpacli.profiles import read_all

    kept = read_all(config_dir)
    profile = meant_profile(run, kept, "into which profile the pair goes", new=True)
    if key_id is None:
        key_id = _asked("Key ID: ", secret_too=secret_file is None)
    elif not key_id.strip():
        raise _no_key_id()
    pair = paper_pair(KeyPair(key_id.strip(), Secret(_secret(secret_file)), "login"), "the key ID")
    _overruled(run)
    account, urls = _looked_at(run, pair, profile if profile in kept.values else None, check=check)
    if run.options.dry_run:
        run.printer.notice("the pair is good; nothing was stored" if check else "nothing was checked or stored")
        return
    where, path = _keep(config_dir, profile, pair, store, urls)
    stored = LoggedIn(profile=profile, account_number=account, stored_in=where, path=path)
    run.show_change(view, stored, f"the pair is stored in profile {profile}")


def _not_offline(run: Run) -> None:
    """Refuse --sim: the offline exchange takes any pair, so it cannot say whether one is good enough to replace another."""
    if run.options.sim:
        raise UsageError("--sim needs no keys and cannot check any", "leave --sim away")


def _asked(question: str, *, secret_too: bool) -> str:
    if not _somebody_is_there():
        if secret_too:
            raise UsageError(
                "there is nobody to ask for the key pair",
                "give --key-id KEY and --secret-file FILE (- reads standard input)",
            )
        raise UsageError("there is nobody to ask for the key ID", "give --key-id KEY too")
    sys.stderr.write(question)
    sys.stderr.flush()
    answer = sys.stdin.readline().strip()
    if not answer:
        raise _no_key_id()
    return answer


def _no_key_id() -> UsageError:
    return UsageError("no key ID was given", "copy it from Alpaca's dashboard; paper keys begin with PK")


def _somebody_is_there() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def _secret(
    path: str | None,
    what: str = "secret",
    question: str = "Secret key (not shown): ",
    source: str = "copy it from Alpaca's dashboard; it is shown once, when the key is made",
) -> str:
    """Read a secret, or another ``what``, from a file, standard input (``-``) or whoever sits there."""
    if path is None:
        if not _somebody_is_there():
            raise UsageError(
                f"there is nobody to ask for the {what}", f"--{what}-file FILE reads it; - is standard input"
            )
        import getpass

        text = getpass.getpass(question, stream=sys.stderr)
    elif path == "-":
        text = sys.stdin.read()
    else:
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read()
        except (OSError, ValueError) as error:  # no UTF-8, or a name that no file can have
            raise UsageError(
                f"cannot read {path or 'a file without a name'}:"
                f" {getattr(error, 'strerror', None) or 'it is not text'}",
                f"name a file that holds the {what} alone",
            ) from None
    words = text.split()
    if not words:
        raise UsageError(f"no {what} was given", source)
    if len(words) > 1 and path is not None:
        held = "standard input" if path == "-" else path
        raise UsageError(f"{held} holds more than the {what}", f"it has to be the {what} alone, on one line")
    return text.strip()


def _overruled(run: Run) -> None:
    """Say when keys somewhere else would win over the profile."""
    environment = run.environment()
    for name in ("ALPACA_API_KEY", "APCA_API_KEY_ID"):
        if environment.get(name):
            run.printer.notice(f"{name} in the environment wins over the profile unless --profile names it")
            return


def _looked_at(run: Run, pair: KeyPair, profile: str | None, *, check: bool) -> tuple[str | None, Mapping[str, str]]:
    """Ask the server for the account of this pair, wherever the environment and the profile say that it is.

    Returns its number, ``None`` without ``check``, and what a profile says to ask the same server: nothing of what is
    Alpaca's own.
    """
    flags = run.flags()
    settings = load(
        flags._replace(profile=profile if flags.profile else None),
        env=run.environment(),
        cwd=run.directory(),
        pair=pair,
        into=profile,
    )
    again = "copy both again; paper keys and live keys are different ones. Nothing was stored"
    number = _account(run, settings, "alpacli login", again, "the pair") if check else None
    asked = {"base_url": settings.base_url, "data_url": settings.data_url, "stream_url": settings.stream_url}
    return number, {field: url for field, url in asked.items() if url not in PAPER_URLS.values()}


def _account(run: Run, settings: Settings, label: str, again: str, what: str) -> str:
    """Ask for the number of the account; an error says what to do ``again``, or how to store ``what`` all the same."""
    from alpacli.runtime import open_client

    try:
        with open_client(settings, label=label, warn=run.printer.notice) as client:
            return client.get_account(use_cache=False).account_number
    except AuthenticationError as error:
        error.hint = again
        raise
    except AlpacliError as error:
        error.hint = f"{error.hint}; --no-check stores {what} without asking".lstrip("; ")
        raise


def _keep(config_dir: str, profile: str, pair: KeyPair, store: str, urls: Mapping[str, str]) -> tuple[str, str]:
    """Store the pair and return where: the keyring when it works, else the profile file, which its owner alone can read.

    ``urls`` are where the pair is good, as far as that is not Alpaca.
    """
    from alpacli import credentials
    from alpacli.profiles import KEY_FIELDS, edited

    secret = pair.secret.reveal()
    in_keyring = store != "file" and credentials.to_keyring(pair.key_id, secret)
    if store == "keyring" and not in_keyring:
        raise ConfigError(
            "there is no keyring that works here", "--store file keeps the secret in a file that only you can read"
        )
    with edited(config_dir) as draft:
        before = draft.profiles
        table = draft.table(profile, make=True)
        for field in KEY_FIELDS:
            table.pop(field, None)
        table["api_key"] = pair.key_id
        if in_keyring:
            table["secret_store"] = KEYRING
        else:
            table["secret_key"] = secret
        for field in _URLS:
            table.pop(field, None)
        table.update(urls)
        if "profile" not in draft.document:
            draft.choose(profile)
        after = draft.profiles
    forget_secrets(before, after)
    path = os.path.join(config_dir, "config.toml")
    return ("keyring", path) if in_keyring else ("profile file, readable by you alone", path)


def logout(run: Run) -> None:
    """Remove a profile's key pair from the keyring and the profile file."""
    view = run.promised(View(LoggedOut, _logged_out), of_change=True)
    from alpacli.profiles import KEY_FIELDS, edited, read_all

    config_dir = config_dir_of(run)
    kept = read_all(config_dir)
    profile = meant_profile(run, kept, "whose keys to remove")
    must_exist(profile, kept.values, config_dir)
    if run.options.dry_run:
        run.show_value(view, LoggedOut(profile=profile, removed=False))
        return
    with edited(config_dir) as draft:
        before = draft.profiles
        table = draft.table(profile)
        held = {field: table.pop(field, None) for field in KEY_FIELDS}
        after = draft.profiles
    forget_secrets(before, after)
    gone = LoggedOut(profile=profile, removed=any(value is not None for value in held.values()))
    run.show_change(view, gone, f"profile {profile} has no keys any more")


def profile_add(
    run: Run,
    name: Name,
    gateway: Annotated[str, typer.Option("--gateway", metavar="URL", help="Where `alpacli serve` answers.")],
    token_file: Annotated[
        str | None, option("Read the token from here, not from the terminal.", "--token-file", metavar="FILE|-")
    ] = None,
    check: Annotated[  # noqa: FBT002 # a flag
        bool, option("Ask the gateway whether the token is good.", "--check/--no-check")
    ] = True,
) -> None:
    """Add a profile for an account behind a gateway on another machine; asks for the token.

    For key pairs there is `alpacli login --profile NAME`.
    """
    view = run.promised(View(LoggedIn, _logged_in), of_change=True)
    _not_offline(run)
    from alpacli.profiles import KEY_FIELDS, edited

    url = check_gateway_url(gateway.removesuffix("/"), "--gateway")
    token = _secret(
        token_file, "token", "Token (not shown): ", "`alpacli serve token` prints one, on the gateway's machine"
    )
    account = _admitted(run, KeyPair(OAUTH, Secret(token), "profile add"), url) if check else None
    config_dir = config_dir_of(run)
    if run.options.dry_run:
        run.printer.notice("the token is good; nothing was stored" if check else "nothing was checked or stored")
        return
    with edited(config_dir) as draft:
        before = draft.profiles
        table = draft.table(name, make=True)
        for field in KEY_FIELDS:
            table.pop(field, None)
        table["gateway"], table["token"] = url, token
        if "profile" not in draft.document:
            draft.choose(name)
        after = draft.profiles
    forget_secrets(before, after)
    path = os.path.join(config_dir, "config.toml")
    run.show_change(
        view,
        LoggedIn(profile=name, account_number=account, stored_in="profile file, readable by you alone", path=path),
        f"profile {name} is stored",
    )


def _admitted(run: Run, pair: KeyPair, url: str) -> str | None:
    """Ask a gateway for its account; ``None`` when the token is good and only may not read."""
    settings = load(run.flags()._replace(profile=None), env=run.environment(), cwd=run.directory(), pair=pair)
    settings = settings._replace(base_url=url, data_url=url)
    again = "copy the token again, or mint another; nothing was stored"
    try:
        return _account(run, settings, "alpacli profile add", again, "the token")
    except AlpacliError as error:
        if error.status != 403 or isinstance(error, AuthenticationError):
            raise
        return None


# ------------------------------------------------------------------------------------------------------------ tables


def _logged_in(value: LoggedIn, frame: "Frame") -> "RenderableType":
    from alpacli.render.grid import facts, page

    account = value.account_number or "not checked"
    lines = [
        ("Profile", value.profile),
        ("Account", account),
        ("Secret kept in", value.stored_in),
        ("File", value.path),
    ]
    return page(facts(lines), frame)


def _logged_out(value: LoggedOut, frame: "Frame") -> "RenderableType":
    from rich.text import Text

    from alpacli.render.grid import page

    said = "Removed the key pair of" if value.removed else "There was no key pair in"
    return page(Text(f"{said} profile {value.profile}."), frame)
