"""login, logout, profiles and config show as a user types them: on a server, with and without a keyring, in a terminal."""

import json
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.alpacli import Alpacli
from tests.support.sim_server import SimServer
from tests.support.terminal import Terminal

BACKEND = '''
import json, os
from keyring.backend import KeyringBackend
from keyring.errors import PasswordDeleteError

PATH = os.environ["KEYRING_FILE"]

class Keyring(KeyringBackend):
    """A keyring in a file: what it is given it gives back, in another process too."""

    priority = 1

    def _all(self):
        return json.load(open(PATH)) if os.path.exists(PATH) else {}

    def _save(self, kept):
        json.dump(kept, open(PATH, "w"))

    def get_password(self, service, username):
        return self._all().get(f"{service}/{username}")

    def set_password(self, service, username, password):
        self._save({**self._all(), f"{service}/{username}": password})

    def delete_password(self, service, username):
        kept = self._all()
        if kept.pop(f"{service}/{username}", None) is None:
            raise PasswordDeleteError("not there")
        self._save(kept)
'''


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimServer]:
    with SimServer(tmp_path_factory.mktemp("exchange")) as running:
        yield running


@pytest.fixture
def user(tmp_path: Path, server: SimServer) -> Alpacli:
    return Alpacli(
        tmp_path,
        {
            "ALPACA_BASE_URL": server.url,
            "ALPACA_DATA_URL": server.url,
            "ALPACA_STREAM_URL": server.ws,
            "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring",
        },
    )


@pytest.fixture
def keyring(user: Alpacli, tmp_path: Path) -> Path:
    """Give the user a keyring that works; return its file."""
    (tmp_path / "filed_keyring.py").write_text(BACKEND, encoding="utf-8")
    kept = tmp_path / "keyring.json"
    user.env |= {
        "PYTHONPATH": str(tmp_path),
        "PYTHON_KEYRING_BACKEND": "filed_keyring.Keyring",
        "KEYRING_FILE": str(kept),
    }
    return kept


def _config(user: Alpacli) -> Path:
    return Path(user.env["ALPACLI_CONFIG_DIR"]) / "config.toml"


def _login(user: Alpacli, key: str = "PKTEST1234", *more: str) -> dict[str, str]:
    done = user("login", "--key-id", key, "--secret-file", "-", "--json", *more, stdin=b"hunter2\n")
    assert done.code == 0, done.errors
    told: dict[str, str] = json.loads(done.out)
    return told


def test_login_checks_the_pair_and_keeps_it_in_a_file_of_ones_own(user: Alpacli) -> None:
    told = _login(user)
    assert told["profile"] == "main"
    assert told["stored_in"].startswith("profile file")
    assert stat.S_IMODE(_config(user).stat().st_mode) == 0o600
    account = user("account", "--jq", ".account_number")
    assert (account.code, account.text.strip()) == (0, told["account_number"])


def test_a_pair_is_kept_with_the_server_that_found_it_good(user: Alpacli, server: SimServer) -> None:
    _login(user)
    assert f'base_url = "{server.url}"' in _config(user).read_text(encoding="utf-8")
    for name in ("ALPACA_BASE_URL", "ALPACA_DATA_URL", "ALPACA_STREAM_URL"):
        del user.env[name]
    assert user("account", "--refresh", "--json").code == 0


def test_logout_asks_which_profile_is_meant_when_none_is_chosen(user: Alpacli) -> None:
    _login(user)
    _login(user, "PKOTHER123", "--profile", "other")
    path = _config(user)
    path.write_text(path.read_text(encoding="utf-8").replace('profile = "main"\n', ""), encoding="utf-8")
    before = path.read_bytes()
    told = user("logout")
    assert (told.code, path.read_bytes()) == (2, before)
    assert "main, other" in told.errors


