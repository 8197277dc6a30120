"""Settings: who wins, what is an address, and what can never be printed."""

import copy
import json
import logging
import os
import pickle
import re
import stat
import subprocess
import sys
import traceback
import urllib.parse
from collections.abc import Mapping
from pathlib import Path

import platformdirs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.support.imports import A_NAMED_TUPLE, loaded_by

from alpacli.errors import ConfigError, UsageError
from alpacli.settings import PAPER_URLS, Flags, KeyPair, Secret, Settings, UrlKind, check_url, load

PAIR = {"ALPACA_API_KEY": "PKENVIRONMENT", "ALPACA_SECRET_KEY": "secret-environment"}


@pytest.fixture
def place(tmp_path: Path) -> "Place":
    return Place(tmp_path)


class Place:
    """A working directory and a configuration directory of their own."""

    def __init__(self, root: Path) -> None:
        self.cwd = root / "cwd"
        self.config = root / "config"
        self.home = root / "home"
        for folder in (self.cwd, self.config, self.home):
            folder.mkdir()

    def dotenv(self, text: str) -> None:
        (self.cwd / ".env").write_text(text, encoding="utf-8")

    def profiles(self, text: str) -> None:
        (self.config / "config.toml").write_text(text, encoding="utf-8")

    def load(self, *flags: Flags, **env: str) -> Settings:
        base = {"HOME": str(self.home), "ALPACLI_CONFIG_DIR": str(self.config)}
        return load(*flags, env=base | env, cwd=str(self.cwd))


# ------------------------------------------------------------------------------------------------ who wins


@pytest.mark.parametrize(
    ("urls", "apart"),
    [
        ({}, set()),
        ({"ALPACA_BASE_URL": "https://paper-api.alpaca.markets"}, set()),
        ({"ALPACA_BASE_URL": "http://localhost:1"}, {"ALPACA_DATA_URL", "ALPACA_STREAM_URL"}),
        ({"ALPACA_BASE_URL": "http://localhost:1", "ALPACA_DATA_URL": "http://localhost:1"}, {"ALPACA_STREAM_URL"}),
        ({"ALPACA_BASE_URL": "http://localhost:1", "ALPACA_DATA_URL": PAPER_URLS["data"]}, {"ALPACA_STREAM_URL"}),
        ({"ALPACA_DATA_URL": "http://localhost:1"}, set()),
    ],
)
def test_market_data_that_nobody_sent_after_a_broker_of_this_machine_is_known(
    place: Place, urls: dict[str, str], apart: set[str]
) -> None:
    settings = place.load(**PAIR, **urls)
    assert settings.apart == apart
    assert (settings.warning_apart("ALPACA_STREAM_URL") is not None) == ("ALPACA_STREAM_URL" in apart)
    assert place.load(Flags(sim=True), **PAIR, **urls).apart == frozenset()
    place.profiles("profile = 'desk'\n[profiles.desk]\ngateway = 'http://localhost:1'\ntoken = 't'\n")
    assert place.load().apart == frozenset()


def test_without_anything_the_documented_defaults_hold_and_there_is_no_key(place: Place) -> None:
    settings = place.load()
    assert (settings.base_url, settings.data_url, settings.stream_url) == (
        "https://paper-api.alpaca.markets",
        "https://data.alpaca.markets",
        "wss://stream.data.alpaca.markets",
    )
    assert (settings.rate_limit, settings.rate_reserve, settings.rate_window_s, settings.max_wait_s) == (
        200,
        20,
        60,
        10,
    )
    assert (settings.breaker_open_s, settings.hub_linger_s) == (30, 30)
    assert (settings.connect_timeout_s, settings.read_timeout_s) == (5, 10)
    assert dict(settings.cache_ttl_s) == {"account": 5, "positions": 3, "orders": 0}
    assert settings.redis_url is None
    assert settings.key_pair is None
    with pytest.raises(ConfigError) as caught:
        settings.require_keys()
    assert "--sim" in caught.value.hint


def test_flags_beat_environment_beats_dotenv_beats_profile_beats_defaults(place: Place) -> None:
    seen = [place.load().max_wait_s]
    place.profiles('profile = "a"\n[profiles.a]\nmax_wait = 1')
    seen.append(place.load().max_wait_s)
    place.dotenv("ALPACLI_MAX_WAIT=2")
    seen.append(place.load().max_wait_s)
    seen.append(place.load(ALPACLI_MAX_WAIT="3").max_wait_s)
    seen.append(place.load(Flags(max_wait_s=4), ALPACLI_MAX_WAIT="3").max_wait_s)
    assert seen == [10, 1, 2, 3, 4]


