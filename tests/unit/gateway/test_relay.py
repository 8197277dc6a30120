"""The relay without sockets: who gets what, who has to wait, and what is asked for upstream."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.support.fakes import ManualClock

from alpacli.domain.ticks import Interest
from alpacli.errors import AlpacliError, StreamRefused
from alpacli.gateway.formats import ALPACA, ARRAYS, LINES, UPDATES, Format
from alpacli.gateway.relay import Client, Relay
from alpacli.streams.batch import Batch
from alpacli.streams.events import Event, Gap, Lagging, Live, Reconnecting, Refused
from alpacli.streams.session import Action
from alpacli.streams.supervisor import Sink


class Upstream:
    """A source that a test speaks through."""

    def __init__(self, wanted: Interest) -> None:
        self.wanted = wanted
        self.asked: list[tuple[str, dict[str, list[str]]]] = [("subscribe", wanted.as_dict())]
        self.ended: asyncio.Future[AlpacliError] = asyncio.get_running_loop().create_future()
        self.sink: Sink

    async def run(self, sink: Sink) -> None:
        self.sink = sink
        raise await self.ended

    async def change(self, action: Action, interest: Interest) -> None:
        self.asked.append((action, interest.as_dict()))
        self.wanted = self.wanted | interest if action == "subscribe" else self.wanted - interest

    def confirm(self) -> None:
        self.sink.event(Live({name: tuple(symbols) for name, symbols in self.wanted.channels.items()}))

    def say(self, *lines: bytes) -> None:
        self.sink.batch(Batch.of_lines(b"".join(line + b"\n" for line in lines)))

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def watch_for_silence(self, stale_after_s: float) -> None: ...


class Out:
    """A connection that takes what it has room for."""

    def __init__(self) -> None:
        self.has_room = True
        self.frames: list[bytes] = []
        self.ended: tuple[int, str] | None = None

    def write(self, frames: bytes) -> None:
        self.frames.append(frames)

    def end(self, code: int, reason: str) -> None:
        self.ended = (code, reason)


class Ear:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def confirmed(self, feed: str, interest: Interest) -> None:
        self.heard.append(("confirmed", interest.as_dict()))

    def refused(self, feed: str, event: Refused) -> None:
        self.heard.append(("refused", event.code))

    def happened(self, feed: str, event: Reconnecting | Live | Gap | Lagging) -> None:
        self.heard.append(type(event).__name__)

    def failed(self, feed: str, error: AlpacliError) -> None:
        self.heard.append(("failed", error.message))

    def caught_up(self, conflated: int) -> None:
        self.heard.append(("caught up", conflated))

    def last_words(self) -> bytes:
        return b"farewell"


class Stage:
    """A relay, its upstream connections by feed, and clients with their connections and listeners."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.upstream: dict[str, Upstream] = {}
        self.relay = Relay(self._open, self.clock, flush_s=0.0, patience_s=30.0)

    def _open(self, feed: str, wanted: Interest) -> Upstream:
        self.upstream[feed] = Upstream(wanted)
        return self.upstream[feed]

    def client(self, form: Format = LINES, **options: int) -> tuple[Client, Out, Ear]:
        out, ear = Out(), Ear()
        client = Client("somebody", form, out, **options)
        client.listener = ear
        self.relay.join(client)
        return client, out, ear

    async def live(self, client: Client, channels: dict[str, list[str]], feed: str = "iex") -> Upstream:
        """Subscribe, and have it confirmed."""
        self.relay.feed(feed).subscribe(client, Interest(channels))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        self.upstream[feed].confirm()
        return self.upstream[feed]


def staged(test: Callable[[Stage], Awaitable[None]]) -> Callable[[], None]:
    """Run a test on a stage of its own."""

    async def run() -> None:
        stage = Stage()
        try:
            await test(stage)
        finally:
            await stage.relay.close()

    def called() -> None:
        asyncio.run(run())

    called.__name__ = test.__name__
    called.__doc__ = test.__doc__
    return called


def trade(symbol: str, number: int) -> bytes:
    return b'{"type":"trade","symbol":"%b","timestamp":"2026-01-02T15:00:00.000000000Z","id":%d}' % (
        symbol.encode(),
        number,
    )


def quote(symbol: str, bid: int) -> bytes:
    return b'{"type":"quote","symbol":"%b","timestamp":"2026-01-02T15:00:00.000000000Z","bid_price":%d}' % (
        symbol.encode(),
        bid,
    )


def told(out: Out) -> list[Any]:
    """Return the messages of a client that gets one or an array in a frame; frames here are short."""
    found: list[Any] = []
    for data in out.frames:
        rest = data
        while rest:
            size, start = rest[1], 2
            if size == 126:
                size, start = int.from_bytes(rest[2:4], "big"), 4
            elif size == 127:
                size, start = int.from_bytes(rest[2:10], "big"), 10
            content = json.loads(rest[start : start + size])
            found += content if isinstance(content, list) else [content]
            rest = rest[start + size :]
    return found


