"""Orders meet the market as Alpaca's paper engine lets them, and the same however often somebody looks."""

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.support.fakes import ManualClock
from tests.support.sim_account import SimAccount

from alpacli.domain.ticks import instant_text
from alpacli.errors import UsageError
from alpacli.sim.desk import Strain
from alpacli.sim.halts import halts
from alpacli.sim.hours import new_york_date
from alpacli.sim.listing import LISTINGS
from alpacli.sim.prices import Quote
from alpacli.sim.terms import spans, trades_at
from alpacli.sim.updates import TradingSession
from alpacli.wire.serving import Login

DAY_S = 86_400


@pytest.fixture
def nyse(tmp_path: Path) -> Iterator[SimAccount]:
    """An account on the real calendar, on Monday, 1 June 2026, at 10:00 in New York."""
    with SimAccount(tmp_path, ManualClock(1_780_322_400.0)) as paper:
        paper.exchange.reset(hours="xnys", rate_limit=0)
        yield paper


def ask(account: SimAccount, method: str, path: str, body: object = None, **query: str) -> Any:
    answer = account.send(method, path, body, **query)
    assert answer.status < 300, answer.body
    return json.loads(answer.body or b"null")


def submit(account: SimAccount, symbol: str = "AAPL", side: str = "buy", qty: str | None = "10", **fields: Any) -> Any:
    fields = {"type": "market", "time_in_force": "day", **fields}
    return ask(account, "POST", "/v2/orders", {"symbol": symbol, "side": side, "qty": qty, **fields})


def status(account: SimAccount, order: Any) -> Any:
    return account.get(f"/v2/orders/{order['id']}")["status"]


def quote(account: SimAccount, symbol: str = "AAPL", later_s: float = 0) -> Quote:
    return account.exchange.market().tape.quote(symbol, account.exchange.now_ns() + int(later_s * 10**9))


def away(account: SimAccount, percent: str, symbol: str = "AAPL") -> str:
    return str(round(quote(account, symbol).ask * (1 + Decimal(percent) / 100), 2))


def listen(account: SimAccount) -> TradingSession:
    session = TradingSession(account.exchange, account.exchange.now_ns(), Login(account.key_id, "secret"))
    session.begin()
    session.receive(json.dumps({"action": "listen", "data": {"streams": ["trade_updates"]}}))
    return session


def heard(account: SimAccount, session: TradingSession) -> list[dict[str, Any]]:
    return [json.loads(frame)["data"] for frame in session.due(account.exchange.now_ns())]


def fills(account: SimAccount) -> list[Any]:
    return list(account.get("/v2/account/activities/FILL", direction="asc"))


def at_ns(account: SimAccount, moment: str) -> int:
    from alpacli.sim.call import parse_instant

    return parse_instant("moment", moment)


def test_a_market_order_is_filled_at_the_offer_of_that_moment_within_a_second(account: SimAccount) -> None:
    for number in range(30):
        session = listen(account)
        order = submit(account, qty=str(5 + number))
        assert order["status"] == "pending_new"
        account.clock.advance(1.1)
        told = heard(account, session)
        assert [u["event"] for u in told[:2]] == ["pending_new", "new"]
        assert {u["event"] for u in told[2:-1]} <= {"partial_fill"}
        assert told[-1]["event"] == "fill"
        for update in told[2:]:
            offered = account.exchange.market().tape.quote("AAPL", at_ns(account, update["timestamp"])).ask
            assert Decimal(update["price"]) == offered
        assert status(account, order) == "filled"


def test_orders_wait_for_the_end_of_a_halt(account: SimAccount) -> None:
    hours, now_ns = account.exchange.market().hours, account.exchange.now_ns()
    halt = next(halts(hours, "AAPL", now_ns, now_ns + 400 * DAY_S * 10**9))
    account.clock.advance((halt.from_ns - now_ns) / 1e9 + 30)
    orders = [submit(account), submit(account, type="limit", limit_price=away(account, "5"))]
    account.clock.advance((halt.until_ns - halt.from_ns) / 1e9 - 31)
    assert [status(account, order) for order in orders] == ["new", "new"]
    account.clock.advance(5)
    assert [status(account, order) for order in orders] == ["filled", "filled"]
    for order in orders:
        assert account.get(f"/v2/orders/{order['id']}")["filled_at"] >= instant_text(halt.until_ns)


