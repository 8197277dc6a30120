"""What becomes of orders: one followed until it is done, and those whose answer was lost."""

import threading
from contextlib import closing
from decimal import Decimal
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from alpacli.broker.outcomes import Unresolved
from alpacli.cli.order_names import find_order
from alpacli.cli.output import View
from alpacli.cli.run import Run
from alpacli.domain.orders import Order
from alpacli.domain.values import from_json, plain, to_json
from alpacli.errors import AlpacliError, BudgetExhausted, CircuitOpen, FateUnknown, OrderEnded
from alpacli.wire import rest

if TYPE_CHECKING:
    import asyncio

    from rich.console import RenderableType

    from alpacli.broker.client import AlpacaClient
    from alpacli.render.text import Frame
    from alpacli.streams.events import Event
    from alpacli.wire.rest import Call

_LOOK_EVERY_S: Final = 1.0
_LOOK_BESIDE_STREAM_S: Final = 15.0
"""How often an order is looked at although the stream tells of it: events of Alpaca's have been seen to be missing."""
_LAST_WORDS_S: Final = 3.0
_ORDER: Final = View(Order, "order")


def follow_order(run: Run, order_id: str) -> None:
    """Print an order whenever its status or what is filled of it changes, until it is done; follow its replacements.

    The trading stream tells the changes; while there is none, the order is looked at every second. As JSON each state is
    one object; in other formats the states are notices and the last one is the data.

    Raises:
        OrderEnded: it is done, and not filled.
    """
    states = _States(run)
    with run.client() as client, closing(_Updates(run)) as updates:
        order = find_order(order_id, lambda call: _look(run, client, call))
        while True:
            states.show(order)
            while not order.is_terminal and (told := updates.next_of(order)) is not None:
                order = told
                states.show(order)
            next_id = order.id
            if order.status == "replaced" and order.replaced_by:
                next_id = order.replaced_by
            elif order.is_terminal:
                break
            order = _look(run, client, rest.order(next_id, nested=True))
    states.end(order)


def _look(run: Run, client: "AlpacaClient", call: "Call[Order]") -> Order:
    """Read the order, as often as it takes: a broker that cannot be reached has not ended it."""
    while True:
        try:
            return client.read(call, use_cache=False).value
        except AlpacliError as error:
            if not error.retryable and not isinstance(error, BudgetExhausted | CircuitOpen):
                raise
            run.printer.notice(f"{error.message}; trying again")
            run.clock.sleep(error.retry_after or _LOOK_EVERY_S)


class _States:
    """Prints each state of an order once."""

    def __init__(self, run: Run) -> None:
        self._printer = run.printer
        self._as_json = run.options.json or run.options.jq is not None
        self._shown: object = None

    def show(self, order: Order) -> None:
        state = (order.id, order.status, order.filled_qty)
        if state == self._shown:
            return
        self._shown = state
        if self._as_json:
            self._printer.show(_ORDER, order, to_json(order), None)
        else:
            self._printer.notice(f"{order.status}, {_filled(order)}")

    def end(self, order: Order) -> None:
        if not self._as_json:
            self._printer.show(_ORDER, order, to_json(order), None)
        if order.status != "filled":
            raise OrderEnded(
                f"the order ended {order.status}, {_filled(order)}", f"`alpacli order {order.id}` shows it"
            )


def _filled(order: Order) -> str:
    asked = "" if order.qty is None else f" of {plain(order.qty)}"
    return f"{plain(order.filled_qty or Decimal(0))}{asked} filled"


