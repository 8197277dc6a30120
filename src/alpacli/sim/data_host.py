"""The paths of Alpaca's data host: what is asked there, of which feed, and how it says no.

One server answers for both hosts here. A parameter that is wrong is 400 on this one, and not 422.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from alpacli.sim import chains, data, option_data
from alpacli.sim.answers import Json, Refusal, bad_parameter
from alpacli.sim.call import Answer, Call, Handler
from alpacli.sim.hours import new_york_date, new_york_ns
from alpacli.sim.tickets import amount

_MOST_ACTIONS: Final = 1000


def chain_filter(call: Call, underlyings: Sequence[str]) -> chains.Filter:
    """Read what the list of contracts and the chain of snapshots have in common."""
    return chains.Filter(
        underlyings,
        expires=call.day("expiration_date"),
        from_day=call.day("expiration_date_gte"),
        to_day=call.day("expiration_date_lte"),
        root=call.query.get("root_symbol") or None,
        type=call.choice("type", "", "call", "put") or None,
        least_strike=amount(call.query, "strike_price_gte"),
        most_strike=amount(call.query, "strike_price_lte"),
    )


def _corporate_actions(call: Call) -> Json:
    """Return no corporate actions: nothing here is split and nothing pays."""
    start, end = call.day("start"), call.day("end")
    if start is not None and end is not None and end < start:
        raise bad_parameter("end should not be before start")
    _limit(call, 100, _MOST_ACTIONS)
    return {"corporate_actions": {}, "next_page_token": None}


def _query(call: Call, channel: str, symbols: list[str], *, crypto: bool) -> data.Query:
    day_ns = new_york_ns(new_york_date(call.desk.now_ns))
    start_ns, end_ns = call.instant("start"), call.instant("end")
    if start_ns is not None and end_ns is not None and end_ns < start_ns:
        raise bad_parameter("end should not be before start")
    return data.Query(
        channel,
        symbols,
        day_ns if start_ns is None else start_ns,
        call.desk.now_ns if end_ns is None else end_ns,
        _limit(call, 1000, data.MOST_ROWS),
        data.parse_timeframe(call.query.get("timeframe") or "1Min"),
        call.choice("sort", "asc", "desc") == "desc",
        data.parse_token(call.query.get("page_token", "")),
        crypto,
    )


def _limit(call: Call, default: int, most: int) -> int:
    text = call.query.get("limit", "")
    if text.isascii() and text.isdecimal() and int(text[:9]) > most:
        raise bad_parameter(f"invalid limit: larger than the allowed maximum of {most}")
    return call.number("limit", default, most)


def _symbols(call: Call, *, crypto: bool) -> list[str]:
    symbols = call.words("symbols")
    if not symbols:
        raise bad_parameter("symbols is required")
    for symbol in symbols:
        if crypto and not _COIN.fullmatch(symbol):
            raise bad_parameter(f"invalid symbol: {symbol}; crypto symbols must match {_COIN.pattern}")
        if not crypto and not _STOCK.fullmatch(symbol):
            raise bad_parameter(f"invalid symbol: {symbol}")
    return symbols


_COIN: Final = re.compile(r"[A-Z0-9]+x?/[A-Z]+")
_STOCK: Final = re.compile(r"[A-Z0-9]+(?:[./-][A-Z0-9]+)*")


def _market_history(call: Call, *, crypto: bool) -> Json:
    symbols = _symbols(call, crypto=crypto)
    return data.history(call.desk, _query(call, call.item, symbols, crypto=crypto))


def _stock_history(call: Call) -> Json:
    symbol, _, channel = call.item.partition("/")
    return data.single(data.history(call.desk, _query(call, channel, [symbol], crypto=False)), symbol, channel)


def _market_latest(call: Call, *, crypto: bool) -> Json:
    return {call.item: data.latest(call.desk, call.item, _symbols(call, crypto=crypto), crypto=crypto)}


def _stock_latest(call: Call) -> Json:
    symbol, channel, _ = call.item.split("/")
    return data.single(data.latest(call.desk, channel, [symbol], crypto=False), symbol, channel)


def _stock_snapshot(call: Call) -> Json:
    found = data.snapshots(call.desk, [call.item], crypto=False).get(call.item)
    if not isinstance(found, dict):
        raise Refusal(404, 40410000, f"no snapshot found for {call.item}")
    return {"symbol": call.item, **found}


def _news(call: Call) -> Json:
    start_ns, end_ns = call.instant("start"), call.instant("end")
    return data.news(
        call.desk,
        call.words("symbols"),
        new_york_ns(new_york_date(call.desk.now_ns)) if start_ns is None else start_ns,
        call.desk.now_ns if end_ns is None else end_ns,
        _limit(call, 10, data.MOST_NEWS),
        ascending=call.choice("sort", "desc", "asc") == "asc",
        token=call.query.get("page_token", ""),
    )


def _option_symbols(call: Call) -> list[str]:
    symbols = call.words("symbols")
    if not symbols:
        raise bad_parameter("symbols is required")
    option_data.check_symbols(symbols)
    return symbols


def _option_history(call: Call) -> Json:
    query = _query(call, call.item, _option_symbols(call), crypto=False)
    return data.history(call.desk, query, feed=option_data.feed_at(call.desk))


def _option_latest(call: Call) -> Json:
    feed = option_data.feed_at(call.desk)
    return {call.item: data.latest(call.desk, call.item, _option_symbols(call), crypto=False, feed=feed)}


def _option_snapshots(call: Call) -> Json:
    return _snapshots_of(call, _option_symbols(call))


def _option_chain(call: Call) -> Json:
    wanted = chain_filter(call, [call.item])
    return _snapshots_of(
        call, [contract.symbol for contract in chains.contracts(call.desk.market, wanted, call.desk.now_ns)]
    )


def _snapshots_of(call: Call, symbols: Sequence[str]) -> Json:
    return option_data.snapshots(
        call.desk,
        symbols,
        _limit(call, 100, option_data.MOST_SNAPSHOTS),
        call.query.get("page_token", ""),
        call.instant("updated_since"),
    )


def _option_conditions(call: Call) -> Json:
    found = option_data.CONDITIONS.get(call.item)
    if found is None:
        raise bad_parameter(f"invalid ticktype: {call.item}")
    return dict(found)


_STOCKS: Final = "/v2/stocks"
_CRYPTO: Final = "/v1beta3/crypto/us"
_OPTIONS: Final = "/v1beta1/options"
_KIND: Final = "trades|quotes|bars"
_DATA: Final[Mapping[str, Handler]] = {
    f"{_STOCKS}/(?P<item>{_KIND})": lambda call: _market_history(call, crypto=False),
    f"{_STOCKS}/(?P<item>{_KIND})/latest": lambda call: _market_latest(call, crypto=False),
    f"{_STOCKS}/snapshots": lambda call: dict(data.snapshots(call.desk, _symbols(call, crypto=False), crypto=False)),
    f"{_STOCKS}/(?P<item>[^/]+/(?:{_KIND}))": _stock_history,
    f"{_STOCKS}/(?P<item>[^/]+/(?:{_KIND})/latest)": _stock_latest,
    f"{_STOCKS}/(?P<item>[^/]+)/snapshot": _stock_snapshot,
    f"{_CRYPTO}/(?P<item>{_KIND})": lambda call: _market_history(call, crypto=True),
    f"{_CRYPTO}/latest/(?P<item>{_KIND}|orderbooks)": lambda call: _market_latest(call, crypto=True),
    f"{_CRYPTO}/snapshots": lambda call: {
        "snapshots": data.snapshots(call.desk, _symbols(call, crypto=True), crypto=True)
    },
    "/v1beta1/news": _news,
    "/v1/corporate-actions": _corporate_actions,
    f"{_OPTIONS}/(?P<item>bars|trades)": _option_history,
    f"{_OPTIONS}/(?P<item>quotes|trades)/latest": _option_latest,
    f"{_OPTIONS}/snapshots": _option_snapshots,
    f"{_OPTIONS}/snapshots/(?P<item>[^/]+)": _option_chain,
    f"{_OPTIONS}/meta/exchanges": lambda _: dict(option_data.EXCHANGES),
    f"{_OPTIONS}/meta/conditions/(?P<item>[^/]+)": _option_conditions,
}


def _as_on_the_data_host(handler: Handler) -> Handler:
    """Parameters that are wrong are 400 there."""

    def answer(call: Call) -> Answer:
        try:
            return handler(call)
        except Refusal as refusal:
            if refusal.status != 422:
                raise
            raise Refusal(400, 40010000, str(refusal)) from None

    return answer


PATHS: Final[Mapping[str, Handler]] = {path: _as_on_the_data_host(handler) for path, handler in _DATA.items()}
