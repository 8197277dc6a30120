"""The reading commands as a shell sees them: the installed program against the offline exchange and loopback servers."""

import csv
import io
import json
import os
import signal
import sqlite3
import subprocess
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from tests.support.alpacli import DEADLINE_S, PROGRAM, Alpacli
from tests.support.origin import Origin, Reply

ACCOUNT = {
    "id": "6f3f8f0a-3f0c-4f0e-9a51-1f2f5a0b7c11",
    "account_number": "PA3TESTACCT1",
    "status": "ACTIVE",
    "currency": "USD",
    "equity": "100020.250000000000000001",
    "last_equity": "100000",
    "cash": "98500.25",
    "buying_power": "12345678901234567890.10",
    "created_at": "2026-01-05T14:01:02.123456789Z",
    "brand_new_field": {"deep": ["1.50", None]},
}


@pytest.fixture
def alpacli(tmp_path: Path) -> Alpacli:
    return Alpacli(tmp_path)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Alpacli:
    """A demo account that the tests of this module only read."""
    user = Alpacli(tmp_path_factory.mktemp("demo"))
    made = user("demo")
    assert made.code == 0, made.errors
    return user


def on(origin: Origin) -> dict[str, str | None]:
    return {"ALPACA_BASE_URL": origin.url, "ALPACA_API_KEY": "PKTEST", "ALPACA_SECRET_KEY": "verysecretvalue"}


READS = [
    ["account"],
    ["positions"],
    ["orders"],
    ["clock"],
    ["calendar"],
    ["assets", "AAPL"],
    ["activities"],
    ["portfolio"],
    ["watchlist", "list"],
    ["watchlist", "show", "Primary Watchlist"],
    ["cache", "stats"],
    ["limits"],
    ["sim", "status"],
]


@pytest.mark.parametrize("command", READS, ids=" ".join)
def test_every_reading_command_answers_in_every_format_and_fits_its_own_schema(
    demo: Alpacli, command: list[str]
) -> None:
    answer = demo(*command, "--sim", "--json")
    assert (answer.code, answer.err) == (0, b"")
    value: Any = json.loads(answer.out)
    assert answer.out.endswith(b"\n")
    assert answer.out.count(b"\n") == 1
    schema = demo(*command, "--schema", env={"HOME": None})
    assert schema.code == 0, schema.errors
    jsonschema.Draft202012Validator(json.loads(schema.out)).validate(value)
    table = demo(*command, "--sim")
    assert table.code == 0
    assert "\x1b" not in table.text
    rows = list(csv.reader(io.StringIO(demo(*command, "--sim", "--csv").text)))
    assert len({len(row) for row in rows}) == 1


def test_json_before_and_after_the_name_is_the_same(demo: Alpacli) -> None:
    before = demo("--sim", "--json", "--max-age", "3600", "watchlist", "list")
    after = demo("watchlist", "list", "--max-age=3600", "--json", "--sim")
    assert before.code == after.code == 0
    assert before.out == after.out


@pytest.mark.parametrize("name", ["account", "positions"])
def test_the_short_way_prints_the_bytes_of_the_whole_program(demo: Alpacli, name: str) -> None:
    demo(name, "--sim", "--json", "--refresh")
    short = demo(name, "--sim", "--json", "--max-age", "3600")
    whole = demo(name, "--sim", "--json", "--max-age", "3600", "--verbose")
    assert short.out == whole.out
    assert short.code == whole.code == 0
    assert short.err == whole.err == b""


def test_the_short_way_counts_its_hits_and_does_not_count_a_miss_twice(alpacli: Alpacli) -> None:
    for _ in range(3):
        assert alpacli("account", "--sim", "--json", "--max-age", "3600").code == 0
    stats = json.loads(alpacli("cache", "stats", "--sim", "--json").out)
    assert (stats["hits"], stats["misses"]) == (2, 1)
    assert alpacli("positions", "--sim", "--json").code == 0
    assert json.loads(alpacli("cache", "stats", "--sim", "--json").out)["misses"] == 2


