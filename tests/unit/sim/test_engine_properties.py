"""Whatever is ordered, canceled, replaced and closed: the books add up, and looking changes nothing."""

import json
import random
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.support.examples import examples
from tests.support.fakes import ManualClock
from tests.support.sim_account import SimAccount

from alpacli.sim.answers import Json
from alpacli.sim.call import parse_instant

OPEN: Final = {"pending_new", "accepted", "new", "held", "partially_filled", "pending_cancel", "pending_replace"}
DONE: Final = {"filled", "canceled", "expired", "replaced", "rejected"}
LEGAL: Final = {
    "": {"pending_new", "accepted", "new", "canceled", "expired", "replaced", "rejected"},  # before: held, or not told
    "pending_new": {"new", "rejected", "canceled", "expired"},
    "accepted": {"new", "canceled", "expired", "rejected"},
    "new": {"partially_filled", "filled", "pending_cancel", "pending_replace", "canceled", "expired"},
    "pending_cancel": {"pending_cancel", "filled", "canceled", "expired"},
    "pending_replace": {"pending_replace", "replaced", "filled", "canceled", "expired", "partially_filled", "new"},
}
LEGAL["partially_filled"] = LEGAL["new"] | {"replaced"}

SYMBOLS: Final = ("AAPL", "F", "BTC/USD")
CONTRACTS: Final = tuple(
    f"AAPL{what}"
    for what in ("260605C00270000", "260605C00280000", "260605P00270000", "260605P00280000", "260612C00280000")
)
# What a request may look like; most of them would be accepted at some time.
SHAPES: Final = (
    {"type": "market", "time_in_force": "day"},
    {"type": "market", "time_in_force": "gtc"},
    {"type": "limit", "time_in_force": "gtc"},
    {"type": "limit", "time_in_force": "day", "extended_hours": True},
    {"type": "limit", "time_in_force": "ioc"},
    {"type": "limit", "time_in_force": "fok"},
    {"type": "limit", "time_in_force": "cls"},
    {"type": "market", "time_in_force": "opg"},
    {"type": "stop", "time_in_force": "gtc"},
    {"type": "stop_limit", "time_in_force": "gtc"},
    {"type": "trailing_stop", "time_in_force": "gtc"},
    {"type": "market", "time_in_force": "gtc", "order_class": "bracket"},
    {"type": "limit", "time_in_force": "day", "order_class": "bracket"},
    {"type": "limit", "time_in_force": "gtc", "order_class": "oco"},
    {"type": "limit", "time_in_force": "day", "order_class": "oco"},
    {"type": "market", "time_in_force": "gtc", "order_class": "oto"},
)
ORDERS = st.builds(
    lambda shape, more: {"order_class": "simple", **shape, **more},
    st.sampled_from(SHAPES),
    st.fixed_dictionaries(
        {
            "symbol": st.sampled_from(["AAPL", "AAPL", "F", "F", "BTC/USD"]),
            "side": st.sampled_from(["buy", "buy", "sell", "out"]),
            "size": st.sampled_from(["1", "7", "40", "40", "150", "1000", "0.5", "$250.5"]),
            "offset": st.integers(-150, 150),
            "width": st.integers(2, 100),
        }
    ),
)
OPTIONS = st.fixed_dictionaries(
    {
        "symbol": st.sampled_from(CONTRACTS),
        "side": st.sampled_from(["buy", "buy", "sell", "out"]),
        "qty": st.sampled_from(["1", "2", "5", "30"]),
        "offset": st.one_of(st.none(), st.integers(-400, 400)),
    }
)
PACKAGES = st.fixed_dictionaries(
    {
        "symbols": st.lists(st.sampled_from(CONTRACTS), min_size=2, max_size=4, unique=True),
        "sides": st.lists(st.sampled_from(["buy", "sell"]), min_size=4, max_size=4),
        "ratios": st.lists(st.sampled_from([1, 1, 2, 3]), min_size=4, max_size=4),
        "qty": st.sampled_from([1, 2, 12]),
        "cents": st.one_of(st.none(), st.integers(-60, 60)),
    }
)
WAITS = st.sampled_from([1, 3_000, 20_000, 400_000, 20_000_000, 4 * 3600 * 10**6, 30 * 3600 * 10**6])
STEPS = st.one_of(
    *[ORDERS.map(lambda order: ("submit", order))] * 4,
    st.integers(0, 9).map(lambda which: ("cancel", which)),
    st.tuples(st.integers(0, 9), st.integers(1, 60), st.integers(-200, 200)).map(lambda change: ("replace", change)),
    *[OPTIONS.map(lambda order: ("option", order))] * 2,
    PACKAGES.map(lambda package: ("package", package)),
    st.sampled_from(CONTRACTS).map(lambda symbol: ("exercise", symbol)),
    st.sampled_from(CONTRACTS).map(lambda symbol: ("close", symbol)),
    st.sampled_from(SYMBOLS).map(lambda symbol: ("close", symbol)),
    st.just(("clear", None)),
    *[WAITS.map(lambda micros: ("wait", micros))] * 3,
)


