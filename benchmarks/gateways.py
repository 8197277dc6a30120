"""What the gateway costs a reader: the cached account, against a bare FastAPI route that answers with the same bytes."""

import json
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
from tests.support.fakes import ACCOUNT
from tests.support.origin import Origin, Reply

from benchmarks.measure import Row, alpacli, environment

CONNECTIONS = 50
SECONDS = 3.0
_BARE = """
import sys, socket, uvicorn
from fastapi import FastAPI, Response
body = open(sys.argv[1], "rb").read()
app = FastAPI()
@app.get("/account")
async def account():
    return Response(body, media_type="application/json")
listener = socket.create_server(("127.0.0.1", 0))
print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
uvicorn.Server(uvicorn.Config(app, access_log=False, log_level="warning")).run(sockets=[listener])
"""


def account(turns: int) -> list[Row]:
    """Compare turn by turn; both are one process of uvicorn with the same parser."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Origin() as origin:
            origin.reply("/v2/account", *[Reply(body=ACCOUNT)] * 1000)
            keys = {"ALPACA_API_KEY": "PKBENCH", "ALPACA_SECRET_KEY": "bench"}
            env = environment(folder, ALPACA_BASE_URL=origin.url, ALPACA_DATA_URL=origin.url, **keys)
            minted = subprocess.run([alpacli(), "serve", "token", "--quiet"], env=env, capture_output=True, check=True)
            header = f"Authorization: Bearer {minted.stdout.decode().strip()}"
            with _serving([alpacli(), "serve", "--port", "0", "--quiet"], env) as gateway:
                url = f"{gateway}/api/v1/broker/account"
                name_, _, value = header.partition(": ")
                (folder / "body").write_bytes(requests.get(url, headers={name_: value}, timeout=10).content)
                with _serving([sys.executable, "-c", _BARE, str(folder / "body")], env) as bare:
                    ours, theirs = [], []
                    for _ in range(max(min(turns, 5), 3)):
                        ours.append(_load(url, header))
                        theirs.append(_load(f"{bare}/account", header))
    our_rate, bare_rate = _median(ours, "rate"), _median(theirs, "rate")
    ratio, p99 = our_rate / bare_rate, _median(ours, "p99")
    rates = f"{our_rate:,.0f}/s against {bare_rate:,.0f}/s"
    beside = f"the bare route's {_median(theirs, 'p99'):.1f} ms"
    return [
        Row("gateway", "gateway: cached account, 50 connections", "≥ 0.5 ×", f"{ratio:.2f} ×", ratio >= 0.5, rates),
        Row("gateway", "gateway: its p99", "≤ 25 ms", f"{p99:.1f} ms", p99 <= 25.0, beside),
    ]


def _median(turns: list[dict[str, float]], what: str) -> float:
    return statistics.median(turn[what] for turn in turns)


def _load(url: str, header: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.loads", url, str(CONNECTIONS), str(SECONDS), header]
    told: dict[str, float] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    if "failure" in told:
        raise RuntimeError(f"{url}: {told['failure']}")
    return told


@contextmanager
def _serving(command: list[str], env: dict[str, str]) -> Iterator[str]:
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().decode().strip()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
