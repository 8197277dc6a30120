"""Money and shares: what a fill or a settlement does to an account, and what an account is worth.

Cash moves in whole cents (half to even), as at a broker. The cost of a position is exact, so that the average entry price is
the price paid; where shares leave in part, the cost that leaves with them is rounded to 10⁻¹². The cent that rounding moves
when cost is shown in cents is realized at once, so at every moment and to the cent

    cash = transfers + realized − cost of all positions,      equity = cash + market value of all positions.

An option's price is a share's, and a contract is about a hundred of them. Where one is exercised or assigned, it leaves at no
price and the shares come or go at the strike; where it expires, it leaves at no price.
"""

import sqlite3
from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from typing import Final, NamedTuple

from alpacli.sim.answers import identifier
from alpacli.sim.book import Book, Execution, Order, Position
from alpacli.sim.collateral import Cover, cover
from alpacli.sim.contracts import MULTIPLIER, Contract
from alpacli.sim.listing import LISTINGS, underlying_of
from alpacli.sim.prices import LastPrices

ZERO: Final = Decimal(0)
_CENT: Final = Decimal("0.01")
_COST_STEP: Final = Decimal("1e-12")
_EXACT: Final = Context(prec=60, rounding=ROUND_HALF_EVEN)


class Settlement(NamedTuple):
    """What the clearing house does to a position without any order; ``activity_type`` is OPEXC, OPASN, OPEXP or OPTRD.

    ``group_id`` is shared by what happens together: the option that leaves, and the shares that come or go at the strike.
    """

    activity_type: str
    group_id: str
    symbol: str
    side: str
    qty: Decimal
    price: Decimal
    at_ns: int


def cents(amount: Decimal) -> Decimal:
    return amount.quantize(_CENT, ROUND_HALF_EVEN, _EXACT)


def execute(holding: Position, signed_qty: Decimal, price: Decimal) -> tuple[Position, Decimal]:
    """Return the position after buying (positive) or selling (negative), and by how much cash changes."""
    held, before, realized, expires_ns, forgone = holding
    exact, paid = _EXACT, _EXACT.multiply(signed_qty, price)
    cash = exact.minus(cents(paid))
    qty = exact.add(held, signed_qty)
    if not held or (held > 0) == (signed_qty > 0):
        cost = exact.add(before, paid)
    elif not qty:
        cost = ZERO
    elif (held > 0) == (qty > 0):
        leaving = exact.divide(exact.multiply(before, signed_qty), held).quantize(_COST_STEP, None, exact)
        cost = exact.add(before, leaving)
    else:
        cost = exact.multiply(qty, price)
    realized = exact.subtract(exact.add(exact.add(realized, cash), cents(cost)), cents(before))
    return Position(qty, cost, realized, expires_ns, forgone), cash


def average_entry(holding: Position, multiplier: int = 1) -> Decimal:
    """Return the average price paid, with at most nine decimals; only for a holding that is not flat."""
    with localcontext(_EXACT):
        return (holding.cost / holding.qty / multiplier).quantize(Decimal("1e-9"))


def market_value(qty: Decimal, price: Decimal, multiplier: int = 1) -> Decimal:
    """Return what a quantity is worth at a price, which ``multiplier`` units of one of it have."""
    return cents(_EXACT.multiply(qty * multiplier, price))


def holdings(book: Book) -> dict[str, Position]:
    """Return the account's positions by symbol, in order of symbol."""
    return {symbol: position for symbol, position in book.positions.items() if position.qty}


def transfer(db: sqlite3.Connection, account: int, activity_type: str, amount: Decimal, at_ns: int, why: str) -> None:
    """Move cash in or out of an account that nobody has opened yet."""
    seq = db.execute(
        "INSERT INTO transfers (account, id, activity_type, amount, at_ns, description) VALUES (?, '', ?, ?, ?, ?)",
        (account, activity_type, str(cents(amount)), at_ns, why),
    ).lastrowid
    db.execute("UPDATE transfers SET id = ? WHERE seq = ?", (identifier("transfer", account, seq), seq))
    row = db.execute("SELECT cash FROM accounts WHERE number = ?", (account,)).fetchone()
    cash = _EXACT.add(Decimal(row["cash"]), cents(amount))
    db.execute("UPDATE accounts SET cash = ? WHERE number = ?", (_plain(cash), account))


def book_fill(
    book: Book,
    order: Order,
    status: str,
    qty: Decimal,
    price: Decimal,
    filled: Decimal,
    leaves: Decimal,
    at_ns: int,
    expires_ns: int | None,
) -> Decimal:
    """Book one execution: cash, position and the fill itself. Return the position after it, negative when short.

    ``status`` is the order's after it, ``filled`` and ``leaves`` how much of it is filled then and how much is left; an
    option ends at ``expires_ns``. Fills of an account are booked in order of time.
    """
    symbol, side = order["symbol"], order["side"]
    after, cash = _move(book, symbol, side, qty, price, expires_ns)
    book.book(Execution(order["id"], symbol, side, qty, price, cash, filled, leaves, status, at_ns))
    return after.qty


