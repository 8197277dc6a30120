"""An account to look at: some weeks of orders and what came of them, at prices that the tape had at those moments.

Nothing is invented beside the ledger: every position comes from fills, so cash, positions and profits add up. The script is
the same for every seed; what it earns is not. Working orders sit far from the market, so they stay open.
"""

from datetime import time, timedelta
from decimal import ROUND_DOWN, Decimal
from typing import Final, NamedTuple

from alpacli.sim import watchlists
from alpacli.sim.answers import SECOND_NS
from alpacli.sim.book import Order
from alpacli.sim.desk import Desk
from alpacli.sim.engine import schedule
from alpacli.sim.exchange import Exchange
from alpacli.sim.hours import new_york_date, new_york_ns
from alpacli.sim.listing import LISTINGS
from alpacli.sim.orders import amend, enter, fill_order, new_order, note

_OPENED_DAYS_AGO: Final = 45
_GTC_DAYS: Final = timedelta(90)
_MINUTE_NS: Final = 60 * SECOND_NS


class _Trade(NamedTuple):
    """One line of the script: when (trading days ago, New York time), what, and how it ended.

    ``limit_offset`` puts a limit price that far from the market (0.02 is 2 % above). ``parts`` are the fractions filled.
    """

    days_ago: int
    at: time
    side: str
    symbol: str
    qty: str
    order_type: str = "market"
    end: str = "filled"
    limit_offset: str = "0"
    parts: tuple[str, ...] = ("1",)
    time_in_force: str = "day"


_SCRIPT: Final = (
    _Trade(24, time(9, 31), "buy", "SPY", "30"),
    _Trade(24, time(9, 47), "buy", "AAPL", "60", "limit", parts=("0.4", "0.6")),
    _Trade(23, time(10, 12), "buy", "MSFT", "20", "limit"),
    _Trade(22, time(14, 5), "buy", "NVDA", "80"),
    _Trade(21, time(11, 26), "buy", "AMD", "50", "limit", "expired", "-0.09"),
    _Trade(20, time(9, 58), "buy", "GOOGL", "12.5"),
    _Trade(18, time(12, 3), "sell", "SPY", "15", "limit"),
    _Trade(17, time(10, 40), "buy", "BTC/USD", "0.125", time_in_force="gtc"),
    _Trade(16, time(11, 14), "sell", "TSLA", "25"),
    _Trade(15, time(9, 36), "buy", "PLTR", "100", "limit", "canceled", "0", ("0.35",)),
    _Trade(13, time(12, 21), "sell", "PLTR", "35"),
    _Trade(12, time(10, 2), "buy", "GME", "200", "market", "rejected"),
    _Trade(11, time(11, 48), "buy", "AMZN", "25", "limit", "canceled", "-0.06"),
    _Trade(9, time(9, 44), "sell", "AAPL", "20", "limit", parts=("0.5", "0.25", "0.25")),
    _Trade(8, time(10, 31), "buy", "ETH/USD", "1.75", time_in_force="gtc"),
    _Trade(6, time(12, 9), "buy", "TSLA", "10", "limit"),
    _Trade(4, time(11, 2), "sell", "NVDA", "20"),
    _Trade(2, time(9, 52), "buy", "KO", "40", "limit"),
)
_BRACKET: Final = _Trade(5, time(10, 17), "buy", "META", "15", "limit", time_in_force="gtc")
_WORKING: Final = (
    _Trade(3, time(10, 44), "buy", "AMD", "40", "limit", "new", "-0.18", time_in_force="gtc"),
    _Trade(2, time(11, 35), "sell", "MSFT", "8", "limit", "new", "0.17", time_in_force="gtc"),
    _Trade(1, time(12, 12), "buy", "BTC/USD", "0.05", "limit", "new", "-0.2", time_in_force="gtc"),
)
_WATCHED: Final = ("AAPL", "MSFT", "NVDA", "TSLA", "BTC/USD")


def seed_demo(exchange: Exchange, key_id: str) -> bool:
    """Give an account positions and an order history; return false, having changed nothing, when it has orders already."""
    number = exchange.account_number(key_id)
    with exchange.desk(number, changes=True) as open_desk:
        desk = open_desk.untold()
        if desk.db.execute("SELECT 1 FROM orders WHERE account = ? LIMIT 1", (number,)).fetchone() is not None:
            return False
        opened_ns = desk.now_ns - _OPENED_DAYS_AGO * 86_400 * SECOND_NS
        if desk.account.created_ns > opened_ns:
            desk.book.change_account(desk.account._replace(created_ns=opened_ns))
        desk.db.execute(
            "UPDATE transfers SET at_ns = ? WHERE account = ? AND at_ns > ?", (opened_ns, number, opened_ns)
        )
        for trade in sorted((*_SCRIPT, _BRACKET, *_WORKING), key=lambda trade: (-trade.days_ago, trade.at)):
            if trade is _BRACKET:
                _bracket(desk, trade)
            else:
                _play(desk, trade)
        if not watchlists.list_all(desk):
            watchlists.create(desk, {"name": "Primary Watchlist", "symbols": list(_WATCHED)})
    return True


