"""Days on which everything goes wrong: real processes, real sockets, and an answer or a clear error every time."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from tests.support import loaded
from tests.support.fakes import ACCOUNT
from tests.support.origin import Origin, Reply
from tests.support.valkey import free_port
from tests.support.valkey import server as valkey

PROGRAM = str(Path(sys.executable).with_name("alpacli"))
GOOD = Reply(body=ACCOUNT)


class Machine:
    """A user's machine: one state directory, one key pair, one broker; ``run`` types a command."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "ALPACA_API_KEY": "PKTESTKEY00000000001",
            "ALPACA_SECRET_KEY": "s3cr3t-that-must-not-show",
            "ALPACA_BASE_URL": url,
            "ALPACLI_STATE_DIR": str(folder / "state"),
            "ALPACLI_CONFIG_DIR": str(folder / "config"),
        }

    def start(self, *words: str, **env: str | None) -> "subprocess.Popen[bytes]":
        merged = {name: value for name, value in {**self.env, **env}.items() if value is not None}
        pipe = subprocess.PIPE
        return loaded.start(
            PROGRAM, words, merged, str(self.folder), stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe
        )

    def run(self, *words: str, **env: str | None) -> "Done":
        with self.start(*words, **env) as process:
            try:
                out, err = process.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
            return Done(process.returncode, out, err.decode())


class Done:
    def __init__(self, code: int, out: bytes, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err
        assert "Traceback" not in err, err
        assert "s3cr3t" not in err + out.decode(errors="replace")

    def failure(self, code: int) -> dict[str, Any]:
        """Return the JSON error object, after checking that nothing else was said and the exit code is right."""
        assert self.code == code, self.err
        assert self.out == b""
        error: dict[str, Any] = json.loads(self.err)["error"]
        assert set(error) == {"type", "message", "hint", "status", "code", "request_id", "retry_after"}
        assert error["message"]
        assert error["hint"]
        return error

    def answer(self) -> dict[str, Any]:
        assert self.code == 0, self.err
        value: dict[str, Any] = json.loads(self.out)
        return value


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


@pytest.fixture
def machine(tmp_path: Path, origin: Origin) -> Machine:
    return Machine(tmp_path, origin.url)


# ------------------------------------------------------------------------------------------------- the broker


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_failing_broker_is_asked_three_times_and_then_reported(machine: Machine, origin: Origin, status: int) -> None:
    origin.reply("/v2/account", Reply(status, b"<html><h1>Bad gateway</h1></html>"))
    error = machine.run("account", "--json").failure(6)
    assert error["status"] == status
    assert len(origin.requests) == 3


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (401, {"message": "unauthorized."}, 3),
        (403, {"message": "forbidden."}, 3),
        (403, {"code": 40310000, "message": "account is restricted"}, 4),
        (404, {"code": 40410000, "message": "account not found"}, 4),
        (409, {"code": 40910000, "message": "conflict"}, 4),
        (422, {"code": 40010001, "message": "invalid limit"}, 4),
        (400, {"message": "malformed"}, 4),
    ],
)
def test_a_no_is_an_answer_and_asked_for_once(
    machine: Machine, origin: Origin, status: int, body: object, code: int
) -> None:
    origin.reply("/v2/account", Reply(status, body, {"X-Request-ID": "req-1"}))
    error = machine.run("account", "--json").failure(code)
    assert (error["status"], error["request_id"]) == (status, "req-1")
    assert len(origin.requests) == 1


def test_429_with_a_short_retry_after_is_waited_for(machine: Machine, origin: Origin) -> None:
    origin.reply("/v2/account", Reply(429, {"message": "rate limit exceeded"}, {"Retry-After": "1"}), GOOD)
    assert machine.run("account", "--json").answer()["equity"] == 100020.25
    first, second = origin.requests
    assert second.at - first.at >= 1.0


