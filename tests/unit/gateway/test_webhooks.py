"""Order webhooks: queued before they are tried, in order per order, at least once, signed, patient."""

import asyncio
import contextlib
import hashlib
import hmac
import itertools
import json
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.examples import examples
from tests.support.fakes import FixedRandomness, ManualClock
from tests.support.origin import Origin, Reply

from alpacli.domain.orders import Order
from alpacli.errors import ConfigError, NotFound
from alpacli.gateway.hook_queue import AT_ONCE, Happened, HookQueue
from alpacli.gateway.webhooks import GIVE_UP_S, Answer, Courier, Post, post_with, signature
from alpacli.ports import SystemClock
from alpacli.streams.batch import Batch
from alpacli.streams.events import Gap, Live


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[HookQueue]:
    with closing(HookQueue(str(tmp_path / "gateway" / "hooks.sqlite"))) as made:
        made.add("h1", "http://127.0.0.1:1/hook", (), "secret", 0.0)
        yield made


def _event(order: str, number: int, name: str = "fill") -> Happened:
    return Happened(f"{order}-{number}", name, order, f"state {number}", f'{{"n":{number}}}'.encode())


def test_an_event_is_queued_once_for_each_hook_that_wants_it(queue: HookQueue) -> None:
    queue.add("h2", "http://127.0.0.1:1/fills", ("fill",), "other", 1.0)
    assert queue.put([_event("a", 1), _event("a", 2, "new")], 10.0) == 3
    assert queue.put([_event("a", 1)], 11.0) == 0
    assert [(hook.id, hook.waiting) for hook in queue.hooks()] == [("h1", 2), ("h2", 1)]
    assert queue.seen() == {"a": "state 1"}


def test_one_orders_events_leave_in_order_and_others_do_not_wait(queue: HookQueue) -> None:
    queue.put([_event("a", 1), _event("a", 2), _event("b", 1)], 10.0)
    first = queue.take(10.0, 8, 30.0)
    assert [delivery.event for delivery in first] == ["a-1", "b-1"]
    assert queue.take(10.0, 8, 30.0) == []  # held by whoever took them
    queue.failed(first[0], "HTTP 500", 10.0, 15.0)
    queue.delivered(first[1], 10.0)
    assert queue.take(14.9, 8, 30.0) == []
    again = queue.take(15.0, 8, 30.0)
    assert [(delivery.event, delivery.attempts) for delivery in again] == [("a-1", 1)]
    queue.delivered(again[0], 15.0)
    assert [delivery.event for delivery in queue.take(15.0, 8, 30.0)] == ["a-2"]


def test_a_receiver_that_hangs_takes_nobody_elses_turn(queue: HookQueue) -> None:
    queue.add("h2", "http://127.0.0.1:1/prompt", (), "other", 1.0)
    queue.put([_event(f"o{number}", 1) for number in range(20)], 10.0)
    first = queue.take(10.0, 32, 30.0)
    assert [(delivery.hook, delivery.event) for delivery in first] == [
        (hook, f"o{number}-1") for number in range(AT_ONCE) for hook in ("h1", "h2")
    ]
    assert queue.take(10.0, 32, 30.0) == []
    assert queue.next_due(10.0) == 40.0  # nothing before an attempt ends
    for delivery in first[1::2]:
        queue.delivered(delivery, 10.0)
    assert {delivery.hook for delivery in queue.take(10.0, 32, 30.0)} == {"h2"}


def test_a_receiver_that_fails_is_tried_one_at_a_time_and_after_the_others(queue: HookQueue) -> None:
    queue.put([_event("a", 1), _event("b", 1), _event("c", 1)], 10.0)
    (first,) = queue.take(10.0, 1, 30.0)
    queue.failed(first, "HTTP 500", 10.0, 11.0)
    queue.add("h2", "http://127.0.0.1:1/prompt", (), "other", 1.0)
    queue.put([_event("d", 1)], 11.0)
    taken = queue.take(11.0, 8, 30.0)
    assert [(delivery.hook, delivery.event) for delivery in taken] == [("h2", "d-1"), ("h1", "a-1")]
    queue.delivered(taken[1], 12.0)
    assert [delivery.event for delivery in queue.take(12.0, 8, 30.0)] == ["b-1", "c-1", "d-1"]


