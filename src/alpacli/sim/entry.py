"""What a client asks of the exchange: submit, replace, cancel and close. Each is checked whole before anything changes.

A request takes effect a few milliseconds after it came, as at a broker; until then the order is ``pending_cancel`` or
``pending_replace`` and may still fill, and then the request came too late. An order that no venue works on yet, because it
waits for the market to open or for its parent, is changed at once.
"""

from collections.abc import Mapping
from decimal import ROUND_DOWN, Decimal
from typing import Final

from alpacli.sim.answers import Json, Refusal, bad_parameter
from alpacli.sim.book import Order
from alpacli.sim.checks import Stand, admit, check_own_id
from alpacli.sim.desk import Desk
from alpacli.sim.engine import delay_ns, finish, schedule, set_out, swap
from alpacli.sim.ledger import ZERO, holdings
from alpacli.sim.listing import LISTINGS
from alpacli.sim.orders import CLOSED, Snapshot, amend, enter, named_order, new_order, order_row, snapshot
from alpacli.sim.packages import Package, changed_package, submit_package
from alpacli.sim.reports import held_position
from alpacli.sim.terms import expiry, opening
from alpacli.sim.tickets import Ticket, amount, check, one_time_in_force, own_id, read, unfit

_PERCENT: Final = Decimal(100)
_STEP: Final = Decimal("1e-9")
_OVER: Final = frozenset((*CLOSED, "pending_replace"))
_IN_FLIGHT: Final = ("pending_new", "pending_cancel", "pending_replace", "accepted")


def submit(desk: Desk, body: Mapping[str, object]) -> Snapshot:
    """Take an order in and return it as it arrived, before any venue has it."""
    if body.get("order_class") == "mleg":
        return submit_package(desk, body)
    ticket = read(body, desk.market.listings)
    return _place(desk, ticket, admit(desk, ticket))


def replace(desk: Desk, order_id: str, body: Mapping[str, object]) -> Snapshot:
    """Return the order that is to take an order's place."""
    old = named_order(desk, order_id)
    status = old["status"]
    if status == "replaced":
        raise unfit("order already replaced")
    if status in CLOSED:
        raise unfit("unable to replace order, order is not open")
    if status in _IN_FLIGHT:
        raise unfit(f"cannot replace order in {status} status")
    if old["ratio_qty"] is not None:
        raise unfit("legs of mleg orders cannot be replaced")
    if old["order_class"] == "mleg":
        return _replace_package(desk, old, changed_package(desk, old, body))
    ticket = _changed(old, body)
    if old["parent_id"] is None:
        admit(desk, ticket, instead_of=old)
    elif ticket.client_order_id is not None:  # an exit wants what its family holds for it anyway
        check_own_id(desk, ticket.client_order_id)
    new_id = enter(
        desk.untold(),  # nobody hears of it before it has taken the place
        new_order(
            old["symbol"],
            old["side"],
            old["order_type"],
            ticket.time_in_force,
            desk.now_ns,
            qty=ticket.qty,
            limit_price=ticket.limit_price,
            stop_price=None if old["hwm"] is not None else ticket.stop_price,
            trail_percent=ticket.trail_percent,
            trail_price=ticket.trail_price,
            hwm=old["hwm"],
            order_class=old["order_class"],
            position_intent=old["position_intent"],
            extended_hours=bool(old["extended_hours"]),
            client_order_id=ticket.client_order_id,
            parent_id=old["parent_id"],
            leg_index=old["leg_index"],
            status="pending_new",
            expires_ns=_expiry(desk, ticket),
            replaces=old["id"],
        ),
    )
    if status == "held":
        swap(desk, old["id"], new_id)
    else:
        _send(desk, old["id"], "pending_replace")
    return snapshot(desk, new_id)


def _replace_package(desk: Desk, old: Order, package: Package) -> Snapshot:
    ends = [
        expiry(desk.market.hours, LISTINGS[leg.contract.symbol], package.time_in_force, desk.now_ns, extended=False)
        for leg in package.legs
    ]
    replacement = new_order(
        "",
        "",
        package.order_type,
        package.time_in_force,
        desk.now_ns,
        qty=Decimal(package.qty),
        limit_price=package.limit_price,
        order_class="mleg",
        client_order_id=package.client_order_id,
        status="pending_new",
        expires_ns=min(end_ns for end_ns in ends if end_ns is not None),
        replaces=old["id"],
    )
    new_id = enter(desk.untold(), replacement)
    _send(desk, old["id"], "pending_replace")
    return snapshot(desk, new_id)


