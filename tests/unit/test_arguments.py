"""An argument that makes no sense is one of the library's own errors, told before anything is sent."""

import datetime as dt
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alpacli import AlpacaClient, OrderTicket, UsageError, open_stream
from alpacli.runtime import open_client
from alpacli.settings import Flags, load

NOON = dt.datetime(2025, 1, 6, 12, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AlpacaClient]:
    home: Path = tmp_path_factory.mktemp("home")
    with open_client(load(Flags(None, sim=True), env={"HOME": str(home)}, cwd=None)) as client:
        yield client


@pytest.mark.parametrize("number", [Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"), Decimal("-Infinity"), True])
@pytest.mark.parametrize("name", ["qty", "notional", "limit_price", "stop_loss"])
def test_an_amount_that_is_no_number_is_refused_by_its_name(paper: AlpacaClient, name: str, number: Any) -> None:
    ticket = OrderTicket("AAPL", "buy", **{name: number})
    for act in (paper.trading.preview, paper.trading.place):
        with pytest.raises(UsageError, match=f"{name} is .*no amount"):
            act(ticket)


@pytest.mark.parametrize("name", ["qty", "percent"])
def test_a_part_to_close_that_is_no_number_is_refused_by_its_name(paper: AlpacaClient, name: str) -> None:
    parts: Any = {name: Decimal("NaN")}
    with pytest.raises(UsageError, match=f"{name} is NaN"):
        paper.trading.close("AAPL", **parts)


def test_a_whole_number_of_numpys_is_an_amount() -> None:
    quantity: Any = np.int64(3)
    assert OrderTicket("AAPL", "buy", qty=quantity).checked().qty == Decimal(3)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda paper: paper.market_data.bars("AAPL", start=dt.date(2025, 1, 6), limit=1), "start"),
        (lambda paper: paper.market_data.bars("AAPL", start="2025-01-06", limit=1), "start"),
        (lambda paper: paper.market_data.trades("AAPL", end="today", limit=1), "end"),
        (lambda paper: paper.market_data.bars(None, limit=1), "no symbol"),
        (lambda paper: paper.get_calendar(NOON, NOON.replace(tzinfo=None)), "start is a time"),
        (lambda paper: paper.get_calendar("2025-01-06"), "start"),
        (lambda paper: paper.get_orders(after="2025-01-06"), "after"),
        (lambda paper: paper.get_orders(limit=2.5), "limit is 2.5"),
        (lambda _: open_stream({"trades": ["A"]}, sim=True, stale_after=-1), "stale_after is -1"),
        (lambda _: open_stream({"trades": ["A"]}, sim=True, stale_after=0), "stale_after is 0"),
        (lambda _: open_stream({"trades": ["A"]}, sim=True, stale_after=float("nan")), "stale_after is nan"),
        (lambda _: open_stream({"trades": ["A"]}, sim=True, reconnect=-1), "reconnect is -1"),
        (lambda _: open_stream({"trades": ["A,B"]}, sim=True), "A,B"),
    ],
)
def test_an_argument_of_the_wrong_kind_is_refused_by_its_name(
    paper: AlpacaClient, call: Callable[[Any], Any], named: str
) -> None:
    with pytest.raises(UsageError, match=named):
        call(paper)
