"""What was earned is added up from every kind of activity, and held against what the account says of itself."""

# mypy: disable-error-code="comparison-overlap"
# Whole numbers stand for the decimals they equal.

import datetime as dt
import itertools
import json
import random
import tempfile
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.support.broker_book import booking, fill
from tests.support.examples import examples
from tests.support.fakes import ACCOUNT

from alpacli.domain.account import Account, Position
from alpacli.domain.values import Timestamp, to_json
from alpacli.history import earnings, returns, snapshots
from alpacli.history.archive import Archive, Chain, Saved
from alpacli.history.earnings import Played, earn, events
from alpacli.history.growth import Growth
from alpacli.history.snapshots import Snapshot
from alpacli.history.sync import activity_row
from alpacli.wire.pages import activities_after

SEEN = "2026-03-31T20:00:00Z"


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with Archive(str(tmp_path / "account.sqlite")) as made:
        yield made


def _keep(archive: Archive, *rows: Mapping[str, Any]) -> None:
    heads = activities_after(None, category="trade_activity", since=None).decode(json.dumps(rows).encode())
    archive.keep_activities(map(activity_row, heads))


def _snapshot(cash: str, *positions: tuple[str, str, str], at: str = SEEN) -> Snapshot:
    held = [
        Position.model_validate(
            {
                "asset_id": "a",
                "symbol": symbol,
                "exchange": "NASDAQ",
                "asset_class": "us_equity",
                "qty": qty,
                "side": "long",
                "avg_entry_price": "1",
                "cost_basis": "1",
                "current_price": price,
                "market_value": str(Decimal(qty) * Decimal(price)),
            }
        )
        for symbol, qty, price in positions
    ]
    worth = Decimal(cash) + sum((position.market_value or Decimal(0) for position in held), Decimal(0))
    account = Account.model_validate({**ACCOUNT, "cash": cash, "equity": str(worth)})
    return Snapshot(at=Timestamp.parse(at), account=account, positions=tuple(held), orders=())


def test_realized_unrealized_dividends_and_fees_are_what_the_account_gained(archive: Archive) -> None:
    _keep(
        archive,
        booking(1, "JNLC", "2026-01-02", net_amount="10000"),
        fill(1, "2026-01-05T15:00:00Z", qty="10", price="100.5"),
        booking(2, "DIV", "2026-02-02", net_amount="4.2", symbol="AAPL", qty="10", per_share_amount="0.42"),
        booking(3, "DIVNRA", "2026-02-02", net_amount="-0.63", symbol="AAPL"),
        fill(2, "2026-02-05T15:00:00Z", side="sell", qty="4", price="110.25"),
        booking(4, "FEE", "2026-02-06", net_amount="-0.02"),
        booking(5, "INT", "2026-02-28", net_amount="1.11"),
    )
    cash = Decimal(10_000) - 1005 + Decimal("4.2") - Decimal("0.63") + 441 - Decimal("0.02") + Decimal("1.11")
    earned = earn(archive, _snapshot(str(cash), ("AAPL", "6", "108")), "symbol")
    nameless, apple = earned.rows
    assert (apple.symbol, apple.realized, apple.unrealized, apple.dividends, apple.trades) == (
        "AAPL",
        39,
        45,
        Decimal("3.57"),
        1,
    )
    assert (nameless.symbol, nameless.fees, nameless.interest) == ("", Decimal("-0.02"), Decimal("1.11"))
    assert earned.total.total == Decimal("88.66")
    agreed = earned.reconciliation
    assert agreed is not None
    assert (agreed.transfers, agreed.expected, agreed.difference, agreed.positions) == (10_000, Decimal("88.66"), 0, ())


def test_what_is_missing_in_the_history_shows_as_a_difference_and_as_a_position(archive: Archive) -> None:
    _keep(archive, booking(1, "CSD", "2026-01-02", net_amount="1000"), fill(1, "2026-01-05T15:00:00Z", price="100"))
    agreed = earn(archive, _snapshot("850", ("AAPL", "2", "90")), None).reconciliation
    assert agreed is not None
    assert agreed.difference == -10 - 30
    assert [(row.symbol, row.computed, row.recorded) for row in agreed.positions] == [("AAPL", 1, 2)]


