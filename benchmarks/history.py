"""A million minute bars, downloaded and then taken from what is kept, against the official SDK on the same server.

The server is a process of its own that hands out pages which were made beforehand, so that what is measured is the client.
Both ask for the same interval and write the same rows; the files are compared afterwards.
"""

import contextlib
import datetime as dt
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import Command, Comparison, Row, alpacli, environment, run

ROWS = 1_000_000
PAGE = 10_000
_FIRST = dt.date(2015, 1, 5)
_START, _END = "2015-01-01", "2026-01-01"
_REFERENCE = """
import sys
from datetime import datetime, UTC
from alpaca.data.historical.stock import StockHistoricalDataClient
from alpaca.data.requests import StockBarsRequest
from alpaca.data.timeframe import TimeFrame
client = StockHistoricalDataClient("PKBENCHMARK", "benchmark-secret", url_override=sys.argv[1])
frame = client.get_stock_bars(StockBarsRequest(
    symbol_or_symbols="AAPL", timeframe=TimeFrame.Minute,
    start=datetime(2015, 1, 1, 5, tzinfo=UTC), end=datetime(2026, 1, 2, 4, 59, 59, tzinfo=UTC),
)).df
frame.to_csv(sys.argv[2]) if sys.argv[2].endswith(".csv") else frame.to_parquet(sys.argv[2])
"""


def downloads(pairs: int) -> list[Row]:
    """Measure the download and the second time, as Parquet."""
    return _downloads("parquet", min(pairs, 3))


def downloads_as_text(_: int) -> list[Row]:
    """Measure them as CSV, once: pandas writes a million rows with their times in a quarter to half an hour."""
    return _downloads("csv", 1)


def _downloads(suffix: str, turns: int) -> list[Row]:
    with tempfile.TemporaryDirectory() as name, _server() as url:
        folder = Path(name)
        env = environment(folder, ALPACA_DATA_URL=url, ALPACA_BASE_URL=url)
        ours, theirs, again = (folder / f"{who}.{suffix}" for who in ("ours", "theirs", "again"))
        arguments = (alpacli(), "bars", "AAPL", "--start", _START, "--end", _END, "--quiet", "-o")
        first = Command([*arguments, str(ours)], env, prepare=lambda: shutil.rmtree(folder / "state", True))
        second = Command([*arguments, str(again)], env)
        reference = Command([sys.executable, "-c", _REFERENCE, url, str(theirs)], env)
        taken, kept = Comparison([], []), Comparison([], [])
        for _ in range(turns):
            taken.reference.append(run(reference))
            taken.ours.append(run(first))
            asked = _asked(url)
            kept.reference.append(taken.ours[-1])
            kept.ours.append(run(second))
            if _asked(url) != asked:
                raise RuntimeError("the second time sent a request")
        _check(ours, theirs, again)
    return [
        Row(
            f"bars-{suffix}-time", f"{ROWS:,} minute bars to {suffix}, time against the SDK", "≤ 0.4 ×",
            f"{taken.time_ratio:.3f} ×", taken.time_ratio <= 0.4, taken.detail(),
        ),
        Row(
            f"bars-{suffix}-memory", f"{ROWS:,} minute bars to {suffix}, peak memory against the SDK", "≤ 0.25 ×",
            f"{taken.memory_ratio:.2f} ×", taken.memory_ratio <= 0.25,
            f"{taken.ours[0].peak_kib >> 10} MiB against {taken.reference[0].peak_kib >> 10} MiB",
        ),
        Row(
            f"kept-{suffix}", f"the same to {suffix} from what is kept, against the download", "≤ 0.1 ×",
            f"{kept.time_ratio:.2f} ×", kept.time_ratio <= 0.1,
            f"{kept.detail()}; {kept.time_ratio * taken.time_ratio:.3f} × the SDK's time; no request",
        ),
    ]  # fmt: skip


def _check(ours: Path, theirs: Path, again: Path) -> None:
    import pyarrow.csv
    import pyarrow.parquet

    read = pyarrow.csv.read_csv if ours.suffix == ".csv" else pyarrow.parquet.read_table
    mine, other = read(ours), read(theirs)
    if not mine.equals(read(again)):
        raise RuntimeError("the second time wrote other rows")
    for name in ("open", "high", "low", "close", "volume", "trade_count", "vwap"):
        if not mine[name].cast("double").combine_chunks().equals(other[name].cast("double").combine_chunks()):
            raise RuntimeError(f"the files differ in {name}")


def _asked(url: str) -> int:
    with urllib.request.urlopen(f"{url}/asked", timeout=10) as answer:
        return int(answer.read())


@contextlib.contextmanager
def _server() -> Iterator[str]:
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.history"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(10)


def _pages() -> Iterator[bytes]:
    """Make the bodies: a random walk over the minutes of regular sessions."""
    rnd = random.Random(2026)
    day, minute, price, made = _FIRST, 0, 18_700, 0
    while made < ROWS:
        rows = []
        for _ in range(PAGE):
            opened = price
            price = max(price + rnd.randint(-9, 9), 500)
            low, high = min(opened, price) - rnd.randint(0, 4), max(opened, price) + rnd.randint(0, 4)
            at = dt.datetime(day.year, day.month, day.day, 14, 30) + dt.timedelta(minutes=minute)  # noqa: DTZ001 # UTC
            rows.append(
                {
                    "c": price / 100, "h": high / 100, "l": low / 100, "n": rnd.randint(5, 900), "o": opened / 100,
                    "t": f"{at:%Y-%m-%dT%H:%M:%SZ}", "v": rnd.randint(100, 250_000),
                    "vw": round((low + high) / 200 + rnd.random() / 1000, 6),
                }
            )  # fmt: skip
            minute += 1
            if minute == 390:
                minute = 0
                day += dt.timedelta(3 if day.weekday() == 4 else 1)
        made += PAGE
        token = None if made >= ROWS else f"page-{made // PAGE}"
        yield json.dumps({"bars": {"AAPL": rows}, "next_page_token": token}, separators=(",", ":")).encode()


def _serve() -> None:
    from tests.support.origin import Origin, Reply, Seen

    from alpacli.history.runs import RUN_PATH

    pages = list(_pages())
    asked = [0]

    def answer(seen: Seen) -> Reply:
        if seen.path == "/asked":
            return Reply(body=str(asked[0]).encode())
        if seen.path == RUN_PATH:
            return Reply(404)  # as Alpaca would: no exchange is here, whose runs are told apart
        asked[0] += 1
        token = seen.query.get("page_token", ["page-0"])[0]
        return Reply(body=pages[int(token.removeprefix("page-"))])

    with Origin() as origin:
        origin.answer("/", answer)
        print(origin.url, flush=True)
        time.sleep(3600 * 6)


if __name__ == "__main__":
    _serve()
