"""A TCP server on which no WebSocket ever comes to be: each connection ends, or stays, at a step before that."""

import socket
import threading
from types import TracebackType
from typing import Literal, Self

Step = Literal["accept", "request", "upgrade", "hang"]


class BrokenServer:
    """Closes after accepting, after reading the request, half-way through its answer, or answers nothing (``hang``).

    ``listening=False`` keeps the port and refuses connections until ``listen`` is called.
    """

    def __init__(self, step: Step, *, listening: bool = True) -> None:
        self.connections = 0
        self.asked = 0
        self._step = step
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.url = f"ws://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        if listening:
            self.listen()

    def listen(self) -> None:
        self._socket.listen()
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._thread.is_alive():
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes accept
            self._thread.join(10)
        for one in (self._socket, *self._open):
            one.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            if self._step == "accept":
                connection.close()
                continue
            request = b""
            while b"\r\n\r\n" not in request and (data := connection.recv(65536)):
                request += data
            self.asked += 1
            if self._step == "hang":
                self._open.append(connection)
                continue
            if self._step == "upgrade":
                connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: webs")
            connection.close()