def cancel(desk: Desk, order_id: str) -> None:
    """Ask for the end of an order; whoever names one of several legs means all of them."""
    row = named_order(desk, order_id)
    if row["ratio_qty"] is not None:
        row = order_row(desk, row["parent_id"])
    if row["status"] in _OVER or (row["status"] == "pending_new" and row["replaces"]):
        raise unfit(f'order is already in "{row["status"]}" state')
    _cancel(desk, row)


def cancel_all(desk: Desk) -> list[Json]:
    """Ask for the end of every open order; say of each whether it was taken."""
    answers: list[Json] = []
    for row in _open(desk):
        try:
            cancel(desk, row["id"])
        except Refusal as refusal:
            answers.append({"id": row["id"], "status": refusal.status, "body": refusal.body})
        else:
            answers.append({"id": row["id"], "status": 200})
    return answers


def close(desk: Desk, symbol_or_id: str, qty: str | None, percentage: str | None) -> Snapshot:
    """Sell a position, or buy a short one back, at the market: all of it, a quantity, or a percentage."""
    listing, holding = held_position(desk, symbol_or_id)
    if qty is not None and percentage is not None:
        raise bad_parameter("only one of qty or percentage is accepted")
    size = abs(holding.qty)
    wanted = size
    if qty is not None:
        wanted = amount({"qty": qty}, "qty") or ZERO
    elif percentage is not None:
        share = amount({"percentage": percentage}, "percentage") or ZERO
        if not 0 < share <= _PERCENT:
            raise bad_parameter("percentage must be between 0 and 100")
        whole = size == size.to_integral_value() and not listing.crypto
        wanted = (size * share / _PERCENT).quantize(Decimal(1) if whole else _STEP, ROUND_DOWN)
    ticket = Ticket(listing, "sell" if holding.qty > 0 else "buy", "market", "gtc" if listing.crypto else "day", wanted)
    check(ticket)
    return _place(desk, ticket, admit(desk, ticket))


def close_all(desk: Desk, *, cancel_orders: bool) -> list[Json]:
    """Close every position, after ending every open order if that is asked for; say of each how it went."""
    if cancel_orders:
        for row in _open(desk):
            if order_row(desk, row["id"])["status"] not in CLOSED:
                finish(desk, row["id"], "canceled")
    answers: list[Json] = []
    for symbol in holdings(desk.book):
        name = LISTINGS[symbol].position_symbol
        try:
            order = close(desk, symbol, None, None)
        except Refusal as refusal:
            answers.append({"symbol": name, "status": refusal.status, "body": refusal.body})
        else:
            answers.append({"symbol": name, "status": 200, "body": order.written(desk.market)})
    return answers


def _place(desk: Desk, ticket: Ticket, stand: Stand) -> Snapshot:
    """Put an order that was admitted on the book, with its exits, and on its way to the market."""
    hours, listing, now_ns = desk.market.hours, ticket.listing, desk.now_ns
    opens = opening(hours, listing, now_ns, extended=ticket.extended_hours) <= now_ns
    latency_ns = desk.market.strain.latency_ns
    mark = None
    if ticket.order_type == "trailing_stop":
        nbbo = desk.market.tape.nbbo(listing.symbol, now_ns)
        mark = nbbo.bid if ticket.side == "sell" else nbbo.ask
    order = new_order(
        listing.symbol,
        ticket.side,
        ticket.order_type,
        ticket.time_in_force,
        now_ns,
        qty=ticket.qty,
        notional=ticket.notional,
        limit_price=ticket.limit_price,
        stop_price=ticket.stop_price,
        trail_percent=ticket.trail_percent,
        trail_price=ticket.trail_price,
        hwm=mark,
        order_class=ticket.order_class,
        position_intent=stand.intent(ticket.side),
        extended_hours=ticket.extended_hours,
        client_order_id=ticket.client_order_id,
        status="pending_new" if opens else "accepted",
        expires_ns=_expiry(desk, ticket),
        active_ns=now_ns,
        arrives_ns=now_ns + latency_ns if opens else None,
    )
    order_id = enter(desk, order, _legs(ticket, order))
    arrived = snapshot(desk, order_id)
    set_out(desk, order_id)
    return arrived


