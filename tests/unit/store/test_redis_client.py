"""Where a ``REDIS_URL`` leads, which client goes there, and what becomes of it when something fails. No server is needed."""

from typing import Any

import pytest
from redis import Redis
from redis.connection import SSLConnection
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import NoScriptError, RedisError
from redis.sentinel import SentinelManagedSSLConnection

from alpacli.errors import ConfigError, StoreUnavailable
from alpacli.store.redis import Address, RedisStore, open_client, parse_url

KEY = "alpaca:{fp}:account"


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://host", Address("", False, (("host", 6379),), None, None, 0, "")),
        ("redis://host/", Address("", False, (("host", 6379),), None, None, 0, "")),
        ("redis://host:1/0", Address("", False, (("host", 1),), None, None, 0, "")),
        ("redis://host:65535/15", Address("", False, (("host", 65535),), None, None, 15, "")),
        ("rediss://me@[::1]", Address("", True, (("::1", 6379),), "me", None, 0, "")),
        ("redis://:a:b@c@host", Address("", False, (("host", 6379),), None, "a:b@c", 0, "")),
        (
            "rediss+sentinel://me:p%40ss%2F@[::1]:26380,two/my%20paper/3",
            Address("sentinel", True, (("::1", 26380), ("two", 26379)), "me", "p@ss/", 3, "my paper"),
        ),
        ("redis+sentinel://one/paper", Address("sentinel", False, (("one", 26379),), None, None, 0, "paper")),
        (
            "redis+cluster://one,two:7000/0",
            Address("cluster", False, (("one", 6379), ("two", 7000)), None, None, 0, ""),
        ),
    ],
)
def test_a_redis_url_is_understood_whole(url: str, address: Address) -> None:
    assert parse_url(url) == address


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "scheme"),
        ("localhost:6379", "scheme"),
        ("http://localhost:6379", "scheme"),
        ("http+sentinel://localhost:6379/paper", "scheme"),
        ("redis+proxy://host", "scheme"),
        ("redis://", "a host is missing"),
        ("redis://:secret-word@", "a host is missing"),
        ("redis://[]", "IPv6"),
        ("redis+cluster://one:1,,two:2", "a host is missing"),
        ("redis://:6379", "a host is missing"),
        ("redis://:secret-word@host:notaport", "a port is not a number"),
        ("redis://host:", "a port is not a number"),
        ("redis://host:0", "a port is not a number"),
        ("redis://host:-1", "a port is not a number"),
        ("redis://host:65536", "a port is not a number"),
        ("redis://host:70000", "a port is not a number"),
        ("redis://host:\u0666", "a port is not a number"),
        ("redis://host:\u00b2", "a port is not a number"),
        ("redis://host:6379/zero", "not the number of a database"),
        ("redis://host:6379/0/1", "not the number of a database"),
        ("redis+sentinel://host/paper/zero", "not the number of a database"),
        ("redis+sentinel://host/paper/0/1", "not the number of a database"),
        ("redis://one:1,two:2", "more than one host"),
        ("redis://host?ssl_cert_reqs=none", "a part behind"),
        ("redis://host#secret-word", "a part behind"),
        ("redis+sentinel://host:26379", "the name of the master is missing"),
        ("redis+cluster://host:6379/1", "only database 0"),
        ("redis://[::1", "IPv6"),
    ],
)
def test_an_unreadable_redis_url_is_a_configuration_error_that_says_why_without_the_password(
    url: str, why: str
) -> None:
    with pytest.raises(ConfigError, match="REDIS_URL") as caught:
        RedisStore(url)
    assert why in caught.value.message
    assert "secret-word" not in caught.value.message + caught.value.hint
    assert "redis+sentinel://" in caught.value.hint


def test_where_it_leads_is_told_without_the_password() -> None:
    assert str(parse_url("redis+sentinel://me:hunter2@[::1]:26380,two/paper")) == "redis ::1:26380,two:26379"


def options(client: Any) -> dict[str, Any]:
    return dict(client.connection_pool.connection_kwargs)


def test_one_server_is_asked_in_its_database_with_its_password_and_waits_no_longer_than_a_second() -> None:
    client: Any = open_client(parse_url("redis://me:hunter2@host:7000/3"))
    told = options(client)
    assert {name: told[name] for name in ("host", "port", "db", "username", "password")} == {
        "host": "host",
        "port": 7000,
        "db": 3,
        "username": "me",
        "password": "hunter2",
    }
    assert (told["socket_timeout"], told["socket_connect_timeout"]) == (1.0, 1.0)
    assert told["retry"].get_retries() == 0


def test_only_rediss_is_encrypted() -> None:
    clients: list[Any] = [open_client(parse_url(f"{scheme}://host")) for scheme in ("redis", "rediss")]
    assert [issubclass(one.connection_pool.connection_class, SSLConnection) for one in clients] == [False, True]
    guarded: Any = open_client(parse_url("rediss+sentinel://host/paper"))
    assert guarded.connection_pool.connection_class is SentinelManagedSSLConnection


def test_sentinels_are_asked_for_the_master_without_the_password_and_then_with_it() -> None:
    client: Any = open_client(parse_url("redis+sentinel://me:hunter2@one,two:7000/paper/3"))
    pool = client.connection_pool
    assert pool.service_name == "paper"
    assert pool.is_master
    assert [
        (told["host"], told["port"], told["password"]) for told in map(options, pool.sentinel_manager.sentinels)
    ] == [
        ("one", 26379, None),
        ("two", 7000, None),
        ("one", 26379, "hunter2"),
        ("two", 7000, "hunter2"),
    ]
    told = options(client)
    assert (told["db"], told["username"], told["password"]) == (3, "me", "hunter2")
    assert told["socket_timeout"] == 1.0


