"""Every way an order can go wrong, and what the user is told: sent once, not sent, or unknown. Nothing else."""

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.support import parts
from tests.support.fakes import ACCOUNT, ManualClock, ScriptedTransport, SetClock, answer

from alpacli.broker.async_client import AsyncAlpacaClient
from alpacli.broker.client import AlpacaClient
from alpacli.broker.forward import find_route
from alpacli.broker.risk import RiskRules
from alpacli.domain.tickets import OrderTicket
from alpacli.errors import (
    AlpacliError,
    BudgetExhausted,
    ConnectionLost,
    FateUnknown,
    NotFound,
    OrderInterrupted,
    OrderRefused,
    OrderRejected,
    RequestTimeout,
    UsageError,
)
from alpacli.ports import BudgetRules, Granted, Refused, Request, Response, Ticket, Wait
from alpacli.store.halt import Halt
from alpacli.store.journal import Journal
from alpacli.store.sqlite import SqliteStore

BUY = OrderTicket(symbol="AAPL", side="buy", qty=Decimal(10), client_order_id="mine")
NOT_FOUND = answer({"code": 40410000, "message": "order not found"}, 404)
TAKEN = answer({"code": 40010001, "message": "client_order_id must be unique"}, 422)
POOR = answer({"code": 40310000, "message": "insufficient buying power", "buying_power": "1"}, 403)
BROKEN = answer({"code": 50010000, "message": "internal server error occurred"}, 500)
LOST = ConnectionLost("reset")
LATE = RequestTimeout("no complete answer")


def refused_connection() -> ConnectionLost:
    error = ConnectionLost("refused")
    error.nothing_sent = True
    return error


def placed(client_order_id: str = "mine", **changes: Any) -> Response:
    order = {
        "id": "a1",
        "client_order_id": client_order_id,
        "symbol": "AAPL",
        "side": "buy",
        "qty": "10",
        "order_class": "simple",
        "time_in_force": "day",
        "status": "pending_new",
        "type": "market",
        "extended_hours": False,
        "created_at": "2026-05-28T20:26:40Z",
        "filled_qty": "0",
    }
    return answer({**order, **changes})


POSITION = {
    "asset_id": "b",
    "symbol": "AAPL",
    "exchange": "NASDAQ",
    "asset_class": "us_equity",
    "qty": "10",
    "side": "long",
    "qty_available": "10",
    "avg_entry_price": "100",
    "cost_basis": "1000",
    "market_value": "1100",
}


class Bench:
    """A client on scripted answers, with a journal on the disk."""

    def __init__(
        self,
        folder: Path,
        *answers: Response | Exception,
        rules: RiskRules | None = None,
        halted: Halt | None = None,
        before: Callable[[Request], None] | None = None,
        store: SqliteStore | None = None,
        at: float = 1_780_000_000.0,
        budget: BudgetRules | None = None,
        pid: int = 1,
    ) -> None:
        self.clock = SetClock(at)
        self.transport = ScriptedTransport(*answers, before=before)
        self.journal = Journal(str(folder / "orders.jsonl"))
        self.warnings: list[str] = []
        self.store = store or SqliteStore(":memory:", self.clock)
        pipeline = parts.pipeline(self.store, self.clock, rules=budget or BudgetRules("alpaca:{test}"))
        desk = parts.desk(
            pipeline,
            self.clock,
            self.journal,
            rules=lambda: rules or RiskRules(),
            halted=lambda: halted,
            pid=pid,
            warn=self.warnings.append,
        )
        self.pipeline, self.desk = pipeline, desk
        self.client = AlpacaClient(pipeline, self.transport, clock=self.clock, open_desk=lambda: desk)

    @property
    def methods(self) -> str:
        return " ".join(request.method for request in self.transport.sent)

    @property
    def outcomes(self) -> list[str]:
        return [line.get("outcome", line["phase"]) for line in self.journal.records()]


def test_the_order_is_in_the_journal_before_it_is_sent(tmp_path: Path) -> None:
    seen: list[Mapping[str, Any]] = []
    bench: list[Bench] = []
    bench.append(Bench(tmp_path, placed(), before=lambda _: seen.extend(bench[0].journal.records())))
    order = bench[0].client.trading.place(BUY)
    assert order.id == "a1"
    assert [(line["phase"], line["client_order_id"]) for line in seen] == [("sent", "mine")]
    assert bench[0].outcomes == ["sent", "placed"]
    assert bench[0].journal.verify() == (2, [])


UNSURE = answer({"code": 40910000, "message": "the order was sent, and whether it was taken is unknown"}, 409)
"""What a gateway says that could not find out."""


@pytest.mark.parametrize(
    "failure", [LOST, LATE, BROKEN, UNSURE, answer(b"<html>"), placed("another's"), placed("no one's")]
)
def test_after_a_doubtful_answer_the_id_is_looked_up_and_an_order_that_is_there_is_not_sent_again(
    tmp_path: Path, failure: Response | Exception
) -> None:
    bench = Bench(tmp_path, failure, placed())
    assert bench.client.trading.place(BUY).client_order_id == "mine"
    assert bench.methods == "POST GET"
    assert bench.outcomes == ["sent", "placed"]


