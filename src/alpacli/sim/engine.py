"""How open orders meet the market: computed when somebody looks, the same whoever looks, and however often.

Each order knows when something happens to it next, because the tape can be searched ahead: its stop is touched, its limit is
met, its piece is filled, its time is over, a request on its way arrives. ``settle`` takes what is due in order of time, and
plans the order's next step from the moment of the last, never from the moment of looking. Chance (how long a venue takes, one
fill in ten in parts, refusals) is a hash of seed, order and step.

Fills are Alpaca's paper engine's (wire reference 6): any quantity, at the bid or offer of that moment, a tenth of them in
parts. Stops look at the quote: a sell stop is touched by the bid, a buy stop by the offer. Trailing stops move in regular
hours only. What a held leg waits for: its parent to fill, or as the stop of two exits, its own price. Several option legs are
planned and filled as one, by their parent. What the clearing house does to options that end is taken with the rest.
"""

import hashlib
from decimal import ROUND_DOWN, Decimal
from typing import Final

from alpacli.sim.book import Order
from alpacli.sim.desk import Desk
from alpacli.sim.ledger import ZERO, holdings
from alpacli.sim.listing import LISTINGS
from alpacli.sim.option_prices import Leg
from alpacli.sim.orders import AT_REST, Column, amend, change, fill_order, fill_package, legs_of, note, order_row, tell
from alpacli.sim.reserves import held_for_orders
from alpacli.sim.settlement import expire_positions
from alpacli.sim.state import OPEN
from alpacli.sim.terms import (
    AT_ONCE,
    AUCTIONS,
    NEVER_NS,
    limit_of,
    on_tick,
    opening,
    spans,
    stop_rule,
    trades_at,
    waits_for_stop,
    water_mark,
)

_MS_NS: Final = 1_000_000
_DAY_NS: Final = 86_400_000 * _MS_NS
_LOOK_AHEAD_NS: Final = 7 * _DAY_NS
_TRAIL_AHEAD_NS: Final = _DAY_NS
_MOST_PARTS: Final = 3
"""Pieces after which the rest is filled whole; with at most 300 ms between them, a market order is done within a second."""

_STEP: Final = Decimal("1e-9")
_BASIS_POINT: Final = Decimal("0.0001")
_MILLION: Final = 1_000_000
_HASH: Final = hashlib.blake2b(digest_size=8)
_ENDED_AT: Final = {"canceled": "canceled_ns", "expired": "expired_ns", "rejected": "failed_ns"}


def settle(desk: Desk) -> None:
    """Bring an account's open orders up to the desk's moment."""
    book = desk.book
    while book.is_due(desk.now_ns):
        row, ends_ns = book.next_due(), book.next_end()
        if ends_ns is not None and (row is None or ends_ns < row["next_ns"]):
            expire_positions(desk.at(ends_ns))
        elif row is not None:
            _take(desk.at(row["next_ns"]), row)


def schedule(desk: Desk, order_id: str) -> None:
    """Plan the next step of an order, from what it is now."""
    desk.book.change(order_id, _next(desk, order_row(desk, order_id)))


def set_out(desk: Desk, order_id: str) -> None:
    """Let an order that was just entered go to its venue: it works at once, or once it arrives there or trading begins."""
    if order_row(desk, order_id)["arrives_ns"] == desk.now_ns:
        release(desk, order_id)
    else:
        schedule(desk, order_id)


def delay_ns(desk: Desk, order_id: str, step: str, least_ms: int = 2, most_ms: int = 40) -> int:
    """Return how long one step of an order takes: a matter of chance, but of the same chance for everybody."""
    span_us = (most_ms - least_ms) * 1000
    return (least_ms * 1000 + _dice(desk, order_id, f"delay {step}") % span_us) * 1000


def release(desk: Desk, order_id: str) -> None:
    """Let an order work from now on: it is on the venue's book, or its parent has been filled."""
    row, now_ns = order_row(desk, order_id), desk.now_ns
    rate = desk.market.strain.reject_rate
    if rate and row["parent_id"] is None and _dice(desk, order_id, "refusal") % _MILLION < rate * _MILLION:
        finish(desk, order_id, "rejected")
        return
    trails = row["order_type"] == "trailing_stop"
    changes: dict[str, Column] = {"status": "new", "arrives_ns": None}
    if trails:
        nbbo = desk.market.tape.nbbo(row["symbol"], now_ns)
        changes["hwm"] = nbbo.bid if row["side"] == "sell" else nbbo.ask
    changes["active_ns"] = now_ns if trails else now_ns + delay_ns(desk, order_id, "work")
    _go_on(desk, row, now_ns, changes)
    if row["order_class"] == "oco" and row["parent_id"] is None:
        for leg in legs_of(desk, order_id):
            _watch(desk, leg["id"], int(changes["active_ns"] or 0))


