"""The bad days of ``alpacli stream``: servers that go, refuse, fall silent or talk nonsense, signals, full disks, dead hubs.

Each on real sockets and real processes; what is about the connection both through the hub and without it.
"""

import asyncio
import json
import os
import re
import signal
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.support.alpacli import DEADLINE_S, Alpacli, Ended
from tests.support.broken_server import BrokenServer, Step
from tests.support.feed import CONNECTED, Conversation, Feed, Script, quote, steadily, trade
from tests.support.streaming import eventually, hub_pids, hubs_are_gone, parsed, start, user_of

from alpacli.ports import SystemClock
from alpacli.sim.exchange import Exchange
from alpacli.sim.orders import enter, fill_order, new_order

SHARINGS = [(), ("--no-hub",)]
MARKET = ("AAPL", "--trades")
UPDATES = ("--updates",)
AUTHORIZED = {"stream": "authorization", "status": "authorized", "action": "authenticate"}

Process = subprocess.Popen[bytes]


def end(process: Process) -> Ended:
    out, errors = process.communicate(timeout=DEADLINE_S)
    assert b"Traceback" not in errors
    assert b"defect" not in errors
    return Ended(process.returncode, out, errors)


def error_of(ended: Ended) -> dict[str, Any]:
    """Return the error that a run with ``--json`` ended with; notices come before it."""
    error: dict[str, Any] = json.loads(ended.err.splitlines()[-1])["error"]
    return error


def all_ways(user: Alpacli, *args: str, about: tuple[tuple[str, ...], ...] = (MARKET, UPDATES)) -> list[Process]:
    """Start streams of market data and order updates, through the hub and without it."""
    return [start(user, *what, *args, *sharing) for what in about for sharing in SHARINGS]


# --------------------------------------------------------------------------------- gone during the handshake


async def gone_when_open(conversation: Conversation) -> None:
    conversation.go()


async def gone_before_login(conversation: Conversation) -> None:
    if not conversation.updates:
        await conversation.say(CONNECTED)
    conversation.go()


async def gone_after_login(conversation: Conversation) -> None:
    if not conversation.updates:
        await conversation.say(CONNECTED)
    await conversation.hear()
    conversation.go()


async def admitted(conversation: Conversation) -> None:
    if conversation.updates:
        await conversation.hear()
        await conversation.tell(**AUTHORIZED)
    else:
        await conversation.greet()


async def gone_when_authenticated(conversation: Conversation) -> None:
    await admitted(conversation)
    await conversation.socket.close(1001, "going away")


async def gone_before_the_confirmation(conversation: Conversation) -> None:
    await admitted(conversation)
    await conversation.hear()
    conversation.go()


async def gone_within_the_confirmation(conversation: Conversation) -> None:
    await admitted(conversation)
    await conversation.hear()
    conversation.go(b'[{"T":"subscription","tra')


STEPS: list[Script] = [
    gone_when_open,
    gone_before_login,
    gone_after_login,
    gone_when_authenticated,
    gone_before_the_confirmation,
    gone_within_the_confirmation,
]


def assert_given_up(processes: list[Process], reason: str) -> None:
    for process in processes:
        ended = end(process)
        assert ended.code == 6, ended.errors
        assert ended.out == b""
        error = error_of(ended)
        assert error["type"] == "StreamLost"
        assert re.fullmatch(rf"the stream is lost after 1 attempt to reconnect: .*({reason}).*", error["message"])
        assert error["hint"]
        assert re.search(rf"alpacli: .*({reason}).*; trying again in 0\.\d s \(attempt 1\)", ended.errors)


def assert_attempts(connections: int, each: int) -> None:
    """Each of ``all_ways`` connected so often; a hub may try once more before it notices that nobody is left."""
    assert 4 * each <= connections <= 4 * each + (2 if each > 1 else 0)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
def test_a_server_that_goes_during_the_handshake_is_tried_again_and_then_given_up(tmp_path: Path, step: Script) -> None:
    with Feed(step) as feed:
        processes = all_ways(user_of(feed.url, tmp_path), "--json", "--reconnect", "1")
        reason = "going away" if step is gone_when_authenticated else "the connection broke"
        assert_given_up(processes, reason)
        assert_attempts(feed.connections, 2)
        assert eventually(lambda: hubs_are_gone(tmp_path))


