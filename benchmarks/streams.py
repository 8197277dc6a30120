"""Live data: how fast, how soon, how fresh, for how many, and in how much memory."""

import re
import statistics
import sys
import time
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple

from benchmarks.feed import BEAT, Feed, names
from benchmarks.measure import Row
from benchmarks.running import Place, Reader, place, processor_s, pump, pump_for, resident_mib, settle

_SYMBOLS = 10

# ------------------------------------------------------------------------------------------------------- NDJSON

_SDK = """
import sys, time
from alpaca.data.live import StockDataStream

async def nothing(tick):
    pass

async def told(tick):
    print(time.monotonic(), flush=True)

stream = StockDataStream("PKBENCHMARK", "benchmark-secret", url_override=sys.argv[1])
stream.subscribe_quotes(nothing, *sys.argv[3:])
stream.subscribe_trades(nothing, *sys.argv[3:])
stream.subscribe_quotes(told, sys.argv[2])
stream.run()
"""


def ndjson(turns: int) -> list[Row]:
    """Messages a second out of ``stream --json``, against the SDK's stream with a handler that does nothing."""
    rows = []
    for per_frame, goal, messages in ((20, 5.0, 600_000), (1, 3.0, 200_000)):
        shared, own, reference = [], [], []
        for _ in range(max(turns // 5, 1)):
            reference.append(_sdk_rate(per_frame, messages))
            shared.append(_our_rate(per_frame, messages))
            own.append(_our_rate(per_frame, messages, "--no-hub"))
        sdk = statistics.median(reference)
        for what, taken in (("", shared), (" --no-hub", own)):
            ratio = statistics.median(taken) / sdk
            rows.append(
                Row(
                    "ndjson",
                    f"stream --json{what} / the SDK's stream, {per_frame} a frame",
                    f"≥ {goal:g} ×",
                    f"{ratio:.1f} ×",
                    ratio >= goal,
                    f"medians {statistics.median(taken):,.0f}/s against {sdk:,.0f}/s, {len(taken)} turns",
                )
            )
    return rows


def _sdk_rate(per_frame: int, messages: int) -> float:
    with Feed() as feed, place(feed) as at:
        program = [sys.executable, "-c", _SDK, f"{feed.url}/v2/iex", BEAT, *names(_SYMBOLS)]
        with Reader(program, at.env) as reader:
            settle([reader], feed)
            reader.keep = True
            feed.begin("blast", messages=messages, per_frame=per_frame, symbols=_SYMBOLS)
            sent = feed.finished()
            feed.beat()  # comes after all the others
            pump([reader], lambda: reader.lines == 1)
            return sent.sent / (float(reader.seen[0][1]) - sent.began)


def _our_rate(per_frame: int, messages: int, *options: str) -> float:
    with Feed() as feed, place(feed) as at, at.stream(names(_SYMBOLS), "--json", *options) as reader:
        settle([reader], feed)
        feed.begin("blast", messages=messages, per_frame=per_frame, symbols=_SYMBOLS)
        pump([reader], lambda: reader.lines >= messages)
        return messages / (reader.last_at - feed.finished().began)


# -------------------------------------------------------------------------------------------------------- table

_MARK_SHOWN = re.compile(rb"5,(\d\d\d),(\d\d\d)\.01")
_LATENCY = re.compile(r"latency ([\d.]+)/([\d.]+) ms")


def live_table(_: int, rate: int = 100_000, symbols: int = 500, seconds: float = 10.0) -> list[Row]:
    """The table of a busy feed: what is lost, how old is what it shows, and what it costs."""
    chosen = names(symbols)
    with Feed() as feed, place(feed) as at, at.stream(chosen, rows=50) as reader:
        settle([reader], feed)
        pump_for([reader], 2.0)  # what is fetched at the start is there
        reader.keep = True
        hub = at.hub()
        before = (time.monotonic(), processor_s(reader.process.pid), processor_s(hub))
        feed.begin("pace", rate=rate, seconds=seconds, per_frame=20, symbols=symbols)
        pump_for([reader], seconds)
        after = (time.monotonic(), processor_s(reader.process.pid), processor_s(hub))
        sent = feed.finished()
        pump_for([reader], 1.5)
        seen = list(reader.seen)
        reader.seen.clear()
        reader.resize(symbols + 10)
        pump_for([reader], 2.0)
        screen = _screen(b"".join(data for _, data in reader.seen), symbols + 10)
    trades = {name: round(seconds / 0.001 * rate / 1000 / symbols * 0.3) for name in chosen}
    shown = _volumes(screen)
    short = sum(trades[name] - shown.get(name, 0) for name in chosen)
    complete = max((mark for _, mark in _marks(seen)), default=-1) == len(sent.marks) - 1
    lost = f"{short} of {sum(trades.values()):,} trades"
    stale = sorted(_staleness_ms(_marks(seen), sent.marks))
    screen_p99 = stale[len(stale) * 99 // 100] if stale else float("inf")
    latency = _LATENCY.search("\n".join(screen))
    model_p99 = float(latency[2]) if latency else float("inf")
    what = f"table at {rate:,} messages/s, {symbols} symbols"
    feed_late = f"the feed itself was up to {sent.late_s * 1000:.0f} ms late"
    rows = [
        Row(
            "live-table",
            f"{what}: lost",
            "nothing",
            lost,
            short == 0 and complete,
            f"{sent.sent:,} messages; all trades counted by symbol, the last quote {'shown' if complete else 'NOT shown'}",
        ),
        Row(
            "live-table", f"{what}: age in the model, p99", "< 50 ms", f"{model_p99:.0f} ms", model_p99 < 50, feed_late
        ),
        Row(
            "live-table",
            f"{what}: age of what the screen shows, p99",
            "< 150 ms",
            f"{screen_p99:.0f} ms",
            screen_p99 < 150,
            f"median {stale[len(stale) // 2] if stale else 0:.0f} ms, {len(_marks(seen))} redraws",
        ),
    ]
    cores = _share(before[1], after[1], after[0] - before[0])
    hub_cores = _share(before[2], after[2], after[0] - before[0])
    hub_used = "" if hub_cores is None else f"the shared connection's process: {hub_cores:.2f}"
    rows.append(
        Row(
            "live-table",
            f"{what}: processor",
            "≤ 1 core",
            "?" if cores is None else f"{cores:.2f}",
            None if cores is None else cores <= 1,
            hub_used,
        )
    )
    return rows


def _share(before_s: float | None, after_s: float | None, wall_s: float) -> float | None:
    return None if before_s is None or after_s is None else (after_s - before_s) / wall_s


def _marks(seen: Sequence[tuple[float, bytes]]) -> list[tuple[float, int]]:
    """Return when which mark was drawn."""
    return [(at, int(thousands + ones)) for at, data in seen for thousands, ones in _MARK_SHOWN.findall(data)]


def _staleness_ms(drawn: Sequence[tuple[float, int]], sent: Sequence[float]) -> list[float]:
    """Return how old what the screen showed was, in every millisecond of the time in which marks were sent."""
    times = [at for at, _ in drawn]
    ages = []
    for now in sent[1000:]:  # the first second is the start
        place = bisect_right(times, now) - 1
        ages.append((now - (sent[drawn[place][1]] if place >= 0 else sent[0])) * 1000)
    return ages


def _screen(data: bytes, rows: int) -> list[str]:
    import pyte

    screen = pyte.Screen(200, rows)
    pyte.ByteStream(screen).feed(data)
    return list(screen.display)


def _volumes(screen: Sequence[str]) -> dict[str, int]:
    head = next((line for line in screen if "Volume" in line), "")
    end = head.find("Volume") + len("Volume")
    found = {}
    for line in screen:
        symbol, volume = line[:9].strip(), line[end - 9 : end].strip().replace(",", "")
        if volume.isdecimal():
            found[symbol] = int(volume)
    return found


# --------------------------------------------------------------------------------------------------- first tick

_BARE = """
import asyncio, json
import typer
from websockets.asyncio.client import connect

app = typer.Typer()

async def first(url, symbol):
    async with connect(url, compression=None) as socket:
        await socket.recv()
        await socket.send(json.dumps({"action": "auth", "key": "PKBENCHMARK", "secret": "benchmark-secret"}))
        await socket.recv()
        await socket.send(json.dumps({"action": "subscribe", "trades": [symbol], "quotes": [symbol]}))
        while True:
            for message in json.loads(await socket.recv()):
                if message["T"] in ("t", "q"):
                    print(message["S"], f"{message['bp']:.2f}", flush=True)
                    return

@app.command()
def stream(url: str, symbol: str) -> None:
    asyncio.run(first(url, symbol))

app()
"""


def first_tick(pairs: int) -> list[Row]:
    """How long a user waits for the first tick, against a bare program that asks for the same."""
    turns = max(pairs * 2 // 3, 3)
    taken: dict[tuple[str, bool], list[float]] = {}
    ways = ("bare", "cold", "running", "--no-hub")
    with Feed(beats_at_once=True) as feed, place(feed) as at:
        bare = [sys.executable, "-c", _BARE, f"{feed.url}/v2/iex", BEAT]
        for turn in range(turns + 1):
            for screen in (True, False):
                for way in ways:
                    seconds = _until_first(at, way, bare, screen=screen)
                    if turn:  # the first is for the files to become warm
                        taken.setdefault((way, screen), []).append(seconds)
    rows = []
    for screen in (True, False):
        reference = statistics.median(taken["bare", screen])
        for way, said in (
            ("cold", "no shared connection yet"),
            ("running", "shared connection there"),
            ("--no-hub",) * 2,
        ):
            median = statistics.median(taken[way, screen])
            ratio = median / reference
            rows.append(
                Row(
                    "first-tick",
                    f"start to first tick {'on the screen' if screen else 'as a line'} / bare program, {said}",
                    "≤ 2 ×",
                    f"{ratio:.2f} ×",
                    ratio <= 2,
                    f"medians {median * 1000:.0f} ms against {reference * 1000:.0f} ms, {turns} turns",
                )
            )
    return rows


def _until_first(at: Place, way: str, bare: list[str], *, screen: bool) -> float:
    if way in ("bare", "cold", "--no-hub"):
        at.end_hub()
    rows = 50 if screen else None
    options = [*(["--no-hub"] if way == "--no-hub" else []), *([] if screen else ["--json"])]
    with Reader(bare, at.env, rows=rows) if way == "bare" else at.stream([], *options, rows=rows) as reader:
        reader.keep = True
        said = b""

        def told() -> bool:
            nonlocal said
            said += b"".join(data for _, data in reader.seen)
            reader.seen.clear()
            return b"100.00" in said if screen else b"\n" in said

        pump([reader], told, 30)
        return reader.last_at - reader.began


# --------------------------------------------------------------------------------------------------- many at once


def many(_: int, streams: int = 20) -> list[Row]:
    """Streams that share one connection: what all of them get in sum, and what the sharing adds to a message's way."""
    messages = 200_000
    with Feed() as feed, place(feed) as at, ExitStack() as stack:
        readers = [stack.enter_context(at.stream(names(_SYMBOLS), "--json")) for _ in range(streams)]
        settle(readers, feed)
        feed.begin("blast", messages=messages, per_frame=20, symbols=_SYMBOLS)
        pump(readers, lambda: all(reader.lines >= messages for reader in readers))
        rate = messages * streams / (max(reader.last_at for reader in readers) - feed.finished().began)
        exact = all(reader.lines == messages for reader in readers)
        shared = _latencies(readers, feed)
        connections = feed.count()["accepted"]
    with Feed() as feed, place(feed) as at, at.stream(names(_SYMBOLS), "--json", "--no-hub") as reader:
        settle([reader], feed)
        direct = _latencies([reader], feed)
    added = shared.p99_ms - direct.median_ms
    what = f"{streams} streams through the shared connection"
    return [
        Row("many", f"{what}: connections upstream", "1", f"{connections}", connections == 1),
        Row(
            "many",
            f"{what}: delivered in sum",
            "≥ 300,000/s",
            f"{rate:,.0f}/s",
            rate >= 300_000 and exact,
            f"{messages:,} messages to each, {'none lost' if exact else 'SOME LOST'}",
        ),
        Row(
            "many",
            f"{what}: added latency, p99",
            "≤ 15 ms",
            f"{added:.1f} ms",
            added <= 15,
            f"at 10,000 messages/s: p50 {shared.median_ms:.1f} ms, p99 {shared.p99_ms:.1f} ms; one stream on a connection"
            f" of its own: p50 {direct.median_ms:.1f} ms, p99 {direct.p99_ms:.1f} ms",
        ),
    ]


class _Latency(NamedTuple):
    median_ms: float
    p99_ms: float


_SECONDS = re.compile(rb':(\d\d\.\d{6})\d{3}Z"')


def _latencies(readers: Sequence[Reader], feed: Feed, rate: int = 10_000, seconds: float = 5.0) -> _Latency:
    """Return the time from the feed's sending a message to the reader's having its line."""
    offset = time.time() - time.monotonic()
    for reader in readers:
        reader.lines = 0
        reader.keep = True
    feed.begin("pace", rate=rate, seconds=seconds, per_frame=5, symbols=_SYMBOLS)
    wanted = round(rate * seconds)
    pump(readers, lambda: all(reader.lines >= wanted for reader in readers))
    feed.finished()
    taken = []
    for reader in readers:
        begins = reader.seen[0][0] + 1.0  # the first second is the start
        for at, data in reader.seen:
            if at > begins:
                arrived = (at + offset) % 60
                taken += [(arrived - float(sent)) % 60 for sent in _SECONDS.findall(data)]
    taken.sort()
    return _Latency(taken[len(taken) // 2] * 1000, taken[len(taken) * 99 // 100] * 1000)


# -------------------------------------------------------------------------------------------------------- memory


def memory(_: int, messages: int = 10_000_000) -> list[Row]:
    """Resident memory between the first and the second million, and in the last."""
    million = 1_000_000
    taken: dict[str, list[tuple[int, float]]] = {"the stream": [], "the shared connection's process": []}
    with Feed() as feed, place(feed) as at, at.stream(names(_SYMBOLS), "--json") as reader:
        settle([reader], feed)
        hub = at.hub()
        looked_at = 0

        def look() -> bool:
            nonlocal looked_at
            if reader.lines - looked_at > million // 20:
                looked_at = reader.lines
                for name, pid in zip(taken, (reader.process.pid, hub), strict=True):
                    if (mib := resident_mib(pid)) is not None:
                        taken[name].append((reader.lines, mib))
            return reader.lines >= messages

        feed.begin("blast", messages=messages, per_frame=20, symbols=_SYMBOLS)
        pump([reader], look, 600)
        feed.finished()
    rows = []
    for name, samples in taken.items():
        early = [mib for lines, mib in samples if million <= lines < 2 * million]
        late = [mib for lines, mib in samples if lines >= messages - million]
        if not early or not late:
            rows.append(Row("memory", f"memory of {name}", "± 5 %", "?", None, "not to be had here"))
            continue
        grown = statistics.median(late) / statistics.median(early) - 1
        rows.append(
            Row(
                "memory",
                f"memory of {name} after {messages // million} million messages",
                "± 5 %",
                f"{grown:+.1%}",
                abs(grown) <= 0.05,
                f"{statistics.median(early):.1f} MiB in the second million, {statistics.median(late):.1f} MiB in the last",
            )
        )
    return rows
