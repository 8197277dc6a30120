"""alpacli: the client library for Alpaca paper-trading accounts, and the command line over it.

>>> from alpacli import connect
>>> with connect() as paper:
...     paper.get_account().buying_power

Everything behind this door loads on first use, so that importing the package costs nothing. ``__all__`` is what is promised;
the few names beside it are what the signatures of the promised ones mention and only alpacli itself has a use for, so that
every hint can be resolved: those that a module does not load are written ``"alpacli.Name"``.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from alpacli.broker.async_client import AsyncAlpacaClient
    from alpacli.broker.async_trading import AsyncTrading
    from alpacli.broker.client import AlpacaClient
    from alpacli.broker.desk import Desk as Desk
    from alpacli.broker.flow import Reading
    from alpacli.broker.forward import Forwarded as Forwarded
    from alpacli.broker.forward import Route as Route
    from alpacli.broker.functions import CachedFunction
    from alpacli.broker.outcomes import Closing, OrderExecutor, Preview, Unresolved
    from alpacli.broker.trading import Trading
    from alpacli.domain.account import Account, Activity, HistoryPoint, PortfolioHistory, Position, Watchlist
    from alpacli.domain.batches import AsyncBatches, AsyncMarketDataProvider, Batch, Batches, MarketDataProvider
    from alpacli.domain.batches import Copy as Copy
    from alpacli.domain.market import Asset, CalendarDay, MarketClock, NewsArticle, Snapshot
    from alpacli.domain.orders import Order
    from alpacli.domain.tickets import Leg, OrderTicket
    from alpacli.domain.ticks import (
        AnyTick,
        Bar,
        Cancel,
        Correction,
        DailyBar,
        Imbalance,
        Interest,
        Level,
        Luld,
        News,
        OrderBook,
        Quote,
        Status,
        Trade,
        TradeUpdate,
        UpdatedBar,
    )
    from alpacli.domain.values import Timestamp
    from alpacli.errors import (
        AccessDenied,
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
        RedirectRefused,
        RequestTimeout,
        ServerError,
        StreamLost,
        StreamRefused,
        Unavailable,
        UnreadableAnswer,
        UsageError,
    )
    from alpacli.live import open_stream
    from alpacli.ports import Breaker, CacheStats, LimitsReport, Waiting
    from alpacli.ports import Request as Request
    from alpacli.runtime import cached, connect, connect_async
    from alpacli.streams.client import Stream
    from alpacli.streams.events import (
        Conflated,
        Connecting,
        Event,
        Gap,
        GapFilled,
        Health,
        Lagging,
        Live,
        Reconnecting,
        Refused,
        Unshared,
    )
    from alpacli.wire.rest import Call
    from alpacli.wire.trading import Cancellation

_HOMES = {
    "alpacli.broker.async_client": ("AsyncAlpacaClient",),
    "alpacli.broker.async_trading": ("AsyncTrading",),
    "alpacli.broker.client": ("AlpacaClient",),
    "alpacli.broker.desk": ("Desk",),
    "alpacli.broker.flow": ("Reading",),
    "alpacli.broker.forward": (
        "Forwarded",
        "Route",
    ),
    "alpacli.broker.functions": ("CachedFunction",),
    "alpacli.broker.outcomes": (
        "Closing",
        "OrderExecutor",
        "Preview",
        "Unresolved",
    ),
    "alpacli.broker.trading": ("Trading",),
    "alpacli.domain.account": (
        "Account",
        "Activity",
        "HistoryPoint",
        "PortfolioHistory",
        "Position",
        "Watchlist",
    ),
    "alpacli.domain.batches": (
        "AsyncBatches",
        "AsyncMarketDataProvider",
        "Batch",
        "Batches",
        "Copy",
        "MarketDataProvider",
    ),
    "alpacli.domain.market": (
        "Asset",
        "CalendarDay",
        "MarketClock",
        "NewsArticle",
        "Snapshot",
    ),
    "alpacli.domain.orders": ("Order",),
    "alpacli.domain.tickets": (
        "Leg",
        "OrderTicket",
    ),
    "alpacli.domain.ticks": (
        "AnyTick",
        "Bar",
        "Cancel",
        "Correction",
        "DailyBar",
        "Imbalance",
        "Interest",
        "Level",
        "Luld",
        "News",
        "OrderBook",
        "Quote",
        "Status",
        "Trade",
        "TradeUpdate",
        "UpdatedBar",
    ),
    "alpacli.domain.values": ("Timestamp",),
    "alpacli.errors": (
        "AccessDenied",
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
        "RedirectRefused",
        "RequestTimeout",
        "ServerError",
        "StreamLost",
        "StreamRefused",
        "Unavailable",
        "UnreadableAnswer",
        "UsageError",
    ),
    "alpacli.live": ("open_stream",),
    "alpacli.ports": (
        "Breaker",
        "CacheStats",
        "LimitsReport",
        "Request",
        "Waiting",
    ),
    "alpacli.runtime": (
        "cached",
        "connect",
        "connect_async",
    ),
    "alpacli.streams.client": ("Stream",),
    "alpacli.streams.events": (
        "Conflated",
        "Connecting",
        "Event",
        "Gap",
        "GapFilled",
        "Health",
        "Lagging",
        "Live",
        "Reconnecting",
        "Refused",
        "Unshared",
    ),
    "alpacli.wire.rest": ("Call",),
    "alpacli.wire.trading": ("Cancellation",),
}

__all__ = [
    "AccessDenied",
    "Account",
    "Activity",
    "AlpacaAPIError",
    "AlpacaClient",
    "AlpacliError",
    "AnyTick",
    "Asset",
    "AsyncAlpacaClient",
    "AsyncBatches",
    "AsyncMarketDataProvider",
    "AsyncTrading",
    "AuthenticationError",
    "Bar",
    "Batch",
    "Batches",
    "Breaker",
    "BudgetExhausted",
    "CacheStats",
    "CachedFunction",
    "CalendarDay",
    "Call",
    "Cancel",
    "Cancellation",
    "CircuitOpen",
    "Closing",
    "ConfigError",
    "Conflated",
    "Connecting",
    "ConnectionLost",
    "Correction",
    "DailyBar",
    "Event",
    "FateUnknown",
    "Gap",
    "GapFilled",
    "Health",
    "HistoryPoint",
    "Imbalance",
    "Interest",
    "Lagging",
    "Leg",
    "Level",
    "LimitsReport",
    "Live",
    "Luld",
    "MarketClock",
    "MarketDataProvider",
    "News",
    "NewsArticle",
    "NotFound",
    "Order",
    "OrderBook",
    "OrderExecutor",
    "OrderRefused",
    "OrderRejected",
    "OrderTicket",
    "PortfolioHistory",
    "Position",
    "Preview",
    "Quote",
    "RateLimited",
    "Reading",
    "Reconnecting",
    "RedirectRefused",
    "Refused",
    "RequestTimeout",
    "ServerError",
    "Snapshot",
    "Status",
    "Stream",
    "StreamLost",
    "StreamRefused",
    "Timestamp",
    "Trade",
    "TradeUpdate",
    "Trading",
    "Unavailable",
    "UnreadableAnswer",
    "Unresolved",
    "Unshared",
    "UpdatedBar",
    "UsageError",
    "Waiting",
    "Watchlist",
    "cached",
    "connect",
    "connect_async",
    "open_stream",
]


if not TYPE_CHECKING:  # or else any name at all would pass a type checker, as ``Any``

    def __getattr__(name: str) -> Any:
        for home, names in _HOMES.items():
            if name in names:
                from importlib import import_module

                return getattr(import_module(home), name)
        msg = f"module 'alpacli' has no attribute {name!r}"
        raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
