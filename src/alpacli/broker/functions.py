"""The shared cache for the user's own functions: ``@paper.cached(ttl=30)``.

A result is kept as canonical JSON and comes back as the type that the function is annotated with, the first time as every
other and in any process; without an annotation as what JSON has. Any number of processes that call together run the function
once. What has no JSON form is refused, never pickled.

Results belong to a function, not to its name alone: two scripts both have a ``target``, and a new version of one is another
function. A ``key`` of the user's own is taken as it is.
"""

import functools
import hashlib
import inspect
import os
import sys
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import fields, is_dataclass
from types import CodeType
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Protocol, TypeVar, cast, get_type_hints

from alpacli.arguments import seconds
from alpacli.broker.lease import LEASE_S, Heartbeat
from alpacli.domain.values import from_json, to_json
from alpacli.errors import UsageError
from alpacli.ports import Busy, Clock, Lead, Randomness, Store, async_sleep

if TYPE_CHECKING:
    from alpacli.threads import Threads

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

_HINT: Final = "arguments and results are shared between processes as JSON: text, numbers, lists, dicts, models"
_KEY: Final = "name them with key=, or pass as an argument what the function needs"
_SCRIPT: Final = ("__main__", "__mp_main__")
"""What the script is called as a module, in itself and in a worker that ``multiprocessing`` has spawned."""
_STEPS: Final = 8
"""Threads at most that ask the store for ``async`` functions."""


