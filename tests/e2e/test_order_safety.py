"""Orders over a line that fails: each is on the book once, whatever happens to answers and to processes."""

import json
import random
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

import pytest
from tests.support import parts
from tests.support.alpacli import PROGRAM, Alpacli
from tests.support.faulty_broker import DEAF, FAULTS, FaultyBroker

from alpacli.broker.client import AlpacaClient
from alpacli.domain.tickets import OrderTicket
from alpacli.errors import FateUnknown
from alpacli.ports import BudgetRules, SystemClock, SystemRandomness
from alpacli.settings import KeyPair, Secret
from alpacli.store.journal import Journal
from alpacli.store.sqlite import SqliteStore
from alpacli.wire.alpaca import AlpacaTransport

KEYS = {"ALPACA_API_KEY": "PKTEST", "ALPACA_SECRET_KEY": "secret"}


class Hasty(SystemClock):
    """Real time, or somewhat later, but pauses are short: what is tested is not patience."""

    def __init__(self, later_s: float = 0.0) -> None:
        self._later_s = later_s

    def time(self) -> float:
        return super().time() + self._later_s

    def sleep(self, seconds: float) -> None:
        super().sleep(min(seconds, 0.01))


def client(folder: Path, url: str, later_s: float = 0.0) -> AlpacaClient:
    clock, rng = Hasty(later_s), SystemRandomness()
    pipeline = parts.pipeline(
        SqliteStore(":memory:", clock),
        clock,
        rng,
        rules=BudgetRules("alpaca:{test}", limit=10**6, breaker_failures=10**6),
    )
    journal = Journal(str(folder / "orders.jsonl"))
    desk = parts.desk(pipeline, clock, journal, rng)
    transport = AlpacaTransport(KeyPair("PKTEST", Secret("secret"), "test"), url, url)
    return AlpacaClient(pipeline, transport, clock=clock, read_timeout_s=0.4, open_desk=lambda: desk)


def kill_once(process: "subprocess.Popen[bytes]", happened: Callable[[], object]) -> None:
    """Kill a process with ``SIGKILL`` when something has happened."""
    deadline = time.monotonic() + 30
    while not happened() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.slow
def test_a_thousand_orders_on_a_bad_line_are_a_thousand_orders_on_the_book(tmp_path: Path) -> None:
    """Whose fate is unknown is found out as the error says, and sent again where it is known not to be on the book."""
    with FaultyBroker(tmp_path / "sim", rate=0.25, deaf=0.3) as broker, client(tmp_path, broker.url) as paper:
        ticket = OrderTicket(symbol="F", side="buy", qty=Decimal(1), type="limit", limit_price=Decimal("1.00"))
        unknown: dict[str, str] = {}

        def place(_: int) -> str:
            try:
                return paper.trading.place(ticket).client_order_id
            except FateUnknown as error:
                unknown[error.client_order_id] = str(error.hint)
                return error.client_order_id

        with ThreadPoolExecutor(12) as pool:
            ids = list(pool.map(place, range(1000)))
        time.sleep(1)  # what was accepted late is there by now
        assert len(set(ids)) == 1000
        assert broker.faults.total() > 100, "a line without faults proves nothing"
        assert set(broker.faults) == {*FAULTS, DEAF}
        assert unknown, "a line on which nothing stays unknown leaves nothing to find out"
        assert all("`alpacli orders --unresolved` finds out" in hint for hint in unknown.values())
        known = {row["client_order_id"] for row in broker.orders()}
        assert set(ids) - unknown.keys() <= known, "an order that was said to be placed is not there"

        found_out: set[str] = set()
        for asked in range(1, 100):  # each time when what was sent before has arrived, if it ever does
            with client(tmp_path, broker.url, later_s=300 * asked) as later:
                questions = later.trading.unresolved()
                for item in questions:
                    assert item.client_order_id in unknown
                    if item.outcome == "not placed":
                        with suppress(FateUnknown):  # then it is in the next round
                            later.trading.place(ticket._replace(client_order_id=item.client_order_id))
                            found_out.add(item.client_order_id)
                    elif item.outcome == "placed":
                        found_out.add(item.client_order_id)
                if not questions:
                    break
        else:
            pytest.fail("questions stay open however often they are asked")
        assert found_out == unknown.keys()
        on_the_book = [row["client_order_id"] for row in broker.orders()]
        assert len(on_the_book) == 1000, "an order is missing, or is there twice"
        assert set(on_the_book) == set(ids)
        journal = Journal(str(tmp_path / "orders.jsonl"))
        count, wrong = journal.verify()
        assert not wrong
        assert count >= 2000