@pytest.mark.parametrize("failure", [LOST, LATE, BROKEN])
def test_an_order_that_is_not_there_is_sent_again_with_the_same_id(
    tmp_path: Path, failure: Response | Exception
) -> None:
    bench = Bench(tmp_path, failure, NOT_FOUND, placed())
    bench.client.trading.place(BUY)
    assert bench.methods == "POST GET POST"
    bodies = [request.body for request in bench.transport.sent if request.method == "POST"]
    assert bodies[0] == bodies[1]
    assert b'"client_order_id":"mine"' in (bodies[0] or b"")


def test_an_order_that_arrives_after_it_was_looked_up_is_found_when_its_repetition_is_refused(tmp_path: Path) -> None:
    bench = Bench(tmp_path, LATE, NOT_FOUND, TAKEN, placed())
    assert bench.client.trading.place(BUY).id == "a1"
    assert bench.methods == "POST GET POST GET"
    assert bench.outcomes == ["sent", "placed"]


def test_what_cannot_be_looked_up_is_unknown_and_stays_in_the_journal(tmp_path: Path) -> None:
    bench = Bench(tmp_path, LOST)
    with pytest.raises(FateUnknown) as unknown:
        bench.client.trading.place(BUY)
    assert unknown.value.exit_code == 7
    assert "mine" in unknown.value.hint
    assert bench.methods == "POST GET GET GET"
    assert bench.outcomes == ["sent", "unknown"]


def test_what_is_told_of_an_unknown_order_is_what_happened_to_it_and_not_to_the_question(tmp_path: Path) -> None:
    bench = Bench(tmp_path, LATE, LOST)
    with pytest.raises(FateUnknown, match="no complete answer"):
        bench.client.trading.place(BUY)


def test_three_doubtful_sends_that_are_never_there_are_unknown_not_lost(tmp_path: Path) -> None:
    bench = Bench(tmp_path, LATE, NOT_FOUND, LATE, NOT_FOUND, LATE, NOT_FOUND)
    with pytest.raises(FateUnknown):
        bench.client.trading.place(BUY)
    assert bench.methods == "POST GET POST GET POST GET"


def test_a_refusal_after_a_doubtful_send_is_unknown_when_the_order_is_not_there(tmp_path: Path) -> None:
    bench = Bench(tmp_path, LATE, NOT_FOUND, POOR, NOT_FOUND)
    with pytest.raises(FateUnknown):
        bench.client.trading.place(BUY)


def test_a_refusal_is_a_refusal(tmp_path: Path) -> None:
    bench = Bench(tmp_path, POOR)
    with pytest.raises(OrderRejected):
        bench.client.trading.place(BUY)
    assert bench.methods == "POST"
    assert bench.outcomes == ["sent", "refused"]


def test_without_a_connection_nothing_was_sent_and_that_is_said(tmp_path: Path) -> None:
    bench = Bench(tmp_path, refused_connection())
    with pytest.raises(ConnectionLost):
        bench.client.trading.place(BUY)
    assert bench.methods == "POST POST POST"
    assert bench.outcomes == ["sent", "not sent"]


def test_a_journal_that_cannot_be_written_stops_the_order(tmp_path: Path) -> None:
    (tmp_path / "orders.jsonl").mkdir()
    bench = Bench(tmp_path, placed())
    with pytest.raises(AlpacliError, match="journal"):
        bench.client.trading.place(BUY)
    assert bench.methods == ""


def test_an_interruption_leaves_the_question_in_the_journal(tmp_path: Path) -> None:
    bench = Bench(tmp_path, placed(), before=_interrupt)
    with pytest.raises(KeyboardInterrupt):
        bench.client.trading.place(BUY)
    assert bench.outcomes == ["sent"]


def test_an_interruption_between_an_order_and_its_caller_names_it_too(tmp_path: Path) -> None:
    class Interrupted(SqliteStore):
        def drop(self, prefix: str) -> int:
            raise KeyboardInterrupt  # while what the order made stale is forgotten

    bench = Bench(tmp_path, placed(), store=Interrupted(":memory:", SetClock(0.0)))
    with pytest.raises(OrderInterrupted) as stop:
        bench.client.trading.place(BUY)
    assert stop.value.client_order_id == "mine"
    assert bench.outcomes == ["sent", "placed"]


def _interrupt(request: Request) -> None:
    if request.method == "POST":
        raise KeyboardInterrupt


def test_unresolved_orders_are_found_and_are_no_question_any_more(tmp_path: Path) -> None:
    bench = Bench(tmp_path, LOST)
    with pytest.raises(FateUnknown):
        bench.client.trading.place(BUY)
    bench = Bench(tmp_path, placed())
    (found,) = bench.client.trading.unresolved()
    assert (found.client_order_id, found.outcome) == ("mine", "placed")
    assert '"mine"' in str(found.request["body"])
    assert bench.client.trading.unresolved() == []
    assert bench.journal.verify()[1] == []


def test_an_order_that_is_not_there_is_uncertain_for_two_minutes_and_then_not_placed(tmp_path: Path) -> None:
    bench = Bench(tmp_path, LOST, LOST, LOST, LOST, NOT_FOUND)
    with pytest.raises(FateUnknown):
        bench.client.trading.place(BUY)
    assert [item.outcome for item in bench.client.trading.unresolved()] == ["unknown"]
    bench.clock.advance(121)
    assert [item.outcome for item in bench.client.trading.unresolved()] == ["not placed"]
    assert bench.client.trading.unresolved() == []