def test_a_profile_that_the_environment_names_is_the_one_that_is_logged_in_and_out(user: Alpacli) -> None:
    _login(user)
    other = {"ALPACLI_PROFILE": "other"}
    done = user("login", "--key-id", "PKOTHER123", "--secret-file", "-", "--json", stdin=b"hunter3\n", env=other)
    assert json.loads(done.out)["profile"] == "other"
    assert user("profile", "show", "--jq", ".[0].origin", env=other).text.strip() == "profile other"
    assert json.loads(user("logout", "--json", env=other).out) == {"profile": "other", "removed": True}
    assert 'secret_key = "hunter2"' in _config(user).read_text(encoding="utf-8")


def test_a_login_replaces_no_pair_of_several_profiles_unless_it_is_told_which(user: Alpacli) -> None:
    _login(user)
    _login(user, "PKOTHER123", "--profile", "other")
    path = _config(user)
    path.write_text(path.read_text(encoding="utf-8").replace('profile = "main"\n', ""), encoding="utf-8")
    before = path.read_bytes()
    told = user("login", "--key-id", "PKTHIRD123", "--secret-file", "-", stdin=b"hunter3\n")
    assert (told.code, path.read_bytes()) == (2, before)
    assert "main, other" in told.errors


@pytest.mark.parametrize("check", [(), ("--no-check",)])
def test_a_login_keeps_the_server_that_the_environment_names(
    user: Alpacli, server: SimServer, check: tuple[str, ...]
) -> None:
    """Also in place of one that the profile had, and where nothing is asked of it."""
    path = _config(user)
    path.parent.mkdir(parents=True)
    path.write_text('profile = "main"\n[profiles.main]\nbase_url = "http://127.0.0.1:9"\n', encoding="utf-8")
    _login(user, "PKTEST1234", *check)
    assert f'base_url = "{server.url}"' in path.read_text(encoding="utf-8")
    for name in ("ALPACA_BASE_URL", "ALPACA_DATA_URL", "ALPACA_STREAM_URL"):
        del user.env[name]
    _login(user, "PKTEST1234", *check)
    assert f'base_url = "{server.url}"' in path.read_text(encoding="utf-8"), "it asks on where it asked"
    user.env["ALPACA_BASE_URL"] = "https://paper-api.alpaca.markets"
    _login(user, "PKTEST1234", "--no-check")
    assert "base_url" not in path.read_text(encoding="utf-8")


def test_login_prefers_a_keyring_that_works_and_logout_empties_it(user: Alpacli, keyring: Path) -> None:
    assert _login(user)["stored_in"] == "keyring"
    assert "hunter2" not in _config(user).read_text(encoding="utf-8")
    assert json.loads(keyring.read_text(encoding="utf-8")) == {"alpacli/PKTEST1234": "hunter2"}
    assert user("account", "--json").code == 0
    keyring.unlink()
    assert user("account", "--json", "--max-age", "3600").code == 0  # from the cache: the keyring is not asked
    lost = user("account", "--json", "--refresh")
    assert lost.code == 3
    assert "alpacli login" in lost.errors
    _login(user)
    assert json.loads(user("logout", "--json").out) == {"profile": "main", "removed": True}
    assert json.loads(keyring.read_text(encoding="utf-8")) == {}
    assert user("account").code == 3


def test_another_login_leaves_no_secret_of_the_old_key_behind(user: Alpacli, keyring: Path) -> None:
    _login(user)
    _login(user, "PKOTHER123")
    assert json.loads(keyring.read_text(encoding="utf-8")) == {"alpacli/PKOTHER123": "hunter2"}


@pytest.mark.parametrize(
    ("key", "env", "code", "said"),
    [
        ("AKLIVE1234", {}, 3, "live key"),
        ("PKTEST1234", {"ALPACA_BASE_URL": "http://127.0.0.1:9"}, 6, "--no-check"),
        ("PKTEST1234", {"ALPACA_BASE_URL": "https://api.alpaca.markets"}, 3, "paper only"),
    ],
)
def test_a_pair_that_cannot_be_good_is_not_stored(
    user: Alpacli, key: str, env: dict[str, str | None], code: int, said: str
) -> None:
    refused = user("login", "--key-id", key, "--secret-file", "-", stdin=b"hunter2", env=env)
    assert refused.code == code
    assert said in refused.errors
    assert "hunter2" not in refused.errors
    assert not _config(user).exists()


