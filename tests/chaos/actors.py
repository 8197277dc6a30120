"""Programs that use an account as people's scripts do, for ever: ``python -m tests.chaos.actors NAME FILE``.

Each writes what it was told into its file, a JSON line each. Our own errors are everyday; anything else ends the program with
its traceback, and that is a finding.
"""

import json
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Final

from alpacli import connect
from alpacli.domain.tickets import OrderTicket
from alpacli.errors import AlpacliError, FateUnknown

Say = Callable[..., None]
_PAUSE_S: Final = 0.05


def read(say: Say) -> None:
    """Read account and positions again and again, past the cache every other time."""
    with connect(max_wait=3, timeout=2) as paper:
        turn = 0
        while True:
            turn += 1
            try:
                paper.get_account(use_cache=turn % 2 == 0)
                paper.get_positions(use_cache=turn % 3 == 0)
                say(what="read")
            except AlpacliError as error:
                say(what="error", kind=type(error).__name__)
                time.sleep(_PAUSE_S)


def trade(say: Say) -> None:
    """Place orders that wait for ever, and cancel every third one."""
    with connect(max_wait=5, timeout=2) as paper:
        turn = 0
        while True:
            turn += 1
            name = f"lib-{uuid.uuid4()}"
            ticket = OrderTicket(
                symbol="F", side="buy", qty=Decimal(1), type="limit", limit_price=Decimal("1.00"), client_order_id=name
            )
            try:
                order = paper.trading.place(ticket)
                say(what="placed", name=name)
                if turn % 3 == 0:
                    paper.trading.cancel(order.id)
                    say(what="canceled", name=name)
            except FateUnknown:
                say(what="unknown", name=name)
            except AlpacliError as error:
                say(what="error", name=name, kind=type(error).__name__)
            time.sleep(4 * _PAUSE_S)


def gateway(say: Say, url: str, key_id: str, secret: str) -> None:
    """Use the gateway's own copy of Alpaca's API: the account, and orders."""
    headers = {"APCA-API-KEY-ID": key_id, "APCA-API-SECRET-KEY": secret, "Content-Type": "application/json"}
    turn = 0
    while True:
        turn += 1
        name = f"gate-{uuid.uuid4()}"
        order = {"symbol": "F", "qty": "1", "side": "buy", "type": "limit", "limit_price": "1", "time_in_force": "day"}
        body = json.dumps({**order, "client_order_id": name}).encode() if turn % 4 == 0 else None
        path = "/v2/orders" if body else "/v2/account"
        try:
            with urllib.request.urlopen(urllib.request.Request(url + path, body, headers), timeout=20) as answer:
                answer.read()
            say(what="placed" if body else "read", name=name)
        except urllib.error.HTTPError as error:
            say(what="error", kind=str(error.code), name=name)
            error.close()
        except OSError as error:
            say(what="error", kind=type(error).__name__, name=name)
        time.sleep(4 * _PAUSE_S)


def main() -> None:
    import os

    name, path = sys.argv[1], Path(sys.argv[2])
    with path.open("a", buffering=1) as file:

        def say(**fields: str) -> None:
            file.write(json.dumps(fields) + "\n")

        if name == "gateway":
            gateway(say, sys.argv[3], os.environ["ALPACA_API_KEY"], os.environ["ALPACA_SECRET_KEY"])
        {"read": read, "trade": trade}[name](say)


if __name__ == "__main__":
    main()
