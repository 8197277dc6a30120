"""What was kept, found again: orders, fills, other activities and snapshots by time, symbol, side and status.

A row is read as the model that the broker's own answer would be, so it prints the same, field for field and digit for digit.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from alpacli.domain.account import Activity
from alpacli.domain.orders import Order
from alpacli.domain.symbols import spelled
from alpacli.domain.values import Amount, Model, Timestamp, from_json
from alpacli.errors import UnreadableAnswer
from alpacli.history.earnings import instant

if TYPE_CHECKING:
    from alpacli.history.archive import Archive

FIRST_NS: Final = -(1 << 62)
LAST_NS: Final = (1 << 63) - 1


class Wanted(NamedTuple):
    """Which rows: from a time until before another (nanoseconds since 1970 UTC), of these symbols, sides, statuses, types.

    An empty list is any. ``most`` bounds how many; the newest come first when ``descending``.
    """

    since_ns: int = FIRST_NS
    until_ns: int = LAST_NS
    symbols: Sequence[str] = ()
    side: str | None = None
    statuses: Sequence[str] = ()
    kinds: Sequence[str] = ()
    most: int | None = None
    descending: bool = False


class SnapshotLine(Model):
    """What a snapshot comes to; all of it is ``alpacli history snapshots --at TIME``."""

    at: Timestamp
    equity: Amount
    cash: Amount
    long_market_value: Amount
    short_market_value: Amount


def orders(archive: "Archive", wanted: Wanted) -> Iterator[Order]:
    """Return orders by submission time; of the statuses, ``open`` and ``closed`` mean all such."""
    where, arguments = _where("submitted_ns", wanted)
    named = [status for status in wanted.statuses if status not in ("open", "closed")]
    conditions = [{"open": "open", "closed": "NOT open"}[s] for s in wanted.statuses if s in ("open", "closed")]
    if named:
        conditions.append(f"status IN ({_marks(named)})")
        arguments += named
    if conditions:
        where.append(f"({' OR '.join(conditions)})")
    for wire in archive.orders(_tail("submitted_ns", where, wanted), arguments):
        yield Order.model_validate(_tree(wire))


def activities(archive: "Archive", wanted: Wanted) -> Iterator[Activity]:
    """Return fills and other activities by time."""
    where, arguments = _where("at_ns", wanted)
    for column, values in (("status", wanted.statuses), ("kind", wanted.kinds)):
        if values:
            where.append(f"{column} IN ({_marks(values)})")
            arguments += values
    for _, _, wire in archive.activities(_tail("at_ns", where, wanted), arguments):
        yield Activity.model_validate(_tree(wire))


def snapshots(archive: "Archive", wanted: Wanted) -> Iterator[SnapshotLine]:
    """Return snapshots by time; symbol, side and status mean nothing here."""
    rows = archive.snapshots(wanted.since_ns, wanted.until_ns, descending=wanted.descending, most=wanted.most)
    names = ("equity", "cash", "long_market_value", "short_market_value")
    for at_ns, *amounts in rows:
        yield SnapshotLine(at=instant(at_ns), **dict(zip(names, amounts, strict=True)))


def kept_symbol(text: str) -> str:
    """Return a symbol as it is kept: in capitals, and a pair of coins without its slash."""
    return spelled(text).replace("/", "")


def _where(column: str, wanted: Wanted) -> tuple[list[str], list[object]]:
    where, arguments = [f"{column} >= ?", f"{column} < ?"], [wanted.since_ns, wanted.until_ns]
    values: list[object] = list(arguments)
    if wanted.symbols:
        where.append(f"symbol IN ({_marks(wanted.symbols)})")
        values += map(kept_symbol, wanted.symbols)
    if wanted.side is not None:
        where.append("side = ?")
        values.append(wanted.side)
    return where, values


def _tail(column: str, where: Sequence[str], wanted: Wanted) -> str:
    direction = "DESC" if wanted.descending else "ASC"
    limit = "" if wanted.most is None else f" LIMIT {wanted.most:d}"
    return f"WHERE {' AND '.join(where)} ORDER BY {column} {direction}, seq {direction}{limit}"


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


def _tree(wire: bytes) -> object:
    try:
        return from_json(wire)
    except ValueError as error:
        raise UnreadableAnswer(f"a row of the history is not JSON: {error}", "the file may be damaged") from None
