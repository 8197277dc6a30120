"""A market data server that must never be what is measured: a process of its own that sends frames it made beforehand.

It speaks the handshake of the market data socket, in JSON or in msgpack as the client's ``Content-Type`` asks, and obeys
lines of JSON on its standard input; each is answered with one line on standard output. Times are ``time.monotonic()``, which
all processes of a machine share, and in messages the exchange's time is the moment of sending.

``beat`` sends one quote to everybody. ``blast`` sends so many messages as fast as the readers take them. ``pace`` sends so
many a second, each stamped, with a quote of ``MARK`` every millisecond whose bid counts up. ``count`` tells of connections.
"""

import asyncio
import base64
import hashlib
import json
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import msgspec

from alpacli.domain.ticks import instant_text
from alpacli.wire.commands import encode_messages
from benchmarks.measure import Ended

Encoding = Literal["json", "msgpack"]
BEAT, MARK = "BEAT", "AAA"
MARK_FROM = 5_000_000
CYCLE = 2_000
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TICK_S = 0.001
_STAMP = "2026-01-02T15:00:00.000000000Z"
_FIRST_ID = 100_000_000


def names(count: int) -> list[str]:
    """Return symbols that look like symbols."""
    return [chr(65 + n // 676 % 26) + chr(65 + n // 26 % 26) + chr(65 + n % 26) + "X" for n in range(count)]


def message(number: int, symbol: str, at_ns: int) -> dict[str, object]:
    """Return the message at a place of the cycle: seven quotes, then three trades."""
    cents = 10_000 + number * 37 % 5_000
    if number % 10 < 7:
        bid: dict[str, object] = {"bx": "V", "bp": cents / 100, "bs": 1 + number % 9}
        ask: dict[str, object] = {"ax": "V", "ap": (cents + 2) / 100, "as": 1 + number % 7}
        return {"T": "q", "S": symbol, **bid, **ask, "c": ["R"], "z": "C", "t": at_ns}
    identity: dict[str, object] = {"i": 71_600_000 + number, "x": "V", "p": cents / 100, "s": 1 + number % 200}
    return {"T": "t", "S": symbol, **identity, "c": ["@", "I"], "z": "C", "t": at_ns}


def frame(content: str | bytes) -> bytes:
    """Return a whole WebSocket frame, as a server sends it."""
    data = content.encode() if isinstance(content, str) else content
    kind = 0x81 if isinstance(content, str) else 0x82
    if len(data) < 126:
        return bytes((kind, len(data))) + data
    if len(data) < 65_536:
        return bytes((kind, 126)) + struct.pack(">H", len(data)) + data
    return bytes((kind, 127)) + struct.pack(">Q", len(data)) + data


@lru_cache(maxsize=16)
def cycle(encoding: Encoding, per_frame: int, symbols: int) -> bytes:
    """Return ``CYCLE`` messages as frames, end to end."""
    chosen = names(symbols)
    now = time.time_ns()
    made = [message(number, chosen[number // 10 % symbols], now + number * 1000) for number in range(CYCLE)]
    return b"".join(
        frame(encode_messages(made[start : start + per_frame], encoding)) for start in range(0, CYCLE, per_frame)
    )


def _beat(encoding: Encoding) -> bytes:
    return frame(encode_messages([message(0, BEAT, time.time_ns())], encoding))


class _Templates:
    """Frames for ``pace``, with room for what is only known when they go: times, trade ids and the mark's price.

    Every trade is of one share, so that a symbol's volume counts its trades.
    """

    def __init__(self, rate: int, per_frame: int, symbols: int) -> None:
        self.per_tick = max(round(rate * _TICK_S), 1)
        ticks = max(symbols * 10 // self.per_tick, 1)
        chosen = names(symbols)
        self._made = [
            self._tick([(tick * self.per_tick + place) for place in range(self.per_tick)], chosen, per_frame)
            for tick in range(ticks)
        ]

    def _tick(self, numbers: list[int], chosen: list[str], per_frame: int) -> tuple[bytes, int]:
        made: list[str] = []
        for number in numbers:
            fields = message(number, chosen[number // 10 % len(chosen)], 0)
            fields["t"] = "STAMP"
            if fields["T"] == "t":
                fields["i"], fields["s"] = "ID", 1
            made.append(json.dumps(fields, separators=(",", ":")))
        mark = {"T": "q", "S": MARK, "bx": "V", "bp": "PRICE", "bs": 1, "ax": "V", "ap": 9e6, "as": 1, "t": "STAMP"}
        made[0] = json.dumps(mark, separators=(",", ":"))
        frames = []
        for start in range(0, len(made), per_frame):
            text = "[" + ",".join(made[start : start + per_frame]) + "]"
            text = text.replace("STAMP", _STAMP).replace('"ID"', str(_FIRST_ID)).replace('"PRICE"', f"{MARK_FROM}.01")
            frames.append(frame(text))
        template = b"".join(frames).replace(b"%", b"%%").replace(str(_FIRST_ID).encode(), b"%d")
        return template.replace(f"{MARK_FROM}.01".encode(), b"@MARK@"), template.count(b"%d")

    def fill(self, tick: int, stamp: bytes, next_id: int) -> tuple[bytes, int]:
        """Return the tick's frames and the next free trade id."""
        template, trades = self._made[tick % len(self._made)]
        text = template % tuple(range(next_id, next_id + trades))
        return text.replace(b"@MARK@", b"%d.01" % (MARK_FROM + tick)).replace(_STAMP.encode(), stamp), next_id + trades


def paced(rate: int, seconds: float, symbols: int) -> Counter[str]:
    """Return how many messages of each symbol a ``pace`` sends; the first of each tick is the mark's."""
    per_tick = max(round(rate * _TICK_S), 1)
    ticks = max(symbols * 10 // per_tick, 1)
    chosen = names(symbols)
    counts: Counter[str] = Counter()
    for tick in range(round(seconds / _TICK_S)):
        first = tick % ticks * per_tick
        counts.update(chosen[number // 10 % symbols] for number in range(first + 1, first + per_tick))
        counts[MARK] += 1
    return counts


class _Connection(asyncio.Protocol):
    """One client: the upgrade, then commands of JSON or msgpack in short masked frames."""

    def __init__(self, feed: "_Feed") -> None:
        self.encoding: Encoding = "json"
        self.subscribed = False
        self._feed = feed
        self._unread = b""
        self._upgraded = False
        self._channels: dict[str, set[str]] = {}
        self._room = asyncio.Event()
        self._room.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=1 << 20)
        self._feed.connections.append(self)
        self._feed.accepted += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self._feed.connections.remove(self)
        self._room.set()

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    def data_received(self, data: bytes) -> None:
        self._unread += data
        if not self._upgraded:
            head, end, rest = self._unread.partition(b"\r\n\r\n")
            if end:
                self._unread, self._upgraded = rest, True
                self._upgrade(head)
        while self._upgraded and (command := self._take()) is not None:
            self._obey(command)

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    async def has_room(self) -> None:
        await self._room.wait()

    def say(self, *messages: dict[str, object]) -> None:
        self.write(frame(encode_messages(messages, self.encoding)))

    def _upgrade(self, head: bytes) -> None:
        lines = [line.partition(b":") for line in head.split(b"\r\n")[1:]]
        headers = {name.strip().lower(): value.strip() for name, _, value in lines}
        self.encoding = "msgpack" if b"msgpack" in headers.get(b"content-type", b"") else "json"
        accept = base64.b64encode(hashlib.sha1(headers[b"sec-websocket-key"] + _GUID).digest())
        self.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        self.say({"T": "success", "msg": "connected"})

    def _take(self) -> dict[str, Any] | None:
        """Return the next command; pings and the like are passed over."""
        while len(self._unread) >= 6:
            kind, size, start = self._unread[0] & 15, self._unread[1] & 127, 2
            if size == 126:
                size, start = int.from_bytes(self._unread[2:4], "big"), 4
            if len(self._unread) < start + 4 + size:
                return None
            mask, content = self._unread[start : start + 4], self._unread[start + 4 : start + 4 + size]
            self._unread = self._unread[start + 4 + size :]
            plain = bytes(byte ^ mask[place % 4] for place, byte in enumerate(content))
            if kind == 8:
                self._transport.close()
            elif kind == 9:
                self.write(bytes((0x8A, len(plain))) + plain)
            elif kind in (1, 2):
                decode: Callable[[bytes], Any] = (
                    msgspec.json.decode if self.encoding == "json" else msgspec.msgpack.decode
                )
                command: dict[str, Any] = decode(plain)
                return command
        return None

    def _obey(self, command: dict[str, Any]) -> None:
        if command["action"] == "auth":
            self.say({"T": "success", "msg": "authenticated"})
        elif command["action"] in ("subscribe", "unsubscribe"):
            added = command["action"] == "subscribe"
            for channel, symbols in command.items():
                if isinstance(symbols, list | tuple):
                    had = self._channels.get(channel, set())
                    self._channels[channel] = had | set(symbols) if added else had - set(symbols)
            self.say({"T": "subscription", **{name: sorted(symbols) for name, symbols in self._channels.items()}})
            self.subscribed = any(self._channels.values())
            if added and self._feed.beats_at_once:
                self.write(_beat(self.encoding))


class _Feed:
    def __init__(self, *, beats_at_once: bool) -> None:
        self.beats_at_once = beats_at_once
        self.connections: list[_Connection] = []
        self.accepted = 0

    @property
    def _ready(self) -> list[_Connection]:
        return [connection for connection in self.connections if connection.subscribed]

    async def obey(self, do: str, command: dict[str, Any]) -> dict[str, Any]:
        if do == "beat":
            for connection in self._ready:
                connection.write(_beat(connection.encoding))
        elif do == "blast":
            return await self._blast(**command)
        elif do == "pace":
            return await self._pace(**command)
        return {"accepted": self.accepted, "open": len(self.connections), "ready": len(self._ready)}

    async def _blast(self, messages: int, per_frame: int, symbols: int) -> dict[str, Any]:
        blocks = [(one, cycle(one.encoding, per_frame, symbols)) for one in self._ready]
        began = time.monotonic()
        for _ in range(messages // CYCLE):
            for connection, block in blocks:
                connection.write(block)
                await connection.has_room()
        return {"began": began, "sent": messages // CYCLE * CYCLE, "until": time.monotonic()}

    async def _pace(self, rate: int, seconds: float, per_frame: int, symbols: int) -> dict[str, Any]:
        templates = _Templates(rate, per_frame, symbols)
        began = time.monotonic()
        marks: list[float] = []
        late_s = 0.0
        next_id = _FIRST_ID
        for tick in range(round(seconds / _TICK_S)):
            due = began + tick * _TICK_S
            ahead = due - time.monotonic()
            if ahead > 0:
                await asyncio.sleep(ahead)
            now = time.monotonic()
            late_s = max(late_s, now - due)
            stamp = instant_text(time.time_ns()).encode()
            data, next_id = templates.fill(tick, stamp, next_id)
            marks.append(now)
            for connection in self._ready:  # whoever came meanwhile too
                connection.write(data)
        sent = len(marks) * templates.per_tick
        return {"began": began, "sent": sent, "marks": marks, "late_s": late_s, "trades": next_id - _FIRST_ID}


async def _serve(*, beats_at_once: bool) -> None:
    loop = asyncio.get_running_loop()
    feed = _Feed(beats_at_once=beats_at_once)
    server = await loop.create_server(lambda: _Connection(feed), "127.0.0.1", 0)
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    print(server.sockets[0].getsockname()[1], flush=True)
    while line := await lines.readline():
        command = json.loads(line)
        print(json.dumps(await feed.obey(command.pop("do"), command)), flush=True)


class Sent(NamedTuple):
    """What went out: how many messages, from when on, and for ``pace`` when each mark went and how late the feed was."""

    began: float
    sent: int
    marks: list[float]
    late_s: float


class Feed(Ended):
    """The server, as the benchmark that started it sees it. ``beats_at_once`` sends a quote to whoever has subscribed."""

    def __init__(self, *, beats_at_once: bool = False) -> None:
        arguments = [sys.executable, "-m", "benchmarks.feed", *(["--beat"] if beats_at_once else [])]
        self.process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.url = f"ws://127.0.0.1:{int(self.process.stdout.readline())}"

    def count(self) -> dict[str, int]:
        """Return how many connections there have been (``accepted``), are, and are subscribed (``ready``)."""
        counts: dict[str, int] = self._ask("count")
        return counts

    def beat(self) -> None:
        """Send everybody who has subscribed one quote."""
        self._ask("beat")

    def begin(self, do: Literal["blast", "pace"], **how: float) -> None:
        """Have the feed send; ``finished`` waits for it."""
        self._tell(do, **how)

    def finished(self) -> Sent:
        answer = self._hear()
        return Sent(answer["began"], answer["sent"], answer.get("marks", []), answer.get("late_s", 0.0))

    def _ask(self, do: str) -> Any:
        self._tell(do)
        return self._hear()

    def _tell(self, do: str, **how: float) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **how}).encode() + b"\n")
        self.process.stdin.flush()

    def _hear(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the feed ended")
        return json.loads(line)


if __name__ == "__main__":
    asyncio.run(_serve(beats_at_once="--beat" in sys.argv))
