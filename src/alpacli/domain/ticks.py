"""What a stream delivers: one small struct per kind of message, under the names that alpacli prints.

Numbers are kept as the text that came (``price_json``), because converting a hundred thousand of them a second costs more
than everything else, and most are only passed on; ``price`` makes a ``Decimal`` of it when asked. ``timestamp`` is RFC 3339
in UTC with nine digits. Sizes of equities are shares. A field that the feed does not send is ``UNSET`` (numbers: ``None``).

Source: "Real-time Data", pages "Real-time Stock Data", "Real-time Crypto Data", "Real-time Option Data", "Real-time News".
"""

import datetime as dt
from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import ClassVar, Final, get_args

from msgspec import UNSET, Raw, Struct, UnsetType, field

Text = str | UnsetType
Json = Raw | UnsetType

CHANNELS: Final = (
    *("trades", "quotes", "bars", "updatedBars", "dailyBars", "statuses", "lulds", "corrections", "cancelErrors"),
    *("imbalances", "orderbooks", "news"),
)
"""Every list that a subscription can name, by Alpaca's names."""

CHANNEL_OF: Final[Mapping[str, str]] = {
    "trade": "trades",
    "quote": "quotes",
    "bar": "bars",
    "updated_bar": "updatedBars",
    "daily_bar": "dailyBars",
    "status": "statuses",
    "luld": "lulds",
    "correction": "corrections",
    "cancel": "cancelErrors",
    "imbalance": "imbalances",
    "orderbook": "orderbooks",
    "news": "news",
    "trade_update": "trade_updates",
}
"""The list in a subscription that each ``type`` of message comes from."""