@pytest.mark.parametrize("step", ["accept", "request", "upgrade"])
def test_a_server_that_goes_before_there_is_a_websocket_is_tried_again_and_then_given_up(
    tmp_path: Path, step: Step
) -> None:
    with BrokenServer(step) as server:
        processes = all_ways(user_of(server.url, tmp_path), "--json", "--reconnect", "1")
        assert_given_up(processes, "no WebSocket server answered|cannot connect: Connection reset by peer")
        assert_attempts(server.connections, 2)


def test_a_server_that_is_not_there_is_tried_again_and_then_given_up(tmp_path: Path) -> None:
    with BrokenServer("accept", listening=False) as server:
        processes = all_ways(user_of(server.url, tmp_path), "--json", "--reconnect", "1")
        assert_given_up(processes, "cannot connect")


def test_a_server_that_never_answers_the_request_is_given_up_after_the_timeout(tmp_path: Path) -> None:
    with BrokenServer("hang") as server:
        processes = all_ways(user_of(server.url, tmp_path), "--json", "--reconnect", "1", "--timeout", "0.7")
        assert_given_up(processes, "no WebSocket within 0.7 s")


@pytest.mark.parametrize("steps", [STEPS[:2], STEPS[2:4], STEPS[4:]], ids=["open", "login", "subscription"])
def test_a_server_that_comes_back_during_the_handshake_is_streamed_from(tmp_path: Path, steps: list[Script]) -> None:
    with Feed(*steps, steadily) as feed:
        ended = end(start(user_of(feed.url, tmp_path), *MARKET, "--count", "3"))
        assert ended.code == 0, ended.errors
        assert len(parsed(ended.out)) == 3
        assert "gap" not in ended.errors  # it had never begun
        assert feed.connections == 3


@pytest.mark.parametrize("sharing", SHARINGS)
def test_a_network_that_comes_back_late_is_waited_for_as_long_as_was_asked(
    tmp_path: Path, sharing: tuple[str, ...]
) -> None:
    with BrokenServer("hang", listening=False) as server:
        process = start(user_of(server.url, tmp_path), *MARKET, "--reconnect", "forever", *sharing)
        assert process.stderr is not None
        for _ in range(2):
            assert b"cannot connect" in process.stderr.readline()
        server.listen()
        assert eventually(lambda: server.asked > 0)
        process.send_signal(signal.SIGTERM)
        ended = end(process)
        assert (ended.code, ended.out) == (0, b"")


# -------------------------------------------------------------------------------------------------- refusals


def refusing(code: int, *, after: int = 0) -> Script:
    """Say this error in place of the subscription's confirmation, or after so many trades."""

    async def refuse(conversation: Conversation) -> None:
        if conversation.updates:
            await conversation.hear()
            await conversation.socket.send(
                json.dumps({"action": "error", "data": {"code": code, "error_message": "no"}}).encode()
            )
        else:
            await conversation.greet()
            if after:
                await conversation.obey()
                await conversation.say(*(trade(number) for number in range(1, after + 1)))
            else:
                await conversation.hear()
            await conversation.say({"T": "error", "code": code, "msg": "no"})
        await asyncio.sleep(60)

    return refuse


@pytest.mark.parametrize(("code", "exit_code"), [(402, 3), (405, 4), (406, 6), (409, 4), (500, 6)])
def test_an_error_of_the_server_has_its_exit_code_and_hint_everywhere(
    tmp_path: Path, code: int, exit_code: int
) -> None:
    with Feed(refusing(code)) as feed:
        for process in all_ways(user_of(feed.url, tmp_path), "--json", "--reconnect", "1"):
            ended = end(process)
            assert ended.code == exit_code, ended.errors
            assert ended.out == b""
            error = error_of(ended)
            assert error["code"] == code
            assert error["hint"]
            assert f"no ({code})" in error["message"]
        assert_attempts(feed.connections, 2 if exit_code == 6 else 1)


