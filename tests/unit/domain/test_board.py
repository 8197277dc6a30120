"""Ticks to the latest state of each symbol."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from alpacli.domain.board import SAMPLE_S, SAMPLES, Board, DaySoFar, Row, Totals
from alpacli.domain.ticks import Quote, Trade, instant_text
from alpacli.wire.lines import encode_lines

NOW = 1_780_000_000_000_000_000
SECOND = 1_000_000_000
MS = 1_000_000


def trade(
    price: object, size: object = 100, *, at: int = NOW, trade_id: object = None, symbol: str = "AAPL", **more: object
) -> dict[str, object]:
    named = {} if trade_id is None else {"id": trade_id}
    return (
        {"type": "trade", "symbol": symbol, "timestamp": instant_text(at), "price": price, "size": size} | named | more
    )


def quote(bid: object, ask: object, *, at: int = NOW, symbol: str = "AAPL", **more: object) -> dict[str, object]:
    sides = {"bid_price": bid, "bid_size": 4, "ask_price": ask, "ask_size": 5}
    return {"type": "quote", "symbol": symbol, "timestamp": instant_text(at)} | sides | more


def message(kind: str, at: int = NOW, /, **fields: object) -> dict[str, object]:
    return {"type": kind, "symbol": "AAPL", "timestamp": instant_text(at), **fields}


def raw(number: object) -> Raw:
    return Raw(json.dumps(number).encode())


def struct(tick: dict[str, Any]) -> Any:
    """Return the same trade or quote as the typed way of the decoder makes it."""
    if tick["type"] == "trade":
        made = Trade(tick["symbol"], tick["timestamp"], raw(tick["price"]), raw(tick["size"]))
        if "id" in tick:
            made.id_json = raw(tick["id"])
        return made
    bid, bid_size, ask, ask_size = (raw(tick[name]) for name in ("bid_price", "bid_size", "ask_price", "ask_size"))
    return Quote(tick["symbol"], tick["timestamp"], bid, bid_size, ask, ask_size)


def board(*ticks: dict[str, object], close: str | None = None, now: int = NOW) -> Board:
    made = Board(["AAPL"], {"AAPL": Decimal(close)} if close else None)
    made.apply(ticks, now)
    return made


def row(*ticks: dict[str, object], close: str | None = None, now: int = NOW) -> Row:
    return board(*ticks, close=close, now=now).rows(now)[0]


def totals(*ticks: dict[str, object]) -> Totals:
    return board(*ticks).totals(NOW)


def test_before_anything_came_nothing_is_known() -> None:
    nothing = row()
    assert nothing.symbol == "AAPL"
    assert (nothing.rate, nothing.halted, nothing.samples) == (0.0, "", ())
    assert {
        getattr(nothing, name) for name in ("last", "change", "bid", "ask", "spread_bp", "volume", "vwap", "age_s")
    } == {None}


def test_a_trade_sets_the_price_the_change_the_volume_and_the_vwap() -> None:
    seen = row(trade(110, 100, trade_id=1), trade(121, 300, trade_id=2), close="110")
    assert (seen.last, seen.change, seen.volume) == (121, 11, 400)
    assert seen.change_ratio == pytest.approx(0.1)
    assert seen.vwap == pytest.approx((110 * 100 + 121 * 300) / 400)


def test_a_previous_close_that_comes_later_counts_and_a_senseless_one_does_not() -> None:
    made = board(trade(110))
    made.set_previous_closes({"AAPL": Decimal(100), "MSFT": Decimal(5)})
    assert made.rows(NOW)[0].change == 10
    made.set_previous_closes({"AAPL": Decimal(0)})
    made.set_previous_closes({"AAPL": Decimal("NaN")})
    assert made.rows(NOW)[0].change == 10
    made.add("MSFT")
    made.apply([trade(6, symbol="MSFT")], NOW)
    assert made.rows(NOW)[1].change == 1, "remembered for a symbol that was added afterwards"


def test_a_quote_sets_both_sides_and_the_spread_in_basis_points_of_the_middle() -> None:
    seen = row(quote(99.5, 100.5))
    assert (seen.bid, seen.bid_size, seen.ask, seen.ask_size) == (99.5, 4, 100.5, 5)
    assert seen.spread_bp == pytest.approx(100)


@pytest.mark.parametrize(("bid", "ask"), [(0, 100), (100, 0), (0, 0)])
def test_a_side_where_nobody_stands_is_not_known_and_leaves_no_spread(bid: float, ask: float) -> None:
    seen = row(quote(99, 101, at=NOW - 1), quote(bid, ask))
    assert (seen.bid, seen.ask, seen.spread_bp) == (bid or None, ask or None, None)
    assert (seen.bid_size is None, seen.ask_size is None) == (not bid, not ask)


def test_an_older_message_counts_but_replaces_nothing() -> None:
    seen = row(trade(110, trade_id=2), trade(90, at=NOW - 1, trade_id=1), quote(10, 11), quote(8, 9, at=NOW - 1))
    assert (seen.last, seen.bid, seen.ask, seen.volume) == (110, 10, 11, 200)


def test_of_two_messages_of_the_same_nanosecond_the_later_arrival_wins() -> None:
    assert row(quote(10, 11), quote(12, 13)).bid == 12


def test_the_same_trade_twice_counts_once_and_another_day_or_exchange_is_another_trade() -> None:
    day = 86400 * SECOND
    again = trade(110, 100, trade_id=7)
    assert row(again, again).volume == 100
    assert totals(again, again).duplicates == 1
    assert row(again, trade(110, 100, trade_id=7, at=NOW - day)).volume == 200
    assert row(again, trade(110, 100, trade_id=7, exchange="V")).volume == 200
    assert row(trade(110, 100), trade(110, 100)).volume == 200, "without ids nothing tells them apart"
    assert row(trade(110, 100, id=None), trade(110, 100, id=None)).volume == 200


def test_a_canceled_trade_no_longer_counts_and_the_price_before_it_is_back() -> None:
    first, wrong = trade(100, 10, trade_id=1), trade(999, 10, trade_id=2)
    gone = message("cancel", id=2, price=999, size=10, action="C")
    seen = row(first, wrong, gone)
    assert (seen.last, seen.volume, seen.vwap) == (100, 10, 100)
    assert row(first, wrong, gone, gone, wrong)._replace(rate=0) == seen._replace(rate=0), "however often it is said"
    assert row(first, gone, wrong)[:12] == seen[:12], "a cancel that overtakes its trade"
    assert row(first, message("cancel", id=5, price=1, size=5)).volume == 10, "a trade that never was counted here"
    assert row(wrong, gone).last is None


def test_a_corrected_trade_counts_as_it_should_have_been() -> None:
    fields: dict[str, object] = {"original_id": 2, "original_price": 999, "original_size": 10}
    fields |= {"corrected_id": 3, "corrected_price": 101, "corrected_size": 30}
    first, wrong, corrected = trade(100, 10, trade_id=1), trade(999, 10, trade_id=2), message("correction", **fields)
    seen = row(first, wrong, corrected)
    assert (seen.last, seen.volume) == (101, 40)
    assert seen.vwap == pytest.approx((100 * 10 + 101 * 30) / 40)
    again = row(first, wrong, corrected, corrected, trade(101, 30, trade_id=3), wrong)
    assert (again.last, again.volume) == (101, 40)
    gone = row(first, wrong, corrected, message("cancel", id=3, price=101, size=30))
    assert (gone.last, gone.volume, gone.vwap) == (100, 10, 100)
    assert row(first, corrected).volume == 10, "a trade from before the start is in no sum here"


def test_a_daily_bar_is_the_base_that_later_trades_add_to() -> None:
    day = NOW - 3600 * SECOND
    bar = message("daily_bar", day, close=99, volume=1000, vwap=50)
    seen = row(trade(98, 10), bar, trade(100, 1000))
    assert (seen.last, seen.volume, seen.vwap) == (100, 2000, 75)
    assert row(trade(98, 10), bar, trade(100, 1000), bar).volume == 2000, "the same bar again takes nothing back"
    yesterday = message("daily_bar", day - 86400 * SECOND, close=1, volume=9_999_999, vwap=1)
    assert row(bar, yesterday).volume == 1000
    assert row(bar).last == 99
    assert row(message("daily_bar", day, close=99, volume=1000)).vwap is None
    assert row(message("daily_bar", day, close=99, volume=0)).volume == 0


def test_the_day_so_far_that_is_fetched_is_the_base_that_later_trades_add_to() -> None:
    made = board(trade(98, 10))
    day = DaySoFar(Decimal(50), NOW - 3600 * SECOND, Decimal(1000), Decimal(40))
    made.set_days({"AAPL": day, "MSFT": day})
    made.apply([trade(100, 1000)], NOW)
    (seen,) = made.rows(NOW)
    assert (seen.change, seen.volume, seen.vwap) == (50, 2000, 70)
    made.set_days({"AAPL": DaySoFar(None)})
    assert made.rows(NOW)[0].volume == 2000


def test_a_trade_that_was_reported_late_is_no_latency_of_ours() -> None:
    made = board(quote(1, 2), trade(1, 1, at=NOW - 20 * SECOND), trade(1, 1, at=NOW - MS))
    assert made.totals(NOW).p99_ms == pytest.approx(1, rel=0.07)
    assert made.rows(NOW)[0].volume == 2


def test_a_minutes_close_is_the_price_where_no_trades_come() -> None:
    minute = 60 * SECOND
    bars = [
        message(kind, NOW - 3 * minute, close=close, volume=5) for kind, close in (("bar", 10), ("updated_bar", 11))
    ]
    assert row(*bars).last == 11
    assert row(trade(12, at=NOW - minute), *bars).last == 12
    assert row(*bars).volume is None


def test_a_halt_shows_its_reason_until_trading_resumes() -> None:
    halt = message("status", NOW - 10, status_code="H", status_message="Trading Halt", reason_message="News pending")
    assert row(halt).halted == "News pending"
    assert row(message("status", status_code="2")).halted == "halted"
    assert row(halt, message("status", status_code="Q")).halted, "quotes come back before trading does"
    assert row(halt, message("status", status_code="T")).halted == ""
    assert row(message("status", status_code="3"), halt).halted == "", "an older status changes nothing"
    assert row(halt, message("status", status_code=None, status_message=None)).halted


def test_a_time_far_ahead_of_the_clock_does_not_keep_real_prices_out() -> None:
    seen = board(trade(1, at=NOW + 3600 * SECOND), quote(1, 2, at=NOW + 3600 * SECOND))
    seen.apply([trade(2, at=NOW + SECOND), quote(3, 4, at=NOW + SECOND)], NOW + SECOND)
    assert (seen.rows(NOW)[0].last, seen.rows(NOW)[0].bid) == (2, 3)
    assert seen.totals(NOW).early == 2


SENSELESS: list[Any] = [
    trade("abc"), trade(None), trade(0), trade(-1), trade(5, -1), trade(True), trade([1]), trade("NaN"), trade("Infinity"),
    quote(-1, 2), quote(1, "x"), quote(1, None), quote("inf", 1),
    {**trade(1), "timestamp": "yesterday"}, {**trade(1), "timestamp": "2026-13-01T00:00:00.000000000Z"},
    {**trade(1), "timestamp": 5}, {**trade(1), "symbol": None}, {"type": "trade"}, {"symbol": "AAPL"}, {},
    {**trade(1), "price": Raw(b"1e999")}, {**trade(1), "price": Raw(b"}")}, {**trade(1), "price": object()},
    {**trade(1), "symbol": "\ud800"},
    message("daily_bar", close=0, volume=1), message("daily_bar", close=1, volume=-1), message("bar", close="x", volume=1),
    message("correction", original_id=1, original_price=-1), message("cancel", id=1, timestamp=""), message("newtype"),
    5, None, "text",
]  # fmt: skip


@pytest.mark.parametrize("bad", SENSELESS, ids=range(len(SENSELESS)))
def test_what_makes_no_sense_is_counted_and_changes_nothing(bad: Any) -> None:
    good = trade(100, 10, trade_id=1)
    made = board(good)
    before = made.rows(NOW)
    made.apply([bad], NOW)
    assert made.rows(NOW) == before
    assert (made.totals(NOW).unreadable, made.totals(NOW).messages) == (1, 2)


@pytest.mark.parametrize("numbers", [("x", "1"), ("nan", "1"), ("1", "-5"), ("1e999", "1")])
def test_a_struct_with_a_bad_number_is_counted_and_changes_nothing(numbers: tuple[str, str]) -> None:
    made = board()
    price, size = (Raw(json.dumps(number).encode()) for number in numbers)
    made.apply([Trade("AAPL", instant_text(NOW), price, size), Quote("AAPL", "never", price, size, price, size)], NOW)
    assert made.totals(NOW).unreadable == 2
    assert made.rows(NOW)[0].age_s is None


def test_quoted_numbers_are_numbers_too() -> None:
    made = board()
    made.apply([Trade("AAPL", instant_text(NOW), Raw(b'"12.5"'), Raw(b'"3"'))], NOW)
    assert (made.rows(NOW)[0].last, made.rows(NOW)[0].volume) == (12.5, 3)


def test_a_bad_line_costs_only_itself() -> None:
    lines = encode_lines([trade(1, trade_id=1), quote(2, 3), trade(4, trade_id=2)]).splitlines()
    made = board()
    made.apply_lines(b"\n".join([lines[0], b'{"type":"trade"', lines[1], b"\xff", b"", lines[2]]), NOW)
    assert (made.rows(NOW)[0].last, made.rows(NOW)[0].bid) == (4, 2)
    assert (made.totals(NOW).unreadable, made.totals(NOW).messages) == (2, 5)
    made.apply_lines(b"", NOW)
    made.apply_lines(b"\n", NOW)
    assert made.totals(NOW).messages == 5


def test_every_kind_of_message_counts_in_the_rate() -> None:
    kinds = ("luld", "imbalance", "orderbook", "news", "trade_update")
    assert totals(*(message(kind) for kind in kinds)) == Totals(5, 0, None, None, 0, 0, 0, 0)


def test_the_rate_follows_the_last_seconds_and_fades_when_nothing_comes() -> None:
    made = board()
    for second in range(10):
        made.apply([quote(1, 2)] * 20, NOW + second * SECOND)
    assert made.rows(NOW + 10 * SECOND)[0].rate == pytest.approx(20, rel=0.01)
    assert made.totals(NOW + 10 * SECOND).rate == pytest.approx(20, rel=0.01)
    assert made.rows(NOW + 12 * SECOND)[0].rate == pytest.approx(5, rel=0.01)
    assert made.rows(NOW + 99 * SECOND)[0].rate == 0


def test_a_clock_that_was_set_back_stops_neither_rates_nor_samples() -> None:
    made = board(trade(1))
    for second in (5000, 0, *range(1, 9)):
        made.apply([quote(1, 2)] * 8, NOW + second * SECOND)
    assert made.rows(NOW + 9 * SECOND)[0].rate == pytest.approx(8, rel=0.05)


def test_the_age_counts_from_the_last_message_whatever_it_was() -> None:
    made = board(trade(1, at=NOW - 3600 * SECOND))
    assert made.rows(NOW + 2500 * MS)[0].age_s == pytest.approx(2.5)
    made.apply([message("luld")], NOW + 2500 * MS)
    assert made.rows(NOW + 2500 * MS)[0].age_s == 0
    assert made.rows(NOW)[0].age_s == 0, "a clock that was set back makes no negative age"


def test_samples_are_prices_over_time_not_per_message_and_end_with_now() -> None:
    made = board()
    for second in range(0, 20, SAMPLE_S):
        made.apply([trade(second + 1 + n / 100, at=NOW + second * SECOND) for n in range(50)], NOW + second * SECOND)
    samples = made.rows(NOW + 18 * SECOND)[0].samples
    assert len(samples) == 20 // SAMPLE_S
    assert samples == tuple(sorted(samples))
    assert len(made.rows(NOW + 10**6 * SECOND)[0].samples) == SAMPLES + 1


def test_without_trades_samples_lie_between_bid_and_ask() -> None:
    assert row(quote(1, 2)).samples == (1.5,)
    assert row(quote(0, 2)).samples == ()


def test_latency_is_from_the_exchange_to_here() -> None:
    made = Board(["AAPL"])
    made.apply([quote(1, 2, at=NOW - ms * MS) for ms in range(1, 101)], NOW)
    seen = made.totals(NOW)
    assert seen.p50_ms == pytest.approx(50, rel=0.07)
    assert seen.p99_ms == pytest.approx(99, rel=0.07)
    assert totals(quote(1, 2, at=NOW + SECOND)).p50_ms == 0, "a clock behind the exchange's"
    assert made.totals(NOW + 90 * SECOND).p50_ms == seen.p50_ms
    made.rows(NOW + 180 * SECOND)
    assert made.totals(NOW + 180 * SECOND).p50_ms is None


@given(st.integers(0, 60_000_000_000 * SECOND))
def test_any_latency_is_measured_within_seven_percent(latency: int) -> None:
    seen = totals(quote(1, 2, at=NOW - latency)).p50_ms if latency < NOW else latency / MS
    assert seen == pytest.approx(latency / MS, rel=0.07, abs=0.001)


def test_a_symbol_nobody_asked_for_is_not_shown_and_a_star_shows_all_sorted_behind_the_named() -> None:
    ticks = [trade(1, symbol=symbol) for symbol in ("ZM", "MSFT", "AMD", "AAPL")]
    made = Board(["TSLA", "AAPL"])
    made.apply(ticks, NOW)
    assert made.symbols == ["TSLA", "AAPL"]
    assert made.totals(NOW).messages == 4
    assert made.add("*")
    assert not made.add("*")
    made.apply(ticks, NOW)
    assert made.symbols == ["TSLA", "AAPL", "AMD", "MSFT", "ZM"]
    assert made.add("ZM")
    assert made.symbols == ["TSLA", "AAPL", "ZM", "AMD", "MSFT"]
    assert not made.add("ZM")
    assert made.remove("AMD")
    assert not made.remove("AMD")
    made.apply(ticks, NOW)
    assert "AMD" not in made.symbols, "what was taken away stays away"
    made.add("AMD")
    assert "AMD" in made.symbols


def test_a_star_fills_up_to_the_cap_and_tells_how_many_found_no_room() -> None:
    made = Board(["*"], cap=3)
    made.apply([trade(1, symbol=f"S{n}") for n in range(10)] * 2, NOW)
    assert made.symbols == ["S0", "S1", "S2"]
    assert made.totals(NOW).hidden == 7
    made.add("S9")
    assert made.totals(NOW).hidden == 6
    assert made.symbols == ["S9", "S0", "S1", "S2"]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_trades() -> None:
    import tracemalloc

    made = Board([f"S{n}" for n in range(20)])
    price = Raw(b"1")

    def memory_after(first: int, last: int) -> int:
        for start in range(first, last, 1024):
            now = NOW + start * MS
            numbers = range(start, start + 1024)
            ids = ((n % 20, Raw(str(n).encode())) for n in numbers)
            made.apply((Trade(f"S{s}", instant_text(now), price, price, "V", name) for s, name in ids), now)
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        when_full, later = memory_after(0, 34_816), memory_after(34_816, 65_536)
    finally:
        tracemalloc.stop()
    assert later - when_full < 300_000
    assert later > 1_000_000, "it does remember trades"


NUMBERS = st.sampled_from([0, 0.01, 1, 12.5, 99.99, 1e6, -1, "x", None])
TICKS = st.lists(
    st.one_of(
        st.builds(
            lambda price, size, at, n: trade(price, size, at=NOW + at, **({} if n is None else {"id": n})),
            NUMBERS, NUMBERS, st.integers(-5, 5), st.none() | st.integers(1, 4),
        ),
        st.builds(lambda bid, ask, at: quote(bid, ask, at=NOW + at), NUMBERS, NUMBERS, st.integers(-5, 5)),
    ),
    max_size=30,
)  # fmt: skip


@given(TICKS)
def test_structs_dictionaries_and_lines_lead_to_the_same_board(ticks: list[dict[str, object]]) -> None:
    loose, typed, lines = board(*ticks), board(), board()
    typed.apply([struct(tick) for tick in ticks], NOW)
    lines.apply_lines(encode_lines(ticks), NOW)
    assert loose.rows(NOW) == typed.rows(NOW) == lines.rows(NOW)
    assert loose.totals(NOW) == typed.totals(NOW) == lines.totals(NOW)


@given(TICKS)
def test_the_board_agrees_with_a_plain_reading_of_the_rules(ticks: list[dict[str, Any]]) -> None:
    last_at = quote_at = ""
    last = bid = None
    volume, seen = 0.0, set()
    for tick in ticks:
        numbers = [tick[name] for name in ("price", "size", "bid_price", "ask_price") if name in tick]
        if any(not isinstance(number, int | float) or number < 0 for number in numbers) or tick.get("price") == 0:
            continue
        at = tick["timestamp"]  # of one length, so their order is that of time
        if tick["type"] == "quote":
            if at >= quote_at:
                quote_at, bid = at, tick["bid_price"] or None
        elif tick.get("id") not in seen:
            seen |= {tick["id"]} if "id" in tick else set()
            volume += tick["size"]
            if at >= last_at:
                last_at, last = at, tick["price"]
    found = row(*ticks)
    assert (found.last, found.bid) == (last, bid)
    assert (found.volume or 0) == pytest.approx(volume)


@given(
    st.lists(st.dictionaries(
        st.sampled_from(["type", "symbol", "timestamp", "price", "size", "id", "close", "volume", "vwap", "original_id"]),
        st.one_of(
            st.sampled_from(["trade", "quote", "cancel", "correction", "daily_bar", "AAPL", "*", instant_text(NOW)]),
            st.text(max_size=5), st.floats(), st.integers(), st.none(), st.binary(max_size=5).map(Raw),
        ),
    ), max_size=10),
    st.binary(max_size=60),
)  # fmt: skip
def test_nothing_that_comes_makes_the_board_raise(ticks: list[dict[str, object]], block: bytes) -> None:
    made = Board(["AAPL", "*"], cap=5)
    made.apply(ticks, NOW)
    made.apply_lines(block, NOW)
    made.rows(NOW)
    assert made.totals(NOW).messages >= len(ticks)
