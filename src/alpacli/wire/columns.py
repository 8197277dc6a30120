"""Pages of historical bars, trades and quotes: what to ask, and how a page becomes columns without losing a digit.

A page of ten thousand rows is decoded into structs and then into columns of doubles, in milliseconds. Doubles are proven
harmless first: no run of digits in the page is longer than a double keeps, or the numbers that are come back as they were
written. A page for which that fails, or with fields that are not known here, is read again slowly, with decimals.

Source: the Market Data API's historical endpoints for stocks, crypto and options.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from alpacli.domain.arrows import floats, integers, text, text_lists, texts
from alpacli.domain.batches import COLUMNS, decimals, instant_text, is_exact, schema
from alpacli.domain.series import Kind, Market, Series, Span
from alpacli.domain.values import exact, from_json, to_json
from alpacli.errors import UnreadableAnswer, UsageError
from alpacli.ports import Request
from alpacli.wire.rest import Call

if TYPE_CHECKING:
    import pyarrow

MOST_PER_PAGE: Final = 10_000

_PATHS: Final[Mapping[Market, str]] = {
    "stocks": "/v2/stocks",
    "crypto": "/v1beta3/crypto/us",
    "options": "/v1beta1/options",
}
_LETTERS: Final[Mapping[Kind, Mapping[str, str]]] = {
    "bars": {
        "o": "open",
        "h": "high",
        "l": "low",
        "c": "close",
        "v": "volume",
        "n": "trade_count",
        "vw": "vwap",
    },
    "trades": {
        "p": "price",
        "s": "size",
        "x": "exchange",
        "c": "conditions",
        "i": "id",
        "z": "tape",
        "u": "update",
        "tks": "taker_side",
    },
    "quotes": {
        "bx": "bid_exchange",
        "bp": "bid_price",
        "bs": "bid_size",
        "ax": "ask_exchange",
        "ap": "ask_price",
        "as": "ask_size",
        "c": "conditions",
        "z": "tape",
    },
}
_DIGITS_OR_BLANK: Final = bytes(49 if letter in b"0123456789." else 32 for letter in range(256))
_LONG: Final = b"1" * 16  # fifteen digits and a point: what a double always keeps
_LONG_NUMBER: Final = re.compile(
    rb'"(?:o|h|l|c|v|vw|p|s|bp|bs|ap|as)"\s*:\s*(-?[0-9.]{16,}(?:[eE][-+]?[0-9]+)?|-?[0-9.]+[eE][-+]?[0-9]+)'
)


class _Bar(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    t: str
    o: float
    h: float
    l: float  # noqa: E741 # the wire's name
    c: float
    v: float
    n: int | None = None
    vw: float | None = None


class _Trade(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    t: str
    p: float
    s: float
    x: str | None = None
    c: list[str] | None = None
    i: int | None = None
    z: str | None = None
    u: str | None = None
    tks: str | None = None


class _Quote(msgspec.Struct, forbid_unknown_fields=True, gc=False, rename={"as_": "as"}):
    t: str
    bp: float
    bs: float
    ap: float
    as_: float
    bx: str | None = None
    ax: str | None = None
    c: list[str] | None = None
    z: str | None = None


class _Bars(msgspec.Struct, gc=False):
    rows: dict[str, list[_Bar] | None] | None = msgspec.field(name="bars", default=None)
    next_page_token: str | None = None


class _Trades(msgspec.Struct, gc=False):
    rows: dict[str, list[_Trade] | None] | None = msgspec.field(name="trades", default=None)
    next_page_token: str | None = None


class _Quotes(msgspec.Struct, gc=False):
    rows: dict[str, list[_Quote] | None] | None = msgspec.field(name="quotes", default=None)
    next_page_token: str | None = None


_PAGES: Final[Mapping[Kind, Any]] = {
    "bars": msgspec.json.Decoder(_Bars),
    "trades": msgspec.json.Decoder(_Trades),
    "quotes": msgspec.json.Decoder(_Quotes),
}


class Page(NamedTuple):
    """The rows of one page, a table for each symbol in the order of the page; ``token`` leads to the next one."""

    tables: "list[tuple[str, pyarrow.Table]]"
    token: str | None

    @property
    def rows(self) -> int:
        return sum(table.num_rows for _, table in self.tables)


def page(
    series: Series, symbols: Sequence[str], span: Span, *, limit: int = MOST_PER_PAGE, token: str | None = None,
    newest_first: bool = False,
) -> Call[Page]:  # fmt: skip
    """Ask for one page of a series in a half-open interval; ``newest_first`` turns the order of rows round.

    Raises:
        UsageError: Alpaca has no such history.
    """
    if series.market == "options" and series.kind == "quotes":
        raise UsageError("Alpaca keeps no history of option quotes", "`alpacli quote` shows the latest one")
    query = [
        ("symbols", ",".join(symbols)),
        ("start", instant_text(span[0])),
        ("end", instant_text(span[1] - 1)),
        ("limit", str(limit)),
    ]
    if series.kind == "bars":
        query.append(("timeframe", series.timeframe))
    if series.market == "stocks":
        if series.kind == "bars":
            query.append(("adjustment", series.adjustment))
        query.append(("feed", series.feed))
    if newest_first:
        query.append(("sort", "desc"))
    if token is not None:
        query.append(("page_token", token))
    request = Request("GET", f"{_PATHS[series.market]}/{series.kind}", tuple(query), host="data")
    return Call(series.kind, request, lambda body: read_page(series.kind, body))


def read_page(kind: Kind, body: bytes) -> Page:
    """Read a page.

    Raises:
        UnreadableAnswer: not what the endpoint promises, or rows that are not in order of time.
    """
    if _doubles_keep(body):
        try:
            found = _PAGES[kind].decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return _read_slowly(kind, body)
        if f'"{kind}"'.encode() not in body:
            raise UnreadableAnswer(f"the answer for {kind} holds none", "a proxy may stand between: try again")
        tables = [(symbol, _table(kind, symbol, rows)) for symbol, rows in (found.rows or {}).items() if rows]
        return Page(tables, found.next_page_token or None)
    return _read_slowly(kind, body)


def _doubles_keep(body: bytes) -> bool:
    """Prove that no number of the page loses a digit as a double."""
    if _LONG not in body.translate(_DIGITS_OR_BLANK):
        return True
    return all(
        repr(float(number)).encode() == number or is_exact(Decimal(number.decode()))
        for number in _LONG_NUMBER.findall(body)
    )


def _table(kind: Kind, symbol: str, rows: Sequence[Any]) -> "pyarrow.Table":
    import pyarrow as pa

    arrays = [_symbols(symbol, len(rows)), _times([row.t for row in rows])]
    for letter, name in _LETTERS[kind].items():
        attribute = "as_" if letter == "as" else letter
        arrays.append(_MAKERS[COLUMNS[kind][name]](list(map(attrgetter(attribute), rows))))
    return pa.Table.from_arrays(arrays, schema=schema(kind))


_MAKERS: Final[Mapping[str, Callable[[Any], "pyarrow.Array"]]] = {
    "number": floats,
    "whole": integers,
    "text": texts,
    "texts": text_lists,
}


def _symbols(symbol: str, count: int) -> "pyarrow.Array":
    import pyarrow as pa

    return pa.repeat(text(symbol), count)


def _times(written: Sequence[str]) -> "pyarrow.Array":
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        times = texts(written).cast(pa.timestamp("ns", "UTC"))
    except pa.ArrowInvalid:
        raise UnreadableAnswer("a time in the market data is not RFC 3339", "try again later") from None
    if times.null_count:
        raise UnreadableAnswer("a row of the market data has no time", "try again later")
    later, earlier = times.slice(1), times.slice(0, len(times) - 1)
    if not (_always(pc.greater_equal(later, earlier)) or _always(pc.less_equal(later, earlier))):
        raise UnreadableAnswer("the rows of the market data are not in order of time", "try again later")
    return times


def _always(truths: "pyarrow.BooleanArray") -> bool:
    return bool(truths.false_count == 0)


def _read_slowly(kind: Kind, body: bytes) -> Page:
    """Read a page with decimals, and with the fields that nobody has heard of yet as JSON text."""
    import pyarrow as pa

    try:
        tree: Any = from_json(body)
        found = tree[kind] or {}
        token = tree.get("next_page_token") or None
        tables = []
        for symbol, rows in found.items():
            if not rows:
                continue
            known = _LETTERS[kind]
            arrays = {"symbol": _symbols(symbol, len(rows)), "timestamp": _times([row["t"] for row in rows])}
            for letter, name in known.items():
                arrays[name] = _column(COLUMNS[kind][name], [row.get(letter) for row in rows])
            for name in dict.fromkeys(name for row in rows for name in row if name not in known and name != "t"):
                arrays[name] = texts([None if row.get(name) is None else to_json(row[name]).decode() for row in rows])
            tables.append((symbol, pa.Table.from_arrays(list(arrays.values()), names=list(arrays))))
        if token is not None and not isinstance(token, str):
            raise TypeError
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, pa.ArrowException) as error:
        raise UnreadableAnswer(
            f"the answer for {kind} is not what the endpoint promises", "a proxy may stand between: try again"
        ) from error
    return Page(tables, token)


def _column(what: str, values: Sequence[Any]) -> "pyarrow.Array":
    if what == "texts":
        return text_lists([[value] if isinstance(value, str) else value for value in values])
    if what != "number":
        return _MAKERS[what](values)
    numbers = [None if value is None else exact(value) for value in values]
    if all(number is None or is_exact(number) for number in numbers):
        return floats([None if number is None else float(number) for number in numbers])
    return decimals(numbers)
