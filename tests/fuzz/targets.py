"""Every parser that reads what others wrote, each with inputs of its own.

A target takes any of its inputs or refuses it with one of our errors (``AlpacliError``, ``BadFrame``, a refusal of the
exchange's; ``ValueError`` where the docstring says so). Everything else that comes out of one is a finding. Command lines
are beside, in ``argv.py``: they need a process of their own.
"""

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast

from hypothesis import strategies as st
from tests.fuzz.inputs import ODD_TEXT, altered, json_of, msgpack_of, text_of, words_of
from tests.support.broker_book import fill, order
from tests.support.fakes import ACCOUNT, ManualClock

from alpacli.broker.risk import read_rules
from alpacli.cli.batch import _tickets as tickets_of_file
from alpacli.cli.completion import Known, complete
from alpacli.domain.order_rules import violations
from alpacli.domain.series import Kind
from alpacli.domain.tickets import amount, read_leg, read_ticket
from alpacli.domain.ticks import Interest, instant_ns
from alpacli.domain.values import Timestamp, exact, from_json, to_json
from alpacli.errors import AlpacliError, ConfigError, UsageError
from alpacli.gateway.access import from_headers, from_message, from_subprotocols
from alpacli.gateway.conversations import BrokerConversation, Conversation, MarketConversation, UpdatesConversation
from alpacli.gateway.relay import Relay
from alpacli.gateway.tokens import Grant, SigningKeys, read_scopes, read_token
from alpacli.ports import Request, Response
from alpacli.profiles import Draft, edited, read_all
from alpacli.settings import Flags, check_gateway_url, check_url, load, origins
from alpacli.sim.exchange import Exchange
from alpacli.sim.faults import fault_from, fault_from_words
from alpacli.sim.reading import read
from alpacli.sim.rest import HttpRequest, handle
from alpacli.sim.sockets import PATHS, Limits, Occupancy, open_session
from alpacli.sim.stepping import SteppedClock, step
from alpacli.store.journal import Journal
from alpacli.store.redis import parse_url
from alpacli.streams.batch import Batch
from alpacli.streams.events import Event
from alpacli.streams.feeds import FEEDS
from alpacli.streams.recording import Recorder, Replay
from alpacli.streams.session import Action
from alpacli.streams.supervisor import Sink
from alpacli.wire import columns, market, pages, quotes, rest
from alpacli.wire.errors import refusal
from alpacli.wire.frames import BadFrame, Encoding, decode, decode_update, nine_digits
from alpacli.wire.lines import encode_lines, subject
from alpacli.wire.serving import login_in, read_market, read_trading

AT: Final = "2026-01-05T14:30:00.123456789Z"


@dataclass(frozen=True)
class Target:
    """A parser: what it may be given, and how to give it; the folder is its own, the same for every input."""

    name: str
    inputs: st.SearchStrategy[Any]
    feed: Callable[[Any, Path], object]


# --------------------------------------------------------------------------------------- what Alpaca answers

