"""Exact numbers, exact times, and the one JSON form."""

import copy
import datetime as dt
import json
import pickle
import time
from decimal import Decimal
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from alpacli.domain.account import Account, PortfolioHistory, Position
from alpacli.domain.market import Asset, CalendarDay, MarketClock
from alpacli.domain.orders import OPEN, TERMINAL, Order
from alpacli.domain.values import Amount, Day, MaybeAmount, Model, Timestamp, epoch_ns, exact, from_json, to_json

NAIVE = dt.datetime.fromisoformat("2026-01-31T00:00:00")

digits = st.text("0123456789", min_size=1, max_size=60)
plain_numbers = st.builds(
    lambda sign, whole, fraction: sign + (whole.lstrip("0") or "0") + fraction,
    st.sampled_from(["", "-"]),
    digits,
    st.one_of(st.just(""), digits.map(lambda text: "." + text)),
)


class Priced(Model):
    price: Amount
    other: MaybeAmount = None


# --------------------------------------------------------------------------------------------------- numbers


@settings(deadline=None)
@given(plain_numbers)
def test_any_decimal_text_comes_back_digit_for_digit(text: str) -> None:
    """As a text or as a number on the wire, whatever its length, the printed number has the same characters."""
    from_text = Priced.model_validate(from_json(b'{"price":"%s"}' % text.encode()))
    assert to_json(from_text) == b'{"price":%s}' % text.encode()
    if text != "-0":  # an integer minus zero is zero to JSON parsers
        assert to_json(Priced.model_validate(from_json(b'{"price":%s}' % text.encode()))) == to_json(from_text)


@settings(deadline=None)
@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**30), max_value=10**30))
def test_decimals_are_printed_plainly_and_exactly(value: Decimal) -> None:
    """Never an exponent, which some JSON readers turn into a float of their own."""
    text = to_json([value]).decode()
    assert "E" not in text.upper()
    assert Decimal(text[1:-1]) == value


@pytest.mark.parametrize(
    "text",
    [
        "NaN",
        "Infinity",
        "-Infinity",
        "sNaN",
        "",
        " ",
        "1 ",
        "1_000",
        "0x10",
        "١٢",
        "1,5",
        "--1",
        "+1",
        "1e",
        "1e9999",
        "9" * 1001,
    ],
)
def test_what_is_no_decimal_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a decimal number"):
        exact(text)


@pytest.mark.parametrize("value", [1.5, True, None, [], {}, Decimal("NaN"), Decimal("Infinity")])
def test_values_without_exact_digits_are_refused(value: object) -> None:
    """A float too: its digits are not those that were sent."""
    with pytest.raises(ValueError, match="not a decimal number"):
        exact(value)


def test_exponents_are_understood_and_printed_plainly() -> None:
    assert to_json(Priced.model_validate(from_json(b'{"price":1.5E-7,"other":"2e3"}'))) == (
        b'{"price":0.00000015,"other":2000}'
    )


def test_an_empty_text_is_a_missing_number_where_one_may_be_missing() -> None:
    assert Priced.model_validate({"price": "1", "other": ""}).other is None
    with pytest.raises(ValidationError):
        Priced.model_validate({"price": ""})


# ----------------------------------------------------------------------------------------------------- times


@settings(deadline=None)
@given(
    st.datetimes(dt.datetime.fromisoformat("0001-01-02"), dt.datetime.fromisoformat("9999-12-30")),
    st.text("0123456789", max_size=9),
    st.one_of(st.sampled_from(["Z", "z"]), st.integers(-23 * 60 - 59, 23 * 60 + 59)),
)
def test_any_rfc_3339_time_keeps_its_text_and_its_instant(
    moment: dt.datetime, fraction: str, offset: str | int
) -> None:
    """0 to 9 fraction digits and any offset: the text is kept, the instant is right to the nanosecond."""
    if isinstance(offset, int):
        zone = f"{'-' if offset < 0 else '+'}{abs(offset) // 60:02}:{abs(offset) % 60:02}"
        minutes = offset
    else:
        zone, minutes = offset, 0
    text = f"{moment.replace(microsecond=0).isoformat()}{'.' + fraction if fraction else ''}{zone}"
    parsed = Timestamp.parse(text)
    assert parsed.wire == text
    seconds = (moment.replace(microsecond=0, tzinfo=dt.UTC) - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(
        seconds=1
    )
    assert parsed.epoch_ns == (seconds - minutes * 60) * 10**9 + int(fraction.ljust(9, "0") or 0)
    assert parsed.utcoffset() == dt.timedelta(0)
    assert json.loads(to_json([parsed])) == [text]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-06-24",
        "2026-06-24T14:30:00",
        "2026-06-24T14:30Z",
        "2026-13-01T00:00:00Z",
        "2026-02-30T00:00:00Z",
        "2026-06-24T25:00:00Z",
        "2026-06-24T14:30:00+2500",
        "2026-06-24T14:30:00+25:00",
        "2026-06-24T14:30:00.Z",
        "0001-01-01T00:00:00+01:00",
        "2026-06-24T14:30:00Z\n",
        "now",
    ],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Timestamp.parse(text)


