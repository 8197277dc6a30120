"""What a person sees: the installed program on a pseudo-terminal, at 80 and at 200 columns."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.support.alpacli import DEADLINE_S, Alpacli
from tests.support.origin import Origin, Reply
from tests.support.terminal import Terminal

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\x1b\][^\x07]*\x07")
COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-9](;[0-9;]*)?m")

ONE_REQUEST = {"ALPACLI_RATE_LIMIT": "1", "ALPACLI_RATE_RESERVE": "0", "ALPACLI_MAX_WAIT": "30"}


class Seen:
    """What appeared on the terminal."""

    def __init__(self, raw: str, code: int) -> None:
        self.raw = raw
        self.code = code
        self.text = ESCAPE.sub("", raw).replace("\r", "")

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()


def on_terminal(
    user: Alpacli,
    *args: str,
    columns: int = 80,
    env: dict[str, str | None] | None = None,
    act: Callable[[str, int, int], None] | None = None,
) -> Seen:
    """Run on a terminal of its own; ``act(text so far, terminal, pid)`` is called whenever something appears."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environment = {"TERM": "xterm-256color", **(env or {})}
    process = user.start(args, environment, stdin=follower, stdout=follower, stderr=follower, start_new_session=True)
    os.close(follower)
    seen = bytearray()
    deadline = time.monotonic() + DEADLINE_S
    try:
        while time.monotonic() < deadline:
            ready, _, _ = select.select([leader], [], [], 0.2)
            if ready:
                try:
                    data = os.read(leader, 65536)
                except OSError:
                    break  # Linux says so when the last process has closed the terminal
                if not data:
                    break
                seen += data
                if act is not None:
                    act(seen.decode("utf-8", "replace"), leader, process.pid)
        return Seen(seen.decode("utf-8", "replace"), process.wait(DEADLINE_S))
    finally:
        os.close(leader)
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Alpacli:
    user = Alpacli(tmp_path_factory.mktemp("terminal"))
    assert user("demo").code == 0
    return user


COMMANDS = ["account", "positions", "orders", "activities", "portfolio", "clock", "calendar", "limits", "assets AAPL"]


@pytest.mark.parametrize("columns", [80, 200])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_table_fits_the_terminal_and_says_that_it_is_the_simulator(demo: Alpacli, command: str, columns: int) -> None:
    seen = on_terminal(demo, *command.split(), "--sim", columns=columns)
    assert seen.code == 0, seen.text
    assert "SIM" in seen.lines[0]
    assert max(len(line.rstrip()) for line in seen.lines) <= columns
    assert not re.search(r"\d…", seen.text), "a number was cut"


def test_more_columns_show_at_200_than_at_80(demo: Alpacli) -> None:
    narrow = on_terminal(demo, "positions", "--sim", columns=80).text
    wide = on_terminal(demo, "positions", "--sim", columns=200).text
    assert "Cost basis" in wide
    assert "Cost basis" not in narrow
    for title in ("Symbol", "Qty", "Market value", "Unrealized P&L", "Total"):
        assert title in narrow


def test_gains_and_losses_have_colour_and_sign(demo: Alpacli) -> None:
    seen = on_terminal(demo, "positions", "--sim")
    assert re.search(r"\x1b\[32m *\+[0-9]", seen.raw)
    assert re.search(r"\x1b\[31m *-[0-9]", seen.raw)


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=["NO_COLOR", "dumb"])
def test_no_colour_where_the_environment_says_so(demo: Alpacli, env: dict[str, str | None]) -> None:
    seen = on_terminal(demo, "positions", "--sim", env=env)
    assert "AAPL" in seen.text
    assert not COLOUR.search(seen.raw)


def test_no_color_flag_takes_the_colour_away(demo: Alpacli) -> None:
    assert not COLOUR.search(on_terminal(demo, "--no-color", "positions", "--sim").raw)


def test_force_color_draws_the_coloured_table_into_a_pipe_and_leaves_json_alone(demo: Alpacli) -> None:
    assert COLOUR.search(demo("positions", "--sim", env={"FORCE_COLOR": "1"}).text)
    assert "\x1b" not in demo("positions", "--sim", "--json", env={"FORCE_COLOR": "1"}).text


def test_cached_data_tells_its_age_and_fresh_data_does_not(demo: Alpacli) -> None:
    assert "cached" not in on_terminal(demo, "account", "--sim", "--refresh").text
    assert re.search(r"cached [0-9.]+ s ago", on_terminal(demo, "account", "--sim", "--max-age", "3600").text)


