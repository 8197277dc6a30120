"""What a share costs is asked of the best feed of the plan, and what is no price is not taken for one."""

from decimal import Decimal
from pathlib import Path

import pytest
from tests.support import parts
from tests.support.fakes import ManualClock, ScriptedTransport, answer

from alpacli.broker.facts import FactFinder
from alpacli.broker.flow import Do, Send
from alpacli.domain.order_rules import Facts
from alpacli.domain.tickets import OrderTicket
from alpacli.domain.worth import Quote
from alpacli.errors import AuthenticationError
from alpacli.history.plan import Plan
from alpacli.ports import Response
from alpacli.store.sqlite import SqliteStore

NOT_IN_THE_PLAN = answer({"message": "subscription does not permit querying recent SIP data"}, 403)
NO_KEYS = answer({"message": "forbidden."}, 403)


def _quote(bid: str, ask: str, symbol: str = "AAPL") -> Response:
    return answer(f'{{"quotes":{{"{symbol}":{{"bp":{bid},"ap":{ask}}}}}}}'.encode())


class Bench:
    """A fact finder of one process; ``plan`` is what all of them remember."""

    def __init__(self, plan: Path, *answers: Response | Exception, at: float = 1_780_000_000.0) -> None:
        self.clock = ManualClock(at)
        self.transport = ScriptedTransport(*answers)
        self.warnings: list[str] = []
        pipeline = parts.pipeline(SqliteStore(":memory:", self.clock), self.clock)
        self._facts = FactFinder(pipeline, self.clock, Plan(str(plan)), self.warnings.append)

    def quote(self, symbol: str = "AAPL") -> Quote | None:
        ticket = OrderTicket(symbol=symbol, side="buy", qty=Decimal(1))
        flow = self._facts.priced(ticket, Facts())
        result: object = None
        try:
            while True:
                step = flow.send(result)
                if isinstance(step, Send):
                    result = self.transport.send(step.request, connect_timeout_s=1, read_timeout_s=1)
                else:
                    assert isinstance(step, Do)
                    result = step.run()
        except StopIteration as end:
            facts: Facts = end.value
            return facts.quote

    @property
    def feeds(self) -> list[str | None]:
        return [dict(request.query).get("feed") for request in self.transport.sent]


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    return tmp_path / "market" / "plan.json"


def test_a_plan_that_has_the_sip_is_quoted_by_it_with_one_request_an_order(plan: Path) -> None:
    bench = Bench(plan, _quote("99", "101"))
    assert [bench.quote(), bench.quote()] == [Quote(Decimal(99), Decimal(101))] * 2
    assert bench.feeds == ["sip", "sip"]


def test_a_plan_without_the_sip_is_asked_once_a_day_by_all_processes_together(plan: Path) -> None:
    first = Bench(plan, NOT_IN_THE_PLAN, _quote("99", "101"))
    assert [first.quote(), first.quote()] == [Quote(Decimal(99), Decimal(101))] * 2
    assert first.feeds == ["sip", "iex", "iex"]
    assert first.warnings == []
    second = Bench(plan, _quote("99", "101"), at=first.clock.time() + 86_000)
    second.quote()
    assert second.feeds == ["iex"]
    upgraded = Bench(plan, _quote("99", "101"), at=first.clock.time() + 86_401)
    upgraded.quote()
    assert upgraded.feeds == ["sip"]


def test_what_cannot_be_written_down_is_remembered_while_the_process_runs(tmp_path: Path) -> None:
    (tmp_path / "market").write_text("no folder")
    bench = Bench(tmp_path / "market" / "plan.json", NOT_IN_THE_PLAN, _quote("99", "101"))
    bench.quote()
    bench.quote()
    assert bench.feeds == ["sip", "iex", "iex"]


def test_keys_that_are_refused_by_both_feeds_are_told_of_and_teach_nothing_about_the_plan(plan: Path) -> None:
    bench = Bench(plan, NO_KEYS)
    with pytest.raises(AuthenticationError):
        bench.quote()
    assert bench.feeds == ["sip", "iex"]
    assert not plan.exists()


def test_a_quote_that_cannot_be_had_is_said_and_teaches_nothing_about_the_plan(plan: Path) -> None:
    bench = Bench(plan, answer({"message": "invalid symbol: AAPL"}, 422), _quote("99", "101"))
    assert bench.quote() is None
    assert len(bench.warnings) == 1
    assert bench.quote() is not None
    assert bench.feeds == ["sip", "sip"]


def test_bid_and_offer_more_than_a_tenth_apart_are_no_price_of_a_share(plan: Path) -> None:
    bench = Bench(plan, _quote("100", "110"), _quote("100", "110.01"))
    assert bench.quote() == Quote(Decimal(100), Decimal(110))
    assert bench.quote() is None
    assert bench.warnings == ["not checked: AAPL is bid at 100 and offered at 110.01, too far apart to be its price"]


@pytest.mark.parametrize("symbol", ["AAPL271217C00150000", "BTC/USD"])
def test_options_and_coins_have_no_feed_and_wide_quotes(plan: Path, symbol: str) -> None:
    bench = Bench(plan, _quote("1", "2", symbol))
    assert bench.quote(symbol) == Quote(Decimal(1), Decimal(2))
    assert bench.feeds == [None]
    assert not plan.exists()