def test_a_profile_named_by_flag_beats_the_environment_and_one_named_by_variable_does_not(place: Place) -> None:
    place.profiles('[profiles.a]\napi_key = "PKPROFILE"\nsecret_key = "secret-profile"\nrate_limit = 50')
    by_flag = place.load(Flags(profile="a"), ALPACLI_RATE_LIMIT="70", **PAIR)
    by_variable = place.load(ALPACLI_PROFILE="a", ALPACLI_RATE_LIMIT="70", **PAIR)
    assert (by_flag.require_keys().key_id, by_flag.rate_limit) == ("PKPROFILE", 50)
    assert (by_variable.require_keys().key_id, by_variable.rate_limit) == ("PKENVIRONMENT", 70)
    assert by_flag.require_keys().origin == "profile a"
    assert by_variable.profile == "a"


def test_an_empty_value_is_not_set_anywhere(place: Place) -> None:
    place.dotenv("ALPACLI_RATE_LIMIT=90\nALPACA_API_KEY=PKDOTENV\nALPACA_SECRET_KEY=secret-dotenv\n")
    settings = place.load(
        ALPACLI_RATE_LIMIT="", ALPACA_API_KEY="", ALPACA_SECRET_KEY="", ALPACA_BASE_URL="", REDIS_URL=""
    )
    assert settings.rate_limit == 90
    assert settings.require_keys().key_id == "PKDOTENV"
    assert settings.base_url == PAPER_URLS["trading"]
    assert settings.redis_url is None


def test_the_dotenv_file_of_the_working_directory_is_read_and_no_other(place: Place) -> None:
    place.dotenv("ALPACLI_RATE_LIMIT=90")
    inner = place.cwd / "inner"
    inner.mkdir()
    env = {"HOME": str(place.home)}
    assert load(env=env, cwd=str(inner)).rate_limit == 200
    assert load(env=env, cwd=None).rate_limit == 200


def test_a_dotenv_file_saved_by_a_windows_editor_is_read_whole(place: Place) -> None:
    (place.cwd / ".env").write_bytes(b"\xef\xbb\xbfALPACLI_RATE_LIMIT=90\r\nALPACLI_MAX_WAIT=3\r\n")
    settings = place.load()
    assert (settings.rate_limit, settings.max_wait_s) == (90, 3)


def test_a_dotenv_value_is_taken_literally_and_never_interpolated(place: Place) -> None:
    place.dotenv("REDIS_URL=redis://:${HOME}@localhost")
    assert place.load().redis_url == Secret("redis://:${HOME}@localhost")


def test_a_dotenv_directory_is_no_dotenv_file(place: Place) -> None:
    (place.cwd / ".env").mkdir()
    assert place.load().rate_limit == 200


def test_a_dotenv_file_that_is_not_text_is_refused_without_quoting_it(place: Place) -> None:
    (place.cwd / ".env").write_bytes(b"ALPACA_SECRET_KEY=topsecret\xff\n")
    with pytest.raises(ConfigError, match="not UTF-8") as caught:
        place.load()
    assert "topsecret" not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__cause__ is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_dotenv_file_is_an_error_with_a_hint(place: Place) -> None:
    place.dotenv("ALPACLI_RATE_LIMIT=90")
    (place.cwd / ".env").chmod(0)
    try:
        with pytest.raises(ConfigError, match=r"cannot read .*\.env"):
            place.load()
    finally:
        (place.cwd / ".env").chmod(stat.S_IRUSR | stat.S_IWUSR)


# --------------------------------------------------------------------------------------------------- keys


def test_both_families_of_names_are_accepted(place: Place) -> None:
    older = {"APCA_API_KEY_ID": "PKOLDER", "APCA_API_SECRET_KEY": "secret-older"}
    assert place.load(**older).require_keys() == KeyPair("PKOLDER", Secret("secret-older"), "environment")
    assert place.load(**older, **PAIR).require_keys().key_id == "PKENVIRONMENT"


