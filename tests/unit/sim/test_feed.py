"""The exchange's market data, and its sockets without I/O."""

import json
from decimal import Decimal
from functools import partial
from itertools import accumulate, pairwise
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.examples import examples

from alpacli.sim.amendments import EVER, AmendedFeed, counts
from alpacli.sim.answers import SECOND_NS
from alpacli.sim.halts import halts
from alpacli.sim.hours import AlwaysOpen
from alpacli.sim.prints import MINUTE_NS
from alpacli.sim.sockets import Limits, MarketSession, Occupancy
from alpacli.sim.tape import Tape

T0 = 1_760_000_000_000_000_000
HOURS = AlwaysOpen()
TAPE = Tape(2026, HOURS)
FEED = AmendedFeed(TAPE, HOURS)


@settings(max_examples=examples(8), deadline=None)
@given(st.integers(0, 20_000), st.integers(0, 20_000), st.sampled_from(["AAPL", "BTC/USD", "FAKEPACA"]))
def test_any_split_of_an_interval_gives_the_same_messages(first_ms: int, second_ms: int, symbol: str) -> None:
    middle, end = T0 + first_ms * 1_000_000, T0 + (first_ms + second_ms) * 1_000_000
    for channel in (FEED.trades, FEED.quotes):
        assert channel(symbol, T0, middle) + channel(symbol, middle, end) == channel(symbol, T0, end)


@pytest.mark.parametrize("symbol", ["AAPL", "BTC/USD"])
def test_the_latest_quote_is_the_last_that_was_told(symbol: str) -> None:
    told: list[dict[str, Any]] = FEED.quotes(symbol, T0, T0 + 300 * SECOND_NS)
    ages_ns = []
    for at_ns in range(T0 + 10 * SECOND_NS, T0 + 300 * SECOND_NS, 700_000_000):
        last = [quote for quote in told if quote["t"] < at_ns][-1]
        assert FEED.latest_quote(symbol, at_ns) == last
        ages_ns.append(at_ns - last["t"])
    assert max(ages_ns) > SECOND_NS, "none was older than where it is looked for first"


@settings(max_examples=examples(6), deadline=None)
@given(st.lists(st.integers(1, 90_000), max_size=6), st.sampled_from(["AAPL", "BTC/USD"]))
def test_bars_news_and_books_do_not_depend_on_how_an_interval_is_split(pieces_ms: list[int], symbol: str) -> None:
    edges = [T0, *(T0 + 1_000_000 * ms for ms in accumulate(pieces_ms)), T0 + 10 * MINUTE_NS]
    for read in (partial(FEED.bars, symbol), FEED.news, partial(FEED.books, "ETH/USD"), partial(FEED.bands, "AAPL")):
        pieces = [message for begin, end in pairwise(edges) for message in read(begin, end)]
        assert pieces == read(edges[0], edges[-1])
        assert pieces


@settings(max_examples=examples(6), deadline=None)
@given(st.lists(st.integers(1, 20_000), max_size=8))
def test_a_session_tells_the_same_however_often_it_is_asked(pieces_ms: list[int]) -> None:
    def everything(path: str, command: dict[str, object], moments: list[int]) -> list[str]:
        client = Client(path)
        client.log_in()
        client.say({"action": "subscribe", **command})
        frames = [frame for moment in moments for frame in client.session.due(moment)]
        return sorted(json.dumps(message) for frame in frames for message in json.loads(frame))

    end = T0 + 100_000_000_000
    moments = [T0 + 1_000_000 * ms for ms in accumulate(pieces_ms) if ms < 100_000]
    for path, command in (
        ("/v2/iex", {"trades": ["AAPL", "MSFT"], "quotes": ["NVDA"], "bars": ["AAPL", "TSLA"], "dailyBars": ["AAPL"]}),
        ("/v1beta3/crypto/us", {"trades": ["*"], "orderbooks": ["BTC/USD"]}),
        ("/v1beta1/news", {"news": ["*"]}),
    ):
        told = everything(path, dict(command), [*moments, end])
        assert told == everything(path, dict(command), [end])
        assert len(told) == len(set(told)) > 1


def test_after_the_machine_has_slept_the_lost_hours_are_not_made_up_for() -> None:
    client = Client()
    client.log_in()
    client.say({"action": "subscribe", "trades": ["AAPL"]})
    (frame,) = client.session.due(T0 + 3600 * 10**9)
    assert len(json.loads(frame)) < 200


def test_news_is_told_to_those_whom_it_concerns() -> None:
    first = FEED.news(T0, T0 + MINUTE_NS)[0]
    about = first["symbols"]
    assert isinstance(about, list)
    for symbols, heard in ((about[:1], True), (["*"], True), (["NOPE"], False)):
        client = Client("/v1beta1/news")
        client.log_in()
        assert client.say({"action": "subscribe", "news": symbols})["news"] == symbols
        frames = client.session.due(T0 + MINUTE_NS)
        ids = [message["id"] for frame in frames for message in json.loads(frame)]
        assert (first["id"] in ids) == heard


