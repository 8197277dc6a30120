"""Whether an account may have an order: who may trade what, what it would hold, and what it would cost.

Texts, codes and further fields are Alpaca's (wire reference 3.2, 3.5 and 5.7). One order never turns a position around: what
is more than the position, or than other orders leave of it, is refused.
"""

from collections.abc import Iterable
from decimal import Decimal
from typing import Final

from alpacli.sim.answers import Refusal, bad_parameter, decimal_text, forbidden
from alpacli.sim.book import Order
from alpacli.sim.contracts import Contract
from alpacli.sim.desk import Desk
from alpacli.sim.ledger import ZERO, cents
from alpacli.sim.option_checks import Trade, check_backing, check_contracts, check_free
from alpacli.sim.reports import cash_covers, configuration, spendable
from alpacli.sim.reserves import unit_cost
from alpacli.sim.terms import AUCTIONS, auction_shut
from alpacli.sim.tickets import Ticket, check_base, unfit

_EXEMPT: Final = ("bracket", "oco", "mleg")  # whose members exclude each other by themselves, or trade together
_LEAST_COIN_COST: Final = Decimal(1)
_AUCTION_TIMES: Final = {"opg": "9:28am", "cls": "3:50pm"}


class Stand:
    """How an order stands to what the account holds of its symbol; ``held`` is negative when short."""

    __slots__ = ("closes", "held")

    def __init__(self, held: Decimal, *, closes: bool) -> None:
        self.held = held
        self.closes = closes

    def intent(self, side: str) -> str:
        return f"{side}_to_{'close' if self.closes else 'open'}"


def admit(desk: Desk, ticket: Ticket, *, instead_of: Order | None = None) -> Stand:
    """Return how the order stands, or refuse it. ``instead_of`` is the order that it would replace."""
    listing, rules = ticket.listing, configuration(desk.account)
    held = desk.book.positions.get(listing.symbol)
    qty = held.qty if held is not None else ZERO
    stand = Stand(qty, closes=bool(qty) and (qty > 0) == (ticket.side == "sell"))
    if rules["suspend_trade"]:
        raise forbidden("account is not authorized to trade")
    if ticket.client_order_id is not None:
        check_own_id(desk, ticket.client_order_id)
    if ticket.fractional and not rules["fractional_trading"]:
        raise forbidden(f'asset "{listing.symbol}" is not fractionable; fractional trading is disabled')
    if ticket.time_in_force in AUCTIONS and auction_shut(desk.market.hours, ticket.time_in_force, desk.now_ns):
        until = _AUCTION_TIMES[ticket.time_in_force]
        raise forbidden(f"{ticket.time_in_force} orders must be submitted after 7:00pm and before {until}")
    if listing.contract is not None:
        check_contracts(desk, [listing.contract], ticket.order_type)
    elif instead_of is None:
        _check_market(desk, ticket)
    others = _others(desk, ticket, instead_of)
    if instead_of is None or instead_of["order_class"] not in _EXEMPT:
        _check_wash_trade(ticket, others)
    _check_direction(ticket, stand, others)
    if stand.closes or (ticket.listing.crypto and ticket.side == "sell"):
        _check_available(desk, ticket, stand, instead_of)
    elif listing.contract is None:
        if ticket.side == "sell":
            _check_short(desk, ticket)
        _check_money(desk, ticket, instead_of)
    if listing.contract is not None:
        _check_option(desk, ticket, listing.contract, stand, instead_of)
    return stand


def check_own_id(desk: Desk, client_order_id: str) -> None:
    if desk.book.knows_own_id(client_order_id):
        raise bad_parameter("client_order_id must be unique")


def _check_market(desk: Desk, ticket: Ticket) -> None:
    """Hold stops and exits against the market, which has to be on the right side of them, and to have a price at all."""
    if desk.now_ns < desk.market.tape.begins_ns(ticket.listing.symbol):
        raise unfit(f'asset "{ticket.listing.symbol}" has no price yet')
    if ticket.order_type != "stop" and ticket.order_class == "simple":
        return
    last = desk.market.tape.last(ticket.listing.symbol, desk.now_ns)
    if ticket.order_type == "stop" and ticket.stop_price is not None:
        nbbo = desk.market.tape.nbbo(ticket.listing.symbol, desk.now_ns)
        buying = ticket.side == "buy"
        if ticket.stop_price <= nbbo.ask if buying else ticket.stop_price >= nbbo.bid:
            raise unfit(
                f"stop price must be {'greater' if buying else 'less'} than current price",
                market_price=decimal_text(last),
                stop_price=decimal_text(ticket.stop_price),
            )
    if ticket.order_class == "oco":
        check_base(ticket, last)
    elif ticket.order_class != "simple":
        check_base(ticket, ticket.limit_price or ticket.stop_price or last)