class Trader:
    """Sends what hypothesis thought up, with prices that come from the market of the moment."""

    def __init__(self, state: Path, hours: str, looks: int, seed: int = 7) -> None:
        self.account = SimAccount(state, ManualClock(1_780_322_400.0))
        self.account.exchange.reset(hours="xnys" if hours == "xnys" else "always", rate_limit=0, seed=seed)
        self._looks = looks
        self.look()  # which opens the account

    def do(self, step: tuple[str, Any]) -> None:
        kind, what = step
        if kind == "wait":
            parts = [what // self._looks] * (self._looks - 1)
            for micros in (*parts, what - sum(parts)):
                self.account.clock._now = round(self.account.clock._now * 10**6 + micros) / 10**6
                if self._looks > 1:
                    self.look()
            return
        answer = self.send(kind, what)
        assert answer in (200, 204, 207, 400, 403, 404, 422)

    def look(self) -> None:
        self.account.get("/v2/account")

    def send(self, kind: str, what: Any) -> int:
        send = self.account.send
        if kind == "submit":
            return send("POST", "/v2/orders", self.body(**what)).status
        if kind == "option":
            return send("POST", "/v2/orders", self.option(**what)).status
        if kind == "package":
            return send("POST", "/v2/orders", self.package(**what)).status
        if kind == "exercise":
            return send("POST", f"/v2/positions/{what}/exercise").status
        if kind == "close":
            return send("DELETE", f"/v2/positions/{what}").status
        if kind == "clear":
            return send("DELETE", "/v2/positions", cancel_orders="true").status
        rows = self.account.get("/v2/orders", limit="500")
        if not rows:
            return 200
        if kind == "cancel":
            return send("DELETE", f"/v2/orders/{rows[what % len(rows)]['id']}").status
        which, qty, offset = what
        row = rows[which % len(rows)]
        body: dict[str, Json] = {"qty": str(qty)} if row["legs"] is None and qty % 2 else {}
        if row["order_class"] == "mleg" and row["limit_price"] is not None:
            body["limit_price"] = format(Decimal(row["limit_price"]) + Decimal(offset) / 100, "f")
        for name in ("limit_price", "stop_price"):
            if row[name] is not None and row["type"] != "trailing_stop" and row["symbol"]:
                body[name] = self.price(row["symbol"], offset)
        return send("PATCH", f"/v2/orders/{row['id']}", body).status

    def price(self, symbol: str, offset: int) -> str:
        """Return the offer, moved by so many hundredths of a percent, on the tick."""
        ask = self.account.exchange.market().tape.quote(symbol, self.account.exchange.now_ns()).ask
        return format(
            (ask * (10_000 + offset * (5 if symbol in CONTRACTS else 1)) / 10_000).quantize(Decimal("0.01")), "f"
        )

    def body(
        self, symbol: str, side: str, type: str, order_class: str, size: str, offset: int, width: int, **rest: Any
    ) -> dict[str, Any]:
        held = {p["symbol"]: p["side"] for p in self.account.get("/v2/positions")}.get(symbol.replace("/", ""))
        if side == "out":
            side = "buy" if held == "short" else "sell"
        if symbol == "BTC/USD":
            size = "0.05" if size.isdecimal() else size
            rest["time_in_force"] = "gtc" if rest["time_in_force"] == "day" else rest["time_in_force"]
        body = {"symbol": symbol, "side": side, "type": type, "order_class": order_class, **rest}
        body["notional" if size.startswith("$") else "qty"] = size.strip("$")
        if type in ("limit", "stop_limit"):
            body["limit_price"] = self.price(symbol, offset)
        if type in ("stop", "stop_limit"):
            body["stop_price"] = self.price(symbol, abs(offset) + 1 if side == "buy" else -abs(offset) - 1)
        if type == "trailing_stop":
            body["trail_percent"] = str(Decimal(width) / 100 + Decimal("0.1"))
        up = (side == "buy") != (order_class == "oco")
        if order_class != "simple":
            base = offset if type == "limit" and order_class != "oco" else 0
            body["take_profit"] = {"limit_price": self.price(symbol, base + (width if up else -width))}
        if order_class in ("bracket", "oco"):
            base = offset if type == "limit" and order_class != "oco" else 0
            body["stop_loss"] = {"stop_price": self.price(symbol, base - (width if up else -width))}
        return body

    def option(self, symbol: str, side: str, qty: str, offset: int | None) -> dict[str, Any]:
        if side == "out":
            side = "buy" if self.held().get(symbol, Decimal(0)) < 0 else "sell"
        body = {"symbol": symbol, "side": side, "qty": qty, "type": "market", "time_in_force": "day"}
        if offset is not None:
            body |= {"type": "limit", "limit_price": self.price(symbol, offset), "time_in_force": "gtc"}
        return body

    def package(
        self, symbols: list[str], sides: list[str], ratios: list[int], qty: int, cents: int | None
    ) -> dict[str, Any]:
        """Return an order of several legs that opens or closes as it is held, at the market's price moved by some cents."""
        body: dict[str, Any] = {"order_class": "mleg", "qty": str(qty), "type": "market", "time_in_force": "day"}
        held, tape, now_ns = self.held(), self.account.exchange.market().tape, self.account.exchange.now_ns()
        net, legs = Decimal(0), []
        for symbol, side, ratio in zip(symbols, sides, [1, *ratios], strict=False):
            quote, mine = tape.quote(symbol, now_ns), held.get(symbol, Decimal(0))
            closes = mine and (mine > 0) == (side == "sell")
            net += ratio * (quote.ask if side == "buy" else -quote.bid)
            intent = f"{side}_to_{'close' if closes else 'open'}"
            legs.append({"symbol": symbol, "ratio_qty": str(ratio), "position_intent": intent})
        if cents is not None:
            body |= {"type": "limit", "limit_price": format(net + Decimal(cents) / 100, "f")}
        return {**body, "legs": legs}

    def held(self) -> dict[str, Decimal]:
        return {row["symbol"]: Decimal(row["qty"]) for row in self.account.get("/v2/positions")}

    def books(self) -> str:
        """Return everything that the account can be told, as one text."""
        shown = [
            self.account.get("/v2/account"),
            self.account.get("/v2/positions"),
            self.account.get("/v2/orders", status="all", limit="500", nested="true"),
            self.account.get("/v2/account/activities", direction="asc"),
            self.events(),
        ]
        return json.dumps(shown, indent=1)

    def events(self) -> list[Any]:
        number = self.account.exchange.account_number(self.account.key_id, "secret")
        found = self.account.exchange.events_after(number, 0)
        assert found is not None
        return [json.loads(event.data) for event in found]


@settings(
    max_examples=examples(8),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=st.lists(STEPS, max_size=14), hours=st.sampled_from(["always", "xnys"]), looks=st.integers(2, 9))
def test_looking_often_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, Any]], hours: str, looks: int
) -> None:
    """One account advances in one step, the other in several with a look after each: the same bytes, ids included."""
    traders = [Trader(tmp_path_factory.mktemp("sim"), hours, count) for count in (1, looks)]
    try:
        for step in [*steps, ("wait", 3 * 86_400 * 10**6 + 7)]:
            for trader in traders:
                trader.do(step)
        assert traders[0].books() == traders[1].books()
    finally:
        for trader in traders:
            trader.account.exchange.close()


