"""uvicorn's WebSocket protocol with a direct way out, for clients that get hundreds of frames a second.

What the relay writes are finished frames, and a way through ASGI would cost more than everything else about them. The
connection tells when it has room, and hangs up on clients that do not take a goodbye. Imported when a server starts.
"""

from collections.abc import Callable
from typing import Final

from alpacli.wire.asgi import Reachable

HANG_UP_S: Final = 5.0
"""How long a client has to take what was sent before the goodbye, and to answer it."""

_RESTART: Final = 1012


class Connection(Reachable):
    """One client; the relay's ``Outlet``. ``on_room`` is called when it takes data again."""

    on_room: Callable[[], None] | None = None

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.on_room is not None:
            self.on_room()

    @property
    def has_room(self) -> bool:
        return self.writable.is_set()

    def write(self, frames: bytes) -> None:
        if self.handshake_complete and not self.close_sent and not self.transport.is_closing():
            self.transport.write(frames)

    def end(self, code: int, reason: str) -> None:
        """Close the conversation; whoever serves it is told at once that the client has gone."""
        if self.close_sent or self.transport.is_closing():
            return
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.stop_keepalive()
        self.conn.send_close(code, reason.encode()[:120].decode(errors="ignore"))
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self.close_timer = self.loop.call_later(HANG_UP_S, self.transport.abort)

    def shutdown(self) -> None:
        """Say goodbye when the server stops."""
        if self.handshake_complete and not self.close_sent:
            self.end(_RESTART, "the gateway is stopping")
        else:
            super().shutdown()