def test_an_order_that_cannot_be_asked_for_stays_unknown_and_the_others_are_told(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with pytest.raises(FateUnknown):
            Bench(tmp_path, LOST).client.trading.place(BUY._replace(client_order_id=name))
    for there, outcome in ((NOT_FOUND, "unknown"), (placed("b"), "placed")):
        found = Bench(tmp_path, LOST, LOST, LOST, there).client.trading.unresolved()
        assert [(item.client_order_id, item.outcome) for item in found] == [("a", "unknown"), ("b", outcome)]
    (still,) = Bench(tmp_path, LOST).client.trading.unresolved()  # of "a", and the journal still says what it was
    assert (still.outcome, still.request["method"]) == ("unknown", "POST")
    assert still.error is not None
    assert still.error["type"] == "ConnectionLost"


def test_an_order_that_another_process_is_sending_is_in_flight_and_left_to_it(tmp_path: Path) -> None:
    seen: list[tuple[str, str]] = []

    def look(_: Request) -> None:
        other = Bench(tmp_path, pid=os.getpid())
        seen.extend((item.client_order_id, item.outcome) for item in other.client.trading.unresolved())
        assert other.methods == ""

    Bench(tmp_path, placed(), before=look, pid=1).client.trading.place(BUY)  # process 1 is always there
    assert seen == [("mine", "in flight")]
    assert Bench(tmp_path).client.trading.unresolved() == []


def test_an_order_and_the_question_what_became_of_it_may_use_what_reads_have_to_leave(tmp_path: Path) -> None:
    bench = Bench(tmp_path, answer(ACCOUNT), LOST, placed(), budget=BudgetRules("alpaca:{test}", limit=3, reserve=2))
    bench.client.get_account(use_cache=False)
    begin = bench.clock.time()
    assert bench.client.trading.place(BUY).id == "a1"
    assert bench.methods == "GET POST GET"
    assert bench.clock.time() == begin


def test_how_old_an_order_is_may_be_asked_with_what_reads_have_to_leave(tmp_path: Path) -> None:
    budget = BudgetRules("alpaca:{test}", limit=4, reserve=3)
    young = at_the_broker("2026-05-28T20:22:00Z")
    bench = Bench(tmp_path, answer(ACCOUNT), LOST, EQUAL_OF_BEFORE, young, budget=budget)
    bench.client.get_account(use_cache=False)
    begin = bench.clock.time()
    assert bench.client.trading.place(BUY).id == "a1"
    assert bench.methods == "GET POST GET GET"
    assert bench.clock.time() == begin


def test_a_replacement_is_looked_up_by_an_id_of_its_own(tmp_path: Path) -> None:
    bench = Bench(tmp_path, LOST, placed("token-1"))
    with pytest.raises(FateUnknown):  # the answer is not about ours: alpacli-token-1 was sent
        bench.client.trading.replace("a1", {"limit_price": "5"})
    replacement = placed("alpacli-token-1", id="a2", replaces="a1", type="limit", limit_price="5.00")
    bench = Bench(tmp_path, LOST, replacement)
    assert bench.client.trading.replace("a1", {"limit_price": "5"}).id == "a2"
    assert bench.methods == "PATCH GET"


ANOTHER = placed(symbol="MSFT", side="sell", qty="5", status="filled", id="b7")


@pytest.mark.parametrize("first", [(LOST,), (LATE, NOT_FOUND, TAKEN)])
def test_another_order_under_the_id_is_a_refusal_and_never_this_order(
    tmp_path: Path, first: tuple[Response | Exception, ...]
) -> None:
    bench = Bench(tmp_path, *first, ANOTHER)
    with pytest.raises(OrderRejected) as refused:
        bench.client.trading.place(BUY)
    error = refused.value
    assert error.message == (
        "client_order_id must be unique: mine is the ID of another order"
        " (sell 5 MSFT, filled, of 2026-05-28T20:26:40Z): its symbol is MSFT, not AAPL"
    )
    assert (error.exit_code, error.status, error.code) == (4, 422, 40010001)
    assert "an ID of its own" in error.hint.replace("a client order ID", "an ID")
    *_, line = bench.journal.records()
    assert (line["outcome"], line["error"], line["message"]) == ("refused", "OrderRejected", error.message)
    assert bench.client.trading.unresolved() == []


def test_a_replacement_with_an_id_that_is_another_orders_is_refused(tmp_path: Path) -> None:
    changes = {"limit_price": "5", "client_order_id": "mine"}
    for found in (placed(), placed(replaces="a0", limit_price="5"), placed(replaces="a1", limit_price="6")):
        bench = Bench(tmp_path, LOST, found)
        with pytest.raises(OrderRejected, match="mine is the ID of another order"):
            bench.client.trading.replace("a1", changes)
        assert bench.methods == "PATCH GET"
    bench = Bench(tmp_path, LOST, placed(replaces="a1", limit_price="5", id="a2", created_at="2026-01-05T14:01:02Z"))
    assert bench.client.trading.replace("a1", changes).id == "a2"


def test_an_order_in_alpacas_own_words_is_compared_too(tmp_path: Path) -> None:
    """As a gateway passes it on: numbers may be numbers, and what is left away is Alpaca's to fill in."""
    route = find_route("/v2/orders")
    assert route is not None
    body = b'{"symbol":"AAPL","side":"buy","qty":10.0,"type":"market","time_in_force":"day","client_order_id":"mine"}'
    bench = Bench(tmp_path, LOST, placed())
    assert b'"a1"' in bench.client.forward(route, Request("POST", "/v2/orders", body=body)).response.body
    bench = Bench(tmp_path, LOST, ANOTHER)
    with pytest.raises(OrderRejected, match="its symbol is MSFT"):
        bench.client.forward(route, Request("POST", "/v2/orders", body=body))


def test_the_async_client_compares_what_it_finds(tmp_path: Path) -> None:
    bench = Bench(tmp_path, LOST, ANOTHER)

    async def place() -> None:
        async with AsyncAlpacaClient(
            bench.pipeline, bench.transport, sleep=bench.clock.sleep_async, open_desk=lambda: bench.desk
        ) as client:
            await client.trading.place(BUY)

    with pytest.raises(OrderRejected, match="another order"):
        asyncio.run(place())
    assert bench.outcomes == ["sent", "refused"]


def test_another_order_under_an_id_that_was_made_here_is_an_answer_that_cannot_be_true(tmp_path: Path) -> None:
    """Nobody else can have the ID, so nothing is known but that something stands between."""
    bench = Bench(tmp_path, LOST, placed("alpacli-token-1", symbol="MSFT"))
    with pytest.raises(FateUnknown):
        bench.client.trading.place(BUY._replace(client_order_id=None))
    (found,) = bench.client.trading.unresolved()
    assert (found.outcome, found.order) == ("unknown", None)
    assert found.error is not None
    assert found.error["message"] == "the answer is about another order"
    bench.transport.answers = [placed("alpacli-token-1")]
    assert [item.outcome for item in bench.client.trading.unresolved()] == ["placed"]


def test_an_order_with_an_id_that_was_made_here_is_ours_whatever_the_clocks_say(tmp_path: Path) -> None:
    bench = Bench(tmp_path, LOST, placed("alpacli-token-1", created_at="2026-01-05T14:01:02Z"))
    assert bench.client.trading.place(BUY._replace(client_order_id=None)).id == "a1"
    assert bench.methods == "POST GET"


def at_the_broker(time: str) -> Response:
    times = {"timestamp": time, "next_open": "2026-05-29T13:30:00Z", "next_close": "2026-05-29T20:00:00Z"}
    return answer({**times, "is_open": False})


EQUAL_OF_BEFORE = placed(created_at="2026-05-28T20:20:00Z", status="filled")


def test_an_equal_order_of_before_is_not_this_one(tmp_path: Path) -> None:
    """The broker's own clock tells how old it is: 400 seconds, and the first sending was a moment ago."""
    bench = Bench(tmp_path, LOST, EQUAL_OF_BEFORE, at_the_broker("2026-05-28T20:26:40Z"))
    with pytest.raises(OrderRejected, match="it was placed before"):
        bench.client.trading.place(BUY)
    assert bench.methods == "POST GET GET"
    assert bench.transport.sent[-1].path == "/v2/clock"
    assert bench.outcomes == ["sent", "refused"]


@pytest.mark.parametrize(("now", "ours"), [("2026-05-28T20:22:00Z", True), ("2026-05-28T20:22:01Z", False)])
def test_a_clock_that_is_wrong_here_makes_no_order_an_older_one(tmp_path: Path, now: str, ours: bool) -> None:
    """Here it is 20:26:40; at the broker two minutes have passed since the order, or more: an hour ago is no time for it."""
    bench = Bench(tmp_path, LOST, EQUAL_OF_BEFORE, at_the_broker(now))
    if ours:
        assert bench.client.trading.place(BUY).id == "a1"
        return
    with pytest.raises(OrderRejected, match="it was placed before"):
        bench.client.trading.place(BUY)


@pytest.mark.parametrize("created_at", ["2026-05-28T20:26:40Z", "2026-05-28T20:26:41Z"])
def test_an_order_that_is_no_older_needs_no_clock(tmp_path: Path, created_at: str) -> None:
    bench = Bench(tmp_path, LOST, placed(created_at=created_at))
    assert bench.client.trading.place(BUY).id == "a1"
    assert bench.methods == "POST GET"


def test_the_time_that_sending_took_is_no_age(tmp_path: Path) -> None:
    """A connection that hangs for ten minutes, and an order that came to the broker in the first second."""
    bench = Bench(tmp_path, LATE, placed(created_at="2026-05-28T20:26:39Z"), at_the_broker("2026-05-28T20:36:40Z"))
    bench.transport.before = lambda request: bench.clock.advance(600 if request.method == "POST" else 0)
    assert bench.client.trading.place(BUY).id == "a1"


def test_an_order_is_this_one_also_when_the_machine_slept_before_it_was_looked_up(tmp_path: Path) -> None:
    """Its monotonic clock stood still meanwhile, and the other one is a second fast."""
    bench = Bench(tmp_path, LATE, placed(created_at="2026-05-28T20:26:39Z"), at_the_broker("2026-05-28T20:36:40Z"))
    bench.transport.before = lambda request: bench.clock.sleep_through(600 if request.method == "POST" else 0)
    assert bench.client.trading.place(BUY).id == "a1"


def test_an_order_is_this_one_also_when_the_clock_was_set_back_before_it_was_looked_up(tmp_path: Path) -> None:
    """After the sending took 2500 seconds, as the monotonic clock knows."""
    bench = Bench(tmp_path, LATE, placed(created_at="2026-05-28T20:26:39Z"), at_the_broker("2026-05-28T21:06:39Z"))

    def pass_unnoticed(request: Request) -> None:
        if request.method == "POST":
            bench.clock.advance(2500)
            bench.clock.set_back(2500)

    bench.transport.before = pass_unnoticed
    assert bench.client.trading.place(BUY).id == "a1"


def test_an_order_that_seems_older_is_unknown_while_the_broker_does_not_tell_the_time(tmp_path: Path) -> None:
    bench = Bench(tmp_path, LOST, EQUAL_OF_BEFORE, BROKEN)
    with pytest.raises(FateUnknown):
        bench.client.trading.place(BUY)
    assert bench.outcomes == ["sent", "unknown"]


def test_an_equal_order_that_was_placed_from_here_a_moment_before_is_not_this_one(tmp_path: Path) -> None:
    """No clock can tell, and the journal can."""
    Bench(tmp_path, placed()).client.trading.place(BUY)
    bench = Bench(tmp_path, LOST, placed())
    with pytest.raises(OrderRejected, match="it was placed before"):
        bench.client.trading.place(BUY)
    assert bench.methods == "POST GET"
    bench = Bench(tmp_path, LOST, placed(id="a2"))  # whose first order is gone, at a broker that takes an ID again
    assert bench.client.trading.place(BUY).id == "a2"


def test_unresolved_orders_are_compared_with_what_was_sent_too(tmp_path: Path) -> None:
    with pytest.raises(FateUnknown):
        Bench(tmp_path, LOST).client.trading.place(BUY)
    bench = Bench(tmp_path, ANOTHER)
    (found,) = bench.client.trading.unresolved()
    assert (found.outcome, found.order) == ("not placed", None)
    assert found.error is not None
    assert "its symbol is MSFT, not AAPL" in found.error["message"]
    *_, line = bench.journal.records()
    assert (line["action"], line["outcome"], line["order_id"]) == ("resolve", "not placed", None)
    assert bench.client.trading.unresolved() == []


@pytest.mark.parametrize(
    ("later_s", "now", "outcome"),
    [
        (600, "2026-05-29T20:30:01Z", "not placed"),  # a day and 601 seconds old, and sent 600 ago
        (600, "2026-05-29T20:30:00Z", "placed"),  # so far the clock may have been wrong when it was sent
        (-1, "2026-05-29T20:19:59Z", "placed"),  # and have been set back
        (600, "2026-05-28T20:36:40Z", "placed"),  # 1000 seconds old, and sent 600 ago
    ],
)
def test_an_equal_order_of_before_does_not_answer_a_question(
    tmp_path: Path, later_s: float, now: str, outcome: str
) -> None:
    with pytest.raises(FateUnknown):
        Bench(tmp_path, LOST).client.trading.place(BUY)
    bench = Bench(tmp_path, EQUAL_OF_BEFORE, at_the_broker(now), at=1_780_000_000.0 + later_s)
    assert [item.outcome for item in bench.client.trading.unresolved()] == [outcome]


def test_the_refusal_of_a_second_order_leaves_the_question_about_the_first(tmp_path: Path) -> None:
    with pytest.raises(FateUnknown):
        Bench(tmp_path, LOST).client.trading.place(BUY)
    with pytest.raises(OrderRejected):
        Bench(tmp_path, TAKEN).client.trading.place(BUY._replace(side="sell"))
    with pytest.raises(FateUnknown):
        Bench(tmp_path, LOST).client.trading.place(BUY._replace(symbol="MSFT"))
    bench = Bench(tmp_path, placed())
    assert [(item.outcome, item.order is not None) for item in bench.client.trading.unresolved()] == [
        ("placed", True),
        ("not placed", False),
    ]
    assert bench.client.trading.unresolved() == []


def test_a_journal_of_an_older_version_is_asked_as_well(tmp_path: Path) -> None:
    """Its lines do not say whose ID it was, and its answers not which line they answer."""
    bench = Bench(tmp_path, ANOTHER, placed("torn"), placed("lost"), placed("list"))
    body = '{"symbol":"AAPL","client_order_id":"mine"}'
    sent = {"phase": "sent", "at": 1_770_000_000.0, "request": {"method": "POST", "path": "/v2/orders", "body": body}}
    for _ in range(2):
        bench.journal.append({**sent, "client_order_id": "told"})
    bench.journal.append({"phase": "answered", "outcome": "placed", "client_order_id": "told", "order_id": "a0"})
    bench.journal.append({**sent, "client_order_id": "mine"})
    bench.journal.append({"phase": "sent", "client_order_id": "torn", "request": {"body": "{"}})
    bench.journal.append({"phase": "sent", "client_order_id": "lost"})
    bench.journal.append({"phase": "sent", "client_order_id": "list", "request": {"body": "[]"}})
    found = [(item.client_order_id, item.outcome) for item in bench.client.trading.unresolved()]
    assert found == [("mine", "not placed"), ("torn", "placed"), ("lost", "placed"), ("list", "placed")]


def test_a_cancel_is_repeated_and_a_canceled_order_is_what_was_wanted(tmp_path: Path) -> None:
    bench = Bench(
        tmp_path, BROKEN, answer({"code": 42210000, "message": "already canceled"}, 422), placed(status="canceled")
    )
    bench.client.trading.cancel("a1")
    assert bench.methods == "DELETE DELETE GET"


IN_THE_END = answer({"code": 42210000, "message": "order is not cancelable"}, 422)
FILLED = placed(status="filled", filled_qty="10", filled_avg_price="101.25")


@pytest.mark.parametrize(
    ("first", "requests"), [((), "DELETE GET"), ((BROKEN,), "DELETE DELETE GET"), ((LATE,), "DELETE DELETE GET")]
)
@pytest.mark.parametrize(
    ("order", "says", "advice"),
    [
        (FILLED, "was filled before it could be canceled, 10 filled at 101.25", "alpacli close AAPL"),
        (placed(status="expired", filled_qty="3"), "had ended: it is expired, 3 filled", "nothing left"),
        (placed(status="rejected"), "had ended: it is rejected", "nothing left"),
        (placed(status="replaced", replaced_by="b2"), "replaced by b2", "alpacli cancel b2"),
        (placed(status="pending_new"), "not cancelable", ""),
    ],
)
def test_a_cancel_that_comes_too_late_tells_what_the_order_became(
    tmp_path: Path, first: tuple[Response, ...], requests: str, order: Response, says: str, advice: str
) -> None:
    bench = Bench(tmp_path, *first, IN_THE_END, order)
    with pytest.raises(OrderRejected, match=says) as refused:
        bench.client.trading.cancel("a1")
    assert (refused.value.exit_code, refused.value.status, refused.value.code) == (4, 422, 42210000)
    assert advice in refused.value.hint
    assert bench.methods == requests
    assert bench.outcomes == ["sent", "refused"]


@pytest.mark.parametrize("status", ["canceled", "pending_cancel"])
def test_a_cancel_without_an_answer_looks_whether_it_happened(tmp_path: Path, status: str) -> None:
    bench = Bench(tmp_path, LATE, LATE, LATE, placed(status=status))
    bench.client.trading.cancel("a1")
    assert bench.methods == "DELETE DELETE DELETE GET"
    assert bench.outcomes == ["sent", "done"]


def test_a_cancel_without_an_answer_of_an_order_that_filled_is_no_mystery(tmp_path: Path) -> None:
    bench = Bench(tmp_path, LATE, LATE, LATE, FILLED)
    with pytest.raises(OrderRejected, match="was filled"):
        bench.client.trading.cancel("a1")


@pytest.mark.parametrize(("last", "says"), [(placed(), "is pending_new"), (LATE, "no complete answer")])
def test_a_cancel_that_nobody_answers_and_that_did_not_happen_yet_is_unknown(
    tmp_path: Path, last: Response | Exception, says: str
) -> None:
    bench = Bench(tmp_path, LATE, LATE, LATE, last)
    with pytest.raises(RequestTimeout, match=says) as late:
        bench.client.trading.cancel("a1")
    assert late.value.exit_code == 6
    assert bench.outcomes == ["sent", "unknown"]


@pytest.mark.parametrize("gone", [NOT_FOUND, answer({"code": 40010001, "message": "invalid order id a1"}, 422)])
def test_an_order_that_never_was_is_not_found_and_no_more_is_said_of_it(tmp_path: Path, gone: Response) -> None:
    bench = Bench(tmp_path, answer({"code": 40010001, "message": "invalid order id a1"}, 422), gone)
    with pytest.raises(NotFound):
        bench.client.trading.cancel("a1")
    assert bench.methods == "DELETE GET"
    assert bench.outcomes == ["sent", "refused"]
    assert bench.warnings == []


def test_an_order_that_never_was_is_not_canceled_by_a_lost_answer(tmp_path: Path) -> None:
    bench = Bench(tmp_path, LATE, NOT_FOUND)
    with pytest.raises(NotFound):
        bench.client.trading.cancel("a1")
    assert bench.methods == "DELETE DELETE GET"


@pytest.mark.parametrize(
    ("options", "qty", "side"),
    [({}, "10", "sell"), ({"qty": Decimal(3)}, "3", "sell"), ({"percent": Decimal(50)}, "5", "sell")],
)
def test_a_position_is_closed_with_an_order_that_has_an_id(
    tmp_path: Path, options: dict[str, Decimal], qty: str, side: str
) -> None:
    bench = Bench(tmp_path, answer([POSITION]), placed("alpacli-token-1"))
    bench.client.trading.close("AAPL", **options)
    body = bench.transport.sent[-1].body or b""
    assert f'"qty":"{qty}"'.encode() in body
    assert f'"side":"{side}"'.encode() in body
    assert b"alpacli-token-1" in body


def test_half_a_position_is_told_in_digits(tmp_path: Path) -> None:
    bench = Bench(tmp_path, answer([{**POSITION, "qty": "40", "qty_available": "40"}]))
    assert f"{bench.client.trading.closing_ticket('AAPL', None, Decimal(50)).qty}" == "20"


def test_a_halt_refuses_new_risk_and_lets_out(tmp_path: Path) -> None:
    halted = Halt(1.0, "storm", "me")
    bench = Bench(tmp_path, answer([]), halted=halted)
    with pytest.raises(OrderRefused, match="storm"):
        bench.client.trading.place(BUY)
    assert bench.outcomes == ["refused"]
    bench = Bench(tmp_path, answer([POSITION]), placed(side="sell"), halted=halted)
    assert bench.client.trading.place(BUY._replace(side="sell")).id == "a1"
    bench = Bench(tmp_path, answer([POSITION]), placed("alpacli-token-1"), halted=halted)
    assert bench.client.trading.close("AAPL").id == "a1"
    bench = Bench(tmp_path, answer(b"", 204), halted=halted)
    bench.client.trading.cancel("a1")


QUOTE = answer({"quotes": {"AAPL": {"bp": 99, "ap": 101}}})


@pytest.mark.parametrize(
    ("rule", "answers", "breaks"),
    [
        ({"allowed_symbols": ["MSFT"]}, [answer([])], True),
        ({"allowed_symbols": ["aapl"]}, [answer([])], False),
        ({"blocked_symbols": ["AAPL"]}, [answer([])], True),
        ({"max_order_qty": 9}, [answer([])], True),
        ({"max_order_qty": 10}, [answer([])], False),
        ({"max_order_notional": 1009}, [answer([]), QUOTE], True),
        ({"max_order_notional": 1010}, [answer([]), QUOTE], False),
        ({"max_order_notional": 1010}, [answer([]), BROKEN, BROKEN, BROKEN], True),
        ({"max_position_notional": 2109}, [answer([]), answer([POSITION]), QUOTE], True),
        ({"max_position_notional": 2110}, [answer([]), answer([POSITION]), QUOTE], False),
        ({"max_position_percent": 1}, [answer([]), answer([]), answer(ACCOUNT), QUOTE], True),
        ({"max_position_percent": 2}, [answer([]), answer([]), answer(ACCOUNT), QUOTE], False),
        ({"max_daily_loss": 500}, [answer([]), answer({**ACCOUNT, "equity": "99500"})], True),
        ({"max_daily_loss": 501}, [answer([]), answer({**ACCOUNT, "equity": "99500"})], False),
        (
            {"market_hours_only": True},
            [
                answer([]),
                answer(
                    {
                        "timestamp": "2026-01-05T04:00:00Z",
                        "is_open": False,
                        "next_open": "2026-01-05T14:30:00Z",
                        "next_close": "2026-01-05T21:00:00Z",
                    }
                ),
            ],
            True,
        ),
    ],
)
def test_each_own_rule_refuses_and_what_it_allows_passes(
    tmp_path: Path, rule: dict[str, Any], answers: list[Response], breaks: bool
) -> None:
    bench = Bench(tmp_path, *answers, placed(), rules=RiskRules.model_validate(rule))
    if not breaks:
        bench.client.trading.place(BUY)
        return
    with pytest.raises(OrderRefused) as refused:
        bench.client.trading.place(BUY)
    assert refused.value.rule in {*rule, "max_order_notional"}
    assert "POST" not in bench.methods
    assert bench.outcomes == ["refused"]


def test_orders_per_minute_counts_what_every_process_sent(tmp_path: Path) -> None:
    rules = RiskRules(max_orders_per_minute=2)
    for _ in range(2):
        Bench(tmp_path, answer([]), placed(), rules=rules).client.trading.place(BUY)
    bench = Bench(tmp_path, answer([]), placed(), rules=rules)
    with pytest.raises(OrderRefused, match="2 orders"):
        bench.client.trading.place(BUY)
    bench.clock.advance(61)
    bench.client.trading.place(BUY)


def test_orders_per_minute_counts_what_other_machines_sent(tmp_path: Path) -> None:
    """Each machine has a journal of its own, and all share a store."""
    rules, store = RiskRules(max_orders_per_minute=2), SqliteStore(":memory:", ManualClock())
    for machine in "ab":
        Bench(tmp_path / machine, answer([]), placed(), rules=rules, store=store).client.trading.place(BUY)
    third = Bench(tmp_path / "c", answer([]), placed(), rules=rules, store=store)
    with pytest.raises(OrderRefused, match="2 orders"):
        third.client.trading.place(BUY)
    assert "POST" not in third.methods
    assert third.outcomes == ["refused"]


@pytest.mark.parametrize("others", [1, 2])
def test_orders_that_others_send_while_one_is_judged_count_too(tmp_path: Path, others: int) -> None:
    rules, busy = RiskRules(max_orders_per_minute=1), SqliteStore(":memory:", ManualClock())

    class Crowded(SqliteStore):
        def admit(self, rules: BudgetRules, ticket: Ticket) -> Granted | Wait | Refused:
            for number in range(others if rules.scope.endswith("~orders") else 0):
                ours = BUY._replace(client_order_id=f"other {number}")
                Bench(tmp_path, placed(f"other {number}"), store=busy).client.trading.place(ours)
            return super().admit(rules, ticket)

    bench = Bench(tmp_path, answer([]), rules=rules, store=Crowded(":memory:", ManualClock()))
    with pytest.raises(OrderRefused, match=f"{others} order"):
        bench.client.trading.place(BUY)
    assert bench.methods == "GET"


def test_an_order_that_a_rule_refuses_takes_no_place_of_the_minute(tmp_path: Path) -> None:
    rules = RiskRules(max_orders_per_minute=1, max_order_qty=Decimal(10))
    bench = Bench(tmp_path, answer([]), rules=rules)
    for _ in range(3):
        with pytest.raises(OrderRefused, match="max_order_qty"):
            bench.client.trading.place(BUY._replace(qty=Decimal(11)))
    Bench(tmp_path, answer([]), placed(), rules=rules, store=bench.store).client.trading.place(BUY)


def test_a_journal_that_cannot_be_written_takes_no_place_of_the_minute(tmp_path: Path) -> None:
    rules = RiskRules(max_orders_per_minute=1)
    (tmp_path / "broken" / "orders.jsonl").mkdir(parents=True)
    bench = Bench(tmp_path / "broken", answer([]), placed(), rules=rules)
    with pytest.raises(AlpacliError, match="journal"):
        bench.client.trading.place(BUY)
    Bench(tmp_path, answer([]), placed(), rules=rules, store=bench.store).client.trading.place(BUY)


def test_a_clock_set_back_stops_nobody_for_longer_than_a_minute_or_two(tmp_path: Path) -> None:
    rules = RiskRules(max_orders_per_minute=1)
    Bench(tmp_path, answer([]), placed(), rules=rules).client.trading.place(BUY)
    Bench(tmp_path, answer([]), placed(), rules=rules, at=1_780_000_000.0 - 3600).client.trading.place(BUY)
    again = Bench(tmp_path, answer([]), placed(), rules=rules, at=1_780_000_002.0)
    with pytest.raises(OrderRefused, match="1 orders"):
        again.client.trading.place(BUY)


def waiting(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(placed("other", id="w1", **changes).body)
    return found


@pytest.mark.parametrize(
    ("order", "limit", "breaks"),
    [
        (waiting(type="limit", limit_price="100"), 2009, True),
        (waiting(type="limit", limit_price="100"), 2010, False),
        (waiting(), 2019, True),  # a market order waits for the opening, at today's ask
        (waiting(), 2020, False),
        (waiting(filled_qty="4", status="partially_filled"), 1616, False),
        (waiting(qty=None, notional="500"), 1509, True),
        (waiting(side="sell"), 1010, False),
        (waiting(symbol="MSFT"), 1010, False),
    ],
)
def test_what_waits_to_be_filled_counts_for_the_largest_position(
    tmp_path: Path, order: dict[str, Any], limit: int, breaks: bool
) -> None:
    rules = RiskRules(max_position_notional=Decimal(limit))
    bench = Bench(tmp_path, answer([order]), answer([]), QUOTE, placed(), rules=rules)
    if not breaks:
        bench.client.trading.place(BUY)
        return
    with pytest.raises(OrderRefused, match="max_position_notional"):
        bench.client.trading.place(BUY)


def test_the_order_that_is_replaced_does_not_count_beside_its_replacement(tmp_path: Path) -> None:
    rules = RiskRules(max_position_notional=Decimal(1000))
    old = waiting(type="limit", limit_price="90")
    bench = Bench(tmp_path, answer(old), answer([old]), answer([]), placed("alpacli-token-1"), rules=rules)
    bench.client.trading.replace("w1", {"limit_price": "100"})
    bench = Bench(tmp_path, answer(old), answer([old]), answer([]), rules=rules)
    with pytest.raises(OrderRefused, match="max_position_notional"):
        bench.client.trading.replace("w1", {"limit_price": "101"})
    assert "PATCH" not in bench.methods


def test_a_halt_lets_the_way_out_of_a_position_be_moved(tmp_path: Path) -> None:
    held_by_it = {**POSITION, "qty_available": "0"}
    exit_order = waiting(side="sell", type="limit", limit_price="120")
    bench = Bench(
        tmp_path,
        answer(exit_order),
        answer([held_by_it]),
        placed("alpacli-token-1"),
        halted=Halt(1.0, "storm", "me"),
    )
    bench.client.trading.replace("w1", {"limit_price": "110"})
    assert bench.methods == "GET GET PATCH"


def test_without_rules_that_count_others_nothing_waits_for_them(tmp_path: Path) -> None:
    bench = Bench(tmp_path, answer([]), placed(), rules=RiskRules(max_order_qty=Decimal(10)))
    bench.store.claim("alpaca:{test}:~desk", -1.0, 1000, "somebody who hangs")
    bench.client.trading.place(BUY)
    bench = Bench(tmp_path, rules=RiskRules(max_orders_per_minute=5), store=bench.store)
    with pytest.raises(BudgetExhausted, match="one after the other"):
        bench.client.trading.place(BUY)


def test_what_is_no_order_yet_is_wrong_usage_whatever_else_is_wrong_with_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path, placed())
    for change in ({"qty": None}, {"side": None}, {"symbol": None}, {"type": "stop"}, {"time_in_force": "soon"}):
        with pytest.raises(UsageError):
            bench.client.trading.place(BUY._replace(**change))
        with pytest.raises(UsageError):
            bench.client.trading.check(BUY._replace(**change, extended_hours=True))
    assert bench.methods == ""


def test_a_broken_rule_is_found_before_anything_is_sent(tmp_path: Path) -> None:
    bench = Bench(tmp_path, placed())
    with pytest.raises(OrderRefused, match="above zero"):
        bench.client.trading.place(BUY._replace(qty=Decimal(-1)))
    with pytest.raises(OrderRefused, match=r"\(and 1 more: ") as refused:
        bench.client.trading.place(BUY._replace(qty=Decimal(-1), extended_hours=True))
    assert refused.value.message.count(" more: ") == 1
    with pytest.raises(OrderRefused, match=r"\(and 2 more: "):
        bench.client.trading.place(BUY._replace(qty=Decimal(-1), extended_hours=True, stop_price=Decimal(5)))
    assert bench.methods == ""
