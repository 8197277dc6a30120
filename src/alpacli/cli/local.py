"""The commands about what processes share on this machine: the cache and the request budget. They send nothing."""

from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from alpacli.cli.output import View
from alpacli.cli.run import Run
from alpacli.domain.values import Amount, MaybeAmount, Model
from alpacli.ports import CacheStats, LimitsReport

if TYPE_CHECKING:
    from rich.console import RenderableType

    from alpacli.broker.client import AlpacaClient
    from alpacli.broker.flow import Reading
    from alpacli.render.text import Frame


T = TypeVar("T")


class Cache(Model):
    """What ``cache stats`` answers; ages in seconds, ``hit_rate`` a fraction, null before the first question."""

    hit_rate: MaybeAmount
    hits: int
    misses: int
    entries: int
    bytes: int
    newest_age_s: MaybeAmount
    oldest_age_s: MaybeAmount


class WaitingCaller(Model):
    label: str
    since_s: Amount
    urgent: bool


class HostBreaker(Model):
    """The circuit breaker of ``trading`` or ``data``: closed, open or half-open, and seconds until a request may go."""

    host: str
    state: str
    retry_in_s: Amount


class Limits(Model):
    """What ``limits`` answers; counts of requests, times in seconds from now, ``utilisation`` a fraction of the last hour.

    Each host has a breaker; ``breaker`` is the one that is furthest from closed.
    """

    limit: int
    reserve: int
    window_s: Amount
    used: int
    foreign: int
    left: int
    utilisation: Amount
    reset_s: Amount
    waiting: list[WaitingCaller]
    breaker: str
    breaker_retry_in_s: Amount
    breakers: list[HostBreaker]


class Cleared(Model):
    """What ``cache clear`` answers; with ``--dry-run`` nothing is cleared, and ``entries`` is what would be, by name."""

    cleared: int
    dry_run: bool | None = None
    entries: dict[str, int] | None = None


def cache_clear(
    run: Run,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="account|positions|orders", show_default=False),
    ] = None,
) -> None:
    """Forget cached answers of this account: all of them, or the named ones."""
    view = run.promised(View(Cleared, _cleared))
    with run.client() as client:
        if run.options.dry_run:
            run.show_value(view, Cleared(cleared=0, dry_run=True, entries=_entries(client, names or ())))
            return
        run.show_value(view, Cleared(cleared=client.invalidate_cache(*(names or ()))))


def _entries(client: "AlpacaClient", names: Sequence[str]) -> dict[str, int]:
    """Count what would go, by name; what has no name of its own (assets, the calendar, own functions) is ``other``."""
    from alpacli.broker.drivers import CACHED

    found = {name: client.cache_stats(name).entries for name in names or CACHED}
    if not names:
        found["other"] = client.cache_stats().entries - sum(found.values())
    return found


def cache_stats(run: Run) -> None:
    """Show hit rate, hits, misses, size and ages of this account's cache."""

    def fetch(client: "AlpacaClient") -> "Reading[CacheStats]":
        stats = client.cache_stats()
        asked = stats.hits + stats.misses
        report = Cache(
            hit_rate=_rounded(stats.hits / asked, 6) if asked else None,
            hits=stats.hits,
            misses=stats.misses,
            entries=stats.entries,
            bytes=stats.bytes,
            newest_age_s=None if stats.newest_age_s is None else _rounded(stats.newest_age_s),
            oldest_age_s=None if stats.oldest_age_s is None else _rounded(stats.oldest_age_s),
        )
        return _reading(stats, report)

    run.show(View(Cache, "cache_stats"), fetch)


def limits(run: Run) -> None:
    """Show the shared request budget: used, left, utilisation over the last hour, reset, and who waits."""

    def fetch(client: "AlpacaClient") -> "Reading[LimitsReport]":
        state = client.limits()
        report = Limits(
            limit=state.limit,
            reserve=state.reserve,
            window_s=_rounded(state.window_s),
            used=state.used,
            foreign=state.foreign,
            left=state.left,
            utilisation=_rounded(state.utilisation, 6),
            reset_s=_rounded(state.reset_s),
            waiting=[WaitingCaller(label=w.label, since_s=_rounded(w.since_s), urgent=w.urgent) for w in state.waiting],
            breaker=state.breaker,
            breaker_retry_in_s=_rounded(state.breaker_retry_in_s),
            breakers=[
                HostBreaker(host=b.host, state=b.state, retry_in_s=_rounded(b.retry_in_s)) for b in state.breakers
            ],
        )
        return _reading(state, report)

    run.show(View(Limits, "limits"), fetch)


def _reading(value: T, report: Model) -> "Reading[T]":
    from alpacli.broker.flow import Reading
    from alpacli.domain.values import to_json

    return Reading(value, to_json(report), None)


def _rounded(value: float, places: int = 3) -> Decimal:
    return Decimal(f"{value:.{places}f}")


def _cleared(value: Cleared, frame: "Frame") -> "RenderableType":
    from rich.text import Text

    from alpacli.render.grid import facts, page

    if value.entries is not None:
        return page(facts([(f"Would forget {name}", str(count)) for name, count in value.entries.items()]), frame)
    return page(Text(f"Forgot {value.cleared} cached {'answer' if value.cleared == 1 else 'answers'}."), frame)
