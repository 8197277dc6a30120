"""A change whose result nobody gets to see: a full disk, a reader who left, a filter that fails. It is named all the same."""

import json
import os
from pathlib import Path

import pytest
from tests.support.alpacli import Alpacli, Ended

pytestmark = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, a device that is always full")


@pytest.fixture
def sim(tmp_path: Path) -> Alpacli:
    paper = Alpacli(tmp_path)
    assert paper("sim", "reset", "--yes", "--seed", "5").code == 0
    return paper


def orders(sim: Alpacli) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(sim("orders", "--sim", "--status", "all", "--json").out)
    return found


def onto_a_full_disk(sim: Alpacli, command: str) -> Ended:
    ended = sim.shell(f"$ALPACLI {command} --sim >/dev/full")
    assert ended.code == 8, ended.errors
    assert "No space left on device" in ended.errors
    assert "Traceback" not in ended.errors
    return ended


def test_an_order_whose_result_meets_a_full_disk_is_named_with_both_ids(sim: Alpacli) -> None:
    ended = onto_a_full_disk(sim, "buy F 1 --limit 1 --client-order-id mine-1")
    (order,) = orders(sim)
    assert ended.errors.startswith("error: the order was placed: buy 1 F at 1")
    assert f"({order['id']}), client order ID mine-1; the output cannot be written" in ended.errors
    assert f"hint: do not send it again: `alpacli order {order['id']}` shows it" in ended.errors


def test_with_json_the_error_holds_the_whole_answer(sim: Alpacli) -> None:
    error = json.loads(onto_a_full_disk(sim, "buy F 1 --limit 1.25 --json").errors)["error"]
    assert error["type"] == "OutputFailed"
    assert error["result"]["id"] == orders(sim)[0]["id"]
    assert error["result"]["limit_price"] == 1.25
    moved = json.loads(onto_a_full_disk(sim, f"replace {error['result']['id']} --limit 1.5 --json").errors)["error"]
    assert moved["message"].startswith("the order was placed in its stead: ")
    assert moved["result"]["limit_price"] == 1.5


def test_many_orders_are_all_named(sim: Alpacli) -> None:
    lines = [
        {"symbol": "F", "side": "buy", "qty": 1, "limit_price": "1", "client_order_id": "file-1"},
        {"symbol": "F", "side": "buy", "qty": 10**6, "client_order_id": "file-2"},
    ]
    (sim.cwd / "orders.json").write_text(json.dumps(lines))
    ended = onto_a_full_disk(sim, "submit --from orders.json")
    assert "1 of 2 orders were placed; line 1: placed, client order ID file-1; the output" in ended.errors
    assert "file-2" not in ended.errors
    canceled = onto_a_full_disk(sim, "cancel --all --yes")
    assert "cancellations were taken: " in canceled.errors


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("close --all --yes", "are being closed"),
        ("halt", "trading is halted"),
        ("resume", "trading is not halted"),
        ("snapshot --json", "the snapshot is recorded"),
        ("watchlist create mine F", "the watchlist 'mine' was created"),
        ("watchlist delete mine --yes", "the watchlist 'mine' was deleted"),
    ],
)
def test_other_changes_are_named_too(sim: Alpacli, command: str, said: str) -> None:
    if command.startswith("close"):
        assert sim("buy", "F", "1", "--sim").code == 0
    if command.startswith("watchlist delete"):
        sim("watchlist", "create", "mine", "F", "--sim")
    assert said in onto_a_full_disk(sim, command).errors


def test_a_reader_who_left_ends_it_well_and_the_order_is_still_named(sim: Alpacli) -> None:
    left = sim.shell("{ $ALPACLI buy F 1 --limit 1 --client-order-id left-1 --sim --json; echo $? >&2; } | true")
    assert "alpacli: the order was placed: buy 1 F at 1" in left.errors
    assert "client order ID left-1; nobody read what it came to\n0\n" in left.errors


def test_how_a_change_is_to_be_shown_is_looked_at_before_it_is_made(sim: Alpacli) -> None:
    before = len(orders(sim))
    for wrong in (("--fields", "id,idd"), ("--jq", ".[")):
        refused = sim("buy", "F", "1", "--sim", *wrong)
        assert refused.code == 2, refused.errors
    assert len(orders(sim)) == before
    late = sim("buy", "F", "1", "--limit", "1", "--sim", "--jq", ".id.nothing")
    assert late.code == 8, late.errors
    assert json.loads(late.errors)["error"]["result"]["id"] == orders(sim)[0]["id"]


@pytest.mark.parametrize("words", ["--help", "--version", "buy --help", "help exit-codes"])
def test_a_full_disk_under_a_page_of_help_is_no_defect(sim: Alpacli, words: str) -> None:
    ended = sim.shell(f"$ALPACLI {words} >/dev/full")
    assert (ended.code, ended.errors.splitlines()[0]) == (
        8,
        "error: the output cannot be written: No space left on device",
    )
