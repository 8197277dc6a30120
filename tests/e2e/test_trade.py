"""The trading commands as a user types them, on the offline exchange in process."""

import json
from contextlib import closing
from itertools import islice
from pathlib import Path

import jsonschema
import pytest
from tests.support.alpacli import Alpacli
from tests.support.broker_book import order
from tests.support.origin import Origin, Reply

from alpacli.ports import SystemClock
from alpacli.sim.chains import Filter, contracts
from alpacli.sim.exchange import Exchange


@pytest.fixture
def sim(tmp_path: Path) -> Alpacli:
    paper = Alpacli(tmp_path)
    assert paper("sim", "reset", "--yes", "--seed", "5").code == 0
    return paper


def test_buy_fills_follow_shows_it_and_close_takes_it_back(sim: Alpacli) -> None:
    bought = sim("buy", "AAPL", "10", "--sim", "--json")
    assert bought.code == 0, bought.errors
    order = json.loads(bought.out)
    assert order["client_order_id"].startswith("alpacli-")
    followed = sim("order", order["id"], "--follow", "--sim", "--json")
    states = [json.loads(line) for line in followed.text.splitlines()]
    assert states[-1]["status"] == "filled"
    assert states[-1]["filled_qty"] == 10
    half = json.loads(sim("close", "AAPL", "--percent", "50", "--yes", "--sim", "--json").out)
    assert (half["side"], half["qty"]) == ("sell", 5)
    sim("order", half["id"], "--follow", "--sim", "--quiet")
    closed = sim("close", "--all", "--yes", "--sim", "--json")
    assert [(item["symbol"], item["status"]) for item in json.loads(closed.out)] == [("AAPL", 200)]


def test_closing_a_share_in_whole_numbers_says_once_what_it_comes_to_in_preview_and_result(sim: Alpacli) -> None:
    order = json.loads(sim("sell", "TSLA", "10", "--sim", "--json").out)
    sim("order", order["id"], "--follow", "--sim", "--quiet")
    for option in ("--dry-run", "--yes"):
        closed = sim("close", "TSLA", "--percent", "33", option, "--sim")
        assert (closed.code, closed.errors.count("33 % of 10 TSLA is 3.3")) == (0, 1)


def test_a_bracket_is_placed_changed_and_canceled(sim: Alpacli) -> None:
    entry = sim(
        "buy", "F", "10", "--limit", "1", "--take-profit", "2", "--stop-loss", "0.5", "--tif", "gtc", "--sim", "--json"
    )
    assert entry.code == 0, entry.errors
    order = json.loads(entry.out)
    assert (order["order_class"], len(order["legs"])) == ("bracket", 2)
    moved = sim("replace", order["id"], "--limit", "1.10", "--sim", "--json")
    assert moved.code == 0, moved.errors
    new = json.loads(moved.out)
    assert (new["replaces"], new["limit_price"]) == (order["id"], 1.1)
    gone = sim("cancel", new["id"], "--sim", "--json")
    assert json.loads(gone.out) == [{"id": new["id"], "status": 200}]
    again = sim("cancel", "00000000-0000-4000-8000-000000000000", "--sim")
    assert again.code == 4


def test_a_client_order_id_may_have_the_form_of_alpacas_own(sim: Alpacli) -> None:
    """Alpaca and its SDK make them so."""
    mine = "0D8F5C0E-6f6b-4e0f-9d8e-2f6f1a7c5b11"
    placed = sim("buy", "F", "1", "--limit", "1", "--client-order-id", mine, "--tif", "gtc", "--sim", "--json")
    order_id = json.loads(placed.out)["id"]
    assert json.loads(sim("order", mine, "--sim", "--json").out)["id"] == order_id
    dry = json.loads(sim("cancel", mine, "--dry-run", "--sim", "--json").out)
    assert order_id in json.dumps(dry)
    moved = json.loads(
        sim("replace", mine, "--limit", "1.10", "--client-order-id", mine[:-1] + "2", "--sim", "--json").out
    )
    assert moved["replaces"] == order_id
    gone = sim("cancel", mine[:-1] + "2", "--sim", "--json")
    assert json.loads(gone.out) == [{"id": moved["id"], "status": 200}]
    nobody = "0d8f5c0e-6f6b-4e0f-9d8e-2f6f1a7c5b13"
    for command in (["order"], ["cancel"], ["replace", "--limit", "1"], ["order", "--follow"]):
        ended = sim(command[0], nobody, *command[1:], "--sim", "--json")
        assert ended.code == 4
        assert f"order not found for {nobody}" in json.loads(ended.err)["error"]["message"]


