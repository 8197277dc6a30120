"""The market's timetable and what is listed on it. All session times are New York time, which Alpaca leaves unsaid."""

import datetime as dt
from typing import Annotated

from pydantic import Field

from alpacli.domain.values import Day, Flag, MaybeAmount, Model, Timestamp

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


def _new_york(day: dt.date, clock: str) -> dt.datetime:
    from zoneinfo import ZoneInfo

    return dt.datetime.combine(day, dt.time.fromisoformat(clock), ZoneInfo("America/New_York"))
