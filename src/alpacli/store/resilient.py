"""What happens when the shared store fails: one warning, and the next one takes over, so that an answer is always given.

The chain is Redis, the embedded file, a private store in memory. An operation that fails is repeated on the next store;
leases that the lost one held are lost with it, which costs a request at most. A long-lived process asks the lost store again
after a while, and first tells it what was dropped in the meantime: it kept entries from before.

The budget is counted twice while there is a Redis: a request needs a slot of this machine, and then one of all machines. So
what this machine has sent is known here whatever becomes of Redis, and one that comes back without its counts, or without
those of the time it was away, gives no slot a second time.
"""

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from alpacli.errors import StoreUnavailable
from alpacli.forks import Turns
from alpacli.ports import (
    BREAKER_STATES,
    BudgetRules,
    Busy,
    CacheStats,
    Clock,
    Entry,
    Granted,
    Lead,
    LimitsReport,
    Outcome,
    Randomness,
    Refused,
    Store,
    Ticket,
    Wait,
)
from alpacli.store.policy import scope_of

T = TypeVar("T")

RETRY_S: Final = 15.0
_OWED_AT_MOST: Final = 32
_TAKES_OVER: Final = {
    "sqlite": "the embedded store of this machine takes over",
    "memory": "going on with a cache and a request budget of this process alone",
}


class _Owed:
    """The prefixes that one store has yet to drop: none lies below another, and of too many whole accounts remain."""

    def __init__(self) -> None:
        self._lock = Turns()
        self._calls = 0
        self._prefixes: dict[str, int] = {}

    def add(self, prefix: str) -> None:
        with self._lock:
            self._calls += 1
            self._merge(prefix)
            if len(self._prefixes) > _OWED_AT_MOST:
                for known in tuple(self._prefixes):
                    self._merge(scope_of(known))

    def _merge(self, prefix: str) -> None:
        wider = next((known for known in self._prefixes if _covers(known, prefix)), prefix)
        self._prefixes = {known: n for known, n in self._prefixes.items() if not _covers(wider, known)}
        self._prefixes[wider] = self._calls

    def pay(self, drop: Callable[[str], int]) -> None:
        """Drop everything; what is added meanwhile, also if it is the same once more, stays owed."""
        if not self._prefixes:
            return
        with self._lock:
            owed = tuple(self._prefixes.items())
        for prefix, call in owed:
            drop(prefix)
            with self._lock:
                if self._prefixes.get(prefix) == call:
                    del self._prefixes[prefix]


def _tighter(shared: LimitsReport, here: LimitsReport) -> LimitsReport:
    """Return what a request has to pass of both: who waits here has not come to the other, so nobody is in both."""
    breakers = tuple(
        max(one, other, key=lambda breaker: (BREAKER_STATES.index(breaker.state), breaker.retry_in_s))
        for one, other in zip(shared.breakers, here.breakers, strict=True)
    )
    least = min(shared, here, key=lambda report: report.limit - report.used)
    return least._replace(
        utilisation=max(shared.utilisation, here.utilisation),
        waiting=(*here.waiting, *shared.waiting),
        breakers=breakers,
    )


def _covers(prefix: str, other: str) -> bool:
    return other == prefix or other.startswith(f"{prefix}:")


