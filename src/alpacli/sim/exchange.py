"""The exchange itself: its market, its accounts, and the desk at which one account is served.

Each key pair is an account of its own, made when first seen; only a hash of the pair is kept. The key id ``SIM`` is the
account of the in-process transport, whatever the secret. An account's book is read from the state file once, and again when
another process has written to the file since, so processes that share it never disagree (ADR 19).
"""

import hashlib
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from decimal import Decimal
from functools import lru_cache
from types import TracebackType
from typing import Final, NamedTuple, cast

from alpacli.errors import ConfigError, UsageError
from alpacli.ports import Clock
from alpacli.sim import events
from alpacli.sim.amendments import AmendedFeed
from alpacli.sim.answers import SECOND_NS, Refusal, identifier
from alpacli.sim.book import Book, Serial
from alpacli.sim.desk import NO_STRAIN, Desk, Market, Strain
from alpacli.sim.hours import AlwaysOpen, Hours, HoursName, Nyse, Session, nyse_sessions
from alpacli.sim.ledger import holdings, transfer, worth
from alpacli.sim.option_prices import OptionPrices
from alpacli.sim.state import Meta, MetaWatch, State, name_run, read_meta, read_run
from alpacli.sim.tape import Tape

LOCAL_KEY_ID: Final = "SIM"
DEFAULT_SEED: Final = 2026
DEFAULT_CASH: Final = Decimal(100_000)
DEFAULT_RATE_LIMIT: Final = 200
_MOST_CASH: Final = 10**12
_WINDOW_S: Final = 60


class Admission(NamedTuple):
    """The account that a key pair opens, and its place in the rate limit. ``limit`` 0 means that none is enforced."""

    number: int
    limit: int
    remaining: int
    reset_s: int
    request_id: str
    allowed: bool


class AccountStatus(NamedTuple):
    number: int
    label: str
    account_number: str
    created_ns: int
    equity: Decimal
    positions: int
    orders: int


class SimStatus(NamedTuple):
    """The exchange as ``alpacli sim status`` shows it."""

    path: str
    seed: int
    hours: HoursName
    cash: Decimal
    rate_limit: int
    strain: Strain
    is_open: bool
    now_ns: int
    accounts: tuple[AccountStatus, ...]


