"""One chain of pages, followed to its end whatever happens on the way.

What a chain meets: a 429 in its middle, a budget that is spent, a token that has expired, a page that comes twice, a token
that leads in a circle. The first three are waited out, or taken up again at the last row that is certain; the others are
found by comparing each page with the one before.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from alpacli.domain.arrows import integers
from alpacli.domain.batches import between, first_and_last_ns, joined
from alpacli.domain.series import Series, Span
from alpacli.errors import AlpacaAPIError, AlpacliError, BudgetExhausted, RateLimited, UnreadableAnswer
from alpacli.ports import Clock
from alpacli.wire.columns import Page, page
from alpacli.wire.rest import Call

if TYPE_CHECKING:
    import pyarrow

T = TypeVar("T")
Read = Callable[[Call[Any]], Any]

_LONGEST_PAUSE_S: Final = 60.0
_MOST_PAUSES: Final = 30


class Interrupted(AlpacliError):
    """Nobody waits for the rest any more."""


class Step(NamedTuple):
    """Everything of a symbol up to, not including, ``until_ns`` is known; ``table`` is what is new, oldest first."""

    symbol: str
    table: "pyarrow.Table | None"
    until_ns: int


class Follower:
    """Follows chains for one reader. ``patient``: a spent budget is waited for, however long that takes."""

    def __init__(self, read: Read, clock: Clock, *, patient: bool, stopped: Callable[[], bool] = lambda: False) -> None:
        self._read = read
        self._clock = clock
        self._patient = patient
        self._stopped = stopped
        self.pages = 0

    def ask(self, call: Call[T]) -> T:
        """Read one page, waiting for the budget as long as it takes.

        Raises:
            AlpacliError: whatever else the client raises.
        """
        pauses = 0
        while True:
            if self._stopped():
                raise Interrupted("the download was stopped")
            try:
                answer: T = self._read(call)
            except (BudgetExhausted, RateLimited) as error:
                pauses += 1
                if not self._patient or pauses > _MOST_PAUSES:
                    raise
                told_s = error.retry_after
                self._rest(min(max(told_s if told_s is not None else float(pauses), 0.05), _LONGEST_PAUSE_S))
            else:
                self.pages += 1
                return answer

    def _rest(self, seconds: float) -> None:
        until = self._clock.monotonic() + seconds
        while (left := until - self._clock.monotonic()) > 0 and not self._stopped():
            self._clock.sleep(min(left, 0.25))

    def follow(self, series: Series, symbols: Sequence[str], span: Span, most: int) -> Iterator[Step]:
        """Give the rows of an interval of some symbols, by symbol; ``most`` is the size of a page.

        Raises:
            UnreadableAnswer: the pages do not go on.
            AlpacliError: as ``ask``; what was given until then is complete.
        """
        jobs: deque[tuple[list[str], Span]] = deque([(sorted(symbols), span)])
        while jobs:
            names, within = jobs.popleft()
            chain = _Chain(names, within)
            token: str | None = None
            while True:
                try:
                    found = self.ask(page(series, names, within, limit=most, token=token))
                except AlpacaAPIError as error:
                    if token is None or error.status not in (400, 404, 410, 422) or not chain.moved:
                        raise
                    jobs.extendleft(reversed(chain.rest()))  # the token has expired: go on without it
                    break
                yield from chain.take(found, once=series.kind == "bars")
                if found.token is None:
                    yield from chain.end()
                    break
                chain.check_token(found.token)
                token = found.token


class _Chain:
    """What has come of a chain so far, and what is held back of it."""

    def __init__(self, names: list[str], within: Span) -> None:
        self._names = names
        self._within = within
        self._place = 0  # which symbol is being filled
        self._at = within[0]
        self._held: pyarrow.Table | None = None
        self._before: list[tuple[str, pyarrow.Table]] = []
        self._tokens: set[str] = set()
        self.moved = False

    def check_token(self, token: str) -> None:
        if token in self._tokens:
            raise UnreadableAnswer(
                "the server's pages lead in a circle: a page is missing",
                "what came until there is kept; try again later",
            )
        self._tokens.add(token)

    def take(self, found: Page, *, once: bool) -> Iterator[Step]:
        """Give what a page makes certain. ``once``: each time has one row, so a second one is the first again."""
        if found.tables and _same(found.tables, self._before):
            return  # the page came twice
        self._before = found.tables
        for symbol, table in sorted(found.tables, key=lambda pair: pair[0]):
            if symbol not in self._names:
                raise UnreadableAnswer(f"the server sent {symbol}, which was not asked for", "try again later")
            place = self._names.index(symbol)
            if place < self._place:
                continue  # a page from before: this symbol is complete
            while self._place < place:
                yield self._close()
            yield from self._add(symbol, table, once=once)

    def _add(self, symbol: str, table: "pyarrow.Table", *, once: bool) -> Iterator[Step]:
        low, last_ns = first_and_last_ns(table)
        if low > last_ns:
            raise UnreadableAnswer("the rows of the market data are not in order of time", "try again later")
        after_ns = self._at
        if self._held is not None:
            after_ns = first_and_last_ns(self._held)[1]
            table = (
                self._after_held(table, after_ns, low) if not once else between(table, after_ns + 1, self._within[1])
            )
        table = between(table, after_ns, self._within[1])
        if not table.num_rows:
            return
        whole = table if self._held is None else joined([self._held, table])
        last_ns = first_and_last_ns(whole)[1]
        certain = between(whole, self._at, last_ns)
        self._held = between(whole, last_ns, last_ns + 1)
        if last_ns > self._at:
            self._at = last_ns
            self.moved = True
            yield Step(symbol, certain, last_ns)

    def _after_held(self, table: "pyarrow.Table", at_ns: int, low_ns: int) -> "pyarrow.Table":
        """Return a page of ticks without what is held back of their last moment already, at which more of them may follow.

        A page that begins before that moment has it from its start, and whichever has more rows of it has all that came so
        far. One that begins with it goes on, and says which trades it repeats by their ids.
        """
        held = self._held
        assert held is not None  # noqa: S101 # only called then
        same = between(table, at_ns, at_ns + 1)
        if low_ns < at_ns:
            if same.num_rows < held.num_rows:
                return between(table, at_ns + 1, self._within[1])
            self._held = None
            return table
        if "id" not in table.column_names or not same.num_rows:
            return table
        known = set(_trade_ids(held)) - {None}
        fresh = [place for place, key in enumerate(_trade_ids(same)) if key is None or key not in known]
        return joined([same.take(integers(fresh)), between(table, at_ns + 1, self._within[1])])

    def _close(self) -> Step:
        """Finish the symbol that is being filled: all of its rows have come."""
        step = Step(self._names[self._place], self._held, self._within[1])
        self._place += 1
        self._at, self._held = self._within[0], None
        self.moved = True
        return step

    def end(self) -> Iterator[Step]:
        while self._place < len(self._names):
            yield self._close()

    def rest(self) -> list[tuple[list[str], Span]]:
        """Return what is still to be asked for."""
        jobs = [([self._names[self._place]], (self._at, self._within[1]))]
        others = self._names[self._place + 1 :]
        return jobs + ([(others, self._within)] if others else [])


def _trade_ids(table: "pyarrow.Table") -> list[tuple[Any, ...] | None]:
    """Return what tells trades of one moment apart: the exchange, its id, and whether it corrects an earlier report."""
    exchanges = table["exchange"].to_pylist()
    keys = zip(table["id"].to_pylist(), exchanges, table["update"].to_pylist(), strict=True)
    return [None if key[0] is None else key for key in keys]


def _same(these: "list[tuple[str, pyarrow.Table]]", those: "list[tuple[str, pyarrow.Table]]") -> bool:
    return len(these) == len(those) and all(
        a[0] == b[0] and a[1].num_rows == b[1].num_rows and a[1].equals(b[1]) for a, b in zip(these, those, strict=True)
    )
