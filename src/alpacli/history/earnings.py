"""What an account earned, from its activities: realized first in first out, unrealized, dividends, interest, fees.

Activities are played in order of time; each is a trade, a change of shares, or cash. Money that comes from or goes to
somewhere else (deposits, withdrawals, journals) is a transfer and no gain. So for any moment

    equity − transfers = realized + unrealized + dividends + interest + fees + other,

whose left side the broker says and whose right side is computed here. Both are shown with their difference: it is what
Alpaca rounds, and whatever is missing in the history.
"""

import datetime as dt
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal, localcontext
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from alpacli.domain.values import Amount, MaybeAmount, Model, Timestamp
from alpacli.history.archive import SECOND_NS
from alpacli.history.growth import Growth
from alpacli.history.lots import EXACT, ZERO, Closing, Lots, multiplier
from alpacli.wire.pages import Booking, booking

if TYPE_CHECKING:
    from alpacli.history.archive import Archive
    from alpacli.history.snapshots import Snapshot

TRANSFERS: Final = frozenset({"ACATC", "ACATS", "CSD", "CSR", "CSW", "FOPT", "JNL", "JNLC", "JNLS", "TRANS"})
_FEES: Final = frozenset({"CFEE", "FEE", "PTC", "PTR"})
_OPTION_ENDS: Final = frozenset({"OPASN", "OPEXC", "OPEXP"})
CORPORATE: Final = frozenset({"MA", "NC", "REORG", "SPIN", "SPLIT"})
_ALWAYS: Final = (1 << 63) - 1

Key = TypeVar("Key", str, int)


class Event(NamedTuple):
    """One activity with its place in time; ``day`` is New York's, as an ordinal."""

    at_ns: int
    day: int
    what: Booking


class Cash(NamedTuple):
    """Money that moved outside trades; ``kind`` is transfers, dividends, interest, fees or other."""

    day: int
    at_ns: int
    symbol: str
    kind: str
    amount: Decimal


class Traded(NamedTuple):
    """A trade; ``value`` is its worth in money, unsigned; ``closings`` what it closed."""

    day: int
    at_ns: int
    symbol: str
    side: str
    value: Decimal
    order: str
    closings: list[Closing]


