"""Every method of the official SDK's trading client, by name: it works here, or it says why it cannot."""

import uuid
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, Final

import pytest
from alpaca.common.exceptions import APIError
from alpaca.trading.client import TradingClient
from alpaca.trading.enums import (
    ContractType,
    CorporateActionType,
    OrderClass,
    OrderSide,
    PositionIntent,
    TimeInForce,
)
from alpaca.trading.models import Order, Position, Watchlist
from alpaca.trading.requests import (
    CreateWatchlistRequest,
    GetCorporateAnnouncementsRequest,
    GetOptionContractsRequest,
    LimitOrderRequest,
    MarketOrderRequest,
    OptionLegRequest,
    ReplaceOrderRequest,
    UpdateWatchlistRequest,
)
from tests.support.sim_server import SimServer

NOT_OF_THE_API: Final = {"get", "post", "put", "patch", "delete", "response_wrapper"}
"""The SDK's own helpers for sending; the other methods are made of them."""

ANSWERED_WITH_NO: Final = {
    "get_corporate_announcement_by_id": 404,  # nothing is ever split
}


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TradingClient]:
    with SimServer(tmp_path, speed=20) as server:
        made = TradingClient("PKEVERY", "secret", url_override=server.url)
        yield made
        made._session.close()


@pytest.mark.filterwarnings("ignore:get_corporate_announcements is deprecated")
def test_every_method_of_the_trading_client(client: TradingClient) -> None:
    called: set[str] = set()

    def call(method: str, *args: Any) -> Any:
        called.add(method)
        return getattr(client, method)(*args)

    call("get_account")
    configuration = call("get_account_configurations")
    call("set_account_configurations", configuration)
    assert call("get_all_assets")
    assert call("get_asset", "AAPL").symbol == "AAPL"
    call("get_clock")
    assert call("get_calendar")
    assert call("get_portfolio_history").equity

    bought = client.submit_order(
        MarketOrderRequest(symbol="AAPL", qty=4, side=OrderSide.BUY, time_in_force=TimeInForce.DAY)
    )
    called.add("submit_order")
    assert isinstance(bought, Order)
    assert call("get_order_by_id", bought.id).id == bought.id
    assert call("get_order_by_client_id", bought.client_order_id).id == bought.id
    while not (held := call("get_all_positions")):
        pass
    assert isinstance(held[0], Position)
    assert call("get_open_position", "AAPL").symbol == "AAPL"
    low = LimitOrderRequest(symbol="F", qty=1, side=OrderSide.BUY, time_in_force=TimeInForce.GTC, limit_price=1)
    waiting = call("submit_order", low)
    while client.get_order_by_id(waiting.id).status.value != "new":  # type: ignore[union-attr] # models, not raw data
        pass
    moved = call("replace_order_by_id", waiting.id, ReplaceOrderRequest(limit_price=1.5))
    call("cancel_order_by_id", moved.id)
    assert len(call("get_orders")) <= 1
    call("submit_order", low)
    assert [answer.status for answer in call("cancel_orders")] == [200]
    assert isinstance(call("close_position", "AAPL"), Order)
    call("close_all_positions", True)

    made = call("create_watchlist", CreateWatchlistRequest(name="mine", symbols=["AAPL"]))
    assert isinstance(made, Watchlist)
    assert len(call("get_watchlists")) == 1
    call("update_watchlist_by_id", made.id, UpdateWatchlistRequest(name="ours"))
    call("add_asset_to_watchlist_by_id", made.id, "MSFT")
    call("remove_asset_from_watchlist_by_id", made.id, "MSFT")
    assert call("get_watchlist_by_id", made.id).name == "ours"
    call("delete_watchlist_by_id", made.id)

    wanted = GetOptionContractsRequest(underlying_symbols=["AAPL"], type=ContractType.CALL, limit=1000)
    calls = call("get_option_contracts", wanted).option_contracts
    assert call("get_option_contract", calls[0].symbol).id == calls[0].id
    spread = LimitOrderRequest(
        qty=1,
        order_class=OrderClass.MLEG,
        time_in_force=TimeInForce.DAY,
        limit_price=200,
        legs=[
            OptionLegRequest(symbol=calls[0].symbol, ratio_qty=1, position_intent=PositionIntent.BUY_TO_OPEN),
            OptionLegRequest(symbol=calls[1].symbol, ratio_qty=1, position_intent=PositionIntent.SELL_TO_OPEN),
        ],
    )
    assert [leg.symbol for leg in call("submit_order", spread).legs] == [calls[0].symbol, calls[1].symbol]
    single = MarketOrderRequest(symbol=calls[2].symbol, qty=1, side=OrderSide.BUY, time_in_force=TimeInForce.DAY)
    call("submit_order", single)
    while {position.symbol for position in client.get_all_positions()} != {each.symbol for each in calls[:3]}:  # type: ignore[union-attr] # models, not raw data
        pass
    call("exercise_options_position", calls[2].symbol)
    assert call("get_open_position", "AAPL").qty == "100"
    call("close_all_positions", True)

    window = {"since": date(2026, 1, 1), "until": date(2026, 2, 1)}
    request = GetCorporateAnnouncementsRequest(ca_types=[CorporateActionType.DIVIDEND], **window)
    assert call("get_corporate_announcements", request) == []

    for method, status in ANSWERED_WITH_NO.items():
        with pytest.raises(APIError) as refused:
            call(method, uuid.uuid4())
        assert refused.value.status_code == status

    public = {name for name in dir(TradingClient) if not name.startswith("_")}
    assert public - called == NOT_OF_THE_API