@pytest.mark.parametrize("time_in_force", ["ioc", "fok"])
@pytest.mark.parametrize("order_type", ["market", "limit"])
def test_an_order_for_this_instant_does_not_wait_for_the_end_of_a_halt(
    account: SimAccount, order_type: str, time_in_force: str
) -> None:
    hours, now_ns = account.exchange.market().hours, account.exchange.now_ns()
    halt = next(halts(hours, "AAPL", now_ns, now_ns + 400 * DAY_S * 10**9))
    account.clock.advance((halt.from_ns - now_ns) / 1e9 + 30)
    prices = {"limit_price": away(account, "5")} if order_type == "limit" else {}
    order = submit(account, type=order_type, time_in_force=time_in_force, **prices)
    account.clock.advance(1)
    shown = account.get(f"/v2/orders/{order['id']}")
    assert (shown["status"], shown["filled_qty"]) == ("canceled", "0")
    assert shown["canceled_at"] < instant_text(halt.from_ns + 31 * 10**9)


def test_one_fill_in_ten_comes_in_parts(account: SimAccount) -> None:
    account.exchange.reset(cash=Decimal(10**9), rate_limit=0)
    for _ in range(150):
        submit(account, "F", qty="100")
    account.clock.advance(2)
    shown = account.get("/v2/orders", status="all", limit="500")
    assert {row["status"] for row in shown} == {"filled"}
    parted = {row["order_id"] for row in fills(account) if row["type"] == "partial_fill"}
    assert 5 <= len(parted) <= 30


def test_a_limit_order_waits_for_its_price_and_never_pays_more(account: SimAccount) -> None:
    order = submit(account, type="limit", time_in_force="gtc", limit_price=away(account, "-0.4"))
    account.clock.advance(1)
    assert status(account, order) == "new"
    account.clock.advance(5 * DAY_S)
    shown = account.get(f"/v2/orders/{order['id']}")
    assert shown["status"] == "filled"
    assert Decimal(shown["filled_avg_price"]) <= Decimal(shown["limit_price"])
    for row in fills(account):
        assert (
            Decimal(row["price"])
            == account.exchange.market().tape.quote("AAPL", at_ns(account, row["transaction_time"])).ask
        )


def test_stops_trigger_and_stop_limits_may_be_skipped(account: SimAccount) -> None:
    submit(account)
    account.clock.advance(1)
    stop = submit(account, side="sell", qty="4", type="stop", time_in_force="gtc", stop_price=away(account, "-0.5"))
    beyond = submit(
        account,
        side="sell",
        qty="4",
        type="stop_limit",
        time_in_force="gtc",
        stop_price=away(account, "-0.5"),
        limit_price=away(account, "50"),
    )
    account.clock.advance(8 * DAY_S)
    sold = account.get(f"/v2/orders/{stop['id']}")
    assert sold["status"] == "filled"
    assert abs(Decimal(sold["filled_avg_price"]) / Decimal(stop["stop_price"]) - 1) < Decimal("0.005")
    assert status(account, beyond) == "new"


def test_a_trailing_stop_follows_the_best_bid_and_sells_when_it_falls_back(account: SimAccount) -> None:
    submit(account)
    account.clock.advance(1)
    begin = quote(account).bid
    order = submit(account, side="sell", type="trailing_stop", time_in_force="gtc", trail_percent="1.5")
    assert (order["hwm"], order["stop_price"]) == (
        str(begin.normalize()),
        str(round(begin * Decimal("0.985"), 2).normalize()),
    )
    mark, shown = begin, order
    for _ in range(600):
        account.clock.advance(1800)
        shown = account.get(f"/v2/orders/{order['id']}")
        assert Decimal(shown["hwm"]) >= mark
        mark = Decimal(shown["hwm"])
        if shown["status"] == "filled":
            break
    assert shown["status"] == "filled"
    assert abs(Decimal(shown["filled_avg_price"]) / (mark * Decimal("0.985")) - 1) < Decimal("0.005")