def test_the_day_so_far_is_its_minutes_and_the_trades_since() -> None:
    until_ns = T0 + 17 * 10**9
    midnight_ns, minute_ns = HOURS.previous_close(T0), until_ns // MINUTE_NS * MINUTE_NS
    day = FEED.day_so_far("AAPL", until_ns, EVER)
    minutes = FEED.spans("AAPL", [(at, at + MINUTE_NS) for at in range(midnight_ns, minute_ns, MINUTE_NS)], EVER)
    rest = FEED.bar("AAPL", minute_ns, until_ns)
    bars: list[dict[str, Any]] = [bar for bar in (*minutes, rest) if bar is not None]
    assert day is not None
    assert (day["t"], day["o"], day["c"]) == (midnight_ns, bars[0]["o"], bars[-1]["c"])
    assert (day["h"], day["l"]) == (max(bar["h"] for bar in bars), min(bar["l"] for bar in bars))
    assert (day["v"], day["n"]) == (sum(bar["v"] for bar in bars), sum(bar["n"] for bar in bars))


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
        self.is_reset = False
        self.session = MarketSession(
            path,
            "json",
            FEED,
            lambda *pair: hash(pair),
            occupancy or Occupancy(),
            limits or Limits(),
            now_ns,
            is_reset=lambda: self.is_reset,
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
    session = MarketSession(
        "/v2/iex", "msgpack", FEED, lambda *pair: 1, Occupancy(), Limits(), T0, is_reset=lambda: False
    )
    session.receive(msgpack.packb({"action": "auth", "key": "PK", "secret": "s"}))
    session.receive(msgpack.packb({"trades": ["AAPL"], "action": "subscribe"}))
    (frame,) = session.due(T0 + 10_000_000_000)
    message = msgpack.unpackb(frame)[0]
    assert next(iter(message)) == "T"
    assert isinstance(message["t"], msgpack.Timestamp)


def test_bands_are_five_percent_around_a_price_of_the_last_five_minutes() -> None:
    for band in FEED.bands("AAPL", T0, T0 + 10 * MINUTE_NS):
        at_ns = band["t"]
        assert isinstance(at_ns, int)
        before = [TAPE.last("AAPL", at_ns - at_ns % (5 * MINUTE_NS))]
        assert band["u"] == before[0] + (before[0] * Decimal("0.05")).quantize(Decimal("0.01"))
        assert band["u"] + band["d"] == 2 * before[0]  # type: ignore[operator] # decimals, in a message of anything
    assert len(FEED.bands("AAPL", T0, T0 + 10 * MINUTE_NS)) == 20


# -------------------------------------------------------------------- what is said about trades after they happened


HOURS_NS = 3600 * 10**9
SPAN = (T0, T0 + 4 * HOURS_NS)


def key(trade: dict[str, Any]) -> tuple[Any, ...]:
    return trade["i"], trade["t"], trade["p"], trade["s"]


def test_late_trades_corrections_and_cancels_are_rare_and_happen() -> None:
    trades = FEED.told("AAPL", *SPAN)
    late = [trade for trade in trades if "Z" in trade["c"]]  # type: ignore[operator] # a list
    corrections, cancels = FEED.corrections("AAPL", *SPAN), FEED.cancels("AAPL", *SPAN)
    for found in (late, corrections, cancels, FEED.updated_bars("AAPL", *SPAN)):
        assert 0 < len(found) < len(trades) / 100


def test_what_is_amended_was_really_sent_before() -> None:
    told = {trade["i"]: trade for trade in FEED.told("AAPL", T0 - MINUTE_NS, SPAN[1])}
    for correction in FEED.corrections("AAPL", *SPAN):
        was = told[correction["oi"]]
        assert (was["p"], was["s"], was["c"], was["x"]) == tuple(correction[n] for n in ("op", "os", "oc", "x"))
        assert (was["p"], was["s"]) != (correction["cp"], correction["cs"])
        assert was["t"] < correction["t"]  # type: ignore[operator] # nanoseconds
    for cancel in FEED.cancels("AAPL", *SPAN):
        was = told[cancel["i"]]
        assert [was[n] for n in ("p", "s", "x")] == [cancel[n] for n in ("p", "s", "x")]
        assert cancel["a"] in ("C", "E")
        assert was["t"] < cancel["t"]  # type: ignore[operator] # nanoseconds


@pytest.mark.parametrize("symbol", ["AAPL", "BTC/USD"])
def test_applying_what_was_told_gives_the_history(symbol: str) -> None:
    """Once everything is over; and no coin's trade is ever corrected or canceled."""
    begin, end = SPAN
    after = end + 30 * 10**9
    kept = {trade["i"]: trade for trade in FEED.told(symbol, begin, after) if begin <= trade["t"] < end}  # type: ignore[operator] # messages hold any object
    for correction in FEED.corrections(symbol, begin, after):
        if (was := kept.pop(correction["oi"], None)) is not None:
            right = {n: correction[f"c{n}"] for n in ("i", "p", "s", "c")}
            kept[correction["ci"]] = {**was, **right}
    for cancel in FEED.cancels(symbol, begin, after):
        kept.pop(cancel["i"], None)
    history = [trade for trade in FEED.history(symbol, begin, end, known_ns=EVER) if counts(trade)]
    assert sorted(map(key, kept.values())) == sorted(map(key, history))
    assert ("/" in symbol) == (not FEED.corrections(symbol, begin, after))


def test_history_flags_what_no_longer_counts_and_knows_nothing_of_the_future() -> None:
    cancel, correction = FEED.cancels("AAPL", *SPAN)[0], FEED.corrections("AAPL", *SPAN)[0]
    for amendment, ids, marks in (
        (cancel, [cancel["i"]], ["canceled"]),
        (correction, [correction["oi"], correction["ci"]], ["incorrect", "corrected"]),
    ):
        at_ns = int(str(amendment["t"]))
        for known_ns, expected in ((at_ns, [None]), (at_ns + 1, marks)):
            history = FEED.history("AAPL", at_ns - MINUTE_NS, at_ns + 1, known_ns=known_ns)
            assert [trade.get("u") for trade in history if trade["i"] in ids] == expected


def test_a_bar_that_late_trades_and_corrections_changed_is_told_once_more() -> None:
    begin, end = T0 // MINUTE_NS * MINUTE_NS, SPAN[1]
    first = {bar["t"]: bar for bar in FEED.finished_bars("AAPL", begin, end)}
    updated = {bar["t"]: bar for bar in FEED.updated_bars("AAPL", begin, end + MINUTE_NS)}
    for minute, bar in first.items():
        final = FEED.bar("AAPL", int(str(minute)))
        changed = updated.get(minute)
        assert final == {**(changed or bar), "T": "b"}
        assert changed is None or changed["T"] == "u"
        assert changed is None or {**changed, "T": "b"} != bar


def test_a_session_tells_amendments_the_same_however_often_it_is_asked() -> None:
    def everything(step_ns: int) -> list[str]:
        client = Client()
        client.log_in()
        client.say({"action": "subscribe", "trades": ["*"], "updatedBars": ["*"], "statuses": ["*"]})
        moments = range(T0 + step_ns, T0 + 110 * 10**9 + 1, step_ns)
        frames = [frame for moment in moments for frame in client.session.due(moment)]
        return sorted(json.dumps(message) for frame in frames for message in json.loads(frame))

    told = everything(110 * 10**9)
    assert told == everything(2 * 10**9)
    assert len(told) == len(set(told))
    assert {"t", "u", "c", "x"} <= {json.loads(message)["T"] for message in told}


def test_a_halted_stock_is_first_not_quoted_and_not_traded_and_then_quoted() -> None:
    day = 86_400 * 10**9
    halt = next(halts(HOURS, "AAPL", T0, T0 + 400 * day))
    minute = MINUTE_NS
    assert [status["sc"] for status in FEED.statuses("AAPL", halt.from_ns - minute, halt.until_ns + minute)] == [
        "H",
        "Q",
        "T",
    ]
    assert (
        FEED.told("AAPL", halt.from_ns + minute, halt.until_ns)
        == FEED.trades("AAPL", halt.from_ns, halt.until_ns)
        == []
    )
    assert FEED.quotes("AAPL", halt.from_ns, halt.quoting_ns) == FEED.bands("AAPL", halt.from_ns, halt.until_ns) == []
    assert FEED.quotes("AAPL", halt.quoting_ns, halt.until_ns)
    assert FEED.trades("AAPL", halt.until_ns, halt.until_ns + minute)
    assert not list(halts(HOURS, "BTC/USD", T0, T0 + 400 * day))


def test_any_split_of_an_interval_gives_the_same_halts() -> None:
    halt = next(halts(HOURS, "AAPL", T0, T0 + 400 * 86_400 * 10**9))
    edges = [halt.from_ns - 1, halt.from_ns, halt.from_ns + 1, halt.quoting_ns, halt.until_ns, halt.until_ns + 1]
    pieces = [status for begin, end in pairwise(edges) for status in FEED.statuses("AAPL", begin, end)]
    assert pieces == FEED.statuses("AAPL", edges[0], edges[-1])
    assert len(pieces) == 3


def test_a_reset_exchange_ends_the_session() -> None:
    client = Client()
    client.log_in()
    client.is_reset = True
    (frame,) = client.session.due(T0 + 10**9)
    assert json.loads(frame) == [{"T": "error", "code": 500, "msg": "the exchange was reset"}]
    assert client.session.over
    assert client.session.due(T0 + 2 * 10**9) == []
