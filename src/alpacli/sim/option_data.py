"""Market data on options: what their feeds tell, over REST and on sockets, from the prices at which orders are filled.

An option trades about once a minute and is quoted three times in four seconds, when and how much a hash of symbol and time
says; bars of any length are made of those trades. ``*`` stands for what most of the trading is in: of each stock the next
expiration's strikes around the price.
"""

from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import Final

from alpacli.sim import chains, data
from alpacli.sim.answers import SECOND_NS, Json, bad_parameter, timestamp
from alpacli.sim.chains import is_listed
from alpacli.sim.contracts import parse
from alpacli.sim.desk import Desk, Market
from alpacli.sim.feed import Feed, key_of
from alpacli.sim.halts import halts
from alpacli.sim.listing import underlying_of
from alpacli.sim.option_prices import expires_ns
from alpacli.sim.prints import MINUTE_NS, dice_of

MOST_SNAPSHOTS: Final = 1000
EXCHANGES: Final = {"A": "NYSE American Options", "C": "Cboe Options Exchange", "Q": "Nasdaq Options"}
CONDITIONS: Final = {
    "trade": {"I": "AUTO - Automatic Execution", "a": "SLAN - Single Leg Auction Non ISO"},
    "quote": {"A": "Regular, both sides eligible for automatic execution"},
}

_TRADE_SLOT_NS: Final = 30 * SECOND_NS
_QUOTE_SLOT_NS: Final = SECOND_NS
_FARTHEST_BACK: Final = 400
_MOST_MS: Final = 200
_DIGITS: Final = 6
_Message = dict[str, object]