def finish(desk: Desk, order_id: str, status: str) -> None:
    """End an order that was not filled, and with it what depends on it."""
    row = order_row(desk, order_id)
    _end(desk, row, status)
    _end_family(desk, row, status)


def swap(desk: Desk, old_id: str, new_id: str) -> None:
    """Put a replacement in the place of an order; what is filled already counts for it. Refused when that is all it wants."""
    old, new, now_ns = order_row(desk, old_id), order_row(desk, new_id), desk.now_ns
    if new["qty"] <= old["filled_qty"]:
        status = "partially_filled" if old["filled_qty"] else "new"
        for row in [old, *(legs_of(desk, old_id) if old["order_class"] == "mleg" else [])]:
            note(desk, row["id"], status=status, updated_ns=now_ns, arrives_ns=None)
        _refuse_replacement(desk, old_id)
        schedule(desk, old_id)
        return
    if old["order_class"] == "mleg":  # the legs do as their parent does: first of all they change it
        for leg in legs_of(desk, old_id):
            note(desk, leg["id"], parent_id=new_id, qty=leg["ratio_qty"] * new["qty"])
    amend(desk, old_id, now_ns, status="replaced", replaced_ns=now_ns, replaced_by=new_id, **AT_REST)
    waits = old["status"] == "held" or old["active_ns"] is None
    active_ns = None if old["active_ns"] is None else now_ns + delay_ns(desk, new_id, "work")
    changes: dict[str, Column] = {"filled_qty": old["filled_qty"], "filled_value": old["filled_value"]}
    if old["order_type"] == "trailing_stop":
        changes["hwm"] = water_mark(desk.market, old, now_ns)
        active_ns = now_ns
    if old["parent_id"] is not None:
        changes["qty"] = old["qty"]
    for leg in legs_of(desk, old_id):
        note(desk, leg["id"], parent_id=new_id)
        if new["qty"] != old["qty"]:
            left = new["qty"] - old["filled_qty"] if new["order_class"] == "oco" else new["qty"]
            amend(desk, leg["id"], now_ns, qty=left)
    changes |= {
        "active_ns": active_ns,
        "triggered_ns": old["triggered_ns"],
        "pieces": old["pieces"],
        "arrives_ns": None,
    }
    amend(desk, new_id, now_ns, status="held" if waits else "new", **changes)
    schedule(desk, new_id)


# ---------------------------------------------------------------------------------------------------- planning


def _go_on(desk: Desk, row: Order, at_ns: int, changes: dict[str, Column]) -> None:
    """Change an order and plan its next step, from what it is then."""
    changes |= _next(desk, {**row, **changes})
    change(desk, row["id"], at_ns, changes)


def _next(desk: Desk, row: Order) -> dict[str, Column]:
    """Return what the columns of an order's next step say."""
    step = _plan(desk, row)
    return {"next_ns": step[0], "next_step": step[1]} if step else {"next_ns": None, "next_step": None}


def _plan(desk: Desk, row: Order) -> tuple[int, str] | None:
    """Return when something happens to an order next, and what; ``None`` when nothing ever does by itself."""
    status, active_ns, arrives_ns = row["status"], row["active_ns"], row["arrives_ns"]
    if status not in OPEN or (active_ns is None and arrives_ns is None):
        return None
    end_ns, end = row["expires_ns"] or NEVER_NS, "expire"
    if arrives_ns is not None and arrives_ns <= end_ns:
        end_ns, end = arrives_ns, "arrive"
    if status == "pending_new":
        return end_ns, end
    auction = row["time_in_force"] in AUCTIONS
    if auction and end == "expire":
        end = "match"
    if status == "accepted":
        extended = bool(row["extended_hours"])
        begin_ns = opening(desk.market.hours, LISTINGS[row["symbol"]], active_ns, extended=extended)
        return (begin_ns, "work") if begin_ns <= end_ns else (end_ns, end)
    return (end_ns, end) if auction else _meets(desk, row, end_ns, end)


