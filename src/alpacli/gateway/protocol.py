"""uvicorn's HTTP protocol with two limits that it lacks: how large the head of a request is, and how long it takes to come.

A client that sends a byte now and then, or a header without end, would else hold a connection for ever. And one that does not
answer TLS's goodbye, as most that keep an idle connection do not, would hold up the end of the server. Imported when a server
starts: it loads uvicorn and httptools.
"""

import asyncio
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from alpacli.gateway.parts import Limits

GOODBYE_S: Final = 0.5
"""How long a client has to answer the goodbye, once it has everything."""


class Patient(HttpToolsProtocol):
    """One connection; ``patient`` gives it its limits."""

    limits = Limits()
    _head_bytes = 0
    _in_head = True
    _deadline: asyncio.TimerHandle | None = None
    _hanging_up: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        super().connection_made(transport)
        self._begin()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        if self._hanging_up is not None:
            self._hanging_up.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            if self._deadline is None:
                self._begin()
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > self.limits.header_bytes and not self.transport.is_closing():
            self._refuse(b"431 Request Header Fields Too Large")

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_bytes = 0
        self._end()
        if sum(len(name) + len(value) for name, value in self.headers) > self.limits.header_bytes:
            raise ValueError("headers that are too large")
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_head = True

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._hang_up_soon()

    def shutdown(self) -> None:
        super().shutdown()
        self._hang_up_soon()

    def _hang_up_soon(self) -> None:
        if self.transport.is_closing() and self._hanging_up is None:
            self._hanging_up = self.loop.call_later(GOODBYE_S, self._hang_up)

    def _hang_up(self) -> None:
        self._hanging_up = None
        if self.transport.get_write_buffer_size():
            self._hang_up_soon()
        else:
            self.transport.abort()

    def _begin(self) -> None:
        self._deadline = self.loop.call_later(self.limits.request_s, self._give_up)

    def _end(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        if not self.transport.is_closing():
            self._refuse(b"408 Request Timeout")

    def _refuse(self, status: bytes) -> None:
        self.transport.write(b"HTTP/1.1 " + status + b"\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        self.transport.close()


def patient(limits: Limits) -> type[Patient]:
    """Return the protocol with these limits."""
    return type("Patient", (Patient,), {"limits": limits})