@pytest.mark.parametrize(
    ("env", "dotenv"),
    [
        ({"ALPACA_API_KEY": "PKHALF"}, {"ALPACA_SECRET_KEY": "other-half"}),
        ({"ALPACA_SECRET_KEY": "half"}, {"ALPACA_API_KEY": "PKOTHERHALF"}),
        ({"ALPACA_API_KEY": "PKHALF", "APCA_API_SECRET_KEY": "other-half"}, {}),
        ({"APCA_API_KEY_ID": "PKHALF", "ALPACA_SECRET_KEY": "other-half"}, {}),
        ({"ALPACA_API_KEY": "PKHALF", "ALPACA_SECRET_KEY": ""}, {}),
        ({"ALPACA_API_KEY": "PKHALF", "ALPACA_SECRET_KEY": "  "}, {}),
    ],
)
def test_halves_of_a_pair_are_never_put_together(place: Place, env: dict[str, str], dotenv: dict[str, str]) -> None:
    place.dotenv("\n".join(f"{name}={value}" for name, value in dotenv.items()))
    with pytest.raises(ConfigError, match="is missing beside") as caught:
        place.load(**env)
    assert "half" not in str(caught.value).replace("ALPACA", "").lower()


def test_a_whole_pair_further_down_wins_over_half_a_pair_above_it(place: Place) -> None:
    place.dotenv("ALPACA_API_KEY=PKDOTENV\nALPACA_SECRET_KEY=secret-dotenv\n")
    pair = place.load(ALPACA_API_KEY="PKHALF").require_keys()
    assert (pair.key_id, pair.secret.reveal(), pair.origin) == ("PKDOTENV", "secret-dotenv", ".env")


@pytest.mark.parametrize("key_id", ["AKLIVE1234567890", "akLIVE1234567890", " AKLIVE1234567890"])
@pytest.mark.parametrize("base_url", ["", "https://paper-api.alpaca.markets", "http://127.0.0.1:9"])
def test_live_keys_are_refused_whatever_the_address(place: Place, key_id: str, base_url: str) -> None:
    with pytest.raises(ConfigError, match="live key") as caught:
        place.load(ALPACA_API_KEY=key_id, ALPACA_SECRET_KEY="live-secret", ALPACA_BASE_URL=base_url)
    assert "LIVE1234567890" not in str(caught.value)
    assert "live-secret" not in str(caught.value)


@pytest.mark.parametrize("secret", ["two\nlines", "zero\0byte", "sécret", "tab\tinside"])
def test_a_key_that_cannot_be_a_header_is_refused_without_showing_it(place: Place, secret: str) -> None:
    with pytest.raises(ConfigError, match="no key has") as caught:
        place.load(ALPACA_API_KEY="PK1", ALPACA_SECRET_KEY=secret)
    assert secret not in str(caught.value)


def test_blanks_around_a_pasted_key_are_dropped(place: Place) -> None:
    assert place.load(ALPACA_API_KEY=" PK1\n", ALPACA_SECRET_KEY="\tabc ").require_keys()[:2] == ("PK1", Secret("abc"))


# ---------------------------------------------------------------------------------------------- simulator


def test_sim_needs_no_keys_and_ignores_addresses_and_live_keys_of_the_environment(place: Place) -> None:
    settings = place.load(
        Flags(sim=True), ALPACA_BASE_URL="https://api.alpaca.markets", ALPACA_API_KEY="AKLIVE", ALPACA_SECRET_KEY="x"
    )
    assert settings.require_keys().key_id == "SIM"
    assert {settings.base_url, settings.data_url, settings.stream_url} == {"sim://local"}


def test_missing_keys_never_choose_the_simulator(place: Place) -> None:
    assert place.load().sim is False


def test_accounts_never_share_a_scope(place: Place) -> None:
    other = {"ALPACA_API_KEY": "PKOTHER", "ALPACA_SECRET_KEY": "x"}
    scopes = [
        place.load(**PAIR).scope,
        place.load(**other).scope,
        place.load(ALPACA_BASE_URL="http://127.0.0.1:8000", **PAIR).scope,
        place.load(ALPACA_BASE_URL="http://127.0.0.1:8001", **PAIR).scope,
        place.load(Flags(sim=True), ALPACLI_STATE_DIR="/one").scope,
        place.load(Flags(sim=True), ALPACLI_STATE_DIR="/two").scope,
    ]
    assert len(set(scopes)) == len(scopes)
    assert all(re.fullmatch(r"alpaca:\{[0-9a-f]{12}\}", scope) for scope in scopes)
    assert place.load(**PAIR).scope == scopes[0]


def test_the_same_account_has_one_scope_wherever_its_state_and_store_are(place: Place) -> None:
    one = place.load(ALPACLI_STATE_DIR="/one", REDIS_URL="redis://a", **PAIR)
    two = place.load(ALPACLI_STATE_DIR="/two", ALPACA_BASE_URL="https://paper-api.alpaca.markets:443", **PAIR)
    assert one.scope == two.scope


# ------------------------------------------------------------------------------------------------ numbers