def test_json_is_indented_on_a_terminal_and_the_same_data(demo: Alpacli) -> None:
    seen = on_terminal(demo, "account", "--sim", "--json", "--max-age", "3600")
    assert '\n  "account_number"' in seen.text
    assert json.loads(seen.text) == json.loads(demo("account", "--sim", "--json", "--max-age", "3600").out)


def test_times_are_shown_in_the_chosen_zone(demo: Alpacli) -> None:
    assert re.search(r"E[SD]T", on_terminal(demo, "clock", "--sim").text)
    assert "UTC" in on_terminal(demo, "clock", "--sim", "--tz", "utc").text
    assert on_terminal(demo, "clock", "--sim", "--tz", "local", env={"TZ": "Nonsense/Nowhere"}).code == 0
    assert on_terminal(demo, "clock", "--sim", "--tz", "Nonsense/Nowhere").code == 2


def test_an_empty_account_is_said_in_words(tmp_path: Path) -> None:
    user = Alpacli(tmp_path)
    assert "No open positions." in on_terminal(user, "positions", "--sim").text
    assert "No orders." in on_terminal(user, "orders", "--sim").text


def watchlists_named(name: str, tmp_path: Path, *args: str, **options: Any) -> Seen:
    """Return what is seen on a terminal where the account's watchlist has that name."""
    watchlist = {
        "id": "578560cf-caec-4ac6-b066-b5256debf7e7",
        "account_id": "6ac25373-36b9-4709-938c-22b19b17c3c0",
        "name": name,
        "created_at": "2026-01-05T14:01:02Z",
        "updated_at": "2026-01-05T14:01:02Z",
    }
    with Origin() as origin:
        origin.reply("/v2/watchlists", Reply(body=[watchlist]))
        env: dict[str, str | None] = {
            "ALPACA_BASE_URL": origin.url, "ALPACA_API_KEY": "PKTEST", "ALPACA_SECRET_KEY": "verysecretvalue"
        }  # fmt: skip
        return on_terminal(Alpacli(tmp_path), *args, env=env, **options)


def test_foreign_text_is_no_markup_and_no_escape(tmp_path: Path) -> None:
    seen = watchlists_named("[red]x[/] \x1b]0;evil\x07", tmp_path, "watchlist", "list", columns=120)
    assert "[red]x[/]" in seen.text
    assert "\x1b]0" not in seen.raw


@pytest.mark.parametrize("options", [["--json"], ["--csv"], ["--jq", ".[].name"]], ids=" ".join)
def test_no_foreign_escape_reaches_a_terminal_in_any_format(tmp_path: Path, options: list[str]) -> None:
    seen = watchlists_named("x\x1b]0;evil\x07\x9b31my", tmp_path, "watchlist", "list", *options)
    assert "evil" in seen.raw
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", seen.raw)


def test_a_spinner_tells_that_the_budget_makes_a_command_wait(tmp_path: Path) -> None:
    """One request in three seconds: the second command waits its turn, says so on stderr, and then answers."""
    user = Alpacli(tmp_path, {**ONE_REQUEST, "ALPACLI_RATE_WINDOW": "3"})
    assert user("account", "--sim", "--refresh").code == 0
    seen = on_terminal(user, "account", "--sim", "--refresh")
    assert seen.code == 0
    assert re.search(r"waiting [0-9]+ s: ", seen.text)
    assert "Buying power" in seen.text
    assert seen.raw.rindex("\x1b[?25h") < seen.raw.index("Buying power"), "the spinner goes before the table comes"


def test_quiet_waits_without_a_spinner(tmp_path: Path) -> None:
    user = Alpacli(tmp_path, {**ONE_REQUEST, "ALPACLI_RATE_WINDOW": "2"})
    assert user("account", "--sim", "--refresh").code == 0
    seen = on_terminal(user, "account", "--sim", "--refresh", "--quiet")
    assert seen.code == 0
    assert "waiting" not in seen.text


