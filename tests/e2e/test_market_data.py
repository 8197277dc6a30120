"""Market history from the installed command: every format, and everything that can happen to a download."""

import csv
import io
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.support.alpacli import Alpacli
from tests.support.history import History, environment, sessions
from tests.support.origin import Origin, Reply
from tests.support.terminal import Terminal

ROWS = sessions("2026-01-05", 600)
WHEN = ("--start", "2026-01-05", "--end", "2026-03-15")


class Place:
    """A host with a history, and a user of it."""

    def __init__(self, origin: Origin, folder: Path) -> None:
        self.host = History(page=50)
        self.host.serve(origin)
        self.host.put("AAPL", ROWS)
        self.host.put("MSFT", ROWS[:70])
        self.alpacli = Alpacli(folder, environment(origin, folder / "state"))
        self.out = self.alpacli.cwd

    def start(self, *arguments: str) -> "subprocess.Popen[bytes]":
        return self.alpacli.start(
            arguments,
            cwd=self.out,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with Origin() as origin:
        yield Place(origin, tmp_path)


def times(text: str) -> list[str]:
    return [row["timestamp"] for row in csv.DictReader(io.StringIO(text))]


def test_every_format_holds_the_same_rows_and_the_second_time_nothing_is_asked(place: Place) -> None:
    told = place.alpacli("bars", "MSFT", "AAPL", *WHEN, "-o", "bars.csv")
    assert told.code == 0, told.errors
    assert told.out == b""
    assert "sip" in told.errors
    assert "670 rows in bars.csv" in told.errors
    asked = len(place.host.asked)
    rows = list(csv.DictReader(io.StringIO((place.out / "bars.csv").read_text())))
    assert [row["symbol"] for row in rows] == ["MSFT"] * 70 + ["AAPL"] * 600
    assert rows[70] == {
        "symbol": "AAPL", "timestamp": "2026-01-05T14:30:00Z", "open": "100", "high": "100.25", "low": "100",
        "close": "100.25", "volume": "1200", "trade_count": "7", "vwap": "100",
    }  # fmt: skip
    for name in ("bars.jsonl", "bars.parquet", "bars.arrow", "bars.json", "bars.tsv"):
        assert place.alpacli("bars", "MSFT", "AAPL", *WHEN, "-o", name).code == 0
    assert len(place.host.asked) == asked
    lines = [json.loads(line) for line in (place.out / "bars.jsonl").read_text().splitlines()]
    assert json.loads((place.out / "bars.json").read_text()) == lines
    assert [str(row["close"]).removesuffix(".0") for row in lines] == [row["close"] for row in rows]
    parquet = pq.read_table(place.out / "bars.parquet")
    with pa.OSFile(str(place.out / "bars.arrow")) as file, pa.ipc.open_stream(file) as stream:
        assert stream.read_all().equals(parquet)
    assert parquet.column("close").to_pylist() == [float(row["close"]) for row in rows]
    assert len((place.out / "bars.tsv").read_text().splitlines()) == 671
    assert sorted(path.name for path in place.out.iterdir()) == sorted(
        ["bars.csv", "bars.jsonl", "bars.parquet", "bars.arrow", "bars.json", "bars.tsv"]
    )


def test_what_the_doubles_of_a_format_round_is_said(place: Place) -> None:
    place.host.spoil = lambda number, query, answer: Reply(
        body=json.dumps(answer).encode().replace(b'"o": 100.0,', b'"o": 100.01234567890123456789,')
    )
    said = place.alpacli("bars", "MSFT", *WHEN, "-o", "bars.parquet")
    rounded = (
        pq.read_table(place.out / "bars.parquet").column("open").to_pylist().count(float("100.01234567890123456789"))
    )
    assert rounded >= 2
    assert f"{rounded} numbers have more digits" in said.errors
    exact = place.alpacli("bars", "MSFT", *WHEN, "--csv")
    assert exact.text.count(",100.01234567890123456789,") == rounded
    assert "digits" not in exact.errors


def test_in_a_pipe_it_is_tab_separated_and_the_common_options_hold(place: Place) -> None:
    piped = place.alpacli("bars", "MSFT", *WHEN, "--fields", "timestamp,close", "--quiet")
    assert piped.errors == ""
    assert piped.text.splitlines()[:2] == ["timestamp\tclose", "2026-01-05T14:30:00Z\t100.25"]
    assert place.alpacli("bars", "MSFT", *WHEN, "--jq", "map(.volume) | add").text == "84000\n"
    assert len(json.loads(place.alpacli("bars", "MSFT", *WHEN, "--json").out)) == 70
    assert place.alpacli("bars", "MSFT", *WHEN, "--csv").text.startswith("symbol,timestamp,open")
    none = place.alpacli("bars", "NONE", "MSFT", *WHEN, "--json", "--no-store")
    assert len(json.loads(none.out)) == 70
    assert "no bars of NONE in that time" in none.errors
    assert place.alpacli("bars", "NONE", *WHEN, "--json", "--no-store").text == "[]\n"
    assert place.alpacli("bars", "NONE", *WHEN, "--csv").text.startswith("symbol,timestamp,open")
    assert "open" in place.alpacli("bars", "X", "--schema").text
    head = place.alpacli.shell(f"$ALPACLI bars AAPL {' '.join(WHEN)} --csv | head -1")
    assert (head.code, head.text[:6]) == (0, "symbol")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["bars", "AAPL", "--start", "soon"], "no time"),
        (["bars", "AAPL", "--timeframe", "90Min"], "no timeframe"),
        (["bars", "AAPL", "--format", "xlsx"], "no format"),
        (["bars", "AAPL", "-o", "bars.xlsx"], "does not say which format"),
        (["bars", "AAPL", "--format", "csv", "--json"], "cannot be combined"),
        (["bars", "AAPL", "--limit", "0"], "--limit"),
        (["bars", "A A"], "not a symbol"),
        (["bars", "AAPL", "--fields", "price"], "no field"),
        (["bars", "AAPL", "--chart", "--csv"], "--chart"),
        (["bars", "AAPL", "--start", "2026-01-05", "--end", "2026-01-04"], "before"),
        (["bars", "AAPL", "--start", "2200-01-01"], "in the future"),
        (["quotes", "AAPL260116C00150000", "--start", "-5d"], "option quotes"),
        (["data", "sql", "drop table bars"], "one SELECT"),
        (["data", "sql", "select * from read_csv('/etc/passwd')"], "DuckDB"),
        (["data", "prune", "--older-than", "soon"], "--older-than"),
    ],
)
def test_wrong_usage_is_refused_before_anything_is_asked(place: Place, arguments: list[str], says: str) -> None:
    ended = place.alpacli(*arguments)
    assert ended.code == 2, ended.errors
    assert says in ended.errors
    assert place.host.asked == []