@pytest.mark.slow
@settings(
    max_examples=examples(16),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=st.lists(STEPS, min_size=4, max_size=25), hours=st.sampled_from(["always", "xnys"]))
def test_the_books_add_up(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, Any]], hours: str) -> None:
    trader = Trader(tmp_path_factory.mktemp("sim"), hours, 1)
    try:
        for step in steps:
            before = trader.account.get("/v2/account")
            trader.do(step)
            if step[0] in ("submit", "option", "package"):
                check_money(before, trader.account.get("/v2/account"))
            check_positions(trader)
        trader.do(("wait", 2 * 86_400 * 10**6))
        check_positions(trader)
        check_orders(trader)
        check_events(trader)
    finally:
        trader.account.exchange.close()


def wander(seed: int) -> list[tuple[str, Any]]:
    """Return a long story that ``random`` thought up: hypothesis prefers short ones."""
    dice = random.Random(seed)
    steps: list[tuple[str, Any]] = []
    for _ in range(45):
        kinds = ["submit", "option", "package", "exercise", "cancel", "replace", "close", "clear", "wait"]
        kind = dice.choices(kinds, [30, 12, 6, 2, 7, 10, 3, 1, 34])[0]
        order = {
            "order_class": "simple",
            **dice.choice(SHAPES),
            "symbol": dice.choice(["AAPL", "AAPL", "F", "F", "BTC/USD"]),
            "side": dice.choice(["buy", "buy", "sell", "out"]),
            "size": dice.choice(["1", "7", "40", "40", "150", "1000", "0.5", "$250.5"]),
            "offset": dice.randint(-150, 150),
            "width": dice.randint(2, 100),
        }
        what = {
            "submit": order,
            "option": {
                "symbol": dice.choice(CONTRACTS),
                "side": dice.choice(["buy", "buy", "sell", "out"]),
                "qty": dice.choice(["1", "2", "5", "30"]),
                "offset": dice.choice([None, dice.randint(-400, 400)]),
            },
            "package": {
                "symbols": dice.sample(CONTRACTS, dice.randint(2, 4)),
                "sides": dice.choices(["buy", "sell"], k=4),
                "ratios": dice.choices([1, 1, 2, 3], k=4),
                "qty": dice.choice([1, 2, 12]),
                "cents": dice.choice([None, dice.randint(-60, 60)]),
            },
            "exercise": dice.choice(CONTRACTS),
            "cancel": dice.randint(0, 9),
            "replace": (dice.randint(0, 9), dice.randint(1, 60), dice.randint(-200, 200)),
            "close": dice.choice([*SYMBOLS, *CONTRACTS]),
            "clear": None,
            "wait": dice.choice([1, 3_000, 20_000, 60_000, 400_000, 2 * 10**7, 6 * 10**8, 15 * 10**9, 10**11]),
        }
        steps.append((kind, what[kind]))
    return steps