class Played:
    """The activities up to a moment, and what came of them."""

    def __init__(self, events: Iterable[Event]) -> None:
        self.lots = Lots()
        self.cash: list[Cash] = []
        self.trades: list[Traded] = []
        self.last_day = self.last_ns = 0
        """The day of the last that can earn something (cash that is moved cannot), as an ordinal, and its moment; or 0."""
        with localcontext(EXACT):
            self._play_all(events)

    def _play_all(self, events: Iterable[Event]) -> None:
        group: list[Event] = []
        for event in events:
            if event.what.activity_type not in TRANSFERS or event.what.qty:
                self.last_day, self.last_ns = max(self.last_day, event.day), event.at_ns
            if group and not _belong_together(group[0], event):
                self._corporate(group)
                group = []
            if event.what.activity_type in CORPORATE:
                group.append(event)
            elif event.what.status != "canceled":
                self._play(event)
        self._corporate(group)

    def moved(self, kind: str) -> Decimal:
        """Return how much cash of a kind came in, less what went out."""
        with localcontext(EXACT):
            return sum((cash.amount for cash in self.cash if cash.kind == kind), ZERO)

    def _play(self, event: Event) -> None:
        what = event.what
        kind, symbol = what.activity_type, (what.symbol or "").replace("/", "")
        if kind == "FILL" and what.qty is not None and what.price is not None:
            signed = what.qty if what.side == "buy" else -what.qty
            self._trade(event, symbol, signed, what.price)
            return
        if kind == "OPTRD" and what.qty and what.price is not None:
            self._trade(event, symbol, what.qty, what.price)
            return
        if kind in _OPTION_ENDS and what.qty:
            self._trade(event, symbol, what.qty, ZERO)
        elif kind == "CFEE" and what.qty:
            self._fee_in_kind(event, symbol, what.qty)
        elif kind in TRANSFERS and what.qty and symbol:
            self.lots.trade(symbol, what.qty, what.price or ZERO, event.at_ns)
            self._pay(event, symbol, "transfers", worth_moved(what))
        self._pay(event, symbol, _category(kind), what.net_amount)

    def _trade(self, event: Event, symbol: str, signed: Decimal, price: Decimal) -> None:
        closings = self.lots.trade(symbol, signed, price, event.at_ns)
        value = abs(signed) * price * multiplier(symbol)
        order = event.what.order_id or event.what.id
        side = "buy" if signed > 0 else "sell"
        self.trades.append(Traded(event.day, event.at_ns, symbol, side, value, order, closings))

    def _fee_in_kind(self, event: Event, symbol: str, qty: Decimal) -> None:
        """Book a fee that was taken in the coin itself: its cost is gone, and nothing was sold."""
        lost = self.lots.trade(symbol, qty, ZERO, event.at_ns)
        self._pay(event, symbol, "fees", sum((closing.realized for closing in lost), ZERO))

    def _corporate(self, group: list[Event]) -> None:
        """Book what belongs to one corporate action: shares of one name that become more or fewer, or another name's."""
        rows = [event for event in group if event.what.status != "canceled"]
        gone = [event for event in rows if (event.what.qty or ZERO) < 0]
        came = [event for event in rows if (event.what.qty or ZERO) > 0]
        for event in rows:
            self._pay(event, event.what.symbol or "", "other", event.what.net_amount)
        if len(gone) == len(came) == 1 and gone[0].what.symbol != came[0].what.symbol:
            self.lots.rename(gone[0].what.symbol or "", came[0].what.symbol or "", came[0].what.qty or ZERO)
            return
        changes: dict[str, Decimal] = {}
        for event in (*gone, *came):
            symbol = event.what.symbol or ""
            changes[symbol] = changes.get(symbol, ZERO) + (event.what.qty or ZERO)
        for symbol, change in changes.items():
            if change and not self.lots.split(symbol, change):
                self._trade(rows[0], symbol, change, ZERO)

    def _pay(self, event: Event, symbol: str, kind: str, amount: Decimal | None) -> None:
        if amount:
            self.cash.append(Cash(event.day, event.at_ns, symbol, kind, amount))


def _belong_together(first: Event, other: Event) -> bool:
    if (first.day, first.what.activity_type) != (other.day, other.what.activity_type):
        return False
    if first.what.group_id is not None or other.what.group_id is not None:
        return first.what.group_id == other.what.group_id
    return first.what.activity_type == "NC" or first.what.symbol == other.what.symbol


def worth_moved(what: Booking) -> Decimal:
    """Return what the shares or coins were worth that a transfer brought, or took away; zero for one of money."""
    return (what.qty or ZERO) * (what.price or ZERO) * multiplier(what.symbol or "")


def _category(kind: str) -> str:
    if kind in TRANSFERS:
        return "transfers"
    if kind in _FEES:
        return "fees"
    if kind.startswith("DIV") or kind == "CGD":
        return "dividends"
    return "interest" if kind.startswith("INT") else "other"


def events(archive: "Archive", until_ns: int = _ALWAYS) -> Iterator[Event]:
    """Return the activities up to a moment, in order of time."""
    for at_ns, day, wire in archive.activities("WHERE at_ns <= ? ORDER BY at_ns, seq", (until_ns,)):
        yield Event(at_ns, day, booking(wire))


def is_quiet(archive: "Archive", after_ns: int, until_ns: int) -> bool:
    """Tell whether nothing happened to the account after a moment and before another."""
    return not any(archive.activities("WHERE at_ns > ? AND at_ns < ? LIMIT 1", (after_ns, until_ns)))


# -------------------------------------------------------------------------------------------------- positions


class HeldPosition(Model):
    """A position worked out from the fills; ``cost_basis`` and ``avg_entry_price`` are those of the lots still held."""

    symbol: str
    qty: Amount
    side: str
    avg_entry_price: Amount
    cost_basis: Amount
    lots: int
    opened_at: Timestamp


