"""The client's own declarations read every answer of the in-process exchange: the two halves speak one protocol."""

from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from tests.support.fakes import ManualClock
from tests.support.sim_account import SimAccount

from alpacli.ports import Request
from alpacli.sim.demo import seed_demo
from alpacli.sim.exchange import Exchange
from alpacli.sim.transport import SimTransport
from alpacli.wire import rest


@pytest.fixture
def transport(tmp_path: Path) -> Iterator[SimTransport]:
    """The demo account, in process, at a moment that stands still."""
    clock = ManualClock()
    exchange = Exchange(str(tmp_path), clock)
    exchange.reset(rate_limit=0)
    seed_demo(exchange, "SIM")
    exchange.close()
    made = SimTransport(str(tmp_path), clock)
    yield made
    made.close()


def read(transport: SimTransport, call: rest.Call[Any]) -> Any:
    answer = transport.send(call.request, connect_timeout_s=1, read_timeout_s=1)
    assert answer.status in (200, 204), answer.body
    return call.decode(answer.body)


@pytest.mark.parametrize(
    "make",
    [
        rest.account,
        rest.positions,
        lambda: rest.position("BTC/USD"),
        lambda: rest.orders(status="all", nested=True, limit=500),
        rest.clock,
        lambda: rest.calendar(date(2026, 6, 1), date(2026, 6, 3)),
        rest.assets,
        lambda: rest.asset("BTC/USD"),
        rest.activities,
        rest.portfolio_history,
        rest.watchlists,
        lambda: rest.watchlist_by_name("Primary Watchlist"),
    ],
)
def test_the_client_reads_what_the_exchange_answers(
    transport: SimTransport, make: Callable[[], rest.Call[Any]]
) -> None:
    assert read(transport, make())


def test_the_client_pages_through_more_than_one_answer_holds(tmp_path: Path) -> None:
    """1,050 orders in three pages and 130 fills in two: each row once, though many share their moment."""
    with SimAccount(tmp_path, key_id="SIM") as account:
        for number in range(1050):
            if number % 8 == 0 and number < 1040:
                account.trade("AAPL", "buy", "1")
            else:
                account.order("AAPL", "buy", "1")
            account.clock.advance(number % 3 // 2)
        transport = SimTransport(str(tmp_path), account.clock)
        for call, total in (
            (rest.orders(status="all", limit=2000), 1050),
            (rest.activities(activity_types=["FILL"], limit=None), 130),
        ):
            request: Request | None = call.request
            rows: list[Any] = []
            while request is not None:
                answer = transport.send(request, connect_timeout_s=1, read_timeout_s=1)
                page = call.decode(answer.body)
                rows += page
                request = call.next_page(request, page, rows) if call.next_page is not None else None
            assert len({row.id for row in rows}) == total
        transport.close()


def test_what_the_client_reads_adds_up(transport: SimTransport) -> None:
    """Equity, cash and market values are exact decimals that agree."""
    account, positions = read(transport, rest.account()), read(transport, rest.positions())
    assert account.cash + sum(position.market_value for position in positions) == account.equity
    order = read(transport, rest.orders(status="all", limit=1))[0]
    assert read(transport, rest.order(order.id, nested=True)).id == order.id
    assert read(transport, rest.order_by_client_order_id(order.client_order_id)).id == order.id


def test_the_client_changes_watchlists(transport: SimTransport) -> None:
    made = read(transport, rest.create_watchlist("mine", ["AAPL"]))
    read(transport, rest.add_to_watchlist(made.id, "BTC/USD"))
    read(transport, rest.update_watchlist(made.id, "ours", ["AAPL", "BTC/USD", "MSFT"]))
    left = read(transport, rest.remove_from_watchlist(made.id, "BTC/USD"))
    assert [asset.symbol for asset in left.assets] == ["AAPL", "MSFT"]
    read(transport, rest.delete_watchlist(made.id))
    assert [row.name for row in read(transport, rest.watchlists())] == ["Primary Watchlist"]


def test_percent_signs_in_a_path_are_decoded(transport: SimTransport) -> None:
    answer = transport.send(Request("GET", "/v2/positions/BTC%2FUSD"), connect_timeout_s=1, read_timeout_s=1)
    assert answer.status == 200
    assert answer.headers["x-request-id"]
