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
from alpacli.settings import Settings, named_profile, origins

if TYPE_CHECKING:
    from rich.console import RenderableType

    from alpacli.profiles import Draft, Profiles
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
    """One profile; ``key`` is the beginning of the key ID, ``secret_in`` where its secret is kept.

    ``mistake`` says why it cannot be used, ``null`` when it can.
    """

    name: str
    chosen: bool
    key: str | None
    secret_in: str | None
    base_url: str | None
    mistake: str | None


class SettingShown(Model):
    """One setting; ``origin`` is the place it came from. Secrets are masked."""

    name: str
    value: str
    origin: str


def config_dir_of(run: Run) -> str:
    """Return where the profile file is, or will be; the profile that is named need not exist yet."""
    from alpacli.settings import config_directory

    return config_directory(run.environment(), run.directory())


def must_exist(name: str, profiles: Mapping[str, Any], config_dir: str) -> None:
    if name not in profiles:
        known = ", ".join(sorted(profiles)) or "none"
        raise ConfigError(
            f"profile {name!r} does not exist", f"known profiles in {os.path.join(config_dir, 'config.toml')}: {known}"
        )


def meant_profile(run: Run, kept: "Profiles", what: str, *, new: bool = False) -> str:
    """Return the profile that is named, by --profile or ALPACLI_PROFILE, else the chosen one, else the first that was made.

    Among several of which none is chosen nobody knows whether that one is meant. Where there is none of its name yet, a
    ``new`` one harms nobody.

    Raises:
        UsageError: several, and none is chosen; ``what`` is what a name would say.
    """
    named = named_profile(run.flags(), env=run.environment(), cwd=run.directory()) or kept.chosen
    known = kept.values
    if named is None and len(known) > 1 and not (new and FIRST_PROFILE not in known):
        raise UsageError("no profile is chosen", f"--profile NAME says {what}: {', '.join(known)}")
    return named or FIRST_PROFILE


def profile_list(run: Run) -> None:
    """Show the profiles and which one is chosen."""
    view = run.promised(View(list[ProfileShown], _profiles_table))
    from alpacli.profiles import read_all

    run.show_value(view, _rows(read_all(config_dir_of(run))))


def profile_show(
    run: Run,
    name: Annotated[
        str | None, typer.Argument(metavar="PROFILE", help="Default: the chosen one.", show_default=False)
    ] = None,
) -> None:
    """Show one profile with everything that it sets; secrets are masked."""
    view = run.promised(View(list[SettingShown], _settings_table))
    from alpacli.profiles import SETTINGS, read_all

    config_dir = config_dir_of(run)
    kept = read_all(config_dir)
    wanted = name or meant_profile(run, kept, "which to show")
    must_exist(wanted, kept.values, config_dir)
    if wanted in kept.mistakes:
        run.printer.notice(f"profile {wanted} cannot be used: {kept.mistakes[wanted].message}")
    rows = [
        SettingShown(name=field, value=_masked(field, value, SETTINGS), origin=f"profile {wanted}")
        for field, value in _flat(kept.values[wanted])
    ]
    run.show_value(view, rows)


def profile_use(run: Run, name: Name) -> None:
    """Choose the profile that is used when neither --profile nor ALPACLI_PROFILE names one."""

    def use(draft: "Draft", kept: "Profiles") -> None:
        if name in kept.mistakes:
            raise kept.mistakes[name]
        draft.choose(name)

    _change(run, name, use)


def profile_rename(run: Run, name: Name, new_name: Annotated[str, typer.Argument(metavar="NEW_NAME")]) -> None:
    """Give a profile another name."""

    def rename(draft: "Draft", kept: "Profiles") -> None:
        if new_name in kept.values:
            raise UsageError(f"profile {new_name!r} exists already", "choose another name")
        if not new_name.strip():
            raise UsageError("the new name is empty", "choose another name")
        draft.rename(name, new_name)
        if kept.chosen == name:
            draft.choose(new_name)

    _change(run, name, rename)


