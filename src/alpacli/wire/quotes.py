"""The market's bid and ask at this moment, to judge an order by. Apart from ``market``, which loads what ticks need.

Source: the Market Data API's latest quotes, for stocks, options and crypto.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from alpacli.domain.tickets import asset_class
from alpacli.domain.values import from_json
from alpacli.errors import UnreadableAnswer
from alpacli.ports import Request
from alpacli.wire.rest import Call


def bids_and_asks(
    symbols: Sequence[str], *, feed: str = "iex"
) -> Call[dict[str, tuple[Decimal | None, Decimal | None]]]:
    """Ask for the latest bid and ask of shares, options or coin pairs (``BTC/USD``) in USD; ``None`` without one.

    All symbols are of one class, and each of them is in the answer. ``feed`` is that of shares: ``sip`` or ``iex``.
    """

    def decode(body: bytes) -> dict[str, tuple[Decimal | None, Decimal | None]]:
        try:
            tree: Any = from_json(body)
            found = {symbol: (tree["quotes"] or {}).get(symbol) or {} for symbol in symbols}
            return {symbol: (_price(quote, "bp"), _price(quote, "ap")) for symbol, quote in found.items()}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UnreadableAnswer(
                "the answer for quotes is not what the endpoint promises", "try again later"
            ) from error

    path, more = {
        "us_equity": ("/v2/stocks/quotes/latest", (("feed", feed),)),
        "us_option": ("/v1beta1/options/quotes/latest", ()),  # the best feed of the plan
        "crypto": ("/v1beta3/crypto/us/latest/quotes", ()),
    }[asset_class(symbols[0])]
    return Call("quotes", Request("GET", path, (("symbols", ",".join(symbols)), *more), host="data"), decode)


def _price(quote: Mapping[str, Any], letter: str) -> Decimal | None:
    value = quote.get(letter)
    return Decimal(value) if isinstance(value, int | Decimal) and value > 0 else None
