"""Order webhooks: each update of the account's orders becomes a signed POST to whoever asked for it, at least once.

What the trading stream tells is queued on disk before anything else happens to it (``hook_queue``); after a start and after
every gap the orders are read and compared with what was last heard, so that nothing is missed while the gateway was away.
A receiver that fails is tried again with growing pauses for three days; an answer of 410 switches its hook off.

The signature is that of Stripe's scheme: ``Alpacli-Signature: t=UNIX_SECONDS,v1=HEX``, where HEX is the HMAC-SHA256, keyed
with the hook's secret, of ``UNIX_SECONDS.BODY``. Receivers refuse old times, and drop an ``Alpacli-Delivery`` that they know.
"""

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final, NamedTuple, Protocol

import msgspec

from alpacli.domain.orders import Order
from alpacli.domain.values import to_json
from alpacli.errors import AlpacliError
from alpacli.gateway.hook_queue import EVENTS, Delivery, Happened, Hook, HookQueue
from alpacli.ports import Clock, Randomness, async_sleep
from alpacli.streams.batch import Batch
from alpacli.streams.client import Reception
from alpacli.streams.events import Event, Gap, Live
from alpacli.streams.supervisor import Source

FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 600.0
GIVE_UP_S: Final = 3 * 86_400.0
_AT_ONCE: Final = 32
"""Attempts that are under way together, each in a thread; how many of them to one receiver, the queue says."""
_HOLD_S: Final = 30.0
"""Longer than an attempt takes: who holds a delivery longer was killed."""
IDLE_S: Final = 1.0
"""How soon it is noticed what another process has queued."""
_GONE: Final = 410
_LOOK_S: Final = 2.0
_AGAIN_S: Final = 30.0
_MISSED: Final = {"filled": "fill", "partially_filled": "partial_fill"} | {
    name: name for name in EVENTS if name not in ("fill", "partial_fill")
}
"""The event that leads to a status, for what happened while nobody listened."""


class Answer(NamedTuple):
    """What a receiver said: its status, or 0 and why there was none."""

    status: int
    why: str = ""


class Post(Protocol):
    """Sends one request and waits for the answer, for at most about ten seconds; follows no redirect; never raises."""

    def __call__(self, url: str, headers: dict[str, str], body: bytes) -> Answer: ...