class OptionFeed(Feed):
    """The messages of a market's options. ``now`` says which contracts are listed by the time that somebody asks."""

    def __init__(self, market: Market, now: Callable[[], int]) -> None:
        super().__init__(market.options, market.hours)
        self._market = market
        self._now = now
        self._near: tuple[int, frozenset[str]] = (-1, frozenset())

    def knows(self, symbol: str, *, crypto: bool) -> bool:
        contract = parse(symbol)
        return contract is not None and is_listed(self._market, contract, self._now())

    def symbols(self, *, crypto: bool) -> set[str]:
        minute = self._now() // MINUTE_NS
        if self._near[0] != minute:
            self._near = minute, frozenset(chains.near_the_money(self._market, self._now()))
        return set(self._near[1])

    def trades(self, symbol: str, from_ns: int, until_ns: int) -> list[_Message]:
        moments = self._moments(symbol, "trades", _TRADE_SLOT_NS, from_ns, until_ns)
        return [self._option_trade(symbol, dice, at_ns) for dice, at_ns in moments]

    def quotes(self, symbol: str, from_ns: int, until_ns: int) -> list[_Message]:
        moments = self._moments(symbol, "quotes", _QUOTE_SLOT_NS, from_ns, until_ns)
        return [self._option_quote(symbol, at_ns) for _, at_ns in moments]

    def latest_trade(self, symbol: str, until_ns: int, known_ns: int) -> _Message | None:
        return next(
            (
                self._option_trade(symbol, dice, at_ns)
                for dice, at_ns in self._backward(symbol, "trades", _TRADE_SLOT_NS, until_ns)
            ),
            None,
        )

    def latest_quote(self, symbol: str, until_ns: int) -> _Message | None:
        moments = self._backward(symbol, "quotes", _QUOTE_SLOT_NS, until_ns)
        return next((self._option_quote(symbol, at_ns) for _, at_ns in moments), None)

    def day_so_far(self, symbol: str, until_ns: int, known_ns: int) -> _Message | None:
        raise AssertionError("the feeds of options have no bars")

    def span_work(self, symbol: str, from_ns: int, until_ns: int) -> float:
        return min(super().span_work(symbol, from_ns, until_ns), _MOST_MS)

    def open_spans(
        self, symbol: str, from_ns: int, until_ns: int, *, backward: bool = False, regular: bool = True
    ) -> list[tuple[int, int]]:
        contract = parse(symbol)
        if contract is not None:
            until_ns = min(until_ns, expires_ns(self._hours, contract))
        return super().open_spans(symbol, from_ns, until_ns, backward=backward, regular=True)

    def _moments(
        self, symbol: str, channel: str, slot_ns: int, from_ns: int, until_ns: int
    ) -> Iterator[tuple[int, int]]:
        """Give hash and time of what a channel tells in an interval, oldest first."""
        for slot in range(from_ns // slot_ns, -(-until_ns // slot_ns)):
            found = self._moment_of(symbol, channel, slot_ns, slot)
            if found is not None and from_ns <= found[1] < until_ns:
                yield found

    def _backward(self, symbol: str, channel: str, slot_ns: int, until_ns: int) -> Iterator[tuple[int, int]]:
        """Give the same before a time, latest first, as far back as is worth looking."""
        last = (until_ns - 1) // slot_ns
        for slot in range(last, last - _FARTHEST_BACK, -1):
            found = self._moment_of(symbol, channel, slot_ns, slot)
            if found is not None and found[1] < until_ns:
                yield found

    def _moment_of(self, symbol: str, channel: str, slot_ns: int, slot: int) -> tuple[int, int] | None:
        dice = dice_of(key_of(f"{symbol} {channel}"), slot)
        quiet = dice % 2 if channel == "trades" else dice % 4 == 0
        at_ns = slot * slot_ns + (dice >> 16) % (slot_ns // 1_000_000) * 1_000_000
        return None if quiet or not self._trades_at(symbol, at_ns) else (dice, at_ns)

    def _trades_at(self, symbol: str, at_ns: int) -> bool:
        contract = parse(symbol)
        if contract is None or at_ns >= expires_ns(self._hours, contract) or not self._hours.is_open(at_ns):
            return False
        if self._market.recorded:
            return at_ns >= self._prices.begins_ns(symbol)
        return next(halts(self._hours, underlying_of(contract), at_ns, at_ns + 1), None) is None

    def _option_trade(self, symbol: str, dice: int, at_ns: int) -> _Message:
        price = self._prices.last(symbol, at_ns)
        size = Decimal(1 + (dice >> 40) % 20)
        return {"T": "t", "S": symbol, "p": price, "s": size, "x": "C", "c": "I", "t": at_ns}

    def _option_quote(self, symbol: str, at_ns: int) -> _Message:
        quote = self._prices.quote(symbol, at_ns)
        bid: _Message = {"bx": "C", "bp": quote.bid, "bs": quote.bid_size}
        offer: _Message = {"ax": "C", "ap": quote.ask, "as": quote.ask_size}
        return {"T": "q", "S": symbol, **bid, **offer, "c": "A", "t": at_ns}


def feed_at(desk: Desk) -> OptionFeed:
    return OptionFeed(desk.market, lambda: desk.now_ns)


def check_symbols(symbols: Sequence[str]) -> None:
    for symbol in symbols:
        if parse(symbol) is None:
            raise bad_parameter(f"invalid symbol: {symbol}")


def snapshots(desk: Desk, symbols: Sequence[str], limit: int, token: str, since_ns: int | None) -> dict[str, Json]:
    """Answer with the latest of each contract that is listed and alive, with its sensitivities; in order of symbol."""
    feed, found = feed_at(desk), dict[str, Json]()
    after = data.parse_token(token)
    last = ""
    for symbol in sorted(set(symbols)):
        contract = parse(symbol)
        if contract is None or (after is not None and symbol <= after.symbol) or not feed.knows(symbol, crypto=False):
            continue
        if not chains.tradable(desk.market, contract, desk.now_ns):
            continue
        if len(found) == limit:
            return {"snapshots": found, "next_page_token": data.page_token(last)}
        snapshot = _snapshot(desk, feed, symbol)
        if since_ns is None or _newest(snapshot) >= timestamp(since_ns)[:19]:
            found[symbol] = snapshot
        last = symbol
    return {"snapshots": found, "next_page_token": None}


def _snapshot(desk: Desk, feed: OptionFeed, symbol: str) -> dict[str, Json]:
    contract = parse(symbol)
    if contract is None:
        raise AssertionError("only contracts have snapshots here")
    answer: dict[str, Json] = {}
    for name, channel in (("latestQuote", "quotes"), ("latestTrade", "trades")):
        found = data.latest(desk, channel, [symbol], crypto=False, feed=feed)
        if symbol in found:
            answer[name] = found[symbol]
    sensitivities = desk.market.options.greeks(contract, desk.now_ns)
    if sensitivities is not None:
        answer["greeks"] = {name: round(value, _DIGITS) + 0.0 for name, value in sensitivities._asdict().items()}
        answer["impliedVolatility"] = desk.market.options.volatility_permille(contract) / 1000
    return answer


def _newest(snapshot: dict[str, Json]) -> str:
    """Return the second of the newest member, as text that sorts."""
    members = (snapshot.get(name) for name in ("latestQuote", "latestTrade"))
    return max((str(member["t"])[:19] for member in members if isinstance(member, dict)), default="")
