"""The market's bid and ask at this moment, to judge an order by. Apart from ``market``, which loads what ticks need.

Source: the Market Data API's latest quotes, for stocks, options and crypto.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from alpacli.domain.tickets import asset_class
from alpacli.domain.values import from_json
from alpacli.errors import UnreadableAnswer
from alpacli.ports import Request
from alpacli.wire.rest import Call


def bid_and_ask(symbol: str) -> Call[tuple[Decimal | None, Decimal | None]]:
    """Ask for the latest bid and ask of a share, an option or a coin pair (``BTC/USD``) in USD; ``None`` without one."""

    def decode(body: bytes) -> tuple[Decimal | None, Decimal | None]:
        try:
            tree: Any = from_json(body)
            quote = (tree["quotes"] or {}).get(symbol) or {}
            return _price(quote, "bp"), _price(quote, "ap")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UnreadableAnswer(
                "the answer for quotes is not what the endpoint promises", "try again later"
            ) from error

    path, feed = {
        "us_equity": ("/v2/stocks/quotes/latest", (("feed", "iex"),)),
        "us_option": ("/v1beta1/options/quotes/latest", ()),  # the best feed of the plan
        "crypto": ("/v1beta3/crypto/us/latest/quotes", ()),
    }[asset_class(symbol)]
    return Call("quotes", Request("GET", path, (("symbols", symbol), *feed), host="data"), decode)


def _price(quote: Mapping[str, Any], letter: str) -> Decimal | None:
    value = quote.get(letter)
    return Decimal(value) if isinstance(value, int | Decimal) and value > 0 else None