@pytest.mark.slow
@settings(max_examples=examples(6), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**9), hours=st.sampled_from(["always", "xnys"]), looks=st.integers(2, 6))
@example(seed=6_644_953, hours="always", looks=2)  # an exit ends while its replacement is on its way
def test_long_stories_add_up_however_often_they_are_looked_at(
    tmp_path_factory: pytest.TempPathFactory, seed: int, hours: str, looks: int
) -> None:
    traders = [Trader(tmp_path_factory.mktemp("sim"), hours, count) for count in (1, looks)]
    try:
        for step in wander(seed):
            before = traders[0].account.get("/v2/account")
            for trader in traders:
                trader.do(step)
            if step[0] in ("submit", "option", "package"):
                check_money(before, traders[0].account.get("/v2/account"))
            check_positions(traders[0])
        for trader in traders:
            trader.do(("wait", 2 * 86_400 * 10**6))
        check_positions(traders[0])
        check_orders(traders[0])
        check_events(traders[0])
        assert traders[0].books() == traders[1].books()
    finally:
        for trader in traders:
            trader.account.exchange.close()


def check_money(before: Any, after: Any) -> None:
    """An order that was accepted left no less than nothing: what it needs was there."""
    for name in ("buying_power", "non_marginable_buying_power"):
        assert Decimal(after[name]) >= 0
    assert Decimal(after["initial_margin"]) <= max(
        Decimal(after["equity"]), Decimal(before["initial_margin"]) + Decimal("0.02")
    )


