"""What a program gives as the changes of an order, and what is sent of it."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from alpacli.domain.replacing import check_changes, read_changes
from alpacli.domain.tickets import OrderTicket
from alpacli.errors import UsageError
from alpacli.runtime import open_client
from alpacli.settings import Flags, load


def test_amounts_are_sent_with_the_digits_that_were_given() -> None:
    given = {"qty": 3, "limit_price": Decimal("101.50"), "stop_price": "1,000.5", "time_in_force": "gtc", "trail": None}
    assert read_changes(given) == {
        "qty": "3",
        "limit_price": "101.50",
        "stop_price": "1000.5",
        "time_in_force": "gtc",
    }


def test_how_an_order_is_routed_is_sent_as_it_is_given_and_is_a_change() -> None:
    given = {"advanced_instructions": {"algorithm": "VWAP", "max_percentage": "0.314"}, "limit_price": None}
    assert read_changes(given) == {"advanced_instructions": {"algorithm": "VWAP", "max_percentage": "0.314"}}
    check_changes(read_changes(given))


def test_an_order_is_routed_anew_in_a_replacement(tmp_path: Path) -> None:
    with open_client(load(Flags(None, sim=True), env={"HOME": str(tmp_path)}, cwd=None)) as paper:
        order = paper.trading.place(
            OrderTicket(symbol="AAPL", side="buy", qty=Decimal(1), limit_price=Decimal(1), type="limit")
        )
        change = {"advanced_instructions": {"algorithm": "DMA", "destination": "NYSE"}}
        assert paper.trading.check_replacement(order.id, change) == ()
        shown = paper.trading.preview_replacement(order.id, change)
        assert shown.body is not None
        assert shown.body["advanced_instructions"] == {"algorithm": "DMA", "destination": "NYSE"}
        replacement = paper.trading.replace(order.id, change)
        assert (replacement.replaces, replacement.limit_price) == (order.id, Decimal(1))


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        ({"limit_price": "99", "qyt": 5}, "'qyt' of an order cannot be changed", "qty, limit_price"),
        ({"side": "sell"}, "'side' of an order cannot be changed", "qty, limit_price"),
        ({"limit_price": 99.1}, "limit_price is 99.1, and amounts are exact", 'Decimal("99.1")'),
        ({"advanced_instructions": "VWAP"}, "advanced_instructions is no object", "algorithm"),
        ({"limit_price": "99,5"}, "limit_price is '99,5'", "thousands"),
    ],
)
def test_what_would_not_be_looked_at_or_not_be_sure_is_refused(
    changes: dict[str, Any], message: str, hint: str
) -> None:
    """Alpaca changes the price of the first one and says nothing of the rest."""
    with pytest.raises(UsageError) as no:
        read_changes(changes)
    assert message in no.value.message
    assert hint in no.value.hint


def test_the_library_refuses_it_before_anything_is_sent(tmp_path: Path) -> None:
    with open_client(load(Flags(None, sim=True), env={"HOME": str(tmp_path)}, cwd=None)) as paper:
        trading = paper.trading
        for change in (trading.replace, trading.check_replacement, trading.preview_replacement):
            with pytest.raises(UsageError, match="'qyt' of an order cannot be changed"):
                change("61e69015-8549-4bfd-b9c3-01e75843f47d", {"limit_price": "99", "qyt": 5})
        assert paper.limits().used == 0
