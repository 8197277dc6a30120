"""Orders of several option legs: what their request says, whether the account may have one, and how it enters the book.

A package is bought as a whole at a net price: positive is paid, negative is received (wire reference 5.6). The parent has the
price and the time in force, each leg a contract, a ratio and what is bought or sold of it; they fill together or not at all.
"""

from collections.abc import Mapping
from decimal import Decimal
from math import gcd
from typing import Final, NamedTuple

from alpacli.sim.answers import bad_parameter, forbidden
from alpacli.sim.book import Order
from alpacli.sim.checks import check_own_id, opening_orders, opens_both_ways
from alpacli.sim.contracts import MULTIPLIER, Contract
from alpacli.sim.desk import Desk
from alpacli.sim.engine import set_out
from alpacli.sim.ledger import ZERO, holdings
from alpacli.sim.listing import LISTINGS, find, underlying_of
from alpacli.sim.option_checks import Trade, check_backing, check_contracts, check_free
from alpacli.sim.option_prices import Leg
from alpacli.sim.orders import Snapshot, enter, legs_of, new_order, snapshot
from alpacli.sim.reports import configuration
from alpacli.sim.terms import expiry, opening
from alpacli.sim.tickets import (
    INTENTS,
    SIDES,
    TIMES,
    TYPES,
    amount,
    check_option_price,
    check_option_terms,
    one_of,
    own_id,
    unfit,
)

_LEAST_LEGS, _MOST_LEGS = 2, 4
_REFUSED: Final = ("take_profit", "stop_loss", "notional", "trail_price", "trail_percent", "stop_price")


class PackageLeg(NamedTuple):
    contract: Contract
    ratio: int
    side: str
    position_intent: str


class Package(NamedTuple):
    """An order of several legs as it was understood; ``limit_price`` a share, ``None`` at the market."""

    legs: tuple[PackageLeg, ...]
    qty: int
    order_type: str
    time_in_force: str
    limit_price: Decimal | None
    client_order_id: str | None


def read_package(desk: Desk, body: Mapping[str, object]) -> Package:
    """Understand the body of ``POST /v2/orders`` with legs, and hold it against the rules that need no account."""
    if body.get("symbol"):
        raise bad_parameter("symbol is not allowed for mleg order")
    legs = body.get("legs")
    if not isinstance(legs, list) or not _LEAST_LEGS <= len(legs) <= _MOST_LEGS:
        raise unfit(f"legs must be {_LEAST_LEGS} to {_MOST_LEGS}")
    understood = tuple(_leg(desk, number, leg) for number, leg in enumerate(legs))
    if len({leg.contract for leg in understood}) < len(understood):
        raise unfit("symbols must be unique")
    if len({underlying_of(leg.contract) for leg in understood}) > 1:
        raise unfit("legs must have the same underlying symbol")
    if gcd(*(leg.ratio for leg in understood)) > 1:
        raise unfit("ratio_qty of legs must be in lowest terms")
    order_type = one_of(body, "type", "order type", TYPES)
    time_in_force = one_of(body, "time_in_force", "time_in_force", TIMES)
    check_option_terms(order_type, time_in_force)
    if body.get("extended_hours") or any(body.get(name) for name in _REFUSED):
        raise unfit("mleg orders have a limit price and legs, and nothing else")
    limit_price = amount(body, "limit_price")
    if order_type == "limit" and limit_price is None:
        raise unfit("limit price required")
    if order_type == "market" and limit_price is not None:
        raise bad_parameter("market orders require no stop or limit price")
    if limit_price is not None:
        check_option_price("limit_price", limit_price)
    return Package(understood, _whole(body, "qty"), order_type, time_in_force, limit_price, own_id(body))


def submit_package(desk: Desk, body: Mapping[str, object]) -> Snapshot:
    """Take an order of several legs in and return it as it arrived."""
    package = read_package(desk, body)
    _admit(desk, package)
    now_ns, latency_ns = desk.now_ns, desk.market.strain.latency_ns
    listings = [LISTINGS[leg.contract.symbol] for leg in package.legs]
    opens = opening(desk.market.hours, listings[0], now_ns, extended=False) <= now_ns
    ends = [
        expiry(desk.market.hours, listing, package.time_in_force, now_ns, extended=False) or now_ns
        for listing in listings
    ]
    parent = new_order(
        "",
        "",
        package.order_type,
        package.time_in_force,
        now_ns,
        qty=Decimal(package.qty),
        limit_price=package.limit_price,
        order_class="mleg",
        client_order_id=package.client_order_id,
        status="pending_new" if opens else "accepted",
        expires_ns=min(ends),
        active_ns=now_ns,
        arrives_ns=now_ns + latency_ns if opens else None,
    )
    shared = {**parent, "client_order_id": None, "limit_price": None, "active_ns": None, "arrives_ns": None}
    legs = [
        {
            **shared,
            "symbol": leg.contract.symbol,
            "side": leg.side,
            "qty": Decimal(package.qty * leg.ratio),
            "position_intent": leg.position_intent,
            "ratio_qty": Decimal(leg.ratio),
        }
        for leg in package.legs
    ]
    order_id = enter(desk, parent, legs)
    arrived = snapshot(desk, order_id)
    set_out(desk, order_id)
    return arrived


