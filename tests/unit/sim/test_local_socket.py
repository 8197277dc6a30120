"""The stand-in for a socket that ``--sim`` streams through: the same sessions, without any server."""

import asyncio
import json
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from tests.support.sim_account import SimAccount

from alpacli.errors import ConnectionLost
from alpacli.ports import Socket, SystemClock
from alpacli.sim.amendments import AmendedFeed
from alpacli.sim.exchange import Exchange
from alpacli.sim.hours import AlwaysOpen
from alpacli.sim.sockets import PATHS, LocalSocket, dial_local
from alpacli.sim.tape import Tape

STREAM = "/stream"


async def dial(state: Path, path: str) -> Socket:
    return await dial_local(str(state), SystemClock(), path, "SIM", "in process", "json")


async def ask(socket: Socket, **command: object) -> Any:
    await socket.send(json.dumps(command))
    return json.loads(await socket.recv())


async def listen(socket: Socket) -> None:
    await ask(socket, action="auth", key="SIM", secret="in process")
    await ask(socket, action="listen", data={"streams": ["trade_updates"]})


@pytest.mark.parametrize(
    "path", [path for path in PATHS if path not in (STREAM, "/v1beta1/indicative", "/v1beta1/opra")]
)
def test_every_market_data_endpoint_greets_and_confirms(tmp_path: Path, path: str) -> None:
    async def conversation() -> None:
        socket = await dial(tmp_path, path)
        assert json.loads(await socket.recv())[0]["msg"] == "connected"
        assert (await ask(socket, action="auth", key="SIM", secret="s"))[0]["msg"] == "authenticated"
        assert (await ask(socket, action="subscribe"))[0]["T"] == "subscription"
        await socket.ping()
        await socket.close()
        with pytest.raises(ConnectionLost):
            await socket.send("{}")
        with pytest.raises(ConnectionLost):
            await socket.recv()

    asyncio.run(conversation())


class SlowSession:
    """Has one thing to tell, and takes its time over it."""

    over = False
    reads_state = True

    def __init__(self) -> None:
        self.asked, self.go_on = threading.Event(), threading.Event()
        self._news: list[str | bytes] = ["the news"]

    def begin(self) -> list[str | bytes]:
        return []

    def receive(self, frame: str | bytes) -> list[str | bytes]:
        return []

    def due(self, now_ns: int) -> list[str | bytes]:
        told, self._news = self._news, []
        self.asked.set()
        self.go_on.wait(10)
        return told

    def fail(self, code: int, message: str) -> list[str | bytes]:
        return []

    def close(self) -> None:
        self.over = True


def test_what_was_being_fetched_when_a_reader_gave_up_is_for_the_next(account: SimAccount) -> None:
    async def conversation() -> None:
        session = SlowSession()
        socket = LocalSocket(session, account.exchange)
        reader = asyncio.create_task(socket.recv())
        await asyncio.to_thread(session.asked.wait, 10)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        session.go_on.set()
        assert await asyncio.wait_for(socket.recv(), 5) == "the news"

    asyncio.run(conversation())


def test_an_impatient_reader_gets_all_updates_once_and_in_order(tmp_path: Path) -> None:
    async def conversation() -> None:
        with SimAccount(tmp_path, key_id="SIM") as account:
            socket = await dial(tmp_path, STREAM)
            await listen(socket)
            heard: list[str] = []
            entered = attempts = 0
            while len(heard) < 40:
                attempts += 1
                if entered < 40:
                    entered += 1
                    account.order("AAPL", "buy", str(entered))
                try:  # an impatient reader, who is cancelled in all the worst places
                    frame = await asyncio.wait_for(socket.recv(), 0.001 * (attempts % 9))
                except TimeoutError:
                    continue
                heard.append(json.loads(frame)["data"]["order"]["qty"])
            assert heard == [str(number) for number in range(1, 41)]
            await socket.close()

    asyncio.run(conversation())


def test_a_path_that_the_exchange_does_not_have_is_a_lost_connection(tmp_path: Path) -> None:
    with pytest.raises(ConnectionLost, match="no stream at /v2/nope"):
        asyncio.run(dial(tmp_path, "/v2/nope"))


def test_a_reset_by_another_process_is_noticed_by_readers_that_are_often_canceled_and_nothing_is_lost(
    tmp_path: Path,
) -> None:
    """Each waits for less than a tick: what was looked up for one that gave up must not be gone for the next."""

    async def heard(socket: Socket, until: Callable[[Any], bool]) -> list[Any]:
        messages: list[Any] = []
        async with asyncio.timeout(20):
            while not messages or not until(messages[-1]):
                try:
                    async with asyncio.timeout(0.007):
                        messages += json.loads(await socket.recv())
                except TimeoutError:
                    continue
        return messages

    async def conversation(damaged: bool) -> None:
        state = tmp_path / str(damaged)
        socket = await dial(state, "/v2/iex")
        await socket.recv()
        await ask(socket, action="auth", key="SIM", secret="s")
        await ask(socket, action="subscribe", quotes=["AAPL"])
        quotes = await heard(socket, lambda message: message["T"] == "q")
        if damaged:
            (state / "sim.sqlite").unlink()
        other = Exchange(str(state), SystemClock())
        other.reset(seed=7)
        *more, last = await heard(socket, lambda message: message["T"] == "error")
        assert last == {"T": "error", "code": 500, "msg": "the exchange was reset"}
        feed = AmendedFeed(Tape(2026, AlwaysOpen()), AlwaysOpen())
        told = [message["t"] for message in (*quotes, *more)]
        if len(told) > 1:
            first, end = (datetime.fromisoformat(text).timestamp() for text in (told[0], told[-1]))
            expected = feed.quotes("AAPL", int(first * 1e9) - 10**6, int(end * 1e9) + 10**6)
            assert len(told) == len(expected)
        with pytest.raises(ConnectionLost):
            await socket.recv()
        await socket.close()
        other.close()

    for damaged in (False, True):
        asyncio.run(conversation(damaged))