POSITION: Final = {
    "asset_id": "904837e3-3b76-47ec-b432-046db621571b",
    "symbol": "AAPL",
    "exchange": "NASDAQ",
    "asset_class": "us_equity",
    "avg_entry_price": "100.0",
    "qty": "5",
    "side": "long",
    "market_value": "600.0",
    "cost_basis": "500.0",
    "unrealized_pl": "100.0",
    "unrealized_plpc": "0.2",
    "current_price": "120.0",
    "lastday_price": "119.0",
    "change_today": "0.0084",
}
ORDER: Final = order(1, AT) | {"legs": [order(2, AT, side="sell", type="limit", limit_price="120.5")]}
BODIES: Final[list[Any]] = [
    ACCOUNT,
    [POSITION],
    [ORDER],
    [fill(1, AT)],
    {"timestamp": AT, "is_open": True, "next_open": AT, "next_close": "2026-01-05T16:00:00-05:00"},
    [
        {
            "date": "2026-01-05",
            "open": "09:30",
            "close": "16:00",
            "session_open": "0400",
            "settlement_date": "2026-01-06",
        }
    ],
    {"timestamp": [1, 2], "equity": [1.5, None], "profit_loss": [0, 1], "profit_loss_pct": [0.1, 0], "timeframe": "1D"},
    {"id": "1", "name": "mine", "account_id": "2", "created_at": AT, "updated_at": AT, "assets": [{"symbol": "AAPL"}]},
    {
        "bars": {"AAPL": [{"t": AT, "o": 1.5, "h": 2, "l": 1, "c": 1.123456789012345678, "v": 3, "n": 4, "vw": 1.5}]},
        "trades": {"AAPL": [{"t": AT, "x": "V", "p": 1.5, "s": 2, "c": ["@"], "i": 1, "z": "C"}]},
        "quotes": {"AAPL": [{"t": AT, "ax": "V", "ap": 2, "as": 3, "bx": "V", "bp": 1, "bs": 1, "c": ["R"], "z": "C"}]},
        "next_page_token": "x",
        "news": [{"id": 1, "headline": "x", "created_at": AT, "updated_at": AT, "symbols": ["AAPL"], "url": None}],
    },
    {
        "AAPL": {
            "latestTrade": {"t": AT, "p": 1.5, "s": 1},
            "dailyBar": {"t": AT, "o": 1, "h": 2, "l": 1, "c": 2, "v": 3},
        }
    },
    [{"id": "1", "class": "us_equity", "exchange": "NASDAQ", "symbol": "AAPL", "status": "active", "tradable": True}],
]
CALLS: Final[list[rest.Call[Any]]] = [
    rest.account(),
    rest.positions(),
    rest.position("AAPL"),
    rest.orders(limit=None),
    rest.order("1"),
    rest.order_by_client_order_id("1"),
    rest.activities(limit=None),
    rest.clock(),
    rest.calendar(),
    rest.portfolio_history(),
    rest.watchlists(),
    rest.assets(),
    rest.asset("AAPL"),
    pages.orders_after(None),
    pages.activities_after(None, category="trade_activity", since=None),
    market.days(["AAPL"], feed="iex"),
    market.snapshots(["AAPL"]),
    market.news(["AAPL"]),
    market.recent_sip("AAPL"),
    quotes.bids_and_asks(["AAPL", "MSFT"]),
    quotes.bids_and_asks(["BTC/USD"]),
]
KINDS: Final[tuple[Kind, ...]] = ("bars", "trades", "quotes")


def _answers(body: bytes, _: Path) -> None:
    with suppress(ValueError):
        from_json(body)
    for call in CALLS:
        with suppress(AlpacliError):
            value = call.decode(body)
            assert call.cache_key is None or call.decode(call.encode(value)) == value, (
                "the cache gives back something else"
            )
            if call.next_page is not None:
                call.next_page(call.request, value, value)
    for kind in KINDS:
        with suppress(AlpacliError):
            columns.read_page(kind, body)
    with suppress(AlpacliError):
        pages.booking(body)


_HEADERS: Final = st.dictionaries(
    st.sampled_from(("retry-after", "x-ratelimit-reset", "location", "content-type", "x-request-id")),
    words_of(
        "1.5", "Wed, 21 Oct 2026 07:28:00 GMT", "Wed, 21 Oct 2026 07:28:00 +9999", "https://x.example/y", "text/html"
    ),
)


def _refusals(given: tuple[int, str, Mapping[str, str], bytes], _: Path) -> None:
    status, path, headers, body = given
    error = refusal(Request("GET", path), Response(status, headers, body), 1_780_000_000.0)
    assert error.exit_code != 1
    assert error.message.isprintable()
    json.dumps(error.as_dict(), allow_nan=False)


REFUSED: Final = [
    {"code": 40310000, "message": "insufficient buying power", "buying_power": "1.5", "held_for_orders": "2"},
    {"message": "unauthorized."},
]
_PATHS: Final = st.sampled_from(("/v2/account", "/v2/orders", "/v2/positions/AAPL", "/v2/stocks/bars"))

# --------------------------------------------------------------------------------------------------- streams