def _others(desk: Desk, ticket: Ticket, instead_of: Order | None) -> list[Order]:
    """Return the open orders on the other side, without the family of the one to be replaced."""
    family = "" if instead_of is None else instead_of["parent_id"] or instead_of["id"]
    return [
        row
        for row in desk.book.open_in(ticket.listing.symbol)
        if row["side"] != ticket.side and row["status"] != "held" and family not in (row["id"], row["parent_id"])
    ]


def _check_wash_trade(ticket: Ticket, others: list[Order]) -> None:
    """Refuse an order that could trade with another of the same account. Brackets, OCO and trailing stops are exempt."""
    if ticket.order_class in _EXEMPT or ticket.order_type == "trailing_stop":
        return
    for row in others:
        if row["order_class"] in _EXEMPT or row["order_type"] == "trailing_stop":
            continue
        at_market = row["limit_price"] is None
        if not at_market and ticket.limit_price is not None:
            buy, sell = ticket.limit_price, row["limit_price"]
            if ticket.side == "sell":
                buy, sell = sell, buy
            if buy < sell:
                continue
        raise forbidden(
            "potential wash trade detected. use complex orders",
            reject_reason=f"opposite side {'market/stop' if at_market else 'limit'} order exists",
            existing_order_id=row["id"],
        )


def _check_direction(ticket: Ticket, stand: Stand, others: list[Order]) -> None:
    """Refuse what would turn a position around, and exits without entry and entries that are none."""
    opens_against = opening_orders(others)
    if ticket.order_class in ("bracket", "oto") and (stand.closes or opens_against):
        raise unfit(f"{ticket.order_class} orders must be entry orders")
    if ticket.order_class == "oco" and not stand.closes:
        raise unfit("oco orders must be exit orders")
    inferred = stand.intent(ticket.side)
    if ticket.position_intent is not None and ticket.position_intent != inferred:
        raise unfit(f"position intent mismatch, inferred {inferred}, specified {ticket.position_intent}")
    if opens_against and not stand.closes and not ticket.listing.crypto:
        raise opens_both_ways(ticket.side)


def opening_orders(orders: Iterable[Order]) -> list[Order]:
    return [row for row in orders if (row["position_intent"] or "").endswith("_to_open")]


def opens_both_ways(side: str) -> Refusal:
    mine, theirs = ("short sell", "long buy") if side == "sell" else ("long buy", "short sell")
    return unfit(f"cannot open a {mine} while a {theirs} order exists")


def _check_available(desk: Desk, ticket: Ticket, stand: Stand, instead_of: Order | None) -> None:
    but = () if instead_of is None else (instead_of["id"],)
    symbol, requested = ticket.listing.symbol, ticket.qty
    if requested is None:
        bid = desk.market.tape.nbbo(symbol, desk.now_ns).bid
        requested = ((ticket.notional or ZERO) / bid).quantize(Decimal("1e-9"))
    elif instead_of is not None:
        requested -= instead_of["filled_qty"]
    check_free(desk, symbol, ticket.side, requested, stand.held, but=but)


def _check_option(desk: Desk, ticket: Ticket, contract: Contract, stand: Stand, instead_of: Order | None) -> None:
    left = (ticket.qty or ZERO) - (ZERO if instead_of is None else instead_of["filled_qty"])
    cost = ZERO
    if not stand.closes:
        cost = left * unit_cost(desk, contract.symbol, ticket.side, ticket.limit_price, None)
    trade = Trade(contract, int(left) if ticket.side == "buy" else -int(left), stand.closes)
    check_backing(desk, [trade], cost, but=() if instead_of is None else (instead_of["id"],))


def _check_short(desk: Desk, ticket: Ticket) -> None:
    rules = configuration(desk.account)
    if ticket.fractional:
        raise unfit("fractional orders cannot be sold short")
    if rules["no_shorting"] or rules["max_margin_multiplier"] == "1":
        raise forbidden("account is not allowed to short")
    if not ticket.listing.shortable:
        raise unfit(f'asset "{ticket.listing.symbol}" cannot be sold short')


def _check_money(desk: Desk, ticket: Ticket, instead_of: Order | None) -> None:
    listing = ticket.listing
    if ticket.notional is not None:
        cost = ticket.notional
    else:
        qty = ticket.qty or ZERO
        if instead_of is not None:
            qty -= instead_of["filled_qty"]
        cost = qty * unit_cost(desk, listing.symbol, ticket.side, ticket.limit_price, ticket.stop_price)
    cost = cents(cost)
    if listing.crypto and cost < _LEAST_COIN_COST:
        raise forbidden(f"cost basis must be >= minimal amount of order {_LEAST_COIN_COST}")
    but = () if instead_of is None else (instead_of["id"],)
    if cash_covers(desk, cost, on_margin=not listing.crypto, but=but):
        return
    with_margin, without = spendable(desk, but=but)
    power = without if listing.crypto else with_margin
    if cost > power:
        raise forbidden("insufficient buying power", buying_power=decimal_text(power), cost_basis=decimal_text(cost))