class ResilientStore:
    """Uses the first of ``stores`` that works. The last one must not fail: its ``StoreUnavailable`` is passed on.

    ``warn`` gets one line, once in the life of this object, after the next store has answered.
    """

    def __init__(
        self,
        stores: Sequence[Store],
        clock: Clock,
        rng: Randomness,
        warn: Callable[[str], None],
        *,
        retry_s: float = RETRY_S,
    ) -> None:
        self._stores = tuple(stores)
        self._clock = clock
        self._rng = rng
        self._warn = warn
        self._retry_s = retry_s
        self._lock = Turns()
        self._lost_until = [float("-inf")] * len(self._stores)
        self._owed = [_Owed() for _ in self._stores]
        self._warned = False
        self._counts_twice = len(self._stores) > 1 and self._stores[0].kind == "redis"
        self._unsaid: list[str] = []
        self._granted_here: dict[str, Granted] = {}
        self.kind = self._stores[0].kind

    def get(self, key: str, max_age_s: float) -> Entry | None:
        return self._first(lambda store: store.get(key, max_age_s))

    def claim(self, key: str, max_age_s: float, lease_s: float, token: str) -> Entry | Lead | Busy:
        return self._first(lambda store: store.claim(key, max_age_s, lease_s, token))

    def renew(self, key: str, token: str, lease_s: float) -> bool:
        return self._first(lambda store: store.renew(key, token, lease_s))

    def publish(self, key: str, token: str, value: bytes) -> bool:
        return self._first(lambda store: store.publish(key, token, value))

    def release(self, key: str, token: str) -> None:
        self._first(lambda store: store.release(key, token))

    def put(self, key: str, value: bytes) -> None:
        self._first(lambda store: store.put(key, value))

    def drop(self, prefix: str) -> int:
        return self._first(lambda store: store.drop(prefix), missed=lambda owed: owed.add(prefix))

    def cache_stats(self, prefix: str) -> CacheStats:
        return self._first(lambda store: store.cache_stats(prefix))

    def admit(self, rules: BudgetRules, ticket: Ticket) -> Granted | Wait | Refused:
        if not self._counts_twice:
            return self._first(lambda store: store.admit(rules, ticket))
        here = self._granted_here.get(ticket.id) or self._here(lambda store: store.admit(rules, ticket))
        if not isinstance(here, Granted):
            return here
        self._granted_here[ticket.id] = here
        answer = self._first(lambda store: store.admit(rules, ticket) if store is self._stores[0] else here)
        if not isinstance(answer, Wait):
            del self._granted_here[ticket.id]
        if isinstance(answer, Refused):
            self._here(lambda store: store.leave(rules, ticket))
        return answer

    def settle(self, rules: BudgetRules, ticket: Ticket, outcome: Outcome) -> None:
        self._everywhere(lambda store: store.settle(rules, ticket, outcome))

    def leave(self, rules: BudgetRules, ticket: Ticket) -> None:
        self._granted_here.pop(ticket.id, None)
        self._everywhere(lambda store: store.leave(rules, ticket))

    def limits(self, rules: BudgetRules) -> LimitsReport:
        if not self._counts_twice:
            return self._first(lambda store: store.limits(rules))
        here = self._here(lambda store: store.limits(rules))
        return self._first(lambda store: _tighter(store.limits(rules), here) if store is self._stores[0] else here)

    def close(self) -> None:
        for store in self._stores:
            store.close()

    def _everywhere(self, operation: Callable[[Store], None]) -> None:
        if not self._counts_twice:
            self._first(operation)
            return
        self._here(operation)
        self._first(lambda store: operation(store) if store is self._stores[0] else None)

    def _here(self, operation: Callable[[Store], T]) -> T:
        """Run the operation on the first store of this machine that works, and say nothing: nobody asked for this one."""
        *stores, last = self._stores[1:]
        for place, store in enumerate(stores, 1):
            if self._clock.monotonic() >= self._lost_until[place]:
                try:
                    return operation(store)
                except StoreUnavailable as error:
                    self._lose(place)
                    self._unsaid = [error.message]
        return operation(last)

    def _lose(self, place: int) -> None:
        # Jitter: many processes that lost the same server do not all come back in the same second.
        self._lost_until[place] = self._clock.monotonic() + self._retry_s * (1.0 + 0.2 * self._rng.random())

    def _first(self, operation: Callable[[Store], T], missed: Callable[[_Owed], None] = lambda _: None) -> T:
        """Run the operation on the first store that is not lost; ``missed`` notes it for every one that is."""
        failures: list[str] = []
        last = self._stores[-1]
        for place, store in enumerate(self._stores[:-1]):
            if self._clock.monotonic() < self._lost_until[place]:
                missed(self._owed[place])
                continue
            try:
                self._owed[place].pay(store.drop)
                result = operation(store)
            except StoreUnavailable as error:
                self._lose(place)
                failures.append(error.message)
                missed(self._owed[place])
                continue
            self._settle_on(store, failures)
            return result
        result = operation(last)
        self._settle_on(last, failures)
        return result

    def _settle_on(self, store: Store, failures: list[str]) -> None:
        self.kind = store.kind
        if not failures:
            return
        with self._lock:
            if self._warned:
                return
            self._warned = True
        self._warn(
            f"shared store unavailable ({'; '.join((*failures, *self._unsaid))}): {_TAKES_OVER.get(store.kind, store.kind)}"
        )
