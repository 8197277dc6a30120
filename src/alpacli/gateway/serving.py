"""uvicorn, as the gateway needs it: where it listens, TLS, sizes, and an end that lets everybody finish.

Anything but this machine's loopback demands TLS, or the word that a proxy in front of it has that.
"""

import signal
import socket
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Final, NamedTuple

from alpacli.errors import ConfigError, UsageError
from alpacli.gateway.parts import Limits

if TYPE_CHECKING:
    import uvicorn

    from alpacli.gateway.chronicle import Chronicle

_DRAIN_S: Final = 10


class Place(NamedTuple):
    """Where a gateway listens: ``port`` 0 takes a free one; paths of certificate and key, both or neither."""

    host: str = "127.0.0.1"
    port: int = 8000
    tls_cert: str | None = None
    tls_key: str | None = None
    behind_proxy: bool = False


def check_place(place: Place) -> IPv4Address | IPv6Address:
    """Return the address to listen on, when it is one where tokens are safe.

    Raises:
        ConfigError: it is neither loopback nor protected, or it is no address.
    """
    if (place.tls_cert is None) != (place.tls_key is None):
        raise UsageError("--tls-cert and --tls-key belong together", "give both, or neither")
    try:
        address = ip_address("127.0.0.1" if place.host == "localhost" else place.host)
    except ValueError:
        raise UsageError(f"{place.host} is not an IP address", "like 127.0.0.1, ::1 or 0.0.0.0") from None
    if not address.is_loopback and place.tls_cert is None and not place.behind_proxy:
        raise ConfigError(
            f"{place.host} is not this machine's loopback, and tokens would travel in the clear",
            "give --tls-cert and --tls-key, or --behind-proxy when a proxy in front of it speaks TLS",
        )
    return address


def serve(app: "Chronicle", place: Place, limits: Limits, *, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or Ctrl-C: no new connections then, requests finish, sockets close, and the function returns.

    ``ready`` is told the URL once connections are accepted.

    Raises:
        ConfigError: the address is not safe, the port is taken, or the certificate cannot be used.
    """
    import uvicorn

    from alpacli.gateway.connection import Connection
    from alpacli.gateway.protocol import patient

    address = check_place(place)
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as in sim.server: asyncio forgets it here
        try:
            listener.bind((str(address), place.port))
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {place.host} port {place.port}: {error.strerror}",
                "choose another --port, or 0 for a free one",
            ) from None
        listener.listen(512)
        config = uvicorn.Config(
            app,
            http=patient(limits),
            ws=Connection,
            ws_per_message_deflate=False,  # it costs more than the bytes that it saves
            ws_max_size=limits.message_bytes,
            limit_concurrency=limits.connections,
            access_log=False,  # the chronicle logs what was asked, and by whom
            log_config=None,
            server_header=False,
            proxy_headers=place.behind_proxy,
            timeout_graceful_shutdown=_DRAIN_S,
            ssl_certfile=place.tls_cert,
            ssl_keyfile=place.tls_key,
        )
        try:
            config.load()
        except OSError as error:
            raise ConfigError(
                f"the certificate cannot be used: {error.strerror or error}", "check both files"
            ) from None
        host = f"[{address}]" if address.version == 6 else str(address)
        url = f"{'https' if place.tls_cert else 'http'}://{host}:{listener.getsockname()[1]}"
        _run(uvicorn.Server(config), listener, lambda: ready(url))


def _run(server: "uvicorn.Server", listener: socket.socket, ready: Callable[[], None]) -> None:
    """Run until told to stop; a signal that comes before uvicorn listens for them stops it as soon as it does."""
    before = {
        number: signal.signal(number, lambda *_: setattr(server, "should_exit", True))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        ready()
        server.run(sockets=[listener])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
