"""The baton: among many processes on many machines one holds what only one may hold, and tells the others; in Redis.

Whoever has the lease is the holder. It renews the lease, says things in a stream that everybody else reads, and learns what
the others want. Each taking has a number that is higher than all before (the fence), and what is said under an older one is
refused, so a holder that was asleep cannot speak into the next one's time. Streams rather than publish and subscribe: a
reader that lost its connection for a moment reads on where it was, and they are the same on one server, behind Sentinel and
in a cluster.

It knows bytes, not what they mean. Every key carries the baton's name in braces, so a cluster keeps it on one slot, and
expires when nobody has been there for an hour.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisClusterException, RedisError

from alpacli.errors import StoreUnavailable
from alpacli.store.redis import SOCKET_TIMEOUT_S, Address, parse_url, script_hash

T = TypeVar("T")

LEASE_S: Final = 3.0
"""A holder that has not renewed for this long is gone."""

MEMBER_S: Final = 10.0
"""What a member wants is forgotten when it has not been there for this long."""

_AGAIN_S: Final = 0.05

_KEEP: Final = """
local function keep()
  for _, key in ipairs(KEYS) do redis.call('EXPIRE', key, 3600) end
end
local function say(stream, fence, number, kind, content)
  redis.call('XADD', stream, 'MAXLEN', '~', 2000, '*', 'f', fence, 'n', number, 'k', kind, 'b', content)
end
"""

# KEYS: baton, seen, wants, said, asked. ARGV: member, take, known version, wants given, wants, lease us, member us
_ATTEND: Final = (
    _KEEP
    + """
local stamp = redis.call('TIME')
local now = tonumber(stamp[1]) * 1000000 + tonumber(stamp[2])
local function text(number) return string.format('%.0f', number) end
local held = redis.call('HMGET', KEYS[1], 'holder', 'fence', 'until', 'lease', 'state')
local holder, fence, state = held[1] or '', held[2] or '0', held[5] or ''
local left, length = tonumber(held[3] or '0') - now, tonumber(held[4] or ARGV[6])
if left > length then
  -- The clock was set back: it lasts as long as a new one.
  left = length
  redis.call('HSET', KEYS[1], 'until', text(now + left))
end
if ARGV[2] == '1' and holder ~= ARGV[1] and left <= 0 then
  holder, fence, state = ARGV[1], text(math.max(now, tonumber(fence) + 1)), ''
  redis.call('HSET', KEYS[1], 'holder', holder, 'fence', fence)
  redis.call('HDEL', KEYS[1], 'state')
end
if holder == ARGV[1] then
  left = tonumber(ARGV[6])
  redis.call('HSET', KEYS[1], 'until', text(now + left), 'lease', text(left))
end
local gone = now + tonumber(ARGV[7])
redis.call('HSET', KEYS[2], ARGV[1], text(gone))
local seen = redis.call('HGETALL', KEYS[2])
for i = 1, #seen, 2 do
  local ends = tonumber(seen[i + 1])
  if ends < now then
    redis.call('HDEL', KEYS[2], seen[i])
    redis.call('HDEL', KEYS[3], seen[i])
    redis.call('HINCRBY', KEYS[1], 'version', 1)
  elseif ends > gone then
    redis.call('HSET', KEYS[2], seen[i], text(gone))
  end
end
if ARGV[4] == '1' and redis.call('HGET', KEYS[3], ARGV[1]) ~= ARGV[5] then
  redis.call('HSET', KEYS[3], ARGV[1], ARGV[5])
  redis.call('HINCRBY', KEYS[1], 'version', 1)
  if holder ~= ARGV[1] then redis.call('XADD', KEYS[5], 'MAXLEN', '~', 100, '*', 'm', ARGV[1]) end
end
local version = redis.call('HGET', KEYS[1], 'version') or '0'
local last = redis.call('XREVRANGE', KEYS[4], '+', '-', 'COUNT', 1)[1]
local asked = redis.call('XREVRANGE', KEYS[5], '+', '-', 'COUNT', 1)[1]
keep()
return {holder, fence, text(math.max(left, 0)), version, redis.call('HEXISTS', KEYS[3], ARGV[1]), state,
  last and last[1] or '0-0', asked and asked[1] or '0-0', redis.call('HLEN', KEYS[2]),
  holder == ARGV[1] and version ~= ARGV[3] and redis.call('HVALS', KEYS[3])}
"""
)

# KEYS: baton, said. ARGV: member, fence, (number, kind, content)...
_TELL: Final = (
    _KEEP
    + """
local held = redis.call('HMGET', KEYS[1], 'holder', 'fence')
if held[1] ~= ARGV[1] or held[2] ~= ARGV[2] then return 0 end
for i = 3, #ARGV, 3 do
  say(KEYS[2], ARGV[2], ARGV[i], ARGV[i + 1], ARGV[i + 2])
  if ARGV[i + 1] == 'S' then redis.call('HSET', KEYS[1], 'state', ARGV[i + 2]) end
