"""The exchange's market data, and its sockets without I/O."""

import json
from decimal import Decimal

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alpacli.sim.feed import MINUTE_NS, Feed
from alpacli.sim.hours import AlwaysOpen
from alpacli.sim.sockets import Limits, MarketSession, Occupancy
from alpacli.sim.tape import Tape

T0 = 1_760_000_000_000_000_000
HOURS = AlwaysOpen()
TAPE = Tape(2026, HOURS)
FEED = Feed(TAPE, HOURS)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 20_000), st.integers(0, 20_000), st.sampled_from(["AAPL", "BTC/USD", "FAKEPACA"]))
def test_any_split_of_an_interval_gives_the_same_messages(first_ms: int, second_ms: int, symbol: str) -> None:
    middle, end = T0 + first_ms * 1_000_000, T0 + (first_ms + second_ms) * 1_000_000
    for channel in (FEED.trades, FEED.quotes):
        assert channel(symbol, T0, middle) + channel(symbol, middle, end) == channel(symbol, T0, end)


def test_trades_and_quotes_are_at_the_prices_of_the_tape() -> None:
    trades, quotes = FEED.trades("AAPL", T0, T0 + MINUTE_NS), FEED.quotes("AAPL", T0, T0 + MINUTE_NS)
    assert 30 < len(trades) < 100
    assert 120 < len(quotes) < 240
    assert all(trade["p"] == TAPE.last("AAPL", int(str(trade["t"]))) for trade in trades)
    assert all(quote["bp"] == TAPE.quote("AAPL", int(str(quote["t"]))).bid for quote in quotes)
    assert len({trade["i"] for trade in trades}) == len(trades)


def test_a_bar_is_made_of_its_trades() -> None:
    begin = T0 // MINUTE_NS * MINUTE_NS
    (bar,) = FEED.bars("AAPL", begin, begin + MINUTE_NS)
    trades = FEED.trades("AAPL", begin, begin + MINUTE_NS)
    assert (bar["o"], bar["c"]) == (trades[0]["p"], trades[-1]["p"])
    assert bar["n"] == len(trades)
    assert bar["v"] == sum((Decimal(str(trade["s"])) for trade in trades), Decimal(0))


class Client:
    """Talks to a session as a client would."""

    def __init__(
        self,
        path: str = "/v2/iex",
        *,
        occupancy: Occupancy | None = None,
        limits: Limits | None = None,
        now_ns: int = T0,
    ) -> None:
        self.session = MarketSession(
            path, "json", FEED, lambda *pair: hash(pair), occupancy or Occupancy(), limits or Limits(), now_ns
        )

    def say(self, command: object) -> dict[str, object]:
        (frame,) = self.session.receive(json.dumps(command))
        (message,) = json.loads(frame)
        assert isinstance(message, dict)
        return message

    def log_in(self, key: str = "PK") -> dict[str, object]:
        return self.say({"action": "auth", "key": key, "secret": "s"})


def test_the_whole_conversation() -> None:
    client = Client()
    assert json.loads(client.session.begin()[0]) == [{"T": "success", "msg": "connected"}]
    assert client.log_in() == {"T": "success", "msg": "authenticated"}
    confirmed = client.say({"trades": ["AAPL"], "quotes": ["MSFT", "NOPE"], "action": "subscribe"})
    assert confirmed["T"] == "subscription"
    assert confirmed["trades"] == confirmed["corrections"] == confirmed["cancelErrors"] == ["AAPL"]
    assert confirmed["quotes"] == ["MSFT", "NOPE"]
    (frame,) = client.session.due(T0 + 10_000_000_000)
    messages = json.loads(frame)
    assert {(message["T"], message["S"]) for message in messages} == {("t", "AAPL"), ("q", "MSFT")}
    assert [message["t"] for message in messages] == sorted(message["t"] for message in messages)
    assert client.session.due(T0 + 10_000_000_000) == []
    assert client.say({"action": "unsubscribe", "trades": ["AAPL"]})["trades"] == []


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ({"action": "auth", "key": "PK", "secret": ""}, 402),
        ({"action": "subscribe", "trades": ["AAPL"]}, 401),
        ({"action": "dance"}, 400),
        ([], 400),
        (3, 400),
    ],
)
def test_what_is_refused_before_the_login(command: object, code: int) -> None:
    assert Client().say(command)["code"] == code


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ({"action": "auth", "key": "PK", "secret": "s"}, 403),
        ({"action": "subscribe", "orderbooks": ["AAPL"]}, 410),
        ({"action": "subscribe", "trades": "AAPL"}, 400),
        ({"action": "subscribe", "trades": ["AAPL", "MSFT", "GOOGL"]}, 405),
    ],
)
def test_what_is_refused_after_it(command: object, code: int) -> None:
    client = Client(limits=Limits(symbols=2))
    client.log_in()
    before = client.say({"action": "subscribe", "trades": ["AAPL"]})
    assert client.say(command)["code"] == code
    assert client.say({"action": "subscribe"}) == before
    assert not client.session.over


def test_a_second_connection_of_an_account_is_one_too_many_until_the_first_is_closed() -> None:
    occupancy, limits = Occupancy(), Limits(connections=1)
    first, second, other = (Client(occupancy=occupancy, limits=limits) for _ in range(3))
    first.log_in()
    assert second.log_in()["code"] == 406
    assert second.session.over
    assert other.log_in("PK2")["T"] == "success"
    first.session.close()
    assert Client(occupancy=occupancy, limits=limits).log_in()["T"] == "success"


def test_who_does_not_log_in_is_shown_out() -> None:
    client = Client()
    assert client.session.due(T0 + 9_900_000_000) == []
    (frame,) = client.session.due(T0 + 10_000_000_000)
    assert json.loads(frame)[0]["code"] == 404
    assert client.session.over


def test_everything_of_an_endpoint_and_books_of_coins() -> None:
    client = Client("/v1beta3/crypto/us")
    client.log_in()
    client.say({"action": "subscribe", "trades": ["*"], "orderbooks": ["BTC/USD"]})
    (frame,) = client.session.due(T0 + 5_000_000_000)
    messages = json.loads(frame)
    assert {message["T"] for message in messages} == {"t", "o"}
    assert all("/" in message["S"] for message in messages)


def test_msgpack_has_the_type_first_and_times_as_an_extension() -> None:
    session = MarketSession("/v2/iex", "msgpack", FEED, lambda *pair: 1, Occupancy(), Limits(), T0)
    session.receive(msgpack.packb({"action": "auth", "key": "PK", "secret": "s"}))
    session.receive(msgpack.packb({"trades": ["AAPL"], "action": "subscribe"}))
    (frame,) = session.due(T0 + 10_000_000_000)
    message = msgpack.unpackb(frame)[0]
    assert next(iter(message)) == "T"
    assert isinstance(message["t"], msgpack.Timestamp)
