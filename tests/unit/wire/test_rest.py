"""The endpoint declarations: what is sent, what is refused before sending, how pages follow, what is read."""

import datetime as dt
import json
from collections.abc import Callable
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.examples import examples

from alpacli.domain.account import Activity
from alpacli.domain.orders import Order
from alpacli.domain.values import Timestamp, to_json
from alpacli.errors import UnreadableAnswer, UsageError
from alpacli.ports import Request
from alpacli.wire import market, rest
from alpacli.wire.rest import Call

NAIVE: Final = dt.datetime.fromisoformat("2026-01-31T00:00:00")
NOON: Final = dt.datetime(2026, 6, 24, 12, 0, tzinfo=dt.UTC)


def order_row(number: int, second: int = 0, fraction: str = "") -> dict[str, Any]:
    at = f"2026-06-24T14:{second // 60:02}:{second % 60:02}{fraction}Z"
    return {
        "id": f"{number:08}",
        "client_order_id": f"c{number}",
        "created_at": at,
        "submitted_at": at,
        "order_class": "",
        "time_in_force": "day",
        "status": "filled",
        "extended_hours": False,
    }


class Ledger:
    """A server that pages as Alpaca documents: by submission time, then by position; cursors exclude the bounds."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows  # oldest first
        self.asked: list[dict[str, str]] = []

    def answer(self, request: Request) -> bytes:
        query = dict(request.query)
        self.asked.append(query)
        assert not ({"before_order_id", "after_order_id"} & set(query) and {"after", "until"} & set(query))
        rows = self.rows
        if "after" in query:
            rows = [row for row in rows if _ns(row) > Timestamp.parse(query["after"]).epoch_ns]
        if "until" in query:
            rows = [row for row in rows if _ns(row) < Timestamp.parse(query["until"]).epoch_ns]
        places = {row["id"]: place for place, row in enumerate(rows)}
        if "before_order_id" in query:
            rows = rows[: places[query["before_order_id"]]]
        if "after_order_id" in query:
            rows = rows[places[query["after_order_id"]] + 1 :]
        if query["direction"] == "desc":
            rows = rows[::-1]
        assert int(query["limit"]) <= 500
        return json.dumps(rows[: int(query["limit"])]).encode()


def _ns(row: dict[str, Any]) -> int:
    return Timestamp.parse(row["submitted_at"]).epoch_ns


def collect(call: Call[list[Any]], answer: Callable[[Request], bytes]) -> list[Any]:
    """Follow the pages as the pipeline does."""
    page = rows = call.decode(answer(call.request))
    request = call.request
    while call.next_page is not None and (following := call.next_page(request, page, rows)) is not None:
        request = following
        page = call.decode(answer(request))
        rows = [*rows, *page]
    return call.trim(rows) if call.trim is not None else rows


# ----------------------------------------------------------------------------------------------------- orders


@settings(deadline=None, max_examples=examples(10))
@given(
    orders_in_each_second=st.tuples(*[st.sampled_from([0, 1, 250, 499, 500, 501, 800])] * 4),
    direction=st.sampled_from(["asc", "desc"]),
    bounds=st.tuples(st.one_of(st.none(), st.integers(0, 3)), st.one_of(st.none(), st.integers(0, 3))),
    limit=st.one_of(st.none(), st.integers(501, 2000)),
)
def test_pages_have_neither_gaps_nor_doubles(
    orders_in_each_second: tuple[int, ...],
    direction: str,
    bounds: tuple[int | None, int | None],
    limit: int | None,
) -> None:
    """However many orders share a timestamp, and wherever the bounds lie, each order within them comes exactly once."""
    moments = [second for second, count in enumerate(orders_in_each_second) for _ in range(count)]
    ledger = Ledger([order_row(number, second, ".000000001") for number, second in enumerate(moments)])
    after, until = (None if b is None else Timestamp.parse(f"2026-06-24T14:00:0{b}.000000001Z") for b in bounds)
    call = rest.orders(status="all", limit=limit, after=after, until=until, direction=direction)
    got = [order.id for order in collect(call, ledger.answer)]
    wanted = [
        row["id"]
        for row in ledger.rows
        if (after is None or _ns(row) > after.epoch_ns) and (until is None or _ns(row) < until.epoch_ns)
    ]
    assert got == (wanted if direction == "asc" else wanted[::-1])[:limit]


@pytest.mark.parametrize("direction", ["asc", "desc"])
def test_a_bound_inside_a_crowded_second_is_exclusive_on_later_pages_too(direction: str) -> None:
    """The bound travels with the first page only; orders exactly at it must not come in with the second."""
    ledger = Ledger([order_row(number, second=number // 700) for number in range(2100)])
    first, last = Timestamp.parse("2026-06-24T14:00:00Z"), Timestamp.parse("2026-06-24T14:00:02Z")
    rows = collect(rest.orders(limit=None, after=first, until=last, direction=direction), ledger.answer)
    assert sorted(int(row.id) for row in rows) == list(range(700, 1400))


def test_a_limit_above_500_asks_for_what_is_left() -> None:
    ledger = Ledger([order_row(number) for number in range(3000)])
    rows = collect(rest.orders(status="all", limit=1200), ledger.answer)
    assert [query["limit"] for query in ledger.asked] == ["500", "500", "200"]
    assert [row.id for row in rows] == [f"{number:08}" for number in range(2999, 1799, -1)]


def test_the_filters_stay_on_every_page_and_the_bounds_on_the_first() -> None:
    """Alpaca refuses a cursor beside after or until, so these do not travel on."""
    ledger = Ledger([order_row(number) for number in range(1100)])
    call = rest.orders(status="closed", limit=None, after=NOON, symbols=["AAPL", "BTC/USD"], side="buy", nested=True)
    collect(call, ledger.answer)
    for query in ledger.asked:
        assert query["status"] == "closed"
        assert query["symbols"] == "AAPL,BTC/USD"
        assert query["side"] == "buy"
        assert query["nested"] == "true"
    assert [sorted({"after", "before_order_id"} & set(query)) for query in ledger.asked] == [
        ["after"],
        ["before_order_id"],
        ["before_order_id"],
    ]


def test_no_page_is_asked_for_beyond_the_bound() -> None:
    """Once the last row lies before ``after``, the rest does too."""
    ledger = Ledger([order_row(number, second=number // 10) for number in range(3000)])
    collect(rest.orders(limit=None, after=Timestamp.parse("2026-06-24T14:04:00Z")), ledger.answer)
    assert len(ledger.asked) == 2


def test_a_server_that_ignores_the_cursor_ends_in_an_error() -> None:
    page = json.dumps([order_row(number) for number in range(500)]).encode()
    with pytest.raises(UnreadableAnswer, match="repeats"):
        collect(rest.orders(limit=None), lambda _: page)


def test_a_short_page_of_known_rows_is_simply_the_end() -> None:
    pages = [[order_row(n) for n in range(500)], [order_row(n) for n in range(490, 500)]]
    rows = collect(rest.orders(limit=None), lambda _: json.dumps(pages.pop(0)).encode())
    assert len(rows) == 500


def test_a_small_limit_is_one_request() -> None:
    call = rest.orders(status="open", limit=100)
    assert call.next_page is None
    assert call.request == Request("GET", "/v2/orders", (("status", "open"), ("direction", "desc"), ("limit", "100")))


def test_rows_without_a_submission_time_are_placed_by_their_creation() -> None:
    rows = [{**order_row(number), "submitted_at": None} for number in range(3)]
    call = rest.orders(limit=None, after=NOON)
    assert len(collect(call, lambda _: json.dumps(rows).encode())) == 3


# ------------------------------------------------------------------------------------------------- activities


def activity_row(number: int) -> dict[str, Any]:
    return {"id": f"{number:017}::x", "activity_type": "FILL", "qty": "1.50"}


def activity_server(rows: list[dict[str, Any]], asked: list[dict[str, str]]) -> Callable[[Request], bytes]:
    def answer(request: Request) -> bytes:
        query = dict(request.query)
        asked.append(query)
        places = {row["id"]: place for place, row in enumerate(rows)}
        start = places[query["page_token"]] + 1 if "page_token" in query else 0
        return json.dumps(rows[start : start + int(query["page_size"])]).encode()

    return answer


@pytest.mark.parametrize(
    ("limit", "sizes", "count"),
    [
        (None, ["100", "100", "100"], 250),
        (120, ["100", "20"], 120),
        (100, ["100"], 100),
        (7, ["7"], 7),
        (400, ["100"] * 3, 250),
    ],
)
def test_activities_follow_the_last_row(limit: int | None, sizes: list[str], count: int) -> None:
    asked: list[dict[str, str]] = []
    rows = [activity_row(number) for number in range(250)]
    got = collect(rest.activities(limit=limit, activity_types=["FILL"]), activity_server(rows, asked))
    assert [row.id for row in got] == [row["id"] for row in rows[:count]]
    assert [query["page_size"] for query in asked] == sizes
    assert {query["activity_types"] for query in asked} == {"FILL"}


def test_activities_that_repeat_end_in_an_error() -> None:
    page = json.dumps([activity_row(number) for number in range(100)]).encode()
    with pytest.raises(UnreadableAnswer, match="repeats"):
        collect(rest.activities(limit=None), lambda _: page)


# --------------------------------------------------------------------------------------------------- requests


@pytest.mark.parametrize(
    ("call", "method", "target"),
    [
        (rest.account(), "GET", "/v2/account"),
        (rest.positions(), "GET", "/v2/positions"),
        (rest.position("BTC/USD"), "GET", "/v2/positions/BTCUSD"),
        (rest.asset("BRK.B"), "GET", "/v2/assets/BRK.B"),
        (rest.asset(" a?b#c "), "GET", "/v2/assets/A%3FB%23C"),
        (rest.order("x/../y"), "GET", "/v2/orders/x%2F..%2Fy"),
        (rest.order_by_client_order_id("a b"), "GET", "/v2/orders:by_client_order_id"),
        (rest.clock(), "GET", "/v2/clock"),
        (rest.watchlists(), "GET", "/v2/watchlists"),
        (rest.watchlist_by_name("My list"), "GET", "/v2/watchlists:by_name"),
        (rest.remove_from_watchlist("w1", "BTC/USD"), "DELETE", "/v2/watchlists/w1/BTCUSD"),
        (rest.delete_watchlist("w1"), "DELETE", "/v2/watchlists/w1"),
    ],
)
def test_paths_are_encoded_segments(call: Call[Any], method: str, target: str) -> None:
    assert (call.request.method, call.request.path) == (method, target)


def test_times_are_sent_aware_and_with_their_own_digits() -> None:
    york = NOON.astimezone(dt.timezone(dt.timedelta(hours=-4)))
    query = dict(rest.orders(after=york, until=Timestamp.parse("2026-06-24T14:30:00.123456789Z")).request.query)
    assert query["after"] == "2026-06-24T12:00:00Z"
    assert query["until"] == "2026-06-24T14:30:00.123456789Z"


def test_kinds_of_activities_are_sent_in_capitals_as_alpaca_knows_them() -> None:
    assert dict(rest.activities(activity_types=["fill", "Div"]).request.query)["activity_types"] == "FILL,DIV"


def test_optional_filters_are_left_out() -> None:
    assert dict(rest.assets(status=None).request.query) == {}
    assert dict(rest.calendar().request.query) == {}
    assert dict(rest.portfolio_history().request.query) == {}
    assert dict(rest.calendar(dt.date(2026, 1, 1), dt.date(2026, 1, 1)).request.query) == {
        "start": "2026-01-01",
        "end": "2026-01-01",
    }


def test_watchlist_bodies_are_exact_json() -> None:
    assert rest.create_watchlist("é", ["AAPL", "BTC/USD"]).request.body == (
        '{"name":"é","symbols":["AAPL","BTC/USD"]}'.encode()
    )
    assert rest.add_to_watchlist("w", "MSFT").request.body == b'{"symbol":"MSFT"}'
    assert rest.update_watchlist("w", "n", []).request.method == "PUT"


def test_only_changes_make_the_cache_stale() -> None:
    reads: list[Call[Any]] = [rest.account(), rest.orders(), rest.watchlists(), rest.assets()]
    assert all(call.changes == () and call.cache_key is not None for call in reads)
    changes: list[Call[Any]] = [rest.create_watchlist("n"), rest.delete_watchlist("w")]
    assert all(call.changes == ("watchlists",) and call.cache_key is None for call in changes)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: rest.orders(status="pending"),
        lambda: rest.orders(direction="up"),
        lambda: rest.orders(side="short"),
        lambda: rest.orders(limit=0),
        lambda: rest.orders(limit=-5),
        lambda: rest.orders(after=NAIVE),
        lambda: rest.orders(symbols=["A,B"]),
        lambda: rest.orders(symbols=[""]),
        lambda: rest.orders(symbols="AAPL"),
        lambda: rest.order(" "),
        lambda: rest.order(".."),
        lambda: rest.position("/"),
        lambda: rest.order_by_client_order_id(""),
        lambda: rest.calendar(dt.date(2026, 2, 1), dt.date(2026, 1, 1)),
        lambda: rest.calendar(NOON),
        lambda: rest.assets(status="deleted"),
        lambda: rest.activities(category="trades"),
        lambda: rest.activities(category="trade_activity", activity_types=["FILL"]),
        lambda: rest.activities(limit=0),
        lambda: rest.activities(after=NAIVE),
        lambda: rest.activities(day=NOON),
        lambda: rest.activities(activity_types="FILL"),
        lambda: market.news(start=NAIVE),
        lambda: market.news(end=NAIVE),
        lambda: rest.portfolio_history(period="1Y"),
        lambda: rest.portfolio_history(period="0D"),
        lambda: rest.portfolio_history(timeframe="2Min"),
        lambda: rest.portfolio_history(pnl_reset="never"),
        lambda: rest.portfolio_history(intraday_reporting="all"),
        lambda: rest.portfolio_history(period="1D", start=NOON, end=NOON),
        lambda: rest.portfolio_history(start=NAIVE),
        lambda: rest.create_watchlist(" "),
        lambda: rest.watchlist_by_name("x" * 65),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_sent(wrong: Callable[[], object]) -> None:
    with pytest.raises(UsageError) as caught:
        wrong()
    assert caught.value.exit_code == 2
    assert caught.value.hint


# ---------------------------------------------------------------------------------------------------- caching


def test_cache_keys_follow_the_contract() -> None:
    """``account``, ``positions``, ``orders:STATUS:LIMIT…``: what ``cache clear`` drops by prefix."""
    assert (rest.account().cache_key, rest.account().ttl_s) == ("account", 5)
    assert (rest.positions().cache_key, rest.positions().ttl_s) == ("positions", 3)
    orders = rest.orders(status="all", limit=100)
    assert orders.cache_key is not None
    assert orders.cache_key.startswith("orders:all:100")
    assert orders.ttl_s == 0
    single: list[Call[Any]] = [rest.order("x"), rest.order_by_client_order_id("x")]
    assert all(str(call.cache_key).startswith("orders:") for call in single)
    assert str(rest.position("X").cache_key).startswith("positions:")


def test_different_questions_have_different_keys() -> None:
    calls: list[Call[Any]] = [
        rest.orders(),
        rest.orders(limit=51),
        rest.orders(limit=None),
        rest.orders(nested=True),
        rest.orders(side="buy"),
        rest.orders(symbols=["A"]),
        rest.orders(symbols=[f"S{n}" for n in range(100)]),
        rest.orders(symbols=[f"S{n}" for n in range(101)]),
        rest.orders(after=NOON),
        rest.orders(until=NOON),
        rest.orders(direction="asc"),
        rest.order("a"),
        rest.order("a", nested=True),
        rest.assets(),
        rest.assets(status=None),
        rest.asset("list"),
        rest.activities(),
        rest.activities(limit=None),
        rest.activities(day=dt.date(2026, 1, 1)),
        rest.calendar(),
        rest.calendar(dt.date(2026, 1, 1)),
        rest.portfolio_history(),
        rest.portfolio_history(period="1D"),
        rest.watchlists(),
        rest.watchlist("a"),
        rest.watchlist_by_name("a"),
    ]
    keys = [call.cache_key for call in calls]
    assert len(set(keys)) == len(keys)
    assert all(len(str(key)) < 220 for key in keys)


# --------------------------------------------------------------------------------------------------- decoding


@pytest.mark.parametrize(
    ("call", "body"),
    [
        (rest.account(), b""),
        (rest.account(), b"  "),
        (rest.account(), b"<html>"),
        (rest.account(), b"{"),
        (rest.account(), b"[]"),
        (rest.account(), b"null"),
        (rest.account(), b"{}"),
        (rest.account(), b'{"id":"1","account_number":"1","status":"ACTIVE","equity":NaN}'),
        (rest.account(), b'{"id":"1","account_number":"1","status":"ACTIVE","equity":"many"}'),
        (rest.positions(), b"{}"),
        (rest.positions(), b'"text"'),
        (rest.positions(), b"true"),
        (rest.positions(), b"5"),
        (rest.positions(), b"[5]"),
        (rest.orders(), b'[{"id":1}]'),
    ],
)
def test_an_answer_that_is_not_what_was_promised_is_unreadable(call: Call[Any], body: bytes) -> None:
    """One short line says what is wrong, without the body itself."""
    with pytest.raises(UnreadableAnswer) as caught:
        call.decode(body)
    assert caught.value.hint
    assert len(caught.value.message) < 250
    assert "\n" not in caught.value.message


def test_what_was_cached_reads_back_the_same() -> None:
    """The wire's strings and the cache's numbers are the same value."""
    wire = json.dumps([{**order_row(1), "qty": "1.50", "new_field": "1.50"}]).encode()
    orders = rest.orders().decode(wire)
    assert rest.orders().decode(to_json(orders)) == orders
    assert b'"qty":1.50' in to_json(orders)
    assert isinstance(orders[0], Order)


def test_deleting_answers_nothing() -> None:
    deletion: Call[Any] = rest.delete_watchlist("w")
    assert deletion.decode(b"") is None
    assert isinstance(rest.activities().decode(b'[{"id":"1","activity_type":"FEE"}]')[0], Activity)


@pytest.mark.parametrize(
    "ask",
    [
        rest.order,
        rest.position,
        rest.order_by_client_order_id,
        rest.watchlist_by_name,
        rest.create_watchlist,
        lambda text: rest.create_watchlist("Tech", [text]),
        lambda text: rest.orders(symbols=[text]),
        lambda text: rest.assets(asset_class=text * 200),
    ],
)
def test_an_argument_that_is_not_text_is_wrong_usage(ask: Callable[[str], object]) -> None:
    """A byte on the command line that is no UTF-8 arrives as half a surrogate pair, which no request can carry."""
    with pytest.raises(UsageError, match="not text"):
        ask("AA\udcff")


@pytest.mark.parametrize("ask", [market.snapshots, market.news])
def test_one_text_is_not_taken_for_a_list_of_symbols(ask: Any) -> None:
    with pytest.raises(UsageError, match="symbols is one text"):
        ask("AAPL")


def test_snapshots_of_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match="no symbol was given"):
        market.snapshots([])


def test_words_are_taken_in_any_case_and_sent_as_alpaca_writes_them() -> None:
    sent = dict(rest.orders(status="OPEN", side="Buy", direction="ASC").request.query)
    assert (sent["status"], sent["side"], sent["direction"]) == ("open", "buy", "asc")
    assert dict(rest.portfolio_history(timeframe="1min").request.query)["timeframe"] == "1Min"
