"""What the desk asks of a whole account before it sends, closes or cancels, on the offline exchange."""

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import pytest
from tests.support import parts
from tests.support.fakes import ManualClock

from alpacli.broker.client import AlpacaClient
from alpacli.broker.forward import find_route
from alpacli.broker.outcomes import Closing
from alpacli.broker.risk import RiskRules
from alpacli.domain.identity import difference
from alpacli.domain.tickets import Leg, OrderTicket
from alpacli.errors import AuthenticationError, ConnectionLost, NotFound, OrderRefused, OrderRejected, UsageError
from alpacli.ports import Request, Response
from alpacli.sim.exchange import Exchange
from alpacli.sim.transport import SimTransport
from alpacli.store.halt import Halt
from alpacli.store.journal import Journal
from alpacli.store.sqlite import SqliteStore

MONDAY_AT_TEN = 1_780_322_400.0
BUY = OrderTicket(symbol="AAPL", side="buy", qty=Decimal(10))
CALLS = ("AAPL260605C00270000", "AAPL260605C00280000")


class Broken:
    """A transport that a test may break for some of the paths, or give old answers to."""

    def __init__(self, transport: SimTransport) -> None:
        self._transport = transport
        self.failures: dict[str, Exception] = {}
        self.stale: dict[str, Response] = {}
        self.sent: list[Request] = []

    def send(self, request: Request, *, connect_timeout_s: float, read_timeout_s: float) -> Response:
        self.sent.append(request)
        for path, failure in self.failures.items():
            if request.path.startswith(path):
                raise failure
        if request.path in self.stale:
            return self.stale[request.path]
        return self._transport.send(request, connect_timeout_s=connect_timeout_s, read_timeout_s=read_timeout_s)

    def close(self) -> None:
        self._transport.close()


class Bench:
    """A client whose broker is the exchange; ``rules`` and ``halted`` may be changed at any time."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock(MONDAY_AT_TEN)
        exchange = Exchange(str(folder), self.clock)
        exchange.reset(hours="xnys", rate_limit=0)
        exchange.close()
        self.transport = Broken(SimTransport(str(folder), self.clock))
        self.journal = Journal(str(folder / "orders.jsonl"))
        self.warnings: list[str] = []
        self.rules = RiskRules()
        self.halted: Halt | None = None
        pipeline = parts.pipeline(SqliteStore(":memory:", self.clock), self.clock)
        desk = parts.desk(
            pipeline,
            self.clock,
            self.journal,
            rules=lambda: self.rules,
            halted=lambda: self.halted,
            warn=self.warnings.append,
        )
        self.client = AlpacaClient(pipeline, self.transport, clock=self.clock, open_desk=lambda: desk)
        self.trading = self.client.trading

    def forward(
        self, method: Literal["POST", "PATCH", "DELETE"], path: str, body: object = None, **query: str
    ) -> bytes:
        """Send a request in Alpaca's own words through the desk, as the gateway does."""
        route = find_route(path)
        assert route is not None
        text = None if body is None else json.dumps(body).encode()
        request = Request(method, path, tuple(query.items()), text)
        return self.client.forward(route, request).response.body

    def filled(self, ticket: OrderTicket) -> None:
        """Place an order, and let it be filled."""
        self.trading.place(ticket)
        self.clock.advance(60)

    @property
    def held(self) -> dict[str, Decimal]:
        return {position.symbol: position.qty for position in self.client.get_positions()}

    @property
    def outcomes(self) -> list[Any]:
        return [line["outcome"] for line in self.journal.records() if line["phase"] == "answered"]

    @property
    def changes(self) -> list[str]:
        return [request.method for request in self.transport.sent if request.method != "GET"]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.transport.close()


def test_a_preview_tells_what_an_order_costs_and_leaves_and_sends_nothing(bench: Bench) -> None:
    preview = bench.trading.preview(BUY._replace(limit_price=Decimal(100), type="limit"))
    assert (preview.estimated_cost, preview.buying_power) == (Decimal(1000), Decimal(200_000))
    assert preview.buying_power_left == Decimal(199_000)
    assert (preview.method, preview.warnings) == ("POST", ())
    assert preview.body is not None
    assert preview.body["qty"] == "10"
    market = bench.trading.preview(BUY)
    assert market.estimated_cost is not None
    assert market.estimated_cost > 1000  # at the quote
    coin = bench.trading.preview(OrderTicket(symbol="BTCUSD", side="buy", qty=Decimal("0.01"), time_in_force="gtc"))
    assert coin.estimated_cost is not None
    assert bench.changes == []


