"""The profile file: what it may say, and how it says no."""

import tomllib
from pathlib import Path

import pytest

from alpacli.errors import ConfigError
from alpacli.profiles import edited, read_all, read_profile
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
    found = read_all(str(tmp_path))
    assert [*found.values] == ["good", "bad"]
    assert "api_kye is no setting" in found.mistakes["bad"].message
    assert "good" not in found.mistakes


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("[profiles.bad]\napi_key = 5\n", "profiles.bad.api_key"),
        ("[profiles.bad]\nmax_wait = {a = nan}\n", "profiles.bad.max_wait"),
        ("[profiles.bad]\napi_key = 'PK'\nsecret_key = 's'\nsecret_store = 'keyring'\n", "has secret_key"),
        ("[profiles.bad]\ngateway = 'http://localhost:1'\napi_key = 'PK'\n", "has a gateway and keys"),
        ("[profiles]\nbad = 5\n", "profiles.bad: "),
    ],
)
def test_a_profile_that_cannot_be_used_is_listed_with_the_reason_and_can_be_deleted(
    tmp_path: Path, wrong: str, said: str
) -> None:
    path = Path(_write(tmp_path, wrong + "[profiles.good]\nrate_limit = 50 # mine\n"))
    found = read_all(str(tmp_path))
    assert [*found.mistakes] == ["bad"]
    assert said in found.mistakes["bad"].message
    with edited(str(tmp_path)) as draft:
        draft.choose("good")
    assert path.read_text(encoding="utf-8").count("bad") == wrong.count("bad")
    with edited(str(tmp_path)) as draft:
        draft.delete("bad")
    assert read_all(str(tmp_path)) == ({"good": {"rate_limit": 50}}, "good", {})
    assert "rate_limit = 50 # mine" in path.read_text(encoding="utf-8")


def test_a_change_makes_no_profile_worse(tmp_path: Path) -> None:
    text = "[profiles.good]\nrate_limit = 50\n[profiles.bad]\nrate_limit = 'many'\n"
    path = Path(_write(tmp_path, text))
    with pytest.raises(ConfigError, match=r"profiles\.good\.rate_limit"), edited(str(tmp_path)) as draft:
        draft.table("good")["rate_limit"] = "few"
    assert path.read_text(encoding="utf-8") == text


def test_a_login_cares_for_no_mistake_in_the_keys_that_it_replaces(tmp_path: Path) -> None:
    path = _write(tmp_path, "[profiles.a]\napi_key = 5\nsecret_key = 's'\nsecret_store = 'keyring'\nmax_wait = 3\n")
    assert read_profile(path, "a", with_keys=False)[1] == {"ALPACLI_MAX_WAIT": "3.0"}
    with pytest.raises(ConfigError, match=r"profiles\.a: "):
        read_profile(_write(tmp_path, "[profiles]\na = 5\n"), "a", with_keys=False)


COMMENTED = """# mine
profile = "main" # the one for every day

# the main account
[profiles.main] # keep
api_key = "PK1" # here
secret_command = [
  "pass",
  # [profiles.main] is no table here
  "alpaca",
]

# about swing
[profiles.swing]
api_key = 5
# tail of swing

# a word in between

# lifetimes
[profiles.swing.cache]
account = 5 # five

# last words
[profiles."th.ird"]
rate_limit = 50
"""


def test_what_is_said_of_other_profiles_stays_when_one_is_deleted(tmp_path: Path) -> None:
    path = Path(_write(tmp_path, COMMENTED))
    with edited(str(tmp_path)) as draft:
        draft.delete("swing")
    before, after = COMMENTED.split("[profiles.swing]", maxsplit=1)[0], COMMENTED[COMMENTED.index("# last words") :]
    assert path.read_text(encoding="utf-8") == before + "\n" + after
    with edited(str(tmp_path)) as draft:
        draft.delete("th.ird")
    assert path.read_text(encoding="utf-8") == before + "\n# last words\n"
    with edited(str(tmp_path)) as draft:
        draft.delete("main")
    assert read_all(str(tmp_path)).values == {}
    kept = path.read_text(encoding="utf-8")
    assert [line for line in kept.splitlines() if line] == [
        "# mine",
        'profile = "main" # the one for every day',
        "# the main account",
        "# about swing",
        "# last words",
    ]


