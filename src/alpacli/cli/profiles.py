"""The profile file: ``profile list|show|use|rename|delete``, and ``config show``. Secrets are never shown."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from alpacli.cli.options import option
from alpacli.cli.output import View
from alpacli.cli.run import Run
from alpacli.domain.values import Model
from alpacli.errors import ConfigError, UsageError
from alpacli.settings import Settings, origins

if TYPE_CHECKING:
    from rich.console import RenderableType

    from alpacli.render.text import Frame

FIRST_PROFILE: Final = "main"
KEYRING: Final = "keyring"
_PLACES: Final = {
    "secret_key": "profile file",
    "secret_store": "keyring",
    "secret_command": "program",
    "token": "profile file",
}
_SECRET: Final = ("secret_key", "redis_url", "token")
Name = Annotated[str, typer.Argument(metavar="PROFILE", help="A profile's name.")]


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


def config_dir_of(run: Run) -> str:
    """Return where the profile file is, or will be; the profile that is named need not exist yet."""
    from alpacli.settings import config_directory

    return config_directory(run.environment(), run.directory())


def table_of(document: Any, profile: str, *, make: bool = False) -> Any:
    """Return a profile's table in the file, a new one when it is to be made."""
    import tomlkit

    if make:
        if "profiles" not in document:
            document["profiles"] = tomlkit.table(is_super_table=True)
        if profile not in document["profiles"]:
            document["profiles"][profile] = tomlkit.table()
    return document["profiles"][profile]


def must_exist(name: str, profiles: Mapping[str, Any], config_dir: str) -> None:
    if name not in profiles:
        known = ", ".join(sorted(profiles)) or "none"
        raise ConfigError(
            f"profile {name!r} does not exist", f"known profiles in {os.path.join(config_dir, 'config.toml')}: {known}"
        )


def profile_list(run: Run) -> None:
    """Show the profiles and which one is chosen."""
    view = run.promised(View(list[ProfileShown], _profiles_table))
    from alpacli.profiles import read_all

    profiles, chosen = read_all(config_dir_of(run))
    run.show_value(view, [_shown(name, fields, chosen) for name, fields in profiles.items()])


def profile_show(
    run: Run,
    name: Annotated[
        str | None, typer.Argument(metavar="PROFILE", help="Default: the chosen one.", show_default=False)
    ] = None,
) -> None:
    """Show one profile with everything that it sets; secrets are masked."""
    view = run.promised(View(list[SettingShown], _settings_table))
    from alpacli.profiles import read_all

    config_dir = config_dir_of(run)
    profiles, chosen = read_all(config_dir)
    wanted = name or run.options.profile or chosen or FIRST_PROFILE
    must_exist(wanted, profiles, config_dir)
    rows = [
        SettingShown(name=field, value=_masked(field, value), origin=f"profile {wanted}")
        for field, value in _flat(profiles[wanted])
    ]
    run.show_value(view, rows)


def profile_use(run: Run, name: Name) -> None:
    """Choose the profile that is used when neither --profile nor ALPACLI_PROFILE names one."""

    def use(document: Any, profiles: Mapping[str, Any], config_dir: str) -> str:
        must_exist(name, profiles, config_dir)
        document["profile"] = name
        return name

    _change(run, use)


def profile_rename(run: Run, name: Name, new_name: Annotated[str, typer.Argument(metavar="NEW_NAME")]) -> None:
    """Give a profile another name."""

    def rename(document: Any, profiles: Mapping[str, Any], config_dir: str) -> str:
        must_exist(name, profiles, config_dir)
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

        must_exist(name, profiles, config_dir)
        if not run.options.dry_run:
            run.confirm([f"delete profile {name} and its key pair"])
        fields = document["profiles"].pop(name)
        if document.get("profile") == name:
            del document["profile"]
        if fields.get("secret_store") == KEYRING and not run.options.dry_run:
            credentials.forget_in_keyring(str(fields["api_key"]))
        return ""

    _change(run, delete)


def _change(run: Run, change: Callable[[Any, Mapping[str, Any], str], str]) -> None:
    """Change the profile file and show the profiles as they are then; with --dry-run nothing is written."""
    view = run.promised(View(list[ProfileShown], _profiles_table))
    from alpacli.profiles import edited, read_all

    config_dir = config_dir_of(run)
    profiles, _ = read_all(config_dir)
    with edited(config_dir, keep=not run.options.dry_run) as document:
        change(document, profiles, config_dir)
        after = document.unwrap()
    rows = [_shown(name, fields, after.get("profile")) for name, fields in after.get("profiles", {}).items()]
    run.show_value(view, rows)


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


# ------------------------------------------------------------------------------------------------------------ config


def config_show(
    run: Run,
    origin: Annotated[  # noqa: FBT002 # a flag
        bool, option("Say where each value comes from.", "--origin")
    ] = False,
) -> None:
    """Show every setting as it is used here and now; secrets are masked."""
    view = run.promised(View(list[SettingShown], _settings_table))
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


# ------------------------------------------------------------------------------------------------------------ tables


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
