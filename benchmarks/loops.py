"""How long an event loop stands still while the awaited client reads all assets, against reading them in the loop itself."""

import asyncio
import json
import statistics
import time
from contextlib import suppress

from tests.support import parts
from tests.support.fakes import ScriptedTransport, answer

from alpacli.broker.async_client import AsyncAlpacaClient
from alpacli.ports import SystemClock
from alpacli.store.sqlite import SqliteStore
from alpacli.wire import rest
from benchmarks.measure import Row

ASSETS = 32_000
_BODY = json.dumps(
    [
        {
            "id": f"b0b6dd9d-8b9b-48a9-ba46-{number:012d}",
            "class": "us_equity",
            "exchange": "NASDAQ",
            "symbol": f"S{number:05d}",
            "name": f"Some Company Number {number} Inc. Common Stock",
            "status": "active",
            "tradable": True,
            "marginable": True,
            "maintenance_margin_requirement": 30,
            "margin_requirement_long": "30",
            "margin_requirement_short": "30",
            "shortable": True,
            "easy_to_borrow": True,
            "fractionable": True,
            "attributes": ["fractional_eh_enabled", "has_options"],
        }
        for number in range(ASSETS)
    ]
).encode()


def assets(turns: int) -> list[Row]:
    """Compare turn by turn; what is left is what Python's own reader and its garbage collector do in one go."""
    still, whole = [], []
    for _ in range(min(turns, 5)):
        still.append(asyncio.run(_longest_standstill()))
        call, began = rest.assets(), time.perf_counter()
        call.encode(call.decode(_BODY))
        whole.append(time.perf_counter() - began)
    ours, theirs = statistics.median(still), statistics.median(whole)
    detail = f"{ours * 1e3:.0f} ms, read in the loop {theirs * 1e3:.0f} ms"
    what = f"loop: {ASSETS:,} assets awaited, its longest standstill"
    return [Row("loop", what, "≤ 0.3 ×", f"{ours / theirs:.2f} ×", ours <= 0.3 * theirs, detail)]


async def _longest_standstill() -> float:
    clock = SystemClock()
    client = AsyncAlpacaClient(parts.pipeline(SqliteStore(":memory:", clock), clock), ScriptedTransport(answer(_BODY)))
    longest = 0.0

    async def look() -> None:
        nonlocal longest
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now

    looking = asyncio.create_task(look())
    async with client:
        await asyncio.sleep(0.01)
        await client.get_assets()
        await asyncio.sleep(0.01)
    looking.cancel()
    with suppress(asyncio.CancelledError):
        await looking
    return longest
