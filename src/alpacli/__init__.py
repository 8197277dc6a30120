"""alpacli: the client library for Alpaca paper-trading accounts, and the command line over it.

>>> from alpacli import connect
>>> with connect() as paper:
...     paper.get_account().buying_power
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from alpacli.errors import AlpacaAPIError as AlpacaAPIError
    from alpacli.errors import AlpacliError as AlpacliError