def test_a_login_mends_what_is_wrong_with_the_profiles_and_asks_nobody_elses_server(user: Alpacli) -> None:
    _config(user).parent.mkdir(parents=True)
    _config(user).write_text(
        "profile = 'half'\n[profiles.half]\napi_key = 'PKHALF1234'\n"
        "[profiles.far]\ngateway = 'http://127.0.0.1:9'\ntoken = 'x'\n",
        encoding="utf-8",
    )
    assert user("account").code == 3
    for profile in ("fresh", "far", "half"):
        assert _login(user, "PKTEST1234", "--profile", profile)["profile"] == profile
    assert user("account", "--jq", ".account_number").code == 0
    user("profile", "use", "far")
    user("profile", "delete", "half", "--yes")
    assert _login(user, "PKTEST1234")["profile"] == "far"


def test_the_offline_exchange_vouches_for_no_key_pair(user: Alpacli) -> None:
    _login(user)
    kept = _config(user).read_bytes()
    for arguments in (
        ["login", "--key-id", "PKOTHER123", "--secret-file", "-"],
        ["profile", "add", "main", "--gateway", "http://127.0.0.1:9", "--token-file", "-"],
    ):
        refused = user(*arguments, "--sim", stdin=b"hunter2")
        assert refused.code == 2
        assert "--sim" in refused.errors
    assert _config(user).read_bytes() == kept


def test_without_keys_the_way_to_those_that_are_kept_is_told(user: Alpacli) -> None:
    assert "alpacli login" in user("account").errors
    _login(user, "PKMAIN1234", "--profile", "swing")
    _login(user, "PKMAIN1234", "--profile", "main")
    user("profile", "delete", "swing", "--yes")
    for command in ("account", "doctor"):
        told = user(command)
        assert told.code == 3
        assert "alpacli profile use" in told.errors + told.text
    user("profile", "use", "main")
    user("logout")
    assert "alpacli login --profile main" in user("account").errors


def test_login_keeps_comments_and_other_profiles(user: Alpacli) -> None:
    _config(user).parent.mkdir(parents=True)
    _config(user).write_text(
        "# mine\nprofile = 'other'\n\n[profiles.other] # keep\nrate_limit = 50\n", encoding="utf-8"
    )
    _login(user, "PKTEST1234", "--profile", "swing")
    text = _config(user).read_text(encoding="utf-8")
    assert text.startswith("# mine\nprofile = 'other'\n\n[profiles.other] # keep\nrate_limit = 50\n")
    assert [row.split("\t")[:2] for row in user("profile", "list").text.splitlines()[1:]] == [
        ["other", "true"],
        ["swing", "false"],
    ]


@pytest.mark.parametrize(
    ("words", "error", "hint"),
    [
        ("login", "nobody to ask for the key pair", "give --key-id KEY and --secret-file FILE"),
        ("login --secret-file secret", "nobody to ask for the key ID", "give --key-id KEY too"),
        ("login --key-id PKTEST1234", "nobody to ask for the secret", "--secret-file FILE reads it; - is standard"),
        ("login --key-id= --secret-file secret", "no key ID was given", "paper keys begin with PK"),
        ("login --key-id PKTEST1234 --secret-file /nonexistent", "cannot read /nonexistent", "holds the secret alone"),
        ("login --key-id PKTEST1234 --secret-file=", "cannot read a file without a name", "holds the secret alone"),
        ("login --key-id PKTEST1234 --secret-file pair", "pair holds more than the secret", "alone, on one line"),
        ("login --key-id PKTEST1234 --secret-file -", "no secret was given", "Alpaca's dashboard"),
        ("profile add far --gateway https://far.example", "nobody to ask for the token", "--token-file FILE reads it"),
        ("profile add far --gateway https://far.example --token-file -", "no token was given", "`alpacli serve token`"),
        ("profile add far --gateway https://far.example --token-file pair", "more than the token", "on one line"),
    ],
)
def test_a_login_off_a_terminal_says_what_is_missing(user: Alpacli, words: str, error: str, hint: str) -> None:
    (user.cwd / "secret").write_text("hunter2\n", encoding="utf-8")
    (user.cwd / "pair").write_text("PKTEST1234\nhunter2\n", encoding="utf-8")
    refused = user(*words.split())
    assert (refused.code, refused.out) == (2, b"")
    said = refused.errors.splitlines()
    assert error in said[0]
    assert hint in said[1]
    assert not _config(user).exists()