def test_keys_that_the_trading_stream_refuses_are_a_matter_of_configuration(tmp_path: Path) -> None:
    async def refuse(conversation: Conversation) -> None:
        await conversation.hear()
        await conversation.tell("authorization", status="unauthorized", action="authenticate")
        await asyncio.sleep(60)

    with Feed(refuse) as feed:
        for process in all_ways(user_of(feed.url, tmp_path), "--json", about=(UPDATES,)):
            ended = end(process)
            assert (ended.code, error_of(ended)["code"]) == (3, 402)
        assert feed.connections == 2


@pytest.mark.parametrize(("status", "exit_code"), [(302, 3), (401, 3), (404, 4), (429, 6), (500, 6), (503, 6)])
def test_an_http_status_instead_of_a_websocket_has_its_exit_code_everywhere(
    tmp_path: Path, status: int, exit_code: int
) -> None:
    with Feed(status=status) as feed:
        for process in all_ways(user_of(feed.url, tmp_path), "--json", "--reconnect", "1"):
            ended = end(process)
            assert ended.code == exit_code, ended.errors
            error = error_of(ended)
            assert f"HTTP {status}" in error["message"]
            assert error["hint"]
        assert_attempts(feed.connections, 2 if exit_code == 6 else 1)


def test_407_is_reported_and_the_stream_goes_on(tmp_path: Path) -> None:
    async def warn(conversation: Conversation) -> None:
        await conversation.greet()
        await conversation.obey()
        await conversation.say(trade(1))
        await conversation.say({"T": "error", "code": 407, "msg": "slow client"})
        await conversation.say(trade(2))
        await asyncio.sleep(60)

    with Feed(warn) as feed:
        for process in all_ways(user_of(feed.url, tmp_path), "--count", "2", about=(MARKET,)):
            ended = end(process)
            assert ended.code == 0
            assert [tick["id"] for tick in parsed(ended.out)] == [1, 2]
            assert "slow (407): messages may have been lost" in ended.errors
        assert feed.connections == 2


def test_a_place_that_is_taken_later_is_a_lost_connection(tmp_path: Path) -> None:
    """406 in the middle: another program took the only connection. The gap is told when it is ours again."""
    for place, sharing in enumerate(SHARINGS):
        with Feed(refusing(406, after=2), steadily) as feed:
            ended = end(start(user_of(feed.url, tmp_path / str(place)), *MARKET, "--count", "5", *sharing))
            assert ended.code == 0, ended.errors
            assert len(parsed(ended.out)) == 5
            assert "(406); trying again" in ended.errors
            assert "gap: " in ended.errors


# ------------------------------------------------------------------------------------------- while it is live


def breaking(how: Callable[[Conversation], Awaitable[object]]) -> Script:
    async def break_(conversation: Conversation) -> None:
        await conversation.greet()
        await conversation.obey()
        await conversation.say(trade(1))
        await conversation.is_heard()
        await how(conversation)
        await asyncio.sleep(60)

    return break_


async def _mid_frame(conversation: Conversation) -> None:
    conversation.go(b'[{"T":"t","S":"AAPL","i":2')


async def _oversized(conversation: Conversation) -> None:
    await conversation.socket.send("[" + " " * (17 << 20) + "]")


async def _reserved(conversation: Conversation) -> None:
    conversation.socket.transport.write(b"\xff\x02[]")


async def _no_text(conversation: Conversation) -> None:
    conversation.socket.transport.write(b"\x81\x02\xff\xfe")


async def _closed(conversation: Conversation) -> None:
    await conversation.socket.close(1012, "service restart")


async def _failed(conversation: Conversation) -> None:
    await conversation.say({"T": "error", "code": 500, "msg": "internal error"})


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (_mid_frame, "the connection broke"),
        (_oversized, "a frame of more than 16 MB"),
        (_reserved, "the server broke the protocol"),
        (_no_text, "the server broke the protocol"),
        (_closed, r"closed the connection \(1012: service restart\)"),
        (_failed, r"internal error \(500\)"),
    ],
    ids=lambda how: getattr(how, "__name__", ""),
)
def test_a_connection_that_breaks_is_replaced_and_the_gap_told(tmp_path: Path, how: Any, said: str) -> None:
    for place, sharing in enumerate(SHARINGS):
        with Feed(breaking(how), steadily) as feed:
            ended = end(start(user_of(feed.url, tmp_path / str(place)), *MARKET, "--count", "4", *sharing))
            assert ended.code == 0, ended.errors
            first, *others = [tick["id"] for tick in parsed(ended.out)]
            assert first == 1
            assert others == list(range(others[0], others[0] + 3))
            assert re.search(said, ended.errors), ended.errors
            assert re.search(r"gap: what happened from 20\S+Z to 20\S+Z \(\d+\.\d s\) was not received", ended.errors)
            assert feed.connections == 2


