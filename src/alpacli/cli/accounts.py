"""Whose account it is: ``login``, ``logout``, ``profile …``, ``config show``. Only these commands write the profile file."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from alpacli.cli.output import View
from alpacli.cli.run import Run
from alpacli.domain.values import Model
from alpacli.errors import AlpacliError, AuthenticationError, ConfigError, UsageError
from alpacli.settings import OAUTH, KeyPair, Secret, Settings, check_gateway_url, load, origins, paper_pair

if TYPE_CHECKING:
    from rich.console import RenderableType

    from alpacli.render.text import Frame

_FIRST: Final = "main"
_KEYRING: Final = "keyring"
_KEYS: Final = ("api_key", "secret_key", "secret_store", "secret_command", "gateway", "token")
_PLACES: Final = {
    "secret_key": "profile file",
    "secret_store": "keyring",
    "secret_command": "program",
    "token": "profile file",
}
_SECRET: Final = ("secret_key", "redis_url", "token")
Name = Annotated[str, typer.Argument(metavar="PROFILE", help="A profile's name.")]


class LoggedIn(Model):
    """Where a key pair was stored; ``account_number`` is null when it was not checked."""

    profile: str
    account_number: str | None
    stored_in: str
    path: str


class LoggedOut(Model):
    profile: str
    removed: bool


class ProfileShown(Model):
    """One profile; ``key`` is the beginning of the key ID, ``secret_in`` where its secret is kept."""

    name: str
    chosen: bool
    key: str | None
    secret_in: str | None
    base_url: str | None


class SettingShown(Model):
    """One setting; ``origin`` is the place it came from. Secrets are masked."""

    name: str
    value: str
    origin: str


# -------------------------------------------------------------------------------------------------- login, logout


def login(
    run: Run,
    key_id: Annotated[
        str | None, typer.Option("--key-id", metavar="KEY", help="The key ID; asked for otherwise.", show_default=False)
    ] = None,
    secret_file: Annotated[
        str | None,
        typer.Option(
            "--secret-file",
            metavar="FILE|-",
            help="Read the secret from here, not from the terminal.",
            show_default=False,
        ),
    ] = None,
    store: Annotated[
        str, typer.Option("--store", metavar="auto|keyring|file", help="Where the secret is kept.", show_default=False)
    ] = "auto",
    check: Annotated[  # noqa: FBT002 # a flag
        bool, typer.Option("--check/--no-check", help="Ask the server whether the pair is good.", show_default=False)
    ] = True,
) -> None:
    """Store a paper key pair in a profile, after asking the server whether it is good."""
    view = View(LoggedIn, _logged_in)
    if run.options.schema:
        run.printer.schema(view)
        return
    if store not in ("auto", "keyring", "file"):
        raise UsageError(f"--store is {store!r}", "choose among auto, keyring, file")
    config_dir = _config_dir(run)
    from alpacli.profiles import read_all

    known, chosen = read_all(config_dir)
    profile = run.options.profile or chosen or _FIRST
    pair = paper_pair(KeyPair(key_id or _asked("Key ID: "), Secret(_secret(secret_file)), "login"), "the key ID")
    _overruled(run)
    account = _checked(run, pair, profile if profile in known else None) if check else None
    if run.options.dry_run:
        run.printer.notice("the pair is good; nothing was stored" if check else "nothing was checked or stored")
        return
    where, path = _keep(config_dir, profile, pair, store)
    run.show_value(view, LoggedIn(profile=profile, account_number=account, stored_in=where, path=path))


def _config_dir(run: Run) -> str:
    """Return where the profile file is, or will be; the profile that is named need not exist yet."""
    from alpacli.settings import config_directory

    return config_directory(run.environment(), run.directory())


def _asked(question: str) -> str:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(
            "there is nobody to ask for the key pair", "give --key-id and --secret-file (- reads standard input)"
        )
    sys.stderr.write(question)
    sys.stderr.flush()
    answer = sys.stdin.readline().strip()
    if not answer:
        raise UsageError("no key ID was given", "copy it from Alpaca's dashboard; paper keys begin with PK")
    return answer


def _secret(
    path: str | None,
    question: str = "Secret key (not shown): ",
    source: str = "copy it from Alpaca's dashboard; it is shown once, when the key is made",
) -> str:
    if path is None:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise UsageError(
                "there is nobody to ask for the secret",
                "--secret-file, or for a gateway --token-file, reads it; - is standard input",
            )
        import getpass

        text = getpass.getpass(question, stream=sys.stderr)
    elif path == "-":
        text = sys.stdin.read()
    else:
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"cannot read {path}: {getattr(error, 'strerror', None) or 'it is not text'}",
                "name a file that holds the secret alone",
            ) from None
    if not text.strip():
        raise UsageError("no secret was given", source)
    return text.strip()


def _overruled(run: Run) -> None:
    """Say when keys somewhere else would win over the profile."""
    environment = run.environment()
    for name in ("ALPACA_API_KEY", "APCA_API_KEY_ID"):
        if environment.get(name):
            run.printer.notice(f"{name} in the environment wins over the profile unless --profile names it")
            return


def _checked(run: Run, pair: KeyPair, profile: str | None) -> str:
    """Ask the server for the account of this pair, wherever the profile and the environment say that it is."""
    from alpacli.runtime import open_client

    settings = load(run.flags()._replace(profile=profile), env=run.environment(), cwd=run.directory())
    try:
        with open_client(settings._replace(key_pair=pair), label="alpacli login", warn=run.printer.notice) as client:
            return client.get_account(use_cache=False).account_number
    except AuthenticationError as error:
        error.hint = "copy both again; paper keys and live keys are different ones. Nothing was stored"
        raise
    except AlpacliError as error:
        error.hint = f"{error.hint}; --no-check stores the pair without asking".lstrip("; ")
        raise


def _keep(config_dir: str, profile: str, pair: KeyPair, store: str) -> tuple[str, str]:
    """Store the pair and return where: the keyring when it works, else the profile file, which its owner alone can read."""
    from alpacli import credentials
    from alpacli.profiles import edited

    secret = pair.secret.reveal()
    in_keyring = store != "file" and credentials.to_keyring(pair.key_id, secret)
    if store == "keyring" and not in_keyring:
        raise ConfigError(
            "there is no keyring that works here", "--store file keeps the secret in a file that only you can read"
        )
    with edited(config_dir) as document:
        table = _table_of(document, profile, make=True)
        before = table.get("api_key")
        for field in _KEYS:
            table.pop(field, None)
        table["api_key"] = pair.key_id
        if in_keyring:
            table["secret_store"] = _KEYRING
        else:
            table["secret_key"] = secret
        if "profile" not in document:
            document["profile"] = profile  # tomlkit puts a plain key before the tables
    if before is not None and before != pair.key_id:
        credentials.forget_in_keyring(str(before))
    path = os.path.join(config_dir, "config.toml")
    return ("keyring", path) if in_keyring else ("profile file, readable by you alone", path)


def logout(run: Run) -> None:
    """Remove a profile's key pair from the keyring and the profile file."""
    view = View(LoggedOut, _logged_out)
    if run.options.schema:
        run.printer.schema(view)
        return
    from alpacli import credentials
    from alpacli.profiles import edited, read_all

    config_dir = _config_dir(run)
    known, chosen = read_all(config_dir)
    profile = run.options.profile or chosen or _FIRST
    _known(profile, known, config_dir)
    if run.options.dry_run:
        run.show_value(view, LoggedOut(profile=profile, removed=False))
        return
    with edited(config_dir) as document:
        table = _table_of(document, profile)
        held = {field: table.pop(field, None) for field in _KEYS}
        if held["secret_store"] == _KEYRING and held["api_key"]:
            credentials.forget_in_keyring(str(held["api_key"]))
    run.show_value(view, LoggedOut(profile=profile, removed=any(value is not None for value in held.values())))