def test_what_a_killed_gateway_held_is_taken_by_the_next(queue: HookQueue, tmp_path: Path) -> None:
    queue.put([_event("a", 1)], 10.0)
    assert queue.take(10.0, 8, 30.0)
    queue.close()
    with closing(HookQueue(str(tmp_path / "gateway" / "hooks.sqlite"))) as after:
        assert after.take(39.9, 8, 30.0) == []
        assert after.next_due(39.9) == 40.0
        assert [delivery.event for delivery in after.take(40.0, 8, 30.0)] == ["a-1"]


def test_a_removed_hook_takes_what_waits_with_it(queue: HookQueue) -> None:
    queue.put([_event("a", 1)], 10.0)
    queue.remove("h1")
    assert queue.take(10.0, 8, 30.0) == []
    with pytest.raises(NotFound):
        queue.remove("h1")


def test_a_file_that_is_no_database_is_a_matter_of_configuration(tmp_path: Path) -> None:
    (tmp_path / "hooks.sqlite").write_bytes(b"nonsense" * 1000)
    with pytest.raises(ConfigError, match="cannot be used"):
        HookQueue(str(tmp_path / "hooks.sqlite")).add("h", "u", (), "s", 0.0)


def _after_a_busy_month(path: Path) -> None:
    """Put 20,000 deliveries into the file that were made long ago, and as many orders that were heard of."""
    with closing(sqlite3.connect(path)) as db, db:
        db.executemany(
            "INSERT INTO delivery (hook, event, order_id, name, body, at, next_at, done_at)"
            " VALUES ('h1', ?, ?, 'fill', x'', 100, 100, 101)",
            [(f"execution {number:040}", f"order {number:030}") for number in range(20_000)],
        )
        db.executemany("INSERT INTO seen VALUES (?, 'filled 1', 100)", [(f"order {n:030}",) for n in range(20_000)])


def _read_so_far() -> int:
    """Return how many bytes this process has read, from pages in memory too."""
    return int(Path("/proc/self/io").read_text().split()[1])


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="only Linux counts what a process reads")
def test_a_delivery_does_not_read_what_was_delivered_in_the_month_before(queue: HookQueue, tmp_path: Path) -> None:
    queue.close()
    _after_a_busy_month(tmp_path / "gateway" / "hooks.sqlite")
    size = sum(path.stat().st_size for path in (tmp_path / "gateway").iterdir())
    fresh = HookQueue(str(tmp_path / "gateway" / "hooks.sqlite"))
    began = _read_so_far()
    fresh.put([_event("a", 1)], 200.0)
    (due,) = fresh.take(200.0, 8, 30.0)
    fresh.delivered(due, 201.0)
    assert [fresh.next_due(201.0), fresh.hooks()[0].delivered] == [None, 1]
    assert _read_so_far() - began < size / 20
    fresh.close()


def test_a_file_of_the_version_before_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "hooks.sqlite"
    with closing(HookQueue(str(path))) as before:
        before.add("h1", "http://127.0.0.1:1/hook", (), "secret", 0.0)
    with closing(sqlite3.connect(path)) as db:
        db.executescript("DROP INDEX delivery_done; DROP INDEX seen_at; DROP INDEX delivery_waiting")
        db.executescript("CREATE INDEX delivery_due ON delivery (hook, order_id, seq) WHERE done_at IS NULL")
        db.execute("PRAGMA user_version = 1")
    for _ in range(2):
        queue = HookQueue(str(path))
        queue.put([_event("a", 1)], 10.0)
        queue.close()
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM delivery").fetchone() == (1,)
        assert db.execute("PRAGMA user_version").fetchone() == (3,)
        names = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'index'")}
    assert {"delivery_done", "seen_at", "delivery_waiting"} <= names