class Number:
    """The ``Decimal`` of the text in ``NAME_json``, with every digit that came.

    Raises:
        ValueError: (when read) it is not a number.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._json = f"{name}_json"

    def __get__(self, tick: object, owner: type) -> Decimal:
        return decimal(getattr(tick, self._json))


class MaybeNumber(Number):
    """The same, ``None`` where the feed did not send it."""

    def __get__(self, tick: object, owner: type) -> Decimal | None:  # type: ignore[override] # that is the difference
        return None if getattr(tick, self._json) is UNSET else decimal(getattr(tick, self._json))


def _shown(message: Struct) -> str:
    """Return what came, for people: numbers with the digits that came, and nothing of what the feed does not send."""
    fields = []
    for name in message.__struct_fields__:
        value = getattr(message, name)
        if value is not UNSET:
            text = bytes(value).decode(errors="replace") if isinstance(value, Raw) else repr(value)
            fields.append(f"{name.removesuffix('_json')}={text}")
    return f"{type(message).__name__}({', '.join(fields)})"


class Tick(Struct, gc=False):
    """What every message has. ``type`` is also the JSON field that tells them apart."""

    __repr__ = _shown

    type: ClassVar[str] = ""

    symbol: str
    timestamp: str

    @property
    def at_ns(self) -> int:
        """Return the exchange's time in nanoseconds since 1970 UTC.

        Raises:
            ValueError: the timestamp is not one.
        """
        return instant_ns(self.timestamp)

    @property
    def at(self) -> dt.datetime:
        """Return the exchange's time, aware, in UTC, cut off to microseconds."""
        seconds, nanoseconds = divmod(self.at_ns, 1_000_000_000)
        return dt.datetime.fromtimestamp(seconds, dt.UTC).replace(microsecond=nanoseconds // 1000)


class Trade(Tick, tag_field="type", tag="trade", gc=False):
    """One execution. ``taker_side`` (``B``/``S``) is crypto's; ``conditions`` and ``tape`` are not."""

    type: ClassVar[str] = "trade"

    price_json: Raw = field(name="price")
    size_json: Raw = field(name="size")
    exchange: Text = UNSET
    id_json: Json = field(name="id", default=UNSET)
    conditions: Json = UNSET
    tape: Text = UNSET
    taker_side: Text = UNSET

    price = Number()
    size = Number()

    @property
    def id(self) -> str | None:
        """Return the exchange's trade id; unique for one symbol, exchange and day."""
        return None if self.id_json is UNSET else bytes(self.id_json).decode().strip('"')


class Quote(Tick, tag_field="type", tag="quote", gc=False):
    """The best bid and ask of the feed. A price of 0 means that nobody stands on that side."""

    type: ClassVar[str] = "quote"

    bid_price_json: Raw = field(name="bid_price")
    bid_size_json: Raw = field(name="bid_size")
    ask_price_json: Raw = field(name="ask_price")
    ask_size_json: Raw = field(name="ask_size")
    bid_exchange: Text = UNSET
    ask_exchange: Text = UNSET
    conditions: Json = UNSET
    tape: Text = UNSET

    bid_price = Number()
    bid_size = Number()
    ask_price = Number()
    ask_size = Number()


class Bar(Tick, tag_field="type", tag="bar", gc=False):
    """A minute; ``timestamp`` is its start. Comes right after the minute ends, and not at all when nothing traded."""

    type: ClassVar[str] = "bar"

    open_json: Raw = field(name="open")
    high_json: Raw = field(name="high")
    low_json: Raw = field(name="low")
    close_json: Raw = field(name="close")
    volume_json: Raw = field(name="volume")
    trade_count_json: Json = field(name="trade_count", default=UNSET)
    vwap_json: Json = field(name="vwap", default=UNSET)

    open = Number()
    high = Number()
    low = Number()
    close = Number()
    volume = Number()

    @property
    def trade_count(self) -> int | None:
        """Return how many trades made this bar; ``None`` where the feed did not send it."""
        return None if self.trade_count_json is UNSET else int(decimal(self.trade_count_json))

    vwap = MaybeNumber()


class UpdatedBar(Bar, tag_field="type", tag="updated_bar", gc=False):
    """A minute again, because trades came late; about half a minute after the first."""

    type: ClassVar[str] = "updated_bar"


class DailyBar(Bar, tag_field="type", tag="daily_bar", gc=False):
    """The day so far, every minute after the open."""

    type: ClassVar[str] = "daily_bar"


class Status(Tick, tag_field="type", tag="status", gc=False):
    """A trading halt, resumption and the like; codes are the tape's own (CTA: A and B, UTP: C)."""

    type: ClassVar[str] = "status"

    status_code: Text = UNSET
    status_message: Text = UNSET
    reason_code: Text = UNSET
    reason_message: Text = UNSET
    tape: Text = UNSET


class Luld(Tick, tag_field="type", tag="luld", gc=False):
    """The limit-up limit-down band."""

    type: ClassVar[str] = "luld"

    limit_up_price_json: Raw = field(name="limit_up_price")
    limit_down_price_json: Raw = field(name="limit_down_price")
    indicator: Text = UNSET
    tape: Text = UNSET

    limit_up_price = Number()
    limit_down_price = Number()


class Correction(Tick, tag_field="type", tag="correction", gc=False):
    """A trade that was reported wrongly, and how it should have been. Comes with ``trades``."""

    type: ClassVar[str] = "correction"

    original_id_json: Json = field(name="original_id", default=UNSET)
    original_price_json: Json = field(name="original_price", default=UNSET)
    original_size_json: Json = field(name="original_size", default=UNSET)
    original_conditions: Json = UNSET
    corrected_id_json: Json = field(name="corrected_id", default=UNSET)
    corrected_price_json: Json = field(name="corrected_price", default=UNSET)
    corrected_size_json: Json = field(name="corrected_size", default=UNSET)
    corrected_conditions: Json = UNSET
    exchange: Text = UNSET
    tape: Text = UNSET


class Cancel(Tick, tag_field="type", tag="cancel", gc=False):
    """A trade that did not count: ``action`` ``C`` canceled, ``E`` error. Comes with ``trades``."""

    type: ClassVar[str] = "cancel"

    price_json: Json = field(name="price", default=UNSET)
    size_json: Json = field(name="size", default=UNSET)
    exchange: Text = UNSET
    id_json: Json = field(name="id", default=UNSET)
    action: Text = UNSET
    tape: Text = UNSET


class Imbalance(Tick, tag_field="type", tag="imbalance", gc=False):
    """An order imbalance before an auction or after a halt."""

    type: ClassVar[str] = "imbalance"

    price_json: Json = field(name="price", default=UNSET)
    tape: Text = UNSET


class Level(Struct, gc=False):
    """One price of an order book; size 0 removes it."""

    __repr__ = _shown

    price_json: Raw = field(name="price")
    size_json: Raw = field(name="size")

    price = Number()
    size = Number()


class OrderBook(Tick, tag_field="type", tag="orderbook"):
    """Changed levels of a coin's book, or with ``reset`` the whole book."""

    type: ClassVar[str] = "orderbook"

    bids: list[Level] = []
    asks: list[Level] = []
    reset: bool = False


class News(Struct, tag_field="type", tag="news"):
    """An article; about any number of ``symbols``, and times as the feed wrote them."""

    __repr__ = _shown

    type: ClassVar[str] = "news"
    symbol: ClassVar[str] = "*"

    id_json: Raw = field(name="id")
    headline: str
    symbols: list[str] = []
    created_at: Text = UNSET
    updated_at: Text = UNSET
    author: str | UnsetType | None = UNSET
    summary: str | UnsetType | None = UNSET
    content: str | UnsetType | None = UNSET
    url: str | UnsetType | None = UNSET
    source: str | UnsetType | None = UNSET

    @property
    def timestamp(self) -> str:
        """Return when it was last changed, else when it was made."""
        return self.updated_at or self.created_at or ""


class TradeUpdate(Struct, tag_field="type", tag="trade_update"):
    """Something happened to an order of one's own; ``order`` is the whole order as JSON after it.

    Source: "Trade Updates" of the Trading API's websocket streaming page.
    """

    __repr__ = _shown

    type: ClassVar[str] = "trade_update"

    event: str
    symbol: str
    order: Raw
    timestamp: Text = UNSET
    execution_id: Text = UNSET
    price_json: Json = field(name="price", default=UNSET)
    qty_json: Json = field(name="qty", default=UNSET)
    position_qty_json: Json = field(name="position_qty", default=UNSET)

    price = MaybeNumber()
    """The price of this execution; only fills have one."""

    qty = MaybeNumber()
    """How much this execution filled; only fills have one."""

    position_qty = MaybeNumber()
    """The position after this execution, negative when short; only fills have one."""


AnyTick = (
    Trade
    | Quote
    | Bar
    | UpdatedBar
    | DailyBar
    | Status
    | Luld
    | Correction
    | Cancel
    | Imbalance
    | OrderBook
    | News
    | TradeUpdate
)


def fields_of(channels: Iterable[str]) -> list[str]:
    """Return the fields that messages of these lists can have, in their order; of every list where none is named."""
    names = set(channels) or set(CHANNELS) | {"trade_updates"}
    if "trades" in names:
        names |= {"corrections", "cancelErrors"}  # these come with them
    kinds = [kind for kind in get_args(AnyTick) if CHANNEL_OF[kind.type] in names]
    return list(dict.fromkeys(["type", *(name for kind in kinds for name in kind.__struct_encode_fields__)]))


class Interest:
    """What somebody wants to hear: symbols by channel (``{"trades": {"AAPL"}}``); ``*`` is every symbol of a channel."""

    __slots__ = ("channels",)

    def __init__(self, channels: Mapping[str, Iterable[str]] | None = None) -> None:
        self.channels: dict[str, frozenset[str]] = {
            name: frozenset(symbols) for name, symbols in (channels or {}).items() if symbols
        }

    def __or__(self, other: "Interest") -> "Interest":
        names = self.channels.keys() | other.channels.keys()
        empty: frozenset[str] = frozenset()
        return Interest({n: self.channels.get(n, empty) | other.channels.get(n, empty) for n in names})

    def __sub__(self, other: "Interest") -> "Interest":
        empty: frozenset[str] = frozenset()
        return Interest({name: symbols - other.channels.get(name, empty) for name, symbols in self.channels.items()})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Interest) and other.channels == self.channels

    def __hash__(self) -> int:
        return hash(frozenset(self.channels.items()))

    def __bool__(self) -> bool:
        return bool(self.channels)

    def __repr__(self) -> str:
        return f"Interest({self.as_dict()})"

    def wants(self, kind: str, symbol: str) -> bool:
        """Tell whether a message of this ``type`` about this symbol is one of those asked for.

        Corrections and cancels come with the trades they correct.
        """
        channel = CHANNEL_OF.get(kind, "")
        if channel in ("corrections", "cancelErrors"):
            channel = "trades"
        wanted = self.channels.get(channel)
        return wanted is not None and (symbol in wanted or "*" in wanted or symbol == "*")

    @property
    def symbols(self) -> frozenset[str]:
        """Return every symbol that is named in any channel."""
        return frozenset[str]().union(*self.channels.values())

    def as_dict(self) -> dict[str, list[str]]:
        """Return the symbols by channel as plain lists, both in alphabetical order."""
        return {name: sorted(symbols) for name, symbols in sorted(self.channels.items())}


