"""What open orders keep back: shares of a position, and money.

Exits that exclude each other count once, as do an order and the replacement that is on its way to it. What a bracket's entry
has bought so far is kept for its exits, so that they never sell more than there is. Only orders that open or enlarge a
position need money; they count at the price at which they were accepted: their limit, else their stop, else the market's,
and shorts at 3 % above the offer at least (wire reference 5.7). Options that are sold need no price but something to stand
behind them (``collateral``), as if all orders that open or uncover a short were filled, and with or without those of several
legs, whichever needs more.
"""

from collections.abc import Collection, Mapping
from decimal import Decimal
from typing import Final, NamedTuple

from alpacli.sim.book import Order
from alpacli.sim.collateral import Cover, cover
from alpacli.sim.contracts import MULTIPLIER, Contract
from alpacli.sim.desk import Desk
from alpacli.sim.ledger import ZERO, initial_rate
from alpacli.sim.listing import LISTINGS, underlying_of
from alpacli.sim.state import WORKING
from alpacli.sim.terms import opening

_SHORT_COLLAR: Final = Decimal("1.03")


class Reserved(NamedTuple):
    """What open orders would need if they filled: initial margin, and the whole amount. Not rounded."""

    margin: Decimal
    value: Decimal


_NOTHING: Final = Reserved(ZERO, ZERO)
_NOTHING_BEHIND: Final = Cover(ZERO, 0, 0, spreads=False)


def held_for_orders(desk: Desk, symbol: str, side: str, *, but: Collection[str] = ()) -> Decimal:
    """Return how many units open orders on one side of a symbol still want, without those named in ``but``.

    Shares that stand behind short calls are wanted too.
    """
    wanted_by_orders = _wanted(desk, symbol, side, but)
    if side != "sell" or LISTINGS[symbol].contract is not None:
        return wanted_by_orders
    return wanted_by_orders + MULTIPLIER * backing(desk, symbol, but=but).lots


def _wanted(desk: Desk, symbol: str, side: str, but: Collection[str]) -> Decimal:
    """Add up what is wanted; an order that is left out takes with it the exits that it excludes."""
    wanted: dict[str, Decimal] = {}
    left_out: set[str] = set()
    for row in desk.book.open_in(symbol):
        if row["side"] == side:
            group = _group(row)
            wanted[group] = max(wanted.get(group, ZERO), _still_wanted(desk, row))
            if row["id"] in but:
                left_out.add(group)
    return sum((units for group, units in wanted.items() if group not in left_out), ZERO)


def reserved(desk: Desk, quantities: Mapping[str, Decimal], *, but: Collection[str] = ()) -> Reserved:
    """Return what open orders need that open or enlarge a position, without those named in ``but``."""
    if not desk.book.has_open:
        return _NOTHING
    wanted: dict[str, tuple[Decimal, Decimal]] = {}
    for row in desk.book.open_orders():
        if row["status"] == "held":
            continue
        symbol, held = row["symbol"], quantities.get(row["symbol"], ZERO)
        if row["id"] in but or (held and (held > 0) == (row["side"] == "sell")):
            continue
        if row["order_class"] == "mleg":
            if row["parent_id"] is None:
                left = row["qty"] - row["filled_qty"]
                net = package_cost(desk, row["id"]) if row["limit_price"] is None else row["limit_price"]
                value = max(net, ZERO) * left * MULTIPLIER
                group = _group(row)
                wanted[group] = max(wanted.get(group, (ZERO, ZERO)), (value, value))
            continue
        if row["notional"] is not None:
            value = row["notional"] - row["filled_value"]
        else:
            price = unit_cost(desk, symbol, row["side"], row["limit_price"], row["stop_price"])
            value = (row["qty"] - row["filled_qty"]) * price
        group = _group(row)
        wanted[group] = max(wanted.get(group, (ZERO, ZERO)), (value, value * initial_rate(symbol)))
    behind = collateral_on_order(desk, quantities, but=but)
    return Reserved(
        sum((margin for _, margin in wanted.values()), behind), sum((value for value, _ in wanted.values()), behind)
    )


def backing(
    desk: Desk,
    stock: str,
    *,
    but: Collection[str] = (),
    more: Mapping[Contract, int] | None = None,
    more_shares: Decimal = ZERO,
) -> Cover:
    """Return what stands behind the short options on a stock, those on order included; ``more`` is what is traded besides.

    Where it makes a difference whether an order of several legs is filled, the worse is assumed of all of them.
    """
    if more is None and not desk.book.has_options:
        return _NOTHING_BEHIND
    held, free = _options_held(desk, stock), _free_lots(desk, stock, but, more_shares)
    singles, packages = _options_on_order(desk, stock, but)
    if not (held or singles or packages or more):
        return _NOTHING_BEHIND
    books = [_sum_up(held, singles, more or {}), _sum_up(held, singles, packages, more or {})]
    return max((cover(book, free) for book in books), key=lambda behind: (behind.uncovered, behind.money, behind.lots))


