"""Several processes share one state; killing any of them leaves it whole."""

import json
import os
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pytest
from tests.support.fakes import ManualClock
from tests.support.sim_account import SimAccount

from alpacli.errors import ConfigError, UsageError
from alpacli.ports import Request, SystemClock
from alpacli.sim.exchange import Exchange
from alpacli.sim.state import SCHEMA_VERSION, Busy, Meta, State, remove
from alpacli.sim.transport import SimTransport
from alpacli.sim.upkeep import reset, status

TRADER = """
import sys
from decimal import Decimal
from alpacli.ports import SystemClock
from alpacli.sim.exchange import Exchange
from alpacli.sim.orders import enter, fill_order, new_order
exchange = Exchange(sys.argv[1], SystemClock())
count = int(sys.argv[2])
print("ready", flush=True)
while count:
    with exchange.desk(exchange.account_number("SIM"), changes=True) as desk:
        order = enter(desk, new_order("AAPL", "buy", "market", "day", desk.now_ns, qty=Decimal(1)))
        fill_order(desk, order, Decimal(1), Decimal("100.01"), desk.now_ns)
    count -= 1
exchange.close()
"""


def trader(state: Path, count: int) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", TRADER, str(state), str(count)], stdout=subprocess.PIPE, text=True)


def check_the_books(state: Path) -> int:
    """Return the number of fills, having checked that orders, fills, shares and cash tell the same story."""
    with SimAccount(state, key_id="SIM") as account:
        account.exchange.account_number("SIM")
        positions, shown = account.get("/v2/positions"), account.get("/v2/account")
        number = account.exchange.account_number("SIM")
        with account.exchange.desk(number, changes=False) as desk:
            fills = desk.db.execute("SELECT count(*) FROM fills").fetchone()[0]
            filled = desk.db.execute("SELECT count(*) FROM orders WHERE status = 'filled'").fetchone()[0]
            orders = desk.db.execute("SELECT count(*) FROM orders").fetchone()[0]
    assert fills == filled == orders
    assert (Decimal(positions[0]["qty"]) if positions else 0) == fills
    assert Decimal(shown["cash"]) == 100_000 - fills * Decimal("100.01")
    return int(fills)


def test_processes_that_trade_at_once_lose_nothing(tmp_path: Path) -> None:
    """Four processes book 25 fills each; 100 are on the books and all of the cash is accounted for."""
    processes = [trader(tmp_path, 25) for _ in range(4)]
    for process in processes:
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert check_the_books(tmp_path) == 100


def test_a_killed_process_leaves_whole_transactions(tmp_path: Path) -> None:
    """kill -9 in the middle of writing, five times: orders, fills, shares and cash still agree, and work goes on."""
    before = 0
    for _ in range(5):
        process = trader(tmp_path, -1)
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            with SimAccount(tmp_path, SystemClockForTests(), key_id="SIM") as watcher:
                exchange = watcher.exchange
                while exchange.status().accounts == () or exchange.status().accounts[0].orders <= before:
                    assert process.poll() is None
        finally:  # also where the test fails: it trades without end
            process.kill()
            process.communicate(timeout=30)
        after = check_the_books(tmp_path)
        assert after > before
        before = after


class SystemClockForTests(ManualClock):
    """Real time, where a test shares a state with other processes."""

    def time(self) -> float:
        return SystemClock().time()