def check_positions(trader: Trader) -> None:
    """Cash and positions are what fills made of them, and open orders hold no more than there is."""
    shown, positions = trader.account.get("/v2/account"), trader.account.get("/v2/positions")
    rows = everything_booked(trader)
    rebuilt, cash = dict.fromkeys([*SYMBOLS, *CONTRACTS], Decimal(0)), Decimal(100_000)
    for row in rows:
        signed = Decimal(row["qty"]) * (-1 if row.get("side") == "sell" else 1)
        was = rebuilt[row["symbol"]]
        rebuilt[row["symbol"]] += signed
        assert was * rebuilt[row["symbol"]] >= 0 or row["activity_type"] == "OPTRD", "an order turned a position around"
        moved = -signed * Decimal(row["price"]) * (100 if row["symbol"] in CONTRACTS else 1)
        assert "net_amount" not in row or Decimal(row["net_amount"]) == moved
        cash += moved
    assert rebuilt["BTC/USD"] >= 0
    assert {p["symbol"]: Decimal(p["qty"]) for p in positions} == {
        symbol.replace("/", ""): qty for symbol, qty in rebuilt.items() if qty
    }
    assert abs(cash - Decimal(shown["cash"])) <= Decimal("0.005") * len(rows)
    assert Decimal(shown["equity"]) == Decimal(shown["cash"]) + sum(Decimal(p["market_value"]) for p in positions)
    for name in ("buying_power", "regt_buying_power", "non_marginable_buying_power", "initial_margin"):
        assert Decimal(shown[name]) >= 0
    for position in positions:
        worth = Decimal(position["qty"]) * Decimal(position["current_price"])
        worth *= 100 if position["symbol"] in CONTRACTS else 1
        assert abs(Decimal(position["market_value"]) - worth) <= Decimal("0.005")
        assert Decimal(position["qty_available"]) * (1 if position["side"] == "long" else -1) >= 0


def everything_booked(trader: Trader) -> list[Any]:
    """Return all fills and settlements, oldest first."""
    rows: list[Any] = []
    while True:
        token = {"page_token": rows[-1]["id"]} if rows else {}
        page = trader.account.get("/v2/account/activities", direction="asc", **token)
        rows += page
        if len(page) < 100:
            return [row for row in rows if row["activity_type"] != "JNLC"]


def check_orders(trader: Trader) -> None:
    """No order is filled beyond its quantity; of exits that exclude each other not more than the entry bought."""
    for row in trader.account.get("/v2/orders", status="all", limit="500", nested="true"):
        family = [row, *(row["legs"] or [])]
        for order in family:
            assert order["status"] in OPEN | DONE
            if order["qty"] is not None:
                assert Decimal(order["filled_qty"]) <= Decimal(order["qty"])
                assert (order["status"] == "filled") == (order["filled_qty"] == order["qty"]) or order["status"] in DONE
        if row["order_class"] == "mleg":
            for leg in row["legs"] or []:
                assert Decimal(leg["filled_qty"]) == Decimal(row["filled_qty"]) * Decimal(leg["ratio_qty"])
                assert leg["status"] == row["status"]
            continue
        exits = family if row["order_class"] == "oco" else family[1:]
        exits = [order for order in exits if order["status"] != "replaced"]
        if exits and row["order_class"] != "simple":
            assert sum(order["status"] == "filled" for order in exits) <= 1
            bought = Decimal(row["qty"]) if row["order_class"] == "oco" else Decimal(row["filled_qty"])
            assert sum(Decimal(order["filled_qty"]) for order in exits) <= bought
            if all(order["status"] in DONE for order in family) and any(o["status"] == "filled" for o in exits):
                assert sum(Decimal(order["filled_qty"]) for order in exits) == bought


