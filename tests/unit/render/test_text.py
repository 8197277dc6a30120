"""How single values are written for people."""

import datetime as dt
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from alpacli.cli.times import zone_named
from alpacli.render import text
from alpacli.render.text import Frame

NOW = dt.datetime(2026, 6, 24, 18, 0, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("value", "money", "price", "quantity"),
    [
        ("1234567.891", "1,234,567.89", "1,234,567.891", "1,234,567.891"),
        ("0", "0.00", "0.00", "0"),
        ("-0.5", "-0.50", "-0.50", "-0.5"),
        ("0.123456789", "0.12", "0.123457", "0.123456789"),
        ("1E+3", "1,000.00", "1,000.00", "1,000"),
    ],
)
def test_numbers(value: str, money: str, price: str, quantity: str) -> None:
    number = Decimal(value)
    assert (text.money(number), text.price(number), text.quantity(number)) == (money, price, quantity)


def test_a_difference_below_a_cent_is_told_and_no_zero_has_a_sign() -> None:
    """Two amounts beside it may be 2,117.44 and 2,117.45: each is rounded by itself."""
    why = "less than a cent: the amounts are rounded"
    assert text.difference(Decimal("2117.4449") - Decimal("2117.4492")).plain == f"-0.0043, {why}"
    assert text.difference(Decimal("0.004")).plain == f"+0.004, {why}"
    assert text.difference(Decimal("1e-9")).plain == why
    assert text.difference(Decimal("-0.01")).plain == "-0.01"
    assert [text.apart(Decimal(value)) for value in ("-2.432", "0.0043", "-1e-9", "0")] == [
        "2.43",
        "0.0043",
        "less than 0.000001",
        "0.00",
    ]
    assert text.difference(Decimal(0)).plain == "0.00"
    assert text.money(Decimal("-0.004")) == "0.00"
    assert (text.counted(1, "day"), text.counted(1200, "row")) == ("1 day", "1,200 rows")


def test_what_is_missing_is_a_dash() -> None:
    written = (text.money(None), text.price(None), text.quantity(None), text.day(None))
    assert set(written) == {"–"}
    assert text.moment(None, Frame(80, NOW)) == "–"
    assert text.signed(None).plain == text.percent(None).plain == text.words(None).plain == "–"


def test_a_gain_or_loss_that_shows_as_zero_has_no_colour() -> None:
    shown = [text.signed(Decimal(value)) for value in ("-0.01", "-0.004", "0", "0.004", "0.01")]
    assert [(one.plain, str(one.style)) for one in shown] == [
        ("-0.01", "red"),
        ("0.00", ""),
        ("0.00", ""),
        ("0.00", ""),
        ("+0.01", "green"),
    ]


@pytest.mark.parametrize(
    ("name", "shown"), [("utc", "14:30:05 UTC"), ("ET", "10:30:05 EDT"), ("Asia/Tokyo", "23:30:05 JST")]
)
def test_a_time_names_its_zone_and_hides_today(name: str, shown: str) -> None:
    frame = Frame(80, NOW.replace(hour=14), zone_named(name, ZoneInfo))
    assert text.moment(dt.datetime(2026, 6, 24, 14, 30, 5, tzinfo=dt.UTC), frame) == shown


def test_another_day_is_written_out() -> None:
    assert (
        text.moment(dt.datetime(2025, 1, 2, 3, 4, tzinfo=dt.UTC), Frame(80, NOW, dt.UTC)) == "2025-01-02 03:04:00 UTC"
    )


@pytest.mark.parametrize(
    ("seconds", "shown"), [(2.14, "2.1 s"), (45, "45 s"), (600, "10 min"), (9000, "2.5 h"), (400000, "5 d")]
)
def test_spans(seconds: float, shown: str) -> None:
    assert text.ago(seconds) == shown


@pytest.mark.parametrize(
    ("count", "shown"), [(0, "0 B"), (1536, "1.5 KiB"), (3 << 20, "3.0 MiB"), (5 << 30, "5.0 GiB")]
)
def test_sizes(count: int, shown: str) -> None:
    assert text.size(count) == shown


def test_control_characters_of_others_never_reach_the_terminal() -> None:
    assert text.words("a\x1b]0;x\x07b").plain == "a�]0;x�b"
