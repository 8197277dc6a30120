"""How an account's worth grew from close to close: what closes tell to those who add up days and months."""

import datetime as dt
from bisect import bisect_left
from collections.abc import Sequence
from decimal import Decimal
from typing import Final, NamedTuple

from alpacli.history.lots import ZERO

SATURDAY: Final = 5


class Growth(NamedTuple):
    """By how much an account grew, transfers taken out, from each day (an ordinal) whose worth is known to the next.

    ``closes`` are all days with a close, those after the last of ``days`` too. The last worth need not be a close:
    ``after_close`` is how much of its growth came after that of its day; ``last_ns`` is the moment of the last.
    """

    days: dict[int, Decimal]
    closes: Sequence[int]
    after_close: Decimal = ZERO
    last_ns: int = 1 << 63

    def closing(self, day: int) -> int:
        """Return the day of the close that first tells what a day came to; as far as is known, its own if it is a weekday."""
        place = bisect_left(self.closes, day)
        if place < len(self.closes):
            return self.closes[place]
        weekday = dt.date.fromordinal(day).weekday()
        if weekday < SATURDAY or any(dt.date.fromordinal(close).weekday() >= SATURDAY for close in self.closes):
            return day
        return day + 7 - weekday

    def month(self, day: int) -> str:
        """Return the month that a day counts to: that of its close."""
        return dt.date.fromordinal(self.closing(day)).isoformat()[:7]

    def ending_with(self, total: Decimal) -> "Growth":
        """Return the same with another total; what that differs by came after the last close."""
        last, rest = max(self.days), total - sum(self.days.values(), ZERO)
        return self._replace(days={**self.days, last: self.days[last] + rest}, after_close=self.after_close + rest)
