"""The trading stream without I/O: logins, listening, and what happens to orders."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.support.fakes import ManualClock
from tests.support.sim_account import SimAccount

from alpacli.sim import events
from alpacli.sim.demo import seed_demo
from alpacli.sim.orders import amend, enter, new_order
from alpacli.sim.updates import TradingSession

LOGIN = {"action": "auth", "key": "PKTEST", "secret": "secret"}
LISTEN = {"action": "listen", "data": {"streams": ["trade_updates"]}}


class Listener:
    """A client of the trading stream."""

    def __init__(self, account: SimAccount, *commands: object) -> None:
        self.exchange = account.exchange
        self.session = TradingSession(account.exchange, account.exchange.now_ns())
        self.answers = [self.say(command) for command in commands]

    def say(self, command: object) -> Any:
        (frame,) = self.session.receive(json.dumps(command))
        assert isinstance(frame, bytes)
        return json.loads(frame)

    def hear(self) -> list[dict[str, Any]]:
        frames = [json.loads(frame) for frame in self.session.due(self.exchange.now_ns())]
        assert all(frame["stream"] == "trade_updates" for frame in frames)
        return [frame["data"] for frame in frames]


@pytest.mark.parametrize(
    "login", [LOGIN, {"action": "authenticate", "data": {"key_id": "PKTEST", "secret_key": "secret"}}]
)
def test_both_ways_to_log_in_and_then_to_listen(account: SimAccount, login: object) -> None:
    listener = Listener(account, login, LISTEN)
    assert listener.answers == [
        {"stream": "authorization", "data": {"status": "authorized", "action": "authenticate"}},
        {"stream": "listening", "data": {"streams": ["trade_updates"]}},
    ]
    account.order("AAPL", "buy", "1")
    assert [update["event"] for update in listener.hear()] == ["new"]


@pytest.mark.parametrize(
    ("command", "answer", "over"),
    [
        (LISTEN, {"stream": "authorization", "data": {"status": "unauthorized", "action": "listen"}}, False),
        (
            {"action": "auth", "key": "PK"},
            {"stream": "authorization", "data": {"status": "unauthorized", "action": "authenticate"}},
            True,
        ),
        ({"action": "dance"}, {"action": "error", "data": {"code": 400, "error_message": "invalid syntax"}}, True),
        ([], {"action": "error", "data": {"code": 400, "error_message": "invalid syntax"}}, True),
    ],
)
def test_what_is_refused(account: SimAccount, command: object, answer: object, over: bool) -> None:
    listener = Listener(account, command)
    assert listener.answers == [answer]
    assert listener.session.over == over


def test_who_does_not_log_in_is_shown_out(account: SimAccount) -> None:
    listener = Listener(account)
    account.clock.advance(9.9)
    assert listener.session.due(account.exchange.now_ns()) == []
    account.clock.advance(0.2)
    (frame,) = listener.session.due(account.exchange.now_ns())
    assert json.loads(frame)["data"]["error_message"] == "auth timeout"
    assert listener.session.over


def test_fills_tell_price_quantity_and_position_and_the_order_as_it_was_then(account: SimAccount) -> None:
    account.trade("AAPL", "sell", "3", "200")
    listener = Listener(account, LOGIN, LISTEN)
    order_id = account.order("AAPL", "buy", "10")
    account.clock.advance(1)
    account.fill(order_id, "AAPL", "buy", "4", "250.5")
    account.fill(order_id, "AAPL", "buy", "6", "250.25")
    told = listener.hear()
    assert [update["event"] for update in told] == ["new", "partial_fill", "fill"]
    assert [(u["price"], u["qty"], u["position_qty"]) for u in told[1:]] == [("250.5", "4", "1"), ("250.25", "6", "7")]
    assert [update["order"]["status"] for update in told] == ["new", "partially_filled", "filled"]
    assert told[-1]["order"] == account.get(f"/v2/orders/{order_id}", nested="true")
    executions = [row["id"].partition("::")[2] for row in account.get("/v2/account/activities/FILL", direction="asc")]
    assert [update["execution_id"] for update in told[1:]] == executions[1:]
    assert "price" not in told[0]
    assert listener.hear() == []


def test_what_happened_before_listening_is_not_told_and_nothing_while_not_listening(account: SimAccount) -> None:
    account.order("AAPL", "buy", "1")
    listener = Listener(account, LOGIN, LISTEN)
    assert listener.hear() == []
    account.order("AAPL", "buy", "2")
    assert listener.say({"action": "listen", "data": {"streams": []}})["data"]["streams"] == []
    assert listener.hear() == []
    listener.say(LISTEN)
    account.order("AAPL", "buy", "3")
    assert [update["order"]["qty"] for update in listener.hear()] == ["3"]


def test_an_account_hears_only_of_itself_and_each_listener_of_everything(tmp_path: Path, account: SimAccount) -> None:
    """Orders of another account, and of another process on the same file."""
    clock = ManualClock()
    with SimAccount(tmp_path, clock, "PKOTHER") as other, SimAccount(tmp_path, clock, "PKTEST") as same:
        listeners = [Listener(account, LOGIN, LISTEN) for _ in range(2)]
        other.order("MSFT", "buy", "1")
        for number in range(1, 6):
            (same if number % 2 else account).order("AAPL", "buy", str(number))
        for listener in listeners:
            assert [update["order"]["qty"] for update in listener.hear()] == ["1", "2", "3", "4", "5"]


def test_ends_of_orders_are_events_once(account: SimAccount) -> None:
    listener = Listener(account, LOGIN, LISTEN)
    number = account.exchange.account_number("PKTEST", "secret")
    for status in ("canceled", "expired", "rejected", "replaced", "done_for_day"):
        order_id = account.order("AAPL", "buy", "1")
        with account.exchange.desk(number, changes=True) as desk:
            amend(desk, order_id, desk.now_ns, status=status)
            amend(desk, order_id, desk.now_ns, status=status)
            amend(desk, order_id, desk.now_ns, limit_price=Decimal(2))
    told = listener.hear()
    assert [update["event"] for update in told[1::2]] == ["canceled", "expired", "rejected", "replaced", "done_for_day"]
    assert len(told) == 10
    assert len({update["execution_id"] for update in told}) == 10
    assert all(update["timestamp"] for update in told)


def test_a_bracket_tells_of_its_legs_and_a_held_leg_once_it_works(account: SimAccount) -> None:
    listener = Listener(account, LOGIN, LISTEN)
    number = account.exchange.account_number("PKTEST", "secret")
    with account.exchange.desk(number, changes=True) as desk:
        entry = new_order("AAPL", "buy", "market", "gtc", desk.now_ns, Decimal(1), order_class="bracket")
        leg = {**entry, "side": "sell", "status": "held"}
        exits = [
            {**leg, "order_type": "limit", "limit_price": Decimal(300)},
            {**leg, "order_type": "stop", "stop_price": Decimal(200)},
        ]
        parent = enter(desk, entry, exits)
        profit = desk.book.legs_of(parent)[0]["id"]
    (new,) = listener.hear()
    assert [order["limit_price"] or order["stop_price"] for order in new["order"]["legs"]] == ["300", "200"]
    with account.exchange.desk(number, changes=True) as desk:
        amend(desk, profit, desk.now_ns, status="new")
    (works,) = listener.hear()
    assert (works["event"], works["order"]["id"]) == ("new", profit)


def test_what_is_undone_is_not_told(account: SimAccount) -> None:
    listener = Listener(account, LOGIN, LISTEN)
    number = account.exchange.account_number("PKTEST", "secret")

    def change_of_mind() -> None:
        with account.exchange.desk(number, changes=True) as desk:
            enter(desk, new_order("AAPL", "buy", "market", "day", desk.now_ns, Decimal(1)))
            raise RuntimeError("the rules say no")

    with pytest.raises(RuntimeError):
        change_of_mind()
    assert listener.hear() == []


def test_made_up_history_is_no_news(account: SimAccount) -> None:
    listener = Listener(account, {**LOGIN, "key": "SIM"}, LISTEN)
    assert seed_demo(account.exchange, "SIM")
    assert listener.hear() == []


def test_a_reset_ends_the_stream(account: SimAccount) -> None:
    listener = Listener(account, LOGIN, LISTEN)
    account.exchange.reset()
    (frame,) = listener.session.due(account.exchange.now_ns())
    assert json.loads(frame)["action"] == "error"
    assert listener.session.over


def test_an_account_keeps_the_last_events_only(account: SimAccount) -> None:
    number = account.exchange.account_number("PKTEST", "secret")
    with account.exchange.desk(number, changes=True) as desk:
        for _ in range(events.KEPT + 200):
            events.record(desk.db, number, [b"[]"])
        kept = desk.db.execute("SELECT count(*), max(seq) FROM events WHERE account = ?", (number,)).fetchone()
    assert events.KEPT <= kept[0] < events.KEPT + 100
    assert kept[1] == events.KEPT + 200
