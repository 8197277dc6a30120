"""What an order is worth at the market's prices, in USD and before fees.

A limit bounds one side only: a buy pays at most that much, and a sale brings at least that much, so a sale below the market
is worth what the market bids.
"""

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Final, NamedTuple

from alpacli.domain.tickets import Leg, OrderTicket

CONTRACT_SHARES: Final = 100
_WIDEST: Final = Decimal("1.1")


class Quote(NamedTuple):
    """The market's bid and ask in USD; ``None`` where there is none."""

    bid: Decimal | None = None
    ask: Decimal | None = None

    @property
    def is_too_wide(self) -> bool:
        """Tell whether bid and ask of a share lie so far apart (10 %) that neither of them is a price to judge by."""
        return self.bid is not None and self.ask is not None and self.ask > self.bid * _WIDEST


def reference_price(ticket: OrderTicket, quote: Quote | None) -> Decimal | None:
    """Return the price at which an order would fill, as far as it is known: at its own price, or better at the market.

    For several legs it is that of all of them together, negative for a credit; ``quote`` has their ``net_price``.
    """
    if ticket.order_class == "oco" and ticket.limit_price is None and ticket.take_profit is not None:
        return ticket.take_profit
    market = _far_side(ticket, quote)
    if ticket.order_class == "mleg":
        return _net_reference(ticket.limit_price, market)
    if ticket.side == "sell":
        falls_to = _known(min, ticket.stop_price, market)
        return _known(max, ticket.limit_price, falls_to)
    if ticket.limit_price is not None:
        return ticket.limit_price
    return _known(max, ticket.stop_price, market)


def _far_side(ticket: OrderTicket, quote: Quote | None) -> Decimal | None:
    if quote is None:
        return None
    near = quote.bid if ticket.side == "sell" else quote.ask
    return near or quote.bid or quote.ask


def _net_reference(limit: Decimal | None, net: Decimal | None) -> Decimal | None:
    """Return the limit where it has to be waited for, and where a credit is to be had, the better one."""
    if limit is None or net is None:
        return net if limit is None else limit
    return limit if limit >= 0 and net >= 0 else min(limit, net)


def _known(choose: Callable[[Iterable[Decimal]], Decimal], *prices: Decimal | None) -> Decimal | None:
    known = [price for price in prices if price is not None]
    return choose(known) if known else None


def is_bounded(ticket: OrderTicket) -> bool:
    """Tell whether the order says by itself what it is worth at the most, whatever the market's prices are."""
    return ticket.notional is not None or (
        ticket.side == "buy" and ticket.limit_price is not None and ticket.order_class != "mleg"
    )


def is_credit(ticket: OrderTicket, quote: Quote | None) -> bool:
    """Tell whether several legs bring money: what they take is what has to stand behind them, which is no price."""
    price = reference_price(ticket, quote) if ticket.order_class == "mleg" else None
    return price is not None and price < 0


def net_price(legs: Iterable[Leg], quotes: Mapping[str, Quote]) -> Decimal | None:
    """Return what a share of several option legs costs at the market: offers bought less bids sold, negative for a credit.

    What nobody bids for brings nothing. ``None`` where nobody offers a leg, so that it has no price.
    """
    net = Decimal(0)
    for leg in legs:
        buying = leg.buys
        bid, ask = quotes[leg.symbol]
        if ask is None:
            return None
        net += leg.ratio_qty * (ask if buying else -(bid or 0))
    return net


def estimated_value(ticket: OrderTicket, quote: Quote | None) -> Decimal | None:
    """Return what the order is worth; ``None`` when no price is known."""
    if ticket.notional is not None:
        return ticket.notional
    price = reference_price(ticket, quote)
    if price is None or ticket.qty is None:
        return None
    per = CONTRACT_SHARES if ticket.asset_class == "us_option" else 1
    return abs(ticket.qty * price) * per


def estimated_cost(ticket: OrderTicket, quote: Quote | None) -> Decimal | None:
    """Return what the order would cost: its value, negative where several legs bring money."""
    value = estimated_value(ticket, quote)
    return -value if value is not None and is_credit(ticket, quote) else value


def largest_value(ticket: OrderTicket, quote: Quote | None) -> Decimal | None:
    """Return what the order is worth at the most; ``None`` where that depends on the market's price, and it is missing."""
    return estimated_value(ticket, quote) if is_bounded(ticket) or _has_market(ticket, quote) else None


def _has_market(ticket: OrderTicket, quote: Quote | None) -> bool:
    """Tell whether somebody offers and somebody bids; for an option that is bought an offer is enough.

    Where there is one side alone, it may be any number, and nobody trades at it.
    """
    if quote is None or quote.ask is None:
        return False
    return quote.bid is not None or (ticket.side == "buy" and ticket.asset_class == "us_option")


def largest_qty(ticket: OrderTicket, quote: Quote | None) -> Decimal | None:
    """Return how many shares, coins or contracts the order is for, of several legs the most of one.

    An amount of money is for as many as it buys at the market; ``None`` where that is not known.
    """
    if ticket.notional is None:
        return max((part.qty for part in parts(ticket) if part.qty is not None), default=None)
    if quote is None or quote.bid is None or quote.ask is None:
        return None
    price = quote.ask if ticket.side == "buy" else quote.bid
    limit = ticket.limit_price if ticket.side == "buy" else None
    return ticket.notional / (price if limit is None else min(price, limit))


def parts(ticket: OrderTicket) -> tuple[OrderTicket, ...]:
    """Return the order, or one at the market for each of its legs, all of which fill together."""
    if not ticket.legs:
        return (ticket,)
    return tuple(
        OrderTicket(
            symbol=leg.symbol,
            side="buy" if leg.buys else "sell",
            qty=None if ticket.qty is None else ticket.qty * leg.ratio_qty,
        )
        for leg in ticket.legs
    )