@pytest.mark.parametrize(("stop", "ends"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_watch_redraws_until_it_is_stopped_and_leaves_the_screen_as_it_was(
    demo: Alpacli, stop: signal.Signals, ends: int
) -> None:
    sent: list[int] = []

    def interrupt_after_two_pictures(text: str, _terminal: int, pid: int) -> None:
        if text.count("Buying power") >= 2 and not sent:
            sent.append(pid)
            os.kill(pid, stop)

    seen = on_terminal(demo, "account", "--sim", "--watch", "0.1", "--refresh", act=interrupt_after_two_pictures)
    assert seen.code == ends
    assert "\x1b[?1049h" in seen.raw
    assert "\x1b[?1049l" in seen.raw
    assert "Traceback" not in seen.text


def test_a_watched_table_that_the_window_cuts_says_how_much_more_there_is(demo: Alpacli) -> None:
    with closing(Terminal(demo, "assets", "--sim", "--watch", "0.2", columns=80, lines=10)) as terminal:
        assert terminal.shows(
            lambda lines: lines[-1].startswith("… ") and "more lines; enlarge the window" in lines[-1]
        )
        assert "SIM" in terminal.lines[0]
        terminal.resize(80, 200)
        assert terminal.shows(lambda lines: "more lines" not in "".join(lines) and "GME" in "".join(lines))
        os.kill(terminal.process.pid, signal.SIGINT)
        assert terminal.ended(130)


def test_a_watched_table_says_on_the_screen_that_it_is_not_current(tmp_path: Path) -> None:
    """While the broker is away the last numbers stay, under a line that says so; it goes when the broker is back."""
    account = {"id": "a", "account_number": "PA1", "status": "ACTIVE", "currency": "USD", "equity": "5", "cash": "5"}
    sent: list[int] = []

    def interrupt_when_back(text: str, _terminal: int, pid: int) -> None:
        _, failed, since = text.partition("trying again in 0.1 s")
        if failed and since.count("Equity") >= 2 and not sent:
            sent.append(pid)
            os.kill(pid, signal.SIGINT)

    with Origin() as origin:
        down = Reply(503, {"message": "the broker is away"})
        origin.reply("/v2/account", Reply(body=account), down, down, down, Reply(body=account))
        env: dict[str, str | None] = {
            "ALPACA_BASE_URL": origin.url, "ALPACA_API_KEY": "PKTEST", "ALPACA_SECRET_KEY": "verysecretvalue"
        }  # fmt: skip
        seen = on_terminal(
            Alpacli(tmp_path), "account", "--watch", "0.1", "--refresh", env=env, act=interrupt_when_back
        )
    assert seen.code == 130
    assert re.search(r"NOT CURRENT: .*the broker is away.*trying again in 0.1 s\s+Account +PA1", seen.text)


@pytest.mark.parametrize(("answer", "code", "gone"), [("y\n", 0, True), ("\n", 2, False)])
def test_deleting_a_watchlist_asks_on_a_terminal(tmp_path: Path, answer: str, code: int, gone: bool) -> None:
    user = Alpacli(tmp_path)
    assert user("watchlist", "create", "tech", "AAPL", "--sim").code == 0
    answered: list[bool] = []

    def reply(text: str, terminal: int, _pid: int) -> None:
        if "[y/N]" in text and not answered:
            answered.append(True)
            os.write(terminal, answer.encode())

    seen = on_terminal(user, "watchlist", "delete", "tech", "--sim", act=reply)
    assert seen.code == code
    assert (user("watchlist", "show", "tech", "--sim").code == 4) is gone


def test_what_would_be_done_is_asked_again_when_it_changed_while_the_question_stood(tmp_path: Path) -> None:
    user = Alpacli(tmp_path)
    assert user("buy", "AAPL", "3", "--sim", "--json").code == 0
    answered = 0

    def act(text: str, terminal: int, _: int) -> None:
        nonlocal answered
        if text.count("Go on?") == answered + 1:
            answered += 1
            if answered == 1:
                assert user("buy", "AAPL", "2", "--sim", "--json").code == 0
                wait_until_held(user, 5)
            os.write(terminal, b"y\n")

    wait_until_held(user, 3)
    seen = on_terminal(user, "close", "AAPL", "--sim", act=act)
    assert seen.code == 0, seen.text
    assert answered == 2
    first, second = seen.text.split("has changed meanwhile")
    assert "sell 3 AAPL" in first
    assert "sell 5 AAPL" in second


def wait_until_held(user: Alpacli, qty: int) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        held = json.loads(user("positions", "--sim", "--json", "--refresh").out)
        if [position["qty"] for position in held] == [qty]:
            return
    pytest.fail(f"{qty} were not bought")