def test_a_leap_second_is_the_instant_after_the_last_one() -> None:
    assert Timestamp.parse("2016-12-31T23:59:60Z") == dt.datetime(2017, 1, 1, tzinfo=dt.UTC)


def test_times_compare_as_datetimes_whatever_their_text() -> None:
    """The same instant in two spellings is equal; the spellings stay apart."""
    zulu, york = Timestamp.parse("2026-06-24T14:30:00.5Z"), Timestamp.parse("2026-06-24T10:30:00.500000001-04:00")
    assert zulu == york == dt.datetime(2026, 6, 24, 14, 30, 0, 500_000, tzinfo=dt.UTC)
    assert zulu.wire != york.wire
    assert york.epoch_ns - zulu.epoch_ns == 1
    assert epoch_ns(zulu) == zulu.epoch_ns


def test_times_survive_copying_and_pickling() -> None:
    """Another process gets the same text and the same nanoseconds."""
    moment = Timestamp.parse("2026-06-24T14:30:00.123456789+05:30")
    for again in (copy.copy(moment), copy.deepcopy(moment), pickle.loads(pickle.dumps(moment))):
        assert (again.wire, again.epoch_ns) == (moment.wire, moment.epoch_ns)


def test_computed_times_have_a_text_of_their_own() -> None:
    """A sum was never on the wire: it must not print the text of what it was computed from."""
    later = Timestamp.parse("2026-06-24T14:30:00.123456789Z") + dt.timedelta(seconds=1)
    assert isinstance(later, Timestamp)
    assert later.wire == "2026-06-24T14:30:01.123456Z"
    assert later.astimezone(dt.timezone(dt.timedelta(hours=-4))).isoformat().endswith("-04:00")


def test_a_model_takes_aware_datetimes_and_refuses_naive_ones() -> None:
    adapter = TypeAdapter(Timestamp)
    aware = dt.datetime(2026, 6, 24, 14, 30, tzinfo=dt.UTC)
    assert adapter.validate_python(aware) == aware
    for wrong in (aware.replace(tzinfo=None), 1750771800, None):
        with pytest.raises(ValidationError):
            adapter.validate_python(wrong)


def test_dates_are_calendar_days_only() -> None:
    adapter: TypeAdapter[dt.date] = TypeAdapter(Day)
    assert adapter.validate_python("2026-01-31") == adapter.validate_python(dt.date(2026, 1, 31))
    for wrong in ("20260131", "2026-02-30", 5, NAIVE):
        with pytest.raises(ValidationError):
            adapter.validate_python(wrong)


# ------------------------------------------------------------------------------------------------------ JSON

plain_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.decimals(allow_nan=False, allow_infinity=False, places=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)
@given(plain_json)
def test_plain_values_round_trip(value: Any) -> None:
    assert from_json(to_json(value)) == value


@settings(deadline=None)
@given(st.text())
def test_any_text_is_valid_json_even_half_of_a_surrogate_pair(text: str) -> None:
    assert json.loads(to_json(text + "\ud83d")) == text + "\ud83d"


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"NaN", b"[Infinity]", b"\xff", b'{"a":1e99999}', b"[" * 200_000, b"<html>", b"9" * 5000, b"{'a':1}"],
)
def test_what_is_not_exact_json_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        from_json(text)


def test_a_field_that_is_there_twice_is_refused_where_its_value_counts() -> None:
    text = b'{"a":[{"qty":1,"qty":3}]}'
    assert from_json(text) == {"a": [{"qty": 3}]}
    with pytest.raises(ValueError, match="'qty' is there twice"):
        from_json(text, each_once=True)
    assert from_json(b'{"a":{"b":1},"b":2.50}', each_once=True) == {"a": {"b": 1}, "b": Decimal("2.50")}


class _Color(StrEnum):
    RED = "red"


class _Level(int):
    pass


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-7, b"0.0000001"),
        (0.1, b"0.1"),
        (_Color.RED, b'"red"'),
        (_Level(3), b"3"),
        ((1, True, None), b"[1,true,null]"),
        (dt.date(2026, 1, 31), b'"2026-01-31"'),
        (dt.datetime(2026, 1, 31, tzinfo=dt.UTC), b'"2026-01-31T00:00:00+00:00"'),
        ({}, b"{}"),
        ([], b"[]"),
        ("é\n\x1b", '"é\\n\\u001b"'.encode()),
    ],
)
def test_other_plain_values_have_a_json_form(value: object, text: bytes) -> None:
    assert to_json(value) == text