def _paper(tmp_path: Path, url: str) -> Alpacli:
    return Alpacli(tmp_path, {**KEYS, "ALPACA_BASE_URL": url, "ALPACA_DATA_URL": url})


def test_a_killed_process_leaves_a_question_that_the_next_run_answers(tmp_path: Path) -> None:
    with FaultyBroker(tmp_path / "sim", rate=1.0, slow_s=30, faults=("accept slowly",)) as broker:
        paper = _paper(tmp_path, broker.url)
        process = subprocess.Popen(
            [PROGRAM, "buy", "F", "1", "--limit", "1", "--client-order-id", "killed"],
            env=paper.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        kill_once(process, broker.orders)
        found = paper("orders", "--unresolved", "--json")
        assert found.code == 0, found.errors
        [item] = json.loads(found.out)
        assert (item["client_order_id"], item["outcome"], item["order"]["status"]) == ("killed", "placed", "new")
        assert json.loads(paper("orders", "--unresolved", "--json").out) == []
        assert paper("audit", "verify").code == 0


def test_processes_killed_at_any_moment_lose_no_order_and_leave_the_journal_whole(tmp_path: Path) -> None:
    """Three at a time, so that one dies while another writes: what is on the book is known to the journal, once."""
    dice = random.Random(11)
    with FaultyBroker(tmp_path / "sim", rate=0.3, slow_s=0.2, faults=("accept and drop", "accept slowly")) as broker:
        paper = _paper(tmp_path, broker.url)
        began = time.monotonic()
        assert paper("buy", "F", "1", "--limit", "1").code == 0
        usual_s = time.monotonic() - began  # on this machine, as busy as it is

        def buy_and_die(number: int) -> bool:
            """Return whether it had ended well before it was to be killed."""
            process = subprocess.Popen(
                [PROGRAM, "buy", "F", "1", "--limit", "1", "--client-order-id", f"k{number}"],
                env=paper.environment(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                return process.wait(usual_s * dice.uniform(0.4, 3.0)) == 0
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                return False

        with ThreadPoolExecutor(3) as pool:
            ended_well = list(pool.map(buy_and_die, range(15)))
        time.sleep(0.5)  # what was accepted slowly is there by now
        on_the_book = [row["client_order_id"] for row in broker.orders()]
        assert len(on_the_book) == len(set(on_the_book))
        assert {f"k{number}" for number, well in enumerate(ended_well) if well} <= set(on_the_book)
        assert not all(ended_well), "nobody was killed"
        assert paper("orders", "--unresolved").code in (0, 7)
        verdict = paper("audit", "verify", "--json")
        assert verdict.code == 0, verdict.text
        [path] = paper.state.glob("orders/*.jsonl")
        lines = list(Journal(str(path)).records())
        known = {line["client_order_id"] for line in lines if line.get("outcome") == "placed"}
        assert set(on_the_book) <= known


def test_an_order_whose_fate_is_unknown_ends_with_7_and_says_what_to_do(tmp_path: Path) -> None:
    with FaultyBroker(tmp_path / "sim", rate=1.0, faults=("drop",)) as broker:
        paper = _paper(tmp_path, broker.url)
        ended = paper("buy", "F", "1", "--limit", "1", "--json", "--client-order-id", "lost")
        assert ended.code == 7, ended.errors
        assert ended.out == b""
        error = json.loads(ended.err.splitlines()[-1])["error"]
        assert error["type"] == "FateUnknown"
        assert "orders --unresolved" in error["hint"]
        found = paper("orders", "--unresolved", "--json")
        assert found.code == 7
        assert json.loads(found.out)[0]["outcome"] == "unknown"
    gone = paper("orders", "--unresolved", "--json")  # the journal still knows what the question is
    (row,) = json.loads(gone.out)
    assert (row["client_order_id"], row["outcome"], row["error"]["type"]) == ("lost", "unknown", "ConnectionLost")
    assert (gone.code, "nobody could be asked" in gone.errors) == (7, True)


def test_an_id_that_another_order_has_is_refused_although_the_answer_is_lost(tmp_path: Path) -> None:
    """The line dies before the order reaches the broker, which has an older one under the ID: that one is not this one."""
    with FaultyBroker(tmp_path / "sim", rate=0.0, faults=("drop",)) as broker:
        paper = _paper(tmp_path, broker.url)
        buy = ("buy", "F", "1", "--limit", "1", "--client-order-id", "MYID", "--json")
        assert paper(*buy).code == 0
        broker.rate = 1.0
        other = paper("buy", "AAPL", "2", "--limit", "1.00", "--client-order-id", "MYID", "--json")
        assert (other.code, other.out) == (4, b""), other.text
        error = json.loads(other.err.splitlines()[-1])["error"]
        assert (error["type"], error["status"], error["code"]) == ("OrderRejected", 422, 40010001)
        assert "MYID is the ID of another order (buy 1 F at 1, new" in error["message"]
        assert "its symbol is F, not AAPL" in error["message"]
        equal = paper(*buy)
        assert (equal.code, equal.out) == (4, b"")
        assert "it was placed before" in json.loads(equal.err.splitlines()[-1])["error"]["message"]
        assert json.loads(paper("orders", "--unresolved", "--json").out) == []
        assert len(broker.orders()) == 1
        assert broker.faults["drop"] == 2
        outcomes = [line["outcome"] for line in json.loads(paper("audit", "list", "--json").out) if "outcome" in line]
        assert [outcome for outcome in outcomes if outcome] == ["placed", "refused", "refused"]


def test_a_killed_process_whose_id_another_order_has_placed_nothing(tmp_path: Path) -> None:
    with FaultyBroker(tmp_path / "sim", rate=0.0, slow_s=30, faults=("accept slowly",)) as broker:
        paper = _paper(tmp_path, broker.url)
        assert paper("buy", "F", "1", "--limit", "1", "--client-order-id", "MYID").code == 0
        broker.rate = 1.0
        process = paper.start(
            ["buy", "AAPL", "2", "--limit", "1", "--client-order-id", "MYID"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        kill_once(process, lambda: broker.faults)
        found = paper("orders", "--unresolved", "--json")
        assert found.code == 0, found.errors
        [item] = json.loads(found.out)
        assert (item["client_order_id"], item["outcome"], item["order"]) == ("MYID", "not placed", None)
        assert "its symbol is F, not AAPL" in item["error"]["message"]
        assert "MYID was not placed" in found.errors
        assert json.loads(paper("orders", "--unresolved", "--json").out) == []


def test_several_who_close_a_position_at_once_leave_none_on_the_other_side(tmp_path: Path) -> None:
    with FaultyBroker(tmp_path / "sim", rate=0.0) as broker:
        paper = _paper(tmp_path, broker.url)
        assert paper("buy", "F", "10", "--tif", "day").code == 0
        deadline = time.monotonic() + 30
        while not json.loads(paper("positions", "--refresh", "--json").out) and time.monotonic() < deadline:
            time.sleep(0.05)
        pipe = subprocess.PIPE
        closing = [paper.start(["close", "F", "--yes"], stdout=pipe, stderr=pipe) for _ in range(4)]
        for process in closing:
            process.communicate(timeout=60)
        codes = [process.returncode for process in closing]
        assert codes.count(0) == 1, codes
        assert set(codes) <= {0, 4}
        while json.loads(paper("orders", "--status", "open", "--refresh", "--json").out):
            time.sleep(0.05)
        assert json.loads(paper("positions", "--refresh", "--json").out) == []
        assert {row["position_intent"] for row in broker.orders() if row["side"] == "sell"} == {"sell_to_close"}


@pytest.mark.slow
def test_without_a_server_nothing_was_sent_and_that_is_exit_6(tmp_path: Path) -> None:
    paper = _paper(tmp_path, "http://127.0.0.1:9")
    ended = paper("buy", "F", "1", "--limit", "1")
    assert ended.code == 6
    assert json.loads(paper("orders", "--unresolved", "--json").out or "[]") == []


def test_a_file_of_orders_that_is_sent_again_places_only_what_is_missing(tmp_path: Path) -> None:
    with FaultyBroker(tmp_path / "sim", rate=0.0) as broker:
        paper = _paper(tmp_path, broker.url)
        rows = "symbol,side,qty,limit_price\nF,buy,1,1\nAAPL,buy,2,1\n"
        first = paper("submit", "--from", "-", "--json", stdin=rows.encode())
        assert first.code == 0, first.errors
        assert [item["outcome"] for item in json.loads(first.out)] == ["placed", "placed"]
        again = paper("submit", "--from", "-", "--json", stdin=rows.encode())
        assert [item["outcome"] for item in json.loads(again.out)] == ["placed before", "placed before"]
        assert len(broker.orders()) == 2
        assert "2 of 2 orders had been placed already" in again.errors
        corrected = b"side,symbol,qty,limit_price\r\nbuy,AAPL,2,1.00\r\nbuy,MSFT,3,1\r\nbuy,AAPL,2,1\r\nbuy,F,1,1\r\n"
        mended = paper("submit", "--from", "-", "--json", stdin=corrected)
        outcomes = ["placed before", "placed", "placed", "placed before"]  # two equal lines are two orders
        assert [item["outcome"] for item in json.loads(mended.out)] == outcomes
        assert len(broker.orders()) == 4
        partly = paper("submit", "--from", "-", stdin=rows.encode() + b"F,buy,1000000000,1\n")
        assert (partly.code, "0 of 3 orders were placed, 2 had been already; " in partly.errors) == (4, True)
        assert "what was placed is not placed twice" in partly.errors
        wrong = paper("submit", "--from", "-", stdin=b'[{"symbol":"F","side":"buy","qty":1},{"symbol":"F","qty":1}]')
        assert wrong.code == 2
        assert "order 2" in wrong.errors
        assert len(broker.orders()) == 4


def test_a_line_that_was_placed_before_is_not_refused_where_its_order_cannot_be_looked_up(tmp_path: Path) -> None:
    """Who is told so corrects the line, and the corrected one is another order."""
    with FaultyBroker(tmp_path / "sim", rate=0.0, deaf=1.0) as broker:
        paper = _paper(tmp_path, broker.url)
        rows = b"symbol,side,qty,limit_price\nF,buy,1,1\nAAPL,buy,2,1\n"
        assert paper("submit", "--from", "-", stdin=rows).code == 0
        again = paper("submit", "--from", "-", "--json", stdin=rows + b"MSFT,buy,1,1\n")
        assert again.code == 7, again.errors
        assert [item["outcome"] for item in json.loads(again.out)] == ["unknown", "unknown", "placed"]
        assert "cannot be looked up" in again.errors
        assert "correct the lines" not in again.errors
        broker.heal()
        assert paper("submit", "--from", "-", stdin=rows).code == 0
        assert len(broker.orders()) == 3


def test_a_line_whose_id_is_taken_tells_by_which_order_and_whether_that_stands(tmp_path: Path) -> None:
    """Whether the broker says that the ID is taken, or its answer is lost."""
    with FaultyBroker(tmp_path / "sim", rate=0.0, faults=("drop",)) as broker:
        paper = _paper(tmp_path, broker.url)
        mine = b"symbol,side,qty,limit_price,client_order_id\nF,buy,%d,1,mine\n"
        assert paper("submit", "--from", "-", stdin=mine % 1).code == 0
        assert "1 of 1 orders had been placed already" in paper("submit", "--from", "-", stdin=mine % 1).errors
        changed = paper("submit", "--from", "-", "--json", stdin=mine % 2)
        [row] = json.loads(changed.out)
        assert (changed.code, row["outcome"], row["order"]) == (4, "refused", None)
        assert "mine is the ID of another order (buy 1 F at 1, new" in changed.errors
        broker.rate = 1.0
        dropped = paper("submit", "--from", "-", "--json", stdin=mine % 2)
        assert (dropped.code, "its qty is 1, not 2" in dropped.errors) == (4, True)
        assert "1 of 1 orders had been placed already" in paper("submit", "--from", "-", stdin=mine % 1).errors
        broker.rate = 0.0
        assert paper("cancel", json.loads(paper("orders", "--json", "--jq", ".[0]").out)["id"]).code == 0
        ended = paper("submit", "--from", "-", "--json", stdin=mine % 1)
        [row] = json.loads(ended.out)
        assert (ended.code, row["outcome"], row["order"]["status"]) == (4, "ended before", "canceled")
        assert "0 of 1 orders were placed; it was placed before and is canceled" in ended.errors
        assert "give it a client_order_id of its own" in ended.errors
        assert len(broker.orders()) == 1
