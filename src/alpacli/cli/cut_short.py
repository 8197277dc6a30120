"""What is told of a change that Ctrl-C or SIGTERM cut short: what was done, what was on its way, what was never tried.

Where several things were to be done, stdout has a row for each, as it has when some fail; stderr has one error.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from alpacli.broker.outcomes import Closing
from alpacli.cli.failures import Interrupted, ctrl_c_heard_once, on_its_way, wind_up
from alpacli.errors import AlpacliError, FateUnknown
from alpacli.ports import Clock
from alpacli.wire.trading import Cancellation

_NO_ANSWER = 500  # what stands in a row whose request got no status of its own


def _an_order(stop: KeyboardInterrupt) -> Interrupted:
    its_id = on_its_way(stop) or ""
    return Interrupted(
        "interrupted while an order was on its way",
        "`alpacli orders --unresolved` tells what became of it"
        + (f"; its client order ID is {its_id}" if its_id else ""),
        its_id,
        [its_id] if its_id else [],
    )


@contextmanager
def told_if_interrupted(clock: Clock, tell: Callable[[KeyboardInterrupt], Interrupted] = _an_order) -> Iterator[None]:
    """Raise what ``tell`` says in place of an interruption; it may print before, and is not interrupted itself."""
    with ctrl_c_heard_once(clock):
        try:
            yield
        except KeyboardInterrupt as stop:
            wind_up()
            raise tell(stop) from stop


# ----------------------------------------------------------------------------------------------------- closing


def closings_so_far(
    came_to: Mapping[str, Closing | None], its_id: str | None, failure: AlpacliError | None = None
) -> list[Closing]:
    """Return a row for every position; ``None``, in ``came_to``, is what nothing is known of yet.

    ``its_id`` is the client order ID of the order that was on its way, which closes the first of these; ``None``: none was.
    ``failure`` is what ended it instead of an interruption.
    """
    rows: list[Closing] = []
    for symbol, closing in came_to.items():
        if closing is not None:
            rows.append(closing)
            continue
        body = _not_tried("no order was sent") if failure is None else failure.as_dict()
        if its_id is not None:
            unknown = FateUnknown(
                "interrupted while the order was on its way: whether it was taken is unknown",
                f"`alpacli orders --unresolved` finds out; its client order ID is {its_id}",
            )
            body, its_id = {**unknown.as_dict(), "client_order_id": its_id}, None
        rows.append(Closing(symbol=symbol, status=_NO_ANSWER, body=body))
    return rows


def closing_interrupted(
    came_to: Mapping[str, Closing | None], rows: Sequence[Closing], its_id: str | None, *, cancel_orders: bool
) -> Interrupted:
    if not came_to:
        hint = "; open orders may be canceled: `alpacli orders` shows what is left of them" if cancel_orders else ""
        return Interrupted(
            "interrupted before any position was closed", f"`alpacli positions` shows them{hint}", "", []
        )
    pending = [symbol for symbol, closing in came_to.items() if closing is None]
    where = ""
    if its_id is not None:
        where = f" while the order that closes {pending.pop(0)} was on its way"
    placed = sum(row.status == 200 for row in rows)
    untried = f"; not tried: {', '.join(pending)}" if pending else ""
    bodies = [row.body for row in rows if isinstance(row.body, dict)]
    unknown = [body["client_order_id"] for body in bodies if body["type"] == "FateUnknown" and body["client_order_id"]]
    left = "`alpacli positions` and `alpacli orders` show what is left"
    if unknown:
        left = f"`alpacli orders --unresolved` tells what became of {', '.join(unknown)}; {left}"
    return Interrupted(
        f"interrupted{where}; {placed} of {len(rows)} closing orders were placed{untried}", left, its_id or "", unknown
    )


# --------------------------------------------------------------------------------------------------- canceling


def cancellations_so_far(
    results: Sequence[Cancellation], ids: Sequence[str], *, on_the_way: bool
) -> list[Cancellation]:
    """Return ``results`` and a row for every other of ``ids``; ``on_the_way``: the first of these was asked for."""
    rows = list(results)
    for text in ids[len(results) :]:
        body = _not_tried("its cancellation was not asked for")
        if on_the_way and len(rows) == len(results):
            body = FateUnknown(
                "interrupted while its cancellation was on its way: whether it was taken is unknown",
                f"`alpacli order {text} --refresh` shows it; canceling once more does no harm",
            ).as_dict()
        rows.append(Cancellation(id=text, status=_NO_ANSWER, body=body))
    return rows


def canceling_interrupted(results: Sequence[Cancellation], ids: Sequence[str], *, on_the_way: bool) -> Interrupted:
    pending = list(ids[len(results) :])
    where = f" while the cancellation of {pending.pop(0)} was on its way" if on_the_way and pending else ""
    taken = sum(200 <= item.status < 300 for item in results)
    untried = f"; not tried: {', '.join(pending)}" if pending else ""
    return Interrupted(
        f"interrupted{where}; {taken} of {len(ids)} cancellations were taken{untried}",
        "`alpacli orders` shows what is open; canceling once more does no harm",
        "",
        [],
    )


def canceling_all_interrupted(_stop: KeyboardInterrupt) -> Interrupted:
    return Interrupted(
        "interrupted while the cancellation of all open orders was on its way: whether it was taken is unknown",
        "`alpacli orders` shows what is open; canceling once more does no harm",
        "",
        [],
    )


def _not_tried(what: str) -> dict[str, Any]:
    return Interrupted(f"interrupted before: {what}", "it is as it was", "", []).as_dict()
