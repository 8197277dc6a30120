"""Run the rows and print goal, measurement and verdict."""

import argparse
import json
import sys
import traceback
from collections.abc import Callable

from benchmarks import ledger, sharing, starts, streams
from benchmarks.measure import Row


def _day(_: int) -> list[Row]:
    from benchmarks.day import day  # loads the library, which must not weigh on the rows that measure memory

    return day()


def _exchange(name: str) -> Callable[[int], list[Row]]:
    def measured(pairs: int) -> list[Row]:
        from benchmarks import exchange  # loads the library, as above

        run: Callable[[int], list[Row]] = getattr(exchange, name)
        return run(pairs)

    return measured


def _gateway(turns: int) -> list[Row]:
    from benchmarks.gateways import account

    return account(turns)


def _loop(turns: int) -> list[Row]:
    from benchmarks.loops import assets  # loads the library, as above

    return assets(turns)


def _relays(name: str) -> Callable[[int], list[Row]]:
    def measured(pairs: int) -> list[Row]:
        from benchmarks import relays  # loads Redis's client, as above

        run: Callable[[int], list[Row]] = getattr(relays, name)
        return run(pairs)

    return measured


def _soak(minutes: float) -> list[Row]:
    from benchmarks.soak import soak

    return soak(minutes)


def _downloads(name: str) -> Callable[[int], list[Row]]:
    def measure(pairs: int) -> list[Row]:
        from benchmarks import history

        return list(getattr(history, name)(pairs))

    return measure


_SHORT_SOAK_MINUTES = 3.0

ROWS: dict[str, Callable[[int], list[Row]]] = {
    "hit": starts.hit,
    "table": starts.table,
    "dry-run": starts.dry_run,
    "fresh": starts.fresh,
    "help": starts.usage,
    "completion": starts.completion,
    "herd": lambda _: sharing.herd(),
    "pressure": lambda _: sharing.pressure(),
    "budget": sharing.budget,
    "redis": sharing.redis,
    "day": _day,
    "loop": _loop,
    "kept": _downloads("downloads"),
    "kept-csv": _downloads("downloads_as_text"),
    "ndjson": streams.ndjson,
    "live-table": streams.live_table,
    "first-tick": streams.first_tick,
    "many": streams.many,
    "memory": streams.memory,
    "engine": _exchange("engine"),
    "engine-compiled": _exchange("compiled"),
    "engine-http": _exchange("over_http"),
    "away": _exchange("away"),
    "past-day": _exchange("past_day"),
    "gateway": _gateway,
    "relay": _relays("relay"),
    "fleet": _relays("fleet"),
    "soak": lambda _: _soak(_SHORT_SOAK_MINUTES),
    "snapshot": ledger.snapshot,
    "sync": ledger.sync,
    "stats": ledger.stats,
}


def main() -> int:
    """Run what was asked for; exit 1 when a goal was missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure alpacli's performance goals.")
    parser.add_argument("--only", choices=ROWS, action="append", help="run this row only (may be repeated)")
    parser.add_argument("--pairs", type=int, default=15, help="how many turns each comparison takes (default 15)")
    parser.add_argument(
        "--minutes",
        type=float,
        default=_SHORT_SOAK_MINUTES,
        help=f"how long the soak lasts (default {_SHORT_SOAK_MINUTES:g}; the goal is 60)",
    )
    parser.add_argument("--json", action="store_true", help="print the rows as a JSON array")
    arguments = parser.parse_args()
    measures: dict[str, Callable[[int], list[Row]]] = {**ROWS, "soak": lambda _: _soak(arguments.minutes)}
    rows = []
    for name in arguments.only or measures:
        sys.stderr.write(f"{name} …\n")
        try:
            rows += measures[name](arguments.pairs)
        except Exception as error:  # noqa: BLE001 # whatever it is, the other rows took too long to be lost with it
            traceback.print_exc()
            rows.append(Row(name, name, "", "failed", False, repr(error)))
    if arguments.json:
        print(json.dumps([row._asdict() for row in rows], indent=2, ensure_ascii=False))
    else:
        _print_table(rows)
    return 0 if all(row.met for row in rows) else 1


def _print_table(rows: list[Row]) -> None:
    width = max(len(row.what) for row in rows)
    print(f"{'what':<{width}}  {'goal':>12}  {'measured':>14}  verdict")
    for row in rows:
        verdict = {True: "met", False: "MISSED", None: "not measured"}[row.met]
        print(f"{row.what:<{width}}  {row.goal:>12}  {row.measured:>14}  {verdict}")
        if row.detail:
            print(f"{'':<{width}}  {row.detail}")


if __name__ == "__main__":
    sys.exit(main())
