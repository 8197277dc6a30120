"""A real WebSocket behind the ``Socket`` protocol: bounded in time and size, no redirects, no compression, TLS verified.

Silence is judged by whoever uses the socket, so the library's own keep-alive is off. Compression is declined: it costs the
reader more than the bytes it saves.
"""

import asyncio
from collections.abc import Mapping
from typing import Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidMessage,
    InvalidProxy,
    InvalidStatus,
    InvalidURI,
    SecurityError,
)
from websockets.frames import CloseCode

from alpacli.errors import (
    AuthenticationError,
    ConnectionLost,
    RateLimited,
    RedirectRefused,
    RequestTimeout,
    ServerError,
    StreamRefused,
    Unavailable,
)

MOST_FRAME_BYTES: Final = 16 << 20
_MOST_QUEUED_FRAMES: Final = 1024
_CLOSE_S: Final = 1.0
_LOOPBACK: Final = ("localhost", "127.", "[::1]")


class _Connect(connect):
    """The library's connector, except that it goes nowhere else than it was told."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class WebSocket:
    """An open connection; see ``ports.Socket``."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    async def send(self, frame: str | bytes) -> None:
        try:
            await self._connection.send(frame)
        except ConnectionClosed as closed:
            raise _lost(closed) from closed

    async def recv(self) -> str | bytes:
        try:
            return await self._connection.recv()
        except ConnectionClosed as closed:
            raise _lost(closed) from closed

    async def ping(self) -> None:
        try:
            await (await self._connection.ping())
        except ConnectionClosed as closed:
            raise _lost(closed) from closed

    async def close(self) -> None:
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self._connection.close()
        except TimeoutError:
            self._connection.transport.abort()


async def dial(url: str, *, headers: Mapping[str, str], timeout_s: float, user_agent: str) -> WebSocket:
    """Open a WebSocket.

    ``url`` must have passed the paper-only rule; a proxy from the environment is used for other machines only.

    Raises:
        Unavailable: refused, unreachable, not within ``timeout_s``, or not a WebSocket server.
        ServerError: HTTP 5xx instead of a WebSocket.
        RateLimited: HTTP 429: too many attempts.
        AuthenticationError: HTTP 401 or 403.
        StreamRefused: any other HTTP status: no such stream.
        RedirectRefused: the server pointed somewhere else.
    """
    host = url.partition("://")[2]
    try:
        connection = await _Connect(
            url,
            additional_headers=headers,
            user_agent_header=user_agent,
            compression=None,
            proxy=None if host.startswith(_LOOPBACK) else True,
            open_timeout=timeout_s,
            ping_interval=None,
            close_timeout=_CLOSE_S,
            max_size=MOST_FRAME_BYTES,
            max_queue=_MOST_QUEUED_FRAMES,
        )
    except TimeoutError as error:
        raise RequestTimeout(f"no WebSocket within {timeout_s:g} s", "check the network, or try again") from error
    except InvalidStatus as error:
        raise _refused(error.response.status_code) from error
    except (InvalidHandshake, InvalidMessage, InvalidProxy, InvalidURI, SecurityError, EOFError) as error:
        raise Unavailable(f"no WebSocket server answered: {error}", "check ALPACA_STREAM_URL") from error
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise ConnectionLost(f"cannot connect: {reason}", "check the network, and the stream URL") from error
    return WebSocket(connection)


def _refused(status: int) -> Exception:
    if status in (401, 403):
        return AuthenticationError(
            f"the stream refused the key pair (HTTP {status})",
            "check ALPACA_API_KEY and ALPACA_SECRET_KEY",
            status=status,
        )
    if 300 <= status < 400:
        return RedirectRefused(
            f"the stream server answered with a redirect (HTTP {status})", "check ALPACA_STREAM_URL", status=status
        )
    if status == 429:
        return RateLimited("too many connection attempts (HTTP 429)", "wait a minute", status=status)
    if status >= 500:
        return ServerError(f"the stream server failed (HTTP {status})", "try again later", status=status)
    return StreamRefused(
        f"there is no such stream (HTTP {status})", "check the feed (--feed) and ALPACA_STREAM_URL", status=status
    )


def _lost(closed: ConnectionClosed) -> ConnectionLost:
    received, sent = closed.rcvd, closed.sent
    if sent is not None and not closed.rcvd_then_sent and sent.code == CloseCode.MESSAGE_TOO_BIG:
        how = f"the server sent a frame of more than {MOST_FRAME_BYTES >> 20} MB"
    elif sent is not None and not closed.rcvd_then_sent:
        how = f"the server broke the protocol{': ' + sent.reason if sent.reason else ''}"
    elif received is None:
        how = "the connection broke"
    else:
        how = f"the server closed the connection ({received.code}{': ' + received.reason if received.reason else ''})"
    return ConnectionLost(how, "alpacli reconnects by itself, as often as reconnect (--reconnect) says")
