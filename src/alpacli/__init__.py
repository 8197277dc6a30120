"""alpacli: the client library for Alpaca paper-trading accounts, and the command line over it.

>>> from alpacli import connect
>>> with connect() as paper:
...     paper.get_account().buying_power

Everything behind this door loads on first use, so that importing the package costs nothing.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from alpacli.broker.async_client import AsyncAlpacaClient
    from alpacli.broker.async_trading import AsyncTrading
    from alpacli.broker.client import AlpacaClient
    from alpacli.broker.flow import Reading
    from alpacli.broker.outcomes import OrderExecutor, Preview, Unresolved
    from alpacli.broker.trading import Trading
    from alpacli.domain.account import Account, Activity, PortfolioHistory, Position, Watchlist
    from alpacli.domain.batches import AsyncBatches, AsyncMarketDataProvider, Batch, Batches, MarketDataProvider
    from alpacli.domain.market import Asset, CalendarDay, MarketClock
    from alpacli.domain.orders import Order
    from alpacli.domain.tickets import Leg, OrderTicket
    from alpacli.errors import (
        AlpacaAPIError,
        AlpacliError,
        AuthenticationError,
        BudgetExhausted,
        CircuitOpen,
        ConfigError,
        ConnectionLost,
        FateUnknown,
        NotFound,
        OrderRefused,
        OrderRejected,
        RateLimited,
        RequestTimeout,
        ServerError,
        Unavailable,
        UnreadableAnswer,
        UsageError,
    )
    from alpacli.runtime import cached, connect, connect_async, open_stream

_HOMES = {
    "alpacli.broker.async_client": ("AsyncAlpacaClient",),
    "alpacli.broker.async_trading": ("AsyncTrading",),
    "alpacli.broker.client": ("AlpacaClient",),
    "alpacli.broker.flow": ("Reading",),
    "alpacli.domain.batches": ("AsyncBatches", "AsyncMarketDataProvider", "Batch", "Batches", "MarketDataProvider"),
    "alpacli.domain.account": ("Account", "Activity", "PortfolioHistory", "Position", "Watchlist"),
    "alpacli.domain.market": ("Asset", "CalendarDay", "MarketClock"),
    "alpacli.broker.outcomes": ("OrderExecutor", "Preview", "Unresolved"),
    "alpacli.broker.trading": ("Trading",),
    "alpacli.domain.orders": ("Order",),
    "alpacli.domain.tickets": ("Leg", "OrderTicket"),
    "alpacli.errors": (
        "AlpacaAPIError",
        "AlpacliError",
        "AuthenticationError",
        "BudgetExhausted",
        "CircuitOpen",
        "ConfigError",
        "ConnectionLost",
        "FateUnknown",
        "NotFound",
        "OrderRefused",
        "OrderRejected",
        "RateLimited",
        "RequestTimeout",
        "ServerError",
        "Unavailable",
        "UnreadableAnswer",
        "UsageError",
    ),
    "alpacli.runtime": ("cached", "connect", "connect_async", "open_stream"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Account",
    "Activity",
    "AlpacaAPIError",
    "AlpacaClient",
    "AlpacliError",
    "Asset",
    "AsyncAlpacaClient",
    "AsyncBatches",
    "AsyncMarketDataProvider",
    "AsyncTrading",
    "AuthenticationError",
    "Batch",
    "Batches",
    "BudgetExhausted",
    "CalendarDay",
    "CircuitOpen",
    "ConfigError",
    "ConnectionLost",
    "FateUnknown",
    "Leg",
    "MarketClock",
    "MarketDataProvider",
    "NotFound",
    "Order",
    "OrderExecutor",
    "OrderRefused",
    "OrderRejected",
    "OrderTicket",
    "PortfolioHistory",
    "Position",
    "Preview",
    "RateLimited",
    "Reading",
    "RequestTimeout",
    "ServerError",
    "Trading",
    "Unavailable",
    "UnreadableAnswer",
    "Unresolved",
    "UsageError",
    "Watchlist",
    "cached",
    "connect",
    "connect_async",
    "open_stream",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        msg = f"module 'alpacli' has no attribute {name!r}"
        raise AttributeError(msg)
    from importlib import import_module

    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