def changed_package(desk: Desk, old: Order, body: Mapping[str, object]) -> Package:
    """Return the order with the changes of ``PATCH /v2/orders/{id}``, held against the rules again."""
    qty = amount(body, "qty")
    if qty is not None and qty != qty.to_integral_value():
        raise bad_parameter("qty must be integer")
    if qty is not None and qty <= old["filled_qty"]:
        raise unfit("qty must be > filled_qty")
    limit_price = amount(body, "limit_price")
    if limit_price is not None:
        if old["order_type"] != "limit":
            raise bad_parameter("market orders require no stop or limit price")
        check_option_price("limit_price", limit_price)
    time_in_force = one_of(body, "time_in_force", "time_in_force", TIMES, "") or str(old["time_in_force"])
    check_option_terms(old["order_type"], time_in_force)
    legs = tuple(
        PackageLeg(_contract(desk, row["symbol"]), int(row["ratio_qty"]), row["side"], row["position_intent"])
        for row in legs_of(desk, old["id"])
    )
    before = Package(
        legs,
        int(old["qty"]),
        old["order_type"],
        old["time_in_force"],
        old["limit_price"],
        None,
    )
    after = before._replace(
        qty=before.qty if qty is None else int(qty),
        time_in_force=time_in_force,
        limit_price=before.limit_price if limit_price is None else limit_price,
    )
    if after == before:
        raise unfit("order parameters are not changed")
    after = after._replace(client_order_id=own_id(body))
    _admit(desk, after, instead_of=old)
    return after


def _admit(desk: Desk, package: Package, *, instead_of: Order | None = None) -> None:
    if configuration(desk.account)["suspend_trade"]:
        raise forbidden("account is not authorized to trade")
    if package.client_order_id is not None:
        check_own_id(desk, package.client_order_id)
    check_contracts(desk, [leg.contract for leg in package.legs], package.order_type)
    but = () if instead_of is None else (instead_of["id"], *(row["id"] for row in legs_of(desk, instead_of["id"])))
    left = package.qty - (0 if instead_of is None else int(instead_of["filled_qty"]))
    held = holdings(desk.book)
    trades = []
    for leg in package.legs:
        holding = held.get(leg.contract.symbol)
        qty = holding.qty if holding is not None else ZERO
        trade = Trade(
            leg.contract,
            left * leg.ratio * (1 if leg.side == "buy" else -1),
            bool(qty) and (qty > 0) == (leg.side == "sell"),
        )
        inferred = f"{leg.side}_to_{'close' if trade.closes else 'open'}"
        if leg.position_intent != inferred:
            raise unfit(f"position intent mismatch, inferred {inferred}, specified {leg.position_intent}")
        if trade.closes:
            check_free(desk, trade.contract.symbol, trade.side, Decimal(abs(trade.change)), qty, but=but)
        elif opening_orders(
            row for row in desk.book.open_in(leg.contract.symbol) if row["side"] != leg.side and row["id"] not in but
        ):
            raise opens_both_ways(leg.side)
        trades.append(trade)
    net = package.limit_price
    if net is None:
        sides = [Leg(leg.contract, leg.ratio * (1 if leg.side == "buy" else -1)) for leg in package.legs]
        net = desk.market.options.net(sides, desk.now_ns) or ZERO
    check_backing(desk, trades, max(net, ZERO) * left * MULTIPLIER, but=but)


def _leg(desk: Desk, number: int, body: object) -> PackageLeg:
    if not isinstance(body, dict):
        raise bad_parameter(f"invalid leg.{number}")
    intent = body.get("position_intent")
    if intent is None or intent == "":
        raise unfit(f"leg.{number} position intent is required")
    one_of(body, "position_intent", f"leg.{number} position intent", INTENTS)
    side = str(intent).partition("_")[0]
    if one_of(body, "side", f"leg.{number} side", SIDES, "") not in ("", side):
        raise unfit(f"position intent mismatch, inferred {body['side']}_to_open, specified {intent}")
    ratio = _whole(body, "ratio_qty")
    return PackageLeg(_contract(desk, str(body.get("symbol") or "")), ratio, side, str(intent))


def _contract(desk: Desk, symbol: str) -> Contract:
    listing = find(symbol, desk.market.listings)
    if listing is None or listing.contract is None:
        raise unfit(f"option contract {symbol} not found")
    return listing.contract


def _whole(body: Mapping[str, object], name: str) -> int:
    value = amount(body, name)
    if value is None:
        raise bad_parameter(f"{name} is required")
    if value <= 0:
        raise bad_parameter(f"{name} must be > 0")
    if value != value.to_integral_value():
        raise bad_parameter(f"{name} must be integer")
    return int(value)
