"""An account's book in memory and SQLite tell the same story, whatever was undone, and whoever wrote."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from tests.support.fakes import ManualClock

from alpacli.errors import ConfigError
from alpacli.sim.answers import Refusal
from alpacli.sim.desk import Desk
from alpacli.sim.entry import cancel, submit
from alpacli.sim.exchange import Exchange
from alpacli.sim.orders import Query as OrderQuery
from alpacli.sim.orders import list_orders, one_order

KEYS = ("PKTEST", "secret")
BRACKET = {
    "symbol": "AAPL",
    "side": "buy",
    "type": "market",
    "qty": "10",
    "time_in_force": "day",
    "order_class": "bracket",
    "take_profit": {"limit_price": "900"},
    "stop_loss": {"stop_price": "10"},
}
EVERYTHING = OrderQuery(status="all", nested=True)


@pytest.fixture(params=["in a file", "in memory"])
def exchange(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Exchange]:
    opened = Exchange(str(tmp_path) if request.param == "in a file" else None, ManualClock())
    yield opened
    opened.close()


def buy(exchange: Exchange, seconds: float = 2.0) -> str:
    """Buy with two exits, and let it be filled."""
    with exchange.visit(*KEYS) as (_, desk):
        assert desk is not None
        order_id = str(submit(desk, BRACKET).order["id"])
    clock(exchange).advance(seconds)
    return order_id


def clock(exchange: Exchange) -> ManualClock:
    found = exchange._clock
    assert isinstance(found, ManualClock)
    return found


def story(desk: Desk) -> object:
    """Return what rules see and what SQLite has, which are the same."""
    told = [one_order(desk, str(row["id"]), nested=True) for row in list_orders(desk, EVERYTHING)]  # type: ignore[index,call-overload] # rows are Json
    assert told == list_orders(desk, EVERYTHING)
    db, number = desk.db, desk.account.number
    cash = db.execute("SELECT cash FROM accounts WHERE number = ?", (number,)).fetchone()[0]
    held = db.execute("SELECT symbol, qty FROM holdings WHERE account = ? ORDER BY symbol", (number,)).fetchall()
    assert Decimal(cash) == desk.book.cash
    assert [(row[0], Decimal(row[1])) for row in held] == [(s, p.qty) for s, p in desk.book.positions.items()]
    fills = db.execute("SELECT count(*) FROM fills").fetchone()[0]
    return told, cash, fills


@pytest.mark.parametrize("asked", [False, True], ids=["SQLite not asked", "SQLite asked in between"])
def test_a_refusal_undoes_the_request_and_not_what_happened_before(exchange: Exchange, asked: bool) -> None:
    """An order is filled as the refused request comes; what the request did is gone, from SQLite too, and the fill is not."""
    order_id = buy(exchange)
    seen = []

    def be_refused() -> None:
        with exchange.visit(*KEYS) as (_, desk):
            assert desk is not None
            seen.append(one_order(desk, order_id, nested=True))
            submit(desk, BRACKET | {"symbol": "MSFT"})
            cancel(desk, str(seen[0]["legs"][0]["id"]))  # type: ignore[index,call-overload] # an order has legs
            if asked:
                assert desk.db.execute("SELECT count(*) FROM orders").fetchone()[0] == 6
            raise Refusal(403, None, "no")

    with pytest.raises(Refusal):
        be_refused()
    (before,) = seen
    assert (before["status"], before["filled_qty"]) == ("filled", "10")
    number = exchange.account_number(*KEYS)
    with exchange.desk(number, changes=False) as desk:
        assert one_order(desk, order_id, nested=True) == before
        story(desk)
    again = buy(exchange)
    with exchange.desk(number, changes=False) as desk:
        assert one_order(desk, again, nested=True)["filled_qty"] == "10"
        assert len(list_orders(desk, EVERYTHING)) == 2
        story(desk)
    events = exchange.events_after(number, 0)
    assert events is not None
    assert sum('"event":"fill"' in event.data for event in events) == 2
    assert not any("MSFT" in event.data for event in events)


def test_a_defect_undoes_everything_also_what_sqlite_had_heard_of(exchange: Exchange) -> None:
    """What was due happens again at the next look, once."""
    order_id = buy(exchange)
    number = exchange.account_number(*KEYS)

    def fail() -> None:
        with exchange.desk(number, changes=True) as desk:
            assert desk.db.execute("SELECT count(*) FROM fills").fetchone()[0] == 1
            raise RuntimeError("a defect")

    with pytest.raises(RuntimeError):
        fail()
    with exchange.desk(number, changes=True) as desk:
        assert one_order(desk, order_id, nested=False)["status"] == "filled"
        first = story(desk)
    with exchange.desk(number, changes=False) as desk:
        assert story(desk) == first


def test_a_book_is_read_again_when_another_process_has_written(tmp_path: Path) -> None:
    """Two exchanges on one file, in turn: each sees what the other did, and cash and shares are all there."""
    both = [Exchange(str(tmp_path), ManualClock()) for _ in range(2)]
    for turn in range(6):
        both[turn % 2].catch_up(both[turn % 2].account_number(*KEYS))
        clock(both[1 - turn % 2]).advance(2)
        buy(both[turn % 2])
    for exchange in both:
        with exchange.desk(exchange.account_number(*KEYS), changes=True) as desk:
            assert desk.book.positions["AAPL"].qty == 60
            story(desk)
    for exchange in both:
        exchange.close()


def test_a_reset_by_another_process_is_the_end_of_a_book(tmp_path: Path) -> None:
    ours, theirs = (Exchange(str(tmp_path), ManualClock()) for _ in range(2))
    buy(ours)
    number = ours.account_number(*KEYS)
    theirs.reset(cash=Decimal(500))
    with pytest.raises(Refusal), ours.desk(number, changes=True):
        pass
    with ours.visit(*KEYS) as (_, desk):
        assert desk is not None
        assert desk.book.cash == 500
    ours.close()
    theirs.close()


def test_after_an_error_of_sqlite_its_own_story_counts(tmp_path: Path) -> None:
    """What could not be written is forgotten, and read again from the file."""
    exchange = Exchange(str(tmp_path), ManualClock())
    order_id = buy(exchange)
    number = exchange.account_number(*KEYS)

    def break_off() -> None:
        with exchange.desk(number, changes=True) as desk:
            desk.db.execute("SELECT * FROM no_such_table")

    with pytest.raises(ConfigError):
        break_off()
    with exchange.desk(number, changes=True) as desk:
        assert one_order(desk, order_id, nested=False)["status"] == "filled"
        story(desk)
    exchange.close()
