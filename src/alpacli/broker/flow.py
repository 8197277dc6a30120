"""What happens to one call: cache -> single flight -> budget -> send -> classify -> retry -> publish.

The rules are generators that yield steps and receive their results, so they are written once and know neither threads nor
event loops nor sockets; ``drivers.py`` has the two that carry them out. A step that fails is thrown back in at its ``yield``.

Rules, from the contract: three requests at most, pauses with full jitter below 2 s and then 4 s; ``Retry-After`` or the
server's reset wins on 429; nothing is waited for beyond ``max_wait``; other 4xx are answers. What may have changed something
at the broker (POST, PATCH) is repeated only after a 429, which Alpaca sends before doing anything.
"""

import sys
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any, Final, Generic, NamedTuple, TypeVar

from alpacli.arguments import seconds
from alpacli.broker.fills import Fills
from alpacli.broker.functions import FunctionCache
from alpacli.broker.lease import LEASE_S, Heartbeat
from alpacli.errors import (
    AlpacliError,
    BudgetExhausted,
    CircuitOpen,
    ConnectionLost,
    NotFound,
    RateLimited,
    RequestTimeout,
    ServerError,
    UnreadableAnswer,
)
from alpacli.ports import (
    BudgetRules,
    Busy,
    Clock,
    Entry,
    Lead,
    Outcome,
    Randomness,
    Refused,
    Request,
    Response,
    Store,
    Ticket,
    Wait,
)
from alpacli.wire.errors import refusal
from alpacli.wire.rest import ORDERS_CHANGE, Call

T = TypeVar("T")

REQUESTS_AT_MOST: Final = 3
_SERVER: Final = {"trading": "Alpaca", "data": "Alpaca's market data"}
LARGE: Final = 128 * 1024
"""Bytes of JSON from which on reading and writing them is work, some 5 ms: `python -m benchmarks --only loop` has 14 MB."""
GONE: Final = Response(204, {}, b"")
"""Stands in for the lost answer to a DELETE when its repetition finds nothing."""


class Reading(NamedTuple, Generic[T]):
    """A value, its canonical JSON, and its age in seconds; ``None`` means it came from the broker just now."""

    value: T
    json: bytes
    age_s: float | None


class Do(NamedTuple):
    """Run a quick blocking function of the store."""

    run: Callable[[], Any]


class Work(Do):
    """Compute what may take long: an event loop must not stand still for it, and nobody minds when it is given up."""


class Send(NamedTuple):
    request: Request


class Pause(NamedTuple):
    """Wait; ``reason`` is for the person who is watching."""

    seconds: float
    reason: str


Step = Do | Send | Pause
Flow = Generator[Step, Any, T]


class Patience:
    """What is left of the waiting that one call may do, in seconds; it runs down inside ``with``.

    Only waiting counts: a broker that takes ten seconds to time out must not use up the pauses between its retries.
    """

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._left_s = seconds
        self._since: float | None = None

    def __enter__(self) -> None:
        self._since = self._clock.monotonic()

    def __exit__(self, *_: object) -> None:
        self._left_s, self._since = self.left_s, None

    @property
    def left_s(self) -> float:
        waited_s = 0.0 if self._since is None else self._clock.monotonic() - self._since
        return max(self._left_s - waited_s, 0.0)


def _decoded(call: Call[T], body: bytes) -> Flow[T]:
    return _worked(len(body), lambda: call.decode(body))


def _worked(size: int, work: Callable[[], T]) -> Flow[T]:
    """Do what takes the longer the more bytes it is about: a few at once, since a thread would cost more than they do."""
    if size < LARGE:
        return work()
    done: T = yield Work(work)
    return done


