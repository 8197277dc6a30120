"""``alpacli stream`` as a process, against a real WebSocket server."""

import asyncio
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from tests.support import valkey
from tests.support.alpacli import DEADLINE_S, PROGRAM
from tests.support.feed import Conversation, Feed, quote, steadily, trade
from tests.support.streaming import KEYS, eventually, parsed, start, user_of

from alpacli.streams.local import Upstream, meeting


@pytest.fixture
def feed() -> Iterator[Feed]:
    with Feed() as running:
        yield running


@pytest.mark.parametrize("sharing", [(), ("--no-hub",)])
def test_lines_with_full_names_until_the_count(feed: Feed, tmp_path: Path, sharing: tuple[str, ...]) -> None:
    ended = user_of(feed.url, tmp_path)("stream", "AAPL", "--count", "5", *sharing)
    assert ended.code == 0, ended.errors
    ticks = parsed(ended.out)
    assert len(ticks) == 5
    assert ticks[0].keys() == {"type", "symbol", "timestamp", "price", "size", "exchange", "id", "tape"}
    assert re.fullmatch(r"2026-01-02T15:00:00\.\d{9}Z", str(ticks[0]["timestamp"]))
    assert feed.asked[1] == {"action": "subscribe", "quotes": ["AAPL"], "trades": ["AAPL"]}


def test_the_duration_counts_from_the_confirmation(tmp_path: Path) -> None:
    async def late(conversation: Conversation) -> None:
        await conversation.greet()
        await asyncio.sleep(0.7)
        await conversation.obey()
        for number in range(1, 1000):
            await conversation.say(trade(number))
            await asyncio.sleep(0.01)

    with Feed(late) as feed:
        ended = user_of(feed.url, tmp_path)("stream", "AAPL", "--no-hub", "--duration", "0.5")
        assert ended.code == 0
        assert len(parsed(ended.out)) > 10


def test_streams_share_one_connection_each_with_its_own_symbols(feed: Feed, tmp_path: Path) -> None:
    user = user_of(feed.url, tmp_path)
    running = [start(user, symbol, "--trades", "--duration", "1.5") for symbol in ("AAPL", "MSFT", "AAPL", "GOOG")]
    for process, symbol in zip(running, ("AAPL", "MSFT", "AAPL", "GOOG"), strict=True):
        out, errors = process.communicate(timeout=30)
        assert process.returncode == 0, errors
        ticks = parsed(out)
        assert len(ticks) > 20
        assert {tick["symbol"] for tick in ticks} == {symbol}
        numbers = [tick["id"] for tick in ticks]
        assert numbers == list(range(int(str(numbers[0])), int(str(numbers[0])) + len(numbers)))
    assert feed.connections == 1
    # The hub goes when nobody has needed it for a while.
    assert eventually(lambda: feed.open_now == 0, 5)


def test_the_first_stream_may_end_and_the_others_lose_nothing(feed: Feed, tmp_path: Path) -> None:
    user = user_of(feed.url, tmp_path)
    first = start(user, "AAPL", "--trades")
    assert first.stdout is not None
    first.stdout.readline()
    second = start(user, "AAPL", "--trades", "--duration", "1.5")
    assert second.stdout is not None
    assert second.stdout.readline()
    first.kill()
    first.communicate()
    out, _ = second.communicate(timeout=30)
    numbers = [int(str(tick["id"])) for tick in parsed(out)]
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert feed.connections == 1


def test_when_the_process_that_holds_the_connection_is_killed_another_takes_over_within_a_second(
    feed: Feed, tmp_path: Path
) -> None:
    user = user_of(feed.url, tmp_path)
    watching = start(user, "AAPL", "--trades", "--duration", "3")
    assert watching.stdout is not None
    watching.stdout.readline()
    (lock,) = (tmp_path / "run" / "alpacli").glob("*.lock")
    holder = subprocess.run(["pgrep", "-f", f"{lock.stem}.sock"], capture_output=True, text=True, check=True)
    os.kill(int(holder.stdout.split()[0]), signal.SIGKILL)
    out, errors = watching.communicate(timeout=30)
    assert watching.returncode == 0, errors
    numbers = [int(str(tick["id"])) for tick in parsed(out)]
    jumps = [after - before for before, after in pairwise(numbers)]
    assert len(numbers) > 100
    assert max(jumps) < 150  # about 100 a second are sent
    assert b"gap" in errors
    assert feed.connections == 2