class _Updates:
    """The account's trading stream, in a thread, from when it is first needed."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._heard: SimpleQueue[Order | None] = SimpleQueue()
        self._live = False
        self._thread: threading.Thread | None = None
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def next_of(self, order: Order) -> Order | None:
        """Return the order's next state; ``None`` when it is time to look at it: nobody tells, or something was missed."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._listen, name="alpacli updates", daemon=True)
            self._thread.start()
        until = self._run.clock.monotonic() + (_LOOK_BESIDE_STREAM_S if self._live else _LOOK_EVERY_S)
        while True:
            try:
                heard = self._heard.get(timeout=max(until - self._run.clock.monotonic(), 0.001))
            except Empty:
                return None
            if heard is None:
                return None
            if heard.id == order.id and not _is_older(heard, order):
                return heard

    def close(self) -> None:
        """Leave the stream; the connection stays with those who share it."""
        loop, stop = self._loop, self._stop
        if self._thread is None or loop is None or stop is None:
            return
        try:
            loop.call_soon_threadsafe(stop.set)
        except RuntimeError:
            return  # it is over
        self._thread.join(_LAST_WORDS_S)

    def _listen(self) -> None:
        import asyncio

        try:
            asyncio.run(self._hear())
        except AlpacliError as error:
            self._run.printer.notice(f"no trading stream ({error.message}): looking every {_LOOK_EVERY_S:g} s")
        self._live = False
        self._heard.put(None)

    async def _hear(self) -> None:
        import asyncio

        from alpacli.domain.ticks import Interest
        from alpacli.live import open_source
        from alpacli.streams.client import Stream
        from alpacli.streams.feeds import find_feed

        wanted = Interest({"trade_updates": ["*"]})
        source = open_source(self._run.settings(), find_feed("updates"), wanted)
        stream = Stream(source, wanted, clock=self._run.clock, reconnect=None)
        stream.on_event(self._note)
        self._stop, self._loop = asyncio.Event(), asyncio.get_running_loop()

        async def pass_on() -> None:
            async with stream:
                async for tick in stream:
                    self._tell(tick)

        passing, stopped = asyncio.ensure_future(pass_on()), asyncio.ensure_future(self._stop.wait())
        await asyncio.wait([passing, stopped], return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if passing.done():
            passing.result()
            return
        passing.cancel()
        await asyncio.wait([passing], timeout=_LAST_WORDS_S)

    def _tell(self, tick: Any) -> None:
        try:
            self._heard.put(Order.model_validate(from_json(bytes(tick.order))))
        except (AttributeError, ValueError):
            self._heard.put(None)  # something happened that cannot be read: a look will tell

    def _note(self, event: "Event") -> None:
        from alpacli.streams.events import Gap, Live, Reconnecting

        if isinstance(event, Live | Reconnecting | Gap):
            self._live = isinstance(event, Live) or (self._live and isinstance(event, Gap))
            if self._run.options.verbose:
                self._run.printer.notice(f"trading stream: {type(event).__name__.lower()}")
            self._heard.put(None)


def _is_older(one: Order, other: Order) -> bool:
    """Tell whether a state is of before the other: what was on its way while the order was looked at."""
    if one.updated_at is None or other.updated_at is None:
        return (one.filled_qty or 0) < (other.filled_qty or 0)
    return one.updated_at.epoch_ns < other.updated_at.epoch_ns


def show_unresolved(run: Run) -> None:
    """Ask the broker about every order whose answer was lost, and print what it says.

    Raises:
        FateUnknown: of some of them nobody can say yet.
    """
    view = run.promised(View(list[Unresolved], _table))
    with run.client() as client:
        found = client.trading.unresolved()
    run.show_value(view, found)
    for item in found:
        if item.outcome == "not placed" and item.error is not None:
            run.printer.notice(f"{item.client_order_id} was not placed: {item.error['message']}")
    open_ones = [item for item in found if item.outcome == "unknown"]
    unasked = [item.error for item in open_ones if item.error]
    if unasked:
        raise FateUnknown(
            f"of {len(unasked)} order{'s' * (len(unasked) > 1)} nobody could be asked: {unasked[-1]['message']}",
            f"{unasked[-1]['hint']}; then ask again: nothing is lost",
        )
    if open_ones:
        raise FateUnknown(
            f"of {len(open_ones)} order{'s' * (len(open_ones) > 1)} it is not certain yet that they will not arrive",
            "ask again in two minutes",
        )


def _table(value: list[Unresolved], frame: "Frame") -> "RenderableType":
    from alpacli.render.grid import Column, listing
    from alpacli.render.text import words

    return listing(
        value,
        [
            (Column("Sent (UTC)"), lambda item: item.sent_at[:19].replace("T", " ")),
            (Column("Action", 3), lambda item: words(item.action)),
            (Column("Outcome"), lambda item: words(item.outcome)),
            (Column("Order status", 2), lambda item: words(item.order.status if item.order else None)),
            (Column("Client order ID"), lambda item: words(item.client_order_id)),
            (Column("ID", 5), lambda item: words(item.order.id if item.order else None)),
        ],
        frame,
        empty="Every order that was sent from here has its answer.",
    )