async def _nonsense(conversation: Conversation) -> None:
    await conversation.greet()
    await conversation.obey()
    send = conversation.socket.send
    await send("this is no JSON")
    await send('[{"T":"t","S":"AAPL",')
    await send(b"\xff\x00\xfe")
    await send("[" * 1_000_000)
    await send('[{"T":"t","S":"AAPL","zz":' + "[" * 1_000_000 + "]" * 1_000_000 + "}]")
    await send('[{"T":"success","msg":["connected"]},{"T":"subscription","trades":7},{"T":5},{}]')
    await conversation.say({"T": "zz", "S": "AAPL"}, trade(1))
    await send(json.dumps([{**trade(2), "new": {"a": [1.50]}}], indent=2))
    await asyncio.sleep(60)


def test_nonsense_is_left_out_and_counted_and_everything_else_arrives(tmp_path: Path) -> None:
    with Feed(_nonsense) as feed:
        for process in all_ways(user_of(feed.url, tmp_path), "--count", "2", about=(MARKET,)):
            ended = end(process)
            assert ended.code == 0, ended.errors
            ticks = parsed(ended.out)
            assert [tick["id"] for tick in ticks] == [1, 2]
            assert ticks[1]["new"] == {"a": [1.5]}
            assert re.search(r"left out: \d messages of unknown type and \d that could not be read", ended.errors)
        assert feed.connections == 2


async def _strange_times(conversation: Conversation) -> None:
    await conversation.greet()
    await conversation.obey()
    future = {**trade(9), "t": "2999-01-01T00:00:00.000000001Z", "p": 999}
    await conversation.say(trade(3), trade(3), trade(1), quote(5), quote(4), quote(5), future, {**trade(7), "p": 101.5})
    await asyncio.sleep(60)


def test_what_comes_twice_out_of_order_or_from_the_future_passes_as_it_came(tmp_path: Path) -> None:
    with Feed(_strange_times) as feed:
        for process in all_ways(user_of(feed.url, tmp_path), "--count", "8", about=(("AAPL",),)):
            ticks = parsed(end(process).out)
            assert [tick["timestamp"][-10:-1] for tick in ticks] == [
                f"{number:09d}" for number in (3, 3, 1, 5, 4, 5, 1, 7)
            ]
            assert ticks[6]["timestamp"] == "2999-01-01T00:00:00.000000001Z"
        assert feed.connections == 2


# -------------------------------------------------------------------------------- on the exchange's own server