def test_a_month_is_remembered_and_no_longer(queue: HookQueue, tmp_path: Path) -> None:
    day = 86_400.0
    for order, at in (("old", 0.0), ("recent", 10 * day), ("new", 35 * day)):
        queue.put([_event(order, 1)], at)
        (due,) = queue.take(at, 8, 30.0)
        queue.delivered(due, at)
    assert queue.seen() == {"recent": "state 1", "new": "state 1"}
    assert queue.put([_event("recent", 1), _event("old", 1)], 35 * day) == 1  # what was forgotten is told again


@settings(max_examples=examples(8))
@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=15))
def test_whatever_fails_each_orders_events_arrive_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, plan: list[tuple[str, bool]]
) -> None:
    queue = HookQueue(str(tmp_path_factory.mktemp("queue") / "hooks.sqlite"))
    queue.add("h", "u", (), "s", 0.0)
    sent: dict[str, list[int]] = {}
    for number, (order, _) in enumerate(plan):
        queue.put([_event(order, number)], float(number))
        sent.setdefault(order, []).append(number)
    arrived: dict[str, list[int]] = {}
    outcomes = iter([fine for _, fine in plan] + [True] * 1000)
    now = 1000.0
    while (due := queue.next_due(now)) is not None:
        now = max(now, due)
        for delivery in queue.take(now, 4, 30.0):
            if next(outcomes):
                about, _, count = delivery.event.partition("-")
                arrived.setdefault(about, []).append(int(count))
                queue.delivered(delivery, now)
            else:
                queue.failed(delivery, "HTTP 500", now, now + 1.0)
    assert arrived == sent
    queue.close()


# ------------------------------------------------------------------------------------------------------- courier


def _line(order: str, event: str, execution: str, status: str, filled: str) -> bytes:
    fields = {"id": order, "status": status, "filled_qty": 0}
    text = json.dumps(
        {
            "type": "trade_update",
            "event": event,
            "symbol": "AAPL",
            "timestamp": "t",
            "execution_id": execution,
            "order": fields,
        }
    )
    return text.replace('"filled_qty": 0', f'"filled_qty": {filled}').encode() + b"\n"


def _order(order: str, status: str, filled: str, changed: str = "2026-01-05T14:30:00Z") -> Order:
    return Order.model_validate(
        {
            "id": order,
            "client_order_id": "c",
            "symbol": "AAPL",
            "order_class": "",
            "time_in_force": "day",
            "extended_hours": False,
            "created_at": "2026-01-05T14:30:00Z",
            "updated_at": changed,
            "status": status,
            "filled_qty": filled,
        }
    )


def _run(
    queue: HookQueue,
    post: Post,
    tell: Callable[[Courier], None],
    done: Callable[[], bool],
    orders: Sequence[Order] = (),
    clock: ManualClock | None = None,
) -> list[str]:
    """Let a courier work until it is done; return its warnings."""
    warnings: list[str] = []
    time = clock or ManualClock()

    async def read_orders() -> Sequence[Order]:
        return orders

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(0.002)
        while any(task.get_name().startswith("deliver ") for task in asyncio.all_tasks()):  # noqa: ASYNC110 # it ends when it is cancelled or nothing is under way
            await asyncio.sleep(0.002)
        for _ in range(20):
            await asyncio.sleep(0)  # an attempt that has just ended ends this first
        time.advance(seconds)

    async def work() -> None:
        rng = FixedRandomness()
        courier = Courier(queue, post, time, rng, read_orders, warnings.append, sleep=sleep, idle_s=600.0)
        async with courier.working():
            tell(courier)
            async with asyncio.timeout(20):
                while not done():  # noqa: ASYNC110 # what it waits for is in a file
                    await asyncio.sleep(0.005)

    asyncio.run(work())
    return warnings


