"""Secrets that are kept elsewhere: what programs may print, and how a keyring that does not work is noticed."""

import json
import os
import sys
from pathlib import Path

import pytest

from alpacli.credentials import pair_of, secret_of
from alpacli.errors import ConfigError
from alpacli.settings import Flags, load

PAIR = ("PKTEST", "hunter2=/+")


def _printing(tmp_path: Path, text: str) -> str:
    """Return a command that prints the text, through no shell."""
    file = tmp_path / "printed"
    file.write_text(text, encoding="utf-8")
    return f"cat {file}"


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"api_key": PAIR[0], "secret_key": PAIR[1]}),
        json.dumps(
            {"data": {"data": {"ALPACA_API_KEY": PAIR[0], "ALPACA_SECRET_KEY": PAIR[1]}, "metadata": {"version": 3}}}
        ),
        json.dumps({"Name": "alpaca", "SecretString": json.dumps({"key_id": PAIR[0], "secret": PAIR[1]})}),
        json.dumps({"fields": [{"label": "api key", "value": PAIR[0]}, {"label": "secret key", "value": PAIR[1]}]}),
        json.dumps({"login": {"username": PAIR[0], "password": PAIR[1]}}),
        f"APCA_API_KEY_ID={PAIR[0]}\nAPCA_API_SECRET_KEY={PAIR[1]}\n",
        f"export ALPACA_API_KEY='{PAIR[0]}'\nexport ALPACA_SECRET_KEY=\"{PAIR[1]}\"\n",
        f"{PAIR[0]}\n{PAIR[1]}\n",
    ],
    ids=["plain", "vault", "aws", "1password", "bitwarden", "env", "export", "two lines"],
)
def test_the_pair_is_found_in_what_secret_managers_print(tmp_path: Path, text: str) -> None:
    assert pair_of(_printing(tmp_path, text)) == PAIR
    assert secret_of(_printing(tmp_path, text), PAIR[0]) == PAIR[1]


def test_the_secret_alone_is_enough_when_the_profile_has_the_key(tmp_path: Path) -> None:
    assert secret_of(_printing(tmp_path, f"{PAIR[1]}\n"), PAIR[0]) == PAIR[1]


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[1, 2]", "a\nb\nc\n", '{"api_key": "PK"}', '{"api_key": 3, "secret_key": 4}', "[" * 5000],
)
def test_what_is_no_pair_is_refused_and_not_shown(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="prints no key pair") as refused:
        pair_of(_printing(tmp_path, text))
    assert refused.value.__cause__ is None
    assert "printed" not in refused.value.message


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("/nonexistent/vault get", "cannot be run: /nonexistent/vault: No such file"),
        ("", "cannot be run"),
        ("'unfinished", "cannot be run"),
        (f"{sys.executable} -c 'raise SystemExit(3)'", "exit code 3"),
    ],
)
def test_a_program_that_fails_is_a_matter_of_configuration(command: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        pair_of(command)


@pytest.mark.parametrize("command", ["cat secret | head -1", "vault get 2>/dev/null", "true && cat secret"])
def test_a_command_that_only_a_shell_understands_is_not_run_as_words(command: str) -> None:
    with pytest.raises(ConfigError, match="without a shell") as refused:
        secret_of(command, PAIR[0])
    assert "sh -c" in refused.value.hint


def test_a_shell_is_the_users_to_name() -> None:
    assert secret_of("sh -c 'echo x | tr x y; true && true'", PAIR[0]) == "y"


def test_the_pair_of_another_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="another key"):
        secret_of(_printing(tmp_path, json.dumps({"api_key": "PKOTHER", "secret_key": "x"})), PAIR[0])


def _profile(tmp_path: Path, text: str) -> dict[str, str]:
    (tmp_path / "config.toml").write_text(f"profile = 'main'\n[profiles.main]\n{text}", encoding="utf-8")
    return {"ALPACLI_CONFIG_DIR": str(tmp_path), "HOME": str(tmp_path), "PATH": os.environ["PATH"]}


def test_the_program_runs_only_when_the_secret_is_needed_and_once(tmp_path: Path) -> None:
    counted = tmp_path / "counted"
    script = f"import sys; open({str(counted)!r}, 'a').write('x'); print('hunter2')"
    env = _profile(tmp_path, f"api_key = 'PKTEST'\nsecret_command = ['{sys.executable}', '-c', {json.dumps(script)}]")
    pair = load(Flags(), env=env).require_keys()
    assert not counted.exists()
    assert [pair.secret.reveal(), pair.secret.reveal()] == ["hunter2", "hunter2"]
    assert counted.read_text(encoding="utf-8") == "x"
    assert "hunter2" not in repr(pair) + str(pair.secret) + f"{pair.secret}"


def test_a_program_may_give_the_whole_pair(tmp_path: Path) -> None:
    env = _profile(tmp_path, f'secret_command = "{_printing(tmp_path, "PKTEST" + chr(10) + "hunter2")}"')
    pair = load(Flags(), env=env).require_keys()
    assert (pair.key_id, pair.secret.reveal(), pair.origin) == ("PKTEST", "hunter2", "profile main")


def test_a_live_key_from_a_program_is_refused(tmp_path: Path) -> None:
    env = _profile(tmp_path, f'secret_command = "{_printing(tmp_path, "AKLIVE" + chr(10) + "hunter2")}"')
    with pytest.raises(ConfigError, match="live key"):
        load(Flags(), env=env)


def test_a_secret_is_kept_in_one_place(tmp_path: Path) -> None:
    env = _profile(tmp_path, "api_key = 'PK'\nsecret_key = 'a'\nsecret_command = 'b'")
    with pytest.raises(ConfigError, match="secret_key and secret_command"):
        load(Flags(), env=env)


def test_a_command_in_the_environment_is_not_run(tmp_path: Path) -> None:
    env = {
        "HOME": str(tmp_path),
        "secret_command": "touch /tmp/never",
        "secret_store": "keyring",
        "ALPACA_API_KEY": "PK",
    }
    with pytest.raises(ConfigError, match="ALPACA_SECRET_KEY is missing"):
        load(Flags(), env=env)
