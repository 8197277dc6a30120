"""Everything is brought in once, whatever goes wrong on the way and wherever it ends."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.broker_book import BrokerBook, Killed, booking, client_of, fill, order
from tests.support.examples import examples
from tests.support.fakes import ManualClock, answer

from alpacli.domain.values import Timestamp
from alpacli.errors import BudgetExhausted, ConfigError, RateLimited, ServerError, UnreadableAnswer
from alpacli.history import records
from alpacli.history.archive import Archive
from alpacli.history.records import Wanted
from alpacli.history.sync import Progress, Report, Sync
from alpacli.ports import Request, Response, SystemClock

NOW = 1_780_000_000.0  # 2026-05-28


def _at(number: int) -> str:
    """Return a time for each number, three orders to each second, as legs have it."""
    second = number // 3
    return f"2026-05-{1 + second // 72_000:02d}T{second // 3600 % 20:02d}:{second // 60 % 60:02d}:{second % 60:02d}Z"


def _book(count: int, bookings: int = 3) -> BrokerBook:
    numbers = range(count)
    cash = [booking(number, "DIV", f"2026-04-{1 + number % 28:02d}", net_amount="1") for number in range(bookings)]
    return BrokerBook([order(n, _at(n)) for n in numbers], [*(fill(n, _at(n)) for n in numbers), *cash])


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with Archive(str(tmp_path / "account.sqlite")) as made:
        yield made


def _sync(book: BrokerBook, archive: Archive, clock: ManualClock | None = None, **options: Any) -> Report:
    clock = clock or ManualClock(NOW)
    limit = options.pop("limit", 100_000)
    client = client_of(book, clock, limit=limit, max_wait_s=options.get("max_wait_s") or 10)
    from_the_start = options.pop("from_the_start", False)
    with client:
        account = client.get_account(use_cache=False)
        return Sync(client, archive, clock, **options).run(account, from_the_start=from_the_start)


def _ids(archive: Archive) -> tuple[list[str], list[str]]:
    orders = [json.loads(wire)["id"] for wire in archive.orders("ORDER BY submitted_ns, seq", ())]
    return orders, [json.loads(wire)["id"] for _, _, wire in archive.activities("ORDER BY at_ns, seq", ())]


def _expected(book: BrokerBook) -> tuple[list[str], list[str]]:
    return sorted(row["id"] for row in book.orders), sorted(row["id"] for row in book.activities)


def _whole(book: BrokerBook, archive: Archive) -> bool:
    orders, activities = _ids(archive)
    return (sorted(orders), sorted(activities)) == _expected(book)


def test_all_pages_come_with_one_request_for_500_orders(archive: Archive) -> None:
    book = _book(1_203)
    report = _sync(book, archive)
    assert _whole(book, archive)
    assert (report.orders, report.activities, report.unresolved) == (1203, 1206, ())
    assert len(book.requests_for("/v2/orders")) == 4  # three pages, and the open orders of the snapshot
    assert [row.id for row in records.orders(archive, Wanted())] == [row["id"] for row in book.orders]


def test_a_second_run_asks_only_for_what_is_new(archive: Archive) -> None:
    book = _book(1_203)
    _sync(book, archive)
    book.sent.clear()
    book.orders += [order(n, _at(n)) for n in range(1_203, 1_240)]
    book.activities += [fill(n, _at(n)) for n in range(1_203, 1_240)]
    report = _sync(book, archive)
    assert _whole(book, archive)
    assert (report.orders_changed, report.activities_changed) == (37, 37)
    assert len(book.requests_for("/v2/orders")) == 1


def test_a_run_with_nothing_new_changes_nothing(archive: Archive) -> None:
    book = _book(700)
    _sync(book, archive)
    report = _sync(book, archive)
    assert (report.orders_changed, report.activities_changed) == (0, 0)
    assert _whole(book, archive)


def _killing(at: int) -> Callable[[Request], Response | None]:
    left = [at]

    def before(_: Request) -> Response | None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return None

    return before


@settings(max_examples=examples(5))
@given(data=st.data(), count=st.integers(0, 1_100), bookings=st.integers(0, 130))
def test_killed_at_any_request_again_and_again_it_ends_whole(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, count: int, bookings: int
) -> None:
    book = _book(count, bookings)
    path = str(tmp_path_factory.mktemp("killed") / "account.sqlite")
    for at in data.draw(st.lists(st.integers(1, 18), max_size=5)):
        book.before = _killing(at)
        with Archive(path) as archive, suppress(Killed):
            _sync(book, archive)
        if data.draw(st.booleans()):
            number = len(book.orders)
            book.orders.append(order(number, _at(number)))
            book.activities.append(fill(number, _at(number)))
    book.before = lambda _: None
    with Archive(path) as archive:
        assert _sync(book, archive).unresolved == ()
        assert _whole(book, archive)


def test_an_order_that_was_open_is_read_again_until_it_is_done(archive: Archive) -> None:
    book = _book(600)
    book.orders[3] |= {"status": "new", "filled_qty": "0"}
    missing = book.activities.pop(3)
    assert _sync(book, archive).unresolved == ()
    assert _statuses(archive)[3] == "new"
    book.orders[3] |= {"status": "filled", "filled_qty": "1"}
    book.activities.append(missing)
    report = _sync(book, archive)
    assert _statuses(archive)[3] == "filled"
    assert report.unresolved == ()
    assert _whole(book, archive)


def test_many_orders_that_ended_meanwhile_are_read_by_the_page(archive: Archive) -> None:
    book = _book(900, 0)
    book.activities.clear()
    for row in book.orders:
        row |= {"status": "new", "filled_qty": "0"}
    _sync(book, archive)
    for row in book.orders:
        row["status"] = "canceled"
    book.sent.clear()
    _sync(book, archive)
    assert set(_statuses(archive)) == {"canceled"}
    assert len([request for request in book.sent if request.path.startswith("/v2/orders")]) <= 6


def _statuses(archive: Archive) -> list[str]:
    return [row.status for row in records.orders(archive, Wanted())]


def test_a_dividend_that_is_booked_days_later_under_an_older_date_is_found(archive: Archive) -> None:
    book = _book(30)
    _sync(book, archive)
    book.activities.append(booking(77, "DIV", "2026-04-01", net_amount="5"))
    _sync(book, archive)
    assert _whole(book, archive)


def test_a_fill_that_shows_up_late_is_found(archive: Archive) -> None:
    book = _book(30)
    late = book.activities.pop(25)
    _sync(book, archive)
    book.activities.insert(25, late)
    _sync(book, archive)
    assert _whole(book, archive)


def _once(path: str, number: int, *answers: Response) -> Callable[[Request], Response | None]:
    """Answer the request of that number for a path differently, and those that follow it with the further answers."""
    seen, left = [0], list(answers)

    def before(request: Request) -> Response | None:
        if request.path != path:
            return None
        seen[0] += 1
        return left.pop(0) if seen[0] >= number and left else None

    return before


LIMITED = answer({"message": "rate limit exceeded"}, 429, {"retry-after": "1"})
"""Alpaca's answer when the limit is spent."""