def settle_position(book: Book, settlement: Settlement) -> None:
    """Book a settlement: cash, position and the settlement itself."""
    kind, group_id, symbol, side, qty, price, at_ns = settlement
    _, cash = _move(book, symbol, side, qty, price, None)
    db, account = book.db, book.account.number
    seq = db.execute(
        "INSERT INTO settlements (account, id, group_id, activity_type, symbol, side, qty, price, cash, at_ns)"
        " VALUES (?, '', ?, ?, ?, ?, ?, ?, ?, ?)",
        (account, group_id, kind, symbol, side, *map(_plain, (qty, price, cash)), at_ns),
    ).lastrowid
    db.execute("UPDATE settlements SET id = ? WHERE seq = ?", (identifier("settlement", account, kind, group_id), seq))


def _move(
    book: Book, symbol: str, side: str, qty: Decimal, price: Decimal, expires_ns: int | None
) -> tuple[Position, Decimal]:
    """Let units come or go at a price, and the cash for them; return the position after it, and by how much cash changed.

    A position in options that is left, or begun, remembers when it ends.
    """
    before, listing = book.positions.get(symbol, _NONE), LISTINGS[symbol]
    after, cash = execute(
        before, qty if side == "buy" else -qty, price * listing.multiplier if listing.contract is not None else price
    )
    if before.expires_ns is not None or expires_ns is not None or before.forgone:
        ends_ns = (expires_ns or before.expires_ns) if after.qty else None
        after = after._replace(expires_ns=ends_ns, forgone=before.forgone and bool(after.qty))
    book.hold(symbol, after)
    book.have_cash(_EXACT.add(book.cash, cash))
    return after, cash


_NONE: Final = Position()


class Past(NamedTuple):
    """An account as it stood at an earlier moment."""

    cash: Decimal
    quantities: Mapping[str, Decimal]
    transferred: Decimal


def rewind(book: Book, at_ns: int) -> Past:
    """Return cash, quantities and transferred money at ``at_ns``, undoing from today everything later."""
    db, account, cash = book.db, book.account.number, book.cash
    quantities = {symbol: position.qty for symbol, position in book.positions.items()}
    later = db.execute("SELECT symbol, side, qty, cash FROM bookings WHERE account = ? AND at_ns > ?", (account, at_ns))
    for row in later:
        qty = Decimal(row["qty"])
        quantities[row["symbol"]] -= qty if row["side"] == "buy" else -qty
        cash -= Decimal(row["cash"])
    transferred = ZERO
    for row in db.execute("SELECT amount, at_ns FROM transfers WHERE account = ?", (account,)):
        if row["at_ns"] > at_ns:
            cash -= Decimal(row["amount"])
        else:
            transferred += Decimal(row["amount"])
    return Past(cash, {symbol: qty for symbol, qty in quantities.items() if qty}, transferred)


class Worth(NamedTuple):
    """Market values in cents (short ones negative) and the margin that they need.

    ``collateral`` is the money that has to stay behind short options.
    """

    long: Decimal
    short: Decimal
    initial_margin: Decimal
    maintenance_margin: Decimal
    collateral: Decimal = ZERO


def worth(tape: LastPrices, quantities: Mapping[str, Decimal], at_ns: int) -> Worth:
    """Value quantities at the last prices of a moment.

    Margin: equities need 50 % to open and 30 % to keep (Regulation T and the usual house rule); coins are paid in full. The
    options on a stock need what they would bring if closed, and on top what the short ones may lose (``collateral``).
    """
    long = short = initial = maintenance = collateral = ZERO
    options: dict[str, Decimal] = {}
    for symbol, qty in quantities.items():
        listing = LISTINGS[symbol]
        value = market_value(qty, tape.last(symbol, at_ns), listing.multiplier)
        if qty > 0:
            long += value
        else:
            short += value
        if listing.contract is not None:
            stock = underlying_of(listing.contract)
            options[stock] = options.get(stock, ZERO) + value
            continue
        initial += abs(value) * initial_rate(symbol)
        maintenance += abs(value) * (Decimal(1) if LISTINGS[symbol].crypto else Decimal("0.3"))
    for stock, behind in covers(quantities).items():
        needed = max(options[stock] + behind.money, ZERO)
        initial, maintenance, collateral = initial + needed, maintenance + needed, collateral + behind.money
    return Worth(long, short, cents(initial), cents(maintenance), collateral)


def covers(quantities: Mapping[str, Decimal]) -> dict[str, Cover]:
    """Return what stands behind the short options of a portfolio, by the stocks that there are options on."""
    books: dict[str, dict[Contract, int]] = {}
    for symbol, qty in quantities.items():
        contract = LISTINGS[symbol].contract
        if contract is not None:
            books.setdefault(underlying_of(contract), {})[contract] = int(qty)
    return {stock: cover(book, max(int(quantities.get(stock, ZERO)), 0) // MULTIPLIER) for stock, book in books.items()}


def initial_rate(symbol: str) -> Decimal:
    listing = LISTINGS[symbol]
    return Decimal(1) if listing.crypto or listing.contract is not None else Decimal("0.5")


def _plain(value: Decimal) -> str:
    return format(value, "f")