TICKS: Final[list[Any]] = [
    [
        {"T": "t", "S": "AAPL", "i": 1, "x": "V", "p": 150.25, "s": 100, "c": ["@"], "z": "C", "t": AT},
        {
            "T": "q",
            "S": "AAPL",
            "bx": "V",
            "bp": 1.5,
            "bs": 1,
            "ax": "V",
            "ap": 2,
            "as": 3,
            "c": ["R"],
            "z": "C",
            "t": AT,
        },
    ],
    [
        {
            "T": "b",
            "S": "AAPL",
            "o": 1,
            "h": 2,
            "l": 1,
            "c": 2,
            "v": 3,
            "n": 4,
            "vw": 1.5,
            "t": "2026-01-05T09:30:00-05:00",
        }
    ],
    [{"T": "success", "msg": "connected"}, {"T": "error", "code": 406, "msg": "connection limit exceeded"}],
    [{"T": "subscription", "trades": ["AAPL"], "quotes": [], "bars": ["*"]}],
    [{"T": "n", "id": 1, "headline": "x", "created_at": AT, "updated_at": AT, "symbols": ["AAPL"], "content": "a\nb"}],
    [{"T": "o", "S": "BTC/USD", "t": AT, "b": [{"p": 1, "s": 2}], "a": [], "r": True}],
    [{"T": "x", "S": "AAPL", "i": 1, "x": "V", "p": 1, "s": 2, "a": "C", "z": "C", "t": AT}],
]
UPDATES: Final[list[Any]] = [
    {"stream": "trade_updates", "data": {"event": "fill", "price": "1.5", "qty": "2", "timestamp": AT, "order": ORDER}},
    {"stream": "authorization", "data": {"status": "authorized", "action": "authenticate"}},
    {"stream": "listening", "data": {"streams": ["trade_updates"]}},
    {"action": "error", "data": {"code": 401, "error_message": "x"}},
]


def _frames(frame: str | bytes, _: Path) -> None:
    with suppress(BadFrame):
        _is_lines(decode(frame).ticks)


def _packed_frames(frame: bytes, _: Path) -> None:
    with suppress(BadFrame):
        _is_lines(decode(frame, "msgpack").ticks)


def _updates(frame: str | bytes, _: Path) -> None:
    with suppress(BadFrame):
        _is_lines(decode_update(frame).ticks)


def _is_lines(ticks: list[Any]) -> None:
    """Every tick is one line of JSON about one subject, whatever was in it."""
    for tick in ticks:
        subject(tick)
    lines = encode_lines(ticks)
    assert lines.count(b"\n") == len(ticks)
    for line in lines.splitlines():
        json.loads(line)


def _as_text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


# --------------------------------------------------------------------------------------------- what clients say

COMMANDS: Final[list[Any]] = [
    {"action": "auth", "key": "PK", "secret": "s"},
    {"action": "subscribe", "trades": ["AAPL", "*"], "quotes": ["MSFT"], "bars": []},
    {"action": "unsubscribe", "trades": ["AAPL"]},
    {"action": "authenticate", "data": {"key_id": "PK", "secret_key": "s", "oauth_token": "t"}},
    {"action": "listen", "data": {"streams": ["trade_updates"]}},
    {"action": "subscribe", "symbols": ["AAPL", "BTC/USD"], "streams": ["trades", "news", "updates"]},
    {"action": "auth", "token": "a.b.c"},
    {"action": "ping"},
]