NUMBERS = (
    "ALPACLI_RATE_LIMIT",
    "ALPACLI_RATE_RESERVE",
    "ALPACLI_RATE_WINDOW",
    "ALPACLI_MAX_WAIT",
    "ALPACLI_BREAKER_OPEN",
    "ALPACLI_HUB_LINGER",
)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "-1", "1e9", "ten", "1,5", "0x10", " ", "9" * 400, "9" * 5000])
def test_a_number_out_of_range_is_refused_and_the_variable_named(place: Place, name: str, text: str) -> None:
    with pytest.raises(ConfigError, match=name):
        place.load(**{name: text})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ALPACLI_RATE_LIMIT", "0"),
        ("ALPACLI_RATE_LIMIT", "1.5"),
        ("ALPACLI_RATE_RESERVE", "0.5"),
        ("ALPACLI_RATE_WINDOW", "0"),
    ],
)
def test_limits_that_would_stop_everything_or_count_parts_are_refused(place: Place, name: str, text: str) -> None:
    with pytest.raises(ConfigError, match=name):
        place.load(**{name: text})


@pytest.mark.parametrize(("limit", "reserve"), [("200", 20), ("1000", 20), ("40", 20), ("20", 10), ("10", 5), ("1", 0)])
def test_the_default_reserve_is_20_and_leaves_half_of_a_small_limit_to_reads(
    place: Place, limit: str, reserve: int
) -> None:
    assert place.load(ALPACLI_RATE_LIMIT=limit).rate_reserve == reserve


def test_a_reserve_as_large_as_the_limit_is_refused(place: Place) -> None:
    with pytest.raises(ConfigError, match="ALPACLI_RATE_RESERVE"):
        place.load(ALPACLI_RATE_LIMIT="20", ALPACLI_RATE_RESERVE="20")


@pytest.mark.parametrize(
    "flags",
    [
        Flags(max_wait_s=-1),
        Flags(max_wait_s=float("nan")),
        Flags(max_wait_s=float("inf")),
        Flags(read_timeout_s=0),
        Flags(read_timeout_s=-5),
        Flags(read_timeout_s=float("nan")),
    ],
)
def test_a_flag_out_of_range_is_wrong_usage(place: Place, flags: Flags) -> None:
    with pytest.raises(UsageError):
        place.load(flags)


def test_a_short_timeout_also_shortens_connecting_and_a_long_one_does_not_lengthen_it(place: Place) -> None:
    short, long = place.load(Flags(read_timeout_s=2)), place.load(Flags(read_timeout_s=60))
    assert (short.connect_timeout_s, short.read_timeout_s) == (2, 2)
    assert (long.connect_timeout_s, long.read_timeout_s) == (5, 60)


