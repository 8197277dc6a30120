"""Ctrl-C, SIGTERM and SIGHUP while something is changed: what was done, what is unknown and what was not tried is told."""

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from tests.support.alpacli import DEADLINE_S, PROGRAM, Alpacli
from tests.support.broker_book import order
from tests.support.origin import Origin, Reply, Seen


def _interrupted(
    user: Alpacli, origin: Origin, *args: str, stop: signal.Signals, sent: int = 1, method: str = "POST"
) -> tuple[int, bytes, list[dict[str, Any]]]:
    """Stop it once so many requests were sent: press Ctrl-C again and again, or send another signal as `timeout` does.

    Return exit code, output and errors.
    """
    for path in ("/v2/account", "/v2/positions", "/v2/clock", "/v2/orders", "/v2/stocks"):
        origin.reply(path, Reply(status=422, body={"message": "not here"}), method="GET")
    asset: dict[str, str | bool] = {
        "id": "a",
        "class": "us_equity",
        "exchange": "NASDAQ",
        "symbol": "QQQ",
        "name": "Q",
        "status": "active",
    }
    asset |= dict.fromkeys(("tradable", "marginable", "shortable", "easy_to_borrow", "fractionable"), True)
    origin.reply("/v2/assets", Reply(body=asset))
    process = subprocess.Popen(
        [PROGRAM, *args, "--json", "--quiet"],
        env=user.environment(_keys(origin)),
        cwd=user.cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        deadline = time.monotonic() + DEADLINE_S
        while sum(seen.method == method for seen in origin.requests) < sent and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(stop)
        time.sleep(0.002)
        process.send_signal(stop)
        while stop == signal.SIGINT and process.poll() is None and time.monotonic() < deadline:
            process.send_signal(stop)
            time.sleep(0.002)
        out, err = process.communicate(timeout=DEADLINE_S)
    return process.returncode, out, [json.loads(line)["error"] for line in err.decode().splitlines()]


def _keys(origin: Origin) -> dict[str, str | None]:
    return {
        "ALPACA_BASE_URL": origin.url, "ALPACA_API_KEY": "PKTEST", "ALPACA_SECRET_KEY": "verysecretvalue",
        "ALPACA_DATA_URL": origin.url,
    }  # fmt: skip


def _sent_ids(origin: Origin) -> list[str]:
    return [json.loads(seen.body)["client_order_id"] for seen in origin.requests if seen.method == "POST"]


STOPS = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]


@pytest.mark.parametrize(("stop", "ends"), STOPS)
def test_an_interrupted_order_is_one_json_error_with_its_id_however_often_it_is_stopped(
    tmp_path: Path, stop: signal.Signals, ends: int
) -> None:
    with Origin() as origin:
        origin.reply("/v2/orders", Reply(fault="hang"), method="POST")
        code, out, said = _interrupted(Alpacli(tmp_path), origin, "buy", "QQQ", "1", "--limit", "5", stop=stop)
        ids = _sent_ids(origin)
    assert (code, out) == (ends, b"")
    assert [(one["type"], one["client_order_id"], one["client_order_ids"]) for one in said] == [
        ("Interrupted", ids[0], ids)
    ]


@pytest.mark.parametrize(("stop", "ends"), STOPS)
def test_an_interrupted_file_of_orders_tells_what_each_came_to_and_is_one_json_error_with_the_unknown(
    tmp_path: Path, stop: signal.Signals, ends: int
) -> None:
    file = tmp_path / "orders.csv"
    file.write_text("symbol,side,qty,limit_price\nQQQ,buy,1,5\nQQQ,buy,2,5\nQQQ,buy,3,5\n")
    with Origin() as origin:
        refusal = Reply(status=403, body={"code": 40310000, "message": "insufficient buying power"})
        origin.reply("/v2/orders", refusal, Reply(fault="hang"), method="POST")
        code, out, said = _interrupted(Alpacli(tmp_path), origin, "submit", "--from", str(file), sent=2, stop=stop)
        ids = _sent_ids(origin)
    assert code == ends
    assert [(row["line"], row["outcome"], row["client_order_id"]) for row in json.loads(out)] == [
        (1, "refused", ids[0]),
        (2, "unknown", ids[1]),
    ]
    assert [(one["type"], one["client_order_id"], one["client_order_ids"]) for one in said] == [
        ("Interrupted", ids[1], [ids[1]])
    ]
    assert "0 of 3 orders were placed" in said[0]["message"]