def profile_delete(run: Run, name: Name) -> None:
    """Delete a profile and its secret."""

    def delete(draft: "Draft", kept: "Profiles") -> None:
        if not run.options.dry_run:
            run.confirm([f"delete profile {name} and its key pair"])
        draft.delete(name)
        if kept.chosen == name:
            draft.choose(None)

    _change(run, name, delete)


def forget_secrets(before: "Profiles", after: "Profiles") -> None:
    """Remove from the keyring what no profile has there any more; a key may be that of several."""
    from alpacli import credentials

    for key_id in _in_keyring(before) - _in_keyring(after):
        credentials.forget_in_keyring(key_id)


def _in_keyring(profiles: "Profiles") -> set[str]:
    found = profiles.values.values()
    return {str(fields["api_key"]) for fields in found if fields.get("secret_store") == KEYRING and "api_key" in fields}


def _change(run: Run, name: str, change: "Callable[[Draft, Profiles], None]") -> None:
    """Change the profile file for the sake of one profile, and show all as they are then.

    With --dry-run nothing is written.
    """
    view = run.promised(View(list[ProfileShown], _profiles_table), of_change=True)
    from alpacli.profiles import edited

    config_dir = config_dir_of(run)
    with edited(config_dir, keep=not run.options.dry_run) as draft:
        kept = draft.profiles
        must_exist(name, kept.values, config_dir)
        change(draft, kept)
        after = draft.profiles
    if not run.options.dry_run:
        forget_secrets(kept, after)
        run.show_change(view, _rows(after), f"the profiles are changed: {name}")
    else:
        run.show_value(view, _rows(after))


def _rows(profiles: "Profiles") -> list[ProfileShown]:
    return [
        _shown(name, fields, profiles.chosen, profiles.mistakes.get(name)) for name, fields in profiles.values.items()
    ]


def _shown(name: str, fields: Mapping[str, Any], chosen: str | None, mistake: ConfigError | None) -> ProfileShown:
    key = fields.get("api_key")
    kept = next((place for field, place in _PLACES.items() if fields.get(field)), None)
    url = fields.get("gateway") or fields.get("base_url")
    return ProfileShown(
        name=name,
        chosen=name == chosen,
        key=f"{key[:4]}…" if key and isinstance(key, str) else None,
        secret_in=kept,
        base_url=url if isinstance(url, str) else None,
        mistake=mistake.message if mistake else None,
    )


def _flat(fields: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in fields.items():
        rows += _flat(value, f"{before}{name}.") if isinstance(value, Mapping) else [(before + name, value)]
    return rows


def _masked(field: str, value: Any, known: Sequence[str]) -> str:
    """Return a value as anybody may see it; nobody knows what a name that is not ``known`` was meant for."""
    name = field.partition(".")[0]
    if name in _SECRET or name not in known:
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
    from rich.console import Group
    from rich.text import Text

    from alpacli.render.grid import Column, grid, page

    if not profiles:
        return page(Text("No profiles. `alpacli login` makes one."), frame)
    columns = [Column(""), Column("Name"), Column("Key"), Column("Secret in"), Column("URL", 1, elastic=True)]
    rows = [
        ("*" if one.chosen else "", one.name, one.key or "", one.secret_in or "", one.base_url or "")
        for one in profiles
    ]
    wrong = [Text(f"{one.name} cannot be used. {one.mistake}", style="red") for one in profiles if one.mistake]
    return page(Group(grid(columns, rows, frame), *wrong), frame)


def _settings_table(settings: Sequence[SettingShown], frame: "Frame") -> "RenderableType":
    from alpacli.render.grid import Column, grid, page

    columns = [Column("Setting"), Column("Value", elastic=True), Column("From", 1)]
    return page(grid(columns, [(row.name, row.value, row.origin) for row in settings], frame), frame)