def test_every_digit_and_unknown_fields_survive_to_json_tsv_csv_and_jq(alpacli: Alpacli) -> None:
    with Origin() as origin:
        origin.reply("/v2/account", Reply(body=ACCOUNT))
        env = on(origin)
        fresh = alpacli("account", "--json", env=env)
        cached = alpacli("account", "--json", "--max-age", "3600", env=env)
        assert fresh.out == cached.out
        value = json.loads(fresh.out, parse_float=Decimal)
        assert str(value["equity"]) == "100020.250000000000000001"
        assert str(value["buying_power"]) == "12345678901234567890.10"
        assert value["created_at"] == ACCOUNT["created_at"]
        assert value["brand_new_field"] == {"deep": ["1.50", None]}
        tsv = dict(line.split("\t") for line in alpacli("account", "--max-age", "3600", env=env).text.splitlines())
        assert tsv["equity"] == "100020.250000000000000001"
        rows = list(csv.DictReader(io.StringIO(alpacli("account", "--csv", "--max-age", "3600", env=env).text)))
        assert rows[0]["buying_power"] == "12345678901234567890.10"
        jq = alpacli("account", "--jq", ".equity, .status, .brand_new_field.deep", "--max-age", "3600", env=env)
        assert jq.text == '100020.250000000000000001\nACTIVE\n["1.50",null]\n'
        assert len(origin.requests) == 1


def test_an_empty_account_is_an_empty_array_and_a_header_alone(alpacli: Alpacli) -> None:
    assert alpacli("positions", "--sim", "--json").out == b"[]\n"
    lines = alpacli("positions", "--sim").text.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("asset_id\tsymbol\t")
    assert alpacli("positions", "--sim", "--csv").text.splitlines()[0].startswith("asset_id,symbol,")


def test_fields_choose_and_order_columns(demo: Alpacli) -> None:
    assert demo("positions", "AAPL", "--sim", "--fields", "qty,symbol").text == "qty\tsymbol\n40\tAAPL\n"
    assert (
        demo("positions", "AAPL", "--sim", "--fields", "qty,symbol", "--json").text == '[{"qty":40,"symbol":"AAPL"}]\n'
    )
    wrong = demo("positions", "--sim", "--fields", "nonsense")
    assert wrong.code == 2
    assert "nonsense" in wrong.errors


def test_positions_of_named_symbols_keep_their_order_and_an_unknown_one_is_exit_4(demo: Alpacli) -> None:
    rows = json.loads(demo("positions", "msft", "BTC/USD", "--sim", "--json").out)
    assert [row["symbol"] for row in rows] == ["MSFT", "BTCUSD"]
    missing = demo("positions", "ZZZZ", "--sim", "--json")
    assert (missing.code, missing.out) == (4, b"")
    assert json.loads(missing.err)["error"]["type"] == "NotFound"


def test_orders_ask_for_all_statuses_and_a_hundred_by_default(alpacli: Alpacli) -> None:
    with Origin() as origin:
        origin.reply("/v2/orders", Reply(body=[]))
        assert alpacli("orders", "--json", env=on(origin)).out == b"[]\n"
        assert origin.requests[0].query["status"] == ["all"]
        assert origin.requests[0].query["limit"] == ["100"]


def test_an_order_is_found_by_its_id_and_by_its_client_order_id(demo: Alpacli) -> None:
    first = json.loads(demo("orders", "--sim", "--json", "--limit", "1").out)[0]
    by_id = json.loads(demo("order", first["id"], "--sim", "--json").out)
    by_client_id = demo("order", "no-such-client-order-id", "--sim")
    assert by_id["client_order_id"] == first["client_order_id"]
    assert by_client_id.code == 4


def test_order_times_without_a_zone_are_taken_in_new_york(alpacli: Alpacli) -> None:
    with Origin() as origin:
        origin.reply("/v2/orders", Reply(body=[]))
        alpacli("orders", "--after", "2026-06-24", "--json", env=on(origin))
        assert origin.requests[0].query["after"][0].startswith("2026-06-24T04:00:00")


# ----------------------------------------------------------------------------------------------------- failures


