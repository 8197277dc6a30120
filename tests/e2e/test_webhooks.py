"""Webhooks with real processes: an exchange, a gateway that is killed, and a receiver that is not always well."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from tests.support.alpacli import Alpacli
from tests.support.gateway import PAIR, Gateway
from tests.support.origin import Origin, Reply
from tests.support.sim_server import SimServer
from tests.support.streaming import user_of
from tests.support.terminal import Terminal

from alpacli.gateway.hook_queue import Hook
from alpacli.gateway.keeping import open_hooks
from alpacli.gateway.webhooks import signature
from alpacli.settings import Flags, load


@pytest.fixture
def exchange(tmp_path: Path) -> Iterator[SimServer]:
    with SimServer(tmp_path / "exchange") as running:
        yield running


@pytest.fixture
def receiver() -> Iterator[Origin]:
    with Origin() as running:
        running.reply("/hook", Reply(204))
        yield running


def _until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    give_up_at = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < give_up_at
        time.sleep(0.05)


def _order(exchange: SimServer, **fields: str) -> str:
    """Place an order as another program would, and return its id."""
    order = {"symbol": "AAPL", "qty": "1", "side": "buy", "type": "market", "time_in_force": "day", **fields}
    answer = requests.post(f"{exchange.url}/v2/orders", json=order, headers=PAIR, timeout=20)
    return str(answer.json()["id"])


def _stands(user: Alpacli) -> Hook:
    """Return how the only webhook stands, as ``serve hooks list`` would, without the cost of a process."""
    (hook,) = open_hooks(load(Flags(), env=user.environment(), cwd=str(user.cwd))).hooks()
    return hook


def _told(receiver: Origin) -> list[dict[str, Any]]:
    return [json.loads(request.body) for request in receiver.requests]


def _told_once(receiver: Origin) -> list[dict[str, Any]]:
    """Return what was told, without what comes again: the fill, where the gateway was killed before it noted it as told."""
    return [
        json.loads(body)
        for body in {seen.headers["alpacli-delivery"]: seen.body for seen in receiver.requests}.values()
    ]


def test_order_updates_reach_the_receiver_signed_and_in_order_also_those_of_a_killed_gateway(
    exchange: SimServer, receiver: Origin, tmp_path: Path
) -> None:
    user = user_of(exchange.ws, tmp_path)
    added = user("serve", "hooks", "add", f"{receiver.url}/hook", "--events", "new,fill,canceled", "--json")
    assert added.code == 0, added.errors
    hook = json.loads(added.out)
    with Gateway(exchange.ws, tmp_path, user=user) as gateway:
        assert user("serve", "hooks", "test", hook["id"]).code == 0
        _until(lambda: [update["type"] for update in _told(receiver)] == ["test"])
        first = _order(exchange)  # maybe before the trading stream is there
        _until(lambda: _told(receiver)[-1].get("order", {}).get("status") == "filled")
        heard = len(_told(receiver))
        order = _order(exchange)
        _until(lambda: len(_told(receiver)) == heard + 2)
        updates = _told(receiver)
        assert {update["order"]["id"] for update in updates[1:heard]} == {first}
        assert [(update["order"]["id"], update["event"]) for update in updates[heard:]] == [
            (order, "new"),
            (order, "fill"),
        ]
        request = receiver.requests[-1]
        at = int(request.headers["alpacli-signature"].partition(",")[0].removeprefix("t="))
        assert request.headers["alpacli-signature"] == signature(hook["secret"], at, request.body)
        os.kill(gateway.process.pid, signal.SIGKILL)
        waiting = _order(exchange, symbol="MSFT", type="limit", limit_price="1", time_in_force="gtc")
        assert requests.delete(f"{exchange.url}/v2/orders/{waiting}", headers=PAIR, timeout=20).status_code == 204
    with Gateway(exchange.ws, tmp_path, user=user):
        _until(lambda: any(update.get("order", {}).get("id") == waiting for update in _told(receiver)))
        _until(lambda: _stands(user).waiting == 0)  # also what was on the way when the first one was killed
    assert _told_once(receiver)[-1]["event"] == "canceled"
    listed = json.loads(user("serve", "hooks", "list", "--json").out)
    assert [(one["state"], one["waiting"], one["gave_up"]) for one in listed] == [("well", 0, 0)]
    assert hook["secret"] not in user("serve", "hooks", "list").text


def test_a_receiver_that_fails_is_shown_and_gets_everything_later(
    exchange: SimServer, receiver: Origin, tmp_path: Path
) -> None:
    user = user_of(exchange.ws, tmp_path)
    receiver.reply("/hook", Reply(500))
    hook = json.loads(user("serve", "hooks", "add", f"{receiver.url}/hook", "--json").out)["id"]
    with Gateway(exchange.ws, tmp_path, user=user):
        assert user("serve", "hooks", "test", hook).code == 0
        _until(lambda: _stands(user).failing_since is not None)
        assert json.loads(user("serve", "hooks", "list", "--json").out)[0]["state"] == "failing"
        receiver.reply("/hook", Reply(fault="reset"), Reply(200))
        _until(lambda: _stands(user).delivered == 1)
    assert len({request.headers["alpacli-delivery"] for request in receiver.requests}) == 1
    assert user("serve", "hooks", "remove", hook).code == 0
    assert user("serve", "hooks", "remove", hook).code == 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["http://example.org/hook"], "https"),
        (["ftp://example.org/hook"], "web address"),
        (["https://me:secret@example.org/hook"], "user name"),
        (["https://example.org/hook", "--events", "fill,filled"], "choose among"),
    ],
)
def test_a_webhook_that_makes_no_sense_is_wrong_usage(tmp_path: Path, arguments: list[str], said: str) -> None:
    refused = user_of("ws://127.0.0.1:9", tmp_path)("serve", "hooks", "add", *arguments)
    assert refused.code == 2
    assert said in refused.errors
    assert "secret" not in refused.errors


def test_the_list_shows_whole_addresses_on_a_common_terminal(tmp_path: Path) -> None:
    user = user_of("ws://127.0.0.1:9", tmp_path)
    urls = ["http://127.0.0.1:9000/orders/updates", "https://example.org/" + "very-long/" * 20]
    for url in urls:
        assert user("serve", "hooks", "add", url, "--events", "fill,partial_fill,canceled").code == 0
    terminal = Terminal(user, "serve", "hooks", "list", columns=80)
    try:
        assert terminal.ended()
        assert f" {urls[0]} " in terminal.text
        assert urls[1][:40] in terminal.text
        assert "State" in terminal.text
    finally:
        terminal.close()
