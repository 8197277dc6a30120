"""``alpacli stream --updates --exec COMMAND`` as a process, with commands that are slow, fail, hang or are not there."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from tests.support.alpacli import Alpacli, Ended
from tests.support.streaming import eventually, parsed

from alpacli.cli.stream_exec import facts


def _update(number: int, event: str = "fill") -> bytes:
    order = {"id": f"order-{number}", "client_order_id": f"mine-{number}", "side": "buy", "status": "filled"}
    update = {"type": "trade_update", "event": event, "symbol": "AAPL", "price": 250.10, "order": order}
    return json.dumps(update, separators=(",", ":")).encode().replace(b"250.1,", b"250.10,") + b"\n"


def _user(tmp_path: Path, script: str, updates: int = 3) -> Alpacli:
    """Return a user with a recording of updates and a program that is run for each."""
    user = Alpacli(tmp_path)
    (user.cwd / "day.ndjson").write_bytes(b"".join(_update(number) for number in range(updates)))
    program = user.cwd / "on-update"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o755)
    return user


def _play(user: Alpacli, command: str, *args: str) -> Ended:
    return user("stream", "--updates", "--replay", "day.ndjson", "--speed", "max", "--exec", command, *args)


def test_each_update_is_handed_over_whole_in_its_order_one_at_a_time(tmp_path: Path) -> None:
    user = _user(
        tmp_path,
        "echo begin $ALPACLI_EVENT $ALPACLI_SYMBOL $ALPACLI_ORDER_ID $ALPACLI_PRICE >> told\n"
        "cat >> bodies\nsleep 0.1\necho end $ALPACLI_ORDER_ID >> told",
    )
    ended = _play(user, "./on-update")
    assert (ended.code, ended.err) == (0, b"")
    assert len(parsed(ended.out)) == 3
    assert (user.cwd / "bodies").read_bytes() == ended.out
    assert (user.cwd / "told").read_text().splitlines() == [
        line for number in range(3) for line in (f"begin fill AAPL order-{number} 250.10", f"end order-{number}")
    ]


def test_what_the_command_prints_never_stands_between_the_lines_of_the_stream(tmp_path: Path) -> None:
    ended = _play(_user(tmp_path, "echo filled"), "./on-update")
    assert len(parsed(ended.out)) == 3
    assert ended.errors == "filled\n" * 3


def test_a_command_that_fails_or_reads_nothing_is_told_and_ends_nothing(tmp_path: Path) -> None:
    user = _user(
        tmp_path, '[ "$ALPACLI_ORDER_ID" = order-1 ] && exit 3\n[ "$ALPACLI_ORDER_ID" = order-2 ] && kill -9 $$'
    )
    ended = _play(user, "./on-update", "--fields", "symbol")
    assert ended.code == 0
    assert ended.out.count(b"\n") == 3
    assert "./on-update for fill AAPL ended with 1\n" in ended.errors
    assert "./on-update for fill AAPL ended with 3\n" in ended.errors
    assert "./on-update for fill AAPL ended with SIGKILL\n" in ended.errors


def test_a_command_that_went_away_is_told_for_each_update(tmp_path: Path) -> None:
    ended = _play(_user(tmp_path, "rm -f on-update"), "./on-update")
    assert ended.code == 0
    assert ended.errors.count("could not be started: No such file or directory") == 2


def test_nothing_in_an_update_is_read_by_a_shell_unless_the_user_names_one(tmp_path: Path) -> None:
    user = _user(tmp_path, "", updates=0)
    (user.cwd / "day.ndjson").write_bytes(_update(1, event="$(touch hacked); touch hacked"))
    plain = _play(user, "printf '<%s>' '$ALPACLI_EVENT;' a\\ b")
    assert plain.errors == "<$ALPACLI_EVENT;><a b>"
    shell = _play(user, "sh -c 'echo \"$ALPACLI_EVENT\" | tr a-z A-Z'")
    assert shell.errors == "$(TOUCH HACKED); TOUCH HACKED\n"
    assert not (user.cwd / "hacked").exists()


def test_a_fact_that_an_update_does_not_have_is_empty_and_never_that_of_the_one_before(tmp_path: Path) -> None:
    user = _user(tmp_path, 'echo "<$ALPACLI_POSITION_QTY>"', updates=1)
    done = user(
        *("stream", "--updates", "--replay", "day.ndjson", "--speed", "max", "--exec", "./on-update"),
        env={"ALPACLI_POSITION_QTY": "7"},
    )
    assert done.errors == "<>\n"
    assert facts({"event": "new\0", "order": None})["ALPACLI_EVENT"] == "new"


@pytest.mark.parametrize("hangs", [False, True])
def test_a_stream_that_is_told_to_end_lets_the_command_finish_but_waits_for_none_that_hangs(
    tmp_path: Path, hangs: bool
) -> None:
    user = _user(tmp_path, "echo $$ > running\nsleep " + ("600" if hangs else "1") + "\necho done > finished")
    process = user.start(
        ["stream", "--updates", "--replay", "day.ndjson", "--speed", "max", "--exec", "./on-update"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    running = user.cwd / "running"
    assert eventually(lambda: running.exists() and running.read_text().endswith("\n"))
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert b"2 updates were not handed to ./on-update" in errors
    assert (user.cwd / "finished").exists() != hangs
    with pytest.raises(ProcessLookupError):
        os.kill(int(running.read_text()), 0)


@pytest.mark.parametrize(
    ("command", "args", "said"),
    [
        ("./on-update", ("AAPL",), "--exec without --updates"),
        ("./on-update", ("--updates", "--backfill"), "--backfill with --updates"),
        ("no-such-program --loud", ("--updates",), "there is no program 'no-such-program'"),
        ("", ("--updates",), "--exec is empty"),
        ("say 'hello", ("--updates",), "No closing quotation"),
    ],
)
def test_a_command_that_cannot_be_run_is_wrong_usage_before_anything_is_connected(
    tmp_path: Path, command: str, args: tuple[str, ...], said: str
) -> None:
    ended = Alpacli(tmp_path)("stream", *args, "--sim", "--exec", command)
    assert ended.code == 2
    assert said in ended.errors
    assert "hint" in ended.errors


def test_an_order_that_fills_runs_the_command(tmp_path: Path) -> None:
    user = _user(tmp_path, 'echo "$ALPACLI_EVENT $ALPACLI_SIDE $ALPACLI_FILLED_QTY" >> told')
    user("sim", "status")
    process = user.start(
        ["stream", "--updates", "--sim", "--verbose", "--exec", "./on-update"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    assert b"connected" in process.stderr.readline()
    bought = user("buy", "BTC/USD", "0.01", "--sim", "--yes", "--json")
    assert bought.code == 0, bought.errors
    told = user.cwd / "told"
    assert eventually(lambda: told.exists() and "fill buy 0.01\n" in told.read_text())
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert told.read_text().splitlines()[0].split()[0] in ("pending_new", "new")