class Exchange:
    """The offline paper exchange of one state directory, or without one an exchange in memory. Thread-safe.

    ``market`` stands in for the computed one that the state names: one that was recorded.

    Raises:
        ConfigError: the state file cannot be used.
    """

    def __init__(self, state_dir: str | None, clock: Clock, market: Market | None = None) -> None:
        self._clock = clock
        self._own_market = market
        self._state = State(state_dir, Meta(DEFAULT_SEED, "always", str(DEFAULT_CASH), DEFAULT_RATE_LIMIT))
        self._markets: dict[Meta, Market] = {}
        self._shared = state_dir is not None
        self._version: tuple[sqlite3.Connection, int] | None = None
        self._known: Meta | None = None
        self._known_market: Market | None = None
        self._books: dict[int, Book] = {}
        self._numbers: dict[str, int] = {}
        self._serial: Serial | None = None
        self._watch = MetaWatch(state_dir) if state_dir is not None else None

    def now_ns(self) -> int:
        return round(self._clock.time() * 1_000_000) * 1000

    def admit(self, key_id: str, secret: str) -> Admission:
        """Find or make the account of a key pair and count one request of it."""
        with _Writing(self) as db:
            return self._admit(db, key_id, secret)

    @contextmanager
    def visit(self, key_id: str, secret: str, *, wait: bool = True) -> Iterator[tuple[Admission, Desk | None]]:
        """Count a request that may change something, and open the desk for it, in one transaction.

        There is no desk where the request is not allowed. A ``Refusal`` undoes what was changed at the desk, not that the
        request was counted.

        Raises:
            Busy: another transaction runs, and ``wait`` is false; nothing was counted.
        """
        refusal: Refusal | None = None
        with _Writing(self, wait=wait) as db:
            admission = self._admit(db, key_id, secret)
            book = self._book(db, admission.number)
            desk = self._settled(db, book) if admission.allowed else None
            db.execute("SAVEPOINT request")
            mark = book.mark()
            try:
                yield admission, desk
            except Refusal as error:
                db.execute("ROLLBACK TO request")
                book.undo(mark)
                refusal = error
        if refusal is not None:
            raise refusal

    def _admit(self, db: sqlite3.Connection, key_id: str, secret: str) -> Admission:
        identity = _identity(key_id, secret)
        now_ns = self.now_ns()
        window_s = now_ns // SECOND_NS // _WINDOW_S * _WINDOW_S
        meta = self._meta(db)
        number = self._number(db, identity, _label(key_id), meta, now_ns)
        book = self._book(db, number)
        used = book.window_used if book.window_s == window_s else 0
        allowed = not meta.rate_limit or used < meta.rate_limit
        used += allowed
        book.count_request(window_s, used)
        remaining = max(meta.rate_limit - used, 0)
        request_id = identifier("request", identity, book.requests).replace("-", "")
        return Admission(number, meta.rate_limit, remaining, window_s + _WINDOW_S, request_id, allowed)

    def turn_away(self) -> Admission:
        """Return the headers' worth of an admission for a request that names no account."""
        now_ns = self.now_ns()
        with self._reading() as db:
            limit = self._meta(db).rate_limit
        reset_s = (now_ns // SECOND_NS // _WINDOW_S + 1) * _WINDOW_S
        return Admission(0, limit, limit, reset_s, identifier("nobody", now_ns).replace("-", ""), allowed=False)

    def desk(self, number: int, *, changes: bool) -> AbstractContextManager[Desk]:
        """Open a transaction at an account's desk; a ``Refusal`` undoes what was changed.

        Open orders have met the market until this moment. Where nothing was due, a reader holds up no writer.
        """
        return _Sitting(self, number) if changes else self._inspection(number)

    @contextmanager
    def _inspection(self, number: int) -> Iterator[Desk]:
        with self._reading() as db:
            now_ns = self.now_ns()
            book = self._book(db, number)
            if not book.is_due(now_ns):
                yield Desk(book, self._market(db, self._meta(db)), now_ns)
                return
        with _Sitting(self, number) as desk:
            yield desk

    def seat(self, db: sqlite3.Connection, number: int) -> Desk:
        """Return an account's desk within a transaction, where open orders have met the market until now."""
        return self._settled(db, self._book(db, number))

    def catch_up(self, number: int) -> None:
        """Let an account's open orders meet the market until now."""
        with self._reading() as db:
            due = self._book(db, number).is_due(self.now_ns())
        if due:
            with _Writing(self) as db:
                self._settled(db, self._book(db, number))

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._state.read() as db:
            self._look(db)
            yield db

    def begin(self, *, wait: bool = True) -> sqlite3.Connection:
        """Begin a transaction that may change books, which ``end`` has to end.

        Raises:
            Busy: another transaction runs, and ``wait`` is false.
        """
        try:
            db = self._state.begin(wait=wait)
            try:
                self._look(db)
                for book in self._books.values():
                    book.begin()
            except BaseException as error:
                self._state.end(error)
                raise
        except ConfigError:
            self._forget()
            raise
        return db

    def end(self, error: BaseException | None) -> None:
        """End a transaction: an exception undoes all of it, in the books too."""
        try:
            if error is not None:
                for book in self._books.values():
                    book.undo()
            elif self._shared:
                try:
                    for book in self._books.values():
                        book.write()
                except sqlite3.Error as failed:
                    error = failed
            self._state.end(error)
        except ConfigError:  # SQLite could not: what it has is what counts
            self._forget()
            raise

    def _look(self, db: sqlite3.Connection) -> None:
        """Forget what is known of the file when another process has changed anything in it."""
        if self._shared:
            version = db, db.execute("PRAGMA data_version").fetchone()[0]
            if version != self._version:
                self._forget()
                self._version = version

    def _forget(self) -> None:
        self._books.clear()
        self._numbers.clear()
        self._known = self._known_market = self._serial = self._version = None

    def _book(self, db: sqlite3.Connection, number: int) -> Book:
        book = self._books.get(number)
        if book is None:
            if self._serial is None:
                self._serial = Serial(db)
            book = self._books[number] = Book(db, number, self._serial)
        return book

    def _written(self, db: sqlite3.Connection) -> sqlite3.Connection:
        """Return the tables when they know of everything."""
        for book in self._books.values():
            book.write()
        return db

    def _settled(self, db: sqlite3.Connection, book: Book) -> Desk:
        now_ns = self.now_ns()
        desk = Desk(book, self._market(db, self._meta(db)), now_ns)
        if book.is_due(now_ns):
            _settle()(desk)
        return desk

    def _meta(self, db: sqlite3.Connection) -> Meta:
        """Return what the last reset decided."""
        if self._known is None:
            self._known = read_meta(db)
        return self._known

    def market(self) -> Market:
        """Return the market as it is now; a reset makes another one."""
        with self._reading() as db:
            return self._market(db, self._meta(db))

    def has_other_market(self, market: Market) -> bool:
        """Tell whether the exchange was reset to another market, by whichever process. Waits for nothing."""
        if self._watch is None:  # nobody else knows it
            return False
        meta = self._watch.read()
        return meta is not None and self._markets.get(_of_market(meta)) is not market

    def account_number(self, key_id: str, secret: str = "") -> int:
        """Return the number of a key pair's account, opening it when it is new, without counting a request."""
        identity = _identity(key_id, secret)
        with _Writing(self) as db:
            return self._number(db, identity, _label(key_id), self._meta(db), self.now_ns())

    def _number(self, db: sqlite3.Connection, identity: str, label: str, meta: Meta, now_ns: int) -> int:
        known = self._numbers.get(identity)
        if known is None:
            row = db.execute("SELECT number FROM accounts WHERE identity = ?", (identity,)).fetchone()
            if row is None:  # not kept: the transaction that opens it may yet be undone
                return self._open_account(db, identity, label, meta, now_ns)
            known = self._numbers[identity] = row["number"]
        return known

    def has_accounts(self) -> bool:
        """Tell whether anything can have happened here: everything that does happens to an account."""
        with self._state.read() as db:
            return db.execute("SELECT 1 FROM accounts LIMIT 1").fetchone() is not None

    def run(self) -> str:
        """Return the name of this run of the exchange: random, from when the state was made or reset to the next reset."""
        with self._state.read() as db:
            found = read_run(db)
        if found is not None:
            return found
        with self._state.write() as db:  # a file from before runs had names
            name_run(db)
            return read_run(db) or ""

    def newest_event(self) -> int:
        """Return the place in the record of events after which nothing has happened yet."""
        with self._state.read() as db:
            return events.newest(self._written(db))

    def events_after(self, number: int, seq: int) -> list[events.Event] | None:
        """Return what happened to an account's orders since; ``None`` when a reset took the account away."""
        with suppress(Refusal):  # no such account any more
            self.catch_up(number)
        with self._reading() as db:
            return events.after(self._written(db), self._market(db, self._meta(db)), number, seq)

    def reset(
        self,
        *,
        seed: int | None = None,
        hours: HoursName | None = None,
        cash: Decimal | None = None,
        rate_limit: int | None = None,
        strain: Strain = NO_STRAIN,
    ) -> SimStatus:
        """Forget every account and begin again; what is not given takes its default."""
        meta = Meta(
            DEFAULT_SEED if seed is None else seed,
            hours or "always",
            str(DEFAULT_CASH if cash is None else cash),
            DEFAULT_RATE_LIMIT if rate_limit is None else rate_limit,
            *_as_meta(strain),
        )
        amount = Decimal(meta.cash)
        if not amount.is_finite() or not 0 <= amount <= _MOST_CASH or meta.rate_limit < 0:
            raise UsageError(
                f"an account cannot begin with {meta.cash} USD and {meta.rate_limit} requests a minute",
                f"give an amount from 0 to {_MOST_CASH} USD, and a limit of at least 0",
            )
        self._state.clear(meta, nyse_sessions() if hours == "xnys" else ())
        self._forget()
        return self.status()

    def empty(self) -> SimStatus:
        """Forget every account, and keep the market as it is: seed, hours, cash of new accounts, and rate limit."""
        with self._state.read() as db:
            meta, sessions = read_meta(db), [tuple(row) for row in db.execute("SELECT * FROM sessions ORDER BY day")]
        self._state.clear(meta, sessions)
        self._forget()
        return self.status()

    def status(self) -> SimStatus:
        with self._state.read() as db:
            numbers = [row["number"] for row in db.execute("SELECT number FROM accounts")]
        for number in numbers:
            with suppress(Refusal):  # another process has just reset the exchange
                self.catch_up(number)
        now_ns = self.now_ns()
        with self._reading() as db:
            self._written(db)
            meta = self._meta(db)
            market = self._market(db, meta)
            accounts = []
            for row in db.execute("SELECT * FROM accounts ORDER BY number").fetchall():
                held = {symbol: holding.qty for symbol, holding in holdings(self._book(db, row["number"])).items()}
                value = worth(market.tape, held, now_ns)
                orders = db.execute("SELECT count(*) FROM orders WHERE account = ?", (row["number"],)).fetchone()[0]
                accounts.append(
                    AccountStatus(
                        row["number"],
                        row["label"],
                        row["account_number"],
                        row["created_ns"],
                        Decimal(row["cash"]) + value.long + value.short,
                        len(held),
                        orders,
                    )
                )
        return SimStatus(
            self._state.path,
            meta.seed,
            cast("HoursName", meta.hours),
            Decimal(meta.cash),
            meta.rate_limit,
            market.strain,
            market.hours.is_open(now_ns),
            now_ns,
            tuple(accounts),
        )

    def close(self) -> None:
        if self._watch is not None:
            self._watch.close()
        self._state.close()

    def _market(self, db: sqlite3.Connection, meta: Meta) -> Market:
        if self._known_market is None:
            self._known_market = self._own_market or self._market_of(db, meta)
        return self._known_market

    def _market_of(self, db: sqlite3.Connection, meta: Meta) -> Market:
        meta = _of_market(meta)
        market = self._markets.get(meta)
        if market is None:
            hours: Hours = AlwaysOpen()
            if meta.hours == "xnys":
                rows = db.execute("SELECT day, open_ns, close_ns FROM sessions ORDER BY day").fetchall()
                hours = Nyse([Session(*row) for row in rows])
            strain = Strain(meta.latency_ms * 1_000_000, Decimal(meta.slippage_bps), Decimal(meta.reject_rate))
            tape = Tape(meta.seed, hours)
            prices = OptionPrices(tape, hours, meta.seed)
            market = self._markets[meta] = Market(prices, AmendedFeed(tape, hours), hours, meta.seed, strain)
        return market

    def _open_account(self, db: sqlite3.Connection, identity: str, label: str, meta: Meta, now_ns: int) -> int:
        number = db.execute(
            "INSERT INTO accounts (identity, label, id, account_number, created_ns, cash) VALUES (?, ?, ?, ?, ?, '0')",
            (identity, label, identifier("account", identity), f"PA{identity[:10].upper()}", now_ns),
        ).lastrowid
        if number is None:
            raise AssertionError("SQLite names every row it inserts")
        transfer(db, number, "JNLC", Decimal(meta.cash), now_ns, "initial paper balance")
        return number


@lru_cache(maxsize=1)
def _settle() -> Callable[[Desk], None]:
    """Return the engine's ``settle``. Who finds nothing due does not load the engine; who does asks for every order."""
    from alpacli.sim.engine import settle

    return settle


class _Writing:
    """A transaction of an exchange that may change books; an object and not a generator, because every order is one."""

    __slots__ = ("_exchange", "_wait")

    def __init__(self, exchange: Exchange, *, wait: bool = True) -> None:
        self._exchange = exchange
        self._wait = wait

    def __enter__(self) -> sqlite3.Connection:
        return self._exchange.begin(wait=self._wait)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exchange.end(error)


class _Sitting:
    """A transaction at one account's desk; an object for the same reason."""

    __slots__ = ("_exchange", "_number")

    def __init__(self, exchange: Exchange, number: int) -> None:
        self._exchange = exchange
        self._number = number

    def __enter__(self) -> Desk:
        db = self._exchange.begin()
        try:
            return self._exchange.seat(db, self._number)
        except BaseException as error:
            self._exchange.end(error)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exchange.end(error)


def _of_market(meta: Meta) -> Meta:
    """Leave out what is no part of the market."""
    return meta._replace(cash="", rate_limit=0)


def _as_meta(strain: Strain) -> tuple[int, str, str]:
    latency_ms = strain.latency_ns // 1_000_000
    bps, rate = strain.slippage_bps, strain.reject_rate
    if not (0 <= latency_ms <= 60_000 and bps.is_finite() and 0 <= bps <= 1000 and rate.is_finite() and 0 <= rate <= 1):
        raise UsageError(
            f"a market cannot have {latency_ms} ms latency, {bps} basis points slippage and refuse a share of {rate}",
            "latency goes to 60000 ms, slippage to 1000 basis points, and the share refused from 0 to 1",
        )
    return latency_ms, str(bps), str(rate)


def _identity(key_id: str, secret: str) -> str:
    pair = key_id if key_id == LOCAL_KEY_ID else f"{key_id}\x1f{secret}"
    return hashlib.blake2b(pair.encode(), digest_size=16, person=b"alpacli sim").hexdigest()


def _label(key_id: str) -> str:
    """Name an account for people without keeping its key id."""
    return key_id if key_id == LOCAL_KEY_ID else f"{key_id[:2]}…{key_id[-2:]}" if len(key_id) > 8 else "key pair"
