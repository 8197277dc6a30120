"""The program explains itself: help topics, the command tree, completion in real shells, and the doctor."""

import json
import os
import platform
import pty
import select
import shlex
import shutil
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from tests.support import valkey
from tests.support.alpacli import PROGRAM, Alpacli
from tests.support.sim_server import SimServer


@pytest.fixture
def user(tmp_path: Path) -> Alpacli:
    return Alpacli(tmp_path)


@pytest.fixture
def holder(user: Alpacli) -> Alpacli:
    """A user whose machine knows some symbols of the offline exchange."""
    assert user("demo", "--yes").code == 0
    assert user("orders", "--sim", "--quiet").code == 0
    return user


@pytest.mark.parametrize("topic", ["exit-codes", "environment", "json", "cron"])
def test_a_topic_is_explained_without_keys(user: Alpacli, topic: str) -> None:
    shown = user("help", topic)
    assert (shown.code, shown.errors) == (0, "")
    assert len(shown.text.splitlines()) > 10
    assert f"alpacli help {topic}" in user("help").text


def test_help_explains_a_command_and_knows_what_it_does_not_know(user: Alpacli) -> None:
    assert user("help", "cache", "clear").text == user("cache", "clear", "--help").text
    unknown = user("help", "nonsense")
    assert (unknown.code, unknown.text) == (2, "")
    assert "exit-codes" in unknown.errors


def test_the_command_tree_is_data(user: Alpacli) -> None:
    rows = user("commands").text.splitlines()
    assert rows[0] == "name\thelp"
    tree = json.loads(user("commands", "--json").out)
    leaves = _leaves(tree)
    assert [leaf["name"] for leaf in leaves] == [row.split("\t")[0] for row in rows[1:]]
    orders = next(leaf for leaf in leaves if leaf["name"] == "orders")
    status = next(found for found in orders["parameters"] if found["names"] == ["--status"])
    assert status["values"] == ["open", "closed", "all"]


def _leaves(command: dict[str, Any]) -> list[dict[str, Any]]:
    return [leaf for inner in command["commands"] for leaf in _leaves(inner)] if command["commands"] else [command]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["buy", "--sim", "AM"], ["AMD", "AMZN"]),
        (["orders", "--status", "=", "cl"], ["closed"]),
        (["stream", "--sim", "AAPL,AM"], ["AAPL,AMD", "AAPL,AMZN"]),
        (["cache", ""], ["clear", "stats"]),
    ],
)
def test_bash_completes(holder: Alpacli, words: list[str], offered: list[str]) -> None:
    listed = " ".join(f"'{word}'" for word in words)
    script = (
        f"source <({PROGRAM} completion bash); COMP_WORDS=({PROGRAM} {listed}); COMP_CWORD={len(words)}; "
        'compopt() { :; }; _alpacli; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", script], env=holder.environment(), cwd=holder.cwd, capture_output=True, timeout=30, check=True
    )
    assert done.stdout.decode().split() == offered, done.stderr


