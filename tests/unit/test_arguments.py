"""An argument that makes no sense is one of the library's own errors, told before anything is sent."""

import asyncio
import contextlib
import datetime as dt
import functools
import inspect
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.fakes import ScriptedTransport, answer
from tests.support.parts import desk, pipeline

from alpacli import (
    AlpacaClient,
    AlpacliError,
    AsyncAlpacaClient,
    OrderTicket,
    UsageError,
    connect,
    connect_async,
    open_stream,
)
from alpacli.broker.flow import Pipeline
from alpacli.history.market_async import AsyncMarketData
from alpacli.ports import BudgetRules, SystemClock
from alpacli.runtime import open_client, open_market_data
from alpacli.settings import Flags, Settings, load
from alpacli.store.journal import Journal
from alpacli.store.sqlite import SqliteStore

A_TEXT: Any = "5"
NOON = dt.datetime(2025, 1, 6, 12, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AlpacaClient]:
    home: Path = tmp_path_factory.mktemp("home")
    with open_client(_settings(home)) as client:
        yield client


def _settings(home: Path) -> Settings:
    return load(Flags(None, sim=True), env={"HOME": str(home), "ALPACLI_RATE_LIMIT": "1000000"}, cwd=None)


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
        (lambda paper: paper.market_data.bars([], limit=1), "no symbol"),
        (lambda paper: paper.market_data.bars(None, limit=1), "symbols is None"),
        (lambda paper: paper.market_data.bars("AAPL", limit="5"), "limit is '5'"),
        (lambda paper: paper.market_data.bars("AAPL", limit=5, timeframe=1), "timeframe is 1"),
        (lambda paper: paper.get_account(max_age="5"), "max_age is '5'"),
        (lambda paper: paper.get_orders(symbols="AAPL"), "symbols is one text"),
        (lambda paper: paper.get_order(None), "order id is None"),
        (lambda paper: paper.trading.place({"symbol": "AAPL"}), "the order is a dict"),
        (lambda paper: paper.trading.place(OrderTicket("AAPL", "buy")._replace(legs=A_TEXT)), "legs"),
        (lambda paper: paper.trading.replace("id", "qty=5"), "changes is 'qty=5'"),
        (lambda _: connect(sim=True, timeout=A_TEXT), "timeout is '5'"),
        (lambda _: connect(sim=True, max_wait=A_TEXT), "max_wait is '5'"),
        (lambda _: connect_async(sim=True, timeout=True), "timeout is True"),
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


TICKET = OrderTicket("AAPL", "buy", qty=Decimal(1), type="limit", limit_price=Decimal(1))
NEEDED = {
    **dict.fromkeys(("order_id", "client_order_id", "watchlist_id", "name"), "x"),
    "symbol": "AAPL",
    "symbols": ["AAPL"],
    "ticket": TICKET,
    "changes": {"qty": 1},
    "limit": 1,
}
NONSENSE: list[Any] = ["5", 5, 2.5, None, {"a": 1}, ["A", 3], object(), b"x", dt.date(2025, 1, 6)]

NOT_ASKED = ("close", "cached", "read", "fetch", "change", "forward", "lifetime_s")
"""Of the client: its end, and what takes a ``Call`` or a function."""


def _calls(client: Any) -> Iterator[tuple[Callable[..., Any], dict[str, Any]]]:
    """Return each public method with nonsense for one argument after the other."""
    for part in (client, client.trading, client.market_data):
        for name, method in inspect.getmembers(part, inspect.isroutine):
            if name.startswith("_") or (part is client and name in NOT_ASKED):
                continue
            parameters = inspect.signature(method).parameters.values()
            needed = {
                one.name: NEEDED[one.name]
                for one in parameters
                if one.name in NEEDED and (one.default is one.empty or part is client.market_data)
            }
            for one in parameters:
                if one.kind is not one.VAR_POSITIONAL:
                    yield from ((method, {**needed, one.name: value}) for value in NONSENSE)


NOWHERE = answer({"message": "no such thing"}, 404)
"""To whatever is asked: an argument that makes sense gets that far."""


def _nowhere(home: Path) -> tuple[Pipeline, dict[str, Any]]:
    clock = SystemClock()
    asking = pipeline(SqliteStore(":memory:", clock), clock, rules=BudgetRules("alpaca:{test}", limit=100_000))
    options = {"open_desk": lambda: desk(asking, clock, Journal(str(home / "journal")))}
    return asking, options


def _ask(method: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """Call it; a bare exception goes through, and pytest shows of what."""
    try:
        return method(**arguments)
    except AlpacliError:
        return None


def test_no_argument_of_any_method_ends_in_a_bare_exception(tmp_path: Path) -> None:
    asking, options = _nowhere(tmp_path)
    history = functools.partial(open_market_data, _settings(tmp_path), warn=print)
    options["open_market_data"] = lambda read, begin: history(read, begin=begin)
    client = AlpacaClient(asking, ScriptedTransport(NOWHERE), clock=SystemClock(), **options)
    asked = [_ask(method, arguments) for method, arguments in _calls(client)]
    assert len(asked) > 500


def test_nor_in_an_event_loop(tmp_path: Path) -> None:
    asking, options = _nowhere(tmp_path)
    history = functools.partial(open_market_data, _settings(tmp_path), warn=print)
    options["open_market_data"] = lambda read, begin: AsyncMarketData(lambda sync: history(sync, begin=begin), read)

    async def ask_all() -> int:
        asked = 0
        async with AsyncAlpacaClient(asking, ScriptedTransport(NOWHERE), **options) as client:
            for method, arguments in _calls(client):
                asked += 1
                found = _ask(method, arguments)
                if inspect.isawaitable(found):
                    with contextlib.suppress(AlpacliError):
                        await found
        return asked

    assert asyncio.run(ask_all()) > 500


@pytest.mark.parametrize("field", OrderTicket._fields)
def test_no_field_of_an_order_ends_in_a_bare_exception(paper: AlpacaClient, field: str) -> None:
    for value in NONSENSE:
        nonsense: Any = {field: value}
        for act in (paper.trading.check, paper.trading.preview, paper.trading.place):
            _ask(act, {"ticket": TICKET._replace(**nonsense)})
