"""The tables of the history say what there is, at any width, and what there is not."""

import datetime as dt
from decimal import Decimal

import pytest
from rich.console import Console, RenderableType

from alpacli.domain.values import Timestamp
from alpacli.history.earnings import ClosedLot, Difference, Earnings, EarningsRow, HeldPosition, Reconciliation
from alpacli.history.records import SnapshotLine
from alpacli.history.returns import Agreement, EquityDay, Stats
from alpacli.history.sync import Report
from alpacli.render import ledger
from alpacli.render.text import Frame

AT = Timestamp.parse("2026-05-28T20:00:00Z")
ZERO = Decimal(0)


def _text(body: RenderableType, width: int = 120) -> str:
    console = Console(width=width, no_color=True, force_terminal=False)
    with console.capture() as captured:
        console.print(body)
    text = captured.get()
    assert all(len(line) <= width for line in text.splitlines())
    return text


def _frame(width: int = 120) -> Frame:
    return Frame(width, dt.datetime(2026, 5, 28, 21, tzinfo=dt.UTC), dt.UTC)


def _row(**label: str) -> EarningsRow:
    parts = {"dividends": ZERO, "interest": ZERO, "fees": Decimal("-1.5"), "other": ZERO}
    return EarningsRow(**label, realized=Decimal("12.345"), unrealized=None, total=Decimal(-7), trades=3, **parts)


@pytest.mark.parametrize("width", [60, 80, 140])
@pytest.mark.parametrize(
    ("label", "title"),
    [({"symbol": "[red]AAPL"}, "Symbol"), ({"day": "2026-05-28"}, "Day"), ({"month": "2026-05"}, "Month")],
)
def test_earnings_have_a_total_and_say_how_far_the_account_agrees(
    width: int, label: dict[str, str], title: str
) -> None:
    agreed = Reconciliation(
        at=AT,
        equity=Decimal(110),
        moved_meanwhile=ZERO,
        transfers=Decimal(100),
        expected=Decimal(10),
        computed=Decimal(-7),
        difference=Decimal(-17),
        portfolio_history=Decimal(111),
        portfolio_difference=Decimal(-1),
        positions=(Difference(symbol="KO", computed=Decimal(2), recorded=Decimal(3)),),
    )
    value = Earnings(rows=(_row(**label),), total=_row(), reconciliation=agreed)
    text = _text(ledger.earnings(value, _frame(width)), width)
    assert title in text
    assert next(iter(label.values())) in text
    assert "Total" in text
    assert "-17.00" in text
    assert "fills tell 2, the account 3" in " ".join(text.split())


def test_earnings_without_a_snapshot_say_what_takes_one() -> None:
    text = _text(ledger.earnings(Earnings(rows=(_row(),), total=_row(), reconciliation=None), _frame()))
    assert "alpacli history sync takes one" in text


def _stats(**fields: object) -> Stats:
    nothing = {
        name: None
        for name in Stats.model_fields
        if name.endswith("_ratio") or name in ("gain", "sharpe", "sortino", "profit_factor", "holding_time_s")
    }
    base = {
        **nothing,
        "first_day": "2026-05-01",
        "last_day": "2026-05-28",
        "days": 19,
        "days_a_year": 365,
        "days_from_snapshots": 3,
        "snapshots": 1_000_000,
        "equity": Decimal(100),
        "transfers": ZERO,
        "drawdown_from": None,
        "drawdown_to": None,
        "drawdown_recovered": None,
        "trades": 0,
        "reconciliation": Agreement(days=0, largest_difference=None, on=None, largest_ratio=None),
    }
    return Stats.model_validate(base | fields)


def test_stats_with_nothing_to_say_have_a_dash() -> None:
    text = _text(ledger.stats(_stats(), _frame()))
    assert "Sharpe–" in text.replace(" ", "")
    assert "Daysofayear365" in text.replace(" ", "")
    assert "no day has a close of both" in text


@pytest.mark.parametrize(("back", "said"), [(None, "not back yet"), ("2026-05-20", "back on 2026-05-20")])
def test_stats_tell_the_fall_with_its_days_and_how_far_alpaca_agrees(back: str | None, said: str) -> None:
    value = _stats(
        max_drawdown_ratio=Decimal("-0.125"),
        drawdown_from="2026-05-04",
        drawdown_to="2026-05-11",
        drawdown_recovered=back,
        holding_time_s=Decimal(7200),
        reconciliation=Agreement(days=3, largest_difference=Decimal("-2.43"), on="2026-05-05", largest_ratio=None),
    )
    text = _text(ledger.stats(value, _frame()))
    assert "-12.50%  2026-05-04 to 2026-05-11" in text
    assert said in text
    assert "at most 2.43 on 2026-05-05, 3 days compared" in text


def test_the_curve_comes_with_its_ends_and_sources() -> None:
    days = [
        EquityDay(
            day=f"2026-05-{number:02d}",
            equity=Decimal(100 + number),
            source="snapshot" if number % 2 else "alpaca",
            transfers=ZERO,
            return_ratio=None,
            alpaca_equity=None,
            exposure_ratio=None,
        )
        for number in range(4, 9)
    ]
    text = _text(ledger.equity(days, _frame()))
    assert "2026-05-04  104.00" in text
    assert "5, 2 from own snapshots, 3 from Alpaca's portfolio history" in text
    assert "No equity" in _text(ledger.equity([], _frame()))


def test_positions_lots_snapshots_and_a_sync_are_tables() -> None:
    held = HeldPosition(
        symbol="TSLA",
        qty=Decimal(-2),
        side="short",
        avg_entry_price=Decimal("300.5"),
        cost_basis=Decimal(-601),
        lots=1,
        opened_at=AT,
    )
    lot = ClosedLot(
        symbol="TSLA",
        side="short",
        qty=Decimal(-1),
        cost_basis=Decimal(-300),
        proceeds=Decimal(-250),
        realized=Decimal(50),
        opened_at=AT,
        closed_at=AT,
        holding_time_s=Decimal(60),
    )
    line = SnapshotLine(
        at=AT, equity=Decimal(100), cash=Decimal(60), long_market_value=Decimal(40), short_market_value=ZERO
    )
    assert "-601.00" in _text(ledger.positions([held], _frame()))
    assert "+50.00" in _text(ledger.closed([lot], _frame()))
    assert "60.00" in _text(ledger.snapshots([line], _frame()))
    for draw in (ledger.positions, ledger.closed, ledger.snapshots):
        assert "No" in _text(draw([], _frame()))
    report = Report(
        orders=5,
        activities=6,
        days=7,
        orders_changed=1,
        activities_changed=2,
        requests=9,
        snapshot_at=None,
        unresolved=("x",),
    )
    assert "Do not add up" in _text(ledger.sync(report, _frame()))
