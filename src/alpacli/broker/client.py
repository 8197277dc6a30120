"""The blocking twin of ``async_client``, made from it by ``make blocking``: change that one, not this."""

import functools
from collections.abc import Sequence
from datetime import date, datetime

import alpacli
from alpacli.broker.drivers import Driver
from alpacli.broker.flow import Flow, Reading, T
from alpacli.domain.account import Account, Activity, PortfolioHistory, Position, Watchlist
from alpacli.domain.market import Asset, CalendarDay, MarketClock, NewsArticle, Snapshot
from alpacli.domain.orders import Order
from alpacli.ports import Request
from alpacli.wire import rest
from alpacli.wire.rest import Call


class AlpacaClient(Driver):
    """A paper account, read through the shared cache and budget. Thread-safe.

    Every read takes ``use_cache=False`` to skip the cache and ``max_age`` (seconds) to accept older data, or only younger.

    Raises (every method): ``AuthenticationError``, ``NotFound``, ``OrderRejected``, ``RateLimited``, ``ServerError`` when the
    broker said so (all ``AlpacaAPIError``); ``BudgetExhausted`` when waiting longer was not allowed; ``RequestTimeout``,
    ``ConnectionLost``, ``UnreadableAnswer``, ``CircuitOpen`` when no usable answer came; ``UsageError`` when an argument
    makes no sense or the client is closed: nothing was sent then.

    Symbols may be in small letters; an asset id stands for one in ``get_asset``, ``get_position`` and ``trading.close``.
    """

    def _run(self, flow: Flow[T], *, urgent: bool = False) -> T:
        self._must_be_open()
        try:
            step = next(flow)
            while True:
                try:
                    result = self._carry_out(step, urgent=urgent)
                except BaseException as error:  # noqa: BLE001 # the flow decides what to do, and re-raises what it does not know
                    step = flow.throw(error)
                else:
                    step = flow.send(result)
        except StopIteration as stop:
            value: T = stop.value
            return value

    def _run_ahead(self, flow: Flow[T]) -> T:
        return self._run(flow, urgent=True)

    @functools.cached_property
    def trading(self) -> "alpacli.Trading":
        """Order entry: place, replace, cancel, close."""
        from alpacli.broker.trading import Trading

        return Trading(self.desk, self._run_ahead)

    @functools.cached_property
    def market_data(self) -> "alpacli.MarketDataProvider":
        """Bars, trades and quotes as batches, from what is kept on this machine and else from Alpaca."""
        provider: alpacli.MarketDataProvider = self._make_market_data(self.fetch)
        return provider

    def read(self, call: Call[T], *, use_cache: bool = True, max_age: float | None = None) -> Reading[T]:
        """Read any endpoint of ``alpacli.wire.rest``; the reading also tells its age and holds the JSON."""
        return self._run(self._pipeline.read(call, use_cache=use_cache, max_age=max_age))

    def fetch(self, call: Call[T]) -> T:
        """Send one request of an endpoint and read its answer, past the cache: for pages that are kept elsewhere."""
        return self._run(self._pipeline.fetch(call))

    def change(self, call: Call[T]) -> T:
        """Send any changing endpoint of ``alpacli.wire.rest``."""
        return self._run(self._pipeline.change(call), urgent=call.urgent)

    def forward(self, route: "alpacli.Route", request: Request, *, use_cache: bool = True) -> "alpacli.Forwarded":
        """Pass on a request that is written in Alpaca's own protocol; see ``alpacli.broker.forward``."""
        from alpacli.broker.forward import forward

        passed = forward(self._pipeline, self.desk, route, request, use_cache=use_cache)
        return self._run(passed, urgent=request.method != "GET")

    def invalidate_cache(self, *names: str) -> int:
        """Forget cached ``account``, ``positions`` or ``orders``, or everything; return how many entries went."""
        return self._run(self._drop(names))

    def get_account(self, *, use_cache: bool = True, max_age: float | None = None) -> Account:
        """Return equity, cash, buying power and the account's flags. Source: GET /v2/account."""
        return (self.read(rest.account(), use_cache=use_cache, max_age=max_age)).value

    def get_positions(self, *, use_cache: bool = True, max_age: float | None = None) -> list[Position]:
        """Return every open position; short quantities are negative. Source: GET /v2/positions."""
        return (self.read(rest.positions(), use_cache=use_cache, max_age=max_age)).value

    def get_position(self, symbol: str, *, use_cache: bool = True, max_age: float | None = None) -> Position:
        """Return one open position by symbol or asset id. Source: GET /v2/positions/{symbol_or_asset_id}."""
        return (self.read(rest.position(symbol), use_cache=use_cache, max_age=max_age)).value

    def get_orders(
        self,
        *,
        status: str = "open",
        limit: int | None = 50,
        after: datetime | None = None,
        until: datetime | None = None,
        direction: str = "desc",
        symbols: Sequence[str] = (),
        side: str | None = None,
        nested: bool = False,
        use_cache: bool = True,
        max_age: float | None = None,
    ) -> list[Order]:
        """Return orders by submission time; ``limit=None`` follows all pages. Source: GET /v2/orders."""
        return (
            self.read(
                rest.orders(
                    status=status,
                    limit=limit,
                    after=after,
                    until=until,
                    direction=direction,
                    symbols=symbols,
                    side=side,
                    nested=nested,
                ),
                use_cache=use_cache,
                max_age=max_age,
            )
        ).value

    def get_order(
        self, order_id: str, *, nested: bool = False, use_cache: bool = True, max_age: float | None = None
    ) -> Order:
        """Return one order by Alpaca's id. Source: GET /v2/orders/{order_id}."""
        return (self.read(rest.order(order_id, nested=nested), use_cache=use_cache, max_age=max_age)).value

    def get_order_by_client_order_id(
        self, client_order_id: str, *, use_cache: bool = True, max_age: float | None = None
    ) -> Order:
        """Return one order by the id its sender chose. Source: GET /v2/orders:by_client_order_id."""
        return (self.read(rest.order_by_client_order_id(client_order_id), use_cache=use_cache, max_age=max_age)).value

    def get_clock(self, *, use_cache: bool = True, max_age: float | None = None) -> MarketClock:
        """Return whether the equities session is open, and when it next opens and closes. Source: GET /v2/clock."""
        return (self.read(rest.clock(), use_cache=use_cache, max_age=max_age)).value

    def get_calendar(
        self,
        start: date | None = None,
        end: date | None = None,
        *,
        use_cache: bool = True,
        max_age: float | None = None,
    ) -> list[CalendarDay]:
        """Return the trading days between two dates, both inclusive. Source: GET /v2/calendar."""
        return (self.read(rest.calendar(start=start, end=end), use_cache=use_cache, max_age=max_age)).value

    def get_assets(
        self,
        *,
        status: str | None = "active",
        asset_class: str | None = None,
        exchange: str | None = None,
        attributes: Sequence[str] = (),
        use_cache: bool = True,
        max_age: float | None = None,
    ) -> list[Asset]:
        """Return what can be traded: some 32,000 rows, so it is cached for an hour. Source: GET /v2/assets."""
        return (
            self.read(
                rest.assets(status=status, asset_class=asset_class, exchange=exchange, attributes=attributes),
                use_cache=use_cache,
                max_age=max_age,
            )
        ).value

    def get_asset(self, symbol: str, *, use_cache: bool = True, max_age: float | None = None) -> Asset:
        """Return one asset by symbol or asset id. Source: GET /v2/assets/{symbol_or_asset_id}."""
        return (self.read(rest.asset(symbol), use_cache=use_cache, max_age=max_age)).value

    def get_activities(
        self,
        *,
        activity_types: Sequence[str] = (),
        category: str | None = None,
        day: date | None = None,
        after: datetime | None = None,
        until: datetime | None = None,
        direction: str = "desc",
        limit: int | None = 100,
        use_cache: bool = True,
        max_age: float | None = None,
    ) -> list[Activity]:
        """Return fills, cash movements, fees …; ``limit=None`` follows all pages. Source: GET /v2/account/activities."""
        return (
            self.read(
                rest.activities(
                    activity_types=activity_types,
                    category=category,
                    day=day,
                    after=after,
                    until=until,
                    direction=direction,
                    limit=limit,
                ),
                use_cache=use_cache,
                max_age=max_age,
            )
        ).value

    def get_portfolio_history(
        self,
        *,
        period: str | None = None,
        timeframe: str | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        intraday_reporting: str | None = None,
        pnl_reset: str | None = None,
        cashflow_types: Sequence[str] = (),
        use_cache: bool = True,
        max_age: float | None = None,
    ) -> PortfolioHistory:
        """Return the equity curve in equal steps, timestamps in epoch seconds. Source: GET /v2/account/portfolio/history."""
        return (
            self.read(
                rest.portfolio_history(
                    period=period,
                    timeframe=timeframe,
                    start=start,
                    end=end,
                    intraday_reporting=intraday_reporting,
                    pnl_reset=pnl_reset,
                    cashflow_types=cashflow_types,
                ),
                use_cache=use_cache,
                max_age=max_age,
            )
        ).value

    def get_snapshots(self, symbols: Sequence[str], *, feed: str | None = None) -> list[Snapshot]:
        """Return the latest trade, quote and bars of symbols of one market. Source: GET /v2/stocks/snapshots."""
        from alpacli.wire import market

        return (self.read(market.snapshots(symbols, feed=feed), use_cache=False)).value

    def get_news(
        self,
        symbols: Sequence[str] = (),
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        limit: int | None = 10,
        newest_first: bool = True,
        content: bool = False,
    ) -> list[NewsArticle]:
        """Return articles about any of some symbols, or all; ``limit=None`` means all. Source: GET /v1beta1/news."""
        from alpacli.wire import market

        call = market.news(symbols, start=start, end=end, limit=limit, newest_first=newest_first, content=content)
        return (self.read(call, use_cache=False)).value

    def get_watchlists(self, *, use_cache: bool = True, max_age: float | None = None) -> list[Watchlist]:
        """Return the watchlists by name, without their assets. Source: GET /v2/watchlists."""
        return (self.read(rest.watchlists(), use_cache=use_cache, max_age=max_age)).value

    def get_watchlist(self, watchlist_id: str, *, use_cache: bool = True, max_age: float | None = None) -> Watchlist:
        """Return one watchlist with its assets in order. Source: GET /v2/watchlists/{watchlist_id}."""
        return (self.read(rest.watchlist(watchlist_id), use_cache=use_cache, max_age=max_age)).value

    def get_watchlist_by_name(self, name: str, *, use_cache: bool = True, max_age: float | None = None) -> Watchlist:
        """Return the watchlist of that name, with its assets in order. Source: GET /v2/watchlists:by_name."""
        return (self.read(rest.watchlist_by_name(name), use_cache=use_cache, max_age=max_age)).value

    def create_watchlist(self, name: str, symbols: Sequence[str] = ()) -> Watchlist:
        """Create a watchlist; names are unique, at most 64 characters. Source: POST /v2/watchlists."""
        return self.change(rest.create_watchlist(name, symbols))

    def update_watchlist(self, watchlist_id: str, name: str, symbols: Sequence[str]) -> Watchlist:
        """Replace a watchlist's name and symbols. Source: PUT /v2/watchlists/{watchlist_id}."""
        return self.change(rest.update_watchlist(watchlist_id, name, symbols))

    def add_to_watchlist(self, watchlist_id: str, symbol: str) -> Watchlist:
        """Append one symbol. Source: POST /v2/watchlists/{watchlist_id}."""
        return self.change(rest.add_to_watchlist(watchlist_id, symbol))

    def remove_from_watchlist(self, watchlist_id: str, symbol: str) -> Watchlist:
        """Remove one symbol. Source: DELETE /v2/watchlists/{watchlist_id}/{symbol}."""
        return self.change(rest.remove_from_watchlist(watchlist_id, symbol))

    def delete_watchlist(self, watchlist_id: str) -> None:
        """Delete a whole watchlist, for good. Source: DELETE /v2/watchlists/{watchlist_id}."""
        self.change(rest.delete_watchlist(watchlist_id))
