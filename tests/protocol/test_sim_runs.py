"""What is kept of an exchange here is kept of one run, by its own clock; what is no exchange goes by its address."""

import json
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from tests.support.alpacli import Alpacli
from tests.support.gateway import PAIR, Gateway
from tests.support.history import History, environment, sessions
from tests.support.origin import Origin
from tests.support.sim_server import SimServer

from alpacli.runtime import open_client
from alpacli.settings import Flags, load

NIGHT = ("--start", "2026-01-05T04:00:00-05:00", "--end", "2026-01-05T09:20:00-05:00")


def ask(url: str, body: object = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(url, data, PAIR), timeout=20) as answer:
        return json.loads(answer.read())


def user_at(url: str, folder: Path) -> Alpacli:
    keys = {"ALPACA_API_KEY": PAIR["APCA-API-KEY-ID"], "ALPACA_SECRET_KEY": PAIR["APCA-API-SECRET-KEY"]}
    return Alpacli(folder, {**keys, "ALPACA_BASE_URL": url, "ALPACA_DATA_URL": url})


class Served:
    """An exchange of its own that a process serves, its clock at half past nine of a Monday in New York, and a user of it."""

    def __init__(self, url: str, owner: Alpacli, folder: Path) -> None:
        self.url = url
        self._owner = owner
        self.user = user_at(url, folder)
        self.set_clock()

    def set_clock(self) -> None:
        ask(self.url + "/sim/clock", {"set": "2026-01-05T14:30:00Z"})

    def advance(self, seconds: int) -> None:
        ask(self.url + "/sim/clock", {"advance": seconds})

    def reset(self, *options: str) -> None:
        assert self._owner("sim", "reset", "--yes", *options).code == 0
        self.set_clock()

    def trade(self, side: str, qty: str) -> None:
        assert self.user(side, "AAPL", qty, "--yes", "--json").code == 0
        self.advance(60)

    def rows(self, *words: str) -> Any:
        done = self.user(*words, "--json")
        assert done.code == 0, done.errors
        return json.loads(done.out)

    def closes(self, *when: str) -> list[tuple[str, Any]]:
        return [(row["timestamp"], row["close"]) for row in self.rows("bars", "AAPL", *when)]

    def told(self, start: str, end: str) -> list[tuple[str, Any]]:
        """Return what the exchange itself says."""
        answer = ask(f"{self.url}/v2/stocks/bars?symbols=AAPL&timeframe=1Min&limit=10000&start={start}&end={end}")
        return [(row["t"], row["c"]) for row in answer["bars"]["AAPL"]]


