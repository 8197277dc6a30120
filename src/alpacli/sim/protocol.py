"""uvicorn's protocols with a hand on the wire: names of headers as they are spelled, and faults beyond any application.

Imported when a server starts: it loads uvicorn and websockets.
"""

import asyncio
import socket
import struct
from typing import Any

from alpacli.wire.asgi import Reachable


class Name(bytes):
    """The name of a header, written as it is spelled and compared without regard to case.

    uvicorn writes names in lower case; Alpaca does not, and a client may look at them before any library has.
    """

    def lower(self) -> "Name":
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, bytes) and bytes(self).lower() == other.lower()

    def __hash__(self) -> int:
        return hash(bytes(self).lower())


class Connection(Reachable):
    """One client; the application may silence it, cut it off, or break it in the middle of a frame."""

    _muted = False
    _echoes: "dict[bytes, asyncio.Future[None]] | None" = None

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
