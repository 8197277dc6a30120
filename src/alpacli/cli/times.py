"""Times as people write them on the command line: every command reads them alike, from the same words.

Nothing heavy is loaded here: the commands check their arguments first.
"""

import datetime as dt
from collections.abc import Callable

from alpacli.cli.run import Run
from alpacli.errors import UsageError


def moment_ns(
    run: Run,
    name: str,
    text: str,
    *,
    ending: bool = False,
    days: dt.tzinfo | None = None,
    at_ns: int | None = None,
) -> int:
    """Return the instant, in nanoseconds, that the option ``name`` gives; see ``domain.series.moment`` for the words.

    ``days`` is the zone in which days begin, where that is another than the one of times; ``at_ns`` what time it is, where
    that is another than this machine's.

    Raises:
        UsageError: it is no time.
    """
    from alpacli.domain.series import moment

    return moment(name, text, now_ns(run) if at_ns is None else at_ns, zone(run), ending=ending, days=days)


def instant(run: Run, name: str, text: str | None, *, ending: bool = False) -> dt.datetime | None:
    """Return the same in UTC, in microseconds; RFC 3339 keeps its nanoseconds, and is sent as it was written."""
    if text is None:
        return None
    from alpacli.domain.values import Timestamp

    try:
        return Timestamp.parse(text.strip())
    except ValueError:  # not RFC 3339: a date, a local time, or so long ago
        at_ns = moment_ns(run, name, text, ending=ending)
        return dt.datetime.fromtimestamp(at_ns // 1_000_000_000, dt.UTC) + dt.timedelta(
            microseconds=at_ns % 1_000_000_000 // 1000
        )


def day(run: Run, name: str, text: str | None) -> dt.date | None:
    """Return the day that a time lies on."""
    if text is None:
        return None
    return dt.datetime.fromtimestamp(moment_ns(run, name, text) // 1_000_000_000, zone(run)).date()


def now_ns(run: Run) -> int:
    return int(run.clock.time() * 1_000_000) * 1000


def zone(run: Run) -> dt.tzinfo:
    """Return the zone in which times without an offset are meant: that of --tz, New York unless it says otherwise."""
    return run.printer.zone() or _Here()


def zone_named(name: str, resolve: Callable[[str], dt.tzinfo]) -> dt.tzinfo | None:
    """Return the zone that ``--tz`` names, ``None`` for this machine's; UTC stands in where there is no zone data at all.

    Raises:
        UsageError: no zone has this name.
    """
    known = {"et": "America/New_York", "ny": "America/New_York"}
    if name.lower() == "local":
        return None
    if name.lower() == "utc":
        return dt.UTC
    try:
        return resolve(known.get(name.lower(), name))
    except (OSError, ValueError, KeyError) as error:  # ZoneInfoNotFoundError is a KeyError
        if name.lower() in known:
            return dt.UTC  # no zone data on this machine: every time is printed with its zone, so UTC cannot mislead
        raise UsageError(
            f"there is no time zone {name!r}", "use local, utc, ET, or a name like Europe/Berlin"
        ) from error


class _Here(dt.tzinfo):
    """This machine's zone, whatever it is called, with its own offset for every date."""

    def utcoffset(self, at: dt.datetime | None) -> dt.timedelta | None:
        return None if at is None else at.replace(tzinfo=None).astimezone().utcoffset()

    def dst(self, at: dt.datetime | None) -> dt.timedelta | None:
        return None if at is None else dt.timedelta(0)

    def tzname(self, at: dt.datetime | None) -> str | None:
        return None if at is None else at.replace(tzinfo=None).astimezone().tzname()

    def fromutc(self, at: dt.datetime) -> dt.datetime:
        return at.replace(tzinfo=dt.UTC).astimezone().replace(tzinfo=self)