def test_dry_run_sends_nothing_and_shows_cost_and_what_is_left(sim: Alpacli) -> None:
    shown = sim("buy", "AAPL", "10", "--limit", "100", "--dry-run", "--sim", "--json")
    value = json.loads(shown.out)
    assert value["body"]["qty"] == "10"
    assert value["estimated_cost"] == 1000
    assert value["buying_power"] - value["buying_power_left"] == 1000
    assert json.loads(sim("orders", "--sim", "--json").out) == []
    assert not list(sim.state.glob("orders/*.jsonl"))


def test_a_dry_run_of_several_option_legs_at_the_market_costs_what_their_quotes_say(sim: Alpacli) -> None:
    with closing(Exchange(None, SystemClock())) as same_market:
        same_market.reset(seed=5)
        found = contracts(same_market.market(), Filter(["AAPL"], type="call"), same_market.now_ns())
        low, high = (contract.symbol for contract in islice(found, 2))
    legs = ("--leg", f"{low}:1:buy_to_open", "--leg", f"{high}:1:sell_to_open")
    shown = sim("submit", "--qty", "2", *legs, "--dry-run", "--sim", "--json")
    assert shown.code == 0, shown.errors
    value = json.loads(shown.out)
    assert value["estimated_cost"] > 0, "the lower strike of two calls costs more"
    assert round(value["buying_power"] - value["buying_power_left"], 2) == value["estimated_cost"]


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (("buy", "AAPL"), 2, "quantity"),
        (("buy", "AAPL", "ten"), 2, "ten"),
        (("buy", "AAPL", "1.5", "--tif", "gtc"), 4, "--tif day"),
        (("buy", "AAPL", "1", "--limit", "100.005"), 4, "100.0"),
        (("buy", "NOPE1", "1"), 4, "NOPE1"),
        (("sell", "AAPL", "1.5"), 4, "short"),
        (("buy", "AAPL", "1000000"), 4, "can be spent"),
        (("buy", "AAPL", "1", "--extended-hours"), 4, "limit"),
        (("replace", "x"), 2, "nothing"),
        (("cancel",), 2, "--all"),
        (("close", "AAPL", "--yes"), 4, "no open position"),
        (("close", "AAPL"), 4, "no open position"),
        (("submit", "--from", "nowhere.csv"), 2, "nowhere.csv"),
        (("submit", "--symbol", "AAPL", "--qty", "1"), 2, "side"),
    ],
)
def test_what_is_wrong_is_said_with_the_fix_and_nothing_is_sent(
    sim: Alpacli, args: tuple[str, ...], code: int, says: str
) -> None:
    ended = sim(*args, "--sim")
    assert (ended.code, ended.out) == (code, b""), ended.errors
    assert says in ended.errors
    assert "hint: " in ended.errors
    assert json.loads(sim("orders", "--sim", "--json").out) == []


def test_cancel_all_and_close_ask_and_do_nothing_when_nobody_answers(sim: Alpacli) -> None:
    sim("buy", "F", "1", "--limit", "1", "--sim")
    ended = sim("cancel", "--all", "--sim")
    assert ended.code == 2
    assert "buy 1 F at 1" in ended.errors
    assert len(json.loads(sim("orders", "--status", "open", "--sim", "--json").out)) == 1
    done = sim("cancel", "--all", "--yes", "--sim", "--json")
    assert [item["status"] for item in json.loads(done.out)] == [200]