@staged
async def test_each_client_gets_what_it_asked_for_and_nothing_else(stage: Stage) -> None:
    one, out_one, _ = stage.client()
    two, out_two, _ = stage.client(ARRAYS)
    everything, out_all, _ = stage.client()
    await stage.live(one, {"trades": ["A"]})
    await stage.live(two, {"quotes": ["A", "B"]})
    upstream = await stage.live(everything, {"trades": ["*"]})
    upstream.say(trade("A", 1), quote("A", 2), quote("B", 3), trade("C", 4), quote("C", 5))
    assert [message["id"] for message in told(out_one)] == [1]
    assert [message["bid_price"] for message in told(out_two)] == [2, 3]
    assert len(out_two.frames) == 1
    assert [message["id"] for message in told(out_all)] == [1, 4]


@staged
async def test_corrections_come_with_trades_and_articles_to_whom_they_concern(stage: Stage) -> None:
    one, out, _ = stage.client()
    upstream = await stage.live(one, {"trades": ["A"]})
    upstream.say(b'{"type":"correction","symbol":"A","original_id":1}', b'{"type":"cancel","symbol":"B","id":1}')
    news = await stage.live(one, {"news": ["TSLA"]}, "news")
    news.say(
        b'{"type":"news","id":1,"headline":"x","symbols":["A","TSLA"]}',
        b'{"type":"news","id":2,"headline":"y","symbols":["A"]}',
    )
    assert [message["type"] for message in told(out)] == ["correction", "news"]


@staged
async def test_upstream_is_asked_once_for_what_many_want_and_rid_of_what_nobody_wants(stage: Stage) -> None:
    one, two = stage.client()[0], stage.client()[0]
    upstream = await stage.live(one, {"trades": ["A", "B"]})
    await stage.live(two, {"trades": ["B", "C"]})
    stage.relay.leave(one)
    await asyncio.sleep(0)
    assert upstream.asked == [
        ("subscribe", {"trades": ["A", "B"]}),
        ("subscribe", {"trades": ["C"]}),
        ("unsubscribe", {"trades": ["A"]}),
    ]
    stage.relay.leave(two)
    await asyncio.sleep(0)
    assert stage.relay.feeds()[0].state == "idle"


@staged
async def test_a_wish_is_confirmed_when_it_is_live_and_not_before(stage: Stage) -> None:
    one, _, ear = stage.client()
    stage.relay.feed("iex").subscribe(one, Interest({"trades": ["A"]}))
    await asyncio.sleep(0)
    assert ear.heard == []
    stage.upstream["iex"].confirm()
    stage.relay.feed("iex").subscribe(one, Interest({"trades": ["B"]}))
    stage.relay.feed("iex").subscribe(one, Interest({"trades": ["A"]}))
    assert ear.heard == [("confirmed", {"trades": ["A"]})] * 2  # B is not yet live, A is
    await asyncio.sleep(0)
    stage.upstream["iex"].confirm()
    assert ear.heard[2:] == [("confirmed", {"trades": ["A", "B"]})]


@staged
async def test_a_refused_wish_changes_nothing_for_anybody(stage: Stage) -> None:
    one, out, ear = stage.client()
    two, _, other = stage.client()
    upstream = await stage.live(one, {"trades": ["A"]})
    await stage.live(two, {"trades": ["A"]})
    stage.relay.feed("iex").subscribe(two, Interest({"trades": ["A", "B", "C"]}))
    await asyncio.sleep(0)
    upstream.sink.event(Refused(405, "symbol limit exceeded", {"trades": ("B", "C")}))
    await asyncio.sleep(0)
    assert other.heard[-1] == ("refused", 405)
    assert two.interests["iex"].as_dict() == {"trades": ["A"]}
    assert upstream.wanted.as_dict() == {"trades": ["A"]}
    upstream.say(trade("A", 1))
    assert len(told(out)) == 1
    assert ("refused", 405) not in ear.heard


@staged
async def test_a_slow_reader_loses_old_quotes_only_and_is_told_how_many(stage: Stage) -> None:
    slow, out, ear = stage.client()
    upstream = await stage.live(slow, {"trades": ["A", "B"], "quotes": ["A", "B"]})
    out.has_room = False
    for number in range(10):
        upstream.say(quote("A", number), quote("B", number), trade("A", number))
    assert out.frames == []
    out.has_room = True
    slow.has_room()
    messages = told(out)
    assert [message["id"] for message in messages if message["type"] == "trade"] == list(range(10))
    assert [message["bid_price"] for message in messages if message["type"] == "quote"] == [9, 9]
    assert messages[-1] == {**messages[-1], "type": "trade", "id": 9}
    assert ear.heard[-1] == ("caught up", 18)
    assert (slow.conflated, slow.waiting_bytes, slow.sent) == (18, 0, 12)


