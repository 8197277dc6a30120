"""The history commands as cron and people run them: the installed program, real processes, the offline exchange."""

import csv
import datetime as dt
import io
import json
import os
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow.parquet as pq
import pytest
from tests.support.alpacli import PROGRAM, Alpacli
from tests.support.broker_book import BrokerBook, fill, order
from tests.support.origin import Origin, Reply, Seen
from tests.support.terminal import Terminal

from alpacli.ports import Request

KEYS = {"ALPACA_API_KEY": "PKHISTORY", "ALPACA_SECRET_KEY": "history-secret"}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Alpacli:
    """Give an account with weeks of trades, synced once; tests of this module only read it."""
    paper = Alpacli(tmp_path_factory.mktemp("demo"))
    assert paper("demo", "--yes").code == 0
    assert paper("history", "sync", "--sim").code == 0
    return paper


@pytest.fixture
def paper(tmp_path: Path) -> Alpacli:
    return Alpacli(tmp_path)


def _json(paper: Alpacli, *words: str) -> Any:
    done = paper(*words, "--json")
    assert (done.code, done.errors) == (0, ""), done.errors
    return json.loads(done.out)


def _archive(paper: Alpacli) -> sqlite3.Connection:
    (path,) = (paper.state / "history").glob("*.sqlite")
    return sqlite3.connect(path)


def _count(paper: Alpacli, table: str) -> int:
    db = _archive(paper)
    ((count,),) = db.execute(f"SELECT count(*) FROM {table}")
    db.close()
    return int(count)


# -------------------------------------------------------------------------------------------------- snapshots


def test_a_snapshot_in_cron_says_nothing_and_the_second_of_a_period_adds_nothing(paper: Alpacli) -> None:
    for _ in range(2):
        done = paper("snapshot", "--sim", "--every", "1d")
        assert (done.code, done.out, done.err) == (0, b"", b"")
    assert _count(paper, "snapshots") == 1
    first = _json(paper, "snapshot", "--sim", "--every", "1d")
    assert first == _json(paper, "history", "snapshots", "--at", "2100-01-01", "--sim", "--quiet")
    assert first["account"]["equity"] == 100_000


