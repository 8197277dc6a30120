"""Whether an account may trade options: which contracts, at which level, and with what behind them.

Level 1 sells what shares or money cover, 2 also buys, 3 also lets long options cover short ones; nothing is ever sold that
nothing stands behind. Texts, codes and further fields are Alpaca's (wire reference 3.2 and 3.5).
"""

from collections.abc import Collection, Sequence
from decimal import Decimal
from typing import NamedTuple

from alpacli.sim.answers import decimal_text, forbidden
from alpacli.sim.chains import is_listed, tradable
from alpacli.sim.contracts import MULTIPLIER, Contract
from alpacli.sim.desk import Desk
from alpacli.sim.ledger import ZERO, cents, holdings
from alpacli.sim.listing import underlying_of
from alpacli.sim.reports import options_level, spendable
from alpacli.sim.reserves import backing, held_for_orders
from alpacli.sim.tickets import unfit

_SELLS, _BUYS, _SPREADS = 1, 2, 3


class Trade(NamedTuple):
    """What is to be traded of one contract: how many are bought (negative: sold), and whether that closes a position."""

    contract: Contract
    change: int
    closes: bool

    @property
    def side(self) -> str:
        return "buy" if self.change > 0 else "sell"


def check_contracts(desk: Desk, contracts: Sequence[Contract], order_type: str) -> None:
    """Refuse contracts that are not listed or no longer, and orders at the market while it is shut."""
    for contract in contracts:
        if not is_listed(desk.market, contract, desk.now_ns):
            raise unfit(f"option contract {contract.symbol} not found")
        if not tradable(desk.market, contract, desk.now_ns):
            raise unfit(f"option contract {contract.symbol} is expired")
    if order_type == "market" and not desk.market.hours.is_open(desk.now_ns):
        raise unfit("options market orders are only allowed during market hours")


def check_backing(desk: Desk, trades: Sequence[Trade], cost: Decimal, *, but: Collection[str] = ()) -> None:
    """Refuse what the account's level, its shares or its money do not allow.

    ``cost`` is what opening takes in dollars. ``but`` are orders that these would replace. What one contract buys may stay
    unfilled, so it covers nothing; the legs of several are filled together.
    """
    level = options_level(desk.account)
    needed = _level(trades)
    if level < needed:
        raise forbidden(f"account not eligible for level {needed} options trading")
    stock = underlying_of(trades[0].contract)
    together = len(trades) > 1
    counted = {trade.contract: trade.change for trade in trades if together or trade.change < 0}
    before, after = backing(desk, stock, but=but), backing(desk, stock, but=but, more=counted)
    if after.uncovered > before.uncovered:
        if level < _SPREADS:
            raise forbidden(
                "insufficient underlying qty available for covered call",
                available_qty=decimal_text(_shares(desk, stock, but)),
                required_qty=str((after.uncovered - before.uncovered) * MULTIPLIER),
                underlying_asset_id=desk.market.listings[stock].asset_id,
            )
        raise forbidden("account not eligible to trade uncovered option contracts")
    if after.spreads and not before.spreads and level < _SPREADS:
        raise forbidden(f"account not eligible for level {_SPREADS} options trading")
    behind = max(after.money - before.money, ZERO)
    if not behind and all(trade.closes for trade in trades):
        return
    power = spendable(desk, but=but)[1]
    if cents(cost) + behind <= power:
        return
    if behind and not together:
        raise forbidden(
            "insufficient options buying power for cash-secured put",
            required_options_buying_power=decimal_text(behind),
            options_buying_power=decimal_text(power),
        )
    raise forbidden(
        "insufficient options buying power",
        options_buying_power=decimal_text(power),
        cost_basis=decimal_text(cents(cost) + behind),
    )


def check_free(
    desk: Desk, symbol: str, side: str, requested: Decimal, held: Decimal, *, but: Collection[str] = ()
) -> None:
    """Refuse to close more of a position than other orders leave of it."""
    size = abs(held)
    on_hold = held_for_orders(desk, symbol, side, but=but)
    available = max(size - on_hold, ZERO)
    if requested > available:
        raise forbidden(
            "insufficient qty available for order"
            f" (requested: {decimal_text(requested)}, available: {decimal_text(available)})",
            available=decimal_text(available),
            existing_qty=decimal_text(size),
            held_for_orders=decimal_text(on_hold),
            symbol=symbol,
        )


def _level(trades: Sequence[Trade]) -> int:
    opening = [trade for trade in trades if not trade.closes]
    if not opening:
        return 0
    if len(trades) > 1:
        return _SPREADS
    return _BUYS if opening[0].change > 0 else _SELLS


def _shares(desk: Desk, stock: str, but: Collection[str]) -> Decimal:
    held = holdings(desk.book).get(stock)
    return max(held.qty - held_for_orders(desk, stock, "sell", but=but), ZERO) if held is not None else ZERO