def test_processes_that_see_a_key_pair_first_open_one_account(tmp_path: Path) -> None:
    """Whoever comes first, there is one account, opened once with its money."""
    script = (
        "import sys; from alpacli.ports import Request, SystemClock; from alpacli.sim.transport import SimTransport\n"
        "transport = SimTransport(sys.argv[1], SystemClock())\n"
        "print(transport.send(Request('GET', '/v2/account'), connect_timeout_s=1, read_timeout_s=1).body.decode())\n"
        "transport.close()"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    answers = [json.loads(process.communicate(timeout=60)[0]) for process in processes]
    assert len({answer["id"] for answer in answers}) == 1
    assert {answer["cash"] for answer in answers} == {"100000"}


def test_threads_of_one_transport_take_turns(tmp_path: Path) -> None:
    """The asynchronous client sends from several threads at once."""
    transport = SimTransport(str(tmp_path), ManualClock())

    def ask(_: int) -> int:
        return transport.send(Request("GET", "/v2/account"), connect_timeout_s=1, read_timeout_s=1).status

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(40))) == {200}
    transport.close()


def test_who_does_not_want_to_wait_is_told_and_nothing_is_counted(tmp_path: Path) -> None:
    """While another process writes; afterwards the same request is served, and waiting for a lock works as before."""
    exchange = Exchange(str(tmp_path), ManualClock())
    with exchange.visit("SIM", "", wait=False) as (first, _):
        pass
    other = sqlite3.connect(tmp_path / "sim.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Busy), exchange.visit("SIM", "", wait=False):
        pass
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(exchange.admit, "SIM", "")
        other.execute("COMMIT")
        assert waits.result().remaining == first.remaining - 1
    other.close()
    exchange.close()


def test_state_survives_and_reset_is_seen_by_open_connections(tmp_path: Path) -> None:
    """A second connection sees the new seed and the empty books without being opened again."""
    with SimAccount(tmp_path, key_id="SIM") as first:
        first.trade("AAPL", "buy", "10")
    with SimAccount(tmp_path, key_id="SIM") as again:
        assert len(again.get("/v2/positions")) == 1
        done = reset(
            str(tmp_path),
            ManualClock(),
            lambda exchange: exchange.reset(seed=7, hours="xnys", cash=Decimal("5000.5"), rate_limit=10),
        )
        assert (done.seed, done.hours, done.cash, done.rate_limit, done.accounts) == (
            7,
            "xnys",
            Decimal("5000.5"),
            10,
            (),
        )
        assert again.get("/v2/positions") == []
        assert again.get("/v2/account")["cash"] == "5000.5"
        assert again.send("GET", "/v2/clock").headers["X-RateLimit-Limit"] == "10"


def test_emptying_keeps_the_market(tmp_path: Path) -> None:
    """Accounts go; seed, hours with their calendar, cash and rate limit stay."""
    with SimAccount(tmp_path, key_id="SIM") as account:
        account.exchange.reset(seed=7, hours="xnys", cash=Decimal(500), rate_limit=0)
        account.trade("AAPL", "buy", "1")
        clock = account.get("/v2/clock")
        emptied = account.exchange.empty()
        assert (emptied.seed, emptied.hours, emptied.cash, emptied.rate_limit) == (7, "xnys", Decimal(500), 0)
        assert emptied.accounts == ()
        assert account.get("/v2/clock") == clock
        assert account.get("/v2/positions") == []


def test_status_tells_each_accounts_equity(tmp_path: Path) -> None:
    """What alpacli sim status shows; key ids are shortened."""
    with SimAccount(tmp_path, key_id="PKABCDEFGHIJ") as account:
        account.trade("AAPL", "buy", "10")
        equity = Decimal(account.get("/v2/account")["equity"])
    shown = status(str(tmp_path), ManualClock())
    assert (shown.seed, shown.hours, shown.rate_limit, shown.is_open) == (2026, "always", 200, True)
    (line,) = shown.accounts
    assert (line.label, line.equity, line.positions, line.orders) == ("PK…IJ", equity, 1, 1)


@pytest.mark.parametrize("damage", [b"this is no database, and never was one" * 200, None])
def test_a_damaged_state_is_said_and_reset_mends_it(tmp_path: Path, damage: bytes | None) -> None:
    """A file that is no database, or one of another version: an error with a hint, then a working exchange."""
    path = tmp_path / "sim.sqlite"
    if damage is not None:
        path.write_bytes(damage)
    else:
        db = sqlite3.connect(path)
        db.execute("PRAGMA user_version = 99")
        db.close()
    with pytest.raises(ConfigError) as caught:
        Exchange(str(tmp_path), ManualClock())
    assert "alpacli sim reset" in caught.value.hint
    assert reset(str(tmp_path), ManualClock()).accounts == ()
    Exchange(str(tmp_path), ManualClock()).close()


def test_a_database_that_is_not_the_exchanges_is_replaced_too(tmp_path: Path) -> None:
    """One without its tables, and one whose tables are another program's."""
    for statement in (f"PRAGMA user_version = {SCHEMA_VERSION}", "CREATE TABLE accounts (name TEXT)"):
        remove(str(tmp_path / "sim.sqlite"))
        with sqlite3.connect(tmp_path / "sim.sqlite") as db:
            db.execute(statement)
        db.close()
        assert reset(str(tmp_path), ManualClock()).accounts == ()


def test_a_reset_that_fails_for_another_reason_than_the_file_removes_nothing(tmp_path: Path) -> None:
    """Here there is no descriptor left; it could be a full disk, or a server that stands still with the file locked."""
    with SimAccount(tmp_path, key_id="SIM") as account:
        account.trade("AAPL", "buy", "1")
    program = """
import os, resource, sqlite3, sys
from alpacli.errors import ConfigError
from alpacli.ports import SystemClock
from alpacli.sim.upkeep import reset, status
status(sys.argv[1], SystemClock())
taken = []
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
try:
    while True:
        taken.append(os.dup(0))
except OSError:
    pass
try:
    reset(sys.argv[1], SystemClock())
except ConfigError as error:
    assert error.as_dict()["type"] == "ConfigError"
    sys.exit(9)
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 9, done.stderr
    (line,) = status(str(tmp_path), ManualClock()).accounts
    assert line.positions == 1


def test_a_link_to_a_disk_that_is_not_there_outlives_a_reset(tmp_path: Path) -> None:
    link = tmp_path / "sim.sqlite"
    link.symlink_to(tmp_path / "unplugged" / "sim.sqlite")
    with pytest.raises(ConfigError):
        reset(str(tmp_path), ManualClock())
    assert link.is_symlink()


def test_a_state_directory_that_cannot_be_made_is_a_configuration_error(tmp_path: Path) -> None:
    """A file stands where the directory should be."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="offline exchange"):
        Exchange(str(tmp_path / "file"), ManualClock())
    with pytest.raises(ConfigError):
        reset(str(tmp_path / "file"), ManualClock())


@pytest.mark.parametrize(
    "choices", [{"cash": Decimal(-1)}, {"cash": Decimal("1e400")}, {"cash": Decimal("NaN")}, {"rate_limit": -1}]
)
def test_impossible_choices_are_refused_and_change_nothing(tmp_path: Path, choices: dict[str, Decimal | int]) -> None:
    with SimAccount(tmp_path, key_id="SIM") as account:
        account.trade("AAPL", "buy", "1")
        with pytest.raises(UsageError, match="cannot begin with"):
            account.exchange.reset(**choices)  # type: ignore[arg-type] # one keyword at a time, of either type
        assert len(account.get("/v2/positions")) == 1


def test_where_nothing_can_be_written_an_empty_exchange_is_no_advice(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError) as caught:
        Exchange(str(tmp_path / "file"), ManualClock())
    assert "ALPACLI_STATE_DIR" in caught.value.hint
    assert "reset" not in caught.value.hint


def test_a_state_that_could_not_be_opened_disturbs_no_fork(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError) as held:  # with it the state, which has no connection to let go of
        State(str(tmp_path / "file" / "below"), Meta(1, "always", "1", 0))
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    assert os.waitpid(pid, 0) == (pid, 0)
    assert held.value.exit_code == 3
