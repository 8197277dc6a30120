"""The offline exchange with a book of what it takes in: ``python -m tests.chaos.exchange PORT BOOK``.

Its log tells a request when it is answered, and one whose client has left not at all. Here a line is written before the
exchange looks at a request, so it is there whatever becomes of the answer, the client and the exchange.
"""

import os
import sys
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, NamedTuple

from alpacli.ports import SystemClock
from alpacli.sim.exchange import Exchange
from alpacli.sim.faults import Faults
from alpacli.sim.server import listening, make_server, run
from alpacli.sim.sockets import Limits

_Event = MutableMapping[str, Any]


class Doorkeeper(NamedTuple):
    """An ASGI application in front of another one; ``book`` is a file descriptor that appends."""

    behind: Callable[..., Awaitable[None]]
    book: int

    async def __call__(self, scope: _Event, receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        if scope["type"] == "http":
            os.write(self.book, f"{time.time_ns() // 1000} {scope['method']} {scope['path']}\n".encode())
        await self.behind(scope, receive, send)


def main() -> None:
    exchange = Exchange(os.environ["ALPACLI_STATE_DIR"], SystemClock())
    book = os.open(sys.argv[2], os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
    with listening("127.0.0.1", int(sys.argv[1])) as (listener, url):
        server = make_server(exchange, Limits(), Faults(SystemClock()), access_log=True)
        app: Any = server.config.app
        app = Doorkeeper(app, book)
        server.config.app = app
        run(server, listener, url, None)
    exchange.close()


if __name__ == "__main__":
    main()
