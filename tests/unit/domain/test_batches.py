"""Batches as a program awaits them."""

import subprocess
import sys

PROGRAM = """
import asyncio, sys, threading
from collections.abc import AsyncIterator
from alpacli import AsyncBatches, Batch

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name in ("pandas", "polars", "pyarrow"):
            print(name, "on the loop" if threading.current_thread() is threading.main_thread() else "aside")

async def nothing() -> AsyncIterator[Batch]:
    return
    yield

async def main() -> None:
    sys.meta_path.insert(0, Watch())
    batches = AsyncBatches("bars", nothing)
    print(len(await batches.to_pandas()), len(await batches.to_polars()), (await batches.to_arrow()).num_rows)

asyncio.run(main())
"""


def test_a_frame_is_made_beside_the_event_loop_and_its_library_loaded_there() -> None:
    """pandas takes half a second to load, for which nothing else would run."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert sorted(done.stdout.splitlines()) == ["0 0 0", "pandas aside", "polars aside", "pyarrow aside"]
