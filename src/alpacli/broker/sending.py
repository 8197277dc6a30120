"""An order is sent once, and never lost.

Alpaca knows an order by the client order ID that its sender chose, takes each ID once, and can be asked for it. So an ID is
made and written to the journal before anything is sent; when the answer gets lost, the ID is looked up, and only an order
that is not there is sent again, with the same ID. If that cannot be found out either, ``FateUnknown`` says so, and the
journal keeps the question.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Final

from alpacli.broker.flow import REQUESTS_AT_MOST, Do, Flow, Patience, Pause, Pipeline
from alpacli.broker.notebook import MINUTE_S, Notebook
from alpacli.broker.outcomes import Unresolved
from alpacli.broker.risk import too_many_orders
from alpacli.domain.order_rules import Violation
from alpacli.domain.orders import Order
from alpacli.errors import (
    AlpacliError,
    BudgetExhausted,
    CircuitOpen,
    ConnectionLost,
    FateUnknown,
    NotFound,
    OrderRefused,
    RateLimited,
    RequestTimeout,
    ServerError,
    Unavailable,
    UnreadableAnswer,
    UsageError,
)
from alpacli.ports import BudgetRules, Granted, Outcome, Randomness, Ticket
from alpacli.wire import rest
from alpacli.wire.rest import Call

DOUBTFUL: Final = (RequestTimeout, ConnectionLost, ServerError, UnreadableAnswer)
"""After these nobody knows whether the broker did what it was asked to."""


class Sender:
    """Sends orders of one account, each recorded first, and finds out what became of those that got no answer."""

    def __init__(self, pipeline: Pipeline, rng: Randomness, notebook: Notebook) -> None:
        self._pipeline = pipeline
        self._rng = rng
        self._notebook = notebook

    def pace(self, per_minute: int) -> BudgetRules:
        """Return the budget of orders that all machines share: the same sliding window as that of requests."""
        return BudgetRules(f"{self._pipeline.rules.scope}:~orders", per_minute, reserve=0, window_s=MINUTE_S)

    def send_once(self, action: str, call: Call[Order], client_order_id: str) -> Flow[Order]:
        """Record an order and send it; raises what ``send`` raises."""
        yield from self.record(action, call, client_order_id, None)
        return (yield from self.send(action, call, client_order_id))

    def record(self, action: str, call: Call[Order], client_order_id: str, per_minute: int | None) -> Flow[None]:
        """Write down that an order is about to be sent, if that is not one too many within a minute.

        The slot is taken in the store, for all machines, and under the journal's lock, for this one: so nobody passes who
        looked at the same moment, and this machine's orders still count when the store is lost.
        """
        line = self._notebook.line(action, call, client_order_id, {"phase": "sent"})
        if per_minute is None:
            yield Do(lambda: self._notebook.record(line))
            return
        store, pace = self._pipeline.store, self.pace(per_minute)
        slot = Ticket(self._rng.token(), action)

        def room() -> None:
            lately = self._notebook.sent_lately()
            if lately >= per_minute:
                refuse([too_many_orders(lately)])

        try:
            turn = yield Do(lambda: store.admit(pace, slot))
            if not isinstance(turn, Granted):
                refuse([too_many_orders(per_minute)])
            yield Do(lambda: self._notebook.record(line, room))
        except BaseException:
            store.leave(pace, slot)
            raise
        yield Do(lambda: store.settle(pace, slot, Outcome(failed=None)))

    def send(self, action: str, call: Call[Order], client_order_id: str) -> Flow[Order]:
        """Send an order that is recorded, until it is known to be at the broker, or not, or that this cannot be known.

        Raises:
            FateUnknown: it was sent, and nobody knows whether the broker has it.
            AlpacliError: the broker does not have it.
        """
        note = functools.partial(self._notebook.note, action, call, client_order_id)
        patience = self._pipeline.patience()
        doubtful, tries = False, 0
        try:
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
                        note(phase="answered", outcome=outcome, error=error)
                        raise
                    failure = error
                if order is None and doubtful:
                    order = yield from self._look_up(client_order_id, patience, note, failure)
                if order is not None:
                    note(phase="answered", outcome="placed", order=order, request_id=request_id)
                    return order
                assert failure is not None  # noqa: S101 # without an order there was a failure
                if tries == REQUESTS_AT_MOST or not isinstance(failure, DOUBTFUL):
                    if not doubtful:
                        note(phase="answered", outcome="not sent", error=failure)
                        raise failure
                    raise self._unknown(client_order_id, note, failure)
                with patience:
                    yield Pause(min(self._pipeline.pause_s(tries, failure), patience.left_s), failure.message)
        finally:
            self._pipeline.forget(call.changes)

    def _look_up(
        self, client_order_id: str, patience: Patience, note: Callable[..., None], failure: AlpacliError | None
    ) -> Flow[Order | None]:
        call = rest.order_by_client_order_id(client_order_id)
        try:
            response = yield from self._pipeline.exchange(call.request, patience, urgent=True)
            return _of_ours(call.decode(response.body), client_order_id)
        except NotFound:
            return None
        except AlpacliError as error:
            raise self._unknown(client_order_id, note, failure or error) from None

    def _unknown(self, client_order_id: str, note: Callable[..., None], failure: AlpacliError) -> FateUnknown:
        note(phase="answered", outcome="unknown", error=failure)
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
        waiting = yield Do(self._notebook.unanswered)
        results: list[Unresolved] = []
        for client_order_id, line in waiting.items():
            order: Order | None = None
            problem: dict[str, Any] | None = None
            outcome = "in flight" if self._notebook.in_flight(line) else "unknown"
            if outcome == "unknown":
                call = rest.order_by_client_order_id(client_order_id)
                try:
                    order = (yield from self._pipeline.read(call, use_cache=False, max_age=None)).value
                    outcome = "placed"
                except NotFound:
                    if self._notebook.is_settled(line):
                        outcome = "not placed"
                except (Unavailable, ServerError) as error:
                    problem = error.as_dict()
            if outcome in ("placed", "not placed"):
                note = {"outcome": outcome, "order_id": order.id if order else None}
                self._notebook.append(
                    {"action": "resolve", "phase": "answered", "client_order_id": client_order_id, **note}
                )
            results.append(
                Unresolved(
                    client_order_id=client_order_id,
                    action=str(line.get("action", "")),
                    sent_at=str(line.get("time", "")),
                    outcome=outcome,
                    request=found if isinstance(found := line.get("request"), dict) else {},
                    order=order,
                    error=problem,
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


def _of_ours(order: Order, client_order_id: str) -> Order:
    """Refuse the answer to somebody else's order, as a server or proxy that answers twice makes one arrive."""
    if order.client_order_id != client_order_id:
        raise UnreadableAnswer("the answer is about another order", "a proxy may stand between")
    return order