def test_several_legs_cost_their_net_at_the_market(bench: Bench) -> None:
    legs = (Leg(CALLS[0], Decimal(1), "buy_to_open"), Leg(CALLS[1], Decimal(1), "sell_to_open"))
    spread = OrderTicket(order_class="mleg", qty=Decimal(1), legs=legs)
    cost = bench.trading.preview(spread).estimated_cost
    assert cost is not None
    assert 0 < cost < 1000  # less than its width
    limit = bench.trading.preview(spread._replace(type="limit", limit_price=Decimal("2.50")))
    assert limit.estimated_cost == Decimal(250)
    bench.transport.failures["/v1beta1/options"] = ConnectionLost("reset")
    assert bench.trading.preview(spread).estimated_cost is None


def test_what_cannot_be_bought_is_refused_before_it_is_sent(bench: Bench) -> None:
    with pytest.raises(OrderRefused, match="no asset NOSUCH"):
        bench.trading.check(BUY._replace(symbol="NOSUCH"))
    with pytest.raises(OrderRefused, match="can be spent"):
        bench.trading.check(BUY._replace(qty=Decimal(1_000_000)))
    bench.clock.advance(12 * 3600)
    (warning,) = bench.trading.check(BUY)
    assert "closed" in warning


def test_why_an_order_is_not_checked_is_said_once_a_minute_however_many_reads_fail(bench: Bench) -> None:
    bench.transport.failures["/v"] = ConnectionLost("reset")
    for _ in range(2):
        bench.trading.check(BUY)
    said = list(bench.warnings)
    assert len(said) == len(set(said))
    bench.clock.advance(61)
    bench.trading.check(BUY)
    assert bench.warnings[len(said) :]


def test_what_cannot_be_learned_is_left_to_the_broker_and_that_is_said(bench: Bench) -> None:
    bench.transport.failures["/v2/"] = ConnectionLost("reset")
    assert bench.trading.check(BUY) == ()
    assert bench.warnings
    assert all(warning.startswith("not checked: ") for warning in bench.warnings)
    bench.clock.advance(60)
    bench.transport.failures["/v2/"] = AuthenticationError("no")
    with pytest.raises(AuthenticationError):
        bench.trading.check(BUY)


def test_shares_that_open_orders_hold_count_unless_those_are_taken_as_canceled(bench: Bench) -> None:
    bench.filled(BUY)
    exit_ = BUY._replace(side="sell", type="limit", limit_price=Decimal(10_000), time_in_force="gtc")
    bench.trading.place(exit_)
    with pytest.raises(OrderRefused, match="0 are left"):
        bench.trading.preview(BUY._replace(side="sell"))
    assert bench.trading.preview(BUY._replace(side="sell"), holds=False).estimated_cost is not None


def test_an_order_in_alpacas_own_words_is_sent_as_it_is_written_and_own_rules_hold(bench: Bench) -> None:
    fields = {"symbol": "AAPL", "side": "buy", "qty": "1", "type": "market", "time_in_force": "day"}
    order = json.loads(bench.forward("POST", "/v2/orders", fields))
    assert order["client_order_id"].startswith("alpacli-")
    order = json.loads(bench.forward("POST", "/v2/orders", {**fields, "client_order_id": "mine"}))
    assert order["client_order_id"] == "mine"
    bench.rules = RiskRules(max_order_qty=Decimal(1))
    assert json.loads(bench.forward("POST", "/v2/orders", fields))["qty"] == "1"
    with pytest.raises(OrderRefused, match="2"):
        bench.forward("POST", "/v2/orders", {**fields, "qty": "2"})
    bench.rules, bench.halted = RiskRules(), Halt(1.0, "storm", "me")
    with pytest.raises(OrderRefused, match="storm"):
        bench.forward("POST", "/v2/orders", {**fields, "symbol": "MSFT"})
    with pytest.raises(OrderRefused, match="exercise of an option has to wait"):
        bench.forward("POST", f"/v2/positions/{CALLS[0]}/exercise")
    with pytest.raises(UsageError):
        bench.forward("POST", "/v2/orders", [fields])
    assert bench.changes == ["POST"] * 3


def test_what_alpacas_own_words_change_cancel_and_close_is_in_the_journal_too(bench: Bench) -> None:
    bench.filled(BUY)
    order = bench.trading.place(BUY._replace(type="limit", limit_price=Decimal(1), time_in_force="gtc"))
    bench.clock.advance(60)
    order_id = json.loads(bench.forward("PATCH", f"/v2/orders/{order.id}", {"limit_price": "2"}))["id"]
    bench.clock.advance(60)
    assert bench.forward("DELETE", f"/v2/orders/{order_id}") == b""
    bench.clock.advance(60)
    assert bench.forward("DELETE", "/v2/orders") == b"[]"
    assert json.loads(bench.forward("DELETE", "/v2/positions/AAPL", percentage="50"))["qty"] == "5"
    bench.clock.advance(60)
    (closed,) = json.loads(bench.forward("DELETE", "/v2/positions", cancel_orders="true"))
    assert (closed["symbol"], closed["status"], closed["body"]["qty"]) == ("AAPL", 200, "5")
    actions = [line["action"] for line in bench.journal.records() if line["phase"] == "sent"]
    assert actions == ["place", "place", "replace", "cancel", "cancel all", "close", "cancel all", "close"]


