"""Orders that cannot go wrong: what is checked before one is sent, and every way to place, change, cancel and close.

That an order is sent once and never lost is ``sending``'s part.
"""

import functools
from collections.abc import Callable, Mapping
from decimal import ROUND_DOWN, Decimal
from typing import Any, Final

from alpacli.broker.facts import FactFinder, Plan
from alpacli.broker.flow import Do, Flow, Pause, Pipeline, T
from alpacli.broker.notebook import Notebook
from alpacli.broker.outcomes import (
    Closing,
    Halted,
    OnClosing,
    Preview,
    Record,
    Unresolved,
    Who,
    not_canceled,
    nothing_left,
)
from alpacli.broker.risk import RiskRules, risk_violations
from alpacli.broker.sending import DOUBTFUL, Errand, Sender, refuse, refused
from alpacli.domain.account import Position
from alpacli.domain.order_rules import (
    Facts,
    account_violations,
    buying_power_needed,
    held,
    market_warning,
    power_for,
    reduces,
    violations,
)
from alpacli.domain.orders import Order
from alpacli.domain.replacing import as_ticket, check_changes, replacement_violations, without_hold
from alpacli.domain.symbols import spelled
from alpacli.domain.tickets import OrderTicket, checked_ticket, made_exact, read_ticket
from alpacli.domain.values import plain
from alpacli.domain.worth import estimated_cost, estimated_value
from alpacli.errors import (
    AlpacaAPIError,
    AlpacliError,
    AuthenticationError,
    BudgetExhausted,
    CircuitOpen,
    ConfigError,
    FateUnknown,
    NotFound,
    OrderRefused,
    OrderRejected,
    RateLimited,
    ServerError,
    UsageError,
)
from alpacli.ports import Clock, Randomness
from alpacli.wire import rest, trading
from alpacli.wire.rest import Call
from alpacli.wire.trading import Cancellation

MADE_WHEN_SENT: Final = "(made when it is sent)"
_HELD_PATIENCE_S: Final = 5.0
_LOOK_AGAIN_S: Final = 0.5
_LARGEST_SHARE: Final = Decimal(100)
_SHARE_STEP: Final = Decimal("0.000000001")


