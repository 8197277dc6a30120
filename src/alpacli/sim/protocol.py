"""uvicorn's protocols with a hand on the TCP connection: for answers in one piece, and for faults beyond any application.

Imported when a server starts: it loads uvicorn and websockets.
"""

import asyncio
import socket
import struct
from typing import Any, cast

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

EXTENSION = "alpacli.connection"
"""The scope's extension under which an application finds the connection."""


class Http(H11Protocol):
    """One client's HTTP connection, on which the head and the body of an answer leave together.

    uvicorn writes them one by one, and each of them would be a call of the system that wakes the client.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        super().connection_made(transport)
        self.transport = _Joined(transport, self.loop)

    def handle_websocket_upgrade(self, event: Any) -> None:  # Any: a request of h11
        if isinstance(self.transport, _Joined):
            self.transport = self.transport.real
        super().handle_websocket_upgrade(event)


class _Joined(asyncio.Transport):
    """A transport that sends at once what is written in one turn of the event loop."""

    def __init__(self, real: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.real = real
        self._loop = loop
        self._waiting: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.append(bytes(data))

    def close(self) -> None:
        self._flush()
        self.real.close()

    def is_closing(self) -> bool:
        return self.real.is_closing()

    def pause_reading(self) -> None:
        self.real.pause_reading()

    def resume_reading(self) -> None:
        self.real.resume_reading()

    def _flush(self) -> None:
        data, self._waiting = b"".join(self._waiting), []
        if data:
            self.real.write(data)


class Connection(WebSocketsSansIOProtocol):
    """One client; the application may silence it, cut it off, or break it in the middle of a frame."""

    _muted = False
    _echoes: "dict[bytes, asyncio.Future[None]] | None" = None

    async def run_asgi(self) -> None:
        extensions = cast("dict[str, object]", self.scope["extensions"])
        extensions[EXTENSION] = self
        await super().run_asgi()

    async def send(self, message: Any) -> None:  # Any: uvicorn keeps the type of an event to itself
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and self.close_sent:
            self.handshake_complete = True  # uvicorn forgets that this ends the handshake too, and reports a defect

    def data_received(self, data: bytes) -> None:
        if not self._muted:
            super().data_received(data)

    async def echo(self) -> None:
        """Return when the client has answered a ping of its own, or is gone."""
        if self._echoes is None:
            self._echoes = {}
        if self.disconnected or self.close_sent or self.transport.is_closing():
            return
        payload = b"echo%d" % id(answered := self.loop.create_future())
        self._echoes[payload] = answered
        try:
            self.conn.send_ping(payload)
            self.transport.write(b"".join(self.conn.data_to_send()))
            await answered
        finally:
            del self._echoes[payload]

    def handle_pong(self, event: Any) -> None:  # Any: a frame of websockets
        answered = (self._echoes or {}).get(bytes(event.data))
        if answered is None:
            super().handle_pong(event)
        elif not answered.done():
            answered.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for answered in (self._echoes or {}).values():
            if not answered.done():
                answered.set_result(None)

    def mute(self) -> None:
        """Answer nothing from now on, pings and the end of the conversation included; the connection stays open."""
        self._muted = True
        self.stop_keepalive()

    def reset(self) -> None:
        """Drop the connection so that the client sees a reset, as when a machine goes down."""
        channel = self.transport.get_extra_info("socket")
        if channel is not None:
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def break_off(self, frame: str | bytes) -> None:
        """Send the first half of a frame and end the connection."""
        if isinstance(frame, str):
            self.conn.send_text(frame.encode())
        else:
            self.conn.send_binary(frame)
        output = b"".join(self.conn.data_to_send())
        self.transport.write(output[: len(output) // 2])
        self.transport.close()