def test_halt_holds_until_resume_and_everything_is_in_the_audit(sim: Alpacli) -> None:
    sim("buy", "AAPL", "2", "--sim")
    assert sim("halt", "--reason", "storm", "--sim").code == 0
    refused = sim("buy", "AAPL", "1", "--sim")
    assert refused.code == 4
    assert "storm" in refused.errors
    assert sim("buy", "AAPL", "1", "--dry-run", "--sim").code == 4
    assert sim("close", "AAPL", "--yes", "--sim").code == 0
    assert sim("resume", "--sim").code == 0
    assert sim("buy", "AAPL", "1", "--sim").code == 0
    lines = json.loads(sim("audit", "list", "--sim", "--json").out)
    assert [line["action"] for line in lines if line["phase"] != "sent"] == [
        "place",
        "halt",
        "place",
        "close",
        "resume",
        "place",
    ]
    assert sim("audit", "verify", "--sim").code == 0
    [path] = sim.state.glob("orders/*.jsonl")
    path.write_bytes(path.read_bytes().replace(b"storm", b"calm!"))
    found = sim("audit", "verify", "--sim", "--json")
    assert found.code == 4
    assert json.loads(found.out)["ok"] is False


def test_own_rules_hold_for_every_command_and_a_typo_in_them_stops_everything(sim: Alpacli) -> None:
    config = sim.home.parent / "config"
    config.mkdir(exist_ok=True)
    (config / "risk.toml").write_text('blocked_symbols = ["F"]\nmax_order_qty = 5\n')
    assert sim("buy", "F", "1", "--sim").code == 4
    assert sim("buy", "AAPL", "6", "--sim").code == 4
    assert sim("buy", "AAPL", "5", "--sim").code == 0
    (config / "risk.toml").write_text("max_order_quantity = 5\n")
    broken = sim("buy", "AAPL", "1", "--sim")
    assert broken.code == 3
    assert "max_order_quantity" in broken.errors


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("buy KO", "either a quantity or a notional"),
        ("buy KO 1 --notional 5", "either a quantity or a notional"),
        ("buy KO nan", "qty is 'nan'"),
        ("buy KO 1 --tif soon", "time_in_force cannot be 'soon'"),
        ("submit --symbol KO --side hold --qty 1", "side cannot be 'hold'"),
        ("submit --symbol KO --qty 1", "needs a side"),
        ("submit --side buy --qty 1", "needs a symbol"),
        ("submit --symbol KO --side buy --qty 1 --type lim", "type cannot be 'lim'"),
        ("submit --symbol KO --side buy --qty 1 --type limit", "needs a limit price"),
        ("submit --symbol KO --side buy --qty 1 --type trailing_stop", "either a trail price or a trail percent"),
        ("submit --symbol KO --side buy --qty 1 --order-class pair", "order_class cannot be 'pair'"),
        ("submit --symbol KO --side buy --qty 1 --position-intent open", "position_intent cannot be 'open'"),
    ],
)
def test_what_is_no_order_yet_is_wrong_usage_and_needs_no_account_to_be_told(
    sim: Alpacli, arguments: str, says: str
) -> None:
    for extra in (["--sim"], ["--dry-run"], ["--json"]):
        ended = sim(*arguments.split(), *extra)
        assert (ended.code, ended.out) == (2, b""), ended.errors
        assert says in ended.errors


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("buy KO 0", "not above zero"),
        ("submit --symbol KO --side buy --qty -5", "the side says buy or sell"),
        ("buy KO 1 --limit 9.999", "at most 2 decimal places"),
        ("buy BTC/USD 1 --tif day", "gtc or ioc"),
        ("buy KO 1 --tif opg --trail-percent 5", "market or limit orders"),
        ("buy NOSUCH 1", "no asset NOSUCH"),
        ("buy KO 1000000", "can be spent"),
    ],
)
def test_an_order_that_a_rule_refuses_is_no_wrong_usage(sim: Alpacli, arguments: str, says: str) -> None:
    ended = sim(*arguments.split(), "--sim")
    assert (ended.code, ended.out) == (4, b""), ended.errors
    assert says in ended.errors


@pytest.mark.parametrize(("side", "other"), [("buy", "sell"), ("sell", "buy")])
@pytest.mark.parametrize("qty", ["-5", "-.5"])
def test_a_quantity_below_zero_is_told_the_command_that_does_that(
    sim: Alpacli, side: str, other: str, qty: str
) -> None:
    ended = sim(side, "AAPL", qty, "--sim")
    assert (ended.code, ended.out) == (2, b"")
    assert "a quantity is above zero" in ended.errors
    assert f"`alpacli {other}`" in ended.errors


