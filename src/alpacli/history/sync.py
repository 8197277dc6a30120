"""Bring in every order, fill and other activity since the beginning, and lose or double nothing, whenever it is killed.

Each page and the place to go on from are one transaction, and a row is known by its id: a pass that was cut off goes on where
it stood, and what is read twice is there once. Three things are read again on purpose, because lists that only go forward
miss them: orders that were not at their end, the last orders and minutes before the place (Alpaca's lists settle a moment
late), and two months of activities that are booked by date, which appear a day or more behind fills that are newer.

In the end the books are checked against each other: the fills of an order must add up to what it says was filled, and each
fill must have its order. What does not is asked for one by one; what still does not is told, never hidden.
"""

import datetime as dt
import fcntl
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from alpacli.domain.account import Account
from alpacli.domain.orders import TERMINAL
from alpacli.domain.values import Model, Timestamp
from alpacli.errors import (
    AlpacaAPIError,
    BudgetExhausted,
    ConfigError,
    NotFound,
    RateLimited,
    UnreadableAnswer,
)
from alpacli.history import snapshots
from alpacli.history.archive import SECOND_NS, ActivityRow, Chain, OrderRow, new_york_day, new_york_ns
from alpacli.history.earnings import CORPORATE, TRANSFERS
from alpacli.history.snapshots import Restless
from alpacli.ports import Clock
from alpacli.wire import pages, rest
from alpacli.wire.rest import ACTIVITIES_PER_PAGE, ORDERS_PER_PAGE, Call

if TYPE_CHECKING:
    from alpacli.broker.client import AlpacaClient
    from alpacli.history.archive import Archive
    from alpacli.wire.pages import ActivityHead, OrderHead

T = TypeVar("T")

_ORDERS_AGAIN: Final = 250
_FILLS_AGAIN_NS: Final = 600 * SECOND_NS
_BOOKINGS_AGAIN_NS: Final = 60 * 86_400 * SECOND_NS
_BOOKED_LATE_NS: Final = 5 * 86_400 * SECOND_NS
_DAYS_AGAIN: Final = 7
_DAYS_AT_ONCE: Final = 365
_REPEATS_AT_MOST: Final = 3
_WAITS_AT_MOST: Final = 20
_LOOKED_EVERY: Final = 4
_LONGEST_WAIT_S: Final = 60.0
_CHECKED_ONE_BY_ONE: Final = 50
_END_OF_DAY: Final = dt.time(23, 59)


class Progress(NamedTuple):
    """How far a pass has come: what is being read, how many rows were read, and the time of the last one (nanoseconds)."""

    what: str
    rows: int
    at_ns: int | None
    waiting_s: float = 0.0


class Report(Model):
    """What a pass brought in: rows that were new or different, how many there are, and what does not add up.

    ``unresolved`` are the ids of orders whose fills and ``filled_qty`` disagree, or that fills name and Alpaca does not have.
    """

    orders: int
    activities: int
    days: int
    orders_changed: int
    activities_changed: int
    requests: int
    snapshot_at: Timestamp | None
    unresolved: tuple[str, ...]