def test_429_that_asks_for_more_than_max_wait_ends_at_once_with_exit_5(machine: Machine, origin: Origin) -> None:
    origin.reply("/v2/account", Reply(429, {"message": "rate limit exceeded"}, {"Retry-After": "60"}))
    error = machine.run("account", "--json", "--max-wait", "2").failure(5)
    assert error["retry_after"] == 60
    assert len(origin.requests) == 1


def test_429_without_headers_is_retried(machine: Machine, origin: Origin) -> None:
    origin.reply("/v2/account", Reply(429, {"message": "rate limit exceeded"}), GOOD)
    machine.run("account", "--json").answer()
    assert len(origin.requests) == 2


@pytest.mark.parametrize("fault", ["reset", "truncate", "close"])
def test_a_broken_answer_is_fetched_again(machine: Machine, origin: Origin, fault: Any) -> None:
    origin.reply("/v2/account", Reply(body=ACCOUNT, fault=fault), GOOD)
    assert machine.run("account", "--json").answer()["cash"] == 98500.25
    assert len(origin.requests) == 2


@pytest.mark.parametrize("fault", ["hang", "drip"])
def test_a_server_that_never_finishes_is_given_up_in_time(machine: Machine, origin: Origin, fault: Any) -> None:
    origin.reply("/v2/account", Reply(body=ACCOUNT, fault=fault, drip_s=0.3))
    started = time.monotonic()
    error = machine.run("account", "--json", "--timeout", "0.5").failure(6)
    assert error["type"] == "RequestTimeout"
    assert time.monotonic() - started < 30  # three times half a second, and the pauses between


@pytest.mark.parametrize(
    "body",
    [b"<html>maintenance</html>", b"", b'["not", "an", "object"]', b'{"id": 7, "cash": {"a": 1}}', b'{"id": "x"'],
)
def test_a_200_that_is_not_an_account_is_unreadable_and_not_cached(
    machine: Machine, origin: Origin, body: bytes
) -> None:
    origin.reply("/v2/account", Reply(body=body), GOOD)
    assert machine.run("account", "--json").failure(6)["type"] == "UnreadableAnswer"
    machine.run("account", "--json").answer()


def test_a_20_megabyte_answer_is_read(machine: Machine, origin: Origin) -> None:
    asset = {
        "id": "b0b6dd9d-8b9b-48a9-ba46-b9d54906e415",
        "class": "us_equity",
        "exchange": "NASDAQ",
        "symbol": "AAPL",
        "name": "x" * 300,
        "status": "active",
        "tradable": True,
        "marginable": True,
        "shortable": True,
        "easy_to_borrow": True,
        "fractionable": True,
    }
    body = json.dumps([asset] * 38_000).encode()
    assert len(body) > 20_000_000
    origin.reply("/v2/assets", Reply(body=body))
    done = machine.run("assets", "--json")
    assert done.code == 0, done.err
    assert len(json.loads(done.out)) == 38_000


def test_a_redirect_is_refused_and_the_keys_do_not_follow_it(machine: Machine, origin: Origin) -> None:
    with Origin() as elsewhere:
        origin.reply("/v2/account", Reply(307, b"", {"Location": f"{elsewhere.url}/v2/account"}))
        error = machine.run("account", "--json").failure(3)
        assert elsewhere.requests == []
    assert error["type"] == "RedirectRefused"
    assert len(origin.requests) == 1