# ------------------------------------------------------------------------------------------------------- profiles


def profile_add(
    run: Run,
    name: Name,
    gateway: Annotated[str, typer.Option("--gateway", metavar="URL", help="Where `alpacli serve` answers.")],
    token_file: Annotated[
        str | None,
        typer.Option(
            "--token-file",
            metavar="FILE|-",
            help="Read the token from here, not from the terminal.",
            show_default=False,
        ),
    ] = None,
    check: Annotated[  # noqa: FBT002 # a flag
        bool, typer.Option("--check/--no-check", help="Ask the gateway whether the token is good.", show_default=False)
    ] = True,
) -> None:
    """Add a profile for an account behind a gateway on another machine; asks for the token.

    For key pairs there is `alpacli login --profile NAME`.
    """
    view = View(LoggedIn, _logged_in)
    if run.options.schema:
        run.printer.schema(view)
        return
    from alpacli.profiles import edited

    url = check_gateway_url(gateway.removesuffix("/"), "--gateway")
    token = _secret(token_file, "Token (not shown): ", "`alpacli serve token` prints one, on the gateway's machine")
    account = _admitted(run, KeyPair(OAUTH, Secret(token), "profile add"), url) if check else None
    config_dir = _config_dir(run)
    if run.options.dry_run:
        run.printer.notice("the token is good; nothing was stored" if check else "nothing was checked or stored")
        return
    with edited(config_dir) as document:
        table = _table_of(document, name, make=True)
        for field in _KEYS:
            table.pop(field, None)
        table["gateway"], table["token"] = url, token
        if "profile" not in document:
            document["profile"] = name
    path = os.path.join(config_dir, "config.toml")
    run.show_value(
        view,
        LoggedIn(profile=name, account_number=account, stored_in="profile file, readable by you alone", path=path),
    )


