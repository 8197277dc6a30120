"""The shared cache for the user's own functions: ``@paper.cached(ttl=30)``.

A result is kept as canonical JSON and comes back as the type that the function is annotated with, also in another process;
any number of processes that call together run the function once. What has no JSON form is refused, never pickled.
"""

import functools
import hashlib
import inspect
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, ParamSpec, Protocol, TypeVar, cast, get_type_hints

from alpacli.broker.lease import LEASE_S, Heartbeat
from alpacli.domain.values import from_json, to_json
from alpacli.errors import UsageError
from alpacli.ports import Busy, Clock, Lead, Randomness, Store

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

_HINT: Final = "arguments and results are shared between processes as JSON: text, numbers, lists, dicts, models"


class CachedFunction(Protocol[P, R_co]):
    """A function whose results are kept: called as it was before."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

    def invalidate(self) -> int:
        """Forget all its results, for every process; return how many there were."""


class FunctionCache:
    """Wraps functions so that their results live in ``store`` below ``scope``."""

    def __init__(self, store: Store, scope: str, clock: Clock, rng: Randomness) -> None:
        self._store = store
        self._scope = scope
        self._clock = clock
        self._rng = rng

    def cached(
        self, ttl: float, *, key: str | None = None, begin: Callable[[], None] = lambda: None
    ) -> Callable[[Callable[P, R]], CachedFunction[P, R]]:
        """Return the decorator that ``AlpacaClient.cached`` tells of; ``begin`` is called first, and may refuse the call."""

        def decorate(function: Callable[P, R]) -> CachedFunction[P, R]:
            name = f"{self._scope}:fn:{key or f'{function.__module__}.{function.__qualname__}'}"
            entry = _Entry(self._store, self._clock, self._rng, name, ttl, function)

            def invalidate() -> int:
                begin()
                return self._store.drop(name)

            wrapper: Any
            if inspect.iscoroutinefunction(function):

                @functools.wraps(function)
                async def wrapper(*args: P.args, **kwargs: P.kwargs) -> Any:
                    begin()
                    return await entry.call_async(args, kwargs)

            else:

                @functools.wraps(function)
                def wrapper(*args: P.args, **kwargs: P.kwargs) -> Any:
                    begin()
                    return entry.call(args, kwargs)

            wrapper.invalidate = invalidate
            return cast("CachedFunction[P, R]", wrapper)

        return decorate


class _Entry:
    def __init__(
        self, store: Store, clock: Clock, rng: Randomness, name: str, ttl: float, function: Callable[..., Any]
    ) -> None:
        self._store = store
        self._clock = clock
        self._rng = rng
        self._name = name
        self._ttl = ttl
        self._function = function
        self._signature = inspect.signature(function)
        self._adapter: Any = None

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        key, token = self._key(args, kwargs), self._rng.token()
        while not isinstance(found := self._store.claim(key, self._ttl, LEASE_S, token), Lead):
            if isinstance(found, Busy):
                self._clock.sleep(found.retry_in_s)
                continue
            try:
                return self._restore(found.value)
            except ValueError:
                self._store.drop(key)  # an entry that can't be read is a miss, never an error
        with self._leading(key, token):
            result = self._function(*args, **kwargs)
            value = self._dump(result)
        self._store.publish(key, token, value)
        return result

    async def call_async(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        import asyncio

        key, token = self._key(args, kwargs), self._rng.token()
        while not isinstance(found := await asyncio.to_thread(self._store.claim, key, self._ttl, LEASE_S, token), Lead):
            if isinstance(found, Busy):
                await asyncio.to_thread(self._clock.sleep, found.retry_in_s)
                continue
            try:
                return self._restore(found.value)
            except ValueError:
                await asyncio.to_thread(self._store.drop, key)  # a miss, never an error
        with self._leading(key, token):
            result = await cast("Awaitable[Any]", self._function(*args, **kwargs))
            value = self._dump(result)
        await asyncio.to_thread(self._store.publish, key, token, value)
        return result

    @contextmanager
    def _leading(self, key: str, token: str) -> Iterator[None]:
        """Keep the lease while the function runs, and give it up when that fails."""
        heartbeat = Heartbeat(lambda: self._store.renew(key, token, LEASE_S))
        try:
            heartbeat.start()
            yield
            heartbeat.stop()
        except BaseException:
            heartbeat.stop()
            self._store.release(key, token)
            raise

    def _key(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        try:
            arguments = to_json(dict(bound.arguments))
        except TypeError as error:
            raise UsageError(f"{self._name.rpartition(':')[2]} cannot be cached: {error}", _HINT) from None
        return f"{self._name}:{hashlib.sha256(arguments).hexdigest()[:16]}"

    def _dump(self, result: Any) -> bytes:
        try:
            return to_json(result)
        except TypeError as error:
            raise UsageError(f"{self._name.rpartition(':')[2]} cannot be cached: {error}", _HINT) from None

    def _restore(self, value: bytes) -> Any:
        if self._adapter is None:
            from pydantic import TypeAdapter

            self._adapter = TypeAdapter(get_type_hints(self._function).get("return", Any))
        return self._adapter.validate_python(from_json(value))
