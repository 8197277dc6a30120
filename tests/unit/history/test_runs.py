"""Which run an exchange on this machine is in, what is kept of it, and what is done when nobody tells."""

import datetime as dt
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from tests.support.history import ns

from alpacli.domain.series import Series
from alpacli.errors import ConnectionLost, Unavailable
from alpacli.history.bar_store import BarStore
from alpacli.history.runs import ExchangeRun, Runs, all_kept, ask
from alpacli.ports import Request, Response, SystemClock
from alpacli.sim.exchange import Exchange
from alpacli.sim.state import STATE_FILE
from alpacli.wire.columns import read_page

PAGE = b'{"trades":{"AAPL":[{"t":"2026-01-05T14:30:00Z","p":100.25,"s":10,"x":"V","c":["@","I"]}]}}'
A, B = "00000000000a", "00000000000b"


class Told:
    """A server that gives one answer."""

    def __init__(self, status: int, body: bytes) -> None:
        self._answer = Response(status, {}, body)

    def send(self, request: Request, *, connect_timeout_s: float, read_timeout_s: float) -> Response:
        assert (request.method, request.path) == ("GET", "/sim/run")
        return self._answer

    def close(self) -> None: ...


def gone() -> ExchangeRun | None:
    raise ConnectionLost("refused")


def at(folder: Path, which: Callable[[], ExchangeRun | None]) -> Runs:
    return Runs(str(folder / "local-1"), SystemClock(), which)


def keep(store: BarStore | None) -> None:
    assert store is not None
    within = (ns("2026-01-05T14:00:00Z"), ns("2026-01-05T15:00:00Z"))
    tables = [table for _, table in read_page("trades", PAGE).tables]
    store.write(Series("trades", "stocks", "sip"), "AAPL", tables, within, dt.date(2026, 1, 6))


def test_a_run_is_its_name_and_the_time_that_it_has() -> None:
    body = json.dumps({"run": A, "timestamp": "2024-01-03T14:30:00.25Z"}).encode()
    assert ask(Told(200, body), "data") == ExchangeRun(A, ns("2024-01-03T14:30:00.25Z"))


@pytest.mark.parametrize(
    "body",
    [
        b"", b"<html>", b"null", b"[]", b'{"run": 1, "timestamp": "2024-01-03T14:30:00Z"}', b'{"run": "00000000000a"}',
        b'{"run": "../../../home", "timestamp": "2024-01-03T14:30:00Z"}',
        b'{"run": "00000000000a", "timestamp": "soon"}', b'{"run": "00000000000a", "timestamp": 7}',
    ],
)  # fmt: skip
def test_what_answers_something_else_is_no_exchange(body: bytes) -> None:
    assert ask(Told(200, body), "data") is None
    assert ask(Told(404, body), "data") is None


@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_exchange_that_cannot_tell_now_is_not_taken_for_something_else(status: int) -> None:
    with pytest.raises(Unavailable):
        ask(Told(status, b""), "data")


def test_the_bars_of_the_last_run_are_kept_and_those_of_no_other(tmp_path: Path) -> None:
    first = at(tmp_path, lambda: ExchangeRun(A, 0)).place()
    keep(first.store)
    assert first.store is not None
    assert all_kept(str(tmp_path / "local-1"))[0] == first.store.root
    second = at(tmp_path, lambda: ExchangeRun(B, 60 * 10**9)).place()
    keep(second.store)
    assert second.store is not None
    assert second.clock.time() == 60
    assert all_kept(str(tmp_path / "local-1"))[0] == second.store.root
    assert not Path(first.store.root).exists()


def test_of_what_does_not_answer_nothing_is_kept(tmp_path: Path) -> None:
    keep(at(tmp_path, lambda: ExchangeRun(A, 0)).place().store)
    assert at(tmp_path, gone).place().store is None


def test_what_was_kept_by_the_address_is_read_while_nobody_answers(tmp_path: Path) -> None:
    proxy = at(tmp_path, lambda: None).place()
    assert proxy.store is not None
    keep(proxy.store)
    found = at(tmp_path, gone).place()
    assert found.store is not None
    assert found.store.root == proxy.store.root == all_kept(str(tmp_path / "local-1"))[0]


def test_a_damaged_note_of_the_last_run_leads_nowhere_else(tmp_path: Path) -> None:
    folder = tmp_path / "local-1"
    folder.mkdir()
    for text in (b"", b"../elsewhere", b"\xff\xfe"):
        (folder / "run").write_bytes(text)
        assert all_kept(str(folder))[0] == str(folder)


def test_a_state_from_before_runs_had_names_gets_one_that_stays(tmp_path: Path) -> None:
    exchange = Exchange(str(tmp_path), SystemClock())
    try:
        with closing(sqlite3.connect(tmp_path / STATE_FILE)) as db, db:
            db.execute("DELETE FROM meta WHERE key = 'run'")
        assert exchange.run() == exchange.run() != ""
    finally:
        exchange.close()


def test_every_exchange_in_memory_is_a_run_of_its_own() -> None:
    both = [Exchange(None, SystemClock()) for _ in range(2)]
    assert len({one.run() for one in both}) == 2
    for one in both:
        one.close()
