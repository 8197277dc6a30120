"""The rules of one call: what is cached, shared, waited for, retried and given up."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from tests.support import parts
from tests.support.fakes import ACCOUNT, ManualClock, ScriptedTransport, answer

from alpacli.broker.client import AlpacaClient
from alpacli.errors import (
    AlpacaAPIError,
    AuthenticationError,
    BudgetExhausted,
    CircuitOpen,
    ConnectionLost,
    NotFound,
    RateLimited,
    RequestTimeout,
    ServerError,
    UnreadableAnswer,
    UsageError,
)
from alpacli.ports import BudgetRules, Granted, Outcome, Request, Response, SystemClock, SystemRandomness, Ticket
from alpacli.store.policy import FLIGHT_S
from alpacli.store.sqlite import SqliteStore

SCOPE = "alpaca:{test}"
Make = Callable[..., AlpacaClient]
GOOD = answer(ACCOUNT)
LOST = ConnectionLost("the connection broke")
DOWN = answer({"message": "internal server error occurred"}, 500)


@pytest.fixture
def make(store: SqliteStore, clock: ManualClock) -> Make:
    def build(
        *answers: Response | Exception,
        limit: int = 200,
        max_wait_s: float = 10.0,
        before: Callable[[Request], None] | None = None,
        **options: Any,
    ) -> AlpacaClient:
        pipeline = parts.pipeline(
            store,
            clock,
            rules=BudgetRules(SCOPE, limit=limit, reserve=0),
            cache_ttl_s={"account": 5.0, "positions": 3.0, "orders": 0.0},
            max_wait_s=max_wait_s,
        )
        return AlpacaClient(pipeline, ScriptedTransport(*answers, before=before), clock=clock, **options)

    return build


def sent(client: AlpacaClient) -> list[Request]:
    transport = client._transport
    assert isinstance(transport, ScriptedTransport)
    return transport.sent


def test_a_second_read_within_the_lifetime_sends_nothing(make: Make, clock: ManualClock) -> None:
    client = make(GOOD)
    first = client.get_account()
    clock.advance(4.9)
    assert client.get_account() == first
    assert len(sent(client)) == 1
    clock.advance(0.2)
    client.get_account()
    assert len(sent(client)) == 2


def test_max_age_replaces_the_lifetime_up_and_down(make: Make, clock: ManualClock) -> None:
    client = make(GOOD)
    client.get_account()
    clock.advance(60)
    client.get_account(max_age=61)
    assert len(sent(client)) == 1
    clock.advance(2)
    client.get_account(max_age=1)
    assert len(sent(client)) == 2


def test_use_cache_false_asks_the_broker_and_refreshes_the_cache_for_others(make: Make) -> None:
    client = make(GOOD, answer({**ACCOUNT, "cash": "1.10"}))
    client.get_account()
    assert str(client.get_account(use_cache=False).cash) == "1.10"
    assert str(client.get_account().cash) == "1.10"
    assert len(sent(client)) == 2


def test_orders_are_not_cached_unless_an_age_is_given(make: Make) -> None:
    client = make(answer([]))
    client.get_orders()
    client.get_orders()
    assert len(sent(client)) == 2
    client.get_orders(max_age=60)
    assert len(sent(client)) == 2


def test_a_cached_reading_has_the_same_bytes_and_an_age(make: Make, clock: ManualClock) -> None:
    from alpacli.wire import rest

    client = make(GOOD)
    fresh = client.read(rest.account())
    clock.advance(2)
    cached = client.read(rest.account())
    assert cached.json == fresh.json
    assert b'"cash":98500.250' in fresh.json
    assert (fresh.age_s, cached.age_s) == (None, 2.0)


def test_an_entry_that_cannot_be_read_is_a_miss(make: Make, store: SqliteStore) -> None:
    store.put(f"{SCOPE}:account", b"\x00 not json")
    client = make(GOOD)
    assert str(client.get_account().equity) == "100020.25"
    assert len(sent(client)) == 1


def test_an_order_placed_during_a_fetch_keeps_the_old_answer_out_of_the_cache(make: Make, store: SqliteStore) -> None:
    def place_an_order(_: Request) -> None:
        store.drop(SCOPE)

    client = make(GOOD, before=place_an_order)
    client.get_account()
    client.get_account()
    assert len(sent(client)) == 2


def test_threads_that_miss_together_send_one_request() -> None:
    arrived = threading.Event()
    store = SqliteStore(":memory:", SystemClock())
    pipeline = parts.pipeline(
        store, SystemClock(), SystemRandomness(), rules=BudgetRules(SCOPE), cache_ttl_s={"account": 5.0}
    )

    def linger(_: Request) -> None:
        arrived.wait(0.2)

    client = AlpacaClient(pipeline, ScriptedTransport(GOOD, before=linger), clock=SystemClock())
    threads = [threading.Thread(target=client.get_account) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client.close()
    assert len(sent(client)) == 1


def test_a_fetch_that_fails_passes_the_lead_on_at_once(make: Make) -> None:
    client = make(answer({"message": "unauthorized."}, 401), GOOD)
    with pytest.raises(AuthenticationError):
        client.get_account()
    client.get_account()
    assert len(sent(client)) == 2


@pytest.mark.parametrize("failure", [LOST, RequestTimeout("slow"), DOWN, answer(b"<html>", 502), answer(b"", 503)])
def test_reads_are_retried_twice_with_growing_pauses(
    make: Make, clock: ManualClock, failure: Response | Exception
) -> None:
    client = make(failure, failure, GOOD)
    client.get_account()
    assert len(sent(client)) == 3
    assert clock.slept == [1.0, 2.0]  # half of 2 s and of 4 s: the jitter is fixed at one half


def test_pauses_between_retries_end_with_max_wait(make: Make, clock: ManualClock) -> None:
    client = make(LOST, DOWN, GOOD, max_wait_s=1.5)
    client.get_account()
    assert clock.slept == [1.0, 0.5]


def test_who_will_not_wait_is_answered_by_an_immediate_second_try(make: Make, clock: ManualClock) -> None:
    client = make(LOST, GOOD, max_wait_s=0.0)
    client.get_account()
    assert sum(clock.slept) == 0


def test_after_three_requests_the_last_failure_is_reported(make: Make) -> None:
    client = make(LOST, LOST, DOWN)
    with pytest.raises(ServerError) as caught:
        client.get_account()
    assert caught.value.status == 500
    assert len(sent(client)) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_other_4xx_are_answers_and_never_repeated(make: Make, status: int) -> None:
    client = make(answer({"code": status * 100000, "message": "no"}, status))
    with pytest.raises(AlpacaAPIError) as caught:
        client.get_account()
    assert caught.value.status == status
    assert len(sent(client)) == 1


def test_retry_after_decides_the_pause_on_429(make: Make, clock: ManualClock) -> None:
    client = make(answer({"message": "rate limit exceeded"}, 429, {"retry-after": "3"}), GOOD)
    client.get_account()
    assert sum(clock.slept) == pytest.approx(3.0, abs=0.1)


def test_a_429_that_asks_for_more_than_max_wait_ends_at_once_with_the_seconds(make: Make, clock: ManualClock) -> None:
    client = make(answer({"message": "rate limit exceeded"}, 429, {"retry-after": "30"}))
    with pytest.raises(RateLimited) as caught:
        client.get_account()
    assert caught.value.retry_after == 30
    assert caught.value.exit_code == 5
    assert clock.slept == []


def test_a_429_without_any_header_is_retried_after_a_pause(make: Make, clock: ManualClock) -> None:
    client = make(answer({"message": "rate limit exceeded"}, 429), GOOD)
    client.get_account()
    assert 0 < sum(clock.slept) < 5


def test_a_spent_budget_ends_with_the_seconds_to_wait(make: Make) -> None:
    client = make(GOOD, limit=1, max_wait_s=2.0)
    client.get_account()
    with pytest.raises(BudgetExhausted) as caught:
        client.get_clock()
    assert caught.value.exit_code == 5
    assert caught.value.retry_after is not None
    assert 57.9 < caught.value.retry_after < 58.1
    assert len(sent(client)) == 1


def test_a_budget_that_the_server_made_smaller_is_told_as_the_servers(make: Make) -> None:
    told = {"x-ratelimit-limit": "1", "x-ratelimit-remaining": "0"}
    client = make(answer(ACCOUNT, 200, told), limit=100, max_wait_s=2.0)
    client.get_account()
    with pytest.raises(BudgetExhausted) as caught:
        client.get_clock()
    assert "the 1 requests per 60 s that Alpaca allows" in caught.value.message
    assert "ALPACLI_RATE_LIMIT is 100" in caught.value.message
    assert len(sent(client)) == 1


def test_the_pages_of_one_read_share_one_wait(make: Make, clock: ManualClock) -> None:
    limited = answer({"message": "rate limit exceeded"}, 429, {"retry-after": "4"})
    client = make(limited, answer(_page(0)), limited, answer(_page(1)), limited, answer([]), max_wait_s=10.0)
    with pytest.raises(RateLimited):
        client.get_activities(limit=None)
    assert len(sent(client)) == 5
    assert sum(clock.slept) <= 10


def test_a_slow_broker_leaves_the_wait_for_the_budget_untouched(make: Make, clock: ManualClock) -> None:
    def dawdle(_: Request) -> None:
        clock.advance(9)

    limited = answer({"message": "rate limit exceeded"}, 429, {"retry-after": "4"})
    client = make(limited, answer(_page(0)), limited, answer([]), max_wait_s=10.0, before=dawdle)
    assert len(client.get_activities(limit=None)) == 100


def _page(number: int) -> list[dict[str, Any]]:
    return [
        {"id": f"20260105::{number:03}-{row:03}", "activity_type": "DIV", "date": "2026-01-05", "net_amount": "1.02"}
        for row in range(100)
    ]


def test_waiting_for_the_budget_is_announced_and_ends_when_a_slot_frees(make: Make) -> None:
    waits: list[str] = []
    client = make(GOOD, limit=1, max_wait_s=90.0, on_wait=lambda _, reason: waits.append(reason))
    client.get_account()
    client.get_account(use_cache=False)
    assert len(sent(client)) == 2
    assert "request budget" in waits[0]


def test_giving_up_leaves_no_place_in_the_queue(make: Make, store: SqliteStore) -> None:
    client = make(GOOD, limit=1, max_wait_s=0.0)
    client.get_account()
    with pytest.raises(BudgetExhausted):
        client.get_account(use_cache=False)
    assert client.limits().waiting == ()


def test_an_open_breaker_sends_nothing_and_says_when_to_come_back(make: Make, store: SqliteStore) -> None:
    rules = BudgetRules(SCOPE, reserve=0)
    for n in range(5):
        ticket = Ticket(f"t{n}", "other")
        assert isinstance(store.admit(rules, ticket), Granted)
        store.settle(rules, ticket, Outcome(failed=True))
    client = make(GOOD)
    with pytest.raises(CircuitOpen) as caught:
        client.get_account()
    assert caught.value.exit_code == 6
    assert caught.value.retry_after == pytest.approx(30, abs=0.5)
    assert sent(client) == []


def test_market_data_that_fails_stops_nobody_from_seeing_and_closing_positions(make: Make) -> None:
    client = make(*[DOWN] * 5, GOOD)
    for _ in range(2):
        with pytest.raises(ServerError):
            client.get_snapshots(["AAPL"])
    with pytest.raises(CircuitOpen, match="Alpaca's market data failed"):
        client.get_snapshots(["AAPL"])
    client.get_account()
    assert len(sent(client)) == 6


def test_five_failures_open_the_breaker_and_one_probe_closes_it(make: Make, clock: ManualClock) -> None:
    client = make(*[DOWN] * 5, GOOD)
    for _ in range(2):
        with pytest.raises(ServerError):
            client.get_account()
    assert len(sent(client)) == 5
    with pytest.raises(CircuitOpen):
        client.get_account()
    clock.advance(31)
    client.get_account()
    assert len(sent(client)) == 6
    assert client.limits().breaker == "closed"


@pytest.mark.parametrize("failure", [RequestTimeout("no answer"), LOST], ids=["timeout", "reset"])
def test_a_request_without_an_answer_keeps_its_slot_while_the_server_may_yet_see_it(
    make: Make, clock: ManualClock, failure: Exception
) -> None:
    client = make(failure)
    with pytest.raises(type(failure)):
        client.create_watchlist("once")
    clock.advance(FLIGHT_S + 59)
    assert client.limits().used == 1
    clock.advance(2)
    assert client.limits().used == 0


def test_a_request_that_found_no_connection_counts_for_a_window_like_one_that_was_answered(
    make: Make, clock: ManualClock
) -> None:
    failure = ConnectionLost("connection refused")
    failure.nothing_sent = True
    client = make(failure)
    with pytest.raises(ConnectionLost):
        client.create_watchlist("never")
    clock.advance(59)
    assert client.limits().used == 1
    clock.advance(2)
    assert client.limits().used == 0


@pytest.mark.parametrize("body", [b"", b"<html>hello</html>", b'{"id": ', b'["wrong"]', b'{"id": 1, "cash": {}}'])
def test_an_answer_that_cannot_be_read_is_reported_once_and_not_cached(make: Make, body: bytes) -> None:
    client = make(answer(body), GOOD)
    with pytest.raises(UnreadableAnswer) as caught:
        client.get_account()
    assert caught.value.exit_code == 6
    client.get_account()
    assert len(sent(client)) == 2


def test_creating_is_not_repeated_after_a_lost_answer(make: Make) -> None:
    client = make(LOST)
    with pytest.raises(ConnectionLost):
        client.create_watchlist("Tech", ["AAPL"])
    assert len(sent(client)) == 1


def test_deleting_what_a_lost_answer_already_deleted_is_a_success(make: Make) -> None:
    client = make(LOST, answer({"code": 40410000, "message": "watchlist not found"}, 404))
    client.delete_watchlist("3174d6df-7726-44b4-a5bd-7fda5ae6e009")
    assert len(sent(client)) == 2


WATCHLIST: dict[str, Any] = {
    "id": "3174d6df-7726-44b4-a5bd-7fda5ae6e009",
    "account_id": ACCOUNT["id"],
    "created_at": "2026-01-05T14:01:02Z",
    "updated_at": "2026-01-05T14:01:02Z",
    "name": "Tech",
    "assets": [],
}


def test_removing_a_symbol_that_a_lost_answer_already_removed_returns_the_watchlist(make: Make) -> None:
    client = make(LOST, answer({"code": 40410000, "message": "symbol not found: AAPL"}, 404), answer(WATCHLIST))
    assert client.remove_from_watchlist(WATCHLIST["id"], "AAPL").name == "Tech"
    assert [request.method for request in sent(client)] == ["DELETE", "DELETE", "GET"]
    assert sent(client)[2].path == f"/v2/watchlists/{WATCHLIST['id']}"


def test_removing_a_symbol_from_no_watchlist_is_not_found_after_a_lost_answer_too(make: Make) -> None:
    client = make(LOST, answer({"code": 40410000, "message": "watchlist not found"}, 404))
    with pytest.raises(NotFound):
        client.remove_from_watchlist(WATCHLIST["id"], "AAPL")


def test_deleting_what_never_was_is_not_found(make: Make) -> None:
    client = make(answer({"code": 40410000, "message": "watchlist not found"}, 404))
    with pytest.raises(NotFound):
        client.delete_watchlist("3174d6df-7726-44b4-a5bd-7fda5ae6e009")


def test_an_interrupted_request_keeps_its_slot_counted_while_the_server_may_yet_see_it(
    make: Make, clock: ManualClock
) -> None:
    client = make(GOOD, before=_interrupt)
    with pytest.raises(KeyboardInterrupt):
        client.get_account()
    clock.advance(FLIGHT_S + 59)
    report = client.limits()
    assert report.used == 1
    assert report.breaker == "closed"


def _interrupt(_: Request) -> None:
    raise KeyboardInterrupt


def test_invalidating_by_name_keeps_the_rest(make: Make) -> None:
    client = make(GOOD)
    client.get_account()
    assert client.invalidate_cache("positions") == 0
    assert client.invalidate_cache("account") == 1
    client.get_account()
    assert len(sent(client)) == 2


def test_invalidating_something_unknown_names_the_choices(make: Make) -> None:
    with pytest.raises(UsageError, match="nothing called 'fills'") as caught:
        make(GOOD).invalidate_cache("fills")
    assert "account, positions, orders" in caught.value.hint