def test_eight_that_overlap_make_one_record(paper: Alpacli) -> None:
    env, words = paper.environment(), [PROGRAM, "snapshot", "--sim", "--every", "999d", "--json"]
    running = [
        subprocess.Popen(words, env=env, cwd=paper.cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(8)
    ]
    said = {one.communicate(timeout=60) for one in running}
    assert [one.returncode for one in running] == [0] * 8
    assert len(said) == 1
    assert _count(paper, "snapshots") == 1


def test_killed_at_any_moment_the_record_is_whole_and_the_next_one_works(paper: Alpacli) -> None:
    for delay_s in (0.1, 0.3, 0.5, 0.7):
        words = [PROGRAM, "snapshot", "--sim", "--every", "1s"]
        process = subprocess.Popen(words, env=paper.environment(), cwd=paper.cwd)
        time.sleep(delay_s)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    assert paper("snapshot", "--sim", "--every", "1s").code == 0
    db = _archive(paper)
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    whole = db.execute("SELECT count(*) FROM snapshots LEFT JOIN snapshot_texts USING (seq) WHERE packed IS NULL")
    assert whole.fetchone() == (0,)
    db.close()


def test_while_the_market_is_closed_nothing_is_recorded_where_that_was_asked_for(paper: Alpacli) -> None:
    book = BrokerBook()
    with _served(book) as origin:
        clock = {
            "timestamp": "2026-11-26T12:00:00-05:00",
            "is_open": False,
            "next_open": "2099-11-27T09:30:00-05:00",
            "next_close": "2099-11-27T13:00:00-05:00",
        }
        origin.reply("/v2/clock", Reply(body=clock))
        done = paper("snapshot", "--only-if-open", env={**KEYS, "ALPACA_BASE_URL": origin.url})
        assert (done.code, done.out, done.err) == (0, b"", b"")
    assert not (paper.state / "history").exists()


def test_what_is_no_exchange_is_recorded_at_this_machines_time_and_asked_for_its_run_once(paper: Alpacli) -> None:
    with _served(BrokerBook()) as origin:
        env = {**KEYS, "ALPACA_BASE_URL": origin.url}
        before = time.time()
        done = paper("snapshot", "--json", env=env)
        assert before - 1 < dt.datetime.fromisoformat(json.loads(done.out)["at"]).timestamp() < time.time() + 1
        assert [seen.path for seen in origin.requests].count("/sim/run") == 1


@pytest.mark.parametrize(
    ("words", "code"), [((), 3), (("--every", "soon", "--sim"), 2), (("--max-age", "5", "--sim"), 2)]
)
def test_exit_codes_tell_cron_what_is_wrong(paper: Alpacli, words: tuple[str, ...], code: int) -> None:
    done = paper("snapshot", *words)
    assert (done.code, done.out) == (code, b"")
    assert "error" in done.errors


def test_a_broker_that_is_down_is_exit_6_and_no_record(paper: Alpacli) -> None:
    with Origin() as origin:
        origin.reply("/v2/account", Reply(503, b"<html>"))
        done = paper("snapshot", "--max-wait", "0", env={**KEYS, "ALPACA_BASE_URL": origin.url})
    assert done.code == 6
    assert not (paper.state / "history").exists()


def test_install_prints_a_line_and_with_yes_puts_it_into_the_crontab(paper: Alpacli) -> None:
    fake = paper.home / "bin" / "crontab"
    fake.parent.mkdir()
    table = paper.home / "table"
    fake.write_text(f'#!/bin/sh\nif [ "$1" = -l ]; then cat "{table}" 2>/dev/null || :; else cat > "{table}"; fi\n')
    fake.chmod(0o755)
    env = {**KEYS, "PATH": f"{fake.parent}:/usr/bin:/bin"}
    shown = paper("snapshot", "install", "--every", "5m", "--only-if-open", env=env)
    assert shown.code == 0
    assert shown.text.startswith("*/5 * * * * ")
    assert "--only-if-open" in shown.text
    assert "history-secret" not in shown.text + shown.errors
    assert not table.exists()
    done = paper("snapshot", "install", "--every", "5m", "--only-if-open", "--yes", env=env)
    assert (done.code, table.read_text()) == (0, shown.text)
    assert "history-secret" not in done.text + done.errors


def test_a_snapshot_on_a_terminal_tells_what_was_recorded(paper: Alpacli) -> None:
    with closing(Terminal(paper, "snapshot", "--sim", columns=80)) as terminal:
        assert terminal.ended()
        assert "Recorded" in terminal.text
        assert "Open orders" in terminal.text


# ------------------------------------------------------------------------------------------------------- sync


class _served:  # noqa: N801 # used like a function
    """Serve a ``BrokerBook`` over HTTP."""

    def __init__(self, book: BrokerBook) -> None:
        self._book = book
        self._origin = Origin()

    def __enter__(self) -> Origin:
        def respond(seen: Seen) -> Reply:
            query = tuple((name, value) for name, values in seen.query.items() for value in values)
            request = Request("GET", seen.path, query)
            response = self._book.send(request, connect_timeout_s=1, read_timeout_s=1)
            return Reply(response.status, response.body)

        for path in ("/v2/account", "/v2/positions", "/v2/orders", "/v2/clock"):
            self._origin.answer(path, respond)
        return self._origin

    def __exit__(self, *_: object) -> None:
        self._origin.close()


def test_a_sync_that_is_killed_again_and_again_ends_whole(paper: Alpacli) -> None:
    count = 1_800
    at = [f"2026-05-{1 + n // 500:02d}T10:{n // 60 % 60:02d}:{n % 60:02d}Z" for n in range(count)]
    book = BrokerBook([order(n, at[n]) for n in range(count)], [fill(n, at[n]) for n in range(count)])
    book.account["created_at"] = "2026-04-30T00:00:00Z"
    with _served(book) as origin:
        env = {**KEYS, "ALPACA_BASE_URL": origin.url, "ALPACLI_RATE_LIMIT": "100000"}
        for delay_s in (0.5, 0.55, 0.6, 0.7, 0.9):
            words = [PROGRAM, "history", "sync", "--quiet"]
            process = subprocess.Popen(words, env=paper.environment(env), cwd=paper.cwd)
            time.sleep(delay_s)
            process.send_signal(signal.SIGKILL)
            process.wait(10)
        report = json.loads(paper("history", "sync", "--json", env=env).out)
    assert (report["orders"], report["activities"], report["unresolved"]) == (count, count, [])
    db = _archive(paper)
    assert db.execute("SELECT count(DISTINCT id) FROM orders").fetchone() == (count,)
    db.close()


def test_a_second_sync_of_a_quiet_account_sends_a_handful_of_requests(demo: Alpacli) -> None:
    report = _json(demo, "history", "sync", "--sim")
    assert report["requests"] <= 7
    assert (report["orders_changed"], report["activities_changed"], report["unresolved"]) == (0, 0, [])


def test_without_any_history_the_commands_say_what_brings_it(paper: Alpacli) -> None:
    done = paper("history", "orders", "--sim")
    assert (done.code, done.out) == (2, b"")
    assert "alpacli history sync" in done.errors


def test_an_exchange_that_begins_anew_has_a_history_of_its_own(paper: Alpacli) -> None:
    assert paper("demo", "--yes").code == 0
    assert _json(paper, "history", "sync", "--sim")["orders"] > 10
    assert paper("sim", "reset", "--yes", "--seed", "9").code == 0
    done = paper("history", "sync", "--sim", "--json")
    assert json.loads(done.out)["orders"] == 0
    assert "another account" in done.errors
    assert len(list((paper.state / "history").glob("*.sqlite"))) == 2


def test_a_sync_on_a_terminal_shows_how_far_it_has_come(paper: Alpacli) -> None:
    count = 1_200
    at = [f"2026-05-0{1 + n // 300}T10:{n // 60 % 60:02d}:{n % 60:02d}Z" for n in range(count)]
    book = BrokerBook([order(n, at[n]) for n in range(count)], [fill(n, at[n]) for n in range(count)])
    with _served(book) as origin:
        env = {**KEYS, "ALPACA_BASE_URL": origin.url, "ALPACLI_RATE_LIMIT": "100000"}
        user = Alpacli(paper.cwd.parent, env)
        with closing(Terminal(user, "history", "sync", lines=30)) as terminal:
            assert terminal.ended()
            assert "1,200, new or changed 1,200" in terminal.text


# ---------------------------------------------------------------------------------------------------- queries


def test_the_same_orders_come_as_json_csv_tsv_and_jq(demo: Alpacli) -> None:
    rows = _json(demo, "history", "orders", "--limit", "all", "--sim")
    from_broker = _json(demo, "orders", "--limit", "all", "--sim")
    assert sorted(row["id"] for row in rows) == sorted(row["id"] for row in from_broker)
    table = list(csv.DictReader(io.StringIO(demo("history", "orders", "--limit", "all", "--csv", "--sim").text)))
    assert [row["id"] for row in table] == [row["id"] for row in rows]
    lines = demo("history", "orders", "--limit", "all", "--fields", "id,symbol", "--sim").text.splitlines()
    assert lines[1:] == [f"{row['id']}\t{row['symbol']}" for row in rows]
    symbols = demo("history", "orders", "--limit", "all", "--jq", ".[].symbol", "--sim").text.split()
    assert symbols == [row["symbol"] for row in rows]


def test_orders_and_fills_are_filtered(demo: Alpacli) -> None:
    sold = _json(demo, "history", "fills", "--side", "sell", "--symbol", "AAPL,TSLA", "--sim")
    assert {(row["side"], row["symbol"]) for row in sold} == {("sell", "AAPL"), ("sell", "TSLA")}
    waiting = _json(demo, "history", "orders", "--status", "open", "--sim")
    assert {row["status"] for row in waiting} <= {"new", "held"}
    assert _json(demo, "history", "activities", "--until", "2000-01-01", "--sim") == []
    money = _json(demo, "history", "activities", "--type", "csd,jnlc", "--sim")
    assert [row["net_amount"] for row in money] == [100_000]


@pytest.mark.parametrize(
    "command",
    [
        "orders --sim --until {}",
        "activities --sim --until {}",
        "activities --sim --date {}",
        "portfolio --sim --start -30d --end {}",
        "calendar --sim --start {}",
        "history orders --sim --since {}",
        "history fills --sim --until {}",
        "history closed --sim --since {}",
        "history positions --sim --at {}",
        "history pnl --sim --until {}",
        "history equity --sim --since {}",
    ],
)
def test_times_are_written_alike_in_every_command(demo: Alpacli, command: str) -> None:
    there = ZoneInfo("America/New_York")
    midnight = dt.datetime.combine(dt.datetime.now(there).date() - dt.timedelta(20), dt.time(), there)
    date, moment = midnight.date().isoformat(), midnight.isoformat()
    answers = [demo(*command.format(text).split(), "--json") for text in (date, moment, "-20d")]
    assert [answer.code for answer in answers] == [0, 0, 0], [answer.errors for answer in answers]
    assert len({answer.out for answer in answers}) == 1
    refused = demo(*command.format("soon").split(), "--json")
    assert (refused.code, "'soon', which is no time" in refused.errors) == (2, True)


def test_what_was_cut_off_is_said(demo: Alpacli) -> None:
    done = demo("history", "fills", "--limit", "2", "--json", "--sim")
    assert len(json.loads(done.out)) == 2
    assert "--limit all" in done.errors


def test_profit_and_loss_agrees_with_the_account_to_the_cent_that_fills_are_rounded_by(demo: Alpacli) -> None:
    whole = _json(demo, "history", "pnl", "--sim")
    agreed = whole["reconciliation"]
    assert abs(agreed["difference"]) <= 0.005 * len(_json(demo, "history", "fills", "--sim"))
    assert agreed["positions"] == []
    for by in ("symbol", "day", "month"):
        rows = _json(demo, "history", "pnl", "--by", by, "--sim")["rows"]
        assert sum(row["realized"] for row in rows) == pytest.approx(whole["total"]["realized"])
        assert {by} <= rows[0].keys()
    assert demo("history", "pnl", "--by", "week", "--sim").code == 2


def test_profit_and_loss_before_a_day_is_that_of_the_days_before_it(demo: Alpacli) -> None:
    """The one snapshot there is was taken long after, as for everybody who looks back at last year."""
    days = _json(demo, "history", "pnl", "--by", "day", "--sim")["rows"]
    middle = len(days) // 2
    midnight = dt.datetime.fromisoformat(days[middle]["day"]).replace(tzinfo=ZoneInfo("America/New_York"))
    until = ("--until", midnight.isoformat(), "--sim")
    for by in ("symbol", "month"):
        then = _json(demo, "history", "pnl", "--by", by, *until)
        assert then["total"]["realized"] == pytest.approx(sum(row["realized"] for row in days[:middle]))
        assert then["total"]["total"] == pytest.approx(sum(row["total"] for row in days[:middle]))
    assert _json(demo, "history", "pnl", "--by", "day", *until)["rows"] == days[:middle]


def test_positions_at_a_time_are_those_the_fills_made(demo: Alpacli) -> None:
    now = {row["symbol"]: row["qty"] for row in _json(demo, "history", "positions", "--sim")}
    held = {row["symbol"]: row["qty"] for row in _json(demo, "positions", "--sim")}
    assert now == held
    assert _json(demo, "history", "positions", "--at", "2020-01-01", "--sim") == []


def test_equity_and_stats_span_the_same_days(demo: Alpacli, tmp_path: Path) -> None:
    days = _json(demo, "history", "equity", "--sim")
    numbers = _json(demo, "history", "stats", "--sim")
    assert (numbers["first_day"], numbers["last_day"]) == (days[0]["day"], days[-1]["day"])
    assert numbers["days"] == len(days), "the first is over the money the account began with"
    assert numbers["reconciliation"]["days"] <= 1, "one where the sync was about the close"
    later = _json(demo, "history", "stats", "--since", days[-5]["day"], "--sim")
    assert (later["first_day"], later["days"]) == (days[-5]["day"], 5), "each day's return is from the close before"
    done = demo("history", "equity", "--png", str(tmp_path / "e.png"), "--sim")
    assert (done.code, done.out) == (0, b"")
    assert (tmp_path / "e.png").read_bytes().startswith(b"\x89PNG")


def test_tables_and_the_curve_are_drawn_on_a_terminal(demo: Alpacli) -> None:
    for words, seen in [
        (["history", "pnl", "--by", "symbol"], "The account says"),
        (["history", "stats"], "Max drawdown"),
        (["history", "equity"], "from Alpaca's portfolio history"),
    ]:
        with closing(Terminal(demo, *words, "--sim", columns=120, lines=60)) as terminal:
            assert terminal.ended(), terminal.text
            assert seen in terminal.text


@pytest.mark.parametrize("what", ["orders", "closed"])
def test_what_is_exported_has_the_same_rows_in_every_format(demo: Alpacli, tmp_path: Path, what: str) -> None:
    counts = set()
    for form in ("csv", "jsonl", "parquet"):
        path = tmp_path / f"rows.{form}"
        assert demo("history", "export", what, "-o", str(path), "--sim").code == 0
        if form == "parquet":
            counts.add(pq.read_table(path).num_rows)
        else:
            counts.add(len(path.read_text().splitlines()) - (form == "csv"))
    assert len(counts) == 1
    assert counts != {0}
    piped = demo("history", "export", what, "-o", "-", "--format", "jsonl", "--sim")
    assert piped.out == (tmp_path / "rows.jsonl").read_bytes()


def test_a_report_is_written_whole(demo: Alpacli, tmp_path: Path) -> None:
    done = demo("history", "report", "--html", str(tmp_path / "r.html"), "--title", "<b>Mine</b>", "--sim")
    assert (done.code, done.out) == (0, b"")
    text = (tmp_path / "r.html").read_text()
    assert "&lt;b&gt;Mine&lt;/b&gt;" in text
    assert "Drawdown" in text
    assert "offline exchange" in text


def test_a_report_to_a_full_disk_is_an_error_and_leaves_nothing(demo: Alpacli) -> None:
    done = demo("history", "report", "--html", "/dev/full", "--sim")
    assert done.code == 8
    assert "cannot write" in done.errors


def test_each_reading_command_tells_its_schema_without_a_history(paper: Alpacli) -> None:
    for name in ("sync", "pnl", "stats"):
        done = paper("history", name, "--schema")
        assert (name, done.code) == (name, 0)
        assert "$schema" in json.loads(done.out)
    assert not os.path.exists(paper.state / "history")


def test_what_has_to_be_said_is_asked_for(demo: Alpacli) -> None:
    for words in (("export", "orders"), ("report",)):
        done = demo("history", *words, "--sim")
        assert done.code == 2
        assert "Missing option" in done.errors