def _admitted(run: Run, pair: KeyPair, url: str) -> str | None:
    """Ask a gateway for its account; ``None`` when the token is good and only may not read."""
    from alpacli.runtime import open_client

    settings = load(run.flags()._replace(profile=None), env=run.environment(), cwd=run.directory())
    settings = settings._replace(key_pair=pair, base_url=url, data_url=url)
    try:
        with open_client(settings, label="alpacli profile add", warn=run.printer.notice) as client:
            return client.get_account(use_cache=False).account_number
    except AuthenticationError as error:
        error.hint = "copy the token again, or mint another; nothing was stored"
        raise
    except AlpacliError as error:
        if error.status == 403:
            return None
        error.hint = f"{error.hint}; --no-check stores the token without asking".lstrip("; ")
        raise


def profile_list(run: Run) -> None:
    """Show the profiles and which one is chosen."""
    view = View(list[ProfileShown], _profiles_table)
    if run.options.schema:
        run.printer.schema(view)
        return
    from alpacli.profiles import read_all

    profiles, chosen = read_all(_config_dir(run))
    run.show_value(view, [_shown(name, fields, chosen) for name, fields in profiles.items()])


def profile_show(
    run: Run,
    name: Annotated[
        str | None, typer.Argument(metavar="PROFILE", help="Default: the chosen one.", show_default=False)
    ] = None,
) -> None:
    """Show one profile with everything that it sets; secrets are masked."""
    view = View(list[SettingShown], _settings_table)
    if run.options.schema:
        run.printer.schema(view)
        return
    from alpacli.profiles import read_all

    config_dir = _config_dir(run)
    profiles, chosen = read_all(config_dir)
    wanted = name or run.options.profile or chosen or _FIRST
    _known(wanted, profiles, config_dir)
    rows = [
        SettingShown(name=field, value=_masked(field, value), origin=f"profile {wanted}")
        for field, value in _flat(profiles[wanted])
    ]
    run.show_value(view, rows)


def profile_use(run: Run, name: Name) -> None:
    """Choose the profile that is used when neither --profile nor ALPACLI_PROFILE names one."""

    def use(document: Any, profiles: Mapping[str, Any], config_dir: str) -> str:
        _known(name, profiles, config_dir)
        document["profile"] = name
        return name

    _change(run, use)


def profile_rename(run: Run, name: Name, new_name: Annotated[str, typer.Argument(metavar="NEW_NAME")]) -> None:
    """Give a profile another name."""

    def rename(document: Any, profiles: Mapping[str, Any], config_dir: str) -> str:
        _known(name, profiles, config_dir)
        if new_name in profiles:
            raise UsageError(f"profile {new_name!r} exists already", "choose another name")
        if not new_name.strip():
            raise UsageError("the new name is empty", "choose another name")
        tables = document["profiles"]
        tables[new_name] = tables.pop(name)
        if document.get("profile") == name:
            document["profile"] = new_name
        return new_name

    _change(run, rename)


def profile_delete(run: Run, name: Name) -> None:
    """Delete a profile and its secret."""

    def delete(document: Any, profiles: Mapping[str, Any], config_dir: str) -> str:
        from alpacli import credentials

        _known(name, profiles, config_dir)
        if not run.options.dry_run:
            run.confirm([f"delete profile {name} and its key pair"])
        fields = document["profiles"].pop(name)
        if document.get("profile") == name:
            del document["profile"]
        if fields.get("secret_store") == _KEYRING and not run.options.dry_run:
            credentials.forget_in_keyring(str(fields["api_key"]))
        return ""

    _change(run, delete)


def _change(run: Run, change: Callable[[Any, Mapping[str, Any], str], str]) -> None:
    """Change the profile file and show the profiles as they are then; with --dry-run nothing is written."""
    view = View(list[ProfileShown], _profiles_table)
    if run.options.schema:
        run.printer.schema(view)
        return
    from alpacli.profiles import edited, read_all

    config_dir = _config_dir(run)
    profiles, _ = read_all(config_dir)
    with edited(config_dir, keep=not run.options.dry_run) as document:
        change(document, profiles, config_dir)
        after = document.unwrap()
    rows = [_shown(name, fields, after.get("profile")) for name, fields in after.get("profiles", {}).items()]
    run.show_value(view, rows)


def _table_of(document: Any, profile: str, *, make: bool = False) -> Any:
    """Return a profile's table in the file, a new one when it is to be made."""
    import tomlkit

    if make:
        if "profiles" not in document:
            document["profiles"] = tomlkit.table(is_super_table=True)
        if profile not in document["profiles"]:
            document["profiles"][profile] = tomlkit.table()
    return document["profiles"][profile]