@pytest.mark.parametrize(
    "value",
    [{1}, b"x", object(), float("nan"), float("inf"), Decimal("NaN"), {1: 2}, NAIVE, 1j],
    ids=lambda value: type(value).__name__,
)
def test_values_without_a_json_form_are_refused(value: object) -> None:
    with pytest.raises(TypeError):
        to_json([value])


# ----------------------------------------------------------------------------------------------------- models

ORDER: dict[str, Any] = {
    "id": "o1",
    "client_order_id": "c1",
    "created_at": "2026-06-24T14:30:00.112233445Z",
    "order_class": "",
    "time_in_force": "day",
    "status": "new",
    "extended_hours": False,
}


def test_unknown_fields_pass_through_untouched() -> None:
    """What Alpaca adds tomorrow is printed today, strings as strings and numbers with their digits."""
    wire = b'{"id":"1","account_number":"PA1","status":"ACTIVE","new_text":"1.50","new_number":1.50,"new":{"a":[null,-0.0]}}'
    assert to_json(Account.model_validate(from_json(wire))) == wire


def test_absent_stays_absent_and_null_stays_null() -> None:
    wire = b'{"id":"1","account_number":"PA1","status":"ACTIVE","equity":null}'
    assert to_json(Account.model_validate(from_json(wire))) == wire


def test_an_unknown_status_is_no_error() -> None:
    """A new order status must not crash a cron job; it is neither open nor terminal."""
    order = Order.model_validate({**ORDER, "status": "quantum_superposed", "order_class": "new_class", "side": "hold"})
    assert not order.is_open
    assert not order.is_terminal
    assert not OPEN & TERMINAL


def test_models_are_frozen_and_compare_by_value() -> None:
    one, other = Order.model_validate(ORDER), Order.model_validate(ORDER)
    assert one == other
    with pytest.raises(ValidationError):
        one.status = "filled"  # type: ignore[misc] # what the test is about
    assert one != Order.model_validate({**ORDER, "status": "filled"})


@pytest.mark.parametrize(
    "change",
    [
        {"id": 5},
        {"extended_hours": "yes"},
        {"created_at": None},
        {"qty": "ten"},
        {"qty": {}},
        {"legs": {}},
        {"status": None},
    ],
    ids=str,
)
def test_wrong_types_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Order.model_validate({**ORDER, **change})


def test_legs_are_orders() -> None:
    order = Order.model_validate({**ORDER, "legs": [{**ORDER, "limit_price": "155.10"}]})
    assert order.legs is not None
    assert order.legs[0].limit_price == Decimal("155.10")
    assert b'"legs":[{' in to_json(order)


def test_an_asset_s_class_keeps_its_wire_name() -> None:
    flags = dict.fromkeys(("tradable", "marginable", "shortable", "fractionable"), True)
    wire = {"id": "a", "class": "crypto", "exchange": "", "symbol": "BTC/USD", "status": "active", **flags}
    asset = Asset.model_validate(wire)
    assert asset.asset_class == "crypto"
    assert json.loads(to_json(asset)) == wire
    assert Asset(asset_class="crypto", **{k: v for k, v in wire.items() if k != "class"}) == asset


def test_day_pl_is_equity_since_the_last_close() -> None:
    base = {"id": "1", "account_number": "PA1", "status": "ACTIVE"}
    account = Account.model_validate({**base, "equity": "100020.25", "last_equity": "100000"})
    assert account.day_pl == Decimal("20.25")
    assert account.day_pl_ratio == Decimal("0.0002025")
    assert b"day_pl" not in to_json(account)
    assert Account.model_validate({**base, "equity": "5", "last_equity": "0"}).day_pl_ratio is None
    assert Account.model_validate(base).day_pl is None
    assert Account.model_validate(base).day_pl_ratio is None


def test_what_open_orders_hold_of_a_position() -> None:
    base = dict.fromkeys(("asset_id", "symbol", "exchange", "asset_class"), "x")
    numbers = {"qty": "-10", "avg_entry_price": "1", "cost_basis": "-10"}
    short = Position.model_validate({**base, **numbers, "side": "short", "qty_available": "-4"})
    assert short.is_short
    assert short.qty_held == 6
    assert Position.model_validate({**base, **numbers, "side": "long"}).qty_held is None