def test_a_429_in_the_middle_of_the_pages_is_waited_for(archive: Archive) -> None:
    book, clock = _book(1_203), ManualClock(NOW)
    book.before = _once("/v2/orders", 3, *[LIMITED] * 7)
    report = _sync(book, archive, clock)
    assert _whole(book, archive)
    assert sum(clock.slept) >= 7
    assert report.unresolved == ()


def test_with_a_bound_on_waiting_a_429_ends_it_and_the_next_run_goes_on(archive: Archive) -> None:
    book = _book(1_203)
    book.before = _once("/v2/orders", 3, *[LIMITED] * 9)
    with pytest.raises(RateLimited):
        _sync(book, archive, max_wait_s=2)
    assert archive.count("orders") == 500
    book.sent.clear()
    book.before = lambda _: None
    _sync(book, archive)
    assert _whole(book, archive)
    assert len(book.requests_for("/v2/orders")) == 2


def test_the_shared_budget_is_waited_for_and_a_quarter_of_it_left_to_others(archive: Archive) -> None:
    book, clock = _book(3_000, 0), ManualClock(NOW)
    seen: list[Progress] = []
    report = _sync(book, archive, clock, limit=20, on_progress=seen.append)
    assert _whole(book, archive)
    assert report.requests > 36
    assert any(progress.waiting_s for progress in seen)


def test_a_budget_that_is_spent_ends_it_where_waiting_is_bounded(archive: Archive) -> None:
    with pytest.raises(BudgetExhausted):
        _sync(_book(3_000), archive, limit=9, max_wait_s=0.5)
    assert archive.count("orders")


