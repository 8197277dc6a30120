"""docs/python.md: its blocks are one program, which runs as it stands on the offline exchange."""

import json
from pathlib import Path

import pytest
from tests.support.kitchen import Kitchen, blocks

PAGE = Path(__file__).parents[2] / "docs" / "python.md"

RUNNER = """
import ast, asyncio, inspect, json, pathlib, sys

printed = 0
names = {"__name__": "page"}

async def for_as_long_as_it_is_new(block):
    '''Run to the end; what never ends, a stream, until it has told three things.'''
    global printed
    printed = 0
    running = asyncio.ensure_future(block)
    while not running.done() and (printed < 3 or "open_stream" not in text):
        await asyncio.sleep(0.02)
    if not running.done():
        running.cancel()
        await asyncio.wait([running])
    else:
        running.result()

def show(*values):
    global printed
    printed += 1
    print(*values)

names["print"] = show
for text in json.loads(pathlib.Path(sys.argv[1]).read_bytes()):
    code = compile(text, "docs/python.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if inspect.iscoroutine(block := eval(code, names)):
        asyncio.run(for_as_long_as_it_is_new(block))
print("the end")
"""


@pytest.mark.slow
def test_the_page_about_the_library_is_a_program_that_runs(tmp_path: Path) -> None:
    kitchen = Kitchen(tmp_path)
    try:
        texts = [block.text for block in blocks(PAGE)]
        assert len(texts) >= 6
        assert sum("await " in text for text in texts) >= 2
        (kitchen.user.cwd / "blocks.json").write_text(json.dumps(texts), encoding="utf-8")
        shown = kitchen.python("-W", "error", "-c", RUNNER, "blocks.json")
    finally:
        kitchen.close()
    assert shown.splitlines()[-1] == "the end"
    assert shown.count("AAPL ") >= 8, "batches, and three ticks of each stream"