def positions(played: Played) -> list[HeldPosition]:
    """Return what was held, by symbol."""
    found = []
    for symbol, lots in played.lots:
        qty, cost = played.lots.qty(symbol), played.lots.cost(symbol)
        found.append(
            HeldPosition(
                symbol=symbol,
                qty=plain(qty),
                side="long" if qty > 0 else "short",
                avg_entry_price=plain(EXACT.quantize(EXACT.divide(cost, qty * multiplier(symbol)), Decimal("1e-9"))),
                cost_basis=plain(cost),
                lots=len(lots),
                opened_at=instant(lots[0].opened_ns),
            )
        )
    return found


def plain(amount: Decimal) -> Decimal:
    """Return the same amount without zeros at its end, and without a minus before nothing."""
    whole = amount.to_integral_value(context=EXACT)
    return EXACT.plus(whole) if amount == whole else amount.normalize(EXACT)


def instant(at_ns: int) -> Timestamp:
    """Return an instant with all its nanoseconds."""
    seconds, below = divmod(at_ns, SECOND_NS)
    text = dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return Timestamp.parse(f"{text}.{below:09d}".rstrip("0").rstrip(".") + "Z")


class ClosedLot(Model):
    """Shares that were opened together and closed together; ``qty`` is negative and ``side`` short when they were owed.

    ``realized`` is proceeds less cost; what a short sale brought in is its negative cost. ``holding_time_s`` in seconds.
    """

    symbol: str
    side: str
    qty: Amount
    cost_basis: Amount
    proceeds: Amount
    realized: Amount
    opened_at: Timestamp
    closed_at: Timestamp
    holding_time_s: Amount


def closed_lots(played: Played) -> Iterator[ClosedLot]:
    """Return everything that was closed, in order of time."""
    for trade in played.trades:
        for closing in trade.closings:
            yield ClosedLot(
                symbol=closing.symbol,
                side="long" if closing.qty > 0 else "short",
                qty=plain(closing.qty),
                cost_basis=plain(closing.cost),
                proceeds=plain(closing.proceeds),
                realized=plain(closing.realized),
                opened_at=instant(closing.opened_ns),
                closed_at=instant(closing.closed_ns),
                holding_time_s=plain(Decimal(closing.closed_ns - closing.opened_ns) / SECOND_NS),
            )


# ----------------------------------------------------------------------------------------------------- profit


class EarningsRow(Model):
    """What one symbol, day or month earned; money, gains positive, fees negative. ``total`` is the sum of the others.

    ``unrealized`` of a day or month is how much it changed, which the account's equity tells; null where that is not known.
    A day without a close (coins are sold on a Sunday) has no ``total``: that of the next day with a close covers it too. To
    a month belongs what lies between the last close before it and its own last close.
    ``symbol``, ``day`` or ``month`` is there as the rows were asked for; cash that belongs to no symbol has an empty one.
    """

    symbol: str | None = None
    day: str | None = None
    month: str | None = None
    realized: Amount
    unrealized: MaybeAmount
    dividends: Amount
    interest: Amount
    fees: Amount
    other: Amount
    total: MaybeAmount
    trades: int


class Difference(Model):
    """A position of which the fills tell another quantity than the account does."""

    symbol: str
    computed: Amount
    recorded: Amount


class Reconciliation(Model):
    """The account's own word against what was computed, at the moment of a snapshot.

    ``expected`` is its cash and what its positions were worth, less ``transfers``; ``difference`` is what was computed less
    that. ``equity`` is the account's own, and ``moved_meanwhile`` how far prices took it from cash and positions, which
    were read a moment earlier. ``portfolio_history`` is Alpaca's equity of that day, ``portfolio_difference`` ours less that.
    """

    at: Timestamp
    equity: Amount
    moved_meanwhile: MaybeAmount
    transfers: Amount
    expected: Amount
    computed: Amount
    difference: Amount
    portfolio_history: MaybeAmount
    portfolio_difference: MaybeAmount
    positions: tuple[Difference, ...]


class Earnings(Model):
    """What an account earned, and how well that agrees with what it says of itself."""

    rows: tuple[EarningsRow, ...]
    total: EarningsRow
    reconciliation: Reconciliation | None