def test_many_orders_from_json_and_csv(sim: Alpacli) -> None:
    rows = [{"symbol": "AAPL", "side": "buy", "qty": 1}, {"symbol": "BTC/USD", "side": "buy", "notional": "50"}]
    done = sim("submit", "--from", "-", "--sim", "--json", stdin=json.dumps(rows).encode())
    assert done.code == 0, done.errors
    assert [item["order"]["time_in_force"] for item in json.loads(done.out)] == ["day", "gtc"]
    csv = "symbol,side,qty,take_profit,stop_loss\nF,buy,1,,\nF,buy,1000000000,,\n"
    partly = sim("submit", "--from", "-", "--sim", "--json", stdin=csv.encode())
    assert partly.code == 4
    assert [item["outcome"] for item in json.loads(partly.out)] == ["placed", "refused"]
    assert "1 of 2" in partly.errors
    assert "placed twice" in partly.errors


@pytest.mark.parametrize("taken", [True, False])
def test_only_an_order_that_was_taken_is_said_to_wait_for_the_opening(tmp_path: Path, taken: bool) -> None:
    row = order(7, "2026-11-26T17:00:00Z", client_order_id="mine", symbol="KO", status="accepted")
    flags = dict.fromkeys(("tradable", "marginable", "shortable", "easy_to_borrow", "fractionable"), True)
    asset = {"id": "1", "class": "us_equity", "exchange": "NYSE", "symbol": "KO", "status": "active", **flags}
    refusal = {"code": 42210000, "message": "opg orders must be submitted before 9:28am"}
    clock = {
        "timestamp": "2026-11-26T12:00:00-05:00",
        "is_open": False,
        "next_open": "2026-11-27T09:30:00-05:00",
        "next_close": "2026-11-27T13:00:00-05:00",
    }
    with Origin() as origin:
        urls = {"ALPACA_BASE_URL": origin.url, "ALPACA_DATA_URL": origin.url}
        keys = {**urls, "ALPACA_API_KEY": "PKTEST", "ALPACA_SECRET_KEY": "verysecretvalue"}
        origin.reply("/v2/clock", Reply(body=clock))
        origin.reply("/v2/assets/KO", Reply(body=asset))
        origin.reply("/v2/orders", Reply(body=row) if taken else Reply(status=422, body=refusal))
        ended = Alpacli(tmp_path)("buy", "KO", "5", "--tif", "opg", "--client-order-id", "mine", "--json", env=keys)
    assert ended.code == (0 if taken else 4), ended.errors
    assert ("waits for 2026-11-27 09:30 EST, when it opens" in ended.errors) is taken
    assert (str(refusal["message"]) in ended.errors) is not taken
    assert ("waits" in ended.errors) is taken


def test_each_order_of_a_dry_run_of_many_has_what_those_before_it_leave(sim: Alpacli) -> None:
    power = json.loads(sim("account", "--sim", "--json").out)["buying_power"]
    half = power // 100 // 2 + 1  # two of them take more than there is
    rows = f"symbol,side,qty,limit_price\nF,buy,{half},100\nF,buy,10,10\nBTC/USD,buy,0.01,50000\nF,buy,{half},100\n"
    shown = sim("submit", "--from", "-", "--dry-run", "--sim", "--json", stdin=rows.encode())
    assert shown.code == 0, shown.errors
    first, second, coin, last = json.loads(shown.out)
    assert first["buying_power"] == power
    assert second["buying_power"] == first["buying_power_left"] == power - half * 100
    assert last["buying_power"] == second["buying_power_left"] == power - half * 100 - 100
    assert last["buying_power_left"] == last["buying_power"] - half * 100 < 0
    assert "the orders before it leave" in last["warnings"][-1]
    assert not any("before it leave" in text for row in (first, second, coin) for text in row["warnings"])
    assert coin["buying_power"] - coin["buying_power_left"] == 500


