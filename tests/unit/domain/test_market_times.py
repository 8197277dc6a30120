"""The close that a rule tells is the exchange's own."""

import datetime as dt
import warnings

from alpacli.domain.market import regular_close


def test_the_regular_close_is_the_one_of_the_nyses_calendar_since_2004() -> None:
    import exchange_calendars  # with pandas: only the worker that needs it pays

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        schedule = exchange_calendars.get_calendar("XNYS", start="2004-01-01", end="2029-12-31").schedule
    closes = schedule["close"].dt.tz_convert("America/New_York")
    assert len(closes) > 6_000
    assert {at.date(): regular_close(at.date()) for at in closes} == {at.date(): at.time() for at in closes}
    assert sum(at.time() == dt.time(13) for at in closes) > 40