def test_a_replacement_is_held_against_the_order_and_costs_the_difference(bench: Bench) -> None:
    order = bench.trading.place(BUY._replace(type="limit", limit_price=Decimal(100), time_in_force="gtc"))
    bench.clock.advance(60)
    preview = bench.trading.preview_replacement(order.id, {"limit_price": Decimal(110)})
    assert (preview.method, preview.url) == ("PATCH", f"/v2/orders/{order.id}")
    assert (preview.estimated_cost, preview.warnings) == (Decimal(1100), ())
    assert preview.buying_power is not None
    assert preview.buying_power_left == preview.buying_power - 100
    with pytest.raises(OrderRefused):
        bench.trading.check_replacement(order.id, {"stop_price": Decimal(1)})
    assert bench.changes == ["POST"]
    assert bench.trading.replace(order.id, {"limit_price": "110"}).limit_price == Decimal(110)


def test_a_position_is_closed_in_whole_in_part_and_by_percent(bench: Bench) -> None:
    bench.filled(BUY._replace(qty=Decimal(9)))
    bench.filled(OrderTicket(symbol="BTC/USD", side="buy", qty=Decimal("0.5"), time_in_force="gtc"))
    bench.filled(OrderTicket(symbol="TSLA", side="sell", qty=Decimal(3)))
    half = {"percent": Decimal(50)}
    assert bench.trading.closing_ticket("AAPL", **half).qty == Decimal("4.5")
    assert bench.trading.closing_ticket("TSLA", **half)[:5] == ("TSLA", "buy", "market", "day", Decimal(1))
    coin = bench.trading.closing_ticket("BTC/USD", **half)
    assert (coin.side, coin.time_in_force) == ("sell", "gtc")
    assert coin.qty is not None
    assert abs(coin.qty - Decimal("0.25")) < Decimal("0.001")  # less what the trade cost
    bench.trading.close("AAPL", qty=Decimal(4))
    bench.clock.advance(60)
    assert bench.held["AAPL"] == 5
    bench.trading.close("AAPL", percent=Decimal(100))
    bench.clock.advance(60)
    assert "AAPL" not in bench.held


def test_a_share_of_a_position_that_has_no_fractions_says_how_many_it_comes_to(bench: Bench) -> None:
    bench.filled(OrderTicket(symbol="TSLA", side="sell", qty=Decimal(10)))
    assert bench.trading.closing_ticket("TSLA", percent=Decimal(30)).qty == 3
    assert bench.warnings == []
    assert bench.trading.closing_ticket("TSLA", percent=Decimal(33)).qty == 3
    assert bench.trading.close("TSLA", percent=Decimal(33)).qty == 3
    assert bench.warnings == ["33 % of 10 TSLA is 3.3, and only whole shares can be bought back: 3"] * 2
    with pytest.raises(OrderRefused, match=r"5 % of 10 TSLA is 0\.5: less than one, and only whole shares"):
        bench.trading.close("TSLA", percent=Decimal(5))


def test_what_cannot_be_closed_says_why(bench: Bench) -> None:
    with pytest.raises(NotFound) as nothing:
        bench.trading.closing_ticket("AAPL")
    assert nothing.value.hint == "nothing is held"
    bench.filled(BUY)
    with pytest.raises(NotFound) as other:
        bench.trading.closing_ticket("MSFT")
    assert other.value.hint == "held: AAPL"
    with pytest.raises(OrderRefused, match="11 of a position of 10 AAPL"):
        bench.trading.closing_ticket("AAPL", Decimal(11))
    for percent in (Decimal(0), Decimal("100.1")):
        with pytest.raises(UsageError, match="not a percentage"):
            bench.trading.closing_ticket("AAPL", percent=percent)
    with pytest.raises(UsageError, match="exclude"):
        bench.trading.closing_ticket("AAPL", Decimal(1), Decimal(1))