def test_a_terminal_shows_the_question_and_not_the_secret(user: Alpacli) -> None:
    screen = Terminal(user, "login", columns=100, lines=14)
    try:
        assert screen.shows(lambda lines: any(line.startswith("Key ID:") for line in lines))
        screen.press("PKTEST1234\r")
        assert screen.shows(lambda lines: any(line.startswith("Secret key") for line in lines))
        screen.press("hunter2\r")
        assert screen.shows(lambda lines: any("Secret kept in" in line for line in lines))
        assert screen.ended()
        assert "PKTEST1234" in screen.text
        assert "hunter2" not in screen.text
    finally:
        screen.close()


def test_profiles_are_chosen_shown_renamed_and_deleted(user: Alpacli, keyring: Path) -> None:
    _login(user, "PKMAIN1234", "--profile", "main")
    _login(user, "PKSWING123", "--profile", "swing", "--store", "file")
    assert user("profile", "use", "swing").code == 0
    rows = json.loads(user("profile", "list", "--json").out)
    assert [(row["name"], row["chosen"], row["secret_in"]) for row in rows] == [
        ("main", False, "keyring"),
        ("swing", True, "profile file"),
    ]
    shown = user("profile", "show").text
    assert "hunter2" not in shown
    assert "PKSWING123" not in shown
    assert user("profile", "rename", "swing", "slow").code == 0
    chosen = user("config", "show", "--jq", '.[] | select(.name == "ALPACLI_PROFILE") | .value').text
    assert chosen.strip() == "slow"
    assert user("profile", "delete", "main").code == 2
    dry = user("profile", "delete", "main", "--dry-run", "--json")
    assert [row["name"] for row in json.loads(dry.out)] == ["slow"]
    assert len(json.loads(user("profile", "list", "--json").out)) == 2
    assert user("profile", "delete", "main", "--yes").code == 0
    assert json.loads(keyring.read_text(encoding="utf-8")) == {}
    assert [row["name"] for row in json.loads(user("profile", "list", "--json").out)] == ["slow"]
    for wrong in (("use", "gone"), ("show", "gone"), ("delete", "gone", "--yes"), ("rename", "gone", "x")):
        refused = user("profile", *wrong)
        assert refused.code == 3
        assert "known profiles" in refused.errors
    assert user("profile", "rename", "slow", "slow").code == 2


def test_a_secret_stays_in_the_keyring_until_no_profile_has_its_key(user: Alpacli, keyring: Path) -> None:
    def kept() -> list[str]:
        return sorted(json.loads(keyring.read_text(encoding="utf-8")))

    for profile in ("main", "swing", "third"):
        _login(user, "PKSAME1234", "--profile", profile)
    user("profile", "delete", "swing", "--yes")
    _login(user, "PKOTHER123", "--profile", "third")
    assert kept() == ["alpacli/PKOTHER123", "alpacli/PKSAME1234"]
    assert user("account", "--jq", ".account_number").code == 0
    user("logout", "--profile", "third")
    assert kept() == ["alpacli/PKSAME1234"]
    added = user(
        *("profile", "add", "main", "--gateway", "http://127.0.0.1:9", "--token-file", "-", "--no-check"), stdin=b"t"
    )
    assert added.code == 0, added.errors
    assert kept() == []