def test_only_what_happened_before_the_snapshot_counts(archive: Archive) -> None:
    _keep(
        archive,
        fill(1, "2026-03-31T19:59:59.999999999Z", price="100"),
        fill(2, "2026-03-31T20:00:00.000000001Z", price="100"),
    )
    agreed = earn(archive, _snapshot("0", ("AAPL", "1", "101")), None).reconciliation
    assert agreed is not None
    assert agreed.positions == ()


def test_without_a_price_what_is_not_realized_is_not_known(archive: Archive) -> None:
    _keep(archive, fill(1, "2026-01-05T15:00:00Z"))
    earned = earn(archive, None, "symbol")
    assert earned.rows[0].unrealized is None
    assert (earned.total.total, earned.reconciliation) == (None, None)


def test_a_days_gain_is_parted_into_what_was_realized_and_what_was_not(archive: Archive) -> None:
    _keep(
        archive,
        fill(1, "2026-01-05T15:00:00Z", qty="10", price="100"),
        fill(2, "2026-01-06T15:00:00Z", qty="10", price="104", side="sell"),
    )
    days = {day.toordinal(): Decimal(gain) for day, gain in [(_day("2026-01-05"), "30"), (_day("2026-01-06"), "10")]}
    growth = Growth(days, sorted(days))
    earned = earn(archive, _snapshot("1040"), "day", growth)
    assert [(row.day, row.realized, row.unrealized, row.total) for row in earned.rows] == [
        ("2026-01-05", 0, 30, 30),
        ("2026-01-06", 40, -30, 10),
    ]
    (month,) = earn(archive, _snapshot("1040"), "month", growth).rows
    assert (month.month, month.realized, month.unrealized, month.total) == ("2026-01", 40, 0, 40)


def _day(text: str) -> Any:
    import datetime as dt

    return dt.date.fromisoformat(text)


def _held(archive: Archive) -> dict[str, tuple[Decimal, Decimal]]:
    played = Played(events(archive))
    return {row.symbol: (row.qty, row.cost_basis) for row in earnings.positions(played)}


def test_a_split_told_in_one_row_or_in_two_is_the_same(archive: Archive, tmp_path: Path) -> None:
    bought = fill(1, "2026-01-05T15:00:00Z", qty="3", price="100")
    _keep(archive, bought, booking(1, "SPLIT", "2026-02-02", symbol="AAPL", qty="6"))
    with Archive(str(tmp_path / "other.sqlite")) as other:
        out = booking(1, "SPLIT", "2026-02-02", symbol="AAPL", qty="-3", group_id="g")
        _keep(other, bought, out, booking(2, "SPLIT", "2026-02-02", symbol="AAPL", qty="9", group_id="g"))
        assert _held(archive) == _held(other) == {"AAPL": (9, 300)}


def test_a_reverse_split_pays_cash_for_the_fraction_and_a_canceled_row_is_nothing(archive: Archive) -> None:
    _keep(
        archive,
        fill(1, "2026-01-05T15:00:00Z", qty="15", price="1"),
        booking(1, "SPLIT", "2026-02-02", symbol="AAPL", qty="-14", net_amount="5.12"),
        booking(2, "DIV", "2026-02-03", symbol="AAPL", net_amount="99", status="canceled"),
    )
    assert _held(archive) == {"AAPL": (1, 15)}
    total = earn(archive, None, None).total
    assert (total.other, total.dividends) == (Decimal("5.12"), 0)


def test_a_name_change_moves_the_lots(archive: Archive) -> None:
    _keep(
        archive,
        fill(1, "2026-01-05T15:00:00Z", symbol="FB", qty="3", price="200"),
        booking(1, "NC", "2026-02-02", symbol="FB", qty="-3"),
        booking(2, "NC", "2026-02-02", symbol="META", qty="3"),
        fill(2, "2026-03-05T15:00:00Z", symbol="META", side="sell", qty="1", price="250"),
    )
    assert _held(archive) == {"META": (2, 400)}
    (sold,) = earnings.closed_lots(Played(events(archive)))
    assert (sold.realized, sold.opened_at.wire) == (50, "2026-01-05T15:00:00Z")


def test_a_cash_merger_realizes_nothing_but_the_cash(archive: Archive) -> None:
    _keep(
        archive,
        fill(1, "2026-01-05T15:00:00Z", symbol="ATVI", qty="2", price="80"),
        booking(1, "MA", "2026-02-02", symbol="ATVI", qty="-2", net_amount="190"),
    )
    assert _held(archive) == {}
    total = earn(archive, None, None).total
    assert (total.realized + total.other, total.total) == (30, 30)


