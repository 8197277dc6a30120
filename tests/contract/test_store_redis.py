"""The Redis store on bad days and on every topology, against real servers."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import valkey

from alpacli.errors import StoreUnavailable
from alpacli.ports import BudgetRules, Granted, Outcome, Store, Ticket
from alpacli.store.redis import RedisStore, open_client, parse_url

KEY = "alpaca:{fp}:account"
RULES = BudgetRules("alpaca:{fp}", limit=50)


def every_operation(store: Store) -> int:
    """Use each operation of the protocol; return how many that were."""
    ticket = Ticket("t", "job")
    operations = (
        lambda: store.get(KEY, 5),
        lambda: store.claim(KEY, 5, 5, "a"),
        lambda: store.renew(KEY, "a", 5),
        lambda: store.publish(KEY, "a", b"x"),
        lambda: store.release(KEY, "a"),
        lambda: store.put(KEY, b"x"),
        lambda: store.cache_stats("alpaca:{fp}"),
        lambda: store.admit(RULES, ticket),
        lambda: store.settle(RULES, ticket, Outcome(failed=False, remaining=40, limit=50, reset_at=1.0)),
        lambda: store.limits(RULES),
        lambda: store.leave(RULES, ticket),
        lambda: store.drop("alpaca:{fp}"),
    )
    for operation in operations:
        operation()
    return len(operations)


def unavailable(store: Store, within_s: float = 10, key: str = KEY) -> str:
    """Return the message of an operation that must fail, and soon."""
    began = time.monotonic()
    with pytest.raises(StoreUnavailable) as caught:
        store.put(key, b"x")
    assert time.monotonic() - began < within_s
    return caught.value.message


@pytest.fixture
def server(tmp_path: Path) -> Iterator[valkey.Server]:
    with valkey.server(tmp_path) as one:
        yield one


def commands_seen(server: valkey.Server, store: Store) -> list[str]:
    """Return the commands that clients sent while every operation ran; those of scripts are not a round trip."""
    with server.client() as watcher, watcher.monitor() as monitor, server.client() as marker:
        every_operation(store)
        marker.echo("enough")
        seen: list[str] = []
        for line in monitor.listen():
            if "enough" in line["command"]:
                return seen
            if line["client_type"] != "lua":
                seen.append(line["command"].split(" ", 1)[0].upper())
    raise AssertionError("the monitor ended")


def test_every_operation_is_one_round_trip(server: valkey.Server) -> None:
    store = RedisStore(server.url)
    count = every_operation(store)
    assert commands_seen(server, store) == ["EVALSHA"] * count
    store.close()


def test_a_new_process_pays_only_its_connection(server: valkey.Server) -> None:
    """No greeting, no client name: the first command on the wire is the script."""
    warm, cold = RedisStore(server.url), RedisStore(server.url)
    every_operation(warm)
    seen = commands_seen(server, cold)
    assert seen == ["EVALSHA"] * len(seen)
    warm.close()
    cold.close()


def test_a_waiter_in_a_form_that_cannot_be_read_is_dropped(server: valkey.Server) -> None:
    """What another version left there may not fail every request until it expires."""
    store = RedisStore(server.url)
    with server.client() as client:
        client.hset("alpaca:{fp}:~waiting", "old", "7 soon now 0 another version")
        assert isinstance(store.admit(RULES, Ticket("t", "job")), Granted)
        assert not client.hexists("alpaca:{fp}:~waiting", "old")
    store.close()


def test_nothing_is_left_without_an_expiry(server: valkey.Server) -> None:
    store = RedisStore(server.url)
    store.put(KEY, b"x")
    store.claim("alpaca:{fp}:positions", 5, 5, "a")
    for n in range(40):
        store.admit(RULES, Ticket(f"t{n}", "job"))
    store.settle(RULES, Ticket("t0", "job"), Outcome(failed=True, remaining=1, limit=40))
    store.get(KEY, 5)
    store.close()
    with server.client() as client:
        names = client.keys("*")
        assert isinstance(names, list)
        assert len(names) == 9
        assert [name for name in names if client.ttl(name) == -1] == []


def test_a_script_that_the_server_forgot_is_sent_again(server: valkey.Server) -> None:
    store = RedisStore(server.url)
    store.put(KEY, b"x")
    with server.client() as client:
        client.script_flush()
    assert store.get(KEY, 5) is not None
    store.close()


def test_a_foreign_value_under_our_key_is_a_miss_and_gets_replaced(server: valkey.Server) -> None:
    store = RedisStore(server.url)
    with server.client() as client:
        client.set(KEY, "from an older version")
    assert store.get(KEY, 5) is None
    store.put(KEY, b"x")
    assert store.get(KEY, 5) is not None
    store.close()


def test_a_refused_connection_is_told_with_its_address() -> None:
    port = valkey.free_port()
    store = RedisStore(f"redis://:hunter2@127.0.0.1:{port}")
    message = unavailable(store)
    assert f"127.0.0.1:{port}" in message
    assert "hunter2" not in message


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster", "redis+sentinel"])
def test_a_server_that_accepts_and_never_answers_is_given_up(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        store = RedisStore(
            f"{scheme}://127.0.0.1:{listener.getsockname()[1]}" + ("/paper" if "sentinel" in scheme else "")
        )
        unavailable(store)
        store.close()


def test_a_password_is_needed_and_never_shown(tmp_path: Path) -> None:
    with valkey.server(tmp_path, "--requirepass", "right-Secret1") as server:
        address = f"127.0.0.1:{server.port}"
        assert "uthentication" in unavailable(RedisStore(f"redis://{address}"))
        wrong = RedisStore(f"redis://:wrong-Secret2@{address}")
        assert "wrong-Secret2" not in unavailable(wrong)
        wrong.close()
        right = RedisStore(f"redis://:right-Secret1@{address}")
        right.put(KEY, b"x")
        right.close()


def test_a_full_server_is_unavailable_for_writing_and_still_answers_what_it_has(server: valkey.Server) -> None:
    store = RedisStore(server.url)
    store.put(KEY, b"x")
    with server.client() as client:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", "1")
        assert "memory" in unavailable(store)
        assert "memory" in unavailable(store, key="alpaca:{fp}:never kept")
        assert store.get(KEY, 60) is not None
        with pytest.raises(StoreUnavailable):
            store.claim("alpaca:{fp}:positions", 5, 5, "a")
        client.config_set("maxmemory", "0")
    store.put(KEY, b"x")
    store.close()


def test_a_server_killed_and_started_again_is_used_again(server: valkey.Server) -> None:
    store = RedisStore(server.url)
    store.put(KEY, b"x")
    server.kill()
    unavailable(store)
    unavailable(store)
    server.start()
    store.put(KEY, b"y")
    found = store.get(KEY, 60)
    assert found is not None
    assert found.value == b"y"
    store.close()


def test_a_server_killed_in_the_middle_of_a_command(server: valkey.Server) -> None:
    store = RedisStore(server.url)
    store.put(KEY, b"x")
    with server.client() as client:
        client.client_pause(60_000)  # the next write is taken, and not answered
    killer = threading.Timer(0.2, server.kill)
    killer.start()
    unavailable(store)
    killer.join()
    store.close()


def test_a_replica_that_refuses_writes_is_unavailable(server: valkey.Server) -> None:
    store = RedisStore(server.url)
    with server.client() as client:
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
    assert "read only" in unavailable(store)
    store.close()


def test_a_promoted_replica_is_found_through_the_sentinel(tmp_path: Path) -> None:
    with valkey.sentinel_group(tmp_path) as (master, replica, sentinel):
        store = RedisStore(f"redis+sentinel://127.0.0.1:{sentinel.port}/paper/0")
        store.put(KEY, b"before")
        master.kill()
        unavailable(store)

        def works_again() -> bool:
            try:
                store.put(KEY, b"after")
            except StoreUnavailable:
                return False
            return True

        valkey.wait_for(works_again)
        with replica.client() as client:
            assert client.hget(KEY, "value") == b"after"
        store.close()


def test_a_store_that_is_closed_has_no_connection_to_a_sentinel_left(tmp_path: Path) -> None:
    with valkey.sentinel_group(tmp_path) as (_, _, sentinel), sentinel.client() as client:
        url = f"redis+sentinel://127.0.0.1:{sentinel.port}/paper/0"
        kept = open_client(parse_url(url))  # else the garbage would close it, some time
        store = RedisStore(url, connect=lambda: kept)
        store.put(KEY, b"value")
        assert len(client.client_list()) == 2
        store.close()
        valkey.wait_for(lambda: len(client.client_list()) == 1)


def test_a_cluster_that_lost_the_accounts_node_is_unavailable_and_heals(tmp_path: Path) -> None:
    with valkey.cluster(tmp_path) as servers:
        store = RedisStore("redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in servers))
        every_operation(store)
        for server in servers:
            server.kill()
        unavailable(store)
        unavailable(store)
        for server in servers:
            server.start()

        def works_again() -> bool:
            try:
                store.put(KEY, b"after")
            except StoreUnavailable:
                return False
            return True

        valkey.wait_for(works_again)
        store.close()


def test_a_cluster_keeps_an_account_on_one_slot(tmp_path: Path) -> None:
    with valkey.cluster(tmp_path) as servers:
        store = RedisStore(f"redis+cluster://127.0.0.1:{servers[1].port}")
        every_operation(store)
        store.put(KEY, b"x")
        store.close()
        holding = []
        for server in servers:
            with server.client() as client:
                names = client.keys("*")
                assert isinstance(names, list)
                holding.append(len(names))
        assert sorted(holding)[:2] == [0, 0]