end
-- The first of a stream; later on, attending does it, and the replicas are spared.
if redis.call('TTL', KEYS[2]) == -1 then keep() end
return 1
"""
)

# KEYS: baton, seen, wants, said. ARGV: member
_LEAVE: Final = (
    _KEEP
    + """
if redis.call('HDEL', KEYS[3], ARGV[1]) == 1 then redis.call('HINCRBY', KEYS[1], 'version', 1) end
redis.call('HDEL', KEYS[2], ARGV[1])
local held = redis.call('HMGET', KEYS[1], 'holder', 'fence')
if held[1] == ARGV[1] then
  redis.call('HDEL', KEYS[1], 'holder', 'until', 'lease', 'state')
  say(KEYS[4], held[2], '0', 'R', '')
end
keep()
"""
)

LINES: Final = "L"
EVENT: Final = "E"
STATE: Final = "S"
"""An event that is also kept for those who come later."""

RESIGNED: Final = "R"


class Parcel(NamedTuple):
    """Something said: under which fence, its number there (from 1, one by one), of which kind, and the content."""

    fence: int
    number: int
    kind: str
    content: bytes


class Attendance(NamedTuple):
    """How things stand. ``wants`` is what all want when this is the holder's and that has changed, else ``None``.

    ``left_s`` is what is left of the holder's lease, 0 when it is over; ``known`` says that one's wants are known. ``state``
    is what this holder last said as one, ``said_id`` and ``asked_id`` are where the streams end now.
    """

    holder: str
    fence: int
    left_s: float
    version: int
    known: bool
    state: bytes
    said_id: str
    asked_id: str
    members: int
    wants: list[bytes] | None


class Baton:
    """One baton of this ``name`` on the server that ``url`` names. Connecting is lazy; nothing here waits longer than 2 s.

    ``connect`` opens an asyncio client that waits for so many seconds, by default redis-py's for that topology.

    Raises:
        ConfigError: the URL cannot be read.
    """

    def __init__(self, url: str, name: str, *, connect: Callable[[float], Any] | None = None) -> None:
        self._address = parse_url(url)
        self._connect = connect or (lambda timeout_s: open_async_client(self._address, timeout_s))
        keys = [f"alpaca:{{{name}}}:~{part}" for part in ("baton", "seen", "wants", "said", "asked")]
        self._baton, self._seen, self._wants, self._said, self._asked = keys
        self._client: Any = None
        self._reader: Any = None

    async def attend(
        self, member: str, wants: bytes | None, *, take: bool, known_version: int = -1, lease_s: float = LEASE_S
    ) -> Attendance:
        """Say that one is there, what one wants (``None``: as before), and with ``take`` become the holder if there is none.

        Raises:
            StoreUnavailable: the server does not answer, or not in time.
        """
        answer = await self._run(
            _ATTEND,
            (self._baton, self._seen, self._wants, self._said, self._asked),
            member,
            "1" if take else "0",
            str(known_version),
            "0" if wants is None else "1",
            wants or b"",
            str(int(lease_s * 1_000_000)),
            str(int(MEMBER_S * 1_000_000)),
        )
        holder, fence, left_us, version, known, state, said_id, asked_id, members, all_want = answer
        return Attendance(
            holder.decode(),
            int(fence),
            int(left_us) / 1_000_000,
            int(version),
            bool(known),
            state,
            said_id.decode(),
            asked_id.decode(),
            int(members),
            all_want,
        )

    async def tell(self, member: str, fence: int, parcels: Sequence[Parcel]) -> bool:
        """Say something as the holder; false when another one is by now, and nothing was said.

        Raises:
            StoreUnavailable: as ``attend``.
        """
        flat = list[str | bytes]()
        for parcel in parcels:
            flat += (str(parcel.number), parcel.kind, parcel.content)
        return bool(await self._run(_TELL, (self._baton, self._said), member, str(fence), *flat))

    async def hear(self, after: str, block_s: float) -> tuple[str, list[Parcel]]:
        """Return what was said after an ID, and the ID to go on from; waits up to ``block_s`` for something.

        Raises:
            StoreUnavailable: as ``attend``.
        """
        last, entries = await self._read(self._said, after, block_s)
        return last, [
            Parcel(int(fields[b"f"]), int(fields[b"n"]), fields[b"k"].decode(), fields[b"b"]) for fields in entries
        ]

    async def hear_asked(self, after: str, block_s: float) -> str:
        """Wait up to ``block_s`` until somebody's wants have changed; return the ID to go on from.

        Raises:
            StoreUnavailable: as ``attend``.
        """
        return (await self._read(self._asked, after, block_s))[0]

    async def leave(self, member: str) -> None:
        """Want nothing any more; a holder gives the baton back, and says so.

        Raises:
            StoreUnavailable: as ``attend``.
        """
        await self._run(_LEAVE, (self._baton, self._seen, self._wants, self._said), member)

    async def close(self) -> None:
        clients, self._client, self._reader = (self._client, self._reader), None, None
        for client in clients:
            if client is not None:
                await close_async_client(client)

    # ------------------------------------------------------------------------------------------------ server

    async def _run(self, script: str, keys: Sequence[str], *arguments: str | bytes) -> Any:
        try:
            return await end_with_us(self._call(script, keys, *arguments))
        except (RedisError, RedisClusterException, OSError) as error:
            raise await self._failed(error) from None  # the cause may carry the credentials in its arguments

    async def _call(self, script: str, keys: Sequence[str], *arguments: str | bytes) -> Any:
        if self._client is None:
            self._client = self._connect(SOCKET_TIMEOUT_S)
        client = self._client  # while this waits, a failure elsewhere may take it away
        try:
            return await client.evalsha(script_hash(script), len(keys), *keys, *arguments)
        except NoScriptError:
            return await client.eval(script, len(keys), *keys, *arguments)

    async def _read(self, key: str, after: str, block_s: float) -> tuple[str, list[dict[bytes, bytes]]]:
        try:
            answer = await end_with_us(self._call_for_entries(key, after, block_s))
        except (RedisError, RedisClusterException, OSError) as error:
            raise await self._failed(error) from None
        entries = _entries(answer)
        return (entries[-1][0].decode() if entries else after), [fields for _, fields in entries]

    async def _call_for_entries(self, key: str, after: str, block_s: float) -> Any:
        if self._reader is None:
            self._reader = self._connect(SOCKET_TIMEOUT_S + 1.0)
        reader = self._reader
        block_ms = max(1, int(block_s * 1000))  # 0 would be for ever
        words = ("XREAD", "COUNT", 200, "BLOCK", block_ms, "STREAMS", key, after)
        if self._address.kind == "cluster":
            await reader.initialize()
            node = reader.get_node_from_key(key)  # else redis-py asks the server where the key is, each time
            return await reader.execute_command(*words, target_nodes=node)
        return await reader.execute_command(*words)

    async def _failed(self, error: Exception) -> StoreUnavailable:
        """Begin with new connections next time: after a failover the old ones lead nowhere."""
        await self.close()
        text = " ".join(str(error).split()) or type(error).__name__
        if self._address.password:
            text = text.replace(self._address.password, "***")
        return StoreUnavailable(f"{self._address}: {text[:200]}", "is the server that REDIS_URL names running?")


async def end_with_us(call: Coroutine[Any, Any, T]) -> T:
    """Wait for a call of redis-py's asyncio client, so that whoever is cancelled meanwhile has ended it, and ends too.

    redis-py awaits each sending with ``asyncio.wait_for``, which in Python 3.11 forgets a cancellation that comes when the
    bytes have just gone out: a task would go on as if nothing had been said. So the call is a task of its own, waited for in
    a way that forgets none, and told until it has ended.
    """
    task = asyncio.ensure_future(call)
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        while not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=_AGAIN_S)
        if not task.cancelled():
            task.exception()  # nobody waits for it any more, and asyncio need not say so
        raise
    return task.result()


async def close_async_client(client: Any) -> None:
    """Close what ``open_async_client`` opened, the connections to its sentinels too."""
    manager = getattr(getattr(client, "connection_pool", None), "sentinel_manager", None)
    for one in (client, *(manager.sentinels if manager is not None else ())):
        try:
            await one.aclose()
        except (RedisError, OSError):
            continue  # it is gone anyway


def _entries(answer: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """Return the entries of one stream, whichever shape this version of redis-py gives them."""
    if not answer:
        return []
    entries = next(iter(answer.values())) if isinstance(answer, dict) else answer[0][1]
    if entries and not (entries[0] and isinstance(entries[0][0], bytes)):
        entries = entries[0]  # an entry begins with its ID: these are entries in one more list
    return [
        (entry_id, fields if isinstance(fields, dict) else dict(zip(fields[::2], fields[1::2], strict=True)))
        for entry_id, fields in entries
    ]


def open_async_client(address: Address, timeout_s: float) -> Any:  # Any: three classes without a common one
    """Open redis-py's asyncio client for the topology; nothing is connected yet."""
    from redis.asyncio import Redis
    from redis.asyncio.cluster import ClusterNode, RedisCluster
    from redis.asyncio.retry import Retry
    from redis.asyncio.sentinel import Sentinel

    options: dict[str, Any] = {
        "username": address.username,
        "password": address.password,
        "ssl": address.tls,
        "socket_timeout": timeout_s,
        "socket_connect_timeout": SOCKET_TIMEOUT_S,
        "retry": Retry(NoBackoff(), 0),
        "driver_info": None,
        "protocol": 2,
    }
    if address.kind == "cluster":
        nodes = [ClusterNode(host, port) for host, port in address.hosts]
        return RedisCluster(startup_nodes=nodes, **options)
    if address.kind == "sentinel":
        anonymous = {**options, "username": None, "password": None}
        sentinel: Any = Sentinel(address.hosts, sentinel_kwargs=anonymous, **options)  # type: ignore[no-untyped-call] # redis-py leaves it untyped
        if address.password:
            sentinel.sentinels += [Redis(host=host, port=port, **options) for host, port in address.hosts]
        return sentinel.master_for(address.master, db=address.db)
    ((host, port),) = address.hosts
    return Redis(host=host, port=port, db=address.db, **options)