@pytest.mark.parametrize(
    ("kind", "more", "realized"),
    [("OPEXP", [], -250), ("OPEXC", [("OPTRD", "AAPL", "200", "90")], -250)],
)
def test_options_that_end_lose_their_premium_and_an_exercise_trades_the_shares(
    archive: Archive, kind: str, more: list[tuple[str, str, str, str]], realized: int
) -> None:
    contract = "AAPL260116C00090000"
    shares = [booking(3, k, "2026-01-16", symbol=s, qty=q, price=p, net_amount="-18000") for k, s, q, p in more]
    _keep(
        archive,
        fill(1, "2026-01-05T15:00:00Z", symbol=contract, qty="2", price="1.25"),
        fill(2, "2026-01-16T20:59:00Z", symbol="KO", price="70"),
        booking(1, kind, "2026-01-16", symbol=contract, qty="-2", net_amount="0"),
        *shares,
    )
    played = Played(events(archive))
    assert sum(row.realized for row in earnings.closed_lots(played)) == realized
    assert [row.symbol for row in earnings.positions(played)] == (["AAPL", "KO"] if more else ["KO"])
    assert played.moved("transfers") == 0
    assert earn(archive, None, None).total.other == 0


def _exercised(archive: Archive, booked_at: str) -> None:
    contract, day = "AAPL260116C00090000", "2026-01-16"
    _keep(
        archive,
        fill(1, "2026-01-05T15:00:00Z", symbol=contract, price="1.25"),
        booking(1, "OPEXC", day, symbol=contract, qty="-1", created_at=booked_at),
        booking(2, "OPTRD", day, symbol="AAPL", qty="100", price="90", net_amount="-9000", created_at=booked_at),
        fill(2, "2026-01-16T15:00:00Z", side="sell", qty="100", price="95"),
    )


def test_shares_that_were_exercised_and_sold_on_the_same_day_are_a_sale_of_what_was_held(archive: Archive) -> None:
    booked_at = "2026-01-16T14:50:50.123456Z"
    _exercised(archive, booked_at)
    played = Played(events(archive))
    shares, option = sorted(earnings.closed_lots(played), key=lambda row: row.symbol)
    assert (shares.side, shares.qty, shares.realized, shares.opened_at.wire) == ("long", 100, 500, booked_at)
    assert (option.realized, option.closed_at.wire) == (-125, booked_at)
    at_noon = Played(events(archive, Timestamp.parse("2026-01-16T14:55:00Z").epoch_ns))
    assert [(row.symbol, row.qty) for row in earnings.positions(at_noon)] == [("AAPL", 100)]
    assert earnings.positions(played) == []


@pytest.mark.parametrize("booked_at", ["2026-01-17T08:00:00Z", "2026-01-15T23:00:00Z"])
def test_an_exercise_that_is_booked_on_another_day_holds_from_the_end_of_its_own(
    archive: Archive, booked_at: str
) -> None:
    _exercised(archive, booked_at)
    (option,) = [row for row in earnings.closed_lots(Played(events(archive))) if row.symbol != "AAPL"]
    assert option.closed_at.wire == "2026-01-17T04:59:00Z"


def test_what_was_kept_under_another_time_is_put_right_when_it_is_read_again(archive: Archive) -> None:
    call = activities_after(None, category="trade_activity", since=None)
    row = booking(1, "OPEXP", "2026-01-16", symbol="AAPL260116C00090000", qty="-1", created_at="2026-01-16T21:00:00Z")
    (kept,) = map(activity_row, call.decode(json.dumps([row]).encode()))
    late = kept._replace(at_ns=kept.at_ns + 10**12)
    assert [archive.keep_activities([each]) for each in (late, kept, kept)] == [1, 1, 0]
    assert [at_ns for at_ns, *_ in archive.activities("", ())] == [kept.at_ns]


def test_a_short_option_that_ends_worthless_closes_for_nothing_and_not_for_minus_nothing(archive: Archive) -> None:
    """A spreadsheet and jq print ``-0`` as it is written."""
    contract = "AAPL260116C00090000"
    _keep(
        archive,
        fill(1, "2026-01-05T15:00:00Z", symbol=contract, side="sell", qty="1", price="2.2"),
        booking(1, "OPEXP", "2026-01-16", symbol=contract, qty="1", net_amount="0"),
        fill(2, "2026-02-05T15:00:00Z", symbol=contract, side="sell", qty="1", price="0"),
    )
    played = Played(events(archive))
    ((closed,), (held,)) = list(earnings.closed_lots(played)), earnings.positions(played)
    assert (str(closed.proceeds), str(closed.cost_basis), str(closed.realized)) == ("0", "-220", "220")
    assert (str(held.cost_basis), str(held.avg_entry_price)) == ("0", "0")