class Courier:
    """Queues what the trading stream tells (it is a ``Sink``), and delivers what is queued while it is entered."""

    def __init__(
        self,
        queue: HookQueue,
        post: Post,
        clock: Clock,
        rng: Randomness,
        read_orders: Callable[[], Awaitable[Sequence[Order]]],
        warn: Callable[[str], None],
        *,
        sleep: Callable[[float], Awaitable[None]] = async_sleep,
        idle_s: float = IDLE_S,
    ) -> None:
        """``read_orders`` returns the latest orders, legs among them, as they are now."""
        self._idle_s = idle_s
        self._queue = queue
        self._post = post
        self._clock = clock
        self._rng = rng
        self._read_orders = read_orders
        self._warn = warn
        self._sleep = sleep
        self._more = asyncio.Event()
        self._came: asyncio.Queue[Sequence[Happened] | None] = asyncio.Queue()

    # ----------------------------------------------------------------------------------------------- as the sink

    def batch(self, batch: Batch) -> None:
        found = []
        for line in batch.lines.splitlines():
            happened = _happened(line)
            if happened is not None:
                found.append(happened)
        if found:
            self._came.put_nowait(found)

    def event(self, event: Event) -> None:
        if isinstance(event, Live | Gap):
            self._came.put_nowait(None)  # behind what came before it

    # ---------------------------------------------------------------------------------------------------- at work

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Queue and deliver beside the block; what is not delivered at its end waits on disk for the next start."""
        tasks = [asyncio.create_task(self._keep()), asyncio.create_task(self._deliver())]
        try:
            yield
        finally:
            await self._settle()
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            self._queue.close()

    async def _settle(self) -> None:
        """Let what the stream has told already reach the disk."""
        with suppress(TimeoutError):
            async with asyncio.timeout(2.0):
                await self._came.join()

    async def _keep(self) -> None:
        while True:
            came = await self._came.get()
            try:
                happened = came if came is not None else await self._missed()
                queued = await asyncio.to_thread(self._queue.put, happened, self._clock.time()) if happened else 0
                if queued:
                    self._more.set()
            except AlpacliError as error:
                self._warn(f"webhooks: {error.message}")
            finally:
                self._came.task_done()

    async def _missed(self) -> list[Happened]:
        """Compare the orders with what was last heard of them; what changed before anybody asked is told nobody."""
        seen = await asyncio.to_thread(self._queue.seen)
        hooks = await asyncio.to_thread(self._queue.hooks)
        if not hooks:
            return []
        asked_at = min(hook.at for hook in hooks)
        found = []
        for order in await self._read_orders():
            state = _state(order.status, str(order.filled_qty))
            name = _MISSED.get(order.status)
            if seen.get(order.id) == state or name is None:
                continue
            moment = order.updated_at or order.submitted_at or order.created_at
            if order.id not in seen and moment.timestamp() < asked_at:
                name = ""
            update = {
                "type": "trade_update",
                "event": name,
                "symbol": order.symbol,
                "timestamp": moment,
                "order": order,
            }
            body = to_json(update)
            found.append(Happened(f"{order.id}:{state}", name, order.id, state, body))
        return found

    async def _deliver(self) -> None:
        attempts: dict[int, asyncio.Task[None]] = {}
        try:
            while True:
                self._more.clear()
                next_at = None
                try:
                    taken = await self._due(_AT_ONCE - len(attempts))
                    due = [one for one in taken if one.seq not in attempts]  # whose hold ended first has it again
                    if not due:
                        next_at = await asyncio.to_thread(self._queue.next_due, self._clock.time())
                except AlpacliError as error:
                    self._warn(f"webhooks: {error.message}")
                    due = []
                for delivery in due:
                    task = asyncio.create_task(self._attempt(delivery), name=f"deliver {delivery.seq}")
                    attempts[delivery.seq] = task
                    task.add_done_callback(lambda _, seq=delivery.seq: attempts.pop(seq))  # type: ignore[misc] # mypy reads it as a loop's
                    task.add_done_callback(lambda _: self._more.set())
                wait_s = self._idle_s if next_at is None else min(max(next_at - self._clock.time(), 0.05), self._idle_s)
                either = {asyncio.ensure_future(self._more.wait()), asyncio.ensure_future(self._sleep(wait_s))}
                try:
                    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for waiting in either:
                        waiting.cancel()
        finally:
            for task in attempts.values():
                task.cancel()

    async def _due(self, most: int) -> list[Delivery]:
        return await asyncio.to_thread(self._queue.take, self._clock.time(), most, _HOLD_S) if most else []

    async def _attempt(self, delivery: Delivery) -> None:
        now = self._clock.time()
        headers = {
            "Content-Type": "application/json",
            "Alpacli-Event": delivery.name,
            "Alpacli-Delivery": delivery.event,
            "Alpacli-Attempt": str(delivery.attempts + 1),
            "Alpacli-Signature": signature(delivery.secret, int(now), delivery.body),
        }
        answer = await asyncio.to_thread(self._post, delivery.url, headers, delivery.body)
        try:
            await self._note(delivery, answer)
        except AlpacliError as error:
            self._warn(f"webhooks: {error.message}")

    async def _note(self, delivery: Delivery, answer: Answer) -> None:
        now = self._clock.time()
        if 200 <= answer.status < 300:
            await asyncio.to_thread(self._queue.delivered, delivery, now)
            return
        why = answer.why or f"HTTP {answer.status}"
        retry_at: float | None = now + self._pause_s(delivery.attempts)
        if now - delivery.at > GIVE_UP_S:
            retry_at = None
            self._warn(f"webhooks: gave up after three days: {delivery.name} to {delivery.url}: {why}")
        gone = answer.status == _GONE
        if gone:
            self._warn(f"webhooks: {delivery.url} says that it is gone; `alpacli serve hooks remove {delivery.hook}`")
        await asyncio.to_thread(self._queue.failed, delivery, why, now, retry_at, off=gone)

    def _pause_s(self, attempts: int) -> float:
        """Return the pause before the next attempt: doubling, with up to a half of it more by chance."""
        pause = min(FIRST_PAUSE_S * 2.0 ** min(attempts, 20), LONGEST_PAUSE_S)
        return pause * (1.0 + self._rng.random() / 2.0)


def signature(secret: str, at: int, body: bytes) -> str:
    """Return the value of ``Alpacli-Signature`` for a body that is sent at this Unix second."""
    digest = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


class _Order(msgspec.Struct):
    id: str = ""
    status: str = ""
    filled_qty: msgspec.Raw = msgspec.Raw(b"0")


class _Update(msgspec.Struct):
    event: str = ""
    timestamp: str = ""
    execution_id: str | None = None
    order: _Order = msgspec.field(default_factory=_Order)


_decoder: Final = msgspec.json.Decoder(_Update)


def _happened(line: bytes) -> Happened | None:
    """Read one line of the trading stream; ``None`` when it is about no order."""
    try:
        update = _decoder.decode(line)
    except msgspec.DecodeError:
        return None
    order = update.order
    if not order.id:
        return None
    event = update.execution_id or f"{order.id}:{update.event}:{update.timestamp}"
    return Happened(event, update.event, order.id, _state(order.status, bytes(order.filled_qty).decode()), line)


def _state(status: str, filled_qty: str) -> str:
    return f"{status} {filled_qty.strip(chr(34))}"


def post_with(clock: Clock, connect_s: float = 5.0, read_s: float = 10.0) -> Post:
    """Return a ``Post`` over HTTP; connections are kept. ``read_s`` is for the whole answer, however slowly it comes."""
    import requests

    from alpacli.wire.deadline import DeadlineAdapter

    session = requests.Session()
    session.trust_env = True
    adapter = DeadlineAdapter(clock)
    session.mount("http://", adapter)
    session.mount("https://", adapter)

    def post(url: str, headers: dict[str, str], body: bytes) -> Answer:
        try:
            with session.post(
                url, data=body, headers=headers, timeout=(connect_s, read_s), allow_redirects=False, stream=True
            ) as response:
                return Answer(response.status_code)
        except (requests.RequestException, OSError) as error:
            return Answer(0, type(error).__name__)

    return post


class Webhooks:
    """The trading stream and the courier together, for as long as somebody asked for webhooks."""

    def __init__(
        self,
        queue: HookQueue,
        courier: Courier,
        open_source: Callable[[], Source],
        clock: Clock,
        warn: Callable[[str], None],
    ) -> None:
        self._queue = queue
        self._courier = courier
        self._open_source = open_source
        self._clock = clock
        self._warn = warn

    def hooks(self) -> list[Hook]:
        """Return what was asked for and how it stands; blocks.

        Raises:
            ConfigError: the file cannot be read.
        """
        return self._queue.hooks()

    @asynccontextmanager
    async def beside(self) -> AsyncIterator[None]:
        """Listen and deliver while the block lasts. Hooks that are added or removed meanwhile count within seconds."""
        listening = asyncio.create_task(self._listen())
        try:
            async with self._courier.working():
                yield
        finally:
            listening.cancel()
            with suppress(asyncio.CancelledError):
                await listening

    async def _listen(self) -> None:
        running: asyncio.Task[None] | None = None
        try:
            while True:
                wanted = await self._wanted()
                if wanted and (running is None or running.done()):
                    running = asyncio.create_task(self._receive())
                elif not wanted and running is not None:
                    running.cancel()
                    running = None
                await async_sleep(_LOOK_S)
        finally:
            if running is not None:
                running.cancel()

    async def _wanted(self) -> bool:
        try:
            return any(not hook.off for hook in await asyncio.to_thread(self._queue.hooks))
        except AlpacliError as error:
            self._warn(f"webhooks: {error.message}")
            return False

    async def _receive(self) -> None:
        try:
            reception = Reception(self._open_source(), self._courier, clock=self._clock, reconnect=None)
            await reception.run()
        except AlpacliError as error:
            self._warn(f"webhooks: the trading stream ended: {error.message}; trying again in {_AGAIN_S:g} s")
            await async_sleep(_AGAIN_S)