@pytest.mark.parametrize("kind", ["ioc", "fok"])
def test_at_once_or_not_at_all(account: SimAccount, kind: str) -> None:
    far = submit(account, type="limit", time_in_force=kind, limit_price=away(account, "-5"))
    near = submit(account, type="limit", time_in_force=kind, limit_price=away(account, "5"))
    account.clock.advance(1)
    assert status(account, far) == "canceled"
    assert status(account, near) in (("filled",) if kind == "fok" else ("filled", "canceled"))


def test_a_day_order_expires_at_midnight_where_it_is_always_open(account: SimAccount) -> None:
    order = submit(account, type="limit", limit_price=away(account, "-30"))
    account.clock.advance(DAY_S)
    shown = account.get(f"/v2/orders/{order['id']}")
    assert (shown["status"], shown["expired_at"]) == ("expired", "2026-05-29T04:00:00Z")
    assert shown["expired_at"] == shown["expires_at"] == shown["updated_at"]


def test_the_real_calendar_decides_when_orders_work_and_end(nyse: SimAccount) -> None:
    """A day order ends at the close; one sent after it waits for the next open, also over a weekend."""
    resting = submit(nyse, type="limit", limit_price=away(nyse, "-30"))
    assert resting["expires_at"] == "2026-06-01T20:00:00Z"
    nyse.clock.advance(7 * 3600)  # 17:00
    assert status(nyse, resting) == "expired"
    late = submit(nyse)
    assert (late["status"], late["expires_at"]) == ("accepted", "2026-06-02T20:00:00Z")
    answer = nyse.send("PATCH", f"/v2/orders/{late['id']}", {"qty": "5"})
    assert (answer.status, json.loads(answer.body)["message"]) == (422, "cannot replace order in accepted status")
    nyse.clock.advance(16 * 3600)
    assert status(nyse, late) == "accepted"
    nyse.clock.advance(3600)
    assert status(nyse, late) == "filled"
    assert fills(nyse)[0]["transaction_time"].startswith("2026-06-02T13:30:00.")


def test_extended_hours_are_for_limit_orders_that_ask_for_them(nyse: SimAccount) -> None:
    nyse.clock.advance(7 * 3600)  # 17:00
    eager = submit(nyse, type="limit", limit_price=away(nyse, "1"), extended_hours=True)
    assert eager["expires_at"] == "2026-06-02T00:00:00Z"
    patient = submit(nyse, type="limit", limit_price=away(nyse, "1"))
    nyse.clock.advance(2)
    assert (status(nyse, eager), status(nyse, patient)) == ("filled", "accepted")


def test_auctions_fill_at_the_open_and_at_the_close(nyse: SimAccount) -> None:
    at_close = submit(nyse, time_in_force="cls")
    nyse.clock.advance(9.5 * 3600)  # 19:30
    assert status(nyse, at_close) == "filled"
    at_open = submit(nyse, "MSFT", time_in_force="opg")
    low = submit(nyse, "KO", time_in_force="opg", type="limit", limit_price="5")
    nyse.clock.advance(15 * 3600)
    assert (status(nyse, at_open), status(nyse, low)) == ("filled", "expired")
    assert [row["transaction_time"] for row in fills(nyse)] == ["2026-06-01T20:00:00Z", "2026-06-02T13:30:00Z"]


def test_fractions_and_amounts(account: SimAccount) -> None:
    submit(account, qty="1.5")
    amount = submit(account, "MSFT", qty=None, notional="1000.50")
    coins = submit(account, "BTC/USD", qty="0.0123", time_in_force="gtc")
    account.clock.advance(2)
    shown = account.get(f"/v2/orders/{amount['id']}")
    assert (shown["status"], shown["qty"], shown["notional"]) == ("filled", None, "1000.5")
    spent = Decimal(shown["filled_qty"]) * Decimal(shown["filled_avg_price"])
    assert abs(spent - Decimal("1000.50")) < Decimal("0.001")
    assert status(account, coins) == "filled"
    ask(
        account,
        "POST",
        "/v2/orders",
        {"symbol": "MSFT", "side": "sell", "notional": 500.25, "type": "market", "time_in_force": "day"},
    )
    account.clock.advance(2)
    assert Decimal(account.get("/v2/positions/MSFT")["qty"]) < Decimal(shown["filled_qty"])


