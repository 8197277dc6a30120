"""A month of a simple strategy on real prices, traded on the exchange, and all its numbers worked out a second time.

Prices: the daily table of five shares in the PyPI package ``bokeh-sampledata``, November and December 2012. What the test
computes, it computes from those prices and from the exchange's own list of fills, in other ways than the product does:
share by share instead of lot by lot, with fractions instead of decimals, with numpy instead of sums.
"""

import csv
import datetime as dt
import gzip
import json
from collections import defaultdict, deque
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import bokeh_sampledata
import numpy as np
import pandas as pd
import pytest
from tests.support import parts

from alpacli.broker.client import AlpacaClient
from alpacli.history import earnings, returns, snapshots
from alpacli.history.archive import Archive
from alpacli.history.sync import Sync
from alpacli.ports import BudgetRules, Request, Response, SystemClock
from alpacli.sim.exchange import Exchange
from alpacli.sim.hours import new_york_ns
from alpacli.sim.pace import ReplayClock
from alpacli.sim.reading import read
from alpacli.sim.replay import assemble, open_exchange
from alpacli.sim.rest import HttpRequest, handle
from alpacli.store.sqlite import SqliteStore

FIRST, LAST = "2012-10-01", "2012-12-14"
BEGIN, END = dt.date(2012, 11, 5), dt.date(2012, 12, 7)
KEYS = {"apca-api-key-id": "PKREAL", "apca-api-secret-key": "s"}
CASH = 100_000
WHOLE = {"timeframe": "1D", "start": f"{BEGIN}T05:00:00Z", "end": f"{END}T21:00:00Z"}


class Line:
    """Carries requests to an exchange in memory."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def send(self, request: Request, *, connect_timeout_s: float, read_timeout_s: float) -> Response:
        asked = HttpRequest(request.method, request.path, request.query, KEYS, request.body or b"")
        answer = handle(self._exchange, asked)
        return Response(answer.status, {}, answer.body)

    def close(self) -> None:
        pass


class Month(NamedTuple):
    """What the strategy left behind."""

    archive: Archive
    closes: dict[str, dict[dt.date, Fraction]]
    days: list[dt.date]
    fills: list[Any]
    portfolio: Any


def _prices(folder: Path) -> tuple[Path, dict[str, dict[dt.date, Fraction]]]:
    """Cut the months out of the package's table; return the file to replay, and the closes by symbol and day."""
    table = Path(bokeh_sampledata.__file__).parent / "_data" / "stocks.csv.gz"
    closes: dict[str, dict[dt.date, Fraction]] = defaultdict(dict)
    path = folder / "prices.csv"
    with gzip.open(table, "rt") as source, path.open("w", newline="") as out:
        rows = csv.DictReader(source)
        writer = csv.writer(out)
        names = ("Ticker", "Date", "Open", "High", "Low", "Close", "Volume")
        writer.writerow(names)
        for row in rows:
            if FIRST <= row["Date"] <= LAST:
                writer.writerow([row[name] for name in names])
                closes[row["Ticker"]][dt.date.fromisoformat(row["Date"])] = Fraction(row["Close"])
    return path, closes


@pytest.fixture(scope="module")
def month(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Month]:
    """Trade for a month: hold what closed above its five-day mean, sell what did not, go short in one of them."""
    folder = tmp_path_factory.mktemp("real")
    path, closes = _prices(folder)
    recording = assemble(read([str(path)]), from_ns=new_york_ns(BEGIN, dt.time(9)))
    clock = ReplayClock(SystemClock(), recording.begin_ns, recording.end_ns)
    exchange = open_exchange(recording, clock)
    pipeline = parts.pipeline(
        SqliteStore(":memory:", clock), clock, rules=BudgetRules("alpaca:{real}", limit=1_000_000, reserve=0)
    )
    line = Line(exchange)
    client = AlpacaClient(pipeline, line, clock=clock)
    archive = Archive(str(folder / "account.sqlite"))
    days = [day for day in sorted(closes["IBM"]) if BEGIN <= day <= END]
    for number, day in enumerate(days):
        clock.set(new_york_ns(day, dt.time(10)) / 1e9)
        _trade(line, closes, day, number)
        half = day == dt.date(2012, 11, 23)
        clock.set(new_york_ns(day, dt.time(13 if half else 16)) / 1e9)
        account = client.get_account(use_cache=False)
        assert snapshots.take(client, archive, snapshots.told_by(clock), account, 60).new
        if number in (6, len(days) - 1):
            Sync(client, archive, clock).run(account)
    fills = _ask(line, "/v2/account/activities/FILL", direction="asc", page_size="100")
    portfolio = _ask(
        line, "/v2/account/portfolio/history", timeframe="1D", start=f"{BEGIN}T05:00:00Z", end=f"{END}T21:00:00Z"
    )
    yield Month(archive, closes, days, fills, portfolio)
    archive.close()
    exchange.close()


