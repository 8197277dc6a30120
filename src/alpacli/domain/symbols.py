"""How a symbol is written: in capitals, wherever it comes from, since Alpaca tells capitals from small letters.

Only a to z are raised. Python's ``upper`` makes ``SS`` of ``ß`` and ``S`` of ``ſ``, which are other companies; such a letter
stays, so that whoever looks the symbol up refuses it. The id of an asset, which can stand for its symbol, is written small,
as Alpaca writes it.
"""

import re
from typing import Final

from alpacli.arguments import a_text

_ASSET_ID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}")


def spelled(text: str) -> str:
    """Return a symbol in capitals: ``btc/usd`` is ``BTC/USD``; the id of an asset in small letters.

    Raises:
        UsageError: it is no text.
    """
    text = a_text("the symbol", text, "give a text, like 'AAPL' or 'BTC/USD'").strip()
    if is_asset_id(text):
        return text.lower()
    return "".join(letter.upper() if letter.isascii() else letter for letter in text)


def bare(symbol: str) -> str:
    """Return a symbol without what may be left away: a coin's slash, and a share's exchange behind a colon."""
    return spelled(symbol).partition(":")[0].replace("/", "")


def is_asset_id(symbol: str) -> bool:
    """Tell whether the id of an asset stands where a symbol could."""
    return _ASSET_ID.fullmatch(symbol) is not None