def _a_year_ago(archive: Archive) -> Snapshot:
    """Keep four closes, what was traded about them, and one snapshot of long after; return the snapshot."""
    _keep(
        archive,
        booking(1, "JNLC", "2026-03-02", net_amount="10000"),
        fill(1, "2026-03-02T15:00:00Z", qty="10", price="100"),
        fill(2, "2026-03-03T15:00:00Z", side="sell", qty="4", price="110"),
        fill(3, "2026-03-05T15:00:00Z", side="sell", qty="6", price="90"),
    )
    closes = ("2026-03-02", "10050"), ("2026-03-03", "10070"), ("2026-03-04", "10100"), ("2026-03-05", "9980")
    days = [(dt.date.fromisoformat(day).toordinal(), equity) for day, equity in closes]
    archive.keep_days(days, ("days", Chain(whole_ns=Timestamp.parse("2026-12-01T15:00:00Z").epoch_ns)))
    return _snapshot("9980", at="2026-12-01T15:00:00Z")


@pytest.mark.parametrize(
    ("until", "realized", "unrealized", "trades"),
    [
        ("2026-03-01T05:00:00Z", 0, 0, 0),
        ("2026-03-03T05:00:00Z", 0, 50, 0),
        ("2026-03-03T15:00:00Z", 0, 50, 0),  # before what happens then
        ("2026-03-03T15:00:01Z", 40, None, 1),  # the last close is of before
        ("2026-03-03T21:00:00Z", 40, 30, 1),  # the close
        ("2026-03-04T15:00:00Z", 40, 30, 1),
        ("2026-03-05T05:00:00Z", 40, 60, 1),
        ("2026-03-05T15:00:01Z", -20, 0, 2),  # nothing is held, whatever the closes tell
        ("2026-12-31T05:00:00Z", -20, 0, 2),
    ],
)
@pytest.mark.parametrize("by", [None, "symbol", "day", "month"])
def test_what_was_earned_before_a_moment_is_that_of_then_whenever_snapshots_were_taken(
    archive: Archive, by: str | None, until: str, realized: int, unrealized: int | None, trades: int
) -> None:
    snapshot, until_ns = _a_year_ago(archive), Timestamp.parse(until).epoch_ns
    seen = snapshot if snapshot.at.epoch_ns <= until_ns else None
    earned = returns.earned_before(archive, seen, by, until_ns)
    total = None if unrealized is None else realized + unrealized
    assert (earned.total.realized, earned.total.unrealized, earned.total.total) == (realized, unrealized, total)
    assert earned.total.trades == trades
    assert sum(row.realized for row in earned.rows) == realized
    assert all((row.day or row.month or "") < until for row in earned.rows)
    if by in ("day", "month") and seen is None:
        assert (None if None in [row.total for row in earned.rows] else sum(row.total or 0 for row in earned.rows)) == (
            earned.total.total if until != "2026-03-05T15:00:01Z" else None
        )


def test_a_snapshot_tells_of_a_moment_that_nothing_lies_between(archive: Archive) -> None:
    """What the account did after it, before the moment, makes it one of another account; a newer close tells more."""
    _keep(
        archive,
        booking(1, "JNLC", "2026-03-02", net_amount="10000"),
        fill(1, "2026-03-02T15:00:00Z", qty="10", price="100"),
        fill(2, "2026-03-02T19:00:00Z", side="sell", qty="5", price="104"),
    )

    def before(until: str) -> tuple[Any, ...]:
        snapshot = _snapshot("9000", ("AAPL", "10", "102"), at="2026-03-02T16:00:00Z")
        earned = returns.earned_before(archive, snapshot, "symbol", Timestamp.parse(until).epoch_ns)
        return earned.total.realized, earned.total.unrealized, earned.reconciliation is not None

    assert before("2026-03-02T16:00:00Z") == before("2026-03-02T19:00:00Z") == (0, 20, True)
    assert before("2026-03-02T19:00:01Z") == before("2026-03-03T05:00:00Z") == (20, None, False)
    archive.keep_days([(dt.date(2026, 3, 2).toordinal(), "10035")], ("days", Chain(whole_ns=1 << 62)))
    assert before("2026-03-02T19:00:01Z") == (20, None, False)
    assert before("2026-03-03T05:00:00Z") == (20, 15, False)