BROKEN = """profile = "main"

# for every day
[profiles.main]
api_key = "PKMAIN1234"
secret_key = "hunter2"

[profiles.bad]
api_key = 5 # a key is text
secret_key = ["hunter3"]

# behind a gateway
[profiles.far]
gateway = "http://127.0.0.1:9"
token = "hunter4"
"""


def _broken(user: Alpacli) -> Path:
    path = _config(user)
    path.parent.mkdir(parents=True)
    path.write_text(BROKEN, encoding="utf-8")
    return path


def test_a_profile_with_a_mistake_is_shown_as_such_and_stops_no_other(user: Alpacli) -> None:
    path = _broken(user)
    rows = json.loads(user("profile", "list", "--json").out)
    assert [(row["name"], row["mistake"] is None) for row in rows] == [("main", True), ("bad", False), ("far", True)]
    assert "profiles.bad.api_key" in rows[1]["mistake"]
    shown = user("profile", "show", "bad")
    assert shown.code == 0
    assert "profiles.bad.api_key" in shown.errors
    assert "hunter" not in shown.text + shown.errors
    refused = user("profile", "use", "bad")
    assert refused.code == 3
    assert "profiles.bad.api_key" in refused.errors
    assert "alpacli profile delete bad" in refused.errors
    assert path.read_text(encoding="utf-8") == BROKEN
    assert user("profile", "use", "far").code == 0
    assert user("profile", "rename", "far", "desk").code == 0
    assert user("logout", "--profile", "main").code == 0
    assert user("profile", "delete", "main", "--yes").code == 0
    left = path.read_text(encoding="utf-8")
    assert left.startswith('profile = "desk"\n\n# for every day\n\n[profiles.bad]\napi_key = 5 # a key is text\n')
    assert left.endswith('# behind a gateway\n[profiles.desk]\ngateway = "http://127.0.0.1:9"\ntoken = "hunter4"\n')


def test_a_profile_with_a_mistake_can_be_deleted_or_mended_by_a_login(user: Alpacli) -> None:
    path = _broken(user)
    _login(user, "PKTEST1234", "--profile", "bad")
    assert [row["mistake"] for row in json.loads(user("profile", "list", "--json").out)] == [None, None, None]
    path.write_text(BROKEN, encoding="utf-8")
    assert user("profile", "delete", "bad", "--yes").code == 0
    before, after = BROKEN.split("[profiles.bad]", maxsplit=1)[0], BROKEN[BROKEN.index("# behind") :]
    assert path.read_text(encoding="utf-8") == before + after


def test_many_logins_at_once_lose_no_profile(user: Alpacli) -> None:
    running = [
        user.start(
            ["login", "--key-id", f"PKMANY{n}", "--secret-file", "-", "--no-check", "--profile", f"p{n}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        for n in range(4)
    ]
    for process in running:
        process.communicate(b"hunter2")
        assert process.returncode == 0
    assert len(json.loads(user("profile", "list", "--json").out)) == 4


def test_config_show_tells_where_each_value_comes_from(user: Alpacli) -> None:
    _login(user)
    (user.cwd / ".env").write_text("ALPACLI_RATE_LIMIT=150\n", encoding="utf-8")
    shown = user("config", "show", "--origin", "--json", "--max-wait", "3", env={"REDIS_URL": "redis://:hunter3@h"})
    assert shown.code == 0, shown.errors
    found = {row["name"]: (row["value"], row["origin"]) for row in json.loads(shown.out)}
    assert found["ALPACA_API_KEY"] == ("PKTE…", "profile main")
    assert found["ALPACA_SECRET_KEY"] == ("***", "profile main")
    assert found["ALPACLI_PROFILE"] == ("main", "profile file")
    assert found["ALPACLI_RATE_LIMIT"] == ("150", ".env")
    assert found["ALPACLI_RATE_RESERVE"] == ("20", "default")
    assert found["ALPACLI_MAX_WAIT"] == ("3", "--max-wait")
    assert found["REDIS_URL"] == ("***", "environment")
    assert found["ALPACA_BASE_URL"][1] == "environment"
    assert "hunter" not in shown.text