def _legs(ticket: Ticket, order: Order) -> list[Order]:
    """Return the exits that wait for an entry, or beside an OCO's target for its stop."""
    if ticket.order_class == "simple":
        return []
    side = ticket.side
    if ticket.order_class != "oco":
        side = "sell" if ticket.side == "buy" else "buy"
    leg = {
        **order,
        "side": side,
        "position_intent": f"{side}_to_close",
        "client_order_id": None,
        "status": "held",
        "active_ns": None,
        "arrives_ns": None,
        "limit_price": None,
        "stop_price": None,
    }
    legs: list[Order] = []
    if ticket.take_profit is not None and ticket.order_class != "oco":
        legs.append({**leg, "order_type": "limit", "limit_price": ticket.take_profit.limit_price})
    loss = ticket.stop_loss
    if loss is not None:
        kind = "stop" if loss.limit_price is None else "stop_limit"
        legs.append({**leg, "order_type": kind, "stop_price": loss.stop_price, "limit_price": loss.limit_price})
    return legs


def _changed(old: Order, body: Mapping[str, object]) -> Ticket:
    """Return the order with the changes of ``PATCH /v2/orders/{id}``, held against the rules again."""
    if old["notional"] is not None:
        raise unfit("notional orders cannot be replaced")
    qty, trail = amount(body, "qty"), amount(body, "trail")
    before = _ticket(old)
    if qty is not None:
        if qty <= 0:
            raise bad_parameter("qty must be > 0")
        if qty != qty.to_integral_value() and not before.listing.crypto:
            raise bad_parameter("qty must be integer")
        if before.fractional and qty != before.qty:
            raise unfit("qty of fractional orders cannot be changed")
        if old["parent_id"] is not None and qty != before.qty:
            raise unfit("qty of a leg cannot be changed")
        if qty <= old["filled_qty"]:
            raise unfit("qty must be > filled_qty")
    limit_price, stop_price = amount(body, "limit_price"), amount(body, "stop_price")
    if trail is not None and before.order_type != "trailing_stop":
        raise bad_parameter("trail is for trailing stop orders")
    terms = (
        before.qty if qty is None else qty,
        one_time_in_force(body) or before.time_in_force,
        before.limit_price if limit_price is None else limit_price,
        before.stop_price if stop_price is None else stop_price,
        trail if trail is not None and before.trail_price is not None else before.trail_price,
        trail if trail is not None and before.trail_percent is not None else before.trail_percent,
    )
    routed = body.get("advanced_instructions")  # how an order is routed makes no difference here
    if not routed and terms == tuple(getattr(before, name) for name in _AMENDABLE):
        raise unfit("order parameters are not changed")
    wanted, time_in_force, limit, stop, trail_price, trail_percent = terms
    if old["order_class"] not in ("", "simple") and time_in_force not in ("day", "gtc"):
        raise unfit(f"{old['order_class']} orders must be DAY or GTC orders")
    after = Ticket(
        before.listing,
        before.side,
        before.order_type,
        time_in_force,
        wanted,
        None,
        limit,
        stop,
        trail_price,
        trail_percent,
        extended_hours=before.extended_hours,
        client_order_id=own_id(body),
    )
    check(after)
    return after


_AMENDABLE: Final = ("qty", "time_in_force", "limit_price", "stop_price", "trail_price", "trail_percent")


def _ticket(row: Order) -> Ticket:
    """Return an order on the book as a request, without its family: that was checked when it came."""
    return Ticket(
        LISTINGS[row["symbol"]],
        row["side"],
        row["order_type"],
        row["time_in_force"],
        row["qty"],
        None,
        row["limit_price"],
        None if row["hwm"] is not None else row["stop_price"],
        row["trail_price"],
        row["trail_percent"],
        extended_hours=bool(row["extended_hours"]),
    )


def _send(desk: Desk, order_id: str, status: str) -> None:
    """Put a request on its way to an order."""
    way_ns = delay_ns(desk, order_id, f"{status} {desk.now_ns}", 2, 25) + desk.market.strain.latency_ns
    amend(desk, order_id, desk.now_ns, status=status, arrives_ns=desk.now_ns + way_ns)
    schedule(desk, order_id)


def _cancel(desk: Desk, row: Order) -> None:
    if row["status"] in ("accepted", "pending_new") or row["active_ns"] is None:
        finish(desk, row["id"], "canceled")
    elif row["status"] != "pending_cancel":
        _send(desk, row["id"], "pending_cancel")


def _expiry(desk: Desk, ticket: Ticket) -> int | None:
    return expiry(desk.market.hours, ticket.listing, ticket.time_in_force, desk.now_ns, extended=ticket.extended_hours)


def _open(desk: Desk) -> list[Order]:
    return [row for row in desk.book.open_orders() if row["status"] != "held" and row["ratio_qty"] is None]