def test_coins_sold_on_a_sunday_are_earned_once(archive: Archive) -> None:
    """A day without a close tells nothing of what is not realized; the close after it does, of both."""
    _keep(
        archive,
        booking(1, "JNLC", "2026-03-06", net_amount="1000"),
        fill(1, "2026-03-06T15:00:00Z", symbol="BTC/USD", qty="2", price="100"),
        fill(2, "2026-03-08T15:00:00Z", symbol="BTC/USD", side="sell", qty="1", price="130"),
    )
    closes = [(dt.date(2026, 3, 6).toordinal(), "1010"), (dt.date(2026, 3, 9).toordinal(), "1070")]
    archive.keep_days(closes, ("days", Chain(whole_ns=1 << 62)))
    until_ns = Timestamp.parse("2026-03-10T05:00:00Z").epoch_ns
    days = returns.earned_before(archive, None, "day", until_ns)
    assert [(row.day, row.realized, row.unrealized, row.total) for row in days.rows] == [
        ("2026-03-06", 0, 10, 10),
        ("2026-03-08", 30, None, None),
        ("2026-03-09", 0, 30, 60),
    ]
    (month,) = returns.earned_before(archive, None, "month", until_ns).rows
    assert (month.realized, month.unrealized, month.total) == (30, 40, 70)
    assert days.total.total == 70


def _ns(text: str) -> int:
    return Timestamp.parse(text).epoch_ns


def _total(archive: Archive, by: str | None, until: str) -> tuple[list[tuple[Any, ...]], Any]:
    earned = returns.earned_before(archive, None, by, _ns(until))
    return [(row.day or row.month, row.realized, row.unrealized, row.total) for row in earned.rows], earned.total.total


def test_what_is_realized_on_the_last_weekend_of_a_month_belongs_to_the_month_of_the_next_close(
    archive: Archive,
) -> None:
    """A loss that Friday's close had as unrealized already is realized on Saturday, the 31st: it is no second loss."""
    _keep(
        archive,
        booking(1, "JNLC", "2026-01-26", net_amount="100000"),
        fill(1, "2026-01-27T15:00:00Z", symbol="BTC/USD", qty="1", price="90000"),
        fill(2, "2026-01-31T15:00:00Z", symbol="BTC/USD", side="sell", qty="0.5", price="86914.24"),
    )
    closes = [(dt.date(2026, 1, 30).toordinal(), "98170.08"), (dt.date(2026, 2, 2).toordinal(), "98133.90")]
    archive.keep_days(closes, ("days", Chain(whole_ns=1 << 62)))
    lost, meanwhile, sold = Decimal("-1829.92"), Decimal("-36.18"), Decimal("-1542.88")
    january = ("2026-01", 0, lost, lost)
    february = ("2026-02", sold, meanwhile - sold, meanwhile)
    for until in ("2026-02-03T05:00:00Z", "2026-06-01T05:00:00Z"):
        assert _total(archive, "month", until) == ([january, february], lost + meanwhile)
        assert _total(archive, "day", until) == (
            [
                ("2026-01-30", 0, lost, lost),
                ("2026-01-31", sold, None, None),
                ("2026-02-02", 0, meanwhile - sold, meanwhile),
            ],
            lost + meanwhile,
        )
    assert _total(archive, "month", "2026-01-31T05:00:00Z") == ([january], lost)
    assert _total(archive, "month", "2026-02-01T05:00:00Z") == ([january, ("2026-02", sold, None, None)], None)


def test_the_month_of_a_weekend_is_known_before_the_next_close_is(archive: Archive) -> None:
    """Where days of a weekend have closes, their own comes."""
    _keep(
        archive,
        fill(1, "2026-01-27T15:00:00Z", symbol="BTC/USD", qty="1", price="90"),
        fill(2, "2026-01-31T15:00:00Z", symbol="BTC/USD", side="sell", qty="0.5", price="80"),
    )
    archive.keep_days([(dt.date(2026, 1, 30).toordinal(), "10")], ("days", Chain(whole_ns=1 << 62)))
    assert _total(archive, "month", "2026-02-01T05:00:00Z")[0] == [("2026-01", 0, 10, 10), ("2026-02", -5, None, None)]
    archive.keep_days([(dt.date(2026, 1, 25).toordinal(), "10")], ("days", Chain(whole_ns=1 << 62)))
    assert _total(archive, "month", "2026-02-01T05:00:00Z")[0] == [("2026-01", -5, None, None)]