def test_what_the_stream_tells_arrives_as_it_was_told_and_signed(queue: HookQueue) -> None:
    line = _line("o1", "fill", "e1", "filled", "1.50")
    with Origin() as receiver:
        queue.remove("h1")
        queue.add("h", f"{receiver.url}/hook", ("fill",), "s3cret", 0.0)
        receiver.reply("/hook", Reply(503), Reply(302, headers={"Location": "/elsewhere"}), Reply(204))

        def tell(courier: Courier) -> None:
            courier.batch(Batch.of_lines(_line("o1", "new", "e0", "new", "0") + line + b'{"type":"quote"}\n'))

        _run(queue, post_with(SystemClock()), tell, lambda: queue.hooks()[0].delivered == 1)
        seen = receiver.requests
    assert [request.path for request in seen] == ["/hook"] * 3  # a redirect is not followed
    assert [request.body for request in seen] == [line.rstrip()] * 3
    assert [request.headers["alpacli-attempt"] for request in seen] == ["1", "2", "3"]
    assert {request.headers["alpacli-delivery"] for request in seen} == {"e1"}
    at, _, digest = seen[0].headers["alpacli-signature"].removeprefix("t=").partition(",v1=")
    expected = hmac.new(b"s3cret", f"{at}.".encode() + line.rstrip(), hashlib.sha256).hexdigest()
    assert digest == expected
    assert seen[0].headers["alpacli-event"] == "fill"


def test_pauses_double_to_ten_minutes_and_three_days_are_enough(queue: HookQueue) -> None:
    clock = ManualClock()
    attempts: list[float] = []

    def post(url: str, headers: dict[str, str], body: bytes) -> Answer:
        attempts.append(clock.time())
        if len(attempts) == 14:
            clock.advance(GIVE_UP_S)
        return Answer(500)

    warnings = _run(
        queue,
        post,
        lambda courier: courier.batch(Batch.of_lines(_line("o1", "fill", "e1", "filled", "1"))),
        lambda: bool(queue.hooks()[0].gave_up),
        clock=clock,
    )
    pauses = [later - earlier for earlier, later in itertools.pairwise(attempts)]
    assert [round(pause, 2) for pause in pauses[:4]] == [1.25, 2.5, 5.0, 10.0]
    assert max(pauses[:13]) == pytest.approx(750.0)
    assert len(attempts) == 14
    assert any("gave up" in warning for warning in warnings)
    assert queue.hooks()[0].last_error == "HTTP 500"


def test_a_receiver_that_hangs_delays_no_other(queue: HookQueue) -> None:
    queue.add("h2", "http://127.0.0.1:1/prompt", (), "other", 1.0)
    released = threading.Event()

    def post(url: str, headers: dict[str, str], body: bytes) -> Answer:
        return Answer(200 if url.endswith("prompt") or released.wait(20) else 0)

    def tell(courier: Courier) -> None:
        for number in range(40):
            courier.batch(Batch.of_lines(_line(f"o{number}", "fill", f"e{number}", "filled", "1")))

    def done() -> bool:
        hung, prompt = (hook.delivered for hook in queue.hooks())
        if prompt == 40 and not released.is_set():
            assert hung == 0
            released.set()
        return (hung, prompt) == (40, 40)

    _run(queue, post, tell, done)