@staged
async def test_order_updates_are_never_conflated(stage: Stage) -> None:
    slow, out, ear = stage.client(UPDATES)
    upstream = await stage.live(slow, {"trade_updates": ["*"]}, "updates")
    out.has_room = False
    for number in range(5):
        upstream.say(
            b'{"type":"trade_update","event":"fill","symbol":"A","price":%d,"order":{"id":"x","qty":1}}' % number
        )
    out.has_room = True
    slow.has_room()
    data = [message["data"] for message in told(out)]
    assert [update["price"] for update in data] == ["0", "1", "2", "3", "4"]
    assert data[0] == {"event": "fill", "price": "0", "order": {"id": "x", "qty": "1"}}
    assert slow.conflated == 0
    assert ear.heard == [("confirmed", {"trade_updates": ["*"]})]


@staged
async def test_who_leaves_too_much_unread_is_cut_off_and_nobody_else_notices(stage: Stage) -> None:
    stuck, out, _ = stage.client(most_waiting_bytes=10_000)
    well, seen, _ = stage.client()
    await stage.live(stuck, {"trades": ["A"]})
    upstream = await stage.live(well, {"trades": ["A"]})
    out.has_room = False
    for number in range(200):
        upstream.say(trade("A", number))
    await asyncio.sleep(0.6)  # it is looked for twice a second
    assert out.ended is not None
    assert out.ended[0] == 1013
    assert "too slow" in out.ended[1]
    assert out.frames == [b"farewell"]
    upstream.say(trade("A", 200))
    assert [message["id"] for message in told(seen)] == list(range(201))
    assert stage.relay.cut_off == 1


def test_who_takes_nothing_for_too_long_is_cut_off_however_little_waits() -> None:
    out = Out()
    client = Client("somebody", LINES, out)
    out.has_room = False
    client.entries.append(("A", b"x"))
    client.flush()
    assert client.too_slow(100.0, 30.0) == ""
    assert client.too_slow(129.0, 30.0) == ""
    client.has_room()  # a sign of life, though nothing was taken
    assert client.too_slow(131.0, 30.0) == ""
    assert "took nothing" in client.too_slow(162.0, 30.0)


@staged
async def test_what_is_lost_upstream_is_told_to_those_who_were_live(stage: Stage) -> None:
    one, _, ear = stage.client()
    upstream = await stage.live(one, {"trades": ["A"]})
    late, _, latecomer = stage.client()
    upstream.sink.event(Reconnecting(1, 0.5, "lost"))
    stage.relay.feed("iex").subscribe(late, Interest({"trades": ["A"]}))
    upstream.confirm()
    upstream.sink.event(Gap(1, 2))
    assert ear.heard[1:] == ["Reconnecting", "Live", "Gap"]
    assert latecomer.heard[0] == ("confirmed", {"trades": ["A"]})
    status = stage.relay.feeds()[0]
    assert (status.state, status.reconnects, status.gaps, status.clients) == ("live", 1, 1, 2)


@staged
async def test_a_feed_that_ends_for_good_is_not_tried_again_at_once(stage: Stage) -> None:
    one, _, ear = stage.client()
    upstream = await stage.live(one, {"trades": ["A"]})
    upstream.ended.set_result(StreamRefused("not in the plan", code=409))
    await asyncio.sleep(0.01)
    assert ear.heard[-1] == ("failed", "not in the plan")
    stage.relay.feed("iex").subscribe(one, Interest({"trades": ["A"]}))
    assert ear.heard[-2:] == [("failed", "not in the plan")] * 2
    assert stage.upstream["iex"] is upstream
    stage.clock.sleep(10)
    await stage.live(one, {"trades": ["A"]})
    assert stage.upstream["iex"] is not upstream
    assert ear.heard[-1] == ("confirmed", {"trades": ["A"]})


@pytest.mark.parametrize("form", [LINES, ARRAYS, ALPACA["json"]])
def test_a_message_of_the_conversation_keeps_its_place_among_the_data(form: Format) -> None:
    out = Out()
    client = Client("somebody", form, out)
    out.has_room = False
    client.entries.append((None, form.piece("trade", trade("A", 1))))
    client.say(b"\x81\x04[{}]" if form is ALPACA["json"] else form.piece("pong", b"{}"), framed=form is ALPACA["json"])
    client.entries.append((None, form.piece("trade", trade("A", 2))))
    client.flush()
    out.has_room = True
    client.has_room()
    kinds = [message.get("T") or message.get("type") for message in told(out)]
    assert kinds in (["trade", None, "trade"], ["t", None, "t"])


@pytest.mark.parametrize("event", [Live({}), Lagging("hub", 3)])
def test_events_reach_nobody_when_nobody_is_there(event: Event) -> None:
    async def run() -> None:
        stage = Stage()
        stage.relay.feed("iex").event(event)
        (status,) = stage.relay.feeds()
        assert (status.clients, status.messages, status.gaps) == (0, 0, 0)
        await stage.relay.close()

    asyncio.run(run())