def _known(name: str, profiles: Mapping[str, Any], config_dir: str) -> None:
    if name not in profiles:
        known = ", ".join(sorted(profiles)) or "none"
        raise ConfigError(
            f"profile {name!r} does not exist", f"known profiles in {os.path.join(config_dir, 'config.toml')}: {known}"
        )


def _shown(name: str, fields: Mapping[str, Any], chosen: str | None) -> ProfileShown:
    key = fields.get("api_key")
    kept = next((place for field, place in _PLACES.items() if fields.get(field)), None)
    return ProfileShown(
        name=name,
        chosen=name == chosen,
        key=f"{key[:4]}…" if key else None,
        secret_in=kept,
        base_url=fields.get("gateway") or fields.get("base_url"),
    )


def _flat(fields: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in fields.items():
        rows += _flat(value, f"{before}{name}.") if isinstance(value, Mapping) else [(before + name, value)]
    return rows


def _masked(field: str, value: Any) -> str:
    if field in _SECRET:
        return "***"
    return f"{str(value)[:4]}…" if field == "api_key" else str(value)


# --------------------------------------------------------------------------------------------------------- config


def config_show(
    run: Run,
    origin: Annotated[  # noqa: FBT002 # a flag
        bool, typer.Option("--origin", help="Say where each value comes from.", show_default=False)
    ] = False,
) -> None:
    """Show every setting as it is used here and now; secrets are masked."""
    view = View(list[SettingShown], _settings_table)
    if run.options.schema:
        run.printer.schema(view)
        return
    settings = run.settings()
    set_somewhere = origins(run.flags(), env=run.environment(), cwd=run.directory())
    rows = []
    for name, value in _in_use(settings).items():
        found = set_somewhere.get(name)
        shown, place = found if found and not (settings.sim and name.startswith("ALPACA_")) else (value, "default")
        if settings.sim and name.startswith("ALPACA_"):
            place = "--sim"
        if name == "ALPACLI_PROFILE" and not found:
            place = "--profile" if run.options.profile else "profile file" if value else "default"
        if name == "ALPACLI_MAX_WAIT" and run.options.max_wait is not None:
            shown, place = value, "--max-wait"
        rows.append(SettingShown(name=name, value=shown, origin=place))
    if not origin and run.printer.draws_tables:
        rows = [row.model_copy(update={"origin": ""}) for row in rows]
    run.show_value(view, rows)


def _in_use(settings: Settings) -> dict[str, str]:
    """Return every setting under the name of its variable."""
    pair = settings.key_pair
    return {
        "ALPACA_API_KEY": f"{pair.key_id[:4]}…" if pair else "",
        "ALPACA_SECRET_KEY": "***" if pair else "",
        "ALPACA_BASE_URL": settings.base_url,
        "ALPACA_DATA_URL": settings.data_url,
        "ALPACA_STREAM_URL": settings.stream_url,
        "REDIS_URL": "***" if settings.redis_url else "",
        "ALPACLI_PROFILE": settings.profile or "",
        "ALPACLI_CONFIG_DIR": settings.config_dir,
        "ALPACLI_STATE_DIR": settings.state_dir,
        "ALPACLI_RATE_LIMIT": str(settings.rate_limit),
        "ALPACLI_RATE_RESERVE": str(settings.rate_reserve),
        "ALPACLI_RATE_WINDOW": f"{settings.rate_window_s:g}",
        "ALPACLI_MAX_WAIT": f"{settings.max_wait_s:g}",
        "ALPACLI_BREAKER_OPEN": f"{settings.breaker_open_s:g}",
        "ALPACLI_HUB_LINGER": f"{settings.hub_linger_s:g}",
    }


# --------------------------------------------------------------------------------------------------------- tables


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


def _profiles_table(profiles: Sequence[ProfileShown], frame: "Frame") -> "RenderableType":
    from rich.text import Text

    from alpacli.render.grid import Column, grid, page

    if not profiles:
        return page(Text("No profiles. `alpacli login` makes one."), frame)
    columns = [Column(""), Column("Name"), Column("Key"), Column("Secret in"), Column("URL", 1, elastic=True)]
    rows = [
        ("*" if one.chosen else "", one.name, one.key or "", one.secret_in or "", one.base_url or "")
        for one in profiles
    ]
    return page(grid(columns, rows, frame), frame)


def _settings_table(settings: Sequence[SettingShown], frame: "Frame") -> "RenderableType":
    from alpacli.render.grid import Column, grid, page

    columns = [Column("Setting"), Column("Value", elastic=True), Column("From", 1)]
    return page(grid(columns, [(row.name, row.value, row.origin) for row in settings], frame), frame)
