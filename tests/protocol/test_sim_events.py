"""Account activities as server-sent events: a real server over a real socket, followed as a client of events follows it."""

import json
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
import requests
from tests.support.alpacli import Alpacli
from tests.support.openapi import require_specs, schema_validator
from tests.support.sim_account import SimAccount
from tests.support.sim_server import SimServer

from alpacli.ports import SystemClock
from alpacli.sim.activity_stream import ACTIVITY_EVENTS_PATH
from alpacli.sim.exchange import Exchange
from alpacli.sim.ledger import Settlement, settle_position
from alpacli.sim.orders import enter, fill_order, new_order
from alpacli.sim.sockets import Limits

BEGIN = "2000-01-01"
SECRET = "s"


def keys(key: str) -> dict[str, str]:
    return {"APCA-API-KEY-ID": key, "APCA-API-SECRET-KEY": SECRET}


class Follower:
    """A client of the stream; ``next`` gives one event, ``rest`` all until the server ends the answer."""

    def __init__(self, url: str, key: str, last_id: str | None = None, **query: str) -> None:
        headers = keys(key) | ({"Last-Event-ID": last_id} if last_id is not None else {})
        self.answer = requests.get(url + ACTIVITY_EVENTS_PATH, query, headers=headers, stream=True, timeout=20)
        assert self.answer.status_code == 200, self.answer.text
        self.lines: Iterator[str] = self.answer.iter_lines(chunk_size=1, decode_unicode=True)
        self.comments: list[str] = []

    def next(self) -> Any:
        return next(self.events())

    def events(self) -> Iterator[Any]:
        event_id = ""
        for line in self.lines:
            if line.startswith(":"):
                self.comments.append(line[1:].strip())
            elif line.startswith("id: "):
                event_id = line[4:]
            elif line.startswith("data: "):
                event = json.loads(line[6:])
                assert event["event_id"] == event_id
                yield event

    def rest(self) -> list[Any]:
        return list(self.events())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.answer.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimServer]:
    with SimServer(tmp_path_factory.mktemp("sim"), limits=Limits(heartbeat_s=0.1)) as running:
        yield running


def trade(exchange: Exchange, key: str, *parts: str, symbol: str = "AAPL") -> str:
    """Buy at once, in parts."""
    with exchange.desk(exchange.account_number(key, SECRET), changes=True) as desk:
        order_id = enter(
            desk, new_order(symbol, "buy", "market", "day", desk.now_ns, sum(map(Decimal, parts), Decimal(0)))
        )
        for part in parts:
            fill_order(desk, order_id, Decimal(part), desk.market.tape.quote(symbol, desk.now_ns).ask, desk.now_ns)
    return order_id


def quantities(events: list[Any]) -> list[str]:
    return [event["qty"] for event in events]


def test_history_comes_first_and_then_each_fill_as_it_happens(server: SimServer) -> None:
    trade(server.exchange, "PKLIVE", "3", "4")
    with Follower(server.url, "PKLIVE", since=BEGIN) as follower:
        assert follower.answer.headers["Content-Type"] == "text/event-stream"
        assert follower.answer.headers["Cache-Control"] == "no-cache"
        assert "X-Request-ID" in follower.answer.headers
        begun, first, second = (follower.next() for _ in range(3))
        assert (begun["activity_type"], begun["net_amount"]) == ("JNLC", "100000")
        assert [event["activity_type"] for event in (first, second)] == ["TRD", "TRD"]
        order_id = trade(server.exchange, "PKLIVE", "5")
        third = follower.next()
    assert quantities([first, second, third]) == ["3", "4", "5"]
    assert third["details"]["order_id"] == order_id
    rows = requests.get(server.url + "/v2/account/activities/FILL", headers=keys("PKLIVE"), timeout=10).json()
    assert [row["id"].partition("::")[2] for row in reversed(rows)] == [e["ref_id"] for e in (first, second, third)]
    ids = [event["event_id"] for event in (begun, first, second, third)]
    assert ids == sorted(set(ids))


def test_without_a_beginning_nothing_old_is_told(server: SimServer) -> None:
    trade(server.exchange, "PKNEW", "1")
    with Follower(server.url, "PKNEW") as follower:
        trade(server.exchange, "PKNEW", "2")
        assert follower.next()["qty"] == "2"


def test_nobody_hears_of_the_fills_of_another_account(server: SimServer) -> None:
    with Follower(server.url, "PKMINE") as follower:
        trade(server.exchange, "PKOTHER", "1")
        trade(server.exchange, "PKMINE", "2")
        assert follower.next()["qty"] == "2"


def test_what_another_process_books_is_told_too(server: SimServer) -> None:
    other = Exchange(str(Path(server.exchange.status().path).parent), SystemClock())
    try:
        with Follower(server.url, "PKFAR") as follower:
            trade(other, "PKFAR", "6")
            assert follower.next()["qty"] == "6"
    finally:
        other.close()