def _meets(desk: Desk, row: Order, end_ns: int, end: str) -> tuple[int, str]:
    """Return what happens next to an order that works on the market, and ends at ``end_ns`` if nothing does before."""
    active_ns = row["active_ns"]
    if active_ns < end_ns and _is_marketable(desk, row):
        return active_ns, "match"
    trails = row["order_type"] == "trailing_stop" and waits_for_stop(row)
    horizon_ns = active_ns + (_TRAIL_AHEAD_NS if trails else _LOOK_AHEAD_NS)
    found = _meeting(desk, row, min(end_ns, horizon_ns))
    if found is not None:
        return found
    return (end_ns, end) if end_ns <= horizon_ns else (horizon_ns, "look")


def _is_marketable(desk: Desk, row: Order) -> bool:
    """Tell whether an order meets the market in the moment from which on it works, as most do: nothing has to be searched."""
    listing = LISTINGS[row["symbol"]]
    if row["order_class"] == "mleg" or listing.contract is not None or waits_for_stop(row):
        return False
    active_ns, limit = row["active_ns"], limit_of(row)
    if not trades_at(desk.market, listing, active_ns, extended=bool(row["extended_hours"])):
        return False
    if limit is None or row["time_in_force"] in AT_ONCE:
        return True
    nbbo = desk.market.tape.nbbo(listing.symbol, active_ns)
    return bool(nbbo.ask <= limit if row["side"] == "buy" else nbbo.bid >= limit)


def _meeting(desk: Desk, row: Order, until_ns: int) -> tuple[int, str] | None:
    """Return when an order next meets the market before ``until_ns``, and whether it triggers, trades or misses it."""
    tape, symbol, side = desk.market.tape, row["symbol"], row["side"]
    stops, limit = waits_for_stop(row), limit_of(row)
    trails = stops and row["order_type"] == "trailing_stop"
    several = _package(desk, row) if row["order_class"] == "mleg" else None
    if limit is None and side == "sell" and LISTINGS[symbol].contract is not None:
        limit = LISTINGS[symbol].price(1)  # an option that nobody bids for cannot be sold at any price
    mark = row["hwm"] if trails else ZERO
    listing = LISTINGS[symbol if several is None else several[0].contract.symbol]
    windows = spans(desk.market, listing, row["active_ns"], until_ns, extended=bool(row["extended_hours"]))
    trading = bool(windows) and windows[0].begin_ns == row["active_ns"]
    if row["time_in_force"] in AT_ONCE and not stops and not trading and row["active_ns"] < until_ns:
        return row["active_ns"], "miss"  # in a halt: an order for this instant does not wait for its end
    for begin_ns, end_ns in windows:
        at_ns: int | None = begin_ns
        if several is not None:
            at_ns = desk.market.options.first_net(several, begin_ns, end_ns, limit)
        elif trails:
            at_ns, mark = tape.trail(symbol, begin_ns, end_ns, mark, stop_rule(row), side)
        elif stops:
            at_ns = tape.touched(symbol, begin_ns, end_ns, row["stop_price"], side)
        elif limit is not None and row["time_in_force"] not in AT_ONCE:
            at_ns = tape.first(symbol, begin_ns, end_ns, limit, side)
        if at_ns is not None:
            return at_ns, "trigger" if stops else "match"
    return None


# ---------------------------------------------------------------------------------------------------- happening


def _take(desk: Desk, row: Order) -> None:
    """Let happen what is due; the desk's moment is when it is."""
    order_id, step = row["id"], row["next_step"]
    if step == "work":
        release(desk, order_id)
    elif step == "arrive":
        _arrive(desk, row)
    elif step == "trigger":
        _trigger(desk, row)
    elif step == "match":
        _match(desk, row)
    elif step in ("miss", "expire"):
        finish(desk, order_id, "canceled" if step == "miss" else "expired")
    else:
        if row["hwm"] is not None:
            note(desk, order_id, hwm=water_mark(desk.market, row, desk.now_ns))
        note(desk, order_id, active_ns=desk.now_ns)
        schedule(desk, order_id)


def _arrive(desk: Desk, row: Order) -> None:
    """Let the request that was on its way take effect: a new order, a cancel, a replacement."""
    if row["status"] == "pending_cancel":
        finish(desk, row["id"], "canceled")
    elif row["status"] == "pending_replace":
        swap(desk, row["id"], _replacement(desk, row["id"]))
    else:
        release(desk, row["id"])