def decimal(number: Raw) -> Decimal:
    """Return the number with every digit that came.

    Raises:
        ValueError: it is not a number.
    """
    text = bytes(number).decode().strip('"')
    try:
        value = Decimal(text)
    except ArithmeticError:
        value = Decimal("nan")
    if not value.is_finite():
        msg = f"not a number: {text[:40]}"
        raise ValueError(msg)
    return value


def instant_ns(text: str) -> int:
    """Return nanoseconds since 1970 of an RFC 3339 time in UTC with nine digits, as ticks carry it.

    Raises:
        ValueError: it is not written so.
    """
    if len(text) != 30 or text[19] != "." or text[29] != "Z":
        msg = f"not a time in UTC with nine digits: {text[:40]!r}"
        raise ValueError(msg)
    return _second(text[:19]) * 1_000_000_000 + int(text[20:29])


def instant_text(at_ns: int) -> str:
    """Return RFC 3339 in UTC with nine digits; the inverse of ``instant_ns``."""
    seconds, nanoseconds = divmod(at_ns, 1_000_000_000)
    return f"{_second_text(seconds)}.{nanoseconds:09d}Z"


@lru_cache(maxsize=4096)
def _second(text: str) -> int:
    moment = dt.datetime.fromisoformat(text)
    return int(moment.replace(tzinfo=dt.UTC).timestamp())


@lru_cache(maxsize=4096)
def _second_text(seconds: int) -> str:
    return (dt.datetime(1970, 1, 1) + dt.timedelta(seconds=seconds)).isoformat()  # noqa: DTZ001 # UTC is implied
