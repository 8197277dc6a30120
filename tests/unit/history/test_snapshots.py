"""A snapshot is one moment of an account, once a period, or it is not there."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.broker_book import BrokerBook, client_of, order
from tests.support.fakes import ManualClock, answer

from alpacli.errors import AuthenticationError, UnreadableAnswer, UsageError
from alpacli.history import snapshots
from alpacli.history.archive import Archive
from alpacli.history.snapshots import Restless, Taken
from alpacli.ports import Request, Response

POSITION = {
    "asset_id": "b0b6dd9d-8b9b-48a9-ba46-b9d54906e415",
    "symbol": "AAPL",
    "exchange": "NASDAQ",
    "asset_class": "us_equity",
    "qty": "10",
    "side": "long",
    "avg_entry_price": "150.5",
    "cost_basis": "1505",
}


def _take(book: BrokerBook, path: Path, clock: ManualClock, every_s: int = 60) -> Taken:
    with client_of(book, clock) as client, Archive(str(path)) as archive:
        account = client.get_account(use_cache=False)
        return snapshots.take(client, archive, snapshots.told_by(clock), account, every_s)


def _filling(times: int, book: BrokerBook) -> Callable[[Request], Response | None]:
    """Let a fill fall between the account and its positions, so many times."""
    left = [times]

    def before(request: Request) -> Response | None:
        if request.path == "/v2/positions" and left[0]:
            left[0] -= 1
            held = int(book.positions[0]["qty"]) + 1
            book.positions[0] = book.positions[0] | {"qty": str(held)}
            book.account["cash"] = str(98_500 - held)
        return None

    return before


def test_it_holds_balances_positions_and_open_orders_with_every_digit(tmp_path: Path) -> None:
    book = BrokerBook([order(1, "2026-05-01T00:00:00.123456789Z", status="new", limit_price="1.2300")])
    book.positions = [POSITION]
    taken = _take(book, tmp_path / "a.sqlite", ManualClock())
    assert taken.new
    assert b'"cash":98500.250' in taken.text
    assert b'"limit_price":1.2300' in taken.text
    assert [position.symbol for position in taken.value.positions] == ["AAPL"]
    assert snapshots.read(taken.text).value == taken.value


@pytest.mark.parametrize("times", [1, 3])
def test_a_fill_that_falls_between_the_answers_has_them_read_again(tmp_path: Path, times: int) -> None:
    book = BrokerBook()
    book.positions = [POSITION]
    book.before = _filling(times, book)
    taken = _take(book, tmp_path / "a.sqlite", ManualClock())
    assert taken.value.positions[0].qty == 10 + times
    assert taken.value.account.cash == 98_500 - 10 - times
    assert len(book.requests_for("/v2/positions")) == times + 1


def test_where_fills_never_cease_nothing_is_recorded(tmp_path: Path) -> None:
    book = BrokerBook()
    book.positions = [POSITION]
    book.before = _filling(99, book)
    with pytest.raises(Restless):
        _take(book, tmp_path / "a.sqlite", ManualClock())
    with Archive(str(tmp_path / "a.sqlite")) as archive:
        assert archive.count("snapshots") == 0


def test_within_a_period_the_first_one_counts_and_nothing_more_is_sent(tmp_path: Path) -> None:
    book, clock = BrokerBook(), ManualClock(1_779_999_920.0)
    first = _take(book, tmp_path / "a.sqlite", clock, 300)
    book.account["cash"] = "1"
    book.sent.clear()
    clock.advance(200)
    again = _take(book, tmp_path / "a.sqlite", clock, 300)
    assert (again.new, again.text) == (False, first.text)
    assert [request.path for request in book.sent] == ["/v2/account"]
    clock.advance(100)
    assert _take(book, tmp_path / "a.sqlite", clock, 300).value.account.cash == 1


def test_of_two_that_overlap_the_one_that_was_there_first_counts(tmp_path: Path) -> None:
    path, clock, book = tmp_path / "a.sqlite", ManualClock(), BrokerBook()
    inner: list[Taken] = []

    def before(request: Request) -> Response | None:
        if request.path == "/v2/orders" and not inner:
            inner.append(_take(BrokerBook(), path, clock))
        return None

    book.before = before
    outer = _take(book, path, clock)
    assert (inner[0].new, outer.new, outer.text) == (True, False, inner[0].text)
    with Archive(str(path)) as archive:
        assert archive.count("snapshots") == 1


def test_an_account_without_equity_is_no_record(tmp_path: Path) -> None:
    book = BrokerBook()
    del book.account["equity"]
    with pytest.raises(UnreadableAnswer):
        _take(book, tmp_path / "a.sqlite", ManualClock())


def test_a_broker_that_fails_in_between_leaves_no_record(tmp_path: Path) -> None:
    book = BrokerBook()
    book.before = lambda request: answer(b"", 401) if request.path == "/v2/orders" else None
    with pytest.raises(AuthenticationError):
        _take(book, tmp_path / "a.sqlite", ManualClock())
    with Archive(str(tmp_path / "a.sqlite")) as archive:
        assert archive.count("snapshots") == 0


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("5m", 300), ("1h", 3600), ("1d", 86_400)])
def test_a_period_is_a_number_and_a_unit(text: str, seconds: int) -> None:
    assert snapshots.seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "0m", "m", "1w", "-1m", "1.5h", "9999999s"])
def test_anything_else_is_no_period(text: str) -> None:
    with pytest.raises(UsageError, match="not a period"):
        snapshots.seconds_of(text)