def _trigger(desk: Desk, row: Order) -> None:
    """A stop is touched: the order goes to the market, and the other exit beside it is taken away."""
    order_id, now_ns = row["id"], desk.now_ns
    changes: dict[str, Column] = {
        "triggered_ns": now_ns,
        "active_ns": now_ns + delay_ns(desk, order_id, "trigger") + desk.market.strain.latency_ns,
    }
    if row["order_type"] == "trailing_stop":
        mark = water_mark(desk.market, row, now_ns)
        changes |= {"hwm": mark, "stop_price": stop_rule(row)(mark)}
    _end_family(desk, row, "canceled")
    if row["status"] == "held":
        amend(desk, order_id, now_ns, status="new", **changes)
    else:
        note(desk, order_id, **changes)
    schedule(desk, order_id)


def _match(desk: Desk, row: Order) -> None:
    """Fill an order, or one time in ten a part of it, at the market's price; end it where its time in force says so."""
    if row["order_class"] == "mleg":
        _match_package(desk, row)
        return
    order_id, now_ns, limit = row["id"], desk.now_ns, limit_of(row)
    time_in_force, buying = row["time_in_force"], row["side"] == "buy"
    nbbo = desk.market.tape.nbbo(row["symbol"], now_ns)
    price = nbbo.ask if buying else nbbo.bid
    if limit is not None and (price > limit if buying else price < limit):
        finish(desk, order_id, "canceled" if time_in_force in AT_ONCE else "expired")
        return
    if limit is None:
        price = _slipped(desk, row, price)
    whole = time_in_force == "fok" or time_in_force in AUCTIONS
    qty, done = _piece(desk, row, price, whole=whole)
    if not qty:
        finish(desk, order_id, "canceled")  # nothing is left to sell of what was to be sold for an amount
        return
    fill_order(desk, order_id, qty, price, now_ns, done=done)
    if done:
        _complete(desk, row)
        return
    _shrink_others(desk, row)
    if time_in_force == "ioc":
        finish(desk, order_id, "canceled")
        return
    _wait_for_rest(desk, row)


def _match_package(desk: Desk, row: Order) -> None:
    """Fill packages of several legs at the market's prices, all legs at once."""
    limit, legs = limit_of(row), legs_of(desk, row["id"])
    net = desk.market.options.net(_package(desk, row), desk.now_ns)
    if net is None or (limit is not None and net > limit):
        finish(desk, row["id"], "expired")
        return
    prices = {}
    for leg in legs:
        nbbo = desk.market.tape.nbbo(leg["symbol"], desk.now_ns)
        price = nbbo.ask if leg["side"] == "buy" else nbbo.bid
        prices[leg["symbol"]] = price if limit is not None else _slipped(desk, leg, price)
    qty, done = _piece(desk, row, net, whole=False)
    fill_package(desk, row["id"], qty, prices, desk.now_ns, done=done)
    if done:
        _complete(desk, row)
    else:
        _wait_for_rest(desk, row)


def _package(desk: Desk, row: Order) -> list[Leg]:
    """Return the legs of an order of several, with their ratios."""
    legs = []
    for leg in legs_of(desk, row["id"]):
        contract = LISTINGS[leg["symbol"]].contract
        if contract is None:
            raise AssertionError("only options have legs that fill together")
        legs.append(Leg(contract, int(leg["ratio_qty"]) * (1 if leg["side"] == "buy" else -1)))
    return legs


def _wait_for_rest(desk: Desk, row: Order) -> None:
    order_id, pieces = row["id"], row["pieces"] + 1
    wait_ns = delay_ns(desk, order_id, f"piece {pieces}", 60, 300)
    note(desk, order_id, pieces=pieces, active_ns=desk.now_ns + wait_ns)
    schedule(desk, order_id)


def _piece(desk: Desk, row: Order, price: Decimal, *, whole: bool) -> tuple[Decimal, bool]:
    """Return how much of an order is filled now, and whether that is all of the rest."""
    if row["qty"] is None:
        money = row["notional"] - row["filled_value"]
        rest = (money / price).quantize(_STEP, ROUND_DOWN)
        if row["side"] == "sell":
            rest = min(rest, _still_owned(desk, row))
    else:
        money, rest = None, row["qty"] - row["filled_qty"]
    if whole or row["pieces"] >= _MOST_PARTS:
        return rest, True
    dice = _dice(desk, row["id"], f"part {row['pieces']}")
    if dice % 10:
        return rest, True
    share = Decimal(10 + (dice >> 8) % 81) / 100
    if money is not None:
        part = (money * share / price).quantize(_STEP, ROUND_DOWN)
    elif rest == rest.to_integral_value():
        part = (rest * share).to_integral_value(ROUND_DOWN)
    else:
        part = (rest * share).quantize(_STEP, ROUND_DOWN)
    return (part, False) if ZERO < part < rest else (rest, True)