def test_a_comment_right_below_a_profile_goes_with_it_unless_it_stands_above_the_next(tmp_path: Path) -> None:
    tight = "[profiles.a]\nrate_limit = 1\n# about b\n[profiles.b]\nrate_limit = 2\n# of b\n"
    path = Path(_write(tmp_path, tight))
    with edited(str(tmp_path)) as draft:
        draft.delete("a")
    assert path.read_text(encoding="utf-8") == "# about b\n[profiles.b]\nrate_limit = 2\n# of b\n"
    with edited(str(tmp_path)) as draft:
        draft.delete("b")
    assert path.read_text(encoding="utf-8") == "# about b\n"


def test_a_profile_gets_another_name_where_it_stands(tmp_path: Path) -> None:
    path = Path(_write(tmp_path, COMMENTED))
    with edited(str(tmp_path)) as draft:
        draft.rename("swing", "a b")
        draft.rename("th.ird", "third")
    wanted = COMMENTED.replace("[profiles.swing", '[profiles."a b"').replace('"th.ird"', "third")
    assert path.read_text(encoding="utf-8") == wanted


def test_a_profile_that_is_written_in_dotted_keys_gets_another_name_where_it_stands(tmp_path: Path) -> None:
    dotted = """# mine
profile = "swing"
profiles.swing.rate_limit = 100  # profiles.swing
profiles.other.rate_limit = 50

"profiles" . 'swing' . cache.account = 5
"""
    path = Path(_write(tmp_path, dotted))
    with edited(str(tmp_path)) as draft:
        draft.rename("swing", "a b")
    assert path.read_text(encoding="utf-8") == dotted.replace("profiles.swing.", 'profiles."a b".').replace(
        "'swing'", '"a b"'
    )
    under = (
        "[profiles]  # all of them\nswing.rate_limit = 100 # swing\nother.cache.account = 1\nswing.cache.account = 2\n"
    )
    path.write_text(under, encoding="utf-8")
    with edited(str(tmp_path)) as draft:
        draft.rename("swing", "third")
    assert path.read_text(encoding="utf-8") == under.replace("swing.", "third.")


@pytest.mark.parametrize(
    "text",
    [
        "profiles = {a = {rate_limit = 1}, b = {max_wait = 'nan'}, c = {rate_limit = 3}}\n",
        "profiles.a.rate_limit = 1\nprofiles.b.max_wait = 'nan'\nprofiles.c.rate_limit = 3\n",
        "[profiles]\na = {rate_limit = 1}\n[profiles.b]\nmax_wait = nan\n[profiles.c]\nrate_limit = 3\n",
        "[profiles.a]\nrate_limit = 1\n[profiles.b]\n[profiles.c]\nrate_limit = 3\n[profiles.a.cache]\naccount = 1\n",
        "[profiles.a]\nstate_dir = '''\n[profiles.b]\n'''\n[profiles.b]\nrate_limit = 2\n[profiles.c]\nrate_limit = 3",
        "profile = 'x'\nprofiles.a.rate_limit = 1\nprofiles.a.cache.orders = 2\nprofiles.b.rate_limit = 2\nprofiles.c = {}\n",
        "[profiles]\na.rate_limit = 1 # a\n'b' . cache.orders = 2\na.cache.orders = 2\n\"c\".rate_limit = 3\n",
        "[profiles]\na.rate_limit = 1\n[profiles.b]\na.rate_limit = 4\n[profiles.c]\nrate_limit = 3\n",
        "profiles.a.state_dir = '''\nprofiles.a.rate_limit = 1\n'''\nprofiles.b = {}\nprofiles.c = {}\n",
        "profiles = {a.rate_limit = 1, b.rate_limit = 2, c.rate_limit = 3}\n",
        "[ profiles . 'a' ]\nrate_limit = 1\n[profiles.\"b\"]#b\n  [profiles.b.cache]\n[profiles.c]\nrate_limit = 3\n",
    ],
)
@pytest.mark.parametrize("name", ["a", "b", "c"])
@pytest.mark.parametrize("change", ["delete", "rename"])
def test_however_profiles_are_written_a_change_of_one_is_right_or_is_refused(
    tmp_path: Path, text: str, name: str, change: str
) -> None:
    path = Path(_write(tmp_path, text))
    wanted = tomllib.loads(text, parse_float=str)["profiles"]
    fields = wanted.pop(name)
    if change == "rename":
        wanted["new"] = fields
    if change == "rename" and text.startswith("profiles = {a."):  # which tomlkit cannot write
        with pytest.raises(ConfigError, match="without harm"), edited(str(tmp_path)) as draft:
            draft.rename(name, "new")
        assert path.read_text(encoding="utf-8") == text
        return
    with edited(str(tmp_path)) as draft:
        draft.delete(name) if change == "delete" else draft.rename(name, "new")
    assert tomllib.loads(path.read_text(encoding="utf-8"), parse_float=str)["profiles"] == wanted
