"""A fill makes everybody forget what was read of the account before it, as soon as anybody hears of it."""

from collections.abc import Callable
from typing import Any

import pytest
from tests.support import parts
from tests.support.fakes import ACCOUNT, ManualClock, answer

from alpacli.broker.client import AlpacaClient
from alpacli.broker.fills import Fills
from alpacli.domain.ticks import instant_ns, instant_text
from alpacli.ports import Request, Response
from alpacli.store.sqlite import SqliteStore
from alpacli.wire import fills

T0 = instant_ns("2026-05-28T20:26:40.000000000Z")  # the manual clock's
SECOND_NS = 1_000_000_000


def _at(seconds: float) -> str:
    return instant_text(T0 + int(seconds * SECOND_NS))


def _order(order_id: str = "a", filled: str = "0", at: float = 0.0, **others: Any) -> dict[str, Any]:
    return {
        "id": order_id,
        "client_order_id": order_id,
        "symbol": "AAPL",
        "order_class": "",
        "time_in_force": "day",
        "extended_hours": False,
        "created_at": _at(0),
        "updated_at": _at(at),
        "status": "filled" if filled != "0" else "new",
        "filled_qty": filled,
        **others,
    }


class Broker:
    """An account whose cash tells how often it was asked for, and orders as they are put."""

    def __init__(self) -> None:
        self.asked = 0
        self.orders: Any = [_order()]

    def send(self, request: Request, *, connect_timeout_s: float, read_timeout_s: float) -> Response:
        if request.path == "/v2/account":
            self.asked += 1
            return answer({**ACCOUNT, "cash": str(self.asked)})
        return answer(self.orders)

    def close(self) -> None: ...


@pytest.fixture
def make(store: SqliteStore, clock: ManualClock) -> Callable[[Broker], AlpacaClient]:
    def made(broker: Broker) -> AlpacaClient:
        lines = parts.pipeline(store, clock, cache_ttl_s={"account": 600.0})
        return AlpacaClient(lines, broker, clock=clock)

    return made


def test_who_has_seen_an_order_fill_is_given_nothing_of_before(make: Callable[[Broker], AlpacaClient]) -> None:
    broker = Broker()
    client, another = make(broker), make(broker)
    client.get_orders()
    assert another.get_account().cash == 1
    broker.orders = [_order(filled="1", at=2)]
    assert client.get_account().cash == 1  # nobody has heard of it
    client.get_orders()
    assert another.get_account().cash == 2
    client.get_orders()
    assert client.get_account().cash == 2  # known: nothing is forgotten twice
    broker.orders = [_order(filled="1.5", at=3), _order("b")]
    client.get_orders()
    assert client.get_account().cash == 3


def test_a_fill_of_a_leg_counts_and_an_order_that_only_changes_does_not(make: Callable[[Broker], AlpacaClient]) -> None:
    broker = Broker()
    client = make(broker)
    client.get_orders()
    client.get_account()
    broker.orders = [_order(at=5, legs=[_order("leg", at=6)])]
    client.get_orders(nested=True)
    assert client.get_account().cash == 1
    broker.orders = [_order(at=5, legs=[_order("leg", filled="0.5", at=7)])]
    client.get_orders(nested=True)
    assert client.get_account().cash == 2


@pytest.mark.parametrize(
    ("ago", "again"), [(600.0, True), (614.5, True), (615.0, False), (-14.0, True), (616.0, False), (-616.0, False)]
)
def test_a_process_that_first_hears_of_fills_heeds_those_that_the_cache_may_be_older_than(
    make: Callable[[Broker], AlpacaClient], ago: float, again: bool
) -> None:
    broker = Broker()
    broker.orders = _order(filled="1", at=-ago)
    client = make(broker)
    client.get_account()
    client.get_order("a")
    assert client.get_account().cash == (2 if again else 1)


def test_only_news_of_a_fill_is_worth_forgetting(clock: ManualClock) -> None:
    forgotten: list[str] = []
    known = Fills(forgotten.append, clock, 0.0)
    assert known.heard(0) is None
    forget = known.heard(T0 - 10**18)
    assert forget is not None
    forget()
    assert forgotten == ["account", "positions", "orders"]
    assert known.heard(T0 - 10**18) is None
    assert known.heard(0) is None
    assert known.heard(T0 - 10**18 + 1) is not None


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"[]", 0),
        (b"", 0),
        (b"<html>", 0),
        (b'{"message": "order not found"}', 0),
        (b' [{"filled_qty": "0.00", "updated_at": "2026-05-28T20:26:40Z"}]', 0),
        (b' [{"filled_qty": null, "updated_at": "2026-05-28T20:26:40Z"}]', 0),
        (b'[{"filled_qty": "0.010", "updated_at": "2026-05-28T20:26:40Z"}]', T0),
        (b'{"filled_qty": 3, "updated_at": "2026-05-28T16:26:40.000000001-04:00"}', T0 + 1),
        (b'{"filled_qty": "3", "updated_at": "yesterday"}', 0),
        (b'{"filled_qty": "3", "updated_at": null}', 0),
    ],
)
def test_fills_are_found_in_any_answer_about_orders(body: bytes, found: int) -> None:
    assert fills.in_orders(body) == found


def test_fills_are_found_in_trade_updates() -> None:
    order = b'{"filled_qty": "3", "updated_at": "2026-05-28T20:26:40Z"}'
    update = b'{"type":"trade_update","event":"fill","order":' + order + b"}\n"
    lines = b'no line\n{"type":"quote","symbol":"AAPL"}\n' + update
    assert fills.in_updates(lines) == T0
    assert fills.in_updates(b'{"type":"quote"}\n') == 0


def test_whoever_hears_of_a_fill_while_it_is_being_forgotten_does_not_go_on_before_that_is_done(
    clock: ManualClock,
) -> None:
    known = Fills(lambda name: None, clock, 0.0)
    first, second = known.heard(T0), known.heard(T0)
    assert first is not None
    assert second is not None
    first()
    assert known.heard(T0) is None


def test_a_forgetting_that_is_interrupted_is_made_up(clock: ManualClock) -> None:
    forgotten: list[str] = []

    def forget(name: str) -> None:
        if not forgotten:
            forgotten.append("interrupted")
            raise KeyboardInterrupt
        forgotten.append(name)

    known = Fills(forget, clock, 0.0)
    for again in (False, True):
        work = known.heard(T0)
        assert work is not None
        if again:
            work()
        else:
            with pytest.raises(KeyboardInterrupt):
                work()
    assert forgotten == ["interrupted", "account", "positions", "orders"]