def test_what_is_left_of_an_order() -> None:
    assert Order.model_validate({**ORDER, "qty": "10", "filled_qty": "2.5"}).remaining_qty == Decimal("7.5")
    assert Order.model_validate({**ORDER, "notional": "10"}).remaining_qty is None


def test_history_columns_become_points_and_must_match() -> None:
    columns: dict[str, Any] = {
        "timestamp": [1750771800, 1750772700],
        "equity": [100000, None],
        "profit_loss": [0, Decimal("20.25")],
        "profit_loss_pct": [None, Decimal("0.0002025")],
        "timeframe": "15Min",
    }
    points = PortfolioHistory.model_validate(columns).points
    assert points[0].at == dt.datetime(2025, 6, 24, 13, 30, tzinfo=dt.UTC)
    assert points[1].equity is None
    assert points[1].profit_loss == Decimal("20.25")
    with pytest.raises(ValidationError, match="differ in length"):
        PortfolioHistory.model_validate({**columns, "equity": [1]})


def test_calendar_times_are_new_york_time() -> None:
    """Alpaca sends no zone: the same 09:30 is another instant in summer and in winter."""
    summer = CalendarDay.model_validate({"date": "2026-07-01", "open": "09:30", "close": "16:00"})
    winter = CalendarDay.model_validate({"date": "2026-01-02", "open": "09:30", "close": "13:00"})
    assert summer.opens_at.astimezone(dt.UTC).hour == 13
    assert winter.opens_at.astimezone(dt.UTC).hour == 14
    assert winter.closes_at.astimezone(dt.UTC).hour == 18
    assert to_json(winter) == b'{"date":"2026-01-02","open":"09:30","close":"13:00"}'
    for wrong in ("24:00", "9:30", "0930", "later"):
        with pytest.raises(ValidationError):
            CalendarDay.model_validate({"date": "2026-01-02", "open": wrong, "close": "16:00"})


def test_schemas_say_what_is_printed() -> None:
    """``--schema`` promises numbers for amounts and date-times for times, under the wire's names."""
    account = Account.model_json_schema()["properties"]
    assert {"type": "number"} in account["equity"]["anyOf"]
    clock = MarketClock.model_json_schema()["properties"]
    assert (clock["timestamp"]["type"], clock["timestamp"]["format"]) == ("string", "date-time")
    assert "class" in Asset.model_json_schema(by_alias=True)["properties"]


def test_a_hundred_orders_are_printed_in_milliseconds() -> None:
    orders = [Order.model_validate({**ORDER, "qty": "10", "limit_price": "150.10"}) for _ in range(100)]
    to_json(orders)
    best = min(_timed(lambda: to_json(orders)) for _ in range(5))
    assert best < 0.02


def _timed(run: Any) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def test_pydantics_own_dump_of_a_model_is_exact_and_warns_of_nothing() -> None:
    """A program that says ``model_dump(mode="json")`` gets every digit and nanosecond as text, and back again."""
    body = {
        "id": "a",
        "client_order_id": "b",
        "order_class": "",
        "time_in_force": "day",
        "status": "new",
        "extended_hours": False,
        "created_at": "2026-01-31T14:30:00.123456789Z",
        "qty": "0.000000010",
        "filled_at": None,
        "limit_price": "1E+3",
    }
    order = Order.model_validate(body)
    plain = order.model_dump()
    assert (plain["qty"], plain["created_at"]) == (Decimal("0.000000010"), order.created_at)
    text = order.model_dump(mode="json")
    assert (text["qty"], text["limit_price"], text["filled_at"]) == ("0.000000010", "1000", None)
    assert text["created_at"] == body["created_at"]
    assert Order.model_validate_json(order.model_dump_json()).created_at.epoch_ns == order.created_at.epoch_ns


def test_a_copy_with_a_plain_time_still_dumps() -> None:
    """``model_copy`` does not validate: a text or a ``datetime`` in a time's place is written like any other time."""
    clock = MarketClock.model_validate(
        {
            "timestamp": "2026-01-31T14:30:00Z",
            "is_open": True,
            "next_open": "2026-02-02T14:30:00Z",
            "next_close": "2026-02-02T21:00:00Z",
        }
    )
    given = dt.datetime(2026, 1, 31, 15, tzinfo=dt.UTC)
    changed = clock.model_copy(update={"timestamp": "2026-01-31T14:31:00Z", "next_open": given})
    assert changed.model_dump()["timestamp"] == "2026-01-31T14:31:00Z"
    dumped = changed.model_dump(mode="json")
    assert (dumped["timestamp"], dumped["next_open"]) == ("2026-01-31T14:31:00Z", "2026-01-31T15:00:00+00:00")
