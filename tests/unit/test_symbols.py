"""Whichever letters a program writes a symbol in, the broker is sent the same: capitals."""

import asyncio
import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.examples import examples
from tests.support.streaming import eventually

from alpacli import Leg, OrderTicket, UsageError, open_stream
from alpacli.domain.series import check_symbol
from alpacli.domain.symbols import spelled
from alpacli.domain.tickets import read_ticket
from alpacli.runtime import open_client
from alpacli.settings import Flags, load
from alpacli.streams.feeds import interest_in
from alpacli.wire import market, rest

ASSET = "6f3f8f0a-3f0c-4f0e-9a51-1f2f5a0b7c11"
LIST = "0d3f8f0a-3f0c-4f0e-9a51-1f2f5a0b7c99"
PLACES: dict[str, Callable[[str], Any]] = {
    "asset": rest.asset,
    "position": rest.position,
    "orders": lambda symbol: rest.orders(symbols=[symbol]),
    "snapshots": lambda symbol: market.snapshots([symbol]),
    "news": lambda symbol: market.news([symbol]),
    "create watchlist": lambda symbol: rest.create_watchlist("mine", [symbol]),
    "update watchlist": lambda symbol: rest.update_watchlist(LIST, "mine", [symbol]),
    "add to watchlist": lambda symbol: rest.add_to_watchlist(LIST, symbol),
    "remove from watchlist": lambda symbol: rest.remove_from_watchlist(LIST, symbol),
}


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("symbol", ["AAPL", "BRK.B", "BTC/USD", "AAPL260116C00150000"])
def test_a_request_names_a_symbol_in_capitals(name: str, symbol: str) -> None:
    wanted, written = (PLACES[name](text) for text in (symbol, f" {symbol.lower()} "))
    assert (written.request, written.cache_key) == (wanted.request, wanted.cache_key)
    assert symbol.lower() not in repr(written.request)


def test_an_asset_id_is_written_small_with_or_without_dashes() -> None:
    assert rest.asset(ASSET.upper()).request.path == f"/v2/assets/{ASSET}"
    assert rest.position(ASSET.replace("-", "").upper()).request.path == f"/v2/positions/{ASSET.replace('-', '')}"


def test_an_order_names_its_symbol_and_those_of_its_legs_in_capitals() -> None:
    assert OrderTicket("btc/usd", "buy", qty=Decimal(1)).checked().symbol == "BTC/USD"
    legs = (Leg("aapl260116c00150000", Decimal(1), "buy_to_open"),)
    assert OrderTicket(legs=legs, qty=Decimal(1)).checked().legs[0].symbol == "AAPL260116C00150000"


@pytest.mark.parametrize("text", ["ſ", "ß", "ı", "Ａ"])
def test_a_letter_that_only_python_takes_for_another_buys_no_other_share(text: str) -> None:
    """``"ß".upper()`` is SS, which is listed."""
    assert spelled(text) == text
    assert read_ticket({"symbol": text, "side": "buy", "qty": 1}).symbol == text
    with pytest.raises(UsageError, match="not a symbol"):
        check_symbol(text)


@given(st.text())
@settings(max_examples=examples(100))
def test_spelling_twice_changes_nothing_more(text: str) -> None:
    assert spelled(spelled(text)) == spelled(text)
    assert [letter for letter in spelled(text) if not letter.isascii()] == [c for c in text.strip() if not c.isascii()]


def test_a_stream_asks_for_capitals_and_takes_no_text_for_a_list() -> None:
    assert interest_in({"quotes": ["aapl", "AAPL", "btc/usd", "*"]}).as_dict() == {"quotes": ["*", "AAPL", "BTC/USD"]}
    with pytest.raises(UsageError, match="quotes is one text"):
        interest_in({"quotes": "AAPL"})
    with pytest.raises(UsageError, match="empty"):
        interest_in({"quotes": ["AAPL", " "]})
    for never in ("A,B", "A B", "AAPL*", "ß"):  # a join that was forgotten, or done twice, would bring nothing
        with pytest.raises(UsageError, match="not a symbol"):
            interest_in({"quotes": [never]})


def test_a_program_that_writes_small_letters_trades_and_reads_all_the_same(tmp_path: Path) -> None:
    with open_client(load(Flags(None, sim=True), env={"HOME": str(tmp_path)}, cwd=None)) as paper:
        order = paper.trading.place(OrderTicket("btc/usd", "buy", qty=Decimal("0.01"), time_in_force="gtc"))
        assert order.symbol == "BTC/USD"
        assert paper.trading.preview(OrderTicket("aapl", "buy", qty=1)).body is not None  # type: ignore[arg-type] # what a program without types gives
        assert eventually(lambda: paper.get_positions(use_cache=False) != [])
        assert paper.get_position("btc/usd").symbol == "BTCUSD"
        assert paper.get_asset("aapl").symbol == "AAPL"
        assert [it.symbol for it in paper.get_snapshots(["aapl", "Msft"])] == ["AAPL", "MSFT"]
        assert [it.symbol for it in paper.get_orders(status="all", symbols=["btc/usd"])] == ["BTC/USD"]
        start = dt.datetime(2025, 1, 6, 15, tzinfo=dt.UTC)
        assert [batch.symbol for batch in paper.market_data.bars("aapl", start=start, limit=1)] == ["AAPL"]
        assert paper.trading.close("btc/usd").side == "sell"


def test_the_library_opens_a_stream_of_capitals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    async def hear() -> str:
        async with asyncio.timeout(60), open_stream({"trades": ["btc/usd"]}, feed="crypto", sim=True) as stream:
            await stream.subscribe({"quotes": ["btc/usd"]})
            assert stream.interest.as_dict() == {"quotes": ["BTC/USD"], "trades": ["BTC/USD"]}
            return (await anext(stream)).symbol

    assert asyncio.run(hear()) == "BTC/USD"
