"""What a board looks at in the lines that alpacli prints: their numbers as floats, read once, and nothing else of them.

The fields have the names of ``domain.ticks``. Every kind that a feed can send is here, so what cannot be read is no message.
"""

from typing import Final

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType


class Line(Struct, tag_field="type", gc=False):
    symbol: str = ""
    timestamp: str = ""


class TradeLine(Line, tag="trade", gc=False, kw_only=True):
    price: float
    size: float
    exchange: str | UnsetType | None = UNSET
    id: Raw | UnsetType = UNSET


class QuoteLine(Line, tag="quote", gc=False, kw_only=True):
    bid_price: float
    bid_size: float
    ask_price: float
    ask_size: float


class BarLine(Line, tag="bar", gc=False, kw_only=True):
    close: float
    volume: float
    vwap: float | None = None


class UpdatedBarLine(BarLine, tag="updated_bar", gc=False, kw_only=True):
    pass


class DailyBarLine(BarLine, tag="daily_bar", gc=False, kw_only=True):
    pass


class StatusLine(Line, tag="status", gc=False, kw_only=True):
    status_code: str | None = None
    status_message: str | None = None
    reason_message: str | None = None


class CancelLine(Line, tag="cancel", gc=False, kw_only=True):
    price: float | None = None
    size: float | None = None
    exchange: str | UnsetType | None = UNSET
    id: Raw | UnsetType = UNSET


class CorrectionLine(Line, tag="correction", gc=False, kw_only=True):
    original_id: Raw | UnsetType = UNSET
    original_price: float | None = None
    original_size: float | None = None
    corrected_id: Raw | UnsetType = UNSET
    corrected_price: float | None = None
    corrected_size: float | None = None
    exchange: str | UnsetType | None = UNSET


class LuldLine(Line, tag="luld", gc=False):
    pass


class ImbalanceLine(Line, tag="imbalance", gc=False):
    pass


class OrderBookLine(Line, tag="orderbook", gc=False):
    pass


class NewsLine(Line, tag="news", gc=False):
    pass


class TradeUpdateLine(Line, tag="trade_update", gc=False):
    pass


decoder: Final = msgspec.json.Decoder(
    TradeLine
    | QuoteLine
    | BarLine
    | UpdatedBarLine
    | DailyBarLine
    | StatusLine
    | CancelLine
    | CorrectionLine
    | LuldLine
    | ImbalanceLine
    | OrderBookLine
    | NewsLine
    | TradeUpdateLine,
    strict=False,  # quoted numbers are numbers too
)
encoder: Final = msgspec.json.Encoder(decimal_format="number")
