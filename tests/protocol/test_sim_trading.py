"""Orders through the official SDK, unchanged, against a running exchange, and what the trading stream tells of them."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from alpaca.common.exceptions import APIError
from alpaca.trading.client import TradingClient
from alpaca.trading.enums import OrderClass, OrderSide, OrderStatus, TimeInForce
from alpaca.trading.models import ClosePositionResponse, Order
from alpaca.trading.requests import (
    ClosePositionRequest,
    GetOrdersRequest,
    LimitOrderRequest,
    MarketOrderRequest,
    ReplaceOrderRequest,
    StopLimitOrderRequest,
    StopLossRequest,
    StopOrderRequest,
    TakeProfitRequest,
    TrailingStopOrderRequest,
)
from alpaca.trading.stream import TradingStream
from tests.support.openapi import check_answer, require_specs
from tests.support.sim_account import SimAccount
from tests.support.sim_server import SimServer

BUY, SELL, DAY, GTC = OrderSide.BUY, OrderSide.SELL, TimeInForce.DAY, TimeInForce.GTC


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimServer]:
    with SimServer(tmp_path_factory.mktemp("sim")) as running:
        yield running


@pytest.fixture
def client(server: SimServer, request: pytest.FixtureRequest) -> Iterator[TradingClient]:
    """A client with an account of its own."""
    made = TradingClient(f"PK{request.node.name}", "secret", url_override=server.url)
    yield made
    made._session.close()


def submit(client: TradingClient, request: Any) -> Order:
    order = client.submit_order(request)
    assert isinstance(order, Order)
    return order


def until(client: TradingClient, order: Order, *statuses: OrderStatus) -> Order:
    deadline = time.monotonic() + 15
    while True:
        found = client.get_order_by_id(order.id)
        assert isinstance(found, Order)
        if found.status in statuses:
            return found
        assert time.monotonic() < deadline, f"{found.status} is not {statuses}"
        time.sleep(0.02)


def buy(client: TradingClient, symbol: str = "AAPL", qty: float = 10) -> Order:
    order = submit(client, MarketOrderRequest(symbol=symbol, qty=qty, side=BUY, time_in_force=DAY))
    return until(client, order, OrderStatus.FILLED)


REQUESTS: list[tuple[Callable[[float], Any], str]] = [
    (lambda price: MarketOrderRequest(symbol="AAPL", qty=3, side=SELL, time_in_force=GTC), "filled"),
    (lambda price: MarketOrderRequest(symbol="MSFT", notional=100.5, side=BUY, time_in_force=DAY), "filled"),
    (lambda price: MarketOrderRequest(symbol="MSFT", qty=0.25, side=BUY, time_in_force=DAY), "filled"),
    (lambda price: MarketOrderRequest(symbol="BTC/USD", qty=0.01, side=BUY, time_in_force=GTC), "filled"),
    (
        lambda price: LimitOrderRequest(
            symbol="AAPL", qty=1, side=BUY, time_in_force=DAY, limit_price=round(price * 1.2, 2), extended_hours=True
        ),
        "filled",
    ),
    (
        lambda price: LimitOrderRequest(
            symbol="AAPL", qty=1, side=BUY, time_in_force=TimeInForce.IOC, limit_price=round(price * 0.5, 2)
        ),
        "canceled",
    ),
    (
        lambda price: LimitOrderRequest(
            symbol="AAPL", qty=1, side=BUY, time_in_force=TimeInForce.FOK, limit_price=round(price * 1.1, 2)
        ),
        "filled",
    ),
    (lambda price: MarketOrderRequest(symbol="KO", qty=1, side=BUY, time_in_force=TimeInForce.OPG), "new"),
    (lambda price: MarketOrderRequest(symbol="KO", qty=1, side=BUY, time_in_force=TimeInForce.CLS), "new"),
    (
        lambda price: StopOrderRequest(
            symbol="AAPL", qty=1, side=SELL, time_in_force=GTC, stop_price=round(price * 0.5, 2)
        ),
        "new",
    ),
    (
        lambda price: StopLimitOrderRequest(
            symbol="AAPL", qty=1, side=SELL, time_in_force=GTC, stop_price=round(price / 2, 2), limit_price=1.5
        ),
        "new",
    ),
    (
        lambda price: TrailingStopOrderRequest(symbol="AAPL", qty=1, side=SELL, time_in_force=GTC, trail_percent=9.5),
        "new",
    ),
    (
        lambda price: TrailingStopOrderRequest(symbol="AAPL", qty=1, side=SELL, time_in_force=GTC, trail_price=50),
        "new",
    ),
    (
        lambda price: MarketOrderRequest(
            symbol="AAPL",
            qty=1,
            side=BUY,
            time_in_force=DAY,
            order_class=OrderClass.BRACKET,
            take_profit=TakeProfitRequest(limit_price=round(price * 2, 2)),
            stop_loss=StopLossRequest(stop_price=round(price / 2, 2), limit_price=round(price / 3, 2)),
        ),
        "filled",
    ),
    (
        lambda price: LimitOrderRequest(
            symbol="AAPL",
            qty=2,
            side=SELL,
            time_in_force=GTC,
            order_class=OrderClass.OCO,
            take_profit=TakeProfitRequest(limit_price=round(price * 2, 2)),
            stop_loss=StopLossRequest(stop_price=round(price / 2, 2)),
        ),
        "new",
    ),
    (
        lambda price: MarketOrderRequest(
            symbol="AAPL",
            qty=1,
            side=BUY,
            time_in_force=GTC,
            order_class=OrderClass.OTO,
            stop_loss=StopLossRequest(stop_price=round(price / 2, 2)),
        ),
        "filled",
    ),
]


@pytest.mark.parametrize(("make", "becomes"), REQUESTS)
def test_every_kind_of_order(client: TradingClient, make: Callable[[float], Any], becomes: str) -> None:
    price = float(buy(client).filled_avg_price or 0)
    order = submit(client, make(price))
    assert order.status in (OrderStatus.PENDING_NEW, OrderStatus.ACCEPTED)
    found = until(client, order, OrderStatus(becomes))
    by_own_id = client.get_order_by_client_id(order.client_order_id)
    assert isinstance(by_own_id, Order)
    assert by_own_id.id == found.id


def test_replace_and_cancel(client: TradingClient) -> None:
    order = submit(client, LimitOrderRequest(symbol="AAPL", qty=2, side=BUY, time_in_force=GTC, limit_price=100.5))
    new = client.replace_order_by_id(order.id, ReplaceOrderRequest(qty=5, limit_price=101.25))
    assert isinstance(new, Order)
    assert (new.replaces, new.qty, new.limit_price) == (order.id, "5", "101.25")
    assert until(client, order, OrderStatus.REPLACED).replaced_by == new.id
    client.cancel_order_by_id(until(client, new, OrderStatus.NEW).id)
    until(client, new, OrderStatus.CANCELED)
    with pytest.raises(APIError) as caught:
        client.cancel_order_by_id(new.id)
    assert (caught.value.status_code, caught.value.code) == (422, 42210000)
    for price in (90, 91, 92):
        submit(client, LimitOrderRequest(symbol="AAPL", qty=1, side=BUY, time_in_force=DAY, limit_price=price))
    assert [answer.status for answer in client.cancel_orders() if not isinstance(answer, str)] == [200] * 3
    time.sleep(0.1)
    assert client.get_orders(GetOrdersRequest()) == []


def test_closing_positions(client: TradingClient) -> None:
    buy(client)
    buy(client, "MSFT", 4)
    half = client.close_position("AAPL", ClosePositionRequest(percentage="50"))
    assert isinstance(half, Order)
    until(client, half, OrderStatus.FILLED)
    two = client.close_position("MSFT", ClosePositionRequest(qty="2"))
    assert isinstance(two, Order)
    until(client, two, OrderStatus.FILLED)
    submit(client, LimitOrderRequest(symbol="AAPL", qty=1, side=SELL, time_in_force=GTC, limit_price=9000))
    answers = client.close_all_positions(cancel_orders=True)
    assert [(a.symbol, a.status) for a in answers if isinstance(a, ClosePositionResponse)] == [
        ("AAPL", 200),
        ("MSFT", 200),
    ]
    for answer in answers:
        assert isinstance(answer, ClosePositionResponse)
        assert isinstance(answer.body, Order)
        until(client, answer.body, OrderStatus.FILLED)
    assert client.get_all_positions() == []


def test_what_is_refused_reaches_the_client_with_its_code(client: TradingClient) -> None:
    with pytest.raises(APIError) as caught:
        submit(client, MarketOrderRequest(symbol="AAPL", qty=100_000, side=BUY, time_in_force=DAY))
    assert (caught.value.status_code, caught.value.code) == (403, 40310000)
    order = MarketOrderRequest(symbol="AAPL", qty=1, side=BUY, time_in_force=DAY, client_order_id="once")
    submit(client, order)
    with pytest.raises(APIError) as caught:
        submit(client, order)
    assert (caught.value.status_code, caught.value.code) == (422, 40010001)
    with pytest.raises(APIError) as caught:
        client.exercise_options_position("AAPL260619C00300000")
    assert caught.value.status_code == 403


def test_the_stream_tells_of_everything_in_order(server: SimServer) -> None:
    client = TradingClient("PKSTREAM", "secret", url_override=server.url)
    stream = TradingStream("PKSTREAM", "secret", url_override=f"{server.ws}/stream")
    told: list[tuple[str, str]] = []
    listening = threading.Event()

    async def collect(update: Any) -> None:
        told.append((str(getattr(update.event, "value", update.event)), str(update.order.client_order_id)))
        listening.set()
        if told[-1] == ("canceled", "third"):
            await stream.stop_ws()

    stream.subscribe_trade_updates(collect)
    thread = threading.Thread(target=stream.run, daemon=True)
    thread.start()
    for number in range(200):  # the SDK does not say when it listens: order until something is heard
        submit(
            client,
            LimitOrderRequest(
                symbol="F", qty=1, side=BUY, time_in_force=GTC, limit_price=2, client_order_id=f"knock {number}"
            ),
        )
        if listening.wait(0.1):
            break
    buying = MarketOrderRequest(symbol="AAPL", qty=10, side=BUY, time_in_force=DAY, client_order_id="first")
    until(client, submit(client, buying), OrderStatus.FILLED)
    resting = submit(
        client,
        LimitOrderRequest(
            symbol="AAPL", qty=1, side=SELL, time_in_force=GTC, limit_price=9000, client_order_id="second"
        ),
    )
    new = client.replace_order_by_id(resting.id, ReplaceOrderRequest(limit_price=9001, client_order_id="third"))
    assert isinstance(new, Order)
    client.cancel_order_by_id(until(client, new, OrderStatus.NEW).id)
    thread.join(15)
    client._session.close()
    assert not thread.is_alive()
    mine = [event for event in told if not event[1].startswith("knock") and event[0] != "partial_fill"]
    assert mine == [
        ("pending_new", "first"),
        ("new", "first"),
        ("fill", "first"),
        ("pending_new", "second"),
        ("new", "second"),
        ("pending_replace", "second"),
        ("replaced", "second"),
        ("new", "third"),
        ("pending_cancel", "third"),
        ("canceled", "third"),
    ]


def test_answers_fit_the_published_schemas(tmp_path: Path) -> None:
    """Orders, replacements, refusals, and the 207 of cancel-all and close-all."""
    require_specs()
    import json

    with SimAccount(tmp_path) as account:

        def send(method: str, path: str, body: object = None, **query: str) -> Any:
            answer = account.send(method, path, body, **query)
            parsed = json.loads(answer.body or b"null")
            check_answer(method, path, answer.status, parsed)
            account.clock.advance(1)
            return parsed

        plain = {"symbol": "AAPL", "qty": "4", "side": "buy", "type": "market", "time_in_force": "gtc"}
        exits = {"take_profit": {"limit_price": "900"}, "stop_loss": {"stop_price": "5"}}
        send("POST", "/v2/orders", plain)
        send("POST", "/v2/orders", {**plain, "order_class": "bracket", **exits})
        made = send("POST", "/v2/orders", {**plain, "type": "limit", "limit_price": "9"})
        new = send("PATCH", f"/v2/orders/{made['id']}", {"qty": "2"})
        send("POST", "/v2/orders", {**plain, "qty": "100000"})
        send("POST", "/v2/orders", {**plain, "type": "no"})
        send("DELETE", f"/v2/orders/{new['id']}")
        send("DELETE", "/v2/positions/AAPL", qty="1")
        (held,) = json.loads(account.send("DELETE", "/v2/positions").body)
        assert held["status"] == 403  # the document shows only orders here, the wire an error's body
        assert send("DELETE", "/v2/orders")
        assert send("DELETE", "/v2/positions")[0]["status"] == 200
        for row in account.get("/v2/orders", status="all", nested="true"):
            check_answer("GET", f"/v2/orders/{row['id']}", 200, row)
