"""Which order somebody means: Alpaca's ID, or the client order ID of whoever sent it.

Alpaca, and its SDK, make client order IDs in the form of Alpaca's own, so such a text is taken for the one first and for the
other where nobody knows it.
"""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

from alpacli.domain.orders import Order
from alpacli.errors import NotFound
from alpacli.wire import rest
from alpacli.wire.rest import Call

if TYPE_CHECKING:
    from alpacli.broker.client import AlpacaClient

_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

_T = TypeVar("_T")


def find_order(text: str, read: Callable[[Call[Order]], _T]) -> _T:
    """Read an order, with its legs where the text is Alpaca's ID.

    Raises:
        NotFound: no order has such an ID.
    """
    by_client = rest.order_by_client_order_id(text)
    if not _UUID.fullmatch(text):
        return read(by_client)
    try:
        return read(rest.order(text.lower(), nested=True))
    except NotFound as unknown:
        return _or_else(unknown, lambda: read(by_client))


def act_on_order(client: "AlpacaClient", text: str, act: Callable[[str], _T]) -> _T:
    """Do something to an order, by Alpaca's ID of it; nothing is asked first where the text may be that ID.

    Raises:
        NotFound: no order has such an ID.
    """

    def by_client() -> _T:
        return act(client.read(rest.order_by_client_order_id(text), use_cache=False).value.id)

    if not _UUID.fullmatch(text):
        return by_client()
    try:
        return act(text.lower())
    except NotFound as unknown:
        return _or_else(unknown, by_client)


def _or_else(unknown: NotFound, other: Callable[[], _T]) -> _T:
    try:
        return other()
    except NotFound:
        raise unknown from None
