"""The store that many machines share: a Redis server, a Sentinel group or a cluster, each operation one script there.

It hides redis-py and the topologies. redis-py's own retries are off and its sockets give up after a second: a store that
does not answer is ``StoreUnavailable``, and the next one takes over. The password is in no message.
"""

import hashlib
from collections.abc import Callable
from functools import cache
from typing import Any, Final, NamedTuple, Protocol, cast
from urllib.parse import SplitResult, unquote, urlsplit

from redis import Redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import NoScriptError, RedisClusterException, RedisError
from redis.retry import Retry
from redis.sentinel import Sentinel

from alpacli.errors import ConfigError, StoreUnavailable
from alpacli.forks import Turns
from alpacli.ports import (
    HOSTS,
    Breaker,
    BudgetRules,
    Busy,
    CacheStats,
    Entry,
    Granted,
    Lead,
    LimitsReport,
    Outcome,
    Refused,
    Ticket,
    Wait,
    Waiting,
)
from alpacli.store import scripts
from alpacli.store.policy import (
    FLIGHT_S,
    FOREIGN_SKEW_S,
    GRACE_S,
    KEEP_S,
    LIVENESS_S,
    LONGEST_WAIT_S,
    MARGIN_S,
    POLL_S,
    TURN_S,
    scope_of,
    utilisation,
)

SOCKET_TIMEOUT_S: Final = 1.0
_HINT: Final = (
    "REDIS_URL is redis://[[user]:password@]host[:port][/db], rediss://…, "
    "redis+sentinel://host:port,host:port/master[/db] or redis+cluster://host:port,host:port"
)
_PORTS: Final = {"": 6379, "sentinel": 26379, "cluster": 6379}


class Client(Protocol):
    """The part of redis-py that is used. An answer holds ``bytes`` and ``int``."""

    def evalsha(self, sha: str, numkeys: int, *keys_and_args: str | bytes) -> Any: ...

    def eval(self, script: str, numkeys: int, *keys_and_args: str | bytes) -> Any: ...

    def close(self) -> None: ...


class Address(NamedTuple):
    """A ``REDIS_URL``, taken apart."""

    kind: str
    """How the servers stand together: ``sentinel``, ``cluster``, or empty for a single one."""
    tls: bool
    hosts: tuple[tuple[str, int], ...]
    username: str | None
    password: str | None
    db: int
    master: str

    def __str__(self) -> str:
        """Return where it leads, without the credentials."""
        return "redis " + ",".join(f"{host}:{port}" for host, port in self.hosts)


