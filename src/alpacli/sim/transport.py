"""The exchange as a transport: ``--sim`` without server, socket or keys, through the same request handler as over HTTP."""

from alpacli.ports import Clock, Request, Response
from alpacli.sim.exchange import LOCAL_KEY_ID, Exchange
from alpacli.sim.rest import KEY_HEADER, SECRET_HEADER, HttpRequest, handle


class SimTransport:
    """Answers requests from the exchange of a state directory. Implements ``ports.Transport``; thread-safe.

    Raises:
        ConfigError: the state file cannot be used (from the constructor and from ``send``).
    """

    def __init__(self, state_dir: str, clock: Clock, key_id: str = LOCAL_KEY_ID) -> None:
        self._exchange = Exchange(state_dir, clock)
        self._headers = {KEY_HEADER: key_id, SECRET_HEADER: "in process"}

    def send(self, request: Request, *, connect_timeout_s: float, read_timeout_s: float) -> Response:
        """Answer at once; the timeouts have nothing to wait for."""
        path = request.path
        if "%" in path:  # most paths have none, and urllib costs the short way 2 ms
            from urllib.parse import unquote

            path = unquote(path)
        answer = handle(
            self._exchange, HttpRequest(request.method, path, request.query, self._headers, request.body or b"")
        )
        return Response(answer.status, {name.lower(): value for name, value in answer.headers.items()}, answer.body)

    def close(self) -> None:
        self._exchange.close()