@contextmanager
def serving(root: Path, *args: str) -> Iterator[tuple[str, Process, Alpacli]]:
    """Run ``alpacli sim serve``; give its WebSocket address, the process, and whose exchange it is."""
    user = Alpacli(root)
    process = user.start(
        ["sim", "serve", "--port", "0", "--quiet", *args],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().decode().strip().replace("http", "ws"), process, user
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.communicate(timeout=DEADLINE_S)


def _hears(process: Process, text: bytes) -> None:
    """Read what a process says until it has said this."""
    assert process.stderr is not None
    said = b""
    while text not in said:
        line = process.stderr.readline()
        assert line, said
        said += line


def test_a_server_that_stands_still_is_left_and_found_again_when_it_goes_on(tmp_path: Path) -> None:
    """Half-open: the TCP connections stay up, and nobody is there who could answer a ping."""
    with serving(tmp_path / "server") as (url, server, _):
        user = user_of(url, tmp_path / "client", ALPACA_API_KEY="PKSIM")
        processes = all_ways(user, "--stale-after", "1", "--verbose", "--reconnect", "forever")
        for process in processes:
            _hears(process, b"connected to")
        server.send_signal(signal.SIGSTOP)
        for process in processes:
            _hears(process, b"no sign of life for")
        server.send_signal(signal.SIGCONT)
        for process in processes:
            _hears(process, b"gap: what happened from")
            process.send_signal(signal.SIGTERM)
            ended = end(process)
            assert ended.code == 0
            parsed(ended.out)


@pytest.mark.parametrize("sharing", SHARINGS)
def test_faults_of_the_exchange_are_survived(tmp_path: Path, sharing: tuple[str, ...]) -> None:
    faults = ("drop,how=frame,times=1", "garbage,how=unknown,times=2", "garbage,how=truncated,times=2", "duplicate")
    with serving(tmp_path / "server", *(word for fault in faults for word in ("--fault", fault))) as (url, _, _):
        ended = end(start(user_of(url, tmp_path / "client"), "AAPL", "--count", "20", "--verbose", *sharing))
        assert ended.code == 0, ended.errors
        assert len(parsed(ended.out)) == 20
        assert "the connection broke; trying again" in ended.errors
        assert "left out: 2 messages of unknown type and 2 that could not be read" in ended.errors


@pytest.mark.parametrize("sharing", SHARINGS)
def test_orders_of_a_served_exchange_are_streamed_and_the_loss_of_the_server_survived(
    tmp_path: Path, sharing: tuple[str, ...]
) -> None:
    with serving(tmp_path / "server", "--fault", "drop,after=0.1,path=/stream,times=1") as (url, _, owner):
        user = user_of(url, tmp_path / "client", ALPACA_API_KEY="PKSIM")
        process = start(user, "--updates", "--count", "2", "--verbose", *sharing)
        _hears(process, b"gap: what happened from")  # dropped, and listening again
        exchange = Exchange(str(owner.state), SystemClock())
        with exchange.desk(exchange.account_number("PKSIM", "secret"), changes=True) as desk:
            order_id = enter(desk, new_order("AAPL", "buy", "market", "day", desk.now_ns, Decimal("1.5")))
            fill_order(desk, order_id, Decimal("1.5"), Decimal("250.25"), desk.now_ns)
        exchange.close()
        ended = end(process)
        assert ended.code == 0, ended.errors
        new, fill = parsed(ended.out)
        assert (new["event"], fill["event"], fill["price"]) == ("new", "fill", 250.25)
        assert new["order"]["id"] == fill["order"]["id"] == order_id


# ----------------------------------------------------------------------------------- signals, pipes and disks


async def _hang_when_open(conversation: Conversation) -> None:
    conversation.feed.sent += 1
    await asyncio.sleep(60)


async def _hang_at_login(conversation: Conversation) -> None:
    await conversation.say(CONNECTED)
    await conversation.hear()
    conversation.feed.sent += 1
    await asyncio.sleep(60)


async def _hang_at_subscription(conversation: Conversation) -> None:
    await conversation.greet()
    await conversation.hear()
    conversation.feed.sent += 1
    await asyncio.sleep(60)


async def _live(conversation: Conversation) -> None:
    await steadily(conversation)


async def _losing(conversation: Conversation) -> None:
    conversation.feed.sent += 1
    conversation.go()


HANGING: list[Script] = [_hang_when_open, _hang_at_login, _hang_at_subscription, _live, _losing]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", HANGING, ids=lambda step: step.__name__)
def test_a_signal_at_any_step_ends_it_well_and_with_a_whole_line(
    tmp_path: Path, number: signal.Signals, step: Script
) -> None:
    with Feed(step) as feed:
        processes = all_ways(user_of(feed.url, tmp_path), "--reconnect", "forever", about=(MARKET,))
        assert eventually(lambda: feed.connections >= 2 and feed.sent > (50 if step is _live else 1))
        if step is _live:
            for process in processes:
                assert process.stdout is not None
                assert process.stdout.readline()
        elif step is _losing:
            for process in processes:
                assert process.stderr is not None
                assert b"trying again" in process.stderr.readline()
        for process in processes:
            process.send_signal(number)
        for process in processes:
            ended = end(process)
            assert ended.code == 0, ended.errors
            parsed(ended.out)
        assert eventually(lambda: hubs_are_gone(tmp_path))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_server_is_silent_about_the_request_ends_it_well(
    tmp_path: Path, number: signal.Signals
) -> None:
    with BrokenServer("hang") as server:
        processes = all_ways(user_of(server.url, tmp_path))
        assert eventually(lambda: server.asked >= len(processes))
        for process in processes:
            process.send_signal(number)
        for process in processes:
            ended = end(process)
            assert (ended.code, ended.out, ended.err) == (0, b"", b"")


SLOW_RESOLVER = """
import pathlib, socket, time

def getaddrinfo(*args, **kwargs):
    pathlib.Path({asked!r}).touch()
    time.sleep(600)

socket.getaddrinfo = getaddrinfo
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("sharing", SHARINGS)
def test_a_signal_while_a_name_is_looked_up_ends_it_at_once(
    tmp_path: Path, sharing: tuple[str, ...], number: int
) -> None:
    """Nothing can interrupt a resolver that does not answer."""
    asked = tmp_path / "asked"
    (tmp_path / "sitecustomize.py").write_text(SLOW_RESOLVER.format(asked=str(asked)))
    user = user_of("ws://localhost:1", tmp_path, PYTHONPATH=str(tmp_path))
    process = start(user, *MARKET, *sharing)
    assert eventually(asked.exists)
    process.send_signal(number)
    ended = end(process)
    assert (ended.code, ended.out, ended.err) == (0, b"", b"")
    assert eventually(lambda: hubs_are_gone(tmp_path))


def test_a_hub_that_is_killed_costs_none_of_many_streams_more_than_a_moment(tmp_path: Path) -> None:
    """Whoever is first starts the next one; all are told of the gap, and each gets its own symbols again."""
    symbols = ["AAPL", "MSFT", "AAPL", "GOOG", "NVDA"]
    with Feed() as feed:
        user = user_of(feed.url, tmp_path)
        processes = [start(user, symbol, "--trades") for symbol in symbols]
        first_lines = [process.stdout.readline() for process in processes if process.stdout is not None]
        (hub,) = hub_pids(tmp_path)
        os.kill(hub, signal.SIGKILL)
        for process in processes:
            _hears(process, b"gap: what happened from")
        seen = feed.sent
        assert eventually(lambda: feed.sent > seen + 50)
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process, symbol, first_line in zip(processes, symbols, first_lines, strict=True):
            ended = end(process)
            assert ended.code == 0, ended.errors
            ticks = parsed(first_line + ended.out)
            assert {tick["symbol"] for tick in ticks} == {symbol}
            numbers = [int(tick["id"]) for tick in ticks]
            jumps = [after - before for before, after in pairwise(numbers)]
            assert len([jump for jump in jumps if jump != 1]) == 1  # one gap, and nothing else missing or twice
            assert max(jumps) < 500  # of 100 a second; it takes 0.2 s, and more only where the machine has no time
        assert feed.connections == 2
        assert feed.most_open == 1
        assert eventually(lambda: hubs_are_gone(tmp_path))


def test_a_hub_that_stands_still_is_noticed_by_all_of_its_streams_and_replaced(tmp_path: Path) -> None:
    """It would hold the account's only connection for ever, so it does not stay: nothing is left to go on later."""
    with Feed() as feed:
        user = user_of(feed.url, tmp_path)
        processes = [start(user, symbol, "--trades", "--stale-after", "1.5") for symbol in ("AAPL", "MSFT", "AAPL")]
        first_lines = [process.stdout.readline() for process in processes if process.stdout is not None]
        (hub,) = hub_pids(tmp_path)
        os.kill(hub, signal.SIGSTOP)
        for process in processes:
            _hears(process, b"the process that held the shared connection")
            _hears(process, b"gap: what happened from")
        assert hub not in hub_pids(tmp_path)
        seen = feed.sent
        assert eventually(lambda: feed.sent > seen + 50)
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process, first_line in zip(processes, first_lines, strict=True):
            ended = end(process)
            assert ended.code == 0, ended.errors
            numbers = [int(tick["id"]) for tick in parsed(first_line + ended.out)]
            assert len([1 for before, after in pairwise(numbers) if after - before != 1]) == 1
        assert feed.connections == 2
        assert eventually(lambda: hubs_are_gone(tmp_path))


def test_a_stream_that_meets_a_hub_that_stands_still_gets_another_one(tmp_path: Path) -> None:
    with Feed() as feed:
        user = user_of(feed.url, tmp_path, ALPACLI_HUB_LINGER="30")
        assert end(start(user, *MARKET, "--count", "1")).code == 0
        (hub,) = hub_pids(tmp_path)
        os.kill(hub, signal.SIGSTOP)
        ended = end(start(user, *MARKET, "--count", "1", "--stale-after", "1"))
        assert ended.code == 0
        assert len(parsed(ended.out)) == 1
        (second,) = hub_pids(tmp_path)
        assert second != hub
        os.kill(second, signal.SIGTERM)
        assert eventually(lambda: hubs_are_gone(tmp_path))


async def confirm_and_say_no_more(conversation: Conversation) -> None:
    await conversation.greet()
    await conversation.serve_subscriptions()


def test_a_hub_that_has_nothing_to_say_is_not_one_that_stands_still(tmp_path: Path) -> None:
    with Feed(confirm_and_say_no_more) as feed:
        user = user_of(feed.url, tmp_path)
        ended = end(start(user, *MARKET, "--stale-after", "1", "--duration", "3"))
        assert (ended.code, ended.out, ended.err) == (0, b"", b"")
        assert feed.connections == 1
        assert eventually(lambda: hubs_are_gone(tmp_path))


def test_a_hub_whose_socket_was_removed_ends_without_complaint(tmp_path: Path) -> None:
    with Feed() as feed:
        process = start(user_of(feed.url, tmp_path), *MARKET)
        assert process.stdout is not None
        assert process.stdout.readline()
        (socket_file,) = (tmp_path / "run" / "alpacli").glob("*.sock")
        socket_file.unlink()
        process.send_signal(signal.SIGTERM)
        assert end(process).code == 0
        assert eventually(lambda: hubs_are_gone(tmp_path))


@pytest.mark.parametrize("sharing", SHARINGS)
def test_a_full_disk_behind_standard_output_is_an_error(tmp_path: Path, sharing: tuple[str, ...]) -> None:
    with Feed() as feed:
        user = user_of(feed.url, tmp_path)
        with open("/dev/full", "wb") as full:
            process = start(user, *MARKET, "--json", *sharing, stdout=full.fileno())
        ended = end(process)
        assert ended.code == 8
        assert "No space left on device" in error_of(ended)["message"]
        with open("/dev/full", "wb") as full:
            process = start(user, *MARKET, "--count", "1", *sharing, stdout=full.fileno())
        assert end(process).code == 8
        assert eventually(lambda: hubs_are_gone(tmp_path))


def test_a_reader_that_leaves_at_once_ends_it_quietly_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with Feed() as feed:
        user = user_of(feed.url, tmp_path)
        for process in all_ways(user, about=(MARKET,)):
            assert process.stdout is not None
            process.stdout.close()
            process.stdout = None
            _, errors = process.communicate(timeout=DEADLINE_S)
            assert (process.returncode, errors) == (0, b"")
        assert eventually(lambda: feed.open_now == 0 and hubs_are_gone(tmp_path))


@pytest.mark.parametrize("cut", [1, 40, 200])
def test_a_replay_file_that_was_cut_plays_what_is_whole_and_says_what_is_not(tmp_path: Path, cut: int) -> None:
    with Feed() as feed:
        user = user_of(feed.url, tmp_path)
        end(start(user, *MARKET, "--count", "5", "--no-hub", "--record", "day.ndjson"))
    recorded = user.cwd / "day.ndjson"
    whole = recorded.read_bytes()
    lines = [line for line in whole.splitlines(keepends=True) if b'"mark"' not in line]
    recorded.write_bytes(whole[:-cut])
    ended = end(start(user, "--replay", "day.ndjson", "--speed", "max"))
    assert ended.code == 0
    assert ended.out == b"".join(line for line in lines if line in whole[:-cut])
    assert "left out: 1 that could not be read" in ended.errors
