"""What a gateway counts, for Prometheus at ``/metrics``: requests in and out, cache, budget, breaker, streams, webhooks.

What the gateway does itself is counted as it happens; what others know (the shared cache and budget, the relay, the queue of
webhooks) is asked when somebody scrapes, so it costs nothing otherwise.
"""

import asyncio
from collections.abc import Iterable
from typing import Final

from fastapi import APIRouter, Depends, Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from alpacli.errors import AlpacliError
from alpacli.gateway.door import may
from alpacli.gateway.health import is_degraded
from alpacli.gateway.parts import Parts
from alpacli.gateway.relay import FeedStatus

_CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_LIVE: Final = "live"


def router(parts: Parts) -> APIRouter:
    routes = APIRouter()
    registry = parts.tally.registry
    collector = _Known(parts)

    @routes.get("/metrics", dependencies=[Depends(may(parts, "read"))], include_in_schema=False)
    async def metrics() -> Response:
        """Everything that is counted, in Prometheus's text format."""
        await asyncio.to_thread(collector.look)
        known = CollectorRegistry()
        known.register(collector)
        return Response(generate_latest(registry) + generate_latest(known), media_type=_CONTENT_TYPE)

    return routes


class _Known(Collector):
    """What is known elsewhere, as it was at the last look."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._shared: list[Metric] = []

    def look(self) -> None:
        """Ask what has to be asked in a thread: store, halt, webhooks."""
        found: list[Metric] = []
        for ask in (self._cache, self._budget, self._halt, self._webhooks):
            try:
                found += ask()
            except AlpacliError:
                continue  # a family that is missing says so: its store does not answer
        self._shared = found

    def collect(self) -> Iterable[Metric]:
        yield from self._shared
        yield _gauge("alpacli_tasks", "asyncio tasks that exist; it follows the clients.", len(asyncio.all_tasks()))
        yield from self._streams()

    def _cache(self) -> list[Metric]:
        stats = self._parts.client.cache_stats()
        asked = CounterMetricFamily("alpacli_cache_requests", "Questions to the shared cache.", labels=["result"])
        asked.add_metric(["hit"], stats.hits)
        asked.add_metric(["miss"], stats.misses)
        return [asked, _gauge("alpacli_cache_entries", "Answers in the shared cache.", stats.entries)]

    def _budget(self) -> list[Metric]:
        limits = self._parts.client.limits()
        breaker = GaugeMetricFamily(
            "alpacli_breaker", "1 for the state that the host's circuit breaker is in.", labels=["host", "state"]
        )
        for one in limits.breakers:
            for state in ("closed", "open", "half-open"):
                breaker.add_metric([one.host, state], float(one.state == state))
        degraded, refused = float(is_degraded(self._parts)), float(self._parts.tally.keys_refused)
        return [
            _gauge("alpacli_store_degraded", "1 while another store stands in for the one that was set up.", degraded),
            _gauge("alpacli_keys_refused", "1 while Alpaca refuses the account's key pair.", refused),
            _gauge("alpacli_budget_limit", "Requests that a window allows.", limits.limit),
            _gauge("alpacli_budget_used", "Requests in the current window, by everybody.", limits.used),
            _gauge("alpacli_budget_foreign", "Of these, requests of other programs.", limits.foreign),
            _gauge("alpacli_budget_waiting", "Callers that wait for their turn.", len(limits.waiting)),
            breaker,
        ]

    def _halt(self) -> list[Metric]:
        return [_gauge("alpacli_halted", "1 while trading is halted.", float(self._parts.halt.state() is not None))]

    def _webhooks(self) -> list[Metric]:
        hooks = self._parts.webhooks.hooks()
        waiting = GaugeMetricFamily("alpacli_webhook_waiting", "Deliveries that wait.", labels=["hook"])
        failing = GaugeMetricFamily("alpacli_webhook_failing", "1 while a receiver refuses.", labels=["hook"])
        ended = CounterMetricFamily("alpacli_webhook_deliveries", "Deliveries that ended.", labels=["hook", "result"])
        for hook in hooks:
            waiting.add_metric([hook.id], hook.waiting)
            failing.add_metric([hook.id], float(hook.off or hook.failing_since is not None))
            ended.add_metric([hook.id, "delivered"], hook.delivered)
            ended.add_metric([hook.id, "gave up"], hook.gave_up)
        return [waiting, failing, ended]

    def _streams(self) -> Iterable[Metric]:
        relay = self._parts.relay
        feeds: list[FeedStatus] = relay.feeds()
        live = GaugeMetricFamily("alpacli_feed_live", "1 while a feed is connected and confirmed.", labels=["feed"])
        clients = GaugeMetricFamily("alpacli_feed_clients", "Clients that listen to a feed.", labels=["feed"])
        came = CounterMetricFamily("alpacli_feed_messages", "Messages that came from a feed.", labels=["feed"])
        again = CounterMetricFamily("alpacli_feed_reconnects", "Times a feed was lost.", labels=["feed"])
        gaps = CounterMetricFamily("alpacli_feed_gaps", "Gaps that were told to clients.", labels=["feed"])
        for feed in feeds:
            live.add_metric([feed.feed], float(feed.state == _LIVE))
            clients.add_metric([feed.feed], feed.clients)
            came.add_metric([feed.feed], feed.messages)
            again.add_metric([feed.feed], feed.reconnects)
            gaps.add_metric([feed.feed], feed.gaps)
        yield from (live, clients, came, again, gaps)
        yield _gauge("alpacli_relay_clients", "Connected WebSocket clients.", len(relay.clients))
        yield _counter("alpacli_relay_messages_out", "Messages that were written to clients.", relay.messages_out)
        yield _counter("alpacli_relay_conflated", "Quotes that newer ones replaced for slow clients.", relay.conflated)
        yield _counter("alpacli_relay_cut_off", "Clients that were too slow and had to go.", relay.cut_off)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value)