def test_commands_on_standard_input_change_the_subscription_and_its_end_changes_nothing(
    feed: Feed, tmp_path: Path
) -> None:
    process = start(user_of(feed.url, tmp_path), "AAPL", "--trades", "--duration", "1.5", stdin=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdin is not None
    process.stdout.readline()
    wrong = b'nonsense\n{"action": "subscribe", "symbols": ["A B"]}\n{"action": "subscribe", "symbols": ["BTC/USD"]}\n'
    process.stdin.write(b'{"action": "subscribe", "symbols": ["googl"]}\n' + wrong + b'{"action": "ping"}\n')
    process.stdin.close()
    process.stdin = None
    out, errors = process.communicate(timeout=30)
    assert process.returncode == 0
    ticks = parsed(out)
    kinds = [tick["type"] for tick in ticks]
    assert kinds.count("pong") == 1
    assert {"type": "subscription", "trades": ["AAPL", "GOOGL"]} in ticks
    assert {tick["symbol"] for tick in ticks if tick["type"] == "trade"} == {"AAPL", "GOOGL"}
    assert ticks[-1]["type"] == "trade"
    assert b"not JSON" in errors
    assert b"'A B' is not a symbol" in errors
    assert feed.connections == 1


@pytest.mark.parametrize(
    ("code", "message", "exit_code"),
    [(402, "auth failed", 3), (405, "symbol limit exceeded", 4), (409, "insufficient subscription", 4), (410, "no", 4)],
)
@pytest.mark.parametrize("sharing", [(), ("--no-hub",)])
def test_what_will_not_heal_ends_at_once(
    tmp_path: Path, code: int, message: str, exit_code: int, sharing: tuple[str, ...]
) -> None:
    async def refuse(conversation: Conversation) -> None:
        if code == 402:
            await conversation.say({"T": "success", "msg": "connected"})
            await conversation.hear()
        else:
            await conversation.greet()
            await conversation.hear()
        await conversation.say({"T": "error", "code": code, "msg": message})
        await asyncio.sleep(5)

    with Feed(refuse) as feed:
        ended = user_of(feed.url, tmp_path)("stream", "AAPL", "--json", *sharing)
        assert ended.code == exit_code
        assert ended.out == b""
        error = json.loads(ended.err)["error"]
        assert error["code"] == code
        assert error["hint"]
        assert feed.connections == 1


async def _full(conversation: Conversation) -> None:
    await conversation.say({"T": "success", "msg": "connected"})
    await conversation.hear()
    await conversation.say({"T": "error", "code": 406, "msg": "connection limit exceeded"})


def test_a_place_that_is_taken_is_asked_for_again_and_then_given_up(tmp_path: Path) -> None:
    with Feed(_full, steadily) as feed:
        ended = user_of(feed.url, tmp_path)("stream", "AAPL", "--count", "2")
        assert ended.code == 0
        assert b"406" in ended.err
    with Feed(_full) as feed:
        (tmp_path / "2").mkdir()
        ended = user_of(feed.url, tmp_path / "2")("stream", "AAPL", "--reconnect", "1")
        assert ended.code == 6
        assert b"another program holds" in ended.err
        assert feed.connections == 2


@pytest.mark.parametrize("sharing", [(), ("--no-hub",)])
def test_a_lost_connection_is_replaced_and_the_gap_reported(tmp_path: Path, sharing: tuple[str, ...]) -> None:
    async def drop(conversation: Conversation) -> None:
        await conversation.greet()
        await conversation.obey()
        await conversation.say(trade(1))
        await asyncio.sleep(0.2)
        conversation.socket.transport.abort()

    with Feed(drop, steadily) as feed:
        ended = user_of(feed.url, tmp_path)("stream", "AAPL", "--trades", "--count", "5", *sharing)
        assert ended.code == 0, ended.errors
        assert len(parsed(ended.out)) == 5
        assert re.search(r"gap: what happened from 20\S+Z to 20\S+Z", ended.errors)


def test_a_mute_connection_is_replaced_and_a_quiet_one_is_not(tmp_path: Path) -> None:
    async def mute(conversation: Conversation) -> None:
        await conversation.greet()
        await conversation.obey()
        await conversation.say(trade(1))
        conversation.socket.transport.pause_reading()  # no pong comes back
        await asyncio.sleep(20)

    async def quiet(conversation: Conversation) -> None:
        await conversation.greet()
        await conversation.obey()
        await asyncio.sleep(2)
        await conversation.say(trade(2))
        await asyncio.sleep(20)

    with Feed(mute, quiet) as feed:
        ended = user_of(feed.url, tmp_path)(
            "stream", "AAPL", "--trades", "--no-hub", "--count", "2", "--stale-after", "0.8"
        )
        assert ended.code == 0
        assert [tick["id"] for tick in parsed(ended.out)] == [1, 2]
        assert "no sign of life" in ended.errors
        assert feed.connections == 2


def test_garbage_and_unknown_messages_are_left_out_and_the_stream_goes_on(tmp_path: Path) -> None:
    async def garble(conversation: Conversation) -> None:
        await conversation.greet()
        await conversation.obey()
        await conversation.socket.send("this is no JSON")
        await conversation.socket.send('[{"T":"t","S":"AAPL",')
        await conversation.socket.send(b"\xff\x00\xfe")
        await conversation.say({"T": "zz", "S": "AAPL"}, trade(1))
        await conversation.say({**trade(2), "new_field": 1.50})
        await asyncio.sleep(5)

    with Feed(garble) as feed:
        ended = user_of(feed.url, tmp_path)("stream", "AAPL", "--trades", "--no-hub", "--count", "2")
        assert ended.code == 0
        assert [tick["id"] for tick in parsed(ended.out)] == [1, 2]
        assert feed.connections == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("when", ["connecting", "live"])
def test_a_signal_ends_it_well_at_any_step(tmp_path: Path, number: signal.Signals, when: str) -> None:
    async def hang(conversation: Conversation) -> None:
        await asyncio.sleep(30)

    with Feed(hang if when == "connecting" else steadily) as feed:
        process = start(user_of(feed.url, tmp_path), "AAPL", "--trades")
        assert eventually(lambda: feed.connections == 1 and (when == "connecting" or feed.sent > 20))
        time.sleep(0.2)
        process.send_signal(number)
        out, errors = process.communicate(timeout=10)
        assert process.returncode == 0, errors
        assert bool(parsed(out)) == (when == "live")
        assert b"Traceback" not in errors


def test_a_signal_that_is_ignored_where_it_was_started_does_not_end_it(feed: Feed, tmp_path: Path) -> None:
    """As nohup has it, and a shell without job control for what it starts in the background."""
    user = user_of(feed.url, tmp_path)
    command = ["sh", "-c", "trap '' HUP INT; exec \"$0\" stream AAPL --trades --json", PROGRAM]
    process = subprocess.Popen(command, env=user.environment(), cwd=user.cwd, stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGINT)
        for _ in range(100):
            assert process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0


def test_a_reader_that_leaves_ends_it_quietly(feed: Feed, tmp_path: Path) -> None:
    process = start(user_of(feed.url, tmp_path), "AAPL")
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    process.stdout = None
    _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (0, b"")


def _flood(messages: int, symbols: int) -> Callable[[Conversation], Awaitable[None]]:
    async def flood(conversation: Conversation) -> None:
        await conversation.greet()
        await conversation.obey()
        for number in range(0, messages, 100):
            await conversation.say(
                *(
                    trade(n, "T") if n % 10 == 0 else quote(n, f"S{n % symbols}")
                    for n in range(number, min(number + 100, messages))
                )
            )
        conversation.feed.sent = messages
        await asyncio.sleep(20)

    return flood


def test_a_slow_reader_gets_every_trade_and_the_latest_quote_of_each_symbol(tmp_path: Path) -> None:
    with Feed(_flood(40_000, 7)) as feed:
        process = start(user_of(feed.url, tmp_path), "--all-symbols", "--no-hub", "--buffer", "6000")
        assert eventually(lambda: feed.sent > 0, 60)
        time.sleep(1.0)
        collected: list[bytes] = []

        def read() -> None:
            assert process.stdout is not None
            collected.extend(process.stdout)

        reader = threading.Thread(target=read)
        reader.start()
        assert eventually(lambda: any(b'"id":39990,' in line for line in collected[-3000:]), 60)
        process.send_signal(signal.SIGTERM)
        reader.join(10)
        assert process.wait(10) == 0
        ticks: list[dict[str, object]] = [json.loads(line) for line in collected]
        trades = [tick["id"] for tick in ticks if tick["type"] == "trade"]
        assert trades == list(range(0, 40_000, 10))
        last = {str(tick["symbol"]): tick["timestamp"] for tick in ticks if tick["type"] == "quote"}
        assert sorted(last) == [f"S{n}" for n in range(7)]
        assert all(int(str(at)[20:29]) >= 39_900 for at in last.values())
        assert len(ticks) < 40_000
        assert process.stderr is not None
        assert f"{40_000 - len(ticks)} quotes were left out".encode() in process.stderr.read()
        process.stderr.close()
        assert process.stdout is not None
        process.stdout.close()


def test_a_reader_that_is_too_slow_for_the_end_gets_whole_lines(tmp_path: Path) -> None:
    with Feed(_flood(40_000, 7)) as feed:
        process = start(user_of(feed.url, tmp_path), "--all-symbols", "--no-hub")
        assert eventually(lambda: feed.sent > 0, 60)
        time.sleep(1.0)
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        read: list[bytes] = []
        while piece := os.read(process.stdout.fileno(), 2000):  # 80 kB a second, and megabytes wait
            read.append(piece)
            time.sleep(0.025)
        assert process.wait(10) == 0
        process.communicate()
    lines = b"".join(read).split(b"\n")
    assert lines.pop() == b""
    assert 100 < len([json.loads(line) for line in lines]) < 40_000


def test_no_conflate_ends_with_an_error_and_what_waited_is_written(tmp_path: Path) -> None:
    greeting, kept = 3, 6000 // 100  # frames of the feed: it cannot go on to its end when nobody reads it
    with Feed(_flood(40_000, 7)) as feed:
        process = start(user_of(feed.url, tmp_path), "--all-symbols", "--no-hub", "--buffer", "6000", "--no-conflate")
        assert eventually(lambda: feed.frames > greeting + kept or process.poll() is not None, 60)
        time.sleep(1.0)
        out, errors = process.communicate(timeout=60)
        assert process.returncode == 6
        assert b"too slow" in errors
        at = [int(str(tick["timestamp"])[20:29]) for tick in parsed(out)]
        assert at == list(range(len(at)))
        assert len(at) >= 6000


def test_a_recording_has_all_lines_and_can_be_played_again(feed: Feed, tmp_path: Path) -> None:
    user = user_of(feed.url, tmp_path)
    first = user("stream", "AAPL", "--trades", "--count", "20", "--record", "day.ndjson")
    recorded = (user.cwd / "day.ndjson").read_bytes()
    assert [line for line in recorded.splitlines() if b'"mark"' not in line] == first.out.splitlines()
    with (user.cwd / "day.ndjson").open("ab") as file:
        file.write(b'{"type":"trade","symbol":"AAPL","times')  # killed in the middle of a line
    played = user("stream", "--replay", "day.ndjson", "--speed", "max", env=dict.fromkeys(KEYS))
    assert played.code == 0
    assert played.out == first.out
    again = user("stream", "AAPL", "--trades", "--count", "5", "--record", "day.ndjson")
    assert again.code == 0
    played = user("stream", "--replay", "day.ndjson", "--speed", "max")
    assert played.out == first.out + again.out


def test_a_full_disk_ends_the_stream_with_an_error_and_the_recording_whole(feed: Feed, tmp_path: Path) -> None:
    user = user_of(feed.url, tmp_path)
    process = subprocess.Popen(
        ["bash", "-c", f"trap '' XFSZ; ulimit -f 4; exec {PROGRAM} stream AAPL --trades --record day.ndjson --no-hub"],
        env=user.environment({"PYTHONDONTWRITEBYTECODE": "1"}),  # bytecode is cut off as well, for all who come after
        cwd=user.cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 6
    assert b"cannot record" in errors
    parsed((user.cwd / "day.ndjson").read_bytes())


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "no symbols given"),
        (["AAPL", "--feed", "nope"], "there is no feed"),
        (["AAPL", "BTC/USD"], "different feeds"),
        (["BTC/USD", "--feed", "iex"], "the iex feed has no BTC/USD"),
        (["AAPL", "--feed", "crypto"], "the crypto feed has no AAPL: that is on stocks"),
        (["AAPL", "--all-symbols"], "choose one"),
        (["AAPL", "--orderbooks"], "has no orderbooks"),
        (["AA PL"], "not a symbol"),
        (["--updates", "AAPL"], "your own orders"),
        (["AAPL", "--count", "0"], "--count is 0"),
        (["AAPL", "--duration", "-1"], "--duration is -1"),
        (["AAPL", "--speed", "2"], "--speed without --replay"),
        (["--replay", "missing", "--speed", "fast"], "--speed is"),
        (["--replay", "missing"], "cannot replay"),
        (["AAPL", "--reconnect", "often"], "--reconnect is"),
        (["AAPL", "--jq", "(("], "--jq"),
        (["AAPL", "--fields", "symbol,nope"], "there is no field 'nope'"),
        (["AAPL", "--trades", "--fields", "bid_price"], "fields: type, symbol, timestamp, price, size"),
        (["--updates", "--fields", "bid_price"], "fields: type, event, symbol, order, timestamp"),
        (["AAPL", "--fields", ","], "--fields names no field"),
        (["--replay", "missing", "--fields", "nope"], "there is no field 'nope'"),
        (["AAPL", "--record", "missing/file"], "cannot record"),
    ],
)
def test_wrong_usage_says_what_to_do_and_connects_nowhere(
    feed: Feed, tmp_path: Path, args: list[str], said: str
) -> None:
    ended = user_of(feed.url, tmp_path)("stream", *args)
    assert ended.code == 2, ended.errors
    assert said in ended.errors
    assert "hint" in ended.errors
    assert feed.connections == 0


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[valkey.Server]:
    with valkey.server(tmp_path) as server:
        yield server


