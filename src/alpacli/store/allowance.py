"""What each client of all gateways has used of its own allowance, counted in Redis: one number a client that leaks away.

An allowance of N requests a minute can be used all at once or spread, and comes back as the minute goes by. The server's
clock counts, so machines whose clocks differ count alike. A client that has not come for two minutes has its whole allowance
again and is forgotten.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from redis.exceptions import NoScriptError, RedisClusterException, RedisError

from alpacli.errors import StoreUnavailable
from alpacli.store.baton import close_async_client, end_with_us, open_async_client
from alpacli.store.redis import SOCKET_TIMEOUT_S, parse_url, script_hash

PATIENCE_S: Final = 1.0
"""A request waits no longer than this for Redis to count it."""

# KEYS: the client's count. ARGV: requests a minute. Answers microseconds to wait; 0 when it was counted.
_SPEND: Final = """
local stamp = redis.call('TIME')
local now = tonumber(stamp[1]) * 1000000 + tonumber(stamp[2])
local rate = tonumber(ARGV[1]) / 60000000
local held = redis.call('HMGET', KEYS[1], 'spent', 'at')
local spent = math.max(tonumber(held[1] or '0') - math.max(now - tonumber(held[2] or '0'), 0) * rate, 0)
if spent + 1 > tonumber(ARGV[1]) then
  return string.format('%.0f', math.ceil((spent + 1 - tonumber(ARGV[1])) / rate))
end
redis.call('HSET', KEYS[1], 'spent', string.format('%.9f', spent + 1), 'at', string.format('%.0f', now))
redis.call('PEXPIRE', KEYS[1], 120000)
return '0'
"""


class SharedAllowance:
    """The counts of one account's gateways. Connecting is lazy; it belongs to the event loop that first counts.

    Raises:
        ConfigError: the URL cannot be read.
    """

    def __init__(
        self, url: str, scope: str, *, patience_s: float = PATIENCE_S, connect: Callable[[], Any] | None = None
    ) -> None:
        """Take the server's URL and the store's key prefix of the account (``alpaca:{FP}``).

        ``connect`` opens the asyncio client, by default redis-py's for that topology.
        """
        self._patience_s = patience_s
        self._address = parse_url(url)
        self._connect = connect or (lambda: open_async_client(self._address, max(SOCKET_TIMEOUT_S, patience_s)))
        self._scope = scope
        self._client: Any = None

    async def spend(self, client: str, rate: int) -> float:
        """Count one request of a client that may have ``rate`` a minute; return 0, or after how many seconds it may come.

        Raises:
            StoreUnavailable: the server does not answer, or not at once.
        """
        key = f"{self._scope}:~allowance:{client}"
        try:
            if self._client is None:
                self._client = self._connect()
            async with asyncio.timeout(self._patience_s):
                wait_us = await end_with_us(self._call(key, rate))
        except TimeoutError:
            raise StoreUnavailable(f"{self._address} did not answer within {self._patience_s:g} s", _HINT) from None
        except (RedisError, RedisClusterException, OSError) as error:
            raise StoreUnavailable(f"{self._address} does not answer: {type(error).__name__}", _HINT) from None
        return int(wait_us) / 1_000_000

    async def _call(self, key: str, rate: int) -> Any:
        try:
            return await self._client.evalsha(script_hash(_SPEND), 1, key, str(rate))
        except NoScriptError:
            return await self._client.eval(_SPEND, 1, key, str(rate))

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await close_async_client(client)


_HINT: Final = "is the server that REDIS_URL names running?"