def collateral_on_order(desk: Desk, quantities: Mapping[str, Decimal], *, but: Collection[str] = ()) -> Decimal:
    """Return the money that options on order need behind them, beyond what those held do."""
    if not desk.book.has_options:
        return ZERO
    stocks = {
        underlying_of(contract)
        for row in desk.book.open_options()
        if (contract := LISTINGS[row["symbol"]].contract) is not None
    }
    total = ZERO
    for stock in sorted(stocks):
        now = cover(_options_held(desk, stock), max(int(quantities.get(stock, ZERO)), 0) // MULTIPLIER)
        total += max(backing(desk, stock, but=but).money - now.money, ZERO)
    return total


def package_cost(desk: Desk, order_id: str) -> Decimal:
    """Return what the legs of an order of several cost a share at the market; nothing where nobody bids for one of them."""
    cost = ZERO
    for row in desk.book.legs_of(order_id):
        nbbo, buying = desk.market.tape.nbbo(row["symbol"], desk.now_ns), row["side"] == "buy"
        cost += row["ratio_qty"] * (nbbo.ask if buying else -nbbo.bid)
    return cost


def unit_cost(desk: Desk, symbol: str, side: str, limit: Decimal | str | None, stop: Decimal | str | None) -> Decimal:
    """Return what one unit of an order that opens a position counts for."""
    listing, tape = LISTINGS[symbol], desk.market.tape
    named = limit if limit is not None else stop
    if listing.contract is not None:  # what is sold is not paid for
        price = Decimal(named) if named is not None else tape.nbbo(symbol, desk.now_ns).ask
        return price * listing.multiplier if side == "buy" else ZERO
    if side == "buy" and named is not None:
        return Decimal(named)
    is_open = opening(desk.market.hours, listing, desk.now_ns, extended=False) == desk.now_ns
    market = tape.nbbo(symbol, desk.now_ns).ask if is_open else tape.last(symbol, desk.now_ns)
    if side == "buy":
        return market
    return max(Decimal(named or 0), market * _SHORT_COLLAR)


def _options_held(desk: Desk, stock: str) -> dict[Contract, int]:
    found: dict[Contract, int] = {}
    for symbol, position in desk.book.positions.items():
        contract = LISTINGS[symbol].contract if position.expires_ns is not None else None
        if contract is not None and underlying_of(contract) == stock:
            found[contract] = int(position.qty)
    return found


def _options_on_order(desk: Desk, stock: str, but: Collection[str]) -> tuple[dict[Contract, int], dict[Contract, int]]:
    """Return what open orders change about the options on a stock: those of one leg as far as they sell, those of several."""
    singles: dict[str, tuple[Contract, int]] = {}
    packages: dict[Contract, int] = {}
    for row in desk.book.open_options():
        contract = LISTINGS[row["symbol"]].contract
        if contract is None or underlying_of(contract) != stock or {row["id"], row["parent_id"]} & set(but):
            continue
        left = int(row["qty"] - row["filled_qty"]) * (1 if row["side"] == "buy" else -1)
        if row["parent_id"] is not None:
            packages[contract] = packages.get(contract, 0) + left
        elif left < 0:
            group = _group(row)
            singles[group] = (contract, min(left, singles.get(group, (contract, 0))[1]))
    sold: dict[Contract, int] = {}
    for contract, left in singles.values():
        sold[contract] = sold.get(contract, 0) + left
    return sold, packages


def _free_lots(desk: Desk, stock: str, but: Collection[str], more: Decimal) -> int:
    position = desk.book.positions.get(stock)
    shares = more if position is None else position.qty + more
    return max(int(shares - _wanted(desk, stock, "sell", but)), 0) // MULTIPLIER


def _sum_up(*books: Mapping[Contract, int]) -> dict[Contract, int]:
    total: dict[Contract, int] = {}
    for book in books:
        for contract, qty in book.items():
            total[contract] = total.get(contract, 0) + qty
    return total


def _group(row: Order) -> str:
    on_its_way = row["replaces"] if row["status"] == "pending_new" else None
    return str(row["parent_id"] or on_its_way or row["id"])


def _still_wanted(desk: Desk, row: Order) -> Decimal:
    if row["qty"] is None:
        rest: Decimal = row["notional"] - row["filled_value"]
        return (rest / desk.market.tape.nbbo(row["symbol"], desk.now_ns).bid).quantize(Decimal("1e-9"))
    wanted: Decimal = row["qty"] - row["filled_qty"]
    if row["status"] != "held" or row["active_ns"] is not None:
        return wanted
    parent = desk.book.order(row["parent_id"])
    bought = parent["filled_qty"] if parent is not None and parent["status"] in WORKING else ZERO
    return min(bought, wanted)
