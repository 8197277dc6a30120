"""One failure, two lines or one JSON object, one exit code."""

import errno
import json
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from tests.support.fakes import ManualClock

from alpacli import errors
from alpacli.cli.failures import OutputClosed, Stops, ctrl_c_heard_once, explain, on_its_way, report, wind_up


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError("m", "h"), 2),
        (errors.ConfigError("m", "h"), 3),
        (errors.RedirectRefused("m", "h"), 3),
        (errors.AuthenticationError("m", "h", status=401), 3),
        (errors.NotFound("m", "h", status=404), 4),
        (errors.OrderRejected("m", "h", status=422), 4),
        (errors.RateLimited("m", "h", status=429, retry_after=3.5), 5),
        (errors.BudgetExhausted("m", "h", retry_after=3.5), 5),
        (errors.ServerError("m", "h", status=502), 6),
        (errors.CircuitOpen("m", "h"), 6),
        (errors.OutputFailed("m", "h"), 8),
        (OSError(errno.ENOSPC, "No space left on device"), 8),
        (ValueError("surprise"), 1),
        (MemoryError(), 1),
        (KeyboardInterrupt(), 130),
        (OutputClosed(), 0),
    ],
)
def test_exit_codes(error: BaseException, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(error, []) == code
    assert report(error, ["--json"]) == code
    assert capsys.readouterr().out == ""


def test_text_is_one_line_for_what_and_one_for_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    report(errors.NotFound("no\nsuch\x1b[31m order", "look at alpacli orders"), [])
    assert capsys.readouterr().err == "error: no such [31m order\nhint: look at alpacli orders\n"


def test_json_holds_every_field_in_the_order_of_the_contract(capsys: pytest.CaptureFixture[str]) -> None:
    error = errors.RateLimited("slow down", "wait", status=429, code=42910000, request_id="r", retry_after=3.5)
    report(error, ["--jq=.x"])
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert json.loads(text) == {
        "error": {
            "type": "RateLimited",
            "message": "slow down",
            "hint": "wait",
            "status": 429,
            "code": 42910000,
            "request_id": "r",
            "retry_after": 3.5,
        }
    }


def test_a_defect_asks_to_be_reported_and_verbose_shows_where(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        hidden_value = "local-variables-are-not-shown"
        raise RuntimeError("x" * len(hidden_value[:1]))
    except RuntimeError as error:
        report(error, ["--verbose"])
    text = capsys.readouterr().err
    assert "Traceback" in text
    assert "a defect in alpacli" in text
    assert explain(RuntimeError()).as_dict()["type"] == "Defect"


@pytest.mark.parametrize("again", [0, 1, 2, 5])
def test_the_order_that_was_on_its_way_is_known_however_often_ctrl_c_was_pressed(again: int) -> None:
    def press(times: int) -> None:
        try:
            if times == 0:
                raise errors.OrderInterrupted("mine")
            press(times - 1)
        finally:
            if times:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        press(again)
    assert on_its_way(caught.value) == "mine"


def test_no_order_was_on_its_way_where_none_was_sent() -> None:
    assert on_its_way(KeyboardInterrupt()) is None


def test_ctrl_c_that_is_pressed_again_at_once_does_not_cut_short_what_the_first_one_ends() -> None:
    before = signal.getsignal(signal.SIGINT)
    ended = []
    with ctrl_c_heard_once(ManualClock()):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            for step in range(100):
                signal.raise_signal(signal.SIGINT)
                ended.append(step)
    assert len(ended) == 100
    assert signal.getsignal(signal.SIGINT) is before


def test_an_end_that_hangs_can_be_interrupted_once_more() -> None:
    clock = ManualClock()
    with ctrl_c_heard_once(clock):
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        clock.advance(0.9)
        signal.raise_signal(signal.SIGINT)
        clock.advance(0.1)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_who_winds_up_hears_no_ctrl_c_any_more_after_it_either() -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        with ctrl_c_heard_once(ManualClock()):
            wind_up()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.fixture
def stops() -> Iterator[tuple[Stops, ManualClock]]:
    """Hear them; afterwards the test's own process is as it was."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    clock = ManualClock()
    made = Stops(clock)
    made.listen()
    yield made, clock
    for number, handler in before.items():
        signal.signal(number, handler)


def test_sigterm_is_ctrl_c_with_an_exit_code_of_its_own_and_heard_once_a_second(
    stops: tuple[Stops, ManualClock],
) -> None:
    heard, clock = stops
    assert heard.exit_code(130) == 130
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        clock.advance(1)
    assert [heard.exit_code(code) for code in (130, 0, 7)] == [143, 0, 7]


def test_sigterm_is_heard_where_ctrl_c_is_ignored(stops: tuple[Stops, ManualClock]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)


def test_a_hangup_that_nohup_has_ignored_stays_ignored(stops: tuple[Stops, ManualClock]) -> None:
    signal.raise_signal(signal.SIGHUP)
    assert stops[0].exit_code(130) == 130


def test_the_second_sigterm_of_a_timeout_lets_the_end_be_told_and_a_later_one_cuts_it_short() -> None:
    script = """
import signal
from tests.support.fakes import ManualClock
from alpacli.cli.failures import Stops, wind_up
clock = ManualClock()
Stops(clock).listen()
try:
    signal.raise_signal(signal.SIGTERM)
except KeyboardInterrupt:
    clock.advance(2)
    wind_up()
    signal.raise_signal(signal.SIGTERM)
    print("told", flush=True)
    clock.advance(1)
    signal.raise_signal(signal.SIGTERM)
    print("hangs", flush=True)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGTERM, b"told\n", b"")
