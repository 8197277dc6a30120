"""What an account is told about itself: balances, positions, configuration.

Everything is worked out from the ledger and the tape at the moment of the request, with Alpaca's published formulas
(wire reference 4.1 and 4.3). Three choices where those leave room: ``initial_margin`` includes what open orders reserve, so
buying power already has them taken off; at multipliers 1 and 4 it has them taken off too, and at 4 also what was added to
positions since the previous close; the day begins at the previous close, and a position's day is measured from what it would
have cost had it been bought at that close: what was traded since averages in, leaves and begins anew as its cost does.
"""

from collections.abc import Collection, Mapping
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from typing import Final, NamedTuple

from alpacli.sim.answers import Json, Refusal, decimal_text, not_found, timestamp
from alpacli.sim.book import Position
from alpacli.sim.desk import Account, Desk
from alpacli.sim.hours import new_york_date
from alpacli.sim.ledger import ZERO, Worth, average_entry, cents, execute, holdings, market_value, rewind, worth
from alpacli.sim.listing import LISTINGS, Listing, find
from alpacli.sim.reserves import held_for_orders, reserved

_CONFIGURATION: Final[Mapping[str, Json]] = {
    "disable_overnight_trading": False,
    "fractional_trading": True,
    "max_margin_multiplier": "2",
    "max_options_trading_level": 3,
    "no_shorting": False,
    "ptp_no_exception_entry": False,
    "suspend_trade": False,
    "trade_confirm_email": "all",
}


APPROVED_LEVEL: Final = 3


class Balances(NamedTuple):
    """The money of an account at one moment, in cents."""

    cash: Decimal
    long: Decimal
    short: Decimal
    equity: Decimal
    last_equity: Decimal
    initial_margin: Decimal
    maintenance_margin: Decimal
    last_maintenance_margin: Decimal
    multiplier: int
    buying_power: Decimal
    without_margin: Decimal


def balances(desk: Desk, *, but: Collection[str] = ()) -> Balances:
    """Return the account's money now; as if the open orders named in ``but`` were not there."""
    quantities = {symbol: holding.qty for symbol, holding in holdings(desk.book).items()}
    now = worth(desk.market.tape, quantities, desk.now_ns)
    cash = desk.book.cash
    equity = cash + now.long + now.short
    close_ns = desk.market.hours.previous_close(desk.now_ns)
    past = rewind(desk.book, close_ns)
    then = worth(desk.market.tape, past.quantities, close_ns)
    last_equity = past.cash + then.long + then.short
    if desk.account.created_ns > close_ns:  # a new account began the day with the money it was given
        last_equity = rewind(desk.book, desk.account.created_ns).transferred
    means = _means(desk, quantities, now, but)
    power = means.power
    if means.multiplier == 4:
        added = sum((_added(desk, symbol, qty, past.quantities) for symbol, qty in quantities.items()), ZERO)
        power = max((last_equity - then.maintenance_margin) * 4 - added - now.collateral - means.on_order, ZERO)
    return Balances(
        cash,
        now.long,
        now.short,
        equity,
        last_equity,
        means.initial_margin,
        now.maintenance_margin,
        then.maintenance_margin,
        means.multiplier,
        power,
        means.without_margin,
    )


def spendable(desk: Desk, *, but: Collection[str] = ()) -> tuple[Decimal, Decimal]:
    """Return buying power, with and without margin, as ``balances`` does; the past is looked at only where it matters."""
    if configuration(desk.account)["max_margin_multiplier"] == "4":
        money = balances(desk, but=but)
        return money.buying_power, money.without_margin
    quantities = {symbol: holding.qty for symbol, holding in holdings(desk.book).items()}
    means = _means(desk, quantities, worth(desk.market.tape, quantities, desk.now_ns), but)
    return means.power, means.without_margin


def cash_covers(desk: Desk, cost: Decimal, *, on_margin: bool, but: Collection[str] = ()) -> bool:
    """Tell whether buying power is enough because cash is: no price of what is held has to be looked at.

    What is held and not short never takes from buying power, whatever its price; false leaves the question open.
    """
    multiplier = configuration(desk.account)["max_margin_multiplier"]
    if multiplier == "4" or desk.book.owes:
        return False
    quantities = {symbol: held.qty for symbol, held in desk.book.positions.items()} if desk.book.has_open else {}
    orders = reserved(desk, quantities, but=but)
    if on_margin and multiplier == "2":
        return cost <= (desk.book.cash - cents(orders.margin)) * 2
    return cost <= desk.book.cash - cents(orders.value)