@contextmanager
def _only_one(path: str, clock: Clock, patience_s: float) -> Iterator[None]:
    """Hold the right to read lists into this file; it ends with the process, however that ends.

    Raises:
        ConfigError: another pass is still going on after ``patience_s``.
    """
    file = os.open(path + ".sync", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        give_up_at = clock.monotonic() + patience_s
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if clock.monotonic() >= give_up_at:
                    raise ConfigError(
                        "another alpacli is bringing in this account's history",
                        "wait for it, or give a longer --max-wait",
                    ) from None
                clock.sleep(0.2)
        yield
    finally:
        os.close(file)


class Sync:
    """One pass over everything the broker has, into one archive.

    ``max_wait_s`` bounds each wait for the request budget, or for another pass; ``None`` waits as long as it takes, and
    leaves a quarter of the budget to others. ``exchange_ns`` tells the time of an exchange on this machine, in which its
    account lives; ``clock`` goes on telling how long something took, and how long ago it was read.
    """

    def __init__(
        self,
        client: "AlpacaClient",
        archive: "Archive",
        clock: Clock,
        *,
        max_wait_s: float | None = None,
        exchange_ns: Callable[[], int] | None = None,
        on_progress: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        self._client = client
        self._archive = archive
        self._clock = clock
        self._max_wait_s = max_wait_s
        self._now_ns = exchange_ns or snapshots.told_by(clock)
        self._tell = on_progress
        self._requests = 0
        self._orders_changed = 0
        self._activities_changed = 0

    def run(self, account: Account, *, from_the_start: bool = False) -> Report:
        """Read everything that is new; ``from_the_start`` reads everything once more.

        An order that a faulty list left out and that never filled is found in no other way.

        Raises:
            BudgetExhausted, RateLimited: waiting was not allowed, or led nowhere. What was read is kept.
            UnreadableAnswer: the broker repeats a page instead of continuing it.
        """
        patience_s = 86_400.0 if self._max_wait_s is None else self._max_wait_s
        with _only_one(self._archive.path, self._clock, patience_s):
            if from_the_start:
                self._archive.forget_chains()
            # First of all: every fill that this record knows of is then older than the lists that are read after it.
            at = self._record(account)
            self._new_orders()
            self._open_orders()
            self._activities("fills", "trade_activity", _FILLS_AGAIN_NS)
            self._activities("bookings", "non_trade_activity", _BOOKINGS_AGAIN_NS)
            self._days(account)
            unresolved = self._check()
        count = self._archive.count
        return Report(
            orders=count("orders"),
            activities=count("activities"),
            days=count("days"),
            orders_changed=self._orders_changed,
            activities_changed=self._activities_changed,
            requests=self._requests,
            snapshot_at=at,
            unresolved=tuple(unresolved),
        )

    def _record(self, account: Account) -> Timestamp | None:
        try:
            taken = snapshots.take(self._client, self._archive, self._now_ns, account, 1)
        except Restless:
            return None  # the account is too busy to be recorded; the lists can be read all the same
        return taken.value.at

    # -------------------------------------------------------------------------------------------------- orders

    def _new_orders(self) -> None:
        """Read on behind the place that was reached; the last orders before it again, which costs no request more."""
        reached = self._archive.chain("orders").since
        begin = self._archive.order_before(int(reached), _ORDERS_AGAIN) if reached else None
        try:
            self._walk_orders(pages.orders_after(begin[0] if begin else None), advance=True)
        except AlpacaAPIError as error:
            if begin is None or not _is_of_no_place(error):
                raise
            self._walk_orders(pages.orders_after(None, since=_instant(begin[1] - SECOND_NS)), advance=True)

    def _walk_orders(self, call: "Call[list[OrderHead]]", *, advance: bool, until_ns: int | None = None) -> None:
        """Read page after page to the end, or past a time; ``advance`` notes the place that was reached."""
        read, used = 0, set[str]()
        while True:
            page = self._page(call, used)
            place = ("orders", Chain(page[-1].id, str(page[-1].submitted_ns))) if advance and page else None
            self._keep_orders(page, place)
            read += len(page)
            if advance and page:
                self._tell(Progress("orders", read, page[-1].submitted_ns))
            if len(page) < ORDERS_PER_PAGE or (until_ns is not None and page[-1].submitted_ns > until_ns):
                return
            used.add(page[-1].id)
            call = pages.orders_after(page[-1].id)

    def _open_orders(self) -> None:
        """Find out what became of the orders that were not at their end when they were last read."""
        before = self._archive.open_orders()
        if not before:
            return
        page = self._ask(pages.open_orders())
        self._keep_orders(page)
        listed = {order.id for order in page}
        ended = [(order_id, at_ns) for order_id, at_ns in before if order_id not in listed]
        if not ended:
            return
        if len(ended) * ORDERS_PER_PAGE > self._archive.orders_since(ended[0][1]):
            first = pages.orders_after(None, since=_instant(ended[0][1] - SECOND_NS))
            self._walk_orders(first, advance=False, until_ns=ended[-1][1])
        else:
            self._orders_one_by_one(order_id for order_id, _ in ended)

    def _orders_one_by_one(self, order_ids: Iterable[str]) -> None:
        for order_id in order_ids:
            try:
                self._keep_orders(self._ask(pages.one_order(order_id)))
            except NotFound:
                continue  # the check at the end tells of it

    def _keep_orders(self, page: "list[OrderHead]", chain: tuple[str, Chain] | None = None) -> None:
        self._orders_changed += self._archive.keep_orders(
            [
                OrderRow(
                    order.id,
                    order.submitted_ns,
                    (order.symbol or "").replace("/", ""),
                    order.side or "",
                    order.status,
                    order.status not in TERMINAL,
                    order.filled,
                    order.wire,
                )
                for order in page
            ],
            chain,
        )

    # ---------------------------------------------------------------------------------------------- activities

    def _activities(self, name: str, category: str, again_ns: int) -> None:
        chain = self._archive.chain(name)
        if chain.cursor is None:
            newest = self._archive.newest_activity_ns(fills=category == "trade_activity")
            known = chain.whole_ns is not None and newest is not None
            chain = Chain(None, _wire(newest - again_ns) if known and newest is not None else None, chain.whole_ns)
        read, used = 0, set[str]()
        while True:
            try:
                page = self._page(pages.activities_after(chain.cursor, category=category, since=chain.since), used)
            except AlpacaAPIError as error:
                if chain.cursor is None or not _is_of_no_place(error):
                    raise
                chain = chain._replace(
                    cursor=None
                )  # the token is worth nothing any more: from the beginning of this pass
                used.clear()
                continue
            whole = len(page) < ACTIVITIES_PER_PAGE
            now_ns = int(self._clock.time() * SECOND_NS)  # the machine's: nothing but the age of the list goes by it
            chain = Chain(None if whole else page[-1].id, chain.since, now_ns if whole else chain.whole_ns)
            self._activities_changed += self._archive.keep_activities(map(activity_row, page), (name, chain))
            read += len(page)
            if page:
                self._tell(Progress(name, read, activity_row(page[-1]).at_ns))
            if whole:
                return
            used.add(page[-1].id)

    # ---------------------------------------------------------------------------------------------------- days

    def _days(self, account: Account) -> None:
        """Read the broker's own equity by day, the last week of it again: the day that is not over changes.

        What day it is the broker says: nothing can be asked of a time that it has not come to, and an exchange that replays
        another year lives in that year.
        """
        now_ns = self._ask(rest.clock()).timestamp.epoch_ns
        today = new_york_day(now_ns)
        known = self._archive.broker_days()
        opened = today - _DAYS_AT_ONCE if account.created_at is None else new_york_day(account.created_at.epoch_ns)
        read_before = bool(known) and self._archive.chain("days").whole_ns is not None
        first = max(known) - _DAYS_AGAIN if read_before else opened
        while first <= today:
            last = min(first + _DAYS_AT_ONCE - 1, today)
            call = rest.portfolio_history(
                timeframe="1D",
                start=_instant(new_york_ns(first, dt.time())),
                end=min(_instant(new_york_ns(last, _END_OF_DAY)), _instant(now_ns)),
            )
            history = self._ask(call)
            rows = [
                (new_york_day(seconds * SECOND_NS), format(equity, "f"))
                for seconds, equity in zip(history.timestamp, history.equity, strict=True)
                if equity
            ]
            self._archive.keep_days(rows, ("days", Chain(None, None, now_ns)))
            first = last + 1

    # --------------------------------------------------------------------------------------------------- check

    def _check(self) -> list[str]:
        """Ask again for what does not add up, and return what still does not."""
        doubtful = self._archive.doubtful_orders()
        if not doubtful:
            return []
        for order_id in doubtful[:_CHECKED_ONE_BY_ONE]:
            self._orders_one_by_one([order_id])
            call = pages.activities_after(None, category="trade_activity", since=None, order_id=order_id)
            found = self._ask(call)
            self._activities_changed += self._archive.keep_activities(map(activity_row, found))
        return self._archive.doubtful_orders()

    # ---------------------------------------------------------------------------------------------- requests

    def _page(self, call: "Call[list[T]]", used: set[str]) -> list[T]:
        """Return the next page; one that ends where an earlier one did is asked for again."""
        for _ in range(_REPEATS_AT_MOST):
            page = self._ask(call)
            if not page or getattr(page[-1], "id", None) not in used:
                return page
        raise UnreadableAnswer(
            "the server repeats a page instead of continuing it", "try again later; what came is kept"
        )

    def _ask(self, call: "Call[T]") -> T:
        waits = 0
        while True:
            if self._max_wait_s is None and self._requests % _LOOKED_EVERY == 0:
                self._leave_room()
            try:
                self._requests += 1
                return self._client.fetch(call)
            except (BudgetExhausted, RateLimited) as error:
                waits += 1
                if self._max_wait_s is not None or waits > _WAITS_AT_MOST:
                    raise
                self._wait(min(max(error.retry_after or 1.0, 0.1), _LONGEST_WAIT_S))

    def _leave_room(self) -> None:
        """Wait while less than a quarter of the budget is left: whoever else works with this account goes on undisturbed."""
        waited_s = 0.0
        while waited_s < _LONGEST_WAIT_S:
            budget = self._client.limits()
            if budget.left >= (budget.limit - budget.reserve) // 4:
                return
            self._wait(0.5)
            waited_s += 0.5

    def _wait(self, seconds: float) -> None:
        self._tell(Progress("waiting for the request budget", 0, None, seconds))
        self._clock.sleep(seconds)


def activity_row(activity: "ActivityHead") -> ActivityRow:
    """Place an activity in time: a fill at its moment, anything else where it changed the account, as far as is known.

    What changes shares by date (splits, new names) holds from the day's begin in New York. What ends options, and the
    shares that come or go for them, holds from when it was booked on its day; booked on another, or at a time that is not
    told, from the day's end. Cash moved when it was booked; where that is not told, or so late that it was only written
    down again, fees and the rest are taken to have come at the end of their day, transfers at its begin.
    """
    at_ns = activity.at_ns
    if at_ns is not None:
        day = new_york_day(at_ns)
    else:
        try:
            day = dt.date.fromisoformat((activity.date or activity.id[:8])[:10]).toordinal()
        except ValueError:
            raise UnreadableAnswer(f"activity {activity.id} has neither a time nor a date", "try again later") from None
        at_ns = _booked_ns(activity, day)
    return ActivityRow(
        activity.id,
        activity.activity_type,
        at_ns,
        day,
        (activity.symbol or "").replace("/", ""),
        activity.side or "",
        activity.status or activity.type or "",
        activity.order_id,
        activity.amount,
        activity.wire,
    )


def _booked_ns(activity: "ActivityHead", day: int) -> int:
    kind, booked_ns = activity.activity_type, activity.created_ns
    begin_ns, end_ns = new_york_ns(day, dt.time()), new_york_ns(day, _END_OF_DAY)
    if kind in CORPORATE:
        return begin_ns
    if kind.startswith("OP"):
        return end_ns if booked_ns is None or new_york_day(booked_ns) != day else booked_ns
    if booked_ns is not None and begin_ns <= booked_ns < begin_ns + _BOOKED_LATE_NS:
        return booked_ns
    return begin_ns if kind in TRANSFERS else end_ns


def _is_of_no_place(error: AlpacaAPIError) -> bool:
    """Tell whether the server refuses the place to read on from: it does not know the order, or the token has run out."""
    return not error.retryable and error.status in (400, 404, 410, 422)


def _instant(at_ns: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(at_ns // SECOND_NS, dt.UTC)


def _wire(at_ns: int) -> str:
    return _instant(at_ns).isoformat().replace("+00:00", "Z")