class Desk:
    """The rules of order entry as flows, for both clients."""

    def __init__(
        self,
        pipeline: Pipeline,
        clock: Clock,
        rng: Randomness,
        *,
        journal: Record,
        rules: Callable[[], RiskRules],
        halted: Callable[[], Halted | None],
        who: Who,
        plan: Plan,
        warn: Callable[[str], None],
    ) -> None:
        self._pipeline = pipeline
        self._clock = clock
        self._rules = rules
        self._halted = halted
        self._warn = warn
        self._facts = FactFinder(pipeline, clock, plan, warn)
        self._notebook = Notebook(journal, clock, who, warn)
        self._sender = Sender(pipeline, clock, rng, self._notebook)

    # ------------------------------------------------------------------------------------------------ placing

    def place(self, ticket: OrderTicket) -> Flow[Order]:
        """Check, record and send one order; return it as the broker has it."""
        return (yield from self._place(checked_ticket(ticket), "place"))

    def place_as_written(self, fields: Mapping[str, Any]) -> Flow[Order]:
        """Place an order that a client wrote in Alpaca's own fields.

        What Alpaca's rules say of it is left to Alpaca; the user's own rules and a halt hold. The client order ID is added
        when there is none.
        """
        errand = self._sender.errand("place", trading.submit_order, fields)
        rules = yield Do(self._rules)
        if not rules.any and (yield Do(self._halted)) is None:
            return (yield from self._sender.send_once(errand))
        return (yield from self._send_if_allowed(read_ticket(fields), errand))

    def obey_halt(self, what: str) -> Flow[None]:
        """Refuse what is no order and takes on risk all the same, while trading is halted."""
        if (yield Do(self._halted)) is not None:
            raise refused("halt", f"trading is halted: {what} has to wait", "`alpacli resume` ends the halt")

    def _place(self, ticket: OrderTicket, action: str) -> Flow[Order]:
        errand = self._sender.errand(action, trading.submit_order, ticket.body(ticket.client_order_id or ""))
        try:
            refuse(violations(ticket))
        except OrderRefused as no:
            self._note_refusal(errand, no)
            raise
        if action != "close":
            return (yield from self._send_if_allowed(ticket, errand))
        try:
            return (yield from self._sender.send_once(errand))
        except OrderRejected as no:
            raise nothing_left(ticket, no) from None

    def _send_if_allowed(self, ticket: OrderTicket, errand: Errand, instead_of: Order | None = None) -> Flow[Order]:
        """Hold an order against the user's own rules, and send it.

        Nothing is taken from the cache: what made a position smaller a moment ago may open one now. Where other orders count,
        no other process does the same meanwhile: two that look at the same positions would both find room for one.
        """

        def check_and_send() -> Flow[Order]:
            try:
                rules = yield Do(self._rules)
                reducing = yield from self._obey_own_rules(ticket, fresh=True, instead_of=instead_of)
                per_minute = None if reducing else rules.max_orders_per_minute
                intent = ticket.only_closing().position_intent if reducing and instead_of is None else None
                sent = errand._replace(call=trading.with_intent(errand.call, intent))  # a change can have none
                line = yield from self._sender.record(sent, per_minute)
            except OrderRefused as no:
                self._note_refusal(errand, no)
                raise
            return (yield from self._sender.send(sent, line))

        rules = yield Do(self._rules)
        if rules.counts_others:
            return (yield from self._pipeline.alone("desk", check_and_send))
        return (yield from check_and_send())

    def _note_refusal(self, errand: Errand, no: OrderRefused) -> None:
        self._notebook.note(
            errand.action, errand.call, errand.client_order_id, phase="refused", rule=no.rule, message=no.message
        )

    def check(self, ticket: OrderTicket) -> Flow[tuple[str, ...]]:
        """Hold an order against Alpaca's rules, the account and the market; return what is worth a warning.

        Raises:
            UsageError: it is no order yet: it lacks something, or says a word that orders do not have.
            OrderRefused: a rule is broken; the message names it and the hint says what to do.
        """
        ticket = checked_ticket(ticket)
        facts = yield from self._judged(ticket)
        warning = market_warning(ticket, facts.clock)
        return (warning,) if warning else ()

    def _judged(self, ticket: OrderTicket, *, holds: bool = True) -> Flow[Facts]:
        refuse(violations(ticket))
        facts = yield from self._facts.about(ticket)
        if not holds and facts.positions is not None:
            free = [position.model_copy(update={"qty_available": position.qty}) for position in facts.positions]
            facts = facts._replace(positions=free)
        refuse(account_violations(ticket, facts))
        return facts

    def preview(self, ticket: OrderTicket, base_url: str = "", *, holds: bool = True) -> Flow[Preview]:
        """Check an order against every rule, the account and the market, and send nothing.

        ``holds=False`` takes open orders as canceled: they hold no shares then.

        Raises:
            UsageError: it is no order yet: it lacks something, or says a word that orders do not have.
            OrderRefused: a rule is broken; the message names it and the hint says what to do.
        """
        ticket = checked_ticket(ticket)
        facts = yield from self._judged(ticket, holds=holds)
        if ticket.legs and facts.quote is None:
            facts = yield from self._facts.priced(ticket, facts)
        if (yield from self._obey_own_rules(ticket, facts)):
            ticket = ticket.only_closing()
        warning = market_warning(ticket, facts.clock)
        needed = buying_power_needed(ticket, facts)
        power = power_for(ticket, facts.account) if facts.account else None
        body = ticket.body(ticket.client_order_id or MADE_WHEN_SENT)
        return Preview(
            dry_run=True,
            method="POST",
            url=f"{base_url}/v2/orders",
            body=body,
            estimated_cost=estimated_cost(ticket, facts.quote),
            buying_power=power,
            buying_power_left=None if power is None or needed is None else power - needed,
            warnings=(warning,) if warning else (),
        )

    def _obey_own_rules(
        self,
        ticket: OrderTicket,
        known: Facts | None = None,
        *,
        fresh: bool = False,
        instead_of: Order | None = None,
    ) -> Flow[bool]:
        """Refuse what the user forbade; return whether the order only makes a position smaller, which always passes.

        ``fresh`` takes nothing from the cache. ``instead_of`` is the open order that this one replaces: its hold is free.
        """
        rules = yield Do(self._rules)
        halted = yield Do(self._halted)
        if halted is None and not rules.any:
            return False
        facts = known or Facts()
        if rules.any:
            ticket = yield from self._facts.named(ticket)
        if rules.needs_open_orders and facts.open_orders is None:
            # Before the positions: what fills between the two is then counted twice, and not never.
            waiting = yield from self._facts.maybe(rest.orders(limit=None, nested=True), fresh=fresh)
            if waiting is not None and instead_of is not None:
                waiting = [order for order in waiting if order.id != instead_of.id]
            facts = facts._replace(open_orders=waiting)
        if facts.positions is None:
            positions = yield from self._facts.maybe(rest.positions(), fresh=fresh)
            if positions is not None and instead_of is not None:
                positions = [without_hold(position, instead_of) for position in positions]
            facts = facts._replace(positions=positions)
        reducing = facts.positions is not None and reduces(ticket, facts.positions)
        if halted is not None and not reducing:
            raise refused(
                "halt",
                f"trading is halted: {halted.reason or 'no reason was given'}",
                "`alpacli resume` ends the halt; cancels, closes and what makes a position smaller pass",
            )
        if reducing:
            return True
        facts = yield from self._facts.for_rules(rules, ticket, facts, fresh=fresh)
        recent = 0
        if rules.max_orders_per_minute is not None:
            pace = self._sender.pace(rules.max_orders_per_minute)
            report = yield Do(lambda: self._pipeline.store.limits(pace))
            recent = max(report.used, (yield Do(self._notebook.sent_lately)))
        refuse(risk_violations(rules, ticket, facts, recent))
        return False

    # ------------------------------------------------------------------------------------ replacing, cancelling

    def replace(self, order_id: str, changes: Mapping[str, Any]) -> Flow[Order]:
        """Change an open order; return the new one that replaces it."""
        halted = yield Do(self._halted)
        rules = yield Do(self._rules)
        errand = self._sender.errand("replace", functools.partial(trading.replace_order, order_id), changes)
        if halted is None and not rules.any:
            return (yield from self._sender.send_once(errand))
        old = (yield from self._pipeline.read(rest.order(order_id, nested=True), use_cache=False, max_age=None)).value
        ticket = as_ticket(old, changes)
        return (yield from self._send_if_allowed(ticket, errand, old))

    def check_replacement(self, order_id: str, changes: Mapping[str, Any]) -> Flow[tuple[str, ...]]:
        """Hold a change of an open order against Alpaca's rules; return what is worth a warning.

        Raises:
            UsageError: nothing is to be changed, or to a word that orders do not have.
            OrderRefused: a rule is broken; the message names it and the hint says what to do.
        """
        check_changes(changes)
        order = (yield from self._pipeline.read(rest.order(order_id, nested=True), use_cache=False, max_age=None)).value
        refuse(replacement_violations(order, changes))
        warning = market_warning(as_ticket(order, changes), (yield from self._facts.market_clock()))
        return (warning,) if warning and not order.extended_hours else ()

    def preview_replacement(self, order_id: str, changes: Mapping[str, Any], base_url: str = "") -> Flow[Preview]:
        """Hold a change of an open order against every rule, and send nothing; the cost is that of what is left to fill."""
        warnings = yield from self.check_replacement(order_id, changes)
        order = (yield from self._pipeline.read(rest.order(order_id, nested=True), use_cache=False, max_age=None)).value
        ticket = as_ticket(order, changes)
        yield from self._obey_own_rules(ticket, instead_of=order)
        account = yield from self._facts.maybe(rest.account())
        quote = (yield from self._facts.priced(ticket, Facts())).quote
        cost, before = estimated_value(ticket, quote), estimated_value(as_ticket(order, {}), quote)
        power = power_for(ticket, account) if account else None
        adds = None if cost is None or before is None else cost - before
        return Preview(
            dry_run=True,
            method="PATCH",
            url=f"{base_url}/v2/orders/{order_id}",
            body={**changes, "client_order_id": changes.get("client_order_id") or MADE_WHEN_SENT},
            estimated_cost=cost,
            buying_power=power,
            buying_power_left=None if power is None or adds is None or ticket.side != "buy" else power - adds,
            warnings=warnings,
        )

    def cancel(self, order_id: str) -> Flow[None]:
        """Ask for the cancellation of one order; asking again does no harm, so it is repeated until there is an answer.

        A refusal, or no answer at all, says little about the order, so the order itself is looked at then: one that is
        canceled is what was wanted; of one that was filled or ended in another way first, that is said.
        """
        call = trading.cancel_order(order_id)
        self._notebook.note("cancel", call, None, phase="sent", order_id=order_id)
        note = functools.partial(self._notebook.note, "cancel", call, None, phase="answered", order_id=order_id)
        try:
            yield from self._pipeline.change(call)
        except (OrderRejected, *DOUBTFUL) as error:
            try:
                order = (
                    None
                    if error.nothing_sent
                    else (yield from self._facts.maybe(rest.order(order_id), must_exist=True))
                )
            except NotFound as gone:
                note(outcome="refused", error=gone)
                raise gone from None
            if order is not None and order.status in ("canceled", "pending_cancel"):
                note(outcome="done", order=order)
                return
            failure = error if order is None else not_canceled(order, error)
            refusal = isinstance(failure, OrderRejected)
            note(outcome="refused" if refusal else "unknown", order=order, error=failure)
            raise failure from None
        except AlpacliError as error:
            note(outcome=_failed_as(error), error=error)
            raise
        note(outcome="done")

    def cancel_all(self) -> Flow[list[Cancellation]]:
        """Ask for the cancellation of every open order."""
        return (yield from self.cancel_all_as(trading.cancel_all_orders()))

    def cancel_all_as(self, call: Call[T]) -> Flow[T]:
        """Ask for the cancellation of every open order, and read the answer in another way."""
        self._notebook.note("cancel all", call, None, phase="sent")
        try:
            value = yield from self._pipeline.change(call)
        except AlpacliError as error:
            self._notebook.note("cancel all", call, None, phase="answered", outcome=_failed_as(error), error=error)
            raise
        self._notebook.note("cancel all", call, None, phase="answered", outcome="done")
        return value

    # ------------------------------------------------------------------------------------------------- closing

    def closing_ticket(
        self, symbol: str, qty: Decimal | None = None, percent: Decimal | None = None
    ) -> Flow[OrderTicket]:
        """Return the market order that closes a position, or ``qty`` or ``percent`` of it."""
        if qty is not None and percent is not None:
            raise UsageError("qty and percent exclude each other", "give one of the two")
        qty, percent = made_exact("qty", qty), made_exact("percent", percent)
        if percent is not None and not 0 < percent <= _LARGEST_SHARE:
            raise UsageError(f"{percent} is not a percentage to close", "give more than 0 and at most 100")
        name = spelled(symbol)
        reading = yield from self._pipeline.read(rest.positions(), use_cache=False, max_age=None)
        position = held(reading.value, name)
        if position is None:
            names = ", ".join(sorted(item.symbol for item in reading.value))
            raise NotFound(f"there is no open position in {symbol}", f"held: {names}" if names else "nothing is held")
        return (yield from self._closing(position, qty, percent))

    def _closing(self, position: Position, qty: Decimal | None, percent: Decimal | None) -> Flow[OrderTicket]:
        size = abs(position.qty)
        amount = qty if qty is not None else size
        if percent is not None and percent != _LARGEST_SHARE:
            amount = yield from self._share(position, percent)
        if not 0 < amount <= size:
            raise refused(
                "position",
                f"{plain(amount)} of a position of {plain(size)} {position.symbol} cannot be closed",
                f"give up to {plain(size)}",
            )
        coin = position.asset_class == "crypto"
        ticket = OrderTicket(
            symbol=position.symbol,
            side="sell" if position.qty > 0 else "buy",
            qty=Decimal(plain(amount)),  # whoever is asked, and the order, have 20: not 20.000000000
            time_in_force="gtc" if coin else "day",
        )
        return ticket.only_closing()  # another one may close it meanwhile

    def _share(self, position: Position, percent: Decimal) -> Flow[Decimal]:
        """Return so many percent of a position, rounded down to what can be traded; say where that is not what was asked for.

        Raises:
            OrderRefused: nothing is left of it.
        """
        size = abs(position.qty)
        exact = size * percent / 100
        amount = exact.quantize(_SHARE_STEP, ROUND_DOWN)
        if amount == amount.to_integral_value() and amount:
            return amount
        whole = not (yield from self._divisible(position))
        if whole:
            amount = amount.to_integral_value(ROUND_DOWN)
        things = "contracts" if position.asset_class == "us_option" else "shares"
        done = "sold" if position.qty > 0 else "bought back"
        told = f"{plain(percent)} % of {plain(size)} {position.symbol} is {plain(exact)}"
        if not amount:
            least = f"less than one, and only whole {things} can be {done}" if whole else f"less than can be {done}"
            raise refused("position", f"{told}: {least}", "give a larger share, or a quantity")
        if whole:
            self._warn(f"{told}, and only whole {things} can be {done}: {plain(amount)}")
        return amount

    def _divisible(self, position: Position) -> Flow[bool]:
        if position.asset_class == "crypto" or position.qty != position.qty.to_integral_value():
            return True
        if position.qty < 0 or position.asset_class != "us_equity":
            return False
        asset = yield from self._facts.maybe(rest.asset(position.symbol), 3600.0)
        return asset is not None and asset.fractionable

    def close(self, symbol: str, *, qty: Decimal | None = None, percent: Decimal | None = None) -> Flow[Order]:
        """Close a position, or a part of it, with a market order."""
        ticket = yield from self.closing_ticket(symbol, qty, percent)
        return (yield from self._place(ticket, "close"))

    def close_all(self, *, cancel_orders: bool = False, on_result: OnClosing | None = None) -> Flow[list[Closing]]:
        """Close every position; with ``cancel_orders`` what holds the shares is canceled first.

        Options that were sold short go first, and the rest waits for them a moment: it may be what covers them.
        ``on_result`` hears of every position before the first order is sent, and of each again once it is known what came of
        it: whoever is interrupted can tell all of them.
        """
        if cancel_orders:
            yield from self.cancel_all()
        found = (yield from self._pipeline.read(rest.positions(), use_cache=False, max_age=None)).value
        if cancel_orders:
            found = yield from self._released(found)
        owed = [position for position in found if _is_short_option(position)]
        others = [position for position in found if not _is_short_option(position)]
        tell = on_result or (lambda _symbol, _closing: None)
        for position in (*owed, *others):
            tell(position.symbol, None)
        closings = yield from self._close_each(owed, tell)
        if others:
            yield from self._bought_back({closing.symbol for closing in closings if closing.status == 200})
        closings += yield from self._close_each(others, tell)
        return closings

    def _close_each(self, positions: list[Position], tell: OnClosing) -> Flow[list[Closing]]:
        closings: list[Closing] = []
        for position in positions:
            try:
                ticket = yield from self._closing(position, None, None)
                order = yield from self._place(ticket, "close")
                closing = Closing(symbol=position.symbol, status=200, body=order)
            except AlpacliError as error:
                if isinstance(error, AuthenticationError | ConfigError):
                    raise
                body: dict[str, Any] = error.as_dict()
                if isinstance(error, FateUnknown):
                    body["client_order_id"] = error.client_order_id
                closing = Closing(symbol=position.symbol, status=error.status or 500, body=body)
            tell(position.symbol, closing)
            closings.append(closing)
        return closings

    def _bought_back(self, symbols: set[str]) -> Flow[None]:
        """Wait until options that were sold short are gone: what stands behind them cannot be sold before."""
        give_up_at = self._clock.monotonic() + _HELD_PATIENCE_S
        while symbols and self._clock.monotonic() < give_up_at:
            yield Pause(_LOOK_AGAIN_S, "short options are bought back first")
            left = (yield from self._pipeline.read(rest.positions(), use_cache=False, max_age=None)).value
            symbols &= {position.symbol for position in left}

    def _released(self, found: list[Position]) -> Flow[list[Position]]:
        """Wait for canceled orders to let go of the shares."""
        give_up_at = self._clock.monotonic() + _HELD_PATIENCE_S
        while any(position.qty_held for position in found) and self._clock.monotonic() < give_up_at:
            yield Pause(_LOOK_AGAIN_S, "canceled orders still hold shares")
            found = (yield from self._pipeline.read(rest.positions(), use_cache=False, max_age=None)).value
        return found

    # ----------------------------------------------------------------------------------------------- the record

    def unresolved(self) -> Flow[list[Unresolved]]:
        """Find out what became of every order whose answer was lost, also to processes that were killed."""
        return (yield from self._sender.unresolved())

    def note_halt(self, action: str, reason: str) -> None:
        """Record that trading was halted or resumed."""
        self._notebook.append({"action": action, "phase": "answered", "outcome": "done", "message": reason})


def _is_short_option(position: Position) -> bool:
    return position.asset_class == "us_option" and position.qty < 0


def _failed_as(error: AlpacliError) -> str:
    """Return what became of a cancellation that failed: a broker that answered refused it, else nobody knows."""
    if isinstance(error, BudgetExhausted | CircuitOpen | RateLimited) or error.nothing_sent:
        return "not sent"
    return "refused" if isinstance(error, AlpacaAPIError) and not isinstance(error, ServerError) else "unknown"