@pytest.mark.parametrize("by_header", [False, True])
def test_a_client_that_goes_on_after_an_id_loses_nothing_and_hears_nothing_twice(
    server: SimServer, *, by_header: bool
) -> None:
    key = f"PKAGAIN{by_header}"
    trade(server.exchange, key, *"1234")
    with Follower(server.url, key, since=BEGIN) as follower:
        heard = [follower.next() for _ in range(3)]
    trade(server.exchange, key, *"56")
    for _ in range(2):
        last = heard[-1]["event_id"]
        query = {"since": BEGIN, "last_id": last} if by_header else {"since_id": last}
        with Follower(server.url, key, **query) as follower:
            heard += [follower.next() for _ in range(2)]
            if len(heard) == 7:
                trade(server.exchange, key, "7")
                heard.append(follower.next())
    assert quantities(heard) == [*"01234567"]


def test_none_is_lost_while_clients_come_and_go_and_another_process_trades(server: SimServer) -> None:
    other = Exchange(str(Path(server.exchange.status().path).parent), SystemClock())
    wanted = [str(number) for number in range(1, 41)]

    def trade_on() -> None:
        for number in wanted:
            trade(other, "PKBUSY", number)

    trader = threading.Thread(target=trade_on)
    trader.start()
    try:
        with Follower(server.url, "PKBUSY", since=BEGIN) as follower:
            heard = [follower.next()]
        while len(heard) <= len(wanted):
            with Follower(server.url, "PKBUSY", since_id=heard[-1]["event_id"]) as follower:
                heard += islice(follower.events(), min(3, 1 + len(wanted) - len(heard)))
    finally:
        trader.join()
        other.close()
    assert quantities(heard[1:]) == wanted


def test_the_end_of_a_range_ends_the_stream(server: SimServer) -> None:
    trade(server.exchange, "PKEND", *"123")
    with Follower(server.url, "PKEND", since=BEGIN, until="2100-01-01") as follower:
        events = [follower.next() for _ in range(4)]
    begun, first, second, third = (event["event_id"] for event in events)
    for query, told in (
        ({"since_id": begun, "until_id": second}, "12"),
        ({"since_id": second, "until_id": third}, "3"),
        ({"since_id": first, "until_id": first}, ""),
        ({"since": BEGIN, "until": events[0]["at"]}, ""),
        ({"since": events[0]["at"], "until": events[1]["at"]}, "0"),
    ):
        with Follower(server.url, "PKEND", **query) as follower:
            assert quantities(follower.rest()) == [*told], query


def test_an_end_that_is_still_to_come_ends_it_then(server: SimServer) -> None:
    trade(server.exchange, "PKSOON", "1")
    until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(server.exchange.now_ns() // 10**9 + 2))
    with Follower(server.url, "PKSOON", since=BEGIN, until=until) as follower:
        assert quantities(follower.rest()) == ["0", "1"]


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ({"until": BEGIN}, "since is required"),
        ({"until_id": "0" * 26}, "since_id is required"),
        ({"since": BEGIN, "until_id": "0" * 26}, "since_id is required"),
        ({"since_id": "0" * 26, "until": BEGIN}, "since is required"),
        ({"since": BEGIN, "since_id": "0" * 26}, "mutually exclusive"),
        ({"since": "yesterday"}, "invalid since"),
        ({"since": BEGIN, "until": "soon"}, "invalid until"),
        ({"since": "2000-01-02", "until": BEGIN}, "before its beginning"),
        ({"since_id": "0" * 25}, "invalid since_id"),
        ({"since_id": "8" + "0" * 25}, "invalid since_id"),
        ({"since_id": "0" * 25 + "U"}, "invalid since_id"),
    ],
)
def test_a_combination_that_means_nothing_is_refused(server: SimServer, query: dict[str, str], why: str) -> None:
    answer = requests.get(server.url + ACTIVITY_EVENTS_PATH, query, headers=keys("PKBAD"), timeout=10)
    assert answer.status_code == 422
    assert why in answer.json()["message"]


def test_an_id_of_the_farthest_future_is_one_too(server: SimServer) -> None:
    with Follower(server.url, "PKFUTURE", since_id="7" + "Z" * 25) as follower:
        assert follower.answer.status_code == 200


def test_who_has_no_keys_hears_nothing(server: SimServer) -> None:
    assert requests.get(server.url + ACTIVITY_EVENTS_PATH, timeout=10).status_code == 401


def test_a_comment_says_now_and_then_that_the_server_is_there(server: SimServer) -> None:
    with Follower(server.url, "PKQUIET") as follower:
        assert [next(follower.lines), next(follower.lines)] == [": heartbeat", ""]


def test_a_reset_ends_the_stream_and_says_why(tmp_path: Path) -> None:
    with SimServer(tmp_path) as server, Follower(server.url, "PKRESET") as follower:
        server.exchange.reset()
        assert follower.rest() == []
        assert follower.comments == ["the exchange was reset"]