@pytest.mark.parametrize(("stop", "ends"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_download_that_is_stopped_loses_nothing_and_leaves_no_half_file(
    place: Place, stop: signal.Signals, ends: int
) -> None:
    def spoil(number: int, query: dict[str, str], answer: dict[str, Any]) -> Reply | None:
        return Reply(body=answer, delay_s=0.0 if number < 8 else 20.0)

    place.host.spoil = spoil
    running = place.start("bars", "AAPL", *WHEN, "-o", "bars.csv")
    wait_until(lambda: len(place.host.asked) >= 8)
    running.send_signal(stop)
    _, errors = running.communicate(timeout=30)
    assert running.returncode == ends
    assert b"is kept" in errors
    assert list(place.out.iterdir()) == []
    place.host.spoil = None
    place.host.asked.clear()
    assert place.alpacli("bars", "AAPL", *WHEN, "-o", "bars.csv").code == 0
    assert times((place.out / "bars.csv").read_text()) == [row["t"] for row in ROWS]
    assert place.host.asked[0]["start"] == ROWS[349]["t"]


@pytest.mark.parametrize("pages", [1, 5, 9])
def test_kill_9_at_any_page_leaves_a_store_that_is_right(place: Place, pages: int) -> None:
    place.host.spoil = lambda number, query, answer: Reply(body=answer, delay_s=0.0 if number <= pages else 20.0)
    running = place.start("bars", "AAPL", *WHEN, "--csv")
    wait_until(lambda: len(place.host.asked) > pages)
    running.kill()
    running.communicate(timeout=30)
    place.host.spoil = None
    place.host.asked.clear()
    verified = json.loads(place.alpacli("data", "verify", "--json").out)
    assert verified["broken"] == []
    again = place.alpacli("bars", "AAPL", *WHEN, "--csv")
    assert times(again.text) == [row["t"] for row in ROWS]
    if pages > 5:
        assert place.host.asked[0]["start"] > "2026-01-31", "the whole months were kept"


def test_processes_that_download_the_same_at_once_agree(place: Place) -> None:
    running = [place.start("bars", "AAPL", "MSFT", *WHEN, "--csv") for _ in range(3)]
    ended = [(*process.communicate(timeout=60), process.returncode) for process in running]
    assert {code for _, _, code in ended} == {0}, ended
    outputs = {output for output, _, _ in ended}
    assert len(outputs) == 1
    assert times(outputs.pop().decode()) == [row["t"] for row in [*ROWS, *ROWS[:70]]]
    verified = json.loads(place.alpacli("data", "verify", "--json").out)
    assert (verified["rows"], verified["broken"]) == (670, [])


def test_a_full_disk_is_an_error_and_leaves_no_half_file(place: Place) -> None:
    bars = f"$ALPACLI bars AAPL {' '.join(WHEN)}"
    env = {"PYTHONDONTWRITEBYTECODE": "1"}  # bytecode is cut off as well, for all who come after
    ended = place.alpacli.shell(f"{bars} --quiet > /dev/null; ulimit -f 20; {bars} -o bars.csv", env)
    assert ended.code == 8, ended.errors
    assert "cannot write bars.csv" in ended.errors
    assert list(place.out.iterdir()) == []


def test_a_host_that_fails_leaves_what_came_and_says_why(place: Place) -> None:
    place.host.spoil = lambda number, query, answer: Reply(500, {"message": "oops"}) if number > 3 else None
    ended = place.alpacli("bars", "AAPL", *WHEN, "--csv", "--json", env={"ALPACLI_MAX_WAIT": "0"})
    assert ended.code == 2
    ended = place.alpacli("bars", "AAPL", *WHEN, "-o", "bars.csv", env={"ALPACLI_MAX_WAIT": "0"})
    assert ended.code == 6, ended.errors
    assert list(place.out.iterdir()) == []
    (kept,) = json.loads(place.alpacli("data", "ls", "--json").out)
    assert kept["rows"] == 149, "the last row of a chain that broke off is not certain"


def test_a_spent_budget_is_waited_for_unless_max_wait_says_otherwise(place: Place) -> None:
    short = {"ALPACLI_RATE_LIMIT": "5", "ALPACLI_RATE_RESERVE": "0", "ALPACLI_RATE_WINDOW": "1"}
    assert place.alpacli("bars", "AAPL", *WHEN, "--csv", "--max-wait", "0", env=short).code == 5
    patient = place.alpacli("bars", "AAPL", *WHEN, "--csv", env={**short, "ALPACLI_MAX_WAIT": "0"})
    assert patient.code == 0, patient.errors
    assert len(times(patient.text)) == 600


def test_what_is_kept_can_be_seen_queried_and_removed(place: Place) -> None:
    assert json.loads(place.alpacli("data", "ls", "--json").out) == []
    assert place.alpacli("data", "sql", "select count(*) n from bars", "--json").text == '[{"n":0}]\n'
    place.alpacli("bars", "AAPL", "MSFT", *WHEN, "--quiet")
    kept = json.loads(place.alpacli("data", "ls", "--json").out)
    assert [(row["symbol"], row["rows"], row["feed"], row["timeframe"]) for row in kept] == [
        ("AAPL", 600, "sip", "1Min"), ("MSFT", 70, "sip", "1Min"),
    ]  # fmt: skip
    query = "select symbol, count(*) n, min(timestamp) since, sum(volume) v, feed from bars group by all order by 1"
    assert json.loads(place.alpacli("data", "sql", query, "--json").out)[1] == {
        "symbol": "MSFT", "n": 70, "since": "2026-01-05T14:30:00Z", "v": 84000.0, "feed": "sip",
    }  # fmt: skip
    assert place.alpacli("data", "sql", "select close from bars where false", "--csv").text == "close\n"
    assert place.alpacli("data", "prune", "--all").code == 2
    dry = place.alpacli("data", "prune", "MSFT", "--dry-run", "--json")
    assert json.loads(dry.out)["files"] == 1
    assert json.loads(place.alpacli("data", "prune", "MSFT", "--yes", "--json").out)["files"] == 1
    assert place.alpacli("data", "prune", "--older-than", "1d", "--yes", "--jq", ".files").text == "0\n"
    assert place.alpacli("data", "prune", "--older-than", "1h", "--yes", "--jq", ".files").text == "0\n"
    (left,) = json.loads(place.alpacli("data", "ls", "--json").out)
    assert left["symbol"] == "AAPL"
    end = "2026-01-05T15:10:00.25Z"
    assert place.alpacli("bars", "MSFT", "--start", "2026-01-05", "--end", end, "--quiet").code == 0
    (again,) = json.loads(place.alpacli("data", "ls", "MSFT", "--json").out)
    assert again["end"] == end, "not a nanosecond later"
    for file in place.alpacli.state.rglob("MSFT/*.parquet"):
        os.utime(file, (0, 0))
    assert place.alpacli("data", "prune", "--older-than", "1h", "--yes", "--jq", ".files").text == "1\n"
    path, *_ = place.alpacli.state.rglob("AAPL/*.parquet")
    path.write_bytes(path.read_bytes()[:100])
    broken = place.alpacli("data", "verify")
    assert broken.code == 1
    assert str(path) in broken.text
    assert place.alpacli("data", "verify", "--repair").code == 0
    assert not os.path.exists(path)


def test_nothing_is_kept_where_that_is_said(place: Place) -> None:
    assert place.alpacli("bars", "AAPL", *WHEN, "--no-store", "--quiet").code == 0
    assert json.loads(place.alpacli("data", "ls", "--json").out) == []


def test_refresh_asks_for_everything_again_and_keeps_the_new_rows(place: Place) -> None:
    place.alpacli("bars", "MSFT", *WHEN, "--quiet")
    place.host.put("MSFT", [{**ROWS[0], "c": 321.5}])
    assert len(times(place.alpacli("bars", "MSFT", *WHEN, "--csv").text)) == 70
    assert times(place.alpacli("bars", "MSFT", *WHEN, "--csv", "--refresh").text) == [ROWS[0]["t"]]
    assert place.alpacli("bars", "MSFT", *WHEN, "--jq", ".[].close").text == "321.5\n"


def test_prices_headlines_and_candles_of_the_offline_exchange(tmp_path: Path) -> None:
    alpacli = Alpacli(tmp_path)
    both = json.loads(alpacli("quote", "AAPL", "BTC/USD", "--sim", "--json").out)
    assert [row["symbol"] for row in both] == ["AAPL", "BTC/USD"]
    assert both[0]["latestQuote"]["bp"] < both[0]["latestQuote"]["ap"]
    flat = alpacli("quote", "AAPL", "--sim", "--fields", "symbol,bid_price,ask_price,close").text.splitlines()
    assert flat[0] == "symbol\tbid_price\task_price\tclose"
    assert alpacli("quote", "NOPE", "--sim").code == 4
    news = json.loads(alpacli("news", "--sim", "--start", "-5d", "--limit", "60", "--json").out)
    assert len({article["id"] for article in news}) == 60
    drawn = alpacli("bars", "AAPL", "--sim", "--start", "-30min", "--chart", env={"FORCE_COLOR": "1", "COLUMNS": "100"})
    assert drawn.code == 0, drawn.errors
    assert "█" in drawn.text
    assert "SIM" in drawn.text
    trades = alpacli("trades", "AAPL", "--sim", "--limit", "5", "--format", "jsonl")
    assert len(trades.text.splitlines()) == 5


def test_progress_is_gone_before_the_rows_are_drawn(place: Place) -> None:
    place.host.spoil = lambda number, query, answer: Reply(body=answer, delay_s=0.2)
    terminal = Terminal(place.alpacli, "bars", "AAPL", *WHEN, lines=100)
    try:
        assert terminal.shows(lambda lines: any("rows ━" in line for line in lines))
        assert terminal.shows(lambda lines: "600 rows" in lines)
        assert terminal.ended()
        before = terminal.text.partition("symbol")[0]
        assert "━" not in before
        assert "%" not in before
    finally:
        terminal.close()


def wait_until(met: Any, timeout_s: float = 30.0) -> None:
    give_up = time.monotonic() + timeout_s
    while not met():
        assert time.monotonic() < give_up
        time.sleep(0.01)


@pytest.mark.parametrize("symbols", [("BTC/USD",), ("BTC/USD", "AAPL"), ("AAPL",)])
def test_bars_of_named_days_are_those_of_these_days_wherever_a_day_begins(
    tmp_path: Path, symbols: tuple[str, ...]
) -> None:
    days = ("--start", "2026-01-06", "--end", "2026-01-07")
    found = Alpacli(tmp_path)("bars", *symbols, "--timeframe", "1Day", *days, "--sim", "--format", "csv")
    rows = csv.DictReader(io.StringIO(found.text))
    begin = {"BTC/USD": "00:00:00Z", "AAPL": "05:00:00Z"}
    assert [(row["symbol"], row["timestamp"]) for row in rows] == [
        (symbol, f"{day}T{begin[symbol]}") for symbol in symbols for day in ("2026-01-06", "2026-01-07")
    ]
