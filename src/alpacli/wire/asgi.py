"""uvicorn's WebSocket protocol within reach of the application that it serves: ASGI passes messages, and no connection.

The offline exchange and the gateway both build on it. Imported when a server starts: it loads uvicorn and websockets.
"""

from typing import Any, Final, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

EXTENSION: Final = "alpacli.connection"
"""The scope's extension under which an application finds the connection."""


class Reachable(WebSocketsSansIOProtocol):
    """One client's connection; the application finds it in its scope."""

    async def run_asgi(self) -> None:
        extensions = cast("dict[str, object]", self.scope["extensions"])
        extensions[EXTENSION] = self
        await super().run_asgi()

    async def send(self, message: Any) -> None:  # Any: uvicorn keeps the type of an event to itself
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and self.close_sent:
            self.handshake_complete = True  # uvicorn forgets that this ends the handshake too, and reports a defect