class _Means(NamedTuple):
    """What can be spent, as far as the present tells; with multiplier 4 ``power`` is for the past to tell."""

    initial_margin: Decimal
    on_order: Decimal
    multiplier: int
    power: Decimal
    without_margin: Decimal


def _means(desk: Desk, quantities: Mapping[str, Decimal], now: Worth, but: Collection[str]) -> _Means:
    orders, cash = reserved(desk, quantities, but=but), desk.book.cash - now.collateral
    equity, on_order = desk.book.cash + now.long + now.short, cents(orders.value)
    initial_margin = now.initial_margin + cents(orders.margin)
    multiplier = int(str(configuration(desk.account)["max_margin_multiplier"]))
    power = max(cash - on_order, ZERO) if multiplier == 1 else max(equity - initial_margin, ZERO) * 2
    without_margin = max(min(cash - on_order, equity - initial_margin), ZERO)
    return _Means(initial_margin, on_order, multiplier, power, without_margin)


def _added(desk: Desk, symbol: str, qty: Decimal, before: Mapping[str, Decimal]) -> Decimal:
    """Return what a position has grown by since the previous close, at today's price."""
    kept = before.get(symbol, ZERO)
    grown = abs(qty) if qty * kept < 0 else max(abs(qty) - abs(kept), ZERO)
    return market_value(grown, desk.market.tape.last(symbol, desk.now_ns), LISTINGS[symbol].multiplier)


def account_answer(desk: Desk) -> dict[str, Json]:
    account, money, rules = desk.account, balances(desk), configuration(desk.account)
    close_ns = desk.market.hours.previous_close(desk.now_ns)
    amounts = {
        "buying_power": money.buying_power,
        "regt_buying_power": max(money.equity - money.initial_margin, ZERO) * min(money.multiplier, 2),
        "effective_buying_power": money.buying_power,
        "non_marginable_buying_power": money.without_margin,
        "options_buying_power": money.without_margin,
        "cash": money.cash,
        "accrued_fees": ZERO,
        "pending_transfer_in": ZERO,
        "pending_transfer_out": ZERO,
        "pending_reg_taf_fees": ZERO,
        "portfolio_value": money.equity,
        "equity": money.equity,
        "last_equity": money.last_equity,
        "long_market_value": money.long,
        "short_market_value": money.short,
        "position_market_value": money.long - money.short,
        "initial_margin": money.initial_margin,
        "maintenance_margin": money.maintenance_margin,
        "last_maintenance_margin": money.last_maintenance_margin,
        "sma": money.last_equity,
        "intraday_adjustments": ZERO,
    }
    return {
        "id": account.id,
        "account_number": account.account_number,
        "status": "ACTIVE",
        "crypto_status": "ACTIVE",
        "currency": "USD",
        **{name: decimal_text(amount) for name, amount in amounts.items()},
        "multiplier": str(money.multiplier),
        "balance_asof": new_york_date(close_ns - 1).isoformat(),
        "created_at": timestamp(account.created_ns),
        "crypto_tier": 1,
        "options_approved_level": APPROVED_LEVEL,
        "options_trading_level": options_level(account),
        "trading_blocked": False,
        "transfers_blocked": False,
        "account_blocked": False,
        "trade_suspended_by_user": rules["suspend_trade"],
        "shorting_enabled": money.multiplier > 1 and not rules["no_shorting"],
        "admin_configurations": {},
        "user_configurations": None,
    }


def options_level(account: Account) -> int:
    """Return what an account may do with options: 1 covered, 2 also buy, 3 also spreads; 0 is nothing."""
    level = configuration(account)["max_options_trading_level"]
    return min(level, APPROVED_LEVEL) if isinstance(level, int) else APPROVED_LEVEL


def position_answers(desk: Desk) -> list[Json]:
    held = holdings(desk.book)
    return [_position(desk, symbol, holding) for symbol, holding in held.items()]


def one_position(desk: Desk, symbol_or_id: str) -> dict[str, Json]:
    listing, holding = held_position(desk, symbol_or_id)
    return _position(desk, listing.symbol, holding)