_FIRST = dt.date(2026, 1, 28)
_SPAN = 36  # to 4 March: two months end on a weekend
_PLACES = st.integers(0, _SPAN - 1)


@settings(max_examples=examples(12), deadline=None)
@example(fills={(0, 15): (2, 500), (0, 22): (-2, 500)}, came={}, valued={0}, recorded=set(), seed=0)
@example(
    fills={(0, 15): (-1, 500), (0, 22): (-1, 500), (1, 15): (-3, 500), (1, 22): (2, 500), (2, 22): (3, 500)},
    came={3: 1},
    valued={2},
    recorded=set(),
    seed=0,
)
@given(
    fills=st.dictionaries(
        st.tuples(_PLACES, st.sampled_from([15, 22])),
        st.tuples(st.integers(-3, 3), st.integers(500, 1500)),
        max_size=12,
    ),
    came=st.dictionaries(_PLACES, st.integers(-50, 50), max_size=3),
    valued=st.sets(_PLACES),
    recorded=st.sets(st.tuples(_PLACES, st.sampled_from([14, 17, 21, 23])), max_size=5),
    seed=st.integers(0, 1_000),
)
def test_days_and_months_add_up_to_the_whole_and_a_month_that_is_over_stays_as_it_is(
    fills: dict[tuple[int, int], tuple[int, int]],
    came: dict[int, int],
    valued: set[int],
    recorded: set[tuple[int, int]],
    seed: int,
) -> None:
    dates = [_FIRST + dt.timedelta(place) for place in range(_SPAN)]
    recorded, dice = recorded | {(_SPAN - 1, 23)}, random.Random(seed)
    cash, held, number = Decimal(10_000), 0, 1
    moved, worth = sum(amount for place, amount in came.items() if place), ""
    with tempfile.TemporaryDirectory() as folder, Archive(f"{folder}/account.sqlite") as archive:
        _keep(archive, booking(1, "JNLC", dates[0].isoformat(), net_amount="10000"))
        for place, day in enumerate(dates):
            if place and came.get(place):
                number += 1
                _keep(archive, booking(number, "CSD", day.isoformat(), net_amount=str(came[place])))
                cash += came[place]
            for hour in range(14, 24):
                qty, hundredths = fills.get((place, hour), (0, 0))
                if qty:
                    number += 1
                    price, side = Decimal(hundredths) / 100, "buy" if qty > 0 else "sell"
                    at = f"{day}T{hour}:00:00Z"
                    _keep(archive, fill(number, at, symbol="BTC/USD", side=side, qty=str(abs(qty)), price=str(price)))
                    cash, held = cash - qty * price, held + qty
                shares = [("BTCUSD", str(held), str(dice.randint(5, 15)))] if held else []
                snapshot = _snapshot(
                    str(cash), *shares, at=f"{day}T{hour}:30:00Z" if hour != 21 else f"{day}T21:00:00Z"
                )
                worth, at_ns = str(snapshot.account.equity), snapshot.at.epoch_ns
                if hour == 21 and place in valued and day.weekday() < 5:
                    archive.keep_days([(day.toordinal(), worth)], ("days", Chain(whole_ns=1 << 62)))
                if (place, hour) in recorded:
                    saved = Saved(at_ns, worth, str(cash), "0", "0", to_json(snapshot))
                    archive.append(saved, (at_ns, at_ns + 1))
        over: dict[str, set[Any]] = {}
        total: Decimal | None = None
        for until in [*dates[4:7], *dates[32:35], dt.date(2026, 6, 1)]:
            until_ns = _ns(f"{until}T05:00:00Z")
            text = archive.snapshot_until(until_ns)
            seen = None if text is None else snapshots.read(text).value
            days = returns.earned_before(archive, seen, "day", until_ns)
            months = returns.earned_before(archive, seen, "month", until_ns)
            total = days.total.total
            for earned in (days, months):
                assert sum(row.realized for row in earned.rows) == earned.total.realized
                totals = [row.total for row in earned.rows]
                if totals and totals[-1] is not None and earned.total.total is not None:
                    assert sum(amount or 0 for amount in totals) == earned.total.total
            for month in ("2026-01", "2026-02"):
                if f"{until}" > f"{month}-31":
                    over.setdefault(month, set()).add(next((row for row in months.rows if row.month == month), None))
        assert {month: len(told) for month, told in over.items()} == {"2026-01": 1, "2026-02": 1}
        assert total == Decimal(worth) - 10_000 - moved