def test_short_sales_and_buying_them_back(account: SimAccount) -> None:
    order = submit(account, side="sell")
    assert order["position_intent"] == "sell_to_open"
    account.clock.advance(2)
    assert account.get("/v2/positions/AAPL")["qty"] == "-10"
    back = ask(account, "DELETE", "/v2/positions/AAPL", qty="4")
    assert (back["side"], back["qty"], back["position_intent"]) == ("buy", "4", "buy_to_close")
    account.clock.advance(2)
    assert account.get("/v2/positions/AAPL")["qty"] == "-6"


def bracket(account: SimAccount, profit: str, loss: str, **fields: Any) -> Any:
    prices: dict[str, Any] = {
        "take_profit": {"limit_price": away(account, profit)},
        "stop_loss": {"stop_price": away(account, loss)},
    }
    return submit(account, order_class="bracket", time_in_force="gtc", **prices, **fields)


@pytest.mark.parametrize(
    ("profit", "loss", "ends"), [("0.5", "-40", ["filled", "canceled"]), ("60", "-0.5", ["canceled", "filled"])]
)
def test_a_bracket_leaves_by_one_exit_only(account: SimAccount, profit: str, loss: str, ends: list[str]) -> None:
    session = listen(account)
    order = bracket(account, profit, loss)
    assert [leg["status"] for leg in order["legs"]] == ["held", "held"]
    account.clock.advance(2)
    assert [leg["status"] for leg in account.get(f"/v2/orders/{order['id']}", nested="true")["legs"]] == ["new", "held"]
    assert account.get("/v2/positions/AAPL")["qty_available"] == "0"
    account.clock.advance(20 * DAY_S)
    assert [leg["status"] for leg in account.get(f"/v2/orders/{order['id']}", nested="true")["legs"]] == ends
    assert account.get("/v2/positions") == []
    told = heard(account, session)
    assert told[0]["order"]["id"] == order["id"]
    assert [u["timestamp"] for u in told] == sorted((u["timestamp"] for u in told), key=lambda t: at_ns(account, t))


def test_canceling_one_of_a_bracket_cancels_the_rest(account: SimAccount) -> None:
    order = bracket(account, "60", "-40")
    account.clock.advance(2)
    ask(account, "DELETE", f"/v2/orders/{order['legs'][1]['id']}")
    account.clock.advance(1)
    assert [leg["status"] for leg in account.get(f"/v2/orders/{order['id']}", nested="true")["legs"]] == [
        "canceled"
    ] * 2
    assert account.get("/v2/positions/AAPL")["qty_available"] == "10"


def test_an_exit_of_a_bracket_can_be_moved(account: SimAccount) -> None:
    order = bracket(account, "60", "-40", type="limit", limit_price=away(account, "-10"))
    moved = ask(account, "PATCH", f"/v2/orders/{order['legs'][1]['id']}", {"stop_price": away(account, "-45")})
    assert (moved["status"], moved["replaces"]) == ("held", order["legs"][1]["id"])
    account.clock.advance(1)
    entry = ask(account, "PATCH", f"/v2/orders/{order['id']}", {"qty": "7", "limit_price": away(account, "0.1")})
    account.clock.advance(3)
    shown = account.get(f"/v2/orders/{entry['id']}", nested="true")
    assert shown["status"] == "filled"
    working = [(leg["status"], leg["qty"]) for leg in shown["legs"] if leg["status"] != "replaced"]
    assert sorted(working) == [("held", "7"), ("new", "7")]


