"""An order is sent once, and never lost.

Alpaca knows an order by the client order ID that its sender chose, takes each ID once, and can be asked for it. So an ID is
made and written to the journal before anything is sent; when the answer gets lost, the ID is looked up, and only an order
that is not there is sent again, with the same ID. If that cannot be found out either, ``FateUnknown`` says so, and the
journal keeps the question.

An ID that a caller chose may have been used before, so what is found under one is this order only if it says what was sent
and is not older than its first sending. Else the ID was taken, which is a refusal.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from alpacli.broker.flow import REQUESTS_AT_MOST, Do, Flow, Patience, Pause, Pipeline
from alpacli.broker.notebook import MINUTE_S, Notebook
from alpacli.broker.outcomes import Unresolved
from alpacli.broker.risk import too_many_orders
from alpacli.domain.identity import difference, told
from alpacli.domain.order_rules import Violation
from alpacli.domain.orders import Order
from alpacli.domain.values import from_json
from alpacli.errors import (
    AlpacliError,
    BudgetExhausted,
    CircuitOpen,
    ConnectionLost,
    FateUnknown,
    NotFound,
    OrderInterrupted,
    OrderRefused,
    OrderRejected,
    RateLimited,
    RequestTimeout,
    ServerError,
    Unavailable,
    UnreadableAnswer,
    UsageError,
)
from alpacli.ports import BudgetRules, Clock, Granted, Outcome, Randomness, Ticket
from alpacli.wire import rest
from alpacli.wire.rest import Call

DOUBTFUL: Final = (RequestTimeout, ConnectionLost, ServerError, UnreadableAnswer)
"""After these nobody knows whether the broker did what it was asked to."""

TAKEN: Final = 40010001
"""Alpaca's code for a client order ID that is another order's, among other things; its text then says ``unique``."""

_CLOCKS_DIFFER_S: Final = 120.0
_CLOCKS_WERE_WRONG_S: Final = 86_400.0
"""How wrong this machine's clock may have been when a process that is gone sent an order: to say of one that stands that it
was not placed is worse than to take an equal one of the same day, under the same ID, for it."""


class Errand(NamedTuple):
    """An order, or the change of one, that is to be sent; ``action`` is what the journal calls it.

    ``given`` says that the client order ID is the caller's: one that is made here was never used before.
    """

    action: str
    call: Call[Order]
    client_order_id: str
    given: bool


class Sender:
    """Sends orders of one account, each recorded first, and finds out what became of those that got no answer."""

    def __init__(self, pipeline: Pipeline, clock: Clock, rng: Randomness, notebook: Notebook) -> None:
        self._pipeline = pipeline
        self._clock = clock
        self._rng = rng
        self._notebook = notebook

    def pace(self, per_minute: int) -> BudgetRules:
        """Return the budget of orders that all machines share: the same sliding window as that of requests."""
        return BudgetRules(f"{self._pipeline.rules.scope}:~orders", per_minute, reserve=0, window_s=MINUTE_S)

    def errand(
        self, action: str, declared: Callable[[Mapping[str, Any]], Call[Order]], fields: Mapping[str, Any]
    ) -> Errand:
        """Return what is to be sent, with a new client order ID if ``fields`` have none."""
        given = fields.get("client_order_id")
        client_order_id = str(given or f"alpacli-{self._rng.token()}")
        call = declared({**fields, "client_order_id": client_order_id})
        return Errand(action, call, client_order_id, given=bool(given))

    def send_once(self, errand: Errand) -> Flow[Order]:
        """Record an order and send it; raises what ``send`` raises."""
        line = yield from self.record(errand, None)
        return (yield from self.send(errand, line))

    def record(self, errand: Errand, per_minute: int | None) -> Flow[Mapping[str, Any]]:
        """Write down that an order is about to be sent, if that is not one too many within a minute; return the line.

        The slot is taken in the store, for all machines, and under the journal's lock, for this one: so nobody passes who
        looked at the same moment, and this machine's orders still count when the store is lost.
        """
        line = self._notebook.line(
            errand.action, errand.call, errand.client_order_id, {"phase": "sent", "id_given": errand.given}
        )
        if per_minute is None:
            number = yield Do(lambda: self._notebook.record(line))
            return {**line, "seq": number}
        store, pace = self._pipeline.store, self.pace(per_minute)
        slot = Ticket(self._rng.token(), errand.action)

        def room() -> None:
            lately = self._notebook.sent_lately()
            if lately >= per_minute:
                refuse([too_many_orders(lately)])

        try:
            turn = yield Do(lambda: store.admit(pace, slot))
            if not isinstance(turn, Granted):
                refuse([too_many_orders(per_minute)])
            number = yield Do(lambda: self._notebook.record(line, room))
        except BaseException:
            store.leave(pace, slot)
            raise
        yield Do(lambda: store.settle(pace, slot, Outcome(failed=None)))
        return {**line, "seq": number}

    def send(self, errand: Errand, line: Mapping[str, Any]) -> Flow[Order]:
        """Send an order that is recorded, as ``line``, until it is known to be at the broker, or not, or that this cannot be.

        Raises:
            FateUnknown: it was sent, and nobody knows whether the broker has it.
            AlpacliError: the broker does not have it.
            OrderInterrupted: the caller was, and does not know either.
        """
        interrupted = OrderInterrupted(errand.client_order_id)  # made before: Ctrl-C could come again while it is
        try:
            try:
                return (yield from self._send(errand, line))
            finally:
                yield from self._pipeline.tidy(lambda: self._pipeline.forget(errand.call.changes))
        except KeyboardInterrupt as stop:  # also while tidying: the caller has not heard of the order then
            raise interrupted from stop

    def _send(self, errand: Errand, line: Mapping[str, Any]) -> Flow[Order]:
        call, client_order_id = errand.call, errand.client_order_id
        note = functools.partial(
            self._notebook.note, errand.action, call, client_order_id, phase="answered", answers=line["seq"]
        )
        patience, began = self._pipeline.patience(), self._clock.monotonic()
        doubtful, tries = False, 0
        while True:
            tries += 1
            order: Order | None = None
            failure: AlpacliError | None = None
            request_id: str | None = None
            try:
                response = yield from self._pipeline.exchange(call.request, patience, urgent=True)
                request_id = response.headers.get("x-request-id")
                order = _of_ours(call.decode(response.body), client_order_id)
            except DOUBTFUL as error:
                failure = error
                doubtful = doubtful or not error.nothing_sent
            except AlpacliError as error:
                if not doubtful:
                    outcome = (
                        "not sent" if isinstance(error, BudgetExhausted | CircuitOpen | RateLimited) else "refused"
                    )
                    note(outcome=outcome, error=error)
                    raise
                failure = error
            if order is None and doubtful:
                try:
                    order, taken = yield from self._find(line, patience, began)
                except AlpacliError as error:
                    raise self._unknown(client_order_id, note, failure or error) from None
                if taken is not None:
                    note(outcome="refused", error=taken)
                    raise taken
            if order is not None:
                note(outcome="placed", order=order, request_id=request_id)
                return order
            assert failure is not None  # noqa: S101 # without an order there was a failure
            if tries == REQUESTS_AT_MOST or not isinstance(failure, DOUBTFUL):
                if not doubtful:
                    note(outcome="not sent", error=failure)
                    raise failure
                raise self._unknown(client_order_id, note, failure)
            with patience:
                yield Pause(min(self._pipeline.pause_s(tries, failure), patience.left_s), failure.message)

    def _find(
        self, line: Mapping[str, Any], patience: Patience, began: float | None
    ) -> Flow[tuple[Order | None, OrderRejected | None]]:
        """Ask for an order by the client order ID that it was sent with: return it, or the refusal if the ID was taken.

        ``began`` is the monotonic reading of before it was sent; ``None``: another process sent it.
        """
        client_order_id = str(line["client_order_id"])
        call = rest.order_by_client_order_id(client_order_id)
        try:
            response = yield from self._pipeline.exchange(call.request, patience, urgent=began is not None)
        except NotFound:
            return None, None
        order = _of_ours(call.decode(response.body), client_order_id)
        how = _difference(line, order)
        if not line.get("id_given", True):
            if how is not None:
                raise _about_another()  # nobody else can have this ID
            return order, None
        if how is None and (yield from self._is_older(order, line, patience, began)):
            how = "it was placed before"
        return (order, None) if how is None else (None, already_taken(order, how))

    def _is_older(self, order: Order, line: Mapping[str, Any], patience: Patience, began: float | None) -> Flow[bool]:
        """Tell whether an order that says the same was at the broker before this one was sent.

        The journal knows the orders of this machine. Those of others are told by their age on the broker's own clock, since
        the one here may be wrong; it is asked only when the order seems to be older. What takes the place of the right order
        does so once, whatever time it bears.
        """
        if order.id in (yield Do(lambda: self._notebook.orders_before(line))):
            return True
        at = line.get("at")
        if order.replaces or not isinstance(at, int | float) or order.created_at.timestamp() >= at:
            return False
        clock = rest.clock()
        response = yield from self._pipeline.exchange(clock.request, patience, urgent=began is not None)
        age_s = (clock.decode(response.body).timestamp - order.created_at).total_seconds()
        since_s = self._clock.time() - at
        if began is None:
            return age_s > since_s + _CLOCKS_WERE_WRONG_S
        asleep_too = max(since_s, self._clock.monotonic() - began)  # the latter stands still while the machine sleeps
        return age_s > asleep_too + _CLOCKS_DIFFER_S

    def _unknown(self, client_order_id: str, note: Callable[..., None], failure: AlpacliError) -> FateUnknown:
        note(outcome="unknown", error=failure)
        unknown = FateUnknown(
            f"the order was sent, and whether it was taken is unknown: {failure.message}",
            f"`alpacli orders --unresolved` finds out; its client order ID is {client_order_id}",
        )
        unknown.client_order_id = client_order_id
        return unknown

    def unresolved(self) -> Flow[list[Unresolved]]:
        """Find out what became of every order whose answer was lost, also to processes that were killed.

        One that cannot be asked for just now stays unknown, with the reason, and the others are told all the same.
        """
        results: list[Unresolved] = []
        for line in (yield Do(self._notebook.unanswered)):
            order: Order | None = None
            problem: AlpacliError | None = None
            outcome = "in flight" if self._notebook.in_flight(line) else "unknown"
            if outcome == "unknown":
                try:
                    order, problem = yield from self._find(line, self._pipeline.patience(), None)
                except (Unavailable, ServerError) as error:
                    problem = error
                else:
                    if order is not None:
                        outcome = "placed"
                    elif problem is not None or self._notebook.is_settled(line):
                        outcome = "not placed"
            if outcome in ("placed", "not placed"):
                self._notebook.resolve(line, outcome, order, problem)
            results.append(
                Unresolved(
                    client_order_id=line["client_order_id"],
                    action=str(line.get("action", "")),
                    sent_at=str(line.get("time", "")),
                    outcome=outcome,
                    request=found if isinstance(found := line.get("request"), dict) else {},
                    order=order,
                    error=None if problem is None else problem.as_dict(),
                )
            )
        return results


def refused(rule: str, message: str, fix: str) -> OrderRefused:
    error = OrderRefused(message, fix)
    error.rule = rule
    return error


def refuse(found: Sequence[Violation]) -> None:
    """Raise what the first of some broken rules says, if there is one: the line between wrong usage and an order refused.

    Raises:
        UsageError: it is no order yet.
        OrderRefused: it is one, and a rule refuses it.
    """
    if not found:
        return
    first, *others = sorted(found, key=lambda item: not item.unfinished)
    more = f" (and {len(others)} more: {', '.join(item.rule for item in others)})" if others else ""
    if first.unfinished:
        raise UsageError(f"{first.message}{more}", first.fix)
    raise refused(first.rule, f"{first.message}{more}", first.fix)


def already_taken(order: Order, how: str) -> OrderRejected:
    """Return what Alpaca says of a client order ID that it knows, and which order has it; ``how`` is how one can tell."""
    return OrderRejected(
        f"client_order_id must be unique: {order.client_order_id} is the ID of another order ({told(order)}): {how}",
        "this order was not placed; give it a client order ID of its own, or none",
        status=422,
        code=TAKEN,
    )


def _of_ours(order: Order, client_order_id: str) -> Order:
    """Refuse the answer to somebody else's order, as a server or proxy that answers twice makes one arrive."""
    if order.client_order_id != client_order_id:
        raise _about_another()
    return order


def _about_another() -> UnreadableAnswer:
    return UnreadableAnswer("the answer is about another order", "a proxy may stand between")


def _difference(line: Mapping[str, Any], order: Order) -> str | None:
    """Compare an order with what a line of the journal says was sent; a line without that tells nothing."""
    request = line.get("request")
    sent = request if isinstance(request, dict) else {}
    try:
        body = from_json(str(sent.get("body", "")).encode())
    except ValueError:
        return None
    return difference(str(sent.get("method")), str(sent.get("path")), body, order) if isinstance(body, dict) else None