def _coin(symbol: str) -> dict[str, str]:
    size = dict.fromkeys(("qty", "qty_available", "avg_entry_price", "cost_basis", "market_value"), "1")
    return {"asset_id": symbol, "symbol": symbol, "exchange": "CRYPTO", "asset_class": "crypto", "side": "long"} | size


def _broker_that_fails_at(origin: Origin, symbol: str, reply: Reply) -> None:
    """Hold three coins and take orders, but for that of one coin."""

    def answer(seen: Seen) -> Reply:
        if seen.method != "POST":
            return Reply(status=422, body={"message": "not here"})
        sent = json.loads(seen.body)
        if sent["symbol"] == symbol:
            return reply
        fields = {name: sent[name] for name in ("symbol", "side", "qty", "client_order_id")}
        return Reply(body=order(1, "2026-11-25T15:00:00Z", status="pending_new", filled_qty="0", **fields))

    origin.answer("/v2/orders", answer)
    origin.answer("/v2/positions", lambda _: Reply(body=[_coin(name) for name in ("BTCUSD", "ETHUSD", "SOLUSD")]))


@pytest.mark.parametrize(("stop", "ends"), STOPS)
def test_an_interrupted_closing_of_everything_tells_what_is_closed_what_is_unknown_and_what_was_not_tried(
    tmp_path: Path, stop: signal.Signals, ends: int
) -> None:
    with Origin() as origin:
        _broker_that_fails_at(origin, "ETHUSD", Reply(fault="hang"))
        code, out, said = _interrupted(Alpacli(tmp_path), origin, "close", "--all", "--yes", sent=2, stop=stop)
        ids = _sent_ids(origin)
    assert code == ends
    closed, unknown, untried = json.loads(out)
    assert (closed["symbol"], closed["status"], closed["body"]["client_order_id"]) == ("BTCUSD", 200, ids[0])
    assert (unknown["symbol"], unknown["status"]) == ("ETHUSD", 500)
    assert (unknown["body"]["type"], unknown["body"]["client_order_id"]) == ("FateUnknown", ids[1])
    assert (untried["symbol"], untried["status"], untried["body"]["type"]) == ("SOLUSD", 500, "Interrupted")
    assert "no order was sent" in untried["body"]["message"]
    assert [(one["type"], one["client_order_id"], one["client_order_ids"]) for one in said] == [
        ("Interrupted", ids[1], [ids[1]])
    ]
    assert said[0]["message"] == (
        "interrupted while the order that closes ETHUSD was on its way; 1 of 3 closing orders were placed; not tried: SOLUSD"
    )


def test_closing_everything_that_is_interrupted_before_the_first_order_does_not_speak_of_one(tmp_path: Path) -> None:
    with Origin() as origin:
        origin.answer("/v2/positions", lambda _: Reply(body=[_coin("BTCUSD")]))
        origin.answer("/v2/orders", lambda seen: Reply(body=[]) if seen.method == "GET" else Reply(fault="hang"))
        code, out, said = _interrupted(
            Alpacli(tmp_path),
            origin,
            "close",
            "--all",
            "--cancel-orders",
            "--yes",
            method="DELETE",
            stop=signal.SIGTERM,
        )
    assert (code, out) == (143, b"")
    assert [(one["type"], one["client_order_ids"]) for one in said] == [("Interrupted", [])]
    assert "before any position was closed" in said[0]["message"]
    assert "open orders may be canceled" in said[0]["hint"]