@contextmanager
def serving(owner: Alpacli) -> Iterator[str]:
    words = ["sim", "serve", "--port", "0", "--clock", "--quiet"]
    process = owner.start(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.communicate(timeout=20)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    owner = Alpacli(tmp_path / "exchange")
    with serving(owner) as url:
        yield Served(url, owner, tmp_path / "user")


def test_bars_of_another_market_at_the_same_address_are_never_mixed_in(served: Served) -> None:
    before = served.closes(*NIGHT)
    served.reset("--seed", "7")
    after = served.closes(*NIGHT)
    assert after == served.told("2026-01-05T09:00:00Z", "2026-01-05T14:20:00Z")
    assert [at for at, _ in after] == [at for at, _ in before]
    assert after != before
    rows = served.rows("data", "sql", "SELECT close FROM bars ORDER BY timestamp")
    assert len(rows) > 100
    assert [row["close"] for row in rows] == [close for _, close in after[: len(rows)]]
    (kept,) = (path for path in (served.user.state / "market").iterdir() if list(path.rglob("*.parquet")))
    assert kept.name.endswith(ask(served.url + "/sim/run")["run"])


def test_bars_are_complete_as_far_as_the_clock_of_the_exchange_has_come(served: Served) -> None:
    when = ("--start", "2026-01-05T09:00:00-05:00")
    assert served.closes(*when)[-1][0] == "2026-01-05T14:29:00Z"
    served.advance(3600)
    assert served.closes(*when) == served.told("2026-01-05T14:00:00Z", "2026-01-05T15:30:00Z")
    assert served.closes(*when, "--end", "2026-01-05T18:00:00-05:00")[-1][0] == "2026-01-05T15:29:00Z"


def test_bars_that_were_kept_by_the_address_before_runs_had_names_are_pruned_when_that_is_asked_for(
    served: Served,
) -> None:
    served.closes(*NIGHT)
    market = served.user.state / "market"
    (kept,) = (path for path in market.iterdir() if path.name.count("-") == 2)
    before = market / kept.name.rpartition("-")[0]
    alpaca = market / "alpaca"
    for place in (before, alpaca):
        shutil.copytree(kept, place, dirs_exist_ok=True)
    assert served.rows("data", "prune")["files"] == 0
    assert served.rows("data", "prune", "MSFT", "--yes")["files"] == 0
    assert served.rows("data", "prune", "--all", "--dry-run")["files"] == 2
    done = served.user("data", "prune", "AAPL", "--yes")
    assert done.code == 0
    assert "1 of the files were kept by the address alone" in done.errors
    assert [path.parts[len(market.parts)] for path in market.rglob("*.parquet")] == ["alpaca"]
    assert (before / "run").read_text() == ask(served.url + "/sim/run")["run"]
    assert served.closes(*NIGHT)


def test_a_program_that_goes_on_through_steps_and_resets_reads_what_there_is(served: Served) -> None:
    settings = load(Flags(), env=served.user.environment(), cwd=None)
    first, later = "2026-01-05T14:00:00Z", "2026-01-05T15:30:00Z"

    def read() -> list[tuple[str, Any]]:
        start = 1_767_621_600 * 10**9
        return [
            (row["timestamp"], float(row["close"]))
            for batch in client.market_data.bars("AAPL", start=start)
            for row in batch.rows()
        ]

    with open_client(settings) as client:
        assert len(read()) == 30
        served.advance(3600)
        assert read() == served.told(first, later)
        served.reset("--seed", "7")
        assert len(read()) == 30
        assert read() == served.told(first, later)


def test_accounts_of_two_runs_are_two_although_both_were_opened_at_the_same_moment(served: Served) -> None:
    served.trade("buy", "10")
    served.trade("sell", "10")
    served.rows("history", "sync")
    served.reset()
    served.trade("buy", "3")
    again = served.user("history", "sync")
    assert again.code == 0
    assert "another account" in again.errors
    assert [(row["side"], row["qty"]) for row in served.rows("history", "fills")] == [("buy", 3)]
    assert served.rows("history", "closed") == []


def test_an_account_is_recorded_at_the_time_of_its_exchange(served: Served) -> None:
    served.trade("buy", "100")
    for _ in range(2):
        served.rows("history", "sync")
        served.advance(86_400)
    served.rows("history", "sync")
    assert [row["at"][:16] for row in served.rows("history", "snapshots")] == [
        "2026-01-07T14:31",
        "2026-01-06T14:31",
        "2026-01-05T14:31",
    ]
    assert [row["day"] for row in served.rows("history", "equity")] == ["2026-01-05", "2026-01-06", "2026-01-07"]
    assert served.rows("history", "stats")["last_day"] == "2026-01-07"
    assert {row["month"] for row in served.rows("history", "pnl", "--by", "month")["rows"]} == {"2026-01"}
    assert [row["day"] for row in served.rows("history", "equity", "--since", "-1d")] == ["2026-01-06", "2026-01-07"]
    assert len(served.rows("history", "fills", "--since", "-3d")) == 1
    assert len(served.rows("history", "fills", "--since", "-1d")) == 0
    assert served.rows("history", "snapshots", "--at", "-90min")["at"].startswith("2026-01-06T14:31")


def test_a_period_of_snapshots_is_the_exchanges(served: Served) -> None:
    def recorded() -> str:
        return str(served.rows("snapshot", "--every", "1d")["at"])

    first = recorded()
    assert first.startswith("2026-01-05T14:30")
    served.advance(60)
    assert recorded() == first
    served.advance(86_400)
    assert recorded().startswith("2026-01-06T14:31")


def test_whether_the_market_is_open_is_asked_of_an_exchange_each_time(tmp_path: Path) -> None:
    owner = Alpacli(tmp_path / "exchange")
    assert owner("sim", "reset", "--yes", "--hours", "xnys").code == 0
    with serving(owner) as url:
        served = Served(url, owner, tmp_path / "user")

        def recorded() -> bool:
            done = served.user("snapshot", "--every", "1m", "--only-if-open", "--json")
            assert done.code == 0, done.errors
            return done.out != b""

        found = [recorded()]
        for hours in (1, 8, 15):
            served.advance(hours * 3600)
            found.append(recorded())
        assert found == [True, True, False, True]


def test_a_gateway_before_an_exchange_tells_its_time_too(served: Served, tmp_path: Path) -> None:
    with Gateway(served.url.replace("http", "ws"), tmp_path / "gate") as gateway:
        user = user_at(gateway.url, tmp_path / "behind")
        done = user("snapshot", "--json")
        assert json.loads(done.out)["at"].startswith("2026-01-05T14:30"), done.errors


@pytest.mark.parametrize("words", [("assets",), ("calendar", "--start", "2026-01-01", "--end", "2026-01-31")])
def test_assets_and_days_of_the_run_before_are_not_told_for_longer_than_its_account(
    served: Served, words: tuple[str, ...]
) -> None:
    told = served.rows(*words)
    with closing(sqlite3.connect(served.user.state / "store.sqlite")) as store, store:
        of_another_run = "UPDATE entry SET value = CAST('[]' AS BLOB), at = at - ?"
        assert store.execute(of_another_run, (0,)).rowcount == 1
        store.commit()
        assert served.rows(*words) == []
        store.execute(of_another_run, (6,))
    assert served.rows(*words) == told


def test_a_run_outlives_its_server_and_ends_with_a_reset(tmp_path: Path) -> None:
    owner = Alpacli(tmp_path)
    runs = []
    for _ in range(2):
        with serving(owner) as url:
            runs.append(ask(url + "/sim/run")["run"])
    with serving(owner) as url:
        assert owner("sim", "reset", "--yes").code == 0
        runs.append(ask(url + "/sim/run")["run"])
        assert owner("demo", "--yes").code == 0
        assert ask(url + "/sim/run")["run"] == runs[-1]
        assert owner("demo", "--yes").code == 0  # this time there was an account to empty
        runs.append(ask(url + "/sim/run")["run"])
    assert runs[0] == runs[1]
    assert len(set(runs)) == 3


def test_what_is_no_exchange_is_asked_once_by_a_program_and_kept_by_its_address(tmp_path: Path) -> None:
    with Origin() as origin:
        host = History()
        host.serve(origin)
        host.put("AAPL", sessions("2026-01-05", 60))
        settings = load(Flags(), env=environment(origin, tmp_path), cwd=None)
        with open_client(settings) as client:
            for _ in range(3):
                found = client.market_data.bars("AAPL", start=1_767_571_200 * 10**9, end=1_768_000_000 * 10**9)
                assert sum(batch.table.num_rows for batch in found)
        assert len(host.asked) == 1
        assert [seen.path for seen in origin.requests].count("/sim/run") == 1
    (kept,) = {path.parent for path in (tmp_path / "market").glob("local-*/*")}
    assert len(kept.name) == len("local-") + 12


def test_nobody_is_asked_which_run_it_is_where_nothing_kept_is_opened(tmp_path: Path) -> None:
    with Origin() as origin:
        user = Alpacli(tmp_path, environment(origin, tmp_path / "state"))
        for words in (["account"], ["positions"], ["bars", "AAPL", "--limit", "5", "--no-store"], ["data", "ls"]):
            user(*words)
        assert "/v2/account" in {seen.path for seen in origin.requests}
        assert "/sim/run" not in {seen.path for seen in origin.requests}


def test_a_gateway_tells_the_run_of_the_exchange_behind_it(tmp_path: Path) -> None:
    with SimServer(tmp_path / "exchange") as exchange, Gateway(exchange.ws, tmp_path / "gate") as gateway:
        run = ask(exchange.url + "/sim/run")["run"]
        assert ask(gateway.url + "/sim/run")["run"] == run
        with pytest.raises(HTTPError, match="401") as refused:
            urlopen(gateway.url + "/sim/run", timeout=20)
        refused.value.close()
        user = user_at(gateway.url, tmp_path / "user")
        assert user("bars", "AAPL", "--start", "-1h", "--json").code == 0
        assert list((user.state / "market").glob(f"local-*-{run}"))
    assert gateway.errors == ""


def test_a_gateway_with_no_exchange_behind_it_knows_of_no_run(tmp_path: Path) -> None:
    with Origin() as origin, Gateway(origin.url.replace("http", "ws"), tmp_path) as gateway:
        with pytest.raises(HTTPError, match="404") as refused:
            ask(gateway.url + "/sim/run")
        refused.value.close()
