"""An order followed to its end: told by the trading stream, looked at where there is none; the exit code says how."""

import json
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue

import pytest
from tests.support.alpacli import Alpacli
from tests.support.faulty_broker import FaultyBroker
from tests.support.sim_server import SimServer

KEYS = {"ALPACA_API_KEY": "PKTEST", "ALPACA_SECRET_KEY": "secret", "ALPACLI_HUB_LINGER": "0.2"}


def user(folder: Path, url: str) -> Alpacli:
    return Alpacli(folder, {**KEYS, "ALPACA_BASE_URL": url, "ALPACA_DATA_URL": url})


def placed(paper: Alpacli, *args: str) -> str:
    """Place an order that waits, and return its ID."""
    ended = paper("buy", "F", "10", "--limit", "1", "--tif", "gtc", "--json", *args)
    assert ended.code == 0, ended.errors
    return str(json.loads(ended.out)["id"])


class Follower:
    """``order ID --follow --verbose`` in a process of its own, its lines as they come."""

    def __init__(self, paper: Alpacli, order_id: str, *args: str) -> None:
        self.process = paper.start(
            ["order", order_id, "--follow", "--verbose", *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.notices: Queue[str] = Queue()
        self.errors = ""
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr:
            for line in self.process.stderr:
                self.errors += line.decode()
                self.notices.put(line.decode())

    def wait_for(self, words: str) -> None:
        while words not in self.notices.get(timeout=30):
            pass

    def end(self) -> tuple[int, list[dict[str, object]]]:
        """Wait for the end; return the exit code and the JSON lines."""
        assert self.process.stdout is not None
        with self.process.stdout:
            out = self.process.stdout.read()
        code = self.process.wait(30)
        self._reading.join(10)
        return code, [json.loads(line) for line in out.splitlines()]


@contextmanager
def following(paper: Alpacli, order_id: str, *args: str) -> Iterator[Follower]:
    one = Follower(paper, order_id, *args)
    try:
        yield one
    finally:
        one.process.kill()
        one.process.wait()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Alpacli]:
    with SimServer(tmp_path / "sim") as server:
        yield user(tmp_path, server.url)


def test_the_stream_tells_that_it_was_canceled_and_that_is_exit_4(served: Alpacli) -> None:
    order_id = placed(served)
    with following(served, order_id, "--json") as one:
        one.wait_for("trading stream: live")
        assert served("cancel", order_id).code == 0
        code, states = one.end()
        assert code == 4
        assert [state["status"] for state in states] == ["new", "pending_cancel", "canceled"]
        assert json.loads(one.errors.splitlines()[-1])["error"]["message"] == "the order ended canceled, 0 of 10 filled"


def test_a_replacement_is_followed_in_its_place(served: Alpacli) -> None:
    order_id = placed(served)
    with following(served, order_id, "--json") as one:
        one.wait_for("trading stream: live")
        replaced = served("replace", order_id, "--limit", "200", "--json")
        assert replaced.code == 0, replaced.errors
        code, states = one.end()
        assert code == 0, one.errors
        assert [state["status"] for state in states][:3] == ["new", "pending_replace", "replaced"]
        assert (states[-1]["id"], states[-1]["status"]) == (json.loads(replaced.out)["id"], "filled")


def test_a_filled_order_needs_no_stream(served: Alpacli) -> None:
    bought = json.loads(served("buy", "AAPL", "1", "--json").out)
    first = served("order", bought["id"], "--follow", "--json")
    assert first.code == 0, first.errors
    again = served("order", bought["client_order_id"], "--follow", "--verbose")
    assert again.code == 0
    assert "stream" not in again.errors
    assert "filled, 1 of 1 filled" in again.errors


def test_where_there_is_no_stream_the_order_is_looked_at(tmp_path: Path) -> None:
    with FaultyBroker(tmp_path / "sim", rate=0.0) as broker:
        paper = user(tmp_path, broker.url)
        order_id = placed(paper)
        with following(paper, order_id, "--json") as one:
            one.wait_for("no trading stream")
            assert paper("cancel", order_id).code == 0
            code, states = one.end()
            assert (code, [state["status"] for state in states]) == (4, ["new", "canceled"])


@pytest.mark.parametrize(("stop", "ends"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_who_is_stopped_leaves_the_order_alone(served: Alpacli, stop: signal.Signals, ends: int) -> None:
    order_id = placed(served)
    with following(served, order_id) as one:
        one.wait_for("trading stream: live")
        one.process.send_signal(stop)
        assert one.end() == (ends, [])
        assert "Traceback" not in one.errors
    assert json.loads(served("order", order_id, "--json").out)["status"] == "new"
