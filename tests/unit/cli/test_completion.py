"""What Tab offers, asked as the shells ask it."""

import json
from pathlib import Path

import pytest
from tests.support.fakes import ManualClock

from alpacli.cli.completion import FILES, SCRIPTS, Known, answer, complete
from alpacli.settings import Flags, load
from alpacli.store.sqlite import SqliteStore


class Machine(Known):
    """A machine that knows a few things."""

    def __init__(self) -> None:
        super().__init__(())

    def symbols(self, prefix: str) -> list[str]:
        return [symbol for symbol in ("AAPL", "AMD", "BTC/USD") if symbol.startswith(prefix)]

    def order_ids(self) -> list[str]:
        return ["7a31", "849e"]

    def profiles(self) -> list[str]:
        return ["main", "swing"]


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("acc", ["account"]),
        ("--sim or", ["orders", "order"]),
        ("--profile swing or", ["orders", "order"]),
        ("--profile s", ["swing"]),
        ("cache ", ["clear", "stats"]),
        ("cache clear pos", ["positions"]),
        ("orders --sta", ["--status"]),
        ("orders --status ", ["open", "closed", "all"]),
        ("orders --status=c", ["--status=closed"]),
        ("orders --limit ", ["all"]),
        ("orders --sim --status open --side ", ["buy", "sell"]),
        ("orders --symbols AAPL,A", ["AAPL,AMD"]),
        ("buy AAPL 1 --tif g", ["gtc"]),
        ("submit --type stop", ["stop", "stop_limit"]),
        ("submit --side ", ["buy", "sell"]),
        ("bars AAPL --adjustment s", ["split", "spin-off"]),
        ("bars AAPL --feed o", ["otc", "overnight"]),
        ("stream AAPL --feed=op", ["--feed=options", "--feed=opra"]),
        ("bars AAPL --timeframe 1", ["1Min", "15Min", "1Hour", "1Day", "1Week", "1Month"]),
        ("sim replay a.csv --timeframe 5", ["5Min"]),
        ("portfolio --timeframe 15", ["15Min"]),
        ("serve token --scope read,", ["read,stream", "read,trade"]),
        ("activities --type ", []),
        ("login --secret-file ", [FILES]),
        ("sim replay ", [FILES]),
        ("sim replay a.csv ", [FILES]),
        ("help ex", ["exit-codes"]),
        ("help bu", ["buy"]),
        ("help profile u", ["use"]),
        ("help buy ", []),
        ("buy ", ["AAPL", "AMD", "BTC/USD"]),
        ("buy a", ["AAPL", "AMD"]),
        ("buy --sim A", ["AAPL", "AMD"]),
        ("buy --limit 3 A", ["AAPL", "AMD"]),
        ("buy AAPL ", []),
        ("buy --limit ", []),
        ("stream AAPL A", ["AMD"]),
        ("cancel 7a31 ", ["849e"]),
        ("order 8", ["849e"]),
        ("order -- 8", ["849e"]),
        ("buy AAPL 1 --client-order-id ", []),
        ("stream --record ", [FILES]),
        ("account --fields ", []),
        ("account --tz u", ["utc"]),
        ("account --profile ", ["main", "swing"]),
        ("account --json --js", []),
        ("completion ", ["bash", "zsh", "fish"]),
        ("nonsense ", []),
    ],
)
def test_tab_offers_what_fits_here(typed: str, offered: list[str]) -> None:
    assert [candidate for candidate, _ in complete(typed.split(" "), Machine())] == offered


def test_symbols_and_orders_come_from_the_files_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ALPACA_API_KEY", "ALPACA_SECRET_KEY", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ALPACLI_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("ALPACLI_CONFIG_DIR", str(tmp_path))
    settings = load(Flags(sim=True), env={"ALPACLI_STATE_DIR": str(tmp_path)})
    store = SqliteStore(str(tmp_path / "store.sqlite"), ManualClock())
    store.put(f"{settings.scope}:positions", json.dumps([{"symbol": "KO"}], separators=(",", ":")).encode())
    store.put(f"{settings.scope}:orders:all:5", b'[{"id":"old","symbol":"MSFT","legs":[{"id":"leg"}]}]')
    store.put(f"{settings.scope}:assets:list:", b'[{"id":"1","symbol":"KHC"}]')
    journal = tmp_path / "orders" / f"{settings.fingerprint}.jsonl"
    journal.parent.mkdir()
    journal.write_text('{"order_id":"first"}\n{"order_id":"second"}\n', encoding="utf-8")
    (tmp_path / "config.toml").write_text("[profiles.swing]\n[profiles.main]\n", encoding="utf-8")
    before = store.cache_stats(settings.scope)
    known = Known(["buy", "--sim", ""])
    assert known.symbols("") == ["KO", "MSFT"]
    assert known.symbols("K") == ["KHC", "KO"]
    assert known.order_ids() == ["second", "first", "old", "leg"]
    assert known.profiles() == ["main", "swing"]
    assert store.cache_stats(settings.scope) == before
    store.close()


def test_whatever_is_wrong_offers_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALPACLI_STATE_DIR", str(tmp_path))
    (tmp_path / "store.sqlite").write_bytes(b"this is no database" * 100)
    assert answer(["buy", "--sim", "A"]) == ""
    monkeypatch.setenv("ALPACA_BASE_URL", "http://elsewhere")
    assert answer(["buy", "A"]) == ""


def test_every_script_asks_the_program_that_is_being_typed() -> None:
    assert set(SCRIPTS) == {"bash", "zsh", "fish"}
    for script in SCRIPTS.values():
        assert "__complete" in script
