"""What a gateway counts as it happens: the requests of its clients, and those that it sends to Alpaca, with their times."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.process_collector import ProcessCollector

from alpacli import __version__
from alpacli.ports import Clock, Request, Response, Transport

_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Tally:
    """The counters, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.keys_refused = False
        """Alpaca's last word about the account's key pair, as far as reads tell."""
        ProcessCollector(registry=self.registry)
        Gauge("alpacli_info", "The version that runs.", ["version"], registry=self.registry).labels(__version__).set(1)
        self._requests = Counter(
            "alpacli_http_requests", "Requests of clients, by status.", ["method", "status"], registry=self.registry
        )
        self._upstream = Histogram(
            "alpacli_upstream_seconds",
            "Requests to Alpaca and how long their answers took; status 0 is no answer.",
            ["host", "method", "status"],
            registry=self.registry,
            buckets=_SECONDS,
        )

    def answered(self, method: str, status: int) -> None:
        self._requests.labels(method if method in _METHODS else "other", str(status)).inc()

    def asked(self, request: Request, status: int, seconds: float) -> None:
        self._upstream.labels(request.host, request.method, str(status)).observe(seconds)
        if request.host == "trading" and request.method == "GET" and status in (200, 401, 403):
            self.keys_refused = status != 200


_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")


class Counted:
    """A transport whose requests are counted."""

    def __init__(self, transport: Transport, tally: Tally, clock: Clock) -> None:
        self._transport = transport
        self._tally = tally
        self._clock = clock

    def send(self, request: Request, *, connect_timeout_s: float, read_timeout_s: float) -> Response:
        began, status = self._clock.monotonic(), 0
        try:
            answer = self._transport.send(request, connect_timeout_s=connect_timeout_s, read_timeout_s=read_timeout_s)
            status = answer.status
        finally:
            self._tally.asked(request, status, self._clock.monotonic() - began)
        return answer

    def close(self) -> None:
        self._transport.close()
