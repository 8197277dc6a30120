"""The profile file: what it may say, and how it says no."""

from pathlib import Path

import pytest

from alpacli.errors import ConfigError
from alpacli.profiles import read_all, read_profile
from alpacli.settings import Flags, load

FILE = """
profile = "paper"

[profiles.paper]
api_key = "PKPAPER"
secret_key = "paper-secret"
redis_url = "redis://:hunter2@localhost:6379/0"
rate_limit = 150
rate_reserve = 15
max_wait = 2.5
state_dir = "/var/lib/alpacli"

[profiles.paper.cache]
account = 7.5
orders = 2

[profiles.local]
base_url = "http://127.0.0.1:8000"
data_url = "http://127.0.0.1:8001"
stream_url = "ws://127.0.0.1:8002"
"""


def _write(folder: Path, text: str) -> str:
    path = folder / "config.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_profile_speaks_the_environments_names(tmp_path: Path) -> None:
    name, values, ttl = read_profile(_write(tmp_path, FILE), None)
    assert name == "paper"
    assert values == {
        "ALPACA_API_KEY": "PKPAPER",
        "ALPACA_SECRET_KEY": "paper-secret",
        "REDIS_URL": "redis://:hunter2@localhost:6379/0",
        "ALPACLI_STATE_DIR": "/var/lib/alpacli",
        "ALPACLI_RATE_LIMIT": "150",
        "ALPACLI_RATE_RESERVE": "15",
        "ALPACLI_MAX_WAIT": "2.5",
    }
    assert ttl == {"account": 7.5, "positions": 3.0, "orders": 2.0}


def test_the_name_that_was_asked_for_wins_over_the_files_own_choice(tmp_path: Path) -> None:
    name, values, ttl = read_profile(_write(tmp_path, FILE), "local")
    assert name == "local"
    assert values["ALPACA_STREAM_URL"] == "ws://127.0.0.1:8002"
    assert ttl == {"account": 5.0, "positions": 3.0, "orders": 0.0}


def test_a_file_that_chooses_no_profile_changes_nothing(tmp_path: Path) -> None:
    text = FILE.replace('profile = "paper"', "")
    assert read_profile(_write(tmp_path, text), None) == (None, {}, {"account": 5.0, "positions": 3.0, "orders": 0.0})


def test_an_unknown_profile_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_profile(_write(tmp_path, FILE), "live")
    assert "local, paper" in caught.value.hint


def test_a_profile_without_a_file_says_where_the_file_would_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(Flags(profile="paper"), env={"ALPACLI_CONFIG_DIR": str(tmp_path)})
    assert str(tmp_path) in caught.value.hint


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("profile = \n", "line 1"),
        ("[profiles.a]\napi_kee = 'x'", "profiles.a.api_kee"),
        ("[profiles.a]\nrate_limit = 'many'", "profiles.a.rate_limit"),
        ("[profiles.a.cache]\naccount = -1", "profiles.a.cache.account"),
        ("[profiles.a.cache]\naccount = nan", "profiles.a.cache.account"),
        ("[profiles.a.cache]\naccount = 86401", "profiles.a.cache.account"),
        ("[profiles.a.cache]\nacount = 1", "profiles.a.cache.acount"),
        ("profiles = 3", "profiles"),
        ("colour = true", "colour"),
    ],
)
def test_a_mistake_is_named_by_its_place_in_the_file(tmp_path: Path, text: str, where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_profile(_write(tmp_path, text), "a")
    assert where in caught.value.message
    assert "config.toml" in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("[profiles.a]\napi_kye = 'PK'", "profiles.a.api_kye is no setting", "api_key?"),
        ("[profiles.a.cache]\nacount = 1", "profiles.a.cache.acount is no setting", "account?"),
        ("colour = true", "colour is no setting", "profile, profiles"),
    ],
)
def test_a_name_that_is_no_setting_is_told_with_those_that_are(tmp_path: Path, text: str, said: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_profile(_write(tmp_path, text), "a")
    assert caught.value.message.endswith(said)
    assert hint in caught.value.hint


def test_a_mistake_beside_a_secret_does_not_show_the_secret(tmp_path: Path) -> None:
    text = "[profiles.a]\nsecret_key = ['hunter2']\nredis_url = {url = 'redis://:hunter2@h'}"
    with pytest.raises(ConfigError) as caught:
        read_profile(_write(tmp_path, text), "a")
    assert "hunter2" not in caught.value.message
    assert caught.value.__cause__ is None


def test_a_file_that_is_not_text_is_refused_without_quoting_it(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"profile = '\xff'")
    with pytest.raises(ConfigError, match="not UTF-8") as caught:
        read_profile(str(path), None)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("text", ["x = " + "[" * 5000, "x = " + "1" * 5000])
def test_a_nesting_or_a_number_without_bounds_is_refused_like_any_mistake(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        read_profile(_write(tmp_path, text), None)


def test_a_file_saved_by_a_windows_editor_is_read(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"\xef\xbb\xbfprofile = 'a'\r\n[profiles.a]\r\nrate_limit = 50\r\n")
    assert read_profile(str(path), None)[1] == {"ALPACLI_RATE_LIMIT": "50"}


@pytest.mark.parametrize(
    "line", ["rate_limit = 0", "rate_limit = -5", "max_wait = inf", "max_wait = nan", "rate_reserve = 500"]
)
def test_numbers_of_a_profile_have_the_same_ranges_as_the_environments(tmp_path: Path, line: str) -> None:
    _write(tmp_path, f"profile = 'a'\n[profiles.a]\n{line}")
    with pytest.raises(ConfigError):
        load(env={"ALPACLI_CONFIG_DIR": str(tmp_path)})


def test_live_keys_in_a_profile_are_refused_by_the_profiles_name(tmp_path: Path) -> None:
    _write(tmp_path, "[profiles.real]\napi_key = 'AKREAL'\nsecret_key = 'x'")
    with pytest.raises(ConfigError, match=r"profile real\) looks like a live key"):
        load(Flags(profile="real"), env={"ALPACLI_CONFIG_DIR": str(tmp_path)})


def test_an_address_chosen_by_profile_and_keys_of_the_environment_can_meet_on_this_machine(tmp_path: Path) -> None:
    _write(tmp_path, FILE)
    env = {"ALPACLI_CONFIG_DIR": str(tmp_path), "ALPACA_API_KEY": "PK1", "ALPACA_SECRET_KEY": "x"}
    settings = load(Flags(profile="local"), env=env)
    assert (settings.base_url, settings.require_keys().origin) == ("http://127.0.0.1:8000", "environment")


def test_a_mistake_in_another_profile_stops_nobody(tmp_path: Path) -> None:
    text = "profile = 'good'\n[profiles.good]\napi_key = 'PKGOOD'\nsecret_key = 's'\n[profiles.bad]\napi_kye = 1\n"
    name, values, _ = read_profile(_write(tmp_path, text), None)
    assert (name, values["ALPACA_API_KEY"]) == ("good", "PKGOOD")
    with pytest.raises(ConfigError, match="api_kye is no setting"):
        read_profile(_write(tmp_path, text), "bad")
    with pytest.raises(ConfigError, match="api_kye is no setting"):
        read_all(str(tmp_path))