def test_a_broker_that_is_not_there_is_unavailable(machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    error = machine.run("account", "--json", ALPACA_BASE_URL=f"http://127.0.0.1:{port}").failure(6)
    assert error["type"] == "ConnectionLost"


def test_an_open_breaker_is_shared_by_later_processes(machine: Machine, origin: Origin) -> None:
    origin.reply("/v2/account", Reply(500, {"message": "down"}))
    machine.run("account", "--json").failure(6)
    machine.run("account", "--json").failure(6)
    error = machine.run("account", "--json").failure(6)
    assert error["type"] == "CircuitOpen"
    assert 0 < error["retry_after"] <= 30
    assert len(origin.requests) == 5


# -------------------------------------------------------------------------------------------------- Redis


def one_warning(done: Done) -> None:
    assert done.answer()["cash"] == 98500.25
    lines = [line for line in done.err.splitlines() if line.strip()]
    assert len(lines) == 1, done.err
    assert "store" in lines[0]


def test_redis_that_refuses_costs_one_warning(machine: Machine, origin: Origin) -> None:
    origin.reply("/v2/account", GOOD)
    one_warning(machine.run("account", "--json", REDIS_URL=f"redis://:hunter2@127.0.0.1:{free_port()}/0"))


def test_redis_that_hangs_costs_one_warning_and_little_time(machine: Machine, origin: Origin) -> None:
    origin.reply("/v2/account", GOOD)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        started = time.monotonic()
        done = machine.run("account", "--json", REDIS_URL=f"redis://127.0.0.1:{mute.getsockname()[1]}/0")
        assert time.monotonic() - started < 15
    one_warning(done)


def test_redis_that_wants_a_password_costs_one_warning_without_it(
    machine: Machine, origin: Origin, tmp_path: Path
) -> None:
    origin.reply("/v2/account", GOOD)
    with valkey(machine.folder, "--requirepass", "right") as server:
        done = machine.run("account", "--json", REDIS_URL=server.url.replace("redis://", "redis://:hunter2@"))
    one_warning(done)
    assert "hunter2" not in done.err


def test_redis_that_is_full_costs_one_warning(machine: Machine, origin: Origin) -> None:
    origin.reply("/v2/account", GOOD)
    with valkey(machine.folder, "--maxmemory", "1", "--maxmemory-policy", "noeviction") as server:
        one_warning(machine.run("account", "--json", REDIS_URL=server.url))


def test_redis_killed_between_two_commands_of_one_run_costs_one_warning(machine: Machine, origin: Origin) -> None:
    with valkey(machine.folder) as server:

        def kill_the_store(_: object) -> Reply:
            server.kill()
            return GOOD

        origin.answer("/v2/account", kill_the_store)
        one_warning(machine.run("account", "--json", REDIS_URL=server.url))


def test_processes_on_redis_share_the_cache(machine: Machine, origin: Origin) -> None:
    origin.reply("/v2/account", GOOD)
    with valkey(machine.folder) as server:
        first = machine.run("account", "--json", "--max-age", "60", REDIS_URL=server.url)
        second = machine.run("account", "--json", "--max-age", "60", REDIS_URL=server.url)
    assert first.out == second.out
    assert first.err == second.err == ""
    assert len(origin.requests) == 1


# -------------------------------------------------------------------------------------- the state directory


def test_a_missing_state_directory_is_made_private(machine: Machine, origin: Origin, tmp_path: Path) -> None:
    origin.reply("/v2/account", GOOD)
    done = machine.run("account", "--json", ALPACLI_STATE_DIR=str(tmp_path / "a" / "b"))
    done.answer()
    assert done.err == ""
    assert (tmp_path / "a" / "b").stat().st_mode & 0o077 == 0


def test_a_state_directory_that_cannot_be_made_costs_one_warning(
    machine: Machine, origin: Origin, tmp_path: Path
) -> None:
    origin.reply("/v2/account", GOOD)
    (tmp_path / "file").write_text("in the way")
    one_warning(machine.run("account", "--json", ALPACLI_STATE_DIR=str(tmp_path / "file" / "state")))


def test_a_corrupt_store_costs_one_warning_and_cache_clear_heals_it(machine: Machine, origin: Origin) -> None:
    origin.reply("/v2/account", GOOD)
    machine.run("account", "--json")
    for name in os.listdir(machine.folder / "state"):
        (machine.folder / "state" / name).write_bytes(b"this is not a database at all " * 400)
    one_warning(machine.run("account", "--json"))
    assert machine.run("cache", "clear").code == 0
    healed = machine.run("account", "--json")
    healed.answer()
    assert healed.err == ""


def test_a_store_that_somebody_keeps_locked_costs_one_warning(machine: Machine, origin: Origin) -> None:
    origin.reply("/v2/account", GOOD)
    machine.run("clock")  # makes the file
    (path,) = (p for p in (machine.folder / "state").iterdir() if p.suffix == ".sqlite")
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN EXCLUSIVE")
    try:
        one_warning(machine.run("account", "--json"))
    finally:
        blocker.execute("ROLLBACK")
        blocker.close()


def test_a_full_disk_costs_one_warning(machine: Machine, origin: Origin) -> None:
    """A file-size limit of zero makes every write of the store fail as a full disk does."""
    origin.reply("/v2/account", GOOD)
    command = [PROGRAM, "account", "--json"]
    limited = (
        "import os, resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
        f"os.execv({PROGRAM!r}, {command!r})\n"
    )
    completed = subprocess.run(
        [sys.executable, "-c", limited],
        env=machine.env,
        cwd=machine.folder,
        capture_output=True,
        timeout=60,
        check=False,
    )
    one_warning(Done(completed.returncode, completed.stdout, completed.stderr.decode()))


def test_a_clock_that_jumps_back_neither_serves_the_future_nor_blocks(machine: Machine, origin: Origin) -> None:
    origin.reply("/v2/account", GOOD)
    machine.run("account", "--json").answer()
    (path,) = (p for p in (machine.folder / "state").iterdir() if p.suffix == ".sqlite")
    with sqlite3.connect(path) as db:  # what the store would hold had the clock been an hour ahead
        db.execute("UPDATE entry SET at = at + 3600")
        db.execute("UPDATE sent SET at = at + 3600")
    db.close()
    started = time.monotonic()
    machine.run("account", "--json").answer()
    assert time.monotonic() - started < 30
    assert len(origin.requests) == 2


def test_two_accounts_on_one_store_never_mix(machine: Machine, origin: Origin) -> None:
    def by_key(seen: Any) -> Reply:
        return Reply(body={**ACCOUNT, "account_number": seen.headers["apca-api-key-id"]})

    origin.answer("/v2/account", by_key)
    kept = ("account", "--json", "--max-age", "60")
    for _ in range(2):
        assert machine.run(*kept).answer()["account_number"] == "PKTESTKEY00000000001"
        assert machine.run(*kept, ALPACA_API_KEY="PKOTHER").answer()["account_number"] == "PKOTHER"
    assert len(origin.requests) == 2


# ---------------------------------------------------------------------------------------- many processes


def test_fifty_cold_processes_cause_one_request(machine: Machine, origin: Origin) -> None:
    origin.reply("/v2/account", Reply(body=ACCOUNT, delay_s=1.0))
    with ThreadPoolExecutor(50) as pool:
        # --max-age: on a busy machine the last of them begins after an answer's usual lifetime.
        ended = list(pool.map(lambda _: machine.run("account", "--json", "--max-age", "60"), range(50)))
    assert {done.code for done in ended} == {0}, {done.err for done in ended}
    assert len({done.out for done in ended}) == 1
    assert len(origin.requests) == 1


def test_a_killed_fetcher_is_replaced_within_its_lease(machine: Machine, origin: Origin) -> None:
    origin.reply("/v2/account", Reply(fault="hang"), GOOD)
    with machine.start("account", "--json") as leader:
        origin.wait_for(1)
        leader.send_signal(signal.SIGKILL)
        leader.communicate(timeout=10)
    started = time.monotonic()
    machine.run("account", "--json").answer()
    assert time.monotonic() - started < 15  # a lease is three seconds
    assert len(origin.requests) == 2


def test_a_killed_waiter_does_not_hold_up_the_queue(machine: Machine, origin: Origin) -> None:
    origin.reply("/v2/account", GOOD)
    small = {"ALPACLI_RATE_LIMIT": "1", "ALPACLI_RATE_RESERVE": "0", "ALPACLI_RATE_WINDOW": "4"}
    machine.run("account", "--json", "--refresh", **small).answer()
    with machine.start("account", "--json", "--refresh", **small) as waiter:
        time.sleep(1.0)  # long enough to stand in the queue
        waiter.send_signal(signal.SIGKILL)
        waiter.communicate(timeout=10)
    started = time.monotonic()
    machine.run("account", "--json", "--refresh", "--max-wait", "20", **small).answer()
    assert time.monotonic() - started < 18  # a window and a liveness, seven seconds
    assert len(origin.requests) == 2


def test_a_spent_budget_ends_with_exit_5_and_the_seconds(machine: Machine, origin: Origin) -> None:
    origin.reply("/v2/account", GOOD)
    small = {"ALPACLI_RATE_LIMIT": "1", "ALPACLI_RATE_RESERVE": "0", "ALPACLI_RATE_WINDOW": "30"}
    machine.run("account", "--json", "--refresh", **small).answer()
    error = machine.run("account", "--json", "--refresh", "--max-wait", "0.5", **small).failure(5)
    assert error["type"] == "BudgetExhausted"
    assert 20 < error["retry_after"] <= 30
    assert len(origin.requests) == 1


@pytest.mark.slow
def test_eight_processes_never_exceed_any_window_and_all_get_their_turn(machine: Machine, origin: Origin) -> None:
    """Measured where it counts: by the arrival times at the server. How much of it is used, benchmarks/ measures."""
    limit, reserve, window, each = 40, 4, 2.0, 14
    origin.reply(
        "/v2/clock",
        Reply(
            body={
                "timestamp": "2026-06-24T14:15:22-04:00",
                "is_open": True,
                "next_open": "2026-06-25T09:30:00-04:00",
                "next_close": "2026-06-24T16:00:00-04:00",
            }
        ),
    )
    script = (
        "from alpacli import connect\nwith connect(max_wait=90) as paper:\n"
        f"    for _ in range({each}):\n        paper.get_clock(use_cache=False)\n"
    )
    env = {
        **machine.env,
        "ALPACLI_RATE_LIMIT": str(limit),
        "ALPACLI_RATE_RESERVE": str(reserve),
        "ALPACLI_RATE_WINDOW": str(window),
    }
    processes = [
        subprocess.Popen([sys.executable, "-c", script], env=env, cwd=machine.folder, stderr=subprocess.PIPE)
        for _ in range(8)
    ]
    for process in processes:
        with process:
            _, err = process.communicate(timeout=100)
        assert process.returncode == 0, err
    arrivals = sorted(seen.at for seen in origin.requests)
    fullest = max(sum(1 for at in arrivals if start <= at < start + window) for start in arrivals)
    assert fullest <= limit - reserve
    assert len(arrivals) == 8 * each > 3 * (limit - reserve)


def test_a_server_that_stalls_and_wakes_sees_no_more_than_the_limit(machine: Machine) -> None:
    """What its clients gave up lies in the kernel's buffers, and all of it is taken in when the server goes on."""
    limit, window_s = 4, 0.8
    port, book = free_port(), machine.folder / "taken-in"
    env = {**machine.env, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "tests.chaos.exchange", str(port), str(book)]
    rules = {"RATE_LIMIT": limit, "RATE_RESERVE": 0, "RATE_WINDOW": window_s, "BREAKER_OPEN": 0.1}
    read = ("account", "--refresh", "--timeout", "0.1", "--max-wait", "0")
    with subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as exchange:
        try:
            ask_for_faults(port)
            exchange.send_signal(signal.SIGSTOP)
            stalled_until = time.monotonic() + 3 * window_s
            codes = set[int]()
            while time.monotonic() < stalled_until or 5 not in codes:
                done = machine.run(
                    *read,
                    ALPACA_BASE_URL=f"http://127.0.0.1:{port}",
                    **{f"ALPACLI_{name}": str(value) for name, value in rules.items()},
                )
                codes.add(done.code)
            assert codes == {5, 6}
            exchange.send_signal(signal.SIGCONT)
            ask_for_faults(port)  # the last in the line: what lay there before it is taken in
        finally:
            exchange.kill()
    assert book.read_text().count("/v2/account") == limit


def ask_for_faults(port: int) -> None:
    """Ask for something that is no request of ours, as soon as the exchange answers."""
    give_up_at = time.monotonic() + 60
    while True:
        try:
            with urlopen(f"http://127.0.0.1:{port}/sim/faults", timeout=30) as answer:
                answer.read()
                return
        except OSError:
            assert time.monotonic() < give_up_at
            time.sleep(0.05)


def test_a_reader_that_polls_cannot_use_the_trading_reserve(machine: Machine, origin: Origin) -> None:
    origin.reply("/v2/account", GOOD)
    small = {"ALPACLI_RATE_LIMIT": "4", "ALPACLI_RATE_RESERVE": "2", "ALPACLI_RATE_WINDOW": "30"}
    for _ in range(2):
        machine.run("account", "--json", "--refresh", **small).answer()
    machine.run("account", "--json", "--refresh", "--max-wait", "0", **small).failure(5)
    limits = machine.run("limits", "--json", **small).answer()
    assert (limits["used"], limits["left"]) == (2, 2)


# ----------------------------------------------------------------------------------------- the surroundings


def test_a_closed_standard_output_does_not_crash(machine: Machine, origin: Origin) -> None:
    origin.reply("/v2/account", GOOD)
    for words in ("account --json", "account", "account --json"):
        done = subprocess.run(
            ["/bin/sh", "-c", f"exec '{PROGRAM}' {words} >&-"],
            env=machine.env,
            cwd=machine.folder,
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert b"Traceback" not in done.stderr
        assert done.returncode in (0, 1), done.stderr


def test_a_reader_that_leaves_early_is_a_quiet_success(machine: Machine, origin: Origin) -> None:
    rows = [{"date": f"2025-01-{d:02}", "open": "09:30", "close": "16:00"} for d in range(1, 29)] * 2000
    origin.reply("/v2/calendar", Reply(body=rows))
    with machine.start("calendar", "--start", "2025-01-01", "--json") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(1) == b"["
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 0


def test_without_home_the_program_still_answers(machine: Machine, origin: Origin) -> None:
    origin.reply("/v2/account", GOOD)
    machine.run("account", "--json", HOME=None).answer()


@pytest.mark.parametrize("zone", ["Mars/Olympus", ":/nowhere", "", "EST5EDT4,M3.2.0,M11.1.0"])
def test_an_unknown_time_zone_changes_nothing_but_the_zone(machine: Machine, origin: Origin, zone: str) -> None:
    origin.reply("/v2/account", GOOD)
    done = machine.run("account", TZ=zone, FORCE_COLOR="1")
    assert done.code == 0, done.err


def test_many_readers_at_once_on_a_warm_cache_send_nothing(machine: Machine, origin: Origin) -> None:
    """Many readers at once on a warm cache: all served, nothing sent."""
    origin.reply("/v2/account", GOOD)
    machine.run("account", "--json").answer()
    results: list[Done] = []
    threads = [
        threading.Thread(target=lambda: results.append(machine.run("account", "--json", "--max-age", "600")))
        for _ in range(10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {done.code for done in results} == {0}
    assert len(origin.requests) == 1


def test_refused_addresses_are_refused_on_a_warm_cache_too(machine: Machine, origin: Origin) -> None:
    origin.reply("/v2/account", GOOD)
    machine.run("account", "--json").answer()
    for url in (
        "https://api.alpaca.markets",
        origin.url + "/",
        "http://127.1:80",
        "https://paper-api.alpaca.markets.evil.example",
    ):
        machine.run("account", "--json", ALPACA_BASE_URL=url).failure(3)
    machine.run("account", "--json", ALPACA_API_KEY="AKLIVE0000000000").failure(3)
    machine.run("account", "--json", ALPACA_API_KEY="", ALPACA_SECRET_KEY="").failure(3)
    assert len(origin.requests) == 1