def test_a_fee_taken_in_the_coin_is_a_fee_and_no_trade(archive: Archive) -> None:
    _keep(
        archive,
        fill(1, "2026-01-05T15:00:00Z", symbol="BTC/USD", qty="2", price="100"),
        booking(1, "CFEE", "2026-01-05", symbol="BTCUSD", qty="-0.01", price="100", net_amount="0"),
    )
    earned = earn(archive, _snapshot("0", ("BTCUSD", "1.99", "100"), at="2026-02-01T00:00:00Z"), "symbol")
    (row,) = earned.rows
    assert (row.fees, row.realized, row.unrealized, row.trades) == (-1, 0, 0, 0)
    assert earned.reconciliation is not None
    assert earned.reconciliation.positions == ()


def test_shares_that_come_from_elsewhere_are_a_transfer(archive: Archive) -> None:
    _keep(archive, booking(1, "ACATS", "2026-01-05", symbol="IBM", qty="3", price="200"))
    earned = earn(archive, _snapshot("0", ("IBM", "3", "210")), None)
    assert earned.reconciliation is not None
    assert (earned.reconciliation.transfers, earned.total.unrealized, earned.reconciliation.difference) == (600, 30, 0)


MOVES = st.tuples(st.integers(-3, 3), st.integers(500, 1500), st.sampled_from([0, 0, 0, 2_500, -700]))
"""What a day brings: shares bought or sold, their price at its end in hundredths, money that comes in."""


@settings(max_examples=40, deadline=None)
@given(
    initial=st.integers(0, 5_000),
    days=st.lists(MOVES, min_size=1, max_size=9),
    span=st.tuples(st.integers(0, 8), st.integers(0, 8)),
    recorded=st.booleans(),
)
def test_statistics_gain_what_profit_and_loss_tells_for_the_same_days(
    initial: int, days: list[tuple[int, int, int]], span: tuple[int, int], recorded: bool
) -> None:
    monday = dt.date(2026, 3, 2)
    cash, held, earned, number = Decimal(0), 0, [Decimal(0)], 0
    with tempfile.TemporaryDirectory() as folder, Archive(f"{folder}/account.sqlite") as archive:
        for place, (qty, hundredths, moved) in enumerate(days):
            day = (monday + dt.timedelta(place + place // 5 * 2)).isoformat()
            price, came = Decimal(hundredths) / 100, moved + (initial if place == 0 else 0)
            if came:
                number += 1
                _keep(archive, booking(number, "JNLC" if place == 0 else "CSD", day, net_amount=str(came)))
            if qty:
                number += 1
                at, side = f"{day}T15:00:00Z", "buy" if qty > 0 else "sell"
                _keep(archive, fill(number, at, side=side, qty=str(abs(qty)), price=str(price - 1)))
            cash, held = cash + came - qty * (price - 1), held + qty
            shares = [("AAPL", str(held), str(price))] if held else []
            snapshot = _snapshot(str(cash), *shares, at=f"{day}T{'20' if place > 4 else '21'}:00:00Z")
            worth = str(snapshot.account.equity)
            if recorded:
                at_ns = snapshot.at.epoch_ns
                archive.append(Saved(at_ns, worth, str(cash), "0", "0", b"{}"), (at_ns, at_ns + 1))
            else:
                archive.keep_days([(dt.date.fromisoformat(day).toordinal(), worth)], ("days", Chain()))
            total = earn(archive, snapshot, None).total.total
            assert total is not None
            earned.append(total)
        closes = returns.curve(archive)
        assert len(closes) == len(days)
        assert list(itertools.accumulate(returns.growth(closes).days.values())) == earned[1:]
        if initial + days[0][2] <= 0:
            return  # nothing to begin with: what came of it has no return
        first, last = sorted(min(place, len(days) - 1) for place in span)
        found = returns.stats(closes[: last + 1], [], 0, closes[first].day)
    assert found is not None
    assert found.gain == earned[last + 1] - earned[first]