def test_oco_and_oto(account: SimAccount) -> None:
    first = submit(account, order_class="oto", time_in_force="gtc", stop_loss={"stop_price": away(account, "-40")})
    account.clock.advance(2)
    (leg,) = account.get(f"/v2/orders/{first['id']}", nested="true")["legs"]
    assert (leg["status"], leg["type"]) == ("new", "stop")
    ask(account, "DELETE", f"/v2/orders/{leg['id']}")
    account.clock.advance(1)
    exits: dict[str, Any] = {
        "take_profit": {"limit_price": away(account, "0.6")},
        "stop_loss": {"stop_price": away(account, "-40")},
    }
    order = submit(account, side="sell", type="limit", order_class="oco", time_in_force="gtc", **exits)
    assert order["limit_price"] == exits["take_profit"]["limit_price"].rstrip("0").rstrip(".")
    assert [leg["status"] for leg in order["legs"]] == ["held"]
    account.clock.advance(20 * DAY_S)
    shown = account.get(f"/v2/orders/{order['id']}", nested="true")
    assert (shown["status"], shown["legs"][0]["status"]) == ("filled", "canceled")


@pytest.mark.parametrize("part", ["target", "stop"])
def test_the_way_out_of_a_whole_position_can_be_changed(account: SimAccount, part: str) -> None:
    """Its target and its stop exclude each other, so neither keeps the other's shares."""
    submit(account, qty="4")
    account.clock.advance(2)
    exits: dict[str, Any] = {
        "take_profit": {"limit_price": away(account, "40")},
        "stop_loss": {"stop_price": away(account, "-40")},
    }
    order = submit(account, side="sell", type="limit", qty="4", order_class="oco", time_in_force="gtc", **exits)
    account.clock.advance(2)
    named = order["id"] if part == "target" else order["legs"][0]["id"]
    change = {"limit_price": away(account, "41")} if part == "target" else {"stop_price": away(account, "-41")}
    new = ask(account, "PATCH", f"/v2/orders/{named}", change)
    account.clock.advance(1)
    assert account.get(f"/v2/orders/{new['id']}")["status"] in ("new", "held")
    (position,) = account.get("/v2/positions")
    assert position["qty_available"] == "0"


def test_a_replacement_takes_the_place_after_the_old_order_ended(account: SimAccount) -> None:
    session = listen(account)
    old = submit(account, type="limit", time_in_force="gtc", limit_price=away(account, "-30"))
    new = ask(
        account,
        "PATCH",
        f"/v2/orders/{old['id']}",
        {"qty": 4, "limit_price": away(account, "-31"), "client_order_id": "mine"},
    )
    assert (new["replaces"], new["status"], new["client_order_id"]) == (old["id"], "pending_new", "mine")
    account.clock.advance(1)
    told = heard(account, session)
    assert [(u["event"], u["order"]["id"]) for u in told] == [
        ("pending_new", old["id"]),
        ("new", old["id"]),
        ("pending_replace", old["id"]),
        ("replaced", old["id"]),
        ("new", new["id"]),
    ]
    shown = account.get(f"/v2/orders/{old['id']}")
    assert (shown["status"], shown["replaced_by"], bool(shown["replaced_at"])) == ("replaced", new["id"], True)


def test_requests_that_come_too_late_are_refused(account: SimAccount) -> None:
    """A market order is filled a few milliseconds after it came, and so does a cancel or a replacement take effect."""
    ends: dict[str, set[tuple[str, ...]]] = {"cancel": set(), "replace": set()}
    account.exchange.reset(cash=Decimal(10**8), rate_limit=0)
    for number in range(40):
        session = listen(account)
        order = submit(account, "F", type="limit", limit_price=away(account, "5", "F"), time_in_force="gtc")
        kind = "cancel" if number % 2 else "replace"
        if kind == "cancel":
            ask(account, "DELETE", f"/v2/orders/{order['id']}")
        else:
            ask(account, "PATCH", f"/v2/orders/{order['id']}", {"qty": 20})
        account.clock.advance(3)
        ends[kind].add(tuple(u["event"] for u in heard(account, session) if u["order"]["id"] == order["id"]))
    begin = ("pending_new", "new", "pending_cancel")
    assert {(*begin, "canceled"), (*begin, "fill", "order_cancel_rejected")} <= ends["cancel"]
    begin = ("pending_new", "new", "pending_replace")
    assert {(*begin, "replaced"), (*begin, "order_replace_rejected", "fill")} & ends["replace"]
    assert any("order_replace_rejected" in told for told in ends["replace"])
    for row in account.get("/v2/orders", status="all", limit="500"):
        assert row["status"] in ("filled", "canceled", "replaced", "rejected")