def test_everything_is_closed_when_what_holds_it_is_canceled(bench: Bench) -> None:
    bench.filled(BUY)
    bench.filled(OrderTicket(symbol="TSLA", side="sell", qty=Decimal(3)))
    bench.trading.place(BUY._replace(side="sell", type="limit", limit_price=Decimal(10_000), time_in_force="gtc"))
    bench.clock.advance(60)
    refused, closed = bench.trading.close_all()
    assert (refused.symbol, refused.status, closed.symbol, closed.status) == ("AAPL", 403, "TSLA", 200)
    bench.clock.advance(60)
    (closed,) = bench.trading.close_all(cancel_orders=True)
    assert (closed.symbol, closed.status) == ("AAPL", 200)
    bench.clock.advance(60)
    assert bench.held == {}
    assert bench.client.get_orders() == []


def test_whoever_closes_everything_hears_of_every_position_and_then_of_each_closing(bench: Bench) -> None:
    bench.filled(BUY)
    bench.filled(OrderTicket(symbol="TSLA", side="sell", qty=Decimal(3)))
    heard: list[tuple[str, Closing | None]] = []
    first, second = bench.trading.close_all(on_result=lambda *told: heard.append(told))
    assert heard == [("AAPL", None), ("TSLA", None), ("AAPL", first), ("TSLA", second)]


def test_a_spread_is_closed_at_once_its_short_legs_first(bench: Bench) -> None:
    """What covers an option that was sold cannot be sold before that one is bought back, whatever the alphabet says."""
    low, high = (contract.replace("C", "P") for contract in CALLS)
    wings = (low, "buy"), (high, "sell"), (CALLS[0], "buy"), (CALLS[1], "sell")
    legs = tuple(Leg(symbol, Decimal(1), f"{side}_to_open", side) for symbol, side in wings)
    bench.filled(OrderTicket(order_class="mleg", qty=Decimal(2), type="market", legs=legs))
    bench.filled(BUY)
    assert len(bench.held) == 5
    closed = bench.trading.close_all()
    assert {item.symbol: item.status for item in closed} == dict.fromkeys([low, high, *CALLS, "AAPL"], 200)
    assert {item.symbol for item in closed[:2]} == {high, CALLS[1]}
    bench.clock.advance(60)
    assert bench.held == {}


def test_what_covers_a_short_option_that_cannot_be_bought_back_is_not_waited_for_without_end(bench: Bench) -> None:
    legs = (Leg(CALLS[0], Decimal(1), "buy_to_open", "buy"), Leg(CALLS[1], Decimal(1), "sell_to_open", "sell"))
    bench.filled(OrderTicket(order_class="mleg", qty=Decimal(1), type="market", legs=legs))
    out = OrderTicket(symbol=CALLS[1], side="buy", qty=Decimal(1), type="limit", limit_price=Decimal("0.01"))
    bench.trading.place(out)
    before_s = bench.clock.monotonic()
    held, covering = bench.trading.close_all()
    assert (held.symbol, held.status, covering.symbol, covering.status) == (CALLS[1], 403, CALLS[0], 403)
    assert bench.clock.monotonic() - before_s < 5


