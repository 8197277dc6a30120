"""A test moves the exchange's time, and everything that was due has happened then."""

import json
import subprocess
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from tests.support.alpacli import Alpacli

from alpacli.errors import UsageError
from alpacli.ports import SystemClock
from alpacli.sim.stepping import SteppedClock, step


def ask(url: str, body: object = None, method: str = "GET") -> Any:
    data = None if body is None else json.dumps(body).encode()
    keys = {"APCA-API-KEY-ID": "PKTEST", "APCA-API-SECRET-KEY": "s"}
    with urlopen(Request(url, data, keys, method=method), timeout=10) as answer:
        return json.loads(answer.read())


def test_time_stands_still_until_it_is_moved(tmp_path: Path) -> None:
    paper = Alpacli(tmp_path)
    server = paper.start(
        ["sim", "serve", "--port", "0", "--clock", "--quiet"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        before = ask(url + "/sim/clock")["timestamp"]
        order = {"symbol": "AAPL", "side": "buy", "qty": "1", "type": "market", "time_in_force": "day"}
        made = ask(url + "/v2/orders", order, "POST")
        assert ask(url + f"/v2/orders/{made['id']}")["status"] in ("pending_new", "new")
        assert ask(url + "/sim/clock")["timestamp"] == before
        after = ask(url + "/sim/clock", {"advance": 60}, "POST")["timestamp"]
        assert after > before
        assert ask(url + f"/v2/orders/{made['id']}")["status"] == "filled"
        for body in (
            {"advance": -1},
            {"set": "2020-01-01T00:00:00Z"},
            {"advance": "x"},
            {},
            {"advance": 1, "set": "x"},
        ):
            with pytest.raises(HTTPError) as refused:
                ask(url + "/sim/clock", body, "POST")
            assert refused.value.code in (400, 422)
            refused.value.close()
        assert ask(url + "/sim/clock")["timestamp"] == after
    finally:
        server.terminate()
        server.communicate(timeout=10)


@pytest.mark.parametrize("hours", ["always", "xnys"])
def test_it_may_be_set_to_any_time_while_nobody_has_an_account(tmp_path: Path, hours: str) -> None:
    paper = Alpacli(tmp_path)
    assert paper("sim", "reset", "--yes", "--hours", hours).code == 0
    server = paper.start(["sim", "serve", "--port", "0", "--clock", "--quiet"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = server.stdout.readline().strip()

        def set_to(time: str) -> str:
            return str(ask(url + "/sim/clock", {"set": time}, "POST")["timestamp"])

        for time in ("2100-06-30T23:59:59.5Z", "1999-12-31T23:59:59Z", "2026-01-05T14:30:00Z"):
            assert set_to(time) == time
        for time in ("2101-01-01T00:00:00Z", "1969-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"):
            with pytest.raises(HTTPError, match="422") as refused:
                set_to(time)
            refused.value.close()
        clock = ask(url + "/v2/clock")  # its account begins here
        assert clock["timestamp"].startswith("2026-01-05T09:30:00")
        assert clock["is_open"] is True
        order = {"symbol": "AAPL", "side": "buy", "qty": "1", "type": "market", "time_in_force": "day"}
        made = ask(url + "/v2/orders", order, "POST")
        assert set_to("2026-01-05T14:31:00Z") == "2026-01-05T14:31:00Z"
        assert ask(url + f"/v2/orders/{made['id']}")["filled_at"].startswith("2026-01-05T14:30")
        with pytest.raises(HTTPError, match="422") as refused:
            set_to("2026-01-05T14:30:59Z")
        with refused.value as answer:
            assert "alpacli sim reset" in json.loads(answer.read())["message"]
        assert paper("sim", "reset", "--yes", "--hours", hours).code == 0
        assert set_to("2025-01-06T14:30:00Z") == "2025-01-06T14:30:00Z"
        assert ask(url + "/v2/clock")["timestamp"].startswith("2025-01-06T09:30:00")
    finally:
        server.terminate()
        server.communicate(timeout=10)


def test_it_never_goes_back() -> None:
    clock = SteppedClock(SystemClock(), 1000.0)
    clock.set(1500.0)
    with pytest.raises(UsageError):
        clock.set(1499.0)
    clock.advance(0.5)
    assert clock.time() == 1500.5


def test_a_request_nested_without_end_is_refused_like_any_nonsense() -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        step(SteppedClock(SystemClock(), 1000.0), b"[" * 1_000_000)