class RedisStore:
    """A store on the server that ``url`` names; ``connect`` opens the client, by default redis-py's for that topology.

    Connecting is lazy.

    Raises:
        ConfigError: the URL cannot be read.
    """

    def __init__(
        self,
        url: str,
        *,
        connect: Callable[[], Client] | None = None,
        flight_s: float = FLIGHT_S,
        liveness_s: float = LIVENESS_S,
        grace_s: float = GRACE_S,
    ) -> None:
        self.kind = "redis"
        self._address = parse_url(url)
        self._connect = connect or (lambda: open_client(self._address))
        self._flight_s = flight_s
        self._liveness_s = liveness_s
        self._grace_s = grace_s
        self._client: Client | None = None
        self._lock = Turns()

    # -------------------------------------------------------------------------------------------------- cache

    def get(self, key: str, max_age_s: float) -> Entry | None:
        found = self._cache(scripts.GET, key, _number(min(max_age_s, KEEP_S)))
        return _entry(found) if found else None

    def claim(self, key: str, max_age_s: float, lease_s: float, token: str) -> Entry | Lead | Busy:
        answer = self._cache(
            scripts.CLAIM, key, _number(min(max_age_s, KEEP_S)), _number(lease_s), token, _number(POLL_S)
        )
        if answer[0] == b"entry":
            return _entry(answer)
        if answer[0] == b"busy":
            return Busy(float(answer[1]))
        return Lead(key, token)

    def renew(self, key: str, token: str, lease_s: float) -> bool:
        return bool(self._cache(scripts.RENEW, key, token, _number(lease_s)))

    def publish(self, key: str, token: str, value: bytes) -> bool:
        return bool(self._cache(scripts.PUBLISH, key, token, value))

    def release(self, key: str, token: str) -> None:
        self._cache(scripts.RELEASE, key, token)

    def put(self, key: str, value: bytes) -> None:
        self._cache(scripts.PUT, key, value)

    def drop(self, prefix: str) -> int:
        return int(self._cache(scripts.DROP, prefix))

    def cache_stats(self, prefix: str) -> CacheStats:
        hits, misses, entries, size, oldest, newest = self._cache(scripts.STATS, prefix)
        return CacheStats(
            hits, misses, entries, size, float(oldest) if oldest else None, float(newest) if newest else None
        )

    # -------------------------------------------------------------------------------------------------- notes

    def note(self, key: str) -> tuple[int, bytes | None]:
        """Return version and value of a small note that stays until it is removed; it is no cache entry.

        The version counts every change and removal, also of a note that is not there now; 0: there never was one.
        """
        version, value = self._run(scripts.NOTE, 1, key)
        return int(version), value if isinstance(value, bytes) else None

    def set_note(self, key: str, value: bytes | None) -> int:
        """Keep a small note, or with ``None`` remove it; return its new version."""
        return int(self._run(scripts.SET_NOTE, 1, key, *(() if value is None else (value,))))

    def fields(self, key: str) -> dict[str, bytes]:
        """Return the small values that stay under the names of one key."""
        found = self._run(scripts.FIELDS, 1, key)
        return {name.decode(): value for name, value in zip(found[::2], found[1::2], strict=True)}

    def set_field(self, key: str, name: str, value: bytes | None) -> None:
        """Keep a small value under a name of a key, or with ``None`` remove it; others of that key stay as they are."""
        self._run(scripts.SET_FIELD, 1, key, name, *(() if value is None else (value,)))

    def forgetting(self) -> str:
        """Return why this server may forget what is to stay, the halt and what was sent; empty where it tells no reason."""
        client: Any = self._opened()
        try:
            memory = client.info("memory")
            if memory.get("maxmemory") and memory.get("maxmemory_policy") != "noeviction":
                return f"it drops keys when it is full (maxmemory-policy {memory['maxmemory_policy']})"
            if not client.info("persistence").get("aof_enabled") and client.config_get("save").get("save") == "":
                return "it keeps nothing over a restart (neither appendonly nor save)"
        except (RedisError, RedisClusterException, OSError):
            return ""  # a hosted one need not tell its settings
        return ""

    # ------------------------------------------------------------------------------------------------- budget

    def admit(self, rules: BudgetRules, ticket: Ticket) -> Granted | Wait | Refused:
        answer = self._budget(scripts.ADMIT, rules, ticket, _number(self._grace_s), _number(TURN_S))
        if answer[0] == b"granted":
            return Granted(probe=bool(answer[1]))
        if answer[0] == b"refused":
            return Refused(float(answer[1]))
        return Wait(float(answer[1]), int(answer[2]), float(answer[3]))

    def settle(self, rules: BudgetRules, ticket: Ticket, outcome: Outcome) -> None:
        told = (outcome.remaining, outcome.limit, outcome.reset_at)
        self._budget(
            scripts.SETTLE,
            rules,
            ticket,
            "" if outcome.failed is None else _flag(outcome.failed),
            *("" if number is None else _number(number) for number in told),
            _number(FOREIGN_SKEW_S),
            _flag(outcome.doubtful),
        )

    def leave(self, rules: BudgetRules, ticket: Ticket) -> None:
        self._budget(scripts.LEAVE, rules, ticket)

    def limits(self, rules: BudgetRules) -> LimitsReport:
        limit, reserve, used, foreign, hour, reset_s, states, places = self._budget(
            scripts.LIMITS, rules, Ticket("", ""), *HOSTS
        )
        waiting = tuple(
            Waiting(label.decode(errors="replace"), float(since), bool(urgent)) for label, since, urgent in places
        )
        breakers = tuple(
            Breaker(host, state.decode(), float(retry_in_s))
            for host, (state, retry_in_s) in zip(HOSTS, states, strict=True)
        )
        return LimitsReport(
            limit, reserve, rules.window_s, used, foreign, utilisation(hour, rules), float(reset_s), waiting, breakers
        )

    def close(self) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            # A client behind sentinels keeps connections to them too, which its own closing leaves open.
            manager = getattr(getattr(client, "connection_pool", None), "sentinel_manager", None)
            for one in (client, *(manager.sentinels if manager is not None else ())):
                one.close()

    # ------------------------------------------------------------------------------------------------ scripts

    def _cache(self, script: str, key: str, *arguments: str | bytes) -> Any:
        scope = scope_of(key)
        return self._run(script, 4, key, f"{scope}:~hits", f"{scope}:~leases", f"{scope}:~index", key, *arguments)

    def _budget(self, script: str, rules: BudgetRules, ticket: Ticket, *arguments: str) -> Any:
        names = ("sent", "flying", "waiting", "budget", "usage")
        numbers = (
            rules.limit,
            rules.reserve,
            rules.window_s,
            rules.breaker_failures,
            rules.breaker_open_s,
            self._flight_s,
            self._liveness_s,
            LONGEST_WAIT_S,
            MARGIN_S,
        )
        return self._run(
            script,
            len(names),
            *(f"{rules.scope}:~{name}" for name in names),
            *(_number(number) for number in numbers),
            ticket.id,
            ticket.label,
            _flag(ticket.urgent),
            ticket.host,
            *arguments,
        )

    def _run(self, script: str, numkeys: int, *keys_and_args: str | bytes) -> Any:
        """Run one script: by its hash, and in full when the server does not know it (yet, or again after a restart)."""
        try:
            client = self._opened()
            try:
                return client.evalsha(script_hash(script), numkeys, *keys_and_args)
            except NoScriptError:
                return client.eval(script, numkeys, *keys_and_args)
        except (RedisError, RedisClusterException, OSError) as error:  # the second is not one of the first
            if self._address.kind == "cluster":
                # Its map of the nodes may be of a time before they failed; the next use draws a new one.
                self.close()
            raise StoreUnavailable(
                f"{self._address}: {self._reason(error)}", "is the server that REDIS_URL names running?"
            ) from None  # the cause may carry the credentials in its arguments

    def _opened(self) -> Client:
        with self._lock:
            if self._client is None:
                self._client = self._connect()
            return self._client

    def _reason(self, error: Exception) -> str:
        text = " ".join(str(error).split()) or type(error).__name__
        if self._address.password:
            text = text.replace(self._address.password, "***")
        return text[:200]


