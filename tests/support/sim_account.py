"""An account on an offline exchange, spoken to through the same requests that any client sends."""

import json
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.fakes import ManualClock

from alpacli.sim.exchange import Exchange
from alpacli.sim.orders import enter, fill_order, new_order
from alpacli.sim.rest import KEY_HEADER, SECRET_HEADER, HttpAnswer, HttpRequest, handle


class SimAccount:
    """One key pair's account; ``get`` returns the JSON of a 200 answer, ``send`` any answer."""

    def __init__(self, state_dir: Path, clock: ManualClock | None = None, key_id: str = "PKTEST") -> None:
        self.clock = clock or ManualClock()
        self.exchange = Exchange(str(state_dir), self.clock)
        self.key_id = key_id
        self.headers = {KEY_HEADER: key_id, SECRET_HEADER: "secret"}

    def send(self, method: str, path: str, body: object = None, **query: str) -> HttpAnswer:
        text = b"" if body is None else json.dumps(body).encode()
        return handle(self.exchange, HttpRequest(method, path, tuple(query.items()), self.headers, text))

    def get(self, path: str, **query: str) -> Any:
        answer = self.send("GET", path, **query)
        assert answer.status == 200, answer.body
        return json.loads(answer.body)

    def refused(self, path: str, **query: str) -> tuple[int, Any]:
        answer = self.send("GET", path, **query)
        return answer.status, json.loads(answer.body)

    def order(self, symbol: str, side: str, qty: str, **fields: Any) -> str:
        """Enter an order now and return its id."""
        number = self.exchange.account_number(self.key_id, "secret")
        with self.exchange.desk(number, changes=True) as desk:
            order = new_order(symbol, side, "limit", "gtc", desk.now_ns, Decimal(qty), limit_price=Decimal(1))
            return enter(desk, {**order, **fields})

    def trade(self, symbol: str, side: str, qty: str, price: str | None = None) -> str:
        """Enter a market order and fill it at once, at a price or at the quote."""
        order_id = self.order(symbol, side, qty, order_type="market", limit_price=None)
        self.fill(order_id, symbol, side, qty, price)
        return order_id

    def fill(self, order_id: str, symbol: str, side: str, qty: str, price: str | None = None) -> None:
        with self.exchange.desk(self.exchange.account_number(self.key_id, "secret"), changes=True) as desk:
            nbbo = desk.market.tape.nbbo(symbol, desk.now_ns)
            market = nbbo.ask if side == "buy" else nbbo.bid
            fill_order(desk, order_id, Decimal(qty), market if price is None else Decimal(price), desk.now_ns)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.exchange.close()
