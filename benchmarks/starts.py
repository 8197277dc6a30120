"""What one command costs from the shell's point of view: start, work, end."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.origin import Origin, Reply

from benchmarks.measure import Command, Row, alpacli, compare, environment, run

ACCOUNT: dict[str, object] = {
    "id": "e6fe16f3-64a4-4921-8928-cadf02f92f98",
    "admin_configurations": {},
    "user_configurations": None,
    "account_number": "PA3ALPACLI01",
    "status": "ACTIVE",
    "crypto_status": "ACTIVE",
    "currency": "USD",
    "buying_power": "386104.5561",
    "regt_buying_power": "191247.6861",
    "daytrading_buying_power": "386104.5561",
    "non_marginable_buying_power": "89512.11",
    "options_buying_power": "95623.84",
    "cash": "92346.2219",
    "accrued_fees": "0",
    "portfolio_value": "103617.6242",
    "pattern_day_trader": False,
    "trading_blocked": False,
    "transfers_blocked": False,
    "account_blocked": False,
    "created_at": "2025-11-03T15:21:09.123456Z",
    "trade_suspended_by_user": False,
    "multiplier": "4",
    "shorting_enabled": True,
    "equity": "103617.6242",
    "last_equity": "103104.33",
    "long_market_value": "11271.4023",
    "short_market_value": "0",
    "initial_margin": "5635.7",
    "maintenance_margin": "3381.42",
    "last_maintenance_margin": "3360.01",
    "sma": "97312.4",
    "daytrade_count": 0,
    "balance_asof": "2026-01-09",
    "crypto_tier": 1,
    "options_approved_level": 3,
    "options_trading_level": 3,
}

_BARE_TABLE = """
import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer()

@app.command()
def account() -> None:
    table = Table("Field", "Value", title="Account")
    for number in range(15):
        table.add_row(f"field {number}", f"{number * 1234.56:,.2f}")
    Console().print(table)

app()
"""

_BARE_APP = """
import typer

app = typer.Typer()

@app.command()
def account() -> None:
    "Show the account."

@app.command()
def positions() -> None:
    "Show the positions."