class Meanwhile:
    """Somebody else closes what is held, between the look at the positions and the order that closes them."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        seen = bench.transport.send(Request("GET", "/v2/positions"), connect_timeout_s=1, read_timeout_s=1)
        bench.trading.close_all()
        bench.clock.advance(60)
        bench.transport.stale["/v2/positions"] = seen

    def holds(self) -> dict[str, Decimal]:
        del self._bench.transport.stale["/v2/positions"]
        self._bench.clock.advance(60)
        return self._bench.held


@pytest.mark.parametrize(
    ("side", "against", "inferred"), [("buy", "sell", "sell_to_open"), ("sell", "buy", "buy_to_open")]
)
def test_a_position_that_was_closed_meanwhile_is_not_closed_once_more(
    bench: Bench, side: str, against: str, inferred: str
) -> None:
    """Three who flatten at once must not leave a position on the other side."""
    bench.filled(BUY._replace(symbol="TSLA", side=side))
    meanwhile = Meanwhile(bench)
    with pytest.raises(OrderRejected) as refused:
        bench.trading.close("TSLA")
    assert refused.value.message.startswith("nothing is left to close: the position in TSLA was closed meanwhile (")
    assert f"position intent mismatch, inferred {inferred}" in refused.value.message
    assert (refused.value.exit_code, refused.value.status, refused.value.code) == (4, 422, 42210000)
    assert b"intent mismatch" in refused.value.body
    assert json.loads(bench.transport.sent[-1].body or b"")["position_intent"] == f"{against}_to_close"
    (closing,) = bench.trading.close_all()
    assert closing.status == 422
    assert meanwhile.holds() == {}
    assert bench.outcomes[-2:] == ["refused", "refused"]


def test_what_is_closed_for_another_reason_than_that_it_is_gone_says_that_reason(bench: Bench) -> None:
    bench.filled(BUY)
    bench.trading.place(BUY._replace(side="sell", type="limit", limit_price=Decimal(10_000), time_in_force="gtc"))
    with pytest.raises(OrderRejected, match=r"^insufficient"):
        bench.trading.close("AAPL")


@pytest.mark.parametrize("raw", [False, True])
def test_what_a_halt_lets_through_can_only_close(bench: Bench, *, raw: bool) -> None:
    bench.filled(BUY)
    meanwhile = Meanwhile(bench)
    bench.halted = Halt(1.0, "storm", "me")
    out = BUY._replace(side="sell", qty=Decimal("10.0"))
    with pytest.raises(OrderRejected, match="inferred sell_to_open, specified sell_to_close"):
        bench.forward("POST", "/v2/orders", out.body("mine")) if raw else bench.trading.place(out)
    body = bench.transport.sent[-1].body or b""
    assert b'"qty":"10.0"' in body
    assert json.loads(body)["position_intent"] == "sell_to_close"
    assert json.loads(
        [line for line in bench.journal.records() if "request" in line][-2]["request"]["body"]
    ) == json.loads(body)
    assert meanwhile.holds() == {}


def test_what_own_rules_let_through_because_it_reduces_can_only_close_and_the_preview_says_so(bench: Bench) -> None:
    bench.filled(BUY)
    out = BUY._replace(side="sell", qty=Decimal(4))
    assert "position_intent" not in (bench.trading.preview(out).body or {})
    bench.rules = RiskRules(max_order_qty=Decimal(3))
    assert (bench.trading.preview(out).body or {})["position_intent"] == "sell_to_close"
    assert bench.trading.place(out).position_intent == "sell_to_close"
    bench.clock.advance(60)
    assert bench.held == {"AAPL": Decimal(6)}
    bench.trading.place(BUY._replace(qty=Decimal(1)))
    assert b"intent" not in (bench.transport.sent[-1].body or b"")


def test_an_order_that_says_that_it_opens_is_no_way_out(bench: Bench) -> None:
    bench.filled(BUY)
    bench.halted = Halt(1.0, "storm", "me")
    with pytest.raises(OrderRefused, match="storm"):
        bench.trading.place(BUY._replace(side="sell", position_intent="sell_to_open"))
    assert bench.trading.place(BUY._replace(side="sell", position_intent="sell_to_close")).side == "sell"


def test_coins_are_closed_without_an_intent_since_they_cannot_be_sold_short(bench: Bench) -> None:
    bench.filled(OrderTicket(symbol="BTC/USD", side="buy", qty=Decimal("0.5"), time_in_force="gtc"))
    bench.halted = Halt(1.0, "storm", "me")
    bench.trading.place(OrderTicket(symbol="BTC/USD", side="sell", qty=Decimal("0.1"), time_in_force="gtc"))
    bench.clock.advance(60)
    bench.trading.close("BTC/USD")
    assert not [request for request in bench.transport.sent if b"intent" in (request.body or b"")]


def test_every_kind_of_order_is_recognized_as_itself_and_as_no_other(bench: Bench) -> None:
    """What the exchange shows under an ID is what was sent with it, however differently it is written."""
    bench.filled(BUY._replace(symbol="TSLA"))
    asset = bench.client.get_asset("KO").id
    limit = BUY._replace(type="limit", limit_price=Decimal("1.00"), time_in_force="gtc")
    kinds: dict[str, OrderTicket] = {
        "market": BUY._replace(qty=Decimal("1.00")),
        "intent": BUY._replace(position_intent="buy_to_open"),
        "parts": BUY._replace(qty=Decimal("0.50")),
        "notional": BUY._replace(qty=None, notional=Decimal("100.50")),
        "limit": limit,
        "early": limit._replace(time_in_force="day", extended_hours=True),
        "stop": BUY._replace(type="stop", stop_price=Decimal(900)),
        "stop limit": BUY._replace(type="stop_limit", stop_price=Decimal(900), limit_price=Decimal(901)),
        "trail": OrderTicket("TSLA", "sell", "trailing_stop", qty=Decimal(2), trail_percent=Decimal("5.0")),
        "trail usd": OrderTicket("TSLA", "sell", "trailing_stop", qty=Decimal(2), trail_price=Decimal("5.0")),
        "asset": limit._replace(symbol=asset),
        "coin": limit._replace(symbol="BTC/USD", qty=Decimal("1.50")),
        "coin bare": limit._replace(symbol="BTCUSD", qty=Decimal(2)),
        "bracket": limit._replace(
            limit_price=Decimal(200), order_class="bracket", take_profit=Decimal(900), stop_loss=Decimal("10.50")
        ),
        "oto": limit._replace(order_class="oto", stop_loss=Decimal("0.90"), stop_loss_limit=Decimal("0.80")),
        "oco": OrderTicket(
            *("TSLA", "sell", "limit"),
            qty=Decimal(3),
            order_class="oco",
            take_profit=Decimal(9000),
            stop_loss=Decimal("1.50"),
        ),
        "spread": OrderTicket(
            type="limit",
            order_class="mleg",
            qty=Decimal(1),
            limit_price=Decimal("1.50"),
            legs=(Leg(CALLS[0], Decimal(1), "buy_to_open"), Leg(CALLS[1], Decimal(1), "sell_to_open")),
        ),
    }
    bodies = {name: ticket.body(name) for name, ticket in kinds.items()}
    for name, ticket in kinds.items():
        bench.trading.place(ticket._replace(client_order_id=name))
    bench.clock.advance(60)
    for name, body in bodies.items():
        order = bench.client.get_order_by_client_order_id(name)
        same = [other for other, sent in bodies.items() if difference("POST", "/v2/orders", sent, order) is None]
        also = {"intent": ["market"], "stop limit": ["stop"]}.get(name, [])  # which said less, or may become that
        assert [other for other in same if other not in also] == [name], body


def test_a_replacement_is_recognized_as_itself(bench: Bench) -> None:
    order = bench.trading.place(BUY._replace(type="limit", limit_price=Decimal("1.00"), time_in_force="gtc"))
    bench.clock.advance(60)
    bench.trading.replace(order.id, {"qty": "7", "limit_price": "1.50", "client_order_id": "new"})
    for _ in range(2):
        found = bench.client.get_order_by_client_order_id("new")
        body = json.loads(bench.transport.sent[-2].body or bench.transport.sent[-3].body or b"")
        assert difference("PATCH", f"/v2/orders/{order.id}", body, found) is None
        assert difference("PATCH", f"/v2/orders/{found.id}", body, found) is not None
        bench.clock.advance(60)


def test_closing_everything_ends_at_once_where_the_keys_are_not_taken(bench: Bench) -> None:
    bench.filled(BUY)
    bench.transport.failures["/v2/orders"] = AuthenticationError("no")
    with pytest.raises(AuthenticationError):
        bench.trading.close_all()


def test_a_cancellation_of_all_that_fails_is_in_the_journal_as_what_it_is(bench: Bench) -> None:
    bench.trading.place(BUY._replace(type="limit", limit_price=Decimal(1), time_in_force="gtc"))
    bench.clock.advance(60)
    unsent = ConnectionLost("refused")
    unsent.nothing_sent = True
    for failure in (AuthenticationError("no"), ConnectionLost("reset"), unsent):
        bench.transport.failures["/v2/orders"] = failure
        with pytest.raises(type(failure)):
            bench.trading.cancel_all()
    bench.transport.failures.clear()
    bench.clock.advance(60)
    (canceled,) = bench.trading.cancel_all()
    assert canceled.status == 200
    assert bench.outcomes == ["placed", "refused", "unknown", "not sent", "done"]


def test_a_halt_and_its_end_are_in_the_journal(bench: Bench) -> None:
    bench.client.desk.note_halt("halt", "storm")
    (line,) = bench.journal.records()
    assert (line["action"], line["message"], line["outcome"]) == ("halt", "storm", "done")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"qty": "0"}, "0 are filled already"),
        ({"qty": "1.5"}, "whole shares only"),
        ({"stop_price": "90"}, "a limit order has no stop price"),
        ({"limit_price": "-1"}, "not above zero"),
        ({"limit_price": "100", "qty": "10", "time_in_force": "gtc"}, "like that already"),
    ],
)
def test_a_change_that_cannot_be_made_says_why(bench: Bench, changes: dict[str, str], why: str) -> None:
    order = bench.trading.place(BUY._replace(type="limit", limit_price=Decimal(100), time_in_force="gtc"))
    bench.clock.advance(60)
    with pytest.raises(OrderRefused, match=why):
        bench.trading.check_replacement(order.id, changes)
    with pytest.raises(UsageError, match="time_in_force cannot be 'soon'"):
        bench.trading.check_replacement(order.id, {"time_in_force": "soon"})
    bench.trading.cancel(order.id)
    bench.clock.advance(60)
    with pytest.raises(OrderRefused, match="what is done cannot be changed"):
        bench.trading.check_replacement(order.id, {"qty": "11"})


@pytest.mark.parametrize(
    ("ticket", "why"),
    [
        (OrderTicket(symbol="AAPL", side="sell", qty=Decimal("0.5")), "fractions cannot be sold short"),
        (OrderTicket(symbol="BTC/USD", side="sell", qty=Decimal(1), time_in_force="gtc"), "coins cannot be sold short"),
        (OrderTicket(symbol="TSLA", side="sell", qty=Decimal(4)), "one order cannot turn it around"),
    ],
)
def test_what_nobody_holds_is_sold_only_where_it_can_be_sold_short(bench: Bench, ticket: OrderTicket, why: str) -> None:
    bench.filled(OrderTicket(symbol="TSLA", side="buy", qty=Decimal(3)))
    with pytest.raises(OrderRefused, match=why):
        bench.trading.check(ticket)


# ------------------------------------------------------------------------------------------------ the user's rules


def test_a_limit_below_the_market_sells_at_the_market_and_is_counted_so(bench: Bench) -> None:
    short = OrderTicket(symbol="MSFT", side="sell", type="limit", qty=Decimal(19), limit_price=Decimal(1))
    cost = bench.trading.preview(short).estimated_cost
    assert cost is not None
    assert cost > 19 * 100
    bench.rules = RiskRules(max_order_notional=Decimal(1000))
    with pytest.raises(OrderRefused, match="is more than 1,000 USD"):
        bench.trading.place(short)
    assert bench.changes == []


def test_the_id_of_an_asset_is_no_way_round_a_rule_about_its_symbol(bench: Bench) -> None:
    """Alpaca takes one for the other."""
    by_id = BUY._replace(symbol=bench.client.get_asset("AAPL").id)
    bench.rules = RiskRules(blocked_symbols=("AAPL",))
    with pytest.raises(OrderRefused, match="AAPL is blocked"):
        bench.trading.place(by_id)
    with pytest.raises(OrderRefused, match="AAPL is blocked"):
        bench.forward("POST", "/v2/orders", {**BUY.body("mine"), "symbol": by_id.symbol})
    bench.rules = RiskRules(max_position_notional=Decimal(1000))
    with pytest.raises(OrderRefused, match="would be worth"):
        bench.trading.place(by_id)
    assert bench.changes == []
    bench.rules = RiskRules(blocked_symbols=("MSFT",))
    assert bench.trading.place(by_id).symbol == "AAPL"
    assert bench.warnings == []
    assert bench.trading.preview(by_id).estimated_cost == bench.trading.preview(BUY).estimated_cost


def test_an_asset_whose_symbol_cannot_be_learned_is_refused_under_rules_about_symbols(bench: Bench) -> None:
    by_id = BUY._replace(symbol=bench.client.get_asset("MSFT").id)
    leg = Leg(by_id.symbol or "", Decimal(1), "buy_to_open")
    bench.client.invalidate_cache()
    bench.transport.failures["/v2/assets"] = ConnectionLost("reset")
    bench.rules = RiskRules(blocked_symbols=("AAPL",))
    with pytest.raises(OrderRefused, match="could not be learned"):
        bench.trading.place(by_id)
    spread = OrderTicket(order_class="mleg", qty=Decimal(1), legs=(leg, Leg(CALLS[1], Decimal(1), "sell_to_open")))
    with pytest.raises(OrderRefused, match="could not be learned"):
        bench.trading.place(spread)
    assert bench.changes == []


def test_an_order_in_alpacas_own_words_that_says_something_twice_is_refused(bench: Bench) -> None:
    route = find_route("/v2/orders")
    assert route is not None
    twice = b'{"symbol":"AAPL","side":"buy","qty":"1","qty":"3","type":"market","time_in_force":"day"}'
    with pytest.raises(UsageError) as no:
        bench.client.forward(route, Request("POST", "/v2/orders", (), twice))
    assert "each field once" in no.value.hint
    assert bench.changes == []


def test_a_spread_that_is_changed_is_held_against_the_rules_as_it_was_when_it_was_placed(bench: Bench) -> None:
    legs = (Leg(CALLS[0], Decimal(1), "buy_to_open"), Leg(CALLS[1], Decimal(1), "sell_to_open"))
    spread = OrderTicket(order_class="mleg", type="limit", qty=Decimal(2), limit_price=Decimal("0.10"), legs=legs)
    order = bench.trading.place(spread)
    bench.rules = RiskRules(max_order_notional=Decimal(500))
    more = {"limit_price": "4.00"}
    for change in (bench.trading.replace, bench.trading.preview_replacement):
        with pytest.raises(OrderRefused, match=r"about 800\.00 USD is more"):
            change(order.id, more)
    bench.rules = RiskRules(blocked_symbols=("AAPL",))
    with pytest.raises(OrderRefused, match="is blocked"):
        bench.trading.replace(order.id, more)
    bench.rules = RiskRules()
    assert bench.trading.preview_replacement(order.id, more).estimated_cost == 800


def test_the_positions_that_spreads_open_are_held_against_the_rules(bench: Bench) -> None:
    legs = (Leg(CALLS[0], Decimal(1), "buy_to_open"), Leg(CALLS[1], Decimal(1), "sell_to_open"))
    spread = OrderTicket(order_class="mleg", type="limit", qty=Decimal(5), limit_price=Decimal("20.00"), legs=legs)
    bench.rules = RiskRules(max_position_notional=Decimal(10_000))

    def never_full() -> None:
        while True:
            bench.filled(spread)

    with pytest.raises(OrderRefused, match="the position would be worth about"):
        never_full()
    values = [abs(position.market_value or Decimal(0)) for position in bench.client.get_positions()]
    assert 0 < max(values) <= 10_000


def test_the_market_that_closed_since_it_was_asked_for_lately_is_closed(bench: Bench) -> None:
    bench.rules = RiskRules(market_hours_only=True)
    bench.clock.advance(6 * 3600 - 20)  # the market closes in 20 seconds
    bench.trading.place(BUY._replace(qty=Decimal(1)))
    bench.clock.advance(40)
    with pytest.raises(OrderRefused, match="the market is closed"):
        bench.trading.place(BUY._replace(qty=Decimal(1)))
    bench.clock.advance(17.5 * 3600 - 40)  # it opens in 20 seconds
    with pytest.raises(OrderRefused, match="the market is closed"):
        bench.trading.place(BUY._replace(qty=Decimal(1)))
    bench.clock.advance(40)
    assert bench.trading.place(BUY._replace(qty=Decimal(1))).id


def test_the_clock_is_asked_for_once_a_minute_where_the_market_neither_opens_nor_closes(bench: Bench) -> None:
    bench.rules = RiskRules(market_hours_only=True)
    for _ in range(3):
        bench.trading.place(BUY._replace(qty=Decimal(1)))
    assert [request.path for request in bench.transport.sent].count("/v2/clock") == 1


def test_what_made_a_position_smaller_a_moment_ago_may_open_one_now(bench: Bench) -> None:
    """The cache still knows the position that somebody else has closed."""
    bench.filled(BUY)
    assert bench.held == {"AAPL": 10}
    out = BUY._replace(side="sell")
    elsewhere = Request("POST", "/v2/orders", (), json.dumps(out.body("theirs")).encode())
    bench.transport.send(elsewhere, connect_timeout_s=1, read_timeout_s=1)
    bench.clock.advance(2)
    bench.halted = Halt(1.0, "storm", "me")
    with pytest.raises(OrderRefused, match="storm"):
        bench.trading.place(out)
    bench.halted, bench.rules = None, RiskRules(max_order_qty=Decimal(1))
    with pytest.raises(OrderRefused, match="more than the largest order"):
        bench.trading.place(out)


def test_a_sale_for_an_amount_of_money_only_makes_a_position_smaller(bench: Bench) -> None:
    bench.filled(BUY)
    bench.halted, bench.rules = Halt(1.0, "storm", "me"), RiskRules(max_order_notional=Decimal(1))
    sale = OrderTicket(symbol="AAPL", side="sell", notional=Decimal(500))
    preview = bench.trading.preview(sale)
    assert preview.buying_power_left == preview.buying_power
    bench.filled(sale)
    assert 0 < bench.held["AAPL"] < 10
    with pytest.raises(OrderRefused, match="fractions cannot be sold short"):
        bench.trading.check(sale._replace(symbol="MSFT"))
    with pytest.raises(OrderRefused, match="storm"):
        bench.trading.place(sale._replace(symbol="MSFT"))


def test_what_stands_behind_an_option_that_is_sold_is_the_brokers_to_say(bench: Bench) -> None:
    put = OrderTicket(symbol=CALLS[0].replace("C", "P"), side="sell", qty=Decimal(1))
    preview = bench.trading.preview(put)
    assert preview.buying_power is not None
    assert preview.buying_power_left is None


def test_the_preview_of_a_changed_order_of_coins_tells_what_coins_are_bought_with(bench: Bench) -> None:
    coin = OrderTicket(
        symbol="BTC/USD", side="buy", type="limit", qty=Decimal(1), limit_price=Decimal(20), time_in_force="gtc"
    )
    order = bench.trading.place(coin)
    account = bench.client.get_account(use_cache=False)
    preview = bench.trading.preview_replacement(order.id, {"qty": "2"})
    assert preview.buying_power == account.non_marginable_buying_power != account.buying_power