def _play(desk: Desk, trade: _Trade) -> None:
    """Enter one order of the script and bring it to its end."""
    submitted_ns = _moment(desk, trade)
    filled_ns = [submitted_ns + SECOND_NS // 7 + number * 41 * SECOND_NS for number in range(len(trade.parts))]
    order_id = enter(desk, _order(desk, trade, submitted_ns, filled_ns))
    if trade.end in ("filled", "canceled"):
        already = Decimal(0)
        for at_ns, part in zip(filled_ns, trade.parts, strict=True):
            if trade.end == "canceled" and part == "1":
                break  # canceled before anything was filled
            qty = Decimal(trade.qty) * Decimal(part)
            already += qty
            fill_order(desk, order_id, qty, _price(desk, trade, at_ns), at_ns)
    elif trade.end == "new":
        _let_work(desk, order_id)
    if trade.end == "canceled":
        at_ns = submitted_ns + 37 * _MINUTE_NS
        amend(desk, order_id, at_ns, status="canceled", canceled_ns=at_ns)
    elif trade.end == "expired":
        at_ns = desk.market.hours.next_close(submitted_ns)
        amend(desk, order_id, at_ns, status="expired", expired_ns=at_ns)
    elif trade.end == "rejected":
        at_ns = submitted_ns + SECOND_NS // 20
        amend(desk, order_id, at_ns, status="rejected", failed_ns=at_ns)


def _bracket(desk: Desk, trade: _Trade) -> None:
    """Enter a filled entry with its two exits: the take-profit works, the stop-loss is held behind it."""
    submitted_ns = _moment(desk, trade)
    filled_ns = submitted_ns + 3 * SECOND_NS
    entry = {**_order(desk, trade, submitted_ns, [filled_ns]), "order_class": "bracket"}
    entry_id = enter(desk, entry)
    price = _price(desk, trade, filled_ns)
    fill_order(desk, entry_id, Decimal(trade.qty), price, filled_ns)
    leg = {**entry, "side": "sell", "position_intent": "sell_to_close", "parent_id": entry_id, "limit_price": None}
    limit, stop = (_on_tick(trade.symbol, price * Decimal(share)) for share in ("1.25", "0.75"))
    take_profit = {**leg, "limit_price": limit, "leg_index": 0}
    stop_loss = {**leg, "order_type": "stop", "stop_price": stop, "leg_index": 1, "status": "held"}
    for exit_order in (take_profit, stop_loss):
        leg_id = enter(desk, exit_order)
        amend(desk, leg_id, filled_ns)
        _let_work(desk, leg_id)


def _let_work(desk: Desk, order_id: str) -> None:
    """Let an order that is still open meet the market from now on; what it could have met before is not made up."""
    note(desk, order_id, active_ns=desk.now_ns)
    schedule(desk, order_id)


def _order(desk: Desk, trade: _Trade, submitted_ns: int, filled_ns: list[int]) -> Order:
    limit = None
    if trade.order_type == "limit":
        if trade.end in ("new", "expired") or Decimal(trade.limit_offset):
            limit = _on_tick(trade.symbol, _price(desk, trade, submitted_ns) * (1 + Decimal(trade.limit_offset)))
        else:
            prices = [_price(desk, trade, at_ns) for at_ns in filled_ns]
            limit = max(prices) if trade.side == "buy" else min(prices)
    expires_ns = None
    if not LISTINGS[trade.symbol].crypto:
        last_day = new_york_date(submitted_ns) + _GTC_DAYS
        expires_ns = (
            new_york_ns(last_day, time(16, 15))
            if trade.time_in_force == "gtc"
            else desk.market.hours.next_close(submitted_ns)
        )
    return new_order(
        trade.symbol,
        trade.side,
        trade.order_type,
        trade.time_in_force,
        submitted_ns,
        qty=Decimal(trade.qty),
        limit_price=limit,
        position_intent=_intent(desk, trade),
        expires_ns=expires_ns,
    )


def _intent(desk: Desk, trade: _Trade) -> str:
    position = desk.book.positions.get(trade.symbol)
    held = Decimal(0) if position is None else position.qty
    closes = held > 0 if trade.side == "sell" else held < 0
    return f"{trade.side}_to_{'close' if closes else 'open'}"


def _moment(desk: Desk, trade: _Trade) -> int:
    """Return the instant of a line of the script: on one of the exchange's own trading days before today."""
    today = new_york_date(desk.now_ns)
    days = desk.market.hours.days(today - timedelta(_OPENED_DAYS_AGO), today - timedelta(1))
    return new_york_ns(days[-trade.days_ago].day, trade.at)


def _price(desk: Desk, trade: _Trade, at_ns: int) -> Decimal:
    """Return what the market pays or asks at that moment."""
    nbbo = desk.market.tape.nbbo(trade.symbol, at_ns)
    return nbbo.ask if trade.side == "buy" else nbbo.bid


def _on_tick(symbol: str, price: Decimal) -> Decimal:
    return price.quantize(LISTINGS[symbol].price(1), ROUND_DOWN)