app()
"""

_SDK = """
from alpaca.trading.client import TradingClient
client = TradingClient("PKBENCHMARK", "benchmark-secret", paper=True, url_override={url!r})
print(client.get_account().model_dump_json())
"""


@contextmanager
def _bench(code: str = "") -> Iterator[tuple[Origin, dict[str, str], list[str]]]:
    """Give an exchange, an environment that points to it, and how to run the reference program."""
    with tempfile.TemporaryDirectory() as name, Origin() as origin:
        folder = Path(name)
        origin.reply("/v2/account", Reply(body=ACCOUNT))
        program = folder / "reference.py"
        program.write_text(code.replace("{url!r}", repr(origin.url)), encoding="utf-8")
        yield origin, environment(folder, ALPACA_BASE_URL=origin.url), [sys.executable, str(program)]


class _Warm:
    """Keeps the cached account younger than its lifetime of five seconds."""

    def __init__(self, env: dict[str, str]) -> None:
        self._env = env
        self._at = -100.0

    def __call__(self) -> None:
        if time.monotonic() - self._at > 3.0:
            subprocess.run(
                [alpacli(), "account", "--json", "--refresh"], env=self._env, check=True, capture_output=True
            )
            self._at = time.monotonic()


def hit(pairs: int) -> list[Row]:
    """``account --json`` from the cache, against an interpreter that does nothing."""
    with _bench() as (origin, env, _):
        ours = Command([alpacli(), "account", "--json"], env, prepare=_Warm(env))
        taken = compare(ours, Command([sys.executable, "-c", "pass"], env), pairs)
        fetched = len(origin.requests)
        full = run(Command([alpacli(), "account", "--json", "--refresh"], env))
    same = all(sample.output == full.output for sample in taken.ours)
    ratio = taken.time_ratio
    detail = f"{taken.detail()}; bytes {'identical to' if same else 'DIFFER from'} a fresh answer's; {fetched} fetches"
    what = "account --json on a cache hit / python -c pass"
    return [Row("hit", what, "≤ 3 ×", f"{ratio:.2f} ×", ratio <= 3 and same, detail)]


def table(pairs: int) -> list[Row]:
    """``account`` as a table from the cache, against a bare program that prints one table; both on a terminal."""
    with _bench(_BARE_TABLE) as (_, env, reference):
        ours = Command([alpacli(), "account"], env, terminal=True, prepare=_Warm(env))
        taken = compare(ours, Command(reference, env, terminal=True), pairs)
    ratio = taken.time_ratio
    what = "account as a table on a cache hit / bare Typer + Rich table"
    return [Row("table", what, "≤ 1.3 ×", f"{ratio:.2f} ×", ratio <= 1.3, taken.detail())]


def dry_run(pairs: int) -> list[Row]:
    """``buy --dry-run`` against ``account``, both as tables on a terminal, both from what is cached."""
    with tempfile.TemporaryDirectory() as name:
        env = environment(Path(name))
        for _ in range(2):
            subprocess.run([alpacli(), "account", "--sim", "--json"], env=env, check=True, capture_output=True)
        ours = Command([alpacli(), "buy", "AAPL", "1", "--dry-run", "--sim"], env, terminal=True)
        taken = compare(ours, Command([alpacli(), "account", "--sim"], env, terminal=True), pairs)
    ratio = taken.time_ratio
    what = "buy --dry-run / account as a table, both on the offline exchange"
    return [Row("dry-run", what, "≤ 1.3 ×", f"{ratio:.2f} ×", ratio <= 1.3, taken.detail())]


def fresh(pairs: int) -> list[Row]:
    """``account --json --refresh`` against the official SDK, both from the same server."""
    with _bench(_SDK) as (_, env, reference):
        taken = compare(Command([alpacli(), "account", "--json", "--refresh"], env), Command(reference, env), pairs)
    speed, memory = taken.time_ratio, taken.memory_ratio
    peaks = f"peaks {taken.ours[-1].peak_kib / 1024:.0f} MiB against {taken.reference[-1].peak_kib / 1024:.0f} MiB"
    return [
        Row(
            "fresh",
            "account --json --refresh / SDK script, time",
            "≤ 0.65 ×",
            f"{speed:.2f} ×",
            speed <= 0.65,
            taken.detail(),
        ),
        Row(
            "fresh", "account --json --refresh / SDK script, memory", "≤ 0.6 ×", f"{memory:.2f} ×", memory <= 0.6, peaks
        ),
    ]


def usage(pairs: int) -> list[Row]:
    """``--help`` against a bare Typer app's."""
    with _bench(_BARE_APP) as (_, env, reference):
        taken = compare(Command([alpacli(), "--help"], env), Command([*reference, "--help"], env), pairs)
    ratio = taken.time_ratio
    return [Row("help", "--help / bare Typer app's --help", "≤ 1.5 ×", f"{ratio:.2f} ×", ratio <= 1.5, taken.detail())]


def completion(pairs: int) -> list[Row]:
    """What Tab waits for, against an interpreter that does nothing: commands, and symbols and order IDs of the cache."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        env = environment(Path(name))
        subprocess.run([alpacli(), "demo", "--yes"], env=env, check=True, capture_output=True)
        for command in ("positions", "orders"):
            subprocess.run([alpacli(), command, "--sim", "--json"], env=env, check=True, capture_output=True)
        for what, *words in (
            ("commands", "pos"),
            ("symbols", "--sim", "buy", "AA"),
            ("order IDs", "--sim", "order", ""),
        ):
            ours = Command([alpacli(), "__complete", *words], env)
            taken = compare(ours, Command([sys.executable, "-c", "pass"], env), pairs)
            offers = len(taken.ours[-1].output.splitlines())
            ratio = taken.time_ratio
            detail = f"{taken.detail()}; {offers} offers"
            title = f"completion of {what} / python -c pass"
            rows.append(Row("completion", title, "≤ 3 ×", f"{ratio:.2f} ×", ratio <= 3 and offers > 0, detail))
    return rows
