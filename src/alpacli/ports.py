"""The seams: what the client needs from the outside world, and the one place that reads real time and randomness.

Everything above takes these as arguments, so a test hands in its own clock, transport or store and patches nothing.
Only ``typing`` is imported: the cached path loads this module.
"""

import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Final, Literal, NamedTuple, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Clock(Protocol):
    """Real or simulated time. Both readings are in seconds."""

    def time(self) -> float:
        """Return wall-clock time as seconds since the Unix epoch (UTC). It may jump when the machine is corrected."""

    def monotonic(self) -> float:
        """Return a reading that never goes back; only differences between two readings of one process mean anything."""

    def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The machine's own clock."""

    def time(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        if seconds > 0:
            time.sleep(seconds)


async def async_sleep(seconds: float) -> None:
    """Wait in an event loop; the async client's default, and what a test replaces."""
    import asyncio

    await asyncio.sleep(seconds)


def run_async(main: Coroutine[object, object, T]) -> T:
    """Run a coroutine in a new event loop, as ``asyncio.run`` does, but do not wait for what it left behind in threads.

    A name lookup or a request that hangs cannot be interrupted, and a program that is told to end does not wait for it.
    """
    import asyncio
    import threading
    from concurrent.futures import Future, ThreadPoolExecutor

    class Unwaited(ThreadPoolExecutor):
        """A thread for each call, none of which keeps the program from ending."""

        def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> "Future[R]":
            future: Future[R] = Future()

            def call() -> None:
                if not future.set_running_or_notify_cancel():
                    return
                try:
                    result = fn(*args, **kwargs)
                except BaseException as error:  # noqa: BLE001 # it is raised where the result is awaited
                    future.set_exception(error)
                else:
                    future.set_result(result)

            threading.Thread(target=call, name="alpacli work", daemon=True).start()
            return future

        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 # the signature is the library's
            """Leave them."""

    async def run() -> T:
        asyncio.get_running_loop().set_default_executor(Unwaited())
        return await main

    return asyncio.run(run())


class Randomness(Protocol):
    def random(self) -> float:
        """Return a number in [0, 1)."""

    def token(self) -> str:
        """Return a fresh identifier, unguessable and unique among all processes."""


class SystemRandomness:
    """Randomness from the operating system: safe after a fork, never seeded. The cached path cannot afford ``random``."""

    def random(self) -> float:
        return (int.from_bytes(os.urandom(7), "big") >> 3) * 2.0**-53  # as random.SystemRandom does: 53 random bits

    def token(self) -> str:
        return os.urandom(12).hex()


# ------------------------------------------------------------------------------------------------- transport


Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
Host = Literal["trading", "data"]
"""Which of Alpaca's servers: the one that keeps the account, or the one for market data. One may fail without the other."""
HOSTS: Final[tuple[Host, ...]] = ("trading", "data")


class Request(NamedTuple):
    """One HTTP request, before any host or credential is attached.

    ``path`` begins with the API version (``/v2/account``) and is already percent-encoded; ``query`` holds decoded
    pairs in order; ``body`` is JSON text or ``None``.
    """

    method: Method
    path: str
    query: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    host: Host = "trading"


class Response(NamedTuple):
    """One complete HTTP answer. Header names are lower case; ``body`` is decoded from any transfer encoding."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Transport(Protocol):
    """Carries one request to the broker and brings back whatever it answered, once: no retry, no redirect."""

    def send(self, request: Request, *, connect_timeout_s: float, read_timeout_s: float) -> Response:
        """Send and wait for the whole answer; any HTTP status is an answer.

        Raises:
            RequestTimeout: no connection within ``connect_timeout_s``, or the answer not complete in ``read_timeout_s``.
            ConnectionLost: refused, reset, or cut off before the announced length.
        """

    def close(self) -> None: ...


# ---------------------------------------------------------------------------------------------------- socket


class Socket(Protocol):
    """One open WebSocket, or the in-process exchange's stand-in for one. Frames are whole messages, text or binary."""

    async def send(self, frame: str | bytes) -> None:
        """Send one frame.

        Raises:
            ConnectionLost: the connection is gone.
        """

    async def recv(self) -> str | bytes:
        """Wait for the next frame; safe to cancel.

        Raises:
            ConnectionLost: the connection ended; the message says how (close code and reason, or reset).
        """

    async def ping(self) -> None:
        """Ask whether the other side is there, and return when it answers.

        Raises:
            ConnectionLost: the connection is gone.
        """

    async def close(self) -> None:
        """End the connection within about a second; never raises."""


Dial = Callable[[], Awaitable[Socket]]
"""Open a new connection. Raises ``Unavailable`` when there is none to be had, ``ConfigError`` when it must not be."""


# ----------------------------------------------------------------------------------------------------- store


class Entry(NamedTuple):
    """A cached value and how long ago it was stored."""

    value: bytes
    age_s: float


class Lead(NamedTuple):
    """The caller is the one who fetches ``key``; it must ``publish`` or ``release`` with this token."""

    key: str
    token: str


class Busy(NamedTuple):
    """Somebody else is fetching; look again in ``retry_in_s``."""

    retry_in_s: float


class BudgetRules(NamedTuple):
    """How many requests one account may send, and when the breakers of the hosts open.

    ``scope`` is the store's key prefix of the account (``alpaca:{FP}``). In any window of ``window_s`` at most ``limit``
    requests are granted; the last ``reserve`` of them only to ``urgent`` callers (placing, cancelling, closing).
    """

    scope: str
    limit: int = 200
    reserve: int = 20
    window_s: float = 60.0
    breaker_failures: int = 5
    breaker_open_s: float = 30.0


class Ticket(NamedTuple):
    """A place in the queue for one request: unique ``id``, and ``label`` for people (``alpacli orders, pid 4711``).

    The queue is one for all hosts, since Alpaca counts them together; ``host`` says whose breaker is asked.
    """

    id: str
    label: str
    urgent: bool = False
    host: Host = "trading"


class Granted(NamedTuple):
    """One request may be sent now; report how it went with ``settle`` and the same ticket."""

    probe: bool = False


class Wait(NamedTuple):
    """Not yet: come back after ``seconds`` with the same ticket (sooner is allowed). ``ahead`` callers are in front.

    ``earliest_s`` is when this ticket can be served at the earliest, for deciding whether waiting is worth it.
    """

    seconds: float
    ahead: int
    earliest_s: float


class Refused(NamedTuple):
    """The host's breaker is open; the next probe is allowed in ``retry_in_s``."""

    retry_in_s: float


class Outcome(NamedTuple):
    """How a granted request went.

    ``failed`` means network, timeout or 5xx (a 4xx or 429 is an answer); ``None`` when nobody waited for the end, which
    tells the breaker nothing. ``remaining``, ``limit`` and ``reset_at`` (Unix seconds) are the ``X-RateLimit-*`` headers
    when the answer had them. ``doubtful``: it may have been sent and nothing was answered, so the server may yet see it.
    """

    failed: bool | None
    remaining: int | None = None
    limit: int | None = None
    reset_at: float | None = None
    doubtful: bool = False


class CacheStats(NamedTuple):
    """What a part of the cache did and holds: ``hits`` and ``misses`` are counts of questions, ages are in seconds.

    The ages are ``None`` while there are no entries.
    """

    hits: int
    misses: int
    entries: int
    bytes: int
    oldest_age_s: float | None
    newest_age_s: float | None


class Waiting(NamedTuple):
    """Somebody in the queue for the request budget: ``label`` for people, ``since_s`` seconds ago; orders are ``urgent``."""

    label: str
    since_s: float
    urgent: bool


BreakerState = Literal["closed", "half-open", "open"]
BREAKER_STATES: Final[tuple[BreakerState, ...]] = ("closed", "half-open", "open")
"""From requests that pass to none that does."""


class Breaker(NamedTuple):
    """Whether a host is asked: ``open`` not before ``retry_in_s`` have passed, ``half-open`` by one probe."""

    host: Host
    state: BreakerState
    retry_in_s: float


class LimitsReport(NamedTuple):
    """The shared budget as it stands: counts of requests, times in seconds from now.

    ``used`` counts ours within the window plus ``foreign`` ones that the server's headers told of. ``utilisation`` is the
    share (0..1) of the last hour's allowance that was used. ``reset_s`` is when the next slot frees (0 when one is free).
    ``left`` is what of the limit is free. There is a breaker for each host, and ``breaker`` is the state of the one that is
    furthest from closed.
    """

    limit: int
    reserve: int
    window_s: float
    used: int
    foreign: int
    utilisation: float
    reset_s: float
    waiting: tuple[Waiting, ...]
    breakers: tuple[Breaker, ...]

    @property
    def left(self) -> int:
        """Return how many requests can be sent at once, never negative; the last ``reserve`` of them are for orders."""
        return max(0, self.limit - self.used)

    @property
    def worst(self) -> Breaker:
        """Return the breaker that is furthest from closed, of the hosts that have one."""
        return max(self.breakers, key=lambda breaker: BREAKER_STATES.index(breaker.state))

    @property
    def breaker(self) -> BreakerState:
        """Return the state of ``worst``: ``closed`` while requests pass everywhere, else ``open`` or ``half-open``."""
        return self.worst.state

    @property
    def breaker_retry_in_s(self) -> float:
        """Return in how many seconds a request is allowed again at the host of ``worst``; 0 while all are closed."""
        return self.worst.retry_in_s


class Store(Protocol):
    """What processes share. It knows bytes, lifetimes and counts, not orders. Thread-safe.

    Keys are ``alpaca:{FP}:…``; the braces are literal, so that Redis Cluster keeps an account on one slot. Every method may
    raise ``StoreUnavailable`` within about a second, and nothing else. Every method is one transaction (SQLite) or one
    round trip (Redis), atomic against every other process.
    """

    kind: str
    """What to call this store in front of a person: ``sqlite``, ``redis`` or ``memory``."""

    def get(self, key: str, max_age_s: float) -> Entry | None:
        """Return the entry when it is at most ``max_age_s`` old, and count a hit or a miss."""

    def claim(self, key: str, max_age_s: float, lease_s: float, token: str) -> Entry | Lead | Busy:
        """Return the entry when fresh, else make the caller its only fetcher, else say that somebody else is.

        Counts a hit when an entry is returned and a miss when ``Lead`` is. A lease that is not renewed within ``lease_s``
        passes to the next who asks. Calling again with the token that holds the lease renews it.
        """

    def renew(self, key: str, token: str, lease_s: float) -> bool:
        """Extend the lease; false when it is no longer the caller's."""

    def publish(self, key: str, token: str, value: bytes) -> bool:
        """Store the value and end the lease; false, and nothing stored, when the lease was lost (``drop`` ends leases)."""

    def release(self, key: str, token: str) -> None:
        """End the lease without a value, so that the next caller fetches at once."""

    def put(self, key: str, value: bytes) -> None: ...

    def drop(self, prefix: str) -> int:
        """Forget every entry and lease whose key is ``prefix`` or begins with ``prefix`` + ``:``; return how many entries."""

    def cache_stats(self, prefix: str) -> CacheStats: ...

    def admit(self, rules: BudgetRules, ticket: Ticket) -> Granted | Wait | Refused:
        """Ask to send one request now; a waiting ticket keeps its place while it comes back in time (see ``Wait``).

        In order of arrival among equals; urgent tickets before others. A ticket that stops asking loses its place after
        a few seconds, so a killed process holds up nobody.
        """

    def settle(self, rules: BudgetRules, ticket: Ticket, outcome: Outcome) -> None:
        """Report a granted request's end.

        Its slot now counts from this moment (the server saw it no later), or, when it is doubtful, from the latest at which
        the server can see it; the breaker learns the outcome, and the server's own count lowers ours when other programs
        use the same keys.
        """

    def leave(self, rules: BudgetRules, ticket: Ticket) -> None:
        """Give up a place in the queue, or a grant that nothing was sent with: its slot is free again."""

    def limits(self, rules: BudgetRules) -> LimitsReport: ...

    def close(self) -> None: ...