class _Sums:
    """The parts of one row while they are added up."""

    def __init__(self) -> None:
        self.realized = ZERO
        self.unrealized: Decimal | None = ZERO
        self.earlier = ZERO
        """What was realized and paid on days before, which have no total of their own."""
        self.parts = dict.fromkeys(("dividends", "interest", "fees", "other"), ZERO)
        self.orders: set[str] = set()

    def row(self, label: dict[str, str]) -> EarningsRow:
        total = None if self.unrealized is None else self.earlier + self.settled + self.unrealized
        return EarningsRow(
            **label,
            realized=plain(self.realized),
            unrealized=None if self.unrealized is None else plain(self.unrealized),
            **{name: plain(amount) for name, amount in self.parts.items()},
            total=None if total is None else plain(total),
            trades=len(self.orders),
        )

    @property
    def settled(self) -> Decimal:
        """Return everything but what is not realized."""
        return self.realized + sum(self.parts.values(), ZERO)


def unrealized(played: Played, snapshot: "Snapshot | None") -> dict[str, Decimal | None]:
    """Return what each position would earn at the prices of the snapshot; ``None`` where it has no price."""
    prices = {} if snapshot is None else {p.symbol.replace("/", ""): p.current_price for p in snapshot.positions}
    gains: dict[str, Decimal | None] = {}
    for symbol, _ in played.lots:
        price = prices.get(symbol)
        worth = None if price is None else played.lots.qty(symbol) * price * multiplier(symbol)
        gains[symbol] = None if worth is None else worth - played.lots.cost(symbol)
    return gains


def _by_symbol(played: Played, gains: dict[str, Decimal | None]) -> dict[str, _Sums]:
    sums = {trade.symbol: _Sums() for trade in played.trades}
    _book(played, sums, lambda moved: moved.symbol)
    for symbol, gain in gains.items():
        sums.setdefault(symbol, _Sums()).unrealized = gain
    return dict(sorted(sums.items()))


def _by_day(played: Played, growth: Growth) -> dict[int, _Sums]:
    """Add up by day.

    A day without a close tells nothing of what is not realized; the next close does, of both, so its total is of both.
    """
    gained = growth.days
    sums = {day: _Sums() for day in gained}
    _book(played, sums, lambda moved: moved.day)
    before = ZERO
    for day, own in sorted(sums.items()):
        if day in gained:
            own.earlier = before
            own.unrealized = gained[day] - before - own.settled
            before = ZERO
        else:
            own.unrealized = None
            before += own.settled
    return dict(sorted(sums.items()))


def _book(played: Played, sums: dict[Key, _Sums], key: Callable[[Traded | Cash], Key]) -> None:
    """Add what was realized and paid where it belongs: ``key`` tells it of a trade or a payment."""
    for trade in played.trades:
        for closing in trade.closings:
            own = sums.setdefault(key(trade), _Sums())
            own.realized += closing.realized
            own.orders.add(trade.order)
    for cash in played.cash:
        if cash.kind != "transfers":
            sums.setdefault(key(cash), _Sums()).parts[cash.kind] += cash.amount


def _by_month(days: dict[int, _Sums], growth: Growth) -> dict[str, _Sums]:
    """Add up the months, each from the last close before it to its own last close.

    What was realized after that belongs, with how it changed what is not realized, to the month that the next close lies in:
    only together are they what the account gained. What is not realized is not known of a month that has gone on after the
    last close.
    """
    months: dict[str, _Sums] = {}
    last = max(growth.days, default=0)
    for day, own in days.items():
        month = months.setdefault(growth.month(day), _Sums())
        month.realized += own.realized
        for name, amount in own.parts.items():
            month.parts[name] += amount
        month.orders |= own.orders
        if day > last:
            month.unrealized = None
        elif own.unrealized is not None and month.unrealized is not None:
            month.unrealized += own.unrealized
    if growth.after_close:
        for day, amount in ((last, -growth.after_close), (last + 1, growth.after_close)):
            month = months.setdefault(growth.month(day), _Sums())
            month.unrealized = None if month.unrealized is None else month.unrealized + amount
    return months


