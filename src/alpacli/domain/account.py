"""The account and what is in it: balances, positions, equity over time, activities, watchlists.

Only what every broker answer has is required; Alpaca adds fields and retires them (the pattern-day-trader family in 2026)
without notice, and neither may stop a cron job. Statuses and classes stay text for the same reason. Names and meanings are
the Trading API reference's; ratios (``*_plpc``, ``change_today``) are fractions.
"""

import datetime as dt
from decimal import Decimal
from typing import Any, NamedTuple, Self

from pydantic import model_validator

from alpacli.domain.market import Asset
from alpacli.domain.values import Amount, Flag, MaybeAmount, MaybeTimestamp, Model, Timestamp, Whole


class Account(Model):
    """Balances and permissions. Source: GET /v2/account."""

    id: str
    account_number: str
    status: str
    crypto_status: str | None = None
    currency: str | None = None
    equity: MaybeAmount = None
    last_equity: MaybeAmount = None
    cash: MaybeAmount = None
    buying_power: MaybeAmount = None
    regt_buying_power: MaybeAmount = None
    effective_buying_power: MaybeAmount = None
    non_marginable_buying_power: MaybeAmount = None
    options_buying_power: MaybeAmount = None
    portfolio_value: MaybeAmount = None
    long_market_value: MaybeAmount = None
    short_market_value: MaybeAmount = None
    position_market_value: MaybeAmount = None
    initial_margin: MaybeAmount = None
    maintenance_margin: MaybeAmount = None
    last_maintenance_margin: MaybeAmount = None
    sma: MaybeAmount = None
    multiplier: MaybeAmount = None
    accrued_fees: MaybeAmount = None
    pending_reg_taf_fees: MaybeAmount = None
    pending_transfer_in: MaybeAmount = None
    pending_transfer_out: MaybeAmount = None
    intraday_adjustments: MaybeAmount = None
    balance_asof: str | None = None
    created_at: MaybeTimestamp = None
    trading_blocked: Flag | None = None
    transfers_blocked: Flag | None = None
    account_blocked: Flag | None = None
    trade_suspended_by_user: Flag | None = None
    shorting_enabled: Flag | None = None
    options_approved_level: Whole | None = None
    options_trading_level: Whole | None = None
    crypto_tier: Whole | None = None
    pattern_day_trader: Flag | None = None
    daytrade_count: Whole | None = None
    daytrading_buying_power: MaybeAmount = None
    bod_dtbp: MaybeAmount = None
    admin_configurations: dict[str, Any] | None = None
    user_configurations: dict[str, Any] | None = None

    @property
    def day_pl(self) -> Decimal | None:
        """Return equity less the last close's equity; ``None`` when either is missing."""
        if self.equity is None or self.last_equity is None:
            return None
        return self.equity - self.last_equity

    @property
    def day_pl_ratio(self) -> Decimal | None:
        """Return ``day_pl`` as a fraction of the last close's equity; ``None`` when that is missing or zero."""
        day_pl = self.day_pl
        return None if day_pl is None or not self.last_equity else day_pl / self.last_equity


class Position(Model):
    """One open position; a short one has negative ``qty``, ``cost_basis`` and ``market_value``. Source: GET /v2/positions."""

    asset_id: str
    symbol: str
    exchange: str
    asset_class: str
    asset_marginable: Flag | None = None
    qty: Amount
    qty_available: MaybeAmount = None
    side: str
    avg_entry_price: Amount
    cost_basis: Amount
    market_value: MaybeAmount = None
    current_price: MaybeAmount = None
    lastday_price: MaybeAmount = None
    change_today: MaybeAmount = None
    unrealized_pl: MaybeAmount = None
    unrealized_plpc: MaybeAmount = None
    unrealized_intraday_pl: MaybeAmount = None
    unrealized_intraday_plpc: MaybeAmount = None
    swap_rate: MaybeAmount = None
    avg_entry_swap_rate: MaybeAmount = None
    prev_swap_rate: MaybeAmount = None
    usd: dict[str, Any] | None = None

    @property
    def is_short(self) -> bool:
        """Tell whether shares are owed: ``qty`` and ``market_value`` are negative then."""
        return self.side == "short"

    @property
    def qty_held(self) -> Decimal | None:
        """Return how much of the quantity open orders hold back, never negative; ``None`` when Alpaca did not say."""
        return None if self.qty_available is None else abs(self.qty) - abs(self.qty_available)


class HistoryPoint(NamedTuple):
    """One step of the equity curve; ``at`` is its left edge."""

    at: dt.datetime
    equity: Decimal | None
    profit_loss: Decimal | None
    profit_loss_pct: Decimal | None


class PortfolioHistory(Model):
    """Equity over time in columns of equal length; ``timestamp`` in epoch seconds.

    Source: GET /v2/account/portfolio/history.
    """

    timestamp: tuple[Whole, ...]
    equity: tuple[MaybeAmount, ...]
    profit_loss: tuple[MaybeAmount, ...]
    profit_loss_pct: tuple[MaybeAmount, ...]
    base_value: MaybeAmount = None
    base_value_asof: str | None = None
    timeframe: str
    cashflow: dict[str, tuple[MaybeAmount, ...]] | None = None

    @model_validator(mode="after")
    def _columns_are_equally_long(self) -> Self:
        if {len(self.equity), len(self.profit_loss), len(self.profit_loss_pct)} != {len(self.timestamp)}:
            msg = "the columns differ in length"
            raise ValueError(msg)
        return self

    @property
    def points(self) -> list[HistoryPoint]:
        """Return the columns as rows, oldest first."""
        return [
            HistoryPoint(dt.datetime.fromtimestamp(seconds, dt.UTC), *row)
            for seconds, *row in zip(self.timestamp, self.equity, self.profit_loss, self.profit_loss_pct, strict=True)
        ]


class Activity(Model):
    """A fill, or any other movement of cash or shares (dividend, fee, transfer). Source: GET /v2/account/activities.

    Fills have ``transaction_time``, ``price``, ``side`` and ``order_id``; the others ``date`` and ``net_amount``.
    """

    id: str
    activity_type: str
    activity_sub_type: str | None = None
    type: str | None = None
    transaction_time: MaybeTimestamp = None
    date: str | None = None
    symbol: str | None = None
    side: str | None = None
    qty: MaybeAmount = None
    price: MaybeAmount = None
    cum_qty: MaybeAmount = None
    leaves_qty: MaybeAmount = None
    net_amount: MaybeAmount = None
    per_share_amount: MaybeAmount = None
    order_id: str | None = None
    order_status: str | None = None
    status: str | None = None
    cusip: str | None = None
    description: str | None = None
    group_id: str | None = None
    currency: str | None = None
    created_at: MaybeTimestamp = None

    @property
    def is_fill(self) -> bool:
        """Tell whether it is a trade of one's own: with ``price``, ``side`` and ``order_id``."""
        return self.activity_type == "FILL"


class Watchlist(Model):
    """A named list of assets, in the user's order; lists of watchlists come without ``assets``.

    Source: GET /v2/watchlists.
    """

    id: str
    account_id: str
    name: str
    created_at: Timestamp
    updated_at: Timestamp
    assets: tuple[Asset, ...] | None = None