# -------------------------------------------------------------------------------------------- directories


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has its rule spelled out")
@pytest.mark.parametrize(
    "env",
    [
        {"HOME": "/home/ann"},
        {"HOME": "/home/ann", "XDG_CONFIG_HOME": "/x/config", "XDG_STATE_HOME": "/x/state"},
        {"HOME": "/home/ann", "XDG_CONFIG_HOME": "", "XDG_STATE_HOME": ""},
        {"HOME": "/home/ann", "XDG_CONFIG_HOME": "relative", "XDG_STATE_HOME": "./relative"},
        {"HOME": ""},
        {"HOME": "relative"},
        {},
    ],
)
def test_user_directories_are_those_of_platformdirs(env: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        if name in env:
            monkeypatch.setenv(name, env[name])
        else:
            monkeypatch.delenv(name, raising=False)
    settings = load(env=env)
    assert settings.config_dir == platformdirs.user_config_dir("alpacli", appauthor=False)
    assert settings.state_dir == platformdirs.user_state_dir("alpacli", appauthor=False)


def test_directories_are_absolute_and_relative_ones_begin_at_the_working_directory(place: Place) -> None:
    settings = place.load(ALPACLI_STATE_DIR="state/../here", ALPACLI_CONFIG_DIR="conf")
    assert settings.state_dir == str(place.cwd / "here")
    assert settings.config_dir == str(place.cwd / "conf")


def test_a_tilde_that_no_shell_expanded_means_the_home_directory(place: Place) -> None:
    place.dotenv("ALPACLI_STATE_DIR=~/alpaca\n")
    assert place.load().state_dir == str(place.home / "alpaca")


def test_a_directory_with_a_null_byte_is_refused(place: Place) -> None:
    with pytest.raises(ConfigError, match="null byte"):
        place.load(ALPACLI_STATE_DIR="/x\0y")


def test_without_a_home_and_an_entry_in_the_user_database_nothing_shared_is_used() -> None:
    code = (
        "import pwd\n"
        "def none(uid): raise KeyError(uid)\n"
        "pwd.getpwuid = none\n"
        "from alpacli.settings import load\n"
        "s = load(env={})\n"
        "print(s.config_dir, s.state_dir)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert all(path.startswith("/nonexistent/") for path in out.split())


# ------------------------------------------------------------------------------------------- paper only

PAPER = "paper-api.alpaca.markets"

REFUSED_TRADING = [
    # other hosts, the live one first
    "https://api.alpaca.markets",
    "https://api.alpaca.markets:443",
    "https://broker-api.alpaca.markets",
    "https://data.alpaca.markets",
    "https://example.com",
    "https://10.0.0.5",
    "http://192.168.1.10:8000",
    "https://0.0.0.0",
    "http://0.0.0.0:8000",
    "http://[::]:8000",
    # sub-domain and suffix tricks
    f"https://{PAPER}.evil.example",
    f"https://evil.{PAPER}",
    f"https://evil-{PAPER}",
    "https://paper-api.alpaca.markets.com",
    "https://paper-api-alpaca.markets",
    "https://paper-api.alpaca.market",
    "https://paperapi.alpaca.markets",
    "https://paper_api.alpaca.markets",
    "https://localhost.evil.example",
    "https://127.0.0.1.evil.example",
    "https://127.0.0.1.nip.io",
    "https://evil.localhost",
    # user info
    f"https://{PAPER}@evil.example",
    f"https://user:password@{PAPER}",
    f"https://@{PAPER}",
    f"https://evil.example#@{PAPER}",
    f"https://evil.example?@{PAPER}",
    f"https://evil.example/@{PAPER}",
    "http://user@127.0.0.1:8000",
    "http://127.0.0.1:8000@evil.example",
    # ports
    f"https://{PAPER}:80",
    f"https://{PAPER}:8443",
    f"https://{PAPER}:",
    f"https://{PAPER}:0443",
    f"https://{PAPER}:443:443",
    "http://127.0.0.1:0",
    "http://127.0.0.1:65536",
    "http://127.0.0.1:080",
    "http://127.0.0.1:+80",
    "http://127.0.0.1:-80",
    "http://127.0.0.1: 80",
    "http://127.0.0.1:8_0",
    "http://127.0.0.1:٨٠",
    "http://127.0.0.1:²",
    "http://127.0.0.1:80:80",
    "http://127.0.0.1:" + "9" * 5000,
    # back-slashes, white space, control characters, encodings
    f"https://evil.example\\@{PAPER}",
    f"https:\\\\{PAPER}",
    f"https://{PAPER}\\.evil.example",
    f"https://{PAPER}\\",
    f" https://{PAPER}",
    f"https://{PAPER} ",
    f"https://{PAPER}\n",
    f"https://{PAPER}\r\nHost: evil.example",
    f"https://\t{PAPER}",
    "https://paper-api.alpaca\t.markets",
    "https://paper-api.alpaca\n.markets",
    f"https://{PAPER}\0.evil.example",
    f"https://{PAPER}%00.evil.example",
    "https://paper-api%2ealpaca.markets",
    "https://%70aper-api.alpaca.markets",
    f"https://{PAPER}%2f",
    f"https://{PAPER}%40evil.example",
    f"\ufeffhttps://{PAPER}",
    f"https://{PAPER}\u200b",
    f"https://\u202e{PAPER}",
    # unicode look-alikes and full-width forms
    "https://pаper-api.alpaca.markets",
    "https://paper-api.alpаca.markets",
    "https://paper-api.alpaca.mаrkets",
    "https://paper\u2010api.alpaca.markets",
    "https://paper-api。alpaca。markets",
    "https://paper-api.alpaca．markets",
    "https://ｐaper-api.alpaca.markets",
    "https：//paper-api.alpaca.markets",
    "https:／／paper-api.alpaca.markets",
    "https://paper-api.alpaca.marKets",
    "https://xn--pper-api-p5g.alpaca.markets",
    "http://①27.0.0.1:8000",
    "http://１27.0.0.1:8000",
    "http://locaⅼhost:8000",
    # loopback look-alikes
    "http://0x7f000001:8000",
    "http://0x7f.0.0.1:8000",
    "http://0177.0.0.1:8000",
    "http://2130706433:8000",
    "http://127.1:8000",
    "http://127.0.1:8000",
    "http://127.0.0.01:8000",
    "http://127.0.0.256:8000",
    "http://127.0.0.1.:8000",
    "http://127..0.1:8000",
    "http://127.0.0:8000",
    "http://128.0.0.1:8000",
    "http://[::ffff:127.0.0.1]:8000",
    "http://[::ffff:7f00:1]:8000",
    "http://[::1%25lo]:8000",
    "http://[::1%lo]:8000",
    "http://[0:0:0:0:0:0:0:1]:8000",
    "http://[::2]:8000",
    "http://[::1]]:8000",
    "http://[[::1]:8000",
    "http://[::1]8000",
    "http://::1",
    "http://::1:8000",
    "http://localhost.:8000",
    "http://LOCALHOST:8000",
    "http://localhost.localdomain:8000",
    "http://ip6-localhost:8000",
    # scheme, case, dots, path, query, fragment, emptiness
    f"http://{PAPER}",
    f"http://{PAPER}:443",
    f"HTTPS://{PAPER}",
    "https://PAPER-API.ALPACA.MARKETS",
    "https://Paper-Api.alpaca.markets",
    f"https://{PAPER}.",
    f"https://{PAPER}..",
    f"https://{PAPER}/",
    f"https://{PAPER}//",
    f"https://{PAPER}/v2",
    f"https://{PAPER}/v2/",
    f"https://{PAPER}/../",
    f"https://{PAPER};v2",
    f"https://{PAPER}?",
    f"https://{PAPER}?x=1",
    f"https://{PAPER}#",
    f"https://{PAPER}#x",
    "http://127.0.0.1:8000/",
    "http://127.0.0.1:8000/v2",
    "http://127.0.0.1:8000?x",
    f"https:///{PAPER}",
    f"https:/{PAPER}",
    f"https:{PAPER}",
    f"//{PAPER}",
    PAPER,
    "127.0.0.1:8000",
    "localhost",
    "https://",
    "https://:443",
    "http://:8000",
    f"ws://{PAPER}",
    f"wss://{PAPER}",
    "ws://127.0.0.1:8000",
    f"ftp://{PAPER}",
    "file:///etc/passwd",
    "file://localhost/etc/passwd",
    "javascript:alert(1)",
    "data:text/plain,x",
    "sim://local",
    "unix:///tmp/alpaca.sock",
    f"https://{PAPER},https://evil.example",
    f"https://{PAPER} https://evil.example",
]

REFUSED_DATA = [
    "https://paper-api.alpaca.markets",
    "https://api.alpaca.markets",
    "https://data.sandbox.alpaca.markets",
    "https://stream.data.alpaca.markets",
    "http://data.alpaca.markets",
    "https://data.alpaca.markets/",
    "https://data.alpaca.markets/v2",
    "https://data.alpaca.markets:8443",
    "https://data.alpaca.markets.evil.example",
    "https://evil.example/data.alpaca.markets",
    "https://data.alpaca.markets@evil.example",
    "https://DATA.alpaca.markets",
    "https://data.alpaca.markets.",
    "https://dаta.alpaca.markets",
    "wss://data.alpaca.markets",
    "ws://localhost:8000",
    "http://169.254.169.254",
]

REFUSED_STREAM = [
    "https://stream.data.alpaca.markets",
    "ws://stream.data.alpaca.markets",
    "wss://stream.data.alpaca.markets/",
    "wss://stream.data.alpaca.markets/v2/iex",
    "wss://stream.data.alpaca.markets:80",
    "wss://stream.data.sandbox.alpaca.markets",
    "wss://data.alpaca.markets",
    "wss://api.alpaca.markets/stream",
    "wss://paper-api.alpaca.markets",
    "wss://stream.data.alpaca.markets.evil.example",
    "wss://user@stream.data.alpaca.markets",
    "wss://stream.data.alpaca.markets?feed=sip",
    "WSS://stream.data.alpaca.markets",
    "wss://streаm.data.alpaca.markets",
    "http://127.0.0.1:8000",
    "https://localhost:8000",
    "ws://127.1:8000",
    "ws://0x7f000001:8000",
    "wss://[::ffff:127.0.0.1]:8000",
]

ACCEPTED: list[tuple[UrlKind, str, str]] = [
    ("trading", "https://paper-api.alpaca.markets", "https://paper-api.alpaca.markets"),
    ("trading", "https://paper-api.alpaca.markets:443", "https://paper-api.alpaca.markets"),
    ("trading", "http://127.0.0.1:8000", "http://127.0.0.1:8000"),
    ("trading", "http://127.0.0.1", "http://127.0.0.1"),
    ("trading", "https://127.0.0.1:8443", "https://127.0.0.1:8443"),
    ("trading", "http://127.255.0.254:1", "http://127.255.0.254:1"),
    ("trading", "http://localhost:65535", "http://localhost:65535"),
    ("trading", "https://localhost", "https://localhost"),
    ("trading", "http://[::1]:8000", "http://[::1]:8000"),
    ("trading", "http://[::1]", "http://[::1]"),
    ("data", "https://data.alpaca.markets", "https://data.alpaca.markets"),
    ("data", "https://data.alpaca.markets:443", "https://data.alpaca.markets"),
    ("data", "http://localhost:8000", "http://localhost:8000"),
    ("stream", "wss://stream.data.alpaca.markets", "wss://stream.data.alpaca.markets"),
    ("stream", "wss://stream.data.alpaca.markets:443", "wss://stream.data.alpaca.markets"),
    ("stream", "ws://127.0.0.1:8000", "ws://127.0.0.1:8000"),
    ("stream", "wss://[::1]:8000", "wss://[::1]:8000"),
]


def test_the_list_of_look_alikes_has_no_doubles_and_at_least_sixty_for_trading() -> None:
    assert len(set(REFUSED_TRADING)) == len(REFUSED_TRADING)
    assert len(REFUSED_TRADING) >= 60


@pytest.mark.parametrize(
    ("variable", "url"),
    [("ALPACA_BASE_URL", url) for url in REFUSED_TRADING]
    + [("ALPACA_DATA_URL", url) for url in REFUSED_DATA]
    + [("ALPACA_STREAM_URL", url) for url in REFUSED_STREAM],
    ids=lambda value: ascii(value)[1:41],
)
def test_a_look_alike_address_is_refused_before_there_are_settings(variable: str, url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(env={variable: url, "HOME": "/home/ann", **PAIR})
    assert caught.value.exit_code == 3
    assert variable in caught.value.message
    assert caught.value.message.isascii()
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 250
    assert caught.value.hint


@pytest.mark.parametrize(("kind", "url", "used"), ACCEPTED)
def test_the_paper_exchange_and_this_machine_are_accepted(kind: UrlKind, url: str, used: str) -> None:
    assert check_url(kind, url, "x") == used


@pytest.mark.parametrize("where", ["env", "dotenv", "profile"])
def test_the_rule_holds_wherever_the_address_comes_from(place: Place, where: str) -> None:
    url = "https://api.alpaca.markets"
    env = {}
    if where == "env":
        env = {"ALPACA_BASE_URL": url}
    elif where == "dotenv":
        place.dotenv(f"ALPACA_BASE_URL={url}")
    else:
        place.profiles(f'profile = "a"\n[profiles.a]\nbase_url = "{url}"')
    with pytest.raises(ConfigError, match="ALPACA_BASE_URL"):
        place.load(**env, **PAIR)


@pytest.mark.parametrize(
    ("url", "corrected"),
    [
        ("https://paper-api.alpaca.markets/", "https://paper-api.alpaca.markets"),
        ("https://paper-api.alpaca.markets/v2", "https://paper-api.alpaca.markets"),
        ("https://paper-api.alpaca.markets/v2/", "https://paper-api.alpaca.markets"),
        ("http://localhost:8000/v2", "http://localhost:8000"),
        ("https://api.alpaca.markets/v2", "https://paper-api.alpaca.markets"),
        ("https://api.alpaca.markets", "https://paper-api.alpaca.markets"),
    ],
)
def test_a_refusal_names_the_address_that_was_probably_meant(url: str, corrected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_url("trading", url, "x")
    assert caught.value.hint.endswith(f"use {corrected}")


@pytest.mark.parametrize(
    "url",
    [
        "https://ann:hunter2@paper-api.alpaca.markets",
        "https://hunter2@evil.example/",
        "https://paper-api.alpaca.markets/?secret=hunter2",
        "https://evil.example/#hunter2",
        "https://evil.example?a@b=hunter2",
        "hunter2",
        "ann:hunter2@evil.example",
    ],
)
def test_a_refusal_never_repeats_what_may_be_a_secret(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_url("trading", url, "x")
    assert "hunter2" not in caught.value.message + caught.value.hint


_PIECES = st.sampled_from(
    [
        *"aA.:/@\\#?%[]0127 \t\n\0٣。-",
        "https://",
        "http://",
        "ws://",
        "wss://",
        "localhost",
        "127.0.0.1",
        "[::1]",
        ":443",
        ":8000",
        "paper-api.alpaca.markets",
        "data.alpaca.markets",
        "stream.data.alpaca.markets",
        "evil.example",
        "/v2",
        "255",
        "0x7f",
    ]
)
_SCHEMES: Mapping[UrlKind, tuple[str, str]] = {
    "trading": ("http", "https"),
    "data": ("http", "https"),
    "stream": ("ws", "wss"),
}


@given(
    kind=st.sampled_from(["trading", "data", "stream"]),
    url=st.lists(_PIECES, max_size=7).map("".join) | st.text(max_size=40).map("http://127.0.0.1".__add__),
)
@example(kind="trading", url="https://paper-api.alpaca.markets")
@example(kind="stream", url="ws://[::1]:8000")
def test_whatever_is_accepted_is_in_the_small_grammar_and_other_parsers_see_the_same_host(
    kind: UrlKind, url: str
) -> None:
    try:
        used = check_url(kind, url, "x")
    except ConfigError:
        return
    plain, secure = _SCHEMES[kind]
    paper_host = PAPER_URLS[kind].partition("://")[2]
    loopback = r"(localhost|\[::1\]|127(\.(0|[1-9][0-9]{0,2})){3})(:[1-9][0-9]{0,4})?"
    assert re.fullmatch(rf"{secure}://{re.escape(paper_host)}|({plain}|{secure})://{loopback}", used, re.ASCII)
    parsed = urllib.parse.urlsplit(used)
    assert parsed.scheme in (plain, secure)
    assert parsed.hostname == paper_host or parsed.hostname in ("localhost", "::1") or parsed.hostname[:4] == "127."  # type: ignore[index]  # a host there is
    assert (parsed.username, parsed.password, parsed.path, parsed.query, parsed.fragment) == (None, None, "", "", "")
    assert parsed.port is None or 0 < parsed.port < 65536


# ------------------------------------------------------------------------------------------------ secrets


def _leaks(secret: Secret) -> list[str]:
    logger_lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            logger_lines.append(self.format(record))

    logger = logging.getLogger("tests.secret")
    logger.propagate = False
    handler = Keep()
    logger.addHandler(handler)
    try:
        logger.warning("the pair is %s %r", secret, secret)
    finally:
        logger.removeHandler(handler)
    try:
        raise ConfigError(f"bad {secret}")
    except ConfigError as error:
        trace = "".join(traceback.format_exception(error))
    return [
        str(secret),
        repr(secret),
        format(secret),
        f"{secret}",
        f"{secret!r:>40}",
        f"{secret:>40}",
        "%s" % secret,  # noqa: UP031 # this is one of the ways text is made
        "{}".format(secret),  # noqa: UP032 # likewise
        ascii(secret),
        str([secret]),
        str({"key": secret}),
        *logger_lines,
        trace,
    ]


def test_a_secret_shows_a_mask_in_every_kind_of_text() -> None:
    texts = _leaks(Secret("topsecret"))
    assert not [text for text in texts if "topsecret" in text]
    assert "***" in texts[0]


def test_a_secret_cannot_leave_its_process_or_become_json() -> None:
    secret = Secret("topsecret")
    for leave in (pickle.dumps, copy.copy, copy.deepcopy, json.dumps):
        with pytest.raises(TypeError) as caught:
            leave(secret)
        assert "topsecret" not in str(caught.value)
    assert not hasattr(secret, "__dict__")


def test_a_secret_is_equal_to_itself_only_and_is_false_when_empty() -> None:
    assert Secret("a") == Secret("a")
    assert hash(Secret("a")) == hash(Secret("a"))
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert not Secret("")
    assert Secret("a").reveal() == "a"


def test_settings_show_neither_keys_nor_passwords(place: Place) -> None:
    env = {
        "ALPACA_API_KEY": "PKVERYVISIBLE",
        "ALPACA_SECRET_KEY": "topsecret",
        "REDIS_URL": "redis://ann:hunter2@localhost:6379/0",
    }
    settings = place.load(**env)
    for text in (repr(settings), str(settings), f"{settings}", str(settings._asdict()), repr(settings.key_pair)):
        assert not [word for word in ("topsecret", "hunter2", "VERYVISIBLE") if word in text]
    assert settings.redis_url is not None
    assert settings.redis_url.reveal() == env["REDIS_URL"]
    with pytest.raises(TypeError):
        pickle.dumps(settings)


# --------------------------------------------------------------------------------------------------- cost


def test_loading_settings_imports_nothing_heavier_than_typing() -> None:
    loading = "import alpacli.settings\nalpacli.settings.load(env={'HOME': '/nowhere'}, cwd='/')"
    ours = {"_blake2", "alpacli", "alpacli.arguments", "alpacli.errors", "alpacli.settings"}
    assert loaded_by(loading, after=A_NAMED_TUPLE) == ours