def _still_owned(desk: Desk, row: Order) -> Decimal:
    held = holdings(desk.book).get(row["symbol"])
    others = held_for_orders(desk, row["symbol"], "sell", but=(row["id"],))
    return max(held.qty - others, ZERO) if held is not None else ZERO


def _slipped(desk: Desk, row: Order, price: Decimal) -> Decimal:
    bps = desk.market.strain.slippage_bps
    if not bps:
        return price
    worse = price * (1 + bps * _BASIS_POINT * (1 if row["side"] == "buy" else -1))
    return max(on_tick(LISTINGS[row["symbol"]], worse), LISTINGS[row["symbol"]].price(1))


def _complete(desk: Desk, row: Order) -> None:
    """See to what depends on an order that is filled: requests that came too late, its exits, the exit beside it."""
    order_id = row["id"]
    if row["status"] == "pending_cancel":
        tell(desk, order_row(desk, order_id), "order_cancel_rejected", desk.now_ns)
    elif row["status"] == "pending_replace":
        _refuse_replacement(desk, order_id)
    if row["parent_id"] is not None or row["order_class"] not in ("bracket", "oto"):
        _end_family(desk, row, "canceled")
        return
    for relative in _family(desk, row):
        if relative["status"] not in OPEN:
            continue
        if row["order_class"] == "bracket" and relative["order_type"] != "limit":
            _watch(desk, relative["id"], desk.now_ns + delay_ns(desk, relative["id"], "work"))
        else:
            release(desk, relative["id"])


def _watch(desk: Desk, order_id: str, from_ns: int) -> None:
    """Look at prices for a stop that stays held until they touch it."""
    note(desk, order_id, active_ns=from_ns)
    schedule(desk, order_id)


def _shrink_others(desk: Desk, row: Order) -> None:
    """An exit was filled in part: the one beside it is for the rest only."""
    if row["parent_id"] is None and row["order_class"] != "oco":
        return
    after = order_row(desk, row["id"])
    rest = after["qty"] - after["filled_qty"]
    for relative in _family(desk, row):
        if relative["status"] in OPEN:
            amend(desk, relative["id"], desk.now_ns, qty=rest)


def _family(desk: Desk, row: Order) -> list[Order]:
    """Return the other orders of a bracket, OCO or OTO; the legs of several do as their parent does by themselves."""
    if row["order_class"] in ("", "simple", "mleg"):
        return []
    head = row["parent_id"] or row["id"]
    members = [order_row(desk, head), *legs_of(desk, head)]
    return [member for member in members if member["id"] != row["id"]]


def _end_family(desk: Desk, row: Order, status: str) -> None:
    for relative in _family(desk, row):
        current = order_row(desk, relative["id"])  # the end of one may have refused another, its replacement
        if current["status"] in OPEN:
            _end(desk, current, status)


def _end(desk: Desk, row: Order, status: str) -> None:
    if row["status"] == "pending_replace":
        _refuse_replacement(desk, row["id"])
    changes: dict[str, Column] = {_ENDED_AT[status]: desk.now_ns, **AT_REST}
    amend(desk, row["id"], desk.now_ns, status=status, **changes)


def _replacement(desk: Desk, order_id: str) -> str:
    found = (row for row in desk.book.open_orders() if row["replaces"] == order_id and row["status"] == "pending_new")
    return str(next(found)["id"])


def _refuse_replacement(desk: Desk, order_id: str) -> None:
    """The order came to its end, or too far, before its replacement arrived."""
    new_id = _replacement(desk, order_id)
    amend(desk, new_id, desk.now_ns, status="rejected", failed_ns=desk.now_ns, arrives_ns=None)
    tell(desk, order_row(desk, order_id), "order_replace_rejected", desk.now_ns)


def _dice(desk: Desk, order_id: str, what: str) -> int:
    hashed = _HASH.copy()
    hashed.update(f"{desk.market.seed}\x1f{order_id}\x1f{what}".encode())
    return int.from_bytes(hashed.digest(), "big")
