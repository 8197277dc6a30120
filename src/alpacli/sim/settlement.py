"""What becomes of options: exercised when their owner says so, and at expiration what a clearing house would do.

At the close of its last day a contract that is a cent or more in the money is exercised, unless its owner forbade it or could
not pay for the shares: then it is sold at that moment for what exercise would bring. Short ones in the money are assigned,
and all others end. An exercised or assigned option leaves at no price, and shares come or go at the strike (ADR 11).
"""

from decimal import Decimal
from typing import Final

from alpacli.sim.answers import Refusal, decimal_text, forbidden, identifier
from alpacli.sim.contracts import MULTIPLIER, Contract
from alpacli.sim.desk import Desk
from alpacli.sim.hours import new_york_date
from alpacli.sim.ledger import ZERO, Settlement, holdings, settle_position
from alpacli.sim.listing import LISTINGS, find, underlying_of
from alpacli.sim.orders import enter, fill_order, new_order
from alpacli.sim.reports import configuration, spendable
from alpacli.sim.reserves import backing, held_for_orders
from alpacli.sim.tickets import unfit

SHORT: Final = 40310001

_IN_THE_MONEY: Final = Decimal("0.01")


def expire_positions(desk: Desk) -> None:
    """Settle all of the account's options that end at the desk's moment: assignments first, so that shares are there."""
    ending = [(symbol, held) for symbol, held in desk.book.positions.items() if held.expires_ns == desk.now_ns]
    for symbol, held in sorted(ending, key=lambda item: item[1].qty > 0):
        contract, qty = _contract(symbol), held.qty
        worth = desk.market.options.intrinsic(contract)
        if worth < _IN_THE_MONEY or (qty > 0 and held.forgone):
            _leave(desk, contract, qty, "OPEXP")
        elif qty < 0:
            _turn_into_shares(desk, contract, qty, "OPASN")
        elif _why_not(desk, contract, qty) is None:
            _turn_into_shares(desk, contract, qty, "OPEXC")
        else:
            _sell_out(desk, contract, qty)


def exercise(desk: Desk, symbol_or_id: str) -> None:
    """Exercise all that is free of a position, at once."""
    contract, qty = _owned(desk, symbol_or_id, "cannot exercise short position")
    if _is_evening(desk):
        raise forbidden("exercise requests are not accepted between market close and midnight")
    free = qty - held_for_orders(desk, contract.symbol, "sell")
    if free <= 0:
        raise forbidden("no available position for the specified contract")
    refusal = _why_not(desk, contract, free)
    if refusal is not None:
        raise refusal
    _turn_into_shares(desk, contract, free, "OPEXC")


def forgo(desk: Desk, symbol_or_id: str) -> None:
    """Forbid that a position is exercised by itself when it expires."""
    contract, _ = _owned(desk, symbol_or_id, "cannot submit DNE for short position")
    desk.book.hold(contract.symbol, desk.book.positions[contract.symbol]._replace(forgone=True))


def _owned(desk: Desk, symbol_or_id: str, short: str) -> tuple[Contract, Decimal]:
    listing = find(symbol_or_id, desk.market.listings)
    if listing is None or listing.contract is None:
        raise unfit("invalid symbol")
    holding = holdings(desk.book).get(listing.symbol)
    if holding is None:
        raise forbidden("no available position for the specified contract")
    if holding.qty < 0:
        raise Refusal(403, SHORT, short)
    return listing.contract, holding.qty


def _is_evening(desk: Desk) -> bool:
    today = new_york_date(desk.now_ns)
    return any(day.close_ns <= desk.now_ns for day in desk.market.hours.days(today, today))


def _why_not(desk: Desk, contract: Contract, qty: Decimal) -> Refusal | None:
    """Return why so many long contracts cannot be exercised: no money for the shares, or short calls left uncovered."""
    stock, units = underlying_of(contract), qty * MULTIPLIER
    held = holdings(desk.book).get(stock)
    shares = held.qty if held is not None else ZERO
    power = spendable(desk)[0]
    if contract.type == "call":
        cost = max(units + min(shares, ZERO), ZERO) * contract.strike
    else:
        free = max(shares - held_for_orders(desk, stock, "sell"), ZERO)
        short = max(units - free, ZERO)
        cost = short * desk.market.tape.last(stock, desk.now_ns)
        rules = configuration(desk.account)
        barred = rules["no_shorting"] or rules["max_margin_multiplier"] == "1"
        if short and (barred or not desk.market.listings[stock].shortable or shares > free):
            return forbidden("account is not allowed to short")
    if cost > power:
        return forbidden("insufficient buying power", buying_power=decimal_text(power), cost_basis=decimal_text(cost))
    gains = units if contract.type == "call" else -units
    after = backing(desk, stock, more={contract: -int(qty)}, more_shares=gains)
    if after.uncovered > backing(desk, stock).uncovered:
        return forbidden("account not eligible to trade uncovered option contracts")
    return None


def _turn_into_shares(desk: Desk, contract: Contract, qty: Decimal, activity_type: str) -> None:
    """Let options leave and a hundred shares for each come or go at the strike; ``qty`` is negative for assigned ones."""
    group_id = _leave(desk, contract, qty, activity_type)
    gains = (contract.type == "call") == (qty > 0)
    settle_position(
        desk.book,
        Settlement(
            "OPTRD",
            group_id,
            underlying_of(contract),
            "buy" if gains else "sell",
            abs(qty) * MULTIPLIER,
            contract.strike,
            desk.now_ns,
        ),
    )


def _leave(desk: Desk, contract: Contract, qty: Decimal, activity_type: str) -> str:
    group_id = identifier("settlement", desk.account.id, contract.symbol, activity_type, desk.now_ns)
    side = "sell" if qty > 0 else "buy"
    settle_position(
        desk.book,
        Settlement(activity_type, group_id, contract.symbol, side, abs(qty), ZERO, desk.now_ns),
    )
    return group_id


def _sell_out(desk: Desk, contract: Contract, qty: Decimal) -> None:
    """Sell what its owner cannot pay to exercise."""
    order = new_order(contract.symbol, "sell", "market", "day", desk.now_ns, qty=qty, position_intent="sell_to_close")
    order_id = enter(desk, order)
    fill_order(desk, order_id, qty, desk.market.tape.nbbo(contract.symbol, desk.now_ns).bid, desk.now_ns)


def _contract(symbol: str) -> Contract:
    contract = LISTINGS[symbol].contract
    if contract is None:
        raise AssertionError("only options expire")
    return contract
