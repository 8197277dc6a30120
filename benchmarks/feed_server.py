"""A market data server that costs next to nothing: frames are made before, and written to the socket as they are.

A process of its own: ``python -m benchmarks.feed_server PLAN``, a ``Plan`` as JSON. Its first line of output is the port;
then, for each subscription that it serves, the time of the first byte (``CLOCK_MONOTONIC``, the same for all processes).
70 % of the messages are quotes, 30 % trades.
"""

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import msgpack
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from alpacli.wire.frames import encode_messages

_MOST_UNSENT_BYTES = 4 << 20
_BLOCK_S = 0.01
_Encoding = Literal["json", "msgpack"]


class Plan(NamedTuple):
    """``rate`` 0 is as fast as the reader takes it; otherwise so many a second, stamped with the time of sending.

    A client that subscribes to its last symbol, after ``streams`` have done so, starts the feed for everybody.
    """

    messages: int
    per_frame: int
    symbols: int = 20
    rate: int = 0


def names(count: int) -> list[str]:
    return [f"S{number:03d}" for number in range(count)]


def message(number: int, symbols: int, at_ns: int) -> dict[str, Any]:
    """Return the numbered message: seven quotes, three trades. A trade's price is its time: milliseconds / 100."""
    symbol = f"S{number // 10 % symbols:03d}"
    if number % 10 < 7:
        price = 100 + number % 100 / 100
        sides = {"bx": "V", "bp": price, "bs": 100, "ax": "V", "ap": price + 0.01, "as": 200}
        return {"T": "q", "S": symbol, **sides, "c": ["R"], "z": "C", "t": at_ns}
    price = 100 + at_ns // 1_000_000 % 1_000_000 / 100
    return {"T": "t", "S": symbol, "i": number, "x": "V", "p": price, "s": 1, "c": ["@"], "z": "C", "t": at_ns}


def frames(plan: Plan, encoding: _Encoding, first: int, until: int, at_ns: int) -> bytes:
    """Return messages ``first`` up to ``until`` as WebSocket frames."""
    parts = []
    for begin in range(first, until, plan.per_frame):
        numbers = range(begin, min(begin + plan.per_frame, until))
        payload = encode_messages([message(number, plan.symbols, at_ns) for number in numbers], encoding)
        parts.append(_frame(payload))
    return b"".join(parts)


def _frame(payload: str | bytes) -> bytes:
    opcode = 0x82 if isinstance(payload, bytes) else 0x81
    data = payload if isinstance(payload, bytes) else payload.encode()
    size = len(data)
    if size < 126:
        return bytes((opcode, size)) + data
    if size < 65536:
        return bytes((opcode, 126)) + size.to_bytes(2, "big") + data
    return bytes((opcode, 127)) + size.to_bytes(8, "big") + data


def _blocks(plan: Plan, encoding: _Encoding) -> Iterator[tuple[int, bytes]]:
    """Return the whole feed as blocks of about a thousand messages; the trade ids come again after 50,000."""
    step = 1000
    cycle = min(plan.messages, 50_000)
    at_ns = time.time_ns()
    made = [frames(plan, encoding, first, min(first + step, cycle), at_ns) for first in range(0, cycle, step)]
    left = plan.messages
    while left > 0:
        for block in made:
            if left < step:
                yield left, frames(plan, encoding, 0, left, at_ns)
                return
            yield step, block
            left -= step
            if not left:
                return


class _Server:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    async def serve(self) -> None:
        async with serve(self._converse, "127.0.0.1", 0, ping_interval=None, compression=None) as server:
            print(next(iter(server.sockets)).getsockname()[1], flush=True)
            await asyncio.get_running_loop().create_future()

    async def _converse(self, socket: ServerConnection) -> None:
        request = socket.request
        packed = request is not None and "msgpack" in request.headers.get("Content-Type", "")
        encoding: _Encoding = "msgpack" if packed else "json"

        async def say(*messages: dict[str, Any]) -> None:
            await socket.send(encode_messages(list(messages), encoding))

        async def hear() -> dict[str, Any]:
            heard = await socket.recv()
            command: dict[str, Any] = msgpack.unpackb(heard) if isinstance(heard, bytes) else json.loads(heard)
            return command

        try:
            await say({"T": "success", "msg": "connected"})
            await hear()
            await say({"T": "success", "msg": "authenticated"})
            wanted: set[str] = set()
            sending: asyncio.Task[None] | None = None
            while True:
                command = await hear()
                symbols = set(command.get("trades", [])) | set(command.get("quotes", []))
                wanted = wanted | symbols if command["action"] == "subscribe" else wanted - symbols
                await say({"T": "subscription", "trades": sorted(wanted), "quotes": sorted(wanted)})
                if sending is None and "GO" in wanted:
                    sending = asyncio.create_task(self._send(socket, encoding))
        except ConnectionClosed:
            return

    async def _send(self, socket: ServerConnection, encoding: _Encoding) -> None:
        transport, plan = socket.transport, self._plan
        blocks = [] if plan.rate else list(_blocks(plan, encoding))
        await asyncio.sleep(0.2)
        first_byte = time.monotonic()
        if plan.rate:
            await self._pace(socket, encoding)
        else:
            for _, block in blocks:
                while transport.get_write_buffer_size() > _MOST_UNSENT_BYTES:  # noqa: ASYNC110 # no event tells of it
                    await asyncio.sleep(0.001)
                transport.write(block)
        print(first_byte, flush=True)

    async def _pace(self, socket: ServerConnection, encoding: _Encoding) -> None:
        plan, began, sent = self._plan, time.monotonic(), 0
        step = max(int(plan.rate * _BLOCK_S), plan.per_frame)
        while sent < plan.messages and not socket.transport.is_closing():
            until = min(sent + step, plan.messages)
            socket.transport.write(frames(plan, encoding, sent, until, time.time_ns()))
            sent = until
            await asyncio.sleep(max(0.0, began + sent / plan.rate - time.monotonic()))


if __name__ == "__main__":
    asyncio.run(_Server(Plan(**json.loads(sys.argv[1]))).serve())