class Pipeline:
    """The rules with everything they need; one per client, safe to use from many threads at once."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        rng: Randomness,
        *,
        rules: BudgetRules,
        cache_ttl_s: Mapping[str, float],
        max_wait_s: float,
        patience_s: float,
        label: str,
    ) -> None:
        """Take the parts.

        ``cache_ttl_s`` overrides a call's own lifetime by its name; ``max_wait_s`` bounds the sum of all waiting within
        one call, over all its pages; ``patience_s`` is how long somebody else's fetch is waited for beyond that; ``label`` is
        shown to whoever asks who is waiting.
        """
        self.store = store
        self.rules = rules
        self.functions = FunctionCache(store, rules.scope, clock, rng)
        self._fills = Fills(
            lambda name: self.forget((name,)), clock, max(cache_ttl_s.get(n, 0.0) for n in ORDERS_CHANGE)
        )
        self._clock = clock
        self._rng = rng
        self._cache_ttl_s = cache_ttl_s
        self._max_wait_s = max_wait_s
        self._patience_s = patience_s
        self._label = label

    # ------------------------------------------------------------------------------------------ cache, single flight

    def read(self, call: Call[T], *, use_cache: bool, max_age: float | None) -> Flow[Reading[T]]:
        """Answer from the cache when it is fresh enough, else fetch once for everybody who is asking."""
        if max_age is not None:
            max_age = seconds("max_age", max_age, endless=True)
        patience = Patience(self._clock, self._max_wait_s)
        if call.cache_key is None:
            return (yield from self._fetch(call, patience))
        lifetime_s = self.lifetime_s(call) if max_age is None else max_age
        key = f"{self.rules.scope}:{call.cache_key}"
        fresh_only = not use_cache or lifetime_s <= 0
        token = self._rng.token()
        give_up_at = self._clock.monotonic() + self._max_wait_s + self._patience_s
        while True:
            try:
                found: Entry | Lead | Busy = yield Do(
                    lambda: self.store.claim(key, -1.0 if fresh_only else lifetime_s, LEASE_S, token)
                )
            except BaseException:
                yield from self.tidy(lambda: self.store.release(key, token))  # it may have been taken already
                raise
            if isinstance(found, Entry):
                try:
                    value = yield from _decoded(call, found.value)
                    return Reading(value, found.value, found.age_s)
                except UnreadableAnswer:
                    yield Do(lambda: self.store.drop(key))  # an entry that can't be read is a miss, never an error
                    continue
            if isinstance(found, Lead):
                return (yield from self._fetch_for_all(call, key, token, patience))
            if fresh_only or self._clock.monotonic() >= give_up_at:
                return (yield from self._fetch(call, patience))
            with patience:
                yield Pause(found.retry_in_s, "another process is fetching the same data")

    def _fetch_for_all(self, call: Call[T], key: str, token: str, patience: Patience) -> Flow[Reading[T]]:
        heartbeat = Heartbeat(lambda: self.store.renew(key, token, LEASE_S))
        try:
            heartbeat.start()
            reading = yield from self._fetch(call, patience)
            heartbeat.stop()
        except BaseException:
            yield from self.tidy(lambda: self._give_back(heartbeat, key, token))
            raise
        yield Do(lambda: self.store.publish(key, token, reading.json))
        return reading

    def _fetch(self, call: Call[T], patience: Patience) -> Flow[Reading[T]]:
        response = yield from self.exchange(call.request, patience, urgent=call.urgent)
        value, size = (yield from _decoded(call, response.body)), len(response.body)
        if call.next_page is not None:
            rows: Any = value
            page: Any = value
            request = call.request
            while (following := call.next_page(request, page, rows)) is not None:
                request = following
                response = yield from self.exchange(request, patience, urgent=call.urgent)
                page, size = (yield from _decoded(call, response.body)), size + len(response.body)
                rows = [*rows, *page]
            value = rows
        if call.trim is not None:
            value = call.trim(value)
        return Reading(value, (yield from _worked(size, lambda: call.encode(value))), None)

    def fetch(self, call: Call[T]) -> Flow[T]:
        """Send one request and return what it says: no cache, no further pages, no JSON form."""
        response = yield from self.exchange(call.request, self.patience(), urgent=call.urgent)
        return (yield from _decoded(call, response.body))

    def change(self, call: Call[T]) -> Flow[T]:
        """Send something that changes the account's state, and forget what the cache knew of it."""
        patience = Patience(self._clock, self._max_wait_s)
        try:
            response = yield from self.exchange(call.request, patience, urgent=call.urgent)
            if response is GONE and call.shows is not None:
                response = yield from self.exchange(call.shows, patience, urgent=call.urgent)
        finally:
            yield from self.tidy(
                lambda: self.forget(call.changes)
            )  # after a failure too: it may have happened all the same
        return call.decode(response.body)

    def forget(self, names: Iterable[str]) -> None:
        """Drop what a change made stale."""
        for name in names:
            self.store.drop(f"{self.rules.scope}:{name}")

    def tidy(self, work: Callable[[], object]) -> Flow[None]:
        """Tell the store how a flow ended, whatever ended it: a step like any, which an event loop does not stand still for.

        Only a flow that is being closed may not take one, and does it at once.
        """
        if isinstance(sys.exception(), GeneratorExit):
            work()
        else:
            yield Do(work)

    def _give_back(self, heartbeat: Heartbeat, key: str, token: str) -> None:
        heartbeat.stop()
        self.store.release(key, token)

    def lifetime_s(self, call: Call[Any]) -> float:
        """Return for how long an answer to this call is kept, in seconds."""
        return self._cache_ttl_s.get(call.name, call.ttl_s)

    def patience(self) -> Patience:
        """Return the waiting that one more call may do."""
        return Patience(self._clock, self._max_wait_s)

    def alone(self, name: str, work: Callable[[], Flow[T]]) -> Flow[T]:
        """Carry out a flow while no other process of this account, wherever it shares the store, is in one of that name.

        A holder that was killed is replaced when its lease ends.

        Raises:
            BudgetExhausted: others took longer than may be waited for; nothing was done.
        """
        key, token = f"{self.rules.scope}:~{name}", self._rng.token()
        give_up_at = self._clock.monotonic() + self._max_wait_s + self._patience_s
        heartbeat = Heartbeat(lambda: self.store.renew(key, token, LEASE_S))
        try:
            while True:
                found: Entry | Lead | Busy = yield Do(lambda: self.store.claim(key, -1.0, LEASE_S, token))
                if isinstance(found, Lead):
                    break
                if self._clock.monotonic() >= give_up_at:
                    raise BudgetExhausted(
                        "other processes place orders for this account, one after the other, and the turn did not come",
                        "try again, or wait longer, with max_wait (--max-wait); nothing was sent",
                    )
                yield Pause(found.retry_in_s if isinstance(found, Busy) else 0.0, "another process is placing an order")
            heartbeat.start()
            return (yield from work())
        finally:
            yield from self.tidy(lambda: self._give_back(heartbeat, key, token))

    # ------------------------------------------------------------------------------------------------ budget, sending

    def exchange(self, request: Request, patience: Patience, *, urgent: bool) -> Flow[Response]:
        """Send one request, at most three times, and return its good answer or raise what the last one was."""
        sent = 0
        doubtful = False
        failure: AlpacliError | None = None
        while True:
            ticket = Ticket(self._rng.token(), self._label, urgent, request.host)
            refused: Refused | None = yield from self._wait_for_turn(ticket, patience)
            if refused is not None:
                raise failure or CircuitOpen(
                    f"{_SERVER[request.host]} failed several times in a row, so nothing was sent",
                    f"the next try is allowed in {_seconds(refused.retry_in_s)}; max_age (--max-age 3600) takes cached data",
                    retry_after=round(refused.retry_in_s, 3),
                )
            response, failure = yield from self._send(request, ticket)
            sent += 1
            if response is not None:
                yield from self._heed_fills(request, response)
                return response
            if doubtful and request.method == "DELETE" and isinstance(failure, NotFound):
                return GONE  # the lost answer was a yes: what is gone cannot be deleted twice
            if failure is None or not failure.retryable or sent == REQUESTS_AT_MOST:
                raise failure or AssertionError
            limited = isinstance(failure, RateLimited)
            if not limited and request.method in ("POST", "PATCH"):
                raise failure
            doubtful = doubtful or not limited
            pause_s = self.pause_s(sent, failure)
            if limited and pause_s > patience.left_s:
                raise failure  # earlier than it was told to come back there is only another no
            with patience:
                yield Pause(min(pause_s, patience.left_s), "rate limited by Alpaca" if limited else failure.message)

    def _heed_fills(self, request: Request, response: Response) -> Flow[None]:
        if request.method != "GET" or not request.path.startswith("/v2/orders"):
            return
        from alpacli.wire import fills

        forget = self._fills.heard(fills.in_orders(response.body))
        if forget is not None:
            yield Do(forget)

    def _wait_for_turn(self, ticket: Ticket, patience: Patience) -> Flow[Refused | None]:
        try:
            with patience:
                while True:
                    turn = yield Do(lambda: self.store.admit(self.rules, ticket))
                    if isinstance(turn, Refused):
                        return turn
                    if not isinstance(turn, Wait):
                        return None
                    left_s = patience.left_s
                    if left_s <= 0:
                        report = yield Do(lambda: self.store.limits(self.rules))
                        raise self._exhausted(turn, report.limit)
                    yield Pause(min(turn.seconds, left_s), f"waiting for the request budget, {turn.ahead} ahead")
        except BaseException:
            yield from self.tidy(lambda: self.store.leave(self.rules, ticket))
            raise

    def _exhausted(self, turn: Wait, limit: int) -> BudgetExhausted:
        """Tell what is spent: our own limit, or the lower one that the server's headers told of."""
        retry_after = max(turn.earliest_s, 0.0)
        spent = (
            f"the {limit} requests per {self.rules.window_s:g} s that Alpaca allows (ALPACLI_RATE_LIMIT is"
            f" {self.rules.limit}) are spent"
            if limit < self.rules.limit
            else f"the shared budget of {limit} requests per {self.rules.window_s:g} s is spent"
        )
        return BudgetExhausted(
            spent,
            f"a request is free in {_seconds(retry_after)}: wait longer, with max_wait (--max-wait), or see who uses it with"
            " `alpacli limits`",
            retry_after=round(retry_after, 3),
        )

    def _send(self, request: Request, ticket: Ticket) -> Flow[tuple[Response | None, AlpacliError | None]]:
        try:
            response: Response = yield Send(request)
        except (RequestTimeout, ConnectionLost) as error:
            failure: AlpacliError | None = error
            outcome = Outcome(failed=True, doubtful=not error.nothing_sent)
            good = None
        except BaseException:
            # Interrupted: the request may be on its way, so its slot stays counted, and the breaker learns nothing.
            outcome = Outcome(failed=None, doubtful=True)
            yield from self.tidy(lambda: self.store.settle(self.rules, ticket, outcome))
            raise
        else:
            now = self._clock.time()
            good = response if 200 <= response.status < 300 else None
            failure = None if good else refusal(request, response, now)
            outcome = _outcome(response, failure, now)
        yield Do(lambda: self.store.settle(self.rules, ticket, outcome))
        return good, failure

    def pause_s(self, sent: int, failure: AlpacliError) -> float:
        if isinstance(failure, RateLimited) and failure.retry_after is not None:
            return failure.retry_after
        from tenacity import RetryCallState, wait_exponential

        state = RetryCallState(None, None, (), {})  # type: ignore[arg-type] # only attempt_number is read by this wait
        state.attempt_number = sent
        return self._rng.random() * wait_exponential(multiplier=2, max=4)(state)


def _outcome(response: Response, failure: AlpacliError | None, now: float) -> Outcome:
    remaining = _whole(response.headers.get("x-ratelimit-remaining"))
    limit = _whole(response.headers.get("x-ratelimit-limit"))
    reset_at = _whole(response.headers.get("x-ratelimit-reset"))
    if isinstance(failure, RateLimited):
        # Some 429s carry no headers: nothing is left, until the server says or a moment has passed.
        pause_s = 1.0 if failure.retry_after is None else failure.retry_after
        return Outcome(failed=False, remaining=0, limit=limit, reset_at=now + pause_s)
    return Outcome(isinstance(failure, ServerError), remaining, limit, None if reset_at is None else float(reset_at))


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdecimal() and len(text) < 12 else None


def _seconds(value: float) -> str:
    return f"{max(value, 0.1):.1f} s"