@pytest.mark.parametrize(
    ("content", "code", "says"),
    [
        (b"", 2, "holds no orders"),
        (b"symbol,side,qty\n", 2, "holds no orders"),
        (b"[]", 2, "holds no orders"),
        (b"symbol,side,qty\nF,buy,1\nF,buy,x\n", 2, "order 2: qty is 'x'"),
        (b"symbol,side,qty\nF,buy,1,9\n", 2, "order 1 has not the shape"),
        (b"symbol,side,qty\nF,buy\n", 2, "order 1: an order has either"),
        (b"symbol,side,qty\nF,buy,1\nF,buy,0\n", 4, "order 2: qty is 0, which is not above zero"),
        (b"symbol;side;qty\nF;buy;1\n", 2, "no field"),
        (b"symbol,symbol,side,qty\nF,AAPL,buy,1\n", 2, "two columns 'symbol'"),
        (b"symbol,side,qty,client_order_id\nF,buy,1,a\nF,buy,2,a\n", 2, "orders 1 and 2 have the same"),
        ("symbol,side,qty\nF,buy,1\n".encode("utf-16"), 2, "UTF-8"),
        (b"symbol,side,qty\nF\x00,buy,1\n", 4, "is no symbol"),
        (b'[{"symbol":"F",]', 2, "cannot be read"),
        (b"[1,2]", 2, "order 1 has not the shape"),
        (b"[" * 100_000, 2, "nested too deeply"),
        (b'[{"symbol":"F","side":"buy","qty":1,"qty":3}]', 2, "'qty' is there twice"),
        (b'{"symbol":"F","side":"buy","qty":1}\n{"symbol":"F","side":"buy","qty":2,"qty":3}\n', 2, "is there twice"),
        (b'{"symbol":"F","side":"buy",\n"qty":2,"qty":3}\n', 2, "is there twice"),
    ],
)
def test_a_file_with_a_mistake_places_nothing(sim: Alpacli, content: bytes, code: int, says: str) -> None:
    ended = sim("submit", "--from", "-", "--sim", "--json", stdin=content)
    assert (ended.code, ended.out) == (code, b""), ended.errors
    assert says in json.loads(ended.err)["error"]["message"]
    assert json.loads(sim("orders", "--sim", "--json").out) == []


def test_files_are_read_as_spreadsheets_editors_and_programs_write_them(sim: Alpacli, tmp_path: Path) -> None:
    row = b"F,buy,1,1.00"
    for content in (
        b"\xef\xbb\xbfsymbol,side,qty,limit_price\r\n" + row + b"\r\n",
        b"Symbol , Side,QTY,limit_price\n\n F , buy , 1 , 1\n\n",
        b'"symbol","side","qty","limit_price","notional"\n"F","buy","1","1.00",""\n',
        b'{"symbol":"F","side":"buy","qty":1,"limit_price":"1.00"}',
        b'{\n  "symbol": "F",\n  "side": "buy",\n  "qty": 1,\n  "limit_price": 1.00\n}\n',
        b'\n{"symbol":"F","side":"buy","qty":"1","limit_price":1,"legs":null}\n\n',
    ):
        (tmp_path / "orders.txt").write_bytes(content)
        ended = sim("submit", "--from", str(tmp_path / "orders.txt"), "--sim", "--json", "--dry-run")
        assert ended.code == 0, (content, ended.errors)
        [preview] = json.loads(ended.out)
        assert (preview["body"]["symbol"], preview["body"]["qty"]) == ("F", "1")
        assert float(preview["body"]["limit_price"]) == 1


def test_a_position_that_cannot_be_closed_is_told_among_those_that_can(sim: Alpacli) -> None:
    """``close --all`` closes the others too, and ends with 4 as this does."""
    for symbol in ("AAPL", "F"):
        bought = json.loads(sim("buy", symbol, "10", "--sim", "--json").out)["id"]
        assert sim("order", bought, "--follow", "--sim").code == 0
    assert sim("sell", "AAPL", "10", "--limit", "9000", "--sim").code == 0
    ended = sim("close", "--all", "--dry-run", "--sim", "--json")
    assert ended.code == 4
    shown = json.loads(ended.out)
    assert [row["body"]["symbol"] for row in shown] == ["AAPL", "F"]
    refused, fine = shown
    assert "open orders hold 10" in " ".join(refused["warnings"])
    assert (refused.get("estimated_cost"), refused["body"]["qty"]) == (None, "10")
    assert fine["estimated_cost"] > 0
    error = json.loads(ended.errors)["error"]
    assert error["message"] == "1 of 2 positions would not be closed: AAPL"
    assert "--cancel-orders" in error["hint"]
    freed = sim("close", "--all", "--cancel-orders", "--dry-run", "--sim", "--json")
    assert (freed.code, len(json.loads(freed.out))) == (0, 3)