def _ask(line: Line, path: str, **query: str) -> Any:
    response = line.send(Request("GET", path, tuple(query.items())), connect_timeout_s=1, read_timeout_s=1)
    assert response.status == 200, response.body
    return json.loads(response.body)


def _trade(line: Line, closes: dict[str, dict[dt.date, Fraction]], day: dt.date, number: int) -> None:
    held = {row["symbol"]: row["qty"] for row in _ask(line, "/v2/positions")}
    for place, symbol in enumerate(sorted(closes)):
        before = [closes[symbol][d] for d in sorted(closes[symbol]) if d < day][-5:]
        strong = before[-1] > sum(before) / len(before)
        if symbol == "IBM":  # the one that is sold short when it is weak
            wanted = 0 if strong else -20
            _order(line, symbol, wanted - int(held.get(symbol, "0")))
        elif strong and symbol not in held:
            _order(line, symbol, "7.5" if symbol == "FB" else 10 + place)
        elif strong and number % 3 == 0:
            _order(line, symbol, 5)
        elif not strong and symbol in held:
            _order(line, symbol, f"-{held[symbol]}" if number % 2 else -4)


def _order(line: Line, symbol: str, signed: object) -> None:
    if str(signed) == "0":
        return
    side, qty = ("sell", str(signed)[1:]) if str(signed).startswith("-") else ("buy", str(signed))
    body = {"symbol": symbol, "side": side, "qty": qty, "type": "market", "time_in_force": "day"}
    request = Request("POST", "/v2/orders", body=json.dumps(body).encode())
    line.send(request, connect_timeout_s=1, read_timeout_s=1)  # what is refused (more than is held) is refused


# ------------------------------------------------------------------------------------------------ a second time


def _worth(month: Month, day: dt.date) -> Fraction:
    """Return cash and shares at the close of a day, from the fills up to then."""
    cash, held = Fraction(CASH), dict[str, Fraction]()
    for row in month.fills:
        if dt.datetime.fromisoformat(row["transaction_time"][:19] + "+00:00").date() <= day:
            signed = Fraction(row["qty"]) * (1 if row["side"] == "buy" else -1)
            held[row["symbol"]] = held.get(row["symbol"], Fraction(0)) + signed
            cash -= signed * Fraction(row["price"])
    return cash + sum(qty * month.closes[symbol][day] for symbol, qty in held.items())


def _realized(month: Month) -> dict[str, Fraction]:
    """Return what each symbol realized, half a share at a time: the oldest half goes first."""
    earned, queues = defaultdict[str, Fraction](Fraction), defaultdict[str, deque[Fraction]](deque)
    for row in month.fills:
        symbol, price, buys = row["symbol"], Fraction(row["price"]) / 2, row["side"] == "buy"
        queue = queues[symbol]
        for _ in range(int(Fraction(row["qty"]) * 2)):
            if queue and (queue[0] > 0) is not buys:
                entry = queue.popleft()
                earned[symbol] += (price if entry > 0 else -price) - entry
            else:
                queue.append(price if buys else -price)
    return earned


def test_the_month_is_one_worth_looking_at(month: Month) -> None:
    assert len(month.days) == 24
    assert len(month.fills) > 30
    assert {row["side"] for row in month.fills} == {"buy", "sell"}
    assert any("." in row["qty"] for row in month.fills), "shares were traded in parts"
    played = earnings.Played(earnings.events(month.archive))
    assert {row.side for row in earnings.closed_lots(played)} == {"long", "short"}


def test_everything_the_exchange_knows_was_brought_in_once(month: Month) -> None:
    kept = [json.loads(wire) for _, _, wire in month.archive.activities("WHERE kind = 'FILL' ORDER BY at_ns, seq", ())]
    assert kept == month.fills
    assert month.archive.doubtful_orders() == []
    assert month.archive.count("snapshots") >= len(month.days)


def test_equity_at_each_close_is_what_prices_and_fills_make(month: Month) -> None:
    closes = returns.curve(month.archive)
    assert [dt.date.fromordinal(close.day) for close in closes] == month.days
    assert {close.source for close in closes} == {"snapshot"}
    for close in closes:
        mine = _worth(month, dt.date.fromordinal(close.day))
        assert abs(Fraction(close.equity) - mine) <= Fraction(len(month.fills) + 5, 200), (
            "half a cent a fill and position"
        )


