"""What lines of a journal ask, and whom they are left to: every question is found, and none is taken from who still hears."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from tests.support.fakes import ManualClock

from alpacli.broker.notebook import Notebook
from alpacli.broker.outcomes import Who, acting_for
from alpacli.errors import ConfigError, OrderRejected
from alpacli.wire import trading

NOW = 1_780_000_000.0
US = Who("me", "here", os.getpid(), "test")
CALL = trading.submit_order({"symbol": "AAPL"})


class Lines:
    """A journal in memory; ``full`` is one that nothing can be written to."""

    def __init__(self, *lines: dict[str, Any], full: bool = False) -> None:
        self.lines = [{"seq": number, **line} for number, line in enumerate(lines, 1)]
        self._full = full

    def append(self, record: Mapping[str, Any], allowed: Callable[[], None] | None = None) -> int:
        if self._full:
            raise ConfigError("no space is left")
        self.lines.append(dict(record))
        return len(self.lines)

    def records(self) -> Iterator[dict[str, Any]]:
        return iter(self.lines)

    def since(self, at: float) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["at"] >= at]


def notebook(*lines: dict[str, Any], who: Who = US) -> Notebook:
    return Notebook(Lines(*lines), ManualClock(NOW), who, pytest.fail)


def a_line(client_order_id: str | None = "mine", phase: str = "sent", **more: Any) -> dict[str, Any]:
    return {"client_order_id": client_order_id, "phase": phase, **more}


@pytest.mark.parametrize(
    ("lines", "questions"),
    [
        ([a_line()], {"mine": {}}),
        ([a_line(), a_line(phase="answered", outcome="placed")], {}),
        ([a_line(), a_line(phase="answered", outcome="void")], {}),
        ([a_line(), a_line(phase="answered", outcome="unknown")], {"mine": {"ended": True}}),
        ([a_line(phase="answered", outcome="unknown")], {"mine": {"ended": True}}),
        ([a_line(None, "answered", outcome="done"), a_line()], {"mine": {}}),
        ([a_line(), a_line(phase="admitted", outcome="done")], {"mine": {}}),
        ([a_line(), a_line(phase="noted", outcome="done")], {"mine": {}}),
        ([a_line(phase="told")], {}),
        ([a_line(), a_line("other"), a_line(phase="answered", outcome="refused")], {"other": {}}),
        ([a_line(), a_line(), a_line(phase="answered", outcome="refused", answers=2)], {"mine": {}}),
        ([a_line(), a_line(phase="answered", outcome="unknown", answers=1)], {"mine": {"ended": True}}),
        ([a_line(), a_line(phase="answered", outcome="placed", answers=0)], {"mine": {}}),
        ([a_line(), a_line(), a_line(phase="answered", outcome="placed")], {}),
        ([a_line(), a_line("another"), a_line(phase="answered", outcome="refused")], {"another": {}}),
        (
            [a_line(), a_line("other"), a_line(phase="answered", outcome="refused", answers=2)],
            {"mine": {}, "other": {}},
        ),
    ],
)
def test_an_order_is_a_question_until_it_is_written_what_came_of_it(
    lines: list[dict[str, Any]], questions: dict[str, dict[str, Any]]
) -> None:
    found = notebook(*lines).unanswered()
    asked = [(line["client_order_id"], {"ended": line["ended"]} if "ended" in line else {}) for line in found]
    assert dict(asked) == questions
    assert len(asked) == len(questions)


def test_a_question_keeps_what_was_sent() -> None:
    sent = a_line(request={"body": "all of it"})
    (found,) = notebook(sent, a_line(phase="answered", outcome="unknown")).unanswered()
    assert found["request"] == {"body": "all of it"}


def test_an_id_that_was_used_twice_asks_twice_and_each_answer_says_which() -> None:
    lines = [a_line(side="buy"), a_line(side="sell"), a_line(phase="answered", outcome="unknown", answers=1)]
    assert [line["side"] for line in notebook(*lines).unanswered()] == ["buy", "sell"]
    more = a_line(phase="answered", outcome="placed", answers=2)
    assert [line["side"] for line in notebook(*lines, more).unanswered()] == ["buy"]


@pytest.mark.parametrize(
    ("line", "known"),
    [
        (a_line(phase="answered", outcome="placed", order_id="a1", answers=2), {"a1"}),
        (a_line(phase="answered", outcome="placed", order_id="a1"), {"a1"}),
        (a_line(phase="answered", outcome="placed", order_id="a1", answers=3), set()),
        (a_line(phase="answered", outcome="placed", order_id="a1", answers=4), set()),
        (a_line(phase="answered", outcome="placed", order_id=None, answers=1), set()),
        (a_line(phase="answered", outcome="refused", order_id="a1", answers=1), set()),
        (a_line(phase="answered", outcome="told", order_id="a1", answers=1), set()),
        (a_line("other", "answered", outcome="placed", order_id="a1", answers=1), set()),
        (a_line("another", "answered", outcome="placed", order_id="a1", answers=1), set()),
    ],
)
def test_the_orders_that_had_an_id_before_are_those_that_earlier_lines_placed(
    line: dict[str, Any], known: set[str]
) -> None:
    made = notebook(line, a_line(seq=3))
    assert made.orders_before(a_line(seq=3)) == known


def test_an_answer_without_its_line_is_older_than_what_is_written_after_it() -> None:
    placed = a_line(phase="answered", outcome="placed", order_id="a1", seq=3)
    assert notebook(placed).orders_before(a_line(seq=3)) == set()
    assert notebook(placed).orders_before(a_line(seq=4)) == {"a1"}


def test_what_was_found_out_is_written_as_the_answer_to_its_line() -> None:
    lines = Lines()
    made = Notebook(lines, ManualClock(NOW), US, pytest.fail)
    made.resolve(a_line(seq=7), "not placed", None, OrderRejected("taken", status=422, code=40010001))
    (line,) = lines.lines
    told = {"action": "resolve", "phase": "answered", "client_order_id": "mine", "answers": 7, "outcome": "not placed"}
    told |= {"order_id": None, "error": "OrderRejected", "message": "taken", "status": 422, "code": 40010001}
    assert told.items() <= line.items()
    assert line["at"] == NOW


def test_only_orders_that_were_sent_within_the_minute_are_counted_and_a_set_clock_counts_for_nothing() -> None:
    lines = [
        a_line(action="place", at=NOW - 59),
        a_line(action="replace", at=NOW + 60),
        a_line(action="place", at=NOW + 61),
        a_line(action="cancel", at=NOW),
        a_line(phase="told", action="place", at=NOW),
        a_line(phase="answered", action="place", at=NOW),
    ]
    assert notebook(*lines).sent_lately() == 2


@pytest.mark.parametrize(
    ("at", "settled"), [(NOW, False), (NOW - 120, False), (NOW - 121, True), (None, True), ("yesterday", True)]
)
def test_what_was_sent_two_minutes_ago_has_arrived_or_never_will(at: object, settled: bool) -> None:
    assert notebook().is_settled(a_line(at=at)) is settled


@pytest.mark.parametrize("after", [-1, 1])
def test_an_order_of_another_process_that_is_still_there_is_in_flight(after: int) -> None:
    line = a_line(at=NOW, host="here", pid=os.getpid())
    assert notebook(who=US._replace(pid=os.getpid() + after)).in_flight(line)


@pytest.mark.parametrize(
    "more",
    [{"ended": True}, {"host": "there"}, {"host": "afar"}, {"at": NOW - 121}, {"pid": int(str(US.pid))}],
    ids=["ended", "elsewhere", "afar", "long ago", "our own"],
)
def test_an_order_that_nobody_else_waits_for_is_not_in_flight(more: dict[str, Any]) -> None:
    line = a_line(**{"at": NOW, "host": "here", "pid": os.getppid(), **more})
    assert not notebook().in_flight(line)


def test_an_order_whose_process_is_gone_is_not_in_flight() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert not notebook().in_flight(a_line(at=NOW, host="here", pid=process.pid))


@pytest.mark.parametrize("pid", ["nobody", None, [], 10**30])
def test_a_process_that_cannot_be_looked_for_may_be_there(pid: object) -> None:
    assert notebook().in_flight(a_line(at=NOW, host="here", pid=pid))


def test_a_line_without_a_process_may_be_of_one_that_is_there() -> None:
    assert notebook().in_flight(a_line(at=NOW, host="here"))


@pytest.mark.parametrize("phase", ["sent", "abandoned", "told"])
def test_the_request_is_written_with_its_body_and_the_answer_without(phase: str) -> None:
    made = notebook()
    assert made.line("place", CALL, "mine", {"phase": phase})["request"]["body"] == '{"symbol":"AAPL"}'
    assert made.line("place", CALL, "mine", {"phase": "answered"})["request"] == {
        "method": "POST",
        "path": "/v2/orders",
    }


def test_a_line_names_the_client_for_whom_it_is_done_if_there_is_one() -> None:
    assert "client" not in notebook().line("place", CALL, "mine", {})
    token = acting_for.set("bot1")
    try:
        assert notebook().line("place", CALL, "mine", {})["client"] == "bot1"
    finally:
        acting_for.reset(token)


def test_a_journal_that_is_full_is_one_warning() -> None:
    warnings: list[str] = []
    made = Notebook(Lines(full=True), ManualClock(NOW), US, warnings.append)
    made.append({"action": "halt"})
    made.append({"action": "resume"})
    assert warnings == ["no space is left"]


def test_a_failure_is_written_with_everything_that_the_broker_said_of_it() -> None:
    lines = Lines()
    error = ConfigError("no", status=403, code=40310000, request_id="r1")
    Notebook(lines, ManualClock(NOW), US, pytest.fail).note("place", CALL, "mine", phase="answered", error=error)
    (line,) = lines.lines
    assert {name: line[name] for name in ("at", "host", "pid", "error", "message", "status", "code", "request_id")} == {
        "at": NOW,
        "host": "here",
        "pid": os.getpid(),
        "error": "ConfigError",
        "message": "no",
        "status": 403,
        "code": 40310000,
        "request_id": "r1",
    }
