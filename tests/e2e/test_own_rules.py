"""The user's own rules between processes that act in the same moment, on one machine and on two that share a Redis."""

import json
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.support import valkey
from tests.support.alpacli import Alpacli
from tests.support.faulty_broker import FaultyBroker

KEYS = {"ALPACA_API_KEY": "PKTEST", "ALPACA_SECRET_KEY": "secret"}


def machine(folder: Path, url: str, rules: str, redis_url: str | None = None) -> Alpacli:
    shared = {"REDIS_URL": redis_url} if redis_url else {}
    one = Alpacli(folder, {**KEYS, **shared, "ALPACA_BASE_URL": url, "ALPACA_DATA_URL": url})
    config = folder / "config"
    config.mkdir()
    (config / "risk.toml").write_text(rules)
    return one


def all_at_once(machines: Sequence[Alpacli], *args: str) -> Counter[int]:
    """Run one process on each; return how often each exit code came."""
    running = [
        one.start(
            [*args],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for one in machines
    ]
    codes: Counter[int] = Counter()
    for process in running:
        _, errors = process.communicate(timeout=60)
        codes[process.returncode] += 1
        assert b"Traceback" not in errors
        assert process.returncode in (0, 4), errors.decode()
    return codes


@pytest.mark.parametrize("shared", [False, True])
def test_the_last_place_of_the_minute_is_given_once(tmp_path: Path, *, shared: bool) -> None:
    with FaultyBroker(tmp_path / "sim", rate=0.0) as broker, valkey.server(tmp_path) as redis:
        rules = "max_orders_per_minute = 2\n"
        redis_url = redis.url if shared else None
        machines = [machine(tmp_path / "a", broker.url, rules, redis_url)]
        if shared:
            machines.append(machine(tmp_path / "b", broker.url, rules, redis_url))
        each = (machines * 6)[:6]
        codes = all_at_once(each, "buy", "F", "1", "--limit", "1")
        assert codes == {0: 2, 4: 4}
        assert len(broker.orders()) == 2
        for one in machines:
            assert one("audit", "verify").code == 0
            refused = one("buy", "F", "1", "--limit", "1", "--json")
            assert refused.code == 4
            assert "within a minute" in json.loads(refused.err)["error"]["message"]


def test_two_orders_that_fit_only_one_at_a_time_are_not_both_placed(tmp_path: Path) -> None:
    with FaultyBroker(tmp_path / "sim", rate=0.0) as broker:
        one = machine(tmp_path / "a", broker.url, "max_position_notional = 250\n")
        codes = all_at_once([one] * 5, "buy", "F", "100", "--limit", "1", "--tif", "gtc")
        assert codes == {0: 2, 4: 3}
        assert len(broker.orders()) == 2


def test_without_redis_this_machines_orders_still_count(tmp_path: Path) -> None:
    with FaultyBroker(tmp_path / "sim", rate=0.0) as broker, valkey.server(tmp_path) as redis:
        one = machine(tmp_path / "a", broker.url, "max_orders_per_minute = 1\n", redis.url)
        assert one("buy", "F", "1", "--limit", "1").code == 0
        redis.kill()
        refused = one("buy", "F", "1", "--limit", "1")
        assert refused.code == 4
        assert "1 orders were sent within a minute" in refused.errors


def test_a_redis_that_forgot_a_halt_is_told_again_by_any_command_where_it_is_known(tmp_path: Path) -> None:
    with FaultyBroker(tmp_path / "sim", rate=0.0) as broker, valkey.server(tmp_path) as redis:
        here = machine(tmp_path / "a", broker.url, "", redis.url)
        there = machine(tmp_path / "b", broker.url, "", redis.url)
        assert here("halt", "--reason", "storm", "--yes").code == 0
        with redis.client() as client:
            client.flushall()
        assert here("limits").code == 0
        refused = there("buy", "F", "1", "--limit", "1")
        assert refused.code == 4
        assert "halted: storm" in refused.errors