def test_no_keys_is_exit_3_and_never_the_simulator(alpacli: Alpacli) -> None:
    text = alpacli("account")
    assert (text.code, text.out) == (3, b"")
    assert len(text.errors.splitlines()) == 2
    answer = alpacli("account", "--json")
    assert (answer.code, answer.out) == (3, b"")
    error = json.loads(answer.err)["error"]
    assert list(error) == ["type", "message", "hint", "status", "code", "request_id", "retry_after"]
    assert "--sim" in error["hint"]


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (401, {"message": "unauthorized."}, 3),
        (403, {"message": "forbidden."}, 3),
        (403, {"code": 40310000, "message": "insufficient buying power"}, 4),
        (404, {"code": 40410000, "message": "not found"}, 4),
        (422, {"code": 42210000, "message": "no"}, 4),
    ],
)
def test_answers_that_say_no_have_their_exit_codes(alpacli: Alpacli, status: int, body: object, code: int) -> None:
    with Origin() as origin:
        origin.reply("/v2/account", Reply(status=status, body=body))
        answer = alpacli("account", "--json", env=on(origin))
        assert (answer.code, answer.out) == (code, b"")
        assert json.loads(answer.err)["error"]["status"] == status
        assert "verysecretvalue" not in answer.errors


@pytest.mark.parametrize(
    "args",
    [
        ["nonsense"],
        ["account", "--nonsense"],
        ["account", "--max-age", "soon"],
        ["account", "--max-age", "-1"],
        ["orders", "--limit", "0"],
        ["orders", "--status", "nonsense"],
        ["orders", "--after", "soon"],
        ["order"],
        ["watchlist", "nonsense"],
        ["account", "--sim", "--json", "--csv"],
        ["account", "--sim", "--jq", ".["],
        ["account", "--sim", "--fields", ","],
        ["--json"],
        ["cache", "clear", "nonsense", "--sim"],
        ["cache", "clear", "nonsense", "--sim", "--dry-run"],
        ["cache", "clear", "--sim", "--watch", "1"],
        ["account", "--sim", "--tz", "Mars"],
        ["sim", "serve", "--schema"],
        ["sim", "serve", "--fields", "a"],
        ["sim", "reset", "--only-if-open"],
        ["watchlist", "create", "x", "--sim", "--refresh"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_2_in_text_and_in_json(alpacli: Alpacli, args: list[str]) -> None:
    text = alpacli(*args)
    assert (text.code, text.out) == (2, b"")
    assert "Traceback" not in text.errors
    if "--json" not in args and "--jq" not in args:
        answer = alpacli("--json", *args)
        assert (answer.code, answer.out) == (2, b"")
        assert json.loads(answer.err)["error"]["type"] == "UsageError"


def test_a_misspelt_command_is_answered_with_the_right_one(alpacli: Alpacli) -> None:
    assert "'account'" in alpacli("acount").errors


def test_verbose_adds_a_traceback_without_the_secret(alpacli: Alpacli) -> None:
    with Origin() as origin:
        origin.reply("/v2/account", Reply(status=401, body={"message": "unauthorized."}))
        answer = alpacli("account", "--verbose", env=on(origin))
        assert "Traceback" in answer.errors
        assert "verysecretvalue" not in answer.errors


def test_a_live_key_and_a_foreign_url_are_refused_on_a_warm_cache_too(alpacli: Alpacli) -> None:
    with Origin() as origin:
        origin.reply("/v2/account", Reply(body=ACCOUNT))
        assert alpacli("account", "--json", env=on(origin)).code == 0
        live = {**on(origin), "ALPACA_API_KEY": "AKLIVE"}
        assert alpacli("account", "--json", "--max-age", "3600", env=live).code == 3
        foreign = {**on(origin), "ALPACA_BASE_URL": "https://api.alpaca.markets"}
        assert alpacli("account", "--json", "--max-age", "3600", env=foreign).code == 3
        assert len(origin.requests) == 1


# -------------------------------------------------------------------------------------------------- bad surroundings


def test_a_reader_who_leaves_ends_the_command_quietly(demo: Alpacli) -> None:
    for command in ("orders --sim --json --limit all", "account --sim", "--help", "calendar --sim --end 2029-12-31"):
        ended = demo.shell(f"{{ $ALPACLI {command}; echo $? >&2; }} | head -c 1")
        assert ended.err == b"0\n", command


def test_a_reader_who_left_before_the_cached_answer_ends_it_quietly(demo: Alpacli) -> None:
    demo("account", "--sim", "--json")
    ended = demo.shell("{ sleep 0.2; $ALPACLI account --sim --json --max-age 3600; echo $? >&2; } | true")
    assert ended.err == b"0\n"


@pytest.mark.parametrize("command", ["account --sim", "account --sim --json --max-age 3600", "--help", "--version"])
def test_closed_standard_streams_do_not_crash(demo: Alpacli, command: str) -> None:
    assert demo.shell(f"$ALPACLI {command} >&-; echo $?").text == "0\n"
    assert demo.shell(f"$ALPACLI {command} <&- >/dev/null; echo $?").text == "0\n"
    assert demo.shell(f"$ALPACLI {command} 2>&- >/dev/null; echo $?").text == "0\n"
    with sqlite3.connect(demo.state / "store.sqlite") as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, a device that is always full")
@pytest.mark.parametrize("options", ["", "--json", "--json --max-age 3600"])
def test_a_full_disk_under_stdout_is_said_and_is_exit_8(demo: Alpacli, options: str) -> None:
    ended = demo.shell(f"$ALPACLI account --sim {options} >/dev/full")
    assert ended.code == 8
    assert "No space left" in ended.errors
    assert "Traceback" not in ended.errors


def test_no_home_and_an_unknown_time_zone_do_not_matter(demo: Alpacli) -> None:
    ended = demo("orders", "--sim", "--tz", "local", env={"HOME": None, "TZ": "Nonsense/Nowhere", "FORCE_COLOR": "1"})
    assert ended.code == 0, ended.errors
    assert "Traceback" not in ended.errors


def test_only_if_open_is_silent_while_the_market_is_closed(alpacli: Alpacli) -> None:
    clock = {
        "timestamp": "2026-06-27T12:00:00-04:00",
        "is_open": False,
        "next_open": "2026-06-29T09:30:00-04:00",
        "next_close": "2026-06-29T16:00:00-04:00",
    }
    with Origin() as origin:
        origin.reply("/v2/clock", Reply(body=clock))
        origin.reply("/v2/positions", Reply(body=[]))
        closed = alpacli("positions", "--only-if-open", "--json", env=on(origin))
        assert closed == (0, b"", b"")
        assert [seen.path for seen in origin.requests] == ["/v2/clock"]

    with Origin() as origin:
        origin.reply("/v2/clock", Reply(body={**clock, "is_open": True}))
        origin.reply("/v2/positions", Reply(body=[]))
        assert alpacli("positions", "--only-if-open", "--json", env=on(origin)).out == b"[]\n"


def test_schema_needs_neither_keys_nor_network_and_says_numbers(alpacli: Alpacli) -> None:
    schema = json.loads(alpacli("assets", "--schema").out)
    asset = schema["$defs"]["Asset"]["properties"]
    assert "class" in asset
    assert {"type": "number"} in asset["price_increment"]["anyOf"]


# ------------------------------------------------------------------------------------------------- what changes


def test_a_watchlist_is_created_changed_previewed_and_deleted(alpacli: Alpacli) -> None:
    made = json.loads(alpacli("watchlist", "create", "tech", "AAPL", "MSFT", "--sim", "--json").out)
    assert [asset["symbol"] for asset in made["assets"]] == ["AAPL", "MSFT"]
    added = json.loads(alpacli("watchlist", "add", "tech", "NVDA", "--sim", "--json").out)
    assert [asset["symbol"] for asset in added["assets"]] == ["AAPL", "MSFT", "NVDA"]
    removed = json.loads(alpacli("watchlist", "remove", "tech", "AAPL", "MSFT", "--sim", "--json").out)
    assert [asset["symbol"] for asset in removed["assets"]] == ["NVDA"]
    preview = json.loads(alpacli("watchlist", "delete", "tech", "--dry-run", "--sim", "--json").out)
    assert (preview["method"], preview["dry_run"]) == ("DELETE", True)
    asked = alpacli("watchlist", "delete", "tech", "--sim")
    assert (asked.code, asked.out) == (2, b"")
    assert "--yes" in asked.errors
    assert alpacli("watchlist", "show", "tech", "--sim").code == 0
    assert json.loads(alpacli("watchlist", "delete", "tech", "--yes", "--sim", "--json").out)["deleted"] is True
    assert alpacli("watchlist", "show", "tech", "--sim").code == 4


@pytest.mark.parametrize("cash", ["-5", "1e99", "abc", "NaN"])
def test_a_reset_that_is_refused_resets_nothing(alpacli: Alpacli, cash: str) -> None:
    assert alpacli("demo").code == 0
    refused = alpacli("sim", "reset", "--yes", "--cash", cash)
    assert (refused.code, refused.out) == (2, b"")
    assert json.loads(alpacli("sim", "status", "--json").out)["accounts"][0]["orders"] == 24


def test_watchlist_symbols_may_be_lower_case_and_half_a_change_is_told(alpacli: Alpacli) -> None:
    assert alpacli("watchlist", "create", "tech", "aapl", "--sim").code == 0
    assert alpacli("watchlist", "add", "tech", "btc/usd", "--sim").code == 0
    half = alpacli("watchlist", "add", "tech", "msft", "nope", "nvda", "--sim")
    assert half.code == 4
    assert "made for MSFT only" in half.errors
    assert "symbol not found" in half.errors
    assert "alpacli assets" in half.errors
    symbols = alpacli("watchlist", "remove", "tech", "Msft", "--sim", "--jq", ".assets[].symbol")
    assert symbols.text.split() == ["AAPL", "BTC/USD"]


def test_a_dry_run_of_create_prints_the_request_and_sends_nothing(alpacli: Alpacli) -> None:
    with Origin() as origin:
        answer = alpacli("watchlist", "create", "tech", "AAPL", "--dry-run", "--json", env=on(origin))
        preview = json.loads(answer.out)
        assert preview["url"] == f"{origin.url}/v2/watchlists"
        assert preview["body"] == {"name": "tech", "symbols": ["AAPL"]}
        assert origin.requests == []


def test_resetting_the_exchange_asks_and_does_nothing_without_an_answer(alpacli: Alpacli) -> None:
    assert alpacli("demo").code == 0
    held = json.loads(alpacli("positions", "--sim", "--json").out)
    assert held
    assert alpacli("sim", "reset").code == 2
    assert alpacli("demo").code == 2
    assert json.loads(alpacli("positions", "--sim", "--json", "--refresh").out) != []
    assert alpacli("sim", "reset", "--yes", "--cash", "5000").code == 0
    assert alpacli("positions", "--sim", "--json").out == b"[]\n"
    assert json.loads(alpacli("account", "--sim", "--json").out)["cash"] == 5000


def test_cache_clear_forgets_what_is_named_and_says_how_much(alpacli: Alpacli) -> None:
    alpacli("account", "--sim")
    alpacli("positions", "--sim")
    assert alpacli("cache", "clear", "positions", "--sim", "--json").out == b'{"cleared":1}\n'
    assert alpacli("cache", "clear", "--sim", "--json").out == b'{"cleared":1}\n'


def test_a_dry_run_of_cache_clear_tells_by_name_what_would_go_and_keeps_it(alpacli: Alpacli) -> None:
    for command in ("account", "assets", "orders --max-age 60", "orders --limit 5 --max-age 60"):
        assert alpacli(*command.split(), "--sim").code == 0
    would = {"cleared": 0, "dry_run": True, "entries": {"account": 1, "positions": 0, "orders": 2, "other": 1}}
    assert json.loads(alpacli("cache", "clear", "--sim", "--dry-run", "--json").out) == would
    named = json.loads(alpacli("cache", "clear", "orders", "--sim", "--dry-run", "--json").out)
    assert named["entries"] == {"orders": 2}
    assert json.loads(alpacli("cache", "clear", "--sim", "--json").out) == {"cleared": 4}


def test_the_demo_on_a_used_exchange_says_what_is_lost_keeps_the_market_and_forgets_the_cache(alpacli: Alpacli) -> None:
    assert alpacli("sim", "reset", "--yes", "--seed", "7", "--hours", "xnys", "--cash", "70000").code == 0
    assert alpacli("demo").code == 0
    assert alpacli("account", "--sim", "--json").code == 0  # cached from here on
    before = json.loads(alpacli("account", "--sim", "--json", "--max-age", "60").out)
    asked = alpacli("demo")
    assert asked.code == 2
    assert "10 positions and 24 orders" in asked.errors
    assert json.loads(alpacli("account", "--sim", "--json", "--max-age", "60").out) == before
    assert alpacli("demo", "--yes").code == 0
    state = json.loads(alpacli("sim", "status", "--json").out)
    assert (state["seed"], state["hours"], state["cash"]) == (7, "xnys", 70000)
    assert json.loads(alpacli("cache", "stats", "--sim", "--json").out)["entries"] == 0
    assert alpacli("account", "--sim", "--max-age", "60").code == 0
    assert alpacli("sim", "reset", "--yes").code == 0
    assert json.loads(alpacli("account", "--sim", "--json", "--max-age", "60").out)["equity"] == 100000


def test_help_and_version_answer_without_keys(alpacli: Alpacli) -> None:
    bare = alpacli()
    assert bare.code == 0
    assert bare.out == alpacli("--help").out
    assert alpacli("watchlist").out == alpacli("watchlist", "--help").out
    for name in ("account", "watchlist", "cache", "portfolio", "demo"):
        assert name in bare.text
    assert alpacli("--version").text.startswith("alpacli ")
    for name in ("account", "orders", "watchlist", "watchlist delete", "sim serve"):
        shown = alpacli(*name.split(), "--help")
        assert shown.code == 0
        assert "Usage" in shown.text


def test_a_plain_answer_loads_no_library_that_it_does_not_need(demo: Alpacli) -> None:
    demo("account", "--sim", "--json")
    env: dict[str, str | None] = {"PYTHONPROFILEIMPORTTIME": "1"}
    cached = demo("account", "--sim", "--json", "--max-age", "3600", env=env).errors
    for name in ("typer", "pydantic", "json", "dataclasses", "pathlib", "urllib", "logging"):
        assert not any(line.split("|")[-1].strip() == name for line in cached.splitlines()), name
    fresh = demo("account", "--sim", "--json", "--refresh", env=env).errors
    for name in ("rich.console", "plotext", "pandas", "alpaca.trading"):
        assert not any(line.split("|")[-1].strip() == name for line in fresh.splitlines()), name
    since = demo("orders", "--sim", "--json", "--after", "-5d", env=env).errors
    assert "alpacli.cli.times" in since
    assert not any(line.split("|")[-1].strip().startswith("rich.") for line in since.splitlines())


# ------------------------------------------------------------------------------------------- again and again, and serving


def test_watch_off_a_terminal_prints_again_until_the_reader_leaves(demo: Alpacli) -> None:
    ended = demo.shell("{ $ALPACLI account --sim --json --refresh --watch 0.1; echo $? >&2; } | head -n 3")
    assert ended.err == b"0\n"
    assert [json.loads(line)["status"] for line in ended.text.splitlines()] == ["ACTIVE"] * 3


def test_watch_goes_on_after_an_outage_and_says_so(alpacli: Alpacli) -> None:
    with Origin() as origin:
        origin.reply("/v2/account", *[Reply(status=503, body={"message": "down"})] * 3, Reply(body=ACCOUNT))
        script = "$ALPACLI account --json --watch 0.1 --refresh --max-wait 30 | head -n 1"
        ended = alpacli.shell(script, env=on(origin))
        assert json.loads(ended.out)["status"] == "ACTIVE"
        assert "trying again" in ended.errors


def test_positions_that_are_not_held_are_named_as_they_were_asked_for(alpacli: Alpacli) -> None:
    ended = alpacli("positions", "btc/usd", "../x", "--sim")
    assert ended.code == 4
    assert "there is no open position in BTC/USD, ../X\n" in ended.errors


@pytest.mark.parametrize(("stop", "ends"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_what_is_stopped_while_waiting_ends_with_the_signals_code_without_a_traceback(
    alpacli: Alpacli, stop: signal.Signals, ends: int
) -> None:
    with Origin() as origin:
        origin.reply("/v2/account", Reply(fault="hang"))
        process = subprocess.Popen(
            [PROGRAM, "account"],
            env=alpacli.environment(on(origin)),
            cwd=alpacli.cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with process:
            deadline = time.monotonic() + DEADLINE_S
            while not origin.requests and time.monotonic() < deadline:
                time.sleep(0.01)
            process.send_signal(stop)
            out, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, out) == (ends, b"")
    assert b"Traceback" not in err


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(
    "command",
    [
        ("account", "--sim", "--jq", "def f: f; f"),
        ("data", "sql", "--sim", "select count(*) from range(1000000000) a, range(1000000) b"),
    ],
    ids=["jq", "sql"],
)
def test_what_computes_without_end_is_stopped_at_once(
    alpacli: Alpacli, command: tuple[str, ...], stop: signal.Signals
) -> None:
    """In C, where Python hears no signal until it is over."""
    process = alpacli.start(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        time.sleep(1)  # whether it computes already cannot be seen; stopped before, it ends too
        process.send_signal(stop)
        assert process.wait(DEADLINE_S) in (-stop, 128 + stop)
    finally:
        process.kill()
        process.communicate()


def test_the_served_exchange_answers_the_same_program_and_ends_with_exit_0(alpacli: Alpacli) -> None:
    process = subprocess.Popen(
        [PROGRAM, "sim", "serve", "--port", "0", "--quiet"],
        env=alpacli.environment(),
        cwd=alpacli.cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        url = process.stdout.readline().decode().strip()
        keys: dict[str, str | None] = {"ALPACA_BASE_URL": url, "ALPACA_API_KEY": "PKME", "ALPACA_SECRET_KEY": "s"}
        answer = alpacli("account", "--json", env=keys)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=DEADLINE_S)
    assert json.loads(answer.out)["status"] == "ACTIVE", answer.errors
    assert process.returncode == 0


def test_the_lines_that_a_served_exchange_prints_point_a_shell_at_all_of_it(alpacli: Alpacli) -> None:
    process = alpacli.start(["sim", "serve", "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        url = process.stdout.readline().decode().strip()
        said = [process.stderr.readline().decode() for _ in range(5)]
        lines = [line.strip() for line in said if line.startswith("  export ")]
        commands = ("account --json", "quote AAPL --json", "stream AAPL --count 1 --no-hub", "config show --json")
        ended = alpacli.shell("\n".join([*lines, *(f"$ALPACLI {command} || exit" for command in commands)]))
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=DEADLINE_S)
    assert ended.code == 0, ended.errors
    assert "market data" not in ended.errors
    account, quote, _, config = (json.loads(line) for line in ended.text.splitlines())
    assert account["status"] == "ACTIVE"
    assert quote[0]["symbol"] == "AAPL"
    urls = {row["name"]: row["value"] for row in config if row["name"].endswith("_URL")}
    assert urls == {
        "ALPACA_BASE_URL": url,
        "ALPACA_DATA_URL": url,
        "ALPACA_STREAM_URL": url.replace("http", "ws"),
        "REDIS_URL": "",
    }
    assert all(len(line) < 80 for line in said[1:])


def test_market_data_of_alpaca_beside_a_broker_of_this_machine_is_told_before_it_is_asked(alpacli: Alpacli) -> None:
    nobody = "http://127.0.0.1:9"  # what would reach Alpaca ends here
    with Origin() as origin:
        env = {**on(origin), "ALPACA_DATA_URL": None, "ALPACA_STREAM_URL": None, "HTTPS_PROXY": nobody}
        origin.reply("/v2/clock", Reply(body={"timestamp": "2026-01-05T10:00:00Z", "is_open": False}))
        assert "market data" not in alpacli("clock", env=env).errors
        asked = alpacli("quote", "AAPL", "--timeout", "1", env=env)
        assert asked.errors.count("market data comes from https://data.alpaca.markets") == 1
        assert "set ALPACA_DATA_URL too" in asked.errors
        meant = alpacli(
            "quote", "AAPL", "--timeout", "1", env={**env, "ALPACA_DATA_URL": "https://data.alpaca.markets"}
        )
        assert "set ALPACA_DATA_URL" not in meant.errors
        found = {line["check"]: line for line in json.loads(alpacli("doctor", "--json", env=env).out)}
        assert found["settings"]["status"] == "warn"
        assert "ALPACA_DATA_URL and ALPACA_STREAM_URL" in found["settings"]["fix"]


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999"])
def test_a_number_that_is_none_is_wrong_usage_or_harmless(alpacli: Alpacli, value: str) -> None:
    for option in ("--max-age", "--max-wait", "--timeout", "--watch"):
        ended = alpacli("clock", "--sim", f"{option}={value}")
        assert ended.code == 2, (option, ended)
