"""One consistent record of an account: balances, positions and open orders that belong to the same moment.

Alpaca gives the three in separate answers, and a fill between them makes a record that never was: shares without the cash
they cost. A fill always moves cash, so the account is read before and after, and when its cash differs everything is read
again. A record that cannot be had like that is an error, never a row.
"""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from alpacli.domain.account import Account, Position
from alpacli.domain.orders import Order
from alpacli.domain.values import Model, Timestamp, exact, from_json, to_json
from alpacli.errors import Unavailable, UnreadableAnswer, UsageError
from alpacli.history.archive import SECOND_NS, Saved
from alpacli.ports import Clock
from alpacli.wire import rest

if TYPE_CHECKING:
    from alpacli.broker.client import AlpacaClient
    from alpacli.history.archive import Archive

_READINGS_AT_MOST: Final = 5
_PERIOD: Final = re.compile(r"([1-9][0-9]{0,5})(s|m|h|d)")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Snapshot(Model):
    """An account at one moment; ``orders`` are the open ones, legs within their parents."""

    at: Timestamp
    account: Account
    positions: tuple[Position, ...]
    orders: tuple[Order, ...]


class Restless(Unavailable):
    """Fills came between the answers every time: there was no moment to record."""


class Taken(NamedTuple):
    """A snapshot with its JSON, and whether it was made just now (else it was there already, from the same period)."""

    value: Snapshot
    text: bytes
    new: bool


def seconds_of(period: str) -> int:
    """Read a period like 30s, 5m, 1h or 1d.

    Raises:
        UsageError: it is none.
    """
    found = _PERIOD.fullmatch(period)
    if found is None:
        raise UsageError(f"{period!r} is not a period", "write a number and s, m, h or d: 30s, 5m, 1h, 1d")
    return int(found[1]) * _SECONDS[found[2]]


def slot_of(at_ns: int, every_s: int) -> tuple[int, int]:
    """Return the period that holds a moment, from and until before; periods are counted from 1970 UTC."""
    length = every_s * SECOND_NS
    begin = at_ns - at_ns % length
    return begin, begin + length


def told_by(clock: Clock) -> Callable[[], int]:
    """Return what tells a clock's time in nanoseconds since 1970 UTC: of an account at Alpaca, that of this machine's."""
    return lambda: round(clock.time() * 1_000_000) * 1000


def observe(client: "AlpacaClient", now_ns: Callable[[], int], before: Account) -> Snapshot:
    """Read an account whose balances were just read as one consistent record, at the time that ``now_ns`` tells.

    Costs three requests, and three more whenever a fill fell between them.

    Raises:
        Restless: fills fell between the answers every time.
    """
    for _ in range(_READINGS_AT_MOST):
        positions = client.read(rest.positions(), use_cache=False).value
        orders = client.read(rest.orders(status="open", limit=None, nested=True), use_cache=False).value
        at_ns = now_ns()
        after = client.read(rest.account(), use_cache=False).value
        if (after.id, after.cash) == (before.id, before.cash):
            return Snapshot(at=_timestamp(at_ns), account=after, positions=tuple(positions), orders=tuple(orders))
        before = after
    raise Restless(
        f"fills came between the account and its positions {_READINGS_AT_MOST} times in a row, so nothing was recorded",
        "take the snapshot at a calmer moment",
    )


def keep(archive: "Archive", snapshot: Snapshot, slot: tuple[int, int]) -> Taken:
    """Add a snapshot to the history, unless another process already did within the same period; then that one counts."""
    account = snapshot.account
    if account.equity is None or account.cash is None:
        raise UnreadableAnswer("the account came without equity or cash", "try again")
    text = to_json(snapshot)
    amounts = (account.equity, account.cash, account.long_market_value or 0, account.short_market_value or 0)
    equity, cash, long_value, short_value = (format(exact(amount), "f") for amount in amounts)
    saved = Saved(snapshot.at.epoch_ns, equity, cash, long_value, short_value, text)
    if archive.append(saved, slot):
        return Taken(snapshot, text, new=True)
    there = archive.snapshot_within(slot)
    return Taken(snapshot, text, new=False) if there is None else read(there)


def take(
    client: "AlpacaClient", archive: "Archive", now_ns: Callable[[], int], account: Account, every_s: int
) -> Taken:
    """Record the account once a period; within a period that has its record, that one is returned and nothing is sent."""
    there = archive.snapshot_within(slot_of(now_ns(), every_s))
    if there is not None:
        return read(there)
    snapshot = observe(client, now_ns, account)
    return keep(archive, snapshot, slot_of(snapshot.at.epoch_ns, every_s))


def read(text: bytes) -> Taken:
    """Return a snapshot as it was kept."""
    value: Any = from_json(text)
    return Taken(Snapshot.model_validate(value), text, new=False)


def _timestamp(at_ns: int) -> Timestamp:
    """Return a time with six digits of its second, and nine where it has them."""
    import datetime as dt

    seconds, below = divmod(at_ns, SECOND_NS)
    digits = f"{below:09d}".removesuffix("000")
    return Timestamp.parse(f"{dt.datetime.fromtimestamp(seconds, dt.UTC):%Y-%m-%dT%H:%M:%S}.{digits}Z")