def test_events_fit_their_schemas(server: SimServer) -> None:
    require_specs()
    trade(server.exchange, "PKSCHEMA", "1", "2")
    trade(server.exchange, "PKSCHEMA", "0.5", symbol="BTC/USD")
    contract = requests.get(
        server.url + "/v2/options/contracts",
        {"underlying_symbols": "AAPL", "limit": "1"},
        headers=keys("PKSCHEMA"),
        timeout=10,
    ).json()["option_contracts"][0]["symbol"]
    trade(server.exchange, "PKSCHEMA", "1", symbol=contract)
    with server.exchange.desk(server.exchange.account_number("PKSCHEMA", SECRET), changes=True) as desk:
        group = "61e69015-8549-4bfd-b9c3-01e75843f47d"
        settle_position(desk.book, Settlement("OPEXP", group, contract, "sell", Decimal(1), Decimal(0), desk.now_ns))
    with Follower(server.url, "PKSCHEMA", since=BEGIN) as follower:
        events = [follower.next() for _ in range(6)]
    assert [event["activity_type"] for event in events] == ["JNLC", "TRD", "TRD", "TRD", "TRD", "OPEXP"]
    assert [event["details"]["order_status"] for event in events[1:3]] == ["partially_filled", "filled"]
    for event in events:
        # The document says oneOf many schemas of which several allow each row, so details are held against their own.
        own = "ActivityV2DetailTRD" if event["activity_type"] == "TRD" else f"{event['activity_type']}ActivityV2"
        assert list(schema_validator("ActivityEventV2CommonFields").iter_errors(event)) == []
        assert list(schema_validator(own).iter_errors(event["details"])) == []
    bought = events[1]
    assert Decimal(bought["net_amount"]) == -round(Decimal(bought["qty"]) * Decimal(bought["price"]), 2)
    assert bought["settle_date"] > bought["executed_at"][:9]
    assert events[3]["settle_date"] < bought["settle_date"]


def test_a_client_that_goes_away_leaves_nothing_behind(tmp_path: Path) -> None:
    with SimServer(tmp_path) as server:
        with Follower(server.url, "PKGONE"), Follower(server.url, "PKGONE"):
            assert server.being_served == 2
        deadline = time.monotonic() + 10
        while server.being_served and time.monotonic() < deadline:
            time.sleep(0.02)
        assert server.being_served == 0


def test_in_process_the_answer_ends_with_what_has_happened(tmp_path: Path) -> None:
    with SimAccount(tmp_path) as account:
        account.trade("AAPL", "buy", "1")
        answer = account.send("GET", ACTIVITY_EVENTS_PATH, since=BEGIN)
        assert [line[:3] for line in answer.body.decode().splitlines()] == ["id:", "dat", "", "id:", "dat", ""]
        assert account.send("GET", ACTIVITY_EVENTS_PATH).body == b""


# ------------------------------------------------------------------------------- `alpacli sim serve` and `sim replay`


class Process:
    """``alpacli sim …`` as a process, without an access log."""

    def __init__(self, root: Path, *command: str) -> None:
        self.process = Alpacli(root).start(
            ["sim", *command, "--port", "0", "--quiet"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()

    def ask(self, path: str, body: object) -> None:
        requests.post(self.url + path, json=body, headers=keys("PK"), timeout=10).raise_for_status()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.communicate(timeout=20)


ORDER = {"symbol": "AAPL", "side": "buy", "qty": "3", "type": "market", "time_in_force": "day"}


def until_filled(follower: Follower) -> list[Any]:
    filled = [follower.next()]
    while filled[-1]["details"]["order_status"] != "filled":
        filled.append(follower.next())
    assert sum(int(event["qty"]) for event in filled) == 3
    return filled


def test_time_that_is_moved_brings_the_fills_that_were_due_and_sigterm_ends_the_stream(tmp_path: Path) -> None:
    with Process(tmp_path, "serve", "--clock") as serving, Follower(serving.url, "PK") as follower:
        serving.ask("/v2/orders", ORDER)
        serving.ask("/sim/clock", {"advance": 600})
        until_filled(follower)
        with Follower(serving.url, "PK"):
            pass  # it leaves at once, and the server has nothing to say about it
        serving.process.send_signal(signal.SIGTERM)
        assert follower.rest() == []  # the answer has its proper end, or this raises
        _, errors = serving.process.communicate(timeout=20)
        assert (serving.process.returncode, errors) == (0, "")


@pytest.mark.parametrize("pace", [("--clock",), ("--speed", "120")])
def test_a_replayed_day_tells_its_fills_in_its_own_time(tmp_path: Path, pace: tuple[str, ...]) -> None:
    rows = [f"2024-01-03T14:{minute}:00Z,100,102,99,101,1000" for minute in range(30, 50)]
    (tmp_path / "AAPL.csv").write_text("\n".join(["timestamp,open,high,low,close,volume", *rows]) + "\n")
    with (
        Process(tmp_path, "replay", str(tmp_path / "AAPL.csv"), *pace) as replay,
        Follower(replay.url, "PK") as follower,
    ):
        replay.ask("/v2/orders", ORDER)
        if pace == ("--clock",):
            replay.ask("/sim/clock", {"advance": 900})
        assert all(event["executed_at"].startswith("2024-01-03T14:") for event in until_filled(follower))