def test_keys_that_are_revoked_midway_hide_nothing_of_what_was_closed_before(tmp_path: Path) -> None:
    with Origin() as origin:
        _broker_that_fails_at(origin, "ETHUSD", Reply(status=401, body={"message": "unauthorized."}))
        ended = Alpacli(tmp_path)("close", "--all", "--yes", "--json", env=_keys(origin))
    assert ended.code == 3, ended.errors
    rows = json.loads(ended.out)
    assert [(row["symbol"], row["status"]) for row in rows] == [("BTCUSD", 200), ("ETHUSD", 500), ("SOLUSD", 500)]
    assert rows[1]["body"]["type"] == "AuthenticationError"


ORDERS = [f"00000000-0000-4000-8000-{number:012d}" for number in range(1, 5)]


@pytest.mark.parametrize(("stop", "ends"), STOPS)
def test_interrupted_cancellations_tell_which_were_taken_which_is_unknown_and_which_were_not_tried(
    tmp_path: Path, stop: signal.Signals, ends: int
) -> None:
    with Origin() as origin:
        refusal = Reply(status=404, body={"code": 40410000, "message": "order not found"})
        origin.reply(f"/v2/orders/{ORDERS[0]}", Reply(status=204, body=None), method="DELETE")
        origin.reply(f"/v2/orders/{ORDERS[1]}", refusal)
        origin.reply("/v2/orders:by_client_order_id", refusal)
        origin.reply(f"/v2/orders/{ORDERS[2]}", Reply(fault="hang"), method="DELETE")
        user = Alpacli(tmp_path)
        code, out, said = _interrupted(user, origin, "cancel", *ORDERS, sent=3, method="DELETE", stop=stop)
        asked = [seen.path for seen in origin.requests if seen.method == "DELETE"]
    assert code == ends
    assert asked == [f"/v2/orders/{name}" for name in ORDERS[:3]]
    rows = json.loads(out)
    assert [(row["id"], row["status"], row.get("body", {}).get("type")) for row in rows] == [
        (ORDERS[0], 200, None),
        (ORDERS[1], 404, "NotFound"),
        (ORDERS[2], 500, "FateUnknown"),
        (ORDERS[3], 500, "Interrupted"),
    ]
    assert [one["type"] for one in said] == ["Interrupted"]
    assert said[0]["message"] == (
        f"interrupted while the cancellation of {ORDERS[2]} was on its way; 1 of 4 cancellations were taken;"
        f" not tried: {ORDERS[3]}"
    )


def test_an_order_that_was_only_looked_up_before_the_interruption_counts_as_not_tried(tmp_path: Path) -> None:
    with Origin() as origin:
        origin.reply(f"/v2/orders/{ORDERS[0]}", Reply(status=204, body=None), method="DELETE")
        origin.answer("/v2/orders:by_client_order_id", lambda _: Reply(fault="hang"))
        user = Alpacli(tmp_path)
        code, out, said = _interrupted(
            user, origin, "cancel", ORDERS[0], "my-own", sent=1, method="GET", stop=signal.SIGTERM
        )
    assert code == 143
    assert [(row["id"], row.get("body", {}).get("type")) for row in json.loads(out)] == [
        (ORDERS[0], None),
        ("my-own", "Interrupted"),
    ]
    assert [one["message"] for one in said] == ["interrupted; 1 of 2 cancellations were taken; not tried: my-own"]


@pytest.mark.parametrize("what", ["--all", ORDERS[0]])
def test_one_interrupted_cancellation_is_one_json_error_and_no_result(tmp_path: Path, what: str) -> None:
    with Origin() as origin:
        origin.reply("/v2/orders", Reply(fault="hang"), method="DELETE")
        code, out, said = _interrupted(
            Alpacli(tmp_path), origin, "cancel", what, "--yes", method="DELETE", stop=signal.SIGTERM
        )
    assert (code, out) == (143, b"")
    assert [one["type"] for one in said] == ["Interrupted"]
    assert "was on its way" in said[0]["message"]
    assert "`alpacli orders`" in said[0]["hint"]
