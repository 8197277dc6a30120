"""The market's timetable and what is listed on it. All session times are New York time, which Alpaca leaves unsaid."""

import datetime as dt
from typing import Annotated, Any

from pydantic import Field

from alpacli.domain.values import Amount, Day, Flag, MaybeAmount, MaybeTimestamp, Model, Timestamp

ClockTime = Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]


class MarketClock(Model):
    """Whether the equities session is open, by the exchange's own clock. Source: GET /v2/clock."""

    timestamp: Timestamp
    is_open: Flag
    next_open: Timestamp
    next_close: Timestamp


class CalendarDay(Model):
    """One trading day; times as sent, ``open`` like 09:30 and ``session_open`` like 0400. Source: GET /v2/calendar."""

    date: Day
    open: ClockTime
    close: ClockTime
    session_open: str | None = None
    session_close: str | None = None
    settlement_date: str | None = None

    @property
    def opens_at(self) -> dt.datetime:
        """Return the opening of the regular session, in New York time."""
        return _new_york(self.date, self.open)

    @property
    def closes_at(self) -> dt.datetime:
        """Return the end of the regular session, in New York time; early on half days."""
        return _new_york(self.date, self.close)


def regular_close(day: dt.date) -> dt.time:
    """Return when the NYSE's regular session of a day ends, in New York time: 16:00, and 13:00 on half days.

    By rule, which has held since 2004: the day after Thanksgiving, and July 3 and December 24 from Monday to Thursday. Days
    without a session have a time all the same. Source: https://www.nyse.com/markets/hours-calendars.
    """
    after_thanksgiving = day.month == 11 and day.weekday() == 4 and 23 <= day.day <= 29
    eve = (day.month, day.day) in ((7, 3), (12, 24)) and day.weekday() < 4
    return dt.time(13) if after_thanksgiving or eve else dt.time(16)


class Asset(Model):
    """Something that can be held or traded. ``asset_class`` is called ``class`` on the wire and in JSON.

    Source: GET /v2/assets.
    """

    id: str
    asset_class: str = Field(alias="class")
    exchange: str
    symbol: str
    name: str | None = None
    status: str
    tradable: Flag
    marginable: Flag
    shortable: Flag
    easy_to_borrow: Flag | None = None  # announced to go: `borrow_status` takes its place
    borrow_status: str | None = None
    fractionable: Flag
    maintenance_margin_requirement: MaybeAmount = None
    margin_requirement_long: MaybeAmount = None
    margin_requirement_short: MaybeAmount = None
    min_order_size: MaybeAmount = None
    min_trade_increment: MaybeAmount = None
    price_increment: MaybeAmount = None
    attributes: tuple[str, ...] | None = None
    cusip: str | None = None


class HistoricalBar(Model):
    """One bar of market history as ``alpacli bars`` prints it. Source: GET /v2/stocks/bars and its siblings."""

    symbol: str
    timestamp: Timestamp
    open: Amount
    high: Amount
    low: Amount
    close: Amount
    volume: Amount
    trade_count: int | None = None
    vwap: MaybeAmount = None


class HistoricalTrade(Model):
    """One trade as ``alpacli trades`` prints it. Source: GET /v2/stocks/trades and its siblings."""

    symbol: str
    timestamp: Timestamp
    price: Amount
    size: Amount
    exchange: str | None = None
    conditions: tuple[str, ...] | None = None
    id: int | None = None
    tape: str | None = None
    update: str | None = None
    taker_side: str | None = None


class HistoricalQuote(Model):
    """One quote as ``alpacli quotes`` prints it; a price of 0 is an empty side. Source: GET /v2/stocks/quotes."""

    symbol: str
    timestamp: Timestamp
    bid_exchange: str | None = None
    bid_price: Amount
    bid_size: Amount
    ask_exchange: str | None = None
    ask_price: Amount
    ask_size: Amount
    conditions: tuple[str, ...] | None = None
    tape: str | None = None


class Snapshot(Model):
    """The latest of one symbol, its members as Alpaca sends them. Source: GET /v2/stocks/snapshots and its siblings."""

    symbol: str
    latest_trade: dict[str, Any] | None = Field(default=None, alias="latestTrade")
    latest_quote: dict[str, Any] | None = Field(default=None, alias="latestQuote")
    minute_bar: dict[str, Any] | None = Field(default=None, alias="minuteBar")
    daily_bar: dict[str, Any] | None = Field(default=None, alias="dailyBar")
    prev_daily_bar: dict[str, Any] | None = Field(default=None, alias="prevDailyBar")


class NewsArticle(Model):
    """One article; ``content`` is HTML, and empty unless it was asked for. Source: GET /v1beta1/news."""

    id: int
    headline: str
    author: str | None = None
    created_at: Timestamp
    updated_at: MaybeTimestamp = None
    summary: str | None = None
    content: str | None = None
    url: str | None = None
    images: tuple[dict[str, Any], ...] | None = None
    symbols: tuple[str, ...] = ()
    source: str | None = None


class KeptHistory(Model):
    """What is kept of one series of one symbol; ``start`` and ``end`` enclose what is known of it."""

    symbol: str
    kind: str
    market: str
    feed: str
    timeframe: str | None
    adjustment: str | None
    rows: int
    files: int
    bytes: int
    start: MaybeTimestamp
    end: MaybeTimestamp
    broken: int


class BrokenFile(Model):
    path: str
    problem: str


class VerifiedHistory(Model):
    """What a check of all kept files found."""

    files: int
    rows: int
    broken: tuple[BrokenFile, ...]


class PrunedHistory(Model):
    """What was removed, or with ``dry_run`` would be; ``leftovers`` are files of processes that were killed."""

    files: int
    bytes: int
    leftovers: int
    dry_run: bool


def _new_york(day: dt.date, clock: str) -> dt.datetime:
    from zoneinfo import ZoneInfo

    return dt.datetime.combine(day, dt.time.fromisoformat(clock), ZoneInfo("America/New_York"))