def stand_still(redis: valkey.Server) -> None:
    assert redis.process is not None
    redis.process.send_signal(signal.SIGSTOP)


def go_on(redis: valkey.Server) -> None:
    assert redis.process is not None
    redis.process.send_signal(signal.SIGCONT)


UNSHARED = "shared store unavailable ("


def test_a_stream_that_begins_without_redis_warns_once_also_beside_another(
    feed: Feed, tmp_path: Path, redis: valkey.Server
) -> None:
    user = user_of(feed.url, tmp_path, REDIS_URL=redis.url)
    stand_still(redis)
    first = start(user, "AAPL", "--trades", "--duration", "6")
    assert first.stdout is not None
    first.stdout.readline()
    second = user("stream", "AAPL", "--trades", "--count", "2")
    _, errors = first.communicate(timeout=60)
    for said in (errors.decode(), second.errors):
        assert said.count(UNSHARED) == 1, said
        assert len(said.splitlines()) == 1, said
        assert "other machines do not share this connection" in said
    assert (first.returncode, second.code, feed.connections) == (0, 0, 1)
    go_on(redis)  # its hub goes when it has given the connection back


@pytest.mark.slow
def test_a_stream_that_loses_redis_warns_once_its_lease_has_ended(
    feed: Feed, tmp_path: Path, redis: valkey.Server
) -> None:
    user = user_of(feed.url, tmp_path, REDIS_URL=redis.url)
    running = start(user, "AAPL", "--trades")
    assert running.stdout is not None
    running.stdout.readline()
    stand_still(redis)
    time.sleep(1)
    go_on(redis)
    time.sleep(2)
    between = user("stream", "AAPL", "--trades", "--count", "2")
    for _ in range(2):
        stand_still(redis)
        time.sleep(5)
        go_on(redis)
        time.sleep(1)
    after = user("stream", "AAPL", "--trades", "--count", "2")
    running.send_signal(signal.SIGTERM)
    _, errors = running.communicate(timeout=60)
    assert (between.errors, after.errors) == ("", "")
    assert errors.decode().count(UNSHARED) == len(errors.splitlines()) == 1, errors
    assert feed.connections == 1


@pytest.mark.parametrize("apart", ["--no-hub", "--sim"])
def test_a_stream_that_shares_nothing_over_redis_does_not_speak_of_it(
    feed: Feed, tmp_path: Path, redis: valkey.Server, apart: str
) -> None:
    stand_still(redis)
    ended = user_of(feed.url, tmp_path, REDIS_URL=redis.url)("stream", "AAPL", "--count", "2", apart)
    assert (ended.code, ended.errors) == (0, "")


def test_the_socket_is_the_users_alone(feed: Feed, tmp_path: Path) -> None:
    user_of(feed.url, tmp_path)("stream", "AAPL", "--count", "1")
    folder = tmp_path / "run" / "alpacli"
    assert folder.stat().st_mode & 0o077 == 0
    assert all(file.stat().st_mode & 0o077 == 0 for file in folder.iterdir())


def test_another_secret_never_meets_the_hub_of_the_right_one() -> None:
    one = Upstream("ws://127.0.0.1:1", "PK", "right", "market", "json", 1.0, 1.0)
    assert one.name != one._replace(secret="wrong").name
    assert meeting(one).socket != meeting(one._replace(secret="wrong")).socket