def test_fish_completes(holder: Alpacli) -> None:
    if shutil.which("fish") is None:
        pytest.skip("fish is not installed")
    asked = f"{PROGRAM} completion fish | source; complete -C 'alpacli buy --sim AM'"
    path = f"{Path(PROGRAM).parent}:{holder.env['PATH']}"
    done = subprocess.run(
        ["fish", "--no-config", "-c", asked],
        env=holder.environment({"PATH": path}),
        cwd=holder.cwd,
        capture_output=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.decode().split() == ["AMD", "AMZN"]


def test_zsh_completes(holder: Alpacli) -> None:
    if shutil.which("zsh") is None:
        pytest.skip("zsh is not installed")
    leader, follower = pty.openpty()
    path = f"{Path(PROGRAM).parent}:{holder.env['PATH']}"
    shell = subprocess.Popen(
        ["zsh", "-f", "-i"],
        env=holder.environment({"PATH": path, "TERM": "dumb", "PS1": "$ "}),
        cwd=holder.cwd,
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
    )
    try:
        os.write(
            leader,
            b"autoload -Uz compinit; compinit -u -d ./dump; source <(alpacli completion zsh); print ready-$((1+1))\n",
        )
        _read_until(leader, "ready-2")
        os.write(leader, b"\x15alpacli cache cl\t")
        _read_until(leader, "alpacli cache clear")
        os.write(leader, b"\x15alpacli buy --sim AMZ\t")
        _read_until(leader, "AMZN")
    finally:
        shell.kill()
        shell.wait()
        os.close(leader)
        os.close(follower)


def _read_until(descriptor: int, text: str) -> None:
    seen = ""
    deadline = time.monotonic() + 20
    while text not in seen:
        assert time.monotonic() < deadline, seen
        if select.select([descriptor], [], [], 0.2)[0]:
            seen += os.read(descriptor, 65536).decode(errors="replace")


def test_the_version_says_which_engine_is_in_use_and_needs_no_keys(user: Alpacli) -> None:
    import alpacli.sim.engine

    engine = "python" if str(alpacli.sim.engine.__file__).endswith(".py") else "compiled"
    told = json.loads(user("version", "--json").out)
    assert (told["version"], told["engine"]) == (alpacli.__version__, engine)
    assert (told["python"], told["alpaca_py"]) == (platform.python_version(), metadata.version("alpaca-py"))
    assert user("--version").text == f"alpacli {alpacli.__version__}\n"
    assert f"engine\t{engine}\n" in user("version").text


def test_the_package_runs_as_a_module_too(user: Alpacli) -> None:
    done = user.shell(f"{shlex.quote(sys.executable)} -m alpacli version --json; $ALPACLI version --json")
    as_module, as_command = done.text.splitlines()
    assert as_module == as_command


def test_a_schedule_starts_the_program_the_way_it_was_started(user: Alpacli) -> None:
    python = shlex.quote(sys.executable)
    as_module = user.shell(f"{python} -m alpacli snapshot install --sim").text
    assert f"{python} -m alpacli snapshot --quiet" in as_module
    assert f"{shlex.quote(PROGRAM)} snapshot --quiet" in user.shell("$ALPACLI snapshot install --sim").text


# ------------------------------------------------------------------------------------------------------- doctor


def _findings(
    user: Alpacli, *args: str, env: dict[str, str | None] | None = None
) -> tuple[int, dict[str, dict[str, str]]]:
    done = user("doctor", "--json", *args, env=env)
    assert done.errors == ""
    return done.code, {finding["check"]: finding for finding in json.loads(done.out)}


def test_the_doctor_finds_the_offline_exchange_well(user: Alpacli) -> None:
    code, found = _findings(user, "--sim")
    assert code == 0
    assert found.pop("store")["status"] in ("ok", "warn")  # slow, as a store is on a busy machine
    assert {finding["status"] for finding in found.values()} == {"ok", "skip"}


def test_the_doctor_tells_of_a_mistake_in_a_profile_that_is_not_the_chosen_one(user: Alpacli) -> None:
    path = Path(user.env["ALPACLI_CONFIG_DIR"]) / "config.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("[profiles.good]\napi_key = 'PK1'\n[profiles.bad]\napi_kye = 'PK2'\n", encoding="utf-8")
    path.chmod(0o600)
    lines = {line["check"]: line for line in json.loads(user("doctor", "--sim", "--json").out)}
    assert lines["files"]["status"] == "warn"
    assert "profiles.bad.api_kye is no setting" in lines["files"]["found"]
    assert "api_key?" in lines["files"]["fix"]


def test_the_doctor_tells_of_a_halt_who_made_it_and_why(user: Alpacli) -> None:
    assert user("halt", "--reason", "fat finger", "--sim").code == 0
    code, found = _findings(user, "--sim")
    assert code == 0
    assert found["trading"]["status"] == "warn"
    assert "fat finger" in found["trading"]["found"]
    assert "alpacli resume" in found["trading"]["fix"]


def test_the_doctor_answers_without_keys_and_offline(user: Alpacli) -> None:
    nowhere = {"ALPACA_BASE_URL": "http://127.0.0.1:9", "ALPACA_DATA_URL": "http://127.0.0.1:9"}
    code, found = _findings(user, env={**nowhere, "ALPACA_STREAM_URL": "ws://127.0.0.1:9"})
    assert code == 3
    assert found["settings"]["status"] == "fail"
    assert "alpacli login" in found["settings"]["fix"]
    assert found["network"]["status"] == found["streams"]["status"] == "fail"
    assert found["store"]["status"] == "ok" or found["store"]["fix"] == "the store is slow"  # as on a busy machine


def test_the_doctor_survives_a_broken_profile_file_and_names_the_line(user: Alpacli, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.mkdir()
    (config / "config.toml").write_text("profile = \n", encoding="utf-8")
    code, found = _findings(user)
    assert code == 3
    assert "line 1" in found["settings"]["found"]
    assert found["files"]["fix"] == f"chmod 600 {config / 'config.toml'}"
    assert found["network"]["status"] == "skip"


def test_the_doctor_examines_a_server_and_shows_no_secret(user: Alpacli, tmp_path: Path) -> None:
    with SimServer(tmp_path / "exchange") as server:
        env: dict[str, str | None] = {
            "ALPACA_BASE_URL": server.url,
            "ALPACA_DATA_URL": server.url,
            "ALPACA_STREAM_URL": server.ws,
            "ALPACA_API_KEY": "PKDOCTOR1234",
            "ALPACA_SECRET_KEY": "hunter2hunter2",
        }
        code, found = _findings(user, env=env)
        assert code == 0, found
        assert found["keys"]["status"] == found["streams"]["status"] == found["market data"]["status"] == "ok"
        shown = user("doctor", env=env).text
    assert "hunter2" not in shown
    assert "PKDOCTOR1234" not in shown


def test_the_doctor_warns_of_a_store_that_does_not_answer(user: Alpacli) -> None:
    code, found = _findings(user, "--sim", env={"REDIS_URL": "redis://127.0.0.1:9/0"})
    assert code == 0
    assert found["store"]["status"] == "warn"
    assert "REDIS_URL" in found["store"]["fix"]


def test_the_doctor_warns_of_a_redis_that_may_forget_a_halt(user: Alpacli, tmp_path: Path) -> None:
    with valkey.server(tmp_path, "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru") as redis:
        env: dict[str, str | None] = {"REDIS_URL": redis.url}
        code, found = _findings(user, "--sim", env=env)
        assert (code, found["store"]["status"]) == (0, "warn")
        assert "allkeys-lru" in found["store"]["found"]
        assert "noeviction" in found["store"]["fix"]
        with redis.client() as client:
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("appendonly", "yes")
        found = _findings(user, "--sim", env=env)[1]
        assert found["store"]["fix"] in {"", "the store is slow"}  # the latter on a busy machine


def test_the_doctor_finds_a_state_directory_that_cannot_be_written(user: Alpacli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    code, found = _findings(user, "--sim", env={"ALPACLI_STATE_DIR": str(tmp_path / "file" / "below")})
    assert code != 0
    assert found["state"]["status"] == "fail"
    assert "ALPACLI_STATE_DIR" in found["state"]["fix"]