def held_position(desk: Desk, symbol_or_id: str) -> tuple[Listing, Position]:
    """Return what a client names, and how much of it the account holds; refused when there is no such position."""
    listing = find(symbol_or_id, desk.market.listings)
    if listing is None:
        raise not_found(f"symbol not found: {symbol_or_id}")
    holding = holdings(desk.book).get(listing.symbol)
    if holding is None:
        raise not_found("position does not exist")
    return listing, holding


def _position(desk: Desk, symbol: str, holding: Position) -> dict[str, Json]:
    listing, tape = LISTINGS[symbol], desk.market.tape
    price, lastday = tape.last(symbol, desk.now_ns), tape.previous_close(symbol, desk.now_ns)
    value, cost = market_value(holding.qty, price, listing.multiplier), cents(holding.cost)
    day_basis = _day_basis(desk, symbol, holding, lastday)
    gain, day_gain = value - cost, value - day_basis
    long = holding.qty > 0
    on_hold = held_for_orders(desk, symbol, "sell" if long else "buy")
    available = max(abs(holding.qty) - on_hold, ZERO)
    return {
        "asset_id": listing.asset_id,
        "symbol": listing.position_symbol,
        "exchange": listing.exchange,
        "asset_class": listing.asset_class,
        "asset_marginable": not listing.crypto and listing.contract is None,
        "qty": decimal_text(holding.qty),
        "qty_available": decimal_text(available if long else -available),
        "side": "long" if long else "short",
        "avg_entry_price": decimal_text(average_entry(holding, listing.multiplier)),
        "cost_basis": decimal_text(cost),
        "market_value": decimal_text(value),
        "current_price": decimal_text(price),
        "lastday_price": decimal_text(lastday),
        "change_today": _ratio(price - lastday, lastday),
        "unrealized_pl": decimal_text(gain),
        "unrealized_plpc": _ratio(gain, abs(cost)),
        "unrealized_intraday_pl": decimal_text(day_gain),
        "unrealized_intraday_plpc": _ratio(day_gain, abs(day_basis)),
    }


def _day_basis(desk: Desk, symbol: str, holding: Position, lastday: Decimal) -> Decimal:
    """Return what the position would have cost, had its shares of the previous close been bought at that close's price."""
    close_ns, multiplier = desk.market.hours.previous_close(desk.now_ns), LISTINGS[symbol].multiplier
    rows = desk.db.execute(
        "SELECT side, qty, price FROM bookings WHERE account = ? AND at_ns > ? AND symbol = ? ORDER BY at_ns, settled, seq",
        (desk.account.number, close_ns, symbol),
    )
    with localcontext(prec=60, rounding=ROUND_HALF_EVEN):
        since = [
            (Decimal(row["qty"]) * (1 if row["side"] == "buy" else -1), Decimal(row["price"]) * multiplier)
            for row in rows
        ]
        at_close = holding.qty - sum((signed for signed, _ in since), ZERO)
        day = Position(at_close, at_close * lastday * multiplier)
    for signed, price in since:
        day, _ = execute(day, signed, price)
    return cents(day.cost)


def configuration(account: Account) -> Mapping[str, Json]:
    """Return the account's configuration: the defaults, and over them what was changed."""
    if not account.configuration:
        return _CONFIGURATION
    changed = {name: value for name, value in account.configuration.items() if isinstance(value, str | int | bool)}
    return {**_CONFIGURATION, **changed}


def change_configuration(desk: Desk, changes: Mapping[str, object]) -> dict[str, Json]:
    """Apply the fields that are known and not null. Anything that such a field cannot be is refused with 400."""
    rules = dict(configuration(desk.account))
    for name, value in changes.items():
        if name not in _CONFIGURATION or value is None:
            continue
        rules[name] = _configured(name, value)
    desk.book.change_account(desk.account._replace(configuration=rules))
    return rules


def _configured(name: str, value: object) -> Json:
    if isinstance(_CONFIGURATION[name], bool):
        if isinstance(value, bool):
            return value
    elif name == "max_margin_multiplier":
        if str(value) in ("1", "2", "4"):
            return str(value)
    elif name == "max_options_trading_level":
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 3:
            return value
    elif value in ("all", "none"):
        return str(value)
    raise Refusal(400, 40010000, f"invalid value for {name}")


def _ratio(part: Decimal, whole: Decimal) -> str:
    """Return a fraction with at most sixteen decimals; of nothing, zero."""
    if not whole:
        return "0"
    with localcontext(prec=60, rounding=ROUND_HALF_EVEN):
        return decimal_text((part / whole).quantize(Decimal("1e-16")))