def _as_sent(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers are bytes, which both servers read as Latin-1."""
    return {name: value.encode("latin-1", "replace").decode("latin-1") for name, value in headers.items()}


_CLIENT_FRAMES: Final = st.one_of(json_of(COMMANDS), json_of(COMMANDS).map(_as_text), msgpack_of(COMMANDS))
_CLIENT_HEADERS: Final = st.dictionaries(
    st.sampled_from(("apca-api-key-id", "apca-api-secret-key", "authorization", "content-type", "x-signature")),
    words_of("PK", "Basic UEs6cw==", "Basic /", "Bearer a.b.c", "application/msgpack", "Basic \xe9"),
).map(_as_sent)


def _commands(given: tuple[str | bytes, str, bool, Mapping[str, str]], _: Path) -> None:
    frame, path, authenticated, headers = given
    login_in(headers)
    from_headers(headers)
    from_subprotocols(headers.values())
    encodings: tuple[Encoding, ...] = ("json", "msgpack")
    for encoding in encodings:
        read_market(frame, encoding, path, ("trades", "quotes", "bars", "corrections"), authenticated=authenticated)
    read_trading(frame)


def _sim_sessions(given: tuple[str, Mapping[str, str], list[str | bytes]], folder: Path) -> None:
    path, headers, frames = given
    exchange = _exchange(folder)
    session = open_session(exchange, path, headers, Occupancy(), Limits(1, 3))
    session.begin()
    for frame in frames:
        if session.over:
            break
        session.receive(frame)
        session.due(exchange.now_ns())
    session.close()


class _Silence:
    """An upstream connection on which nothing happens."""

    def __init__(self, wanted: Interest) -> None:
        self.wanted = wanted

    async def run(self, sink: Sink) -> None:
        await asyncio.get_running_loop().create_future()

    async def change(self, action: Action, interest: Interest) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def watch_for_silence(self, stale_after_s: float) -> None: ...


class _Out:
    def write(self, frames: bytes) -> None: ...

    @property
    def has_room(self) -> bool:
        return True

    def end(self, code: int, reason: str) -> None: ...


def _gateway_talk(given: tuple[int, str, Mapping[str, str], list[str | bytes]], _: Path) -> None:
    """Talk, let in from the first message that shows something on."""
    kind, query, headers, frames = given

    async def talk() -> None:
        relay = Relay(lambda _, wanted: _Silence(wanted), ManualClock(), flush_s=0.0, patience_s=30.0)
        talks: list[Conversation] = [
            MarketConversation(FEEDS["iex"], relay, _Out(), headers, "x", 3),
            UpdatesConversation(relay, _Out(), "x"),
            BrokerConversation(relay, _Out(), query, "x", ManualClock(), 3),
        ]
        talk = talks[kind]
        relay.join(talk.client)
        talk.begin()
        for frame in frames:
            with suppress(AlpacliError):
                if talk.receive(frame) is not None:
                    talk.let_in(Grant("id", "name", frozenset({"read"})))
        relay.leave(talk.client)
        await relay.close()

    asyncio.run(talk())


class _OneKey:
    def mine(self) -> tuple[str, bytes]:
        return "one", b"k" * 32

    def find(self, key_id: str) -> bytes | None:
        return b"k" * 32 if key_id == "one" else None

    def refresh(self) -> None: ...


_KEYS: Final = cast("SigningKeys", _OneKey())


def _tokens(given: tuple[bytes, Any], _: Path) -> None:
    text, message = given
    with suppress(AlpacliError):
        read_token(_as_text(text), "account", _KEYS, None)
    with suppress(AlpacliError):
        read_scopes(_as_text(text))
    from_message(message)


def _a_token() -> str:
    import jwt

    claims = {"iss": "alpacli", "aud": "account", "sub": "me", "jti": "1", "scope": "read", "exp": 1}
    return jwt.encode(claims, b"k" * 32, "HS256", headers={"kid": "one"})


# ------------------------------------------------------------------------------------------------ the exchange


class _Exchanges:
    """The exchange of a folder, opened once: an input more is a request more, as in life."""

    def __init__(self) -> None:
        self._open: dict[Path, Exchange] = {}

    def __call__(self, folder: Path) -> Exchange:
        if folder not in self._open:
            self._open[folder] = Exchange(str(folder), ManualClock())
            self._open[folder].reset(rate_limit=0)
        return self._open[folder]


_exchange: Final = _Exchanges()
ASKED: Final = {
    "GET": (
        *(
            "/v2/account",
            "/v2/positions",
            "/v2/positions/AAPL",
            "/v2/orders",
            "/v2/orders/1",
            "/v2/clock",
            "/v2/calendar",
        ),
        *("/v2/assets", "/v2/assets/AAPL", "/v2/account/activities", "/v2/account/activities/FILL", "/v2/watchlists"),
        *("/v2/account/portfolio/history", "/v2/options/contracts", "/v2/stocks/bars", "/v2/stocks/AAPL/trades"),
        *(
            "/v2/stocks/snapshots",
            "/v1beta1/news",
            "/v1beta3/crypto/us/latest/orderbooks",
            "/v2/orders:by_client_order_id",
        ),
        *(
            "/v1beta1/options/snapshots/AAPL",
            "/v1beta1/options/bars",
            "/v2/stocks/quotes",
            "/v2/account/configurations",
        ),
    ),
    "POST": ("/v2/orders", "/v2/watchlists", "/v2/watchlists/1"),
    "PATCH": ("/v2/orders/1", "/v2/account/configurations"),
    "PUT": ("/v2/watchlists/1", "/v2/watchlists:by_name"),
    "DELETE": ("/v2/orders", "/v2/orders/1", "/v2/positions", "/v2/positions/AAPL", "/v2/watchlists/1"),
}
QUERY_NAMES: Final = (
    *("status", "limit", "after", "until", "direction", "symbols"),
    *("symbol", "side", "nested", "before_order_id", "start"),
    *("end", "timeframe", "period", "page_token", "page_size", "feed"),
    *("adjustment", "currency", "sort", "asof", "date"),
    *("activity_types", "client_order_id", "qty", "percentage", "cancel_orders", "type", "strike_price_gte", "name"),
    *("expiration_date", "underlying_symbols", "asset_class", "intraday_reporting"),
    *("date_type", "root_symbol", "after_order_id"),
)
ORDER_BODIES: Final[list[Any]] = [
    {"symbol": "AAPL", "qty": "1", "side": "buy", "type": "limit", "limit_price": "1.5", "time_in_force": "day"},
    {"symbol": "BTC/USD", "notional": 10, "side": "buy", "type": "market", "time_in_force": "gtc"},
    {
        "symbol": "AAPL",
        "qty": "1",
        "side": "buy",
        "type": "trailing_stop",
        "trail_percent": "1",
        "time_in_force": "gtc",
    },
    {
        "symbol": "AAPL",
        "qty": 1,
        "side": "buy",
        "type": "market",
        "time_in_force": "day",
        "order_class": "bracket",
        "take_profit": {"limit_price": 900},
        "stop_loss": {"stop_price": 1, "limit_price": "0.9"},
    },
    {
        "order_class": "mleg",
        "qty": 1,
        "type": "limit",
        "limit_price": "1",
        "time_in_force": "day",
        "legs": [{"symbol": "AAPL260116C00200000", "ratio_qty": "1", "side": "buy", "position_intent": "buy_to_open"}]
        * 2,
    },
    {"qty": "2", "limit_price": 3, "time_in_force": "gtc"},
    {"name": "mine", "symbols": ["AAPL"]},
    {"symbol": "MSFT"},
    {"dtbp_check": "entry", "fractional_trading": True, "max_margin_multiplier": "1"},
]


@st.composite
def _asked(draw: st.DrawFn) -> HttpRequest:
    method = draw(st.sampled_from(sorted(ASKED)))
    path = draw(st.one_of(st.sampled_from(ASKED[method]), words_of(*ASKED[method])))
    value = words_of(
        "all", "1", "AAPL", "AAPL,MSFT", "2026-01-05", AT, "1Day", "5Min", "iex", "true", "asc", "1D", "sip"
    )
    query = draw(st.lists(st.tuples(st.sampled_from(QUERY_NAMES), value), max_size=4))
    body = draw(json_of(ORDER_BODIES)) if method in ("POST", "PATCH", "PUT") else b""
    return HttpRequest(method, path, tuple(query), {"apca-api-key-id": "PK", "apca-api-secret-key": "s"}, body)


def _requests(request: HttpRequest, folder: Path) -> None:
    answer = handle(_exchange(folder), request)
    assert answer.status < 500, answer
    if answer.body:
        json.loads(answer.body)


def _switches(given: tuple[Any, str, bytes], _: Path) -> None:
    fields, words, body = given
    with suppress(UsageError):
        fault_from(fields).shown()
    with suppress(UsageError):
        fault_from_words(words).shown()
    with suppress(UsageError, ValueError):
        step(SteppedClock(ManualClock()), body)


FAULT: Final = {"kind": "drop", "path": "/v2/iex", "times": 1, "after": 5, "how": "frame"}

# ------------------------------------------------------------------------------------------------------- settings

NAMES: Final = (
    *("ALPACA_API_KEY", "ALPACA_SECRET_KEY", "APCA_API_KEY_ID"),
    *("APCA_API_SECRET_KEY", "ALPACA_BASE_URL", "ALPACA_DATA_URL"),
    *("ALPACA_STREAM_URL", "REDIS_URL", "ALPACLI_PROFILE"),
    *("ALPACLI_STATE_DIR", "ALPACLI_CONFIG_DIR", "ALPACLI_RATE_LIMIT"),
    *("ALPACLI_RATE_RESERVE", "ALPACLI_RATE_WINDOW", "ALPACLI_MAX_WAIT"),
    *("ALPACLI_BREAKER_OPEN", "ALPACLI_HUB_LINGER", "HOME"),
)
URLS: Final = (
    *("https://paper-api.alpaca.markets", "https://data.alpaca.markets", "wss://stream.data.alpaca.markets:443"),
    *("http://127.0.0.1:8765", "http://[::1]:80", "ws://localhost"),
    *("https://u:p@h/v2?x#y", "http://127.1", "http://[::1"),
    *("redis://:pw@localhost:6379/0", "rediss+cluster://a:1,b:2"),
    *("redis+sentinel://h1,h2:26379/master/1", "redis://[::1]:1/x"),
)
DOTENV: Final = (
    "ALPACA_API_KEY=PK123\nexport ALPACA_SECRET_KEY='s'\n# x\nALPACLI_RATE_LIMIT=200\nREDIS_URL=\"redis://h\"\n"
)
TOML: Final = """profile = "paper"
[profiles.paper]
api_key = "PK1"
secret_key = "s"
rate_limit = 100
max_wait = 1.5
[profiles.paper.cache]
account = 5
[profiles.desk]
gateway = "https://g.example:8000"
token = "t"
"""
OTHERWISE_TOML: Final = """profile = "desk" # mine
profiles.paper.api_key = "PK1"
profiles.paper.secret_command = [
# all of it
"pass", "alpaca"]
profiles.desk.state_dir = '''
[profiles.paper]
'''
profiles.old = {rate_limit = 1, max_wait = nan}
"""
SPREAD_TOML: Final = """[profiles.paper]
state_dir = '''
[profiles.desk]
'''
# of the desk
[profiles."desk"] # here
max_wait = 2.50
  [profiles.desk.cache]
  orders = 1
[profiles.old]
[ profiles . paper . cache ]
account = 5
"""
RISK: Final = """max_order_notional = 5000
market_hours_only = true
[profiles.swing]
allowed_symbols = ["AAPL"]
max_order_qty = 1e2
max_orders_per_minute = 10
"""
ODD_TOML: Final = """a = 1e999999999999999999999
b = 2026-13-45T00:00:00Z
c = 9999999999999999999999999999
d = nan
[profiles]
x = [[[[1]]]]
max_order_qty = inf
"""


def _environment(env: Mapping[str, str], folder: Path) -> None:
    for sim in (False, True):
        with suppress(ConfigError, UsageError):
            settings = load(Flags(sim=sim), env={"HOME": str(folder), **env}, cwd=str(folder))
            assert settings.fingerprint
        with suppress(ConfigError, UsageError):
            origins(Flags(sim=sim), env={"HOME": str(folder), **env}, cwd=str(folder))


def _dotenv(content: bytes, folder: Path) -> None:
    (folder / ".env").write_bytes(content)
    _environment({}, folder)


def _profile_file(content: bytes, folder: Path) -> None:
    (folder / "config.toml").write_bytes(content)
    for name in ("paper", "desk", ""):
        _environment({"ALPACLI_CONFIG_DIR": str(folder), "ALPACLI_PROFILE": name}, folder)
    with suppress(ConfigError):
        for name in read_all(str(folder)).values:
            _change_profile(content, folder, name)


def _change_profile(content: bytes, folder: Path, name: str) -> None:
    """A change of one profile leaves every other as it was."""
    changes: tuple[Callable[[Draft], None], ...] = (
        lambda draft: draft.delete(name),
        lambda draft: draft.rename(name, f"{name} too"),
    )
    for change in changes:
        (folder / "config.toml").write_bytes(content)
        others = _others(folder, {name, f"{name} too"})
        with suppress(ConfigError):
            with edited(str(folder)) as draft:
                change(draft)
            assert _others(folder, {name, f"{name} too"}) == others
            assert name not in read_all(str(folder)).values


def _others(folder: Path, changed: set[str]) -> str:
    return repr({name: fields for name, fields in read_all(str(folder)).values.items() if name not in changed})


def _risk_file(content: bytes, folder: Path) -> None:
    (folder / "risk.toml").write_bytes(content)
    with suppress(ConfigError):
        read_rules(str(folder), "swing")


def _urls(url: str, _: Path) -> None:
    kinds: tuple[Literal["trading", "data", "stream"], ...] = ("trading", "data", "stream")
    for kind in kinds:
        with suppress(ConfigError):
            assert "alpaca.markets" not in check_url(kind, url, "it") or url.startswith(("https://", "wss://"))
    with suppress(ConfigError):
        check_gateway_url(url, "it")
    with suppress(ConfigError):
        parse_url(url)


# ---------------------------------------------------------------------------------------------------------- files

RECORDING: Final = "".join(
    json.dumps(line) + "\n"
    for line in (
        {"type": "mark", "received_at": AT},
        {"type": "trade", "symbol": "AAPL", "timestamp": AT, "price": 1.5, "size": 2, "conditions": ["@"]},
        {
            "type": "quote",
            "symbol": "AAPL",
            "timestamp": AT,
            "bid_price": 1,
            "bid_size": 1,
            "ask_price": 2,
            "ask_size": 3,
        },
        {"type": "bar", "symbol": "BTC/USD", "timestamp": AT, "open": 1, "high": 2, "low": 1, "close": 2, "volume": 3},
        {"type": "news", "timestamp": AT, "headline": "x"},
    )
)
BARS: Final = """timestamp,symbol,open,high,low,close,volume,trade_count,vwap
2026-01-05T14:30:00Z,AAPL,1,2.5,0.5,2,100,5,1.75
2026-01-05 09:31:00,AAPL,1,2,1,2,1e3,,
1767623520,AAPL,1,2,1,2,1,1,1
"""
DAYS: Final = "Date;Open;High;Low;Close;Volume\n2026-01-05;1;2;1;2;3\n01/06/2026;1,5;2;1;2;3\n"
ORDERS_CSV: Final = "symbol,side,qty,limit_price,legs\nAAPL,buy,1,1.5,\nF,sell,2,,[{}]\n"


def _replayed(content: bytes, folder: Path) -> None:
    path = folder / "AAPL.jsonl"
    path.write_bytes(content)
    clock = ManualClock()

    class Deaf:
        def event(self, event: Event) -> None: ...

        def batch(self, batch: Batch) -> None: ...

    for speed in (None, 1e9):
        with suppress(UsageError):
            asyncio.run(Replay(str(path), Interest(), speed=speed, clock=clock, sleep=clock.sleep_async).run(Deaf()))
    with suppress(UsageError):
        recorder = Recorder(str(path), clock)
        recorder.write(b'{"type":"trade"}\n')
        recorder.close()


def _prices(given: tuple[bytes, str], folder: Path) -> None:
    content, name = given
    path = folder / name
    path.write_bytes(content)
    with suppress(UsageError):
        read([str(path)])
    path.unlink()


def _order_files(content: bytes, _: Path) -> None:
    with suppress(AlpacliError):
        for _line, ticket in tickets_of_file(content, "base"):
            violations(ticket)


def _journals(content: bytes, folder: Path) -> None:
    path = folder / "orders.jsonl"
    path.write_bytes(content)
    journal = Journal(str(path))
    with suppress(ConfigError):
        list(journal.records())
        journal.since(0.0)
        journal.verify()
    before = len(list(journal.records()))
    journal.append({"at": 1.0, "what": "x"})
    assert len(list(journal.records())) == before + 1, "what was appended cannot be read"


def _journal_text() -> str:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(os.path.join(folder, "x"))
        for number in range(3):
            journal.append({"at": float(number), "client_order_id": f"c{number}", "outcome": "placed"})
        return Path(journal.path).read_text()


# ----------------------------------------------------------------------------------------------------- small texts


def _texts(text: str, _: Path) -> None:
    for parse in (exact, Timestamp.parse, instant_ns):
        with suppress(ValueError):
            parse(text)
    nine_digits(text)
    with suppress(UsageError):
        amount("it", text)
    with suppress(UsageError):
        read_leg(text)


def _tickets(fields: Any, _: Path) -> None:
    if not isinstance(fields, Mapping):
        return
    with suppress(UsageError):
        ticket = read_ticket(fields)
        list(violations(ticket))
        to_json(ticket)


class _OnThisMachine(Known):
    """A machine that knows little."""

    def symbols(self, prefix: str) -> list[str]:
        return ["AAPL", "BTC/USD"]

    def order_ids(self) -> list[str]:
        return ["1"]

    def profiles(self) -> list[str]:
        return ["paper"]


def _completions(words: list[str], _: Path) -> None:
    for candidate, about in complete(words, _OnThisMachine(words)):
        assert isinstance(candidate, str)
        assert isinstance(about, str)


WORDS: Final = (
    *(
        "account",
        "orders",
        "buy",
        "cache",
        "clear",
        "stream",
        "--sim",
        "--json",
        "--fields",
        "--fields=",
        "--symbols",
        "A,B",
    ),
    *("sim", "serve", "hooks", "add", "--profile", "--tz", "--status", "--", "-", "", "order", "data", "sql", "AAPL"),
)

_BAR_FILES: Final = st.one_of(
    text_of(BARS, DAYS, RECORDING, ORDERS_CSV),
    st.lists(altered([json.loads(line) for line in RECORDING.splitlines()]), max_size=4).map(
        lambda rows: b"\n".join(json.dumps(row).encode() for row in rows)
    ),
)

TARGETS: Final = (
    Target("answers", json_of(BODIES), _answers),
    Target("refusals", st.tuples(st.integers(300, 599), _PATHS, _HEADERS, json_of(REFUSED)), _refusals),
    Target("frames", st.one_of(json_of(TICKS), json_of(TICKS).map(_as_text)), _frames),
    Target("msgpack frames", msgpack_of(TICKS), _packed_frames),
    Target("updates", st.one_of(json_of(UPDATES), json_of(UPDATES).map(_as_text)), _updates),
    Target("commands", st.tuples(_CLIENT_FRAMES, st.sampled_from(PATHS), st.booleans(), _CLIENT_HEADERS), _commands),
    Target(
        "exchange sockets",
        st.tuples(st.sampled_from(PATHS), _CLIENT_HEADERS, st.lists(_CLIENT_FRAMES, max_size=4)),
        _sim_sessions,
    ),
    Target(
        "gateway sockets",
        st.tuples(
            st.integers(0, 2),
            words_of("symbols=AAPL&streams=trades", "batch=1&feed=sip", "feed=%FF", "streams=,,"),
            _CLIENT_HEADERS,
            st.lists(_CLIENT_FRAMES, max_size=5),
        ),
        _gateway_talk,
    ),
    Target("gateway tokens", st.tuples(text_of(_a_token(), "read,trade"), altered(COMMANDS)), _tokens),
    Target("exchange requests", _asked(), _requests),
    Target(
        "exchange switches",
        st.tuples(
            altered([FAULT]),
            words_of("drop,after=5,path=/v2/iex", "mute,how=pongs"),
            json_of([{"advance": 5}, {"set": AT}]),
        ),
        _switches,
    ),
    Target(
        "environment",
        st.dictionaries(
            st.sampled_from(NAMES), st.one_of(words_of(*URLS), ODD_TEXT, words_of("PK1", "100", "1.5"))
        ).map(lambda env: {name: value.replace("\0", "") for name, value in env.items()}),
        _environment,
    ),
    Target(".env", text_of(DOTENV), _dotenv),
    Target("config.toml", text_of(TOML, OTHERWISE_TOML, SPREAD_TOML, ODD_TOML), _profile_file),
    Target("risk.toml", text_of(RISK, ODD_TOML), _risk_file),
    Target("URLs", words_of(*URLS), _urls),
    Target("recordings", text_of(RECORDING), _replayed),
    Target("prices", st.tuples(_BAR_FILES, st.sampled_from(("AAPL.csv", "x.csv", "y.jsonl", "z.csv.gz"))), _prices),
    Target("order files", st.one_of(text_of(ORDERS_CSV), json_of([[row] for row in ORDER_BODIES])), _order_files),
    Target("journals", text_of(_journal_text()), _journals),
    Target("small texts", words_of("1.5", "-1e3", AT, "AAPL:1:buy_to_open", "1,000.5"), _texts),
    Target("orders", altered(ORDER_BODIES), _tickets),
    Target("completion", st.lists(words_of(*WORDS), max_size=5), _completions),
)