class CachedFunction(Protocol[P, R_co]):
    """A function whose results are kept: called as it was before."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

    def invalidate(self) -> int:
        """Forget all its results, for every process; return how many there were."""


class FunctionCache:
    """Wraps functions so that their results live in ``store`` below ``scope``."""

    def __init__(self, store: Store, scope: str, clock: Clock, rng: Randomness) -> None:
        self.store = store
        self.clock = clock
        self.rng = rng
        self._scope = scope
        self._threads: Threads | None = None

    def threads(self) -> "Threads":
        """Return the threads in which the store is asked for event loops; they end by themselves."""
        if self._threads is None:
            from alpacli.threads import Threads

            self._threads = Threads(_STEPS, "functions")
        return self._threads

    def cached(
        self, ttl: float, *, key: str | None = None, begin: Callable[[], None] = lambda: None
    ) -> Callable[[Callable[P, R]], CachedFunction[P, R]]:
        """Return the decorator that ``AlpacaClient.cached`` tells of; ``begin`` is called first, and may refuse the call."""
        ttl = seconds("ttl", ttl)

        def decorate(function: Callable[P, R]) -> CachedFunction[P, R]:
            name = f"{self._scope}:fn:{key or _identity(function)}"
            entry = _Entry(self, name, ttl, function)

            def invalidate() -> int:
                begin()
                return self.store.drop(name)

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


def _identity(function: Callable[..., Any]) -> str:
    """Name a function by where it is, what it does and what it was made with.

    Source of the idea: Streamlit's ``cache_data``, which tells functions apart by their names and code.
    """
    digest = hashlib.sha256()
    _Portrait(digest.update).add_function(function)
    plain = inspect.unwrap(function)
    module = "__main__" if plain.__module__ in _SCRIPT else plain.__module__
    return f"{module}.{plain.__qualname__}:{digest.hexdigest()[:16]}"


class _Portrait:
    """Adds to a hash all that tells a function from others: what is the same in every process, and nothing else."""

    def __init__(self, add: Callable[[bytes], object]) -> None:
        self._add = add
        self._seen: set[int] = set()

    def add_function(self, function: Any) -> None:
        """Add a function, those that it was decorated with, and the values around them.

        Raises:
            UsageError: something of it is like nothing else, or has nothing to be told by.
        """
        if id(function) in self._seen:
            return  # it refers to itself
        self._seen.add(id(function))
        if inspect.ismethod(function):
            self._value("self", function.__self__)
            function = function.__func__
        code = getattr(function, "__code__", None)
        if code is None:
            raise UsageError(f"{function!r} has no code of its own to be told by", _KEY)
        self._text(_place(function), function.__qualname__)
        self._code(code)
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            try:
                value = cell.cell_contents
            except ValueError:
                continue  # it has no value yet
            self._value(name, value)
        wrapped = getattr(function, "__wrapped__", None)
        if wrapped is not None:
            self.add_function(wrapped)

    def _value(self, name: str, value: Any) -> None:
        kind = type(value)
        self._text(name, kind.__module__, kind.__qualname__)
        try:
            self._add(to_json(value))
        except TypeError:
            if isinstance(value, list | tuple | set | frozenset):
                self._values(name, value)
            elif isinstance(value, dict):
                self._values(name, [part for pair in value.items() for part in pair])
            elif isinstance(value, bytes):
                self._add(value)
            elif isinstance(value, type) or inspect.ismodule(value) or _is_built_in(value):
                self._text(repr(value))
            elif inspect.isfunction(value) or inspect.ismethod(value):
                self.add_function(value)
            elif is_dataclass(value):
                self._values(name, [getattr(value, field.name) for field in fields(value)])
            elif not kind.__module__.startswith("alpacli."):  # which client it is does not matter: it is of one account
                what = f"it was made with {name!r}, and nothing tells one {kind.__qualname__} from another"
                raise UsageError(f"results cannot be kept: {what}", _KEY) from None

    def _values(self, name: str, values: Iterable[Any]) -> None:
        if isinstance(values, set | frozenset):
            values = sorted(values, key=repr)  # their order changes from process to process
        for value in values:
            self._value(name, value)

    def _code(self, code: CodeType) -> None:
        """Add what code does, and not where it stands: a comment above it makes no other function of it."""
        for part in (code.co_code, code.co_exceptiontable):
            self._add(part)
        counts = (code.co_flags, code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount)
        self._text(repr((counts, code.co_names, code.co_varnames, code.co_freevars)))
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                self._code(constant)
            elif isinstance(constant, frozenset):
                self._text(repr(sorted(map(repr, constant))))
            else:
                self._text(repr(constant))

    def _text(self, *texts: str) -> None:
        self._add(repr(texts).encode())


def _is_built_in(value: Any) -> bool:
    return inspect.isbuiltin(value) and inspect.ismodule(value.__self__)


def _place(function: Any) -> str:
    """Return the module of a function; of one in a script the script, for all of them are called ``__main__``."""
    if function.__module__ not in _SCRIPT:
        return str(function.__module__)
    main = sys.modules[function.__module__]
    spec = getattr(main, "__spec__", None)
    return spec.name if spec is not None else os.path.realpath(getattr(main, "__file__", ""))


class _Entry:
    def __init__(self, cache: FunctionCache, name: str, ttl: float, function: Callable[..., Any]) -> None:
        self._store = cache.store
        self._clock = cache.clock
        self._rng = cache.rng
        self._threads = cache.threads
        self._name = name
        self._called = getattr(function, "__qualname__", repr(function))
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
        heartbeat = Heartbeat(lambda: self._store.renew(key, token, LEASE_S))
        try:
            heartbeat.start()
            value, result = self._as_kept(self._function(*args, **kwargs))
            self._publish(heartbeat, key, token, value)
        except BaseException:
            self._give_back(heartbeat, key, token)
            raise
        return result

    async def call_async(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        import asyncio

        threads = self._threads()
        key, token = self._key(args, kwargs), self._rng.token()
        try:
            while not isinstance(
                found := await threads.to_the_end(lambda: self._store.claim(key, self._ttl, LEASE_S, token)), Lead
            ):
                if isinstance(found, Busy):
                    await async_sleep(found.retry_in_s)
                    continue
                try:
                    return self._restore(found.value)
                except ValueError:
                    await threads.to_the_end(lambda: self._store.drop(key))  # a miss, never an error
        except asyncio.CancelledError:
            await threads.to_the_end(lambda: self._store.release(key, token))  # it may have been ours already
            raise
        heartbeat = Heartbeat(lambda: self._store.renew(key, token, LEASE_S))
        try:
            heartbeat.start()
            value, result = self._as_kept(await cast("Awaitable[Any]", self._function(*args, **kwargs)))
            await threads.to_the_end(lambda: self._publish(heartbeat, key, token, value))
        except GeneratorExit:
            threads.submit(lambda: self._give_back(heartbeat, key, token))  # who is being closed may not wait
            raise
        except BaseException:
            await threads.to_the_end(lambda: self._give_back(heartbeat, key, token))
            raise
        return result

    def _give_back(self, heartbeat: Heartbeat, key: str, token: str) -> None:
        heartbeat.stop()
        self._store.release(key, token)

    def _publish(self, heartbeat: Heartbeat, key: str, token: str, value: bytes) -> None:
        heartbeat.stop()
        self._store.publish(key, token, value)

    def _key(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        try:
            arguments = to_json(dict(bound.arguments))
        except TypeError as error:
            raise UsageError(f"{self._called} cannot be cached: {error}", _HINT) from None
        return f"{self._name}:{hashlib.sha256(arguments).hexdigest()[:16]}"

    def _as_kept(self, result: Any) -> tuple[bytes, Any]:
        """Return the JSON of a result, and what everybody makes of it who finds it there."""
        try:
            value = to_json(result)
        except TypeError as error:
            raise UsageError(f"{self._called} cannot be cached: {error}", _HINT) from None
        try:
            return value, self._restore(value)
        except ValueError as error:
            what = f"{self._called} returned something else than its annotation says: {error}"
            raise UsageError(what, "annotate it with the type that it returns") from None

    def _restore(self, value: bytes) -> Any:
        if self._adapter is None:
            from pydantic import TypeAdapter

            hints = get_type_hints(self._function) if hasattr(self._function, "__annotations__") else {}
            self._adapter = TypeAdapter(hints.get("return", Any))
        return self._adapter.validate_python(from_json(value))