def test_sentinels_of_a_group_without_a_password_are_asked_once() -> None:
    client: Any = open_client(parse_url("redis+sentinel://one/paper"))
    assert len(client.connection_pool.sentinel_manager.sentinels) == 1


# -------------------------------------------------------------------------------------------- when something fails


class Scripted:
    """A client that answers with what it is given, one by one; an exception among the answers is raised."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []
        self.closed = 0

    def evalsha(self, sha: str, numkeys: int, *keys_and_args: str | bytes) -> Any:
        return self._answer("evalsha")

    def eval(self, script: str, numkeys: int, *keys_and_args: str | bytes) -> Any:
        return self._answer("eval")

    def info(self, section: str) -> Any:
        return self._answer(f"info {section}")

    def config_get(self, name: str) -> Any:
        return self._answer(f"config_get {name}")

    def close(self) -> None:
        self.closed += 1

    def _answer(self, command: str) -> Any:
        self.asked.append(command)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Opened:
    """A store whose clients are counted."""

    def __init__(self, url: str, *answers: Any) -> None:
        self.client = Scripted(*answers)
        self.times = 0
        self.store = RedisStore(url, connect=self.connect)

    def connect(self) -> Scripted:
        self.times += 1
        return self.client

    def failure(self) -> str:
        with pytest.raises(StoreUnavailable) as caught:
            self.store.put(KEY, b"x")
        assert "REDIS_URL" in caught.value.hint
        assert caught.value.__cause__ is None
        return caught.value.message


def test_one_connection_serves_until_it_is_closed_and_then_a_new_one() -> None:
    opened = Opened("redis://host", 1, 1, 1)
    opened.store.close()
    assert (opened.times, opened.client.closed) == (0, 0)
    opened.store.put(KEY, b"x")
    opened.store.put(KEY, b"x")
    opened.store.close()
    opened.store.close()
    assert (opened.times, opened.client.closed) == (1, 1)
    opened.store.put(KEY, b"x")
    assert opened.times == 2


def test_a_script_is_sent_in_full_only_to_a_server_that_does_not_know_it() -> None:
    opened = Opened("redis://host", NoScriptError(), 1, 1)
    opened.store.put(KEY, b"x")
    opened.store.put(KEY, b"x")
    assert opened.client.asked == ["evalsha", "eval", "evalsha"]


def test_after_a_failure_the_map_of_a_cluster_is_drawn_anew_and_others_keep_their_client() -> None:
    for kind, clients in (("redis://host", 1), ("redis+sentinel://host/paper", 1), ("redis+cluster://host", 2)):
        opened = Opened(kind, NoConnection("gone"), 1)
        opened.failure()
        opened.store.put(KEY, b"x")
        assert (opened.times, opened.client.closed) == (clients, clients - 1)


@pytest.mark.parametrize("error", [RedisError("gone"), OSError("gone"), NoConnection("gone\n  away")])
def test_every_failure_is_told_in_one_line_with_the_address(error: Exception) -> None:
    told = Opened("redis://host", error).failure()
    assert told == f"redis host:6379: {' '.join(str(error).split())}"


def test_a_failure_without_words_is_told_by_its_name_and_a_long_one_in_short() -> None:
    assert Opened("redis://host", NoConnection()).failure() == "redis host:6379: ConnectionError"
    assert Opened("redis://host", RedisError("x" * 500)).failure() == f"redis host:6379: {'x' * 200}"


def test_a_failure_that_repeats_the_password_is_told_without_it() -> None:
    error = RedisError("cannot log in with hunter2 as hunter2")
    assert Opened("redis://:hunter2@host", error).failure() == "redis host:6379: cannot log in with *** as ***"
    assert Opened("redis://host", RedisError("no password")).failure() == "redis host:6379: no password"


def test_the_real_client_is_redis_pys() -> None:
    assert isinstance(open_client(parse_url("redis://host")), Redis)


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        (({"maxmemory": 9, "maxmemory_policy": "allkeys-lru"},), "maxmemory-policy allkeys-lru"),
        (({"maxmemory": 9, "maxmemory_policy": "volatile-ttl"},), "maxmemory-policy volatile-ttl"),
        (({"maxmemory": 9, "maxmemory_policy": "noeviction"}, {"aof_enabled": 1}), ""),
        (({"maxmemory": 0, "maxmemory_policy": "allkeys-lru"}, {"aof_enabled": 1}), ""),
        (({}, {"aof_enabled": 0}, {"save": ""}), "nothing over a restart"),
        (({}, {}, {"save": "3600 1"}), ""),
        (({}, {}, {}), ""),
        ((RedisError("no permission"),), ""),
        (({}, {}, RedisError("no permission")), ""),
        ((OSError("gone"),), ""),
    ],
)
def test_a_server_that_may_forget_says_so_and_one_that_does_not_tell_is_trusted(answers: Any, told: str) -> None:
    opened = Opened("redis://host", *answers)
    found = opened.store.forgetting()
    assert told in found
    assert bool(found) == bool(told)
    assert opened.client.asked == ["info memory", "info persistence", "config_get save"][: len(answers)]