def test_cancel_all_and_close_all(account: SimAccount) -> None:
    submit(account)
    submit(account, "TSLA", "sell", "3")
    account.clock.advance(2)
    waiting = submit(account, side="sell", type="limit", time_in_force="gtc", limit_price=away(account, "30"))
    answer = account.send("DELETE", "/v2/positions")
    rows = {row["symbol"]: row for row in json.loads(answer.body)}
    assert (answer.status, rows["AAPL"]["status"], rows["TSLA"]["status"]) == (207, 403, 200)
    assert rows["AAPL"]["body"]["held_for_orders"] == "10"
    account.clock.advance(2)
    answer = account.send("DELETE", "/v2/orders")
    assert (answer.status, json.loads(answer.body)) == (207, [{"id": waiting["id"], "status": 200}])
    account.clock.advance(1)
    assert status(account, waiting) == "canceled"
    submit(account, side="sell", type="limit", time_in_force="gtc", limit_price=away(account, "30"))
    ask(account, "DELETE", "/v2/positions", cancel_orders="True")
    account.clock.advance(2)
    assert (account.get("/v2/positions"), account.get("/v2/orders")) == ([], [])


def test_half_a_position_is_closed(account: SimAccount) -> None:
    submit(account, qty="11")
    account.clock.advance(2)
    assert ask(account, "DELETE", "/v2/positions/AAPL", percentage="50")["qty"] == "5"
    for query in ({"qty": "1", "percentage": "5"}, {"percentage": "0"}, {"percentage": "101"}, {"qty": "x"}):
        assert account.send("DELETE", "/v2/positions/AAPL", **query).status == 422
    assert account.send("DELETE", "/v2/positions/MSFT").status == 404
    assert account.send("POST", "/v2/positions/AAPL/exercise").status == 422
    assert account.send("POST", "/v2/positions/AAPL260619C00300000/exercise").status == 403


def test_a_harsher_market(account: SimAccount) -> None:
    """Latency, slippage and refusals: chosen at a reset, the same for every process."""
    account.exchange.reset(rate_limit=0, strain=Strain(500_000_000, Decimal(10), Decimal(0)))
    order = submit(account)
    account.clock.advance(0.4)
    assert status(account, order) == "pending_new"
    account.clock.advance(3)
    for row in fills(account):
        offered = account.exchange.market().tape.quote("AAPL", at_ns(account, row["transaction_time"])).ask
        assert Decimal(row["price"]) == round(offered * Decimal("1.001"), 2)
    account.exchange.reset(rate_limit=0, strain=Strain(0, Decimal(0), Decimal("0.5")))
    for _ in range(60):
        submit(account, "F", qty="1")
    account.clock.advance(2)
    rows = account.get("/v2/orders", status="all", limit="500")
    refused = [row for row in rows if row["status"] == "rejected"]
    assert 15 < len(refused) < 45
    assert all(row["failed_at"] for row in refused)
    with pytest.raises(UsageError):
        account.exchange.reset(strain=Strain(0, Decimal(0), Decimal(2)))


@pytest.mark.parametrize("extended", [False, True])
@pytest.mark.parametrize("symbol", ["AAPL", "BTC/USD"])
def test_an_order_trades_at_an_instant_exactly_where_its_spans_hold_it(
    nyse: SimAccount, symbol: str, *, extended: bool
) -> None:
    market, now_ns = nyse.exchange.market(), nyse.exchange.now_ns()
    [halt, *_] = halts(market.hours, "AAPL", now_ns, now_ns + 400 * DAY_S * 10**9)
    day = market.hours.days(new_york_date(halt.from_ns), new_york_date(halt.from_ns))[0]
    edges = (*day[1:5], halt.from_ns, halt.quoting_ns, halt.until_ns, halt.from_ns + 3 * DAY_S * 10**9)
    seen = set()
    for at_ns in (edge + step for edge in edges for step in (-1, 0, 1)):
        inside = bool(spans(market, LISTINGS[symbol], at_ns, at_ns + 1, extended=extended))
        assert trades_at(market, LISTINGS[symbol], at_ns, extended=extended) == inside
        seen.add(inside)
    assert seen == ({True} if symbol == "BTC/USD" else {True, False})