def check_events(trader: Trader) -> None:
    """Events are in order of time, each order's statuses follow each other legally, and its last event is what it is."""
    told = trader.events()
    moments = [parse_instant("timestamp", update["timestamp"]) for update in told]
    assert moments == sorted(moments)
    assert len({update["execution_id"] for update in told}) == len(told)
    statuses: dict[str, str] = {}
    last: dict[str, Any] = {}
    filled: dict[str, Decimal] = {}
    for update in told:
        order = update["order"]
        now, was = order["status"], statuses.get(order["id"], "")
        if not update["event"].endswith("_rejected"):
            assert was not in DONE, (update["event"], was)
            assert now in LEGAL[was] or now == was == "partially_filled", (was, now, update["event"])
        statuses[order["id"]], last[order["id"]] = now, order
        if update["event"] in ("fill", "partial_fill"):
            filled[order["id"]] = filled.get(order["id"], Decimal(0)) + Decimal(update["qty"])
    check_rebuilt(trader, told, last)
    for row in trader.account.get("/v2/orders", status="all", limit="500"):
        if row["ratio_qty"] is not None:
            continue  # told of with its parent
        if (row["status"] == "rejected" and row["replaces"]) or row["id"] not in last:
            assert row["status"] in ("held", "pending_new", "rejected")
            continue
        if row["status"] != "held":
            assert (last[row["id"]]["status"], last[row["id"]]["filled_qty"]) == (row["status"], row["filled_qty"])
        if row["replaces"] is None:
            assert filled.get(row["id"], Decimal(0)) == Decimal(row["filled_qty"])


def check_rebuilt(trader: Trader, told: list[Any], last: dict[str, Any]) -> None:
    """Who heard every event knows the orders in every field, the positions and the cash, without having asked.

    Not how far the stop of a trailing order has followed the market since: no event tells that. Nor positions and cash where
    options were traded: what the clearing house does to those, no event tells either.
    """
    if not any(order["order_class"] == "mleg" or order["symbol"] in CONTRACTS for order in last.values()):
        check_holdings(trader, told)
    for row in trader.account.get("/v2/orders", status="all", limit="500"):
        if row["id"] in last and row["status"] not in ("held", "rejected"):
            heard = last[row["id"]]
            differing = {name for name in row if name != "legs" and heard.get(name) != row[name]}
            if row["type"] == "trailing_stop" and row["status"] in OPEN:
                for name in differing & {"hwm", "stop_price"}:
                    followed = Decimal(row[name]) - Decimal(heard[name])
                    assert followed > 0 if row["side"] == "sell" else followed < 0
                differing -= {"hwm", "stop_price"}
            assert differing <= set(), (row["status"], {name: (heard.get(name), row[name]) for name in differing})


def check_holdings(trader: Trader, told: list[Any]) -> None:
    """Fills alone tell what is held and what was paid."""
    held: dict[str, Decimal] = {}
    cash = Decimal(100_000)
    fills = 0
    for update in told:
        if update["event"] in ("fill", "partial_fill"):
            order, qty = update["order"], Decimal(update["qty"])
            signed = qty if order["side"] == "buy" else -qty
            held[order["symbol"]] = held.get(order["symbol"], Decimal(0)) + signed
            assert Decimal(update["position_qty"]) == held[order["symbol"]]
            cash -= signed * Decimal(update["price"])
            fills += 1
    shown = {p["symbol"]: Decimal(p["qty"]) for p in trader.account.get("/v2/positions")}
    assert {symbol.replace("/", ""): qty for symbol, qty in held.items() if qty} == shown
    assert abs(cash - Decimal(trader.account.get("/v2/account")["cash"])) <= Decimal("0.005") * fills


def test_the_same_seed_gives_the_same_bytes_and_another_one_does_not(tmp_path: Path) -> None:
    stories = []
    for number, seed in enumerate((7, 7, 8)):
        trader = Trader(tmp_path / str(number), "always", 1, seed=seed)
        for step in wander(3):
            trader.do(step)
        stories.append(trader.books())
        trader.account.exchange.close()
    assert stories[0] == stories[1]
    assert stories[0] != stories[2]