def test_every_dry_run_prints_what_would_be_sent_and_sends_nothing(sim: Alpacli) -> None:
    sim("buy", "AAPL", "10", "--sim")
    sim("order", json.loads(sim("orders", "--sim", "--json").out)[0]["id"], "--follow", "--sim")
    exits = sim("sell", "AAPL", "10", "--take-profit", "900", "--stop-loss", "5", "--sim", "--json")
    assert exits.code == 0, exits.errors
    assert json.loads(exits.out)["order_class"] == "oco"
    waiting = json.loads(sim("buy", "F", "10", "--limit", "1", "--sim", "--json").out)["id"]

    def state() -> list[object]:
        files = sorted(path.read_bytes() for path in sim.state.glob("orders/*"))
        return [files, sim("orders", "--status", "all", "--sim", "--json").out, sim("positions", "--sim", "--json").out]

    before = state()[:2]
    expected: dict[tuple[str, ...], list[str]] = {
        ("buy", "F", "1"): ["POST /v2/orders"],
        ("sell", "F", "1"): ["POST /v2/orders"],
        ("replace", waiting, "--limit", "1.25"): [f"PATCH /v2/orders/{waiting}"],
        ("watchlist", "create", "mine", "F"): ["POST /v2/watchlists"],
        ("cancel", waiting): [f"DELETE /v2/orders/{waiting}"],
        ("cancel", "--all"): ["DELETE /v2/orders"],
        ("close", "--all", "--cancel-orders"): ["DELETE /v2/orders", "POST /v2/orders"],
    }
    for args, requests in expected.items():
        ended = sim(*args, "--dry-run", "--sim", "--json")
        assert ended.code == 0, ended.errors
        shown = json.loads(ended.out)
        rows = shown if isinstance(shown, list) else [shown]
        assert [f"{row['method']} {row['url'].removeprefix('sim://local')}" for row in rows] == requests
        assert all(row["dry_run"] for row in rows)
        schema = json.loads(sim(*args, "--dry-run", "--schema").out)
        jsonschema.Draft202012Validator(schema).validate(shown)
    changed = json.loads(sim("replace", waiting, "--limit", "1.25", "--dry-run", "--sim", "--json").out)
    assert changed["body"] == {"limit_price": "1.25", "client_order_id": "(made when it is sent)"}
    assert changed["estimated_cost"] == 12.5
    assert sim("halt", "--dry-run", "--sim").code == 0
    assert state()[:2] == before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("--limit", "1.005"), "at most 2 decimal places"),
        (("--limit", "1"), "like that already"),
        (("--stop", "2"), "a limit order has no stop price"),
        (("--qty", "0"), "0 are filled already"),
        (("--qty", "1.5"), "whole shares"),
        (("--limit", "-1"), "not above zero"),
    ],
)
def test_a_change_that_cannot_be_made_is_refused_before_it_is_sent(
    sim: Alpacli, change: tuple[str, ...], says: str
) -> None:
    order_id = json.loads(sim("buy", "F", "10", "--limit", "1", "--sim", "--json").out)["id"]
    for extra in ((), ("--dry-run",)):
        ended = sim("replace", order_id, *change, *extra, "--sim")
        assert (ended.code, ended.out) == (4, b""), ended.errors
        assert says in ended.errors
        assert "hint: " in ended.errors


def test_a_change_to_a_word_that_orders_do_not_have_is_wrong_usage(sim: Alpacli) -> None:
    for order_id in ("nope", "00000000-0000-0000-0000-000000000000"):
        ended = sim("replace", order_id, "--tif", "gtd", "--sim")
        assert (ended.code, ended.out) == (2, b"")
        assert "cannot be 'gtd'" in ended.errors


def test_a_filled_order_can_be_neither_changed_nor_canceled_and_both_say_why(sim: Alpacli) -> None:
    order_id = json.loads(sim("buy", "AAPL", "1", "--sim", "--json").out)["id"]
    sim("order", order_id, "--follow", "--sim")
    changed = sim("replace", order_id, "--qty", "5", "--sim")
    assert (changed.code, "the order is filled" in changed.errors) == (4, True)
    canceled = sim("cancel", order_id, "--sim", "--json")
    assert canceled.code == 4
    error = json.loads(canceled.err)["error"]
    assert "was filled before it could be canceled, 1 filled at" in error["message"]
    assert "close AAPL" in error["hint"]