def test_a_token_that_expired_begins_the_pass_again_and_doubles_nothing(archive: Archive) -> None:
    book = _book(650)
    expired = answer({"code": 40010001, "message": "invalid page_token"}, 422)
    book.before = _once("/v2/account/activities", 4, expired)
    report = _sync(book, archive)
    assert _whole(book, archive)
    assert report.activities == 653


def test_an_order_that_is_gone_as_a_cursor_is_replaced_by_its_time(archive: Archive) -> None:
    book = _book(700)
    _sync(book, archive)
    book.orders += [order(n, _at(n)) for n in range(700, 1_300)]
    book.activities += [fill(n, _at(n)) for n in range(700, 1_300)]
    gone = answer({"code": 40410000, "message": "order not found"}, 404)
    book.before = _once("/v2/orders", 2, gone)
    _sync(book, archive)
    assert _whole(book, archive)


def test_a_page_that_comes_twice_is_kept_once_and_asked_for_again(archive: Archive) -> None:
    book = _book(1_203)
    first = answer(book.orders[:500])
    book.before = _once("/v2/orders", 3, first)
    _sync(book, archive)
    assert _whole(book, archive)


def test_a_server_that_repeats_one_page_for_ever_is_found_out(archive: Archive) -> None:
    book = _book(1_203)
    first = answer(book.orders[:500])
    book.before = _once("/v2/orders", 3, *[first] * 50)
    with pytest.raises(UnreadableAnswer, match="repeats a page"):
        _sync(book, archive)
    assert archive.count("orders") == 500


@pytest.mark.parametrize("path", ["/v2/orders", "/v2/account/activities"])
def test_a_page_that_is_missing_is_noticed_by_the_books_and_asked_for(archive: Archive, path: str) -> None:
    book = _book(560, 0)
    skipped = book.orders[500:] if path == "/v2/orders" else book.activities[100:200]
    book.before = _once(
        path,
        3 if path == "/v2/orders" else 2,
        answer(skipped[-1:] if path == "/v2/orders" else book.activities[200:300]),
    )
    report = _sync(book, archive)
    book.before = lambda _: None
    while not _whole(book, archive):
        before = archive.count("orders") + archive.count("activities")
        report = _sync(book, archive)
        assert archive.count("orders") + archive.count("activities") > before, "each run mends some of it"
    assert report.unresolved == ()


def test_an_order_that_a_list_left_out_and_that_never_filled_is_found_from_the_start(archive: Archive) -> None:
    book = _book(1_200)
    unseen = book.orders[100]
    book.activities = [activity for activity in book.activities if activity.get("order_id") != unseen["id"]]
    unseen.update(status="canceled", filled_qty="0")
    left_out = answer([row for row in book.orders[:501] if row is not unseen])
    book.before = _once("/v2/orders", 2, left_out)
    _sync(book, archive)
    book.before = lambda _: None
    _sync(book, archive)
    assert archive.count("orders") == 1_199
    report = _sync(book, archive, from_the_start=True)
    assert report.orders_changed == 1
    assert _whole(book, archive)


def test_what_does_not_add_up_at_the_broker_either_is_told(archive: Archive) -> None:
    book = _book(10, 0)
    book.orders[4]["filled_qty"] = "3"
    book.activities.append(fill(99, _at(10), order_id="00000000-0000-4000-8000-00000000abcd"))
    report = _sync(book, archive)
    assert set(report.unresolved) == {book.orders[4]["id"], "00000000-0000-4000-8000-00000000abcd"}


def test_an_answer_that_is_no_list_of_orders_ends_it_and_keeps_what_came(archive: Archive) -> None:
    book = _book(1_203)
    book.before = _once("/v2/orders", 3, answer(b"<html>"))
    with pytest.raises(UnreadableAnswer):
        _sync(book, archive)
    assert archive.count("orders") == 500


def test_an_outage_ends_it_and_the_next_run_goes_on(archive: Archive) -> None:
    book = _book(1_203)
    book.before = _once("/v2/account/activities", 5, *[answer({"message": "oops"}, 500)] * 3)
    with pytest.raises(ServerError):
        _sync(book, archive)
    book.sent.clear()
    book.before = lambda _: None
    _sync(book, archive)
    assert _whole(book, archive)
    first = dict(book.requests_for("/v2/account/activities")[0].query)
    assert first["page_token"] == book.activities[399]["id"]