def test_own_closes_are_alpacas_portfolio_history(month: Month) -> None:
    closes = returns.curve(month.archive)
    assert [float(close.equity) for close in closes] == month.portfolio["equity"]
    agreed = returns.agreement(closes)
    assert agreed.days == 24
    assert agreed.largest_difference == 0


def test_profit_by_symbol_is_the_one_that_half_shares_make(month: Month) -> None:
    last = month.archive.snapshot_until(1 << 62)
    assert last is not None
    snapshot = snapshots.read(last).value
    earned = earnings.earn(month.archive, snapshot, "symbol")
    mine = _realized(month)
    rows = {row.symbol: row for row in earned.rows}
    assert {symbol: Fraction(row.realized) for symbol, row in rows.items() if row.realized} == dict(mine.items())
    whole = _worth(month, month.days[-1]) - CASH
    assert earned.total.total is not None
    assert Fraction(earned.total.total) == whole
    agreed = earned.reconciliation
    assert agreed is not None
    assert agreed.positions == ()
    assert abs(agreed.difference) <= len(month.fills) / 200
    assert agreed.portfolio_difference == 0


def test_profit_by_day_adds_up_to_the_profit(month: Month) -> None:
    last = month.archive.snapshot_until(1 << 62)
    assert last is not None
    closes = returns.curve(month.archive)
    earned = earnings.earn(month.archive, snapshots.read(last).value, "day", returns.growth(closes))
    totals = [row.total for row in earned.rows]
    assert None not in totals
    assert sum(total for total in totals if total is not None) == closes[-1].equity - CASH
    assert sum(row.realized for row in earned.rows) == earned.total.realized


def test_stats_are_those_of_numpy_and_of_empyrical(month: Month) -> None:
    import empyrical  # with scipy: only the worker that needs it pays

    closes = returns.curve(month.archive)
    played = earnings.Played(earnings.events(month.archive))
    found = returns.stats(closes, played.trades, month.archive.count("snapshots"))
    assert found is not None
    equity = np.array([CASH, *(float(_worth(month, day)) for day in month.days)])
    days = [month.days[0] - dt.timedelta(1), *month.days]
    daily = equity[1:] / equity[:-1] - 1
    series = pd.Series(daily, index=pd.DatetimeIndex(month.days))
    tops = np.maximum.accumulate(equity)
    bottom = int(np.argmin(equity / tops))
    pairs = [
        (found.return_ratio, equity[-1] / equity[0] - 1),
        (found.volatility_ratio, daily.std(ddof=1) * np.sqrt(252)),
        (found.sharpe, daily.mean() / daily.std(ddof=1) * np.sqrt(252)),
        (found.sharpe, empyrical.sharpe_ratio(series)),
        (found.sortino, empyrical.sortino_ratio(series)),
        (found.cagr_ratio, (equity[-1] / equity[0]) ** (365 / (days[-1] - days[0]).days) - 1),
        (found.max_drawdown_ratio, np.min(equity / tops - 1)),
    ]
    for ours, theirs in pairs:
        assert float(ours or 0) == pytest.approx(float(theirs), rel=2e-4)
    assert found.drawdown_to == days[bottom].isoformat()
    assert found.drawdown_from == days[int(np.argmax(equity[: bottom + 1]))].isoformat()
    value = {
        side: sum(float(r["qty"]) * float(r["price"]) for r in month.fills if r["side"] == side)
        for side in ("buy", "sell")
    }
    assert float(found.turnover_ratio or 0) == pytest.approx(min(value.values()) / equity[1:].mean(), rel=1e-4)
    assert found.days == 24
    assert found.gain == sum(returns.growth(closes).days.values())


def test_positions_of_the_middle_of_the_month_are_those_of_its_fills(month: Month) -> None:
    at_ns = new_york_ns(month.days[10], dt.time(18))
    held = {
        row.symbol: Fraction(row.qty)
        for row in earnings.positions(earnings.Played(earnings.events(month.archive, at_ns)))
    }
    mine = defaultdict[str, Fraction](Fraction)
    for row in month.fills:
        if row["transaction_time"][:10] <= month.days[10].isoformat():
            mine[row["symbol"]] += Fraction(row["qty"]) * (1 if row["side"] == "buy" else -1)
    assert held == {symbol: qty for symbol, qty in mine.items() if qty}