@cache
def script_hash(script: str) -> str:
    """Return the name under which a server knows a script that it has run."""
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()


def parse_url(url: str) -> Address:
    """Take a ``REDIS_URL`` apart.

    Raises:
        ConfigError: it is none. The message does not repeat it, because it may hold a password.
    """
    try:
        parts = urlsplit(url)
        scheme, _, kind = parts.scheme.partition("+")
        if scheme not in ("redis", "rediss") or kind not in ("", "sentinel", "cluster"):
            raise ValueError("the scheme is not one that is known")
        return _address(parts, kind, tls=scheme == "rediss")
    except ValueError as error:
        raise ConfigError(f"REDIS_URL cannot be read: {error}", _HINT) from None


def _address(parts: SplitResult, kind: str, *, tls: bool) -> Address:
    userinfo, _, netloc = parts.netloc.rpartition("@")
    username, _, password = userinfo.partition(":")
    if parts.query or parts.fragment:
        raise ValueError("it has a part behind ? or #")
    hosts = tuple(_host(text, _PORTS[kind]) for text in netloc.split(","))
    if len(hosts) > 1 and not kind:
        raise ValueError("more than one host")
    path = [unquote(part) for part in parts.path.strip("/").split("/") if part]
    master = ""
    if kind == "sentinel":
        if not path:
            raise ValueError("the name of the master is missing")
        master = path.pop(0)
    if len(path) > 1 or (path and not path[0].isdecimal()):
        raise ValueError("what follows the hosts is not the number of a database")
    db = int(path[0]) if path else 0
    if kind == "cluster" and db:
        raise ValueError("a cluster has only database 0")
    return Address(kind, tls, hosts, unquote(username) or None, unquote(password) or None, db, master)


def _host(text: str, default_port: int) -> tuple[str, int]:
    host, colon, port = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    if not colon:
        host = text
    host = host.removeprefix("[").removesuffix("]")
    if not host:
        raise ValueError("a host is missing")
    if colon and not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise ValueError("a port is not a number between 1 and 65535")
    return host, int(port) if colon else default_port


def open_client(address: Address) -> Client:
    """Open redis-py's client for the topology; a cluster's asks for its map of nodes at once, the others wait."""
    options: dict[str, Any] = {
        "username": address.username,
        "password": address.password,
        "ssl": address.tls,
        "socket_timeout": SOCKET_TIMEOUT_S,
        "socket_connect_timeout": SOCKET_TIMEOUT_S,
        "retry": Retry(NoBackoff(), 0),
        "driver_info": None,  # one round trip less for each connection
        "protocol": 2,
    }
    if address.kind == "cluster":
        nodes = [ClusterNode(host, port) for host, port in address.hosts]  # type: ignore[no-untyped-call] # redis-py's
        return cast("Client", RedisCluster(startup_nodes=nodes, **options))
    if address.kind == "sentinel":
        return _master_of(address, options)
    ((host, port),) = address.hosts
    return cast("Client", Redis(host=host, port=port, db=address.db, **options))


def _master_of(address: Address, options: dict[str, Any]) -> Client:
    """Ask the sentinels at every new connection, so that a promoted replica is found.

    Sentinels often have no password where the servers have one, so each is asked without it, and then with it.
    """
    anonymous = {**options, "username": None, "password": None}
    sentinel: Any = Sentinel(address.hosts, sentinel_kwargs=anonymous, **options)  # type: ignore[no-untyped-call] # redis-py's
    if address.password:
        sentinel.sentinels += [Redis(host=host, port=port, **options) for host, port in address.hosts]
    return cast("Client", sentinel.master_for(address.master, db=address.db))


def _entry(answer: list[bytes]) -> Entry:
    return Entry(answer[2], float(answer[1]))


def _number(value: float) -> str:
    return f"{value:.6f}"


def _flag(value: bool) -> str:  # noqa: FBT001 - a plain conversion
    return "1" if value else "0"