def test_two_at_once_do_the_work_once(tmp_path: Path) -> None:
    book, path = _book(1_203), str(tmp_path / "account.sqlite")
    reports: list[Report] = []

    def work() -> None:
        with Archive(path) as archive, client_of(book, SystemClock()) as client:
            reports.append(Sync(client, archive, SystemClock()).run(client.get_account(use_cache=False)))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(report.orders_changed for report in reports) == [0, 1203]
    with Archive(path) as archive:
        assert _whole(book, archive)


def test_the_second_of_two_gives_up_where_waiting_is_bounded(tmp_path: Path) -> None:
    book, path = _book(600), str(tmp_path / "account.sqlite")
    refused: list[ConfigError] = []

    def second(_: Request) -> Response | None:
        if not refused:
            clock = ManualClock(NOW)
            with Archive(path) as archive, client_of(BrokerBook(), clock) as client:
                with pytest.raises(ConfigError, match="another alpacli") as caught:
                    Sync(client, archive, clock, max_wait_s=1).run(client.get_account())
                refused.append(caught.value)
        return None

    with Archive(path) as archive, client_of(book) as client:
        account = client.get_account(use_cache=False)
        book.before = second
        Sync(client, archive, ManualClock(NOW)).run(account)
    assert refused


def test_alpacas_own_equity_is_kept_by_new_york_day_and_corrected(archive: Archive) -> None:
    book = _book(1)
    book.account["created_at"] = "2026-05-20T14:00:00Z"
    book.days = {1_779_888_600: "100000.5", 1_779_975_000: "0"}  # 2026-05-27 and 28, 09:30 in New York
    _sync(book, archive)
    book.days[1_779_975_000] = "100100.25"
    _sync(book, archive)
    days = {f"{_date(day)}": equity for day, equity in archive.broker_days().items()}
    assert days == {"2026-05-27": "100000.5", "2026-05-28": "100100.25"}


@pytest.mark.parametrize("ahead_s", [-2 * 86_400, 86_400, 3 * 365 * 86_400])
def test_the_days_end_where_the_broker_is_whatever_this_machines_clock_says(archive: Archive, ahead_s: int) -> None:
    """An exchange may replay a day of years ago, and a laptop's clock may be a day off."""
    book = _book(1)
    book.account["created_at"] = "2023-05-20T14:00:00Z"
    book.days = {1_779_888_600: "100000.5"}
    for _ in range(2):
        assert _sync(book, archive, ManualClock(NOW + ahead_s)).days == 1
    ends = [dict(request.query)["end"] for request in book.requests_for("/v2/account/portfolio/history")]
    assert max(ends) == "2026-05-28T20:26:40Z"
    assert archive.chain("days").whole_ns == Timestamp.parse(book.now).epoch_ns


def _date(day: int) -> str:
    import datetime as dt

    return dt.date.fromordinal(day).isoformat()


def test_progress_tells_of_rows_and_of_the_time_they_have_come_to(archive: Archive) -> None:
    seen: list[Progress] = []
    _sync(_book(1_203), archive, on_progress=seen.append)
    orders = [progress for progress in seen if progress.what == "orders"]
    assert [progress.rows for progress in orders] == [500, 1000, 1203]
    assert sorted(progress.at_ns or 0 for progress in orders) == [progress.at_ns for progress in orders]


def test_a_busy_account_is_brought_in_without_a_record_of_its_moment(archive: Archive) -> None:
    book = _book(20)
    cash = [0]

    def restless(request: Request) -> Response | None:
        cash[0] += 1
        return answer(book.account | {"cash": str(cash[0])}) if request.path == "/v2/account" else None

    book.before = restless
    assert _sync(book, archive).snapshot_at is None
    assert _whole(book, archive)
    assert archive.count("snapshots") == 0


def test_an_order_that_is_submitted_once_more_at_another_time_stays_one(archive: Archive) -> None:
    book = _book(5, 0)
    book.orders[2] |= {"status": "accepted", "filled_qty": "0"}
    book.activities.pop(2)
    _sync(book, archive)
    book.orders[2] |= {"status": "new", "submitted_at": _at(90)}
    _sync(book, archive)
    assert _whole(book, archive)
    assert [row.id for row in records.orders(archive, Wanted())][-1] == book.orders[2]["id"]