def earn(
    archive: "Archive",
    snapshot: "Snapshot | None",
    by: str | None,
    growth: Growth | None = None,
    until_ns: int | None = None,
) -> Earnings:
    """Work out what the account earned, in rows by ``symbol``, ``day``, ``month``, or in one.

    What happened before ``until_ns`` is counted; else all up to the snapshot, or without one all there is. ``growth`` is
    ``returns.growth``. The snapshot tells what is not realized, and without one the growth
    of equity does, of the whole and unless something happened on a day after the last close; else it is not known.
    """
    with localcontext(EXACT):
        return _earn(archive, snapshot, by, growth or Growth({}, ()), until_ns)


def _earn(
    archive: "Archive", snapshot: "Snapshot | None", by: str | None, growth: Growth, until_ns: int | None
) -> Earnings:
    if until_ns is None:
        until_ns = _ALWAYS if snapshot is None else snapshot.at.epoch_ns + 1
    played = Played(events(archive, until_ns - 1))
    gains = unrealized(played, snapshot)
    whole = _Sums()
    symbols = _by_symbol(played, gains)
    for own in symbols.values():
        whole.realized += own.realized
        whole.orders |= own.orders
        for name, amount in own.parts.items():
            whole.parts[name] += amount
        known = None not in (own.unrealized, whole.unrealized)
        whole.unrealized = (whole.unrealized or ZERO) + (own.unrealized or ZERO) if known else None
    if snapshot is None and growth.days and played.last_day <= max(growth.days):
        if whole.unrealized is None:
            whole.unrealized = sum(growth.days.values(), ZERO) - whole.settled
        elif played.last_ns > growth.last_ns:  # nothing is held, and the last close knew of something that was
            growth = growth.ending_with(whole.settled + whole.unrealized)
    rows: list[EarningsRow] = []
    if by == "symbol":
        rows = [own.row({"symbol": symbol}) for symbol, own in symbols.items()]
    elif by in ("day", "month"):
        days = _by_day(played, growth)
        rows = (
            [own.row({"day": dt.date.fromordinal(day).isoformat()}) for day, own in days.items()]
            if by == "day"
            else [own.row({"month": month}) for month, own in _by_month(days, growth).items()]
        )
    total = whole.row({})
    return Earnings(
        rows=tuple(rows) if by else (total,),
        total=total,
        reconciliation=None if snapshot is None else _reconcile(archive, played, snapshot, total),
    )


def _reconcile(archive: "Archive", played: Played, snapshot: "Snapshot", total: EarningsRow) -> Reconciliation:
    from alpacli.history.archive import new_york_day

    equity, cash = snapshot.account.equity or ZERO, snapshot.account.cash or ZERO
    values = [position.market_value for position in snapshot.positions]
    worth = None if None in values else cash + sum((value for value in values if value is not None), ZERO)
    transfers = played.moved("transfers")
    expected = (equity if worth is None else worth) - transfers
    computed = total.total if total.total is not None else total.realized
    said = archive.broker_days().get(new_york_day(snapshot.at.epoch_ns))
    portfolio = None if said is None else Decimal(said)
    return Reconciliation(
        at=snapshot.at,
        equity=equity,
        moved_meanwhile=None if worth is None else plain(equity - worth),
        transfers=plain(transfers),
        expected=plain(expected),
        computed=plain(computed),
        difference=plain(computed - expected),
        portfolio_history=portfolio,
        portfolio_difference=None if portfolio is None else plain(equity - portfolio),
        positions=_differences(played, snapshot),
    )


def differences(archive: "Archive", snapshot: "Snapshot") -> tuple[Difference, ...]:
    """Return the positions of which the fills up to a snapshot tell another quantity than the snapshot does."""
    return _differences(Played(events(archive, snapshot.at.epoch_ns)), snapshot)


def _differences(played: Played, snapshot: "Snapshot") -> tuple[Difference, ...]:
    recorded = {position.symbol.replace("/", ""): position.qty for position in snapshot.positions}
    held = {symbol: played.lots.qty(symbol) for symbol, _ in played.lots}
    return tuple(
        Difference(symbol=symbol, computed=plain(held.get(symbol, ZERO)), recorded=plain(recorded.get(symbol, ZERO)))
        for symbol in sorted(held.keys() | recorded.keys())
        if held.get(symbol, ZERO) != recorded.get(symbol, ZERO)
    )