def test_a_receiver_that_trickles_its_answer_is_given_up_and_never_sent_the_same_twice_at_once(
    queue: HookQueue,
) -> None:
    """It has ten seconds for all of it, not for each byte; and who takes longer than a delivery is held has it once."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def trickle() -> None:
            taken, _ = listener.accept()
            with taken:
                while not over.wait(0.05):
                    with contextlib.suppress(OSError):
                        taken.send(b"H")

        thread = threading.Thread(target=trickle)
        thread.start()
        post = post_with(SystemClock(), read_s=0.3)
        answer = post(f"http://127.0.0.1:{listener.getsockname()[1]}/hook", {}, b"{}")
        over.set()
        thread.join()
    assert answer.status == 0
    posted: list[str] = []
    released = threading.Event()

    def post_slowly(url: str, headers: dict[str, str], body: bytes) -> Answer:
        posted.append(headers["Alpacli-Delivery"])
        return Answer(200 if released.wait(20) else 0)

    clock = ManualClock()

    def done() -> bool:
        if posted and clock.time() < 1_780_000_100.0:
            clock.advance(31.0)  # the hold of what is under way ends, again and again
            queue.put([_event(f"x{clock.time()}", 1)], clock.time())
        elif posted:
            released.set()
        return bool(queue.hooks()[0].delivered >= 4)

    _run(
        queue,
        post_slowly,
        lambda courier: courier.batch(Batch.of_lines(_line("o", "fill", "e", "filled", "1"))),
        done,
        clock=clock,
    )
    assert len(posted) == len(set(posted))


def test_a_receiver_that_is_gone_is_left_alone(queue: HookQueue) -> None:
    told: list[str] = []

    def post(url: str, headers: dict[str, str], body: bytes) -> Answer:
        told.append(headers["Alpacli-Delivery"])
        return Answer(410)

    warnings = _run(
        queue,
        post,
        lambda courier: courier.batch(Batch.of_lines(_line("a", "fill", "e1", "filled", "1"))),
        lambda: queue.hooks()[0].off,
    )
    assert told == ["e1"]
    assert "gone" in warnings[0]
    assert queue.put([_event("b", 9)], 99.0) == 0


def test_what_happened_while_nobody_listened_is_told_after_all(queue: HookQueue) -> None:
    queue.put([Happened("e0", "", "known", "new 0", b"")], 1.0)
    told: list[dict[str, Any]] = []

    def post(url: str, headers: dict[str, str], body: bytes) -> Answer:
        told.append(json.loads(body))
        return Answer(200)

    orders = [_order("known", "filled", "2"), _order("fresh", "canceled", "0"), _order("fresh", "canceled", "0")]

    def tell(courier: Courier) -> None:
        courier.event(Live({}, shared=True))
        courier.event(Gap(1, 2))

    _run(queue, post, tell, lambda: queue.hooks()[0].delivered == 2, orders)
    assert sorted((update["order"]["id"], update["event"]) for update in told) == [
        ("fresh", "canceled"),
        ("known", "fill"),
    ]


def test_the_first_look_at_an_account_tells_nobody_of_its_past(queue: HookQueue) -> None:
    _run(
        queue,
        lambda url, headers, body: Answer(200),
        lambda courier: courier.event(Live({}, shared=True)),
        lambda: "old" in queue.seen(),
        [_order("old", "filled", "2", "1969-12-31T23:59:59Z")],
    )
    assert queue.hooks()[0].waiting == queue.hooks()[0].delivered == 0


def test_a_full_disk_is_told_and_does_not_end_the_work(queue: HookQueue, tmp_path: Path) -> None:
    class Full(HookQueue):
        fails = 2

        def put(self, happened: Any, now: float) -> int:
            if self.fails:
                self.fails -= 1
                raise ConfigError("disk full") from sqlite3.OperationalError("database or disk is full")
            return super().put(happened, now)

    full = Full(str(tmp_path / "gateway" / "hooks.sqlite"))

    def tell(courier: Courier) -> None:
        for number in range(3):
            courier.batch(Batch.of_lines(_line("o", "fill", f"e{number}", "filled", "1")))

    warnings = _run(full, lambda url, headers, body: Answer(200), tell, lambda: full.hooks()[0].delivered == 1)
    assert warnings == ["webhooks: disk full"] * 2


def test_a_signature_is_made_of_time_and_body() -> None:
    assert signature("k", 5, b"{}") != signature("k", 6, b"{}")
    assert signature("k", 5, b"{}").startswith("t=5,v1=")
